//! What the accounts make of an auto top-up: who may be charged, an event, and a mail when it goes on no more.

use crate::Auth;
use crate::account::store::find_user;
use crate::mail::{self, MailError};
use crate::security_event::{self, EventKind};
use crate::verification::TopUpPaused;
use mana_kernel::UserId;
use mana_platform::DbError;
use mana_platform::http::Language;
use sqlx::PgConnection;

/// Why an auto top-up is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PausedFor {
    /// The card was declined too often.
    Declined,
    /// The bank wants to see its customer.
    AuthenticationRequired,
    /// The package gives or costs something else than what was agreed to.
    PackageChanged,
    /// The package is not for sale any more.
    PackageGone,
    /// The saved card is gone.
    PaymentMethodGone,
    /// The payment provider refuses the payment, and not for the card.
    ProviderRefuses,
    /// The user owes mana.
    Debt,
    /// A payment is contested.
    Disputed,
    /// A payment has gone back.
    Refunded,
    /// The wallet takes nothing any more.
    WalletClosed,
    /// A payment has come in and is not credited: a person has to see to it.
    Uncredited,
    /// The account may not act.
    UserDisabled,
    /// Tax is calculated now.
    Tax,
}

impl PausedFor {
    /// As in the event.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Declined => "declined",
            Self::AuthenticationRequired => "authentication_required",
            Self::PackageChanged => "package_changed",
            Self::PackageGone => "package_gone",
            Self::PaymentMethodGone => "payment_method_gone",
            Self::ProviderRefuses => "provider_refuses",
            Self::Debt => "debt",
            Self::Disputed => "disputed",
            Self::Refunded => "refunded",
            Self::WalletClosed => "wallet_closed",
            Self::Uncredited => "uncredited",
            Self::UserDisabled => "user_disabled",
            Self::Tax => "tax",
        }
    }
}

/// Whether the account may act, so that its card may be charged.
///
/// # Errors
/// When the database fails.
pub async fn may_be_charged(connection: &mut PgConnection, user: &UserId) -> Result<bool, DbError> {
    Ok(find_user(connection, user).await?.is_some())
}

/// Writes down that a user's auto top-up was turned on or off, in the transaction that does it.
///
/// # Errors
/// When the database fails.
pub async fn record_turned(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &UserId,
    is_on: bool,
) -> Result<(), DbError> {
    let kind = if is_on { EventKind::AutoTopUpOn } else { EventKind::AutoTopUpOff };
    security_event::record_by_command(connection, &*auth.clock, &*auth.rng, kind, user).await
}

/// Writes down that a user's auto top-up is paused, and writes its owner, who may still act, how to go on: at `till`, or in the app.
///
/// # Errors
/// When the database fails or the mail can't be written; the pause must roll back then.
pub async fn record_paused(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &UserId,
    reason: PausedFor,
    till: Option<&str>,
    language: Language,
) -> Result<(), MailError> {
    let kind = EventKind::AutoTopUpPaused(reason);
    security_event::record_by_command(connection, &*auth.clock, &*auth.rng, kind, user).await?;
    let Some(user) = find_user(connection, user).await? else { return Ok(()) };
    let link = till.unwrap_or(&auth.policy.frontend_url).to_owned();
    let letter = TopUpPaused { language, reason, link, is_till: till.is_some() };
    // The bell rings before the commit: the mail goes with the next look at the queue.
    drop(mail::enqueue(connection, auth, Some(&user.id), &user.email, &letter).await?);
    Ok(())
}
