//! Limits: what a flood and a guesser meet, and that nobody else does.

use crate::story::{PASSWORD, Story, User};
use futures_util::future::join_all;
use http::Method;
use mana_testkit::{Client, RedisServer, Reply};
use serde_json::{Value, json};
use time::Duration;

const LOGIN: &str = "/api/v1/auth/login";
const REGISTER: &str = "/api/v1/auth/register";
const REFRESH: &str = "/api/v1/auth/refresh";
const ME: &str = "/api/v1/auth/me";

/// Rate limits as they are by default.
async fn limited() -> Story {
    Story::with(|settings| settings.rate_limit_max = 100).await
}

fn header<'a>(reply: &'a Reply, name: &str) -> &'a str {
    reply.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

fn retry_after(reply: &Reply) -> i64 {
    header(reply, "retry-after").parse().unwrap()
}

/// A request that is counted and costs nothing: it has no body.
async fn knock(client: &Client, path: &str) -> Reply {
    client.request(Method::POST, path).send().await
}

async fn guess(client: &Client, email: &str, password: &str) -> Reply {
    client.post(LOGIN, &json!({"email": email, "password": password})).send().await
}

#[tokio::test]
async fn each_class_has_its_own_number_and_says_what_is_left() {
    let story = limited().await;
    for (path, name, limit) in
        [(REGISTER, "register", 5), (LOGIN, "login", 10), ("/claim-admin", "login", 10), (ME, "other", 100)]
    {
        let client = story.client.at(&format!("198.51.100.{}", path.len()));
        for left in (0..limit).rev() {
            let reply = knock(&client, path).await;
            assert!(reply.status.is_client_error() && reply.status != 429, "{path} {}", reply.status);
            assert_eq!(header(&reply, "ratelimit-policy"), format!("\"{name}\";q={limit};w=60"));
            let full_in = (60 * (limit - left) + limit - 1) / limit;
            assert_eq!(header(&reply, "ratelimit"), format!("\"{name}\";r={left};t={full_in}"));
        }
        let refused = knock(&client, path).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (429, "request.rate_limited"));
        assert!(refused.text("/message").contains("rate limit"), "{}", refused.json);
        assert_eq!(
            header(&refused, "ratelimit"),
            format!("\"{name}\";r=0;t={}", header(&refused, "retry-after"))
        );
    }
}

#[tokio::test]
async fn retry_after_is_exact() {
    let story = limited().await;
    for _ in 0..5 {
        assert_ne!(knock(&story.client, REGISTER).await.status, 429);
    }
    story.clock.advance(Duration::milliseconds(1500));
    assert_eq!(retry_after(&knock(&story.client, REGISTER).await), 11, "one comes back in 12 s");
    story.clock.advance(Duration::milliseconds(10_499));
    assert_eq!(knock(&story.client, REGISTER).await.status, 429);
    story.clock.advance(Duration::milliseconds(1));
    assert_ne!(knock(&story.client, REGISTER).await.status, 429);
    assert_eq!(knock(&story.client, REGISTER).await.status, 429);
}

#[tokio::test]
async fn clients_that_refresh_too_much_are_told_to_wait_and_stay_signed_in() {
    let story = Story::with(|settings| {
        settings.rate_limit_max = 100;
        settings.rate_limit_refresh = Some(2);
    })
    .await;
    let ada = story.user("ada@example.com").await;
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 200);
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 200);
    let refused = story.refresh(&ada.refresh_token).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (503, "auth.refresh_limited"));
    assert_eq!(retry_after(&refused), 30);
    story.clock.advance(Duration::seconds(30));
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 200);
}

#[tokio::test]
async fn refreshes_are_ten_times_the_global_limit_by_default() {
    let story = Story::with(|settings| settings.rate_limit_max = 2).await;
    for _ in 0..20 {
        assert_eq!(knock(&story.client, REFRESH).await.status, 415);
    }
    assert_eq!(knock(&story.client, REFRESH).await.status, 503);
}

/// So many charges, each with a key of its own, of more than there is.
fn charges(count: usize, round: &str) -> Value {
    let charge = |number| {
        let key = format!("{round} {number}");
        json!({"amount": 1_000_000, "appId": "chat", "description": "An answer", "idempotencyKey": key})
    };
    json!({"commands": (0..count).map(charge).collect::<Vec<_>>()})
}

