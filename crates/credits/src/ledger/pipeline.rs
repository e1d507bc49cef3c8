//! The one way into the ledger: adaptive group commit.
//!
//! Orders queue by wallet on a few shards. What arrived while a shard's last batch committed is its next batch: there is
//! no timer, so an order on an idle server commits at once and alone, and under load a commit is shared by many. An answer
//! leaves after the commit, never before.

use super::batch::{self, Books, LookUp, Order};
use super::error::LedgerError;
use super::queue::{Questions, Queue, Waiting};
use crate::idempotency::{Answer, ONE_ANSWER};
use mana_platform::BatchConnection;
use mana_platform::telemetry::{Counted, spans};
use metrics::Histogram;
use std::error::Error;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Instant;
use std::{io, thread};
use tokio::runtime;
use tracing::dispatcher::{self, Dispatch};
use tracing::{Instrument as _, Span};

/// Orders that wait on a shard at most; with more, the service is busy.
const QUEUE: usize = 4096;
/// Orders of a batch at most: beyond it, a longer transaction gains nothing and keeps its wallets locked.
const MAX_BATCH: usize = 256;
/// Batches in which all keys are looked up after one was known.
const CAUTIOUS_BATCHES: u32 = 64;

/// The door to the shards. They end when it is dropped and what was taken in is done.
#[derive(Debug)]
pub struct Ledger {
    shards: Vec<Queue<Taken, Answer>>,
}

/// An order that is counted as long as it waits.
#[derive(Debug)]
struct Taken {
    order: Order,
    counted: Counted,
    traced: Span,
}

impl Ledger {
    /// Starts `shards` writers, each on a thread and a connection of its own: what it has to do between two statements does not stand in line
    /// behind requests while its wallets are locked.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start(books: &Arc<Books>, shards: usize) -> io::Result<Self> {
        let places = u32::try_from(QUEUE.saturating_mul(shards.max(1))).unwrap_or(u32::MAX);
        metrics::gauge!("ledger_orders_waiting_max").set(places);
        metrics::gauge!("ledger_orders_waiting").set(0);
        let shards = std::iter::repeat_with(|| Shard::start(books)).take(shards.max(1));
        Ok(Self { shards: shards.collect::<io::Result<_>>()? })
    }

    /// Has an order carried out, and gives its answer once that is safe on disk.
    ///
    /// Whoever stops waiting may find it done or not: an order that nobody waits for any more is left out if its batch
    /// has not begun.
    pub(crate) async fn submit(&self, order: Order) -> Result<Answer, LedgerError> {
        let mut hasher = DefaultHasher::new();
        order.user.as_str().hash(&mut hasher);
        let shards = u64::try_from(self.shards.len()).unwrap_or(1);
        let shard = usize::try_from(hasher.finish().checked_rem(shards).unwrap_or(0)).unwrap_or(0);
        let counted = Counted::on(metrics::gauge!("ledger_orders_waiting"));
        let traced = spans::ledger_order();
        let shard = self.shards.get(shard).ok_or(LedgerError::Stopped)?;
        shard.ask(Taken { order, counted, traced: traced.clone() }).instrument(traced).await
    }
}

/// What carries out the orders of some wallets, batch by batch.
struct Shard {
    books: Arc<Books>,
    connection: BatchConnection,
    caution: Caution,
    batch_orders: Histogram,
    batch_seconds: Histogram,
}

impl Shard {
    fn start(books: &Arc<Books>) -> io::Result<Queue<Taken, Answer>> {
        let (queue, questions) = Queue::new(QUEUE);
        let shard = Self {
            books: Arc::clone(books),
            connection: books.database.batch_connection(),
            // Requests that were cut off by the end of the process before are sent again now.
            caution: Caution(CAUTIOUS_BATCHES),
            batch_orders: metrics::histogram!("ledger_batch_orders"),
            batch_seconds: metrics::histogram!("ledger_batch_seconds"),
        };
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let dispatch = dispatcher::get_default(Dispatch::clone);
        let work = move || dispatcher::with_default(&dispatch, || runtime.block_on(shard.work(questions)));
        thread::Builder::new().name("ledger".to_owned()).spawn(work)?;
        Ok(queue)
    }

    async fn work(mut self, mut questions: Questions<Taken, Answer>) {
        let mut arrived = Vec::with_capacity(MAX_BATCH);
        while questions.recv_many(&mut arrived, MAX_BATCH).await > 0 {
            let waiting = arrived.drain(..).filter(|waiting| !waiting.reply.is_closed());
            let (orders, replies): (Vec<_>, Vec<_>) = waiting
                .map(|Waiting { question: Taken { order, counted, traced }, reply }| {
                    (order, (reply, counted, traced))
                })
                .unzip();
            if orders.is_empty() {
                continue;
            }
            self.batch_orders.record(u32::try_from(orders.len()).unwrap_or(u32::MAX));
            let began = Instant::now();
            let traced = spans::ledger_batch(replies.iter().map(|(_, _, traced)| traced));
            let answers = self.write(&orders).instrument(traced).await;
            self.batch_seconds.record(began.elapsed());
            for (answer, (reply, _, _)) in answers.into_iter().zip(replies) {
                // Who asked may be gone; it is done all the same.
                let _ = reply.send(answer);
            }
        }
    }

