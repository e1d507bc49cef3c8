//! Signing out: by any of the three credentials that a client may still have.

use crate::story::{PASSWORD, Story, User, respelled};
use http::Method;
use mana_testkit::{Reply, Request};
use serde_json::json;
use time::Duration;

const LOGOUT: &str = "/api/v1/auth/logout";

/// A sign-out with neither body nor content type.
fn bare(story: &Story) -> Request {
    story.client.request(Method::POST, LOGOUT)
}

fn is_done(reply: &Reply) {
    assert_eq!(reply.status, 200, "{}", reply.json);
    assert_eq!(reply.json, json!({"success": true, "message": "Signed out successfully"}));
    let [cookie] = reply.headers.get_all("set-cookie").iter().collect::<Vec<_>>()[..] else {
        panic!("one cookie")
    };
    let mut parts: Vec<_> = cookie.to_str().unwrap().split("; ").collect();
    parts.sort_unstable();
    assert_eq!(parts, ["HttpOnly", "Max-Age=0", "Path=/", "SameSite=Lax", "mana.session_token="]);
}

/// Session, chain and cookie: nothing of it opens anything.
async fn is_out(story: &Story, user: &User) {
    assert!(!story.is_signed_in(user).await);
    let verdict = story.post("/api/v1/auth/validate", &json!({"token": user.access_token})).await;
    assert_eq!(verdict.json["valid"], false);
    let refused = story.refresh(&user.refresh_token).await;
    assert_eq!((refused.status.as_u16(), refused.text("/message")), (401, "Invalid refresh token"));
}

async fn is_in(story: &Story, user: &User) {
    assert!(story.is_signed_in(user).await);
    assert_eq!(story.refresh(&user.refresh_token).await.status, 200);
}

async fn sign_outs(story: &Story) -> i64 {
    story.number("SELECT count(*) FROM auth.security_events WHERE type = 'signed_out'").await
}

#[tokio::test]
async fn each_credential_alone_ends_its_session_and_no_other() {
    for credential in 0..3 {
        let story = Story::new().await;
        let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
        let other_device = story.sign_in("ada@example.com").await;
        let sign_out = || match credential {
            0 => bare(&story).bearer(&ada.access_token),
            1 => story.client.post(LOGOUT, &json!({"refreshToken": ada.refresh_token})),
            _ => bare(&story).header("cookie", &format!("theme=dark; {}; x=y", ada.cookie)),
        };
        is_done(&sign_out().send().await);
        is_out(&story, &ada).await;
        is_done(&sign_out_again(&story, &ada, credential).await);
        is_in(&story, &other_device).await;
        is_in(&story, &bob).await;
        assert_eq!(sign_outs(&story).await, 1, "written down once");
        assert_eq!(
            story.number("SELECT count(*) FROM auth.sessions WHERE revoked_reason = 'signed_out'").await,
            1
        );
    }
}

/// For a session that is gone, with each credential in turn.
async fn sign_out_again(story: &Story, user: &User, credential: usize) -> Reply {
    match credential {
        0 => story.post(LOGOUT, &json!({"refreshToken": user.refresh_token})).await,
        1 => bare(story).header("cookie", &user.cookie).send().await,
        _ => bare(story).bearer(&user.access_token).send().await,
    }
}

#[tokio::test]
async fn all_three_together_sign_out_once() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let body = json!({"refreshToken": ada.refresh_token});
    let whole = story.client.post(LOGOUT, &body).bearer(&ada.access_token).header("cookie", &ada.cookie);
    is_done(&whole.send().await);
    is_out(&story, &ada).await;
    assert_eq!(sign_outs(&story).await, 1);
}

#[tokio::test]
async fn sessions_of_two_sign_ins_end_when_both_are_named() {
    let story = Story::new().await;
    let (phone, laptop) = (story.user("ada@example.com").await, story.sign_in("ada@example.com").await);
    let body = json!({"refreshToken": phone.refresh_token});
    is_done(&story.client.post(LOGOUT, &body).header("cookie", &laptop.cookie).send().await);
    is_out(&story, &phone).await;
    is_out(&story, &laptop).await;
}

