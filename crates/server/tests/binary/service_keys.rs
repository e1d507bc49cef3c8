//! `service-keys`: how an operator makes the first one, without an administrator.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Done, Home};
use serde_json::Value;

#[test]
fn a_key_is_printed_once_listed_without_itself_and_revoked() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let run = |args: &[&str]| -> Done {
        let launch = home.command(args).env("DATABASE_URL", cluster.service_url("mana"));
        let launch = launch.env("DATABASE_OWNER_URL", cluster.owner_url("mana"));
        launch.env("MANA_SECRET_KEY", ROOT_SECRET).run()
    };
    run(&["migrate"]).succeeded();
    assert!(run(&["service-keys", "list"]).succeeded().contains("no service key yet"));

    let scopes = ["--scope", "credits:spend,credits:read", "--scope", "usage:read"];
    let create = [&["service-keys", "create", "--name", "Mail", "--app", "mail"][..], &scopes].concat();
    let printed = run(&[&create[..], &["--limit-per-minute", "600"]].concat()).succeeded();
    let key = printed.lines().next().unwrap();
    assert!(key.starts_with("mana_sk_") && key.len() == 51, "{printed}");
    assert!(printed.contains("app mail  credits:read,credits:spend,usage:read  600/min"), "{printed}");
    let json: Value = serde_json::from_str(&run(&[&create[..], &["--json"]].concat()).succeeded()).unwrap();
    assert!(
        json["key"].as_str().unwrap().starts_with("mana_sk_") && json["limitPerMinute"].is_null(),
        "{json}"
    );

    let id = json["id"].as_str().unwrap();
    let revoked = run(&["service-keys", "revoke", id, "--json"]).succeeded();
    assert_eq!(serde_json::from_str::<Value>(&revoked).unwrap()["revoked"], id);
    let again = run(&["service-keys", "revoke", id]).sentence();
    assert!(again.contains(id) && again.contains("service-keys list"), "{again}");
    let listed = run(&["service-keys", "list"]).succeeded();
    assert!(
        listed.lines().count() == 3 && listed.starts_with("ID ") && !listed.contains("mana_sk_"),
        "{listed}"
    );
    assert!(listed.contains("REVOKED") && listed.contains("never used"), "{listed}");

    let refused = run(&["service-keys", "create", "--name", "Mail", "--scope", "credits:mint"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("credits:spend"), "{refused:?}");
}
