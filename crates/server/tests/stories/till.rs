//! A shop with a Stripe of its own, whose deliveries wait until a story hands them over.

use crate::credits::books_are_true;
use crate::story::{Story, User};
use futures_util::future::join_all;
use mana_core_auth::app;
use mana_core_auth::workers::Workers;
use mana_credits::package;
use mana_credits::package::model::NamedPackage;
use mana_credits::purchase::{StatementLine, reconcile};
use mana_kernel::{Clock, Rng};
use mana_platform::{Settings, SystemRng};
use mana_testkit::{Client, FakeClock, Reply};
use serde_json::{Value, json};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use stripe_fake::{Delivery, Fake, Options, Outcome};
use time::Duration;
use tokio::net::TcpListener;

/// What stories sell: 1,100 mana for 9.99 euros, 100 of them a present.
pub(crate) const CREDITS: i64 = 1_100;
pub(crate) const PRICE: i64 = 999;

/// A service that sells, and its Stripe. A story that opens one has to close it.
pub(crate) struct Shop {
    pub(crate) story: Story,
    pub(crate) stripe: Fake,
    is_closed: AtomicBool,
}

impl Drop for Shop {
    fn drop(&mut self) {
        let is_over = self.is_closed.load(Ordering::Relaxed) || thread::panicking();
        assert!(is_over, "a story about a shop ends with `closes`, which looks at its books");
    }
}

/// All that is done about payments besides answering requests.
pub(crate) trait PaymentPasses {
    /// One pass of each.
    async fn work_on_payments(&self);
}

impl PaymentPasses for Workers {
    async fn work_on_payments(&self) {
        self.look_at_purchases().await;
        self.work_on_stripe_deliveries().await;
        self.send_refunds().await;
        self.top_up_wallets().await;
    }
}

/// Something that was bought, or is about to be.
#[derive(Debug, Clone)]
pub(crate) struct Bought {
    pub(crate) id: String,
    pub(crate) session: String,
}

impl Deref for Shop {
    type Target = Story;

    fn deref(&self) -> &Story {
        &self.story
    }
}