#[tokio::test]
async fn ten_charges_of_a_batch_count_as_a_request_of_their_account() {
    let story = limited().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    let batch = async |user: &User, count: usize, round: &str| {
        let path = "/api/v1/credits/use/batch";
        story.client.post(path, &charges(count, round)).bearer(&user.access_token).send().await
    };
    let small = batch(&ada, 10, "small").await;
    assert_eq!((small.status.as_u16(), header(&small, "ratelimit")), (200, "\"other\";r=99;t=1"));
    let refused = batch(&ada, 1_000, "large").await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (429, "request.rate_limited"));
    assert_eq!(retry_after(&refused), 1, "one request of the hundred");
    assert_eq!(story.number("SELECT count(*) FROM credits.remembered_answers").await, 10, "none was made");
    story.clock.advance(Duration::minutes(1));
    let large = batch(&ada, 1_000, "large").await;
    assert_eq!((large.status.as_u16(), header(&large, "ratelimit")), (200, "\"other\";r=0;t=60"));
    let again = batch(&ada, 1, "another").await;
    assert_eq!((again.status.as_u16(), again.problem()), (429, "request.rate_limited"));
    // Another account has all of its limit, from the same address.
    assert_eq!(header(&batch(&bob, 500, "his").await, "ratelimit"), "\"other\";r=50;t=30");
}

#[tokio::test]
async fn a_batch_is_never_refused_for_being_larger_than_all_of_a_limit() {
    let story = Story::new().await;
    let admin = story.administrator("ada@example.com").await;
    let body = json!({"name": "Mail", "appId": "mail", "scopes": ["credits:spend"], "limitPerMinute": 20});
    let created = story.client.post("/api/v1/admin/service-keys", &body).bearer(&admin.access_token);
    let key = created.send().await.text("/key").to_owned();
    let limited = story.replica_with(|settings| settings.rate_limit_max = 100).await.client;
    let batch = async |round: &str| {
        let mut body = charges(1_000, round);
        for charge in body["commands"].as_array_mut().unwrap() {
            charge["userId"] = json!(admin.id);
        }
        limited.post("/api/v1/credits/use/batch", &body).header("x-service-key", &key).send().await
    };
    let first = batch("first").await;
    assert_eq!((first.status.as_u16(), header(&first, "ratelimit")), (200, "\"service-key\";r=0;t=60"));
    assert_eq!(batch("second").await.status, 429);
}

#[tokio::test]
async fn keys_of_one_app_share_a_limit_and_the_key_of_the_environment_has_its_own() {
    const GIVEN: &str = "a-service-key-of-the-environment";
    let story = Story::new().await;
    let admin = story.administrator("ada@example.com").await;
    let make = async |app: &str| {
        let body = json!({"name": "Key", "appId": app, "scopes": ["credits:read"], "limitPerMinute": 10});
        let created = story.client.post("/api/v1/admin/service-keys", &body).bearer(&admin.access_token);
        created.send().await.text("/key").to_owned()
    };
    let keys = [make("mail").await, make("mail").await, make("chat").await];
    let limited = story.replica_with(|settings| {
        settings.rate_limit_max = 100;
        settings.service_key = Some(GIVEN.to_owned().into());
        settings.service_key_limit = 10;
    });
    let limited = limited.await.client;
    let path = format!("/api/v1/credits/balance/{}", admin.id);
    let asked = async |key: &str, app: Option<&str>, times: usize| {
        let mut statuses = Vec::new();
        for _ in 0..times {
            let request = limited.get(&path).header("x-service-key", key);
            let request = app.into_iter().fold(request, |request, app| request.header("x-app-id", app));
            statuses.push(request.send().await.status.as_u16());
        }
        statuses
    };
    let [old, new, of_another] = &keys;
    assert_eq!(asked(old, None, 7).await, [200; 7]);
    assert_eq!(asked(new, None, 4).await, [200, 200, 200, 429], "its app has had seven");
    assert_eq!(asked(old, None, 1).await, [429]);
    assert_eq!(asked(of_another, None, 10).await, [200; 10], "another app has its own");
    assert_eq!(asked(GIVEN, Some("mail"), 5).await, [200; 5]);
    assert_eq!(asked(GIVEN, Some("chat"), 6).await, [200, 200, 200, 200, 200, 429], "whatever app it names");
    story.clock.advance(Duration::minutes(1));
    assert_eq!(asked(new, None, 1).await, [200]);
    assert_eq!(asked(GIVEN, None, 1).await, [200]);
}

