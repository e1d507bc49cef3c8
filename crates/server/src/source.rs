//! Which database a command works on: the one that is named, or the one that `dev` runs in its data folder.

use crate::app;
use mana_auth::token::keys::{KeyChest, KeyError};
use mana_auth::token::root_secret::{RootSecretError, RootSecrets};
use mana_kernel::{Clock, Rng};
use mana_platform::migrate::{self, SchemaError, ServiceLogin};
use mana_platform::refusal::{RoleState, Unreached, is_of_sign_in, said};
use mana_platform::{Database, Settings, SystemClock, SystemRng};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

/// How long is waited for what an attempt to connect says.
const LOOK_LIMIT: Duration = Duration::from_secs(3);

/// A database to work on, and the root secrets that belong to it.
#[derive(Debug)]
pub(crate) struct Source {
    /// As the server.
    pub(crate) service: PgConnectOptions,
    /// Whether its prepared statements may outlive a transaction.
    pub(crate) caches_statements: bool,
    /// What its owner would do first, if there is one.
    pub(crate) migration: Option<Migration>,
    pub(crate) root_secrets: RootSecrets,
}

/// Why there is no database to work on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error(
        "no DATABASE_URL is set and no `mana-core-auth dev` runs with its data in {0}. Start `mana-core-auth dev` first, \
         name its folder with --data-dir, or set DATABASE_URL"
    )]
    Nothing(String),
    #[error("{0} is not a PostgreSQL address (postgres://user:password@host:5432/database): {1}")]
    Url(&'static str, NoAddress),
    #[error(
        "MANA_SECRET_KEY is not set. Make one with `mana-core-auth keys generate`, give the same one to every replica, and keep it: \
         without it, sessions end and stored keys can't be opened"
    )]
    NoRootSecret,
    #[error(transparent)]
    RootSecret(#[from] RootSecretError),
    #[error(
        "{0} is not a folder that only this user can write to, so it can't be trusted with secrets. Choose another with \
         --data-dir, or make it yours: `chown` and `chmod go-w`"
    )]
    NotOurs(String),
    #[error(
        "{0} holds something else than the data of this program. Choose an empty or a new folder with --data-dir"
    )]
    Occupied(String),
    #[error("{0} can't be read or written: {1}")]
    File(String, std::io::Error),
}

/// What is wrong with an address. Nothing of it is told: a password stands in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAddress {
    #[error("it does not begin with postgres://")]
    Scheme,
    #[error(
        "it names no user, as whom the server would sign in. A password's characters other than letters, digits, - . _ and ~ stand there \
         percent-encoded, # as %23"
    )]
    NoUser,
    #[error(
        "{0}. A password's characters other than letters, digits, - . _ and ~ stand there percent-encoded, # as %23"
    )]
    Malformed(String),
}

impl Source {
    /// The database that the settings name; none without `DATABASE_URL`.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Option<Self>, SourceError> {
        let Some(url) = &settings.database_url else {
            return Ok(None);
        };
        let root_secrets =
            RootSecrets::parse(settings.secret_key.as_ref().ok_or(SourceError::NoRootSecret)?)?;
        let service = service_options(url)?;
        let caches_statements = !forbids_caching(url);
        Ok(Some(Self {
            service,
            caches_statements,
            migration: Migration::from_settings(settings)?,
            root_secrets,
        }))
    }

    /// A pool as the server.
    pub(crate) fn database(&self, settings: &Settings) -> Database {
        let wait = Duration::from_secs(settings.database_wait_seconds);
        let database = Database::new(self.service.clone(), settings.database_max_connections, wait);
        if self.caches_statements { database } else { database.in_transactions_only() }
    }

    /// Whether PostgreSQL lets the server in. If not, and its owner is at hand, the owner tells more.
    pub(crate) async fn reach(&self, database: &Database) -> Result<(), Unreached> {
        let Err(error) = database.ping().await else { return Ok(()) };
        // That the time is over is all that the pool says.
        let error = if matches!(error, sqlx::Error::PoolTimedOut) {
            match self.look().await {
                Ok(()) => return Ok(()),
                Err(cause) => cause,
            }
        } else {
            error
        };
        if is_of_sign_in(&error)
            && let Some(migration) = &self.migration
            && let Ok(state) = migration.find_role(self.service.get_username()).await
        {
            return Err(Unreached::of_role(&error, &self.service, state));
        }
        Err(Unreached::new(&error, "DATABASE_URL", &self.service))
    }

    /// Connects once.
    async fn look(&self) -> Result<(), sqlx::Error> {
        let connected = tokio::time::timeout(LOOK_LIMIT, PgConnection::connect_with(&self.service)).await;
        match connected {
            Ok(connection) => connection?.close().await,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    /// Its signing keys, for commands.
    pub(crate) fn key_chest(self, settings: &Settings, database: &Database) -> Result<KeyChest, KeyError> {
        let (clock, rng): (Arc<dyn Clock>, Arc<dyn Rng>) = (Arc::new(SystemClock), Arc::new(SystemRng));
        app::key_chest(settings, database, &Arc::new(self.root_secrets), &clock, &rng)
    }
}

/// The owner of a database, and the sign-in it makes for the server.
#[derive(Debug)]
pub(crate) struct Migration {
    pub(crate) owner: PgConnectOptions,
    pub(crate) login: Option<Login>,
}

/// The server's sign-in.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) name: String,
    pub(crate) password: Option<SecretString>,
}

