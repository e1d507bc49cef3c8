//! A new account: what is asked of it, what comes with it, and who can't have one.

use crate::credits::books_are_true;
use crate::story::{PASSWORD, Story, members};
use futures_util::future::join_all;
use mana_kernel::Clock as _;
use mana_testkit::Reply;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const REGISTER: &str = "/api/v1/auth/register";
const ACCOUNTS: &str = "SELECT count(*) FROM auth.users";

async fn with_password(story: &Story, email: &str, password: &str) -> Reply {
    story.post(REGISTER, &json!({"email": email, "password": password})).await
}

async fn log_in(story: &Story, email: &str, password: &str) -> u16 {
    story.post("/api/v1/auth/login", &json!({"email": email, "password": password})).await.status.as_u16()
}

/// The request with one more member is refused for that member.
async fn refuses(story: &Story, member: &str, value: Value) {
    let mut body = json!({"email": "ada@example.com", "password": PASSWORD});
    body[member] = value;
    let reply = story.post(REGISTER, &body).await;
    assert_eq!(
        (reply.status.as_u16(), reply.problem()),
        (400, "request.invalid_body"),
        "{member}: {}",
        body[member]
    );
    assert_eq!(reply.text("/errors/0/pointer"), format!("/{member}"));
}

#[tokio::test]
async fn the_answer_is_the_account_flat_and_nested() {
    let story = Story::new().await;
    let body = json!({
        "email": "Ada@Example.com", "password": PASSWORD, "name": "Ada Lovelace", "sourceAppUrl": "https://chat.example.com/start?x=1"
    });
    let reply = story.post(REGISTER, &body).await;
    assert_eq!(reply.status, 201);
    assert_eq!(members(&reply.json), ["createdAt", "email", "emailVerified", "id", "name", "user"]);
    let (id, created_at) = (reply.text("/id"), reply.text("/createdAt"));
    assert_eq!(
        reply.json["user"],
        json!({
            "id": id, "email": "ada@example.com", "name": "Ada Lovelace", "role": "user", "emailVerified": false, "image": null,
            "createdAt": created_at
        })
    );
    for member in ["id", "email", "name", "createdAt", "emailVerified"] {
        assert_eq!(reply.json[member], reply.json["user"][member], "{member}");
    }
    assert!(created_at.ends_with('Z'), "UTC: {created_at}");
    let age = story.clock.now() - OffsetDateTime::parse(created_at, &Rfc3339).unwrap();
    assert!(age.abs() < time::Duration::seconds(1), "{age}");

    let ada = story.sign_in("ada@example.com").await;
    assert_eq!(
        story.get("/api/v1/auth/me", &ada).await.json,
        reply.json["user"],
        "what was answered is what is stored"
    );
}

#[tokio::test]
async fn a_name_is_not_needed() {
    let story = Story::new().await;
    for (email, name) in
        [("a@example.com", None), ("b@example.com", Some(Value::Null)), ("c@example.com", Some(json!("")))]
    {
        let mut body = json!({"email": email, "password": PASSWORD});
        if let Some(name) = name {
            body["name"] = name;
        }
        let reply = story.post(REGISTER, &body).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json["name"], &reply.json["user"]["name"]),
            (201, &Value::Null, &Value::Null)
        );
    }
}

#[tokio::test]
async fn an_address_has_one_account_in_whatever_spelling() {
    let story = Story::new().await;
    for (first, spellings) in [
        ("ada@example.com", &["ada@example.com", "Ada@Example.COM", "ADA@EXAMPLE.COM"][..]),
        (
            "jos\u{e9}@example.com",
            &["jose\u{301}@example.com", "JOS\u{c9}@example.com", "JOSE\u{301}@EXAMPLE.com"],
        ),
        (
            "a@b\u{fc}cher.example",
            &[
                "a@bu\u{308}cher.example",
                "a@B\u{dc}CHER.example",
                "a@xn--bcher-kva.example",
                "A@XN--BCHER-KVA.EXAMPLE",
            ],
        ),
    ] {
        assert_eq!(story.register(first).await.status, 201, "{first}");
        for spelling in spellings {
            let taken = story.register(spelling).await;
            assert_eq!((taken.status.as_u16(), taken.problem()), (409, "auth.email_taken"), "{spelling}");
            assert_eq!(taken.text("/message"), "User with this email already exists");
            assert_eq!(taken.text("/error"), "Conflict");
            assert_eq!(log_in(&story, spelling, PASSWORD).await, 200, "{spelling} signs in");
        }
    }
    assert_eq!(story.number(ACCOUNTS).await, 3);
    assert_eq!(story.number("SELECT count(*) FROM credits.balances").await, 3);
}

