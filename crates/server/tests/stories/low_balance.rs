//! Owners who are told that little mana is left.

use crate::receiver::Receiver;
use crate::story::{Story, User, about, spend_of};
use crate::till::{CREDITS, Shop};
use crate::webhooks::{add, local};
use futures_util::future::join_all;
use http::Method;
use mana_core_auth::workers::Workers;
use mana_testkit::Reply;
use serde_json::{Value, json};
use stripe_fake::Outcome;

const PATH: &str = "/api/v1/credits/low-balance";

async fn set(story: &Story, user: &User, body: Value, language: &str) -> Reply {
    let request = story.client.request(Method::PUT, PATH).bearer(&user.access_token);
    request.header("accept-language", language).body("application/json", body.to_string()).send().await
}

/// Everybody's address is proven.
async fn verify_addresses(story: &Story) {
    story.execute("UPDATE auth.users SET email_verified = true").await;
}

async fn spend(story: &Story, user: &User, amount: i64) {
    let spent = story.spend(user, &spend_of(amount)).await;
    assert_eq!(spent.status, 201, "{}", spent.json);
}

/// Subjects of the mails so far.
async fn mails(story: &Story) -> Vec<String> {
    story.workers.mail_low_balances().await;
    story.mails().await.iter().map(|kept| about(&kept.mail).to_owned()).collect()
}

#[tokio::test]
async fn whoever_wants_to_know_is_mailed_once_each_time_that_little_is_left() {
    let story = Story::new().await;
    let (ada, bob) = (story.administrator("ada@example.com").await, story.user("bob@example.com").await);
    verify_addresses(&story).await;
    assert_eq!(
        story.get(PATH, &ada).await.json,
        json!({"below": null, "mail": false}),
        "off until it is set"
    );
    let setting = json!({"below": 100, "mail": true});
    assert_eq!(set(&story, &ada, setting.clone(), "de-AT").await.json, setting);
    assert_eq!(story.get(PATH, &ada).await.json, setting);
    // As far as it is set, and by whom.
    spend(&story, &bob, 149).await;
    spend(&story, &ada, 50).await;
    assert_eq!(mails(&story).await, Vec::<String>::new(), "100 are not less than 100");
    spend(&story, &ada, 1).await;
    spend(&story, &ada, 1).await;
    assert_eq!(mails(&story).await, ["Dein Mana geht zur Neige"]);
    let text = story.mails().await[0].mail.text.clone();
    assert!(text.contains("noch 99 Mana") && text.contains("weniger als 100"), "{text}");
    assert_eq!(story.mails().await[0].mail.recipient.as_str(), "ada@example.com");
    spend(&story, &ada, 20).await;
    assert_eq!(mails(&story).await.len(), 1, "once");

    // It rises above, and falls again.
    let grant = json!({"amount": 100, "reason": "a test"});
    let path = format!("/api/v1/admin/users/{}/credits/grant", ada.id);
    let granted = story.client.post(&path, &grant).bearer(&ada.access_token).send().await;
    assert_eq!(granted.status, 201, "{}", granted.json);
    assert_eq!(mails(&story).await.len(), 1);
    spend(&story, &ada, 100).await;
    assert_eq!(mails(&story).await.len(), 2);
    // Whoever switches it off hears no more.
    assert_eq!(set(&story, &ada, json!({}), "en").await.json, json!({"below": null, "mail": false}));
    story.client.post(&path, &grant).bearer(&ada.access_token).send().await;
    spend(&story, &ada, 100).await;
    assert_eq!(mails(&story).await.len(), 2);
    for bad in [
        json!({"below": 0}),
        json!({"below": -1}),
        json!({"below": "5"}),
        json!({"below": 9_007_199_254_740_992_i64}),
        json!({"mail": 1}),
        json!({"above": 1}),
    ] {
        assert_eq!(set(&story, &ada, bad.clone(), "en").await.status, 400, "{bad}");
    }
    crate::credits::books_are_true(&story).await;
}

#[tokio::test]
async fn what_is_set_aside_counts_as_gone_and_two_servers_send_one_mail() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    verify_addresses(&story).await;
    set(&story, &ada, json!({"below": 100, "mail": true}), "en").await;
    let hold =
        story.client.post("/api/v1/credits/holds", &spend_of(60)).bearer(&ada.access_token).send().await;
    assert_eq!(hold.status, 201);
    let other = story.replica_with(|_| {}).await;
    let passes = (0..8).map(|number| if number % 2 == 0 { &story.workers } else { &other.workers });
    join_all(passes.map(Workers::mail_low_balances)).await;
    assert_eq!(mails(&story).await, ["Your mana is running low"]);
    // The capture takes what was gone already.
    let capture = format!("/api/v1/credits/holds/{}/capture", hold.text("/hold/id"));
    let captured = story.client.post(&capture, &json!({})).bearer(&ada.access_token).send().await;
    assert_eq!(captured.status, 201, "{}", captured.json);
    assert_eq!(mails(&story).await.len(), 1);
}

