//! Whether the time of an answer tells if an address has an account.

use crate::connection::{Connection, post};
use crate::error::BenchError;
use crate::report::{head, row};
use crate::stage::{Stage, StageArguments};
use crate::tally::as_number;
use std::time::{Duration, Instant};

/// How much to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    stage: StageArguments,
    /// Answers of each kind
    #[arg(long, default_value_t = 500)]
    samples: usize,
    /// Answers of each kind where passwords of several kinds were imported
    #[arg(long, default_value_t = 200)]
    imported_samples: usize,
    /// Seconds after which everything is stopped, done or not
    #[arg(long, default_value_t = 1800)]
    pub(crate) time_limit_seconds: u64,
}

/// A route that must answer alike whoever has an account.
struct Route {
    name: &'static str,
    path: &'static str,
    /// What is sent for an address.
    body: fn(&str) -> String,
    status: u16,
}

const ROUTES: [Route; 2] = [
    Route {
        name: "sign-in with a wrong password",
        path: "/api/v1/auth/login",
        body: |email| format!(r#"{{"email":"{email}","password":"not the password"}}"#),
        status: 401,
    },
    Route {
        name: "forgotten password",
        path: "/api/v1/auth/forgot-password",
        body: |email| format!(r#"{{"email":"{email}"}}"#),
        status: 200,
    },
];

/// Accounts of one kind, by the number of one.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    email: fn(usize) -> String,
}

const UNKNOWN: Kind = Kind { name: "none", email: |number| format!("nobody{number}@example.com") };
const OURS: Kind = Kind { name: "of ours", email: |number| format!("known{number}@example.com") };
/// As other programs hash: the scheme, as the database names it, and a hash of nobody's password.
const IMPORTED: [(Kind, &str, &str); 3] = [
    (
        Kind { name: "imported, bcrypt of cost 10", email: |number| format!("bcrypt{number}@example.com") },
        "bcrypt:10",
        "$2b$10$.....................................................",
    ),
    (
        Kind {
            name: "imported, Better Auth's scrypt",
            email: |number| format!("scrypt{number}@example.com"),
        },
        "scrypt:14:16:1:64",
        "00000000000000000000000000000000:00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        Kind { name: "imported, PBKDF2 of 600,000", email: |number| format!("pbkdf{number}@example.com") },
        "pbkdf2-sha256:600000:32",
        "pbkdf2_sha256$600000$salt$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ),
];

/// Times addresses with and without an account in turn, each address once, over one connection, and prints the medians. Then
/// the same where accounts of several kinds were imported.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let stage = Stage::build(&arguments.stage, &[("SIGN_IN_FAILURES_PER_HOUR", "1000000")]).await?;
    let mut connection = Connection::open(stage.server.address).await?;
    register(&mut connection, OURS, arguments.samples.max(arguments.imported_samples)).await?;
    head(
        "Accounts against none",
        &["route", "account", "samples each", "median ms", "without an account: median ms", "difference"],
    );
    for route in &ROUTES {
        measure(&mut connection, route, &[OURS], arguments.samples).await?;
    }
    let mut owner = stage.postgres.owner().await?;
    for (kind, scheme, hash) in IMPORTED {
        register(&mut connection, kind, arguments.imported_samples).await?;
        let of_kind = (kind.email)(0).replace("0@", "%@");
        let ids = "SELECT id FROM auth.users WHERE email LIKE $1";
        let replace = format!("UPDATE auth.passwords SET hash = $2 WHERE user_id IN ({ids})");
        sqlx::query(sqlx::AssertSqlSafe(replace)).bind(&of_kind).bind(hash).execute(&mut owner).await?;
        let note =
            format!("INSERT INTO auth.imported_passwords (user_id, scheme) SELECT id, $2 FROM ({ids}) users");
        sqlx::query(sqlx::AssertSqlSafe(note)).bind(&of_kind).bind(scheme).execute(&mut owner).await?;
    }
    let [sign_in, _] = &ROUTES;
    let kinds: Vec<_> = std::iter::once(OURS).chain(IMPORTED.map(|(kind, _, _)| kind)).collect();
    measure(&mut connection, sign_in, &kinds, arguments.imported_samples).await
}

async fn register(connection: &mut Connection, kind: Kind, count: usize) -> Result<(), BenchError> {
    for number in 0..count {
        let email = (kind.email)(number);
        let body = format!(r#"{{"email":"{email}","password":"correct horse battery"}}"#);
        expect(connection, "/api/v1/auth/register", &body, 201).await?;
    }
    Ok(())
}

/// One answer of each kind after the other, and of none; each time another one begins.
async fn measure(
    connection: &mut Connection,
    route: &Route,
    kinds: &[Kind],
    samples: usize,
) -> Result<(), BenchError> {
    eprintln!("measuring: {}, {} kinds of accounts", route.name, kinds.len());
    let all: Vec<_> = std::iter::once(UNKNOWN).chain(kinds.iter().copied()).collect();
    // The first answers of a kind prepare statements.
    for number in 0..20 {
        for kind in &all {
            let email = (kind.email)(number % samples.max(1));
            expect(connection, route.path, &(route.body)(&email), route.status).await?;
        }
    }
    let mut times = vec![Vec::new(); all.len()];
    for number in 0..samples {
        let mut turn: Vec<_> = all.iter().zip(&mut times).collect();
        let length = turn.len();
        turn.rotate_left(number % length);
        for (kind, times) in turn {
            let body = (route.body)(&(kind.email)(number));
            times.push(expect(connection, route.path, &body, route.status).await?);
        }
    }
    let mut medians = times.into_iter().map(median);
    let without = medians.next().unwrap_or_default();
    for (kind, with) in kinds.iter().zip(medians) {
        row(&[
            route.name.to_owned(),
            kind.name.to_owned(),
            samples.to_string(),
            format!("{with:.3}"),
            format!("{without:.3}"),
            format!("{:+.1} %", (with / without - 1.0) * 100.0),
        ]);
    }
    Ok(())
}

/// Sends a request and says how long the expected answer took.
async fn expect(
    connection: &mut Connection,
    path: &str,
    body: &str,
    status: u16,
) -> Result<Duration, BenchError> {
    let request = post(path, body);
    let begun = Instant::now();
    let answer = connection.exchange(&request).await?;
    let took = begun.elapsed();
    if answer.status == status { Ok(took) } else { Err(BenchError::unexpected(path, answer)) }
}

/// In milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    as_number(u64::try_from(middle.as_nanos()).unwrap_or(u64::MAX)) / 1e6
}
