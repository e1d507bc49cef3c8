//! What administrators do to accounts: only they, only while they are, and never without a trace.

use crate::credits::books_are_true;
use crate::story::{PASSWORD, Story, User, about, let_go, members, read_jwt, spend_of};
use crate::surface::{self, Operation, stored};
use crate::till::Shop;
use crate::{passkeys, two_factor, webhooks};
use futures_util::future::join_all;
use http::Method;
use mana_auth::service_key;
use mana_auth::token::root_secret::RootSecrets;
use mana_auth::webhook::{self, OverlapHours, ReplayRequest};
use mana_kernel::{Clock, Rng};
use mana_platform::{Outbound, SystemRng};
use mana_testkit::{Client, Reply, Request};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use time::Duration;
use time::format_description::well_known::Rfc3339;

const USERS: &str = "/api/v1/admin/users";
const EVENTS: &str = "/api/v1/admin/security-events";

fn because() -> Value {
    json!({"reason": "Ticket 17"})
}

fn act_request(client: &Client, admin: &User, user: &str, act: &str) -> Request {
    client.post(&format!("{USERS}/{user}/{act}"), &because()).bearer(&admin.access_token)
}

async fn act(story: &Story, admin: &User, user: &User, act: &str) -> Reply {
    act_request(&story.client, admin, &user.id, act).send().await
}

async fn end_sessions(story: &Story, admin: &User, user: &str) -> Reply {
    let request = story.client.request(Method::DELETE, &format!("{USERS}/{user}"));
    request.bearer(&admin.access_token).send().await
}

async fn adjust(story: &Story, admin: &User, user: &User, direction: &str, amount: i64) -> Reply {
    let body = json!({"amount": amount, "reason": "Ticket 17"});
    let path = format!("{USERS}/{}/credits/{direction}", user.id);
    story.client.post(&path, &body).bearer(&admin.access_token).send().await
}

fn refusal(reply: &Reply) -> (u16, &str) {
    (reply.status.as_u16(), reply.problem())
}

/// The types of what others did to a user's account, with who did it; sorted, as the clock of a story stands still.
async fn acts_on(story: &Story, admin: &User, user: &User) -> Vec<(String, Value)> {
    let events = story.get(&format!("{EVENTS}?userId={}", user.id), admin).await;
    assert_eq!(events.status, 200, "{}", events.json);
    let told = |event: &Value| (event["type"].as_str().unwrap().to_owned(), event["actorId"].clone());
    let acts = events.json.as_array().unwrap().iter().filter(|event| !event["actor"].is_null());
    let mut acts: Vec<_> = acts.map(told).collect();
    acts.sort_by_key(|(kind, _)| kind.clone());
    acts
}

fn by(admin: &User, kinds: &[&str]) -> Vec<(String, Value)> {
    let mut kinds = kinds.to_vec();
    kinds.sort_unstable();
    kinds.iter().map(|kind| ((*kind).to_owned(), json!(admin.id))).collect()
}

/// The next address of a list.
fn next(reply: &Reply) -> Option<String> {
    let link = reply.headers.get("link")?.to_str().unwrap();
    Some(link.strip_prefix('<').unwrap().split_once(">; rel=\"next\"").unwrap().0.to_owned())
}

/// All pages of a list.
async fn pages(story: &Story, admin: &User, first: &str) -> Vec<Vec<Value>> {
    let (mut pages, mut at) = (Vec::new(), Some(first.to_owned()));
    while let Some(path) = at {
        let page = story.get(&path, admin).await;
        assert_eq!(page.status, 200, "{path}: {}", page.json);
        at = next(&page);
        pages.push(page.json.as_array().unwrap().clone());
        assert!(pages.len() < 100, "{path} leads nowhere");
    }
    pages
}

#[tokio::test]
async fn whoever_is_no_administrator_now_is_refused_by_every_operation_and_learns_and_changes_nothing() {
    let story = surface::with_service_key().await;
    let ada = story.administrator("ada@example.com").await;
    let expired = story.sign_in(&ada.email).await;
    story.clock.advance(Duration::seconds(901));
    let ada = story.sign_in(&ada.email).await;
    let (bob, eve) = (story.user("bob@example.com").await, story.user("eve@example.com").await);
    // Each with a token that says admin.
    let mut once = Vec::new();
    for email in ["demoted@example.com", "disabled@example.com", "gone@example.com"] {
        let admin = story.administrator(email).await;
        let admin = story.sign_in(&admin.email).await;
        assert_eq!(read_jwt(&admin.access_token)[1]["role"], "admin");
        once.push(admin);
    }
    let [demoted, disabled, gone] = [&once[0], &once[1], &once[2]];
    story.set_role(demoted, "user").await;
    story.execute("UPDATE auth.users SET disabled_at = now() WHERE email = 'disabled@example.com'").await;
    story.workers.follow_ended_sessions().await;
    assert_eq!(
        story.client.post("/api/v1/auth/logout", &json!({})).bearer(&gone.access_token).send().await.status,
        200
    );
    assert!(story.is_signed_in(demoted).await, "the token itself is good");

    let document = surface::document();
    let all = surface::operations(&document);
    let operations: Vec<_> = all.iter().filter(|operation| operation.path.contains("/admin/")).collect();
    assert!(operations.len() >= 15, "{}", operations.len());
    let before = stored(&story).await;
    let no_admin = (403, "auth.admin_required");
    let nobody = (401, "auth.unauthenticated");
    for operation in &operations {
        let path = |user: &str| operation.path.replace("{userId}", user).replace("{id}", "no-such-thing");
        let body = operation.body.as_ref().map(|schema| surface::sample(&document, schema));
        let request = |user: &str| {
            let request = story.client.request(operation.method.clone(), &path(user));
            match &body {
                Some(body) => request.body("application/json", body.to_string()),
                None => request,
            }
        };
        for (who, attempt, expected) in [
            ("nobody", request(&bob.id), nobody),
            ("an expired token", request(&bob.id).bearer(&expired.access_token), nobody),
            ("an ended session", request(&bob.id).bearer(&gone.access_token), nobody),
            ("a disabled administrator", request(&bob.id).bearer(&disabled.access_token), nobody),
            ("an app", request(&bob.id).header("x-service-key", surface::KEY), nobody),
            ("a user", request(&bob.id).bearer(&eve.access_token), no_admin),
            ("the user itself", request(&bob.id).bearer(&bob.access_token), no_admin),
            ("a demoted administrator", request(&bob.id).bearer(&demoted.access_token), no_admin),
        ] {
            let refused = attempt.send().await;
            assert_eq!(refusal(&refused), expected, "{} {} by {who}", operation.method, operation.path);
        }
        let mut there = request(&bob.id).bearer(&eve.access_token).send().await;
        let mut absent = request("no-such-user").bearer(&eve.access_token).send().await;
        for reply in [&mut there, &mut absent] {
            reply.json["instance"] = Value::Null;
        }
        assert_eq!(there.json, absent.json, "{}: not yours and absent look alike", operation.path);
        assert!(stored(&story).await == before, "{} {} had an effect", operation.method, operation.path);
    }
    for operation in operations {
        let path = operation.path.replace("{userId}", &bob.id).replace("{id}", "no-such-thing");
        let mut request = story.client.request(operation.method.clone(), &path).bearer(&ada.access_token);
        if let Some(schema) = &operation.body {
            request = request.body("application/json", surface::sample(&document, schema).to_string());
        }
        let control = request.send().await;
        let is_refused = [401, 403].contains(&control.status.as_u16());
        assert!(!is_refused && !control.status.is_server_error(), "the control: {path} {}", control.json);
    }
}

