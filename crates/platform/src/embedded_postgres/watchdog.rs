//! Runs the server under a script that ends it when we are gone.

use super::account::{command_as, give_to};
use super::cluster::Site;
use super::error::{failed, io_error};
use super::folder::socket_in;
use super::process::{poll, signal};
use super::{Durability, EmbeddedPostgresError as Error, PORT};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// After a crash the server replays what it had not written out before it is ready.
const START_LIMIT: Duration = Duration::from_mins(2);
const RETRY_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// On the command line, where the `postgresql.conf` of a distribution has no say.
const SETTINGS: &str = "listen_addresses= logging_collector=off log_timezone=UTC timezone=UTC \
                        max_connections=200 max_wal_size=512MB jit=off";
const SETTINGS_WITHOUT_DURABILITY: &str = "fsync=off synchronous_commit=off full_page_writes=off";

/// The running script.
#[derive(Debug)]
pub(super) struct Watchdog {
    child: Child,
    /// Held open because the script may have removed it by the time we want to read it.
    log: File,
}

impl Watchdog {
    /// Starts the server and waits until it is ready. After a crash, processes of the old server may live on
    /// for a moment and make the new one give up, so that is tried again.
    pub(super) fn launch(site: &Site, socket_folder: &Path) -> Result<Self, Error> {
        let has_crashed = site.pid_file().exists();
        let begun = Instant::now();
        loop {
            let spawned = Self::spawn(site, socket_folder);
            let mut watchdog = spawned.map_err(io_error("start a server in", &site.folder))?;
            match watchdog.await_ready(site, socket_folder) {
                Ok(()) => return Ok(watchdog),
                Err(_) if has_crashed && watchdog.has_ended() && begun.elapsed() < RETRY_LIMIT => {
                    thread::sleep(Duration::from_millis(200));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn spawn(site: &Site, socket_folder: &Path) -> io::Result<Self> {
        let mut log = File::options();
        log.read(true).append(true).create(true).mode(0o600);
        let log = log.open(site.folder.join("server.log"))?;
        log.set_len(0)?;
        let mut thrown_away = Path::new("");
        if site.throw_away {
            thrown_away = &site.folder;
            // Last, because from here on the account could replace what we open in the folder.
            give_to(thrown_away, site.account.as_ref())?;
        }
        let mut script = command_as("sh", site.account.as_ref());
        script.args(["-c", include_str!("watchdog.sh"), "watchdog"]);
        script.arg(thrown_away).arg(socket_folder);
        add_server(&mut script, site, socket_folder);
        script.stdout(log.try_clone()?).stderr(log.try_clone()?);
        // Out of the terminal's foreground group: Ctrl-C is for us, who then stop the server in order.
        let child = script.process_group(0).stdin(Stdio::piped()).spawn()?;
        Ok(Self { child, log })
    }

    fn await_ready(&mut self, site: &Site, socket_folder: &Path) -> Result<(), Error> {
        let socket = socket_in(socket_folder);
        let mut has_ended = false;
        let is_over = poll(START_LIMIT, || {
            has_ended = self.has_ended();
            // In this order: a crashed server leaves a file that says ready, but nobody answers on the
            // socket before the new server has written the file anew.
            has_ended || (UnixStream::connect(&socket).is_ok() && says_ready(&site.pid_file()))
        });
        if is_over && !has_ended {
            return Ok(());
        }
        let problem = if has_ended { "ended early" } else { "was not ready in time" };
        let mut said = Vec::new();
        let _ = self.log.rewind().and_then(|()| self.log.read_to_end(&mut said));
        let folder = site.folder.display();
        let sentence = format!("PostgreSQL {problem}. Mend what {folder}/server.log says, then start again");
        Err(failed(&sentence, &said))
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn stop(&mut self) -> Result<(), Error> {
        drop(self.child.stdin.take());
        if poll(STOP_LIMIT, || self.has_ended()) {
            return Ok(());
        }
        signal("KILL", &format!("-{}", self.child.id()));
        let _ = self.child.wait();
        let sentence = "PostgreSQL had to be killed. Start again, and it recovers by itself";
        Err(Error::Failed(sentence.to_owned()))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn add_server(script: &mut Command, site: &Site, socket_folder: &Path) {
    script.arg(site.programs.join("postgres"));
    script.arg("-D").arg(site.cluster());
    let listed = socket_folder.to_string_lossy().replace('"', "\"\"");
    script.args(["-c", &format!("unix_socket_directories=\"{listed}\"")]);
    script.args(["-c", &format!("port={PORT}")]);
    let more = if site.durability == Durability::None { SETTINGS_WITHOUT_DURABILITY } else { "" };
    for setting in [SETTINGS, more].into_iter().flat_map(str::split_whitespace) {
        script.args(["-c", setting]);
    }
}

/// Line 8 of `postmaster.pid` is the server's state.
fn says_ready(pid_file: &Path) -> bool {
    fs::read_to_string(pid_file)
        .is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "ready"))
}
