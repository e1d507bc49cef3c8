//! Sessions that are remembered in memory: checked without a read, refused once they end, here and on other replicas.

use crate::story::{PASSWORD, Replica, Story, User};
use crate::surface::stored;
use http::Method;
use mana_testkit::{Client, RedisServer};
use serde_json::json;
use time::Duration;

/// Whether a replica takes the user's access token.
async fn takes(client: &Client, user: &User) -> bool {
    let reply = client.post("/api/v1/auth/validate", &json!({"token": user.access_token})).send().await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    reply.json["valid"] == true
}

/// From now on no session can be read.
async fn hide_sessions(story: &Story) {
    story.execute("ALTER TABLE auth.sessions RENAME COLUMN last_active_at TO hidden").await;
}

#[tokio::test]
async fn a_session_that_was_found_alive_is_not_read_again() {
    let story = Story::new().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    assert!(takes(&story.client, &ada).await);
    story.workers.follow_ended_sessions().await;
    assert!(takes(&story.client, &ada).await, "read once more, as nothing counted before the first look");
    hide_sessions(&story).await;
    assert!(takes(&story.client, &ada).await);
    let unknown =
        story.client.post("/api/v1/auth/validate", &json!({"token": bob.access_token})).send().await;
    assert_eq!(unknown.status, 500, "what is not remembered is read");
}

#[tokio::test]
async fn memory_counts_for_no_longer_than_a_second_after_the_last_look() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.workers.follow_ended_sessions().await;
    assert!(takes(&story.client, &ada).await);
    hide_sessions(&story).await;
    story.steady_clock.advance(std::time::Duration::from_millis(999));
    assert!(takes(&story.client, &ada).await);
    story.steady_clock.advance(std::time::Duration::from_millis(1));
    let validate = || story.client.post("/api/v1/auth/validate", &json!({"token": ada.access_token})).send();
    assert_eq!(validate().await.status, 500, "nobody looked: nobody is let in by memory");
    story.workers.follow_ended_sessions().await;
    assert!(takes(&story.client, &ada).await, "a look later it counts again");
}

#[tokio::test]
async fn a_look_that_fails_ends_the_trust_in_memory() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.workers.follow_ended_sessions().await;
    assert!(takes(&story.client, &ada).await);
    story.execute("REVOKE SELECT ON auth.revocations FROM mana_service").await;
    story.steady_clock.advance(std::time::Duration::from_millis(1));
    story.workers.follow_ended_sessions().await;
    assert!(takes(&story.client, &ada).await, "read, as if nothing were remembered");
    story.execute("UPDATE auth.sessions SET revoked_at = now(), revoked_reason = 'by hand'").await;
    assert!(!takes(&story.client, &ada).await);
}

#[tokio::test]
async fn a_database_that_was_put_back_makes_everything_forgotten() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.workers.follow_ended_sessions().await;
    assert!(takes(&story.client, &ada).await);
    // A restored database has fewer transactions behind it than this replica has seen.
    let mut owner = story.database.owner().await;
    let revoke = "UPDATE auth.sessions SET revoked_at = now(), revoked_reason = 'by hand'";
    sqlx::raw_sql("SET session_replication_role = replica").execute(&mut owner).await.unwrap();
    sqlx::raw_sql(revoke).execute(&mut owner).await.unwrap();
    story.steady_clock.advance(std::time::Duration::from_millis(1));
    story.workers.follow_ended_sessions().await;
    assert!(takes(&story.client, &ada).await, "no line tells of it");
    story.execute("CREATE OR REPLACE FUNCTION pg_catalog.pg_snapshot_xmin(pg_snapshot) RETURNS xid8 LANGUAGE sql AS 'SELECT ''3''::xid8'").await;
    story.steady_clock.advance(std::time::Duration::from_millis(1));
    story.workers.follow_ended_sessions().await;
    assert!(!takes(&story.client, &ada).await);
}

