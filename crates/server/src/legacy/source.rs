//! The older service's database, as it was at one moment: nothing is written there, and nothing is held in memory but a page.

use super::run::LegacyError;
use super::tables::{self, Found, Spec, Table};
use crate::source::address;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use mana_credits::ledger::legacy::SoldAs;
use mana_platform::refusal::Unreached;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use std::collections::HashSet;

/// Users that are read together.
const PAGE: i64 = 500;

/// Everything is read as of one moment, with every row in sight: a rule that hides some would make the sums of the rest look right.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL TimeZone = 'UTC'; SET LOCAL row_security = off;
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";

/// Tables of this program that the older one never had.
const OURS: &str = "SELECT EXISTS (SELECT FROM information_schema.tables WHERE (table_schema, table_name) IN (('auth', 'refresh_chains'), ('credits', 'roots')))";

/// The database with what it has.
#[derive(Debug)]
pub(super) struct Legacy {
    connection: PgConnection,
    zone: String,
    pub(super) users: Table,
    pub(super) accounts: Option<Table>,
    pub(super) passwords: Option<Table>,
    pub(super) factors: Option<Table>,
    pub(super) sessions: Option<Table>,
    pub(super) events: Option<Table>,
    pub(super) passkeys: Option<Table>,
    pub(super) balances: Table,
    pub(super) transactions: Table,
    pub(super) packages: Option<Table>,
    pub(super) purchases: Option<Table>,
    pub(super) usage: Option<Table>,
}

/// How much mana all wallets have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) balance: i64,
    pub(super) free: i64,
}

impl Legacy {
    /// Opens it and looks what is there. `zone` is whose midnight starts a day of free mana.
    pub(super) async fn open(from: &SecretString, zone: &str) -> Result<Self, LegacyError> {
        let options = address(from).map_err(LegacyError::Url)?;
        let options = options.extra_float_digits(None).application_name("mana-core-auth import");
        // Its statements take as long as what is done meanwhile with what they give.
        let options = options.disable_statement_logging();
        let mut connection = PgConnection::connect_with(&options)
            .await
            .map_err(|error| Unreached::new(&error, "LEGACY_DATABASE_URL", &options))?;
        sqlx::raw_sql(BEGIN).execute(&mut connection).await.map_err(LegacyError::Source)?;
        let is_ours: bool =
            sqlx::query_scalar(OURS).fetch_one(&mut connection).await.map_err(LegacyError::Source)?;
        if is_ours {
            return Err(LegacyError::IsOurs);
        }
        let found: Vec<Found> = sqlx::query_as(
            "SELECT table_schema::text, table_name::text, column_name::text, data_type::text FROM information_schema.columns
             WHERE table_schema IN ('auth', 'credits', 'public') ORDER BY 1, 2, 3",
        )
        .fetch_all(&mut connection)
        .await
        .map_err(LegacyError::Source)?;
        let mut missing = Vec::new();
        let mut find = |spec: &Spec| match Table::find(spec, &found) {
            Ok(table) => table,
            Err(lacking) => {
                missing.extend(lacking);
                None
            }
        };
        let users = find(&tables::USERS);
        let (accounts, passwords, factors) =
            (find(&tables::ACCOUNTS), find(&tables::PASSWORDS), find(&tables::FACTORS));
        let (sessions, events, passkeys) =
            (find(&tables::SESSIONS), find(&tables::EVENTS), find(&tables::PASSKEYS));
        let (balances, transactions) = (find(&tables::BALANCES), find(&tables::TRANSACTIONS));
        let (packages, purchases, usage) =
            (find(&tables::PACKAGES), find(&tables::PURCHASES), find(&tables::USAGE));
        let (Some(users), Some(balances), Some(transactions), true) =
            (users, balances, transactions, missing.is_empty())
        else {
            return Err(LegacyError::Missing(missing.join(", ")));
        };
        Ok(Self {
            connection,
            zone: zone.to_owned(),
            users,
            accounts,
            passwords,
            factors,
            sessions,
            events,
            passkeys,
            balances,
            transactions,
            packages,
            purchases,
            usage,
        })
    }

