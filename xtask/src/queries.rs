//! `.sqlx`: what PostgreSQL says of every checked query, so that the code builds without a database.

use crate::{ChoreError, root};
use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use mana_platform::embedded_postgres::{Durability, EmbeddedPostgres, Options};
use mana_platform::migrate;
use sqlx::postgres::PgConnectOptions;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

/// Crates whose queries are checked.
const CRATES: [&str; 2] = ["auth", "credits"];

/// Brings `.sqlx` up to date, or says what is not.
pub(crate) fn run(check: bool) -> Result<Vec<String>, ChoreError> {
    let described = tempfile::tempdir()?;
    describe_queries(described.path())?;
    let (wanted, current) = (files(described.path())?, files(&root().join(".sqlx"))?);
    if wanted == current {
        return Ok(Vec::new());
    }
    if check {
        return Ok(vec![".sqlx".to_owned()]);
    }
    let folder = root().join(".sqlx");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir(&folder)?;
    for (name, content) in wanted {
        std::fs::write(folder.join(name), content)?;
    }
    Ok(Vec::new())
}

fn files(folder: &Path) -> Result<BTreeMap<OsString, Vec<u8>>, ChoreError> {
    if !folder.exists() {
        return Ok(BTreeMap::new());
    }
    std::fs::read_dir(folder)?
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name(), std::fs::read(entry.path())?))
        })
        .collect()
}

/// Builds the crates against a throw-away database, which makes the query macros describe themselves into `target`.
fn describe_queries(target: &Path) -> Result<(), ChoreError> {
    let home = tempfile::Builder::new().prefix("mana-xtask-").tempdir()?.keep();
    let options = Options { folder: home, durability: Durability::None, throw_away: true };
    let postgres = EmbeddedPostgres::start(&options, &|bytes| SystemRng.fill(bytes))?;
    let owner = PgConnectOptions::new_without_pgpass()
        .socket(postgres.socket_folder())
        .username(postgres.superuser())
        .password(postgres.password())
        .database("postgres");
    tokio::runtime::Runtime::new()?.block_on(migrate::migrate(&owner, None, &SystemRng))?;
    let url = format!(
        "postgres://{}:{}@localhost/postgres?host={}",
        postgres.superuser(),
        postgres.password(),
        postgres.socket_folder().display()
    );
    for name in CRATES {
        // What cargo has built already it would not build again, and the macros would not run.
        std::fs::File::open(root().join("crates").join(name).join("src/lib.rs"))?.set_modified(now())?;
    }
    let built = Command::new("cargo")
        .args(["check", "--quiet", "--package", "mana-auth", "--package", "mana-credits"])
        .current_dir(root())
        .envs([("DATABASE_URL", url.as_str()), ("SQLX_OFFLINE", "false")])
        .env("SQLX_OFFLINE_DIR", target)
        .status()?;
    postgres.stop()?;
    if built.success() { Ok(()) } else { Err(ChoreError::Build) }
}

#[expect(clippy::disallowed_methods, reason = "a file's time of change is the machine's")]
fn now() -> SystemTime {
    SystemTime::now()
}
