//! The proof: everything that the database holds of the ledger, lived again and compared, while it is written to.
//!
//! Wallet by wallet: a wallet's row, its holds and its lines are read in one snapshot, so that they agree. What is held
//! in memory is a few hundred wallets with their grants and holds; lines are read as they arrive.

pub(crate) mod replay;
pub(crate) mod store;

use super::model::{Counter, Slice};
use super::record::{GrantRecord, HoldRecord, UsageSums, WalletRecord};
use super::root::{self, Anchor, Root};
use futures_util::TryStreamExt as _;
use mana_platform::{Database, DbError};
use replay::Replay;
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};
use store::{AnswerLie, Orphan, PaymentLie};
use time::{Date, OffsetDateTime};

/// Wallets that are read together at most.
const CHUNK: i64 = 500;
/// Changes of all wallets that are read together; one wallet may have more by itself. Bounds the holds in memory.
const CHUNK_CHANGES: i64 = 100_000;
/// The ids of all wallets, as a range: after the first, up to the last.
pub(crate) const ALL: (i64, i64) = (i64::MIN, i64::MAX);
/// Findings that are kept; beyond that they are only counted.
const MAX_FINDINGS: usize = 1_000;

/// Where the books are not true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Internal id of the wallet; none if it is about all of them.
    pub wallet: Option<i64>,
    /// Whose wallet it is.
    pub user: Option<String>,
    /// The line that it is about, if it is about one.
    pub sequence: Option<i64>,
    /// Number of the invariant that does not hold.
    pub invariant: u8,
    /// What was seen.
    pub sentence: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wallet, user, sequence, invariant, sentence } = self;
        if let Some(wallet) = wallet {
            write!(f, "wallet {wallet}")?;
        }
        if let Some(user) = user {
            write!(f, " of user {user}")?;
        }
        if let Some(sequence) = sequence {
            write!(f, ", line {sequence}")?;
        }
        let colon = if wallet.is_some() { ": " } else { "" };
        write!(f, "{colon}{sentence} (invariant {invariant})")
    }
}

impl From<Orphan> for Finding {
    fn from(orphan: Orphan) -> Self {
        let sentence = format!("{} has rows of a wallet that is not there", orphan.relation);
        Self { wallet: Some(orphan.wallet_id), user: None, sequence: None, invariant: 3, sentence }
    }
}

impl From<AnswerLie> for Finding {
    fn from(lie: AnswerLie) -> Self {
        let AnswerLie { wallet_id, user_id, sequence } = lie;
        let sentence = "the answer that is remembered under its key says something else".to_owned();
        Self {
            wallet: Some(wallet_id),
            user: Some(user_id),
            sequence: Some(sequence),
            invariant: 17,
            sentence,
        }
    }
}

impl From<PaymentLie> for Finding {
    fn from(lie: PaymentLie) -> Self {
        let PaymentLie { wallet_id, user_id, sequence, invariant, sentence } = lie;
        let invariant = u8::try_from(invariant).unwrap_or_default();
        Self { wallet: wallet_id, user: user_id, sequence, invariant, sentence }
    }
}

/// What was read and found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Wallets read.
    pub wallets: u64,
    /// Lines read.
    pub lines: u64,
    /// Sum of all wallets read.
    pub balance: i128,
    /// What system accounts have by these wallets' lines. With the wallets they sum to zero.
    pub counters: BTreeMap<&'static str, i128>,
    /// The newest root.
    pub root: Option<Root>,
    /// The first findings.
    pub findings: Vec<Finding>,
    /// All findings, those included that are not kept.
    pub found: u64,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_true(&self) -> bool {
        self.found == 0
    }

    fn add(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            self.found = self.found.saturating_add(1);
            if self.findings.len() < MAX_FINDINGS {
                self.findings.push(finding);
            }
        }
    }

    /// With what another check found that this one did not.
    pub(super) fn join(&mut self, other: Self) {
        let known = other.findings.iter().filter(|finding| self.findings.contains(finding)).count();
        let unknown: Vec<Finding> =
            other.findings.into_iter().filter(|finding| !self.findings.contains(finding)).collect();
        let kept = u64::try_from(known.saturating_add(unknown.len())).unwrap_or(u64::MAX);
        self.add(unknown);
        self.found = self.found.saturating_add(other.found.saturating_sub(kept));
        self.wallets = self.wallets.saturating_add(other.wallets);
        self.lines = self.lines.saturating_add(other.lines);
    }

    /// What all accounts sum up to by what was read so far.
    fn sum(&self) -> i128 {
        self.counters.values().fold(self.balance, |sum, counter| sum.saturating_add(*counter))
    }

    fn about_all(&mut self, invariant: u8, sentence: String) {
        self.add(vec![Finding { wallet: None, user: None, sequence: None, invariant, sentence }]);
    }
}

