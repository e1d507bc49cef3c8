//! All SQL of `auth.revocations`, and what a check of a session reads.

use mana_kernel::{SessionId, UserId};
use mana_platform::DbError;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

/// How a session stands.
#[derive(Debug)]
pub(crate) enum Found {
    /// It lives, and its user may act.
    Live {
        /// When it ends by itself.
        expires_at: OffsetDateTime,
        /// When it was last active.
        last_active_at: OffsetDateTime,
    },
    /// It was ended, which is for ever.
    Revoked,
    /// Not there, not this user's, expired, or its user may not act.
    Neither,
}

/// How a user's session stands at `now`.
pub(crate) async fn find(
    connection: &mut PgConnection,
    session: &SessionId,
    user: &UserId,
    now: OffsetDateTime,
) -> Result<Found, DbError> {
    let row = sqlx::query!(
        r#"SELECT expires_at, last_active_at, revoked_at IS NOT NULL AS "is_revoked!", disabled_at IS NOT NULL AS "is_disabled!"
           FROM auth.sessions JOIN auth.users ON users.id = user_id WHERE sessions.id = $1 AND user_id = $2"#,
        session.as_str(),
        user.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(match row {
        Some(row) if row.is_revoked => Found::Revoked,
        Some(row) if !row.is_disabled && now < row.expires_at => {
            Found::Live { expires_at: row.expires_at, last_active_at: row.last_active_at }
        }
        Some(_) | None => Found::Neither,
    })
}

/// What ended sessions, from a point on.
#[derive(Debug)]
pub(super) struct Revocations {
    /// Where to look from next: every transaction below it has ended and was seen.
    pub(super) next: i64,
    /// When this was, by the database's clock.
    pub(super) at: OffsetDateTime,
    /// Whether it was asked of a standby, which may not have what its primary has.
    pub(super) is_standby: bool,
    pub(super) lines: Vec<RevocationLine>,
}

/// The end of a session.
#[derive(Debug)]
pub(super) struct RevocationLine {
    pub(super) id: i64,
    pub(super) session_id: String,
}

/// What ended sessions in transactions from `from` on. One statement, so that lines and the next point are of one moment.
pub(super) async fn list_revocations(
    connection: &mut PgConnection,
    from: i64,
) -> Result<Revocations, DbError> {
    let rows = sqlx::query!(
        r#"SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS "next!", clock_timestamp() AS "at!",
                  pg_is_in_recovery() AS "is_standby!", line.id AS "id?", line.session_id AS "session_id?"
           FROM (SELECT) AS once LEFT JOIN auth.revocations line ON line.transaction_id >= $1::text::xid8"#,
        from.to_string(),
    )
    .fetch_all(connection)
    .await?;
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let (next, at, is_standby) = (first.next, first.at, first.is_standby);
    let lines = rows
        .into_iter()
        .filter_map(|row| Some(RevocationLine { id: row.id?, session_id: row.session_id? }))
        .collect();
    Ok(Revocations { next, at, is_standby, lines })
}

/// Deletes lines that no replica looks for any more; by the database's clock, which wrote them.
pub(crate) async fn delete_old_revocations(
    connection: &mut PgConnection,
    older_than: Duration,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "DELETE FROM auth.revocations WHERE id IN (
             SELECT id FROM auth.revocations WHERE created_at < now() - make_interval(secs => $1) ORDER BY id LIMIT $2)",
        older_than.as_seconds_f64(),
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
