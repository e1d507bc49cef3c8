//! An authenticator in software, with the browser before it: makes passkeys and signs with them, rightly, or wrong in the one thing that a
//! test changes.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciborium::Value as Cbor;
use mana_kernel::secret::sha256;
use serde_json::{Value, json};

/// What an authenticator signs by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// RSA, 2048 bits.
    Rs256,
}

#[derive(Debug)]
enum Key {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(rsa::KeyPair),
}

/// An authenticator that holds one passkey.
#[derive(Debug)]
pub struct Authenticator {
    key: Key,
    /// The credential's id.
    pub credential_id: Vec<u8>,
}

/// Everything that is signed. A test changes what it is about.
#[derive(Debug, Clone)]
pub struct Ceremony {
    /// `webauthn.create` or `webauthn.get`.
    pub kind: String,
    /// As in the options.
    pub challenge: String,
    /// The page.
    pub origin: String,
    /// More members of the client data.
    pub more: Value,
    /// The relying party.
    pub rp_id: String,
    /// UP 1, UV 4, BE 8, BS 16; that a credential is attested is added.
    pub flags: u8,
    /// The signature counter.
    pub sign_count: u32,
    /// The user as in the options of the registration.
    pub user_handle: Option<Vec<u8>>,
}

/// What came of a registration.
#[derive(Debug, Clone)]
pub struct Created {
    /// The credential's id.
    pub credential_id: Vec<u8>,
    /// `clientDataJSON`.
    pub client_data: Vec<u8>,
    /// `attestationObject`.
    pub attestation_object: Vec<u8>,
}

/// What came of a sign-in.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The credential's id.
    pub credential_id: Vec<u8>,
    /// `clientDataJSON`.
    pub client_data: Vec<u8>,
    /// `authenticatorData`.
    pub authenticator_data: Vec<u8>,
    /// `signature`.
    pub signature: Vec<u8>,
    /// `userHandle`.
    pub user_handle: Option<Vec<u8>>,
}

impl Ceremony {
    /// Presence and verification of the user.
    pub const PRESENT_AND_VERIFIED: u8 = 0x05;

    /// As the options of a registration want it, on a page.
    pub fn create(options: &Value, origin: &str) -> Self {
        let handle = options
            .pointer("/user/id")
            .and_then(Value::as_str)
            .and_then(|id| URL_SAFE_NO_PAD.decode(id).ok());
        Self {
            user_handle: handle,
            ..Self::of("webauthn.create", options, options.pointer("/rp/id"), origin)
        }
    }

    /// As the options of a sign-in want it, on a page, by a user.
    pub fn get(options: &Value, origin: &str, user: &str) -> Self {
        let handle = Some(user.as_bytes().to_vec());
        Self { user_handle: handle, ..Self::of("webauthn.get", options, options.get("rpId"), origin) }
    }

    fn of(kind: &str, options: &Value, rp_id: Option<&Value>, origin: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            challenge: options.get("challenge").and_then(Value::as_str).unwrap_or_default().to_owned(),
            origin: origin.to_owned(),
            more: json!({}),
            rp_id: rp_id.and_then(Value::as_str).unwrap_or_default().to_owned(),
            flags: Self::PRESENT_AND_VERIFIED,
            sign_count: 0,
            user_handle: None,
        }
    }

    fn client_data(&self) -> Vec<u8> {
        let mut data = json!({"type": self.kind, "challenge": self.challenge, "origin": self.origin, "crossOrigin": false});
        if let (Some(data), Some(more)) = (data.as_object_mut(), self.more.as_object()) {
            data.extend(more.clone());
        }
        data.to_string().into_bytes()
    }

    fn authenticator_data(&self, attested: &[u8]) -> Vec<u8> {
        let flags = self.flags | if attested.is_empty() { 0 } else { 0x40 };
        let count = self.sign_count.to_be_bytes();
        [&sha256(self.rp_id.as_bytes())[..], &[flags], &count, attested].concat()
    }
}

