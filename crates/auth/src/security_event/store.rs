//! All SQL of `auth.security_events` and `auth.erasures`.

use crate::DataPage;
use crate::account::export::row;
use mana_kernel::UserId;
use mana_platform::DbError;
use serde::Serialize;
use sqlx::PgConnection;
use time::{OffsetDateTime, PrimitiveDateTime};
use utoipa::ToSchema;
use uuid::Uuid;

/// Events of one kind and request as stored, one for each session (or for none).
pub(super) struct EventRows<'a> {
    pub(super) ids: &'a [Uuid],
    pub(super) sessions: &'a [Option<String>],
    pub(super) user_id: Option<&'a str>,
    pub(super) kind: &'a str,
    pub(super) detail: Option<&'a str>,
    pub(super) ip_address: Option<String>,
    pub(super) user_agent: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    pub(super) created_at: OffsetDateTime,
    pub(super) actor: Option<&'a str>,
    pub(super) actor_id: Option<&'a str>,
    pub(super) reason: Option<&'a str>,
}

/// An event as its user sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecurityEvent {
    #[schema(value_type = String, format = "uuid")]
    pub(crate) id: Uuid,
    /// What happened, as `signed_in`.
    #[schema(min_length = 1, max_length = 64)]
    pub(crate) r#type: String,
    /// More about it, as `disowned` for the reason why a session was ended; null where the type says all.
    #[schema(max_length = 128)]
    pub(crate) detail: Option<String>,
    #[schema(min_length = 1, max_length = 64)]
    pub(crate) session_id: Option<String>,
    /// Who did it, if it was not the account's owner or somebody who passed for that: `administrator` or `operator`.
    #[schema(max_length = 16)]
    pub(crate) actor: Option<String>,
    /// Of the owner, not of another actor.
    #[schema(max_length = 45)]
    pub(crate) ip_address: Option<String>,
    #[schema(max_length = 512)]
    pub(crate) user_agent: Option<String>,
    #[schema(min_length = 1, max_length = 64)]
    pub(crate) request_id: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
}

