//! Roles and schema: made, checked and brought up to date by the owner of the database.
//!
//! Three roles. The **owner** (whoever `DATABASE_OWNER_URL` names) makes the others and migrates. **`mana_service`** is
//! what the server signs in as: it owns nothing and can't bypass row-level security. **`mana_user`** can't sign in;
//! the server switches to it inside a transaction that acts for a user.
//!
//! Everything happens under a transaction-level advisory lock: several servers may start at once, and a pooler in transaction
//! mode can't leave the lock behind. Migrations are one transaction, but for those that build an index or validate a constraint while the
//! service writes (`-- no-transaction`): these stand alone, and may be tried again. What stands before such a one is kept when it fails, and so
//! is it when what stands behind it fails.

use crate::migration_plan::{self, Step};
use crate::pooler;
use crate::refusal::{Unreached, quoted, said};
use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mana_kernel::Rng;
use mana_kernel::secret::sha256;
use sqlx::migrate::{MigrateError, Migration, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// The migrations of this binary.
static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Any number, as long as nothing else in the database locks it.
const LOCK: i64 = 0x6d61_6e61;

/// Between two tries to get the lock.
const TURN: Duration = Duration::from_millis(100);

/// Whoever waits for a table keeps all waiting that come later, so no migration waits for long.
const LOCK_TIMEOUT: &str = "5s";

/// The newest schema that the release before this one knows. Its servers work on this one's, by the rules for migrations; older ones need not.
/// Whoever has made a release writes its newest migration here, beside the revision in `xtask/src/previous.rs`.
pub const WORKS_FROM: i64 = 25;

/// How a database that was migrated says this to servers that know less than it has: in the comment of its list of migrations, which is
/// there without a migration, and comes along with every copy.
const SAYS_WORKS_FROM: &str = "Servers of this schema and newer work here: ";

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A newer program has migrated this database.
    #[error(
        "the database is at schema {database}, which is newer than the {binary} that this program knows, and not made for it. \
         Start the program's newer version, or restore the database from before its upgrade"
    )]
    Newer {
        /// Version of the database.
        database: i64,
        /// Newest version this binary knows.
        binary: i64,
    },
    /// The database lacks migrations.
    #[error(
        "the database is at schema {database}, this program needs {binary}. \
         Run `mana-core-auth migrate` with DATABASE_OWNER_URL set, or set it for `serve`"
    )]
    Older {
        /// Version of the database, 0 for an empty one.
        database: i64,
        /// Version this binary needs.
        binary: i64,
    },
    /// An applied migration is not the one this binary knows by that number.
    #[error(
        "migration {0} in the database is not this program's migration {0}: the database belongs to another build"
    )]
    Foreign(i64),
    /// A role could not be made.
    #[error(
        "the role {role} can't be made: {}. DATABASE_OWNER_URL needs a role with CREATEROLE, \
         or an administrator creates {role} beforehand", said(.cause)
    )]
    Role {
        /// The role's name.
        role: String,
        /// What PostgreSQL said.
        cause: sqlx::Error,
    },
    /// Somebody uses a table that has to change, for longer than others may be kept waiting.
    #[error(
        "a migration waited {LOCK_TIMEOUT} for a table that somebody uses, and gave way; {reached}. \
         `mana-core-auth doctor --upgrade` says who holds it; run `migrate` again when that is over"
    )]
    Locked {
        /// How far it came.
        reached: Reached,
    },
    /// The owner's way leads through a pooler.
    #[error(
        "DATABASE_OWNER_URL leads to a pooler in transaction mode, through which nobody can migrate: the lock under which one program alone \
         migrates, and an index that is built meanwhile, want connections of their own. Give it the address of PostgreSQL itself"
    )]
    Pooled,
    /// The owner's role does not own what has to change.
    #[error(
        "the schema can't be made or changed; {reached}. PostgreSQL says: {said}. DATABASE_OWNER_URL names the role {user}, but it takes the one that \
         owns the database and made its schemas: name that one, or, if there are none yet, have the owner say ALTER DATABASE {} OWNER TO {}",
        quoted(.database), quoted(.user)
    )]
    NotOwner {
        /// How far it came.
        reached: Reached,
        /// What PostgreSQL said.
        said: String,
        /// The role.
        user: String,
        /// The database.
        database: String,
    },
    /// Anything else the migrator met.
    #[error("a migration failed; {reached}: {}", in_few_words(.cause))]
    Failed {
        /// How far it came.
        reached: Reached,
        /// What it met.
        cause: MigrateError,
    },
    /// PostgreSQL is out of reach, or lets the owner not in.
    #[error(transparent)]
    Unreached(#[from] Unreached),
    /// The database could not be asked.
    #[error("the database can't be asked: {}", said(.0))]
    Database(#[from] sqlx::Error),
}

/// What the migrator met, with the number of the migration and without that of a line in PostgreSQL's source.
fn in_few_words(error: &MigrateError) -> String {
    if let MigrateError::ExecuteMigration(cause, version) = error {
        return format!("in migration {version}: {}", said(cause));
    }
    if let MigrateError::Execute(cause) = error { said(cause) } else { error.to_string() }
}

/// The version that a database is at after a migration failed: all up to it was carried out, nothing behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached(Option<i64>);

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(version) => write!(f, "the database is at schema {version}"),
            None => f.write_str("at which schema the database is could not be asked"),
        }
    }
}

