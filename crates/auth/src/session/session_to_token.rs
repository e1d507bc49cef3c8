//! `POST /api/v1/auth/session-to-token`: the single sign-on cookie for an app's own pair of tokens.

use super::cookie::{self, Presented};
use super::login::TokenResponse;
use super::model::SessionError;
use crate::AuthState;
use crate::token::{AppId, refresh};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use mana_platform::http::{ApiError, OptionalBody, ProblemBody};
use serde::Deserialize;
use utoipa::ToSchema;

/// Nothing: the cookie says it all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExchangeRequest {}

/// Exchanges the session cookie for tokens
///
/// Each exchange opens a chain of refresh tokens of its own under the shared session, for the app that `X-App-Id` or the
/// page's origin names, so that no app and no tab can use up another's token. Signing out ends them all.
#[utoipa::path(
    post, path = "/api/v1/auth/session-to-token", tag = "single sign-on",
    request_body(content = Option<ExchangeRequest>, content_type = "application/json"),
    params(("X-App-Id" = Option<String>, Header, description = "The app whose chain of refresh tokens begins; the page's origin without it", max_length = 255)),
    responses(
        (status = 200, description = "Signed in", body = TokenResponse),
        (status = 401, description = "No cookie, or not of a live session", body = ProblemBody),
    ),
    security(("cookie" = [])),
)]
pub(crate) async fn session_to_token(
    State(auth): State<AuthState>,
    app: AppId,
    headers: HeaderMap,
    OptionalBody(_): OptionalBody<ExchangeRequest>,
) -> Result<Response, ApiError> {
    let (found, renewed) = match cookie::present(&auth, &headers).await? {
        Presented::Live { found, renewed } => (found, renewed),
        Presented::Dead => return Err(SessionError::DeadCookie.into()),
        Presented::None => return Err(SessionError::NoCookie.into()),
    };
    let mut transaction = auth.database.begin().await?;
    let tokens = refresh::open_chain(&mut transaction, &auth, &found.user, &found.session, &app).await?;
    transaction.commit().await?;
    Ok((renewed, Json(tokens)).into_response())
}
