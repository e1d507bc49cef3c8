//! Sessions that the backend of an app opens for a user: they read and spend, prove nothing, and end when they were to end.

use crate::story::{PASSWORD, Replica, Story, User, members, spend_of};
use crate::surface::{KEY, stored, with_service_key};
use crate::two_factor;
use http::Method;
use mana_platform::config::TwoFactorRequired;
use mana_testkit::{Client, Reply};
use serde_json::{Value, json};
use time::Duration;

const MINT: &str = "/api/v1/internal/sessions";
const KEYS: &str = "/api/v1/admin/service-keys";
const OPEN: &str = "SELECT count(*) FROM auth.sessions WHERE minted_by IS NOT NULL AND revoked_at IS NULL";

/// An administrator, and the id and text of a key of chat's that opens sessions.
struct Backend {
    admin: User,
    id: String,
    key: String,
}

async fn key(story: &Story, admin: &User, app: Option<&str>, scopes: Value) -> (String, String) {
    let mut body = json!({"name": "A backend", "scopes": scopes});
    if let Some(app) = app {
        body["appId"] = json!(app);
    }
    let created = story.client.post(KEYS, &body).bearer(&admin.access_token).send().await;
    assert_eq!(created.status, 201, "{}", created.json);
    (created.text("/id").to_owned(), created.text("/key").to_owned())
}

async fn backend(story: &Story) -> Backend {
    let admin = story.administrator("root@example.com").await;
    let (id, key) = key(story, &admin, Some("chat"), json!(["sessions:mint"])).await;
    Backend { admin, id, key }
}

async fn ask(client: &Client, key: &str, body: &Value) -> Reply {
    client.post(MINT, body).header("x-service-key", key).header("user-agent", "node").send().await
}

/// A session that the app has opened.
async fn mint(story: &Story, key: &str, body: &Value) -> User {
    let minted = ask(&story.client, key, body).await;
    assert_eq!(minted.status, 201, "{}", minted.json);
    assert!(!minted.headers.contains_key("set-cookie"), "no browser gets on with it");
    User {
        id: minted.text("/user/id").to_owned(),
        email: minted.text("/user/email").to_owned(),
        access_token: minted.text("/accessToken").to_owned(),
        refresh_token: minted.text("/refreshToken").to_owned(),
        cookie: String::new(),
    }
}

fn refusal(reply: &Reply) -> (u16, &str) {
    (reply.status.as_u16(), reply.problem())
}

#[tokio::test]
async fn an_app_opens_a_session_that_reads_and_spends_as_its_user() {
    let story = Story::new().await;
    let backend = backend(&story).await;
    let ada = story.user("ada@example.com").await;
    let body = json!({"userId": ada.id, "deviceName": "Kiosk 3"});
    let answer = ask(&story.client, &backend.key, &body).await;
    let login = story.login("ada@example.com").await;
    assert_eq!((answer.status.as_u16(), members(&answer.json)), (201, members(&login.json)));
    assert_eq!((&answer.json["user"], &answer.json["expiresIn"]), (&login.json["user"], &json!(900)));
    let minted = mint(&story, &backend.key, &body).await;
    assert_eq!(story.get("/api/v1/auth/me", &minted).await.text("/id"), ada.id);
    assert_eq!(story.spend(&minted, &spend_of(1)).await.status, 201);
    let next = story.refresh(&minted.refresh_token).await;
    assert_eq!(next.status, 200, "{}", next.json);

    let list = story.get("/api/v1/auth/sessions", &ada).await;
    let (by_app, own): (Vec<_>, Vec<_>) =
        list.json.as_array().unwrap().iter().partition(|one| one.get("openedByApp").is_some());
    assert_eq!((by_app.len(), own.len()), (2, 2), "{}", list.json);
    for one in by_app {
        assert_eq!((&one["openedByApp"], &one["deviceName"]), (&json!("chat"), &json!("chat: Kiosk 3")));
    }
    let events = story.get("/api/v1/auth/security-events", &ada).await;
    let events = events.json.as_array().unwrap();
    let told = events.iter().find(|event| event["type"] == "session_minted").unwrap();
    assert_eq!(told["detail"], json!(format!("{} chat", backend.id)), "which key, which app");
}

