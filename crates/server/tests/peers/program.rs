//! A program that runs beside the binary; it ends with the test.

use crate::process::{Home, poll, send_signal};
use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(30);

/// Who runs what refuses to run as root.
pub(crate) fn account() -> u32 {
    let own = fs::metadata("/proc/self").unwrap().uid();
    if own != 0 {
        return own;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let postgres = passwd.lines().find_map(|line| line.strip_prefix("postgres:x:")?.split(':').next());
    postgres.expect("the user postgres is there (apt-get install postgresql)").parse().unwrap()
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    name: &'static str,
    log: PathBuf,
    /// What it stops by.
    signal: &'static str,
}

impl Program {
    /// Starts it as the account, with `input` to read, and waits until it listens on `port`.
    pub(crate) fn start(
        home: &Home,
        (name, package): (&'static str, &str),
        mut command: Command,
        input: &str,
        port: u16,
    ) -> Self {
        let log = home.path().join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::piped()).stdout(file.try_clone().unwrap()).stderr(file);
        let spawned = command.uid(account()).gid(account()).current_dir(home.path()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{name} (apt-get install {package}): {error}"));
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let mut program = Self { child, name, log, signal: "TERM" };
        poll(START_LIMIT, name, || {
            let ended = program.child.try_wait().unwrap();
            assert!(ended.is_none(), "{name} ended: {ended:?}\n{}", program.log());
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        program
    }

    /// With another signal to stop by.
    pub(crate) fn stopped_by(mut self, signal: &'static str) -> Self {
        self.signal = signal;
        self
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn signal(&self, signal: &str) {
        send_signal(signal, &[self.id()]);
    }

    /// Kills it where it is.
    pub(crate) fn kill(mut self) {
        self.signal("KILL");
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        self.signal("CONT");
        self.signal(self.signal);
        for _ in 0..500 {
            if self.has_ended() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} does not stop", self.name);
        // Fails when it has ended, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
