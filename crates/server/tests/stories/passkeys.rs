//! Passkeys: added, signed in with, and worth nothing to anybody but their owner.

use crate::story::{PASSWORD, Replica, Story, User, about, hex, let_go, members};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use mana_platform::config::TwoFactorRequired;
use mana_testkit::{Algorithm, Authenticator, Ceremony, Client, Created, Reply, Signed};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use time::Duration;
use totp_rs::{Builder, Secret};

const BASE: &str = "/api/v1/auth/passkeys";
/// Where the service itself is.
const PAGE: &str = "http://localhost:3001";

/// Somebody with a passkey.
struct Holder {
    user: User,
    authenticator: Authenticator,
    /// Of the passkey.
    id: String,
}

async fn as_user(story: &Story, user: &User, method: Method, path: &str, body: &Value) -> Reply {
    let request = story.client.request(method, path).bearer(&user.access_token);
    request.body("application/json", body.to_string()).send().await
}

async fn registration_options(story: &Story, user: &User) -> Value {
    let path = format!("{BASE}/registration-options");
    let options = as_user(story, user, Method::POST, &path, &json!({})).await;
    assert_eq!(options.status, 200, "{}", options.json);
    options.json
}

async fn add(story: &Story, user: &User, created: &Created) -> Reply {
    as_user(story, user, Method::POST, BASE, &json!({"credential": created.json()})).await
}

async fn add_new(story: &Story, user: &User, algorithm: Algorithm) -> (Authenticator, String) {
    let authenticator = Authenticator::new(algorithm);
    let options = registration_options(story, user).await;
    let added = add(story, user, &authenticator.create(&Ceremony::create(&options, PAGE))).await;
    assert_eq!(added.status, 201, "{}", added.json);
    (authenticator, added.text("/id").to_owned())
}

async fn holder_of(story: &Story, user: User, algorithm: Algorithm) -> Holder {
    let (authenticator, id) = add_new(story, &user, algorithm).await;
    Holder { user, authenticator, id }
}

async fn holder(story: &Story) -> Holder {
    holder_of(story, story.user("ada@example.com").await, Algorithm::Es256).await
}

async fn sign_in_options(client: &Client) -> Value {
    let options = client.post(&format!("{BASE}/sign-in-options"), &json!({})).send().await;
    assert_eq!(options.status, 200, "{}", options.json);
    options.json
}

async fn send(client: &Client, signed: &Signed) -> Reply {
    client.post(&format!("{BASE}/sign-in"), &json!({"credential": signed.json()})).send().await
}

/// What is signed for new options.
async fn ceremony(story: &Story, holder: &Holder) -> Ceremony {
    Ceremony::get(&sign_in_options(&story.client).await, PAGE, &holder.user.id)
}

/// A whole sign-in, in which one thing may be changed.
async fn sign_in(story: &Story, holder: &Holder, change: impl FnOnce(&mut Ceremony)) -> Reply {
    let mut ceremony = ceremony(story, holder).await;
    change(&mut ceremony);
    send(&story.client, &holder.authenticator.get(&ceremony)).await
}

fn refusal(reply: &Reply) -> (u16, &str) {
    (reply.status.as_u16(), reply.problem())
}

async fn events(story: &Story, kind: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM auth.security_events WHERE type = $1")
        .bind(kind)
        .fetch_one(&mut story.database.owner().await)
        .await
        .unwrap()
}

/// Leaves a row of the user in every table of passkeys.
pub(crate) async fn leave_rows(story: &Story, user: &User) {
    add_new(story, user, Algorithm::Es256).await;
    registration_options(story, user).await;
}

#[tokio::test]
async fn a_passkey_signs_in_without_a_name_and_without_a_password() {
    let story = Story::new().await;
    let user = story.user("ada@example.com").await;
    let options = registration_options(&story, &user).await;
    let expected = json!({
        "rp": {"id": "localhost", "name": "manacore"},
        "user": {
            "id": URL_SAFE_NO_PAD.encode(&user.id), "name": "ada@example.com", "displayName": "ada@example.com",
        },
        "challenge": options["challenge"],
        "pubKeyCredParams": [
            {"type": "public-key", "alg": -7}, {"type": "public-key", "alg": -8}, {"type": "public-key", "alg": -257},
        ],
        "timeout": 300_000,
        "excludeCredentials": [],
        "authenticatorSelection": {
            "residentKey": "required", "requireResidentKey": true, "userVerification": "required",
        },
        "attestation": "none",
    });
    assert_eq!(options, expected);
    let authenticator = Authenticator::new(Algorithm::Es256);
    let created = authenticator.create(&Ceremony::create(&options, PAGE));
    let body = json!({"credential": created.json(), "name": "My phone"});
    let added = as_user(&story, &user, Method::POST, BASE, &body).await;
    assert_eq!(added.status, 201, "{}", added.json);
    assert_eq!(members(&added.json), ["backedUp", "createdAt", "id", "lastUsedAt", "name", "transports"]);
    assert_eq!(
        (added.text("/name"), &added.json["transports"]),
        ("My phone", &json!(["hybrid", "internal"]))
    );
    assert_eq!((&added.json["lastUsedAt"], &added.json["backedUp"]), (&Value::Null, &json!(false)));
    let again = registration_options(&story, &user).await;
    let known = json!([{"type": "public-key", "id": URL_SAFE_NO_PAD.encode(&authenticator.credential_id), "transports": ["hybrid", "internal"]}]);
    assert_eq!(again["excludeCredentials"], known);

    let holder = Holder { user, authenticator, id: added.text("/id").to_owned() };
    let options = sign_in_options(&story.client).await;
    let expected = json!({
        "challenge": options["challenge"], "timeout": 300_000, "rpId": "localhost", "allowCredentials": [],
        "userVerification": "required",
    });
    assert_eq!(options, expected);
    let signed = holder.authenticator.get(&Ceremony::get(&options, PAGE, &holder.user.id));
    let body = json!({"credential": signed.json(), "deviceName": "Lab", "rememberMe": true});
    let reply = story.post(&format!("{BASE}/sign-in"), &body).await;
    let password = story.login("ada@example.com").await;
    assert_eq!(members(&reply.json), members(&password.json), "an answer as that of /login");
    let signed_in = User::of(&reply);
    assert_eq!(signed_in.id, holder.user.id);
    assert!(story.is_signed_in(&signed_in).await);
    assert_eq!(story.refresh(&signed_in.refresh_token).await.status, 200);
    let session = story.client.get("/api/auth/get-session").header("cookie", &signed_in.cookie).send().await;
    assert_eq!(
        (session.text("/session/deviceName"), &session.json["session"]["rememberMe"]),
        ("Lab", &json!(true))
    );

    let listed = story.get(BASE, &signed_in).await;
    assert!(listed.json[0]["lastUsedAt"].is_string(), "{}", listed.json);
    assert_eq!(events(&story, "passkey_added").await, 1);
}

