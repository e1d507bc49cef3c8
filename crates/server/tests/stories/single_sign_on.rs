//! One sign-in for all apps of the family: the cookie, the exchange for tokens, and the end of both.

use crate::story::{PASSWORD, Story, User, members, read_jwt};
use http::Method;
use mana_testkit::{Reply, Request};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use time::Duration;

const EXCHANGE: &str = "/api/v1/auth/session-to-token";

async fn sign_in(story: &Story, cookie: &str) -> Reply {
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let request = story.client.post("/api/auth/sign-in/email", &body);
    if cookie.is_empty() { request.send().await } else { request.header("cookie", cookie).send().await }
}

fn cookie_of(reply: &Reply) -> String {
    reply.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
}

/// An exchange as the page of an app sends it.
fn exchange(story: &Story, cookie: &str, origin: &str) -> Request {
    let request = story.client.request(Method::POST, EXCHANGE).header("cookie", cookie);
    if origin.is_empty() {
        request
    } else {
        request.header("origin", origin).header("sec-fetch-site", "same-site")
    }
}

async fn tokens(story: &Story, cookie: &str, origin: &str) -> Reply {
    let reply = exchange(story, cookie, origin).send().await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    reply
}

async fn session_of(story: &Story, cookie: &str) -> Reply {
    story.client.get("/api/auth/get-session").header("cookie", cookie).send().await
}

#[tokio::test]
async fn a_sign_in_by_cookie_answers_as_the_contract_says() {
    let story = Story::new().await;
    let ada = story.register("ada@example.com").await;
    let reply = sign_in(&story, "").await;
    assert_eq!(reply.status, 200);
    assert_eq!(members(&reply.json), ["redirect", "token", "user"]);
    assert_eq!((&reply.json["redirect"], &reply.json["user"]), (&json!(false), &ada.json["user"]));
    let me = story.client.get("/api/v1/auth/me").bearer(reply.text("/token")).send().await;
    assert_eq!(me.status, 200, "the token is an access token");
    assert!(!cookie_of(&reply).contains(reply.text("/token")));

    let session = session_of(&story, &cookie_of(&reply)).await;
    assert_eq!(session.status, 200);
    assert_eq!(members(&session.json), ["session", "user"]);
    assert_eq!(session.json["user"], ada.json["user"]);
    assert!(!session.json.to_string().contains("mst_"), "no cookie in a body");
    let wrong = json!({"email": "ada@example.com", "password": "not the password"});
    let refused = story.post("/api/auth/sign-in/email", &wrong).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (401, "auth.invalid_credentials"));
    assert!(!refused.headers.contains_key("set-cookie"));
}

#[tokio::test]
async fn without_a_live_session_get_session_is_null() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let none = story.client.get("/api/auth/get-session").send().await;
    assert_eq!((none.status.as_u16(), &none.json, &none.bytes[..]), (200, &Value::Null, &b"null"[..]));
    for cookie in ["mana.session_token=garbage", &format!("mana.session_token={}", ada.refresh_token)] {
        assert_eq!(session_of(&story, cookie).await.bytes, "null", "{cookie}");
    }
    story.clock.advance(Duration::days(8));
    assert_eq!(session_of(&story, &ada.cookie).await.bytes, "null", "expired");
}

#[tokio::test]
async fn the_exchanged_refresh_token_works_every_time_also_after_earlier_rotations() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut newest = ada.refresh_token.clone();
    for round in 0..5 {
        let app_b = tokens(&story, &ada.cookie, "http://localhost:3000").await;
        assert_eq!(members(&app_b.json), ["accessToken", "expiresIn", "refreshToken", "tokenType", "user"]);
        assert_ne!(app_b.text("/refreshToken"), ada.cookie.split_once('=').unwrap().1);
        assert!(app_b.text("/refreshToken").starts_with("mrt_"));
        for token in [app_b.text("/refreshToken"), &newest.clone()] {
            let refreshed = story.refresh(token).await;
            assert_eq!(refreshed.status, 200, "round {round}: {}", refreshed.json);
            if token == newest {
                newest = refreshed.text("/refreshToken").to_owned();
            }
        }
    }
}

