//! What people see: pages and mails in their language, under the name of the service, also when something is in the way.

use crate::mail_flows::{link_of, reset_token, token_of, verification_link};
use crate::story::{PASSWORD, Story};
use crate::surface::document;
use http::Method;
use mana_testkit::{Client, Reply};
use serde_json::{Value, json};

/// What a browser sends that opens a page.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
const FORM: &str = "application/x-www-form-urlencoded";

async fn open(client: &Client, path: &str, language: &str) -> Reply {
    client.get(path).header("accept", BROWSER).header("accept-language", language).send().await
}

/// A page in the language, under the name of the service.
fn page(reply: &Reply, status: u16, language: &str) -> String {
    let html = String::from_utf8(reply.bytes.to_vec()).unwrap();
    assert_eq!(reply.status, status, "{html}");
    assert!(reply.headers["content-type"].to_str().unwrap().starts_with("text/html"), "{html}");
    assert_eq!(reply.headers["cache-control"], "no-store");
    let policy = reply.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'; style-src 'unsafe-inline'"), "{policy}");
    assert!(html.contains(&format!("<html lang=\"{language}\">")), "{html}");
    assert!(html.contains("<title>") && !html.contains("<script") && !html.contains("src="), "{html}");
    html
}

async fn send_form(story: &Story, path: &str, fields: &[(&str, &str)]) -> Reply {
    send_form_in(story, path, fields, "de").await
}

async fn send_form_in(story: &Story, path: &str, fields: &[(&str, &str)], language: &str) -> Reply {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let request = story.client.request(Method::POST, path).body(FORM, body);
    request.header("accept", BROWSER).header("accept-language", language).send().await
}

/// Paths that somebody without a token opens in a browser, by what the document says of them.
fn opened_by_people() -> Vec<String> {
    let document = document();
    let paths = document["paths"].as_object().unwrap().iter();
    let is_page = |operation: &Value| {
        let answers = operation["responses"].as_object().into_iter().flatten();
        let good = answers.filter(|(status, _)| status.starts_with('2') || *status == "303");
        let mut is_page =
            good.map(|(status, answer)| status == "303" || answer["content"]["text/html"].is_object());
        operation["security"].is_null() && is_page.any(|is_page| is_page)
    };
    let opened = paths.filter(|(_, item)| is_page(&item["get"]));
    opened.map(|(path, _)| path.replace("{token}", "x").replace("{provider}", "google")).collect()
}

#[tokio::test]
async fn mails_and_pages_say_whose_they_are() {
    let story = Story::with(|settings| settings.service_name = Some("Äpfel & Co".to_owned())).await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let registered =
        story.client.post("/api/v1/auth/register", &body).header("accept-language", "de").send().await;
    assert_eq!(registered.status, 201, "{}", registered.json);
    let mails = story.all_mails().await;
    let mail = &mails[0].mail;
    assert_eq!(mail.subject.as_str(), "Äpfel & Co: Bestätige deine E-Mail-Adresse");
    assert!(mail.text.starts_with("Äpfel & Co\n\nMit dieser Adresse"), "{}", mail.text);
    assert!(mail.html.contains("<strong>Äpfel &#38; Co</strong>"), "{}", mail.html);
    let ada = story.sign_in("ada@example.com").await;
    let device = json!({"email": "ada@example.com", "password": PASSWORD, "deviceId": "another"});
    assert_eq!(story.post("/api/v1/auth/login", &device).await.status, 200);
    let mails = story.all_mails().await;
    let mail = &mails[0].mail;
    assert_eq!(mail.subject.as_str(), "Äpfel & Co: New sign-in to your account");
    assert!(mail.text.starts_with("Äpfel & Co\n\nSomebody signed in"), "{}", mail.text);
    assert!(mail.html.contains("<strong>Äpfel &#38; Co</strong>"), "{}", mail.html);

    for path in
        ["/login", "/verification-failed", "/reset-password?token=x", "/not-me?token=x", "/checkout/done"]
    {
        let reply = open(&story.client, path, "en").await;
        let html = page(&reply, reply.status.as_u16(), "en");
        assert!(html.contains(" · Äpfel &#38; Co</title>"), "{html}");
        assert!(html.contains("<header>Äpfel &#38; Co</header>"), "{html}");
    }
    let enrol = |client: Client, token: String| async move {
        let enrolment = client.post("/api/v1/auth/two-factor/enrol", &json!({})).bearer(&token).send().await;
        enrolment.text("/otpauthUrl").to_owned()
    };
    let named = enrol(story.client.clone(), ada.access_token.clone()).await;
    assert!(named.contains("issuer=%C3%84pfel%20%26%20Co"), "{named}");
    let unnamed = story.replica_with(|settings| settings.service_name = None).await;
    let html = page(&open(&unnamed.client, "/login", "en").await, 200, "en");
    assert!(html.contains("<title>Sign in · Mana</title>"), "{html}");
    let unnamed = enrol(unnamed.client, ada.access_token).await;
    assert!(unnamed.contains("issuer=manacore"), "as before: {unnamed}");
}