#[tokio::test]
async fn keys_of_every_offered_algorithm_sign_in() {
    let story = Story::new().await;
    for (number, algorithm) in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Rs256].into_iter().enumerate()
    {
        let user = story.user(&format!("user{number}@example.com")).await;
        let holder = holder_of(&story, user, algorithm).await;
        assert_eq!(User::of(&sign_in(&story, &holder, |_| {}).await).id, holder.user.id, "{algorithm:?}");
        let wrong = sign_in(&story, &holder, |ceremony| ceremony.flags = 0x01).await;
        assert_eq!(refusal(&wrong), (401, "auth.passkey_refused"), "{algorithm:?}");
    }
}

#[tokio::test]
async fn what_a_browser_may_add_tomorrow_does_no_harm() {
    let story = Story::new().await;
    let user = story.user("ada@example.com").await;
    let authenticator = Authenticator::new(Algorithm::Es256);
    let options = registration_options(&story, &user).await;
    let mut created = authenticator.create(&Ceremony::create(&options, PAGE)).json();
    created["tomorrow"] = json!({});
    created["response"]["publicKeyAlgorithm"] = json!(-7);
    created["response"]["transports"] = json!(["telepathy", "usb", "usb"]);
    let added = as_user(&story, &user, Method::POST, BASE, &json!({"credential": created})).await;
    assert_eq!((added.status.as_u16(), &added.json["transports"]), (201, &json!(["usb"])), "{}", added.json);

    let options = sign_in_options(&story.client).await;
    let ceremony = Ceremony::get(&options, PAGE, &user.id);
    let ceremony = Ceremony { more: json!({"other_keys_can_be_added_here": "anything"}), ..ceremony };
    let mut signed = authenticator.get(&ceremony).json();
    signed["response"]["tomorrow"] = json!(1);
    let path = format!("{BASE}/sign-in");
    assert_eq!(story.post(&path, &json!({"credential": signed})).await.status, 200);
    let surprise = story.post(&path, &json!({"credential": signed, "role": "admin"})).await;
    assert_eq!(refusal(&surprise), (400, "request.invalid_body"), "what is ours is strict");
}

#[tokio::test]
async fn the_options_of_a_sign_in_tell_nobody_who_has_an_account() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    let path = format!("{BASE}/sign-in-options");
    for naming in [
        json!({"email": "ada@example.com"}),
        json!({"email": "nobody@example.com"}),
        json!({"userId": holder.user.id}),
    ] {
        assert_eq!(refusal(&story.post(&path, &naming).await), (400, "request.invalid_body"));
    }
    let mut seen = Vec::new();
    for user in [None, Some(&holder.user), Some(&story.user("bob@example.com").await)] {
        let request = story.client.request(Method::POST, &path);
        let request = match user {
            Some(user) => request.bearer(&user.access_token).header("cookie", &user.cookie),
            None => request,
        };
        let mut reply = request.send().await;
        assert_eq!(reply.status, 200, "{}", reply.json);
        let challenge = reply.json["challenge"].take();
        assert_eq!(URL_SAFE_NO_PAD.decode(challenge.as_str().unwrap()).unwrap().len(), 32);
        seen.push(reply.json);
    }
    assert!(seen.iter().all(|options| *options == seen[0]), "{seen:?}");

    // Nor does the answer to an assertion: of a credential that nobody has, and of ada's by somebody else.
    let stranger = Authenticator::new(Algorithm::Es256);
    let unknown = send(&story.client, &stranger.get(&ceremony(&story, &holder).await)).await;
    let forged = Signed {
        credential_id: holder.authenticator.credential_id.clone(),
        ..stranger.get(&ceremony(&story, &holder).await)
    };
    let forged = send(&story.client, &forged).await;
    assert_eq!(refusal(&unknown), (401, "auth.passkey_refused"));
    let said = |reply: &Reply| {
        let mut said = reply.json.clone();
        said["instance"].take();
        (said, reply.headers.keys().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(said(&unknown), said(&forged));
}

type Change = fn(&mut Ceremony);

/// One thing that is not as it should be, in what both ceremonies sign.
fn changes() -> Vec<(&'static str, Change)> {
    vec![
        ("auth.passkey_refused", |ceremony| ceremony.kind = "payment.get".to_owned()),
        ("auth.dead_passkey_challenge", |ceremony| ceremony.challenge = "A".repeat(43)),
        ("auth.dead_passkey_challenge", |ceremony| ceremony.challenge = String::new()),
        ("auth.passkey_origin_refused", |ceremony| ceremony.origin = "http://localhost:3002".to_owned()),
        ("auth.passkey_origin_refused", |ceremony| {
            ceremony.origin = "http://localhost.evil.example:3001".to_owned();
        }),
        ("auth.passkey_origin_refused", |ceremony| ceremony.origin = "https://localhost:3001".to_owned()),
        ("auth.passkey_origin_refused", |ceremony| ceremony.more = json!({"crossOrigin": true})),
        ("auth.passkey_origin_refused", |ceremony| {
            ceremony.more = json!({"topOrigin": "https://evil.example"});
        }),
        ("auth.passkey_refused", |ceremony| ceremony.rp_id = "evil.example".to_owned()),
        ("auth.passkey_refused", |ceremony| ceremony.flags = 0x04),
        ("auth.passkey_refused", |ceremony| ceremony.flags = 0x01),
        ("auth.passkey_refused", |ceremony| ceremony.flags = 0x15),
    ]
}

#[tokio::test]
async fn a_sign_in_that_differs_in_one_thing_is_refused() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    let sessions = "SELECT count(*) FROM auth.sessions";
    let before = story.number(sessions).await;
    for (code, change) in changes() {
        let refused = sign_in(&story, &holder, change).await;
        let status = if code == "auth.passkey_refused" { 401 } else { 400 };
        assert_eq!(refusal(&refused), (status, code), "{}", refused.json);
        assert!(!refused.headers.contains_key("set-cookie"));
    }
    let create: Change = |ceremony| ceremony.kind = "webauthn.create".to_owned();
    let eligible: Change = |ceremony| ceremony.flags = 0x0d;
    let somebody: Change = |ceremony| ceremony.user_handle = Some(b"somebody-else".to_vec());
    let nobody: Change = |ceremony| ceremony.user_handle = None;
    for change in [create, eligible, somebody, nobody] {
        assert_eq!(refusal(&sign_in(&story, &holder, change).await), (401, "auth.passkey_refused"));
    }
    let good = holder.authenticator.get(&ceremony(&story, &holder).await);
    let other = Authenticator::new(Algorithm::Es256);
    for bad in [
        Signed { signature: other.get(&ceremony(&story, &holder).await).signature, ..good.clone() },
        Signed {
            credential_id: other.credential_id.clone(),
            ..holder.authenticator.get(&ceremony(&story, &holder).await)
        },
    ] {
        assert_eq!(refusal(&send(&story.client, &bad).await), (401, "auth.passkey_refused"));
    }
    assert_eq!(story.number(sessions).await, before);
    assert!(events(&story, "sign_in_failed").await > 10, "the owner can read of it");
    assert_eq!(sign_in(&story, &holder, |_| {}).await.status, 200, "the control");
}

