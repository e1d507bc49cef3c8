//! What a spend is answered while its database stands still, takes no writes, or is cut off in the middle of a commit.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::http::{self, PASSWORD, Reply};
use crate::process::{Home, Server, poll};
use crate::torture::{is_replay, ledger_server, owner_of_wallet, spend, spend_under, spend_until_done};
use crate::wire::{Cut, Proxy};
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const USE: &str = "/api/v1/credits/use";
const SERVICE_KEY: &str = "a-service-key-of-the-environment";
const LIMIT: Duration = Duration::from_secs(20);
/// What a spend waits for a connection where it waits.
const DATABASE_WAIT: Duration = Duration::from_secs(20);

pub(crate) fn is_told_to_come_again(reply: &Reply) {
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.header("retry-after").parse::<u32>().is_ok(), "{reply:?}");
}

/// Connections that were cut are met one by one.
fn spent(server: &Server, token: &str) -> i64 {
    let balance = poll(LIMIT, "a balance", || {
        let reply = server.get_as(token, "/api/v1/credits/balance");
        if reply.status != 200 {
            is_told_to_come_again(&reply);
            return None;
        }
        Some(reply.json())
    });
    balance["totalSpent"].as_i64().unwrap()
}

#[test]
fn a_database_that_stands_still_is_answered_for_in_time_and_work_resumes_by_itself() {
    const SPENDS: u32 = 300;
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let direct = ledger_server(&home, &cluster).start();
    let token = owner_of_wallet(&direct, "ada@example.com");
    direct.kill();
    let server = ledger_server(&home, &cluster).env("REQUEST_TIMEOUT_SECONDS", "1").start();
    let metric = |name: &str| -> u32 {
        let metrics = server.get("/metrics").body;
        metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap()
    };
    let orders_waiting = || metric("ledger_orders_waiting");
    // The first look forgets who was found signed in before; whoever is remembered gets as far as the queue without a database.
    poll(LIMIT, "a second look for ended sessions", || (metric("session_looks_total") > 1).then_some(()));
    spend_until_done(server.port, &token, "before");

    let begun = Instant::now();
    let pause = cluster.pause();
    let send =
        |spend: u32| http::send(server.port, "POST", USE, &token, &spend_under(&spend.to_string())).unwrap();
    let first = send(0);
    let first_after = begun.elapsed();
    let others: Vec<_> = (1..SPENDS).map(send).collect();
    for stream in [first].into_iter().chain(others) {
        is_told_to_come_again(&http::receive(stream).unwrap());
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(server.get("/health/live").status, 200);
    // Who is signed in is remembered for a second after the last look for ended sessions; then nobody gets as far as the queue.
    let is_remembered = first_after < Duration::from_millis(500);
    let waiting = orders_waiting();
    assert!(waiting <= SPENDS && (waiting > 0 || !is_remembered), "{waiting}, first after {first_after:?}");
    drop(pause);

    for spend in 0..SPENDS {
        spend_until_done(server.port, &token, &spend.to_string());
    }
    poll(LIMIT, "an empty queue", || (orders_waiting() == 0).then_some(()));
    assert_eq!(spent(&server, &token), i64::from(SPENDS) + 1);
    cluster.books_are_true("mana");
}

#[test]
fn a_form_whose_commit_was_cut_off_promises_nothing_and_its_link_tells_what_became_of_it() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let proxy = Proxy::start(cluster.socket_folder().join(".s.PGSQL.5432"));
    let server = ledger_server(&home, &cluster).start();
    let printed = home
        .command(&["admin", "claim-link"])
        .env("DATABASE_URL", cluster.service_url("mana"))
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .run()
        .succeeded();
    let (_, token) = printed.trim().split_once("token=").unwrap();
    server.kill();
    let server = ledger_server(&home, &cluster).env("DATABASE_URL", proxy.service_url("mana")).start();
    let form = format!("token={token}&email=root@example.com&password={}", PASSWORD.replace(' ', "+"));
    let claim = || {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let length = form.len();
        write!(
            stream,
            "POST /claim-admin HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\naccept: text/html\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\r\n{form}"
        )
        .unwrap();
        http::receive(stream).unwrap()
    };
    proxy.cut(Cut::AfterCommit, "root@example.com");
    let unsure = claim();
    is_told_to_come_again(&unsure);
    assert!(unsure.body.contains("not certain whether this was done"), "{unsure:?}");
    assert!(unsure.body.contains("no longer works has done what it is for"), "{unsure:?}");
    assert!(!proxy.is_waiting(), "it was cut");
    let void = poll(LIMIT, "an answer to the form", || Some(claim()).filter(|reply| reply.status != 503));
    assert_eq!(void.status, 404, "it was done: {void:?}");
}

