//! `POST /api/v1/admin/apps/{appId}/webhooks/{id}/rotate-secret`: another secret, and the one before for a while.

use super::model::{AppName, RotatedWebhookSecret, WebhookError, endpoint_of};
use super::{seal, store};
use crate::AuthState;
use crate::admin::Act;
use crate::security_event::EventKind;
use crate::token::root_secret::RootSecrets;
use axum::Json;
use axum::extract::{Path, State};
use mana_kernel::integer::within;
use mana_kernel::{Clock, Rng};
use mana_platform::Database;
use mana_platform::http::{ApiError, ClientInfo, FreshAdmin, ProblemBody, Valid};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use sqlx::PgConnection;
use time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// How long the secret before stays good, if nobody says otherwise, and at most.
const OVERLAP_HOURS: u8 = 24;
const LONGEST_OVERLAP_HOURS: u8 = 168;

/// Hours, 0 to 168.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlapHours(u8);

/// Too many hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 0 to {LONGEST_OVERLAP_HOURS}")]
pub struct InvalidOverlap;

impl Default for OverlapHours {
    fn default() -> Self {
        Self(OVERLAP_HOURS)
    }
}

impl<'de> Deserialize<'de> for OverlapHours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(within(deserializer, 0, LONGEST_OVERLAP_HOURS.into())?).map_err(D::Error::custom)
    }
}

impl TryFrom<i64> for OverlapHours {
    type Error = InvalidOverlap;

    fn try_from(hours: i64) -> Result<Self, InvalidOverlap> {
        let hours = u8::try_from(hours).ok().filter(|hours| *hours <= LONGEST_OVERLAP_HOURS);
        hours.map(Self).ok_or(InvalidOverlap)
    }
}

/// How one secret follows another.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RotateWebhookSecretRequest {
    /// Hours in which deliveries are signed with the secret before as well; 24 if absent, and 0 for one that has leaked.
    #[schema(value_type = Option<i32>, minimum = 0, maximum = 168)]
    overlap_hours: Option<OverlapHours>,
}

/// Replaces the secret of an endpoint
///
/// The answer tells the new one, and nothing tells it again. Needs a proof that is fresh.
#[utoipa::path(
    post, path = "/api/v1/admin/apps/{appId}/webhooks/{id}/rotate-secret", tag = "admin",
    params(
        ("appId" = String, Path, description = "The app", min_length = 1, max_length = 128),
        ("id" = String, Path, description = "As in the list of endpoints", max_length = 64),
    ),
    request_body = RotateWebhookSecretRequest,
    responses(
        (status = 200, description = "The new secret", body = RotatedWebhookSecret),
        (status = 403, description = "Not an administrator, or none who has just proven it", body = ProblemBody),
        (status = 404, description = "The app has no such endpoint", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn rotate_webhook_secret(
    State(auth): State<AuthState>,
    FreshAdmin(admin): FreshAdmin,
    client: ClientInfo,
    Path((app, id)): Path<(String, String)>,
    Valid(request): Valid<RotateWebhookSecretRequest>,
) -> Result<Json<RotatedWebhookSecret>, ApiError> {
    let (app, id) = endpoint_of(app, &id)?;
    let overlap = request.overlap_hours.unwrap_or_default();
    let (clock, rng) = (&*auth.clock, &*auth.rng);
    let act = Act::of_request(&auth, &admin, &client, None);
    let mut transaction = act.begin(&auth.database).await?;
    let rotated = follow(&mut transaction, &auth.root_secrets, (clock, rng), Some(&app), id, overlap).await?;
    act.record_of_installation(&mut transaction, EventKind::WebhookSecretRotated(id)).await?;
    transaction.commit().await?;
    Ok(Json(rotated))
}

/// Replaces the secret of an endpoint for whoever may use the command line.
///
/// # Errors
/// When there is none, or the database fails.
pub async fn rotate_secret(
    database: &Database,
    root_secrets: &RootSecrets,
    (clock, rng): (&dyn Clock, &dyn Rng),
    id: Uuid,
    overlap: OverlapHours,
) -> Result<RotatedWebhookSecret, WebhookError> {
    let act = Act::of_operator((clock, rng), None);
    let mut transaction = act.begin(database).await?;
    let rotated = follow(&mut transaction, root_secrets, (clock, rng), None, id, overlap).await?;
    act.record_of_installation(&mut transaction, EventKind::WebhookSecretRotated(id)).await?;
    transaction.commit().await?;
    Ok(rotated)
}

async fn follow(
    connection: &mut PgConnection,
    root_secrets: &RootSecrets,
    (clock, rng): (&dyn Clock, &dyn Rng),
    app: Option<&AppName>,
    id: Uuid,
    overlap: OverlapHours,
) -> Result<RotatedWebhookSecret, WebhookError> {
    if !store::lock_endpoint(connection, app.map(AppName::as_str), id).await? {
        return Err(WebhookError::NotFound);
    }
    let old_expires_at = clock.now().saturating_add(Duration::hours(overlap.0.into()));
    store::update_expiring(connection, id, old_expires_at).await?;
    let secret = seal::make(connection, root_secrets, (clock, rng), id).await?;
    Ok(RotatedWebhookSecret { secret, old_expires_at })
}
