//! All SQL of `auth.webhook_endpoints`, `auth.webhook_secrets`, `auth.webhook_events` and `auth.webhook_deliveries`.
#![expect(
    clippy::as_conversions,
    reason = "how a checked query is told that elements of an array may be null"
)]

use super::announce::AppEvent;
use super::model::{DeliveryState, EventType, WebhookDetails};
use mana_platform::DbError;
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::HashMap;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

// Endpoints.

/// How many endpoints an app has. Nobody else adds one until the transaction ends.
pub(super) async fn hold_endpoints_of(connection: &mut PgConnection, app: &str) -> Result<i64, DbError> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended('webhook endpoints ' || $1, 0))", app)
        .execute(&mut *connection)
        .await?;
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM auth.webhook_endpoints WHERE app_id = $1"#,
        app
    )
    .fetch_one(connection)
    .await?)
}

/// Adds an endpoint.
pub(super) async fn insert_endpoint(
    connection: &mut PgConnection,
    endpoint: &WebhookDetails,
) -> Result<(), DbError> {
    let events: Vec<_> = endpoint.events.iter().map(|event| event.as_str().to_owned()).collect();
    sqlx::query!(
        "INSERT INTO auth.webhook_endpoints (id, app_id, url, events, spent_from, created_at, created_by, busy_until)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $6)",
        endpoint.id,
        endpoint.app_id,
        endpoint.url,
        &events,
        endpoint.spent_from,
        endpoint.created_at,
        endpoint.created_by,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The endpoints of an app, or of all, the oldest first.
pub(super) async fn list_endpoints(
    connection: &mut PgConnection,
    app: Option<&str>,
) -> Result<Vec<WebhookDetails>, DbError> {
    let rows = sqlx::query!(
        r#"SELECT id, app_id, url, events, spent_from, created_at, created_by, last_success_at, failing_since, last_error, disabled_at,
               (SELECT count(*) FROM (SELECT FROM auth.webhook_deliveries
                   WHERE endpoint_id = endpoint.id AND state = 'waiting' LIMIT 10000) AS waiting) AS "waiting!",
               (SELECT count(*) FROM (SELECT FROM auth.webhook_deliveries
                   WHERE endpoint_id = endpoint.id AND state = 'dead' LIMIT 10000) AS dead) AS "dead!"
           FROM auth.webhook_endpoints endpoint WHERE $1::text IS NULL OR app_id = $1 ORDER BY app_id, created_at, id"#,
        app,
    )
    .fetch_all(connection)
    .await?;
    let endpoints = rows.into_iter().map(|row| WebhookDetails {
        id: row.id,
        app_id: row.app_id,
        url: row.url,
        events: row.events.iter().filter_map(|event| event.parse::<EventType>().ok()).collect(),
        spent_from: row.spent_from,
        created_at: row.created_at,
        created_by: row.created_by,
        last_success_at: row.last_success_at,
        failing_since: row.failing_since,
        last_error: row.last_error,
        disabled_at: row.disabled_at,
        waiting: row.waiting,
        dead: row.dead,
    });
    Ok(endpoints.collect())
}

/// Whether the app has this endpoint, whatever its app without one. Nobody removes it until the transaction ends.
pub(super) async fn lock_endpoint(
    connection: &mut PgConnection,
    app: Option<&str>,
    id: Uuid,
) -> Result<bool, DbError> {
    let found = sqlx::query!(
        "SELECT id FROM auth.webhook_endpoints WHERE id = $1 AND ($2::text IS NULL OR app_id = $2) FOR NO KEY UPDATE",
        id,
        app,
    )
    .fetch_optional(connection)
    .await?;
    Ok(found.is_some())
}

/// Removes an endpoint with its secrets.
pub(super) async fn delete_endpoint(connection: &mut PgConnection, id: Uuid) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.webhook_endpoints WHERE id = $1", id).execute(connection).await?;
    Ok(())
}

/// Has an endpoint told again what waits for it, from now on.
pub(super) async fn update_enabled(
    connection: &mut PgConnection,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.webhook_endpoints SET disabled_at = NULL, failures = 0, failing_since = NULL, busy_until = least(busy_until, $2)
         WHERE id = $1",
        id,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// By app, the smallest spend that any of its endpoints hears of. Disabled ones count: what happens waits for them.
pub(super) async fn list_spent_from(connection: &mut PgConnection) -> Result<HashMap<String, i64>, DbError> {
    let rows = sqlx::query!(
        r#"SELECT app_id, min(spent_from) AS "spent_from!" FROM auth.webhook_endpoints WHERE 'credits.spent' = ANY(events) GROUP BY app_id"#
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.app_id, row.spent_from)).collect())
}

