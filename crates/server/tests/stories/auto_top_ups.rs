//! Auto top-up: one fall below the threshold is one purchase, whatever happens on the way, and nobody is charged who has not agreed.

use crate::mail_flows::{token_of, verification_link};
use crate::payments::all_is_well;
use crate::story::{PASSWORD, User, about, let_go, spend_of};
use crate::till::{CREDITS, PRICE, PaymentPasses as _, Shop};
use futures_util::future::{LocalBoxFuture, join_all};
use http::Method;
use mana_credits::purchase::reconcile;
use mana_kernel::Clock as _;
use mana_platform::mail::KeptMail;
use mana_testkit::{Client, Reply, Request};
use serde_json::{Value, json};
use stripe_fake::{Knobs, Outcome};
use time::Duration;

const SUBJECT: &str = "Dein Mana wird nicht mehr aufgeladen";
const PATH: &str = "/api/v1/credits/auto-top-up";

fn wish() -> Value {
    json!({"thresholdMana": 100, "packageId": "small", "monthlyCapCents": 2 * PRICE, "consent": true})
}

fn with(name: &str, value: Value) -> Value {
    let mut wish = wish();
    wish[name] = value;
    wish
}

fn change(client: &Client, user: &User, body: &Value) -> Request {
    let request = client.request(Method::PUT, PATH).body("application/json", body.to_string());
    request.bearer(&user.access_token).header("accept-language", "de")
}

async fn put(shop: &Shop, user: &User, body: &Value) -> Reply {
    change(&shop.client, user, body).send().await
}

async fn turn_off(shop: &Shop, user: &User) -> Reply {
    shop.client.request(Method::DELETE, PATH).bearer(&user.access_token).send().await
}

async fn shown(shop: &Shop, user: &User) -> Value {
    let shown = shop.get(PATH, user).await;
    assert_eq!(shown.status, 200, "{}", shown.json);
    shown.json
}

/// Saves a card at the till that the answer leads to.
async fn save_card(shop: &Shop, waiting: &Reply) -> String {
    assert_eq!((waiting.status.as_u16(), waiting.text("/status")), (200, "setup"), "{}", waiting.json);
    let session = waiting.text("/setupUrl").rsplit('/').next().unwrap().to_owned();
    shop.stripe.act(&session, Outcome::Pay).unwrap();
    shop.deliver().await;
    shop.stripe.last("payment_method").unwrap()["id"].as_str().unwrap().to_owned()
}

/// Turns it on with a card, which is given back.
async fn turn_on(shop: &Shop, user: &User) -> String {
    let card = save_card(shop, &put(shop, user, &wish()).await).await;
    assert_eq!(shown(shop, user).await["status"], "active");
    card
}

async fn spend(shop: &Shop, user: &User, amount: i64) {
    let spent = shop.spend(user, &spend_of(amount)).await;
    assert_eq!(spent.status, 201, "{}", spent.json);
}

/// Works until nothing is left to do.
async fn work(shop: &Shop) {
    for _ in 0..3 {
        shop.workers.work_on_payments().await;
    }
}

/// The pass makes a payment, and something happens before it hears that it is made.
fn while_a_payment_is_made<'a>(
    shop: &'a Shop,
    meanwhile: impl Future<Output = ()> + 'a,
) -> LocalBoxFuture<'a, ()> {
    while_stripe_holds(shop, "/payment_intents", shop.workers.top_up_wallets(), meanwhile)
}

/// Something happens between a call to Stripe and its answer.
fn while_stripe_holds<'a, T: 'a>(
    shop: &'a Shop,
    call: &'static str,
    work: impl Future<Output = T> + 'a,
    meanwhile: impl Future<Output = ()> + 'a,
) -> LocalBoxFuture<'a, T> {
    Box::pin(async move {
        shop.stripe.hold_answers(Some(call));
        let meanwhile = async {
            shop.stripe.is_holding().await;
            meanwhile.await;
            shop.stripe.hold_answers(None);
        };
        tokio::join!(work, meanwhile).0
    })
}

/// Mails that say that it is paused.
async fn pauses_told(shop: &Shop) -> usize {
    shop.mails().await.iter().filter(|kept| about(&kept.mail) == SUBJECT).count()
}

fn deletion(shop: &Shop, user: &User) -> Request {
    let deletion = shop.client.request(Method::DELETE, "/api/v1/auth/account").bearer(&user.access_token);
    deletion.body("application/json", json!({"password": PASSWORD}).to_string())
}

async fn delete_account(shop: &Shop, user: &User) {
    let gone = deletion(shop, user).send().await;
    assert_eq!(gone.status, 200, "{}", gone.json);
}

fn session_of(waiting: &Reply) -> String {
    assert_eq!((waiting.status.as_u16(), waiting.text("/status")), (200, "setup"), "{}", waiting.json);
    waiting.text("/setupUrl").rsplit('/').next().unwrap().to_owned()
}

async fn top_ups(shop: &Shop) -> i64 {
    shop.number("SELECT count(*) FROM credits.purchases WHERE origin = 'auto_top_up'").await
}

fn charges(shop: &Shop) -> usize {
    shop.stripe.count_calls("POST /v1/payment_intents/")
}

async fn events(shop: &Shop, user: &User) -> Vec<(String, Value)> {
    let events = shop.get("/api/v1/auth/security-events?limit=100", user).await;
    let all = events.json.as_array().unwrap().iter();
    all.filter(|event| event["type"].as_str().unwrap().starts_with("auto_top_up"))
        .map(|event| (event["type"].as_str().unwrap().to_owned(), event["detail"].clone()))
        .collect()
}

