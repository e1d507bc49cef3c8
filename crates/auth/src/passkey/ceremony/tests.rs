//! Each check has an attack that changes what it is about and nothing else, beside the control that is taken.

use super::*;
use crate::passkey::model::Challenge;
use ciborium::Value as Cbor;
use mana_testkit::{Algorithm, Authenticator, Ceremony, Created, Signed, attestation_object};
use proptest::prelude::*;
use serde_json::json;
use std::sync::LazyLock;

const OWNER: &str = "0192f0c4-ada";
const PAGE: &str = "https://app.example.com";
const ALL: [Algorithm; 3] = [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Rs256];

static PARTY: LazyLock<RelyingParty> = LazyLock::new(|| RelyingParty {
    id: "example.com".to_owned(),
    name: "Example".to_owned(),
    origins: vec!["https://auth.example.com".to_owned(), PAGE.to_owned()],
    related_origins: Vec::new(),
});

fn challenge() -> Challenge {
    Challenge::parse(&"A".repeat(43)).unwrap()
}

fn expected(needs_verification: bool) -> Expected<'static> {
    Expected { challenge: challenge().hash(), relying_party: &PARTY, needs_verification }
}

fn creating() -> Ceremony {
    let options = json!({"challenge": challenge().encode(), "rp": {"id": "example.com"}});
    Ceremony::create(&options, PAGE)
}

fn getting() -> Ceremony {
    let options = json!({"challenge": challenge().encode(), "rpId": "example.com"});
    Ceremony::get(&options, PAGE, OWNER)
}

fn registered(created: &Created) -> Result<NewCredential, Refusal> {
    let data = ClientData::read(&created.client_data).ok_or(Refusal::ClientData)?;
    let registration = Registration {
        credential_id: &created.credential_id,
        client_data: &data,
        attestation_object: &created.attestation_object,
    };
    register(&registration, &expected(true))
}

/// A passkey that is known.
struct Holder {
    authenticator: Authenticator,
    credential: NewCredential,
}

impl Holder {
    fn new(algorithm: Algorithm) -> Self {
        let authenticator = Authenticator::new(algorithm);
        let credential = registered(&authenticator.create(&creating())).unwrap();
        Self { authenticator, credential }
    }

    fn known(&self) -> Known<'_> {
        Known {
            credential_id: &self.credential.id,
            owner: OWNER.as_bytes(),
            public_key: &self.credential.public_key,
            sign_count: self.credential.sign_count,
            is_backup_eligible: self.credential.is_backup_eligible,
        }
    }

    fn judge(&self, signed: &Signed) -> Result<Proven, Refusal> {
        judged(signed, &self.known(), true, true)
    }

    fn sign_in(&self, change: impl FnOnce(&mut Ceremony)) -> Result<Proven, Refusal> {
        let mut ceremony = getting();
        change(&mut ceremony);
        self.judge(&self.authenticator.get(&ceremony))
    }
}

fn judged(
    signed: &Signed,
    known: &Known<'_>,
    must_name_owner: bool,
    needs_verification: bool,
) -> Result<Proven, Refusal> {
    let data = ClientData::read(&signed.client_data).ok_or(Refusal::ClientData)?;
    let assertion = Assertion {
        credential_id: &signed.credential_id,
        user_handle: signed.user_handle.as_deref(),
        client_data: &data,
        authenticator_data: &signed.authenticator_data,
        signature: &signed.signature,
    };
    assert(&assertion, known, must_name_owner, &expected(needs_verification))
}

type Change = fn(&mut Ceremony);

