//! `payments`: whether the purchases and Stripe agree, and what was paid.

use super::ledger::read_time;
use super::{CommandError, print};
use crate::app;
use crate::source::Source;
use clap::Subcommand;
use mana_credits::purchase::{DailyStatement, Report, StatementLine, find_statement, reconcile};
use mana_kernel::{Clock, Rng};
use mana_platform::{Settings, SystemClock, SystemRng};
use std::sync::Arc;
use time::format_description::well_known::Iso8601;
use time::{Date, Duration, OffsetDateTime};

#[derive(Debug, Subcommand)]
pub(super) enum PaymentsCommand {
    /// Compare the purchases with Stripe, both ways; servers may go on meanwhile. Fails if they don't agree
    Reconcile {
        /// From when on, as 2026-01-31T12:00:00Z; 30 days ago if absent. What is still open is compared whatever its age
        #[arg(long, value_parser = read_time)]
        since: Option<OffsetDateTime>,
        /// Put right what differs: credit what was paid, note what went back
        #[arg(long)]
        fix: bool,
    },
    /// Print what had been paid, given back and credited when a day began, currency by currency
    Statement {
        /// The day (UTC), as 2026-01-31; the last one if absent
        #[arg(long, value_parser = read_day)]
        day: Option<Date>,
    },
}

fn read_day(text: &str) -> Result<Date, &'static str> {
    Date::parse(text, &Iso8601::DATE).map_err(|_| "must be a day as 2026-01-31")
}

/// Does what a command says.
pub(super) async fn run(
    command: &PaymentsCommand,
    settings: &Settings,
    source: Source,
    json: bool,
) -> Result<(), CommandError> {
    let (since, fix) = match command {
        PaymentsCommand::Reconcile { since, fix } => (since, fix),
        PaymentsCommand::Statement { day } => {
            let named = day.map_or_else(|| "yet".to_owned(), |day| format!("of {day}"));
            let found = find_statement(&source.database(settings), *day).await?;
            return print_statement(&found.ok_or(CommandError::NoStatement(named))?, json);
        }
    };
    let (clock, rng): (Arc<dyn Clock>, Arc<dyn Rng>) = (Arc::new(SystemClock), Arc::new(SystemRng));
    let books = Arc::new(app::books(settings, &source.database(settings), &clock, &rng, None));
    let payments = app::payments(settings, &books)?;
    let since = since.unwrap_or_else(|| SystemClock.now().saturating_sub(Duration::days(30)));
    let report = reconcile(&payments, since, *fix).await?;
    show(&report, json)?;
    if report.agrees() { Ok(()) } else { Err(CommandError::Unreconciled(report.open)) }
}

fn show(report: &Report, json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(print::line(&serde_json::to_string_pretty(report)?)?);
    }
    for finding in &report.findings {
        let mark = if finding.is_fixed { "FIXED" } else { "OPEN " };
        let order = finding.order.as_deref().unwrap_or("-");
        let session = finding.session.as_deref().unwrap_or("-");
        print::line(&format!("{mark}  {order}  {session}  {}", finding.sentence))?;
    }
    print_lines(&report.statement)?;
    let Report { orders, credited, lost_events, .. } = report;
    print::line(&format!(
        "{orders} orders compared, {credited} credited, {lost_events} deliveries never came."
    ))?;
    if report.agrees() {
        print::line("The purchases and Stripe agree.")?;
    }
    Ok(())
}

fn print_statement(statement: &DailyStatement, json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(print::line(&serde_json::to_string_pretty(statement)?)?);
    }
    print::line(&format!("{} (UTC), everything until its first comparison:", statement.day))?;
    print_lines(&statement.lines)
}

fn print_lines(lines: &[StatementLine]) -> Result<(), CommandError> {
    for line in lines {
        let mode = if line.livemode { "" } else { " (test)" };
        let verdict = if line.is_balanced() { "balanced" } else { "NOT BALANCED" };
        print::line(&format!(
            "{}{mode}: {} orders, {} cents paid - {} refunded - {} lost; {} mana given - {} taken back - {} owed: {verdict}",
            line.currency.to_uppercase(),
            line.orders,
            line.captured_cents,
            line.refunded_cents,
            line.lost_cents,
            line.granted_mana,
            line.taken_mana,
            line.owed_mana,
        ))?;
    }
    Ok(())
}
