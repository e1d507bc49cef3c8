//! A sign-in from a new device: its owner is told, and ends it by one click that no scanner of mails makes by accident.

use crate::mail_flows::{NEW_PASSWORD, link_of, reset_token};
use crate::oauth::left_for;
use crate::provider::Provider;
use crate::story::{PASSWORD, Story, User, about};
use crate::{oauth_linking, two_factor};
use http::Method;
use mana_testkit::Reply;
use serde_json::{Value, json};
use time::Duration;

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0";
const CHROME: &str = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Mobile Safari/537.36";

/// Signs in with a browser.
async fn sign_in_with(story: &Story, user_agent: &str, language: &str) -> User {
    let credentials = json!({"email": "ada@example.com", "password": PASSWORD});
    let request = story.client.post("/api/v1/auth/login", &credentials);
    let request = request.header("user-agent", user_agent).header("accept-language", language);
    // What a link must not be built from.
    let request = request.header("host", "evil.example").header("x-forwarded-host", "evil.example");
    User::of(&request.send().await)
}

/// An owner who is signed in with Firefox.
async fn owner(story: &Story) -> User {
    assert_eq!(story.register("ada@example.com").await.status, 201);
    sign_in_with(story, FIREFOX, "en").await
}

/// Path and query of the link in the newest mail.
async fn link(story: &Story) -> String {
    let mails = story.mails().await;
    let text = &mails[0].mail.text;
    let link = text.lines().find_map(|line| line.strip_prefix("http://localhost:3001")).unwrap();
    link.to_owned()
}

async fn send_form(story: &Story, token: &str) -> Reply {
    let form = story.client.request(Method::POST, "/not-me");
    form.body("application/x-www-form-urlencoded", format!("token={token}")).send().await
}

fn token_of(link: &str) -> &str {
    link.strip_prefix("/not-me?token=").unwrap()
}

fn page(reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status, status);
    assert!(reply.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert_eq!(
        reply.headers["referrer-policy"], "same-origin",
        "the address holds a secret, the form an origin"
    );
    let text = String::from_utf8(reply.bytes.to_vec()).unwrap();
    assert!(!text.contains("<script"), "{text}");
    text
}

#[tokio::test]
async fn the_mail_comes_in_the_language_of_the_sign_in_and_names_device_and_address() {
    let story = Story::new().await;
    owner(&story).await;
    assert!(story.mails().await.is_empty(), "the first sign-in of an account is not new");
    sign_in_with(&story, CHROME, "de-AT,de;q=0.9,en;q=0.5").await;
    let mails = story.mails().await;
    let mail = &mails[0].mail;
    assert_eq!((mails.len(), mail.recipient.as_str()), (1, "ada@example.com"));
    assert_eq!(about(mail), "Neue Anmeldung bei deinem Konto");
    for body in [&mail.text, &mail.html] {
        for expected in ["Chrome unter Android", "127.0.0.1", "http://localhost:3001/not-me?token=mnm_"] {
            assert!(body.contains(expected), "no {expected} in {body}");
        }
        assert!(!body.contains("evil"), "{body}");
    }
    sign_in_with(&story, "curl/8.14.1", "fr").await;
    let mails = story.mails().await;
    assert_eq!(about(&mails[0].mail), "New sign-in to your account");
    assert!(mails[0].mail.text.contains("curl"));
}

#[tokio::test]
async fn a_known_device_sends_no_mail() {
    let story = Story::new().await;
    owner(&story).await;
    sign_in_with(&story, FIREFOX, "de").await;
    sign_in_with(&story, &FIREFOX.replace("141", "150"), "de").await;
    assert!(story.mails().await.is_empty());
    assert_eq!(story.number("SELECT count(*) FROM auth.security_events WHERE type = 'new_device'").await, 0);
}

#[tokio::test]
async fn a_sign_in_is_announced_also_when_all_earlier_ones_are_forgotten() {
    const EVENTS: &str = "SELECT count(*) FROM auth.security_events WHERE type = 'new_device'";
    let story = Story::new().await;
    owner(&story).await;
    story.clock.advance(Duration::days(40));
    // What has rested for so long is old by the database's clock too.
    story.execute("UPDATE auth.sessions SET expires_at = now() - interval '31 days'").await;
    story.workers.prune().await;
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions").await, 0);
    sign_in_with(&story, CHROME, "en").await;
    assert_eq!((story.mails().await.len(), story.number(EVENTS).await), (1, 1));
}

