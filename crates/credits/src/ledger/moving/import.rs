//! The books out of a file, into a database that has none. Each wallet's history is lived again while it is read, as the
//! proof does it; all of it is one transaction, so that a file with a lie in it leaves nothing behind.

use super::store::{self, Chunk};
use super::{Counts, End, FORMAT, Header, Row, VERSION};
use crate::ledger::record::{LineRecord, WalletRecord};
use crate::ledger::verify::replay::Replay;
use crate::ledger::verify::{self, Finding, LineContext, Snapshot};
use aws_lc_rs::digest::{Context, SHA256};
use mana_platform::{Database, DbError};
use sqlx::PgConnection;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead};

/// Rows that are read and written together.
const CHUNK: usize = 500;

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The file did.
    #[error("the export can't be read: {0}")]
    Input(#[from] io::Error),
    /// There are books already.
    #[error(
        "the ledger has wallets, and an import goes into an empty one. Make a new database, `mana-core-auth migrate` it, and \
         import before anybody registers"
    )]
    NotEmpty,
    /// It does not begin as an export does.
    #[error("this is no file that `mana-core-auth ledger export` wrote")]
    NoExport,
    /// Of a version that is not known here.
    #[error(
        "the export has version {0} of the format, and this program reads version {VERSION}: import it with the release that wrote it, \
         and update then"
    )]
    UnknownVersion(u64),
    /// A line that is no row.
    #[error("line {0} of the export can't be understood: {1}. Export anew")]
    Broken(u64, serde_json::Error),
    /// A row that does not stand with its wallet.
    #[error(
        "a row ({0}) of wallet {1} stands where it does not belong. Export anew, and change nothing in the file"
    )]
    Misplaced(&'static str, i64),
    /// It has no last line.
    #[error("the export was cut off in or before its line {0}. Copy it anew, or export anew")]
    Truncated(u64),
    /// The last line does not fit what stands before it.
    #[error("the export is not as it was written: {0}. Copy it anew, or export anew")]
    Changed(&'static str),
    /// The books in it are not true.
    #[error(
        "the books in the export are not true: {0}. `ledger verify` says whether they are where they come from"
    )]
    Lie(Finding),
}

/// Reads what an export wrote. `progress` hears how many wallets there are, and what was read so far.
///
/// # Errors
/// When there are wallets, when something in the file is not as an export writes it or not true, or when the database
/// fails. Nothing was changed then.
pub async fn import(
    database: &Database,
    daily_zone: &str,
    input: impl BufRead,
    mut progress: impl FnMut(u64, &Counts),
) -> Result<Counts, ImportError> {
    let file = File::open(input)?;
    let mut transaction = database.begin_lookups().await?;
    if !verify::store::list_wallets(&mut transaction, i64::MIN, None, 1).await?.is_empty() {
        return Err(ImportError::NotEmpty);
    }
    let mut rows = Rows {
        connection: &mut transaction,
        daily_zone,
        file,
        ahead: VecDeque::new(),
        contexts: VecDeque::new(),
        chunk: Chunk::default(),
        progress: &mut progress,
    };
    while let Some(row) = rows.next_if(|_| true).await? {
        match row {
            Row::Wallet(wallet) => import_wallet(&mut rows, wallet).await?,
            Row::Answer(answer) => rows.chunk.answers.push(answer),
            Row::Grant(_) | Row::Hold(_) | Row::Usage(_) | Row::Transaction(_) | Row::End(_) => {
                let (name, wallet) = row.name();
                return Err(ImportError::Misplaced(name, wallet));
            }
        }
    }
    let counts = rows.file.finish()?;
    let orphans = verify::store::list_orphans(&mut transaction, verify::ALL).await?;
    if let Some(orphan) = orphans.into_iter().next() {
        return Err(ImportError::Lie(orphan.into()));
    }
    store::insert_moved_wallets(&mut transaction).await?;
    store::continue_wallet_ids(&mut transaction).await?;
    transaction.commit().await?;
    Ok(counts)
}

/// A wallet with all that stands with it.
async fn import_wallet<R: BufRead>(rows: &mut Rows<'_, R>, wallet: WalletRecord) -> Result<(), ImportError> {
    let id = wallet.wallet_id;
    rows.chunk.wallets.push(wallet.clone());
    let mut snapshot =
        Snapshot { wallet, grants: Vec::new(), holds: Vec::new(), usage: BTreeMap::new(), anchor: None };
    while let Some(row) = rows.next_if(|row| row.describes(id)).await? {
        match row {
            Row::Grant(grant) => {
                rows.chunk.grants.push(grant.clone());
                snapshot.grants.push(grant);
            }
            Row::Hold(hold) => {
                rows.chunk.holds.push(hold.clone());
                snapshot.holds.push(hold);
            }
            Row::Usage(day) => {
                snapshot.usage.entry(day.app_id.clone()).or_default().add(&day);
                rows.chunk.usage.push(day);
            }
            Row::Wallet(_) | Row::Transaction(_) | Row::Answer(_) | Row::End(_) => {}
        }
    }
    let mut replay = Replay::new(&snapshot);
    refuse(replay.findings())?;
    while let Some((line, context)) = rows.next_line(id).await? {
        replay.line(&line, &context);
        refuse(replay.findings())?;
        rows.chunk.lines.push(line);
    }
    refuse(&replay.finish())
}

fn refuse(findings: &[Finding]) -> Result<(), ImportError> {
    findings.first().map_or(Ok(()), |finding| Err(ImportError::Lie(finding.clone())))
}

