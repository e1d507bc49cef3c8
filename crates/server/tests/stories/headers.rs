//! What every answer carries: the request's id, what a browser may do with it, and who may read it from another origin.

use crate::story::{PASSWORD, Story};
use http::Method;
use mana_testkit::{Reply, Request};
use serde_json::json;
use std::collections::BTreeSet;

const ME: &str = "/api/v1/auth/me";
const LOGIN: &str = "/api/v1/auth/login";
const FOREIGN_ORIGINS: [&str; 16] = [
    "http://localhost:3000.evil.test",
    "http://localhost:30000",
    "http://localhost",
    "http://localhost:",
    "http://localhost:3000/",
    "http://localhost:3000@evil.test",
    "http://evil.test#http://localhost:3000",
    "http://evil.test/http://localhost:3000",
    "http://localhost:3000,http://evil.test",
    "http://localhost:3000 http://evil.test",
    "https://localhost:3000",
    "https://localhost:8081",
    "http://LOCALHOST:3000",
    "http://127.0.0.1:3000",
    "null",
    "*",
];

/// An answer of each sort: success, refusal, no such path, unreadable body.
async fn answers(story: &Story, token: &str, prepare: impl Fn(Request) -> Request) -> Vec<Reply> {
    let requests = [
        story.client.get(ME).bearer(token),
        story.client.get("/api/v1/auth/jwks"),
        story.client.post(LOGIN, &json!({"email": "ada@example.com", "password": PASSWORD})),
        story.client.get(ME),
        story.client.post(LOGIN, &json!({"email": "ada@example.com", "password": "wrong"})),
        story.client.post(LOGIN, &json!([])),
        story.client.get("/nothing/here"),
        story.client.get(LOGIN),
        story.client.request(Method::POST, LOGIN).body("application/json", "x".repeat(65 * 1024)),
        story.client.get("/health/live"),
    ];
    let mut replies = Vec::new();
    for request in requests {
        replies.push(prepare(request).send().await);
    }
    let statuses: Vec<_> = replies.iter().map(|reply| reply.status.as_u16()).collect();
    assert_eq!(statuses, [200, 200, 200, 401, 401, 400, 404, 405, 413, 200]);
    replies
}

fn words(reply: &Reply, header: &str) -> BTreeSet<String> {
    let values = reply.headers.get_all(header).iter().map(|value| value.to_str().unwrap());
    values
        .flat_map(|value| value.split(','))
        .map(|word| word.trim().to_ascii_lowercase())
        .filter(|word| !word.is_empty())
        .collect()
}

fn id(reply: &Reply) -> &str {
    let ids: Vec<_> = reply.headers.get_all("x-request-id").iter().collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    ids[0].to_str().unwrap()
}

#[tokio::test]
async fn every_answer_has_a_request_id_of_its_own() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let replies = answers(&story, &ada.access_token, |request| request).await;
    let ids: BTreeSet<_> = replies.iter().map(id).collect();
    assert_eq!(ids.len(), replies.len());
    for reply in replies.iter().filter(|reply| !reply.status.is_success()) {
        reply.problem();
        assert_eq!(reply.text("/instance"), id(reply), "the problem names the request");
    }
}

#[tokio::test]
async fn a_harmless_request_id_is_kept_and_any_other_replaced() {
    let story = Story::new().await;
    for harmless in ["1", "abc-123_X", "0198c9d2-7f6a-7c31-9d0e-3f6f0c2b8a11", &"x".repeat(64)] {
        let reply = story.client.get(ME).header("x-request-id", harmless).send().await;
        assert_eq!((id(&reply), reply.text("/instance")), (harmless, harmless));
    }
    for harmful in [
        "",
        " ",
        "a b",
        "a'b",
        "a\"b",
        "<script>",
        "a;b",
        "../a",
        "a\tb",
        "\u{e9}",
        "${jndi:x}",
        &"x".repeat(65),
        &"x".repeat(10_000),
    ] {
        let reply = story.client.get(ME).header("x-request-id", harmful).send().await;
        assert_ne!(id(&reply), harmful);
        assert_eq!(id(&reply).len(), 36, "a new one: {}", id(&reply));
        assert_eq!(reply.text("/instance"), id(&reply));
    }
}

