//! A private PostgreSQL server, run as a child process from the programs installed on this machine.
//!
//! It listens on a Unix socket only, belongs to one folder and ends with the process that started it,
//! whatever ends that process. Everything here blocks: call it from a thread that may wait.

mod account;
mod cluster;
mod error;
mod folder;
mod process;
mod programs;
mod watchdog;

#[cfg(test)]
mod tests;

use cluster::Site;
use secrecy::{ExposeSecret as _, SecretString};
use std::path::{Path, PathBuf};
use watchdog::Watchdog;

pub use error::EmbeddedPostgresError;
pub use folder::default_folder;

const SUPERUSER: &str = "postgres";
/// The server has no TCP port: the number only names the socket file.
const PORT: u16 = 5432;

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that is the server's alone: it holds `cluster/` (the data), `run/` (the socket),
    /// `password`, `server.log` and `lock`. It is made when missing; one that holds anything else is refused.
    pub folder: PathBuf,
    /// What survives a crash.
    pub durability: Durability,
    /// Removes the folder, which must be new or empty, when the server ends, also when this process is killed.
    /// Put it straight into the folder for temporary files: as root, an empty folder stays behind elsewhere.
    pub throw_away: bool,
}

/// What survives a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Every committed transaction survives a crash of the server and of the machine.
    Full,
    /// Nothing needs to survive, so the server never waits for the disk: when it is killed the last half
    /// second or so is lost, and a crash of the machine can damage all of the data.
    None,
}

/// A running server. Dropping it stops the server and waits for that, at most 10 seconds.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    // Declared first, dropped first: the lock in the site is free for others only once the server is gone.
    watchdog: Watchdog,
    site: Site,
    socket_folder: PathBuf,
    password: SecretString,
}

impl EmbeddedPostgres {
    /// Starts the server on the folder, setting the data up first when there is none, and returns once it
    /// accepts connections. `secret` fills bytes with randomness; it is called once, when the data is set up,
    /// for the superuser's password.
    ///
    /// Waits at most two minutes for the server, which may have to recover from a crash. A server left over
    /// on the folder is stopped first, for at most 10 seconds.
    ///
    /// # Errors
    /// When PostgreSQL 14 or newer, of the version that wrote the data, is missing; when the folder is in
    /// use, holds something else, or cannot be reached or written; when the server does not come up.
    pub fn start(options: &Options, secret: &dyn Fn(&mut [u8])) -> Result<Self, EmbeddedPostgresError> {
        let site = Site::open(options)?;
        if !site.cluster().exists() {
            site.set_up(secret)?;
        }
        let password = site.password()?;
        site.end_predecessor()?;
        let socket_folder = folder::make_socket_folder(&site.folder, site.account.as_ref())?;
        let watchdog = Watchdog::launch(&site, &socket_folder)?;
        Ok(Self { watchdog, site, socket_folder, password })
    }

    /// The host to connect to. Only the user that runs the server can enter it, and root.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        &self.socket_folder
    }

    /// The number in the socket's name, always 5432. Nothing listens on TCP.
    #[must_use]
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The name of the superuser, always `postgres`.
    #[must_use]
    pub fn superuser(&self) -> &str {
        SUPERUSER
    }

    /// The password of the superuser: 64 hexadecimal digits.
    #[must_use]
    pub fn password(&self) -> &str {
        self.password.expose_secret()
    }

    /// The folder of the server's own programs, so of `psql` and `pg_dump` of the same version.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.site.programs
    }

    /// Stops the server and waits for it. After 5 seconds the data is left for the next start to recover,
    /// after 10 the server is killed.
    ///
    /// # Errors
    /// When it had to be killed; it is gone all the same.
    pub fn stop(mut self) -> Result<(), EmbeddedPostgresError> {
        self.watchdog.stop()
    }
}
