//! `users find` and the like, `admin promote` and `admin demote`: what administrators do to accounts, straight through the database.

use super::{CommandError, print, written};
use crate::app;
use crate::ports::CloseWallet;
use crate::source::Source;
use clap::{Args, Subcommand, ValueEnum};
use mana_auth::account::Eraser;
use mana_auth::account::model::Role;
use mana_auth::admin::model::{AdminUser, AdminUserDetails, Reason};
use mana_auth::admin::{AccountState, Change, Operator};
use mana_auth::security_event::AdminSecurityEvent;
use mana_auth::session::list::DeviceResponse;
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
        /// Of this role only
        #[arg(long, value_enum)]
        role: Option<RoleArg>,
        /// In this state only
        #[arg(long, value_enum)]
        state: Option<StateArg>,
        /// Accounts at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// Show an account: how it is protected, used and funded
    Show {
        /// Id or address
        user: String,
    },
    /// List where a user is signed in
    Sessions {
        /// Id or address
        user: String,
    },
    /// List what happened to an account, or to all and the installation; the newest first
    Events {
        /// Id or address; all without it
        user: Option<String>,
        /// Of one type, as `sign_in_failed`; without a user, among the last ten thousand
        #[arg(long = "type")]
        kind: Option<String>,
        /// Events at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
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
    /// Erase an account and close its wallet, for good; the books keep its id
    Delete(ActArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum RoleArg {
    User,
    Admin,
    Service,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::User => Self::User,
            RoleArg::Admin => Self::Admin,
            RoleArg::Service => Self::Service,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum StateArg {
    Active,
    Disabled,
    Deleted,
}

impl From<StateArg> for AccountState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Active => Self::Active,
            StateArg::Disabled => Self::Disabled,
            StateArg::Deleted => Self::Deleted,
        }
    }
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
        UserCommand::Find { email, role, state, limit } => {
            let database = source.database(settings);
            let wanted = (role.map(Role::from), state.map(AccountState::from));
            return list(&operator(&database).find(email, wanted, *limit).await?, json);
        }
        UserCommand::Sessions { user } => {
            let database = source.database(settings);
            let operator = operator(&database);
            let id = operator.resolve(user).await?;
            return list_sessions(&operator.sessions(&id).await?, json);
        }
        UserCommand::Events { user, kind, limit } => {
            let database = source.database(settings);
            let operator = operator(&database);
            let id = match user {
                Some(user) => Some(operator.resolve(user).await?),
                None => None,
            };
            return list_events(&operator.events(id.as_ref(), kind.as_deref(), *limit).await?, json);
        }
        UserCommand::Delete(ActArgs { user, reason }) => {
            let database = source.database(settings);
            let operator = operator(&database);
            let wallets = CloseWallet { clock: Arc::new(SystemClock) };
            let (secrets, name) = (&source.root_secrets, settings.display_name());
            let eraser = Eraser::elsewhere((&SystemClock, &SystemRng), secrets, name, &wallets);
            let id = operator.resolve(user).await?;
            let user = operator.delete(&eraser, &id, Some(reason.clone())).await?;
            let done = format!(
                "The account {id} is deleted: what it held is erased, its wallet is closed, and the books keep its id."
            );
            return tell(&user, &done, json);
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

/// Changes an account, and says what was done.
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
    let user = operator.change(&id, change, Some(reason.clone())).await?;
    let who = format!("{} ({id})", user.user.email);
    let done = match change {
        Change::Promote => format!("{who} is an administrator. Sessions from before that have ended."),
        Change::Demote => {
            format!("{who} is a user, and no administrator. Sessions from before that have ended.")
        }
        Change::Disable => format!("{who} is disabled: all sessions have ended, and nobody can sign in."),
        Change::Enable => format!("{who} is enabled: the owner can sign in again."),
        Change::ResetFactors => {
            format!("The second factor of {who} is taken away, and all sessions have ended.")
        }
    };
    tell(&user, &done, json)
}

/// Prints what was done; for programs, what the account is then.
fn tell(user: &AdminUser, done: &str, json: bool) -> Result<(), CommandError> {
    let text = if json { serde_json::to_string_pretty(user)? } else { done.to_owned() };
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
    let rows = users.iter().map(|user| {
        let AdminUser { user: account, .. } = user;
        let role = account.role.as_str().to_owned();
        [account.id.to_string(), account.email.clone(), role, written(account.created_at), state(user)]
    });
    Ok(print::table(["ID", "ADDRESS", "ROLE", "SINCE", "STATE"], &rows.collect::<Vec<_>>())?)
}

fn list_sessions(sessions: &[DeviceResponse], json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(print::line(&serde_json::to_string_pretty(sessions)?)?);
    }
    if sessions.is_empty() {
        return Ok(print::line("This user is signed in nowhere.")?);
    }
    let rows = sessions.iter().map(|session| {
        let named = session.device_name.as_deref().or(session.browser).unwrap_or("unknown device");
        let address = session.ip_address.as_deref().unwrap_or("-");
        let (since, last) = (written(session.created_at), written(session.last_activity_at));
        [session.id.to_string(), address.to_owned(), since, last, named.to_owned()]
    });
    let headings = ["ID", "ADDRESS", "SINCE", "LAST USED", "DEVICE"];
    Ok(print::table(headings, &rows.collect::<Vec<_>>())?)
}

fn list_events(events: &[AdminSecurityEvent], json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(print::line(&serde_json::to_string_pretty(events)?)?);
    }
    if events.is_empty() {
        return Ok(print::line("There is no such event.")?);
    }
    let rows = events.iter().map(|event| {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let actor = event.actor.as_ref().map_or("-".to_owned(), |actor| {
            let id = event.actor_id.as_deref().map_or_else(String::new, |id| format!(" {id}"));
            format!("{actor}{id}: {}", or_dash(&event.reason))
        });
        [
            written(event.created_at),
            event.r#type.clone(),
            or_dash(&event.user_id),
            or_dash(&event.ip_address),
            or_dash(&event.detail),
            actor,
        ]
    });
    let headings = ["AT", "EVENT", "ACCOUNT", "ADDRESS", "DETAIL", "BY"];
    Ok(print::table(headings, &rows.collect::<Vec<_>>())?)
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
    let AdminUser { user: account, .. } = user;
    let (since, state) = (written(account.created_at), state(user));
    format!("{}  {}  {}  since {since}  {state}", account.id, account.email, account.role.as_str())
}

fn state(user: &AdminUser) -> String {
    match (user.deleted_at, user.disabled_at) {
        (Some(since), _) => format!("DELETED {}", written(since)),
        (None, Some(since)) => format!("DISABLED {}", written(since)),
        (None, None) => "active".to_owned(),
    }
}

pub(super) fn reason(text: &str) -> Result<Reason, InvalidText> {
    Reason::try_from(text.to_owned())
}
