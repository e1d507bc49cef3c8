//! What the ledger does beyond a plain spend: holds, refunds, gifts, dry runs, batches, statistics, balances of the past; and
//! which app may do what to whom.

use crate::credits::books_are_true;
use crate::story::{Story, User, let_go, spend_of};
use futures_util::future::join_all;
use http::Method;
use mana_auth::service_key;
use mana_platform::SystemRng;
use mana_testkit::{Client, Reply};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use time::Duration;
use time::format_description::well_known::Rfc3339;

const KEY: &str = "a-service-key-of-the-environment";
const BALANCE: &str = "/api/v1/credits/balance";
const TRANSACTIONS: &str = "/api/v1/credits/transactions";
const USE: &str = "/api/v1/credits/use";
const HOLDS: &str = "/api/v1/credits/holds";
const REFUND: &str = "/api/v1/credits/refund";
const GRANTS: &str = "/api/v1/internal/credits/grants";

async fn with_service() -> Story {
    Story::with(|settings| settings.service_key = Some(SecretString::from(KEY))).await
}

/// As the app `app`, by the key of the environment.
async fn as_app(client: &Client, app: &str, path: &str, body: &Value) -> Reply {
    client.post(path, body).header("x-service-key", KEY).header("x-app-id", app).send().await
}

async fn as_user(story: &Story, user: &User, path: &str, body: &Value) -> Reply {
    story.client.post(path, body).bearer(&user.access_token).send().await
}

fn for_user(user: &User, mut body: Value) -> Value {
    body["userId"] = json!(user.id);
    body
}

fn in_seconds(story: &Story, seconds: i64) -> String {
    use mana_kernel::Clock as _;
    story.clock.now().saturating_add(Duration::seconds(seconds)).format(&Rfc3339).unwrap()
}

async fn gift(story: &Story, user: &User, amount: i64, more: Value) -> Reply {
    let mut body = for_user(user, json!({"amount": amount, "appId": "shop", "description": "A gift"}));
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    as_app(&story.client, "shop", GRANTS, &body).await
}

/// What can be spent, and what is set aside.
async fn balance(story: &Story, user: &User) -> (i64, i64) {
    let reply = story.get(BALANCE, user).await;
    let spendable = reply.integer("/balance").saturating_add(reply.integer("/freeCreditsRemaining"));
    (spendable, reply.integer("/heldCredits"))
}

fn problem(reply: &Reply) -> (u16, &str) {
    (reply.status.as_u16(), reply.problem())
}

#[tokio::test]
async fn a_hold_sets_mana_aside_and_is_captured_in_part() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut body = spend_of(100);
    body["metadata"] = json!({"job": 7});
    let hold = as_user(&story, &ada, HOLDS, &body).await;
    assert_eq!((hold.status.as_u16(), hold.text("/hold/status")), (201, "open"));
    assert_eq!(balance(&story, &ada).await, (50, 100));
    assert_eq!(problem(&story.spend(&ada, &spend_of(51)).await), (400, "credits.insufficient_funds"));

    let path = format!("{HOLDS}/{}", hold.text("/hold/id"));
    let too_much = as_user(&story, &ada, &format!("{path}/capture"), &json!({"amount": 101})).await;
    assert_eq!(problem(&too_much), (400, "credits.capture_exceeds_hold"));
    let captured = as_user(&story, &ada, &format!("{path}/capture"), &json!({"amount": 30})).await;
    assert_eq!((captured.status.as_u16(), captured.text("/hold/status")), (201, "captured"));
    assert_eq!((captured.integer("/transaction/amount"), captured.integer("/hold/captured")), (-30, 30));
    assert_eq!(captured.json["transaction"]["metadata"], json!({"job": 7}));
    assert_eq!(balance(&story, &ada).await, (120, 0));
    for end in ["capture", "release"] {
        let again = as_user(&story, &ada, &format!("{path}/{end}"), &json!({})).await;
        assert_eq!(problem(&again), (409, "credits.hold_ended"), "{end}");
    }
    let seen = story.get(&path, &ada).await;
    assert_eq!((seen.text("/status"), seen.integer("/captured")), ("captured", 30));
    assert_eq!(story.get(TRANSACTIONS, &ada).await.json.as_array().unwrap().len(), 2, "a hold is no line");
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_hold_is_released_by_itself_at_its_time_swept_or_not_and_can_be_extended() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut body = spend_of(150);
    body["expiresInSeconds"] = json!(60);
    let hold = as_user(&story, &ada, HOLDS, &body).await;
    let path = format!("{HOLDS}/{}", hold.text("/hold/id"));
    let extended = as_user(&story, &ada, &format!("{path}/extend"), &json!({"expiresInSeconds": 120})).await;
    assert_eq!(extended.status, 201);
    story.clock.advance(Duration::seconds(119));
    assert_eq!(balance(&story, &ada).await, (0, 150));
    story.clock.advance(Duration::seconds(1));
    assert_eq!(balance(&story, &ada).await, (150, 0), "nobody has touched it");
    assert_eq!(story.get(&path, &ada).await.text("/status"), "expired");
    for (end, body) in
        [("capture", json!({})), ("release", json!({})), ("extend", json!({"expiresInSeconds": 5}))]
    {
        let late = as_user(&story, &ada, &format!("{path}/{end}"), &body).await;
        assert_eq!(problem(&late), (409, "credits.hold_ended"), "{end}");
    }
    assert_eq!(story.spend(&ada, &spend_of(150)).await.status, 201);
    books_are_true(&story).await;
}

#[tokio::test]
async fn of_parallel_ends_of_a_hold_on_two_replicas_exactly_one_wins() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let replica = story.replica().await;
    for _ in 0..5 {
        let hold = as_user(&story, &ada, HOLDS, &spend_of(10)).await;
        let path = format!("{HOLDS}/{}", hold.text("/hold/id"));
        let ends = (0..8).map(|number| {
            let client = if number % 2 == 0 { &story.client } else { &replica };
            let end = if number % 4 < 2 { "capture" } else { "release" };
            client.post(&format!("{path}/{end}"), &json!({})).bearer(&ada.access_token).send()
        });
        let statuses: Vec<_> = join_all(ends).await.iter().map(|reply| reply.status.as_u16()).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 7, "{statuses:?}");
    }
    assert_eq!(balance(&story, &ada).await.1, 0);
    books_are_true(&story).await;
}

