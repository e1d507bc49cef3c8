//! Tests that a chore runs with a plan of its own. Cargo is content when a filter meets no test: then a test that was renamed would be
//! reported as passed for ever. Here it is a failure.

use crate::{ChoreError, root};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// Runs `cargo test` with what was put together, and shows what it says. Whether all passed; each filter must have met a test.
pub(crate) fn pass<Filter: AsRef<str>>(cargo: &mut Command, filters: &[Filter]) -> Result<bool, ChoreError> {
    // As --quiet has cargo say nothing, and the tests only dots.
    cargo.arg("--format=pretty").current_dir(root()).stdout(Stdio::piped());
    let mut running = cargo.spawn()?;
    let mut said = Vec::new();
    if let Some(output) = running.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            said.push(line);
        }
    }
    let has_passed = running.wait()?.success();
    match unmet(&said, filters) {
        Some(filter) if has_passed => Err(ChoreError::NoTest(filter.to_owned())),
        _ => Ok(has_passed),
    }
}

/// The first filter that no test was run for; of none at all, that there was no test.
fn unmet<'a, Filter: AsRef<str>>(said: &[String], filters: &'a [Filter]) -> Option<&'a str> {
    let run: Vec<_> = said.iter().filter_map(|line| run_by(line)).collect();
    let mut filters = filters.iter().map(AsRef::as_ref).peekable();
    if filters.peek().is_none() && run.is_empty() {
        return Some("");
    }
    filters.find(|filter| !run.iter().any(|name| name.contains(filter)))
}

/// The name of the test that a line is of, unless it was left out.
fn run_by(line: &str) -> Option<&str> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    (!outcome.starts_with("ignored")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_meets_no_test_is_named() {
        let said = [
            "running 3 tests",
            "test login::a_person_signs_in ... ok",
            "test ledger::a_hold ... FAILED",
            "test torture::the_long_version ... ignored, takes as long as one wants",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 200 filtered out; finished in 0.01s",
        ];
        let said = said.map(str::to_owned);
        assert_eq!(unmet(&said, &["login::", "ledger::"]), None);
        assert_eq!(unmet(&said, &["login::", "refresh::"]), Some("refresh::"));
        assert_eq!(
            unmet(&said, &["torture::the_long_version"]),
            Some("torture::the_long_version"),
            "left out"
        );
        assert_eq!(unmet::<&str>(&said, &[]), None);
        assert_eq!(unmet::<&str>(&said[4..], &[]), Some(""), "none at all");
        let nocapture = ["test chaos::the_long_version ... ".to_owned(), "ok".to_owned()];
        assert_eq!(unmet(&nocapture, &["chaos::the_long_version"]), None);
    }
}