#[tokio::test]
async fn it_is_off_until_its_owner_agrees_and_saves_a_card() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let off = shown(&shop, &ada).await;
    assert_eq!((&off["status"], &off["thresholdMana"]), (&json!("off"), &Value::Null));
    spend(&shop, &ada, 149).await;
    work(&shop).await;
    assert_eq!(top_ups(&shop).await, 0, "off by default");

    for (body, status, code) in [
        (with("consent", json!(false)), 400, "request.invalid_body"),
        (with("packageId", json!("none")), 404, "payments.no_such_package"),
        (with("currency", json!("jpy")), 400, "payments.no_such_price"),
        (with("thresholdMana", json!(CREDITS + 1)), 400, "payments.package_below_threshold"),
        (with("monthlyCapCents", json!(PRICE - 1)), 400, "payments.cap_below_price"),
        (with("successUrl", json!("https://evil.example/")), 400, "payments.foreign_url"),
        (with("thresholdMana", json!(0)), 400, "request.invalid_body"),
    ] {
        let refused = put(&shop, &ada, &body).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (status, code), "{body}");
    }
    let mut silent = wish();
    silent.as_object_mut().unwrap().remove("consent");
    assert_eq!(put(&shop, &ada, &silent).await.problem(), "request.invalid_body");
    assert_eq!(shown(&shop, &ada).await["status"], "off");

    let waiting = put(&shop, &ada, &wish()).await;
    work(&shop).await;
    assert_eq!(shown(&shop, &ada).await["status"], "setup");
    assert_eq!(events(&shop, &ada).await, []);
    save_card(&shop, &waiting).await;
    let on = shown(&shop, &ada).await;
    assert_eq!(
        (&on["status"], &on["priceCents"], &on["credits"]),
        (&json!("active"), &json!(PRICE), &json!(CREDITS))
    );
    assert!(on["consentedAt"].is_string() && on["setupUrl"].is_null(), "{on}");
    assert_eq!(events(&shop, &ada).await, [("auto_top_up_on".to_owned(), Value::Null)]);
    work(&shop).await;
    assert_eq!(top_ups(&shop).await, 0, "nothing has fallen since");
    spend(&shop, &ada, 1).await;
    work(&shop).await;
    assert_eq!((top_ups(&shop).await, shop.paid(&ada).await), (1, (CREDITS, 0)));
    let bought = shop.get("/api/v1/credits/purchases", &ada).await;
    assert_eq!((bought.text("/0/state"), bought.integer("/0/priceCents")), ("paid", PRICE));
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn one_fall_is_one_purchase_with_fifty_spends_and_two_replicas() {
    let shop = Shop::open().await;
    let replica = shop.replica_with(|_| {}).await;
    let ada = shop.user("ada@example.com").await;
    turn_on(&shop, &ada).await;
    let spends = join_all((0..60).map(|_| spend(&shop, &ada, 1)));
    let passes = join_all((0..8).map(|turn| {
        let workers = if turn % 2 == 0 { &shop.workers } else { &replica.workers };
        async move {
            for _ in 0..5 {
                workers.work_on_payments().await;
            }
        }
    }));
    tokio::join!(spends, passes);
    tokio::join!(shop.workers.work_on_payments(), replica.workers.work_on_payments());
    shop.stripe.turn(Knobs { duplicates: 3, reorder: true, ..Knobs::default() });
    shop.deliver().await;
    assert_eq!((top_ups(&shop).await, shop.paid(&ada).await), (1, (CREDITS, 0)));
    assert_eq!(shop.number("SELECT count(*) FROM credits.transactions WHERE type = 'purchase'").await, 1);
    assert_eq!(shop.stripe.count_calls("POST /v1/payment_intents"), 2, "made once and charged once");

    // The next fall is another one.
    spend(&shop, &ada, CREDITS).await;
    tokio::join!(shop.workers.work_on_payments(), replica.workers.work_on_payments());
    work(&shop).await;
    assert_eq!(top_ups(&shop).await, 2);
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn a_charge_whose_answer_is_lost_is_found_and_made_once() {
    let shop = Shop::open().await;
    let replica = shop.replica_with(|_| {}).await;
    let ada = shop.user("ada@example.com").await;
    let wish = with("monthlyCapCents", json!(10 * PRICE));
    save_card(&shop, &put(&shop, &ada, &wish).await).await;
    spend(&shop, &ada, 60).await;
    // The payment is made, and nobody here hears of it, as if the server had died.
    shop.stripe.lose_answers(Some("/payment_intents"));
    work(&shop).await;
    let payment = shop.stripe.last("payment_intent").unwrap()["id"].as_str().unwrap().to_owned();
    shop.stripe.lose_answers(None);
    replica.workers.work_on_payments().await;
    assert_eq!(shop.paid(&ada).await.0, 0, "it is somebody's for a while");
    shop.clock.advance(Duration::minutes(3));
    replica.workers.work_on_payments().await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    assert_eq!(shop.stripe.last("payment_intent").unwrap()["id"], payment, "the same one");

    // This time it dies between the charge and the note: the next pass, a delivery, or the comparison credits it.
    for way in ["pass", "delivery", "comparison"] {
        let ada = shop.sign_in("ada@example.com").await;
        spend(&shop, &ada, CREDITS).await;
        let paid = shop.paid(&ada).await.0;
        // Made and noted, and then the answer to the charge is lost.
        let before = charges(&shop);
        shop.stripe.lose_answers(Some("/confirm"));
        work(&shop).await;
        shop.stripe.lose_answers(None);
        assert!(charges(&shop) > before);
        let ada = shop.sign_in("ada@example.com").await;
        assert_eq!(shop.paid(&ada).await.0, paid, "{way}");
        match way {
            "pass" => {
                shop.clock.advance(Duration::minutes(3));
                replica.workers.work_on_payments().await;
            }
            "delivery" => shop.deliver().await,
            _ => replica.workers.reconcile_payments().await,
        }
        let ada = shop.sign_in("ada@example.com").await;
        assert_eq!(shop.paid(&ada).await.0, paid + CREDITS, "{way}");
        shop.clock.advance(Duration::minutes(3));
        work(&shop).await;
        shop.deliver().await;
        let ada = shop.sign_in("ada@example.com").await;
        assert_eq!(shop.paid(&ada).await.0, paid + CREDITS, "{way}, and not again");
        assert_eq!(shown(&shop, &ada).await["purchaseId"], Value::Null);
    }
    assert_eq!(top_ups(&shop).await, 4);
    shop.closes().await;
}

#[tokio::test]
async fn a_card_that_is_declined_is_tried_three_times_and_its_owner_is_told() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let card = turn_on(&shop, &ada).await;
    shop.stripe.decline(&card, Some("insufficient_funds"));
    spend(&shop, &ada, 60).await;
    for (tries, pause) in [(1, Duration::hours(1)), (2, Duration::days(1)), (3, Duration::ZERO)] {
        work(&shop).await;
        shop.deliver().await;
        assert_eq!(
            shop.stripe.count_calls("POST /v1/payment_intents"),
            1 + tries + usize::from(tries == 3),
            "{tries}"
        );
        if tries < 3 {
            shop.clock.advance(pause - Duration::minutes(2));
            work(&shop).await;
            assert_eq!(charges(&shop), tries, "not before its time");
            shop.clock.advance(Duration::minutes(3));
        }
    }
    let ada = shop.sign_in("ada@example.com").await;
    let paused = shown(&shop, &ada).await;
    assert_eq!((&paused["status"], &paused["pauseReason"]), (&json!("paused"), &json!("declined")));
    assert_eq!(events(&shop, &ada).await[0], ("auto_top_up_paused".to_owned(), json!("declined")));
    let mails = shop.mails().await;
    assert_eq!(about(&mails[0].mail), SUBJECT);
    let text = mails[0].mail.text.clone();
    assert!(text.contains("mehrmals abgelehnt"), "{text}");
    assert_eq!(top_ups(&shop).await, 1);
    assert_eq!(
        shop.number(
            "SELECT count(*) FROM credits.purchases WHERE origin = 'auto_top_up' AND state = 'failed'"
        )
        .await,
        1
    );
    // Nothing more is tried.
    shop.clock.advance(Duration::days(40));
    work(&shop).await;
    assert_eq!(charges(&shop), 4, "three tries and the end of it");
    assert_eq!(shop.mails().await.len(), mails.len());

    // The mail leads to a till, where its owner pays in person.
    let at = text.find("/pay/").unwrap() + "/pay/".len();
    let session: String = text[at..].chars().take_while(|letter| !letter.is_whitespace()).collect();
    shop.stripe.act(&session, Outcome::Pay).unwrap();
    shop.deliver().await;
    let ada = shop.sign_in("ada@example.com").await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    // And turned on again with the same card, or another one, it goes on.
    shop.stripe.decline(&card, None);
    assert_eq!(put(&shop, &ada, &wish()).await.text("/status"), "active");
    spend(&shop, &ada, CREDITS).await;
    work(&shop).await;
    assert_eq!(top_ups(&shop).await, 2);
    let waiting = put(&shop, &ada, &with("replacePaymentMethod", json!(true))).await;
    assert_ne!(save_card(&shop, &waiting).await, card);
    assert_eq!(shop.stripe.find(&card).unwrap()["customer"], Value::Null, "the old one is forgotten");
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn a_bank_that_wants_to_see_its_customer_is_not_asked_twice() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let card = turn_on(&shop, &ada).await;
    shop.stripe.decline(&card, Some("authentication_required"));
    spend(&shop, &ada, 60).await;
    work(&shop).await;
    let paused = shown(&shop, &ada).await;
    assert_eq!(paused["pauseReason"], "authentication_required");
    assert!(shop.mails().await[0].mail.text.contains("/pay/"));
    assert_eq!((charges(&shop), top_ups(&shop).await), (2, 1), "one try, and the end of it");

    // A card that is gone at Stripe is none, and neither is one of a customer who is gone.
    shop.stripe.decline(&card, None);
    assert_eq!(put(&shop, &ada, &wish()).await.text("/status"), "active");
    let customer = shop.stripe.find(&card).unwrap()["customer"].as_str().unwrap().to_owned();
    shop.stripe.delete_customer(&customer).unwrap();
    spend(&shop, &ada, 1).await;
    work(&shop).await;
    assert_eq!(shown(&shop, &ada).await["pauseReason"], "payment_method_gone");
    let waiting = put(&shop, &ada, &with("replacePaymentMethod", json!(true))).await;
    save_card(&shop, &waiting).await;
    spend(&shop, &ada, 1).await;
    work(&shop).await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0), "the control");
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn a_month_costs_no_more_than_its_cap() {
    let shop = Shop::open().await;
    let replica = shop.replica_with(|_| {}).await;
    let ada = shop.user("ada@example.com").await;
    turn_on(&shop, &ada).await;
    spend(&shop, &ada, 60).await;
    work(&shop).await;
    for _ in 0..2 {
        spend(&shop, &ada, CREDITS).await;
        let passes = (0..6).map(|turn| {
            if turn % 2 == 0 { shop.workers.work_on_payments() } else { replica.workers.work_on_payments() }
        });
        join_all(passes).await;
    }
    assert_eq!((top_ups(&shop).await, shop.paid(&ada).await), (2, (90, 0)));
    let capped = shown(&shop, &ada).await;
    assert_eq!((&capped["status"], &capped["usedThisMonthCents"]), (&json!("active"), &json!(2 * PRICE)));
    assert!(capped["cappedUntil"].is_string(), "{capped}");
    shop.clock.advance(Duration::days(32));
    work(&shop).await;
    let ada = shop.sign_in("ada@example.com").await;
    assert_eq!((top_ups(&shop).await, shop.paid(&ada).await), (3, (90 + CREDITS, 0)), "a new month");
    let now = shown(&shop, &ada).await;
    assert_eq!((&now["usedThisMonthCents"], &now["cappedUntil"]), (&json!(PRICE), &Value::Null));
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn a_device_that_was_only_found_unlocked_can_t_agree_to_charges() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    shop.clock.advance(Duration::minutes(11));
    let refused = put(&shop, &ada, &wish()).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (403, "auth.fresh_authentication_required"));
    assert_eq!(shown(&shop, &ada).await["status"], "off");
    let ada = shop.sign_in("ada@example.com").await;
    turn_on(&shop, &ada).await;
    // Turning it off protects, and asks for nothing.
    shop.clock.advance(Duration::minutes(11));
    assert_eq!(turn_off(&shop, &ada).await.status, 204);
    shop.closes().await;
}

