//! What is logged can be read by machines, and tells nobody a secret.

use crate::http::PASSWORD;
use crate::process::{Home, Server};
use serde_json::{Value, json};
use std::fs;

const LOGIN: &str = "/api/v1/auth/login";

#[test]
fn log_lines_are_json_and_hold_no_secret_even_when_debugging() {
    let home = Home::new();
    let server = home.dev().env("LOG_FORMAT", "json").env("LOG_LEVEL", "debug").start();
    let banner = server.stdout();
    let secrets = use_secrets(&server);
    server.signal("TERM");
    server.ends_well();

    let (stdout, stderr) = (server.stdout(), server.stderr());
    assert_eq!(stdout, banner, "nothing but the banner on standard output");
    let lines: Vec<Value> = stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(lines.iter().all(|line| line["level"].is_string() && line["timestamp"].is_string()));
    assert!(lines.iter().any(|line| line["level"] == "DEBUG"), "{stderr}");
    let is_answer = |line: &&Value| line["message"] == "answered" && line["span"]["route"] == LOGIN;
    let answer = lines.iter().find(is_answer).unwrap_or_else(|| panic!("no line for the login: {stderr}"));
    assert_eq!((&answer["status"], answer["span"]["request_id"].is_string()), (&json!(401), true));
    let codes: Vec<_> =
        lines.iter().filter_map(|line| line.get("code").filter(|_| line["message"] == "answered")).collect();
    for code in [
        "auth.invalid_credentials",
        "auth.unauthenticated",
        "request.unknown_path",
        "credits.insufficient_funds",
    ] {
        assert!(codes.contains(&&json!(code)), "why {code} is not in the lines: {codes:?}");
    }
    assert!(lines.iter().all(|line| line.get("code").is_none() || line["status"] != 200), "of refusals only");

    let kept = |name: &str| fs::read_to_string(home.data().join(name)).unwrap().trim().to_owned();
    let kept_secrets = [
        ("the root secret", kept("secret.key").split_once(':').unwrap().1.to_owned()),
        ("the service's password", kept("service.password")),
        ("the owner's password", kept("postgres/password")),
    ];
    let database_log = kept("postgres/server.log");
    for (name, secret) in secrets.into_iter().chain(kept_secrets) {
        // Of a JWT the signature: with it, the rest is no secret either.
        let part = secret.rsplit('.').next().unwrap();
        assert!(part.len() >= 16, "{name} is not what it should be: {secret}");
        for log in [&stderr, &database_log] {
            assert!(
                !log.contains(part),
                "{name} is logged: {:?}",
                log.lines().find(|line| line.contains(part))
            );
        }
    }
}

/// Signs in, spends, refreshes, signs out and looks at the claim page; gives every secret that was sent either way.
fn use_secrets(server: &Server) -> Vec<(&'static str, String)> {
    let wrong = "a wrong guess at it";
    server.register("ada@example.com");
    assert_eq!(server.post(LOGIN, &json!({"email": "ada@example.com", "password": wrong})).status, 401);
    let signed_in = server.login("ada@example.com");
    let cookie = signed_in.header("set-cookie").split([';', '=']).nth(1).unwrap().to_owned();
    let (access, refresh) = (signed_in.text("/accessToken"), signed_in.text("/refreshToken"));
    let spend = json!({"amount": 10, "appId": "chat", "description": "An answer"});
    assert_eq!(server.post_as(&access, "/api/v1/credits/use", &spend).status, 201);
    assert_eq!(server.post("/api/v1/auth/validate", &json!({"token": access})).json()["valid"], true);
    let too_much = json!({"amount": 1_000, "appId": "chat", "description": "A book"});
    assert_eq!(server.post_as(&access, "/api/v1/credits/use", &too_much).status, 400);
    let refreshed = server.post("/api/v1/auth/refresh", &json!({"refreshToken": refresh}));
    assert_eq!(refreshed.status, 200, "{}", refreshed.body);

    let link = server.claim_link();
    assert_eq!(server.get(&link).status, 200);
    assert_eq!(server.get(&link.replace("claim-admin", "claim-admim")).status, 404, "a slip in the address");
    assert_eq!(server.get(&format!("{link}A")).status, 404, "no token");
    let renewed = refreshed.text("/accessToken");
    assert_eq!(server.post_as(&renewed, "/api/v1/auth/logout", &Value::Null).status, 200);
    assert_eq!(server.post_as(&renewed, "/api/v1/credits/use", &spend).status, 401);
    vec![
        ("the password", PASSWORD.to_owned()),
        ("a wrong password", wrong.to_owned()),
        ("the access token", access),
        ("the access token after the refresh", renewed),
        ("the refresh token", refresh),
        ("the refresh token after the refresh", refreshed.text("/refreshToken")),
        ("the cookie", cookie),
        ("the claim token", link.split_once('=').unwrap().1.to_owned()),
    ]
}
