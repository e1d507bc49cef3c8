//! PostgreSQL as the tests' own, for `serve`; and a way to look into any database and meddle.

use crate::process::{Done, Home, TEST, fresh_path, poll, processes_under, send_signal};
use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use mana_platform::embedded_postgres::{Durability, EmbeddedPostgres, Options};
use mana_testkit::begin_with_time_left_today;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, FromRow, PgConnection};
use std::path::Path;
use std::thread;
use std::time::Duration;
use tokio::runtime::Runtime;

/// The password of the service's role, as an operator chose it, and as it stands in an address.
pub(crate) const SERVICE_PASSWORD: &str = "chosen@by:us";
pub(crate) const SERVICE_PASSWORD_IN_URL: &str = "chosen%40by%3Aus";

/// 32 bytes under an id.
pub(crate) const ROOT_SECRET: &str = "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// An empty server, thrown away at the end.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Absent only while it is started anew.
    postgres: Option<EmbeddedPostgres>,
    options: Options,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        begin_with_time_left_today(TEST);
        Self::of(Options { folder: fresh_path(), durability: Durability::None, throw_away: true })
    }

    /// One that keeps what it has committed when it is killed. It ends with the home.
    pub(crate) fn durable(home: &Home) -> Self {
        let folder = home.path().join("postgres");
        Self::of(Options { folder, durability: Durability::Full, throw_away: false })
    }

    fn of(options: Options) -> Self {
        Self { postgres: Some(launch(&options)), options }
    }

    fn postgres(&self) -> &EmbeddedPostgres {
        self.postgres.as_ref().unwrap()
    }

    /// The server and all that it has started.
    fn processes(&self) -> Vec<u32> {
        let noted = std::fs::read_to_string(self.options.folder.join("cluster/postmaster.pid")).unwrap();
        processes_under(noted.lines().next().unwrap().trim().parse().unwrap())
    }

    /// Kills every process of a durable server where it is, and starts it anew.
    pub(crate) fn crash(&mut self) {
        // Stopped first, it starts no more of them.
        send_signal("STOP", &self.processes()[..1]);
        send_signal("KILL", &self.processes());
        drop(self.postgres.take());
        self.postgres = Some(launch(&self.options));
    }

    /// Lets no process of the server go on until what this gives is dropped.
    pub(crate) fn pause(&self) -> Pause {
        send_signal("STOP", &self.processes()[..1]);
        let processes = self.processes();
        send_signal("STOP", &processes);
        Pause(processes)
    }

    /// What `ledger verify` says of all that is in the books of a database.
    pub(crate) fn verify(&self, database: &str) -> Done {
        let home = Home::new();
        let verify = home.command(&["ledger", "verify"]).env("DATABASE_URL", self.service_url(database));
        verify.env("MANA_SECRET_KEY", ROOT_SECRET).run()
    }

    /// They are as they must be.
    pub(crate) fn books_are_true(&self, database: &str) {
        self.verify(database).succeeded();
    }

    /// Changes a setting of the whole server, or takes the change back.
    pub(crate) fn alter(&self, change: &str) {
        let mut owner = self.owner("postgres");
        owner.run(&format!("ALTER SYSTEM {change}"));
        owner.run("SELECT pg_reload_conf()");
    }

    /// A new database.
    pub(crate) fn with_database(self, name: &str) -> Self {
        self.owner("postgres").run(&format!("CREATE DATABASE {name}"));
        self
    }

    pub(crate) fn password(&self) -> &str {
        self.postgres().password()
    }

    /// For `DATABASE_OWNER_URL`.
    pub(crate) fn owner_url(&self, database: &str) -> String {
        self.url(self.postgres().superuser(), self.password(), database)
    }

    /// For `DATABASE_URL`.
    pub(crate) fn service_url(&self, database: &str) -> String {
        self.url("mana_service", SERVICE_PASSWORD_IN_URL, database)
    }

    fn url(&self, user: &str, password: &str, database: &str) -> String {
        let socket = self.socket_folder().display();
        format!("postgres://{user}:{password}@localhost/{database}?host={socket}")
    }

    pub(crate) fn socket_folder(&self) -> &Path {
        self.postgres().socket_folder()
    }

    pub(crate) fn owner(&self, database: &str) -> Sql {
        Sql::connect(&self.owner_url(database).parse().unwrap())
    }
}

fn launch(options: &Options) -> EmbeddedPostgres {
    EmbeddedPostgres::start(options, &|bytes| SystemRng.fill(bytes)).unwrap()
}

/// Processes that stand still until this is dropped: one that does could not be stopped either.
#[derive(Debug)]
pub(crate) struct Pause(Vec<u32>);

impl Drop for Pause {
    fn drop(&mut self) {
        send_signal("CONT", &self.0);
    }
}

/// A connection that blocks.
#[derive(Debug)]
pub(crate) struct Sql {
    runtime: Runtime,
    connection: PgConnection,
}

impl Sql {
    pub(crate) fn connect(options: &PgConnectOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(PgConnection::connect_with(options)).unwrap();
        Self { runtime, connection }
    }

    /// As the owner of the database of a running dev mode.
    pub(crate) fn of_dev(data: &Path) -> Self {
        let password = std::fs::read_to_string(data.join("postgres/password")).unwrap();
        let socket = std::fs::read_to_string(data.join("socket")).unwrap();
        let options = PgConnectOptions::new_without_pgpass().socket(socket).username("postgres");
        Self::connect(&options.password(password.trim()).database("mana"))
    }

    pub(crate) fn run(&mut self, statements: &str) {
        let statements = sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut self.connection);
        self.runtime.block_on(statements).unwrap();
    }

    /// Ends the connections that the service has by now, and returns when they are gone: those too that are let in already and not listed yet.
    pub(crate) fn end_connections(&mut self) {
        self.run("SELECT set_config('tests.begun', clock_timestamp()::text, false)");
        poll(Duration::from_secs(20), "the end of its connections", || {
            self.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE usename = 'mana_service' AND backend_start < current_setting('tests.begun')::timestamptz",
            );
            thread::sleep(Duration::from_millis(200));
            let left: Vec<(i64,)> = self.rows(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE usename = 'mana_service' AND backend_start < current_setting('tests.begun')::timestamptz",
            );
            (left == [(0,)]).then_some(())
        });
    }

    pub(crate) fn rows<Row>(&mut self, query: &'static str) -> Vec<Row>
    where
        Row: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        self.runtime.block_on(sqlx::query_as(query).fetch_all(&mut self.connection)).unwrap()
    }
}
