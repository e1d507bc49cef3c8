//! All SQL of `credits.stripe_events`.

use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Stores a delivery. Says no if it is known.
pub(super) async fn insert_event(
    connection: &mut PgConnection,
    id: &str,
    kind: &str,
    payload: &str,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "INSERT INTO credits.stripe_events (id, type, payload, received_at, next_attempt_at) VALUES ($1, $2, $3, $4, $4)
         ON CONFLICT ON CONSTRAINT stripe_events_pkey DO NOTHING",
        id,
        kind,
        payload,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A delivery that is to be worked on.
#[derive(Debug)]
pub(super) struct WaitingEvent {
    pub(super) id: String,
    pub(super) payload: String,
    pub(super) attempts: i32,
    pub(super) received_at: OffsetDateTime,
}

/// Claims deliveries that are due: nobody else gets them until `until`. Counts the attempt.
pub(super) async fn update_claimed(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    until: OffsetDateTime,
    limit: i64,
) -> Result<Vec<WaitingEvent>, DbError> {
    Ok(sqlx::query_as!(
        WaitingEvent,
        "WITH due AS MATERIALIZED (
             SELECT id FROM credits.stripe_events WHERE outcome IS NULL AND next_attempt_at <= $1 ORDER BY next_attempt_at LIMIT $3
             FOR UPDATE SKIP LOCKED
         )
         UPDATE credits.stripe_events event SET attempts = attempts + 1, next_attempt_at = $2 FROM due WHERE event.id = due.id
         RETURNING event.id, payload, attempts, received_at",
        now,
        until,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// Notes what became of deliveries. What they said has served its purpose.
pub(super) async fn update_outcome(
    connection: &mut PgConnection,
    events: &[String],
    outcome: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.stripe_events SET outcome = $2, processed_at = $3, next_attempt_at = NULL, last_error = NULL, payload = ''
         WHERE id = ANY($1) AND outcome IS NULL",
        events,
        outcome,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets a delivery wait until `at`, with what went wrong.
pub(super) async fn update_next_attempt(
    connection: &mut PgConnection,
    event: &WaitingEvent,
    at: OffsetDateTime,
    error: &str,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.stripe_events SET next_attempt_at = $3, last_error = $4 WHERE id = $1 AND attempts = $2 AND outcome IS NULL",
        event.id,
        event.attempts,
        at,
        error,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// How many deliveries wait.
pub(super) async fn count_waiting(connection: &mut PgConnection) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM credits.stripe_events WHERE outcome IS NULL"#)
        .fetch_one(connection)
        .await?)
}

/// Those of these deliveries that never came.
pub(super) async fn list_unknown(
    connection: &mut PgConnection,
    ids: &[String],
) -> Result<Vec<String>, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT id AS "id!" FROM unnest($1::text[]) AS told (id)
           WHERE NOT EXISTS (SELECT FROM credits.stripe_events known WHERE known.id = told.id)"#,
        ids,
    )
    .fetch_all(connection)
    .await?)
}

/// Deletes deliveries that were worked on before a time, at most `limit`; says how many there were.
pub(super) async fn delete_before(
    connection: &mut PgConnection,
    before: OffsetDateTime,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "DELETE FROM credits.stripe_events WHERE id IN (
             SELECT id FROM credits.stripe_events WHERE outcome IS NOT NULL AND processed_at < $1 ORDER BY processed_at LIMIT $2
             FOR UPDATE SKIP LOCKED)",
        before,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes deliveries that came before a time and that nobody has worked on, at most `limit`; says how many there were.
pub(super) async fn delete_waiting_before(
    connection: &mut PgConnection,
    before: OffsetDateTime,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "DELETE FROM credits.stripe_events WHERE id IN (
             SELECT id FROM credits.stripe_events WHERE outcome IS NULL AND next_attempt_at < $1 AND received_at < $1 ORDER BY next_attempt_at LIMIT $2
             FOR UPDATE SKIP LOCKED)",
        before,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Empties deliveries that were worked on, at most `limit`; says how many there were.
pub(super) async fn update_emptied(connection: &mut PgConnection, limit: i64) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "UPDATE credits.stripe_events SET payload = '' WHERE id IN (
             SELECT id FROM credits.stripe_events WHERE outcome IS NOT NULL AND payload <> '' LIMIT $1 FOR UPDATE SKIP LOCKED)",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
