//! Signatures of Stripe's deliveries: `t=<seconds>,v1=<hex>,v1=<hex>`, an HMAC-SHA256 over `<seconds>.<body>`.

use crate::ledger::record::hex;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use secrecy::{ExposeSecret as _, SecretString};
use time::OffsetDateTime;

/// A delivery's clock may be off by this much, in either direction.
const TOLERANCE_SECONDS: u64 = 300;
/// More signatures than this are no rotation.
const MAX_SIGNATURES: usize = 16;

/// Why a delivery is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSignature {
    /// The header is not what Stripe sends.
    #[error("the stripe-signature header is missing or malformed")]
    Malformed,
    /// No signature fits any secret.
    #[error("no signature of the stripe-signature header fits")]
    Wrong,
    /// It is too old, or of the future.
    #[error("the delivery was signed more than five minutes from now")]
    Stale,
}

/// Whether one of the header's signatures was made with one of the secrets, over these very bytes, around `now`.
///
/// # Errors
/// When it was not.
pub fn verify(
    header: &str,
    body: &[u8],
    secrets: &[SecretString],
    now: OffsetDateTime,
) -> Result<(), InvalidSignature> {
    let (mut time, mut signatures) = (None, Vec::new());
    for part in header.split(',') {
        let (name, value) = part.trim().split_once('=').ok_or(InvalidSignature::Malformed)?;
        match name {
            "t" if time.is_none() => time = Some(value),
            "t" => return Err(InvalidSignature::Malformed),
            // Other schemes are weaker, or not known.
            "v1" => signatures.push(hex::read(value).ok_or(InvalidSignature::Malformed)?),
            _ => {}
        }
    }
    let time = time.filter(|time| !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit()));
    let time = time.ok_or(InvalidSignature::Malformed)?;
    let seconds: i64 = time.parse().map_err(|_| InvalidSignature::Malformed)?;
    if signatures.is_empty() || signatures.len() > MAX_SIGNATURES {
        return Err(InvalidSignature::Malformed);
    }
    // Before anything is hashed: whoever sends what nobody signed is to cost little.
    if now.unix_timestamp().abs_diff(seconds) > TOLERANCE_SECONDS {
        return Err(InvalidSignature::Stale);
    }
    let is_right = secrets.iter().filter(|secret| !secret.expose_secret().is_empty()).any(|secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        let mut context = hmac::Context::with_key(&key);
        for part in [time.as_bytes(), b".", body] {
            context.update(part);
        }
        let tag = context.sign();
        signatures.iter().any(|signature| verify_slices_are_equal(tag.as_ref(), signature).is_ok())
    });
    if is_right { Ok(()) } else { Err(InvalidSignature::Wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    /// Made with `stripe` of npm: see its first member.
    const VECTORS: &str = include_str!("signature_vectors.json");

    #[derive(Deserialize)]
    struct Vectors {
        vectors: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        secret: String,
        timestamp: i64,
        payload: String,
        header: String,
    }

    fn vectors() -> Vec<Vector> {
        serde_json::from_str::<Vectors>(VECTORS).unwrap().vectors
    }

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    #[test]
    fn what_stripes_own_library_signs_is_believed() {
        let vectors = vectors();
        assert!(vectors.len() >= 5);
        for vector in vectors {
            let check = |header: &str, body: &[u8], secret: &str, seconds: i64| {
                verify(header, body, &["another".into(), secret.into()], at(seconds))
            };
            let (header, body) = (vector.header.as_str(), vector.payload.as_bytes());
            assert_eq!(check(header, body, &vector.secret, vector.timestamp), Ok(()));
            for skew in [-300, 300] {
                assert_eq!(check(header, body, &vector.secret, vector.timestamp + skew), Ok(()));
            }
            for skew in [-301, 301, 604_800] {
                let late = check(header, body, &vector.secret, vector.timestamp + skew);
                assert_eq!(late, Err(InvalidSignature::Stale));
            }
            let changed = [body, b" "].concat();
            assert_eq!(
                check(header, &changed, &vector.secret, vector.timestamp),
                Err(InvalidSignature::Wrong)
            );
            assert_eq!(check(header, body, "whsec_other", vector.timestamp), Err(InvalidSignature::Wrong));
            let moved =
                header.replacen(&vector.timestamp.to_string(), &(vector.timestamp + 1).to_string(), 1);
            assert_eq!(check(&moved, body, &vector.secret, vector.timestamp), Err(InvalidSignature::Wrong));
        }
    }

    #[test]
    fn during_a_rotation_one_signature_and_one_secret_are_enough() {
        let vector = vectors().remove(0);
        let extra = format!("{},v0=00,v1={}", vector.header, "ab".repeat(32));
        let secrets = ["whsec_new".into(), vector.secret.as_str().into()];
        assert_eq!(verify(&extra, vector.payload.as_bytes(), &secrets, at(vector.timestamp)), Ok(()));
        let secrets = ["whsec_new".into()];
        let refused = verify(&extra, vector.payload.as_bytes(), &secrets, at(vector.timestamp));
        assert_eq!(refused, Err(InvalidSignature::Wrong));
    }

    #[test]
    fn what_is_out_of_time_is_refused_before_it_is_hashed() {
        let header = format!("t=1700000000,v1={}", "ab".repeat(32));
        for (now, refusal) in
            [(1_700_000_301, InvalidSignature::Stale), (1_700_000_300, InvalidSignature::Wrong)]
        {
            assert_eq!(verify(&header, b"{}", &["whsec_x".into()], at(now)), Err(refusal));
        }
    }

    #[test]
    fn an_empty_secret_opens_nothing() {
        let signed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b""), b"1700000000.{}");
        let header = format!("t=1700000000,v1={}", hex::write(signed.as_ref()));
        for secrets in [&["".into()][..], &[]] {
            assert_eq!(verify(&header, b"{}", secrets, at(1_700_000_000)), Err(InvalidSignature::Wrong));
        }
    }

    #[test]
    fn a_header_of_another_shape_is_refused() {
        let one = "ab".repeat(32);
        for header in [
            String::new(),
            "t=1700000000".to_owned(),
            format!("v1={one}"),
            format!("t=,v1={one}"),
            format!("t=-1,v1={one}"),
            format!("t=+1700000000,v1={one}"),
            format!("t=1700000000,t=1700000001,v1={one}"),
            format!("t=99999999999999999999,v1={one}"),
            "t=1700000000,v1=xyz".to_owned(),
            "t=1700000000,v1=abc".to_owned(),
            format!("t=1700000000,v0={one}"),
            "garbage".to_owned(),
            format!("t=1700000000{}", format!(",v1={one}").repeat(17)),
        ] {
            let refused = verify(&header, b"{}", &["whsec_x".into()], at(1_700_000_000));
            assert_eq!(refused, Err(InvalidSignature::Malformed), "{header}");
        }
    }

    const NOW: i64 = 1_700_000_000;
    const BODY: &[u8] = b"{\"id\": \"evt_1\"}";

    /// A part of a header, and what it is.
    #[derive(Debug, Clone)]
    enum Part {
        /// `t`.
        Time(i64),
        /// What a secret of ours makes of the first time, in small or large letters.
        Right(bool),
        /// A signature that is well written and none of ours.
        Wrong(Vec<u8>),
        /// `v1` with what is no signature.
        Unwritten(String),
        /// Of another scheme: the right signature all the same.
        OtherScheme(String),
        /// Not a name and a value.
        Word(String),
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            4 => prop_oneof![NOW - 301..=NOW + 301, NOW - 5..=NOW + 5, any::<i32>().prop_map(i64::from)].prop_map(Part::Time),
            4 => any::<bool>().prop_map(Part::Right),
            2 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Part::Wrong),
            1 => "[0-9a-f]{0,8}[g-z]|[0-9a-f]{63}".prop_map(Part::Unwritten),
            1 => "v0|v2|V1|vv1|".prop_map(Part::OtherScheme),
            1 => "[a-z0-9 ]{0,8}".prop_map(Part::Word),
        ]
    }

    fn tag_of(secret: &str, seconds: i64) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        hmac::sign(&key, &[seconds.to_string().as_bytes(), b".", BODY].concat()).as_ref().to_vec()
    }

    fn header_of(parts: &[Part]) -> String {
        let time =
            parts.iter().find_map(|part| if let Part::Time(seconds) = part { Some(*seconds) } else { None });
        let right = hex::write(&tag_of("whsec_ours", time.unwrap_or(NOW)));
        let written = parts.iter().map(|part| match part {
            Part::Time(seconds) => format!("t={seconds}"),
            Part::Right(false) => format!("v1={right}"),
            Part::Right(true) => format!("v1={}", right.to_uppercase()),
            Part::Wrong(bytes) => format!("v1={}", hex::write(bytes)),
            Part::Unwritten(text) => format!("v1={text}"),
            Part::OtherScheme(name) => format!("{name}={right}"),
            Part::Word(word) => word.clone(),
        });
        written.collect::<Vec<_>>().join(",")
    }

    proptest! {
        #[test]
        fn a_header_is_believed_if_it_has_one_time_and_what_a_secret_of_ours_makes_of_it(
            parts in prop::collection::vec(part(), 1..6),
        ) {
            let of = |is: fn(&Part) -> bool| parts.iter().filter(|part| is(part)).count();
            let times: Vec<i64> = parts.iter().filter_map(|part| if let Part::Time(seconds) = part { Some(*seconds) } else { None }).collect();
            let is_well_formed = of(|part| matches!(part, Part::Word(_) | Part::Unwritten(_))) == 0
                && matches!(times[..], [seconds] if seconds >= 0);
            let is_signed = of(|part| matches!(part, Part::Right(_))) > 0;
            let is_in_time = times.first().is_some_and(|seconds| seconds.abs_diff(NOW) <= 300);
            let header = header_of(&parts);
            let outcome = verify(&header, BODY, &["whsec_next".into(), "whsec_ours".into()], at(NOW));
            prop_assert_eq!(outcome.is_ok(), is_well_formed && is_signed && is_in_time, "{}", header);
            let others = verify(&header, BODY, &["whsec_next".into(), "".into()], at(NOW));
            prop_assert!(others.is_err(), "{header}");
        }

        #[test]
        fn a_header_that_nobody_signed_is_refused(header in "\\PC{0,80}|(t=[0-9]{0,20}|v1=[0-9a-f]{0,66}|,|=){0,8}") {
            prop_assert!(verify(&header, BODY, &["whsec_ours".into()], at(NOW)).is_err());
        }

        #[test]
        fn a_body_is_believed_as_it_was_signed(
            body in prop::collection::vec(any::<u8>(), 0..64),
            at_byte in any::<prop::sample::Index>(),
            other in any::<u8>(),
        ) {
            let key = hmac::Key::new(hmac::HMAC_SHA256, b"whsec_ours");
            let tag = hmac::sign(&key, &[NOW.to_string().as_bytes(), b".", &body].concat());
            let header = format!("t={NOW},v1={}", hex::write(tag.as_ref()));
            let secrets = ["whsec_ours".into()];
            prop_assert_eq!(verify(&header, &body, &secrets, at(NOW)), Ok(()));
            let mut changed = body.clone();
            if body.is_empty() {
                changed.push(other);
            } else {
                changed[at_byte.index(body.len())] = other;
            }
            prop_assert!(changed == body || verify(&header, &changed, &secrets, at(NOW)).is_err());
        }
    }
}
