//! `deploy/up`: it makes secrets, refuses what everybody knows, and does things in their order. No Docker is needed: what it would ask
//! of Docker is written down. Compose's files are read by Compose itself.

use crate::deployment::deploy;
use crate::process::{Home, Launch};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A copy of `deploy/` with the list of settings beside it: what is made and changed here is no part of the checkout.
fn copied(home: &Home) -> PathBuf {
    let copy = Command::new("cp").arg("-r").arg(deploy("")).arg(home.path().join("deploy")).status().unwrap();
    assert!(copy.success());
    fs::copy(deploy("../.env.example"), home.path().join(".env.example")).unwrap();
    let folder = home.path().join("deploy");
    for left in [".env", "service.env"] {
        // Of whoever works with the checkout; mostly there is none.
        let _ = fs::remove_file(folder.join(left));
    }
    folder
}

fn check(folder: &Path) -> Output {
    Command::new("bash").arg(folder.join("up")).arg("--check").output().unwrap()
}

/// What it has against the files.
fn complaints(folder: &Path) -> String {
    let output = check(folder);
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// With secrets, and with all that only the operator knows.
fn complete(folder: &Path) -> String {
    assert!(!check(folder).status.success(), "the first time it only makes the file");
    let text = fs::read_to_string(folder.join(".env")).unwrap();
    let text = [
        ("DOMAIN", "auth.mana.test"),
        ("ACME_EMAIL", "ops@mana.test"),
        ("CORS_ORIGINS", "https://app.mana.test"),
        ("SMTP_HOST", "mail.mana.test"),
        ("SMTP_FROM", "mana@mana.test"),
        ("ALERT_WEBHOOK_URL", "https://chat.mana.test/hook"),
    ]
    .iter()
    .fold(text, |text, (name, value)| set(&text, name, value));
    fs::write(folder.join(".env"), &text).unwrap();
    text
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
    let folder = copied(&home);
    let env = folder.join(".env");
    let made = complaints(&folder);
    assert!(made.contains("with new secrets"), "{made}");
    assert_eq!(fs::metadata(&env).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(complaints(&folder).contains("DOMAIN must be"), "what only the operator knows is asked for");
    fs::remove_file(&env).unwrap();

    let example = fs::read_to_string(deploy(".env.example")).unwrap();
    let secrets: Vec<&str> = example.lines().filter_map(|line| line.strip_suffix("=change-me")).collect();
    assert_eq!(secrets.len(), 8);
    let complete = complete(&folder);
    let write = |text: &str| fs::write(&env, text).unwrap();
    let good = check(&folder);
    assert!(good.status.success(), "{good:?}");

    for bad in ["", "change-me", "password", "short1234", "with@sign:and/slash-and-more"] {
        write(&secrets.iter().fold(complete.clone(), |text, secret| set(&text, secret, bad)));
        let complaints = complaints(&folder);
        for secret in &secrets {
            assert!(complaints.contains(secret), "{secret}={bad:?}: {complaints}");
        }
    }
    let twice = "0123456789abcdef0123456789abcdef";
    write(&set(&set(&complete, "REDIS_PASSWORD", twice), "GRAFANA_PASSWORD", twice));
    assert!(complaints(&folder).contains("the same as another"));
    for (name, bad) in [
        ("DOMAIN", "auth.example.com"),
        ("DOMAIN", "localhost"),
        ("CORS_ORIGINS", "http://app.mana.test"),
        ("SMTP_FROM", ""),
        ("ALERT_WEBHOOK_URL", "chat"),
    ] {
        write(&set(&complete, name, bad));
        assert!(complaints(&folder).contains(name), "{name}={bad:?}");
    }
    write(&format!("{complete}RATE_LIMIT=1\n"));
    assert!(complaints(&folder).contains("RATE_LIMIT is nothing"), "a spelling mistake");
    write(&complete);
    fs::set_permissions(&env, Permissions::from_mode(0o644)).unwrap();
    assert!(complaints(&folder).contains("others may read"));
}

#[test]
fn what_servers_are_told_beside_is_looked_at() {
    let home = Home::new();
    let folder = copied(&home);
    complete(&folder);
    let service = folder.join("service.env");
    assert!(check(&folder).status.success());
    assert_eq!(fs::metadata(&service).unwrap().permissions().mode() & 0o777, 0o600);
    let with = |line: &str| fs::write(&service, format!("# Payments\n{line}\n")).unwrap();
    with("STRIPE_SECRET_KEY=sk_live_0123456789");
    assert!(check(&folder).status.success());
    for (line, complaint) in [
        ("STRIPE_SECRET=sk_live_0123456789", "STRIPE_SECRET in service.env is no setting"),
        ("BASE_URL=https://auth.mana.test", "BASE_URL in service.env would change nothing"),
        ("PORT=3000", "PORT in service.env would change nothing"),
        ("HOST=127.0.0.1", "HOST in service.env would change nothing"),
        ("REDIS_PORT=6380", "REDIS_PORT in service.env would change nothing"),
        ("DATABASE_OWNER_URL=postgres://x", "would let servers own the schema"),
        (
            "export FRONTEND_URL=https://app.mana.test",
            "to be mended: line 2 of service.env is not NAME=value",
        ),
    ] {
        with(line);
        let complaints = complaints(&folder);
        assert!(complaints.contains(complaint) && !complaints.contains("sk_live"), "{complaints}");
    }
    with("");
    fs::set_permissions(&service, Permissions::from_mode(0o640)).unwrap();
    assert!(complaints(&folder).contains("others may read"));
    fs::set_permissions(&service, Permissions::from_mode(0o600)).unwrap();

    let hidden = folder.join("redis/redis.conf");
    fs::set_permissions(&hidden, Permissions::from_mode(0o600)).unwrap();
    assert!(complaints(&folder).contains("containers can't read deploy/redis/redis.conf"));
    fs::set_permissions(&hidden, Permissions::from_mode(0o644)).unwrap();

    let prometheus = folder.join("prometheus/prometheus.yml");
    let asked = fs::read_to_string(&prometheus).unwrap();
    with("INTERNAL_ADDRESS=0.0.0.0:9090");
    let elsewhere = asked.replace("auth-1:3001", "auth-1:9090").replace("auth-2:3001", "auth-2:9090");
    fs::write(&prometheus, elsewhere).unwrap();
    assert!(check(&folder).status.success(), "metrics at the address for them");
    fs::write(&prometheus, asked).unwrap();

    let compose = folder.join("docker-compose.yml");
    let text = fs::read_to_string(&compose).unwrap();
    let third = text.replace("  auth-2: *auth\n", "  auth-2: *auth\n  auth-3: *auth\n");
    fs::write(&compose, third).unwrap();
    let missing = complaints(&folder);
    assert!(
        missing.contains("routes.yml does not know auth-3") && missing.contains("prometheus.yml"),
        "{missing}"
    );
}

/// What stands for Docker: notes down what it is asked, with what it is told of the files, and has it done.
const DOCKER: &str = r#"#!/bin/sh
[ "$*" != 'compose version' ] || exit 0
printf '%s (%s) [%s]\n' "$*" "$ACME_STORAGE" "$FILES_PROMETHEUS-$FILES_REDIS" >> "$HOME/calls"
case "$*" in
*' config check') exit "$CONFIG_CHECK" ;;
*' ps --quiet '*) echo id ;;
*StartedAt*) cat "$HOME/started" ;;
inspect*) echo healthy ;;
*/roles) cat > "$HOME/passwords" ;;
*' up --detach --remove-orphans') [ -e "$HOME/started" ] || echo now > "$HOME/started" ;;
*' restart traefik') echo later > "$HOME/started" ;;
esac
"#;

