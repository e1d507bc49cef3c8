//! Buying mana: whatever Stripe's deliveries do, a payment is credited once, and what goes back takes its mana along.

use crate::credits::books_are_true;
use crate::moving::{exported, imported};
use crate::story::{Story, User, WAITING, let_go, members, spend_of};
use crate::till::{Bought, CREDITS, PRICE, PaymentPasses as _, Shop, hand_over};
use futures_util::future::join_all;
use mana_credits::ledger::verify::{Scope, verify};
use mana_credits::purchase::{find_statement, reconcile};
use mana_kernel::Clock as _;
use mana_testkit::Reply;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use stripe_fake::{Delivery, Knobs, Outcome, sign};
use time::{Date, Duration};

type Change = fn(&mut Value);

/// The books are true, and agree with Stripe.
pub(crate) async fn all_is_well(shop: &Shop) {
    books_are_true(shop).await;
    let since = shop.clock.now().saturating_sub(Duration::days(30));
    let report = reconcile(&shop.workers.payments, since, false).await.unwrap();
    assert!(report.agrees(), "{report:?}");
}

async fn spend(shop: &Shop, user: &User, amount: i64) -> Reply {
    shop.spend(user, &spend_of(amount)).await
}

async fn events_of(shop: &Shop, user: &User) -> Vec<(String, String)> {
    let events = shop.get("/api/v1/auth/security-events?limit=100", user).await;
    let all = events.json.as_array().unwrap().iter();
    all.filter(|event| event["type"].as_str().unwrap().starts_with("payment"))
        .map(|event| {
            (event["type"].as_str().unwrap().to_owned(), event["detail"].as_str().unwrap().to_owned())
        })
        .collect()
}

#[tokio::test]
async fn what_is_paid_is_credited_once_and_says_what_it_was() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let placed = shop.order(&ada, &json!({"packageId": "small"})).await;
    assert_eq!(placed.status, 201, "{}", placed.json);
    assert_eq!((placed.integer("/amount"), placed.integer("/credits")), (PRICE, CREDITS));
    assert_eq!(placed.json["clientSecret"], Value::Null);
    let session = placed.text("/checkoutUrl").rsplit('/').next().unwrap().to_owned();
    let bought = Bought { id: placed.text("/purchaseId").to_owned(), session };
    let made = shop.stripe.find(&bought.session).unwrap();
    assert_eq!(
        (&made["client_reference_id"], &made["metadata"]["order_id"]),
        (&json!(bought.id), &json!(bought.id))
    );
    assert_eq!(shop.status(&ada, &bought).await, "pending");

    shop.stripe.act(&bought.session, Outcome::Pay).unwrap();
    shop.deliver().await;
    let completed = shop.purchase(&ada, &bought).await;
    assert_eq!((completed.text("/status"), completed.text("/state")), ("completed", "paid"));
    assert!(!completed.text("/completedAt").is_empty());
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    let lines = shop.get("/api/v1/credits/transactions", &ada).await;
    assert_eq!((lines.text("/0/type"), lines.integer("/0/amount")), ("purchase", CREDITS));
    assert_eq!(lines.text("/0/metadata/purchaseId"), bought.id);
    assert_eq!(shop.get("/api/v1/credits/balance", &ada).await.integer("/totalEarned"), CREDITS);
    assert_eq!(shop.get("/api/v1/credits/purchases", &ada).await.text("/0/id"), bought.id);

    // A second one has a grant of its own.
    shop.buy(&ada).await;
    assert_eq!(shop.paid(&ada).await, (2 * CREDITS, 0));
    assert_eq!(shop.number("SELECT count(*) FROM credits.grants WHERE source = 'purchase'").await, 2);
    shop.closes().await;
}

#[tokio::test]
async fn fifty_duplicates_at_once_on_two_replicas_are_one() {
    let shop = Shop::open().await;
    let replica = shop.replica_with(|_| {}).await;
    let ada = shop.user("ada@example.com").await;
    shop.pay(&ada).await;
    shop.stripe.turn(Knobs { duplicates: 24, ..Knobs::default() });
    let deliveries = shop.stripe.take_deliveries();
    assert!(deliveries.len() >= 75);
    Shop::hand_over_at_once(&[&shop.client, &replica.client], &deliveries).await;
    // Both work at the same time, and again although it is done.
    let works = (0..6).map(|turn| {
        let workers = if turn % 2 == 0 { &shop.workers } else { &replica.workers };
        workers.work_on_payments()
    });
    join_all(works).await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    assert_eq!(shop.number("SELECT count(*) FROM credits.transactions WHERE type = 'purchase'").await, 1);
    assert_eq!(shop.number("SELECT count(*) FROM credits.stripe_events WHERE outcome IS NULL").await, 0);
    shop.closes().await;
}

#[tokio::test]
async fn one_order_looked_at_by_many_at_once_is_credited_once() {
    let shop = Shop::open().await;
    let replica = shop.replica_with(|_| {}).await;
    let ada = shop.user("ada@example.com").await;
    let mut bought = Vec::new();
    for _ in 0..3 {
        bought.push(shop.pay(&ada).await);
    }
    // No delivery at all: everybody asks, and two comparisons run.
    for workers in [&shop.workers, &replica.workers] {
        for one in &bought {
            workers.payments.errands.look_at(&one.id);
        }
    }
    tokio::join!(
        shop.workers.work_on_payments(),
        replica.workers.work_on_payments(),
        shop.workers.reconcile_payments(),
        replica.workers.reconcile_payments(),
    );
    assert_eq!(shop.paid(&ada).await, (3 * CREDITS, 0));
    shop.closes().await;
}

fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    if items.len() <= 1 {
        return vec![items.to_vec()];
    }
    let first = |index: usize| {
        let mut rest = items.to_vec();
        let first = rest.remove(index);
        permutations(&rest).into_iter().map(move |tail| [&[first], &tail[..]].concat())
    };
    (0..items.len()).flat_map(first).collect()
}

/// Something that happens to an order.
#[derive(Debug, Clone, Copy)]
enum Happens {
    Pay,
    Later,
    Fail,
    Expire,
    Refund(i64),
    RefundFails,
    Dispute(i64),
    Won,
    Lost,
    Warn,
}

impl Happens {
    fn to(self, shop: &Shop, bought: &Bought) {
        let stripe = &shop.stripe;
        let last = |object: &str| stripe.last(object).unwrap()["id"].as_str().unwrap().to_owned();
        match self {
            Self::Pay => drop(stripe.act(&bought.session, Outcome::Pay).unwrap()),
            Self::Later => drop(stripe.act(&bought.session, Outcome::Later).unwrap()),
            Self::Fail => drop(stripe.act(&bought.session, Outcome::Fail).unwrap()),
            Self::Expire => stripe.expire(&bought.session).unwrap(),
            Self::Refund(cents) => drop(stripe.refund(&shop.payment(bought), Some(cents)).unwrap()),
            Self::RefundFails => stripe.fail_refund(&last("refund")).unwrap(),
            Self::Dispute(cents) => {
                drop(stripe.dispute(&shop.payment(bought), Some(cents), "needs_response").unwrap());
            }
            Self::Won => stripe.close_dispute(&last("dispute"), "won").unwrap(),
            Self::Lost => stripe.close_dispute(&last("dispute"), "lost").unwrap(),
            Self::Warn => stripe.warn_of_fraud(&shop.payment(bought)).unwrap(),
        }
    }
}

/// What Stripe told at some time, and what it answered then.
struct Moment {
    told: Delivery,
    answers: Vec<Value>,
}

/// The life of an order in six events. The second, third and fifth are told in one of two ways, and it ends in one of two.
fn live(shop: &Shop, bought: &Bought, way: usize) -> Vec<Moment> {
    let (is_odd, is_won) = (way % 2 == 1, way % 3 == 1);
    let either = |even: &'static str, odd: &'static str| if is_odd { odd } else { even };
    let life = [
        (Happens::Later, "checkout.session.completed"),
        (Happens::Pay, either("payment_intent.succeeded", "checkout.session.async_payment_succeeded")),
        (Happens::Refund(300), either("refund.created", "charge.refunded")),
        (Happens::Warn, "radar.early_fraud_warning.created"),
        (Happens::Dispute(PRICE - 300), either("charge.dispute.created", "charge.dispute.funds_withdrawn")),
        (if is_won { Happens::Won } else { Happens::Lost }, "charge.dispute.closed"),
    ];
    let moments = life.into_iter().map(|(happens, kind)| {
        happens.to(shop, bought);
        let mut told = shop.stripe.take_deliveries().into_iter();
        let told = told.find(|delivery| delivery.kind == kind).unwrap();
        Moment { told, answers: shop.stripe.objects_of(&bought.session) }
    });
    moments.collect()
}

#[tokio::test]
async fn in_whatever_order_deliveries_come_and_stripe_answers_as_of_then_the_end_is_the_same() {
    let shop = Shop::open().await;
    let admin = shop.administrator("root@example.com").await;
    let mut users = Vec::new();
    for number in 0..3 {
        users.push(shop.user(&format!("user{number}@example.com")).await);
    }
    // Some of all 720 orders, that in which things happened among them.
    let orders: Vec<_> = permutations(&[0, 1, 2, 3, 4, 5]).into_iter().step_by(17).collect();
    let mut lives = Vec::new();
    for way in 0..orders.len() {
        let user = way % users.len();
        let bought = shop.go_to_till(&users[user]).await;
        let moments = live(&shop, &bought, way);
        lives.push((user, bought, moments));
    }
    for step in 0..6 {
        for ((_, bought, moments), order) in lives.iter().zip(&orders) {
            let Moment { told, answers } = &moments[order[step]];
            shop.stripe.put_back(&bought.session, answers);
            assert_eq!(hand_over(&shop.client, told).await.status, 200);
        }
        shop.workers.work_on_stripe_deliveries().await;
        books_are_true(&shop).await;
    }
    for (user, owner) in users.iter().enumerate() {
        let of_user = || lives.iter().enumerate().filter(|(_, (of, ..))| *of == user);
        let won = of_user().filter(|(way, _)| way % 3 == 1).count();
        let refunded = CREDITS * 300 / PRICE;
        let left = i64::try_from(won).unwrap() * (CREDITS - refunded);
        assert_eq!(shop.paid(owner).await, (left, 0));
        let events = events_of(&shop, owner).await;
        let count = |kind: &str| events.iter().filter(|(of, _)| of == kind).count();
        let all = of_user().count();
        assert_eq!((count("payment_fraud_warning"), count("payment_dispute_lost")), (all, all - won), "once");
    }
    for (way, ((_, bought, moments), order)) in lives.iter().zip(&orders).enumerate() {
        shop.stripe.put_back(&bought.session, &moments[5].answers);
        let shown = shop.details(&admin, bought).await;
        let lost = if way % 3 == 1 { 0 } else { PRICE - 300 };
        let net = shown["grantedMana"].as_i64().unwrap() - shown["takenMana"].as_i64().unwrap();
        let back = CREDITS * (300 + lost) / PRICE;
        assert_eq!(
            (&shown["capturedCents"], &shown["refundedCents"], &shown["lostCents"], &shown["disputed"]),
            (&json!(PRICE), &json!(300), &json!(lost), &json!(false)),
            "{order:?}"
        );
        assert_eq!(
            (&shown["fraudWarned"], &shown["problem"], &shown["owedMana"], net),
            (&json!(true), &Value::Null, &json!(0), CREDITS - back),
            "{order:?}"
        );
    }
    shop.closes().await;
}

