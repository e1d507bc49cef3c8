//! Whether what an authenticator signed proves what it should (WebAuthn level 3, 7.1 and 7.2). No I/O: what is expected comes in.
//!
//! Attestation is neither asked for nor read. It tells which make an authenticator is, about which nothing is decided here; who would lie
//! about that says that there is none.

use super::authenticator_data::{AuthenticatorData, Flags};
use super::cbor::{take_map, under_text};
use super::client_data::ClientData;
use super::model::{ChallengeHash, RelyingParty};
use super::public_key::{KeyRefusal, PublicKey};
use ciborium::Value;
use mana_kernel::secret::sha256;

/// What a ceremony must be of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// The challenge that was used up for it.
    pub(super) challenge: ChallengeHash,
    pub(super) relying_party: &'a RelyingParty,
    /// Whether the authenticator must have checked who uses it.
    pub(super) needs_verification: bool,
}

/// Why it proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The browser's part can't be read.
    #[error("clientDataJSON can't be read")]
    ClientData,
    /// Another ceremony.
    #[error("clientDataJSON is of another ceremony")]
    Type,
    /// Another challenge.
    #[error("the challenge is another one")]
    Challenge,
    /// Another page.
    #[error("the page's origin is not allowed")]
    Origin,
    /// In a frame of another page.
    #[error("the page was in a frame of another site")]
    Framed,
    /// The registration's envelope can't be read.
    #[error("attestationObject can't be read")]
    AttestationObject,
    /// The authenticator's part can't be read.
    #[error("the authenticator data can't be read")]
    AuthenticatorData,
    /// Signed for somebody else.
    #[error("it is for another relying party")]
    RelyingParty,
    /// Nobody was there.
    #[error("the authenticator saw nobody")]
    Presence,
    /// Whoever was there was not checked.
    #[error("the authenticator did not verify its user (by PIN, finger, face)")]
    Verification,
    /// A copy of what can't be copied, or a change of what never changes.
    #[error("the flags of backup contradict each other")]
    Backup,
    /// A registration without a credential.
    #[error("there is no credential")]
    NoCredential,
    /// The id around is not the id within.
    #[error("the credential's id is another one")]
    CredentialId,
    /// The key can't be read.
    #[error("the public key is none")]
    PublicKey,
    /// The key is of an algorithm that was not offered.
    #[error("the algorithm was not offered (ES256, EdDSA and RS256 were)")]
    Algorithm,
    /// Signed by somebody else.
    #[error("the signature is wrong")]
    Signature,
    /// Of another user.
    #[error("the credential is another user's")]
    Owner,
    /// It has signed more often than it says: there are two of it.
    #[error("the signature counter went back")]
    Counter,
}

/// What came of a registration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registration<'a> {
    pub(super) credential_id: &'a [u8],
    pub(super) client_data: &'a ClientData,
    pub(super) attestation_object: &'a [u8],
}

/// A new credential that may be stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NewCredential {
    pub(super) id: Vec<u8>,
    /// As COSE has it.
    pub(super) public_key: Vec<u8>,
    pub(super) sign_count: u32,
    pub(super) is_backup_eligible: bool,
    pub(super) is_backed_up: bool,
}

/// Judges a registration.
pub(super) fn register(given: &Registration<'_>, expected: &Expected<'_>) -> Result<NewCredential, Refusal> {
    check_client_data(given.client_data, "webauthn.create", expected)?;
    let bytes = authenticator_data_in(given.attestation_object).ok_or(Refusal::AttestationObject)?;
    let data = AuthenticatorData::read(&bytes).ok_or(Refusal::AuthenticatorData)?;
    check_authenticator(&data, expected)?;
    let attested = data.attested.ok_or(Refusal::NoCredential)?;
    if attested.credential_id != given.credential_id {
        return Err(Refusal::CredentialId);
    }
    PublicKey::read(attested.public_key).map_err(Refusal::of_key)?;
    Ok(NewCredential {
        id: attested.credential_id.to_vec(),
        public_key: attested.public_key.to_vec(),
        sign_count: data.sign_count,
        is_backup_eligible: data.flags.is_backup_eligible(),
        is_backed_up: data.flags.is_backed_up(),
    })
}

