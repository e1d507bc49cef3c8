//! Whether a pooler stands before PostgreSQL, and whether it does what this service needs of it.
//!
//! A pooler in transaction mode gives each transaction whatever connection is free. The service prepares its statements by
//! name, each connection counting for itself (`sqlx_s_1`, `sqlx_s_2`). So the pooler has to keep the statements of its clients apart,
//! as PgBouncer does from 1.21 on with `max_prepared_statements`: it renames them and prepares them wherever they are
//! used. If it does not, `sqlx_s_7` of one replica may run what another prepared under that name: the wrong statement, without
//! an error if the arguments fit. Hence this is tried at each start rather than left to a manual.

use crate::Database;
use crate::refusal::said;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};

/// How often two connections are compared: while others use the pooler too, one look can miss it.
const LOOKS: usize = 16;

/// Why the service can't work through what `DATABASE_URL` leads to.
#[derive(Debug, thiserror::Error)]
pub enum PoolerError {
    /// Statements of several clients get mixed up.
    #[error(
        "DATABASE_URL leads to a pooler in transaction mode that does not keep prepared statements apart, so one \
         query could run in place of another. Set max_prepared_statements = 200 in PgBouncer 1.21 or newer; with an \
         older one, add ?statement-cache-capacity=0 to DATABASE_URL, or let it pool sessions"
    )]
    MixesStatements,
    /// The service would throw away what the pooler keeps.
    #[error(
        "DATABASE_URL says statement-cache-capacity=0, but the pooler it leads to keeps prepared statements apart: leave \
         that parameter out"
    )]
    KeepsStatements,
    /// The database could not be asked.
    #[error("the database can't be asked whether a pooler stands before it: {}", said(.0))]
    Database(#[from] sqlx::Error),
}

/// Refuses a pooler through which the service, as it is set up, would not be safe.
///
/// # Errors
/// See [`PoolerError`].
pub async fn check(database: &Database) -> Result<(), PoolerError> {
    let options = database.connect_options();
    let mut first = PgConnection::connect_with(&options).await?;
    let keeps_names = keeps_names(&mut first).await?;
    if database.is_transactions_only() {
        first.close().await?;
        return if keeps_names { Ok(()) } else { Err(PoolerError::KeepsStatements) };
    }
    if !keeps_names {
        first.close().await?;
        return Ok(());
    }
    let mut second = PgConnection::connect_with(&options).await?;
    let are_apart = are_apart(&mut first, &mut second).await?;
    if !are_apart {
        // The name that was tried above is not left to whoever gets the connection next.
        sqlx::raw_sql("DEALLOCATE ALL").execute(&mut first).await?;
    }
    first.close().await?;
    second.close().await?;
    if are_apart { Ok(()) } else { Err(PoolerError::MixesStatements) }
}

/// Whether a pooler in transaction mode stands there. It is asked nothing that is prepared, and so left as it was.
pub(crate) async fn stands_before(options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let mut first = PgConnection::connect_with(options).await?;
    let mut second = PgConnection::connect_with(options).await?;
    let are_apart = are_apart(&mut first, &mut second).await?;
    first.close().await?;
    second.close().await?;
    Ok(!are_apart)
}

/// Whether a prepared statement reaches PostgreSQL under the name that this client gave it.
async fn keeps_names(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // One transaction, so that preparing and running meet the same connection whatever stands in between.
    let mut transaction = connection.begin().await?;
    let names = "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name LIKE 'sqlx^_s^_%' ESCAPE '^')";
    let kept = sqlx::query_scalar(names).fetch_one(&mut *transaction).await;
    transaction.rollback().await?;
    match kept {
        // The name exists: another client of the pooler gave it.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P05") => Ok(true),
        kept => kept,
    }
}

/// Whether each of two clients has a connection to PostgreSQL for itself.
async fn are_apart(first: &mut PgConnection, second: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let (of_first, of_second) = (process(first).await?, process(second).await?);
    for _ in 0..LOOKS {
        let (now_first, now_second) = (process(first).await?, process(second).await?);
        if now_first == now_second || (now_first, now_second) != (of_first, of_second) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The process that answers, asked without a prepared statement.
async fn process(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    use sqlx::Row as _;
    sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection).await?.try_get(0)
}
