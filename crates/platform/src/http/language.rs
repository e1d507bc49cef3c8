//! The language that a person reads, from `Accept-Language` (RFC 9110, 12.5.4).

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, header};
use std::convert::Infallible;

/// A language that pages and mails are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English, also for whoever reads neither.
    #[default]
    English,
    /// German.
    German,
}

impl Language {
    /// As in HTML's `lang`.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }

    /// That of the person behind a request.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        accepted.map(Self::preferred).unwrap_or_default()
    }

    /// The one of ours that the header's value weighs most, English when it weighs none; of equal ones the first.
    pub fn preferred(accept_language: &str) -> Self {
        let mut best = (Self::English, 0);
        for (tag, weight) in weighted(accept_language) {
            let primary = tag.split('-').next().unwrap_or_default();
            let language = if primary.eq_ignore_ascii_case("de") {
                Self::German
            } else if primary.eq_ignore_ascii_case("en") || primary == "*" {
                Self::English
            } else {
                continue;
            };
            if let Some(weight) = weight.filter(|weight| *weight > best.1) {
                best = (language, weight);
            }
        }
        best.0
    }
}

/// The ranges that a header names, each with its weight in thousandths, none where that is no weight (RFC 9110, 12.4.2). More than a person
/// has wishes are not looked at.
pub(super) fn weighted(header: &str) -> impl Iterator<Item = (&str, Option<u16>)> {
    header.split(',').take(32).map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        (name, parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1000), thousandths))
    })
}

/// A weight of 0 to 1 with at most three decimals, in thousandths.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match whole {
        "1" if decimals.bytes().all(|byte| byte == b'0') => Some(1000),
        "0" => format!("{decimals:0<3}").parse().ok(),
        _ => None,
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Language {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::Language::{self, English, German};
    use proptest::prelude::*;

    #[test]
    fn the_heaviest_of_ours_wins_whatever_its_place() {
        for (header, expected) in [
            ("", English),
            ("de", German),
            ("de-AT,de;q=0.9,en;q=0.8", German),
            ("DE", German),
            ("en-GB,en;q=0.9,de;q=0.8", English),
            ("en;q=0.2, de;q=0.9", German),
            ("fr, de;q=0.5", German),
            ("fr", English),
            ("*", English),
            ("*;q=0.1, de;q=0.2", German),
            ("de;q=0", English),
            ("de;q=0, *", English),
            ("de;q=0.001", German),
            ("en;q=0.5,de;q=0.50", English),
            ("de;q=nonsense", English),
            ("de;q=1.5", English),
            ("de;q=0.5555", English),
            ("den", English),
            (";;;,,,=", English),
        ] {
            assert_eq!(Language::preferred(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn a_header_without_german_is_english(header in "[a-ce-zA-CE-Z0-9*;=,. -]{0,200}") {
            prop_assert_eq!(Language::preferred(&header), English);
        }

        #[test]
        fn case_is_no_matter_and_no_more_than_32_ranges_are_looked_at(header in "([dDeEnN*-]{1,3}(;q=[01](\\.[0-9]{0,4})?)?,){0,31}[a-z]{0,3}", more in "\\PC{0,200}") {
            let language = Language::preferred(&header);
            prop_assert_eq!(Language::preferred(&header.to_uppercase().replace('Q', "q")), language);
            let ranges = header.split(',').count();
            let padded = format!("{header}{},{more}", ",fr".repeat(32_usize.saturating_sub(ranges)));
            prop_assert_eq!(Language::preferred(&padded), language);
        }
    }
}
