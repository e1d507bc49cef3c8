//! What goes through a mailbox: addresses that are confirmed and changed, passwords that were forgotten, sign-ins by link and by code.

use crate::observed::Statements;
use crate::smtp::{Manners, SmtpServer};
use crate::story::{PASSWORD, Story, User, about, let_go, members, read_jwt, spend_of};
use crate::two_factor;
use futures_util::future::join_all;
use http::Method;
use mana_platform::config::CookieDomain;
use mana_testkit::{Client, Reply};
use serde_json::{Value, json};
use std::time::Duration as Wait;
use time::Duration;

const BASE: &str = "http://localhost:3001";
const APP: &str = "http://localhost:3000";
const FORM: &str = "application/x-www-form-urlencoded";
pub(crate) const NEW_PASSWORD: &str = "another horse battery";
const REQUESTS: &str = "SELECT count(*) FROM auth.mail_requests";

/// Path and query of the link in the newest mail with the subject.
pub(crate) async fn link_of(story: &Story, subject: &str) -> String {
    let mails = story.all_mails().await;
    let kept = mails.iter().find(|kept| about(&kept.mail) == subject);
    let text = &kept.unwrap_or_else(|| panic!("no mail {subject}")).mail.text;
    text.lines().find_map(|line| line.strip_prefix(BASE)).unwrap_or_else(|| panic!("{text}")).to_owned()
}

pub(crate) async fn verification_link(story: &Story) -> String {
    link_of(story, "Confirm your e-mail address").await
}

/// How many mails with the subject there were.
async fn count_of(story: &Story, subject: &str) -> usize {
    story.all_mails().await.iter().filter(|kept| about(&kept.mail) == subject).count()
}

/// A parameter of a link, decoded.
fn parameter(link: &str, name: &str) -> Option<String> {
    let url = url::Url::parse(&format!("{BASE}{link}")).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

pub(crate) fn token_of(link: &str) -> String {
    match link.strip_prefix("/api/auth/reset-password/") {
        Some(rest) => rest.split('?').next().unwrap().to_owned(),
        None => parameter(link, "token").unwrap(),
    }
}

async fn send_form(story: &Story, path: &str, fields: &[(&str, &str)]) -> Reply {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    story.client.request(Method::POST, path).body(FORM, body).send().await
}

fn location(reply: &Reply) -> &str {
    assert_eq!(reply.status, 303, "{}", reply.json);
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert_eq!(reply.headers["referrer-policy"], "no-referrer", "the address may hold a secret");
    reply.headers["location"].to_str().unwrap()
}

fn page(reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status, status, "{}", reply.json);
    assert!(reply.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    assert_eq!(reply.headers["cache-control"], "no-store");
    let text = String::from_utf8(reply.bytes.to_vec()).unwrap();
    assert!(!text.contains("<script") && !text.contains("src="), "{text}");
    text
}

async fn forgot(story: &Story, email: &str) -> Reply {
    let reply = story.post("/api/v1/auth/forgot-password", &json!({"email": email})).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    reply
}

/// The token of a new link to a new password.
pub(crate) async fn reset_token(story: &Story, email: &str) -> String {
    forgot(story, email).await;
    token_of(&link_of(story, "Set a new password").await)
}

async fn reset(story: &Story, token: &str) -> Reply {
    let body = json!({"token": token, "newPassword": NEW_PASSWORD});
    story.post("/api/v1/auth/reset-password", &body).await
}

async fn login_with(story: &Story, email: &str, password: &str) -> Reply {
    story.post("/api/v1/auth/login", &json!({"email": email, "password": password})).await
}

async fn bearer_post(story: &Story, user: &User, path: &str, body: &Value) -> Reply {
    story.client.post(path, body).bearer(&user.access_token).send().await
}

/// Confirms the address by the newest mail.
async fn confirm(story: &Story) {
    let token = token_of(&verification_link(story).await);
    let fields = [("token", token.as_str()), ("password", PASSWORD)];
    let confirmed = send_form(story, "/api/auth/verify-email", &fields).await;
    assert!(location(&confirmed).contains("verified=true"));
}

async fn is_verified(story: &Story, user: &User) -> bool {
    story.get("/api/v1/auth/me", user).await.json["emailVerified"] == json!(true)
}

async fn event_count(story: &Story, kind: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM auth.security_events WHERE type = $1")
        .bind(kind)
        .fetch_one(&mut story.database.owner().await)
        .await
        .unwrap()
}

// Addresses that are confirmed.

#[tokio::test]
async fn a_scanner_that_opens_the_link_confirms_nothing_and_the_button_leads_back_to_the_app() {
    let story = Story::new().await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD, "sourceAppUrl": APP});
    let registered = story.client.post("/api/v1/auth/register", &body).header("host", "evil.example");
    let registered = registered.header("x-forwarded-host", "evil.example").send().await;
    assert_eq!((registered.status.as_u16(), &registered.json["emailVerified"]), (201, &json!(false)));
    let ada = story.sign_in("ada@example.com").await;
    let mails = story.all_mails().await;
    assert_eq!((mails.len(), mails[0].mail.recipient.as_str()), (1, "ada@example.com"));
    assert!(!mails[0].mail.text.contains("evil") && !mails[0].mail.html.contains("evil"));

    let link = verification_link(&story).await;
    assert_eq!(parameter(&link, "redirectTo").unwrap().trim_end_matches('/'), APP);
    for method in [Method::HEAD, Method::GET, Method::GET] {
        let opened = story.client.request(method, &link).send().await;
        assert_eq!(opened.status, 200);
        assert!(!is_verified(&story, &ada).await);
    }
    let text = page(&story.client.get(&link).send().await, 200);
    assert!(text.contains("method=\"post\" action=\"/api/auth/verify-email\""), "{text}");
    assert!(text.contains("ada@example.com") && text.contains("<button>"), "{text}");
    let opened = story.client.get(&link).send().await;
    let policy = opened.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains(&format!("form-action 'self' {APP} {BASE}")),
        "browsers ask it of redirects too: {policy}"
    );

    let redirect_to = parameter(&link, "redirectTo").unwrap();
    let fields = [("token", token_of(&link)), ("redirectTo", redirect_to), ("password", PASSWORD.to_owned())];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let confirmed = send_form(&story, "/api/auth/verify-email", &fields).await;
    assert_eq!(location(&confirmed), format!("{APP}/login?verified=true&email=ada%40example.com"));
    assert!(is_verified(&story, &ada).await);
    assert_eq!(event_count(&story, "email_verified").await, 1);
    let again = send_form(&story, "/api/auth/verify-email", &fields).await;
    assert_eq!(location(&again), format!("{BASE}/verification-failed?error=invalid_or_expired_token"));
}

#[tokio::test]
async fn the_browser_that_is_signed_in_confirms_by_the_button_alone() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let link = verification_link(&story).await;
    let elsewhere = page(&story.client.get(&link).send().await, 200);
    assert_eq!(elsewhere.matches("type=\"password\"").count(), 2, "{elsewhere}");
    let opened = story.client.get(&link).header("cookie", &ada.cookie).send().await;
    let here = page(&opened, 200);
    assert!(!here.contains("type=\"password\""), "{here}");

    let bob = story.user("bob@example.com").await;
    let press = async |cookie: &str| {
        let form = story.client.request(Method::POST, "/api/auth/verify-email").header("cookie", cookie);
        form.body(FORM, format!("token={}", token_of(&link))).send().await
    };
    page(&press(&bob.cookie).await, 400);
    let signed_out = story.sign_in("ada@example.com").await;
    story.client.request(Method::POST, "/api/v1/auth/logout").bearer(&signed_out.access_token).send().await;
    page(&press(&signed_out.cookie).await, 400);
    assert!(!is_verified(&story, &ada).await);
    let confirmed = press(&ada.cookie).await;
    assert_eq!(location(&confirmed), format!("{BASE}/login?verified=true&email=ada%40example.com"));
    assert!(story.is_signed_in(&ada).await && is_verified(&story, &ada).await);
    assert_eq!(story.login("ada@example.com").await.status, 200, "the password is what it was");
}

