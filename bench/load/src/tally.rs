//! What came of the requests of a load.

use crate::error::BenchError;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longer answers count as this long.
const LONGEST_MICROS: u64 = 60_000_000;

/// What came of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The right answer.
    Right,
    /// A status that is no success.
    Refused(u16),
    /// A success that is not the right answer.
    Wrong,
    /// No answer: the connection broke.
    Broken,
}

/// Counts what falls into a window of time.
#[derive(Debug)]
pub(crate) struct Tally {
    from: Instant,
    to: Instant,
    right: Histogram<u64>,
    refused: Histogram<u64>,
    outcomes: BTreeMap<Outcome, u64>,
    /// The body of the first answer that was not right, to say what went wrong.
    complaint: Option<String>,
}

impl Tally {
    pub(crate) fn over(from: Instant, window: Duration) -> Result<Self, BenchError> {
        let histogram = || {
            Histogram::new_with_bounds(1, LONGEST_MICROS, 3)
                .map_err(|error| std::io::Error::other(error.to_string()))
        };
        Ok(Self {
            from,
            to: from + window,
            right: histogram()?,
            refused: histogram()?,
            outcomes: BTreeMap::new(),
            complaint: None,
        })
    }

    /// Counts a request by the time `at`, if that is in the window.
    pub(crate) fn count(&mut self, at: Instant, took: Duration, outcome: Outcome) {
        if at < self.from || at >= self.to {
            return;
        }
        *self.outcomes.entry(outcome).or_default() += 1;
        let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST_MICROS);
        match outcome {
            Outcome::Right => self.right.saturating_record(micros),
            Outcome::Refused(_) | Outcome::Wrong | Outcome::Broken => self.refused.saturating_record(micros),
        }
    }

    /// Adds what another has counted.
    pub(crate) fn add(&mut self, other: Self) -> Result<(), BenchError> {
        let refused = |error: hdrhistogram::errors::AdditionError| std::io::Error::other(error.to_string());
        self.right.add(other.right).map_err(refused)?;
        self.refused.add(other.refused).map_err(refused)?;
        for (outcome, count) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        self.complaint = self.complaint.take().or(other.complaint);
        Ok(())
    }

    /// Keeps the first.
    pub(crate) fn complain(&mut self, text: impl FnOnce() -> String) {
        self.complaint.get_or_insert_with(text);
    }

    /// Right answers.
    pub(crate) fn rights(&self) -> u64 {
        self.right.len()
    }

    /// Right answers a second.
    pub(crate) fn rate(&self) -> f64 {
        per_second(self.rights(), self.to - self.from)
    }

    /// Milliseconds within which that share of the right answers came.
    pub(crate) fn millis_at(&self, share: f64) -> f64 {
        in_millis(self.right.value_at_quantile(share))
    }

    /// Milliseconds of a right answer, at the mean.
    pub(crate) fn mean_millis(&self) -> f64 {
        self.right.mean() / 1000.0
    }

    /// Milliseconds of the slowest right answer.
    pub(crate) fn slowest_millis(&self) -> f64 {
        in_millis(self.right.max())
    }

    /// What was not right, in words; empty when all was.
    pub(crate) fn failures(&self) -> String {
        let mut words = Vec::new();
        for (outcome, count) in &self.outcomes {
            match outcome {
                Outcome::Right => {}
                Outcome::Refused(status) => words.push(format!("{count} x {status}")),
                Outcome::Wrong => words.push(format!("{count} wrong")),
                Outcome::Broken => words.push(format!("{count} broken")),
            }
        }
        if !self.refused.is_empty() {
            words.push(format!("p99 of these {:.1} ms", in_millis(self.refused.value_at_quantile(0.99))));
        }
        words.join(", ")
    }

    /// Fails when nothing was answered rightly.
    pub(crate) fn checked(self, what: &str) -> Result<Self, BenchError> {
        if self.rights() > 0 {
            return Ok(self);
        }
        let failures = self.failures();
        let complaint = self.complaint.unwrap_or(failures);
        Err(BenchError::NothingRight(what.to_owned(), complaint))
    }
}

fn in_millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1000.0
}

/// How many a second.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    as_number(count) / time.as_secs_f64()
}

/// A count as a number to divide. Exact up to 2^32, more than is ever counted here.
pub(crate) fn as_number(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}
