//! `POST /api/v1/admin/apps/{appId}/webhooks/{id}/replay`: tells an endpoint again of what happened.

use super::model::{AppName, WebhookError, endpoint_of};
use super::store;
use crate::AuthState;
use crate::admin::Act;
use crate::security_event::EventKind;
use axum::Json;
use axum::extract::{Path, State};
use mana_kernel::id::first_uuid_at;
use mana_kernel::{Clock, Rng, Timestamp};
use mana_platform::Database;
use mana_platform::db::Transaction;
use mana_platform::http::{Admin, ApiError, ClientInfo, ProblemBody, Valid};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Events that are looked at together.
const BATCH: i64 = 1_000;
/// Events that a request may name.
const MAX_NAMED: usize = 100;

/// What is told again: events, or a time.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplayRequest {
    /// These, whether or not they were told before.
    #[serde(default)]
    #[schema(max_items = 100)]
    pub event_ids: Vec<EventId>,
    /// What happened from then on.
    pub from: Option<Timestamp>,
    /// And before then; until now if absent.
    pub to: Option<Timestamp>,
    /// Of that time, also what the endpoint has taken.
    #[serde(default)]
    pub includes_delivered: bool,
}

/// `id` of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, format = Uuid, min_length = 36, max_length = 36)]
pub struct EventId(pub Uuid);

impl TryFrom<String> for EventId {
    type Error = uuid::Error;

    fn try_from(text: String) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// What is told again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Replayed {
    /// Events.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub replayed: u64,
}

/// Tells an endpoint again
///
/// Of events by their ids, or of all that it hears of and has not taken within a time. Events are kept for 30 days. What is told again has
/// the id and the words that it had.
#[utoipa::path(
    post, path = "/api/v1/admin/apps/{appId}/webhooks/{id}/replay", tag = "admin",
    params(
        ("appId" = String, Path, description = "The app", min_length = 1, max_length = 128),
        ("id" = String, Path, description = "As in the list of endpoints", max_length = 64),
    ),
    request_body = ReplayRequest,
    responses(
        (status = 200, description = "How many events are told again", body = Replayed),
        (status = 400, description = "Neither events nor a time, or both, or a body that does not fit", body = ProblemBody),
        (status = 403, description = "Not an administrator", body = ProblemBody),
        (status = 404, description = "The app has no such endpoint", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn replay_webhook(
    State(auth): State<AuthState>,
    Admin(admin): Admin,
    client: ClientInfo,
    Path((app, id)): Path<(String, String)>,
    Valid(request): Valid<ReplayRequest>,
) -> Result<Json<Replayed>, ApiError> {
    let (app, id) = endpoint_of(app, &id)?;
    let act = Act::of_request(&auth, &admin, &client, None);
    Ok(Json(tell_again(&auth.database, &act, Some(&app), id, &request).await?))
}

/// Has an endpoint told again for whoever may use the command line.
///
/// # Errors
/// When there is none; when nothing is named; or when the database fails: what was found until then is told again.
pub async fn replay(
    database: &Database,
    (clock, rng): (&dyn Clock, &dyn Rng),
    id: Uuid,
    request: &ReplayRequest,
) -> Result<Replayed, WebhookError> {
    tell_again(database, &Act::of_operator((clock, rng), None), None, id, request).await
}

/// In several transactions if need be, in each of which the actor must be allowed to; the first one writes down that it is done.
async fn tell_again(
    database: &Database,
    act: &Act<'_>,
    app: Option<&AppName>,
    id: Uuid,
    request: &ReplayRequest,
) -> Result<Replayed, WebhookError> {
    let now = act.now();
    let ReplayRequest { event_ids, from, to, includes_delivered } = request;
    if event_ids.len() > MAX_NAMED
        || event_ids.is_empty() == from.is_none()
        || (from.is_none() && to.is_some())
    {
        return Err(WebhookError::NothingNamed);
    }
    let mut transaction = begin(database, act, app, id).await?;
    act.record_of_installation(&mut transaction, EventKind::WebhookReplayed(id)).await?;
    let Some(from) = from else {
        let ids: Vec<_> = event_ids.iter().map(|EventId(id)| *id).collect();
        let replayed = store::replay_events(&mut transaction, id, &ids, now).await?;
        transaction.commit().await?;
        return Ok(Replayed { replayed });
    };
    let (mut after, to) = (first_uuid_at(from.get()), to.map_or(Uuid::max(), |to| first_uuid_at(to.get())));
    let mut replayed = 0_u64;
    loop {
        let (count, last) =
            store::replay_range(&mut transaction, id, (after, to), *includes_delivered, BATCH, now).await?;
        transaction.commit().await?;
        replayed = replayed.saturating_add(count);
        let Some(last) = last else { return Ok(Replayed { replayed }) };
        after = last;
        transaction = begin(database, act, app, id).await?;
    }
}

async fn begin(
    database: &Database,
    act: &Act<'_>,
    app: Option<&AppName>,
    id: Uuid,
) -> Result<Transaction, WebhookError> {
    let mut transaction = act.begin(database).await?;
    let is_there = store::lock_endpoint(&mut transaction, app.map(AppName::as_str), id).await?;
    if is_there { Ok(transaction) } else { Err(WebhookError::NotFound) }
}