#[tokio::test]
async fn a_cookie_that_was_planted_from_elsewhere_gets_no_button() {
    let story = Story::new().await;
    // A stranger registers the victim's address, and plants the cookie of that account in the victim's browser.
    let stranger = story.client.at("198.51.100.7");
    let body = json!({"email": "victim@example.com", "password": PASSWORD});
    assert_eq!(stranger.post("/api/v1/auth/register", &body).send().await.status, 201);
    let mallory = User::of(&stranger.post("/api/v1/auth/login", &body).send().await);
    let link = verification_link(&story).await;
    let visit = |client: &Client| client.get(&link).header("cookie", &mallory.cookie).send();
    let press = |client: &Client| {
        let form = client.request(Method::POST, "/api/auth/verify-email").header("cookie", &mallory.cookie);
        form.body(FORM, format!("token={}", token_of(&link))).send()
    };
    let shown = page(&visit(&story.client).await, 200);
    assert_eq!(shown.matches("type=\"password\"").count(), 2, "{shown}");
    page(&press(&story.client).await, 400);
    assert!(!is_verified(&story, &mallory).await);
    let shown = page(&visit(&stranger).await, 200);
    assert!(!shown.contains("type=\"password\""), "the control: {shown}");
}

#[tokio::test]
async fn a_strangers_account_does_not_get_an_address_by_its_owners_click() {
    let story = Story::new().await;
    let stranger = story.client.at("2001:db8:7::1");
    let ask = async |user: &User, email: &str| {
        let asked = stranger.post("/api/v1/auth/change-email", &json!({"newEmail": email}));
        assert_eq!(asked.bearer(&user.access_token).send().await.status, 200);
        link_of(&story, "Confirm your new e-mail address").await
    };
    let confirm = async |client: &Client, link: &str, cookie: &str, password: Option<&str>| {
        let fields = [("token", token_of(link)), ("password", password.unwrap_or_default().to_owned())];
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        client.request(Method::POST, "/confirm-email").header("cookie", cookie).body(FORM, body).send().await
    };
    let body = json!({"email": "mallory@example.org", "password": PASSWORD});
    stranger.post("/api/v1/auth/register", &body).send().await;
    let mallory = User::of(&stranger.post("/api/v1/auth/login", &body).send().await);

    // The victim clicks, also in a browser that the stranger's cookie was planted in.
    let link = ask(&mallory, "victim@example.com").await;
    for cookie in ["", mallory.cookie.as_str()] {
        let opened = story.client.get(&link).header("cookie", cookie).send().await;
        assert_eq!(page(&opened, 200).matches("type=\"password\"").count(), 1);
        for wrong in [None, Some("not the password")] {
            let text = page(&confirm(&story.client, &link, cookie, wrong).await, 400);
            assert!(text.contains("role=\"alert\""), "{text}");
        }
    }
    assert_eq!(story.get("/api/v1/auth/me", &mallory).await.text("/email"), "mallory@example.org");
    // An account without a password has nothing to show elsewhere.
    story.execute("DELETE FROM auth.passwords").await;
    let text = page(&story.client.get(&link).send().await, 200);
    assert!(!text.contains("<form") && text.contains("in the network in which you asked"), "{text}");
    assert!(text.contains("ask for the new address again from here"), "which helps: {text}");
    page(&confirm(&story.client, &link, "", None).await, 400);
    // The controls: the owner, at the neighbour's address of the same customer, and in a browser that is signed in.
    page(&confirm(&story.client.at("2001:db8:7::2"), &link, "", None).await, 200);

    let ada = story.user("ada@example.com").await;
    let link = ask(&ada, "ada@example.org").await;
    let text = page(&story.client.get(&link).header("cookie", &ada.cookie).send().await, 200);
    assert!(text.contains("<form") && !text.contains("type=\"password\""), "{text}");
    page(&confirm(&story.client, &link, &ada.cookie, None).await, 200);
    let link = ask(&ada, "ada@example.net").await;
    page(&confirm(&story.client.at("192.0.2.9"), &link, "", Some(PASSWORD)).await, 200);
    assert_eq!(story.get("/api/v1/auth/me", &ada).await.text("/email"), "ada@example.net");
}

#[tokio::test]
async fn the_password_confirms_in_any_browser_and_is_guessed_as_slowly_as_at_a_sign_in() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let token = token_of(&verification_link(&story).await);
    let send = async |password: &str| {
        let fields = [("token", token.as_str()), ("password", password)];
        send_form(&story, "/api/auth/verify-email", &fields).await
    };
    for wrong in ["", "not the password"] {
        let text = page(&send(wrong).await, 400);
        assert!(
            text.contains("role=\"alert\"") && text.contains("not the password of the account"),
            "{text}"
        );
        assert!(!is_verified(&story, &ada).await);
    }
    let confirmed = send(PASSWORD).await;
    assert!(location(&confirmed).contains("verified=true"));
    assert!(story.is_signed_in(&ada).await, "nobody is signed out");

    story.user("bob@example.com").await;
    let token = token_of(&verification_link(&story).await);
    let guess = async || {
        let fields = [("token", token.as_str()), ("password", "a guess")];
        send_form(&story, "/api/auth/verify-email", &fields).await.status.as_u16()
    };
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(guess().await);
    }
    assert!(statuses.starts_with(&[400]) && statuses.ends_with(&[429]), "{statuses:?}");
}

#[tokio::test]
async fn a_link_that_is_not_good_leads_to_the_page_that_says_so() {
    let story = Story::with(|settings| {
        settings.frontend_url = Some("https://www.family.example/start/".parse().unwrap());
    })
    .await;
    story.user("ada@example.com").await;
    let good = token_of(&verification_link(&story).await);
    let reset = reset_token(&story, "ada@example.com").await;
    let failure = |error: &str| format!("https://www.family.example/start/verification-failed?error={error}");
    for (token, error) in [
        ("", "missing_token"),
        ("garbage", "invalid_or_expired_token"),
        (&good[..40], "invalid_or_expired_token"),
        (&reset, "invalid_or_expired_token"),
    ] {
        let opened = story.client.get(&format!("/api/auth/verify-email?token={token}")).send().await;
        assert_eq!(location(&opened), failure(error), "{token}");
        let sent = send_form(&story, "/api/auth/verify-email", &[("token", token)]).await;
        assert_eq!(location(&sent), failure(error), "{token}");
    }
    let missing = story.client.get("/api/auth/verify-email").send().await;
    assert_eq!(location(&missing), failure("missing_token"));

    story.clock.advance(Duration::hours(24));
    let expired = send_form(&story, "/api/auth/verify-email", &[("token", &good)]).await;
    assert_eq!(location(&expired), failure("invalid_or_expired_token"));
    story.workers.prune().await;
    assert_eq!(story.number("SELECT count(*) FROM auth.verification_tokens").await, 0);
}

#[tokio::test]
async fn without_a_web_app_the_links_end_at_pages_of_this_service() {
    let story = Story::new().await;
    let text = page(&story.client.get("/login?verified=true&email=a%40b.de").send().await, 200);
    assert!(text.contains("Your address is confirmed"), "{text}");
    let failed =
        story.client.get("/verification-failed?error=x").header("accept-language", "de").send().await;
    let text = page(&failed, 200);
    assert!(text.contains("lang=\"de\"") && text.contains("nicht bestätigt"), "{text}");
}

#[tokio::test]
async fn no_trick_makes_a_link_lead_out_of_the_family() {
    let story = Story::new().await;
    for trick in [
        "https://evil.example",
        "//evil.example",
        "http://localhost:3000@evil.example",
        "http://localhost:3000\\@evil.example",
        "http://localhost.evil.example",
        "javascript:alert(1)",
        "http://localhost%2eevil.example",
        "http://localhost:3000%252f@evil.example",
    ] {
        let email = "ada@example.com";
        story.forget_mails().await;
        story.execute("DELETE FROM auth.verification_tokens").await;
        story.register(email).await;
        story.post("/api/v1/auth/forgot-password", &json!({"email": email, "redirectTo": trick})).await;
        let token = token_of(&link_of(&story, "Set a new password").await);
        let query =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("callbackURL", trick).finish();
        let followed = story.client.get(&format!("/api/auth/reset-password/{token}?{query}")).send().await;
        assert_eq!(location(&followed), format!("{BASE}/reset-password?token={token}"), "{trick}");

        story.post("/api/v1/auth/resend-verification", &json!({"email": email})).await;
        let token = token_of(&verification_link(&story).await);
        let fields = [("token", token.as_str()), ("redirectTo", trick), ("password", PASSWORD)];
        let confirmed = send_form(&story, "/api/auth/verify-email", &fields).await;
        assert!(location(&confirmed).starts_with(&format!("{BASE}/login?verified=true")), "{trick}");
        for kept in story.all_mails().await {
            assert!(!kept.mail.text.contains("evil"), "{trick}: {}", kept.mail.text);
        }
        story.execute("UPDATE auth.users SET email_verified = false").await;
    }
}

