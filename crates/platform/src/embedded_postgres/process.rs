//! Other processes: what they say, whether they live, and waiting for them.

use std::io;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

/// Runs a shell script; `$1` and so on are the arguments.
pub(super) fn shell(script: &str, arguments: &[&str]) -> io::Result<Output> {
    Command::new("sh").args(["-c", script, "sh"]).args(arguments).output()
}

/// The command line of a process; empty for one that is dead but not collected; None when there is none.
/// Slim containers have no `ps`, and macOS has no `/proc`.
pub(super) fn command_line(pid: u32) -> Option<String> {
    let script = r#"cat "/proc/$1/cmdline" 2>/dev/null || ps -ww -o args= -p "$1""#;
    let output = shell(script, &[&pid.to_string()]).ok()?;
    let exists = output.status.success();
    exists.then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// By the shell's own `kill`, as slim containers have no other. A target with a minus is a process group.
pub(super) fn signal(name: &str, target: &str) {
    let _ = shell(r#"kill -s "$1" -- "$2""#, &[name, target]);
}

/// Asks until it is so or the time is over, and says which.
pub(super) fn poll(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() >= limit {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}
