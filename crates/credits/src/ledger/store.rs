//! All SQL of the ledger's tables.
#![expect(
    clippy::as_conversions,
    reason = "how a checked query is told that elements of an array may be null"
)]

use super::model::{Account, Grant, GrantSource, Posting, Wallet, WalletId};
use mana_kernel::{Mana, TransactionId, UserId};
use mana_platform::DbError;
use sqlx::PgConnection;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

/// A wallet's totals, for an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BalanceRow {
    pub(crate) free: i64,
    pub(crate) paid: i64,
    pub(crate) total_earned: i64,
    pub(crate) total_spent: i64,
    /// Whether the daily credits of the database's today have not been given.
    pub(crate) daily_is_due: bool,
}

/// The totals of a user's wallet; the day is the zone's.
pub(crate) async fn find_balance(
    connection: &mut PgConnection,
    user: &UserId,
    zone: &str,
) -> Result<Option<BalanceRow>, DbError> {
    Ok(sqlx::query_as!(
        BalanceRow,
        r#"SELECT free, paid, total_earned, total_spent, daily_granted_on < (now() AT TIME ZONE $2)::date AS "daily_is_due!"
           FROM credits.balances WHERE user_id = $1"#,
        user.as_str(),
        zone,
    )
    .fetch_optional(connection)
    .await?)
}

/// Opens an empty wallet if the user has none. Its daily credits begin the day after.
pub(crate) async fn insert_wallet(
    connection: &mut PgConnection,
    user: &UserId,
    zone: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO credits.balances
            (user_id, sequence, free, paid, total_earned, total_spent, head, daily_granted_on, created_at, updated_at)
         VALUES ($1, 0, 0, 0, 0, 0, $2, (now() AT TIME ZONE $3)::date, $4, $4)
         ON CONFLICT ON CONSTRAINT balances_user_id_key DO NOTHING",
        user.as_str(),
        [0_u8; 32].as_slice(),
        zone,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A wallet, locked until the transaction ends, and the zone's today.
pub(crate) async fn lock_wallet(
    connection: &mut PgConnection,
    user: &UserId,
    zone: &str,
) -> Result<Option<(Wallet, Date)>, DbError> {
    let row = sqlx::query!(
        r#"SELECT wallet_id, sequence, head, total_earned, total_spent, daily_granted_on, (now() AT TIME ZONE $2)::date AS "today!"
           FROM credits.balances WHERE user_id = $1 FOR UPDATE"#,
        user.as_str(),
        zone,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let grants = list_open_grants(connection, WalletId(row.wallet_id)).await?;
    let wallet = Wallet {
        sequence: row.sequence,
        head: row.head.try_into().map_err(|_| out_of_range())?,
        total_earned: mana(row.total_earned)?,
        total_spent: mana(row.total_spent)?,
        ..Wallet::new(WalletId(row.wallet_id), row.daily_granted_on)
    };
    let wallet = wallet.with_grants(grants).map_err(|_| out_of_range())?;
    Ok(Some((wallet, row.today)))
}

/// Grants with something left, and the standing allowance even when it is used up: the next one tops it up.
async fn list_open_grants(connection: &mut PgConnection, wallet: WalletId) -> Result<Vec<Grant>, DbError> {
    let rows = sqlx::query!(
        "SELECT grant_sequence, source, granted, remaining, expires_at, created_at FROM credits.grants
         WHERE wallet_id = $1 AND (remaining > 0 OR source = 'allowance')",
        wallet.0,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Grant {
                sequence: row.grant_sequence,
                source: GrantSource::from_database(&row.source).ok_or_else(out_of_range)?,
                granted: mana(row.granted)?,
                remaining: mana(row.remaining)?,
                expires_at: row.expires_at,
                created_at: row.created_at,
            })
        })
        .collect()
}

/// Writes what the state machine posted: the only statements that change a balance.
///
/// All legs go in one statement, because the database checks their sum when it ends.
pub(crate) async fn write(
    connection: &mut PgConnection,
    wallet: &Wallet,
    postings: &[Posting],
    now: OffsetDateTime,
) -> Result<(), DbError> {
    write_totals(connection, wallet, now).await?;
    write_grants(connection, wallet, postings).await?;
    write_transactions(connection, wallet.id, postings).await?;
    write_entries(connection, wallet.id, postings).await
}