#[tokio::test]
async fn a_registration_that_differs_in_one_thing_is_refused() {
    let story = Story::new().await;
    let user = story.user("ada@example.com").await;
    let authenticator = Authenticator::new(Algorithm::Es256);
    for (code, change) in changes() {
        let mut ceremony = Ceremony::create(&registration_options(&story, &user).await, PAGE);
        change(&mut ceremony);
        let refused = add(&story, &user, &authenticator.create(&ceremony)).await;
        let code = if code == "auth.passkey_refused" { "auth.passkey_not_accepted" } else { code };
        assert_eq!(refusal(&refused), (400, code), "{ceremony:?} {}", refused.json);
    }
    // A key of an algorithm that was not offered.
    let mut entries: Vec<_> = authenticator.cose_entries();
    entries[1].1 = (-47).into();
    let mut key = Vec::new();
    ciborium::into_writer(&ciborium::Value::Map(entries), &mut key).unwrap();
    let ceremony = Ceremony::create(&registration_options(&story, &user).await, PAGE);
    let refused = add(&story, &user, &authenticator.create_with_key(&ceremony, &key)).await;
    assert_eq!(refusal(&refused), (400, "auth.passkey_not_accepted"));
    assert!(refused.text("/detail").contains("algorithm"), "{}", refused.json);
    assert_eq!(story.number("SELECT count(*) FROM auth.passkeys").await, 0);

    let ceremony = Ceremony::create(&registration_options(&story, &user).await, PAGE);
    assert_eq!(add(&story, &user, &authenticator.create(&ceremony)).await.status, 201, "the control");
}

#[tokio::test]
async fn a_challenge_is_good_once_even_if_what_came_of_it_was_wrong() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    let signed = holder.authenticator.get(&ceremony(&story, &holder).await);
    assert_eq!(send(&story.client, &signed).await.status, 200);
    assert_eq!(refusal(&send(&story.client, &signed).await), (400, "auth.dead_passkey_challenge"));

    let ceremony = ceremony(&story, &holder).await;
    let wrong = Signed { signature: vec![0; 64], ..holder.authenticator.get(&ceremony) };
    assert_eq!(refusal(&send(&story.client, &wrong).await), (401, "auth.passkey_refused"));
    let right = holder.authenticator.get(&ceremony);
    assert_eq!(refusal(&send(&story.client, &right).await), (400, "auth.dead_passkey_challenge"));

    let options = registration_options(&story, &holder.user).await;
    let first = Authenticator::new(Algorithm::Es256).create(&Ceremony::create(&options, PAGE));
    let second = Authenticator::new(Algorithm::Es256).create(&Ceremony::create(&options, PAGE));
    assert_eq!(add(&story, &holder.user, &first).await.status, 201);
    assert_eq!(refusal(&add(&story, &holder.user, &second).await), (400, "auth.dead_passkey_challenge"));
}

#[tokio::test]
async fn one_signature_makes_one_session_however_often_it_is_sent_at_once_and_wherever() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    let replica = story.replica().await;
    let before = story.number("SELECT count(*) FROM auth.sessions").await;
    let signed = holder.authenticator.get(&ceremony(&story, &holder).await);
    let clients = [&story.client, &replica];
    let sent = futures_util::future::join_all((0..10).map(|number| send(clients[number % 2], &signed))).await;
    assert_eq!(sent.iter().filter(|reply| reply.status == 200).count(), 1);
    assert!(sent.iter().all(|reply| [200, 400].contains(&reply.status.as_u16())));
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions").await, before + 1);

    let options = registration_options(&story, &holder.user).await;
    let created = Authenticator::new(Algorithm::Es256).create(&Ceremony::create(&options, PAGE));
    let sent = futures_util::future::join_all((0..10).map(|_| add(&story, &holder.user, &created))).await;
    assert_eq!(sent.iter().filter(|reply| reply.status == 201).count(), 1);
    assert_eq!(story.number("SELECT count(*) FROM auth.passkeys").await, 2);
}