#[tokio::test]
async fn apps_share_the_session_and_nothing_else() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let (a, b) = (
        tokens(&story, &ada.cookie, "http://localhost:3000").await,
        tokens(&story, &ada.cookie, "http://localhost:8081").await,
    );
    let sid = |reply: &Reply| read_jwt(reply.text("/accessToken"))[1]["sid"].clone();
    assert_eq!(sid(&a), sid(&b));
    let (mut newest_a, mut newest_b) =
        (a.text("/refreshToken").to_owned(), b.text("/refreshToken").to_owned());
    for _ in 0..20 {
        for newest in [&mut newest_a, &mut newest_b] {
            let reply = story.refresh(newest).await;
            assert_eq!(reply.status, 200, "{}", reply.json);
            *newest = reply.text("/refreshToken").to_owned();
        }
        story.clock.advance(Duration::minutes(14));
    }
    let apps: Vec<String> = sqlx::query_scalar("SELECT app_id FROM auth.refresh_chains ORDER BY app_id")
        .fetch_all(&mut story.database.owner().await)
        .await
        .unwrap();
    assert_eq!(apps, ["", "http://localhost:3000", "http://localhost:8081"]);
    let named =
        exchange(&story, &ada.cookie, "http://localhost:3000").header("x-app-id", "mail").send().await;
    assert_eq!(named.status, 200);
    assert_eq!(story.number("SELECT count(*) FROM auth.refresh_chains WHERE app_id = 'mail'").await, 1);
}

#[tokio::test]
async fn a_page_that_exchanges_at_each_load_leaves_a_bounded_number_of_chains() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let first = tokens(&story, &ada.cookie, "http://localhost:3000").await;
    let mut kept = first.text("/refreshToken").to_owned();
    for load in 0..80 {
        story.clock.advance(Duration::seconds(1));
        tokens(&story, &ada.cookie, "http://localhost:3000").await;
        if load % 40 == 0 {
            kept = story.refresh(&kept).await.text("/refreshToken").to_owned();
        }
    }
    let chains = "SELECT count(*) FROM auth.refresh_chains WHERE app_id = 'http://localhost:3000'";
    assert_eq!(story.number(chains).await, 64);
    assert_eq!(story.refresh(&kept).await.status, 200, "the chain in use stays");
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 200, "other apps' chains too");
}

#[tokio::test]
async fn the_cookie_route_goes_on_with_the_session_of_login_under_a_new_cookie() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let reply = sign_in(&story, &ada.cookie).await;
    let next = cookie_of(&reply);
    assert_ne!(next, ada.cookie, "rotated at sign-in");
    assert_eq!(session_of(&story, &ada.cookie).await.bytes, "null", "the one before opens nothing");
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions").await, 1);

    let signed_out = story.post("/api/v1/auth/logout", &json!({"refreshToken": ada.refresh_token})).await;
    assert_eq!(signed_out.status, 200);
    assert_eq!(session_of(&story, &next).await.bytes, "null", "one sign-in, one sign-out");
}

#[tokio::test]
async fn a_sign_in_goes_on_only_with_a_session_that_was_just_opened_at_the_same_place() {
    let story = Story::new().await;
    let thief = story.user("ada@example.com").await;
    story.clock.advance(Duration::minutes(2));
    let later = sign_in(&story, &thief.cookie).await;
    assert_ne!(cookie_of(&later), thief.cookie);
    assert_eq!(
        story.number("SELECT count(*) FROM auth.sessions").await,
        2,
        "not the planted session of the same user"
    );
    let elsewhere = story.sign_in("ada@example.com").await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let request = story.client.at("192.0.2.7").post("/api/auth/sign-in/email", &body);
    assert_eq!(request.header("cookie", &elsewhere.cookie).send().await.status, 200);
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions").await, 4, "nor one of another place");
}

