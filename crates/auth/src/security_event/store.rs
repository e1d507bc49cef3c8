//! All SQL of `auth.security_events`.

use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// An event as stored.
pub(super) struct EventRow<'a> {
    pub(super) id: Uuid,
    pub(super) user_id: &'a str,
    pub(super) kind: &'a str,
    pub(super) session_id: Option<&'a str>,
    pub(super) ip_address: Option<String>,
    pub(super) user_agent: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    pub(super) created_at: OffsetDateTime,
}

/// Adds an event.
pub(super) async fn insert_event(connection: &mut PgConnection, event: &EventRow<'_>) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.security_events (id, user_id, type, session_id, ip_address, user_agent, request_id, created_at)
         VALUES ($1, $2, $3, $4, $5::text::inet, $6, $7, $8)",
        event.id,
        event.user_id,
        event.kind,
        event.session_id,
        event.ip_address,
        event.user_agent,
        event.request_id,
        event.created_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}
