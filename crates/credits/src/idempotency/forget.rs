//! The end of remembered answers.

use super::store;
use crate::ledger::Books;
use mana_platform::DbError;
use mana_platform::prune::until_empty;

/// How long an answer is remembered: longer than any client keeps a request that it may send again.
const KEEP_DAYS: i32 = 400;
/// Answers of one statement at most, so that none takes long. Nobody waits for their locks.
const BATCH: i64 = 10_000;

/// Forgets what is past its time. What it answered to stays in the books.
///
/// # Errors
/// When the database fails; what was forgotten until then stays forgotten.
pub async fn forget_old(books: &Books) -> Result<(), DbError> {
    let now = books.clock.now();
    until_empty(&books.database, BATCH, |connection| {
        Box::pin(store::delete_old(connection, now, KEEP_DAYS, BATCH))
    })
    .await
}
