//! Everything that the service leans on fails, one thing after the other, while people spend. It answers in time, says when to
//! come again, comes back by itself, stays small, and loses or doubles nothing that it acknowledged.
//! `cargo xtask chaos` runs the long version.

use crate::deployment::Deployment;
use crate::http::{self, PASSWORD, Reply};
use crate::mail_server::MailServer;
use crate::process::{poll, send_signal};
use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use serde_json::json;
use std::collections::HashSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::iter;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const USE: &str = "/api/v1/credits/use";
/// One of `CORS_ORIGINS` as they are when nobody says anything.
const PAGE: &str = "http://localhost:3000";
/// The key of the probe's first spend.
const FIRST: &str = "first";
const CLIENTS: usize = 4;
/// Until it works again, from the end of a fault on.
const RECOVERY: Duration = Duration::from_secs(30);
/// Until there is an answer of some kind: the service's own limit, and what a busy machine adds.
const PATIENCE: Duration = Duration::from_secs(15);
/// What a server may use, whatever is done to it.
const MEMORY_BYTES: u64 = 512 * 1024 * 1024;
/// Fewer than are opened to it below.
const MAX_CONNECTIONS: usize = 300;

/// What a sign-up takes at most, whatever the mail server does. Whoever waited for that one would be refused by the limit of a request each time.
const SIGN_UP: Duration = Duration::from_secs(30);
/// Until a mail is there, whatever befell it: the limit of an attempt and the pause after it, the silence after which a pass is given up, or
/// the three minutes after which a mail is taken over from a server that was killed with it; and some.
const MAIL: Duration = Duration::from_mins(5);
/// How long PostgreSQL stands still in the long version.
const LONG_PAUSE: Duration = Duration::from_secs(30);
/// How long Redis is slow.
const SLOWNESS: Duration = Duration::from_secs(2);
/// When a batch is given up.
const BATCH_LIMIT: Duration = Duration::from_secs(12);
const FLOOD: Duration = Duration::from_secs(3);
const FLOODERS: usize = 24;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Verification mails that an address may ask for in a minute.
const RESENDS: usize = 3;
/// No server's clock is wrong.
const NONE: usize = usize::MAX;

const SETTINGS: [(&str, &str); 12] = [
    ("CREDITS_SIGNUP_BONUS", "1000000000"),
    // High rather than off: each request asks Redis.
    ("RATE_LIMIT_MAX", "10000000"),
    ("RATE_LIMIT_REGISTER", "0"),
    ("RATE_LIMIT_LOGIN", "0"),
    // One that is met.
    ("RATE_LIMIT_RESEND", "3"),
    ("JWT_ACCESS_TOKEN_EXPIRY", "24h"),
    ("HASHING_WAIT_SECONDS", "30"),
    ("DATABASE_WAIT_SECONDS", "4"),
    ("REQUEST_TIMEOUT_SECONDS", "5"),
    ("HEADER_TIMEOUT_SECONDS", "2"),
    ("MAX_CONNECTIONS", "300"),
    ("SHUTDOWN_TIMEOUT_SECONDS", "5"),
];

#[derive(Debug, Clone, Copy)]
enum Fault {
    PostgresPaused,
    PostgresKilled,
    PostgresStopped,
    PostgresReadOnly,
    PostgresOutOfConnections,
    BouncerKilled,
    RedisPaused,
    RedisKilled,
    RedisFlushed,
    RedisSlow,
    RedisOld,
    ServerKilled,
    SlowBodies,
    IdleConnections,
    Flood,
    DiskFull,
    ClockSteps,
    MailServerSilent,
    NetworkSilent,
}

const ALL: [Fault; 19] = [
    Fault::PostgresPaused,
    Fault::PostgresKilled,
    Fault::PostgresStopped,
    Fault::PostgresReadOnly,
    Fault::PostgresOutOfConnections,
    Fault::BouncerKilled,
    Fault::RedisPaused,
    Fault::RedisKilled,
    Fault::RedisFlushed,
    Fault::RedisSlow,
    Fault::RedisOld,
    Fault::ServerKilled,
    Fault::SlowBodies,
    Fault::IdleConnections,
    Fault::Flood,
    Fault::DiskFull,
    Fault::ClockSteps,
    Fault::MailServerSilent,
    Fault::NetworkSilent,
];

