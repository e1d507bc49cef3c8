//! Spends, balances and histories, beside what PostgreSQL alone can do.

use crate::connection::{Connection, get, get_as};
use crate::error::BenchError;
use crate::limits;
use crate::load::{self, Times};
use crate::observed::{self, Observed};
use crate::report::{self, LATENCIES, PROCESSORS, head, row, whole};
use crate::script::{Repeat, Script as _, Spend};
use crate::seed::{self, Session};
use crate::stage::{Stage, StageArguments};
use crate::storage::{self, Table};
use crate::tally::{Tally, as_number};
use crate::wallets::{self, Signer};
use crate::yardstick;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use clap::ValueEnum;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// What to measure, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    stage: StageArguments,
    /// Which parts; all when not given
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Seconds that each load is measured, after a fifth of that to warm up
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Users with a wallet
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users: u32,
    /// Lines of the long history
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    rows: u64,
    /// Seconds after which everything is stopped, done or not
    #[arg(long, default_value_t = 3600)]
    pub(crate) time_limit_seconds: u64,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What the machine can do
    Limits,
    /// Spends of all users in turn, and what they take in the database
    Spends,
    /// Spends of one user
    Hot,
    /// Balances read
    Balance,
    /// Spends at a fixed rate
    Open,
    /// Spends by pgbench, without the service
    Pgbench,
    /// Pages of a long history
    History,
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn wants_spread(&self) -> bool {
        [Part::Spends, Part::Balance, Part::Open].iter().any(|&part| self.wants(part))
    }
}

/// Registered users: one whose wallet is charged by all, and one with a long history.
const REGISTERED: usize = 2;
/// As much as may be given, so that no spend is refused.
const BONUS: (&str, &str) = ("CREDITS_SIGNUP_BONUS", "1000000000");

const SPREAD_CONNECTIONS: [usize; 3] = [1, 32, 256];
const HOT_CONNECTIONS: [usize; 2] = [32, 256];
const BALANCE_CONNECTIONS: [usize; 2] = [32, 256];
const OPEN_CONNECTIONS: usize = 256;
/// The last is more than can be done.
const OPEN_SHARES: [u32; 5] = [25, 50, 75, 90, 120];
const REFERENCE_CONNECTIONS: usize = 64;

const HISTORY_CONNECTIONS: usize = 8;
/// Pages that are read in turn at each depth, one after another.
const HISTORY_PAGES: u64 = 100;
const PAGE_LINES: u64 = 50;
const LINE: &[u8] = br#""balanceAfter":"#;

const BALANCE: &[u8] = br#""freeCreditsRemaining":"#;
/// How many orders a batch of the ledger had.
const BATCH_ORDERS: &str = "ledger_batch_orders";
/// How long its transaction took, from the first statement to the answer to the commit.
const BATCH_SECONDS: &str = "ledger_batch_seconds";

/// Who spends.
struct Spenders {
    /// One whose wallet is hot, and one with a history.
    registered: Vec<Session>,
    /// Access tokens of all others.
    tokens: Vec<String>,
    keys: Arc<AtomicU64>,
}

/// The highest rates of the service, in spends a second.
#[derive(Debug, Default)]
struct Rates {
    spread: Option<f64>,
    /// That at [`OPEN_CONNECTIONS`].
    many: Option<f64>,
    hot: Option<f64>,
    /// Mean milliseconds of one spend after the other, over HTTP and of its transaction alone.
    alone: Option<[f64; 2]>,
}

/// Measures what is wanted and prints it.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let times = Times::of(arguments.seconds);
    if arguments.wants(Part::Limits) {
        eprintln!("measuring: HTTP with one RSA operation");
        let bare_time = (times.measured / 4).max(Duration::from_secs(1));
        let bare = limits::bare(bare_time).await?;
        let reference = limits::reference(REFERENCE_CONNECTIONS, times).await?;
        limits::print(&bare, limits::argon2id(bare_time).await?, Some(&reference));
    }
    let signer = Signer::new()?;
    let stage = Stage::build(&arguments.stage, &[BONUS, ("JWT_PRIVATE_KEY", &signer.pem)]).await?;
    if arguments.wants(Part::Limits) {
        limits::measure_updates(&stage.postgres, times).await?;
    }
    let spenders = spenders(&stage, arguments, &signer).await?;
    let mut rates = Rates::default();
    if arguments.wants(Part::Spends) {
        measure_spends(&stage, times, &spenders, &mut rates).await?;
    }
    if arguments.wants(Part::Hot) {
        measure_hot(&stage, times, &spenders, &mut rates).await?;
    }
    if arguments.wants(Part::Balance) {
        measure_balance(&stage, times, &spenders).await?;
    }
    if arguments.wants(Part::Open) {
        measure_open(&stage, times, &spenders, &rates).await?;
    }
    if arguments.wants(Part::Pgbench) {
        let yardsticks = yardstick::measure(&stage.postgres, times.measured / 2).await?;
        yardsticks.compare(rates.spread, rates.hot);
        if let Some(service) = rates.alone {
            yardsticks.compare_alone(service);
        }
    }
    if arguments.wants(Part::History) {
        measure_history(&stage, times, &spenders, arguments.rows).await?;
    }
    Ok(())
}