#[tokio::test]
async fn a_token_is_mailed_to_no_neighbour_below_a_public_suffix() {
    assert!("fly.dev".parse::<CookieDomain>().is_err(), "no setting makes neighbours a family");
    let story = Story::with(|settings| {
        settings.base_url = Some("https://mana.fly.dev".parse().unwrap());
        settings.cookie_domain = Some("mana.fly.dev".parse().unwrap());
    })
    .await;
    story.register("ada@example.com").await;
    for (app, is_of_the_family) in [
        ("https://evil.fly.dev", false),
        ("https://fly.dev", false),
        ("https://evil.fly.dev.", false),
        ("https://chat.mana.fly.dev", true),
    ] {
        story.forget_mails().await;
        story
            .post("/api/v1/auth/forgot-password", &json!({"email": "ada@example.com", "redirectTo": app}))
            .await;
        let mails = story.all_mails().await;
        let text = &mails.iter().find(|kept| about(&kept.mail) == "Set a new password").unwrap().mail.text;
        let link = text.lines().find_map(|line| line.strip_prefix("https://mana.fly.dev")).unwrap();
        assert_eq!(link.contains("callbackURL"), is_of_the_family, "{app}: {link}");
        let query =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("callbackURL", app).finish();
        let token = token_of(link);
        let followed = story.client.get(&format!("/api/auth/reset-password/{token}?{query}")).send().await;
        assert_eq!(location(&followed).starts_with(app), is_of_the_family, "{app}: {}", location(&followed));
    }
}

#[tokio::test]
async fn where_addresses_must_be_confirmed_only_the_right_password_learns_of_it() {
    let story = Story::with(|settings| settings.require_email_verification = true).await;
    assert_eq!(story.register("ada@example.com").await.status, 201);
    for path in ["/api/v1/auth/login", "/api/auth/sign-in/email"] {
        let right = story.post(path, &json!({"email": "ada@example.com", "password": PASSWORD})).await;
        assert_eq!((right.status.as_u16(), right.problem()), (403, "EMAIL_NOT_VERIFIED"));
        assert_eq!(right.text("/error"), "EMAIL_NOT_VERIFIED", "which newer clients switch on");
        assert!(right.headers.get("set-cookie").is_none());
        let mut answers = Vec::new();
        for email in ["ada@example.com", "nobody@example.com"] {
            let wrong = story.post(path, &json!({"email": email, "password": "not the password"})).await;
            answers.push((
                wrong.status.as_u16(),
                wrong.problem().to_owned(),
                wrong.text("/message").to_owned(),
            ));
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0].0, 401);
    }
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions").await, 0);
    confirm(&story).await;
    assert_eq!(story.login("ada@example.com").await.status, 200);
}

#[tokio::test]
async fn the_mail_can_be_had_again_and_the_newest_link_is_the_good_one() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let older = token_of(&verification_link(&story).await);
    let resend = async |email: &str| {
        let body = json!({"email": email, "sourceAppUrl": APP});
        story.post("/api/v1/auth/resend-verification", &body).await
    };
    let (known, unknown) = (resend("ADA@Example.com").await, resend("nobody@example.com").await);
    assert_eq!((known.status.as_u16(), &known.json), (200, &unknown.json));
    assert_eq!(members(&known.json), ["message", "success"]);
    assert_eq!(count_of(&story, "Confirm your e-mail address").await, 2);
    assert_eq!(story.number(REQUESTS).await, 0);
    let newer = story.all_mails().await;
    let newer =
        newer.iter().flat_map(|kept| kept.mail.text.lines()).filter_map(|line| line.strip_prefix(BASE));
    let newer = newer.map(token_of).find(|token| *token != older).unwrap();
    let by_older = send_form(&story, "/api/auth/verify-email", &[("token", &older)]).await;
    assert!(location(&by_older).ends_with("invalid_or_expired_token"), "newer voids older");
    let fields = [("token", newer.as_str()), ("password", PASSWORD)];
    let by_newer = send_form(&story, "/api/auth/verify-email", &fields).await;
    assert!(location(&by_newer).contains("verified=true"));
    assert!(is_verified(&story, &ada).await);

    resend("ada@example.com").await;
    assert_eq!(
        count_of(&story, "Confirm your e-mail address").await,
        2,
        "there is nothing to confirm any more"
    );
}

// Forgotten passwords.

#[tokio::test]
async fn a_forgotten_password_is_set_anew_by_mail_and_everybody_is_signed_out() {
    let story = Story::new().await;
    let (here, there) = (story.user("ada@example.com").await, story.sign_in("ada@example.com").await);
    let body = json!({"email": "ada@example.com", "redirectTo": format!("{APP}/reset-password")});
    let asked = story.client.post("/api/v1/auth/forgot-password", &body).header("host", "evil.example");
    assert_eq!(asked.send().await.status, 200);
    let link = link_of(&story, "Set a new password").await;
    let followed = story.client.get(&link).send().await;
    let token = token_of(&link);
    assert_eq!(location(&followed), format!("{APP}/reset-password?token={token}"));
    assert!(story.is_signed_in(&here).await, "a link that is opened changes nothing");

    let weak = json!({"token": token, "newPassword": "short"});
    assert_eq!(story.post("/api/v1/auth/reset-password", &weak).await.status, 400);
    let done = reset(&story, &token).await;
    assert_eq!((done.status.as_u16(), &done.json["success"]), (200, &json!(true)), "{}", done.json);
    assert!(done.headers.get("set-cookie").is_none(), "nobody is signed in by it");
    assert!(!story.is_signed_in(&here).await && !story.is_signed_in(&there).await);
    assert_eq!(story.refresh(&there.refresh_token).await.status, 401);
    assert_eq!(story.login("ada@example.com").await.status, 401);
    assert_eq!(login_with(&story, "ada@example.com", NEW_PASSWORD).await.status, 200);
    assert_eq!(count_of(&story, "Your password was changed").await, 1);
    assert_eq!(event_count(&story, "password_reset").await, 1);

    let again = reset(&story, &token).await;
    assert_eq!((again.status.as_u16(), again.problem()), (400, "auth.link_void"));
    assert!(again.text("/message").contains("expired") && again.text("/message").contains("invalid"));
    let followed = story.client.get(&link).send().await;
    assert_eq!(location(&followed), format!("{APP}/reset-password?error=INVALID_TOKEN"));
}

#[tokio::test]
async fn a_link_sets_one_password_however_often_it_is_used_at_once() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let token = reset_token(&story, "ada@example.com").await;
    let other = story.replica().await;
    let attempts = (0..10).map(|number| {
        let body = json!({"token": token, "newPassword": format!("password number {number}")});
        let client = if number % 2 == 0 { &story.client } else { &other };
        async move { client.post("/api/v1/auth/reset-password", &body).send().await.status.as_u16() }
    });
    let mut statuses = join_all(attempts).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400, 400, 400, 400, 400, 400, 400, 400, 400]);
    let mut good = 0;
    for number in 0..10 {
        let reply = login_with(&story, "ada@example.com", &format!("password number {number}")).await;
        good += u32::from(reply.status == 200);
        story.clock.advance(Duration::hours(1));
    }
    assert_eq!(good, 1);
}

#[tokio::test]
async fn a_link_to_a_new_password_is_the_newest_is_young_and_is_of_its_kind() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let verifies = token_of(&verification_link(&story).await);
    let older = reset_token(&story, "ada@example.com").await;
    story.clock.advance(Duration::minutes(1));
    let mails_before = story.all_mails().await.len();
    let newer = reset_token(&story, "ada@example.com").await;
    assert_eq!(story.all_mails().await.len(), mails_before + 1);
    assert_ne!(older, newer);
    for bad in [&older, &verifies, &newer[..newer.len() - 1], "mrp_", "x"] {
        assert_eq!(reset(&story, bad).await.status, 400, "{bad}");
    }
    story.clock.advance(Duration::minutes(60));
    assert_eq!(reset(&story, &newer).await.status, 400, "an hour is over");
    let newest = reset_token(&story, "ada@example.com").await;
    story.clock.advance(Duration::minutes(59));
    assert_eq!(reset(&story, &newest).await.status, 200);
}

