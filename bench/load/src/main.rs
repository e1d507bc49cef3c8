//! Measures the service under load, beside the limits of the machine, in one run and on the same cores.
//!
//! `accounts`, `credits`, `scale` and `timing` each start a durable PostgreSQL of their own and the release binary's `serve` on it, fill them, measure,
//! print tables in Markdown on standard output, and stop everything, whatever happens. `reference` is a server that does one
//! thing and nothing of the product's; a measurement starts it as a child.
#![expect(
    clippy::float_arithmetic,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement divides what it counted and prints it; this crate is never part of the product"
)]

mod accounts;
mod connection;
mod credits;
mod error;
mod limits;
mod load;
mod neighbours;
mod observed;
mod postgres;
mod processors;
mod progress;
mod reference;
mod report;
mod scale;
mod script;
mod seed;
mod stage;
mod storage;
mod tally;
mod timing;
mod wallets;
mod yardstick;

use clap::{Parser, Subcommand};
use error::BenchError;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Measures the service under load
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Validate, refresh and sign-in, beside the limits of the machine
    Accounts(accounts::Arguments),
    /// Spends, balances and histories, beside what PostgreSQL alone can do
    Credits(credits::Arguments),
    /// Two replicas, a pooler, Redis, idle sessions, tables of ten million rows, and pruning them
    Scale(scale::Arguments),
    /// Sign-in and forgotten password, of addresses with and without an account
    Timing(timing::Arguments),
    /// A server that does one thing, to compare with
    #[command(hide = true)]
    Reference(reference::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Accounts(arguments) => run(arguments.time_limit_seconds, accounts::run(&arguments)),
        Command::Credits(arguments) => run(arguments.time_limit_seconds, credits::run(&arguments)),
        Command::Scale(arguments) => run(arguments.time_limit_seconds, scale::run(&arguments)),
        Command::Timing(arguments) => run(arguments.time_limit_seconds, timing::run(&arguments)),
        Command::Reference(arguments) => reference::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}.");
            ExitCode::FAILURE
        }
    }
}

/// On one thread: the load shares the cores with what it loads, and a second thread would only take more of them.
fn run(
    time_limit_seconds: u64,
    measurement: impl Future<Output = Result<(), BenchError>>,
) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let limit = Duration::from_secs(time_limit_seconds);
        // What is dropped here stops its processes.
        tokio::select! {
            outcome = measurement => outcome,
            () = tokio::time::sleep(limit) => Err(BenchError::TimeLimit(limit)),
            _ = interrupt.recv() => Err(BenchError::Stopped),
            _ = terminate.recv() => Err(BenchError::Stopped),
        }
    })
}
