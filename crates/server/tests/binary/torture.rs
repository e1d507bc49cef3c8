//! Spends while the server or PostgreSQL is killed where it is, cycle after cycle: what was acknowledged is in the books
//! once, and what was not is there once after it was sent again. `cargo xtask torture` runs the long version.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::http::{self, Reply};
use crate::process::{Home, Launch, Server, poll};
use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use serde_json::json;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const WALLETS: usize = 4;
/// Several to a wallet, so that a kill meets commits that are shared and wallets that are waited for.
const CLIENTS: usize = 12;
const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy)]
enum Victim {
    Server,
    Postgres,
}

/// What is to be done. The kills are the same for the same seed, what they meet is not.
#[derive(Debug)]
struct Plan {
    cycles: u64,
    seed: u64,
    victims: Vec<Victim>,
    /// For how long PostgreSQL stands still before.
    pause: Option<Duration>,
}

/// Keys of spends, by what became of them.
#[derive(Debug, Default)]
struct Spends {
    acknowledged: Vec<String>,
    unacknowledged: Vec<String>,
    /// Of the unacknowledged, those that were done all the same.
    done: Vec<String>,
    /// Of the acknowledged, those that were not done before they were sent again.
    lost: Vec<String>,
}

impl Spends {
    fn extend(&mut self, more: Self) {
        self.acknowledged.extend(more.acknowledged);
        self.unacknowledged.extend(more.unacknowledged);
        self.done.extend(more.done);
        self.lost.extend(more.lost);
    }

    /// How often each is in the books.
    fn look_up(&self, cluster: &Cluster) -> Found {
        let query =
            "SELECT idempotency_key, count(*) FROM credits.transactions WHERE type = 'usage' GROUP BY 1";
        let in_books: HashMap<String, i64> = cluster.owner("mana").rows(query).into_iter().collect();
        let keys = self.acknowledged.iter().chain(&self.unacknowledged);
        let times: Vec<i64> = keys.map(|key| in_books.get(key).copied().unwrap_or(0)).collect();
        let count = |is_so: fn(i64) -> bool| times.iter().filter(|times| is_so(**times)).count();
        Found {
            once: count(|times| times == 1),
            lost: count(|times| times == 0).saturating_add(self.lost.len()),
            doubled: count(|times| times > 1),
        }
    }
}

impl fmt::Display for Spends {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [acknowledged, unacknowledged, done] =
            [&self.acknowledged, &self.unacknowledged, &self.done].map(Vec::len);
        let retried = "unacknowledged and retried";
        write!(
            formatter,
            "{acknowledged} acknowledged, {unacknowledged} {retried}, {done} of these were done"
        )
    }
}

/// How many are in the books so often.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    once: usize,
    lost: usize,
    doubled: usize,
}

/// A few random decisions, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64 (Marsaglia, 2003)
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.checked_rem(sides).unwrap()
    }
}

/// What one client sent until something was killed.
#[derive(Debug, Default)]
struct Sent {
    acknowledged: Vec<(String, Reply)>,
    unacknowledged: Option<String>,
}

/// A spend of one, unless there is no answer.
pub(crate) fn spend(port: u16, token: &str, key: &str) -> Option<Reply> {
    http::exchange(port, "POST", "/api/v1/credits/use", token, &spend_under(key)).ok()
}

/// The body of such a spend.
pub(crate) fn spend_under(key: &str) -> String {
    json!({"amount": 1, "appId": "chat", "description": "An answer", "idempotencyKey": key}).to_string()
}

/// The same until the service is there again; nothing else may be in its way.
pub(crate) fn spend_until_done(port: u16, token: &str, key: &str) -> Reply {
    poll(SOON, "an answer to a spend that is sent again", || {
        let reply = spend(port, token, key)?;
        assert!([201, 503].contains(&reply.status), "{key}: {reply:?}");
        (reply.status == 201).then_some(reply)
    })
}

pub(crate) fn is_replay(reply: &Reply) -> bool {
    reply.head.contains("\r\nidempotency-hit: true")
}

/// A server for spends: they never run out of mana, and nobody waits long for what is away.
pub(crate) fn ledger_server(home: &Home, cluster: &Cluster) -> Launch {
    home.serve()
        .env("DATABASE_URL", cluster.service_url("mana"))
        .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .env("DATABASE_WAIT_SECONDS", "4")
        .env("REQUEST_TIMEOUT_SECONDS", "5")
        .env("JWT_ACCESS_TOKEN_EXPIRY", "24h")
        .env("CREDITS_SIGNUP_BONUS", "1000000000")
        .env("RATE_LIMIT_MAX", "0")
}

