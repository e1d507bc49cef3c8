//! A backup that was never restored is none: the scripts of `deploy/backup` on a database that serves.

use crate::deployment::{Deployment, deploy};
use crate::http::{self, PASSWORD};
use crate::process::{Home, Server, free_port, poll};
use crate::program::account;
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
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

#[test]
fn what_is_too_old_makes_room_also_while_no_backup_succeeds() {
    let home = Home::new();
    let place = |name: &str| home.path().join(name);
    let copied = Command::new("cp").arg("-r").arg(deploy("backup")).arg(place("scripts")).status().unwrap();
    assert!(copied.success());
    fs::create_dir(place("backups")).unwrap();
    fs::create_dir(place("programs")).unwrap();
    let program = |path: PathBuf, text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    };
    program(place("scripts/dump"), "#!/bin/bash\necho 'No space left on device' >&2\nexit 1\n");
    // Where it would rest for ten minutes, it ends.
    program(place("programs/sleep"), "#!/bin/sh\nkill $PPID\n");
    for (name, age) in
        [("mana-20260101T030000Z.dump", "40 days ago"), ("mana-20260102T030000Z.dump", "39 days ago")]
    {
        let touched =
            Command::new("touch").args(["-d", age]).arg(place("backups").join(name)).status().unwrap();
        assert!(touched.success());
    }
    let mut daily = Command::new("bash");
    daily.arg("-c").arg(format!(
        "PATH={}:$PATH exec bash {}/daily",
        place("programs").display(),
        place("scripts").display()
    ));
    let ended = daily.env("BACKUPS", place("backups")).env("WAL", place("backups")).output().unwrap();
    assert!(String::from_utf8_lossy(&ended.stderr).contains("No space left"), "{ended:?}");
    let left: Vec<_> =
        fs::read_dir(place("backups")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mana-20260102T030000Z.dump"], "the newest is kept");
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
    // Past the balancer, which turns away from servers on a machine that is busy with copies.
    let port = deployment.server_port(0);
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

    let restore = |dump: &Path| {
        let variables = deployment.superuser_variables();
        deployment.script("backup/restore", &[dump, Path::new("mana_restored")], &variables)
    };
    let restored = restore(&dump);
    assert!(restored.status.success(), "{restored:?}");
    let url = deployment.direct_url(deployment.postgres_port(), "mana_restored");
    let server = serve(&deployment, &url);
    assert_eq!(spent(server.port), 1, "as it was when it was dumped");
    server.stop("TERM");
    // A second time, into what is there by now: nothing is touched.
    assert!(!restore(&dump).status.success());

    let next_base = recovered(&deployment, &base, &moment[0].0);

    // The newest of each stay, whatever their age, and the changes that the oldest of them needs.
    let first_change = deployment.wal().join("000000010000000000000001.gz");
    assert!(first_change.exists());
    for old in [&dump, &base, &next_base] {
        assert!(Command::new("touch").args(["-d", "3 days ago"]).arg(old).status().unwrap().success());
    }
    let mut variables = deployment.backup_variables();
    variables.push(("KEEP_DAYS", "1".to_owned()));
    let pruned = deployment.script("backup/prune", &[], &variables);
    assert!(pruned.status.success() && dump.exists() && next_base.exists(), "{pruned:?}");
    assert!(!base.exists() && !first_change.exists());
    assert!(newest_change(&deployment.wal()).exists());
    assert!(deployment.wal().join("00000002.history.gz").exists(), "which history follows which stays known");
    assert_eq!(spent(port), 3, "what serves was not touched");
    deployment.books_are_true();
    // Nobody may be connected.
    drop(superuser);
    swapped(&deployment);
}

