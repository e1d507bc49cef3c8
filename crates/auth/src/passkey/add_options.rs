//! `POST /api/v1/auth/passkeys/registration-options`: what `navigator.credentials.create` is called with.

use super::challenge::{self, Bound};
use super::encoded::encode;
use super::model::{CredentialType, Purpose, TIMEOUT_MILLIS};
use super::public_key::{ALGORITHMS, Algorithm};
use super::store::{self, Descriptor};
use crate::{AuthState, account};
use axum::Json;
use axum::extract::State;
use mana_platform::http::{ApiError, Caller, FreshCaller, OptionalBody, ProblemBody, codes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Nothing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PasskeyNoFields)]
pub(super) struct NoFields {}

/// For `PublicKeyCredential.parseCreationOptionsFromJSON` (WebAuthn level 3).
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreationOptions {
    rp: RelyingPartyEntity,
    user: UserEntity,
    /// Base64url of 32 bytes, good for five minutes and one answer.
    #[schema(max_length = 43)]
    challenge: String,
    #[schema(max_items = 3)]
    pub_key_cred_params: Vec<CredentialParameters>,
    /// Milliseconds.
    #[schema(minimum = 1, maximum = 600_000)]
    timeout: u32,
    /// What the account has already.
    #[schema(max_items = 25)]
    exclude_credentials: Vec<CredentialDescriptor>,
    authenticator_selection: AuthenticatorSelection,
    /// Always `none`.
    #[schema(max_length = 16)]
    attestation: &'static str,
}

/// Whom the passkey is for.
#[derive(Debug, Serialize, ToSchema)]
struct RelyingPartyEntity {
    #[schema(max_length = 253)]
    id: String,
    #[schema(max_length = 255)]
    name: String,
}

/// Whose it is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UserEntity {
    /// Base64url of the user's id.
    #[schema(max_length = 86)]
    id: String,
    /// The address.
    #[schema(max_length = 254)]
    name: String,
    #[schema(max_length = 255)]
    display_name: String,
}

/// A kind of key that is taken.
#[derive(Debug, Serialize, ToSchema)]
struct CredentialParameters {
    r#type: CredentialType,
    /// Number of the algorithm at COSE.
    #[schema(minimum = -65_535, maximum = 65_535)]
    alg: i64,
}

/// What the authenticator must do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AuthenticatorSelection {
    /// Always `required`: it can be found without a name being typed.
    #[schema(max_length = 16)]
    resident_key: &'static str,
    /// The same for older browsers.
    require_resident_key: bool,
    /// Always `required`: it checks its user.
    #[schema(max_length = 16)]
    user_verification: &'static str,
}

/// A passkey that the browser may find.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CredentialDescriptor {
    r#type: CredentialType,
    /// Base64url.
    #[schema(max_length = 1364)]
    id: String,
    #[schema(value_type = Vec<mana_kernel::Line<1, 32>>, max_items = 7)]
    transports: Vec<String>,
}

impl From<Descriptor> for CredentialDescriptor {
    fn from(descriptor: Descriptor) -> Self {
        Self {
            r#type: CredentialType::PublicKey,
            id: encode(&descriptor.credential_id),
            transports: descriptor.transports,
        }
    }
}

/// What to create a passkey with
///
/// Give it to `PublicKeyCredential.parseCreationOptionsFromJSON`, call `navigator.credentials.create`, and send what its `toJSON()` gives to
/// `/api/v1/auth/passkeys` in the same session. Needs a fresh sign-in.
#[utoipa::path(
    post, path = "/api/v1/auth/passkeys/registration-options", tag = "passkeys",
    request_body(content = Option<NoFields>, content_type = "application/json"),
    responses(
        (status = 200, description = "For the browser", body = CreationOptions),
        (status = 403, description = "The sign-in is too old", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn registration_options(
    State(auth): State<AuthState>,
    FreshCaller(caller): FreshCaller,
    OptionalBody(_): OptionalBody<NoFields>,
) -> Result<Json<CreationOptions>, ApiError> {
    let mut transaction = auth.database.begin().await?;
    let user = account::store::find_user(&mut transaction, &caller.user_id).await?;
    let user = user.ok_or_else(|| ApiError::new(&codes::UNAUTHENTICATED))?;
    let known = store::list_descriptors(&mut transaction, &user.id).await?;
    drop(transaction);
    let challenge = challenge::give(&auth, Purpose::Registration, Some(within(&caller))).await?;
    let relying_party = &auth.policy.relying_party;
    let parameters =
        |alg: Algorithm| CredentialParameters { r#type: CredentialType::PublicKey, alg: alg.number() };
    Ok(Json(CreationOptions {
        rp: RelyingPartyEntity { id: relying_party.id.clone(), name: relying_party.name.clone() },
        user: UserEntity {
            id: encode(user.id.as_str().as_bytes()),
            display_name: user.name.unwrap_or_else(|| user.email.clone()),
            name: user.email,
        },
        challenge: challenge.encode(),
        pub_key_cred_params: ALGORITHMS.map(parameters).into(),
        timeout: TIMEOUT_MILLIS,
        exclude_credentials: known.into_iter().map(CredentialDescriptor::from).collect(),
        authenticator_selection: AuthenticatorSelection {
            resident_key: "required",
            require_resident_key: true,
            user_verification: "required",
        },
        attestation: "none",
    }))
}

/// A registration is finished in the session that began it.
pub(super) fn within(caller: &Caller) -> Bound<'_> {
    Bound { user: &caller.user_id, within: caller.session_id.as_str().as_bytes() }
}
