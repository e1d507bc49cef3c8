//! The service against its own OpenAPI document, as schemathesis tries it: what fits the document and what does not.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Done, Home, Launch, Server};
use crate::till::{WEBHOOK_SECRET, open_till};
use std::path::Path;
use std::process::Command;

/// The same requests each time, as many of the made-up ones as the time allows.
const SEED: &str = "1";
/// Made-up requests of each operation, beside those that try its bounds one by one.
const REQUESTS: &str = "20";

const KEY: &str = "a-service-key-of-the-environment";
/// As in the examples of the document.
const PACKAGES: &str = r#"[{"id": "small", "name": "Small", "credits": 500, "priceEuroCents": 500}]"#;
const PEOPLE: &str = r#"{"id": "0198c9d2-7f6a-7c31-9d0e-3f6f0c2b8a11", "email": "someone@example.com", "emailVerified": true}
{"id": "0198c9d2-7f6a-7c31-9d0e-3f6f0c2b8a12", "email": "leaving@example.com", "emailVerified": true}"#;

/// Somebody, and what is theirs to ask.
#[derive(Debug)]
struct Turn {
    credential: String,
    operations: [&'static str; 2],
    /// What tries the bounds takes as long as it takes; what makes requests up has so many seconds, if any.
    seconds: Option<&'static str>,
}

/// They end the session that the others need, or the account: each is tried as somebody else.
const LEAVING: [&str; 3] = ["/(logout|sign-out)$", "/auth/account$", "/auth/sessions/"];
const ADMINISTRATION: &str = "^/api/v1/admin/";
/// What apps ask: what users may ask too, and what they alone may.
const OF_APPS: &str = "^/api/v1/internal/|^/api/v1/credits/(use|holds|refund|balance/)";
const NOT_OF_USERS: &str = "/(logout|sign-out)$|/auth/account$|/auth/sessions/|^/api/v1/(admin|internal)/|^/api/v1/credits/(refund$|balance/)";

/// Tries the operations of a turn.
fn try_all(home: &Home, server: &Server, app_key: &str, turn: &Turn) {
    try_phases(home, server, app_key, turn, &["--phases", "examples,coverage"], "✅ Coverage");
    if let Some(seconds) = turn.seconds {
        try_phases(
            home,
            server,
            app_key,
            turn,
            &["--phases", "fuzzing", "--max-time", seconds],
            "✅ Fuzzing",
        );
    }
}

fn try_phases(home: &Home, server: &Server, app_key: &str, turn: &Turn, phases: &[&str], done: &str) {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/schemathesis.toml");
    let output = Command::new("schemathesis")
        // It keeps what it has seen in the folder that it is started in.
        .current_dir(home.path())
        .env("APP_KEY", app_key)
        .arg("--config-file")
        .arg(config)
        .args(["run", &format!("http://localhost:{}/openapi.json", server.port)])
        .args(["--header", &turn.credential])
        .args(["--seed", SEED, "--max-examples", REQUESTS])
        .args(phases)
        .arg("--continue-on-failure")
        .args(["--generation-with-security-parameters", "false"])
        .args(turn.operations)
        .output()
        .expect("schemathesis is there: .ci/run says how it is installed");
    let told = String::from_utf8_lossy(&output.stdout);
    let log = server.stderr();
    let complaints: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(output.status.success(), "{turn:?} {told}{complaints:#?}");
    assert!(told.contains(done), "{turn:?} {told}");
}

#[test]
fn no_request_brings_the_service_out_of_its_document() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // It takes orders; nobody pays.
    let (_, stripe) = open_till(&runtime, None);
    let with = |launch: Launch| {
        launch
            .env("DATABASE_URL", cluster.service_url("mana"))
            .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
            .env("MANA_SECRET_KEY", ROOT_SECRET)
            .env("MANA_CORE_SERVICE_KEY", KEY)
            .env("RATE_LIMIT_MAX", "0")
            .env("FRESH_AUTHENTICATION", "1d")
            .env("STRIPE_SECRET_KEY", "sk_test_nobody")
            .env("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET)
            .env("STRIPE_API_BASE", &stripe)
            .env("MAGIC_LINK_SIGN_IN", "true")
            .env("EMAIL_CODE_SIGN_IN", "true")
    };
    let run = |args: &[&str]| -> Done { with(home.command(args)).run() };
    let server = with(home.serve()).start();
    run(&["packages", "import", home.file("packages.json", PACKAGES).to_str().unwrap()]).succeeded();
    run(&["users", "import", home.file("people.jsonl", PEOPLE).to_str().unwrap()]).succeeded();
    let scopes = ["--scope", "sessions:mint,usage:read"];
    let of_an_app = [&["service-keys", "create", "--name", "Chat", "--app", "chat"][..], &scopes].concat();
    let printed = run(&of_an_app).succeeded();
    let app_key = printed.lines().next().unwrap();
    let mut owner = cluster.owner("mana");
    let mut user = |email: &str, role: &str| {
        server.register(email);
        owner.run(&format!("UPDATE auth.users SET role = '{role}' WHERE email = '{email}'"));
        format!("Authorization: Bearer {}", server.login(email).text("/accessToken"))
    };
    let mut turns = vec![
        Turn {
            credential: user("ada@example.com", "user"),
            operations: ["--exclude-path-regex", NOT_OF_USERS],
            seconds: Some("50"),
        },
        Turn {
            credential: format!("X-Service-Key: {KEY}"),
            operations: ["--include-path-regex", OF_APPS],
            seconds: Some("30"),
        },
        Turn {
            credential: user("admin@example.com", "admin"),
            operations: ["--include-path-regex", ADMINISTRATION],
            seconds: Some("30"),
        },
    ];
    turns.extend(LEAVING.iter().zip(["bob@example.com", "carl@example.com", "dora@example.com"]).map(
        |(operations, email)| Turn {
            credential: user(email, "user"),
            operations: ["--include-path-regex", operations],
            seconds: None,
        },
    ));
    for turn in &turns {
        try_all(&home, &server, app_key, turn);
    }
    for (what, sql) in [
        ("an order", "SELECT count(*) FROM credits.purchases WHERE session_id IS NOT NULL"),
        ("a spend", "SELECT count(*) FROM credits.transactions WHERE type = 'usage'"),
        ("what an app gave back", "SELECT count(*) FROM credits.transactions WHERE type = 'refund'"),
        ("a hold", "SELECT count(*) FROM credits.holds"),
        ("a session that an app opened", "SELECT count(*) FROM auth.sessions WHERE minted_by = 'chat'"),
        (
            "an act of administration",
            "SELECT count(*) FROM auth.security_events WHERE actor = 'administrator'",
        ),
    ] {
        let [(found,)] = owner.rows::<(i64,)>(sql)[..] else { panic!("{what}") };
        assert!(found > 0, "nothing that was tried came as far as {what}");
    }
    assert!(!server.get("/metrics").body.contains(r#"status="50"#));
}
