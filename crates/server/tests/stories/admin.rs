//! The first administrator: a link that works once, for whoever holds it.

use crate::mail_flows::{NEW_PASSWORD, reset_token};
use crate::story::{ACCOUNTS, PASSWORD, Story, hex, let_go, read_jwt};
use futures_util::future::join_all;
use mana_auth::admin::new_claim_link;
use mana_platform::SystemRng;
use mana_testkit::{Client, Reply};
use serde_json::json;
use std::collections::BTreeMap;
use time::Duration;
use url::form_urlencoded;

const ADMINS: &str = "SELECT count(*) FROM auth.users WHERE role = 'admin'";

/// A link's path and query, and its token.
async fn link(story: &Story) -> (String, String) {
    let link = story.claim_link().await.unwrap();
    let token = link.strip_prefix("/claim-admin?token=").unwrap().to_owned();
    (link, token)
}

async fn submit_to(client: &Client, token: &str, email: &str, password: &str) -> Reply {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("token", token)
        .append_pair("email", email)
        .append_pair("password", password)
        .finish();
    client
        .request(http::Method::POST, "/claim-admin")
        .body("application/x-www-form-urlencoded", form)
        .send()
        .await
}

async fn submit(story: &Story, token: &str, email: &str, password: &str) -> Reply {
    submit_to(&story.client, token, email, password).await
}

fn page(reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status, status);
    assert!(reply.headers["content-type"].to_str().unwrap().starts_with("text/html"), "{:?}", reply.headers);
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert_eq!(
        reply.headers["referrer-policy"], "same-origin",
        "the address holds a secret, the form an origin"
    );
    let policy = reply.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    String::from_utf8(reply.bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn looking_at_the_link_uses_nothing_up() {
    let story = Story::new().await;
    let (link, token) = link(&story).await;
    for _ in 0..2 {
        let html = page(&story.client.get(&link).send().await, 200);
        assert!(html.contains("<form method=\"post\"") && html.contains(&token), "{html}");
    }
    assert_eq!(
        story.client.request(http::Method::HEAD, &link).send().await.status,
        200,
        "a scanner's way to look"
    );
    assert_eq!(story.number(ADMINS).await, 0);
    page(&submit(&story, &token, "root@example.com", PASSWORD).await, 200);
}

/// A browser cuts what is longer than a field's `maxlength` without a word, and counts an emoji twice.
#[tokio::test]
async fn the_form_cuts_no_password_short() {
    let story = Story::new().await;
    let (link, token) = link(&story).await;
    let html = page(&story.client.get(&link).send().await, 200);
    assert!(html.contains("type=\"password\"") && !html.contains("maxlength"), "{html}");
    let long = "\u{1f980}".repeat(128);
    page(&submit(&story, &token, "root@example.com", &format!("{long}x")).await, 400);
    page(&submit(&story, &token, "root@example.com", &long).await, 200);
}

#[tokio::test]
async fn the_link_makes_a_new_account_an_administrator_s_once() {
    let story = Story::new().await;
    let (link, token) = link(&story).await;
    let html = page(&submit(&story, &token, "Root@Example.com", PASSWORD).await, 200);
    assert!(
        html.contains("root@example.com") && !html.contains(&token) && !html.contains(PASSWORD),
        "{html}"
    );
    assert!(
        html.contains("POST /api/v1/auth/login") && html.contains("<a href=\"/docs/#/admin\">"),
        "what to do next: {html}"
    );

    let root = story.sign_in("root@example.com").await;
    assert_eq!(read_jwt(&root.access_token)[1]["role"], "admin");
    assert_eq!(story.get("/api/v1/auth/me", &root).await.text("/role"), "admin");
    assert_eq!(
        story.get("/api/v1/credits/balance", &root).await.integer("/freeCreditsRemaining"),
        150,
        "a whole account"
    );
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'became_admin'").await,
        1
    );

    page(&story.client.get(&link).send().await, 404);
    page(&submit(&story, &token, "eve@example.com", PASSWORD).await, 404);
    page(&submit(&story, &token, "root@example.com", PASSWORD).await, 404);
    assert_eq!(story.number("SELECT count(*) FROM auth.users").await, 1);
}