#[tokio::test]
async fn a_server_that_dies_before_it_mails_leaves_the_notice_to_another_and_to_a_deleted_account_nothing_is_mailed()
 {
    let story = Story::new().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    verify_addresses(&story).await;
    for user in [&ada, &bob] {
        set(&story, user, json!({"below": 100, "mail": true}), "en").await;
        spend(&story, user, 60).await;
    }
    story.client.request(Method::DELETE, "/api/v1/auth/account").bearer(&bob.access_token).send().await;
    assert_eq!(story.number("SELECT count(*) FROM credits.low_balance_notices").await, 2);
    let other = story.replica_with(|_| {}).await;
    other.workers.mail_low_balances().await;
    let recipients: Vec<_> =
        story.mails().await.iter().map(|kept| kept.mail.recipient.as_str().to_owned()).collect();
    assert_eq!(recipients.iter().filter(|to| *to == "ada@example.com").count(), 1, "{recipients:?}");
    let subjects: Vec<_> = story.mails().await.iter().map(|kept| about(&kept.mail).to_owned()).collect();
    assert_eq!(subjects.iter().filter(|subject| *subject == "Your mana is running low").count(), 1);
    assert_eq!(story.number("SELECT count(*) FROM credits.low_balance_notices").await, 0);
}

#[tokio::test]
async fn whose_address_is_not_proven_is_not_mailed() {
    let story = Story::new().await;
    let (ada, eve) = (story.user("ada@example.com").await, story.user("a.stranger@example.com").await);
    story.execute("UPDATE auth.users SET email_verified = true WHERE email = 'ada@example.com'").await;
    for user in [&ada, &eve] {
        set(&story, user, json!({"below": 140, "mail": true}), "en").await;
        spend(&story, user, 20).await;
    }
    assert_eq!(mails(&story).await.len(), 1);
    assert_eq!(story.mails().await[0].mail.recipient.as_str(), "ada@example.com", "the control");
    assert_eq!(story.number("SELECT count(*) FROM credits.low_balance_notices").await, 0, "nothing waits");
}

#[tokio::test]
async fn apps_hear_of_low_balances_and_purchases_whoever_causes_them() {
    let shop = Shop::with(local).await;
    let (admin, ada) = (shop.administrator("root@example.com").await, shop.user("ada@example.com").await);
    let receiver = Receiver::start().await;
    add(&shop, &admin, "maps", json!({"url": receiver.url, "events": ["credits.low", "purchase.completed"]}))
        .await;
    set(&shop, &ada, json!({"below": 1_000}), "en").await;
    let bought = shop.buy(&ada).await;
    shop.deliver().await;
    shop.workers.deliver_webhooks().await;
    let heard = receiver.take();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(
        (&heard[0].event["type"], &heard[0].event["data"]),
        (
            &json!("purchase.completed"),
            &json!({"userId": ada.id, "purchaseId": bought.id, "packageId": "small", "credits": CREDITS, "currency": "eur", "priceCents": 999})
        )
    );
    // A spend in another app takes it below.
    spend(&shop, &ada, 300).await;
    shop.workers.deliver_webhooks().await;
    let [low] = &receiver.take()[..] else { panic!() };
    assert_eq!(
        (&low.event["type"], &low.event["data"]),
        (&json!("credits.low"), &json!({"userId": ada.id, "available": CREDITS + 150 - 300, "below": 1_000}))
    );
    // So does money that goes back.
    let second = shop.buy(&ada).await;
    let refund = shop.stripe.dispute(&shop.payment(&second), None, "needs_response").unwrap();
    shop.deliver().await;
    shop.stripe.close_dispute(&refund, "lost").unwrap();
    shop.deliver().await;
    shop.workers.deliver_webhooks().await;
    let mut told = receiver.take_types();
    told.sort();
    assert_eq!(told, ["credits.low", "purchase.completed"], "in whichever order");
    assert_eq!(mails(&shop).await, Vec::<String>::new(), "by mail only if asked for");
    // What is only ordered is not completed.
    let open = shop.go_to_till(&ada).await;
    shop.stripe.act(&open.session, Outcome::Fail).unwrap();
    shop.deliver().await;
    shop.workers.deliver_webhooks().await;
    assert_eq!(receiver.take_types(), Vec::<String>::new());
    shop.closes().await;
}
