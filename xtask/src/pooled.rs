//! The tests of the crates and the stories, which use a database each, through a PgBouncer in transaction mode.

use crate::{ChoreError, testing};
use clap::Args;
use std::process::Command;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Let the pooler keep prepared statements apart, as 1.21 and newer can; without, it mixes them up, as older ones do
    #[arg(long)]
    prepared: bool,
    /// Only tests whose name contains one of these; each must be in the name of one at least
    filters: Vec<String>,
}

/// Runs them; the testkit puts the pooler in between.
pub(crate) fn run(Plan { prepared, filters }: &Plan) -> Result<String, ChoreError> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--locked"]);
    cargo.args(["--package", "mana-auth", "--package", "mana-credits", "--package", "mana-core-auth"]);
    cargo.args(["--no-fail-fast", "--lib", "--test", "stories", "--"]).args(filters);
    cargo.env("MANA_TEST_THROUGH_PGBOUNCER", if *prepared { "prepared" } else { "mixed" });
    if testing::pass(&mut cargo, filters)? {
        Ok("pooled: a pooler changes nothing".to_owned())
    } else {
        Err(ChoreError::Pooled)
    }
}