/// A user's events, newest first.
pub(super) async fn list_events(
    connection: &mut PgConnection,
    user: &UserId,
    limit: i64,
) -> Result<Vec<SecurityEvent>, DbError> {
    Ok(sqlx::query_as!(
        SecurityEvent,
        "SELECT id, type, detail, session_id, actor, CASE WHEN actor IS NULL THEN host(ip_address) END AS ip_address,
             CASE WHEN actor IS NULL THEN user_agent END AS user_agent, request_id, created_at
         FROM auth.security_events WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2",
        user.as_str(),
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// An event as administrators see it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdminSecurityEvent {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: Uuid,
    /// Whose account; null for an event of the installation, or of an address without an account.
    #[schema(min_length = 1, max_length = 64)]
    pub user_id: Option<String>,
    /// What happened, as `signed_in`.
    #[schema(min_length = 1, max_length = 64)]
    pub r#type: String,
    /// More about it; null where the type says all.
    #[schema(max_length = 128)]
    pub detail: Option<String>,
    /// Which session.
    #[schema(min_length = 1, max_length = 64)]
    pub session_id: Option<String>,
    /// Who did it, if it was not the account's owner: `administrator` or `operator`.
    #[schema(max_length = 16)]
    pub actor: Option<String>,
    /// Which administrator.
    #[schema(min_length = 1, max_length = 64)]
    pub actor_id: Option<String>,
    /// Why, in the actor's words.
    #[schema(max_length = 500)]
    pub reason: Option<String>,
    /// From which address.
    #[schema(max_length = 45)]
    pub ip_address: Option<String>,
    /// With which program.
    #[schema(max_length = 512)]
    pub user_agent: Option<String>,
    /// By which request.
    #[schema(min_length = 1, max_length = 64)]
    pub request_id: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Which events.
#[derive(Debug)]
pub(super) struct EventFilter<'a> {
    pub(super) kind: Option<&'a str>,
    pub(super) since: Option<OffsetDateTime>,
    /// Those before this one, which is named by its time and id.
    pub(super) before: Option<(OffsetDateTime, Uuid)>,
    pub(super) limit: i64,
}

/// A user's events, newest first.
pub(super) async fn list_events_of(
    connection: &mut PgConnection,
    user: &UserId,
    filter: &EventFilter<'_>,
) -> Result<Vec<AdminSecurityEvent>, DbError> {
    let (at, id) = filter.before.unzip();
    Ok(sqlx::query_as!(
        AdminSecurityEvent,
        "SELECT id, user_id, type, detail, session_id, actor, actor_id, reason, host(ip_address) AS ip_address, user_agent,
             request_id, created_at
         FROM auth.security_events
         WHERE user_id = $1 AND ($2::text IS NULL OR type = $2) AND ($3::timestamptz IS NULL OR created_at >= $3)
             AND ($4::timestamptz IS NULL OR (created_at, id) < ($4, $5::uuid))
         ORDER BY created_at DESC, id DESC LIMIT $6",
        user.as_str(),
        filter.kind,
        filter.since,
        at,
        id,
        filter.limit,
    )
    .fetch_all(connection)
    .await?)
}

/// Everybody's events, newest first, of the `window` ones from `filter.before` on: rare ones must not be a reason to read the whole log
/// for a page.
pub(super) async fn list_events_of_all(
    connection: &mut PgConnection,
    filter: &EventFilter<'_>,
    window: i64,
) -> Result<Vec<AdminSecurityEvent>, DbError> {
    Ok(sqlx::query_as!(
        AdminSecurityEvent,
        r#"WITH recent AS MATERIALIZED (
               SELECT * FROM auth.security_events
               WHERE ($1::uuid IS NULL OR id < $1) AND ($2::uuid IS NULL OR id >= $2) ORDER BY id DESC LIMIT $3
           )
           SELECT id AS "id!", user_id, type AS "type!", detail, session_id, actor, actor_id, reason, host(ip_address) AS ip_address,
               user_agent, request_id, created_at AS "created_at!"
           FROM recent WHERE $4::text IS NULL OR type = $4 ORDER BY id DESC LIMIT $5"#,
        filter.before.map(|(_, id)| id),
        filter.since.map(mana_kernel::id::first_uuid_at),
        window,
        filter.kind,
        filter.limit,
    )
    .fetch_all(connection)
    .await?)
}

/// The last event of such a window; none if fewer are left.
pub(super) async fn find_end_of_window(
    connection: &mut PgConnection,
    filter: &EventFilter<'_>,
    window: i64,
) -> Result<Option<(OffsetDateTime, Uuid)>, DbError> {
    let row = sqlx::query!(
        "SELECT created_at, id FROM auth.security_events
         WHERE ($1::uuid IS NULL OR id < $1) AND ($2::uuid IS NULL OR id >= $2) ORDER BY id DESC OFFSET $3 LIMIT 1",
        filter.before.map(|(_, id)| id),
        filter.since.map(mana_kernel::id::first_uuid_at),
        window.saturating_sub(1),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| (row.created_at, row.id)))
}

/// A page of a user's events, newest first.
pub(crate) async fn list_all(
    connection: &mut PgConnection,
    user: &UserId,
    after: Option<&str>,
) -> Result<DataPage, DbError> {
    let (at, id) = after.and_then(read_place).unwrap_or((PrimitiveDateTime::MAX.assume_utc(), Uuid::max()));
    let rows = sqlx::query_as!(
        SecurityEvent,
        "SELECT id, type, detail, session_id, actor, CASE WHEN actor IS NULL THEN host(ip_address) END AS ip_address,
             CASE WHEN actor IS NULL THEN user_agent END AS user_agent, request_id, created_at
         FROM auth.security_events WHERE user_id = $1 AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $4",
        user.as_str(),
        at,
        id,
        DataPage::ROWS,
    )
    .fetch_all(connection)
    .await?;
    let last = rows.last().map(|event| format!("{} {}", event.created_at.unix_timestamp_nanos(), event.id));
    Ok(DataPage::of(rows.into_iter().map(row).collect(), last))
}

/// Where a page ended.
fn read_place(text: &str) -> Option<(OffsetDateTime, Uuid)> {
    let (at, id) = text.split_once(' ')?;
    Some((OffsetDateTime::from_unix_timestamp_nanos(at.parse().ok()?).ok()?, id.parse().ok()?))
}

