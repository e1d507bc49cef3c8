//! All SQL of `auth.security_events`.

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
}

/// An event as its user sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecurityEvent {
    #[schema(value_type = String, format = "uuid")]
    pub(crate) id: Uuid,
    /// What happened, as `signed_in`.
    pub(crate) r#type: String,
    /// More about it, as `disowned` for the reason why a session was ended; null where the type says all.
    pub(crate) detail: Option<String>,
    pub(crate) session_id: Option<String>,
    pub(crate) ip_address: Option<String>,
    pub(crate) user_agent: Option<String>,
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
        "SELECT id, type, detail, session_id, host(ip_address) AS ip_address, user_agent, request_id, created_at
         FROM auth.security_events WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2",
        user.as_str(),
        limit,
    )
    .fetch_all(connection)
    .await?)
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
        "SELECT id, type, detail, session_id, host(ip_address) AS ip_address, user_agent, request_id, created_at
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
        "INSERT INTO auth.security_events (id, session_id, user_id, type, ip_address, user_agent, request_id, created_at, detail)
         SELECT event.id, event.session_id, $3, $4, $5::text::inet, $6, $7, $8, $9
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
