//! `import legacy`: a database as the TypeScript service leaves it, in two of its spellings, and what becomes of it.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::http::PASSWORD;
use crate::process::{Done, Home, Launch, Server, poll};
use mana_kernel::Clock as _;
use mana_platform::SystemClock;
use serde_json::{Value, json};
use std::time::Duration;

/// Names in braces are spelled as the version has it.
const TABLES: &str = "
CREATE TABLE {T:users} (id text PRIMARY KEY, name text NOT NULL, email text UNIQUE NOT NULL, {email_verified} boolean DEFAULT false NOT NULL, image text,
    {created_at} timestamptz DEFAULT now() NOT NULL, {updated_at} timestamptz DEFAULT now() NOT NULL, role text DEFAULT 'user' NOT NULL,
    {two_factor_enabled} boolean DEFAULT false, {deleted_at} timestamptz);
CREATE TABLE {T:sessions} (id text PRIMARY KEY, {expires_at} timestamptz NOT NULL, token text UNIQUE NOT NULL, {user_id} text NOT NULL, {revoked_at} timestamptz);
CREATE TABLE {T:accounts} (id text PRIMARY KEY, {account_id} text NOT NULL, {provider_id} text NOT NULL, {user_id} text NOT NULL, {access_token} text, password text,
    {created_at} timestamptz DEFAULT now() NOT NULL);
CREATE TABLE {T:passwords} ({user_id} text PRIMARY KEY, {hashed_password} text NOT NULL);
CREATE TABLE {T:two_factor_auth} ({user_id} text PRIMARY KEY, secret text NOT NULL, enabled boolean DEFAULT false NOT NULL, {backup_codes} text);
CREATE TABLE {T:security_events} (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), {user_id} text, {event_type} text NOT NULL, {ip_address} text, {user_agent} text,
    metadata jsonb, {created_at} timestamptz DEFAULT now() NOT NULL);
CREATE TABLE {T:balances} ({user_id} text PRIMARY KEY, balance integer DEFAULT 0 NOT NULL, {free_credits_remaining} integer DEFAULT 150 NOT NULL,
    {daily_free_credits} integer DEFAULT 5 NOT NULL, {last_daily_reset_at} timestamptz DEFAULT now(), {total_earned} integer DEFAULT 0 NOT NULL,
    {total_spent} integer DEFAULT 0 NOT NULL, version integer DEFAULT 0 NOT NULL, {created_at} timestamptz DEFAULT now() NOT NULL);
CREATE TABLE {T:transactions} (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), {user_id} text NOT NULL, type text NOT NULL, status text DEFAULT 'completed' NOT NULL,
    amount bigint NOT NULL, {balance_before} integer NOT NULL DEFAULT 0, {balance_after} integer NOT NULL DEFAULT 0, {app_id} text NOT NULL, description text NOT NULL,
    {organization_id} text, metadata jsonb, {idempotency_key} text UNIQUE, {created_at} timestamptz DEFAULT now() NOT NULL, {completed_at} timestamptz);
CREATE TABLE {T:packages} (id uuid PRIMARY KEY, name text NOT NULL, description text, credits integer NOT NULL, {price_euro_cents} integer NOT NULL,
    {stripe_price_id} text UNIQUE, active boolean DEFAULT true NOT NULL, {sort_order} integer DEFAULT 0 NOT NULL, metadata jsonb);
CREATE TABLE {T:purchases} (id uuid PRIMARY KEY, {user_id} text NOT NULL, {package_id} uuid, credits integer NOT NULL, {price_euro_cents} integer NOT NULL,
    {stripe_payment_intent_id} text UNIQUE, {stripe_customer_id} text, status text DEFAULT 'pending' NOT NULL, metadata jsonb,
    {created_at} timestamptz DEFAULT now() NOT NULL, {completed_at} timestamptz);
CREATE TABLE {T:usage_stats} (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), {user_id} text NOT NULL, {app_id} text NOT NULL, {credits_used} integer NOT NULL);
";

/// Ada has everything and her history adds up; Bob's does not, and he has a password of the first version; Cyd has a second factor; Dan
/// has one that another secret closed; Eve is gone.
const ROWS: &str = r#"
INSERT INTO {T:users} (id, name, email, {email_verified}, role, {created_at}, {two_factor_enabled}, {deleted_at}) VALUES
    ('Adaadaadaadaadaadaadaadaadaada12', 'Ada', 'Ada@Example.com', true, 'user', '2025-01-01T00:00:00Z', false, NULL),
    ('bob', 'Bob', 'bob@example.com', true, 'user', '2025-01-01T00:00:00Z', false, NULL),
    ('cyd', 'Cyd', 'cyd@example.com', true, 'user', '2025-01-01T00:00:00Z', true, NULL),
    ('dan', 'Dan', 'dan@example.com', true, 'user', '2025-01-01T00:00:00Z', true, NULL),
    ('eve', 'Eve', 'eve@example.com', true, 'user', '2025-01-01T00:00:00Z', false, '2025-06-01T00:00:00Z');
