//! Public keys as authenticators write them (COSE, RFC 9052 and 9053), and the signatures by them.

use super::cbor::{as_number, take_map, under_number};
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use ciborium::Value;

/// A signature that a credential may have. Each has one kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// ECDSA on P-256 with SHA-256: what phones and security keys have.
    Es256,
    /// Ed25519.
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256: what older Windows machines have.
    Rs256,
}

/// All of them, the preferred first.
pub(super) const ALGORITHMS: [Algorithm; 3] = [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Rs256];

impl Algorithm {
    /// Its number at COSE.
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Es256 => -7,
            Self::EdDsa => -8,
            Self::Rs256 => -257,
        }
    }
}

/// 2048 to 4096 bits.
const RSA_LENGTHS: std::ops::RangeInclusive<usize> = 256..=512;

/// Why a key is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyRefusal {
    /// Not a key, or not one that the algorithm can have.
    Malformed,
    /// Of an algorithm that was not asked for.
    Algorithm,
}

/// A key that was found to be one.
#[derive(Debug)]
pub(super) struct PublicKey {
    key: Key,
}

#[derive(Debug)]
enum Key {
    Parsed(ParsedPublicKey),
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

impl PublicKey {
    /// Reads all of the bytes.
    pub(super) fn read(cose: &[u8]) -> Result<Self, KeyRefusal> {
        let mut rest = cose;
        let map = take_map(&mut rest).filter(|_| rest.is_empty()).ok_or(KeyRefusal::Malformed)?;
        let number = |label| under_number(&map, label).and_then(as_number).ok_or(KeyRefusal::Malformed);
        let bytes = |label| under_number(&map, label).and_then(Value::as_bytes).ok_or(KeyRefusal::Malformed);
        let algorithm = number(3)?;
        let algorithm = ALGORITHMS.into_iter().find(|known| known.number() == algorithm);
        let kind = number(1)?;
        let key = match (algorithm.ok_or(KeyRefusal::Algorithm)?, kind) {
            (Algorithm::Es256, 2) if number(-1)? == 1 => {
                let (x, y) = (bytes(-2)?, bytes(-3)?);
                // Both have the length of the field, or their border would not be where it is taken to be.
                let is_whole = x.len() == 32 && y.len() == 32;
                parse(is_whole, &ECDSA_P256_SHA256_ASN1, &[&[0x04], x.as_slice(), y].concat())?
            }
            (Algorithm::EdDsa, 1) if number(-1)? == 6 => {
                let x = bytes(-2)?;
                parse(x.len() == 32, &ED25519, x)?
            }
            (Algorithm::Rs256, 3) => {
                let (n, e) = (bytes(-1)?, bytes(-2)?);
                let is_canonical = n.first() != Some(&0) && e.first().is_some_and(|first| *first != 0);
                if !(RSA_LENGTHS.contains(&n.len()) && e.len() <= 4 && is_canonical) {
                    return Err(KeyRefusal::Malformed);
                }
                Key::Rsa { n: n.clone(), e: e.clone() }
            }
            _ => return Err(KeyRefusal::Malformed),
        };
        Ok(Self { key })
    }

    /// Whether the key's owner signed the message.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            Key::Parsed(key) => key.verify_sig(message, signature).is_ok(),
            Key::Rsa { n, e } => {
                PublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
        }
    }
}

fn parse(
    is_whole: bool,
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: &[u8],
) -> Result<Key, KeyRefusal> {
    let parsed = is_whole.then(|| ParsedPublicKey::new(algorithm, bytes).ok()).flatten();
    parsed.map(Key::Parsed).ok_or(KeyRefusal::Malformed)
}
