//! Who reads the database, Redis, the metrics or a mail that waits has no key to anything; who plants cookies has no session.

use super::{code_in, set_up_second_factor};
use crate::story::{PASSWORD, Story, User, spend_of};
use crate::surface::stored;
use http::Method;
use mana_testkit::RedisServer;
use serde_json::json;
use time::Duration;

/// Every secret that a client was ever told or has told, by what it is.
async fn all_secrets(story: &Story) -> Vec<(&'static str, String)> {
    let claim = story.claim_link().await.unwrap();
    let ada = story.administrator("ada@example.com").await;
    let post = async |path: &str, body: serde_json::Value| {
        let reply = story.client.post(path, &body).bearer(&ada.access_token).send().await;
        assert!(reply.status.is_success(), "{path} {}", reply.json);
        reply
    };
    let key = post("/api/v1/admin/service-keys", json!({"name": "mail", "scopes": ["credits:read"]})).await;
    let hook = json!({"url": "https://hooks.example.com/", "events": ["session.revoked"]});
    let hook = post("/api/v1/admin/apps/mail/webhooks", hook).await;
    let credentials = json!({"email": "ada@example.com", "password": PASSWORD});
    let elsewhere = story.client.post("/api/v1/auth/login", &credentials).header("user-agent", "curl/8");
    let elsewhere = User::of(&elsewhere.send().await);
    let refreshed = story.refresh(&elsewhere.refresh_token).await;
    let factor = set_up_second_factor(story, &ada).await;
    let waiting = story.login("ada@example.com").await;
    let verified = story
        .post(
            "/api/v1/auth/two-factor/verify",
            &json!({"challengeToken": waiting.text("/challengeToken"), "code": code_in(story, &factor.secret), "trustDevice": true}),
        )
        .await;
    assert_eq!(verified.status, 200, "{}", verified.json);
    let cookies: Vec<_> = verified
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|value| value.to_str().unwrap().to_owned())
        .collect();
    let trusted = cookies.iter().find(|cookie| cookie.contains("trusted")).expect("a browser is trusted");
    let value = |cookie: &str| cookie.split(';').next().unwrap().split_once('=').unwrap().1.to_owned();
    let still_waiting = story.login("ada@example.com").await;
    let mut secrets = vec![
        ("password", PASSWORD.to_owned()),
        ("access token", ada.access_token.clone()),
        ("signature", ada.access_token.rsplit('.').next().unwrap().to_owned()),
        ("refresh token", ada.refresh_token.clone()),
        ("rotated token", refreshed.text("/refreshToken").to_owned()),
        ("cookie", value(&ada.cookie)),
        ("service key", key.text("/key").to_owned()),
        ("secret of an endpoint", hook.text("/secret").to_owned()),
        ("link to claim", claim.split_once('=').unwrap().1.to_owned()),
        ("secret of the app", factor.secret.clone()),
        ("cookie of a trusted browser", value(trusted)),
        ("sign-in that waits", still_waiting.text("/challengeToken").to_owned()),
        (
            "root secret",
            secrecy::ExposeSecret::expose_secret(story.root_secret()).split_once(':').unwrap().1.to_owned(),
        ),
    ];
    for recovery in &factor.recovery_codes {
        secrets.push(("recovery code", recovery.clone()));
        secrets.push(("recovery code", recovery.replace('-', "")));
    }
    secrets
}

/// A text as it may lie somewhere: as it is, or its bytes in hexadecimal.
fn spellings(secret: &str) -> [String; 2] {
    [secret.to_owned(), crate::story::hex(secret.as_bytes())]
}

