//! `POST /api/v1/admin/apps/{appId}/webhooks/{id}/enable`: an endpoint that was given up is told again.

use super::model::{AppName, WebhookError, endpoint_of};
use super::store;
use crate::AuthState;
use crate::admin::Act;
use crate::security_event::EventKind;
use axum::extract::{Path, State};
use http::StatusCode;
use mana_kernel::{Clock, Rng};
use mana_platform::Database;
use mana_platform::http::{Admin, ApiError, ClientInfo, ProblemBody};
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
    Admin(admin): Admin,
    client: ClientInfo,
    Path((app, id)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (app, id) = endpoint_of(app, &id)?;
    tell_from_now(&auth.database, &Act::of_request(&auth, &admin, &client, None), Some(&app), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Enables an endpoint for whoever may use the command line.
///
/// # Errors
/// When there is none, or the database fails.
pub async fn enable(
    database: &Database,
    (clock, rng): (&dyn Clock, &dyn Rng),
    id: Uuid,
) -> Result<(), WebhookError> {
    tell_from_now(database, &Act::of_operator((clock, rng), None), None, id).await
}

async fn tell_from_now(
    database: &Database,
    act: &Act<'_>,
    app: Option<&AppName>,
    id: Uuid,
) -> Result<(), WebhookError> {
    let mut transaction = act.begin(database).await?;
    if !store::lock_endpoint(&mut transaction, app.map(AppName::as_str), id).await? {
        return Err(WebhookError::NotFound);
    }
    store::update_enabled(&mut transaction, id, act.now()).await?;
    act.record_of_installation(&mut transaction, EventKind::WebhookEnabled(id)).await?;
    Ok(transaction.commit().await?)
}
