//! `ledger export` and `ledger import`: books go from one database to another.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Done, Home};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn an_export_is_a_private_file_that_another_database_takes_once() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana").with_database("other"));
    let run = |database: &str, args: &[&str]| -> Done {
        let launch = home.command(args).env("DATABASE_URL", cluster.service_url(database));
        let launch = launch.env("DATABASE_OWNER_URL", cluster.owner_url(database));
        launch.env("MANA_SECRET_KEY", ROOT_SECRET).run()
    };
    run("mana", &["migrate"]).succeeded();
    run("other", &["migrate"]).succeeded();
    cluster.owner("mana").run(
        "INSERT INTO credits.balances (user_id, sequence, free, paid, total_earned, total_spent, head, daily_granted_on, created_at, updated_at)
         VALUES ('ada', 0, 0, 0, 0, 0, decode(repeat('00', 32), 'hex'), '2026-01-31', now(), now())",
    );

    let path = home.path().join("books.jsonl");
    let path = path.to_str().unwrap();
    let told = run("mana", &["ledger", "export", "--output", path]).succeeded();
    assert!(told.contains("1 wallets with 0 lines and 0 answers exported"), "{told}");
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let taken = run("mana", &["ledger", "export", "--output", path]).sentence();
    assert!(taken.contains(path), "no file is overwritten: {taken}");
    let file = fs::read_to_string(path).unwrap();
    assert_eq!(run("mana", &["ledger", "export"]).succeeded(), file);

    let told = run("other", &["ledger", "import", path, "--json"]).succeeded();
    assert!(told.contains("\"wallets\": 1"), "{told}");
    assert_eq!(run("other", &["ledger", "export"]).succeeded(), file);
    let refused = run("other", &["ledger", "import", path]).sentence();
    assert!(refused.contains("an import goes into an empty one"), "{refused}");
}