#[tokio::test]
async fn users_are_found_by_address_id_role_and_state_page_by_page() {
    let story = Story::new().await;
    let root = story.administrator("root@example.com").await;
    let mut ada = None;
    for name in ["ada", "adam", "bob", "Ada-Lovelace", "a_b", "a%b"] {
        let user = story.user(&format!("{name}@example.com")).await;
        ada = ada.or(Some(user));
    }
    let ada = ada.unwrap();
    story.execute("UPDATE auth.users SET disabled_at = now() WHERE email = 'bob@example.com'").await;
    let found = async |query: &str| -> Vec<String> {
        let pages = pages(&story, &root, &format!("{USERS}?{query}")).await;
        pages
            .concat()
            .iter()
            .map(|user| user["email"].as_str().unwrap().replace("@example.com", ""))
            .collect()
    };
    let everybody = ["a%b", "a_b", "ada-lovelace", "ada", "adam", "bob", "root"];
    for (query, expected) in [
        ("", &everybody[..]),
        ("limit=1", &everybody),
        ("limit=3", &everybody),
        ("limit=7", &everybody),
        ("email=ad&limit=2", &["ada-lovelace", "ada", "adam"]),
        ("email=ADA%40", &["ada"]),
        ("email=a_", &["a_b"]),
        ("email=a%25", &["a%b"]),
        ("email=zed", &[]),
        ("role=admin", &["root"]),
        ("role=user&state=active&limit=2", &["a%b", "a_b", "ada-lovelace", "ada", "adam"]),
        ("role=service", &[]),
        ("state=disabled", &["bob"]),
        (&format!("id={}", ada.id), &["ada"]),
        (&format!("id={}&email=b", ada.id), &[]),
        ("id=nobody", &[]),
    ] {
        assert_eq!(found(query).await, expected, "{query}");
    }
    let page = story.get(&format!("{USERS}?email=bob"), &root).await;
    let expected =
        ["createdAt", "deletedAt", "disabledAt", "email", "emailVerified", "id", "image", "name", "role"];
    assert_eq!(members(&page.json[0]), expected);
    assert!(page.json[0]["disabledAt"].is_string() && next(&page).is_none());
    for bad in [
        "limit=0",
        "limit=-1",
        "limit=201",
        "limit=x",
        "role=king",
        "state=asleep",
        "id=a%20b",
        "cursor=*",
        "cursor=AA",
        "cursor=_w",
        "email=%00",
        &format!("email={}", "a".repeat(255)),
    ] {
        let refused = story.get(&format!("{USERS}?{bad}"), &root).await;
        assert_eq!(refusal(&refused), (400, "request.invalid_query"), "{bad}");
    }
}

#[tokio::test]
async fn one_user_is_shown_with_factors_sessions_and_wallet() {
    let story = Story::new().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    assert_eq!(story.spend(&ada, &spend_of(30)).await.status, 201);
    two_factor::set_up(&story, ada.clone()).await;
    let shown = story.get(&format!("{USERS}/{}", ada.id), &root).await;
    assert_eq!(shown.status, 200, "{}", shown.json);
    assert_eq!((shown.text("/email"), shown.text("/role")), ("ada@example.com", "user"));
    assert_eq!(
        shown.json["factors"],
        json!({"password": true, "totp": true, "passkey": false, "recoveryCodesLeft": 10})
    );
    assert_eq!(shown.integer("/liveSessions"), 1);
    assert_eq!(
        shown.json["wallet"],
        json!({"balance": 0, "freeCreditsRemaining": 120, "heldCredits": 0, "totalEarned": 0, "totalSpent": 30})
    );
    let text = String::from_utf8_lossy(&shown.bytes).into_owned();
    assert!(!text.contains("argon2") && !text.to_lowercase().contains("hash"), "{text}");
    for nobody in ["no-such-user", "a%20b", "%00"] {
        let absent = story.get(&format!("{USERS}/{nobody}"), &root).await;
        assert_eq!(refusal(&absent), (404, "admin.user_not_found"), "{nobody}");
    }
}

#[tokio::test]
async fn a_disabled_account_is_out_everywhere_at_once_and_comes_back_with_nothing_it_had() {
    let story = Story::new().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let phone = story.sign_in("ada@example.com").await;
    assert!(story.is_signed_in(&ada).await && story.is_signed_in(&phone).await, "remembered as alive");
    let disabled = act(&story, &root, &ada, "disable").await;
    assert_eq!(disabled.status, 200, "{}", disabled.json);
    assert!(disabled.json["disabledAt"].is_string());
    let is_out = async |user: &User| {
        !story.is_signed_in(user).await
            && story.refresh(&user.refresh_token).await.status == 401
            && story.spend(user, &spend_of(1)).await.status == 401
            && story
                .client
                .get("/api/auth/get-session")
                .header("cookie", &user.cookie)
                .send()
                .await
                .json
                .is_null()
    };
    assert!(is_out(&ada).await && is_out(&phone).await);
    assert_eq!(refusal(&story.login("ada@example.com").await), (401, "auth.account_disabled"));
    let wrong = json!({"email": "ada@example.com", "password": "something else"});
    let wrong = story.post("/api/v1/auth/login", &wrong).await;
    assert_eq!(refusal(&wrong), (401, "auth.invalid_credentials"), "told only after the right password");

    assert_eq!(act(&story, &root, &ada, "disable").await.status, 200, "once more changes nothing");
    let enabled = act(&story, &root, &ada, "enable").await;
    assert!(enabled.status == 200 && enabled.json["disabledAt"].is_null(), "{}", enabled.json);
    assert_eq!(act(&story, &root, &ada, "enable").await.status, 200);
    assert!(is_out(&ada).await && is_out(&phone).await, "what was ended stays so");
    let back = story.sign_in("ada@example.com").await;
    assert!(story.is_signed_in(&back).await, "the control");
    assert_eq!(
        acts_on(&story, &root, &ada).await,
        by(&root, &["account_enabled", "account_disabled", "session_revoked", "session_revoked"])
    );
}

