//! `webhooks`: how an operator adds an endpoint, and sees to it.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Done, Home};
use serde_json::Value;

#[test]
fn an_endpoint_is_added_listed_without_its_secret_rotated_and_removed() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let run = |args: &[&str]| -> Done {
        let launch = home.command(args).env("DATABASE_URL", cluster.service_url("mana"));
        let launch = launch.env("DATABASE_OWNER_URL", cluster.owner_url("mana"));
        launch.env("MANA_SECRET_KEY", ROOT_SECRET).run()
    };
    run(&["migrate"]).succeeded();
    assert!(run(&["webhooks", "list"]).succeeded().contains("no endpoint yet"));

    let add =
        ["webhooks", "add", "--app", "chat", "--event", "credits.spent,user.deleted", "--spent-from", "100"];
    let inside = run(&[&add[..], &["--url", "http://127.0.0.1:4000/hooks"]].concat()).sentence();
    assert!(inside.contains("WEBHOOK_PRIVATE_NETWORKS"), "{inside}");
    let add = [&add[..], &["--url", "https://chat.example.com/hooks"]].concat();
    let printed = run(&add).succeeded();
    let secret = printed.lines().next().unwrap();
    assert!(secret.starts_with("mana_whsec_") && secret.len() == 54, "{printed}");
    assert!(
        printed.contains("app chat  https://chat.example.com/hooks  credits.spent>=100,user.deleted"),
        "{printed}"
    );

    let listed = run(&["webhooks", "list", "--app", "chat"]).succeeded();
    assert!(
        listed.starts_with("ID ") && listed.contains("WAITING") && !listed.contains("mana_whsec_"),
        "{listed}"
    );
    assert!(listed.contains("credits.spent>=100,user.deleted  0        0     good"), "{listed}");
    assert!(run(&["webhooks", "list", "--app", "maps"]).succeeded().contains("no endpoint yet"));
    let json: Value = serde_json::from_str(&run(&["webhooks", "list", "--json"]).succeeded()).unwrap();
    let id = json[0]["id"].as_str().unwrap();
    let rotated = run(&["webhooks", "rotate-secret", id]).succeeded();
    let new = rotated.lines().next().unwrap();
    assert!(new.starts_with("mana_whsec_") && new != secret, "{rotated}");
    assert!(run(&["webhooks", "deliveries", id]).succeeded().contains("no such delivery"));
    let replayed = run(&["webhooks", "replay", id, "--from", "2026-01-01T00:00:00Z", "--json"]).succeeded();
    assert_eq!(serde_json::from_str::<Value>(&replayed).unwrap()["replayed"], 0);
    run(&["webhooks", "enable", id]).succeeded();

    // One event that it has taken, by its id.
    let users = home.file("users.jsonl", "{\"email\": \"ada@example.com\"}\n");
    run(&["users", "import", users.to_str().unwrap()]).succeeded();
    run(&["users", "delete", "ada@example.com", "--reason", "asked for"]).succeeded();
    let mut owner = cluster.owner("mana");
    owner.run("UPDATE auth.webhook_deliveries SET state = 'delivered', attempts = 1");
    let deliveries = || -> Value {
        serde_json::from_str(&run(&["webhooks", "deliveries", id, "--json"]).succeeded()).unwrap()
    };
    let taken = deliveries();
    assert_eq!((taken.as_array().unwrap().len(), &taken[0]["state"]), (1, &"delivered".into()), "{taken}");
    let event = taken[0]["eventId"].as_str().unwrap();
    for (event, count) in [("00000000-0000-7000-8000-000000000000", 0), (event, 1)] {
        let replayed = run(&["webhooks", "replay", id, "--event", event, "--json"]).succeeded();
        assert_eq!(serde_json::from_str::<Value>(&replayed).unwrap()["replayed"], count);
        let state = if count == 0 { "delivered" } else { "waiting" };
        assert_eq!(deliveries()[0]["state"], state);
    }
    let listed: Value = serde_json::from_str(&run(&["webhooks", "list", "--json"]).succeeded()).unwrap();
    assert_eq!(listed[0]["waiting"], 1, "{listed}");

    run(&["keys", "rekey"]).succeeded();
    run(&["webhooks", "remove", id]).succeeded();
    let again = run(&["webhooks", "remove", id]).sentence();
    assert!(again.contains("no such endpoint"), "{again}");
    let nothing = run(&["webhooks", "replay", id]);
    assert!(nothing.code == Some(2) && nothing.stderr.contains("--event"), "{nothing:?}");
    let unknown =
        run(&["webhooks", "add", "--app", "x", "--url", "https://x.example", "--event", "credits.minted"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("credits.spent"), "{unknown:?}");
}
