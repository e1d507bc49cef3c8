//! All tests that use a database, through a PgBouncer in transaction mode.

use crate::{ChoreError, root};
use clap::Args;
use std::process::Command;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Only tests whose name contains one of these
    filters: Vec<String>,
}

/// Runs them; the testkit puts the pooler in between.
pub(crate) fn run(Plan { filters }: &Plan) -> Result<String, ChoreError> {
    let status = Command::new("cargo")
        .args([
            "test",
            "--locked",
            "--package",
            "mana-auth",
            "--package",
            "mana-credits",
            "--package",
            "mana-core-auth",
        ])
        .args(["--no-fail-fast", "--lib", "--test", "stories", "--"])
        .args(filters)
        .env("MANA_TEST_THROUGH_PGBOUNCER", "yes")
        .current_dir(root())
        .status()?;
    if status.success() { Ok("pooled: a pooler changes nothing".to_owned()) } else { Err(ChoreError::Pooled) }
}