#[tokio::test]
async fn what_expires_soonest_goes_first_and_an_answer_says_what_it_took() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    assert_eq!(gift(&story, &ada, 10, json!({"expiresAt": in_seconds(&story, 7200)})).await.status, 201);
    assert_eq!(gift(&story, &ada, 10, json!({"expiresAt": in_seconds(&story, 600)})).await.status, 201);
    assert_eq!(
        gift(
            &story,
            &ada,
            10,
            json!({"effectiveFrom": in_seconds(&story, 300), "expiresAt": in_seconds(&story, 400)})
        )
        .await
        .status,
        201
    );
    let spent = story.spend(&ada, &spend_of(25)).await;
    let slices: Vec<_> = spent.json["slices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slice| {
            (
                slice["source"].as_str().unwrap(),
                slice["amount"].as_i64().unwrap(),
                !slice["expiresAt"].is_null(),
            )
        })
        .collect();
    assert_eq!(slices, [("promotion", 10, true), ("promotion", 10, true), ("allowance", 5, false)]);
    assert_eq!(balance(&story, &ada).await, (145, 0), "what begins later can't be spent yet");
    story.clock.advance(Duration::seconds(300));
    assert_eq!(balance(&story, &ada).await, (155, 0));
    story.clock.advance(Duration::seconds(100));
    assert_eq!(balance(&story, &ada).await, (145, 0), "not shown, though nothing has booked it");
    let spent = story.spend(&ada, &spend_of(1)).await;
    assert_eq!(spent.status, 201);
    let lines = story.get(TRANSACTIONS, &ada).await;
    let kinds: Vec<_> =
        lines.json.as_array().unwrap().iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["usage", "expiry", "usage", "bonus", "bonus", "bonus", "bonus"]);
    assert_eq!(
        problem(&gift(&story, &ada, 1, json!({"expiresAt": in_seconds(&story, -1)})).await),
        (400, "credits.over_already")
    );
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_grant_that_never_expires_is_topped_up() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    for _ in 0..5 {
        assert_eq!(gift(&story, &ada, 10, json!({})).await.status, 201);
    }
    assert_eq!(story.number("SELECT count(*) FROM credits.grants").await, 2, "the bonus and the gifts");
    assert_eq!(story.get(BALANCE, &ada).await.integer("/totalEarned"), 50);
    books_are_true(&story).await;
}

#[tokio::test]
async fn an_app_gives_a_spend_back_in_parts_and_never_more_than_it_took() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    assert_eq!(gift(&story, &ada, 10, json!({"expiresAt": in_seconds(&story, 600)})).await.status, 201);
    let spent = as_app(&story.client, "shop", USE, &for_user(&ada, spend_of(30))).await;
    assert_eq!(spent.status, 201);
    let refund = |amount: i64| {
        let mut body = for_user(&ada, json!({"amount": amount, "appId": "shop", "description": "Sorry"}));
        body["transactionId"] = spent.json["transaction"]["id"].clone();
        body
    };
    let back = as_app(&story.client, "shop", REFUND, &refund(20)).await;
    assert_eq!((back.status.as_u16(), back.integer("/transaction/amount")), (201, 20));
    assert_eq!(back.integer("/newBalance/totalSpent"), 10);
    let other_app = as_app(&story.client, "other", REFUND, &refund(1)).await;
    assert_eq!(problem(&other_app), (404, "credits.no_such_spend"));
    let too_much = as_app(&story.client, "shop", REFUND, &refund(11)).await;
    assert_eq!(problem(&too_much), (400, "credits.refund_exceeds_spend"));

    // The rest was taken from what expires first; it stays expired, and both is booked.
    story.clock.advance(Duration::seconds(600));
    assert_eq!(as_app(&story.client, "shop", REFUND, &refund(4)).await.status, 201);
    assert_eq!(balance(&story, &ada).await, (150, 0));
    let mut revived = refund(6);
    revived["reviveExpired"] = json!(true);
    assert_eq!(as_app(&story.client, "shop", REFUND, &revived).await.status, 201);
    assert_eq!(balance(&story, &ada).await, (156, 0));
    assert_eq!(
        problem(&as_app(&story.client, "shop", REFUND, &refund(1)).await),
        (400, "credits.refund_exceeds_spend")
    );
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_refund_that_revives_mana_of_two_sorts_is_answered_whole_and_line_by_line() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    for (amount, priority) in [(10, 1), (5, 2)] {
        let more = json!({"priority": priority, "expiresAt": in_seconds(&story, 600)});
        assert_eq!(gift(&story, &ada, amount, more).await.status, 201);
    }
    let spent = as_app(&story.client, "shop", USE, &for_user(&ada, spend_of(15))).await;
    story.clock.advance(Duration::seconds(600));
    let mut refund =
        for_user(&ada, json!({"amount": 15, "appId": "shop", "description": "Sorry", "reviveExpired": true}));
    refund["transactionId"] = spent.json["transaction"]["id"].clone();
    let back = as_app(&story.client, "shop", REFUND, &refund).await;
    assert_eq!((back.status.as_u16(), back.integer("/transaction/amount")), (201, 15), "{}", back.json);
    assert_eq!(
        (back.integer("/transaction/balanceBefore"), back.integer("/transaction/balanceAfter")),
        (150, 165)
    );
    assert_eq!((back.integer("/transactions/0/amount"), back.integer("/transactions/1/amount")), (5, 10));
    assert_eq!(back.text("/transaction/id"), back.text("/transactions/0/id"));
    let history = story.get("/api/v1/credits/transactions?limit=2", &ada).await;
    assert_eq!((history.integer("/0/amount"), history.integer("/1/amount")), (10, 5));
    books_are_true(&story).await;
}

