//! Accounts into a file, as JSON lines that an import takes.

use super::row::Row;
use crate::account::store::{self, ExportedUser};
use mana_platform::{Database, DbError};
use std::io::{self, Write};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Accounts that are read together.
const CHUNK: i64 = 500;

/// Why an export stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The file did.
    #[error("the export can't be written: {0}")]
    Output(#[from] io::Error),
    /// A row can't be put into words.
    #[error("an account can't be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// Writes all accounts but deleted ones in the order of their ids, as they are meanwhile; with the hashes of their passwords only if that is
/// asked for. `progress` hears how many there are, and how many were written. Says how many it were.
///
/// # Errors
/// When the database or the output fails.
pub async fn export(
    database: &Database,
    mut output: impl Write,
    with_hashes: bool,
    mut progress: impl FnMut(u64, u64),
) -> Result<u64, ExportError> {
    let total = store::count_users(&mut *database.acquire().await?).await?;
    let total = u64::try_from(total).unwrap_or(0);
    let (mut written, mut after) = (0_u64, String::new());
    loop {
        // A transaction of its own for each chunk: a slow reader holds nothing.
        let chunk = store::list_to_export(&mut *database.acquire().await?, &after, CHUNK).await?;
        let Some(last) = chunk.last() else { break };
        after.clone_from(&last.id);
        for user in chunk {
            serde_json::to_writer(&mut output, &row(user, with_hashes))?;
            output.write_all(b"\n")?;
            written = written.saturating_add(1);
        }
        progress(total, written);
    }
    output.flush()?;
    Ok(written)
}

fn row(user: ExportedUser, with_hashes: bool) -> Row {
    let time = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
    Row {
        id: Some(user.id),
        email: user.email,
        email_verified: Some(user.email_verified),
        name: user.name,
        role: Some(user.role),
        image: user.image,
        created_at: Some(time(user.created_at)),
        disabled_at: user.disabled_at.map(time),
        password_hash: user.hash.filter(|_| with_hashes),
    }
}