INSERT INTO {T:accounts} (id, {account_id}, {provider_id}, {user_id}, password)
    SELECT 'c' || id, id, 'credential', id, '69c34533a8123fe8e3892eb43070f140:ba6b2caa6fa60d486e8b87370a2fb13c1b6872a716b2f1f0c83eeabb891c0fe3e263d01c0f0ff047fde2ac30b51e7ae02f55908529a17adeb3ec48197c64ce38'
    FROM {T:users} WHERE id <> 'bob';
INSERT INTO {T:accounts} (id, {account_id}, {provider_id}, {user_id}) VALUES ('g', '1234567890', 'google', 'bob'), ('t', '7', 'twitch', 'bob');
INSERT INTO {T:passwords} VALUES ('bob', '$2b$04$FZwntQykG8CKGnPOP0ttTOtiXwb2NbZaXer9a3qd0uM28x8dH9eme');
INSERT INTO {T:two_factor_auth} ({user_id}, secret, enabled, {backup_codes}) VALUES
    ('cyd', '0102030405060708090a0b0c0d0e0f10111213141516171865f8314036c7673f60a28db4e9b6d79ef48730c7dd94a1f78458f501c31e3ad2b8852ca60eddd9919cbc1947ec03cee8', true,
     '0102030405060708090a0b0c0d0e0f1011121314151617185fb8336660c5457a30b0bfa2b4fa94ccd48226c1dccfe7bdce16f012ac562b845990ba7528b44945df8bd41d7e'),
    ('dan', '0102030405060708090a0b0c0d0e0f10111213141516171865f8314036c7673f60a28db4e9b6d79ef48730c7dd94a1f78458f501c31e3ad2b8852ca60eddd9919cbc1947ec03cee9', true, '00');
INSERT INTO {T:sessions} VALUES ('s', now() + interval '1 day', 'a token', 'bob', NULL), ('r', now() + interval '1 day', 'another', 'bob', now());
INSERT INTO {T:security_events} ({user_id}, {event_type}, {ip_address}, {user_agent}, {created_at}) VALUES
    ('bob', 'login', '192.0.2.7', 'curl/8', now() - interval '2 days'), ('bob', 'logout', 'nonsense', NULL, now() - interval '1 day'), (NULL, 'login_failed', NULL, NULL, now());
INSERT INTO {T:packages} (id, name, credits, {price_euro_cents}, {sort_order}) VALUES ('00000000-0000-4000-8000-0000000000aa', 'Starter', 600, 500, 1);
INSERT INTO {T:purchases} (id, {user_id}, {package_id}, credits, {price_euro_cents}, {stripe_payment_intent_id}, {stripe_customer_id}, status, {created_at}, {completed_at}) VALUES
    ('00000000-0000-4000-8000-0000000000b1', 'Adaadaadaadaadaadaadaadaadaada12', '00000000-0000-4000-8000-0000000000aa', 500, 500, 'pi_1', 'cus_1', 'completed', '2025-01-02T10:00:00Z', '2025-01-02T10:01:00Z'),
    ('00000000-0000-4000-8000-0000000000b2', 'Adaadaadaadaadaadaadaadaadaada12', NULL, 100, 100, NULL, 'cus_1', 'pending', '2025-01-03T10:00:00Z', NULL),
    ('00000000-0000-4000-8000-0000000000b3', 'bob', '00000000-0000-4000-8000-0000000000aa', 600, 500, 'pi_3', 'cus_3', 'completed', '2025-01-02T10:00:00Z', '2025-01-02T10:01:00Z');
