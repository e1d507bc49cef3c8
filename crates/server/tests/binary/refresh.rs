//! Refreshing on real processes: two servers on one database, killed under load, and a database that goes away.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::http::{self, Reply};
use crate::process::{Home, Launch, Server};
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const OWNERS: usize = 4;

fn replica(home: &Home, cluster: &Cluster) -> Launch {
    home.serve()
        .env("DATABASE_URL", cluster.service_url("mana"))
        .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .env("DATABASE_WAIT_SECONDS", "15")
        .env("RATE_LIMIT_MAX", "0")
}

fn refresh(port: u16, token: &str) -> std::io::Result<Reply> {
    http::exchange(port, "POST", "/api/v1/auth/refresh", "", &json!({"refreshToken": token}).to_string())
}

#[test]
fn servers_that_are_killed_under_load_sign_nobody_out() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let victim = replica(&home, &cluster).start();
    let survivor = replica(&home, &cluster).start();
    let first: Vec<_> = (0..OWNERS)
        .map(|owner| {
            let email = format!("owner{owner}@example.com");
            survivor.register(&email);
            survivor.login(&email).text("/refreshToken")
        })
        .collect();

    let (done, victims_port) = (AtomicUsize::new(0), Mutex::new(victim.port));
    let (newest, victim) = thread::scope(|scope| {
        let owners: Vec<_> = first
            .into_iter()
            .map(|token| {
                let (done, victims_port, survivor) = (&done, &victims_port, &survivor);
                scope.spawn(move || {
                    let mut newest = token;
                    for round in 0..60 {
                        let port = if round % 2 == 0 { *victims_port.lock().unwrap() } else { survivor.port };
                        // Whoever gets no answer asks the other server, with the newest token that did arrive.
                        let reply =
                            refresh(port, &newest).or_else(|_| refresh(survivor.port, &newest)).unwrap();
                        assert_eq!(reply.status, 200, "{reply:?}");
                        newest = reply.text("/refreshToken");
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    newest
                })
            })
            .collect();
        let mut victim = victim;
        for kill in 1..=2 {
            crate::process::poll(std::time::Duration::from_mins(1), "refreshes", || {
                (done.load(Ordering::Relaxed) > kill * OWNERS * 15).then_some(())
            });
            victim.kill();
            victim = replica(&home, &cluster).start();
            *victims_port.lock().unwrap() = victim.port;
        }
        let newest: Vec<String> = owners.into_iter().map(|owner| owner.join().unwrap()).collect();
        (newest, victim)
    });
    for token in &newest {
        assert_eq!(refresh(victim.port, token).unwrap().status, 200);
    }

    let everything_away = |server: &Server| {
        let reply = refresh(server.port, &newest[0]).unwrap();
        assert_eq!((reply.status, reply.text("/code")), (503, "service.unavailable".to_owned()), "{reply:?}");
        assert_eq!(reply.header("retry-after"), "1");
    };
    drop(cluster);
    everything_away(&survivor);
    everything_away(&victim);
}