#[tokio::test]
async fn nobody_else_opens_one_and_for_nobody_who_is_to_sign_in() {
    let story = with_service_key().await;
    let Backend { admin, key: chats, .. } = backend(&story).await;
    let ada = story.user("ada@example.com").await;
    let (_, reads) = key(&story, &admin, Some("chat"), json!(["credits:read", "credits:spend"])).await;
    let (_, anys) = key(&story, &admin, None, json!(["sessions:mint"])).await;
    let (gone_id, gone) = key(&story, &admin, Some("chat"), json!(["sessions:mint"])).await;
    let revoke = story.client.request(Method::DELETE, &format!("{KEYS}/{gone_id}"));
    assert_eq!(revoke.bearer(&admin.access_token).send().await.status, 204);
    let (shut, program) = (story.user("shut@example.com").await, story.user("program@example.com").await);
    story.execute("UPDATE auth.users SET disabled_at = now() WHERE email = 'shut@example.com'").await;
    story.set_role(&program, "service").await;
    let deleted = story.user("deleted@example.com").await;
    let erased = story.client.request(Method::DELETE, "/api/v1/auth/account").bearer(&deleted.access_token);
    let erased = erased.body("application/json", json!({"password": PASSWORD}).to_string()).send().await;
    assert_eq!(erased.status, 200, "{}", erased.json);
    let guarded = story.user("guarded@example.com").await;
    let guarded = two_factor::set_up(&story, guarded).await.user;
    let strict = story.replica_with(|settings| settings.require_email_verification = true).await;
    let all = story.replica_with(|settings| settings.two_factor_required = TwoFactorRequired::All).await;

    let before = stored(&story).await;
    let body = |user: &str| json!({"userId": user});
    let ordinary = body(&ada.id);
    for (key, expected) in [
        (reads.as_str(), (403, "service.scope_missing")),
        (KEY, (403, "service.scope_missing")),
        (anys.as_str(), (403, "service.key_unbound")),
        (gone.as_str(), (401, "service.unauthenticated")),
        ("mana_sk_", (401, "service.unauthenticated")),
    ] {
        assert_eq!(refusal(&ask(&story.client, key, &ordinary).await), expected);
    }
    for user in [&ada, &admin] {
        let by_user = story.client.post(MINT, &ordinary).bearer(&user.access_token).send().await;
        assert_eq!(refusal(&by_user), (401, "service.unauthenticated"));
    }
    for (key, code) in [(&anys, "service.key_unbound"), (&chats, "service.app_mismatch")] {
        let named = story.client.post(MINT, &ordinary).header("x-service-key", key);
        assert_eq!(refusal(&named.header("x-app-id", "mail").send().await), (403, code));
    }
    for (user, expected) in [
        (admin.id.as_str(), (403, "auth.not_minted_for_role")),
        (program.id.as_str(), (403, "auth.not_minted_for_role")),
        (guarded.id.as_str(), (403, "auth.not_minted_without_factor")),
        (shut.id.as_str(), (404, "auth.no_such_user")),
        (deleted.id.as_str(), (404, "auth.no_such_user")),
        ("nobody", (404, "auth.no_such_user")),
    ] {
        assert_eq!(refusal(&ask(&story.client, &chats, &body(user)).await), expected, "{user}");
    }
    for (field, value) in [
        ("expiresInSeconds", json!(59)),
        ("expiresInSeconds", json!(86_401)),
        ("expiresInSeconds", json!("3600")),
        ("expiresInSeconds", json!(i64::MAX)),
        ("deviceName", json!("")),
        ("deviceName", json!("x".repeat(101))),
        ("deviceName", json!("two\nlines")),
        ("userId", json!("")),
        ("role", json!("admin")),
    ] {
        let mut body = ordinary.clone();
        body[field] = value;
        let refused = ask(&story.client, &chats, &body).await;
        assert_eq!(refusal(&refused), (400, "request.invalid_body"), "{body}");
    }
    assert_eq!(refusal(&ask(&strict.client, &chats, &ordinary).await), (403, "EMAIL_NOT_VERIFIED"));
    let refused = ask(&all.client, &chats, &ordinary).await;
    assert_eq!(refusal(&refused), (403, "auth.not_minted_without_factor"));
    assert_eq!(stored(&story).await, before, "nothing has happened");

    mint(&story, &chats, &ordinary).await;
    assert_eq!(story.number(OPEN).await, 1, "the control");
    all.workers.demand_second_factors().await;
    assert_eq!(story.number(OPEN).await, 0, "it counts as one without a factor");
}

