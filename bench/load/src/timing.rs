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
    /// Seconds after which everything is stopped, done or not
    #[arg(long, default_value_t = 600)]
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

/// Times known and unknown addresses in turn, each address once, over one connection, and prints the medians.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let stage = Stage::build(&arguments.stage, &[("SIGN_IN_FAILURES_PER_HOUR", "1000000")]).await?;
    let mut connection = Connection::open(stage.server.address).await?;
    for number in 0..arguments.samples {
        let body = format!(r#"{{"email":"{}","password":"correct horse battery"}}"#, known(number));
        expect(&mut connection, "/api/v1/auth/register", &body, 201).await?;
    }
    head(
        "Known against unknown addresses",
        &["route", "samples each", "known: median ms", "unknown: median ms", "difference"],
    );
    for route in ROUTES {
        eprintln!("measuring: {}", route.name);
        // The first answers of a kind prepare statements.
        for number in 0..20 {
            for email in [format!("warm{number}@example.com"), known(number % arguments.samples)] {
                expect(&mut connection, route.path, &(route.body)(&email), route.status).await?;
            }
        }
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for number in 0..arguments.samples {
            let mut kinds = [(known(number), &mut with), (unknown(number), &mut without)];
            if number % 2 == 1 {
                kinds.reverse();
            }
            for (email, times) in kinds {
                let body = (route.body)(&email);
                times.push(expect(&mut connection, route.path, &body, route.status).await?);
            }
        }
        let (with, without) = (median(with), median(without));
        row(&[
            route.name.to_owned(),
            arguments.samples.to_string(),
            format!("{with:.3}"),
            format!("{without:.3}"),
            format!("{:+.1} %", (with / without - 1.0) * 100.0),
        ]);
    }
    Ok(())
}

fn known(number: usize) -> String {
    format!("known{number}@example.com")
}

fn unknown(number: usize) -> String {
    format!("nobody{number}@example.com")
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
