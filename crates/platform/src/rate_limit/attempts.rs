//! Attempts to prove a password: what slows somebody who guesses without keeping the owner out.
//!
//! An attempt is counted as failed before the password is looked at, so that parallel guesses can't outrun the count;
//! the right password takes that back. Two counts bind it:
//!
//! - of the account **from this address**: a few failures are free, then each costs twice the wait of the one before. So
//!   nobody who fails elsewhere slows the owner.
//! - of the account **over all addresses**: beyond a budget, addresses that have never signed in to the account are
//!   strangers, who share a pace with those of their network and another with all. So a fresh address is no fresh start:
//!   whoever has a network of them guesses no faster than with one, and whoever has many networks no faster than the
//!   pace of all. The owner's own address is no stranger, and never waits for them.
//!
//! An account is known by a hash of the address text that was typed: whether there is such an account changes nothing.

use super::quota::Quota;
use super::remembered::{Buckets, Remembered};
use crate::http::{AddressBucket, NetworkBucket};
use mana_kernel::secret::sha256;
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

/// Names the account that somebody tries to sign in to, existing or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AccountKey([u8; 16]);

impl AccountKey {
    /// Of the address in the form that identifies the account, or of whatever was typed if it is none.
    pub fn of(address: &str) -> Self {
        let mut key = [0; 16];
        for (to, from) in key.iter_mut().zip(sha256(address.as_bytes())) {
            *to = from;
        }
        Self(key)
    }
}

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountKey({self})")
    }
}

/// The numbers. Times are whole microseconds, in which both places count.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// Failures of an account from an address that cost no wait.
    pub(super) free: u32,
    /// What the next one costs; doubled for each one after it.
    pub(super) first_wait: Duration,
    /// But no more than this.
    pub(super) longest_wait: Duration,
    /// Failures of an account over all addresses.
    pub(super) budget: Quota,
    /// Beyond the budget, attempts at an account by the strangers of a network.
    pub(super) pace_of_network: Quota,
    /// Beyond the budget, attempts at an account by all strangers. Enough at once that an attack from some networks
    /// leaves room for the owner in a new place.
    pub(super) pace_of_all: Quota,
    /// After so long without an attempt, failures from an address are forgotten. Long enough that waiting for it is no
    /// quicker way to guess than the longest wait.
    pub(super) forget_after: Duration,
    /// How long an address stays known to an account after a sign-in.
    pub(super) known_for: Duration,
}

impl Rule {
    /// The rule with the two numbers that an operator may choose.
    pub(super) fn new(free: u32, budget: u32) -> Self {
        Self {
            free,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_mins(15),
            budget: Quota::at_least_one(budget, Duration::from_hours(1)),
            pace_of_network: Quota::at_least_one(1, Duration::from_mins(1)),
            pace_of_all: Quota::at_least_one(10, Duration::from_mins(1)),
            forget_after: Duration::from_hours(24),
            known_for: Duration::from_hours(90 * 24),
        }
    }

    /// What has to pass after the last attempt when `failures` are counted.
    pub(super) fn wait(&self, failures: u32) -> Duration {
        match failures.checked_sub(self.free) {
            None => Duration::ZERO,
            Some(beyond) => {
                let doubled = 2_u32.checked_pow(beyond).and_then(|times| self.first_wait.checked_mul(times));
                doubled.unwrap_or(self.longest_wait).min(self.longest_wait)
            }
        }
    }
}

/// Failures of an account from an address.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Duration,
}

/// What an attempt took, so that it can be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// When, by the clock of the place that counted.
    pub(super) at: Duration,
    /// When the attempt before was made, of the account from the address.
    pub(super) previous: Option<Duration>,
    /// Of the account's budget, in time: all that one failure costs, or what was left.
    pub(super) budget: Duration,
    /// Whether it was a stranger's beyond the budget: those take from the paces.
    pub(super) is_strangers: bool,
}

/// Attempts of this process: bounded, what is oldest is forgotten first. `attempts.lua` is the same for Redis.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failures: Remembered<(AccountKey, AddressBucket), Failures>,
    known: Remembered<(AccountKey, AddressBucket), ()>,
    budgets: Buckets<AccountKey>,
    paces_of_networks: Buckets<(AccountKey, NetworkBucket)>,
    paces_of_all: Buckets<AccountKey>,
}

