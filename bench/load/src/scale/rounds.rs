//! What several rounds of one load came to.

use crate::error::BenchError;
use crate::observed::Observed;
use crate::report::whole;
use crate::tally::{Tally, as_number};

/// The columns of [`Rounds::cells`].
pub(super) const COLUMNS: [&str; 5] =
    ["right answers/s: median", "lowest to highest", "p50 ms", "p99 ms", "not right"];
/// The columns of [`Rounds::costs`].
pub(super) const COSTS: [&str; 3] =
    ["service (µs each)", "PostgreSQL (µs each)", "pooler or Redis (µs each)"];

/// Rounds of one load on one side.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    rates: Vec<f64>,
    medians: Vec<f64>,
    all: Option<Tally>,
    /// Processors, at the mean, of each round: the service's, PostgreSQL's, its neighbours'.
    processors: Vec<[f64; 3]>,
}

impl Rounds {
    pub(super) fn add(&mut self, (tally, observed): (Tally, Observed)) -> Result<(), BenchError> {
        self.rates.push(tally.rate());
        self.medians.push(tally.millis_at(0.5));
        let split = observed.split;
        self.processors.push([split.server, split.postgres, split.neighbours]);
        match &mut self.all {
            Some(all) => all.add(tally)?,
            None => self.all = Some(tally),
        }
        Ok(())
    }

    /// Right answers a second.
    pub(super) fn rate(&self) -> f64 {
        median(&self.rates)
    }

    /// The median of the rounds' median latencies.
    pub(super) fn millis(&self) -> f64 {
        median(&self.medians)
    }

    /// By how many percent the median latency differs from that of the other side in the same round; the median of the rounds.
    pub(super) fn change_from(&self, other: &Self) -> f64 {
        let pairs = other.medians.iter().zip(&self.medians);
        median(&pairs.map(|(before, after)| change(*before, *after)).collect::<Vec<_>>())
    }

    /// Milliseconds within which 99 of 100 right answers of all rounds came.
    pub(super) fn p99(&self) -> f64 {
        self.all.as_ref().map_or(f64::NAN, |all| all.millis_at(0.99))
    }

    pub(super) fn cells(&self) -> Vec<String> {
        let lowest = self.rates.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = self.rates.iter().copied().fold(0.0, f64::max);
        vec![
            whole(self.rate()),
            format!("{} to {}", whole(lowest), whole(highest)),
            format!("{:.2}", self.millis()),
            format!("{:.2}", self.p99()),
            self.failures(),
        ]
    }

    /// What was not right, in words.
    pub(super) fn failures(&self) -> String {
        let failures = self.all.as_ref().map(Tally::failures).unwrap_or_default();
        if failures.is_empty() { "none".to_owned() } else { failures }
    }

    /// What one right answer took of the processors.
    pub(super) fn costs(&self) -> Vec<String> {
        let answers: f64 = self.rates.iter().sum();
        let sum = |place: usize| -> f64 { self.processors.iter().filter_map(|round| round.get(place)).sum() };
        [0, 1, 2].map(|place| format!("{:.0}", sum(place) * 1e6 / answers)).to_vec()
    }
}

fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    if sorted.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) }
}

/// How much more, in percent.
pub(super) fn change(before: f64, after: f64) -> f64 {
    (after / before - 1.0) * 100.0
}

/// Megabytes, of a million bytes each.
pub(super) fn megabytes(bytes: u64) -> f64 {
    as_number(bytes / 1_000) / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_sorted() {
        for (numbers, expected) in
            [(&[3.0, 1.0, 2.0][..], "2"), (&[4.0, 1.0, 2.0, 3.0], "2.5"), (&[7.0], "7")]
        {
            assert_eq!(median(numbers).to_string(), expected);
        }
        assert!(median(&[]).is_nan());
        assert_eq!(format!("{:+.0}", change(2.0, 3.0)), "+50");
    }
}
