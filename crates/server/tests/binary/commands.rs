//! The commands beside the server.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Done, Home};
use serde_json::Value;

const SECRET: &str = "TopSecret1234";

#[test]
fn the_doctor_finds_nothing_wrong_until_something_is() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let owner_url = cluster.owner_url("mana");
    let examine = |args: &[&str]| -> Done {
        let launch = home.command(args).env("DATABASE_URL", cluster.service_url("mana"));
        launch.env("MANA_SECRET_KEY", ROOT_SECRET).env("DATABASE_OWNER_URL", &owner_url).run()
    };
    let empty = examine(&["doctor"]);
    assert!(empty.code == Some(1), "{empty:?}");
    examine(&["migrate"]).succeeded();

    let report = examine(&["doctor"]).succeeded();
    assert!(report.lines().count() >= 6 && report.lines().all(|line| line.starts_with("ok ")), "{report}");
    let findings: Value = serde_json::from_str(&examine(&["doctor", "--json"]).succeeded()).unwrap();
    let findings = findings.as_array().unwrap();
    assert_eq!(findings.len(), report.lines().count());
    assert!(
        findings.iter().all(|finding| finding["ok"] == true && finding["check"].is_string()),
        "{findings:?}"
    );

    let mut owner = cluster.owner("mana");
    let mut sick = |statements: &str, named: &str| {
        owner.run(statements);
        let json = examine(&["doctor", "--json"]);
        assert_eq!(json.code, Some(1), "after {statements}: {json:?}");
        let findings: Value = serde_json::from_str(&json.stdout).unwrap();
        let is_named =
            |finding: &Value| finding["ok"] == false && finding["detail"].as_str().unwrap().contains(named);
        assert!(findings.as_array().unwrap().iter().any(is_named), "after {statements}: {findings}");
        let text = examine(&["doctor"]);
        assert!(text.stdout.lines().any(|line| line.starts_with("FAIL") && line.contains(named)), "{text:?}");
        text.sentence();
    };
    sick("ALTER TABLE credits.balances NO FORCE ROW LEVEL SECURITY", "credits.balances");
    sick(
        "ALTER TABLE credits.balances FORCE ROW LEVEL SECURITY;
         DROP POLICY own_rows ON auth.users;
         CREATE POLICY own_rows ON auth.users FOR SELECT TO mana_user USING (true)",
        "auth.users",
    );
    sick(
        "DROP POLICY own_rows ON auth.users;
         CREATE POLICY own_rows ON auth.users FOR SELECT TO mana_user USING (id = current_setting('mana.user_id', true));
         GRANT UPDATE ON credits.balances TO mana_user; CREATE POLICY hole ON credits.balances TO mana_user USING (true)",
        "credits.balances",
    );
    sick(
        "REVOKE UPDATE ON credits.balances FROM mana_user; DROP POLICY hole ON credits.balances; ALTER ROLE mana_service BYPASSRLS",
        "BYPASSRLS",
    );
    sick(
        "ALTER ROLE mana_service NOBYPASSRLS; CREATE ROLE boss NOLOGIN BYPASSRLS; GRANT boss TO mana_service",
        "BYPASSRLS",
    );
    owner.run("REVOKE boss FROM mana_service");
    examine(&["doctor"]).succeeded();
}

fn setting<'a>(rows: &'a Value, variable: &str) -> &'a Value {
    let found = rows.as_array().unwrap().iter().find(|row| row["variable"] == variable);
    found.unwrap_or_else(|| panic!("no {variable} in {rows}"))
}

#[test]
fn config_check_shows_where_a_setting_comes_from_and_no_secret() {
    let home = Home::new();
    let check = |args: &[&str]| {
        let launch =
            home.command(args).env("DATABASE_URL", format!("postgres://mana_service:{SECRET}@db/mana"));
        let launch = launch.env("DATABASE_OWNER_URL", format!("postgres://owner:{SECRET}@db/mana"));
        let printed = launch.env("MANA_SECRET_KEY", ROOT_SECRET).env("JWT_ISSUER", "ours").run().succeeded();
        assert!(!printed.contains(SECRET) && !printed.contains(&ROOT_SECRET[5..]), "{printed}");
        printed
    };
    let rows: Value = serde_json::from_str(&check(&["config", "check", "--port", "4000", "--json"])).unwrap();
    assert_eq!(
        (&setting(&rows, "PORT")["value"], &setting(&rows, "PORT")["source"]),
        (&"4000".into(), &"flag".into())
    );
    assert_eq!(
        (&setting(&rows, "JWT_ISSUER")["value"], &setting(&rows, "JWT_ISSUER")["source"]),
        (&"ours".into(), &"environment".into())
    );
    assert_eq!(setting(&rows, "JWT_AUDIENCE")["source"], "default");
    assert_eq!(setting(&rows, "HOST")["source"], "not set");
    for secret in ["DATABASE_URL", "DATABASE_OWNER_URL", "MANA_SECRET_KEY"] {
        assert_eq!(setting(&rows, secret)["source"], "environment");
    }
    let text = check(&["config", "check"]);
    assert!(
        text.lines().any(|line| line.starts_with("DATABASE_URL") && line.contains("environment")),
        "{text}"
    );

    // Printed also when something is wrong.
    let done = home
        .command(&["config", "check"])
        .env("DATABASE_URL", format!("postgres://a:{SECRET}@db/mana"))
        .run();
    assert!(done.stdout.contains("DATABASE_URL") && !done.stdout.contains(SECRET), "{done:?}");
    let sentence = done.sentence();
    assert!(sentence.contains("MANA_SECRET_KEY"), "{sentence}");
}

