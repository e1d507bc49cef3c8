//! Requests sent at once, to two servers: the database decides, and what may be had once is had once.

use super::{code_in, set_up_second_factor};
use crate::mail_flows::{NEW_PASSWORD, reset_token};
use crate::oauth_linking::link;
use crate::provider::Provider;
use crate::story::{ACCOUNTS, PASSWORD, Story, let_go, spend_of};
use futures_util::future::join_all;
use http::Method;
use mana_testkit::{Client, Reply};
use serde_json::json;
use time::Duration;

fn successes(replies: &[Reply]) -> usize {
    assert!(replies.iter().all(|reply| reply.status.as_u16() < 500), "{replies:?}");
    replies.iter().filter(|reply| reply.status.is_success()).count()
}

#[tokio::test]
async fn sign_ins_at_once_leave_no_more_sessions_than_may_live() {
    let story = Story::with(|settings| {
        settings.sessions_per_user = 3;
        // Attempts that are not decided yet count as failures, or guesses at once would be free.
        settings.sign_in_free_failures = 1_000;
    })
    .await;
    let replica = story.replica().await;
    story.register("ada@example.com").await;
    let credentials = json!({"email": "ada@example.com", "password": PASSWORD});
    let replies = join_all((0..12).map(|number| {
        let client = if number % 2 == 0 { &story.client } else { &replica };
        client.post("/api/v1/auth/login", &credentials).send()
    }))
    .await;
    assert_eq!(successes(&replies), 12);
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions WHERE revoked_at IS NULL").await, 3);
    let mut alive = 0;
    for reply in &replies {
        let me = story.client.get("/api/v1/auth/me").bearer(reply.text("/accessToken")).send().await;
        alive += usize::from(me.status == 200);
    }
    assert_eq!(alive, 3);
}

#[tokio::test]
async fn recovery_codes_that_are_made_at_once_are_ten() {
    const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0";
    let story = Story::new().await;
    let replica = story.replica().await;
    let ada = story.user("ada@example.com").await;
    set_up_second_factor(&story, &ada).await;
    // Both have begun before either goes on.
    let mut owner = story.database.owner().await;
    sqlx::query("BEGIN").execute(&mut owner).await.unwrap();
    sqlx::query("SELECT FROM auth.recovery_codes FOR UPDATE").execute(&mut owner).await.unwrap();
    let made = tokio::spawn(join_all([&story.client, &replica].map(|client| {
        client.post("/api/v1/auth/two-factor/recovery-codes", &json!({})).bearer(&ada.access_token).send()
    })));
    while story.number(WAITING).await < 2 {
        assert!(!made.is_finished(), "the codes are locked");
        tokio::task::yield_now().await;
    }
    sqlx::query("COMMIT").execute(&mut owner).await.unwrap();

    let replies = made.await.unwrap();
    assert_eq!(successes(&replies), 2);
    assert_eq!(story.number("SELECT count(*) FROM auth.recovery_codes").await, 10);
    // Those of one answer are good, those of the other void.
    let mut good = 0;
    for reply in &replies {
        let waiting = story.login("ada@example.com").await;
        let body = json!({"challengeToken": waiting.text("/challengeToken"), "code": reply.text("/recoveryCodes/0")});
        good += usize::from(story.post("/api/v1/auth/two-factor/verify", &body).await.status == 200);
    }
    assert_eq!(good, 1);
}

#[tokio::test]
async fn one_recovery_code_finishes_one_of_many_sign_ins_at_once() {
    let story = Story::new().await;
    let replica = story.replica().await;
    let ada = story.user("ada@example.com").await;
    let factor = set_up_second_factor(&story, &ada).await;
    let mut waiting = Vec::new();
    for _ in 0..6 {
        waiting.push(story.login("ada@example.com").await.text("/challengeToken").to_owned());
    }
    let verify = |token: &str, code: &str, number: usize| {
        let client = if number.is_multiple_of(2) { &story.client } else { &replica };
        let body = json!({"challengeToken": token, "code": code});
        client.post("/api/v1/auth/two-factor/verify", &body).send()
    };
    let one = &factor.recovery_codes[0];
    let replies =
        join_all(waiting.iter().enumerate().map(|(number, token)| verify(token, one, number))).await;
    assert_eq!(successes(&replies), 1);
    assert_eq!(story.number("SELECT count(*) FROM auth.recovery_codes").await, 9);

    // The control: once guessing is free again, another code finishes one.
    story.clock.advance(Duration::minutes(16));
    let waiting = story.login("ada@example.com").await;
    let control = verify(waiting.text("/challengeToken"), &factor.recovery_codes[1], 0).await;
    assert_eq!(control.status, 200, "{}", control.json);
}

