//! Keys that sign access tokens: made on first start and kept sealed in the database, or given as PEM.

mod store;

use super::root_secret::{RootSecretError, RootSecrets};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use mana_kernel::{Clock, Rng};
use mana_platform::{Database, DbError};
use secrecy::{ExposeSecret as _, SecretString};
use store::StoredKey;

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// `JWT_PRIVATE_KEY` is no RSA key.
    #[error("JWT_PRIVATE_KEY is no RSA private key in PEM: {0}. `mana-core-auth keys generate` makes one")]
    Pem(jsonwebtoken::errors::Error),
    /// `JWT_PUBLIC_KEY` belongs to another key.
    #[error(
        "JWT_PUBLIC_KEY is not the public half of JWT_PRIVATE_KEY: give both from one pair, or leave the public one out"
    )]
    Mismatch,
    /// The key does not do its work.
    #[error("the signing key does not sign what its public half verifies: {0}")]
    Useless(jsonwebtoken::errors::Error),
    /// A key could not be made.
    #[error("a signing key could not be made")]
    Generate,
    /// A stored key can't be opened.
    #[error("the signing key {kid} can't be opened: {cause}")]
    Sealed {
        /// Its id.
        kid: String,
        /// What is wrong with the root secret.
        cause: RootSecretError,
    },
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// The key that signs, and all that verify.
pub struct KeyRing {
    signing: SigningKey,
    verifying: Vec<VerifyingKey>,
}

struct SigningKey {
    kid: String,
    key: EncodingKey,
}

struct VerifyingKey {
    kid: String,
    key: DecodingKey,
    jwk: Jwk,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing").field("signing", &self.signing.kid).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// The key given as PEM, or the one kept in the database, made there if it has none.
    ///
    /// # Errors
    /// When a given or stored key can't be used.
    pub async fn load(
        database: &Database,
        given: Option<(&SecretString, Option<&str>)>,
        secrets: &RootSecrets,
        clock: &dyn Clock,
        rng: &dyn Rng,
    ) -> Result<Self, KeyError> {
        match given {
            Some((private, public)) => Self::given(private, public),
            None => Self::from_pem(&stored_or_new(database, secrets, clock, rng).await?),
        }
    }

    /// The key kept in the database, if one has been made.
    ///
    /// # Errors
    /// When it can't be opened.
    pub async fn stored(database: &Database, secrets: &RootSecrets) -> Result<Option<Self>, KeyError> {
        let mut transaction = database.begin().await?;
        let stored = store::find_active_key(&mut transaction).await?;
        stored.map(|stored| Self::from_pem(&open(&stored, secrets)?)).transpose()
    }

    /// A ring of the key that the environment gives, with `\n` as text for line breaks.
    ///
    /// # Errors
    /// When it is no RSA private key, or the public half is another key's.
    pub fn given(private: &SecretString, public: Option<&str>) -> Result<Self, KeyError> {
        let private = SecretString::from(private.expose_secret().replace("\\n", "\n"));
        check_public_half(&private, public)?;
        Self::from_pem(&private)
    }

    /// Id of the key that signs.
    pub fn id(&self) -> &str {
        &self.signing.kid
    }

    /// Signs a message and verifies it with the public half.
    ///
    /// # Errors
    /// When either fails.
    pub fn prove(&self) -> Result<(), KeyError> {
        let header = jsonwebtoken::Header {
            kid: Some(self.signing.kid.clone()),
            ..jsonwebtoken::Header::new(Algorithm::RS256)
        };
        let token = jsonwebtoken::encode(&header, &serde_json::json!({"proof": true}), &self.signing.key)
            .map_err(KeyError::Useless)?;
        let mut validation = jsonwebtoken::Validation::new(Algorithm::RS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        let key = self.verifying(&self.signing.kid).ok_or(KeyError::Generate)?;
        jsonwebtoken::decode::<serde_json::Value>(token, key, &validation).map_err(KeyError::Useless)?;
        Ok(())
    }

    /// A ring of the one key.
    ///
    /// # Errors
    /// When it is no RSA private key.
    pub fn from_pem(pem: &SecretString) -> Result<Self, KeyError> {
        let key = EncodingKey::from_rsa_pem(pem.expose_secret().as_bytes()).map_err(KeyError::Pem)?;
        let jwk = public_jwk(&key)?;
        let kid = jwk.common.key_id.clone().unwrap_or_default();
        let verifying =
            VerifyingKey { kid: kid.clone(), key: DecodingKey::from_jwk(&jwk).map_err(KeyError::Pem)?, jwk };
        Ok(Self { signing: SigningKey { kid, key }, verifying: vec![verifying] })
    }

    /// Id and private half of the key that signs.
    pub(crate) fn signing(&self) -> (&str, &EncodingKey) {
        (&self.signing.kid, &self.signing.key)
    }

    /// The public half of a key by its id.
    pub(crate) fn verifying(&self, kid: &str) -> Option<&DecodingKey> {
        self.verifying.iter().find(|key| key.kid == kid).map(|key| &key.key)
    }

    /// All public halves.
    pub fn public(&self) -> impl Iterator<Item = &Jwk> {
        self.verifying.iter().map(|key| &key.jwk)
    }
}

/// A new RSA private key of 2048 bits as PEM (PKCS#8).
///
/// # Errors
/// When the key generator fails.
pub fn generate_pem() -> Result<SecretString, KeyError> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate)?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Generate)?;
    Ok(SecretString::from(pem::encode(&pem::Pem::new("PRIVATE KEY", der.as_ref()))))
}