async fn spenders(stage: &Stage, arguments: &Arguments, signer: &Signer) -> Result<Spenders, BenchError> {
    let server = stage.server.address;
    let mut registered = seed::sessions(server, 0..REGISTERED, 1).await?;
    registered.sort_by(|one, other| one.user_id.cmp(&other.user_id));
    let tokens = match registered.first().filter(|_| arguments.wants_spread()) {
        Some(pattern) => wallets::spread(server, &stage.postgres, signer, pattern, arguments.users).await?,
        None => Vec::new(),
    };
    Ok(Spenders { registered, tokens, keys: Arc::default() })
}

impl Spenders {
    fn of_all(&self, connections: usize) -> Vec<Spend> {
        Spend::share(self.tokens.clone(), connections, &self.keys)
    }

    fn of_one(&self, connections: usize) -> Vec<Spend> {
        let token = self.registered.first().map(|session| session.access_token.clone());
        Spend::share(token.into_iter().collect(), connections, &self.keys)
    }
}

/// A load of spends with all that is told of it.
struct Measured {
    connections: usize,
    tally: Tally,
    observed: Observed,
    /// None without a batch.
    batch: Option<MeanBatch>,
}

async fn spend(stage: &Stage, scripts: Vec<Spend>, times: Times, what: &str) -> Result<Measured, BenchError> {
    let connections = scripts.len();
    eprintln!("measuring: {what} on {connections} connections");
    let before = Batches::now(stage.server.address).await?;
    let (tally, observed) = observed::closed(stage, scripts, times, what).await?;
    let batch = Batches::now(stage.server.address).await?.mean_since(&before);
    Ok(Measured { connections, tally, observed, batch })
}

fn orders_in(batch: Option<MeanBatch>) -> String {
    batch.map_or_else(|| "no batches".to_owned(), |mean| format!("{:.1}", mean.orders))
}

fn print_spends(title: &str, loads: Vec<Measured>) {
    head(
        title,
        &[&["connections"], &LATENCIES[..], &PROCESSORS[..], &["spends in a batch", "bound by"]].concat(),
    );
    for load in &loads {
        row(&[
            vec![load.connections.to_string()],
            report::latencies(&load.tally),
            report::processors(&load.observed, load.tally.rate()),
            vec![orders_in(load.batch), report::bound(&load.observed)],
        ]
        .concat());
    }
    let costs: Vec<_> = loads.into_iter().map(|load| (load.connections, load.tally, load.observed)).collect();
    report::costs("What a spend costs the database", &costs);
}

async fn measure_spends(
    stage: &Stage,
    times: Times,
    spenders: &Spenders,
    rates: &mut Rates,
) -> Result<(), BenchError> {
    let before = storage::tables(&stage.postgres, storage::OF_CREDITS).await?;
    let mut owner = stage.postgres.owner().await?;
    let log_before = storage::log_position(&mut owner).await?;
    let mut loads = Vec::new();
    for connections in SPREAD_CONNECTIONS {
        loads.push(spend(stage, spenders.of_all(connections), times, "spends").await?);
    }
    let log_bytes = storage::log_position(&mut owner).await?.saturating_sub(log_before);
    let after = storage::tables(&stage.postgres, storage::OF_CREDITS).await?;
    rates.spread = loads.iter().map(|load| load.tally.rate()).reduce(f64::max);
    let alone = loads.iter().find(|load| load.connections == 1);
    rates.alone = alone.and_then(|load| Some([load.tally.mean_millis(), load.batch?.millis]));
    rates.many = loads.iter().find(|load| load.connections == OPEN_CONNECTIONS).map(|load| load.tally.rate());
    print_spends(&format!("Spends, {} users in turn", spenders.tokens.len()), loads);
    print_storage(&before, &after, log_bytes);
    Ok(())
}

