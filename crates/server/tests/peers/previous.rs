//! The release before this one, on the schema of this one. While its servers are under load the new binary migrates. They go on, with all
//! that clients do, until servers of this release have taken their places; nobody notices, and no spend is lost or doubled.
//! `cargo xtask previous` builds that release and starts this.

use crate::deployment::{Deployment, own_binary};
use crate::http::{self, PASSWORD, Reply};
use crate::process::{Server, poll};
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

/// Two for each wallet.
const CLIENTS: usize = 4;
const SOON: Duration = Duration::from_mins(1);
/// Until all servers know that a session has ended: a second, and what a busy machine may add.
const REVOCATION: Duration = Duration::from_secs(5);
const USE: &str = "/api/v1/credits/use";
const SETTINGS: [(&str, &str); 6] = [
    ("CREDITS_SIGNUP_BONUS", "1000000000"),
    ("RATE_LIMIT_MAX", "0"),
    ("HASHING_WAIT_SECONDS", "30"),
    ("DATABASE_WAIT_SECONDS", "20"),
    ("DRAIN_SECONDS", "3"),
    // A busy machine is slower than what is told of as an error.
    ("REDIS_WAIT_MS", "5000"),
];

/// Asks, and gets the answer that it must be.
fn ask(port: u16, request: &str, token: &str, body: &Value, status: u16) -> Reply {
    let (method, path) = request.split_once(' ').unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let reply = http::exchange(port, method, path, token, &body);
    assert!(reply.as_ref().is_ok_and(|reply| reply.status == status), "{request}: {reply:?}");
    reply.unwrap()
}

fn get(port: u16, token: &str, path: &str) -> Value {
    ask(port, &format!("GET {path}"), token, &Value::Null, 200).json()
}

fn spend(port: u16, token: &str, body: &Value) -> Reply {
    ask(port, &format!("POST {USE}"), token, body, 201)
}

fn charge(amount: u64) -> Value {
    json!({"amount": amount, "appId": "chat", "description": "An answer"})
}

fn charge_under(key: &str, amount: u64) -> Value {
    let mut body = charge(amount);
    body["idempotencyKey"] = json!(key);
    body
}

fn hold(port: u16, person: &Person, amount: u64) -> String {
    ask(port, "POST /api/v1/credits/holds", &person.access, &charge(amount), 201).text("/hold/id")
}

/// All of it.
fn end_hold(port: u16, person: &Person, hold: &str, end: &str, status: u16) {
    ask(port, &format!("POST /api/v1/credits/holds/{hold}/{end}"), &person.access, &json!({}), status);
}