/// Everything that reads this table is told that the database is about to stop.
const AWAY: &str = "
    ALTER TABLE auth.verification_tokens RENAME TO hidden_tokens;
    CREATE FUNCTION auth.is_away() RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'away' USING ERRCODE = '58000'; END $$;
    CREATE VIEW auth.verification_tokens AS SELECT * FROM auth.hidden_tokens WHERE auth.is_away();
    GRANT SELECT, INSERT, UPDATE, DELETE ON auth.verification_tokens TO mana_service;
    GRANT EXECUTE ON FUNCTION auth.is_away() TO mana_service;";
const BACK: &str = "
    DROP VIEW auth.verification_tokens;
    DROP FUNCTION auth.is_away();
    ALTER TABLE auth.hidden_tokens RENAME TO verification_tokens;";

async fn meddle(story: &Story, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&mut story.database.owner().await).await.unwrap();
}

#[tokio::test]
async fn a_link_that_could_not_be_checked_says_so_and_works_when_the_database_is_back() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let link = verification_link(&story).await;
    let lands_at = |reply: &Reply| {
        let location = reply.headers["location"].to_str().unwrap();
        location.strip_prefix("http://localhost:3001").unwrap().to_owned()
    };
    meddle(&story, AWAY).await;
    let failed = open(&story.client, &link, "en").await;
    assert_eq!(failed.status, 303);
    let place = lands_at(&failed);
    assert!(place.contains("error=verification_failed"), "{place}");
    let html = page(&open(&story.client, &place, "en").await, 200, "en");
    assert!(html.contains("could not be checked now") && html.contains("again in a minute"), "{html}");
    assert!(!html.contains("was used"), "{html}");
    let html = page(&open(&story.client, &place, "de").await, 200, "de");
    assert!(html.contains("gerade nicht") && html.contains("in einer Minute"), "{html}");

    meddle(&story, BACK).await;
    page(&open(&story.client, &link, "en").await, 200, "en");
    let token = token_of(&link);
    let fields = [("token", token.as_str()), ("password", PASSWORD)];
    let confirmed = send_form(&story, "/api/auth/verify-email", &fields).await;
    assert!(lands_at(&confirmed).contains("verified=true"));
    let void = lands_at(&open(&story.client, &link, "en").await);
    let html = page(&open(&story.client, &void, "en").await, 200, "en");
    assert!(html.contains("was used") && !html.contains("in a minute"), "the control: {html}");
    let html = page(&open(&story.client, "/verification-failed?error=missing_token", "en").await, 200, "en");
    assert!(html.contains("not complete"), "{html}");
}

#[tokio::test]
async fn whoever_opens_a_link_in_a_browser_too_often_reads_a_page_and_programs_read_json() {
    let story = Story::with(|settings| {
        settings.rate_limit_max = 1;
        settings.rate_limit_login = 1;
        settings.rate_limit_reset = 1;
    })
    .await;
    let opened = opened_by_people();
    assert!(opened.len() >= 12, "{opened:?}");
    for (number, path) in opened.iter().enumerate() {
        let client = story.client.at(&format!("198.51.100.{number}"));
        open(&client, path, "de").await;
        let refused = open(&client, path, "de").await;
        let html = page(&refused, 429, "de");
        let wait = refused.headers["retry-after"].to_str().unwrap();
        assert!(
            html.contains("Zu viele Versuche") && html.contains(&format!("Warte {wait} Sekunden")),
            "{path}: {html}"
        );
        assert!(refused.headers.contains_key("ratelimit") && refused.headers.contains_key("x-request-id"));
        let html = page(&open(&client, path, "en-GB,en").await, 429, "en");
        assert!(html.contains("Too many attempts"), "{path}: {html}");
        for accept in ["*/*", "application/json", "application/json, text/plain, */*"] {
            let refused =
                client.get(path).header("accept", accept).header("accept-language", "de").send().await;
            assert_eq!((refused.status.as_u16(), refused.problem()), (429, "request.rate_limited"), "{path}");
            assert_eq!(refused.headers["retry-after"], wait);
        }
        assert_eq!(client.get(path).send().await.problem(), "request.rate_limited", "{path}");
    }
    let client = story.client.at("203.0.113.1");
    for path in ["/api/v1/auth/me", "/api/v1/credits/balance", "/nothing-here"] {
        open(&client, path, "de").await;
        open(&client, path, "de").await.problem();
    }
}

