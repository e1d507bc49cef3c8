//! What apps are told, and what happens when they don't listen.

use crate::observed::Statements;
use crate::provider::Fault;
use crate::receiver::{Heard, Receiver};
use crate::story::{PASSWORD, Story, User, hex, spend_of};
use futures_util::future::join_all;
use http::Method;
use mana_auth::token::root_secret::{Resealed, RootSecrets};
use mana_auth::webhook::rekey_webhook_secrets;
use mana_core_auth::workers::Workers;
use mana_kernel::Clock as _;
use mana_platform::{Settings, SystemRng};
use mana_testkit::{Client, Reply};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Instant;
use time::Duration;

const BASE: &str = "/api/v1/admin/apps";
const ALL: [&str; 5] =
    ["credits.spent", "credits.low", "purchase.completed", "user.deleted", "session.revoked"];

/// Endpoints on this machine may be told, and have a second.
pub(crate) fn local(settings: &mut Settings) {
    settings.webhook_private_networks = vec!["127.0.0.0/8".parse().unwrap()];
    settings.webhook_timeout_seconds = 1;
}

/// An endpoint, as it was added.
pub(crate) struct Endpoint {
    pub(crate) path: String,
    secret: String,
}

pub(crate) async fn try_to_add(story: &Story, admin: &User, app: &str, body: &Value) -> Reply {
    story.client.post(&format!("{BASE}/{app}/webhooks"), body).bearer(&admin.access_token).send().await
}

pub(crate) async fn add(story: &Story, admin: &User, app: &str, body: Value) -> Endpoint {
    let added = try_to_add(story, admin, app, &body).await;
    assert_eq!(added.status, 201, "{}", added.json);
    let secret = added.text("/secret").to_owned();
    assert!(secret.starts_with("mana_whsec_"), "{secret}");
    Endpoint { path: format!("{BASE}/{app}/webhooks/{}", added.text("/id")), secret }
}

impl Endpoint {
    async fn ask(&self, story: &Story, admin: &User, verb: &str, body: Value) -> Reply {
        let path = format!("{}/{verb}", self.path);
        story.client.post(&path, &body).bearer(&admin.access_token).send().await
    }

    async fn deliveries(&self, story: &Story, admin: &User, query: &str) -> Vec<Value> {
        let listed = story.get(&format!("{}/deliveries{query}", self.path), admin).await;
        assert_eq!(listed.status, 200, "{}", listed.json);
        listed.json.as_array().unwrap().clone()
    }

    /// As the list of endpoints shows it.
    async fn shown(&self, story: &Story, admin: &User) -> Value {
        let (list, id) = self.path.rsplit_once('/').unwrap();
        let listed = story.get(list, admin).await;
        listed.json.as_array().unwrap().iter().find(|endpoint| endpoint["id"] == id).unwrap().clone()
    }
}

async fn spend(story: &Story, user: &User, amount: i64) {
    let spent = story.spend(user, &spend_of(amount)).await;
    assert_eq!(spent.status, 201, "{}", spent.json);
}