#[test]
fn a_connection_that_is_cut_around_a_commit_leaves_an_outcome_to_be_found() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let proxy = Proxy::start(cluster.socket_folder().join(".s.PGSQL.5432"));
    let direct = ledger_server(&home, &cluster).start();
    let token = owner_of_wallet(&direct, "ada@example.com");
    direct.kill();
    let server = ledger_server(&home, &cluster).env("DATABASE_URL", proxy.service_url("mana")).start();

    for (number, (cut, key)) in (1..).zip([
        (Cut::BeforeCommit, "cut-before-1"),
        (Cut::AfterCommit, "cut-after-1"),
        (Cut::AfterCommit, "cut-after-2"),
    ]) {
        proxy.cut(cut, key);
        is_told_to_come_again(&spend(server.port, &token, key).unwrap());
        assert!(!proxy.is_waiting(), "it was cut");
        let found = spend(server.port, &token, key).unwrap();
        assert_eq!(found.status, 201, "{found:?}");
        assert_eq!(is_replay(&found), cut == Cut::AfterCommit, "{cut:?}: {found:?}");
        assert_eq!(spend(server.port, &token, key).unwrap().body, found.body);
        assert_eq!(spent(&server, &token), number, "{cut:?}");
    }

    // Others that share the commit, too.
    proxy.cut(Cut::AfterCommit, "shared");
    let sent: Vec<_> = (0..40)
        .map(|spend| {
            http::send(server.port, "POST", USE, &token, &spend_under(&format!("shared-{spend}"))).unwrap()
        })
        .collect();
    let replies: Vec<_> = sent.into_iter().map(|stream| http::receive(stream).unwrap()).collect();
    assert!(replies.iter().all(|reply| [201, 503].contains(&reply.status)), "{replies:?}");
    for (spend, reply) in replies.iter().enumerate() {
        let found = crate::torture::spend(server.port, &token, &format!("shared-{spend}")).unwrap();
        assert_eq!((found.status, is_replay(&found)), (201, true), "done, acknowledged or not: {found:?}");
        assert!(reply.status == 503 || reply.body == found.body);
    }
    assert!(!proxy.is_waiting() && replies.iter().any(|reply| reply.status == 503));
    assert_eq!(spent(&server, &token), 43);
    cluster.books_are_true("mana");
}

#[test]
fn a_connection_that_falls_silent_holds_its_shard_up_for_seconds_and_nothing_is_lost() {
    /// A batch's own limit, and some.
    const BOUND: Duration = Duration::from_secs(30);
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let proxy = Proxy::start(cluster.socket_folder().join(".s.PGSQL.5432"));
    let direct = ledger_server(&home, &cluster).env("REQUEST_TIMEOUT_SECONDS", "30").start();
    let tokens: Vec<_> =
        (0..6).map(|owner| owner_of_wallet(&direct, &format!("owner{owner}@example.com"))).collect();
    direct.kill();
    let server = ledger_server(&home, &cluster).env("DATABASE_URL", proxy.service_url("mana")).start();

    for (cut, key) in [
        (Cut::SilentInBatch, "silent-in-batch"),
        (Cut::SilentBeforeCommit, "silent-before-commit"),
        (Cut::SilentAfterCommit, "silent-after-commit"),
    ] {
        proxy.cut(cut, key);
        let begun = Instant::now();
        // In one batch or in several, behind the one that is met.
        let sent: Vec<_> = tokens
            .iter()
            .map(|token| http::send(server.port, "POST", USE, token, &spend_under(key)).unwrap())
            .collect();
        let replies: Vec<_> = sent.into_iter().map(|stream| http::receive(stream).unwrap()).collect();
        assert!(!proxy.is_waiting(), "{cut:?}: a connection fell silent");
        assert!(replies.iter().any(|reply| reply.status == 503), "{cut:?}: {replies:?}");
        assert!(replies.iter().all(|reply| [201, 503].contains(&reply.status)), "{cut:?}: {replies:?}");
        assert_eq!(server.get("/health/live").status, 200);
        for (token, reply) in tokens.iter().zip(&replies) {
            let found = spend_until_done(server.port, token, key);
            assert!(reply.status == 503 || (is_replay(&found) && found.body == reply.body), "{cut:?}");
        }
        assert!(begun.elapsed() < BOUND, "{cut:?}: {:?}", begun.elapsed());
    }
    for token in &tokens {
        assert_eq!(spent(&server, token), 3);
    }
    cluster.books_are_true("mana");
}

