//! Signing keys: published before they sign, served for as long as what they signed lives, sealed under a root secret that
//! may change. Nobody is signed out by any of it.

use crate::story::{Story, members, read_jwt, signing_key};
use futures_util::future::join_all;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use mana_auth::token::keys::{self, KeyError, KeyKind, RekeyOutcome};
use mana_auth::token::root_secret::RootSecrets;
use mana_platform::config::{JwtAlgorithm, RsaBits};
use mana_platform::{Settings, SystemRng};
use mana_testkit::{Client, Reply};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use time::Duration;

const ADA: &str = "ada@example.com";
const ROTATIONS: &str =
    "SELECT count(*) FROM auth.security_events WHERE type = 'key_rotated' AND user_id IS NULL";

/// Keys of the database, of a kind that is made in no time.
fn stored(settings: &mut Settings) {
    settings.jwt_private_key = None;
    settings.jwt_algorithm = JwtAlgorithm::EdDsa;
}

async fn jwks(client: &Client) -> Reply {
    client.get("/.well-known/jwks.json").send().await
}

/// The ids of the published keys, in their order: current, next, previous.
async fn published(client: &Client) -> Vec<String> {
    let keys = jwks(client).await.json["keys"].as_array().unwrap().clone();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn kid(token: &str) -> String {
    read_jwt(token)[0]["kid"].as_str().unwrap().to_owned()
}

async fn is_good(client: &Client, token: &str) -> bool {
    let verdict = client.post("/api/v1/auth/validate", &json!({"token": token})).send().await;
    let me = client.get("/api/v1/auth/me").bearer(token).send().await;
    assert_eq!(verdict.json["valid"] == json!(true), me.status == 200, "{} {}", verdict.json, me.json);
    me.status == 200
}

/// An access token of a new sign-in.
async fn token_of(client: &Client) -> String {
    let body = json!({"email": ADA, "password": crate::story::PASSWORD});
    let reply = client.post("/api/v1/auth/login", &body).send().await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    reply.text("/accessToken").to_owned()
}

/// A service that makes its own keys, and somebody registered there.
async fn story() -> Story {
    let story = Story::with(stored).await;
    assert_eq!(story.register(ADA).await.status, 201);
    story
}

#[tokio::test]
async fn a_key_is_published_before_it_signs_and_after_it_signed() {
    let story = story().await;
    let first = published(&story.client).await;
    let [current, next] = &first[..] else { panic!("one current and one next key: {first:?}") };
    story.clock.advance(Duration::days(90) - Duration::seconds(1));
    story.workers.keep_keys().await;
    let old = token_of(&story.client).await;
    assert_eq!(&kid(&old), current, "not before its day");

    story.clock.advance(Duration::seconds(1));
    story.workers.keep_keys().await;
    let new = token_of(&story.client).await;
    assert_eq!(&kid(&new), next, "what was next signs now");
    let second = published(&story.client).await;
    assert_eq!((second.len(), &second[0], &second[2]), (3, next, current), "{second:?}");
    assert!(is_good(&story.client, &old).await && is_good(&story.client, &new).await);
    assert_eq!(story.number(ROTATIONS).await, 1);
    let sealed = "SELECT count(*) FROM auth.jwks WHERE private_key_sealed IS NOT NULL";
    assert_eq!(story.number(sealed).await, 2, "the private half of the previous key is erased");

    story.clock.advance(Duration::seconds(898));
    story.workers.keep_keys().await;
    assert!(is_good(&story.client, &old).await, "a token lives out its fifteen minutes");
    assert_eq!(published(&story.client).await, second);
    story.clock.advance(Duration::minutes(6));
    story.workers.keep_keys().await;
    assert_eq!(published(&story.client).await, second[..2], "what has nothing left to verify is gone");
    assert_eq!(story.number("SELECT count(*) FROM auth.jwks").await, 3, "this server's clock may be ahead");
    story.execute("UPDATE auth.jwks SET served_until = now() WHERE served_until IS NOT NULL").await;
    story.workers.keep_keys().await;
    assert_eq!(story.number("SELECT count(*) FROM auth.jwks").await, 2, "the database's clock says so too");
    assert_eq!(story.number(ROTATIONS).await, 1);
}

#[tokio::test]
async fn a_server_takes_up_what_another_one_did_without_a_restart() {
    let story = story().await;
    let other = story.replica_with(|_| {}).await;
    story.clock.advance(Duration::days(90));
    story.workers.keep_keys().await;
    let (new, old) = (token_of(&story.client).await, token_of(&other.client).await);
    assert_ne!(kid(&new), kid(&old), "the other one has not heard of it yet");
    for client in [&story.client, &other.client] {
        assert!(is_good(client, &new).await && is_good(client, &old).await);
    }
    other.workers.keep_keys().await;
    assert_eq!(kid(&token_of(&other.client).await), kid(&new));
    assert_eq!(published(&other.client).await, published(&story.client).await);
    assert!(is_good(&other.client, &old).await);
    assert_eq!(story.number(ROTATIONS).await, 1);
}

#[tokio::test]
async fn servers_that_rotate_at_once_make_one_rotation() {
    let story = story().await;
    let replicas = [story.replica_with(|_| {}).await, story.replica_with(|_| {}).await];
    let all = || [&story.workers, &replicas[0].workers, &replicas[1].workers];
    for rotation in 1..=5 {
        story.clock.advance(Duration::days(90));
        join_all(all().map(mana_core_auth::workers::Workers::keep_keys)).await;
        assert_eq!(story.number(ROTATIONS).await, rotation);
        join_all(all().map(mana_core_auth::workers::Workers::keep_keys)).await;
        let keys = published(&story.client).await;
        assert_eq!(published(&replicas[0].client).await, keys);
        assert_eq!(published(&replicas[1].client).await, keys);
    }
}

#[tokio::test]
async fn servers_that_start_at_once_make_one_pair_of_keys() {
    let story = Story::new().await;
    story.execute("TRUNCATE auth.jwks").await;
    let replicas = join_all([(); 3].map(|()| story.replica_with(stored))).await;
    let keys = published(&replicas[0].client).await;
    assert_eq!(keys.len(), 2);
    for replica in &replicas {
        assert_eq!(published(&replica.client).await, keys);
    }
}

#[tokio::test]
async fn a_rotation_by_hand_waits_for_who_verifies_unless_it_is_forced() {
    let story = story().await;
    let chest = story.key_chest(story.root_secret());
    let old = token_of(&story.client).await;
    story.clock.advance(Duration::seconds(599));
    let refused = chest.rotate(false).await.unwrap_err();
    assert!(matches!(refused, KeyError::TooSoon(_)), "{refused}");
    assert!(refused.to_string().contains("--force"), "{refused}");
    assert_eq!(story.number(ROTATIONS).await, 0);
    story.clock.advance(Duration::seconds(1));
    let rotation = chest.rotate(false).await.unwrap();
    assert_eq!(rotation.old, kid(&old));
    story.workers.keep_keys().await;
    let new = token_of(&story.client).await;
    assert_eq!(kid(&new), rotation.new);
    assert!(matches!(chest.rotate(false).await, Err(KeyError::TooSoon(_))));
    let forced = chest.rotate(true).await.unwrap();
    assert_eq!(forced.old, rotation.new);
    assert!(is_good(&story.client, &new).await);
    assert_eq!(story.number(ROTATIONS).await, 2);
    story.clock.advance(Duration::days(1000));
    let by_hand = story.replica_with(|settings| settings.jwt_key_rotation = std::time::Duration::ZERO).await;
    by_hand.workers.keep_keys().await;
    assert_eq!(story.number(ROTATIONS).await, 2, "0 leaves it to the operator");
}

#[tokio::test]
async fn an_unknown_key_is_looked_for_but_not_for_every_token() {
    let story = story().await;
    let (chest, other) = (story.key_chest(story.root_secret()), story.replica_with(|_| {}).await);
    // The second of two makes a key the current one that the other server has never seen.
    let unseen = async || {
        chest.rotate(true).await.unwrap();
        chest.rotate(true).await.unwrap();
        story.workers.keep_keys().await;
        token_of(&story.client).await
    };
    let one = unseen().await;
    assert!(is_good(&other.client, &one).await, "asked for, and found");
    let two = unseen().await;
    assert!(!is_good(&other.client, &two).await, "asked a moment ago");
    assert!(is_good(&other.client, &one).await);
    story.clock.advance(Duration::seconds(5));
    assert!(is_good(&other.client, &two).await, "asked again");
    let three = unseen().await;
    other.workers.keep_keys().await;
    assert!(is_good(&other.client, &three).await, "the pass needs no asking");

    story
        .execute(
            "DO $$ BEGIN
                 CREATE SEQUENCE auth.reads;
                 GRANT USAGE ON auth.reads TO mana_service;
                 ALTER TABLE auth.jwks RENAME TO kept;
                 CREATE VIEW auth.jwks AS SELECT * FROM auth.kept WHERE (SELECT nextval('auth.reads')) > 0;
                 GRANT SELECT ON auth.jwks TO mana_service;
             END $$",
        )
        .await;
    story.clock.advance(Duration::seconds(5));
    let unknown = (0..20).map(|number| with_kid(&three, &format!("{number:0>43}")));
    let replies =
        join_all(unknown.map(|token| other.client.get("/api/v1/auth/me").bearer(&token).send())).await;
    assert!(replies.iter().all(|reply| reply.status == 401));
    assert_eq!(story.number("SELECT last_value FROM auth.reads WHERE is_called").await, 1);
}

#[tokio::test]
async fn a_token_with_an_unknown_key_does_not_wait_for_a_database_that_hangs() {
    let story = story().await;
    let unknown = with_kid(&token_of(&story.client).await, &"x".repeat(43));
    let mut owner = story.database.owner().await;
    let mut hanging = sqlx::Connection::begin(&mut owner).await.unwrap();
    sqlx::query("LOCK TABLE auth.jwks").execute(&mut *hanging).await.unwrap();
    let requests = (0..3).map(|_| story.client.get("/api/v1/auth/me").bearer(&unknown).send());
    let replies = tokio::time::timeout(std::time::Duration::from_secs(20), join_all(requests)).await;
    // Nobody is signed out for it: another server may have made that key.
    assert!(replies.expect("within the limit").iter().all(|reply| reply.status == 503));
    let verdict = story.client.post("/api/v1/auth/validate", &json!({"token": unknown})).send().await;
    assert_eq!(
        (verdict.status.as_u16(), verdict.problem()),
        (503, "service.unavailable"),
        "asked a moment ago"
    );
    hanging.rollback().await.unwrap();
    story.clock.advance(Duration::seconds(5));
    assert!(!is_good(&story.client, &unknown).await);
}

/// The token with another key's id.
fn with_kid(token: &str, kid: &str) -> String {
    let header = json!({"typ": "JWT", "alg": "EdDSA", "kid": kid}).to_string();
    let header = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header);
    format!("{header}.{}", token.split_once('.').unwrap().1)
}

