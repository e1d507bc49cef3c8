//! Password hashing on a bounded pool: threads of its own, as many as there are cores, with a bounded queue that is fair between
//! networks and their addresses, and a deadline.
//!
//! The threads yield to all others of the machine, so what needs no hash stays fast while they are all busy. A thread that
//! yields may be kept from running for a second, so it must hold nothing that others wait for: it only computes. What it
//! computes and for whom is handled by an attendant at its side, a thread of ordinary priority. A request whose client
//! goes away leaves the queue, and its password is not hashed.

use super::fair_queue::{Arrival, FairQueue, Ticket};
use super::model::{PasswordError, normalised};
use super::rules::AcceptedPassword;
use super::scheme::{Scheme, StoredHash};
use super::workspace::Workspace;
use mana_kernel::Rng;
use mana_platform::http::{AddressBucket, NetworkBucket};
use mana_platform::telemetry::{Counted, spans};
use secrecy::{ExposeSecret as _, SecretString};
#[cfg(target_os = "linux")]
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

/// The last step of the scheduler's ladder: with the others busy, hashing is left some hundredths of a core. A step in
/// the middle left it enough that checks of tokens waited for it.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 19;

/// Hashes and verifies passwords. Parameters are OWASP's for Argon2id: 19 MiB, two passes, one lane.
#[derive(Debug)]
pub struct Hasher {
    pool: Arc<Pool>,
    patience: Duration,
}

/// What came of looking at a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not the one.
    Wrong,
    /// The one, hashed as passwords are hashed now.
    Right,
    /// The one, hashed in another way: to be hashed anew.
    RightButOutdated,
}

impl Hasher {
    /// A pool that hashes `threads` at once and lets `queue` more wait, each for `patience` at most.
    ///
    /// # Errors
    /// When the threads can't be started.
    pub fn new(threads: usize, queue: usize, patience: Duration) -> Result<Self, PasswordError> {
        metrics::gauge!("password_hashing_waiting_max").set(u32::try_from(queue).unwrap_or(u32::MAX));
        let hasher = Self { pool: Arc::new(Pool::new(queue)), patience };
        for _ in 0..threads {
            let pool = Arc::clone(&hasher.pool);
            let (to_compute, asked) = mpsc::channel();
            let (computed, to_deliver) = mpsc::channel();
            let spawn = |name: &str, life: Box<dyn FnOnce() + Send>| {
                thread::Builder::new().name(name.to_owned()).spawn(life).map_err(PasswordError::Thread)
            };
            spawn("hashing", Box::new(move || compute(&asked, &computed)))?;
            spawn("hashing-attendant", Box::new(move || pool.attend(&to_compute, &to_deliver)))?;
        }
        Ok(hasher)
    }

    /// The PHC string to store for a new password, for a client at `address`.
    pub(super) async fn hash(
        &self,
        password: AcceptedPassword,
        rng: &dyn Rng,
        address: AddressBucket,
    ) -> Result<String, PasswordError> {
        self.hash_text(password.into_secret(), rng, address).await
    }

    /// The PHC string to store in place of an outdated one, for a password that has just been found right.
    pub(crate) async fn hash_again(
        &self,
        password: &SecretString,
        rng: &dyn Rng,
        address: AddressBucket,
    ) -> Result<String, PasswordError> {
        self.hash_text(normalised(password), rng, address).await
    }

    async fn hash_text(
        &self,
        password: SecretString,
        rng: &dyn Rng,
        address: AddressBucket,
    ) -> Result<String, PasswordError> {
        let salt = rng_salt(rng);
        self.run(address, move |workspace| workspace.hash(password.expose_secret().as_bytes(), salt))
            .await?
            .map_err(PasswordError::Hash)
    }

