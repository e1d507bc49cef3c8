//! The ledger under races and faults that two replicas on one PostgreSQL can show. What it takes real processes to show
//! is in `binary/faults.rs` and `binary/torture.rs`.

use crate::credits::books_are_true;
use crate::story::{ACCOUNTS, PASSWORD, Story, User, spend_of};
use crate::till::{PaymentPasses as _, Shop, hand_over};
use futures_util::future::join_all;
use mana_kernel::Rng;
use mana_platform::SystemRng;
use mana_testkit::{Client, Reply, Request};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const USE: &str = "/api/v1/credits/use";
const HOLDS: &str = "/api/v1/credits/holds";

/// Refuses two descriptions, as a database would that has a rule of its own, or no room.
const REFUSALS: &str = "
    CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.description = 'bad' THEN
            RAISE EXCEPTION 'no such lines here';
        ELSIF NEW.description = 'no room' THEN
            RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON credits.transactions FOR EACH ROW EXECUTE FUNCTION public.refuse()";

/// Randomness that a defect can be put into. Of what a spend does, the ledger alone asks for any.
#[derive(Debug, Default)]
struct Brittle {
    is_broken: AtomicBool,
}

impl Rng for Brittle {
    fn fill(&self, bytes: &mut [u8]) {
        assert!(!self.is_broken.load(Ordering::SeqCst), "a defect");
        SystemRng.fill(bytes);
    }
}

fn spend_for(description: &str, key: &str) -> Value {
    json!({"amount": 1, "appId": "chat", "description": description, "idempotencyKey": key})
}

fn is_replay(reply: &Reply) -> bool {
    reply.headers.contains_key("idempotency-hit")
}

fn statuses(replies: &[Reply]) -> Vec<u16> {
    let mut statuses: Vec<_> = replies.iter().map(|reply| reply.status.as_u16()).collect();
    statuses.sort_unstable();
    statuses
}

/// Until a transaction waits for a lock that this connection holds. Asked of the locks: who is connected stays, within a transaction, what it
/// was at the first look, and a shard connects when it has something to do.
async fn somebody_waits(owner: &mut PgConnection) {
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))";
    while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut *owner).await.unwrap() {}
}

#[tokio::test]
async fn of_two_payloads_under_one_key_on_two_replicas_one_is_done_and_one_refused() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let replica = story.replica().await;
    for round in 1..=10 {
        let spend = |client: &Client, amount: i64| {
            let spend = client.post(USE, &spend_of(amount)).bearer(&ada.access_token);
            spend.header("idempotency-key", &format!("round {round}")).send()
        };
        let replies: [Reply; 2] = tokio::join!(spend(&story.client, 1), spend(&replica, 2)).into();
        assert_eq!(statuses(&replies), [201, 422], "round {round}");
        let refused = replies.iter().find(|reply| reply.status == 422).unwrap();
        assert_eq!(refused.problem(), "request.idempotency_key_reused");
    }
    let lines = "SELECT count(*) FROM credits.transactions WHERE type = 'usage'";
    assert_eq!(story.number(lines).await, 10);
    books_are_true(&story).await;
}

#[tokio::test]
async fn of_a_capture_and_a_release_of_one_hold_on_two_replicas_exactly_one_wins() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let replica = story.replica().await;
    let end = async |client: &Client, id: &str, how: &str| {
        let path = format!("{HOLDS}/{id}/{how}");
        client.request(http::Method::POST, &path).bearer(&ada.access_token).send().await
    };
    let mut spent = 0_i64;
    for round in 1..=20 {
        let hold = story.client.post(HOLDS, &spend_of(3)).bearer(&ada.access_token).send().await;
        assert_eq!(hold.status, 201, "{}", hold.json);
        let id = hold.text("/hold/id");
        let replies: [Reply; 4] = tokio::join!(
            end(&story.client, id, "capture"),
            end(&replica, id, "release"),
            end(&replica, id, "capture"),
            end(&story.client, id, "release"),
        )
        .into();
        assert_eq!(statuses(&replies), [201, 409, 409, 409], "round {round}");
        for refused in replies.iter().filter(|reply| reply.status == 409) {
            assert_eq!(refused.problem(), "credits.hold_ended");
        }
        if replies.iter().any(|reply| reply.text("/hold/status") == "captured") {
            spent = spent.saturating_add(3);
        }
    }
    let balance = story.get("/api/v1/credits/balance", &ada).await;
    assert_eq!((balance.integer("/heldCredits"), balance.integer("/totalSpent")), (0, spent));
    books_are_true(&story).await;
}

