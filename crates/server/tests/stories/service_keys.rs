//! Keys by which apps act for users: made by administrators and at the command line, told once, and refused once revoked.

use crate::story::{PASSWORD, Story, User, let_go, members, spend_of};
use axum::Router;
use axum::routing::get;
use mana_auth::AuthState;
use mana_auth::service_key::{self, GivenServiceKey, NewServiceKey, ServiceKeySecret};
use mana_core_auth::workers::Workers;
use mana_platform::SystemRng;
use mana_platform::http::{ApiError, Principal, frame};
use mana_testkit::{Client, Reply};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use std::time::Duration;

const KEYS: &str = "/api/v1/admin/service-keys";

async fn whoever(principal: Principal) -> Result<String, ApiError> {
    match principal {
        Principal::User(caller) => Ok(format!("user {}", caller.user_id)),
        Principal::Service(service) => {
            let scopes: Vec<_> = service.scopes.iter().map(ToString::to_string).collect();
            Ok(format!("{} as {}: {}", service.key_id, service.app()?, scopes.join(" ")))
        }
    }
}

/// A route of any feature that takes apps as well as users, on the accounts of a replica.
fn app_of(story: &Story, workers: &Workers) -> Client {
    let routes = Router::new().route("/whoever", get(whoever)).with_state(AuthState(workers.auth.clone()));
    let (own, limits) = (story.settings.own_origin().unwrap(), &workers.auth.limits);
    Client::new(frame::around(routes, &[], &own, "Mana", Duration::from_mins(1), &[], limits).unwrap())
}

async fn ask(client: &Client, key: &str) -> Reply {
    client.get("/whoever").header("x-service-key", key).send().await
}

/// Status and who it was, or the problem's code.
async fn who(client: &Client, key: &str) -> (u16, String) {
    let reply = ask(client, key).await;
    let text = if reply.status == 200 {
        String::from_utf8(reply.bytes.to_vec()).unwrap()
    } else {
        reply.problem().to_owned()
    };
    (reply.status.as_u16(), text)
}

fn refused() -> (u16, String) {
    (401, "service.unauthenticated".to_owned())
}

async fn create(story: &Story, admin: &User, body: &Value) -> Reply {
    story.client.post(KEYS, body).bearer(&admin.access_token).send().await
}

async fn revoke(client: &Client, admin: &User, id: &str) -> Reply {
    client.request(http::Method::DELETE, &format!("{KEYS}/{id}")).bearer(&admin.access_token).send().await
}

/// A key of mail's, its id and itself.
async fn key_of_mail(story: &Story, admin: &User) -> (String, String) {
    let body = json!({"name": "Mail", "appId": "mail", "scopes": ["credits:spend", "credits:read"]});
    let created = create(story, admin, &body).await;
    assert_eq!(created.status, 201, "{}", created.json);
    (created.text("/id").to_owned(), created.text("/key").to_owned())
}

#[tokio::test]
async fn a_key_is_told_once_and_acts_as_its_app() {
    let story = Story::new().await;
    let ada = story.administrator("ada@example.com").await;
    let body = json!({"name": "Mail", "appId": "mail", "scopes": ["credits:spend", "credits:read"], "limitPerMinute": 600});
    let created = create(&story, &ada, &body).await;
    assert_eq!(created.status, 201, "{}", created.json);
    let (id, key) = (created.text("/id"), created.text("/key"));
    assert!(key.starts_with("mana_sk_") && key.len() == 51, "{key}");

    let app = app_of(&story, &story.workers);
    assert_eq!(who(&app, key).await, (200, format!("{id} as mail: credits:read credits:spend")));

    let listed = story.get(KEYS, &ada).await;
    let [listed] = listed.json.as_array().unwrap().as_slice() else { panic!("{}", listed.json) };
    let mut expected = created.json.clone();
    expected.as_object_mut().unwrap().remove("key");
    assert_eq!(*listed, expected, "all but the key");
    assert_eq!(members(listed).len(), 9);
    assert_eq!((&listed["createdBy"], &listed["lastUsedAt"]), (&json!(ada.id), &json!(null)));
    let rows: String = sqlx::query_scalar("SELECT string_agg(key::text, '') FROM auth.service_keys key")
        .fetch_one(&mut story.database.owner().await)
        .await
        .unwrap();
    assert!(rows.contains(id) && !rows.contains(&key[8..]), "{rows}");
}

