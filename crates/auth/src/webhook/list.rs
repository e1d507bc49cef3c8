//! `GET /api/v1/admin/apps/{appId}/webhooks`: which endpoints an app has, and how they fare.

use super::model::{AppName, WebhookDetails, WebhookError};
use super::store;
use crate::AuthState;
use axum::Json;
use axum::extract::{Path, State};
use mana_platform::http::{Admin, ApiError, ProblemBody};
use mana_platform::{Database, DbError};

/// Endpoints of an app
///
/// The oldest first, with what is wrong with them.
#[utoipa::path(
    get, path = "/api/v1/admin/apps/{appId}/webhooks", tag = "admin",
    params(("appId" = String, Path, description = "The app", min_length = 1, max_length = 128)),
    responses(
        (status = 200, description = "The endpoints, without their secrets", body = Vec<WebhookDetails>),
        (status = 403, description = "Not an administrator", body = ProblemBody),
        (status = 404, description = "No such app", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn webhooks(
    State(auth): State<AuthState>,
    _: Admin,
    Path(app): Path<String>,
) -> Result<Json<Vec<WebhookDetails>>, ApiError> {
    let app = AppName::try_from(app).map_err(|_| WebhookError::NotFound)?;
    Ok(Json(list(&auth.database, Some(&app)).await?))
}

/// The endpoints of an app, or of all.
///
/// # Errors
/// When the database fails.
pub async fn list(database: &Database, app: Option<&AppName>) -> Result<Vec<WebhookDetails>, DbError> {
    store::list_endpoints(&mut *database.acquire().await?, app.map(AppName::as_str)).await
}
