//! How soon a session that ended on one server is refused by another, with everything running as in production.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Home, Launch, Server, poll};
use mana_testkit::RedisServer;
use serde_json::json;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

/// A second, as promised, and what a busy machine may add: to most of a few, and to any of them.
const SOON: Duration = Duration::from_millis(2_500);
const AT_LAST: Duration = Duration::from_secs(5);
/// Until what was lost is found again.
const RECOVERY: Duration = Duration::from_mins(1);

fn server(home: &Home, cluster: &Cluster) -> Launch {
    home.serve()
        .env("DATABASE_URL", cluster.service_url("mana"))
        .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .env("RATE_LIMIT_MAX", "0")
}

fn takes(server: &Server, token: &str) -> bool {
    let reply = server.post("/api/v1/auth/validate", &json!({"token": token}));
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["valid"] == true
}

/// The sum of a metric on a server.
fn metric(server: &Server, name: &str) -> u64 {
    let metrics = server.get("/metrics").body;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
}

fn await_bell(server: &Server, is_up: u64) {
    poll(RECOVERY, "what is said of the bell", || (metric(server, "session_bell_up") == is_up).then_some(()));
}

/// Signs in here, so that the session is remembered there, and out again; says how long it goes on there.
fn sign_out_reaches(here: &Server, there: &Server) -> Duration {
    let login = here.login("ada@example.com");
    let token = login.text("/accessToken");
    for _ in 0..50 {
        assert!(takes(there, &token), "remembered by now");
    }
    let body = json!({"refreshToken": login.text("/refreshToken")});
    assert_eq!(here.post("/api/v1/auth/logout", &body).status, 200);
    let ended = Instant::now();
    assert!(!takes(here, &token), "at once where it was signed out");
    loop {
        let asked = ended.elapsed();
        if !takes(there, &token) {
            return ended.elapsed();
        }
        assert!(asked < AT_LAST, "still taken after {asked:?}");
    }
}

/// The median of so many sign-outs, and the slowest.
fn pace(here: &Server, there: &Server, times: usize) -> (Duration, Duration) {
    let mut paces: Vec<_> = (0..times).map(|_| sign_out_reaches(here, there)).collect();
    paces.sort_unstable();
    assert!(paces[times.div_euclid(2)] < SOON, "{paces:?}");
    (paces[times.div_euclid(2)], *paces.last().unwrap())
}

/// Rings so many times, as anybody may who reaches Redis.
fn forge(redis: &RedisServer, times: usize) {
    let mut stream = UnixStream::connect(redis.url().strip_prefix("unix://").unwrap()).unwrap();
    let forged = "PUBLISH mana:sessions:ended everybody\r\n".repeat(times);
    let answers = stream.try_clone().unwrap();
    let reader = thread::spawn(move || {
        let mut answers = BufReader::new(answers).lines();
        (0..times).for_each(|_| drop(answers.next().unwrap().unwrap()));
    });
    stream.write_all(forged.as_bytes()).unwrap();
    reader.join().unwrap();
}

#[test]
fn a_sign_out_on_one_server_reaches_the_other_within_a_second() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let (here, there) = (server(&home, &cluster).start(), server(&home, &cluster).start());
    here.register("ada@example.com");
    pace(&here, &there, 3);
}

#[test]
fn a_server_that_can_t_follow_what_ends_does_not_go_by_memory() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let server = server(&home, &cluster).start();
    server.register("ada@example.com");
    let token = server.login("ada@example.com").text("/accessToken");
    assert!(takes(&server, &token));
    let mut owner = cluster.owner("mana");
    owner.run("REVOKE SELECT ON auth.revocations FROM mana_service");
    thread::sleep(SOON);
    assert!(takes(&server, &token), "it reads");
    owner.run("UPDATE auth.sessions SET revoked_at = now(), revoked_reason = 'by hand'");
    assert!(!takes(&server, &token));
}

#[test]
fn with_redis_servers_ring_for_each_other_and_without_it_look_in_turn() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let mut redis = RedisServer::start();
    let launch = || server(&home, &cluster).env("REDIS_URL", redis.url()).env("REDIS_WAIT_MS", "1000");
    let (here, there) = (launch().start(), launch().start());
    let both = [&here, &there];
    for server in both {
        await_bell(server, 1);
    }
    here.register("ada@example.com");
    let heard = metric(&there, "session_bell_heard_total");
    let (median, slowest) = pace(&here, &there, 15);
    eprintln!("with Redis a sign-out reaches the other server after {median:.1?}, {slowest:.1?} at most");
    assert!(metric(&there, "session_bell_heard_total") > heard);

    let told_before = there.stderr().len();
    redis.kill();
    for server in both {
        await_bell(server, 0);
    }
    let (median, slowest) = pace(&here, &there, 15);
    eprintln!("without Redis a sign-out reaches the other server after {median:.1?}, {slowest:.1?} at most");
    redis.restart();
    for server in both {
        await_bell(server, 1);
    }
    let heard = metric(&there, "session_bell_heard_total");
    sign_out_reaches(&here, &there);
    poll(RECOVERY, "a bell that is heard again", || {
        (metric(&there, "session_bell_heard_total") > heard).then_some(())
    });
    // A Redis that took a second for an answer was told of before.
    let log = there.stderr().split_off(told_before);
    for once in ["Redis does not tell of ended sessions", "Redis tells of ended sessions again"] {
        assert_eq!(log.matches(once).count(), 1, "{once}: {log}");
    }
}

#[test]
fn a_flood_of_forged_rings_makes_no_more_looks_than_there_may_be_and_ends_nothing() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let redis = RedisServer::start();
    let server = server(&home, &cluster).env("REDIS_URL", redis.url()).start();
    await_bell(&server, 1);
    server.register("ada@example.com");
    let token = server.login("ada@example.com").text("/accessToken");
    // How many looks are made while it is rung, and how many there may be: ten a second for that, four in turn, and what begins and ends with them.
    let looks_while = |ring: &dyn Fn()| {
        let (begun, before) = (Instant::now(), metric(&server, "session_looks_total"));
        while begun.elapsed() < Duration::from_secs(3) {
            ring();
        }
        let (looks, tenths) =
            (metric(&server, "session_looks_total") - before, begun.elapsed().as_millis().div_ceil(100));
        let most = u64::try_from(tenths + (tenths * 4).div_ceil(10) + 3).unwrap();
        assert!(looks <= most, "{looks} looks in {tenths} tenths of a second");
        looks
    };
    let idle = looks_while(&|| thread::sleep(Duration::from_millis(10)));
    let heard = metric(&server, "session_bell_heard_total");
    let rung = looks_while(&|| {
        forge(&redis, 10);
        thread::sleep(Duration::from_millis(10));
    });
    assert!(metric(&server, "session_bell_heard_total") > heard + 100, "the control: they came");
    assert!(rung > idle, "the control: they are looked at: {rung}, idle {idle}");
    assert!(takes(&server, &token), "they say nothing of anybody");

    looks_while(&|| forge(&redis, 20_000));
    // It listens again now and then, and stays if it does so when the last flood ebbs.
    poll(RECOVERY, "a bell that is hung up", || {
        forge(&redis, 20_000);
        (metric(&server, "session_bell_up") == 0).then_some(())
    });
    assert!(server.stderr().contains("a flood of it"), "it hung up");
    assert!(takes(&server, &token));
    await_bell(&server, 1);
}
