//! Before an upgrade: what it would do, and whether anything is in its way.

use crate::cluster::{Cluster, ROOT_SECRET, Sql};
use crate::process::{Done, Home, poll};
use std::time::Duration;

fn owner(home: &Home, cluster: &Cluster, args: &[&str]) -> Done {
    home.command(args).env("DATABASE_OWNER_URL", cluster.owner_url("mana")).run()
}

#[test]
fn a_plan_says_what_would_be_run_and_changes_nothing() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    for _ in 0..2 {
        let plan = owner(&home, &cluster, &["migrate", "--plan"]).succeeded();
        assert!(plan.contains("0001 ") && plan.contains("Nothing was changed"), "{plan}");
        let lines: Vec<_> = plan.lines().filter(|line| line.starts_with("     locks")).collect();
        let twice = lines.windows(2).find(|pair| pair[0] == pair[1]);
        assert!(twice.is_none(), "a statement is told once: {twice:?}");
    }
    let plan = owner(&home, &cluster, &["migrate", "--plan", "--json"]).succeeded();
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let steps: Vec<_> =
        plan.as_array().unwrap().iter().flat_map(|one| one["steps"].as_array().unwrap()).collect();
    let is_index =
        |step: &&&serde_json::Value| step["statement"].as_str().unwrap().starts_with("CREATE INDEX");
    let index = steps.iter().find(is_index).expect("an index on a table of an earlier migration");
    assert_eq!((index["locks"].as_str(), index["rows"].as_i64()), (Some("writes"), Some(0)), "{index}");

    owner(&home, &cluster, &["migrate"]).succeeded();
    let plan = owner(&home, &cluster, &["migrate", "--plan"]).succeeded();
    assert!(plan.starts_with("Nothing to do"), "{plan}");
    let refused = home.command(&["migrate", "--plan"]).run().sentence();
    assert!(refused.contains("DATABASE_OWNER_URL"), "{refused}");
}

/// What a plan says of the first statement that begins so.
fn planned_step(plan: &serde_json::Value, beginning: &str) -> serde_json::Value {
    let steps = plan.as_array().unwrap().iter().flat_map(|one| one["steps"].as_array().unwrap());
    let found = steps.into_iter().find(|step| step["statement"].as_str().unwrap().starts_with(beginning));
    found.unwrap_or_else(|| panic!("no {beginning} in {plan}")).clone()
}

#[test]
fn a_plan_reckons_with_the_rows_that_are_there() {
    const ROWS: i64 = 40_000;
    const INDEX: &str = "CREATE INDEX CONCURRENTLY IF NOT EXISTS remembered_answers_created_at_idx";
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    owner(&home, &cluster, &["migrate"]).succeeded();
    let mut sql = cluster.owner("mana");
    // As before these were carried out; a plan carries nothing out.
    sql.run("DELETE FROM mana.migrations WHERE version >= 22");
    sql.run("ALTER TABLE credits.remembered_answers SET (autovacuum_enabled = false)");
    sql.run("SET session_replication_role = replica");
    sql.run(&format!(
        "INSERT INTO credits.remembered_answers (wallet_id, key_digest, request_digest, status, body, created_at)
         SELECT n, md5(n::text)::uuid, decode(repeat(md5(n::text), 2), 'hex'), 201, repeat('x', 1800), now()
         FROM generate_series(1, {ROWS}) n"
    ));
    let plan = || -> serde_json::Value {
        let plan = owner(&home, &cluster, &["migrate", "--plan", "--json"]).succeeded();
        serde_json::from_str(&plan).unwrap()
    };
    let uncounted = planned_step(&plan(), INDEX);
    let bytes = uncounted["bytes"].as_i64().unwrap();
    assert!(uncounted["rows"].is_null() && bytes > 70_000_000, "{uncounted}");
    assert_eq!(
        uncounted["expectedSeconds"].as_i64(),
        bytes.checked_div(25_000_000),
        "not for nothing: {uncounted}"
    );
    let text = owner(&home, &cluster, &["migrate", "--plan"]).succeeded();
    assert!(text.contains("remembered_answers (never counted, ") && text.contains("for some "), "{text}");
    assert!(text.contains("without a transaction: 0024, 0026"), "{text}");

    sql.run("ANALYZE credits.remembered_answers");
    let plan = plan();
    let counted = planned_step(&plan, INDEX);
    assert!((counted["rows"].as_i64().unwrap() - ROWS).abs() < ROWS / 10, "{counted}");
    assert_eq!(
        (&counted["table"], &counted["locks"]),
        (&"credits.remembered_answers".into(), &"nothing".into())
    );
    let read = planned_step(&plan, "INSERT INTO auth.erasures");
    assert_eq!((&read["table"], &read["locks"]), (&"auth.users".into(), &"nothing".into()), "what it reads");
    let led_to = planned_step(&plan, "CREATE TABLE auth.erasures");
    assert_eq!(
        (&led_to["table"], &led_to["locks"]),
        (&"auth.users".into(), &"writes".into()),
        "what it leads to"
    );
    let is_alone = |version: i64| {
        plan.as_array().unwrap().iter().any(|one| one["version"] == version && one["alone"] == true)
    };
    assert_eq!([22, 24, 25, 26].map(is_alone), [false, true, false, true]);
}

