//! What can't be started says so in one sentence, at once, and leaves nothing behind.

use crate::cluster::{ROOT_SECRET, Sql};
use crate::process::{Home, Launch, listen};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

const SECRET: &str = "TopSecret1234";

#[test]
fn a_taken_port_is_named_with_the_way_out() {
    let home = Home::new();
    let holder = listen();
    let port = holder.local_addr().unwrap().port().to_string();
    let done = home.command(&["--port", &port, "--data-dir"]).arg(home.data()).run();
    assert!(done.took < Duration::from_secs(20), "{done:?}");
    let sentence = done.sentence();
    assert!(sentence.contains(&port) && sentence.contains("--port"), "{sentence}");
    assert!(home.is_quiet() && !home.data().exists());
}

#[test]
fn a_folder_in_use_is_refused_and_its_user_is_not_disturbed() {
    let home = Home::new();
    let first = home.dev().start();
    first.register("ada@example.com");
    let postgres = fs::read_to_string(home.data().join("postgres/cluster/postmaster.pid")).unwrap();
    let refused = home.dev().run();
    assert!(refused.took < Duration::from_secs(20), "{refused:?}");
    assert_eq!(fs::read_to_string(home.data().join("postgres/cluster/postmaster.pid")).unwrap(), postgres);
    first.login("ada@example.com");
    assert_eq!(first.get(&first.claim_link()).status, 200);
    first.stop("TERM");
    assert!(home.is_quiet());
    let sentence = refused.sentence();
    assert!(sentence.contains("in use") && sentence.contains("--data-dir"), "{sentence}");
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let home = Home::new();
    let server = home.dev().start();
    Sql::of_dev(&home.data()).run(
        "INSERT INTO mana.migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of tomorrow', true, '\\x00', 0);
         COMMENT ON TABLE mana.migrations IS 'Servers of this schema and newer work here: 9998'",
    );
    let doctor = home.command(&["doctor", "--data-dir"]).arg(home.data()).run();
    assert!(doctor.code == Some(1) && doctor.stdout.contains("newer"), "{doctor:?}");
    server.stop("TERM");
    let sentence = home.dev().run().sentence();
    assert!(sentence.contains("newer") && sentence.contains("9999"), "{sentence}");
    assert!(home.is_quiet(), "PostgreSQL is stopped also when the service did not start");
}

#[test]
fn a_setting_that_can_not_be_used_is_named() {
    let home = Home::new();
    let secret_url = format!("postgres://ada:{SECRET}@not a host/db");
    let missing = home.path().join("missing.env");
    let unknown = home.file("unknown.env", "PROT=3001\n");
    for (name, value, named) in [
        ("CORS_ORIGINS", "*", "CORS_ORIGINS"),
        ("CORS_ORIGINS", "https://app.example/path", "CORS_ORIGINS"),
        ("PORT", "abc", "PORT"),
        ("PORT", "65536", "PORT"),
        ("LOG_LEVEL", "???", "LOG_LEVEL"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT"),
        ("BASE_URL", "nowhere", "BASE_URL"),
        ("PASSWORD_MIN_LENGTH", "4", "PASSWORD_MIN_LENGTH"),
        ("JWT_ACCESS_TOKEN_EXPIRY", "soon", "JWT_ACCESS_TOKEN_EXPIRY"),
        ("DATABASE_URL", "nonsense", "DATABASE_URL"),
        ("DATABASE_URL", &secret_url, "DATABASE_URL"),
        ("MANA_CONFIG_FILE", missing.to_str().unwrap(), "missing.env"),
        ("MANA_CONFIG_FILE", unknown.to_str().unwrap(), "PROT"),
    ] {
        let port = crate::process::free_port().to_string();
        let mut launch =
            home.command(&["dev", "--data-dir"]).arg(home.data()).env("MANA_SECRET_KEY", ROOT_SECRET);
        if name != "PORT" {
            launch = launch.arg("--port").arg(&port);
        }
        let done = launch.env(name, value).run();
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(!said.contains(SECRET) && !said.contains(&ROOT_SECRET[5..]), "{said}");
        done.sentence();
        // The flag's name stands for the variable's.
        let flag = named.to_lowercase().replace('_', "-");
        assert!(said.contains(named) || said.contains(&flag), "{name}={value}: {said}");
        assert!(home.is_quiet() && !home.data().exists(), "{name}={value} started something");
    }
}

#[test]
fn a_malformed_secret_is_refused_and_not_printed() {
    let home = Home::new();
    let database = format!("postgres://ada:{SECRET}@localhost:1/db");
    for value in [
        SECRET.to_owned(),
        format!("one:{SECRET}"),
        format!("{ROOT_SECRET},{SECRET}"),
        format!("{ROOT_SECRET},{ROOT_SECRET}"),
    ] {
        let done = home.serve().env("DATABASE_URL", &database).env("MANA_SECRET_KEY", &value).run();
        assert!(!done.stderr.contains(SECRET) && !done.stderr.contains(&ROOT_SECRET[5..]), "{done:?}");
        let sentence = done.sentence();
        assert!(sentence.contains("MANA_SECRET_KEY") && sentence.contains("keys generate"), "{sentence}");
    }
    let done = home
        .command(&["config", "check"])
        .env("DATABASE_URL", &database)
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .env("JWT_PRIVATE_KEY", format!("-----BEGIN PRIVATE KEY-----\\n{SECRET}\\n-----END PRIVATE KEY-----"))
        .run();
    assert!(!done.stdout.contains(SECRET) && !done.stderr.contains(SECRET), "{done:?}");
    let sentence = done.sentence();
    assert!(sentence.contains("JWT_PRIVATE_KEY"), "{sentence}");
}

#[test]
fn an_unknown_time_zone_is_refused_and_the_database_started_for_it_is_gone() {
    let home = Home::new();
    let temporary = home.temporary_files();
    let refused =
        home.dev().arg("--ephemeral").env("TMPDIR", &temporary).env("CREDITS_DAILY_ZONE", "Mars/Base").run();
    assert!(home.is_quiet() && fs::read_dir(&temporary).unwrap().next().is_none());
    let sentence = refused.sentence();
    assert!(sentence.contains("CREDITS_DAILY_ZONE") && sentence.contains("Mars/Base"), "{sentence}");
}

#[test]
fn a_database_that_can_not_be_reached_is_a_sentence_without_its_password() {
    let home = Home::new();
    let database = format!("postgres://ada:{SECRET}@localhost:1/db");
    let done = home
        .serve()
        .env("DATABASE_URL", &database)
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .env("DATABASE_WAIT_SECONDS", "1")
        .run();
    assert!(done.took < Duration::from_secs(20), "{done:?}");
    assert!(!done.stderr.contains(SECRET), "{done:?}");
    let sentence = done.sentence();
    assert!(sentence.contains("DATABASE_URL"), "{sentence}");
}

#[test]
fn a_folder_that_others_could_have_prepared_is_not_trusted() {
    let home = Home::new();
    fs::create_dir(home.data()).unwrap();
    fs::set_permissions(home.data(), Permissions::from_mode(0o777)).unwrap();
    let sentence = home.dev().run().sentence();
    assert!(sentence.contains("--data-dir") && sentence.contains("trusted"), "{sentence}");

    fs::set_permissions(home.data(), Permissions::from_mode(0o755)).unwrap();
    let theirs = home.data().join("socket");
    fs::write(&theirs, "a letter").unwrap();
    let sentence = home.dev().run().sentence();
    assert!(sentence.contains("something else"), "{sentence}");
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "a letter");

    fs::remove_file(&theirs).unwrap();
    home.dev().start().stop("TERM");
}

