//! Mana: given at registration and by the day, spent by apps, listed for its owner.

use crate::story::{Story, spend_of};
use futures_util::future::join_all;
use mana_credits::ledger::verify::{Scope, verify};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const BALANCE: &str = "/api/v1/credits/balance";
const TRANSACTIONS: &str = "/api/v1/credits/transactions";
const USE: &str = "/api/v1/credits/use";

#[tokio::test]
async fn a_new_account_has_the_bonus_and_its_line_in_the_history() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let balance = story.get(BALANCE, &ada).await;
    assert_eq!(
        balance.json,
        json!({"balance": 0, "freeCreditsRemaining": 150, "totalEarned": 0, "totalSpent": 0, "dailyFreeCredits": 5, "heldCredits": 0, "debtCredits": 0})
    );
    let history = story.get(TRANSACTIONS, &ada).await;
    let [line] = history.json.as_array().unwrap().as_slice() else { panic!("{}", history.json) };
    assert_eq!(
        (
            line["type"].as_str(),
            line["appId"].as_str(),
            line["description"].as_str(),
            line["amount"].as_i64()
        ),
        (Some("bonus"), Some("system"), Some("Signup bonus"), Some(150))
    );
    assert_eq!((line["balanceBefore"].as_i64(), line["balanceAfter"].as_i64()), (Some(0), Some(150)));
    assert_eq!(line["userId"], json!(ada.id));
    assert_eq!(line["status"], "completed");
}

#[tokio::test]
async fn a_spend_answers_with_its_transaction_and_the_new_balance() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut body = spend_of(30);
    body["metadata"] = json!({"b": 1, "a": [true, null, "\u{0}"]});
    let spent = story.spend(&ada, &body).await;
    assert_eq!(spent.status, 201);
    assert_eq!(spent.json["success"], true);
    assert_eq!(
        spent.json["newBalance"],
        json!({"balance": 0, "freeCreditsRemaining": 120, "totalSpent": 30, "heldCredits": 0})
    );
    let line = &story.get(TRANSACTIONS, &ada).await.json[0];
    assert_eq!(line, &spent.json["transaction"], "the list shows what the spend answered");
    assert_eq!(line["amount"], -30);
    assert_eq!(
        line["metadata"].to_string(),
        r#"{"b":1,"a":[true,null,"\u0000"]}"#,
        "kept in the order given"
    );
}

#[tokio::test]
async fn numbers_in_metadata_keep_their_value_and_strings_all_of_it() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let charge = async |metadata: &str| {
        let body = spend_of(1).to_string();
        let body = body.replacen('{', &format!("{{\"metadata\":{metadata},"), 1);
        let request = story.client.request(http::Method::POST, USE).body("application/json", body);
        request.bearer(&ada.access_token).send().await
    };
    let long = r#""12345678901234567890123""#;
    for (given, kept) in [
        ("9007199254740991", "9007199254740991"),
        ("1.50", "1.5"),
        ("1e3", "1000.0"),
        ("0.12345678901234567890", "0.12345678901234568"),
        (long, long),
    ] {
        let charged = charge(&format!("{{\"z\":{given},\"a\":[{given}]}}")).await;
        let expected = format!("\"metadata\":{{\"z\":{kept},\"a\":[{kept}]}}");
        for reply in [charged, story.get(TRANSACTIONS, &ada).await] {
            let text = String::from_utf8(reply.bytes.to_vec()).unwrap();
            assert!(text.contains(&expected), "{given}: {text}");
        }
    }
    for beyond in ["9007199254740993", "12345678901234567890123", "-1e300"] {
        let refused = charge(&format!("{{\"z\":{beyond}}}")).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (400, "request.invalid_body"), "{beyond}");
    }
    books_are_true(&story).await;
}

#[tokio::test]
async fn daily_credits_come_once_a_day_on_first_touch_and_not_on_the_day_of_sign_up() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    assert_eq!(story.get(BALANCE, &ada).await.integer("/freeCreditsRemaining"), 150);

    let yesterday = "UPDATE credits.balances SET daily_granted_on = daily_granted_on - 1";
    sqlx::query(yesterday).execute(&mut story.database.owner().await).await.unwrap();
    let reads = join_all((0..20).map(|_| story.get(BALANCE, &ada))).await;
    assert!(reads.iter().all(|reply| reply.integer("/freeCreditsRemaining") == 155), "twenty reads at once");

    sqlx::query(yesterday).execute(&mut story.database.owner().await).await.unwrap();
    let spent = story.spend(&ada, &spend_of(160)).await;
    assert_eq!(spent.status, 201, "a spend touches too: {}", spent.json);
    let history = story.get(TRANSACTIONS, &ada).await;
    let lines: Vec<_> =
        history.json.as_array().unwrap().iter().map(|line| line["description"].as_str().unwrap()).collect();
    assert_eq!(lines, ["An answer", "Daily free credits", "Daily free credits", "Signup bonus"]);
}