#[tokio::test]
async fn what_a_client_says_of_its_address_is_believed_of_trusted_proxies_only() {
    let story = Story::with(|settings| {
        settings.rate_limit_max = 100;
        settings.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    let through = |peer: &str, chain: &str| {
        story.client.at(peer).request(Method::POST, REGISTER).header("x-forwarded-for", chain).send()
    };
    for number in 0..5 {
        assert_ne!(through("203.0.113.9", &format!("198.51.100.{number}")).await.status, 429);
    }
    assert_eq!(through("203.0.113.9", "198.51.100.77").await.status, 429, "it is one peer");
    for number in 0..5 {
        let chain = format!("192.0.2.{number}, 198.51.100.1");
        assert_ne!(through(&format!("10.0.0.{number}"), &chain).await.status, 429);
    }
    assert_eq!(
        through("10.0.0.9", "192.0.2.77, 198.51.100.1, 10.1.1.1").await.status,
        429,
        "it is one client"
    );
    assert_ne!(through("10.0.0.9", "198.51.100.2").await.status, 429, "another client");

    story.register("ada@example.com").await;
    let client = story.client.at("10.0.0.1");
    let sign_in = client.post(LOGIN, &json!({"email": "ada@example.com", "password": PASSWORD}));
    let ada = User::of(&sign_in.header("x-forwarded-for", "192.0.2.1, [2001:db8::7]:4711").send().await);
    assert_eq!(story.get("/api/v1/auth/session", &ada).await.text("/session/ipAddress"), "2001:db8::7");
}

#[tokio::test]
async fn without_trusted_proxies_the_peer_is_the_client() {
    let story = limited().await;
    for number in 0..6 {
        let request = story.client.request(Method::POST, REGISTER);
        let reply = request.header("x-forwarded-for", &format!("198.51.100.{number}")).send().await;
        assert_eq!(reply.status == 429, number == 5);
    }
}

#[tokio::test]
async fn the_neighbours_of_an_ipv6_site_share_a_bucket() {
    let story = limited().await;
    for number in 0..5 {
        let neighbour = story.client.at(&format!("2001:db8:0:1:{number}::{number}"));
        assert_ne!(knock(&neighbour, REGISTER).await.status, 429);
    }
    assert_eq!(knock(&story.client.at("2001:db8:0:1:ffff::"), REGISTER).await.status, 429);
    assert_ne!(knock(&story.client.at("2001:db8:0:2::1"), REGISTER).await.status, 429, "another site");
}

#[tokio::test]
async fn all_sites_of_a_network_have_no_more_than_eight_of_them_and_one_keeps_no_neighbour_out() {
    let story = limited().await;
    for networks in ["2001:db8:1:%::1", "198.51.100.%"] {
        let site = |number: u32| story.client.at(&networks.replace('%', &number.to_string()));
        let mut passed = 0;
        for number in 0..60 {
            for _ in 0..2 {
                passed += u32::from(knock(&site(number), REGISTER).await.status != 429);
            }
        }
        assert_eq!(passed, 40, "{networks}");
        let refused = knock(&site(99), REGISTER).await;
        assert_eq!((retry_after(&refused), header(&refused, "ratelimit")), (2, "\"register\";r=0;t=2"));
    }
    for _ in 0..50 {
        knock(&story.client.at("203.0.113.1"), REGISTER).await;
    }
    assert_ne!(knock(&story.client.at("203.0.113.2"), REGISTER).await.status, 429, "a neighbour of a flood");
    assert_ne!(knock(&story.client.at("2001:db8:2:1::1"), REGISTER).await.status, 429, "another network");
}

#[tokio::test]
async fn spellings_of_a_path_and_other_methods_are_no_way_around() {
    let story = limited().await;
    let mut passed = 0;
    for number in 0..40 {
        let spellings = [LOGIN, "/api/v1/auth/login?x=1", "/api/v1/auth/login?", "/api/v1/auth/login/"];
        let method = [Method::POST, Method::HEAD, Method::GET, Method::PUT][number / 4 % 4].clone();
        let request = story.client.request(method, spellings[number % 4]);
        let reply = request.header("x-http-method-override", "GET").send().await;
        passed += u32::from(reply.status != 429 && reply.status != 404);
    }
    assert_eq!(passed, 10);
    for stranger in
        ["//api/v1/auth/login", "/api/v1/auth/./login", "/api/v1/auth/%6cogin", "/API/v1/auth/login"]
    {
        let body = json!({"email": "ada@example.com", "password": PASSWORD});
        let reply = story.client.post(stranger, &body).send().await;
        assert!(reply.status == 404 || reply.status == 429, "{stranger} {}", reply.status);
    }
}

#[tokio::test]
async fn probes_keys_preflights_and_validation_are_never_limited() {
    let story = Story::with(|settings| settings.rate_limit_max = 1).await;
    let ada = story.user("ada@example.com").await;
    for _ in 0..5 {
        for path in [
            "/health",
            "/health/live",
            "/health/serving",
            "/metrics",
            "/api/v1/auth/jwks",
            "/.well-known/jwks.json",
            "/docs/errors",
        ] {
            let reply = story.client.get(path).send().await;
            assert_eq!(reply.status, 200, "{path}");
            assert!(!reply.headers.contains_key("ratelimit"), "{path}");
        }
        let validated = story.post("/api/v1/auth/validate", &json!({"token": ada.access_token})).await;
        assert_eq!(validated.json["valid"], true);
        let preflight = story
            .client
            .request(Method::OPTIONS, ME)
            .header("origin", "http://localhost:3000")
            .header("access-control-request-method", "GET");
        assert_eq!(preflight.send().await.status, 200);
    }
    assert_eq!(story.get(ME, &ada).await.status, 200);
    assert_eq!(story.get(ME, &ada).await.status, 429, "the control");
}

#[tokio::test]
async fn an_account_has_a_limit_of_its_own_wherever_it_asks_from() {
    let story = Story::with(|settings| settings.rate_limit_max = 3).await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    let ask = |number: u32, user: &User| {
        story.client.at(&format!("198.51.100.{number}")).get(ME).bearer(&user.access_token).send()
    };
    for number in 0..3 {
        assert_eq!(ask(number, &ada).await.status, 200);
    }
    let refused = ask(4, &ada).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (429, "request.rate_limited"));
    assert_eq!(retry_after(&refused), 20);
    assert_eq!(header(&refused, "ratelimit"), "\"other\";r=0;t=20", "no word of what the address has left");
    assert_eq!(header(&refused, "ratelimit-policy"), "\"other\";q=3;w=60");
    let reply = ask(5, &bob).await;
    assert_eq!(reply.status, 200);
    assert_eq!(header(&reply, "ratelimit"), "\"other\";r=2;t=20");
    assert_eq!(header(&ask(6, &bob).await, "ratelimit"), "\"other\";r=1;t=40", "whichever has less left");
    story.workers.record_rate_limit_hits().await;
    let events =
        "SELECT count(*) FROM auth.security_events WHERE type = 'rate_limited' AND user_id IS NOT NULL";
    assert_eq!(story.number(events).await, 1);
}

#[tokio::test]
async fn a_browsers_script_may_read_a_refusal() {
    let story = limited().await;
    let ask = || {
        let request = story.client.request(Method::POST, REGISTER);
        request.header("origin", "http://localhost:3000").send()
    };
    for _ in 0..5 {
        assert_ne!(ask().await.status, 429);
    }
    let refused = ask().await;
    assert_eq!(refused.status, 429);
    assert_eq!(header(&refused, "access-control-allow-origin"), "http://localhost:3000");
    let exposed = header(&refused, "access-control-expose-headers").to_lowercase();
    for name in ["retry-after", "ratelimit", "ratelimit-policy"] {
        assert!(exposed.split(',').any(|word| word.trim() == name), "{name} in {exposed}");
    }
    assert_eq!(header(&refused, "cache-control"), "no-store");
}

#[tokio::test]
async fn a_page_of_a_foreign_site_uses_up_nothing_of_its_visitors() {
    let story = limited().await;
    for _ in 0..10 {
        let request = story.client.request(Method::POST, REGISTER).header("origin", "https://evil.test");
        assert_eq!(request.send().await.status, 403);
    }
    assert_eq!(story.register("ada@example.com").await.status, 201);
}

#[tokio::test]
async fn a_flood_leaves_one_event_a_minute_and_bucket_behind() {
    let story = limited().await;
    for _ in 0..50 {
        knock(&story.client, REGISTER).await;
        knock(&story.client.at("2001:db8::1"), REGISTER).await;
    }
    story.workers.record_rate_limit_hits().await;
    story.workers.record_rate_limit_hits().await;
    let events = "SELECT count(*) FROM auth.security_events WHERE type = 'rate_limited' AND user_id IS NULL";
    assert_eq!(story.number(events).await, 2);
    let from = "SELECT count(*) FROM auth.security_events WHERE host(ip_address) = '2001:db8::1' AND request_id IS NOT NULL";
    assert_eq!(story.number(from).await, 1);
}

#[tokio::test]
async fn an_event_that_can_not_be_written_harms_nothing() {
    let story = limited().await;
    story.execute("REVOKE INSERT ON auth.security_events FROM mana_service").await;
    for _ in 0..6 {
        knock(&story.client, REGISTER).await;
    }
    story.workers.record_rate_limit_hits().await;
    assert_eq!(knock(&story.client, REGISTER).await.status, 429);
}

#[tokio::test]
async fn failures_cost_a_wait_that_doubles_and_is_told_exactly() {
    let story = Story::new().await;
    story.register("ada@example.com").await;
    for _ in 0..5 {
        assert_eq!(guess(&story.client, "ada@example.com", "wrong").await.status, 401);
    }
    for wait in [1, 2, 4, 8, 16] {
        let refused = guess(&story.client, "ada@example.com", PASSWORD).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (429, "auth.too_many_attempts"));
        assert_eq!(retry_after(&refused), wait, "also for the right password");
        story.clock.advance(Duration::seconds(wait) - Duration::microseconds(1));
        assert_eq!(guess(&story.client, "ada@example.com", PASSWORD).await.status, 429);
        story.clock.advance(Duration::microseconds(1));
        assert_eq!(guess(&story.client, "ada@example.com", "wrong").await.status, 401);
    }
    story.clock.advance(Duration::seconds(32));
    assert_eq!(story.login("ada@example.com").await.status, 200);
    for _ in 0..5 {
        assert_eq!(guess(&story.client, "ada@example.com", "wrong").await.status, 401, "it starts anew");
    }
}

