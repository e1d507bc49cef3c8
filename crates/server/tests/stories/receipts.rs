//! Receipts, and tax as Stripe calculates it.

use crate::story::{PASSWORD, User, spend_of};
use crate::till::{Bought, CREDITS, PRICE, PaymentPasses as _, Shop};
use http::Method;
use mana_platform::config::StripeTax;
use mana_testkit::Reply;
use serde_json::{Value, json};
use stripe_fake::Outcome;

async fn receipt(shop: &Shop, user: &User, bought: &Bought, language: &str) -> Reply {
    let path = format!("/api/v1/credits/purchases/{}/receipt", bought.id);
    shop.client.get(&path).bearer(&user.access_token).header("accept-language", language).send().await
}

async fn page(shop: &Shop, user: &User, bought: &Bought, language: &str) -> String {
    let reply = receipt(shop, user, bought, language).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    String::from_utf8(reply.bytes.to_vec()).unwrap()
}

async fn selling(tax: StripeTax) -> Shop {
    Shop::with(|settings| {
        settings.stripe_tax = tax;
        settings.seller_name = Some("Mana & Söhne".to_owned());
        settings.seller_address = Some("Weg 1\\n78462 Konstanz".to_owned());
        settings.seller_tax_id = Some("DE123456789".to_owned());
    })
    .await
}