#[test]
fn config_check_tells_the_file_from_the_defaults() {
    let home = Home::new();
    let file = home.file("mana.env", &format!("PORT=4000\nJWT_ISSUER=file\nDATABASE_URL=postgres://a:{SECRET}@db/mana\nMANA_SECRET_KEY={ROOT_SECRET}\n"));
    let printed = home
        .command(&["config", "check", "--json", "--host", "127.0.0.1"])
        .env("MANA_CONFIG_FILE", &file)
        .env("JWT_ISSUER", "environment")
        // An empty variable counts as unset.
        .env("PORT", "")
        .run()
        .succeeded();
    assert!(!printed.contains(SECRET) && !printed.contains(&ROOT_SECRET[5..]), "{printed}");
    let rows: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(setting(&rows, "PORT")["value"], "4000");
    assert_eq!(setting(&rows, "JWT_ISSUER")["value"], "environment");
    assert_eq!(setting(&rows, "PORT")["source"], "file");
    assert_eq!(setting(&rows, "DATABASE_URL")["source"], "file");
}

#[test]
fn config_check_says_no_to_what_can_not_work() {
    let home = Home::new();
    let check = |settings: &[(&str, &str)]| {
        let launch = home.command(&["config", "check"]).env("MANA_SECRET_KEY", ROOT_SECRET);
        let launch = launch.env("DATABASE_URL", "postgres://mana_service:x@db/mana");
        settings.iter().fold(launch, |launch, (name, value)| launch.env(name, value)).run()
    };
    let at = ("BASE_URL", "https://auth.example.org");
    for (settings, named) in [
        ([at, ("COOKIE_DOMAIN", "example.com")], "COOKIE_DOMAIN"),
        ([at, ("REQUIRE_EMAIL_VERIFICATION", "yes")], "SMTP_HOST"),
        ([at, ("STRIPE_SECRET_KEY", "abc")], "sk_live_"),
    ] {
        let refused = check(&settings);
        assert!(refused.stdout.contains("BASE_URL") && refused.code == Some(1), "{refused:?}");
        let sentence = refused.sentence();
        assert!(sentence.contains(named) && !sentence.contains("abc"), "{sentence}");
    }
    for (domain, said) in
        [("fly.dev", "pages of strangers are below fly.dev"), ("org", "below org"), (".", "it is no domain")]
    {
        let refused = check(&[("BASE_URL", "https://mana.fly.dev"), ("COOKIE_DOMAIN", domain)]);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        let sentence = refused.sentence();
        assert!(sentence.contains(said) && sentence.contains("COOKIE_DOMAIN=example.com"), "{sentence}");
    }
    let good = check(&[at, ("COOKIE_DOMAIN", "example.org"), ("STRIPE_SECRET_KEY", "rk_live_1")]);
    assert!(good.stderr.is_empty(), "{good:?}");
    good.succeeded();
    let in_clear = check(&[("BASE_URL", "http://auth.example.org")]);
    assert!(in_clear.stderr.starts_with("warning: BASE_URL is http://auth.example.org"), "{in_clear:?}");
    in_clear.succeeded();
}

