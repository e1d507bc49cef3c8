//! The connection pool, transactions that act for a user, and what a database error means to a client.

use crate::http::codes;
use crate::refusal::said;
use crate::telemetry::spans;
use mana_kernel::{ErrorCode, Kind, Problem, UserId};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgTransactionManager};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres, SqlSafeStr as _};
use sqlx_core::transaction::TransactionManager as _;
use std::error::Error;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, iter};
use tokio::time::{sleep, timeout};
use tracing::Span;

/// An open transaction. Dropped without a commit, it rolls back.
#[derive(Debug)]
pub struct Transaction {
    lent: Lent,
    is_open: bool,
    traced: Span,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.is_open {
            // Sent when the connection comes to rest.
            PgTransactionManager::start_rollback(&mut self.lent.connection);
        }
    }
}

/// A connection of the pool, given back when dropped. What was written on it holds for certain after [`Self::finish`].
#[derive(Debug)]
pub struct Connection {
    statements: Statements,
    _traced: Span,
}

/// What becomes of each statement of a [`Connection`].
#[derive(Debug)]
enum Statements {
    /// It commits by itself.
    Single(Lent),
    /// It commits with the others.
    Together(Transaction),
}

/// A connection of the pool that may be given back while the answer to a statement is still to come, which can't be seen from outside. What is not
/// there in time is not waited for: the connection is closed then, and its place is free. The pool by itself asks for a sign of life and waits
/// for it without a limit.
#[derive(Debug)]
struct Lent {
    connection: sqlx::pool::PoolConnection<Postgres>,
    is_to_be_closed: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.is_to_be_closed {
            self.connection.close_on_drop();
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(timeout(COME_TO_REST_LIMIT, self.connection.return_to_pool()));
        }
    }
}

/// The server's door to PostgreSQL, as the role `mana_service`.
///
/// Safe behind a pooler in transaction mode: no session state, no session locks, every setting local to a transaction.
/// Statements are prepared, which asks more of a pooler: see [`crate::pooler`].
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    is_transactions_only: bool,
}

/// What errors have told of the connections that there are, to whatever statement of this process.
///
/// What cut one connection has most often cut all, and where one can't write, those of its time can't either. What was learned from one spares
/// the others, so that a restart of PostgreSQL or of a pooler fails one request and not one for each connection.
static LEARNED: Mutex<Learned> = Mutex::new(Learned { cut: None, silent: None, read_only: None });

#[derive(Debug, Clone, Copy)]
struct Learned {
    /// When a connection was last found to lead nowhere.
    cut: Option<Instant>,
    /// When one last said nothing for too long.
    silent: Option<Instant>,
    /// When one was last found on which nothing can be written.
    read_only: Option<Instant>,
}

/// What to do with a connection before it is used.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// It was used a moment ago, and nothing was heard since.
    Trusted,
    /// It may have been cut.
    Doubtful,
    /// It began when, or leads where, nothing is to be written; or the network fell silent since it was used, and to ask it takes longer than a
    /// new one.
    Useless,
}