/// A few random decisions, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // xorshift64 (Marsaglia, 2003)
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0.checked_rem(u64::try_from(sides).unwrap()).unwrap()).unwrap()
    }

    fn shuffled(&mut self, faults: &[Fault]) -> Vec<Fault> {
        let mut faults = faults.to_vec();
        for place in (1..faults.len()).rev() {
            faults.swap(place, self.roll(place.saturating_add(1)));
        }
        faults
    }
}

fn spend_of(key: &str) -> String {
    json!({"amount": 1, "appId": "chat", "description": "An answer", "idempotencyKey": key}).to_string()
}

pub(crate) fn spend(port: u16, token: &str, key: &str) -> std::io::Result<Reply> {
    let begun = Instant::now();
    let reply = http::exchange(port, "POST", USE, token, &spend_of(key));
    assert!(begun.elapsed() < PATIENCE, "{key}: {:?} after {:?}", reply, begun.elapsed());
    reply
}

/// What comes until the server closes, if only nothing.
fn receive_to_close(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("not closed: {error}"),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

/// Refused, and told when to come again.
fn is_told_to_come_again(reply: &Reply) -> bool {
    assert!([201, 503].contains(&reply.status), "{reply:?}");
    assert!(reply.status == 201 || reply.header("retry-after").parse::<u32>().is_ok(), "{reply:?}");
    reply.status == 503
}

/// Spends on one server and the other, sending again what was not acknowledged, until it is over; gives the keys in the books.
pub(crate) fn live(
    deployment: &Deployment,
    token: &str,
    name: &str,
    Progress { is_over, done, wrong_clock, all_is_there }: &Progress,
) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut servers = [0, 1].into_iter().cycle();
    let mut key = format!("{name}-0");
    while !is_over.load(Ordering::Relaxed) {
        let server = servers.next().unwrap();
        let was_wrong = wrong_clock.load(Ordering::SeqCst) == server;
        let was_there = all_is_there.load(Ordering::SeqCst);
        let reply = spend(deployment.server_port(server), token, &key);
        let is_wrong = was_wrong || wrong_clock.load(Ordering::SeqCst) == server;
        if was_there && all_is_there.load(Ordering::SeqCst) {
            assert!(reply.as_ref().is_ok_and(|reply| reply.status == 201), "nobody is refused: {reply:?}");
        }
        // A token that is not valid yet, or no more, by that clock.
        let is_unknown = is_wrong && reply.as_ref().is_ok_and(|reply| reply.status == 401);
        // No answer at all: its server was killed, or has no place. Then the other is asked.
        if is_unknown || reply.map_or(true, |reply| is_told_to_come_again(&reply)) {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        acknowledged.push(key);
        done.fetch_add(1, Ordering::Relaxed);
        key = format!("{name}-{}", acknowledged.len());
    }
    acknowledged
}

/// How it goes.
pub(crate) struct Progress {
    pub(crate) is_over: AtomicBool,
    /// Spends.
    pub(crate) done: AtomicU64,
    /// The server whose clock is not right.
    wrong_clock: AtomicUsize,
    /// Whether all is there that a spend needs.
    all_is_there: AtomicBool,
}

impl Progress {
    pub(crate) fn none() -> Self {
        Self {
            is_over: AtomicBool::new(false),
            done: AtomicU64::new(0),
            wrong_clock: AtomicUsize::new(NONE),
            all_is_there: AtomicBool::new(false),
        }
    }
}

/// Somebody who is signed in.
pub(crate) struct Person {
    name: String,
    pub(crate) token: String,
    refresh_token: String,
}

impl Person {
    /// Comes again when told to: a connection that a fault has broken may be met, or a hash be starved by other tests.
    pub(crate) fn sign_up(port: u16, name: &str) -> Self {
        let ask = |path: &str, name: &str, status: u16| {
            let reply = http::exchange(port, "POST", path, "", &credentials(name)).unwrap();
            assert!(reply.status == status || is_told_to_come_again(&reply), "{reply:?}");
            (reply.status == status).then_some(reply)
        };
        // Of a name that was refused there may be an account all the same.
        let mut names =
            iter::once(name.to_owned()).chain((1..).map(|number| format!("{name}-again-{number}")));
        let name = poll(RECOVERY, "a sign-up", || {
            let name = names.next()?;
            ask("/api/v1/auth/register", &name, 201).map(|_| name)
        });
        let reply = poll(RECOVERY, "a sign-in", || ask("/api/v1/auth/login", &name, 200));
        Self { name, token: reply.text("/accessToken"), refresh_token: reply.text("/refreshToken") }
    }
}

fn credentials(name: &str) -> String {
    json!({"email": address(name), "password": PASSWORD}).to_string()
}

fn address(name: &str) -> String {
    format!("{name}@example.com")
}

/// The people and what watches them.
struct Stage<'a> {
    deployment: &'a Deployment,
    progress: &'a Progress,
    mails: MailServer,
    token: String,
    number: u64,
    /// Somebody who has signed out.
    gone: Person,
    /// Who signed up while the mail server was silent.
    newcomers: Vec<String>,
    is_long: bool,
}

