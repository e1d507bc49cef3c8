//! `POST /api/v1/admin/service-keys`: makes a key and tells it, once.

use super::model::{CreatedServiceKey, NewServiceKey, ServiceKeyDetails, ServiceKeySecret};
use super::store;
use crate::AuthState;
use crate::admin::Act;
use crate::admin::model::AdminError;
use crate::security_event::EventKind;
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use mana_kernel::id::new_uuid;
use mana_kernel::{Clock, Rng, UserId};
use mana_platform::http::{ApiError, ClientInfo, FreshAdmin, ProblemBody, Valid};
use mana_platform::{Database, DbError};
use sqlx::PgConnection;
use uuid::Uuid;

/// Makes a service key
///
/// The answer tells the key, and nothing tells it again: only its hash is stored. Needs a fresh proof, by the second factor if the asking
/// administrator has one.
#[utoipa::path(
    post, path = "/api/v1/admin/service-keys", tag = "admin",
    request_body = NewServiceKey,
    responses(
        (status = 201, description = "The key", body = CreatedServiceKey),
        (status = 403, description = "Not an administrator, or the sign-in is too old", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn create_service_key(
    State(auth): State<AuthState>,
    FreshAdmin(admin): FreshAdmin,
    client: ClientInfo,
    Valid(new): Valid<NewServiceKey>,
) -> Result<(StatusCode, Json<CreatedServiceKey>), ApiError> {
    let act = Act::of_request(&auth, &admin, &client, None);
    let mut transaction = act.begin(&auth.database).await?;
    let (id, created) =
        insert(&mut transaction, &*auth.clock, &*auth.rng, &new, Some(&admin.user_id)).await?;
    act.record_of_installation(&mut transaction, EventKind::ServiceKeyCreated(id)).await?;
    transaction.commit().await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Makes a key for whoever may use the command line.
///
/// # Errors
/// When the database fails.
pub async fn create(
    database: &Database,
    clock: &dyn Clock,
    rng: &dyn Rng,
    new: &NewServiceKey,
) -> Result<CreatedServiceKey, AdminError> {
    let act = Act::of_operator((clock, rng), None);
    let mut transaction = act.begin(database).await?;
    let (id, created) = insert(&mut transaction, clock, rng, new, None).await?;
    act.record_of_installation(&mut transaction, EventKind::ServiceKeyCreated(id)).await?;
    transaction.commit().await?;
    Ok(created)
}

async fn insert(
    connection: &mut PgConnection,
    clock: &dyn Clock,
    rng: &dyn Rng,
    new: &NewServiceKey,
    by: Option<&UserId>,
) -> Result<(Uuid, CreatedServiceKey), DbError> {
    let (id, key) = (new_uuid(clock, rng), ServiceKeySecret::generate(rng));
    let details = ServiceKeyDetails {
        id: id.to_string(),
        name: new.name.as_str().to_owned(),
        app_id: new.app_id.as_ref().map(|app| app.as_str().to_owned()),
        scopes: new.scopes.scopes().clone(),
        limit_per_minute: new.limit_per_minute.map(super::PerMinute::number),
        created_at: clock.now(),
        created_by: by.map(ToString::to_string),
        last_used_at: None,
        revoked_at: None,
    };
    store::insert(connection, &details, key.hash()).await?;
    Ok((id, CreatedServiceKey { key, details }))
}
