//! `keys rekey`: seals the tokens of providers under the newest root secret, so that older ones can be left out.

use super::arrive::sealed_as;
use super::model::OAuthError;
use super::store;
use crate::token::root_secret::{Purpose, Resealed, RootSecrets};
use mana_kernel::Rng;
use mana_platform::{Database, DbError};
use uuid::Uuid;

/// Links of one transaction at most, so that nobody who signs in waits for long.
const BATCH: i64 = 500;

/// Seals all tokens of providers under the newest root secret. Stopped half way, it goes on where it was the next time.
///
/// # Errors
/// When the database fails; what was sealed until then stays so.
pub async fn rekey_tokens(
    database: &Database,
    root_secrets: &RootSecrets,
    rng: &dyn Rng,
) -> Result<Resealed, OAuthError> {
    let newest = root_secrets.current_id();
    let mut rekeyed = Resealed::default();
    let mut after = Uuid::nil();
    loop {
        let mut transaction = database.begin().await?;
        let batch = store::lock_sealed_otherwise(&mut transaction, newest, after, BATCH).await?;
        let Some(last) = batch.last() else { return Ok(rekeyed) };
        after = last.id;
        for tokens in batch {
            let name = sealed_as(tokens.id);
            let purpose = Purpose::ProviderTokens;
            let Some(sealed) = root_secrets.reseal(&tokens.sealed, purpose, &name, &tokens.version, rng)?
            else {
                rekeyed.closed = rekeyed.closed.saturating_add(1);
                continue;
            };
            store::update_sealed(&mut transaction, tokens.id, &sealed, newest).await?;
            rekeyed.resealed = rekeyed.resealed.saturating_add(1);
        }
        transaction.commit().await.map_err(DbError::from)?;
    }
}
