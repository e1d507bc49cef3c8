//! `keys rekey`: seals private keys under the newest root secret, so that older ones can be left out.

use super::KeyError;
use super::chest::KeyChest;
use super::model::KeyState;
use super::store;
use crate::token::root_secret::RootSecretError;

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RekeyedKey {
    /// Its id.
    pub kid: String,
    /// Where it stands.
    pub state: KeyState,
    /// What was done.
    pub outcome: RekeyOutcome,
}

/// What was done with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RekeyOutcome {
    /// It was sealed under the newest root secret already.
    Kept {
        /// The version.
        version: String,
    },
    /// It was opened and sealed anew.
    Resealed {
        /// Version that it was sealed under.
        from: String,
        /// Version that it is sealed under now.
        to: String,
    },
    /// It can't be opened, and was left as it is.
    Closed(RootSecretError),
}

impl KeyChest {
    /// Seals every private key under the newest root secret.
    ///
    /// # Errors
    /// When the database fails; nothing is changed then.
    pub async fn rekey(&self) -> Result<Vec<RekeyedKey>, KeyError> {
        let now = self.clock.now();
        let newest = self.root_secrets.current_id();
        let mut transaction = self.database.begin().await?;
        store::lock_keys(&mut transaction).await?;
        let mut rekeyed = Vec::new();
        for stored in store::list_keys(&mut transaction).await? {
            let (Some(opened), Some(version)) = (self.unseal(&stored), stored.secret_version.as_deref())
            else {
                continue;
            };
            let outcome = match opened {
                Err(cause) => RekeyOutcome::Closed(cause),
                Ok(_) if version == newest => RekeyOutcome::Kept { version: newest.to_owned() },
                Ok(pem) => {
                    let sealed = self.seal(&stored.kid, &pem)?;
                    store::update_sealed(&mut transaction, &stored.kid, &sealed, newest).await?;
                    RekeyOutcome::Resealed { from: version.to_owned(), to: newest.to_owned() }
                }
            };
            let state = stored.life().state(now);
            rekeyed.push(RekeyedKey { kid: stored.kid, state, outcome });
        }
        transaction.commit().await?;
        Ok(rekeyed)
    }
}
