//! `GET /api/v1/auth/me`: the account behind the token.

use super::model::User;
use super::store;
use crate::AuthState;
use axum::Json;
use axum::extract::State;
use mana_platform::http::{ApiError, Caller, codes};

/// The signed-in user
#[utoipa::path(
    get, path = "/api/v1/auth/me", tag = "auth",
    responses((status = 200, description = "The user", body = User)),
    security(("bearer" = [])),
)]
pub(crate) async fn me(State(auth): State<AuthState>, caller: Caller) -> Result<Json<User>, ApiError> {
    read(&auth, &caller).await.map(Json)
}

/// The caller's own account, read as that user.
pub(crate) async fn read(auth: &AuthState, caller: &Caller) -> Result<User, ApiError> {
    let mut transaction = auth.database.begin_as(&caller.user_id).await?;
    store::find_user(&mut transaction, &caller.user_id)
        .await?
        .ok_or_else(|| ApiError::new(&codes::UNAUTHENTICATED))
}