impl Shop {
    pub(crate) async fn open() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // The story makes its clock itself, and Stripe goes by it too.
        let clock: Arc<OnceLock<Arc<FakeClock>>> = Arc::default();
        let seen = Arc::clone(&clock);
        let stripe = Fake::new(Options {
            url: url.clone(),
            webhook_url: None,
            webhook_secret: "whsec_story".to_owned(),
            now: Arc::new(move || seen.get().map_or(0, |clock| clock.now().unix_timestamp())),
        });
        tokio::spawn(stripe.clone().serve(listener));
        let story = Story::with(|settings| {
            settings.stripe_api_base = url.parse().unwrap();
            change(settings);
        })
        .await;
        clock.set(story.clock.clone()).unwrap();
        let shop = Self { story, stripe, is_closed: AtomicBool::new(false) };
        let package = json!([{"id": "small", "name": "Small", "credits": CREDITS, "bonusCredits": 100, "priceEuroCents": PRICE, "prices": {"usd": 1_099}}]);
        shop.import(package).await;
        shop
    }

    /// The end of a story: whatever it did, the books are true, and Stripe says the same.
    pub(crate) async fn closes(self) {
        self.closes_but_for(0).await;
    }

    /// The end of one that leaves so many differences for a person to see to.
    pub(crate) async fn closes_but_for(self, open: u64) {
        books_are_true(&self).await;
        let since = self.clock.now().saturating_sub(Duration::days(30));
        let report = reconcile(&self.workers.payments, since, false).await.unwrap();
        let is_balanced = report.statement.iter().all(StatementLine::is_balanced);
        assert!(report.open == open && is_balanced, "{report:?}");
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// The end of one that has written lies into its books.
    pub(crate) fn breaks_up(self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    pub(crate) async fn import(&self, packages: Value) {
        let packages: Vec<NamedPackage> = serde_json::from_value(packages).unwrap();
        let (clock, rng): (Arc<dyn Clock>, Arc<dyn Rng>) = (self.clock.clone(), Arc::new(SystemRng));
        let log = app::admin_log(&clock, &rng);
        package::import(&self.database.service(), &*self.clock, &*log, &packages).await.unwrap();
    }

    pub(crate) async fn order(&self, user: &User, body: &Value) -> Reply {
        self.client.post("/api/v1/credits/purchase", body).bearer(&user.access_token).send().await
    }

    /// Goes as far as the till.
    pub(crate) async fn go_to_till(&self, user: &User) -> Bought {
        let placed = self.order(user, &json!({"packageId": "small"})).await;
        assert_eq!(placed.status, 201, "{}", placed.json);
        let session = placed.text("/checkoutUrl").rsplit('/').next().unwrap().to_owned();
        Bought { id: placed.text("/purchaseId").to_owned(), session }
    }

    /// Pays; what Stripe sends waits.
    pub(crate) async fn pay(&self, user: &User) -> Bought {
        let bought = self.go_to_till(user).await;
        self.stripe.act(&bought.session, Outcome::Pay).unwrap();
        bought
    }

    /// Pays and has it credited.
    pub(crate) async fn buy(&self, user: &User) -> Bought {
        let bought = self.pay(user).await;
        self.deliver().await;
        bought
    }

    /// The payment of a purchase, as Stripe names it.
    pub(crate) fn payment(&self, bought: &Bought) -> String {
        self.stripe.find(&bought.session).unwrap()["payment_intent"].as_str().unwrap().to_owned()
    }

    /// Hands over what Stripe sends, and has it worked on.
    pub(crate) async fn deliver(&self) {
        for delivery in self.stripe.take_deliveries() {
            let taken = hand_over(&self.client, &delivery).await;
            assert_eq!((taken.status.as_u16(), &taken.json), (200, &json!({"received": true})));
        }
        self.workers.work_on_payments().await;
    }

    /// Hands all over at once.
    pub(crate) async fn hand_over_at_once(clients: &[&Client], deliveries: &[Delivery]) {
        let requests = clients.iter().flat_map(|client| deliveries.iter().map(|one| hand_over(client, one)));
        for taken in join_all(requests).await {
            assert_eq!(taken.status, 200, "{}", taken.json);
        }
    }

    pub(crate) async fn purchase(&self, user: &User, bought: &Bought) -> Reply {
        self.get(&format!("/api/v1/credits/purchase/{}", bought.id), user).await
    }

    pub(crate) async fn status(&self, user: &User, bought: &Bought) -> String {
        self.purchase(user, bought).await.text("/status").to_owned()
    }

    /// Paid mana that can be spent, and what is owed.
    pub(crate) async fn paid(&self, user: &User) -> (i64, i64) {
        let balance = self.get("/api/v1/credits/balance", user).await;
        (balance.integer("/balance"), balance.integer("/debtCredits"))
    }

    pub(crate) async fn details(&self, admin: &User, bought: &Bought) -> Value {
        let shown = self.get(&format!("/api/v1/admin/purchases/{}", bought.id), admin).await;
        assert_eq!(shown.status, 200, "{}", shown.json);
        shown.json
    }

    pub(crate) async fn refund(&self, admin: &User, bought: &Bought, body: &Value) -> Reply {
        let path = format!("/api/v1/admin/purchases/{}/refund", bought.id);
        self.client.post(&path, body).bearer(&admin.access_token).send().await
    }
}

/// As Stripe posts it.
pub(crate) async fn hand_over(client: &Client, delivery: &Delivery) -> Reply {
    let request = client.request(http::Method::POST, "/api/v1/webhooks/stripe");
    let request = request.body("application/json; charset=utf-8", delivery.body.clone());
    request.header("stripe-signature", &delivery.signature).send().await
}
