//! A password that was right, but is hashed in another way than new ones, is hashed anew while it is at hand.

use super::model::PasswordError;
use super::store;
use crate::Auth;
use mana_kernel::UserId;
use mana_platform::DbError;
use mana_platform::http::AddressBucket;
use secrecy::SecretString;

#[derive(Debug, thiserror::Error)]
enum UpgradeError {
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Database(#[from] DbError),
}

/// Replaces the hash `outdated`, unless somebody else has. That it could not be replaced now is told to the log: the next
/// sign-in tries again, and this one has succeeded.
///
/// All of the password counts from then on, also where bcrypt had looked at its first 72 bytes.
pub(crate) async fn upgrade(
    auth: &Auth,
    user: &UserId,
    password: &SecretString,
    outdated: &str,
    client: AddressBucket,
) {
    let outcome = match replace(auth, user, password, outdated, client).await {
        Ok(()) => "done",
        Err(error) => {
            let cause: &(dyn std::error::Error + 'static) = &error;
            tracing::warn!(cause, "an outdated password hash stays until the next sign-in");
            "failed"
        }
    };
    metrics::counter!("password_upgrades_total", "outcome" => outcome).increment(1);
}

async fn replace(
    auth: &Auth,
    user: &UserId,
    password: &SecretString,
    outdated: &str,
    client: AddressBucket,
) -> Result<(), UpgradeError> {
    let hash = auth.hasher.hash_again(password, &*auth.rng, client).await?;
    let mut transaction = auth.database.begin().await?;
    store::update_outdated(&mut transaction, user, outdated, &hash, auth.clock.now()).await?;
    transaction.commit().await?;
    Ok(())
}