/// Which books, and how.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// Only wallets that changed since then; all if absent.
    pub since: Option<OffsetDateTime>,
    /// Zone whose midnight starts a day of free mana (IANA).
    pub daily_zone: &'a str,
}

/// A wallet and what belongs to it, but for its lines.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) wallet: WalletRecord,
    pub(crate) grants: Vec<GrantRecord>,
    pub(crate) holds: Vec<HoldRecord>,
    pub(crate) usage: BTreeMap<String, UsageSums>,
    pub(crate) anchor: Option<Anchor>,
}

/// What a line must be seen with.
#[derive(Debug)]
pub(crate) struct LineContext {
    /// The policy's day a minute before the line, and a minute after: clocks of servers and of the database differ.
    pub(crate) earliest_day: Date,
    pub(crate) latest_day: Date,
    /// What the spend took that it gives back, if it does.
    pub(crate) refunded_spend: Option<Vec<Slice>>,
}

/// Checks the books of a live database. `progress` hears of what was read so far.
///
/// # Errors
/// When the database fails. A lie is no error; it is in the report.
pub async fn verify(
    database: &Database,
    scope: Scope<'_>,
    mut progress: impl FnMut(&Report),
) -> Result<Report, DbError> {
    let mut report = Report::default();
    let mut last = Some(i64::MIN);
    while let Some(after) = last {
        let mut transaction = database.begin_snapshot().await?;
        last = verify_chunk(&mut transaction, scope, after, &mut report).await?;
        progress(&report);
    }
    let mut transaction = database.begin_snapshot().await?;
    finish(&mut transaction, scope, &mut report).await?;
    Ok(report)
}

/// Checks a part of all wallets, with everything that a whole check looks at: those after an id, for as long as `limit` and the chunk that is
/// being read then, and at their end the roots. Says up to which wallet nothing was found; none if it came to the end.
pub(super) async fn verify_part(
    database: &Database,
    daily_zone: &str,
    after: i64,
    limit: Duration,
) -> Result<(Report, Option<i64>), DbError> {
    let begun = Instant::now();
    let scope = Scope { since: None, daily_zone };
    let (mut report, mut read, mut is_true_until) = (Report::default(), Some(after), after);
    while let Some(from) = read.filter(|from| *from == after || begun.elapsed() < limit) {
        let mut transaction = database.begin_snapshot().await?;
        read = verify_chunk(&mut transaction, scope, from, &mut report).await?;
        // What is untrue already makes the sum wrong, too.
        if report.is_true() {
            verify_sums(&mut report);
        }
        verify_around(&mut transaction, scope, (from, read.unwrap_or(i64::MAX)), &mut report).await?;
        if read.is_none() {
            verify_roots(&mut transaction, &mut report).await?;
        }
        is_true_until = read.filter(|_| report.is_true()).unwrap_or(is_true_until);
    }
    let reached = if report.is_true() { read } else { Some(is_true_until) };
    Ok((report, reached))
}

/// How many wallets there are to check.
///
/// # Errors
/// When the database fails.
pub async fn count_wallets(database: &Database, since: Option<OffsetDateTime>) -> Result<i64, DbError> {
    store::count_wallets(&mut *database.begin().await?, since).await
}

