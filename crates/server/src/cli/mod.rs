//! The command line. Commands print for people, and JSON with `--json`.
#![expect(clippy::print_stderr, reason = "a command line says on standard error what went wrong")]

mod credits;
mod health;
mod import;
mod keys;
mod ledger;
pub(crate) mod migrate;
mod packages;
mod payments;
pub(crate) mod print;
mod progress;
mod service_keys;
mod settings;
mod show;
mod user;
mod users;
mod webhooks;

use crate::dev::folder::DataFolder;
use crate::dev::{self, DevArgs, DevError};
use crate::doctor;
use crate::legacy::LegacyError;
use crate::serve::{self, ServeError};
use crate::source::{Source, SourceError};
use crate::upgrade;
use crate::way_out::WayOut;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use credits::CreditsCommand;
use import::ImportCommand;
use keys::KeysCommand;
use ledger::LedgerCommand;
use mana_auth::admin::model::AdminError;
use mana_auth::admin::{self, Change};
use mana_auth::service_key::model::NoScope;
use mana_auth::token::keys::KeyError;
use mana_auth::token::sealed_rows::RekeyError;
use mana_auth::webhook::model::{NoEvents, WebhookError};
use mana_credits::ledger::error::LedgerError;
use mana_credits::ledger::moving::{ExportError, ImportError};
use mana_credits::package::model::PackageError;
use mana_credits::purchase::PaymentError;
use mana_credits::stripe::client::InvalidStripe;
use mana_platform::config::{self, ConfigFileError, Configured, Contradiction, Stage};
use mana_platform::migrate::SchemaError;
use mana_platform::outbound::OutboundError;
use mana_platform::refusal::Unreached;
use mana_platform::telemetry::{self, InvalidTraces, Traces};
use mana_platform::{DbError, Settings, SystemClock, SystemRng};
use packages::PackagesCommand;
use payments::PaymentsCommand;
use service_keys::ServiceKeysCommand;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use user::ActArgs;
use users::UsersCommand;
use uuid::Uuid;
use webhooks::WebhooksCommand;

/// Accounts and prepaid credits for a family of apps
#[derive(Debug, Parser)]
#[command(name = "mana-core-auth", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    dev: DevArgs,
    /// Print JSON for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine with nothing set up (the default)
    Dev,
    /// Run the service on the PostgreSQL of `DATABASE_URL`
    Serve {
        /// Don't migrate; `migrate` does it
        #[arg(long)]
        no_migrate: bool,
    },
    /// Make roles and bring the schema up to date, as `DATABASE_OWNER_URL`
    Migrate {
        /// Only say what would be run, what it locks, and for how long on tables as large as these
        #[arg(long)]
        plan: bool,
    },
    /// Check the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check the live system: database, schema, roles, row security, keys, clock
    Doctor {
        /// Check instead whether this version can take over: what it would migrate, and what is in its way
        #[arg(long)]
        upgrade: bool,
    },
    /// Ask the server on this machine whether it is ready; exit code 0 if it is
    Health,
    /// Print the OpenAPI document
    Openapi,
    /// Administrators
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Mana, put right by hand
    #[command(subcommand)]
    Credits(CreditsCommand),
    /// Keys and secrets
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Keys by which apps act for users
    #[command(subcommand)]
    ServiceKeys(ServiceKeysCommand),
    /// Accounts
    #[command(subcommand, visible_alias = "user")]
    Users(UsersCommand),
    /// The way here from another service
    #[command(subcommand)]
    Import(ImportCommand),
    /// The books of mana
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// What is for sale
    #[command(subcommand)]
    Packages(PackagesCommand),
    /// What was bought
    #[command(subcommand)]
    Payments(PaymentsCommand),
    /// Endpoints at which apps hear of what happens
    #[command(subcommand)]
    Webhooks(WebhooksCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show every setting, where it comes from, and what is wrong with it; secrets are masked
    Check,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Print a one-time link that makes the first administrator; older links are void
    ClaimLink,
    /// Make a user an administrator; their sessions end
    Promote(ActArgs),
    /// Make an administrator a user; their sessions end
    Demote(ActArgs),
}

