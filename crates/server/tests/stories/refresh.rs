//! Refreshing: one token for the next, the same answer for tabs that race, and the end of a session for a thief.

use crate::story::{PASSWORD, Story, User, hex, members, read_jwt, respelled};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use mana_auth::token::root_secret::RootSecrets;
use mana_platform::SystemRng;
use mana_testkit::Reply;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use time::Duration;

const REFRESH: &str = "/api/v1/auth/refresh";

/// The successor of a token.
async fn next(story: &Story, token: &str) -> String {
    let reply = story.refresh(token).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    reply.text("/refreshToken").to_owned()
}

fn is_refused(reply: &Reply) {
    assert_eq!((reply.status.as_u16(), reply.problem()), (401, "auth.invalid_refresh_token"));
    assert_eq!(reply.text("/message"), "Invalid refresh token");
    assert_eq!(reply.text("/error"), "INVALID_REFRESH_TOKEN");
}

fn is_expired(reply: &Reply) {
    assert_eq!((reply.status.as_u16(), reply.problem()), (401, "auth.refresh_token_expired"));
    assert_eq!(reply.text("/message"), "Refresh token expired");
}

async fn remembered(story: &Story, email: &str) -> User {
    story.register(email).await;
    User::of(
        &story
            .post("/api/v1/auth/login", &json!({"email": email, "password": PASSWORD, "rememberMe": true}))
            .await,
    )
}

#[tokio::test]
async fn a_refresh_answers_as_a_sign_in_with_a_new_pair() {
    let story = Story::new().await;
    let registered = story.register("ada@example.com").await;
    let ada = story.sign_in("ada@example.com").await;
    story.clock.advance(Duration::minutes(20));
    assert!(!story.is_signed_in(&ada).await, "the access token has expired");

    let reply = story.refresh(&ada.refresh_token).await;
    assert_eq!(reply.status, 200);
    assert_eq!(members(&reply.json), ["accessToken", "expiresIn", "refreshToken", "tokenType", "user"]);
    assert_eq!(reply.json["user"], registered.json["user"]);
    assert_eq!((&reply.json["expiresIn"], &reply.json["tokenType"]), (&json!(900), &json!("Bearer")));
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert_ne!(reply.text("/refreshToken"), ada.refresh_token);
    let (before, after) = (read_jwt(&ada.access_token), read_jwt(reply.text("/accessToken")));
    assert_eq!((&after[1]["sid"], &after[1]["sub"]), (&before[1]["sid"], &before[1]["sub"]));
    assert_ne!(after[1]["jti"], before[1]["jti"]);
    assert_eq!(
        story.client.get("/api/v1/auth/me").bearer(reply.text("/accessToken")).send().await.status,
        200
    );
}

#[tokio::test]
async fn the_token_before_gets_the_same_successor_again() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let second = next(&story, &ada.refresh_token).await;
    for _ in 0..3 {
        assert_eq!(next(&story, &ada.refresh_token).await, second);
    }
    story.clock.advance(Duration::seconds(9));
    assert_eq!(next(&story, &ada.refresh_token).await, second, "within the grace window");

    let third = next(&story, &second).await;
    assert_eq!(next(&story, &second).await, third);
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'refresh_replayed'").await,
        0
    );
}

#[tokio::test]
async fn an_answer_that_got_lost_is_given_again_also_later() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let second = next(&story, &ada.refresh_token).await;
    story.clock.advance(Duration::hours(5));
    assert_eq!(next(&story, &ada.refresh_token).await, second, "nobody has used it yet");
    assert_ne!(next(&story, &second).await, second);
}

#[tokio::test]
async fn a_token_two_generations_old_ends_the_session() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let other_session = story.sign_in("ada@example.com").await;
    let second = next(&story, &ada.refresh_token).await;
    let third = story.refresh(&second).await;
    let newest = third.text("/refreshToken");

    is_refused(&story.refresh(&ada.refresh_token).await);
    is_refused(&story.refresh(newest).await);
    is_refused(&story.refresh(&second).await);
    for access_token in [&ada.access_token, third.text("/accessToken")] {
        assert_eq!(story.client.get("/api/v1/auth/me").bearer(access_token).send().await.status, 401);
    }
    let replayed = "SELECT count(*) FROM auth.security_events JOIN auth.sessions ON sessions.id = session_id
                    WHERE type = 'refresh_replayed' AND revoked_reason = 'refresh_replayed'";
    assert_eq!(story.number(replayed).await, 1, "noticed once");

    assert!(story.is_signed_in(&other_session).await, "the other device stays signed in");
    next(&story, &other_session.refresh_token).await;
}