/// The sign-in of the server, as `DATABASE_URL` names it.
#[derive(Debug)]
pub struct ServiceLogin<'a> {
    /// Role name; `mana_service` or a role that is to become a member of it.
    pub name: &'a str,
    /// Password for the role if it has to be made.
    pub password: Option<&'a secrecy::SecretString>,
}

/// Newest schema version this binary knows.
pub fn binary_version() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Makes what roles are missing and applies what migrations are missing. Does nothing when all is there.
///
/// # Errors
/// When the database is newer than this binary, or the owner lacks a right; nothing is changed then. When a migration fails: the error says
/// which version was reached, and all up to it is kept.
pub async fn migrate(
    owner: &PgConnectOptions,
    login: Option<ServiceLogin<'_>>,
    rng: &dyn Rng,
) -> Result<(), SchemaError> {
    run(&MIGRATIONS.migrations, owner, login, rng).await
}

async fn run(
    migrations: &[Migration],
    owner: &PgConnectOptions,
    login: Option<ServiceLogin<'_>>,
    rng: &dyn Rng,
) -> Result<(), SchemaError> {
    if pooler::stands_before(owner).await.map_err(|error| Unreached::owner(&error, owner))? {
        return Err(SchemaError::Pooled);
    }
    // Holds the lock and does nothing else: what builds an index waits for older transactions that have read something.
    let mut guard = PgConnection::connect_with(owner).await?;
    take_lock(&mut guard).await?;
    let mut connection = PgConnection::connect_with(owner).await?;
    let migrator = migrator(migrations.to_vec());
    let mut login = login;
    for stretch in stretches(migrations) {
        let ran = match stretch {
            Stretch::Together(last) => {
                let mut transaction = connection.begin().await?;
                ensure_roles(&mut transaction, login.take(), rng).await?;
                ensure_hang_ups_are_noticed(&mut transaction).await?;
                sqlx::query("SELECT set_config('lock_timeout', $1, true)")
                    .bind(LOCK_TIMEOUT)
                    .execute(&mut *transaction)
                    .await?;
                let ran = migrator.run_direct(Some(last), &mut *transaction, false).await;
                if ran.is_ok() {
                    let says = format!("COMMENT ON TABLE mana.migrations IS '{SAYS_WORKS_FROM}{WORKS_FROM}'");
                    sqlx::raw_sql("GRANT SELECT ON mana.migrations TO mana_service")
                        .execute(&mut *transaction)
                        .await?;
                    sqlx::raw_sql(AssertSqlSafe(says)).execute(&mut *transaction).await?;
                    transaction.commit().await?;
                } else {
                    transaction.rollback().await?;
                }
                ran
            }
            Stretch::Alone(version) => {
                drop_unfinished_indexes(&mut connection).await?;
                migrator.run_direct(Some(version), &mut connection, false).await
            }
        };
        if let Err(cause) = ran {
            let reached = Reached(version_of(&mut connection).await.ok());
            return Err(in_words(cause, reached, owner));
        }
    }
    connection.close().await?;
    sqlx::raw_sql("COMMIT").execute(&mut guard).await?;
    guard.close().await?;
    Ok(())
}