/// Why a command failed: one sentence with the way out.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    #[error("{0}")]
    Setting(String),
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    #[error(transparent)]
    Unreached(#[from] Unreached),
    #[error("LOG_LEVEL is not understood: {0}. Use a word like info, or mana_auth=debug,info")]
    Logging(#[from] tracing_subscriber::filter::ParseError),
    #[error(transparent)]
    Traces(#[from] InvalidTraces),
    #[error("the runtime can't be started: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Dev(#[from] DevError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the ledger refuses it: {0}")]
    Refused(String),
    #[error(transparent)]
    Database(#[from] DbError),
    #[error(
        "there is an administrator already, so no link was made: `mana-core-auth users find --role admin` lists them, and `admin promote` makes another"
    )]
    HasAdministrator,
    #[error("serve needs DATABASE_URL. On a laptop, `mana-core-auth dev` needs nothing")]
    NoDatabaseUrl,
    #[error("migrate needs DATABASE_OWNER_URL: the address of the role that owns the schema")]
    NoOwnerUrl,
    #[error(transparent)]
    Unhealthy(#[from] health::Unhealthy),
    #[error("{0} of the checks failed")]
    Unsound(usize),
    #[error(
        "{0} of the keys can't be opened and were left as they are: give the secrets that they are sealed under, or let \
         `mana-core-auth keys rotate --force` replace them"
    )]
    StillClosed(usize),
    #[error(
        "{0} secrets of users and apps can't be opened and were left as they are: give the root secrets that they are sealed under. Without them, the \
         next sign-in with a linked service replaces its tokens, an authenticator app has to be set up anew (`users reset-factors`), and an \
         endpoint of an app needs another secret (`webhooks rotate-secret`)"
    )]
    StillClosedRows(u64),
    #[error(transparent)]
    Rekey(#[from] RekeyError),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("--event: {0}")]
    NoEvents(NoEvents),
    #[error("--scope: a key {0}")]
    NoScope(NoScope),
    #[error("there is no service key {0}, or it was revoked before: see `mana-core-auth service-keys list`")]
    NoServiceKey(Uuid),
    #[error(
        "the books are not true in {0} places. Change nothing by hand: keep the database as it is, stop spending if the amounts matter, \
         and compare the wallets and lines that are named with the newest backup in which `ledger verify` finds nothing"
    )]
    Untrue(u64),
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error("{} is no array of packages: {error}", named(path))]
    PackageFile { path: PathBuf, error: serde_json::Error },
    #[error(transparent)]
    Stripe(#[from] InvalidStripe),
    #[error("the comparison with Stripe stopped: {0}")]
    Payment(#[from] PaymentError),
    #[error(
        "the purchases and Stripe differ in {0} places. `payments reconcile --fix` credits what is owed; what stays open is for a person: \
         `GET /api/v1/admin/purchases/<id>` shows an order with its problem"
    )]
    Unreconciled(u64),
    #[error(
        "there is no statement {0}: a server that has STRIPE_SECRET_KEY keeps one with its first comparison of a day (UTC), once something was paid. `payments reconcile` prints that of now"
    )]
    NoStatement(String),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    ImportUsers(#[from] mana_auth::account::moving::ImportError),
    #[error(transparent)]
    ExportUsers(#[from] mana_auth::account::moving::ExportError),
    #[error(
        "{0} rows were refused: mend them and import the file again; what is there already is left as it is"
    )]
    RowsRefused(u64),
    #[error(transparent)]
    Legacy(#[from] LegacyError),
    #[error(
        "import legacy needs LEGACY_DATABASE_URL: the address of the older database, as postgres://user:password@host:5432/database"
    )]
    NoLegacyUrl,
    #[error(
        "not everything is here as it was: {refused} refused, and {failed} of the checks failed. Mend it in the older database and import again; \
         what is here already is left as it is"
    )]
    NotWhole { refused: u64, failed: usize },
    #[error("{} can't be opened or written: {cause}", named(path))]
    File { path: PathBuf, cause: std::io::Error },
    #[error("the output can't be written: {0}")]
    Output(#[from] std::io::Error),
    #[error("the output can't be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// A file as people know it.
fn named(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.to_string();
            // What follows the sentence, if anything, are lines of a log.
            let (sentence, log) = text.split_once('\n').unwrap_or((&text, ""));
            eprintln!("error: {sentence}.");
            if !log.is_empty() {
                eprintln!("{log}");
            }
            // As of a flag that can't be used.
            if matches!(error, CommandError::Setting(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// The command line with all its settings, for the generated documents.
pub fn command() -> clap::Command {
    Cli::command()
}

fn run() -> Result<(), CommandError> {
    let Configured { command, file, from_file } = config::from_environment(Cli::command())?;
    let matches = settings::out_of_sight(command).try_get_matches_from_mut(std::env::args_os());
    let matches = match matches {
        Ok(matches) => matches,
        Err(error) => {
            let given = (file.as_ref(), &from_file[..]);
            return Err(match settings::complaint(&error, &Cli::command(), given, std::env::args_os()) {
                Some(complaint) => CommandError::Setting(complaint),
                None => error.exit(),
            });
        }
    };
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let traces = match &cli.command {
        None | Some(Command::Dev | Command::Serve { .. }) => Traces::from_settings(&cli.settings)?,
        Some(_) => None,
    };
    telemetry::start_telemetry(&cli.settings, traces.as_ref())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CommandError::Runtime)?;
    runtime.block_on(async move {
        match cli.command.as_ref().unwrap_or(&Command::Dev) {
            Command::Dev => {
                let is_set = |variable: &str| show::is_set(&matches, &from_file, variable);
                let settings = dev::with_generous_limits(&cli.settings, is_set);
                Ok(dev::run(&settings, &cli.dev, traces).await?)
            }
            Command::Serve { no_migrate } => serve_command(&cli.settings, *no_migrate, traces).await,
            Command::Migrate { plan } => migrate::run(&cli.settings, *plan, cli.json).await,
            Command::Config(ConfigCommand::Check) => {
                show::config(&matches, &from_file, &cli.settings, cli.json)
            }
            Command::Doctor { upgrade: true } => {
                show::findings(&upgrade::examine(&cli.settings).await?, cli.json)
            }
            Command::Doctor { upgrade: false } => {
                show::findings(&doctor::examine(&cli.settings, source(&cli)?).await, cli.json)
            }
            Command::Health => health::run(&cli.settings),
            Command::Openapi => Ok(print::line(&serde_json::to_string_pretty(&crate::openapi::document())?)?),
            Command::Admin(AdminCommand::ClaimLink) => {
                claim_link(&cli.settings, source_in_reach(&cli).await?).await
            }
            Command::Admin(AdminCommand::Promote(args)) => {
                user::change(args, Change::Promote, &cli.settings, source_in_reach(&cli).await?, cli.json)
                    .await
            }
            Command::Admin(AdminCommand::Demote(args)) => {
                user::change(args, Change::Demote, &cli.settings, source_in_reach(&cli).await?, cli.json)
                    .await
            }
            Command::Credits(command) => {
                credits::run(command, &cli.settings, source_in_reach(&cli).await?, cli.json).await
            }
            Command::Keys(command) => keys::run(command, &cli).await,
            Command::ServiceKeys(command) => {
                service_keys::run(command, &cli.settings, source_in_reach(&cli).await?, cli.json).await
            }
            Command::Users(command) => users::run(command, &cli, source_in_reach(&cli).await?).await,
            Command::Import(command) => import::run(command, &cli, source_in_reach(&cli).await?).await,
            Command::Ledger(command) => ledger::run(command, &cli, source_in_reach(&cli).await?).await,
            Command::Packages(command) => {
                packages::run(command, &cli.settings, source_in_reach(&cli).await?, cli.json).await
            }
            Command::Payments(command) => {
                payments::run(command, &cli.settings, source_in_reach(&cli).await?, cli.json).await
            }
            Command::Webhooks(command) => {
                webhooks::run(command, &cli.settings, source_in_reach(&cli).await?, cli.json).await
            }
        }
    })
}

fn written(instant: OffsetDateTime) -> String {
    instant.format(&Rfc3339).unwrap_or_default()
}

/// The database of the settings, else that of a running dev mode.
fn source(cli: &Cli) -> Result<Source, SourceError> {
    Source::from_settings(&cli.settings)?.map_or_else(|| DataFolder::running(&cli.dev), Ok)
}

/// The same, when PostgreSQL lets the server in there.
async fn source_in_reach(cli: &Cli) -> Result<Source, CommandError> {
    let source = source(cli)?;
    source.reach(&source.database(&cli.settings)).await?;
    Ok(source)
}

async fn serve_command(
    settings: &Settings,
    no_migrate: bool,
    traces: Option<Traces>,
) -> Result<(), CommandError> {
    let host = settings.host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let source = Source::from_settings(settings)?.ok_or(CommandError::NoDatabaseUrl)?;
    for contradiction in settings.contradictions(Stage::Production) {
        tracing::warn!("{contradiction}");
    }
    let way_out = WayOut::for_serve(settings).map_err(ServeError::from)?;
    let listener = serve::listen(host, settings.port).await?;
    if let Some(migration) = source.migration.as_ref().filter(|_| !no_migrate) {
        match migration.run(&SystemRng).await {
            // Whether it can be served on all the same is decided below.
            Ok(()) | Err(SchemaError::Newer { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let service = serve::prepare(settings, source, way_out).await?;
    tracing::info!(url = settings.public_url(), port = settings.port, "serving");
    Ok(serve::run(listener, service, traces).await?)
}

async fn claim_link(settings: &Settings, source: Source) -> Result<(), CommandError> {
    match admin::new_claim_link(&source.database(settings), &SystemClock, &SystemRng).await? {
        Some(link) => Ok(print::line(&format!("{}{link}", settings.public_url()))?),
        None => Err(CommandError::HasAdministrator),
    }
}
