//! `POST /api/v1/auth/login`: a password for a session, its cookie and a first pair of tokens.

use super::check_password::check_password;
use super::cookie;
use super::open::{Device, Opened, open_session};
use crate::AuthState;
use crate::account::model::User;
use crate::security_event::Origin;
use crate::token::access::AccessToken;
use crate::token::refresh::model::RefreshToken;
use crate::token::{AppId, refresh};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;
use mana_kernel::Line;
use mana_platform::http::{ApiError, ClientInfo, Language, ProblemBody, Valid};
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
    let Opened { session, cookie: session_cookie, mail, ended } =
        open_session(&mut transaction, &auth, &user, device, &origin).await?;
    let tokens = refresh::open_chain(&mut transaction, &auth, &user, &session, &app).await?;
    ended.commit(transaction, &auth).await?;
    drop(mail);

    let set_cookie = cookie::set(&session_cookie, &auth.policy).map(|value| [(header::SET_COOKIE, value)]);
    Ok((set_cookie, Json(tokens)).into_response())
}
