//! Attempts to prove a password: what slows somebody who guesses without keeping the owner out.
//!
//! An attempt is counted as failed before the password is looked at, so that parallel guesses can't outrun the count;
//! the right password takes that back. Two counts bind it:
//!
//! - of the account **from this address**: a few failures are free, then each costs twice the wait of the one before. So
//!   nobody who fails elsewhere slows the owner.
//! - of the account **over all addresses**: beyond a budget, addresses that have never signed in to the account are
//!   allowed one attempt in a while each. The owner's own address is not among them, and a new one of his has that one.
//!
//! An account is known by a hash of the address text that was typed: whether there is such an account changes nothing.

use super::remembered::Remembered;
use crate::http::AddressBucket;
use mana_kernel::secret::sha256;
use std::fmt;
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
    /// Failures of an account over all addresses in `budget_window`, coming back one by one.
    pub(super) budget: u32,
    /// See `budget`.
    pub(super) budget_window: Duration,
    /// Beyond the budget, what an address that is new to the account waits between two attempts.
    pub(super) stranger_wait: Duration,
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
            budget,
            budget_window: Duration::from_hours(1),
            stranger_wait: Duration::from_mins(1),
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

    /// What one failure takes of the account's budget, in time.
    pub(super) fn budget_emission(&self) -> Duration {
        let window = u64::try_from(self.budget_window.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(window.checked_div(u64::from(self.budget)).unwrap_or(window).max(1))
    }

    /// The whole budget, in time.
    pub(super) fn whole_budget(&self) -> Duration {
        self.budget_emission().saturating_mul(self.budget)
    }
}

/// Failures of an account from an address.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Duration,
}

/// Attempts of this process: bounded, what is oldest is forgotten first. `attempts.lua` is the same for Redis.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    failures: Remembered<(AccountKey, AddressBucket), Failures>,
    /// When an account's budget will be whole again.
    budgets: Remembered<AccountKey, Duration>,
    known: Remembered<(AccountKey, AddressBucket), ()>,
}

impl Ledger {
    /// Counts an attempt as failed and lets it happen, or says how long to wait and counts nothing.
    pub(super) fn reserve(
        &mut self,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
        now: Duration,
    ) -> Result<(), Duration> {
        let pair = (account, address);
        let failures = self.failures.get(&pair, now, rule.forget_after).copied();
        let whole_again = self.budget(rule, account, now);
        let is_beyond =
            whole_again.saturating_add(rule.budget_emission()) > now.saturating_add(rule.whole_budget());
        let is_known = self.known.get(&pair, now, rule.known_for).is_some();
        if let Some(Failures { count, last }) = failures {
            let stranger = if is_beyond && !is_known { rule.stranger_wait } else { Duration::ZERO };
            let next = last.saturating_add(rule.wait(count).max(stranger));
            if let Some(wait) = next.checked_sub(now).filter(|wait| !wait.is_zero()) {
                return Err(wait);
            }
        }
        let count = failures.map_or(0, |failures| failures.count).saturating_add(1);
        self.failures.put(pair, Failures { count, last: now }, now);
        let spent = whole_again.saturating_add(rule.budget_emission());
        self.budgets.put(account, spent.min(now.saturating_add(rule.whole_budget())), now);
        Ok(())
    }

    /// The attempt was no failure: the address starts anew, and is known to the account from now on.
    pub(super) fn succeeded(
        &mut self,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
        now: Duration,
    ) {
        self.failures.remove(&(account, address));
        self.known.put((account, address), (), now);
        self.refund(rule, account, now);
    }

    /// The attempt came to no end, through no fault of who made it: it counts as not made.
    pub(super) fn give_back(
        &mut self,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
        now: Duration,
    ) {
        let pair = (account, address);
        if let Some(failures) = self.failures.get(&pair, now, rule.forget_after).copied() {
            match failures.count.checked_sub(1).filter(|count| *count > 0) {
                Some(count) => self.failures.put(pair, Failures { count, ..failures }, now),
                None => self.failures.remove(&pair),
            }
        }
        self.refund(rule, account, now);
    }

    /// When the account's budget is whole again; now, if it is.
    fn budget(&self, rule: &Rule, account: AccountKey, now: Duration) -> Duration {
        self.budgets.get(&account, now, rule.budget_window).copied().unwrap_or(now).max(now)
    }

    fn refund(&mut self, rule: &Rule, account: AccountKey, now: Duration) {
        let whole_again = self.budget(rule, account, now).saturating_sub(rule.budget_emission());
        if whole_again > now {
            self.budgets.put(account, whole_again, now);
        } else {
            self.budgets.remove(&account);
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
        let (rule, mut ledger) = (Rule::new(5, 100), Ledger::default());
        let account = AccountKey::of("ada@example.com");
        let allowed = (0..50).filter(|_| ledger.reserve(&rule, account, address(1), NOW).is_ok()).count();
        assert_eq!(allowed, 5);
        assert_eq!(ledger.reserve(&rule, account, address(1), NOW), Err(Duration::from_secs(1)));
        assert_eq!(ledger.reserve(&rule, account, address(2), NOW), Ok(()), "another address");
        assert_eq!(ledger.reserve(&rule, AccountKey::of("b"), address(1), NOW), Ok(()), "another account");
    }

    #[test]
    fn success_starts_anew_and_what_came_to_no_end_does_not_count() {
        let (rule, mut ledger) = (Rule::new(1, 100), Ledger::default());
        let account = AccountKey::of("ada@example.com");
        for _ in 0..20 {
            ledger.reserve(&rule, account, address(1), NOW).unwrap();
            ledger.give_back(&rule, account, address(1), NOW);
        }
        for _ in 0..20 {
            ledger.reserve(&rule, account, address(1), NOW).unwrap();
            ledger.succeeded(&rule, account, address(1), NOW);
        }
        ledger.reserve(&rule, account, address(1), NOW).unwrap();
        assert_eq!(ledger.reserve(&rule, account, address(1), NOW), Err(Duration::from_secs(1)));
    }

    #[test]
    fn many_addresses_together_slow_only_strangers_and_lock_nobody_out() {
        let (rule, mut ledger) = (Rule::new(5, 10), Ledger::default());
        let account = AccountKey::of("ada@example.com");
        let (home, new) = (address(1), address(2));
        ledger.reserve(&rule, account, home, NOW).unwrap();
        ledger.succeeded(&rule, account, home, NOW);
        for attacker in 1000..1010 {
            ledger.reserve(&rule, account, address(attacker), NOW).unwrap();
        }
        for attacker in 1000..1010 {
            assert_eq!(ledger.reserve(&rule, account, address(attacker), NOW), Err(Duration::from_mins(1)));
        }
        for _ in 0..5 {
            assert_eq!(ledger.reserve(&rule, account, home, NOW), Ok(()), "the owner's own place");
        }
        assert_eq!(ledger.reserve(&rule, account, new, NOW), Ok(()), "the owner, elsewhere");
        assert_eq!(ledger.reserve(&rule, account, new, NOW), Err(Duration::from_mins(1)));
        let later = NOW + Duration::from_mins(1);
        assert_eq!(ledger.reserve(&rule, account, new, later), Ok(()));
        let next_hour = NOW + Duration::from_mins(70);
        assert_eq!(ledger.reserve(&rule, account, new, next_hour), Ok(()));
        assert_eq!(ledger.reserve(&rule, account, new, next_hour), Ok(()), "the budget has come back");
    }
}