/// Begins the transaction that holds the lock. Whoever waits asks again and again: a statement that waited inside PostgreSQL would be
/// an older transaction that has read something, which is what the holder waits for when it builds an index.
async fn take_lock(guard: &mut PgConnection) -> Result<(), sqlx::Error> {
    loop {
        sqlx::raw_sql("BEGIN").execute(&mut *guard).await?;
        let is_taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut *guard)
            .await?;
        if is_taken {
            return Ok(());
        }
        sqlx::raw_sql("ROLLBACK").execute(&mut *guard).await?;
        tokio::time::sleep(TURN).await;
    }
}

/// Migrations that are carried out at once.
#[derive(Debug, PartialEq, Eq)]
enum Stretch {
    /// In one transaction, up to this version.
    Together(i64),
    /// This one, in none.
    Alone(i64),
}

fn stretches(migrations: &[Migration]) -> Vec<Stretch> {
    // Even if there is nothing to migrate, there may be roles to make.
    let mut stretches = vec![Stretch::Together(0)];
    for migration in migrations {
        match (stretches.last_mut(), migration.no_tx) {
            (_, true) => stretches.push(Stretch::Alone(migration.version)),
            (Some(Stretch::Together(last)), false) => *last = migration.version,
            (_, false) => stretches.push(Stretch::Together(migration.version)),
        }
    }
    stretches
}

/// What is left of an index whose building was cut off is in nobody's way but that of the next attempt.
async fn drop_unfinished_indexes(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let unfinished: Vec<String> = sqlx::query_scalar(
        "SELECT format('DROP INDEX CONCURRENTLY %I.%I', nspname, relname)
         FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
         WHERE NOT indisvalid AND nspname IN ('auth', 'credits', 'mana')",
    )
    .fetch_all(&mut *connection)
    .await?;
    for statement in unfinished {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// A migration that would be run.
#[derive(Debug)]
pub struct Planned {
    /// Its number.
    pub version: i64,
    /// What it is about.
    pub description: String,
    /// Whether it is carried out by itself and without a transaction, while the service writes.
    pub alone: bool,
    /// What it does to tables that are there.
    pub steps: Vec<PlannedStep>,
}

/// A statement and the table that it meets.
#[derive(Debug)]
pub struct PlannedStep {
    /// What it does.
    pub step: Step,
    /// Rows of its table, as PostgreSQL last counted them, if it ever did.
    pub rows: Option<i64>,
    /// The table's size in bytes, without its indexes.
    pub bytes: i64,
}

/// What [`migrate`] would do. Changes nothing.
///
/// # Errors
/// When the database is newer than this binary, or can't be asked.
pub async fn plan(owner: &PgConnectOptions) -> Result<Vec<Planned>, SchemaError> {
    if pooler::stands_before(owner).await.map_err(|error| Unreached::owner(&error, owner))? {
        return Err(SchemaError::Pooled);
    }
    let mut connection = PgConnection::connect_with(owner).await?;
    let (applied, binary) = (version_of(&mut connection).await?, binary_version());
    if applied > binary {
        return Err(SchemaError::Newer { database: applied, binary });
    }
    let mut planned = Vec::new();
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > applied) {
        let mut steps = Vec::new();
        for step in migration_plan::steps(migration.sql.as_str()) {
            let (rows, bytes) = size(&mut connection, step.table.as_deref().unwrap_or_default()).await?;
            steps.push(PlannedStep { step, rows, bytes });
        }
        let description = migration.description.to_string();
        planned.push(Planned { version: migration.version, description, alone: migration.no_tx, steps });
    }
    connection.close().await?;
    Ok(planned)
}

/// Rows and bytes. A table that is not there yet has none; one that was filled since it was last counted, if ever, is not empty for that.
async fn size(connection: &mut PgConnection, table: &str) -> Result<(Option<i64>, i64), sqlx::Error> {
    let size = sqlx::query_as(
        "SELECT CASE WHEN reltuples > 0 THEN reltuples::bigint WHEN pg_relation_size(oid) = 0 THEN 0 END, pg_table_size(oid)
         FROM pg_class WHERE oid = to_regclass($1)",
    );
    Ok(size.bind(table).fetch_optional(connection).await?.unwrap_or((Some(0), 0)))
}

fn in_words(error: MigrateError, reached: Reached, owner: &PgConnectOptions) -> SchemaError {
    if let MigrateError::VersionMissing(database) = error {
        return SchemaError::Newer { database, binary: binary_version() };
    }
    if let MigrateError::VersionMismatch(version) = error {
        return SchemaError::Foreign(version);
    }
    let (MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)) = &error else {
        return SchemaError::Failed { reached, cause: error };
    };
    match cause.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
        Some("55P03") => SchemaError::Locked { reached },
        Some("42501") => {
            let user = owner.get_username().to_owned();
            let database = owner.get_database().unwrap_or(&user).to_owned();
            SchemaError::NotOwner { reached, said: said(cause), user, database }
        }
        _ => SchemaError::Failed { reached, cause: error },
    }
}

