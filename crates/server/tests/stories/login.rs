//! Signing in: the answer, the cookie, the access token, and what a refusal tells.

use crate::observed::{Metrics, Statements};
use crate::story::{PASSWORD, Story, User, members, read_jwt, signing_key};
use http::StatusCode;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use mana_kernel::Clock as _;
use mana_testkit::Reply;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

const LOGIN: &str = "/api/v1/auth/login";
const SESSION: &str = "/api/v1/auth/session";

async fn log_in(story: &Story, email: &str, password: &str) -> Reply {
    story.post(LOGIN, &json!({"email": email, "password": password})).await
}

fn time(text: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(text.as_str().unwrap(), &Rfc3339).unwrap()
}

/// All that a client can tell an answer by, but for what names the request.
fn visible(reply: &Reply) -> (StatusCode, BTreeMap<String, Vec<u8>>, Value) {
    let headers = reply.headers.iter().filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()));
    let mut body = reply.json.clone();
    body["instance"] = Value::Null;
    (reply.status, headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect(), body)
}

#[tokio::test]
async fn the_answer_is_the_user_and_a_pair_of_tokens() {
    let story = Story::new().await;
    let registered = story.register("ada@example.com").await;
    let reply = story.login("ADA@example.com").await;
    assert_eq!(reply.status, 200);
    assert_eq!(members(&reply.json), ["accessToken", "expiresIn", "refreshToken", "tokenType", "user"]);
    assert_eq!(
        members(&reply.json["user"]),
        ["createdAt", "email", "emailVerified", "id", "image", "name", "role"]
    );
    assert_eq!(reply.json["user"], registered.json["user"]);
    assert_eq!(reply.json["expiresIn"], json!(900));
    assert_eq!(reply.json["tokenType"], "Bearer");
    assert_eq!(reply.headers["cache-control"], "no-store");
    let secrets = [reply.text("/accessToken"), reply.text("/refreshToken"), &User::of(&reply).cookie];
    assert!(secrets.iter().all(|secret| secret.len() > 40), "{secrets:?}");
    assert!(
        secrets
            .iter()
            .enumerate()
            .all(|(at, one)| secrets[..at].iter().all(|other| !one.contains(other) && !other.contains(one)))
    );
}

#[tokio::test]
async fn each_sign_in_is_a_session_of_its_own() {
    let story = Story::new().await;
    let (first, second) = (story.user("ada@example.com").await, story.sign_in("ada@example.com").await);
    let sid = |user: &User| read_jwt(&user.access_token)[1]["sid"].clone();
    assert_ne!(sid(&first), sid(&second));
    assert_ne!(first.cookie, second.cookie);
    assert_ne!(first.refresh_token, second.refresh_token);
    assert!(story.is_signed_in(&first).await && story.is_signed_in(&second).await);
}

#[tokio::test]
async fn what_the_device_says_of_itself_is_kept_and_shown() {
    let story = Story::new().await;
    story.register("ada@example.com").await;
    let sign_in = |body: Value| {
        let mut whole = json!({"email": "ada@example.com", "password": PASSWORD});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        story.client.post(LOGIN, &whole).header("user-agent", "Ada's browser/1.0").send()
    };
    let named = User::of(
        &sign_in(json!({"deviceId": "d-1", "deviceName": "Ada\u{2019}s phone", "rememberMe": true})).await,
    );
    let shown = story.get(SESSION, &named).await;
    assert_eq!(shown.status, 200);
    let session = &shown.json["session"];
    assert_eq!((&session["deviceId"], &session["deviceName"]), (&json!("d-1"), &json!("Ada\u{2019}s phone")));
    assert_eq!(
        (&session["userAgent"], &session["ipAddress"]),
        (&json!("Ada's browser/1.0"), &json!("127.0.0.1"))
    );
    assert_eq!(session["userId"], json!(named.id));
    assert_eq!(session["id"], read_jwt(&named.access_token)[1]["sid"]);
    assert_eq!(time(&session["expiresAt"]) - time(&session["createdAt"]), Duration::days(30));
    assert_eq!(shown.json["user"], story.get("/api/v1/auth/me", &named).await.json);
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions WHERE remember_me").await, 1);

    let nameless = User::of(&sign_in(json!({"rememberMe": false})).await);
    let session = &story.get(SESSION, &nameless).await.json["session"];
    assert_eq!((&session["deviceId"], &session["deviceName"]), (&Value::Null, &Value::Null));
    assert_eq!(time(&session["expiresAt"]) - time(&session["createdAt"]), Duration::days(7));
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions WHERE remember_me").await, 1);

    for bad in [json!("a\0b"), json!("a\nb"), json!("x".repeat(513)), json!(1), json!(["d-1"])] {
        for member in ["deviceId", "deviceName"] {
            let refused = sign_in(json!({ member: bad })).await;
            assert_eq!(
                (refused.status.as_u16(), refused.problem()),
                (400, "request.invalid_body"),
                "{member} {bad}"
            );
        }
    }
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions").await, 2);
}

