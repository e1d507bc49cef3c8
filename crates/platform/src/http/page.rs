//! Pages for people: rendered here, without a script, a picture or anything of another origin.

use super::{ApiError, codes};
use axum::response::{Html, IntoResponse as _, Response};
use http::{StatusCode, header};
use std::error::Error;

/// Styles in the page itself, nothing else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// A rendered page as an answer that no cache keeps.
pub fn page<E: Error + 'static>(status: StatusCode, rendered: Result<String, E>) -> Response {
    match rendered {
        Ok(html) => {
            let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")];
            (status, headers, Html(html)).into_response()
        }
        Err(error) => {
            let cause: &(dyn Error + 'static) = &error;
            tracing::error!(cause, "a page could not be rendered");
            ApiError::new(&codes::INTERNAL).into_response()
        }
    }
}
