//! The folder of a server: where it is, whose it is, and where its socket goes.

use super::account::{Account, give_to};
use super::error::io_error;
use super::{EmbeddedPostgresError as Error, PORT};
use mana_kernel::secret::sha256;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What `sun_path` of a Unix socket address holds, less the final NUL.
const LONGEST_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Where to keep the data when `wanted` is what the person expects: `wanted` itself, unless this is root and
/// the account that runs the server cannot enter one of its parents; then a folder of its own under
/// `/var/lib/mana-core-auth`, the same one every time.
#[must_use]
pub fn default_folder(wanted: &Path) -> PathBuf {
    let absolute = std::path::absolute(wanted).unwrap_or_else(|_| wanted.to_owned());
    match Account::for_folder(&absolute) {
        Some(account) if account.blocked_by(&absolute).is_some() => system_folder(&absolute),
        Some(_) | None => wanted.to_owned(),
    }
}

fn system_folder(wanted: &Path) -> PathBuf {
    let project = wanted.parent().and_then(Path::file_name).unwrap_or_default();
    let name = format!("{}-{}", project.to_string_lossy(), short_hash(wanted));
    Path::new("/var/lib/mana-core-auth").join(name)
}

fn short_hash(path: &Path) -> String {
    let hash = sha256(path.as_os_str().as_bytes());
    let start = hash.first_chunk().copied().map_or(0, u64::from_be_bytes);
    format!("{start:016x}")
}

/// Makes the folder, or refuses it, and says its name without links. For root it stays root's, and the account
/// may only pass through: what root opens by name in there must not be for the account to replace.
pub(super) fn prepare(folder: &Path, account: Option<&Account>, throw_away: bool) -> Result<PathBuf, Error> {
    if let Some(account) = account
        && let Some(blocked) = account.blocked_by(folder)
    {
        let (name, suggestion) = (account.name.clone(), system_folder(folder));
        return Err(Error::Unreachable(name, blocked, suggestion));
    }
    let refused = io_error("prepare", folder);
    fs::create_dir_all(folder).map_err(refused)?;
    let is_empty = fs::read_dir(folder).map_err(refused)?.next().is_none();
    let is_ours = folder.join("lock").exists() && !throw_away;
    if !is_empty && !is_ours {
        let name = folder.display();
        let sentence = "already holds something else. Choose a new or empty folder with --data-dir";
        return Err(Error::Failed(format!("{name} {sentence}")));
    }
    let mode = if account.is_some() { 0o711 } else { 0o700 };
    fs::set_permissions(folder, Permissions::from_mode(mode)).map_err(refused)?;
    fs::canonicalize(folder).map_err(refused)
}

/// The lock lasts as long as the open file, which no child inherits, so it never outlives this process.
pub(super) fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join("lock");
    let refused = io_error("lock", &path);
    let mut options = File::options();
    let opened = options.append(true).create(true).mode(0o600).open(&path);
    let file = opened.map_err(refused)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(source)) => return Err(refused(source)),
        Err(TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&path).map_err(refused)?;
            return Err(Error::InUse(folder.to_owned(), holder.trim().to_owned()));
        }
    }
    fs::write(&path, format!("{}\n", std::process::id())).map_err(refused)?;
    Ok(file)
}

/// Inside the folder when the path will do (addresses of sockets are short, connection strings are text, and
/// in them a comma begins another host), else among the temporary files.
pub(super) fn make_socket_folder(folder: &Path, account: Option<&Account>) -> Result<PathBuf, Error> {
    let inside = folder.join("run");
    let path = socket_in(&inside);
    let will_do = |path: &str| path.len() <= LONGEST_SOCKET_PATH && !path.contains(',');
    let chosen = if path.to_str().is_some_and(will_do) {
        inside
    } else {
        std::env::temp_dir().join(format!("mana-core-auth-{}", short_hash(folder)))
    };
    // Others could have made it first, so it is never taken over: what cannot be removed is not ours.
    let _ = fs::remove_dir_all(&chosen);
    make_private(&chosen, account).map_err(io_error("make", &chosen))?;
    Ok(chosen)
}

pub(super) fn socket_in(socket_folder: &Path) -> PathBuf {
    socket_folder.join(format!(".s.PGSQL.{PORT}"))
}

pub(super) fn make_private(path: &Path, account: Option<&Account>) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    give_to(path, account)
}
