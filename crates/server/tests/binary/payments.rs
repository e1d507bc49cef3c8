//! Buying on real processes: a server that is killed between a charge and its credit, and the commands of a shop.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::http::exchange;
use crate::process::{Done, Home, Launch, Server, free_port, poll};
use crate::till::{WEBHOOK_SECRET, open_till};
use serde_json::{Value, json};
use std::time::Duration;
use stripe_fake::{Fake, Knobs, Outcome};

const ORDERS: i64 = 6;
const PACKAGES: &str = r#"[{"id": "small", "name": "Small", "credits": 500, "priceEuroCents": 500}]"#;

/// A Stripe that delivers to `port`.
fn stripe(runtime: &tokio::runtime::Runtime, port: u16) -> (Fake, String) {
    open_till(runtime, Some(format!("http://127.0.0.1:{port}/api/v1/webhooks/stripe")))
}

fn with(launch: Launch, cluster: &Cluster, stripe: &str) -> Launch {
    launch
        .env("DATABASE_URL", cluster.service_url("mana"))
        .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .env("RATE_LIMIT_MAX", "0")
        .env("STRIPE_SECRET_KEY", "sk_test_binary")
        .env("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET)
        .env("STRIPE_API_BASE", stripe)
}

#[test]
fn a_server_that_is_killed_between_charge_and_credit_credits_each_payment_once() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let (port, runtime) = (free_port(), tokio::runtime::Runtime::new().unwrap());
    let (fake, url) = stripe(&runtime, port);
    fake.turn(Knobs { duplicates: 2, ..Knobs::default() });
    let run = |args: &[&str]| -> Done { with(home.command(args), &cluster, &url).run() };
    let serve =
        || with(home.command(&["serve", "--port", &port.to_string()]), &cluster, &url).at(port).start();
    let mut server = serve();
    run(&["packages", "import", home.file("packages.json", PACKAGES).to_str().unwrap()]).succeeded();
    server.register("ada@example.com");
    let token = server.login("ada@example.com").text("/accessToken");

    let mut ids = Vec::new();
    for kill in 0..4 {
        let placed: Vec<_> = (0..ORDERS)
            .map(|_| server.post_as(&token, "/api/v1/credits/purchase", &json!({"packageId": "small"})))
            .collect();
        for reply in &placed {
            assert_eq!(reply.status, 201, "{}", reply.body);
            let url = reply.text("/checkoutUrl");
            fake.act(url.rsplit('/').next().unwrap(), Outcome::Pay).unwrap();
            ids.push(reply.text("/purchaseId"));
        }
        // Somewhere among the deliveries and what follows from them.
        std::thread::sleep(Duration::from_millis(15 * (1 + 2 * kill)));
        server.kill();
        server = serve();
    }
    for id in &ids {
        // As a client that waits after the till.
        poll(Duration::from_mins(1), "a credit", || {
            let found = server.get_as(&token, &format!("/api/v1/credits/purchase/{id}"));
            (found.text("/status") == "completed").then_some(())
        });
    }
    let balance = server.get_as(&token, "/api/v1/credits/balance").json();
    assert_eq!(balance["balance"], json!(4 * ORDERS * 500), "{balance}");
    let report: Value = serde_json::from_str(&run(&["payments", "reconcile", "--json"]).succeeded()).unwrap();
    assert_eq!((&report["open"], &report["credited"]), (&json!(0), &json!(0)), "{report}");
    run(&["ledger", "verify"]).succeeded();
    cluster.books_are_true("mana");
}

