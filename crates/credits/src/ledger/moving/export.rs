//! The books as a file, of one moment, while servers go on.

use super::{Counts, End, FORMAT, Header, Row, VERSION, store};
use crate::ledger::verify;
use aws_lc_rs::digest::{Context, SHA256};
use futures_util::TryStreamExt as _;
use mana_platform::{Database, DbError};
use serde::Serialize;
use sqlx::PgConnection;
use std::io::{self, Write};

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The file did.
    #[error("the export can't be written: {0}")]
    Output(#[from] io::Error),
}

/// Answers between two looks at how far the work is.
const ANSWERS: u64 = 1_000;

/// Writes everything that an import needs. `progress` hears how many wallets there are, and what was written so far.
///
/// # Errors
/// When the database or the output fails; then what was written has no last line.
pub async fn export(
    database: &Database,
    output: impl Write,
    mut progress: impl FnMut(u64, &Counts),
) -> Result<Counts, ExportError> {
    let mut transaction = database.begin_snapshot().await?;
    let wallets = verify::store::count_wallets(&mut transaction, None).await?;
    let wallets = u64::try_from(wallets).unwrap_or(0);
    let mut file = File { output, digest: Context::new(&SHA256), counts: Counts::default() };
    file.write_line(&Header { format: FORMAT.to_owned(), version: VERSION, wallets })?;
    let mut last = Some(i64::MIN);
    while let Some(after) = last {
        last = export_chunk(&mut transaction, after, &mut file).await?;
        progress(wallets, &file.counts);
    }
    let mut answers = store::stream_answers(&mut transaction);
    while let Some(answer) = answers.try_next().await.map_err(DbError::from)? {
        file.write(&Row::Answer(answer))?;
        if file.counts.answers.is_multiple_of(ANSWERS) {
            progress(wallets, &file.counts);
        }
    }
    Ok(file.finish()?)
}

/// Says after which wallet to go on; none when that was all.
async fn export_chunk(
    connection: &mut PgConnection,
    after: i64,
    file: &mut File<impl Write>,
) -> Result<Option<i64>, ExportError> {
    let snapshots = verify::load_chunk(connection, after, None).await?;
    let ids: Vec<i64> = snapshots.iter().map(|snapshot| snapshot.wallet.wallet_id).collect();
    let mut usage = store::list_usage(connection, &ids).await?.into_iter().peekable();
    // No line is looked at here with its day, so that any zone will do.
    let mut lines = verify::store::stream_lines(connection, &ids, "UTC");
    let mut next = lines.try_next().await.map_err(DbError::from)?;
    for snapshot in snapshots {
        let id = snapshot.wallet.wallet_id;
        file.write(&Row::Wallet(snapshot.wallet))?;
        for grant in snapshot.grants {
            file.write(&Row::Grant(grant))?;
        }
        for hold in snapshot.holds {
            file.write(&Row::Hold(hold))?;
        }
        while let Some(day) = usage.next_if(|day| day.wallet_id == id) {
            file.write(&Row::Usage(day))?;
        }
        while let Some((line, _)) = next.take_if(|(line, _)| line.wallet_id == id) {
            file.write(&Row::Transaction(line))?;
            next = lines.try_next().await.map_err(DbError::from)?;
        }
    }
    Ok(ids.last().copied())
}

struct File<W> {
    output: W,
    digest: Context,
    counts: Counts,
}

impl<W: Write> File<W> {
    fn write(&mut self, row: &Row) -> io::Result<()> {
        self.counts.add(row);
        self.write_line(row)
    }

    fn write_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.digest.update(&line);
        self.output.write_all(&line)
    }

    fn finish(mut self) -> io::Result<Counts> {
        let sha256 = self.digest.clone().finish().as_ref().to_vec();
        self.write_line(&Row::End(End { rows: self.counts, sha256 }))?;
        self.output.flush()?;
        Ok(self.counts)
    }
}
