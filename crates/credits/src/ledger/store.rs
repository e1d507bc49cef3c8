//! All SQL that reads and writes wallets.
#![expect(
    clippy::as_conversions,
    reason = "how a checked query is told that elements of an array may be null"
)]

use super::model::{
    Effects, Grant, GrantSource, Hold, HoldChange, HoldEnd, RecalledSpend, Slice, Terms, Transaction,
    TransactionKind, Wallet, WalletId,
};
use crate::idempotency::{KeyDigest, Stored};
use mana_kernel::{HoldId, Mana, TransactionId, UserId};
use mana_platform::DbError;
use serde::Serialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use std::collections::HashMap;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

const BALANCES: &str = "credits.balances";
const TRANSACTIONS: &str = "credits.transactions";

/// A wallet as its row has it.
struct WalletRow {
    wallet_id: i64,
    user_id: String,
    version: i64,
    sequence: i64,
    head: Vec<u8>,
    total_earned: i64,
    total_spent: i64,
    debt: i64,
    daily_granted_on: Date,
    updated_at: OffsetDateTime,
    is_closed: bool,
    low_below: Option<i64>,
    grants: Json<Vec<Grant>>,
    holds: Json<Vec<Hold>>,
    today: Date,
}

/// Wallets of users, and the zone's today.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) wallets: HashMap<String, Wallet>,
    pub(crate) today: Option<Date>,
}

impl Loaded {
    fn of(rows: Vec<WalletRow>) -> Result<Self, DbError> {
        let today = rows.first().map(|row| row.today);
        let wallets = rows.into_iter().map(|row| Ok((row.user_id.clone(), row.into_wallet()?)));
        Ok(Self { wallets: wallets.collect::<Result<_, DbError>>()?, today })
    }
}

impl WalletRow {
    fn into_wallet(self) -> Result<Wallet, DbError> {
        Ok(Wallet {
            id: WalletId(self.wallet_id),
            version: self.version,
            sequence: self.sequence,
            head: self.head.try_into().map_err(|_| DbError::unreadable(BALANCES))?,
            total_earned: mana(self.total_earned)?,
            total_spent: mana(self.total_spent)?,
            debt: mana(self.debt)?,
            daily_granted_on: self.daily_granted_on,
            changed_at: self.updated_at,
            is_closed: self.is_closed,
            grants: self.grants.0,
            holds: self.holds.0,
            low_below: self.low_below.map(mana).transpose()?,
            recalled: Vec::new(),
        })
    }
}

/// The wallets of these users, locked in the order of their ids until the transaction ends.
///
/// The order is one that no index gives: else PostgreSQL may keep a plan that walks all wallets in order and picks these.
pub(crate) async fn lock_wallets(
    connection: &mut PgConnection,
    users: &[String],
    zone: &str,
) -> Result<Loaded, DbError> {
    let rows = sqlx::query_as!(
        WalletRow,
        r#"SELECT wallet_id, user_id, version, sequence, head, total_earned, total_spent, debt, daily_granted_on, updated_at, low_below,
                closed_at IS NOT NULL AS "is_closed!", grants AS "grants: Json<Vec<Grant>>", holds AS "holds: Json<Vec<Hold>>",
                (now() AT TIME ZONE $2)::date AS "today!"
           FROM credits.balances WHERE user_id = ANY($1) ORDER BY wallet_id + 0 FOR UPDATE"#,
        users,
        zone,
    )
    .fetch_all(connection)
    .await?;
    Loaded::of(rows)
}

/// The wallets of these users as they are, and the zone's today.
pub(crate) async fn find_wallets(
    connection: &mut PgConnection,
    users: &[String],
    zone: &str,
) -> Result<Loaded, DbError> {
    let rows = sqlx::query_as!(
        WalletRow,
        r#"SELECT wallet_id, user_id, version, sequence, head, total_earned, total_spent, debt, daily_granted_on, updated_at, low_below,
                closed_at IS NOT NULL AS "is_closed!", grants AS "grants: Json<Vec<Grant>>", holds AS "holds: Json<Vec<Hold>>",
                (now() AT TIME ZONE $2)::date AS "today!"
           FROM credits.balances WHERE user_id = ANY($1)"#,
        users,
        zone,
    )
    .fetch_all(connection)
    .await?;
    Loaded::of(rows)
}