#[test]
fn a_login_or_a_database_that_is_being_replaced_is_away_for_a_while_and_no_defect() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let server = ledger_server(&home, &cluster).start();
    let token = owner_of_wallet(&server, "ada@example.com");
    let mut owner = cluster.owner("postgres");
    for (number, (away, back)) in (1..).zip([
        ("SELECT 1", "ALTER ROLE mana_service LOGIN"),
        (
            "ALTER DATABASE mana RENAME TO aside; ALTER ROLE mana_service LOGIN",
            "ALTER DATABASE aside RENAME TO mana",
        ),
    ]) {
        owner.run("ALTER ROLE mana_service NOLOGIN");
        owner.end_connections();
        // Each in a statement of its own: no transaction may be around a rename.
        for statement in away.split("; ") {
            owner.run(statement);
        }
        let key = format!("spend-{number}");
        is_told_to_come_again(&spend(server.port, &token, &key).unwrap());
        owner.run(back);
        assert!(!is_replay(&spend_until_done(server.port, &token, &key)), "nothing was done before");
        assert_eq!(spent(&server, &token), number);
    }
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("database_errors_total{kind=\"connection\"}"), "{metrics}");
    assert!(!metrics.contains("database_errors_total{kind=\"other\"}"), "{metrics}");
}

#[test]
fn a_database_that_takes_no_writes_is_answered_for_and_nothing_is_half_written() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let server = ledger_server(&home, &cluster).start();
    let token = owner_of_wallet(&server, "ada@example.com");
    cluster.alter("SET default_transaction_read_only = on");
    let mut done = 0;
    // Each of the server's connections hears of it when it next has something to do.
    poll(LIMIT, "a refusal", || {
        let reply = spend(server.port, &token, &done.to_string()).unwrap();
        if reply.status == 201 {
            done += 1;
            return None;
        }
        is_told_to_come_again(&reply);
        Some(())
    });
    let refused = done.to_string();
    is_told_to_come_again(&spend(server.port, &token, &refused).unwrap());
    assert_eq!(spent(&server, &token), done);
    cluster.books_are_true("mana");

    cluster.alter("RESET default_transaction_read_only");
    assert!(!is_replay(&spend_until_done(server.port, &token, &refused)), "nothing was done before");
    assert_eq!(spent(&server, &token), done + 1);
    cluster.books_are_true("mana");
}

/// A spend by a service key: to know who asks, the server needs no database.
fn send_as_app(server: &Server, user: &str, key: &str) -> TcpStream {
    let mut body: Value = spend_under(key).parse().unwrap();
    body["userId"] = json!(user);
    let body = body.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(DATABASE_WAIT.saturating_mul(2))).unwrap();
    let length = body.len();
    let head = format!(
        "POST {USE} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-service-key: {SERVICE_KEY}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn a_spend_waits_while_the_database_lets_nobody_in_for_a_moment() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let server = ledger_server(&home, &cluster)
        .env("DATABASE_WAIT_SECONDS", DATABASE_WAIT.as_secs().to_string())
        .env("REQUEST_TIMEOUT_SECONDS", "30")
        .env("MANA_CORE_SERVICE_KEY", SERVICE_KEY)
        .start();
    let user = server.register("ada@example.com").text("/user/id");
    let mut owner = cluster.owner("postgres");
    let before = http::receive(send_as_app(&server, &user, "before")).unwrap();
    assert_eq!(before.status, 201, "{}", before.body);
    owner.run("ALTER ROLE mana_service CONNECTION LIMIT 0");
    owner.end_connections();
    // The first finds that the connection was cut; or, on a machine that took seconds, that it no longer answers, and waits in vain.
    is_told_to_come_again(&http::receive(send_as_app(&server, &user, "cut")).unwrap());
    let waiting = send_as_app(&server, &user, "waits");
    poll(LIMIT, "an order that waits", || {
        server.get("/metrics").body.contains("ledger_orders_waiting 1\n").then_some(())
    });
    owner.run("ALTER ROLE mana_service CONNECTION LIMIT -1");
    let reply = http::receive(waiting).unwrap();
    assert_eq!(reply.status, 201, "{}", reply.body);
    cluster.books_are_true("mana");
}

#[test]
fn a_shard_that_connected_where_nothing_was_to_be_written_works_again_without_a_restart() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let server = &ledger_server(&home, &cluster).start();
    let token = owner_of_wallet(server, "ada@example.com");
    // Many connections, each of which will have been cut.
    thread::scope(|scope| {
        for user in 0..8 {
            scope.spawn(move || server.register(&format!("user{user}@example.com")));
        }
    });
    let mut owner = cluster.owner("postgres");
    // Unlike with a setting of the whole server, sessions that are open do not hear of its end.
    owner.run("ALTER DATABASE mana SET default_transaction_read_only = on");
    owner.end_connections();
    poll(LIMIT, "a refusal for this reason", || {
        is_told_to_come_again(&spend(server.port, &token, "refused").unwrap());
        server.get("/metrics").body.contains("database_errors_total{kind=\"read_only\"}").then_some(())
    });
    owner.run("ALTER DATABASE mana RESET default_transaction_read_only");
    assert!(!is_replay(&spend_until_done(server.port, &token, "refused")), "nothing was done before");
    for number in 0..20 {
        let reply = spend(server.port, &token, &format!("after-{number}")).unwrap();
        assert_eq!(reply.status, 201, "{reply:?}");
        thread::sleep(Duration::from_millis(50));
    }
    cluster.books_are_true("mana");
}
