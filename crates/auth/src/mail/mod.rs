//! Mails to the owners of accounts: written down in the transaction of what they tell of, sent by a pass of their own.
//! Owns `auth.outgoing_mails` and `auth.mail_budgets`.
//!
//! A mail is sent at least once: a server that dies between the sending and the note of it leaves the mail to be sent
//! again, under the same Message-ID. Two servers that live never send one twice.

mod deliver;
mod model;
pub(crate) mod store;

pub use deliver::deliver_due;
pub use model::MailError;
pub(crate) use model::{BUDGET_WINDOW, Letter};

use crate::Auth;
use crate::token::root_secret::{Purpose, RootSecrets};
use mana_kernel::secret::sha256;
use mana_kernel::{Clock, Rng, UserId};
use mana_platform::mail::{Mailer, Message, Recipient, Subject};
use model::MAILS_PER_HOUR;
use sqlx::PgConnection;
use std::sync::Arc;
use tokio::sync::Notify;
use uuid::Uuid;

/// The way out for mails, and the bell that says that one waits.
#[derive(Debug)]
pub struct Mails {
    mailer: Arc<dyn Mailer>,
    bell: Arc<Notify>,
}

impl Mails {
    /// Mails that go out by `mailer`.
    pub fn new(mailer: Arc<dyn Mailer>) -> Self {
        Self { mailer, bell: Arc::default() }
    }

    /// Waits until this server has written a mail down; at once if it has since the last time.
    pub async fn written(&self) {
        self.bell.notified().await;
    }
}

/// What it takes to write a mail down.
#[derive(Debug)]
pub(crate) struct Desk<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) rng: &'a dyn Rng,
    pub(crate) root_secrets: &'a RootSecrets,
    service_name: &'a str,
    bell: Arc<Notify>,
}

impl<'a> Desk<'a> {
    /// In a process that sends no mails: servers find them at their next look at the queue.
    pub(crate) fn elsewhere(
        (clock, rng): (&'a dyn Clock, &'a dyn Rng),
        root_secrets: &'a RootSecrets,
        service_name: &'a str,
    ) -> Self {
        Self { clock, rng, root_secrets, service_name, bell: Arc::default() }
    }

    /// In a server.
    pub(crate) fn of(auth: &'a Auth) -> Self {
        let Auth { clock, rng, root_secrets, mails, policy, .. } = auth;
        let (service_name, bell) = (policy.service_name.as_str(), Arc::clone(&mails.bell));
        Self { clock: &**clock, rng: &**rng, root_secrets, service_name, bell }
    }
}

/// A mail may have been written down. Rings the bell when dropped: hold it until after the commit.
#[must_use = "dropped before the commit, it rings too early and the mail waits for the next look at the queue"]
#[derive(Debug)]
pub struct Written(Option<Arc<Notify>>);

impl Written {
    /// There was nothing to write.
    pub(crate) fn nothing() -> Self {
        Self(None)
    }

    /// There is something for whoever looks after mails.
    pub(crate) fn something(mails: &Mails) -> Self {
        Self(Some(Arc::clone(&mails.bell)))
    }

    /// Whether there is a mail: not, if the address had its share.
    pub(crate) fn is_a_mail(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(bell) = &self.0 {
            bell.notify_one();
        }
    }
}

/// Writes a mail down in `connection`'s transaction: if that commits, the mail will be sent. An address that had its share
/// for this hour, or that can't be mailed to, gets none, which is logged and is no failure of what the mail tells of.
///
/// # Errors
/// When the database fails or the letter can't be rendered.
pub(crate) async fn enqueue<L: Letter>(
    connection: &mut PgConnection,
    auth: &Auth,
    user: Option<&UserId>,
    address: &str,
    letter: &L,
) -> Result<Written, MailError> {
    enqueue_at(connection, &Desk::of(auth), user, address, letter).await
}