#[tokio::test]
async fn parallel_refunds_of_a_spend_on_two_replicas_give_back_no_more_than_it() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    let replica = story.replica().await;
    let spent = as_app(&story.client, "shop", USE, &for_user(&ada, spend_of(50))).await;
    let mut body = for_user(&ada, json!({"amount": 10, "appId": "shop", "description": "Sorry"}));
    body["transactionId"] = spent.json["transaction"]["id"].clone();
    let refunds = (0..16)
        .map(|number| as_app(if number % 2 == 0 { &story.client } else { &replica }, "shop", REFUND, &body));
    let statuses: Vec<_> = join_all(refunds).await.iter().map(|reply| reply.status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 5, "{statuses:?}");
    assert_eq!(balance(&story, &ada).await, (150, 0));
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_refund_that_names_no_spend_finds_the_apps_newest_that_covers_it() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    for (app, amount) in [("shop", 40), ("shop", 5), ("other", 60)] {
        assert_eq!(as_app(&story.client, app, USE, &for_user(&ada, spend_of(amount))).await.status, 201);
    }
    let refund = |amount: i64, key: &str| {
        let body = json!({"amount": amount, "appId": "shop", "description": "Sorry", "idempotencyKey": key});
        for_user(&ada, body)
    };
    let first = as_app(&story.client, "shop", REFUND, &refund(30, "a")).await;
    assert_eq!(first.status, 201);
    assert_eq!(
        as_app(&story.client, "shop", REFUND, &refund(30, "a")).await.bytes,
        first.bytes,
        "a retry finds it"
    );
    assert_eq!(
        problem(&as_app(&story.client, "shop", REFUND, &refund(30, "b")).await),
        (404, "credits.no_such_spend")
    );
    assert_eq!(as_app(&story.client, "shop", REFUND, &refund(5, "c")).await.status, 201);
    assert_eq!(balance(&story, &ada).await, (80, 0));
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_refund_that_no_spend_covers_is_of_several_the_newest_first() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    for (app, amount) in [("shop", 40), ("other", 20), ("shop", 5), ("shop", 3)] {
        assert_eq!(as_app(&story.client, app, USE, &for_user(&ada, spend_of(amount))).await.status, 201);
    }
    let refund =
        |amount: i64| for_user(&ada, json!({"amount": amount, "appId": "shop", "description": "Sorry"}));
    let too_much = as_app(&story.client, "shop", REFUND, &refund(49)).await;
    assert_eq!(problem(&too_much), (404, "credits.no_such_spend"));
    let back = as_app(&story.client, "shop", REFUND, &refund(45)).await;
    assert_eq!((back.status.as_u16(), back.integer("/transaction/amount")), (201, 45), "{}", back.json);
    let parts: Vec<_> =
        back.json["transactions"].as_array().unwrap().iter().map(|line| &line["amount"]).collect();
    assert_eq!(parts, [3, 5, 37]);
    assert_eq!(balance(&story, &ada).await, (127, 0));
    assert_eq!(
        as_app(&story.client, "shop", REFUND, &refund(3)).await.status,
        201,
        "what is left of the oldest"
    );
    assert_eq!(
        problem(&as_app(&story.client, "shop", REFUND, &refund(1)).await),
        (404, "credits.no_such_spend")
    );
    books_are_true(&story).await;
}

#[tokio::test]
async fn parallel_refunds_that_name_no_spend_each_find_theirs_on_two_replicas() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    let replica = story.replica().await;
    for _ in 0..8 {
        assert_eq!(as_app(&story.client, "shop", USE, &for_user(&ada, spend_of(5))).await.status, 201);
    }
    let body = for_user(&ada, json!({"amount": 5, "appId": "shop", "description": "Sorry"}));
    let refunds = (0..10)
        .map(|number| as_app(if number % 2 == 0 { &story.client } else { &replica }, "shop", REFUND, &body));
    let mut statuses: Vec<_> = join_all(refunds).await.iter().map(|reply| reply.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [[201; 8].as_slice(), &[404; 2]].concat());
    let each = "SELECT count(DISTINCT reference) FROM credits.transactions WHERE type = 'refund'";
    assert_eq!((balance(&story, &ada).await, story.number(each).await), ((150, 0), 8));
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_refund_finds_a_spend_behind_a_thousand_newer_lines() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    assert_eq!(gift(&story, &ada, 2000, json!({})).await.status, 201);
    assert_eq!(as_app(&story.client, "shop", USE, &for_user(&ada, spend_of(7))).await.status, 201);
    for count in [1000, 10] {
        let commands = json!({"commands": vec![for_user(&ada, spend_of(1)); count]});
        let many = as_app(&story.client, "other", &format!("{USE}/batch"), &commands).await;
        assert!(many.json["results"].as_array().unwrap().iter().all(|result| result["status"] == 201));
    }
    let refund = for_user(&ada, json!({"amount": 7, "appId": "shop", "description": "Sorry"}));
    assert_eq!(as_app(&story.client, "shop", REFUND, &refund).await.status, 201);
    assert_eq!(
        problem(&as_app(&story.client, "shop", REFUND, &refund).await),
        (404, "credits.no_such_spend")
    );
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_refund_finds_the_spend_that_covers_it_behind_a_thousand_small_ones_of_the_app() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    assert_eq!(gift(&story, &ada, 2000, json!({})).await.status, 201);
    let large = as_app(&story.client, "shop", USE, &for_user(&ada, spend_of(500))).await;
    let commands = json!({"commands": vec![for_user(&ada, spend_of(1)); 1000]});
    let small = as_app(&story.client, "shop", &format!("{USE}/batch"), &commands).await;
    assert!(small.json["results"].as_array().unwrap().iter().all(|result| result["status"] == 201));
    // A thousand times one would be enough, if a refund could be of so many.
    let refund = for_user(&ada, json!({"amount": 500, "appId": "shop", "description": "Sorry"}));
    let back = as_app(&story.client, "shop", REFUND, &refund).await;
    assert_eq!((back.status.as_u16(), back.integer("/transaction/amount")), (201, 500), "{}", back.json);
    let named = json!({"amount": 1, "transactionId": large.text("/transaction/id"), "appId": "shop", "description": "Sorry"});
    let again = as_app(&story.client, "shop", REFUND, &for_user(&ada, named)).await;
    assert_eq!(problem(&again), (400, "credits.refund_exceeds_spend"), "it was that one");
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_key_of_any_app_acts_as_the_app_that_a_request_is_about_unless_its_header_names_one() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    let charged = as_user(&story, &ada, USE, &spend_of(10)).await;
    assert_eq!((charged.status.as_u16(), charged.text("/transaction/appId")), (201, "chat"));
    // As clients of the older service send it: no header but the key's.
    let bare = |path: &str, body: Value| story.client.post(path, &body).header("x-service-key", KEY).send();
    let refund = for_user(&ada, json!({"amount": 10, "appId": "chat", "description": "Sorry"}));
    let back = bare(REFUND, refund.clone()).await;
    assert_eq!((back.status.as_u16(), back.text("/transaction/appId")), (201, "chat"), "{}", back.json);
    let spent = bare(USE, for_user(&ada, spend_of(4))).await;
    assert_eq!((spent.status.as_u16(), spent.text("/transaction/appId")), (201, "chat"));
    assert_eq!(
        bare("/api/v1/internal/credits/refund", for_user(&ada, refund)).await.status,
        404,
        "that was 4"
    );
    let hold = bare(HOLDS, for_user(&ada, spend_of(6))).await;
    assert_eq!((hold.status.as_u16(), hold.text("/hold/appId")), (201, "chat"));
    let path = format!("{HOLDS}/{}", hold.text("/hold/id"));
    let other = as_app(&story.client, "shop", &format!("{path}/capture"), &json!({})).await;
    assert_eq!(
        problem(&other),
        (404, "credits.no_such_hold"),
        "a header stands above what a request is about"
    );
    let captured = bare(&format!("{path}/capture"), json!({})).await;
    assert_eq!((captured.status.as_u16(), captured.text("/transaction/appId")), (201, "chat"));
    let named = as_app(&story.client, "shop", USE, &for_user(&ada, spend_of(1))).await;
    assert_eq!(named.text("/transaction/appId"), "shop", "whatever its body claims");
    books_are_true(&story).await;
}

