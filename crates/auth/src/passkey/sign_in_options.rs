//! `POST /api/v1/auth/passkeys/sign-in-options`: what `navigator.credentials.get` is called with. The same for everybody: nobody says
//! first who they are, so nothing can be learnt about who has an account.

use super::add_options::{CredentialDescriptor, NoFields};
use super::challenge::{self, Bound};
use super::model::{PasskeyError, Purpose, TIMEOUT_MILLIS};
use super::store;
use crate::{Auth, AuthState};
use axum::Json;
use axum::extract::State;
use mana_platform::http::{ApiError, OptionalBody};
use serde::Serialize;
use utoipa::ToSchema;

/// For `PublicKeyCredential.parseRequestOptionsFromJSON` (WebAuthn level 3).
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestOptions {
    /// Base64url of 32 bytes, good for five minutes and one answer.
    #[schema(max_length = 43)]
    challenge: String,
    /// Milliseconds.
    #[schema(minimum = 1, maximum = 600_000)]
    timeout: u32,
    #[schema(max_length = 253)]
    rp_id: String,
    /// Empty where any passkey of the browser may be used.
    #[schema(max_items = 25)]
    allow_credentials: Vec<CredentialDescriptor>,
    /// `required` where the passkey is all that is asked for.
    #[schema(max_length = 16)]
    user_verification: &'static str,
}

/// What to sign in with a passkey with
///
/// Give it to `PublicKeyCredential.parseRequestOptionsFromJSON`, call `navigator.credentials.get` (with `mediation: "conditional"` to offer
/// passkeys in the form's autofill), and send what its `toJSON()` gives to `/api/v1/auth/passkeys/sign-in`.
#[utoipa::path(
    post, path = "/api/v1/auth/passkeys/sign-in-options", tag = "passkeys",
    request_body(content = Option<NoFields>, content_type = "application/json"),
    responses((status = 200, description = "For the browser", body = RequestOptions)),
)]
pub(super) async fn sign_in_options(
    State(auth): State<AuthState>,
    OptionalBody(_): OptionalBody<NoFields>,
) -> Result<Json<RequestOptions>, ApiError> {
    let challenge = challenge::give(&auth, Purpose::SignIn, None).await?;
    Ok(Json(RequestOptions {
        challenge: challenge.encode(),
        timeout: TIMEOUT_MILLIS,
        rp_id: auth.policy.relying_party.id.clone(),
        allow_credentials: Vec::new(),
        user_verification: "required",
    }))
}

/// What a user, who is known by something else already, shows a passkey with.
pub(crate) async fn options_for(
    auth: &Auth,
    purpose: Purpose,
    bound: Bound<'_>,
    user_verification: &'static str,
) -> Result<RequestOptions, PasskeyError> {
    let mut transaction = auth.database.begin().await?;
    let known = store::list_descriptors(&mut transaction, bound.user).await?;
    drop(transaction);
    let challenge = challenge::give(auth, purpose, Some(bound)).await?;
    Ok(RequestOptions {
        challenge: challenge.encode(),
        timeout: TIMEOUT_MILLIS,
        rp_id: auth.policy.relying_party.id.clone(),
        allow_credentials: known.into_iter().map(CredentialDescriptor::from).collect(),
        user_verification,
    })
}
