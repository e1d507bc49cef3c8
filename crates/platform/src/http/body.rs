//! Request bodies: JSON only, bounded, strict, and typed down to the field.

use super::{ApiError, codes, strict};
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, header};
use mana_kernel::FieldError;
use serde::Deserialize;

/// The largest body that is read, in bytes.
pub const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// A JSON body that fits `T`. Bounds of a field belong to the field's type, so what arrives is valid.
#[derive(Debug)]
pub struct Valid<T>(pub T);

impl<T: for<'de> Deserialize<'de>, S: Send + Sync> FromRequest<S> for Valid<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(not_json());
        }
        parse(&read(request, state).await?).map(Self)
    }
}

/// The same where a body may also be absent.
#[derive(Debug)]
pub struct OptionalBody<T>(pub Option<T>);

impl<T: for<'de> Deserialize<'de>, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let bytes = read(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        if !is_json {
            return Err(not_json());
        }
        parse(&bytes).map(|value| Self(Some(value)))
    }
}

fn not_json() -> ApiError {
    ApiError::new(&codes::NOT_JSON)
        .with_hint("The body must be JSON, sent with the header Content-Type: application/json")
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|rejection| ApiError::from_status(rejection.status()))
}

fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, ApiError> {
    let strict::Unique(value) = serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        if error.is_data() {
            invalid(FieldError {
                pointer: String::new(),
                code: "duplicate",
                detail: format!("has an object with two members of one name, or with a name that is not allowed, at {place}"),
            })
        } else {
            ApiError::new(&codes::MALFORMED_JSON)
                .with_detail(format!("The body is not valid JSON at {place}"))
        }
    })?;
    if let Some(pointer) = strict::find_huge_number(&value) {
        let detail = "must not be a number beyond 9007199254740991 on either side".to_owned();
        return Err(invalid(FieldError { pointer, code: "invalid", detail }));
    }
    strict::read(value).map_err(invalid)
}

fn invalid(field: FieldError) -> ApiError {
    let name = field.pointer.trim_start_matches('/');
    let detail = if name.is_empty() {
        format!("The body {}", field.detail)
    } else {
        format!("{name} {}", field.detail)
    };
    ApiError::new(&codes::INVALID_BODY).with_detail(detail).with_fields(vec![field])
}