#[tokio::test]
async fn an_old_token_is_theft_however_late_it_comes() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut newest = ada.refresh_token.clone();
    for _ in 0..5 {
        newest = next(&story, &newest).await;
        story.clock.advance(Duration::days(1));
    }
    is_refused(&story.refresh(&ada.refresh_token).await);
    is_refused(&story.refresh(&newest).await);
}

#[tokio::test]
async fn thirty_racing_refreshes_have_one_answer_on_two_replicas() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let replica = story.replica().await;
    let mut newest = ada.refresh_token.clone();
    for _ in 0..3 {
        let replies = join_all((0..30).map(|number| {
            let client = if number % 2 == 0 { &story.client } else { &replica };
            client.post(REFRESH, &json!({"refreshToken": newest})).send()
        }))
        .await;
        assert!(replies.iter().all(|reply| reply.status == 200));
        let successors: BTreeSet<_> =
            replies.iter().map(|reply| reply.text("/refreshToken").to_owned()).collect();
        assert_eq!(successors.len(), 1);
        newest = successors.into_iter().next().unwrap();
    }
    assert!(story.is_signed_in(&ada).await);
    assert_eq!(story.number("SELECT generation FROM auth.refresh_chains").await, 4);
}

#[tokio::test]
async fn a_sign_out_that_races_refreshes_wins() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let replica = story.replica().await;
    let replies = join_all((0..20).map(|number| {
        let client = if number % 2 == 0 { &story.client } else { &replica };
        let path = if number == 10 { "/api/v1/auth/logout" } else { REFRESH };
        client.post(path, &json!({"refreshToken": ada.refresh_token})).send()
    }))
    .await;
    assert_eq!(replies[10].status, 200);
    for reply in &replies {
        assert!([200, 401].contains(&reply.status.as_u16()), "{}", reply.json);
        let (refresh_token, access_token) = (reply.text("/refreshToken"), reply.text("/accessToken"));
        if !refresh_token.is_empty() {
            is_refused(&story.refresh(refresh_token).await);
            assert_eq!(story.client.get("/api/v1/auth/me").bearer(access_token).send().await.status, 401);
        }
    }
}

#[tokio::test]
async fn fifty_refreshes_leave_no_rows_behind() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let rows = "SELECT (SELECT count(*) FROM auth.refresh_chains) + (SELECT count(*) FROM auth.sessions)
                     + (SELECT count(*) FROM auth.security_events)";
    let before = story.number(rows).await;
    let mut seen = BTreeSet::from([ada.refresh_token.clone()]);
    let mut newest = ada.refresh_token.clone();
    for _ in 0..50 {
        newest = next(&story, &newest).await;
        assert!(seen.insert(newest.clone()), "a token that was there before");
    }
    assert_eq!(story.number(rows).await, before);
    assert!(story.is_signed_in(&ada).await);
}

#[tokio::test]
async fn seven_days_unused_end_a_session() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.clock.advance(Duration::days(7) - Duration::seconds(1));
    let second = next(&story, &ada.refresh_token).await;
    story.clock.advance(Duration::days(7));
    is_expired(&story.refresh(&second).await);
    assert_eq!(story.refresh(&second).await.text("/error"), "REFRESH_TOKEN_EXPIRED");
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'refresh_replayed'").await,
        0
    );
}

#[tokio::test]
async fn with_remember_me_it_is_thirty_days() {
    let story = Story::new().await;
    let ada = remembered(&story, "ada@example.com").await;
    story.clock.advance(Duration::days(30) - Duration::seconds(1));
    let second = next(&story, &ada.refresh_token).await;
    story.clock.advance(Duration::days(29));
    let third = next(&story, &second).await;
    story.clock.advance(Duration::days(30));
    is_expired(&story.refresh(&third).await);
}

#[tokio::test]
async fn a_session_in_use_does_not_expire() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut newest = ada.refresh_token;
    for _ in 0..5 {
        story.clock.advance(Duration::days(6));
        let reply = story.refresh(&newest).await;
        assert_eq!(reply.status, 200);
        reply.text("/refreshToken").clone_into(&mut newest);
        let session =
            story.client.get("/api/v1/auth/session").bearer(reply.text("/accessToken")).send().await;
        assert_eq!(session.status, 200);
    }
}

