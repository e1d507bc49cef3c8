//! The second factor: set up, asked for, and not to be gone round.

use crate::story::{ACCOUNTS, PASSWORD, Story, User, about, hex, let_go};
use http::Method;
use mana_auth::token::root_secret::{Resealed, RootSecrets};
use mana_auth::two_factor::rekey_secrets;
use mana_platform::SystemRng;
use mana_platform::config::TwoFactorRequired;
use mana_testkit::Reply;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use time::Duration;
use totp_rs::{Builder, Secret};

const BASE: &str = "/api/v1/auth/two-factor";

/// Somebody with an authenticator app.
pub(crate) struct Owner {
    pub(crate) user: User,
    pub(crate) secret: String,
    pub(crate) recovery_codes: Vec<String>,
}

/// What an authenticator app shows now, `steps` of 30 seconds later.
fn code_in(story: &Story, secret: &str, steps: i64) -> String {
    use mana_kernel::Clock as _;
    let totp = Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).build().unwrap();
    let seconds = story.clock.now().unix_timestamp().saturating_add(steps.saturating_mul(30));
    totp.generate(u64::try_from(seconds).unwrap()).to_string()
}

pub(crate) fn code(story: &Story, secret: &str) -> String {
    code_in(story, secret, 0)
}

/// Not what the app shows, nor around it.
fn wrong_code(story: &Story, secret: &str) -> String {
    let near: Vec<_> = (-3..=3).map(|steps| code_in(story, secret, steps)).collect();
    (0..1_000_000).map(|number| format!("{number:06}")).find(|code| !near.contains(code)).unwrap()
}

async fn bearer_post(story: &Story, user: &User, path: &str, body: &Value) -> Reply {
    story.client.post(path, body).bearer(&user.access_token).send().await
}

/// Sets an authenticator app up; its current code is used up by that.
pub(crate) async fn set_up(story: &Story, user: User) -> Owner {
    let enrolment = bearer_post(story, &user, &format!("{BASE}/enrol"), &json!({})).await;
    assert_eq!(enrolment.status, 200, "{}", enrolment.json);
    let secret = enrolment.text("/secret").to_owned();
    let body = json!({"code": code(story, &secret)});
    let confirmed = bearer_post(story, &user, &format!("{BASE}/confirm"), &body).await;
    assert_eq!(confirmed.status, 200, "{}", confirmed.json);
    let codes = confirmed.json["recoveryCodes"].as_array().unwrap();
    let recovery_codes = codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect();
    Owner { user, secret, recovery_codes }
}

/// Leaves a row of the user in every table of the second factor; the user's session goes on.
pub(crate) async fn leave_rows(story: &Story, user: &User) {
    let owner = set_up(story, user.clone()).await;
    let first = story.login(&user.email).await;
    let code = code_in(story, &owner.secret, 1);
    let body = json!({"challengeToken": first.text("/challengeToken"), "code": code, "trustDevice": true});
    assert_eq!(story.post(&format!("{BASE}/verify"), &body).await.status, 200);
    assert_eq!(story.login(&user.email).await.json["twoFactorRequired"], json!(true), "one more waits");
}

async fn owner(story: &Story) -> Owner {
    let user = story.user("ada@example.com").await;
    let owner = set_up(story, user).await;
    story.clock.advance(Duration::seconds(60));
    owner
}

/// The first half of a sign-in.
async fn challenge(story: &Story) -> String {
    let reply = story.login("ada@example.com").await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json["twoFactorRequired"]),
        (200, &json!(true)),
        "{}",
        reply.json
    );
    reply.text("/challengeToken").to_owned()
}

async fn verify(story: &Story, token: &str, code: &str) -> Reply {
    story.post(&format!("{BASE}/verify"), &json!({"challengeToken": token, "code": code})).await
}

fn cookies(reply: &Reply) -> Vec<String> {
    let set = reply.headers.get_all("set-cookie").iter();
    set.map(|value| value.to_str().unwrap().split(';').next().unwrap().to_owned()).collect()
}

fn cookie(reply: &Reply, name: &str) -> String {
    let found = cookies(reply).into_iter().find(|cookie| cookie.starts_with(&format!("{name}=")));
    found.unwrap_or_else(|| panic!("no {name} in {:?}", reply.headers))
}

