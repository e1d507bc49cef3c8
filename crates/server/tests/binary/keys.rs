//! `keys`: the commands an operator changes keys and secrets with, while a server runs and when none starts.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Done, Home, Launch, Server};
use serde_json::Value;

const NEW_SECRET: &str = "newer:ISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISE=";

struct Operator {
    home: Home,
    cluster: Cluster,
}

impl Operator {
    fn new() -> Self {
        let operator = Self { home: Home::new(), cluster: Cluster::start().with_database("mana") };
        operator.with(ROOT_SECRET, operator.home.command(&["migrate"])).run().succeeded();
        operator
    }

    fn with(&self, secret: &str, launch: Launch) -> Launch {
        let launch =
            launch.env("DATABASE_URL", self.cluster.service_url("mana")).env("MANA_SECRET_KEY", secret);
        launch.env("DATABASE_OWNER_URL", self.cluster.owner_url("mana")).env("JWT_ALGORITHM", "eddsa")
    }

    fn keys(&self, secret: &str, args: &[&str]) -> Done {
        let done = self.with(secret, self.home.command(args)).arg("--json").run();
        for secret in [&ROOT_SECRET[5..], &NEW_SECRET[6..], "PRIVATE KEY"] {
            assert!(!done.stdout.contains(secret) && !done.stderr.contains(secret), "{done:?}");
        }
        done
    }

    fn list(&self, secret: &str) -> Vec<Value> {
        let listed = self.keys(secret, &["keys", "list"]).succeeded();
        serde_json::from_str(&listed).unwrap()
    }

    fn serve(&self, secret: &str) -> Server {
        self.with(secret, self.home.serve()).start()
    }
}

fn states(keys: &[Value]) -> Vec<(&str, &str, &Value)> {
    keys.iter()
        .map(|key| {
            (key["state"].as_str().unwrap(), key["algorithm"].as_str().unwrap(), &key["secretVersion"])
        })
        .collect()
}

#[test]
fn keys_are_rotated_while_a_server_runs_and_nobody_is_signed_out() {
    let operator = Operator::new();
    let none = operator.with(ROOT_SECRET, operator.home.command(&["keys", "list"])).run().succeeded();
    assert!(none.contains("no key yet"), "{none}");
    let server = operator.serve(ROOT_SECRET);
    server.register("ada@example.com");
    let before = server.login("ada@example.com").text("/accessToken");
    let listed = operator.list(ROOT_SECRET);
    let test = Value::from("test");
    assert_eq!(states(&listed), [("current", "EdDSA", &test), ("next", "EdDSA", &test)]);
    let printed = operator.with(ROOT_SECRET, operator.home.command(&["keys", "list"])).run().succeeded();
    assert!(printed.lines().count() == 3 && printed.contains("sealed under test"), "{printed}");
    assert!(printed.starts_with("KEY ") && printed.contains("PRIVATE HALF"), "{printed}");

    let early = operator.keys(ROOT_SECRET, &["keys", "rotate"]).sentence();
    assert!(early.contains("--force"), "{early}");
    let rotation = operator.keys(ROOT_SECRET, &["keys", "rotate", "--force"]).succeeded();
    let rotation: Value = serde_json::from_str(&rotation).unwrap();
    assert_eq!((&rotation["old"], &rotation["new"]), (&listed[0]["kid"], &listed[1]["kid"]));
    let states_now = operator.list(ROOT_SECRET);
    assert_eq!(
        states(&states_now),
        [("previous", "EdDSA", &Value::Null), ("current", "EdDSA", &test), ("next", "EdDSA", &test)]
    );

    // A server that starts now signs with the new key; both verify what either signed.
    let second = operator.serve(ROOT_SECRET);
    let after = second.login("ada@example.com").text("/accessToken");
    assert_eq!(jsonwebtoken::decode_header(&after).unwrap().kid.as_deref(), rotation["new"].as_str());
    for server in [&server, &second] {
        for token in [&before, &after] {
            assert_eq!(server.get_as(token, "/api/v1/auth/me").status, 200);
        }
    }
    let given = operator.home.command(&["keys", "generate", "--algorithm", "ES256"]).run().succeeded();
    let pem = given.lines().find_map(|line| line.strip_prefix("JWT_PRIVATE_KEY=")).unwrap().trim_matches('"');
    let rotate = operator.with(ROOT_SECRET, operator.home.command(&["keys", "rotate", "--force"]));
    let refused = rotate.env("JWT_PRIVATE_KEY", pem).run().sentence();
    assert!(refused.contains("JWT_PRIVATE_KEY") && refused.contains("restart"), "{refused}");
    let third = operator.with(ROOT_SECRET, operator.home.serve()).env("JWT_PRIVATE_KEY", pem).start();
    let by_pem = third.login("ada@example.com").text("/accessToken");
    assert_eq!(jsonwebtoken::decode_header(&by_pem).unwrap().alg, jsonwebtoken::Algorithm::ES256);
    for token in [&before, &after, &by_pem] {
        assert_eq!(third.get_as(token, "/api/v1/auth/me").status, 200);
        assert_eq!(server.get_as(token, "/api/v1/auth/me").status, 200);
    }
}

