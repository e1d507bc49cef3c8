//! Mails the owner of an account that little mana is left.

use super::store;
use crate::Auth;
use crate::mail::{self, MailError, Written};
use crate::verification::LowBalance;
use mana_kernel::UserId;
use mana_platform::http::Language;
use sqlx::PgConnection;

/// Writes the mail down, if the account still is somebody's. Hold the outcome until after the commit.
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
    let Some(account) =
        account.filter(|account| account.deleted_at.is_none() && account.disabled_at.is_none())
    else {
        return Ok(Written::nothing());
    };
    let letter = LowBalance { language, available, below };
    mail::enqueue(connection, auth, Some(user), account.user.email.as_str(), &letter).await
}
