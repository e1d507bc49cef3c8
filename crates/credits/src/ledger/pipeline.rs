//! The one way into the ledger: adaptive group commit.
//!
//! Orders queue by wallet on a few shards. What arrived while a shard's last batch committed is its next batch: there is
//! no timer, so an order on an idle server commits at once and alone, and under load a commit is shared by many. An answer
//! leaves after the commit, never before.

use super::batch::{self, Books, LookUp, Order};
use super::error::LedgerError;
use super::queue::{Questions, Queue, Waiting};
use crate::idempotency::Answer;
use mana_kernel::UserId;
use mana_platform::BatchConnection;
use mana_platform::telemetry::{Counted, spans};
use metrics::Histogram;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{io, thread};
use tokio::runtime;
use tracing::dispatcher::{self, Dispatch};
use tracing::{Instrument as _, Span};

/// Orders that wait on a shard at most; with more, the service is busy.
const QUEUE: usize = 4096;
/// Orders of a wallet that wait at most, on whatever shard: what comes beyond is refused, so that no wallet fills a shard. A thousand
/// requests that are one, sent again and again, still find their answer.
const QUEUE_OF_WALLET: u32 = 1024;
/// Orders of a batch at most: beyond it, a longer transaction gains nothing and keeps its wallets locked.
const MAX_BATCH: usize = 256;
/// How often a batch is tried that lost a race, or met a key that it had not looked up.
const TRIES: u32 = 3;
/// Batches in which all keys are looked up after one was known.
const CAUTIOUS_BATCHES: u32 = 64;

/// The door to the shards. They end when it is dropped and what was taken in is done.
#[derive(Debug)]
pub struct Ledger {
    shards: Vec<Queue<Taken, Answer>>,
    places: Arc<Places>,
}

/// An order with the place that it has as long as it waits.
#[derive(Debug)]
struct Taken {
    order: Order,
    place: Place,
    traced: Span,
}

/// How many orders of each wallet wait, by a hash of its owner. Those of which none waits are not in it.
#[derive(Debug, Default)]
struct Places(Mutex<HashMap<u64, u32>>);

/// A place among the orders of a wallet; free again when it is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    owner: u64,
    _counted: Counted,
}

impl Places {
    /// A place, if the wallet has one left.
    fn take(self: &Arc<Self>, owner: u64) -> Option<Place> {
        let mut waiting = self.locked();
        let of_wallet = waiting.entry(owner).or_default();
        if *of_wallet >= QUEUE_OF_WALLET {
            return None;
        }
        *of_wallet = of_wallet.saturating_add(1);
        let counted = Counted::on(metrics::gauge!("ledger_orders_waiting"));
        Some(Place { places: Arc::clone(self), owner, _counted: counted })
    }

    /// Nothing panics while it is held.
    fn locked(&self) -> MutexGuard<'_, HashMap<u64, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.places.locked();
        if let Entry::Occupied(mut of_wallet) = waiting.entry(self.owner) {
            *of_wallet.get_mut() = of_wallet.get().saturating_sub(1);
            if *of_wallet.get() == 0 {
                of_wallet.remove();
            }
        }
    }
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
        Ok(Self { shards: shards.collect::<io::Result<_>>()?, places: Arc::default() })
    }

    /// Whether every shard works. One that has ended does not begin again.
    pub fn is_open(&self) -> bool {
        self.shards.iter().all(Queue::is_open)
    }

    /// Has an order carried out, and gives its answer once that is safe on disk.
    ///
    /// Whoever stops waiting may find it done or not: an order that nobody waits for any more is left out if its batch
    /// has not begun.
    pub(crate) async fn submit(&self, order: Order) -> Result<Answer, LedgerError> {
        let owner = hash_of(&order.user);
        let shards = u64::try_from(self.shards.len()).unwrap_or(1);
        let shard = usize::try_from(owner.checked_rem(shards).unwrap_or(0)).unwrap_or(0);
        let place = self.places.take(owner).ok_or(LedgerError::Busy)?;
        let traced = spans::ledger_order();
        let shard = self.shards.get(shard).ok_or(LedgerError::Stopped)?;
        shard.ask(Taken { order, place, traced: traced.clone() }).instrument(traced).await
    }
}

