//! How much is allowed, and how a decision on one request reads.

use std::num::NonZeroU32;
use std::time::Duration;

/// So many in a window, at once or spread (GCRA): each one used comes back a `limit`-th of the window later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    limit: NonZeroU32,
    window: Duration,
}

impl Quota {
    /// `limit` in `window`; none if the limit is 0.
    pub fn new(limit: u32, window: Duration) -> Option<Self> {
        NonZeroU32::new(limit).map(|limit| Self { limit, window })
    }

    /// `limit` in `window`, or 1 if the limit is 0.
    pub(super) fn at_least_one(limit: u32, window: Duration) -> Self {
        Self { limit: NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN), window }
    }

    /// Requests in a window, and at once.
    pub fn limit(self) -> NonZeroU32 {
        self.limit
    }

    /// The window.
    pub fn window(self) -> Duration {
        self.window
    }

    /// What one costs in time, in whole microseconds: both places that count use this number, so that they decide alike.
    pub(super) fn emission(self) -> Duration {
        let micros = self.window.as_micros().checked_div(u128::from(self.limit.get())).unwrap_or_default();
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX).max(1))
    }

    /// So many times as much in the same window.
    #[must_use]
    pub(super) fn times(self, factor: u32) -> Self {
        Self::at_least_one(self.limit.get().saturating_mul(factor), self.window)
    }

    /// What all of it costs, in time.
    pub(super) fn whole(self) -> Duration {
        self.emission().saturating_mul(self.limit.get())
    }

    /// Takes one at `now` from a bucket that is full again at `full`: gives when it then will be, and what is left. Or
    /// says how long to wait for one.
    pub(super) fn take(self, full: Duration, now: Duration) -> Result<(Duration, u32), Duration> {
        self.take_many(1, full, now)
    }

    /// The same for so many, or none of them.
    pub(super) fn take_many(
        self,
        count: u32,
        full: Duration,
        now: Duration,
    ) -> Result<(Duration, u32), Duration> {
        let after = full.max(now).saturating_add(self.emission().saturating_mul(count));
        let latest = now.saturating_add(self.whole());
        if let Some(wait) = after.checked_sub(latest).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        let left = latest.saturating_sub(after).as_micros().checked_div(self.emission().as_micros());
        Ok((after, left.and_then(|left| u32::try_from(left).ok()).unwrap_or_default()))
    }

    /// Seconds until all of it is there again, when `remaining` is left.
    pub(super) fn seconds_to_full(self, remaining: u32) -> u64 {
        whole_seconds(self.emission().saturating_mul(self.limit.get().saturating_sub(remaining)))
    }
}

/// Addresses at their limit that a network has room for. Alone, an address uses up an eighth of its network's share and so
/// keeps no neighbour out; with 65,536 of them, nobody has more than eight have.
const ADDRESSES_AT_LIMIT: u32 = 8;

/// What the addresses of a network may ask together, when each may ask so much.
pub(super) fn of_network(quota: Quota) -> Quota {
    quota.times(ADDRESSES_AT_LIMIT)
}

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may go on, and so may `remaining` more at once.
    Allowed {
        /// What is left.
        remaining: u32,
    },
    /// It may not, until `wait` is over.
    Refused {
        /// Exact.
        wait: Duration,
    },
}

impl Decision {
    /// The one of two that leaves less.
    #[must_use]
    pub(super) fn tighter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Refused { wait }, Self::Refused { wait: other }) => {
                Self::Refused { wait: wait.max(other) }
            }
            (refused @ Self::Refused { .. }, _) | (_, refused @ Self::Refused { .. }) => refused,
            (Self::Allowed { remaining }, Self::Allowed { remaining: other }) => {
                Self::Allowed { remaining: remaining.min(other) }
            }
        }
    }
}

/// Seconds, rounded up: whoever waits so long is not refused again, and who waits one second less is.
pub fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_up_and_what_was_used_comes_back_one_by_one() {
        let quota = Quota::new(5, Duration::from_mins(1)).unwrap();
        assert_eq!(quota.emission(), Duration::from_secs(12));
        assert_eq!(
            (quota.seconds_to_full(5), quota.seconds_to_full(4), quota.seconds_to_full(0)),
            (0, 12, 60)
        );
        assert_eq!(whole_seconds(Duration::from_micros(1_000_001)), 2);
        assert_eq!(Quota::new(0, Duration::from_mins(1)), None);
    }

    #[test]
    fn a_bucket_gives_all_at_once_and_then_one_by_one() {
        let (quota, now) = (Quota::new(3, Duration::from_secs(3)).unwrap(), Duration::from_hours(1));
        let (mut full, mut left) = (Duration::ZERO, Vec::new());
        for _ in 0..3 {
            let (after, remaining) = quota.take(full, now).unwrap();
            full = after;
            left.push(remaining);
        }
        assert_eq!(left, [2, 1, 0]);
        assert_eq!(quota.take(full, now), Err(Duration::from_secs(1)));
        assert!(quota.take(full, now + Duration::from_millis(999)).is_err());
        assert!(quota.take(full, now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn many_are_taken_together_or_none_of_them() {
        let (quota, now) = (Quota::new(10, Duration::from_secs(10)).unwrap(), Duration::from_hours(1));
        let (full, left) = quota.take_many(7, Duration::ZERO, now).unwrap();
        assert_eq!(left, 3);
        assert_eq!(quota.take_many(5, full, now), Err(Duration::from_secs(2)));
        assert_eq!(quota.take_many(3, full, now).map(|(_, left)| left), Ok(0));
        assert_eq!(quota.take_many(5, full, now + Duration::from_secs(2)).map(|(_, left)| left), Ok(0));
    }

    #[test]
    fn a_refusal_is_tighter_than_what_is_left() {
        let (few, many) = (Decision::Allowed { remaining: 1 }, Decision::Allowed { remaining: 9 });
        let refused = |seconds| Decision::Refused { wait: Duration::from_secs(seconds) };
        assert_eq!((few.tighter(many), many.tighter(few)), (few, few));
        assert_eq!((few.tighter(refused(1)), refused(1).tighter(few)), (refused(1), refused(1)));
        assert_eq!(
            (refused(2).tighter(refused(1)), refused(1).tighter(refused(2))),
            (refused(2), refused(2))
        );
    }
}