#[tokio::test]
async fn a_shorter_life_is_the_operator_s_choice() {
    let story = Story::with(|settings| {
        settings.jwt_refresh_token_expiry = std::time::Duration::from_hours(1);
        settings.jwt_access_token_expiry = std::time::Duration::from_mins(1);
    })
    .await;
    let ada = story.user("ada@example.com").await;
    let reply = story.refresh(&ada.refresh_token).await;
    assert_eq!(reply.json["expiresIn"], json!(60));
    story.clock.advance(Duration::hours(1));
    is_expired(&story.refresh(reply.text("/refreshToken")).await);
}

#[tokio::test]
async fn what_is_not_a_refresh_token_is_refused_and_ends_nothing() {
    let story = Story::new().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    let token = &ada.refresh_token;
    let [prefix, generation, mac] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    assert_eq!(generation, "1");
    let [bobs_prefix, _, bobs_mac] = bob.refresh_token.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let mut forged: Vec<String> =
        ["", " ", "null", "mrt_", "mrt_..", "mrt_a.1.", "'; DROP TABLE auth.refresh_chains; --", "\u{0}"]
            .map(str::to_owned)
            .into();
    forged.extend([
        token[..token.len() - 1].to_owned(),
        token[1..].to_owned(),
        prefix.to_owned(),
        format!("{prefix}.1."),
    ]);
    forged.extend(["A", "=", ".", ".1", " ", "\n", "\u{0}"].map(|tail| format!("{token}{tail}")));
    forged.extend(
        ["0", "2", "3", "-1", "01", "+1", "1e0", "", "9223372036854775807", "99999999999999999999"]
            .map(|other| format!("{prefix}.{other}.{mac}")),
    );
    forged.extend([
        format!("{prefix}.1.{bobs_mac}"),
        format!("{bobs_prefix}.1.{mac}"),
        format!(" {token}"),
        token.to_uppercase(),
    ]);
    forged.extend(["mst_", "mac_", "MRT_", "mrt"].map(|class| token.replacen("mrt_", class, 1)));
    forged.extend([
        ada.access_token.clone(),
        ada.cookie.clone(),
        ada.cookie.split_once('=').unwrap().1.to_owned(),
        ada.id.clone(),
    ]);
    // The last letter of 32 bytes in base64url has two bits that carry nothing.
    forged.extend(respelled(token, 2));
    for bad in &forged {
        is_refused(&story.refresh(bad).await);
    }

    assert!(story.is_signed_in(&ada).await && story.is_signed_in(&bob).await);
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions WHERE revoked_at IS NOT NULL").await, 0);
    next(&story, token).await;
    next(&story, &bob.refresh_token).await;
}

#[tokio::test]
async fn a_disabled_account_is_signed_out_for_good() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.execute("UPDATE auth.users SET disabled_at = now()").await;
    is_refused(&story.refresh(&ada.refresh_token).await);
    story.execute("UPDATE auth.users SET disabled_at = NULL").await;
    is_refused(&story.refresh(&ada.refresh_token).await);
    assert!(!story.is_signed_in(&ada).await);
    next(&story, &story.sign_in("ada@example.com").await.refresh_token).await;
}

#[tokio::test]
async fn nothing_stored_is_or_holds_a_token() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let second = next(&story, &ada.refresh_token).await;
    let stored: Vec<String> = sqlx::query_scalar(
        "SELECT to_jsonb(chain)::text FROM auth.refresh_chains chain
         UNION ALL SELECT to_jsonb(session)::text FROM auth.sessions session
         UNION ALL SELECT to_jsonb(event)::text FROM auth.security_events event",
    )
    .fetch_all(&mut story.database.owner().await)
    .await
    .unwrap();
    assert!(stored.len() >= 4, "{stored:?}");
    let stored = stored.join("\n");
    let last_part = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let cookie = ada.cookie.split_once('=').unwrap().1;
    for (secret, random) in [
        (ada.refresh_token.as_str(), last_part(&ada.refresh_token)),
        (&second, last_part(&second)),
        (&ada.access_token, last_part(&ada.access_token)),
        (cookie, cookie.strip_prefix("mst_").unwrap().to_owned()),
    ] {
        let bytes = URL_SAFE_NO_PAD.decode(&random).unwrap();
        assert!(bytes.len() >= 32);
        for form in [secret, &random, &hex(secret.as_bytes()), &hex(random.as_bytes()), &hex(&bytes)] {
            assert!(!stored.contains(form), "{form} is stored");
        }
    }
    let chain: Value = serde_json::from_str(stored.lines().next().unwrap()).unwrap();
    assert_eq!(chain["generation"], json!(2), "the rows that were searched are the ones in use");
}