#[tokio::test]
async fn thousands_of_cookies_are_one_question() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let junk = |number: usize| format!("mana.session_token=mst_{number:043}");
    let few: Vec<_> = (0..7).map(junk).collect();
    let found = session_of(&story, &format!("{}; {}", few.join("; "), ada.cookie)).await;
    assert_eq!(found.text("/user/email"), "ada@example.com", "beside cookies that somebody planted");
    let many: Vec<_> = (0..5000).map(junk).collect();
    let flood = session_of(&story, &format!("{}; {}", many.join("; "), ada.cookie)).await;
    assert_eq!(flood.bytes, "null", "only the first few are looked at");
}

#[tokio::test]
async fn a_session_has_a_bounded_number_of_chains_whatever_apps_call_themselves() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    for app in 0..260 {
        story.clock.advance(Duration::milliseconds(1));
        let named = exchange(&story, &ada.cookie, "").header("x-app-id", &format!("app-{app}"));
        assert_eq!(named.send().await.status, 200);
    }
    assert_eq!(story.number("SELECT count(*) FROM auth.refresh_chains").await, 256);
}

#[tokio::test]
async fn a_planted_cookie_is_never_adopted() {
    let story = Story::new().await;
    let (mallory, _) = (story.user("mallory@example.com").await, story.register("ada@example.com").await);
    for cookie in [
        mallory.cookie.clone(),
        format!("mana.session_token=mst_{}", "A".repeat(43)),
        format!("mana.session_token=chosen; {}", mallory.cookie),
    ] {
        let reply = sign_in(&story, &cookie).await;
        assert_eq!(reply.status, 200);
        let given = cookie_of(&reply);
        assert!(!cookie.contains(&given));
        assert_eq!(session_of(&story, &given).await.text("/user/email"), "ada@example.com");
        assert_eq!(session_of(&story, &mallory.cookie).await.text("/user/email"), "mallory@example.com");
    }
    let login = json!({"email": "ada@example.com", "password": PASSWORD});
    let reply =
        story.client.post("/api/v1/auth/login", &login).header("cookie", &mallory.cookie).send().await;
    assert_ne!(cookie_of(&reply), mallory.cookie);
}

#[tokio::test]
async fn signing_out_anywhere_ends_every_app() {
    for way in 0..3 {
        let story = Story::new().await;
        let ada = story.user("ada@example.com").await;
        let (a, b) = (
            tokens(&story, &ada.cookie, "http://localhost:3000").await,
            tokens(&story, &ada.cookie, "http://localhost:8081").await,
        );
        let reply = match way {
            0 => {
                story
                    .client
                    .request(Method::POST, "/api/auth/sign-out")
                    .header("cookie", &ada.cookie)
                    .send()
                    .await
            }
            1 => story.post("/api/v1/auth/logout", &json!({"refreshToken": a.text("/refreshToken")})).await,
            _ => {
                let logout = story.client.request(Method::POST, "/api/v1/auth/logout");
                logout.bearer(b.text("/accessToken")).send().await
            }
        };
        assert_eq!((reply.status.as_u16(), &reply.json["success"]), (200, &json!(true)));
        assert!(reply.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
        for tokens in [&a, &b] {
            assert_eq!(story.refresh(tokens.text("/refreshToken")).await.status, 401, "way {way}");
            let me = story.client.get("/api/v1/auth/me").bearer(tokens.text("/accessToken")).send().await;
            assert_eq!(me.status, 401, "way {way}");
        }
        let refused = exchange(&story, &ada.cookie, "").send().await;
        assert_eq!((refused.status.as_u16(), refused.text("/message")), (401, "Invalid or expired session"));
        assert_eq!(session_of(&story, &ada.cookie).await.bytes, "null");
    }
}

#[tokio::test]
async fn an_exchange_takes_the_cookie_and_nothing_else() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let value = ada.cookie.split_once('=').unwrap().1;
    for (what, request) in [
        ("nothing", story.client.request(Method::POST, EXCHANGE)),
        ("an access token", story.client.request(Method::POST, EXCHANGE).bearer(&ada.access_token)),
        ("the cookie as bearer", story.client.request(Method::POST, EXCHANGE).bearer(value)),
        ("another name", exchange(&story, &format!("session={value}"), "")),
        ("the name of https", exchange(&story, &format!("__Secure-{}", ada.cookie), "")),
    ] {
        let refused = request.send().await;
        assert_eq!(
            (refused.status.as_u16(), refused.text("/message")),
            (401, "No session cookie found"),
            "{what}"
        );
    }
    let forged = exchange(&story, &format!("mana.session_token=mst_{}", "A".repeat(43)), "").send().await;
    assert_eq!((forged.status.as_u16(), forged.text("/message")), (401, "Invalid or expired session"));
    let with_body = story.client.post(EXCHANGE, &json!({})).header("cookie", &ada.cookie).send().await;
    assert_eq!(with_body.status, 200, "old clients send an empty object");
    let unknown =
        story.client.post(EXCHANGE, &json!({"app": "x"})).header("cookie", &ada.cookie).send().await;
    assert_eq!(unknown.status, 400);
    story.execute("UPDATE auth.users SET disabled_at = now()").await;
    assert_eq!(exchange(&story, &ada.cookie, "").send().await.status, 401, "a disabled account");
    assert_eq!(session_of(&story, &ada.cookie).await.bytes, "null");
}

