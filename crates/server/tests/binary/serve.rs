//! `serve`: on a PostgreSQL that somebody else runs.

use crate::cluster::{Cluster, ROOT_SECRET, SERVICE_PASSWORD};
use crate::process::{Home, Launch, Server};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::{Value, json};
use std::time::Duration;

const BALANCE: &str = "/api/v1/credits/balance";

/// With the address of a database, and the secret.
fn on(launch: Launch, cluster: &Cluster, database: &str) -> Launch {
    launch.env("DATABASE_URL", cluster.service_url(database)).env("MANA_SECRET_KEY", ROOT_SECRET)
}

fn as_owner_too(launch: Launch, cluster: &Cluster, database: &str) -> Launch {
    on(launch, cluster, database).env("DATABASE_OWNER_URL", cluster.owner_url(database))
}

#[test]
fn three_servers_at_once_on_an_empty_database_come_up_as_one() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let replicas = [(); 3].map(|()| as_owner_too(home.serve(), &cluster, "mana").spawn());
    replicas.iter().for_each(Server::await_ready);
    assert!(replicas.iter().all(|replica| replica.stdout().is_empty()), "serve prints log lines only");

    replicas[0].register("ada@example.com");
    let tokens: Vec<_> =
        replicas.iter().map(|replica| replica.login("ada@example.com").text("/accessToken")).collect();
    for replica in &replicas {
        for token in &tokens {
            let balance = replica.get_as(token, BALANCE);
            assert_eq!(balance.status, 200, "{}", balance.body);
        }
        assert_eq!(
            replica.get("/.well-known/jwks.json").body,
            replicas[0].get("/.well-known/jwks.json").body
        );
    }
    let spend = json!({"amount": 10, "appId": "chat", "description": "An answer"});
    assert_eq!(replicas[1].post_as(&tokens[0], "/api/v1/credits/use", &spend).status, 201);
    assert_eq!(replicas[2].get_as(&tokens[0], BALANCE).json()["freeCreditsRemaining"], 140);

    for replica in replicas {
        assert!(!replica.stderr().contains(SERVICE_PASSWORD));
        replica.stop("TERM");
    }
}

#[test]
fn what_is_missing_is_a_sentence_with_the_way_out() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana").with_database("other"));
    let refused = |launch: Launch, expected: &[&str]| {
        let done = launch.env("DATABASE_WAIT_SECONDS", "1").run();
        assert!(done.took < Duration::from_secs(20), "{done:?}");
        for secret in [SERVICE_PASSWORD, "chosen%40by", cluster.password(), &ROOT_SECRET[5..]] {
            assert!(!done.stderr.contains(secret) && !done.stdout.contains(secret), "{done:?}");
        }
        let sentence = done.sentence();
        for expected in expected {
            assert!(sentence.contains(expected), "no {expected} in: {sentence}");
        }
    };
    let migrate = || home.command(&["migrate"]);

    refused(home.serve(), &["needs DATABASE_URL", "dev"]);
    refused(
        home.serve().env("DATABASE_URL", cluster.service_url("mana")),
        &["MANA_SECRET_KEY", "keys generate"],
    );
    refused(on(home.serve(), &cluster, "mana"), &["DATABASE_URL"]);
    refused(migrate(), &["needs DATABASE_OWNER_URL"]);
    let as_superuser =
        || home.serve().env("DATABASE_URL", cluster.owner_url("mana")).env("MANA_SECRET_KEY", ROOT_SECRET);
    refused(as_superuser(), &["row-level security", "DATABASE_OWNER_URL", "mana_service"]);

    let migrated = as_owner_too(migrate(), &cluster, "mana").run().succeeded();
    assert!(migrated.contains("schema is at"), "{migrated}");
    refused(as_superuser(), &["row-level security"]);
    // The roles are there now, and the other database is as empty as before.
    refused(on(home.serve(), &cluster, "other"), &["needs ", "migrate", "DATABASE_OWNER_URL"]);
    refused(as_owner_too(home.serve(), &cluster, "other").arg("--no-migrate"), &["needs ", "migrate"]);
    refused(
        on(home.serve(), &cluster, "mana").env("CREDITS_DAILY_ZONE", "Mars/Base"),
        &["CREDITS_DAILY_ZONE", "Mars/Base"],
    );
    let wrong = cluster.service_url("mana").replace("chosen", "guessed");
    refused(home.serve().env("DATABASE_URL", wrong).env("MANA_SECRET_KEY", ROOT_SECRET), &["DATABASE_URL"]);

    let server = on(home.serve(), &cluster, "mana").arg("--no-migrate").start();
    server.register("ada@example.com");
    assert_eq!(server.get("/dev/outbox").status, 404, "mails are shown in dev mode only");
    assert_eq!(server.stderr().matches("nobody gets them").count(), 1, "{}", server.stderr());
    server.stop("INT");
    let other_secret = "test:ISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISE=";
    refused(on(home.serve(), &cluster, "mana").env("MANA_SECRET_KEY", other_secret), &["MANA_SECRET_KEY"]);
    let renamed = other_secret.replace("test", "newer");
    refused(
        on(home.serve(), &cluster, "mana").env("MANA_SECRET_KEY", &renamed),
        &["MANA_SECRET_KEY", "version test"],
    );
    on(home.serve(), &cluster, "mana")
        .env("MANA_SECRET_KEY", format!("{renamed},{ROOT_SECRET}"))
        .start()
        .stop("TERM");
}

