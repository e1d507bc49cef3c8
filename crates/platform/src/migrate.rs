//! Roles and schema: made, checked and brought up to date by the owner of the database.
//!
//! Three roles. The **owner** (whoever `DATABASE_OWNER_URL` names) makes the others and migrates. **`mana_service`** is
//! what the server signs in as: it owns nothing and can't bypass row-level security. **`mana_user`** can't sign in;
//! the server switches to it inside a transaction that acts for a user.
//!
//! Everything happens in one transaction under a transaction-level advisory lock: several servers may start at once,
//! and a pooler in transaction mode can't leave the lock behind.

use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mana_kernel::Rng;
use mana_kernel::secret::sha256;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::num::NonZeroU32;

/// The migrations of this binary.
static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Any number, as long as nothing else in the database locks it.
const LOCK: i64 = 0x6d61_6e61;

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A newer program has migrated this database.
    #[error(
        "the database is at schema {database}, which is newer than the {binary} that this program knows. \
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
        "the role {role} can't be made: {cause}. DATABASE_OWNER_URL needs a role with CREATEROLE, \
         or an administrator creates {role} beforehand"
    )]
    Role {
        /// The role's name.
        role: String,
        /// What PostgreSQL said.
        cause: sqlx::Error,
    },
    /// Anything else the migrator met.
    #[error("a migration failed, nothing was changed: {0}")]
    Failed(MigrateError),
    /// The database could not be asked.
    #[error("the database can't be reached: {0}")]
    Database(#[from] sqlx::Error),
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
/// When the database is newer than this binary, or the owner lacks a right; nothing is changed then.
pub async fn migrate(
    owner: &PgConnectOptions,
    login: Option<ServiceLogin<'_>>,
    rng: &dyn Rng,
) -> Result<(), SchemaError> {
    let mut connection = PgConnection::connect_with(owner).await?;
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    ensure_roles(&mut transaction, login, rng).await?;
    migrator().run_direct(None, &mut *transaction, false).await.map_err(in_words)?;
    sqlx::query("GRANT SELECT ON mana.migrations TO mana_service").execute(&mut *transaction).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}

fn in_words(error: MigrateError) -> SchemaError {
    if let MigrateError::VersionMissing(database) = error {
        return SchemaError::Newer { database, binary: binary_version() };
    }
    if let MigrateError::VersionMismatch(version) = error {
        return SchemaError::Foreign(version);
    }
    SchemaError::Failed(error)
}

/// Whether the schema is the one this binary needs.
///
/// # Errors
/// When it is older, newer, or can't be asked.
pub async fn check(connection: &mut PgConnection) -> Result<(), SchemaError> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('mana.migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    let database: i64 = if exists {
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM mana.migrations")
            .fetch_one(connection)
            .await?
    } else {
        0
    };
    let binary = binary_version();
    match database.cmp(&binary) {
        std::cmp::Ordering::Less => Err(SchemaError::Older { database, binary }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(SchemaError::Newer { database, binary }),
    }
}

fn migrator() -> Migrator {
    let mut migrator = Migrator { migrations: MIGRATIONS.migrations.clone(), ..Migrator::DEFAULT };
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