#[tokio::test]
async fn failures_from_elsewhere_lock_no_owner_out() {
    let story = Story::with(|settings| settings.sign_in_failures_per_hour = 20).await;
    story.register("ada@example.com").await;
    assert_eq!(story.login("ada@example.com").await.status, 200, "her home");
    for attacker in 1..=8 {
        let client = story.client.at(&format!("198.51.100.{attacker}"));
        for _ in 0..6 {
            guess(&client, "ada@example.com", "wrong").await;
        }
    }
    let more = guess(&story.client.at("198.51.100.8"), "ada@example.com", "wrong").await;
    assert_eq!(more.status, 429, "the attack is tightened");
    assert_eq!(retry_after(&more), 60);
    assert_eq!(guess(&story.client, "ada@example.com", "mistyped").await.status, 401, "at home as ever");
    assert_eq!(story.login("ada@example.com").await.status, 200);
    let new_place = story.client.at("203.0.113.1");
    assert_eq!(guess(&new_place, "ada@example.com", PASSWORD).await.status, 200, "and from a new place");
    assert_eq!(guess(&new_place, "ada@example.com", PASSWORD).await.status, 200, "known from now on");
}

#[tokio::test]
async fn a_network_of_fresh_addresses_guesses_no_faster_than_one_and_locks_no_owner_out() {
    let story = Story::with(|settings| settings.sign_in_failures_per_hour = 10).await;
    story.register("ada@example.com").await;
    assert_eq!(story.login("ada@example.com").await.status, 200, "her home");
    let mut guessed = 0;
    for minute in 0..3 {
        for site in 0..20 {
            let client = story.client.at(&format!("2001:db8:1:{minute}{site:02}::1"));
            guessed += u32::from(guess(&client, "ada@example.com", "wrong").await.status == 401);
        }
        story.clock.advance(Duration::minutes(1));
    }
    assert_eq!(guessed, 10 + 3, "the budget, and one a minute for the network");
    assert_eq!(story.login("ada@example.com").await.status, 200, "at home as ever");
    let new_place = story.client.at("203.0.113.1");
    assert_eq!(guess(&new_place, "ada@example.com", PASSWORD).await.status, 200, "and in a new place");
}