#[tokio::test]
async fn another_package_than_was_agreed_to_is_not_bought() {
    let shop = Shop::open().await;
    let small = |credits: i64, price: i64, active: bool| json!([{"id": "small", "name": "Small", "credits": credits, "priceEuroCents": price, "active": active}]);
    let (ada, bob, eve) = (
        shop.user("ada@example.com").await,
        shop.user("bob@example.com").await,
        shop.user("eve@example.com").await,
    );
    for user in [&ada, &bob, &eve] {
        turn_on(&shop, user).await;
    }
    // Another name is another version and the same deal.
    shop.import(json!([{"id": "small", "name": "Petite", "credits": CREDITS, "priceEuroCents": PRICE}]))
        .await;
    spend(&shop, &ada, 60).await;
    work(&shop).await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    shop.import(small(CREDITS, PRICE + 1, true)).await;
    spend(&shop, &bob, 60).await;
    work(&shop).await;
    assert_eq!(shown(&shop, &bob).await["pauseReason"], "package_changed");
    shop.import(small(CREDITS, PRICE, false)).await;
    spend(&shop, &eve, 60).await;
    work(&shop).await;
    assert_eq!(shown(&shop, &eve).await["pauseReason"], "package_gone");
    assert_eq!((top_ups(&shop).await, charges(&shop)), (1, 1));
    let mails = shop.mails().await;
    assert_eq!(mails.iter().filter(|kept| about(&kept.mail) == SUBJECT).count(), 2);
    shop.closes().await;
}

