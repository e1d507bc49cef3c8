//! A token in its compact form (RFC 7515, section 7.1), taken apart. Nothing in it is believed before its signature is.

use super::keys::VerifyingKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Bytes of a header at most. Ours have some 90.
pub(super) const MAX_HEADER: usize = 256;

/// Bytes of a signature at most, that of RSA with 8192 bits, and what decoding wants to spare.
const MAX_SIGNATURE: usize = 1024 + 8;

/// Three parts in base64url: a header, claims, and the signature of both.
pub(crate) struct Compact<'a> {
    /// What is signed.
    message: &'a str,
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
}

/// What the header of a token of ours says, and all that it may say: with any other member (`jwk`, `jku`, `x5u`, `x5c`,
/// `crit`, `b64`, `zip`, `enc` ...), with one twice, or with a letter written as an escape it is not ours.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header<'a> {
    pub(super) typ: &'a str,
    pub(super) alg: &'a str,
    pub(super) kid: &'a str,
}

impl<'a> Compact<'a> {
    /// None if there are not three parts.
    pub(crate) fn split(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        // A part with a dot is no base64url and fails later.
        Some(Self { message, header, claims, signature })
    }

    /// None if it is not one of ours. `buffer` keeps its text.
    pub(super) fn header<'b>(&self, buffer: &'b mut [u8; MAX_HEADER]) -> Option<Header<'b>> {
        let length = BASE64URL.decode_slice(self.header, &mut buffer[..]).ok()?;
        object(buffer.get(..length)?)
    }

    /// The header of a token that another issuer wrote; none if it does not read as `T`.
    pub(crate) fn foreign_header<Header: DeserializeOwned>(&self) -> Option<Header> {
        object(&BASE64URL.decode(self.header).ok()?)
    }

    /// Whether the signature is this key's.
    pub(crate) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let mut buffer = [0; MAX_SIGNATURE];
        let signature = BASE64URL.decode_slice(self.signature, &mut buffer).ok();
        let signature = signature.and_then(|length| buffer.get(..length));
        signature.is_some_and(|signature| key.verifies(self.message.as_bytes(), signature))
    }

    /// None if they are not what a token of ours claims.
    pub(crate) fn claims<Claims: DeserializeOwned>(&self) -> Option<Claims> {
        object(&BASE64URL.decode(self.claims).ok()?)
    }
}

/// A JSON object: where it wants one, serde would take an array as well.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    json.starts_with(b"{").then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn reads(header: &str) -> bool {
        let token = format!("{}.e30.AA", BASE64URL.encode(header));
        let mut buffer = [0; MAX_HEADER];
        Compact::split(&token).unwrap().header(&mut buffer).is_some()
    }

    #[test]
    fn a_header_says_three_things_once_and_nothing_else() {
        assert!(reads(r#"{"typ":"JWT","alg":"RS256","kid":"k"}"#));
        assert!(reads(r#"{"kid":"k", "alg":"none", "typ":"x"}"#), "what they are is for the caller");
        for bad in [
            r#"{"typ":"JWT","alg":"RS256"}"#,
            r#"{"typ":"JWT","alg":"RS256","kid":"k","kid":"k"}"#,
            r#"{"typ":"JWT","alg":"RS256","kid":"k","x5t":""}"#,
            r#"{"typ":"JWT","alg":"RS256","kid":"\u006b"}"#,
            r#"{"typ":"JWT","alg":"RS256","kid":null}"#,
            r#"["JWT","RS256","k"] "#,
            "",
        ] {
            assert!(!reads(bad), "{bad}");
        }
        assert!(!reads(&format!(r#"{{"typ":"JWT","alg":"RS256","kid":"{}"}}"#, "k".repeat(300))));
    }

    #[test]
    fn a_token_has_three_parts() {
        for bad in ["", "a", "a.b"] {
            assert!(Compact::split(bad).is_none(), "{bad}");
        }
        let four = Compact::split("e30.e30.e30.e30").unwrap();
        assert!(four.claims::<serde_json::Value>().is_none());
    }

    proptest! {
        #[test]
        fn the_parts_of_a_token_are_the_token(header in "[ -~]{0,60}", claims in "[ -~]{0,60}", signature: Vec<u8>) {
            let parts = [header.as_bytes(), claims.as_bytes(), &signature].map(|part| BASE64URL.encode(part));
            let token = parts.join(".");
            let split = Compact::split(&token).unwrap();
            prop_assert_eq!([split.header, split.claims, split.signature], [&parts[0], &parts[1], &parts[2]].map(String::as_str));
            prop_assert_eq!(split.message, format!("{}.{}", parts[0], parts[1]));
        }

        #[test]
        fn any_text_is_read_to_an_end(token in "[A-Za-z0-9._=-]{0,400}|\\PC{0,100}") {
            let mut buffer = [0; MAX_HEADER];
            if let Some(split) = Compact::split(&token) {
                let header = split.header(&mut buffer);
                prop_assert!(header.is_none_or(|header| header.kid.len() <= MAX_HEADER));
                prop_assert!(split.claims::<Value>().is_none_or(|claims| claims.is_object()));
            }
        }

        #[test]
        fn no_other_letter_spells_the_same_part(bytes in proptest::collection::vec(any::<u8>(), 1..90), at: proptest::sample::Index, letter in "[ -~]") {
            let part = BASE64URL.encode(&bytes);
            let mut other = part.clone();
            let at = at.index(part.len());
            other.replace_range(at..=at, &letter);
            prop_assert!(other == part || BASE64URL.decode(&other).ok().as_ref() != Some(&bytes), "{part} and {other}");
            let longer = format!("{part}{letter}");
            prop_assert!(BASE64URL.decode(&longer).ok().as_ref() != Some(&bytes), "{longer}");
        }
    }
}