#[test]
fn an_address_of_no_postgresql_or_without_a_user_is_refused_before_anything_is_made() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let start = |launch: Launch, url: &str| {
        let launch = launch.env("DATABASE_OWNER_URL", cluster.owner_url("mana"));
        launch.env("DATABASE_URL", url).env("MANA_SECRET_KEY", ROOT_SECRET)
    };
    for url in [
        "mysql://x",
        "mysql://ada:secret@db/mana",
        "postgres://db/mana",
        "postgres://:secret@db/mana",
        "mana",
    ] {
        for launch in [home.serve(), home.command(&["migrate"]), home.command(&["config", "check"])] {
            let sentence = start(launch, url).run().sentence();
            assert!(sentence.contains("DATABASE_URL is not a PostgreSQL address"), "{url}: {sentence}");
            assert!(!sentence.contains("secret"), "{sentence}");
        }
    }
    let encoded = start(home.serve(), "postgres://mana_service:pa#ss@db:5432/mana").run().sentence();
    assert!(encoded.contains("percent-encoded, # as %23") && !encoded.contains("pa#ss"), "{encoded}");
    let made: Vec<(i64,)> =
        cluster.owner("mana").rows("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'mana%'");
    assert_eq!(made, [(0,)], "no role that keeps the right address out");
    start(home.serve(), &cluster.service_url("mana")).start().stop("TERM");
}

#[test]
fn a_sign_in_that_postgresql_refuses_is_told_with_the_way_out() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let refused = |launch: Launch, expected: &[&str]| {
        let done = launch.env("DATABASE_WAIT_SECONDS", "1").run();
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(done.code == Some(1) && !said.contains("at line"), "{said}");
        for expected in expected {
            assert!(said.contains(expected), "no {expected} in: {said}");
        }
    };
    let with_owner = |launch: Launch| as_owner_too(launch, &cluster, "mana");
    refused(
        with_owner(home.command(&["doctor"])),
        &["role mana_service", "not there yet", "mana-core-auth migrate"],
    );
    refused(on(home.command(&["doctor"]), &cluster, "mana"), &["not there yet", "mana-core-auth migrate"]);

    // As by `migrate` without the server's address.
    let migrate = home.command(&["migrate"]).env("DATABASE_OWNER_URL", cluster.owner_url("mana"));
    migrate.run().succeeded();
    refused(with_owner(home.serve()), &["ALTER ROLE mana_service LOGIN", r"\password mana_service"]);
    cluster.owner("mana").run("ALTER ROLE mana_service LOGIN PASSWORD 'another'");
    let another = ["there with another password", r"\password mana_service"];
    refused(with_owner(home.serve()), &another);
    refused(with_owner(home.command(&["doctor"])), &another);
    refused(on(home.serve(), &cluster, "mana"), &["DATABASE_URL", "another one", r"\password mana_service"]);
    refused(on(home.command(&["users", "find"]), &cluster, "mana"), &[r"\password mana_service"]);
    cluster.owner("mana").run(&format!("ALTER ROLE mana_service PASSWORD '{SERVICE_PASSWORD}'"));
    with_owner(home.serve()).start().stop("TERM");
}

#[test]
fn what_postgresql_refuses_is_told_with_the_way_out() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana").with_database("other"));
    let refused = |launch: Launch, expected: &[&str]| {
        let sentence = launch.env("DATABASE_WAIT_SECONDS", "1").run().sentence();
        assert!(!sentence.contains("at line") && !sentence.contains("pool timed out"), "{sentence}");
        for expected in expected {
            assert!(sentence.contains(expected), "no {expected} in: {sentence}");
        }
    };
    as_owner_too(home.command(&["migrate"]), &cluster, "mana").run().succeeded();
    refused(as_owner_too(home.serve(), &cluster, "nowhere"), &["createdb nowhere", "DATABASE_OWNER_URL"]);
    refused(on(home.serve(), &cluster, "nowhere"), &["createdb nowhere", "in DATABASE_URL"]);
    let nobody = format!("127.0.0.1:{}", crate::process::free_port());
    let url = format!("postgres://mana_service:x@{nobody}/mana");
    let elsewhere = || home.serve().env("DATABASE_URL", &url).env("MANA_SECRET_KEY", ROOT_SECRET);
    refused(elsewhere(), &[&nobody, "connection refused", "DATABASE_URL"]);
    let owner = format!("postgres://owner:x@{nobody}/mana");
    refused(
        elsewhere().env("DATABASE_OWNER_URL", owner),
        &[&nobody, "connection refused", "DATABASE_OWNER_URL"],
    );

    let mut superuser = cluster.owner("other");
    superuser.run("CREATE ROLE tom LOGIN CREATEROLE PASSWORD 'tom'");
    let as_tom = || {
        let url = cluster.owner_url("other");
        let (_, rest) = url.split_once('@').unwrap();
        home.command(&["migrate"]).env("DATABASE_OWNER_URL", format!("postgres://tom:tom@{rest}"))
    };
    refused(as_tom(), &["permission denied", "ALTER DATABASE other OWNER TO tom"]);
    superuser.run("ALTER DATABASE other OWNER TO tom");
    as_tom().run().succeeded();
}