/// What stands for curl: at first it gets no TLS, once for each line of a file.
const CURL: &str = r#"#!/bin/sh
printf 'curl %s\n' "$*" >> "$HOME/calls"
[ ! -s "$HOME/without-tls" ] || { sed -i 1d "$HOME/without-tls"; exit 35; }
"#;

/// `deploy/up` on a machine where others stand for Docker and curl, and nothing has to be waited for.
fn up(home: &Home, folder: &Path, mode: &str, config_check: &str) -> (Output, String) {
    let programs = home.path().join("programs");
    fs::create_dir_all(&programs).unwrap();
    for (name, text) in [("docker", DOCKER), ("curl", CURL), ("sleep", "#!/bin/sh\n")] {
        fs::write(programs.join(name), text).unwrap();
        fs::set_permissions(programs.join(name), Permissions::from_mode(0o755)).unwrap();
    }
    let mut up = Command::new("bash");
    up.arg("-c").arg(format!("PATH={}:$PATH exec bash {}/up {mode}", programs.display(), folder.display()));
    let output = up.env("HOME", home.path()).env("CONFIG_CHECK", config_check).output().unwrap();
    let calls = fs::read_to_string(home.path().join("calls")).unwrap();
    fs::remove_file(home.path().join("calls")).unwrap();
    (output, calls)
}

