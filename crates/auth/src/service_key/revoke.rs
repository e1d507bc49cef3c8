//! `DELETE /api/v1/admin/service-keys/{id}`: a key is not accepted any more.

use super::model::ServiceKeyError;
use super::store;
use crate::AuthState;
use crate::admin::Act;
use crate::admin::model::AdminError;
use crate::security_event::EventKind;
use axum::extract::{Path, State};
use http::StatusCode;
use mana_kernel::{Clock, Rng};
use mana_platform::http::{Admin, ApiError, ClientInfo, ProblemBody};
use mana_platform::{Database, DbError};
use uuid::Uuid;

/// Revokes a service key
///
/// For good. When the answer arrives, nothing is charged with it any more, and this server refuses it; others within five seconds.
#[utoipa::path(
    delete, path = "/api/v1/admin/service-keys/{id}", tag = "admin",
    params(("id" = String, Path, description = "As in the list of service keys", max_length = 64)),
    responses(
        (status = 204, description = "Revoked"),
        (status = 403, description = "Not an administrator, or sent by a browser for a page of a foreign site", body = ProblemBody),
        (status = 404, description = "No such key, or it was revoked before", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn revoke_service_key(
    State(auth): State<AuthState>,
    Admin(admin): Admin,
    client: ClientInfo,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let id = Uuid::parse_str(&id).map_err(|_| ServiceKeyError::NotFound)?;
    let act = Act::of_request(&auth, &admin, &client, None);
    let mut transaction = act.begin(&auth.database).await?;
    if !store::update_revoked(&mut transaction, id, auth.clock.now()).await? {
        return Err(ServiceKeyError::NotFound.into());
    }
    act.record_of_installation(&mut transaction, EventKind::ServiceKeyRevoked(id)).await?;
    transaction.commit().await?;
    auth.service_keys.forget_all();
    outwait_holders(&auth.database, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes a key for whoever may use the command line; false if there is none that is accepted. Nothing is charged with it any more; servers
/// refuse it within five seconds.
///
/// # Errors
/// When the database fails.
pub async fn revoke(
    database: &Database,
    clock: &dyn Clock,
    rng: &dyn Rng,
    id: Uuid,
) -> Result<bool, AdminError> {
    let act = Act::of_operator((clock, rng), None);
    let mut transaction = act.begin(database).await?;
    if !store::update_revoked(&mut transaction, id, clock.now()).await? {
        return Ok(false);
    }
    act.record_of_installation(&mut transaction, EventKind::ServiceKeyRevoked(id)).await?;
    transaction.commit().await?;
    outwait_holders(database, id).await?;
    Ok(true)
}

/// Waits for the charges that had found the key good. Only after the commit: new ones don't find it any more, so that those before them end,
/// however many apps ask.
async fn outwait_holders(database: &Database, id: Uuid) -> Result<(), DbError> {
    let mut transaction = database.begin().await?;
    store::outwait_holders(&mut transaction, id).await?;
    transaction.commit().await
}
