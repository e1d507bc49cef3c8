//! Requests that nobody should send: each has one answer, a problem that repeats nothing secret and is never our fault.

use crate::story::Story;
use http::Method;
use mana_testkit::{Reply, Request};
use serde_json::{Value, json};

/// Sent as password and token wherever one goes; no answer may say it.
const SECRET: &str = "hunter2-secret-value";
const JSON: &str = "application/json";

/// Every operation that takes a body, with one that fits it.
fn operations() -> [(&'static str, Value); 5] {
    [
        ("/api/v1/auth/register", json!({"email": "ada@example.com", "password": SECRET})),
        ("/api/v1/auth/login", json!({"email": "ada@example.com", "password": SECRET})),
        ("/api/v1/auth/refresh", json!({"refreshToken": SECRET})),
        ("/api/v1/auth/logout", json!({"refreshToken": SECRET})),
        ("/api/v1/auth/validate", json!({"token": SECRET})),
    ]
}

fn post(story: &Story, path: &str, media_type: &str, body: impl Into<bytes::Bytes>) -> Request {
    story.client.request(Method::POST, path).body(media_type, body)
}

/// A whole problem that keeps the secret; its status and code.
fn refusal<'a>(reply: &'a Reply, what: &str) -> (u16, &'a str) {
    assert!(reply.status.is_client_error(), "{what}: {} {}", reply.status, reply.json);
    assert!(!String::from_utf8_lossy(&reply.bytes).contains("hunter2"), "{what}: {}", reply.json);
    assert!(
        reply.headers.iter().all(|(_, value)| !String::from_utf8_lossy(value.as_bytes()).contains("hunter2")),
        "{what}"
    );
    (reply.status.as_u16(), reply.problem())
}

/// Nothing that was refused has left a trace.
async fn nothing_happened(story: &Story) {
    let rows = "SELECT (SELECT count(*) FROM auth.users) + (SELECT count(*) FROM auth.sessions)";
    assert_eq!(story.number(rows).await, 0);
}

#[tokio::test]
async fn what_is_not_json_is_refused() {
    let story = Story::new().await;
    let nested = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    for (path, good) in operations() {
        let name = good.as_object().unwrap().keys().next_back().unwrap().clone();
        for body in [
            SECRET.as_bytes().to_vec(),
            format!("{{\"{name}\": \"{SECRET}\"").into_bytes(),
            format!("{{\"{name}\": '{SECRET}'}}").into_bytes(),
            format!("{{{name}: \"{SECRET}\"}}").into_bytes(),
            format!("{good}x").into_bytes(),
            format!("{good}{good}").into_bytes(),
            format!("\u{feff}{good}").into_bytes(),
            format!("{{\"{name}\": \"{SECRET}\\ud800\"}}").into_bytes(),
            format!("{{\"{name}\": \"\\udc00{SECRET}\"}}").into_bytes(),
            format!("{{\"{name}\": \"{SECRET}\\x\"}}").into_bytes(),
            format!("{{\"{name}\": \"{SECRET}\n\"}}").into_bytes(),
            format!("{{\"{name}\": NaN}}").into_bytes(),
            format!("{{\"{name}\": 1e999}}").into_bytes(),
            format!("// {SECRET}\n{good}").into_bytes(),
            format!("{},}}", &good.to_string()[..good.to_string().len() - 1]).into_bytes(),
            [b"{\"".as_slice(), name.as_bytes(), b"\": \"", &[0xff, 0xfe], SECRET.as_bytes(), b"\"}"]
                .concat(),
            nested("[", "]").into_bytes(),
            nested("{\"a\":", "").into_bytes(),
            format!("{{\"{name}\": {}}}", nested("[", "]")).into_bytes(),
            format!("email=ada%40example.com&{name}={SECRET}").into_bytes(),
            b" ".to_vec(),
        ] {
            let what = format!("{path} {}", String::from_utf8_lossy(&body[..body.len().min(80)]));
            let reply = post(&story, path, JSON, body).send().await;
            assert_eq!(refusal(&reply, &what), (400, "request.malformed_json"), "{what}");
        }
    }
    nothing_happened(&story).await;
}

