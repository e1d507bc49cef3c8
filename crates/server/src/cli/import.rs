//! `import`: from other services.

use super::progress::Progress;
use super::{Cli, CommandError, print};
use crate::legacy::{self, Options, Refused, Report, Step};
use crate::source::Source;
use clap::Subcommand;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use std::io;

#[derive(Debug, Subcommand)]
pub(super) enum ImportCommand {
    /// Bring accounts, wallets and orders from the database of the TypeScript service; tries it and keeps nothing, unless told to.
    /// Started again, it goes on where it was cut off. Servers may go on meanwhile; the older service must not
    Legacy {
        /// The older database, as the owner of its tables: <postgres://user:password@host:5432/database>
        #[arg(long, env = "LEGACY_DATABASE_URL", hide_env_values = true)]
        from: Option<SecretString>,
        /// Keep what was brought
        #[arg(long)]
        apply: bool,
        /// Take administrators and programs too; without it, they are refused
        #[arg(long)]
        keep_roles: bool,
        /// Orders were paid with pretended money
        #[arg(long)]
        test_payments: bool,
        /// `BETTER_AUTH_SECRET` of the older service, which opens second factors: give it by the variable
        #[arg(long, env = "LEGACY_AUTH_SECRET", hide_env_values = true)]
        auth_secret: Option<SecretString>,
    },
}

/// Does what a command says.
pub(super) async fn run(command: &ImportCommand, cli: &Cli, source: Source) -> Result<(), CommandError> {
    let ImportCommand::Legacy { from, apply, keep_roles, test_payments, auth_secret } = command;
    let given = from.as_ref().filter(|from| !from.expose_secret().is_empty());
    let from = given.ok_or(CommandError::NoLegacyUrl)?;
    let database = source.database(&cli.settings);
    let options = Options {
        from,
        auth_secret: auth_secret.as_ref(),
        applies: *apply,
        keeps_roles: *keep_roles,
        livemode: !test_payments,
    };
    let mut progress = Progress::new(0);
    let mut printed = Ok(());
    let json = cli.json;
    let mut tell = |step: Step<'_>| match step {
        Step::Refused(refused) => {
            progress.clear();
            // What can't be printed is counted all the same.
            printed = std::mem::replace(&mut printed, Ok(())).and_then(|()| told(refused, "refused", json));
        }
        Step::Noted(noted) => {
            progress.clear();
            printed = std::mem::replace(&mut printed, Ok(())).and_then(|()| told(noted, "noted", json));
        }
        Step::Done { users, of, lines } => {
            progress.of(of);
            progress.show(users, &format!("{users} users, {lines} lines"));
        }
        Step::Proven { wallets, of } => {
            progress.of(of);
            progress.show(wallets, &format!("{wallets} wallets proven"));
        }
    };
    let report = legacy::run((&database, &source.root_secrets), &cli.settings, &options, &mut tell).await?;
    progress.clear();
    printed?;
    finished(&report, json)
}

fn told(thing: &Refused, how: &str, json: bool) -> io::Result<()> {
    let Refused { table, id, reason } = thing;
    let id: String = id.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let text = if json {
        json!({ how: { "table": table, "id": id, "reason": reason } }).to_string()
    } else {
        format!("{how}: {table} {id}: {reason}")
    };
    print::line(&text)
}

/// Fails if anything is not here as it was.
fn finished(report: &Report, json: bool) -> Result<(), CommandError> {
    if json {
        print::line(&json!({ "report": report }).to_string())?;
    } else {
        for line in report.lines() {
            print::line(&line)?;
        }
        let refused = format!("{} refused, {} told of", report.refused, report.noted);
        print::line(&if report.is_dry_run {
            format!("{refused}. This was a dry run: nothing was kept. --apply keeps it.")
        } else {
            format!("{refused}.")
        })?;
    }
    if report.is_whole() {
        return Ok(());
    }
    let failed = report.checks.iter().filter(|check| !check.ok).count();
    Err(CommandError::NotWhole { refused: report.refused, failed })
}