#[tokio::test]
async fn a_long_id_of_a_device_is_kept_and_a_long_name_shortened_and_empty_ones_are_none() {
    let story = Story::new().await;
    story.register("ada@example.com").await;
    let sign_in = async |id: &str, name: &str| {
        let body =
            json!({"email": "ada@example.com", "password": PASSWORD, "deviceId": id, "deviceName": name});
        let user = User::of(&story.post(LOGIN, &body).await);
        story.get(SESSION, &user).await.json["session"].clone()
    };
    let (id, name) = ("t".repeat(512), "Mozilla/5.0 \u{e4}".repeat(36));
    let session = sign_in(&id, &name).await;
    assert_eq!(session["deviceId"], json!(id));
    let shown = session["deviceName"].as_str().unwrap();
    assert!(shown.chars().count() == 128 && shown.ends_with('…'), "{shown}");
    assert!(name.starts_with(shown.trim_end_matches('…')));
    let whole = "n".repeat(128);
    assert_eq!(sign_in("d", &whole).await["deviceName"], json!(whole));
    let nameless = sign_in("", "").await;
    assert_eq!((&nameless["deviceId"], &nameless["deviceName"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn the_cookie_is_for_this_host_and_no_script() {
    let story = Story::new().await;
    story.register("ada@example.com").await;
    let reply = story.login("ada@example.com").await;
    let [cookie] = reply.headers.get_all("set-cookie").iter().collect::<Vec<_>>()[..] else {
        panic!("one cookie")
    };
    let (pair, attributes) = cookie.to_str().unwrap().split_once("; ").unwrap();
    assert!(pair.starts_with("mana.session_token=") && pair.len() > 50, "{pair}");
    assert_eq!(sorted(attributes), ["HttpOnly", "Max-Age=604800", "Path=/", "SameSite=Lax"]);
}

#[tokio::test]
async fn over_https_the_cookie_is_secure_and_shared_by_the_subdomains() {
    let story = Story::with(|settings| {
        settings.base_url = Some("https://auth.example.com".parse().unwrap());
        settings.cookie_domain = Some("example.com".parse().unwrap());
    })
    .await;
    story.register("ada@example.com").await;
    let reply = story.login("ada@example.com").await;
    let (pair, attributes) = reply.headers["set-cookie"].to_str().unwrap().split_once("; ").unwrap();
    assert!(pair.starts_with("__Secure-mana.session_token="), "{pair}");
    assert_eq!(
        sorted(attributes),
        ["Domain=example.com", "HttpOnly", "Max-Age=604800", "Path=/", "SameSite=None", "Secure"]
    );
}

fn sorted(attributes: &str) -> Vec<&str> {
    let mut attributes: Vec<_> = attributes.split("; ").collect();
    attributes.sort_unstable();
    attributes
}

#[tokio::test]
async fn a_planted_cookie_is_not_adopted() {
    let story = Story::new().await;
    let eve = story.user("eve@example.com").await;
    story.register("ada@example.com").await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    for planted in [eve.cookie.clone(), format!("mana.session_token=mst_{}", "A".repeat(43))] {
        let ada = User::of(&story.client.post(LOGIN, &body).header("cookie", &planted).send().await);
        assert_ne!(ada.cookie, planted);
        assert_ne!(read_jwt(&ada.access_token)[1]["sid"], read_jwt(&eve.access_token)[1]["sid"]);
    }
}

#[tokio::test]
async fn a_refusal_does_not_tell_whether_the_address_has_an_account() {
    let story = Story::new().await;
    for email in ["ada@example.com", "oauth-only@example.com", "disabled@example.com"] {
        story.register(email).await;
    }
    story.execute("DELETE FROM auth.passwords USING auth.users WHERE id = user_id AND email = 'oauth-only@example.com'").await;
    story.execute("UPDATE auth.users SET disabled_at = now() WHERE email = 'disabled@example.com'").await;

    let unknown = log_in(&story, "nobody@example.com", PASSWORD).await;
    assert_eq!((unknown.status.as_u16(), unknown.problem()), (401, "auth.invalid_credentials"));
    assert_eq!(unknown.text("/message"), "Invalid email or password");
    assert_eq!(unknown.text("/error"), "INVALID_CREDENTIALS");
    assert!(!unknown.headers.contains_key("set-cookie"));
    for (email, password) in [
        ("ada@example.com", "not the password"),
        ("ada@example.com", ""),
        ("ADA@example.com", "not the password"),
        ("oauth-only@example.com", PASSWORD),
        ("disabled@example.com", "not the password"),
        ("no address at all", PASSWORD),
        ("", ""),
        ("\u{ff41}da@example.com", PASSWORD),
        ("ada@example.com\0", PASSWORD),
    ] {
        let refused = log_in(&story, email, password).await;
        assert_eq!(visible(&refused), visible(&unknown), "{email} {password}");
    }
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions").await, 0);
}

#[tokio::test]
async fn only_the_right_password_learns_that_an_account_is_disabled() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.execute("UPDATE auth.users SET disabled_at = now()").await;
    let told = log_in(&story, "ada@example.com", PASSWORD).await;
    assert_eq!(
        (told.status.as_u16(), told.problem()),
        (401, "auth.account_disabled"),
        "403 is for an unverified address"
    );
    assert!(!told.headers.contains_key("set-cookie"));
    let failed =
        "SELECT count(*) FROM auth.security_events WHERE type = 'sign_in_failed' AND user_id IS NOT NULL";
    assert_eq!(story.number(failed).await, 1, "whoever has the password is written down as well");
    let untold = log_in(&story, "ada@example.com", "not the password").await;
    assert_eq!(untold.problem(), "auth.invalid_credentials");

    assert!(!story.is_signed_in(&ada).await, "what was signed in is out");
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 401);
    let verdict = story.post("/api/v1/auth/validate", &json!({"token": ada.access_token})).await;
    assert_eq!(verdict.json["valid"], false);
}

#[tokio::test]
async fn an_access_token_claims_what_the_contract_says_and_nothing_else() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let [header, claims] = read_jwt(&ada.access_token);
    assert_eq!(members(&header), ["alg", "kid", "typ"]);
    assert_eq!((&header["alg"], &header["typ"]), (&json!("RS256"), &json!("JWT")));
    assert_eq!(members(&claims), ["aud", "email", "exp", "iat", "iss", "jti", "role", "sid", "sub"]);
    let issued_at = story.clock.now().unix_timestamp();
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(issued_at), &json!(issued_at + 900)));
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("manacore"), &json!("manacore")));
    assert_eq!((&claims["sub"], &claims["email"]), (&json!(ada.id), &json!("ada@example.com")));
    assert_eq!(claims["role"], "user");

    let again = story.sign_in("ada@example.com").await;
    assert_ne!(read_jwt(&again.access_token)[1]["jti"], claims["jti"]);
}

