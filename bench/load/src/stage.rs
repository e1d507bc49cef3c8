//! What is measured: the release binary on a PostgreSQL of this run's own, and other children.

use crate::connection::{Connection, get};
use crate::error::BenchError;
use crate::postgres::Postgres;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How the service is run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StageArguments {
    /// The binary to measure
    #[arg(long, visible_alias = "server", default_value = "target/release/mana-core-auth")]
    binary: PathBuf,
    /// A setting of the service, as `DATABASE_MAX_CONNECTIONS=32`; may be given several times
    #[arg(long = "env", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Where its log lines go. A file on the database's disk takes part in what is measured
    #[arg(long, default_value = "/dev/null")]
    log_file: PathBuf,
}

/// Settings that differ from the defaults, and why a measurement needs them: tokens that outlive it, connections that
/// may rest, and a client that is many.
const SETTINGS: [(&str, &str); 4] = [
    ("HOST", "127.0.0.1"),
    ("JWT_ACCESS_TOKEN_EXPIRY", "1d"),
    ("HEADER_TIMEOUT_SECONDS", "300"),
    ("RATE_LIMIT_MAX", "0"),
];

/// A service that answers, and its database. Dropping it stops both.
#[derive(Debug)]
pub(crate) struct Stage {
    // Declared first, dropped first: the server signs off from a database that is still there.
    pub(crate) server: Process,
    /// More servers on the same database.
    pub(crate) more_servers: Vec<Process>,
    /// What else they need: a pooler, Redis.
    pub(crate) neighbours: Vec<Process>,
    pub(crate) postgres: Postgres,
    root_secret: String,
}

impl Stage {
    /// With `settings` of the measurement's own, which those of the arguments may overrule.
    pub(crate) async fn build(
        arguments: &StageArguments,
        settings: &[(&str, &str)],
    ) -> Result<Self, BenchError> {
        if !arguments.binary.exists() {
            return Err(BenchError::NoBinary(arguments.binary.clone()));
        }
        let postgres = Postgres::start().await?;
        let root_secret = format!("bench:{}", BASE64.encode(random()));
        let server = serve(arguments, settings, &postgres, &root_secret).await?;
        Ok(Self { server, more_servers: Vec::new(), neighbours: Vec::new(), postgres, root_secret })
    }

    /// One more server on the same database. What `settings` say counts for it alone.
    pub(crate) async fn add_server(
        &mut self,
        arguments: &StageArguments,
        settings: &[(&str, &str)],
    ) -> Result<SocketAddr, BenchError> {
        let server = serve(arguments, settings, &self.postgres, &self.root_secret).await?;
        let address = server.address;
        self.more_servers.push(server);
        Ok(address)
    }

    /// All its servers.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.server).chain(&self.more_servers)
    }
}

async fn serve(
    arguments: &StageArguments,
    settings: &[(&str, &str)],
    postgres: &Postgres,
    root_secret: &str,
) -> Result<Process, BenchError> {
    let mut command = Command::new(&arguments.binary);
    command.arg("serve").env_clear().envs(SETTINGS);
    command.env("DATABASE_URL", postgres.service_url()).env("DATABASE_OWNER_URL", postgres.owner_url());
    command.env("MANA_SECRET_KEY", root_secret);
    command.envs(settings.iter().copied());
    command.envs(arguments.settings.iter().filter_map(|setting| setting.split_once('=')));
    let server = Process::start("the service", command, "PORT", &arguments.log_file)?;
    server.await_answer(&get("/health/ready")).await?;
    Ok(server)
}

pub(crate) fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    SystemRng.fill(&mut bytes);
    bytes
}

/// A port of the loopback that nobody has.
pub(crate) fn free_address() -> Result<SocketAddr, BenchError> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A child that listens on a port of its own. Dropping it asks it to stop, and kills it if it does not.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Mutex<Child>,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts `command` with its port in the variable or after the argument `port_name`.
    pub(crate) fn start(
        name: &'static str,
        mut command: Command,
        port_name: &str,
        log_file: &Path,
    ) -> Result<Self, BenchError> {
        let address = free_address()?;
        let port = address.port().to_string();
        if port_name.starts_with("--") {
            command.args([port_name, &port]);
        } else {
            command.env(port_name, &port);
        }
        Self::start_at(name, command, address, log_file)
    }

    /// Starts `command`, which knows where to listen.
    pub(crate) fn start_at(
        name: &'static str,
        mut command: Command,
        address: SocketAddr,
        log_file: &Path,
    ) -> Result<Self, BenchError> {
        let log = File::options().append(true).create(true).open(log_file)?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Self { name, child: child.into(), address })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child().id()
    }

    /// Waits until `request` is answered with 200.
    pub(crate) async fn await_answer(&self, request: &[u8]) -> Result<(), BenchError> {
        let begun = Instant::now();
        while begun.elapsed() < START_LIMIT {
            if let Some(status) = self.child().try_wait()? {
                return Err(BenchError::EndedEarly(self.name.to_owned(), status));
            }
            if let Ok(mut connection) = Connection::open(self.address).await
                && connection.exchange(request).await.is_ok_and(|answer| answer.status == 200)
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(BenchError::NotReady(self.name.to_owned(), START_LIMIT))
    }

    /// Waits until `is_ready` says so.
    pub(crate) async fn await_ready(&self, is_ready: impl Fn() -> bool) -> Result<(), BenchError> {
        let begun = Instant::now();
        while begun.elapsed() < START_LIMIT {
            if let Some(status) = self.child().try_wait()? {
                return Err(BenchError::EndedEarly(self.name.to_owned(), status));
            }
            if is_ready() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(BenchError::NotReady(self.name.to_owned(), START_LIMIT))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.child();
        // Each of these fails when it has ended, which is as well.
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let begun = Instant::now();
        while begun.elapsed() < STOP_LIMIT {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}
