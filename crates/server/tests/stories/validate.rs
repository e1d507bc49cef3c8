//! Access tokens under attack: what is not a token of ours, whole and alive, is none, for /validate as for /me.

use crate::story::{Story, User, members, read_jwt, respelled, signing_key};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey};
use mana_auth::token::keys::{self, KeyKind, SigningKey};
use mana_testkit::Reply;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::LazyLock;
use time::Duration;

const VALIDATE: &str = "/api/v1/auth/validate";

/// A private key, and the algorithm that belongs to it.
struct Forger {
    key: SecretString,
    algorithm: Algorithm,
}

/// The service's keys in these stories, one of each kind.
static KEYS: LazyLock<[Forger; 3]> = LazyLock::new(|| {
    let made = |kind, algorithm| Forger { key: keys::generate_pem(kind).unwrap(), algorithm };
    [
        Forger { key: signing_key().clone(), algorithm: Algorithm::RS256 },
        made(KeyKind::Es256, Algorithm::ES256),
        made(KeyKind::EdDsa, Algorithm::EdDSA),
    ]
});

/// Somebody else's.
static FOREIGN_KEYS: LazyLock<[Forger; 3]> = LazyLock::new(|| {
    [
        (KeyKind::Rs256 { bits: 2048 }, Algorithm::RS256),
        (KeyKind::Es256, Algorithm::ES256),
        (KeyKind::EdDsa, Algorithm::EdDSA),
    ]
    .map(|(kind, algorithm)| Forger { key: keys::generate_pem(kind).unwrap(), algorithm })
});

impl Forger {
    fn encoding_key(&self) -> EncodingKey {
        let pem = self.key.expose_secret().as_bytes();
        let read = match self.algorithm.family() {
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem,
            AlgorithmFamily::Ed => EncodingKey::from_ed_pem,
            AlgorithmFamily::Rsa | AlgorithmFamily::Hmac => EncodingKey::from_rsa_pem,
        };
        read(pem).unwrap()
    }

    /// Signed with this key: only what the token says can be wrong.
    fn signed(&self, header: &str, claims: &str) -> String {
        self.signed_as(self.algorithm, header, claims)
    }

    /// Signed with this key by another algorithm of its family.
    fn signed_as(&self, algorithm: Algorithm, header: &str, claims: &str) -> String {
        let key = self.encoding_key();
        token(header, claims, |message| {
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap()
        })
    }
}

/// Forged tokens, each with what is wrong with it.
type Forged = Vec<(String, String)>;

/// A token from JSON as text, so that it can be anything; `sign` gives the signature of `header.claims`.
fn token(header: &str, claims: &str, sign: impl FnOnce(&str) -> String) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = sign(&message);
    format!("{message}.{signature}")
}

fn hmac(secret: &[u8], algorithm: Algorithm) -> impl FnOnce(&str) -> String {
    let key = EncodingKey::from_secret(secret);
    move |message| jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap()
}

/// `object` with one member set, or without it.
fn with(object: &Value, member: &str, value: Option<Value>) -> String {
    let mut object = object.clone();
    match value {
        Some(value) => object[member] = value,
        None => drop(object.as_object_mut().unwrap().remove(member)),
    }
    object.to_string()
}

/// `object` with a member's name twice, in front.
fn twice(object: &Value, member: &str, first: &Value) -> String {
    format!("{{{}:{first},{}", json!(member), &object.to_string()[1..])
}

/// What a careless reader takes for the object.
fn array_of(object: &Value) -> String {
    json!(object.as_object().unwrap().values().collect::<Vec<_>>()).to_string()
}

async fn validate(story: &Story, token: &str) -> Reply {
    story.post(VALIDATE, &json!({"token": token})).await
}

