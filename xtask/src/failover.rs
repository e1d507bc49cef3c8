//! The long version of the test in which a standby takes over: `peers/failover.rs` of the server's tests does the work.

use crate::{ChoreError, testing};
use std::process::Command;

const LONG_VERSION: &str = "failover::the_long_version";

/// Kills primaries until it was so often, or to the first spend that is lost or doubled.
pub(crate) fn run(times: u32) -> Result<String, ChoreError> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--package", "mana-core-auth", "--features", "peers", "--test", "peers"]);
    cargo.args(["--", "--exact", LONG_VERSION, "--ignored", "--nocapture"]);
    cargo.env("MANA_FAILOVER", times.to_string());
    if testing::pass(&mut cargo, &[LONG_VERSION])? {
        Ok("failover: the standby took over, and nothing was lost or doubled".to_owned())
    } else {
        Err(ChoreError::Failover)
    }
}