// Secrets.

/// A secret as stored.
pub(super) struct SealedSecret {
    pub(super) id: Uuid,
    pub(super) sealed: Vec<u8>,
    pub(super) version: String,
}

/// Adds a secret to an endpoint.
pub(super) async fn insert_secret(
    connection: &mut PgConnection,
    endpoint: Uuid,
    secret: &SealedSecret,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.webhook_secrets (id, endpoint_id, sealed, secret_version, created_at) VALUES ($1, $2, $3, $4, $5)",
        secret.id,
        endpoint,
        secret.sealed,
        secret.version,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets the secrets of an endpoint end at `until`, unless they end before.
pub(super) async fn update_expiring(
    connection: &mut PgConnection,
    endpoint: Uuid,
    until: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.webhook_secrets SET expires_at = least(expires_at, $2) WHERE endpoint_id = $1",
        endpoint,
        until,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What deliveries are signed with at `now`, the newest first.
pub(super) async fn list_secrets(
    connection: &mut PgConnection,
    endpoint: Uuid,
    now: OffsetDateTime,
) -> Result<Vec<SealedSecret>, DbError> {
    Ok(sqlx::query_as!(
        SealedSecret,
        "SELECT id, sealed, secret_version AS version FROM auth.webhook_secrets
         WHERE endpoint_id = $1 AND (expires_at IS NULL OR expires_at > $2) ORDER BY created_at DESC, id DESC LIMIT 5",
        endpoint,
        now,
    )
    .fetch_all(connection)
    .await?)
}

/// Secrets behind `after` that are sealed under another version than `version`, at most `limit`. Nobody else changes them until the
/// transaction ends.
pub(super) async fn lock_sealed_otherwise(
    connection: &mut PgConnection,
    version: &str,
    after: Uuid,
    limit: i64,
) -> Result<Vec<SealedSecret>, DbError> {
    Ok(sqlx::query_as!(
        SealedSecret,
        "SELECT id, sealed, secret_version AS version FROM auth.webhook_secrets
         WHERE secret_version <> $1 AND id > $2 ORDER BY id LIMIT $3 FOR UPDATE",
        version,
        after,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// Replaces a sealed secret.
pub(super) async fn update_sealed(
    connection: &mut PgConnection,
    id: Uuid,
    sealed: &[u8],
    version: &str,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.webhook_secrets SET sealed = $2, secret_version = $3 WHERE id = $1",
        id,
        sealed,
        version,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes secrets whose time is over.
pub(crate) async fn delete_expired_secrets(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<u64, DbError> {
    let done = sqlx::query!("DELETE FROM auth.webhook_secrets WHERE expires_at <= $1", now)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

// Events.

/// Adds those of the events that somebody wants to hear of, and a delivery for each who does.
pub(super) async fn insert_events(
    connection: &mut PgConnection,
    events: &[(Uuid, &AppEvent, String)],
    now: OffsetDateTime,
) -> Result<(), DbError> {
    let ids: Vec<_> = events.iter().map(|(id, ..)| *id).collect();
    let kinds: Vec<_> = events.iter().map(|(_, event, _)| event.kind.as_str().to_owned()).collect();
    let apps: Vec<_> = events.iter().map(|(_, event, _)| event.app.clone()).collect();
    let users: Vec<_> = events.iter().map(|(_, event, _)| event.user.clone()).collect();
    let amounts: Vec<_> = events.iter().map(|(_, event, _)| event.amount).collect();
    let bodies: Vec<_> = events.iter().map(|(.., body)| body.clone()).collect();
    sqlx::query!(
        "WITH news AS MATERIALIZED (
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[]) AS new (id, type, app_id, user_id, amount, body)
         ), heard AS MATERIALIZED (
             SELECT endpoint.id AS endpoint_id, news.id AS event_id FROM news JOIN auth.webhook_endpoints endpoint
                 ON news.type = ANY(endpoint.events) AND (news.app_id IS NULL OR news.app_id = endpoint.app_id)
                    AND (news.amount IS NULL OR news.amount >= endpoint.spent_from)
         ), written AS (
             INSERT INTO auth.webhook_events (id, type, app_id, user_id, amount, body, created_at)
             SELECT id, type, app_id, user_id, amount, body, $7 FROM news WHERE id IN (SELECT event_id FROM heard)
         )
         INSERT INTO auth.webhook_deliveries (endpoint_id, event_id, state, next_attempt_at) SELECT endpoint_id, event_id, 'waiting', $7 FROM heard",
        &ids,
        &kinds,
        &apps as &[Option<String>],
        &users,
        &amounts as &[Option<i64>],
        &bodies,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes events that are older than `before`, and what became of them, at most `limit`; says how many there were.
pub(crate) async fn delete_events_before(
    connection: &mut PgConnection,
    before: Uuid,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "WITH old AS MATERIALIZED (
             SELECT id FROM auth.webhook_events WHERE id < $1 ORDER BY id LIMIT $2
         ), told AS (
             DELETE FROM auth.webhook_deliveries USING old WHERE event_id = old.id
         )
         DELETE FROM auth.webhook_events event USING old WHERE event.id = old.id",
        before,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

// Deliveries.

/// An endpoint that somebody has to itself.
pub(super) struct ClaimedEndpoint {
    pub(super) id: Uuid,
    pub(super) app_id: String,
    pub(super) url: String,
    pub(super) failures: i32,
    pub(super) failing_since: Option<OffsetDateTime>,
}

/// Claims an endpoint for which something is due at `now`: nobody else gets it until `until`. Those that wait longest come first.
pub(super) async fn update_claimed(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<Option<ClaimedEndpoint>, DbError> {
    Ok(sqlx::query_as!(
        ClaimedEndpoint,
        "WITH free AS MATERIALIZED (
             SELECT id FROM auth.webhook_endpoints endpoint
             WHERE disabled_at IS NULL AND busy_until <= $1 AND EXISTS (
                 SELECT FROM auth.webhook_deliveries WHERE endpoint_id = endpoint.id AND state = 'waiting' AND next_attempt_at <= $1)
             ORDER BY busy_until, id LIMIT 1 FOR UPDATE SKIP LOCKED
         )
         UPDATE auth.webhook_endpoints endpoint SET busy_until = $2 FROM free WHERE endpoint.id = free.id
         RETURNING endpoint.id, app_id, url, failures, failing_since",
        now,
        until,
    )
    .fetch_optional(connection)
    .await?)
}

/// Something that an endpoint is to be told.
pub(super) struct WaitingDelivery {
    pub(super) event: Uuid,
    pub(super) attempts: i32,
    pub(super) body: String,
}

/// What an endpoint is to be told at `now`, at most `limit`.
pub(super) async fn list_due(
    connection: &mut PgConnection,
    endpoint: Uuid,
    now: OffsetDateTime,
    limit: i64,
) -> Result<Vec<WaitingDelivery>, DbError> {
    Ok(sqlx::query_as!(
        WaitingDelivery,
        "SELECT event_id AS event, attempts, body FROM auth.webhook_deliveries JOIN auth.webhook_events event ON event.id = event_id
         WHERE endpoint_id = $1 AND state = 'waiting' AND next_attempt_at <= $2 ORDER BY next_attempt_at, event_id LIMIT $3",
        endpoint,
        now,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// What came of a delivery.
pub(super) struct Noted {
    pub(super) event: Uuid,
    /// Attempts before this one.
    pub(super) was: i32,
    pub(super) state: DeliveryState,
    pub(super) attempts: i32,
    pub(super) next_attempt_at: OffsetDateTime,
    pub(super) status: Option<i16>,
    pub(super) error: Option<String>,
}

/// Notes what came of deliveries, unless somebody else has meanwhile.
pub(super) async fn update_noted(
    connection: &mut PgConnection,
    endpoint: Uuid,
    noted: &[Noted],
    now: OffsetDateTime,
) -> Result<(), DbError> {
    let events: Vec<_> = noted.iter().map(|noted| noted.event).collect();
    let was: Vec<_> = noted.iter().map(|noted| noted.was).collect();
    let states: Vec<_> = noted.iter().map(|noted| noted.state.as_str().to_owned()).collect();
    let attempts: Vec<_> = noted.iter().map(|noted| noted.attempts).collect();
    let at: Vec<_> = noted.iter().map(|noted| noted.next_attempt_at).collect();
    let statuses: Vec<_> = noted.iter().map(|noted| noted.status).collect();
    let errors: Vec<_> = noted.iter().map(|noted| noted.error.clone()).collect();
    sqlx::query!(
        "UPDATE auth.webhook_deliveries delivery SET state = new.state, attempts = new.attempts, next_attempt_at = new.next_attempt_at,
             last_status = new.status, last_error = new.error, attempted_at = $2
         FROM unnest($3::uuid[], $4::integer[], $5::text[], $6::integer[], $7::timestamptz[], $8::smallint[], $9::text[])
             AS new (event_id, was, state, attempts, next_attempt_at, status, error)
         WHERE endpoint_id = $1 AND delivery.event_id = new.event_id AND delivery.attempts = new.was AND delivery.state = 'waiting'",
        endpoint,
        now,
        &events,
        &was,
        &states,
        &attempts,
        &at,
        &statuses as &[Option<i16>],
        &errors as &[Option<String>],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets go of an endpoint.
pub(super) async fn update_released(
    connection: &mut PgConnection,
    id: Uuid,
    leased_until: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.webhook_endpoints SET busy_until = $3 WHERE id = $1 AND busy_until = $2",
        id,
        leased_until,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets go of an endpoint that took something.
pub(super) async fn update_healthy(
    connection: &mut PgConnection,
    id: Uuid,
    leased_until: OffsetDateTime,
    now: OffsetDateTime,
    error: Option<&str>,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.webhook_endpoints SET busy_until = $3, failures = 0, failing_since = NULL, last_success_at = $3, last_error = $4
         WHERE id = $1 AND busy_until = $2",
        id,
        leased_until,
        now,
        error,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// An endpoint at which nothing got through.
pub(super) struct Failure<'a> {
    pub(super) rest_until: OffsetDateTime,
    pub(super) failures: i32,
    pub(super) since: OffsetDateTime,
    pub(super) error: &'a str,
    pub(super) disabled_at: Option<OffsetDateTime>,
}

/// Leaves an endpoint alone for a while, or for good.
pub(super) async fn update_failing(
    connection: &mut PgConnection,
    id: Uuid,
    leased_until: OffsetDateTime,
    failure: &Failure<'_>,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.webhook_endpoints SET busy_until = $3, failures = $4, failing_since = $5, last_error = $6, disabled_at = $7
         WHERE id = $1 AND busy_until = $2",
        id,
        leased_until,
        failure.rest_until,
        failure.failures,
        failure.since,
        failure.error,
        failure.disabled_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes deliveries of an endpoint whose events are gone.
pub(super) async fn delete_without_event(
    connection: &mut PgConnection,
    endpoint: Uuid,
) -> Result<(), DbError> {
    sqlx::query!(
        "DELETE FROM auth.webhook_deliveries delivery WHERE endpoint_id = $1 AND state = 'waiting'
             AND NOT EXISTS (SELECT FROM auth.webhook_events event WHERE event.id = delivery.event_id)",
        endpoint,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes deliveries of an endpoint that is gone, at most `limit`; says how many there were.
pub(super) async fn delete_deliveries_of(
    connection: &mut PgConnection,
    endpoint: Uuid,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "DELETE FROM auth.webhook_deliveries WHERE endpoint_id = $1 AND event_id IN (
             SELECT event_id FROM auth.webhook_deliveries WHERE endpoint_id = $1 ORDER BY event_id LIMIT $2)",
        endpoint,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// What became of telling an endpoint of an event.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookDelivery {
    /// The event: `id` of what is sent.
    pub event_id: Uuid,
    /// What happened, as `credits.spent`.
    #[schema(max_length = 64)]
    pub r#type: String,
    /// When it happened.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Whether it was told.
    pub state: DeliveryState,
    /// How often that was tried.
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    pub attempts: i32,
    /// When it was last tried.
    #[serde(with = "time::serde::rfc3339::option")]
    pub attempted_at: Option<OffsetDateTime>,
    /// When it is tried next; null if it is not.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_attempt_at: Option<OffsetDateTime>,
    /// The status that the endpoint answered last; null if it did not.
    #[schema(minimum = 100, maximum = 999)]
    pub last_status: Option<i16>,
    /// What went wrong last.
    #[schema(max_length = 300)]
    pub last_error: Option<String>,
}

/// What became of what an endpoint was to be told, the newest first: of a state, or all, older than `before`, at most `limit`.
pub(super) async fn list_deliveries(
    connection: &mut PgConnection,
    endpoint: Uuid,
    state: Option<DeliveryState>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<WebhookDelivery>, DbError> {
    let rows = sqlx::query!(
        "SELECT event_id, type, created_at, state, attempts, attempted_at, next_attempt_at, last_status, last_error
         FROM auth.webhook_deliveries JOIN auth.webhook_events event ON event.id = event_id
         WHERE endpoint_id = $1 AND ($2::text IS NULL OR state = $2) AND ($3::uuid IS NULL OR event_id < $3)
         ORDER BY event_id DESC LIMIT $4",
        endpoint,
        state.map(DeliveryState::as_str),
        before,
        limit,
    )
    .fetch_all(connection)
    .await?;
    let deliveries = rows.into_iter().map(|row| {
        let state = DeliveryState::from_database(&row.state)
            .ok_or_else(|| DbError::unreadable("auth.webhook_deliveries"))?;
        Ok(WebhookDelivery {
            event_id: row.event_id,
            r#type: row.r#type,
            created_at: row.created_at,
            state,
            attempts: row.attempts,
            attempted_at: row.attempted_at,
            next_attempt_at: Some(row.next_attempt_at).filter(|_| state == DeliveryState::Waiting),
            last_status: row.last_status,
            last_error: row.last_error,
        })
    });
    deliveries.collect()
}

/// Has an endpoint told these events again; says how many of them there are that it hears of.
pub(super) async fn replay_events(
    connection: &mut PgConnection,
    endpoint: Uuid,
    events: &[Uuid],
    now: OffsetDateTime,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "INSERT INTO auth.webhook_deliveries (endpoint_id, event_id, state, next_attempt_at)
         SELECT endpoint.id, event.id, 'waiting', $3 FROM auth.webhook_events event JOIN auth.webhook_endpoints endpoint
             ON event.type = ANY(endpoint.events) AND (event.app_id IS NULL OR event.app_id = endpoint.app_id)
                AND (event.amount IS NULL OR event.amount >= endpoint.spent_from)
         WHERE endpoint.id = $1 AND event.id = ANY($2)
         ON CONFLICT ON CONSTRAINT webhook_deliveries_pkey DO UPDATE SET state = 'waiting', attempts = 0, next_attempt_at = $3",
        endpoint,
        events,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Has an endpoint told again what it hears of that happened from `from` on and before `to`: what it did not take, or all of it; behind
/// `after`, and at most `limit` events looked at. Says how many there are, and where it ended if there may be more.
pub(super) async fn replay_range(
    connection: &mut PgConnection,
    endpoint: Uuid,
    (after, to): (Uuid, Uuid),
    includes_delivered: bool,
    limit: i64,
    now: OffsetDateTime,
) -> Result<(u64, Option<Uuid>), DbError> {
    let events = sqlx::query_scalar!(
        "SELECT id FROM auth.webhook_events WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3",
        after,
        to,
        limit,
    )
    .fetch_all(&mut *connection)
    .await?;
    let last =
        events.last().copied().filter(|_| i64::try_from(events.len()).is_ok_and(|count| count >= limit));
    let done = sqlx::query!(
        "INSERT INTO auth.webhook_deliveries (endpoint_id, event_id, state, next_attempt_at)
         SELECT endpoint.id, event.id, 'waiting', $3 FROM auth.webhook_events event JOIN auth.webhook_endpoints endpoint
             ON event.type = ANY(endpoint.events) AND (event.app_id IS NULL OR event.app_id = endpoint.app_id)
                AND (event.amount IS NULL OR event.amount >= endpoint.spent_from)
         WHERE endpoint.id = $1 AND event.id = ANY($2)
         ON CONFLICT ON CONSTRAINT webhook_deliveries_pkey DO UPDATE SET state = 'waiting', attempts = 0, next_attempt_at = $3
             WHERE $4 OR webhook_deliveries.state <> 'delivered'",
        endpoint,
        &events,
        now,
        includes_delivered,
    )
    .execute(connection)
    .await?;
    Ok((done.rows_affected(), last))
}

/// How deliveries stand.
pub(super) struct Standing {
    /// Those that wait, of enabled endpoints; not counted beyond 100,000.
    pub(super) waiting: i64,
    /// Those that were given up; likewise.
    pub(super) dead: i64,
    /// Since when something is due at an endpoint that takes what it is told.
    pub(super) oldest_due: Option<OffsetDateTime>,
    /// Since when the enabled endpoint fails that fails longest.
    pub(super) failing_since: Option<OffsetDateTime>,
    pub(super) enabled: i64,
    pub(super) disabled: i64,
}

/// How deliveries stand at `now`.
pub(super) async fn find_standing(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Standing, DbError> {
    Ok(sqlx::query_as!(
        Standing,
        r#"SELECT (SELECT count(*) FROM (SELECT FROM auth.webhook_deliveries JOIN auth.webhook_endpoints endpoint ON endpoint.id = endpoint_id
                   WHERE state = 'waiting' AND disabled_at IS NULL LIMIT 100000) AS waiting) AS "waiting!",
               (SELECT count(*) FROM (SELECT FROM auth.webhook_deliveries WHERE state = 'dead' LIMIT 100000) AS dead) AS "dead!",
               (SELECT min(due.next_attempt_at) FROM auth.webhook_endpoints endpoint CROSS JOIN LATERAL (
                   SELECT next_attempt_at FROM auth.webhook_deliveries WHERE endpoint_id = endpoint.id AND state = 'waiting'
                   ORDER BY next_attempt_at LIMIT 1) AS due
                   WHERE disabled_at IS NULL AND failures = 0 AND due.next_attempt_at <= $1) AS oldest_due,
               (SELECT min(failing_since) FROM auth.webhook_endpoints WHERE disabled_at IS NULL) AS failing_since,
               (SELECT count(*) FROM auth.webhook_endpoints WHERE disabled_at IS NULL) AS "enabled!",
               (SELECT count(*) FROM auth.webhook_endpoints WHERE disabled_at IS NOT NULL) AS "disabled!""#,
        now,
    )
    .fetch_one(connection)
    .await?)
}
