//! Chromium without a window, on a profile of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running browser; it ends with the test.
#[derive(Debug)]
pub(crate) struct Browser(Child);

impl Browser {
    /// Opens `url`. Every name under `mana.test` is this machine.
    pub(crate) fn open(profile: &Path, url: &str) -> Self {
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
            "--host-resolver-rules=MAP *.mana.test 127.0.0.1",
        ]);
        command
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("--remote-debugging-port=0")
            .arg(url);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("chromium is installed (apt-get install chromium)"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Fails when it has ended, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
