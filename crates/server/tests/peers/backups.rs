//! A backup that was never restored is none: the scripts of `deploy/backup` on a database that serves.

use crate::deployment::Deployment;
use crate::http::{self, PASSWORD};
use crate::process::{Server, free_port, poll};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn printed(output: &Output) -> PathBuf {
    assert!(output.status.success(), "{output:?}");
    PathBuf::from(String::from_utf8(output.stdout.clone()).unwrap().trim())
}

/// Signs in anew: what signs and what the session stands on have to be there too.
fn spent(port: u16) -> i64 {
    let body = json!({"email": "ada@example.com", "password": PASSWORD}).to_string();
    let login = http::exchange(port, "POST", "/api/v1/auth/login", "", &body).unwrap();
    assert_eq!(login.status, 200, "{login:?}");
    let balance = http::exchange(port, "GET", "/api/v1/credits/balance", &login.text("/accessToken"), "");
    balance.unwrap().json()["totalSpent"].as_i64().unwrap()
}

/// A server on a database that came back, whose books are true.
fn serve(deployment: &Deployment, url: &str) -> Server {
    let verify = deployment.command(&["ledger", "verify"]).env("DATABASE_URL", url).run();
    assert_eq!(verify.code, Some(0), "{verify:?}");
    let doctor = deployment.command(&["doctor"]).env("DATABASE_URL", url).run();
    assert_eq!(doctor.code, Some(0), "{doctor:?}");
    let port = free_port();
    let launch = deployment.command(&["serve", "--no-migrate", "--port", &port.to_string()]).at(port);
    launch.env("DATABASE_URL", url).start()
}

#[test]
fn a_dump_and_a_moment_come_back_with_true_books() {
    let settings = [("RATE_LIMIT_MAX", "0"), ("HASHING_WAIT_SECONDS", "30")];
    let deployment = Deployment::start(10, &settings);
    let port = deployment.port();
    deployment.with_server(0, |server| server.register("ada@example.com"));
    let body = json!({"email": "ada@example.com", "password": PASSWORD}).to_string();
    let login = http::exchange(port, "POST", "/api/v1/auth/login", "", &body).unwrap();
    let token = login.text("/accessToken");
    let spend = |key: &str| {
        let body = json!({"amount": 1, "appId": "chat", "description": "An answer", "idempotencyKey": key});
        let reply = http::exchange(port, "POST", "/api/v1/credits/use", &token, &body.to_string()).unwrap();
        assert_eq!(reply.status, 201, "{reply:?}");
    };
    let run = |name: &str, args: &[&Path]| {
        deployment.script(&format!("backup/{name}"), args, &deployment.backup_variables())
    };

    spend("before");
    let dump = printed(&run("dump", &[]));
    let base = printed(&run("base", &[]));
    spend("after");
    let mut superuser = deployment.superuser("mana");
    let moment: Vec<(String,)> = superuser.rows("SELECT clock_timestamp()::text");
    spend("too late");
    superuser.run("SELECT pg_switch_wal()");
    poll(SOON, "an archive that has it all", || {
        let left: Vec<(i64,)> =
            superuser.rows("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'");
        (left == [(0,)]).then_some(())
    });
    assert_eq!(spent(port), 3);

    let restored = deployment.script(
        "backup/restore",
        &[&dump, Path::new("mana_restored")],
        &deployment.restore_variables(),
    );
    assert!(restored.status.success(), "{restored:?}");
    let url = deployment.direct_url(deployment.postgres_port(), "mana_restored");
    let server = serve(&deployment, &url);
    assert_eq!(spent(server.port), 1, "as it was when it was dumped");
    server.stop("TERM");
    // A second time, into what is there by now: nothing is touched.
    let again = deployment.script(
        "backup/restore",
        &[&dump, Path::new("mana_restored")],
        &deployment.restore_variables(),
    );
    assert!(!again.status.success());

    let folder = deployment.home.path().join("recovered");
    let folder = deployment.folder(folder.file_name().unwrap().to_str().unwrap());
    let recovered = run("recover", &[&base, &folder, Path::new(&moment[0].0)]);
    assert!(recovered.status.success(), "{recovered:?}");
    let port_there = free_port();
    let postgres = deployment.postgres_on(&folder, port_there);
    let url = deployment.direct_url(port_there, "mana");
    poll(SOON, "the end of the recovery", || {
        postgres.log().contains("archive recovery complete").then_some(())
    });
    let server = serve(&deployment, &url);
    assert_eq!(spent(server.port), 2, "as it was at that moment");
    server.stop("TERM");
    drop(postgres);

    // The newest of each stay, whatever their age.
    let mut variables = deployment.backup_variables();
    variables.push(("KEEP_DAYS", "1".to_owned()));
    let pruned = deployment.script("backup/prune", &[], &variables);
    assert!(pruned.status.success() && dump.exists() && base.exists(), "{pruned:?}");
    assert_eq!(spent(port), 3, "what serves was not touched");
    deployment.books_are_true();
}