/// Neither route takes any of them.
async fn all_are_refused(story: &Story, forged: &Forged) {
    for (what, token) in forged {
        let verdict = validate(story, token).await;
        assert_eq!(verdict.status, 200, "{what}: {}", verdict.json);
        assert_eq!(members(&verdict.json), ["error", "valid"], "{what}");
        assert_eq!(verdict.json["valid"], json!(false), "{what}");
        assert!(!verdict.text("/error").is_empty(), "{what}");
        if HeaderValue::from_str(token).is_ok() {
            let refused = story.client.get("/api/v1/auth/me").bearer(token).send().await;
            assert_eq!((refused.status.as_u16(), refused.problem()), (401, "auth.unauthenticated"), "{what}");
        }
    }
}

/// Somebody who is signed in at a service with a key of some kind, and header and claims of their token.
struct Stage {
    story: Story,
    ada: User,
    header: Value,
    claims: Value,
    ours: &'static Forger,
    /// Of the same kind, but not the service's.
    foreign: &'static Forger,
}

impl Stage {
    fn ours(&self, header: &str, claims: &str) -> String {
        self.ours.signed(header, claims)
    }
}

async fn signed_in_by(kind: usize) -> Stage {
    let (ours, foreign) = (&KEYS[kind], &FOREIGN_KEYS[kind]);
    let story = Story::with(|settings| settings.jwt_private_key = Some(ours.key.clone())).await;
    let ada = story.user("ada@example.com").await;
    let [header, claims] = read_jwt(&ada.access_token);
    assert_eq!(header["alg"], json!(ours.algorithm));
    let resigned = ours.signed(&header.to_string(), &claims.to_string());
    assert_eq!(
        validate(&story, &resigned).await.json["valid"],
        json!(true),
        "a forger's tools work: {header} {claims}"
    );
    assert_eq!(story.client.get("/api/v1/auth/me").bearer(&resigned).send().await.status, 200);
    Stage { story, ada, header, claims, ours, foreign }
}

/// The same with each kind of key.
async fn stages() -> [Stage; 3] {
    [signed_in_by(0).await, signed_in_by(1).await, signed_in_by(2).await]
}

/// With the kind of key that is the default.
async fn signed_in() -> (Story, User, Value, Value) {
    let Stage { story, ada, header, claims, .. } = signed_in_by(0).await;
    (story, ada, header, claims)
}

/// Signed with the service's own key.
fn ours(header: &str, claims: &str) -> String {
    KEYS[0].signed(header, claims)
}

#[tokio::test]
async fn a_good_token_shows_its_claims() {
    for Stage { story, ada, claims, .. } in stages().await {
        let verdict = validate(&story, &ada.access_token).await;
        assert_eq!((verdict.status.as_u16(), verdict.json), (200, json!({"valid": true, "payload": claims})));
    }
}

#[tokio::test]
async fn a_token_dies_with_its_fifteen_minutes() {
    let (story, ada, ..) = signed_in().await;
    story.clock.advance(Duration::seconds(899));
    assert_eq!(validate(&story, &ada.access_token).await.json["valid"], json!(true));
    assert!(story.is_signed_in(&ada).await);
    story.clock.advance(Duration::seconds(1));
    all_are_refused(&story, &vec![("expired".to_owned(), ada.access_token.clone())]).await;
    assert!(validate(&story, &ada.access_token).await.text("/error").contains("expired"));
}

#[tokio::test]
async fn a_token_dies_with_its_session() {
    let (story, ada, header, claims) = signed_in().await;
    let bob = story.user("bob@example.com").await;
    let [_, bobs] = read_jwt(&bob.access_token);
    let mut forged = vec![
        (
            "another user's session".to_owned(),
            ours(&header.to_string(), &with(&claims, "sid", Some(bobs["sid"].clone()))),
        ),
        (
            "another user".to_owned(),
            ours(&header.to_string(), &with(&claims, "sub", Some(bobs["sub"].clone()))),
        ),
        ("no such session".to_owned(), ours(&header.to_string(), &with(&claims, "sid", Some(json!("none"))))),
    ];
    all_are_refused(&story, &forged).await;
    let replica = story.replica().await;
    replica.post("/api/v1/auth/logout", &json!({"refreshToken": ada.refresh_token})).send().await;
    // As it does several times a second.
    story.workers.follow_ended_sessions().await;
    forged.push(("ended by another server".to_owned(), ada.access_token.clone()));
    all_are_refused(&story, &forged).await;
    assert!(story.is_signed_in(&bob).await);
}