#[tokio::test]
async fn only_who_is_an_administrator_now_sees_makes_and_revokes_keys() {
    let story = Story::new().await;
    let (ada, bob) = (story.administrator("ada@example.com").await, story.user("bob@example.com").await);
    // Signed in again, so that the token itself says admin.
    let ada = story.sign_in(&ada.email).await;
    let (id, key) = key_of_mail(&story, &ada).await;
    story.set_role(&ada, "user").await;
    for user in [&ada, &bob] {
        let body = json!({"name": "Mine", "scopes": ["credits:grant"]});
        for reply in [
            story.get(KEYS, user).await,
            create(&story, user, &body).await,
            revoke(&story.client, user, &id).await,
        ] {
            assert_eq!((reply.status.as_u16(), reply.problem()), (403, "auth.admin_required"));
        }
    }
    let by_key = story.client.get(KEYS).header("x-service-key", &key).send().await;
    assert_eq!((by_key.status.as_u16(), by_key.problem()), (401, "auth.unauthenticated"));
    assert_eq!(story.number("SELECT count(*) FROM auth.service_keys WHERE revoked_at IS NULL").await, 1);
}

#[tokio::test]
async fn a_key_that_allows_nothing_or_what_is_unknown_is_refused_by_name() {
    let story = Story::new().await;
    let ada = story.administrator("ada@example.com").await;
    for (field, value, pointer) in [
        ("scopes", json!([]), "/scopes"),
        ("scopes", json!(["credits:mint"]), "/scopes/0"),
        ("limitPerMinute", json!(0), "/limitPerMinute"),
        ("limitPerMinute", json!(10_000_001), "/limitPerMinute"),
        ("appId", json!(""), "/appId"),
        ("name", json!("x".repeat(101)), "/name"),
    ] {
        let mut body =
            json!({"name": "Mail", "appId": "mail", "scopes": ["credits:spend"], "limitPerMinute": 1});
        body[field] = value;
        let reply = create(&story, &ada, &body).await;
        assert_eq!((reply.status.as_u16(), reply.text("/errors/0/pointer")), (400, pointer), "{body}");
    }
}