#[tokio::test]
async fn there_is_no_link_once_there_is_an_administrator() {
    let story = Story::new().await;
    let (_, token) = link(&story).await;
    submit(&story, &token, "root@example.com", PASSWORD).await;
    assert_eq!(story.claim_link().await, None);
}

#[tokio::test]
async fn a_link_makes_no_second_administrator() {
    let story = Story::new().await;
    let (_, token) = link(&story).await;
    story.register("ada@example.com").await;
    story.execute("UPDATE auth.users SET role = 'admin'").await;
    page(&submit(&story, &token, "eve@example.com", PASSWORD).await, 404);
    assert_eq!(story.number(ADMINS).await, 1);
    assert_eq!(story.login("eve@example.com").await.status, 401);
}

#[tokio::test]
async fn a_newer_link_voids_the_older() {
    let story = Story::new().await;
    let ((old_link, old), (new_link, new)) = (link(&story).await, link(&story).await);
    assert_ne!(old, new);
    page(&story.client.get(&old_link).send().await, 404);
    page(&submit(&story, &old, "eve@example.com", PASSWORD).await, 404);
    page(&story.client.get(&new_link).send().await, 200);
    page(&submit(&story, &new, "root@example.com", PASSWORD).await, 200);
}

async fn links_made_at_once(story: &Story) -> Vec<String> {
    let database = story.database.service();
    let links = join_all((0..10).map(|_| new_claim_link(&database, &*story.clock, &SystemRng))).await;
    links.into_iter().map(|link| link.unwrap().unwrap()).collect()
}

#[tokio::test]
async fn of_links_made_at_once_one_is_good() {
    let story = Story::new().await;
    let links = links_made_at_once(&story).await;
    let pages = join_all(links.iter().map(|link| story.client.get(link).send())).await;
    assert_eq!(pages.iter().filter(|page| page.status == 200).count(), 1);
}

#[tokio::test]
async fn of_links_made_and_used_at_once_one_makes_an_administrator() {
    let story = Story::new().await;
    let links = links_made_at_once(&story).await;
    let forms = links.iter().enumerate().map(|(number, link)| {
        let (story, token) = (&story, link.strip_prefix("/claim-admin?token=").unwrap());
        async move { submit(story, token, &format!("root{number}@example.com"), PASSWORD).await }
    });
    let replies = join_all(forms).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
    assert_eq!(story.number(ADMINS).await, 1);
}

#[tokio::test]
async fn an_account_that_exists_is_promoted_by_its_password_only() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let (link, token) = link(&story).await;
    for wrong in ["not the password", "", "short"] {
        let html = page(&submit(&story, &token, "ada@example.com", wrong).await, 400);
        assert!(html.contains("role=\"alert\"") && html.contains(&token), "the form again: {html}");
        assert_eq!(story.number(ADMINS).await, 0);
    }
    page(&story.client.get(&link).send().await, 200);
    page(&submit(&story, &token, "ADA@example.com", PASSWORD).await, 200);
    page(&story.client.get(&link).send().await, 404);

    assert_eq!(story.number("SELECT count(*) FROM auth.users").await, 1);
    assert_eq!(story.sign_in(&ada.email).await.id, ada.id);
    assert_eq!(story.number(ADMINS).await, 1);
    assert_eq!(story.number("SELECT count(*) FROM credits.transactions").await, 1, "no second bonus");
}

#[tokio::test]
async fn whoever_claims_with_an_account_signs_in_anew() {
    let story = Story::new().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    let (_, token) = link(&story).await;
    assert!(story.is_signed_in(&ada).await);
    page(&submit(&story, &token, "ada@example.com", PASSWORD).await, 200);
    assert!(!story.is_signed_in(&ada).await, "it was opened by the rules for others");
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 401);
    assert!(story.is_signed_in(&bob).await, "the control");
    let anew = story.sign_in("ada@example.com").await;
    assert_eq!(read_jwt(&anew.access_token)[1]["role"], "admin");
    assert_eq!(
        story.number("SELECT count(*) FROM auth.sessions WHERE revoked_reason = 'role_changed'").await,
        1
    );
}

