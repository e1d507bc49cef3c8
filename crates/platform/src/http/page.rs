//! Pages for people: rendered here, without a script, a picture or anything of another origin.

use super::{ApiError, codes};
use axum::response::{Html, IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use std::error::Error;
use url::Url;

/// Styles in the page itself, nothing else; the form goes to this service.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// A rendered page as an answer that no cache keeps.
pub fn page<E: Error + 'static>(status: StatusCode, rendered: Result<String, E>) -> Response {
    page_leading_to(status, rendered, &[])
}

/// The same for a page whose form is answered by a redirect to one of these URLs, which browsers hold against the page's policy too.
pub fn page_leading_to<E: Error + 'static>(
    status: StatusCode,
    rendered: Result<String, E>,
    targets: &[String],
) -> Response {
    let policy = targets
        .iter()
        .filter_map(|target| source_of(target))
        .fold(POLICY.to_owned(), |policy, source| format!("{policy} {source}"));
    match rendered {
        Ok(html) => {
            let headers = [
                // An origin is always a value.
                (
                    header::CONTENT_SECURITY_POLICY,
                    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static(POLICY)),
                ),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
                // With none at all, a browser sends the page's own form with `Origin: null`, and an old one says nothing else
                // by which the form could be told from a foreign page's.
                (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
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

/// The origin of a URL as a policy names it; none if it has a letter that means something else there.
fn source_of(url: &str) -> Option<String> {
    let origin = Url::parse(url).ok()?.origin().ascii_serialization();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._:/[]".contains(letter);
    origin.chars().all(is_plain).then_some(origin)
}

/// Sends a browser on to `url`, which nobody is told where it came from: this address, or the next, may hold a secret.
pub fn see_other(url: &str) -> Response {
    let Ok(location) = HeaderValue::try_from(url) else {
        return ApiError::new(&codes::INTERNAL).into_response();
    };
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

#[cfg(test)]
mod tests {
    use super::source_of;

    #[test]
    fn a_policy_names_an_origin_and_nothing_that_could_end_it() {
        assert_eq!(
            source_of("https://app.example.com/login?a=b;c").as_deref(),
            Some("https://app.example.com")
        );
        assert_eq!(source_of("http://[::1]:3000/").as_deref(), Some("http://[::1]:3000"));
        for bad in ["https://a;script-src.example.com", "https://a,b.example.com", "/login", ""] {
            assert_eq!(source_of(bad), None, "{bad}");
        }
    }
}
