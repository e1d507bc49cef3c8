//! `POST /api/v1/admin/apps/{appId}/webhooks/{id}/enable`: an endpoint that was given up is told again.

use super::model::{AppName, WebhookError, endpoint_of};
use super::store;
use crate::AuthState;
use axum::extract::{Path, State};
use http::StatusCode;
use mana_kernel::Clock;
use mana_platform::http::{Admin, ApiError, ProblemBody};
use mana_platform::{Database, DbError};
use uuid::Uuid;

/// Enables an endpoint
///
/// It is told what waits for it, from now on: what happened while it was disabled, too, as far as it is not older than 30 days. One that is
/// not disabled but failing is tried at once.
#[utoipa::path(
    post, path = "/api/v1/admin/apps/{appId}/webhooks/{id}/enable", tag = "admin",
    params(
        ("appId" = String, Path, description = "The app", min_length = 1, max_length = 128),
        ("id" = String, Path, description = "As in the list of endpoints", max_length = 64),
    ),
    responses(
        (status = 204, description = "Enabled"),
        (status = 403, description = "Not an administrator", body = ProblemBody),
        (status = 404, description = "The app has no such endpoint", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn enable_webhook(
    State(auth): State<AuthState>,
    _: Admin,
    Path((app, id)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (app, id) = endpoint_of(app, &id)?;
    enable(&auth.database, &*auth.clock, Some(&app), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has an endpoint told again.
///
/// # Errors
/// When the app has none of this id, whatever its app without one, or the database fails.
pub async fn enable(
    database: &Database,
    clock: &dyn Clock,
    app: Option<&AppName>,
    id: Uuid,
) -> Result<(), WebhookError> {
    let mut transaction = database.begin().await?;
    if !store::lock_endpoint(&mut transaction, app.map(AppName::as_str), id).await? {
        return Err(WebhookError::NotFound);
    }
    store::update_enabled(&mut transaction, id, clock.now()).await?;
    Ok(transaction.commit().await.map_err(DbError::from)?)
}