impl Attempts {
    /// Counts an attempt as failed and lets it happen, or says how long to wait and counts nothing.
    pub(super) fn reserve(
        &mut self,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
        now: Duration,
    ) -> Result<Taken, Duration> {
        let (pair, network) = ((account, address), (account, address.network()));
        let failures = self.failures.get(&pair, now, rule.forget_after).copied();
        let mut wait = failures.map_or(Duration::ZERO, |Failures { count, last }| {
            last.saturating_add(rule.wait(count)).saturating_sub(now)
        });
        let budget = self.budgets.full(&account, rule.budget, now);
        let within_budget = rule.budget.take(budget, now);
        let is_strangers = within_budget.is_err() && self.known.get(&pair, now, rule.known_for).is_none();
        let of_network = self.paces_of_networks.full(&network, rule.pace_of_network, now);
        let of_all = self.paces_of_all.full(&account, rule.pace_of_all, now);
        let paces = (rule.pace_of_network.take(of_network, now), rule.pace_of_all.take(of_all, now));
        if is_strangers {
            let longer = |pace: Result<_, Duration>| pace.err().unwrap_or_default();
            wait = wait.max(longer(paces.0)).max(longer(paces.1));
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        let count = failures.map_or(0, |failures| failures.count).saturating_add(1);
        self.failures.put(pair, Failures { count, last: now }, now);
        let spent = within_budget.map_or_else(|_| now.saturating_add(rule.budget.whole()), |(full, _)| full);
        self.budgets.put(account, spent, now);
        if let (true, (Ok((of_network, _)), Ok((of_all, _)))) = (is_strangers, paces) {
            self.paces_of_networks.put(network, of_network, now);
            self.paces_of_all.put(account, of_all, now);
        }
        Ok(Taken {
            at: now,
            previous: failures.map(|failures| failures.last),
            budget: spent.saturating_sub(budget),
            is_strangers,
        })
    }

    /// The attempt was no failure: the address starts anew, and is known to the account from now on. What it took is given
    /// back, if it was taken here.
    pub(super) fn succeeded(
        &mut self,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
        taken: Option<Taken>,
        now: Duration,
    ) {
        self.failures.remove(&(account, address));
        self.known.put((account, address), (), now);
        if let Some(taken) = taken {
            self.give_back_shares(rule, account, address, taken, now);
        }
    }

    /// The attempt came to no end, through no fault of who made it: it counts as not made.
    pub(super) fn give_back(
        &mut self,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
        taken: Taken,
        now: Duration,
    ) {
        let pair = (account, address);
        if let Some(Failures { count, last }) = self.failures.get(&pair, now, rule.forget_after).copied() {
            // Whoever has tried again since then waits from there.
            let last = taken.previous.filter(|_| last == taken.at).unwrap_or(last);
            match count.checked_sub(1).filter(|count| *count > 0) {
                Some(count) => self.failures.put(pair, Failures { count, last }, now),
                None => self.failures.remove(&pair),
            }
        }
        self.give_back_shares(rule, account, address, taken, now);
    }

    /// Of what the account's addresses share.
    fn give_back_shares(
        &mut self,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
        taken: Taken,
        now: Duration,
    ) {
        self.budgets.give_back(account, rule.budget, taken.budget, now);
        if taken.is_strangers {
            let (of_network, of_all) = (rule.pace_of_network, rule.pace_of_all);
            let network = (account, address.network());
            self.paces_of_networks.give_back(network, of_network, of_network.emission(), now);
            self.paces_of_all.give_back(account, of_all, of_all.emission(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_hours(1000);

    fn address(number: u32) -> AddressBucket {
        AddressBucket::of(Some(std::net::Ipv4Addr::from(number).into()))
    }

    #[test]
    fn failures_double_the_wait_up_to_a_quarter_of_an_hour() {
        let rule = Rule::new(5, 100);
        let waits: Vec<_> = (0..18).map(|failures| rule.wait(failures).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
        assert_eq!(rule.wait(u32::MAX).as_secs(), 900);
    }

    #[test]
    fn attempts_at_the_same_instant_are_no_more_than_the_free_ones() {
        let (rule, mut attempts) = (Rule::new(5, 100), Attempts::default());
        let account = AccountKey::of("ada@example.com");
        let allowed = (0..50).filter(|_| attempts.reserve(&rule, account, address(1), NOW).is_ok()).count();
        assert_eq!(allowed, 5);
        assert_eq!(attempts.reserve(&rule, account, address(1), NOW), Err(Duration::from_secs(1)));
        assert!(attempts.reserve(&rule, account, address(2), NOW).is_ok(), "another address");
        assert!(attempts.reserve(&rule, AccountKey::of("b"), address(1), NOW).is_ok(), "another account");
    }

    #[test]
    fn success_starts_anew_and_what_came_to_no_end_does_not_count() {
        let (rule, mut attempts) = (Rule::new(1, 100), Attempts::default());
        let account = AccountKey::of("ada@example.com");
        for _ in 0..20 {
            let taken = attempts.reserve(&rule, account, address(1), NOW).unwrap();
            attempts.give_back(&rule, account, address(1), taken, NOW);
        }
        for _ in 0..20 {
            let taken = attempts.reserve(&rule, account, address(1), NOW).unwrap();
            attempts.succeeded(&rule, account, address(1), Some(taken), NOW);
        }
        attempts.reserve(&rule, account, address(1), NOW).unwrap();
        assert_eq!(attempts.reserve(&rule, account, address(1), NOW), Err(Duration::from_secs(1)));
    }

    #[test]
    fn what_came_to_no_end_restarts_no_wait() {
        let (rule, mut attempts) = (Rule::new(5, 100), Attempts::default());
        let account = AccountKey::of("ada@example.com");
        let mut now = NOW;
        for failures in 0..14 {
            now += rule.wait(failures);
            attempts.reserve(&rule, account, address(1), now).unwrap();
        }
        assert_eq!(attempts.reserve(&rule, account, address(1), now), Err(Duration::from_secs(512)));
        now += Duration::from_secs(512);
        for _ in 0..3 {
            let taken = attempts.reserve(&rule, account, address(1), now).unwrap();
            attempts.give_back(&rule, account, address(1), taken, now);
        }
        attempts.reserve(&rule, account, address(1), now).unwrap();
        assert_eq!(attempts.reserve(&rule, account, address(1), now), Err(Duration::from_mins(15)));
    }

    #[test]
    fn what_is_given_back_takes_no_later_failure_with_it() {
        let (rule, mut attempts) = (Rule::new(1, 100), Attempts::default());
        let account = AccountKey::of("ada@example.com");
        let taken = attempts.reserve(&rule, account, address(1), NOW).unwrap();
        let later = NOW + Duration::from_secs(1);
        attempts.reserve(&rule, account, address(1), later).unwrap();
        attempts.give_back(&rule, account, address(1), taken, later);
        assert_eq!(attempts.reserve(&rule, account, address(1), later), Err(Duration::from_secs(1)));
    }

    #[test]
    fn many_addresses_together_slow_only_strangers_and_lock_nobody_out() {
        let (rule, mut attempts) = (Rule::new(5, 10), Attempts::default());
        let account = AccountKey::of("ada@example.com");
        let (home, new) = (address(1), address(0xc633_6401));
        let taken = attempts.reserve(&rule, account, home, NOW).unwrap();
        attempts.succeeded(&rule, account, home, Some(taken), NOW);
        for attacker in 0..10 {
            attempts.reserve(&rule, account, address(1000 + attacker), NOW).unwrap();
        }
        for _ in 0..5 {
            assert!(attempts.reserve(&rule, account, home, NOW).is_ok(), "the owner's own place");
        }
        assert!(attempts.reserve(&rule, account, new, NOW).is_ok(), "the owner, elsewhere");
        assert_eq!(attempts.reserve(&rule, account, new, NOW), Err(Duration::from_mins(1)));
        let later = NOW + Duration::from_mins(1);
        assert!(attempts.reserve(&rule, account, new, later).is_ok());
        let next_hour = NOW + Duration::from_mins(70);
        assert!(attempts.reserve(&rule, account, new, next_hour).is_ok());
        assert!(attempts.reserve(&rule, account, new, next_hour).is_ok(), "the budget has come back");
    }

    #[test]
    fn a_network_of_fresh_addresses_guesses_no_faster_than_one_stranger() {
        let (rule, mut attempts) = (Rule::new(5, 10), Attempts::default());
        let account = AccountKey::of("ada@example.com");
        let mut made = 0;
        for minute in 0..3 {
            let now = NOW + Duration::from_mins(minute);
            for site in 0..1000_u32 {
                let site = std::net::Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(site) << 64);
                let from = AddressBucket::of(Some(site.into()));
                made += u32::from(attempts.reserve(&rule, account, from, now).is_ok());
            }
        }
        assert_eq!(made, 10 + 3, "the budget, and one a minute");
    }

    #[test]
    fn many_networks_of_strangers_guess_no_faster_than_the_pace_of_all_and_never_slow_who_is_known() {
        let (rule, mut attempts) = (Rule::new(5, 10), Attempts::default());
        let account = AccountKey::of("ada@example.com");
        let home = address(0xc633_6401);
        let taken = attempts.reserve(&rule, account, home, NOW).unwrap();
        attempts.succeeded(&rule, account, home, Some(taken), NOW);
        let mut made = 0;
        for minute in 0..3_u32 {
            let now = NOW + Duration::from_mins(1) * minute;
            for network in 0..1000 {
                let from = address(minute * 256_000 + network * 256);
                made += u32::from(attempts.reserve(&rule, account, from, now).is_ok());
            }
            assert!(attempts.reserve(&rule, account, home, now).is_ok());
        }
        assert_eq!(made, 10 + 3 * 10, "the budget, and ten a minute");
    }
}
