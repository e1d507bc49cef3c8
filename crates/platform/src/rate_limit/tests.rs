//! That both places that count decide alike, and what happens when one of them is lost.

use super::attempts::{AccountKey, Rule, Taken};
use super::in_process::InProcess;
use super::quota::Decision;
use super::redis::Counters;
use super::route_class::{CLASSES, Quotas, RouteClass};
use super::{RateLimits, Subject};
use crate::Settings;
use crate::http::AddressBucket;
use crate::redis::{Address, Redis, address};
use mana_kernel::{Clock, Rng as _, UserId};
use mana_testkit::{FakeClock, RedisServer};
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a busy machine may take: what is under test is what Redis says, not when.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where sequences of steps begin: the same ones each time, and one that is new. To try one again that failed, add it.
fn seeds() -> [u64; 4] {
    let mut fresh = [0; 8];
    crate::SystemRng.fill(&mut fresh);
    [1, 2, 3, u64::from_be_bytes(fresh)]
}

/// Numbers for a sequence of steps; a failure prints where they came from.
struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    fn new(seed: u64) -> Self {
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
        // Two networks, so that their addresses meet in both.
        let number = u32::try_from(self.roll(most).wrapping_add(self.roll(2) << 8)).unwrap();
        AddressBucket::of(Some(Ipv4Addr::from(number).into()))
    }
}

fn settings(server: &RedisServer) -> Settings {
    let redis_wait_ms = u64::try_from(PATIENCE.as_millis()).unwrap();
    Settings { redis_url: Some(server.url().into()), redis_wait_ms, ..Settings::defaults().unwrap() }
}

fn shared(clock: &Arc<FakeClock>) -> Arc<dyn Clock> {
    clock.clone()
}

fn redis(server: &RedisServer, clock: &Arc<FakeClock>) -> Counters {
    let mut redis = Counters::new(Redis::from_settings(&settings(server)).unwrap().unwrap());
    redis.clock = Some(clock.clone());
    redis
}

fn limits(server: &RedisServer, clock: &Arc<dyn Clock>) -> RateLimits {
    let settings = settings(server);
    RateLimits::new(&settings, Redis::from_settings(&settings).unwrap(), clock)
}

#[tokio::test]
async fn redis_and_the_process_count_requests_alike() {
    for seed in seeds() {
        let (server, clock) = (RedisServer::start(), Arc::new(FakeClock::new()));
        let quotas = Quotas::from_settings(&Settings::defaults().unwrap()).unwrap();
        let in_process = InProcess::new(&shared(&clock));
        let redis = redis(&server, &clock);
        let users = [(); 2].map(|()| UserId::new(&*clock, &crate::SystemRng));
        let mut dice = Dice::new(seed);
        let (mut refused, mut refused_by_network) = (0, 0);
        for step in 0..1500 {
            let class = CLASSES[usize::try_from(dice.roll(2)).unwrap()];
            let subject = match dice.roll(8) {
                0 => Subject::User(users[usize::try_from(dice.roll(2)).unwrap()].clone()),
                1 if dice.roll(2) == 0 => Subject::App(dice.roll(2).to_string()),
                1 => Subject::ServiceKey(dice.roll(2).to_string()),
                _ => Subject::Address(dice.address(20)),
            };
            let quota = quotas.of(class).unwrap();
            let count = if dice.roll(8) == 0 { 2 } else { 1 };
            let ours = in_process.count(class, &subject, quota, count);
            let theirs = redis.count(class, &subject, quota, count).await.unwrap();
            assert_eq!(ours, theirs, "step {step} of seed {}", dice.seed);
            if let Decision::Refused { wait } = ours {
                refused += 1;
                refused_by_network += u32::from(wait < quota.emission() / 8);
            }
            let pause = dice.roll(300_000) * dice.roll(4).saturating_sub(1);
            clock.advance(time::Duration::microseconds(i64::try_from(pause).unwrap()));
        }
        assert!((100..1400).contains(&refused), "{refused} of seed {}: both answers are tried", dice.seed);
        assert!(refused_by_network > 20, "{refused_by_network} of seed {}", dice.seed);
    }
}

#[tokio::test]
async fn redis_and_the_process_count_attempts_alike() {
    for seed in seeds() {
        let (server, clock) = (RedisServer::start(), Arc::new(FakeClock::new()));
        let in_process = InProcess::new(&shared(&clock));
        let redis = redis(&server, &clock);
        let rule = Rule::new(3, 12);
        let mut dice = Dice::new(seed);
        let (mut allowed, mut strangers, mut given_back, mut waits) = (0, 0, 0, HashSet::new());
        // What may still be settled, in both places.
        let mut made: Vec<(AccountKey, AddressBucket, Taken, Taken)> = Vec::new();
        for step in 0..1500 {
            let what = dice.roll(12);
            if what < 3 && !made.is_empty() {
                let place = usize::try_from(dice.roll(u64::try_from(made.len()).unwrap())).unwrap();
                let (account, from, ours, theirs) = made.swap_remove(place);
                if what == 0 {
                    in_process.succeeded(&rule, account, from, Some(ours));
                    redis.succeeded(&rule, account, from, Some(theirs)).await.unwrap();
                } else {
                    in_process.give_back(&rule, account, from, ours);
                    redis.give_back(&rule, account, from, theirs).await.unwrap();
                    given_back += 1;
                }
                continue;
            }
            let account = AccountKey::of(&dice.roll(2).to_string());
            let from = dice.address(6);
            let ours = in_process.reserve(&rule, account, from);
            let theirs = redis.reserve(&rule, account, from).await.unwrap();
            let told =
                |reserved: Result<Taken, Duration>| reserved.map(|taken| (taken.budget, taken.is_strangers));
            assert_eq!(told(ours), told(theirs), "step {step} of seed {}", dice.seed);
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => {
                    allowed += 1;
                    strangers += u32::from(ours.is_strangers);
                    made.push((account, from, ours, theirs));
                }
                (Err(wait), _) | (_, Err(wait)) => drop(waits.insert(wait)),
            }
            // All steps together stay within what an idle address is remembered: that end is on Redis's own clock.
            let pause = dice.roll(40_000_000) * dice.roll(3).saturating_sub(1);
            clock.advance(time::Duration::microseconds(i64::try_from(pause).unwrap()));
        }
        let tried = [allowed > 100, strangers > 20, given_back > 20, waits.len() > 100];
        assert!(
            tried.iter().all(|tried| *tried),
            "{allowed} {strangers} {given_back} {} {seed}",
            waits.len()
        );
    }
}