#[tokio::test]
async fn any_replica_finishes_what_another_began() {
    let story = Story::new().await;
    let user = story.user("ada@example.com").await;
    let replica = story.replica().await;
    let authenticator = Authenticator::new(Algorithm::Es256);
    let created = authenticator.create(&Ceremony::create(&registration_options(&story, &user).await, PAGE));
    let body = json!({"credential": created.json()});
    let added = replica.post(BASE, &body).bearer(&user.access_token).send().await;
    assert_eq!(added.status, 201, "{}", added.json);
    let options = sign_in_options(&replica).await;
    let signed = authenticator.get(&Ceremony::get(&options, PAGE, &user.id));
    assert_eq!(send(&story.client, &signed).await.status, 200);
}

#[tokio::test]
async fn a_challenge_is_good_for_five_minutes() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    let (early, late) = (ceremony(&story, &holder).await, ceremony(&story, &holder).await);
    story.clock.advance(Duration::seconds(299));
    assert_eq!(send(&story.client, &holder.authenticator.get(&early)).await.status, 200);
    story.clock.advance(Duration::seconds(1));
    let refused = send(&story.client, &holder.authenticator.get(&late)).await;
    assert_eq!(refusal(&refused), (400, "auth.dead_passkey_challenge"));
    story.workers.prune().await;
    assert_eq!(story.number("SELECT count(*) FROM auth.passkey_challenges").await, 0);
}

#[tokio::test]
async fn a_challenge_is_good_for_what_it_was_asked_for_and_in_the_session_that_asked() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    let elsewhere = story.sign_in("ada@example.com").await;
    let bob = story.user("bob@example.com").await;
    let new = || Authenticator::new(Algorithm::Es256);
    let options = registration_options(&story, &holder.user).await;
    let created = new().create(&Ceremony::create(&options, PAGE));
    for other in [&elsewhere, &bob] {
        assert_eq!(refusal(&add(&story, other, &created).await), (400, "auth.dead_passkey_challenge"));
    }
    assert_eq!(add(&story, &holder.user, &created).await.status, 201, "the control");

    let mut for_sign_in = sign_in_options(&story.client).await;
    for_sign_in["rp"] = json!({"id": "localhost"});
    let created = new().create(&Ceremony::create(&for_sign_in, PAGE));
    assert_eq!(refusal(&add(&story, &holder.user, &created).await), (400, "auth.dead_passkey_challenge"));
    let mut for_new = registration_options(&story, &holder.user).await;
    for_new["rpId"] = json!("localhost");
    let signed = holder.authenticator.get(&Ceremony::get(&for_new, PAGE, &holder.user.id));
    assert_eq!(refusal(&send(&story.client, &signed).await), (400, "auth.dead_passkey_challenge"));
}

#[tokio::test]
async fn a_credential_has_one_owner() {
    let story = Story::new().await;
    let ada = holder(&story).await;
    let bob = holder_of(&story, story.user("bob@example.com").await, Algorithm::Es256).await;
    for user in [&ada.user, &bob.user] {
        let ceremony = Ceremony::create(&registration_options(&story, user).await, PAGE);
        let again = add(&story, user, &ada.authenticator.create(&ceremony)).await;
        assert_eq!(refusal(&again), (409, "auth.passkey_exists"));
    }
    let as_bob =
        sign_in(&story, &ada, |ceremony| ceremony.user_handle = Some(bob.user.id.clone().into())).await;
    assert_eq!(refusal(&as_bob), (401, "auth.passkey_refused"));
    let path = format!("{BASE}/{}", ada.id);
    let named = as_user(&story, &bob.user, Method::PATCH, &path, &json!({"name": "Mine"})).await;
    let removed = story.client.request(Method::DELETE, &path).bearer(&bob.user.access_token).send().await;
    let absent = format!("{BASE}/01920000-0000-7000-8000-000000000000");
    let nothing = story.client.request(Method::DELETE, &absent).bearer(&bob.user.access_token).send().await;
    for reply in [named, removed, nothing] {
        assert_eq!(refusal(&reply), (404, "auth.passkey_not_found"));
    }
    assert_eq!(story.get(BASE, &bob.user).await.json.as_array().unwrap().len(), 1);
    assert_eq!(User::of(&sign_in(&story, &ada, |_| {}).await).id, ada.user.id, "the control");
}

#[tokio::test]
async fn a_counter_that_goes_back_is_a_copy_and_is_refused() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    for (count, is_taken) in
        [(0, true), (0, true), (5, true), (6, true), (6, false), (5, false), (0, false), (7, true)]
    {
        let reply = sign_in(&story, &holder, |ceremony| ceremony.sign_count = count).await;
        assert_eq!(reply.status == 200, is_taken, "{count} {}", reply.json);
    }
    assert_eq!(events(&story, "passkey_cloned").await, 3);
    assert_eq!(story.number("SELECT sign_count FROM auth.passkeys").await, 7);
}

#[tokio::test]
async fn whether_a_passkey_was_copied_is_kept_up_to_date() {
    let story = Story::new().await;
    let user = story.user("ada@example.com").await;
    let authenticator = Authenticator::new(Algorithm::Es256);
    let options = registration_options(&story, &user).await;
    let ceremony = Ceremony { flags: 0x0d, ..Ceremony::create(&options, PAGE) };
    let added = add(&story, &user, &authenticator.create(&ceremony)).await;
    assert_eq!((added.status.as_u16(), &added.json["backedUp"]), (201, &json!(false)));
    let holder = Holder { user, authenticator, id: added.text("/id").to_owned() };
    assert_eq!(sign_in(&story, &holder, |ceremony| ceremony.flags = 0x1d).await.status, 200);
    assert_eq!(story.get(BASE, &holder.user).await.json[0]["backedUp"], json!(true));
    let single = sign_in(&story, &holder, |ceremony| ceremony.flags = 0x05).await;
    assert_eq!(refusal(&single), (401, "auth.passkey_refused"), "what may be copied stays so");
}