#[tokio::test]
async fn every_answer_tells_browsers_to_be_careful() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    for reply in answers(&story, &ada.access_token, |request| request).await {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "cross-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("x-permitted-cross-domain-policies", "none"),
        ] {
            assert_eq!(
                reply.headers.get_all(name).iter().collect::<Vec<_>>(),
                [value],
                "{name} {}",
                reply.status
            );
        }
        let policy = reply.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        let transport = reply.headers["strict-transport-security"].to_str().unwrap();
        assert!(transport.starts_with("max-age=") && transport.contains("includeSubDomains"), "{transport}");
        assert!(!reply.headers.contains_key("x-powered-by") && !reply.headers.contains_key("server"));
    }
}

#[tokio::test]
async fn an_answer_with_tokens_or_a_refusal_is_not_stored() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let refreshed = story.refresh(&ada.refresh_token).await;
    assert_eq!(refreshed.headers["cache-control"], "no-store");
    for reply in answers(&story, &ada.access_token, |request| request).await {
        if !reply.status.is_success() || reply.json["accessToken"].is_string() {
            assert_eq!(reply.headers["cache-control"], "no-store", "{}", reply.json);
        }
    }
}

#[tokio::test]
async fn an_allowed_origin_is_echoed_exactly() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    for origin in ["http://localhost:3000", "http://localhost:8081"] {
        for reply in answers(&story, &ada.access_token, |request| request.header("origin", origin)).await {
            let echoed: Vec<_> = reply.headers.get_all("access-control-allow-origin").iter().collect();
            assert_eq!(echoed, [origin], "{}", reply.status);
            assert_eq!(reply.headers["access-control-allow-credentials"], "true");
            assert!(words(&reply, "vary").contains("origin"), "{:?}", reply.headers);
            assert!(words(&reply, "access-control-expose-headers").contains("x-request-id"));
        }
    }
}

#[tokio::test]
async fn an_origin_that_only_looks_allowed_is_not_echoed() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    for origin in FOREIGN_ORIGINS {
        let reply = story.client.get(ME).bearer(&ada.access_token).header("origin", origin).send().await;
        assert!(!reply.headers.contains_key("access-control-allow-origin"), "{origin}");
        assert!(words(&reply, "vary").contains("origin"), "{origin}: no cache may mix the two up");
        let refused = story.client.get(ME).header("origin", origin).send().await;
        assert!(!refused.headers.contains_key("access-control-allow-origin"), "{origin}");
        let preflight = story.client.request(Method::OPTIONS, LOGIN).header("origin", origin);
        let reply = preflight.header("access-control-request-method", "POST").send().await;
        assert!(!reply.headers.contains_key("access-control-allow-origin"), "{origin}");
    }
    let reply = story.client.get(ME).bearer(&ada.access_token).send().await;
    assert!(!reply.headers.contains_key("access-control-allow-origin"), "no origin, nothing to allow");
}

#[tokio::test]
async fn the_origins_are_the_operator_s() {
    let story =
        Story::with(|settings| settings.cors_origins = vec!["https://chat.example.com".parse().unwrap()])
            .await;
    for (origin, is_allowed) in [
        ("https://chat.example.com", true),
        ("http://chat.example.com", false),
        ("https://example.com", false),
        ("https://x.chat.example.com", false),
        ("https://chat.example.com:8443", false),
        ("https://chat.example.com:443", false),
        ("http://localhost:3000", false),
    ] {
        let reply = story.client.get("/api/v1/auth/jwks").header("origin", origin).send().await;
        let echoed = reply.headers.get("access-control-allow-origin").map(|value| value.to_str().unwrap());
        assert_eq!(echoed, is_allowed.then_some(origin), "{origin}");
    }
}

