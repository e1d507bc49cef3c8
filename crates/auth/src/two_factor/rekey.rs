//! `keys rekey`: seals the secrets of authenticator apps under the newest root secret, so that older ones can be left out.

use super::store;
use crate::token::root_secret::{Purpose, Resealed, RootSecrets};
use crate::token::sealed_rows::{RekeyError, SealedRow, SealedRows, rekey};
use mana_kernel::Rng;
use mana_platform::{Database, DbError};
use sqlx::PgConnection;

struct TotpSecrets;

impl SealedRows for TotpSecrets {
    /// The user.
    type Key = String;
    const PURPOSE: Purpose = Purpose::TotpSecrets;

    fn name(key: &String) -> String {
        key.clone()
    }

    async fn lock_sealed_otherwise(
        connection: &mut PgConnection,
        version: &str,
        after: &String,
        limit: i64,
    ) -> Result<Vec<SealedRow<String>>, DbError> {
        let rows = store::lock_sealed_otherwise(connection, version, after, limit).await?;
        let rows = rows.into_iter().map(|row| SealedRow {
            key: row.user_id,
            sealed: row.bytes,
            version: row.version,
        });
        Ok(rows.collect())
    }

    async fn update_sealed(
        connection: &mut PgConnection,
        key: &String,
        sealed: &[u8],
        version: &str,
    ) -> Result<(), DbError> {
        store::update_sealed(connection, key, sealed, version).await
    }
}

/// Seals all of them under the newest root secret.
///
/// # Errors
/// When the database fails; what was sealed until then stays so.
pub async fn rekey_secrets(
    database: &Database,
    root_secrets: &RootSecrets,
    rng: &dyn Rng,
) -> Result<Resealed, RekeyError> {
    rekey::<TotpSecrets>(database, root_secrets, rng).await
}
