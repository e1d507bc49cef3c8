//! What opens an account beside its password and its sessions, in one place, so that none is forgotten when it has to go.

use crate::{oauth, passkey, two_factor};
use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;

/// Removes every factor, passkey and linked account, and every sign-in that waits for a factor: for when the account gets another owner, or none. Whatever is added as a
/// way in is removed here as well.
pub(crate) async fn remove_ways_in(connection: &mut PgConnection, user: &UserId) -> Result<(), DbError> {
    oauth::store::delete_accounts_of(connection, user).await?;
    passkey::store::delete_passkeys(connection, user).await?;
    two_factor::store::delete_factors(connection, user).await?;
    two_factor::store::delete_half_proofs(connection, user).await
}