#[tokio::test]
async fn an_account_with_an_app_signs_in_in_two_steps() {
    let story = Story::new().await;
    let user = story.user("ada@example.com").await;
    let status = story.get(BASE, &user).await;
    assert_eq!(
        status.json,
        json!({"enabled": false, "required": false, "methods": [], "recoveryCodesLeft": 0})
    );
    let enrolment = bearer_post(&story, &user, &format!("{BASE}/enrol"), &json!({})).await;
    assert!(enrolment.text("/otpauthUrl").starts_with("otpauth://totp/manacore:ada%40example.com?"));
    assert!(enrolment.text("/qrCodeSvg").contains("<svg"));
    assert_eq!(story.login("ada@example.com").await.json.get("twoFactorRequired"), None, "not yet confirmed");

    let owner = set_up(&story, user).await;
    assert_eq!(owner.recovery_codes.iter().collect::<BTreeSet<_>>().len(), 10);
    let status = story.get(BASE, &owner.user).await;
    assert_eq!(
        status.json,
        json!({"enabled": true, "required": false, "methods": ["totp", "recovery_code"], "recoveryCodesLeft": 10})
    );
    let first = story.login("ada@example.com").await;
    assert_eq!(first.json["methods"], json!(["totp", "recovery_code"]));
    assert_eq!(first.json.as_object().unwrap().len(), 3, "nothing else: {}", first.json);
    story.clock.advance(Duration::seconds(30));
    let done = verify(&story, first.text("/challengeToken"), &code(&story, &owner.secret)).await;
    let signed_in = User::of(&done);
    assert!(story.is_signed_in(&signed_in).await);
    assert_eq!(story.refresh(&signed_in.refresh_token).await.status, 200);
    assert!(signed_in.cookie.starts_with("mana.session_token="));
    let events = story.get("/api/v1/auth/security-events", &signed_in).await;
    let kinds: Vec<_> =
        events.json.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    for kind in ["second_factor_enabled", "recovery_codes_made", "signed_in"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
}

#[tokio::test]
async fn a_sign_in_that_waits_opens_nothing() {
    let story = Story::new().await;
    let owner = owner(&story).await;
    let sessions = "SELECT count(*) FROM auth.sessions";
    let before = story.number(sessions).await;
    let reply = story.login("ada@example.com").await;
    let token = reply.text("/challengeToken").to_owned();
    let waiting_cookie = cookie(&reply, "mana.two_factor");
    assert_eq!(cookies(&reply).len(), 1, "no session cookie: {:?}", reply.headers);
    assert_eq!(story.number(sessions).await, before);

    let me = story.client.get("/api/v1/auth/me").bearer(&token).send().await;
    assert_eq!((me.status.as_u16(), me.problem()), (401, "auth.unauthenticated"));
    assert_eq!(story.refresh(&token).await.status, 401);
    let validated = story.post("/api/v1/auth/validate", &json!({"token": token})).await;
    assert_eq!(validated.json["valid"], json!(false));
    for cookie in [waiting_cookie.clone(), format!("mana.session_token={token}")] {
        let session = story.client.get("/api/auth/get-session").header("cookie", &cookie).send().await;
        assert_eq!((session.status.as_u16(), &session.json), (200, &Value::Null));
        let exchange = story.client.request(Method::POST, "/api/v1/auth/session-to-token");
        assert_eq!(exchange.header("cookie", &cookie).send().await.status, 401);
    }
    for other in [&owner.user.refresh_token, &owner.user.access_token, "mch_AAAA", "x"] {
        let refused = verify(&story, other, &code(&story, &owner.secret)).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (401, "auth.dead_challenge"));
    }
    // The control: the same token with the factor.
    assert_eq!(verify(&story, &token, &code(&story, &owner.secret)).await.status, 200);
    let again = verify(&story, &token, &code_in(&story, &owner.secret, 1)).await;
    assert_eq!((again.status.as_u16(), again.problem()), (401, "auth.dead_challenge"), "finished once");
}

#[tokio::test]
async fn a_sign_in_waits_ten_minutes() {
    let story = Story::new().await;
    let owner = owner(&story).await;
    let (early, late) = (challenge(&story).await, challenge(&story).await);
    story.clock.advance(Duration::minutes(9));
    assert_eq!(verify(&story, &early, &code(&story, &owner.secret)).await.status, 200);
    story.clock.advance(Duration::minutes(1));
    let refused = verify(&story, &late, &code(&story, &owner.secret)).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (401, "auth.dead_challenge"));
    story.workers.prune().await;
    assert_eq!(story.number("SELECT count(*) FROM auth.pending_sign_ins").await, 0);
}