#[tokio::test]
async fn characters_that_only_look_like_letters_are_refused() {
    let story = Story::new().await;
    for plain in ["kate@example.com", "sam@example.com", "ada@example.com", "fiona@example.com"] {
        assert_eq!(story.register(plain).await.status, 201);
    }
    for look_alike in [
        "\u{212a}ate@example.com",
        "\u{17f}am@example.com",
        "\u{ff41}da@example.com",
        "\u{ff21}da@example.com",
        "\u{fb01}ona@example.com",
        "ada\u{ff20}example.com",
        "ada@\u{ff45}xample.com",
        "ada@example\u{ff0e}com",
        "ada@e\u{24e7}ample.com",
        "\u{1d41a}da@example.com",
    ] {
        let refused = story.register(look_alike).await;
        assert_eq!(
            (refused.status.as_u16(), refused.problem()),
            (400, "request.invalid_body"),
            "{look_alike}"
        );
        assert_eq!(refused.text("/errors/0/pointer"), "/email");
        assert_eq!(log_in(&story, look_alike, PASSWORD).await, 401, "{look_alike}");
    }
    assert_eq!(story.number(ACCOUNTS).await, 4);
}

#[tokio::test]
async fn invisible_characters_and_foreign_dots_in_a_domain_reach_nobody_s_account() {
    let story = Story::new().await;
    story.register("ada@mail.example.com").await;
    for variant in [
        "ada@mail.exam\u{ad}ple.com",
        "ada@mail.exam\u{200b}ple.com",
        "ada@mail.exam\u{2060}ple.com",
        "ada@mail.example\u{fe0f}.com",
        "ada@mail.example\u{3002}com",
    ] {
        assert_eq!(log_in(&story, variant, PASSWORD).await, 401, "{variant:?} signs nobody in");
        let refused = story.register(variant).await;
        assert_eq!(refused.status, 400, "{variant:?}: {}", refused.json);
    }
}

#[tokio::test]
async fn letters_that_differ_are_different_addresses() {
    let story = Story::new().await;
    story.register("adi@example.com").await;
    story.register("ada@example.com").await;
    for other in ["ad\u{131}@example.com", "AD\u{130}@example.com", "\u{430}da@example.com"] {
        assert_eq!(log_in(&story, other, PASSWORD).await, 401, "{other} signs nobody in");
        let reply = story.register(other).await;
        assert!([201, 400].contains(&reply.status.as_u16()), "{other}: {}", reply.json);
    }
}

#[tokio::test]
async fn what_is_no_address_is_refused() {
    let story = Story::new().await;
    let long = format!("{}@example.com", "x".repeat(250));
    for bad in [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@example",
        "a b@example.com",
        " ada@example.com",
        "ada@example.com ",
        "ada\0@example.com",
        "ada@example.com\0",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com\n",
        "\rada@example.com",
        "ada@example.com,eve@example.com",
        "Ada <ada@example.com>",
        "\"a b\"@example.com",
        "ada@[127.0.0.1]",
        "ada@exam\u{7f}ple.com",
        &long,
    ] {
        refuses(&story, "email", json!(bad)).await;
    }
    for bad in
        [json!(["ada@example.com"]), json!({"a": "ada@example.com"}), json!(7), Value::Null, json!(true)]
    {
        refuses(&story, "email", bad).await;
    }
    assert_eq!(story.number(ACCOUNTS).await, 0);
}

#[tokio::test]
async fn of_fifty_registrations_at_once_one_makes_an_account_with_one_bonus() {
    let story = Story::new().await;
    let replica = story.replica().await;
    let spellings = ["ada@example.com", "Ada@example.com", "ADA@EXAMPLE.COM"];
    let replies = join_all((0..50).map(|number| {
        let client = if number % 2 == 0 { &story.client } else { &replica };
        client.post(REGISTER, &json!({"email": spellings[number % 3], "password": PASSWORD})).send()
    }))
    .await;
    let statuses: Vec<_> = replies.iter().map(|reply| reply.status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 49, "{statuses:?}");
    for table in [
        ACCOUNTS,
        "SELECT count(*) FROM auth.passwords",
        "SELECT count(*) FROM credits.balances",
        "SELECT count(*) FROM credits.transactions",
        "SELECT count(*) FROM auth.security_events WHERE type = 'registered'",
    ] {
        assert_eq!(story.number(table).await, 1, "{table}");
    }
    let ada = story.sign_in("ada@example.com").await;
    assert_eq!(story.get("/api/v1/credits/balance", &ada).await.integer("/freeCreditsRemaining"), 150);
    books_are_true(&story).await;
}

#[tokio::test]
async fn fields_that_are_not_the_client_s_to_set_are_refused() {
    let story = Story::new().await;
    for (member, value) in [
        ("role", json!("admin")),
        ("role", json!("user")),
        ("emailVerified", json!(true)),
        ("email_verified", json!(true)),
        ("balance", json!(1_000_000)),
        ("freeCreditsRemaining", json!(1_000_000)),
        ("id", json!("chosen")),
        ("userId", json!("chosen")),
        ("createdAt", json!("2020-01-01T00:00:00Z")),
        ("image", json!("https://example.com/a.png")),
        ("Email", json!("eve@example.com")),
        ("__proto__", json!({"role": "admin"})),
    ] {
        refuses(&story, member, value).await;
    }
    assert_eq!(story.number(ACCOUNTS).await, 0);
    assert_eq!(story.number("SELECT count(*) FROM credits.balances").await, 0);
}