#[tokio::test]
async fn nobody_is_charged_whose_money_went_back_or_whose_account_is_shut() {
    let shop = Shop::open().await;
    let mut users = Vec::new();
    for name in ["refunded", "disputed", "warned", "owing", "closed", "disabled"] {
        let user = shop.user(&format!("{name}@example.com")).await;
        let waiting = put(&shop, &user, &with("monthlyCapCents", json!(9 * PRICE))).await;
        save_card(&shop, &waiting).await;
        spend(&shop, &user, 60).await;
        work(&shop).await;
        assert_eq!(shop.paid(&user).await, (CREDITS, 0), "the control: {name}");
        users.push((
            name,
            user,
            shop.stripe.last("charge").unwrap()["payment_intent"].as_str().unwrap().to_owned(),
        ));
    }
    shop.clock.advance(Duration::minutes(1));
    for (name, _, payment) in &users {
        match *name {
            "refunded" => drop(shop.stripe.refund(payment, None).unwrap()),
            "disputed" => drop(shop.stripe.dispute(payment, None, "needs_response").unwrap()),
            "warned" => shop.stripe.warn_of_fraud(payment).unwrap(),
            _ => {}
        }
    }
    shop.deliver().await;
    for (name, user, _) in &users[2..] {
        assert_eq!(shown(&shop, user).await["status"], "active", "{name}");
        spend(&shop, user, CREDITS).await;
    }
    shop.execute("UPDATE credits.balances SET debt = 1 WHERE user_id = (SELECT id FROM auth.users WHERE email = 'owing@example.com')").await;
    shop.execute("UPDATE credits.balances SET closed_at = now() WHERE user_id = (SELECT id FROM auth.users WHERE email = 'closed@example.com')").await;
    shop.execute("UPDATE auth.users SET disabled_at = now() WHERE email = 'disabled@example.com'").await;
    work(&shop).await;
    assert_eq!(top_ups(&shop).await, 6);
    for (name, user, _) in &users {
        if *name == "disabled" {
            continue;
        }
        let expected = match *name {
            "refunded" => "refunded",
            "disputed" | "warned" => "disputed",
            "owing" => "debt",
            _ => "wallet_closed",
        };
        assert_eq!(shown(&shop, user).await["pauseReason"], expected, "{name}");
    }
    assert_eq!(
        shop.number("SELECT count(*) FROM credits.auto_top_ups WHERE pause_reason = 'user_disabled'").await,
        1
    );
    let told = |mails: Vec<KeptMail>| mails.iter().filter(|kept| about(&kept.mail) == SUBJECT).count();
    assert_eq!(told(shop.mails().await), 5, "no mail for who is shut out");
    // Nothing has happened that this debt comes from.
    shop.execute("UPDATE credits.balances SET debt = 0").await;
    shop.closes().await;
}

#[tokio::test]
async fn what_is_turned_off_charges_nothing_and_forgets_the_card() {
    let shop = Shop::open().await;
    let (ada, bob) = (shop.user("ada@example.com").await, shop.user("bob@example.com").await);
    let card = turn_on(&shop, &ada).await;
    assert_eq!(shown(&shop, &bob).await["status"], "off", "somebody else's is not seen");
    assert_eq!(turn_off(&shop, &bob).await.status, 204);
    assert_eq!(shown(&shop, &ada).await["status"], "active");

    // An order that waits for its next try ends with it.
    shop.stripe.decline(&card, Some("generic_decline"));
    spend(&shop, &ada, 60).await;
    work(&shop).await;
    assert!(shown(&shop, &ada).await["purchaseId"].is_string());
    shop.clock.advance(Duration::SECOND);
    assert_eq!(turn_off(&shop, &ada).await.status, 204);
    assert_eq!(turn_off(&shop, &ada).await.status, 204);
    work(&shop).await;
    shop.stripe.decline(&card, None);
    shop.clock.advance(Duration::days(2));
    work(&shop).await;
    assert_eq!(shop.stripe.find(&card).unwrap()["customer"], Value::Null);
    assert_eq!(shop.stripe.last("payment_intent").unwrap()["status"], "canceled");
    let ada = shop.sign_in("ada@example.com").await;
    assert_eq!((shown(&shop, &ada).await["status"].as_str(), shop.paid(&ada).await), (Some("off"), (0, 0)));
    assert_eq!(events(&shop, &ada).await[0], ("auto_top_up_off".to_owned(), Value::Null));

    // Turned on anew it needs a card again.
    let waiting = put(&shop, &ada, &wish()).await;
    let second = save_card(&shop, &waiting).await;
    spend(&shop, &ada, 1).await;
    work(&shop).await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));

    // Changed while an order waits, that one ends and the new terms hold.
    shop.stripe.decline(&second, Some("generic_decline"));
    spend(&shop, &ada, CREDITS).await;
    work(&shop).await;
    let changed = put(&shop, &ada, &with("thresholdMana", json!(50))).await;
    assert_eq!((changed.text("/status"), &changed.json["purchaseId"]), ("active", &Value::Null));
    shop.stripe.decline(&second, None);
    work(&shop).await;
    assert_eq!(shop.paid(&ada).await.0, 89, "that is above 50");
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn a_payment_that_stripe_has_forgotten_is_no_hindrance() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let card = turn_on(&shop, &ada).await;
    shop.stripe.decline(&card, Some("generic_decline"));
    spend(&shop, &ada, 60).await;
    work(&shop).await;
    let payment = shop.stripe.last("payment_intent").unwrap()["id"].as_str().unwrap().to_owned();
    shop.stripe.tamper(&payment, |payment| payment["id"] = json!("pi_another"));
    shop.stripe.decline(&card, None);
    let changed = put(&shop, &ada, &wish()).await;
    assert_eq!((changed.status.as_u16(), changed.text("/status")), (200, "active"), "{}", changed.json);
    spend(&shop, &ada, 1).await;
    work(&shop).await;
    assert_eq!((top_ups(&shop).await, shop.paid(&ada).await), (2, (CREDITS, 0)));

    // And without its owner: the order has failed, and that is said.
    shop.stripe.decline(&card, Some("generic_decline"));
    spend(&shop, &ada, CREDITS).await;
    work(&shop).await;
    let payment = shop.stripe.last("payment_intent").unwrap()["id"].as_str().unwrap().to_owned();
    shop.stripe.tamper(&payment, |payment| payment["id"] = json!("pi_and_another"));
    shop.clock.advance(Duration::hours(2));
    work(&shop).await;
    let ada = shop.sign_in("ada@example.com").await;
    let paused = shown(&shop, &ada).await;
    assert_eq!((&paused["pauseReason"], &paused["purchaseId"]), (&json!("declined"), &Value::Null));
    shop.closes().await;
}