#[tokio::test]
async fn a_secret_of_one_kind_opens_nothing_that_wants_another() {
    let story = Story::new().await;
    let here = owner(&story).await;
    sign_in_with(&story, CHROME, "en").await;
    let link = link(&story).await;
    let claim = story.claim_link().await.unwrap();
    let cookie = here.cookie.strip_prefix("mana.session_token=").unwrap();
    let [disowns, claims] = [token_of(&link), claim.strip_prefix("/claim-admin?token=").unwrap()];
    let kinds = [disowns, claims, cookie, &here.refresh_token, &here.access_token];
    for (number, secret) in kinds.into_iter().enumerate() {
        let get = |path: &str| story.client.get(path);
        if number != 0 {
            page(&get(&format!("/not-me?token={secret}")).send().await, 404);
            page(&send_form(&story, secret).await, 404);
        }
        if number != 1 {
            page(&get(&format!("/claim-admin?token={secret}")).send().await, 404);
            let form = format!("token={secret}&email=eve%40example.com&password=correct+horse+battery");
            let form = story
                .client
                .request(Method::POST, "/claim-admin")
                .body("application/x-www-form-urlencoded", form);
            page(&form.send().await, 404);
        }
        if number != 2 {
            let by_cookie = |path: &str| get(path).header("cookie", &format!("mana.session_token={secret}"));
            assert_eq!(by_cookie("/api/auth/get-session").send().await.json, json!(null), "{secret}");
            let exchanged = story.client.request(Method::POST, "/api/v1/auth/session-to-token");
            let exchanged = exchanged.header("cookie", &format!("mana.session_token={secret}")).send().await;
            assert_eq!(exchanged.status, 401, "{secret}");
        }
        if number != 3 {
            assert_eq!(story.refresh(secret).await.status, 401, "{secret}");
            let out = story.post("/api/v1/auth/logout", &json!({"refreshToken": secret})).await;
            assert_eq!(out.status, 401, "{secret}");
        }
        if number != 4 {
            assert_eq!(get("/api/v1/auth/me").bearer(secret).send().await.status, 401, "{secret}");
            let verdict = story.post("/api/v1/auth/validate", &json!({"token": secret})).await;
            assert_eq!(verdict.json["valid"], false, "{secret}");
        }
    }
    assert!(story.is_signed_in(&here).await, "and ends nothing");
    page(&story.client.get(&link).send().await, 200);
    page(&story.client.get(&claim).send().await, 200);
}

#[tokio::test]
async fn opening_the_link_ends_nothing_and_the_button_ends_that_sign_in_alone_once() {
    let story = Story::new().await;
    let here = owner(&story).await;
    let thief = sign_in_with(&story, CHROME, "en").await;
    let link = link(&story).await;
    let token = token_of(&link);
    for method in [Method::GET, Method::HEAD, Method::GET] {
        assert_eq!(story.client.request(method, &link).send().await.status, 200);
    }
    let opened = story.client.get(&link).header("accept-language", "de").send().await;
    let shown = page(&opened, 200);
    for expected in ["lang=\"de\"", "Chrome unter Android", "127.0.0.1", "<button>", "method=\"post\""] {
        assert!(shown.contains(expected), "no {expected} in {shown}");
    }
    assert!(story.is_signed_in(&thief).await && story.is_signed_in(&here).await);

    story.clock.advance(Duration::seconds(1));
    // As a browser that knows no Sec-Fetch-Site sends a form of a page whose policy is `same-origin`.
    let form = story.client.request(Method::POST, "/not-me").header("origin", "http://localhost:3001");
    let ended = form.body("application/x-www-form-urlencoded", format!("token={token}")).send().await;
    assert!(page(&ended, 200).contains("password"));
    assert!(!story.is_signed_in(&thief).await);
    assert_eq!(story.refresh(&thief.refresh_token).await.status, 401);
    assert!(story.is_signed_in(&here).await);
    assert_eq!(story.refresh(&here.refresh_token).await.status, 200);

    let events = story.get("/api/v1/auth/security-events", &here).await;
    let newest = &events.json[0];
    assert_eq!((&newest["type"], &newest["detail"]), (&json!("session_revoked"), &json!("disowned")));
    let new_device =
        events.json.as_array().unwrap().iter().find(|event| event["type"] == "new_device").unwrap();
    assert_eq!(new_device["sessionId"], newest["sessionId"]);

    page(&story.client.get(&link).send().await, 404);
    page(&send_form(&story, token).await, 404);
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'session_revoked'").await,
        1
    );
}