async fn write_totals(
    connection: &mut PgConnection,
    wallet: &Wallet,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.balances
         SET sequence = $2, free = $3, paid = $4, total_earned = $5, total_spent = $6, head = $7, daily_granted_on = $8, updated_at = $9
         WHERE wallet_id = $1",
        wallet.id.0,
        wallet.sequence,
        wallet.free.get(),
        wallet.paid.get(),
        wallet.total_earned.get(),
        wallet.total_spent.get(),
        wallet.head.as_slice(),
        wallet.daily_granted_on,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_grants(
    connection: &mut PgConnection,
    wallet: &Wallet,
    postings: &[Posting],
) -> Result<(), DbError> {
    let touched = |grant: &&Grant| {
        let account = Account::Wallet { grant: grant.sequence };
        postings.iter().flat_map(|posting| &posting.entries).any(|entry| entry.account == account)
    };
    let grants: Vec<&Grant> = wallet.grants.iter().filter(touched).collect();
    sqlx::query!(
        "INSERT INTO credits.grants (wallet_id, grant_sequence, source, priority, paid, granted, remaining, expires_at, created_at)
         SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::smallint[], $5::boolean[], $6::bigint[], $7::bigint[], $8::timestamptz[], $9::timestamptz[])
         ON CONFLICT ON CONSTRAINT grants_pkey DO UPDATE SET granted = excluded.granted, remaining = excluded.remaining",
        wallet.id.0,
        &grants.iter().map(|grant| grant.sequence).collect::<Vec<_>>(),
        &grants.iter().map(|grant| grant.source.as_str().to_owned()).collect::<Vec<_>>(),
        &grants.iter().map(|grant| grant.source.priority()).collect::<Vec<_>>(),
        &grants.iter().map(|grant| grant.source.is_paid()).collect::<Vec<_>>(),
        &grants.iter().map(|grant| grant.granted.get()).collect::<Vec<_>>(),
        &grants.iter().map(|grant| grant.remaining.get()).collect::<Vec<_>>(),
        &grants.iter().map(|grant| grant.expires_at).collect::<Vec<_>>() as &[Option<OffsetDateTime>],
        &grants.iter().map(|grant| grant.created_at).collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_transactions(
    connection: &mut PgConnection,
    wallet: WalletId,
    postings: &[Posting],
) -> Result<(), DbError> {
    let lines: Vec<_> = postings.iter().map(|posting| &posting.transaction).collect();
    sqlx::query!(
        "INSERT INTO credits.transactions
            (wallet_id, sequence, id, type, amount, balance_after, app_id, description, metadata, idempotency_key, created_at, hash)
         SELECT $1, sequence, id, type, amount, balance_after, app_id, description, metadata::json, idempotency_key, created_at, hash
         FROM unnest($2::bigint[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[], $11::timestamptz[], $12::bytea[])
            AS line (sequence, id, type, amount, balance_after, app_id, description, metadata, idempotency_key, created_at, hash)",
        wallet.0,
        &lines.iter().map(|line| line.sequence).collect::<Vec<_>>(),
        &lines.iter().map(|line| line.stamp.id.0).collect::<Vec<Uuid>>(),
        &lines.iter().map(|line| line.kind.as_str().to_owned()).collect::<Vec<_>>(),
        &lines.iter().map(|line| line.amount).collect::<Vec<_>>(),
        &lines.iter().map(|line| line.balance_after.get()).collect::<Vec<_>>(),
        &lines.iter().map(|line| line.app_id.clone()).collect::<Vec<_>>(),
        &lines.iter().map(|line| line.description.clone()).collect::<Vec<_>>(),
        &lines.iter().map(|line| line.metadata.clone()).collect::<Vec<_>>() as &[Option<String>],
        &lines.iter().map(|line| line.idempotency_key.clone()).collect::<Vec<_>>() as &[Option<String>],
        &lines.iter().map(|line| line.stamp.at).collect::<Vec<_>>(),
        &lines.iter().map(|line| line.hash.to_vec()).collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_entries(
    connection: &mut PgConnection,
    wallet: WalletId,
    postings: &[Posting],
) -> Result<(), DbError> {
    let legs: Vec<_> = postings
        .iter()
        .flat_map(|posting| {
            (0_i16..).zip(&posting.entries).map(|(leg, entry)| (posting.transaction.sequence, leg, entry))
        })
        .collect();
    let grant = |account| match account {
        Account::Wallet { grant } => Some(grant),
        Account::Bonus | Account::Revenue => None,
    };
    sqlx::query!(
        "INSERT INTO credits.entries (wallet_id, sequence, leg, account, grant_sequence, amount)
         SELECT $1, * FROM unnest($2::bigint[], $3::smallint[], $4::text[], $5::bigint[], $6::bigint[])",
        wallet.0,
        &legs.iter().map(|(sequence, ..)| *sequence).collect::<Vec<_>>(),
        &legs.iter().map(|(_, leg, _)| *leg).collect::<Vec<_>>(),
        &legs.iter().map(|(.., entry)| entry.account.as_str().to_owned()).collect::<Vec<_>>(),
        &legs.iter().map(|(.., entry)| grant(entry.account)).collect::<Vec<_>>() as &[Option<i64>],
        &legs.iter().map(|(.., entry)| entry.amount).collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A line of a wallet's history, for an answer.
#[derive(Debug)]
pub(crate) struct TransactionRow {
    pub(crate) sequence: i64,
    pub(crate) id: TransactionId,
    pub(crate) r#type: String,
    pub(crate) amount: i64,
    pub(crate) balance_after: i64,
    pub(crate) app_id: String,
    pub(crate) description: String,
    pub(crate) metadata: Option<serde_json::Value>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) created_at: OffsetDateTime,
}

/// A page of a user's history, newest first: what comes before the sequence `before`, less the first `offset`.
pub(crate) async fn list_transactions(
    connection: &mut PgConnection,
    user: &UserId,
    before: Option<i64>,
    offset: i64,
    limit: i64,
) -> Result<Vec<TransactionRow>, DbError> {
    let rows = sqlx::query!(
        "SELECT sequence, id, type, amount, balance_after, app_id, description, metadata, idempotency_key, created_at
         FROM credits.transactions
         WHERE wallet_id = (SELECT wallet_id FROM credits.balances WHERE user_id = $1) AND sequence < $2
         ORDER BY sequence DESC OFFSET $3 LIMIT $4",
        user.as_str(),
        before.unwrap_or(i64::MAX),
        offset,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| TransactionRow {
            sequence: row.sequence,
            id: TransactionId(row.id),
            r#type: row.r#type,
            amount: row.amount,
            balance_after: row.balance_after,
            app_id: row.app_id,
            description: row.description,
            metadata: row.metadata,
            idempotency_key: row.idempotency_key,
            created_at: row.created_at,
        })
        .collect())
}

fn mana(value: i64) -> Result<Mana, DbError> {
    Mana::new(value).ok_or_else(out_of_range)
}

/// The database's own checks make this impossible; if it happens all the same, nothing may be built on it.
fn out_of_range() -> DbError {
    DbError::from(sqlx::Error::Decode("a value of the ledger is out of range".into()))
}