/// What was added for each line of the histories, which is each spend.
fn print_storage(before: &[Table], after: &[Table], log_bytes: i64) {
    let grown = |then: &Table, now: &Table, of: fn(&Table) -> i64| of(now).saturating_sub(of(then));
    let pairs = || before.iter().zip(after);
    let spends = pairs()
        .find(|(then, _)| then.name.starts_with("transactions"))
        .map_or(0, |(then, now)| grown(then, now, |table| table.inserts));
    let number = |count: i64| as_number(u64::try_from(count).unwrap_or_default());
    let each = |count: i64| number(count) / number(spends.max(1));
    let line = |name: &str, columns: [f64; 5]| {
        let [rows, updates, hot, heap, index] = columns;
        let few = |number: f64| format!("{number:.3}");
        row(&[
            name.to_owned(),
            few(rows),
            few(updates),
            few(hot),
            whole(heap),
            whole(index),
            whole(heap + index),
        ]);
    };
    head(
        &format!("Storage, for each of {} spends", whole(number(spends))),
        &["table", "rows", "updates", "of them heap-only", "heap bytes", "index bytes", "bytes"],
    );
    let mut sum = [0.0; 5];
    for (then, now) in pairs() {
        let columns: [fn(&Table) -> i64; 5] = [
            |table| table.inserts,
            |table| table.updates,
            |table| table.hot_updates,
            |table| table.heap_bytes,
            |table| table.index_bytes,
        ];
        let columns = columns.map(|of| each(grown(then, now, of)));
        if columns.iter().any(|number| *number > 0.0) {
            line(&now.name, columns);
        }
        for (total, column) in sum.iter_mut().zip(columns) {
            *total += column;
        }
    }
    line("all", sum);
    println!(
        "\nWAL for each spend: {} bytes, with the images of pages after a checkpoint and all else that was written.",
        whole(each(log_bytes))
    );
}

async fn measure_hot(
    stage: &Stage,
    times: Times,
    spenders: &Spenders,
    rates: &mut Rates,
) -> Result<(), BenchError> {
    let mut loads = Vec::new();
    for connections in HOT_CONNECTIONS {
        loads.push(spend(stage, spenders.of_one(connections), times, "spends of one user").await?);
    }
    rates.hot = loads.iter().map(|load| load.tally.rate()).reduce(f64::max);
    print_spends("Spends of one user", loads);
    Ok(())
}

async fn measure_balance(stage: &Stage, times: Times, spenders: &Spenders) -> Result<(), BenchError> {
    head(
        &format!("Balances, {} users in turn", spenders.tokens.len()),
        &[&["connections"], &LATENCIES[..], &PROCESSORS[..], &["bound by"]].concat(),
    );
    for connections in BALANCE_CONNECTIONS {
        eprintln!("measuring: balances on {connections} connections");
        let requests = spenders.tokens.iter().map(|token| get_as(token, "/api/v1/credits/balance"));
        let scripts = Repeat::share(requests.collect(), connections, BALANCE);
        let (tally, observed) = observed::closed(stage, scripts, times, "balances").await?;
        row(&[
            vec![connections.to_string()],
            report::latencies(&tally),
            report::processors(&observed, tally.rate()),
            vec![report::bound(&observed)],
        ]
        .concat());
    }
    Ok(())
}

/// Spends at shares of the rate that as many connections reach when each waits for its answer.
async fn measure_open(
    stage: &Stage,
    times: Times,
    spenders: &Spenders,
    rates: &Rates,
) -> Result<(), BenchError> {
    let possible = match rates.many {
        Some(rate) => rate,
        None => spend(stage, spenders.of_all(OPEN_CONNECTIONS), times, "spends").await?.tally.rate(),
    };
    head(
        &format!("Spends at a fixed rate, of {} a second", whole(possible)),
        &[&["share", "due/s"], &LATENCIES[..], &PROCESSORS[..], &["spends in a batch"]].concat(),
    );
    for share in OPEN_SHARES {
        let due = Duration::from_secs_f64(possible).saturating_mul(share) / 100;
        let due = u32::try_from(due.as_secs()).unwrap_or(u32::MAX).max(1);
        eprintln!("measuring: {due} spends a second");
        let before = Batches::now(stage.server.address).await?;
        let load = load::open(stage.server.address, spenders.of_all(OPEN_CONNECTIONS), due, times);
        let (done, observed) = observed::during(stage, times, load).await?;
        let batch = Batches::now(stage.server.address).await?.mean_since(&before);
        let tally = done.tally.checked("spends at a fixed rate")?;
        row(&[
            vec![format!("{share} %"), due.to_string()],
            report::latencies(&tally),
            report::processors(&observed, tally.rate()),
            vec![orders_in(batch)],
        ]
        .concat());
    }
    Ok(())
}