impl Stage<'_> {
    fn spend(&mut self, server: usize) -> std::io::Result<Reply> {
        self.number = self.number.saturating_add(1);
        spend(self.deployment.server_port(server), &self.token, &format!("probe-{}", self.number))
    }

    /// While it is away, who comes is told so by each server, and through the balancer, which takes none of them out.
    fn is_refused(&mut self) {
        for server in [0, 1] {
            poll(PATIENCE, "a refusal that says when to come again", || {
                is_told_to_come_again(&self.spend(server).unwrap()).then_some(())
            });
            let port = self.deployment.server_port(server);
            let live = http::exchange(port, "GET", "/health/live", "", "").unwrap();
            assert_eq!(live.status, 200, "it lives");
            // Who is signed in is known by the token and by what is remembered.
            let keys = http::exchange(port, "GET", "/.well-known/jwks.json", "", "").unwrap();
            assert_eq!(keys.status, 200, "what needs no database goes on");
        }
        let refused = poll(PATIENCE, "a refusal through the balancer", || {
            self.number = self.number.saturating_add(1);
            let reply = self.spend_from_a_page(&format!("probe-{}", self.number));
            is_told_to_come_again(&reply).then_some(reply)
        });
        assert_eq!(refused.header("access-control-allow-origin"), PAGE, "the page may read why");
        assert_eq!(self.deployment.get("/.well-known/jwks.json").status, 200);
    }

    /// Through the balancer, as a browser does.
    fn spend_from_a_page(&self, key: &str) -> Reply {
        let body = spend_of(key);
        let port = self.deployment.port();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!(
            "POST {USE} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\norigin: {PAGE}\r\n\
             authorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        http::receive(stream).unwrap()
    }

    /// Nobody notices.
    fn is_served(&mut self) {
        for server in [0, 1] {
            let reply = self.spend(server).unwrap();
            assert_eq!(reply.status, 201, "{reply:?}");
        }
    }

    /// Whatever Redis does, there is an end to what an address may ask for: what Redis counted, and what the process counted without it.
    fn a_limit_holds(&self) {
        for server in [0, 1] {
            let port = self.deployment.server_port(server);
            let body = json!({"email": address("nobody")}).to_string();
            let ask = || http::exchange(port, "POST", "/api/v1/auth/resend-verification", "", &body).unwrap();
            let replies: Vec<_> = (0..RESENDS * 4).map(|_| ask()).collect();
            assert!(replies.iter().all(|reply| reply.status < 500), "nobody is refused: {replies:?}");
            let allowed = replies.iter().filter(|reply| reply.status != 429).count();
            // One of each comes back within 20 seconds.
            assert!(allowed <= 2 * (RESENDS + 1), "never open: {replies:?}");
        }
    }

    fn recovers(&mut self) {
        for server in [0, 1] {
            poll(RECOVERY, "a server that works again by itself", || {
                self.spend(server).is_ok_and(|reply| !is_told_to_come_again(&reply)).then_some(())
            });
            let port = self.deployment.server_port(server);
            poll(RECOVERY, "readiness", || {
                let reply = http::exchange(port, "GET", "/health/ready", "", "").ok()?;
                (reply.status == 200).then_some(())
            });
            let memory = self.metric(server, "process_resident_memory_bytes");
            assert!(memory < MEMORY_BYTES, "server {server} uses {memory} bytes");
        }
    }

    /// What no request waits for goes on as well.
    fn mails_are_sent(&mut self) {
        self.number = self.number.saturating_add(1);
        let guest = Person::sign_up(self.deployment.server_port(0), &format!("guest-{}", self.number));
        poll(MAIL, "a mail", || (self.mails.mails_to(&address(&guest.name)) > 0).then_some(()));
    }

    /// Each one, once.
    fn newcomers_have_their_mail(&self) {
        for newcomer in &self.newcomers {
            poll(MAIL, "a mail that had to wait", || {
                (self.mails.mails_to(&address(newcomer)) > 0).then_some(())
            });
            assert_eq!(self.mails.mails_to(&address(newcomer)), 1, "{newcomer}");
        }
    }

    /// Nobody who has signed out is known again, whatever the time, and what was done is not done again.
    fn nothing_comes_back(&self, server: usize) {
        let port = self.deployment.server_port(server);
        let me = http::exchange(port, "GET", "/api/v1/auth/me", &self.gone.token, "").unwrap();
        assert_eq!(me.status, 401, "{me:?}");
        let body = json!({"refreshToken": self.gone.refresh_token}).to_string();
        let refreshed = http::exchange(port, "POST", "/api/v1/auth/refresh", "", &body).unwrap();
        assert_eq!(refreshed.status, 401, "{refreshed:?}");
        let again = spend(port, &self.token, FIRST).unwrap();
        let is_unknown = again.status == 401 && self.progress.wrong_clock.load(Ordering::SeqCst) == server;
        assert!(is_unknown || again.header("idempotency-hit") == "true", "{again:?}");
    }

    /// As fast as many can, from one address: wrong passwords, forged tokens, questions that cost nothing.
    fn flood(&self, server: usize) {
        let port = self.deployment.server_port(server);
        let begun = Instant::now();
        let questions = [
            ("POST", "/api/v1/auth/login", credentials("nobody").replace(PASSWORD, "a wrong password")),
            ("GET", "/api/v1/auth/me", String::new()),
            ("GET", "/health/ready", String::new()),
        ];
        thread::scope(|scope| {
            for (method, path, body) in questions.iter().cycle().take(FLOODERS) {
                scope.spawn(move || {
                    while begun.elapsed() < FLOOD {
                        let asked = Instant::now();
                        let reply = http::exchange(port, method, path, "a.forged.token", body).unwrap();
                        assert!([200, 401, 429, 503].contains(&reply.status), "{reply:?}");
                        assert!(asked.elapsed() < PATIENCE, "{path}: {:?}", asked.elapsed());
                    }
                });
            }
        });
    }

    fn metric(&self, server: usize, name: &str) -> u64 {
        let metrics = http::exchange(self.deployment.server_port(server), "GET", "/metrics", "", "").unwrap();
        let value = metrics.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    }

    fn redis_is_up(&self, is_up: u64) {
        for server in [0, 1] {
            poll(RECOVERY, "what is said of Redis", || {
                // Whoever asks for something is what asks Redis.
                let port = self.deployment.server_port(server);
                let me = http::exchange(port, "GET", "/api/v1/auth/me", &self.token, "").unwrap();
                assert_eq!(me.status, 200, "{me:?}");
                (self.metric(server, "redis_up") == is_up).then_some(())
            });
        }
    }

    fn suffer(&mut self, fault: Fault, server: usize) {
        let deployment = self.deployment;
        let is_of_redis = matches!(
            fault,
            Fault::RedisPaused
                | Fault::RedisKilled
                | Fault::RedisFlushed
                | Fault::RedisSlow
                | Fault::RedisOld
        );
        self.progress.all_is_there.store(is_of_redis, Ordering::SeqCst);
        match fault {
            Fault::PostgresPaused => self.postgres_stands_still(),
            Fault::PostgresKilled => {
                deployment.kill_postgres();
                self.is_refused();
                deployment.start_postgres();
            }
            Fault::PostgresStopped => {
                deployment.stop_postgres();
                self.is_refused();
                deployment.start_postgres();
            }
            Fault::PostgresReadOnly => self.postgres_is_read_only(),
            Fault::PostgresOutOfConnections => self.postgres_is_out_of_connections(),
            Fault::BouncerKilled => {
                deployment.kill_bouncer();
                self.is_refused();
                deployment.start_bouncer();
            }
            Fault::RedisPaused => {
                deployment.signal_redis("STOP");
                self.redis_is_up(0);
                self.is_served();
                self.a_limit_holds();
                deployment.signal_redis("CONT");
                self.redis_is_up(1);
            }
            Fault::RedisKilled => {
                deployment.kill_redis();
                self.redis_is_up(0);
                self.is_served();
                self.a_limit_holds();
                deployment.start_redis();
                self.redis_is_up(1);
            }
            Fault::RedisFlushed => {
                deployment.flush_redis();
                self.is_served();
            }
            Fault::RedisSlow => self.redis_is_slow(),
            Fault::RedisOld => self.redis_is_old(),
            Fault::NetworkSilent => {
                deployment.network_is_silent(true);
                self.is_refused();
                deployment.network_is_silent(false);
                // Nobody else is refused by a batch that was under way.
                thread::sleep(BATCH_LIMIT);
            }
            Fault::ServerKilled => {
                deployment.take_server(server).kill();
                let other = self.spend(usize::from(server == 0)).unwrap();
                assert_eq!(other.status, 201, "the other serves: {other:?}");
                deployment.start_server(server);
            }
            Fault::SlowBodies => self.bodies_are_slow(server),
            Fault::IdleConnections => self.connections_are_idle(server),
            Fault::Flood => self.many_ask(server),
            Fault::DiskFull => self.disk_is_full(server),
            Fault::ClockSteps => self.suffer_steps(server),
            Fault::MailServerSilent => self.mail_server_is_silent(server),
        }
        if is_of_redis {
            self.a_limit_holds();
            for server in [0, 1] {
                self.nothing_comes_back(server);
            }
        }
        self.recovers();
        // Who has begun to tell a silent mail server something waits for it to the end of its patience. Newcomers are looked at at last.
        if !matches!(fault, Fault::MailServerSilent) {
            self.mails_are_sent();
        }
        self.progress.all_is_there.store(false, Ordering::SeqCst);
    }

    fn postgres_stands_still(&mut self) {
        let deployment = self.deployment;
        let processes = deployment.postgres_processes();
        send_signal("STOP", &processes[..1]);
        let processes = deployment.postgres_processes();
        send_signal("STOP", &processes);
        let begun = Instant::now();
        self.is_refused();
        while self.is_long && begun.elapsed() < LONG_PAUSE {
            self.is_refused();
        }
        send_signal("CONT", &processes);
    }

    fn postgres_is_read_only(&mut self) {
        let deployment = self.deployment;
        let mut superuser = deployment.superuser("mana");
        superuser.run("ALTER SYSTEM SET default_transaction_read_only = on");
        superuser.run("SELECT pg_reload_conf()");
        self.is_refused();
        superuser.run("SET default_transaction_read_only = off");
        superuser.run("ALTER SYSTEM RESET default_transaction_read_only");
        superuser.run("SELECT pg_reload_conf()");
    }

    fn postgres_is_out_of_connections(&mut self) {
        let deployment = self.deployment;
        let mut superuser = deployment.superuser("mana");
        superuser.run("ALTER ROLE mana_service CONNECTION LIMIT 0");
        superuser.end_connections();
        self.is_refused();
        superuser.run("ALTER ROLE mana_service CONNECTION LIMIT -1");
    }

    fn redis_is_slow(&mut self) {
        let deployment = self.deployment;
        let begun = Instant::now();
        while begun.elapsed() < SLOWNESS {
            // Longer than anybody waits for it, and then it answers what was asked meanwhile.
            deployment.ask_redis(&["client", "pause", "200"]);
            let asked = Instant::now();
            self.is_served();
            assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
        }
        self.a_limit_holds();
        self.redis_is_up(1);
    }

    fn redis_is_old(&mut self) {
        let deployment = self.deployment;
        let old = deployment.copy_redis();
        self.is_served();
        deployment.kill_redis();
        self.redis_is_up(0);
        deployment.start_redis_with(&old);
        self.redis_is_up(1);
        self.is_served();
    }

    fn bodies_are_slow(&mut self, server: usize) {
        let deployment = self.deployment;
        let port = deployment.server_port(server);
        let head = format!(
            "POST {USE} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{",
            self.token
        );
        let slow: Vec<_> = (0..100)
            .map(|_| {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(head.as_bytes()).unwrap();
                stream
            })
            .collect();
        self.is_served();
        for stream in slow {
            // Answered or closed, but not kept.
            let reply = receive_to_close(stream);
            assert!(!reply.contains(" 201 "), "{reply}");
        }
    }

    fn connections_are_idle(&mut self, server: usize) {
        let deployment = self.deployment;
        let port = deployment.server_port(server);
        let idle: Vec<_> =
            (0..MAX_CONNECTIONS + 100).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        let reply = self.spend(server).unwrap();
        assert_eq!(reply.status, 201, "silent ones make way in time: {reply:?}");
        drop(idle);
    }

    fn many_ask(&mut self, server: usize) {
        let deployment = self.deployment;
        let port = deployment.server_port(server);
        thread::scope(|scope| {
            let stage = &*self;
            let flood = scope.spawn(move || stage.flood(server));
            while !flood.is_finished() {
                let live = http::exchange(port, "GET", "/health/live", "", "").unwrap();
                assert_eq!(live.status, 200, "it lives");
            }
            flood.join().unwrap();
        });
        self.is_served();
    }

    fn disk_is_full(&mut self, server: usize) {
        let deployment = self.deployment;
        deployment.fill_disk();
        self.is_refused();
        deployment.free_disk();
        poll(RECOVERY, "a PostgreSQL that has room", || {
            deployment.keep_postgres_running();
            self.spend(server).is_ok_and(|reply| reply.status == 201).then_some(())
        });
    }

    fn mail_server_is_silent(&mut self, server: usize) {
        let deployment = self.deployment;
        self.mails.is_silent(true);
        let before = self.mails.kept_waiting();
        for number in 0..3 {
            let begun = Instant::now();
            let newcomer = Person::sign_up(
                deployment.server_port(server),
                &format!("newcomer-{}-{number}", self.number),
            );
            assert!(begun.elapsed() < SIGN_UP, "{:?}", begun.elapsed());
            self.newcomers.push(newcomer.name);
        }
        poll(PATIENCE, "a mail that waits", || (self.mails.kept_waiting() > before).then_some(()));
        self.is_served();
        self.mails.is_silent(false);
    }
}

