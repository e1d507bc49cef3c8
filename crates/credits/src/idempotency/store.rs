//! All SQL that reads and deletes `credits.remembered_answers`. The ledger writes them with what they answer to.

use super::{Answer, KeyDigest, Stored};
use crate::ledger::model::WalletId;
use http::StatusCode;
use mana_platform::DbError;
use sqlx::PgConnection;
use std::collections::HashMap;
use time::OffsetDateTime;

/// What is remembered under these keys.
pub(crate) async fn find_answers(
    connection: &mut PgConnection,
    keys: &[(WalletId, KeyDigest)],
) -> Result<HashMap<(WalletId, KeyDigest), Stored>, DbError> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        // Looked up key by key, whatever PostgreSQL thinks: a kept plan that was made while the table was empty reads all of it.
        r#"SELECT found.wallet_id AS "wallet_id!", found.key_digest AS "key_digest!", found.request_digest AS "request_digest!",
               found.status AS "status!", found.body AS "body!"
           FROM unnest($1::bigint[], $2::uuid[]) AS asked (wallet_id, key_digest)
           CROSS JOIN LATERAL (
               SELECT * FROM credits.remembered_answers answer
               WHERE (answer.wallet_id, answer.key_digest) = (asked.wallet_id, asked.key_digest) OFFSET 0
           ) found"#,
        &keys.iter().map(|(wallet, _)| wallet.0).collect::<Vec<_>>(),
        &keys.iter().map(|(_, key)| key.0).collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await?;
    let unreadable = || DbError::unreadable("credits.remembered_answers");
    rows.into_iter()
        .map(|row| {
            let status = u16::try_from(row.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
            let answer = Answer { status: status.ok_or_else(unreadable)?, body: row.body, is_replay: false };
            let digest = row.request_digest.try_into().map_err(|_| unreadable())?;
            Ok(((WalletId(row.wallet_id), KeyDigest(row.key_digest)), Stored { digest, answer }))
        })
        .collect()
}

/// Deletes answers that are older than so many days by both clocks, this server's and the database's, at most `limit`.
pub(crate) async fn delete_old(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    days: i32,
    limit: i64,
) -> Result<u64, DbError> {
    Ok(sqlx::query!(
        "DELETE FROM credits.remembered_answers WHERE ctid = ANY(ARRAY(
             SELECT ctid FROM credits.remembered_answers WHERE created_at < least($1::timestamptz, now()) - make_interval(days => $2) LIMIT $3))",
        now,
        days,
        limit,
    )
    .execute(connection)
    .await?
    .rows_affected())
}
