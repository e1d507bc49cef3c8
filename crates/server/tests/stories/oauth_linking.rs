//! Which account somebody of another service comes to: never a stranger's, by no address that is not surely theirs.

use crate::mail_flows::{NEW_PASSWORD, reset_token};
use crate::oauth::{APP, Visit, cookies, error, left_for, sign_in_with, tokens};
use crate::provider::Provider;
use crate::story::{ACCOUNTS, PASSWORD, Story, User, let_go};
use futures_util::future::join_all;
use http::Method;
use mana_platform::config::TwoFactorRequired;
use mana_testkit::Reply;
use serde_json::json;
use time::Duration;

pub(crate) async fn begin_link(story: &Story, user: &User, provider: &str) -> Reply {
    let path = format!("/api/v1/auth/oauth/{provider}/link");
    story.client.post(&path, &json!({ "redirectTo": APP })).bearer(&user.access_token).send().await
}

pub(crate) async fn link(story: &Story, there: &Provider, user: &User, provider: &str) -> Reply {
    let begun = begin_link(story, user, provider).await;
    assert_eq!(begun.status, 200, "{}", begun.json);
    Visit::of(provider, begun.text("/authorizationUrl"), &begun).finish(story, there).await
}

async fn linked(story: &Story, user: &User) -> Vec<serde_json::Value> {
    story.get("/api/v1/auth/linked-accounts", user).await.json.as_array().unwrap().clone()
}

async fn unlink(story: &Story, user: &User, id: &str) -> Reply {
    let path = format!("/api/v1/auth/linked-accounts/{id}");
    story.client.request(Method::DELETE, &path).bearer(&user.access_token).send().await
}

async fn verify(story: &Story) {
    story.execute("UPDATE auth.users SET email_verified = true").await;
}

#[tokio::test]
async fn an_address_joins_an_account_only_where_both_ends_are_sure() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let ada = story.user("ada@gmail.com").await;
    let bob = story.user("bob@acme.example").await;

    // A stranger may have registered it here: the owner does not walk into the stranger's account.
    assert_eq!(error(&sign_in_with(&story, &there, "google").await), "auth.provider_email_taken");
    verify(&story).await;
    for (provider, claims) in [
        // Google says itself that it has not checked.
        ("google", json!({"email": "ada@gmail.com", "email_verified": false})),
        ("google", json!({"email": "ada@gmail.com", "email_verified": null})),
        ("google", json!({"email": "ada@gmail.com", "email_verified": "yes"})),
        // Google has checked at some time, and does not decide whose the mailbox is.
        ("google", json!({"email": "bob@acme.example"})),
        ("google", json!({"email": "bob@acme.example", "hd": "evil.example"})),
        ("apple", json!({"email": "ada@gmail.com"})),
        // An issuer that decides on other addresses.
        ("acme", json!({"email": "ada@gmail.com"})),
        ("acme", json!({"email": "ada@gmail.com", "hd": "gmail.com"})),
    ] {
        there.claim(claims.clone());
        let refused = sign_in_with(&story, &there, provider).await;
        assert_eq!(error(&refused), "auth.provider_email_taken", "{provider} {claims}");
    }
    for (email, verified) in [("ada@gmail.com", true), ("ada@gmail.com", false)] {
        there.know(
            json!({"id": 7, "login": "ada", "name": null, "avatar_url": null}),
            json!([{"email": email, "primary": true, "verified": verified}]),
        );
        assert_eq!(error(&sign_in_with(&story, &there, "github").await), "auth.provider_email_taken");
        there.know(
            json!({"id": "7", "username": "ada", "global_name": null, "email": email, "verified": verified}),
            json!([]),
        );
        assert_eq!(error(&sign_in_with(&story, &there, "discord").await), "auth.provider_email_taken");
    }
    assert_eq!(story.number("SELECT count(*) FROM auth.accounts").await, 0);

    there.claim(json!({"email": "Ada@Gmail.com"}));
    let joined = tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    assert_eq!(joined.text("/user/id"), ada.id, "the control: Google decides on its own mailboxes");
    there.claim(json!({"sub": "bob-there", "email": "bob@acme.example"}));
    let joined = tokens(&story, &sign_in_with(&story, &there, "acme").await).await;
    assert_eq!(joined.text("/user/id"), bob.id, "and an issuer on those that the operator says");
    let events = story.get("/api/v1/auth/security-events", &ada).await;
    assert!(
        events
            .json
            .as_array()
            .unwrap()
            .iter()
            .any(|event| event["type"] == "provider_linked" && event["detail"] == "google")
    );
}

#[tokio::test]
async fn a_look_alike_address_is_no_ones() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    story.user("kate@gmail.com").await;
    verify(&story).await;
    there.claim(json!({"email": "\u{212a}ate@gmail.com"}));
    assert_eq!(error(&sign_in_with(&story, &there, "google").await), "auth.provider_without_email");
    there.claim(json!({"email": "kate@gmail.com\u{0}.evil.example"}));
    assert_eq!(error(&sign_in_with(&story, &there, "google").await), "auth.provider_without_email");
}