#[tokio::test]
async fn whoever_opens_a_link_while_the_database_is_away_or_what_is_not_set_up_reads_a_page() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let token = reset_token(&story, "ada@example.com").await;
    let mailed = link_of(&story, "Set a new password").await;
    let at_once = format!("/reset-password?token={token}");
    meddle(&story, AWAY).await;
    for path in [&mailed, &at_once] {
        let failed = open(&story.client, path, "de").await;
        assert!(failed.headers.contains_key("retry-after"));
        let html = page(&failed, 503, "de");
        assert!(html.contains("Das geht gerade nicht") && html.contains("nicht verbraucht"), "{html}");
        let failed = story.client.get(path).send().await;
        assert_eq!((failed.status.as_u16(), failed.problem()), (503, "service.unavailable"));
    }
    let fields = [("token", token.as_str()), ("newPassword", "another horse battery")];
    let html = page(&send_form(&story, "/reset-password", &fields).await, 503, "de");
    assert!(html.contains("nicht sicher, ob") && html.contains("hat schon gewirkt"), "{html}");
    assert!(!html.contains("verbraucht"), "nobody knows: {html}");
    let html = page(&send_form_in(&story, "/reset-password", &fields, "en").await, 503, "en");
    assert!(html.contains("not certain whether") && html.contains("has done what it is for"), "{html}");
    meddle(&story, BACK).await;
    let html = page(&send_form(&story, "/reset-password", &fields).await, 200, "de");
    assert!(html.contains("Das Passwort ist gesetzt"), "the link was not used up: {html}");

    for path in
        ["/api/v1/auth/oauth/google", "/api/v1/auth/oauth/google/callback?state=x", "/magic-link?token=x"]
    {
        let html = page(&open(&story.client, path, "de").await, 404, "de");
        assert!(html.contains("nicht eingerichtet") && html.contains("Geh zurück zur App"), "{path}: {html}");
        let refused = story.client.get(path).send().await;
        assert_eq!(refused.status, 404);
        refused.problem();
    }
    story.execute("ALTER TABLE auth.disown_tokens RENAME TO hidden_tokens").await;
    let broken = open(&story.client, &format!("/not-me?token=mnm_{}", "A".repeat(43)), "de").await;
    let html = page(&broken, 500, "de");
    assert!(html.contains(broken.headers["x-request-id"].to_str().unwrap()), "{html}");
}

#[tokio::test]
async fn a_german_page_is_german_throughout() {
    let story = Story::new().await;
    let claim = story.claim_link().await.unwrap();
    let claim_token = claim.split_once("token=").unwrap().1;
    let html = page(&open(&story.client, &claim, "de").await, 200, "de");
    assert!(html.contains("Passwort") && html.contains("Verwaltung übernehmen"), "{html}");
    assert!(!html.contains("Password") && !html.contains("Give the"), "{html}");
    let refusals = [
        ("root@example.com", "12345678", "eines der häufigsten"),
        ("root@example.com", "manacore2026", "ein Name dieses Produkts"),
        ("root@example.org", "root@example.org", "deine E-Mail-Adresse"),
        ("root@example.com", "short", "8 bis 128 Zeichen"),
        ("no address", PASSWORD, "Diese Adresse geht nicht"),
    ];
    for (email, password, reason) in refusals {
        let fields = [("token", claim_token), ("email", email), ("password", password)];
        let html = page(&send_form(&story, "/claim-admin", &fields).await, 400, "de");
        assert!(html.contains(reason) && !html.contains(" must "), "{email} {password}: {html}");
    }
    let fields = [("token", claim_token), ("email", "root@example.com"), ("password", PASSWORD)];
    let html = page(&send_form(&story, "/claim-admin", &fields).await, 200, "de");
    assert!(html.contains("verwaltet diesen Dienst von jetzt an"), "{html}");
    let html = page(&send_form(&story, "/claim-admin", &fields).await, 404, "de");
    assert!(html.contains("Dieser Link wurde benutzt"), "{html}");

    story.user("ada@example.com").await;
    let token = reset_token(&story, "ada@example.com").await;
    let fields = [("token", token.as_str()), ("newPassword", "12345678")];
    let html = page(&send_form(&story, "/reset-password", &fields).await, 400, "de");
    assert!(html.contains("eines der häufigsten") && !html.contains("must not"), "{html}");
    let weak = json!({"token": token, "newPassword": "12345678"});
    let refused = story.client.post("/api/v1/auth/reset-password", &weak).header("accept-language", "de");
    assert!(
        refused.send().await.text("/message").starts_with("The password must not"),
        "the API speaks English"
    );

    for (state, text) in [("paid", "Danke"), ("cancelled", "nichts gekauft"), ("saved", "ist gespeichert")] {
        let html =
            page(&open(&story.client, &format!("/checkout/done?state={state}"), "de").await, 200, "de");
        assert!(html.contains(text) && html.contains("diese Seite schließen"), "{html}");
        let html =
            page(&open(&story.client, &format!("/checkout/done?state={state}"), "en").await, 200, "en");
        assert!(html.contains("You can close this page"), "{html}");
    }
}