#[tokio::test]
async fn an_act_is_seen_by_administrators_with_its_actor_and_by_its_user_as_an_administrator_s() {
    let story = Story::new().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let request = act_request(&story.client, &root, &ada.id, "disable").header("user-agent", "Office/1");
    let done = request.send().await;
    assert_eq!(done.status, 200);
    assert_eq!(act(&story, &root, &ada, "enable").await.status, 200);
    let ada = story.sign_in("ada@example.com").await;

    let seen = story.get(&format!("{EVENTS}?type=account_disabled"), &root).await;
    let event = &seen.json[0];
    assert_eq!(
        [&event["userId"], &event["actor"], &event["actorId"], &event["reason"], &event["userAgent"]],
        [&json!(ada.id), &json!("administrator"), &json!(root.id), &json!("Ticket 17"), &json!("Office/1")]
    );
    assert_eq!(event["requestId"], done.headers["x-request-id"].to_str().unwrap());

    let own = story.get("/api/v1/auth/security-events", &ada).await;
    let text = String::from_utf8_lossy(&own.bytes).into_owned();
    for hidden in [&root.id, "root@example.com", "Ticket 17", "Office/1"] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    let events = own.json.as_array().unwrap();
    let shut = events.iter().find(|event| event["type"] == "account_disabled").unwrap();
    assert_eq!([&shut["actor"], &shut["ipAddress"]], [&json!("administrator"), &json!(null)]);
    let signed_in = events.iter().find(|event| event["type"] == "signed_in").unwrap();
    assert!(signed_in["actor"].is_null() && signed_in["ipAddress"].is_string(), "{signed_in}");

    let user_id = ada.id.parse().unwrap();
    for column in ["actor_id", "reason"] {
        let mut as_ada = story.database.service().begin_as(&user_id).await.unwrap();
        let query = sqlx::AssertSqlSafe(format!("SELECT {column} FROM auth.security_events"));
        assert!(sqlx::query(query).execute(&mut *as_ada).await.is_err(), "{column}");
    }
}

#[tokio::test]
async fn an_account_that_an_administrator_deletes_is_erased_for_good() {
    let story = Story::new().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let deleted = act(&story, &root, &ada, "delete").await;
    assert_eq!(deleted.status, 200, "{}", deleted.json);
    assert!(deleted.text("/email").starts_with("deleted:") && deleted.json["deletedAt"].is_string());
    assert!(!story.is_signed_in(&ada).await && story.refresh(&ada.refresh_token).await.status == 401);
    assert_eq!(refusal(&story.login("ada@example.com").await), (401, "auth.invalid_credentials"));
    assert_eq!(act(&story, &root, &ada, "delete").await.status, 200, "once more changes nothing");
    for (what, expected) in [("enable", "admin.user_deleted"), ("promote", "admin.not_promotable")] {
        assert_eq!(refusal(&act(&story, &root, &ada, what).await), (409, expected));
    }
    for direction in ["grant", "take"] {
        assert_eq!(refusal(&adjust(&story, &root, &ada, direction, 1).await), (409, "credits.wallet_closed"));
    }
    for (state, expected) in [("deleted", 1), ("disabled", 0), ("active", 1)] {
        let found = story.get(&format!("{USERS}?state={state}"), &root).await;
        assert_eq!(found.json.as_array().unwrap().len(), expected, "{state}");
    }
    assert_eq!(acts_on(&story, &root, &ada).await, by(&root, &["account_deleted", "session_revoked"]));
    let mails = story.mails().await;
    let mail = &mails[0].mail;
    let told = (mail.recipient.as_str(), about(mail));
    assert_eq!(told, ("ada@example.com", "Your account was deleted"));
    assert_eq!(story.register("ada@example.com").await.status, 201, "the address is free");
    books_are_true(&story).await;
}

#[tokio::test]
async fn of_administrators_who_leave_at_once_one_is_left() {
    let story = Story::new().await;
    let (root, ada) =
        (story.administrator("root@example.com").await, story.administrator("ada@example.com").await);
    let leave = async |user: &User| {
        let request = story.client.request(Method::DELETE, "/api/v1/auth/account");
        request.bearer(&user.access_token).send().await.status.as_u16()
    };
    let (one, other) = tokio::join!(leave(&root), leave(&ada));
    assert_eq!(BTreeSet::from([one, other]), BTreeSet::from([200, 409]));
    assert_eq!(story.number("SELECT count(*) FROM auth.users WHERE role = 'admin'").await, 1);
}

#[tokio::test]
async fn what_can_t_be_written_down_does_not_happen() {
    let story = Story::new().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let carl = story.administrator("carl@example.com").await;
    let bob = story.user("bob@example.com").await;
    two_factor::set_up(&story, ada.clone()).await;
    story
        .execute(
            "ALTER TABLE auth.security_events ADD CONSTRAINT nobody_acts CHECK (actor IS NULL) NOT VALID",
        )
        .await;
    let before = stored(&story).await;
    let sessions = format!("{USERS}/{}/sessions", ada.id);
    let session = story.get(&sessions, &root).await.json[0]["id"].as_str().unwrap().to_owned();
    for (what, reply) in [
        ("disable", act(&story, &root, &ada, "disable").await),
        ("promote", act(&story, &root, &ada, "promote").await),
        ("demote", act(&story, &root, &carl, "demote").await),
        ("reset-factors", act(&story, &root, &ada, "reset-factors").await),
        ("delete", act(&story, &root, &ada, "delete").await),
        ("end all", end_sessions(&story, &root, &format!("{}/sessions", ada.id)).await),
        ("end one", end_sessions(&story, &root, &format!("{}/sessions/{session}", ada.id)).await),
        ("grant", adjust(&story, &root, &ada, "grant", 5).await),
        ("take", adjust(&story, &root, &ada, "take", 5).await),
    ] {
        assert_eq!(refusal(&reply), (500, "service.internal"), "{what}");
        assert!(stored(&story).await == before, "{what} happened without a trace");
    }
    let (grant, spend) = tokio::join!(adjust(&story, &root, &ada, "grant", 5), async {
        story.spend(&bob, &spend_of(1)).await
    });
    assert_eq!((grant.status.as_u16(), spend.status.as_u16()), (500, 201), "it is nobody else's trouble");
    story.execute("ALTER TABLE auth.security_events DROP CONSTRAINT nobody_acts").await;
    assert_eq!(act(&story, &root, &ada, "disable").await.status, 200, "the control");
    assert_eq!(adjust(&story, &root, &ada, "grant", 5).await.status, 201, "the control");
    books_are_true(&story).await;
}

