//! `users find` and the like, `admin promote` and `admin demote`: what administrators do to accounts, straight through the database.

use super::{CommandError, print, written};
use crate::app;
use crate::source::Source;
use clap::{Args, Subcommand};
use mana_auth::admin::model::{AdminUser, AdminUserDetails, Reason};
use mana_auth::admin::{Change, Operator};
use mana_kernel::text::InvalidText;
use mana_kernel::{Clock, SessionId};
use mana_platform::{Settings, SystemClock, SystemRng};
use serde_json::json;
use std::sync::Arc;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// List the accounts whose address begins so
    Find {
        /// The beginning; all accounts without it
        #[arg(default_value = "")]
        email: String,
        /// Accounts at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// Show an account: how it is protected, used and funded
    Show {
        /// Id or address
        user: String,
    },
    /// Shut an account and end its sessions
    Disable(ActArgs),
    /// Open an account again
    Enable(ActArgs),
    /// End a user's sessions
    EndSessions {
        #[command(flatten)]
        args: ActArgs,
        /// Only this one
        #[arg(long)]
        session: Option<SessionId>,
    },
    /// Take away the second factor of somebody who has lost it, and end their sessions
    ResetFactors(ActArgs),
}

/// Whose account, and why.
#[derive(Debug, Args)]
pub(super) struct ActArgs {
    /// Id or address
    pub(super) user: String,
    /// Why: administrators find it in the account's security events
    #[arg(long, value_parser = reason)]
    pub(super) reason: Reason,
}

/// Does what a command says.
pub(super) async fn run(
    command: &UserCommand,
    settings: &Settings,
    source: Source,
    json: bool,
) -> Result<(), CommandError> {
    let act = match command {
        UserCommand::Disable(args) => (args, Change::Disable),
        UserCommand::Enable(args) => (args, Change::Enable),
        UserCommand::ResetFactors(args) => (args, Change::ResetFactors),
        UserCommand::Find { email, limit } => {
            let database = source.database(settings);
            return list(&operator(&database).find(email, *limit).await?, json);
        }
        UserCommand::Show { user } => {
            let database = source.database(settings);
            let operator = operator(&database);
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let wallets = app::shown_wallets(settings, &clock);
            let id = operator.resolve(user).await?;
            return show(&operator.show(&wallets, &id).await?, json);
        }
        UserCommand::EndSessions { args, session } => {
            let database = source.database(settings);
            let operator = operator(&database);
            let id = operator.resolve(&args.user).await?;
            let ended = operator.end_sessions(&id, session.as_ref(), Some(args.reason.clone())).await?;
            let text = if json {
                json!({ "user": id, "ended": ended }).to_string()
            } else {
                format!("{ended} sessions of {id} ended; running servers refuse them within a second.")
            };
            return Ok(print::line(&text)?);
        }
    };
    change(act.0, act.1, settings, source, json).await
}

/// Changes an account, and prints what it is then.
pub(super) async fn change(
    ActArgs { user, reason }: &ActArgs,
    change: Change,
    settings: &Settings,
    source: Source,
    json: bool,
) -> Result<(), CommandError> {
    let database = source.database(settings);
    let operator = operator(&database);
    let id = operator.resolve(user).await?;
    let changed = operator.change(&id, change, Some(reason.clone())).await?;
    let text = if json { serde_json::to_string_pretty(&changed)? } else { told(&changed) };
    Ok(print::line(&text)?)
}

pub(super) fn operator(database: &mana_platform::Database) -> Operator<'_> {
    Operator { database, clock: &SystemClock, rng: &SystemRng }
}

fn list(users: &[AdminUser], json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(print::line(&serde_json::to_string_pretty(users)?)?);
    }
    if users.is_empty() {
        return Ok(print::line("There is no such account.")?);
    }
    for user in users {
        print::line(&told(user))?;
    }
    Ok(())
}

fn show(details: &AdminUserDetails, json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(print::line(&serde_json::to_string_pretty(details)?)?);
    }
    print::line(&told(&details.user))?;
    let factors = &details.factors;
    let set_up: Vec<_> =
        [(factors.password, "password"), (factors.totp, "authenticator app"), (factors.passkey, "passkey")]
            .into_iter()
            .filter_map(|(is_set_up, name)| is_set_up.then_some(name))
            .collect();
    let set_up = if set_up.is_empty() { "nothing".to_owned() } else { set_up.join(", ") };
    print::line(&format!("signs in by  {set_up}; {} recovery codes left", factors.recovery_codes_left))?;
    print::line(&format!("sessions     {} live", details.live_sessions))?;
    let wallet = details.wallet.map_or("none".to_owned(), |wallet| {
        format!(
            "{} paid and {} free mana, {} set aside; {} earned, {} spent",
            wallet.balance,
            wallet.free_credits_remaining,
            wallet.held_credits,
            wallet.total_earned,
            wallet.total_spent
        )
    });
    Ok(print::line(&format!("wallet       {wallet}"))?)
}

/// `<id>  ada@example.com  admin  since 2026-01-31T12:00:00Z`
fn told(user: &AdminUser) -> String {
    let AdminUser { user, disabled_at } = user;
    let state = disabled_at.map(|since| format!("  DISABLED {}", written(since))).unwrap_or_default();
    let since = written(user.created_at);
    format!("{}  {}  {}  since {since}{state}", user.id, user.email, user.role.as_str())
}

pub(super) fn reason(text: &str) -> Result<Reason, InvalidText> {
    Reason::try_from(text.to_owned())
}
