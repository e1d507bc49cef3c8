//! The data folder of dev mode: the private PostgreSQL and the secrets that belong to it.

use super::{DevArgs, DevError};
use crate::source::{Login, Migration, Source, SourceError, kept_secret};
use mana_auth::token::root_secret::RootSecrets;
use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use mana_platform::embedded_postgres::{
    Durability, EmbeddedPostgres, EmbeddedPostgresError, Options, default_folder,
};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

const DATABASE: &str = "mana";
const SERVICE: &str = "mana_service";

/// Where dev mode keeps its data, or does not.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    is_ephemeral: bool,
}

impl DataFolder {
    /// The folder that the arguments name, made if it is not there. What is thrown away gets one of its own.
    pub(crate) fn open(args: &DevArgs) -> Result<Self, SourceError> {
        if args.ephemeral {
            return Ok(Self { path: ephemeral_path(), is_ephemeral: true });
        }
        let path = resolved(&args.data_dir);
        if path.exists() {
            check_ours(&path)?;
        } else {
            let failed = |error| SourceError::File(path.display().to_string(), error);
            std::fs::create_dir_all(&path).map_err(failed)?;
            // Root's PostgreSQL runs as another user, who must be able to enter, whatever the umask; all within is private.
            std::fs::set_permissions(&path, Permissions::from_mode(0o711)).map_err(failed)?;
        }
        Ok(Self { path, is_ephemeral: false })
    }

    /// For people.
    pub(crate) fn described(&self) -> String {
        if self.is_ephemeral { "thrown away at the end".to_owned() } else { self.path.display().to_string() }
    }

    /// Starts the private PostgreSQL. Blocks.
    pub(crate) fn start_postgres(self) -> Result<(Self, EmbeddedPostgres), EmbeddedPostgresError> {
        let options = if self.is_ephemeral {
            Options { folder: self.path.clone(), durability: Durability::None, throw_away: true }
        } else {
            Options { folder: self.path.join("postgres"), durability: Durability::Full, throw_away: false }
        };
        let postgres = EmbeddedPostgres::start(&options, &|bytes| SystemRng.fill(bytes))?;
        Ok((self, postgres))
    }

    /// The database as the service's role, with the secrets kept here, made on first use.
    pub(crate) fn source(
        &self,
        owner: Option<PgConnectOptions>,
        socket: &Path,
    ) -> Result<Source, SourceError> {
        let password = self.secret("service.password", random_text)?;
        let root = self.secret("secret.key", || RootSecrets::generate("dev", &SystemRng))?;
        let service = PgConnectOptions::new_without_pgpass()
            .socket(socket)
            .username(SERVICE)
            .password(password.expose_secret())
            .database(DATABASE);
        let migration = owner.map(|owner| Migration {
            owner,
            login: Some(Login { name: SERVICE.to_owned(), password: Some(password) }),
        });
        let root_secrets = RootSecrets::parse(&root)?;
        Ok(Source { service, caches_statements: true, migration, root_secrets })
    }

    /// Kept with data that is kept; gone with data that is thrown away.
    fn secret(&self, name: &str, make: fn() -> SecretString) -> Result<SecretString, SourceError> {
        if self.is_ephemeral { Ok(make()) } else { kept_secret(&self.path.join(name), make) }
    }

    /// The database of a dev mode that runs elsewhere on this machine, for commands that look at it.
    pub(crate) fn running(args: &DevArgs) -> Result<Source, SourceError> {
        let path = resolved(&args.data_dir);
        let socket = path.join("socket");
        let socket = std::fs::read_to_string(&socket).map(|text| PathBuf::from(text.trim()));
        match socket {
            // PostgreSQL removes its socket when it stops.
            Ok(socket) if socket.join(".s.PGSQL.5432").exists() => {
                Self { path, is_ephemeral: false }.source(None, &socket)
            }
            Ok(_) | Err(_) => Err(SourceError::Nothing(path.display().to_string())),
        }
    }

    /// Notes where the socket is, for [`Self::running`].
    pub(crate) fn note_socket(&self, socket: &Path) -> Result<(), SourceError> {
        if self.is_ephemeral {
            return Ok(());
        }
        let note = self.path.join("socket");
        std::fs::write(&note, socket.as_os_str().as_encoded_bytes())
            .map_err(|error| SourceError::File(note.display().to_string(), error))
    }
}

/// Refuses a folder that somebody else could have prepared: what lies in it is trusted with the secrets.
fn check_ours(path: &Path) -> Result<(), SourceError> {
    let failed = |error| SourceError::File(path.display().to_string(), error);
    let me = rustix::process::geteuid().as_raw();
    let (link, folder) =
        (std::fs::symlink_metadata(path).map_err(failed)?, std::fs::metadata(path).map_err(failed)?);
    let is_private = folder.is_dir() && link.uid() == me && folder.uid() == me && folder.mode() & 0o022 == 0;
    if !is_private {
        return Err(SourceError::NotOurs(path.display().to_string()));
    }
    let mut entries = std::fs::read_dir(path).map_err(failed)?.peekable();
    let is_data = path.join("postgres").exists() || path.join("secret.key").exists();
    if entries.peek().is_some() && !is_data {
        return Err(SourceError::Occupied(path.display().to_string()));
    }
    Ok(())
}

/// As the superuser of the private PostgreSQL.
pub(crate) fn owner_options(postgres: &EmbeddedPostgres) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(postgres.socket_folder())
        .port(postgres.port())
        .username(postgres.superuser())
        .password(postgres.password())
        .database(DATABASE)
}

/// Makes the database if this is the first start.
pub(crate) async fn ensure_database(owner: &PgConnectOptions) -> Result<(), DevError> {
    let mut connection = PgConnection::connect_with(&owner.clone().database("postgres")).await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(DATABASE)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        sqlx::query("CREATE DATABASE mana").execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

fn resolved(wanted: &Path) -> PathBuf {
    default_folder(&std::path::absolute(wanted).unwrap_or_else(|_| wanted.to_owned()))
}

fn ephemeral_path() -> PathBuf {
    let mut name = [0; 8];
    SystemRng.fill(&mut name);
    std::env::temp_dir().join(format!("mana-ephemeral-{:016x}", u64::from_be_bytes(name)))
}

fn random_text() -> SecretString {
    let mut bytes = [0; 32];
    SystemRng.fill(&mut bytes);
    SecretString::from(bytes.map(|byte| format!("{byte:02x}")).concat())
}