#[tokio::test]
async fn sessions_of_a_user_end_one_by_one_or_all() {
    let story = Story::new().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let phone = story.sign_in("ada@example.com").await;
    let path = format!("{USERS}/{}/sessions", ada.id);
    let listed = story.get(&path, &root).await;
    assert_eq!(listed.json.as_array().unwrap().len(), 2);
    assert!(listed.json.as_array().unwrap().iter().all(|session| session["current"] == false));
    let sid = read_jwt(&phone.access_token)[1]["sid"].as_str().unwrap().to_owned();
    let one = format!("{}/sessions/{sid}", ada.id);
    assert_eq!(end_sessions(&story, &root, &one).await.status, 204);
    assert!(!story.is_signed_in(&phone).await && story.is_signed_in(&ada).await);
    assert_eq!(refusal(&end_sessions(&story, &root, &one).await), (404, "auth.session_not_found"));
    let own = read_jwt(&root.access_token)[1]["sid"].as_str().unwrap().to_owned();
    let foreign = end_sessions(&story, &root, &format!("{}/sessions/{own}", ada.id)).await;
    assert_eq!(refusal(&foreign), (404, "auth.session_not_found"), "another user's");
    assert!(story.is_signed_in(&root).await);

    assert_eq!(end_sessions(&story, &root, &format!("{}/sessions", ada.id)).await.status, 204);
    assert!(!story.is_signed_in(&ada).await && story.refresh(&ada.refresh_token).await.status == 401);
    assert_eq!(
        end_sessions(&story, &root, &format!("{}/sessions", ada.id)).await.status,
        204,
        "none is left"
    );
    assert_eq!(refusal(&end_sessions(&story, &root, "nobody/sessions").await), (404, "admin.user_not_found"));
    assert_eq!(
        acts_on(&story, &root, &ada).await,
        by(&root, &["sessions_ended", "sessions_ended", "session_revoked", "session_revoked"])
    );
    assert!(story.is_signed_in(&story.sign_in("ada@example.com").await).await, "the control");
}

#[tokio::test]
async fn a_new_administrator_signs_in_anew_and_so_does_a_former_one() {
    let story = Story::new().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let promoted = act(&story, &root, &ada, "promote").await;
    assert_eq!((promoted.status.as_u16(), promoted.text("/role")), (200, "admin"), "{}", promoted.json);
    assert!(!story.is_signed_in(&ada).await, "a session from before is none of an administrator's");
    assert_eq!(act(&story, &root, &ada, "promote").await.status, 200, "once more changes nothing");
    let ada = story.sign_in("ada@example.com").await;
    assert_eq!(read_jwt(&ada.access_token)[1]["role"], "admin");
    assert_eq!(story.get(USERS, &ada).await.status, 200);

    let demoted = act(&story, &root, &ada, "demote").await;
    assert_eq!((demoted.status.as_u16(), demoted.text("/role")), (200, "user"));
    assert!(!story.is_signed_in(&ada).await && story.refresh(&ada.refresh_token).await.status == 401);
    assert_eq!(act(&story, &root, &ada, "demote").await.status, 200);
    let ada = story.sign_in("ada@example.com").await;
    assert_eq!(read_jwt(&ada.access_token)[1]["role"], "user");
    assert_eq!(refusal(&story.get(USERS, &ada).await), (403, "auth.admin_required"));
    assert_eq!(
        acts_on(&story, &root, &ada).await,
        by(&root, &["no_longer_admin", "session_revoked", "became_admin", "session_revoked"])
    );
}

#[tokio::test]
async fn who_is_disabled_or_a_program_becomes_no_administrator() {
    let story = Story::new().await;
    let root = story.administrator("root@example.com").await;
    let (ada, program) = (story.user("ada@example.com").await, story.user("program@example.com").await);
    assert_eq!(act(&story, &root, &ada, "disable").await.status, 200);
    story.set_role(&program, "service").await;
    for user in [&ada, &program] {
        assert_eq!(refusal(&act(&story, &root, user, "promote").await), (409, "admin.not_promotable"));
    }
    assert_eq!(story.number("SELECT count(*) FROM auth.users WHERE role = 'admin'").await, 1);
}

#[tokio::test]
async fn the_last_administrator_stays_one() {
    let story = Story::new().await;
    let (root, ada) =
        (story.administrator("root@example.com").await, story.administrator("ada@example.com").await);
    assert_eq!(act(&story, &ada, &root, "disable").await.status, 200, "there is another");
    let before = stored(&story).await;
    for last in ["disable", "demote", "delete"] {
        assert_eq!(refusal(&act(&story, &ada, &ada, last).await), (409, "admin.last_admin"), "{last}");
    }
    let own = story.client.request(Method::DELETE, "/api/v1/auth/account").bearer(&ada.access_token);
    assert_eq!(refusal(&own.send().await), (409, "admin.last_admin"), "nor does it end itself");
    assert!(stored(&story).await == before);
    assert_eq!(
        act(&story, &ada, &root, "demote").await.status,
        200,
        "one who is disabled administrates nothing"
    );
    assert_eq!(act(&story, &ada, &root, "enable").await.status, 200);
    assert_eq!(act(&story, &ada, &root, "promote").await.status, 200);
    assert_eq!(act(&story, &ada, &ada, "demote").await.status, 200, "the control");
    assert_eq!(refusal(&story.get(USERS, &ada).await).0, 401, "and her session with it");
}