#[tokio::test]
async fn what_was_mailed_is_dead_once_the_password_is_changed_otherwise() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let token = reset_token(&story, "ada@example.com").await;
    let body = json!({"currentPassword": PASSWORD, "newPassword": "changed in the app"});
    assert_eq!(bearer_post(&story, &ada, "/api/v1/auth/change-password", &body).await.status, 200);
    assert_eq!(reset(&story, &token).await.status, 400);
}

#[tokio::test]
async fn forgot_says_and_does_the_same_for_every_address_also_when_mails_do_not_go() {
    let server = SmtpServer::start(Manners::Silent);
    for story in [Story::new().await, Story::mailing(server.mailer(Wait::from_mins(5))).await] {
        story.user("known@example.com").await;
        story.user("disabled@example.com").await;
        story.execute("UPDATE auth.users SET disabled_at = now() WHERE email LIKE 'disabled%'").await;
        let before = story.number("SELECT count(*) FROM auth.outgoing_mails").await;
        let mut answers = Vec::new();
        for email in ["known@example.com", "unknown@example.com", "disabled@example.com"] {
            let reply = forgot(&story, email).await;
            let mut names: Vec<_> = reply.headers.keys().map(ToString::to_string).collect();
            names.sort();
            answers.push((reply.status, reply.json, names));
            assert_eq!(
                (
                    story.number(REQUESTS).await,
                    story.number("SELECT count(*) FROM auth.outgoing_mails").await
                ),
                (i64::try_from(answers.len()).unwrap(), before),
                "one row for each, and whose address it is has nobody looked at yet"
            );
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    }
}

#[tokio::test]
async fn what_was_asked_for_tells_nobody_who_asked_and_is_forgotten_in_time() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    story.forget_mails().await;
    forgot(&story, "ada@example.com").await;
    let row: String = sqlx::query_scalar(
        "SELECT (to_jsonb(asked) - 'sealed')::text || encode(sealed, 'escape') FROM auth.mail_requests asked",
    )
    .fetch_one(&mut story.database.owner().await)
    .await
    .unwrap();
    assert!(!row.contains("example.com") && !row.contains("Reset"), "{row}");
    story.clock.advance(Duration::hours(1));
    assert!(story.mails().await.is_empty());
    assert_eq!(story.number(REQUESTS).await, 0);
}

#[tokio::test]
async fn two_servers_answer_what_was_asked_for_once() {
    let story = Story::new().await;
    for name in ["ada", "bob", "eve"] {
        story.user(&format!("{name}@example.com")).await;
        forgot(&story, &format!("{name}@example.com")).await;
    }
    let other = story.replica_with(|_| {}).await.workers;
    tokio::join!(story.workers.deliver_mails(), other.deliver_mails(), story.workers.deliver_mails());
    assert_eq!(count_of(&story, "Set a new password").await, 3);
}

#[tokio::test]
async fn mails_to_one_address_are_capped_and_the_last_one_that_went_stays_good() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let mut token = String::new();
    for number in 0..8 {
        forgot(&story, "ada@example.com").await;
        story.workers.deliver_mails().await;
        if number == 4 {
            assert_eq!(count_of(&story, "Set a new password").await, 5);
            let hash: Vec<u8> = sqlx::query_scalar(
                "SELECT token_hash FROM auth.verification_tokens WHERE purpose = 'reset_password'",
            )
            .fetch_one(&mut story.database.owner().await)
            .await
            .unwrap();
            let mails = story.all_mails().await;
            let links = mails
                .iter()
                .flat_map(|kept| kept.mail.text.lines())
                .filter_map(|line| line.strip_prefix(BASE));
            let hash_of = |token: &str| mana_kernel::secret::sha256(token.as_bytes()).to_vec();
            token = links
                .filter(|link| link.contains("reset"))
                .map(token_of)
                .find(|token| hash_of(token) == hash)
                .unwrap();
        }
    }
    assert_eq!(count_of(&story, "Set a new password").await, 5);
    assert_eq!(reset(&story, &token).await.status, 200);
}

#[tokio::test]
async fn the_database_alone_opens_no_mail_flow() {
    let story = Story::with(|settings| settings.email_code_sign_in = true).await;
    story.user("ada@example.com").await;
    forgot(&story, "ada@example.com").await;
    story.post("/api/v1/auth/email-code", &json!({"email": "ada@example.com"})).await;
    let code = code_of(&story).await;
    let token = token_of(&link_of(&story, "Set a new password").await);
    let rows: Vec<String> = sqlx::query_scalar("SELECT to_jsonb(t)::text FROM auth.verification_tokens t")
        .fetch_all(&mut story.database.owner().await)
        .await
        .unwrap();
    assert_eq!(rows.len(), 3);
    let plain = crate::story::hex(&mana_kernel::secret::sha256(code.as_bytes()));
    for row in rows {
        assert!(!row.contains(&token[4..]) && !row.contains("mrp_") && !row.contains(&plain), "{row}");
        assert!(!row.contains(&format!("\"{code}\"")), "{row}");
    }
}

#[tokio::test]
async fn the_page_of_this_service_sets_a_password_without_an_app_or_a_script() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let token = reset_token(&story, "ada@example.com").await;
    let link = link_of(&story, "Set a new password").await;
    let followed = story.client.get(&link).send().await;
    let place = location(&followed).strip_prefix(BASE).unwrap().to_owned();
    let german = story.client.get(&place).header("accept-language", "de").send().await;
    assert!(page(&german, 200).contains("Neues Passwort setzen"));
    let text = page(&story.client.get(&place).send().await, 200);
    for expected in
        ["lang=\"en\"", "<label>", "autocomplete=\"new-password\"", "action=\"/reset-password\"", &token]
    {
        assert!(text.contains(expected), "no {expected} in {text}");
    }
    let short = send_form(&story, "/reset-password", &[("token", &token), ("newPassword", "short")]).await;
    let text = page(&short, 400);
    assert!(text.contains("role=\"alert\"") && text.contains(&token), "it can be tried again: {text}");
    assert!(story.is_signed_in(&ada).await);
    let done =
        send_form(&story, "/reset-password", &[("token", &token), ("newPassword", NEW_PASSWORD)]).await;
    assert!(page(&done, 200).contains("The password is set"));
    assert!(!story.is_signed_in(&ada).await);
    assert_eq!(login_with(&story, "ada@example.com", NEW_PASSWORD).await.status, 200);
    page(
        &send_form(&story, "/reset-password", &[("token", &token), ("newPassword", NEW_PASSWORD)]).await,
        404,
    );
    page(&story.client.get(&place).send().await, 404);
    page(&story.client.get("/reset-password").send().await, 404);
}

#[tokio::test]
async fn a_reset_does_not_go_round_the_second_factor() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    confirm(&story).await;
    two_factor::leave_rows(&story, &ada).await;
    let token = reset_token(&story, "ada@example.com").await;
    assert_eq!(reset(&story, &token).await.status, 200);
    let login = login_with(&story, "ada@example.com", NEW_PASSWORD).await;
    assert_eq!((login.status.as_u16(), &login.json["twoFactorRequired"]), (200, &json!(true)));
    let waiting = "SELECT (SELECT count(*) FROM auth.trusted_devices) * 10 + (SELECT count(*) FROM auth.pending_sign_ins)";
    assert_eq!(story.number(waiting).await, 1, "no browser is trusted any more, and what waited is void");
}

#[tokio::test]
async fn an_account_that_a_stranger_made_on_an_address_is_its_owners_alone_after_a_reset() {
    let story = Story::new().await;
    let eve = story.user("victim@example.com").await;
    two_factor::leave_rows(&story, &eve).await;
    let body = json!({"newEmail": "eve@example.com"});
    assert_eq!(bearer_post(&story, &eve, "/api/v1/auth/change-email", &body).await.status, 200);
    let takes_away = token_of(&link_of(&story, "Confirm your new e-mail address").await);

    assert_eq!(story.register("victim@example.com").await.status, 409);
    let token = reset_token(&story, "victim@example.com").await;
    assert_eq!(reset(&story, &token).await.status, 200);
    assert!(!story.is_signed_in(&eve).await);
    assert_eq!(story.refresh(&eve.refresh_token).await.status, 401);
    let exchanged = story.client.request(Method::POST, "/api/v1/auth/session-to-token");
    assert_eq!(exchanged.header("cookie", &eve.cookie).send().await.status, 401);
    assert_eq!(story.login("victim@example.com").await.status, 401);
    page(&send_form(&story, "/confirm-email", &[("token", &takes_away)]).await, 404);
    let left = "SELECT (SELECT count(*) FROM auth.two_factor_auth) + (SELECT count(*) FROM auth.recovery_codes)
        + (SELECT count(*) FROM auth.trusted_devices) + (SELECT count(*) FROM auth.pending_sign_ins)
        + (SELECT count(*) FROM auth.verification_tokens) + (SELECT count(*) FROM auth.sessions WHERE revoked_at IS NULL)";
    assert_eq!(story.number(left).await, 0);
    let owner = User::of(&login_with(&story, "victim@example.com", NEW_PASSWORD).await);
    assert!(is_verified(&story, &owner).await);
}