#[tokio::test]
async fn each_sort_of_delivery_moves_its_order_by_itself() {
    use Happens::{Dispute, Expire, Fail, Later, Lost, Pay, Refund, RefundFails, Warn, Won};
    let shop = Shop::open().await;
    let ada = shop.administrator("ada@example.com").await;
    let sorts: [(&str, &[Happens], Happens, Value); 17] = [
        ("checkout.session.completed", &[], Pay, json!(["paid", 0, 0, false, false])),
        ("payment_intent.succeeded", &[], Pay, json!(["paid", 0, 0, false, false])),
        ("checkout.session.async_payment_succeeded", &[Later], Pay, json!(["paid", 0, 0, false, false])),
        ("checkout.session.async_payment_failed", &[Later], Fail, json!(["failed", 0, 0, false, false])),
        ("payment_intent.payment_failed", &[Later], Fail, json!(["failed", 0, 0, false, false])),
        ("checkout.session.expired", &[], Expire, json!(["expired", 0, 0, false, false])),
        ("refund.created", &[Pay], Refund(300), json!(["partially_refunded", 300, 0, false, false])),
        ("charge.refunded", &[Pay], Refund(PRICE), json!(["refunded", PRICE, 0, false, false])),
        ("refund.updated", &[Pay, Refund(300)], RefundFails, json!(["paid", 0, 0, false, false])),
        ("refund.failed", &[Pay, Refund(300)], RefundFails, json!(["paid", 0, 0, false, false])),
        ("charge.dispute.created", &[Pay], Dispute(PRICE), json!(["paid", 0, 0, true, false])),
        ("charge.dispute.funds_withdrawn", &[Pay], Dispute(PRICE), json!(["paid", 0, 0, true, false])),
        ("charge.dispute.closed", &[Pay, Dispute(PRICE)], Lost, json!(["refunded", 0, PRICE, false, false])),
        ("charge.dispute.closed", &[Pay, Dispute(PRICE)], Won, json!(["paid", 0, 0, false, false])),
        ("charge.dispute.funds_reinstated", &[Pay, Dispute(PRICE)], Won, json!(["paid", 0, 0, false, false])),
        ("radar.early_fraud_warning.created", &[Pay], Warn, json!(["paid", 0, 0, false, true])),
        // Of one that is not paid, there is nothing more to say than that.
        ("checkout.session.completed", &[], Later, json!(["unpaid", 0, 0, false, false])),
    ];
    let state = async |bought: &Bought| {
        let shown = shop.details(&ada, bought).await;
        json!(["state", "refundedCents", "lostCents", "disputed", "fraudWarned"].map(|name| &shown[name]))
    };
    for (kind, before, happens, expected) in sorts {
        let bought = shop.go_to_till(&ada).await;
        for one in before {
            one.to(&shop, &bought);
        }
        shop.deliver().await;
        let was = state(&bought).await;
        happens.to(&shop, &bought);
        let (alone, others): (Vec<_>, Vec<_>) =
            shop.stripe.take_deliveries().into_iter().partition(|delivery| delivery.kind == kind);
        let [alone] = &alone[..] else { panic!("{kind}: {alone:?}") };
        assert_eq!(state(&bought).await, was, "{kind}");
        assert!(was != expected || expected[0] == "unpaid", "{kind}: {was}");
        assert_eq!(hand_over(&shop.client, alone).await.status, 200);
        shop.workers.work_on_stripe_deliveries().await;
        assert_eq!(state(&bought).await, expected, "{kind}");
        // The others say nothing new.
        for other in &others {
            assert_eq!(hand_over(&shop.client, other).await.status, 200);
        }
        shop.workers.work_on_stripe_deliveries().await;
        assert_eq!(state(&bought).await, expected, "{kind}");
    }
    shop.closes().await;
}

#[tokio::test]
async fn a_lost_delivery_is_made_up_for_by_the_comparison_once() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let bought = shop.pay(&ada).await;
    shop.stripe.turn(Knobs { drop: true, ..Knobs::default() });
    shop.deliver().await;
    assert_eq!(shop.status(&ada, &bought).await, "pending");

    let since = shop.clock.now() - Duration::hours(1);
    let looked = reconcile(&shop.workers.payments, since, false).await.unwrap();
    assert!(!looked.agrees() && looked.credited == 0, "{looked:?}");
    assert_eq!(looked.findings[0].order.as_deref(), Some(bought.id.as_str()));
    assert_eq!(shop.paid(&ada).await, (0, 0), "to look changes nothing");
    let fixed = reconcile(&shop.workers.payments, since, true).await.unwrap();
    assert_eq!((fixed.agrees(), fixed.credited, fixed.lost_events > 0), (true, 1, true), "{fixed:?}");
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    // The lost deliveries are there now and change nothing.
    shop.workers.work_on_payments().await;
    let again = reconcile(&shop.workers.payments, since, true).await.unwrap();
    assert_eq!((again.agrees(), again.credited, again.lost_events), (true, 0, 0), "{again:?}");
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    shop.closes().await;
}

#[tokio::test]
async fn what_is_older_than_asked_for_is_left_out_of_a_comparison() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let bought = shop.buy(&ada).await;
    shop.stripe.refund(&shop.payment(&bought), Some(300)).unwrap();
    shop.stripe.turn(Knobs { drop: true, ..Knobs::default() });
    shop.deliver().await;
    shop.clock.advance(Duration::days(10));
    let of_days = async |days: i64| {
        let since = shop.clock.now() - Duration::days(days);
        reconcile(&shop.workers.payments, since, false).await.unwrap()
    };
    let recent = of_days(9).await;
    assert_eq!((recent.orders, recent.lost_events, recent.agrees()), (0, 0, true), "{recent:?}");
    let all = of_days(11).await;
    assert_eq!((all.orders, all.lost_events > 0, all.agrees()), (1, true, false), "{all:?}");
    assert_eq!(all.findings[0].sentence, "refunds are not noted");
    reconcile(&shop.workers.payments, shop.clock.now() - Duration::days(11), true).await.unwrap();
    shop.closes().await;
}

#[tokio::test]
async fn each_day_keeps_what_had_been_paid_in_each_currency() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let database = shop.database.service();
    let lines = async |day: Option<Date>| {
        let kept = find_statement(&database, day).await.unwrap()?;
        let lines = kept.lines.into_iter().map(|line| {
            assert!(line.is_balanced() && !line.livemode && line.owed_mana == 0, "{line:?}");
            let cents = (line.captured_cents, line.refunded_cents, line.lost_cents);
            (line.currency, line.orders, cents, (line.granted_mana, line.taken_mana))
        });
        Some((kept.day, lines.collect::<Vec<_>>()))
    };
    let placed = shop.order(&ada, &json!({"packageId": "small", "currency": "usd"})).await;
    let in_dollars = placed.text("/checkoutUrl").rsplit('/').next().unwrap().to_owned();
    shop.stripe.act(&in_dollars, Outcome::Pay).unwrap();
    let in_euros = shop.buy(&ada).await;
    assert_eq!(shop.paid(&ada).await, (2 * CREDITS, 0));
    assert_eq!(lines(None).await, None);

    let first = shop.clock.now().date();
    let line = |currency: &str, cents: (i64, i64, i64), taken: i64| {
        (currency.to_owned(), 1, cents, (CREDITS, taken))
    };
    let then = Some((first, vec![line("eur", (PRICE, 0, 0), 0), line("usd", (1_099, 0, 0), 0)]));
    shop.workers.reconcile_payments().await;
    assert_eq!(lines(Some(first)).await, then);

    // What happens later is of the next day.
    shop.stripe.refund(&shop.payment(&in_euros), Some(300)).unwrap();
    shop.deliver().await;
    shop.workers.reconcile_payments().await;
    assert_eq!(lines(None).await, then);
    shop.clock.advance(Duration::DAY);
    shop.workers.reconcile_payments().await;
    let second = first.next_day().unwrap();
    let taken = CREDITS * 300 / PRICE;
    let now = Some((second, vec![line("eur", (PRICE, 300, 0), taken), line("usd", (1_099, 0, 0), 0)]));
    assert_eq!(lines(Some(second)).await, now);
    assert_eq!(lines(None).await, now, "the last one");
    assert_eq!(lines(Some(first)).await, then);
    assert_eq!(lines(second.next_day()).await, None);
    shop.closes().await;
}

#[tokio::test]
async fn what_a_shop_answers_has_the_members_that_clients_read_and_no_others() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let packages = shop.client.get("/api/v1/credits/packages").send().await;
    let package = [
        "active",
        "bonusCredits",
        "createdAt",
        "credits",
        "description",
        "id",
        "metadata",
        "name",
        "priceEuroCents",
        "prices",
        "sortOrder",
        "stripePriceId",
        "version",
    ];
    assert_eq!(members(&packages.json[0]), package);
    let placed = shop.order(&ada, &json!({"packageId": "small"})).await;
    let order =
        ["amount", "checkoutUrl", "clientSecret", "credits", "currency", "publishableKey", "purchaseId"];
    assert_eq!(members(&placed.json), order);
    let link = shop.client.post("/api/v1/credits/payment-link", &json!({"packageId": "small"}));
    let link = link.bearer(&ada.access_token).send().await;
    assert_eq!(members(&link.json), ["expiresAt", "package", "purchaseId", "url"]);
    assert_eq!(members(&link.json["package"]), ["credits", "name", "priceEuroCents"]);
    let purchase = [
        "completedAt",
        "createdAt",
        "credits",
        "currency",
        "disputed",
        "id",
        "packageId",
        "priceCents",
        "priceEuroCents",
        "refundedCents",
        "state",
        "status",
    ];
    let all = shop.get("/api/v1/credits/purchases", &ada).await;
    assert_eq!(members(&all.json[0]), purchase);
    let one = shop.get(&format!("/api/v1/credits/purchase/{}", placed.text("/purchaseId")), &ada).await;
    assert_eq!(members(&one.json), purchase);
    shop.closes().await;
}

