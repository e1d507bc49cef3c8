//! Millions of rows beside those of a measurement, copied inside the database in the shape that years of use leave: rows in the order of
//! their time, ids that begin with it, users at random.
//!
//! Only what a row is found by, and when it was, is made up; all other columns are those of a row that the service wrote.
//! **Adapt here** when one of these columns changes its meaning; new columns come along by themselves.

use crate::error::BenchError;
use crate::postgres::Postgres;
use crate::progress::Progress;
use crate::seed;
use sqlx::PgConnection;

/// Rows that one statement writes.
const BATCH: u64 = 100_000;
/// Rows of each kind that a user has.
const ROWS_OF_A_USER: u64 = 10;
/// Wallets of others have smaller numbers.
const FIRST_WALLET: u64 = 10_000_000;

/// What becomes of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// All are kept.
    Young,
    /// Nine of ten are past their time.
    PastItsTime,
}

/// Rows to be added.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bulk {
    pub(super) rows: u64,
    pub(super) age: Age,
}

/// How rows are copied into one table.
struct Copy<'a> {
    table: &'a str,
    count: u64,
    /// Which row is the pattern.
    pattern: String,
    /// Columns of which the row with the number `n` has a value of its own.
    columns: Vec<(&'static str, String)>,
}

/// An id as the service makes them (UUIDv7): of a time, and otherwise random.
const FUNCTIONS: &str = "
    CREATE SCHEMA IF NOT EXISTS bench;
    CREATE OR REPLACE FUNCTION bench.id_at(at timestamptz, kind text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(random, 1, 3) || 'a' || substr(random, 4, 15))::uuid
        FROM md5(kind || n) AS random
    $$;";

impl Bulk {
    fn users(self) -> u64 {
        (self.rows / ROWS_OF_A_USER).max(1)
    }

    /// When the row `n` was, spread evenly from the first day to the last; days before now.
    fn at(self, first: u32, last: u32) -> String {
        let days = first.saturating_sub(last);
        format!(
            "date_trunc('day', now()) - interval '{last} days' - make_interval(secs => 86400.0 * {days} * ({rows} - n) / {rows})",
            rows = self.rows
        )
    }

    /// The id of a user by number, whose account is older than all that they have.
    fn user(number: &str) -> String {
        format!("bench.id_at(date_trunc('day', now()) - interval '900 days', 'user', {number})::text")
    }

    /// The user that the row `n` belongs to.
    fn owner(self) -> String {
        Self::user(&format!("(n * 7919) % {} + 1", self.users()))
    }

    /// Users with a password and a wallet each, and the lines of the wallets.
    pub(super) async fn add_wallets(self, postgres: &Postgres, pattern: &str) -> Result<(), BenchError> {
        let (users, user) = (self.users(), Self::user("n"));
        let of_pattern = format!("user_id = '{pattern}'");
        let wallet = format!("wallet_id = (SELECT wallet_id FROM credits.balances WHERE {of_pattern})");
        let lines = self.rows / users;
        let at = self.at(300, 1);
        for copy in [
            Copy {
                table: "auth.users",
                count: users,
                pattern: format!("id = '{pattern}'"),
                columns: vec![("id", user.clone()), ("email", "'bulk' || n || '@example.com'".to_owned())],
            },
            Copy {
                table: "auth.passwords",
                count: users,
                pattern: of_pattern.clone(),
                columns: vec![("user_id", user.clone())],
            },
            Copy {
                table: "credits.balances",
                count: users,
                pattern: of_pattern.clone(),
                columns: vec![
                    ("wallet_id", format!("{FIRST_WALLET} + n")),
                    ("user_id", user),
                    ("sequence", lines.to_string()),
                    // Not checked by the hourly proof of the books: the chains of their lines are none.
                    ("updated_at", "now() - interval '1 day'".to_owned()),
                ],
            },
            Copy {
                table: "credits.transactions",
                count: self.rows,
                pattern: format!("{wallet} AND type = 'usage'"),
                columns: vec![
                    ("wallet_id", format!("{FIRST_WALLET} + (n - 1) % {users} + 1")),
                    ("sequence", format!("(n - 1) / {users} + 1")),
                    ("id", format!("bench.id_at({at}, 'line', n)")),
                    ("balance_after", format!("pattern.balance_after - (n - 1) / {users}")),
                    ("idempotency_key", "'bulk-' || n".to_owned()),
                    ("created_at", at.clone()),
                    ("hash", "sha256(convert_to('line' || n, 'UTF8'))".to_owned()),
                ],
            },
        ] {
            copy.run(postgres).await?;
        }
        seed::settle(postgres).await
    }