#[tokio::test]
async fn an_account_that_a_stranger_made_on_an_address_dies_when_its_owner_confirms_the_address() {
    let story = Story::new().await;
    let eve = story.user("victim@example.com").await;
    two_factor::leave_rows(&story, &eve).await;
    sqlx::query(
        "INSERT INTO auth.passkeys (id, user_id, credential_id, public_key, sign_count, is_backup_eligible, is_backed_up, transports, name,
             created_at, added_in)
         VALUES (gen_random_uuid(), $1, decode(repeat('01', 16), 'hex'), '\\x02', 0, false, false, '{}', 'of a stranger', now(), 'x')",
    )
    .bind(&eve.id)
    .execute(&mut story.database.owner().await)
    .await
    .unwrap();
    let link = verification_link(&story).await;
    let token = token_of(&link);

    // The victim reads the mail, and knows no password.
    page(&send_form(&story, "/api/auth/verify-email", &[("token", &token)]).await, 400);
    assert!(!is_verified(&story, &eve).await, "the mail alone makes nothing good");
    let weak = [("token", token.as_str()), ("newPassword", "short")];
    page(&send_form(&story, "/api/auth/verify-email", &weak).await, 400);
    assert!(story.is_signed_in(&eve).await, "nothing has happened yet");
    let fields = [("token", token.as_str()), ("newPassword", NEW_PASSWORD)];
    let confirmed = send_form(&story, "/api/auth/verify-email", &fields).await;
    assert_eq!(location(&confirmed), format!("{BASE}/login?verified=true&email=victim%40example.com"));

    assert!(!story.is_signed_in(&eve).await);
    assert_eq!(story.refresh(&eve.refresh_token).await.status, 401);
    let exchanged = story.client.request(Method::POST, "/api/v1/auth/session-to-token");
    assert_eq!(exchanged.header("cookie", &eve.cookie).send().await.status, 401);
    assert_eq!(story.login("victim@example.com").await.status, 401);
    let left = "SELECT (SELECT count(*) FROM auth.two_factor_auth) + (SELECT count(*) FROM auth.recovery_codes)
        + (SELECT count(*) FROM auth.trusted_devices) + (SELECT count(*) FROM auth.pending_sign_ins)
        + (SELECT count(*) FROM auth.passkeys) + (SELECT count(*) FROM auth.accounts)
        + (SELECT count(*) FROM auth.verification_tokens) + (SELECT count(*) FROM auth.sessions WHERE revoked_at IS NULL)";
    assert_eq!(story.number(left).await, 0);
    let owner = User::of(&login_with(&story, "victim@example.com", NEW_PASSWORD).await);
    assert!(is_verified(&story, &owner).await);
    assert_eq!(
        (event_count(&story, "email_verified").await, event_count(&story, "password_reset").await),
        (1, 1)
    );
    assert_eq!(count_of(&story, "Your password was changed").await, 1);
    let again = send_form(&story, "/api/auth/verify-email", &fields).await;
    assert!(location(&again).ends_with("invalid_or_expired_token"), "the link is good once");
}

// Another address.

#[tokio::test]
async fn another_address_is_confirmed_from_there_and_the_old_one_is_told() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let reset_of_old = reset_token(&story, "ada@example.com").await;
    let asked =
        bearer_post(&story, &ada, "/api/v1/auth/change-email", &json!({"newEmail": "New@Example.org"})).await;
    assert_eq!((asked.status.as_u16(), &asked.json["success"]), (200, &json!(true)));
    let link = link_of(&story, "Confirm your new e-mail address").await;
    let to = |subject: &'static str| {
        let story = &story;
        async move {
            let mails = story.all_mails().await;
            let kept = mails.iter().find(|kept| about(&kept.mail) == subject);
            kept.map(|kept| (kept.mail.recipient.as_str().to_owned(), kept.mail.text.clone()))
        }
    };
    assert_eq!(to("Confirm your new e-mail address").await.unwrap().0, "new@example.org");
    let (told, text) = to("Your account is to have another address").await.unwrap();
    assert_eq!(told, "ada@example.com");
    assert!(text.contains("n***@example.org") && !text.contains("new@"), "{text}");

    page(&story.client.get(&link).send().await, 200);
    assert_eq!(story.get("/api/v1/auth/me", &ada).await.text("/email"), "ada@example.com");
    let token = token_of(&link);
    let confirmed = join_all((0..5).map(|_| send_form(&story, "/confirm-email", &[]))).await;
    assert!(confirmed.iter().all(|reply| reply.status.is_client_error()), "without a token");
    let fields = [("token", token.as_str())];
    let confirmed = join_all((0..5).map(|_| send_form(&story, "/confirm-email", &fields))).await;
    assert_eq!(confirmed.iter().filter(|reply| reply.status == 200).count(), 1, "once");
    let me = story.get("/api/v1/auth/me", &ada).await;
    assert_eq!((me.text("/email"), &me.json["emailVerified"]), ("new@example.org", &json!(true)));
    assert_eq!(to("The address of your account was changed").await.unwrap().0, "ada@example.com");
    assert_eq!(
        (event_count(&story, "email_change_requested").await, event_count(&story, "email_changed").await),
        (1, 1)
    );
    assert_eq!(reset(&story, &reset_of_old).await.status, 400, "what went to the old address is dead");
    assert_eq!(story.login("ada@example.com").await.status, 401);
    assert_eq!(login_with(&story, "new@example.org", PASSWORD).await.status, 200);
    assert_eq!(story.register("ada@example.com").await.status, 201, "the old one is free");
}

#[tokio::test]
async fn an_address_that_somebody_has_is_not_told_of_and_not_taken() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.user("bob@example.com").await;
    let change = async |email: &str| {
        bearer_post(&story, &ada, "/api/v1/auth/change-email", &json!({"newEmail": email})).await
    };
    let (held, free) = (change("bob@example.com").await, change("carol@example.com").await);
    assert_eq!((held.status, &held.json), (free.status, &free.json));
    assert_eq!(
        count_of(&story, "Your account is to have another address").await,
        2,
        "nor by the notice, which whoever asks may read"
    );
    assert_eq!(count_of(&story, "Confirm your new e-mail address").await, 1);
    let token = token_of(&link_of(&story, "Confirm your new e-mail address").await);
    assert_eq!(story.register("carol@example.com").await.status, 201);
    page(&send_form(&story, "/confirm-email", &[("token", &token)]).await, 409);
    assert_eq!(story.get("/api/v1/auth/me", &ada).await.text("/email"), "ada@example.com");
}

#[tokio::test]
async fn another_address_needs_a_fresh_sign_in_and_a_reset_stops_it_at_every_step() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let body = json!({"newEmail": "thief@example.org"});
    story.clock.advance(Duration::minutes(11));
    let stale = bearer_post(&story, &ada, "/api/v1/auth/change-email", &body).await;
    assert_eq!((stale.status.as_u16(), stale.problem()), (403, "auth.fresh_authentication_required"));
    // Asked for, and not answered yet.
    let thief = story.sign_in("ada@example.com").await;
    let token = reset_token(&story, "ada@example.com").await;
    assert_eq!(bearer_post(&story, &thief, "/api/v1/auth/change-email", &body).await.status, 200);
    assert_eq!(reset(&story, &token).await.status, 200);
    assert_eq!(count_of(&story, "Confirm your new e-mail address").await, 0);
    // Answered, and not confirmed yet.
    let thief = User::of(&login_with(&story, "ada@example.com", NEW_PASSWORD).await);
    assert_eq!(bearer_post(&story, &thief, "/api/v1/auth/change-email", &body).await.status, 200);
    let takes_away = token_of(&link_of(&story, "Confirm your new e-mail address").await);
    story.clock.advance(Duration::minutes(1));
    let mails = count_of(&story, "Set a new password").await;
    forgot(&story, "ada@example.com").await;
    assert_eq!(count_of(&story, "Set a new password").await, mails + 1);
    let token = newest_reset_token(&story).await;
    assert_eq!(reset(&story, &token).await.status, 200);
    page(&send_form(&story, "/confirm-email", &[("token", &takes_away)]).await, 404);
}

