//! Whether what a browser sends shows that somebody holds a passkey.

use super::ceremony::{self, Assertion, Expected, Known, Refusal};
use super::challenge::{self, Bound};
use super::client_data::ClientData;
use super::encoded::Encoded;
use super::model::{CredentialType, PasskeyError, Purpose};
use super::store::{self, StoredPasskey};
use crate::Auth;
use crate::account::model::User;
use crate::account::store::lock_user;
use crate::security_event::{self, EventKind, Origin};
use crate::session::proof::Method;
use mana_kernel::UserId;
use mana_platform::db::Transaction;
use serde::Deserialize;
use utoipa::ToSchema;

/// What `toJSON()` of the credential gives (`AuthenticationResponseJSON`). Members that are not named here are not read.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PublicKeyCredential {
    id: Encoded<22, 1364>,
    raw_id: Encoded<22, 1364>,
    #[expect(dead_code, reason = "there is one type; that it is this one is checked by reading it")]
    r#type: CredentialType,
    response: AssertionResponse,
}

/// What the authenticator gave.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AssertionResponse {
    #[serde(rename = "clientDataJSON")]
    client_data_json: Encoded<2, 8192>,
    authenticator_data: Encoded<50, 4096>,
    signature: Encoded<2, 1024>,
    /// Whose passkey it is.
    user_handle: Option<Encoded<0, 86>>,
}

/// A passkey that somebody holds.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Whose it is, locked until the transaction ends.
    pub(crate) user: User,
    /// How much that proves.
    pub(crate) method: Method,
}

/// Takes what a browser sends for a challenge of the purpose. The passkey's use is noted in the transaction that comes back; what is wrong is
/// written down at once. `bound` says whose passkey it must be, where that is known. With `needs_verification` it must have verified its user;
/// without, a touch will do.
pub(crate) async fn take_passkey(
    auth: &Auth,
    given: &PublicKeyCredential,
    purpose: Purpose,
    bound: Option<Bound<'_>>,
    needs_verification: bool,
    origin: &Origin,
) -> Result<(Transaction, Shown), PasskeyError> {
    let data = ClientData::read(given.response.client_data_json.as_bytes()).ok_or(PasskeyError::Refused)?;
    let challenge = challenge::use_up(auth, &data, purpose, bound).await?;
    let mut transaction = auth.database.begin().await?;
    // The account's lock comes before that of its passkeys, everywhere.
    let owner = match bound {
        Some(bound) => Some(bound.user.clone()),
        None => store::find_owner(&mut transaction, given.raw_id.as_bytes()).await?,
    };
    let user = match &owner {
        Some(owner) => lock_user(&mut transaction, owner).await?,
        None => None,
    };
    let known = store::lock_credential(&mut transaction, given.raw_id.as_bytes()).await?;
    let is_of = |known: &StoredPasskey| owner.as_ref() == Some(&known.user_id);
    let Some(known) = known.filter(is_of) else {
        let user = bound.map(|bound| bound.user);
        return Err(refuse(transaction, auth, purpose, user, Refusal::CredentialId, origin).await?);
    };
    let relying_party = &auth.policy.relying_party;
    let expected = Expected { challenge, relying_party, needs_verification };
    match judge(given, &data, &known, bound.is_none(), &expected) {
        Ok(proven) => {
            let user = user.ok_or(PasskeyError::AccountDisabled)?;
            let now = auth.clock.now();
            let (count, is_backed_up) = (proven.sign_count, proven.is_backed_up);
            store::update_used(&mut transaction, known.id, count, is_backed_up, now).await?;
            let method = if proven.is_user_verified { Method::VerifiedPasskey } else { Method::Passkey };
            Ok((transaction, Shown { user, method }))
        }
        Err(refusal) => Err(refuse(transaction, auth, purpose, Some(&known.user_id), refusal, origin).await?),
    }
}

fn judge(
    given: &PublicKeyCredential,
    data: &ClientData,
    known: &StoredPasskey,
    must_name_owner: bool,
    expected: &Expected<'_>,
) -> Result<ceremony::Proven, Refusal> {
    if given.id != given.raw_id {
        return Err(Refusal::CredentialId);
    }
    let response = &given.response;
    let assertion = Assertion {
        credential_id: given.raw_id.as_bytes(),
        user_handle: response.user_handle.as_ref().map(Encoded::as_bytes),
        client_data: data,
        authenticator_data: response.authenticator_data.as_bytes(),
        signature: response.signature.as_bytes(),
    };
    let known = Known {
        credential_id: &known.credential_id,
        owner: known.user_id.as_str().as_bytes(),
        public_key: &known.public_key,
        sign_count: known.sign_count,
        is_backup_eligible: known.is_backup_eligible,
    };
    ceremony::assert(&assertion, &known, must_name_owner, expected)
}

/// Writes down that a passkey was refused, and says what to answer.
async fn refuse(
    mut transaction: Transaction,
    auth: &Auth,
    purpose: Purpose,
    user: Option<&UserId>,
    refusal: Refusal,
    origin: &Origin,
) -> Result<PasskeyError, PasskeyError> {
    let kind = match (refusal, purpose) {
        (Refusal::Counter, _) => EventKind::PasskeyCloned,
        (_, Purpose::SignIn | Purpose::Registration) => EventKind::SignInFailed,
        (_, Purpose::SecondFactor | Purpose::Reauthentication) => EventKind::SecondFactorFailed,
    };
    security_event::record(&mut transaction, auth, kind, user, None, origin).await?;
    transaction.commit().await?;
    tracing::debug!(%refusal, "a passkey is refused");
    Ok(if refusal.is_of_page() { PasskeyError::ForeignOrigin } else { PasskeyError::Refused })
}