#[test]
fn what_is_started_is_started_in_an_order_that_keeps_serving() {
    let home = Home::new();
    let folder = copied(&home);
    let env = complete(&folder);
    let run = |config_check: &str| up(&home, &folder, "", config_check);
    let (output, calls) = run("0");
    assert!(output.status.success(), "{output:?}\n{calls}");
    let mut rest = calls.as_str();
    for step in [
        "build auth-1 pgbouncer",
        "run --rm --no-deps -T auth-1 config check",
        "up --detach --no-recreate postgres redis",
        "exec -T postgres bash /etc/postgresql/roles",
        "up --detach --no-deps pgbouncer",
        "run --rm --no-deps -T migrate",
        "up --detach --no-deps auth-1",
        "inspect",
        "up --detach --no-deps auth-2",
        "up --detach --remove-orphans",
        "curl ",
    ] {
        let (_, after) = rest.split_once(step).unwrap_or_else(|| panic!("no {step:?} in its place: {calls}"));
        rest = after;
    }
    assert!(calls.contains("--resolve auth.mana.test:443:127.0.0.1 https://auth.mana.test/health/live"));
    let passwords = fs::read_to_string(home.path().join("passwords")).unwrap();
    assert_eq!(passwords.lines().count(), 5);
    for line in passwords.lines() {
        let (_, secret) = line.split_once('=').unwrap();
        assert!(env.contains(&format!("{line}\n")) && !calls.contains(secret), "on no command line");
    }
    let files = |calls: &str| calls.lines().next().unwrap().split_once('[').unwrap().1.to_owned();
    let before = files(&calls);
    let (of_prometheus, of_redis) = before.trim_end_matches(']').split_once('-').unwrap();
    assert!(of_prometheus.len() == 16 && of_redis.len() == 16 && of_redis != of_prometheus);
    assert_eq!(files(&run("0").1), before, "nothing has changed");
    let rules = folder.join("prometheus/rules/alerts.yml");
    fs::write(&rules, fs::read_to_string(&rules).unwrap() + "# changed\n").unwrap();
    fs::remove_file(home.path().join("passwords")).unwrap();
    let (refused, calls) = run("1");
    let after = files(&calls);
    assert!(!after.starts_with(of_prometheus) && after.contains(of_redis), "{after}");
    assert!(!refused.status.success() && !calls.contains("migrate") && !calls.contains("auth-2"), "{calls}");
    assert!(!home.path().join("passwords").exists(), "no password is changed for servers that can't start");
}

#[test]
fn a_certificate_that_was_not_had_is_asked_for_again_and_one_for_trials_is_not_kept() {
    let home = Home::new();
    let folder = copied(&home);
    let env = complete(&folder);
    let without_tls = |times: usize| fs::write(home.path().join("without-tls"), "\n".repeat(times)).unwrap();
    without_tls(3);
    let (output, calls) = up(&home, &folder, "", "0");
    assert!(output.status.success(), "{output:?}\n{calls}");
    assert!(!calls.contains("restart traefik"), "it was started just now, and asks: {calls}");
    without_tls(3);
    let (output, calls) = up(&home, &folder, "", "0");
    assert!(output.status.success(), "{output:?}\n{calls}");
    assert_eq!(calls.matches("restart traefik").count(), 1, "{calls}");
    assert!(calls.lines().next().unwrap().contains(" () "), "{calls}");

    let staging = "https://acme-staging-v02.api.letsencrypt.org/directory";
    fs::write(folder.join(".env"), set(&env, "ACME_SERVER", staging)).unwrap();
    let (_, calls) = up(&home, &folder, "", "0");
    let stored =
        |calls: &str| calls.split_once(" (acme-").unwrap().1.split_once(".json) ").unwrap().0.to_owned();
    assert_eq!(stored(&calls).len(), 16);
    assert!(calls.contains("--insecure"), "nobody trusts it");
}

#[test]
fn docker_without_compose_is_named_with_its_package_before_anything_is_made() {
    let home = Home::new();
    let folder = copied(&home);
    let programs = home.path().join("programs");
    fs::create_dir_all(&programs).unwrap();
    fs::write(programs.join("docker"), "#!/bin/sh\necho \"unknown flag: $*\" >&2\nexit 125\n").unwrap();
    fs::set_permissions(programs.join("docker"), Permissions::from_mode(0o755)).unwrap();
    let mut up = Command::new("bash");
    up.arg("-c").arg(format!("PATH={}:$PATH exec bash {}/up", programs.display(), folder.display()));
    let output = up.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("docker-compose-plugin"), "{said}");
    assert!(!said.contains("unknown flag") && !folder.join(".env").exists(), "{said}");
}

#[test]
fn on_a_laptop_nothing_has_to_be_filled_in() {
    let home = Home::new();
    let folder = copied(&home);
    let (output, calls) = up(&home, &folder, "--dev", "0");
    assert!(output.status.success(), "{output:?}\n{calls}");
    assert!(
        calls.contains("migrate") && calls.contains("docker-compose.dev.yml") && !calls.contains("curl ")
    );
}