impl Stage<'_> {
    /// A clock that steps forth and back while its server runs, and is wrong when it starts, which is when it looks for what
    /// may be deleted.
    fn suffer_steps(&mut self, server: usize) {
        let (deployment, other) = (self.deployment, usize::from(server == 0));
        // An attempt at a mail that ends tomorrow is repeated after that, by which time nobody would wait for it.
        self.newcomers_have_their_mail();
        self.progress.wrong_clock.store(server, Ordering::SeqCst);
        for seconds in [HOUR, -HOUR, DAY, -DAY] {
            deployment.step_clock(server, seconds);
            if seconds.abs() == DAY {
                deployment.take_server(server).kill();
                deployment.start_server(server);
            }
            for server in [server, other] {
                self.nothing_comes_back(server);
            }
            let reply = self.spend(other).unwrap();
            assert_eq!(reply.status, 201, "the other serves: {reply:?}");
        }
        deployment.step_clock(server, 0);
        self.progress.wrong_clock.store(NONE, Ordering::SeqCst);
        self.is_served();
        for server in [server, other] {
            self.nothing_comes_back(server);
        }
    }
}

/// The day of wallets, as PostgreSQL sees it.
fn today(deployment: &Deployment) -> i32 {
    let days: Vec<(i32,)> =
        deployment.superuser("mana").rows("SELECT (now() AT TIME ZONE 'UTC')::date - date '2000-01-01'");
    days[0].0
}

