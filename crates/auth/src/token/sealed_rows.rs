//! `keys rekey`: rows that are sealed under a root secret, sealed under the newest one, whatever they hold.

use super::root_secret::{Purpose, Resealed, RootSecretError, RootSecrets};
use mana_kernel::{ErrorCode, Problem, Rng};
use mana_platform::http::codes;
use mana_platform::{Database, DbError};
use sqlx::PgConnection;

/// Rows of one transaction at most, so that nobody who needs one waits for long.
const BATCH: i64 = 500;

/// A row that is sealed under a version of the root secret.
pub(crate) struct SealedRow<Key> {
    pub(crate) key: Key,
    pub(crate) sealed: Vec<u8>,
    pub(crate) version: String,
}

/// A table of such rows, in the order of their keys.
pub(crate) trait SealedRows {
    /// What names a row; the default comes before all.
    type Key: Default;
    /// What its key is derived for.
    const PURPOSE: Purpose;

    /// What a row is bound to.
    fn name(key: &Self::Key) -> String;

    /// Rows behind `after` that are sealed under another version than `version`, at most `limit`. Nobody else changes them until the
    /// transaction ends.
    async fn lock_sealed_otherwise(
        connection: &mut PgConnection,
        version: &str,
        after: &Self::Key,
        limit: i64,
    ) -> Result<Vec<SealedRow<Self::Key>>, DbError>;

    /// Replaces what is sealed.
    async fn update_sealed(
        connection: &mut PgConnection,
        key: &Self::Key,
        sealed: &[u8],
        version: &str,
    ) -> Result<(), DbError>;
}

/// Why rows could not be sealed anew.
#[derive(Debug, thiserror::Error)]
pub enum RekeyError {
    /// The newest root secret does not seal.
    #[error(transparent)]
    Seal(#[from] RootSecretError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl Problem for RekeyError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::Seal(_) => &codes::INTERNAL,
            Self::Database(error) => error.code(),
        }
    }
}

/// Seals all rows under the newest root secret. Stopped half way, it goes on where it was the next time.
pub(crate) async fn rekey<Rows: SealedRows>(
    database: &Database,
    root_secrets: &RootSecrets,
    rng: &dyn Rng,
) -> Result<Resealed, RekeyError> {
    let newest = root_secrets.current_id();
    let (mut rekeyed, mut after) = (Resealed::default(), Rows::Key::default());
    loop {
        let mut transaction = database.begin().await?;
        let batch = Rows::lock_sealed_otherwise(&mut transaction, newest, &after, BATCH).await?;
        if batch.is_empty() {
            return Ok(rekeyed);
        }
        for SealedRow { key, sealed, version } in batch {
            match root_secrets.reseal(&sealed, Rows::PURPOSE, &Rows::name(&key), &version, rng)? {
                Some(sealed) => {
                    Rows::update_sealed(&mut transaction, &key, &sealed, newest).await?;
                    rekeyed.resealed = rekeyed.resealed.saturating_add(1);
                }
                None => rekeyed.closed = rekeyed.closed.saturating_add(1),
            }
            after = key;
        }
        transaction.commit().await?;
    }
}