#[tokio::test]
async fn a_squatted_account_can_be_left_by_proving_the_password_and_linking() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let ada = story.user("ada@gmail.com").await;
    assert_eq!(error(&sign_in_with(&story, &there, "google").await), "auth.provider_email_taken");
    // The way out that the problem names.
    let (page, told) = left_for(&link(&story, &there, &ada, "google").await);
    assert_eq!((page.as_str(), told["linked"].as_str()), ("http://localhost:3000/home", "google"));
    let joined = tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    assert_eq!(joined.text("/user/id"), ada.id);
    let shown = linked(&story, &ada).await;
    assert_eq!(shown.len(), 1);
    assert_eq!(
        (shown[0]["provider"].as_str(), shown[0]["email"].as_str()),
        (Some("google"), Some("ada@gmail.com"))
    );
    assert!(!shown[0].to_string().contains("ada-there"));
}

#[tokio::test]
async fn twenty_first_sign_ins_at_once_make_one_account_with_one_bonus() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let clients = [story.replica().await, story.client.clone()];
    let token = there.id_token(&json!({"aud": "google-app"}));
    let body = json!({ "idToken": token });
    let replies =
        join_all((0..20).map(|at| clients[at % 2].post("/api/v1/auth/google-signin", &body).send())).await;
    assert!(
        replies.iter().all(|reply| reply.status == 200),
        "{:?}",
        replies.iter().map(|reply| reply.status).collect::<Vec<_>>()
    );
    assert_eq!(story.number("SELECT count(*) FROM auth.users").await, 1);
    assert_eq!(story.number("SELECT count(*) FROM auth.accounts").await, 1);
    assert_eq!(story.number("SELECT count(*) FROM credits.transactions").await, 1);
}

#[tokio::test]
async fn somebody_elses_identity_is_not_linked() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let owner = tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    let bob = story.user("bob@example.com").await;
    assert_eq!(error(&link(&story, &there, &bob, "google").await), "auth.provider_account_taken");
    assert_eq!(linked(&story, &bob).await.len(), 0);
    let id: String = sqlx::query_scalar("SELECT id::text FROM auth.accounts")
        .fetch_one(&mut story.database.owner().await)
        .await
        .unwrap();
    for id in [id.as_str(), "00000000-0000-7000-8000-000000000000", "nonsense"] {
        let refused = unlink(&story, &bob, id).await;
        assert_eq!(
            (refused.status.as_u16(), refused.problem()),
            (404, "auth.linked_account_not_found"),
            "{id}"
        );
    }
    let again = tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    assert_eq!(again.text("/user/id"), owner.text("/user/id"));
}

#[tokio::test]
async fn linking_and_unlinking_need_a_fresh_proof_and_a_session_that_lives() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let ada = story.user("ada@example.com").await;
    let begun = begin_link(&story, &ada, "google").await;
    let visit = Visit::of("google", begun.text("/authorizationUrl"), &begun);
    story.client.request(Method::POST, "/api/v1/auth/logout").bearer(&ada.access_token).send().await;
    assert_eq!(error(&visit.finish(&story, &there).await), "auth.dead_session_cookie");
    assert_eq!(story.number("SELECT count(*) FROM auth.accounts").await, 0);

    let ada = story.sign_in("ada@example.com").await;
    link(&story, &there, &ada, "google").await;
    let id = linked(&story, &ada).await[0]["id"].as_str().unwrap().to_owned();
    story.clock.advance(Duration::minutes(11));
    for refused in [begin_link(&story, &ada, "google").await, unlink(&story, &ada, &id).await] {
        assert_eq!((refused.status.as_u16(), refused.problem()), (403, "auth.fresh_authentication_required"));
        assert!(!refused.headers.contains_key("set-cookie"));
    }
    let fresh = story.sign_in("ada@example.com").await;
    assert_eq!(unlink(&story, &fresh, &id).await.status, 204);
    assert_eq!(linked(&story, &fresh).await.len(), 0);
    let events = story.get("/api/v1/auth/security-events", &fresh).await;
    assert!(events.json.as_array().unwrap().iter().any(|event| event["type"] == "provider_unlinked"));
    // Who comes with it now is nobody that is known.
    let next = tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    assert_ne!(next.text("/user/id"), ada.id);
}