#[tokio::test]
async fn apps_take_nothing_from_a_disabled_user_but_give_back_and_let_go() {
    let story = with_service().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let keyed = |amount: i64, key: &str| {
        let mut body = for_user(&ada, spend_of(amount));
        body["idempotencyKey"] = json!(key);
        body
    };
    let spent = as_app(&story.client, "shop", USE, &keyed(10, "a")).await;
    let (kept, freed) = (
        as_app(&story.client, "shop", HOLDS, &for_user(&ada, spend_of(5))).await,
        as_app(&story.client, "shop", HOLDS, &for_user(&ada, spend_of(6))).await,
    );
    let turn = |act: &'static str| {
        let path = format!("/api/v1/admin/users/{}/{act}", ada.id);
        story.client.post(&path, &json!({"reason": "Ticket 17"})).bearer(&root.access_token).send()
    };
    assert_eq!(turn("disable").await.status, 200);
    let of_hold = |hold: &Reply, act: &str| format!("{HOLDS}/{}/{act}", hold.text("/hold/id"));
    let mut dry = keyed(1, "c");
    dry["dryRun"] = json!(true);
    for (path, body) in [
        (USE.to_owned(), keyed(1, "b")),
        (USE.to_owned(), dry),
        (HOLDS.to_owned(), for_user(&ada, spend_of(1))),
        (of_hold(&kept, "capture"), json!({})),
    ] {
        let refused = as_app(&story.client, "shop", &path, &body).await;
        assert_eq!(problem(&refused), (409, "credits.user_disabled"), "{path}");
    }
    let again = as_app(&story.client, "shop", USE, &keyed(10, "a")).await;
    assert_eq!(again.bytes, spent.bytes, "what was done is told all the same");
    let refund = for_user(&ada, json!({"amount": 10, "appId": "shop", "description": "Sorry"}));
    assert_eq!(as_app(&story.client, "shop", REFUND, &refund).await.status, 201);
    assert_eq!(as_app(&story.client, "shop", &of_hold(&freed, "release"), &json!({})).await.status, 201);
    assert_eq!(gift(&story, &ada, 1, json!({})).await.status, 201);

    assert_eq!(turn("enable").await.status, 200);
    assert_eq!(as_app(&story.client, "shop", USE, &keyed(1, "b")).await.status, 201, "with the same key");
    assert_eq!(as_app(&story.client, "shop", &of_hold(&kept, "capture"), &json!({})).await.status, 201);
    books_are_true(&story).await;
}

#[tokio::test]
async fn an_apps_charge_that_waited_while_its_user_was_disabled_takes_nothing() {
    let story = with_service().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let body = for_user(&ada, spend_of(7));
    let charge = || story.client.post(USE, &body).header("x-service-key", KEY);
    let disable = || {
        let path = format!("/api/v1/admin/users/{}/disable", ada.id);
        story.client.post(&path, &json!({"reason": "Ticket 17"})).bearer(&root.access_token)
    };
    let held = story.holding("SELECT FROM credits.balances FOR UPDATE").await;
    let charged = story.send_to_wait(charge(), 1).await;
    assert_eq!(disable().send().await.status, 200);
    let_go(held).await;
    assert_eq!(problem(&charged.await.unwrap()), (409, "credits.user_disabled"));
    story.execute("UPDATE auth.users SET disabled_at = NULL").await;

    // Once it has been found that the user may be charged, whoever disables the user waits.
    let held = story.holding("LOCK TABLE credits.transactions IN SHARE MODE").await;
    let charged = story.send_to_wait(charge(), 1).await;
    let disabled = story.send_to_wait(disable(), 2).await;
    let_go(held).await;
    assert_eq!((charged.await.unwrap().status.as_u16(), disabled.await.unwrap().status.as_u16()), (201, 200));
    assert_eq!(problem(&charge().send().await), (409, "credits.user_disabled"));
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut body = spend_of(30);
    body["dryRun"] = json!(true);
    body["idempotencyKey"] = json!("k");
    let dry = story.spend(&ada, &body).await;
    assert_eq!((dry.status.as_u16(), dry.integer("/newBalance/freeCreditsRemaining")), (201, 120));
    assert_eq!(dry.json["slices"][0]["amount"], 30);
    let mut beyond = spend_of(151);
    beyond["dryRun"] = json!(true);
    assert_eq!(problem(&story.spend(&ada, &beyond).await), (400, "credits.insufficient_funds"));
    assert_eq!(balance(&story, &ada).await, (150, 0));
    assert_eq!(story.get(TRANSACTIONS, &ada).await.json.as_array().unwrap().len(), 1);
    body["dryRun"] = json!(false);
    assert_eq!(story.spend(&ada, &body).await.status, 201, "the key is still new");
}

#[tokio::test]
async fn a_spend_on_a_balance_that_has_moved_is_refused() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let etag = |reply: &Reply| reply.headers["etag"].to_str().unwrap().to_owned();
    let seen = etag(&story.get(BALANCE, &ada).await);
    assert_eq!(etag(&story.get(BALANCE, &ada).await), seen);
    let spend = |tag: &str| {
        story.client.post(USE, &spend_of(1)).bearer(&ada.access_token).header("if-match", tag).send()
    };
    assert_eq!(spend(&seen).await.status, 201);
    assert_eq!(problem(&spend(&seen).await), (412, "credits.balance_moved"));
    assert_eq!(as_user(&story, &ada, HOLDS, &spend_of(1)).await.status, 201);
    let seen = etag(&story.get(BALANCE, &ada).await);
    let spends = join_all((0..10).map(|_| spend(&seen))).await;
    assert_eq!(spends.iter().filter(|reply| reply.status == 201).count(), 1);
    assert_eq!(spend("*").await.status, 201);
    for bad in ["x", "\"x\"", "\"1\", \"2\"", ""] {
        assert_eq!(problem(&spend(bad).await), (400, "request.invalid_header"), "{bad}");
    }
}

