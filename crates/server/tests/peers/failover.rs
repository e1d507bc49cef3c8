//! The machine of the primary goes while people spend. The synchronous standby takes over, the servers find it by
//! themselves, and every spend that was acknowledged is in its books. `cargo xtask failover` does it more often.

use crate::chaos::{Person, Progress, live, none_is_lost_or_doubled, spend};
use crate::deployment::Deployment;
use crate::process::poll;
use crate::standby::LEASE;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
/// The lease that must run out, and what a promotion and the way to it take on a busy machine.
const RECOVERY: Duration = LEASE.saturating_add(Duration::from_secs(40));

const SETTINGS: [(&str, &str); 7] = [
    ("CREDITS_SIGNUP_BONUS", "1000000000"),
    ("RATE_LIMIT_MAX", "0"),
    ("JWT_ACCESS_TOKEN_EXPIRY", "24h"),
    ("HASHING_WAIT_SECONDS", "30"),
    ("DATABASE_WAIT_SECONDS", "4"),
    ("REQUEST_TIMEOUT_SECONDS", "5"),
    ("SHUTDOWN_TIMEOUT_SECONDS", "5"),
];

fn fail_over(times: usize) {
    let deployment = Deployment::start_with_standby(10, &SETTINGS);
    let port = deployment.server_port(0);
    let tokens: Vec<_> =
        (0..CLIENTS).map(|client| Person::sign_up(port, &format!("client{client}")).token).collect();
    let probe = Person::sign_up(port, "probe").token;
    let progress = Progress::none();
    let acknowledged: Vec<String> = thread::scope(|scope| {
        let (deployment, progress) = (&deployment, &progress);
        let clients: Vec<_> = tokens
            .iter()
            .enumerate()
            .map(|(client, token)| {
                scope.spawn(move || live(deployment, token, &format!("client{client}"), progress))
            })
            .collect();
        // Whatever fails here, the clients are let go: else the test would wait for them for ever.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for time in 1..=times {
                let before = progress.done.load(Ordering::Relaxed);
                poll(RECOVERY, "spends before the end", || {
                    (progress.done.load(Ordering::Relaxed) > before.saturating_add(50)).then_some(())
                });
                // One that does not stream just now is none that could take over.
                deployment.pair().await_standby();
                let begun = Instant::now();
                let killed = deployment.pair().kill_primary();
                let known = progress.done.load(Ordering::Relaxed);
                for server in [0, 1] {
                    let key = format!("probe-{time}-{server}");
                    poll(RECOVERY, "a server that has found the new primary", || {
                        let reply = spend(deployment.server_port(server), &probe, &key).ok()?;
                        (reply.status == 201).then_some(())
                    });
                    eprintln!(
                        "{killed} was killed: server {server} spends again after {:.1?}",
                        begun.elapsed()
                    );
                }
                poll(RECOVERY, "spends after it", || {
                    (progress.done.load(Ordering::Relaxed) > known.saturating_add(50)).then_some(())
                });
                deployment.books_are_true();
                deployment.pair().restart(&deployment.home, killed);
                eprintln!("{killed} follows again, {:.1?} after it was killed", begun.elapsed());
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
    deployment.books_are_true();
}

#[test]
fn a_standby_that_takes_over_has_every_spend_that_was_acknowledged() {
    fail_over(1);
}

#[test]
#[ignore = "takes half a minute for each time: cargo xtask failover"]
#[expect(clippy::disallowed_methods, reason = "how cargo xtask tells a test its plan")]
fn the_long_version() {
    fail_over(std::env::var("MANA_FAILOVER").unwrap().parse().unwrap());
}