#[tokio::test]
async fn an_order_that_the_database_refuses_hurts_no_other_of_its_batch() {
    const GOOD: i64 = 40;
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut owner = story.database.owner().await;
    sqlx::raw_sql(REFUSALS).execute(&mut owner).await.unwrap();
    let spend = async |description: &str, key: &str| story.spend(&ada, &spend_for(description, key)).await;
    sqlx::raw_sql("BEGIN; SELECT FROM credits.balances FOR UPDATE").execute(&mut owner).await.unwrap();
    let all = async {
        let good = (0..GOOD).map(async |number| spend("An answer", &number.to_string()).await);
        // Between the others, and its key with it.
        let (some, bad, more) = tokio::join!(
            join_all(good.clone().take(20)),
            join_all([spend("bad", "bad"), spend("bad", "bad")]),
            join_all(good.skip(20)),
        );
        ([some, more].concat(), bad)
    };
    let release = async {
        somebody_waits(&mut owner).await;
        sqlx::raw_sql("COMMIT").execute(&mut owner).await.unwrap();
    };
    let ((good, bad), ()) = tokio::join!(all, release);
    assert!(good.iter().all(|reply| reply.status == 201 && !is_replay(reply)));
    for bad in &bad {
        assert_eq!((bad.status.as_u16(), bad.problem()), (500, "service.internal"));
    }
    let commits = "SELECT count(DISTINCT xmin::text) FROM credits.transactions WHERE type = 'usage'";
    assert!(story.number(commits).await < GOOD, "some shared a batch");
    books_are_true(&story).await;

    // Nothing is remembered of it.
    story.execute("DROP TRIGGER refuse ON credits.transactions").await;
    let again = spend("bad", "bad").await;
    assert!(again.status == 201 && !is_replay(&again), "{}", again.json);
    let lines = "SELECT count(*) FROM credits.transactions WHERE type = 'usage'";
    assert_eq!(story.number(lines).await, GOOD + 1);
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_defect_ends_the_batch_that_it_is_in_and_no_other() {
    let story = Story::new().await;
    let rng = Arc::new(Brittle::default());
    let server = story.replica_on(rng.clone()).await.client;
    // Enough that each shard has some.
    let mut users = Vec::new();
    for number in 0..8 {
        users.push(story.user(&format!("owner{number}@example.com")).await);
    }
    let spends = async |key: &str| {
        let spend = |user| server.post(USE, &spend_for("An answer", key)).bearer(user).send();
        join_all(users.iter().map(|user| spend(&user.access_token))).await
    };
    for round in ["first", "second"] {
        rng.is_broken.store(true, Ordering::SeqCst);
        for refused in spends(round).await {
            assert_eq!((refused.status.as_u16(), refused.problem()), (500, "service.internal"));
        }
        assert_eq!(server.get("/health/ready").send().await.status, 200);
        rng.is_broken.store(false, Ordering::SeqCst);
        for done in spends(round).await {
            assert!(done.status == 201 && !is_replay(&done), "{round}: {}", done.json);
        }
    }
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_database_without_room_is_answered_for_and_nothing_is_half_written() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut owner = story.database.owner().await;
    sqlx::raw_sql(REFUSALS).execute(&mut owner).await.unwrap();
    let full = async |number: i64| story.spend(&ada, &spend_for("no room", &number.to_string())).await;
    for refused in join_all((0..20).map(full)).await {
        assert_eq!((refused.status.as_u16(), refused.problem()), (503, "service.unavailable"));
        assert!(refused.headers.contains_key("retry-after"));
    }
    books_are_true(&story).await;
    assert_eq!(story.number("SELECT count(*) FROM credits.remembered_answers").await, 0);
    story.execute("DROP TRIGGER refuse ON credits.transactions").await;
    let done = join_all((0..20).map(full)).await;
    assert!(done.iter().all(|reply| reply.status == 201 && !is_replay(reply)));
    books_are_true(&story).await;
}

#[tokio::test]
async fn batches_of_many_wallets_on_two_replicas_beside_sign_outs_meet_no_deadlock() {
    let story = Story::new().await;
    let replicas = [story.client.clone(), story.replica().await];
    let mut users = Vec::new();
    for number in 0..8 {
        let email = format!("owner{number}@example.com");
        users.push([story.user(&email).await, story.sign_in(&email).await]);
    }
    // The day has turned over for all of them.
    story.execute("UPDATE credits.balances SET daily_granted_on = daily_granted_on - 1").await;
    let mut owner = story.database.owner().await;
    for (round, [first, second]) in users.iter().enumerate() {
        // Whatever is sent while all wallets are held comes in few batches, of many wallets each.
        sqlx::raw_sql("BEGIN; SELECT FROM credits.balances FOR UPDATE").execute(&mut owner).await.unwrap();
        let clients =
            users.iter().flatten().flat_map(|user| replicas.iter().map(move |client| (client, user)));
        let requests = clients.flat_map(|(client, user)| {
            [USE, HOLDS].map(|path| client.post(path, &spend_of(1)).bearer(&user.access_token).send())
        });
        let end = async {
            somebody_waits(&mut owner).await;
            sqlx::raw_sql("COMMIT").execute(&mut owner).await.unwrap();
            let end = match round % 2 {
                0 => replicas[0]
                    .request(http::Method::DELETE, "/api/v1/auth/sessions")
                    .bearer(&first.access_token),
                _ => replicas[1]
                    .request(http::Method::POST, "/api/v1/auth/logout")
                    .bearer(&second.access_token),
            };
            end.send().await
        };
        let (replies, end) = tokio::join!(join_all(requests), end);
        for reply in replies {
            assert!([201, 401].contains(&reply.status.as_u16()), "{}", reply.json);
        }
        assert!(end.status.is_success(), "{}", end.json);
    }
    assert_eq!(deadlocks(&story).await, 0);
    books_are_true(&story).await;
}

/// How many the database has met. Ends all connections of the service: one has told of all that it met when it is gone.
async fn deadlocks(story: &Story) -> i64 {
    let end_of_connections = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND usename = 'mana_service'";
    while story.number(end_of_connections).await > 0 {}
    story.number("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").await
}

#[tokio::test]
async fn what_apps_owners_administrators_and_stripe_do_at_once_meets_no_deadlock() {
    const KEY: &str = "a-service-key-of-the-environment";
    let shop = Shop::with(|settings| settings.service_key = Some(KEY.to_owned().into())).await;
    let other = shop.replica_with(|_| {}).await;
    let clients = [shop.client.clone(), other.client.clone()];
    let admin = shop.administrator("admin@example.com").await;
    let mut users = Vec::new();
    for number in 0..5 {
        users.push(shop.user(&format!("owner{number}@example.com")).await);
    }
    users.push(admin.clone());
    let mut bought = Vec::new();
    for user in &users {
        bought.push(shop.buy(user).await);
    }
    let mut owner = shop.database.owner().await;
    for leaves in 0..5 {
        for user in &users[leaves..] {
            shop.pay(user).await;
        }
        for delivery in shop.stripe.take_deliveries() {
            assert_eq!(hand_over(&shop.client, &delivery).await.status, 200);
        }
        let (workers, others_workers) = (shop.workers.clone(), other.workers.clone());
        let leaver = &users[leaves];
        let refunded = &bought[leaves + 1];
        let mut requests = Vec::new();
        for (turn, client) in clients.iter().enumerate() {
            let as_app = |path: &str, body: &Value| {
                client.post(path, body).header("x-service-key", KEY).header("x-app-id", "shop")
            };
            let as_admin = |path: &str, body: &Value| client.post(path, body).bearer(&admin.access_token);
            let mut order: Vec<_> = users.iter().collect();
            order.rotate_left((leaves + 3 * turn) % users.len());
            let charges: Vec<_> = order.iter().map(|user| for_user(user, spend_of(2))).collect();
            requests.push(as_app(&format!("{USE}/batch"), &json!({"commands": charges})));
            let mut reversed = charges;
            reversed.reverse();
            requests.push(as_app(&format!("{USE}/batch"), &json!({"commands": reversed})));
            for user in order {
                let back = json!({"amount": 1, "appId": "shop", "description": "Sorry"});
                requests.push(as_app("/api/v1/credits/refund", &for_user(user, back.clone())));
                requests.push(as_app("/api/v1/internal/credits/grants", &for_user(user, back)));
                let by_hand = json!({"amount": 1, "reason": "Put right"});
                requests.push(as_admin(&format!("/api/v1/admin/users/{}/credits/grant", user.id), &by_hand));
                requests.push(client.post(USE, &spend_of(1)).bearer(&user.access_token));
                requests.push(client.post(HOLDS, &spend_of(1)).bearer(&user.access_token));
                let low = json!({"below": 10, "mail": true}).to_string();
                let set = client.request(http::Method::PUT, "/api/v1/credits/low-balance");
                requests.push(set.body("application/json", low).bearer(&user.access_token));
            }
            requests.push(as_admin(&format!("/api/v1/admin/purchases/{}/refund", refunded.id), &json!({})));
        }
        let disable = format!("/api/v1/admin/users/{}/disable", leaver.id);
        requests.push(clients[1].post(&disable, &json!({"reason": "A look"})).bearer(&admin.access_token));
        let leave = clients[0].request(http::Method::DELETE, "/api/v1/auth/account");
        let password = json!({"password": PASSWORD}).to_string();
        requests.push(leave.body("application/json", password).bearer(&leaver.access_token));

        sqlx::raw_sql("BEGIN; SELECT FROM credits.balances FOR UPDATE").execute(&mut owner).await.unwrap();
        let begin = async {
            somebody_waits(&mut owner).await;
            sqlx::raw_sql("COMMIT").execute(&mut owner).await.unwrap();
        };
        let requests = join_all(requests.into_iter().map(Request::send));
        let (replies, (), (), ()) =
            tokio::join!(requests, begin, workers.work_on_payments(), others_workers.work_on_payments());
        for reply in &replies {
            assert!(reply.status.as_u16() < 500, "{} {}", reply.status, reply.json);
        }
        let done = replies.iter().filter(|reply| reply.status.is_success()).count();
        assert!(done > replies.len() / 2, "most of it was done: {:?}", statuses(&replies));
    }
    assert_eq!(deadlocks(&shop).await, 0);
    shop.closes().await;
}

#[tokio::test]
async fn a_spend_that_lost_a_race_for_the_account_is_tried_again() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    // For the shard, which connects with its first order: time enough for what follows, and less than it waits for a lock.
    story
        .execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''3s''', current_database()); END $$",
        )
        .await;
    // Has the account and wants the wallet, in the order in which nobody here locks them. The spend looks first who waits for whom, and gives way.
    let mut owner = story.holding(ACCOUNTS).await;
    sqlx::raw_sql("SET LOCAL deadlock_timeout = '10min'").execute(&mut owner).await.unwrap();
    let charge = story.client.post(USE, &spend_of(1)).bearer(&ada.access_token);
    let sent = story.send_to_wait(charge, 1).await;
    sqlx::raw_sql("SELECT FROM credits.balances FOR UPDATE; COMMIT").execute(&mut owner).await.unwrap();
    let done = sent.await.unwrap();
    assert_eq!(done.status, 201, "{}", done.json);
    assert_eq!(deadlocks(&story).await, 1, "it lost one");
    books_are_true(&story).await;
}

fn for_user(user: &User, mut body: Value) -> Value {
    body["userId"] = json!(user.id);
    body
}

#[tokio::test]
async fn a_key_that_nobody_has_sent_for_long_is_known_all_the_same() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let spend = |key: String| {
        story.client.post(USE, &spend_of(1)).bearer(&ada.access_token).header("idempotency-key", &key).send()
    };
    let first = spend("first".to_owned()).await;
    // One after the other, so that each is a batch.
    for number in 0..70 {
        let done = spend(number.to_string()).await;
        assert!(done.status == 201 && !is_replay(&done));
    }
    let moved =
        story.client.post(USE, &spend_of(1)).bearer(&ada.access_token).header("idempotency-key", "first");
    let again = moved.header("if-match", "\"1\"").send().await;
    assert!(is_replay(&again) && again.json == first.json, "{}", again.json);
    for number in 100..170 {
        assert_eq!(spend(number.to_string()).await.status, 201);
    }
    // With others in its batch, which it hurts no more than a second try.
    let keys = ["first", "170", "171", "172"].map(str::to_owned);
    let replies = join_all(keys.map(spend)).await;
    assert!(is_replay(&replies[0]) && replies[0].json == first.json, "{}", replies[0].json);
    assert!(replies[1..].iter().all(|reply| reply.status == 201 && !is_replay(reply)));
    assert_eq!(story.number("SELECT count(*) FROM credits.transactions WHERE type = 'usage'").await, 144);
    books_are_true(&story).await;
}