#[tokio::test]
async fn replicas_share_a_bucket_and_every_key_has_an_end() {
    let (server, clock) = (RedisServer::start(), Arc::new(FakeClock::new()));
    let replicas = [(); 2].map(|()| redis(&server, &clock));
    let subject = Subject::Address(AddressBucket::of(None));
    let quota = Quotas::from_settings(&settings(&server)).unwrap().of(RouteClass::Register).unwrap();
    let mut allowed = 0;
    for replica in replicas.iter().cycle().take(20) {
        let decision = replica.count(RouteClass::Register, &subject, quota, 1).await.unwrap();
        allowed += u32::from(matches!(decision, Decision::Allowed { .. }));
    }
    assert_eq!(allowed, 5);
    let account = AccountKey::of("ada@example.com");
    let (rule, [one, _]) = (Rule::new(5, 1), &replicas);
    let made = one.reserve(&rule, account, AddressBucket::of(None)).await.unwrap().unwrap();
    one.succeeded(&rule, account, AddressBucket::of(None), Some(made)).await.unwrap();
    for number in 1..4 {
        let stranger = AddressBucket::of(Some(Ipv4Addr::from(number << 8).into()));
        one.reserve(&rule, account, stranger).await.unwrap().unwrap();
    }
    let keys = server.keys_with_ttl().await;
    // Two of requests, three of failures, the known one, the budget, two networks' paces and that of all.
    assert_eq!(keys.len(), 10, "{keys:?}");
    assert!(keys.iter().all(|(_, ttl)| *ttl > 0), "{keys:?}");
    assert!(keys.iter().all(|(key, _)| key.starts_with("mana:") && !key.contains('@')), "{keys:?}");
}

#[tokio::test]
async fn what_redis_counted_is_given_back_there_and_success_is_told_to_both() {
    let mut server = RedisServer::start();
    let clock = Arc::new(FakeClock::new());
    let mut limits = limits(&server, &shared(&clock));
    limits.redis.as_mut().unwrap().clock = Some(clock.clone());
    let (account, home) = (AccountKey::of("ada@example.com"), AddressBucket::of(None));
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(limits.reserve_attempt(account, home).await.unwrap());
    }
    assert!(limits.reserve_attempt(account, home).await.is_err());
    for attempt in made {
        limits.give_back_attempt(attempt).await;
    }
    let attempt = limits.reserve_attempt(account, home).await.unwrap();
    limits.attempt_succeeded(attempt).await;
    server.kill();
    // Beyond the budget in this process, where all of them are strangers but one.
    for number in 1..=111 {
        let stranger = AddressBucket::of(Some(Ipv4Addr::from(number << 8).into()));
        assert_eq!(limits.reserve_attempt(account, stranger).await.is_ok(), number <= 110, "{number}");
    }
    assert!(limits.reserve_attempt(account, home).await.is_ok(), "known here as well");
}

#[tokio::test]
async fn without_redis_the_process_counts_and_with_it_again_redis_does() {
    let mut server = RedisServer::start();
    let clock: Arc<dyn Clock> = Arc::new(FakeClock::new());
    let limits = limits(&server, &clock);
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
        if let Some(decision) = redis.count(RouteClass::Login, &subject, quota, 1).await {
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
    let Address::Server(found) = address(&by_host).unwrap().unwrap() else { panic!("a sentinel") };
    assert_eq!(found.addr().to_string(), "redis.internal:6379");
    assert_eq!(found.redis_settings().password(), Some("hunter2"));
    assert!(address(&Settings::defaults().unwrap()).unwrap().is_none());
    let by_sentinels = |sentinels: &[&str]| Settings {
        redis_sentinels: sentinels.iter().map(ToString::to_string).collect(),
        ..Settings::defaults().unwrap()
    };
    let found = address(&by_sentinels(&["one", "two:5000"])).unwrap().unwrap();
    assert!(matches!(found, Address::Sentinels(_)));
    let refusal = address(&by_sentinels(&["one", "redis://two"])).unwrap_err().to_string();
    assert!(refusal.contains("REDIS_SENTINELS"), "{refusal}");
    let twice = Settings { redis_host: Some("redis".to_owned()), ..by_sentinels(&["one"]) };
    assert!(address(&twice).unwrap_err().to_string().contains("leave REDIS_URL"));
}