/// What came of a sign-in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Assertion<'a> {
    pub(super) credential_id: &'a [u8],
    /// Whose credential it is, as the authenticator says.
    pub(super) user_handle: Option<&'a [u8]>,
    pub(super) client_data: &'a ClientData,
    pub(super) authenticator_data: &'a [u8],
    pub(super) signature: &'a [u8],
}

/// The credential as it is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) credential_id: &'a [u8],
    pub(super) owner: &'a [u8],
    pub(super) public_key: &'a [u8],
    pub(super) sign_count: u32,
    pub(super) is_backup_eligible: bool,
}

/// What is known after a sign-in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proven {
    pub(super) sign_count: u32,
    pub(super) is_backed_up: bool,
    pub(super) is_user_verified: bool,
}

/// Judges a sign-in by a credential. Where the user was not known before, the authenticator has to name it.
pub(super) fn assert(
    given: &Assertion<'_>,
    known: &Known<'_>,
    must_name_owner: bool,
    expected: &Expected<'_>,
) -> Result<Proven, Refusal> {
    if given.credential_id != known.credential_id {
        return Err(Refusal::CredentialId);
    }
    let is_owner = given.user_handle.map_or(!must_name_owner, |handle| handle == known.owner);
    if !is_owner {
        return Err(Refusal::Owner);
    }
    check_client_data(given.client_data, "webauthn.get", expected)?;
    let data = AuthenticatorData::read(given.authenticator_data).ok_or(Refusal::AuthenticatorData)?;
    check_authenticator(&data, expected)?;
    if data.flags.is_backup_eligible() != known.is_backup_eligible {
        return Err(Refusal::Backup);
    }
    let signed = [given.authenticator_data, &given.client_data.hash].concat();
    let key = PublicKey::read(known.public_key).map_err(Refusal::of_key)?;
    if !key.has_signed(&signed, given.signature) {
        return Err(Refusal::Signature);
    }
    let counts = data.sign_count > 0 || known.sign_count > 0;
    if counts && data.sign_count <= known.sign_count {
        return Err(Refusal::Counter);
    }
    Ok(Proven {
        sign_count: data.sign_count,
        is_backed_up: data.flags.is_backed_up(),
        is_user_verified: data.flags.is_user_verified(),
    })
}

impl Refusal {
    /// Whether it is about where the browser was, and so nothing that the person could do differently.
    pub(super) fn is_of_page(self) -> bool {
        matches!(self, Self::Origin | Self::Framed)
    }

    fn of_key(refusal: KeyRefusal) -> Self {
        match refusal {
            KeyRefusal::Malformed => Self::PublicKey,
            KeyRefusal::Algorithm => Self::Algorithm,
        }
    }
}

fn check_client_data(data: &ClientData, kind: &str, expected: &Expected<'_>) -> Result<(), Refusal> {
    if data.kind != kind {
        return Err(Refusal::Type);
    }
    if data.challenge.map(super::model::Challenge::hash) != Some(expected.challenge) {
        return Err(Refusal::Challenge);
    }
    if !expected.relying_party.origins.contains(&data.origin) {
        return Err(Refusal::Origin);
    }
    if data.is_framed { Err(Refusal::Framed) } else { Ok(()) }
}

fn check_authenticator(data: &AuthenticatorData<'_>, expected: &Expected<'_>) -> Result<(), Refusal> {
    if *data.rp_id_hash != sha256(expected.relying_party.id.as_bytes()) {
        return Err(Refusal::RelyingParty);
    }
    let flags: Flags = data.flags;
    if !flags.is_user_present() {
        return Err(Refusal::Presence);
    }
    if expected.needs_verification && !flags.is_user_verified() {
        return Err(Refusal::Verification);
    }
    if flags.is_backed_up() && !flags.is_backup_eligible() { Err(Refusal::Backup) } else { Ok(()) }
}

/// The authenticator data of a registration's envelope.
fn authenticator_data_in(attestation_object: &[u8]) -> Option<Vec<u8>> {
    let mut rest = attestation_object;
    let map = take_map(&mut rest).filter(|_| rest.is_empty())?;
    let has_statement = under_text(&map, "fmt")?.is_text() && under_text(&map, "attStmt")?.is_map();
    let data = under_text(&map, "authData").and_then(Value::as_bytes).cloned();
    data.filter(|_| has_statement)
}

#[cfg(test)]
mod tests;
