//! People sign in with other services: in a browser, and by the ID token of a mobile app.

use crate::provider::{Provider, new_key};
use crate::story::{Story, User, members};
use http::Method;
use mana_auth::oauth::rekey_tokens;
use mana_auth::token::root_secret::Resealed;
use mana_auth::token::root_secret::RootSecrets;
use mana_platform::SystemRng;
use mana_testkit::{Client, Reply, Request};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::collections::HashMap;
use time::Duration;
use url::Url;

pub(crate) const APP: &str = "http://localhost:3000/home?tab=1";

/// A browser on its way to a provider and back.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) provider: String,
    pub(crate) authorization_url: String,
    /// `name=value` of the cookie of the round trip.
    pub(crate) cookie: String,
}

/// The cookies that an answer sets, without their attributes.
pub(crate) fn cookies(reply: &Reply) -> HashMap<String, String> {
    let all = reply.headers.get_all("set-cookie").iter();
    all.map(|cookie| {
        let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    })
    .collect()
}

/// Where an answer sends the browser, and what it tells the page there.
pub(crate) fn left_for(reply: &Reply) -> (String, HashMap<String, String>) {
    assert_eq!(reply.status, 303, "{} {}", reply.json, String::from_utf8_lossy(&reply.bytes));
    let mut url = Url::parse(reply.headers["location"].to_str().unwrap()).unwrap();
    let told: HashMap<_, _> = url.query_pairs().into_owned().collect();
    url.set_query(None);
    (url.to_string(), told)
}

/// The `error` that a page is told.
pub(crate) fn error(reply: &Reply) -> String {
    let (page, told) = left_for(reply);
    assert_eq!(page, "http://localhost:3000/home");
    assert!(!cookies(reply).contains_key("mana.session_token"), "nobody is signed in");
    told.get("error").cloned().unwrap_or_default()
}

impl Visit {
    pub(crate) async fn begin(story: &Story, provider: &str) -> Self {
        let target: String = url::form_urlencoded::byte_serialize(APP.as_bytes()).collect();
        let path = format!("/api/v1/auth/oauth/{provider}?redirectTo={target}");
        let reply = story.client.get(&path).send().await;
        assert_eq!(reply.status, 303, "{}", reply.json);
        Self::of(provider, reply.headers["location"].to_str().unwrap(), &reply)
    }

    pub(crate) fn of(provider: &str, authorization_url: &str, reply: &Reply) -> Self {
        Self {
            provider: provider.to_owned(),
            authorization_url: authorization_url.to_owned(),
            cookie: format!("mana.oauth={}", cookies(reply)["mana.oauth"]),
        }
    }

    /// Comes back with these parameters.
    pub(crate) async fn come_back(&self, client: &Client, parameters: &[(String, String)]) -> Reply {
        self.request(client, parameters).send().await
    }

    pub(crate) fn request(&self, client: &Client, parameters: &[(String, String)]) -> Request {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let path = format!("/api/v1/auth/oauth/{}/callback?{query}", self.provider);
        client.get(&path).header("cookie", &self.cookie)
    }

    /// Says yes there and comes back.
    pub(crate) async fn finish(&self, story: &Story, there: &Provider) -> Reply {
        self.come_back(&story.client, &there.authorize(&self.authorization_url)).await
    }
}

pub(crate) async fn sign_in_with(story: &Story, there: &Provider, provider: &str) -> Reply {
    Visit::begin(story, provider).await.finish(story, there).await
}

/// Tokens for whoever an answer has signed in.
pub(crate) async fn tokens(story: &Story, reply: &Reply) -> Reply {
    let cookie = format!("mana.session_token={}", cookies(reply)["mana.session_token"]);
    let tokens = story
        .client
        .request(Method::POST, "/api/v1/auth/session-to-token")
        .header("cookie", &cookie)
        .send()
        .await;
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    tokens
}

/// Leaves a link of the user.
pub(crate) async fn leave_row(story: &Story, user: &User) {
    sqlx::query(
        "INSERT INTO auth.accounts (id, user_id, provider, issuer, subject, created_at, last_used_at)
         VALUES (gen_random_uuid(), $1, 'google', 'https://accounts.google.com', $1, now(), now())",
    )
    .bind(&user.id)
    .execute(&mut story.database.owner().await)
    .await
    .unwrap();
}

