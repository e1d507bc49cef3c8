//! The long version of the test in which everything fails: `peers/chaos.rs` of the server's tests does the work.

use crate::{ChoreError, testing};
use clap::Args;
use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use std::process::Command;

const LONG_VERSION: &str = "chaos::the_long_version";

/// What to do.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// How often each fault happens
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Repeats the order of the faults of a run that printed this; what they meet is never quite the same
    #[arg(long)]
    seed: Option<u64>,
    /// Only these faults, by name, as `DiskFull,ClockSteps`; all when not given
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
}

/// Runs to the end of the plan, or to the first thing that does not come back, is lost or doubled.
pub(crate) fn run(Plan { rounds, seed, faults }: &Plan) -> Result<String, ChoreError> {
    let seed = seed.unwrap_or_else(|| {
        let mut bytes = [0; 8];
        SystemRng.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    });
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--package", "mana-core-auth", "--features", "peers", "--test", "peers"]);
    cargo.args(["--", "--exact", LONG_VERSION, "--ignored", "--nocapture"]);
    cargo.env("MANA_CHAOS", format!("{rounds} {seed} {}", faults.join(" ")));
    if testing::pass(&mut cargo, &[LONG_VERSION])? {
        Ok("chaos: everything came back, and nothing was lost or doubled".to_owned())
    } else {
        Err(ChoreError::Chaos(seed))
    }
}
