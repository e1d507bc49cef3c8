//! A flood of sign-ins costs no more than those whose clients still wait for them.

use crate::http::{self, PASSWORD};
use crate::process::{Home, Server, poll};
use serde_json::json;
use std::net::TcpStream;
use std::time::Duration;

const LOGIN: &str = "/api/v1/auth/login";
/// Many more than one thread hashes before their sockets are closed.
const FLOOD: u32 = 400;
const LIMIT: Duration = Duration::from_secs(20);

fn metric(server: &Server, name: &str) -> u32 {
    let metrics = server.get("/metrics").body;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_default()
}

#[test]
fn who_hangs_up_leaves_the_queue_and_is_not_hashed() {
    let home = Home::new();
    let server = home
        .dev()
        .env("HASHING_THREADS", "1")
        .env("HASHING_WAIT_SECONDS", "60")
        .env("REQUEST_TIMEOUT_SECONDS", "120")
        .env("RATE_LIMIT_MAX", "0")
        .start();
    server.register("ada@example.com");
    let hashed_before = metric(&server, "password_hashing_wait_seconds_count");
    // Each for an account of its own: attempts at one would have to wait, and not for the hash.
    let flood: Vec<TcpStream> = (0..FLOOD)
        .map(|number| {
            let body = json!({"email": format!("nobody-{number}@example.com"), "password": PASSWORD});
            http::send(server.port, "POST", LOGIN, "", &body.to_string()).unwrap()
        })
        .collect();
    let waiting = poll(LIMIT, "sign-ins that wait for their turn", || {
        Some(metric(&server, "password_hashing_waiting")).filter(|waiting| *waiting > 0)
    });
    drop(flood);
    poll(LIMIT, "an empty queue", || (metric(&server, "password_hashing_waiting") == 0).then_some(()));
    let hashed = metric(&server, "password_hashing_wait_seconds_count") - hashed_before;
    assert!(hashed < FLOOD / 2, "{hashed} of {FLOOD}, of whom {waiting} were seen waiting");

    server.login("ada@example.com");
    let by_then = metric(&server, "password_hashing_wait_seconds_count") - hashed_before;
    assert_eq!(by_then, hashed + 1, "those who went are not hashed later either");
    server.stop("TERM");
}