impl Learned {
    fn so_far() -> Self {
        *LEARNED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(error: &sqlx::Error) {
        let now = Instant::now();
        let mut learned = LEARNED.lock().unwrap_or_else(PoisonError::into_inner);
        match kind(error) {
            "connection" if is_silence(error) => learned.silent = Some(now),
            "connection" => learned.cut = Some(now),
            "read_only" if learned.read_only.is_none_or(|before| before.elapsed() > RENEWED_EVERY) => {
                learned.read_only = Some(now);
            }
            _ => {}
        }
    }

    /// Of a connection that was made and last used so long ago.
    fn standing(&self, made: Duration, used: Duration) -> Standing {
        let since =
            |found: Option<Instant>, before: Duration| found.is_some_and(|found| found.elapsed() < before);
        if since(self.read_only, made) || since(self.silent, used) {
            Standing::Useless
        } else if since(self.cut, used) || used >= TRUSTED_FOR {
            Standing::Doubtful
        } else {
            Standing::Trusted
        }
    }
}

/// Forgets what other clients of a pooler prepared on the connection that the transaction got.
const BEGIN_WITHOUT_STATEMENTS: &str = "BEGIN; DEALLOCATE ALL";

/// For statements over arrays that find rows by their keys. Planned anew each time, they cost more to plan than to run. A
/// plan that is kept must be good for tables that have grown since, so it may only look rows up: what reads a whole table is
/// the better plan only while the table is nearly empty. Whoever waits for a lock for long gives way, because a batch keeps
/// many others waiting.
const BEGIN_LOOKUPS: &str = "BEGIN; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off; \
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL lock_timeout = '5s'";

/// The same for a batch. Its client may fall silent without PostgreSQL hearing of it; what it has locked is free again before
/// that client's own limit is over, so that the next batch does not wait for it.
const BEGIN_BATCH: &str = "BEGIN; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off; \
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL lock_timeout = '5s'; \
    SET LOCAL idle_in_transaction_session_timeout = '8s'";

/// The same where a pooler keeps no statements.
const BEGIN_BATCH_WITHOUT_STATEMENTS: &str = "BEGIN; DEALLOCATE ALL; SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '8s'";

/// How long a batch may take, from the first statement to the answer to its commit: longer than it may wait for a lock, and
/// than PostgreSQL lets it be idle.
const BATCH_LIMIT: Duration = Duration::from_secs(12);

/// For how long a connection is taken to be there still, without asking it, unless another was found cut meanwhile.
const TRUSTED_FOR: Duration = Duration::from_secs(5);

/// How often connections on which nothing can be written are replaced: as long as nothing can be written at all, new ones are no better.
const RENEWED_EVERY: Duration = Duration::from_secs(1);

/// How long a connection is used before a new one takes its place. A name may lead elsewhere by then, and what was set for new sessions is not
/// heard of by old ones.
const CONNECTION_LIFE: Duration = Duration::from_mins(10);

/// Pauses before a server that lets nobody in just now is tried again: the first, which doubles, and the longest.
const CONNECT_PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// How long a connection that is given back in the middle of something may take to come to rest.
const COME_TO_REST_LIMIT: Duration = Duration::from_secs(2);

/// How long a connection that has rested may take to answer, so that whoever asks it has time left for a new one.
const SIGN_OF_LIFE_LIMIT: Duration = Duration::from_secs(1);

impl Database {
    /// A pool of at most `max_connections` that connects on first use and waits at most `wait` for a free connection, and as long again for the
    /// beginning of a transaction.
    pub fn new(options: PgConnectOptions, max_connections: u32, wait: Duration) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(wait)
            .max_lifetime(CONNECTION_LIFE)
            // A ping before every use would cost each request a round trip; one after a pause finds what a restart cut.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                let standing = Learned::so_far().standing(meta.age, meta.idle_for);
                Box::pin(async move { Ok(is_usable(standing, connection).await) })
            })
            .connect_lazy_with(options);
        Self { pool, is_transactions_only: false }
    }

    /// The same, for a pooler that does not keep its clients' prepared statements apart: nothing is asked outside of a
    /// transaction, and each transaction begins without statements. Its options must not cache statements.
    #[must_use]
    pub fn in_transactions_only(self) -> Self {
        Self { is_transactions_only: true, ..self }
    }

    /// Whether it was made so.
    pub(crate) fn is_transactions_only(&self) -> bool {
        self.is_transactions_only
    }

    /// A transaction as the service.
    ///
    /// # Errors
    /// When no connection is to be had.
    pub async fn begin(&self) -> Result<Transaction, DbError> {
        self.begin_with(if self.is_transactions_only { BEGIN_WITHOUT_STATEMENTS } else { "BEGIN" }).await
    }

    /// A transaction as the service whose statements find rows by their keys and are planned once for a connection: for who writes as batches do, but for as long as it takes.
    /// Behind a pooler that keeps no statements it is one as any other.
    ///
    /// # Errors
    /// When no connection is to be had.
    pub async fn begin_lookups(&self) -> Result<Transaction, DbError> {
        if self.is_transactions_only {
            return self.begin().await;
        }
        self.begin_with(BEGIN_LOOKUPS).await
    }

    /// A connection apart from the pool, for who works on one batch after the other.
    pub fn batch_connection(&self) -> BatchConnection {
        BatchConnection { database: self.clone(), kept: None }
    }

    /// A transaction as the service in which everything is read as of one moment.
    ///
    /// # Errors
    /// When no connection is to be had.
    pub async fn begin_snapshot(&self) -> Result<Transaction, DbError> {
        self.begin_with(if self.is_transactions_only {
            "BEGIN ISOLATION LEVEL REPEATABLE READ; DEALLOCATE ALL"
        } else {
            "BEGIN ISOLATION LEVEL REPEATABLE READ"
        })
        .await
    }

    /// A connection as the service for single statements: each commits by itself where that is safe, which saves two round
    /// trips, and all of them at [`Connection::finish`] where it is not.
    ///
    /// # Errors
    /// When no connection is to be had.
    pub async fn acquire(&self) -> Result<Connection, DbError> {
        if self.is_transactions_only {
            let transaction = self.begin().await?;
            let traced = transaction.traced.clone();
            return Ok(Connection { statements: Statements::Together(transaction), _traced: traced });
        }
        let wait = Wait::begin();
        let lent = self.lend().await;
        let traced = wait.end();
        let lent = lent?;
        Ok(Connection { statements: Statements::Single(lent), _traced: traced })
    }

    /// A transaction that acts for `user`: row-level security shows it that user's rows and no others, and it may
    /// only read. A forgotten WHERE is then no leak.
    ///
    /// # Errors
    /// When no connection is to be had.
    pub async fn begin_as(&self, user: &UserId) -> Result<Transaction, DbError> {
        let mut transaction = self.begin().await?;
        sqlx::query("SELECT set_config('role', 'mana_user', true), set_config('mana.user_id', $1, true)")
            .bind(user.as_str())
            .execute(&mut *transaction)
            .await?;
        Ok(transaction)
    }

    async fn lend(&self) -> Result<Lent, sqlx::Error> {
        Ok(Lent { connection: self.pool.acquire().await?, is_to_be_closed: false })
    }

    async fn begin_with(&self, statement: &'static str) -> Result<Transaction, DbError> {
        let wait = Wait::begin();
        let mut lent = self.lend_in_transaction(statement).await;
        if let Err(error) = &lent
            && kind(error) == "connection"
            && !is_silence(error)
        {
            // Nothing was done on it. The next one is asked first, or new.
            Learned::note(error);
            lent = self.lend_in_transaction(statement).await;
        }
        let traced = wait.end();
        Ok(Transaction { lent: lent?, is_open: true, traced })
    }

    async fn lend_in_transaction(&self, statement: &'static str) -> Result<Lent, sqlx::Error> {
        let mut lent = self.lend().await?;
        // Whoever goes away before the answer leaves a connection of which nobody knows whether it is in a transaction. sqlx would take it
        // for one that is not: what the next one writes on it would never be committed.
        lent.is_to_be_closed = true;
        let begin = PgTransactionManager::begin(&mut lent.connection, Some(statement.into_sql_str()));
        // A connection that was used a moment ago is not asked whether it is there. If it is silent, this is where that shows. A pooler lets
        // whoever begins wait for a place, as the pool here does.
        let limit = self.pool.options().get_acquire_timeout();
        timeout(limit, begin).await.unwrap_or_else(|_| Err(fell_silent()))?;
        lent.is_to_be_closed = false;
        Ok(lent)
    }

    /// Whether PostgreSQL answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        let mut lent = self.lend().await?;
        // Not the ping of sqlx, which a pooler might answer by itself.
        sqlx::raw_sql("SELECT 1").execute(&mut *lent.connection).await?;
        Ok(())
    }

    /// How many places for connections there are, and how many of them are taken.
    pub fn places(&self) -> Places {
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        let in_use = self.pool.size().saturating_sub(idle);
        Places { idle, in_use, max: self.pool.options().get_max_connections() }
    }

    /// Closes all connections, once they are given back. From now on, none is to be had.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) fn connect_options(&self) -> Arc<PgConnectOptions> {
        self.pool.connect_options()
    }
}