#[tokio::test]
async fn of_administrators_who_end_each_other_at_once_one_is_left() {
    for acts in [["demote", "demote"], ["disable", "disable"], ["demote", "disable"]] {
        let story = Story::new().await;
        let replica = story.replica().await;
        let (ada, bob) =
            (story.administrator("ada@example.com").await, story.administrator("bob@example.com").await);
        let (one, other) = tokio::join!(
            act_request(&story.client, &ada, &bob.id, acts[0]).send(),
            act_request(&replica, &bob, &ada.id, acts[1]).send(),
        );
        let statuses = BTreeSet::from([one.status.as_u16(), other.status.as_u16()]);
        assert!(
            statuses == BTreeSet::from([200, 401]) || statuses == BTreeSet::from([200, 403]),
            "{statuses:?}"
        );
        let admins = "SELECT count(*) FROM auth.users WHERE role = 'admin' AND disabled_at IS NULL";
        assert_eq!(story.number(admins).await, 1, "{acts:?}");
    }
}

/// What an act is done to, made for it: its path filled in, and its body if it has one.
async fn target(shop: &Shop, root: &User, number: usize, act: &Operation) -> (String, Option<Value>) {
    let user = shop.user(&format!("user{number}@example.com")).await;
    let app = format!("app{number}");
    let mut path = act.path.replace("{userId}", &user.id).replace("{appId}", &app);
    if act.path.ends_with("/demote") {
        shop.set_role(&user, "admin").await;
    }
    if act.path.ends_with("{userId}/enable") {
        assert_eq!(self::act(shop, root, &user, "disable").await.status, 200);
    }
    if act.path.ends_with("/forgive-debt") {
        let bought = shop.buy(&user).await;
        assert_eq!(shop.spend(&user, &spend_of(450)).await.status, 201);
        let dispute = shop.stripe.dispute(&shop.payment(&bought), None, "needs_response").unwrap();
        shop.stripe.close_dispute(&dispute, "lost").unwrap();
        shop.deliver().await;
    }
    if path.contains("{id}") {
        let id = if act.path.contains("/webhooks/") {
            let endpoint = json!({"url": "https://hooks.example.com/", "events": ["user.deleted"]});
            webhooks::add(shop, root, &app, endpoint).await.path.rsplit('/').next().unwrap().to_owned()
        } else if act.path.contains("/service-keys/") {
            let key = json!({"name": "Key", "scopes": ["usage:read"]});
            let made = shop.client.post("/api/v1/admin/service-keys", &key).bearer(&root.access_token);
            made.send().await.text("/id").to_owned()
        } else if act.path.contains("/purchases/") {
            shop.buy(&user).await.id
        } else if act.path.contains("/sessions/") {
            read_jwt(&user.access_token)[1]["sid"].as_str().unwrap().to_owned()
        } else {
            format!("package{number}")
        };
        path = path.replace("{id}", &id);
    }
    let body = match act.path.rsplit('/').next().unwrap() {
        _ if act.body.is_none() => return (path, None),
        "grant" | "take" | "forgive-debt" => json!({"amount": 5, "reason": "Ticket 17"}),
        "webhooks" => json!({"url": "https://hooks.example.com/", "events": ["user.deleted"]}),
        "rotate-secret" => json!({}),
        "replay" => json!({"from": "2026-01-01T00:00:00Z"}),
        "service-keys" => json!({"name": "Key", "scopes": ["usage:read"]}),
        "refund" => json!({"amountCents": 100}),
        _ if act.method == Method::PUT => json!({"name": "Pack", "credits": 5, "priceEuroCents": 5}),
        _ => because(),
    };
    (path, Some(body))
}

#[tokio::test]
async fn who_loses_the_role_while_an_act_waits_does_not_act() {
    let shop = Shop::open().await;
    let root = shop.administrator("root@example.com").await;
    let operations = surface::operations(&surface::document());
    let is_act = |operation: &Operation| {
        operation.path.starts_with("/api/v1/admin/") && operation.method != Method::GET
    };
    let acts: Vec<_> = operations.into_iter().filter(is_act).collect();
    assert!(acts.len() >= 20, "the document is not read as it is written");
    let written = "SELECT count(*) FROM auth.security_events WHERE actor = 'administrator'";
    for (number, act) in acts.iter().enumerate() {
        let what = format!("{} {}", act.method, act.path);
        let (path, body) = target(&shop, &root, number, act).await;
        let request = || {
            let request = shop.client.request(act.method.clone(), &path).bearer(&root.access_token);
            match &body {
                Some(body) => request.body("application/json", body.to_string()),
                None => request,
            }
        };
        let before = stored(&shop).await;
        let held = shop.holding("UPDATE auth.users SET role = 'user' WHERE email = 'root@example.com'").await;
        let waiting = shop.send_to_wait(request(), 1).await;
        let_go(held).await;
        assert_eq!(refusal(&waiting.await.unwrap()), (403, "auth.admin_required"), "{what}");
        shop.set_role(&root, "admin").await;
        assert!(stored(&shop).await == before, "{what} has changed something");

        let told = shop.number(written).await;
        let done = request().send().await;
        assert!(done.status.is_success(), "the control: {what}: {}", done.json);
        assert!(shop.number(written).await > told, "{what} is not written down");
    }
    let foreign = "SELECT count(*) FROM auth.security_events WHERE actor = 'administrator' AND actor_id <> (
                       SELECT id FROM auth.users WHERE email = 'root@example.com')";
    assert_eq!(shop.number(foreign).await, 0);
    shop.closes().await;
}