#[tokio::test]
async fn a_code_works_once_across_routes_and_sign_ins() {
    let story = Story::new().await;
    let owner = owner(&story).await;
    let (first, second) = (challenge(&story).await, challenge(&story).await);
    let now = code(&story, &owner.secret);
    assert_eq!(verify(&story, &first, &now).await.status, 200);
    let again = verify(&story, &second, &now).await;
    assert_eq!((again.status.as_u16(), again.problem()), (401, "auth.wrong_code"));
    assert!(again.text("/message").starts_with("This code was used already"), "{}", again.json);
    let wrong = verify(&story, &second, &wrong_code(&story, &owner.secret)).await;
    assert_eq!((wrong.problem(), wrong.text("/message")), ("auth.wrong_code", "This code is not right"));
    let again = bearer_post(&story, &owner.user, "/api/v1/auth/reauthenticate", &json!({"code": now})).await;
    assert_eq!((again.status.as_u16(), again.problem()), (401, "auth.wrong_code"));
    let before = verify(&story, &second, &code_in(&story, &owner.secret, -1)).await;
    assert_eq!(before.problem(), "auth.wrong_code", "nor one that is older than a used one");
    let next = verify(&story, &second, &code_in(&story, &owner.secret, 1)).await;
    assert_eq!(next.status, 200, "the control: {}", next.json);
}

#[tokio::test]
async fn one_waiting_sign_in_and_one_code_make_one_session_however_often_they_are_sent_at_once() {
    let story = Story::new().await;
    let owner = owner(&story).await;
    let token = challenge(&story).await;
    let now = code(&story, &owner.secret);
    let before = story.number("SELECT count(*) FROM auth.sessions").await;
    let sent = futures_util::future::join_all((0..10).map(|_| verify(&story, &token, &now))).await;
    let good = sent.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(good, 1);
    assert!(sent.iter().all(|reply| [200, 401].contains(&reply.status.as_u16())));
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions").await, before + 1);
}

#[tokio::test]
async fn wrong_codes_share_the_accounts_budget_also_when_sent_at_once() {
    let story = Story::new().await;
    let owner = owner(&story).await;
    let wrong = wrong_code(&story, &owner.secret);
    let tokens = [challenge(&story).await, challenge(&story).await];
    let guesses = (0..20).map(|number| verify(&story, &tokens[number % 2], &wrong));
    let sent = futures_util::future::join_all(guesses).await;
    let looked_at = sent.iter().filter(|reply| reply.problem() == "auth.wrong_code").count();
    assert_eq!(looked_at, 5);
    assert!(
        sent.iter()
            .filter(|reply| reply.status == 429)
            .all(|reply| reply.headers.contains_key("retry-after"))
    );

    let right = code(&story, &owner.secret);
    let other_session = challenge(&story).await;
    let refused = verify(&story, &other_session, &right).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (429, "auth.too_many_codes"));
    let elsewhere =
        bearer_post(&story, &owner.user, "/api/v1/auth/reauthenticate", &json!({"code": right})).await;
    assert_eq!(elsewhere.status, 429, "another route has no budget of its own");
    let recovery = verify(&story, &other_session, &owner.recovery_codes[0]).await;
    assert_eq!(recovery.status, 429, "nor have recovery codes");
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'second_factor_failed'").await,
        5
    );

    story.clock.advance(Duration::minutes(15));
    let later = verify(&story, &challenge(&story).await, &code(&story, &owner.secret)).await;
    assert_eq!(later.status, 200, "{}", later.json);
}