#[tokio::test]
async fn a_minted_session_proves_nothing_and_changes_no_protection() {
    let story = Story::new().await;
    let backend = backend(&story).await;
    let ada = story.user("ada@example.com").await;
    let minted = mint(&story, &backend.key, &json!({"userId": ada.id})).await;
    let devices = story.get("/api/v1/auth/sessions", &ada).await;
    let own = devices.json.as_array().unwrap().iter().find(|one| one["current"] == true).unwrap();
    let (own, id) = (own["id"].as_str().unwrap(), "00000000-0000-7000-8000-000000000000");
    let password = json!({"currentPassword": PASSWORD, "newPassword": "another horse battery"});
    let before = stored(&story).await;
    let get = json!(null);
    for (method, path, body) in [
        (Method::POST, "/api/v1/auth/reauthenticate".to_owned(), json!({"password": PASSWORD})),
        (Method::POST, "/api/v1/auth/reauthenticate".to_owned(), json!({"code": "123456"})),
        (Method::POST, "/api/v1/auth/two-factor/enrol".to_owned(), json!({})),
        (Method::POST, "/api/v1/auth/two-factor/confirm".to_owned(), json!({"code": "123456"})),
        (Method::DELETE, "/api/v1/auth/two-factor".to_owned(), json!({})),
        (Method::POST, "/api/v1/auth/two-factor/recovery-codes".to_owned(), json!({})),
        (Method::POST, "/api/v1/auth/passkeys/registration-options".to_owned(), json!({})),
        (Method::DELETE, format!("/api/v1/auth/passkeys/{id}"), json!({})),
        (Method::DELETE, format!("/api/v1/auth/linked-accounts/{id}"), json!({})),
        (Method::DELETE, format!("/api/v1/auth/trusted-devices/{id}"), get.clone()),
        (Method::POST, "/api/v1/auth/change-email".to_owned(), json!({"newEmail": "thief@example.org"})),
        (Method::POST, "/api/v1/auth/change-password".to_owned(), password),
        (Method::DELETE, "/api/v1/auth/account".to_owned(), json!({"password": PASSWORD})),
        (Method::DELETE, "/api/v1/auth/account".to_owned(), json!({})),
        (Method::DELETE, "/api/v1/auth/sessions".to_owned(), get.clone()),
        (Method::DELETE, format!("/api/v1/auth/sessions/{own}"), get.clone()),
        (Method::GET, "/api/v1/auth/export".to_owned(), get.clone()),
        (
            Method::PUT,
            "/api/v1/credits/auto-top-up".to_owned(),
            json!({"thresholdMana": 100, "package": "small"}),
        ),
    ] {
        let request = story.client.request(method, &path).bearer(&minted.access_token);
        let request =
            if body.is_null() { request } else { request.body("application/json", body.to_string()) };
        let refused = request.send().await;
        let expected = ["auth.minted_session", "auth.fresh_authentication_required"];
        assert!(refused.status == 403 && expected.contains(&refused.problem()), "{path} {}", refused.json);
    }
    assert_eq!(stored(&story).await, before, "nothing has happened");
    assert!(story.is_signed_in(&ada).await);

    // The controls: in a session that was signed in to, and the one thing that an app may end.
    assert_eq!(story.get("/api/v1/auth/export", &ada).await.status, 200);
    let enrol = story.client.post("/api/v1/auth/two-factor/enrol", &json!({})).bearer(&ada.access_token);
    assert_eq!(enrol.send().await.status, 200);
    let out = story.client.request(Method::POST, "/api/v1/auth/logout").bearer(&minted.access_token);
    assert_eq!(out.send().await.status, 200);
    assert!(!story.is_signed_in(&minted).await && story.is_signed_in(&ada).await);
}

#[tokio::test]
async fn it_administrates_nothing_whatever_its_user_becomes() {
    let story = Story::new().await;
    let backend = backend(&story).await;
    let ada = story.user("ada@example.com").await;
    let minted = mint(&story, &backend.key, &json!({"userId": ada.id})).await;
    // By hand, so that no session ends.
    story.set_role(&ada, "admin").await;
    let refused = story.get("/api/v1/admin/users", &minted).await;
    assert_eq!(refusal(&refused), (403, "auth.admin_required"));
    assert_eq!(story.get("/api/v1/admin/users", &ada).await.status, 200, "the control");
}