/// Whether this binary can serve on the schema, and which that is: the one it knows, or that of the release after it.
///
/// # Errors
/// When it is older, newer than that, or can't be asked.
pub async fn check(connection: &mut PgConnection) -> Result<i64, SchemaError> {
    let database = version_of(connection).await?;
    let binary = binary_version();
    match database.cmp(&binary) {
        std::cmp::Ordering::Less => Err(SchemaError::Older { database, binary }),
        std::cmp::Ordering::Equal => Ok(database),
        std::cmp::Ordering::Greater => match works_from(connection).await? {
            Some(oldest) if oldest <= binary => Ok(database),
            _ => Err(SchemaError::Newer { database, binary }),
        },
    }
}

/// The oldest schema whose servers work on the database's, as the newest program that migrated it says.
async fn works_from(connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    let comment: Option<String> =
        sqlx::query_scalar("SELECT obj_description('mana.migrations'::regclass, 'pg_class')")
            .fetch_one(connection)
            .await?;
    Ok(comment.and_then(|comment| comment.strip_prefix(SAYS_WORKS_FROM)?.parse().ok()))
}

/// The version of the database, 0 of an empty one.
async fn version_of(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('mana.migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM mana.migrations").fetch_one(connection).await
}

fn migrator(migrations: Vec<Migration>) -> Migrator {
    let mut migrator = Migrator { migrations: Cow::Owned(migrations), ..Migrator::DEFAULT };
    migrator.set_locking(false);
    migrator.create_schema("mana");
    migrator.dangerous_set_table_name("mana.migrations");
    migrator
}

async fn ensure_roles(
    connection: &mut PgConnection,
    login: Option<ServiceLogin<'_>>,
    rng: &dyn Rng,
) -> Result<(), SchemaError> {
    ensure_role(connection, "mana_user", "NOLOGIN").await?;
    let service = login.as_ref().filter(|login| login.name == "mana_service");
    ensure_role(connection, "mana_service", &login_attributes(service, rng)).await?;
    ensure_member(connection, "mana_user", "mana_service").await?;
    if let Some(login) = login.filter(|login| login.name != "mana_service") {
        ensure_role(connection, login.name, &login_attributes(Some(&login), rng)).await?;
        ensure_member(connection, "mana_service", login.name).await?;
    }
    Ok(())
}

fn login_attributes(login: Option<&ServiceLogin<'_>>, rng: &dyn Rng) -> String {
    use secrecy::ExposeSecret as _;
    match login.map(|login| login.password) {
        None => "NOLOGIN".to_owned(),
        Some(None) => "LOGIN".to_owned(),
        Some(Some(password)) => format!("LOGIN PASSWORD '{}'", scram_verifier(password.expose_secret(), rng)),
    }
}

/// Makes the role if there is none; an existing one keeps its password.
async fn ensure_role(connection: &mut PgConnection, role: &str, attributes: &str) -> Result<(), SchemaError> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(role)
        .fetch_one(&mut *connection)
        .await?;
    if exists {
        return Ok(());
    }
    let quoted: String =
        sqlx::query_scalar("SELECT quote_ident($1)").bind(role).fetch_one(&mut *connection).await?;
    // Roles belong to the whole cluster, the lock to one database: another database may have made it meanwhile.
    let mut attempt = connection.begin().await?;
    match sqlx::query(AssertSqlSafe(format!("CREATE ROLE {quoted} NOSUPERUSER NOBYPASSRLS {attributes}")))
        .execute(&mut *attempt)
        .await
    {
        Ok(_) => attempt.commit().await?,
        Err(error) if is_already_there(&error) => attempt.rollback().await?,
        Err(cause) => {
            return Err(SchemaError::Role { role: role.to_owned(), cause });
        }
    }
    Ok(())
}

