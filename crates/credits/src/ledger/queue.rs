//! A bounded queue of questions that are answered many at once: what arrives while the last ones are worked on are the next.

use super::error::LedgerError;
use tokio::sync::{mpsc, oneshot};

/// Where questions are put. What works on them ends when this is dropped and all are answered.
#[derive(Debug)]
pub(super) struct Queue<Question, Answer>(mpsc::Sender<Waiting<Question, Answer>>);

/// A question that waits for its answer.
#[derive(Debug)]
pub(super) struct Waiting<Question, Answer> {
    pub(super) question: Question,
    pub(super) reply: oneshot::Sender<Result<Answer, LedgerError>>,
}

/// Where they are taken from.
pub(super) type Questions<Question, Answer> = mpsc::Receiver<Waiting<Question, Answer>>;

impl<Question, Answer> Queue<Question, Answer> {
    /// Of at most so many.
    pub(super) fn new(places: usize) -> (Self, Questions<Question, Answer>) {
        let (sender, questions) = mpsc::channel(places);
        (Self(sender), questions)
    }

    /// Whether somebody still takes questions.
    pub(super) fn is_open(&self) -> bool {
        !self.0.is_closed()
    }

    /// Waits for the answer. Whoever stops waiting may have been heard or not.
    pub(super) async fn ask(&self, question: Question) -> Result<Answer, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Waiting { question, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LedgerError::Busy,
            mpsc::error::TrySendError::Closed(_) => LedgerError::Stopped,
        })?;
        answer.await.map_err(|_| LedgerError::Stopped)?
    }
}