#[tokio::test]
async fn what_is_done_at_the_command_line_is_written_down_as_the_operators() {
    // Its package comes from there.
    let shop = Shop::open().await;
    let root = shop.administrator("root@example.com").await;
    let database = shop.database.service();
    let by: (&dyn Clock, &dyn Rng) = (&*shop.clock, &SystemRng);
    let new = serde_json::from_value(json!({"name": "All", "scopes": ["usage:read"]})).unwrap();
    let key = service_key::create(&database, by.0, by.1, &new).await.unwrap();
    let key = key.details.id.parse().unwrap();
    assert!(service_key::revoke(&database, by.0, by.1, key).await.unwrap());
    let secrets = RootSecrets::parse(shop.root_secret()).unwrap();
    let outbound = Outbound::new(&[], std::time::Duration::from_secs(1)).unwrap();
    let new =
        serde_json::from_value(json!({"url": "https://hooks.example.com/", "events": ["user.deleted"]}));
    let app = "chat".to_owned().try_into().unwrap();
    let added = webhook::add(&database, &secrets, by, &outbound, &app, &new.unwrap()).await.unwrap();
    let id = added.details.id;
    webhook::rotate_secret(&database, &secrets, by, id, OverlapHours::default()).await.unwrap();
    let from = shop.clock.now().format(&Rfc3339).unwrap().parse().unwrap();
    let again = ReplayRequest { from: Some(from), ..ReplayRequest::default() };
    webhook::replay(&database, by, id, &again).await.unwrap();
    webhook::enable(&database, by, id).await.unwrap();
    webhook::remove(&database, by, id).await.unwrap();
    let seen = shop.get(EVENTS, &root).await;
    let acts = seen.json.as_array().unwrap().iter().filter(|event| event["actor"] == "operator");
    let acts: BTreeSet<_> = acts
        .map(|event| {
            assert_eq!([&event["userId"], &event["actorId"]], [&Value::Null, &Value::Null], "{event}");
            (event["type"].as_str().unwrap(), event["detail"].as_str().unwrap().to_owned())
        })
        .collect();
    let of_endpoint = ["added", "secret_rotated", "replayed", "enabled", "removed"];
    let of_endpoint = of_endpoint.map(|what| (format!("webhook_{what}"), id.to_string()));
    let others = [
        ("package_changed".to_owned(), "small".to_owned()),
        ("service_key_created".to_owned(), key.to_string()),
        ("service_key_revoked".to_owned(), key.to_string()),
    ];
    let expected: BTreeSet<_> = of_endpoint.into_iter().chain(others).collect();
    assert_eq!(acts.into_iter().map(|(kind, of)| (kind.to_owned(), of)).collect::<BTreeSet<_>>(), expected);
    shop.closes().await;
}

#[tokio::test]
async fn who_refunds_a_purchase_or_changes_what_is_for_sale_is_seen_with_what_it_was() {
    let shop = Shop::open().await;
    let (root, ada) = (shop.administrator("root@example.com").await, shop.user("ada@example.com").await);
    let bought = shop.buy(&ada).await;
    let body = json!({"amountCents": 300, "reason": "duplicate", "idempotencyKey": "k"});
    for _ in 0..2 {
        assert_eq!(shop.refund(&root, &bought, &body).await.status, 201);
    }
    assert_eq!(shop.refund(&root, &bought, &json!({"amountCents": 5_000})).await.status, 409);
    let refunds = shop.get(&format!("{EVENTS}?type=purchase_refunded"), &root).await;
    let [refund] = refunds.json.as_array().unwrap().as_slice() else { panic!("{}", refunds.json) };
    assert_eq!(
        [&refund["userId"], &refund["actorId"], &refund["detail"], &refund["reason"]],
        [&json!(ada.id), &json!(root.id), &json!(format!("300 {}", bought.id)), &json!("duplicate")]
    );
    let own = shop.get("/api/v1/auth/security-events", &ada).await;
    let own = own.json.as_array().unwrap().iter().find(|event| event["type"] == "purchase_refunded").unwrap();
    assert_eq!([&own["actor"], &own["ipAddress"]], [&json!("administrator"), &Value::Null]);

    let name = "p".repeat(64);
    let package = shop.client.request(Method::PUT, &format!("/api/v1/admin/packages/{name}"));
    let content = json!({"name": "Pack", "credits": 5, "priceEuroCents": 5}).to_string();
    let put = package.body("application/json", content).bearer(&root.access_token).send().await;
    assert_eq!(put.status, 200, "{}", put.json);
    let changes = shop.get(&format!("{EVENTS}?type=package_changed"), &root).await;
    let by: BTreeSet<_> = changes
        .json
        .as_array()
        .unwrap()
        .iter()
        .map(|event| [&event["detail"], &event["actor"], &event["actorId"]].map(ToString::to_string))
        .collect();
    let expected = [
        [json!("small"), json!("operator"), Value::Null],
        [json!(name), json!("administrator"), json!(root.id)],
    ];
    assert_eq!(by, expected.iter().map(|row| row.each_ref().map(ToString::to_string)).collect());
    shop.closes().await;
}

#[tokio::test]
async fn what_changes_who_administrates_or_how_somebody_signs_in_needs_a_fresh_proof() {
    const FRESH: (u16, &str) = (403, "auth.fresh_authentication_required");
    let story = Story::new().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let carl = story.administrator("carl@example.com").await;
    story.clock.advance(Duration::minutes(14));
    let again = story.post("/api/v1/auth/refresh", &json!({"refreshToken": root.refresh_token})).await;
    let root = User { access_token: again.text("/accessToken").to_owned(), ..root };
    story.clock.advance(Duration::minutes(12));
    let again =
        story.post("/api/v1/auth/refresh", &json!({"refreshToken": again.text("/refreshToken")})).await;
    let root = User { access_token: again.text("/accessToken").to_owned(), ..root };
    let before = stored(&story).await;
    for (user, what) in [(&ada, "promote"), (&carl, "demote"), (&ada, "reset-factors"), (&ada, "delete")] {
        assert_eq!(refusal(&act(&story, &root, user, what).await), FRESH, "{what}");
    }
    assert!(stored(&story).await == before);
    assert_eq!(story.get(USERS, &root).await.status, 200, "the role is there");

    let proof = json!({"password": PASSWORD});
    let proven = story.client.post("/api/v1/auth/reauthenticate", &proof).bearer(&root.access_token);
    assert_eq!(proven.send().await.status, 200);
    for (user, what) in [(&ada, "promote"), (&carl, "demote"), (&ada, "reset-factors"), (&ada, "delete")] {
        assert_eq!(act(&story, &root, user, what).await.status, 200, "{what}, the control");
    }
}

#[tokio::test]
async fn an_administrator_with_a_second_factor_gives_it_before_promoting_somebody() {
    const FRESH: (u16, &str) = (403, "auth.fresh_authentication_required");
    let story = Story::new().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let root = two_factor::set_up(&story, root).await;
    assert_eq!(
        refusal(&act(&story, &root.user, &ada, "promote").await),
        FRESH,
        "the session was proven by the password alone, however fresh"
    );
    story.clock.advance(Duration::seconds(30));
    let proof = json!({"code": two_factor::code(&story, &root.secret)});
    let proven =
        story.client.post("/api/v1/auth/reauthenticate", &proof).bearer(&root.user.access_token).send().await;
    assert_eq!(proven.status, 200, "{}", proven.json);
    assert_eq!(act(&story, &root.user, &ada, "promote").await.status, 200, "the control");
}