#[tokio::test]
async fn a_revoked_session_is_not_read_again_and_again() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.post("/api/v1/auth/logout", &json!({"refreshToken": ada.refresh_token})).await;
    assert!(!takes(&story.client, &ada).await);
    hide_sessions(&story).await;
    assert!(!takes(&story.client, &ada).await, "a flood of dead tokens is no flood of reads");
}

#[tokio::test]
async fn whatever_ends_a_session_ends_it_at_once_here_and_at_the_next_look_elsewhere() {
    let ways = ["sign-out", "revoke", "revoke others", "replay", "by hand", "disable", "shorten", "delete"];
    for way in ways {
        let story = Story::new().await;
        let Replica { client: other, workers: other_workers } = story.replica_with(|_| {}).await;
        let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
        let elsewhere = story.sign_in("ada@example.com").await;
        for workers in [&story.workers, &other_workers] {
            workers.follow_ended_sessions().await;
        }
        for client in [&story.client, &other] {
            assert!(
                takes(client, &ada).await && takes(client, &bob).await && takes(client, &elsewhere).await
            );
        }
        let is_through_this_replica = match way {
            "sign-out" => {
                let body = json!({"refreshToken": ada.refresh_token});
                assert_eq!(story.post("/api/v1/auth/logout", &body).await.status, 200);
                true
            }
            "revoke" => {
                let list = story.get("/api/v1/auth/sessions", &ada).await;
                let list = list.json.as_array().unwrap();
                let id =
                    list.iter().find(|device| device["current"] == true).unwrap()["id"].as_str().unwrap();
                let path = format!("/api/v1/auth/sessions/{id}");
                let request =
                    story.client.request(http::Method::DELETE, &path).bearer(&elsewhere.access_token);
                assert_eq!(request.send().await.status, 204);
                true
            }
            "revoke others" => {
                let request = story.client.request(http::Method::DELETE, "/api/v1/auth/sessions");
                assert_eq!(request.bearer(&elsewhere.access_token).send().await.status, 204);
                true
            }
            "replay" => {
                let second = story.refresh(&ada.refresh_token).await;
                story.refresh(second.text("/refreshToken")).await;
                assert_eq!(story.refresh(&ada.refresh_token).await.status, 401);
                true
            }
            "by hand" => {
                story
                    .execute(
                        "UPDATE auth.sessions SET revoked_at = now(), revoked_reason = 'by hand'
                               WHERE user_id = (SELECT id FROM auth.users WHERE email = 'ada@example.com')",
                    )
                    .await;
                false
            }
            "disable" => {
                story
                    .execute("UPDATE auth.users SET disabled_at = now() WHERE email = 'ada@example.com'")
                    .await;
                false
            }
            "shorten" => {
                story
                    .execute(
                        "UPDATE auth.sessions SET expires_at = created_at
                               WHERE user_id = (SELECT id FROM auth.users WHERE email = 'ada@example.com')",
                    )
                    .await;
                false
            }
            _ => {
                story.execute("DELETE FROM auth.refresh_chains").await;
                story
                    .execute(
                        "DELETE FROM auth.sessions
                               WHERE user_id = (SELECT id FROM auth.users WHERE email = 'ada@example.com')",
                    )
                    .await;
                false
            }
        };
        story.steady_clock.advance(std::time::Duration::from_millis(1));
        if !is_through_this_replica {
            story.workers.follow_ended_sessions().await;
        }
        assert!(!takes(&story.client, &ada).await, "{way}: here");
        other_workers.follow_ended_sessions().await;
        assert!(!takes(&other, &ada).await, "{way}: on the other replica");
        assert!(takes(&story.client, &bob).await && takes(&other, &bob).await, "{way}: nobody else");
        assert_eq!(story.refresh(&ada.refresh_token).await.status, 401, "{way}: for good");
        let exchange = story.client.request(http::Method::POST, "/api/v1/auth/session-to-token");
        assert_eq!(exchange.header("cookie", &ada.cookie).send().await.status, 401, "{way}: for good");
    }
}

