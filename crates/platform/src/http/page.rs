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
            let headers = [
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::CACHE_CONTROL, "no-store"),
                // With none at all, a browser sends the page's own form with `Origin: null`, and an old one says nothing else
                // by which the form could be told from a foreign page's.
                (header::REFERRER_POLICY, "same-origin"),
            ];
            (status, headers, Html(html)).into_response()
        }
        Err(error) => {
            let cause: &(dyn Error + 'static) = &error;
            tracing::error!(cause, "a page could not be rendered");
            ApiError::new(&codes::INTERNAL).into_response()
        }
    }
}