/// Wallets after an id with all that belongs to them but their lines: as many as fit into memory, and one at least.
pub(crate) async fn load_chunk(
    connection: &mut PgConnection,
    after: i64,
    since: Option<OffsetDateTime>,
) -> Result<Vec<Snapshot>, DbError> {
    let mut wallets = store::list_wallets(connection, after, since, CHUNK).await?;
    let mut changes = 0_i64;
    let fitting = wallets.iter().take_while(|wallet| {
        let is_first = changes == 0;
        changes = changes.saturating_add(wallet.version.max(1));
        is_first || changes <= CHUNK_CHANGES
    });
    let fitting = fitting.count();
    wallets.truncate(fitting);
    let ids: Vec<i64> = wallets.iter().map(|wallet| wallet.wallet_id).collect();
    let mut grants: HashMap<i64, Vec<GrantRecord>> = HashMap::new();
    for grant in store::list_grants(connection, &ids).await? {
        grants.entry(grant.wallet_id).or_default().push(grant);
    }
    let mut holds: HashMap<i64, Vec<HoldRecord>> = HashMap::new();
    for hold in store::list_holds(connection, &ids).await? {
        holds.entry(hold.wallet_id).or_default().push(hold);
    }
    let mut usage = store::sum_usage(connection, &ids).await?;
    let anchors = root::store::list_anchors(connection, &ids).await?.into_iter();
    let mut anchors: HashMap<i64, Anchor> = anchors.map(|anchor| (anchor.wallet_id, anchor)).collect();
    let snapshots = wallets.into_iter().map(|wallet| Snapshot {
        anchor: anchors.remove(&wallet.wallet_id),
        grants: grants.remove(&wallet.wallet_id).unwrap_or_default(),
        holds: holds.remove(&wallet.wallet_id).unwrap_or_default(),
        usage: usage.remove(&wallet.wallet_id).unwrap_or_default(),
        wallet,
    });
    Ok(snapshots.collect())
}

/// Says after which wallet to go on; none when that was all.
async fn verify_chunk(
    connection: &mut PgConnection,
    scope: Scope<'_>,
    after: i64,
    report: &mut Report,
) -> Result<Option<i64>, DbError> {
    let snapshots = load_chunk(connection, after, scope.since).await?;
    let ids: Vec<i64> = snapshots.iter().map(|snapshot| snapshot.wallet.wallet_id).collect();
    let mut lines = store::stream_lines(connection, &ids, scope.daily_zone);
    let mut next = lines.try_next().await?;
    for snapshot in &snapshots {
        let mut replay = Replay::new(snapshot);
        while let Some((line, context)) =
            next.take_if(|(line, _)| line.wallet_id == snapshot.wallet.wallet_id)
        {
            replay.line(&line, &context);
            report.lines = report.lines.saturating_add(1);
            if let Some(counter) = Counter::from_database(&line.counter) {
                let sum = report.counters.entry(counter.as_str()).or_default();
                *sum = sum.saturating_sub(line.amount.into());
            }
            next = lines.try_next().await?;
        }
        report.add(replay.finish());
        report.wallets = report.wallets.saturating_add(1);
        for part in [snapshot.wallet.free, snapshot.wallet.paid, snapshot.wallet.held] {
            report.balance = report.balance.saturating_add(part.into());
        }
    }
    drop(lines);
    let answers = store::list_answer_lies(connection, &ids).await?;
    report.add(answers.into_iter().map(Finding::from).collect());
    Ok(ids.last().copied())
}

/// What is about no single wallet.
async fn finish(connection: &mut PgConnection, scope: Scope<'_>, report: &mut Report) -> Result<(), DbError> {
    verify_sums(report);
    if scope.since.is_some() {
        let lies = store::list_payment_lies(connection, scope.since, ALL).await?;
        report.add(lies.into_iter().map(Finding::from).collect());
        report.root = root::store::find_newest(connection).await?;
        return Ok(());
    }
    verify_around(connection, scope, ALL, report).await?;
    verify_roots(connection, report).await
}

/// What stands beside wallets whose ids are in a range.
async fn verify_around(
    connection: &mut PgConnection,
    scope: Scope<'_>,
    range: (i64, i64),
    report: &mut Report,
) -> Result<(), DbError> {
    let lies = store::list_payment_lies(connection, scope.since, range).await?;
    report.add(lies.into_iter().map(Finding::from).collect());
    let orphans = store::list_orphans(connection, range).await?;
    report.add(orphans.into_iter().map(Finding::from).collect());
    Ok(())
}

fn verify_sums(report: &mut Report) {
    let all = report.sum();
    if all != 0 {
        report.about_all(2, format!("all accounts sum to {all}"));
    }
}

async fn verify_roots(connection: &mut PgConnection, report: &mut Report) -> Result<(), DbError> {
    let (newest, wrong) = root::examine(connection).await?;
    report.root = newest;
    for sentence in wrong {
        report.about_all(5, sentence);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