#[tokio::test]
async fn refreshing_never_passes_the_absolute_time_out() {
    let story =
        Story::with(|settings| settings.session_max_age = std::time::Duration::from_hours(20 * 24)).await;
    let mut newest = story.user("ada@example.com").await.refresh_token;
    for _ in 0..3 {
        story.clock.advance(Duration::days(6));
        let refreshed = story.refresh(&newest).await;
        assert_eq!(refreshed.status, 200);
        newest = refreshed.text("/refreshToken").to_owned();
    }
    story.clock.advance(Duration::days(2));
    let refused = story.refresh(&newest).await;
    assert_eq!((refused.status.as_u16(), refused.text("/message")), (401, "Refresh token expired"));
}

/// A use of the access token, noted and written down.
async fn uses(story: &Story, access_token: &str) {
    let me = story.client.get("/api/v1/auth/me").bearer(access_token).send().await;
    assert_eq!(me.status, 200);
    story.workers.write_notes().await;
}

const REPLAYED: &str = "SELECT count(*) FROM auth.security_events WHERE type = 'refresh_replayed'";

#[tokio::test]
async fn the_window_of_the_token_before_closes_after_its_successor_was_used() {
    for (grace, seconds) in [(None, 10), (Some(std::time::Duration::from_secs(3)), 3)] {
        let story =
            Story::with(|settings| settings.refresh_grace = grace.unwrap_or(settings.refresh_grace)).await;
        let ada = story.user("ada@example.com").await;
        let second = story.refresh(&ada.refresh_token).await;
        story.clock.advance(Duration::minutes(5));
        uses(&story, second.text("/accessToken")).await;
        story.clock.advance(Duration::seconds(seconds - 1));
        assert_eq!(next(&story, &ada.refresh_token).await, second.text("/refreshToken"), "tabs still race");
        story.clock.advance(Duration::seconds(1));
        assert_eq!(story.number(REPLAYED).await, 0);
        is_refused(&story.refresh(&ada.refresh_token).await);
        assert_eq!(story.number(REPLAYED).await, 1);
        is_refused(&story.refresh(second.text("/refreshToken")).await);
    }
}

#[tokio::test]
async fn use_of_an_older_access_token_does_not_close_the_window() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let second = story.refresh(&ada.refresh_token).await;
    uses(&story, second.text("/accessToken")).await;
    let third = story.refresh(second.text("/refreshToken")).await;
    uses(&story, second.text("/accessToken")).await;
    uses(&story, &ada.access_token).await;
    story.clock.advance(Duration::minutes(10));
    assert_eq!(
        next(&story, second.text("/refreshToken")).await,
        third.text("/refreshToken"),
        "its answer got lost"
    );
}

#[tokio::test]
async fn a_note_that_could_not_be_written_is_written_later() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let second = story.refresh(&ada.refresh_token).await;
    story.execute("REVOKE UPDATE ON auth.refresh_chains FROM mana_service").await;
    uses(&story, second.text("/accessToken")).await;
    story.execute("GRANT UPDATE ON auth.refresh_chains TO mana_service").await;
    uses(&story, second.text("/accessToken")).await;
    story.clock.advance(Duration::seconds(10));
    is_refused(&story.refresh(&ada.refresh_token).await);
}

#[tokio::test]
async fn a_session_that_was_shortened_is_not_revived() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.execute("UPDATE auth.sessions SET expires_at = created_at").await;
    is_expired(&story.refresh(&ada.refresh_token).await);
    assert!(!story.is_signed_in(&ada).await);
}

#[tokio::test]
async fn a_chain_moves_to_the_newest_root_secret_as_it_is_refreshed() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let old = story.root_secret().expose_secret().to_owned();
    let newer = RootSecrets::generate("newer", &SystemRng).expose_secret().to_owned();
    let both = SecretString::from(format!("{newer},{old}"));
    let in_between = story.start(|_| {}, &both).await.unwrap().client;
    let refresh = async |client: &mana_testkit::Client, token: &str| {
        client.post(REFRESH, &json!({"refreshToken": token})).send().await
    };
    let second = refresh(&in_between, &ada.refresh_token).await;
    assert_eq!(
        refresh(&in_between, &ada.refresh_token).await.text("/refreshToken"),
        second.text("/refreshToken")
    );
    let without_old = story.start(|_| {}, &SecretString::from(newer)).await.unwrap().client;
    let unreadable = refresh(&without_old, &ada.refresh_token).await;
    assert_eq!((unreadable.status.as_u16(), unreadable.problem()), (503, "service.unavailable"));
    assert_eq!(refresh(&without_old, second.text("/refreshToken")).await.status, 200);
}