/// The places for connections to PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// Taken by a connection that nobody works on.
    pub idle: u32,
    /// Taken by a connection that somebody works on, or that is being made.
    pub in_use: u32,
    /// All of them.
    pub max: u32,
}

/// The wait for a connection to work on.
struct Wait {
    since: Instant,
    traced: Span,
}

impl Wait {
    fn begin() -> Self {
        Self { traced: spans::database(), since: Instant::now() }
    }

    /// Notes how long it took, and gives the span of what is done on the connection.
    fn end(self) -> Span {
        let waited = self.since.elapsed();
        metrics::histogram!("database_begin_seconds").record(waited);
        self.traced.record("wait_ms", i64::try_from(waited.as_millis()).unwrap_or(i64::MAX));
        self.traced
    }
}

impl Transaction {
    /// Lets all that was done in it hold.
    ///
    /// # Errors
    /// When that is not certain.
    pub async fn commit(mut self) -> Result<(), DbError> {
        PgTransactionManager::commit(&mut self.lent.connection).await?;
        self.is_open = false;
        self.traced.record("outcome", "committed");
        Ok(())
    }

    /// Undoes all that was done in it.
    ///
    /// # Errors
    /// When the connection fails; then it is undone as well.
    pub async fn rollback(mut self) -> Result<(), DbError> {
        PgTransactionManager::rollback(&mut self.lent.connection).await?;
        self.is_open = false;
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.lent.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.lent.connection
    }
}

