//! Counting in Redis: what replicas share. One script for each decision, the time is Redis's own.
//!
//! What is in there may be lost at any time: limits then start anew. No key is kept without an end.

use super::Subject;
use super::attempts::{AccountKey, Rule, Taken};
use super::quota::{Decision, Quota, of_network};
use super::route_class::RouteClass;
use super::sentinel::{self, Master};
use crate::Settings;
use crate::http::AddressBucket;
use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::sentinel::SentinelClientBuilder;
use ::redis::{
    Client, ConnectionInfo, FromRedisValue, IntoConnectionInfo as _, RedisConnectionInfo, RedisError, Script,
    ScriptInvocation,
};
use secrecy::ExposeSecret as _;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// While it is lost, one request in so long asks whether it is back; the others don't wait.
const PAUSE: Duration = Duration::from_secs(1);

/// Where Redis is can't be understood.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRedis {
    /// No address of a Redis. The address is not told: it may hold a password.
    #[error("REDIS_URL must be like redis://[user][:password@]host[:port][/database] or unix:///path")]
    Url,
    /// TLS is not built in.
    #[error(
        "REDIS_URL asks for TLS, which this program does not speak with Redis: use a tunnel or a private network"
    )]
    Tls,
    /// No address of a sentinel.
    #[error("REDIS_SENTINELS must be like host:26379,other:26379")]
    Sentinel,
    /// Two answers to one question.
    #[error("REDIS_SENTINELS says where Redis is: leave REDIS_URL and REDIS_HOST out")]
    Twice,
    /// The client refuses it.
    #[error("the address of Redis can't be used: {0}")]
    Client(#[from] RedisError),
}

/// Where Redis is.
#[derive(Debug)]
pub enum Address {
    /// Always there.
    Server(Box<ConnectionInfo>),
    /// Where these say.
    Sentinels(Box<SentinelClientBuilder>),
}

/// Where Redis is, if one is configured: where `REDIS_SENTINELS` say, or `REDIS_URL`, or `REDIS_HOST` with its port and password.
///
/// # Errors
/// When the address is none.
pub fn address(settings: &Settings) -> Result<Option<Address>, InvalidRedis> {
    if settings.redis_sentinels.is_empty() {
        return Ok(server(settings)?.map(|server| Address::Server(Box::new(server))));
    }
    if settings.redis_url.is_some() || settings.redis_host.is_some() {
        return Err(InvalidRedis::Twice);
    }
    Ok(Some(Address::Sentinels(Box::new(sentinel::from_settings(settings)?))))
}

fn server(settings: &Settings) -> Result<Option<ConnectionInfo>, InvalidRedis> {
    if let Some(url) = &settings.redis_url {
        let address = url.expose_secret().into_connection_info().map_err(|_| InvalidRedis::Url)?;
        return if address.addr().is_supported() { Ok(Some(address)) } else { Err(InvalidRedis::Tls) };
    }
    let Some(host) = &settings.redis_host else {
        return Ok(None);
    };
    let address = (host.as_str(), settings.redis_port).into_connection_info()?;
    let login = match &settings.redis_password {
        Some(password) => RedisConnectionInfo::default().set_password(password.expose_secret()),
        None => RedisConnectionInfo::default(),
    };
    Ok(Some(address.set_redis_settings(login)))
}

/// Counters in Redis. Every question has no answer when Redis does not give one in time.
pub(super) struct Redis {
    link: Link,
    gcra: Script,
    attempts: Script,
    state: Mutex<State>,
    /// What a request waits for it at most.
    patience: Duration,
    /// The time that tests move, instead of Redis's.
    #[cfg(test)]
    pub(super) clock: Option<std::sync::Arc<dyn mana_kernel::Clock>>,
}

/// How it is reached.
enum Link {
    Server(ConnectionManager),
    Master(Master),
}

/// Whether it answers.
#[derive(Debug, Clone, Copy)]
enum State {
    Answers,
    /// And when it is asked again.
    Lost(Instant),
}

impl Redis {
    /// Connects when it is first asked, and again whenever the connection is lost.
    pub(super) fn new(address: Address, patience: Duration) -> Result<Self, InvalidRedis> {
        let link = match address {
            Address::Sentinels(sentinels) => Link::Master(Master::new(sentinels.build()?, PAUSE)),
            Address::Server(server) => {
                let config = ConnectionManagerConfig::new()
                    .set_number_of_retries(0)
                    .set_connection_timeout(Some(PAUSE))
                    .set_response_timeout(Some(PAUSE));
                Link::Server(ConnectionManager::new_lazy_with_config(Client::open(*server)?, config)?)
            }
        };
        metrics::gauge!("redis_up").set(1.0);
        Ok(Self {
            link,
            gcra: Script::new(include_str!("gcra.lua")),
            attempts: Script::new(include_str!("attempts.lua")),
            state: Mutex::new(State::Answers),
            patience,
            #[cfg(test)]
            clock: None,
        })
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
        let (is_allowed, number): (u8, u64) = self.ask(&script).await?;
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
        self.ask(&script).await
    }

    async fn ask<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Option<T> {
        if !self.may_ask() {
            return None;
        }
        let asked = async {
            match &self.link {
                Link::Server(connection) => script.invoke_async(&mut connection.clone()).await,
                Link::Master(master) => master.ask(script).await,
            }
        };
        let cause = match tokio::time::timeout(self.patience, asked).await {
            Ok(Ok(answer)) => {
                self.found();
                return Some(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} ms", self.patience.as_millis()),
        };
        if let Link::Master(master) = &self.link {
            master.forget();
        }
        self.lost(&cause);
        None
    }

    fn may_ask(&self) -> bool {
        let mut state = self.state();
        match *state {
            State::Answers => true,
            State::Lost(until) => {
                let now = Instant::now();
                let is_due = now >= until;
                if is_due {
                    *state = State::Lost(now.checked_add(PAUSE).unwrap_or(now));
                }
                is_due
            }
        }
    }

    fn found(&self) {
        if let State::Lost(_) = std::mem::replace(&mut *self.state(), State::Answers) {
            metrics::gauge!("redis_up").set(1.0);
            tracing::info!("Redis answers again: limits are shared");
        }
    }

    fn lost(&self, cause: &str) {
        let now = Instant::now();
        let lost = State::Lost(now.checked_add(PAUSE).unwrap_or(now));
        if let State::Answers = std::mem::replace(&mut *self.state(), lost) {
            metrics::gauge!("redis_up").set(0.0);
            tracing::error!(cause, "Redis is lost: each process counts limits for itself until it is back");
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("state", &self.state).finish_non_exhaustive()
    }
}
