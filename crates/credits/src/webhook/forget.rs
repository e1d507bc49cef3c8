//! Forgets deliveries that are past their time, whether or not there is a Stripe to ask.

use super::store;
use crate::ledger::Books;
use mana_platform::DbError;
use time::Duration;

/// Deliveries are kept for so long after they were worked on: longer than Stripe keeps its events, so that none is new again. Those that
/// nobody can work on, because no key is set, are kept as long.
const KEEP: Duration = Duration::days(40);
/// Rows of one statement.
const PRUNED: u64 = 1_000;

/// Deletes what is old, and what deliveries said that servers of older versions worked on.
///
/// # Errors
/// When the database fails.
pub async fn forget_old(books: &Books) -> Result<(), DbError> {
    let before = books.clock.now().saturating_sub(KEEP);
    let limit = i64::try_from(PRUNED).unwrap_or(i64::MAX);
    let mut connection = books.database.acquire().await?;
    while store::delete_before(&mut connection, before, limit).await? >= PRUNED {}
    while store::delete_waiting_before(&mut connection, before, limit).await? >= PRUNED {}
    while store::update_emptied(&mut connection, limit).await? >= PRUNED {}
    connection.finish().await
}