#[tokio::test]
async fn it_ends_when_it_was_to_end_however_it_is_used() {
    let story = Story::new().await;
    let backend = backend(&story).await;
    let ada = story.user("ada@example.com").await;
    let body = json!({"userId": ada.id, "expiresInSeconds": 120});
    let minted = ask(&story.client, &backend.key, &body).await;
    assert_eq!(minted.integer("/expiresIn"), 120, "nor does a token say that it lives for longer");
    story.clock.advance(Duration::seconds(100));
    let next = story.refresh(minted.text("/refreshToken")).await;
    assert_eq!((next.status.as_u16(), next.integer("/expiresIn")), (200, 20));
    let me = |token: String| story.client.get("/api/v1/auth/me").bearer(&token).send();
    let token = next.text("/accessToken").to_owned();
    assert_eq!(me(token.clone()).await.status, 200);
    story.clock.advance(Duration::seconds(20));
    assert_eq!(me(token).await.status, 401);
    assert_eq!(story.refresh(next.text("/refreshToken")).await.status, 401);
    assert!(story.is_signed_in(&ada).await, "the control: what was signed in to goes on");
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 200);
}

#[tokio::test]
async fn its_end_is_not_put_off_by_a_server_that_does_not_know_it() {
    let story = Story::new().await;
    let backend = backend(&story).await;
    let ada = story.user("ada@example.com").await;
    let minted = mint(&story, &backend.key, &json!({"userId": ada.id, "expiresInSeconds": 120})).await;
    // As a server of the release before refreshes it.
    story.execute("UPDATE auth.sessions SET expires_at = expires_at + interval '7 days'").await;
    story.execute("UPDATE auth.refresh_chains SET expires_at = expires_at + interval '7 days'").await;
    let ends = "SELECT count(*) FROM auth.sessions WHERE expires_at > created_at + interval '8 days'";
    assert!(story.number(ends).await > 0, "the control: all others are put off");
    story.clock.advance(Duration::seconds(120));
    assert_eq!(story.refresh(&minted.refresh_token).await.status, 401);
    assert_eq!(story.get("/api/v1/auth/me", &minted).await.status, 401);
}

#[tokio::test]
async fn its_tokens_say_who_acts_and_those_of_a_sign_in_say_nothing() {
    let story = Story::new().await;
    let backend = backend(&story).await;
    let ada = story.user("ada@example.com").await;
    let minted = mint(&story, &backend.key, &json!({"userId": ada.id})).await;
    let next = story.refresh(&minted.refresh_token).await;
    for (token, act) in [
        (minted.access_token.as_str(), json!({"sub": "app:chat"})),
        (next.text("/accessToken"), json!({"sub": "app:chat"})),
        (&ada.access_token, Value::Null),
    ] {
        let token = json!({ "token": token });
        let validated = story.client.post("/api/v1/auth/validate", &token).send().await;
        assert_eq!((&validated.json["valid"], &validated.json["payload"]["act"]), (&json!(true), &act));
    }
}

#[tokio::test]
async fn its_user_ends_it_and_no_app_ends_the_users_own_by_opening_many() {
    let story = Story::with(|settings| settings.sessions_per_user = 2).await;
    let backend = backend(&story).await;
    let (_, mails) = key(&story, &backend.admin, Some("mail"), json!(["sessions:mint"])).await;
    let ada = story.user("ada@example.com").await;
    let body = json!({"userId": ada.id});
    let of_mail = mint(&story, &mails, &body).await;
    let mut opened = Vec::new();
    for _ in 0..12 {
        opened.push(mint(&story, &backend.key, &body).await);
        story.clock.advance(Duration::SECOND);
    }
    assert_eq!(story.number(OPEN).await, 11, "ten of an app");
    assert!(!story.is_signed_in(&opened[1]).await && story.is_signed_in(&opened[2]).await);
    assert!(story.is_signed_in(&ada).await && story.is_signed_in(&of_mail).await);
    let second = story.sign_in("ada@example.com").await;
    assert!(story.is_signed_in(&ada).await && story.number(OPEN).await == 11, "nor the other way round");
    story.sign_in("ada@example.com").await;
    assert!(!story.is_signed_in(&ada).await, "the control: a third sign-in is one too many");

    let list = story.get("/api/v1/auth/sessions", &second).await;
    for one in list.json.as_array().unwrap().iter().filter(|one| one["openedByApp"] == "chat") {
        let path = format!("/api/v1/auth/sessions/{}", one["id"].as_str().unwrap());
        let end = story.client.request(Method::DELETE, &path).bearer(&second.access_token);
        assert_eq!(end.send().await.status, 204);
    }
    assert_eq!(story.number(OPEN).await, 1);
    assert!(!story.is_signed_in(&opened[11]).await && story.is_signed_in(&of_mail).await);
    assert_eq!(story.refresh(&opened[11].refresh_token).await.status, 401);
}

