//! Two servers behind a PgBouncer that gives each transaction whatever connection is free.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::pgbouncer::PgBouncer;
use crate::process::{Home, Launch, Server, poll};
use serde_json::json;
use std::thread;
use std::time::Duration;

/// More at once than there are connections.
const USERS: usize = 5;
const REFRESHES: usize = 20;
const SPENDS: usize = 5;

fn through(launch: Launch, url: &str, cluster: &Cluster) -> Launch {
    launch
        .env("DATABASE_URL", url)
        .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .env("RATE_LIMIT_MAX", "0")
        // Hashing yields to all others: on a busy machine it takes its time.
        .env("HASHING_WAIT_SECONDS", "20")
        .env("DATABASE_WAIT_SECONDS", "20")
}

/// All that a user does, now on one server, now on the other. Every answer has to be the right one.
fn live(number: usize, servers: &[Server; 2]) {
    let email = format!("user{number}@example.com");
    let server = |step: usize| &servers[step % 2];
    server(number).register(&email);
    let login = server(number.saturating_add(1)).login(&email);
    let (mut access, mut refresh) = (login.text("/accessToken"), login.text("/refreshToken"));
    for step in 0..REFRESHES {
        let me = server(step).get_as(&access, "/api/v1/auth/me");
        assert_eq!((me.status, me.text("/email")), (200, email.clone()));
        let reply = server(step).post("/api/v1/auth/refresh", &json!({"refreshToken": refresh}));
        assert_eq!(reply.status, 200, "{reply:?}");
        (access, refresh) = (reply.text("/accessToken"), reply.text("/refreshToken"));
    }
    for step in 0..SPENDS {
        let spend = json!({"amount": 10, "appId": "chat", "description": email});
        let reply = server(step).post_as(&access, "/api/v1/credits/use", &spend);
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    let lines = server(number).get_as(&access, "/api/v1/credits/transactions").json();
    let own = lines.as_array().unwrap().iter().filter(|line| line["description"] == email.as_str()).count();
    let bonus = lines.as_array().unwrap().len().saturating_sub(own);
    assert_eq!((own, bonus), (SPENDS, 1), "the own lines and no others: {lines}");
    let balance = server(number).get_as(&access, "/api/v1/credits/balance").json();
    assert_eq!(balance["freeCreditsRemaining"], 100, "{balance}");
}

#[test]
fn servers_behind_a_pooler_in_transaction_mode_answer_as_without_one() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let bouncer = PgBouncer::start(&home, &cluster);
    let url = format!("{}?statement-cache-capacity=0", bouncer.service_url());
    let servers = [(); 2].map(|()| through(home.serve(), &url, &cluster).start());
    thread::scope(|scope| {
        let users: Vec<_> = (0..USERS)
            .map(|number| {
                scope.spawn({
                    let servers = &servers;
                    move || live(number, servers)
                })
            })
            .collect();
        for user in users {
            user.join().unwrap_or_else(|_| panic!("{}\n{}", servers[0].stderr(), bouncer.log()));
        }
    });

    let [here, there] = &servers;
    let login = here.login("user0@example.com");
    let takes = |server: &Server| {
        let me = server.get_as(&login.text("/accessToken"), "/api/v1/auth/me");
        assert!([200, 401].contains(&me.status), "{me:?}");
        me.status == 200
    };
    assert!(takes(here) && takes(there));
    let body = json!({"refreshToken": login.text("/refreshToken")});
    assert_eq!(here.post("/api/v1/auth/logout", &body).status, 200);
    assert!(!takes(here), "at once where it was signed out");
    // A second, and what a busy machine may add.
    poll(Duration::from_secs(5), "a refusal by the other server", || (!takes(there)).then_some(()));

    let doctor = through(home.command(&["doctor"]), &url, &cluster).run().succeeded();
    assert!(doctor.contains("one user can't read or write another's rows"), "{doctor}");
    for server in servers {
        let metrics = server.get("/metrics").body;
        assert!(!metrics.contains(r#"status="50"#), "{metrics}");
        let log = server.stderr();
        let complaints = log.lines().filter(|line| line.contains("ERROR") || line.contains("WARN"));
        // That there is no server for mails is as it should be here, and that statements and connections took their time ("exceeded").
        let complaints: Vec<_> =
            complaints.filter(|line| !line.contains("SMTP") && !line.contains("exceeded")).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
        server.signal("TERM");
        assert_eq!(server.await_end(Duration::from_secs(30)), Some(0), "{}", server.stderr());
    }
    // What was written outside of a request's transaction was committed too.
    cluster.owner("mana").run(&format!(
        "DO $$ BEGIN ASSERT (SELECT count(*) FROM auth.refresh_chains
                             WHERE generation = {REFRESHES} + 1 AND confirmed_at IS NOT NULL) = {USERS}; END $$"
    ));
}

#[test]
fn nobody_migrates_through_a_pooler_and_whoever_tries_is_told() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let bouncer = PgBouncer::start(&home, &cluster);
    let run = |args: &[&str], owner_url: &str| home.command(args).env("DATABASE_OWNER_URL", owner_url).run();
    let (direct, pooled) = (cluster.owner_url("mana"), bouncer.owner_url(&cluster));
    run(&["migrate"], &direct).succeeded();
    for more in ["", "?statement-cache-capacity=0"] {
        for args in [&["migrate"][..], &["migrate", "--plan"]] {
            let refused = run(args, &format!("{pooled}{more}")).sentence();
            assert!(
                refused.contains("DATABASE_OWNER_URL") && refused.contains("PostgreSQL itself"),
                "{refused}"
            );
        }
        let doctor = run(&["doctor", "--upgrade"], &format!("{pooled}{more}"));
        assert!(doctor.code == Some(1) && doctor.stdout.contains("PostgreSQL itself"), "{doctor:?}");
    }
    run(&["migrate"], &direct).succeeded();
}

#[test]
fn a_pooler_that_mixes_up_prepared_statements_is_refused_at_the_start() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let bouncer = PgBouncer::start(&home, &cluster);
    let url = bouncer.service_url();
    for _ in 0..2 {
        let refused = through(home.serve(), &url, &cluster).run().sentence();
        assert!(
            refused.contains("max_prepared_statements") && refused.contains("statement-cache-capacity=0"),
            "{refused}"
        );
    }
    let doctor = through(home.command(&["doctor"]), &url, &cluster).run();
    assert!(doctor.code == Some(1) && doctor.stdout.contains("max_prepared_statements"), "{doctor:?}");
}