#[tokio::test]
async fn bonus_and_daily_credits_can_be_switched_off() {
    let story = Story::with(|settings| {
        settings.credits_signup_bonus = 0;
        settings.credits_daily_free = 0;
    })
    .await;
    let ada = story.user("ada@example.com").await;
    sqlx::query("UPDATE credits.balances SET daily_granted_on = daily_granted_on - 1")
        .execute(&mut story.database.owner().await)
        .await
        .unwrap();
    let balance = story.get(BALANCE, &ada).await;
    assert_eq!((balance.integer("/freeCreditsRemaining"), balance.integer("/dailyFreeCredits")), (0, 0));
    assert_eq!(story.get(TRANSACTIONS, &ada).await.json, json!([]));
}

#[tokio::test]
async fn a_spend_beyond_the_balance_is_refused_and_changes_nothing() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let refused = story.spend(&ada, &spend_of(151)).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (400, "credits.insufficient_funds"));
    assert_eq!(refused.text("/message"), "Insufficient credits");
    assert_eq!((refused.integer("/available"), refused.integer("/required")), (150, 151));
    assert_eq!(story.get(BALANCE, &ada).await.integer("/freeCreditsRemaining"), 150);
    assert_eq!(story.get(TRANSACTIONS, &ada).await.json.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn of_a_hundred_parallel_spends_of_one_against_fifty_exactly_fifty_succeed_on_two_replicas() {
    let story = Story::with(|settings| settings.credits_signup_bonus = 50).await;
    let ada = story.user("ada@example.com").await;
    let replica = story.replica().await;
    let spends = (0..100).map(|number| {
        let client = if number % 2 == 0 { &story.client } else { &replica };
        client.post(USE, &spend_of(1)).bearer(&ada.access_token).send()
    });
    let statuses: Vec<_> = join_all(spends).await.iter().map(|reply| reply.status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 50);
    assert_eq!(statuses.iter().filter(|status| **status == 400).count(), 50);
    assert_eq!(story.get(BALANCE, &ada).await.integer("/freeCreditsRemaining"), 0);
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_thousand_identical_requests_with_one_key_have_one_effect_and_one_answer() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let replica = story.replica().await;
    let mut body = spend_of(7);
    body["idempotencyKey"] = json!("once");
    let requests = (0..1000).map(|number| {
        let client = if number % 2 == 0 { &story.client } else { &replica };
        client.post(USE, &body).bearer(&ada.access_token).send()
    });
    let replies = join_all(requests).await;
    let answers: BTreeSet<_> =
        replies.iter().map(|reply| (reply.status.as_u16(), reply.bytes.clone())).collect();
    assert_eq!(answers.len(), 1, "byte for byte the same");
    assert_eq!(answers.first().unwrap().0, 201);
    assert_eq!(replies.iter().filter(|reply| !reply.headers.contains_key("idempotency-hit")).count(), 1);
    assert_eq!(story.get(BALANCE, &ada).await.integer("/totalSpent"), 7);
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_key_names_one_request_of_one_user() {
    let story = Story::new().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    let spend = |user: &crate::story::User, amount: i64, key: &str| {
        story
            .client
            .post(USE, &spend_of(amount))
            .bearer(&user.access_token)
            .header("idempotency-key", key)
            .send()
    };
    let first = spend(&ada, 10, "k").await;
    assert_eq!(first.status, 201);
    let other_request = spend(&ada, 11, "k").await;
    assert_eq!(
        (other_request.status.as_u16(), other_request.problem()),
        (422, "request.idempotency_key_reused")
    );
    let other_user = spend(&bob, 11, "k").await;
    assert_eq!(other_user.status, 201);
    assert_eq!(other_user.text("/transaction/userId"), bob.id);
    assert_eq!(spend(&ada, 10, "k").await.bytes, first.bytes);

    let mut both = spend_of(10);
    both["idempotencyKey"] = json!("k");
    assert_eq!(story.spend(&ada, &both).await.bytes, first.bytes, "header and field are one name");
    let differing =
        story.client.post(USE, &both).bearer(&ada.access_token).header("idempotency-key", "j").send().await;
    assert_eq!((differing.status.as_u16(), differing.problem()), (400, "request.invalid_header"));
}

#[tokio::test]
async fn a_remembered_refusal_stays_refused_also_after_a_top_up() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let spend = || {
        story.client.post(USE, &spend_of(151)).bearer(&ada.access_token).header("idempotency-key", "k").send()
    };
    let refused = spend().await;
    assert_eq!(refused.problem(), "credits.insufficient_funds");
    sqlx::query("UPDATE credits.balances SET daily_granted_on = daily_granted_on - 1")
        .execute(&mut story.database.owner().await)
        .await
        .unwrap();
    assert_eq!(story.get(BALANCE, &ada).await.integer("/freeCreditsRemaining"), 155);
    let again = spend().await;
    assert_eq!((again.status, again.bytes), (refused.status, refused.bytes.clone()));
    assert_eq!(again.headers["idempotency-hit"], "true");
    assert_eq!(story.spend(&ada, &spend_of(151)).await.status, 201, "without the key it is another request");
}

#[tokio::test]
async fn a_session_that_ended_spends_nothing() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.client.request(http::Method::POST, "/api/v1/auth/logout").bearer(&ada.access_token).send().await;
    let refused = story.spend(&ada, &spend_of(1)).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (401, "auth.unauthenticated"));
    let ada = story.sign_in("ada@example.com").await;
    assert_eq!(story.get(BALANCE, &ada).await.integer("/totalSpent"), 0);
}