#[tokio::test]
async fn whoever_is_back_from_the_till_need_not_wait_for_a_delivery() {
    let shop = Shop::open().await;
    let (ada, bob) = (shop.user("ada@example.com").await, shop.user("bob@example.com").await);
    let bought = shop.pay(&ada).await;
    shop.clock.advance(Duration::seconds(10));
    let foreign = shop.purchase(&bob, &bought).await;
    assert_eq!((foreign.status.as_u16(), foreign.problem()), (404, "payments.no_such_purchase"));
    shop.workers.work_on_payments().await;
    assert_eq!(shop.paid(&ada).await.0, 0, "a stranger's question moves nothing");
    assert_eq!(shop.status(&ada, &bought).await, "pending");
    shop.workers.work_on_payments().await;
    assert_eq!(shop.status(&ada, &bought).await, "completed");
    // And the page after the till does the same.
    let second = shop.pay(&ada).await;
    let page = shop.client.get(&format!("/checkout/done?state=paid&purchase={}", second.id)).send().await;
    assert_eq!(page.status, 200);
    shop.workers.work_on_payments().await;
    shop.deliver().await;
    assert_eq!(shop.paid(&ada).await, (2 * CREDITS, 0));
    shop.closes().await;
}

#[tokio::test]
async fn money_that_takes_days_is_credited_when_it_arrives_and_not_before() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let (arrives, fails) = (shop.go_to_till(&ada).await, shop.go_to_till(&ada).await);
    for bought in [&arrives, &fails] {
        shop.stripe.act(&bought.session, Outcome::Later).unwrap();
        shop.deliver().await;
        assert_eq!(shop.status(&ada, bought).await, "pending");
    }
    assert_eq!(shop.paid(&ada).await, (0, 0));
    shop.clock.advance(Duration::days(3));
    let ada = shop.sign_in("ada@example.com").await;
    shop.stripe.act(&arrives.session, Outcome::Pay).unwrap();
    shop.stripe.act(&fails.session, Outcome::Fail).unwrap();
    shop.deliver().await;
    assert_eq!(shop.status(&ada, &arrives).await, "completed");
    assert_eq!(shop.status(&ada, &fails).await, "failed");
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));

    let declined = shop.go_to_till(&ada).await;
    shop.stripe.act(&declined.session, Outcome::Fail).unwrap();
    shop.deliver().await;
    assert_eq!(shop.status(&ada, &declined).await, "pending", "there may be another card");
    shop.stripe.act(&declined.session, Outcome::Pay).unwrap();
    shop.deliver().await;
    assert_eq!(shop.status(&ada, &declined).await, "completed");

    let left = shop.go_to_till(&ada).await;
    shop.stripe.expire(&left.session).unwrap();
    shop.deliver().await;
    let expired = shop.purchase(&ada, &left).await;
    assert_eq!((expired.text("/status"), expired.text("/state")), ("failed", "expired"));
    shop.closes().await;
}

#[tokio::test]
async fn a_payment_that_is_not_what_was_ordered_is_not_credited() {
    let shop = Shop::open().await;
    let ada = shop.administrator("ada@example.com").await;
    let changes: [(&str, &str, Change); 9] = [
        ("amount_mismatch", "payment", |payment| payment["amount_received"] = json!(1)),
        ("amount_mismatch", "session", |session| session["amount_total"] = json!(1)),
        ("amount_mismatch", "payment", |payment| payment["amount_received"] = json!(100_000)),
        ("currency_mismatch", "payment", |payment| payment["currency"] = json!("jpy")),
        ("livemode_mismatch", "session", |session| session["livemode"] = json!(true)),
        ("customer_mismatch", "payment", |payment| payment["customer"] = json!("cus_somebody_else")),
        ("customer_mismatch", "session", |session| session["customer"] = Value::Null),
        ("order_mismatch", "session", |session| session["client_reference_id"] = json!("another")),
        ("order_mismatch", "payment", |payment| payment["metadata"] = json!({"order_id": "another"})),
    ];
    for (problem, object, change) in changes {
        let bought = shop.pay(&ada).await;
        let payment = shop.payment(&bought);
        let id = if object == "payment" { &payment } else { &bought.session };
        let right = shop.stripe.find(id).unwrap();
        shop.stripe.tamper(id, change);
        shop.deliver().await;
        assert_eq!(shop.paid(&ada).await, (0, 0), "{problem} of the {object}");
        assert_eq!(shop.status(&ada, &bought).await, "pending");
        let shown = shop.details(&ada, &bought).await;
        assert_eq!((&shown["problem"], &shown["grantedMana"]), (&json!(problem), &json!(0)), "{object}");
        let since = shop.clock.now() - Duration::hours(1);
        assert!(!reconcile(&shop.workers.payments, since, true).await.unwrap().agrees());
        books_are_true(&shop).await;

        // The control: put right, it is credited. And taken back, so that the next one begins with nothing.
        shop.stripe.tamper(id, |object| *object = right);
        shop.workers.reconcile_payments().await;
        assert_eq!(shop.paid(&ada).await, (CREDITS, 0), "{problem} of the {object}, put right");
        assert_eq!(shop.refund(&ada, &bought, &json!({})).await.status, 201);
        shop.deliver().await;
    }
    shop.closes().await;
}

#[tokio::test]
async fn a_delivery_of_another_mode_or_account_or_of_no_order_is_ignored() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let bought = shop.pay(&ada).await;
    for delivery in shop.stripe.take_deliveries() {
        for (name, other) in [("livemode", json!(true)), ("account", json!("acct_of_somebody_else"))] {
            let mut event: Value = serde_json::from_str(&delivery.body).unwrap();
            event["id"] = json!(format!("{}_{name}", event["id"].as_str().unwrap()));
            event[name] = other;
            let (body, now) = (event.to_string(), shop.clock.now().unix_timestamp());
            let signature = sign(&body, "whsec_story", now);
            let taken =
                hand_over(&shop.client, &Delivery { kind: delivery.kind.clone(), signature, body }).await;
            assert_eq!(taken.status, 200);
        }
    }
    for kind in ["invoice.paid", "checkout.session.completed", "charge.refunded", "payment_intent.succeeded"]
    {
        let event = json!({"id": format!("evt_{kind}"), "object": "event", "type": kind, "livemode": false, "created": 1,
            "data": {"object": {"id": "x_1", "payment_intent": null, "metadata": {}}}});
        let (body, now) = (event.to_string(), shop.clock.now().unix_timestamp());
        let signature = sign(&body, "whsec_story", now);
        assert_eq!(
            hand_over(&shop.client, &Delivery { kind: kind.to_owned(), signature, body }).await.status,
            200
        );
    }
    let strange = json!({"id": "evt_strange", "type": "charge.of_tomorrow", "data": {"object": {"id": 7, "metadata": "none"}}});
    let strange = strange.to_string();
    let signature = sign(&strange, "whsec_story", shop.clock.now().unix_timestamp());
    let taken = hand_over(&shop.client, &Delivery { kind: String::new(), signature, body: strange }).await;
    assert_eq!(taken.status, 200, "what is not understood is acknowledged");
    shop.workers.work_on_payments().await;
    assert_eq!(shop.paid(&ada).await, (0, 0));
    assert_eq!(
        shop.number("SELECT count(*) FROM credits.stripe_events WHERE outcome IS DISTINCT FROM 'ignored'")
            .await,
        0
    );
    shop.workers.payments.errands.look_at(&bought.id);
    shop.workers.work_on_payments().await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0), "the control");
    shop.closes().await;
}

#[tokio::test]
async fn a_delivery_is_believed_by_its_signature_only() {
    let shop =
        Shop::with(|settings| settings.stripe_webhook_secret = Some("whsec_next, whsec_story".into())).await;
    let ada = shop.user("ada@example.com").await;
    shop.pay(&ada).await;
    let good = shop.stripe.take_deliveries();
    let now = shop.clock.now().unix_timestamp();
    let one = &good[0];
    let refused = async |signature: &str, body: &str| {
        let delivery =
            Delivery { kind: String::new(), signature: signature.to_owned(), body: body.to_owned() };
        let reply = hand_over(&shop.client, &delivery).await;
        assert_eq!(
            (reply.status.as_u16(), reply.problem()),
            (400, "payments.invalid_signature"),
            "{signature}"
        );
    };
    refused("", &one.body).await;
    refused("garbage", &one.body).await;
    refused(&sign(&one.body, "whsec_other", now), &one.body).await;
    refused(&sign(&one.body, "", now), &one.body).await;
    refused(&sign(&one.body, "whsec_story", now - 301), &one.body).await;
    refused(&sign(&one.body, "whsec_story", now + 301), &one.body).await;
    refused(&one.signature, &format!("{} ", one.body)).await;
    refused(&one.signature.replace("v1=", "v0="), &one.body).await;
    let unsigned = shop.client.request(http::Method::POST, "/api/v1/webhooks/stripe");
    let unsigned = unsigned.body("application/json", one.body.clone()).send().await;
    assert_eq!((unsigned.status.as_u16(), unsigned.problem()), (400, "payments.invalid_signature"));
    assert_eq!(shop.number("SELECT count(*) FROM credits.stripe_events").await, 0);
    let signed_nothing =
        Delivery { kind: String::new(), signature: sign("[]", "whsec_next", now), body: "[]".to_owned() };
    assert_eq!(hand_over(&shop.client, &signed_nothing).await.problem(), "payments.not_an_event");

    // The control, with either secret, and with the other's signature beside it as in a rotation.
    let both = format!("{},{}", sign(&one.body, "whsec_next", now), one.signature.split(',').nth(1).unwrap());
    assert_eq!(hand_over(&shop.client, &Delivery { signature: both, ..one.clone() }).await.status, 200);
    let next = sign(&good[1].body, "whsec_next", now);
    assert_eq!(hand_over(&shop.client, &Delivery { signature: next, ..good[1].clone() }).await.status, 200);

    for secret in [None, Some(""), Some(" , ")] {
        let closed =
            shop.replica_with(|settings| settings.stripe_webhook_secret = secret.map(Into::into)).await;
        let reply = hand_over(&closed.client, one).await;
        assert_eq!(
            (reply.status.as_u16(), reply.problem()),
            (503, "payments.no_webhook_secret"),
            "{secret:?}"
        );
        assert!(reply.headers.contains_key("retry-after"));
        let empty = Delivery { signature: sign(&one.body, "", now), ..one.clone() };
        assert_eq!(hand_over(&closed.client, &empty).await.status, 503);
    }
    shop.workers.work_on_payments().await;
    shop.closes().await;
}

