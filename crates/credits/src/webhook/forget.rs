//! The end of deliveries.

use super::store;
use crate::ledger::Books;
use mana_platform::DbError;
use time::Duration;

/// Deliveries are kept for so long after they were worked on: longer than Stripe keeps its events, so that none is new again.
const KEEP: Duration = Duration::days(40);
/// Deliveries of one transaction.
const BATCH: i64 = 1_000;

/// Forgets what is past its time.
///
/// # Errors
/// When the database fails; what was forgotten until then stays forgotten.
pub async fn forget_old(books: &Books) -> Result<(), DbError> {
    let before = books.clock.now().saturating_sub(KEEP);
    loop {
        let mut connection = books.database.acquire().await?;
        let deleted = store::delete_before(&mut connection, before, BATCH).await?;
        connection.finish().await?;
        if deleted < BATCH.unsigned_abs() {
            return Ok(());
        }
    }
}