/// Opens empty wallets for those of the users that have none. Their daily credits begin the day after.
pub(crate) async fn insert_wallets(
    connection: &mut PgConnection,
    users: &[String],
    zone: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO credits.balances
            (user_id, sequence, free, paid, total_earned, total_spent, head, daily_granted_on, created_at, updated_at)
         SELECT user_id, 0, 0, 0, 0, 0, $2, (now() AT TIME ZONE $3)::date, $4, $4 FROM unnest($1::text[]) AS opened (user_id) ORDER BY user_id
         ON CONFLICT ON CONSTRAINT balances_user_id_key DO NOTHING",
        users,
        [0_u8; 32].as_slice(),
        zone,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A wallet after a batch, with all that the batch did to it.
#[derive(Debug)]
pub(crate) struct Changed<'a> {
    pub(crate) wallet: &'a Wallet,
    pub(crate) effects: &'a Effects,
}

/// An answer to be remembered with what it answers to.
#[derive(Debug)]
pub(crate) struct Remembered {
    pub(crate) wallet: WalletId,
    pub(crate) key: KeyDigest,
    pub(crate) stored: Stored,
}

/// Writes what the state machine did: the only statements that change a balance.
pub(crate) async fn write(
    connection: &mut PgConnection,
    changed: &[Changed<'_>],
    answers: &[Remembered],
    today: Date,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    write_grants(connection, changed).await?;
    write_holds(connection, changed).await?;
    let transactions: Vec<(WalletId, &Transaction)> = changed
        .iter()
        .flat_map(|change| change.effects.transactions.iter().map(|line| (change.wallet.id, line)))
        .collect();
    let usage = Usage::of(&transactions);
    let wallets = WalletColumns::of(changed)?;
    let lines = TransactionColumns::of(&transactions);
    // One statement: a round trip less for each of its parts, and PostgreSQL plans it once. Arrays are taken apart in the lists of columns,
    // which is three times as fast as in FROM, where each of them is first written into a store of its own.
    sqlx::query!(
        "WITH wallets AS (
             UPDATE credits.balances SET version = new.version, sequence = new.sequence, free = new.free, paid = new.paid,
                 held = new.held, total_earned = new.total_earned, total_spent = new.total_spent, head = new.head,
                 daily_granted_on = new.daily_granted_on, grants = new.grants::json, holds = new.holds::json, updated_at = new.updated_at, debt = new.debt
             FROM (SELECT unnest($1::bigint[]) AS wallet_id, unnest($2::bigint[]) AS version, unnest($3::bigint[]) AS sequence, unnest($4::bigint[]) AS free,
                     unnest($5::bigint[]) AS paid, unnest($6::bigint[]) AS held, unnest($7::bigint[]) AS total_earned, unnest($8::bigint[]) AS total_spent,
                     unnest($9::bytea[]) AS head, unnest($10::date[]) AS daily_granted_on, unnest($11::text[]) AS grants, unnest($12::text[]) AS holds,
                     unnest($13::timestamptz[]) AS updated_at, unnest($44::bigint[]) AS debt) AS new
             WHERE balances.wallet_id = new.wallet_id AND balances.wallet_id = ANY($1)
         ), answers AS (
             INSERT INTO credits.remembered_answers (wallet_id, key_digest, request_digest, status, body, created_at)
             SELECT unnest($15::bigint[]), unnest($16::uuid[]), unnest($17::bytea[]), unnest($18::smallint[]), unnest($19::text[]), $14
         ), usage AS (
             INSERT INTO credits.usage_stats (wallet_id, day, app_id, spends, spent, refunded)
             SELECT unnest($21::bigint[]), $20, unnest($22::text[]), unnest($23::bigint[]), unnest($24::bigint[]), unnest($25::bigint[])
             ON CONFLICT ON CONSTRAINT usage_stats_pkey DO UPDATE SET spends = usage_stats.spends + excluded.spends,
                 spent = usage_stats.spent + excluded.spent, refunded = usage_stats.refunded + excluded.refunded
         )
         INSERT INTO credits.transactions
             (wallet_id, sequence, id, type, amount, balance_after, counter, slice_grants, slice_amounts, reference, hold_id,
              app_id, description, metadata, idempotency_key, service_key_id, created_at, hash)
         SELECT wallet_id, sequence, id, type, amount, balance_after, counter, slice_grants::bigint[], slice_amounts::bigint[], reference,
              hold_id, app_id, description, metadata::json, idempotency_key, service_key_id, created_at, hash
         FROM (SELECT unnest($26::bigint[]) AS wallet_id, unnest($27::bigint[]) AS sequence, unnest($28::uuid[]) AS id, unnest($29::text[]) AS type,
                 unnest($30::bigint[]) AS amount, unnest($31::bigint[]) AS balance_after, unnest($32::text[]) AS counter, unnest($33::text[]) AS slice_grants,
                 unnest($34::text[]) AS slice_amounts, unnest($35::bigint[]) AS reference, unnest($36::uuid[]) AS hold_id, unnest($37::text[]) AS app_id,
                 unnest($38::text[]) AS description, unnest($39::text[]) AS metadata, unnest($40::text[]) AS idempotency_key,
                 unnest($41::text[]) AS service_key_id, unnest($42::timestamptz[]) AS created_at, unnest($43::bytea[]) AS hash) AS line",
        &wallets.ids,
        &wallets.versions,
        &wallets.sequences,
        &wallets.free,
        &wallets.paid,
        &wallets.held,
        &wallets.earned,
        &wallets.spent,
        &wallets.heads,
        &wallets.daily,
        &wallets.grants,
        &wallets.holds,
        &wallets.changed_at,
        now,
        &column(answers, |answer| answer.wallet.0),
        &column(answers, |answer| answer.key.0),
        &column(answers, |answer| answer.stored.digest.to_vec()),
        &column(answers, |answer| answer.stored.answer.status_number()),
        &column(answers, |answer| answer.stored.answer.body().to_owned()),
        today,
        &usage.wallets,
        &usage.apps,
        &usage.spends,
        &usage.spent,
        &usage.refunded,
        &lines.wallets,
        &lines.sequences,
        &lines.ids,
        &lines.kinds,
        &lines.amounts,
        &lines.balances,
        &lines.counters,
        &lines.slice_grants,
        &lines.slice_amounts,
        &lines.references as &[Option<i64>],
        &lines.holds as &[Option<Uuid>],
        &lines.apps,
        &lines.descriptions,
        &lines.metadata as &[Option<String>],
        &lines.keys as &[Option<String>],
        &lines.service_keys as &[Option<String>],
        &lines.at,
        &lines.hashes,
        &wallets.debts,
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) fn column<Row, Value>(rows: &[Row], value: impl Fn(&Row) -> Value) -> Vec<Value> {
    rows.iter().map(value).collect()
}

/// Wallets, column by column.
#[derive(Default)]
struct WalletColumns {
    ids: Vec<i64>,
    versions: Vec<i64>,
    sequences: Vec<i64>,
    free: Vec<i64>,
    paid: Vec<i64>,
    held: Vec<i64>,
    earned: Vec<i64>,
    spent: Vec<i64>,
    debts: Vec<i64>,
    heads: Vec<Vec<u8>>,
    daily: Vec<Date>,
    grants: Vec<String>,
    holds: Vec<String>,
    changed_at: Vec<OffsetDateTime>,
}

impl WalletColumns {
    fn of(changed: &[Changed<'_>]) -> Result<Self, DbError> {
        let mut columns = Self::default();
        for Changed { wallet, .. } in changed {
            let totals = wallet.totals().map_err(|_| DbError::unreadable(BALANCES))?;
            columns.ids.push(wallet.id.0);
            columns.versions.push(wallet.version);
            columns.sequences.push(wallet.sequence);
            columns.free.push(totals.free.get());
            columns.paid.push(totals.paid.get());
            columns.held.push(totals.held.get());
            columns.earned.push(wallet.total_earned.get());
            columns.spent.push(wallet.total_spent.get());
            columns.debts.push(wallet.debt.get());
            columns.heads.push(wallet.head.to_vec());
            columns.daily.push(wallet.daily_granted_on);
            columns.grants.push(json(&wallet.grants)?);
            columns.holds.push(json(&wallet.holds)?);
            columns.changed_at.push(wallet.changed_at);
        }
        Ok(columns)
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|_| DbError::unreadable(BALANCES))
}

/// Lines of histories, column by column.
#[derive(Default)]
struct TransactionColumns {
    wallets: Vec<i64>,
    sequences: Vec<i64>,
    ids: Vec<Uuid>,
    kinds: Vec<String>,
    amounts: Vec<i64>,
    balances: Vec<i64>,
    counters: Vec<String>,
    slice_grants: Vec<String>,
    slice_amounts: Vec<String>,
    references: Vec<Option<i64>>,
    holds: Vec<Option<Uuid>>,
    apps: Vec<String>,
    descriptions: Vec<String>,
    metadata: Vec<Option<String>>,
    keys: Vec<Option<String>>,
    service_keys: Vec<Option<String>>,
    at: Vec<OffsetDateTime>,
    hashes: Vec<Vec<u8>>,
}

impl TransactionColumns {
    fn of(transactions: &[(WalletId, &Transaction)]) -> Self {
        let mut columns = Self::default();
        for (wallet, line) in transactions {
            columns.wallets.push(wallet.0);
            columns.sequences.push(line.sequence);
            columns.ids.push(line.id.0);
            columns.kinds.push(line.kind.as_str().to_owned());
            columns.amounts.push(line.amount);
            columns.balances.push(line.balance_after.get());
            columns.counters.push(line.counter.as_str().to_owned());
            columns.slice_grants.push(array(line.slices.iter().map(|slice| slice.grant)));
            columns.slice_amounts.push(array(line.slices.iter().map(|slice| slice.amount)));
            columns.references.push(line.reference);
            columns.holds.push(line.hold_id.map(|hold| hold.0));
            columns.apps.push(line.note.app_id.clone());
            columns.descriptions.push(line.note.description.clone());
            columns.metadata.push(line.note.metadata.clone());
            columns.keys.push(line.note.idempotency_key.clone());
            columns.service_keys.push(line.note.service_key_id.clone());
            columns.at.push(line.at);
            columns.hashes.push(line.hash.to_vec());
        }
        columns
    }
}

/// An array as PostgreSQL writes it: arrays of arrays can't be taken apart into rows.
pub(super) fn array(values: impl Iterator<Item = i64>) -> String {
    let mut text = String::from("{");
    for value in values {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&value.to_string());
    }
    text.push('}');
    text
}

/// What a batch adds to the statistics, column by column: a row for each wallet and app.
#[derive(Default)]
struct Usage {
    wallets: Vec<i64>,
    apps: Vec<String>,
    spends: Vec<i64>,
    spent: Vec<i64>,
    refunded: Vec<i64>,
}

impl Usage {
    fn of(transactions: &[(WalletId, &Transaction)]) -> Self {
        let mut sums: HashMap<(WalletId, &str), (i64, i64, i64)> = HashMap::new();
        for (wallet, line) in transactions {
            let (spends, spent, refunded) = match line.kind {
                TransactionKind::Usage => (1, 0_i64.saturating_sub(line.amount), 0),
                TransactionKind::Refund => (0, 0, line.amount),
                TransactionKind::Purchase
                | TransactionKind::Bonus
                | TransactionKind::Expiry
                | TransactionKind::Adjustment => continue,
            };
            let sum = sums.entry((*wallet, &line.note.app_id)).or_default();
            *sum =
                (sum.0.saturating_add(spends), sum.1.saturating_add(spent), sum.2.saturating_add(refunded));
        }
        let mut usage = Self::default();
        for ((wallet, app), (spends, spent, refunded)) in sums {
            usage.wallets.push(wallet.0);
            usage.apps.push(app.to_owned());
            usage.spends.push(spends);
            usage.spent.push(spent);
            usage.refunded.push(refunded);
        }
        usage
    }
}

async fn write_grants(connection: &mut PgConnection, changed: &[Changed<'_>]) -> Result<(), DbError> {
    let grants: Vec<(i64, OffsetDateTime, &Grant)> = changed
        .iter()
        .flat_map(|change| {
            let (wallet, at) = (change.wallet.id.0, change.wallet.changed_at);
            change.effects.new_grants.iter().map(move |grant| (wallet, at, grant))
        })
        .collect();
    if grants.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO credits.grants (wallet_id, grant_sequence, source, priority, cost_micros, effective_from, expires_at, created_at)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::smallint[], $5::bigint[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[])",
        &column(&grants, |(wallet, ..)| *wallet),
        &column(&grants, |(.., grant)| grant.sequence),
        &column(&grants, |(.., grant)| grant.terms.source.as_str().to_owned()),
        &column(&grants, |(.., grant)| grant.terms.priority),
        &column(&grants, |(.., grant)| grant.terms.cost_micros),
        &column(&grants, |(.., grant)| grant.terms.effective_from) as &[Option<OffsetDateTime>],
        &column(&grants, |(.., grant)| grant.terms.expires_at) as &[Option<OffsetDateTime>],
        &column(&grants, |(_, at, _)| *at),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// One after the other, as they happened: holds are few beside spends.
async fn write_holds(connection: &mut PgConnection, changed: &[Changed<'_>]) -> Result<(), DbError> {
    for change in changed {
        for hold in &change.effects.holds {
            write_hold(connection, change.wallet.id, hold).await?;
        }
    }
    Ok(())
}

async fn write_hold(
    connection: &mut PgConnection,
    wallet: WalletId,
    change: &HoldChange,
) -> Result<(), DbError> {
    match change {
        HoldChange::Opened { hold, description, metadata, service_key_id, at } => {
            sqlx::query!(
                "INSERT INTO credits.holds
                    (wallet_id, id, app_id, description, metadata, amount, slice_grants, slice_amounts, status, service_key_id, created_at, expires_at)
                 VALUES ($1, $2, $3, $4, $5::text::json, (SELECT sum(slice) FROM unnest($7::bigint[]) slice), $6, $7, 'open', $8, $9, $10)",
                wallet.0,
                hold.id.0,
                hold.app_id,
                description,
                metadata.as_deref(),
                &column(&hold.slices, |slice| slice.grant),
                &column(&hold.slices, |slice| slice.amount.get()),
                service_key_id.as_deref(),
                at,
                hold.expires_at,
            )
            .execute(connection)
            .await?;
        }
        HoldChange::Extended { id, expires_at } => {
            sqlx::query!(
                "UPDATE credits.holds SET expires_at = $3 WHERE wallet_id = $1 AND id = $2",
                wallet.0,
                id.0,
                expires_at,
            )
            .execute(connection)
            .await?;
        }
        HoldChange::Ended { id, end, at } => {
            let (captured, sequence) = match end {
                HoldEnd::Captured { amount, sequence } => (amount.get(), Some(*sequence)),
                HoldEnd::Released | HoldEnd::Expired => (0, None),
            };
            sqlx::query!(
                "UPDATE credits.holds SET status = $3, captured = $4, capture_sequence = $5, ended_at = $6 WHERE wallet_id = $1 AND id = $2",
                wallet.0,
                id.0,
                end.as_str(),
                captured,
                sequence,
                at,
            )
            .execute(connection)
            .await?;
        }
    }
    Ok(())
}

/// Spends that are about to be refunded, by wallet: what they took, and what was given back of it.
pub(crate) async fn recall_spends(
    connection: &mut PgConnection,
    wallet: WalletId,
    sequences: &[i64],
) -> Result<Vec<RecalledSpend>, DbError> {
    let rows = sqlx::query!(
        r#"SELECT sequence, slice_grants, slice_amounts, coalesce((
               SELECT sum(refund.amount) FROM credits.transactions refund
               WHERE refund.wallet_id = $1 AND refund.reference = spend.sequence), 0)::bigint AS "refunded!"
           FROM credits.transactions spend WHERE wallet_id = $1 AND sequence = ANY($2) AND type = 'usage'"#,
        wallet.0,
        sequences,
    )
    .fetch_all(&mut *connection)
    .await?;
    let grants: Vec<i64> = rows.iter().flat_map(|row| row.slice_grants.iter().copied()).collect();
    let terms = find_terms(connection, wallet, &grants).await?;
    rows.into_iter()
        .map(|row| {
            let slices = row.slice_grants.iter().zip(&row.slice_amounts).map(|(grant, amount)| {
                Ok(Slice { grant: *grant, amount: mana(0_i64.saturating_sub(*amount))? })
            });
            Ok(RecalledSpend {
                sequence: row.sequence,
                slices: slices.collect::<Result<_, DbError>>()?,
                refunded: mana(row.refunded)?,
                terms: terms.iter().filter(|(grant, _)| row.slice_grants.contains(grant)).copied().collect(),
            })
        })
        .collect()
}

/// What these grants of a wallet are.
pub(crate) async fn find_terms(
    connection: &mut PgConnection,
    wallet: WalletId,
    grants: &[i64],
) -> Result<Vec<(i64, Terms)>, DbError> {
    let rows = sqlx::query!(
        "SELECT grant_sequence, source, priority, cost_micros, effective_from, expires_at
         FROM credits.grants WHERE wallet_id = $1 AND grant_sequence = ANY($2)",
        wallet.0,
        grants,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let source = GrantSource::from_database(&row.source);
            let terms = Terms {
                source: source.ok_or_else(|| DbError::unreadable("credits.grants"))?,
                priority: row.priority,
                cost_micros: row.cost_micros,
                effective_from: row.effective_from,
                expires_at: row.expires_at,
            };
            Ok((row.grant_sequence, terms))
        })
        .collect()
}

/// A line of a wallet's history, for an answer.
#[derive(Debug)]
pub(crate) struct TransactionRow {
    pub(crate) sequence: i64,
    pub(crate) id: TransactionId,
    pub(crate) kind: TransactionKind,
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
    rows.into_iter()
        .map(|row| {
            let kind = TransactionKind::from_database(&row.r#type);
            Ok(TransactionRow {
                sequence: row.sequence,
                id: TransactionId(row.id),
                kind: kind.ok_or_else(|| DbError::unreadable(TRANSACTIONS))?,
                amount: row.amount,
                balance_after: row.balance_after,
                app_id: row.app_id,
                description: row.description,
                metadata: row.metadata,
                idempotency_key: row.idempotency_key,
                created_at: row.created_at,
            })
        })
        .collect()
}

/// How statistics are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grouping {
    /// A line for each day.
    Day,
    /// A line for each app.
    App,
}

/// Spends of a day or an app.
#[derive(Debug)]
pub(crate) struct UsageRow {
    pub(crate) day: Option<Date>,
    pub(crate) app_id: Option<String>,
    pub(crate) spends: i64,
    pub(crate) spent: i64,
    pub(crate) refunded: i64,
}

/// What a user has spent, or all of them, from the day `from` to the day `to`.
pub(crate) async fn sum_usage(
    connection: &mut PgConnection,
    user: Option<&UserId>,
    from: Date,
    to: Date,
    grouping: Grouping,
) -> Result<Vec<UsageRow>, DbError> {
    Ok(sqlx::query_as!(
        UsageRow,
        r#"SELECT CASE WHEN $4 THEN day END AS day, CASE WHEN NOT $4 THEN app_id END AS app_id,
               sum(spends)::bigint AS "spends!", sum(spent)::bigint AS "spent!", sum(refunded)::bigint AS "refunded!"
           FROM credits.usage_stats
           WHERE day BETWEEN $2 AND $3
               AND ($1::text IS NULL OR wallet_id = (SELECT wallet_id FROM credits.balances WHERE user_id = $1))
           GROUP BY 1, 2 ORDER BY 1, 4 DESC, 2 LIMIT 1000"#,
        user.map(UserId::as_str),
        from,
        to,
        grouping == Grouping::Day,
    )
    .fetch_all(connection)
    .await?)
}

/// The zone's today.
pub(crate) async fn find_today(connection: &mut PgConnection, zone: &str) -> Result<Date, DbError> {
    Ok(sqlx::query_scalar!(r#"SELECT (now() AT TIME ZONE $1)::date AS "today!""#, zone)
        .fetch_one(connection)
        .await?)
}

/// A spend that somebody wants to give back.
#[derive(Debug)]
pub(crate) struct SpendRow {
    pub(crate) user_id: String,
    pub(crate) sequence: i64,
    pub(crate) app_id: String,
}

/// A spend by its id, whoever's it is.
pub(crate) async fn find_spend(
    connection: &mut PgConnection,
    id: TransactionId,
) -> Result<Option<SpendRow>, DbError> {
    Ok(sqlx::query_as!(
        SpendRow,
        "SELECT user_id, transactions.sequence, app_id FROM credits.transactions JOIN credits.balances USING (wallet_id)
         WHERE id = $1 AND type = 'usage'",
        id.0,
    )
    .fetch_optional(connection)
    .await?)
}

/// The newest spend of an app among a user's latest hundred lines of which at least `amount` was not given back.
pub(crate) async fn find_refundable(
    connection: &mut PgConnection,
    user: &UserId,
    app_id: &str,
    amount: i64,
) -> Result<Option<SpendRow>, DbError> {
    Ok(sqlx::query_as!(
        SpendRow,
        r#"SELECT $1 AS "user_id!", sequence, app_id FROM (
               SELECT * FROM credits.transactions
               WHERE wallet_id = (SELECT wallet_id FROM credits.balances WHERE user_id = $1) ORDER BY sequence DESC LIMIT 100
           ) spend
           WHERE type = 'usage' AND app_id = $2 AND -amount - coalesce((
               SELECT sum(refund.amount) FROM credits.transactions refund
               WHERE refund.wallet_id = spend.wallet_id AND refund.reference = spend.sequence), 0) >= $3::bigint
           ORDER BY sequence DESC LIMIT 1"#,
        user.as_str(),
        app_id,
        amount,
    )
    .fetch_optional(connection)
    .await?)
}

/// A wallet, as its owner's export shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WalletExport {
    free: i64,
    paid: i64,
    held: i64,
    total_earned: i64,
    total_spent: i64,
    low_balance_below: Option<i64>,
    low_balance_mail: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// The wallet of a user, if there is one.
pub(crate) async fn list_wallet(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Vec<WalletExport>, DbError> {
    Ok(sqlx::query_as!(
        WalletExport,
        "SELECT free, paid, held, total_earned, total_spent, low_below AS low_balance_below, low_mail AS low_balance_mail, created_at
         FROM credits.balances WHERE user_id = $1",
        user.as_str(),
    )
    .fetch_all(connection)
    .await?)
}

/// A hold, as its owner's export shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HoldExport {
    pub(crate) id: Uuid,
    app_id: String,
    description: String,
    metadata: Option<serde_json::Value>,
    amount: i64,
    captured: i64,
    status: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
}

/// A page of a user's holds, in the order of their ids.
pub(crate) async fn list_holds(
    connection: &mut PgConnection,
    user: &UserId,
    after: Uuid,
    limit: i64,
) -> Result<Vec<HoldExport>, DbError> {
    Ok(sqlx::query_as!(
        HoldExport,
        "SELECT id, app_id, description, metadata, amount, captured, status, created_at, expires_at FROM credits.holds
         WHERE wallet_id = (SELECT wallet_id FROM credits.balances WHERE user_id = $1) AND id > $2 ORDER BY id LIMIT $3",
        user.as_str(),
        after,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// Closes a user's wallet, if it is open. Locks it until the transaction ends.
pub(crate) async fn update_closed(
    connection: &mut PgConnection,
    user: &UserId,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.balances SET closed_at = $2, version = version + 1, updated_at = greatest(updated_at, $2)
         WHERE user_id = $1 AND closed_at IS NULL",
        user.as_str(),
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A hold, as its row has it.
#[derive(Debug)]
pub(crate) struct HoldRow {
    pub(crate) id: HoldId,
    pub(crate) user_id: String,
    pub(crate) app_id: String,
    pub(crate) description: String,
    pub(crate) metadata: Option<serde_json::Value>,
    pub(crate) amount: i64,
    pub(crate) captured: i64,
    pub(crate) status: String,
    pub(crate) expires_at: OffsetDateTime,
    /// Whether an app opened it by a service key.
    pub(crate) is_of_service: bool,
}

/// A hold by its id, whoever's it is.
pub(crate) async fn find_hold(connection: &mut PgConnection, id: HoldId) -> Result<Option<HoldRow>, DbError> {
    Ok(sqlx::query!(
        r#"SELECT id, user_id, app_id, description, metadata, amount, captured, status, expires_at, service_key_id IS NOT NULL AS "is_of_service!"
         FROM credits.holds JOIN credits.balances USING (wallet_id) WHERE id = $1"#,
        id.0,
    )
    .fetch_optional(connection)
    .await?
    .map(|row| HoldRow {
        id: HoldId(row.id),
        user_id: row.user_id,
        app_id: row.app_id,
        description: row.description,
        metadata: row.metadata,
        amount: row.amount,
        captured: row.captured,
        status: row.status,
        expires_at: row.expires_at,
        is_of_service: row.is_of_service,
    }))
}

fn mana(value: i64) -> Result<Mana, DbError> {
    Mana::new(value).ok_or_else(|| DbError::unreadable(BALANCES))
}
