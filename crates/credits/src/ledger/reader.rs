//! Reads of wallets, many at once: those that arrive while the last read runs are the next one.
//!
//! As with the [pipeline](super::pipeline), there is no timer. A wallet is given to whoever asked for that user, by the
//! user's id in its row.

use super::batch::Books;
use super::error::LedgerError;
use super::model::Wallet;
use super::queue::{Questions, Queue, Waiting};
use super::store;
use futures_util::FutureExt as _;
use mana_kernel::UserId;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use time::Date;
use tokio::time::timeout;

/// Reads that wait at most; with more, the service is busy.
const QUEUE: usize = 8192;
/// Wallets of a read at most.
const MAX_BATCH: usize = 256;
/// How long a read may take: it looks rows up and waits for nobody.
const LIMIT: Duration = Duration::from_secs(5);

/// The door to the reader. It ends when this is dropped.
#[derive(Debug)]
pub struct Reader(Queue<UserId, Found>);

type Found = Option<(Wallet, Date)>;

impl Reader {
    /// Starts it.
    pub fn start(books: &Arc<Books>) -> Self {
        let (queue, questions) = Queue::new(QUEUE);
        tokio::spawn(read_batches(Arc::clone(books), questions));
        Self(queue)
    }

    /// Whether it works.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// A user's wallet as it is, and the zone's today.
    pub(crate) async fn find_wallet(&self, user: &UserId) -> Result<Found, LedgerError> {
        self.0.ask(user.clone()).await
    }
}

async fn read_batches(books: Arc<Books>, mut questions: Questions<UserId, Found>) {
    let mut asked = Vec::with_capacity(MAX_BATCH);
    while questions.recv_many(&mut asked, MAX_BATCH).await > 0 {
        // A defect ends a read, and not who makes the next one.
        let found = AssertUnwindSafe(read(&books, &asked)).catch_unwind().await;
        let found = found.unwrap_or(Err(LedgerError::Defect));
        if let Err(error) = &found {
            let cause: &(dyn Error + 'static) = error;
            tracing::warn!(cause, reads = asked.len(), "wallets can't be read");
        }
        for Waiting { question: user, reply } in asked.drain(..) {
            let answer = match &found {
                Ok(loaded) => Ok(loaded.wallets.get(user.as_str()).cloned().zip(loaded.today)),
                Err(LedgerError::Defect) => Err(LedgerError::Defect),
                Err(_) => Err(LedgerError::Unavailable),
            };
            // Who asked may be gone.
            let _ = reply.send(answer);
        }
    }
}

async fn read(books: &Books, asked: &[Waiting<UserId, Found>]) -> Result<store::Loaded, LedgerError> {
    let users: Vec<String> = asked.iter().map(|asked| asked.question.as_str().to_owned()).collect();
    let mut connection = books.database.acquire().await?;
    let found = store::find_wallets(&mut connection, &users, &books.policy.daily_zone);
    match timeout(LIMIT, found).await {
        Ok(found) => Ok(found?),
        Err(_) => Err(connection.abandon().into()),
    }
}