#[tokio::test]
async fn a_claim_that_waits_while_the_password_changes_makes_no_administrator() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let reset = json!({"token": reset_token(&story, "ada@example.com").await, "newPassword": NEW_PASSWORD});
    let (_, token) = link(&story).await;
    let held = story.holding(ACCOUNTS).await;
    let reset = story.send_to_wait(story.client.post("/api/v1/auth/reset-password", &reset), 1).await;
    let form = format!("token={token}&email=ada%40example.com&password=correct+horse+battery");
    let claim = story.client.request(http::Method::POST, "/claim-admin");
    let claim = story.send_to_wait(claim.body("application/x-www-form-urlencoded", form), 2).await;
    let_go(held).await;
    assert_eq!(reset.await.unwrap().status, 200);
    page(&claim.await.unwrap(), 400);
    assert_eq!(story.number(ADMINS).await, 0);
    page(&submit(&story, &token, "ada@example.com", NEW_PASSWORD).await, 200);
    assert_eq!(story.number(ADMINS).await, 1, "the control: the link is good still");
}

#[tokio::test]
async fn guesses_at_a_password_are_slowed_down_and_written_down_as_at_a_sign_in() {
    const FAILED: &str =
        "SELECT count(*) FROM auth.security_events WHERE type = 'sign_in_failed' AND user_id IS NOT NULL";
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let (_, token) = link(&story).await;
    for _ in 0..5 {
        page(&submit(&story, &token, "ada@example.com", "not the password").await, 400);
    }
    assert_eq!(story.number(FAILED).await, 5);
    for refused in
        [submit(&story, &token, "ada@example.com", PASSWORD).await, story.login("ADA@example.com").await]
    {
        assert_eq!((refused.status.as_u16(), refused.problem()), (429, "auth.too_many_attempts"));
        assert_eq!(refused.headers["retry-after"], "1");
    }
    assert_eq!(story.number(ADMINS).await, 0);
    story.clock.advance(Duration::SECOND);
    page(&submit(&story, &token, "ada@example.com", PASSWORD).await, 200);
}

#[tokio::test]
async fn a_disabled_account_becomes_no_administrator_s() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    story.execute("UPDATE auth.users SET disabled_at = now()").await;
    let (link, token) = link(&story).await;
    page(&submit(&story, &token, "ada@example.com", PASSWORD).await, 400);
    assert_eq!(story.number(ADMINS).await, 0);
    page(&story.client.get(&link).send().await, 200);
}

#[tokio::test]
async fn a_refused_form_leaves_the_link_good_and_makes_nothing() {
    let story = Story::with(|settings| settings.password_min_length = 12).await;
    let (_, token) = link(&story).await;
    for (email, password) in [
        ("root@example.com", "1234567"),
        ("root@example.com", "12345678901"),
        ("no address", PASSWORD),
        ("root@example.com\r\nBcc: eve@example.com", PASSWORD),
        ("\u{ff52}oot@example.com", PASSWORD),
        ("", PASSWORD),
    ] {
        let html = page(&submit(&story, &token, email, password).await, 400);
        assert!(!html.contains(password), "{html}");
    }
    assert_eq!(story.number("SELECT count(*) FROM auth.users").await, 0);
    page(&submit(&story, &token, "root@example.com", PASSWORD).await, 200);
}

