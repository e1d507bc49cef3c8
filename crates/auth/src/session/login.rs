//! `POST /api/v1/auth/login`: a password for a session, its cookie and a first pair of tokens.

use super::check_password::check_password;
use super::open::Device;
use super::proof::{Method, Proof};
use super::sign_in::{LoginResponse, sign_in};
use crate::AuthState;
use crate::account::model::User;
use crate::security_event::Origin;
use crate::token::AppId;
use crate::token::access::AccessToken;
use crate::token::refresh::model::RefreshToken;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use mana_kernel::Line;
use mana_platform::http::{ApiError, ClientInfo, Language, ProblemBody, Valid};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who wants in.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"email": "ada@example.com", "password": "correct horse battery"})))]
pub(crate) struct LoginRequest {
    /// The address in any spelling.
    #[schema(value_type = String, format = "email", max_length = 254)]
    email: String,
    /// The password.
    #[schema(value_type = String, format = "password", max_length = 4096)]
    password: SecretString,
    /// The device's own id, to recognise it next time; empty is none.
    device_id: Option<Line<0, 512>>,
    /// The device's name, to show in the list of devices; of a long one the beginning. Empty is none.
    device_name: Option<Line<0, 512>>,
    /// Keeps the session for longer.
    remember_me: Option<bool>,
}

/// A user with a fresh pair of tokens.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenResponse {
    pub(crate) user: User,
    /// JWT for `Authorization: Bearer`.
    #[schema(value_type = String, max_length = 8192)]
    pub(crate) access_token: AccessToken,
    /// Good for one refresh; then its successor is.
    #[schema(value_type = String, max_length = 255)]
    pub(crate) refresh_token: RefreshToken,
    /// Seconds until the access token expires.
    #[schema(minimum = 1, maximum = 315_360_000)]
    pub(crate) expires_in: u64,
    /// Always `Bearer`.
    #[schema(max_length = 16)]
    pub(crate) token_type: &'static str,
}

/// Signs in with a password
///
/// Sets the single sign-on cookie as well. Where a second factor is needed, the answer has `twoFactorRequired` instead of tokens.
#[utoipa::path(
    post, path = "/api/v1/auth/login", tag = "auth",
    request_body = LoginRequest,
    params(("X-App-Id" = Option<String>, Header, description = "The app whose chain of refresh tokens begins; the page's origin without it", max_length = 255)),
    responses(
        (status = 200, description = "Signed in, or asked for a second factor", body = LoginResponse),
        (status = 401, description = "Unknown address or wrong password", body = ProblemBody),
        (status = 403, description = "The password is right and the address is not verified (code EMAIL_NOT_VERIFIED), or sent by a browser for a page of a foreign site", body = ProblemBody),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
    ),
)]
pub(crate) async fn login(
    State(auth): State<AuthState>,
    client: ClientInfo,
    app: AppId,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<LoginRequest>,
) -> Result<Response, ApiError> {
    let origin = Origin::of_request(&client);
    let user = check_password(&auth, request.email, &request.password, &origin).await?;
    let device = Device {
        id: request.device_id,
        name: request.device_name,
        client,
        headers: &headers,
        language,
        remember_me: request.remember_me.unwrap_or(false),
    };
    let transaction = auth.database.begin().await?;
    let proof = Proof::of(Method::Password);
    Ok(sign_in(transaction, &auth, &user, proof, device, &app, &origin).await?)
}
