//! The service against its own OpenAPI document, as schemathesis tries it: what fits the document and what does not.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Home, Server};
use std::path::Path;
use std::process::Command;

/// The same requests each time, as many of the made-up ones as the time allows.
const SEED: &str = "1";
/// Made-up requests of each operation, beside those that try its bounds one by one.
const REQUESTS: &str = "20";
/// They end the session that the others need, or the account.
const LEFT_OUT: &str = "/(logout|sign-out)$|/auth/account$";

/// What tries the bounds takes as long as it takes; what makes requests up has so many seconds.
const PHASES: [(&str, &[&str], &str); 2] =
    [("examples,coverage", &[], "✅ Coverage"), ("fuzzing", &["--max-time", "50"], "✅ Fuzzing")];

/// Tries all operations as somebody with the token.
fn try_all(home: &Home, server: &Server, token: &str) {
    for phases in PHASES {
        try_phases(home, server, token, phases);
    }
}

fn try_phases(home: &Home, server: &Server, token: &str, (phases, limit, done): (&str, &[&str], &str)) {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/schemathesis.toml");
    let output = Command::new("schemathesis")
        // It keeps what it has seen in the folder that it is started in.
        .current_dir(home.path())
        .arg("--config-file")
        .arg(config)
        .args(["run", &format!("http://localhost:{}/openapi.json", server.port)])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--seed", SEED, "--max-examples", REQUESTS])
        .args(limit)
        .args(["--phases", phases, "--continue-on-failure"])
        .args(["--generation-with-security-parameters", "false"])
        .args(["--exclude-path-regex", LEFT_OUT])
        .output()
        .expect("schemathesis is there: .ci/run says how it is installed");
    let told = String::from_utf8_lossy(&output.stdout);
    let log = server.stderr();
    let complaints: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(output.status.success(), "{told}{complaints:#?}");
    assert!(told.contains(done), "{told}");
}

#[test]
fn no_request_brings_the_service_out_of_its_document() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let server = home
        .serve()
        .env("DATABASE_URL", cluster.service_url("mana"))
        .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .env("RATE_LIMIT_MAX", "0")
        .env("FRESH_AUTHENTICATION", "1d")
        .env("STRIPE_SECRET_KEY", "sk_test_nobody")
        .env("STRIPE_WEBHOOK_SECRET", "whsec_bm9ib2R5")
        .env("STRIPE_API_BASE", "http://127.0.0.1:1")
        .env("MAGIC_LINK_SIGN_IN", "true")
        .env("EMAIL_CODE_SIGN_IN", "true")
        .start();
    server.register("ada@example.com");
    try_all(&home, &server, &server.login("ada@example.com").text("/accessToken"));
    server.register("admin@example.com");
    cluster.owner("mana").run("UPDATE auth.users SET role = 'admin' WHERE email = 'admin@example.com'");
    try_all(&home, &server, &server.login("admin@example.com").text("/accessToken"));
    assert!(!server.get("/metrics").body.contains(r#"status="50"#));
}
