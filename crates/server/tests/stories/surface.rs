//! The whole surface, from the OpenAPI document: what holds for every operation is tried on every operation, so that a
//! new one can't be forgotten.

use crate::story::{Story, User};
use http::Method;
use mana_testkit::Request;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use time::Duration;

pub(crate) struct Operation {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) needs_bearer: bool,
    /// Whether an app may ask, and nobody else or users too.
    pub(crate) takes_service_key: bool,
    pub(crate) takes_bearer: bool,
    /// Schema of the JSON body, resolved.
    pub(crate) body: Option<Value>,
    pub(crate) statuses: Vec<u16>,
}

pub(crate) fn document() -> Value {
    serde_json::to_value(mana_core_auth::openapi::document()).unwrap()
}

pub(crate) fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation["security"].as_array();
            let takes =
                |scheme: &str| security.is_some_and(|all| all.iter().any(|one| one.get(scheme).is_some()));
            found.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                needs_bearer: security.is_some_and(|all| all.iter().all(|one| one.get("bearer").is_some())),
                takes_service_key: takes("serviceKey"),
                takes_bearer: takes("bearer"),
                body: operation
                    .pointer("/requestBody/content/application~1json/schema")
                    .map(|schema| resolved(document, schema)),
                statuses: operation["responses"]
                    .as_object()
                    .unwrap()
                    .keys()
                    .map(|status| status.parse().unwrap())
                    .collect(),
            });
        }
    }
    assert!(found.len() > 15, "the document is not read as it is written");
    found
}

/// Follows references, and takes the object of a body that may be absent.
fn resolved(document: &Value, schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return resolved(document, document.pointer(reference.trim_start_matches('#')).unwrap());
    }
    let choices = schema["oneOf"].as_array().into_iter().flatten();
    choices
        .map(|choice| resolved(document, choice))
        .find(|choice| choice["type"] != "null")
        .unwrap_or_else(|| schema.clone())
}

/// A value of the schema.
pub(crate) fn sample(document: &Value, schema: &Value) -> Value {
    let schema = resolved(document, schema);
    let kinds = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    match kinds[0].as_str().unwrap() {
        "object" => {
            let properties = schema["properties"].as_object().cloned().unwrap_or_default();
            properties.iter().map(|(name, property)| (name.clone(), sample(document, property))).collect()
        }
        "integer" => json!(schema["minimum"].as_i64().unwrap_or(1).max(1)),
        "boolean" => json!(true),
        "array" => json!([sample(document, &schema["items"])]),
        "string" if schema["enum"].is_array() => schema["enum"][0].clone(),
        "string" => match schema["format"].as_str() {
            Some("email") => json!("someone@example.com"),
            Some("date-time") => json!("2126-01-31T12:00:00Z"),
            Some("uuid") => json!("00000000-0000-7000-8000-000000000000"),
            Some("uri") => json!("https://app.example.com"),
            None if schema["pattern"] == "^(https?://.+)?$" => json!("https://app.example.com"),
            _ => {
                let bound = |name: &str| schema[name].as_u64().and_then(|bound| usize::try_from(bound).ok());
                let mut text = "long-enough-text".repeat(bound("minLength").unwrap_or(0).div_ceil(16).max(1));
                text.truncate(bound("maxLength").unwrap_or(usize::MAX));
                json!(text)
            }
        },
        other => panic!("no sample of {other}: {schema}"),
    }
}

pub(crate) const KEY: &str = "a-service-key-of-the-environment";

pub(crate) async fn with_service_key() -> Story {
    Story::with(|settings| settings.service_key = Some(KEY.into())).await
}

/// As whoever may ask: the user, or an app where only apps may.
pub(crate) fn allowed(request: Request, operation: &Operation, user: &User) -> Request {
    if operation.takes_service_key && !operation.takes_bearer {
        request.header("x-service-key", KEY)
    } else {
        request.bearer(&user.access_token)
    }
}