#[tokio::test]
async fn each_charge_of_a_batch_has_its_own_outcome_and_key() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let charge = |amount: i64, key: &str| {
        let mut body = spend_of(amount);
        body["idempotencyKey"] = json!(key);
        body
    };
    let mut commands: Vec<_> = (0..100).map(|number| charge(1, &format!("k{number}"))).collect();
    commands.push(charge(51, "too much"));
    commands.push(charge(2, "k0"));
    commands.push(charge(1, "k1"));
    let path = format!("{USE}/batch");
    let batch = as_user(&story, &ada, &path, &json!({"commands": commands})).await;
    assert_eq!(batch.status, 200, "{}", batch.json);
    let results = batch.json["results"].as_array().unwrap();
    let statuses: Vec<_> = results.iter().map(|result| result["status"].as_i64().unwrap()).collect();
    assert!(statuses[..100].iter().all(|status| *status == 201), "{statuses:?}");
    assert_eq!(statuses[100..], [400, 422, 201]);
    assert_eq!(
        (&results[100]["body"]["code"], &results[102]["replayed"]),
        (&json!("credits.insufficient_funds"), &json!(true))
    );
    assert_eq!(
        (&results[100]["body"]["available"], &results[100]["body"]["required"]),
        (&json!(50), &json!(51))
    );
    assert_eq!(results[102]["body"], results[1]["body"]);
    let again = as_user(&story, &ada, &path, &json!({"commands": commands})).await;
    assert!(again.json["results"].as_array().unwrap()[..101].iter().all(|result| result["replayed"] == true));
    assert_eq!(balance(&story, &ada).await, (50, 0));
    for bad in
        [json!({"commands": []}), json!({"commands": vec![spend_of(1); 1001]}), json!({"commands": [{}]})]
    {
        assert_eq!(problem(&as_user(&story, &ada, &path, &bad).await), (400, "request.invalid_body"));
    }
    let full = as_user(&story, &ada, &path, &json!({"commands": vec![spend_of(1); 1000]})).await;
    assert_eq!(full.status, 200);
    assert_eq!(balance(&story, &ada).await, (0, 0));
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_balance_of_the_past_is_answered_and_never_changes() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    story.clock.advance(Duration::seconds(60));
    assert_eq!(gift(&story, &ada, 10, json!({"expiresAt": in_seconds(&story, 100)})).await.status, 201);
    assert_eq!(story.spend(&ada, &spend_of(4)).await.status, 201);
    assert_eq!(as_user(&story, &ada, HOLDS, &spend_of(3)).await.status, 201);
    let then = in_seconds(&story, 0);
    let past = |at: &str| {
        let path = format!("{BALANCE}?asOf={}", at.replace('+', "%2B"));
        let (story, ada) = (&story, &ada);
        async move { story.get(&path, ada).await }
    };
    assert_eq!(problem(&past(&then).await), (400, "request.invalid_query"), "it is not over yet");
    story.clock.advance(Duration::seconds(29));
    assert_eq!(
        problem(&past(&then).await),
        (400, "request.invalid_query"),
        "a batch may still be on its way"
    );
    story.clock.advance(Duration::seconds(1));
    let first = past(&then).await.json;
    assert_eq!(
        first,
        json!({"balance": 0, "freeCreditsRemaining": 153, "totalEarned": 10, "totalSpent": 4, "dailyFreeCredits": 5, "heldCredits": 3})
    );
    let expired = in_seconds(&story, 100);
    story.clock.advance(Duration::seconds(200));
    let before_booking = past(&expired).await.json;
    assert_eq!(before_booking["freeCreditsRemaining"], 150);
    assert_eq!(story.spend(&ada, &spend_of(100)).await.status, 201);
    assert_eq!(past(&then).await.json, first);
    assert_eq!(past(&expired).await.json, before_booking, "also after the expiry was booked");
    let first_day = in_seconds(&story, -86_400);
    assert_eq!(past(&first_day).await.integer("/freeCreditsRemaining"), 0);
    for bad in ["yesterday", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00Z"] {
        assert_eq!(problem(&past(bad).await), (400, "request.invalid_query"), "{bad}");
    }
}

#[tokio::test]
async fn usage_is_counted_by_day_and_by_app_and_for_all_users_by_administrators() {
    let story = with_service().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    for (user, app, amount) in [(&ada, "chat", 5), (&ada, "chat", 6), (&ada, "draw", 30), (&bob, "chat", 1)] {
        assert_eq!(as_app(&story.client, app, USE, &for_user(user, spend_of(amount))).await.status, 201);
    }
    let refund = for_user(&ada, json!({"amount": 10, "appId": "draw", "description": "Sorry"}));
    assert_eq!(as_app(&story.client, "draw", REFUND, &refund).await.status, 201);
    let by_app = story.get("/api/v1/credits/usage?groupBy=app", &ada).await;
    assert_eq!(
        by_app.json["items"],
        json!([{"appId": "draw", "spends": 1, "spent": 30, "refunded": 10}, {"appId": "chat", "spends": 2, "spent": 11, "refunded": 0}])
    );
    let by_day = story.get("/api/v1/credits/usage", &ada).await;
    assert_eq!((by_day.integer("/items/0/spent"), by_day.json["items"].as_array().unwrap().len()), (41, 1));
    let path = "/api/v1/admin/credits/usage?groupBy=app";
    assert_eq!(story.get(path, &bob).await.status, 403);
    story.execute("UPDATE auth.users SET role = 'admin' WHERE email = 'bob@example.com'").await;
    let all = story.get(path, &bob).await;
    assert_eq!((all.text("/items/0/appId"), all.integer("/items/1/spent")), ("draw", 12));
    for bad in [
        "groupBy=month",
        "from=x",
        "from=2026-02-30",
        "from=2020-01-01&to=2026-01-01",
        "from=-9999-01-01&to=-9999-01-01",
        "to=1999-12-31",
        "from=2026-02-01&to=2026-01-01",
    ] {
        let refused = story.get(&format!("/api/v1/credits/usage?{bad}"), &ada).await;
        assert_eq!(problem(&refused), (400, "request.invalid_query"), "{bad}");
    }
    books_are_true(&story).await;
}

