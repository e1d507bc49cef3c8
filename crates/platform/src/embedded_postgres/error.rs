//! Why the private server did not start or stop.

use super::programs::OLDEST_MAJOR;
use EmbeddedPostgresError as Error;
use std::io;
use std::path::{Path, PathBuf};

/// Why the server did not start or stop, with the way out, for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedPostgresError {
    /// No installed server was found.
    #[error(
        "PostgreSQL is not installed here. Install it (Debian: `apt-get install postgresql`; \
         macOS: `brew install postgresql@17`), or set DATABASE_URL to a server that runs elsewhere"
    )]
    NotInstalled,
    /// The newest of the installed versions is older than the oldest supported one.
    #[error(
        "PostgreSQL {0} is too old. Install {OLDEST_MAJOR} or newer, or set DATABASE_URL to a newer server"
    )]
    TooOld(u32),
    /// The data in the folder was written by a major version that is not installed; no other can read it.
    #[error(
        "the data in {0} was written by PostgreSQL {1}, which is not installed. Install that version, or \
         choose another folder with --data-dir"
    )]
    OtherVersion(PathBuf, u32),
    /// The folder's lock is held, by this process or another, whose number it holds.
    #[error(
        "the data folder {0} is in use by another running instance (pid {1}). Stop it, or choose another with \
         --data-dir"
    )]
    InUse(PathBuf, String),
    /// For root the server runs as the account, who cannot enter the first folder, but could the second.
    #[error(
        "PostgreSQL does not run as root but as the user {0}, who can't enter {1}. Choose a folder it can \
         reach, for example --data-dir {2}"
    )]
    Unreachable(String, PathBuf, PathBuf),
    /// Anything else, in words; what PostgreSQL said last may follow on further lines.
    #[error("{0}")]
    Failed(String),
    /// The operating system refused to do something with the file or folder.
    #[error(
        "can't {0} {1}: {2}. Check its permissions and the disk, or choose another folder with --data-dir"
    )]
    Io(&'static str, PathBuf, #[source] io::Error),
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error + Copy {
    move |source| Error::Io(action, path.to_owned(), source)
}

/// With the end of what PostgreSQL said, as much as a terminal has room for.
pub(super) fn failed(sentence: &str, said: &[u8]) -> Error {
    let said = String::from_utf8_lossy(said);
    let mut lines: Vec<&str> = said.trim_end().lines().rev().take(15).collect();
    lines.push(sentence);
    lines.reverse();
    Error::Failed(lines.join("\n"))
}