#[tokio::test]
async fn of_many_clicks_at_once_one_counts() {
    let story = Story::new().await;
    owner(&story).await;
    sign_in_with(&story, CHROME, "en").await;
    let link = link(&story).await;
    let clicks = (0..10).map(|_| send_form(&story, token_of(&link)));
    let answers = futures_util::future::join_all(clicks).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [[200].as_slice(), &[404; 9]].concat());
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'session_revoked'").await,
        1
    );
}

#[tokio::test]
async fn every_link_that_is_not_good_reads_the_same() {
    let story = Story::new().await;
    owner(&story).await;
    let there = sign_in_with(&story, CHROME, "en").await;
    let ended = link(&story).await;
    page(&send_form(&story, token_of(&ended)).await, 200);
    let cookie = there.cookie.split_once('=').unwrap().1;
    let unknown = format!("mnm_{}", "A".repeat(43));
    let mut pages = Vec::new();
    for token in [token_of(&ended), &unknown, cookie, &there.refresh_token, "", "mnm_", "%00"] {
        pages.push(page(&story.client.get(&format!("/not-me?token={token}")).send().await, 404));
        pages.push(page(&send_form(&story, token).await, 404));
    }
    pages.push(page(&story.client.get("/not-me").send().await, 404));
    assert!(pages.iter().all(|page| *page == pages[0]));
}