#[tokio::test]
async fn a_sign_in_that_met_a_busy_service_waits_no_second_time() {
    let story = Story::new().await;
    story.register("ada@example.com").await;
    for wait in [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256] {
        story.clock.advance(Duration::seconds(wait));
        assert_eq!(guess(&story.client, "ada@example.com", "wrong").await.status, 401, "{wait}");
    }
    story.clock.advance(Duration::seconds(512));
    story.execute("REVOKE SELECT ON auth.passwords FROM mana_service").await;
    for _ in 0..2 {
        assert!(story.login("ada@example.com").await.status.is_server_error());
    }
    story.execute("GRANT SELECT ON auth.passwords TO mana_service").await;
    assert_eq!(story.login("ada@example.com").await.status, 200);
}

#[tokio::test]
async fn parallel_guesses_are_no_more_than_the_free_ones() {
    let story = Story::new().await;
    story.register("ada@example.com").await;
    let spellings = ["ada@example.com", "ADA@example.com", "Ada@Example.COM"];
    let guesses = (0..40).map(|number| guess(&story.client, spellings[number % 3], "wrong"));
    let statuses: Vec<_> = join_all(guesses).await.iter().map(|reply| reply.status.as_u16()).collect();
    let count = |status| statuses.iter().filter(|found| **found == status).count();
    assert_eq!((count(401), count(429)), (5, 35), "{statuses:?}");
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'sign_in_failed'").await,
        5
    );
}