#[tokio::test]
async fn a_link_that_comes_back_while_the_account_is_adopted_or_deleted_is_none() {
    let there = Provider::start().await;
    for what in ["adopted", "deleted", "left alone"] {
        let story = there.story(|_| {}).await;
        let eve = story.user("victim@example.com").await;
        let reset = json!({"token": reset_token(&story, &eve.email).await, "newPassword": NEW_PASSWORD});
        let begun = begin_link(&story, &eve, "google").await;
        let visit = Visit::of("google", begun.text("/authorizationUrl"), &begun);
        let granted = there.authorize(&visit.authorization_url);

        let held = story.holding(ACCOUNTS).await;
        let first = match what {
            "adopted" => Some(story.client.post("/api/v1/auth/reset-password", &reset)),
            "deleted" => {
                let delete = story.client.request(Method::DELETE, "/api/v1/auth/account");
                Some(delete.bearer(&eve.access_token))
            }
            _ => None,
        };
        let first = match first {
            Some(request) => Some(story.send_to_wait(request, 1).await),
            None => None,
        };
        let waiting = if first.is_some() { 2 } else { 1 };
        let back = story.send_to_wait(visit.request(&story.client, &granted), waiting).await;
        let_go(held).await;
        if let Some(first) = first {
            let first = first.await.unwrap();
            assert_eq!(first.status, 200, "{what} {}", first.json);
            assert_eq!(error(&back.await.unwrap()), "auth.dead_session_cookie", "{what}");
            assert_eq!(story.number("SELECT count(*) FROM auth.accounts").await, 0, "{what}");
        } else {
            let (_, told) = left_for(&back.await.unwrap());
            assert_eq!(told["linked"], "google", "the control");
        }
    }
}

#[tokio::test]
async fn the_last_way_in_stays_also_when_two_are_taken_away_at_once() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let reply = tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    let ada = User {
        id: reply.text("/user/id").to_owned(),
        email: reply.text("/user/email").to_owned(),
        access_token: reply.text("/accessToken").to_owned(),
        refresh_token: reply.text("/refreshToken").to_owned(),
        cookie: String::new(),
    };
    let only = linked(&story, &ada).await[0]["id"].as_str().unwrap().to_owned();
    let refused = unlink(&story, &ada, &only).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (409, "auth.last_way_in"));
    let login = story.login("ada@gmail.com").await;
    assert_eq!(
        (login.status.as_u16(), login.problem()),
        (401, "auth.invalid_credentials"),
        "there is no password to guess"
    );

    there.know(json!({"id": 7, "login": "ada", "name": null, "avatar_url": null}), json!([]));
    left_for(&link(&story, &there, &ada, "github").await);
    let ids: Vec<_> =
        linked(&story, &ada).await.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2);
    let both = join_all(ids.iter().map(|id| unlink(&story, &ada, id))).await;
    let mut statuses: Vec<_> = both.iter().map(|reply| reply.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409]);
    assert_eq!(linked(&story, &ada).await.len(), 1);
}

#[tokio::test]
async fn a_second_factor_that_is_required_is_asked_for_whichever_way_somebody_comes() {
    let there = Provider::start().await;
    let story = there.story(|settings| settings.two_factor_required = TwoFactorRequired::All).await;
    let reply = sign_in_with(&story, &there, "google").await;
    let (page, told) = left_for(&reply);
    assert_eq!((page.as_str(), told["twoFactorRequired"].as_str()), ("http://localhost:3000/home", "true"));
    let set = cookies(&reply);
    assert!(set.contains_key("mana.two_factor") && !set.contains_key("mana.session_token"));
    assert!(!told.values().any(|value| value.starts_with("mch_")), "nothing secret in the URL");
    let token = there.id_token(&json!({"aud": "google-app"}));
    let native = story.post("/api/v1/auth/google-signin", &json!({ "idToken": token })).await;
    assert_eq!((native.status.as_u16(), &native.json["twoFactorRequired"]), (200, &json!(true)));
    assert!(native.json.get("accessToken").is_none() && native.json.get("appToken").is_none());
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions").await, 0);
}

#[tokio::test]
async fn a_disabled_account_stays_shut_by_every_door() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    story.execute("UPDATE auth.users SET disabled_at = now()").await;
    assert_eq!(error(&sign_in_with(&story, &there, "google").await), "auth.account_disabled");
    let token = there.id_token(&json!({"aud": "google-app"}));
    let native = story.post("/api/v1/auth/google-signin", &json!({ "idToken": token })).await;
    assert_eq!((native.status.as_u16(), native.problem()), (401, "auth.account_disabled"));
    // Nor by its address, with another identity.
    story.execute("DELETE FROM auth.accounts").await;
    assert_eq!(error(&sign_in_with(&story, &there, "google").await), "auth.account_disabled");
}

#[tokio::test]
async fn who_came_by_a_service_is_not_told_apart_from_who_did_not_by_a_wrong_password() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    let body = |email: &str| json!({"email": email, "password": PASSWORD});
    let known = story.post("/api/v1/auth/login", &body("ada@gmail.com")).await;
    let unknown = story.post("/api/v1/auth/login", &body("nobody@gmail.com")).await;
    assert_eq!((known.status, known.problem()), (unknown.status, unknown.problem()));
}