#[tokio::test]
async fn issuer_and_audience_are_the_operator_s() {
    let story = Story::with(|settings| {
        settings.jwt_issuer = "https://auth.example.com".to_owned();
        settings.jwt_audience = "apps".to_owned();
    })
    .await;
    let ada = story.user("ada@example.com").await;
    let claims = &read_jwt(&ada.access_token)[1];
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("https://auth.example.com"), &json!("apps")));
    assert!(story.is_signed_in(&ada).await, "signer and checker agree");
}

#[tokio::test]
async fn anybody_can_verify_a_token_with_the_published_keys() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let kid = read_jwt(&ada.access_token)[0]["kid"].as_str().unwrap().to_owned();
    let published = story.client.get("/api/v1/auth/jwks").send().await;
    let well_known = story.client.get("/.well-known/jwks.json").send().await;
    assert_eq!((published.status, &published.bytes), (StatusCode::OK, &well_known.bytes));
    for key in published.json["keys"].as_array().unwrap() {
        assert_eq!(members(key), ["alg", "e", "kid", "kty", "n", "use"], "public members only");
        assert_eq!((&key["kty"], &key["alg"], &key["use"]), (&json!("RSA"), &json!("RS256"), &json!("sig")));
    }

    let keys: JwkSet = serde_json::from_slice(&published.bytes).unwrap();
    let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_issuer(&["manacore"]);
    validation.set_audience(&["manacore"]);
    let verified = jsonwebtoken::decode::<Value>(&ada.access_token, &key, &validation).unwrap();
    assert_eq!(verified.claims["sub"], json!(ada.id));

    let pem = mana_auth::token::keys::public_pem(signing_key()).unwrap();
    let key = DecodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    assert!(
        jsonwebtoken::decode::<Value>(&ada.access_token, &key, &validation).is_ok(),
        "it is the operator's key"
    );
}