#[tokio::test]
async fn what_is_no_jwt_is_refused() {
    for stage in stages().await {
        no_jwt(&stage).await;
    }
}

async fn no_jwt(stage: &Stage) {
    let Stage { story, ada, header, claims, .. } = stage;
    let good = &ada.access_token;
    let [protected, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut forged: Forged = [
        "",
        " ",
        ".",
        "..",
        "...",
        "a",
        "a.b",
        "a.b.c",
        "null",
        "{}",
        "e30.e30.e30",
        "\u{0}",
        "\u{1f980}.\u{1f980}.\u{1f980}",
    ]
    .map(|text| (format!("garbage {text:?}"), text.to_owned()))
    .into();
    let flattened = json!({"protected": protected, "payload": payload, "signature": signature});
    for (what, text) in [
        ("no signature", format!("{protected}.{payload}")),
        ("empty signature", format!("{protected}.{payload}.")),
        ("half a signature", format!("{protected}.{payload}.{}", &signature[..signature.len() / 2])),
        (
            "signature of another message",
            format!(
                "{protected}.{}.{signature}",
                URL_SAFE_NO_PAD.encode(with(claims, "role", Some(json!("admin"))))
            ),
        ),
        (
            "header of another message",
            format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(with(header, "x", Some(json!(1))))),
        ),
        (
            "signature of zeros",
            format!("{protected}.{payload}.{}", URL_SAFE_NO_PAD.encode(vec![0; bytes.len()])),
        ),
        ("fourth part", format!("{good}.{signature}")),
        ("five parts, a JWE", format!("{good}.{payload}.{signature}")),
        ("tail", format!("{good}A")),
        ("dot behind", format!("{good}.")),
        ("space before", format!(" {good}")),
        ("space behind", format!("{good} ")),
        ("line break behind", format!("{good}\n")),
        ("NUL behind", format!("{good}\0")),
        ("padding", format!("{good}==")),
        ("scheme before", format!("Bearer {good}")),
        ("two tokens", format!("{good},{good}")),
        ("flattened JSON serialisation", flattened.to_string()),
        ("general JSON serialisation", json!({"payload": payload, "signatures": [flattened]}).to_string()),
        ("refresh token", ada.refresh_token.clone()),
        ("cookie", ada.cookie.clone()),
        ("cookie's value", ada.cookie.split_once('=').unwrap().1.to_owned()),
        ("session id", claims["sid"].as_str().unwrap().to_owned()),
    ] {
        forged.push((what.to_owned(), text));
    }
    // The last letter of 256 bytes in base64url has four bits that carry nothing, and so has that of 64.
    forged.extend(respelled(good, 4).into_iter().map(|token| ("other spelling".to_owned(), token)));
    let standard = STANDARD.encode(&bytes);
    forged.push(("padded standard base64".to_owned(), format!("{protected}.{payload}.{standard}")));
    all_are_refused(story, &forged).await;
    assert!(story.is_signed_in(ada).await);
}

#[tokio::test]
async fn no_other_algorithm_than_ours_is_followed() {
    for stage in stages().await {
        another_algorithm(&stage).await;
    }
}