#[tokio::test]
async fn a_stranger_whose_session_has_ended_does_not_come_back_by_what_was_added_in_it() {
    let there = Provider::start().await;
    for how in ["signed out", "ended by the owner", "a new password", "a reset", "expired"] {
        let story = there.story(|_| {}).await;
        let here = owner(&story).await;
        // Of an address that nobody has proven, a reset takes everything anyway.
        story.execute("UPDATE auth.users SET email_verified = true").await;
        let thief = sign_in_with(&story, CHROME, "en").await;
        let link = link(&story).await;
        left_for(&oauth_linking::link(&story, &there, &thief, "google").await);
        let as_user = |method: Method, path: &str, user: &User, body: serde_json::Value| {
            let request = story.client.request(method, path).bearer(&user.access_token);
            request.body("application/json", body.to_string()).send()
        };
        match how {
            "signed out" => {
                as_user(Method::POST, "/api/v1/auth/logout", &thief, json!({})).await;
            }
            "ended by the owner" => {
                as_user(Method::DELETE, "/api/v1/auth/sessions", &here, json!({})).await;
            }
            "a new password" => {
                let body = json!({"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD});
                as_user(Method::POST, "/api/v1/auth/change-password", &here, body).await;
            }
            "a reset" => {
                let token = reset_token(&story, "ada@example.com").await;
                let body = json!({"token": token, "newPassword": NEW_PASSWORD});
                story.post("/api/v1/auth/reset-password", &body).await;
            }
            _ => story.clock.advance(Duration::days(8)),
        }
        assert!(!story.is_signed_in(&thief).await, "{how}");
        let stranger = json!({ "idToken": there.id_token(&json!({"aud": "google-app"})) });
        let back = story.post("/api/v1/auth/google-signin", &stranger).await;
        assert_eq!(back.text("/user/id"), here.id, "the control: {how}");

        let shown = page(&story.client.get(&link).send().await, 200);
        assert!(shown.contains("has ended already") && shown.contains("<button>"), "{how}: {shown}");
        page(&send_form(&story, token_of(&link)).await, 200);
        assert!(!story.is_signed_in(&User::of(&back)).await, "opened by what was added: {how}");
        let again = story.post("/api/v1/auth/google-signin", &stranger).await;
        assert_ne!(again.text("/user/id"), here.id, "{how}");
        page(&send_form(&story, token_of(&link)).await, 404);
    }
}

#[tokio::test]
async fn what_a_stranger_opened_from_the_same_device_goes_with_the_first_sign_in() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let here = owner(&story).await;
    sign_in_with(&story, CHROME, "en").await;
    let link = link(&story).await;
    story.clock.advance(Duration::seconds(1));
    let second = sign_in_with(&story, &CHROME.replace("139", "140"), "en").await;
    assert_eq!(story.mails().await.len(), 1, "the device is known by now");
    left_for(&oauth_linking::link(&story, &there, &second, "google").await);
    page(&send_form(&story, token_of(&link)).await, 200);
    assert!(!story.is_signed_in(&second).await && story.is_signed_in(&here).await);
    assert_eq!(story.number("SELECT count(*) FROM auth.accounts").await, 0);
    let told = async || {
        let mails = story.all_mails().await;
        mails.iter().filter(|kept| about(&kept.mail) == "New sign-in to your account").count()
    };
    let before = told().await;
    sign_in_with(&story, CHROME, "en").await;
    assert_eq!(told().await, before + 1, "the stranger's device is new again");
}

#[tokio::test]
async fn sign_ins_that_no_mail_told_of_go_with_those_that_one_did() {
    let story = Story::new().await;
    let here = owner(&story).await;
    let mut strangers = Vec::new();
    for number in 0..6 {
        story.clock.advance(Duration::seconds(1));
        strangers.push(sign_in_with(&story, &format!("Stranger/{number}"), "en").await);
    }
    let mails = story.mails().await;
    assert_eq!(mails.len(), 5, "an hour's share");
    let (untold, told) = strangers.split_last().unwrap();
    page(&send_form(&story, token_of(&link(&story).await)).await, 200);
    assert!(!story.is_signed_in(untold).await && !story.is_signed_in(&told[4]).await);
    assert!(story.is_signed_in(&told[0]).await, "the control: it has a link of its own");
    assert!(story.is_signed_in(&here).await);
}

#[tokio::test]
async fn the_owner_is_told_of_what_is_added_and_undoes_it_though_the_device_looked_known() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let here = owner(&story).await;
    story.clock.advance(Duration::seconds(1));
    let thief = sign_in_with(&story, FIREFOX, "en").await;
    assert!(story.mails().await.is_empty(), "it copies the owner's");
    left_for(&oauth_linking::link(&story, &there, &thief, "google").await);
    let mails = story.mails().await;
    let mail = &mails[0].mail;
    assert_eq!(
        (mails.len(), mail.recipient.as_str(), about(mail)),
        (1, "ada@example.com", "A service was linked to your account")
    );
    for body in [&mail.text, &mail.html] {
        assert!(
            body.contains("Google") && body.contains("127.0.0.1") && body.contains("/not-me?token=mnm_"),
            "{body}"
        );
    }
    let link = link(&story).await;
    page(&story.client.get(&link).send().await, 200);
    assert!(story.is_signed_in(&thief).await, "opening it does nothing");
    page(&send_form(&story, token_of(&link)).await, 200);
    assert!(!story.is_signed_in(&thief).await && story.is_signed_in(&here).await);
    assert_eq!(story.number("SELECT count(*) FROM auth.accounts").await, 0);

    // Five an hour, as of every kind; the sixth change voids no link.
    let thief = sign_in_with(&story, FIREFOX, "en").await;
    let mut last = String::new();
    for number in 0..6 {
        left_for(&oauth_linking::link(&story, &there, &thief, "google").await);
        if number < 2 {
            last = self::link(&story).await;
        }
        let id = story.get("/api/v1/auth/linked-accounts", &thief).await.text("/0/id").to_owned();
        let path = format!("/api/v1/auth/linked-accounts/{id}");
        story.client.request(Method::DELETE, &path).bearer(&thief.access_token).send().await;
    }
    assert_eq!(story.mails().await.len(), 5 + 1, "and that of what was taken away before");
    page(&send_form(&story, token_of(&last)).await, 200);
    assert!(!story.is_signed_in(&thief).await);
}

