//! Runs the simulation of the ledger, a test of the credits, with seeds of one's own.

use crate::{ChoreError, testing};
use std::io::{Seek as _, Write as _};
use std::process::Command;

const BY_SEED: &str = "ledger::simulation::seeds_of_standard_input";

/// One seed, or as many as asked for from the first on.
pub(crate) fn run(seeds: u64, seed: Option<u64>) -> Result<String, ChoreError> {
    let chosen = seed.map_or(0..seeds, |seed| seed..seed.saturating_add(1));
    let lines: Vec<String> = chosen.map(|seed| seed.to_string()).collect();
    let mut input = tempfile::tempfile()?;
    input.write_all(lines.join("\n").as_bytes())?;
    input.rewind()?;
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--package", "mana-credits", "--lib", "--"]);
    cargo.args([BY_SEED, "--ignored", "--nocapture"]).stdin(input);
    if !testing::pass(&mut cargo, &[BY_SEED])? {
        return Err(ChoreError::Simulation);
    }
    Ok(format!(
        "simulated {}: the books are right",
        seed.map_or(format!("{seeds} seeds"), |seed| format!("seed {seed}"))
    ))
}