async fn another_algorithm(stage: &Stage) {
    let Stage { story, ada, header, claims, .. } = stage;
    let named = header["alg"].as_str().unwrap();
    let text = claims.to_string();
    let signature = ada.access_token.rsplit('.').next().unwrap();
    let mut forged = Forged::new();
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let header = with(header, "alg", Some(json!(none)));
        forged.push((format!("{none:?} without signature"), token(&header, &text, |_| String::new())));
        forged.push((
            format!("{none:?} with the old signature"),
            token(&header, &text, |_| signature.to_owned()),
        ));
        forged.push((format!("{none:?} signed by us"), stage.ours(&header, &text)));
        forged.push((
            format!("{none:?} and no kid"),
            token(&json!({"alg": none, "typ": "JWT"}).to_string(), &text, |_| String::new()),
        ));
    }
    let pem = keys::public_pem(&stage.ours.key).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let jwk = story.client.get("/api/v1/auth/jwks").send().await.json["keys"][0].clone();
    let number = jwk.get("n").or(jwk.get("x")).unwrap().as_str().unwrap();
    for (what, secret) in [
        ("PEM", pem.clone().into_bytes()),
        ("PEM without its last line break", pem.trim_end().as_bytes().to_vec()),
        ("PEM with one", format!("{}\n", pem.trim_end()).into_bytes()),
        ("PEM with carriage returns", pem.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes()),
        ("PEM with line feeds", pem.replace("\r\n", "\n").into_bytes()),
        ("DER", STANDARD.decode(&der).unwrap()),
        ("DER as text", der.clone().into_bytes()),
        ("number", URL_SAFE_NO_PAD.decode(number).unwrap()),
        ("number as text", number.as_bytes().to_vec()),
        ("JWK", jwk.to_string().into_bytes()),
        ("kid", jwk["kid"].as_str().unwrap().as_bytes().to_vec()),
        ("nothing", Vec::new()),
    ] {
        for (name, algorithm) in
            [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)]
        {
            let header = with(header, "alg", Some(json!(name)));
            forged.push((
                format!("{name} keyed with the public {what}"),
                token(&header, &text, hmac(&secret, algorithm)),
            ));
        }
        forged.push((
            format!("{named} in name, HMAC keyed with {what}"),
            token(&header.to_string(), &text, hmac(&secret, Algorithm::HS256)),
        ));
    }
    let siblings = [
        ("RS384", Algorithm::RS384),
        ("RS512", Algorithm::RS512),
        ("PS256", Algorithm::PS256),
        ("PS512", Algorithm::PS512),
    ];
    let is_sibling = |(_, other): &(&str, Algorithm)| other.family() == stage.ours.algorithm.family();
    for (name, algorithm) in siblings.into_iter().filter(is_sibling) {
        let other = with(header, "alg", Some(json!(name)));
        forged.push((format!("{name} by our key"), stage.ours.signed_as(algorithm, &other, &text)));
        forged.push((
            format!("{name} named {named}"),
            stage.ours.signed_as(algorithm, &header.to_string(), &text),
        ));
    }
    for other in &*KEYS {
        if other.algorithm != stage.ours.algorithm {
            let renamed = with(header, "alg", Some(json!(other.algorithm)));
            forged.push((format!("{:?} in name only", other.algorithm), stage.ours(&renamed, &text)));
            forged
                .push((format!("{:?} by a key of its kind", other.algorithm), other.signed(&renamed, &text)));
            forged.push((
                format!("{:?} named {named}", other.algorithm),
                other.signed(&header.to_string(), &text),
            ));
        }
    }
    for other in [
        Some(json!(named.to_lowercase())),
        Some(json!(format!("{named} "))),
        Some(json!("ES384")),
        Some(json!("ES256K")),
        Some(json!("Ed25519")),
        Some(json!([named])),
        Some(json!(1)),
        Some(Value::Null),
        None,
    ] {
        forged.push((format!("alg {other:?}"), stage.ours(&with(header, "alg", other), &text)));
    }
    all_are_refused(story, &forged).await;
}

#[tokio::test]
async fn no_key_that_a_token_brings_or_names_is_used() {
    for stage in stages().await {
        a_key_of_its_own(&stage).await;
    }
}

