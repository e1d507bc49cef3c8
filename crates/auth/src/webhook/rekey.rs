//! `keys rekey`: seals the secrets of endpoints under the newest root secret, so that older ones can be left out.

use super::{seal, store};
use crate::token::root_secret::{Purpose, Resealed, RootSecrets};
use crate::token::sealed_rows::{RekeyError, SealedRow, SealedRows, rekey};
use mana_kernel::Rng;
use mana_platform::{Database, DbError};
use sqlx::PgConnection;
use uuid::Uuid;

struct WebhookSecrets;

impl SealedRows for WebhookSecrets {
    type Key = Uuid;
    const PURPOSE: Purpose = Purpose::WebhookSecrets;

    fn name(key: &Uuid) -> String {
        seal::name(*key)
    }

    async fn lock_sealed_otherwise(
        connection: &mut PgConnection,
        version: &str,
        after: &Uuid,
        limit: i64,
    ) -> Result<Vec<SealedRow<Uuid>>, DbError> {
        let rows = store::lock_sealed_otherwise(connection, version, *after, limit).await?;
        let rows =
            rows.into_iter().map(|row| SealedRow { key: row.id, sealed: row.sealed, version: row.version });
        Ok(rows.collect())
    }

    async fn update_sealed(
        connection: &mut PgConnection,
        key: &Uuid,
        sealed: &[u8],
        version: &str,
    ) -> Result<(), DbError> {
        store::update_sealed(connection, *key, sealed, version).await
    }
}

/// Seals all secrets of endpoints under the newest root secret.
///
/// # Errors
/// When the database fails; what was sealed until then stays so.
pub async fn rekey_webhook_secrets(
    database: &Database,
    root_secrets: &RootSecrets,
    rng: &dyn Rng,
) -> Result<Resealed, RekeyError> {
    rekey::<WebhookSecrets>(database, root_secrets, rng).await
}
