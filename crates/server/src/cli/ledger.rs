//! `ledger`: whether the books are true.

use super::progress::Progress;
use super::{Cli, CommandError, print};
use crate::source::Source;
use clap::Subcommand;
use mana_credits::ledger::verify::{self, Report, Scope};
use serde::Serialize;
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
    }
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

fn read_time(text: &str) -> Result<OffsetDateTime, &'static str> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "must be a time as 2026-01-31T12:00:00Z")
}