#[tokio::test]
async fn a_new_address_is_not_confirmed_once_the_session_that_asked_was_ended() {
    let story = Story::new().await;
    let root = story.administrator("root@example.com").await;
    let ada = story.user("ada@example.com").await;
    for (number, (how, status)) in [
        ("its owner ends it", 404),
        ("its owner ends all others", 404),
        ("an administrator ends it", 404),
        ("it signs out", 200),
    ]
    .into_iter()
    .enumerate()
    {
        let thief = story.sign_in("ada@example.com").await;
        let body = json!({"newEmail": format!("thief{number}@example.org")});
        assert_eq!(bearer_post(&story, &thief, "/api/v1/auth/change-email", &body).await.status, 200);
        let link = link_of(&story, "Confirm your new e-mail address").await;
        page(&story.client.get(&link).send().await, 200);
        let session = read_jwt(&thief.access_token)[1]["sid"].as_str().unwrap().to_owned();
        let (method, path, by) = match number {
            0 => (Method::DELETE, format!("/api/v1/auth/sessions/{session}"), &ada),
            1 => (Method::DELETE, "/api/v1/auth/sessions".to_owned(), &ada),
            2 => (Method::DELETE, format!("/api/v1/admin/users/{}/sessions/{session}", ada.id), &root),
            _ => (Method::POST, "/api/v1/auth/logout".to_owned(), &thief),
        };
        let ended = story.client.request(method, &path).bearer(&by.access_token).send().await;
        assert!(ended.status.is_success(), "{how} {}", ended.json);
        assert!(!story.is_signed_in(&thief).await, "{how}");
        page(&story.client.get(&link).send().await, status);
        page(&send_form(&story, "/confirm-email", &[("token", &token_of(&link))]).await, status);
    }
    assert_eq!(
        story.get("/api/v1/auth/me", &ada).await.text("/email"),
        "thief3@example.org",
        "the control: who only signs out goes on to be the owner"
    );
}

/// The one of the mailed tokens that is stored.
async fn newest_reset_token(story: &Story) -> String {
    let stored: Vec<u8> = sqlx::query_scalar(
        "SELECT token_hash FROM auth.verification_tokens WHERE purpose = 'reset_password'",
    )
    .fetch_one(&mut story.database.owner().await)
    .await
    .unwrap();
    let mails = story.all_mails().await;
    let links =
        mails.iter().flat_map(|kept| kept.mail.text.lines()).filter_map(|line| line.strip_prefix(BASE));
    let mut tokens = links.filter(|link| link.contains("/reset-password/")).map(token_of);
    tokens.find(|token| mana_kernel::secret::sha256(token.as_bytes()).to_vec() == stored).unwrap()
}

// Sign-in by mail.

#[tokio::test]
async fn sign_in_by_mail_is_not_offered_unless_the_operator_wants_it() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let email = json!({"email": "ada@example.com"});
    for (path, body) in [
        ("/api/v1/auth/magic-link", email.clone()),
        ("/api/v1/auth/magic-link/verify", json!({"token": "mml_x"})),
        ("/api/v1/auth/email-code", email),
        ("/api/v1/auth/email-code/verify", json!({"email": "ada@example.com", "code": "123456"})),
    ] {
        let refused = story.post(path, &body).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (404, "auth.sign_in_by_mail_off"), "{path}");
    }
    assert_eq!(story.client.get("/magic-link?token=x").send().await.status, 404);
    assert_eq!(send_form(&story, "/magic-link", &[("token", "x")]).await.status, 404);
    assert_eq!(story.number(REQUESTS).await, 0);
}

async fn with_magic_links() -> Story {
    Story::with(|settings| settings.magic_link_sign_in = true).await
}

async fn magic_link(story: &Story, redirect_to: Option<&str>) -> String {
    let mut body = json!({"email": "ada@example.com"});
    if let Some(redirect_to) = redirect_to {
        body["redirectTo"] = json!(redirect_to);
    }
    let asked = story.post("/api/v1/auth/magic-link", &body).await;
    assert_eq!(asked.status, 200, "{}", asked.json);
    link_of(story, "Your link to sign in").await
}

#[tokio::test]
async fn a_mailed_link_signs_a_browser_in_by_its_button_and_once() {
    let story = with_magic_links().await;
    let ada = story.user("ada@example.com").await;
    confirm(&story).await;
    let link = magic_link(&story, Some(&format!("{APP}/home?tab=1"))).await;
    for method in [Method::HEAD, Method::GET] {
        let opened = story.client.request(method, &link).send().await;
        assert_eq!(opened.status, 200);
        assert!(opened.headers.get("set-cookie").is_none());
    }
    assert!(page(&story.client.get(&link).send().await, 200).contains("ada@example.com"));
    let redirect_to = parameter(&link, "redirectTo").unwrap();
    let fields = [("token", token_of(&link)), ("redirectTo", redirect_to)];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let replies = join_all((0..6).map(|_| send_form(&story, "/magic-link", &fields))).await;
    let signed_in: Vec<_> = replies.iter().filter(|reply| reply.status == 303).collect();
    assert_eq!(signed_in.len(), 1, "{:?}", replies.iter().map(|reply| reply.status).collect::<Vec<_>>());
    assert_eq!(location(signed_in[0]), format!("{APP}/home?tab=1"));
    let cookie = signed_in[0].headers["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let session = story.client.get("/api/auth/get-session").header("cookie", cookie).send().await;
    assert_eq!(session.text("/user/id"), ada.id);
    assert!(story.is_signed_in(&ada).await, "the address was proven before: nothing else changes");
    assert_eq!(story.login("ada@example.com").await.status, 200);
    let proven: Vec<String> =
        sqlx::query_scalar("SELECT authenticated_by[1] FROM auth.sessions ORDER BY created_at, id")
            .fetch_all(&mut story.database.owner().await)
            .await
            .unwrap();
    assert!(proven.contains(&"mail".to_owned()), "{proven:?}");
}

#[tokio::test]
async fn an_app_signs_in_with_the_token_of_a_link_and_the_second_factor_is_asked_for() {
    let story = with_magic_links().await;
    let ada = story.user("ada@example.com").await;
    confirm(&story).await;
    let verify = async |token: &str| {
        let body = json!({"token": token, "deviceId": "phone", "deviceName": "My phone"});
        story.post("/api/v1/auth/magic-link/verify", &body).await
    };
    let token = token_of(&magic_link(&story, None).await);
    let phone = User::of(&verify(&token).await);
    assert!(story.is_signed_in(&phone).await);
    let again = verify(&token).await;
    assert_eq!((again.status.as_u16(), again.problem()), (400, "auth.link_void"));

    two_factor::leave_rows(&story, &ada).await;
    story.clock.advance(Duration::minutes(2));
    story.execute("DELETE FROM auth.mail_budgets").await;
    let body = json!({"email": "ada@example.com"});
    story.post("/api/v1/auth/magic-link", &body).await;
    let stored: Vec<u8> = {
        story.workers.deliver_mails().await;
        sqlx::query_scalar("SELECT token_hash FROM auth.verification_tokens WHERE purpose = 'magic_link'")
            .fetch_one(&mut story.database.owner().await)
            .await
            .unwrap()
    };
    let mails = story.all_mails().await;
    let links =
        mails.iter().flat_map(|kept| kept.mail.text.lines()).filter_map(|line| line.strip_prefix(BASE));
    let token = links
        .filter(|link| link.starts_with("/magic-link"))
        .map(token_of)
        .find(|token| mana_kernel::secret::sha256(token.as_bytes()).to_vec() == stored)
        .unwrap();
    let challenged = send_form(&story, "/magic-link", &[("token", &token), ("redirectTo", APP)]).await;
    assert_eq!(location(&challenged), format!("{APP}/?twoFactorRequired=true"));
    let cookie = challenged.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("mana.two_factor="), "{cookie}");
    let open = story.client.get("/api/auth/get-session").header("cookie", cookie.split(';').next().unwrap());
    assert_eq!(open.send().await.json, json!(null), "half a sign-in opens nothing");
}