#[tokio::test]
async fn no_secret_lies_in_clear_in_the_database_in_redis_or_in_the_metrics() {
    let redis = RedisServer::start();
    let story = Story::with(|settings| {
        settings.rate_limit_max = 1_000;
        settings.rate_limit_login = 1_000;
        settings.redis_url = Some(redis.url().into());
        // A busy machine is no lost Redis.
        settings.redis_wait_ms = 60_000;
    })
    .await;
    let secrets = all_secrets(&story).await;
    assert!(secrets.len() > 30);
    // Before the mails go: those that wait are in the database too.
    let database = stored(&story).await;
    let mails = story.mails().await;
    let link = mails
        .iter()
        .find_map(|mail| mail.mail.text.split_once("/not-me?token="))
        .expect("a mail tells of a device")
        .1;
    let link = link.split_whitespace().next().unwrap().to_owned();
    let metrics = story.client.get("/metrics").send().await;
    let metrics = String::from_utf8(metrics.bytes.to_vec()).unwrap();
    let redis_keys = redis.keys_with_ttl().await;
    assert!(
        !redis_keys.is_empty() && metrics.contains("http_requests_total"),
        "there is something to look through"
    );
    for (what, secret) in secrets.iter().chain(&[("link of a mail", link)]) {
        for secret in spellings(secret) {
            for (table, rows) in &database {
                assert!(!rows.contains(&secret), "a {what} is in {table}");
            }
            assert!(!metrics.contains(&secret), "a {what} is in the metrics");
            assert!(redis_keys.iter().all(|(key, _)| !key.contains(&secret)), "a {what} is in Redis");
        }
    }
    for (table, rows) in &database {
        for kind in ["mst_", "mrt_", "mch_", "mana_sk_", "mana_whsec_", "mnm_", "PRIVATE KEY"] {
            assert!(!rows.contains(kind), "{table} has something like {kind}");
        }
    }
    // The control: what is no secret is found.
    assert!(database.iter().any(|(table, rows)| table == "auth.users" && rows.contains("ada@example.com")));
}

#[tokio::test]
async fn a_redis_that_is_lost_emptied_or_old_revives_nothing() {
    let mut redis = RedisServer::start();
    let story = Story::with(|settings| {
        settings.rate_limit_max = 1_000;
        settings.redis_url = Some(redis.url().into());
        // A busy machine is no lost Redis.
        settings.redis_wait_ms = 60_000;
    })
    .await;
    let (gone, live) = (story.user("gone@example.com").await, story.user("live@example.com").await);
    assert_eq!(story.spend(&live, &spend_of(20)).await.status, 201);
    // What an old copy would have: nothing of sessions, and everything with an end.
    let old = redis.keys_with_ttl().await;
    assert!(!old.is_empty());
    for (key, ttl) in &old {
        assert!(key.starts_with("mana:rate:") || key.starts_with("mana:sign-in:"), "{key} is no count");
        // Redis says -2 of one that has just ended, and -1 of one that never does.
        assert_ne!(*ttl, -1, "{key} never ends");
    }
    let out =
        story.client.request(Method::POST, "/api/v1/auth/logout").bearer(&gone.access_token).send().await;
    assert_eq!(out.status, 200);
    for is_there in [true, false, true] {
        match is_there {
            false => redis.kill(),
            true if redis_is_gone(&redis).await => redis.restart(),
            true => {}
        }
        assert!(!story.is_signed_in(&gone).await, "Redis is there: {is_there}");
        assert_eq!(story.refresh(&gone.refresh_token).await.status, 401);
        let session = story.client.get("/api/auth/get-session").header("cookie", &gone.cookie).send().await;
        assert_eq!(session.json, json!(null));
        assert!(story.is_signed_in(&live).await, "the control");
        let balance = story.get("/api/v1/credits/balance", &live).await;
        assert_eq!(balance.integer("/freeCreditsRemaining"), 130);
    }
}

async fn redis_is_gone(redis: &RedisServer) -> bool {
    tokio::net::UnixStream::connect(redis.url().trim_start_matches("unix://")).await.is_err()
}

