//! Where mails end that go nowhere: kept in memory for a developer to read.

use super::{Mailer, Message, Sending, Taken};
use mana_kernel::Clock;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use time::OffsetDateTime;

/// A mail in the outbox.
#[derive(Debug, Clone)]
pub struct KeptMail {
    /// When it would have been sent.
    pub sent_at: OffsetDateTime,
    /// The mail.
    pub mail: Message,
}

/// Takes every mail and keeps the newest of them in memory. Nobody gets any.
#[derive(Debug)]
pub struct Outbox {
    clock: Arc<dyn Clock>,
    capacity: usize,
    kept: Mutex<VecDeque<KeptMail>>,
}

impl Outbox {
    /// Keeps the newest `capacity` mails; with 0, none.
    pub fn new(clock: Arc<dyn Clock>, capacity: usize) -> Self {
        Self { clock, capacity, kept: Mutex::default() }
    }

    /// What is kept, the newest first.
    pub fn mails(&self) -> Vec<KeptMail> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn keep(&self, mail: Message) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front(KeptMail { sent_at: self.clock.now(), mail });
        kept.truncate(self.capacity);
    }
}

impl Mailer for Outbox {
    fn send<'a>(&'a self, mail: &'a Message) -> Sending<'a> {
        self.keep(mail.clone());
        Box::pin(std::future::ready(Ok(Taken::ByNobody)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemClock;
    use uuid::Uuid;

    #[tokio::test]
    async fn the_newest_are_kept_and_come_first() {
        let outbox = Outbox::new(Arc::new(SystemClock), 2);
        for number in 1..=3 {
            let mail = Message {
                id: Uuid::from_u128(number),
                recipient: "ada@example.com".to_owned().try_into().unwrap(),
                subject: "A subject".to_owned().try_into().unwrap(),
                text: String::new(),
                html: String::new(),
            };
            assert_eq!(outbox.send(&mail).await.unwrap(), Taken::ByNobody);
        }
        let ids: Vec<_> = outbox.mails().iter().map(|kept| kept.mail.id.as_u128()).collect();
        assert_eq!(ids, [3, 2]);
    }
}