/// Has PostgreSQL look every two seconds whether who asked is still there, while a statement runs or waits for a lock. By itself it does not:
/// who hangs up frees a place of the pool, and leaves a backend that waits on. What the operator has set stays.
async fn ensure_hang_ups_are_noticed(connection: &mut PgConnection) -> Result<(), SchemaError> {
    let statement: Option<String> = sqlx::query_scalar(
        "SELECT format('ALTER DATABASE %I SET client_connection_check_interval = %L', current_database(), '2s')
         WHERE current_setting('client_connection_check_interval') = '0'",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(statement) = statement else { return Ok(()) };
    let mut attempt = connection.begin().await?;
    match sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut *attempt).await {
        Ok(_) => attempt.commit().await?,
        // Another's database, or a system on which PostgreSQL can't look.
        Err(cause) => {
            attempt.rollback().await?;
            tracing::warn!(%cause, statement, "PostgreSQL will not notice who hangs up; an administrator of it may be able to set this");
        }
    }
    Ok(())
}

fn is_already_there(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "42710" || code == "23505")
}

async fn ensure_member(connection: &mut PgConnection, group: &str, member: &str) -> Result<(), SchemaError> {
    let statement: Option<String> = sqlx::query_scalar(
        "SELECT CASE WHEN pg_has_role($2, $1, 'MEMBER') THEN NULL ELSE format('GRANT %I TO %I', $1::text, $2::text) END",
    )
    .bind(group)
    .bind(member)
    .fetch_one(&mut *connection)
    .await?;
    if let Some(statement) = statement {
        sqlx::query(AssertSqlSafe(statement))
            .execute(connection)
            .await
            .map_err(|cause| SchemaError::Role { role: member.to_owned(), cause })?;
    }
    Ok(())
}