#[tokio::test]
async fn a_receipt_says_what_was_sold_to_its_buyer_and_nobody_else() {
    let shop = selling(StripeTax::Off).await;
    let ada = shop.administrator("ada@example.com").await;
    let bob = shop.user("bob@example.com").await;
    let waiting = shop.go_to_till(&bob).await;
    let unpaid = receipt(&shop, &bob, &waiting, "en").await;
    assert_eq!((unpaid.status.as_u16(), unpaid.problem()), (409, "payments.not_paid"));
    let bought = shop.buy(&bob).await;
    let reply = receipt(&shop, &bob, &bought, "en").await;
    let policy = reply.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("script"), "{policy}");
    assert_eq!(reply.headers["cache-control"], "no-store");
    let english = page(&shop, &bob, &bought, "en").await;
    for expected in [
        &format!("<title>Receipt {} · Mana</title>", bought.id),
        "Mana &#38; Söhne",
        "78462 Konstanz",
        "DE123456789",
        "Small",
        "9.99 EUR",
        "1100 mana",
        "Petra Payer",
        "Seestr. 1",
        "This was a test",
    ] {
        assert!(english.contains(expected), "no {expected} in {english}");
    }
    assert!(
        !english.contains("<script") && !english.contains("Tax<") && !english.contains("http"),
        "{english}"
    );
    let german = page(&shop, &bob, &bought, "de-DE").await;
    assert!(
        german.contains("Beleg") && german.contains("9,99 EUR") && german.contains("lang=\"de\""),
        "{german}"
    );

    for stranger in [&ada, &shop.user("eve@example.com").await] {
        let refused = receipt(&shop, stranger, &bought, "en").await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (404, "payments.no_such_purchase"));
    }
    let strange = shop.get("/api/v1/credits/purchases/%00/receipt", &bob).await;
    assert_eq!(strange.status, 404);

    assert_eq!(shop.refund(&ada, &bought, &json!({"amountCents": 200})).await.status, 201);
    shop.stripe.dispute(&shop.payment(&bought), Some(799), "needs_response").unwrap();
    shop.deliver().await;
    let after = page(&shop, &bob, &bought, "en").await;
    assert!(
        after.contains("Refunded on") && after.contains("2.00 EUR") && after.contains("contests"),
        "{after}"
    );

    // All of which the buyer is given.
    let export = shop.get("/api/v1/auth/export", &bob).await.json;
    let bought = export["credits"]["purchases"].as_array().unwrap().iter().find(|one| one["id"] == bought.id);
    let bought = bought.unwrap();
    assert_eq!((&bought["payerName"], &bought["payerCountry"]), (&json!("Petra Payer"), &json!("DE")));
    assert!(bought["payerAddress"].as_str().unwrap().contains("Seestr. 1"), "{bought}");
    assert_eq!((&bought["addedTaxCents"], &bought["refundedCents"]), (&json!(0), &json!(200)));
    let back = |list: &str| {
        let rows = export["credits"][list].as_array().unwrap().clone();
        rows.into_iter()
            .map(|row| (row["purchaseId"].clone(), row["amountCents"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(back("refunds"), [(bought["id"].clone(), json!(200))]);
    assert_eq!(back("disputes"), [(bought["id"].clone(), json!(799))]);
    let of_ada = shop.get("/api/v1/auth/export", &ada).await.json;
    for list in ["purchases", "refunds", "disputes", "stripeCustomers"] {
        assert_eq!(of_ada["credits"][list], json!([]), "{list}");
    }

    // The person is forgotten, the sale is not.
    let gone = shop.client.request(Method::DELETE, "/api/v1/auth/account").bearer(&bob.access_token);
    let gone = gone.body("application/json", json!({"password": PASSWORD}).to_string()).send().await;
    assert_eq!(gone.status, 200, "{}", gone.json);
    shop.workers.reconcile_payments().await;
    let left =
        "SELECT count(*) FROM credits.purchases WHERE payer_name IS NOT NULL OR payer_address IS NOT NULL";
    assert_eq!(shop.number(left).await, 0);
    shop.closes().await;
}

#[tokio::test]
async fn tax_beside_the_price_or_within_it_gives_the_mana_of_the_package() {
    for (tax, total, net, added) in [
        (StripeTax::Exclusive, "11.89 EUR", "9.99 EUR", 190),
        (StripeTax::Inclusive, "9.99 EUR", "8.39 EUR", 0),
    ] {
        let shop = selling(tax).await;
        let ada = shop.administrator("ada@example.com").await;
        let bought = shop.buy(&ada).await;
        assert_eq!(shop.paid(&ada).await, (CREDITS, 0), "{tax:?}");
        let html = page(&shop, &ada, &bought, "en").await;
        assert!(html.contains(total) && html.contains(net) && html.contains(">Tax<"), "{tax:?} {html}");
        let shown = shop.details(&ada, &bought).await;
        assert_eq!((&shown["capturedCents"], &shown["problem"]), (&json!(PRICE + added), &Value::Null));
        assert_eq!(shown["refundableCents"], json!(PRICE + added));

        // Half of it is spent: half of what was paid can go back, tax included.
        assert_eq!(shop.spend(&ada, &spend_of(150 + CREDITS / 2)).await.status, 201);
        let half = shop.details(&ada, &bought).await["refundableCents"].as_i64().unwrap();
        assert!((2 * half - (PRICE + added)).abs() <= 2, "{half}");
        assert_eq!(shop.refund(&ada, &bought, &json!({})).await.status, 201);
        shop.deliver().await;
        assert_eq!(shop.paid(&ada).await, (0, 0));
        shop.closes().await;
    }
}

#[tokio::test]
async fn what_is_neither_price_nor_tax_is_not_what_was_ordered() {
    let shop = selling(StripeTax::Exclusive).await;
    let ada = shop.administrator("ada@example.com").await;
    let changes: [fn(&mut Value); 4] = [
        |session| session["amount_total"] = json!(PRICE + 1),
        |session| session["amount_subtotal"] = json!(1),
        |session| session["total_details"]["amount_discount"] = json!(100),
        |session| session["total_details"]["amount_tax"] = json!(-190),
    ];
    for change in changes {
        let bought = shop.pay(&ada).await;
        let right = shop.stripe.find(&bought.session).unwrap();
        shop.stripe.tamper(&bought.session, change);
        shop.deliver().await;
        assert_eq!(shop.paid(&ada).await, (0, 0));
        assert_eq!(shop.details(&ada, &bought).await["problem"], "amount_mismatch");
        shop.stripe.tamper(&bought.session, |session| *session = right);
        shop.workers.reconcile_payments().await;
        assert_eq!(shop.paid(&ada).await, (CREDITS, 0), "the control");
        assert_eq!(shop.refund(&ada, &bought, &json!({})).await.status, 201);
        shop.deliver().await;
    }
    // An order from before tax was on is not taxed by the setting of today, and the other way about.
    let untaxed = shop.replica_with(|settings| settings.stripe_tax = StripeTax::Off).await;
    let placed = untaxed.client.post("/api/v1/credits/purchase", &json!({"packageId": "small"}));
    let placed = placed.bearer(&ada.access_token).send().await;
    let session = placed.text("/checkoutUrl").rsplit('/').next().unwrap().to_owned();
    shop.stripe.act(&session, Outcome::Pay).unwrap();
    shop.deliver().await;
    assert_eq!(shop.paid(&ada).await, (CREDITS, 0));
    let taxed = shop.pay(&ada).await;
    for delivery in shop.stripe.take_deliveries() {
        assert_eq!(crate::till::hand_over(&untaxed.client, &delivery).await.status, 200);
    }
    untaxed.workers.work_on_payments().await;
    assert_eq!(shop.purchase(&ada, &taxed).await.text("/state"), "paid");
    shop.closes().await;
}