#[tokio::test]
async fn an_end_that_another_server_rings_for_is_looked_for_at_once() {
    let redis = RedisServer::start();
    let story = Story::with(|settings| settings.redis_url = Some(redis.url().into())).await;
    let Replica { client: other, workers: other_workers } = story.replica_with(|_| {}).await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    other_workers.follow_ended_sessions().await;
    assert!(takes(&other, &ada).await && takes(&other, &bob).await);
    // Nothing else looks here: there are no turns, and the steady clock stands still.
    let _bells = [&story.workers, &other_workers].map(|workers| {
        let workers = workers.clone();
        tokio::spawn(async move { workers.carry_the_bell().await })
    });
    let deaf = story.replica_with(|settings| settings.redis_url = None).await;
    deaf.workers.follow_ended_sessions().await;
    assert!(takes(&deaf.client, &ada).await);
    let begun = std::time::Instant::now();
    let mut email = 0;
    while takes(&other, &ada).await {
        assert!(begun.elapsed() < std::time::Duration::from_mins(1), "nothing was heard");
        // Whoever began to listen after one end hears the next one.
        email += 1;
        let guest = story.user(&format!("guest-{email}@example.com")).await;
        for gone in [&guest.refresh_token, &ada.refresh_token] {
            story.post("/api/v1/auth/logout", &json!({"refreshToken": gone})).await;
        }
    }
    assert!(takes(&other, &bob).await, "nobody else");
    assert!(takes(&deaf.client, &ada).await, "the control: a server without Redis has not looked yet");
}

#[tokio::test]
async fn a_line_whose_transaction_was_slower_than_a_later_one_is_not_missed() {
    let story = Story::new().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    story.workers.follow_ended_sessions().await;
    assert!(takes(&story.client, &ada).await && takes(&story.client, &bob).await);

    let (mut slow, mut fast) = (story.database.owner().await, story.database.owner().await);
    let end = |email: &str| {
        format!(
            "UPDATE auth.sessions SET revoked_at = now(), revoked_reason = 'by hand'
             WHERE user_id = (SELECT id FROM auth.users WHERE email = '{email}')"
        )
    };
    let run = async |connection: &mut sqlx::PgConnection, statement: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(connection).await.unwrap();
    };
    run(&mut slow, "BEGIN".to_owned()).await;
    run(&mut slow, end("ada@example.com")).await;
    run(&mut fast, end("bob@example.com")).await;
    story.steady_clock.advance(std::time::Duration::from_millis(1));
    story.workers.follow_ended_sessions().await;
    assert!(takes(&story.client, &ada).await && !takes(&story.client, &bob).await);
    run(&mut slow, "COMMIT".to_owned()).await;
    story.steady_clock.advance(std::time::Duration::from_millis(1));
    story.workers.follow_ended_sessions().await;
    assert!(!takes(&story.client, &ada).await);
}

#[tokio::test]
async fn an_expired_session_is_refused_from_memory_too_and_a_refresh_elsewhere_keeps_it() {
    let story = Story::with(|settings| {
        settings.jwt_refresh_token_expiry = std::time::Duration::from_mins(5);
        settings.jwt_access_token_expiry = std::time::Duration::from_hours(1);
    })
    .await;
    let Replica { client: other, workers: other_workers } = story.replica_with(|_| {}).await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    other_workers.follow_ended_sessions().await;
    assert!(takes(&other, &ada).await && takes(&other, &bob).await);
    story.clock.advance(Duration::minutes(4));
    assert_eq!(story.refresh(&bob.refresh_token).await.status, 200);
    story.clock.advance(Duration::minutes(2));
    story.steady_clock.advance(std::time::Duration::from_millis(1));
    other_workers.follow_ended_sessions().await;
    assert!(!takes(&other, &ada).await, "unused for too long");
    assert!(takes(&other, &bob).await, "kept by a refresh on the other replica");
}