/// Lets everybody be known there: by ID tokens, and by the two APIs.
pub(crate) fn know_ada(there: &Provider) {
    there.claim(json!({"tid": "9188040d-6c67-4c5b-b112-36a304b66dad"}));
    there.know(
        json!({"id": 7, "login": "ada", "name": null, "avatar_url": "https://pictures.example/7"}),
        json!([
            {"email": "old@example.com", "primary": false, "verified": true},
            {"email": "Ada@GitHub.example", "primary": true, "verified": true},
        ]),
    );
}

#[tokio::test]
async fn a_person_signs_in_with_each_service_and_is_the_same_the_next_time() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    know_ada(&there);
    let offered = story.client.get("/api/v1/auth/oauth").send().await;
    let ids: Vec<_> =
        offered.json.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["google", "apple", "microsoft", "github", "discord", "acme"]);

    for (provider, email, is_verified) in [
        ("google", "ada@gmail.com", true),
        ("microsoft", "ada@tenant.example", false),
        ("github", "ada@github.example", true),
        ("discord", "ada@discord.example", true),
    ] {
        match provider {
            "microsoft" => {
                let tenant = "00000000-0000-4000-8000-000000000001";
                let issuer = format!("{}/{tenant}/v2.0", there.url);
                there.claim(json!({"iss": issuer, "tid": tenant, "email": email, "sub": "at-microsoft"}));
            }
            "discord" => there.know(
                json!({"id": "80351110224678912", "username": "ada", "global_name": "Ada", "email": email, "verified": true}),
                json!([]),
            ),
            _ => know_ada(&there),
        }
        let first = sign_in_with(&story, &there, provider).await;
        let (page, told) = left_for(&first);
        assert_eq!(
            (page.as_str(), told),
            ("http://localhost:3000/home", HashMap::from([("tab".into(), "1".into())]))
        );
        let ada = tokens(&story, &first).await;
        assert_eq!(ada.text("/user/email"), email, "{provider}");
        assert_eq!(ada.json["user"]["emailVerified"], is_verified, "{provider}");
        assert!(!ada.text("/user/name").is_empty());
        let balance =
            story.client.get("/api/v1/credits/balance").bearer(ada.text("/accessToken")).send().await;
        assert_eq!(balance.integer("/freeCreditsRemaining"), 150, "the sign-up bonus came with the account");

        let again = tokens(&story, &sign_in_with(&story, &there, provider).await).await;
        assert_eq!(again.text("/user/id"), ada.text("/user/id"), "{provider}");
    }
    assert_eq!(story.number("SELECT count(*) FROM auth.accounts").await, 4);
    assert_eq!(story.number("SELECT count(*) FROM auth.users").await, 4);
}

#[tokio::test]
async fn an_address_that_changed_there_changes_nothing_here() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let ada = tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    there.claim(json!({"email": "lovelace@gmail.com"}));
    let again = tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    assert_eq!(again.text("/user/id"), ada.text("/user/id"));
    assert_eq!(again.text("/user/email"), "ada@gmail.com");
    // Whoever gets the mailbox there next is somebody else.
    there.claim(json!({"sub": "another", "email": "ada@gmail.com"}));
    assert_eq!(error(&sign_in_with(&story, &there, "google").await), "auth.provider_email_taken");
}

#[tokio::test]
async fn apple_comes_back_with_a_form_that_any_site_may_send_and_tells_the_name_once() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    there.claim(json!({"sub": "at-apple", "email": "x@privaterelay.appleid.com", "email_verified": "true", "name": null}));
    let visit = Visit::begin(&story, "apple").await;
    assert!(visit.authorization_url.contains("response_mode=form_post"), "{}", visit.authorization_url);
    let mut form = there.authorize(&visit.authorization_url);
    let user =
        json!({"name": {"firstName": "Ada", "lastName": "Lovelace\n"}, "email": "ignored@example.com"});
    form.push(("user".to_owned(), user.to_string()));
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&form).finish();
    let post = |path: &str, body: &str| {
        story
            .client
            .request(Method::POST, path)
            .body("application/x-www-form-urlencoded", body.to_owned())
            .header("origin", "https://appleid.apple.com")
            .header("sec-fetch-site", "cross-site")
    };
    // The browser sends no cookie along with a form of another site.
    let sent_on = post("/api/v1/auth/oauth/apple/callback", &body).send().await;
    assert_eq!(sent_on.status, 303);
    let location = sent_on.headers["location"].to_str().unwrap();
    let path = location.strip_prefix("http://localhost:3001").unwrap();
    assert!(path.starts_with("/api/v1/auth/oauth/apple/callback?"), "{path}");
    assert_eq!(story.number("SELECT count(*) FROM auth.finished_flows").await, 0, "nothing happened yet");
    let back = story.client.get(path).header("cookie", &visit.cookie).send().await;
    let ada = tokens(&story, &back).await;
    assert_eq!(
        (ada.text("/user/name"), ada.text("/user/email")),
        ("Ada Lovelace", "x@privaterelay.appleid.com")
    );

    for path in ["/api/v1/auth/logout", "/api/v1/auth/oauth/a/b/callback", "/api/v1/auth/oauth/apple/link"] {
        let refused = post(path, "").send().await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (403, "request.foreign_site"), "{path}");
    }
}

