//! `POST /api/v1/auth/passkeys/sign-in`: a passkey for a session, its cookie and a first pair of tokens.

use super::assertion::{PublicKeyCredential, Shown, take_passkey};
use super::model::Purpose;
use crate::AuthState;
use crate::security_event::Origin;
use crate::session::open::Device;
use crate::session::proof::Proof;
use crate::session::sign_in::{LoginResponse, sign_in};
use crate::token::AppId;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use mana_kernel::Line;
use mana_platform::http::{ApiError, ClientInfo, Language, ProblemBody, Valid};
use serde::Deserialize;
use utoipa::ToSchema;

/// Who wants in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PasskeySignInRequest {
    credential: PublicKeyCredential,
    /// The device's own id, to recognise it next time; empty is none.
    device_id: Option<Line<0, 512>>,
    /// The device's name, to show in the list of devices; of a long one the beginning. Empty is none.
    device_name: Option<Line<0, 512>>,
    /// Keeps the session for longer.
    remember_me: Option<bool>,
}

/// Signs in with a passkey
///
/// Sets the single sign-on cookie as well. A passkey that verified its user is two factors in one: none is asked for besides.
#[utoipa::path(
    post, path = "/api/v1/auth/passkeys/sign-in", tag = "passkeys",
    request_body = PasskeySignInRequest,
    params(("X-App-Id" = Option<String>, Header, description = "The app whose chain of refresh tokens begins; the page's origin without it", max_length = 255)),
    responses(
        (status = 200, description = "Signed in", body = LoginResponse),
        (status = 400, description = "The options are too old or used up, or passkeys can't be used on the page", body = ProblemBody),
        (status = 401, description = "The passkey is refused", body = ProblemBody),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
    ),
)]
pub(super) async fn sign_in_with_passkey(
    State(auth): State<AuthState>,
    client: ClientInfo,
    app: AppId,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<PasskeySignInRequest>,
) -> Result<Response, ApiError> {
    let origin = Origin::of_request(&client);
    let (transaction, Shown { user, method }) =
        take_passkey(&auth, &request.credential, Purpose::SignIn, None, true, &origin).await?;
    let device = Device {
        id: request.device_id,
        name: request.device_name,
        client,
        headers: &headers,
        language,
        remember_me: request.remember_me.unwrap_or(false),
    };
    Ok(sign_in(transaction, &auth, &user, Proof::of(method), device, &app, &origin).await?)
}
