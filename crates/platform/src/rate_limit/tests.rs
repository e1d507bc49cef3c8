//! That both places that count decide alike, and what happens when one of them is lost.

use super::attempts::{AccountKey, Rule};
use super::in_process::InProcess;
use super::quota::Decision;
use super::redis::{Redis, address};
use super::route_class::{CLASSES, Quotas, RouteClass};
use super::{RateLimits, Subject};
use crate::Settings;
use crate::http::AddressBucket;
use mana_kernel::{Clock, Rng as _};
use mana_testkit::{FakeClock, RedisServer};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a busy machine may take: what is under test is what Redis says, not when.
const PATIENCE: Duration = Duration::from_secs(30);

/// Numbers for a sequence of steps; a failure prints where they came from.
struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    fn new() -> Self {
        let mut seed = [0; 8];
        crate::SystemRng.fill(&mut seed);
        let seed = u64::from_be_bytes(seed);
        Self { seed, state: seed }
    }

    /// Below `sides`, by splitmix64.
    fn roll(&mut self, sides: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).checked_rem(sides).unwrap()
    }

    fn address(&mut self, most: u64) -> AddressBucket {
        let number = u32::try_from(self.roll(most)).unwrap();
        AddressBucket::of(Some(Ipv4Addr::from(number).into()))
    }
}

fn settings(server: &RedisServer) -> Settings {
    Settings { redis_url: Some(server.url().into()), ..Settings::defaults().unwrap() }
}

fn shared(clock: &Arc<FakeClock>) -> Arc<dyn Clock> {
    clock.clone()
}

fn redis(server: &RedisServer, clock: &Arc<FakeClock>) -> Redis {
    let mut redis = Redis::new(address(&settings(server)).unwrap().unwrap()).unwrap();
    redis.clock = Some(clock.clone());
    redis.patience = PATIENCE;
    redis
}

#[tokio::test]
async fn redis_and_the_process_count_requests_alike() {
    let (server, clock) = (RedisServer::start(), Arc::new(FakeClock::new()));
    let quotas = Quotas::from_settings(&Settings::defaults().unwrap()).unwrap();
    let in_process = InProcess::new(Some(&quotas), &shared(&clock));
    let redis = redis(&server, &clock);
    let mut dice = Dice::new();
    let mut refused = 0;
    for step in 0..1500 {
        let class = CLASSES[usize::try_from(dice.roll(7)).unwrap()];
        let subject = Subject::Address(dice.address(2));
        let quota = quotas.of(class).unwrap();
        let ours = in_process.count(class, &subject).unwrap();
        let theirs = redis.count(class, &subject, quota).await.unwrap();
        assert_eq!(ours, theirs, "step {step} of seed {}", dice.seed);
        refused += u32::from(matches!(ours, Decision::Refused { .. }));
        let pause = dice.roll(2_000_000) * dice.roll(4).saturating_sub(1);
        clock.advance(time::Duration::microseconds(i64::try_from(pause).unwrap()));
    }
    assert!((100..1400).contains(&refused), "{refused} of seed {}: both answers are tried", dice.seed);
}

#[tokio::test]
async fn redis_and_the_process_count_attempts_alike() {
    let (server, clock) = (RedisServer::start(), Arc::new(FakeClock::new()));
    let in_process = InProcess::new(None, &shared(&clock));
    let redis = redis(&server, &clock);
    let rule = Rule::new(3, 12);
    let mut dice = Dice::new();
    let (mut allowed, mut waits) = (0, std::collections::HashSet::new());
    for step in 0..1500 {
        let account = AccountKey::of(&dice.roll(2).to_string());
        let from = dice.address(6);
        let (ours, theirs) = match dice.roll(12) {
            0 => {
                in_process.succeeded(&rule, account, from);
                redis.succeeded(&rule, account, from).await.unwrap();
                continue;
            }
            1 => {
                in_process.give_back(&rule, account, from);
                redis.give_back(&rule, account, from).await.unwrap();
                continue;
            }
            _ => {
                (in_process.reserve(&rule, account, from), redis.reserve(&rule, account, from).await.unwrap())
            }
        };
        assert_eq!(ours, theirs, "step {step} of seed {}", dice.seed);
        match ours {
            Ok(()) => allowed += 1,
            Err(wait) => drop(waits.insert(wait)),
        }
        // All steps together stay within what an idle address is remembered: that end is on Redis's own clock.
        let pause = dice.roll(40_000_000) * dice.roll(3).saturating_sub(1);
        clock.advance(time::Duration::microseconds(i64::try_from(pause).unwrap()));
    }
    assert!(allowed > 100 && waits.len() > 100, "{allowed} {} of seed {}", waits.len(), dice.seed);
}

