//! Attacks on signing in with others: on the round trip, with tokens that are not the provider's word, and by providers that are broken
//! or hostile.

use crate::oauth::{APP, Visit, cookies, error, know_ada, left_for, sign_in_with, tokens};
use crate::provider::{CLIENT_ID, Fault, Provider, new_key, sign};
use crate::story::{Story, hex};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use futures_util::future::join_all;
use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mana_auth::token::keys::SigningKey;
use mana_kernel::secret::sha256;
use mana_testkit::Client;
use serde_json::{Value, json};
use std::time::Instant;
use time::Duration;

const NATIVE: &str = "/api/v1/auth/google-signin";

async fn users(story: &Story) -> i64 {
    story.number("SELECT count(*) FROM auth.users").await
}

#[tokio::test]
async fn an_answer_belongs_to_the_browser_the_provider_and_the_request_that_asked_for_it() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let (mine, other) = (Visit::begin(&story, "google").await, Visit::begin(&story, "google").await);
    let granted = there.authorize(&mine.authorization_url);
    let with_state = |state: &str| {
        let mut changed = granted.clone();
        changed[1].1 = state.to_owned();
        changed
    };
    let state = granted[1].1.clone();
    let elsewhere = Visit { provider: "microsoft".to_owned(), ..mine.clone() };
    let attempts = [
        (
            "no cookie",
            Visit { cookie: "a=b".to_owned(), ..mine.clone() }.come_back(&story.client, &granted).await,
        ),
        ("another browser", other.come_back(&story.client, &granted).await),
        ("another provider", elsewhere.come_back(&story.client, &granted).await),
        (
            "another state",
            mine.come_back(&story.client, &with_state(&format!("mos_{}", "A".repeat(43)))).await,
        ),
        ("more state", mine.come_back(&story.client, &with_state(&format!("{state}A"))).await),
        ("no state", mine.come_back(&story.client, &granted[..1]).await),
        (
            "an altered cookie",
            Visit { cookie: mine.cookie.replace("test.", "test.A"), ..mine.clone() }
                .come_back(&story.client, &granted)
                .await,
        ),
        ("far too much", mine.come_back(&story.client, &with_state(&"x".repeat(5000))).await),
    ];
    for (what, reply) in attempts {
        assert_eq!(reply.status, 400, "{what}");
        assert!(String::from_utf8_lossy(&reply.bytes).contains("was not begun in this browser"), "{what}");
        assert!(!cookies(&reply).contains_key("mana.session_token"), "{what}");
    }
    assert_eq!(there.asked("/token"), 0, "no code was sent anywhere");
    assert_eq!(users(&story).await, 0);
    // A browser may have begun twice: each answer finds its own.
    let both = Visit { cookie: format!("{}; {}", other.cookie, mine.cookie), ..mine };
    tokens(&story, &both.come_back(&story.client, &granted).await).await;
}

#[tokio::test]
async fn an_answer_does_once_also_in_parallel_and_not_for_ever() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let visit = Visit::begin(&story, "google").await;
    let granted = there.authorize(&visit.authorization_url);
    let replicas = [story.replica().await, story.client.clone()];
    let all = join_all((0..8).map(|at| visit.come_back(&replicas[at % 2], &granted))).await;
    let signed_in = all.iter().filter(|reply| cookies(reply).contains_key("mana.session_token")).count();
    assert_eq!(signed_in, 1);
    let refused = all
        .iter()
        .filter(|reply| left_for(reply).1.get("error").is_some_and(|told| told == "auth.oauth_flow_unknown"));
    assert_eq!(refused.count(), 7);
    assert_eq!(there.asked("/token"), 1, "the code was sent once");

    let late = Visit::begin(&story, "google").await;
    story.clock.advance(Duration::minutes(10));
    let reply = late.finish(&story, &there).await;
    assert_eq!(reply.status, 400, "too late");
}

#[tokio::test]
async fn a_stolen_code_is_of_no_use_in_another_browser() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let (victim, thief) = (Visit::begin(&story, "google").await, Visit::begin(&story, "google").await);
    let stolen = there.authorize(&victim.authorization_url);
    let mut injected = there.authorize(&thief.authorization_url);
    injected[0] = stolen[0].clone();
    // PKCE: the code was asked for with another browser's challenge.
    assert_eq!(error(&thief.come_back(&story.client, &injected).await), "auth.provider_token_invalid");
    assert_eq!(users(&story).await, 0);
}