/// A connection of its own for one batch after the other, each within 12 seconds. No request takes it, and PostgreSQL has at hand what the
/// batch before has read and planned. It connects when needed.
#[derive(Debug)]
pub struct BatchConnection {
    database: Database,
    /// Away while a batch is under way, so that one which ends in the middle takes it along.
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    connection: PgConnection,
    made: Instant,
    used: Instant,
}

impl BatchConnection {
    /// Carries out `work` in one transaction, as [`Database::begin_lookups`], and commits it.
    ///
    /// # Errors
    /// When no connection is to be had, when `work` fails, or when nothing was heard until the time was over. If it was to commit, it may have.
    pub async fn carry_out<T, E: From<DbError> + Problem>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let wait = Wait::begin();
        let kept = self.take().await;
        let traced = wait.end();
        let mut kept = kept?;
        let begin =
            if self.database.is_transactions_only { BEGIN_BATCH_WITHOUT_STATEMENTS } else { BEGIN_BATCH };
        let batch = async {
            let mut transaction = kept.connection.begin_with(begin).await?;
            let done = work(&mut transaction).await;
            match &done {
                Ok(_) => transaction.commit().await?,
                Err(_) => transaction.rollback().await?,
            }
            Ok(done)
        };
        let done = timeout(BATCH_LIMIT, batch).await.unwrap_or_else(|_| Err(fell_silent()));
        let done = done.map_err(DbError::from)?;
        // It has come to an end, good or bad; of any other nobody knows what is still to come on it. What passes by itself may not pass on
        // this connection: it may lead to a server that is the primary no more, or have begun when nothing was to be written.
        let may_be_to_blame = matches!(&done, Err(error) if error.code().kind == Kind::Unavailable);
        self.kept = (!may_be_to_blame).then(|| Kept { used: Instant::now(), ..kept });
        let done = done?;
        traced.record("outcome", "committed");
        Ok(done)
    }

    async fn take(&mut self) -> Result<Kept, DbError> {
        if let Some(mut kept) = self.kept.take()
            && kept.made.elapsed() < CONNECTION_LIFE
            && is_usable(
                Learned::so_far().standing(kept.made.elapsed(), kept.used.elapsed()),
                &mut kept.connection,
            )
            .await
        {
            return Ok(kept);
        }
        let pool = &self.database.pool;
        let connected = timeout(pool.options().get_acquire_timeout(), connect(&pool.connect_options())).await;
        let connection = connected.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        let now = Instant::now();
        Ok(Kept { connection, made: now, used: now })
    }
}