#[tokio::test]
async fn a_delivery_that_is_resent_a_week_later_changes_nothing() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let bought = shop.pay(&ada).await;
    let deliveries = shop.stripe.take_deliveries();
    let late = deliveries.last().unwrap();
    for delivery in &deliveries[..deliveries.len() - 1] {
        hand_over(&shop.client, delivery).await;
    }
    shop.workers.work_on_payments().await;
    assert_eq!(shop.status(&ada, &bought).await, "completed");
    shop.clock.advance(Duration::days(7));
    let ada = shop.sign_in("ada@example.com").await;
    let stale = hand_over(&shop.client, late).await;
    assert_eq!((stale.status.as_u16(), stale.problem()), (400, "payments.invalid_signature"));
    for delivery in &deliveries {
        let id = serde_json::from_str::<Value>(&delivery.body).unwrap()["id"].as_str().unwrap().to_owned();
        let resent = shop.stripe.resend(&id).unwrap();
        assert_eq!(hand_over(&shop.client, &resent).await.status, 200);
    }
    shop.workers.work_on_payments().await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    shop.closes().await;
}

#[tokio::test]
async fn a_payment_that_went_back_before_anybody_looked_gives_nothing() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let bought = shop.pay(&ada).await;
    shop.stripe.refund(&shop.payment(&bought), None).unwrap();
    shop.stripe.turn(Knobs { reorder: true, ..Knobs::default() });
    shop.deliver().await;
    let found = shop.purchase(&ada, &bought).await;
    assert_eq!((found.text("/status"), found.text("/state")), ("refunded", "refunded"));
    assert_eq!(shop.paid(&ada).await, (0, 0));
    shop.closes().await;
}

#[tokio::test]
async fn an_administrator_gives_back_what_is_not_spent_and_no_more() {
    let shop = Shop::open().await;
    let ada = shop.administrator("ada@example.com").await;
    let bob = shop.user("bob@example.com").await;
    let bought = shop.buy(&bob).await;
    // 150 are free and go first.
    assert_eq!(spend(&shop, &bob, 150 + 550).await.status, 201);
    let shown = shop.details(&ada, &bought).await;
    assert_eq!((&shown["refundableCents"], &shown["problem"]), (&json!(500), &Value::Null), "{shown}");
    let refused = shop.refund(&bob, &bought, &json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (403, "auth.admin_required"));
    let refused = shop.refund(&ada, &bought, &json!({"amountCents": 501})).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (409, "payments.not_refundable"));

    let body = json!({"amountCents": 200, "reason": "requested_by_customer", "idempotencyKey": "ticket-1"});
    let refunded = shop.refund(&ada, &bought, &body).await;
    assert_eq!((refunded.status.as_u16(), refunded.text("/status")), (201, "succeeded"), "{}", refunded.json);
    let again = shop.refund(&ada, &bought, &body).await;
    assert_eq!(again.text("/id"), refunded.text("/id"));
    let other = shop.refund(&ada, &bought, &json!({"amountCents": 201, "idempotencyKey": "ticket-1"})).await;
    assert_eq!((other.status.as_u16(), other.problem()), (422, "request.idempotency_key_reused"));
    assert_eq!(shop.stripe.count_calls("POST /v1/refunds"), 1);
    let taken = CREDITS * 200 / PRICE;
    assert_eq!(shop.paid(&bob).await, (550 - taken, 0));
    assert_eq!(shop.purchase(&bob, &bought).await.text("/state"), "partially_refunded");

    // Ten at once share what is left.
    let requests = (0..10).map(|_| {
        let body = json!({"amountCents": 100});
        let shop = &shop;
        let (ada, bought) = (&ada, &bought);
        async move { shop.refund(ada, bought, &body).await.status.as_u16() }
    });
    let mut statuses = join_all(requests).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [[201; 3].as_slice(), &[409; 7]].concat());
    shop.deliver().await;
    assert_eq!(shop.stripe.count_calls("POST /v1/refunds"), 4);
    assert_eq!(shop.paid(&bob).await.1, 0);
    shop.closes().await;
}

#[tokio::test]
async fn a_refund_that_stripe_did_not_answer_is_done_once_in_the_end() {
    let shop = Shop::open().await;
    let ada = shop.administrator("ada@example.com").await;
    let bought = shop.buy(&ada).await;
    shop.stripe.break_down(true);
    let wanted = shop.refund(&ada, &bought, &json!({"amountCents": 300})).await;
    assert_eq!((wanted.status.as_u16(), wanted.text("/status")), (201, "wanted"), "{}", wanted.json);
    let taken = CREDITS * 300 / PRICE;
    assert_eq!(shop.paid(&ada).await, (CREDITS - taken, 0), "nobody spends what is about to go back");
    shop.stripe.break_down(false);
    shop.workers.work_on_payments().await;
    assert_eq!(shop.details(&ada, &bought).await["refunds"][0]["status"], "wanted", "not yet");
    shop.clock.advance(Duration::minutes(3));
    let ada = shop.sign_in("ada@example.com").await;
    for _ in 0..3 {
        shop.workers.work_on_payments().await;
    }
    assert_eq!(shop.details(&ada, &bought).await["refunds"][0]["status"], "succeeded");
    assert_eq!(
        shop.stripe.find(&shop.payment(&bought)).map(|_| shop.paid(&ada)).unwrap().await,
        (CREDITS - taken, 0)
    );

    // It comes back from the bank: so does the mana.
    let refund =
        shop.details(&ada, &bought).await["refunds"][0]["stripeRefundId"].as_str().unwrap().to_owned();
    shop.stripe.fail_refund(&refund).unwrap();
    shop.deliver().await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    assert_eq!(shop.purchase(&ada, &bought).await.text("/state"), "paid");
    shop.closes().await;
}