#[tokio::test]
async fn an_account_that_is_deleted_takes_its_card_along() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let card = turn_on(&shop, &ada).await;
    spend(&shop, &ada, 60).await;
    delete_account(&shop, &ada).await;
    work(&shop).await;
    assert_eq!(shop.stripe.find(&card).unwrap()["customer"], Value::Null);
    assert_eq!((top_ups(&shop).await, charges(&shop)), (0, 0));
    assert_eq!(
        shop.number(
            "SELECT count(*) FROM credits.auto_top_ups WHERE status = 'off' AND payment_method_id IS NULL"
        )
        .await,
        1
    );
    shop.closes().await;
}

#[tokio::test]
async fn a_till_that_nobody_comes_to_leaves_it_off_and_a_strangers_card_is_none() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let waiting = put(&shop, &ada, &wish()).await;
    let session = waiting.text("/setupUrl").rsplit('/').next().unwrap().to_owned();
    shop.stripe.tamper(&session, |session| session["customer"] = json!("cus_somebody_else"));
    shop.stripe.act(&session, Outcome::Pay).unwrap();
    shop.deliver().await;
    assert_eq!(shown(&shop, &ada).await["status"], "setup");
    let waiting = put(&shop, &ada, &wish()).await;
    let session = waiting.text("/setupUrl").rsplit('/').next().unwrap().to_owned();
    shop.stripe.expire(&session).unwrap();
    shop.deliver().await;
    assert_eq!(shown(&shop, &ada).await["status"], "off");

    // Without a delivery the card is found all the same.
    let waiting = put(&shop, &ada, &wish()).await;
    let session = waiting.text("/setupUrl").rsplit('/').next().unwrap().to_owned();
    shop.stripe.act(&session, Outcome::Pay).unwrap();
    shop.clock.advance(Duration::minutes(1));
    work(&shop).await;
    assert_eq!(shown(&shop, &ada).await["status"], "active");

    let taxing =
        shop.replica_with(|settings| settings.stripe_tax = mana_platform::config::StripeTax::Exclusive).await;
    let refused = taxing.client.request(Method::PUT, PATH).body("application/json", wish().to_string());
    let refused = refused.bearer(&ada.access_token).send().await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (409, "payments.top_up_not_with_tax"));
    spend(&shop, &ada, 60).await;
    taxing.workers.work_on_payments().await;
    assert_eq!(shown(&shop, &ada).await["pauseReason"], "tax");
    shop.closes().await;
}

#[tokio::test]
async fn a_payment_that_is_made_while_its_owner_changes_the_terms_is_never_charged() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    turn_on(&shop, &ada).await;
    spend(&shop, &ada, 60).await;
    while_a_payment_is_made(&shop, async {
        let changed = put(&shop, &ada, &with("thresholdMana", json!(50))).await;
        assert_eq!((changed.status.as_u16(), changed.text("/status")), (200, "active"), "{}", changed.json);
    })
    .await;
    work(&shop).await;
    shop.deliver().await;
    assert_eq!(shop.stripe.last("charge"), None);
    assert_eq!(shop.stripe.last("payment_intent").unwrap()["status"], "canceled");
    let now = shown(&shop, &ada).await;
    assert_eq!((&now["status"], &now["purchaseId"]), (&json!("active"), &Value::Null));
    assert_eq!(pauses_told(&shop).await, 0, "and nothing is said of it");
    assert_eq!(shop.paid(&ada).await.0, 0);
    all_is_well(&shop).await;

    // The new terms hold: the next fall is charged once.
    spend(&shop, &ada, 50).await;
    work(&shop).await;
    shop.deliver().await;
    assert_eq!((top_ups(&shop).await, shop.paid(&ada).await), (2, (CREDITS, 0)));
    assert_eq!(shown(&shop, &ada).await["usedThisMonthCents"], PRICE);
    shop.closes().await;
}

