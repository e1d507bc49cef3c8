//! Redis, which may be lost at any time: where it is, and the one way to ask it. Nothing is true because it says so.

mod bell;
mod sentinel;

pub use bell::Bell;

use crate::Settings;
use ::redis::aio::{ConnectionManager, ConnectionManagerConfig, PubSub};
use ::redis::sentinel::SentinelClientBuilder;
use ::redis::{
    Client, ConnectionInfo, FromRedisValue, IntoConnectionInfo as _, RedisConnectionInfo, RedisError,
    RedisResult, ScriptInvocation, Value,
};
use secrecy::ExposeSecret as _;
use sentinel::Master;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// While it is lost, one question in so long asks whether it is back; the others don't wait.
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

/// A Redis. Every question has no answer when it does not give one in time.
pub struct Redis {
    link: Link,
    state: Mutex<State>,
    /// What a request waits for it at most.
    patience: Duration,
}

/// How it is reached.
enum Link {
    Server { client: Client, connection: ConnectionManager },
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
    /// The one that the operator chose, if any.
    ///
    /// # Errors
    /// When its address is none. That it does not answer is no error: it may come.
    pub fn from_settings(settings: &Settings) -> Result<Option<Arc<Self>>, InvalidRedis> {
        let patience = Duration::from_millis(settings.redis_wait_ms);
        let redis = address(settings)?.map(|address| Self::new(address, patience)).transpose()?;
        Ok(redis.map(Arc::new))
    }

    /// Connects when it is first asked, and again whenever the connection is lost.
    pub(crate) fn new(address: Address, patience: Duration) -> Result<Self, InvalidRedis> {
        let link = match address {
            Address::Sentinels(sentinels) => Link::Master(Master::new(sentinels.build()?, PAUSE)),
            Address::Server(server) => {
                let config = ConnectionManagerConfig::new()
                    .set_number_of_retries(0)
                    .set_connection_timeout(Some(PAUSE))
                    .set_response_timeout(Some(PAUSE));
                let client = Client::open(*server)?;
                let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
                Link::Server { client, connection }
            }
        };
        metrics::gauge!("redis_up").set(1.0);
        Ok(Self { link, state: Mutex::new(State::Answers), patience })
    }

    /// The answer of a script; none if Redis is lost. What fails is that it is.
    pub(crate) async fn ask<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Option<T> {
        if !self.may_ask() {
            return None;
        }
        match self.invoke(script).await {
            Ok(answer) => {
                self.found();
                Some(answer)
            }
            Err(cause) => {
                self.lost(&cause);
                None
            }
        }
    }

    /// Runs a script that nobody waits for. That it fails says nothing of what is asked: it may be that this alone is not allowed.
    async fn tell(&self, script: &ScriptInvocation<'_>) -> bool {
        if !self.may_ask() {
            return false;
        }
        let is_told = self.invoke::<Value>(script).await.is_ok();
        if is_told {
            self.found();
        }
        is_told
    }

    async fn invoke<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, String> {
        let asked = async {
            match &self.link {
                Link::Server { connection, .. } => script.invoke_async(&mut connection.clone()).await,
                Link::Master(master) => master.ask(script).await,
            }
        };
        let cause = match tokio::time::timeout(self.patience, asked).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} ms", self.patience.as_millis()),
        };
        self.forget();
        Err(cause)
    }

    /// Another one may be the master by now.
    fn forget(&self) {
        if let Link::Master(master) = &self.link {
            master.forget();
        }
    }

    /// A connection of its own to what is published there.
    async fn subscribe(&self, channel: &str) -> Result<PubSub, String> {
        let subscribed = async {
            let client = match &self.link {
                Link::Server { client, .. } => client.clone(),
                Link::Master(master) => master.client().await?,
            };
            let mut subscription = client.get_async_pubsub().await?;
            subscription.subscribe(channel).await?;
            RedisResult::Ok(subscription)
        };
        let cause = match tokio::time::timeout(PAUSE, subscribed).await {
            Ok(Ok(subscription)) => return Ok(subscription),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        self.forget();
        Err(cause)
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
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("state", &self.state).finish_non_exhaustive()
    }
}