impl Authenticator {
    /// One with a new key.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn new(algorithm: Algorithm) -> Self {
        let key = match algorithm {
            Algorithm::Es256 => {
                Key::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key on P-256"))
            }
            Algorithm::EdDsa => Key::EdDsa(Ed25519KeyPair::generate().expect("an Ed25519 key")),
            Algorithm::Rs256 => Key::Rs256(rsa::KeyPair::generate(KeySize::Rsa2048).expect("an RSA key")),
        };
        let mut credential_id = vec![0; 32];
        aws_lc_rs::rand::fill(&mut credential_id).expect("randomness");
        Self { key, credential_id }
    }

    /// The public key as COSE has it.
    ///
    /// # Panics
    /// Never: a map can be written.
    pub fn cose_key(&self) -> Vec<u8> {
        write(&Cbor::Map(self.cose_entries()))
    }

    /// Its entries.
    ///
    /// # Panics
    /// When the library writes a public key in another way than it does.
    pub fn cose_entries(&self) -> Vec<(Cbor, Cbor)> {
        let number = |label: i64, value: i64| (Cbor::from(label), Cbor::from(value));
        let bytes = |label: i64, value: &[u8]| (Cbor::from(label), Cbor::Bytes(value.to_vec()));
        match &self.key {
            Key::Es256(key) => {
                let (x, y) = key
                    .public_key()
                    .as_ref()
                    .get(1..)
                    .and_then(|point| point.split_at_checked(32))
                    .expect("an uncompressed point");
                vec![number(1, 2), number(3, -7), number(-1, 1), bytes(-2, x), bytes(-3, y)]
            }
            Key::EdDsa(key) => {
                vec![number(1, 1), number(3, -8), number(-1, 6), bytes(-2, key.public_key().as_ref())]
            }
            Key::Rs256(key) => {
                let key = key.public_key();
                let (n, e) = (key.modulus(), key.exponent());
                let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
                vec![number(1, 3), number(3, -257), bytes(-1, n), bytes(-2, e)]
            }
        }
    }

    /// Makes a passkey.
    pub fn create(&self, ceremony: &Ceremony) -> Created {
        self.create_with_key(ceremony, &self.cose_key())
    }

    /// The same with a public key of the test's own.
    ///
    /// # Panics
    /// When the credential's id is longer than any length can say.
    pub fn create_with_key(&self, ceremony: &Ceremony, cose_key: &[u8]) -> Created {
        let length = u16::try_from(self.credential_id.len()).expect("a length of two bytes");
        let attested = [&[0; 16][..], &length.to_be_bytes(), &self.credential_id, cose_key].concat();
        Created {
            credential_id: self.credential_id.clone(),
            client_data: ceremony.client_data(),
            attestation_object: attestation_object(&ceremony.authenticator_data(&attested)),
        }
    }

    /// Signs in.
    ///
    /// # Panics
    /// When nothing can be signed.
    pub fn get(&self, ceremony: &Ceremony) -> Signed {
        let (client_data, data) = (ceremony.client_data(), ceremony.authenticator_data(&[]));
        let signature = self.sign(&[&data[..], &sha256(&client_data)].concat());
        Signed {
            credential_id: self.credential_id.clone(),
            client_data,
            authenticator_data: data,
            signature,
            user_handle: ceremony.user_handle.clone(),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Es256(key) => key.sign(&random, message).expect("a signature").as_ref().to_vec(),
            Key::EdDsa(key) => key.sign(message).as_ref().to_vec(),
            Key::Rs256(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("a signature");
                signature
            }
        }
    }
}

/// The envelope of a registration without a statement.
pub fn attestation_object(authenticator_data: &[u8]) -> Vec<u8> {
    let text = |text: &str| Cbor::Text(text.to_owned());
    write(&Cbor::Map(vec![
        (text("fmt"), text("none")),
        (text("attStmt"), Cbor::Map(Vec::new())),
        (text("authData"), Cbor::Bytes(authenticator_data.to_vec())),
    ]))
}

fn write(value: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("memory takes what is written");
    bytes
}

impl Created {
    /// As `toJSON()` gives it.
    pub fn json(&self) -> Value {
        let id = URL_SAFE_NO_PAD.encode(&self.credential_id);
        json!({
            "id": id, "rawId": id, "type": "public-key", "authenticatorAttachment": "platform",
            "clientExtensionResults": {"credProps": {"rk": true}},
            "response": {
                "clientDataJSON": URL_SAFE_NO_PAD.encode(&self.client_data),
                "attestationObject": URL_SAFE_NO_PAD.encode(&self.attestation_object),
                "transports": ["internal", "hybrid"],
            },
        })
    }
}

impl Signed {
    /// As `toJSON()` gives it.
    pub fn json(&self) -> Value {
        let id = URL_SAFE_NO_PAD.encode(&self.credential_id);
        json!({
            "id": id, "rawId": id, "type": "public-key", "authenticatorAttachment": "platform", "clientExtensionResults": {},
            "response": {
                "clientDataJSON": URL_SAFE_NO_PAD.encode(&self.client_data),
                "authenticatorData": URL_SAFE_NO_PAD.encode(&self.authenticator_data),
                "signature": URL_SAFE_NO_PAD.encode(&self.signature),
                "userHandle": self.user_handle.as_ref().map(|handle| URL_SAFE_NO_PAD.encode(handle)),
            },
        })
    }
}