async fn a_key_of_its_own(stage: &Stage) {
    let Stage { story, header, claims, .. } = stage;
    let text = claims.to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let jwk = serde_json::to_value(SigningKey::from_pem(&stage.foreign.key).unwrap().jwk()).unwrap();
    let certificate = STANDARD.encode(b"not a certificate");
    let foreign = |header: &str| stage.foreign.signed(header, &text);
    let mut forged: Forged = vec![
        ("foreign key with our kid".to_owned(), foreign(&header.to_string())),
        ("foreign key with its own kid".to_owned(), foreign(&with(header, "kid", Some(jwk["kid"].clone())))),
        ("foreign key without kid".to_owned(), foreign(&with(header, "kid", None))),
    ];
    for (member, value) in [
        ("jwk", jwk.clone()),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!([certificate])),
        ("x5c", json!([])),
        ("crit", json!(["exp"])),
        ("crit", json!(["b64"])),
        ("crit", json!(["unheard-of"])),
        ("crit", json!([])),
        ("b64", json!(true)),
        ("b64", json!(false)),
        ("x5t", json!("AA")),
        ("x5t#S256", json!("AA")),
        ("cty", json!("JWT")),
        ("enc", json!("A256GCM")),
        ("zip", json!("DEF")),
        ("anything", json!(1)),
    ] {
        let extended = with(header, member, Some(value));
        forged.push((format!("{member} and a foreign signature"), foreign(&extended)));
        forged.push((format!("{member} and our signature"), stage.ours(&extended, &text)));
    }
    for kid in [
        None,
        Some(Value::Null),
        Some(json!("")),
        Some(json!(1)),
        Some(json!([header["kid"]])),
        Some(json!("../../../../dev/null")),
        Some(json!("' OR '1'='1")),
        Some(json!("| sleep 10")),
        Some(json!("\u{0}")),
        Some(json!(format!("{} ", header["kid"].as_str().unwrap()))),
        Some(json!("x".repeat(4096))),
        Some(json!(url)),
    ] {
        forged.push((format!("kid {kid:?}"), stage.ours(&with(header, "kid", kid), &text)));
    }
    all_are_refused(story, &forged).await;
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "nobody was asked for keys"
    );
}

#[tokio::test]
async fn a_token_for_something_else_is_refused_even_with_our_signature() {
    let (story, _, header, claims) = signed_in().await;
    let mut forged = Forged::new();
    for typ in [
        None,
        Some(Value::Null),
        Some(json!("at+jwt")),
        Some(json!("refresh")),
        Some(json!("verify+jwt")),
        Some(json!("")),
        Some(json!(1)),
    ] {
        forged.push((format!("typ {typ:?}"), ours(&with(&header, "typ", typ), &claims.to_string())));
    }
    for name in ["iss", "aud"] {
        for value in [
            json!("other"),
            json!("manacore "),
            json!("MANACORE"),
            json!(""),
            json!(["other"]),
            json!([]),
            json!(1),
            Value::Null,
        ] {
            forged.push((
                format!("{name} {value}"),
                ours(&header.to_string(), &with(&claims, name, Some(value))),
            ));
        }
    }
    for name in ["exp", "iat"] {
        for value in [
            json!("9999999999"),
            json!(1e300),
            json!(99_999_999_999.5),
            json!([9_999_999_999_u64]),
            json!(true),
            Value::Null,
            json!({}),
        ] {
            forged.push((
                format!("{name} {value}"),
                ours(&header.to_string(), &with(&claims, name, Some(value))),
            ));
        }
    }
    for (name, value) in [
        ("nbf", json!(claims["exp"])),
        ("nbf", json!(claims["iat"].as_i64().unwrap() + 1)),
        ("nbf", json!("0")),
        ("nbf", Value::Null),
        ("iat", json!(claims["iat"].as_i64().unwrap() + 61)),
        ("iat", json!(i64::MAX)),
    ] {
        forged
            .push((format!("{name} {value}"), ours(&header.to_string(), &with(&claims, name, Some(value)))));
    }
    for (name, value) in [("nbf", json!(claims["iat"])), ("iat", json!(claims["iat"].as_i64().unwrap() + 60))]
    {
        let good = ours(&header.to_string(), &with(&claims, name, Some(value)));
        assert_eq!(validate(&story, &good).await.json["valid"], json!(true), "{name}");
    }
    for past in [json!(0), json!(-1), json!(i64::MIN), json!(claims["iat"])] {
        forged.push((format!("exp {past}"), ours(&header.to_string(), &with(&claims, "exp", Some(past)))));
    }
    for (name, value) in [
        ("role", json!("root")),
        ("role", json!(["admin"])),
        ("sub", json!("' OR '1'='1")),
        ("sub", json!("")),
        ("sub", json!(1)),
        ("sid", json!("\u{0}")),
        ("sid", json!("x".repeat(65))),
        ("sid", Value::Null),
    ] {
        forged
            .push((format!("{name} {value}"), ours(&header.to_string(), &with(&claims, name, Some(value)))));
    }
    for name in members(&claims) {
        forged.push((format!("no {name}"), ours(&header.to_string(), &with(&claims, name, None))));
    }
    for (what, payload) in [
        ("array", "[]"),
        ("array of the members", &array_of(&claims)),
        ("text", "\"x\""),
        ("nothing", ""),
        ("no JSON", "{"),
        ("null", "null"),
        ("tail", "{}{}"),
    ] {
        forged.push((format!("claims: {what}"), ours(&header.to_string(), payload)));
        forged.push((format!("header: {what}"), ours(payload, &claims.to_string())));
    }
    forged.push(("header: array of the members".to_owned(), ours(&array_of(&header), &claims.to_string())));
    all_are_refused(&story, &forged).await;
}

