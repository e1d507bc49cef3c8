//! The PostgreSQL of a run: thrown away at the end, but as durable as one in production while it runs.

use crate::error::BenchError;
use crate::stage::random;
use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use mana_platform::embedded_postgres::{Durability, EmbeddedPostgres, Options};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const DATABASE: &str = "mana";

/// A running server with an empty database.
#[derive(Debug)]
pub(crate) struct Postgres {
    server: EmbeddedPostgres,
    service_password: String,
    folder: PathBuf,
}

impl Postgres {
    pub(crate) async fn start() -> Result<Self, BenchError> {
        let mut name = [0; 8];
        SystemRng.fill(&mut name);
        let name = format!("mana-bench-{:016x}", u64::from_be_bytes(name));
        let folder = std::env::temp_dir().join(name);
        let options = Options { folder: folder.clone(), durability: Durability::Full, throw_away: true };
        let start = move || EmbeddedPostgres::start(&options, &|bytes| SystemRng.fill(bytes));
        let server = tokio::task::spawn_blocking(start).await??;
        let postgres = Self { server, service_password: in_hex(random()), folder };
        postgres.create_database(DATABASE).await?;
        Ok(postgres)
    }

    pub(crate) async fn create_database(&self, name: &str) -> Result<(), BenchError> {
        let mut maintenance = PgConnection::connect_with(&self.owner_options().database("postgres")).await?;
        let statement = format!("CREATE DATABASE {name}");
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut maintenance).await?;
        Ok(maintenance.close().await?)
    }

    /// A program of the server's own version, with its connection to `database` in the environment.
    pub(crate) fn program(&self, name: &str, database: &str) -> Command {
        let mut command = Command::new(self.server.programs().join(name));
        command
            .env_clear()
            .env("PGHOST", self.server.socket_folder())
            .env("PGPORT", self.server.port().to_string())
            .env("PGUSER", self.server.superuser())
            .env("PGPASSWORD", self.server.password())
            .env("PGDATABASE", database);
        command
    }

    pub(crate) fn owner_options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.server.socket_folder())
            .port(self.server.port())
            .username(self.server.superuser())
            .password(self.server.password())
            .database(DATABASE)
    }

    /// A connection as the owner, to look.
    pub(crate) async fn owner(&self) -> Result<PgConnection, BenchError> {
        Ok(PgConnection::connect_with(&self.owner_options()).await?)
    }

    pub(crate) fn owner_url(&self) -> String {
        url(self.server.superuser(), self.server.password(), self.server.socket_folder())
    }

    pub(crate) fn service_url(&self) -> String {
        self.service_url_at(self.server.socket_folder())
    }

    /// The same by way of a pooler whose socket is in `folder`.
    pub(crate) fn service_url_at(&self, folder: &Path) -> String {
        let (user, password) = self.service_login();
        url(user, password, folder)
    }

    /// The service's role and its password.
    pub(crate) fn service_login(&self) -> (&'static str, &str) {
        ("mana_service", &self.service_password)
    }

    pub(crate) fn socket_folder(&self) -> &Path {
        self.server.socket_folder()
    }

    /// Where all of it is; gone at the end.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process that the others are children of.
    pub(crate) fn postmaster(&self) -> Result<u32, BenchError> {
        let text = std::fs::read_to_string(self.folder.join("cluster/postmaster.pid"))?;
        let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
        pid.ok_or_else(|| BenchError::Io(std::io::Error::other("postmaster.pid names no process")))
    }
}

fn url(user: &str, password: &str, folder: &Path) -> String {
    format!("postgres://{user}:{password}@localhost/{DATABASE}?host={}", folder.display())
}

fn in_hex(bytes: [u8; 32]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).concat()
}

/// Running totals of what PostgreSQL wrote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) commits: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Flushes of the log to the disk; none where PostgreSQL counts them elsewhere (18 and later).
    pub(crate) syncs: Option<u64>,
}

impl Written {
    pub(crate) async fn now(connection: &mut PgConnection) -> Result<Self, BenchError> {
        let (commits, records, bytes, syncs): (i64, i64, i64, Option<i64>) = sqlx::query_as(
            "SELECT xact_commit, wal_records, wal_bytes::bigint, (to_jsonb(wal) ->> 'wal_sync')::bigint
             FROM pg_stat_wal AS wal, pg_stat_database WHERE datname = current_database()",
        )
        .fetch_one(connection)
        .await?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(Self {
            commits: count(commits),
            records: count(records),
            bytes: count(bytes),
            syncs: syncs.map(count),
        })
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            commits: self.commits.saturating_sub(earlier.commits),
            records: self.records.saturating_sub(earlier.records),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            syncs: self.syncs.zip(earlier.syncs).map(|(now, then)| now.saturating_sub(then)),
        }
    }
}

/// Looks again and again at what the service's backends wait for, until it is dropped.
#[derive(Debug)]
pub(crate) struct WaitSampler {
    seen: Arc<Mutex<BTreeMap<String, u64>>>,
    task: tokio::task::JoinHandle<()>,
}

impl WaitSampler {
    pub(crate) async fn start(postgres: &Postgres) -> Result<Self, BenchError> {
        let mut connection = postgres.owner().await?;
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(23)).await;
                let Ok(rows) = sqlx::query_as::<_, (String, i64)>(
                    "SELECT CASE WHEN state = 'idle' THEN 'idle'
                                 WHEN wait_event IS NULL THEN 'on a processor or waiting for one'
                                 WHEN wait_event = 'ClientRead' THEN 'in a transaction, waiting for the service'
                                 ELSE wait_event_type || ': ' || wait_event END, count(*)
                     FROM pg_stat_activity WHERE usename = 'mana_service' GROUP BY 1",
                )
                .fetch_all(&mut connection)
                .await
                else {
                    return;
                };
                let mut seen = noted.lock().unwrap_or_else(PoisonError::into_inner);
                for (what, count) in rows {
                    *seen.entry(what).or_default() += u64::try_from(count).unwrap_or(0);
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// What was seen, the most frequent first.
    pub(crate) fn seen(&self) -> Vec<(String, u64)> {
        let mut seen: Vec<_> =
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone().into_iter().collect();
        seen.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        seen
    }
}

impl Drop for WaitSampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}
