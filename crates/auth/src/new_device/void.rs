//! What becomes of links that were mailed to an address which the account has no more.

use super::model::TAKES_FACTORS_FOR;
use super::store;
use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;

/// Has the links that were mailed so far end when their mails are three days old: whoever has the old mailbox need not be the owner any more. Not
/// sooner, or a thief voided them by another address. Those of the session that asked for the new one stay good: if it was not the owner's, the owner
/// reads the old mailbox.
pub(crate) async fn void_with_address(
    connection: &mut PgConnection,
    user: &UserId,
    asked_in: Option<&str>,
) -> Result<(), DbError> {
    store::update_void_from(connection, user, asked_in, TAKES_FACTORS_FOR).await
}