/// Whether a connection can be used. If it may have been cut, it is asked. What a firewall has forgotten says nothing, and a new one is had sooner.
async fn is_usable(standing: Standing, connection: &mut PgConnection) -> bool {
    match standing {
        Standing::Trusted => true,
        Standing::Doubtful => match timeout(SIGN_OF_LIFE_LIMIT, connection.ping()).await {
            Ok(outcome) => outcome.is_ok(),
            Err(_) => {
                Learned::note(&fell_silent());
                false
            }
        },
        Standing::Useless => false,
    }
}

/// Connects as the pool does: a server that is starting or has no place is tried again, until whoever asks has waited enough.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let [mut pause, longest] = CONNECT_PAUSES;
    loop {
        match PgConnection::connect_with(options).await {
            Err(error) if lets_nobody_in_yet(&error) => sleep(pause).await,
            outcome => return outcome,
        }
        pause = pause.saturating_mul(2).min(longest);
    }
}

fn lets_nobody_in_yet(error: &sqlx::Error) -> bool {
    if let sqlx::Error::Io(error) = error {
        return error.kind() == io::ErrorKind::ConnectionRefused;
    }
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // Too many connections; starting up or shutting down.
    code.is_some_and(|code| matches!(&*code, "53300" | "57P03"))
}

/// Has the transaction of `connection` give way, and let go what it locks, as a batch does: for whoever is about to lock what batches wait for.
///
/// # Errors
/// When the database fails.
pub async fn hold_briefly(connection: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query(
        "SELECT set_config('lock_timeout', '5s', true), set_config('idle_in_transaction_session_timeout', '8s', true)",
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn is_silence(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

fn fell_silent() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "PostgreSQL said nothing for too long"))
}

impl Connection {
    /// Lets what was written hold, and gives the connection back. Needless after reads.
    ///
    /// # Errors
    /// When the commit fails: then nothing holds for certain.
    pub async fn finish(self) -> Result<(), DbError> {
        match self.statements {
            Statements::Single(_) => Ok(()),
            Statements::Together(transaction) => transaction.commit().await,
        }
    }

    /// Gives it up, because nothing was heard on it for too long.
    pub fn abandon(mut self) -> DbError {
        self.close_on_drop();
        DbError::from(fell_silent())
    }

    /// Closes it instead of giving it back. One inside a transaction is only given back once it has rolled back.
    pub fn close_on_drop(&mut self) {
        if let Statements::Single(lent) = &mut self.statements {
            lent.is_to_be_closed = true;
        }
    }
}

impl Deref for Connection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match &self.statements {
            Statements::Single(lent) => &lent.connection,
            Statements::Together(transaction) => transaction,
        }
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match &mut self.statements {
            Statements::Single(lent) => &mut lent.connection,
            Statements::Together(transaction) => transaction,
        }
    }
}

/// A database error. Shows nothing of itself to a client.
#[derive(Debug, thiserror::Error)]
#[error("database: {}", said(.0))]
pub struct DbError(#[source] sqlx::Error);

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        metrics::counter!("database_errors_total", "kind" => kind(&error)).increment(1);
        Learned::note(&error);
        Self(error)
    }
}

