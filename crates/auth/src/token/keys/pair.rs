//! A key pair: made, read from PEM, signing; and its public half: as JWK, verifying. Each is parsed once.

use super::KeyError;
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters, EllipticCurveKeyType,
    Jwk, KeyAlgorithm, OctetKeyPairParameters, OctetKeyPairType, PublicKeyUse, RSAKeyParameters, RSAKeyType,
    ThumbprintHash,
};
use secrecy::{ExposeSecret as _, SecretString};

/// What a key is, and so which one algorithm it signs and verifies by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518, section 3.3).
    Rs256 {
        /// Length of the modulus.
        bits: usize,
    },
    /// ECDSA on P-256 with SHA-256 (RFC 7518, section 3.4).
    Es256,
    /// Ed25519 (RFC 8037).
    EdDsa,
}

impl KeyKind {
    /// As in the header of a token, in the key set and in the database.
    pub fn algorithm(self) -> &'static str {
        match self {
            Self::Rs256 { .. } => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl std::fmt::Display for KeyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rs256 { bits } => write!(f, "RS256, {bits} bits"),
            Self::Es256 | Self::EdDsa => f.write_str(self.algorithm()),
        }
    }
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A key that signs.
pub struct SigningKey {
    public: VerifyingKey,
    pair: Pair,
    /// The header of every token that it signs, in base64url.
    header: String,
}

/// The public half of a key.
pub struct VerifyingKey {
    kid: String,
    kind: KeyKind,
    key: ParsedPublicKey,
    jwk: Jwk,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public).finish()
    }
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyingKey")
            .field("kid", &self.kid)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A new private key as PEM (PKCS#8). Takes from microseconds (Ed25519) to seconds (RSA of 4096 bits).
///
/// # Errors
/// When the key generator fails, or an RSA key of another length is wanted than 2048, 3072 or 4096 bits.
pub fn generate_pem(kind: KeyKind) -> Result<SecretString, KeyError> {
    let failed = |_| KeyError::Generate;
    let text = |der: &[u8]| SecretString::from(pem::encode(&pem::Pem::new("PRIVATE KEY", der)));
    match kind {
        KeyKind::Rs256 { bits } => {
            let size = match bits {
                2048 => KeySize::Rsa2048,
                3072 => KeySize::Rsa3072,
                4096 => KeySize::Rsa4096,
                _ => return Err(KeyError::Generate),
            };
            let der: Pkcs8V1Der<'_> =
                RsaKeyPair::generate(size).and_then(|pair| pair.as_der()).map_err(failed)?;
            Ok(text(der.as_ref()))
        }
        KeyKind::Es256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
            Ok(text(pair.to_pkcs8v1().map_err(failed)?.as_ref()))
        }
        KeyKind::EdDsa => {
            let pair = Ed25519KeyPair::generate().map_err(failed)?;
            Ok(text(pair.to_pkcs8v1().map_err(failed)?.as_ref()))
        }
    }
}