/// Somebody with mana, signed in.
pub(crate) fn owner_of_wallet(server: &Server, email: &str) -> String {
    server.register(email);
    server.login(email).text("/accessToken")
}

/// A client spends until it is not answered, or until it is over.
fn spend_on(port: u16, token: &str, client: &str, done: &AtomicU64, is_over: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    while !is_over.load(Ordering::Relaxed) {
        let key = format!("{client}-{}", sent.acknowledged.len());
        match spend(port, token, &key) {
            Some(reply) if reply.status == 201 => sent.acknowledged.push((key, reply)),
            Some(reply) if reply.status != 503 => panic!("{key}: {reply:?}"),
            Some(_) | None => {
                sent.unacknowledged = Some(key);
                break;
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    sent
}

/// A server and its database, and owners of wallets.
struct Stage {
    // Declared in this order, dropped in this order.
    server: Server,
    cluster: Cluster,
    home: Home,
    tokens: Vec<String>,
}

impl Stage {
    fn new() -> Self {
        let home = Home::new();
        let cluster = Cluster::durable(&home).with_database("mana");
        let server = ledger_server(&home, &cluster).start();
        let owner = |wallet| owner_of_wallet(&server, &format!("owner{wallet}@example.com"));
        let tokens = (0..WALLETS).map(owner).collect();
        Self { server, cluster, home, tokens }
    }

    /// What clients sent, each with its token, until the victim was killed after so many spends and a moment.
    fn kill_under_load(
        &mut self,
        victim: Victim,
        cycle: u64,
        spends: u64,
        moment: u64,
    ) -> Vec<(String, Sent)> {
        let (done, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let port = self.server.port;
        let sent = thread::scope(|scope| {
            let clients: Vec<_> = self
                .tokens
                .iter()
                .cycle()
                .take(CLIENTS)
                .enumerate()
                .map(|(client, token)| {
                    let (name, token, done, is_over) =
                        (format!("{cycle}-{client}"), token.clone(), &done, &is_over);
                    scope.spawn(move || {
                        let sent = spend_on(port, &token, &name, done, is_over);
                        (token, sent)
                    })
                })
                .collect();
            poll(SOON, "spends before the kill", || (done.load(Ordering::Relaxed) >= spends).then_some(()));
            (0..moment).for_each(|_| std::hint::spin_loop());
            match victim {
                Victim::Server => self.server.signal("KILL"),
                Victim::Postgres => self.cluster.crash(),
            }
            is_over.store(true, Ordering::Relaxed);
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        // The server is to find PostgreSQL again by itself.
        if let Victim::Server = victim {
            self.server = ledger_server(&self.home, &self.cluster).start();
        }
        sent
    }

    /// Sends again what was not acknowledged, and the last that was.
    fn retry(&self, token: &str, sent: Sent) -> Spends {
        let again = |key: &str| spend_until_done(self.server.port, token, key);
        let is_lost = |(key, first): &&(String, Reply)| {
            let again = again(key);
            assert!(!is_replay(&again) || again.body == first.body, "{again:?} for {first:?}");
            !is_replay(&again)
        };
        Spends {
            lost: sent.acknowledged.last().filter(is_lost).map(|(key, _)| key.clone()).into_iter().collect(),
            done: sent.unacknowledged.iter().filter(|key| is_replay(&again(key))).cloned().collect(),
            unacknowledged: sent.unacknowledged.into_iter().collect(),
            acknowledged: sent.acknowledged.into_iter().map(|(key, _)| key).collect(),
        }
    }
}

impl Stage {
    /// PostgreSQL stands still under load. What was sent is refused in time, or done later and once; the service remembers no
    /// more than fits in its queue.
    fn stand_still(&self, time: Duration) {
        const AT_ONCE: usize = 300;
        const MORE_MIB: u64 = 64;
        let port = self.server.port;
        let keys: Vec<String> = (0..AT_ONCE).map(|spend| format!("still-{spend}")).collect();
        let send_all = || -> Vec<_> {
            let owners = self.tokens.iter().cycle();
            let sent = keys.iter().zip(owners).map(|(key, token)| {
                http::send(port, "POST", "/api/v1/credits/use", token, &spend_under(key)).unwrap()
            });
            sent.collect()
        };
        let before = self.server.resident_mib();
        let mut most = before;
        let pause = self.cluster.pause();
        let begun = Instant::now();
        let mut refused = 0_usize;
        while begun.elapsed() < time {
            for stream in send_all() {
                let reply = http::receive(stream).unwrap();
                assert_eq!(reply.status, 503, "{reply:?}");
            }
            refused = refused.saturating_add(AT_ONCE);
            most = most.max(self.server.resident_mib());
        }
        drop(pause);
        for (key, token) in keys.iter().zip(self.tokens.iter().cycle()) {
            spend_until_done(port, token, key);
        }
        let stood = begun.elapsed();
        eprintln!(
            "PostgreSQL stood still for {stood:.0?}: {refused} spends refused, {before} MiB before, {most} MiB at most"
        );
        assert!(most.saturating_sub(before) < MORE_MIB, "memory grew from {before} to {most} MiB");
        let found = "SELECT idempotency_key, count(*) FROM credits.transactions WHERE idempotency_key LIKE 'still-%' GROUP BY 1";
        let found = self.cluster.owner("mana").rows::<(String, i64)>(found);
        assert!(found.len() == AT_ONCE && found.iter().all(|(_, times)| *times == 1), "{found:?}");
        self.cluster.books_are_true("mana");
    }
}

/// Carries the plan out, and says how it goes.
fn torture(Plan { cycles, seed, victims, pause }: &Plan) {
    eprintln!("seed {seed}");
    let mut stage = Stage::new();
    if let Some(time) = pause {
        stage.stand_still(*time);
    }
    let mut dice = Dice(seed | 1);
    let mut all = Spends::default();
    for cycle in 1..=*cycles {
        let begun = Instant::now();
        let victim = victims[usize::try_from(dice.roll(u64::try_from(victims.len()).unwrap())).unwrap()];
        let (before, moment) = (dice.roll(100), dice.roll(200_000));
        let mut spends = Spends::default();
        for (token, sent) in stage.kill_under_load(victim, cycle, before, moment) {
            spends.extend(stage.retry(&token, sent));
        }
        eprintln!("cycle {cycle} of {cycles}: {victim:?} killed; {spends}; {:.1?}", begun.elapsed());
        all.extend(spends);
        let found = all.look_up(&stage.cluster);
        if cycle == *cycles || found.lost > 0 || found.doubled > 0 {
            let Found { once, lost, doubled } = found;
            eprintln!("{all}; in the books: {once} once, {lost} lost, {doubled} doubled");
        }
        let once = all.acknowledged.iter().chain(&all.unacknowledged).count();
        assert_eq!(found, Found { once, lost: 0, doubled: 0 }, "seed {seed}");
        stage.cluster.books_are_true("mana");
    }
    assert!(!all.unacknowledged.is_empty(), "seed {seed}: no kill met a spend");
}

fn new_seed() -> u64 {
    let mut seed = [0; 8];
    SystemRng.fill(&mut seed);
    u64::from_le_bytes(seed)
}

#[test]
fn a_server_that_is_killed_loses_and_doubles_no_spend() {
    torture(&Plan { cycles: 3, seed: new_seed(), victims: vec![Victim::Server], pause: None });
}

#[test]
fn a_postgres_that_is_killed_loses_and_doubles_no_spend() {
    torture(&Plan { cycles: 3, seed: new_seed(), victims: vec![Victim::Postgres], pause: None });
}

#[test]
#[ignore = "takes as long as one wants: cargo xtask torture"]
#[expect(clippy::disallowed_methods, reason = "how cargo xtask tells a test its plan")]
fn the_long_version() {
    let plan = std::env::var("MANA_TORTURE").unwrap();
    let [cycles, seed, kill] = plan.split(' ').collect::<Vec<_>>()[..] else { panic!("no plan: {plan}") };
    let victims = match kill {
        "server" => vec![Victim::Server],
        "postgres" => vec![Victim::Postgres],
        _ => vec![Victim::Server, Victim::Postgres],
    };
    let pause = Some(Duration::from_secs(30));
    torture(&Plan { cycles: cycles.parse().unwrap(), seed: seed.parse().unwrap(), victims, pause });
}
