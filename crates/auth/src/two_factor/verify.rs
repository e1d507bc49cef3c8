//! `POST /api/v1/auth/two-factor/verify`: the second factor of a sign-in that waits for it, for what the sign-in itself would have
//! given.

use super::challenge::{CHALLENGE_COOKIE, TRUSTED_DEVICE_COOKIE};
use super::guess::take_code;
use super::model::{ChallengeToken, TrustedDeviceToken, TwoFactorError};
use super::store::{self, TrustedDevice};
use crate::account::model::User;
use crate::security_event::Origin;
use crate::session::login::TokenResponse;
use crate::session::open::Device;
use crate::session::proof::{Method, Proof};
use crate::session::sign_in::sign_in;
use crate::token::AppId;
use crate::{Auth, AuthState, account};
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use mana_kernel::Line;
use mana_platform::http::{ApiError, ClientInfo, Language, ProblemBody, Valid};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// The second factor.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct VerifyRequest {
    /// From the answer to the sign-in.
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    challenge_token: SecretString,
    /// A code of the authenticator app, or a recovery code.
    code: Line<1, 64>,
    /// Not to be asked again in this browser for a while.
    trust_device: Option<bool>,
}

/// Finishes a sign-in with its second factor
#[utoipa::path(
    post, path = "/api/v1/auth/two-factor/verify", tag = "two-factor",
    request_body = VerifyRequest,
    params(("X-App-Id" = Option<String>, Header, description = "The app whose chain of refresh tokens begins; the page's origin without it", max_length = 255)),
    responses(
        (status = 200, description = "Signed in", body = TokenResponse),
        (status = 401, description = "Not a code of the account, or the sign-in waits no longer", body = ProblemBody),
        (status = 429, description = "Too many wrong codes: see Retry-After", body = ProblemBody),
    ),
)]
pub(crate) async fn verify(
    State(auth): State<AuthState>,
    client: ClientInfo,
    app: AppId,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<VerifyRequest>,
) -> Result<Response, ApiError> {
    let origin = Origin::of_request(&client);
    let token = ChallengeToken::parse(request.challenge_token.expose_secret())
        .map_err(|_| TwoFactorError::DeadChallenge)?;
    let mut transaction = auth.database.begin().await?;
    let user = waiting(&mut transaction, &auth, &token).await?;
    let (mut transaction, method) =
        take_code(transaction, &auth, &user.id, request.code.as_str(), &origin).await?;
    let trusts = request.trust_device.unwrap_or(false);
    let browser = (client, &headers, language);
    let (proof, device, cookies) =
        conclude(&mut transaction, &auth, (&token, &user), method, browser, trusts).await?;
    let mut response = sign_in(transaction, &auth, &user, proof, device, &app, &origin).await?;
    cookies.add_to(&mut response);
    Ok(response)
}

/// What the end of a waiting sign-in sets and clears in a browser.
pub(super) struct SettledCookies(Vec<HeaderValue>);

impl SettledCookies {
    pub(super) fn add_to(self, response: &mut Response) {
        for value in self.0 {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
    }
}

/// Uses up a waiting sign-in: what is proven now, where it is opened, and what its end changes in the browser, which is trusted from now on if
/// its owner wants that. Only one request gets it.
pub(super) async fn conclude<'a>(
    connection: &mut PgConnection,
    auth: &Auth,
    (token, user): (&ChallengeToken, &User),
    method: Method,
    (client, headers, language): (ClientInfo, &'a HeaderMap, Language),
    trusts: bool,
) -> Result<(Proof, Device<'a>, SettledCookies), TwoFactorError> {
    let cookies = settle_cookies(connection, auth, user, &client, trusts).await?;
    let pending = store::delete_pending(connection, token.hash(), auth.clock.now()).await?;
    let pending = pending.ok_or(TwoFactorError::DeadChallenge)?;
    let device = Device {
        id: pending.device_id.and_then(|id| id.try_into().ok()),
        name: pending.device_name.and_then(|name| name.try_into().ok()),
        client,
        headers,
        language,
        remember_me: pending.remember_me,
    };
    Ok((pending.proof.and(method), device, cookies))
}

/// Clears the cookie of the waiting sign-in, and sets the one that makes the browser trusted if its owner wants that.
async fn settle_cookies(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    client: &ClientInfo,
    trusts: bool,
) -> Result<SettledCookies, TwoFactorError> {
    let mut cookies: Vec<_> = CHALLENGE_COOKIE.clear(&auth.policy).into_iter().collect();
    if trusts {
        let now = auth.clock.now();
        let token = TrustedDeviceToken::generate(&*auth.rng);
        let device = TrustedDevice {
            id: mana_kernel::id::new_uuid(&*auth.clock, &*auth.rng).to_string(),
            user_agent: client.user_agent.clone(),
            created_at: now,
            expires_at: now.saturating_add(auth.policy.trusted_device_ttl.try_into().unwrap_or_default()),
        };
        store::insert_trusted_device(connection, &user.id, token.hash(), &device).await?;
        cookies.extend(TRUSTED_DEVICE_COOKIE.set(token.expose(), &auth.policy));
    }
    Ok(SettledCookies(cookies))
}

/// The user whose sign-in a token names, while it waits and the user may act. The account is locked until the transaction ends: its lock comes
/// before that of its factors and of what waits, everywhere.
pub(super) async fn waiting(
    connection: &mut PgConnection,
    auth: &Auth,
    token: &ChallengeToken,
) -> Result<User, TwoFactorError> {
    let user = store::find_pending(connection, token.hash(), auth.clock.now()).await?;
    let user = user.ok_or(TwoFactorError::DeadChallenge)?;
    account::store::lock_user(connection, &user).await?.ok_or(TwoFactorError::DeadChallenge)
}
