//! Limits on how often something may be asked: per client address, its network and per account by class of routes, per
//! service key, and attempts to prove a password.
//!
//! Counted in Redis when one is configured, so that replicas share it, else in this process; both decide alike. When
//! Redis is lost, each process counts for itself: limits get looser by the number of replicas, and never vanish.

mod attempts;
mod hits;
mod in_process;
pub(crate) mod limit;
mod quota;
mod redis;
mod remembered;
mod route_class;
#[cfg(test)]
mod tests;

pub use attempts::AccountKey;
pub use hits::RateLimitHit;
pub(crate) use limit::AccountLimit;
pub use limit::Weight;
pub use quota::{Decision, Quota, whole_seconds};
pub use route_class::RouteClass;

use self::redis::Counters;
use crate::Settings;
use crate::http::{AddressBucket, ApiError, ClientInfo};
use crate::redis::Redis;
use attempts::{Rule, Taken};
use hits::Hits;
use in_process::InProcess;
use mana_kernel::{Clock, UserId};
use route_class::Quotas;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Whoever asks from an address; counted for its network as well.
    Address(AddressBucket),
    /// An account, from wherever it asks.
    User(UserId),
    /// An app, by whichever of its service keys and from wherever it asks.
    App(String),
    /// A service key for any app by its id, from wherever it is used.
    ServiceKey(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "address:{address}"),
            Self::User(user) => write!(f, "user:{}", user.as_str()),
            Self::App(app) => write!(f, "app:{app}"),
            Self::ServiceKey(key) => write!(f, "service-key:{key}"),
        }
    }
}

/// An attempt to prove a password that may be made, and is counted as failed until something else is said of it.
#[derive(Debug)]
pub struct Attempt {
    account: AccountKey,
    address: AddressBucket,
    taken: Taken,
    /// Whether Redis counted it, not this process.
    is_shared: bool,
}

/// All limits of a service.
#[derive(Debug)]
pub struct RateLimits {
    /// Absent when rate limits are off.
    quotas: Option<Quotas>,
    rule: Rule,
    redis: Option<Counters>,
    in_process: InProcess,
    hits: Hits,
    clock: Arc<dyn Clock>,
}

impl RateLimits {
    /// As the operator chose, counted in `redis` if there is one.
    pub fn new(settings: &Settings, redis: Option<Arc<Redis>>, clock: &Arc<dyn Clock>) -> Self {
        Self {
            in_process: InProcess::new(clock),
            quotas: Quotas::from_settings(settings),
            rule: Rule::new(settings.sign_in_free_failures, settings.sign_in_failures_per_hour),
            redis: redis.map(Counters::new),
            hits: Hits::default(),
            clock: Arc::clone(clock),
        }
    }

    /// Whether routes are limited. Attempts to sign in are in any case.
    pub(crate) fn are_on(&self) -> bool {
        self.quotas.is_some()
    }

    /// Counts a request; nothing, if its class has no limit.
    pub async fn count(&self, class: RouteClass, subject: &Subject) -> Option<(Quota, Decision)> {
        let quota = self.quotas.as_ref()?.of(class)?;
        Some((quota, self.count_within(class, subject, quota, 1).await))
    }

    /// Counts a request for the account that it is about, whoever asks.
    ///
    /// # Errors
    /// When there has been enough of that.
    pub async fn count_about(
        &self,
        class: RouteClass,
        user: &UserId,
        client: &ClientInfo,
    ) -> Result<(), ApiError> {
        let subject = Subject::User(user.clone());
        match self.count(class, &subject).await {
            Some((_, Decision::Refused { wait })) => {
                Err(self.refuse(class, &subject, client.clone(), Some(user), wait))
            }
            Some((_, Decision::Allowed { .. })) | None => Ok(()),
        }
    }

    /// Counts so many requests, or none of them, against a limit of the subject's own.
    async fn count_within(&self, class: RouteClass, subject: &Subject, quota: Quota, count: u32) -> Decision {
        let shared = self.ask_redis(|redis| redis.count(class, subject, quota, count)).await;
        shared.unwrap_or_else(|| self.in_process.count(class, subject, quota, count))
    }

    /// Counts an attempt to prove the account's password as failed, before it is looked at. [`Self::attempt_succeeded`]
    /// or [`Self::give_back_attempt`] takes that back. An attempt whose client goes away stays a failure.
    ///
    /// # Errors
    /// How long to wait, if it may not be made now; then nothing is counted.
    pub async fn reserve_attempt(
        &self,
        account: AccountKey,
        address: AddressBucket,
    ) -> Result<Attempt, Duration> {
        let shared = self.ask_redis(|redis| redis.reserve(&self.rule, account, address)).await;
        let is_shared = shared.is_some();
        let taken = shared.unwrap_or_else(|| self.in_process.reserve(&self.rule, account, address))?;
        Ok(Attempt { account, address, taken, is_shared })
    }

    /// The password was right. Told to both places: what Redis may have counted without saying so in time is forgotten,
    /// and the process knows the address when Redis is lost.
    pub async fn attempt_succeeded(&self, attempt: Attempt) {
        let Attempt { account, address, taken, is_shared } = attempt;
        let (ours, theirs) = ((!is_shared).then_some(taken), is_shared.then_some(taken));
        self.in_process.succeeded(&self.rule, account, address, ours);
        self.ask_redis(|redis| redis.succeeded(&self.rule, account, address, theirs)).await;
    }

    /// The password could not be looked at, through no fault of the client. Told to the place that counted it.
    pub async fn give_back_attempt(&self, attempt: Attempt) {
        let Attempt { account, address, taken, is_shared } = attempt;
        if is_shared {
            self.ask_redis(|redis| redis.give_back(&self.rule, account, address, taken)).await;
        } else {
            self.in_process.give_back(&self.rule, account, address, taken);
        }
    }

    /// What Redis says; nothing, if there is none or it is lost.
    async fn ask_redis<'a, T, F: Future<Output = Option<T>>>(
        &'a self,
        question: impl FnOnce(&'a Counters) -> F,
    ) -> Option<T> {
        match &self.redis {
            Some(redis) => question(redis).await,
            None => None,
        }
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