    /// Whether `password` is the one behind `stored`, for a client at `address`. A wrong one costs as much as no account:
    /// besides the hash of the account, if there is one, a hash of our own scheme and of each one in `others`, those that
    /// imported accounts have.
    pub(crate) async fn examine(
        &self,
        password: &SecretString,
        stored: Option<String>,
        others: Vec<Scheme>,
        address: AddressBucket,
    ) -> Result<Verdict, PasswordError> {
        // What can't be read, or costs too much, verifies nothing, and takes as long.
        let stored = stored.and_then(|stored| StoredHash::read(&stored).ok());
        let password = password.clone();
        self.run(address, move |workspace| {
            judge(workspace, password.expose_secret(), stored.as_ref(), &others)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        address: AddressBucket,
        work: impl FnMut(&mut Workspace) -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let traced = spans::password_hashing();
        self.wait_for(address, work, spans::password_hashing_wait(&traced)).instrument(traced).await
    }

    async fn wait_for<T: Send + 'static>(
        &self,
        address: AddressBucket,
        work: impl FnMut(&mut Workspace) -> T + Send + 'static,
        wait: Span,
    ) -> Result<T, PasswordError> {
        let (done, mut outcome) = oneshot::channel();
        let work = Box::new(Asked { work, outcome: None, done });
        let place = self.pool.enter(address, work, wait).ok_or_else(|| self.refuse())?;
        let outcome = match tokio::time::timeout(self.patience, &mut outcome).await {
            Ok(outcome) => outcome,
            Err(_) if place.leave() => return Err(self.refuse()),
            // Its turn has come.
            Err(_) => outcome.await,
        };
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(PasswordError::Defect),
            // Displaced by somebody who had asked less.
            Err(_) => Err(self.refuse()),
        }
    }

    fn refuse(&self) -> PasswordError {
        metrics::counter!("password_hashing_refused_total").increment(1);
        // By then, all who wait now have been served or refused.
        PasswordError::Busy { retry_after_seconds: self.patience.as_secs().max(1) }
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.pool.line().is_closed = true;
        self.pool.arrived.notify_all();
    }
}

/// What the threads share.
struct Pool {
    line: Mutex<Line>,
    arrived: Condvar,
}

struct Line {
    queue: FairQueue<NetworkBucket, AddressBucket, Waiter>,
    is_closed: bool,
}

/// Something to compute. Whatever it holds is given back to the attendant before it is dropped: memory has owners, and
/// they have locks.
trait Work: Send {
    fn compute(&mut self, workspace: &mut Workspace);

    /// Tells who asked, who may be gone, which is as well.
    fn deliver(self: Box<Self>);
}

struct Asked<F, T> {
    work: F,
    outcome: Option<thread::Result<T>>,
    done: oneshot::Sender<thread::Result<T>>,
}

impl<T: Send, F: FnMut(&mut Workspace) -> T + Send> Work for Asked<F, T> {
    fn compute(&mut self, workspace: &mut Workspace) {
        // A defect must not take a thread of the pool with it.
        self.outcome = Some(catch_unwind(AssertUnwindSafe(|| (self.work)(workspace))));
    }

    fn deliver(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            let _ = self.done.send(outcome);
        }
    }
}

/// A password that waits for its turn.
struct Waiter {
    work: Box<dyn Work>,
    since: Instant,
    _counted: Counted,
    _traced: Span,
}

impl Pool {
    fn new(capacity: usize) -> Self {
        let line = Line { queue: FairQueue::new(capacity), is_closed: false };
        Self { line: Mutex::new(line), arrived: Condvar::new() }
    }

    /// Nothing panics while it holds the lock: passwords are hashed outside of it.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the queue, if there is one.
    fn enter(self: &Arc<Self>, address: AddressBucket, work: Box<dyn Work>, wait: Span) -> Option<Place> {
        let counted = Counted::on(metrics::gauge!("password_hashing_waiting"));
        let waiter = Waiter { work, since: Instant::now(), _counted: counted, _traced: wait };
        let arrival = self.line().queue.push(address.network(), address, waiter);
        let ticket = match arrival {
            Arrival::Waits(ticket) | Arrival::Displaces(ticket, _) => ticket,
            Arrival::Refused(_) => return None,
        };
        self.arrived.notify_one();
        Some(Place { pool: Arc::clone(self), address, ticket })
    }

    /// The life of an attendant: until the hasher is gone.
    fn attend(&self, to_compute: &Sender<Box<dyn Work>>, computed: &Receiver<Box<dyn Work>>) {
        while let Some(Waiter { work, since, _counted: counted, _traced: wait }) = self.next() {
            metrics::histogram!("password_hashing_wait_seconds").record(since.elapsed());
            drop((counted, wait));
            let Some(work) = to_compute.send(work).ok().and_then(|()| computed.recv().ok()) else { return };
            work.deliver();
        }
    }