/// Adds events.
#[expect(
    clippy::as_conversions,
    reason = "how a checked query is told that elements of an array may be null"
)]
pub(super) async fn insert_events(
    connection: &mut PgConnection,
    events: &EventRows<'_>,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.security_events (id, session_id, user_id, type, ip_address, user_agent, request_id, created_at, detail, actor, actor_id, reason)
         SELECT event.id, event.session_id, $3, $4, $5::text::inet, $6, $7, $8, $9, $10, $11, $12
         FROM unnest($1::uuid[], $2::text[]) AS event (id, session_id)",
        events.ids,
        events.sessions as &[Option<String>],
        events.user_id,
        events.kind,
        events.ip_address,
        events.user_agent,
        events.request_id,
        events.created_at,
        events.detail,
        events.actor,
        events.actor_id,
        events.reason,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that the log is to say nothing of a user from `due_at` on.
pub(crate) async fn insert_erasure(
    connection: &mut PgConnection,
    user: &UserId,
    due_at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.erasures (user_id, due_at) VALUES ($1, $2) ON CONFLICT ON CONSTRAINT erasures_pkey DO NOTHING",
        user.as_str(),
        due_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whose erasure is due, of `limit` users at most. They are due again at `again`, unless it is done by then.
pub(crate) async fn claim_erasures(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    again: OffsetDateTime,
    limit: i64,
) -> Result<Vec<String>, DbError> {
    Ok(sqlx::query_scalar!(
        "UPDATE auth.erasures SET due_at = $2 WHERE user_id IN (
             SELECT user_id FROM auth.erasures WHERE due_at <= $1 ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
         RETURNING user_id",
        now,
        again,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// Deletes what the log says of a user, at most `limit` events; says how many there were. What others did to the account stays: it says
/// who did it and why. The database refuses what is of the last 30 days.
pub(crate) async fn delete_events_of(
    connection: &mut PgConnection,
    user: &str,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "DELETE FROM auth.security_events WHERE id IN (
             SELECT id FROM auth.security_events
             WHERE user_id = $1 AND actor IS NULL AND created_at < now() - interval '30 days' LIMIT $2)",
        user,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Notes that an erasure is done, if nothing is left to erase.
pub(crate) async fn delete_erasure(connection: &mut PgConnection, user: &str) -> Result<(), DbError> {
    sqlx::query!(
        "DELETE FROM auth.erasures
         WHERE user_id = $1 AND NOT EXISTS (SELECT FROM auth.security_events WHERE user_id = $1 AND actor IS NULL)",
        user,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// An event that another program wrote.
#[derive(Debug)]
pub(crate) struct OlderEvent {
    pub(crate) id: Uuid,
    pub(crate) user_id: String,
    pub(crate) what: String,
    pub(crate) ip_address: Option<String>,
    pub(crate) user_agent: Option<String>,
    pub(crate) created_at: OffsetDateTime,
}

/// The type of such an event; its detail says what it was called there.
const OLDER: &str = "legacy";

/// Adds events that another program wrote.
#[expect(
    clippy::as_conversions,
    reason = "how a checked query is told that elements of an array may be null"
)]
pub(crate) async fn insert_older(
    connection: &mut PgConnection,
    events: &[OlderEvent],
) -> Result<(), DbError> {
    if events.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO auth.security_events (id, user_id, type, detail, ip_address, user_agent, created_at)
         SELECT id, user_id, $7, detail, ip_address::inet, user_agent, created_at
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
             AS event (id, user_id, detail, ip_address, user_agent, created_at)",
        &events.iter().map(|event| event.id).collect::<Vec<_>>(),
        &events.iter().map(|event| event.user_id.clone()).collect::<Vec<_>>(),
        &events.iter().map(|event| event.what.clone()).collect::<Vec<_>>(),
        &events.iter().map(|event| event.ip_address.clone()).collect::<Vec<_>>() as &[Option<String>],
        &events.iter().map(|event| event.user_agent.clone()).collect::<Vec<_>>() as &[Option<String>],
        &events.iter().map(|event| event.created_at).collect::<Vec<_>>(),
        OLDER,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes events from before `before`, the oldest first, at most `limit`; says how many there were. The database refuses
/// those of the last 30 days, whatever is asked.
pub(crate) async fn delete_before(
    connection: &mut PgConnection,
    before: OffsetDateTime,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "DELETE FROM auth.security_events WHERE id IN (
             SELECT id FROM auth.security_events WHERE id < $1 ORDER BY id LIMIT $2)",
        mana_kernel::id::first_uuid_at(before),
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
