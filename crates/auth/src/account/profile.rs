//! `GET /api/v1/auth/profile`: the account as its owner edits it.

use super::model::User;
use crate::AuthState;
use axum::Json;
use axum::extract::State;
use mana_platform::http::{ApiError, Caller};

/// The signed-in user's profile
#[utoipa::path(
    get, path = "/api/v1/auth/profile", tag = "auth",
    responses((status = 200, description = "The user", body = User)),
    security(("bearer" = [])),
)]
pub(crate) async fn profile(State(auth): State<AuthState>, caller: Caller) -> Result<Json<User>, ApiError> {
    super::me::read(&auth, &caller).await.map(Json)
}