#[tokio::test]
async fn an_app_sees_what_its_users_have_used_in_it_by_day_and_by_user_and_nothing_of_other_apps() {
    const USAGE: &str = "/api/v1/internal/credits/usage";
    let story = with_service().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    for (user, app, amount) in [(&ada, "chat", 5), (&ada, "chat", 6), (&ada, "draw", 30), (&bob, "chat", 1)] {
        assert_eq!(as_app(&story.client, app, USE, &for_user(user, spend_of(amount))).await.status, 201);
    }
    let refund = for_user(&ada, json!({"amount": 4, "appId": "chat", "description": "Sorry"}));
    assert_eq!(as_app(&story.client, "chat", REFUND, &refund).await.status, 201);
    let key = async |scopes: Value, app: &str| {
        let new = json!({"name": "Usage", "appId": app, "scopes": scopes});
        let new = serde_json::from_value(new).unwrap();
        let database = story.database.service();
        service_key::create(&database, &*story.clock, &SystemRng, &new).await.unwrap().key.expose().to_owned()
    };
    let ask = async |key: &str, query: &str| {
        story.client.get(&format!("{USAGE}{query}")).header("x-service-key", key).send().await
    };
    let chat = key(json!(["usage:read"]), "chat").await;
    let by_day = ask(&chat, "").await;
    assert_eq!((by_day.status.as_u16(), by_day.text("/appId")), (200, "chat"), "{}", by_day.json);
    let [day] = by_day.json["items"].as_array().unwrap().as_slice() else { panic!("{}", by_day.json) };
    assert_eq!((&day["spends"], &day["spent"], &day["refunded"]), (&json!(3), &json!(12), &json!(4)));
    assert_eq!(day["day"], by_day.json["to"]);
    let mut expected = [
        json!({"userId": ada.id, "spends": 2, "spent": 11, "refunded": 4}),
        json!({"userId": bob.id, "spends": 1, "spent": 1, "refunded": 0}),
    ];
    expected.sort_by_key(|line| line["userId"].to_string());
    assert_eq!(ask(&chat, "?groupBy=user").await.json["items"], json!(expected));
    // Page by page.
    let first = ask(&chat, "?groupBy=user&limit=1").await;
    assert_eq!(first.json["items"], json!([expected[0]]));
    let link = first.headers["link"].to_str().unwrap();
    let next = link.strip_prefix(&format!("<{USAGE}")).unwrap().split_once('>').unwrap().0.to_owned();
    let second = ask(&chat, &next).await;
    assert_eq!(second.json["items"], json!([expected[1]]));
    let next =
        second.headers["link"].to_str().unwrap().strip_prefix(&format!("<{USAGE}")).unwrap().to_owned();
    let last = ask(&chat, next.split_once('>').unwrap().0).await;
    assert!(last.json["items"] == json!([]) && !last.headers.contains_key("link"));
    let of_bob = ask(&chat, &format!("?userId={}", bob.id)).await;
    assert_eq!((of_bob.integer("/items/0/spent"), of_bob.integer("/items/0/spends")), (1, 1));
    assert_eq!(ask(&chat, "?userId=nobody").await.json["items"], json!([]));

    let draw = key(json!(["usage:read"]), "draw").await;
    assert_eq!(ask(&draw, "").await.integer("/items/0/spent"), 30);
    let foreign =
        story.client.get(USAGE).header("x-service-key", &draw).header("x-app-id", "chat").send().await;
    assert!(!foreign.status.is_success(), "{}", foreign.json);
    let blind = key(json!(["credits:read", "credits:spend"]), "chat").await;
    assert_eq!(problem(&ask(&blind, "").await), (403, "service.scope_missing"));
    assert_eq!(story.get(USAGE, &ada).await.status, 401, "not with a user's token");
    for bad in [
        "groupBy=app",
        "from=x",
        "from=2020-01-01&to=2026-01-01",
        "userId=a%00b",
        "limit=0",
        "limit=1001",
        "cursor=%25",
        "cursor=AA",
    ] {
        assert_eq!(problem(&ask(&chat, &format!("?{bad}")).await), (400, "request.invalid_query"), "{bad}");
    }
}

#[tokio::test]
async fn each_operation_of_apps_takes_its_own_scope_and_no_other() {
    const SCOPES: [&str; 6] =
        ["credits:read", "credits:spend", "credits:refund", "credits:grant", "sessions:mint", "usage:read"];
    const STORED: &str = "SELECT sum(version)::bigint + (SELECT count(*) FROM credits.transactions) + (SELECT count(*) FROM credits.holds)
            + (SELECT count(*) FROM credits.remembered_answers)
            + (SELECT sum(extract(epoch FROM expires_at))::bigint FROM credits.holds)
        FROM credits.balances";
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    let mut keys = Vec::new();
    for own in SCOPES {
        let others: Vec<&str> = SCOPES.into_iter().filter(|scope| *scope != own).collect();
        for scopes in [vec![own], others] {
            let new = json!({"name": "Shop", "appId": "shop", "scopes": scopes});
            let new = serde_json::from_value(new).unwrap();
            let database = story.database.service();
            let made = service_key::create(&database, &*story.clock, &SystemRng, &new).await.unwrap();
            keys.push(made.key.expose().to_owned());
        }
    }
    let keyed = |body: Value, key: &str| {
        let mut body = for_user(&ada, body);
        body["idempotencyKey"] = json!(key);
        body
    };
    for prefix in ["/api/v1/credits", "/api/v1/internal/credits"] {
        let spent = as_app(&story.client, "shop", USE, &for_user(&ada, spend_of(5))).await;
        let mut holds = Vec::new();
        for _ in 0..3 {
            let hold = as_app(&story.client, "shop", HOLDS, &for_user(&ada, spend_of(1))).await;
            holds.push(hold.text("/hold/id").to_owned());
        }
        let key = |name: &str| format!("{prefix} {name}");
        let mut dry = for_user(&ada, spend_of(1));
        dry["dryRun"] = json!(true);
        let refund = json!({"amount": 1, "appId": "shop", "description": "Sorry"});
        let named = json!({"amount": 1, "description": "Sorry", "transactionId": spent.text("/transaction/id"), "appId": "shop"});
        let capture = json!({"amount": 1, "idempotencyKey": key("capture")});
        let operations = [
            (format!("/balance/{}", ada.id), None, "credits:read"),
            (format!("/balance/{}?asOf=2026-01-01T00:00:00Z", ada.id), None, "credits:read"),
            (format!("/holds/{}", holds[0]), None, "credits:read"),
            ("/use".to_owned(), Some(dry), "credits:spend"),
            ("/use".to_owned(), Some(keyed(spend_of(1), &key("use"))), "credits:spend"),
            ("/holds".to_owned(), Some(keyed(spend_of(1), &key("hold"))), "credits:spend"),
            (format!("/holds/{}/extend", holds[0]), Some(json!({"expiresInSeconds": 999})), "credits:spend"),
            (format!("/holds/{}/capture", holds[1]), Some(capture), "credits:spend"),
            (format!("/holds/{}/release", holds[2]), Some(json!({})), "credits:spend"),
            ("/refund".to_owned(), Some(keyed(refund, &key("refund"))), "credits:refund"),
            ("/refund".to_owned(), Some(keyed(named, &key("named"))), "credits:refund"),
        ];
        let internal = [
            (
                GRANTS.to_owned(),
                Some(keyed(json!({"amount": 1, "appId": "shop", "description": "A gift"}), &key("grant"))),
                "credits:grant",
            ),
            ("/api/v1/internal/credits/usage".to_owned(), None, "usage:read"),
        ];
        let operations = operations.map(|(path, body, scope)| (format!("{prefix}{path}"), body, scope));
        for (path, body, scope) in operations.into_iter().chain(internal) {
            let ask = async |key: &str| {
                let request = match &body {
                    Some(body) => story.client.post(&path, body),
                    None => story.client.get(&path),
                };
                request.header("x-service-key", key).send().await
            };
            let own = SCOPES.into_iter().position(|other| other == scope).unwrap() * 2;
            let stored = story.number(STORED).await;
            let refused = ask(&keys[own + 1]).await;
            assert_eq!(problem(&refused), (403, "service.scope_missing"), "{path} without {scope}");
            assert!(refused.text("/detail").ends_with(scope), "{}", refused.json);
            assert_eq!(story.number(STORED).await, stored, "{path}");
            let done = ask(&keys[own]).await;
            assert!(done.status.is_success(), "{path} with {scope} alone: {}", done.json);
        }
        // Each charge of a batch is answered for itself.
        let batch = json!({"commands": [keyed(spend_of(1), &key("batch"))]});
        for (key, status) in [(&keys[3], 403), (&keys[2], 201)] {
            let stored = story.number(STORED).await;
            let path = format!("{prefix}/use/batch");
            let reply = story.client.post(&path, &batch).header("x-service-key", key).send().await;
            assert_eq!(reply.integer("/results/0/status"), status, "{}", reply.json);
            assert_eq!(story.number(STORED).await > stored, status == 201);
        }
    }
    books_are_true(&story).await;
}

