//! PostgreSQL as the tests' own, for `serve`; and a way to look into any database and meddle.

use crate::process::fresh_path;
use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use mana_platform::embedded_postgres::{Durability, EmbeddedPostgres, Options};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::path::Path;
use tokio::runtime::Runtime;

/// The password of the service's role, as an operator chose it, and as it stands in an address.
pub(crate) const SERVICE_PASSWORD: &str = "chosen@by:us";
pub(crate) const SERVICE_PASSWORD_IN_URL: &str = "chosen%40by%3Aus";

/// 32 bytes under an id.
pub(crate) const ROOT_SECRET: &str = "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// An empty server, thrown away at the end.
#[derive(Debug)]
pub(crate) struct Cluster {
    postgres: EmbeddedPostgres,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let options = Options { folder: fresh_path(), durability: Durability::None, throw_away: true };
        Self { postgres: EmbeddedPostgres::start(&options, &|bytes| SystemRng.fill(bytes)).unwrap() }
    }

    /// A new database.
    pub(crate) fn with_database(self, name: &str) -> Self {
        self.owner("postgres").run(&format!("CREATE DATABASE {name}"));
        self
    }

    pub(crate) fn password(&self) -> &str {
        self.postgres.password()
    }

    /// For `DATABASE_OWNER_URL`.
    pub(crate) fn owner_url(&self, database: &str) -> String {
        self.url(self.postgres.superuser(), self.password(), database)
    }

    /// For `DATABASE_URL`.
    pub(crate) fn service_url(&self, database: &str) -> String {
        self.url("mana_service", SERVICE_PASSWORD_IN_URL, database)
    }

    fn url(&self, user: &str, password: &str, database: &str) -> String {
        let socket = self.postgres.socket_folder().display();
        format!("postgres://{user}:{password}@localhost/{database}?host={socket}")
    }

    pub(crate) fn owner(&self, database: &str) -> Sql {
        Sql::connect(&self.owner_url(database).parse().unwrap())
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
}
