//! A bell that a server rings for the others when sessions have ended: they look for them in the database at once, and not only at their
//! next turn.
//!
//! It says nothing but that somebody has rung. Who forges it, repeats it or loses it makes others look sooner or later, never see anything
//! else.

use super::{PAUSE, Redis};
use ::redis::aio::PubSub;
use ::redis::{Script, Value};
use futures_util::StreamExt as _;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// Where it is rung.
const CHANNEL: &str = "mana:sessions:ended";
/// Who hears nothing for so long asks whether the connection lives.
const SILENCE: Duration = Duration::from_secs(5);
/// Whoever hears more in a second hangs up for a while: that many servers there are not, and each ring costs something.
const FLOOD: u32 = 2_000;
/// How long it takes to listen again, at first and at most; doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The bell that all servers with the same Redis hear.
pub struct Bell {
    redis: Arc<Redis>,
    publish: Script,
    heard: Notify,
}

impl Bell {
    /// Nobody listens yet.
    pub fn new(redis: Arc<Redis>) -> Self {
        metrics::gauge!("session_bell_up").set(0.0);
        metrics::counter!("session_bell_heard_total").increment(0);
        let publish = Script::new("return redis.call('PUBLISH', KEYS[1], '')");
        Self { redis, publish, heard: Notify::new() }
    }

    /// Rings for the others, unless Redis is lost; says whether it did. Not to be waited for by a request.
    pub async fn ring(&self) -> bool {
        let is_rung = self.redis.tell(&self.publish.key(CHANNEL)).await;
        let outcome = if is_rung { "rung" } else { "failed" };
        metrics::counter!("session_bell_rings_total", "outcome" => outcome).increment(1);
        is_rung
    }

    /// Waits until somebody has rung since the last time. However often that was, it is once.
    pub async fn heard(&self) {
        self.heard.notified().await;
    }

    /// Listens for ever. What is rung while Redis is lost is not heard: nobody may rely on hearing it.
    pub async fn listen(&self) {
        let (mut pause, mut is_lost) = (SHORTEST_PAUSE, false);
        loop {
            let began = Instant::now();
            let cause = match self.redis.subscribe(CHANNEL).await {
                Ok(subscription) => {
                    metrics::gauge!("session_bell_up").set(1.0);
                    if std::mem::take(&mut is_lost) {
                        tracing::info!("Redis tells of ended sessions again");
                    }
                    self.hear(subscription).await
                }
                Err(cause) => cause,
            };
            metrics::gauge!("session_bell_up").set(0.0);
            if !std::mem::replace(&mut is_lost, true) {
                tracing::warn!(
                    cause,
                    "Redis does not tell of ended sessions: they are looked for in turn until it does"
                );
            }
            pause = if began.elapsed() > LONGEST_PAUSE {
                SHORTEST_PAUSE
            } else {
                pause.saturating_mul(2).min(LONGEST_PAUSE)
            };
            sleep(pause).await;
        }
    }

    /// Takes what comes at once, so that it piles up nowhere, and hangs up when it is too much. Gives the reason why nothing more comes.
    async fn hear(&self, subscription: PubSub) -> String {
        let (mut asking, mut rings) = subscription.split();
        let (mut second, mut heard) = (Instant::now(), 0_u32);
        loop {
            match timeout(SILENCE, rings.next()).await {
                Ok(Some(_)) => {
                    metrics::counter!("session_bell_heard_total").increment(1);
                    self.heard.notify_one();
                    if second.elapsed() >= Duration::from_secs(1) {
                        (second, heard) = (Instant::now(), 0);
                    }
                    heard = heard.saturating_add(1);
                    if heard > FLOOD {
                        return "a flood of it".to_owned();
                    }
                }
                Ok(None) => return "the connection was closed".to_owned(),
                Err(_) => match timeout(PAUSE, asking.ping::<Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) => return "no answer".to_owned(),
                },
            }
        }
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("redis", &self.redis).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use mana_testkit::RedisServer;

    /// What a busy machine may take.
    const PATIENCE: Duration = Duration::from_mins(1);

    fn bell(server: &RedisServer) -> Arc<Bell> {
        let settings = Settings { redis_url: Some(server.url().into()), ..Settings::defaults().unwrap() };
        Arc::new(Bell::new(Redis::from_settings(&settings).unwrap().unwrap()))
    }

    /// Rings until it is heard: who does not listen yet hears nothing.
    async fn is_heard(ours: &Bell, theirs: &Bell) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            ours.ring().await;
            if timeout(Duration::from_millis(50), theirs.heard()).await.is_ok() {
                return true;
            }
        }
        false
    }

    #[tokio::test]
    async fn a_ring_is_heard_elsewhere_and_a_lost_redis_is_found_again_and_holds_nobody_up() {
        let mut server = RedisServer::start();
        let (ours, theirs) = (bell(&server), bell(&server));
        let listening = Arc::clone(&theirs);
        let listening = tokio::spawn(async move { listening.listen().await });
        assert!(is_heard(&ours, &theirs).await);
        server.kill();
        let begun = Instant::now();
        for _ in 0..100 {
            ours.ring().await;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        server.restart();
        assert!(is_heard(&ours, &theirs).await, "again");
        assert!(!listening.is_finished());
    }
}
