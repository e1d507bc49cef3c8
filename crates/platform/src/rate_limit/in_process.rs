//! Counting in this process: for a service of one process, and for the time in which Redis is lost.

use super::Subject;
use super::attempts::{AccountKey, Ledger, Rule};
use super::quota::{Decision, Quota};
use super::route_class::{CLASSES, Quotas, RouteClass};
use crate::http::AddressBucket;
use governor::clock::Clock as GovernorClock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota as GovernorQuota, RateLimiter};
use mana_kernel::Clock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use time::OffsetDateTime;

/// Buckets of a class at most. Whoever fills it has so many addresses that a limit by address does not bind him.
const MOST_BUCKETS: usize = 100_000;
/// Decisions between two looks at the number of buckets.
const TIDY_EVERY: u32 = 1024;

/// All counters of this process.
#[derive(Debug)]
pub(super) struct InProcess {
    classes: Vec<(RouteClass, Class)>,
    attempts: Mutex<Ledger>,
    clock: SteadyClock,
}

impl InProcess {
    pub(super) fn new(quotas: Option<&Quotas>, clock: &Arc<dyn Clock>) -> Self {
        let clock = SteadyClock::new(clock);
        let limited = |class| Some((class, Class::new(quotas?.of(class)?, &clock)));
        Self { classes: CLASSES.into_iter().filter_map(limited).collect(), attempts: Mutex::default(), clock }
    }

    /// Counts a request. Without a quota for its class, it is allowed.
    pub(super) fn count(&self, class: RouteClass, subject: &Subject) -> Option<Decision> {
        let (_, counted) = self.classes.iter().find(|(known, _)| *known == class)?;
        Some(counted.count(subject))
    }

    /// See [`Ledger::reserve`].
    pub(super) fn reserve(
        &self,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
    ) -> Result<(), Duration> {
        self.with_attempts(|attempts, now| attempts.reserve(rule, account, address, now))
    }

    /// See [`Ledger::succeeded`].
    pub(super) fn succeeded(&self, rule: &Rule, account: AccountKey, address: AddressBucket) {
        self.with_attempts(|attempts, now| attempts.succeeded(rule, account, address, now));
    }

    /// See [`Ledger::give_back`].
    pub(super) fn give_back(&self, rule: &Rule, account: AccountKey, address: AddressBucket) {
        self.with_attempts(|attempts, now| attempts.give_back(rule, account, address, now));
    }

    fn with_attempts<T>(&self, act: impl FnOnce(&mut Ledger, Duration) -> T) -> T {
        // Nothing panics while it holds the lock; if it did, each entry would still be whole.
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut attempts, Duration::from_nanos(self.clock.now().as_u64()))
    }
}

type Buckets = RateLimiter<Subject, DashMapStateStore<Subject>, SteadyClock, StateInformationMiddleware>;

/// The buckets of a class.
#[derive(Debug)]
struct Class {
    quota: Quota,
    clock: SteadyClock,
    buckets: RwLock<Buckets>,
    decisions: AtomicU32,
}

impl Class {
    fn new(quota: Quota, clock: &SteadyClock) -> Self {
        let buckets = RwLock::new(empty(quota, clock));
        Self { quota, clock: clock.clone(), buckets, decisions: AtomicU32::new(0) }
    }

    fn count(&self, subject: &Subject) -> Decision {
        if self.decisions.fetch_add(1, Ordering::Relaxed).is_multiple_of(TIDY_EVERY) {
            self.tidy();
        }
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        match buckets.check_key(subject) {
            Ok(state) => Decision::Allowed { remaining: state.remaining_burst_capacity() },
            Err(refusal) => Decision::Refused { wait: refusal.wait_time_from(self.clock.now()) },
        }
    }

    /// Forgets who has everything back, and everybody when that is not enough: each then starts with a full bucket,
    /// which is less than what it took to get here.
    fn tidy(&self) {
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() < MOST_BUCKETS / 2 {
            return;
        }
        buckets.retain_recent();
        if buckets.len() < MOST_BUCKETS {
            return;
        }
        drop(buckets);
        *self.buckets.write().unwrap_or_else(PoisonError::into_inner) = empty(self.quota, &self.clock);
    }
}

fn empty(quota: Quota, clock: &SteadyClock) -> Buckets {
    let emission = Duration::from_micros(quota.emission_micros());
    // Absent only for a duration of zero, which a quota's is not.
    let pace = GovernorQuota::with_period(emission)
        .unwrap_or_else(|| GovernorQuota::per_second(quota.limit()))
        .allow_burst(quota.limit());
    RateLimiter::new(pace, DashMapStateStore::default(), clock.clone())
}

/// The service's clock, made to never go back: a machine's clock that is set back by an hour must not leave everybody
/// refused for that hour. Where it steps back, time goes on from where it was.
#[derive(Debug, Clone)]
struct SteadyClock {
    clock: Arc<dyn Clock>,
    steady: Arc<Mutex<Steady>>,
}

#[derive(Debug)]
struct Steady {
    seen: OffsetDateTime,
    elapsed: Nanos,
}

impl SteadyClock {
    fn new(clock: &Arc<dyn Clock>) -> Self {
        let steady = Steady { seen: clock.now(), elapsed: Nanos::default() };
        Self { clock: Arc::clone(clock), steady: Arc::new(Mutex::new(steady)) }
    }
}

impl GovernorClock for SteadyClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        let mut steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        // Negative after a step back: then nothing has passed.
        let passed = now.unix_timestamp_nanos().saturating_sub(steady.seen.unix_timestamp_nanos());
        let passed = u64::try_from(passed).unwrap_or_default();
        steady.seen = now;
        steady.elapsed = Nanos::new(steady.elapsed.as_u64().saturating_add(passed));
        steady.elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_testkit::FakeClock;

    fn class(limit: u32, clock: &Arc<FakeClock>) -> Class {
        let quota = Quota::new(limit, Duration::from_mins(1)).unwrap();
        let clock: Arc<dyn Clock> = clock.clone();
        Class::new(quota, &SteadyClock::new(&clock))
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_out() {
        let clock = Arc::new(FakeClock::new());
        let class = class(1, &clock);
        let subject = Subject::Address(AddressBucket::of(None));
        assert_eq!(class.count(&subject), Decision::Allowed { remaining: 0 });
        clock.advance(time::Duration::hours(-1));
        assert_eq!(class.count(&subject), Decision::Refused { wait: Duration::from_mins(1) });
        clock.advance(time::Duration::minutes(1));
        assert_eq!(class.count(&subject), Decision::Allowed { remaining: 0 });
    }

    #[test]
    fn many_addresses_take_no_more_than_their_memory() {
        let clock = Arc::new(FakeClock::new());
        let class = class(5, &clock);
        for number in 0..u32::try_from(MOST_BUCKETS).unwrap() + 2 * TIDY_EVERY {
            let address = std::net::Ipv4Addr::from(number).into();
            class.count(&Subject::Address(AddressBucket::of(Some(address))));
        }
        let buckets = class.buckets.read().unwrap();
        assert!(buckets.len() < MOST_BUCKETS, "{}", buckets.len());
    }
}