#[tokio::test]
async fn a_name_is_one_line_of_at_most_255_characters() {
    let story = Story::new().await;
    for bad in ["a\0b", "a\nb", "a\r\nb", "a\tb", "a\u{1b}[31m", "a\u{7f}", "a\u{85}b", &"x".repeat(256)] {
        refuses(&story, "name", json!(bad)).await;
    }
    for bad in [json!(1), json!(["Ada"]), json!({}), json!(true)] {
        refuses(&story, "name", bad).await;
    }
    assert_eq!(story.number(ACCOUNTS).await, 0);
    for (email, name) in [("a@example.com", "x".repeat(255)), ("b@example.com", "\u{1f980}".repeat(255))] {
        let reply = story.post(REGISTER, &json!({"email": email, "password": PASSWORD, "name": name})).await;
        assert_eq!((reply.status.as_u16(), reply.text("/name")), (201, name.as_str()));
    }
}

#[tokio::test]
async fn a_password_has_8_to_128_characters_of_any_kind() {
    let story = Story::new().await;
    for bad in [
        "",
        "1234567",
        "\u{1f980}\u{1f980}\u{1f980}\u{1f980}",
        "e\u{301}e\u{301}e\u{301}e\u{301}",
        &"x".repeat(129),
    ] {
        refuses(&story, "password", json!(bad)).await;
    }
    assert_eq!(story.number(ACCOUNTS).await, 0);
    for (email, good) in [
        ("a@example.com", "kq7wzz3v".to_owned()),
        ("b@example.com", "\u{1f980}".repeat(8)),
        ("c@example.com", "x".repeat(128)),
        ("d@example.com", "\u{1f980}".repeat(128)),
        ("e@example.com", "  spaces all round  ".to_owned()),
    ] {
        assert_eq!(with_password(&story, email, &good).await.status, 201, "{email}");
        assert_eq!(log_in(&story, email, &good).await, 200, "{email}");
        let (last, _) = good.char_indices().next_back().unwrap();
        assert_eq!(log_in(&story, email, &good[..last]).await, 401, "{email}");
    }
}

#[tokio::test]
async fn every_character_of_a_password_counts() {
    let story = Story::with(|settings| settings.sign_in_free_failures = 1000).await;
    let password = "x".repeat(100);
    with_password(&story, "ada@example.com", &password).await;
    let other_end = format!("{}y", "x".repeat(99));
    for wrong in
        [&password[..72], &password[..99], &other_end, &password.to_uppercase(), &format!("{password}x")]
    {
        assert_eq!(log_in(&story, "ada@example.com", wrong).await, 401, "{wrong}");
    }
    assert_eq!(log_in(&story, "ada@example.com", &password).await, 200);
}

#[tokio::test]
async fn both_unicode_encodings_of_a_password_sign_in() {
    let story = Story::new().await;
    let (composed, decomposed) = ("caf\u{e9} cr\u{e8}me", "cafe\u{301} cre\u{300}me");
    with_password(&story, "a@example.com", composed).await;
    with_password(&story, "b@example.com", decomposed).await;
    for email in ["a@example.com", "b@example.com"] {
        for password in [composed, decomposed] {
            assert_eq!(log_in(&story, email, password).await, 200, "{email}");
        }
        assert_eq!(log_in(&story, email, "cafe creme").await, 401);
    }
}

#[tokio::test]
async fn the_operator_s_minimum_length_holds() {
    let story = Story::with(|settings| settings.password_min_length = 12).await;
    let refused = with_password(&story, "ada@example.com", "kq7wzz3vxp1").await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (400, "auth.password_refused"));
    assert!(refused.text("/message").contains("12"), "{}", refused.json);
    assert_eq!(refused.text("/errors/0/pointer"), "/password");
    assert_eq!(story.number(ACCOUNTS).await, 0);
    assert_eq!(with_password(&story, "ada@example.com", "kq7wzz3vxp1m").await.status, 201);
}

#[tokio::test]
async fn the_app_s_address_is_a_web_address() {
    let story = Story::new().await;
    let long = format!("https://example.com/{}", "x".repeat(2048));
    for bad in [
        "",
        "example.com",
        "localhost:3000",
        "/start",
        "//example.com",
        "https://",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "ftp://example.com",
        "app.example://start",
        &long,
    ] {
        refuses(&story, "sourceAppUrl", json!(bad)).await;
    }
    refuses(&story, "sourceAppUrl", json!(["https://example.com"])).await;
    assert_eq!(story.number(ACCOUNTS).await, 0);
    for (number, good) in
        ["https://chat.example.com", "http://localhost:3000/login?x=1#y", "http://127.0.0.1:8081"]
            .into_iter()
            .enumerate()
    {
        let body =
            json!({"email": format!("user{number}@example.com"), "password": PASSWORD, "sourceAppUrl": good});
        assert_eq!(story.post(REGISTER, &body).await.status, 201, "{good}");
    }
}
