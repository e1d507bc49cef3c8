//! `users import` and `users export`: accounts by the command line.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Done, Home};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn accounts_are_imported_as_far_as_they_fit_and_exported_to_a_private_file() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let run = |args: &[&str]| -> Done {
        let launch = home.command(args).env("DATABASE_URL", cluster.service_url("mana"));
        let launch = launch.env("DATABASE_OWNER_URL", cluster.owner_url("mana"));
        launch.env("MANA_SECRET_KEY", ROOT_SECRET).run()
    };
    run(&["migrate"]).succeeded();
    let good = "{\"id\":\"u1\",\"email\":\"a@example.com\",\"passwordHash\":\"$2b$04$FZwntQykG8CKGnPOP0ttTOtiXwb2NbZaXer9a3qd0uM28x8dH9eme\"}\n";
    let mixed = home.file("mixed.jsonl", &format!("{good}{{\"email\":\"nonsense\"}}\n"));
    let mixed = mixed.to_str().unwrap();

    let dry = run(&["users", "import", mixed, "--dry-run"]);
    assert!(dry.stdout.contains("line 2: email must be"), "{dry:?}");
    assert!(dry.stdout.contains("Of 2 rows: 1 accounts imported, 0 there already, 1 refused."), "{dry:?}");
    assert!(dry.stdout.contains("nothing was kept") && dry.sentence().contains("1 rows were refused"));
    assert_eq!(run(&["users", "export"]).succeeded(), "");

    let real = run(&["users", "import", mixed, "--json"]);
    assert_eq!(real.code, Some(1));
    let lines: Vec<Value> = real.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["line"], 2);
    assert!(lines[0]["refused"].as_str().unwrap().contains("email must be"), "{lines:?}");
    assert_eq!(
        lines[1],
        serde_json::json!({"rows": 2, "imported": 1, "present": 0, "refused": 1, "dryRun": false})
    );

    let csv = home.file("more.csv", "id,email\nu2,b@example.com\nu1,a@example.com\n");
    let told = run(&["users", "import", csv.to_str().unwrap()]).succeeded();
    assert!(told.contains("Of 2 rows: 1 accounts imported, 1 there already, 0 refused."), "{told}");

    let path = home.path().join("users.jsonl");
    let path = path.to_str().unwrap();
    let told = run(&["users", "export", "--output", path]).succeeded();
    assert!(told.contains("2 accounts exported"), "{told}");
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let file = fs::read_to_string(path).unwrap();
    assert!(file.lines().count() == 2 && !file.contains("$2b$"), "{file}");
    let taken = run(&["users", "export", "--output", path]).sentence();
    assert!(taken.contains(path), "no file is overwritten: {taken}");
    assert!(run(&["users", "export", "--with-hashes"]).succeeded().contains("$2b$04$"));
    assert!(run(&["users", "import", "/nowhere/file"]).sentence().contains("/nowhere/file"));
}
