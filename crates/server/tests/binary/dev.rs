//! Dev mode: one command, nothing set up.

use crate::http::PASSWORD;
use crate::process::{Home, Server, poll, processes_of, send_signal};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const EMAIL: &str = "grace@example.com";

#[test]
fn a_limit_that_is_set_holds_in_dev_mode_too() {
    let home = Home::new();
    let file = home.file("mana.env", "RATE_LIMIT_LOGIN=2\n");
    let server = home.dev().env("MANA_CONFIG_FILE", file).env("RATE_LIMIT_REGISTER", "1").start();
    let ask = |path: &str| server.post(path, &json!({"email": "no"})).status;
    let register = [ask("/api/v1/auth/register"), ask("/api/v1/auth/register")];
    assert_eq!(register, [400, 429], "set in the environment, to any number");
    let login = [ask("/api/v1/auth/login"), ask("/api/v1/auth/login"), ask("/api/v1/auth/login")];
    assert_eq!(login, [400, 400, 429], "set in the file");
    assert_eq!([(); 4].map(|()| ask("/api/v1/auth/forgot-password")), [400; 4], "3 are the default");
}

#[test]
fn the_start_prints_how_to_go_on_and_all_of_it_works() {
    let home = Home::new();
    let server = home.dev().start();
    let banner = server.stdout();
    let url = format!("http://localhost:{}", server.port);
    for expected in [
        format!("runs at {url}\n"),
        format!("{url}/docs\n"),
        home.data().display().to_string(),
        format!("{url}/dev/outbox\n"),
        "Ctrl-C".to_owned(),
    ] {
        assert!(banner.contains(&expected), "no {expected} in {banner}");
    }

    let page = server.get("/docs/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.body.contains("<html"), "{}", page.body);
    let document = server.get("/openapi.json");
    assert_eq!(document.status, 200);
    assert!(document.json()["paths"]["/api/v1/credits/use"].is_object());
    let errors = server.get("/docs/errors");
    assert_eq!(errors.status, 200);
    assert!(errors.header("content-type").starts_with("text/html"));
    assert!(errors.body.contains("credits.insufficient_funds"));
    let claim = server.get(&server.claim_link());
    assert_eq!(claim.status, 200);
    assert!(claim.body.contains("<form"), "{}", claim.body);

    // Nobody who tries things out meets a limit.
    for _ in 0..20 {
        assert_eq!(server.post("/api/v1/auth/register", &json!({"email": "no"})).status, 400);
    }

    let walk = banner.split_once("\ncurl").unwrap().1.split_once("\n\n").unwrap().0;
    let walked =
        Command::new("bash").args(["-euo", "pipefail", "-c", &format!("curl{walk}")]).output().unwrap();
    assert!(walked.status.success(), "{walked:?}");
    let printed: Vec<Value> = String::from_utf8(walked.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [user, spent, balance, transactions] = &printed[..] else { panic!("not four answers: {printed:?}") };
    assert_eq!(user["email"], "ada@example.com");
    assert_eq!(spent["success"], true);
    assert_eq!((&balance["freeCreditsRemaining"], &balance["totalSpent"]), (&json!(140), &json!(10)));
    let amounts: Vec<_> =
        transactions.as_array().unwrap().iter().map(|line| line["amount"].as_i64()).collect();
    assert_eq!(amounts, [Some(-10), Some(150)]);

    commands_find_the_running_instance(&home, &server);
    server.stop("INT");
    assert!(home.is_quiet());
}

/// `doctor` and `admin claim-link` need no `DATABASE_URL` beside a running dev mode.
fn commands_find_the_running_instance(home: &Home, server: &Server) {
    let data = home.data();
    home.command(&["doctor", "--data-dir"]).arg(&data).run().succeeded();
    let port = server.port.to_string();
    let printed =
        home.command(&["admin", "claim-link", "--port", &port, "--data-dir"]).arg(&data).run().succeeded();
    let link = printed.trim().strip_prefix(&format!("http://localhost:{port}")).unwrap();
    assert_eq!(server.get(link).status, 200);
    assert_eq!(server.get(&server.claim_link()).status, 404, "a new link makes older ones void");
}

#[test]
fn mails_are_shown_on_this_machine_soon_after_what_they_tell_of() {
    let home = Home::new();
    let server = home.dev().env("LOG_FORMAT", "json").start();
    server.register(EMAIL);
    server.login(EMAIL);
    assert!(!server.get("/dev/outbox").body.contains("New sign-in"));
    let elsewhere = json!({"email": EMAIL, "password": PASSWORD, "deviceId": "phone"});
    assert_eq!(server.post("/api/v1/auth/login", &elsewhere).status, 200);
    let page = poll(Duration::from_secs(20), "the mail", || {
        let page = server.get("/dev/outbox");
        page.body.contains("New sign-in").then_some(page)
    });
    let path = page.body.split('"').find(|part| part.ends_with("/text")).unwrap();
    let text = server.get(path).body;
    let link = text.lines().find_map(|line| line.strip_prefix(&format!("http://localhost:{}", server.port)));
    let link = link.unwrap().to_owned();
    assert_eq!(server.get(&link).status, 200);
    server.signal("TERM");
    server.ends_well();

    let log = server.stderr();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("new_device")).collect();
    let [only] = &lines[..] else { panic!("not one line of the mail: {lines:?}") };
    assert!(only.contains("g***@example.com"), "{only}");
    assert!(!log.contains(EMAIL) && !log.contains("mnm_"), "{log}");
}

#[test]
fn data_outlives_a_stop_a_killed_server_and_a_killed_everything() {
    let home = Home::new();
    let server = home.dev().start();
    server.register(EMAIL);
    let signed_in = server.login(EMAIL);
    let token = signed_in.text("/accessToken");
    let spend = json!({"amount": 1, "appId": "chat", "description": "An answer"});
    assert_eq!(server.post_as(&token, "/api/v1/credits/use", &spend).status, 201);
    let first_link = server.claim_link();
    server.stop("TERM");
    assert!(home.is_quiet());

    let begun = Instant::now();
    let server = home.dev().start();
    assert!(begun.elapsed() < Duration::from_secs(20), "a later start took {:?}", begun.elapsed());
    assert_ne!(server.claim_link(), first_link);
    assert_eq!(server.get(&server.claim_link()).status, 200);
    everything_is_there(&server, &token, 149);
    assert_eq!(server.post_as(&token, "/api/v1/credits/use", &spend).status, 201);

    // At once: its PostgreSQL may still be running then.
    server.kill();
    let server = home.dev().start();
    everything_is_there(&server, &token, 148);
    assert_eq!(server.post_as(&token, "/api/v1/credits/use", &spend).status, 201);

    let all = processes_of(home.path());
    assert!(all.len() >= 3, "the server, its watchdog and PostgreSQL: {all:?}");
    send_signal("KILL", &all);
    drop(server);
    let server = home.dev().start();
    everything_is_there(&server, &token, 147);
    let refresh = json!({"refreshToken": signed_in.text("/refreshToken")});
    assert_eq!(server.post("/api/v1/auth/refresh", &refresh).status, 200, "the root secret is the same");
    server.stop("TERM");
    assert!(home.is_quiet());
}

/// The account, the session, the key that signed its token, and the last spend.
fn everything_is_there(server: &Server, token: &str, credits: i64) {
    server.login(EMAIL);
    let balance = server.get_as(token, "/api/v1/credits/balance");
    assert_eq!(
        (balance.status, &balance.json()["freeCreditsRemaining"]),
        (200, &json!(credits)),
        "{}",
        balance.body
    );
}

#[test]
fn a_first_start_that_was_killed_can_be_repeated_at_once() {
    let home = Home::new();
    let is_setting_up = || {
        let entries = fs::read_dir(home.data().join("postgres")).ok()?;
        // On a busy machine it may be done before anybody looks.
        let has_begun = |path: &Path| path.join("base").exists() || path.ends_with("cluster");
        entries.into_iter().any(|entry| has_begun(&entry.unwrap().path())).then_some(())
    };
    let server = home.dev().spawn();
    poll(Duration::from_secs(20), "the database being set up", is_setting_up);
    server.kill();
    let server = home.dev().start();
    server.register(EMAIL);
    server.stop("TERM");
    assert!(home.is_quiet());
}

#[test]
fn what_is_ephemeral_is_gone_afterwards_however_it_ends() {
    let home = Home::new();
    let temporary = home.temporary_files();
    let start = || {
        let server = home.dev().arg("--ephemeral").env("TMPDIR", &temporary).start();
        server.register(EMAIL);
        assert!(server.stdout().contains("thrown away"), "{}", server.stdout());
        assert!(!processes_of(&temporary).is_empty(), "PostgreSQL is elsewhere");
        server
    };
    let is_empty = || fs::read_dir(&temporary).unwrap().next().is_none();

    start().stop("TERM");
    assert!(is_empty() && home.is_quiet());
    start().kill();
    home.falls_quiet();
    assert!(is_empty() && !home.data().exists());
}

#[test]
fn an_ordinary_user_needs_no_rights() {
    const NOBODY: u32 = 65_534;
    let home = Home::new();
    let is_root = fs::metadata(home.path()).unwrap().uid() == 0;
    // The checkout may be closed to others.
    let program = home.path().join("mana-core-auth");
    fs::copy(env!("CARGO_BIN_EXE_mana-core-auth"), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(home.data()).unwrap();
    let launch = |args: &[&str]| {
        let launch = home.program(&program, args).arg(home.data());
        if is_root { launch.user(NOBODY) } else { launch }
    };
    if is_root {
        chown(home.data(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let port = crate::process::free_port();
    let server = launch(&["--port", &port.to_string(), "--data-dir"]).at(port).start();
    server.register(EMAIL);
    server.login(EMAIL);
    launch(&["doctor", "--data-dir"]).run().succeeded();
    server.stop("INT");
    assert!(home.is_quiet());
}
