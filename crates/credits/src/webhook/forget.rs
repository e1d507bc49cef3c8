//! Forgets deliveries that are past their time, whether or not there is a Stripe to ask.

use super::store;
use crate::ledger::Books;
use mana_platform::DbError;
use mana_platform::prune::until_empty;
use time::Duration;

/// Deliveries are kept for so long after they were worked on: longer than Stripe keeps its events, so that none is new again. Those that
/// nobody can work on, because no key is set, are kept as long.
const KEEP: Duration = Duration::days(40);
/// Rows of one statement.
const PRUNED: i64 = 1_000;

/// Deletes what is old, and what deliveries said that servers of older versions worked on.
///
/// # Errors
/// When the database fails.
pub async fn forget_old(books: &Books) -> Result<(), DbError> {
    let (database, before) = (&books.database, books.clock.now().saturating_sub(KEEP));
    until_empty(database, PRUNED, |connection| Box::pin(store::delete_before(connection, before, PRUNED)))
        .await?;
    until_empty(database, PRUNED, |connection| {
        Box::pin(store::delete_waiting_before(connection, before, PRUNED))
    })
    .await?;
    until_empty(database, PRUNED, |connection| Box::pin(store::update_emptied(connection, PRUNED))).await
}
