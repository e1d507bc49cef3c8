//! `deploy/up` before it starts anything: it makes secrets, and refuses what everybody knows.

use crate::deployment::deploy;
use crate::process::Home;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

fn up(env: &Path) -> Output {
    Command::new("bash").arg(deploy("up")).arg("--check").env("MANA_ENV_FILE", env).output().unwrap()
}

/// What it has against the file.
fn complaints(env: &Path) -> String {
    let output = up(env);
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn set(text: &str, name: &str, value: &str) -> String {
    let is_it = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
    assert!(text.lines().any(is_it), "no {name}");
    let line = |line: &str| if is_it(line) { format!("{name}={value}\n") } else { format!("{line}\n") };
    text.lines().map(line).collect()
}

#[test]
fn secrets_are_made_and_what_everybody_knows_is_refused() {
    let home = Home::new();
    let env = home.path().join("env");
    let made = complaints(&env);
    assert!(made.contains("with new secrets"), "{made}");
    assert_eq!(fs::metadata(&env).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(complaints(&env).contains("DOMAIN must be"), "what only the operator knows is asked for");

    let text = fs::read_to_string(&env).unwrap();
    let example = fs::read_to_string(deploy(".env.example")).unwrap();
    let secrets: Vec<&str> = example.lines().filter_map(|line| line.strip_suffix("=change-me")).collect();
    assert_eq!(secrets.len(), 8);
    let complete = [
        ("DOMAIN", "auth.mana.test"),
        ("ACME_EMAIL", "ops@mana.test"),
        ("CORS_ORIGINS", "https://app.mana.test"),
        ("SMTP_HOST", "mail.mana.test"),
        ("SMTP_FROM", "mana@mana.test"),
        ("ALERT_WEBHOOK_URL", "https://chat.mana.test/hook"),
    ]
    .iter()
    .fold(text, |text, (name, value)| set(&text, name, value));
    let write = |text: &str| fs::write(&env, text).unwrap();
    write(&complete);
    let good = up(&env);
    assert!(good.status.success(), "{good:?}");

    for bad in ["", "change-me", "password", "short1234", "with@sign:and/slash-and-more"] {
        write(&secrets.iter().fold(complete.clone(), |text, secret| set(&text, secret, bad)));
        let complaints = complaints(&env);
        for secret in &secrets {
            assert!(complaints.contains(secret), "{secret}={bad:?}: {complaints}");
        }
    }
    let twice = "0123456789abcdef0123456789abcdef";
    write(&set(&set(&complete, "REDIS_PASSWORD", twice), "GRAFANA_PASSWORD", twice));
    assert!(complaints(&env).contains("the same as another"));
    for (name, bad) in [
        ("DOMAIN", "auth.example.com"),
        ("DOMAIN", "localhost"),
        ("CORS_ORIGINS", "http://app.mana.test"),
        ("SMTP_FROM", ""),
        ("ALERT_WEBHOOK_URL", "chat"),
    ] {
        write(&set(&complete, name, bad));
        assert!(complaints(&env).contains(name), "{name}={bad:?}");
    }
    write(&format!("{complete}RATE_LIMIT=1\n"));
    assert!(complaints(&env).contains("RATE_LIMIT is nothing"), "a spelling mistake");
    write(&complete);
    fs::set_permissions(&env, Permissions::from_mode(0o644)).unwrap();
    assert!(complaints(&env).contains("others may read"));
}

#[test]
fn servers_are_told_settings_that_exist() {
    let settings = fs::read_to_string(deploy("../.env.example")).unwrap();
    let exists = |name: &str| settings.contains(&format!("\n#{name}="));
    assert!(exists("DRAIN_SECONDS") && !exists("DRAIN"));
    for (file, beginning, indent) in [
        ("docker-compose.yml", "environment: &auth-environment\n", "    "),
        ("docker-compose.dev.yml", "environment:\n", "      "),
        ("kubernetes/configmap.yaml", "\ndata:\n", "  "),
        ("kubernetes/secret.example.yaml", "stringData:\n", "  "),
    ] {
        let text = fs::read_to_string(deploy(file)).unwrap();
        let (_, block) = text.split_once(beginning).unwrap();
        let lines = block.lines().map_while(|line| line.strip_prefix(indent)).map(str::trim);
        let names: Vec<_> =
            lines.filter(|line| !line.starts_with('#')).map(|line| line.split(':').next().unwrap()).collect();
        assert!(names.len() > 5, "{file}: {names:?}");
        for name in names {
            assert!(exists(name), "{file} tells servers of {name}, which is no setting");
        }
    }
}