impl Row {
    /// Whether it says what a wallet has beside its history.
    fn describes(&self, wallet: i64) -> bool {
        matches!(self, Self::Grant(_) | Self::Hold(_) | Self::Usage(_)) && self.name().1 == wallet
    }
}

/// The rows of a file, handed out one by one, read and written in chunks.
struct Rows<'a, R> {
    connection: &'a mut PgConnection,
    daily_zone: &'a str,
    file: File<R>,
    /// Read, and not yet handed out.
    ahead: VecDeque<Row>,
    /// Of the transactions that are ahead.
    contexts: VecDeque<LineContext>,
    /// Handed out and proven, and not yet written.
    chunk: Chunk,
    progress: &'a mut dyn FnMut(u64, &Counts),
}

impl<R: BufRead> Rows<'_, R> {
    /// The next row, if it is one that is wanted.
    async fn next_if(&mut self, is_wanted: impl Fn(&Row) -> bool) -> Result<Option<Row>, ImportError> {
        if self.ahead.is_empty() {
            self.read_on().await?;
        }
        Ok(self.ahead.pop_front_if(|row| is_wanted(row)))
    }

    /// The next row, if it is a transaction of this wallet.
    async fn next_line(&mut self, wallet: i64) -> Result<Option<(LineRecord, LineContext)>, ImportError> {
        let is_wanted = |row: &Row| matches!(row, Row::Transaction(line) if line.wallet_id == wallet);
        let Some(Row::Transaction(line)) = self.next_if(is_wanted).await? else { return Ok(None) };
        Ok(self.contexts.pop_front().map(|context| (line, context)))
    }

    /// Writes what was handed out, and reads the next rows.
    async fn read_on(&mut self) -> Result<(), ImportError> {
        store::insert(self.connection, &std::mem::take(&mut self.chunk)).await?;
        while self.ahead.len() < CHUNK
            && let Some(row) = self.file.next()?
        {
            self.ahead.push_back(row);
        }
        self.contexts = self.find_contexts().await?;
        (self.progress)(self.file.wallets, &self.file.counts);
        Ok(())
    }

    /// A refund may give back a spend that is ahead, too, and not in the database.
    async fn find_contexts(&mut self) -> Result<VecDeque<LineContext>, ImportError> {
        let lines: Vec<&LineRecord> = self
            .ahead
            .iter()
            .filter_map(|row| if let Row::Transaction(line) = row { Some(line) } else { None })
            .collect();
        let mut contexts = store::list_contexts(self.connection, &lines, self.daily_zone).await?;
        for (context, refund) in contexts.iter_mut().zip(&lines) {
            let is_spend = |line: &&&LineRecord| {
                line.kind == "usage"
                    && line.wallet_id == refund.wallet_id
                    && Some(line.sequence) == refund.reference
            };
            if refund.reference.is_some() && context.refunded_spend.is_none() {
                context.refunded_spend = lines.iter().find(is_spend).and_then(|spend| spend.taken());
            }
        }
        Ok(contexts)
    }
}

/// What an export wrote, line by line.
struct File<R> {
    input: R,
    text: Vec<u8>,
    line: u64,
    digest: Context,
    counts: Counts,
    /// As the first line says.
    wallets: u64,
    /// The last line, once it was read.
    end: Option<End>,
}

impl<R: BufRead> File<R> {
    fn open(input: R) -> Result<Self, ImportError> {
        let mut file = Self {
            input,
            text: Vec::new(),
            line: 0,
            digest: Context::new(&SHA256),
            counts: Counts::default(),
            wallets: 0,
            end: None,
        };
        file.read_line()?;
        let header: Header = serde_json::from_slice(&file.text).map_err(|_| ImportError::NoExport)?;
        if header.format != FORMAT {
            return Err(ImportError::NoExport);
        }
        if header.version != VERSION {
            return Err(ImportError::UnknownVersion(header.version));
        }
        file.digest.update(&file.text);
        file.wallets = header.wallets;
        Ok(file)
    }

    fn read_line(&mut self) -> Result<(), ImportError> {
        self.text.clear();
        self.line = self.line.saturating_add(1);
        self.input.read_until(b'\n', &mut self.text)?;
        if self.text.ends_with(b"\n") { Ok(()) } else { Err(ImportError::Truncated(self.line)) }
    }

    /// The next row; none when all were there.
    fn next(&mut self) -> Result<Option<Row>, ImportError> {
        if self.end.is_some() {
            return Ok(None);
        }
        self.read_line()?;
        let row =
            serde_json::from_slice(&self.text).map_err(|cause| ImportError::Broken(self.line, cause))?;
        if let Row::End(end) = row {
            self.end = Some(end);
            return Ok(None);
        }
        self.digest.update(&self.text);
        self.counts.add(&row);
        Ok(Some(row))
    }

    /// What was read, if it is all that was written. Asked last: what a proof finds says more.
    fn finish(mut self) -> Result<Counts, ImportError> {
        let end = self.end.ok_or(ImportError::Truncated(self.line))?;
        if end.rows != self.counts {
            return Err(ImportError::Changed("its last line counts other rows than there are"));
        }
        if end.sha256 != self.digest.finish().as_ref() {
            return Err(ImportError::Changed("its last line has the digest of other lines"));
        }
        if !self.input.fill_buf()?.is_empty() {
            return Err(ImportError::Changed("something follows its last line"));
        }
        Ok(self.counts)
    }
}
