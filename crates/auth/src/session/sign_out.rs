//! `POST /api/auth/sign-out`: ends the session of the cookie, in all apps of the family.

use super::cookie;
use super::logout::{self, LogoutResponse};
use crate::AuthState;
use crate::security_event::Origin;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use mana_platform::http::{ApiError, ClientInfo};

/// Signs this browser out
///
/// Also when nobody is signed in. The cookie is cleared.
#[utoipa::path(
    post, path = "/api/auth/sign-out", tag = "single sign-on",
    responses((status = 200, description = "Signed out", body = LogoutResponse)),
    security((), ("cookie" = [])),
)]
pub(crate) async fn sign_out(
    State(auth): State<AuthState>,
    client: ClientInfo,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut transaction = auth.database.begin().await?;
    let named = cookie::named_sessions(&mut transaction, &auth, &headers).await?;
    logout::end(transaction, &auth, named, &Origin::of_request(&client)).await?;
    Ok(logout::signed_out(&auth))
}
