//! `user`, `admin` and `credits`: what an operator does when nobody can sign in to administrate.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Done, Home, poll};
use serde_json::Value;
use std::time::Duration;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn an_operator_finds_shuts_funds_and_promotes_accounts_without_a_server() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let run = |args: &[&str]| -> Done {
        let launch = home.command(args).env("DATABASE_URL", cluster.service_url("mana"));
        let launch = launch.env("DATABASE_OWNER_URL", cluster.owner_url("mana"));
        launch.env("MANA_SECRET_KEY", ROOT_SECRET).run()
    };
    run(&["migrate"]).succeeded();
    assert!(run(&["user", "find"]).succeeded().contains("no such account"));
    let mut owner = cluster.owner("mana");
    owner.run(
        "INSERT INTO auth.users (id, email, created_at, updated_at) VALUES
             ('ada', 'ada@example.com', now(), now()), ('bob', 'bob@example.com', now(), now());
         INSERT INTO auth.sessions (id, user_id, cookie_hash, remember_me, created_at, last_active_at, expires_at)
             VALUES ('s', 'ada', '\\x00', false, now(), now(), now() + interval '1 day');
         INSERT INTO credits.balances (user_id, sequence, free, paid, total_earned, total_spent, head, daily_granted_on, created_at, updated_at)
             VALUES ('ada', 0, 0, 0, 0, 0, decode(repeat('00', 32), 'hex'), now()::date, now(), now())",
    );
    let found = run(&["user", "find", "ADA"]).succeeded();
    assert!(found.starts_with("ID ") && found.contains("ada@example.com  user"), "{found}");
    assert_eq!(found.lines().count(), 2, "{found}");
    assert_eq!(parsed(&run(&["user", "find", "--json"]).succeeded()).as_array().unwrap().len(), 2);

    let because = ["--reason", "Ticket 17"];
    let act = |args: &[&str]| run(&[args, &because].concat());
    let given = act(&["credits", "grant", "ada@example.com", "50", "--description", "Sorry"]).succeeded();
    assert!(given.contains("Given 50 mana: ada has 0 paid and 5"), "{given}");
    let taken = parsed(&act(&["credits", "take", "ada", "20", "--json"]).succeeded());
    assert_eq!(taken["transaction"]["amount"], -20);
    assert_eq!(taken["transaction"]["description"], "Adjustment");
    let too_much = act(&["credits", "take", "ada", "1000"]).sentence();
    assert!(too_much.contains("Insufficient credits"), "{too_much}");
    for bad in ["0", "-1", "1.5", "9007199254740992"] {
        assert_eq!(act(&["credits", "grant", "ada", "--", bad]).code, Some(2), "{bad}");
    }
    assert_eq!(run(&["credits", "grant", "ada", "5"]).code, Some(2), "without a reason");
    act(&["credits", "grant", "nobody@example.com", "5"]).sentence();

    let shown = parsed(&run(&["user", "show", "ada@example.com", "--json"]).succeeded());
    assert_eq!((&shown["liveSessions"], &shown["factors"]["password"]), (&1.into(), &false.into()));
    assert_eq!(shown["wallet"]["totalEarned"], 50);
    assert!(run(&["user", "show", "ada"]).succeeded().contains("sessions     1 live"));

    assert_eq!(parsed(&act(&["user", "end-sessions", "ada", "--json"]).succeeded())["ended"], 1);
    acts_are_told_in_sentences(&run);
    let found = run(&["users", "find", "--role", "admin", "--state", "active"]).succeeded();
    assert!(found.lines().count() == 2 && found.contains("bob@example.com"), "{found}");
    assert!(run(&["users", "sessions", "ada"]).succeeded().contains("signed in nowhere"));
    owner.run(
        "INSERT INTO auth.sessions (id, user_id, cookie_hash, remember_me, created_at, last_active_at, expires_at, device_name)
             VALUES ('t', 'ada', '\\x01', false, now(), now(), now() + interval '1 day', 'Laptop')",
    );
    assert!(run(&["users", "sessions", "ada@example.com"]).succeeded().contains("Laptop"));
    assert_eq!(parsed(&run(&["users", "sessions", "ada", "--json"]).succeeded())[0]["id"], "t");
    run(&["users", "sessions", "nobody"]).sentence();
    let last = act(&["users", "delete", "bob"]).sentence();
    assert!(last.contains("nobody else administrates"), "{last}");
    let gone = act(&["users", "delete", "ada@example.com"]).succeeded();
    assert!(gone.contains("The account ada is deleted"), "{gone}");
    assert!(run(&["users", "find", "--state", "deleted"]).succeeded().contains("DELETED"));
    let again = parsed(&act(&["users", "delete", "ada", "--json"]).succeeded());
    assert_eq!((&again["id"], again["deletedAt"].is_string()), (&"ada".into(), true));
    act(&["users", "delete", "nobody"]).sentence();
    let refused = act(&["credits", "grant", "ada", "5"]).sentence();
    assert!(refused.contains("closed") || refused.contains("no wallet"), "{refused}");
    let left: Vec<(i64,)> = owner.rows(
        "SELECT (SELECT count(*) FROM auth.sessions WHERE revoked_at IS NULL OR device_name IS NOT NULL)
             + (SELECT count(*) FROM auth.users WHERE email = 'ada@example.com')",
    );
    assert_eq!(left, [(0,)]);
    let mails: Vec<(String,)> = owner.rows("SELECT template FROM auth.outgoing_mails");
    assert_eq!(mails, [("account_deleted".to_owned(),)], "a server that starts sends it");
    let events = run(&["users", "events", "ada", "--limit", "1"]).succeeded();
    assert!(
        events.contains("account_deleted")
            && events.starts_with("AT ")
            && events.contains("operator: Ticket 17"),
        "{events}"
    );
    let granted = parsed(&run(&["users", "events", "--type", "credits_granted", "--json"]).succeeded());
    assert_eq!(granted.as_array().unwrap().len(), 1);

    let written: Vec<(String,)> = owner.rows(
        "SELECT type FROM auth.security_events WHERE actor = 'operator' AND actor_id IS NULL AND reason = 'Ticket 17' ORDER BY type",
    );
    let written: Vec<_> = written.iter().map(|(kind,)| kind.as_str()).collect();
    assert_eq!(
        written,
        [
            "account_deleted",
            "account_disabled",
            "account_enabled",
            "became_admin",
            "became_admin",
            "credits_granted",
            "credits_taken",
            "no_longer_admin",
            "second_factor_reset",
            "session_revoked",
            "session_revoked",
            "sessions_ended"
        ]
    );
    a_server_tells_who_was_made_without_it(&home, &cluster);
}

