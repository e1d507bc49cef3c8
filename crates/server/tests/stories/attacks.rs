//! Attacks that once succeeded, or nearly, each with its control.

use crate::story::{PASSWORD, Story, WAITING, spend_of};
use futures_util::FutureExt as _;
use http::Method;
use mana_auth::admin::new_claim_link;
use mana_credits::ledger::chain;
use mana_credits::ledger::model::{Change, Counter, Note, Terms, Transaction, TransactionKind, WalletId};
use mana_kernel::{Mana, TransactionId};
use mana_platform::SystemRng;
use serde_json::json;
use sqlx::Row as _;
use time::OffsetDateTime;
use uuid::Uuid;

const USE: &str = "/api/v1/credits/use";

#[tokio::test]
async fn a_name_that_means_something_to_the_parser_is_only_a_bad_name() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut inner = json!("[1]");
    for _ in 0..3 {
        let deep = (0..100)
            .fold(json!({"$serde_json::private::RawValue": inner.to_string()}), |value, _| json!([value]));
        let body = format!(r#"{{"amount":1,"appId":"a","description":"b","metadata":{{"x":{deep}}}}}"#);
        let request = story.client.request(Method::POST, USE).body("application/json", body);
        let refused = request.bearer(&ada.access_token).send().await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (400, "request.invalid_body"));
        inner = deep;
    }
    assert_eq!(story.spend(&ada, &spend_of(1)).await.status, 201);
}

#[tokio::test]
async fn a_spend_that_waited_while_its_session_ended_spends_nothing() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut owner = story.database.owner().await;
    sqlx::query("BEGIN").execute(&mut owner).await.unwrap();
    sqlx::query("SELECT FROM credits.balances FOR UPDATE").execute(&mut owner).await.unwrap();

    let body = spend_of(7);
    let spend = story.spend(&ada, &body);
    tokio::pin!(spend);
    while story.number(WAITING).await == 0 {
        assert!(spend.as_mut().now_or_never().is_none(), "the wallet is locked");
        tokio::task::yield_now().await;
    }
    let out =
        story.client.request(Method::POST, "/api/v1/auth/logout").bearer(&ada.access_token).send().await;
    assert_eq!(out.status, 200);
    sqlx::query("COMMIT").execute(&mut owner).await.unwrap();

    assert_eq!(spend.await.status, 401);
    assert_eq!(story.number("SELECT total_spent FROM credits.balances").await, 0);
    let again = story.sign_in("ada@example.com").await;
    assert_eq!(story.spend(&again, &body).await.status, 201, "the control");
}

#[tokio::test]
async fn thousands_of_sessions_end_at_once() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story
        .execute(
            "INSERT INTO auth.sessions (id, user_id, cookie_hash, remember_me, created_at, last_active_at, expires_at)
             SELECT 'piled-' || n, (SELECT id FROM auth.users), int8send(n), false, now(), now(), now() + interval '1 day'
             FROM generate_series(1::bigint, 20000) n",
        )
        .await;
    let listed = story.get("/api/v1/auth/sessions", &ada).await;
    assert_eq!(listed.json.as_array().unwrap().len(), 500);
    let ended =
        story.client.request(Method::DELETE, "/api/v1/auth/sessions").bearer(&ada.access_token).send().await;
    assert_eq!(ended.status, 204);
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions WHERE revoked_at IS NULL").await, 1);
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'session_revoked'").await,
        20_000
    );
    assert!(story.is_signed_in(&ada).await);
}

#[tokio::test]
async fn a_disabled_account_can_not_use_up_the_claim() {
    let story = Story::new().await;
    story.register("shut@example.com").await;
    story.execute("UPDATE auth.users SET disabled_at = now()").await;
    let link = new_claim_link(&story.database.service(), &*story.clock, &SystemRng).await.unwrap().unwrap();
    let token = link.split_once("token=").unwrap().1;
    let claim = |email: &str| {
        let form = format!("token={token}&email={email}&password={}", PASSWORD.replace(' ', "+"));
        story
            .client
            .request(Method::POST, "/claim-admin")
            .body("application/x-www-form-urlencoded", form)
            .send()
    };
    assert_eq!(claim("shut@example.com").await.status, 400);
    assert_eq!(story.number("SELECT count(*) FROM auth.users WHERE role = 'admin'").await, 0);
    assert_eq!(claim("root@example.com").await.status, 200, "the link is still good");
}