#[tokio::test]
async fn what_a_stranger_added_in_an_earlier_session_when_no_more_mails_were_sent_goes_too() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    there.know(json!({"id": 7, "login": "ada", "name": null, "avatar_url": null}), json!([]));
    let here = owner(&story).await;
    story.clock.advance(Duration::seconds(1));
    let second = sign_in_with(&story, FIREFOX, "en").await;
    story.clock.advance(Duration::seconds(1));
    let first = sign_in_with(&story, FIREFOX, "en").await;
    story.clock.advance(Duration::seconds(1));
    // The control: what the owner adds meanwhile, of which a mail tells.
    left_for(&oauth_linking::link(&story, &there, &here, "github").await);
    for _ in 0..2 {
        left_for(&oauth_linking::link(&story, &there, &first, "google").await);
        let linked = story.get("/api/v1/auth/linked-accounts", &first).await;
        let linked = linked.json.as_array().unwrap().iter().find(|account| account["provider"] == "google");
        let path = format!("/api/v1/auth/linked-accounts/{}", linked.unwrap()["id"].as_str().unwrap());
        story.client.request(Method::DELETE, &path).bearer(&first.access_token).send().await;
    }
    assert_eq!(story.mails().await.len(), 5, "an hour's share");
    let link = link(&story).await;
    left_for(&oauth_linking::link(&story, &there, &second, "google").await);
    assert_eq!(story.mails().await.len(), 5);

    page(&send_form(&story, token_of(&link)).await, 200);
    assert!(!story.is_signed_in(&first).await && !story.is_signed_in(&second).await);
    assert_eq!(story.number("SELECT count(*) FROM auth.accounts WHERE provider = 'google'").await, 0);
    assert_eq!(story.number("SELECT count(*) FROM auth.accounts WHERE provider = 'github'").await, 1);
    assert!(story.is_signed_in(&here).await);
}

#[tokio::test]
async fn a_link_from_before_spares_nothing_that_was_added_since() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    there.know(json!({"id": 7, "login": "ada", "name": null, "avatar_url": null}), json!([]));
    let here = owner(&story).await;
    story.clock.advance(Duration::seconds(1));
    let earlier = sign_in_with(&story, CHROME, "en").await;
    let old_link = link(&story).await;
    story.clock.advance(Duration::hours(73));
    let later = sign_in_with(&story, FIREFOX, "en").await;
    story.clock.advance(Duration::seconds(1));
    for _ in 0..3 {
        left_for(&oauth_linking::link(&story, &there, &later, "google").await);
        let linked = story.get("/api/v1/auth/linked-accounts", &later).await;
        let path = format!("/api/v1/auth/linked-accounts/{}", linked.text("/0/id"));
        story.client.request(Method::DELETE, &path).bearer(&later.access_token).send().await;
    }
    let link = link(&story).await;
    let told = story.mails().await.len();
    let earlier = again(&story, earlier).await;
    let proof = story.client.post("/api/v1/auth/reauthenticate", &json!({"password": PASSWORD}));
    assert_eq!(proof.bearer(&earlier.access_token).send().await.status, 200);
    left_for(&oauth_linking::link(&story, &there, &earlier, "google").await);
    assert_eq!(story.mails().await.len(), told, "the hour's share is used up");
    let here = again(&story, here).await;

    assert_ne!(link, old_link);
    page(&send_form(&story, token_of(&link)).await, 200);
    assert!(!story.is_signed_in(&later).await && !story.is_signed_in(&earlier).await);
    assert_eq!(story.number("SELECT count(*) FROM auth.accounts").await, 0);
    assert!(story.is_signed_in(&here).await, "the control");
}

/// The same session, with tokens of now.
async fn again(story: &Story, user: User) -> User {
    let next = story.refresh(&user.refresh_token).await;
    let (access_token, refresh_token) = (next.text("/accessToken"), next.text("/refreshToken"));
    User { access_token: access_token.to_owned(), refresh_token: refresh_token.to_owned(), ..user }
}

/// How many mails told of what was taken away.
async fn told_of_taking(story: &Story) -> Vec<String> {
    let mails = story.all_mails().await;
    let told = mails.into_iter().filter(|kept| about(&kept.mail).ends_with("was taken away"));
    told.map(|kept| kept.mail.text).collect()
}

const APPS: &str = "SELECT count(*) FROM auth.two_factor_auth WHERE confirmed_at IS NOT NULL";