impl SigningKey {
    /// Reads a private key: RSA of 2048 to 8192 bits, EC on P-256 or Ed25519, as PKCS#8; RSA as PKCS#1 and EC as SEC 1 too.
    ///
    /// # Errors
    /// When it is none of them.
    pub fn from_pem(pem: &SecretString) -> Result<Self, KeyError> {
        let pem = pem::parse(pem.expose_secret()).map_err(|_| KeyError::Pem)?;
        let der = pem.contents();
        let p256 = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = match pem.tag() {
            "PRIVATE KEY" => RsaKeyPair::from_pkcs8(der)
                .map(Pair::Rsa)
                .or_else(|_| EcdsaKeyPair::from_pkcs8(p256, der).map(Pair::P256))
                .or_else(|_| Ed25519KeyPair::from_pkcs8(der).map(Pair::Ed25519)),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(der).map(Pair::Rsa),
            "EC PRIVATE KEY" => EcdsaKeyPair::from_private_key_der(p256, der).map(Pair::P256),
            _ => return Err(KeyError::Pem),
        };
        let pair = pair.map_err(|_| KeyError::Pem)?;
        let public = VerifyingKey::of(&pair)?;
        // The order of the members as in every token that this service has ever signed.
        let header = format!(r#"{{"typ":"JWT","alg":"{}","kid":"{}"}}"#, public.kind.algorithm(), public.kid);
        Ok(Self { public, pair, header: BASE64URL.encode(header) })
    }

    /// Its id: the thumbprint of its public half (RFC 7638).
    pub fn kid(&self) -> &str {
        &self.public.kid
    }

    /// What it is.
    pub fn kind(&self) -> KeyKind {
        self.public.kind
    }

    /// As JWK (RFC 7517): public members only.
    pub fn jwk(&self) -> &Jwk {
        &self.public.jwk
    }

    /// Its public half as PEM (`SubjectPublicKeyInfo`).
    ///
    /// # Errors
    /// When it can't be written.
    pub fn public_pem(&self) -> Result<String, KeyError> {
        let der: PublicKeyX509Der<'_> = self.public.key.as_der().map_err(|_| KeyError::Generate)?;
        Ok(pem::encode(&pem::Pem::new("PUBLIC KEY", der.as_ref())))
    }

    /// Its public half, parsed anew: it may outlive the private one.
    pub(super) fn verifying(&self) -> Result<VerifyingKey, KeyError> {
        VerifyingKey::from_jwk(self.public.jwk.clone())
    }

    /// A compact JWS (RFC 7515) of `payload`.
    pub(crate) fn jws(&self, payload: &[u8]) -> Result<String, KeyError> {
        self.jws_under(&self.header, payload)
    }

    /// The same under the id by which somebody else knows the key.
    pub(crate) fn jws_as(&self, kid: &str, payload: &[u8]) -> Result<String, KeyError> {
        let header = serde_json::json!({"alg": self.kind().algorithm(), "kid": kid});
        self.jws_under(&BASE64URL.encode(header.to_string()), payload)
    }

    fn jws_under(&self, header: &str, payload: &[u8]) -> Result<String, KeyError> {
        let mut token = String::with_capacity(1024);
        token.push_str(header);
        token.push('.');
        BASE64URL.encode_string(payload, &mut token);
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        BASE64URL.encode_string(signature, &mut token);
        Ok(token)
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |_| KeyError::Useless(self.public.kid.clone());
        let rng = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &rng, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            Pair::P256(pair) => Ok(pair.sign(&rng, message).map_err(failed)?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Ok(pair.try_sign(message).map_err(failed)?.as_ref().to_vec()),
        }
    }

    /// Signs a message and verifies it with the public half.
    ///
    /// # Errors
    /// When either fails.
    pub fn prove(&self) -> Result<(), KeyError> {
        let message = b"proof";
        if self.public.verifies(message, &self.signature(message)?) {
            Ok(())
        } else {
            Err(KeyError::Useless(self.public.kid.clone()))
        }
    }
}

impl VerifyingKey {
    fn of(pair: &Pair) -> Result<Self, KeyError> {
        let algorithm = match pair {
            Pair::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                AlgorithmParameters::RSA(RSAKeyParameters {
                    key_type: RSAKeyType::RSA,
                    n: BASE64URL.encode(public.n),
                    e: BASE64URL.encode(public.e),
                })
            }
            Pair::P256(pair) => {
                let (x, y) = split_point(pair.public_key().as_ref()).ok_or(KeyError::Pem)?;
                AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters {
                    key_type: EllipticCurveKeyType::EC,
                    curve: EllipticCurve::P256,
                    x: BASE64URL.encode(x),
                    y: BASE64URL.encode(y),
                })
            }
            Pair::Ed25519(pair) => AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters {
                key_type: OctetKeyPairType::OctetKeyPair,
                curve: EllipticCurve::Ed25519,
                x: BASE64URL.encode(pair.public_key().as_ref()),
            }),
        };
        let mut jwk = Jwk { common: CommonParameters::default(), algorithm };
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_algorithm = Some(match pair {
            Pair::Rsa(_) => KeyAlgorithm::RS256,
            Pair::P256(_) => KeyAlgorithm::ES256,
            Pair::Ed25519(_) => KeyAlgorithm::EdDSA,
        });
        jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| KeyError::Pem)?);
        Self::from_jwk(jwk)
    }

    /// Reads a public half that has an id.
    pub(crate) fn from_jwk(jwk: Jwk) -> Result<Self, KeyError> {
        let kid = jwk.common.key_id.clone().ok_or_else(|| KeyError::Damaged(String::new()))?;
        let parsed = parse(&jwk.algorithm).ok_or_else(|| KeyError::Damaged(kid.clone()))?;
        Ok(Self { kid, kind: parsed.0, key: parsed.1, jwk })
    }

    /// Its id.
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// What it is.
    pub(crate) fn kind(&self) -> KeyKind {
        self.kind
    }

    /// As JWK.
    pub(crate) fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// Whether `signature` is this key's of `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

