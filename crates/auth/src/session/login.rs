//! `POST /api/v1/auth/login`: a password for a session, its cookie and a first pair of tokens.

use super::model::SessionError;
use super::open::{Device, Opened, open_session};
use super::{cookie, liveness};
use crate::account::model::{Email, User};
use crate::account::store::PasswordAccount;
use crate::security_event::{self, EventKind, Origin};
use crate::token::access::AccessToken;
use crate::token::refresh::model::RefreshToken;
use crate::token::{AppId, refresh};
use crate::{Auth, AuthState, account};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;
use mana_kernel::Line;
use mana_platform::DbError;
use mana_platform::http::{AddressBucket, ApiError, ClientInfo, Language, ProblemBody, Valid};
use mana_platform::rate_limit::{AccountKey, whole_seconds};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who wants in.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LoginRequest {
    /// The address in any spelling.
    #[schema(value_type = String, format = "email")]
    email: String,
    /// The password.
    #[schema(value_type = String, format = "password")]
    password: SecretString,
    /// The device's own id, to recognise it next time.
    device_id: Option<Line<1, 128>>,
    /// The device's name, to show in the list of devices.
    device_name: Option<Line<1, 128>>,
    /// Keeps the session for longer.
    remember_me: Option<bool>,
}

/// A user with a fresh pair of tokens.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenResponse {
    pub(crate) user: User,
    /// JWT for `Authorization: Bearer`.
    #[schema(value_type = String)]
    pub(crate) access_token: AccessToken,
    /// Good for one refresh; then its successor is.
    #[schema(value_type = String)]
    pub(crate) refresh_token: RefreshToken,
    /// Seconds until the access token expires.
    pub(crate) expires_in: u64,
    /// Always `Bearer`.
    pub(crate) token_type: &'static str,
}

/// Signs in with a password
///
/// Sets the single sign-on cookie as well.
#[utoipa::path(
    post, path = "/api/v1/auth/login", tag = "auth",
    request_body = LoginRequest,
    params(("X-App-Id" = Option<String>, Header, description = "The app whose chain of refresh tokens begins; the page's origin without it", max_length = 255)),
    responses(
        (status = 200, description = "Signed in", body = TokenResponse),
        (status = 401, description = "Unknown address or wrong password", body = ProblemBody),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
    ),
)]
pub(crate) async fn login(
    State(auth): State<AuthState>,
    client: ClientInfo,
    app: AppId,
    language: Language,
    Valid(request): Valid<LoginRequest>,
) -> Result<Response, ApiError> {
    let origin = Origin::of_request(&client);
    let user = check_password(&auth, request.email, &request.password, &origin).await?;
    let device = Device {
        id: request.device_id,
        name: request.device_name,
        client,
        language,
        remember_me: request.remember_me.unwrap_or(false),
    };

    let mut transaction = auth.database.begin().await?;
    let Opened { session, cookie: session_cookie, mail } =
        open_session(&mut transaction, &auth, &user, device, &origin).await?;
    let tokens = refresh::open_chain(&mut transaction, &auth, &user, &session, &app).await?;
    transaction.commit().await.map_err(DbError::from)?;
    drop(mail);
    liveness::catch_up(&auth).await;

    let set_cookie = cookie::set(&session_cookie, &auth.policy).map(|value| [(header::SET_COOKIE, value)]);
    Ok((set_cookie, Json(tokens)).into_response())
}

/// The account of the address, if the password is its own. An unknown address costs the same hash and the same write as a
/// wrong password, reads the same, and is slowed down the same.
pub(crate) async fn check_password(
    auth: &Auth,
    email: String,
    password: &SecretString,
    origin: &Origin,
) -> Result<User, SessionError> {
    let typed = AccountKey::of(&email);
    let email = Email::try_from(email).ok();
    let key = email.as_ref().map_or(typed, |email| AccountKey::of(email.as_str()));
    let bucket = origin.client().bucket();
    if let Err(wait) = auth.limits.reserve_attempt(key, bucket).await {
        auth.limits.note_refused_attempt(key, origin.client());
        return Err(SessionError::TooManyAttempts { retry_after_seconds: whole_seconds(wait) });
    }
    let (account, is_right) = match look_up(auth, email, password, bucket).await {
        Ok(verdict) => verdict,
        Err(error) => {
            auth.limits.attempt_not_made(key, bucket).await;
            return Err(error);
        }
    };
    if is_right {
        auth.limits.attempt_succeeded(key, bucket).await;
    }
    let (user, refusal) = match account {
        Some(account) if is_right && !account.is_disabled => return Ok(account.user),
        Some(account) if is_right => (Some(account.user.id), SessionError::AccountDisabled),
        refused => (refused.map(|account| account.user.id), SessionError::InvalidCredentials),
    };
    let mut transaction = auth.database.begin().await?;
    let kind = EventKind::SignInFailed;
    security_event::record(&mut transaction, auth, kind, user.as_ref(), None, origin).await?;
    transaction.commit().await.map_err(DbError::from)?;
    Err(refusal)
}

/// The account of the address, if there is one, and whether the password is its own.
async fn look_up(
    auth: &Auth,
    email: Option<Email>,
    password: &SecretString,
    bucket: AddressBucket,
) -> Result<(Option<PasswordAccount>, bool), SessionError> {
    let account = match email {
        Some(email) => {
            let mut transaction = auth.database.begin().await?;
            account::store::find_by_email(&mut transaction, &email).await?
        }
        None => None,
    };
    let hash = account.as_ref().and_then(|account| account.password_hash.clone());
    let is_right = auth.hasher.verify(password, hash, bucket).await?;
    Ok((account, is_right))
}