#[test]
fn a_dollar_that_would_change_a_value_is_refused() {
    let home = Home::new();
    let file = home.file("dollar.env", &format!("JWT_ISSUER=pa${SECRET}\n"));
    let done = home.command(&["config", "check"]).env("MANA_CONFIG_FILE", &file).run();
    assert!(!done.stderr.contains(SECRET), "{done:?}");
    let sentence = done.sentence();
    assert!(sentence.contains("JWT_ISSUER") && sentence.contains("single quotes"), "{sentence}");
    let quoted = home.file("quoted.env", "JWT_ISSUER='pa$word'\n");
    let shown = home.command(&["config", "check"]).env("MANA_CONFIG_FILE", &quoted).run().succeeded();
    assert!(shown.contains("pa$word"), "{shown}");
}

#[test]
fn what_is_thrown_away_is_not_what_is_kept() {
    let home = Home::new();
    let database = "postgres://ada@localhost:1/db";
    let sentence = home.command(&["dev", "--ephemeral"]).env("DATABASE_URL", database).run().sentence();
    assert!(sentence.contains("--ephemeral") && sentence.contains("DATABASE_URL"), "{sentence}");
}

#[test]
fn mail_settings_that_would_send_nothing_or_in_clear_are_refused_before_anything_starts() {
    let home = Home::new();
    let relay = [("SMTP_HOST", "smtp.example.com"), ("SMTP_FROM", "mana@example.com")];
    let no_certificate = home.file("empty.pem", "nothing\n");
    for (settings, named) in [
        (vec![("SMTP_HOST", "smtp.example.com")], "SMTP_FROM"),
        (vec![("SMTP_FROM", "mana@example.com")], "SMTP_HOST"),
        (vec![("SMTP_HOST", "smtp.example.com"), ("SMTP_FROM", "nobody")], "SMTP_FROM"),
        (
            vec![
                ("SMTP_HOST", "smtp.example.com"),
                ("SMTP_FROM", "mana@example.com\r\nBcc: eve@example.com"),
            ],
            "SMTP_FROM",
        ),
        ([&relay[..], &[("SMTP_USER", "mana")]].concat(), "SMTP_PASSWORD"),
        ([&relay[..], &[("SMTP_PASSWORD", SECRET)]].concat(), "SMTP_USER"),
        ([&relay[..], &[("SMTP_TLS", "none")]].concat(), "SMTP_TLS"),
        ([&relay[..], &[("SMTP_CA_FILE", no_certificate.to_str().unwrap())]].concat(), "empty.pem"),
    ] {
        let with =
            |launch: Launch| settings.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
        let started = with(home.dev()).run();
        let checked = with(home.command(&["config", "check"])).run();
        for done in [started, checked] {
            assert!(!done.stdout.contains(SECRET) && !done.stderr.contains(SECRET), "{done:?}");
            let sentence = done.sentence();
            assert!(sentence.contains(named), "{settings:?}: {sentence}");
        }
        assert!(home.is_quiet() && !home.data().exists(), "{settings:?} started something");
    }
}