#[tokio::test]
async fn a_key_that_was_revoked_elsewhere_a_moment_ago_opens_nothing() {
    let story = Story::new().await;
    let backend = backend(&story).await;
    let ada = story.user("ada@example.com").await;
    let Replica { client, .. } = story.replica_with(|_| {}).await;
    let body = json!({"userId": ada.id});
    assert_eq!(
        ask(&client, &backend.key, &body).await.status,
        201,
        "the control; it knows the key from now on"
    );
    let path = format!("{KEYS}/{}", backend.id);
    let revoked = story.client.request(Method::DELETE, &path).bearer(&backend.admin.access_token);
    assert_eq!(revoked.send().await.status, 204);
    let refused = ask(&client, &backend.key, &body).await;
    assert_eq!(refusal(&refused), (401, "service.unauthenticated"));
    assert_eq!(story.number(OPEN).await, 1);
}

#[tokio::test]
async fn the_owner_is_told_of_each_app_once_and_disowns_what_it_opened() {
    let story = Story::new().await;
    let backend = backend(&story).await;
    let (_, others) = key(&story, &backend.admin, Some("mail"), json!(["sessions:mint"])).await;
    let ada = story.user("ada@example.com").await;
    story.forget_mails().await;
    let body = json!({"userId": ada.id, "deviceName": "Firefox on Windows"});
    let first = mint(&story, &backend.key, &body).await;
    let again = mint(&story, &backend.key, &body).await;
    let told: Vec<_> = story.mails().await;
    let [mail] = told.as_slice() else { panic!("{told:?}") };
    let text = &mail.mail.text;
    assert!(text.contains("the app chat") && text.contains("without a sign-in"), "{text}");
    assert!(!text.contains("Firefox"), "what the backend says of the device is not repeated: {text}");
    mint(&story, &others, &body).await;
    assert_eq!(story.mails().await.len(), 2, "another app");
    // What the backend calls itself makes no browser known.
    let credentials = json!({"email": "ada@example.com", "password": PASSWORD});
    let stranger = story.client.post("/api/v1/auth/login", &credentials).header("user-agent", "node");
    assert_eq!(stranger.send().await.status, 200);
    assert_eq!(story.mails().await.len(), 3);

    let link =
        text.lines().find_map(|line| line.strip_prefix("http://localhost:3001/not-me?token=")).unwrap();
    let form = story.client.request(Method::POST, "/not-me");
    let form = form.body("application/x-www-form-urlencoded", format!("token={link}")).send().await;
    assert_eq!(form.status, 200);
    assert!(
        !story.is_signed_in(&first).await && !story.is_signed_in(&again).await,
        "all that the app opened"
    );
    assert!(story.is_signed_in(&ada).await);
    mint(&story, &backend.key, &body).await;
    assert_eq!(story.mails().await.len(), 4, "and of the next one she is told again");
}

#[tokio::test]
async fn how_many_are_opened_has_a_limit_of_its_own() {
    let story = Story::with(|settings| {
        settings.rate_limit_max = 1000;
        settings.rate_limit_mint = 2;
        settings.rate_limit_register = 0;
    })
    .await;
    let backend = backend(&story).await;
    let ada = story.user("ada@example.com").await;
    let bob = story.user("bob@example.com").await;
    let from = |address: &str| story.client.at(address);
    let body = json!({"userId": ada.id});
    for address in ["192.0.2.1", "198.51.100.1"] {
        assert_eq!(ask(&from(address), &backend.key, &body).await.status, 201);
    }
    let refused = ask(&from("203.0.113.1"), &backend.key, &body).await;
    assert_eq!(refusal(&refused), (429, "request.rate_limited"), "for a user, from wherever");
    assert!(refused.headers.contains_key("retry-after"));
    let other = json!({"userId": bob.id});
    assert_eq!(ask(&from("192.0.2.1"), &backend.key, &other).await.status, 201, "the control");
    let refused = ask(&from("192.0.2.1"), &backend.key, &other).await;
    assert_eq!(refused.status, 429, "from an address, for whomever: {}", refused.json);
    assert_eq!(story.number(OPEN).await, 3);
}
