//! `ledger export` and `ledger import`: books go from one database to another.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Done, Home};
use crate::torture::{ledger_server, owner_of_wallet, spend};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

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

#[test]
fn a_proof_says_by_its_exit_code_whether_the_books_are_true() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana").with_database("other"));
    let server = ledger_server(&home, &cluster).start();
    let token = owner_of_wallet(&server, "ada@example.com");
    for key in ["one", "two"] {
        assert_eq!(spend(server.port, &token, key).unwrap().status, 201);
    }
    server.kill();
    let told = cluster.verify("mana").succeeded();
    assert!(told.contains("1 wallets with 3 lines checked"), "{told}");

    // The same books, by way of a pipe.
    let run = |database: &str, args: &[&str]| -> Done {
        let launch = home.command(args).env("DATABASE_URL", cluster.service_url(database));
        launch
            .env("DATABASE_OWNER_URL", cluster.owner_url(database))
            .env("MANA_SECRET_KEY", ROOT_SECRET)
            .run()
    };
    let path = home.path().join("books.jsonl");
    run("mana", &["ledger", "export", "--output", path.to_str().unwrap()]).succeeded();
    run("other", &["migrate"]).succeeded();
    let pipe = "exec \"$0\" ledger import - < \"$1\"";
    let binary = env!("CARGO_BIN_EXE_mana-core-auth");
    let told = home
        .program(Path::new("/bin/sh"), &["-c", pipe, binary, path.to_str().unwrap()])
        .env("DATABASE_URL", cluster.service_url("other"))
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .run()
        .succeeded();
    assert!(told.contains("1 wallets with 3 lines and 2 answers imported"), "{told}");
    cluster.books_are_true("other");

    cluster.owner("mana").run(
        "ALTER TABLE credits.transactions DISABLE TRIGGER ALL;
         UPDATE credits.transactions SET description = 'Another answer' WHERE sequence = 2",
    );
    let lied = cluster.verify("mana");
    assert_eq!(lied.code, Some(1), "{lied:?}");
    assert!(lied.stdout.lines().any(|line| line.starts_with("LIE  ") && line.contains("line 2")), "{lied:?}");
}
