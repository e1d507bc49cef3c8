//! `DELETE /api/v1/admin/apps/{appId}/webhooks/{id}`: an endpoint hears of nothing any more.

use super::model::{AppName, WebhookError, endpoint_of};
use super::store;
use crate::AuthState;
use crate::admin::Act;
use crate::security_event::EventKind;
use axum::extract::{Path, State};
use http::StatusCode;
use mana_kernel::{Clock, Rng};
use mana_platform::http::{Admin, ApiError, ClientInfo, ProblemBody};
use mana_platform::{Database, DbError};
use uuid::Uuid;

/// Deliveries of one statement, so that no lock is held for long.
const BATCH: i64 = 1_000;

/// Removes an endpoint
///
/// With its secrets, and with what waited for it. For good.
#[utoipa::path(
    delete, path = "/api/v1/admin/apps/{appId}/webhooks/{id}", tag = "admin",
    params(
        ("appId" = String, Path, description = "The app", min_length = 1, max_length = 128),
        ("id" = String, Path, description = "As in the list of endpoints", max_length = 64),
    ),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "Not an administrator", body = ProblemBody),
        (status = 404, description = "The app has no such endpoint", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn remove_webhook(
    State(auth): State<AuthState>,
    Admin(admin): Admin,
    client: ClientInfo,
    Path((app, id)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (app, id) = endpoint_of(app, &id)?;
    delete(&auth.database, &Act::of_request(&auth, &admin, &client, None), Some(&app), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes an endpoint for whoever may use the command line.
///
/// # Errors
/// When there is none, or the database fails.
pub async fn remove(
    database: &Database,
    (clock, rng): (&dyn Clock, &dyn Rng),
    id: Uuid,
) -> Result<(), WebhookError> {
    delete(database, &Act::of_operator((clock, rng), None), None, id).await
}

async fn delete(
    database: &Database,
    act: &Act<'_>,
    app: Option<&AppName>,
    id: Uuid,
) -> Result<(), WebhookError> {
    let mut transaction = act.begin(database).await?;
    if !store::lock_endpoint(&mut transaction, app.map(AppName::as_str), id).await? {
        return Err(WebhookError::NotFound);
    }
    store::delete_endpoint(&mut transaction, id).await?;
    act.record_of_installation(&mut transaction, EventKind::WebhookRemoved(id)).await?;
    transaction.commit().await?;
    Ok(delete_deliveries(database, id).await?)
}

/// What is left of it after a crash goes with its events.
async fn delete_deliveries(database: &Database, id: Uuid) -> Result<(), DbError> {
    let mut connection = database.acquire().await?;
    while store::delete_deliveries_of(&mut connection, id, BATCH).await? > 0 {}
    connection.finish().await
}