#[tokio::test]
async fn json_that_is_no_object_is_refused() {
    let story = Story::new().await;
    for (path, good) in operations() {
        let mut bodies = vec![json!([good]), json!([]), json!(SECRET), json!(7), Value::Null, json!(true)];
        let mut in_order: Vec<_> = good.as_object().unwrap().values().cloned().collect();
        for _ in 0..4 {
            bodies.push(json!(in_order));
            in_order.push(Value::Null);
        }
        for body in bodies {
            let reply = post(&story, path, JSON, body.to_string()).send().await;
            let what = format!("{path} {body}");
            assert_eq!(refusal(&reply, &what), (400, "request.invalid_body"), "{what}");
        }
    }
    nothing_happened(&story).await;
}

#[tokio::test]
async fn an_empty_body_is_refused_where_one_is_needed() {
    let story = Story::new().await;
    for (path, _) in operations() {
        let (typed, untyped) = if path.ends_with("/logout") { (401, 401) } else { (400, 415) };
        let reply = post(&story, path, JSON, "").send().await;
        assert_eq!(refusal(&reply, path).0, typed, "{path}");
        let reply = story.client.request(Method::POST, path).send().await;
        assert_eq!(refusal(&reply, path).0, untyped, "{path}");
    }
}

#[tokio::test]
async fn a_body_of_another_media_type_is_refused() {
    let story = Story::new().await;
    for (path, good) in operations() {
        for media_type in [
            "text/plain",
            "text/plain; charset=application/json",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonp",
            "application/json, text/plain",
            "application/octet-stream",
            "*/*",
            "",
        ] {
            let reply = post(&story, path, media_type, good.to_string()).send().await;
            let what = format!("{path} {media_type}");
            assert_eq!(refusal(&reply, &what), (415, "request.unsupported_media_type"), "{what}");
        }
    }
    nothing_happened(&story).await;
    for media_type in
        ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8"]
    {
        let reply =
            post(&story, "/api/v1/auth/validate", media_type, json!({"token": "x"}).to_string()).send().await;
        assert_eq!(reply.status, 200, "{media_type}");
    }
}

#[tokio::test]
async fn fields_that_are_unknown_missing_or_of_a_wrong_type_are_named() {
    let story = Story::new().await;
    for (path, good) in operations() {
        for unknown in ["extra", "admin", "", "a/b~c", "Password", "email\u{0}"] {
            let mut body = good.clone();
            body[unknown] = json!(SECRET);
            let reply = story.post(path, &body).await;
            assert_eq!(refusal(&reply, path), (400, "request.invalid_body"), "{path} {unknown:?}");
            let pointer = format!("/{}", unknown.replace('~', "~0").replace('/', "~1"));
            assert_eq!(
                (reply.text("/errors/0/pointer"), reply.text("/errors/0/code")),
                (pointer.as_str(), "unknown")
            );
        }
        let is_optional = path.ends_with("/logout");
        for name in good.as_object().unwrap().keys() {
            for wrong in
                [json!(7), json!(-1.5), json!(true), json!([SECRET]), json!({"$ne": SECRET}), Value::Null]
            {
                if is_optional && wrong.is_null() {
                    continue;
                }
                let mut body = good.clone();
                body[name] = wrong.clone();
                let reply = story.post(path, &body).await;
                assert_eq!(refusal(&reply, path), (400, "request.invalid_body"), "{path} {name} {wrong}");
                assert_eq!(
                    (reply.text("/errors/0/pointer"), reply.text("/errors/0/code")),
                    (format!("/{name}").as_str(), "wrong_type")
                );
            }
            let mut body = good.clone();
            body.as_object_mut().unwrap().remove(name);
            let reply = story.post(path, &body).await;
            if is_optional {
                assert_eq!(refusal(&reply, path).0, 401);
            } else {
                assert_eq!(refusal(&reply, path), (400, "request.invalid_body"), "{path} without {name}");
                assert_eq!(
                    (reply.text("/errors/0/pointer"), reply.text("/errors/0/code")),
                    (format!("/{name}").as_str(), "missing")
                );
            }
        }
    }
    for wrong in [json!(1), json!("true"), json!([true]), json!({})] {
        let body = json!({"email": "ada@example.com", "password": SECRET, "rememberMe": wrong});
        assert_eq!(
            refusal(&story.post("/api/v1/auth/login", &body).await, "rememberMe"),
            (400, "request.invalid_body")
        );
    }
    nothing_happened(&story).await;
}

