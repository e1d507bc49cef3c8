//! Chromium without a window, on a profile of its own.

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
            "--host-resolver-rules=MAP *.mana.test 127.0.0.1",
        ]);
        command
            .arg(format!("--user-data-dir={}", folder.join("profile").display()))
            .arg("--remote-debugging-port=0")
            .arg(url);
        let stderr = folder.join("browser.err");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&stderr).unwrap());
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