#[test]
fn a_server_that_is_killed_while_a_card_is_charged_tops_each_wallet_up_once() {
    const USERS: usize = 4;
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let (port, runtime) = (free_port(), tokio::runtime::Runtime::new().unwrap());
    let (fake, url) = stripe(&runtime, port);
    let run = |args: &[&str]| -> Done { with(home.command(args), &cluster, &url).run() };
    let serve =
        || with(home.command(&["serve", "--port", &port.to_string()]), &cluster, &url).at(port).start();
    let mut server = serve();
    run(&["packages", "import", home.file("packages.json", PACKAGES).to_str().unwrap()]).succeeded();
    let body = json!({"thresholdMana": 100, "packageId": "small", "monthlyCapCents": 5_000, "consent": true});
    let tokens: Vec<String> = (0..USERS)
        .map(|number| {
            let email = format!("user{number}@example.com");
            server.register(&email);
            let token = server.login(&email).text("/accessToken");
            let path = "/api/v1/credits/auto-top-up";
            let waiting = exchange(port, "PUT", path, &token, &body.to_string()).unwrap();
            fake.act(waiting.text("/setupUrl").rsplit('/').next().unwrap(), Outcome::Pay).unwrap();
            poll(Duration::from_secs(30), "a saved card", || {
                (server.get_as(&token, path).text("/status") == "active").then_some(())
            });
            token
        })
        .collect();

    // The payment is made and nobody heard of it; the card is charged and nobody heard of it, with and without a delivery; it is charged
    // and the server is somewhere behind that.
    let moments = [Some("/payment_intents"), Some("/confirm"), Some("/confirm"), None];
    for (number, (token, moment)) in tokens.iter().zip(moments).enumerate() {
        fake.turn(Knobs { drop: number == 2, ..Knobs::default() });
        fake.hold_answers(moment);
        let charges = fake.count("charge");
        let spent = server.post_as(token, "/api/v1/credits/use", &spend_of(60 + number));
        assert_eq!(spent.status, 201, "{}", spent.body);
        if moment.is_some() {
            let held = async { tokio::time::timeout(Duration::from_secs(30), fake.is_holding()).await };
            runtime.block_on(held).unwrap();
        } else {
            poll(Duration::from_secs(30), "a charge", || (fake.count("charge") > charges).then_some(()));
        }
        server.kill();
        fake.hold_answers(None);
        // What it had sent may still be committed, and would be looked at only in two minutes.
        let mut owner = cluster.owner("mana");
        poll(Duration::from_secs(30), "the end of its connections", || {
            let left: Vec<(i64,)> =
                owner.rows("SELECT count(*) FROM pg_stat_activity WHERE usename = 'mana_service'");
            (left == [(0,)]).then_some(())
        });
        // As if the two minutes were over in which nobody else looks.
        owner.run("UPDATE credits.auto_top_ups SET next_look_at = now() WHERE next_look_at IS NOT NULL");
        server = serve();
        poll(Duration::from_mins(1), "a top-up", || {
            let balance = server.get_as(token, "/api/v1/credits/balance").json();
            (balance["balance"] == 500).then_some(())
        });
    }
    fake.turn(Knobs::default());
    poll(Duration::from_secs(30), "the end of all orders", || {
        let open: Vec<(i64,)> = cluster
            .owner("mana")
            .rows("SELECT count(*) FROM credits.auto_top_ups WHERE order_id IS NOT NULL");
        (open[0].0 == 0).then_some(())
    });
    assert_eq!(fake.count("charge"), USERS, "each card once");
    for token in &tokens {
        assert_eq!(server.get_as(token, "/api/v1/credits/balance").json()["balance"], 500);
    }
    let report: Value = serde_json::from_str(&run(&["payments", "reconcile", "--json"]).succeeded()).unwrap();
    assert_eq!((&report["open"], &report["credited"]), (&json!(0), &json!(0)), "{report}");
    run(&["ledger", "verify"]).succeeded();
    cluster.books_are_true("mana");
}

fn spend_of(amount: usize) -> Value {
    json!({"amount": amount, "appId": "chat", "description": "An answer"})
}