#[tokio::test]
async fn success_does_not_give_an_address_more_guesses() {
    let story = limited().await;
    for email in ["mallory@example.com", "ada@example.com"] {
        story.register(email).await;
    }
    for number in 0..10 {
        let (email, password) =
            if number % 2 == 0 { ("ada@example.com", "wrong") } else { ("mallory@example.com", PASSWORD) };
        assert_ne!(guess(&story.client, email, password).await.status, 429);
    }
    assert_eq!(guess(&story.client, "mallory@example.com", PASSWORD).await.problem(), "request.rate_limited");
}

#[tokio::test]
async fn an_address_without_an_account_is_slowed_down_the_same() {
    let story = Story::new().await;
    story.register("ada@example.com").await;
    let visible = |reply: &Reply| {
        let mut body = reply.json.clone();
        body["instance"] = Value::Null;
        let names: Vec<_> = reply.headers.keys().map(ToString::to_string).collect();
        (reply.status, names, header(reply, "retry-after").to_owned(), body)
    };
    for (number, wait) in [0, 0, 0, 0, 0, 0, 1, 0, 2].into_iter().enumerate() {
        let mut answers = Vec::new();
        for email in ["ada@example.com", "nobody@example.com", "no address at all"] {
            answers.push(visible(&guess(&story.client, email, "wrong").await));
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{number}: {answers:#?}");
        story.clock.advance(Duration::seconds(wait));
    }
}

#[tokio::test]
async fn a_sign_in_that_the_service_could_not_check_is_no_failure() {
    let story = Story::new().await;
    story.register("ada@example.com").await;
    story.execute("REVOKE SELECT ON auth.passwords FROM mana_service").await;
    for _ in 0..20 {
        assert!(story.login("ada@example.com").await.status.is_server_error());
    }
    story.execute("GRANT SELECT ON auth.passwords TO mana_service").await;
    assert_eq!(story.login("ada@example.com").await.status, 200);
}

#[tokio::test]
async fn replicas_with_redis_count_together_and_without_it_each_for_itself() {
    let mut redis = RedisServer::start();
    let story = Story::with(|settings| {
        settings.rate_limit_max = 100;
        // An hour's window: what comes back while the story runs is less than one.
        settings.rate_limit_ttl = 3600;
        settings.rate_limit_refresh = Some(10);
        settings.redis_url = Some(redis.url().into());
        // A busy machine is no lost Redis.
        settings.redis_wait_ms = 60_000;
    })
    .await;
    let replica = story.replica().await;
    let mut passed = 0;
    for _ in 0..10 {
        for client in [&story.client, &replica] {
            passed += u32::from(knock(client, REFRESH).await.status == 415);
        }
    }
    assert_eq!(passed, 10);
    redis.kill();
    for client in [&story.client, &replica] {
        let mut statuses = Vec::new();
        for _ in 0..11 {
            statuses.push(knock(client, REFRESH).await.status.as_u16());
        }
        assert!(statuses.iter().all(|status| [415, 503].contains(status)), "{statuses:?}");
        assert_eq!(statuses.last(), Some(&503), "never open");
    }
}
