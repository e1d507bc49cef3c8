//! Where somebody is signed in, ending it from elsewhere, and what happened to the account.

use crate::story::{PASSWORD, Story, User};
use http::Method;
use mana_testkit::Reply;
use serde_json::json;
use time::Duration;

const SESSIONS: &str = "/api/v1/auth/sessions";

async fn delete(story: &Story, path: &str, user: &User) -> Reply {
    story.client.request(Method::DELETE, path).bearer(&user.access_token).send().await
}

#[tokio::test]
async fn the_list_shows_each_device_and_marks_the_current_one() {
    let story = Story::new().await;
    let here = story.user("ada@example.com").await;
    story.clock.advance(Duration::seconds(1));
    let credentials = json!({"email": "ada@example.com", "password": PASSWORD, "deviceId": "phone-1", "deviceName": "Ada's phone"});
    let login = story.client.post("/api/v1/auth/login", &credentials).header("user-agent", "Phone/1.0");
    assert_eq!(login.send().await.status, 200);

    let list = story.get(SESSIONS, &here).await;
    let devices = list.json.as_array().unwrap();
    assert_eq!(devices.len(), 2, "{}", list.json);
    assert_eq!(devices[0]["deviceId"], "phone-1", "the last active first");
    assert_eq!(devices[0]["deviceName"], "Ada's phone");
    assert_eq!(devices[0]["userAgent"], "Phone/1.0");
    assert_eq!(devices[0]["ipAddress"], "127.0.0.1");
    assert_eq!((&devices[0]["current"], &devices[1]["current"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn ending_a_session_from_another_device_ends_all_that_hangs_on_it() {
    let story = Story::new().await;
    let (here, stolen) = (story.user("ada@example.com").await, story.sign_in("ada@example.com").await);
    let list = story.get(SESSIONS, &here).await;
    let id = list.json.as_array().unwrap().iter().find(|device| device["current"] == false).unwrap()["id"]
        .as_str()
        .unwrap();

    let ended = delete(&story, &format!("{SESSIONS}/{id}"), &here).await;
    assert_eq!((ended.status.as_u16(), ended.bytes.len()), (204, 0));
    assert_eq!(story.get("/api/v1/auth/me", &stolen).await.status, 401);
    assert_eq!(story.refresh(&stolen.refresh_token).await.status, 401);
    assert_eq!(story.get("/api/v1/auth/me", &here).await.status, 200);
    let again = delete(&story, &format!("{SESSIONS}/{id}"), &here).await;
    assert_eq!((again.status.as_u16(), again.problem()), (404, "auth.session_not_found"));
}

#[tokio::test]
async fn ending_all_others_leaves_the_current_one() {
    let story = Story::new().await;
    let here = story.user("ada@example.com").await;
    let others = [story.sign_in("ada@example.com").await, story.sign_in("ada@example.com").await];
    let bob = story.user("bob@example.com").await;
    assert_eq!(delete(&story, SESSIONS, &here).await.status, 204);
    for other in &others {
        assert_eq!(story.get("/api/v1/auth/me", other).await.status, 401);
    }
    assert_eq!(story.get(SESSIONS, &here).await.json.as_array().unwrap().len(), 1);
    assert_eq!(story.get("/api/v1/auth/me", &bob).await.status, 200, "nobody else's");
}

#[tokio::test]
async fn somebody_elses_session_is_as_absent_as_none() {
    let story = Story::new().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    let list = story.get(SESSIONS, &bob).await;
    let bobs = list.text("/0/id");
    let answers = [
        delete(&story, &format!("{SESSIONS}/{bobs}"), &ada).await,
        delete(&story, &format!("{SESSIONS}/none"), &ada).await,
    ];
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), answer.problem()), (404, "auth.session_not_found"));
        assert_eq!(answer.text("/detail"), answers[0].text("/detail"));
    }
    assert_eq!(story.get("/api/v1/auth/me", &bob).await.status, 200);
}

#[tokio::test]
async fn security_events_tell_their_owner_what_happened() {
    let story = Story::new().await;
    assert_eq!(story.register("ada@example.com").await.status, 201);
    story.clock.advance(Duration::seconds(1));
    let (ada, bob) = (story.sign_in("ada@example.com").await, story.user("bob@example.com").await);
    let tick = || story.clock.advance(Duration::seconds(1));
    tick();
    let wrong = json!({"email": "ada@example.com", "password": "not the password"});
    assert_eq!(story.client.post("/api/v1/auth/login", &wrong).send().await.status, 401);
    tick();
    let other = story.sign_in("ada@example.com").await;
    tick();
    delete(&story, SESSIONS, &other).await;
    let events = story.get("/api/v1/auth/security-events", &other).await;
    let kinds: Vec<_> =
        events.json.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["session_revoked", "signed_in", "sign_in_failed", "signed_in", "registered"]);
    let newest = &events.json[0];
    assert_eq!(newest["ipAddress"], "127.0.0.1");
    assert!(!newest["requestId"].as_str().unwrap().is_empty());
    assert_eq!(story.get("/api/v1/auth/me", &ada).await.status, 401);

    assert_eq!(
        story.get("/api/v1/auth/security-events?limit=1", &other).await.json.as_array().unwrap().len(),
        1
    );
    assert_eq!(
        story.get("/api/v1/auth/security-events?limit=0", &other).await.problem(),
        "request.invalid_query"
    );
    assert_eq!(story.get("/api/v1/auth/security-events", &bob).await.json.as_array().unwrap().len(), 2);
}
