//! Daily mana falls due at midnight (UTC): what a test expects of a balance holds on one day.

use mana_kernel::Clock as _;
use mana_platform::SystemClock;
use std::time::Duration;
use time::{OffsetDateTime, Time};

/// Returns when at least so much is left of the day, at once or just after midnight. For the beginning of a test that takes no longer;
/// blocks the thread.
pub fn begin_with_time_left_today(left: Duration) {
    loop {
        let rest = rest_of_day(SystemClock.now());
        if rest >= left {
            return;
        }
        std::thread::sleep(rest);
    }
}

fn rest_of_day(now: OffsetDateTime) -> Duration {
    let passed = now.time().duration_since(Time::MIDNIGHT);
    Duration::from_hours(24).saturating_sub(passed.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_day_ends_with_its_last_moment() {
        for (now, rest) in [
            (datetime!(2026-12-31 00:00 UTC), Duration::from_hours(24)),
            (datetime!(2026-12-31 23:59:58.5 UTC), Duration::from_millis(1_500)),
        ] {
            assert_eq!(rest_of_day(now), rest);
        }
    }
}