#[tokio::test]
async fn a_token_of_a_server_with_longer_tokens_outlives_a_rotation_by_somebody_who_does_not_know() {
    let story = Story::with(|settings| {
        stored(settings);
        settings.jwt_access_token_expiry = std::time::Duration::from_hours(2);
    })
    .await;
    story.register(ADA).await;
    let short = story
        .replica_with(|settings| settings.jwt_access_token_expiry = std::time::Duration::from_mins(1))
        .await;
    story.clock.advance(Duration::days(90));
    let old = token_of(&story.client).await;
    short.workers.keep_keys().await;
    assert_eq!(story.number(ROTATIONS).await, 1);
    for workers in [&short.workers, &story.workers] {
        story.clock.advance(Duration::minutes(59));
        workers.keep_keys().await;
        assert!(is_good(&story.client, &old).await && is_good(&short.client, &old).await);
    }
}

#[tokio::test]
async fn another_algorithm_is_published_first_and_signs_after_ten_minutes() {
    let story = story().await;
    let old = token_of(&story.client).await;
    let other = story.replica_with(|settings| settings.jwt_algorithm = JwtAlgorithm::Es256).await;
    let algorithms = async |client: &Client| -> Vec<Value> {
        jwks(client).await.json["keys"].as_array().unwrap().iter().map(|key| key["alg"].clone()).collect()
    };
    assert_eq!(algorithms(&other.client).await, ["EdDSA", "ES256"]);
    story.workers.keep_keys().await;
    other.workers.keep_keys().await;
    assert_eq!(kid(&token_of(&other.client).await), kid(&old));
    story.clock.advance(Duration::minutes(10));
    story.workers.keep_keys().await;
    assert_eq!(story.number(ROTATIONS).await, 0, "who does not want it does not hurry");
    other.workers.keep_keys().await;
    let new = token_of(&other.client).await;
    assert_eq!(read_jwt(&new)[0]["alg"], "ES256");
    assert_eq!(algorithms(&other.client).await, ["ES256", "ES256", "EdDSA"]);
    for client in [&story.client, &other.client] {
        assert!(is_good(client, &old).await && is_good(client, &new).await);
    }
}