#[test]
fn a_setting_of_the_file_that_can_not_be_used_is_told_with_the_file_and_an_example() {
    let home = Home::new();
    for (line, expected) in [
        ("BASE_URL=nowhere", "BASE_URL=https://auth.example.com"),
        ("PORT=abc", "PORT=3001"),
        ("LOG_FORMAT=xml", "one of auto, text, json"),
        ("MAGIC_LINK_SIGN_IN=perhaps", "MAGIC_LINK_SIGN_IN=false"),
    ] {
        let file = home.file("mana.env", &format!("{line}\n"));
        let (variable, value) = line.split_once('=').unwrap();
        let done = home.command(&["config", "check"]).env("MANA_CONFIG_FILE", &file).run();
        assert_eq!(done.code, Some(2), "{done:?}");
        let sentence = done.sentence();
        let place = format!("{variable} in {} is '{value}'", file.display());
        assert!(sentence.contains(&place) && sentence.contains(expected), "{sentence}");
        let sentence = home.command(&["config", "check"]).env(variable, value).run().sentence();
        assert!(sentence.contains(&format!("{variable} in the environment is '{value}'")), "{sentence}");
    }
    let flag = home.command(&["config", "check", "--port", "abc"]).env("PORT", "4000").run().sentence();
    assert!(flag.contains("--port"), "{flag}");
}

#[test]
fn the_help_of_a_command_is_about_the_command() {
    let home = Home::new();
    let file = home.file("mana.env", "JWT_AUDIENCE=ours\n");
    let help = |args: &[&str]| {
        home.command(args).env("MANA_CONFIG_FILE", &file).env("JWT_ISSUER", "us").run().succeeded()
    };
    for args in [&["serve", "--help"][..], &["service-keys", "create", "--help"], &["help", "users", "find"]]
    {
        let text = help(args);
        assert!(text.lines().count() < 60 && !text.contains("JWT_ISSUER"), "{text}");
        assert!(text.contains("`mana-core-auth --help` lists them"), "{text}");
    }
    let all = help(&["--help"]);
    for named in ["[env: BASE_URL]", "[env: JWT_ISSUER=us]", "[env: JWT_AUDIENCE]", "[env: DATA_DIR]"] {
        assert!(all.contains(named), "no {named} in {all}");
    }
    assert!(help(&["-h"]).lines().count() < 60);
    // A flag is one wherever it stands.
    for args in [&["--port", "4000", "config", "check"][..], &["config", "check", "--port", "4000"]] {
        let shown = help(args);
        assert!(shown.lines().any(|line| line.starts_with("PORT ") && line.contains("flag")), "{shown}");
    }
}

#[test]
fn no_secret_of_the_file_is_printed_by_the_help() {
    let home = Home::new();
    let file = home.file(
        "mana.env",
        &format!("DATABASE_URL=postgres://a:{SECRET}@db/mana\nMANA_SECRET_KEY={ROOT_SECRET}\n"),
    );
    for args in [&["--help"][..], &["serve", "--help"], &["help"], &["-h"], &["serve", "--no-such-flag"]] {
        let done = home.command(args).env("MANA_CONFIG_FILE", &file).run();
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(said.contains("mana-core-auth"), "{said}");
        assert!(!said.contains(SECRET) && !said.contains(&ROOT_SECRET[5..]), "{args:?} prints a secret");
    }
}

#[test]
fn no_secret_of_a_file_with_a_mistake_is_printed() {
    let home = Home::new();
    let file = home.file("mana.env", &format!("PORT=4000\nMANA_SECRET_KEY=one:{SECRET} and more\n"));
    let done = home.command(&["config", "check"]).env("MANA_CONFIG_FILE", &file).run();
    assert!(!done.stdout.contains(SECRET) && !done.stderr.contains(SECRET), "{done:?}");
    let sentence = done.sentence();
    assert!(sentence.contains("mana.env"), "{sentence}");
}

#[test]
fn what_needs_no_database_needs_none() {
    let home = Home::new();
    let document: Value = serde_json::from_str(&home.command(&["openapi"]).run().succeeded()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{document}");
    assert!(document["paths"]["/api/v1/auth/login"].is_object());
    let (one, two) = (
        home.command(&["keys", "generate"]).run().succeeded(),
        home.command(&["keys", "generate"]).run().succeeded(),
    );
    assert!(one.lines().zip(two.lines()).all(|(one, two)| one != two), "keys are new each time");
    assert!(home.command(&["--version"]).run().succeeded().contains(env!("CARGO_PKG_VERSION")));
    for command in [&["doctor"][..], &["admin", "claim-link"]] {
        let sentence = home.command(command).run().sentence();
        assert!(sentence.contains("mana-core-auth dev") && sentence.contains("DATABASE_URL"), "{sentence}");
    }
    assert!(!home.path().join(".mana").exists(), "looking makes nothing");
}

#[test]
fn a_reader_that_goes_away_is_no_defect() {
    let home = Home::new();
    let done = home.command(&["openapi"]).unread().run();
    assert!(done.code != Some(101) && !done.stderr.contains("panicked"), "{done:?}");
}