#[tokio::test]
async fn what_stripe_does_and_nobody_hears_of_is_done_once() {
    let shop = Shop::open().await;
    let ada = shop.administrator("ada@example.com").await;
    let body = json!({"packageId": "small", "idempotencyKey": "k"});
    for (call, made) in [("/customers", "customer"), ("/checkout/sessions", "checkout.session")] {
        shop.stripe.lose_answers(Some(call));
        for _ in 0..2 {
            let refused = shop.order(&ada, &body).await;
            assert_eq!((refused.status.as_u16(), refused.problem()), (503, "payments.provider_unavailable"));
        }
        assert_eq!((shop.stripe.count(made), shop.stripe.count_calls(&format!("POST /v1{call}"))), (1, 4));
    }
    shop.stripe.lose_answers(None);
    let placed = shop.order(&ada, &body).await;
    assert_eq!(placed.status, 201, "{}", placed.json);
    assert_eq!((shop.stripe.count("customer"), shop.stripe.count("checkout.session")), (1, 1));
    let session = placed.text("/checkoutUrl").rsplit('/').next().unwrap().to_owned();
    let bought = Bought { id: placed.text("/purchaseId").to_owned(), session };
    shop.stripe.act(&bought.session, Outcome::Pay).unwrap();
    shop.deliver().await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));

    let refunds = async |admin: &User| {
        let shown = shop.details(admin, &bought).await;
        let all = shown["refunds"].as_array().unwrap().clone();
        all.iter().map(|refund| refund["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let calls = || shop.stripe.count_calls("POST /v1/refunds");
    shop.stripe.lose_answers(Some("/refunds"));
    let body = json!({"amountCents": 300, "idempotencyKey": "ticket-1"});
    let wanted = shop.refund(&ada, &bought, &body).await;
    assert_eq!((wanted.status.as_u16(), wanted.text("/status")), (201, "wanted"), "{}", wanted.json);
    assert_eq!((shop.stripe.count("refund"), calls()), (1, 2), "asked twice, done once");
    let again = shop.refund(&ada, &bought, &body).await;
    assert_eq!((again.status.as_u16(), again.text("/status")), (201, "succeeded"), "{}", again.json);
    assert_eq!((shop.stripe.count("refund"), calls()), (1, 2), "what is found there is not asked for again");
    assert_eq!(shop.paid(&ada).await, (CREDITS - CREDITS * 300 / PRICE, 0));

    // The next one is found after a day: Stripe has forgotten the key by then, and not what was done under it.
    let wanted = shop.refund(&ada, &bought, &json!({"amountCents": 100})).await;
    assert_eq!(wanted.text("/status"), "wanted", "{}", wanted.json);
    shop.stripe.lose_answers(None);
    shop.clock.advance(Duration::days(2));
    shop.workers.send_refunds().await;
    let ada = shop.sign_in("ada@example.com").await;
    assert_eq!(refunds(&ada).await, ["succeeded"; 2]);
    assert_eq!((shop.stripe.count("refund"), calls()), (2, 4));
    assert_eq!(shop.paid(&ada).await, (CREDITS - CREDITS * 400 / PRICE, 0));
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn a_refund_waits_while_stripe_refuses_the_key() {
    let shop = Shop::open().await;
    let ada = shop.administrator("ada@example.com").await;
    let bought = shop.buy(&ada).await;
    let body = json!({"amountCents": 300, "idempotencyKey": "ticket-1"});
    let taken = CREDITS * 300 / PRICE;
    for (status, code) in [(403, "more_permissions_required"), (401, "api_key_expired")] {
        shop.stripe.refuse(Some(("/refunds", status, code)));
        let wanted = shop.refund(&ada, &bought, &body).await;
        assert_eq!((wanted.status.as_u16(), wanted.text("/status")), (201, "wanted"), "{}", wanted.json);
        shop.clock.advance(Duration::minutes(3));
        shop.workers.send_refunds().await;
        assert_eq!(shop.details(&ada, &bought).await["refunds"][0]["status"], "wanted", "{status}");
        assert_eq!(shop.paid(&ada).await, (CREDITS - taken, 0), "nobody spends what is about to go back");
    }
    shop.stripe.refuse(None);
    shop.clock.advance(Duration::minutes(3));
    shop.workers.send_refunds().await;
    assert_eq!(shop.details(&ada, &bought).await["refunds"][0]["status"], "succeeded");
    assert_eq!((shop.stripe.count("refund"), shop.paid(&ada).await), (1, (CREDITS - taken, 0)));

    // The control: a refusal of the refund itself ends it.
    shop.stripe.refuse(Some(("/refunds", 400, "charge_already_refunded")));
    let refused = shop.refund(&ada, &bought, &json!({"amountCents": 100})).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (409, "payments.not_refundable"));
    shop.stripe.refuse(None);
    assert_eq!(shop.paid(&ada).await, (CREDITS - taken, 0));
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn an_order_whose_payment_is_not_noted_is_refunded_once_or_not_at_all() {
    let shop = Shop::open().await;
    let ada = shop.administrator("ada@example.com").await;
    let at_a_till = shop.buy(&ada).await;
    shop.clock.advance(Duration::SECOND);
    let nowhere = shop.buy(&ada).await;
    // As the older service left some: one of which Stripe has the till, and one of which nothing is known.
    shop.execute("UPDATE credits.purchases SET payment_id = NULL").await;
    let youngest_is_nowhere = "UPDATE credits.purchases SET payment_id = NULL, session_id = NULL WHERE id = (SELECT max(id) FROM credits.purchases)";
    shop.execute(youngest_is_nowhere).await;
    let refunded = shop.refund(&ada, &at_a_till, &json!({"amountCents": 300})).await;
    assert_eq!((refunded.status.as_u16(), refunded.text("/status")), (201, "succeeded"), "{}", refunded.json);
    let left = 2 * CREDITS - CREDITS * 300 / PRICE;
    assert_eq!((shop.stripe.count("refund"), shop.paid(&ada).await), (1, (left, 0)));

    assert_eq!(shop.details(&ada, &nowhere).await["refundableCents"], 0);
    for body in [json!({}), json!({"amountCents": 500})] {
        let refused = shop.refund(&ada, &nowhere, &body).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (409, "payments.not_refundable"), "{body}");
    }
    assert_eq!(shop.details(&ada, &nowhere).await["refunds"], json!([]));
    assert_eq!((shop.stripe.count("refund"), shop.paid(&ada).await), (1, (left, 0)), "and nothing is taken");

    // One that was wanted all the same, before that was looked at, ends, and holds up no other.
    shop.clock.advance(Duration::SECOND);
    let stuck = shop.buy(&ada).await;
    shop.stripe.break_down(true);
    for bought in [&stuck, &at_a_till] {
        let wanted = shop.refund(&ada, bought, &json!({"amountCents": 100})).await;
        assert_eq!(wanted.text("/status"), "wanted", "{}", wanted.json);
        shop.clock.advance(Duration::SECOND);
    }
    shop.stripe.break_down(false);
    shop.execute(youngest_is_nowhere).await;
    shop.clock.advance(Duration::minutes(3));
    shop.workers.send_refunds().await;
    assert_eq!(shop.details(&ada, &stuck).await["refunds"][0]["status"], "failed");
    let refunds = shop.details(&ada, &at_a_till).await["refunds"].clone();
    assert!(refunds.as_array().unwrap().iter().all(|refund| refund["status"] == "succeeded"), "{refunds}");
    let left = 3 * CREDITS - CREDITS * 400 / PRICE;
    assert_eq!((shop.stripe.count("refund"), shop.paid(&ada).await), (2, (left, 0)));
    shop.closes_but_for(2).await;
}

#[tokio::test]
async fn a_dispute_freezes_what_is_left_and_gives_it_back_or_leaves_a_debt() {
    let shop = Shop::open().await;
    let ada = shop.administrator("ada@example.com").await;
    let bob = shop.user("bob@example.com").await;
    let bought = shop.buy(&bob).await;
    assert_eq!(spend(&shop, &bob, 150 + 300).await.status, 201);
    let inquiry = shop.stripe.dispute(&shop.payment(&bought), None, "warning_needs_response").unwrap();
    shop.deliver().await;
    assert_eq!(shop.paid(&bob).await, (800, 0), "a bank only asks");
    shop.stripe.close_dispute(&inquiry, "warning_closed").unwrap();

    let won = shop.stripe.dispute(&shop.payment(&bought), None, "needs_response").unwrap();
    shop.deliver().await;
    assert_eq!(shop.paid(&bob).await, (0, 0), "frozen, and not yet a debt");
    assert_eq!(shop.purchase(&bob, &bought).await.json["disputed"], true);
    let refused = shop.refund(&ada, &bought, &json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (409, "payments.not_refundable"));
    shop.stripe.close_dispute(&won, "won").unwrap();
    shop.deliver().await;
    assert_eq!(shop.paid(&bob).await, (800, 0));
    assert_eq!(events_of(&shop, &bob).await, []);

    let lost = shop.stripe.dispute(&shop.payment(&bought), None, "needs_response").unwrap();
    shop.deliver().await;
    shop.stripe.close_dispute(&lost, "lost").unwrap();
    shop.deliver().await;
    assert_eq!(shop.paid(&bob).await, (0, 300), "what was spent is owed");
    assert_eq!(events_of(&shop, &bob).await, [("payment_dispute_lost".to_owned(), bought.id.clone())]);
    let shown = shop.details(&ada, &bought).await;
    assert_eq!(
        (&shown["takenMana"], &shown["owedMana"], &shown["lostCents"]),
        (&json!(800), &json!(300), &json!(PRICE))
    );
    all_is_well(&shop).await;

    // The next purchase pays the debt first.
    shop.buy(&bob).await;
    assert_eq!(shop.paid(&bob).await, (CREDITS - 300, 0));
    assert_eq!(spend(&shop, &bob, 100).await.status, 201);
    shop.closes().await;
}

#[tokio::test]
async fn who_bought_before_the_books_were_moved_buys_and_owes_on_in_true_books() {
    let old = Shop::open().await;
    let bob = old.user("bob@example.com").await;
    let bought = old.buy(&bob).await;
    assert_eq!(spend(&old, &bob, 150 + 300).await.status, 201);
    let lost = old.stripe.dispute(&old.payment(&bought), None, "needs_response").unwrap();
    old.deliver().await;
    old.stripe.close_dispute(&lost, "lost").unwrap();
    old.deliver().await;
    assert_eq!(old.paid(&bob).await, (0, 300));

    let new = Shop::open().await;
    imported(&new, &exported(&old).await).await.unwrap();
    for (table, user) in [("auth.users", "id"), ("auth.passwords", "user_id")] {
        let rows = format!("SELECT to_jsonb(it)::text FROM {table} it WHERE {user} = $1");
        let row: String = sqlx::query_scalar(AssertSqlSafe(rows))
            .bind(&bob.id)
            .fetch_one(&mut old.database.owner().await)
            .await
            .unwrap();
        let taken =
            format!("INSERT INTO {table} SELECT * FROM jsonb_populate_record(NULL::{table}, $1::jsonb)");
        sqlx::query(AssertSqlSafe(taken)).bind(row).execute(&mut new.database.owner().await).await.unwrap();
    }
    let bob = new.sign_in("bob@example.com").await;
    assert_eq!(new.paid(&bob).await, (0, 300), "the debt came along");

    let again = new.buy(&bob).await;
    assert_eq!(new.paid(&bob).await, (CREDITS - 300, 0), "and is paid first");
    all_is_well(&new).await;
    assert_eq!(spend(&new, &bob, 100).await.status, 201);
    let lost = new.stripe.dispute(&new.payment(&again), None, "needs_response").unwrap();
    new.deliver().await;
    new.stripe.close_dispute(&lost, "lost").unwrap();
    new.deliver().await;
    assert!(new.paid(&bob).await.1 > 0, "{:?}", new.paid(&bob).await);
    all_is_well(&new).await;
    new.execute("DELETE FROM credits.moved_wallets").await;
    let scope = Scope { since: None, daily_zone: "UTC" };
    let found = verify(&new.database.service(), scope, |_| {}).await.unwrap().findings;
    let found: Vec<_> = found.iter().map(|finding| finding.invariant).collect();
    assert!(found.contains(&22) && found.contains(&25), "what it came with is what is left out: {found:?}");
    old.closes().await;
    new.breaks_up();
}

#[tokio::test]
async fn a_purchase_that_waits_for_its_wallet_is_dated_when_it_has_it() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    shop.pay(&ada).await;
    for delivery in shop.stripe.take_deliveries() {
        assert_eq!(hand_over(&shop.client, &delivery).await.status, 200);
    }
    let held = shop.holding("SELECT FROM credits.balances FOR UPDATE").await;
    let workers = shop.workers.clone();
    let credited = tokio::spawn(async move { workers.work_on_stripe_deliveries().await });
    while shop.number(WAITING).await == 0 {
        assert!(!credited.is_finished(), "it did not wait");
        tokio::task::yield_now().await;
    }
    // Of a moment before this, a balance may have been asked for by now.
    shop.clock.advance(Duration::minutes(1));
    let_go(held).await;
    credited.await.unwrap();
    let dated = "SELECT floor(extract(epoch FROM created_at))::bigint FROM credits.transactions WHERE type = 'purchase'";
    assert_eq!(shop.number(dated).await, shop.clock.now().unix_timestamp());
    shop.closes().await;
}

#[tokio::test]
async fn whoever_owes_spends_no_paid_mana_and_may_spend_free_mana() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let (first, second) = (shop.buy(&ada).await, shop.buy(&ada).await);
    assert_eq!(spend(&shop, &ada, 150 + CREDITS).await.status, 201);
    // The second purchase is there to the last mana, and the first one is contested.
    let dispute = shop.stripe.dispute(&shop.payment(&first), None, "needs_response").unwrap();
    shop.stripe.close_dispute(&dispute, "lost").unwrap();
    shop.deliver().await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, CREDITS));
    let refused = spend(&shop, &ada, 1).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (409, "credits.in_debt"));
    shop.clock.advance(Duration::days(1));
    shop.execute("UPDATE credits.balances SET daily_granted_on = daily_granted_on - 1").await;
    let ada = shop.sign_in("ada@example.com").await;
    assert_eq!(spend(&shop, &ada, 5).await.status, 201, "the day's free mana");
    let warned = shop.payment(&second);
    shop.stripe.warn_of_fraud(&warned).unwrap();
    shop.deliver().await;
    shop.deliver().await;
    let events = events_of(&shop, &ada).await;
    assert_eq!(events[0], ("payment_fraud_warning".to_owned(), second.id.clone()));
    assert_eq!(events.len(), 2);
    shop.closes().await;
}

