//! Chores of the repository: `cargo xtask gen` writes what is generated, `cargo xtask tidy` holds the laws of its structure,
//! `cargo xtask torture` kills the server and PostgreSQL under load, `cargo xtask chaos` all that they lean on,
//! `cargo xtask failover` the machine of a primary. `cargo xtask previous` upgrades the release before this one while it serves.
//! `cargo xtask simulate` looks for a seed with which the ledger's books go wrong.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

mod chaos;
mod common_passwords;
mod failover;
mod generate;
mod migrations;
mod monitoring;
mod pooled;
mod previous;
mod queries;
mod simulate;
mod tables;
mod testing;
mod threats;
mod tidy;
mod torture;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Chore {
    /// Write the generated files: .sqlx, docs/ERRORS.md, docs/openapi.json, .env.example, the table in docs/OPERATIONS.md
    Gen {
        /// Write nothing; fail if a file is not what would be written
        #[arg(long)]
        check: bool,
    },
    /// Write the filter of the commonest passwords anew, from the lists that crates/auth/data/README.md names
    CommonPasswords(common_passwords::Lists),
    /// Check the direction of dependencies, where things may be done, what migrations lock, and that monitoring asks for what is counted
    Tidy,
    /// Kill the server and PostgreSQL again and again under load of spends; fail if a spend is lost or doubled
    Torture(torture::Plan),
    /// Let everything fail that the service leans on, while people spend; fail if something does not come back, is lost or doubled
    Chaos(chaos::Plan),
    /// Kill the machine of the primary under load of spends, have its synchronous standby take over, and check the books
    Failover {
        /// How often
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
        times: u32,
    },
    /// Run the tests of the crates and the stories through a PgBouncer in transaction mode
    Pooled(pooled::Plan),
    /// Build the release before this one, migrate below its servers while they are under load, and put new ones in their places
    Previous,
    /// Simulate the ledger with replicas, clients and a database that fail, and check the books
    Simulate {
        /// How many seeds, from 0 on
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// This seed only, to see its failure again
        #[arg(long, conflicts_with = "seeds")]
        seed: Option<u64>,
    },
}

/// Why a chore failed.
#[derive(Debug, thiserror::Error)]
enum ChoreError {
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    #[error("not up to date, run `cargo xtask gen`: {0}")]
    Stale(String),
    #[error(
        "docs/ERRORS.md has codes that the code has not, and clients may rely on them: {0}. Bring them back, or, if no release had them, \
         delete their headings there first"
    )]
    Promise(String),
    #[error("{0}")]
    Law(String),
    #[error("{0} does not parse: {1}")]
    Parse(PathBuf, syn::Error),
    #[error(transparent)]
    Metadata(#[from] cargo_metadata::Error),
    #[error(transparent)]
    Postgres(#[from] mana_platform::embedded_postgres::EmbeddedPostgresError),
    #[error(transparent)]
    Schema(#[from] mana_platform::migrate::SchemaError),
    #[error("the build with a database failed")]
    Build,
    #[error("torture: the books are not as they must be, or it could not go on (--seed {0})")]
    Torture(u64),
    #[error("chaos: something did not come back, or the books are not as they must be (--seed {0})")]
    Chaos(u64),
    #[error("failover: the standby did not take over, or its books are not as they must be")]
    Failover,
    #[error("some tests fail through a pooler")]
    Pooled,
    #[error(
        "the release before this one is the commit {0}, which is not in this repository: fetch it from where the repository came from \
         (`git fetch --unshallow --tags origin`), or name another in xtask/src/previous.rs"
    )]
    NoRelease(&'static str),
    #[error(
        "the release before this one knows the schema {newest}, but WORKS_FROM in crates/platform/src/migrate.rs says {says}: \
         both are changed together"
    )]
    WorksFrom { newest: i64, says: i64 },
    #[error("the release before this one does not build")]
    PreviousBuild,
    #[error("the release before this one does not go on while this one takes its place")]
    Previous,
    #[error("no test was run for {0:?}: it may have another name now")]
    NoTest(String),
    #[error("the simulation found a fault")]
    Simulation,
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(
        "docs/OPERATIONS.md has no place for the table of settings between `<!-- settings -->` and `<!-- /settings -->`"
    )]
    NoPlace,
}

fn main() -> ExitCode {
    let outcome = match Chore::parse() {
        Chore::Gen { check } => generate::run(check),
        Chore::CommonPasswords(lists) => common_passwords::run(&lists),
        Chore::Tidy => tidy::run(),
        Chore::Torture(plan) => torture::run(&plan),
        Chore::Chaos(plan) => chaos::run(&plan),
        Chore::Failover { times } => failover::run(times),
        Chore::Pooled(plan) => pooled::run(&plan),
        Chore::Previous => previous::run(),
        Chore::Simulate { seeds, seed } => simulate::run(seeds, seed),
    };
    match outcome {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository, wherever the chore is called from.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