#[tokio::test]
async fn an_answer_that_names_another_issuer_sends_its_code_nowhere() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    for provider in ["google", "github", "discord", "microsoft"] {
        let visit = Visit::begin(&story, provider).await;
        let mut granted = there.authorize(&visit.authorization_url);
        granted.push(("iss".to_owned(), "https://evil.example".to_owned()));
        assert_eq!(
            error(&visit.come_back(&story.client, &granted).await),
            "auth.provider_token_invalid",
            "{provider}"
        );
    }
    assert_eq!(there.asked("/token"), 0);
    // One that promises to name itself must.
    there.describe(json!({"authorization_response_iss_parameter_supported": true}));
    story.clock.advance(Duration::hours(1));
    assert_eq!(error(&sign_in_with(&story, &there, "google").await), "auth.provider_token_invalid");
    let visit = Visit::begin(&story, "google").await;
    let mut granted = there.authorize(&visit.authorization_url);
    granted.push(("iss".to_owned(), there.url.clone()));
    tokens(&story, &visit.come_back(&story.client, &granted).await).await;
}

#[tokio::test]
async fn who_says_no_there_is_told_so_here() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    for parameters in [vec![("error", "access_denied")], vec![("error", "<script>"), ("code", "c")], vec![]] {
        let visit = Visit::begin(&story, "google").await;
        let state = there.authorize(&visit.authorization_url).remove(1);
        let mut told: Vec<_> =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        told.push(state);
        assert_eq!(error(&visit.come_back(&story.client, &told).await), "auth.oauth_denied");
    }
    assert_eq!(there.asked("/token"), 0);
}

#[tokio::test]
async fn a_round_trip_ends_at_a_page_of_the_family_and_nowhere_else() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    for target in [
        "https://evil.example",
        "//evil.example",
        "/relative",
        "http://localhost:3000@evil.example",
        "http://localhost:3000\\@evil.example",
        "http://localhost.evil.example",
        "javascript:alert(1)",
        "http://localhost:3000%2eevil.example",
        "x",
        // Three times as long once it is encoded: no cookie would hold it.
        &format!("http://localhost:3000/{}", "\u{e4}".repeat(900)),
    ] {
        let encoded: String = url::form_urlencoded::byte_serialize(target.as_bytes()).collect();
        let by_link =
            story.client.get(&format!("/api/v1/auth/oauth/google?redirectTo={encoded}")).send().await;
        let by_page = story.post("/api/v1/auth/oauth/google", &json!({ "redirectTo": target })).await;
        for reply in [by_link, by_page] {
            assert_eq!(
                (reply.status.as_u16(), reply.problem()),
                (400, "auth.oauth_redirect_refused"),
                "{target}"
            );
            assert!(!reply.headers.contains_key("set-cookie") && !reply.headers.contains_key("location"));
        }
    }
    let encoded: String = url::form_urlencoded::byte_serialize(APP.as_bytes()).collect();
    let control = story.client.get(&format!("/api/v1/auth/oauth/google?redirectTo={encoded}")).send().await;
    assert_eq!(control.status, 303);
}