#[tokio::test]
async fn a_member_given_twice_is_refused() {
    let story = Story::new().await;
    for (path, good) in operations() {
        for (name, value) in good.as_object().unwrap() {
            for (first, label) in [(value.clone(), "the same"), (json!("other"), "another")] {
                let body = format!("{{{}:{first},{}", json!(name), &good.to_string()[1..]);
                let reply = post(&story, path, JSON, body).send().await;
                assert_eq!(refusal(&reply, path), (400, "request.invalid_body"), "{path} {name}, {label}");
                assert_eq!(reply.text("/errors/0/code"), "duplicate");
            }
            let escaped = format!(
                "{{\"\\u{:04x}{}\":\"x\",{}",
                u32::from(name.chars().next().unwrap()),
                &name[1..],
                &good.to_string()[1..]
            );
            let reply = post(&story, path, JSON, escaped).send().await;
            assert_eq!(refusal(&reply, path), (400, "request.invalid_body"), "{path} {name}, escaped");
        }
    }
    nothing_happened(&story).await;
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused_and_one_of_just_that_is_read() {
    let story = Story::new().await;
    let huge = format!("{SECRET}{}", "x".repeat(10 << 20));
    for (path, good) in operations() {
        let padded = |length: usize| format!("{}{good}", " ".repeat(length - good.to_string().len()));
        let reply = post(&story, path, JSON, padded(64 * 1024 + 1)).send().await;
        assert_eq!(refusal(&reply, path), (413, "request.body_too_large"), "{path}");
        let reply = post(&story, path, JSON, good.to_string().replace(SECRET, &huge)).send().await;
        assert_eq!(refusal(&reply, path), (413, "request.body_too_large"), "{path}: 10 MB");
    }
    nothing_happened(&story).await;
    let padded = format!("{}{}", " ".repeat(64 * 1024 - 13), json!({"token": "x"}));
    assert_eq!(padded.len(), 64 * 1024);
    assert_eq!(post(&story, "/api/v1/auth/validate", JSON, padded).send().await.status, 200);
}

#[tokio::test]
async fn the_answer_to_a_good_request_keeps_the_password_too() {
    let story = Story::new().await;
    for (path, good) in operations() {
        let reply = story.post(path, &good).await;
        assert!(!reply.status.is_server_error());
        assert!(!String::from_utf8_lossy(&reply.bytes).contains("hunter2"), "{path}: {}", reply.json);
    }
    let taken = story.post("/api/v1/auth/register", &operations()[0].1).await;
    assert_eq!(refusal(&taken, "register again"), (409, "auth.email_taken"));
    let wrong = json!({"email": "ada@example.com", "password": format!("{SECRET}?")});
    assert_eq!(refusal(&story.post("/api/v1/auth/login", &wrong).await, "login").0, 401);
    let long = json!({"email": "bob@example.com", "password": SECRET.repeat(10)});
    assert_eq!(refusal(&story.post("/api/v1/auth/register", &long).await, "register").0, 400);
    let as_address = json!({"email": format!("{SECRET} @example.com"), "password": SECRET});
    assert_eq!(refusal(&story.post("/api/v1/auth/register", &as_address).await, "register").0, 400);
}

#[tokio::test]
async fn an_authorization_header_that_is_none_of_ours_is_refused() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let token = &ada.access_token;
    let huge = format!("Bearer {}", "A".repeat(100 * 1024));
    let me = || story.client.get("/api/v1/auth/me");
    for value in [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Bearer  ",
        "Basic x",
        &format!("Basic {token}"),
        &format!("Token {token}"),
        token,
        &format!("Bearer{token}"),
        &format!("Bearer  {token}"),
        &format!("Bearer {token} {token}"),
        &format!("Bearer {token}, Bearer {token}"),
        &format!("Bearer \"{token}\""),
        &format!("Bearer token={token}"),
        &format!("Bearer\t{token}"),
        &format!("Bearer {token}\u{e9}"),
    ] {
        let reply = me().header("authorization", value).send().await;
        assert_eq!(refusal(&reply, value), (401, "auth.unauthenticated"), "{value:?}");
    }
    let twice = me().bearer(token).bearer(token).send().await;
    assert_eq!(refusal(&twice, "two headers").0, 401);
    let twice = me().header("authorization", "Basic x").bearer(token).send().await;
    assert_eq!(refusal(&twice, "two schemes").0, 401);
    let reply = me().header("authorization", &huge).send().await;
    assert!([401, 431].contains(&refusal(&reply, "100 KB").0));
    for elsewhere in [
        story.client.get(&format!("/api/v1/auth/me?access_token={token}")),
        story.client.get(&format!("/api/v1/auth/me?token={token}")),
        me().header("x-access-token", token),
        me().header("cookie", &format!("access_token={token}")),
    ] {
        assert_eq!(refusal(&elsewhere.send().await, "a token elsewhere").0, 401);
    }
    assert_eq!(
        me().header("authorization", &format!("bearer {token}")).send().await.status,
        200,
        "the scheme has no case"
    );
}