#[tokio::test]
async fn a_package_has_versions_and_an_order_keeps_its_own() {
    let shop = Shop::open().await;
    let ada = shop.administrator("ada@example.com").await;
    let bob = shop.user("bob@example.com").await;
    let put = async |user: &User, body: Value| {
        let request = shop.client.request(http::Method::PUT, "/api/v1/admin/packages/small");
        request.body("application/json", body.to_string()).bearer(&user.access_token).send().await
    };
    let content = json!({"name": "Small", "credits": 2_000, "priceEuroCents": 1_500});
    assert_eq!(put(&bob, content.clone()).await.problem(), "auth.admin_required");
    let old = shop.go_to_till(&bob).await;
    let changed = put(&ada, content.clone()).await;
    assert_eq!((changed.status.as_u16(), changed.integer("/version")), (200, 2), "{}", changed.json);
    assert_eq!(put(&ada, content).await.integer("/version"), 2, "the same is no new version");
    let new = shop.order(&bob, &json!({"packageId": "small"})).await;
    assert_eq!((new.integer("/amount"), new.integer("/credits")), (1_500, 2_000));
    shop.stripe.act(&old.session, Outcome::Pay).unwrap();
    shop.deliver().await;
    assert_eq!(shop.paid(&bob).await, (CREDITS, 0), "as it was sold");

    let packages = shop.client.get("/api/v1/credits/packages").send().await;
    assert_eq!((packages.text("/0/id"), packages.integer("/0/priceEuroCents")), ("small", 1_500));
    let gone = json!({"name": "Small", "credits": 2_000, "priceEuroCents": 1_500, "active": false});
    assert_eq!(put(&ada, gone).await.status, 200);
    assert_eq!(shop.client.get("/api/v1/credits/packages").send().await.json, json!([]));
    assert_eq!(shop.get("/api/v1/admin/packages", &ada).await.json[0]["active"], false);
    let refused = shop.order(&bob, &json!({"packageId": "small"})).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (404, "payments.no_such_package"));
    let odd = json!({"name": "Small", "credits": 2_000, "priceEuroCents": 1_500, "metadata": {"nul": "\u{0}", "deep": [1, {"a": null}]}});
    let kept = put(&ada, odd.clone()).await;
    assert_eq!((kept.status.as_u16(), &kept.json["metadata"]), (200, &odd["metadata"]));
    let refused =
        put(&ada, json!({"name": "x", "credits": 10, "bonusCredits": 11, "priceEuroCents": 10})).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (400, "payments.bonus_beyond_credits"));
    shop.closes().await;
}

#[tokio::test]
async fn an_order_can_be_repeated_under_its_key_and_is_one() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let body = json!({"packageId": "small", "idempotencyKey": "k", "currency": "usd"});
    let first = shop.order(&ada, &body).await;
    assert_eq!(
        (first.status.as_u16(), first.integer("/amount"), first.text("/currency")),
        (201, 1_099, "usd")
    );
    let requests = (0..10).map(|_| shop.order(&ada, &body));
    for again in join_all(requests).await {
        assert_eq!(again.json, first.json);
    }
    let other = shop.order(&ada, &json!({"packageId": "small", "idempotencyKey": "k"})).await;
    assert_eq!((other.status.as_u16(), other.problem()), (422, "request.idempotency_key_reused"));
    assert_eq!(shop.stripe.count_calls("POST /v1/checkout/sessions"), 1);

    // A till that could not be opened is opened by the same request later.
    shop.stripe.break_down(true);
    let body = json!({"packageId": "small", "idempotencyKey": "later"});
    let refused = shop.order(&ada, &body).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (503, "payments.provider_unavailable"));
    shop.stripe.break_down(false);
    assert_eq!(shop.order(&ada, &body).await.status, 201);
    assert_eq!(shop.number("SELECT count(*) FROM credits.purchases").await, 2);
    assert_eq!(shop.stripe.count_calls("POST /v1/customers"), 1);

    let link = shop.client.post("/api/v1/credits/payment-link", &json!({"packageId": "small"}));
    let link = link.bearer(&ada.access_token).send().await;
    assert_eq!((link.status.as_u16(), link.integer("/package/credits")), (201, CREDITS), "{}", link.json);
    assert!(link.text("/url").starts_with("http") && !link.text("/expiresAt").is_empty());
    let body = json!({"packageId": "small", "uiMode": "embedded"});
    let orders = shop.number("SELECT count(*) FROM credits.purchases").await;
    let refused =
        shop.client.post("/api/v1/credits/payment-link", &body).bearer(&ada.access_token).send().await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (400, "payments.embedded_link"));
    assert_eq!(
        shop.number("SELECT count(*) FROM credits.purchases").await,
        orders,
        "there is no order either"
    );
    let embedded = shop.order(&ada, &body).await;
    assert_eq!(embedded.json["checkoutUrl"], Value::Null);
    assert!(embedded.text("/clientSecret").starts_with("cs_test_"), "{}", embedded.json);
    shop.closes().await;
}

#[tokio::test]
async fn an_order_that_can_not_be_is_refused_with_a_way_out() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    for (body, status, code) in [
        (json!({"packageId": "none"}), 404, "payments.no_such_package"),
        (json!({"packageId": "small", "currency": "jpy"}), 400, "payments.no_such_price"),
        (json!({"packageId": "small", "successUrl": "https://evil.example/"}), 400, "payments.foreign_url"),
        (
            json!({"packageId": "small", "cancelUrl": "http://localhost:3000@evil.example/"}),
            400,
            "request.invalid_body",
        ),
        (json!({"packageId": "small", "successUrl": "javascript:alert(1)"}), 400, "request.invalid_body"),
        (json!({"packageId": "small", "amount": 1}), 400, "request.invalid_body"),
        (json!({"packageId": "small", "credits": 1_000_000}), 400, "request.invalid_body"),
    ] {
        let refused = shop.order(&ada, &body).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (status, code), "{body}");
    }
    assert_eq!(shop.number("SELECT count(*) FROM credits.purchases").await, 0);
    let closed = shop.replica_with(|settings| settings.stripe_secret_key = None).await;
    let refused = closed.client.post("/api/v1/credits/purchase", &json!({"packageId": "small"}));
    let refused = refused.bearer(&ada.access_token).send().await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (503, "payments.not_configured"));
    closed.workers.work_on_payments().await;
    closed.workers.reconcile_payments().await;

    // Stripe's own price is another than the package's.
    shop.import(json!([{"id": "odd", "name": "Odd", "credits": 10, "priceEuroCents": 500, "stripePriceId": "price_eur_400"}])).await;
    let refused = shop.order(&ada, &json!({"packageId": "odd"})).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (503, "payments.wrong_stripe_price"));
    shop.import(json!([{"id": "odd", "name": "Odd", "credits": 10, "priceEuroCents": 500, "stripePriceId": "price_eur_500_gone"}])).await;
    let refused = shop.order(&ada, &json!({"packageId": "odd"})).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (503, "payments.wrong_stripe_price"));
    assert!(refused.headers.contains_key("retry-after"));
    shop.import(json!([{"id": "odd", "name": "Odd", "credits": 10, "priceEuroCents": 500, "stripePriceId": "price_eur_500"}])).await;
    assert_eq!(shop.order(&ada, &json!({"packageId": "odd"})).await.status, 201);
    shop.closes().await;
}

#[tokio::test]
async fn a_customer_who_was_deleted_at_stripe_is_made_anew_once() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let before = shop.buy(&ada).await;
    let customer =
        |bought: &Bought| shop.stripe.find(&bought.session).unwrap()["customer"].as_str().unwrap().to_owned();
    shop.stripe.delete_customer(&customer(&before)).unwrap();
    let after = shop.buy(&ada).await;
    assert_ne!(customer(&before), customer(&after));
    assert_eq!(shop.paid(&ada).await, (2 * CREDITS, 0));
    let third = shop.buy(&ada).await;
    assert_eq!(customer(&after), customer(&third));
    assert_eq!(shop.stripe.count_calls("POST /v1/customers"), 2);
    // What the old one paid is still what it was.
    shop.stripe.refund(&shop.payment(&before), None).unwrap();
    shop.deliver().await;
    assert_eq!(shop.purchase(&ada, &before).await.text("/state"), "refunded");
    shop.closes().await;
}

#[tokio::test]
async fn a_payment_for_a_wallet_that_is_closed_is_told_to_a_person() {
    let shop = Shop::open().await;
    let ada = shop.administrator("ada@example.com").await;
    let bob = shop.user("bob@example.com").await;
    let bought = shop.pay(&bob).await;
    shop.execute("UPDATE credits.balances SET closed_at = now() WHERE user_id <> (SELECT id FROM auth.users WHERE role = 'admin')").await;
    shop.deliver().await;
    let shown = shop.details(&ada, &bought).await;
    assert_eq!(
        (&shown["problem"], &shown["grantedMana"], &shown["capturedCents"]),
        (&json!("wallet_closed"), &json!(0), &json!(PRICE))
    );
    let since = shop.clock.now() - Duration::hours(1);
    let report = reconcile(&shop.workers.payments, since, true).await.unwrap();
    assert!(report.findings[0].sentence.contains("wallet_closed"), "{report:?}");
    books_are_true(&shop).await;
    // The person gives the money back, and that is the end of it.
    shop.stripe.refund(&shop.payment(&bought), None).unwrap();
    shop.deliver().await;
    let shown = shop.details(&ada, &bought).await;
    assert_eq!((&shown["problem"], &shown["state"]), (&Value::Null, &json!("refunded")));
    shop.closes().await;
}

#[tokio::test]
async fn an_order_at_rest_is_not_looked_at_for_ever() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    shop.buy(&ada).await;
    for _ in 0..3 {
        shop.clock.advance(Duration::days(2));
        shop.workers.reconcile_payments().await;
    }
    let before = shop.stripe.count_calls("GET /v1/checkout/sessions/");
    assert!(before > 0);
    shop.workers.reconcile_payments().await;
    assert_eq!(shop.stripe.count_calls("GET /v1/checkout/sessions/"), before);
    shop.closes().await;
}