/// A path whose parameters name nothing.
pub(crate) fn filled(path: &str) -> String {
    ["{id}", "{userId}", "{appId}", "{provider}", "{token}"]
        .iter()
        .fold(path.to_owned(), |path, name| path.replace(name, "no-such-thing"))
}

pub(crate) fn request(story: &Story, operation: &Operation, body: Option<&Value>) -> Request {
    let request = story.client.request(operation.method.clone(), &filled(&operation.path));
    match body {
        Some(body) => request.body("application/json", body.to_string()),
        None => request,
    }
}

#[tokio::test]
async fn every_operation_that_needs_a_caller_refuses_whoever_is_none() {
    let story = Story::new().await;
    let expired = story.user("gone@example.com").await;
    story.clock.advance(Duration::seconds(901));
    let gone = story.sign_in("gone@example.com").await;
    story.client.request(Method::POST, "/api/v1/auth/logout").bearer(&gone.access_token).send().await;
    let live = story.sign_in("gone@example.com").await;
    story.set_role(&live, "admin").await;
    let document = document();
    let guarded: Vec<_> =
        operations(&document).into_iter().filter(|operation| operation.needs_bearer).collect();
    assert!(guarded.len() >= 7);
    for operation in guarded {
        let body = operation.body.as_ref().map(|schema| sample(&document, schema));
        let attempt = || request(&story, &operation, body.as_ref());
        let none = "There is no Authorization header";
        let attempts = [
            ("no token", attempt(), none),
            ("a cookie", attempt().header("cookie", &live.cookie), none),
            (
                "a service key",
                attempt().header("x-service-key", "garbage"),
                "Service keys are not taken here",
            ),
            ("no scheme", attempt().header("authorization", &live.access_token), "The Authorization header"),
            ("garbage", attempt().bearer("garbage"), "Invalid token"),
            ("a refresh token", attempt().bearer(&live.refresh_token), "Invalid token"),
            ("an ended session", attempt().bearer(&gone.access_token), "Session ended"),
            ("an expired token", attempt().bearer(&expired.access_token), "Token expired"),
        ];
        for (what, attempt, reason) in attempts {
            if what == "a service key" && operation.takes_service_key {
                continue;
            }
            let refused = attempt.send().await;
            assert_eq!(
                (refused.status.as_u16(), refused.problem()),
                (401, "auth.unauthenticated"),
                "{} with {what}",
                operation.path
            );
            assert_eq!(refused.json["message"], "Unauthorized", "what people are shown");
            let detail = refused.text("/detail");
            assert!(detail.starts_with(reason), "{} with {what}: {detail}", operation.path);
            // Of a token that was sent it is said why it is not accepted, of none nothing (RFC 6750, section 3.1).
            let expected = if refused.json["detail"] == reason {
                format!(r#"Bearer error="invalid_token", error_description="{reason}""#)
            } else {
                "Bearer".to_owned()
            };
            assert_eq!(refused.headers["www-authenticate"], expected.as_str(), "{what}");
        }
        let control = request(&story, &operation, body.as_ref()).bearer(&live.access_token).send().await;
        assert!(
            control.status.is_success() || control.problem() != "auth.unauthenticated",
            "the control: {} {}",
            operation.path,
            control.json
        );
    }
}

#[tokio::test]
async fn every_operation_for_apps_refuses_whoever_is_none() {
    let story = with_service_key().await;
    let ada = story.administrator("ada@example.com").await;
    let document = document();
    let for_apps: Vec<_> =
        operations(&document).into_iter().filter(|operation| operation.takes_service_key).collect();
    assert!(for_apps.len() >= 8);
    for operation in for_apps {
        let body = operation.body.as_ref().map(|schema| sample(&document, schema));
        let attempt = || request(&story, &operation, body.as_ref());
        let mut attempts = vec![
            ("no key", attempt()),
            ("garbage", attempt().header("x-service-key", "garbage")),
            ("an almost right key", attempt().header("x-service-key", &format!("{KEY}x"))),
        ];
        if !operation.takes_bearer {
            attempts.push(("a token", attempt().bearer(&ada.access_token)));
        }
        for (what, attempt) in attempts {
            let refused = attempt.send().await;
            assert_eq!(refused.status, 401, "{} with {what}: {}", operation.path, refused.json);
            if !operation.takes_bearer {
                let reason = match what {
                    "no key" => "There is no X-Service-Key header: this needs a service key",
                    "a token" => {
                        "Tokens of users are not taken here: this needs a service key, as X-Service-Key"
                    }
                    _ => "The service key is not accepted",
                };
                assert_eq!(refused.json["detail"], reason, "{} with {what}", operation.path);
                assert_eq!(refused.json["message"], "The service key is not accepted");
            }
        }
        let both = attempt().bearer(&ada.access_token).header("x-service-key", KEY).send().await;
        assert_eq!((both.status.as_u16(), both.problem()), (400, "request.ambiguous_credentials"));
        let control = attempt().header("x-service-key", KEY).send().await;
        // What the key may not do is refused behind the door.
        assert!(
            [200, 201, 400, 404].contains(&control.status.as_u16())
                || control.json["code"] == "service.scope_missing",
            "{} {}",
            operation.path,
            control.json
        );
    }
}

#[tokio::test]
async fn every_body_refuses_unknown_fields_missing_fields_and_wrong_types_by_name() {
    let story = with_service_key().await;
    let ada = story.administrator("ada@example.com").await;
    let document = document();
    let with_body: Vec<_> =
        operations(&document).into_iter().filter(|operation| operation.body.is_some()).collect();
    assert!(with_body.len() >= 6);
    for operation in with_body {
        let schema = operation.body.clone().unwrap();
        let valid = sample(&document, &schema);
        let send = async |body: &Value| {
            allowed(request(&story, &operation, Some(body)), &operation, &ada).send().await
        };

        let mut broken = vec![("/surprise".to_owned(), "unknown", with(&valid, "surprise", json!(1)))];
        for name in schema["properties"].as_object().into_iter().flat_map(serde_json::Map::keys) {
            let wrong = if valid[name].is_array() { json!({"no": "such"}) } else { json!([{"no": "such"}]) };
            broken.push((format!("/{name}"), "wrong_type", with(&valid, name, wrong)));
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap();
            let mut missing = valid.clone();
            missing.as_object_mut().unwrap().remove(name);
            broken.push((format!("/{name}"), "missing", missing));
        }
        for (pointer, code, body) in broken {
            let refused = send(&body).await;
            assert_eq!(
                (refused.status.as_u16(), refused.problem()),
                (400, "request.invalid_body"),
                "{} {body}",
                operation.path
            );
            assert_eq!(
                (refused.text("/errors/0/pointer"), refused.text("/errors/0/code")),
                (pointer.as_str(), code),
                "{}",
                operation.path
            );
        }
        for body in [json!([]), json!("text"), json!(1), json!(null)] {
            let refused = send(&body).await;
            assert_eq!(refused.status, 400, "{} {body}", operation.path);
        }
    }
}

/// Objects of a schema that have these fields and no others, by their place in a sample of it, and the names of the fields.
fn objects(document: &Value, schema: &Value, place: &str, found: &mut Vec<(String, BTreeSet<String>)>) {
    let schema = resolved(document, schema);
    if let Some(properties) = schema["properties"].as_object() {
        // What browsers make may have more than is read.
        if schema["additionalProperties"] == json!(false) {
            found.push((place.to_owned(), properties.keys().cloned().collect()));
        }
        for (name, property) in properties {
            objects(document, property, &format!("{place}/{name}"), found);
        }
    }
    if schema["items"].is_object() {
        objects(document, &schema["items"], &format!("{place}/0"), found);
    }
}

#[tokio::test]
async fn every_field_that_a_body_may_have_is_in_the_document() {
    let story = with_service_key().await;
    let ada = story.administrator("ada@example.com").await;
    let document = document();
    let mut looked_at = 0;
    for operation in operations(&document) {
        let Some(schema) = &operation.body else { continue };
        let mut places = Vec::new();
        objects(&document, schema, "", &mut places);
        for (place, documented) in places {
            let mut body = sample(&document, schema);
            let object = body.pointer_mut(&place).and_then(Value::as_object_mut).unwrap();
            object.insert("surprise".to_owned(), json!(1));
            let request = request(&story, &operation, Some(&body));
            let refused = allowed(request, &operation, &ada).send().await;
            let path = &operation.path;
            assert_eq!(refused.text("/errors/0/pointer"), format!("{place}/surprise"), "{path}");
            let (_, taken) = refused.text("/errors/0/detail").split_once(", which has here ").unwrap();
            let mut taken: BTreeSet<String> = taken.split(", ").map(str::to_owned).collect();
            if path.ends_with("-signin") {
                assert!(taken.remove("token"), "what clients of the older service call idToken");
            }
            assert_eq!(taken, documented, "what {path} takes at {place:?}, and what the document says");
            looked_at += 1;
        }
    }
    assert!(looked_at > 40, "{looked_at}");
}

#[tokio::test]
async fn every_example_of_a_body_is_taken_and_what_a_beginner_sends_has_one() {
    let story = with_service_key().await;
    let ada = story.administrator("ada@example.com").await;
    let document = document();
    let mut without: BTreeSet<String> = [
        "auth/register",
        "auth/login",
        "auth/refresh",
        "auth/validate",
        "credits/use",
        "credits/use/batch",
        "credits/holds",
        "credits/refund",
        "internal/credits/grants",
        "credits/purchase",
        "admin/service-keys",
    ]
    .iter()
    .map(|path| format!("/api/v1/{path}"))
    .collect();
    for operation in operations(&document) {
        let Some(examples) = operation.body.as_ref().and_then(|body| body["examples"].as_array()) else {
            continue;
        };
        for example in examples {
            let reply = allowed(request(&story, &operation, Some(example)), &operation, &ada).send().await;
            assert_ne!(
                reply.json["code"], "request.invalid_body",
                "{} {example}: {}",
                operation.path, reply.json
            );
        }
        without.remove(&operation.path);
    }
    assert!(without.is_empty(), "{without:?}");
}

#[tokio::test]
async fn every_operation_that_reads_an_idempotency_key_documents_the_header() {
    let story = with_service_key().await;
    let ada = story.administrator("ada@example.com").await;
    let document = document();
    let mut reading = BTreeSet::new();
    // Those of the accounts would end the session that the others need.
    let is_asked = |operation: &Operation| {
        operation.method != Method::GET
            && !["/auth/", "/logout"].iter().any(|part| operation.path.contains(part))
    };
    for operation in operations(&document).into_iter().filter(is_asked) {
        let body = operation.body.as_ref().map(|schema| sample(&document, schema));
        let request = request(&story, &operation, body.as_ref()).header("idempotency-key", "");
        let refused = allowed(request, &operation, &ada).send().await;
        let method = operation.method.as_str().to_lowercase();
        let parameters = document["paths"][&operation.path][method]["parameters"].as_array();
        let header =
            parameters.into_iter().flatten().find(|parameter| parameter["name"] == "Idempotency-Key");
        let in_body =
            operation.body.as_ref().is_some_and(|body| body["properties"].get("idempotencyKey").is_some());
        assert_eq!(header.is_some(), in_body, "{}", operation.path);
        if refused.json["code"] == "request.invalid_header" {
            let schema = &header.unwrap_or_else(|| panic!("{} reads it", operation.path))["schema"];
            assert_eq!((&schema["minLength"], &schema["maxLength"]), (&json!(1), &json!(255)));
            reading.insert(operation.path.clone());
        }
    }
    for path in ["use", "holds", "holds/{id}/capture", "holds/{id}/release", "holds/{id}/extend"] {
        assert!(reading.contains(&format!("/api/v1/credits/{path}")), "{reading:?}");
    }
}

fn with(body: &Value, name: &str, value: Value) -> Value {
    let mut changed = body.clone();
    changed[name] = value;
    changed
}

#[tokio::test]
async fn every_answer_has_a_documented_status_and_shows_one_user_nothing_of_another() {
    let story = Story::new().await;
    let (ada, bob) = (story.administrator("ada@example.com").await, story.user("bob@example.com").await);
    let document = document();
    for operation in operations(&document) {
        // The last one would end the session that the others need.
        if operation.path.ends_with("/logout") {
            continue;
        }
        let body = operation.body.as_ref().map(|schema| sample(&document, schema));
        let attempts: [(&str, Option<&User>); 3] =
            [("nobody", None), ("ada", Some(&ada)), ("bob", Some(&bob))];
        for (who, user) in attempts {
            let mut attempt = request(&story, &operation, body.as_ref()).header("x-user-id", &ada.id);
            if let Some(user) = user {
                attempt = attempt.bearer(&user.access_token);
            }
            let reply = attempt.send().await;
            let status = reply.status.as_u16();
            assert!(
                operation.statuses.contains(&status),
                "{} {} answers {who} with {status}, undocumented",
                operation.method,
                operation.path
            );
            assert!(status < 500, "{} {} {}", operation.method, operation.path, reply.json);
            let text = String::from_utf8_lossy(&reply.bytes).into_owned();
            let shows_ada = text.contains(&ada.id) || text.contains(&ada.email);
            assert!(who == "ada" || !shows_ada, "{} {} shows ada to {who}", operation.method, operation.path);
        }
    }
}

#[test]
fn every_operation_has_a_name_of_its_own() {
    let document = document();
    let items = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap());
    let mut names: Vec<_> = items.map(|(_, operation)| operation["operationId"].as_str().unwrap()).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(
        names.len(),
        all,
        "two of a name make one function of a client that is made from the document"
    );
}

