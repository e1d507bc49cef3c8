//! A disk of a test's own that can be full.

use crate::process::poll;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Nobody reaches it: only what is written takes memory.
const SIZE_KIB: u64 = 8 * 1024 * 1024;

/// A file system in memory, as large as the test wants.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Over an empty folder, for one account.
    pub(crate) fn mount(folder: &Path, account: u32) -> Self {
        let options = format!("size={SIZE_KIB}k,mode=0700,uid={account},gid={account}");
        let arguments = ["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), options.as_ref(), "mana".as_ref()];
        let is_mounted = run("mount", &[&arguments[..], &[folder.as_ref()]].concat()).is_some();
        assert!(is_mounted, "a disk can be mounted (as root, in a container with SYS_ADMIN)");
        Self { folder: folder.to_owned() }
    }

    /// Leaves no room for another page.
    pub(crate) fn fill(&self) {
        // What is written between the look and the change makes the change impossible.
        poll(Duration::from_secs(10), "a disk that is full", || {
            let used =
                run("df", &["--output=used".as_ref(), "--block-size=1K".as_ref(), self.folder.as_ref()])?;
            self.resize(used.lines().last()?.trim().parse().ok()?)
        });
    }

    /// Makes room again.
    pub(crate) fn free(&self) {
        self.resize(SIZE_KIB).unwrap();
    }

    fn resize(&self, kib: u64) -> Option<()> {
        let options = format!("remount,size={kib}k");
        run("mount", &["-o".as_ref(), options.as_ref(), self.folder.as_ref()]).map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there keeps it to the end.
        if run("umount", &["--lazy".as_ref(), self.folder.as_ref()]).is_none() {
            eprintln!("{} stays mounted", self.folder.display());
        }
    }
}

/// What it prints, if it ends well.
fn run(program: &str, arguments: &[&OsStr]) -> Option<String> {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