/// The same, also where no server is.
pub(crate) async fn enqueue_at<L: Letter>(
    connection: &mut PgConnection,
    Desk { clock, rng, root_secrets, service_name, bell }: &Desk<'_>,
    user: Option<&UserId>,
    address: &str,
    letter: &L,
) -> Result<Written, MailError> {
    let id = mana_kernel::id::new_uuid(*clock, *rng);
    let Ok(recipient) = Recipient::try_from(address.to_owned()) else {
        // Accounts that were imported may have any address.
        tracing::warn!(template = L::TEMPLATE, mail = %id, "mail not written: the address can't be mailed to");
        count(L::TEMPLATE, "unaddressable");
        return Ok(Written::nothing());
    };
    let now = clock.now();
    let window = now.saturating_sub(BUDGET_WINDOW);
    let written_so_far =
        store::hold_budget(connection, &sha256(address.as_bytes()), L::TEMPLATE, now, window).await?;
    if written_so_far > MAILS_PER_HOUR {
        let recipient = recipient.masked();
        tracing::warn!(template = L::TEMPLATE, mail = %id, recipient, "mail not written: the address had its share for this hour");
        count(L::TEMPLATE, "capped");
        return Ok(Written::nothing());
    }
    // First, where a phone still shows it: whose mail it is, before it asks for anything.
    let subject = Subject::try_from(format!("{service_name}: {}", letter.subject()))?;
    let (text, html) = (letter.text(service_name)?, letter.html(service_name)?);
    let mail = Message { id, recipient, subject, text, html };
    let sealed = root_secrets.seal(&serde_json::to_vec(&mail)?, Purpose::Mails, &sealed_as(id), *rng)?;
    let row = store::NewMail {
        id,
        user,
        template: L::TEMPLATE,
        sealed: &sealed,
        secret_version: root_secrets.current_id(),
        now,
    };
    store::insert_mail(connection, &row).await?;
    Ok(Written(Some(Arc::clone(bell))))
}

/// What a sealed mail is bound to: another row's content does not open, nor anything that is no mail.
fn sealed_as(id: Uuid) -> String {
    format!("mail {id}")
}

/// The kinds of all mails.
const TEMPLATES: [&str; 13] = [
    "account_deleted",
    "auto_top_up_paused",
    "change_email",
    "email_changes",
    "low_balance",
    "magic_link",
    "new_device",
    "password_changed",
    "protection_changed",
    "reset_password",
    "sign_in_code",
    "taken_away",
    "verify_email",
];

/// Every way that a mail can go.
pub(crate) fn count_from_zero() {
    for template in TEMPLATES {
        for outcome in ["sent", "logged", "delayed", "refused", "given_up", "capped", "unaddressable"] {
            metrics::counter!("mails_total", "template" => template, "outcome" => outcome).increment(0);
        }
    }
}

fn count(template: &str, outcome: &'static str) {
    metrics::counter!("mails_total", "template" => template.to_owned(), "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use mana_platform::SystemClock;
    use mana_platform::mail::Outbox;

    #[test]
    fn every_kind_of_mail_is_counted_from_zero() {
        let sources = [include_str!("../verification/letters.rs"), include_str!("../new_device/announce.rs")];
        let lines = sources.iter().flat_map(|source| source.lines());
        let mut kinds: Vec<_> =
            lines.filter_map(|line| line.split_once(": &'static str = \"")?.1.strip_suffix("\";")).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, TEMPLATES);
    }

    #[test]
    fn the_bell_rings_once_the_mail_is_let_go_and_not_before() {
        let mails = Mails::new(Arc::new(Outbox::new(Arc::new(SystemClock), 1)));
        let written = Written(Some(Arc::clone(&mails.bell)));
        assert!(mails.written().now_or_never().is_none());
        drop(written);
        assert!(mails.written().now_or_never().is_some(), "also for whoever comes to listen later");
        assert!(mails.written().now_or_never().is_none());
        drop(Written::nothing());
        assert!(mails.written().now_or_never().is_none());
    }
}
