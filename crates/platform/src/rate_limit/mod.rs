//! Limits on how often something may be asked: per client address and per account by class of routes, and attempts to
//! prove a password.
//!
//! Counted in Redis when one is configured, so that replicas share it, else in this process; both decide alike. When
//! Redis is lost, each process counts for itself: limits get looser by the number of replicas, and never vanish.

mod attempts;
mod hits;
mod in_process;
pub(crate) mod limit;
mod quota;
pub mod redis;
mod remembered;
mod route_class;
#[cfg(test)]
mod tests;

pub use attempts::AccountKey;
pub use hits::RateLimitHit;
pub(crate) use limit::AccountLimit;
pub use quota::{Decision, Quota, whole_seconds};
pub use redis::InvalidRedis;
pub use route_class::RouteClass;

use self::redis::Redis;
use crate::Settings;
use crate::http::{AddressBucket, ApiError, ClientInfo};
use attempts::Rule;
use hits::Hits;
use in_process::InProcess;
use mana_kernel::{Clock, UserId};
use route_class::Quotas;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Whoever asks from an address.
    Address(AddressBucket),
    /// An account, from wherever it asks.
    User(UserId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "address:{address}"),
            Self::User(user) => write!(f, "user:{}", user.as_str()),
        }
    }
}

/// All limits of a service.
#[derive(Debug)]
pub struct RateLimits {
    /// Absent when rate limits are off.
    quotas: Option<Quotas>,
    rule: Rule,
    redis: Option<Redis>,
    in_process: InProcess,
    hits: Hits,
    clock: Arc<dyn Clock>,
}

impl RateLimits {
    /// As the operator chose.
    ///
    /// # Errors
    /// When the address of Redis is none. That it does not answer is no error: it may come.
    pub fn new(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Self, InvalidRedis> {
        let quotas = Quotas::from_settings(settings);
        Ok(Self {
            in_process: InProcess::new(quotas.as_ref(), clock),
            quotas,
            rule: Rule::new(settings.sign_in_free_failures, settings.sign_in_failures_per_hour),
            redis: redis::address(settings)?.map(Redis::new).transpose()?,
            hits: Hits::default(),
            clock: Arc::clone(clock),
        })
    }

    /// Whether routes are limited. Attempts to sign in are in any case.
    pub(crate) fn are_on(&self) -> bool {
        self.quotas.is_some()
    }

    /// Counts a request; nothing, if its class has no limit.
    pub async fn count(&self, class: RouteClass, subject: &Subject) -> Option<(Quota, Decision)> {
        let quota = self.quotas.as_ref()?.of(class)?;
        let shared = match &self.redis {
            Some(redis) => redis.count(class, subject, quota).await,
            None => None,
        };
        let decision = match shared {
            Some(decision) => decision,
            None => self.in_process.count(class, subject)?,
        };
        Some((quota, decision))
    }

    /// Counts an attempt to prove the account's password as failed, before it is looked at. [`Self::attempt_succeeded`]
    /// or [`Self::attempt_not_made`] takes that back. An attempt whose client goes away stays a failure.
    ///
    /// # Errors
    /// How long to wait, if it may not be made now; then nothing is counted.
    pub async fn reserve_attempt(&self, account: AccountKey, address: AddressBucket) -> Result<(), Duration> {
        let shared = match &self.redis {
            Some(redis) => redis.reserve(&self.rule, account, address).await,
            None => None,
        };
        shared.unwrap_or_else(|| self.in_process.reserve(&self.rule, account, address))
    }

    /// The password was right.
    pub async fn attempt_succeeded(&self, account: AccountKey, address: AddressBucket) {
        let shared = match &self.redis {
            Some(redis) => redis.succeeded(&self.rule, account, address).await,
            None => None,
        };
        shared.unwrap_or_else(|| self.in_process.succeeded(&self.rule, account, address));
    }

    /// The password could not be looked at, through no fault of the client.
    pub async fn attempt_not_made(&self, account: AccountKey, address: AddressBucket) {
        let shared = match &self.redis {
            Some(redis) => redis.give_back(&self.rule, account, address).await,
            None => None,
        };
        shared.unwrap_or_else(|| self.in_process.give_back(&self.rule, account, address));
    }

    /// Remembers that an attempt was refused, for [`Self::take_hits`].
    pub fn note_refused_attempt(&self, account: AccountKey, client: &ClientInfo) {
        metrics::counter!("rate_limited_total", "class" => "failed-sign-ins").increment(1);
        let bucket = format!("sign-in:{account}:{}", client.bucket());
        self.hits.add(bucket, client.clone(), None, self.clock.now());
    }

    /// The sampled hits since the last time, to be written down.
    pub fn take_hits(&self) -> Vec<RateLimitHit> {
        self.hits.take()
    }

    fn refuse(
        &self,
        class: RouteClass,
        subject: &Subject,
        client: ClientInfo,
        user: Option<&UserId>,
        wait: Duration,
    ) -> ApiError {
        metrics::counter!("rate_limited_total", "class" => class.as_str()).increment(1);
        self.hits.add(format!("{}:{subject}", class.as_str()), client, user, self.clock.now());
        limit::refusal(class, wait)
    }
}