#[tokio::test]
async fn a_recovery_code_works_once_and_is_stored_as_a_hash() {
    let story = Story::new().await;
    let owner = owner(&story).await;
    let paper = &owner.recovery_codes[0];
    let typed = paper.to_uppercase().replace('-', " ");
    assert_eq!(verify(&story, &challenge(&story).await, &typed).await.status, 200);
    let again = verify(&story, &challenge(&story).await, paper).await;
    assert_eq!((again.status.as_u16(), again.problem()), (401, "auth.wrong_code"));
    assert_eq!(story.get(BASE, &owner.user).await.json["recoveryCodesLeft"], json!(9));

    let mut database = story.database.owner().await;
    let stored: Vec<Vec<u8>> = sqlx::query_scalar("SELECT code_hash FROM auth.recovery_codes")
        .fetch_all(&mut database)
        .await
        .unwrap();
    assert_eq!(stored.len(), 9);
    let plain = owner.recovery_codes[1].replace('-', "");
    assert!(stored.iter().all(|hash| !hex(hash).contains(&hex(plain.as_bytes()))));
    let sealed: Vec<u8> = sqlx::query_scalar("SELECT secret_sealed FROM auth.two_factor_auth")
        .fetch_one(&mut database)
        .await
        .unwrap();
    let secret = Secret::try_from_base32(&owner.secret).unwrap();
    assert!(!hex(&sealed).contains(&hex(secret.as_bytes())), "the secret is sealed");

    let renewed = bearer_post(&story, &owner.user, &format!("{BASE}/recovery-codes"), &json!({})).await;
    assert_eq!(renewed.status, 200, "{}", renewed.json);
    let old = verify(&story, &challenge(&story).await, &owner.recovery_codes[2]).await;
    assert_eq!(old.problem(), "auth.wrong_code", "void once there are new ones");
    let new = renewed.json["recoveryCodes"][0].as_str().unwrap();
    assert_eq!(verify(&story, &challenge(&story).await, new).await.status, 200);
}

#[tokio::test]
async fn what_protects_the_account_changes_only_in_a_fresh_session() {
    let story = Story::new().await;
    let user = story.user("ada@example.com").await;
    story.clock.advance(Duration::minutes(11));
    let enrol = format!("{BASE}/enrol");
    let refused = bearer_post(&story, &user, &enrol, &json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (403, "auth.fresh_authentication_required"));
    let wrong = json!({"password": "not the password"});
    let guess = bearer_post(&story, &user, "/api/v1/auth/reauthenticate", &wrong).await;
    assert_eq!((guess.status.as_u16(), guess.problem()), (401, "auth.invalid_credentials"));
    assert_eq!(bearer_post(&story, &user, &enrol, &json!({})).await.status, 403);
    let right = json!({"password": PASSWORD});
    assert_eq!(bearer_post(&story, &user, "/api/v1/auth/reauthenticate", &right).await.status, 200);
    let owner = set_up(&story, user).await;

    story.clock.advance(Duration::minutes(11));
    let renewed = User {
        access_token: story.refresh(&owner.user.refresh_token).await.text("/accessToken").to_owned(),
        ..owner.user
    };
    let codes = format!("{BASE}/recovery-codes");
    assert_eq!(bearer_post(&story, &renewed, &codes, &json!({})).await.status, 403);
    let off = |user: &User| story.client.request(Method::DELETE, BASE).bearer(&user.access_token).send();
    assert_eq!(off(&renewed).await.status, 403);
    let half = bearer_post(&story, &renewed, "/api/v1/auth/reauthenticate", &right).await;
    assert_eq!(
        (half.status.as_u16(), half.problem()),
        (409, "auth.code_needed"),
        "the password is half of the owner"
    );
    let whole = json!({"code": code(&story, &owner.secret)});
    assert_eq!(bearer_post(&story, &renewed, "/api/v1/auth/reauthenticate", &whole).await.status, 200);
    assert_eq!(bearer_post(&story, &renewed, &codes, &json!({})).await.status, 200);
    assert_eq!(off(&renewed).await.status, 204);
    assert_eq!(story.login("ada@example.com").await.json.get("twoFactorRequired"), None);
    assert_eq!(story.number("SELECT count(*) FROM auth.recovery_codes").await, 0);
}

#[tokio::test]
async fn setting_a_factor_up_ends_what_was_opened_without_it() {
    let story = Story::new().await;
    let thief = story.user("ada@example.com").await;
    let bob = story.user("bob@example.com").await;
    let user = story.sign_in("ada@example.com").await;
    let owner = set_up(&story, user).await;
    assert!(story.is_signed_in(&owner.user).await);
    assert!(!story.is_signed_in(&thief).await);
    assert_eq!(story.refresh(&thief.refresh_token).await.status, 401);
    assert!(story.is_signed_in(&bob).await, "nobody else's");
    let exists = bearer_post(&story, &owner.user, &format!("{BASE}/enrol"), &json!({})).await;
    assert_eq!((exists.status.as_u16(), exists.problem()), (409, "auth.second_factor_exists"));
}

