//! A database per test, on one throw-away PostgreSQL per test process.
//!
//! The server is a child of the process and ends with it, killed or not; its folder vanishes with it. Each test gets a
//! copy of a migrated template, which takes milliseconds.

use crate::begin_with_time_left_today;
use crate::pooler::{self, Pooler};
use mana_kernel::Rng as _;
use mana_platform::embedded_postgres::{Durability, EmbeddedPostgres, Options};
use mana_platform::migrate::{self, ServiceLogin};
use mana_platform::{Database, SystemRng};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const TEMPLATE: &str = "migrated";
const SERVICE: &str = "mana_service";
/// What a story takes at most, on a busy machine.
const STORY: Duration = Duration::from_mins(2);

const SERVICE_PASSWORD: &str = "a password that only tests use";

/// Set, lets the service's role reach its databases through a pooler only: `mixed` through one that mixes prepared statements up, `prepared`
/// through one that keeps them apart. `cargo xtask pooled` sets it.
const THROUGH_POOLER: &str = "MANA_TEST_THROUGH_PGBOUNCER";

static POOLER: OnceLock<Option<Pooler>> = OnceLock::new();
static SERVER: OnceLock<EmbeddedPostgres> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A migrated database of one test's own.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
}

impl TestDatabase {
    /// A new one. The first in a process starts the server.
    ///
    /// # Panics
    /// When there is no PostgreSQL to start: a test that can't run has failed.
    pub async fn new() -> Self {
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let ready = || {
            SERVER.get_or_init(start);
            begin_with_time_left_today(STORY);
        };
        tokio::task::spawn_blocking(ready).await.expect("the test server starts");
        let mut owner =
            PgConnection::connect_with(&owner_options("postgres")).await.expect("the test server answers");
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")))
            .execute(&mut owner)
            .await
            .expect("the template can be copied");
        owner.close().await.expect("the connection closes");
        Self { name }
    }

    /// A pool as the server's role, as the product has it.
    pub fn service(&self) -> Database {
        let (options, wait) = (self.service_options(), Duration::from_secs(20));
        match POOLER.get_or_init(pooler) {
            None => Database::new(options, 16, wait),
            Some(pooler) => {
                let options = options.socket(&pooler.folder).port(pooler::PORT).extra_float_digits(None);
                if pooler.keeps_apart {
                    return Database::new(options, 16, wait);
                }
                Database::new(options.statement_cache_capacity(0), 16, wait).in_transactions_only()
            }
        }
    }

    /// How the server's role signs in.
    pub fn service_options(&self) -> PgConnectOptions {
        options(&self.name).username(SERVICE).password(SERVICE_PASSWORD)
    }

    /// A connection as the owner, to look and to meddle.
    ///
    /// # Panics
    /// When the server is gone.
    pub async fn owner(&self) -> PgConnection {
        PgConnection::connect_with(&owner_options(&self.name)).await.expect("the test server answers")
    }
}

#[expect(clippy::disallowed_methods, reason = "how cargo xtask tells tests what they are to go through")]
fn pooler() -> Option<Pooler> {
    let server = SERVER.get().expect("a TestDatabase has started the server");
    let keeps_apart = match std::env::var(THROUGH_POOLER).ok()?.as_str() {
        "mixed" => false,
        "prepared" => true,
        other => panic!("{THROUGH_POOLER} is mixed or prepared, not {other}"),
    };
    Some(Pooler::start(server.socket_folder(), SERVICE, SERVICE_PASSWORD, keeps_apart))
}

fn options(database: &str) -> PgConnectOptions {
    let server = SERVER.get().expect("a TestDatabase has started the server");
    PgConnectOptions::new_without_pgpass()
        .socket(server.socket_folder())
        .port(server.port())
        .database(database)
}

fn owner_options(database: &str) -> PgConnectOptions {
    let server = SERVER.get().expect("a TestDatabase has started the server");
    options(database).username(server.superuser()).password(server.password())
}

/// Starts the server and migrates the template, on a thread that may block.
fn start() -> EmbeddedPostgres {
    let mut name = [0; 8];
    SystemRng.fill(&mut name);
    let folder = std::env::temp_dir().join(format!("mana-test-{:016x}", u64::from_be_bytes(name)));
    let options = Options { folder, durability: Durability::None, throw_away: true };
    let server = EmbeddedPostgres::start(&options, &|bytes| SystemRng.fill(bytes))
        .unwrap_or_else(|error| panic!("tests need a PostgreSQL server: {error}"));
    let owner = PgConnectOptions::new_without_pgpass()
        .socket(server.socket_folder())
        .port(server.port())
        .username(server.superuser())
        .password(server.password());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let mut connection = PgConnection::connect_with(&owner.clone().database("postgres"))
            .await
            .expect("the server answers");
        sqlx::query("CREATE DATABASE migrated")
            .execute(&mut connection)
            .await
            .expect("a database can be made");
        connection.close().await.expect("the connection closes");
        let password = SERVICE_PASSWORD.to_owned().into();
        let login = ServiceLogin { name: SERVICE, password: Some(&password) };
        migrate::migrate(&owner.database(TEMPLATE), Some(login), &SystemRng)
            .await
            .expect("the migrations apply");
    });
    server
}