/// What clients were told is in the books once.
pub(crate) fn none_is_lost_or_doubled(deployment: &Deployment, acknowledged: &[String]) {
    let in_books: Vec<(String, i64)> = deployment.superuser("mana").rows(
        "SELECT idempotency_key, count(*) FROM credits.transactions
         WHERE type = 'usage' AND idempotency_key LIKE 'client%' GROUP BY 1",
    );
    assert!(in_books.iter().all(|(_, times)| *times == 1), "none twice");
    let in_books: HashSet<_> = in_books.into_iter().map(|(key, _)| key).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|key| !in_books.contains(*key)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    eprintln!("{} spends acknowledged, none lost, none doubled", acknowledged.len());
}

/// Goes through faults, and says how.
fn endure(seed: u64, rounds: usize, faults: &[Fault], is_long: bool) {
    eprintln!("seed {seed}");
    let mut dice = Dice(seed | 1);
    let mails = MailServer::start();
    let mail_port = mails.port.to_string();
    let of_mails = [("SMTP_HOST", "127.0.0.1"), ("SMTP_PORT", &mail_port), ("SMTP_TLS", "none")];
    let mut settings = SETTINGS.to_vec();
    settings.extend(of_mails.into_iter().chain([("SMTP_FROM", "mana@example.com")]));
    let deployment = Deployment::start_fragile(10, &settings);
    let port = deployment.server_port(0);
    let tokens: Vec<_> =
        (0..CLIENTS).map(|client| Person::sign_up(port, &format!("client{client}")).token).collect();
    let gone = Person::sign_up(port, "gone");
    let out = http::exchange(port, "POST", "/api/v1/auth/logout", &gone.token, "").unwrap();
    assert_eq!(out.status, 200, "{out:?}");
    let token = Person::sign_up(port, "probe").token;
    // The mana of a day is due to everybody.
    deployment.superuser("mana").run("UPDATE credits.balances SET daily_granted_on = daily_granted_on - 1");
    let begun_on = today(&deployment);
    assert_eq!(spend(port, &token, FIRST).unwrap().status, 201);
    let progress = Progress::none();
    let mut stage = Stage {
        deployment: &deployment,
        progress: &progress,
        mails,
        token,
        number: 0,
        gone,
        newcomers: Vec::new(),
        is_long,
    };
    let done = &progress.done;
    let acknowledged: Vec<String> = thread::scope(|scope| {
        let clients: Vec<_> = tokens
            .iter()
            .enumerate()
            .map(|(client, token)| {
                let (deployment, progress) = (&deployment, &progress);
                scope.spawn(move || live(deployment, token, &format!("client{client}"), progress))
            })
            .collect();
        // Whatever fails here, the clients are let go: else the test would wait for them for ever.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..rounds {
                for fault in dice.shuffled(faults) {
                    let (begun, before) = (Instant::now(), done.load(Ordering::Relaxed));
                    let server = dice.roll(2);
                    eprintln!("round {round}: {fault:?}");
                    stage.suffer(fault, server);
                    poll(RECOVERY, "spends after the fault", || {
                        (done.load(Ordering::Relaxed) > before.saturating_add(10)).then_some(())
                    });
                    deployment.books_are_true();
                    let spends = done.load(Ordering::Relaxed).saturating_sub(before);
                    eprintln!("    {spends} spends meanwhile, {:.1?}", begun.elapsed());
                }
            }
        }));
        progress.is_over.store(true, Ordering::Relaxed);
        let acknowledged = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        if let Err(cause) = outcome {
            std::panic::resume_unwind(cause);
        }
        acknowledged
    });
    none_is_lost_or_doubled(&deployment, &acknowledged);
    let days: Vec<(i64,)> = deployment.superuser("mana").rows(
        "SELECT count(*) FROM credits.transactions WHERE description = 'Daily free credits' GROUP BY wallet_id",
    );
    let passed = i64::from(today(&deployment).saturating_sub(begun_on)).saturating_add(1);
    assert!(days.len() > CLIENTS, "everybody who spent has had it: {days:?}");
    assert!(days.iter().all(|(times,)| (1..=passed).contains(times)), "and once a day: {days:?}");
    stage.newcomers_have_their_mail();
}

#[test]
fn whatever_fails_is_answered_for_and_nothing_is_lost() {
    let mut seed = [0; 8];
    SystemRng.fill(&mut seed);
    endure(u64::from_le_bytes(seed), 1, &ALL, false);
}

#[test]
#[ignore = "takes as long as one wants: cargo xtask chaos"]
#[expect(clippy::disallowed_methods, reason = "how cargo xtask tells a test its plan")]
fn the_long_version() {
    let plan = std::env::var("MANA_CHAOS").unwrap();
    let [rounds, seed, names] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let is_named = |fault: &Fault| names.split(' ').any(|name| name == format!("{fault:?}"));
    let faults: Vec<_> = match names {
        "" => ALL.to_vec(),
        _ => ALL.into_iter().filter(is_named).collect(),
    };
    assert!(!faults.is_empty(), "there is {ALL:?}");
    endure(seed.parse().unwrap(), rounds.parse().unwrap(), &faults, true);
}
