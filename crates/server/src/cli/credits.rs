//! `credits`: mana given and taken by hand, straight through the database, by the ledger's own rules.

use super::user::{operator, reason};
use super::{CommandError, print};
use crate::app;
use crate::source::Source;
use clap::{Args, Subcommand};
use mana_auth::admin::model::Reason;
use mana_credits::ledger::adjust::{Adjusted, Direction, adjust_as_operator};
use mana_kernel::mana::InvalidAmount;
use mana_kernel::text::InvalidText;
use mana_kernel::{Amount, Clock, Paragraph, Rng};
use mana_platform::{Settings, SystemClock, SystemRng};
use serde_json::Value;
use std::sync::Arc;

#[derive(Debug, Subcommand)]
pub(super) enum CreditsCommand {
    /// Give a user mana: free, and without an end
    Grant(AdjustArgs),
    /// Take mana from a user, never more than can be spent
    Take(AdjustArgs),
    /// Forgive a user what is owed because a payment was taken back: given, and paid back with it at once
    Forgive(AdjustArgs),
}

#[derive(Debug, Args)]
pub(super) struct AdjustArgs {
    /// Id or address
    user: String,
    /// Mana
    #[arg(value_parser = amount)]
    amount: Amount,
    /// Why: administrators find it in the account's security events
    #[arg(long, value_parser = reason)]
    reason: Reason,
    /// What the owner reads in the list of transactions; `Adjustment`, or `Debt forgiven`, without it
    #[arg(long, value_parser = description)]
    description: Option<Paragraph<1, 1000>>,
}

/// Does what a command says.
pub(super) async fn run(
    command: &CreditsCommand,
    settings: &Settings,
    source: Source,
    json: bool,
) -> Result<(), CommandError> {
    let (args, direction, done) = match command {
        CreditsCommand::Grant(args) => (args, Direction::Grant, "Given"),
        CreditsCommand::Take(args) => (args, Direction::Take, "Taken"),
        CreditsCommand::Forgive(args) => (args, Direction::Forgive, "Forgiven"),
    };
    let AdjustArgs { user, amount, reason, description } = args;
    let database = source.database(settings);
    let id = operator(&database).resolve(user).await?;
    let (clock, rng): (Arc<dyn Clock>, Arc<dyn Rng>) = (Arc::new(SystemClock), Arc::new(SystemRng));
    let books = app::books(settings, &database, &clock, &rng, None);
    let (reason, description) = (reason.as_str().to_owned(), description.clone());
    let adjusted = adjust_as_operator(&books, direction, id.clone(), *amount, reason, description).await?;
    match adjusted {
        Adjusted::Posted(posted) if json => Ok(print::line(&serde_json::to_string_pretty(&posted)?)?),
        Adjusted::Posted(posted) => {
            let number = |pointer| posted.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
            let (paid, free) = (number("/newBalance/balance"), number("/newBalance/freeCreditsRemaining"));
            let amount = amount.get();
            Ok(print::line(&format!("{done} {amount} mana: {id} has {paid} paid and {free} free mana now."))?)
        }
        Adjusted::Refused(problem) => {
            let detail = problem.get("detail").and_then(Value::as_str).unwrap_or_default();
            Err(CommandError::Refused(detail.to_owned()))
        }
    }
}

fn amount(text: &str) -> Result<Amount, InvalidAmount> {
    text.parse::<i64>().map_err(|_| InvalidAmount).and_then(Amount::try_from)
}

fn description(text: &str) -> Result<Paragraph<1, 1000>, InvalidText> {
    Paragraph::try_from(text.to_owned())
}