fn parse(public: &AlgorithmParameters) -> Option<(KeyKind, ParsedPublicKey)> {
    let decode = |text: &str| BASE64URL.decode(text).ok();
    if let AlgorithmParameters::RSA(rsa) = public {
        let (n, e) = (decode(&rsa.n)?, decode(&rsa.e)?);
        let bits = n.len().checked_mul(8)?;
        let key = RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).ok()?;
        return Some((KeyKind::Rs256 { bits }, key));
    }
    if let AlgorithmParameters::EllipticCurve(point) = public {
        // Uncompressed (SEC 1, section 2.3.3).
        let point = [vec![4], decode(&point.x)?, decode(&point.y)?].concat();
        return Some((KeyKind::Es256, ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?));
    }
    if let AlgorithmParameters::OctetKeyPair(point) = public {
        return Some((KeyKind::EdDsa, ParsedPublicKey::new(&ED25519, decode(&point.x)?).ok()?));
    }
    None
}

/// The coordinates of an uncompressed point on P-256.
fn split_point(point: &[u8]) -> Option<(&[u8], &[u8])> {
    point.strip_prefix(&[4]).filter(|rest| rest.len() == 64)?.split_at_checked(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [KeyKind; 3] = [KeyKind::Rs256 { bits: 2048 }, KeyKind::Es256, KeyKind::EdDsa];

    #[test]
    fn a_generated_key_signs_what_its_public_half_verifies() {
        for kind in KINDS {
            let key = SigningKey::from_pem(&generate_pem(kind).unwrap()).unwrap();
            assert_eq!(key.kind(), kind);
            key.prove().unwrap();
            let published: Jwk = serde_json::from_value(serde_json::to_value(key.jwk()).unwrap()).unwrap();
            let published = VerifyingKey::from_jwk(published).unwrap();
            assert_eq!((published.kid(), published.kind()), (key.kid(), kind));
            let signature = key.signature(b"message").unwrap();
            assert!(published.verifies(b"message", &signature));
            assert!(!published.verifies(b"massage", &signature));
            let other = SigningKey::from_pem(&generate_pem(kind).unwrap()).unwrap();
            assert_ne!(other.kid(), key.kid());
            assert!(!other.verifying().unwrap().verifies(b"message", &signature));
        }
    }

    #[test]
    fn the_example_of_rfc_8037_has_its_thumbprint() {
        // RFC 8037, appendices A.1 and A.3, as PKCS#8.
        let der = [
            &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20]
                [..],
            &BASE64URL.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap(),
        ]
        .concat();
        let pem = SecretString::from(pem::encode(&pem::Pem::new("PRIVATE KEY", der)));
        assert_eq!(SigningKey::from_pem(&pem).unwrap().kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn what_is_no_private_key_that_signs_is_refused() {
        let key = SigningKey::from_pem(&generate_pem(KeyKind::Es256).unwrap()).unwrap();
        let public = key.public_pem().unwrap();
        for bad in ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", &public]
        {
            assert!(matches!(SigningKey::from_pem(&SecretString::from(bad)), Err(KeyError::Pem)), "{bad}");
        }
        assert!(matches!(generate_pem(KeyKind::Rs256 { bits: 1024 }), Err(KeyError::Generate)));
    }
}