#[tokio::test]
async fn a_payment_that_is_made_while_its_owner_turns_it_off_or_leaves_is_never_charged() {
    let shop = Shop::open().await;
    let replica = shop.replica_with(|_| {}).await;
    for (name, leaves, is_wound_up) in
        [("off", false, false), ("wound_up", false, true), ("leaves", true, true)]
    {
        let user = shop.user(&format!("{name}@example.com")).await;
        let card = turn_on(&shop, &user).await;
        spend(&shop, &user, 60).await;
        while_a_payment_is_made(&shop, async {
            if leaves {
                delete_account(&shop, &user).await;
            } else {
                assert_eq!(turn_off(&shop, &user).await.status, 204);
            }
            if is_wound_up {
                replica.workers.top_up_wallets().await;
            }
        })
        .await;
        work(&shop).await;
        shop.deliver().await;
        assert_eq!(shop.stripe.last("charge"), None, "{name}");
        assert_eq!(shop.stripe.last("payment_intent").unwrap()["status"], "canceled", "{name}");
        assert_eq!(shop.stripe.find(&card).unwrap()["customer"], Value::Null, "{name}");
    }
    assert_eq!(shop.number("SELECT count(*) FROM credits.purchases WHERE state = 'failed'").await, 3);
    assert_eq!(
        shop.number("SELECT count(*) FROM credits.auto_top_ups WHERE status = 'off' AND order_id IS NULL")
            .await,
        3
    );
    // The control: a payment that nobody minds is charged.
    let ada = shop.user("ada@example.com").await;
    turn_on(&shop, &ada).await;
    spend(&shop, &ada, 60).await;
    while_a_payment_is_made(&shop, async {}).await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn who_waits_behind_another_is_not_charged_after_turning_it_off() {
    let shop = Shop::open().await;
    let (ada, bob) = (shop.user("ada@example.com").await, shop.user("bob@example.com").await);
    for user in [&ada, &bob] {
        turn_on(&shop, user).await;
    }
    for user in [&ada, &bob] {
        spend(&shop, user, 60).await;
    }
    while_a_payment_is_made(&shop, async {
        // Whoever comes first: the other one waits.
        let order = shop.stripe.last("payment_intent").unwrap()["metadata"]["order_id"].clone();
        let later = if shown(&shop, &ada).await["purchaseId"] == order { &bob } else { &ada };
        assert_eq!(turn_off(&shop, later).await.status, 204);
    })
    .await;
    work(&shop).await;
    assert_eq!(shop.stripe.count_calls("POST /v1/payment_intents"), 2, "one is made and charged");
    assert_eq!(shop.paid(&ada).await.0 + shop.paid(&bob).await.0, CREDITS);
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn a_charge_that_is_not_noted_is_credited_by_a_delivery_or_the_comparison() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    save_card(&shop, &put(&shop, &ada, &with("monthlyCapCents", json!(10 * PRICE))).await).await;
    spend(&shop, &ada, 60).await;
    for (way, paid) in [("delivery", CREDITS), ("comparison", 2 * CREDITS - 1_050)] {
        shop.stripe.lose_answers(Some("/confirm"));
        work(&shop).await;
        shop.stripe.lose_answers(None);
        // As a server left it that took the payment for noted when the order had ended.
        shop.execute("UPDATE credits.purchases SET payment_id = NULL, customer_id = NULL, state = 'failed', lifecycle = 'failed' WHERE captured_cents = 0").await;
        shop.execute("UPDATE credits.auto_top_ups SET order_id = NULL, next_look_at = NULL, watch_at = NULL")
            .await;
        if way == "comparison" {
            shop.stripe.turn(Knobs { drop: true, ..Knobs::default() });
            shop.deliver().await;
            let since = shop.clock.now() - Duration::hours(1);
            let seen = reconcile(&shop.workers.payments, since, false).await.unwrap();
            assert!(!seen.agrees() && seen.findings[0].sentence.contains("not noted"), "{seen:?}");
            assert_eq!(
                shop.number("SELECT count(*) FROM credits.purchases WHERE payment_id IS NULL").await,
                1
            );
            shop.workers.reconcile_payments().await;
            shop.stripe.turn(Knobs::default());
        } else {
            shop.deliver().await;
        }
        assert_eq!(shop.paid(&ada).await, (paid, 0), "{way}");
        work(&shop).await;
        shop.deliver().await;
        assert_eq!(shop.paid(&ada).await, (paid, 0), "{way}, and once");
        assert_eq!(shown(&shop, &ada).await["status"], "active");
        all_is_well(&shop).await;
        if way == "delivery" {
            spend(&shop, &ada, 90 + 1_050).await;
        }
    }
    assert_eq!(shown(&shop, &ada).await["usedThisMonthCents"], 2 * PRICE, "and it counts");
    shop.closes().await;
}

#[tokio::test]
async fn a_till_that_is_open_is_answered_again_and_others_are_made_sparingly() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let first = session_of(&put(&shop, &ada, &wish()).await);
    let again = put(&shop, &ada, &with("thresholdMana", json!(50))).await;
    assert_eq!(
        (session_of(&again), again.integer("/thresholdMana")),
        (first.clone(), 50),
        "other terms, the same till"
    );
    assert_eq!(shop.stripe.count_calls("POST /v1/checkout/sessions"), 1);

    let elsewhere = |page: i32| with("successUrl", json!(format!("http://localhost:3000/{page}")));
    let second = session_of(&put(&shop, &ada, &elsewhere(0)).await);
    assert_ne!(second, first);
    shop.clock.advance(Duration::minutes(1));
    work(&shop).await;
    assert_eq!(shop.stripe.find(&first).unwrap()["status"], "expired", "nobody saves a card there any more");
    for page in 1..20 {
        session_of(&put(&shop, &ada, &elsewhere(page)).await);
    }
    let refused = put(&shop, &ada, &elsewhere(20)).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (409, "payments.too_many_setups"));
    assert_eq!(turn_off(&shop, &ada).await.status, 204);
    let refused = put(&shop, &ada, &wish()).await;
    assert_eq!(refused.problem(), "payments.too_many_setups", "also after it was off");
    shop.clock.advance(Duration::DAY);
    let ada = shop.sign_in("ada@example.com").await;
    save_card(&shop, &put(&shop, &ada, &wish()).await).await;
    assert_eq!(shown(&shop, &ada).await["status"], "active");
    shop.closes().await;
}

#[tokio::test]
async fn what_is_saved_at_a_till_that_was_let_go_is_forgotten() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    // Saved, and turned off before anybody here heard of it.
    let session = session_of(&put(&shop, &ada, &wish()).await);
    shop.stripe.act(&session, Outcome::Pay).unwrap();
    let card = shop.stripe.last("payment_method").unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(turn_off(&shop, &ada).await.status, 204);
    work(&shop).await;
    assert_eq!(shop.stripe.find(&card).unwrap()["customer"], Value::Null);
    assert_eq!(shown(&shop, &ada).await["status"], "off");

    // Turned off while the till is open: it closes, though Stripe does not answer at first.
    let session = session_of(&put(&shop, &ada, &wish()).await);
    assert_eq!(turn_off(&shop, &ada).await.status, 204);
    shop.stripe.break_down(true);
    work(&shop).await;
    shop.stripe.break_down(false);
    shop.clock.advance(Duration::minutes(3));
    work(&shop).await;
    assert_eq!(shop.stripe.find(&session).unwrap()["status"], "expired");

    // Asked for again after it was saved, it is the card.
    let session = session_of(&put(&shop, &ada, &wish()).await);
    shop.stripe.act(&session, Outcome::Pay).unwrap();
    let card = shop.stripe.last("payment_method").unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(put(&shop, &ada, &wish()).await.text("/status"), "active");
    work(&shop).await;
    shop.deliver().await;
    assert!(shop.stripe.find(&card).unwrap()["customer"].is_string());
    spend(&shop, &ada, 60).await;
    work(&shop).await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));

    // Replaced while Stripe is away, the old one is forgotten when it is back.
    let waiting = put(&shop, &ada, &with("replacePaymentMethod", json!(true))).await;
    shop.stripe.refuse(Some(("/detach", 500, "away")));
    let another = save_card(&shop, &waiting).await;
    assert!(shop.stripe.find(&card).unwrap()["customer"].is_string());
    shop.stripe.refuse(None);
    shop.clock.advance(Duration::minutes(3));
    work(&shop).await;
    assert_eq!(shop.stripe.find(&card).unwrap()["customer"], Value::Null);
    assert!(shop.stripe.find(&another).unwrap()["customer"].is_string());
    assert_eq!(
        shop.number("SELECT count(*) FROM credits.auto_top_ups WHERE tills_to_close = '{}' AND cards_to_forget = '{}' AND next_look_at IS NULL").await,
        1
    );
    shop.closes().await;
}