#[tokio::test]
async fn what_an_app_sends_of_a_mail_is_half_a_sign_in_where_there_is_a_second_factor() {
    const LIVE: &str = "SELECT count(*) FROM auth.sessions WHERE revoked_at IS NULL";
    let story = Story::with(|settings| {
        settings.magic_link_sign_in = true;
        settings.email_code_sign_in = true;
    })
    .await;
    let ada = story.user("ada@example.com").await;
    confirm(&story).await;
    let owner = two_factor::set_up(&story, ada).await;
    let before = story.number(LIVE).await;
    let token = token_of(&magic_link(&story, None).await);
    let by_link = story.post("/api/v1/auth/magic-link/verify", &json!({"token": token})).await;
    let code = ask_code(&story, "ada@example.com").await;
    let body = json!({"email": "ada@example.com", "code": code});
    let by_code = story.post("/api/v1/auth/email-code/verify", &body).await;
    for half in [&by_link, &by_code] {
        assert_eq!(half.status, 200, "{}", half.json);
        assert_eq!(members(&half.json), ["challengeToken", "methods", "twoFactorRequired"]);
        let mut cookies = half.headers.get_all("set-cookie").iter();
        assert!(
            cookies.all(|cookie| !cookie.to_str().unwrap().starts_with("mana.session_token=")),
            "{:?}",
            half.headers
        );
    }
    assert_eq!(story.number(LIVE).await, before, "half a sign-in opens nothing");
    for half in [by_link, by_code] {
        story.clock.advance(Duration::seconds(60));
        let code = two_factor::code(&story, &owner.secret);
        let body = json!({"challengeToken": half.text("/challengeToken"), "code": code});
        let done = story.post("/api/v1/auth/two-factor/verify", &body).await;
        assert_eq!(done.status, 200, "{}", done.json);
        assert!(story.is_signed_in(&User::of(&done)).await);
    }
    assert_eq!(story.number(LIVE).await, before + 2);
}

#[tokio::test]
async fn a_sign_in_by_mail_to_an_account_that_nobody_had_proven_ends_what_was_there() {
    let story = with_magic_links().await;
    let eve = story.user("ada@example.com").await;
    two_factor::leave_rows(&story, &eve).await;
    let body = json!({"newEmail": "eve@example.com"});
    assert_eq!(bearer_post(&story, &eve, "/api/v1/auth/change-email", &body).await.status, 200);
    let takes_away = token_of(&link_of(&story, "Confirm your new e-mail address").await);
    let token = token_of(&magic_link(&story, None).await);
    let owner = User::of(&story.post("/api/v1/auth/magic-link/verify", &json!({"token": token})).await);
    assert!(!story.is_signed_in(&eve).await && story.is_signed_in(&owner).await);
    assert!(is_verified(&story, &owner).await);
    assert_eq!(story.login("ada@example.com").await.status, 401, "the password was a stranger's");
    page(&send_form(&story, "/confirm-email", &[("token", &takes_away)]).await, 404);
    assert_eq!(story.number("SELECT count(*) FROM auth.two_factor_auth").await, 0);
}

async fn with_codes() -> Story {
    Story::with(|settings| settings.email_code_sign_in = true).await
}

/// The newest code that was mailed, asked for by the caller.
async fn code_of(story: &Story) -> String {
    let mails = story.all_mails().await;
    let kept = mails.iter().find(|kept| about(&kept.mail) == "Your code to sign in").unwrap();
    let is_code = |line: &&str| line.len() == 6 && line.bytes().all(|byte| byte.is_ascii_digit());
    kept.mail.text.lines().find(is_code).unwrap().to_owned()
}

async fn ask_code(story: &Story, email: &str) -> String {
    let asked = story.post("/api/v1/auth/email-code", &json!({"email": email})).await;
    assert_eq!(asked.status, 200);
    code_of(story).await
}

async fn verify_code(story: &Story, email: &str, code: &str) -> Reply {
    story.post("/api/v1/auth/email-code/verify", &json!({"email": email, "code": code})).await
}

/// Another code, as far from the right one as `distance`.
fn wrong(code: &str, distance: u32) -> String {
    format!("{:06}", code.parse::<u32>().unwrap().wrapping_add(distance) % 1_000_000)
}

#[tokio::test]
async fn a_mailed_code_signs_in_once_and_within_ten_minutes() {
    let story = with_codes().await;
    story.user("ada@example.com").await;
    confirm(&story).await;
    let code = ask_code(&story, "ada@example.com").await;
    let spaced = format!("{} {}", &code[..3], &code[3..]);
    let ada = User::of(&verify_code(&story, "ADA@example.com", &spaced).await);
    assert!(story.is_signed_in(&ada).await);
    let again = verify_code(&story, "ada@example.com", &code).await;
    assert_eq!((again.status.as_u16(), again.problem()), (401, "auth.code_void"));

    story.clock.advance(Duration::hours(1));
    story.forget_mails().await;
    let asked = story.post("/api/v1/auth/email-code", &json!({"email": "ada@example.com"})).await;
    assert_eq!(asked.status, 200);
    story.workers.deliver_mails().await;
    story.clock.advance(Duration::minutes(10));
    for kept in story.all_mails().await {
        for line in kept.mail.text.lines().filter(|line| line.len() == 6) {
            assert_eq!(verify_code(&story, "ada@example.com", line).await.status, 401, "too old");
        }
    }
}

#[tokio::test]
async fn a_wrong_code_costs_the_same_work_whether_the_address_has_an_account() {
    let story = Story::with(|settings| {
        settings.email_code_sign_in = true;
        settings.credits_bonus_requires_verification = true;
    })
    .await;
    for email in ["ada@example.com", "bob@example.com", "disabled@example.com", "waits@example.com"] {
        story.register(email).await;
    }
    // A bonus waits for the proof of two addresses, one of which has a code.
    story
        .execute(
            "DELETE FROM auth.pending_bonuses USING auth.users
             WHERE users.id = user_id AND email NOT IN ('ada@example.com', 'waits@example.com')",
        )
        .await;
    story.execute("UPDATE auth.users SET disabled_at = now() WHERE email = 'disabled@example.com'").await;
    let code = wrong(&ask_code(&story, "ada@example.com").await, 1);
    let emails = [
        "ada@example.com",
        "bob@example.com",
        "disabled@example.com",
        "waits@example.com",
        "nobody@example.com",
    ];
    let statements = Statements::watch();
    let mut work = Vec::new();
    // A connection's first statements may cost it more.
    for _ in 0..2 {
        work.clear();
        for email in emails {
            statements.take();
            assert_eq!(verify_code(&story, email, &code).await.status, 401, "{email}");
            work.push(statements.take());
        }
    }
    assert!(work[0].len() >= 4, "{work:?}");
    for (same, email) in work.iter().zip(emails) {
        assert_eq!(same, &work[0], "{email}");
    }
    drop(statements);

    // Nor does it wait for what the account spends. The right one does, to give the bonus.
    let code = ask_code(&story, "waits@example.com").await;
    let held = story.holding("SELECT FROM credits.balances FOR UPDATE").await;
    assert_eq!(verify_code(&story, "waits@example.com", &wrong(&code, 1)).await.status, 401);
    let body = json!({"email": "waits@example.com", "code": code});
    let right = story.client.post("/api/v1/auth/email-code/verify", &body);
    let right = story.send_to_wait(right, 1).await;
    let_go(held).await;
    assert_eq!(right.await.unwrap().status, 200);
    assert_eq!(story.number("SELECT count(*) FROM auth.pending_bonuses").await, 1, "it was given");
}