#[tokio::test]
async fn what_is_no_key_gets_one_answer() {
    let story = Story::new().await;
    let app = app_of(&story, &story.workers);
    let ada = story.administrator("ada@example.com").await;
    let (id, key) = key_of_mail(&story, &ada).await;
    assert_eq!(revoke(&story.client, &ada, &id).await.status, 204);
    let unknown = ServiceKeySecret::generate(&SystemRng);
    let mut answers = Vec::new();
    for text in [unknown.expose(), &key, &key[..50], "mana_sk_", &ada.access_token, &ada.refresh_token] {
        let mut reply = ask(&app, text).await;
        assert_eq!(reply.status, 401);
        reply.json["instance"] = json!(null);
        answers.push(reply.json.to_string());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn a_revoked_key_is_refused_here_at_once_and_elsewhere_within_five_seconds() {
    let story = Story::new().await;
    let replica = story.replica_with(|_| {}).await;
    let (here, elsewhere) = (app_of(&story, &story.workers), app_of(&story, &replica.workers));
    let ada = story.administrator("ada@example.com").await;
    let (id, key) = key_of_mail(&story, &ada).await;
    for app in [&here, &elsewhere] {
        assert_eq!(who(app, &key).await.0, 200);
    }
    assert_eq!(revoke(&story.client, &ada, &id).await.status, 204);
    assert_eq!(who(&here, &key).await, refused());
    story.steady_clock.advance(Duration::from_millis(4_999));
    assert_eq!(who(&elsewhere, &key).await.0, 200, "the control: it is remembered");
    story.steady_clock.advance(Duration::from_millis(1));
    assert_eq!(who(&elsewhere, &key).await, refused());

    let again = revoke(&story.client, &ada, &id).await;
    assert_eq!((again.status.as_u16(), again.problem()), (404, "service.key_not_found"));
    assert!(story.get(KEYS, &ada).await.json[0]["revokedAt"].is_string());
}

#[tokio::test]
async fn a_key_is_remembered_for_a_moment_and_nobody_is_let_in_without_the_database() {
    let story = Story::new().await;
    let app = app_of(&story, &story.workers);
    let ada = story.administrator("ada@example.com").await;
    let (_, key) = key_of_mail(&story, &ada).await;
    assert_eq!(who(&app, &key).await.0, 200);
    story.workers.auth.database.close().await;
    assert_eq!(who(&app, &key).await.0, 200, "remembered");
    let unknown = ServiceKeySecret::generate(&SystemRng);
    let unavailable = (503, "service.unavailable".to_owned());
    assert_eq!(who(&app, unknown.expose()).await, unavailable);
    story.steady_clock.advance(Duration::from_secs(5));
    assert_eq!(who(&app, &key).await, unavailable);
}

#[tokio::test]
async fn when_a_key_was_used_is_told_to_the_minute() {
    let story = Story::new().await;
    let replica = story.replica_with(|_| {}).await;
    let apps = [&story.workers, &replica.workers].map(|workers| (app_of(&story, workers), workers));
    let ada = story.administrator("ada@example.com").await;
    let (_, key) = key_of_mail(&story, &ada).await;
    let mut told = Vec::new();
    for seconds in [0, 59, 1] {
        story.clock.advance(time::Duration::seconds(seconds));
        for (app, workers) in &apps {
            assert_eq!(who(app, &key).await.0, 200);
            workers.write_notes().await;
        }
        told.push(story.get(KEYS, &ada).await.text("/0/lastUsedAt").to_owned());
    }
    assert!(!told[0].is_empty() && told[0] == told[1] && told[1] < told[2], "{told:?}");
}

#[tokio::test]
async fn who_made_and_revoked_a_key_is_written_down() {
    let story = Story::new().await;
    let ada = story.administrator("ada@example.com").await;
    story.clock.advance(time::Duration::seconds(1));
    let (id, key) = key_of_mail(&story, &ada).await;
    story.clock.advance(time::Duration::seconds(1));
    revoke(&story.client, &ada, &id).await;
    let events = story.get("/api/v1/auth/security-events", &ada).await;
    assert!(!events.json.to_string().contains(&key));
    let told: Vec<_> = events.json.as_array().unwrap().iter().take(2).collect();
    for (event, kind) in told.iter().zip(["service_key_revoked", "service_key_created"]) {
        assert_eq!((event["type"].as_str(), event["detail"].as_str()), (Some(kind), Some(id.as_str())));
    }
}

#[tokio::test]
async fn a_charge_that_waited_while_its_key_was_revoked_is_not_carried_out() {
    let story = Story::new().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let mut body = spend_of(7);
    body["userId"] = json!(ada.id);
    let charge = |key: &str| story.client.post("/api/v1/credits/use", &body).header("x-service-key", key);
    let (id, key) = key_of_mail(&story, &root).await;
    assert_eq!(charge(&key).send().await.status, 201, "the control");
    let held = story.holding("SELECT FROM credits.balances FOR UPDATE").await;
    let charged = story.send_to_wait(charge(&key), 1).await;
    assert_eq!(revoke(&story.client, &root, &id).await.status, 204);
    let_go(held).await;
    let refused = charged.await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.problem()), (401, "service.unauthenticated"));
    assert_eq!(story.number("SELECT max(total_spent) FROM credits.balances").await, 7);

    // Once the key was found good, the answer to its revocation waits for what is charged with it; that it was used is noted meanwhile.
    let (id, key) = key_of_mail(&story, &root).await;
    let held = story.holding("LOCK TABLE credits.transactions IN SHARE MODE").await;
    let charged = story.send_to_wait(charge(&key), 1).await;
    service_key::write_notes(&story.workers.auth).await.unwrap();
    let path = format!("{KEYS}/{id}");
    let revocation = story.client.request(http::Method::DELETE, &path).bearer(&root.access_token);
    let revoked = story.send_to_wait(revocation, 2).await;
    let_go(held).await;
    assert_eq!((charged.await.unwrap().status.as_u16(), revoked.await.unwrap().status.as_u16()), (201, 204));
}

#[tokio::test]
async fn a_key_from_the_command_line_is_as_good_and_has_no_author() {
    let story = Story::new().await;
    let app = app_of(&story, &story.workers);
    let ada = story.administrator("ada@example.com").await;
    let new: NewServiceKey =
        serde_json::from_value(json!({"name": "All", "scopes": ["usage:read"]})).unwrap();
    let database = story.database.service();
    let created = service_key::create(&database, &*story.clock, &SystemRng, &new).await.unwrap();
    assert!(!format!("{created:?}").contains(created.key.expose()));
    let missing = ask(&app, created.key.expose()).await;
    assert_eq!((missing.status.as_u16(), missing.problem()), (400, "service.app_missing"));
    let named = app.get("/whoever").header("x-service-key", created.key.expose()).header("x-app-id", "chat");
    assert_eq!(named.send().await.bytes, format!("{} as chat: usage:read", created.details.id));
    assert_eq!(story.get(KEYS, &ada).await.json[0]["createdBy"], json!(null));

    let id = created.details.id.parse().unwrap();
    assert!(service_key::revoke(&database, &*story.clock, &SystemRng, id).await.unwrap());
    assert!(!service_key::revoke(&database, &*story.clock, &SystemRng, id).await.unwrap());
    let events =
        "SELECT count(*) FROM auth.security_events WHERE type LIKE 'service_key_%' AND user_id IS NULL";
    assert_eq!(story.number(events).await, 2);
}

