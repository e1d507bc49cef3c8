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
pub use model::{KeyError, KeyPolicy};
pub use pair::{KeyKind, SigningKey, VerifyingKey, generate_pem};
pub use rekey::{RekeyOutcome, RekeyedKey};
pub use ring::{KeyRing, KeysUnread};
pub use rotate::Rotation;

use secrecy::{ExposeSecret as _, SecretString};

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