#[tokio::test]
async fn a_sign_in_that_waits_while_a_factor_is_set_up_is_asked_for_it() {
    let story = Story::new().await;
    let user = story.user("ada@example.com").await;
    let enrolment = bearer_post(&story, &user, &format!("{BASE}/enrol"), &json!({})).await;
    let body = json!({"code": code(&story, enrolment.text("/secret"))});
    let login = json!({"email": "ada@example.com", "password": PASSWORD});

    let held = story.holding(ACCOUNTS).await;
    let confirm = story.client.post(&format!("{BASE}/confirm"), &body).bearer(&user.access_token);
    let confirmed = story.send_to_wait(confirm, 1).await;
    let waiting = story.send_to_wait(story.client.post("/api/v1/auth/login", &login), 2).await;
    let_go(held).await;
    assert_eq!(confirmed.await.unwrap().status, 200);
    let asked = waiting.await.unwrap();
    assert_eq!(
        (asked.status.as_u16(), &asked.json["twoFactorRequired"]),
        (200, &json!(true)),
        "{}",
        asked.json
    );
    let live = "SELECT count(*) FROM auth.sessions WHERE revoked_at IS NULL";
    assert_eq!(story.number(live).await, 1, "the one that set it up");

    // The other way round: who is in first is signed out.
    let story = Story::new().await;
    let user = story.user("ada@example.com").await;
    let enrolment = bearer_post(&story, &user, &format!("{BASE}/enrol"), &json!({})).await;
    let body = json!({"code": code(&story, enrolment.text("/secret"))});
    let held = story.holding(ACCOUNTS).await;
    let waiting = story.send_to_wait(story.client.post("/api/v1/auth/login", &login), 1).await;
    let confirm = story.client.post(&format!("{BASE}/confirm"), &body).bearer(&user.access_token);
    let confirmed = story.send_to_wait(confirm, 2).await;
    let_go(held).await;
    let first = User::of(&waiting.await.unwrap());
    assert_eq!(confirmed.await.unwrap().status, 200);
    assert!(!story.is_signed_in(&first).await);
    assert!(story.is_signed_in(&user).await, "the control");
}

#[tokio::test]
async fn a_trusted_browser_is_not_asked_until_its_time_is_over_or_its_owner_says_so() {
    let story = Story::new().await;
    let owner = owner(&story).await;
    let token = challenge(&story).await;
    let body = json!({"challengeToken": token, "code": code(&story, &owner.secret), "trustDevice": true});
    let done = story.post(&format!("{BASE}/verify"), &body).await;
    let trusted = cookie(&done, "mana.trusted_device");
    let login = async |email: &str, cookie: &str| {
        let body = json!({"email": email, "password": PASSWORD});
        story.client.post("/api/v1/auth/login", &body).header("cookie", cookie).send().await
    };
    let unasked = User::of(&login("ada@example.com", &trusted).await);
    assert!(story.is_signed_in(&unasked).await);
    let off = story.client.request(Method::DELETE, BASE).bearer(&unasked.access_token).send().await;
    assert_eq!(off.problem(), "auth.fresh_authentication_required", "trust in a browser is no fresh proof");

    set_up(&story, story.user("bob@example.com").await).await;
    let other = login("bob@example.com", &trusted).await;
    assert_eq!(other.json["twoFactorRequired"], json!(true), "of one account only");

    let listed = story.get("/api/v1/auth/trusted-devices", &unasked).await;
    assert_eq!(listed.json.as_array().unwrap().len(), 1);
    let path = format!("/api/v1/auth/trusted-devices/{}", listed.text("/0/id"));
    let revoke = |user: &User| story.client.request(Method::DELETE, &path).bearer(&user.access_token).send();
    let stranger = story.user("eve@example.com").await;
    assert_eq!(revoke(&stranger).await.status, 404);
    assert_eq!(login("ada@example.com", &trusted).await.json.get("twoFactorRequired"), None, "the control");
    assert_eq!(revoke(&unasked).await.status, 204);
    assert_eq!(login("ada@example.com", &trusted).await.json["twoFactorRequired"], json!(true));

    let token = challenge(&story).await;
    let body =
        json!({"challengeToken": token, "code": code_in(&story, &owner.secret, 1), "trustDevice": true});
    let trusted = cookie(&story.post(&format!("{BASE}/verify"), &body).await, "mana.trusted_device");
    story.clock.advance(Duration::days(30));
    assert_eq!(login("ada@example.com", &trusted).await.json["twoFactorRequired"], json!(true));
}

