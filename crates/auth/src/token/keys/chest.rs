//! Where the keys are kept, and what opens them.

use super::model::{Key, KeyError, KeyPolicy, Life, PrivateHalf};
use super::pair::{SigningKey, VerifyingKey, generate_pem};
use super::store::{self, NewKey, StoredKey};
use crate::token::root_secret::{Purpose, RootSecretError, RootSecrets};
use mana_kernel::{Clock, Rng};
use mana_platform::Database;
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::Arc;

/// The stored keys of an installation, with what it takes to use and to change them.
#[derive(Debug, Clone)]
pub struct KeyChest {
    /// Where they are.
    pub database: Database,
    /// What opens them.
    pub root_secrets: Arc<RootSecrets>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// What the settings want of them.
    pub policy: KeyPolicy,
    /// The key that the environment gives, which then is the current one.
    pub given: Option<Arc<SigningKey>>,
}

impl KeyChest {
    /// All stored keys, as they are.
    pub(super) async fn read(&self) -> Result<Vec<StoredKey>, KeyError> {
        let mut transaction = self.database.begin().await?;
        Ok(store::list_keys(&mut transaction).await?)
    }

    /// A stored key as the rules see it.
    pub(super) fn key(&self, stored: &StoredKey) -> Result<Key, KeyError> {
        let private = match self.unseal(stored) {
            None => PrivateHalf::Absent,
            Some(Ok(_)) => PrivateHalf::Opens,
            Some(Err(_)) => PrivateHalf::Closed,
        };
        Ok(Key { kid: stored.kid.clone(), kind: stored.public()?.kind(), private, life: stored.life() })
    }

    /// Opens a stored key; none if its private half is not there.
    pub(super) fn open(&self, stored: &StoredKey) -> Result<Option<SigningKey>, KeyError> {
        let opened = self.unseal(stored).transpose();
        let pem = opened.map_err(|cause| KeyError::Sealed { kid: stored.kid.clone(), cause })?;
        pem.map(|pem| SigningKey::from_pem(&pem).map_err(|_| KeyError::Damaged(stored.kid.clone())))
            .transpose()
    }

    /// The private half in clear; none if it is not there.
    pub(super) fn unseal(&self, stored: &StoredKey) -> Option<Result<SecretString, RootSecretError>> {
        let (sealed, version) = (stored.private_key_sealed.as_ref()?, stored.secret_version.as_ref()?);
        let plain = self.root_secrets.open(sealed, Purpose::SealedKeys, &stored.kid, version);
        Some(plain.and_then(|plain| {
            let text = String::from_utf8(plain).map_err(|_| RootSecretError::DoesNotOpen(version.clone()))?;
            Ok(SecretString::from(text))
        }))
    }

    /// A private half sealed under the newest root secret.
    pub(super) fn seal(&self, kid: &str, pem: &SecretString) -> Result<Vec<u8>, KeyError> {
        self.root_secrets
            .seal(pem.expose_secret().as_bytes(), Purpose::SealedKeys, kid, &*self.rng)
            .map_err(|cause| KeyError::Sealed { kid: kid.to_owned(), cause })
    }

    /// A new key of the kind that the settings want. Off the threads that answer requests: it may take seconds.
    pub(super) async fn make(&self) -> Result<NewKey, KeyError> {
        let kind = self.policy.kind;
        let pem = tokio::task::spawn_blocking(move || generate_pem(kind)).await;
        let pem = pem.map_err(|_| KeyError::Generate)??;
        let key = SigningKey::from_pem(&pem)?;
        Ok(NewKey {
            private_key_sealed: Some(self.seal(key.kid(), &pem)?),
            secret_version: Some(self.root_secrets.current_id().to_owned()),
            ..NewKey::public(&key)?
        })
    }
}

impl NewKey {
    /// The public half of a key whose private one is not stored.
    pub(super) fn public(key: &SigningKey) -> Result<Self, KeyError> {
        Ok(Self {
            kid: key.kid().to_owned(),
            algorithm: key.kind().algorithm(),
            public_jwk: serde_json::to_value(key.jwk()).map_err(|_| KeyError::Generate)?,
            private_key_sealed: None,
            secret_version: None,
        })
    }
}

impl StoredKey {
    /// Its public half.
    pub(super) fn public(&self) -> Result<VerifyingKey, KeyError> {
        let damaged = || KeyError::Damaged(self.kid.clone());
        let jwk = serde_json::from_value(self.public_jwk.clone()).map_err(|_| damaged())?;
        let key = VerifyingKey::from_jwk(jwk)?;
        if key.kid() == self.kid { Ok(key) } else { Err(damaged()) }
    }

    /// What its timestamps say.
    pub(super) fn life(&self) -> Life {
        Life { created_at: self.created_at, activated_at: self.activated_at, served_until: self.served_until }
    }
}