#[tokio::test]
async fn foreign_pages_are_refused_on_every_cookie_route() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let credentials = json!({"email": "ada@example.com", "password": PASSWORD}).to_string();
    for origin in [
        "https://evil.example",
        "null",
        "http://localhost:3000.evil.example",
        "http://localhost:30000",
        "https://localhost:3000",
        "http://evil.localhost:3000",
    ] {
        for media_type in ["application/json", "text/plain", "application/x-www-form-urlencoded"] {
            for path in ["/api/auth/sign-in/email", "/api/auth/sign-out", EXCHANGE] {
                let request = story.client.request(Method::POST, path).body(media_type, credentials.clone());
                let reply = request.header("cookie", &ada.cookie).header("origin", origin).send().await;
                assert_eq!(
                    (reply.status.as_u16(), reply.problem()),
                    (403, "request.foreign_site"),
                    "{origin} {path}"
                );
                assert!(!reply.headers.contains_key("set-cookie"));
                assert!(!reply.headers.contains_key("access-control-allow-origin"), "{origin}");
            }
        }
        let read =
            story.client.get("/api/auth/get-session").header("cookie", &ada.cookie).header("origin", origin);
        let read = read.send().await;
        assert!(!read.headers.contains_key("access-control-allow-origin"), "{origin} may not read");
    }
    let allowed = story.client.get("/api/auth/get-session").header("cookie", &ada.cookie);
    let allowed = allowed.header("origin", "http://localhost:3000").send().await;
    assert_eq!(allowed.headers["access-control-allow-origin"], "http://localhost:3000");
    assert_eq!(allowed.headers["access-control-allow-credentials"], "true");
    assert!(allowed.headers["vary"].to_str().unwrap().to_lowercase().contains("origin"));
    assert!(story.is_signed_in(&ada).await);
}

#[tokio::test]
async fn the_cookie_slides_once_a_day() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.clock.advance(Duration::hours(23));
    assert!(!session_of(&story, &ada.cookie).await.headers.contains_key("set-cookie"));
    story.clock.advance(Duration::hours(2));
    let renewed = session_of(&story, &ada.cookie).await;
    assert_eq!(cookie_of(&renewed), ada.cookie, "the same one: another tab may be using it");
    assert!(renewed.headers["set-cookie"].to_str().unwrap().contains("Max-Age=604800"));
    assert!(!session_of(&story, &ada.cookie).await.headers.contains_key("set-cookie"));
    for _ in 0..5 {
        story.clock.advance(Duration::days(6));
        let exchanged = tokens(&story, &ada.cookie, "").await;
        assert_eq!(cookie_of(&exchanged), ada.cookie);
    }
}