/// Tokens that are not the provider's word for this service and this moment, and why.
fn hostile_tokens(there: &Provider, good: &Value) -> Vec<(&'static str, String)> {
    let from_now = |seconds: i64| json!(good["iat"].as_i64().unwrap().saturating_add(seconds));
    let key = there.key();
    let signing = SigningKey::from_pem(&key).unwrap();
    let kid = signing.kid().to_owned();
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        sign(&changed, &key)
    };
    let valid = sign(good, &key);
    let (message, signature) = valid.rsplit_once('.').unwrap();
    let (_, body) = message.split_once('.').unwrap();
    let unsigned = |header: Value| format!("{}.{body}.", BASE64URL.encode(header.to_string()));
    let by_hmac = |secret: &[u8]| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(kid.clone());
        jsonwebtoken::encode(&header, good, &EncodingKey::from_secret(secret)).unwrap()
    };
    let public = signing.public_pem().unwrap();
    let own_key = json!({"alg": "ES256", "kid": "x", "jwk": signing.jwk()});
    let elsewhere = json!({"alg": "ES256", "kid": "x", "jku": format!("{}/evil-keys", there.url), "x5u": format!("{}/evil-keys", there.url)});
    let other_key = new_key();
    vec![
        ("a foreign issuer", with("iss", json!("https://evil.example"))),
        ("an issuer that begins alike", with("iss", json!(format!("{}/evil", there.url)))),
        ("a foreign audience", with("aud", json!("them"))),
        ("one audience too many", with("aud", json!([CLIENT_ID, "them"]))),
        ("no audience", with("aud", json!([]))),
        ("a foreign party asked", with("azp", json!("them"))),
        ("expired", with("exp", from_now(-61))),
        ("not good yet", with("nbf", from_now(300))),
        ("of the future", with("iat", from_now(300))),
        ("no end", with("exp", Value::Null)),
        ("no subject", with("sub", json!(""))),
        ("a subject that is no text", with("sub", json!(["ada-there"]))),
        ("another nonce", with("nonce", json!("mon_another"))),
        ("a foreign key", sign(good, &other_key)),
        ("no signature", unsigned(json!({"alg": "none"}))),
        ("no signature, spelled otherwise", unsigned(json!({"alg": "nOnE", "kid": kid}))),
        ("HMAC by the public key", by_hmac(public.as_bytes())),
        ("HMAC by the client secret", by_hmac(crate::provider::CLIENT_SECRET.as_bytes())),
        ("HMAC by nothing", by_hmac(b"")),
        ("its own key", format!("{}.{body}.{signature}", BASE64URL.encode(own_key.to_string()))),
        ("keys of elsewhere", format!("{}.{body}.{signature}", BASE64URL.encode(elsewhere.to_string()))),
        (
            "another body",
            format!("{}.{}.{signature}", message.split_once('.').unwrap().0, BASE64URL.encode("{}")),
        ),
        ("an empty text", String::new()),
        ("no token", "a.b.c".to_owned()),
        ("a very long token", "x".repeat(16_385)),
    ]
}

#[tokio::test]
async fn a_token_that_is_not_the_providers_word_signs_nobody_in() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let count = hostile_tokens(&there, &there.claims(&json!({}))).len();
    for at in 0..count {
        let visit = Visit::begin(&story, "google").await;
        let granted = there.authorize(&visit.authorization_url);
        let nonce = url::Url::parse(&visit.authorization_url)
            .unwrap()
            .query_pairs()
            .find(|(name, _)| name == "nonce")
            .unwrap()
            .1
            .into_owned();
        let (what, token) = hostile_tokens(&there, &there.claims(&json!({ "nonce": nonce }))).remove(at);
        there.claim(json!({ "whole": token }));
        let refused = visit.come_back(&story.client, &granted).await;
        assert_eq!(error(&refused), "auth.provider_token_invalid", "{what}");
    }
    for (what, token) in hostile_tokens(&there, &there.claims(&json!({"aud": "google-app"}))) {
        // Any of an app's own ids may have asked.
        if what == "one audience too many" {
            continue;
        }
        let refused = story.post(NATIVE, &json!({ "idToken": token })).await;
        let expected = if token.is_empty() || token.len() > 16_384 { 400 } else { 401 };
        assert_eq!(refused.status, expected, "{what} {}", refused.json);
        refused.problem();
    }
    assert_eq!(there.asked("/evil-keys"), 0, "no token says where keys are");
    assert_eq!(users(&story).await, 0);
    there.claim(json!({}));
    tokens(&story, &sign_in_with(&story, &there, "google").await).await;
}

#[tokio::test]
async fn a_token_of_one_kind_is_none_of_another() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let native = async |path: &str, token: &str, nonce: Option<&str>| {
        let mut body = json!({ "idToken": token });
        if let Some(nonce) = nonce {
            body["nonce"] = json!(nonce);
        }
        story.post(path, &body).await.status.as_u16()
    };
    let of_app = |changed: Value| {
        let mut claims = json!({"aud": "google-app"});
        claims.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        there.id_token(&claims)
    };
    assert_eq!(native(NATIVE, &of_app(json!({"nonce": "n"})), Some("n")).await, 200, "the control");
    assert_eq!(native(NATIVE, &of_app(json!({"nonce": "n"})), Some("m")).await, 401);
    assert_eq!(native(NATIVE, &of_app(json!({})), Some("n")).await, 401);
    let of_browser = there.id_token(&json!({"nonce": format!("mon_{}", "A".repeat(43))}));
    assert_eq!(native(NATIVE, &of_browser, None).await, 401, "a browser's round trip was for that browser");
    assert_eq!(
        native("/api/v1/auth/apple-signin", &of_app(json!({})), None).await,
        401,
        "Google's app at Apple"
    );
    let ada = story.user("ada@example.com").await;
    assert_eq!(native(NATIVE, &ada.access_token, None).await, 401);
    let bearer = story.client.get("/api/v1/auth/me").bearer(&of_app(json!({}))).send().await;
    assert_eq!(bearer.status, 401, "an ID token opens nothing here");
}