#[tokio::test]
async fn activity_is_written_at_most_once_a_minute() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.workers.follow_ended_sessions().await;
    let written = "SELECT count(*) FROM auth.sessions WHERE last_active_at > created_at";
    for _ in 0..5 {
        story.clock.advance(Duration::seconds(10));
        assert!(takes(&story.client, &ada).await);
        story.workers.write_notes().await;
    }
    assert_eq!(story.number(written).await, 0, "not yet a minute");
    story.clock.advance(Duration::seconds(10));
    assert!(takes(&story.client, &ada).await);
    story.workers.write_notes().await;
    assert_eq!(story.number(written).await, 1);
    let updates =
        "SELECT count(*) FROM auth.sessions WHERE last_active_at = created_at + interval '1 minute'";
    for _ in 0..5 {
        story.clock.advance(Duration::seconds(10));
        assert!(takes(&story.client, &ada).await);
        story.workers.write_notes().await;
    }
    assert_eq!(story.number(updates).await, 1, "no second write within the minute");
    let Replica { client: other, workers: other_workers } = story.replica_with(|_| {}).await;
    assert!(takes(&other, &ada).await);
    other_workers.write_notes().await;
    assert_eq!(story.number(updates).await, 1, "nor by another replica");
    let list = story.get("/api/v1/auth/sessions", &ada).await;
    assert_ne!(list.text("/0/lastActivityAt"), list.text("/0/createdAt"));
}

#[tokio::test]
async fn an_ended_session_changes_no_protection_on_any_replica() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let Replica { client, workers } = story.replica_with(|_| {}).await;
    assert_eq!(client.get("/api/v1/auth/me").bearer(&ada.access_token).send().await.status, 200);
    workers.follow_ended_sessions().await;
    assert_eq!(client.get("/api/v1/auth/me").bearer(&ada.access_token).send().await.status, 200);
    let signed_out = story.client.request(Method::POST, "/api/v1/auth/logout").bearer(&ada.access_token);
    assert_eq!(signed_out.send().await.status, 200);
    let before = stored(&story).await;
    let (id, code) = ("00000000-0000-7000-8000-000000000000", json!({"code": "123456"}));
    let password = json!({"currentPassword": PASSWORD, "newPassword": "another horse battery"});
    for (method, path, body) in [
        (Method::POST, "/api/v1/auth/two-factor/enrol".to_owned(), json!({})),
        (Method::POST, "/api/v1/auth/two-factor/confirm".to_owned(), code.clone()),
        (Method::DELETE, "/api/v1/auth/two-factor".to_owned(), json!({})),
        (Method::POST, "/api/v1/auth/two-factor/recovery-codes".to_owned(), json!({})),
        (Method::DELETE, format!("/api/v1/auth/passkeys/{id}"), json!({})),
        (Method::DELETE, format!("/api/v1/auth/linked-accounts/{id}"), json!({})),
        (Method::POST, "/api/v1/auth/change-email".to_owned(), json!({"newEmail": "thief@example.org"})),
        (Method::POST, "/api/v1/auth/change-password".to_owned(), password),
        (Method::POST, "/api/v1/auth/reauthenticate".to_owned(), json!({"password": PASSWORD})),
        (Method::POST, "/api/v1/auth/reauthenticate".to_owned(), code),
    ] {
        let request = client.request(method, &path).bearer(&ada.access_token);
        let refused = request.body("application/json", body.to_string()).send().await;
        assert!([401, 403].contains(&refused.status.as_u16()), "{path} {} {}", refused.status, refused.json);
    }
    assert_eq!(
        client.get("/api/v1/auth/passkeys").bearer(&ada.access_token).send().await.status,
        200,
        "the control: this replica has not heard of it yet"
    );
    assert!(stored(&story).await == before);
    let again = story.sign_in("ada@example.com").await;
    let enrol = client.post("/api/v1/auth/two-factor/enrol", &json!({})).bearer(&again.access_token);
    assert_eq!(enrol.send().await.status, 200, "the control: in a session that lives");
}