#[tokio::test]
async fn a_service_key_opens_nothing_of_a_users_and_no_users_secret_is_a_key() {
    const KEY: &str = "a-service-key-of-the-environment";
    let story = Story::with(|settings| settings.service_key = Some(KEY.into())).await;
    let ada = story.administrator("ada@example.com").await;
    let made = json!({"name": "mail", "scopes": ["credits:read"]});
    let made = story.client.post("/api/v1/admin/service-keys", &made).bearer(&ada.access_token).send().await;
    let balance = format!("/api/v1/credits/balance/{}", ada.id);
    for key in [KEY, made.text("/key")] {
        assert_eq!(story.client.get("/api/v1/auth/me").bearer(key).send().await.status, 401);
        assert_eq!(story.refresh(key).await.status, 401);
        assert_eq!(story.post("/api/v1/auth/validate", &json!({"token": key})).await.json["valid"], false);
        assert_eq!(story.post("/api/v1/auth/logout", &json!({"refreshToken": key})).await.status, 401);
        let cookie = format!("mana.session_token={key}");
        let session = story.client.get("/api/auth/get-session").header("cookie", &cookie).send().await;
        assert_eq!(session.json, json!(null));
        for path in [
            "/api/v1/auth/me",
            "/api/v1/auth/sessions",
            "/api/v1/admin/service-keys",
            "/api/v1/admin/credits/usage",
        ] {
            assert_eq!(
                story.client.get(path).header("x-service-key", key).send().await.status,
                401,
                "{path}"
            );
        }
        let control =
            story.client.get(&balance).header("x-service-key", key).header("x-app-id", "mail").send().await;
        assert_eq!(control.status, 200, "the control: {}", control.json);
    }
    let cookie = ada.cookie.split_once('=').unwrap().1;
    for secret in [&ada.access_token, &ada.refresh_token, cookie, PASSWORD] {
        let refused = story.client.get(&balance).header("x-service-key", secret).send().await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (401, "service.unauthenticated"));
    }
    assert!(story.is_signed_in(&ada).await);
}

/// As many as a page of one sibling domain can set so that a browser sends them before the visitor's own: one for each longer path.
#[tokio::test]
async fn cookies_planted_by_a_sibling_domain_do_not_hide_the_visitors_own() {
    let story = Story::new().await;
    story.register("ada@example.com").await;
    let mut planted = Vec::new();
    story.register("mallory@example.com").await;
    for _ in 0..7 {
        planted.push(story.sign_in("mallory@example.com").await.cookie);
    }
    story.clock.advance(Duration::seconds(1));
    let ada = story.sign_in("ada@example.com").await;
    let cookies = format!("{}; {}", planted.join("; "), ada.cookie);
    let session = story.client.get("/api/auth/get-session").header("cookie", &cookies).send().await;
    assert_eq!(session.text("/user/email"), "ada@example.com", "the newest sign-in counts");
    let exchange =
        story.client.request(Method::POST, "/api/v1/auth/session-to-token").header("cookie", &cookies);
    assert_eq!(exchange.send().await.text("/user/email"), "ada@example.com");
    let out =
        story.client.request(Method::POST, "/api/auth/sign-out").header("cookie", &cookies).send().await;
    assert_eq!(out.status, 200);
    assert!(!story.is_signed_in(&ada).await, "her session ends, whatever stands before it");
}

#[tokio::test]
async fn guesses_for_many_accounts_from_one_address_meet_its_limit_and_other_addresses_none() {
    let story = Story::with(|settings| settings.rate_limit_max = 100).await;
    story.register("ada@example.com").await;
    let attacker = story.client.at("198.51.100.7");
    let guess = |number: u32| {
        let body = json!({"email": format!("victim-{number}@example.com"), "password": PASSWORD});
        attacker
            .post("/api/v1/auth/login", &body)
            .header("x-forwarded-for", &format!("192.0.2.{number}"))
            .send()
    };
    let replies = futures_util::future::join_all((0..40).map(guess)).await;
    let looked_at = replies.iter().filter(|reply| reply.status == 401).count();
    assert_eq!(looked_at, 10, "ten a minute, however many at once, and whatever address they say they have");
    assert!(replies.iter().all(|reply| [401, 429].contains(&reply.status.as_u16())));
    let spelled =
        ["ADA@example.com", "ada@EXAMPLE.com"].map(|email| json!({"email": email, "password": PASSWORD}));
    for body in spelled {
        assert_eq!(attacker.post("/api/v1/auth/login", &body).send().await.status, 429);
        let owner = story.client.at("203.0.113.5").post("/api/v1/auth/login", &body).send().await;
        assert_eq!(owner.status, 200, "the control: the owner elsewhere");
    }
}