#[tokio::test]
async fn me_profile_and_session_show_the_same_user() {
    let story = Story::new().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    for user in [&ada, &bob] {
        let me = story.get("/api/v1/auth/me", user).await;
        assert_eq!(members(&me.json), ["createdAt", "email", "emailVerified", "id", "image", "name", "role"]);
        assert_eq!((me.text("/id"), me.text("/email")), (user.id.as_str(), user.email.as_str()));
        assert_eq!(story.get("/api/v1/auth/profile", user).await.json, me.json);
        assert_eq!(story.get(SESSION, user).await.json["user"], me.json);
    }
    for path in ["/api/v1/auth/me", "/api/v1/auth/profile", SESSION] {
        let refused = story.client.get(path).send().await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (401, "auth.unauthenticated"), "{path}");
        let by_cookie = story.client.get(path).header("cookie", &ada.cookie).send().await;
        assert_eq!(by_cookie.status, 401, "the cookie opens nothing here: {path}");
    }
}

#[tokio::test]
async fn the_password_is_stored_as_its_hash_only() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let hash: String = sqlx::query_scalar("SELECT hash FROM auth.passwords")
        .fetch_one(&mut story.database.owner().await)
        .await
        .unwrap();
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    assert!(!hash.contains(PASSWORD));
}

#[tokio::test]
async fn an_attempt_at_an_address_without_an_account_is_recorded_for_nobody() {
    let story = Story::new().await;
    let nobody = json!({"email": "nobody@example.com", "password": PASSWORD});
    assert_eq!(story.post(LOGIN, &nobody).await.status, 401);
    assert_eq!(
        story
            .number(
                "SELECT count(*) FROM auth.security_events WHERE type = 'sign_in_failed' AND user_id IS NULL"
            )
            .await,
        1
    );
}

#[tokio::test]
async fn every_refusal_costs_the_same_work() {
    let story = Story::new().await;
    for email in ["ada@example.com", "disabled@example.com"] {
        story.register(email).await;
    }
    story.execute("UPDATE auth.users SET disabled_at = now() WHERE email = 'disabled@example.com'").await;
    let attempts = [
        ("nobody@example.com", PASSWORD),
        ("ada@example.com", "not the password"),
        ("disabled@example.com", "not the password"),
        ("disabled@example.com", PASSWORD),
        ("no address at all", PASSWORD),
    ];
    let (metrics, statements) = (Metrics::default(), Statements::watch());
    let _guard = metrics.watch();
    let mut work = Vec::new();
    // A connection's first statements may cost it more.
    for _ in 0..2 {
        work.clear();
        for (email, password) in attempts {
            statements.take();
            metrics.take("");
            assert_eq!(log_in(&story, email, password).await.status, 401, "{email}");
            assert_eq!(metrics.take("password_hashing_waiting"), 1, "one hash: {email}");
            work.push(statements.take());
        }
    }
    assert!(work[0].len() >= 2, "{work:?}");
    for (same, (email, _)) in work.iter().zip(attempts) {
        assert_eq!(same, &work[0], "{email}");
    }
    let reads = |statement: &&String| statement.starts_with("WITH") || statement.starts_with("SELECT");
    assert_eq!(work[0].iter().filter(reads).count(), 1, "account and schemes come together: {work:?}");
}

#[tokio::test]
async fn what_has_no_event_does_not_happen() {
    let story = Story::new().await;
    story.register("ada@example.com").await;
    story.execute("REVOKE INSERT ON auth.security_events FROM mana_service").await;
    let right = json!({"email": "ada@example.com", "password": PASSWORD});
    let wrong = json!({"email": "ada@example.com", "password": "not the password"});
    let new = json!({"email": "bob@example.com", "password": PASSWORD});
    for (path, body) in [
        (LOGIN, &right),
        (LOGIN, &wrong),
        ("/api/auth/sign-in/email", &right),
        ("/api/v1/auth/register", &new),
    ] {
        let refused = story.post(path, body).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (500, "service.internal"), "{path}");
        assert!(!refused.headers.contains_key("set-cookie"), "{path}");
    }
    for (left, expected) in [
        ("SELECT count(*) FROM auth.sessions", 0),
        ("SELECT count(*) FROM auth.refresh_chains", 0),
        ("SELECT count(*) FROM auth.users", 1),
    ] {
        assert_eq!(story.number(left).await, expected, "{left}");
    }
    story.execute("GRANT INSERT ON auth.security_events TO mana_service").await;
    assert_eq!(story.login("ada@example.com").await.status, 200);
}