#[tokio::test]
async fn a_till_whose_answer_was_lost_is_found_by_the_comparison() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let bought = shop.pay(&ada).await;
    // As if the process had died between Stripe's answer and the note of it.
    shop.execute("UPDATE credits.purchases SET session_id = NULL, state = 'created', lifecycle = 'created', customer_id = NULL").await;
    shop.deliver().await;
    assert_eq!(shop.paid(&ada).await, (0, 0));
    shop.workers.reconcile_payments().await;
    assert_eq!(shop.status(&ada, &bought).await, "completed");
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    shop.closes().await;
}

#[tokio::test]
async fn without_a_stripe_the_packages_are_shown_all_the_same() {
    let story = Story::with(|settings| settings.stripe_secret_key = None).await;
    let packages = story.client.get("/api/v1/credits/packages").send().await;
    assert_eq!((packages.status.as_u16(), packages.json), (200, json!([])));
}

#[tokio::test]
async fn the_proof_finds_what_contradicts_a_purchase() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let bought = shop.buy(&ada).await;
    shop.buy(&ada).await;
    spend(&shop, &ada, 150 + 100).await;
    shop.stripe.refund(&shop.payment(&bought), None).unwrap();
    shop.deliver().await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 100));
    all_is_well(&shop).await;
    let scope = || Scope { since: None, daily_zone: "UTC" };
    for (lie, invariant) in [
        ("UPDATE credits.balances SET debt = 0", 25),
        ("UPDATE credits.purchases SET owed_mana = 0", 25),
        ("UPDATE credits.purchases SET taken_mana = taken_mana - 1 WHERE owed_mana > 0", 25),
        ("UPDATE credits.purchases SET refunded_cents = 1", 23),
        (
            "UPDATE credits.purchases SET lost_cents = 0, refunded_cents = 0, taken_mana = 0, owed_mana = 0",
            25,
        ),
        (
            "UPDATE credits.purchases SET price_cents = price_cents + 1, captured_cents = captured_cents + 1",
            24,
        ),
        ("DELETE FROM credits.purchases WHERE owed_mana = 0", 22),
    ] {
        // As somebody who may do everything, and takes it back.
        shop.execute("CREATE TABLE public.kept AS SELECT * FROM credits.balances").await;
        shop.execute("CREATE TABLE public.orders AS SELECT * FROM credits.purchases").await;
        shop.execute("ALTER TABLE credits.refunds DROP CONSTRAINT refunds_purchase_id_fkey").await;
        shop.execute(lie).await;
        let report = verify(&shop.database.service(), scope(), |_| {}).await.unwrap();
        assert!(
            report.findings.iter().any(|finding| finding.invariant == invariant),
            "{lie}: {:?}",
            report.findings
        );
        shop.execute("UPDATE credits.balances SET debt = (SELECT kept.debt FROM public.kept WHERE kept.wallet_id = balances.wallet_id)").await;
        shop.execute(
            "UPDATE credits.purchases now SET owed_mana = was.owed_mana, taken_mana = was.taken_mana, refunded_cents = was.refunded_cents,
                 price_cents = was.price_cents, captured_cents = was.captured_cents, lost_cents = was.lost_cents
             FROM public.orders was WHERE was.id = now.id",
        )
        .await;
        shop.execute("DROP TABLE public.kept, public.orders").await;
        shop.execute("ALTER TABLE credits.refunds ADD CONSTRAINT refunds_purchase_id_fkey FOREIGN KEY (purchase_id) REFERENCES credits.purchases (id) NOT VALID").await;
    }
    shop.breaks_up();
}

#[tokio::test]
async fn the_database_refuses_to_credit_an_order_anew_or_for_another_amount() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    shop.buy(&ada).await;
    let service = shop.database.service();
    for (change, constraint) in [
        ("UPDATE credits.purchases SET granted_mana = 0, grant_sequence = NULL", "purchases_credited_once"),
        ("UPDATE credits.purchases SET grant_sequence = 99", "purchases_credited_once"),
        ("UPDATE credits.purchases SET captured_cents = 1", "purchases_credited_when_captured"),
        ("UPDATE credits.purchases SET taken_mana = 5000", "purchases_taken_range"),
    ] {
        let mut transaction = service.begin().await.unwrap();
        let refused = sqlx::query(change).execute(&mut *transaction).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().constraint(), Some(constraint), "{change}");
    }
    for change in [
        "UPDATE credits.purchases SET credits = 1",
        "UPDATE credits.package_versions SET credits = 1",
        "DELETE FROM credits.purchases",
    ] {
        let mut transaction = service.begin().await.unwrap();
        let refused = sqlx::query(change).execute(&mut *transaction).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "42501", "{change}");
    }
    shop.closes().await;
}

#[tokio::test]
async fn a_debt_is_forgiven_by_an_administrator_with_a_reason_and_the_books_stay_true() {
    let shop = Shop::open().await;
    let (ada, bob) = (shop.administrator("ada@example.com").await, shop.user("bob@example.com").await);
    let bought = shop.buy(&bob).await;
    assert_eq!(spend(&shop, &bob, 150 + 300).await.status, 201);
    let dispute = shop.stripe.dispute(&shop.payment(&bought), None, "needs_response").unwrap();
    shop.stripe.close_dispute(&dispute, "lost").unwrap();
    shop.deliver().await;
    assert_eq!(shop.paid(&bob).await, (0, 300));
    let path = format!("/api/v1/admin/users/{}/credits/forgive-debt", bob.id);
    let forgive = async |admin: &User, amount: i64, key: &str| {
        let body = json!({"amount": amount, "reason": "goodwill", "idempotencyKey": key});
        shop.client.post(&path, &body).bearer(&admin.access_token).send().await
    };
    assert_eq!(forgive(&bob, 100, "a").await.problem(), "auth.admin_required");
    let refused = forgive(&ada, 301, "b").await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (409, "credits.forgives_too_much"));
    let balance = shop.get("/api/v1/credits/balance", &bob).await.json;
    let done = forgive(&ada, 100, "c").await;
    assert_eq!((done.status.as_u16(), done.text("/transaction/description")), (201, "Debt forgiven"));
    assert_eq!(shop.paid(&bob).await, (0, 200));
    assert_eq!(
        shop.get("/api/v1/credits/balance", &bob).await.json["freeCreditsRemaining"],
        balance["freeCreditsRemaining"]
    );
    assert_eq!(forgive(&ada, 100, "c").await.bytes, done.bytes, "once");
    assert_eq!(shop.paid(&bob).await, (0, 200));
    let seen = format!("/api/v1/admin/security-events?type=debt_forgiven&userId={}", bob.id);
    let events = shop.get(&seen, &ada).await;
    assert_eq!((&events.json[0]["actorId"], &events.json[0]["reason"]), (&json!(ada.id), &json!("goodwill")));
    assert_eq!(events.json.as_array().unwrap().len(), 1);
    all_is_well(&shop).await;
    // Two at once forgive it once.
    let both = futures_util::future::join(forgive(&ada, 200, "d"), forgive(&ada, 200, "e")).await;
    let mut statuses = [both.0.status.as_u16(), both.1.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
    assert_eq!(shop.paid(&bob).await, (0, 0));
    all_is_well(&shop).await;
    // And paid mana can be spent again.
    shop.buy(&bob).await;
    assert_eq!(spend(&shop, &bob, 100).await.status, 201);
    shop.closes().await;
}

#[tokio::test]
async fn what_moves_money_asks_administrators_for_a_proof_that_is_fresh() {
    let shop = Shop::open().await;
    let (ada, bob) = (shop.administrator("ada@example.com").await, shop.user("bob@example.com").await);
    let bought = shop.buy(&bob).await;
    shop.clock.advance(Duration::minutes(11));
    let body = json!({"amount": 1, "reason": "r"});
    let content = json!({"name": "Small", "credits": 2_000, "priceEuroCents": 1_500});
    let of = |verb: &str| format!("/api/v1/admin/users/{}/credits/{verb}", bob.id);
    let attempts = [
        (
            http::Method::POST,
            format!("/api/v1/admin/purchases/{}/refund", bought.id),
            json!({"amountCents": 1}),
            201,
        ),
        (http::Method::PUT, "/api/v1/admin/packages/small".to_owned(), content, 200),
        (http::Method::POST, of("grant"), body.clone(), 201),
        (http::Method::POST, of("take"), body.clone(), 201),
    ];
    let ask = async |admin: &User, method: &http::Method, path: &str, body: &Value| {
        let request = shop.client.request(method.clone(), path).body("application/json", body.to_string());
        request.bearer(&admin.access_token).send().await
    };
    for (method, path, body, _) in &attempts {
        let refused = ask(&ada, method, path, body).await;
        assert_eq!(
            (refused.status.as_u16(), refused.problem()),
            (403, "auth.fresh_authentication_required"),
            "{path}"
        );
    }
    assert_eq!(ask(&ada, &http::Method::POST, &of("forgive-debt"), &body).await.status, 403);
    assert_eq!(shop.details(&ada, &bought).await["refunds"], json!([]), "reading is not moving");
    let ada = shop.sign_in("ada@example.com").await;
    for (method, path, body, status) in &attempts {
        let done = ask(&ada, method, path, body).await;
        assert_eq!(done.status.as_u16(), *status, "{path}: {}", done.json);
    }
    shop.closes().await;
}

#[tokio::test]
async fn administrators_find_purchases_of_a_user_in_a_state_page_by_page() {
    let shop = Shop::open().await;
    let (ada, bob) = (shop.administrator("ada@example.com").await, shop.user("bob@example.com").await);
    let mut bought = Vec::new();
    for _ in 0..3 {
        bought.push(shop.buy(&bob).await.id);
        shop.clock.advance(Duration::seconds(1));
    }
    let open = shop.go_to_till(&bob).await.id;
    shop.clock.advance(Duration::seconds(1));
    let own = shop.buy(&ada).await.id;
    let list = async |query: &str| {
        let (mut path, mut found) = (format!("/api/v1/admin/purchases{query}"), Vec::new());
        loop {
            let page = shop.get(&path, &ada).await;
            assert_eq!(page.status, 200, "{}", page.json);
            found.extend(
                page.json.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()),
            );
            let Some(link) = page.headers.get("link") else { return found };
            path = link.to_str().unwrap()[1..].split('>').next().unwrap().to_owned();
        }
    };
    let newest_first = [&own, &open, &bought[2], &bought[1], &bought[0]].map(Clone::clone);
    assert_eq!(list("").await, newest_first);
    assert_eq!(list("?limit=2").await, newest_first);
    assert_eq!(list(&format!("?userId={}&limit=1", bob.id)).await, newest_first[1..]);
    assert_eq!(list("?state=unpaid").await, [open]);
    assert_eq!(list(&format!("?userId={}&state=paid&limit=2", bob.id)).await, newest_first[2..]);
    assert_eq!(list("?userId=nobody").await, Vec::<String>::new());
    for bad in ["?limit=0", "?limit=201", "?state=lost", "?userId=a%00b", "?cursor=x", "?cursor=AAAA"] {
        assert_eq!(shop.get(&format!("/api/v1/admin/purchases{bad}"), &ada).await.status, 400, "{bad}");
    }
    assert_eq!(shop.get("/api/v1/admin/purchases", &bob).await.problem(), "auth.admin_required");
    shop.closes().await;
}