#[tokio::test]
async fn a_preflight_lists_what_the_clients_use() {
    let story = Story::new().await;
    for path in [LOGIN, ME, "/api/v1/auth/refresh", "/api/v1/auth/logout", "/api/v1/credits/use"] {
        let preflight = story
            .client
            .request(Method::OPTIONS, path)
            .header("origin", "http://localhost:3000")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,x-app-id");
        let reply = preflight.send().await;
        assert!(reply.status.is_success(), "{path}: {}", reply.status);
        assert_eq!(reply.headers["access-control-allow-origin"], "http://localhost:3000");
        assert_eq!(reply.headers["access-control-allow-credentials"], "true");
        let methods = words(&reply, "access-control-allow-methods");
        assert_eq!(
            methods,
            BTreeSet::from(["get", "post", "put", "delete", "patch", "options"].map(str::to_owned))
        );
        let headers = words(&reply, "access-control-allow-headers");
        let promised = [
            "content-type",
            "authorization",
            "x-requested-with",
            "x-app-id",
            "x-service-key",
            "idempotency-key",
            "if-match",
        ];
        assert_eq!(headers, BTreeSet::from(promised.map(str::to_owned)));
        assert!(words(&reply, "vary").contains("origin"));
        assert!(reply.bytes.is_empty());
    }
}

#[tokio::test]
async fn a_401_says_how_to_authenticate() {
    let story = Story::new().await;
    let refused = [
        story.client.get(ME).send().await,
        story.client.get(ME).bearer("garbage").send().await,
        story.client.get("/api/v1/credits/balance").send().await,
        story.login("nobody@example.com").await,
        story.refresh("garbage").await,
        story.client.request(Method::POST, "/api/v1/auth/logout").send().await,
    ];
    for reply in refused {
        assert_eq!(reply.status, 401);
        assert!(reply.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        reply.problem();
    }
}

#[tokio::test]
async fn the_address_of_the_service_leads_to_its_documentation() {
    let story = Story::new().await;
    let root = story.client.get("/").send().await;
    assert_eq!((root.status.as_u16(), &root.headers["location"]), (303, &"/docs/".parse().unwrap()));
    let page = story.client.get("/docs/").send().await;
    assert_eq!(page.status, 200);
    let html = String::from_utf8_lossy(&page.bytes);
    for part in
        ["<title>API · Mana Core Auth</title>", r#"<meta name="viewport" content="width=device-width"#]
    {
        assert!(html.contains(part), "no {part} in {html}");
    }
    let named = html.split('"').filter_map(|text| text.strip_prefix("./"));
    let named: Vec<_> = named.map(|name| format!("/docs/{name}")).collect();
    assert_eq!(named.len(), 6);
    for path in named {
        let part = story.client.get(&path).send().await;
        assert_eq!((part.status.as_u16(), part.bytes.is_empty()), (200, false), "{path}");
        let initializer = String::from_utf8_lossy(&part.bytes).contains("/openapi.json");
        assert_eq!(initializer, path.ends_with("initializer.js"), "{path} leads to the document");
    }
    // Anybody may ask as often as he likes, so that nothing is made for it: the same memory each time.
    for (path, media_type) in
        [("/openapi.json", "application/json"), ("/docs/errors", "text/html; charset=utf-8")]
    {
        let [first, second] = [story.client.get(path).send().await, story.client.get(path).send().await];
        assert_eq!((first.status.as_u16(), first.bytes.is_empty()), (200, false), "{path}");
        assert_eq!(first.bytes.as_ptr(), second.bytes.as_ptr(), "{path} is made for each who asks");
        assert_eq!(first.headers["content-type"], media_type);
        assert_eq!(first.headers["cache-control"], "public, max-age=300");
    }
    assert_eq!(story.client.get("/docs").send().await.headers["location"], "/docs/");
    assert_eq!(story.client.get("/docs/no-such-part.js").send().await.problem(), "request.unknown_path");
}