#[tokio::test]
async fn the_key_of_the_environment_may_do_everything_with_credits_as_any_app() {
    let secret = "a-secret-of-old-times";
    let story = Story::with(|settings| settings.service_key = Some(secret.to_owned().into())).await;
    let app = app_of(&story, &story.workers);
    let scopes = "credits:read credits:spend credits:refund credits:grant usage:read";
    assert_eq!(who(&app, secret).await, (200, format!("environment as service: {scopes}")));
    let named = app.get("/whoever").header("x-service-key", secret).header("x-app-id", "chat");
    assert_eq!(named.send().await.bytes, format!("environment as chat: {scopes}"));
    assert_eq!(who(&app, &format!("{secret}s")).await, refused());

    let weak = |settings: &mut mana_platform::Settings| {
        settings.service_key = Some("fifteen-letters".to_owned().into());
    };
    let refused = story.start(weak, story.root_secret()).await.err().unwrap().to_string();
    assert!(refused.contains("16 characters") && !refused.contains("fifteen"), "{refused}");
    assert!(GivenServiceKey::new(&"sixteen-letters!".to_owned().into(), None).is_ok());
}

#[tokio::test]
async fn the_database_lets_no_key_allow_more_or_live_again() {
    let story = Story::new().await;
    let ada = story.administrator("ada@example.com").await;
    let (id, _) = key_of_mail(&story, &ada).await;
    let service = story.database.service();
    for denied in [
        "UPDATE auth.service_keys SET scopes = ARRAY['credits:grant']",
        "UPDATE auth.service_keys SET app_id = NULL",
        "DELETE FROM auth.service_keys",
    ] {
        let mut transaction = service.begin().await.unwrap();
        let error = sqlx::query(AssertSqlSafe(denied)).execute(&mut *transaction).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("42501"), "{denied}");
    }
    revoke(&story.client, &ada, &id).await;
    let revival = "UPDATE auth.service_keys SET revoked_at = NULL";
    let error = sqlx::query(revival).execute(&mut story.database.owner().await).await.unwrap_err();
    assert!(error.to_string().contains("revoked for good"), "even the owner: {error}");
    let unknown = "INSERT INTO auth.service_keys (id, key_hash, name, scopes, created_at)
                   VALUES ('x', decode(repeat('00', 32), 'hex'), 'x', ARRAY['credits:mint'], now())";
    let error = sqlx::query(unknown).execute(&mut story.database.owner().await).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().constraint(), Some("service_keys_scopes_known"));
}

#[tokio::test]
async fn making_a_key_needs_a_fresh_proof_and_the_role_until_the_commit() {
    let story = Story::new().await;
    let ada = story.administrator("ada@example.com").await;
    let (id, _) = key_of_mail(&story, &ada).await;
    let body = json!({"name": "Mine", "scopes": ["credits:grant"]});
    for what in ["make", "revoke"] {
        let held = story.holding("UPDATE auth.users SET role = 'user'").await;
        let request = if what == "make" {
            story.client.post(KEYS, &body)
        } else {
            story.client.request(http::Method::DELETE, &format!("{KEYS}/{id}"))
        };
        let sent = story.send_to_wait(request.bearer(&ada.access_token), 1).await;
        let_go(held).await;
        let refused = sent.await.unwrap();
        assert_eq!((refused.status.as_u16(), refused.problem()), (403, "auth.admin_required"), "{what}");
        story.set_role(&ada, "admin").await;
    }
    assert_eq!(story.number("SELECT count(*) FROM auth.service_keys WHERE revoked_at IS NULL").await, 1);

    story.clock.advance(time::Duration::minutes(11));
    let stale = create(&story, &ada, &body).await;
    assert_eq!((stale.status.as_u16(), stale.problem()), (403, "auth.fresh_authentication_required"));
    assert_eq!(revoke(&story.client, &ada, &id).await.status, 204, "taking one away waits for nothing");
    let proof = json!({"password": PASSWORD});
    let proven = story.client.post("/api/v1/auth/reauthenticate", &proof).bearer(&ada.access_token);
    assert_eq!(proven.send().await.status, 200);
    assert_eq!(create(&story, &ada, &body).await.status, 201, "the control");
}
