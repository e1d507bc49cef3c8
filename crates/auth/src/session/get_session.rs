//! `GET /api/auth/get-session`: who is signed in in this browser, asked by any app of the family.

use super::cookie::{self, Presented};
use super::model::Session;
use crate::AuthState;
use crate::account::model::User;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use mana_platform::http::ApiError;
use serde::Serialize;
use utoipa::ToSchema;

/// Who is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BrowserSession {
    session: Session,
    user: User,
}

/// The session of the cookie
///
/// `null` when nobody is signed in. Using it keeps the session: the cookie is sent again once a day.
#[utoipa::path(
    get, path = "/api/auth/get-session", tag = "single sign-on",
    responses((status = 200, description = "The session and its user, or null", body = Option<BrowserSession>)),
    security((), ("cookie" = [])),
)]
pub(crate) async fn get_session(
    State(auth): State<AuthState>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match cookie::present(&auth, &headers).await? {
        Presented::Live { found, renewed } => {
            let body = BrowserSession { session: found.session, user: found.user };
            Ok((renewed, Json(Some(body))).into_response())
        }
        Presented::Dead | Presented::None => Ok(Json(None::<BrowserSession>).into_response()),
    }
}