#[tokio::test]
async fn clients_of_the_older_service_do_it_by_cookie() {
    let story = Story::new().await;
    let user = story.user("ada@example.com").await;
    let send = async |path: &str, cookie: &str, body: &Value| {
        story.client.post(&format!("/api/auth/two-factor/{path}"), body).header("cookie", cookie).send().await
    };
    let password = json!({"password": PASSWORD});
    assert_eq!(send("enable", "", &password).await.status, 401);
    assert_eq!(send("enable", &user.cookie, &json!({"password": "not the password"})).await.status, 401);
    let enabled = send("enable", &user.cookie, &password).await;
    assert_eq!(enabled.status, 200, "{}", enabled.json);
    let url: url::Url = enabled.text("/totpURI").parse().unwrap();
    let secret = url.query_pairs().find(|(name, _)| name == "secret").unwrap().1.into_owned();
    let backup = enabled.text("/backupCodes/0").to_owned();
    let confirmed = send("verify-totp", &user.cookie, &json!({"code": code(&story, &secret)})).await;
    assert_eq!((confirmed.status.as_u16(), confirmed.text("/user/id")), (200, user.id.as_str()));

    let sign_in = async || {
        let body = json!({"email": "ada@example.com", "password": PASSWORD});
        let reply = story.post("/api/auth/sign-in/email", &body).await;
        assert_eq!((reply.status.as_u16(), &reply.json["twoFactorRedirect"]), (200, &json!(true)));
        cookie(&reply, "mana.two_factor")
    };
    let waiting = sign_in().await;
    let wrong = json!({"code": wrong_code(&story, &secret)});
    assert_eq!(send("verify-totp", &waiting, &wrong).await.problem(), "auth.wrong_code");
    let done = send("verify-totp", &waiting, &json!({"code": code_in(&story, &secret, 1)})).await;
    assert_eq!(done.status, 200, "{}", done.json);
    let me = story.client.get("/api/v1/auth/me").bearer(done.text("/token")).send().await;
    assert_eq!(me.text("/id"), user.id);
    let session_cookie = cookie(&done, "mana.session_token");
    let session = story.client.get("/api/auth/get-session").header("cookie", &session_cookie).send().await;
    assert_eq!(session.text("/user/id"), user.id);

    let done = send("verify-backup-code", &sign_in().await, &json!({"code": backup})).await;
    assert_eq!(done.status, 200, "{}", done.json);
    assert_eq!(send("verify-backup-code", &sign_in().await, &json!({"code": backup})).await.status, 401);
    let fresh = cookie(&done, "mana.session_token");
    let made = send("generate-backup-codes", &fresh, &password).await;
    assert_eq!((made.status.as_u16(), &made.json["status"]), (200, &json!(true)));
    assert_eq!(made.json["backupCodes"].as_array().unwrap().len(), 10);
    story.clock.advance(Duration::minutes(11));
    assert_eq!(send("disable", &fresh, &password).await.problem(), "auth.fresh_authentication_required");
    let done = send("verify-totp", &sign_in().await, &json!({"code": code(&story, &secret)})).await;
    let off = send("disable", &cookie(&done, "mana.session_token"), &password).await;
    assert_eq!((off.status.as_u16(), &off.json), (200, &json!({"status": true})));
    assert_eq!(story.login("ada@example.com").await.json.get("twoFactorRequired"), None);
}

#[tokio::test]
async fn an_app_is_confirmed_where_it_was_begun_and_within_a_quarter_of_an_hour() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let thief = story.sign_in("ada@example.com").await;
    let enrol = async |user: &User| {
        let enrolment = bearer_post(&story, user, &format!("{BASE}/enrol"), &json!({})).await;
        enrolment.text("/secret").to_owned()
    };
    let by_cookie = async |user: &User, code: &str| {
        let verify = story.client.post("/api/auth/two-factor/verify-totp", &json!({"code": code}));
        verify.header("cookie", &user.cookie).send().await
    };
    // Begun in a session that ends, for a cookie of whichever age.
    let secret = enrol(&thief).await;
    story.client.request(Method::POST, "/api/v1/auth/logout").bearer(&thief.access_token).send().await;
    assert_eq!(by_cookie(&ada, &code(&story, &secret)).await.problem(), "auth.no_second_factor");
    let body = json!({"code": code(&story, &secret)});
    let confirm = bearer_post(&story, &ada, &format!("{BASE}/confirm"), &body).await;
    assert_eq!(confirm.problem(), "auth.no_second_factor");
    // Too long ago.
    let secret = enrol(&ada).await;
    story.clock.advance(Duration::minutes(15));
    assert_eq!(by_cookie(&ada, &code(&story, &secret)).await.problem(), "auth.no_second_factor");
    assert!(story.login("ada@example.com").await.json.get("twoFactorRequired").is_none(), "nothing counts");
    // A newer one, in another session, takes its place.
    let (first, second) = (story.sign_in("ada@example.com").await, story.sign_in("ada@example.com").await);
    let older = enrol(&first).await;
    let newer = enrol(&second).await;
    assert_eq!(by_cookie(&first, &code(&story, &older)).await.problem(), "auth.no_second_factor");
    story.clock.advance(Duration::minutes(14));
    assert_eq!(by_cookie(&second, &code(&story, &newer)).await.status, 200, "the control");
}

