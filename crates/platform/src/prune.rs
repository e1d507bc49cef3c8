//! Deleting what nobody needs any more, so that nobody notices it.

use crate::{Database, DbError};
use sqlx::PgConnection;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

/// A statement that had to wait for long is no reason to wait as long again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A statement that deletes some rows and says how many.
pub type Deletion<'a> = Pin<Box<dyn Future<Output = Result<u64, DbError>> + Send + 'a>>;

/// Deletes `batch` rows at most, again and again until there are no more. Each batch is committed by itself, also where a connection's
/// statements are otherwise one transaction, so that no lock is held for long.
///
/// # Errors
/// When the database fails; what was deleted until then stays deleted.
pub async fn until_empty(
    database: &Database,
    batch: i64,
    delete: impl for<'a> Fn(&'a mut PgConnection) -> Deletion<'a> + Send,
) -> Result<(), DbError> {
    loop {
        let begun = Instant::now();
        let mut connection = database.acquire().await?;
        let deleted = delete(&mut connection).await?;
        connection.finish().await?;
        if !is_full(deleted, batch) {
            return Ok(());
        }
        give_way(begun).await;
    }
}

/// Leaves the database to requests for as long as the work since `begun` has taken.
pub async fn give_way(begun: Instant) {
    tokio::time::sleep(begun.elapsed().min(LONGEST_PAUSE)).await;
}

/// Whether a batch was as large as it may be, so that there may be more.
pub fn is_full(deleted: u64, batch: i64) -> bool {
    i64::try_from(deleted).is_ok_and(|deleted| deleted >= batch)
}
