//! The command line. Commands print for people, and JSON with `--json`.
#![expect(clippy::print_stderr, reason = "a command line says on standard error what went wrong")]

mod keys;
mod ledger;
mod packages;
mod payments;
pub(crate) mod print;
mod progress;
mod service_keys;
mod show;

use crate::dev::folder::DataFolder;
use crate::dev::{self, DevArgs, DevError};
use crate::doctor;
use crate::serve::{self, ServeError};
use crate::source::{Migration, Source, SourceError};
use crate::way_out::WayOut;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use keys::KeysCommand;
use ledger::LedgerCommand;
use mana_auth::admin;
use mana_auth::service_key::model::NoScope;
use mana_auth::token::keys::KeyError;
use mana_credits::ledger::moving::{ExportError, ImportError};
use mana_credits::package::model::PackageError;
use mana_credits::purchase::PaymentError;
use mana_credits::stripe::client::InvalidStripe;
use mana_platform::config::{self, ConfigFileError, Configured};
use mana_platform::migrate::SchemaError;
use mana_platform::{DbError, Settings, SystemClock, SystemRng, telemetry};
use packages::PackagesCommand;
use payments::PaymentsCommand;
use service_keys::ServiceKeysCommand;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

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
    Migrate,
    /// Check the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check the live system: database, schema, roles, row security, keys, clock
    Doctor,
    /// Print the OpenAPI document
    Openapi,
    /// Administrators
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Keys and secrets
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Keys by which apps act for users
    #[command(subcommand)]
    ServiceKeys(ServiceKeysCommand),
    /// The books of mana
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// What is for sale
    #[command(subcommand)]
    Packages(PackagesCommand),
    /// What was bought
    #[command(subcommand)]
    Payments(PaymentsCommand),
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
}

/// Why a command failed: one sentence with the way out.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    #[error("LOG_LEVEL is not understood: {0}. Use a word like info, or mana_auth=debug,info")]
    Logging(#[from] tracing_subscriber::filter::ParseError),
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
    Database(#[from] DbError),
    #[error("serve needs DATABASE_URL. On a laptop, `mana-core-auth dev` needs nothing")]
    NoDatabaseUrl,
    #[error("migrate needs DATABASE_OWNER_URL: the address of the role that owns the schema")]
    NoOwnerUrl,
    #[error("{0} of the checks failed")]
    Unsound(usize),
    #[error(
        "{0} of the keys can't be opened and were left as they are: give the secrets that they are sealed under, or let \
         `mana-core-auth keys rotate --force` replace them"
    )]
    StillClosed(usize),
    #[error("--scope: a key {0}")]
    NoScope(NoScope),
    #[error("there is no service key {0}, or it was revoked before: see `mana-core-auth service-keys list`")]
    NoServiceKey(Uuid),
    #[error(
        "the books are not true in {0} places. Change nothing by hand: keep the database as it is, stop spending if the amounts matter,          and compare the wallets and lines that are named with the newest backup in which `ledger verify` finds nothing"
    )]
    Untrue(u64),
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error("{} is no array of packages: {error}", path.display())]
    PackageFile { path: PathBuf, error: serde_json::Error },
    #[error(transparent)]
    Stripe(#[from] InvalidStripe),
    #[error("the comparison with Stripe stopped: {0}")]
    Payment(#[from] PaymentError),
    #[error(
        "the purchases and Stripe differ in {0} places. `payments reconcile --fix` credits what is owed; what stays open is for a person:          `GET /api/v1/admin/purchases/<id>` shows an order with its problem"
    )]
    Unreconciled(u64),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error("{} can't be opened or written: {cause}", path.display())]
    File { path: PathBuf, cause: std::io::Error },
    #[error("the output can't be written: {0}")]
    Output(#[from] std::io::Error),
    #[error("the output can't be written: {0}")]
    Json(#[from] serde_json::Error),
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
            ExitCode::FAILURE
        }
    }
}

/// The command line with all its settings, for the generated documents.
pub fn command() -> clap::Command {
    Cli::command()
}

fn run() -> Result<(), CommandError> {
    let Configured { command, from_file } = config::from_environment(Cli::command())?;
    let matches = command.get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    telemetry::start_logging(&cli.settings)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CommandError::Runtime)?;
    runtime.block_on(async move {
        match cli.command.as_ref().unwrap_or(&Command::Dev) {
            Command::Dev => Ok(dev::run(&cli.settings, &cli.dev).await?),
            Command::Serve { no_migrate } => serve_command(&cli.settings, *no_migrate).await,
            Command::Migrate => migrate(&cli.settings).await,
            Command::Config(ConfigCommand::Check) => {
                show::config(&matches, &from_file, &cli.settings, cli.json)
            }
            Command::Doctor => show::findings(&doctor::examine(&cli.settings, source(&cli)?).await, cli.json),
            Command::Openapi => Ok(print::line(&serde_json::to_string_pretty(&crate::openapi::document())?)?),
            Command::Admin(AdminCommand::ClaimLink) => claim_link(&cli.settings, source(&cli)?).await,
            Command::Keys(command) => keys::run(command, &cli, || source(&cli)).await,
            Command::ServiceKeys(command) => {
                service_keys::run(command, &cli.settings, source(&cli)?, cli.json).await
            }
            Command::Ledger(command) => ledger::run(command, &cli, source(&cli)?).await,
            Command::Packages(command) => {
                packages::run(command, &cli.settings, source(&cli)?, cli.json).await
            }
            Command::Payments(command) => {
                payments::run(command, &cli.settings, source(&cli)?, cli.json).await
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

async fn serve_command(settings: &Settings, no_migrate: bool) -> Result<(), CommandError> {
    let host = settings.host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let source = Source::from_settings(settings)?.ok_or(CommandError::NoDatabaseUrl)?;
    let way_out = WayOut::for_serve(settings).map_err(ServeError::from)?;
    let listener = serve::listen(host, settings.port).await?;
    if let Some(migration) = source.migration.as_ref().filter(|_| !no_migrate) {
        migration.run(&SystemRng).await?;
    }
    let service = serve::prepare(settings, source, way_out).await?;
    tracing::info!(url = settings.public_url(), port = settings.port, "serving");
    Ok(serve::run(listener, service, Duration::from_secs(settings.shutdown_timeout_seconds)).await?)
}

async fn migrate(settings: &Settings) -> Result<(), CommandError> {
    Migration::from_settings(settings)?.ok_or(CommandError::NoOwnerUrl)?.run(&SystemRng).await?;
    Ok(print::line(&format!("The schema is at {}.", mana_platform::migrate::binary_version()))?)
}

async fn claim_link(settings: &Settings, source: Source) -> Result<(), CommandError> {
    match admin::new_claim_link(&source.database(settings), &SystemClock, &SystemRng).await? {
        Some(link) => print::line(&format!("{}{link}", settings.public_url()))?,
        None => print::line("There is an administrator already.")?,
    }
    Ok(())
}