#[tokio::test]
async fn what_a_stranger_was_setting_up_goes_with_the_strangers_session() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let login = json!({"email": "ada@example.com", "password": crate::story::PASSWORD});
    let login =
        story.client.post("/api/v1/auth/login", &login).header("user-agent", "Stranger/1").send().await;
    bearer_post(&story, &User::of(&login), &format!("{BASE}/enrol"), &json!({})).await;
    assert_eq!(story.number("SELECT count(*) FROM auth.two_factor_auth").await, 1, "the control");
    let mails = story.mails().await;
    let text = &mails[0].mail.text;
    let token = text.lines().find_map(|line| line.split_once("/not-me?").map(|(_, query)| query)).unwrap();
    let form = story.client.request(Method::POST, "/not-me");
    let ended = form.body("application/x-www-form-urlencoded", token.to_owned()).send().await;
    assert_eq!(ended.status, 200);
    assert_eq!(story.number("SELECT count(*) FROM auth.two_factor_auth").await, 0);
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'second_factor_disabled'").await,
        0,
        "it never counted"
    );
}

#[tokio::test]
async fn the_owner_is_told_when_the_factor_or_its_codes_change() {
    let story = Story::new().await;
    let owner = owner(&story).await;
    let post =
        async |path: &str| bearer_post(&story, &owner.user, &format!("{BASE}{path}"), &json!({})).await;
    assert_eq!(post("/recovery-codes").await.status, 200);
    let off = async || {
        let off = story.client.request(Method::DELETE, BASE).bearer(&owner.user.access_token).send().await;
        assert_eq!(off.status, 204);
    };
    off().await;
    off().await;
    let mails = story.mails().await;
    let subjects: Vec<_> = mails.iter().map(|kept| about(&kept.mail)).collect();
    assert_eq!(
        subjects,
        [
            "Sign-ins to your account ask for no code any more",
            "Your account has new recovery codes",
            "Sign-ins to your account ask for a code now"
        ]
    );
    assert!(mails.iter().all(|kept| kept.mail.text.contains("/not-me?token=mnm_")));
}

#[tokio::test]
async fn the_sign_in_that_follows_login_goes_on_with_its_session_and_is_not_asked_twice() {
    let story = Story::new().await;
    let owner = owner(&story).await;
    let done = verify(&story, &challenge(&story).await, &code(&story, &owner.secret)).await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let follow =
        story.client.post("/api/auth/sign-in/email", &body).header("cookie", &User::of(&done).cookie);
    let follow = follow.send().await;
    assert_eq!((follow.status.as_u16(), &follow.json["redirect"]), (200, &json!(false)), "{}", follow.json);
}

