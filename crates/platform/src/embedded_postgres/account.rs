//! Who runs the server. PostgreSQL refuses to run as root, so for root another account does.

use super::process::shell;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The account that runs the server when this process is root.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// None for an ordinary user, who runs the server itself, and when there is no account, which PostgreSQL
    /// then says. The owner of existing data goes first: data stays usable when the `postgres` user arrives.
    pub(super) fn for_folder(folder: &Path) -> Option<Self> {
        if id("-u", "")? != 0 {
            return None;
        }
        let (name, uid, gid) = match fs::symlink_metadata(folder.join("cluster")) {
            Ok(data) => (data.uid().to_string(), data.uid(), data.gid()),
            Err(_) => ["postgres", "nobody"]
                .into_iter()
                .find_map(|name| Some((name.to_owned(), id("-u", name)?, id("-g", name)?)))?,
        };
        Some(Self { name, uid, gid })
    }

    /// The topmost existing parent of the folder that the account cannot enter. The folder itself does not
    /// count, its permissions are ours to set.
    pub(super) fn blocked_by(&self, folder: &Path) -> Option<PathBuf> {
        let is_blocked = |parent: &&Path| {
            let test = command_as("test", Some(self)).arg("-x").arg(parent).status();
            !test.is_ok_and(|status| status.success())
        };
        let parents = folder.ancestors().skip(1).filter(|parent| parent.exists());
        parents.filter(is_blocked).last().map(Path::to_owned)
    }
}

/// Of the named user, or of this process.
fn id(which: &str, user: &str) -> Option<u32> {
    let output = shell(r#"id "$1" $2"#, &[which, user]).ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Where the shell and its tools are on every system that PostgreSQL is packaged for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/opt/homebrew/bin";

/// A command that runs as the account, from a folder every account can enter, and speaks English.
pub(super) fn command_as(program: impl AsRef<OsStr>, account: Option<&Account>) -> Command {
    let mut command = Command::new(program);
    // Our environment may hold secrets, and the account may read that of its own processes.
    command.current_dir("/").env_clear().env("PATH", PATH).env("LC_ALL", "C");
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

pub(super) fn give_to(path: &Path, account: Option<&Account>) -> io::Result<()> {
    let Some(account) = account else { return Ok(()) };
    chown(path, Some(account.uid), Some(account.gid))
}
