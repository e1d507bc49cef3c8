//! What the browser says of a ceremony, and the authenticator signs: which ceremony, for which challenge, on which page.

use super::model::Challenge;
use mana_kernel::secret::sha256;
use serde::Deserialize;

/// As read; nothing of it is believed yet.
#[derive(Debug)]
pub(crate) struct ClientData {
    /// Which ceremony.
    pub(super) kind: String,
    /// The challenge, if it is one that this service could have made.
    pub(super) challenge: Option<Challenge>,
    /// The page.
    pub(super) origin: String,
    /// Whether the page was in a frame of another one.
    pub(super) is_framed: bool,
    /// What is signed of it.
    pub(super) hash: [u8; 32],
}

/// Browsers may add members at any time, so unknown ones are no reason to refuse.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    r#type: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
    top_origin: Option<String>,
}

impl ClientData {
    /// Reads the bytes. None if they are no such thing.
    pub(crate) fn read(json: &[u8]) -> Option<Self> {
        let members: Members = serde_json::from_slice(json).ok()?;
        Some(Self {
            kind: members.r#type,
            challenge: Challenge::parse(&members.challenge),
            origin: members.origin,
            is_framed: members.cross_origin || members.top_origin.is_some(),
            hash: sha256(json),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn members_that_are_new_or_in_another_order_do_no_harm() {
        let json = br#"{"later":[{}],"origin":"https://a.example","challenge":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","type":"webauthn.get"}"#;
        let data = ClientData::read(json).unwrap();
        assert_eq!((data.kind.as_str(), data.origin.as_str()), ("webauthn.get", "https://a.example"));
        assert!(data.challenge.is_some() && !data.is_framed);
    }

    #[test]
    fn what_is_not_it_is_not_read() {
        for bad in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"type":"webauthn.get","challenge":"AA"}"#,
            r#"{"type":"webauthn.get","type":"webauthn.get","challenge":"AA","origin":"x"}"#,
            r#"{"type":"webauthn.get","challenge":"AA","origin":"x"}x"#,
            r#"{"type":1,"challenge":"AA","origin":"x"}"#,
            "\u{feff}{\"type\":\"webauthn.get\",\"challenge\":\"AA\",\"origin\":\"x\"}",
        ] {
            assert!(ClientData::read(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_challenge_of_another_shape_is_none() {
        for challenge in [
            "",
            "AA",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ] {
            let json = format!(r#"{{"type":"webauthn.get","challenge":"{challenge}","origin":"x"}}"#);
            assert!(ClientData::read(json.as_bytes()).unwrap().challenge.is_none(), "{challenge:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = ClientData::read(&bytes);
        }

        #[test]
        fn what_a_browser_says_is_read_as_it_was_said(kind: String, origin: String, is_framed: bool) {
            let json = serde_json::json!({"type": kind, "challenge": "AA", "origin": origin, "crossOrigin": is_framed});
            let bytes = json.to_string().into_bytes();
            let data = ClientData::read(&bytes).unwrap();
            prop_assert_eq!(data.hash, sha256(&bytes));
            prop_assert_eq!((data.kind, data.origin, data.is_framed), (kind, origin, is_framed));
        }
    }
}