#[tokio::test]
async fn where_everybody_must_have_a_factor_a_sign_in_sets_it_up() {
    let story = Story::new().await;
    let before = story.user("ada@example.com").await;
    let strict = story.replica_with(|settings| settings.two_factor_required = TwoFactorRequired::All).await;
    strict.workers.demand_second_factors().await;
    assert!(!story.is_signed_in(&before).await, "a session without the factor has ended");
    assert_eq!(story.refresh(&before.refresh_token).await.status, 401);

    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let first = strict.client.post("/api/v1/auth/login", &body).send().await;
    assert_eq!(first.json["methods"], json!(["enrolment"]), "{}", first.json);
    let token = json!({"challengeToken": first.text("/challengeToken")});
    let enrolment = strict.client.post(&format!("{BASE}/pending/enrol"), &token).send().await;
    assert_eq!(enrolment.status, 200, "{}", enrolment.json);
    let secret = enrolment.text("/secret");
    let confirm = async |code: &str| {
        let body = json!({"challengeToken": first.text("/challengeToken"), "code": code});
        strict.client.post(&format!("{BASE}/pending/confirm"), &body).send().await
    };
    assert_eq!(confirm(&wrong_code(&story, secret)).await.problem(), "auth.wrong_code");
    let done = confirm(&code(&story, secret)).await;
    assert_eq!(done.json["recoveryCodes"].as_array().map(Vec::len), Some(10), "{}", done.json);
    let user = User::of(&done);
    strict.workers.demand_second_factors().await;
    assert!(story.is_signed_in(&user).await);
    let off = strict.client.request(Method::DELETE, BASE).bearer(&user.access_token).send().await;
    assert_eq!((off.status.as_u16(), off.problem()), (409, "auth.second_factor_required"));
    let again = confirm(&code_in(&story, secret, 1)).await;
    assert_eq!((again.status.as_u16(), again.problem()), (401, "auth.dead_challenge"));

    let second = strict.client.post("/api/v1/auth/login", &body).send().await;
    let token = json!({"challengeToken": second.text("/challengeToken")});
    let refused = strict.client.post(&format!("{BASE}/pending/enrol"), &token).send().await;
    assert_eq!(refused.problem(), "auth.second_factor_exists", "a half sign-in can't replace a factor");
}

#[tokio::test]
async fn where_everybody_must_have_a_factor_sessions_of_any_age_end() {
    let story = Story::new().await;
    let old = story.user("ada@example.com").await;
    story.clock.advance(Duration::days(1));
    let strict = story.replica_with(|settings| settings.two_factor_required = TwoFactorRequired::All).await;
    let young = story.sign_in("ada@example.com").await;
    strict.workers.demand_second_factors().await;
    assert!(!story.is_signed_in(&young).await, "a replica that asks for nothing yet has opened it");
    strict.workers.demand_second_factors_of_old_sessions().await;
    assert_eq!(story.refresh(&old.refresh_token).await.status, 401);
}

#[tokio::test]
async fn where_administrators_must_have_a_factor_the_role_alone_opens_nothing() {
    let story = Story::with(|settings| settings.two_factor_required = TwoFactorRequired::Admins).await;
    let user = story.user("ada@example.com").await;
    story.set_role(&user, "admin").await;
    let path = "/api/v1/admin/service-keys";
    assert_eq!(story.get(path, &user).await.status, 403);
    story.workers.demand_second_factors().await;
    assert!(!story.is_signed_in(&user).await);
    story.set_role(&user, "user").await;
    let owner = set_up(&story, story.sign_in("ada@example.com").await).await;
    story.set_role(&owner.user, "admin").await;
    story.clock.advance(Duration::seconds(60));
    let done = verify(&story, &challenge(&story).await, &code(&story, &owner.secret)).await;
    let admin = User::of(&done);
    assert_eq!(story.get(path, &admin).await.status, 200);
    story.workers.demand_second_factors().await;
    assert!(story.is_signed_in(&admin).await);
}

#[tokio::test]
async fn a_replaced_root_secret_is_left_out_once_the_factors_are_sealed_anew() {
    let story = Story::new().await;
    let owner = owner(&story).await;
    let next = RootSecrets::generate("next", &SystemRng).expose_secret().to_owned();
    let both = SecretString::from(format!("{next},{}", story.root_secret().expose_secret()));
    let next = SecretString::from(next);
    let rekey = async |secrets: &SecretString| {
        let secrets = RootSecrets::parse(secrets).unwrap();
        rekey_secrets(&story.database.service(), &secrets, &SystemRng).await.unwrap()
    };
    assert_eq!(rekey(&next).await, Resealed { resealed: 0, closed: 1 });
    assert_eq!(rekey(&both).await, Resealed { resealed: 1, closed: 0 });
    assert_eq!(rekey(&next).await, Resealed::default(), "done already");
    story.key_chest(&both).rekey().await.unwrap();
    let replica = story.start(|_| {}, &next).await.unwrap();
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let first = replica.client.post("/api/v1/auth/login", &body).send().await;
    let body = json!({"challengeToken": first.text("/challengeToken"), "code": code(&story, &owner.secret)});
    let done = replica.client.post(&format!("{BASE}/verify"), &body).send().await;
    assert_eq!(done.status, 200, "{}", done.json);
}