#[tokio::test]
async fn passkeys_change_only_in_a_fresh_session_which_a_passkey_makes_fresh() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    story.clock.advance(Duration::minutes(11));
    let options_path = format!("{BASE}/registration-options");
    let path = format!("{BASE}/{}", holder.id);
    let refused = as_user(&story, &holder.user, Method::POST, &options_path, &json!({})).await;
    assert_eq!(refusal(&refused), (403, "auth.fresh_authentication_required"));
    let refused = story.client.request(Method::DELETE, &path).bearer(&holder.user.access_token).send().await;
    assert_eq!(refusal(&refused), (403, "auth.fresh_authentication_required"));

    let reauthenticate = "/api/v1/auth/reauthenticate/passkey";
    let options = async |user: &User| {
        as_user(&story, user, Method::POST, &format!("{reauthenticate}-options"), &json!({})).await
    };
    let bob = story.user("bob@example.com").await;
    assert_eq!(refusal(&options(&bob).await), (409, "auth.no_second_factor"));
    let (bobs, _) = add_new(&story, &bob, Algorithm::Es256).await;
    let own = options(&holder.user).await;
    assert_eq!(
        own.json["allowCredentials"][0]["id"],
        json!(URL_SAFE_NO_PAD.encode(&holder.authenticator.credential_id))
    );
    let given = async |signed: &Signed| {
        as_user(&story, &holder.user, Method::POST, reauthenticate, &json!({"credential": signed.json()}))
            .await
    };
    let foreign = bobs.get(&Ceremony::get(&own.json, PAGE, &bob.id));
    assert_eq!(refusal(&given(&foreign).await), (401, "auth.passkey_refused"));
    let touched =
        Ceremony { flags: 0x01, ..Ceremony::get(&options(&holder.user).await.json, PAGE, &holder.user.id) };
    assert_eq!(refusal(&given(&holder.authenticator.get(&touched)).await), (401, "auth.passkey_refused"));
    let of_bob = holder.authenticator.get(&Ceremony::get(&options(&bob).await.json, PAGE, &holder.user.id));
    assert_eq!(refusal(&given(&of_bob).await), (400, "auth.dead_passkey_challenge"));
    let right = Ceremony::get(&options(&holder.user).await.json, PAGE, &holder.user.id);
    let done = given(&holder.authenticator.get(&right)).await;
    assert!(done.status == 200 && done.json["freshUntil"].is_string(), "{}", done.json);
    registration_options(&story, &holder.user).await;
}

#[tokio::test]
async fn passkeys_are_named_and_removed_and_then_sign_in_no_more() {
    let story = Story::new().await;
    let user = story.user("ada@example.com").await;
    let authenticator = Authenticator::new(Algorithm::Es256);
    let options = registration_options(&story, &user).await;
    let created = authenticator.create(&Ceremony::create(&options, PAGE));
    let request = story.client.post(BASE, &json!({"credential": created.json()})).bearer(&user.access_token);
    let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    let added = request.header("user-agent", firefox).send().await;
    assert_eq!(added.text("/name"), "Firefox on Linux");
    let holder = Holder { user, authenticator, id: added.text("/id").to_owned() };
    let path = format!("{BASE}/{}", holder.id);
    let named = as_user(&story, &holder.user, Method::PATCH, &path, &json!({"name": "Laptop"})).await;
    assert_eq!((named.status.as_u16(), named.text("/name")), (200, "Laptop"));
    for bad in ["", "a\nb", &"x".repeat(65)] {
        let refused = as_user(&story, &holder.user, Method::PATCH, &path, &json!({"name": bad})).await;
        assert_eq!(refusal(&refused), (400, "request.invalid_body"));
    }
    assert_eq!(sign_in(&story, &holder, |_| {}).await.status, 200, "the control");
    let remove = || story.client.request(Method::DELETE, &path).bearer(&holder.user.access_token).send();
    assert_eq!(remove().await.status, 204);
    assert_eq!(refusal(&sign_in(&story, &holder, |_| {}).await), (401, "auth.passkey_refused"));
    assert_eq!(refusal(&remove().await), (404, "auth.passkey_not_found"));
    assert_eq!(story.get(BASE, &holder.user).await.json, json!([]));
    assert_eq!(events(&story, "passkey_removed").await, 1);
}

#[tokio::test]
async fn the_last_way_to_sign_in_stays_also_when_two_are_removed_at_once() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    let (_, second) = add_new(&story, &holder.user, Algorithm::Es256).await;
    story.execute("DELETE FROM auth.passwords").await;
    let remove = async |id: &str| {
        let path = format!("{BASE}/{id}");
        story.client.request(Method::DELETE, &path).bearer(&holder.user.access_token).send().await
    };
    let both = futures_util::future::join(remove(&holder.id), remove(&second)).await;
    let mut both = [both.0, both.1];
    both.sort_by_key(|reply| reply.status);
    assert_eq!(both[0].status, 204);
    assert_eq!(refusal(&both[1]), (409, "auth.last_passkey"));
    assert_eq!(story.number("SELECT count(*) FROM auth.passkeys").await, 1);
    let left = story.get(BASE, &holder.user).await.text("/0/id").to_owned();
    let (_, third) = add_new(&story, &holder.user, Algorithm::Es256).await;
    assert_eq!(remove(&left).await.status, 204, "the control: with another there");
    assert_eq!(refusal(&remove(&third).await), (409, "auth.last_passkey"));
    story
        .execute(
            "INSERT INTO auth.accounts (id, user_id, provider, issuer, subject, created_at, last_used_at)
             SELECT gen_random_uuid(), id, 'google', 'https://accounts.google.com', '1', now(), now() FROM auth.users",
        )
        .await;
    assert_eq!(remove(&third).await.status, 204, "the control: with another service to sign in with");
}

#[tokio::test]
async fn a_passkey_that_a_stranger_added_goes_with_the_strangers_session() {
    a_stranger_added_a_passkey(Duration::hours(71), true).await;
}

#[tokio::test]
async fn a_passkey_that_was_there_for_three_days_is_not_taken_away_by_who_reads_the_mailbox() {
    a_stranger_added_a_passkey(Duration::hours(73), false).await;
}

