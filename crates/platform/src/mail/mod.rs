//! Mails: what one is, and the ways out. What they say and when they are sent is the accounts' affair.

mod outbox;
mod smtp;

pub use outbox::{KeptMail, Outbox};
pub use smtp::{MailSettings, MailSettingsError, Smtp};

use lettre::Address;
use mana_kernel::Line;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::pin::Pin;
use uuid::Uuid;

/// The text can't be mailed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no address that mail can be sent to")]
pub struct InvalidRecipient;

/// One address that mail can be sent to. Holds no display name, no second address and no line break.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Recipient(String);

impl Recipient {
    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a log may hold of it: the first character and the domain, as `a***@example.com`.
    pub fn masked(&self) -> String {
        let (local, domain) = self.0.rsplit_once('@').unwrap_or((&self.0, ""));
        let first: String = local.chars().take(1).collect();
        format!("{first}***@{domain}")
    }

    fn address(&self) -> Result<Address, InvalidRecipient> {
        self.0.parse().map_err(|_| InvalidRecipient)
    }
}

impl std::fmt::Debug for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.masked())
    }
}

impl TryFrom<String> for Recipient {
    type Error = InvalidRecipient;

    fn try_from(text: String) -> Result<Self, InvalidRecipient> {
        let is_plain = text.len() <= 254 && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        if is_plain && text.parse::<Address>().is_ok() { Ok(Self(text)) } else { Err(InvalidRecipient) }
    }
}

impl From<Recipient> for String {
    fn from(recipient: Recipient) -> Self {
        recipient.0
    }
}

/// A subject: one line, so that it can't become a second header.
pub type Subject = Line<1, 200>;

/// A mail that is ready to be sent. Its bodies may hold a secret link, so Debug shows none of them.
#[derive(Clone, Serialize, Deserialize)]
pub struct Message {
    /// Names the mail for ever: whoever gets it twice can tell.
    pub id: Uuid,
    /// Who gets it.
    pub recipient: Recipient,
    /// What it is about.
    pub subject: Subject,
    /// What it says, as plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("recipient", &self.recipient)
            .finish_non_exhaustive()
    }
}

/// Why a mail was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Not now: the server is away, slow, busy, not to be trusted or wrongly set up. The same mail may be taken later.
    #[error("{0}")]
    NotNow(String),
    /// Never: this mail will not be taken for this recipient.
    #[error("{0}")]
    Refused(String),
}

/// What became of a mail that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is on its way to its recipient.
    HandedOn,
    /// It goes no further: there is no way out, and its recipient does not get it.
    ByNobody,
}

/// What sending is under way as.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<Taken, SendError>> + Send + 'a>>;

/// Port: hands one mail on. Returns within a minute, whatever the other side does.
pub trait Mailer: Send + Sync + std::fmt::Debug {
    /// Hands `mail` on, once.
    fn send<'a>(&'a self, mail: &'a Message) -> Sending<'a>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_is_one_address_and_nothing_else() {
        for good in ["ada@example.com", "josé@example.com", "a+b@xn--bcher-kva.example"] {
            assert!(Recipient::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ada",
            "ada@example.com\r\nBcc: eve@example.com",
            "ada@example.com, eve@example.com",
            "Ada <ada@example.com>",
            "ada@example.com> SIZE=1",
            "a b@example.com",
            "ada@exam\u{a0}ple.com",
            &format!("{}@example.com", "x".repeat(260)),
        ] {
            assert_eq!(Recipient::try_from(bad.to_owned()), Err(InvalidRecipient), "{bad:?}");
        }
    }

    #[test]
    fn a_masked_recipient_keeps_the_first_letter_and_the_domain() {
        let recipient = Recipient::try_from("ada@example.com".to_owned()).unwrap();
        assert_eq!(recipient.masked(), "a***@example.com");
        assert_eq!(format!("{recipient:?}"), "a***@example.com");
    }

    #[test]
    fn debug_tells_neither_subject_nor_body() {
        let mail = Message {
            id: Uuid::nil(),
            recipient: Recipient::try_from("ada@example.com".to_owned()).unwrap(),
            subject: Subject::try_from("the subject".to_owned()).unwrap(),
            text: "secret".to_owned(),
            html: "secret".to_owned(),
        };
        let shown = format!("{mail:?}");
        assert!(
            !shown.contains("secret") && !shown.contains("subject") && !shown.contains("ada@"),
            "{shown}"
        );
    }
}
