//! A passkey as second factor of a sign-in that waits for it, and as proof within a session.

use super::manage::acting;
use super::model::{ChallengeToken, TwoFactorError};
use super::reauthenticate::{Reauthenticated, confirm};
use super::store;
use super::verify::{conclude, waiting};
use crate::AuthState;
use crate::account::model::User;
use crate::passkey::assertion::{PublicKeyCredential, take_passkey};
use crate::passkey::challenge::Bound;
use crate::passkey::model::Purpose;
use crate::passkey::sign_in_options::{RequestOptions, options_for};
use crate::security_event::Origin;
use crate::session::hold::hold;
use crate::session::login::TokenResponse;
use crate::session::sign_in::sign_in;
use crate::token::AppId;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use mana_platform::http::{ApiError, Caller, ClientInfo, Language, OptionalBody, ProblemBody, Valid};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Which sign-in.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PasskeyOptionsRequest {
    /// From the answer to the sign-in.
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    challenge_token: SecretString,
}

/// Which sign-in, and the passkey.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct VerifyPasskeyRequest {
    /// From the answer to the sign-in.
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    challenge_token: SecretString,
    credential: PublicKeyCredential,
    /// Not to be asked again in this browser for a while.
    trust_device: Option<bool>,
}

/// A passkey of the caller's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReauthenticatePasskeyRequest {
    credential: PublicKeyCredential,
}

/// Nothing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReauthenticationNoFields)]
pub(crate) struct NoFields {}

/// What to show a passkey with as second factor
///
/// For `navigator.credentials.get`; send what its `toJSON()` gives to `/api/v1/auth/two-factor/passkey`.
#[utoipa::path(
    post, path = "/api/v1/auth/two-factor/passkey-options", tag = "two-factor",
    request_body = PasskeyOptionsRequest,
    responses(
        (status = 200, description = "For the browser", body = RequestOptions),
        (status = 401, description = "The sign-in waits no longer", body = ProblemBody),
        (status = 409, description = "The account has no passkey", body = ProblemBody),
    ),
)]
pub(crate) async fn passkey_options(
    State(auth): State<AuthState>,
    Valid(request): Valid<PasskeyOptionsRequest>,
) -> Result<Json<RequestOptions>, ApiError> {
    let token = parse(&request.challenge_token)?;
    let mut transaction = auth.database.begin().await?;
    let user = waiting(&mut transaction, &auth, &token).await?;
    needs_passkey(&mut transaction, &user).await?;
    drop(transaction);
    let hash = token.hash();
    let bound = Bound { user: &user.id, within: hash.as_bytes() };
    // Who is known by a first factor shows with a touch that they hold the second.
    Ok(Json(options_for(&auth, Purpose::SecondFactor, bound, "discouraged").await?))
}

/// Finishes a sign-in with a passkey as its second factor
#[utoipa::path(
    post, path = "/api/v1/auth/two-factor/passkey", tag = "two-factor",
    request_body = VerifyPasskeyRequest,
    params(("X-App-Id" = Option<String>, Header, description = "The app whose chain of refresh tokens begins; the page's origin without it", max_length = 255)),
    responses(
        (status = 200, description = "Signed in", body = TokenResponse),
        (status = 400, description = "The options are too old or used up, or passkeys can't be used on the page", body = ProblemBody),
        (status = 401, description = "The passkey is refused, or the sign-in waits no longer", body = ProblemBody),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
    ),
)]
pub(crate) async fn verify_passkey(
    State(auth): State<AuthState>,
    client: ClientInfo,
    app: AppId,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<VerifyPasskeyRequest>,
) -> Result<Response, ApiError> {
    let origin = Origin::of_request(&client);
    let token = parse(&request.challenge_token)?;
    let mut transaction = auth.database.begin().await?;
    let user = waiting(&mut transaction, &auth, &token).await?;
    drop(transaction);
    let hash = token.hash();
    let bound = Bound { user: &user.id, within: hash.as_bytes() };
    let (mut transaction, shown) =
        take_passkey(&auth, &request.credential, Purpose::SecondFactor, Some(bound), false, &origin).await?;
    let trusts = request.trust_device.unwrap_or(false);
    let browser = (client, &headers, language);
    let (proof, device, cookies) =
        conclude(&mut transaction, &auth, (&token, &user), shown.method, browser, trusts).await?;
    let mut response = sign_in(transaction, &auth, &user, proof, device, &app, &origin).await?;
    cookies.add_to(&mut response);
    Ok(response)
}

/// What to confirm with a passkey with
///
/// For `navigator.credentials.get`; send what its `toJSON()` gives to `/api/v1/auth/reauthenticate/passkey` in the same session.
#[utoipa::path(
    post, path = "/api/v1/auth/reauthenticate/passkey-options", tag = "two-factor",
    request_body(content = Option<NoFields>, content_type = "application/json"),
    responses(
        (status = 200, description = "For the browser", body = RequestOptions),
        (status = 409, description = "The account has no passkey", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn reauthentication_options(
    State(auth): State<AuthState>,
    caller: Caller,
    OptionalBody(_): OptionalBody<NoFields>,
) -> Result<Json<RequestOptions>, ApiError> {
    let mut transaction = auth.database.begin().await?;
    let user = acting(&mut transaction, &caller.user_id).await?;
    needs_passkey(&mut transaction, &user).await?;
    drop(transaction);
    let bound = Bound { user: &user.id, within: caller.session_id.as_str().as_bytes() };
    Ok(Json(options_for(&auth, Purpose::Reauthentication, bound, "required").await?))
}

/// Confirms within a session, with a passkey, that it is you
#[utoipa::path(
    post, path = "/api/v1/auth/reauthenticate/passkey", tag = "two-factor",
    request_body = ReauthenticatePasskeyRequest,
    responses(
        (status = 200, description = "Confirmed", body = Reauthenticated),
        (status = 400, description = "The options are too old or used up, or passkeys can't be used on the page", body = ProblemBody),
        (status = 401, description = "The passkey is refused", body = ProblemBody),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn reauthenticate_with_passkey(
    State(auth): State<AuthState>,
    client: ClientInfo,
    caller: Caller,
    Valid(request): Valid<ReauthenticatePasskeyRequest>,
) -> Result<Json<Reauthenticated>, ApiError> {
    let origin = Origin::of_request(&client);
    let bound = Bound { user: &caller.user_id, within: caller.session_id.as_str().as_bytes() };
    let purpose = Purpose::Reauthentication;
    let (mut transaction, shown) =
        take_passkey(&auth, &request.credential, purpose, Some(bound), true, &origin).await?;
    hold(&mut transaction, &auth, &caller).await?;
    Ok(Json(confirm(transaction, &auth, &caller, shown.method, &origin).await?))
}

fn parse(token: &SecretString) -> Result<ChallengeToken, TwoFactorError> {
    ChallengeToken::parse(token.expose_secret()).map_err(|_| TwoFactorError::DeadChallenge)
}

async fn needs_passkey(connection: &mut PgConnection, user: &User) -> Result<(), TwoFactorError> {
    let factors = store::find_factors(connection, &user.id).await?;
    if factors.has_passkey { Ok(()) } else { Err(TwoFactorError::NotSetUp) }
}