#[tokio::test]
async fn an_administrator_with_a_passkey_alone_signs_in_by_it_before_promoting_somebody() {
    const FRESH: (u16, &str) = (403, "auth.fresh_authentication_required");
    let story = Story::new().await;
    let root = story.administrator("root@example.com").await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    passkeys::leave_rows(&story, &root).await;
    assert_eq!(refusal(&act(&story, &root, &ada, "promote").await), FRESH, "signed in by password");
    story.execute("UPDATE auth.sessions SET authenticated_by = '{verified_passkey}'").await;
    assert_eq!(act(&story, &root, &ada, "promote").await.status, 200, "the control");
    story.clock.advance(Duration::minutes(11));
    let proof = json!({"password": PASSWORD});
    let proven = story.client.post("/api/v1/auth/reauthenticate", &proof).bearer(&root.access_token);
    assert_eq!(proven.send().await.status, 200);
    assert_eq!(refusal(&act(&story, &root, &bob, "promote").await), FRESH, "what is fresh is the password");
}

#[tokio::test]
async fn who_has_lost_the_second_factor_signs_in_without_after_a_reset_and_by_nothing_older() {
    let story = Story::new().await;
    let root = story.administrator("root@example.com").await;
    let ada = story.user("ada@example.com").await;
    passkeys::leave_rows(&story, &ada).await;
    two_factor::leave_rows(&story, &ada).await;
    let waiting = story.login("ada@example.com").await;
    assert_eq!(waiting.json["twoFactorRequired"], json!(true));
    let reset = act(&story, &root, &ada, "reset-factors").await;
    assert_eq!(reset.status, 200, "{}", reset.json);
    for table in ["two_factor_auth", "recovery_codes", "trusted_devices", "pending_sign_ins", "passkeys"] {
        let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM auth.{table}"));
        let left: i64 = sqlx::query_scalar(query).fetch_one(&mut story.database.owner().await).await.unwrap();
        assert_eq!(left, 0, "{table}");
    }
    assert!(!story.is_signed_in(&ada).await, "what the factor opened is over");
    let body = json!({"challengeToken": waiting.text("/challengeToken"), "code": "123456"});
    assert_eq!(story.post("/api/v1/auth/two-factor/verify", &body).await.status, 401);
    assert_eq!(story.login("ada@example.com").await.json.get("twoFactorRequired"), None);
    assert_eq!(
        story.number("SELECT count(*) FROM auth.passwords").await,
        2,
        "the password is still its owner's"
    );
    let acts = acts_on(&story, &root, &ada).await;
    assert!(acts.contains(&by(&root, &["second_factor_reset"])[0]), "{acts:?}");
}

#[tokio::test]
async fn mana_is_given_and_taken_with_a_reason_and_the_books_stay_true() {
    let story = Story::new().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    story.clock.advance(Duration::SECOND);
    let given = adjust(&story, &root, &ada, "grant", 50).await;
    assert_eq!(given.status, 201, "{}", given.json);
    assert_eq!(
        (
            given.text("/transaction/type"),
            given.integer("/transaction/amount"),
            given.text("/transaction/description")
        ),
        ("adjustment", 50, "Adjustment")
    );
    assert_eq!(given.integer("/newBalance/freeCreditsRemaining"), 200);
    let body = json!({"amount": 170, "reason": "Ticket 18", "description": "A correction"});
    story.clock.advance(Duration::SECOND);
    let path = format!("{USERS}/{}/credits/take", ada.id);
    let taken = story.client.post(&path, &body).bearer(&root.access_token).send().await;
    assert_eq!(
        (taken.integer("/transaction/amount"), taken.text("/transaction/description")),
        (-170, "A correction")
    );
    assert_eq!(taken.integer("/newBalance/freeCreditsRemaining"), 30);
    let balance = story.get("/api/v1/credits/balance", &ada).await;
    assert_eq!(
        (balance.integer("/totalSpent"), balance.integer("/totalEarned")),
        (0, 50),
        "nothing was spent"
    );

    let hold = story.client.post("/api/v1/credits/holds", &spend_of(10)).bearer(&ada.access_token);
    assert_eq!(hold.send().await.status, 201);
    for too_much in [31, 30, 21] {
        let refused = adjust(&story, &root, &ada, "take", too_much).await;
        assert_eq!(refusal(&refused), (400, "credits.insufficient_funds"), "{too_much}: 10 are set aside");
    }
    story.clock.advance(Duration::SECOND);
    assert_eq!(adjust(&story, &root, &ada, "take", 20).await.integer("/newBalance/freeCreditsRemaining"), 0);
    let history = story.get("/api/v1/credits/transactions", &ada).await;
    let text = String::from_utf8_lossy(&history.bytes).into_owned();
    assert!(!text.contains("Ticket") && !text.contains(&root.id), "{text}");

    let events = story.get(&format!("{EVENTS}?userId={}&limit=3", ada.id), &root).await;
    let told: Vec<_> = events
        .json
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            let (amount, line) = event["detail"].as_str().unwrap().split_once(' ').unwrap();
            assert!(line.parse::<uuid::Uuid>().is_ok() && event["actorId"] == json!(root.id), "{event}");
            (event["type"].as_str().unwrap(), amount, event["reason"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("credits_taken", "20", "Ticket 17"),
            ("credits_taken", "170", "Ticket 18"),
            ("credits_granted", "50", "Ticket 17")
        ]
    );
    books_are_true(&story).await;
}

#[tokio::test]
async fn an_adjustment_that_does_not_fit_changes_nothing() {
    let story = Story::new().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let before = stored(&story).await;
    for direction in ["grant", "take"] {
        let path = format!("{USERS}/{}/credits/{direction}", ada.id);
        for bad in [
            json!({"amount": 0, "reason": "x"}),
            json!({"amount": -1, "reason": "x"}),
            json!({"amount": 9_007_199_254_740_992_i64, "reason": "x"}),
            json!({"amount": 1.5, "reason": "x"}),
            json!({"amount": "1", "reason": "x"}),
            json!({"amount": 1}),
            json!({"amount": 1, "reason": ""}),
            json!({"amount": 1, "reason": "x".repeat(501)}),
            json!({"amount": 1, "reason": "x\u{0}"}),
            json!({"amount": 1, "reason": "x", "userId": root.id}),
        ] {
            let refused = story.client.post(&path, &bad).bearer(&root.access_token).send().await;
            assert_eq!(refusal(&refused), (400, "request.invalid_body"), "{direction} {bad}");
        }
        let nobody = format!("{USERS}/nobody/credits/{direction}");
        let body = json!({"amount": 1, "reason": "x"});
        let absent = story.client.post(&nobody, &body).bearer(&root.access_token).send().await;
        assert_eq!(refusal(&absent), (404, "credits.no_such_user"));
    }
    let full = adjust(&story, &root, &ada, "grant", 9_007_199_254_740_991).await;
    assert_eq!(refusal(&full), (400, "credits.out_of_range"));
    assert!(stored(&story).await == before);
}