#[tokio::test]
async fn every_kind_of_key_is_published_for_other_libraries() {
    for (algorithm, is_of, names) in [
        (JwtAlgorithm::Rs256, Algorithm::RS256, &["alg", "e", "kid", "kty", "n", "use"][..]),
        (JwtAlgorithm::Es256, Algorithm::ES256, &["alg", "crv", "kid", "kty", "use", "x", "y"]),
        (JwtAlgorithm::EdDsa, Algorithm::EdDSA, &["alg", "crv", "kid", "kty", "use", "x"]),
    ] {
        let story = Story::with(|settings| {
            stored(settings);
            settings.jwt_algorithm = algorithm;
            settings.jwt_rsa_bits = RsaBits::Rsa3072;
        })
        .await;
        story.register(ADA).await;
        let reply = jwks(&story.client).await;
        assert_eq!(reply.headers["cache-control"], "public, max-age=300");
        for key in reply.json["keys"].as_array().unwrap() {
            assert_eq!(members(key), names, "public members only");
            assert_eq!(key["use"], "sig");
            if let Some(modulus) = key["n"].as_str() {
                assert_eq!(modulus.len(), 3072 / 6, "the length that the settings want");
            }
        }
        let token = token_of(&story.client).await;
        let keys: JwkSet = serde_json::from_slice(&reply.bytes).unwrap();
        let mut validation = Validation::new(is_of);
        validation.set_issuer(&["manacore"]);
        validation.set_audience(&["manacore"]);
        let key = DecodingKey::from_jwk(keys.find(&kid(&token)).unwrap()).unwrap();
        let verified = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap();
        assert_eq!(verified.claims["email"], ADA);
        assert!(is_good(&story.client, &token).await);
    }
}