/// Ada is shut, opened, made an administrator and a user again, and Bob an administrator.
fn acts_are_told_in_sentences(run: &dyn Fn(&[&str]) -> Done) {
    let act = |args: &[&str]| run(&[args, &["--reason", "Ticket 17"]].concat());
    let done = |args: &[&str], sentence: &str| {
        let told = act(args).succeeded();
        assert!(told.contains("ada@example.com (ada)") && told.contains(sentence), "{told}");
    };
    done(&["user", "disable", "ada"], "is disabled");
    assert!(run(&["user", "find", "ada"]).succeeded().contains("DISABLED"));
    done(&["user", "enable", "ada"], "is enabled");
    assert!(!run(&["user", "find", "ada"]).succeeded().contains("DISABLED"));
    done(&["user", "reset-factors", "ada"], "is taken away");
    done(&["admin", "promote", "ada"], "is an administrator");
    let no_link = run(&["admin", "claim-link"]);
    assert!(
        no_link.code == Some(1) && no_link.stdout.is_empty(),
        "a script takes it for a link: {no_link:?}"
    );
    assert!(no_link.sentence().contains("an administrator already"));
    let last = act(&["admin", "demote", "ada"]).sentence();
    assert!(last.contains("nobody else administrates"), "{last}");
    act(&["admin", "promote", "bob"]).succeeded();
    done(&["admin", "demote", "ada"], "no administrator");
}

/// And what is rare is there from its start on, or nobody would see it rise.
fn a_server_tells_who_was_made_without_it(home: &Home, cluster: &Cluster) {
    cluster.books_are_true("mana");
    let server = home.serve().env("DATABASE_URL", cluster.service_url("mana"));
    let server = server.env("MANA_SECRET_KEY", ROOT_SECRET).start();
    let told = poll(Duration::from_secs(30), "how many administrate, of whom no server has made any", || {
        let told = server.get("/metrics").body;
        told.contains("\nadministrators 1\n").then_some(told)
    });
    for rare in [
        r#"security_events_total{type="became_admin"} 0"#,
        r#"mails_total{template="verify_email",outcome="given_up"} 0"#,
        r#"stripe_calls_total{method="POST",outcome="unauthorized"} 0"#,
        r#"webhook_deliveries_total{outcome="dead"} 0"#,
        "http_internal_errors_total 0",
    ] {
        assert!(told.contains(&format!("\n{rare}\n")), "{rare} is there from the start on: {told}");
    }
}
