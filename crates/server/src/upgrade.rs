//! Whether this version can take over from the one that runs: `doctor --upgrade`, as the owner of the database.

use crate::cli::migrate::expected_seconds;
use crate::doctor::Finding;
use crate::source::{Migration, SourceError};
use mana_platform::Settings;
use mana_platform::migrate::{self, Planned};
use mana_platform::refusal::{Unreached, said};
use sqlx::{Connection as _, PgConnection};

/// A migration that keeps everybody waiting for longer belongs into the quiet hours.
const LONG_SECONDS: i64 = 5;
/// The books are checked every hour.
const PROOF_HOURS: i64 = 3;

/// Looks at the database, changes nothing.
///
/// # Errors
/// When `DATABASE_OWNER_URL` is no address.
pub(crate) async fn examine(settings: &Settings) -> Result<Vec<Finding>, SourceError> {
    let Some(migration) = Migration::from_settings(settings)? else {
        let detail =
            "DATABASE_OWNER_URL is not set, and only the owner can migrate and see who is in the way"
                .to_owned();
        return Ok(vec![Finding { check: "owner", ok: false, detail }]);
    };
    let mut connection = match PgConnection::connect_with(&migration.owner).await {
        Ok(connection) => connection,
        Err(error) => {
            let detail = Unreached::owner(&error, &migration.owner).to_string();
            return Ok(vec![Finding { check: "owner", ok: false, detail }]);
        }
    };
    let mut findings = vec![
        finding("owner", owner(&mut connection).await),
        match migrate::plan(&migration.owner).await {
            Ok(planned) => plan(&planned),
            Err(error) => Finding { check: "migrations", ok: false, detail: error.to_string() },
        },
        finding("long transactions", long_transactions(&mut connection).await),
        finding("unfinished indexes", unfinished_indexes(&mut connection).await),
        finding("books", books(&mut connection).await),
    ];
    // What it finds wrong is said; that it could not be closed says nothing about the upgrade.
    if let Err(error) = connection.close().await {
        findings.push(Finding { check: "connection", ok: false, detail: error.to_string() });
    }
    Ok(findings)
}

/// What was found, or else what is wrong.
type Found = Result<Result<String, String>, sqlx::Error>;

fn finding(check: &'static str, found: Found) -> Finding {
    match found {
        Ok(Ok(detail)) => Finding { check, ok: true, detail },
        Ok(Err(detail)) => Finding { check, ok: false, detail },
        Err(error) => Finding { check, ok: false, detail: format!("can't be asked: {}", said(&error)) },
    }
}

fn plan(planned: &[Planned]) -> Finding {
    // Nobody waits for a database that nobody uses yet.
    let is_first = planned.first().is_some_and(|planned| planned.version == 1);
    let steps = planned.iter().filter(|_| !is_first).flat_map(|planned| &planned.steps);
    let long = steps.filter(|planned| planned.step.is_long());
    let Some(times) = long.map(expected_seconds).collect::<Option<Vec<_>>>() else {
        let detail =
            "of one nobody can tell how long it would keep others waiting: see `migrate --plan`".to_owned();
        return Finding { check: "migrations", ok: false, detail };
    };
    let longest = times.into_iter().max().unwrap_or(0);
    let detail = match planned.len() {
        0 => "none: the schema is as this version needs it".to_owned(),
        number => format!(
            "{number} to run, none of which keeps others waiting for more than {} s: `migrate --plan` lists them",
            longest.max(1)
        ),
    };
    if longest <= LONG_SECONDS {
        return Finding { check: "migrations", ok: true, detail };
    }
    let detail = format!(
        "one would keep others waiting for some {longest} s: see `migrate --plan`, and choose a quiet hour"
    );
    Finding { check: "migrations", ok: false, detail }
}