fn hash_of(user: &UserId) -> u64 {
    let mut hasher = DefaultHasher::new();
    user.as_str().hash(&mut hasher);
    hasher.finish()
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
                .map(|Waiting { question: Taken { order, place, traced }, reply }| {
                    (order, (reply, place, traced))
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

    /// Commits, again if it lost a race for locks with another replica, or if a key was known that had not been looked up.
    async fn commit(&mut self, orders: &[Order]) -> Result<batch::Answers, LedgerError> {
        let Self { books, connection, caution, .. } = self;
        let mut outcome = batch::commit(connection, books, orders, caution.look_up()).await;
        for _ in 1..TRIES {
            let Err(error) = &outcome else { break };
            let has_met_a_known_key = error.has_met_a_known_key();
            if has_met_a_known_key {
                caution.learn(true);
            }
            if !has_met_a_known_key && !error.lost_a_race() {
                break;
            }
            outcome = batch::commit(connection, books, orders, caution.look_up()).await;
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
    use crate::{
        AdminAct, AdminLog, Administrator, CreditsEvent, HeldServices, OnCreditsEvent, Policy, PortError,
        SalesDeed, SessionGuard,
    };
    use futures_util::FutureExt as _;
    use mana_kernel::{SessionId, UserId};
    use mana_platform::http::Caller;
    use mana_platform::{Database, SystemClock, SystemRng};
    use sqlx::PgConnection;
    use sqlx::postgres::PgConnectOptions;
    use std::collections::HashSet;
    use std::future::Future;
    use std::net::TcpListener;
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

        fn hold_services<'a>(
            &'a self,
            _: &'a mut PgConnection,
            _: &'a [&'a str],
            _: &'a [&'a UserId],
        ) -> Pin<Box<dyn Future<Output = Result<HeldServices, PortError>> + Send + 'a>> {
            Box::pin(async { Ok(HeldServices::default()) })
        }
    }

    impl AdminLog for Nobody {
        fn hold_office<'a>(
            &'a self,
            _: &'a mut PgConnection,
            _: &'a Administrator,
        ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>> {
            Box::pin(async { Ok(()) })
        }

        fn record_sale<'a>(
            &'a self,
            _: &'a mut PgConnection,
            _: &'a Administrator,
            _: SalesDeed<'a>,
        ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>> {
            Box::pin(async { Ok(()) })
        }

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

    fn order_of(user: &str) -> Order {
        Order {
            user: user.parse().unwrap(),
            actor: Actor::Service("key".to_owned()),
            key: None,
            if_version: None,
            request: "r".parse().unwrap(),
            command: None,
            is_dry_run: false,
            render: |_: &Outcome<'_>| Answer::json(http::StatusCode::OK, &()),
        }
    }

    /// On a database that takes connections and says nothing, as long as the listener lives.
    fn on_silent_database() -> (Ledger, TcpListener) {
        let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
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
        (Ledger::start(&books, 1).unwrap(), silent)
    }

    #[tokio::test]
    async fn a_queue_that_is_full_refuses_at_once() {
        let (ledger, _silent) = on_silent_database();
        let ledger = Arc::new(ledger);
        let mut orders = JoinSet::new();
        // One more than a batch that never ends and the queue behind it.
        for number in 0..=MAX_BATCH.saturating_add(QUEUE) {
            let ledger = Arc::clone(&ledger);
            orders.spawn(async move { ledger.submit(order_of(&format!("user{number}"))).await });
        }
        let first = orders.join_next().await.unwrap().unwrap();
        assert!(matches!(first, Err(LedgerError::Busy)), "{first:?}");
    }

    #[tokio::test]
    async fn a_wallet_that_has_as_many_orders_waiting_as_it_may_leaves_room_for_others() {
        let (ledger, _silent) = on_silent_database();
        let submit = |user: &str| Box::pin(ledger.submit(order_of(user)));
        let mut waiting: Vec<_> = (0..QUEUE_OF_WALLET).map(|_| submit("ada")).collect();
        assert!(waiting.iter_mut().all(|order| order.now_or_never().is_none()));
        let beyond = submit("ada").now_or_never();
        assert!(matches!(beyond, Some(Err(LedgerError::Busy))), "{beyond:?}");
        assert!(submit("bob").now_or_never().is_none(), "another's waits, on the same shard");
    }

    #[test]
    fn a_place_is_free_again_when_its_order_is_gone() {
        let places = Arc::new(Places::default());
        let mut taken: Vec<_> = std::iter::from_fn(|| places.take(1)).collect();
        assert_eq!(taken.len(), usize::try_from(QUEUE_OF_WALLET).unwrap());
        taken.pop();
        taken.extend(places.take(1));
        assert!(places.take(1).is_none() && places.take(2).is_some());
        drop(taken);
        assert!(places.locked().is_empty(), "nothing is kept of wallets without an order");
    }

    #[tokio::test]
    async fn a_ledger_is_open_until_a_shard_is_gone() {
        let (mut ledger, _silent) = on_silent_database();
        assert!(ledger.is_open());
        let (gone, _) = Queue::new(1);
        ledger.shards.push(gone);
        assert!(!ledger.is_open());
    }
}