impl Migration {
    /// As `DATABASE_OWNER_URL` names it; none without.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Option<Self>, SourceError> {
        let Some(url) = &settings.database_owner_url else {
            return Ok(None);
        };
        let owner = options(url, "DATABASE_OWNER_URL")?;
        let login = match &settings.database_url {
            Some(url) => Some(Login {
                name: service_options(url)?.get_username().to_owned(),
                password: password_in(url),
            }),
            None => None,
        };
        Ok(Some(Self { owner, login }))
    }

    async fn find_role(&self, role: &str) -> Result<RoleState, sqlx::Error> {
        let mut connection = PgConnection::connect_with(&self.owner).await?;
        let state = RoleState::find(&mut connection, role).await?;
        connection.close().await?;
        Ok(state)
    }

    /// Makes roles and migrates.
    pub(crate) async fn run(&self, rng: &dyn Rng) -> Result<(), SchemaError> {
        let login = self
            .login
            .as_ref()
            .map(|login| ServiceLogin { name: &login.name, password: login.password.as_ref() });
        migrate::migrate(&self.owner, login, rng).await
    }
}

/// Reads a secret that was kept in a file, or makes it, readable by nobody else.
pub(crate) fn kept_secret(
    path: &Path,
    make: impl FnOnce() -> SecretString,
) -> Result<SecretString, SourceError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |error| SourceError::File(path.display().to_string(), error);
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(SecretString::from(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let secret = make();
            // Written whole or not at all: half a secret after a crash would lock the data away.
            let unfinished = path.with_extension("new");
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&unfinished)
                .map_err(failed)?;
            file.write_all(secret.expose_secret().as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(failed)?;
            std::fs::rename(&unfinished, path).map_err(failed)?;
            Ok(secret)
        }
        Err(error) => Err(failed(error)),
    }
}

/// An address that a user is to sign in by. Without one, whoever runs the program would be taken for it.
fn service_options(url: &SecretString) -> Result<PgConnectOptions, SourceError> {
    let options = options(url, "DATABASE_URL")?;
    let names_user = url::Url::parse(url.expose_secret()).is_ok_and(|url| {
        !url.username().is_empty()
            || url.query_pairs().any(|(name, value)| name == "user" && !value.is_empty())
    });
    if names_user { Ok(options) } else { Err(SourceError::Url("DATABASE_URL", NoAddress::NoUser)) }
}

fn options(url: &SecretString, name: &'static str) -> Result<PgConnectOptions, SourceError> {
    let options = address(url).map_err(|fault| SourceError::Url(name, fault))?;
    // Poolers refuse a start with settings that they don't know, and no column here is a float.
    Ok(options.extra_float_digits(None))
}

/// Reads an address. What has another scheme would be read as one, too.
pub(crate) fn address(url: &SecretString) -> Result<PgConnectOptions, NoAddress> {
    let parsed = url::Url::parse(url.expose_secret()).map_err(|error| {
        if error == url::ParseError::RelativeUrlWithoutBase {
            NoAddress::Scheme
        } else {
            NoAddress::Malformed(error.to_string())
        }
    })?;
    if !matches!(parsed.scheme(), "postgres" | "postgresql") {
        return Err(NoAddress::Scheme);
    }
    PgConnectOptions::from_str(url.expose_secret()).map_err(|error| NoAddress::Malformed(said(&error)))
}

/// Whether an address says so, by the parameter that the options are read from too, but don't tell.
fn forbids_caching(url: &SecretString) -> bool {
    url::Url::parse(url.expose_secret()).is_ok_and(|url| {
        url.query_pairs().any(|(name, value)| name == "statement-cache-capacity" && value == "0")
    })
}

fn password_in(url: &SecretString) -> Option<SecretString> {
    let url = url::Url::parse(url.expose_secret()).ok()?;
    let password = percent_encoding::percent_decode_str(url.password()?).decode_utf8().ok()?;
    Some(SecretString::from(password.into_owned()))
}
