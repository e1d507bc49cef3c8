//! How far a long piece of work is, on standard error.

use crate::tally::as_number;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

const WIDTH: usize = 30;
/// Where nobody looks on, lines are written this often.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// A bar that fills; lines where standard error is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    total: u64,
    begun: Instant,
    told: Option<Instant>,
}

impl Progress {
    pub(crate) fn start(what: impl Into<String>, total: u64) -> Self {
        Self { what: what.into(), total, begun: Instant::now(), told: None }
    }

    /// Says that so many are done.
    pub(crate) fn at(&mut self, done: u64) {
        let mut output = std::io::stderr();
        let line = line(&self.what, done, self.total, self.begun.elapsed());
        let is_over = done >= self.total;
        // What can't be told does not matter.
        if output.is_terminal() {
            let end = if is_over { "\n" } else { "" };
            let _ = write!(output, "\r\x1b[K{line}{end}");
        } else if is_over || self.told.is_none_or(|told| told.elapsed() >= BETWEEN_LINES) {
            let _ = writeln!(output, "{line}");
            self.told = Some(Instant::now());
        }
    }
}

fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let share = as_number(done.min(total)) / as_number(total.max(1));
    let filled = (0..WIDTH)
        .filter(|&place| place * 100 < usize::try_from(done * 100 / total.max(1)).unwrap_or(0) * WIDTH);
    let bar = "#".repeat(filled.count());
    let left = if share > 0.0 { elapsed.mul_f64((1.0 - share) / share).as_secs() } else { 0 };
    format!("seeding {what}: [{bar:<WIDTH$}] {done} of {total}, {left} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_and_says_how_long() {
        let half = line("rows", 5, 10, Duration::from_secs(8));
        assert_eq!(half, format!("seeding rows: [{}{}] 5 of 10, 8 s left", "#".repeat(15), " ".repeat(15)));
        assert!(line("rows", 0, 0, Duration::ZERO).contains("0 of 0"));
        assert!(line("rows", 10, 10, Duration::ZERO).contains(&"#".repeat(30)));
    }
}