#[tokio::test]
async fn who_reads_the_mailbox_later_turns_no_second_factor_off() {
    for (hours, goes) in [(71, true), (73, false)] {
        let story = Story::new().await;
        let ada = owner(&story).await;
        story.execute("UPDATE auth.users SET email_verified = true").await;
        let ada = two_factor::set_up(&story, ada).await;
        let link = link_of(&story, "Sign-ins to your account ask for a code now").await;
        story.clock.advance(Duration::hours(hours));
        let shown = page(&story.client.get(&link).send().await, 200);
        assert_eq!(shown.contains("authenticator app and its codes stay"), !goes, "{shown}");
        let shown = page(&send_form(&story, token_of(&link)).await, 200);
        assert_eq!(shown.contains("were added there stay"), !goes, "{shown}");
        assert_eq!(story.refresh(&ada.user.refresh_token).await.status, 401, "it ends in any case");

        let body =
            json!({"token": reset_token(&story, "ada@example.com").await, "newPassword": NEW_PASSWORD});
        assert_eq!(story.post("/api/v1/auth/reset-password", &body).await.status, 200);
        let credentials = json!({"email": "ada@example.com", "password": NEW_PASSWORD});
        let back = story.post("/api/v1/auth/login", &credentials).await;
        assert_eq!(back.status, 200);
        assert_eq!(back.json["twoFactorRequired"], if goes { Value::Null } else { json!(true) }, "{hours}");
        let codes = story.number("SELECT count(*) FROM auth.recovery_codes").await;
        assert_eq!(codes, if goes { 0 } else { 10 });
        let told = told_of_taking(&story).await;
        assert_eq!(told.len(), usize::from(goes));
        for text in told {
            assert!(text.contains("The authenticator app") && text.contains("127.0.0.1"), "{text}");
        }
    }
}

#[tokio::test]
async fn an_old_link_leaves_a_younger_one_good_and_a_young_one_takes_no_old_factor() {
    let story = Story::new().await;
    owner(&story).await;
    let thief = sign_in_with(&story, CHROME, "en").await;
    let of_sign_in = link(&story).await;
    story.clock.advance(Duration::minutes(9));
    let thief = two_factor::set_up(&story, thief).await;
    let of_app = link(&story).await;
    story.clock.advance(Duration::hours(72) - Duration::minutes(5));
    page(&send_form(&story, token_of(&of_sign_in)).await, 200);
    assert_eq!(story.refresh(&thief.user.refresh_token).await.status, 401);
    assert_eq!(story.number(APPS).await, 1, "the mail of the sign-in is too old");
    page(&send_form(&story, token_of(&of_app)).await, 200);
    assert_eq!(story.number(APPS).await, 0, "that of the app is not");

    // An app of the owner's, and days later something else in the same session.
    let ada = two_factor::set_up(&story, sign_in_with(&story, FIREFOX, "en").await).await;
    story.clock.advance(Duration::hours(73));
    let renewed = story.refresh(&ada.user.refresh_token).await.text("/accessToken").to_owned();
    let proof = json!({"code": two_factor::code(&story, &ada.secret)});
    let proven = story.client.post("/api/v1/auth/reauthenticate", &proof).bearer(&renewed).send().await;
    assert_eq!(proven.status, 200, "{}", proven.json);
    let codes = story.client.post("/api/v1/auth/two-factor/recovery-codes", &json!({})).bearer(&renewed);
    assert_eq!(codes.send().await.status, 200);
    let of_codes = link_of(&story, "Your account has new recovery codes").await;
    page(&send_form(&story, token_of(&of_codes)).await, 200);
    assert_eq!(story.number(APPS).await, 1, "the app was there for three days");
    assert_eq!(story.number("SELECT count(*) FROM auth.recovery_codes").await, 0, "the codes were not");
    assert!(told_of_taking(&story).await[0].contains("Recovery codes."));
}