#[tokio::test]
async fn a_session_that_the_cookie_keeps_ends_at_its_absolute_time_out() {
    let story =
        Story::with(|settings| settings.session_max_age = std::time::Duration::from_hours(20 * 24)).await;
    let ada = story.user("ada@example.com").await;
    for _ in 0..3 {
        story.clock.advance(Duration::days(6));
        assert_eq!(tokens(&story, &ada.cookie, "").await.status, 200);
    }
    story.clock.advance(Duration::days(2));
    assert_eq!(session_of(&story, &ada.cookie).await.bytes, "null");
    assert_eq!(exchange(&story, &ada.cookie, "").send().await.status, 401);
}

#[tokio::test]
async fn over_https_the_family_shares_the_cookie_of_its_domain() {
    let story = Story::with(|settings| {
        settings.base_url = Some("https://auth.example.com".parse().unwrap());
        settings.cookie_domain = Some("example.com".parse().unwrap());
        settings.cors_origins = vec!["https://chat.example.com".parse().unwrap()];
    })
    .await;
    story.register("ada@example.com").await;
    let reply = sign_in(&story, "").await;
    let attributes: BTreeSet<_> = reply.headers["set-cookie"].to_str().unwrap().split("; ").skip(1).collect();
    let expected = ["Domain=example.com", "HttpOnly", "Max-Age=604800", "Path=/", "SameSite=None", "Secure"];
    assert_eq!(attributes, BTreeSet::from(expected));
    let cookie = cookie_of(&reply);
    assert!(cookie.starts_with("__Secure-mana.session_token=mst_"));
    assert_eq!(tokens(&story, &cookie, "https://chat.example.com").await.status, 200);
    let plain = cookie.strip_prefix("__Secure-").unwrap();
    assert_eq!(exchange(&story, plain, "").send().await.text("/message"), "No session cookie found");
}

#[tokio::test]
async fn more_sessions_than_may_live_end_the_one_that_rested_longest() {
    let story = Story::with(|settings| settings.sessions_per_user = 3).await;
    let mut users = vec![story.user("ada@example.com").await];
    for _ in 0..2 {
        story.clock.advance(Duration::minutes(5));
        users.push(story.sign_in("ada@example.com").await);
    }
    story.clock.advance(Duration::minutes(5));
    let refreshed = story.refresh(&users[0].refresh_token).await;
    assert_eq!(refreshed.status, 200, "the oldest is in use");
    let newest = story.sign_in("ada@example.com").await;
    assert!(!story.is_signed_in(&users[1]).await);
    assert_eq!(story.refresh(&users[1].refresh_token).await.status, 401);
    assert!(story.is_signed_in(&users[2]).await && story.is_signed_in(&newest).await);
    let me = story.client.get("/api/v1/auth/me").bearer(refreshed.text("/accessToken")).send().await;
    assert_eq!(me.status, 200);
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions WHERE revoked_reason = 'too_many'").await, 1);
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'session_revoked'").await,
        1
    );
    let logins = (0..6).map(|_| story.login("ada@example.com"));
    futures_util::future::join_all(logins).await;
    let live = "SELECT count(*) FROM auth.sessions WHERE revoked_at IS NULL";
    assert_eq!(story.number(live).await, 3, "also when they sign in at once");
}

#[tokio::test]
async fn the_exchange_is_listed_as_one_device() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let app = tokens(&story, &ada.cookie, "http://localhost:3000").await;
    let list = story.client.get("/api/v1/auth/sessions").bearer(app.text("/accessToken")).send().await;
    assert_eq!(list.json.as_array().unwrap().len(), 1);
    assert_eq!((&list.json[0]["current"], &list.json[0]["rememberMe"]), (&json!(true), &json!(false)));
    let cookie_user = User { cookie: ada.cookie.clone(), ..ada };
    assert!(story.is_signed_in(&cookie_user).await);
}
