//! The proof that the service makes by itself, hour by hour: wallets that changed since the last root are checked, and if
//! they are true, the next root is taken. No root is taken over a lie, so that it is found again until it is put right.

use super::{Root, store, take};
use crate::ledger::Books;
use crate::ledger::verify::{self, Scope};
use mana_platform::{Database, DbError};
use time::{Duration, OffsetDateTime};

/// How far apart roots are.
const BETWEEN_ROOTS: Duration = Duration::minutes(55);
/// A change may be stamped this long before it is committed, and clocks of servers differ.
const MARGIN: Duration = Duration::minutes(5);

/// Checks what changed since the newest root, and takes the next one. Does nothing while another server is at it, or if the
/// newest root is less than an hour old. The first check is of all wallets.
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
    if !store::hold_pass(&mut lock).await? {
        return Ok(());
    }
    let newest = store::find_newest(&mut lock).await?;
    let next = match newest {
        Some(root) if root.created_at > now.saturating_sub(BETWEEN_ROOTS) => Some(root),
        older => prove(database, older.as_ref(), &policy.daily_zone, now).await?,
    };
    if let Some(root) = next {
        metrics::gauge!("ledger_verify_findings").set(0);
        let seconds = i32::try_from(root.created_at.unix_timestamp()).unwrap_or(i32::MAX);
        metrics::gauge!("ledger_verify_last_success_timestamp_seconds").set(seconds);
    }
    Ok(lock.commit().await?)
}

/// The next root; none if the books are not true.
async fn prove(
    database: &Database,
    last: Option<&Root>,
    daily_zone: &str,
    now: OffsetDateTime,
) -> Result<Option<Root>, DbError> {
    let since = last.map(|root| root.created_at.saturating_sub(MARGIN));
    let report = verify::verify(database, Scope { since, daily_zone }, |_| {}).await?;
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