#[tokio::test]
async fn a_token_that_was_bound_is_not_taken_without_its_nonce() {
    let there = Provider::start().await;
    let story = there.story(|settings| settings.providers.google_takes_unsent_nonce = false).await;
    let lenient = story
        .replica_with(|settings| {
            settings.providers.google_takes_unsent_nonce = true;
            settings.providers.apple_takes_unsent_nonce = true;
        })
        .await;
    let hashed = hex(&sha256(b"n"));
    for (path, app, nonce) in
        [(NATIVE, "google-app", "n"), ("/api/v1/auth/apple-signin", "apple-app", &hashed)]
    {
        let bound = there.id_token(&json!({"aud": app, "nonce": nonce}));
        let stolen = json!({ "idToken": bound });
        let refused = story.post(path, &stolen).await;
        assert_eq!(
            (refused.status.as_u16(), refused.problem()),
            (401, "auth.provider_token_invalid"),
            "{app}"
        );
        let own = json!({"idToken": bound, "nonce": "n"});
        assert_eq!(lenient.client.post(path, &stolen).send().await.status, 200, "where the operator says so");
        assert_eq!(story.post(path, &own).await.status, 200, "the control: {app}");
        // It was good once: whoever has it now, with or without the nonce, is too late.
        for late in [&own, &stolen] {
            assert_eq!(lenient.client.post(path, late).send().await.status, 401, "{app}");
        }
        let unbound = json!({"idToken": there.id_token(&json!({ "aud": app }))});
        assert_eq!(story.post(path, &unbound).await.status, 200, "the control: {app}");
        let mon = format!("mon_{}", "A".repeat(43));
        let of_browser = there.id_token(&json!({"aud": app, "nonce": mon}));
        for body in [json!({ "idToken": of_browser }), json!({"idToken": of_browser, "nonce": mon})] {
            let refused = lenient.client.post(path, &body).send().await;
            assert_eq!(refused.status, 401, "never a browser's: {app}");
        }
    }
}

#[tokio::test]
async fn what_a_token_says_of_its_nonce_does_not_prove_that_one_knows_it() {
    const PATH: &str = "/api/v1/auth/apple-signin";
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let hashed = hex(&sha256(b"n"));
    let token = there.id_token(&json!({"aud": "apple-app", "nonce": hashed}));
    let send = async |client: &Client, token: &str, nonce: &str| {
        client.post(PATH, &json!({"idToken": token, "nonce": nonce})).send().await.status.as_u16()
    };
    assert_eq!(send(&story.client, &token, &hashed).await, 401, "whoever has the token reads this in it");
    assert_eq!(send(&story.client, &token, "n").await, 200, "the control: the app knows more");
    let clear = there.id_token(&json!({"aud": "apple-app", "nonce": "n"}));
    assert_eq!(send(&story.client, &clear, "n").await, 401);
    let lenient = story.replica_with(|settings| settings.providers.apple_takes_clear_nonce = true).await;
    assert_eq!(send(&lenient.client, &clear, "n").await, 200, "where the operator says so");
}

#[tokio::test]
async fn a_token_that_comes_with_its_nonce_is_good_once_also_at_once() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let body = json!({"idToken": there.id_token(&json!({"aud": "google-app", "nonce": "n"})), "nonce": "n"});
    assert_eq!(story.post(NATIVE, &body).await.status, 200, "the account is there");
    let body = json!({"idToken": there.id_token(&json!({"aud": "google-app", "nonce": "m"})), "nonce": "m"});
    let replies = join_all((0..8).map(|_| story.post(NATIVE, &body))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
    assert!(
        replies.iter().all(|reply| reply.status == 200 || reply.problem() == "auth.provider_token_invalid")
    );
    let without = json!({"idToken": there.id_token(&json!({"aud": "google-app"}))});
    for _ in 0..2 {
        assert_eq!(
            story.post(NATIVE, &without).await.status,
            200,
            "the control: systems hand one out for an hour"
        );
    }
}