#[tokio::test]
async fn a_page_may_begin_by_itself_and_names_where_it_ends() {
    let there = Provider::start().await;
    let story = there
        .story(|settings| settings.frontend_url = Some("http://localhost:8081/start".parse().unwrap()))
        .await;
    let begun = story
        .client
        .post("/api/v1/auth/oauth/google", &json!({"rememberMe": true}))
        .header("origin", "http://localhost:3000")
        .send()
        .await;
    assert_eq!(begun.status, 200, "{}", begun.json);
    let cookie = begun.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Path=/; Max-Age=600"), "{cookie}");
    let visit = Visit::of("google", begun.text("/authorizationUrl"), &begun);
    assert!(visit.authorization_url.starts_with(&format!("{}/authorize?tenant=1&", there.url)));
    let back = visit.finish(&story, &there).await;
    assert_eq!(left_for(&back), ("http://localhost:8081/start".to_owned(), HashMap::new()));
    assert_eq!(cookies(&back)["mana.oauth"], "", "the round trip's cookie is taken back");
    let session: bool = sqlx::query_scalar("SELECT remember_me FROM auth.sessions")
        .fetch_one(&mut story.database.owner().await)
        .await
        .unwrap();
    assert!(session);
}

#[tokio::test]
async fn what_an_issuer_says_of_itself_is_asked_once_and_its_new_key_is_found() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    for _ in 0..3 {
        tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    }
    let description = "/.well-known/openid-configuration";
    assert_eq!((there.asked(description), there.asked("/keys")), (1, 1));

    there.sign_with(&new_key(), true);
    assert_eq!(error(&sign_in_with(&story, &there, "google").await), "auth.provider_token_invalid");
    assert_eq!(
        there.asked("/keys"),
        1,
        "a set that is brand new is not asked for again, whatever token comes"
    );
    story.clock.advance(Duration::minutes(1));
    tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    assert_eq!((there.asked(description), there.asked("/keys")), (1, 2));
}

#[tokio::test]
async fn an_issuer_that_takes_its_clients_secret_in_no_header_gets_it_in_the_form() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    for methods in [json!(null), json!(["client_secret_basic", "none"]), json!(["client_secret_post"])] {
        there.describe(json!({ "token_endpoint_auth_methods_supported": methods }));
        story.clock.advance(Duration::hours(1));
        tokens(&story, &sign_in_with(&story, &there, "acme").await).await;
        let is_basic = methods != json!(["client_secret_post"]);
        assert_eq!(there.was_basic(), is_basic, "{methods}");
    }
}

#[tokio::test]
async fn a_mobile_app_signs_in_with_the_id_token_of_its_system() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let in_browser = tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    for (path, audience) in
        [("/api/v1/auth/google-signin", "google-app"), ("/api/v1/auth/apple-signin", "apple-app")]
    {
        let token = there.id_token(&json!({"aud": audience, "azp": null, "nonce": null}));
        for body in [json!({"idToken": token, "deviceName": "Ada's phone"}), json!({ "token": token })] {
            let reply = story.post(path, &body).await;
            assert_eq!(reply.status, 200, "{path} {}", reply.json);
            assert_eq!(
                members(&reply.json),
                ["accessToken", "appToken", "expiresIn", "refreshToken", "tokenType", "user"]
            );
            assert_eq!(reply.text("/appToken"), reply.text("/accessToken"));
            assert_eq!(reply.text("/user/id"), in_browser.text("/user/id"), "the same (issuer, subject)");
            assert_eq!(story.refresh(reply.text("/refreshToken")).await.status, 200);
            assert!(cookies(&reply).contains_key("mana.session_token"));
        }
    }
    // Android's apps ask for tokens that are for the web application.
    let for_web = there.id_token(&json!({"azp": "google-app"}));
    assert_eq!(story.post("/api/v1/auth/google-signin", &json!({"idToken": for_web})).await.status, 200);
    let named =
        there.id_token(&json!({"sub": "new", "email": "new@icloud.com", "aud": "apple-app", "name": null}));
    let reply = story.post("/api/v1/auth/apple-signin", &json!({"idToken": named, "name": "New"})).await;
    assert_eq!(reply.text("/user/name"), "New");
}

