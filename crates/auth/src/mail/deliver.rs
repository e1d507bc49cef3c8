//! The pass that sends what waits.

use super::store::WaitingMail;
use super::{count, model, sealed_as, store};
use crate::Auth;
use crate::token::root_secret::Purpose;
use futures_util::future::join_all;
use mana_platform::DbError;
use mana_platform::mail::{Message, SendError, Taken};
use std::time::Instant;

/// Sends every mail that is due, or as many as a turn has time for. No transaction is open while a mail is being sent, so a slow SMTP server holds no
/// connection to the database.
///
/// # Errors
/// When the database fails. Mails that were claimed by then are due again when their lease is over.
pub async fn deliver_due(auth: &Auth) -> Result<(), DbError> {
    let began = Instant::now();
    // What comes in all the time would make one pass without an end, which would be ended in the middle of a sending.
    while began.elapsed() < model::TURN {
        let now = auth.clock.now();
        let mut transaction = auth.database.begin().await?;
        let leased_until = now.saturating_add(model::LEASE);
        let claimed = store::update_claimed(&mut transaction, now, leased_until, model::BATCH).await?;
        let (waiting, oldest) = store::find_backlog(&mut transaction).await?;
        transaction.commit().await?;
        metrics::gauge!("mails_waiting").set(u32::try_from(waiting).unwrap_or(u32::MAX));
        let age = oldest.map_or(0, |oldest| (now.unix_timestamp()).saturating_sub(oldest.unix_timestamp()));
        metrics::gauge!("mails_waiting_oldest_seconds").set(u32::try_from(age).unwrap_or(0));
        if claimed.is_empty() {
            return Ok(());
        }
        for noted in join_all(claimed.iter().map(|mail| deliver(auth, mail))).await {
            noted?;
        }
    }
    Ok(())
}

/// Sends one mail, writes its one log line, and notes the outcome.
async fn deliver(auth: &Auth, waiting: &WaitingMail) -> Result<(), DbError> {
    let (id, template, attempts) = (waiting.id, waiting.template.as_str(), waiting.attempts);
    let opened = open(auth, waiting);
    let recipient = opened.as_ref().map(|mail| mail.recipient.masked()).unwrap_or_default();
    let sent = match &opened {
        Ok(mail) => auth.mails.mailer.send(mail).await,
        Err(error) => Err(SendError::NotNow(error.clone())),
    };
    let mut transaction = auth.database.begin().await?;
    match sent {
        Ok(Taken::HandedOn) => {
            tracing::info!(mail = %id, template, recipient, attempts, "mail sent");
            count(template, "sent");
            store::delete_mail(&mut transaction, id).await?;
        }
        Ok(Taken::ByNobody) => {
            tracing::info!(mail = %id, template, recipient, attempts, "mail logged, not sent: there is no SMTP server");
            count(template, "logged");
            store::delete_mail(&mut transaction, id).await?;
        }
        Err(SendError::Refused(cause)) => {
            let cause = without_address(&cause, &opened);
            tracing::error!(mail = %id, template, recipient, attempts, cause, "mail refused and given up");
            count(template, "refused");
            store::delete_mail(&mut transaction, id).await?;
        }
        Err(SendError::NotNow(cause)) => {
            let cause = without_address(&cause, &opened);
            match model::next_attempt(waiting.created_at, attempts, auth.clock.now()) {
                Some(at) => {
                    tracing::warn!(mail = %id, template, recipient, attempts, cause, "mail delayed");
                    count(template, "delayed");
                    store::update_next_attempt(&mut transaction, waiting, at).await?;
                }
                None => {
                    tracing::error!(mail = %id, template, recipient, attempts, cause, "mail given up");
                    count(template, "given_up");
                    store::delete_mail(&mut transaction, id).await?;
                }
            }
        }
    }
    transaction.commit().await
}

/// A cause for the log: servers like to repeat the address that they refuse, which the log must not hold.
fn without_address(cause: &str, mail: &Result<Message, String>) -> String {
    let cause: String = cause.chars().take(500).collect();
    match mail {
        Ok(mail) => cause.replace(mail.recipient.as_str(), &mail.recipient.masked()),
        Err(_) => cause,
    }
}

/// What the row holds, or why it can't be read with what this server has. An operator may mend that.
fn open(auth: &Auth, waiting: &WaitingMail) -> Result<Message, String> {
    let plain = auth
        .root_secrets
        .open(&waiting.sealed, Purpose::Mails, &sealed_as(waiting.id), &waiting.secret_version)
        .map_err(|error| error.to_string())?;
    serde_json::from_slice(&plain).map_err(|_| "its content is not what this version writes".to_owned())
}