#[tokio::test]
async fn one_key_is_one_adjustment_and_one_event_and_takes_at_once_never_go_below_zero() {
    let story = Story::new().await;
    let replica = story.replica().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let take = |client: &Client, key: &str, amount: i64| {
        let body = json!({"amount": amount, "reason": "Ticket 17", "idempotencyKey": key});
        client.post(&format!("{USERS}/{}/credits/take", ada.id), &body).bearer(&root.access_token).send()
    };
    let same = join_all((0..20).map(|number| {
        let client = if number % 2 == 0 { &story.client } else { &replica };
        take(client, "once", 10)
    }))
    .await;
    let answers: BTreeSet<_> =
        same.iter().map(|reply| (reply.status.as_u16(), reply.bytes.clone())).collect();
    assert_eq!(answers.len(), 1);
    assert_eq!(same.iter().filter(|reply| !reply.headers.contains_key("idempotency-hit")).count(), 1);
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'credits_taken'").await,
        1
    );
    assert_eq!(refusal(&take(&story.client, "once", 11).await), (422, "request.idempotency_key_reused"));

    let keys: Vec<String> = (0..30).map(|number| format!("k{number}")).collect();
    let many = join_all(keys.iter().enumerate().map(|(number, key)| {
        let client = if number % 2 == 0 { &story.client } else { &replica };
        take(client, key, 10)
    }))
    .await;
    assert_eq!(many.iter().filter(|reply| reply.status == 201).count(), 14, "of the 140 that were left");
    assert!(many.iter().all(|reply| [201, 400].contains(&reply.status.as_u16())));
    assert_eq!(
        story.number("SELECT free FROM credits.balances WHERE total_earned = 0 ORDER BY free LIMIT 1").await,
        0
    );
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'credits_taken'").await,
        15
    );
    books_are_true(&story).await;
}

#[tokio::test]
async fn the_events_of_all_are_filtered_and_paged() {
    let story = Story::new().await;
    let root = story.administrator("root@example.com").await;
    let ada = story.user("ada@example.com").await;
    story.clock.advance(Duration::minutes(1));
    let began = story.clock.now().format(&Rfc3339).unwrap();
    for email in ["bob@example.com", "carl@example.com"] {
        story.user(email).await;
        story.clock.advance(Duration::SECOND);
    }
    let kinds = async |query: &str| -> Vec<String> {
        let found = pages(&story, &root, &format!("{EVENTS}?{query}")).await.concat();
        let mut kinds: Vec<_> =
            found.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
        kinds.sort_unstable();
        kinds
    };
    let all = kinds("").await;
    assert_eq!(all.len(), 8, "{all:?}");
    assert_eq!(kinds("limit=1").await, all);
    assert_eq!(kinds("limit=3").await, all);
    assert_eq!(kinds("type=registered&limit=1").await, ["registered"; 4]);
    assert_eq!(kinds("type=nonsense").await, [""; 0]);
    assert_eq!(kinds(&format!("userId={}&limit=1", ada.id)).await, ["registered", "signed_in"]);
    assert_eq!(kinds(&format!("userId={}&type=registered", ada.id)).await, ["registered"]);
    let since = format!("since={began}");
    assert_eq!(kinds(&format!("{since}&limit=1")).await.len(), 4);
    assert_eq!(kinds(&format!("{since}&userId={}", ada.id)).await, [""; 0]);
    assert_eq!(kinds(&format!("{since}&type=signed_in")).await, ["signed_in"; 2]);
    for bad in [
        "limit=0",
        "limit=501",
        "since=yesterday",
        "since=9999-12-31T23:59:59-01:00",
        "userId=a%20b",
        "cursor=AAAA",
        "type=%00",
        "cursor=%00",
    ] {
        let refused = story.get(&format!("{EVENTS}?{bad}"), &root).await;
        assert_eq!(refusal(&refused), (400, "request.invalid_query"), "{bad}");
    }
}

#[tokio::test]
async fn rare_events_are_found_behind_more_than_a_page_looks_through() {
    let story = Story::new().await;
    let root = story.administrator("root@example.com").await;
    story
        .execute(
            "INSERT INTO auth.security_events (id, type, created_at)
             SELECT ('ffffffff-ffff-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid, 'sign_in_failed', now()
             FROM generate_series(1, 20001) AS number",
        )
        .await;
    let found = pages(&story, &root, &format!("{EVENTS}?type=registered")).await;
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [0, 0, 1], "bounded work for each page");
}

#[tokio::test]
async fn an_operator_does_the_same_through_the_database() {
    use mana_auth::admin::{Change, Operator};
    use mana_platform::SystemRng;
    let story = Story::new().await;
    let (root, ada) = (story.administrator("root@example.com").await, story.user("ada@example.com").await);
    let database = story.database.service();
    let operator = Operator { database: &database, clock: &*story.clock, rng: &SystemRng };
    let id = operator.resolve("ADA@example.com").await.unwrap();
    assert_eq!(id.as_str(), ada.id);
    assert_eq!(operator.resolve(&ada.id).await.unwrap(), id);
    assert!(operator.resolve("nobody@example.com").await.is_err());
    let reason = || Some("Ticket 17".to_owned().try_into().unwrap());
    operator.change(&id, Change::Disable, reason()).await.unwrap();
    story.workers.follow_ended_sessions().await;
    assert!(!story.is_signed_in(&ada).await);
    operator.change(&id, Change::Enable, reason()).await.unwrap();
    operator.change(&id, Change::Promote, reason()).await.unwrap();
    let seen = story.get(&format!("{EVENTS}?userId={}", ada.id), &root).await;
    let acts: Vec<_> =
        seen.json.as_array().unwrap().iter().filter(|event| !event["actor"].is_null()).collect();
    assert_eq!(acts.len(), 4, "and a session that ended: {acts:?}");
    for event in acts {
        assert_eq!(
            [&event["actor"], &event["actorId"], &event["reason"]],
            [&json!("operator"), &json!(null), &json!("Ticket 17")]
        );
    }
    let root_id = root.id.parse().unwrap();
    operator.change(&root_id, Change::Demote, reason()).await.unwrap();
    let last = operator.change(&id, Change::Demote, reason()).await.unwrap_err();
    assert!(matches!(last, mana_auth::admin::model::AdminError::LastAdmin), "{last}");
}