#[tokio::test]
async fn every_path_refuses_other_methods_and_says_which_it_takes() {
    let story = Story::new().await;
    let document = document();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            if item.get(method.as_str().to_lowercase()).is_some() {
                continue;
            }
            let refused = story.client.request(method.clone(), &filled(path)).send().await;
            assert_eq!(
                (refused.status.as_u16(), refused.problem()),
                (405, "request.method_not_allowed"),
                "{method} {path}"
            );
            assert!(!refused.headers["allow"].is_empty());
        }
    }
}

/// Everything that is stored, table by table.
pub(crate) async fn stored(story: &Story) -> Vec<(String, String)> {
    let mut owner = story.database.owner().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
         WHERE nspname IN ('auth', 'credits') AND relkind = 'r' ORDER BY 1",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    let mut stored = Vec::new();
    for table in tables {
        let rows = format!(
            "SELECT coalesce(string_agg(line::text, chr(10) ORDER BY line::text), '') FROM {table} line"
        );
        stored.push((
            table,
            sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_one(&mut owner).await.unwrap(),
        ));
    }
    stored
}

/// Everything of a schema of which nothing says how long or large it may be.
fn unbounded(document: &Value, schema: &Value, place: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let named = document.pointer(reference.trim_start_matches('#')).unwrap();
        // What apps write at their spends is theirs: 8 KiB of any JSON.
        if reference.ends_with("/Metadata") && named["maxProperties"].is_u64() {
            return;
        }
        return unbounded(document, named, place, found);
    }
    let parts = ["allOf", "oneOf", "anyOf"].iter().filter_map(|all| schema[*all].as_array()).flatten();
    for part in parts {
        unbounded(document, part, place, found);
    }
    let kinds: Vec<_> = match schema["type"].as_array() {
        Some(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        None => schema["type"].as_str().into_iter().collect(),
    };
    let has = |names: &[&str]| names.iter().all(|name| schema.get(*name).is_some());
    let is_fixed = schema.get("enum").is_some()
        || ["uuid", "date", "date-time"].contains(&schema["format"].as_str().unwrap_or_default());
    let is_bounded = kinds.iter().all(|kind| match *kind {
        "string" => is_fixed || has(&["maxLength"]),
        "integer" | "number" => has(&["minimum", "maximum"]),
        "array" => has(&["maxItems"]),
        "object" => {
            has(&["properties"])
                || has(&["maxProperties"]) && schema["additionalProperties"].is_object()
                || schema["additionalProperties"] == json!(false)
        }
        _ => true,
    });
    let is_nothing = kinds.is_empty() && !has(&["allOf"]) && !has(&["oneOf"]) && !has(&["anyOf"]);
    if !is_bounded || is_nothing {
        found.push(place.to_owned());
    }
    if kinds.contains(&"array") {
        unbounded(document, &schema["items"], &format!("{place}/*"), found);
    }
    if schema["additionalProperties"].is_object() {
        unbounded(document, &schema["additionalProperties"], &format!("{place}/*"), found);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        unbounded(document, property, &format!("{place}/{name}"), found);
    }
}