/// As the app with this key, for somebody.
fn as_app(port: u16, key: &str, path: &str, person: &Person, mut body: Value) -> Reply {
    body["userId"] = json!(person.id);
    let body = body.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\nx-service-key: {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let reply = http::receive(stream).unwrap();
    assert_eq!(reply.status, 201, "{path}: {reply:?}");
    reply
}

/// Somebody who is signed in.
#[derive(Debug)]
struct Person {
    email: String,
    id: String,
    access: String,
    refresh: String,
}

impl Person {
    fn register(port: u16, name: &str) -> Self {
        let email = format!("{name}@example.com");
        let body = json!({"email": email, "password": PASSWORD});
        ask(port, "POST /api/v1/auth/register", "", &body, 201);
        Self::sign_in(port, &email)
    }

    fn sign_in(port: u16, email: &str) -> Self {
        let body = json!({"email": email, "password": PASSWORD});
        let login = ask(port, "POST /api/v1/auth/login", "", &body, 200);
        let (access, refresh) = (login.text("/accessToken"), login.text("/refreshToken"));
        let id = get(port, &access, "/api/v1/auth/me")["id"].as_str().unwrap().to_owned();
        Self { email: email.to_owned(), id, access, refresh }
    }

    /// Takes the next tokens, and gives the refresh token from before.
    fn renew(&mut self, port: u16) -> String {
        let reply = ask(port, "POST /api/v1/auth/refresh", "", &json!({"refreshToken": self.refresh}), 200);
        self.access = reply.text("/accessToken");
        std::mem::replace(&mut self.refresh, reply.text("/refreshToken"))
    }

    fn is_known(&self, port: u16) -> bool {
        let reply = http::exchange(port, "GET", "/api/v1/auth/me", &self.access, "").unwrap();
        assert!([200, 401].contains(&reply.status), "{reply:?}");
        reply.status == 200
    }

    /// Signs out at one server; the other hears of it.
    fn signs_out(&self, [here, there]: [u16; 2]) {
        assert!(self.is_known(here) && self.is_known(there));
        ask(here, "POST /api/v1/auth/logout", &self.access, &Value::Null, 200);
        assert!(!self.is_known(here), "at once where it was said");
        poll(REVOCATION, "a refusal by the other server", || (!self.is_known(there)).then_some(()));
        for port in [here, there] {
            ask(port, "POST /api/v1/auth/refresh", "", &json!({"refreshToken": self.refresh}), 401);
        }
    }

    fn spent(&self, port: u16) -> u64 {
        get(port, &self.access, "/api/v1/credits/balance")["totalSpent"].as_u64().unwrap()
    }
}

/// The app charges 10 at one server and gives 4 back at the other.
fn charge_and_refund([here, there]: [u16; 2], key: &str, person: &Person) {
    let charged = as_app(here, key, USE, person, charge(10));
    let mut refund = charge(4);
    refund["transactionId"] = charged.json()["transaction"]["id"].clone();
    as_app(there, key, "/api/v1/credits/refund", person, refund);
}

/// All that clients do with a server, from the first day of an account to its last.
fn tour(port: u16, key: &str, name: &str) {
    let mut ada = Person::register(port, name);
    let valid = ask(port, "POST /api/v1/auth/validate", "", &json!({"token": ada.access}), 200);
    assert_eq!(valid.json()["valid"], true, "{valid:?}");
    let before = ada.renew(port);
    let replayed = ask(port, "POST /api/v1/auth/refresh", "", &json!({"refreshToken": before}), 200);
    assert_eq!(replayed.text("/refreshToken"), ada.refresh, "of two that raced, both get the same");
    ask(port, "POST /api/v1/auth/profile", &ada.access, &json!({"name": "Ada"}), 201);
    assert_eq!(get(port, &ada.access, "/api/v1/auth/me")["name"], "Ada");

    let spent = spend(port, &ada.access, &charge_under("a", 3));
    assert_eq!(spend(port, &ada.access, &charge_under("a", 3)).body, spent.body, "a retry finds it");
    charge_and_refund([port, port], key, &ada);
    as_app(port, key, "/api/v1/internal/credits/grants", &ada, charge(50));
    for end in ["capture", "release"] {
        end_hold(port, &ada, &hold(port, &ada, 5), end, 201);
    }
    assert_eq!(ada.spent(port), 3 + 10 - 4 + 5);
    let lines = get(port, &ada.access, "/api/v1/credits/transactions");
    assert_eq!(
        lines.as_array().unwrap().len(),
        6,
        "the bonus, two spends, a refund, a gift, a capture: {lines}"
    );
    ask(port, "PUT /api/v1/credits/low-balance", &ada.access, &json!({"below": 100, "mail": true}), 200);
    for path in ["credits/usage", "credits/low-balance", "auth/sessions", "auth/security-events"] {
        get(port, &ada.access, &format!("/api/v1/{path}"));
    }
    ada.signs_out([port, port]);
    let ada = Person::sign_in(port, &ada.email);
    ask(port, "DELETE /api/v1/auth/account", &ada.access, &json!({"password": PASSWORD}), 200);
    let login = json!({"email": ada.email, "password": PASSWORD});
    ask(port, "POST /api/v1/auth/login", "", &login, 401);
}

/// What one server does is so for the other.
fn cross([here, there]: [u16; 2], key: &str, name: &str) {
    let mut ada = Person::register(here, name);
    assert!(ada.is_known(there), "a token of one is good at the other");
    let before = ada.renew(there);
    let replayed = ask(here, "POST /api/v1/auth/refresh", "", &json!({"refreshToken": before}), 200);
    assert_eq!(replayed.text("/refreshToken"), ada.refresh);
    ada.renew(here);
    ada.renew(there);

    let spent = spend(here, &ada.access, &charge_under("a", 3));
    let again = spend(there, &ada.access, &charge_under("a", 3));
    assert_eq!((again.header("idempotency-hit"), &again.body), ("true", &spent.body));
    ask(there, &format!("POST {USE}"), &ada.access, &charge_under("a", 4), 422);
    let hold = hold(here, &ada, 5);
    assert_eq!(get(there, &ada.access, &format!("/api/v1/credits/holds/{hold}"))["status"], "open");
    end_hold(there, &ada, &hold, "capture", 201);
    end_hold(here, &ada, &hold, "release", 409);
    charge_and_refund([here, there], key, &ada);
    assert_eq!([here, there].map(|port| ada.spent(port)), [3 + 5 + 10 - 4; 2]);
    ada.signs_out([here, there]);
}

/// Tells the clients that it is over, whatever becomes of who watches them: else the test would wait for them for ever.
struct Load<'a> {
    is_over: &'a AtomicBool,
    rounds: &'a AtomicU64,
}

