//! Counting in this process: for a service of one process, and for the time in which Redis is lost.

use super::Subject;
use super::attempts::{AccountKey, Attempts, Rule, Taken};
use super::quota::{Decision, Quota, of_network};
use super::remembered::{Buckets, Remembered};
use super::route_class::RouteClass;
use crate::http::{AddressBucket, NetworkBucket};
use mana_kernel::secret::sha256;
use mana_kernel::{Clock, UserId};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;

/// How long a service key is known after its last use.
const KNOW_KEY_FOR: Duration = Duration::from_mins(10);

/// All counters of this process.
#[derive(Debug)]
pub(super) struct InProcess {
    requests: Mutex<Requests>,
    attempts: Mutex<Attempts>,
    /// Service keys that were found good, by their hashes.
    good_keys: Mutex<Remembered<[u8; 32], ()>>,
    clock: SteadyClock,
}

/// Buckets of requests. Each kind is bounded by itself: a flood of addresses makes no account forgotten.
#[derive(Debug, Default)]
struct Requests {
    addresses: Buckets<(RouteClass, AddressBucket)>,
    networks: Buckets<(RouteClass, NetworkBucket)>,
    users: Buckets<(RouteClass, UserId)>,
    apps: Buckets<String>,
    service_keys: Buckets<String>,
}

impl InProcess {
    pub(super) fn new(clock: &Arc<dyn Clock>) -> Self {
        Self {
            requests: Mutex::default(),
            attempts: Mutex::default(),
            good_keys: Mutex::default(),
            clock: SteadyClock::new(clock),
        }
    }

    /// Counts so many requests, or none of them: for an address, in its own bucket and its network's, or in neither.
    pub(super) fn count(&self, class: RouteClass, subject: &Subject, quota: Quota, count: u32) -> Decision {
        let mut requests = locked(&self.requests);
        let now = self.clock.now();
        match subject {
            Subject::Address(address) => requests.count_address(class, *address, quota, count, now),
            Subject::User(user) => take(&mut requests.users, (class, user.clone()), quota, count, now),
            Subject::App(app) => take(&mut requests.apps, app.clone(), quota, count, now),
            Subject::ServiceKey(key) => take(&mut requests.service_keys, key.clone(), quota, count, now),
        }
    }

    /// Remembers a service key as good.
    pub(super) fn note_good_key(&self, secret: &str) {
        let now = self.clock.now();
        locked(&self.good_keys).put(sha256(secret.as_bytes()), (), now);
    }

    /// Whether a service key was found good, and not bad since. Nobody is let in by it.
    pub(super) fn is_good_key(&self, secret: &str) -> bool {
        let now = self.clock.now();
        locked(&self.good_keys).get(&sha256(secret.as_bytes()), now, KNOW_KEY_FOR).is_some()
    }

    /// Forgets that it was good.
    pub(super) fn forget_key(&self, secret: &str) {
        locked(&self.good_keys).remove(&sha256(secret.as_bytes()));
    }

    /// See [`Attempts::reserve`].
    pub(super) fn reserve(
        &self,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
    ) -> Result<Taken, Duration> {
        self.with_attempts(|attempts, now| attempts.reserve(rule, account, address, now))
    }

    /// See [`Attempts::succeeded`].
    pub(super) fn succeeded(
        &self,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
        taken: Option<Taken>,
    ) {
        self.with_attempts(|attempts, now| attempts.succeeded(rule, account, address, taken, now));
    }

    /// See [`Attempts::give_back`].
    pub(super) fn give_back(&self, rule: &Rule, account: AccountKey, address: AddressBucket, taken: Taken) {
        self.with_attempts(|attempts, now| attempts.give_back(rule, account, address, taken, now));
    }

    fn with_attempts<T>(&self, act: impl FnOnce(&mut Attempts, Duration) -> T) -> T {
        let mut attempts = locked(&self.attempts);
        act(&mut attempts, self.clock.now())
    }
}

/// Nothing panics while it holds one of these locks; if it did, each entry would still be whole.
fn locked<T>(counters: &Mutex<T>) -> MutexGuard<'_, T> {
    counters.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Requests {
    fn count_address(
        &mut self,
        class: RouteClass,
        address: AddressBucket,
        quota: Quota,
        count: u32,
        now: Duration,
    ) -> Decision {
        let (own, network) = ((class, address), (class, address.network()));
        let (of_address, of_network) = (quota, of_network(quota));
        let of_address = of_address.take_many(count, self.addresses.full(&own, of_address, now), now);
        let of_network = of_network.take_many(count, self.networks.full(&network, of_network, now), now);
        if let (Ok((own_full, _)), Ok((network_full, _))) = (of_address, of_network) {
            self.addresses.put(own, own_full, now);
            self.networks.put(network, network_full, now);
        }
        decision(of_address).tighter(decision(of_network))
    }
}

