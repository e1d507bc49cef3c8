//! What is deployed holds together: who is let in, what is watched, what a restart costs, what neighbours can do.

use crate::cluster::Sql;
use crate::deployment::{Deployment, deploy};
use crate::http::{self, PASSWORD};
use crate::process::{STOP_LIMIT, poll};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// Nobody runs out of mana, and nobody into a limit.
const AMPLE: [(&str, &str); 5] = [
    ("CREDITS_SIGNUP_BONUS", "1000000000"),
    ("RATE_LIMIT_MAX", "0"),
    ("HASHING_WAIT_SECONDS", "30"),
    ("DATABASE_WAIT_SECONDS", "20"),
    ("DRAIN_SECONDS", "8"),
];

/// Somebody who is signed in.
fn somebody(port: u16, email: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD}).to_string();
    let reply = http::exchange(port, "POST", "/api/v1/auth/register", "", &body).unwrap();
    assert_eq!(reply.status, 201, "{reply:?}");
    let reply = http::exchange(port, "POST", "/api/v1/auth/login", "", &body).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.text("/accessToken")
}

fn spend(key: &str) -> String {
    json!({"amount": 1, "appId": "chat", "description": "An answer", "idempotencyKey": key}).to_string()
}

fn get(port: u16, token: &str, path: &str) -> Value {
    let reply = http::exchange(port, "GET", path, token, "").unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

#[test]
fn what_is_deployed_serves_lets_in_whom_it_should_and_is_watched() {
    let mut deployment = Deployment::start(10, &AMPLE);
    deployment.start_prometheus();
    let token = somebody(deployment.port(), "ada@example.com");
    for key in ["one", "two", "three"] {
        let reply =
            http::exchange(deployment.port(), "POST", "/api/v1/credits/use", &token, &spend(key)).unwrap();
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    deployment.books_are_true();

    let health = deployment.home.command(&["health", "--port", &deployment.server_port(0).to_string()]).run();
    assert_eq!(health.succeeded().trim(), "ready");
    let doctor = deployment.command(&["doctor"]).run().succeeded();
    assert!(doctor.contains("one user can't read or write another's rows"), "{doctor}");

    assert!(deployment.lets_in("mana_service", "service0123456789", "require"));
    for (user, password, sslmode) in [
        ("mana_service", "service0123456789", "disable"),
        ("mana_service", "wrong", "require"),
        ("postgres", "superuser0123456789", "require"),
        ("mana_user", "", "require"),
    ] {
        assert!(!deployment.lets_in(user, password, sslmode), "{user} {sslmode}");
    }
    let mut superuser = deployment.superuser("mana");
    let weak: Vec<(String,)> = superuser.rows(
        "SELECT rolname::text FROM pg_authid WHERE rolcanlogin AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'",
    );
    assert_eq!(weak, []);
    let mighty: Vec<(String,)> = superuser.rows(
        "SELECT rolname::text FROM pg_roles WHERE (rolsuper OR rolbypassrls) AND rolname NOT IN ('postgres', 'mana_backup')",
    );
    assert_eq!(mighty, []);
    superuser.run(
        "SET ROLE pgbouncer;
         DO $$ BEGIN
             ASSERT (SELECT count(*) FROM pooler.find_login('mana_service')) = 1;
             ASSERT (SELECT count(*) FROM pooler.find_login('postgres')) = 0;
         END $$;
         RESET ROLE",
    );
    // Only what PgBouncer and the other servers' side know is TLS.
    superuser.run(
        "DO $$ BEGIN ASSERT (SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                             WHERE usename = 'mana_service'); END $$",
    );

    poll(SOON, "both servers in Prometheus", || {
        (deployment.ask_prometheus("up{job=\"mana-core-auth\"}") == ["1", "1"]).then_some(())
    });
    poll(SOON, "the spends in Prometheus", || {
        let done =
            deployment.ask_prometheus("sum(ledger_commands_total{command=\"spend\",outcome=\"done\"})");
        (done == ["3"]).then_some(())
    });
    poll(SOON, "alerts that are evaluated", || {
        (!deployment.ask_prometheus("prometheus_rule_group_rules").is_empty()).then_some(())
    });
    for resource in
        ["process_open_fds", "redis_up", "signing_key_age_seconds", "http_connections_max", "build_info"]
    {
        let expression = format!("{resource}{{job=\"mana-core-auth\"}}");
        // A scrape that takes longer than a second leaves none for a while.
        poll(SOON, resource, || (deployment.ask_prometheus(&expression).len() == 2).then_some(()));
    }
}

#[test]
fn the_owner_sees_what_stands_in_the_way_of_an_upgrade() {
    let deployment = Deployment::start(4, &AMPLE);
    let doctor = || {
        let launch = deployment.command(&["doctor", "--upgrade"]);
        launch.env("DATABASE_OWNER_URL", deployment.owner_url()).run()
    };
    let seen = doctor().succeeded();
    assert!(seen.contains("none holds a table for more than a minute"), "{seen}");
    deployment.superuser("mana").run("REVOKE pg_read_all_stats FROM mana_owner");
    let blind = doctor();
    assert!(blind.code == Some(1) && blind.stdout.contains("can't be seen"), "{blind:?}");
    assert_eq!(deployment.give_passwords("service0123456789"), "");
    assert!(doctor().succeeded().contains("none holds"), "given to those who run already");
}

#[test]
fn a_new_password_of_the_service_comes_into_force_without_pgbouncer() {
    let deployment = Deployment::start(4, &AMPLE);
    let set = deployment.give_passwords("service9876543210");
    assert_eq!(set.trim(), "password set: mana_service");
    assert!(!deployment.lets_in("mana_service", "service0123456789", "require"));
    assert!(deployment.lets_in("mana_service", "service9876543210", "require"));
    let url = deployment.service_url();
    let old = deployment.command(&["doctor"]).env("DATABASE_URL", &url).run();
    assert_eq!(old.code, Some(1), "{old:?}");
    let new = url.replace("service0123456789", "service9876543210");
    deployment.command(&["doctor"]).env("DATABASE_URL", new).run().succeeded();
}

/// The value of a metric in the text that Prometheus reads.
fn measured(text: &str, series: &str) -> Option<i64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn what_no_server_counts_is_measured_beside_them() {
    let deployment = Deployment::start(4, &AMPLE);
    let measure = || {
        let done = deployment.script("backup/measure", &[], &deployment.measure_variables());
        assert!(done.status.success(), "{done:?}");
        std::fs::read_to_string(deployment.home.path().join("measures/mana.prom")).unwrap()
    };
    let text = measure();
    let mut check =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(check.wait().unwrap().success(), "{text}");
    assert_eq!(measured(&text, "backup_dump_timestamp_seconds"), Some(0), "{text}");
    assert_eq!(measured(&text, "backup_base_timestamp_seconds"), Some(0));
    let free = measured(&text, "disk_free_bytes{disk=\"wal\"}").unwrap();
    assert!(free > 0 && free < measured(&text, "disk_size_bytes{disk=\"wal\"}").unwrap());
    assert_eq!(measured(&text, "pgbouncer_up"), Some(1));
    assert_eq!(measured(&text, "pgbouncer_clients_max"), Some(2000));
    assert!(measured(&text, "pgbouncer_clients").unwrap() > 0);
    assert_eq!(measured(&text, "pgbouncer_wait_seconds"), Some(0));
    assert!(measured(&text, "measured_timestamp_seconds").unwrap() > 1_700_000_000);

    let dump = deployment.script("backup/dump", &[], &deployment.backup_variables());
    assert!(dump.status.success(), "{dump:?}");
    deployment.kill_bouncer();
    // An archive that takes nothing, as a full disk.
    let mut superuser = deployment.superuser("mana");
    superuser.run("ALTER SYSTEM SET archive_command = 'false'");
    superuser.run("SELECT pg_reload_conf()");
    let text = poll(SOON, "changes that wait", || {
        superuser.run("CREATE TABLE moved (); DROP TABLE moved; SELECT pg_switch_wal()");
        let text = measure();
        (measured(&text, "postgres_archive_waiting") > Some(0)).then_some(text)
    });
    assert!(measured(&text, "backup_dump_timestamp_seconds") > Some(1_700_000_000));
    assert_eq!(measured(&text, "pgbouncer_up"), Some(0));
    deployment.stop_postgres();
    let text = measure();
    assert_eq!(measured(&text, "postgres_archive_waiting"), None, "what can't be asked is left out");
    assert!(measured(&text, "disk_free_bytes{disk=\"postgres\"}").is_some());
}

#[test]
fn health_checks_leave_no_line_in_a_log() {
    let deployment = Deployment::start(4, &AMPLE);
    let compose = std::fs::read_to_string(deploy("docker-compose.yml")).unwrap();
    let checks: Vec<Vec<&str>> = compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("test: [CMD, ")?.strip_suffix(']'))
        .filter(|check| check.contains("pg_isready"))
        .map(|check| check.split(", ").filter(|word| !word.starts_with("--port=")).collect())
        .collect();
    assert_eq!(checks.len(), 2, "of PgBouncer, and of PostgreSQL");
    // The container of PostgreSQL has the superuser's, for who works inside.
    let superuser = deployment.superuser_variables();
    let password = superuser.iter().find(|(name, _)| *name == "PGPASSWORD").unwrap().1.as_str();
    let lines = || {
        ["postgres.log", "pgbouncer.log"].map(|name| {
            let text = std::fs::read_to_string(deployment.home.path().join(name)).unwrap();
            text.lines()
                .filter(|line| line.contains("FATAL") || line.contains("WARNING") || line.contains("ERROR"))
                .count()
        })
    };
    let before = lines();
    let (bouncer, postgres) = (deployment.bouncer_port(), deployment.postgres_port());
    for (check, port, password) in [(&checks[0], bouncer, None), (&checks[1], postgres, Some(password))] {
        for _ in 0..3 {
            let mut ready = Command::new(check[0]);
            ready.args(&check[1..]).arg(format!("--port={port}"));
            ready.envs(password.map(|password| ("PGPASSWORD", password)));
            assert!(ready.status().unwrap().success(), "{check:?}");
        }
    }
    assert_eq!(lines(), before);
    for (user, password) in [("root", None), ("mana_service", Some(password))] {
        let before = lines();
        let mut refused = Command::new("pg_isready");
        refused.args(["--quiet", "--host=127.0.0.1", "--dbname=mana"]).arg(format!("--username={user}"));
        refused.arg(format!("--port={postgres}")).envs(password.map(|password| ("PGPASSWORD", password)));
        refused.status().unwrap();
        assert!(lines()[0] > before[0], "others do: {user}");
    }
}

#[test]
fn two_servers_restarted_in_turn_under_load_lose_not_one_request() {
    const CLIENTS: usize = 6;
    let deployment = Deployment::start(10, &AMPLE);
    let port = deployment.port();
    let tokens: Vec<_> =
        (0..CLIENTS).map(|client| somebody(port, &format!("user{client}@example.com"))).collect();
    let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let spent: Vec<u64> = thread::scope(|scope| {
        let clients: Vec<_> = tokens
            .iter()
            .enumerate()
            .map(|(client, token)| {
                let (is_over, answered) = (&is_over, &answered);
                scope.spawn(move || {
                    let mut spends = 0_u64;
                    while !is_over.load(Ordering::Relaxed) {
                        let body = spend(&format!("{client}-{spends}"));
                        let reply = http::exchange(port, "POST", "/api/v1/credits/use", token, &body);
                        assert!(reply.as_ref().is_ok_and(|reply| reply.status == 201), "{reply:?}");
                        spends += 1;
                        let me = http::exchange(port, "GET", "/api/v1/auth/me", token, "");
                        assert!(me.as_ref().is_ok_and(|reply| reply.status == 200), "{me:?}");
                        answered.fetch_add(2, Ordering::Relaxed);
                    }
                    spends
                })
            })
            .collect();
        let more = |number: u64| {
            let before = answered.load(Ordering::Relaxed);
            poll(SOON, "more answers", || {
                (clients.iter().any(thread::ScopedJoinHandle::is_finished)
                    || answered.load(Ordering::Relaxed) >= before.saturating_add(number))
                .then_some(())
            });
        };
        more(50);
        for number in [0, 1] {
            let server = deployment.take_server(number);
            server.signal("TERM");
            // Not ready, but at work: whoever does not know yet is served.
            poll(STOP_LIMIT, "a server that says that it will stop", || {
                (server.get("/health/serving").status == 503).then_some(())
            });
            let late = server.get_as(&tokens[0], "/api/v1/auth/me");
            assert_eq!((late.status, late.header("connection")), (200, "close"));
            assert_eq!(server.await_end(SOON), Some(0), "{}", server.stderr());
            more(50);
            deployment.start_server(number);
            more(50);
        }
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for (token, spends) in tokens.iter().zip(&spent) {
        let balance = get(port, token, "/api/v1/credits/balance");
        assert_eq!(balance["totalSpent"], *spends, "each once: {balance}");
    }
    for number in [0, 1] {
        let metrics = deployment.with_server(number, |server| server.get("/metrics").body);
        assert!(metrics.contains("ledger_commands_total"), "the balancer came back to server {number}");
        assert!(!metrics.contains("status=\"50"), "{metrics}");
    }
    deployment.books_are_true();
}

/// Leaves on a connection all that a session can leave, again and again, and says how often. It may find there what it left
/// itself, but nobody's role and no other user.
fn neighbour(deployment: &Deployment, victim: &str, is_over: &AtomicBool) -> u64 {
    let options: PgConnectOptions = deployment.service_url().parse().unwrap();
    let mut sql = Sql::connect(&options.extra_float_digits(None));
    let mut times = 0;
    while !is_over.load(Ordering::Relaxed) {
        sql.run(&format!(
            "DO $$ BEGIN
                 ASSERT current_user = 'mana_service', current_user;
                 ASSERT coalesce(current_setting('mana.user_id', true), '') IN ('', '{victim}');
             END $$;
             DEALLOCATE ALL;
             PREPARE sqlx_s_1 AS SELECT 'stolen'; PREPARE sqlx_s_2 AS SELECT 'stolen'; PREPARE sqlx_s_3 AS SELECT 'stolen';
             SELECT set_config('mana.user_id', '{victim}', false)"
        ));
        times = u64::saturating_add(times, 1);
    }
    times
}

#[test]
fn hostile_neighbours_on_the_same_connections_see_nothing_and_change_nothing() {
    const USERS: usize = 4;
    const STEPS: usize = 25;
    let deployment = Deployment::start(2, &AMPLE);
    let port = deployment.port();
    let users: Vec<_> = (0..USERS)
        .map(|number| {
            let email = format!("user{number}@example.com");
            let token = somebody(port, &email);
            let id = get(port, &token, "/api/v1/auth/me")["id"].as_str().unwrap().to_owned();
            (email, token, id)
        })
        .collect();
    let victim = users[0].2.clone();
    let is_over = AtomicBool::new(false);
    let times: u64 = thread::scope(|scope| {
        let neighbours: Vec<_> =
            (0..2).map(|_| scope.spawn(|| neighbour(&deployment, &victim, &is_over))).collect();
        let living: Vec<_> = users
            .iter()
            .map(|(email, token, id)| {
                scope.spawn(move || {
                    for step in 0..STEPS {
                        let me = get(port, token, "/api/v1/auth/me");
                        assert_eq!((me["id"].as_str(), me["email"].as_str()), (Some(&**id), Some(&**email)));
                        let body = spend(&format!("{email}-{step}"));
                        let reply =
                            http::exchange(port, "POST", "/api/v1/credits/use", token, &body).unwrap();
                        assert_eq!(reply.status, 201, "{reply:?}");
                        let sessions = get(port, token, "/api/v1/auth/sessions");
                        let sessions = sessions.as_array().or_else(|| sessions["sessions"].as_array());
                        assert_eq!(sessions.map(Vec::len), Some(1), "the own session and no other");
                    }
                    let lines = get(port, token, "/api/v1/credits/transactions?limit=100");
                    let own = lines.as_array().unwrap().iter().filter(|line| line["type"] == "usage").count();
                    assert_eq!(own, STEPS, "the own lines and no others: {lines}");
                })
            })
            .collect();
        let lived: Vec<_> = living.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        let times = neighbours.into_iter().map(|neighbour| neighbour.join().unwrap()).sum();
        assert!(lived.iter().all(Result::is_ok));
        times
    });
    assert!(times > 10, "the neighbours met connections: {times}");
    let mut superuser = deployment.superuser("mana");
    let locks: Vec<(i64,)> = superuser.rows("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'");
    assert_eq!(locks, [(0,)]);
    deployment.books_are_true();
}