    /// Sessions, one refresh chain each. Of young ones six of ten live; of old ones one of ten, the others have expired or were ended.
    pub(super) async fn add_sessions(self, postgres: &Postgres) -> Result<(), BenchError> {
        let (at, ended, expires) = match self.age {
            Age::Young => (
                self.at(180, 1),
                "CASE WHEN n % 10 < 4 THEN now() - make_interval(days => (n % 25)::integer) END",
                "now() + make_interval(days => (1 + n % 30)::integer)".to_owned(),
            ),
            Age::PastItsTime => {
                let at = self.at(180, 40);
                let expires = format!(
                    "CASE WHEN n % 10 = 0 THEN now() + interval '7 days' ELSE {at} + interval '7 days' END"
                );
                (at, "CASE WHEN n % 10 > 5 THEN now() - interval '32 days' END", expires)
            }
        };
        let id = format!("bench.id_at({at}, 'session', n)::text");
        let reason = format!("CASE WHEN {ended} IS NULL THEN NULL ELSE 'signed_out' END");
        let digest = |kind: &str| format!("sha256(convert_to('{kind}' || n, 'UTF8'))");
        for copy in [
            Copy {
                table: "auth.sessions",
                count: self.rows,
                pattern: "revoked_at IS NULL".to_owned(),
                columns: vec![
                    ("id", id.clone()),
                    ("user_id", self.owner()),
                    ("cookie_hash", digest("cookie")),
                    ("created_at", at.clone()),
                    ("last_active_at", format!("{at} + interval '1 day'")),
                    ("expires_at", expires.clone()),
                    ("revoked_at", ended.to_owned()),
                    ("revoked_reason", reason),
                ],
            },
            Copy {
                table: "auth.refresh_chains",
                count: self.rows,
                pattern: "true".to_owned(),
                columns: vec![
                    ("id", format!("bench.id_at({at}, 'chain', n)::text")),
                    ("user_id", self.owner()),
                    ("session_id", id),
                    ("seed", digest("seed")),
                    ("generation", "1 + n % 50".to_owned()),
                    ("rotated_at", format!("{at} + interval '1 day'")),
                    ("expires_at", expires),
                ],
            },
        ] {
            copy.run(postgres).await?;
        }
        seed::settle(postgres).await
    }

    /// Security events of a few kinds.
    pub(super) async fn add_events(self, postgres: &Postgres) -> Result<(), BenchError> {
        let at = match self.age {
            Age::Young => self.at(300, 1),
            // Kept for a year by default: nine of ten are older.
            Age::PastItsTime => self.at(815, 315),
        };
        let kinds = "(ARRAY['signed_in', 'sign_in_failed', 'session_ended', 'signed_in'])[1 + n % 4]";
        let copy = Copy {
            table: "auth.security_events",
            count: self.rows,
            pattern: "user_id IS NOT NULL".to_owned(),
            columns: vec![
                ("id", format!("bench.id_at({at}, 'event', n)")),
                ("user_id", self.owner()),
                ("type", kinds.to_owned()),
                ("session_id", format!("bench.id_at({at}, 'session', n)::text")),
                ("created_at", at.clone()),
            ],
        };
        copy.run(postgres).await?;
        seed::settle(postgres).await
    }
}

impl Copy<'_> {
    async fn run(self, postgres: &Postgres) -> Result<(), BenchError> {
        let mut owner = postgres.owner().await?;
        // Neither references nor the rules of single rows are looked at: what is copied keeps them.
        sqlx::raw_sql("SET session_replication_role = replica").execute(&mut owner).await?;
        sqlx::raw_sql(FUNCTIONS).execute(&mut owner).await?;
        let names = column_names(&mut owner, self.table).await?;
        let values = names.iter().map(|name| {
            let own = self.columns.iter().find(|(column, _)| column == name);
            own.map_or_else(|| format!("pattern.\"{name}\""), |(_, value)| value.clone())
        });
        let (table, pattern) = (self.table, &self.pattern);
        let columns = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let values = values.collect::<Vec<_>>().join(", ");
        let mut progress = Progress::start(table, self.count);
        let mut written = 0;
        while written < self.count {
            let to = self.count.min(written + BATCH);
            let statement = format!(
                "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values}
                 FROM (SELECT * FROM {table} WHERE {pattern} LIMIT 1) AS pattern, generate_series({written}::bigint + 1, {to}) AS n"
            );
            let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut owner).await?;
            if done.rows_affected() != to - written {
                return Err(BenchError::NotUnderstood("a row to copy"));
            }
            written = to;
            progress.at(written);
        }
        Ok(())
    }
}

async fn column_names(owner: &mut PgConnection, table: &str) -> Result<Vec<String>, BenchError> {
    Ok(sqlx::query_scalar(
        "SELECT attname::text FROM pg_attribute
         WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
    )
    .bind(table)
    .fetch_all(owner)
    .await?)
}