#[tokio::test]
async fn without_settings_there_is_no_such_way_in() {
    let story = Story::new().await;
    assert_eq!(story.client.get("/api/v1/auth/oauth").send().await.json, json!([]));
    let body = json!({"idToken": "x"});
    for reply in [
        story.client.get("/api/v1/auth/oauth/google").send().await,
        story.client.get("/api/v1/auth/oauth/google/callback?state=x&code=y").send().await,
        story.post("/api/v1/auth/google-signin", &body).await,
        story.post("/api/v1/auth/apple-signin", &body).await,
    ] {
        assert_eq!((reply.status.as_u16(), reply.problem()), (404, "auth.provider_not_found"));
    }
}

#[tokio::test]
async fn tokens_of_a_provider_are_sealed_and_move_to_a_new_secret() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    tokens(&story, &sign_in_with(&story, &there, "google").await).await;
    let row: String = sqlx::query_scalar("SELECT accounts::text FROM auth.accounts")
        .fetch_one(&mut story.database.owner().await)
        .await
        .unwrap();
    for secret in ["their-access-token", "their-refresh-token"] {
        assert!(!row.contains(secret) && !row.contains(&crate::story::hex(secret.as_bytes())), "{row}");
    }
    let version = async || -> String {
        let version = sqlx::query_scalar("SELECT secret_version FROM auth.accounts");
        version.fetch_one(&mut story.database.owner().await).await.unwrap()
    };
    assert_eq!(version().await, "test");

    let new = RootSecrets::generate("new", &SystemRng);
    let rekey = async |secrets: String| {
        let secrets = RootSecrets::parse(&SecretString::from(secrets)).unwrap();
        rekey_tokens(&story.database.service(), &secrets, &SystemRng).await.unwrap()
    };
    let alone = new.expose_secret().to_owned();
    assert_eq!(rekey(alone.clone()).await, Resealed { resealed: 0, closed: 1 });
    assert_eq!(version().await, "test", "what can't be opened is left alone");
    let both = format!("{alone},{}", story.root_secret().expose_secret());
    assert_eq!(rekey(both.clone()).await, Resealed { resealed: 1, closed: 0 });
    assert_eq!(version().await, "new");
    assert_eq!(rekey(both).await, Resealed::default(), "done already");
}

#[tokio::test]
async fn round_trips_that_ended_are_forgotten_once_they_could_not_come_back() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    sign_in_with(&story, &there, "google").await;
    let finished = async || story.number("SELECT count(*) FROM auth.finished_flows").await;
    story.workers.prune().await;
    assert_eq!(finished().await, 1);
    story.clock.advance(Duration::minutes(11));
    story.workers.prune().await;
    assert_eq!(finished().await, 0);
}

/// Whatever is said of somebody without an address, that is none of an account.
#[tokio::test]
async fn who_tells_no_address_gets_no_account_and_is_told_why() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    for email in [Value::Null, json!("not an address"), json!("")] {
        there.claim(json!({ "email": email }));
        assert_eq!(error(&sign_in_with(&story, &there, "google").await), "auth.provider_without_email");
    }
    there.know(
        json!({"id": "1", "username": "ada", "global_name": null, "email": null, "verified": false}),
        json!([]),
    );
    assert_eq!(error(&sign_in_with(&story, &there, "discord").await), "auth.provider_without_email");
    there.know(json!({"id": 1, "login": "ada", "name": null, "avatar_url": null}), json!([]));
    assert_eq!(error(&sign_in_with(&story, &there, "github").await), "auth.provider_without_email");
    assert_eq!(story.number("SELECT count(*) FROM auth.users").await, 0);
}
