//! The long version of the test in which a standby takes over: `peers/failover.rs` of the server's tests does the work.

use crate::{ChoreError, root};
use std::process::Command;

/// Kills primaries until it was so often, or to the first spend that is lost or doubled.
pub(crate) fn run(times: u32) -> Result<String, ChoreError> {
    let status = Command::new("cargo")
        .args(["test", "--quiet", "--package", "mana-core-auth", "--features", "peers", "--test", "peers"])
        .args(["--", "--exact", "failover::the_long_version", "--ignored", "--nocapture"])
        .env("MANA_FAILOVER", times.to_string())
        .current_dir(root())
        .status()?;
    if status.success() {
        Ok("failover: the standby took over, and nothing was lost or doubled".to_owned())
    } else {
        Err(ChoreError::Failover)
    }
}