async fn owner(connection: &mut PgConnection) -> Found {
    let (role, owns, makes_roles): (String, bool, bool) = sqlx::query_as(
        "SELECT current_user::text,
                coalesce((SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'mana'), true),
                rolcreaterole OR rolsuper OR (SELECT count(*) = 2 FROM pg_roles WHERE rolname IN ('mana_service', 'mana_user'))
         FROM pg_roles WHERE rolname = current_user",
    )
    .fetch_one(connection)
    .await?;
    Ok(match (owns, makes_roles) {
        (true, true) => Ok(format!("{role} owns the schema")),
        (false, _) => {
            Err(format!("{role} does not own the schema: DATABASE_OWNER_URL must name the role that made it"))
        }
        (true, false) => Err(format!("{role} can't make the roles that are missing: it needs CREATEROLE")),
    })
}

/// Whoever holds a table for long makes a migration give way.
async fn long_transactions(connection: &mut PgConnection) -> Found {
    let sees_all: bool = sqlx::query_scalar("SELECT pg_has_role('pg_read_all_stats', 'USAGE')")
        .fetch_one(&mut *connection)
        .await?;
    if !sees_all {
        return Ok(
            Err("can't be seen: GRANT pg_read_all_stats TO the role of DATABASE_OWNER_URL".to_owned()),
        );
    }
    let long: Vec<String> = sqlx::query_scalar(
        "SELECT format('process %s of %s, for %s s, %s', pid, usename, round(extract(epoch FROM now() - xact_start)), state)
         FROM pg_stat_activity
         WHERE datname = current_database() AND xact_start < now() - interval '1 minute' AND pid <> pg_backend_pid()
           AND EXISTS (SELECT FROM pg_locks JOIN pg_class ON pg_class.oid = relation
                       JOIN pg_namespace ON pg_namespace.oid = relnamespace
                       WHERE pg_locks.pid = pg_stat_activity.pid AND nspname IN ('auth', 'credits', 'mana'))
         UNION ALL
         SELECT format('prepared transaction %s of %s', gid, owner) FROM pg_prepared_xacts WHERE database = current_database()",
    )
    .fetch_all(connection)
    .await?;
    Ok(if long.is_empty() {
        Ok("none holds a table for more than a minute".to_owned())
    } else {
        Err(format!(
            "migrations would give way to {}. Wait for them or end them: SELECT pg_terminate_backend(...)",
            long.join("; ")
        ))
    })
}

async fn unfinished_indexes(connection: &mut PgConnection) -> Found {
    let unfinished: Vec<String> = sqlx::query_scalar(
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
         JOIN pg_namespace ON pg_namespace.oid = relnamespace
         WHERE NOT indisvalid AND nspname IN ('auth', 'credits', 'mana')",
    )
    .fetch_all(connection)
    .await?;
    Ok(if unfinished.is_empty() {
        Ok("none".to_owned())
    } else {
        Err(format!("{} cost writes and help nobody: DROP INDEX CONCURRENTLY", unfinished.join(", ")))
    })
}

/// An upgrade begins from books that are true, so that what is found afterwards is the upgrade's.
async fn books(connection: &mut PgConnection) -> Found {
    let has_roots: bool = sqlx::query_scalar("SELECT to_regclass('credits.roots') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !has_roots {
        return Ok(Ok("there are none yet".to_owned()));
    }
    // The owner sees no row of a table that is protected from it as well: the newest root by its sequence is enough of a sign.
    let hours: Option<i64> = sqlx::query_scalar(
        "SELECT (extract(epoch FROM now() - max(created_at)) / 3600)::bigint FROM credits.roots",
    )
    .fetch_one(connection)
    .await?;
    Ok(match hours {
        Some(hours) if hours <= PROOF_HOURS => Ok("found true within the last hours".to_owned()),
        Some(hours) => Err(format!("last found true {hours} h ago: run `ledger verify` before the upgrade")),
        None => {
            Ok("run `ledger verify` before and after: whether they were checked lately, the owner can't see"
                .to_owned())
        }
    })
}
