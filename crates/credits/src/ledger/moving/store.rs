//! All SQL of `credits.moved_wallets`, and what takes the books along, beside that of the proof.
#![expect(
    clippy::as_conversions,
    reason = "how a checked query is told that elements of an array may be null"
)]

use crate::ledger::record::{
    AnswerRecord, GrantRecord, HoldRecord, LineRecord, UsageRecord, WalletRecord, taken,
};
use crate::ledger::store::{array, column};
use crate::ledger::verify::LineContext;
use futures_util::stream::BoxStream;
use mana_platform::DbError;
use sqlx::PgConnection;
use std::collections::VecDeque;
use time::OffsetDateTime;
use uuid::Uuid;

/// The statistics of these wallets, in the order of wallets and days.
pub(super) async fn list_usage(
    connection: &mut PgConnection,
    wallets: &[i64],
) -> Result<Vec<UsageRecord>, DbError> {
    Ok(sqlx::query_as!(
        UsageRecord,
        "SELECT wallet_id, day, app_id, spends, spent, refunded FROM credits.usage_stats
         WHERE wallet_id = ANY($1) ORDER BY wallet_id, day, app_id COLLATE \"C\"",
        wallets,
    )
    .fetch_all(connection)
    .await?)
}

/// All remembered answers, in the order of wallets and keys, as they arrive.
pub(super) fn stream_answers(
    connection: &mut PgConnection,
) -> BoxStream<'_, Result<AnswerRecord, sqlx::Error>> {
    sqlx::query_as!(
        AnswerRecord,
        "SELECT wallet_id, key_digest, request_digest, status, body, created_at FROM credits.remembered_answers
         ORDER BY wallet_id, key_digest",
    )
    .fetch(connection)
}

/// What lines must be seen with, in their order. Spends that are not in the database yet are not found.
pub(super) async fn list_contexts(
    connection: &mut PgConnection,
    lines: &[&LineRecord],
    zone: &str,
) -> Result<VecDeque<LineContext>, DbError> {
    let rows = sqlx::query!(
        r#"SELECT ((line.created_at - interval '1 minute') AT TIME ZONE $4)::date AS "earliest_day!",
               ((line.created_at + interval '1 minute') AT TIME ZONE $4)::date AS "latest_day!",
               spend.slice_grants AS "spend_grants?", spend.slice_amounts AS "spend_amounts?"
           FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[]) WITH ORDINALITY AS line (wallet_id, reference, created_at, place)
               LEFT JOIN credits.transactions spend
                   ON spend.wallet_id = line.wallet_id AND spend.sequence = line.reference AND spend.type = 'usage'
           ORDER BY place"#,
        &column(lines, |line| line.wallet_id),
        &column(lines, |line| line.reference) as &[Option<i64>],
        &column(lines, |line| line.created_at),
        zone,
    )
    .fetch_all(connection)
    .await?;
    let contexts = rows.into_iter().map(|row| LineContext {
        earliest_day: row.earliest_day,
        latest_day: row.latest_day,
        refunded_spend: row
            .spend_grants
            .zip(row.spend_amounts)
            .and_then(|(grants, amounts)| taken(&grants, &amounts)),
    });
    Ok(contexts.collect())
}

/// Rows to be written together.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Chunk {
    pub(in crate::ledger) wallets: Vec<WalletRecord>,
    pub(in crate::ledger) grants: Vec<GrantRecord>,
    pub(in crate::ledger) holds: Vec<HoldRecord>,
    pub(in crate::ledger) usage: Vec<UsageRecord>,
    pub(in crate::ledger) lines: Vec<LineRecord>,
    pub(in crate::ledger) answers: Vec<AnswerRecord>,
}

/// Writes rows as they were.
pub(in crate::ledger) async fn insert(connection: &mut PgConnection, chunk: &Chunk) -> Result<(), DbError> {
    insert_wallets(connection, &chunk.wallets).await?;
    insert_grants(connection, &chunk.grants).await?;
    insert_holds(connection, &chunk.holds).await?;
    insert_usage(connection, &chunk.usage).await?;
    insert_lines(connection, &chunk.lines).await?;
    insert_answers(connection, &chunk.answers).await
}

