//! A page of a foreign site can't make its visitor's browser write here; pages of the family and programs can.

use crate::story::{PASSWORD, Story};
use http::Method;
use serde_json::json;

const LOOK_ALIKES: [&str; 8] = [
    "https://evil.example",
    "null",
    "http://localhost:3000.evil.example",
    "http://localhost:30000",
    "https://localhost:3000",
    "http://user@localhost:3000",
    "http://localhost:3000/",
    "http://LOCALHOST:3000",
];

#[tokio::test]
async fn a_foreign_page_can_neither_sign_its_visitor_in_nor_out() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let credentials = json!({"email": "ada@example.com", "password": PASSWORD}).to_string();
    for origin in LOOK_ALIKES {
        for media_type in ["application/json", "text/plain", "application/x-www-form-urlencoded"] {
            let sign_in = story
                .client
                .request(Method::POST, "/api/v1/auth/login")
                .body(media_type, credentials.clone())
                .header("origin", origin)
                .header("sec-fetch-site", "cross-site")
                .send()
                .await;
            assert_eq!(
                (sign_in.status.as_u16(), sign_in.problem()),
                (403, "request.foreign_site"),
                "{origin} {media_type}"
            );
            assert!(!sign_in.headers.contains_key("set-cookie"));
        }
        let sign_out = story
            .client
            .request(Method::POST, "/api/v1/auth/logout")
            .header("cookie", &ada.cookie)
            .header("origin", origin)
            .send()
            .await;
        assert_eq!((sign_out.status.as_u16(), sign_out.problem()), (403, "request.foreign_site"), "{origin}");
    }
    assert_eq!(story.get("/api/v1/auth/me", &ada).await.status, 200, "still signed in");
}

#[tokio::test]
async fn the_refusal_names_the_origin_and_where_it_is_missing() {
    let story = Story::new().await;
    let sign_in = async |origin: &str| {
        let request =
            story.client.post("/api/v1/auth/login", &json!({"email": "a@example.com", "password": PASSWORD}));
        request.header("origin", origin).header("sec-fetch-site", "cross-site").send().await
    };
    let refused = sign_in("http://localhost:5173").await;
    assert_eq!(
        refused.text("/detail"),
        "Pages of http://localhost:5173 may not write here: CORS_ORIGINS of this service does not name that origin"
    );
    assert_eq!(refused.text("/message"), "Pages of this site may not write here");
    // What could not stand there is not repeated.
    let long = format!("https://{}.example", "a".repeat(300));
    for origin in ["null", "https://evil.example/<script>", "Evil!", long.as_str()] {
        let refused = sign_in(origin).await;
        assert_eq!(refused.problem(), "request.foreign_site");
        let detail = refused.text("/detail");
        assert!(detail.contains("CORS_ORIGINS") && !detail.to_lowercase().contains("evil"), "{detail}");
        assert!(detail.len() < 200, "{detail}");
    }
}

#[tokio::test]
async fn a_browser_that_hides_the_origin_is_not_trusted_across_sites() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    for site in ["cross-site", "same-site"] {
        let sign_out =
            story.client.request(Method::POST, "/api/v1/auth/logout").header("cookie", &ada.cookie);
        assert_eq!(sign_out.header("sec-fetch-site", site).send().await.status, 403, "{site}");
    }
    assert_eq!(story.get("/api/v1/auth/me", &ada).await.status, 200);
}

#[tokio::test]
async fn pages_of_the_family_this_service_and_programs_may_write() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let credentials = json!({"email": "ada@example.com", "password": PASSWORD});
    let login = || story.client.post("/api/v1/auth/login", &credentials);
    assert_eq!(
        login()
            .header("origin", "http://localhost:3000")
            .header("sec-fetch-site", "same-site")
            .send()
            .await
            .status,
        200
    );
    assert_eq!(
        login()
            .header("origin", "http://localhost:3001")
            .header("sec-fetch-site", "same-origin")
            .send()
            .await
            .status,
        200
    );
    assert_eq!(login().send().await.status, 200, "a program sends neither header");
}