#[tokio::test]
async fn links_in_an_old_mailbox_end_three_days_after_their_mail_but_for_the_session_that_changed_it() {
    let story = Story::new().await;
    owner(&story).await;
    sign_in_with(&story, CHROME, "en").await;
    let old = link(&story).await;
    story.clock.advance(Duration::hours(2));
    sign_in_with(&story, "curl/8.14.1", "en").await;
    let young = link(&story).await;
    story.clock.advance(Duration::hours(71));
    let asking = two_factor::set_up(&story, sign_in_with(&story, FIREFOX, "en").await).await.user;
    let own = link(&story).await;
    let is_good = async |link: &str| story.client.get(link).send().await.status == 200;
    assert!(is_good(&old).await && is_good(&young).await && is_good(&own).await, "the control");

    let body = json!({"newEmail": "ada@example.org"});
    let asked = story.client.post("/api/v1/auth/change-email", &body).bearer(&asking.access_token);
    assert_eq!(asked.send().await.status, 200);
    let confirm = link_of(&story, "Confirm your new e-mail address").await;
    let form = story.client.request(Method::POST, "/confirm-email");
    let body = confirm.split_once('?').unwrap().1.to_owned();
    assert_eq!(form.body("application/x-www-form-urlencoded", body).send().await.status, 200);
    assert_eq!(story.get("/api/v1/auth/me", &asking).await.text("/email"), "ada@example.org");

    assert!(!is_good(&old).await && is_good(&young).await && is_good(&own).await);
    page(&send_form(&story, token_of(&old)).await, 404);
    story.clock.advance(Duration::hours(1));
    assert!(!is_good(&young).await);
    page(&send_form(&story, token_of(&young)).await, 404);
    story.clock.advance(Duration::hours(90));
    assert!(is_good(&own).await);
    page(&send_form(&story, token_of(&own)).await, 200);
    assert_eq!(story.refresh(&asking.refresh_token).await.status, 401);
    assert_eq!(story.number(APPS).await, 1);
}

#[tokio::test]
async fn a_foreign_page_can_not_press_the_button() {
    let story = Story::new().await;
    owner(&story).await;
    let there = sign_in_with(&story, CHROME, "en").await;
    let link = link(&story).await;
    let form = story.client.request(Method::POST, "/not-me").header("origin", "https://evil.example");
    let refused = form
        .header("sec-fetch-site", "cross-site")
        .body("application/x-www-form-urlencoded", format!("token={}", token_of(&link)))
        .send()
        .await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (403, "request.foreign_site"));
    assert!(story.is_signed_in(&there).await);
}

#[tokio::test]
async fn a_disowned_device_is_announced_again() {
    let story = Story::new().await;
    owner(&story).await;
    sign_in_with(&story, CHROME, "en").await;
    let first = link(&story).await;
    assert_eq!(send_form(&story, token_of(&first)).await.status, 200);
    sign_in_with(&story, CHROME, "en").await;
    assert_eq!(story.mails().await.len(), 2);
    assert_ne!(link(&story).await, first);
}

#[tokio::test]
async fn the_list_names_browser_system_and_device() {
    let story = Story::new().await;
    let here = owner(&story).await;
    story.clock.advance(Duration::seconds(1));
    sign_in_with(&story, CHROME, "en").await;
    story.clock.advance(Duration::seconds(1));
    story.sign_in("ada@example.com").await;
    let list = story.get("/api/v1/auth/sessions", &here).await;
    let named: Vec<_> = list
        .json
        .as_array()
        .unwrap()
        .iter()
        .map(|device| json!([device["browser"], device["os"], device["device"]]))
        .collect();
    assert_eq!(
        named,
        [
            json!([null, null, null]),
            json!(["Chrome", "Android", "phone"]),
            json!(["Firefox", "Linux", "desktop"])
        ]
    );
}

#[tokio::test]
async fn the_outbox_shows_mails_to_this_machine_alone_and_only_where_there_is_one() {
    let story = Story::new().await;
    owner(&story).await;
    sign_in_with(&story, CHROME, "en").await;
    story.mails().await;
    let get = |path: &str| story.client.get(path).header("host", "localhost:3001");
    let list = get("/dev/outbox").header("accept", "application/json").send().await;
    assert_eq!(list.text("/0/recipient"), "ada@example.com");
    assert!(list.text("/0/text").contains("/not-me?token="));
    let shown = page(&get("/dev/outbox").send().await, 200);
    let id = list.text("/0/id");
    assert!(shown.contains(&format!("/dev/outbox/{id}/html")) && shown.contains("New sign-in"), "{shown}");
    let html = get(&format!("/dev/outbox/{id}/html")).send().await;
    assert_eq!(String::from_utf8_lossy(&html.bytes), list.text("/0/html"));
    assert!(html.headers["content-security-policy"].to_str().unwrap().contains("sandbox"));
    let text = get(&format!("/dev/outbox/{id}/text")).send().await;
    assert_eq!(String::from_utf8_lossy(&text.bytes), list.text("/0/text"));

    for foreign in ["evil.example", "127.0.0.1.evil.example:3001"] {
        let refused = story.client.get("/dev/outbox").header("host", foreign).send().await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (404, "request.unknown_path"), "{foreign}");
    }
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded", "for=203.0.113.1"),
        ("forwarded", "for=203.0.113.1"),
        ("x-real-ip", "203.0.113.1"),
        ("via", "1.1 proxy"),
    ] {
        let refused = get("/dev/outbox").header(name, value).send().await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (404, "request.unknown_path"), "{name}");
    }
    let production = story.replica().await.get("/dev/outbox").header("host", "localhost:3001").send().await;
    assert_eq!((production.status.as_u16(), production.problem()), (404, "request.unknown_path"));
}