/// And the owner, or whoever reads the mails by then, says so some time after.
async fn a_stranger_added_a_passkey(after: Duration, goes: bool) {
    let story = Story::new().await;
    let holder = holder(&story).await;
    let credentials = json!({"email": "ada@example.com", "password": PASSWORD});
    let strange = story.client.post("/api/v1/auth/login", &credentials).header("user-agent", "curl/8.14.1");
    let stranger = User::of(&strange.send().await);
    let thief = holder_of(&story, stranger, Algorithm::Es256).await;
    assert_eq!(sign_in(&story, &thief, |_| {}).await.status, 200, "the control");

    let mails = story.mails().await;
    let told = mails.iter().filter(|kept| about(&kept.mail) == "A passkey was added to your account");
    assert_eq!(told.count(), 2, "the owner's own, and the stranger's");
    let new_device = mails.iter().find(|kept| about(&kept.mail) == "New sign-in to your account");
    let text = &new_device.unwrap().mail.text;
    let link = text.lines().find(|line| line.contains("/not-me?token=")).unwrap();
    let form = story.client.request(Method::POST, "/not-me");
    let token = link.split_once('?').unwrap().1.to_owned();
    story.clock.advance(after);
    assert_eq!(form.body("application/x-www-form-urlencoded", token).send().await.status, 200);
    let back = sign_in(&story, &thief, |_| {}).await;
    if goes {
        assert_eq!(refusal(&back), (401, "auth.passkey_refused"));
    } else {
        assert_eq!(back.status, 200);
    }
    assert_eq!(sign_in(&story, &holder, |_| {}).await.status, 200, "the owner's own stays");
    assert_eq!(events(&story, "passkey_removed").await, i64::from(goes));
    let mails = story.mails().await;
    let told = mails.iter().find(|kept| about(&kept.mail).ends_with("was taken away"));
    assert_eq!(told.is_some_and(|kept| kept.mail.text.contains("A passkey.")), goes);
}

#[tokio::test]
async fn a_session_that_ends_while_a_passkey_is_added_adds_none() {
    let story = Story::new().await;
    let thief = story.user("ada@example.com").await;
    let Replica { client, workers } = story.replica_with(|_| {}).await;
    let created = |options: &Value| {
        let created = Authenticator::new(Algorithm::Es256).create(&Ceremony::create(options, PAGE));
        json!({"credential": created.json()})
    };
    let late = created(&registration_options(&story, &thief).await);

    // It ends while the answer of the authenticator waits for the account.
    let waits = created(&registration_options(&story, &thief).await);
    let held = story
        .holding("UPDATE auth.sessions SET revoked_at = now(), revoked_reason = 'revoked_by_owner'")
        .await;
    let sent = story.send_to_wait(story.client.post(BASE, &waits).bearer(&thief.access_token), 1).await;
    let_go(held).await;
    assert_eq!(refusal(&sent.await.unwrap()), (401, "auth.unauthenticated"));

    // It ended elsewhere, and this replica has not heard of it yet.
    let remembering = story.sign_in("ada@example.com").await;
    let options = registration_options(&story, &remembering).await;
    let me = || client.get("/api/v1/auth/me").bearer(&remembering.access_token).send();
    assert_eq!(me().await.status, 200);
    workers.follow_ended_sessions().await;
    assert_eq!(me().await.status, 200);
    let ended = story.client.request(Method::POST, "/api/v1/auth/logout").bearer(&remembering.access_token);
    assert_eq!(ended.send().await.status, 200);
    let listed = client.get(BASE).bearer(&remembering.access_token).send().await;
    assert_eq!(listed.status, 200, "it is remembered");
    let added = client.post(BASE, &created(&options)).bearer(&remembering.access_token).send().await;
    assert_eq!(refusal(&added), (401, "auth.unauthenticated"));
    assert_eq!(story.client.post(BASE, &late).bearer(&thief.access_token).send().await.status, 401);
    assert_eq!(story.number("SELECT count(*) FROM auth.passkeys").await, 0);

    let owner = story.sign_in("ada@example.com").await;
    let options = registration_options(&story, &owner).await;
    let added = client.post(BASE, &created(&options)).bearer(&owner.access_token).send().await;
    assert_eq!(added.status, 201, "the control: {}", added.json);
}

#[tokio::test]
async fn an_account_has_25_passkeys_at_most() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    story
        .execute(
            "INSERT INTO auth.passkeys (id, user_id, credential_id, public_key, sign_count, is_backup_eligible, is_backed_up, transports, name, created_at, added_in)
             SELECT gen_random_uuid(), user_id, decode(lpad(number::text, 32, '0'), 'hex'), public_key, 0, false, false, '{}', 'One', created_at, added_in
             FROM auth.passkeys, generate_series(1, 23) AS number",
        )
        .await;
    let options =
        [registration_options(&story, &holder.user).await, registration_options(&story, &holder.user).await];
    let created =
        options.map(|options| Authenticator::new(Algorithm::Es256).create(&Ceremony::create(&options, PAGE)));
    let both = futures_util::future::join(
        add(&story, &holder.user, &created[0]),
        add(&story, &holder.user, &created[1]),
    )
    .await;
    let mut both = [both.0, both.1];
    both.sort_by_key(|reply| reply.status);
    assert_eq!(both[0].status, 201);
    assert_eq!(refusal(&both[1]), (409, "auth.too_many_passkeys"));
    assert_eq!(story.get(BASE, &holder.user).await.json.as_array().unwrap().len(), 25);
}

#[tokio::test]
async fn an_account_that_is_shut_is_told_so_after_the_right_passkey_only() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    story.execute("UPDATE auth.users SET disabled_at = now()").await;
    let wrong = sign_in(&story, &holder, |ceremony| ceremony.rp_id = "evil.example".to_owned()).await;
    assert_eq!(refusal(&wrong), (401, "auth.passkey_refused"));
    assert_eq!(refusal(&sign_in(&story, &holder, |_| {}).await), (401, "auth.account_disabled"));
    story.execute("UPDATE auth.users SET disabled_at = NULL").await;
    assert_eq!(sign_in(&story, &holder, |_| {}).await.status, 200, "the control");
}