#[tokio::test]
async fn amounts_that_are_no_positive_integers_are_refused_and_change_nothing() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    for amount in [
        "0",
        "-1",
        "1.5",
        "\"1\"",
        "1e3",
        "9007199254740992",
        "1e30",
        "100000000000000000000000000000000",
        "null",
        "true",
        "[1]",
        "NaN",
    ] {
        let body = format!(r#"{{"amount": {amount}, "appId": "chat", "description": "x"}}"#);
        let refused = story
            .client
            .request(http::Method::POST, USE)
            .body("application/json", body)
            .bearer(&ada.access_token)
            .send()
            .await;
        assert_eq!(refused.status, 400, "{amount}");
        assert!(refused.problem().starts_with("request."), "{amount}: {}", refused.json);
    }
    assert_eq!(story.get(BALANCE, &ada).await.integer("/freeCreditsRemaining"), 150);
    books_are_true(&story).await;
}

#[tokio::test]
async fn the_history_pages_by_cursor_and_by_offset() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    for amount in 1..=6 {
        assert_eq!(story.spend(&ada, &spend_of(amount)).await.status, 201);
    }
    let amounts = |page: &Value| {
        page.as_array().unwrap().iter().map(|line| line["amount"].as_i64().unwrap()).collect::<Vec<_>>()
    };

    let mut walked = Vec::new();
    let mut next = Some(format!("{TRANSACTIONS}?limit=3"));
    while let Some(path) = next {
        let page = story.get(&path, &ada).await;
        walked.extend(amounts(&page.json));
        next = page.headers.get("link").map(|link| {
            let link = link.to_str().unwrap();
            link.split(['<', '>']).nth(1).unwrap().to_owned()
        });
    }
    assert_eq!(walked, [-6, -5, -4, -3, -2, -1, 150]);
    assert_eq!(amounts(&story.get(&format!("{TRANSACTIONS}?limit=2&offset=2"), &ada).await.json), [-4, -3]);

    for bad in [
        "limit=0",
        "limit=-1",
        "limit=501",
        "limit=x",
        "offset=-1",
        "offset=10001",
        "cursor=x",
        "cursor=AAAAAAAAAAA",
        "cursor=%27",
    ] {
        let refused = story.get(&format!("{TRANSACTIONS}?{bad}"), &ada).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (400, "request.invalid_query"), "{bad}");
    }
}

#[tokio::test]
async fn packages_are_for_anybody_and_purchases_for_their_owner() {
    let story = Story::new().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    let mut owner = story.database.owner().await;
    sqlx::query(
        "INSERT INTO credits.packages (id, name, credits, price_euro_cents, active, sort_order, created_at)
         VALUES ('big', 'Big', 1000, 900, true, 2, now()), ('small', 'Small', 100, 100, true, 1, now()), ('old', 'Old', 1, 1, false, 0, now())",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    sqlx::query(
        "WITH version AS (
             INSERT INTO credits.package_versions (package_id, version, name, credits, bonus_credits, price_euro_cents, prices, created_at)
             VALUES ('small', 1, 'Small', 100, 0, 100, '{}', now())
         )
         INSERT INTO credits.purchases (user_id, id, package_id, package_version, credits, price_euro_cents, currency, price_cents, created_at)
         VALUES ($1, 'p1', 'small', 1, 100, 100, 'eur', 100, now())",
    )
    .bind(&ada.id)
    .execute(&mut owner)
    .await
    .unwrap();
    let packages = story.client.get("/api/v1/credits/packages").send().await;
    let ids: Vec<_> =
        packages.json.as_array().unwrap().iter().map(|package| package["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["small", "big"]);
    assert_eq!(packages.json[0]["priceEuroCents"], 100);
    let mine = story.get("/api/v1/credits/purchases", &ada).await;
    assert_eq!((mine.text("/0/id"), mine.text("/0/status")), ("p1", "pending"));
    assert_eq!(story.get("/api/v1/credits/purchases", &bob).await.json, json!([]));
}

/// All invariants that the database can show, over everything that a story has written.
pub(crate) async fn books_are_true(story: &Story) {
    let scope = Scope { since: None, daily_zone: &story.settings.credits_daily_zone };
    let report = verify(&story.database.service(), scope, |_| {}).await.unwrap();
    assert_eq!(report.findings, []);
}