/// What is checked alike at both ceremonies.
fn changes() -> Vec<(Refusal, Change)> {
    vec![
        (Refusal::Type, |ceremony| ceremony.kind = "payment.get".to_owned()),
        (Refusal::Type, |ceremony| ceremony.kind = ceremony.kind.to_uppercase()),
        (Refusal::Challenge, |ceremony| ceremony.challenge = format!("B{}", "A".repeat(42))),
        (Refusal::Challenge, |ceremony| ceremony.challenge = "A".repeat(42)),
        (Refusal::Challenge, |ceremony| ceremony.challenge = format!("{}=", "A".repeat(43))),
        (Refusal::Origin, |ceremony| ceremony.origin = "https://evil.example".to_owned()),
        (Refusal::Origin, |ceremony| ceremony.origin = "https://example.com".to_owned()),
        (Refusal::Origin, |ceremony| ceremony.origin = "http://app.example.com".to_owned()),
        (Refusal::Origin, |ceremony| ceremony.origin = format!("{PAGE}:444")),
        (Refusal::Origin, |ceremony| ceremony.origin = format!("{PAGE}/")),
        (Refusal::Origin, |ceremony| ceremony.origin = format!("{PAGE}.evil.example")),
        (Refusal::Origin, |ceremony| ceremony.origin = "null".to_owned()),
        (Refusal::Framed, |ceremony| ceremony.more = json!({"crossOrigin": true})),
        (Refusal::Framed, |ceremony| ceremony.more = json!({"topOrigin": "https://evil.example"})),
        (Refusal::RelyingParty, |ceremony| ceremony.rp_id = "app.example.com".to_owned()),
        (Refusal::RelyingParty, |ceremony| ceremony.rp_id = "evil.example".to_owned()),
        (Refusal::Presence, |ceremony| ceremony.flags = 0x04),
        (Refusal::Verification, |ceremony| ceremony.flags = 0x01),
        (Refusal::Backup, |ceremony| ceremony.flags = 0x15),
        (Refusal::AuthenticatorData, |ceremony| ceremony.flags |= 0x80),
    ]
}

#[test]
fn a_registration_is_taken_with_each_algorithm_and_refused_for_each_thing_that_is_not_as_it_should_be() {
    for algorithm in ALL {
        let authenticator = Authenticator::new(algorithm);
        let taken = registered(&authenticator.create(&creating())).unwrap();
        let expected = NewCredential {
            id: authenticator.credential_id.clone(),
            public_key: authenticator.cose_key(),
            sign_count: 0,
            is_backup_eligible: false,
            is_backed_up: false,
        };
        assert_eq!(taken, expected);
        for (refusal, change) in changes() {
            let mut ceremony = creating();
            change(&mut ceremony);
            assert_eq!(registered(&authenticator.create(&ceremony)), Err(refusal), "{ceremony:?}");
        }
        let mut ceremony = creating();
        ceremony.kind = "webauthn.get".to_owned();
        assert_eq!(registered(&authenticator.create(&ceremony)), Err(Refusal::Type), "the other ceremony");
    }
}

#[test]
fn what_a_registration_says_of_itself_is_kept() {
    let authenticator = Authenticator::new(Algorithm::Es256);
    let ceremony = Ceremony { flags: 0x1d, sign_count: 7, ..creating() };
    let taken = registered(&authenticator.create(&ceremony)).unwrap();
    assert_eq!((taken.sign_count, taken.is_backup_eligible, taken.is_backed_up), (7, true, true));
}

#[test]
fn the_envelope_of_a_registration_is_whole_and_about_the_credential_around_it() {
    let authenticator = Authenticator::new(Algorithm::Es256);
    let good = authenticator.create(&creating());
    assert!(registered(&good).is_ok());

    let other_id = Created { credential_id: vec![7; 32], ..good.clone() };
    assert_eq!(registered(&other_id), Err(Refusal::CredentialId));
    let trailing =
        Created { attestation_object: [&good.attestation_object[..], &[0]].concat(), ..good.clone() };
    assert_eq!(registered(&trailing), Err(Refusal::AttestationObject));
    let without = Created {
        attestation_object: attestation_object(&authenticator.get(&creating()).authenticator_data),
        ..good.clone()
    };
    assert_eq!(registered(&without), Err(Refusal::NoCredential));
    for end in 0..good.attestation_object.len() {
        let cut = Created { attestation_object: good.attestation_object[..end].to_vec(), ..good.clone() };
        assert_eq!(registered(&cut), Err(Refusal::AttestationObject), "{end}");
    }
    let text = |text: &str| Cbor::Text(text.to_owned());
    let data = || (text("authData"), Cbor::Bytes(authenticator.get(&creating()).authenticator_data));
    for entries in [
        vec![],
        vec![data()],
        vec![(text("fmt"), text("none")), data()],
        vec![(text("fmt"), Cbor::from(1)), (text("attStmt"), Cbor::Map(vec![])), data()],
        vec![(text("fmt"), text("none")), (text("attStmt"), text("")), data()],
        vec![
            (text("fmt"), text("none")),
            (text("attStmt"), Cbor::Map(vec![])),
            (text("authData"), text("x")),
        ],
        vec![(text("fmt"), text("none")), (text("attStmt"), Cbor::Map(vec![])), data(), data()],
    ] {
        let strange = Created { attestation_object: written(&Cbor::Map(entries)), ..good.clone() };
        assert_eq!(registered(&strange), Err(Refusal::AttestationObject));
    }
}