#[tokio::test]
async fn replicas_share_a_bucket_and_every_key_has_an_end() {
    let server = RedisServer::start();
    let clock: Arc<dyn Clock> = Arc::new(FakeClock::new());
    let replicas = [(); 2].map(|()| {
        let mut limits = RateLimits::new(&settings(&server), &clock).unwrap();
        limits.redis.as_mut().unwrap().patience = PATIENCE;
        limits
    });
    let subject = Subject::Address(AddressBucket::of(None));
    // Redis tells the time here, and one comes back in twelve seconds.
    let mut allowed = 0;
    for replica in replicas.iter().cycle().take(20) {
        let quota = Quotas::from_settings(&settings(&server)).unwrap().of(RouteClass::Register).unwrap();
        let redis = replica.redis.as_ref().unwrap();
        let decision = redis.count(RouteClass::Register, &subject, quota).await.unwrap();
        allowed += u32::from(matches!(decision, Decision::Allowed { .. }));
    }
    assert!((5..=6).contains(&allowed), "{allowed}");
    let account = AccountKey::of("ada@example.com");
    let [one, _] = &replicas;
    one.reserve_attempt(account, AddressBucket::of(None)).await.unwrap();
    one.attempt_succeeded(account, AddressBucket::of(None)).await;
    one.reserve_attempt(account, AddressBucket::of(None)).await.unwrap();
    let keys = server.keys_with_ttl().await;
    assert!(keys.len() >= 3, "{keys:?}");
    assert!(keys.iter().all(|(_, ttl)| *ttl > 0), "{keys:?}");
    assert!(keys.iter().all(|(key, _)| key.starts_with("mana:") && !key.contains("ada")), "{keys:?}");
}

#[tokio::test]
async fn without_redis_the_process_counts_and_with_it_again_redis_does() {
    let mut server = RedisServer::start();
    let clock: Arc<dyn Clock> = Arc::new(FakeClock::new());
    let mut limits = RateLimits::new(&settings(&server), &clock).unwrap();
    limits.redis.as_mut().unwrap().patience = PATIENCE;
    let subject = Subject::Address(AddressBucket::of(None));
    server.kill();
    let mut allowed = 0;
    for _ in 0..50 {
        let begun = Instant::now();
        let (_, decision) = limits.count(RouteClass::Login, &subject).await.unwrap();
        allowed += u32::from(matches!(decision, Decision::Allowed { .. }));
        assert!(begun.elapsed() < Duration::from_secs(5), "a lost Redis holds nothing up");
    }
    assert_eq!(allowed, 10, "never open");
    let account = AccountKey::of("ada@example.com");
    let mut attempts = 0;
    for _ in 0..50 {
        attempts += u32::from(limits.reserve_attempt(account, AddressBucket::of(None)).await.is_ok());
    }
    assert_eq!(attempts, 5);

    server.restart();
    let quota = Quotas::from_settings(&settings(&server)).unwrap().of(RouteClass::Login).unwrap();
    let redis = limits.redis.as_ref().unwrap();
    let begun = Instant::now();
    let decision = loop {
        if let Some(decision) = redis.count(RouteClass::Login, &subject, quota).await {
            break decision;
        }
        assert!(begun.elapsed() < PATIENCE, "Redis is not found again");
        tokio::task::yield_now().await;
    };
    assert_eq!(decision, Decision::Allowed { remaining: 9 }, "it was flushed: limits start anew");
}

#[tokio::test]
async fn an_address_of_redis_that_is_none_is_refused_without_telling_it() {
    let with = |url: &str| Settings { redis_url: Some(url.into()), ..Settings::defaults().unwrap() };
    for url in ["http://:hunter2@redis", "rediss://:hunter2@redis", "hunter2"] {
        let refusal = address(&with(url)).unwrap_err().to_string();
        assert!(refusal.contains("REDIS_URL") && !refusal.contains("hunter2"), "{refusal}");
    }
    let by_host = Settings {
        redis_host: Some("redis.internal".to_owned()),
        redis_password: Some("hunter2".into()),
        ..Settings::defaults().unwrap()
    };
    let found = address(&by_host).unwrap().unwrap();
    assert_eq!(found.addr().to_string(), "redis.internal:6379");
    assert_eq!(found.redis_settings().password(), Some("hunter2"));
    assert!(address(&Settings::defaults().unwrap()).unwrap().is_none());
}