async fn measure_history(
    stage: &Stage,
    times: Times,
    spenders: &Spenders,
    rows: u64,
) -> Result<(), BenchError> {
    let server = stage.server.address;
    let user = spenders.registered.last().ok_or(BenchError::NotUnderstood("a registration"))?;
    let mut spends = Spend::share(vec![user.access_token.clone()], 1, &spenders.keys);
    for script in &mut spends {
        let mut connection = Connection::open(server).await?;
        let answer = connection.exchange(script.request()).await?;
        if !script.accepts(answer) {
            return Err(BenchError::unexpected("a spend", answer));
        }
    }
    let newest = wallets::fill_history(&stage.postgres, &user.user_id, rows).await?;
    head(
        &format!("Pages of {PAGE_LINES} lines, from a history of {}", whole(as_number(newest))),
        &[&["lines newer than the page"], &LATENCIES[..], &PROCESSORS[..]].concat(),
    );
    for depth in [0, newest / 1_000, newest / 100, newest / 10, newest / 2, newest - 500] {
        eprintln!("measuring: pages {depth} lines deep");
        let pages = HISTORY_PAGES.min((newest - depth) / PAGE_LINES);
        let requests: Vec<_> = (0..pages)
            .map(|page| newest + 1 - depth - page * PAGE_LINES)
            .map(|before| get_as(&user.access_token, &page_path(before)))
            .collect();
        check_page(server, requests.first(), newest - depth).await?;
        let scripts = Repeat::share(requests, HISTORY_CONNECTIONS, LINE);
        let (tally, observed) = observed::closed(stage, scripts, times, "pages of a history").await?;
        row(&[
            vec![whole(as_number(depth))],
            report::latencies(&tally),
            report::processors(&observed, tally.rate()),
        ]
        .concat());
    }
    Ok(())
}

/// The page that begins before a line, with the cursor that the `Link` header of the page before it has.
fn page_path(before: u64) -> String {
    let cursor = BASE64.encode(before.to_be_bytes());
    format!("/api/v1/credits/transactions?limit={PAGE_LINES}&cursor={cursor}")
}

/// Fails unless the page is full and begins with that line, which its id tells.
async fn check_page(server: SocketAddr, request: Option<&Vec<u8>>, first: u64) -> Result<(), BenchError> {
    let request = request.ok_or(BenchError::NotUnderstood("a depth"))?;
    let mut connection = Connection::open(server).await?;
    let answer = connection.exchange(request).await?;
    let lines: Vec<Value> = serde_json::from_slice(answer.body).unwrap_or_default();
    let id = lines.first().and_then(|line| line.get("id")?.as_str()).unwrap_or_default().replace('-', "");
    if u64::try_from(lines.len()) == Ok(PAGE_LINES) && u64::from_str_radix(&id, 16) == Ok(first) {
        return Ok(());
    }
    Err(BenchError::unexpected(format!("the page at line {first}"), answer))
}

/// Running totals of the ledger's batches.
#[derive(Debug, Clone, Copy)]
struct Batches {
    orders: f64,
    seconds: f64,
    count: f64,
}

/// What batches were in the mean.
#[derive(Debug, Clone, Copy)]
struct MeanBatch {
    orders: f64,
    millis: f64,
}

impl Batches {
    async fn now(server: SocketAddr) -> Result<Self, BenchError> {
        let mut connection = Connection::open(server).await?;
        let answer = connection.exchange(&get("/metrics")).await?;
        Ok(Self::read(&String::from_utf8_lossy(answer.body)))
    }

    fn read(text: &str) -> Self {
        let total = |name: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
            lines.filter_map(|(_, number)| number.parse::<f64>().ok()).sum()
        };
        Self {
            orders: total(&format!("{BATCH_ORDERS}_sum")),
            seconds: total(&format!("{BATCH_SECONDS}_sum")),
            count: total(&format!("{BATCH_ORDERS}_count")),
        }
    }

    fn mean_since(self, earlier: &Self) -> Option<MeanBatch> {
        let batches = self.count - earlier.count;
        (batches > 0.0).then(|| MeanBatch {
            orders: (self.orders - earlier.orders) / batches,
            millis: (self.seconds - earlier.seconds) * 1_000.0 / batches,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_a_batch_is_that_of_the_load() {
        let before = Batches::read(
            "ledger_batch_orders_sum 10\nledger_batch_orders_count 10\nledger_batch_seconds_sum 1\nother_sum 7\n",
        );
        let after = Batches::read(
            "ledger_batch_orders_sum{a=\"b\"} 70\nledger_batch_orders_count{a=\"b\"} 20\nledger_batch_seconds_sum{a=\"b\"} 1.5\n",
        );
        let mean = after.mean_since(&before).unwrap();
        assert_eq!((whole(mean.orders), whole(mean.millis)), ("6".to_owned(), "50".to_owned()));
        assert!(Batches::read("").mean_since(&Batches::read("")).is_none());
    }
}