#[tokio::test]
async fn one_code_of_an_app_finishes_one_of_many_sign_ins_at_once() {
    let story = Story::new().await;
    let replica = story.replica().await;
    let ada = story.user("ada@example.com").await;
    let factor = set_up_second_factor(&story, &ada).await;
    let mut waiting = Vec::new();
    for _ in 0..6 {
        waiting.push(story.login("ada@example.com").await.text("/challengeToken").to_owned());
    }
    let verify = |client: &Client, token: &str, code: &str| {
        let body = json!({"challengeToken": token, "code": code});
        client.post("/api/v1/auth/two-factor/verify", &body)
    };
    let before = story.number(LIVE).await;
    // All have begun before one goes on.
    let held = story.holding(ACCOUNTS).await;
    let code = code_in(&story, &factor.secret);
    let mut sent = Vec::new();
    for (token, (client, number)) in
        waiting.iter().zip([&story.client, &replica].into_iter().cycle().zip(1..))
    {
        sent.push(story.send_to_wait(verify(client, token, &code), number).await);
    }
    let_go(held).await;
    let replies: Vec<_> = join_all(sent).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(successes(&replies), 1);
    assert_eq!(story.number(LIVE).await, before + 1);
    for refused in replies.iter().filter(|reply| !reply.status.is_success()) {
        assert_eq!((refused.status.as_u16(), refused.problem()), (401, "auth.wrong_code"));
        assert!(refused.text("/message").starts_with("This code was used already"), "{}", refused.json);
    }

    // The control: once guessing is free again, the next code finishes one.
    story.clock.advance(Duration::minutes(16));
    let waiting = story.login("ada@example.com").await;
    let next = code_in(&story, &factor.secret);
    let control = verify(&replica, waiting.text("/challengeToken"), &next).send().await;
    assert_eq!(control.status, 200, "{}", control.json);
}

#[tokio::test]
async fn an_account_that_two_routes_make_at_once_is_one() {
    let story = Story::new().await;
    let replica = story.replica().await;
    let link = story.claim_link().await.unwrap();
    let token = link.split_once('=').unwrap().1;
    let form = format!("token={token}&email=ada%40example.com&password=correct+horse+battery");
    let body = json!({"email": "ADA@example.com", "password": PASSWORD});
    let (claimed, registered) = tokio::join!(
        story
            .client
            .request(Method::POST, "/claim-admin")
            .body("application/x-www-form-urlencoded", form)
            .send(),
        replica.post("/api/v1/auth/register", &body).send(),
    );
    // Whoever comes first makes it; with the right password the other may still take it.
    assert!([200, 400, 409].contains(&claimed.status.as_u16()), "{claimed:?}");
    assert!([201, 409].contains(&registered.status.as_u16()), "{}", registered.json);
    assert!(claimed.status == 200 || registered.status == 201);
    for table in [
        "SELECT count(*) FROM auth.users",
        "SELECT count(*) FROM auth.passwords",
        "SELECT count(*) FROM credits.balances",
        "SELECT count(*) FROM credits.transactions",
    ] {
        assert_eq!(story.number(table).await, 1, "{table}");
    }
}

#[tokio::test]
async fn a_days_credits_that_are_touched_at_once_come_once() {
    let story = Story::new().await;
    let replica = story.replica().await;
    let ada = story.user("ada@example.com").await;
    story.execute("UPDATE credits.balances SET daily_granted_on = daily_granted_on - 1").await;
    let touches = join_all((0..20).map(|number| {
        let client = if number % 2 == 0 { &story.client } else { &replica };
        let request = if number % 4 < 2 {
            client.get("/api/v1/credits/balance")
        } else {
            client.post("/api/v1/credits/use", &spend_of(1))
        };
        request.bearer(&ada.access_token).send()
    }))
    .await;
    assert_eq!(successes(&touches), 20);
    let history = story.get("/api/v1/credits/transactions", &ada).await;
    let daily = history.json.as_array().unwrap().iter();
    let daily = daily.filter(|line| line["description"] == "Daily free credits").count();
    assert_eq!(daily, 1);
    let balance = story.get("/api/v1/credits/balance", &ada).await;
    assert_eq!(balance.integer("/freeCreditsRemaining"), 150 + 5 - 10);
}

const LIVE: &str = "SELECT count(*) FROM auth.sessions WHERE revoked_at IS NULL";