#[tokio::test]
async fn a_tenant_at_microsoft_speaks_for_itself_alone() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let (own, other) = ("00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002");
    let issuer = |tenant: &str| format!("{}/{tenant}/v2.0", there.url);
    for claims in [
        json!({"iss": issuer(own), "tid": other}),
        json!({"iss": issuer("common"), "tid": "common"}),
        json!({"iss": issuer("{tenantid}"), "tid": "{tenantid}"}),
        json!({"iss": issuer(own)}),
        json!({"iss": there.url, "tid": own}),
    ] {
        there.claim(claims.clone());
        assert_eq!(
            error(&sign_in_with(&story, &there, "microsoft").await),
            "auth.provider_token_invalid",
            "{claims}"
        );
    }
    // Anybody can write any address into a tenant of their own.
    story.user("victim@example.com").await;
    story.execute("UPDATE auth.users SET email_verified = true").await;
    let of_own =
        json!({"iss": issuer(own), "tid": own, "email": "victim@example.com", "email_verified": true});
    there.claim(of_own.clone());
    assert_eq!(error(&sign_in_with(&story, &there, "microsoft").await), "auth.provider_email_taken");
    let mut of_domain = of_own;
    of_domain["xms_edov"] = json!(true);
    there.claim(of_domain);
    tokens(&story, &sign_in_with(&story, &there, "microsoft").await).await;
    assert_eq!(users(&story).await, 1, "the control: the tenant has proven that the domain is its own");
}

const DESCRIPTION: &str = "/.well-known/openid-configuration";

fn faults() -> Vec<Fault> {
    vec![
        Fault::Status(500),
        Fault::Status(404),
        Fault::Status(204),
        Fault::Garbage,
        Fault::Huge,
        Fault::Silence,
        Fault::Drip,
        Fault::BreakOff,
        Fault::Says(json!([])),
        Fault::Says(json!({})),
        Fault::Says(Value::Null),
    ]
}

#[tokio::test]
async fn a_provider_that_is_broken_or_hostile_ends_in_a_clean_error_in_bounded_time() {
    let (there, trap) = (Provider::start().await, Provider::start().await);
    let story = there.story(|_| {}).await;
    let mut all = faults();
    all.push(Fault::Redirect(format!("{}/trap", trap.url)));
    all.push(Fault::Redirect("http://169.254.169.254/latest/meta-data".to_owned()));
    know_ada(&there);
    for (provider, path) in [
        ("google", DESCRIPTION),
        ("google", "/keys"),
        ("google", "/token"),
        ("github", "/login/oauth/access_token"),
        ("github", "/github/user"),
        ("github", "/github/user/emails"),
        ("discord", "/api/users/@me"),
    ] {
        for fault in &all {
            // An empty list of addresses is a good answer, to that one question.
            if path == "/github/user/emails" && matches!(fault, Fault::Says(said) if said.is_array()) {
                continue;
            }
            // What is remembered is forgotten, and who failed may be asked again.
            story.clock.advance(Duration::hours(2));
            let what = format!("{path} {fault:?}");
            let begun = Instant::now();
            if path == DESCRIPTION {
                there.fail(path, fault.clone());
                for reply in [
                    story.client.get("/api/v1/auth/oauth/google").send().await,
                    story.post(NATIVE, &json!({"idToken": there.id_token(&json!({}))})).await,
                ] {
                    assert_eq!(
                        (reply.status.as_u16(), reply.problem()),
                        (503, "auth.provider_unavailable"),
                        "{what}"
                    );
                    assert!(reply.headers.contains_key("retry-after"));
                }
            } else {
                let visit = Visit::begin(&story, provider).await;
                there.fail(path, fault.clone());
                let reply = visit.finish(&story, &there).await;
                assert_eq!(error(&reply), "auth.provider_unavailable", "{what}");
            }
            assert!(begun.elapsed().as_secs() < 30, "{what}");
            there.recover();
        }
    }
    assert_eq!(trap.asked("/trap"), 0, "no redirect is followed");
    assert_eq!(users(&story).await, 0);
    story.clock.advance(Duration::hours(2));
    tokens(&story, &sign_in_with(&story, &there, "google").await).await;
}

