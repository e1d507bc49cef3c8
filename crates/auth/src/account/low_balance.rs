//! Mails the owner of an account that little mana is left.

use super::store::{self, Account};
use crate::Auth;
use crate::mail::{self, MailError, Written};
use crate::verification::LowBalance;
use mana_kernel::UserId;
use mana_platform::http::Language;
use sqlx::PgConnection;

/// Writes the mail down, if the account still is somebody's, and the address proven: who has not proven it may not be who reads it. Hold the
/// outcome until after the commit.
///
/// # Errors
/// When the database fails.
pub async fn mail_low_balance(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &UserId,
    language: Language,
    available: i64,
    below: i64,
) -> Result<Written, MailError> {
    let account = store::find_account(connection, user).await?;
    let is_reached = |account: &Account| {
        account.deleted_at.is_none() && account.disabled_at.is_none() && account.user.email_verified
    };
    let Some(account) = account.filter(is_reached) else {
        return Ok(Written::nothing());
    };
    let letter = LowBalance { language, available, below };
    mail::enqueue(connection, auth, Some(user), account.user.email.as_str(), &letter).await
}
