//! Keys that sign access tokens: made, published, rotated and kept sealed in the database, or given as PEM. Owns
//! `auth.jwks`.
//!
//! `model.rs` has the rules by which keys follow each other, `pair.rs` what a single key does, `chest.rs` what opens the
//! stored ones, `ring.rs` those that a running server holds in memory. The other files are verbs.

mod chest;
mod examine;
mod maintain;
pub mod model;
mod pair;
mod rekey;
mod ring;
mod rotate;
mod store;

pub use chest::KeyChest;
pub use examine::ExaminedKey;
pub use model::KeyPolicy;
pub use pair::{KeyKind, SigningKey, VerifyingKey, generate_pem};
pub use rekey::{RekeyOutcome, RekeyedKey};
pub use ring::KeyRing;
pub use rotate::Rotation;

use super::root_secret::RootSecretError;
use mana_platform::DbError;
use secrecy::{ExposeSecret as _, SecretString};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Why there is no key to sign with, or none that follows it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// `JWT_PRIVATE_KEY` is no key that signs.
    #[error(
        "JWT_PRIVATE_KEY is no private key in PEM that is RSA of at least 2048 bits, EC on P-256 or Ed25519. \
         `mana-core-auth keys generate` makes one"
    )]
    Pem,
    /// `JWT_PUBLIC_KEY` belongs to another key.
    #[error(
        "JWT_PUBLIC_KEY is not the public half of JWT_PRIVATE_KEY: give both from one pair, or leave the public one out"
    )]
    Mismatch,
    /// The key does not do its work.
    #[error("the signing key {0} does not sign what its public half verifies")]
    Useless(String),
    /// A key could not be made.
    #[error("a signing key could not be made")]
    Generate,
    /// A stored key can't be opened.
    #[error(
        "the signing key {kid} can't be opened: {cause}. If that secret is lost, `mana-core-auth keys rotate --force` \
         makes a new key; tokens that the old one signed stay good until they expire"
    )]
    Sealed {
        /// Its id.
        kid: String,
        /// What is wrong with the root secret.
        cause: RootSecretError,
    },
    /// A stored key is not one.
    #[error("the signing key {0} in auth.jwks is damaged: its row is not what this program writes")]
    Damaged(String),
    /// The next key is not known everywhere.
    #[error(
        "the next key is not known to everybody who verifies before {}, because they may keep the key set they have. \
         Rotate after that, or at once with --force: backends then refuse new tokens until they fetch the key set again",
        .0.format(&Rfc3339).unwrap_or_default()
    )]
    TooSoon(OffsetDateTime),
    /// The current key is not the database's.
    #[error(
        "the current key comes from JWT_PRIVATE_KEY and is replaced there: give the servers another one (`mana-core-auth keys \
         generate` makes it), or none to use keys of the database, and restart them. The old key's tokens stay good until they \
         expire"
    )]
    Environment,
    /// There is no key that this server can sign with.
    #[error("this server has no signing key that it can open")]
    NoKey,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// The key that the environment gives, with `\n` as text for line breaks.
///
/// # Errors
/// When it is no key that signs, or the public half is another key's.
pub fn given(private: &SecretString, public: Option<&str>) -> Result<SigningKey, KeyError> {
    let key = SigningKey::from_pem(&SecretString::from(private.expose_secret().replace("\\n", "\n")))?;
    let body = |pem: &str| pem.replace("\\n", "\n").split_whitespace().collect::<String>();
    match public {
        Some(public) if body(public) != body(&key.public_pem()?) => Err(KeyError::Mismatch),
        _ => Ok(key),
    }
}

/// The public half of a private key in PEM, as PEM (`SubjectPublicKeyInfo`).
///
/// # Errors
/// When it is no key that signs.
pub fn public_pem(private: &SecretString) -> Result<String, KeyError> {
    SigningKey::from_pem(private)?.public_pem()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_key_has_the_public_half_it_is_given_with() {
        for kind in [KeyKind::Rs256 { bits: 2048 }, KeyKind::Es256, KeyKind::EdDsa] {
            let (one, two) = (generate_pem(kind).unwrap(), generate_pem(kind).unwrap());
            let public = public_pem(&one).unwrap();
            assert!(given(&one, None).is_ok());
            assert!(given(&one, Some(&public)).is_ok());
            assert!(given(&one, Some(&public.replace('\n', "\\n"))).is_ok());
            assert!(matches!(given(&one, Some(&public_pem(&two).unwrap())), Err(KeyError::Mismatch)));
            let in_one_line = SecretString::from(one.expose_secret().replace('\n', "\\n"));
            assert_eq!(given(&in_one_line, None).unwrap().kid(), given(&one, None).unwrap().kid());
        }
    }
}