#[tokio::test]
async fn while_a_provider_hangs_everything_else_is_answered_and_nobody_waits_twice() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let ada = story.user("ada@example.com").await;
    there.fail(DESCRIPTION, Fault::Silence);
    let begun = Instant::now();
    let waiting = join_all((0..40).map(|_| story.client.get("/api/v1/auth/oauth/google").send()));
    let working = async {
        let me = story.get("/api/v1/auth/me", &ada).await.status;
        (me, begun.elapsed().as_secs() < 30)
    };
    let (replies, (me, in_time)) = tokio::join!(waiting, working);
    assert_eq!((me.as_u16(), in_time), (200, true));
    assert!(replies.iter().all(|reply| reply.status == 503));
    assert_eq!(there.asked(DESCRIPTION), 1, "one asked, and the others took its answer");
    assert!(begun.elapsed().as_secs() < 30);
}

#[tokio::test]
async fn what_a_provider_says_of_itself_leads_nowhere_inside() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    for endpoint in ["authorization_endpoint", "token_endpoint", "jwks_uri"] {
        for place in [
            "http://169.254.169.254/latest/meta-data",
            "https://169.254.169.254/",
            "https://10.0.0.1/",
            "https://192.168.0.1/",
            "https://[::1]/",
            "https://[fd00:ec2::254]/",
            "https://[::ffff:10.0.0.1]/",
            "https://0/",
            "http://accounts.example/",
            "ftp://accounts.example/",
            "javascript:alert(1)",
            "https://user:password@accounts.example/",
            "/relative",
        ] {
            there.describe(json!({ endpoint: place }));
            story.clock.advance(Duration::seconds(5));
            let reply = story.client.get("/api/v1/auth/oauth/google").send().await;
            assert_eq!(
                (reply.status.as_u16(), reply.problem()),
                (503, "auth.provider_unavailable"),
                "{endpoint} {place}"
            );
        }
    }
    there.describe(json!({"issuer": "https://accounts.google.com"}));
    story.clock.advance(Duration::seconds(5));
    assert_eq!(
        story.client.get("/api/v1/auth/oauth/google").send().await.status,
        503,
        "who speaks for another"
    );
    there.describe(json!({}));
    story.clock.advance(Duration::seconds(5));
    assert_eq!(story.client.get("/api/v1/auth/oauth/google").send().await.status, 303, "the control");
}

#[tokio::test]
async fn without_the_setting_a_name_of_this_machine_is_not_connected_to() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let port = there.url.rsplit(':').next().unwrap().to_owned();
    let strict = story
        .replica_with(|settings| {
            there.set_up(&mut settings.providers);
            settings.providers = mana_platform::Settings::defaults().unwrap().providers;
            settings.providers.google_client_id = Some(CLIENT_ID.into());
            settings.providers.google_client_secret = Some("s".into());
            // The name says nothing; what it resolves to does, whenever it is asked.
            settings.providers.google_issuer = format!("https://localhost:{port}");
        })
        .await;
    assert_eq!(strict.client.get("/api/v1/auth/oauth/google").send().await.status, 503);
    assert_eq!(there.asked(DESCRIPTION), 0);
    assert_eq!(story.client.get("/api/v1/auth/oauth/google").send().await.status, 303, "the control");

    for issuer in [there.url.as_str(), "https://127.0.0.1", "https://[::1]", "http://accounts.example"] {
        let refused = story
            .start(
                |settings| {
                    settings.providers.oauth_private_networks = Vec::new();
                    settings.providers.google_issuer = issuer.to_owned();
                },
                story.root_secret(),
            )
            .await;
        assert!(refused.err().unwrap().to_string().contains("OAUTH_PRIVATE_NETWORKS"), "{issuer}");
    }
}

#[tokio::test]
async fn a_cookie_that_another_installation_sealed_opens_nothing() {
    let there = Provider::start().await;
    let (story, other) = (there.story(|_| {}).await, there.story(|_| {}).await);
    there.follow(&story);
    let foreign = Visit::begin(&other, "google").await;
    let granted = there.authorize(&foreign.authorization_url);
    assert_eq!(foreign.come_back(&story.client, &granted).await.status, 400);
    assert_eq!(there.asked("/token"), 0);
}

#[tokio::test]
async fn a_foreign_page_begins_nothing_by_itself() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let ada = story.user("ada@example.com").await;
    for path in ["/api/v1/auth/oauth/google", "/api/v1/auth/oauth/google/link", NATIVE] {
        let refused = story
            .client
            .request(Method::POST, path)
            .body("text/plain", "{}")
            .bearer(&ada.access_token)
            .header("origin", "https://evil.example")
            .header("sec-fetch-site", "cross-site")
            .send()
            .await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (403, "request.foreign_site"), "{path}");
    }
}