#[tokio::test]
async fn a_replaced_refresh_token_signs_out_too() {
    let story = Story::new().await;
    let mut ada = story.user("ada@example.com").await;
    let first = ada.refresh_token.clone();
    for _ in 0..3 {
        let reply = story.refresh(&ada.refresh_token).await;
        reply.text("/refreshToken").clone_into(&mut ada.refresh_token);
    }
    is_done(&story.post(LOGOUT, &json!({"refreshToken": first})).await);
    is_out(&story, &ada).await;
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'refresh_replayed'").await,
        0,
        "no theft"
    );
}

#[tokio::test]
async fn a_session_that_has_expired_is_signed_out_by_refresh_token_and_cookie() {
    let story = Story::new().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    story.clock.advance(Duration::days(8));
    is_done(&story.post(LOGOUT, &json!({"refreshToken": ada.refresh_token})).await);
    is_done(&bare(&story).header("cookie", &bob.cookie).send().await);
}

#[tokio::test]
async fn an_access_token_that_has_expired_ends_its_session_and_opens_nothing() {
    let story = Story::new().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    story.clock.advance(Duration::minutes(15));
    assert!(!story.is_signed_in(&ada).await, "it has expired");
    let forged = respelled(&ada.access_token, 4).into_iter().chain([ada.access_token.replace('.', "..")]);
    for forged in forged {
        assert_eq!(bare(&story).bearer(&forged).send().await.status, 401, "{forged}");
    }
    story.clock.advance(Duration::hours(24));
    is_done(&bare(&story).bearer(&ada.access_token).send().await);
    assert_eq!(sign_outs(&story).await, 1);
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 401);
    let others = story.refresh(&bob.refresh_token).await;
    assert_eq!(others.status, 200, "nobody else's");
    let renewed = others.text("/refreshToken").to_owned();
    is_done(&bare(&story).bearer(&ada.access_token).send().await);
    assert_eq!(sign_outs(&story).await, 1, "once");

    // A day after it has expired it is waste paper: old ones lie about in logs.
    story.clock.advance(Duration::minutes(1));
    assert_eq!(bare(&story).bearer(&bob.access_token).send().await.status, 401);
    assert_eq!(story.refresh(&renewed).await.status, 200, "its session goes on");
}

#[tokio::test]
async fn a_bad_credential_beside_a_good_one_does_not_hinder() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let body = json!({"refreshToken": ada.refresh_token});
    let mixed = story.client.post(LOGOUT, &body).bearer("expired").header("cookie", "mana.session_token=old");
    is_done(&mixed.send().await);
    is_out(&story, &ada).await;
}

#[tokio::test]
async fn without_any_of_the_three_there_is_nothing_to_sign_out() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let cookie = ada.cookie.split_once('=').unwrap().1;
    for (what, request) in [
        ("nothing", bare(&story)),
        ("an empty object", story.client.post(LOGOUT, &json!({}))),
        ("null", story.client.post(LOGOUT, &json!({"refreshToken": null}))),
        ("garbage in the body", story.client.post(LOGOUT, &json!({"refreshToken": "garbage"}))),
        (
            "an access token in the body",
            story.client.post(LOGOUT, &json!({"refreshToken": ada.access_token})),
        ),
        ("the cookie in the body", story.client.post(LOGOUT, &json!({"refreshToken": cookie}))),
        ("a garbage bearer", bare(&story).bearer("garbage")),
        ("a refresh token as bearer", bare(&story).bearer(&ada.refresh_token)),
        ("the cookie as bearer", bare(&story).bearer(cookie)),
        ("another scheme", bare(&story).header("authorization", &format!("Basic {}", ada.access_token))),
        ("a garbage cookie", bare(&story).header("cookie", "mana.session_token=garbage")),
        (
            "a refresh token as cookie",
            bare(&story).header("cookie", &format!("mana.session_token={}", ada.refresh_token)),
        ),
        ("the cookie under another name", bare(&story).header("cookie", &format!("session={cookie}"))),
        ("the cookie of https", bare(&story).header("cookie", &format!("__Secure-{}", ada.cookie))),
        (
            "in the query",
            story.client.request(Method::POST, &format!("{LOGOUT}?refreshToken={}", ada.refresh_token)),
        ),
    ] {
        let refused = request.send().await;
        assert_eq!(refused.status, 401, "{what}: {}", refused.json);
        refused.problem();
        assert!(!refused.headers.contains_key("set-cookie"), "{what}");
    }
    is_in(&story, &ada).await;
    assert_eq!(sign_outs(&story).await, 0);
}