/// The variables of a service, as Compose finds them.
fn environment(folder: &Path, files: &[&str], service: &str) -> BTreeMap<String, String> {
    let mut compose = Command::new("docker-compose");
    compose.arg("--env-file").arg(folder.join(".env"));
    for file in files {
        compose.arg("-f").arg(folder.join(file));
    }
    let output =
        compose.arg("config").output().expect("docker-compose is installed (apt-get install docker-compose)");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, text) = text.split_once(&format!("\n  {service}:\n")).unwrap();
    let (_, text) = text.split_once("    environment:\n").unwrap();
    text.lines()
        .map_while(|line| line.strip_prefix("      "))
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            let plain = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
            (name.to_owned(), plain.unwrap_or(value).to_owned())
        })
        .collect()
}

#[test]
fn what_each_container_of_the_service_is_told_can_be_used() {
    let home = Home::new();
    let folder = copied(&home);
    let env = complete(&folder);
    assert!(check(&folder).status.success());
    let more = "STRIPE_SECRET_KEY=sk_live_0123456789\nFRONTEND_URL=https://app.mana.test\n";
    let service = folder.join("service.env");
    fs::write(&service, fs::read_to_string(&service).unwrap() + more).unwrap();
    let given = |launch: Launch, variables: &BTreeMap<String, String>| {
        variables.iter().fold(launch, |launch, (name, value)| launch.env(name, value))
    };
    let production: &[&str] = &["docker-compose.yml"];
    let dev: &[&str] = &["docker-compose.yml", "docker-compose.dev.yml"];
    for (files, service) in [
        (production, "auth-1"),
        (production, "auth-2"),
        (production, "migrate"),
        (production, "restored"),
        (dev, "auth-1"),
        (dev, "migrate"),
        (dev, "restored"),
    ] {
        // On a laptop nobody has filled it in.
        let told = ["DOMAIN", "ACME_EMAIL", "CORS_ORIGINS", "SMTP_HOST", "SMTP_FROM", "ALERT_WEBHOOK_URL"];
        let bare = told.iter().fold(env.clone(), |text, name| set(&text, name, ""));
        fs::write(folder.join(".env"), if files == dev { &bare } else { &env }).unwrap();
        let variables = environment(&folder, files, service);
        assert_eq!(variables["STRIPE_SECRET_KEY"], "sk_live_0123456789", "{service}");
        let checked = given(home.command(&["config", "check"]), &variables).run();
        assert_eq!(checked.code, Some(0), "{files:?} {service}: {checked:?}");
        assert!(!checked.stdout.contains("sk_live"), "{checked:?}");
        let domain = if files == dev { "localhost:3001" } else { "auth.mana.test" };
        assert!(checked.stdout.contains(domain), "{checked:?}");
        assert_eq!(variables.contains_key("DATABASE_OWNER_URL"), service == "migrate");
    }
    let mut wrong = environment(&folder, dev, "auth-1");
    wrong.insert("SMTP_PORT".to_owned(), "587".to_owned());
    let refused = given(home.command(&["config", "check"]), &wrong).run();
    assert!(refused.sentence().contains("SMTP_PORT"), "a port without a host");
}

#[test]
fn servers_are_told_settings_that_exist() {
    let settings = fs::read_to_string(deploy("../.env.example")).unwrap();
    let exists = |name: &str| settings.contains(&format!("\n#{name}="));
    assert!(exists("DRAIN_SECONDS") && !exists("DRAIN"));
    for (file, beginning, indent) in [
        ("docker-compose.yml", "environment: &auth-environment\n", "    "),
        ("docker-compose.dev.yml", "environment: &dev-environment\n", "      "),
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

#[test]
fn in_kubernetes_the_policy_is_for_the_pods_of_the_service_and_they_have_what_they_are_told_of() {
    let read = |name: &str| fs::read_to_string(deploy("kubernetes").join(name)).unwrap();
    let label = |text: &str| {
        let (_, after) = text.rsplit_once("labels: {app.kubernetes.io/name: ").unwrap();
        after.split('}').next().unwrap().to_owned()
    };
    let policy = read("network-policy.yaml");
    assert!(!policy.contains("podSelector: {}"), "PgBouncer and Redis may be neighbours");
    let (_, selected) = policy.split_once("key: app.kubernetes.io/name, operator: In, values: [").unwrap();
    let selected: Vec<_> = selected.split(']').next().unwrap().split(", ").collect();
    let pods = ["deployment.yaml", "job-migrate.yaml"].map(read);
    assert_eq!(selected, pods.each_ref().map(|pod| label(pod)));
    assert_ne!(label(&pods[0]), label(&pods[1]), "no request is for the job");
    let secret = read("secret.example.yaml");
    assert_eq!(secret.matches("sslrootcert=/certificates/ca.crt").count(), 2);
    for pod in pods {
        assert!(pod.contains("mountPath: /certificates") && pod.contains("mana-core-auth-database-ca"));
    }
    assert!(secret.contains("name: mana-core-auth-database-ca\n"));
}