/// Sets an authenticator app up beside the passkey.
async fn with_totp(story: &Story, user: &User) {
    use mana_kernel::Clock as _;
    let base = "/api/v1/auth/two-factor";
    let enrolment = as_user(story, user, Method::POST, &format!("{base}/enrol"), &json!({})).await;
    let secret = Secret::try_from_base32(enrolment.text("/secret")).unwrap();
    let totp = Builder::new().with_secret(secret).build().unwrap();
    let code = totp.generate(u64::try_from(story.clock.now().unix_timestamp()).unwrap()).to_string();
    let confirmed =
        as_user(story, user, Method::POST, &format!("{base}/confirm"), &json!({"code": code})).await;
    assert_eq!(confirmed.status, 200, "{}", confirmed.json);
}

async fn pending(story: &Story, email: &str) -> String {
    let login = story.login(email).await;
    assert_eq!(login.json["twoFactorRequired"], json!(true), "{}", login.json);
    assert!(login.json["methods"].as_array().unwrap().contains(&json!("passkey")), "{}", login.json);
    login.text("/challengeToken").to_owned()
}

async fn factor_options(story: &Story, token: &str) -> Reply {
    story.post("/api/v1/auth/two-factor/passkey-options", &json!({"challengeToken": token})).await
}

async fn give_factor(story: &Story, token: &str, signed: &Signed) -> Reply {
    let body = json!({"challengeToken": token, "credential": signed.json()});
    story.post("/api/v1/auth/two-factor/passkey", &body).await
}

#[tokio::test]
async fn a_passkey_is_a_second_factor_by_a_touch_and_both_when_it_verifies() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    with_totp(&story, &holder.user).await;
    let bob = holder_of(&story, story.user("bob@example.com").await, Algorithm::Es256).await;
    let (token, other) = (pending(&story, "ada@example.com").await, pending(&story, "ada@example.com").await);
    let options = factor_options(&story, &token).await;
    assert_eq!(options.json["userVerification"], "discouraged");
    let known = json!(URL_SAFE_NO_PAD.encode(&holder.authenticator.credential_id));
    assert_eq!(options.json["allowCredentials"][0]["id"], known, "{}", options.json);
    let before = story.number("SELECT count(*) FROM auth.sessions").await;

    let touch = Ceremony { flags: 0x01, ..Ceremony::get(&options.json, PAGE, &holder.user.id) };
    let touched = holder.authenticator.get(&touch);
    let elsewhere = give_factor(&story, &other, &touched).await;
    assert_eq!(refusal(&elsewhere), (400, "auth.dead_passkey_challenge"), "of another sign-in that waits");
    let alone = send(&story.client, &touched).await;
    assert_eq!(refusal(&alone), (400, "auth.dead_passkey_challenge"), "not a way in by itself");
    let done = give_factor(&story, &token, &touched).await;
    assert!(story.is_signed_in(&User::of(&done)).await);
    let again = give_factor(&story, &token, &touched).await;
    assert_eq!(refusal(&again), (401, "auth.dead_challenge"), "finished once");

    let options = factor_options(&story, &other).await.json;
    let bobs = bob.authenticator.get(&Ceremony::get(&options, PAGE, &bob.user.id));
    assert_eq!(refusal(&give_factor(&story, &other, &bobs).await), (401, "auth.passkey_refused"));
    let options = factor_options(&story, &other).await.json;
    let absent = Ceremony { flags: 0, ..Ceremony::get(&options, PAGE, &holder.user.id) };
    let refused = give_factor(&story, &other, &holder.authenticator.get(&absent)).await;
    assert_eq!(refusal(&refused), (401, "auth.passkey_refused"));
    assert_eq!(events(&story, "second_factor_failed").await, 2);
    assert_eq!(refusal(&factor_options(&story, "mch_x").await), (401, "auth.dead_challenge"));
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions").await, before + 1);

    let by_passkey = sign_in(&story, &holder, |_| {}).await;
    assert_eq!(by_passkey.json.get("twoFactorRequired"), None, "two factors in one");
    let touched = sign_in(&story, &holder, |ceremony| ceremony.flags = 0x01).await;
    assert_eq!(refusal(&touched), (401, "auth.passkey_refused"), "a touch alone opens nothing");
}

#[tokio::test]
async fn one_passkey_given_at_once_to_a_sign_in_that_waits_makes_one_session() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    with_totp(&story, &holder.user).await;
    let token = pending(&story, "ada@example.com").await;
    let before = story.number("SELECT count(*) FROM auth.sessions").await;
    let mut signed = Vec::new();
    for _ in 0..5 {
        let options = factor_options(&story, &token).await.json;
        signed.push(holder.authenticator.get(&Ceremony::get(&options, PAGE, &holder.user.id)));
    }
    let sent =
        futures_util::future::join_all(signed.iter().map(|signed| give_factor(&story, &token, signed))).await;
    assert_eq!(sent.iter().filter(|reply| reply.status == 200).count(), 1);
    assert!(sent.iter().all(|reply| [200, 401].contains(&reply.status.as_u16())));
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions").await, before + 1);
}

#[tokio::test]
async fn where_everybody_must_have_a_factor_a_passkey_is_one_and_the_last_one_stays() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    let strict = story.replica_with(|settings| settings.two_factor_required = TwoFactorRequired::All).await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let login = strict.client.post("/api/v1/auth/login", &body).send().await;
    assert_eq!(login.json["methods"], json!(["passkey"]), "{}", login.json);
    let options = sign_in_options(&strict.client).await;
    let signed = holder.authenticator.get(&Ceremony::get(&options, PAGE, &holder.user.id));
    let user = User::of(&send(&strict.client, &signed).await);
    strict.workers.demand_second_factors().await;
    assert!(story.is_signed_in(&user).await, "opened with both factors");
    assert!(!story.is_signed_in(&holder.user).await, "opened with one");
    let path = format!("{BASE}/{}", holder.id);
    let remove = |client: &Client| client.request(Method::DELETE, &path).bearer(&user.access_token).send();
    assert_eq!(refusal(&remove(&strict.client).await), (409, "auth.second_factor_required"));
    assert_eq!(remove(&story.client).await.status, 204, "the control: where none is asked for");
}