#[tokio::test]
async fn what_a_stranger_linked_asked_for_or_trusted_goes_with_the_strangers_session() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let here = owner(&story).await;
    there.know(json!({"id": 7, "login": "ada", "name": null, "avatar_url": null}), json!([]));
    left_for(&oauth_linking::link(&story, &there, &here, "github").await);

    let thief = sign_in_with(&story, CHROME, "en").await;
    let disown = link(&story).await;
    left_for(&oauth_linking::link(&story, &there, &thief, "google").await);
    let asked = story.client.post("/api/v1/auth/change-email", &json!({"newEmail": "thief@example.org"}));
    assert_eq!(asked.bearer(&thief.access_token).send().await.status, 200);
    // An app of the thief's, a browser that is not asked for it, a sign-in that waits.
    two_factor::leave_rows(&story, &thief).await;
    story.mails().await;
    let stranger = there.id_token(&json!({"aud": "google-app"}));
    let count = async |table: &str| -> i64 {
        let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM auth.{table}"));
        sqlx::query_scalar(query).fetch_one(&mut story.database.owner().await).await.unwrap()
    };
    for (table, rows) in [
        ("accounts", 2),
        ("two_factor_auth", 1),
        ("recovery_codes", 10),
        ("trusted_devices", 1),
        ("pending_sign_ins", 1),
        ("verification_tokens WHERE purpose = 'change_email'", 1),
    ] {
        assert_eq!(count(table).await, rows, "the control: {table}");
    }

    page(&send_form(&story, token_of(&disown)).await, 200);
    for table in [
        "accounts WHERE provider = 'google'",
        "two_factor_auth",
        "recovery_codes",
        "trusted_devices",
        "pending_sign_ins",
        "verification_tokens WHERE purpose = 'change_email'",
    ] {
        assert_eq!(count(table).await, 0, "{table}");
    }
    assert_eq!(count("accounts WHERE provider = 'github'").await, 1, "the owner's own stays");
    let back = story.post("/api/v1/auth/google-signin", &json!({ "idToken": stranger })).await;
    assert_ne!(back.text("/user/id"), here.id);
    let again = sign_in_with(&story, FIREFOX, "en").await;
    let events = story.get("/api/v1/auth/security-events", &again).await;
    for kind in ["provider_unlinked", "second_factor_disabled"] {
        assert!(events.json.as_array().unwrap().iter().any(|event| event["type"] == kind), "{kind}");
    }
}

#[tokio::test]
async fn recovery_codes_that_a_stranger_made_go_and_the_owners_app_stays() {
    let story = Story::new().await;
    let owner = two_factor::set_up(&story, owner(&story).await).await;
    story.clock.advance(Duration::minutes(1));
    let credentials = json!({"email": "ada@example.com", "password": PASSWORD});
    let first =
        story.client.post("/api/v1/auth/login", &credentials).header("user-agent", CHROME).send().await;
    let code = two_factor::code(&story, &owner.secret);
    let body = json!({"challengeToken": first.text("/challengeToken"), "code": code});
    let second = story.client.post("/api/v1/auth/two-factor/verify", &body).header("user-agent", CHROME);
    let thief = User::of(&second.send().await);
    let made = story.client.post("/api/v1/auth/two-factor/recovery-codes", &json!({}));
    let made = made.bearer(&thief.access_token).send().await;
    assert_eq!(made.status, 200, "{}", made.json);
    page(&send_form(&story, token_of(&link(&story).await)).await, 200);
    assert_eq!(story.number("SELECT count(*) FROM auth.recovery_codes").await, 0);
    assert_eq!(
        story.number("SELECT count(*) FROM auth.two_factor_auth WHERE confirmed_at IS NOT NULL").await,
        1
    );
}