#[tokio::test]
async fn an_unknown_path_is_404() {
    let story = Story::new().await;
    for path in [
        "/api/v1/auth",
        "/api/v1/auth/",
        "/api/v1/auth/nothing",
        "/api/v1/auth/me/",
        "/api/v1/auth/me/x",
        "/api/v2/auth/me",
        "/auth/me",
        "/API/V1/AUTH/ME",
        "//api/v1/auth/me",
        "/api/v1/auth/../auth/me",
        "/api/v1/auth/me%00",
        "/api/v1/auth/%6de%2f",
        "/.env",
        "/.well-known/other",
        "/%ff%fe",
        "/api/v1/auth/hunter2-secret-value",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let reply = story.client.request(method.clone(), path).send().await;
            assert_eq!(refusal(&reply, path), (404, "request.unknown_path"), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_405_and_the_others_are_named() {
    let story = Story::new().await;
    for (path, allowed) in [
        ("/api/v1/auth/register", "POST"),
        ("/api/v1/auth/login", "POST"),
        ("/api/v1/auth/refresh", "POST"),
        ("/api/v1/auth/logout", "POST"),
        ("/api/v1/auth/validate", "POST"),
        ("/api/v1/auth/me", "GET"),
        ("/api/v1/auth/session", "GET"),
        ("/api/v1/auth/jwks", "GET"),
        ("/.well-known/jwks.json", "GET"),
    ] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"] {
            if method == allowed {
                continue;
            }
            let request = story.client.request(method.parse().unwrap(), path);
            let reply = request.header("x-http-method-override", allowed).send().await;
            assert_eq!(refusal(&reply, path), (405, "request.method_not_allowed"), "{method} {path}");
            let named: Vec<_> = reply.headers["allow"].to_str().unwrap().split(',').map(str::trim).collect();
            assert!(named.contains(&allowed), "{method} {path}: {named:?}");
            assert!(!named.contains(&method), "{method} {path}: {named:?}");
        }
    }
}