#[tokio::test]
async fn a_forged_refresh_token_signs_nobody_out() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let (body, mac) = ada.refresh_token.rsplit_once('.').unwrap();
    for forged in [
        format!("{body}.{}", "A".repeat(43)),
        ada.refresh_token.replacen(".1.", ".2.", 1),
        format!("mrt_other.1.{mac}"),
    ] {
        let reply = story.post(LOGOUT, &json!({"refreshToken": forged})).await;
        assert!([200, 401].contains(&reply.status.as_u16()), "{}", reply.json);
    }
    is_in(&story, &ada).await;
    assert_eq!(sign_outs(&story).await, 0);
}

#[tokio::test]
async fn a_body_is_not_needed_and_neither_is_its_type() {
    let story = Story::new().await;
    story.register("ada@example.com").await;
    for request in [
        bare(&story),
        bare(&story).header("content-type", "application/json"),
        bare(&story).header("content-type", "application/json").header("content-length", "0"),
        story.client.post(LOGOUT, &json!({})),
        story.client.post(LOGOUT, &json!({"refreshToken": null})),
    ] {
        let ada = story.sign_in("ada@example.com").await;
        is_done(&request.bearer(&ada.access_token).send().await);
        is_out(&story, &ada).await;
    }
}

#[tokio::test]
async fn over_https_the_cookie_of_https_signs_out_and_is_cleared() {
    let story = Story::with(|settings| {
        settings.base_url = Some("https://auth.example.com".parse().unwrap());
        settings.cookie_domain = Some("example.com".parse().unwrap());
    })
    .await;
    let ada = story.user("ada@example.com").await;
    let plain = ada.cookie.strip_prefix("__Secure-").unwrap();
    assert_eq!(
        bare(&story).header("cookie", plain).send().await.status,
        401,
        "a cookie that a page in clear could have set"
    );
    assert!(story.is_signed_in(&ada).await);

    let reply = bare(&story).header("cookie", &ada.cookie).send().await;
    assert_eq!(reply.status, 200);
    let mut cleared: Vec<_> = reply.headers["set-cookie"].to_str().unwrap().split("; ").collect();
    cleared.sort_unstable();
    assert_eq!(
        cleared,
        [
            "Domain=example.com",
            "HttpOnly",
            "Max-Age=0",
            "Path=/",
            "SameSite=None",
            "Secure",
            "__Secure-mana.session_token="
        ]
    );
    is_out(&story, &ada).await;
}

#[tokio::test]
async fn a_page_of_another_site_can_t_sign_anybody_out_by_the_cookie() {
    let story = Story::with(|settings| {
        settings.base_url = Some("https://auth.example.com".parse().unwrap());
        settings.cookie_domain = Some("example.com".parse().unwrap());
        settings.cors_origins = vec!["https://chat.example.com".parse().unwrap()];
    })
    .await;
    let ada = story.user("ada@example.com").await;
    for origin in
        ["https://evil.test", "null", "https://chat.example.com.evil.test", "http://chat.example.com"]
    {
        for media_type in
            ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"]
        {
            let form = bare(&story)
                .header("content-type", media_type)
                .header("cookie", &ada.cookie)
                .header("origin", origin);
            let reply = form.send().await;
            assert!(reply.status.is_client_error(), "{origin} {media_type}: {}", reply.status);
            assert!(story.is_signed_in(&ada).await, "{origin} {media_type}");
        }
    }
    for origin in ["https://chat.example.com", "https://auth.example.com"] {
        let ada = User::of(
            &story
                .post("/api/v1/auth/login", &json!({"email": "ada@example.com", "password": PASSWORD}))
                .await,
        );
        let reply = bare(&story).header("cookie", &ada.cookie).header("origin", origin).send().await;
        assert_eq!(reply.status, 200, "{origin}");
        is_out(&story, &ada).await;
    }
}