impl Load<'_> {
    /// Waits until the clients have come round some more times, or one has failed.
    fn goes_on<T>(&self, clients: &[ScopedJoinHandle<'_, T>]) {
        let enough = self.rounds.load(Ordering::Relaxed).saturating_add(20);
        poll(SOON, "more rounds of the clients", || {
            let is_done = self.rounds.load(Ordering::Relaxed) >= enough;
            (is_done || clients.iter().any(ScopedJoinHandle::is_finished)).then_some(())
        });
        assert!(!clients.iter().any(ScopedJoinHandle::is_finished), "a client has failed");
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Goes round until it is over; every answer must be the right one. Gives how much was spent.
fn live(port: u16, person: &mut Person, name: &str, is_over: &AtomicBool, rounds: &AtomicU64) -> u64 {
    let mut spent = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        let body = charge_under(&format!("{name}-{spent}"), 1);
        let first = spend(port, &person.access, &body);
        assert_eq!(spend(port, &person.access, &body).body, first.body);
        end_hold(port, person, &hold(port, person, 2), "capture", 201);
        spent = spent.saturating_add(3);
        person.renew(port);
        for path in ["auth/me", "credits/balance", "credits/transactions?limit=5"] {
            get(port, &person.access, &format!("/api/v1/{path}"));
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    spent
}

/// A server stops as in any replacement, and has refused nobody.
fn ends_well(server: &Server) {
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("ledger_commands_total") && !metrics.contains("status=\"50"), "{metrics}");
    // While it stops, it tells balancers that it is not ready.
    let log = server.stderr();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    server.signal("TERM");
    assert_eq!(server.await_end(SOON), Some(0), "{}", server.stderr());
}

/// A key with which the app charges, gives and gives back, made by the binary of a release.
fn service_key(deployment: &Deployment, binary: &Path) -> String {
    let create = ["service-keys", "create", "--name", "Chat", "--app", "chat", "--scope"];
    let create =
        [&create[..], &["credits:spend,credits:read,credits:grant,credits:refund", "--json"]].concat();
    let made: Value =
        serde_json::from_str(&deployment.command_of(binary, &create).run().succeeded()).unwrap();
    made["key"].as_str().unwrap().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "how cargo xtask tells a test its plan")]
fn binary_of_the_release_before() -> PathBuf {
    std::env::var_os("MANA_PREVIOUS_BINARY").expect("cargo xtask previous names the binary").into()
}

#[test]
#[ignore = "needs a binary of the release before: cargo xtask previous"]
fn the_release_before_goes_on_while_this_one_takes_its_place() {
    let (old, new) = (binary_of_the_release_before(), own_binary());
    let deployment = Deployment::start_release(&old, 10, &SETTINGS);
    let (port, ports) = (deployment.port(), [0, 1].map(|number| deployment.server_port(number)));
    // One of the two past PgBouncer: it keeps its statements prepared while tables change below them.
    deployment.take_server(1).kill();
    let direct = deployment.direct_url(deployment.postgres_port(), "mana");
    deployment.put_server(1, deployment.server_of(&old, 1).env("DATABASE_URL", &direct).start());
    let schema = || -> i64 {
        let newest = "SELECT max(version) FROM mana.migrations";
        deployment.superuser("mana").rows::<(i64,)>(newest)[0].0
    };
    let schema_before = schema();
    // A release that leaves the comment for others also reads it.
    let comment = "SELECT obj_description('mana.migrations'::regclass, 'pg_class') IS NOT NULL";
    let says_who_may_serve = deployment.superuser("mana").rows::<(bool,)>(comment)[0].0;

    let key = service_key(&deployment, &old);
    let mut ada = Person::register(ports[0], "ada");
    let remembered = spend(ports[1], &ada.access, &charge_under("before", 7));
    let [captured, released] = [0, 1].map(|_| hold(ports[0], &ada, 20));
    let people = ["bob", "eve"].map(|name| Person::register(port, name));
    let of_both = people.iter().cycle().take(CLIENTS);
    let mut sessions: Vec<_> = of_both.map(|person| Person::sign_in(port, &person.email)).collect();
    let (is_over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let spent: Vec<u64> = thread::scope(|scope| {
        let load = Load { is_over: &is_over, rounds: &rounds };
        let clients: Vec<_> = sessions
            .iter_mut()
            .enumerate()
            .map(|(number, person)| {
                let (is_over, rounds) = (&is_over, &rounds);
                scope.spawn(move || live(port, person, &format!("client{number}"), is_over, rounds))
            })
            .collect();
        load.goes_on(&clients);
        let migrate = deployment.command(&["migrate"]).env("DATABASE_OWNER_URL", deployment.owner_url());
        migrate.run().succeeded();
        eprintln!("from schema {schema_before} to {} under load", schema());
        load.goes_on(&clients);

        for (number, port) in ports.iter().enumerate() {
            tour(*port, &key, &format!("tour{number}"));
        }
        cross(ports, &key, "crossing0");
        ada.renew(ports[0]);
        assert_eq!(spend(ports[0], &ada.access, &charge_under("before", 7)).body, remembered.body);
        end_hold(ports[1], &ada, &captured, "capture", 201);

        ends_well(&deployment.take_server(1));
        load.goes_on(&clients);
        // As a machine does that went down meanwhile.
        let restarted = deployment.server_of(&old, 1);
        if schema() == schema_before || says_who_may_serve {
            deployment.put_server(1, restarted.start());
            load.goes_on(&clients);
            ends_well(&deployment.take_server(1));
        } else {
            // From before there was a way to say so. What runs goes on.
            let refused = restarted.run().sentence();
            assert!(refused.contains("newer"), "{refused}");
        }
        deployment.put_server(1, deployment.server_of(&new, 1).start());
        load.goes_on(&clients);
        tour(ports[0], &key, "tour2");
        tour(ports[1], &key, "tour3");
        cross(ports, &key, "crossing1");
        cross([ports[1], ports[0]], &key, "crossing2");
        ada.renew(ports[1]);
        assert_eq!(spend(ports[1], &ada.access, &charge_under("before", 7)).body, remembered.body);
        end_hold(ports[1], &ada, &released, "release", 201);

        ends_well(&deployment.take_server(0));
        load.goes_on(&clients);
        deployment.put_server(0, deployment.server_of(&new, 0).start());
        load.goes_on(&clients);
        cross(ports, &key, "crossing3");
        drop(load);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    eprintln!("{} rounds, not one answer another than it had to be", rounds.load(Ordering::Relaxed));
    for (number, person) in people.iter().enumerate() {
        let all: u64 = spent.iter().skip(number).step_by(people.len()).sum();
        assert_eq!(ports.map(|port| person.spent(port)), [all; 2], "each once");
    }
    assert_eq!(ada.spent(ports[0]), 7 + 20);
    deployment.books_are_true();
    deployment.command(&["doctor"]).run().succeeded();
    for number in [0, 1] {
        ends_well(&deployment.take_server(number));
    }
}
