//! Bytes in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use std::borrow::Cow;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

/// Bytes whose base64url without padding has `MIN` to `MAX` letters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Encoded<const MIN: usize, const MAX: usize>(Vec<u8>);

/// Not base64url of the length.
#[derive(Debug, thiserror::Error)]
#[error("must be {0} to {1} letters of base64url without padding")]
pub(crate) struct NotEncoded(usize, usize);

impl<const MIN: usize, const MAX: usize> Encoded<MIN, MAX> {
    /// The bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<const MIN: usize, const MAX: usize> TryFrom<String> for Encoded<MIN, MAX> {
    type Error = NotEncoded;

    fn try_from(text: String) -> Result<Self, NotEncoded> {
        let bytes = (MIN..=MAX).contains(&text.len()).then(|| URL_SAFE_NO_PAD.decode(text).ok());
        bytes.flatten().map(Self).ok_or(NotEncoded(MIN, MAX))
    }
}

impl<const MIN: usize, const MAX: usize> utoipa::PartialSchema for Encoded<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .min_length(Some(MIN))
            .max_length(Some(MAX))
            .pattern(Some("^[A-Za-z0-9_-]*$"))
            .into()
    }
}

impl<const MIN: usize, const MAX: usize> utoipa::ToSchema for Encoded<MIN, MAX> {
    fn name() -> Cow<'static, str> {
        Cow::Owned(format!("Encoded{MIN}To{MAX}"))
    }
}

/// For answers.
pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