    async fn number(&mut self, sql: String) -> Result<i64, LegacyError> {
        let number: Option<i64> = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut self.connection)
            .await
            .map_err(LegacyError::Source)?;
        Ok(number.unwrap_or(0))
    }

    /// How many rows a table has; none without it.
    pub(super) async fn count(
        &mut self,
        table: impl Fn(&Self) -> Option<&Table>,
    ) -> Result<i64, LegacyError> {
        let Some(sql) = table(self).map(|table| format!("SELECT count(*) FROM {} t", table.relation)) else {
            return Ok(0);
        };
        self.number(sql).await
    }

    /// Sessions that live.
    pub(super) async fn count_sessions(&mut self) -> Result<i64, LegacyError> {
        let Some(table) = &self.sessions else { return Ok(0) };
        let sql = format!(
            "SELECT count(*) FROM {} t WHERE coalesce({} > now(), true) AND {} IS NULL",
            table.relation,
            table.instant("expiresAt"),
            table.instant("revokedAt"),
        );
        self.number(sql).await
    }

    /// What the statistics say was spent.
    pub(super) async fn sum_usage(&mut self) -> Result<i64, LegacyError> {
        let Some(table) = &self.usage else { return Ok(0) };
        let sql = format!("SELECT {} FROM {} t", table.sum("creditsUsed"), table.relation);
        let used: String = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut self.connection)
            .await
            .map_err(LegacyError::Source)?;
        Ok(number(&used))
    }

    /// Lines of these users.
    pub(super) async fn count_lines(&mut self, users: &[String]) -> Result<i64, LegacyError> {
        if users.is_empty() {
            return Ok(0);
        }
        let table = &self.transactions;
        let sql = format!("SELECT count(*) FROM {} t WHERE {}", table.relation, table.is_any("userId", "$1"));
        let count = sqlx::query_scalar(AssertSqlSafe(sql)).bind(users.to_vec());
        count.fetch_one(&mut self.connection).await.map_err(LegacyError::Source)
    }

    /// How much mana there is in all. What is no mana counts for nothing: its user is refused.
    pub(super) async fn sum_balances(&mut self) -> Result<Totals, LegacyError> {
        let table = &self.balances;
        let (balance, free) = (table.sum("balance"), table.sum("freeCreditsRemaining"));
        let sql = format!("SELECT {balance}, {free} FROM {} t", table.relation);
        let (balance, free): (String, String) = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_one(&mut self.connection)
            .await
            .map_err(LegacyError::Source)?;
        Ok(Totals { balance: number(&balance), free: number(&free) })
    }

    /// Users whose address another user has too, in another case: all of an address but the first.
    pub(super) async fn list_doubles(&mut self) -> Result<HashSet<String>, LegacyError> {
        let table = &self.users;
        let (id, email) = (table.column("id"), table.column("email"));
        let sql = format!(
            "SELECT id FROM (SELECT {id}::text AS id, row_number() OVER (PARTITION BY lower(btrim({email}::text)) ORDER BY {id}) AS place
                 FROM {} t WHERE btrim({email}::text) <> '') places WHERE place > 1",
            table.relation
        );
        let ids: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_all(&mut self.connection)
            .await
            .map_err(LegacyError::Source)?;
        Ok(ids.into_iter().collect())
    }

    /// What orders say that was sold, the oldest first. An order that does not say it in numbers is refused with its user.
    pub(super) async fn list_sold(&mut self) -> Result<Vec<SoldAs>, LegacyError> {
        let Some(table) = &self.purchases else { return Ok(Vec::new()) };
        let package = if table.has("packageId") {
            format!("{}::text", table.column("packageId"))
        } else {
            "NULL".to_owned()
        };
        let sql = format!(
            "SELECT {package}, {}::text, {}::text FROM {} t GROUP BY 1, 2, 3 ORDER BY min({}), 1, 2, 3",
            table.column("credits"),
            table.column("priceEuroCents"),
            table.relation,
            table.instant("createdAt"),
        );
        let rows: Vec<(Option<String>, Option<String>, Option<String>)> = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_all(&mut self.connection)
            .await
            .map_err(LegacyError::Source)?;
        let sold = |(package_id, credits, price): (_, Option<String>, Option<String>)| {
            let (credits, price_euro_cents) = (credits?.parse().ok()?, price?.parse().ok()?);
            Some(SoldAs { package_id, credits, price_euro_cents })
        };
        Ok(rows.into_iter().filter_map(sold).collect())
    }

    /// All packages.
    pub(super) async fn list_packages(&mut self) -> Result<Vec<String>, LegacyError> {
        let Some(table) = &self.packages else { return Ok(Vec::new()) };
        let sql = format!("SELECT {} FROM {} t ORDER BY 1", table.object(&[]), table.relation);
        let rows = sqlx::query_scalar(AssertSqlSafe(sql));
        rows.fetch_all(&mut self.connection).await.map_err(LegacyError::Source)
    }

    /// Users behind one, in the order of their ids: id and row.
    pub(super) async fn list_users(
        &mut self,
        after: Option<&str>,
    ) -> Result<Vec<(String, String)>, LegacyError> {
        let table = &self.users;
        let (id, place) = (table.column("id"), table.is_behind("id", "$1"));
        let sql = format!(
            "SELECT {id}::text, {} FROM {} t WHERE {id} IS NOT NULL AND ($1::text IS NULL OR {place}) ORDER BY {id} LIMIT {PAGE}",
            table.object(&[]),
            table.relation,
        );
        let rows = sqlx::query_as(AssertSqlSafe(sql)).bind(after);
        rows.fetch_all(&mut self.connection).await.map_err(LegacyError::Source)
    }

    /// Rows of users in a table that has few for each: whose, and the row.
    pub(super) async fn list_of(
        &mut self,
        table: impl Fn(&Self) -> Option<&Table>,
        users: &[String],
    ) -> Result<Vec<(String, String)>, LegacyError> {
        let Some(table) = table(self) else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT {}::text, {} FROM {} t WHERE {}",
            table.column("userId"),
            table.object(&[]),
            table.relation,
            table.is_any("userId", "$1"),
        );
        let rows = sqlx::query_as(AssertSqlSafe(sql)).bind(users.to_vec());
        rows.fetch_all(&mut self.connection).await.map_err(LegacyError::Source)
    }

    /// The wallets of users, each with the day for which its free mana was given: whose, and the row.
    pub(super) async fn list_balances(
        &mut self,
        users: &[String],
    ) -> Result<Vec<(String, String)>, LegacyError> {
        let table = &self.balances;
        // None where it was never given: `least` passes over what is null.
        let day = format!(
            "CASE WHEN {0} IS NOT NULL THEN least(({0} AT TIME ZONE $2)::date, (now() AT TIME ZONE $2)::date) END",
            table.instant("lastDailyResetAt"),
        );
        let sql = format!(
            "SELECT {}::text, {} FROM {} t WHERE {}",
            table.column("userId"),
            table.object(&[("dailyDay", day)]),
            table.relation,
            table.is_any("userId", "$1"),
        );
        let rows = sqlx::query_as(AssertSqlSafe(sql)).bind(users.to_vec()).bind(self.zone.clone());
        rows.fetch_all(&mut self.connection).await.map_err(LegacyError::Source)
    }

    /// The histories of users, one after the other in the order given, each from its beginning: whose, and the line.
    pub(super) fn stream_lines<'a>(
        &'a mut self,
        users: &[String],
    ) -> BoxStream<'a, Result<(String, String), LegacyError>> {
        let table = &self.transactions;
        let at = table.instant("createdAt");
        let day = |shift: &str| format!("(({at} {shift}) AT TIME ZONE $2)::date");
        let more = [
            ("earliestDay", day("- interval '1 minute'")),
            ("day", day("")),
            ("latestDay", day("+ interval '1 minute'")),
        ];
        let (user, id) = (table.column("userId"), table.column("id"));
        let sql = format!(
            "SELECT {user}::text, {} FROM {} t WHERE {} ORDER BY array_position($1::text[], {user}::text), {at}, {id}",
            table.object(&more),
            table.relation,
            table.is_any("userId", "$1"),
        );
        let rows = sqlx::query_as(AssertSqlSafe(sql)).bind(users.to_vec()).bind(self.zone.clone());
        rows.fetch(&mut self.connection).map_err(LegacyError::Source).boxed()
    }

    /// What was written of users, whoever's it is.
    pub(super) fn stream_events<'a>(
        &'a mut self,
        users: &[String],
    ) -> Option<BoxStream<'a, Result<String, LegacyError>>> {
        let table = self.events.as_ref()?;
        let sql = format!(
            "SELECT {} FROM {} t WHERE {}",
            table.object(&[]),
            table.relation,
            table.is_any("userId", "$1")
        );
        let rows = sqlx::query_scalar(AssertSqlSafe(sql)).bind(users.to_vec());
        Some(rows.fetch(&mut self.connection).map_err(LegacyError::Source).boxed())
    }
}

/// A row that is not as the older service wrote them.
#[derive(Debug, thiserror::Error)]
#[error("the row {id} of {table} can't be understood: {cause}")]
pub(super) struct Misread {
    table: &'static str,
    /// Its own id; empty where it has none.
    pub(super) id: String,
    cause: serde_json::Error,
}

/// A row as it is called here.
pub(super) fn read<T: DeserializeOwned>(table: &'static str, row: &str) -> Result<T, Misread> {
    serde_json::from_str(row).map_err(|cause| {
        let row: Value = serde_json::from_str(row).unwrap_or_default();
        let id = row.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        Misread { table, id, cause }
    })
}

/// A sum of many numbers that are each small.
fn number(text: &str) -> i64 {
    let number = text.parse::<i128>().unwrap_or(i128::MAX);
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}