#[test]
fn packages_come_from_a_file_and_purchases_are_compared_with_stripe() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Nothing is ever delivered.
    let (fake, url) = stripe(&runtime, free_port());
    let run = |args: &[&str]| -> Done { with(home.command(args), &cluster, &url).run() };
    run(&["migrate"]).succeeded();
    assert!(run(&["packages", "list"]).succeeded().contains("There is no package yet"));
    for (name, text) in [
        ("no.json", "{}"),
        ("unknown.json", r#"[{"id": "a", "name": "A", "credits": 1, "priceEuroCents": 1, "surprise": 1}]"#),
        ("negative.json", r#"[{"id": "a", "name": "A", "credits": -1, "priceEuroCents": 1}]"#),
        ("free.json", r#"[{"id": "a", "name": "A", "credits": 1, "priceEuroCents": 0}]"#),
        (
            "bonus.json",
            r#"[{"id": "b", "name": "B", "credits": 1, "priceEuroCents": 1}, {"id": "a", "name": "A", "credits": 1, "bonusCredits": 2, "priceEuroCents": 1}]"#,
        ),
    ] {
        run(&["packages", "import", home.file(name, text).to_str().unwrap()]).sentence();
    }
    assert!(run(&["packages", "list"]).succeeded().contains("There is no package yet"), "all or none");
    let file = home.file("packages.json", PACKAGES);
    for named in [file.to_str().unwrap(), "-"] {
        let import = home.command(&["packages", "import", named]).reading(&file);
        let told = with(import, &cluster, &url).run().succeeded();
        assert_eq!(told, "small  v1  500 mana (0 of it a present)  500 EUR cents\n", "{named}");
    }

    let server = with(home.serve(), &cluster, &url).start();
    server.register("ada@example.com");
    let token = server.login("ada@example.com").text("/accessToken");
    let placed = server.post_as(&token, "/api/v1/credits/purchase", &json!({"packageId": "small"}));
    // A server compares by itself, too.
    server.stop("TERM");
    fake.act(placed.text("/checkoutUrl").rsplit('/').next().unwrap(), Outcome::Pay).unwrap();
    let refused = run(&["payments", "reconcile"]);
    assert!(
        refused.stdout.contains("OPEN   ") && refused.stdout.contains("500 cents were paid and not noted"),
        "{refused:?}"
    );
    assert!(refused.sentence().contains("payments reconcile --fix"));
    let fixed = run(&["payments", "reconcile", "--fix"]).succeeded();
    assert!(fixed.contains("FIXED  ") && fixed.contains("1 credited"), "{fixed}");
    for (since, orders) in [("2020-01-31T12:00:00Z", 1), ("2999-01-31T12:00:00Z", 0)] {
        let compared = run(&["payments", "reconcile", "--since", since]).succeeded();
        assert!(compared.contains(&format!("{orders} orders compared")), "{since}: {compared}");
    }
    assert!(run(&["payments", "statement"]).sentence().contains("payments reconcile"), "a server keeps them");
    assert!(fixed.contains("EUR (test): 1 orders, 500 cents paid - 0 refunded - 0 lost; 500 mana given - 0 taken back - 0 owed: balanced"), "{fixed}");
    let server = with(home.serve(), &cluster, &url).start();
    let balance = server.get_as(&token, "/api/v1/credits/balance").json();
    assert_eq!(balance["balance"], 500);
    let kept = poll(Duration::from_mins(1), "the statement of the first comparison", || {
        let kept = run(&["payments", "statement"]);
        (kept.code == Some(0)).then_some(kept.stdout)
    });
    assert!(kept.contains("(UTC)") && kept.contains("EUR (test): 1 orders, 500 cents paid"), "{kept}");
    let json: Value = serde_json::from_str(&run(&["payments", "statement", "--json"]).succeeded()).unwrap();
    assert_eq!(
        (&json["lines"][0]["currency"], &json["lines"][0]["grantedMana"]),
        (&json!("eur"), &json!(500))
    );
    let day = json["day"].as_str().unwrap();
    assert_eq!(run(&["payments", "statement", "--day", day]).succeeded(), kept);
    let none = run(&["payments", "statement", "--day", "2020-01-31"]).sentence();
    assert!(none.contains("of 2020-01-31"), "{none}");
    assert_eq!(run(&["payments", "statement", "--day", "31.1.2020"]).code, Some(2));
    let without = with(home.command(&["payments", "reconcile"]), &cluster, &url).env("STRIPE_SECRET_KEY", "");
    assert!(without.run().sentence().contains("STRIPE_SECRET_KEY"));
}

#[test]
fn what_does_not_match_is_counted_until_it_does_and_a_missing_secret_is_told_at_the_start() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let (port, runtime) = (free_port(), tokio::runtime::Runtime::new().unwrap());
    let (fake, url) = stripe(&runtime, port);
    let command = |args: &[&str]| with(home.command(args), &cluster, &url);
    let number = port.to_string();
    // Each compares when it starts.
    let serve = |secret: &str| {
        let launch = command(&["serve", "--port", &number]).env("STRIPE_WEBHOOK_SECRET", secret);
        launch.at(port).start()
    };
    let counted = |server: &Server, differences: u32| {
        poll(Duration::from_mins(1), "a comparison", || {
            let metrics = server.get("/metrics").body;
            let is_there = |name: &str| metrics.lines().any(|line| line == format!("{name} {differences}"));
            (is_there("payments_unreconciled") && is_there("payments_uncredited")).then_some(())
        });
    };
    let untold = "STRIPE_WEBHOOK_SECRET is not set";
    let server = serve("");
    assert!(server.stderr().contains(untold), "{}", server.stderr());
    command(&["packages", "import", home.file("packages.json", PACKAGES).to_str().unwrap()])
        .run()
        .succeeded();
    server.register("ada@example.com");
    let token = server.login("ada@example.com").text("/accessToken");
    let placed = server.post_as(&token, "/api/v1/credits/purchase", &json!({"packageId": "small"}));
    let session = placed.text("/checkoutUrl").rsplit('/').next().unwrap().to_owned();
    fake.act(&session, Outcome::Pay).unwrap();
    let payment = fake.find(&session).unwrap()["payment_intent"].as_str().unwrap().to_owned();
    fake.tamper(&payment, |payment| payment["amount_received"] = json!(1));
    let unsigned = server.post("/api/v1/webhooks/stripe", &json!({}));
    assert_eq!((unsigned.status, unsigned.text("/code").as_str()), (503, "payments.no_webhook_secret"));
    server.stop("TERM");

    let server = serve(WEBHOOK_SECRET);
    counted(&server, 1);
    assert!(!server.stderr().contains(untold), "{}", server.stderr());
    server.stop("TERM");
    fake.tamper(&payment, |payment| payment["amount_received"] = json!(500));
    let server = serve(WEBHOOK_SECRET);
    counted(&server, 0);
    assert_eq!(server.get_as(&token, "/api/v1/credits/balance").json()["balance"], 500);
    server.stop("TERM");
    cluster.books_are_true("mana");
}

#[test]
fn in_dev_mode_mana_is_bought_at_a_till_of_its_own() {
    let home = Home::new();
    let server = home.dev().start();
    server.register("ada@example.com");
    let token = server.login("ada@example.com").text("/accessToken");
    let packages = server.get("/api/v1/credits/packages").json();
    assert_eq!(packages.as_array().unwrap().len(), 3);
    let placed = server.post_as(&token, "/api/v1/credits/purchase", &json!({"packageId": "medium"}));
    let till = placed.text("/checkoutUrl");
    let (port, path) = till.strip_prefix("http://localhost:").unwrap().split_once('/').unwrap();
    let page = exchange(port.parse().unwrap(), "GET", &format!("/{path}"), "", "").unwrap();
    assert!(page.body.contains("20.00 EUR") && page.body.contains("Later"), "{}", page.body);
    let paid = exchange(port.parse().unwrap(), "POST", &format!("/{path}/pay"), "", "").unwrap();
    assert_eq!(paid.status, 303);
    let back = paid
        .header("location")
        .strip_prefix(&format!("http://localhost:{}", server.port))
        .unwrap()
        .to_owned();
    assert!(server.get(&back).body.contains("Thank you"));
    poll(Duration::from_secs(20), "the mana", || {
        let balance = server.get_as(&token, "/api/v1/credits/balance").json();
        (balance["balance"] == 2_100).then_some(())
    });
}

#[test]
fn what_has_never_been_done_is_told_from_the_start() {
    const COMPARED: &str = "payments_reconcile_last_success_timestamp_seconds";
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    // A Stripe that can't be asked, as with a key that was rolled.
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let server = with(home.serve(), &cluster, &nowhere).start();
    let metrics = poll(Duration::from_secs(30), "a comparison that failed", || {
        let metrics = server.get("/metrics").body;
        let failed = "worker_passes_failed_total{pass=\"comparing purchases with Stripe\"} 1\n";
        metrics.contains(failed).then_some(metrics)
    });
    let started = metric(&metrics, "process_start_time_seconds");
    for name in [
        COMPARED,
        "ledger_verify_last_success_timestamp_seconds",
        "worker_pass_last_success_timestamp_seconds{pass=\"comparing purchases with Stripe\"}",
        "worker_pass_last_success_timestamp_seconds{pass=\"keeping the signing keys\"}",
    ] {
        assert!(metric(&metrics, name) >= started, "{name}: {metrics}");
    }
    drop(server);

    let without = with(home.serve(), &cluster, &nowhere).env("STRIPE_SECRET_KEY", "").start();
    let metrics = poll(Duration::from_secs(30), "a first pass", || {
        let metrics = without.get("/metrics").body;
        metrics.contains("worker_pass_last_success_timestamp_seconds").then_some(metrics)
    });
    assert!(!metrics.contains(COMPARED), "who sells nothing misses nothing: {metrics}");
}

/// The whole seconds of a series.
fn metric(metrics: &str, series: &str) -> u64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("no {series} in {metrics}"));
    value.split('.').next().unwrap().parse().unwrap()
}
