//! Chromium without a window, on a profile of its own.

use crate::devtools::Devtools;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running browser; it ends with the test.
#[derive(Debug)]
pub(crate) struct Browser {
    child: Child,
    stderr: PathBuf,
}

impl Browser {
    /// Opens `url`, with a profile in `folder`. Every name under `mana.test` is this machine.
    pub(crate) fn open(folder: &Path, url: &str) -> Self {
        let mut command = Command::new("chromium");
        command.args(["--remote-debugging-port=0", url]).stdin(Stdio::null()).stdout(Stdio::null());
        Self::start(command, folder, "MAP *.mana.test 127.0.0.1")
    }

    /// Opens nothing, and lets itself be driven. `names` says where it finds which host (its `--host-resolver-rules`).
    pub(crate) fn driven(folder: &Path, names: &str) -> (Self, Devtools) {
        // It talks on the third and fourth of its open files, where this process can't put any but by a shell.
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null"#, "sh", "chromium"]);
        command.arg("--remote-debugging-pipe").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut browser = Self::start(command, folder, names);
        let (to, from) = (browser.child.stdin.take().unwrap(), browser.child.stdout.take().unwrap());
        (browser, Devtools::new(to, from))
    }

    fn start(mut command: Command, folder: &Path, names: &str) -> Self {
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--ignore-certificate-errors",
            // What a page writes to its console, a blocked request for one, goes to standard error.
            "--enable-logging=stderr",
        ]);
        command
            .arg(format!("--host-resolver-rules={names}"))
            .arg(format!("--user-data-dir={}", folder.join("profile").display()));
        let stderr = folder.join("browser.err");
        command.stderr(File::create(&stderr).unwrap());
        let child = command.spawn().expect("chromium is installed (apt-get install chromium)");
        Self { child, stderr }
    }

    /// What its pages wrote to their consoles.
    pub(crate) fn console(&self) -> String {
        let stderr = fs::read_to_string(&self.stderr).unwrap();
        stderr.lines().filter(|line| line.contains("CONSOLE")).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Fails when it has ended, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
