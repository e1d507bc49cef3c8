//! Runs the simulation of the ledger, a test of the credits, with seeds of one's own.

use crate::{ChoreError, root};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// One seed, or as many as asked for from the first on.
pub(crate) fn run(seeds: u64, seed: Option<u64>) -> Result<String, ChoreError> {
    let chosen = seed.map_or(0..seeds, |seed| seed..seed.saturating_add(1));
    let lines: Vec<String> = chosen.map(|seed| seed.to_string()).collect();
    let mut test = Command::new("cargo")
        .args(["test", "--quiet", "--package", "mana-credits", "--lib", "--"])
        .args(["ledger::simulation::seeds_of_standard_input", "--ignored", "--nocapture"])
        .current_dir(root())
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = test.stdin.take() {
        // A seed that fails ends the test before it has read the others; its outcome tells.
        let _ = input.write_all(lines.join("\n").as_bytes());
    }
    if !test.wait()?.success() {
        return Err(ChoreError::Simulation);
    }
    Ok(format!(
        "simulated {}: the books are right",
        seed.map_or(format!("{seeds} seeds"), |seed| format!("seed {seed}"))
    ))
}
