//! The long version of the ledger's tests that kill: `binary/torture.rs` of the server's tests does the work.

use crate::{ChoreError, testing};
use clap::{Args, ValueEnum};
use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use std::fmt;
use std::process::Command;

const LONG_VERSION: &str = "torture::the_long_version";

/// What to do.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// How often to kill
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    cycles: u64,
    /// Repeats the decisions of a run that printed this; what they meet is never quite the same
    #[arg(long)]
    seed: Option<u64>,
    /// What to kill
    #[arg(long, value_enum, default_value_t = Victim::Both)]
    kill: Victim,
    /// Build with optimisations, which takes long and then kills under more load
    #[arg(long)]
    release: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Victim {
    Server,
    Postgres,
    Both,
}

impl fmt::Display for Victim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Server => "server",
            Self::Postgres => "postgres",
            Self::Both => "both",
        })
    }
}

/// Runs to the end of the plan, or to the first spend that is lost or doubled.
pub(crate) fn run(Plan { cycles, seed, kill, release }: &Plan) -> Result<String, ChoreError> {
    let seed = seed.unwrap_or_else(|| {
        let mut bytes = [0; 8];
        SystemRng.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    });
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--package", "mana-core-auth", "--test", "binary"]);
    cargo.args(release.then_some("--release"));
    cargo.args(["--", "--exact", LONG_VERSION, "--ignored", "--nocapture"]);
    cargo.env("MANA_TORTURE", format!("{cycles} {seed} {kill}"));
    if testing::pass(&mut cargo, &[LONG_VERSION])? {
        Ok("torture: nothing was lost or doubled".to_owned())
    } else {
        Err(ChoreError::Torture(seed))
    }
}
