//! How far long work is, on standard error: a bar on a terminal, elsewhere a line every few seconds.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

const BAR: u64 = 30;

/// Work that is under way.
#[derive(Debug)]
pub(super) struct Progress {
    total: u64,
    began: Instant,
    shown: Instant,
    is_terminal: bool,
}

impl Progress {
    /// Of work that has `total` parts; about, because the world goes on meanwhile.
    pub(super) fn new(total: u64) -> Self {
        let now = Instant::now();
        Self { total, began: now, shown: now, is_terminal: io::stderr().is_terminal() }
    }

    /// How many parts there are is known only now.
    pub(super) fn of(&mut self, total: u64) {
        self.total = total;
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// So many parts are done. Shown now and then; that it can't be shown stops no work.
    pub(super) fn show(&mut self, done: u64, detail: &str) {
        let pause = if self.is_terminal { Duration::from_millis(100) } else { Duration::from_secs(5) };
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let mut output = io::stderr().lock();
        let _ = output.write_all(self.text(done, detail).as_bytes()).and_then(|()| output.flush());
    }

    /// A bar in place of the one before, or a line.
    fn text(&self, done: u64, detail: &str) -> String {
        let part =
            |whole: u64| done.min(self.total).saturating_mul(whole).checked_div(self.total).unwrap_or(whole);
        if self.is_terminal {
            let bar: String = (0..BAR).map(|place| if place < part(BAR) { '#' } else { '.' }).collect();
            format!("\r[{bar}] {:>3} %  {detail}\x1b[K", part(100))
        } else {
            format!("{} %, {detail}\n", part(100))
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if self.is_terminal {
            let mut output = io::stderr().lock();
            let _ = write!(output, "\r\x1b[K").and_then(|()| output.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_a_bar_in_one_place_and_a_file_has_lines() {
        let mut progress = Progress { is_terminal: true, ..Progress::new(8) };
        for (done, filled, percent) in [(0, 0, "  0"), (2, 7, " 25"), (8, 30, "100"), (9, 30, "100")] {
            let bar = format!("{}{}", "#".repeat(filled), ".".repeat(30_usize.saturating_sub(filled)));
            assert_eq!(progress.text(done, "so many"), format!("\r[{bar}] {percent} %  so many\x1b[K"));
        }
        progress.is_terminal = false;
        assert_eq!(progress.text(2, "so many"), "25 %, so many\n");
        progress.of(0);
        assert_eq!(progress.text(0, "nothing"), "100 %, nothing\n");
    }
}