#[tokio::test]
async fn a_member_given_twice_is_refused() {
    let (story, _, header, claims) = signed_in().await;
    let mut forged = Forged::new();
    for name in members(&claims) {
        for value in [&claims[name], &json!("other"), &json!(9_999_999_999_u64)] {
            forged.push((
                format!("claim {name}: first {value}"),
                ours(&header.to_string(), &twice(&claims, name, value)),
            ));
        }
    }
    for name in members(&header) {
        for value in [&header[name], &json!("none")] {
            forged.push((
                format!("header {name}: first {value}"),
                ours(&twice(&header, name, value), &claims.to_string()),
            ));
        }
    }
    all_are_refused(&story, &forged).await;
}

#[tokio::test]
async fn a_token_of_a_megabyte_is_refused() {
    let (story, ada, header, claims) = signed_in().await;
    let padded = ours(&header.to_string(), &with(&claims, "padding", Some(json!("x".repeat(1 << 20)))));
    for huge in [
        padded,
        "A".repeat(1 << 20),
        ".".repeat(1 << 20),
        format!("{}.{}", ada.access_token, "A".repeat(1 << 20)),
    ] {
        let verdict = validate(&story, &huge).await;
        assert!([400, 413].contains(&verdict.status.as_u16()), "{}", verdict.status);
        verdict.problem();
        let refused = story.client.get("/api/v1/auth/me").bearer(&huge).send().await;
        assert!([401, 431].contains(&refused.status.as_u16()), "{}", refused.status);
        refused.problem();
    }
    let below_the_body_s_limit =
        ours(&header.to_string(), &with(&claims, "padding", Some(json!("x".repeat(30_000)))));
    all_are_refused(&story, &vec![("30 KB".to_owned(), below_the_body_s_limit)]).await;
}

#[tokio::test]
async fn a_backend_s_check_needs_no_credential_and_changes_nothing() {
    let (story, ada, ..) = signed_in().await;
    let rows = "SELECT (SELECT count(*) FROM auth.sessions) + (SELECT count(*) FROM auth.security_events)";
    let before = story.number(rows).await;
    for _ in 0..150 {
        assert_eq!(
            validate(&story, &ada.access_token).await.json["valid"],
            json!(true),
            "backends call it on every request"
        );
    }
    assert_eq!(story.number(rows).await, before);
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 200);
}
