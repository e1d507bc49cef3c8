//! Whether an installation is sound: every check is tried on the live system, none is assumed.

use crate::source::Source;
use mana_auth::token::keys::{ExaminedKey, KeyError};
use mana_kernel::Clock as _;
use mana_platform::pooler::{self, PoolerError};
use mana_platform::refusal::{Unreached, said};
use mana_platform::{Database, DbError, Settings, SystemClock, migrate, row_security};
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
    if let Err(error) = source.reach(&database).await {
        return vec![finding::<Unreached>("database", Err(error))];
    }
    // Before any statement is prepared.
    if let Err(error) = pooler::check(&database).await {
        return vec![finding::<PoolerError>("pooler", Err(error))];
    }
    let mut connection = match database.acquire().await {
        Ok(connection) => connection,
        Err(error) => return vec![finding("database", Err(error))],
    };
    let mut findings = vec![
        finding("database", version(&mut connection).await),
        finding("schema", migrate::check(&mut connection).await.map(|schema| format!("at {schema}"))),
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
    findings.extend(signing_keys(settings, source, &database).await);
    findings
}

fn finding<E: Error>(check: &'static str, outcome: Result<String, E>) -> Finding {
    match outcome {
        Ok(detail) => Finding { check, ok: true, detail },
        Err(error) => Finding { check, ok: false, detail: error.to_string() },
    }
}

/// A finding for every key. Looks only: a doctor that made a missing key would be the first to use a wrong root secret.
async fn signing_keys(settings: &Settings, source: Source, database: &Database) -> Vec<Finding> {
    let of_key = |outcome| finding("signing key", outcome);
    let chest = match source.key_chest(settings, database) {
        Ok(chest) => chest,
        Err(error) => return vec![of_key(Err(error))],
    };
    let mut findings = Vec::new();
    if let Some(given) = &chest.given {
        let proof = given.prove();
        findings
            .push(of_key(proof.map(|()| format!("{} of JWT_PRIVATE_KEY signs and verifies", given.kid()))));
    }
    match chest.examine().await {
        Ok(keys) if keys.is_empty() && chest.given.is_none() => {
            findings.push(of_key(Ok("none yet: the first start makes it".to_owned())));
        }
        Ok(keys) => findings.extend(keys.into_iter().map(|key| of_key(described(key)))),
        Err(error) => findings.push(of_key(Err(error))),
    }
    findings
}

fn described(key: ExaminedKey) -> Result<String, KeyError> {
    let ExaminedKey { kid, kind, state, secret_version, soundness, .. } = key;
    soundness?;
    let does = match secret_version {
        Some(version) => format!("opens with version {version} of MANA_SECRET_KEY, signs and verifies"),
        None => "verifies; its private half is not in the database".to_owned(),
    };
    Ok(format!("{kid} ({}, {kind}) {does}", state.as_str()))
}

async fn version(connection: &mut PgConnection) -> Result<String, DbError> {
    let version = sqlx::query_scalar("SELECT 'PostgreSQL ' || current_setting('server_version')");
    Ok(version.fetch_one(connection).await?)
}

#[derive(Debug, thiserror::Error)]
enum ClockError {
    #[error("the clocks of this machine and of the database are {0} s apart: synchronise both (NTP)")]
    Skewed(i64),
    #[error("the database can't be asked: {}", said(.0))]
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
