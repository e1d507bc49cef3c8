//! A stop lets what was begun finish, and leaves nothing running.

use crate::cluster::Sql;
use crate::http::{self, PASSWORD};
use crate::process::{Home, STOP_LIMIT, poll};
use serde_json::json;
use std::net::TcpStream;
use std::time::Duration;

const LOGINS: usize = 8;

#[test]
fn a_stop_lets_requests_in_flight_finish() {
    let home = Home::new();
    for signal in ["TERM", "INT"] {
        // Many sign-ins to one account at once are else what a guesser does.
        let server = home
            .dev()
            .env("SIGN_IN_FREE_FAILURES", "100")
            .env("HASHING_WAIT_SECONDS", "30")
            .env("SHUTDOWN_TIMEOUT_SECONDS", "60")
            .start();
        let email = format!("ada-{}@example.com", signal.to_lowercase());
        server.register(&email);
        // As browsers open them in advance: no request on one, one that is done on the other.
        let silent = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        // Nobody gets a session until this is over.
        let mut owner = Sql::of_dev(&home.data());
        owner.run("BEGIN; LOCK TABLE auth.sessions IN ACCESS EXCLUSIVE MODE");
        let body = json!({"email": email, "password": PASSWORD}).to_string();
        let logins: Vec<_> = (0..LOGINS)
            .map(|_| http::send(server.port, "POST", "/api/v1/auth/login", "", &body).unwrap())
            .collect();
        // The one more is that which asks.
        let all = format!("http_requests_in_flight {}\n", LOGINS.saturating_add(1));
        poll(Duration::from_secs(20), "all logins in flight", || {
            server.get("/metrics").body.contains(&all).then_some(())
        });

        server.signal(signal);
        poll(STOP_LIMIT, "a closed door for new requests", || {
            TcpStream::connect(("127.0.0.1", server.port)).is_err().then_some(())
        });
        owner.run("COMMIT");
        for login in logins {
            let reply = http::receive(login).unwrap();
            assert_eq!(reply.status, 200, "{}", reply.body);
            assert!(!reply.text("/accessToken").is_empty());
        }
        drop(owner);
        server.ends_well();
        assert!(home.is_quiet(), "PostgreSQL outlived the server");
        drop(silent);
    }
}

#[test]
fn a_second_signal_does_not_wait_for_requests() {
    let home = Home::new();
    // What would end it without a second signal.
    let server =
        home.dev().env("SHUTDOWN_TIMEOUT_SECONDS", "120").env("REQUEST_TIMEOUT_SECONDS", "120").start();
    server.register("ada@example.com");
    let mut owner = Sql::of_dev(&home.data());
    owner.run("BEGIN; LOCK TABLE auth.sessions IN ACCESS EXCLUSIVE MODE");
    let body = json!({"email": "ada@example.com", "password": PASSWORD}).to_string();
    let login = http::send(server.port, "POST", "/api/v1/auth/login", "", &body).unwrap();
    await_waiting(&mut owner, 1);
    server.signal("INT");
    poll(STOP_LIMIT, "a closed door for new requests", || {
        TcpStream::connect(("127.0.0.1", server.port)).is_err().then_some(())
    });
    server.signal("INT");
    server.ends_well();
    assert!(home.is_quiet());
    drop((login, owner));
}

#[test]
fn who_hangs_up_while_waiting_for_a_lock_leaves_nothing_in_the_database() {
    let home = Home::new();
    // Fewer places than clients that come.
    let server = home
        .dev()
        .env("DATABASE_MAX_CONNECTIONS", "6")
        .env("SIGN_IN_FREE_FAILURES", "100")
        .env("HASHING_WAIT_SECONDS", "30")
        .start();
    server.register("ada@example.com");
    let mut owner = Sql::of_dev(&home.data());
    owner.run("BEGIN; LOCK TABLE auth.sessions IN ACCESS EXCLUSIVE MODE");
    let body = json!({"email": "ada@example.com", "password": PASSWORD}).to_string();
    for _ in 0..2 {
        let login = || http::send(server.port, "POST", "/api/v1/auth/login", "", &body).unwrap();
        let logins: Vec<_> = (0..3).map(|_| login()).collect();
        await_waiting(&mut owner, 3);
        drop(logins);
        // While the lock is still held.
        await_waiting(&mut owner, 0);
    }
    owner.run("COMMIT");
    drop(owner);
    assert!(!server.login("ada@example.com").text("/accessToken").is_empty());
}

/// Until so many sign-ins wait for a lock in PostgreSQL: what the server does by itself, at its start and then each hour, only reads there.
fn await_waiting(owner: &mut Sql, number: i64) {
    poll(Duration::from_secs(20), "who waits for a lock", || {
        let waiting: Vec<(i64,)> =
            owner.rows("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode <> 'AccessShareLock'");
        (waiting[0].0 == number).then_some(())
    });
}