INSERT INTO {T:transactions} (id, {user_id}, type, status, amount, {app_id}, description, metadata, {idempotency_key}, {created_at}) VALUES
    ('00000000-0000-4000-8000-000000000001', 'Adaadaadaadaadaadaadaadaadaada12', 'bonus', 'completed', 150, 'system', 'Signup bonus', NULL, NULL, '2025-01-01T00:00:00Z'),
    ('00000000-0000-4000-8000-000000000002', 'Adaadaadaadaadaadaadaadaadaada12', 'purchase', 'completed', 500, 'stripe', 'Credit purchase: 500 credits',
        '{"purchaseId": "00000000-0000-4000-8000-0000000000b1", "stripePaymentIntentId": "pi_1"}', 'purchase:pi_1', '2025-01-02T10:01:00Z'),
    ('00000000-0000-4000-8000-000000000003', 'Adaadaadaadaadaadaadaadaadaada12', 'usage', 'completed', -160, 'chat', 'A long answer', '{"model": "large"}', 'k1', '2025-01-02T11:00:00Z'),
    ('00000000-0000-4000-8000-000000000004', 'Adaadaadaadaadaadaadaadaadaada12', 'refund', 'completed', 10, 'chat', 'It was too long',
        '{"transactionId": "00000000-0000-4000-8000-000000000003"}', NULL, '2025-01-02T12:00:00Z'),
    ('00000000-0000-4000-8000-000000000005', 'Adaadaadaadaadaadaadaadaadaada12', 'bonus', 'completed', 5, 'system', 'Daily free credits', NULL, NULL, '2025-01-03T08:00:00Z'),
    ('00000000-0000-4000-8000-000000000006', 'Adaadaadaadaadaadaadaadaadaada12', 'bonus', 'completed', 20, 'organization', 'Credit allocation from organization: thanks', NULL, NULL, '2025-01-03T09:00:00Z'),
    ('00000000-0000-4000-8000-000000000007', 'Adaadaadaadaadaadaadaadaadaada12', 'usage', 'failed', -1, 'chat', 'It never happened', NULL, NULL, '2025-01-03T10:00:00Z'),
    ('00000000-0000-4000-8000-000000000008', 'Adaadaadaadaadaadaadaadaadaada12', 'usage', 'completed', -2, 'chat', 'An answer', '{"b": 1, "a": {"c": 2}}', 'k2', '2025-01-03T11:00:00Z'),
    ('00000000-0000-4000-8000-000000000011', 'bob', 'usage', 'completed', -40, 'chat', 'Before anything was given', NULL, NULL, '2025-01-01T00:00:00Z'),
    ('00000000-0000-4000-8000-000000000012', 'bob', 'gift', 'completed', 7, 'gifts', 'A present', NULL, NULL, '2025-01-02T00:00:00Z');
INSERT INTO {T:balances} ({user_id}, balance, {free_credits_remaining}, {total_earned}, {total_spent}) VALUES
    ('Adaadaadaadaadaadaadaadaadaada12', 520, 3, 520, 152), ('bob', 30, 100, 0, 40), ('cyd', 0, 150, 0, 0), ('dan', 0, 0, 0, 0);
INSERT INTO {T:usage_stats} ({user_id}, {app_id}, {credits_used}) VALUES ('bob', 'chat', 40);
"#;

const ADA: &str = "Adaadaadaadaadaadaadaadaadaada12";
const OLDER_SECRET: &str = "the older secret";

/// How a version of the older service spells its tables and columns.
#[derive(Debug, Clone, Copy)]
enum Spelling {
    Snake,
    Camel,
}

impl Spelling {
    /// Replaces the names in braces. Those are never JSON: that has quotes or spaces in it.
    fn of(self, sql: &str) -> String {
        let mut text = String::new();
        let mut rest = sql;
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            let name = after.split_once('}').filter(|(name, _)| {
                name.chars().all(|letter| letter.is_ascii_lowercase() || matches!(letter, '_' | ':' | 'T'))
                    && !name.is_empty()
            });
            match name {
                Some((name, after)) => {
                    text.push_str(&self.name(name));
                    rest = after;
                }
                None => {
                    text.push('{');
                    rest = after;
                }
            }
        }
        text + rest
    }

    fn name(self, name: &str) -> String {
        let is_of_credits =
            |table| matches!(table, "balances" | "transactions" | "packages" | "purchases" | "usage_stats");
        match (self, name.strip_prefix("T:")) {
            (Self::Snake, Some(table)) if is_of_credits(table) => format!("credits.{table}"),
            (Self::Snake, Some(table)) => format!("auth.{table}"),
            (Self::Snake, None) => name.to_owned(),
            (Self::Camel, Some("users")) => "public.\"user\"".to_owned(),
            (Self::Camel, Some("accounts")) => "public.account".to_owned(),
            (Self::Camel, Some("sessions")) => "public.session".to_owned(),
            (Self::Camel, Some("two_factor_auth")) => "public.\"twoFactor\"".to_owned(),
            (Self::Camel, Some(table)) => format!("public.\"{}\"", camel(table)),
            (Self::Camel, None) => format!("\"{}\"", camel(name)),
        }
    }
}

fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| format!("{name}{}{}", part[..1].to_uppercase(), &part[1..]))
}

/// The older database beside the new one.
struct Scene {
    home: Home,
    cluster: Cluster,
    spelling: Spelling,
}

impl Scene {
    fn new(spelling: Spelling) -> Self {
        let scene = Self {
            home: Home::new(),
            cluster: Cluster::start().with_database("mana").with_database("older"),
            spelling,
        };
        scene.older("CREATE SCHEMA auth; CREATE SCHEMA credits;");
        scene.older(TABLES);
        scene.run(&["migrate"]).succeeded();
        scene
    }

    fn older(&self, sql: &str) {
        self.cluster.owner("older").run(&self.spelling.of(sql));
    }

    fn launch(&self, launch: Launch) -> Launch {
        launch
            .env("DATABASE_URL", self.cluster.service_url("mana"))
            .env("DATABASE_OWNER_URL", self.cluster.owner_url("mana"))
            .env("MANA_SECRET_KEY", ROOT_SECRET)
    }

