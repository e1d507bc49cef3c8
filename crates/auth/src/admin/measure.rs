//! How many administrate, for `/metrics`: also of those who were made at a command line or by hand, which no server counts.

use crate::Auth;
use crate::account;
use mana_platform::DbError;

/// Counts them.
///
/// # Errors
/// When the database fails.
pub async fn measure(auth: &Auth) -> Result<(), DbError> {
    let administrators = account::store::count_admins(&mut *auth.database.acquire().await?).await?;
    metrics::gauge!("administrators").set(u32::try_from(administrators).unwrap_or(u32::MAX));
    Ok(())
}
