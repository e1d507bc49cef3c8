//! When a mail is tried again, when it is given up, and how many an address gets.

use mana_kernel::{ErrorCode, Problem};
use mana_platform::DbError;
use mana_platform::http::codes;
use time::{Duration, OffsetDateTime};

/// Mails of one kind to one address within an hour. By kind, so that mails which anybody may cause, as those of a reset,
/// never use up those that warn the owner.
pub(crate) const MAILS_PER_HOUR: i32 = 5;

/// The time that the cap counts in.
pub(crate) const BUDGET_WINDOW: Duration = Duration::hours(1);

/// Whoever claims a mail has it to itself for this long. A mailer returns within a minute, so that a claim outlives a
/// sending; what a killed server had claimed waits for the rest of it.
pub(super) const LEASE: Duration = Duration::minutes(3);

/// How long one pass begins to send what is due.
pub(super) const TURN: std::time::Duration = std::time::Duration::from_mins(20);

/// Mails that are sent at the same time, each over a connection of its own.
pub(super) const BATCH: i64 = 8;

/// A mail that nobody took by then is given up. Most links in mails are dead before.
const GIVEN_UP_AFTER: Duration = Duration::days(3);
const FIRST_PAUSE: Duration = Duration::seconds(30);
const LONGEST_PAUSE: Duration = Duration::hours(1);

/// When to try again after `attempts` that failed, the last of them now; none when it has been long enough.
pub(super) fn next_attempt(
    created_at: OffsetDateTime,
    attempts: i32,
    now: OffsetDateTime,
) -> Option<OffsetDateTime> {
    if now >= created_at.saturating_add(GIVEN_UP_AFTER) {
        return None;
    }
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(16);
    let pause = FIRST_PAUSE.saturating_mul(2_i32.saturating_pow(doublings)).min(LONGEST_PAUSE);
    Some(now.saturating_add(pause))
}

/// What a mail says, in its reader's language.
pub(crate) trait Letter {
    /// Its kind, in the database, the log and the metrics.
    const TEMPLATE: &'static str;

    /// What it is about.
    fn subject(&self) -> &'static str;

    /// As plain text, under the name of the service.
    ///
    /// # Errors
    /// When it can't be rendered.
    fn text(&self, service_name: &str) -> askama::Result<String>;

    /// As HTML, under the name of the service.
    ///
    /// # Errors
    /// When it can't be rendered.
    fn html(&self, service_name: &str) -> askama::Result<String>;
}

/// Why a mail could not be written down.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// Its template failed.
    #[error("a mail could not be rendered: {0}")]
    Render(#[from] askama::Error),
    /// Its subject is not one line.
    #[error("a mail's subject {0}")]
    Subject(#[from] mana_kernel::text::InvalidText),
    /// It could not be put in order.
    #[error("a mail could not be written: {0}")]
    Json(#[from] serde_json::Error),
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] crate::token::root_secret::RootSecretError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl Problem for MailError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::Database(error) => error.code(),
            Self::Render(_) | Self::Subject(_) | Self::Json(_) | Self::Seal(_) => &codes::INTERNAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour_and_end_after_three_days() {
        let created_at = OffsetDateTime::UNIX_EPOCH;
        let mut now = created_at;
        let mut pauses = Vec::new();
        let mut attempts = 0;
        while let Some(next) = next_attempt(created_at, attempts + 1, now) {
            attempts += 1;
            pauses.push((next - now).whole_seconds());
            now = next;
        }
        assert_eq!(pauses[..9], [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert!(pauses[7..].iter().all(|pause| *pause == 3600));
        assert!(now - created_at >= Duration::days(3) && now - created_at < Duration::hours(73));
        assert!(next_attempt(created_at, i32::MAX, created_at).is_some());
    }
}
