//! `keys rekey`: seals the secrets of authenticator apps under the newest root secret, so that older ones can be left out.

use super::model::TwoFactorError;
use super::store;
use crate::token::root_secret::{Purpose, Resealed, RootSecrets};
use mana_kernel::Rng;
use mana_platform::{Database, DbError};

/// Secrets of one transaction at most, so that nobody who signs in waits for long.
const BATCH: i64 = 500;

/// Seals all of them under the newest root secret. Stopped half way, it goes on where it was the next time.
///
/// # Errors
/// When the database fails; what was sealed until then stays so.
pub async fn rekey_secrets(
    database: &Database,
    root_secrets: &RootSecrets,
    rng: &dyn Rng,
) -> Result<Resealed, TwoFactorError> {
    let newest = root_secrets.current_id();
    let (mut rekeyed, mut after) = (Resealed::default(), String::new());
    loop {
        let mut transaction = database.begin().await?;
        let batch = store::lock_sealed_otherwise(&mut transaction, newest, &after, BATCH).await?;
        let Some(last) = batch.last() else { return Ok(rekeyed) };
        after.clone_from(&last.user_id);
        for secret in batch {
            let (name, purpose) = (&secret.user_id, Purpose::TotpSecrets);
            match root_secrets.reseal(&secret.bytes, purpose, name, &secret.version, rng)? {
                Some(sealed) => {
                    store::update_sealed(&mut transaction, name, &sealed, newest).await?;
                    rekeyed.resealed = rekeyed.resealed.saturating_add(1);
                }
                None => rekeyed.closed = rekeyed.closed.saturating_add(1),
            }
        }
        transaction.commit().await.map_err(DbError::from)?;
    }
}
