//! How soon a session that ended on one server is refused by another, with everything running as in production.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Home, Launch, Server};
use serde_json::json;
use std::thread;
use std::time::{Duration, Instant};

/// A second, as promised, and what a busy machine may add.
const SOON: Duration = Duration::from_millis(2_500);

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

/// How long the server goes on taking the token.
fn until_refused(server: &Server, token: &str) -> Duration {
    let ended = Instant::now();
    while takes(server, token) {
        assert!(ended.elapsed() < SOON, "still taken after {:?}", ended.elapsed());
        thread::sleep(Duration::from_millis(20));
    }
    ended.elapsed()
}

#[test]
fn a_sign_out_on_one_server_reaches_the_other_within_a_second() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let (here, there) = (server(&home, &cluster).start(), server(&home, &cluster).start());
    here.register("ada@example.com");
    for _ in 0..3 {
        let login = here.login("ada@example.com");
        let token = login.text("/accessToken");
        for _ in 0..50 {
            assert!(takes(&there, &token), "remembered by now");
        }
        let body = json!({"refreshToken": login.text("/refreshToken")});
        assert_eq!(here.post("/api/v1/auth/logout", &body).status, 200);
        assert!(!takes(&here, &token), "at once where it was signed out");
        until_refused(&there, &token);
    }
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
