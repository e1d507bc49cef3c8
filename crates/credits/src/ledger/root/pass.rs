//! The proof that the service makes by itself, hour by hour: wallets that changed since the last root are checked, and a part of all wallets, in
//! turn; if they are true, the next root is taken. No root is taken over a lie, so that it is found again until it is put right.

use super::store::Round;
use super::{Root, store, take};
use crate::ledger::Books;
use crate::ledger::verify::{self, Report, Scope};
use mana_platform::{Database, DbError};
use std::time::Duration as Time;
use time::{Duration, OffsetDateTime};

/// How far apart roots are.
const BETWEEN_ROOTS: Duration = Duration::minutes(55);
/// A change may be stamped this long before it is committed, and clocks of servers differ.
const MARGIN: Duration = Duration::minutes(5);
/// For how long all wallets are gone on with, each hour: books that are read in two hours are read in a day.
const PART: Time = Time::from_mins(5);

/// Checks what changed since the newest root and goes on with all wallets where the last pass ended, and takes the next root. Does nothing while
/// another server is at it, or if the newest root is less than an hour old. The first check is of all wallets at once.
///
/// The transaction that holds the advisory lock stays open and idle while others read the books: PostgreSQL must let it be idle for so long. If it
/// is ended all the same, another server may begin too; of two that take the next root, one fails.
///
/// # Errors
/// When the database fails.
pub async fn keep_proven(books: &Books) -> Result<(), DbError> {
    let Books { database, clock, policy, .. } = books;
    let now = clock.now();
    let mut lock = database.begin().await?;
    if store::hold_pass(&mut lock).await? {
        let newest = store::find_newest(&mut lock).await?;
        let next = match newest {
            Some(root) if root.created_at > now.saturating_sub(BETWEEN_ROOTS) => Some(root),
            older => prove(database, older.as_ref(), &policy.daily_zone, now).await?,
        };
        if let Some(root) = next {
            metrics::gauge!("ledger_verify_findings").set(0);
            metrics::gauge!("ledger_verify_last_success_timestamp_seconds").set(seconds(root.created_at));
        }
    }
    let round = store::find_round(&mut lock).await?;
    metrics::gauge!("ledger_verify_all_last_success_timestamp_seconds").set(seconds(round.proven_at));
    lock.commit().await
}

fn seconds(time: OffsetDateTime) -> i32 {
    i32::try_from(time.unix_timestamp()).unwrap_or(i32::MAX)
}

/// The next root; none if the books are not true.
async fn prove(
    database: &Database,
    last: Option<&Root>,
    daily_zone: &str,
    now: OffsetDateTime,
) -> Result<Option<Root>, DbError> {
    let since = last.map(|root| root.created_at.saturating_sub(MARGIN));
    let mut report = verify::verify(database, Scope { since, daily_zone }, |_| {}).await?;
    if since.is_some() {
        report.join(go_on(database, daily_zone, PART, now).await?);
    } else if report.is_true() {
        write_round(database, &Round { began_at: now, after_wallet: None, proven_at: now }).await?;
    }
    metrics::counter!("ledger_verify_wallets_total").increment(report.wallets);
    if !report.is_true() {
        for finding in &report.findings {
            tracing::error!(%finding, "the books are not true");
        }
        metrics::gauge!("ledger_verify_findings").set(u32::try_from(report.found).unwrap_or(u32::MAX));
        return Ok(None);
    }
    let root = take(database, now).await?;
    tracing::info!(id = root.id, hash = root.hash_text(), wallets = root.wallets, "root of the books");
    Ok(Some(root))
}

/// Goes on with the check of all wallets where it ended, for `limit`, and begins anew when it comes to the end. Where something is found it stays,
/// so that the next pass finds it again.
///
/// # Errors
/// When the database fails.
pub async fn go_on(
    database: &Database,
    daily_zone: &str,
    limit: Time,
    now: OffsetDateTime,
) -> Result<Report, DbError> {
    let mut round = store::find_round(&mut *database.begin().await?).await?;
    if round.after_wallet.is_none() {
        round.began_at = now;
    }
    let after = round.after_wallet.unwrap_or(i64::MIN);
    let (report, reached) = verify::verify_part(database, daily_zone, after, limit).await?;
    // Before the first wallet, nothing is read yet.
    round.after_wallet = reached.filter(|wallet| *wallet > i64::MIN);
    if reached.is_none() {
        round.proven_at = round.began_at;
    }
    write_round(database, &round).await?;
    Ok(report)
}

async fn write_round(database: &Database, round: &Round) -> Result<(), DbError> {
    let mut transaction = database.begin().await?;
    store::update_round(&mut transaction, round).await?;
    transaction.commit().await
}
