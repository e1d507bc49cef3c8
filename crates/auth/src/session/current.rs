//! `GET /api/v1/auth/session`: the session behind the token.

use super::model::Session;
use super::store;
use crate::account::model::User;
use crate::{AuthState, account};
use axum::Json;
use axum::extract::State;
use mana_platform::http::{ApiError, Caller, codes};
use serde::Serialize;
use utoipa::ToSchema;

/// Who is signed in, and how.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionResponse {
    user: User,
    session: Session,
}

/// The current session and its user
#[utoipa::path(
    get, path = "/api/v1/auth/session", tag = "auth",
    responses((status = 200, description = "The session", body = SessionResponse)),
    security(("bearer" = [])),
)]
pub(crate) async fn session(
    State(auth): State<AuthState>,
    caller: Caller,
) -> Result<Json<SessionResponse>, ApiError> {
    let mut transaction = auth.database.begin_as(&caller.user_id).await?;
    let user = account::store::find_user(&mut transaction, &caller.user_id).await?;
    let session = store::find_session(&mut transaction, &caller.session_id).await?;
    match (user, session) {
        (Some(user), Some(session)) => Ok(Json(SessionResponse { user, session })),
        _ => Err(ApiError::new(&codes::UNAUTHENTICATED)),
    }
}