    fn run(&self, args: &[&str]) -> Done {
        self.launch(self.home.command(args)).run()
    }

    fn importing(&self, args: &[&str]) -> Launch {
        let launch = self.launch(self.home.command(&["import", "legacy", "--json"]));
        let launch = args.iter().fold(launch, Launch::arg);
        launch
            .env("LEGACY_DATABASE_URL", self.cluster.owner_url("older"))
            .env("LEGACY_AUTH_SECRET", OLDER_SECRET)
    }

    /// What an import says at its end, and all that it told on the way.
    fn import(&self, args: &[&str]) -> (Option<i32>, Value, Vec<Value>) {
        let done = self.importing(args).run();
        let mut lines: Vec<Value> =
            done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let report = lines.pop().unwrap_or_else(|| panic!("{done:?}"));
        (done.code, report["report"].clone(), lines)
    }

    fn serve(&self) -> Server {
        self.launch(self.home.serve()).env("BASE_URL", "http://localhost:3001").start()
    }

    fn rows(&self) -> Vec<(String, i64)> {
        self.cluster.owner("mana").rows(
            "SELECT relation, count FROM (
                 SELECT 'users' AS relation, count(*) FROM auth.users UNION ALL SELECT 'passwords', count(*) FROM auth.passwords
                 UNION ALL SELECT 'accounts', count(*) FROM auth.accounts UNION ALL SELECT 'factors', count(*) FROM auth.two_factor_auth
                 UNION ALL SELECT 'events', count(*) FROM auth.security_events UNION ALL SELECT 'wallets', count(*) FROM credits.balances
                 UNION ALL SELECT 'lines', count(*) FROM credits.transactions UNION ALL SELECT 'packages', count(*) FROM credits.package_versions
                 UNION ALL SELECT 'purchases', count(*) FROM credits.purchases UNION ALL SELECT 'answers', count(*) FROM credits.remembered_answers
                 UNION ALL SELECT 'mailboxes', count(*) FROM auth.bonus_mailboxes
             ) counts ORDER BY 1",
        )
    }
}

fn told(lines: &[Value], how: &str, id: &str) -> String {
    let of =
        lines.iter().filter(|line| line[how]["id"] == id).map(|line| line[how]["reason"].as_str().unwrap());
    of.collect::<Vec<_>>().join("; ")
}

