//! Refreshing while connections are killed, answers get lost, tabs race and two replicas answer: what the explored model
//! promises, seen over HTTP on PostgreSQL.

use crate::story::Story;
use futures_util::future::join_all;
use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use mana_testkit::{Client, Reply};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use time::Duration;

const OWNERS: usize = 8;
const ROUNDS: usize = 12;

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

/// A client that hangs up after a while, wherever the server is then.
async fn refresh(client: &Client, token: &str, patience: Option<u64>) -> Option<Reply> {
    let reply = client.post("/api/v1/auth/refresh", &json!({"refreshToken": token})).send();
    let Some(steps) = patience else { return Some(reply.await) };
    tokio::select! {
        reply = reply => Some(reply),
        () = async { for _ in 0..steps { tokio::task::yield_now().await } } => None,
    }
}

/// An owner's life: rounds of racing tabs, each until one of them has an answer.
async fn live(story: &Story, replicas: &[Client; 2], first: String, seed: u64) -> String {
    let mut dice = Dice(seed | 1);
    let mut newest = first;
    for round in 0..ROUNDS {
        let mut successors = BTreeSet::new();
        while successors.is_empty() {
            let tabs: Vec<_> = (0..=dice.roll(3))
                .map(|_| {
                    let patience = (dice.roll(3) == 0).then(|| dice.roll(40));
                    (&replicas[usize::try_from(dice.roll(2)).unwrap()], patience)
                })
                .collect();
            let replies = tabs.into_iter().map(|(client, patience)| refresh(client, &newest, patience));
            for reply in join_all(replies).await.into_iter().flatten() {
                if reply.status == 503 {
                    assert!(reply.headers.contains_key("retry-after"), "seed {seed}");
                    continue;
                }
                assert_eq!(reply.status, 200, "seed {seed}, round {round}: {}", reply.json);
                successors.insert(reply.text("/refreshToken").to_owned());
                if dice.roll(2) == 0 {
                    story.client.get("/api/v1/auth/me").bearer(reply.text("/accessToken")).send().await;
                }
            }
        }
        assert_eq!(successors.len(), 1, "seed {seed}, round {round}: one token, one successor");
        newest = successors.into_iter().next().unwrap();
    }
    newest
}

#[tokio::test]
async fn nobody_is_signed_out_by_killed_connections_lost_answers_and_racing_tabs() {
    let story = Story::new().await;
    let replicas = [story.client.clone(), story.replica().await];
    let mut first = Vec::new();
    for owner in 0..OWNERS {
        first.push(story.user(&format!("owner{owner}@example.com")).await.refresh_token);
    }
    let mut seed = [0; 8];
    SystemRng.fill(&mut seed);
    let seed = u64::from_le_bytes(seed);

    let is_over = AtomicBool::new(false);
    let kills = async {
        let mut killed: i64 = 0;
        let mut owner = story.database.owner().await;
        while !is_over.load(Ordering::Relaxed) {
            let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                        WHERE datname = current_database() AND usename = 'mana_service' AND pid % 3 = $1";
            killed += sqlx::query_scalar::<_, i64>(kill)
                .bind(i32::try_from(killed % 3).unwrap())
                .fetch_one(&mut owner)
                .await
                .unwrap();
            story.workers.write_notes().await;
            // Longer than the grace window now and then, between what is in flight.
            story.clock.advance(Duration::seconds(1));
            tokio::task::yield_now().await;
        }
        killed
    };
    let owners = async {
        let lives = first.into_iter().zip(1_u64..);
        let newest = join_all(lives.map(|(token, number)| {
            live(&story, &replicas, token, seed.wrapping_mul(number.wrapping_mul(2).wrapping_add(1)))
        }))
        .await;
        is_over.store(true, Ordering::Relaxed);
        newest
    };
    let (newest, killed) = tokio::join!(owners, kills);
    assert!(killed > 0, "no connection was killed");
    for token in &newest {
        let reply = refresh(&story.client, token, None).await.unwrap();
        assert!([200, 503].contains(&reply.status.as_u16()), "seed {seed}: {}", reply.json);
    }
    assert_eq!(
        story.number("SELECT count(*) FROM auth.sessions WHERE revoked_at IS NOT NULL").await,
        0,
        "seed {seed}"
    );
    let generations = "SELECT count(*) FROM auth.refresh_chains WHERE generation >= 13";
    assert_eq!(story.number(generations).await, i64::try_from(OWNERS).unwrap(), "seed {seed}");
}
