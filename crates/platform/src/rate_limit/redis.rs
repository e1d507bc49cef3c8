//! Counting in Redis: what replicas share. One script for each decision, the time is Redis's own.
//!
//! What is in there may be lost at any time: limits then start anew. No key is kept without an end.

use super::Subject;
use super::attempts::{AccountKey, Rule, Taken};
use super::quota::{Decision, Quota, of_network};
use super::route_class::RouteClass;
use crate::http::AddressBucket;
use crate::redis::Redis;
use ::redis::Script;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Counters in Redis. Every question has no answer when Redis does not give one in time.
pub(super) struct Counters {
    redis: Arc<Redis>,
    gcra: Script,
    attempts: Script,
    /// The time that tests move, instead of Redis's.
    #[cfg(test)]
    pub(super) clock: Option<Arc<dyn mana_kernel::Clock>>,
}

impl Counters {
    /// None yet.
    pub(super) fn new(redis: Arc<Redis>) -> Self {
        Self {
            redis,
            gcra: Script::new(include_str!("gcra.lua")),
            attempts: Script::new(include_str!("attempts.lua")),
            #[cfg(test)]
            clock: None,
        }
    }

    /// Counts so many requests, or none of them: for an address, in its own bucket and its network's.
    pub(super) async fn count(
        &self,
        class: RouteClass,
        subject: &Subject,
        quota: Quota,
        count: u32,
    ) -> Option<Decision> {
        let class = class.as_str();
        let (key, network) = match subject {
            Subject::Address(address) => {
                // In braces: both are on one node of a cluster.
                let network = format!("mana:rate:{class}:{{{}}}", address.network());
                (format!("{network}:{address}"), Some(network))
            }
            // All routes share the limit of an app or a key.
            Subject::App(_) | Subject::ServiceKey(_) => (format!("mana:rate:{subject}"), None),
            Subject::User(_) => (format!("mana:rate:{class}:{subject}"), None),
        };
        let mut script = self.gcra.key(key);
        script.arg(self.now()).arg(count).arg(micros(quota.emission())).arg(quota.limit().get());
        if let Some(network) = network {
            let quota = of_network(quota);
            script.key(network).arg(micros(quota.emission())).arg(quota.limit().get());
        }
        let (is_allowed, number): (u8, u64) = self.redis.ask(&script).await?;
        Some(if is_allowed == 1 {
            Decision::Allowed { remaining: u32::try_from(number).unwrap_or(u32::MAX) }
        } else {
            Decision::Refused { wait: Duration::from_micros(number) }
        })
    }

    /// As the in-process `reserve`.
    pub(super) async fn reserve(
        &self,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
    ) -> Option<Result<Taken, Duration>> {
        let (wait, at, previous, budget, is_strangers) =
            self.attempt("reserve", rule, account, address, None).await?;
        if wait > 0 {
            return Some(Err(Duration::from_micros(wait)));
        }
        Some(Ok(Taken {
            at: Duration::from_micros(at),
            previous: (previous > 0).then(|| Duration::from_micros(previous)),
            budget: Duration::from_micros(budget),
            is_strangers: is_strangers == 1,
        }))
    }

    /// As the in-process `succeeded`.
    pub(super) async fn succeeded(
        &self,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
        taken: Option<Taken>,
    ) -> Option<()> {
        self.attempt("succeeded", rule, account, address, taken).await.map(|_| ())
    }

    /// As the in-process `give_back`.
    pub(super) async fn give_back(
        &self,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
        taken: Taken,
    ) -> Option<()> {
        self.attempt("give_back", rule, account, address, Some(taken)).await.map(|_| ())
    }

    /// What it answers is in the script's own words.
    async fn attempt(
        &self,
        step: &str,
        rule: &Rule,
        account: AccountKey,
        address: AddressBucket,
        taken: Option<Taken>,
    ) -> Option<(u64, u64, u64, u64, u64)> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // In braces: the keys of an account are on one node of a cluster.
        let of_account = format!("mana:sign-in:{{{account}}}");
        let mut script = self.attempts.key(format!("{of_account}:failures:{address}"));
        script
            .key(format!("{of_account}:budget"))
            .key(format!("{of_account}:known:{address}"))
            .key(format!("{of_account}:strangers:{}", address.network()))
            .key(format!("{of_account}:strangers"))
            .arg(step)
            .arg(self.now())
            .arg(rule.free)
            .arg(micros(rule.first_wait))
            .arg(micros(rule.longest_wait));
        for quota in [rule.budget, rule.pace_of_network, rule.pace_of_all] {
            script.arg(micros(quota.emission())).arg(quota.limit().get());
        }
        let nothing =
            Taken { at: Duration::ZERO, previous: None, budget: Duration::ZERO, is_strangers: false };
        let Taken { at, previous, budget, is_strangers } = taken.unwrap_or(nothing);
        script
            .arg(millis(rule.forget_after))
            .arg(millis(rule.known_for))
            .arg(micros(at))
            .arg(micros(previous.unwrap_or_default()))
            .arg(micros(budget))
            .arg(u8::from(is_strangers));
        self.redis.ask(&script).await
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests have a clock")]
    fn now(&self) -> String {
        String::new()
    }

    #[cfg(test)]
    fn now(&self) -> String {
        let clock = self.clock.as_ref();
        clock.map(|clock| (clock.now().unix_timestamp_nanos() / 1000).to_string()).unwrap_or_default()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").field("redis", &self.redis).finish_non_exhaustive()
    }
}