#[tokio::test]
async fn a_key_of_the_environment_and_keys_of_the_database_follow_each_other() {
    let story = story().await;
    let kept = token_of(&story.client).await;
    let given = |pem: SecretString| move |settings: &mut Settings| settings.jwt_private_key = Some(pem);
    let one = story.replica_with(given(signing_key().clone())).await;
    let by_one = token_of(&one.client).await;
    let two = story.replica_with(given(keys::generate_pem(KeyKind::Es256).unwrap())).await;
    let by_two = token_of(&two.client).await;
    assert_eq!(story.number(ROTATIONS).await, 2);
    for client in [&one.client, &two.client] {
        for token in [&kept, &by_one, &by_two] {
            assert!(is_good(client, token).await, "{}", read_jwt(token)[0]);
        }
        assert_eq!(published(client).await.len(), 4);
    }
    let mut chest = story.key_chest(story.root_secret());
    assert!(matches!(chest.rotate(true).await, Err(KeyError::Environment)), "not even who does not have it");
    chest.given = Some(std::sync::Arc::new(keys::given(signing_key(), None).unwrap()));
    let refused = chest.rotate(true).await.unwrap_err();
    assert!(refused.to_string().contains("JWT_PRIVATE_KEY"), "{refused}");

    // A server that still has the first one goes on signing with it, and its tokens are good for as long as it does.
    for _ in 0..10 {
        story.clock.advance(Duration::minutes(15));
        one.workers.keep_keys().await;
        two.workers.keep_keys().await;
        assert!(is_good(&two.client, &token_of(&one.client).await).await);
    }
    let without = story.replica_with(|_| {}).await;
    let again = token_of(&without.client).await;
    assert_eq!(read_jwt(&again)[0]["alg"], "EdDSA");
    let last = token_of(&two.client).await;
    assert!(is_good(&without.client, &last).await && is_good(&two.client, &again).await);
    let back = story.replica_with(given(signing_key().clone())).await;
    assert_eq!(kid(&token_of(&back.client).await), kid(&by_one));
    assert!(is_good(&back.client, &again).await);
}

