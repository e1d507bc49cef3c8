//! Query strings, typed, with the same kind of problem as bodies.

use super::{ApiError, codes};
use axum::extract::{FromRequestParts, Query};
use http::request::Parts;
use serde::Deserialize;

/// Parameters of the query string that fit `T`. Unknown ones are ignored: browsers and proxies add their own.
#[derive(Debug)]
pub struct Parameters<T>(pub T);

impl<T: for<'de> Deserialize<'de>, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(parameters)| Self(parameters))
            .map_err(|_| ApiError::new(&codes::INVALID_QUERY))
    }
}

/// A parameter within its bounds, which are part of the refusal.
///
/// # Errors
/// When it is out of bounds.
pub fn within(value: i64, min: i64, max: i64, name: &str) -> Result<i64, ApiError> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(ApiError::new(&codes::INVALID_QUERY).with_detail(format!("{name} must be {min} to {max}")))
    }
}