#[tokio::test]
async fn every_field_of_a_request_and_of_an_answer_has_bounds() {
    let document = document();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            let request = operation["requestBody"]["content"].as_object();
            let answers = operation["responses"].as_object().unwrap().values();
            for (name, header) in answers.clone().filter_map(|answer| answer["headers"].as_object()).flatten()
            {
                unbounded(&document, &header["schema"], &format!("{place} {name}"), &mut found);
            }
            let answers = answers.filter_map(|answer| answer["content"].as_object()).flatten();
            // A page is a page however long, and no field.
            let answers = answers.filter(|(media_type, _)| media_type.ends_with("json"));
            for (_, content) in request.into_iter().flatten().chain(answers) {
                unbounded(&document, &content["schema"], &place, &mut found);
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let place = format!("{place}?{}", parameter["name"].as_str().unwrap());
                unbounded(&document, &parameter["schema"], &place, &mut found);
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test]
async fn a_get_changes_nothing() {
    let story = with_service_key().await;
    let old = story.user("ada@example.com").await;
    // A day's credits and a cookie's renewal are due.
    story.clock.advance(Duration::days(2));
    story.execute("UPDATE credits.balances SET daily_granted_on = daily_granted_on - 2").await;
    let ada = story.sign_in("ada@example.com").await;
    let claim = story.claim_link().await.unwrap();
    story.set_role(&ada, "admin").await;
    let mut changing = Vec::new();
    for operation in operations(&document()).into_iter().filter(|operation| operation.method == Method::GET) {
        let path = match operation.path.as_str() {
            "/claim-admin" => claim.clone(),
            "/not-me" => format!("/not-me?token=mnm_{}", "A".repeat(43)),
            path => filled(path),
        };
        for method in [Method::HEAD, Method::GET] {
            let before = stored(&story).await;
            let request = allowed(story.client.request(method, &path), &operation, &ada);
            let reply = request.header("cookie", &old.cookie).send().await;
            assert!(
                reply.status.is_success() || reply.status.is_redirection() || reply.status == 404,
                "{path} {}",
                reply.json
            );
            if stored(&story).await != before {
                changing.push(operation.path.clone());
            }
        }
    }
    // On the first touch of a day, and for a cookie that is in use.
    assert_eq!(changing, ["/api/auth/get-session", "/api/v1/credits/balance"]);
}

#[tokio::test]
async fn an_operation_that_needs_no_credential_documents_no_refusal_for_want_of_one() {
    let document = document();
    let said: Vec<_> = operations(&document)
        .into_iter()
        .filter(|operation| {
            ["/api/auth/get-session", "/api/auth/sign-out"].contains(&operation.path.as_str())
        })
        .collect();
    assert_eq!(said.len(), 2);
    assert!(said.iter().all(|operation| !operation.statuses.contains(&401)));
    assert!(
        operations(&document)
            .iter()
            .all(|operation| !operation.needs_bearer || operation.statuses.contains(&401))
    );
}