    /// Commits a batch. If the database refuses it, its halves are tried apart, down to the order that is to blame: one bad
    /// order hurts nobody else. If the database is away, all are told so at once.
    async fn write(&mut self, orders: &[Order]) -> Vec<Result<Answer, LedgerError>> {
        let mut answers = Vec::with_capacity(orders.len());
        let mut parts = vec![orders];
        while let Some(part) = parts.pop() {
            match self.commit(part).await {
                Ok(done) => answers.extend(done),
                Err(error) if error.passes() => {
                    let cause: &(dyn Error + 'static) = &error;
                    tracing::warn!(
                        cause,
                        orders = part.len(),
                        "the database did not take a batch of the ledger"
                    );
                    answers.extend(part.iter().map(|_| Err(LedgerError::Unavailable)));
                }
                Err(error) => match part {
                    [_] => answers.push(Err(error)),
                    _ => {
                        let (first, second) = part.split_at(part.len().div_ceil(2));
                        // The stack gives the first half first, so that answers stay in the order of orders.
                        parts.extend([second, first]);
                    }
                },
            }
        }
        answers
    }

    /// Commits, once more if it lost a race for locks with another replica, or if a key was known that had not been looked up.
    async fn commit(&mut self, orders: &[Order]) -> Result<batch::Answers, LedgerError> {
        let Self { books, connection, caution, .. } = self;
        let mut outcome = batch::commit(connection, books, orders, caution.look_up()).await;
        if let Err(LedgerError::Database(error)) = &outcome {
            let has_met_a_known_key = error.constraint() == Some(ONE_ANSWER);
            if has_met_a_known_key {
                caution.learn(true);
            }
            if has_met_a_known_key || error.lost_a_race() {
                outcome = batch::commit(connection, books, orders, caution.look_up()).await;
            }
        }
        let is_replay = |answer: &Result<Answer, LedgerError>| answer.as_ref().is_ok_and(Answer::is_replay);
        caution.learn(outcome.as_ref().is_ok_and(|answers| answers.iter().any(is_replay)));
        outcome
    }
}

/// For how many batches all keys are looked up. Most keys are new, and a look that finds nothing costs as much as what it
/// saves; where one was sent again, more will be.
#[derive(Debug)]
struct Caution(u32);

impl Caution {
    fn look_up(&self) -> LookUp {
        if self.0 > 0 { LookUp::All } else { LookUp::WhereNeeded }
    }

    fn learn(&mut self, has_met_a_known_key: bool) {
        self.0 = if has_met_a_known_key { CAUTIOUS_BATCHES } else { self.0.saturating_sub(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::{Actor, Outcome};
    use super::*;
    use crate::{AdminAct, AdminLog, CreditsEvent, OnCreditsEvent, Policy, PortError, SessionGuard};
    use mana_kernel::SessionId;
    use mana_platform::http::Caller;
    use mana_platform::{Database, SystemClock, SystemRng};
    use sqlx::PgConnection;
    use sqlx::postgres::PgConnectOptions;
    use std::collections::HashSet;
    use std::future::Future;
    use std::pin::Pin;
    use std::time::Duration;
    use tokio::task::JoinSet;

    #[derive(Debug)]
    struct Nobody;

    impl SessionGuard for Nobody {
        fn hold_live<'a>(
            &'a self,
            _: &'a mut PgConnection,
            _: &'a [&'a Caller],
        ) -> Pin<Box<dyn Future<Output = Result<HashSet<SessionId>, PortError>> + Send + 'a>> {
            Box::pin(async { Ok(HashSet::new()) })
        }
    }

    impl AdminLog for Nobody {
        fn record<'a>(
            &'a self,
            _: &'a mut PgConnection,
            _: &'a [AdminAct],
        ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>> {
            Box::pin(async { Ok(()) })
        }
    }

    impl OnCreditsEvent for Nobody {
        fn may_want_spend(&self, _: &str, _: i64) -> bool {
            false
        }

        fn on_credits_events<'a>(
            &'a self,
            _: &'a mut PgConnection,
            _: &'a [CreditsEvent],
        ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>> {
            Box::pin(async { Ok(()) })
        }
    }

    fn order() -> Order {
        Order {
            user: "ada".parse().unwrap(),
            actor: Actor::Service,
            key: None,
            if_version: None,
            request: "r".parse().unwrap(),
            command: None,
            is_dry_run: false,
            render: |_: &Outcome<'_>| Answer::json(http::StatusCode::OK, &()),
        }
    }

    #[tokio::test]
    async fn a_queue_that_is_full_refuses_at_once() {
        // Takes connections and says nothing, like a database that stands still.
        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1");
        let options = options.port(silent.local_addr().unwrap().port());
        let books = Arc::new(Books {
            database: Database::new(options, 1, Duration::from_hours(1)),
            clock: Arc::new(SystemClock),
            rng: Arc::new(SystemRng),
            session_guard: Arc::new(Nobody),
            admin_log: Arc::new(Nobody),
            on_credits_event: Arc::new(Nobody),
            policy: Policy { signup_bonus: None, daily_free: None, daily_zone: "UTC".to_owned() },
        });
        let ledger = Arc::new(Ledger::start(&books, 1).unwrap());
        let mut orders = JoinSet::new();
        // One more than a batch that never ends and the queue behind it.
        for _ in 0..=MAX_BATCH.saturating_add(QUEUE) {
            let ledger = Arc::clone(&ledger);
            orders.spawn(async move { ledger.submit(order()).await });
        }
        let first = orders.join_next().await.unwrap().unwrap();
        assert!(matches!(first, Err(LedgerError::Busy)), "{first:?}");
    }
}