fn take<K: Eq + Hash>(buckets: &mut Buckets<K>, key: K, quota: Quota, count: u32, now: Duration) -> Decision {
    let taken = quota.take_many(count, buckets.full(&key, quota, now), now);
    if let Ok((full, _)) = taken {
        buckets.put(key, full, now);
    }
    decision(taken)
}

fn decision(taken: Result<(Duration, u32), Duration>) -> Decision {
    match taken {
        Ok((_, remaining)) => Decision::Allowed { remaining },
        Err(wait) => Decision::Refused { wait },
    }
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
    elapsed: Duration,
}

impl SteadyClock {
    fn new(clock: &Arc<dyn Clock>) -> Self {
        let steady = Steady { seen: clock.now(), elapsed: Duration::ZERO };
        Self { clock: Arc::clone(clock), steady: Arc::new(Mutex::new(steady)) }
    }
}

impl SteadyClock {
    /// Since the process began to count.
    fn now(&self) -> Duration {
        let mut steady = locked(&self.steady);
        let now = self.clock.now();
        // Negative after a step back: then nothing has passed.
        let passed = now.unix_timestamp_nanos().saturating_sub(steady.seen.unix_timestamp_nanos());
        steady.seen = now;
        steady.elapsed =
            steady.elapsed.saturating_add(Duration::from_nanos(u64::try_from(passed).unwrap_or_default()));
        steady.elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_testkit::FakeClock;

    fn quota(limit: u32) -> Quota {
        Quota::new(limit, Duration::from_mins(1)).unwrap()
    }

    fn in_process(clock: &Arc<FakeClock>) -> InProcess {
        let clock: Arc<dyn Clock> = clock.clone();
        InProcess::new(&clock)
    }

    fn address(text: &str) -> Subject {
        Subject::Address(AddressBucket::of(Some(text.parse().unwrap())))
    }

    fn is_allowed(decision: Decision) -> bool {
        matches!(decision, Decision::Allowed { .. })
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_out() {
        let clock = Arc::new(FakeClock::new());
        let limits = in_process(&clock);
        let count = || limits.count(RouteClass::Login, &address("198.51.100.1"), quota(1), 1);
        assert_eq!(count(), Decision::Allowed { remaining: 0 });
        clock.advance(time::Duration::hours(-1));
        assert_eq!(count(), Decision::Refused { wait: Duration::from_mins(1) });
        clock.advance(time::Duration::minutes(1));
        assert_eq!(count(), Decision::Allowed { remaining: 0 });
    }

    #[test]
    fn a_network_has_no_more_than_eight_of_its_addresses_have_and_one_of_them_keeps_none_out() {
        let clock = Arc::new(FakeClock::new());
        let limits = in_process(&clock);
        let count = |subject: &Subject| limits.count(RouteClass::Login, subject, quota(10), 1);
        let flood = (0..1000).filter(|_| is_allowed(count(&address("2001:db8:0:1::1")))).count();
        assert_eq!(flood, 10);
        let sites = (0..1000).map(|site| address(&format!("2001:db8:0:{site:x}::1")));
        assert_eq!(sites.filter(|site| is_allowed(count(site))).count(), 70, "what one address left");
        assert!(!is_allowed(count(&address("2001:db8:0:ffff::1"))));
        assert!(is_allowed(count(&address("2001:db8:1::1"))), "another network");
        let refused = count(&address("2001:db8:0:fffe::1"));
        assert_eq!(refused, Decision::Refused { wait: Duration::from_millis(750) });
        clock.advance(time::Duration::milliseconds(750));
        assert_eq!(count(&address("2001:db8:0:fffe::1")), Decision::Allowed { remaining: 0 });
    }

    #[test]
    fn many_addresses_take_no_more_than_their_memory_and_make_no_account_forgotten() {
        let limits = in_process(&Arc::new(FakeClock::new()));
        let user = Subject::User(UserId::new(&crate::SystemClock, &crate::SystemRng));
        assert!(is_allowed(limits.count(RouteClass::Login, &user, quota(1), 1)));
        for number in 0..250_000_u32 {
            let address = std::net::Ipv4Addr::from(number.wrapping_mul(256)).into();
            limits.count(RouteClass::Login, &Subject::Address(AddressBucket::of(Some(address))), quota(5), 1);
        }
        assert!(!is_allowed(limits.count(RouteClass::Login, &user, quota(1), 1)));
        let requests = limits.requests.lock().unwrap();
        let kept = (requests.addresses.len(), requests.networks.len());
        assert!(kept.0 <= 100_000 && kept.1 <= 100_000, "{kept:?}");
    }
}
