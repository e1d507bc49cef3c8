//! Attacks by way of the browser, the path and the method: no operation is left out, because they come from the document.

use crate::story::{Story, User, spend_of};
use crate::surface::{
    KEY, Operation, allowed, document, filled, operations, request, sample, stored, with_service_key,
};
use http::Method;
use mana_testkit::Request;
use serde_json::{Value, json};

/// What a page can send without asking first, and what it would have to ask for.
const MEDIA_TYPES: [&str; 4] =
    ["text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "application/json"];

/// Headers of requests that a browser sends for a page of a foreign site.
const FOREIGN: [&[(&str, &str)]; 7] = [
    &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")],
    &[("origin", "https://evil.example")],
    &[("origin", "null"), ("sec-fetch-site", "cross-site")],
    &[("origin", "null")],
    &[("sec-fetch-site", "cross-site")],
    &[("sec-fetch-site", "same-site")],
    &[("origin", "http://localhost:3000.evil.example"), ("sec-fetch-site", "same-site")],
];

fn with_headers(request: Request, headers: &[(&str, &str)]) -> Request {
    headers.iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// The answer of a provider comes as a form of its page, by design, and belongs to the browser by a sealed cookie.
fn is_write(operation: &Operation) -> bool {
    operation.method != Method::GET && !operation.path.ends_with("/callback")
}

/// Ends the session that asks.
fn signs_out(operation: &Operation) -> bool {
    operation.path.ends_with("/logout") || operation.path.ends_with("/sign-out")
}

/// As `owner`, with everything that may vouch for her.
fn as_owner(story: &Story, operation: &Operation, owner: &User) -> Request {
    let request = story.client.request(operation.method.clone(), &filled(&operation.path));
    allowed(request, operation, owner).header("cookie", &owner.cookie)
}

#[tokio::test]
async fn no_operation_writes_for_a_page_of_a_foreign_site() {
    let story = with_service_key().await;
    let ada = story.administrator("ada@example.com").await;
    let document = document();
    let writes: Vec<_> = operations(&document).into_iter().filter(is_write).collect();
    assert!(writes.len() > 20);
    let before = stored(&story).await;
    for operation in &writes {
        let body = operation.body.as_ref().map(|schema| sample(&document, schema)).unwrap_or_default();
        for headers in FOREIGN {
            for media_type in MEDIA_TYPES {
                let attempt = as_owner(&story, operation, &ada).body(media_type, body.to_string());
                let refused = with_headers(attempt, headers).send().await;
                assert_eq!(
                    (refused.status.as_u16(), refused.problem()),
                    (403, "request.foreign_site"),
                    "{} {} {headers:?} {media_type}",
                    operation.method,
                    operation.path
                );
                assert!(!refused.headers.contains_key("set-cookie"));
                assert!(!refused.headers.contains_key("access-control-allow-origin"));
            }
        }
    }
    assert_eq!(stored(&story).await, before, "nothing has happened");
    // The control: the same from a page of the family.
    for operation in writes.iter().filter(|operation| !signs_out(operation)) {
        let body = operation.body.as_ref().map(|schema| sample(&document, schema));
        let family = [("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")];
        let reply = with_headers(request(&story, operation, body.as_ref()), &family).send().await;
        let is_foreign = reply.status == 403 && reply.json["code"] == "request.foreign_site";
        assert!(!is_foreign, "{} {}", operation.method, operation.path);
    }
}

#[tokio::test]
async fn no_operation_takes_json_under_another_name() {
    let story = with_service_key().await;
    let ada = story.administrator("ada@example.com").await;
    let document = document();
    let with_body: Vec<_> =
        operations(&document).into_iter().filter(|operation| operation.body.is_some()).collect();
    assert!(with_body.len() > 20);
    let before = stored(&story).await;
    for operation in with_body {
        let body = sample(&document, operation.body.as_ref().unwrap()).to_string();
        for media_type in [
            "text/plain",
            "text/plain;application/json",
            "application/x-www-form-urlencoded",
            "text/json",
            "application/json-seq",
            "",
        ] {
            let refused = as_owner(&story, &operation, &ada).body(media_type, body.clone()).send().await;
            assert_eq!(
                (refused.status.as_u16(), refused.problem()),
                (415, "request.unsupported_media_type"),
                "{} {media_type}",
                operation.path
            );
        }
    }
    assert_eq!(stored(&story).await, before);
}

#[tokio::test]
async fn no_operation_has_a_second_path() {
    let story = with_service_key().await;
    let ada = story.administrator("ada@example.com").await;
    let document = document();
    for operation in operations(&document) {
        let path = filled(&operation.path);
        let (folder, name) = path.rsplit_once('/').unwrap();
        let mut shout = path.to_uppercase();
        if operation.path.contains('{') {
            shout = shout.replace("NO-SUCH-THING", "no-such-thing");
        }
        let first = name.as_bytes()[0];
        for spelling in [
            format!("/{path}"),
            format!("{path}/"),
            format!("{folder}//{name}"),
            format!("{folder}/./{name}"),
            format!("{folder}/x/../{name}"),
            format!("{folder}/%2e/{name}"),
            format!("{folder}/x/%2e%2e/{name}"),
            format!("{folder}%2f{name}"),
            format!("{folder}%5c{name}"),
            format!("{folder}/%{first:02x}{}", &name[1..]),
            format!("{path}%00"),
            format!("{path}%20"),
            format!("{path};a=b"),
            format!("{path}.json"),
            format!("/x/..{path}"),
            format!("/http://localhost:3001{path}"),
            shout,
        ] {
            if !spelling.starts_with('/') || spelling.starts_with("//") && spelling.matches('/').count() == 2
            {
                // No path at all.
                continue;
            }
            if operation.path.ends_with('}') && spelling.contains("/%6e") {
                // A parameter may be spelled so: it is decoded, once.
                continue;
            }
            let request =
                allowed(story.client.request(operation.method.clone(), &spelling), &operation, &ada);
            let reply = request.header("cookie", &ada.cookie).send().await;
            // An id may be spelled in any way: it names nothing. A path that is not this one may be another.
            // A name of nothing leads to the page that says so, or is looked at behind the body.
            let is_missed = [303, 400, 404, 405, 415].contains(&reply.status.as_u16());
            let is_elsewhere = operation.path.contains('{')
                || operation.path.contains("/balance")
                || operation.path.contains("/passkeys")
                || operation.path.contains("/sessions");
            assert!(
                is_missed && (is_elsewhere || reply.status == 404),
                "{} {spelling} is answered with {}: {}",
                operation.method,
                reply.status,
                reply.json
            );
        }
    }
    assert!(story.is_signed_in(&ada).await);
}

#[tokio::test]
async fn no_header_and_no_parameter_makes_a_method_another() {
    let story = with_service_key().await;
    let ada = story.administrator("ada@example.com").await;
    let other = story.sign_in("ada@example.com").await;
    for operation in operations(&document()) {
        let before = stored(&story).await;
        let methods = ["GET", "HEAD", "OPTIONS", "TRACE", "get", "QUERY"];
        for method in methods.iter().filter(|method| **method != operation.method.as_str()) {
            let path = format!("{}?_method={}&_HttpMethod=DELETE", filled(&operation.path), operation.method);
            let attempt = allowed(story.client.request(method.parse().unwrap(), &path), &operation, &ada);
            let overrides = [
                ("x-http-method-override", operation.method.as_str()),
                ("x-http-method", operation.method.as_str()),
                ("x-method-override", operation.method.as_str()),
            ];
            let reply = with_headers(attempt, &overrides).header("cookie", &ada.cookie).send().await;
            assert!(reply.status.as_u16() < 500, "{method} {path}: {}", reply.json);
            if ["TRACE", "get", "QUERY"].contains(method) {
                assert!([404, 405].contains(&reply.status.as_u16()), "{method} {path}: {}", reply.status);
                assert!(
                    !String::from_utf8_lossy(&reply.bytes).contains(&ada.access_token),
                    "nothing is echoed"
                );
            }
        }
        // On the first touch of a day, and for a cookie that is in use.
        let touches = operation.path.ends_with("/balance") || operation.path.ends_with("/get-session");
        assert!(touches || stored(&story).await == before, "{} changed something", operation.path);
    }
    assert!(story.is_signed_in(&other).await, "no override ended the other sessions");
    // The control: the method itself does.
    let all = story.client.request(Method::DELETE, "/api/v1/auth/sessions").bearer(&ada.access_token);
    assert_eq!(all.send().await.status, 204);
    assert!(!story.is_signed_in(&other).await);
}

#[tokio::test]
async fn whoever_names_a_victim_gets_and_changes_nothing_of_hers() {
    let story = with_service_key().await;
    let (ada, mallory) = (story.user("ada@example.com").await, story.user("mallory@example.com").await);
    assert_eq!(story.spend(&ada, &spend_of(7)).await.status, 201);
    let document = document();
    let hers = async || {
        let rows = stored(&story).await;
        let of_ada: Vec<_> = rows
            .iter()
            .flat_map(|(table, lines)| lines.lines().map(move |line| (table.clone(), line.to_owned())))
            .filter(|(_, line)| line.contains(&ada.id))
            .collect();
        assert!(of_ada.len() > 5, "{of_ada:?}");
        of_ada
    };
    let before = hers().await;
    for operation in operations(&document).iter().filter(|operation| !signs_out(operation)) {
        // Somebody who gives a password may sign in as whom it is for; here it is wrong, and counts as hers.
        if ["/api/v1/auth/login", "/api/auth/sign-in/email", "/claim-admin"]
            .contains(&operation.path.as_str())
        {
            continue;
        }
        let path = operation.path.replace("{userId}", &ada.id).replace("{id}", &ada.id);
        let id = &ada.id;
        let path =
            format!("{path}?userId={id}&user_id={id}&user={id}&sub={id}&id={id}&email=ada@example.com");
        let mut bodies = vec![None];
        if let Some(schema) = &operation.body {
            let plain = sample(&document, schema);
            let mut naming = plain.clone();
            for name in ["userId", "user_id", "sub", "id", "email"] {
                naming[name] = json!(if name == "email" { &ada.email } else { id });
            }
            let mut only_user = plain.clone();
            only_user["userId"] = json!(id);
            bodies = vec![Some(plain), Some(naming), Some(only_user)];
        }
        for body in bodies {
            let mut attempt =
                story.client.request(operation.method.clone(), &path).bearer(&mallory.access_token);
            for name in
                ["x-user-id", "x-forwarded-user", "remote-user", "x-auth-request-email", "x-original-user"]
            {
                attempt = attempt.header(name, id);
            }
            if let Some(body) = &body {
                attempt = attempt.body("application/json", body.to_string());
            }
            let reply = attempt.send().await;
            let text = String::from_utf8_lossy(&reply.bytes);
            assert!(!text.contains(id) && !text.contains(&ada.email), "{} {path} {text}", operation.method);
        }
    }
    assert_eq!(hers().await, before);
    // The controls: her own, and an app that may.
    let own = story.get("/api/v1/credits/transactions", &ada).await;
    assert!(String::from_utf8_lossy(&own.bytes).contains(&ada.id));
    let by_app = story
        .client
        .get(&format!("/api/v1/credits/balance/{}", ada.id))
        .header("x-service-key", KEY)
        .send()
        .await;
    assert_eq!(by_app.status, 200, "{}", by_app.json);
}

#[tokio::test]
async fn of_two_headers_of_one_name_none_is_chosen() {
    let story = with_service_key().await;
    let ada = story.user("ada@example.com").await;
    let spend = || story.client.post("/api/v1/credits/use", &spend_of(1));
    let etag = story.get("/api/v1/credits/balance", &ada).await.headers["etag"].to_str().unwrap().to_owned();
    for (name, value, status) in [
        ("if-match", etag, 400),
        ("authorization", format!("Bearer {}", ada.access_token), 401),
        ("idempotency-key", "one".to_owned(), 400),
    ] {
        let one = if name == "authorization" { spend() } else { spend().bearer(&ada.access_token) };
        let refused = one.header(name, &value).header(name, &value).send().await;
        assert_eq!(refused.status, status, "{name}: {}", refused.json);
        let control = if name == "authorization" { spend() } else { spend().bearer(&ada.access_token) };
        assert_eq!(control.header(name, &value).send().await.status, 201, "the control: {name}");
    }
    let mut body = spend_of(1);
    body["userId"] = Value::String(ada.id.clone());
    let as_app = || story.client.post("/api/v1/credits/use", &body).header("x-service-key", KEY);
    assert_eq!(as_app().header("x-service-key", KEY).send().await.status, 401);
    assert_eq!(as_app().header("x-app-id", "a").header("x-app-id", "b").send().await.status, 400);
    assert_eq!(as_app().bearer(&ada.access_token).send().await.status, 400);
    assert_eq!(as_app().header("x-app-id", "a").send().await.status, 201, "the control");
    let lines = "SELECT count(*) FROM credits.transactions WHERE type = 'usage'";
    assert_eq!(story.number(lines).await, 4);
}