#[tokio::test]
async fn a_code_makes_one_session_however_often_it_is_sent_at_once() {
    let story = with_codes().await;
    story.user("ada@example.com").await;
    confirm(&story).await;
    let code = ask_code(&story, "ada@example.com").await;
    let replies = join_all((0..4).map(|_| verify_code(&story, "ada@example.com", &code))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
}

#[tokio::test]
async fn a_code_is_dead_after_five_wrong_guesses_also_at_once_and_from_anywhere() {
    let story = Story::with(|settings| {
        settings.email_code_sign_in = true;
        settings.sign_in_free_failures = 1000;
        settings.sign_in_failures_per_hour = 1_000_000;
    })
    .await;
    story.user("ada@example.com").await;
    confirm(&story).await;
    let code = ask_code(&story, "ada@example.com").await;
    let guesses = (1..=20_u8).map(|number| {
        let client = story.client.at(&format!("198.51.{number}.1"));
        let body = json!({"email": "ada@example.com", "code": wrong(&code, u32::from(number))});
        async move { client.post("/api/v1/auth/email-code/verify", &body).send().await.status.as_u16() }
    });
    assert!(join_all(guesses).await.iter().all(|status| *status == 401));
    assert_eq!(
        story
            .number("SELECT attempts::bigint FROM auth.verification_tokens WHERE purpose = 'sign_in_code'")
            .await,
        5
    );
    assert_eq!(
        verify_code(&story, "ada@example.com", &code).await.status,
        401,
        "it was guessed at too often"
    );
}

#[tokio::test]
async fn four_wrong_guesses_leave_a_code_good_and_slow_the_guesser_down() {
    let story = with_codes().await;
    story.user("ada@example.com").await;
    confirm(&story).await;
    let code = ask_code(&story, "ada@example.com").await;
    for distance in 1..=4 {
        assert_eq!(verify_code(&story, "ada@example.com", &wrong(&code, distance)).await.status, 401);
    }
    assert_eq!(verify_code(&story, "ada@example.com", &code).await.status, 200);
    let mut last = 401;
    for number in 0..20 {
        last = verify_code(&story, "ada@example.com", &wrong(&code, number + 7)).await.status.as_u16();
    }
    assert_eq!(last, 429, "as with passwords");
}

#[tokio::test]
async fn codes_say_nothing_of_whether_an_address_has_an_account_and_are_one_accounts_own() {
    let story = with_codes().await;
    story.user("ada@example.com").await;
    story.user("bob@example.com").await;
    let asked = |email: &'static str| story.client.post("/api/v1/auth/email-code", &json!({"email": email}));
    let (known, unknown) = (asked("ada@example.com").send().await, asked("nobody@example.com").send().await);
    assert_eq!((known.status, &known.json), (unknown.status, &unknown.json));
    let code = code_of(&story).await;
    let events = "SELECT count(*) FROM auth.security_events WHERE type = 'sign_in_failed'";
    let mut answers = Vec::new();
    for email in ["bob@example.com", "nobody@example.com", "ada@example.com"] {
        let code = if email.starts_with("ada") { wrong(&code, 1) } else { code.clone() };
        let reply = verify_code(&story, email, &code).await;
        answers.push((reply.status, reply.problem().to_owned(), reply.text("/message").to_owned()));
        assert_eq!(
            story.number(events).await,
            i64::try_from(answers.len()).unwrap(),
            "the same work for each"
        );
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    assert_eq!(verify_code(&story, "ada@example.com", &code).await.status, 200);
}

#[tokio::test]
async fn a_token_of_one_kind_does_nothing_that_wants_another() {
    let story = with_magic_links().await;
    let ada = story.user("ada@example.com").await;
    let verifies = token_of(&verification_link(&story).await);
    let resets = reset_token(&story, "ada@example.com").await;
    let signs_in = token_of(&magic_link(&story, None).await);
    bearer_post(&story, &ada, "/api/v1/auth/change-email", &json!({"newEmail": "new@example.org"})).await;
    let changes = token_of(&link_of(&story, "Confirm your new e-mail address").await);
    let cookie = ada.cookie.strip_prefix("mana.session_token=").unwrap().to_owned();
    let all = [&verifies, &resets, &signs_in, &changes, &ada.access_token, &ada.refresh_token, &cookie];
    for token in all {
        if *token != verifies {
            let sent = send_form(&story, "/api/auth/verify-email", &[("token", token)]).await;
            assert!(location(&sent).ends_with("invalid_or_expired_token"), "{token}");
        }
        if *token != resets {
            assert_eq!(reset(&story, token).await.status, 400, "{token}");
        }
        if *token != signs_in {
            let sent = story.post("/api/v1/auth/magic-link/verify", &json!({"token": token})).await;
            assert_eq!(sent.status, 400, "{token}");
        }
        if *token != changes {
            page(&send_form(&story, "/confirm-email", &[("token", token)]).await, 404);
        }
        if token.starts_with('m') && *token != ada.refresh_token {
            assert_eq!(story.refresh(token).await.status, 401, "{token}");
            assert_eq!(story.client.get("/api/v1/auth/me").bearer(token).send().await.status, 401, "{token}");
        }
    }
    assert!(story.is_signed_in(&ada).await && !is_verified(&story, &ada).await);
}

#[tokio::test]
async fn a_foreign_page_presses_no_button() {
    let story = with_magic_links().await;
    story.user("ada@example.com").await;
    let forms = [
        ("/api/auth/verify-email", token_of(&verification_link(&story).await)),
        ("/reset-password", reset_token(&story, "ada@example.com").await),
        ("/magic-link", token_of(&magic_link(&story, None).await)),
        ("/confirm-email", "mce_x".to_owned()),
    ];
    for (path, token) in &forms {
        for (name, value) in
            [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example"), ("origin", "null")]
        {
            let form = story.client.request(Method::POST, path).body(FORM, format!("token={token}"));
            let refused = form.header(name, value).send().await;
            assert_eq!(
                (refused.status.as_u16(), refused.problem()),
                (403, "request.foreign_site"),
                "{path} {value}"
            );
        }
    }
    assert_eq!(story.number("SELECT count(*) FROM auth.verification_tokens").await, 3);
    let own = story.client.request(Method::POST, "/magic-link").body(FORM, format!("token={}", forms[2].1));
    let own = own.header("sec-fetch-site", "same-origin").header("origin", BASE).send().await;
    page(&own, 200);
    assert!(own.headers.get("set-cookie").is_some(), "the control");
}

#[tokio::test]
async fn a_link_goes_through_an_smtp_server_as_it_is_and_late_when_that_was_down() {
    let mut server = SmtpServer::stopped(Manners::Kind);
    let story = Story::mailing(server.mailer(Wait::from_secs(20))).await;
    story.user("ada@example.com").await;
    story.forget_mails().await;
    let body = json!({"email": "ada@example.com", "redirectTo": APP});
    assert_eq!(story.post("/api/v1/auth/forgot-password", &body).await.status, 200);
    story.workers.deliver_mails().await;
    assert!(server.received().is_empty());
    server.resume();
    story.clock.advance(Duration::minutes(1));
    story.workers.deliver_mails().await;
    let received = server.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].envelope[1], "RCPT TO:<ada@example.com>");
    // Quoted-printable, where it is needed.
    let content = received[0].content.replace("=\r\n", "").replace("=3D", "=");
    let link = content.lines().find_map(|line| line.strip_prefix(BASE)).unwrap();
    let followed = story.client.get(link).send().await;
    assert_eq!(location(&followed), format!("{APP}/reset-password?token={}", token_of(link)));
    assert_eq!(reset(&story, &token_of(link)).await.status, 200);
}

#[tokio::test]
async fn a_link_that_gives_a_bonus_and_a_spend_at_once_never_wait_for_each_other() {
    let story = Story::with(|settings| settings.credits_bonus_requires_verification = true).await;
    let ada = story.user("ada@example.com").await;
    let token = token_of(&verification_link(&story).await);
    let confirmation = || {
        let fields = [("token", token.as_str()), ("password", PASSWORD)];
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        story.client.request(Method::POST, "/api/auth/verify-email").body(FORM, body)
    };
    let charge = || story.client.post("/api/v1/credits/use", &spend_of(1)).bearer(&ada.access_token);
    // Both come to the wallet, the charge first: it locks the user next.
    let held = story.holding("SELECT FROM credits.balances FOR UPDATE").await;
    let spent = story.send_to_wait(charge(), 1).await;
    let confirmed = story.send_to_wait(confirmation(), 2).await;
    let_go(held).await;
    assert_eq!(spent.await.unwrap().problem(), "credits.insufficient_funds", "there was nothing yet");
    let confirmed = confirmed.await.unwrap();
    assert!(location(&confirmed).contains("verified=true"), "{}", location(&confirmed));
    assert_eq!(charge().send().await.status, 201);
    // A connection has told of all that it met when it is gone.
    let end_of_connections = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND usename = 'mana_service'";
    while story.number(end_of_connections).await > 0 {}
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(story.number(deadlocks).await, 0);
}
