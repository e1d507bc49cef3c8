//! Reads of wallets, many at once: those that arrive while the last read runs are the next one.
//!
//! As with the [pipeline](super::pipeline), there is no timer. A wallet is given to whoever asked for that user, by the
//! user's id in its row.

use super::batch::Books;
use super::error::LedgerError;
use super::model::Wallet;
use super::store;
use mana_kernel::UserId;
use mana_platform::DbError;
use std::error::Error;
use std::sync::Arc;
use time::Date;
use tokio::sync::{mpsc, oneshot};

/// Reads that wait at most; with more, the service is busy.
const QUEUE: usize = 8192;
/// Wallets of a read at most.
const MAX_BATCH: usize = 256;

/// The door to the reader. It ends when this is dropped.
#[derive(Debug)]
pub struct Reader(mpsc::Sender<Asked>);

type Found = Option<(Wallet, Date)>;

#[derive(Debug)]
struct Asked {
    user: UserId,
    reply: oneshot::Sender<Result<Found, LedgerError>>,
}

impl Reader {
    /// Starts it.
    pub fn start(books: &Arc<Books>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(read_batches(Arc::clone(books), receiver));
        Self(sender)
    }

    /// A user's wallet as it is, and the zone's today.
    pub(crate) async fn find_wallet(&self, user: &UserId) -> Result<Found, LedgerError> {
        let (reply, found) = oneshot::channel();
        self.0.try_send(Asked { user: user.clone(), reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LedgerError::Busy,
            mpsc::error::TrySendError::Closed(_) => LedgerError::Stopped,
        })?;
        found.await.map_err(|_| LedgerError::Stopped)?
    }
}

async fn read_batches(books: Arc<Books>, mut queue: mpsc::Receiver<Asked>) {
    let mut asked = Vec::with_capacity(MAX_BATCH);
    while queue.recv_many(&mut asked, MAX_BATCH).await > 0 {
        let found = read(&books, &asked).await;
        if let Err(error) = &found {
            let cause: &(dyn Error + 'static) = error;
            tracing::warn!(cause, reads = asked.len(), "wallets can't be read");
        }
        for Asked { user, reply } in asked.drain(..) {
            let answer = match &found {
                Ok(loaded) => Ok(loaded.wallets.get(user.as_str()).cloned().zip(loaded.today)),
                Err(_) => Err(LedgerError::Unavailable),
            };
            // Who asked may be gone.
            let _ = reply.send(answer);
        }
    }
}

async fn read(books: &Books, asked: &[Asked]) -> Result<store::Loaded, DbError> {
    let users: Vec<String> = asked.iter().map(|asked| asked.user.as_str().to_owned()).collect();
    let mut connection = books.database.acquire().await?;
    store::find_wallets(&mut connection, &users, &books.policy.daily_zone).await
}
