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

#[cfg(test)]
mod tests {
    use super::*;
    use http::Uri;
    use proptest::prelude::*;

    #[derive(Debug, Deserialize)]
    struct Page {
        limit: Option<i64>,
        cursor: Option<String>,
    }

    fn read(query: &str) -> Option<Page> {
        let uri: Uri = format!("/x?{query}").parse().ok()?;
        Query::try_from_uri(&uri).ok().map(|Query(page)| page)
    }

    #[test]
    fn a_parameter_that_is_none_is_refused() {
        assert_eq!(
            read("limit=3&cursor=a%20b&other=1").map(|page| (page.limit, page.cursor)),
            Some((Some(3), Some("a b".into())))
        );
        for bad in [
            "limit=",
            "limit",
            "limit=x",
            "limit=1e3",
            "limit=0x1",
            "limit=1.0",
            "limit=9223372036854775808",
            "limit=%FF",
            "limit=1&limit=1",
            "limit=1&limit=2",
            "limit=1;limit",
            "%6cimit=1&limit=2",
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
        assert!(within(501, 1, 500, "limit").is_err() && within(0, 1, 500, "limit").is_err());
    }

    proptest! {
        #[test]
        fn a_parameter_is_what_it_says_and_given_once(number: i64, other: i64, noise in "[a-km-z0-9%&+._~-]{0,60}") {
            if let Some(page) = read(&format!("{noise}&limit={number}")) {
                prop_assert_eq!(page.limit, Some(number));
            }
            let twice = format!("limit={number}&{noise}&limit={other}");
            prop_assert!(read(&twice).is_none(), "{twice}");
        }

        #[test]
        fn a_text_is_decoded_once(text in "\\PC{0,30}") {
            let encoded = text.bytes().fold(String::new(), |encoded, byte| format!("{encoded}%{byte:02X}"));
            prop_assert_eq!(read(&format!("cursor={encoded}")).unwrap().cursor, Some(text.clone()));
            let twice = encoded.replace('%', "%25");
            prop_assert_eq!(read(&format!("cursor={twice}")).unwrap().cursor, Some(encoded));
        }
    }
}