#[tokio::test]
async fn a_planted_cookie_does_not_shield_the_visitors_own() {
    let story = Story::new().await;
    let (mallory, ada) = (story.user("mallory@example.com").await, story.user("ada@example.com").await);
    let both = format!("{}; {}", mallory.cookie, ada.cookie);
    let out = story.client.request(Method::POST, "/api/v1/auth/logout").header("cookie", &both).send().await;
    assert_eq!(out.status, 200);
    assert!(!story.is_signed_in(&ada).await);
}

#[tokio::test]
async fn metadata_is_small_and_exact() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let spend = |metadata: &str| {
        let body = format!(r#"{{"amount":1,"appId":"a","description":"b","metadata":{metadata}}}"#);
        story
            .client
            .request(Method::POST, USE)
            .body("application/json", body)
            .bearer(&ada.access_token)
            .send()
    };
    for bad in [
        r#"{"n":18446744073709551616}"#,
        r#"{"n":-1e300}"#,
        r#"{"n":9007199254740992}"#,
        &format!(r#"{{"n":"{}"}}"#, "x".repeat(8200)),
    ] {
        let refused = spend(bad).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (400, "request.invalid_body"));
        assert!(refused.text("/errors/0/pointer").starts_with("/metadata"), "{}", refused.json);
    }
    assert_eq!(spend(r#"{"n":9007199254740991,"m":-0.5}"#).await.status, 201);
}

/// Invariant 5: what is stored, read back column by column, makes the same chain.
#[tokio::test]
async fn the_chain_of_hashes_recomputes_from_what_is_stored() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut body = spend_of(30);
    body["metadata"] = json!({"z": [1, "\u{0}"], "a": null});
    body["idempotencyKey"] = json!("k");
    assert_eq!(story.spend(&ada, &body).await.status, 201);
    story.execute("UPDATE credits.balances SET daily_granted_on = daily_granted_on - 1").await;
    assert_eq!(story.spend(&ada, &spend_of(1)).await.status, 201);

    let mut owner = story.database.owner().await;
    let lines =
        sqlx::query("SELECT *, metadata::text AS metadata_text FROM credits.transactions ORDER BY sequence")
            .fetch_all(&mut owner)
            .await
            .unwrap();
    assert_eq!(lines.len(), 4);
    let mut head = [0; 32];
    for line in lines {
        let slices =
            line.get::<Vec<i64>, _>("slice_grants").into_iter().zip(line.get::<Vec<i64>, _>("slice_amounts"));
        let transaction = Transaction {
            id: TransactionId(line.get::<Uuid, _>("id")),
            at: line.get::<OffsetDateTime, _>("created_at"),
            sequence: line.get("sequence"),
            kind: TransactionKind::from_database(line.get("type")).unwrap(),
            amount: line.get("amount"),
            balance_after: Mana::new(line.get("balance_after")).unwrap(),
            counter: Counter::from_database(line.get("counter")).unwrap(),
            slices: slices.map(|(grant, amount)| Change { grant, amount }).collect(),
            reference: line.get("reference"),
            hold_id: None,
            note: Note {
                app_id: line.get("app_id"),
                description: line.get("description"),
                metadata: line.get("metadata_text"),
                idempotency_key: line.get("idempotency_key"),
                service_key_id: line.get("service_key_id"),
            },
            hash: [0; 32],
        };
        // The first line makes the one grant that there is.
        let made = (transaction.sequence == 1).then_some(&Terms::ALLOWANCE);
        head = chain::link(&head, WalletId(line.get("wallet_id")), &transaction, made);
        assert_eq!(line.get::<Vec<u8>, _>("hash"), head);
    }
    let stored: Vec<u8> =
        sqlx::query_scalar("SELECT head FROM credits.balances").fetch_one(&mut owner).await.unwrap();
    assert_eq!(stored, head);
}