#[tokio::test]
async fn a_form_that_is_none_is_refused() {
    let story = Story::new().await;
    let (_, token) = link(&story).await;
    let post = |media_type: &str, body: String| {
        story.client.request(http::Method::POST, "/claim-admin").body(media_type, body)
    };
    let whole = format!("token={token}&email=root%40example.com&password=correct+horse+battery");
    for (what, request, status) in [
        ("as text", post("text/plain", whole.clone()), 415),
        (
            "as JSON",
            post(
                "application/json",
                json!({"token": token, "email": "root@example.com", "password": PASSWORD}).to_string(),
            ),
            415,
        ),
        (
            "no password",
            post("application/x-www-form-urlencoded", format!("token={token}&email=root%40example.com")),
            400,
        ),
        ("role besides", post("application/x-www-form-urlencoded", format!("{whole}&role=admin")), 400),
        (
            "address twice",
            post("application/x-www-form-urlencoded", format!("{whole}&email=eve%40example.com")),
            400,
        ),
        ("empty", post("application/x-www-form-urlencoded", String::new()), 400),
        (
            "too long",
            post("application/x-www-form-urlencoded", format!("{whole}{}", "x".repeat(64 * 1024))),
            413,
        ),
    ] {
        let refused = request.send().await;
        assert_eq!(refused.status, status, "{what}: {}", refused.json);
        refused.problem();
    }
    assert_eq!(story.number("SELECT count(*) FROM auth.users").await, 0);
}

#[tokio::test]
async fn of_twenty_forms_at_once_one_makes_an_administrator() {
    let story = Story::new().await;
    let replica = story.replica().await;
    let (_, token) = link(&story).await;
    let token = &token;
    let replies = join_all((0..20).map(|number| {
        let client = if number % 2 == 0 { &story.client } else { &replica };
        async move { submit_to(client, token, &format!("root{number}@example.com"), PASSWORD).await }
    }))
    .await;
    let mut statuses = BTreeMap::new();
    for reply in &replies {
        *statuses.entry(reply.status.as_u16()).or_insert(0) += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(200, 1), (404, 19)]));
    assert_eq!(story.number(ADMINS).await, 1);
    assert_eq!(story.number("SELECT count(*) FROM auth.users").await, 1);
}

#[tokio::test]
async fn a_link_is_good_for_a_day() {
    let story = Story::new().await;
    let (link, token) = link(&story).await;
    story.clock.advance(Duration::hours(24) - Duration::seconds(1));
    page(&story.client.get(&link).send().await, 200);
    story.clock.advance(Duration::seconds(1));
    page(&story.client.get(&link).send().await, 404);
    page(&submit(&story, &token, "root@example.com", PASSWORD).await, 404);
    assert_eq!(story.number("SELECT count(*) FROM auth.users").await, 0);
}

#[tokio::test]
async fn what_a_request_says_is_never_markup() {
    let story = Story::new().await;
    let (_, token) = link(&story).await;
    let script = "\"><script>alert(1)</script>";
    for hostile in [script.to_owned(), format!("{token}{script}"), format!("mac_{script}")] {
        let query: String = form_urlencoded::byte_serialize(hostile.as_bytes()).collect();
        let shown = page(&story.client.get(&format!("/claim-admin?token={query}")).send().await, 404);
        let sent = page(&submit(&story, &hostile, script, script).await, 404);
        assert!(!shown.contains("<script") && !sent.contains("<script"));
    }
    let refused = page(&submit(&story, &token, script, script).await, 400);
    assert!(!refused.contains("<script"), "{refused}");
    let done = page(&submit(&story, &token, "o'hara&amp@example.com", PASSWORD).await, 200);
    assert!(!done.contains("o'hara&amp@example.com"), "an address has characters of markup: {done}");
}

#[tokio::test]
async fn a_query_without_a_token_is_refused() {
    let story = Story::new().await;
    link(&story).await;
    for path in ["/claim-admin", "/claim-admin?", "/claim-admin?other=1"] {
        let refused = story.client.get(path).send().await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (400, "request.invalid_query"), "{path}");
    }
    page(&story.client.get("/claim-admin?token=").send().await, 404);
}

#[tokio::test]
async fn the_link_s_secret_is_stored_as_a_hash_only() {
    let story = Story::new().await;
    let (_, token) = link(&story).await;
    let stored: String =
        sqlx::query_scalar("SELECT string_agg(to_jsonb(claim)::text, ' ') FROM auth.admin_claims claim")
            .fetch_one(&mut story.database.owner().await)
            .await
            .unwrap();
    assert!(!stored.contains(&token) && !stored.contains(&hex(token.as_bytes())), "{stored}");
}
