//! `mana-core-auth dev`: the whole service on one machine, with nothing set up.

mod banner;
pub(crate) mod folder;
pub(crate) mod outbox;
mod till;

use crate::app;
use crate::cli::print;
use crate::serve::{self, ServeError};
use crate::source::{Source, SourceError};
use crate::way_out::WayOut;
use clap::Args;
use folder::DataFolder;
use mana_auth::admin;
use mana_credits::package;
use mana_credits::package::model::PackageError;
use mana_kernel::{Clock, Rng};
use mana_platform::config::{DEVELOPMENT, Stage};
use mana_platform::embedded_postgres::{EmbeddedPostgres, EmbeddedPostgresError};
use mana_platform::migrate::SchemaError;
use mana_platform::refusal::said;
use mana_platform::telemetry::Traces;
use mana_platform::{DbError, Settings, SystemClock, SystemRng};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use till::Till;

/// Where the endpoint of an app that is being written is, which may speak http there.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Where dev mode keeps its data.
#[derive(Debug, Clone, Args)]
pub(crate) struct DevArgs {
    /// Folder of the private PostgreSQL and its secrets, for `dev` and the commands that look at it
    #[arg(long, env = "DATA_DIR", default_value = ".mana", global = true, help_heading = DEVELOPMENT)]
    pub(crate) data_dir: PathBuf,
    /// Start on an empty database that is thrown away at the end
    #[arg(long, env = "EPHEMERAL", global = true, help_heading = DEVELOPMENT)]
    pub(crate) ephemeral: bool,
}

/// Why dev mode did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DevError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Postgres(#[from] EmbeddedPostgresError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Database(#[from] DbError),
    #[error(
        "--ephemeral throws its own database away, and DATABASE_URL names one to keep: use one of the two"
    )]
    EphemeralUrl,
    #[error("the packages that dev mode begins with can't be written: {0}")]
    Packages(#[from] PackageError),
    #[error("the packages that dev mode begins with can't be read: {0}")]
    PackageFile(#[from] serde_json::Error),
    #[error("the pretended Stripe can't be started: {0}")]
    Till(std::io::Error),
    #[error("the private PostgreSQL can't be asked: {}", said(.0))]
    Ask(#[from] sqlx::Error),
    #[error("the output can't be written: {0}")]
    Output(#[from] std::io::Error),
    #[error("a background task died: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The settings, with endpoints of apps on this machine unless they name other networks.
pub(crate) fn with_local_endpoints(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    if settings.webhook_private_networks.is_empty() {
        settings.webhook_private_networks = LOOPBACK.map(Into::into).to_vec();
    }
    settings
}

/// How many times the usual limits are, where only this machine can ask.
const GENEROUS: u32 = 100;

/// The settings, with limits of requests that nobody meets who tries things out, but for those that are set. Only where no other machine
/// can ask.
pub(crate) fn with_generous_limits(settings: &Settings, is_set: impl Fn(&str) -> bool) -> Settings {
    let mut settings = settings.clone();
    if !host(&settings).is_loopback() {
        return settings;
    }
    for (variable, limit) in [
        ("RATE_LIMIT_MAX", &mut settings.rate_limit_max),
        ("RATE_LIMIT_REGISTER", &mut settings.rate_limit_register),
        ("RATE_LIMIT_LOGIN", &mut settings.rate_limit_login),
        ("RATE_LIMIT_FORGOT_PASSWORD", &mut settings.rate_limit_forgot_password),
        ("RATE_LIMIT_RESEND", &mut settings.rate_limit_resend),
        ("RATE_LIMIT_RESET", &mut settings.rate_limit_reset),
        ("RATE_LIMIT_CHANGE_PASSWORD", &mut settings.rate_limit_change_password),
        ("RATE_LIMIT_DELETE_ACCOUNT", &mut settings.rate_limit_delete_account),
        ("RATE_LIMIT_MINT", &mut settings.rate_limit_mint),
    ] {
        if !is_set(variable) {
            *limit = limit.saturating_mul(GENEROUS);
        }
    }
    settings
}

/// Where it listens.
fn host(settings: &Settings) -> IpAddr {
    settings.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Starts everything, prints how to use it, and runs until it is told to stop.
pub(crate) async fn run(settings: &Settings, args: &DevArgs, traces: Option<Traces>) -> Result<(), DevError> {
    if args.ephemeral && settings.database_url.is_some() {
        return Err(DevError::EphemeralUrl);
    }
    for contradiction in settings.contradictions(Stage::Development) {
        tracing::warn!("{contradiction}");
    }
    let way_out = WayOut::for_dev(settings).map_err(ServeError::from)?;
    let listener = serve::listen(host(settings), settings.port).await?;
    let till = till::open(settings).await.map_err(DevError::Till)?;
    let (source, postgres, place) = match Source::from_settings(settings)? {
        Some(source) => (source, None, "the database of DATABASE_URL".to_owned()),
        None => {
            let folder = DataFolder::open(args)?;
            let place = folder.described();
            let (source, postgres) = start_postgres(folder).await?;
            (source, Some(postgres), place)
        }
    };
    let outcome = serve_on(settings, till.as_ref(), source, way_out, listener, traces, &place).await;
    // The server is stopped also when the service did not start.
    if let Some(postgres) = postgres {
        tokio::task::spawn_blocking(move || postgres.stop()).await??;
    }
    outcome
}

async fn serve_on(
    settings: &Settings,
    till: Option<&Till>,
    source: Source,
    way_out: WayOut,
    listener: tokio::net::TcpListener,
    traces: Option<Traces>,
    place: &str,
) -> Result<(), DevError> {
    if let Some(migration) = &source.migration {
        migration.run(&SystemRng).await?;
    }
    let settings = Box::new(with_local_endpoints(till.map_or(settings, |till| &till.settings)));
    let settings = &*settings;
    let shows_mails = way_out.outbox.is_some();
    let service = serve::prepare(settings, source, way_out).await?;
    let (clock, rng): (Arc<dyn Clock>, Arc<dyn Rng>) = (Arc::new(SystemClock), Arc::new(SystemRng));
    let log = app::admin_log(&clock, &rng);
    package::seed(&service.database, &SystemClock, &*log, &till::packages()?).await?;
    let claim = admin::new_claim_link(&service.database, &SystemClock, &SystemRng).await?;
    print::line(&banner::text(settings, place, claim.as_deref(), shows_mails, till.is_some()))?;
    Ok(serve::run(listener, service, traces).await?)
}

async fn start_postgres(folder: DataFolder) -> Result<(Source, EmbeddedPostgres), DevError> {
    let (folder, postgres) = tokio::task::spawn_blocking(move || folder.start_postgres()).await??;
    let owner = folder::owner_options(&postgres);
    folder::ensure_database(&owner).await?;
    folder.note_socket(postgres.socket_folder())?;
    Ok((folder.source(Some(owner), postgres.socket_folder())?, postgres))
}