/// Once to the moment, and then from a base backup of what was recovered to the last change. Returns that one.
fn recovered(deployment: &Deployment, base: &Path, moment: &str) -> PathBuf {
    // What an interrupted copy left behind is gone with the next one.
    let stale = deployment.folder("backups").join("base-20200101T000000Z.part");
    fs::create_dir(&stale).unwrap();
    chown(&stale, Some(account()), Some(account())).unwrap();

    let volume = deployment.folder("volume");
    let data = volume.join("pgdata");
    let recover = |base: &Path, moment: &str| {
        let mut variables = deployment.backup_variables();
        variables.push(("PGDATA", data.display().to_string()));
        let args: Vec<_> =
            [base, Path::new(moment)].into_iter().filter(|arg| *arg != Path::new("")).collect();
        let recovered = deployment.script("backup/recover", &args, &variables);
        assert!(recovered.status.success(), "{recovered:?}");
    };
    let port_there = free_port();
    let there = deployment.direct_url(port_there, "mana");
    let start = |ends: usize| {
        let postgres = deployment.postgres_on(&data, port_there);
        poll(SOON, "the end of the recovery", || {
            (postgres.log().matches("archive recovery complete").count() == ends).then_some(())
        });
        postgres
    };
    recover(base, moment);
    let postgres = start(1);
    let server = serve(deployment, &there);
    assert_eq!(spent(server.port), 2, "as it was at that moment");
    let body = json!({"email": "ada@example.com", "password": PASSWORD}).to_string();
    let login = http::exchange(server.port, "POST", "/api/v1/auth/login", "", &body).unwrap();
    let spend_there = |key: &str| {
        let body = json!({"amount": 1, "appId": "chat", "description": "An answer", "idempotencyKey": key});
        let token = login.text("/accessToken");
        let reply = http::exchange(server.port, "POST", "/api/v1/credits/use", &token, &body.to_string());
        assert_eq!(reply.unwrap().status, 201);
    };
    spend_there("since then");
    let mut variables = deployment.backup_variables();
    variables.push(("PGPORT", port_there.to_string()));
    let next_base = printed(&deployment.script("backup/base", &[], &variables));
    assert!(!stale.exists());
    spend_there("newest");
    server.stop("TERM");
    // A stop archives what is left.
    drop(postgres);

    // What this recovery goes by has nothing of the first one's moment; what was there is kept.
    recover(&next_base, "");
    let before = fs::read_dir(&volume).unwrap();
    let kept = before
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("pgdata.before-"));
    assert_eq!(kept.count(), 1);
    let postgres = start(2);
    let server = serve(deployment, &there);
    assert_eq!(spent(server.port), 4, "up to the last change");
    server.stop("TERM");
    drop(postgres);

    // A change that can't be read ends the recovery: half of what was acknowledged is not taken for all of it.
    let change = newest_change(&deployment.wal());
    let whole = fs::read(&change).unwrap();
    fs::write(&change, &whole[..whole.len() / 2]).unwrap();
    recover(&next_base, "");
    assert!(!deployment.recovers(&data, port_there), "with half a change");
    fs::write(&change, &whole).unwrap();
    recover(&next_base, "");
    assert!(deployment.recovers(&data, port_there));
    next_base
}

/// What was restored takes the place of what serves, once nobody uses either.
fn swapped(deployment: &Deployment) {
    let swap = || deployment.script("backup/swap", &[], &deployment.superuser_variables());
    for number in [0, 1] {
        deployment.take_server(number).stop("TERM");
    }
    let refused = swap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("mana_service"),
        "PgBouncer keeps connections: {said}"
    );
    deployment.stop_bouncer();
    let done = swap();
    assert!(done.status.success(), "{done:?}");
    deployment.start_bouncer();
    deployment.start_server(0);
    let port = deployment.server_port(0);
    assert_eq!(spent(port), 1, "what was restored serves, through PgBouncer");
    deployment.books_are_true();
    let mut superuser = deployment.superuser("mana");
    let databases: Vec<(i64,)> =
        superuser.rows("SELECT count(*) FROM pg_database WHERE datname LIKE 'mana\\_before\\_%'");
    assert_eq!(databases, [(1,)], "what served is kept");
}

/// The last change in the archive that holds something: those are named in their order.
fn newest_change(wal: &Path) -> PathBuf {
    let entries = fs::read_dir(wal).unwrap().map(|entry| entry.unwrap().path());
    let mut changes: Vec<_> = entries
        .filter(|path| path.file_name().unwrap().len() == "000000010000000000000001.gz".len())
        .collect();
    changes.sort();
    changes.pop().unwrap()
}