/// A listener at all that happens, an administrator, and a user.
async fn with_listener() -> (Story, Receiver, User, User, Endpoint) {
    let story = Story::with(local).await;
    let (admin, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let receiver = Receiver::start().await;
    let endpoint = add(&story, &admin, "chat", json!({"url": receiver.url, "events": ALL})).await;
    (story, receiver, admin, ada, endpoint)
}

#[tokio::test]
async fn an_app_hears_of_what_happens_and_can_prove_who_says_it() {
    let (story, receiver, _, ada, endpoint) = with_listener().await;
    let spent = story.spend(&ada, &spend_of(3)).await;
    let hold =
        story.client.post("/api/v1/credits/holds", &spend_of(7)).bearer(&ada.access_token).send().await;
    let capture = format!("/api/v1/credits/holds/{}/capture", hold.text("/hold/id"));
    let captured = story.client.post(&capture, &json!({})).bearer(&ada.access_token).send().await;
    assert_eq!(captured.status, 201, "{} {}", hold.json, captured.json);
    let second = story.sign_in("ada@example.com").await;
    story.client.request(Method::POST, "/api/v1/auth/logout").bearer(&second.access_token).send().await;
    let deletion = story.client.request(Method::DELETE, "/api/v1/auth/account").bearer(&ada.access_token);
    assert_eq!(
        deletion.body("application/json", json!({"password": PASSWORD}).to_string()).send().await.status,
        200
    );
    assert_eq!(receiver.take().len(), 0, "nothing is told before it is committed, nor by the request");

    story.workers.deliver_webhooks().await;
    let heard = receiver.take();
    let of = |kind: &str| heard.iter().filter(|heard| heard.event["type"] == kind).collect::<Vec<_>>();
    let spends = of("credits.spent");
    assert_eq!(spends.len(), 2, "{heard:?}");
    let first = spends.iter().find(|spend| spend.event["data"]["amount"] == 3).unwrap();
    assert_eq!(
        first.event["data"],
        json!({"userId": ada.id, "amount": 3, "transactionId": spent.text("/transaction/id"), "holdId": null, "chargedBy": "user"})
    );
    assert_eq!((&first.event["version"], &first.event["appId"]), (&json!(1), &json!("chat")));
    assert_eq!(first.headers["content-type"], "application/json");
    let by_hold = spends.iter().find(|spend| spend.event["data"]["amount"] == 7).unwrap();
    assert_eq!(by_hold.event["data"]["holdId"], hold.json["hold"]["id"]);
    let revoked: BTreeSet<_> =
        of("session.revoked").iter().map(|heard| heard.event["data"]["reason"].to_string()).collect();
    assert_eq!(revoked, BTreeSet::from(["\"signed_out\"".to_owned(), "\"account_deleted\"".to_owned()]));
    let [deleted] = of("user.deleted")[..] else { panic!("{heard:?}") };
    assert_eq!((&deleted.event["data"], &deleted.event["appId"]), (&json!({"userId": ada.id}), &Value::Null));

    let now = story.clock.now().unix_timestamp();
    let ids: BTreeSet<_> = heard.iter().map(Heard::id).collect();
    assert_eq!(ids.len(), heard.len());
    for told in &heard {
        assert!(told.is_signed_by(&endpoint.secret, now), "{told:?}");
        assert!(!told.is_signed_by(&endpoint.secret, now - 1) && !told.is_signed_by("mana_whsec_x", now));
        assert!(!told.body.contains('@') && !told.body.contains("An answer"), "personal: {}", told.body);
    }
    story.workers.deliver_webhooks().await;
    assert_eq!(receiver.take().len(), 0, "once");
}

#[tokio::test]
async fn an_app_hears_of_its_own_spends_that_are_large_enough_and_of_no_refusal() {
    let story = Story::with(local).await;
    let (admin, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let (all, large, foreign) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    add(&story, &admin, "chat", json!({"url": all.url, "events": ["credits.spent"]})).await;
    add(&story, &admin, "chat", json!({"url": large.url, "events": ["credits.spent"], "spentFrom": 10}))
        .await;
    add(&story, &admin, "maps", json!({"url": foreign.url, "events": ["credits.spent"]})).await;
    for amount in [9, 10] {
        spend(&story, &ada, amount).await;
    }
    assert_eq!(story.spend(&ada, &spend_of(10_000)).await.problem(), "credits.insufficient_funds");
    let dry = json!({"amount": 50, "appId": "chat", "description": "x", "dryRun": true});
    story.spend(&ada, &dry).await;
    story.workers.deliver_webhooks().await;
    let amounts = |receiver: &Receiver| {
        let mut amounts: Vec<_> =
            receiver.take().iter().map(|heard| heard.event["data"]["amount"].as_i64().unwrap()).collect();
        amounts.sort_unstable();
        amounts
    };
    assert_eq!((amounts(&all), amounts(&large), amounts(&foreign)), (vec![9, 10], vec![10], vec![]));
    // The same key is the same spend, told once.
    let mut keyed = spend_of(11);
    keyed["idempotencyKey"] = json!("k");
    for _ in 0..3 {
        assert_eq!(story.spend(&ada, &keyed).await.status, 201);
    }
    story.workers.deliver_webhooks().await;
    assert_eq!(amounts(&all), [11]);
}

#[tokio::test]
async fn an_app_hears_whether_it_charged_itself_or_a_user_named_it() {
    const KEY: &str = "a-service-key-of-the-environment";
    let story = Story::with(|settings| {
        local(settings);
        settings.service_key = Some(SecretString::from(KEY));
    })
    .await;
    let (admin, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let receiver = Receiver::start().await;
    add(&story, &admin, "chat", json!({"url": receiver.url, "events": ["credits.spent"]})).await;
    let made = json!({"name": "Chat", "appId": "chat", "scopes": ["credits:spend"]});
    let made =
        story.client.post("/api/v1/admin/service-keys", &made).bearer(&admin.access_token).send().await;
    let own = made.text("/key").to_owned();
    let as_chat = async |key: &str, path: &str, mut body: Value| {
        body["userId"] = json!(ada.id);
        let request = story.client.post(path, &body).header("x-service-key", key).header("x-app-id", "chat");
        request.send().await
    };
    spend(&story, &ada, 1).await;
    for (key, amount) in [(own.as_str(), 2), (KEY, 4)] {
        assert_eq!(as_chat(key, "/api/v1/credits/use", spend_of(amount)).await.status, 201);
        let hold = as_chat(key, "/api/v1/credits/holds", spend_of(amount + 1)).await;
        let capture = format!("/api/v1/credits/holds/{}/capture", hold.text("/hold/id"));
        let capture = story.client.post(&capture, &json!({})).header("x-service-key", key);
        assert_eq!(capture.header("x-app-id", "chat").send().await.status, 201);
    }
    // Another app, by a key that it shares: it says that it is chat, in the header or in the body.
    let body = json!({"userId": ada.id, "amount": 6, "appId": "chat", "description": "An answer"});
    let foreign = story.client.post("/api/v1/credits/use", &body).header("x-service-key", KEY).send().await;
    assert_eq!(foreign.status, 201, "{}", foreign.json);
    story.workers.deliver_webhooks().await;
    let told: BTreeSet<_> = receiver
        .take()
        .iter()
        .map(|heard| &heard.event["data"])
        .map(|data| (data["amount"].as_i64().unwrap(), data["chargedBy"].as_str().unwrap().to_owned()))
        .collect();
    let shared = [4, 5, 6].map(|amount| (amount, "shared_service"));
    let expected = [(1, "user"), (2, "service"), (3, "service")].into_iter().chain(shared);
    assert_eq!(told, expected.map(|(amount, by)| (amount, by.to_owned())).collect());
}

#[tokio::test]
async fn a_spend_costs_no_statement_more_while_nobody_listens() {
    // Before the service starts, whose ledger works on threads of its own.
    let statements = Statements::watch();
    let story = Story::with(local).await;
    let (admin, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    spend(&story, &ada, 1).await;
    story.workers.learn_listeners().await;
    statements.take();
    spend(&story, &ada, 1).await;
    let alone = statements.take();
    assert!(
        alone.iter().any(|one| one.contains("WITH wallets"))
            && !alone.iter().any(|one| one.contains("webhook")),
        "{alone:?}"
    );
    let rows = "SELECT count(*) FROM auth.webhook_events";
    assert_eq!(story.number(rows).await, 0);

    // Whoever listens to another app, or to larger spends, changes nothing either.
    let receiver = Receiver::start().await;
    add(&story, &admin, "maps", json!({"url": receiver.url, "events": ALL})).await;
    add(&story, &admin, "chat", json!({"url": receiver.url, "events": ["credits.spent"], "spentFrom": 100}))
        .await;
    story.workers.learn_listeners().await;
    statements.take();
    spend(&story, &ada, 1).await;
    assert_eq!(statements.take().len(), alone.len());

    // The control: what is large enough is written down, and a server that knows nothing any more asks.
    spend(&story, &ada, 100).await;
    assert!(statements.take().iter().any(|one| one.contains("WITH news")));
    assert_eq!(story.number(rows).await, 1);
    story.steady_clock.advance(std::time::Duration::from_secs(6));
    spend(&story, &ada, 1).await;
    assert!(statements.take().iter().any(|one| one.contains("WITH news")));
    assert_eq!(story.number(rows).await, 1);
}

#[tokio::test]
async fn an_endpoint_that_is_added_elsewhere_is_heard_of_within_five_seconds() {
    let (story, receiver, admin, ada, _) = with_listener().await;
    let other = story.replica_with(|_| {}).await;
    other.workers.learn_listeners().await;
    let late = Receiver::start().await;
    add(&story, &admin, "maps", json!({"url": late.url, "events": ["credits.spent"]})).await;
    let body = json!({"amount": 1, "appId": "maps", "description": "x"});
    let there = async |body: &Value| {
        other.client.post("/api/v1/credits/use", body).bearer(&ada.access_token).send().await.status
    };
    assert_eq!(there(&body).await, 201);
    story.steady_clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(there(&body).await, 201);
    story.workers.deliver_webhooks().await;
    assert_eq!(late.take_types(), ["credits.spent"], "the first one was within what may be missed");
    assert_eq!(receiver.take_types(), Vec::<String>::new());
}

#[tokio::test]
async fn what_an_endpoint_does_not_take_is_told_again_and_a_hostile_one_holds_up_nobody() {
    let (story, receiver, admin, ada, endpoint) = with_listener().await;
    let (elsewhere, good) = (Receiver::start().await, Receiver::start().await);
    add(&story, &admin, "chat", json!({"url": good.url, "events": ["credits.spent"]})).await;
    for (fault, error) in [
        (Fault::Status(500), "it answers 500"),
        (Fault::Status(404), "it answers 404"),
        (Fault::Redirect(elsewhere.url.clone()), "it answers 302, and redirects are not followed"),
        (Fault::Silence, "the request failed"),
    ] {
        receiver.does(Some(fault.clone()));
        let began = Instant::now();
        spend(&story, &ada, 1).await;
        story.workers.deliver_webhooks().await;
        assert!(began.elapsed().as_secs() < 10, "{fault:?}");
        let heard = receiver.take();
        assert_eq!(heard.len(), 1, "{fault:?}");
        assert_eq!(good.take_types(), ["credits.spent"], "{fault:?} is no matter of others");
        let [waiting] = &endpoint.deliveries(&story, &admin, "?state=waiting").await[..] else { panic!() };
        assert_eq!((&waiting["attempts"], &waiting["eventId"]), (&json!(1), &json!(heard[0].id())));
        assert!(waiting["lastError"].as_str().unwrap().starts_with(error), "{waiting}");
        assert!(waiting["nextAttemptAt"].is_string());
        let shown = endpoint.shown(&story, &admin).await;
        assert!(shown["failingSince"].is_string() && shown["waiting"] == 1, "{shown}");

        story.workers.deliver_webhooks().await;
        assert_eq!(receiver.take().len(), 0, "not before its time");
        receiver.does(None);
        story.clock.advance(Duration::seconds(20));
        story.workers.deliver_webhooks().await;
        let again = receiver.take();
        assert_eq!((again.len(), again[0].id(), &again[0].body), (1, heard[0].id(), &heard[0].body));
        assert!(again[0].is_signed_by(&endpoint.secret, story.clock.now().unix_timestamp()));
        let shown = endpoint.shown(&story, &admin).await;
        assert!(shown["failingSince"].is_null() && shown["lastSuccessAt"].is_string(), "{shown}");
    }
    assert_eq!(elsewhere.take().len(), 0);
    // A head says all: what comes after it is not waited for, however long it is, though there were time.
    let patient = story.replica_with(|settings| settings.webhook_timeout_seconds = 30).await;
    for fault in [Fault::Huge, Fault::Drip, Fault::Garbage] {
        receiver.does(Some(fault.clone()));
        spend(&story, &ada, 1).await;
        let began = Instant::now();
        patient.workers.deliver_webhooks().await;
        assert!(began.elapsed().as_secs() < 20, "{fault:?}");
        assert_eq!(receiver.take().len(), 1, "{fault:?}");
        assert_eq!(
            endpoint.deliveries(&story, &admin, "?state=waiting").await,
            Vec::<Value>::new(),
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn an_endpoint_that_closes_or_is_not_there_is_tried_again() {
    let story = Story::with(local).await;
    let (admin, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let closing = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/", closing.local_addr().unwrap().port());
    let accepting = tokio::spawn(async move {
        while let Ok((connection, _)) = closing.accept().await {
            drop(connection);
        }
    });
    let endpoint = add(&story, &admin, "chat", json!({"url": url, "events": ["credits.spent"]})).await;
    spend(&story, &ada, 1).await;
    story.workers.deliver_webhooks().await;
    accepting.abort();
    let _ = accepting.await;
    story.clock.advance(Duration::minutes(1));
    story.workers.deliver_webhooks().await;
    let [waiting] = &endpoint.deliveries(&story, &admin, "").await[..] else { panic!() };
    assert_eq!(
        (&waiting["state"], &waiting["attempts"], &waiting["lastStatus"]),
        (&json!("waiting"), &json!(2), &Value::Null)
    );
}

#[tokio::test]
async fn nothing_is_sent_to_what_is_not_of_the_public_internet() {
    let story = Story::with(|settings| settings.webhook_timeout_seconds = 1).await;
    let (admin, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let receiver = Receiver::start().await;
    let port = receiver.url.rsplit(':').next().unwrap().trim_end_matches("/hooks").to_owned();
    for url in [
        receiver.url.as_str(),
        &format!("https://127.0.0.1:{port}/"),
        "https://[::1]/",
        "https://0x7f000001/",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "http://hooks.example.com/",
        "http://localhost/",
        "https://user:password@hooks.example.com/",
        "file:///etc/passwd",
        "hooks.example.com",
        "javascript:alert(1)",
    ] {
        let refused = try_to_add(&story, &admin, "chat", &json!({"url": url, "events": ALL})).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (400, "webhook.url_refused"), "{url}");
    }
    // A name says nothing yet; what it leads to is looked at before it is connected to.
    let url = format!("https://localhost:{port}/");
    let endpoint = add(&story, &admin, "chat", json!({"url": url, "events": ["credits.spent"]})).await;
    spend(&story, &ada, 1).await;
    story.workers.deliver_webhooks().await;
    let [waiting] = &endpoint.deliveries(&story, &admin, "").await[..] else { panic!() };
    assert!(waiting["state"] == "waiting" && waiting["lastStatus"].is_null(), "{waiting}");
    // Nor does what was allowed when it was added stay so.
    story.execute("UPDATE auth.webhook_endpoints SET url = replace(url, 'https://localhost', 'http://127.0.0.1'), busy_until = '-infinity'").await;
    story.clock.advance(Duration::minutes(1));
    story.workers.deliver_webhooks().await;
    assert_eq!(receiver.take().len(), 0);
    let shown = endpoint.shown(&story, &admin).await;
    assert!(shown["lastError"].as_str().unwrap().contains("public internet"), "{shown}");
    // The control: a server that may go there does.
    let other = story.replica_with(local).await;
    story.clock.advance(Duration::minutes(5));
    other.workers.deliver_webhooks().await;
    assert_eq!(receiver.take_types(), ["credits.spent"]);
}

#[tokio::test]
async fn what_was_committed_is_told_though_the_server_dies() {
    let (story, receiver, admin, ada, endpoint) = with_listener().await;
    spend(&story, &ada, 1).await;
    // It dies before it has told anything: another does.
    let other = story.replica_with(|_| {}).await;
    other.workers.deliver_webhooks().await;
    assert_eq!(receiver.take_types(), ["credits.spent"]);
    // It dies while the endpoint thinks: nobody else interferes until its lease is over.
    receiver.does(Some(Fault::Silence));
    spend(&story, &ada, 1).await;
    let workers = story.workers.clone();
    let telling = tokio::spawn(async move { workers.deliver_webhooks().await });
    while receiver.take().is_empty() {
        tokio::task::yield_now().await;
    }
    telling.abort();
    assert!(telling.await.unwrap_err().is_cancelled());
    receiver.does(None);
    other.workers.deliver_webhooks().await;
    assert_eq!(receiver.take().len(), 0);
    story.clock.advance(Duration::minutes(2));
    other.workers.deliver_webhooks().await;
    assert_eq!(receiver.take_types(), ["credits.spent"]);
    assert!(endpoint.deliveries(&story, &admin, "?state=waiting").await.is_empty());
}

#[tokio::test]
async fn two_servers_tell_each_event_once() {
    let (story, receiver, _, ada, _) = with_listener().await;
    let other = story.replica_with(|_| {}).await;
    join_all((0..40).map(|_| spend(&story, &ada, 1))).await;
    let passes = (0..6).map(|number| if number % 2 == 0 { &story.workers } else { &other.workers });
    join_all(passes.map(Workers::deliver_webhooks)).await;
    story.workers.deliver_webhooks().await;
    let heard = receiver.take();
    let ids: BTreeSet<_> = heard.iter().map(Heard::id).collect();
    assert_eq!((heard.len(), ids.len()), (40, 40));
}

#[tokio::test]
async fn a_secret_follows_another_without_a_gap() {
    let (story, receiver, admin, ada, endpoint) = with_listener().await;
    let rotated = endpoint.ask(&story, &admin, "rotate-secret", json!({})).await;
    assert_eq!(rotated.status, 200, "{}", rotated.json);
    let new = rotated.text("/secret").to_owned();
    assert_ne!(new, endpoint.secret);
    let told = async || {
        spend(&story, &story.sign_in("ada@example.com").await, 1).await;
        story.workers.deliver_webhooks().await;
        receiver.take().into_iter().find(|heard| heard.event["type"] == "credits.spent").unwrap()
    };
    let now = || story.clock.now().unix_timestamp();
    let both = told().await;
    assert!(both.is_signed_by(&endpoint.secret, now()) && both.is_signed_by(&new, now()));
    assert_eq!(both.signature.matches("v1=").count(), 2);
    story.clock.advance(Duration::hours(25));
    let after = told().await;
    assert!(!after.is_signed_by(&endpoint.secret, now()) && after.is_signed_by(&new, now()));
    assert_eq!(after.signature.matches("v1=").count(), 1);
    // One that has leaked is not used any more.
    let admin = story.sign_in("root@example.com").await;
    let newest = endpoint.ask(&story, &admin, "rotate-secret", json!({"overlapHours": 0})).await;
    let at_once = told().await;
    assert!(!at_once.is_signed_by(&new, now()) && at_once.is_signed_by(newest.text("/secret"), now()));
    story.workers.prune().await;
    assert_eq!(story.number("SELECT count(*) FROM auth.webhook_secrets").await, 1);
    for hours in [-1, 169] {
        let refused = endpoint.ask(&story, &admin, "rotate-secret", json!({"overlapHours": hours})).await;
        assert_eq!(refused.status, 400, "{hours}");
    }
    drop(ada);
}

#[tokio::test]
async fn an_operator_has_an_endpoint_told_again() {
    let (story, receiver, admin, ada, endpoint) = with_listener().await;
    let from = story.clock.now();
    for amount in 1..=3 {
        spend(&story, &ada, amount).await;
        story.clock.advance(Duration::seconds(10));
    }
    story.workers.deliver_webhooks().await;
    let heard = receiver.take();
    let [first, second, third] = &heard[..] else { panic!("{heard:?}") };
    let replay = async |body: Value| {
        let replayed = endpoint.ask(&story, &admin, "replay", body.clone()).await;
        assert_eq!(replayed.status, 200, "{body} {}", replayed.json);
        let count = replayed.integer("/replayed");
        story.workers.deliver_webhooks().await;
        (count, receiver.take())
    };
    let (count, again) = replay(json!({"eventIds": [second.id()]})).await;
    assert_eq!((count, again[0].id(), &again[0].body), (1, second.id(), &second.body));
    let written =
        |at: time::OffsetDateTime| at.format(&time::format_description::well_known::Rfc3339).unwrap();
    let (start, end) = (written(from + Duration::seconds(5)), written(from + Duration::seconds(15)));
    assert_eq!(replay(json!({"from": start, "to": end})).await.0, 0, "it has taken all of it");
    let (count, again) = replay(json!({"from": start, "to": end, "includesDelivered": true})).await;
    assert_eq!((count, again[0].id()), (1, second.id()));
    let (count, again) = replay(json!({"from": written(from), "includesDelivered": true})).await;
    let ids: BTreeSet<_> = again.iter().map(Heard::id).collect();
    assert_eq!((count, ids), (3, BTreeSet::from([first.id(), second.id(), third.id()])));
    let nobodys = "00000000-0000-7000-8000-000000000000";
    assert_eq!(replay(json!({"eventIds": [nobodys]})).await.0, 0);
    for bad in [
        json!({}),
        json!({"to": end}),
        json!({"from": start, "eventIds": [nobodys]}),
        json!({"eventIds": vec![nobodys; 101]}),
    ] {
        let refused = endpoint.ask(&story, &admin, "replay", bad.clone()).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (400, "webhook.nothing_named"), "{bad}");
    }
    for bad in [
        json!({"eventIds": ["x"]}),
        json!({"eventIds": [1]}),
        json!({"from": "yesterday"}),
        json!({"from": "9999-12-31T23:59:59-01:00"}),
        json!({"from": start, "to": "9999-12-31T23:59:59-01:00"}),
    ] {
        assert_eq!(endpoint.ask(&story, &admin, "replay", bad.clone()).await.status, 400, "{bad}");
    }
    // An endpoint that was added later is told of what another one heard of.
    let late = Receiver::start().await;
    let added =
        add(&story, &admin, "chat", json!({"url": late.url, "events": ["credits.spent"], "spentFrom": 2}))
            .await;
    let replayed = added.ask(&story, &admin, "replay", json!({"from": written(from)})).await;
    assert_eq!(replayed.integer("/replayed"), 2);
    story.workers.deliver_webhooks().await;
    assert_eq!(late.take().len(), 2);
}

#[tokio::test]
async fn deliveries_are_listed_page_by_page() {
    let (story, receiver, admin, ada, endpoint) = with_listener().await;
    for _ in 0..5 {
        spend(&story, &ada, 1).await;
        story.clock.advance(Duration::milliseconds(2));
    }
    story.workers.deliver_webhooks().await;
    let mut told: Vec<_> = receiver.take().iter().map(|heard| heard.id().to_owned()).collect();
    told.sort();
    told.reverse();
    let (mut path, mut seen) = (format!("{}/deliveries?limit=2&state=delivered", endpoint.path), Vec::new());
    loop {
        let page = story.get(&path, &admin).await;
        seen.extend(
            page.json.as_array().unwrap().iter().map(|one| one["eventId"].as_str().unwrap().to_owned()),
        );
        let Some(link) = page.headers.get("link") else { break };
        path = link.to_str().unwrap()[1..].split('>').next().unwrap().to_owned();
    }
    assert_eq!(seen, told);
    for bad in ["?limit=0", "?limit=201", "?state=x", "?cursor=x", "?cursor=AAAA"] {
        assert_eq!(
            story.get(&format!("{}/deliveries{bad}", endpoint.path), &admin).await.status,
            400,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_for_days_is_told_nothing_more_until_somebody_has_seen_to_it() {
    let (story, receiver, admin, ada, endpoint) = with_listener().await;
    receiver.does(Some(Fault::Status(503)));
    spend(&story, &ada, 1).await;
    let mut attempts = 0;
    for _ in 0..80 {
        story.workers.deliver_webhooks().await;
        attempts += receiver.take().len();
        story.clock.advance(Duration::hours(1));
    }
    assert!((15..=22).contains(&attempts), "{attempts}");
    let admin = User { access_token: story.sign_in(&admin.email).await.access_token, ..admin };
    let shown = endpoint.shown(&story, &admin).await;
    assert!(shown["disabledAt"].is_string() && shown["lastError"] == "it answers 503", "{shown}");
    // What happens meanwhile waits, and nobody is bothered.
    spend(&story, &story.sign_in(&ada.email).await, 2).await;
    story.workers.deliver_webhooks().await;
    story.workers.measure_webhooks().await;
    assert_eq!(receiver.take().len(), 0);
    receiver.does(None);
    story.clock.advance(Duration::hours(7));
    story.workers.deliver_webhooks().await;
    assert_eq!(receiver.take().len(), 0);
    let admin = User { access_token: story.sign_in(&admin.email).await.access_token, ..admin };
    assert_eq!(endpoint.ask(&story, &admin, "enable", json!({})).await.status, 204);
    story.workers.deliver_webhooks().await;
    let amounts: BTreeSet<_> =
        receiver.take().iter().filter_map(|heard| heard.event["data"]["amount"].as_i64()).collect();
    assert_eq!(amounts, BTreeSet::from([1, 2]));
    let shown = endpoint.shown(&story, &admin).await;
    assert!(shown["disabledAt"].is_null() && shown["waiting"] == 0, "{shown}");
}

#[tokio::test]
async fn an_event_that_an_endpoint_never_takes_is_given_up_and_seen() {
    let (story, receiver, admin, ada, endpoint) = with_listener().await;
    spend(&story, &ada, 1).await;
    story.execute("UPDATE auth.webhook_deliveries SET attempts = 21").await;
    receiver.does(Some(Fault::Status(422)));
    story.workers.deliver_webhooks().await;
    let [dead] = &endpoint.deliveries(&story, &admin, "?state=dead").await[..] else { panic!() };
    assert_eq!(
        (&dead["attempts"], &dead["lastStatus"], &dead["nextAttemptAt"]),
        (&json!(22), &json!(422), &Value::Null)
    );
    assert_eq!(endpoint.shown(&story, &admin).await["dead"], 1);
    receiver.take();
    receiver.does(None);
    story.clock.advance(Duration::minutes(9));
    story.workers.deliver_webhooks().await;
    assert_eq!(receiver.take().len(), 0);
    let event = dead["eventId"].clone();
    assert_eq!(
        endpoint.ask(&story, &admin, "replay", json!({"eventIds": [event]})).await.integer("/replayed"),
        1
    );
    story.workers.deliver_webhooks().await;
    assert_eq!(receiver.take().len(), 1);
}

#[tokio::test]
async fn only_administrators_see_endpoints_and_only_those_of_the_app_they_ask_for() {
    let (story, receiver, admin, ada, endpoint) = with_listener().await;
    let foreign = Endpoint { path: endpoint.path.replace("/chat/", "/maps/"), secret: String::new() };
    let body = json!({"url": receiver.url, "events": ALL});
    assert_eq!(try_to_add(&story, &ada, "chat", &body).await.problem(), "auth.admin_required");
    let all = [
        ("GET", "/deliveries", Value::Null),
        ("POST", "/rotate-secret", json!({})),
        ("POST", "/enable", json!({})),
        ("POST", "/replay", json!({"from": "2026-01-01T00:00:00Z"})),
        ("DELETE", "", Value::Null),
    ];
    for (method, verb, body) in all {
        for (path, user, problem) in [
            (&foreign.path, &admin, "webhook.not_found"),
            (&endpoint.path, &ada, "auth.admin_required"),
            (&format!("{BASE}/chat/webhooks/not-an-id"), &admin, "webhook.not_found"),
            (
                &format!("{BASE}/chat/webhooks/00000000-0000-7000-8000-000000000000"),
                &admin,
                "webhook.not_found",
            ),
            (
                &format!("{BASE}/a%00b/webhooks/00000000-0000-7000-8000-000000000000"),
                &admin,
                "webhook.not_found",
            ),
        ] {
            let request = story.client.request(method.parse().unwrap(), &format!("{path}{verb}"));
            let request =
                if body.is_null() { request } else { request.body("application/json", body.to_string()) };
            let refused = request.bearer(&user.access_token).send().await;
            assert_eq!(refused.problem(), problem, "{method} {path}{verb}");
        }
    }
    assert_eq!(story.get(&format!("{BASE}/maps/webhooks"), &admin).await.json, json!([]));
    let listed = story.get(&format!("{BASE}/chat/webhooks"), &admin).await;
    assert_eq!(listed.json[0]["events"], json!(ALL));
    assert_eq!(listed.json[0]["createdBy"], json!(admin.id));
    assert!(!String::from_utf8_lossy(&listed.bytes).contains("mana_whsec_"), "told once");

    // What gives away a secret asks for a proof that is fresh.
    story.clock.advance(Duration::minutes(11));
    assert_eq!(
        try_to_add(&story, &admin, "chat", &body).await.problem(),
        "auth.fresh_authentication_required"
    );
    let rotation = endpoint.ask(&story, &admin, "rotate-secret", json!({})).await;
    assert_eq!(rotation.problem(), "auth.fresh_authentication_required");
    let admin = story.sign_in(&admin.email).await;
    for number in 2..=10 {
        add(
            &story,
            &admin,
            "chat",
            json!({"url": format!("{}/{number}", receiver.url), "events": ["user.deleted"]}),
        )
        .await;
    }
    let refused = try_to_add(&story, &admin, "chat", &body).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (409, "webhook.too_many"));
    spend(&story, &story.sign_in(&ada.email).await, 1).await;
    let removal = story.client.request(Method::DELETE, &endpoint.path).bearer(&admin.access_token);
    assert_eq!(removal.send().await.status, 204);
    story.workers.deliver_webhooks().await;
    assert_eq!(receiver.take().len(), 0);
    for rows in [
        "SELECT count(*) FROM auth.webhook_deliveries WHERE state <> 'waiting'",
        "SELECT count(*) FROM auth.webhook_deliveries",
    ] {
        assert_eq!(story.number(rows).await, 0);
    }
    let events = story.get("/api/v1/admin/security-events?type=webhook_removed", &admin).await;
    assert_eq!(events.json[0]["detail"], json!(endpoint.path.rsplit('/').next().unwrap()));
}

#[tokio::test]
async fn ten_at_once_are_as_many_as_one_after_the_other() {
    let story = Story::with(local).await;
    let admin = story.administrator("root@example.com").await;
    let other = story.replica().await;
    let body = json!({"url": "https://hooks.example.com/", "events": ["user.deleted"]});
    let ask = async |client: &Client| {
        let request = client.post(&format!("{BASE}/chat/webhooks"), &body).bearer(&admin.access_token);
        request.send().await.status.as_u16()
    };
    let clients = (0..16).map(|number| if number % 2 == 0 { &story.client } else { &other });
    let statuses = join_all(clients.map(ask)).await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 10, "{statuses:?}");
}

#[tokio::test]
async fn secrets_are_sealed_and_a_replaced_root_secret_is_left_out() {
    let (story, receiver, _, ada, endpoint) = with_listener().await;
    let sealed: Vec<u8> = sqlx::query_scalar("SELECT sealed FROM auth.webhook_secrets")
        .fetch_one(&mut story.database.owner().await)
        .await
        .unwrap();
    assert!(!hex(&sealed).contains(&hex(&endpoint.secret.as_bytes()[11..])));
    let next = RootSecrets::generate("next", &SystemRng).expose_secret().to_owned();
    let both = SecretString::from(format!("{next},{}", story.root_secret().expose_secret()));
    let next = SecretString::from(next);
    let rekey = async |secrets: &SecretString| {
        let secrets = RootSecrets::parse(secrets).unwrap();
        rekey_webhook_secrets(&story.database.service(), &secrets, &SystemRng).await.unwrap()
    };
    assert_eq!(rekey(&next).await, Resealed { resealed: 0, closed: 1 });
    assert_eq!(rekey(&both).await, Resealed { resealed: 1, closed: 0 });
    assert_eq!(rekey(&next).await, Resealed::default(), "done already");
    story.key_chest(&both).rekey().await.unwrap();
    spend(&story, &ada, 1).await;
    // The old secret opens it no more, and says so without saying what it is.
    story.workers.deliver_webhooks().await;
    assert_eq!(receiver.take().len(), 0);
    let replica = story.start(|_| {}, &next).await.unwrap();
    story.clock.advance(Duration::minutes(1));
    replica.workers.deliver_webhooks().await;
    let heard = receiver.take();
    assert!(heard[0].is_signed_by(&endpoint.secret, story.clock.now().unix_timestamp()));
    let said: String = sqlx::query_scalar(
        "SELECT coalesce(string_agg(event.body, '') || string_agg(coalesce(delivery.last_error, ''), ''), '')
         FROM auth.webhook_deliveries delivery JOIN auth.webhook_events event ON event.id = event_id",
    )
    .fetch_one(&mut story.database.owner().await)
    .await
    .unwrap();
    assert!(!said.contains("mana_whsec_"));
}

#[tokio::test]
async fn events_are_kept_for_thirty_days() {
    let (story, receiver, _, ada, _) = with_listener().await;
    receiver.does(Some(Fault::Status(500)));
    spend(&story, &ada, 1).await;
    story.workers.deliver_webhooks().await;
    let rows =
        "SELECT (SELECT count(*) FROM auth.webhook_events) + (SELECT count(*) FROM auth.webhook_deliveries)";
    story.clock.advance(Duration::days(29));
    story.workers.prune().await;
    assert_eq!(story.number(rows).await, 2);
    story.clock.advance(Duration::days(2));
    story.workers.prune().await;
    assert_eq!(story.number(rows).await, 0);
    // A delivery whose event is gone keeps nobody busy.
    story.execute("INSERT INTO auth.webhook_deliveries (endpoint_id, event_id, state, next_attempt_at) SELECT id, gen_random_uuid(), 'waiting', '-infinity' FROM auth.webhook_endpoints").await;
    story.clock.advance(Duration::hours(2));
    receiver.take();
    story.workers.deliver_webhooks().await;
    assert_eq!((story.number(rows).await, receiver.take().len()), (0, 0));
}

/// Leaves a row of the user in the table of events.
pub(crate) async fn leave_rows(story: &Story, user: &User) {
    for sql in [
        "INSERT INTO auth.webhook_events (id, type, user_id, body, created_at) VALUES (gen_random_uuid(), 'user.deleted', $1, '{}', now())",
        "INSERT INTO credits.low_balance_notices (user_id, below, available, language, created_at) VALUES ($1, 2, 1, 'en', now())",
    ] {
        sqlx::query(sql).bind(&user.id).execute(&mut story.database.owner().await).await.unwrap();
    }
}