    fn next(&self) -> Option<Waiter> {
        let mut line = self.line();
        loop {
            if line.is_closed {
                return None;
            }
            if let Some(waiter) = line.queue.pop() {
                return Some(waiter);
            }
            line = self.arrived.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// Somebody's place in the queue. Dropped with the request, and so is what waits at it.
struct Place {
    pool: Arc<Pool>,
    address: AddressBucket,
    ticket: Ticket,
}

impl Place {
    /// Gives it up; false if its turn has come already.
    fn leave(&self) -> bool {
        self.pool.line().queue.remove(self.address.network(), self.address, self.ticket).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The life of a thread that hashes: until its attendant is gone.
fn compute(asked: &Receiver<Box<dyn Work>>, computed: &Sender<Box<dyn Work>>) {
    yield_to_others();
    let mut workspace = Workspace::default();
    for mut work in asked {
        work.compute(&mut workspace);
        if computed.send(work).is_err() {
            return;
        }
    }
}

/// Threads have priorities of their own on Linux only; elsewhere this would be the whole process's.
fn yield_to_others() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        let cause: &(dyn Error + 'static) = &error;
        tracing::warn!(error = cause, "hashing threads can't be given a lower priority");
    }
}

fn judge(
    workspace: &mut Workspace,
    password: &str,
    stored: Option<&StoredHash>,
    others: &[Scheme],
) -> Verdict {
    if let Some(stored) = stored
        && workspace.verify(password, stored)
    {
        return if stored.scheme == Scheme::OURS { Verdict::Right } else { Verdict::RightButOutdated };
    }
    for scheme in std::iter::once(&Scheme::OURS).chain(others) {
        if stored.is_none_or(|stored| stored.scheme != *scheme) {
            workspace.verify(password, &StoredHash::decoy(*scheme));
        }
    }
    Verdict::Wrong
}

fn rng_salt(rng: &dyn Rng) -> [u8; 16] {
    let mut salt = [0; 16];
    rng.fill(&mut salt);
    salt
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(last: u8) -> AddressBucket {
        AddressBucket::of(Some(Ipv4Addr::new(198, 51, last, 1).into()))
    }

    /// One thread, and a way to keep it busy until the sender is dropped.
    async fn busy(queue: usize, patience: Duration) -> (Arc<Hasher>, mpsc::Sender<()>) {
        let hasher = Arc::new(Hasher::new(1, queue, patience).unwrap());
        let (release, held) = mpsc::channel();
        let (started, has_started) = oneshot::channel();
        let mut started = Some(started);
        let holder = Arc::clone(&hasher);
        tokio::spawn(async move {
            let stay_busy = move |_: &mut Workspace| {
                started.take().unwrap().send(()).unwrap();
                let _ = held.recv();
            };
            holder.run(address(0), stay_busy).await.unwrap();
        });
        has_started.await.unwrap();
        (hasher, release)
    }

    fn waiting(hasher: &Hasher) -> usize {
        hasher.pool.line().queue.len()
    }

    /// Lets spawned tasks run until that many wait.
    async fn until_waiting(hasher: &Hasher, count: usize) {
        while waiting(hasher) != count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_flood_from_one_address_delays_another_by_one_turn_and_pushes_it_out_never() {
        let (hasher, release) = busy(10, Duration::from_mins(1)).await;
        let (order, served) = mpsc::channel();
        let ask = |last: u8| {
            let (hasher, order) = (Arc::clone(&hasher), order.clone());
            tokio::spawn(async move { hasher.run(address(last), move |_| order.send(last).unwrap()).await })
        };
        let mut flood: Vec<_> = (0..10).map(|_| ask(1)).collect();
        until_waiting(&hasher, 10).await;
        let other = ask(2);
        // The newest of the flood has made room.
        let displaced = flood.pop().unwrap().await.unwrap();
        assert!(matches!(displaced, Err(PasswordError::Busy { retry_after_seconds: 60 })), "{displaced:?}");
        drop(release);
        other.await.unwrap().unwrap();
        for one in flood {
            one.await.unwrap().unwrap();
        }
        drop(order);
        assert_eq!(served.iter().take(3).collect::<Vec<_>>(), [1, 2, 1]);
    }

    #[tokio::test]
    async fn a_flood_from_all_sites_of_a_network_pushes_no_other_out() {
        let (hasher, release) = busy(200, Duration::from_mins(1)).await;
        let (order, served) = mpsc::channel();
        let ask = |text: String| {
            let (hasher, order) = (Arc::clone(&hasher), order.clone());
            let address = AddressBucket::of(Some(text.parse().unwrap()));
            tokio::spawn(async move { hasher.run(address, move |_| order.send(text.clone()).unwrap()).await })
        };
        let flood: Vec<_> = (0..200).map(|site| ask(format!("2001:db8:0:{site:x}::1"))).collect();
        until_waiting(&hasher, 200).await;
        let other = ask("203.0.113.1".to_owned());
        tokio::task::yield_now().await;
        drop(release);
        other.await.unwrap().unwrap();
        let mut served_of_flood = 0;
        for one in flood {
            served_of_flood += u32::from(one.await.unwrap().is_ok());
        }
        assert_eq!(served_of_flood, 199, "one of the flood gave way");
        assert_eq!(served.iter().nth(1).unwrap(), "203.0.113.1");
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_queue_and_is_never_hashed() {
        let (hasher, release) = busy(10, Duration::from_mins(1)).await;
        let (note, noted) = mpsc::channel();
        let asker = Arc::clone(&hasher);
        let gone = tokio::spawn(async move { asker.run(address(1), move |_| note.send(()).unwrap()).await });
        until_waiting(&hasher, 1).await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        assert_eq!(waiting(&hasher), 0);
        drop(release);
        hasher.run(address(1), |_| ()).await.unwrap();
        assert!(noted.try_recv().is_err());
    }

    #[tokio::test]
    async fn beyond_the_deadline_and_beyond_the_queue_the_answer_is_busy() {
        let (hasher, release) = busy(1, Duration::from_millis(20)).await;
        let first = hasher.run(address(1), |_| ()).await;
        assert!(matches!(first, Err(PasswordError::Busy { retry_after_seconds: 1 })), "{first:?}");
        assert_eq!(waiting(&hasher), 0);
        drop(release);

        let (hasher, release) = busy(1, Duration::from_mins(1)).await;
        let asker = Arc::clone(&hasher);
        let has_the_place = tokio::spawn(async move { asker.run(address(1), |_| ()).await });
        until_waiting(&hasher, 1).await;
        let second = hasher.run(address(2), |_| ()).await;
        assert!(matches!(second, Err(PasswordError::Busy { retry_after_seconds: 60 })), "{second:?}");
        drop(release);
        has_the_place.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_defect_takes_no_thread_with_it() {
        let hasher = Hasher::new(1, 1, Duration::from_mins(1)).unwrap();
        let defect = hasher.run(address(1), |_| panic!("an index out of bounds")).await;
        assert!(matches!(defect, Err::<(), _>(PasswordError::Defect)), "{defect:?}");
        assert_eq!(waiting(&hasher), 0);
        assert_eq!(hasher.run(address(1), |_| 7).await.unwrap(), 7, "on its one thread, from its one place");
    }

    const BCRYPT: &str = "$2b$04$FZwntQykG8CKGnPOP0ttTOtiXwb2NbZaXer9a3qd0uM28x8dH9eme";

    #[tokio::test]
    async fn a_right_password_is_told_from_one_that_is_hashed_in_another_way_and_from_a_wrong_one() {
        let hasher = Hasher::new(1, 1, Duration::from_mins(1)).unwrap();
        let right = SecretString::from("correct horse battery");
        let ours = hasher.hash_again(&right, &mana_platform::SystemRng, address(1)).await.unwrap();
        let weaker = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        for (password, stored, verdict) in [
            ("correct horse battery", Some(&*ours), Verdict::Right),
            ("correct horse battery", Some(BCRYPT), Verdict::RightButOutdated),
            ("password", Some(weaker), Verdict::RightButOutdated),
            ("wrong", Some(&*ours), Verdict::Wrong),
            ("wrong", Some(BCRYPT), Verdict::Wrong),
            ("correct horse battery", None, Verdict::Wrong),
            ("", Some("no hash"), Verdict::Wrong),
            ("", Some("$2b$31$FZwntQykG8CKGnPOP0ttTOtiXwb2NbZaXer9a3qd0uM28x8dH9eme"), Verdict::Wrong),
        ] {
            let others = vec![Scheme::Bcrypt { cost: 4 }];
            let password = SecretString::from(password);
            let stored = stored.map(str::to_owned);
            assert_eq!(
                hasher.examine(&password, stored.clone(), others, address(1)).await.unwrap(),
                verdict,
                "{stored:?}"
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn hashing_yields_to_everything_else() {
        let hasher = Hasher::new(1, 1, Duration::from_mins(1)).unwrap();
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        assert_eq!(hasher.run(address(1), move |_| own()).await.unwrap(), NICENESS);
        assert_eq!(own(), before, "the other threads keep theirs");
    }

    #[tokio::test]
    async fn the_threads_end_with_the_hasher() {
        let hasher = Hasher::new(2, 1, Duration::from_mins(1)).unwrap();
        let pool = Arc::downgrade(&hasher.pool);
        drop(hasher);
        while pool.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    }
}
