//! What is answered while the database is slow, and while all connections to it are taken.

use crate::cluster::Cluster;
use crate::faults::is_told_to_come_again;
use crate::http::{self, PASSWORD, Reply};
use crate::process::{Home, poll};
use crate::torture::{ledger_server, owner_of_wallet, spend, spend_under, spend_until_done};
use crate::wire::Proxy;
use serde_json::json;
use std::time::{Duration, Instant};

const USE: &str = "/api/v1/credits/use";
const BALANCE: &str = "/api/v1/credits/balance";
const LOGIN: &str = "/api/v1/auth/login";
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_slow_database_makes_all_slow_then_refuses_in_time_and_loses_nothing() {
    const SPENDS: usize = 20;
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let proxy = Proxy::start(cluster.socket_folder().join(".s.PGSQL.5432"));
    let server = ledger_server(&home, &cluster).env("DATABASE_URL", proxy.service_url("mana")).start();
    let token = owner_of_wallet(&server, "ada@example.com");
    let spend_all = |name: &str| -> Vec<Reply> {
        let sent: Vec<_> = (0..SPENDS)
            .map(|number| {
                http::send(server.port, "POST", USE, &token, &spend_under(&format!("{name}-{number}")))
                    .unwrap()
            })
            .collect();
        sent.into_iter().map(|stream| http::receive(stream).unwrap()).collect()
    };

    // A tenth of a second for each answer: nothing fails, and what waits together is done together.
    proxy.delay(Duration::from_millis(100));
    let begun = Instant::now();
    let replies = spend_all("slow");
    assert!(replies.iter().all(|reply| reply.status == 201), "{replies:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "one after the other, not together: {:?}",
        begun.elapsed()
    );
    // It asks for more than others, within the same limit.
    proxy.delay(Duration::from_millis(30));
    server.register("bob@example.com");
    proxy.delay(Duration::from_millis(100));
    let bob = server.login("bob@example.com");
    assert_eq!(
        server.post("/api/v1/auth/refresh", &json!({"refreshToken": bob.text("/refreshToken")})).status,
        200
    );
    assert_eq!(server.get_as(&token, BALANCE).json()["totalSpent"], SPENDS);

    // More than a request may take.
    proxy.delay(Duration::from_millis(1_500));
    let begun = Instant::now();
    let replies = spend_all("slower");
    replies.iter().for_each(is_told_to_come_again);
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    assert_eq!(server.get("/health/live").status, 200);

    proxy.delay(Duration::ZERO);
    for number in 0..SPENDS {
        spend_until_done(server.port, &token, &format!("slower-{number}"));
    }
    assert_eq!(server.get_as(&token, BALANCE).json()["totalSpent"], SPENDS * 2);
    cluster.books_are_true("mana");
}

#[test]
fn requests_for_which_no_connection_is_left_are_told_so_and_all_is_well_when_there_is_one() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let server = ledger_server(&home, &cluster)
        .env("DATABASE_MAX_CONNECTIONS", "2")
        .env("DATABASE_WAIT_SECONDS", "1")
        .env("REQUEST_TIMEOUT_SECONDS", "20")
        .env("SIGN_IN_FREE_FAILURES", "100")
        .start();
    let token = owner_of_wallet(&server, "ada@example.com");
    assert_eq!(spend(server.port, &token, "before").unwrap().status, 201);
    let timeouts = || {
        let metrics = server.get("/metrics").body;
        metrics.lines().any(|line| line.starts_with("database_errors_total{kind=\"pool_timeout\"}"))
    };
    assert!(!timeouts());

    // Whoever signs in now keeps a connection until this is over.
    let mut owner = cluster.owner("mana");
    owner.run("BEGIN; LOCK TABLE auth.passwords IN ACCESS EXCLUSIVE MODE");
    let body = json!({"email": "ada@example.com", "password": PASSWORD}).to_string();
    let logins: Vec<_> = (0..4).map(|_| http::send(server.port, "POST", LOGIN, "", &body).unwrap()).collect();
    let begun = Instant::now();
    let refused = poll(LIMIT, "a request without a connection", || {
        Some(server.get_as(&token, BALANCE)).filter(|reply| reply.status != 200)
    });
    is_told_to_come_again(&refused);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let asked = spend(server.port, &token, "meanwhile").unwrap();
    if asked.status != 201 {
        is_told_to_come_again(&asked);
    }
    assert!(timeouts());
    assert_eq!(server.get("/health/live").status, 200);

    owner.run("COMMIT");
    let statuses: Vec<_> = logins.into_iter().map(|login| http::receive(login).unwrap().status).collect();
    assert!(
        statuses.contains(&200) && statuses.iter().all(|status| [200, 503].contains(status)),
        "{statuses:?}"
    );
    poll(LIMIT, "a connection for everybody", || {
        (server.get_as(&token, BALANCE).status == 200).then_some(())
    });
    spend_until_done(server.port, &token, "meanwhile");
    assert_eq!(server.get_as(&token, BALANCE).json()["totalSpent"], 2);
    assert_eq!(server.login("ada@example.com").status, 200);
    cluster.books_are_true("mana");
}
