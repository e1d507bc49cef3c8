//! `ledger`: whether the books are true, and their way to another installation.

use super::progress::Progress;
use super::{Cli, CommandError, print};
use crate::source::Source;
use clap::Subcommand;
use mana_credits::ledger::moving::{self, Counts};
use mana_credits::ledger::verify::{self, Report, Scope};
use mana_kernel::Timestamp;
use mana_kernel::timestamp::InvalidTimestamp;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Debug, Subcommand)]
pub(super) enum LedgerCommand {
    /// Check that the books are true; servers may go on meanwhile
    Verify {
        /// Only wallets that changed since then, as 2026-01-31T12:00:00Z. An edit that did not touch the wallet's row stays unseen
        #[arg(long, value_parser = read_time)]
        since: Option<OffsetDateTime>,
    },
    /// Write the books as they are now, as JSON lines; servers may go on meanwhile
    Export {
        /// A new file, readable by nobody else; without it, standard output
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Read an export into a ledger without wallets; a file with a lie in it changes nothing
    Import {
        /// What `export` wrote; - is standard input
        file: PathBuf,
    },
}

/// Does what a command says.
pub(super) async fn run(command: &LedgerCommand, cli: &Cli, source: Source) -> Result<(), CommandError> {
    let database = source.database(&cli.settings);
    match command {
        LedgerCommand::Verify { since } => {
            let scope = Scope { since: *since, daily_zone: &cli.settings.credits_daily_zone };
            let total = verify::count_wallets(&database, *since).await?;
            let mut progress = Progress::new(u64::try_from(total).unwrap_or(0));
            let report = verify::verify(&database, scope, |report| {
                let Report { wallets, lines, found, .. } = report;
                progress.show(*wallets, &format!("{wallets} wallets, {lines} lines, {found} lies"));
            })
            .await?;
            progress.clear();
            verified(&report, *since, &progress, cli.json)
        }
        LedgerCommand::Export { output: Some(path) } => {
            let failed = |cause| CommandError::File { path: path.clone(), cause };
            let file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
            let mut progress = Progress::new(0);
            let counts = moving::export(&database, BufWriter::new(&file), shown(&mut progress)).await?;
            file.sync_all().map_err(failed)?;
            progress.clear();
            moved(&counts, "exported", cli.json)
        }
        LedgerCommand::Export { output: None } => {
            let mut progress = Progress::new(0);
            let output = BufWriter::new(io::stdout().lock());
            moving::export(&database, output, shown(&mut progress)).await?;
            progress.clear();
            Ok(())
        }
        LedgerCommand::Import { file } => {
            let mut progress = Progress::new(0);
            let zone = &cli.settings.credits_daily_zone;
            let counts = moving::import(&database, zone, open(file)?, shown(&mut progress)).await?;
            progress.clear();
            moved(&counts, "imported, and true", cli.json)
        }
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, CommandError> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).map_err(|cause| CommandError::File { path: path.to_owned(), cause })?;
    Ok(Box::new(BufReader::new(file)))
}

/// How far books are that move.
fn shown(progress: &mut Progress) -> impl FnMut(u64, &Counts) {
    |total, counts| {
        let Counts { wallets, transactions, answers, .. } = counts;
        progress.of(total);
        progress.show(*wallets, &format!("{wallets} wallets, {transactions} lines, {answers} answers"));
    }
}

fn moved(counts: &Counts, how: &str, json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(print::line(&serde_json::to_string_pretty(counts)?)?);
    }
    let Counts { wallets, transactions, answers, .. } = counts;
    Ok(print::line(&format!("{wallets} wallets with {transactions} lines and {answers} answers {how}."))?)
}

/// For programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed<'a> {
    is_true: bool,
    since: Option<String>,
    millis: u64,
    lines_per_second: u64,
    report: &'a Report,
}

/// Fails if the books are not true.
fn verified(
    report: &Report,
    since: Option<OffsetDateTime>,
    progress: &Progress,
    json: bool,
) -> Result<(), CommandError> {
    let millis = u64::try_from(progress.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = report.lines.saturating_mul(1000).checked_div(millis).unwrap_or(0);
    let since = since.map(|since| since.format(&Rfc3339).unwrap_or_default());
    if json {
        let is_true = report.is_true();
        let printed = Printed { is_true, since, millis, lines_per_second: rate, report };
        print::line(&serde_json::to_string_pretty(&printed)?)?;
    } else {
        for finding in &report.findings {
            print::line(&format!("LIE  {finding}"))?;
        }
        let scope = since.map(|since| format!(" that changed since {since}")).unwrap_or_default();
        let Report { wallets, lines, .. } = report;
        let (seconds, rest) = (millis / 1000, millis % 1000);
        if let Some(root) = &report.root {
            let at = root.created_at.format(&Rfc3339).unwrap_or_default();
            print::line(&format!(
                "Root {} of {at} over {} wallets: {}",
                root.id,
                root.wallets,
                root.hash_text()
            ))?;
        }
        print::line(&format!(
            "{wallets} wallets{scope} with {lines} lines checked in {seconds}.{rest:03} s, {rate} lines a second."
        ))?;
    }
    if report.is_true() {
        if !json {
            print::line("The books are true.")?;
        }
        return Ok(());
    }
    Err(CommandError::Untrue(report.found))
}

pub(super) fn read_time(text: &str) -> Result<OffsetDateTime, InvalidTimestamp> {
    text.parse().map(Timestamp::get)
}