/// The public half of a private key in PEM, as PEM (`SubjectPublicKeyInfo`).
///
/// # Errors
/// When it is no RSA private key.
pub fn public_pem(private: &SecretString) -> Result<String, KeyError> {
    let key = EncodingKey::from_rsa_pem(private.expose_secret().as_bytes()).map_err(KeyError::Pem)?;
    let pair = KeyPair::from_der(key.as_bytes()).map_err(|_| KeyError::Generate)?;
    let public = aws_lc_rs::signature::KeyPair::public_key(&pair);
    let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = public.as_der().map_err(|_| KeyError::Generate)?;
    Ok(pem::encode(&pem::Pem::new("PUBLIC KEY", der.as_ref())))
}

fn check_public_half(private: &SecretString, public: Option<&str>) -> Result<(), KeyError> {
    let Some(public) = public else { return Ok(()) };
    let body = |pem: &str| pem.replace("\\n", "\n").split_whitespace().collect::<String>();
    if body(public) == body(&public_pem(private)?) { Ok(()) } else { Err(KeyError::Mismatch) }
}

/// As JWK (RFC 7517), with its thumbprint (RFC 7638) as id.
fn public_jwk(key: &EncodingKey) -> Result<Jwk, KeyError> {
    let mut jwk = Jwk::from_encoding_key(key, Algorithm::RS256).map_err(KeyError::Pem)?;
    jwk.common.key_algorithm = Some(KeyAlgorithm::RS256);
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).map_err(KeyError::Pem)?);
    Ok(jwk)
}

/// Several servers may start at once on an empty database: the first one makes the key, the others find it.
async fn stored_or_new(
    database: &Database,
    secrets: &RootSecrets,
    clock: &dyn Clock,
    rng: &dyn Rng,
) -> Result<SecretString, KeyError> {
    let mut transaction = database.begin().await?;
    store::lock_keys(&mut transaction).await?;
    let pem = match store::find_active_key(&mut transaction).await? {
        Some(stored) => open(&stored, secrets)?,
        None => {
            let pem = generate_pem()?;
            store::insert_key(&mut transaction, &seal(&pem, secrets, rng)?, clock.now()).await?;
            pem
        }
    };
    transaction.commit().await.map_err(DbError::from)?;
    Ok(pem)
}

fn open(stored: &StoredKey, secrets: &RootSecrets) -> Result<SecretString, KeyError> {
    let closed = |cause| KeyError::Sealed { kid: stored.kid.clone(), cause };
    let plain =
        secrets.open(&stored.private_key_sealed, &stored.kid, &stored.secret_version).map_err(closed)?;
    let pem = String::from_utf8(plain)
        .map_err(|_| closed(RootSecretError::DoesNotOpen(stored.secret_version.clone())))?;
    Ok(SecretString::from(pem))
}

fn seal(pem: &SecretString, secrets: &RootSecrets, rng: &dyn Rng) -> Result<StoredKey, KeyError> {
    let keys = KeyRing::from_pem(pem)?;
    let kid = keys.id().to_owned();
    let public_jwk =
        keys.public().next().and_then(|jwk| serde_json::to_value(jwk).ok()).ok_or(KeyError::Generate)?;
    let private_half = pem.expose_secret().as_bytes();
    let private_key_sealed = secrets
        .seal(private_half, &kid, rng)
        .map_err(|cause| KeyError::Sealed { kid: kid.clone(), cause })?;
    Ok(StoredKey { kid, public_jwk, private_key_sealed, secret_version: secrets.current_id().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_has_the_public_half_it_says() {
        let (one, two) = (generate_pem().unwrap(), generate_pem().unwrap());
        assert!(check_public_half(&one, Some(&public_pem(&one).unwrap())).is_ok());
        assert!(check_public_half(&one, Some(&public_pem(&one).unwrap().replace('\n', "\\n"))).is_ok());
        assert!(matches!(check_public_half(&one, Some(&public_pem(&two).unwrap())), Err(KeyError::Mismatch)));
        assert!(KeyRing::from_pem(&SecretString::from("nonsense")).is_err());
    }
}