#[tokio::test]
async fn whatever_an_app_may_do_it_may_do_under_the_internal_paths_as_well() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    let internal = |path: &str| path.replace("/api/v1/credits/", "/api/v1/internal/credits/");
    let hold = as_app(&story.client, "shop", &internal(HOLDS), &for_user(&ada, spend_of(10))).await;
    assert_eq!(hold.status, 201, "{}", hold.json);
    let hold = format!("{}/{}", internal(HOLDS), hold.text("/hold/id"));
    let seen = story.client.get(&hold).header("x-service-key", KEY).header("x-app-id", "shop").send().await;
    assert_eq!((seen.status.as_u16(), seen.integer("/amount")), (200, 10), "{}", seen.json);
    for (verb, body) in [("extend", json!({"expiresInSeconds": 600})), ("capture", json!({"amount": 4}))] {
        let done = as_app(&story.client, "shop", &format!("{hold}/{verb}"), &body).await;
        assert!(done.status.is_success(), "{verb}: {}", done.json);
    }
    let second = as_app(&story.client, "shop", &internal(HOLDS), &for_user(&ada, spend_of(1))).await;
    let release = format!("{}/{}/release", internal(HOLDS), second.text("/hold/id"));
    assert!(as_app(&story.client, "shop", &release, &json!({})).await.status.is_success());
    let batch = json!({"commands": [for_user(&ada, spend_of(2)), for_user(&ada, spend_of(3))]});
    let batch = as_app(&story.client, "shop", "/api/v1/internal/credits/use/batch", &batch).await;
    assert_eq!((batch.status.as_u16(), batch.integer("/results/1/status")), (200, 201));
    assert_eq!(balance(&story, &ada).await, (150 - 4 - 5, 0));
    let of_user = as_user(&story, &ada, &internal(USE), &spend_of(1)).await;
    assert_eq!(of_user.status, 201, "users as well, where they may at the other path");
    books_are_true(&story).await;
}

#[tokio::test]
async fn an_app_charges_the_user_it_names_in_its_own_name_whatever_the_body_claims() {
    let story = with_service().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    let mut body = for_user(&ada, spend_of(10));
    body["appId"] = json!("somebody else");
    body["idempotencyKey"] = json!("k");
    let spent = as_app(&story.client, "shop", USE, &body).await;
    assert_eq!((spent.status.as_u16(), spent.text("/transaction/appId")), (201, "shop"));
    assert_eq!(as_app(&story.client, "shop", USE, &body).await.bytes, spent.bytes);
    assert_eq!(
        as_app(&story.client, "draw", USE, &body).await.text("/transaction/appId"),
        "draw",
        "a key is the app's"
    );
    let own = as_user(&story, &ada, USE, &{
        let mut own = spend_of(10);
        own["idempotencyKey"] = json!("k");
        own
    })
    .await;
    assert_eq!(own.status, 201, "and not the user's");
    assert_eq!(balance(&story, &ada).await, (120, 0));
    assert_eq!(
        story.number("SELECT count(*) FROM credits.transactions WHERE service_key_id IS NOT NULL").await,
        2
    );

    assert_eq!(
        problem(&as_app(&story.client, "shop", USE, &spend_of(1)).await),
        (400, "request.invalid_body")
    );
    let mut nobody = spend_of(1);
    nobody["userId"] = json!("nobody");
    assert_eq!(problem(&as_app(&story.client, "shop", USE, &nobody).await), (404, "credits.no_such_user"));
    let foreign = as_user(&story, &bob, USE, &for_user(&ada, spend_of(1))).await;
    assert_eq!(problem(&foreign), (404, "credits.no_such_user"), "a user charges nobody else");
    for path in [REFUND, GRANTS] {
        let body = for_user(&ada, json!({"amount": 1, "appId": "a", "description": "b"}));
        assert_eq!(as_user(&story, &ada, path, &body).await.status, 401, "{path} is for apps");
    }
    // Without the session that the user has ended long ago.
    assert_eq!(
        story
            .client
            .request(Method::POST, "/api/v1/auth/logout")
            .bearer(&ada.access_token)
            .send()
            .await
            .status,
        200
    );
    assert_eq!(
        as_app(&story.client, "shop", "/api/v1/internal/credits/use", &for_user(&ada, spend_of(1)))
            .await
            .status,
        201
    );
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_balance_is_shown_to_apps_that_may_see_it() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    for path in [format!("{BALANCE}/{}", ada.id), format!("/api/v1/internal/credits/balance/{}", ada.id)] {
        let seen = story.client.get(&path).header("x-service-key", KEY).send().await;
        assert_eq!((seen.status.as_u16(), seen.integer("/freeCreditsRemaining")), (200, 150), "{path}");
        assert_eq!(story.get(&path, &ada).await.status, 401, "not with a user's token");
    }
    for unknown in ["nobody", "a%20b", "%00"] {
        let path = format!("{BALANCE}/{unknown}");
        let refused = story.client.get(&path).header("x-service-key", KEY).send().await;
        assert_eq!(problem(&refused), (404, "credits.no_such_user"), "{unknown}");
    }
}