/// Whether what went wrong is, underneath, that others took the same locks in another order (deadlock, serialisation).
pub fn lost_a_race(error: &(dyn Error + 'static)) -> bool {
    iter::successors(Some(error), |error| (**error).source())
        .filter_map(|error| error.downcast_ref::<sqlx::Error>()?.as_database_error()?.code())
        .any(|code| matches!(&*code, "40001" | "40P01"))
}

/// What an operator would do about it, in a word.
fn kind(error: &sqlx::Error) -> &'static str {
    if let Some(code) = error.as_database_error().and_then(sqlx::error::DatabaseError::code) {
        return match (&*code, code.get(..2)) {
            ("25006", _) => "read_only",
            ("55P03", _) => "lock_timeout",
            ("25P03", _) => "connection",
            ("26000" | "42P05", _) => "pooler",
            (_, Some("23")) => "constraint",
            (_, Some("40")) => "lost_race",
            (_, Some("53" | "58")) => "out_of_resources",
            (_, Some("08" | "28" | "3D" | "57")) => "connection",
            _ => "other",
        };
    }
    if matches!(error, sqlx::Error::PoolTimedOut) {
        return "pool_timeout";
    }
    let is_connection = matches!(
        error,
        sqlx::Error::PoolClosed | sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)
    );
    if is_connection { "connection" } else { "other" }
}

impl DbError {
    /// A row was read that this version can't make sense of.
    pub fn unreadable(table: &'static str) -> Self {
        Self(sqlx::Error::Decode(format!("a row of {table} is not as this version writes them").into()))
    }

    /// The name of the constraint that refused, if one did.
    pub fn constraint(&self) -> Option<&str> {
        self.0.as_database_error().and_then(sqlx::error::DatabaseError::constraint)
    }

    /// What the database has against a row that it refuses: the name of a constraint, or what it says of a value that it can't take
    /// (SQLSTATE classes 22 and 23). None if the fault is another.
    pub fn refusal(&self) -> Option<String> {
        let error = self.0.as_database_error()?;
        let is_of_the_row = error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"));
        is_of_the_row.then(|| error.constraint().unwrap_or_else(|| error.message()).to_owned())
    }

    /// Whether others took the same locks in another order, so that this transaction gave way (deadlock, serialisation).
    pub fn lost_a_race(&self) -> bool {
        lost_a_race(self)
    }

    /// Whether the fault passes by itself: connection lost, pool exhausted, server restarting, read-only or full.
    fn passes(&self) -> bool {
        if let Some(code) = self.0.as_database_error().and_then(sqlx::error::DatabaseError::code) {
            // SQLSTATE classes: 08 connection, 28 a sign-in that is refused and 3D a database that is not there (while a password or
            // a name is being replaced), 40 rollback, 53 resources, 57 operator, 58 the system below it; 25006 read-only transaction;
            // 55P03 a lock that was not to be had in time; 25P03 a transaction that was idle for too long.
            // 26000, 42P05: a pooler gave the statement to a connection that does not have it, or has it already.
            return matches!(&*code, "25006" | "25P03" | "26000" | "42P05" | "55P03")
                || ["08", "28", "3D", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class));
        }
        matches!(
            self.0,
            sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                // Cut off in the middle of an answer: a pooler that is killed while it is being connected to.
                | sqlx::Error::Protocol(_)
                // Written by another version, in the middle of an upgrade.
                | sqlx::Error::Decode(_)
        )
    }
}

impl Problem for DbError {
    fn code(&self) -> &'static ErrorCode {
        if self.passes() { &codes::UNAVAILABLE } else { &codes::INTERNAL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_breaks_off_is_a_lost_connection_and_no_defect() {
        for lost in [
            sqlx::Error::Protocol("unexpected response from SSLRequest: 0x00".to_owned()),
            sqlx::Error::Io(io::ErrorKind::UnexpectedEof.into()),
            fell_silent(),
        ] {
            assert_eq!(kind(&lost), "connection", "{lost}");
            assert_eq!(DbError(lost).code(), &codes::UNAVAILABLE);
        }
        let defect = sqlx::Error::ColumnNotFound("id".to_owned());
        assert_eq!((kind(&defect), DbError(defect).code()), ("other", &codes::INTERNAL));
    }
}
