//! Cursors of lists: where a page ended, and the `Link` header (RFC 8288) that leads to the next.

use super::{ApiError, codes};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::{HeaderName, header};
use url::form_urlencoded;

/// A place in a list, as clients carry it. It names a place and nothing else, so it needs no secret.
pub fn write_cursor(place: &[u8]) -> String {
    BASE64.encode(place)
}

/// The place that a cursor names.
///
/// # Errors
/// When it is none that a page gave.
pub fn read_cursor(text: &str) -> Result<Vec<u8>, ApiError> {
    BASE64.decode(text).map_err(|_| not_a_cursor())
}

/// What a cursor is told that names no place.
pub fn not_a_cursor() -> ApiError {
    ApiError::new(&codes::INVALID_QUERY).with_detail("cursor must be one that a page gave")
}

/// The header that leads to the page after `place`, with those of the parameters that are there.
pub fn next_link(path: &str, parameters: &[(&str, Option<&str>)], place: &[u8]) -> [(HeaderName, String); 1] {
    let given = parameters.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(given)
        .append_pair("cursor", &write_cursor(place))
        .finish();
    [(header::LINK, format!("<{path}?{query}>; rel=\"next\""))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_carries_what_was_asked_and_a_cursor_that_reads_back() {
        let [(name, value)] =
            next_link("/things", &[("limit", Some("2")), ("of", None), ("q", Some("a&b"))], b"place");
        assert_eq!(
            (name.as_str(), value.as_str()),
            ("link", "</things?limit=2&q=a%26b&cursor=cGxhY2U>; rel=\"next\"")
        );
        assert_eq!(read_cursor("cGxhY2U").unwrap(), b"place");
        for bad in ["=", "a", "a b", "cGxhY2U=", "\u{e9}"] {
            assert!(read_cursor(bad).is_err(), "{bad}");
        }
    }
}