#[test]
fn a_changed_secret_is_no_end_with_the_old_one_or_without() {
    let operator = Operator::new();
    let server = operator.serve(ROOT_SECRET);
    server.register("ada@example.com");
    let before = server.login("ada@example.com").text("/accessToken");
    server.stop("TERM");
    let listed = operator.list(ROOT_SECRET);

    // Both keys are named, and nothing is changed by looking.
    let doctor = operator.keys(NEW_SECRET, &["doctor"]);
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    let findings: Vec<Value> = serde_json::from_str(&doctor.stdout).unwrap();
    for key in &listed {
        let named = findings.iter().find(|finding| {
            finding["detail"].as_str().is_some_and(|detail| detail.contains(key["kid"].as_str().unwrap()))
        });
        let named = named.unwrap_or_else(|| panic!("{} is not named in {findings:?}", key["kid"]));
        assert!(
            named["ok"] == false && named["detail"].as_str().unwrap().contains("version test"),
            "{named}"
        );
    }
    let closed = operator.keys(NEW_SECRET, &["keys", "rekey"]);
    assert!(closed.code == Some(1) && closed.stdout.contains("version test"), "{closed:?}");
    let refused = operator.with(NEW_SECRET, operator.home.serve()).run().sentence();
    assert!(refused.contains("version test") && refused.contains("keys rotate --force"), "{refused}");
    let unforced = operator.keys(NEW_SECRET, &["keys", "rotate"]).sentence();
    assert!(unforced.contains("version test"), "{unforced}");
    assert_eq!(operator.list(ROOT_SECRET), listed);

    // With the old one behind the new one, keys are sealed anew, and the old one can go.
    let both = format!("{NEW_SECRET},{ROOT_SECRET}");
    let rekeyed = operator.keys(&both, &["keys", "rekey"]).succeeded();
    let rekeyed: Vec<Value> = serde_json::from_str(&rekeyed).unwrap();
    assert!(rekeyed.len() == 2 && rekeyed.iter().all(|key| key["outcome"] == "resealed"), "{rekeyed:?}");
    operator.keys(NEW_SECRET, &["doctor"]).succeeded();
    let server = operator.serve(NEW_SECRET);
    assert_eq!(server.get_as(&before, "/api/v1/auth/me").status, 200);
    server.stop("TERM");

    // Without it there are new keys, and what the old ones signed is still good.
    operator.with(ROOT_SECRET, operator.home.serve()).run().sentence();
    operator.keys(ROOT_SECRET, &["keys", "rotate", "--force"]).succeeded();
    operator.keys(ROOT_SECRET, &["doctor"]).succeeded();
    let server = operator.serve(ROOT_SECRET);
    assert_eq!(server.get_as(&before, "/api/v1/auth/me").status, 200);
    server.login("ada@example.com");
}
