//! `POST /api/v1/auth/login`: a password for a session, its cookie and a first pair of tokens.

use super::cookie;
use super::model::{Session, SessionCookie, SessionError};
use super::store;
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
use mana_kernel::{Line, SessionId};
use mana_platform::DbError;
use mana_platform::http::{AddressBucket, ApiError, ClientInfo, ProblemBody, Valid};
use mana_platform::rate_limit::{AccountKey, whole_seconds};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
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
    Valid(request): Valid<LoginRequest>,
) -> Result<Response, ApiError> {
    let origin = Origin::of_request(&client);
    let user = check_password(&auth, request.email, &request.password, &origin).await?;
    let device = Device {
        id: request.device_id,
        name: request.device_name,
        client,
        remember_me: request.remember_me.unwrap_or(false),
    };

    let mut transaction = auth.database.begin().await?;
    let (session, session_cookie) = open_session(&mut transaction, &auth, &user, device).await?;
    let tokens = refresh::open_chain(&mut transaction, &auth, &user, &session, &app)
        .await
        .map_err(SessionError::from)?;
    security_event::record(
        &mut transaction,
        &auth,
        EventKind::SignedIn,
        Some(&user.id),
        Some(&session.id),
        &origin,
    )
    .await?;
    transaction.commit().await.map_err(DbError::from)?;

    let set_cookie = cookie::set(&session_cookie, &auth.policy).map(|value| [(header::SET_COOKIE, value)]);
    Ok((set_cookie, Json(tokens)).into_response())
}

/// The account of the address, if the password is its own. An unknown address costs the same hash and the same write as a
/// wrong password, reads the same, and is slowed down the same.
async fn check_password(
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
    match account {
        Some(account) if is_right && account.is_disabled => Err(SessionError::AccountDisabled),
        Some(account) if is_right => Ok(account.user),
        refused => {
            let user = refused.map(|account| account.user.id);
            let mut transaction = auth.database.begin().await?;
            security_event::record(
                &mut transaction,
                auth,
                EventKind::SignInFailed,
                user.as_ref(),
                None,
                origin,
            )
            .await?;
            transaction.commit().await.map_err(DbError::from)?;
            Err(SessionError::InvalidCredentials)
        }
    }
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

/// Where a session is opened.
struct Device {
    id: Option<Line<1, 128>>,
    name: Option<Line<1, 128>>,
    client: ClientInfo,
    remember_me: bool,
}

async fn open_session(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    device: Device,
) -> Result<(Session, SessionCookie), SessionError> {
    let now = auth.clock.now();
    let cookie = SessionCookie::generate(&*auth.rng);
    let session = Session {
        id: SessionId::new(&*auth.clock, &*auth.rng),
        user_id: user.id.clone(),
        device_id: device.id.map(String::from),
        device_name: device.name.map(String::from),
        user_agent: device.client.user_agent,
        ip_address: device.client.ip_address.map(|address| address.to_string()),
        created_at: now,
        last_activity_at: now,
        expires_at: auth.policy.session_end(now, now, device.remember_me),
    };
    store::insert_session(connection, &session, cookie.hash(), device.remember_me).await?;
    Ok((session, cookie))
}
