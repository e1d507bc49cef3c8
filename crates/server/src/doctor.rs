//! Whether an installation is sound: every check is tried on the live system, none is assumed.

use crate::source::Source;
use mana_auth::token::keys::{KeyError, KeyRing};
use mana_auth::token::root_secret::RootSecrets;
use mana_kernel::Clock as _;
use mana_platform::{Database, Settings, SystemClock, migrate, row_security};
use serde::Serialize;
use sqlx::PgConnection;
use std::error::Error;
use time::OffsetDateTime;

/// What a check found.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What was checked.
    pub check: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What was seen, and what to do if it does not hold.
    pub detail: String,
}

/// The clocks of server and database may differ by this much, in seconds.
const MAX_SKEW_SECONDS: i64 = 2;

/// Runs all checks. Without a database nothing else can be checked.
pub(crate) async fn examine(settings: &Settings, source: Source) -> Vec<Finding> {
    let database = source.database(settings);
    let mut connection = match database.pool().acquire().await {
        Ok(connection) => connection,
        Err(error) => {
            let detail = format!("{error}. Check DATABASE_URL and whether PostgreSQL runs there");
            return vec![Finding { check: "database", ok: false, detail }];
        }
    };
    let mut findings = vec![
        finding("database", version(&mut connection).await),
        finding(
            "schema",
            migrate::check(&mut connection).await.map(|()| format!("at {}", migrate::binary_version())),
        ),
        finding(
            "role",
            row_security::check_role(&mut connection)
                .await
                .map(|()| "can't bypass row-level security".to_owned()),
        ),
        finding(
            "row security",
            row_security::prove(&mut connection)
                .await
                .map(|()| "one user can't read or write another's rows".to_owned()),
        ),
        finding("clock", clock(&mut connection).await),
    ];
    drop(connection);
    findings.push(finding("signing key", signing_key(settings, &database, &source.root_secrets).await));
    findings
}

fn finding<E: Error>(check: &'static str, outcome: Result<String, E>) -> Finding {
    match outcome {
        Ok(detail) => Finding { check, ok: true, detail },
        Err(error) => Finding { check, ok: false, detail: error.to_string() },
    }
}

/// Looks only: a doctor that made the missing key would be the first to use a wrong root secret.
async fn signing_key(
    settings: &Settings,
    database: &Database,
    secrets: &RootSecrets,
) -> Result<String, KeyError> {
    let keys = match &settings.jwt_private_key {
        Some(private) => Some(KeyRing::given(private, settings.jwt_public_key.as_deref())?),
        None => KeyRing::stored(database, secrets).await?,
    };
    let Some(keys) = keys else { return Ok("none yet: the first start makes it".to_owned()) };
    keys.prove()?;
    Ok("opens, signs and verifies".to_owned())
}

async fn version(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SELECT 'PostgreSQL ' || current_setting('server_version')")
        .fetch_one(connection)
        .await
}

#[derive(Debug, thiserror::Error)]
enum ClockError {
    #[error("the clocks of this machine and of the database are {0} s apart: synchronise both (NTP)")]
    Skewed(i64),
    #[error("the database can't be asked: {0}")]
    Database(#[from] sqlx::Error),
}

async fn clock(connection: &mut PgConnection) -> Result<String, ClockError> {
    let before = SystemClock.now();
    let theirs: OffsetDateTime = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(connection).await?;
    let after = SystemClock.now();
    // Theirs lies between the two if the clocks agree; how far outside is how far apart they are.
    let skew = theirs.clamp(before, after).unix_timestamp().abs_diff(theirs.unix_timestamp());
    match i64::try_from(skew).unwrap_or(i64::MAX) {
        skew if skew > MAX_SKEW_SECONDS => Err(ClockError::Skewed(skew)),
        _ => Ok("agrees with the database's".to_owned()),
    }
}
