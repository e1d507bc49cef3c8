//! `GET /api/v1/admin/service-keys`: which keys there are.

use super::model::ServiceKeyDetails;
use super::store;
use crate::AuthState;
use axum::Json;
use axum::extract::State;
use mana_platform::http::{Admin, ApiError, ProblemBody};
use mana_platform::{Database, DbError};

/// Service keys
///
/// The newest first, with those that were revoked; a thousand at most.
#[utoipa::path(
    get, path = "/api/v1/admin/service-keys", tag = "admin",
    responses(
        (status = 200, description = "The keys, without what they are", body = Vec<ServiceKeyDetails>),
        (status = 403, description = "Not an administrator", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn service_keys(
    State(auth): State<AuthState>,
    _: Admin,
) -> Result<Json<Vec<ServiceKeyDetails>>, ApiError> {
    Ok(Json(list(&auth.database).await?))
}

/// All keys, the newest first.
///
/// # Errors
/// When the database fails.
pub async fn list(database: &Database) -> Result<Vec<ServiceKeyDetails>, DbError> {
    store::list_all(&mut *database.acquire().await?).await
}