#[tokio::test]
async fn an_apps_hold_is_neither_another_apps_nor_the_users_to_end() {
    let story = with_service().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    let hold = as_app(&story.client, "shop", HOLDS, &for_user(&ada, spend_of(10))).await;
    assert_eq!(hold.status, 201, "{}", hold.json);
    let path = format!("{HOLDS}/{}", hold.text("/hold/id"));
    let as_service = |app: &str| story.client.get(&path).header("x-service-key", KEY).header("x-app-id", app);
    assert_eq!(problem(&as_service("draw").send().await), (404, "credits.no_such_hold"));
    assert_eq!(as_service("shop").send().await.status, 200, "its own");
    let more = json!({"expiresInSeconds": 60});
    for (end, body) in [("capture", json!({})), ("release", json!({})), ("extend", more)] {
        let path = format!("{path}/{end}");
        assert_eq!(
            problem(&as_app(&story.client, "draw", &path, &body).await),
            (404, "credits.no_such_hold"),
            "{end}"
        );
        for user in [&ada, &bob] {
            assert_eq!(
                problem(&as_user(&story, user, &path, &body).await),
                (404, "credits.no_such_hold"),
                "{end}"
            );
        }
    }
    assert_eq!(story.get(&path, &ada).await.status, 200, "its user sees it");
    assert_eq!(problem(&story.get(&path, &bob).await), (404, "credits.no_such_hold"));
    assert_eq!(problem(&story.get(&format!("{HOLDS}/x"), &ada).await), (404, "credits.no_such_hold"));
    assert_eq!(as_app(&story.client, "shop", &format!("{path}/capture"), &json!({})).await.status, 201);
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_users_hold_is_no_apps_to_end_whatever_app_it_is_for() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    let mut body = spend_of(10);
    body["appId"] = json!("shop");
    let hold = as_user(&story, &ada, HOLDS, &body).await;
    let path = format!("{HOLDS}/{}", hold.text("/hold/id"));
    let more = json!({"expiresInSeconds": 60});
    for (end, body) in [("capture", json!({})), ("release", json!({})), ("extend", more.clone())] {
        let refused = as_app(&story.client, "shop", &format!("{path}/{end}"), &body).await;
        assert_eq!(problem(&refused), (404, "credits.no_such_hold"), "{end}");
    }
    assert_eq!(as_user(&story, &ada, &format!("{path}/extend"), &more).await.status, 201, "the control");
    assert_eq!(as_user(&story, &ada, &format!("{path}/capture"), &json!({})).await.status, 201);
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_gift_at_the_end_of_the_calendar_is_refused_and_hurts_nobody() {
    let story = with_service().await;
    let mut users = Vec::new();
    for number in 0..8 {
        users.push(story.user(&format!("owner{number}@example.com")).await);
    }
    for (name, time) in [
        ("expiresAt", "9999-12-31T23:59:59-01:00"),
        ("expiresAt", "9999-12-31T23:59:59Z"),
        ("effectiveFrom", "9999-12-31T23:59:59-01:00"),
        ("effectiveFrom", "0001-01-01T00:00:00Z"),
    ] {
        for refused in join_all(users.iter().map(|user| gift(&story, user, 1, json!({name: time})))).await {
            assert_eq!(problem(&refused), (400, "request.invalid_body"), "{name} {time}");
            assert_eq!(refused.text("/errors/0/pointer"), format!("/{name}"));
        }
    }
    let late = json!({"expiresAt": "9998-12-31T23:59:59-01:00"});
    let gifts = join_all(users.iter().map(|user| gift(&story, user, 1, late.clone()))).await;
    assert!(gifts.iter().all(|reply| reply.status == 400), "it is the year 9999 in UTC");
    let late = json!({"expiresAt": "9998-12-31T22:59:59-01:00"});
    let gifts = join_all(users.iter().map(|user| gift(&story, user, 1, late.clone()))).await;
    assert!(gifts.iter().all(|reply| reply.status == 201), "the control");
    let spends = join_all(users.iter().map(|user| async { story.spend(user, &spend_of(1)).await })).await;
    assert!(spends.iter().all(|reply| reply.status == 201), "on both shards");
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_gift_whose_times_are_finer_than_the_database_keeps_is_kept_as_the_database_keeps_it() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    let times = json!({
        "effectiveFrom": "2026-06-01T02:00:00.0000019+02:00", "expiresAt": "2127-01-01T00:00:00.123456789Z",
    });
    assert_eq!(gift(&story, &ada, 10, times.clone()).await.status, 201);
    books_are_true(&story).await;
    let whole =
        json!({"effectiveFrom": "2026-06-01T00:00:00.000001Z", "expiresAt": "2127-01-01T00:00:00.123456Z"});
    assert_eq!(gift(&story, &ada, 10, whole).await.status, 201);
    assert_eq!(
        story.number("SELECT count(*) FROM credits.grants WHERE source = 'promotion'").await,
        1,
        "the same grant"
    );
    let nothing =
        json!({"effectiveFrom": "2127-01-01T00:00:00.0000001Z", "expiresAt": "2127-01-01T00:00:00.0000002Z"});
    assert_eq!(problem(&gift(&story, &ada, 10, nothing).await), (400, "credits.over_already"));
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_closed_wallet_gives_and_takes_nothing() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    let spent = as_app(&story.client, "shop", USE, &for_user(&ada, spend_of(10))).await;
    assert_eq!(spent.status, 201, "{}", spent.json);
    let hold = as_app(&story.client, "shop", HOLDS, &for_user(&ada, spend_of(10))).await;
    story.execute("UPDATE credits.balances SET closed_at = now()").await;
    let path = format!("{HOLDS}/{}", hold.text("/hold/id"));
    let refusals = [
        story.spend(&ada, &spend_of(1)).await,
        as_app(&story.client, "shop", USE, &for_user(&ada, spend_of(1))).await,
        as_app(&story.client, "shop", HOLDS, &for_user(&ada, spend_of(1))).await,
        as_app(&story.client, "shop", &format!("{path}/capture"), &json!({})).await,
        gift(&story, &ada, 1, json!({})).await,
        as_app(&story.client, "shop", REFUND, &for_user(&ada, spend_of(1))).await,
        as_app(&story.client, "shop", &format!("{path}/extend"), &json!({"expiresInSeconds": 60})).await,
    ];
    let codes: BTreeSet<_> = refusals.iter().map(problem).collect();
    assert_eq!(codes, BTreeSet::from([(409, "credits.wallet_closed")]));
    assert_eq!(as_app(&story.client, "shop", &format!("{path}/release"), &json!({})).await.status, 201);
    books_are_true(&story).await;
}

#[tokio::test]
async fn holds_and_grants_of_a_wallet_are_bounded() {
    let story = with_service().await;
    let ada = story.user("ada@example.com").await;
    assert_eq!(gift(&story, &ada, 100, json!({})).await.status, 201);
    let body = for_user(&ada, spend_of(1));
    let holds = join_all((0..205).map(|_| as_app(&story.client, "shop", HOLDS, &body))).await;
    let refused: Vec<_> = holds.iter().filter(|reply| reply.status != 201).map(problem).collect();
    assert_eq!(refused, [(409, "credits.too_many_holds"); 5]);
    let gifts = join_all((0..205).map(|number| {
        let at = in_seconds(&story, 1000 + number);
        let (story, ada) = (&story, &ada);
        async move { gift(story, ada, 1, json!({"expiresAt": at})).await }
    }))
    .await;
    let refused: Vec<_> = gifts.iter().filter(|reply| reply.status != 201).map(problem).collect();
    assert_eq!(refused, [(409, "credits.too_many_grants"); 7], "two are there already");
    books_are_true(&story).await;
}