#[test]
fn a_server_starts_on_the_schema_of_the_release_after_it_and_on_no_later_one() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let url = cluster.service_url("mana");
    let migrate = home.command(&["migrate"]).env("DATABASE_OWNER_URL", cluster.owner_url("mana"));
    migrate.env("DATABASE_URL", &url).run().succeeded();
    let mut sql = cluster.owner("mana");
    sql.run(
        "INSERT INTO mana.migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the release after this one', true, '', 0)",
    );
    let says = |sql: &mut Sql, works_from: i64| {
        sql.run(&format!(
            "COMMENT ON TABLE mana.migrations IS 'Servers of this schema and newer work here: {works_from}'"
        ));
    };
    let serve = || {
        let launch = home.serve().env("DATABASE_URL", &url);
        // As where each server migrates when it starts.
        launch.env("DATABASE_OWNER_URL", cluster.owner_url("mana")).env("MANA_SECRET_KEY", ROOT_SECRET)
    };
    says(&mut sql, mana_platform::migrate::binary_version());
    let server = serve().start();
    server.register("ada@example.com");
    assert!(server.stderr().contains("the schema of a newer release"), "{}", server.stderr());
    let doctor = home.command(&["doctor"]).env("DATABASE_URL", &url);
    assert!(doctor.env("MANA_SECRET_KEY", ROOT_SECRET).run().succeeded().contains("at 9999"));
    server.stop("TERM");

    let refused = owner(&home, &cluster, &["migrate"]).sentence();
    assert!(refused.contains("is newer than"), "only who knows the schema changes it: {refused}");
    says(&mut sql, mana_platform::migrate::binary_version().saturating_add(1));
    let refused = serve().run().sentence();
    assert!(refused.contains("is newer than") && refused.contains("not made for it"), "{refused}");
}

#[test]
fn the_doctor_says_what_is_in_the_way_of_an_upgrade() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let before = owner(&home, &cluster, &["doctor", "--upgrade"]).succeeded();
    assert!(before.contains("migrate --plan") && !before.contains("FAIL"), "{before}");
    owner(&home, &cluster, &["migrate"]).succeeded();
    let after = owner(&home, &cluster, &["doctor", "--upgrade"]).succeeded();
    assert!(after.contains("the schema is as this version needs it"), "{after}");

    let mut sql = cluster.owner("mana");
    // As of an index whose building was cut off.
    sql.run("CREATE INDEX unfinished_idx ON auth.users (email)");
    sql.run("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'auth.unfinished_idx'::regclass");
    let found = owner(&home, &cluster, &["doctor", "--upgrade"]);
    assert!(found.code == Some(1) && found.stdout.contains("auth.unfinished_idx"), "{found:?}");
    sql.run("DROP INDEX auth.unfinished_idx");

    sql.run("CREATE ROLE stranger LOGIN PASSWORD 'stranger'");
    let url = cluster.owner_url("mana");
    let (_, rest) = url.split_once('@').unwrap();
    let url = format!("postgres://stranger:stranger@{rest}");
    let found = home.command(&["doctor", "--upgrade"]).env("DATABASE_OWNER_URL", url).run();
    assert!(found.code == Some(1) && found.stdout.contains("does not own the schema"), "{found:?}");
    let alone = home.command(&["doctor", "--upgrade"]).run();
    assert!(alone.code == Some(1) && alone.stdout.contains("DATABASE_OWNER_URL is not set"), "{alone:?}");
}

#[test]
fn health_says_whether_the_server_beside_it_is_ready() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let server = home
        .serve()
        .env("DATABASE_URL", cluster.service_url("mana"))
        .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .env("DRAIN_SECONDS", "600")
        .start();
    let port = server.port.to_string();
    let health = || home.command(&["health", "--port", &port]).run();
    assert_eq!(health().succeeded(), "ready\n");
    let pause = cluster.pause();
    // A busy machine may take longer for its answer than is waited for.
    poll(Duration::from_secs(20), "a server that says that it is not ready", || {
        let paused = health().sentence();
        (paused.contains("not ready") && paused.contains("503")).then_some(())
    });
    assert_eq!(server.get("/health/serving").status, 200, "what is away is answered for here");
    drop(pause);
    poll(Duration::from_secs(20), "readiness", || (health().code == Some(0)).then_some(()));

    server.signal("TERM");
    poll(Duration::from_secs(20), "a server that drains", || {
        (server.get("/health/ready").status == 503).then_some(())
    });
    assert!(health().sentence().contains("not ready"));
    assert_eq!(server.get("/health/serving").status, 503);
    let answer = server.get("/health/live");
    assert_eq!((answer.status, answer.header("connection")), (200, "close"), "whoever comes is still served");
    // A second signal does not wait for the rest of ten minutes.
    server.signal("TERM");
    server.ends_well();
    let gone = health().sentence();
    assert!(gone.contains("no server answers"), "{gone}");
}
