//! What becomes of the rates with more replicas, a pooler, Redis, idle sessions, ten million rows, and while these are pruned.
//!
//! What is compared is measured in turn, round after round, so that a machine that is busy for a while is so for both sides.

mod beside;
mod bulk;
mod growth;
mod idle;
mod path;
mod people;
mod retention;
mod rounds;

use crate::error::BenchError;
use crate::load::Times;
use crate::stage::StageArguments;
use clap::ValueEnum;

/// What to measure, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    stage: StageArguments,
    /// Which parts; all when not given
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Seconds of each load in each round, after a fifth of that to warm up
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds in which both sides are measured, one after the other
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Sessions, security events and transactions that are added, each
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    rows: u64,
    /// Users whose wallets are charged
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    users: u32,
    /// Users that sign in and refresh
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    registered: u32,
    /// Sessions that are remembered when memory is measured
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1_000..=100_000))]
    idle_sessions: u32,
    /// Idle connections when memory is measured
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(100..=20_000))]
    idle_connections: u32,
    /// Seconds after which everything is stopped, done or not
    #[arg(long, default_value_t = 10_800)]
    pub(crate) time_limit_seconds: u64,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One server and two
    Replicas,
    /// Directly at the database and by way of PgBouncer
    Pooler,
    /// Limits counted in the process and in Redis
    Redis,
    /// What lies still: bytes of users with a session, memory of remembered sessions and of connections
    Idle,
    /// The hot paths on small tables and on grown ones
    Growth,
    /// The hot paths while what is past its time is deleted
    Retention,
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn times(&self) -> Times {
        Times::of(self.seconds)
    }
}

/// Measures what is wanted and prints it.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), BenchError> {
    if arguments.wants(Part::Replicas) {
        beside::measure_replicas(arguments).await?;
    }
    if arguments.wants(Part::Pooler) {
        beside::measure_pooler(arguments).await?;
    }
    if arguments.wants(Part::Redis) {
        beside::measure_redis(arguments).await?;
    }
    if arguments.wants(Part::Idle) {
        idle::measure(arguments).await?;
    }
    if arguments.wants(Part::Growth) {
        growth::measure(arguments).await?;
    }
    if arguments.wants(Part::Retention) {
        retention::measure(arguments).await?;
    }
    Ok(())
}