#[test]
fn a_server_says_at_its_start_what_can_not_work_as_it_is_set() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let server = as_owner_too(home.serve(), &cluster, "mana")
        .env("BASE_URL", "http://auth.example.org")
        .env("COOKIE_DOMAIN", "example.com")
        .env("REQUIRE_EMAIL_VERIFICATION", "yes")
        .env("STRIPE_SECRET_KEY", "abc")
        .start();
    let said = server.stderr();
    for said_of in
        ["COOKIE_DOMAIN is example.com", "without SMTP_HOST", "no secret key of Stripe", "travel in clear"]
    {
        assert_eq!(said.matches(said_of).count(), 1, "{said_of}: {said}");
    }
    server.stop("TERM");
}

#[test]
fn no_server_starts_whose_tokens_would_go_to_strangers() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let serve = |domain: &str| {
        as_owner_too(home.serve(), &cluster, "mana")
            .env("BASE_URL", "https://mana.fly.dev")
            .env("COOKIE_DOMAIN", domain)
    };
    let refused = serve("fly.dev").run();
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.sentence().contains("pages of strangers are below fly.dev"));
    serve("mana.fly.dev").start().stop("TERM");
}

#[test]
fn generated_keys_in_a_file_start_a_server_whose_tokens_its_jwks_verifies() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let keys = home.command(&["keys", "generate"]).run().succeeded();
    assert_eq!(keys.lines().count(), 3, "{keys}");
    let file = home.file(
        "mana.env",
        &format!(
            "{keys}DATABASE_URL={}\nDATABASE_OWNER_URL={}\nJWT_ISSUER=https://issuer.example\nCREDITS_SIGNUP_BONUS=7\n",
            cluster.service_url("mana"),
            cluster.owner_url("mana")
        ),
    );
    let server = home.serve().env("MANA_CONFIG_FILE", &file).start();
    server.register("ada@example.com");
    let token = server.login("ada@example.com").text("/accessToken");
    assert_eq!(server.get_as(&token, BALANCE).json()["freeCreditsRemaining"], 7, "the file is read");

    let published: JwkSet = serde_json::from_value(server.get("/.well-known/jwks.json").json()).unwrap();
    let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_issuer(&["https://issuer.example"]);
    validation.set_audience(&["manacore"]);
    let published = DecodingKey::from_jwk(published.find(&kid).unwrap()).unwrap();
    jsonwebtoken::decode::<Value>(&token, &published, &validation).unwrap();
    let public = keys.lines().find_map(|line| line.strip_prefix("JWT_PUBLIC_KEY=")).unwrap();
    let public = DecodingKey::from_rsa_pem(public.trim_matches('"').replace("\\n", "\n").as_bytes()).unwrap();
    jsonwebtoken::decode::<Value>(&token, &public, &validation).unwrap();

    let port = server.port.to_string();
    let printed = home
        .command(&["admin", "claim-link", "--port", &port])
        .env("MANA_CONFIG_FILE", &file)
        .run()
        .succeeded();
    let link = printed.trim().strip_prefix(&format!("http://localhost:{port}")).unwrap();
    let page = server.get(link);
    assert_eq!(page.status, 200, "{}", page.body);
    home.command(&["doctor"]).env("MANA_CONFIG_FILE", &file).run().succeeded();
    server.stop("TERM");

    let other = home.command(&["keys", "generate"]).run().succeeded();
    let other = other
        .lines()
        .find_map(|line| line.strip_prefix("JWT_PUBLIC_KEY="))
        .unwrap()
        .trim_matches('"')
        .to_owned();
    let sentence = home.serve().env("MANA_CONFIG_FILE", &file).env("JWT_PUBLIC_KEY", other).run().sentence();
    assert!(sentence.contains("JWT_PUBLIC_KEY"), "{sentence}");
}
