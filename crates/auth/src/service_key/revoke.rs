//! `DELETE /api/v1/admin/service-keys/{id}`: a key is not accepted any more.

use super::model::ServiceKeyError;
use super::store;
use crate::AuthState;
use crate::admin::Act;
use crate::security_event::{self, EventKind, Origin};
use axum::extract::{Path, State};
use http::StatusCode;
use mana_kernel::{Clock, Rng};
use mana_platform::http::{Admin, ApiError, ClientInfo, ProblemBody};
use mana_platform::{Database, DbError};
use uuid::Uuid;

/// Revokes a service key
///
/// For good. This server refuses it when the answer arrives, others within five seconds.
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
    let kind = EventKind::ServiceKeyRevoked(id);
    let (by, session, origin) = (&admin.user_id, &admin.session_id, Origin::of_request(&client));
    security_event::record(&mut transaction, &auth, kind, Some(by), Some(session), &origin).await?;
    transaction.commit().await.map_err(DbError::from)?;
    auth.service_keys.forget_all();
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes a key for whoever may use the command line; false if there is none that is accepted. Servers refuse it within five
/// seconds.
///
/// # Errors
/// When the database fails.
pub async fn revoke(
    database: &Database,
    clock: &dyn Clock,
    rng: &dyn Rng,
    id: Uuid,
) -> Result<bool, DbError> {
    let mut transaction = database.begin().await?;
    if !store::update_revoked(&mut transaction, id, clock.now()).await? {
        return Ok(false);
    }
    let kind = EventKind::ServiceKeyRevoked(id);
    security_event::record_of_service(&mut transaction, clock, rng, kind).await?;
    transaction.commit().await?;
    Ok(true)
}