fn moves_here(spelling: Spelling) {
    let scene = Scene::new(spelling);
    scene.older(ROWS);
    let empty = scene.rows();
    let (code, dry, _) = scene.import(&[]);
    assert_eq!(
        (code, &dry["isDryRun"], &dry["users"]["imported"]),
        (Some(0), &json!(true), &json!(5)),
        "{dry:#}"
    );
    assert_eq!(scene.rows(), empty, "a dry run changes nothing");

    let (code, report, lines) = scene.import(&["--apply"]);
    assert_eq!(code, Some(0), "{report:#} {lines:#?}");
    let counts = |part: &str, members: &[&str]| {
        members.iter().map(|member| report[part][*member].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(
        counts(
            "users",
            &[
                "imported",
                "refused",
                "withoutPassword",
                "links",
                "secondFactors",
                "recoveryCodes",
                "locked",
                "securityEvents"
            ]
        ),
        [5, 0, 0, 1, 1, 2, 1, 2]
    );
    assert_eq!(
        counts("credits", &["wallets", "transactions", "skipped", "retyped", "purchases", "answers"]),
        [5, 9, 1, 1, 3, 4],
        "{report:#}"
    );
    assert_eq!(
        (&report["oldMana"], &report["newMana"]),
        (&json!({"free": 253, "paid": 550}), &json!({"free": 253, "paid": 550}))
    );
    assert_eq!(report["source"]["liveSessions"], json!(1));
    assert!(told(&lines, "noted", "bob").contains("twitch"), "{lines:#?}");
    assert!(told(&lines, "noted", "bob").contains("Opening balance"), "{lines:#?}");
    assert!(told(&lines, "noted", "bob").contains("was paid, and no line gave its mana"), "{lines:#?}");
    assert!(told(&lines, "noted", "dan").contains("can't be opened"), "{lines:#?}");
    assert_eq!(told(&lines, "noted", ADA), "", "a history that adds up stays as it was");
    scene.cluster.books_are_true("mana");

    let again = scene.rows();
    let (code, report, _) = scene.import(&["--apply"]);
    assert_eq!(
        (code, &report["users"]["present"], &report["users"]["imported"]),
        (Some(0), &json!(5), &json!(0)),
        "{report:#}"
    );
    assert_eq!(scene.rows(), again, "what is here stays as it is");
    lives_on(&scene);
}

/// What people and apps find after the switch.
fn lives_on(scene: &Scene) {
    let server = scene.serve();
    let ada = server.login("ada@example.com");
    assert_eq!(ada.text("/user/id"), ADA);
    let token = ada.text("/accessToken");
    let balance = server.get_as(&token, "/api/v1/credits/balance").json();
    for (member, value) in
        [("balance", 520), ("freeCreditsRemaining", 3), ("totalEarned", 520), ("totalSpent", 152)]
    {
        assert_eq!(balance[member], json!(value), "{member} of {balance}");
    }
    let lines = server.get_as(&token, "/api/v1/credits/transactions").json();
    let seen: Vec<_> = lines
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|line| {
            let id = line["id"].as_str().unwrap();
            (
                id.chars().next_back().unwrap().to_string(),
                line["type"].as_str().unwrap(),
                line["amount"].as_i64().unwrap(),
                line["balanceAfter"].as_i64().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("1", "bonus", 150, 150),
        ("2", "purchase", 500, 650),
        ("3", "usage", -160, 490),
        ("4", "refund", 10, 500),
        ("5", "bonus", 5, 505),
        ("6", "bonus", 20, 525),
        ("8", "usage", -2, 523),
    ];
    assert_eq!(seen, expected.map(|(id, kind, amount, after)| (id.to_owned(), kind, amount, after)));
    let spend = &lines.as_array().unwrap()[4];
    assert_eq!(
        (
            &spend["description"],
            &spend["createdAt"],
            &spend["idempotencyKey"],
            &spend["metadata"],
            &spend["appId"]
        ),
        (
            &json!("A long answer"),
            &json!("2025-01-02T11:00:00Z"),
            &json!("k1"),
            &json!({"model": "large"}),
            &json!("chat")
        )
    );
    answers_again(&server, &token, &balance);
    accounts_live_on(&server);
    server.stop("TERM");
    scene.cluster.books_are_true("mana");
}

/// Requests that were answered by the older service come again.
fn answers_again(server: &Server, token: &str, balance: &Value) {
    let request = |key: &str, amount: i64, text: &str, metadata: Value| json!({"amount": amount, "appId": "chat", "description": text, "idempotencyKey": key, "metadata": metadata});
    let spend = |body: &Value| server.post_as(token, "/api/v1/credits/use", body);
    let replay = spend(&request("k1", 160, "A long answer", json!({"model": "large"})));
    assert_eq!((replay.status, replay.header("idempotency-hit")), (201, "true"), "{}", replay.body);
    assert!(replay.text("/transaction/id").ends_with("03"));
    assert_eq!(
        spend(&request("k1", 1, "Another", json!({}))).status,
        422,
        "it is known what was asked under the key"
    );
    let replay = spend(&request("k2", 2, "An answer", json!({"a": {"c": 2}, "b": 1})));
    assert_eq!(replay.header("idempotency-hit"), "true", "{}", replay.body);
    assert_eq!(server.get_as(token, "/api/v1/credits/balance").json(), *balance, "nothing was charged again");
    assert_eq!(spend(&request("k3", 1, "A new one", json!({}))).status, 201);

    let purchases = server.get_as(token, "/api/v1/credits/purchases").json();
    let states: Vec<_> =
        purchases.as_array().unwrap().iter().map(|order| order["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["pending", "completed"], "{purchases:#}");
    let packages = server.get("/api/v1/credits/packages").json();
    assert_eq!((packages.as_array().unwrap().len(), &packages[0]["credits"]), (1, &json!(600)), "{packages}");
}

/// People sign in as they did.
fn accounts_live_on(server: &Server) {
    let bob = server.login("bob@example.com");
    let bob = bob.text("/accessToken");
    let balance = server.get_as(&bob, "/api/v1/credits/balance").json();
    assert_eq!(
        (&balance["balance"], &balance["freeCreditsRemaining"]),
        (&json!(30), &json!(100)),
        "{balance}"
    );
    let events = server.get_as(&bob, "/api/v1/auth/security-events").body;
    assert!(
        events.contains("\"legacy\"") && events.contains("\"login\"") && events.contains("192.0.2.7"),
        "{events}"
    );

    let cyd = server.login("cyd@example.com");
    let body = json!({"challengeToken": cyd.text("/challengeToken"), "code": "Qwert-12345"});
    assert_eq!(server.post("/api/v1/auth/two-factor/verify", &body).status, 200, "an older code on paper");
    let cyd = server.login("cyd@example.com");
    let body = json!({"challengeToken": cyd.text("/challengeToken"), "code": totp(b"abcdefghijklmnopqrstuvwxyz012345")});
    assert_eq!(
        server.post("/api/v1/auth/two-factor/verify", &body).status,
        200,
        "the same authenticator app"
    );
    let dan = server.login("dan@example.com");
    assert_eq!(
        dan.json()["twoFactorRequired"],
        json!(true),
        "a factor that can't be opened is still asked for"
    );
    let eve = server.post("/api/v1/auth/login", &json!({"email": "eve@example.com", "password": PASSWORD}));
    assert_eq!(eve.status, 401, "a deleted account stays shut: {}", eve.body);

    let anew = server
        .post("/api/v1/auth/register", &json!({"email": "ada+again@example.com", "password": PASSWORD}));
    let anew =
        server.post("/api/v1/auth/login", &json!({"email": anew.text("/email"), "password": PASSWORD}));
    let balance = server.get_as(&anew.text("/accessToken"), "/api/v1/credits/balance").json();
    assert_eq!(balance["freeCreditsRemaining"], json!(0), "no second sign-up bonus for a mailbox: {balance}");
}

fn totp(secret: &[u8]) -> String {
    let totp = totp_rs::Builder::new().with_secret(totp_rs::Secret::from(secret)).build().unwrap();
    totp.generate(u64::try_from(SystemClock.now().unix_timestamp()).unwrap()).to_string()
}

#[test]
fn a_database_of_the_older_service_moves_here_and_everybody_goes_on() {
    moves_here(Spelling::Snake);
}

#[test]
fn so_does_one_that_spells_its_columns_the_other_way() {
    moves_here(Spelling::Camel);
}

/// Many users with short histories.
const CROWD: &str = "
INSERT INTO {T:users} (id, name, email) SELECT 'u' || n, 'U', 'u' || n || '@example.com' FROM generate_series(1, 3000) n;
INSERT INTO {T:balances} ({user_id}, balance, {free_credits_remaining}) SELECT 'u' || n, 0, 140 FROM generate_series(1, 3000) n;
INSERT INTO {T:transactions} ({user_id}, type, amount, {app_id}, description, {created_at})
    SELECT 'u' || n, 'bonus', 150, 'system', 'Signup bonus', '2025-01-01'::timestamptz FROM generate_series(1, 3000) n
    UNION ALL SELECT 'u' || n, 'usage', -1, 'chat', 'An answer', '2025-01-02'::timestamptz + line * interval '1 second'
    FROM generate_series(1, 3000) n, generate_series(1, 10) line;
";

#[test]
fn an_import_that_is_killed_goes_on_where_it_was() {
    let scene = Scene::new(Spelling::Snake);
    scene.older(CROWD);
    let imported = || {
        let rows: Vec<(i64, i64)> = scene.cluster.owner("mana").rows(
            "SELECT (SELECT count(*) FROM credits.imported_wallets), (SELECT count(*) FROM auth.users)",
        );
        rows[0]
    };
    let mut before = 0;
    for _ in 0..2 {
        let running = scene.importing(&["--apply"]).spawn();
        poll(Duration::from_mins(1), "more users than before", || (imported().0 > before).then_some(()));
        running.kill();
        // What it had sent may still be committed.
        let mut owner = scene.cluster.owner("mana");
        poll(Duration::from_secs(30), "the end of its connections", || {
            let left: Vec<(i64,)> =
                owner.rows("SELECT count(*) FROM pg_stat_activity WHERE usename = 'mana_service'");
            (left == [(0,)]).then_some(())
        });
        let (wallets, users) = imported();
        assert_eq!(wallets, users, "no account without its wallet, and the other way about");
        before = wallets;
    }
    assert!(before < 3000, "it was killed in the middle");
    let (code, report, _) = scene.import(&["--apply"]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["users"]["present"], json!(before));
    assert_eq!(imported(), (3000, 3000));
    assert_eq!(report["newMana"], json!({"free": 420_000, "paid": 0}));
    scene.cluster.books_are_true("mana");
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_the_rest_is_brought() {
    let scene = Scene::new(Spelling::Snake);
    scene.older(
        r#"
INSERT INTO {T:users} (id, name, email, role, {created_at}) VALUES ('a1', 'A', 'ada@example.com', 'user', '2025-01-01'), ('a2', 'A', 'ADA@example.com', 'user', '2025-01-01'),
    ('none', 'N', '', 'user', '2025-01-01'), ('root', 'R', 'root@example.com', 'admin', '2025-01-01'), ('a b', 'S', 'space@example.com', 'user', '2025-01-01'),
    ('debtor', 'D', 'debtor@example.com', 'user', '2025-01-01'), ('rich', 'R', 'rich@example.com', 'user', '2025-01-01'),
    ('odd', repeat('x', 300), 'odd@example.com', 'user', '2999-01-01'), ('taken', 'T', 'taken@example.com', 'user', '2025-01-01'), ('foreign', 'F', 'other@example.com', 'user', '2025-01-01');
INSERT INTO {T:passwords} VALUES ('odd', 'md5:nonsense');
INSERT INTO {T:balances} ({user_id}, balance, {free_credits_remaining}) SELECT id, 0, 10 FROM {T:users} WHERE id NOT IN ('debtor', 'odd');
INSERT INTO {T:balances} ({user_id}, balance, {free_credits_remaining}) VALUES ('debtor', -5, 0), ('odd', 100, 10);
INSERT INTO {T:transactions} ({user_id}, type, amount, {app_id}, description, metadata, {created_at}) VALUES
    ('rich', 'bonus', 9223372036854775807, 'system', 'Signup bonus', NULL, '2025-01-01'),
    ('odd', 'wonder', 50, E'a\tb', '', '[1, 2]', '2025-01-01'), ('odd', 'wonder', -20, 'x', repeat('y', 2000), NULL, '2025-01-02'),
    ('odd', 'bonus', 5, 'system', 'Daily free credits', NULL, '2025-02-01T08:00:00Z'), ('odd', 'bonus', 5, 'system', 'Daily free credits', NULL, '2025-02-01T08:00:01Z'),
    ('odd', 'bonus', 150, 'system', 'Signup bonus', NULL, '2025-01-03'), ('odd', 'bonus', 150, 'system', 'Signup bonus', NULL, '2025-01-04'),
    ('odd', 'usage', -5, 'chat', 'Tomorrow', NULL, now() + interval '30 days'), ('odd', 'purchase', 3, 'stripe', 'Of no order', '{"purchaseId": "gone"}', '2025-03-01'),
    ('odd', 'refund', 4, 'chat', 'Of no spend', NULL, '2025-03-02');
INSERT INTO {T:purchases} (id, {user_id}, credits, {price_euro_cents}, status) VALUES
    ('00000000-0000-4000-8000-0000000000c1', 'odd', 10, 0, 'completed'), ('00000000-0000-4000-8000-0000000000c2', 'odd', 10, 10, 'wondering');
"#,
    );
    scene.cluster.owner("mana").run(
        "INSERT INTO auth.users (id, email, created_at, updated_at) VALUES ('somebody', 'taken@example.com', now(), now()), ('foreign', 'mine@example.com', now(), now())",
    );
    let (code, dry, _) = scene.import(&[]);
    assert_eq!((code, dry["refused"].as_i64()), (Some(1), Some(8)), "{dry:#}");
    let (code, report, lines) = scene.import(&["--apply"]);
    assert_eq!((code, report["refused"].as_i64()), (Some(1), Some(8)), "{report:#}");
    for (id, reason) in [
        ("a2", "email is that of another user too"),
        ("none", "email must"),
        ("root", "--keep-roles"),
        ("a b", "id must be"),
        ("debtor", "-5 is no mana"),
        ("rich", "9223372036854775807"),
        ("taken", "email is that of another account, somebody"),
        ("foreign", "id is that of an account with another address"),
    ] {
        assert!(told(&lines, "refused", id).contains(reason), "{id}: {lines:#?}");
    }
    let odd = told(&lines, "noted", "odd");
    for note in ["its name", "must reset the password", "of the future", "c1", "c2", "Balance put right"] {
        assert!(odd.contains(note), "{note} in {odd}");
    }
    assert!(
        report["checks"].as_array().unwrap().iter().all(|check| check["ok"] == json!(true)),
        "{report:#}"
    );
    assert_eq!(
        (&report["oldMana"], &report["newMana"]),
        (&json!({"free": 20, "paid": 100}), &json!({"free": 20, "paid": 100}))
    );
    let texts: Vec<(String, String, String)> = scene.cluster.owner("mana").rows(
        "SELECT type, app_id, left(description, 40) FROM credits.transactions JOIN credits.balances USING (wallet_id) WHERE user_id = 'odd' ORDER BY transactions.sequence",
    );
    let of = |kind: &str, app: &str, text: &str| {
        texts.contains(&(kind.to_owned(), app.to_owned(), text.to_owned()))
    };
    assert!(
        of("adjustment", "legacy", "wonder") && of("bonus", "system", "Daily free credits, once more"),
        "{texts:#?}"
    );
    assert!(
        of("bonus", "system", "Signup bonus, once more") && of("purchase", "stripe", "Of no order"),
        "{texts:#?}"
    );
    assert!(of("adjustment", "chat", "Of no spend") && of("usage", "chat", "Tomorrow"), "{texts:#?}");
    scene.cluster.books_are_true("mana");

    // Somebody spends there although it was to be shut.
    scene.older("UPDATE {T:balances} SET balance = 99 WHERE {user_id} = 'odd'");
    let (code, report, lines) = scene.import(&["--apply"]);
    assert_eq!(code, Some(1));
    let failed: Vec<_> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["ok"] == json!(false))
        .map(|check| check["check"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["mana", "nothing moved meanwhile"], "{report:#}");
    assert!(told(&lines, "noted", "odd").contains("it has moved since"), "{lines:#?}");
}

#[test]
fn no_row_stops_the_others_and_columns_that_are_only_counted_may_be_missing() {
    let scene = Scene::new(Spelling::Snake);
    scene.older(ROWS);
    scene.older(
        r"
ALTER TABLE {T:packages} ALTER name DROP NOT NULL, ALTER {price_euro_cents} TYPE numeric, ALTER {sort_order} TYPE bigint;
ALTER TABLE {T:purchases} ALTER credits DROP NOT NULL, ALTER {price_euro_cents} TYPE numeric;
ALTER TABLE {T:balances} ALTER balance TYPE numeric;
ALTER TABLE {T:passwords} ALTER {hashed_password} DROP NOT NULL;
ALTER TABLE {T:sessions} DROP {expires_at}; ALTER TABLE {T:usage_stats} DROP {credits_used};
INSERT INTO {T:packages} (id, name, credits, {price_euro_cents}, {sort_order}) VALUES ('00000000-0000-4000-8000-0000000000a1', NULL, 10, 10, 0),
    ('00000000-0000-4000-8000-0000000000a2', 'Half a cent', 10, 9.5, 0), ('00000000-0000-4000-8000-0000000000a3', 'Last', 10, 10, 3000000000);
INSERT INTO {T:users} (id, name, email, {created_at}) VALUES ('nil', 'N', 'nil@example.com', '2025-01-01'), ('half', 'H', 'half@example.com', '2025-01-01'),
    ('late', 'L', 'late@example.com', '2025-01-01'), ('sold', 'S', 'sold@example.com', '2025-01-01');
INSERT INTO {T:purchases} (id, {user_id}, {package_id}, credits, {price_euro_cents}, status) VALUES
    ('00000000-0000-4000-8000-0000000000d1', 'nil', NULL, NULL, 100, 'completed'),
    ('00000000-0000-4000-8000-0000000000d2', 'sold', '00000000-0000-4000-8000-0000000000a1', 10, 10, 'completed');
INSERT INTO {T:balances} ({user_id}, balance, {free_credits_remaining}) VALUES ('nil', 7, 1), ('half', 1.5, 2), ('late', 3, 4), ('sold', 10, 0);
INSERT INTO {T:passwords} VALUES ('dan', NULL);
INSERT INTO {T:transactions} (id, {user_id}, type, amount, {app_id}, description, {created_at}) VALUES
    ('00000000-0000-4000-8000-0000000000e1', 'late', 'bonus', 3, 'gifts', 'Of a far future', '20000-01-01');
",
    );
    let (code, report, lines) = scene.import(&["--apply"]);
    assert_eq!((code, &report["refused"]), (Some(1), &json!(6)), "{report:#} {lines:#?}");
    for (id, reason) in [
        ("00000000-0000-4000-8000-0000000000a1", "invalid type: null"),
        ("00000000-0000-4000-8000-0000000000a2", "9.5"),
        ("00000000-0000-4000-8000-0000000000a3", "3000000000"),
        ("nil", "the row 00000000-0000-4000-8000-0000000000d1 of purchases"),
        ("half", "1.5"),
        ("late", "the row 00000000-0000-4000-8000-0000000000e1 of transactions"),
    ] {
        assert!(told(&lines, "refused", id).contains(reason), "{id}: {lines:#?}");
    }
    assert_eq!(
        (&report["users"]["imported"], &report["users"]["withoutPassword"], &report["credits"]["purchases"]),
        (&json!(6), &json!(1), &json!(4)),
        "all but who are refused; the one who never had a password has none: {report:#}"
    );
    assert_eq!((&report["source"]["liveSessions"], &report["source"]["used"]), (&json!(1), &json!(0)));
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["ok"] == json!(true)), "{report:#}");
    scene.cluster.books_are_true("mana");
}

#[test]
fn a_database_that_is_not_the_older_services_is_refused_in_one_sentence() {
    let scene = Scene::new(Spelling::Snake);
    scene.older("ALTER TABLE {T:users} DROP COLUMN email; ALTER TABLE {T:purchases} DROP COLUMN credits; DROP TABLE {T:transactions};");
    let refused = scene.importing(&[]).run().sentence();
    assert!(!refused.contains('?'), "{refused}");
    for missing in [
        "the column email of auth.users",
        "the table credits.transactions",
        "the column credits of credits.purchases",
    ] {
        assert!(refused.contains(missing), "{refused}");
    }
    let itself =
        scene.importing(&[]).env("LEGACY_DATABASE_URL", scene.cluster.owner_url("mana")).run().sentence();
    assert!(itself.contains("database of this program"), "{itself}");
    let nowhere =
        scene.importing(&[]).env("LEGACY_DATABASE_URL", "postgres://nobody:secret@127.0.0.1:1/x").run();
    assert!(nowhere.code == Some(1) && !nowhere.stderr.contains("secret"), "{nowhere:?}");
    let nowhere = nowhere.sentence();
    assert!(nowhere.contains("127.0.0.1:1: connection refused. Check LEGACY_DATABASE_URL"), "{nowhere}");
    let unnamed = scene.importing(&[]).env("LEGACY_DATABASE_URL", "").run().sentence();
    assert!(unnamed.contains("LEGACY_DATABASE_URL") && !unnamed.contains("--from"), "{unnamed}");
}