/// A SCRAM-SHA-256 verifier (RFC 5803), so that the password itself appears in no statement and no server log.
fn scram_verifier(password: &str, rng: &dyn Rng) -> String {
    const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
    let mut salt = [0; 16];
    rng.fill(&mut salt);
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password.as_bytes(), &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let stored = sha256(hmac::sign(&key, b"Client Key").as_ref());
    let server = hmac::sign(&key, b"Server Key");
    format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        BASE64.encode(salt),
        BASE64.encode(stored),
        BASE64.encode(server.as_ref())
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemRng;
    use crate::embedded_postgres::{Durability, EmbeddedPostgres, Options};
    use sqlx::migrate::MigrationType;
    use sqlx::{ConnectOptions as _, SqlStr};

    fn migration(version: i64, sql: &'static str) -> Migration {
        let no_tx = sql.starts_with("-- no-transaction");
        Migration::new(version, "test".into(), MigrationType::Simple, SqlStr::from_static(sql), no_tx)
    }

    fn postgres() -> (EmbeddedPostgres, PgConnectOptions) {
        let mut name = [0; 8];
        SystemRng.fill(&mut name);
        let folder = std::env::temp_dir().join(format!("mana-migrate-{:016x}", u64::from_be_bytes(name)));
        let options = Options { folder, durability: Durability::None, throw_away: true };
        let postgres = EmbeddedPostgres::start(&options, &|bytes| SystemRng.fill(bytes)).unwrap();
        let owner = PgConnectOptions::new_without_pgpass().socket(postgres.socket_folder());
        let owner = owner.username(postgres.superuser()).password(postgres.password()).database("postgres");
        (postgres, owner)
    }

    #[test]
    fn migrations_are_one_transaction_but_for_those_that_say_no() {
        let all = [
            migration(1, "SELECT 1"),
            migration(2, "SELECT 1"),
            migration(3, "-- no-transaction\nSELECT 1"),
            migration(4, "SELECT 1"),
        ];
        let expected = [Stretch::Together(2), Stretch::Alone(3), Stretch::Together(4)];
        assert_eq!(stretches(&all), expected);
        assert_eq!(stretches(&[]), [Stretch::Together(0)]);
    }

    #[tokio::test]
    async fn an_index_is_built_beside_writers_and_again_after_it_was_cut_off() {
        let (_postgres, owner) = postgres();
        let table = migration(
            1,
            "CREATE SCHEMA auth; CREATE TABLE auth.t (a int); INSERT INTO auth.t VALUES (1), (1)",
        );
        let unique = migration(
            2,
            "-- no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS t_idx ON auth.t (a)",
        );
        let after = migration(3, "CREATE TABLE auth.after (a int)");
        let all = [table, unique, after];
        // Two rows are the same: the index is begun and stays behind, unfinished.
        let failed = run(&all, &owner, None, &SystemRng).await.unwrap_err();
        assert!(matches!(failed, SchemaError::Failed { reached: Reached(Some(1)), .. }), "{failed}");
        assert!(
            failed.to_string().starts_with("a migration failed; the database is at schema 1: "),
            "{failed}"
        );
        let mut connection = owner.connect().await.unwrap();
        let left = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
        let count: i64 = sqlx::query_scalar(left).fetch_one(&mut connection).await.unwrap();
        assert_eq!(count, 1);
        sqlx::query("DELETE FROM auth.t").execute(&mut connection).await.unwrap();
        run(&all, &owner, None, &SystemRng).await.unwrap();
        run(&all, &owner, None, &SystemRng).await.unwrap();
        let count: i64 = sqlx::query_scalar(left).fetch_one(&mut connection).await.unwrap();
        assert_eq!(count, 0);
        let valid: bool =
            sqlx::query_scalar("SELECT indisvalid FROM pg_index WHERE indexrelid = 'auth.t_idx'::regclass")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert!(valid);
    }

    #[tokio::test]
    async fn a_server_works_on_the_schema_of_the_release_after_it_and_on_no_later_one() {
        let (_postgres, owner) = postgres();
        let mut connection = owner.connect().await.unwrap();
        assert!(matches!(check(&mut connection).await, Err(SchemaError::Older { database: 0, .. })));
        let newer = binary_version().saturating_add(1);
        run(&[migration(newer, "CREATE SCHEMA auth")], &owner, None, &SystemRng).await.unwrap();
        assert_eq!(check(&mut connection).await.unwrap(), newer);
        for says in [
            format!("'{SAYS_WORKS_FROM}{}'", binary_version().saturating_add(1)),
            "'something else'".to_owned(),
            "NULL".to_owned(),
        ] {
            let comment = format!("COMMENT ON TABLE mana.migrations IS {says}");
            sqlx::raw_sql(AssertSqlSafe(comment)).execute(&mut connection).await.unwrap();
            let refused = check(&mut connection).await;
            assert!(
                matches!(refused, Err(SchemaError::Newer { database, .. }) if database == newer),
                "{says}: {refused:?}"
            );
        }
        // Serving is one thing; only who knows the schema changes it, or plans to.
        assert!(matches!(plan(&owner).await, Err(SchemaError::Newer { .. })));
        assert!(matches!(migrate(&owner, None, &SystemRng).await, Err(SchemaError::Newer { .. })));
    }

    #[tokio::test]
    async fn a_migration_gives_way_to_who_uses_the_table() {
        let (_postgres, owner) = postgres();
        let table = migration(1, "CREATE SCHEMA auth; CREATE TABLE auth.t (a int)");
        run(std::slice::from_ref(&table), &owner, None, &SystemRng).await.unwrap();
        let mut reader = owner.connect().await.unwrap();
        let mut reading = reader.begin().await.unwrap();
        sqlx::query("SELECT * FROM auth.t").execute(&mut *reading).await.unwrap();
        let all = [table, migration(2, "ALTER TABLE auth.t ADD COLUMN b int")];
        let gave_way = run(&all, &owner, None, &SystemRng).await;
        assert!(matches!(gave_way, Err(SchemaError::Locked { reached: Reached(Some(1)) })), "{gave_way:?}");
        reading.rollback().await.unwrap();
        run(&all, &owner, None, &SystemRng).await.unwrap();
    }
}
