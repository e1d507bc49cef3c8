//! `DELETE /api/v1/admin/apps/{appId}/webhooks/{id}`: an endpoint hears of nothing any more.

use super::model::{AppName, WebhookError, endpoint_of};
use super::store;
use crate::AuthState;
use crate::security_event::{self, EventKind, Origin};
use axum::extract::{Path, State};
use http::StatusCode;
use mana_kernel::{Clock, Rng};
use mana_platform::http::{Admin, ApiError, ClientInfo, ProblemBody};
use mana_platform::{Database, DbError};
use sqlx::PgConnection;
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
    let mut transaction = auth.database.begin().await?;
    delete(&mut transaction, Some(&app), id).await?;
    let kind = EventKind::WebhookRemoved(id);
    let (by, session, origin) = (&admin.user_id, &admin.session_id, Origin::of_request(&client));
    security_event::record(&mut transaction, &auth, kind, Some(by), Some(session), &origin).await?;
    transaction.commit().await.map_err(DbError::from)?;
    delete_deliveries(&auth.database, id).await?;
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
    let mut transaction = database.begin().await?;
    delete(&mut transaction, None, id).await?;
    let kind = EventKind::WebhookRemoved(id);
    security_event::record_of_service(&mut transaction, clock, rng, kind).await?;
    transaction.commit().await.map_err(DbError::from)?;
    Ok(delete_deliveries(database, id).await?)
}

async fn delete(connection: &mut PgConnection, app: Option<&AppName>, id: Uuid) -> Result<(), WebhookError> {
    if !store::lock_endpoint(connection, app.map(AppName::as_str), id).await? {
        return Err(WebhookError::NotFound);
    }
    Ok(store::delete_endpoint(connection, id).await?)
}

/// What is left of it after a crash goes with its events.
async fn delete_deliveries(database: &Database, id: Uuid) -> Result<(), DbError> {
    let mut connection = database.acquire().await?;
    while store::delete_deliveries_of(&mut connection, id, BATCH).await? > 0 {}
    connection.finish().await
}
