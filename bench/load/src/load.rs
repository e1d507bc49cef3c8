//! Two kinds of load. **Closed**: each connection sends its next request when it has the answer to the one before, which
//! finds the highest rate. **Open**: requests are due at fixed times whatever becomes of the earlier ones, and each is
//! timed from when it was due, so a server that stalls is charged for all that waited meanwhile.

use crate::connection::Connection;
use crate::error::BenchError;
use crate::script::Script;
use crate::tally::{Outcome, Tally};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long an open load waits at its end for what has no answer yet.
const PATIENCE: Duration = Duration::from_secs(15);

/// When a load runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Not counted.
    pub(crate) warm_up: Duration,
    /// Counted.
    pub(crate) measured: Duration,
}

impl Times {
    /// So many seconds, after a fifth of that to warm up.
    pub(crate) fn of(seconds: u64) -> Self {
        let measured = Duration::from_secs(seconds.max(1));
        Self { warm_up: measured / 5, measured }
    }
}

/// What a load leaves behind.
#[derive(Debug)]
pub(crate) struct Done<S> {
    pub(crate) tally: Tally,
    pub(crate) scripts: Vec<S>,
}

/// Sends as fast as the answers come, one connection per script. Counts what was answered in the measured time.
pub(crate) async fn closed<S: Script>(
    server: SocketAddr,
    scripts: Vec<S>,
    times: Times,
) -> Result<Done<S>, BenchError> {
    closed_over(&[server], scripts, times).await
}

/// The same over several servers, which get the connections in turn.
pub(crate) async fn closed_over<S: Script>(
    servers: &[SocketAddr],
    scripts: Vec<S>,
    times: Times,
) -> Result<Done<S>, BenchError> {
    let mut connections = Vec::with_capacity(scripts.len());
    for (script, &server) in scripts.into_iter().zip(servers.iter().cycle()) {
        connections.push((server, Connection::open(server).await?, script));
    }
    let from = Instant::now() + times.warm_up;
    let end = from + times.measured;
    let tally = Arc::new(Mutex::new(Tally::over(from, times.measured)?));
    let mut tasks = JoinSet::new();
    for (server, mut connection, mut script) in connections {
        let tally = Arc::clone(&tally);
        tasks.spawn(async move {
            while Instant::now() < end {
                let begun = Instant::now();
                let outcome = exchange(server, &mut connection, &mut script, &tally).await;
                let now = Instant::now();
                locked(&tally, |tally| tally.count(now, now - begun, outcome));
            }
            script
        });
    }
    finish(tasks, tally).await
}

/// Sends at `rate` requests a second over as many connections as there are scripts; each request takes the connection
/// that has rested longest, or waits for one. Counts what was due in the measured time.
pub(crate) async fn open<S: Script>(
    server: SocketAddr,
    scripts: Vec<S>,
    rate: u32,
    times: Times,
) -> Result<Done<S>, BenchError> {
    let mut connections = Vec::with_capacity(scripts.len());
    for script in scripts {
        connections.push((Connection::open(server).await?, script));
    }
    let begin = Instant::now();
    let from = begin + times.warm_up;
    let total = times.warm_up.saturating_add(times.measured).saturating_mul(rate).as_secs();
    let total = u32::try_from(total).unwrap_or(u32::MAX);
    let due = move |number: u32| begin + Duration::from_secs(number.into()) / rate;
    let tally = Arc::new(Mutex::new(Tally::over(from, times.measured)?));
    let pacer = Pacer::start(total, connections.len(), due);
    let next = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    for (mut connection, mut script) in connections {
        let (tally, next, tickets) = (Arc::clone(&tally), Arc::clone(&next), Arc::clone(&pacer.tickets));
        tasks.spawn(async move {
            while let Ok(ticket) = tickets.acquire().await {
                ticket.forget();
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    break;
                }
                let outcome = exchange(server, &mut connection, &mut script, &tally).await;
                let due = due(number);
                locked(&tally, |tally| tally.count(due, due.elapsed(), outcome));
            }
            script
        });
    }
    let rest = due(total).saturating_duration_since(Instant::now()).saturating_add(PATIENCE);
    match tokio::time::timeout(rest, finish(tasks, tally)).await {
        Ok(done) => done,
        Err(_) => Err(BenchError::NotReady("a part of the requests".to_owned(), PATIENCE)),
    }
}

async fn finish<S: Script>(mut tasks: JoinSet<S>, tally: Arc<Mutex<Tally>>) -> Result<Done<S>, BenchError> {
    let mut scripts = Vec::with_capacity(tasks.len());
    while let Some(script) = tasks.join_next().await {
        scripts.push(script?);
    }
    let tally = Arc::try_unwrap(tally).map_err(|_| std::io::Error::other("a task still counts"))?;
    Ok(Done { tally: tally.into_inner().unwrap_or_else(PoisonError::into_inner), scripts })
}

/// Sends one request and judges its answer. A connection that broke is replaced for the next.
async fn exchange<S: Script>(
    server: SocketAddr,
    connection: &mut Connection,
    script: &mut S,
    tally: &Mutex<Tally>,
) -> Outcome {
    let answer = match connection.exchange(script.request()).await {
        Ok(answer) => answer,
        Err(error) => {
            locked(tally, |tally| tally.complain(|| error.to_string()));
            if let Ok(fresh) = Connection::open(server).await {
                *connection = fresh;
            }
            return Outcome::Broken;
        }
    };
    if script.accepts(answer) {
        return Outcome::Right;
    }
    locked(tally, |tally| tally.complain(|| String::from_utf8_lossy(answer.body).into_owned()));
    if answer.status < 400 { Outcome::Wrong } else { Outcome::Refused(answer.status) }
}

fn locked(tally: &Mutex<Tally>, work: impl FnOnce(&mut Tally)) {
    work(&mut tally.lock().unwrap_or_else(PoisonError::into_inner));
}

/// A thread of its own that hands out a ticket whenever a request is due: timers of the runtime are a millisecond coarse.
struct Pacer {
    tickets: Arc<Semaphore>,
}

impl Pacer {
    /// Hands out `total` tickets, and then one for each of `workers` to see that it is over.
    fn start(total: u32, workers: usize, due: impl Fn(u32) -> Instant + Send + 'static) -> Self {
        let tickets = Arc::new(Semaphore::new(0));
        let handed_out = Arc::clone(&tickets);
        std::thread::spawn(move || {
            for number in 0..total {
                std::thread::sleep(due(number).saturating_duration_since(Instant::now()));
                if handed_out.is_closed() {
                    return;
                }
                handed_out.add_permits(1);
            }
            handed_out.add_permits(workers);
        });
        Self { tickets }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.tickets.close();
    }
}