#[tokio::test]
async fn a_change_that_fails_at_stripe_leaves_what_was_agreed_to_and_says_nothing() {
    let shop = Shop::open().await;
    let mut ada = shop.user("ada@example.com").await;
    let card = save_card(&shop, &put(&shop, &ada, &with("monthlyCapCents", json!(9 * PRICE))).await).await;
    for (turn, fails) in ["/checkout/sessions", "/cancel"].into_iter().enumerate() {
        shop.stripe.decline(&card, Some("generic_decline"));
        spend(&shop, &ada, if turn == 0 { 60 } else { CREDITS }).await;
        work(&shop).await;
        shop.stripe.decline(&card, None);
        if turn == 0 {
            shop.stripe.refuse(Some((fails, 500, "away")));
        } else {
            // The order is over at Stripe, and nobody hears of it.
            shop.stripe.lose_answers(Some(fails));
        }
        let failed = put(&shop, &ada, &with("replacePaymentMethod", json!(true))).await;
        assert_eq!(
            (failed.status.as_u16(), failed.problem()),
            (503, "payments.provider_unavailable"),
            "{fails}"
        );
        shop.stripe.refuse(None);
        shop.stripe.lose_answers(None);
        assert_eq!(shown(&shop, &ada).await["status"], "active");
        shop.clock.advance(Duration::minutes(3));
        if turn == 0 {
            work(&shop).await;
            assert!(
                shown(&shop, &ada).await["purchaseId"].is_string(),
                "a card that was declined has its hour"
            );
            assert_eq!((top_ups(&shop).await, shop.paid(&ada).await.0), (1, 0));
            shop.clock.advance(Duration::HOUR);
            ada = shop.sign_in("ada@example.com").await;
        }
        work(&shop).await;
        let now = shown(&shop, &ada).await;
        assert_eq!((&now["status"], &now["thresholdMana"]), (&json!("active"), &json!(100)), "{fails}");
        assert_eq!(pauses_told(&shop).await, 0, "{fails}");
        assert_eq!(shop.paid(&ada).await.0, if turn == 0 { CREDITS } else { CREDITS + 90 }, "by what holds");
    }
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn what_stripe_refuses_for_good_is_told_and_what_an_operator_can_help_waits() {
    let shop = Shop::open().await;
    // What is paid counts for its month, and hours pass here: none of them may end one.
    let now = shop.clock.now();
    let tenth = now.replace_day(1).unwrap().saturating_add(Duration::days(32)).replace_day(10).unwrap();
    shop.clock.advance(tenth - now);
    let ada = shop.user("ada@example.com").await;
    turn_on(&shop, &ada).await;
    spend(&shop, &ada, 60).await;
    for call in ["/payment_intents", "/confirm"] {
        shop.stripe.refuse(Some((call, 403, "more_permissions_required")));
        work(&shop).await;
        assert_eq!(shown(&shop, &ada).await["status"], "active", "a key without the right is no refusal");
        shop.clock.advance(Duration::minutes(3));
    }
    shop.stripe.refuse(None);
    work(&shop).await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));

    for call in ["/payment_intents", "/confirm"] {
        let ada = shop.sign_in("ada@example.com").await;
        put(&shop, &ada, &wish()).await;
        spend(&shop, &ada, if call == "/confirm" { 1 } else { CREDITS }).await;
        shop.stripe.refuse(Some((call, 400, "amount_too_small")));
        let before = pauses_told(&shop).await;
        work(&shop).await;
        let paused = shown(&shop, &ada).await;
        assert_eq!(
            (&paused["status"], &paused["pauseReason"]),
            (&json!("paused"), &json!("provider_refuses")),
            "{call}"
        );
        assert_eq!(paused["usedThisMonthCents"], PRICE, "it does not count: {call}");
        assert_eq!(pauses_told(&shop).await, before + 1);
        let mails = shop.mails().await;
        assert!(mails.iter().any(|kept| kept.mail.text.contains("nicht wegen deiner Karte")));
        let calls = shop.stripe.count_calls("POST /v1/payment_intents");
        shop.stripe.refuse(None);
        shop.clock.advance(Duration::hours(2));
        work(&shop).await;
        assert_eq!(shop.stripe.count_calls("POST /v1/payment_intents"), calls, "and is not tried again");
    }
    shop.closes().await;
}

#[tokio::test]
async fn a_session_that_ends_while_a_card_is_asked_for_agrees_to_nothing() {
    let shop = Shop::open().await;
    for leaves in [false, true] {
        let user = shop.user(&format!("{leaves}@example.com")).await;
        let refused = while_stripe_holds(&shop, "/checkout/sessions", put(&shop, &user, &wish()), async {
            if leaves {
                delete_account(&shop, &user).await;
            } else {
                let out = shop.client.post("/api/v1/auth/logout", &json!({})).bearer(&user.access_token);
                assert_eq!(out.send().await.status, 200);
            }
        })
        .await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (401, "auth.unauthenticated"));
        assert_eq!(shop.stripe.last("checkout.session").unwrap()["status"], "expired");
    }
    assert_eq!(shop.number("SELECT count(*) FROM credits.auto_top_ups").await, 0);
    let ada = shop.user("ada@example.com").await;
    let agreed = while_stripe_holds(&shop, "/checkout/sessions", put(&shop, &ada, &wish()), async {}).await;
    save_card(&shop, &agreed).await;
    assert_eq!(shown(&shop, &ada).await["status"], "active", "the control");
    shop.closes().await;
}

