//! The Redis that sentinels name as the master. They are asked again whenever it is lost.

use super::InvalidRedis;
use crate::Settings;
use ::redis::aio::MultiplexedConnection;
use ::redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, FromRedisValue, RedisError, RedisResult,
    ScriptInvocation,
};
use secrecy::ExposeSecret as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where sentinels listen if their address does not say it.
const PORT: u16 = 26379;

/// Who is asked where Redis is, as `REDIS_SENTINELS` says.
///
/// # Errors
/// When an address is none.
pub(super) fn from_settings(settings: &Settings) -> Result<SentinelClientBuilder, InvalidRedis> {
    let addresses = settings.redis_sentinels.iter().map(|text| address(text).ok_or(InvalidRedis::Sentinel));
    let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
    let master = &settings.redis_sentinel_master;
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?;
    if let Some(password) = &settings.redis_password {
        builder = builder.set_client_to_redis_password(password.expose_secret());
    }
    if let Some(password) = &settings.redis_sentinel_password {
        builder = builder.set_client_to_sentinel_password(password.expose_secret());
    }
    Ok(builder)
}

/// `host`, `host:port` or `[address]:port`.
fn address(text: &str) -> Option<ConnectionAddr> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, PORT),
    };
    let host = host.strip_prefix('[').map_or(Some(host), |host| host.strip_suffix(']'))?;
    let is_name = !host.is_empty() && !host.contains(['/', '@', ' ', '[', ']']);
    is_name.then(|| ConnectionAddr::Tcp(host.to_owned(), port))
}

/// A connection to it, found when it is first needed.
pub(super) struct Master {
    sentinels: Arc<tokio::sync::Mutex<SentinelClient>>,
    found: Arc<Mutex<Option<Found>>>,
    config: AsyncConnectionConfig,
}

/// Where it is, and a connection to it.
#[derive(Clone)]
struct Found {
    client: Client,
    connection: MultiplexedConnection,
}

impl Master {
    /// Nobody is asked yet. A connection, and an answer, may take so long.
    pub(super) fn new(sentinels: SentinelClient, limit: Duration) -> Self {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limit))
            .set_response_timeout(Some(limit));
        Self { sentinels: Arc::new(tokio::sync::Mutex::new(sentinels)), found: Arc::default(), config }
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> RedisResult<T> {
        script.invoke_async(&mut self.find().await?.connection).await
    }

    /// For a connection of another sort.
    pub(super) async fn client(&self) -> RedisResult<Client> {
        Ok(self.find().await?.client)
    }

    async fn find(&self) -> RedisResult<Found> {
        let found = lock(&self.found).clone();
        match found {
            Some(found) => Ok(found),
            None => self.search().await,
        }
    }

    /// It does not answer, or no more as a master: the sentinels may know another one by now.
    pub(super) fn forget(&self) {
        *lock(&self.found) = None;
    }

    /// Goes on when the one who asks waits no longer; the next one then finds what it found.
    async fn search(&self) -> RedisResult<Found> {
        let Ok(mut sentinels) = Arc::clone(&self.sentinels).try_lock_owned() else {
            return Err((ErrorKind::Io, "the sentinels are being asked").into());
        };
        let (found, config) = (Arc::clone(&self.found), self.config.clone());
        let search = tokio::spawn(async move {
            let client = sentinels.async_get_client().await?;
            let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            tracing::info!(master = %client.get_connection_info().addr(), "the sentinels name a Redis");
            let master = Found { client, connection };
            *lock(&found) = Some(master.clone());
            Ok(master)
        });
        search.await.unwrap_or_else(|error| Err(RedisError::from(std::io::Error::other(error))))
    }
}

fn lock(found: &Mutex<Option<Found>>) -> MutexGuard<'_, Option<Found>> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentinel_has_a_name_and_a_port() {
        let tcp = |host: &str, port| Some(ConnectionAddr::Tcp(host.to_owned(), port));
        for (text, read) in [
            ("sentinel-1", tcp("sentinel-1", 26379)),
            ("10.0.0.1:5000", tcp("10.0.0.1", 5000)),
            ("[::1]:5000", tcp("::1", 5000)),
            ("[::1]", tcp("::1", 26379)),
            ("", None),
            (":5000", None),
            ("a:b", None),
            ("a:70000", None),
            ("[::1", None),
            ("redis://a", None),
            ("a b", None),
            ("me@a:1", None),
        ] {
            assert_eq!(address(text), read, "{text}");
        }
    }
}