fn written(value: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// A registration with a key that differs in one entry.
fn with_entry(algorithm: Algorithm, label: i64, value: Option<Cbor>) -> Result<NewCredential, Refusal> {
    let authenticator = Authenticator::new(algorithm);
    let mut entries = authenticator.cose_entries();
    entries.retain(|(key, _)| *key != Cbor::from(label));
    entries.extend(value.map(|value| (Cbor::from(label), value)));
    registered(&authenticator.create_with_key(&creating(), &written(&Cbor::Map(entries))))
}

#[test]
fn only_keys_that_were_offered_and_are_whole_are_taken() {
    use Algorithm::{EdDsa, Es256, Rs256};
    let bytes = |length: usize| Some(Cbor::Bytes(vec![1; length]));
    for (algorithm, label, value, refusal) in [
        // ES384, ES256K, PS256, RS1, none of them offered, and one that is no number.
        (Es256, 3, Some(Cbor::from(-35)), Refusal::Algorithm),
        (Es256, 3, Some(Cbor::from(-47)), Refusal::Algorithm),
        (Rs256, 3, Some(Cbor::from(-37)), Refusal::Algorithm),
        (Rs256, 3, Some(Cbor::from(-65535)), Refusal::Algorithm),
        (Es256, 3, Some(Cbor::Text("ES256".to_owned())), Refusal::PublicKey),
        (Es256, 3, None, Refusal::PublicKey),
        // The algorithm of another kind of key.
        (Es256, 3, Some(Cbor::from(-8)), Refusal::PublicKey),
        (EdDsa, 3, Some(Cbor::from(-7)), Refusal::PublicKey),
        (Rs256, 3, Some(Cbor::from(-7)), Refusal::PublicKey),
        (Es256, 1, Some(Cbor::from(1)), Refusal::PublicKey),
        // Another curve, a coordinate of another length, a point off the curve, a compressed one.
        (Es256, -1, Some(Cbor::from(2)), Refusal::PublicKey),
        (EdDsa, -1, Some(Cbor::from(4)), Refusal::PublicKey),
        (Es256, -2, bytes(31), Refusal::PublicKey),
        (Es256, -2, bytes(33), Refusal::PublicKey),
        (Es256, -2, bytes(32), Refusal::PublicKey),
        (Es256, -3, Some(Cbor::Bool(true)), Refusal::PublicKey),
        (Es256, -3, None, Refusal::PublicKey),
        (EdDsa, -2, bytes(33), Refusal::PublicKey),
        (EdDsa, -2, bytes(0), Refusal::PublicKey),
        // A modulus that is too short, too long, or not in its shortest form; the same for the exponent.
        (Rs256, -1, bytes(255), Refusal::PublicKey),
        (Rs256, -1, bytes(513), Refusal::PublicKey),
        (Rs256, -1, Some(Cbor::Bytes([vec![0], vec![1; 256]].concat())), Refusal::PublicKey),
        (Rs256, -2, bytes(5), Refusal::PublicKey),
        (Rs256, -2, bytes(0), Refusal::PublicKey),
        (Rs256, -2, Some(Cbor::Bytes(vec![0, 1, 0, 1])), Refusal::PublicKey),
    ] {
        assert_eq!(
            with_entry(algorithm, label, value.clone()),
            Err(refusal),
            "{algorithm:?} {label} {value:?}"
        );
    }
    // The control: an entry that nobody knows is nobody's business.
    assert!(with_entry(Es256, 4, bytes(3)).is_ok());
}

#[test]
fn a_key_with_an_entry_that_stands_twice_is_refused() {
    let authenticator = Authenticator::new(Algorithm::Es256);
    let entries = authenticator.cose_entries();
    for again in 0..entries.len() {
        let twice = [entries.clone(), vec![entries[again].clone()]].concat();
        let created = authenticator.create_with_key(&creating(), &written(&Cbor::Map(twice)));
        assert_eq!(registered(&created), Err(Refusal::AuthenticatorData));
    }
}

#[test]
fn a_sign_in_is_taken_with_each_algorithm_and_refused_for_each_thing_that_is_not_as_it_should_be() {
    for algorithm in ALL {
        let holder = Holder::new(algorithm);
        let proven = Proven { sign_count: 0, is_backed_up: false, is_user_verified: true };
        assert_eq!(holder.sign_in(|_| {}), Ok(proven));
        for (refusal, change) in changes() {
            assert_eq!(holder.sign_in(change), Err(refusal), "{algorithm:?}");
        }
        assert_eq!(
            holder.sign_in(|ceremony| ceremony.kind = "webauthn.create".to_owned()),
            Err(Refusal::Type)
        );
    }
}

#[test]
fn who_owns_the_credential_is_checked() {
    let holder = Holder::new(Algorithm::Es256);
    let another = |ceremony: &mut Ceremony| ceremony.user_handle = Some(b"0192f0c4-bob".to_vec());
    assert_eq!(holder.sign_in(another), Err(Refusal::Owner));
    assert_eq!(holder.sign_in(|ceremony| ceremony.user_handle = Some(Vec::new())), Err(Refusal::Owner));
    assert_eq!(holder.sign_in(|ceremony| ceremony.user_handle = None), Err(Refusal::Owner));
    // Where the user is known already, an authenticator that keeps no names need not name it, but must not name another.
    let silent = holder.authenticator.get(&Ceremony { user_handle: None, ..getting() });
    assert!(judged(&silent, &holder.known(), false, true).is_ok());
    let mut ceremony = getting();
    another(&mut ceremony);
    let named = holder.authenticator.get(&ceremony);
    assert_eq!(judged(&named, &holder.known(), false, true), Err(Refusal::Owner));
    let other = Signed { credential_id: vec![7; 32], ..holder.authenticator.get(&getting()) };
    assert_eq!(holder.judge(&other), Err(Refusal::CredentialId));
}

#[test]
fn only_what_the_key_has_signed_is_believed() {
    for algorithm in ALL {
        let (holder, thief) = (Holder::new(algorithm), Holder::new(algorithm));
        let good = holder.authenticator.get(&getting());
        assert!(holder.judge(&good).is_ok());
        let by_thief = Signed { signature: thief.authenticator.get(&getting()).signature, ..good.clone() };
        assert_eq!(holder.judge(&by_thief), Err(Refusal::Signature));
        for signature in
            [vec![], vec![0; 64], good.signature[1..].to_vec(), [&good.signature[..], &[0]].concat()]
        {
            assert_eq!(holder.judge(&Signed { signature, ..good.clone() }), Err(Refusal::Signature));
        }
        // Another counter, a flag more, another member: none of it was signed.
        let mut counted = good.clone();
        counted.authenticator_data[36] = 9;
        assert_eq!(holder.judge(&counted), Err(Refusal::Signature));
        let mut flagged = good.clone();
        flagged.authenticator_data[32] |= super::super::authenticator_data::Flags::RESERVED;
        assert_eq!(holder.judge(&flagged), Err(Refusal::Signature));
        let mut renamed = good.clone();
        renamed.client_data.insert(1, b' ');
        assert_eq!(holder.judge(&renamed), Err(Refusal::Signature));
    }
}

#[test]
fn a_signature_of_another_algorithm_is_none() {
    let holder = Holder::new(Algorithm::Es256);
    for other in [Algorithm::EdDsa, Algorithm::Rs256] {
        let foreign = Authenticator::new(other).get(&getting()).signature;
        let signed = Signed { signature: foreign, ..holder.authenticator.get(&getting()) };
        assert_eq!(holder.judge(&signed), Err(Refusal::Signature));
    }
}

#[test]
fn verification_is_asked_for_where_it_is_needed_and_told_where_not() {
    let holder = Holder::new(Algorithm::Es256);
    let touched = holder.authenticator.get(&Ceremony { flags: 0x01, ..getting() });
    assert_eq!(judged(&touched, &holder.known(), true, true), Err(Refusal::Verification));
    let proven = judged(&touched, &holder.known(), true, false).unwrap();
    assert!(!proven.is_user_verified);
    let nobody = holder.authenticator.get(&Ceremony { flags: 0x04, ..getting() });
    assert_eq!(judged(&nobody, &holder.known(), true, false), Err(Refusal::Presence));
}

#[test]
fn the_counter_only_goes_up_once_it_counts() {
    let holder = Holder::new(Algorithm::Es256);
    for (stored, shown, is_taken) in [
        (0, 0, true),
        (0, 1, true),
        (5, 6, true),
        (5, u32::MAX, true),
        (5, 5, false),
        (5, 4, false),
        (5, 0, false),
        (u32::MAX, 0, false),
    ] {
        let signed = holder.authenticator.get(&Ceremony { sign_count: shown, ..getting() });
        let judged = judged(&signed, &Known { sign_count: stored, ..holder.known() }, true, true);
        assert_eq!(judged.is_ok(), is_taken, "{stored} {shown}");
        assert_eq!(judged.err(), (!is_taken).then_some(Refusal::Counter));
    }
}

#[test]
fn whether_it_may_be_copied_never_changes_and_whether_it_was_may() {
    let holder = Holder::new(Algorithm::Es256);
    let by_flags = |flags: u8, is_backup_eligible: bool| {
        let signed = holder.authenticator.get(&Ceremony { flags, ..getting() });
        judged(&signed, &Known { is_backup_eligible, ..holder.known() }, true, true)
    };
    assert!(!by_flags(0x05, false).unwrap().is_backed_up);
    assert!(!by_flags(0x0d, true).unwrap().is_backed_up);
    assert!(by_flags(0x1d, true).unwrap().is_backed_up);
    for (flags, is_eligible) in [(0x0d, false), (0x05, true), (0x1d, false), (0x15, true), (0x15, false)] {
        assert_eq!(by_flags(flags, is_eligible), Err(Refusal::Backup), "{flags:x} {is_eligible}");
    }
}

#[test]
fn a_stored_key_that_is_damaged_opens_nothing() {
    let holder = Holder::new(Algorithm::Es256);
    let signed = holder.authenticator.get(&getting());
    let mut damaged = holder.credential.public_key.clone();
    damaged.truncate(40);
    let known = Known { public_key: &damaged, ..holder.known() };
    assert_eq!(judged(&signed, &known, true, true), Err(Refusal::PublicKey));
}

static HOLDER: LazyLock<Holder> = LazyLock::new(|| Holder::new(Algorithm::Es256));

proptest! {
    #[test]
    fn any_bytes_end_in_a_refusal(
        client_data in prop::collection::vec(any::<u8>(), 0..300),
        attestation_object in prop::collection::vec(any::<u8>(), 0..600),
        authenticator_data in prop::collection::vec(any::<u8>(), 0..300),
        signature in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let (created, good) = (HOLDER.authenticator.create(&creating()), HOLDER.authenticator.get(&getting()));
        assert!(registered(&Created { client_data: client_data.clone(), ..created.clone() }).is_err());
        assert!(registered(&Created { attestation_object, ..created }).is_err());
        assert!(HOLDER.judge(&Signed { client_data, ..good.clone() }).is_err());
        assert!(HOLDER.judge(&Signed { authenticator_data, ..good.clone() }).is_err());
        assert!(HOLDER.judge(&Signed { signature, ..good }).is_err());
    }

    #[test]
    fn a_bit_that_flips_anywhere_in_what_is_signed_ends_in_a_refusal(place: prop::sample::Index, bit in 0_u8..8) {
        let good = HOLDER.authenticator.get(&getting());
        for part in 0..3 {
            let mut bad = good.clone();
            let bytes = [&mut bad.client_data, &mut bad.authenticator_data, &mut bad.signature].into_iter().nth(part).unwrap();
            let at = place.index(bytes.len());
            bytes[at] ^= 1 << bit;
            assert!(HOLDER.judge(&bad).is_err());
        }
    }

    #[test]
    fn a_bit_that_flips_anywhere_in_a_registration_ends_in_an_answer(place: prop::sample::Index, bit in 0_u8..8) {
        let mut created = HOLDER.authenticator.create(&creating());
        let at = place.index(created.attestation_object.len());
        created.attestation_object[at] ^= 1 << bit;
        let _ = registered(&created);
    }
}