#[tokio::test]
async fn a_root_secret_is_replaced_without_anybody_noticing() {
    let story = story().await;
    let before = token_of(&story.client).await;
    let old = story.root_secret().expose_secret().to_owned();
    let new = RootSecrets::generate("new", &SystemRng);
    let both = SecretString::from(format!("{},{old}", new.expose_secret()));

    let refused = story.start(|_| {}, &new).await.err().unwrap().to_string();
    for named in [&kid(&before), "version test", "MANA_SECRET_KEY", "keys rotate --force"] {
        assert!(refused.contains(named), "no {named} in: {refused}");
    }
    let rekeyed = story.key_chest(&both).rekey().await.unwrap();
    let resealed = RekeyOutcome::Resealed { from: "test".to_owned(), to: "new".to_owned() };
    assert_eq!(rekeyed.len(), 2, "{rekeyed:?}");
    assert!(rekeyed.iter().all(|key| key.outcome == resealed), "{rekeyed:?}");
    let again = story.key_chest(&new).rekey().await.unwrap();
    assert!(again.iter().all(|key| matches!(key.outcome, RekeyOutcome::Kept { .. })), "{again:?}");
    let closed = story.key_chest(story.root_secret()).rekey().await.unwrap();
    assert!(closed.iter().all(|key| matches!(key.outcome, RekeyOutcome::Closed(_))), "{closed:?}");

    let server = story.start(|_| {}, &new).await.unwrap();
    assert!(is_good(&server.client, &before).await);
    // The one that was started with the old secret alone has its keys in memory.
    story.workers.keep_keys().await;
    let still = token_of(&story.client).await;
    assert_eq!(kid(&still), kid(&before));
    assert!(is_good(&server.client, &still).await);
}

#[tokio::test]
async fn a_wrong_root_secret_changes_nothing_and_a_lost_one_is_no_end() {
    let story = story().await;
    let before = token_of(&story.client).await;
    let content = "SELECT hashtextextended(string_agg(j::text, ',' ORDER BY kid), 0) FROM auth.jwks j";
    let untouched = story.number(content).await;
    let wrong = RootSecrets::generate("test", &SystemRng);
    let chest = story.key_chest(&wrong);
    for _ in 0..2 {
        let refused = story.start(|_| {}, &wrong).await.err().unwrap().to_string();
        assert!(refused.contains("version test") && refused.contains(&kid(&before)), "{refused}");
        assert!(matches!(chest.rotate(false).await, Err(KeyError::Sealed { .. })));
        chest.rekey().await.unwrap();
    }
    let examined = chest.examine().await.unwrap();
    assert_eq!(examined.len(), 2);
    for key in &examined {
        let problem = key.soundness.as_ref().unwrap_err().to_string();
        assert!(problem.contains(&key.kid) && problem.contains("version test"), "{problem}");
    }
    assert_eq!(story.number(content).await, untouched);
    story.replica_with(|_| {}).await;

    let rotation = chest.rotate(true).await.unwrap();
    assert_eq!(rotation.old, kid(&before));
    let server = story.start(|_| {}, &wrong).await.unwrap();
    let new = token_of(&server.client).await;
    assert_eq!(kid(&new), rotation.new);
    assert!(is_good(&server.client, &before).await);
    assert!(chest.examine().await.unwrap().iter().all(|key| key.soundness.is_ok()));

    // A server that can't open the new key still verifies, and says that it can't sign.
    story.workers.keep_keys().await;
    assert!(is_good(&story.client, &before).await && is_good(&story.client, &new).await);
    let refused = story.login(ADA).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (503, "service.unavailable"));
}

#[tokio::test]
async fn keys_in_memory_go_on_while_the_database_can_t_be_read() {
    let story = story().await;
    let before = token_of(&story.client).await;
    let keys = published(&story.client).await;
    story.execute("ALTER TABLE auth.jwks RENAME TO hidden").await;
    story.clock.advance(Duration::minutes(1));
    story.workers.keep_keys().await;
    assert!(is_good(&story.client, &before).await);
    assert_eq!(kid(&token_of(&story.client).await), kid(&before));
    let unknown = with_kid(&before, &"x".repeat(43));
    let me = story.client.get("/api/v1/auth/me").bearer(&unknown).send().await;
    assert_eq!((me.status.as_u16(), me.problem()), (503, "service.unavailable"), "nobody knows");
    story.execute("ALTER TABLE auth.hidden RENAME TO jwks").await;
    story.workers.keep_keys().await;
    assert_eq!(published(&story.client).await, keys);
}