#[tokio::test]
async fn where_a_passkey_is_asked_for_the_password_alone_makes_no_session_fresh() {
    let story = Story::new().await;
    let holder = holder(&story).await;
    let strict = story.replica_with(|settings| settings.two_factor_required = TwoFactorRequired::All).await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let login = strict.client.post("/api/v1/auth/login", &body).send().await;
    let token = login.text("/challengeToken").to_owned();
    let options = factor_options(&story, &token).await;
    let signed = holder.authenticator.get(&Ceremony::get(&options.json, PAGE, &holder.user.id));
    let finish = json!({"challengeToken": token, "credential": signed.json(), "trustDevice": true});
    let first = strict.client.post("/api/v1/auth/two-factor/passkey", &finish).send().await;
    assert_eq!(first.status, 200, "{}", first.json);
    let trust = first.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    let trust =
        trust.map(|value| value.split(';').next().unwrap()).find(|value| value.starts_with("mana.trusted"));
    let trusted =
        strict.client.post("/api/v1/auth/login", &body).header("cookie", trust.unwrap()).send().await;
    story.clock.advance(Duration::minutes(11));
    // A stolen session with both factors, and one of the owner's trusted browser with the password alone.
    for session in [User::of(&first), User::of(&trusted)] {
        let post =
            |path: &str, body: Value| strict.client.post(path, &body).bearer(&session.access_token).send();
        let by_password = post("/api/v1/auth/reauthenticate", json!({"password": PASSWORD})).await;
        assert_eq!(refusal(&by_password), (409, "auth.code_needed"));
        let enrol = post("/api/v1/auth/two-factor/enrol", json!({})).await;
        assert_eq!(refusal(&enrol), (403, "auth.fresh_authentication_required"));
        let by_cookie = strict.client.post("/api/auth/two-factor/enable", &json!({"password": PASSWORD}));
        let by_cookie = by_cookie.header("cookie", &session.cookie).send().await;
        assert_eq!(refusal(&by_cookie), (403, "auth.fresh_authentication_required"));
        let options = post("/api/v1/auth/reauthenticate/passkey-options", json!({})).await;
        let signed = holder.authenticator.get(&Ceremony::get(&options.json, PAGE, &holder.user.id));
        let by_passkey =
            post("/api/v1/auth/reauthenticate/passkey", json!({"credential": signed.json()})).await;
        assert_eq!(by_passkey.status, 200, "the control: {}", by_passkey.json);
        assert_eq!(post("/api/v1/auth/two-factor/enrol", json!({})).await.status, 200, "the control");
    }
    let lenient = story.sign_in("ada@example.com").await;
    story.clock.advance(Duration::minutes(11));
    let body = json!({"password": PASSWORD});
    let confirmed = as_user(&story, &lenient, Method::POST, "/api/v1/auth/reauthenticate", &body).await;
    assert_eq!(
        confirmed.status, 200,
        "the control: where no factor is asked for, a passkey is another way in"
    );
}

#[tokio::test]
async fn passkeys_work_on_pages_of_the_domain_and_where_the_settings_say_and_nowhere_else() {
    const APP: &str = "android:apk-key-hash:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let story = Story::with(|settings| {
        settings.base_url = Some("https://auth.example.com".parse().unwrap());
        settings.cookie_domain = Some("example.com".parse().unwrap());
        settings.cors_origins = ["https://chat.example.com", "https://example.net"]
            .map(|origin| origin.parse().unwrap())
            .to_vec();
        settings.passkey_origins =
            ["https://example.org", APP].map(|origin| origin.parse().unwrap()).to_vec();
    })
    .await;
    let related = story.client.get("/.well-known/webauthn").send().await;
    assert_eq!((related.status.as_u16(), &related.json), (200, &json!({"origins": ["https://example.org"]})));
    assert!(related.headers["content-type"].to_str().unwrap().starts_with("application/json"));
    let user = story.user("ada@example.com").await;
    let options = registration_options(&story, &user).await;
    assert_eq!(options["rp"]["id"], "example.com");
    let authenticator = Authenticator::new(Algorithm::Es256);
    let created = authenticator.create(&Ceremony::create(&options, "https://auth.example.com"));
    assert_eq!(add(&story, &user, &created).await.status, 201);
    let mut answers = BTreeMap::new();
    for origin in [
        "https://auth.example.com",
        "https://chat.example.com",
        "https://example.org",
        APP,
        "https://example.net",
        "https://example.com",
        "https://evil.example.com",
        "http://chat.example.com",
        "https://sub.example.org",
        "android:apk-key-hash:BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        let options = sign_in_options(&story.client).await;
        let signed = authenticator.get(&Ceremony::get(&options, origin, &user.id));
        let reply = send(&story.client, &signed).await;
        answers.insert(origin, reply.status.as_u16());
    }
    let allowed: Vec<_> =
        answers.iter().filter(|(_, status)| **status == 200).map(|(origin, _)| *origin).collect();
    assert_eq!(allowed, [APP, "https://auth.example.com", "https://chat.example.com", "https://example.org"]);
    assert!(answers.values().all(|status| [200, 400].contains(status)), "{answers:?}");
}

#[tokio::test]
async fn a_challenge_is_not_stored_in_clear() {
    let story = Story::new().await;
    let options = sign_in_options(&story.client).await;
    let challenge = URL_SAFE_NO_PAD.decode(options["challenge"].as_str().unwrap()).unwrap();
    let stored: Vec<u8> = sqlx::query_scalar("SELECT challenge_hash FROM auth.passkey_challenges")
        .fetch_one(&mut story.database.owner().await)
        .await
        .unwrap();
    assert_eq!(hex(&stored), hex(&mana_kernel::secret::sha256(&challenge)));
}