#[tokio::test]
async fn whoever_names_orders_to_the_page_after_the_till_costs_little() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let bought = shop.go_to_till(&ada).await;
    let looks = || shop.stripe.count_calls("GET /v1/checkout/sessions/");
    let come_back = async |order: &str| {
        let page = shop.client.get(&format!("/checkout/done?state=paid&purchase={order}")).send().await;
        assert_eq!(page.status, 200);
    };
    // Forty that there are not, the one that there is, and it again and again.
    for number in 0..40 {
        come_back(&format!("none-{number}")).await;
    }
    for _ in 0..3 {
        come_back(&bought.id).await;
    }
    for looked in [0, 0, 1, 1] {
        shop.workers.look_at_purchases().await;
        assert_eq!(looks(), looked, "twenty a pass");
    }
    come_back(&bought.id).await;
    shop.workers.look_at_purchases().await;
    assert_eq!(looks(), 1, "it was looked at a moment ago");
    shop.stripe.act(&bought.session, Outcome::Pay).unwrap();
    shop.clock.advance(Duration::seconds(3));
    come_back(&bought.id).await;
    shop.workers.look_at_purchases().await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    let before = looks();
    shop.clock.advance(Duration::seconds(3));
    come_back(&bought.id).await;
    shop.workers.look_at_purchases().await;
    assert_eq!(looks(), before, "it does not wait any more");
    shop.deliver().await;
    shop.closes().await;
}

#[tokio::test]
async fn an_order_that_can_not_be_compared_does_not_end_the_comparison() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let (first, second) = (shop.pay(&ada).await, shop.pay(&ada).await);
    shop.stripe.turn(Knobs { drop: true, ..Knobs::default() });
    shop.deliver().await;
    for (bought, status) in [(&first, 400), (&second, 500)] {
        shop.stripe.refuse(Some((&bought.session, status, "odd")));
        let since = shop.clock.now() - Duration::hours(1);
        let report = reconcile(&shop.workers.payments, since, true).await.unwrap();
        assert!(!report.agrees(), "{report:?}");
        let open = report.findings.iter().find(|finding| !finding.is_fixed).unwrap();
        assert_eq!(open.order.as_ref(), Some(&bought.id));
        assert!(open.sentence.contains("it can't be compared"), "{report:?}");
        assert_eq!(report.statement.len(), 1, "it came to its end");
        // What waits of its deliveries fails for the same reason.
        shop.workers.work_on_payments().await;
    }
    shop.stripe.refuse(None);
    shop.workers.reconcile_payments().await;
    assert_eq!(shop.paid(&ada).await, (2 * CREDITS, 0));
    shop.closes().await;
}

#[tokio::test]
async fn lost_deliveries_are_taken_in_although_stripe_lists_nothing_else() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    shop.pay(&ada).await;
    shop.stripe.turn(Knobs { drop: true, ..Knobs::default() });
    shop.deliver().await;
    shop.stripe.refuse(Some(("/v1/checkout/sessions", 500, "away")));
    let since = shop.clock.now() - Duration::hours(1);
    assert!(reconcile(&shop.workers.payments, since, true).await.is_err());
    shop.workers.work_on_payments().await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    shop.stripe.refuse(None);
    shop.closes().await;
}

#[tokio::test]
async fn long_lists_of_stripe_are_read_to_their_end() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let bought = shop.pay(&ada).await;
    shop.stripe.turn(Knobs { drop: true, ..Knobs::default() });
    // Others sell through the same account: three pages, and ours is on the last.
    let session = shop.stripe.find(&bought.session).unwrap();
    for _ in 0..250 {
        shop.stripe.add_foreign(&session);
    }
    shop.execute("UPDATE credits.purchases SET session_id = NULL, state = 'created', lifecycle = 'created', customer_id = NULL").await;
    shop.workers.reconcile_payments().await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    shop.closes().await;
}

#[tokio::test]
async fn a_till_that_asks_for_another_price_is_closed_and_not_adopted() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    shop.import(json!([{"id": "odd", "name": "Odd", "credits": 10, "priceEuroCents": 500, "stripePriceId": "price_eur_400"}])).await;
    let body = json!({"packageId": "odd", "idempotencyKey": "k"});
    let noted = "SELECT count(*) FROM credits.purchases WHERE session_id IS NOT NULL";
    for _ in 0..2 {
        let refused = shop.order(&ada, &body).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (503, "payments.wrong_stripe_price"));
        assert_eq!(shop.stripe.last("checkout.session").unwrap()["status"], "expired");
        shop.workers.reconcile_payments().await;
        assert_eq!(shop.number(noted).await, 0);
    }
    // One that stayed open, and that somebody has paid: money that a person has to see to.
    let session = shop.stripe.last("checkout.session").unwrap()["id"].as_str().unwrap().to_owned();
    shop.stripe.tamper(&session, |session| session["status"] = json!("open"));
    shop.stripe.act(&session, Outcome::Pay).unwrap();
    let since = shop.clock.now() - Duration::hours(1);
    let report = reconcile(&shop.workers.payments, since, true).await.unwrap();
    assert!(
        report.findings.iter().any(|finding| finding.sentence.contains("at a till that is not noted")),
        "{report:?}"
    );
    assert_eq!((shop.number(noted).await, shop.paid(&ada).await), (0, (0, 0)));
    shop.closes_but_for(1).await;
}

#[tokio::test]
async fn to_compare_without_fixing_writes_nothing_and_an_embedded_till_keeps_its_secret() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    let body = json!({"packageId": "small", "uiMode": "embedded", "idempotencyKey": "k"});
    let placed = shop.order(&ada, &body).await;
    assert_eq!(placed.status, 201, "{}", placed.json);
    shop.execute("UPDATE credits.purchases SET session_id = NULL, client_secret = NULL, state = 'created', lifecycle = 'created', customer_id = NULL").await;
    let noted = "SELECT count(*) FROM credits.purchases WHERE session_id IS NOT NULL";
    let since = shop.clock.now() - Duration::hours(1);
    reconcile(&shop.workers.payments, since, false).await.unwrap();
    assert_eq!(shop.number(noted).await, 0, "to look changes nothing");
    shop.workers.reconcile_payments().await;
    assert_eq!(shop.number(noted).await, 1);
    let again = shop.order(&ada, &body).await;
    assert_eq!(again.json, placed.json);
    assert!(again.text("/clientSecret").starts_with("cs_test_"));
    assert_eq!(shop.stripe.count_calls("POST /v1/checkout/sessions"), 1);
    shop.closes().await;
}

#[tokio::test]
async fn of_a_delivery_nothing_is_kept_that_says_who_paid() {
    let shop = Shop::open().await;
    let ada = shop.user("ada@example.com").await;
    shop.pay(&ada).await;
    let deliveries = shop.stripe.take_deliveries();
    assert!(
        deliveries
            .iter()
            .any(|one| one.body.contains("Petra Payer") && one.body.contains("payer@example.com"))
    );
    for delivery in &deliveries {
        assert_eq!(hand_over(&shop.client, delivery).await.status, 200);
    }
    let of_payer =
        "SELECT count(*) FROM credits.stripe_events WHERE payload ~ 'Petra|example.com|Seestr|78462'";
    let filled = "SELECT count(*) FROM credits.stripe_events WHERE payload <> ''";
    assert_eq!(
        (shop.number(of_payer).await, shop.number(filled).await),
        (0, i64::try_from(deliveries.len()).unwrap())
    );
    shop.workers.work_on_payments().await;
    assert_eq!(shop.number(filled).await, 0, "worked on, it has served its purpose");
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));

    // What servers of older versions have kept goes too, and what nobody can work on, in time.
    shop.execute("UPDATE credits.stripe_events SET payload = 'Petra Payer'").await;
    let keyless = shop.replica_with(|settings| settings.stripe_secret_key = None).await;
    shop.pay(&ada).await;
    for delivery in shop.stripe.take_deliveries() {
        assert_eq!(hand_over(&keyless.client, &delivery).await.status, 200);
    }
    keyless.workers.work_on_payments().await;
    keyless.workers.prune().await;
    let waiting = "SELECT count(*) FROM credits.stripe_events WHERE outcome IS NULL";
    assert_eq!((shop.number(of_payer).await, shop.number(waiting).await > 0), (0, true));
    shop.clock.advance(Duration::days(41));
    keyless.workers.prune().await;
    assert_eq!(shop.number("SELECT count(*) FROM credits.stripe_events").await, 0);
    shop.workers.reconcile_payments().await;
    shop.closes().await;
}

#[tokio::test]
async fn browsers_return_from_the_till_to_where_any_redirect_may_lead() {
    let shop = Shop::with(|settings| {
        settings.frontend_url = Some("https://www.example.org/start".parse().unwrap());
        settings.cookie_domain = Some("family.example".parse().unwrap());
    })
    .await;
    let ada = shop.user("ada@example.com").await;
    for (url, status) in [
        ("https://www.example.org/bought?session={CHECKOUT_SESSION_ID}", 201),
        ("http://localhost:8123/bought", 201),
        ("https://chat.family.example/bought", 201),
        ("https://chat.family.example:8443/bought", 400),
        ("https://www.example.org.evil.example/", 400),
        ("https://www.example.org\\@evil.example/", 400),
    ] {
        let placed = shop.order(&ada, &json!({"packageId": "small", "successUrl": url})).await;
        assert_eq!(placed.status, status, "{url}: {}", placed.json);
        if status == 400 {
            assert_eq!(placed.problem(), "payments.foreign_url", "{url}");
        }
    }
    shop.closes().await;
}