#[tokio::test]
async fn a_balance_is_looked_at_when_it_fell_and_what_gave_no_notice_is_found() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    turn_on(&shop, &ada).await;
    let noticed = "SELECT count(*) FROM credits.auto_top_ups WHERE watch_at IS NOT NULL";
    assert_eq!(shop.number(noticed).await, 1, "looked at when it is turned on");
    work(&shop).await;
    assert_eq!(shop.number(noticed).await, 0, "and had not fallen");
    spend(&shop, &ada, 50).await;
    assert_eq!(shop.number(noticed).await, 0, "that is above the threshold");
    spend(&shop, &ada, 1).await;
    assert_eq!(shop.number(noticed).await, 1);
    work(&shop).await;
    assert_eq!((top_ups(&shop).await, shop.number(noticed).await), (1, 0));

    // Spent by a server of the release before, which knows of no notices.
    shop.execute("UPDATE credits.balances SET top_up_below = NULL").await;
    spend(&shop, &ada, CREDITS).await;
    work(&shop).await;
    assert_eq!((top_ups(&shop).await, shop.number(noticed).await), (1, 0));
    shop.workers.catch_up_with_wallets().await;
    work(&shop).await;
    assert_eq!((top_ups(&shop).await, shop.paid(&ada).await.0), (2, CREDITS + 99));
    assert_eq!(shop.number("SELECT count(*) FROM credits.balances WHERE top_up_below = 100").await, 1);
    assert_eq!(turn_off(&shop, &ada).await.status, 204);
    assert_eq!(shop.number("SELECT count(*) FROM credits.balances WHERE top_up_below IS NOT NULL").await, 0);
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn a_card_that_is_declined_is_not_tried_again_while_its_owner_replaces_it() {
    let shop = Shop::open().await;
    let replica = shop.replica_with(|_| {}).await;
    for (turn, call) in [(1, "/checkout/sessions"), (2, "/cancel")] {
        let user = shop.user(&format!("{turn}@example.com")).await;
        let card = turn_on(&shop, &user).await;
        shop.stripe.decline(&card, Some("generic_decline"));
        spend(&shop, &user, 60).await;
        work(&shop).await;
        let made = shop.stripe.count("payment_intent");
        let another = with("replacePaymentMethod", json!(true));
        let changed = while_stripe_holds(&shop, call, put(&shop, &user, &another), async {
            shop.deliver().await;
            for _ in 0..3 {
                replica.workers.work_on_payments().await;
            }
        })
        .await;
        assert_eq!(
            (top_ups(&shop).await, shop.stripe.count("payment_intent")),
            (2 * turn - 1, made),
            "{call}"
        );
        let other = save_card(&shop, &changed).await;
        work(&shop).await;
        assert_eq!(shop.stripe.find(&card).unwrap()["customer"], Value::Null, "the old one is forgotten");
        spend(&shop, &user, 1).await;
        work(&shop).await;
        assert_eq!((top_ups(&shop).await, shop.paid(&user).await), (2 * turn, (CREDITS, 0)), "{call}");
        assert_eq!(shop.stripe.last("payment_intent").unwrap()["payment_method"], json!(other));
        assert_eq!(pauses_told(&shop).await, 0);
    }
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn a_card_that_is_declined_while_its_owner_turns_it_off_or_leaves_is_forgotten_at_once() {
    let shop = Shop::open().await;
    for leaves in [false, true] {
        let user = shop.user(&format!("{leaves}@example.com")).await;
        let card = turn_on(&shop, &user).await;
        shop.stripe.decline(&card, Some("generic_decline"));
        spend(&shop, &user, 60).await;
        while_stripe_holds(&shop, "/confirm", shop.workers.top_up_wallets(), async {
            if leaves {
                delete_account(&shop, &user).await;
            } else {
                assert_eq!(turn_off(&shop, &user).await.status, 204);
            }
        })
        .await;
        work(&shop).await;
        assert_eq!(shop.stripe.find(&card).unwrap()["customer"], Value::Null, "leaves: {leaves}");
        assert_eq!(shop.stripe.last("payment_intent").unwrap()["status"], "canceled", "leaves: {leaves}");
    }
    let at_rest = "SELECT count(*) FROM credits.auto_top_ups WHERE status = 'off' AND order_id IS NULL AND next_look_at IS NULL";
    assert_eq!(shop.number(at_rest).await, 2);
    // The control: nobody minds, and the order waits for its next try.
    let ada = shop.user("ada@example.com").await;
    let card = turn_on(&shop, &ada).await;
    shop.stripe.decline(&card, Some("generic_decline"));
    spend(&shop, &ada, 60).await;
    while_stripe_holds(&shop, "/confirm", shop.workers.top_up_wallets(), async {}).await;
    work(&shop).await;
    assert!(shown(&shop, &ada).await["purchaseId"].is_string());
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn what_a_test_key_left_open_is_no_hindrance_to_a_live_one() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let card = turn_on(&shop, &ada).await;
    shop.stripe.decline(&card, Some("generic_decline"));
    spend(&shop, &ada, 60).await;
    work(&shop).await;
    assert!(shown(&shop, &ada).await["purchaseId"].is_string());

    let live = shop.replica_with(|settings| settings.stripe_secret_key = Some("sk_live_story".into())).await;
    let elsewhere = |page: i32| with("successUrl", json!(format!("http://localhost:3000/{page}")));
    let mut session = String::new();
    for page in 0..20 {
        session = session_of(&change(&live.client, &ada, &elsewhere(page)).send().await);
    }
    let refused = change(&live.client, &ada, &elsewhere(20)).send().await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (409, "payments.too_many_setups"));
    shop.stripe.act(&session, Outcome::Pay).unwrap();
    shop.clock.advance(Duration::minutes(1));
    live.workers.top_up_wallets().await;
    let now = shown(&shop, &ada).await;
    assert_eq!((&now["status"], &now["purchaseId"]), (&json!("active"), &Value::Null));
    spend(&shop, &ada, 1).await;
    work(&shop).await;
    assert_eq!(shop.paid(&ada).await.0, 0, "a server with the test key lets it be");
    live.workers.top_up_wallets().await;
    assert_eq!((top_ups(&shop).await, shop.paid(&ada).await), (2, (CREDITS, 0)));
    shop.closes().await;
}

#[tokio::test]
async fn turning_it_on_and_a_deletion_or_a_bonus_never_wait_for_each_other() {
    let shop = Shop::with(|settings| settings.credits_bonus_requires_verification = true).await;
    for leaves in [false, true] {
        let user = shop.user(&format!("{leaves}@example.com")).await;
        let first = if leaves {
            deletion(&shop, &user)
        } else {
            let token = token_of(&verification_link(&shop).await);
            let fields = [("token", token.as_str()), ("password", PASSWORD)];
            let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
            let confirmation = shop.client.request(Method::POST, "/api/auth/verify-email");
            confirmation.body("application/x-www-form-urlencoded", form)
        };
        // Both come to the wallet, the change last: the other locks the account next.
        let held = shop.holding("SELECT FROM credits.balances FOR UPDATE").await;
        let first = shop.send_to_wait(first, 1).await;
        let changed = shop.send_to_wait(change(&shop.client, &user, &wish()), 2).await;
        let_go(held).await;
        assert!(first.await.unwrap().status.as_u16() < 400, "leaves: {leaves}");
        let changed = changed.await.unwrap();
        let expected = if leaves { 401 } else { 200 };
        assert_eq!(changed.status.as_u16(), expected, "leaves: {leaves}, {}", changed.json);
    }
    // A connection has told of all that it met when it is gone.
    let end_of_connections = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND usename = 'mana_service'";
    while shop.number(end_of_connections).await > 0 {}
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(shop.number(deadlocks).await, 0);
    shop.closes().await;
}