#[tokio::test]
async fn a_sign_in_that_waits_while_the_password_changes_opens_nothing() {
    let login = json!({"email": "ada@example.com", "password": PASSWORD});
    for (what, path) in [
        ("reset", "/api/v1/auth/login"),
        ("reset", "/api/auth/sign-in/email"),
        ("change", "/api/v1/auth/login"),
        ("reset with a factor", "/api/v1/auth/login"),
        ("nothing", "/api/v1/auth/login"),
    ] {
        let story = Story::new().await;
        let replica = story.replica().await;
        let ada = story.user("ada@example.com").await;
        story.execute("UPDATE auth.users SET email_verified = true").await;
        if what == "reset with a factor" {
            set_up_second_factor(&story, &ada).await;
        }
        let token = reset_token(&story, "ada@example.com").await;
        // The sign-in has read the old hash by the time that it waits, and the new one is not there before it does.
        let held = story.holding(ACCOUNTS).await;
        let change = match what {
            "nothing" => None,
            "change" => {
                let body = json!({"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD});
                Some(story.client.post("/api/v1/auth/change-password", &body).bearer(&ada.access_token))
            }
            _ => {
                let body = json!({"token": token, "newPassword": NEW_PASSWORD});
                Some(story.client.post("/api/v1/auth/reset-password", &body))
            }
        };
        let change = match change {
            Some(request) => Some(story.send_to_wait(request, 1).await),
            None => None,
        };
        let waiting = if change.is_some() { 2 } else { 1 };
        let waits = story.send_to_wait(replica.post(path, &login), waiting).await;
        let_go(held).await;
        let Some(change) = change else {
            assert_eq!(waits.await.unwrap().status, 200, "the control: nobody changed anything");
            continue;
        };
        let changed = change.await.unwrap();
        assert_eq!(changed.status, 200, "{what} {}", changed.json);
        let refused = waits.await.unwrap();
        assert_eq!(
            (refused.status.as_u16(), refused.problem()),
            (401, "auth.invalid_credentials"),
            "{what} {path}"
        );
        assert!(!refused.headers.contains_key("set-cookie"), "{what} {path}");
        assert_eq!(story.number(LIVE).await, i64::from(what == "change"), "{what} {path}");
        assert_eq!(story.number("SELECT count(*) FROM auth.pending_sign_ins").await, 0, "{what} {path}");
        let body = json!({"email": "ada@example.com", "password": NEW_PASSWORD});
        assert_eq!(story.post("/api/v1/auth/login", &body).await.status, 200, "the control: {what} {path}");
    }
}

#[tokio::test]
async fn a_squatters_provider_sign_in_that_meets_the_owners_reset_opens_nothing() {
    let there = Provider::start().await;
    let story = there.story(|_| {}).await;
    let replica = story.replica().await;
    let squatted = story.user("victim@example.com").await;
    link(&story, &there, &squatted, "google").await;
    let body = json!({"idToken": there.id_token(&json!({"aud": "google-app"}))});
    let before = story.post("/api/v1/auth/google-signin", &body).await;
    assert_eq!(before.text("/user/id"), squatted.id, "the control: it opens the squatted account");

    let token = reset_token(&story, "victim@example.com").await;
    let held = story.holding(ACCOUNTS).await;
    let reset = json!({"token": token, "newPassword": NEW_PASSWORD});
    let reset = story.send_to_wait(story.client.post("/api/v1/auth/reset-password", &reset), 1).await;
    let waits = story.send_to_wait(replica.post("/api/v1/auth/google-signin", &body), 2).await;
    let_go(held).await;
    assert_eq!(reset.await.unwrap().status, 200);
    let came = waits.await.unwrap();
    assert_eq!(came.status, 200, "{}", came.json);
    assert_ne!(came.text("/user/id"), squatted.id, "the squatter comes to an account of their own");
    let live: i64 =
        sqlx::query_scalar("SELECT count(*) FROM auth.sessions WHERE revoked_at IS NULL AND user_id = $1")
            .bind(&squatted.id)
            .fetch_one(&mut story.database.owner().await)
            .await
            .unwrap();
    assert_eq!(live, 0);
}

#[tokio::test]
async fn a_reset_and_a_second_factor_at_once_both_end() {
    let story = Story::new().await;
    let replica = story.replica().await;
    let ada = story.user("ada@example.com").await;
    story.execute("UPDATE auth.users SET email_verified = true").await;
    let factor = set_up_second_factor(&story, &ada).await;
    let waiting = story.login("ada@example.com").await;
    let token = reset_token(&story, "ada@example.com").await;
    // The second factor has what it locks first, and waits for what the reset deletes.
    let held = story.holding("SELECT FROM auth.pending_sign_ins FOR UPDATE").await;
    let code = code_in(&story, &factor.secret);
    let verify = json!({"challengeToken": waiting.text("/challengeToken"), "code": code});
    let verified = story.send_to_wait(replica.post("/api/v1/auth/two-factor/verify", &verify), 1).await;
    let reset = json!({"token": token, "newPassword": NEW_PASSWORD});
    let reset = story.send_to_wait(story.client.post("/api/v1/auth/reset-password", &reset), 2).await;
    let_go(held).await;
    let (verified, reset) = (verified.await.unwrap(), reset.await.unwrap());
    assert_eq!(
        (verified.status.as_u16(), reset.status.as_u16()),
        (200, 200),
        "{} {}",
        verified.json,
        reset.json
    );
    assert_eq!(story.number(LIVE).await, 0, "the reset ended what the factor opened");
}