async fn insert_wallets(connection: &mut PgConnection, rows: &[WalletRecord]) -> Result<(), DbError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO credits.balances (wallet_id, user_id, version, sequence, head, free, paid, held, total_earned, total_spent,
             daily_granted_on, grants, holds, created_at, updated_at, closed_at, debt)
         OVERRIDING SYSTEM VALUE
         SELECT wallet_id, user_id, version, sequence, head, free, paid, held, total_earned, total_spent,
             daily_granted_on, grants::json, holds::json, created_at, updated_at, closed_at, debt
         FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bigint[], $8::bigint[],
                 $9::bigint[], $10::bigint[], $11::date[], $12::text[], $13::text[], $14::timestamptz[], $15::timestamptz[],
                 $16::timestamptz[], $17::bigint[])
             AS wallet (wallet_id, user_id, version, sequence, head, free, paid, held, total_earned, total_spent,
                 daily_granted_on, grants, holds, created_at, updated_at, closed_at, debt)",
        &column(rows, |row| row.wallet_id),
        &column(rows, |row| row.user_id.clone()),
        &column(rows, |row| row.version),
        &column(rows, |row| row.sequence),
        &column(rows, |row| row.head.clone()),
        &column(rows, |row| row.free),
        &column(rows, |row| row.paid),
        &column(rows, |row| row.held),
        &column(rows, |row| row.total_earned),
        &column(rows, |row| row.total_spent),
        &column(rows, |row| row.daily_granted_on),
        &column(rows, |row| row.grants.clone()),
        &column(rows, |row| row.holds.clone()),
        &column(rows, |row| row.created_at),
        &column(rows, |row| row.updated_at),
        &column(rows, |row| row.closed_at) as &[Option<OffsetDateTime>],
        &column(rows, |row| row.debt),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_grants(connection: &mut PgConnection, rows: &[GrantRecord]) -> Result<(), DbError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO credits.grants (wallet_id, grant_sequence, source, priority, cost_micros, effective_from, expires_at, created_at)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::smallint[], $5::bigint[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[])",
        &column(rows, |row| row.wallet_id),
        &column(rows, |row| row.grant_sequence),
        &column(rows, |row| row.source.clone()),
        &column(rows, |row| row.priority),
        &column(rows, |row| row.cost_micros),
        &column(rows, |row| row.effective_from) as &[Option<OffsetDateTime>],
        &column(rows, |row| row.expires_at) as &[Option<OffsetDateTime>],
        &column(rows, |row| row.created_at),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_holds(connection: &mut PgConnection, rows: &[HoldRecord]) -> Result<(), DbError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO credits.holds (wallet_id, id, app_id, description, metadata, amount, captured, slice_grants, slice_amounts, status,
             service_key_id, capture_sequence, created_at, expires_at, ended_at)
         SELECT wallet_id, id, app_id, description, metadata::json, amount, captured, slice_grants::bigint[], slice_amounts::bigint[], status,
             service_key_id, capture_sequence, created_at, expires_at, ended_at
         FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::text[], $9::text[],
                 $10::text[], $11::text[], $12::bigint[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[])
             AS hold (wallet_id, id, app_id, description, metadata, amount, captured, slice_grants, slice_amounts, status,
                 service_key_id, capture_sequence, created_at, expires_at, ended_at)",
        &column(rows, |row| row.wallet_id),
        &column(rows, |row| row.id),
        &column(rows, |row| row.app_id.clone()),
        &column(rows, |row| row.description.clone()),
        &column(rows, |row| row.metadata.clone()) as &[Option<String>],
        &column(rows, |row| row.amount),
        &column(rows, |row| row.captured),
        &column(rows, |row| array(row.slice_grants.iter().copied())),
        &column(rows, |row| array(row.slice_amounts.iter().copied())),
        &column(rows, |row| row.status.clone()),
        &column(rows, |row| row.service_key_id.clone()) as &[Option<String>],
        &column(rows, |row| row.capture_sequence) as &[Option<i64>],
        &column(rows, |row| row.created_at),
        &column(rows, |row| row.expires_at),
        &column(rows, |row| row.ended_at) as &[Option<OffsetDateTime>],
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_usage(connection: &mut PgConnection, rows: &[UsageRecord]) -> Result<(), DbError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO credits.usage_stats (wallet_id, day, app_id, spends, spent, refunded)
         SELECT * FROM unnest($1::bigint[], $2::date[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])",
        &column(rows, |row| row.wallet_id),
        &column(rows, |row| row.day),
        &column(rows, |row| row.app_id.clone()),
        &column(rows, |row| row.spends),
        &column(rows, |row| row.spent),
        &column(rows, |row| row.refunded),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_lines(connection: &mut PgConnection, rows: &[LineRecord]) -> Result<(), DbError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO credits.transactions
             (wallet_id, sequence, id, type, amount, balance_after, counter, slice_grants, slice_amounts, reference, hold_id,
              app_id, description, metadata, idempotency_key, service_key_id, created_at, hash)
         SELECT wallet_id, sequence, id, type, amount, balance_after, counter, slice_grants::bigint[], slice_amounts::bigint[], reference,
              hold_id, app_id, description, metadata::json, idempotency_key, service_key_id, created_at, hash
         FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[],
                 $10::bigint[], $11::uuid[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::timestamptz[], $18::bytea[])
             AS line (wallet_id, sequence, id, type, amount, balance_after, counter, slice_grants, slice_amounts, reference, hold_id,
                 app_id, description, metadata, idempotency_key, service_key_id, created_at, hash)",
        &column(rows, |row| row.wallet_id),
        &column(rows, |row| row.sequence),
        &column(rows, |row| row.id),
        &column(rows, |row| row.kind.clone()),
        &column(rows, |row| row.amount),
        &column(rows, |row| row.balance_after),
        &column(rows, |row| row.counter.clone()),
        &column(rows, |row| array(row.slice_grants.iter().copied())),
        &column(rows, |row| array(row.slice_amounts.iter().copied())),
        &column(rows, |row| row.reference) as &[Option<i64>],
        &column(rows, |row| row.hold_id) as &[Option<Uuid>],
        &column(rows, |row| row.app_id.clone()),
        &column(rows, |row| row.description.clone()),
        &column(rows, |row| row.metadata.clone()) as &[Option<String>],
        &column(rows, |row| row.idempotency_key.clone()) as &[Option<String>],
        &column(rows, |row| row.service_key_id.clone()) as &[Option<String>],
        &column(rows, |row| row.created_at),
        &column(rows, |row| row.hash.clone()),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_answers(connection: &mut PgConnection, rows: &[AnswerRecord]) -> Result<(), DbError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO credits.remembered_answers (wallet_id, key_digest, request_digest, status, body, created_at)
         SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::bytea[], $4::smallint[], $5::text[], $6::timestamptz[])",
        &column(rows, |row| row.wallet_id),
        &column(rows, |row| row.key_digest),
        &column(rows, |row| row.request_digest.clone()),
        &column(rows, |row| row.status),
        &column(rows, |row| row.body.clone()),
        &column(rows, |row| row.created_at),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes of all wallets that they came from elsewhere with what they have now.
pub(super) async fn insert_moved_wallets(connection: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO credits.moved_wallets (wallet_id, sequence, debt) SELECT wallet_id, sequence, debt FROM credits.balances",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets the next wallet get an id after all that are there. What has been handed out meanwhile is never handed out again.
pub(super) async fn continue_wallet_ids(connection: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query!(
        "SELECT setval('credits.balances_wallet_id_seq',
             greatest((SELECT max(wallet_id) FROM credits.balances), nextval('credits.balances_wallet_id_seq')))",
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}
