//! The root secrets of an installation: what is not in the database, so that the database alone opens nothing.
//!
//! Several versions may be given; the first is used for what is new, the others open what they once closed.

use aws_lc_rs::{aead, hkdf};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mana_kernel::Rng;
use secrecy::{ExposeSecret as _, SecretString};

/// `MANA_SECRET_KEY` is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootSecretError {
    /// Not `id:base64`.
    #[error(
        "MANA_SECRET_KEY must be one or more of id:base64 with 32 bytes each, separated by commas; \
         `mana-core-auth keys generate` makes one"
    )]
    Malformed,
    /// Needs a version that is not given.
    #[error(
        "version {0} of MANA_SECRET_KEY is needed and not given: add the old secret behind the new one, separated by a comma"
    )]
    UnknownVersion(String),
    /// The version is given, but is not the one that sealed.
    #[error(
        "version {0} of MANA_SECRET_KEY does not open what it should have closed: another secret has its id"
    )]
    DoesNotOpen(String),
}

/// All versions of the root secret.
pub struct RootSecrets {
    current: Version,
    older: Vec<Version>,
}

struct Version {
    id: String,
    secret: [u8; 32],
}

impl std::fmt::Debug for RootSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootSecrets").field("current", &self.current.id).finish_non_exhaustive()
    }
}

/// What became of rows that are sealed under a root secret, when they were to be sealed under the newest one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Opened and sealed anew.
    pub resealed: u64,
    /// Can't be opened, and left as they are.
    pub closed: u64,
}

/// What a key that is derived from a root secret is for. Two purposes never share a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    RefreshTokens,
    SealedKeys,
    Mails,
    OAuthFlows,
    ProviderTokens,
    MailCodes,
    TotpSecrets,
    Bonuses,
    WebhookSecrets,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::RefreshTokens => b"mana-core-auth refresh tokens 1",
            Self::SealedKeys => b"mana-core-auth sealed keys 1",
            Self::Mails => b"mana-core-auth mails 1",
            Self::OAuthFlows => b"mana-core-auth oauth flows 1",
            Self::ProviderTokens => b"mana-core-auth provider tokens 1",
            Self::MailCodes => b"mana-core-auth mail codes 1",
            Self::TotpSecrets => b"mana-core-auth totp secrets 1",
            Self::Bonuses => b"mana-core-auth bonuses 1",
            Self::WebhookSecrets => b"mana-core-auth webhook secrets 1",
        }
    }
}

impl RootSecrets {
    /// Reads `MANA_SECRET_KEY`.
    ///
    /// # Errors
    /// When it is malformed or two versions share an id.
    pub fn parse(text: &SecretString) -> Result<Self, RootSecretError> {
        let mut versions = text.expose_secret().split(',').map(|part| {
            let (id, secret) = part.trim().split_once(':').ok_or(RootSecretError::Malformed)?;
            let secret = BASE64
                .decode(secret)
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or(RootSecretError::Malformed)?;
            let is_id = (1..=32).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if is_id { Ok(Version { id: id.to_owned(), secret }) } else { Err(RootSecretError::Malformed) }
        });
        let current = versions.next().ok_or(RootSecretError::Malformed)??;
        let older = versions.collect::<Result<Vec<_>, _>>()?;
        let mut ids: Vec<_> = older.iter().chain([&current]).map(|version| &version.id).collect();
        ids.sort();
        if ids.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(RootSecretError::Malformed);
        }
        Ok(Self { current, older })
    }

    /// A new secret with one version, as text for `MANA_SECRET_KEY`.
    pub fn generate(id: &str, rng: &dyn Rng) -> SecretString {
        let mut secret = [0; 32];
        rng.fill(&mut secret);
        SecretString::from(format!("{id}:{}", BASE64.encode(secret)))
    }

    /// Id of the version for what is new.
    pub(crate) fn current_id(&self) -> &str {
        &self.current.id
    }

    /// Ids of all versions, the newest first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.current).chain(&self.older).map(|version| version.id.as_str())
    }

    /// The key for a purpose under a version (HKDF-SHA-256, RFC 5869).
    pub(crate) fn derive(&self, version: &str, purpose: Purpose) -> Result<[u8; 32], RootSecretError> {
        let secret = std::iter::once(&self.current)
            .chain(&self.older)
            .find(|candidate| candidate.id == version)
            .ok_or_else(|| RootSecretError::UnknownVersion(version.to_owned()))?;
        let mut key = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"")
            .extract(&secret.secret)
            .expand(&[purpose.label()], hkdf::HKDF_SHA256)
            .and_then(|expanded| expanded.fill(&mut key))
            .map_err(|_| RootSecretError::Malformed)?;
        Ok(key)
    }

    /// Seals `plain` under the current version (AES-256-GCM); `purpose` and `name` must be given again to open it.
    pub(crate) fn seal(
        &self,
        plain: &[u8],
        purpose: Purpose,
        name: &str,
        rng: &dyn Rng,
    ) -> Result<Vec<u8>, RootSecretError> {
        let mut nonce = [0; aead::NONCE_LEN];
        rng.fill(&mut nonce);
        let mut sealed = plain.to_vec();
        self.sealing_key(self.current_id(), purpose)?
            .seal_in_place_append_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(name),
                &mut sealed,
            )
            .map_err(|_| RootSecretError::Malformed)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`Self::seal`] closed under `version`, for `purpose` and under `name`.
    pub(crate) fn open(
        &self,
        sealed: &[u8],
        purpose: Purpose,
        name: &str,
        version: &str,
    ) -> Result<Vec<u8>, RootSecretError> {
        let wrong = || RootSecretError::DoesNotOpen(version.to_owned());
        let (nonce, body) = sealed.split_first_chunk::<{ aead::NONCE_LEN }>().ok_or_else(wrong)?;
        let mut body = body.to_vec();
        let plain = self
            .sealing_key(version, purpose)?
            .open_in_place(aead::Nonce::assume_unique_for_key(*nonce), aead::Aad::from(name), &mut body)
            .map_err(|_| wrong())?;
        Ok(plain.to_vec())
    }

    /// What is sealed under `version`, sealed under the newest one; none if it does not open.
    pub(crate) fn reseal(
        &self,
        sealed: &[u8],
        purpose: Purpose,
        name: &str,
        version: &str,
        rng: &dyn Rng,
    ) -> Result<Option<Vec<u8>>, RootSecretError> {
        match self.open(sealed, purpose, name, version) {
            Ok(plain) => self.seal(&plain, purpose, name, rng).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn sealing_key(&self, version: &str, purpose: Purpose) -> Result<aead::LessSafeKey, RootSecretError> {
        let key = self.derive(version, purpose)?;
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, &key).map_err(|_| RootSecretError::Malformed)?;
        Ok(aead::LessSafeKey::new(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::SystemRng;
    use proptest::prelude::*;

    fn secrets(text: &str) -> Result<RootSecrets, RootSecretError> {
        RootSecrets::parse(&SecretString::from(text.to_owned()))
    }

    fn generated(id: &str) -> String {
        RootSecrets::generate(id, &SystemRng).expose_secret().to_owned()
    }

    #[test]
    fn what_an_older_version_closed_still_opens() {
        let (one, two) = (generated("one"), generated("two"));
        let before = secrets(&one).unwrap();
        let sealed = before.seal(b"key", Purpose::SealedKeys, "kid", &SystemRng).unwrap();
        let after = secrets(&format!("{two},{one}")).unwrap();
        assert_eq!(after.current_id(), "two");
        assert_eq!(after.open(&sealed, Purpose::SealedKeys, "kid", "one").unwrap(), b"key");
        assert_eq!(
            secrets(&two).unwrap().open(&sealed, Purpose::SealedKeys, "kid", "one"),
            Err(RootSecretError::UnknownVersion("one".into()))
        );
        assert_eq!(
            secrets(&generated("one")).unwrap().open(&sealed, Purpose::SealedKeys, "kid", "one"),
            Err(RootSecretError::DoesNotOpen("one".into()))
        );
        assert!(before.open(&sealed, Purpose::SealedKeys, "another kid", "one").is_err());
        assert!(
            before.open(&sealed, Purpose::Mails, "kid", "one").is_err(),
            "each purpose has a key of its own"
        );
    }

    #[test]
    fn a_secret_that_is_not_32_bytes_under_an_id_is_refused() {
        let one = generated("one");
        for bad in ["", "one", "one:", "one:AAAA", &one[4..], &format!("{one},{one}"), &format!("{one},")] {
            assert_eq!(secrets(bad).err(), Some(RootSecretError::Malformed), "{bad}");
        }
    }

    #[test]
    fn debug_does_not_tell() {
        let text = generated("one");
        assert!(!format!("{:?}", secrets(&text).unwrap()).contains(&text[4..]));
    }

    proptest! {
        #[test]
        fn a_secret_reads_back_under_its_id_and_has_one_spelling(ids in proptest::collection::btree_set("[A-Za-z0-9-]{1,32}", 1..4), at: proptest::sample::Index, letter in "[ -~]") {
            let versions: Vec<_> = ids.iter().map(|id| generated(id)).collect();
            let text = versions.join(" , ");
            let read = secrets(&text).unwrap();
            let first = ids.first().unwrap();
            prop_assert_eq!(read.current_id(), first);
            let key = read.derive(first, Purpose::Mails).unwrap();
            for id in &ids {
                prop_assert_ne!(read.derive(id, Purpose::RefreshTokens).unwrap(), key);
            }
            // Another letter in the secret is another secret or none.
            let one = &versions[0];
            let (id, secret) = one.split_once(':').unwrap();
            let at = one.len().saturating_sub(at.index(secret.len())).saturating_sub(1);
            prop_assert!(at > id.len());
            let mut other = one.clone();
            other.replace_range(at..=at, &letter);
            if other.trim() != one && let Ok(other) = secrets(&other) {
                prop_assert!(other.derive(first, Purpose::Mails).is_ok_and(|other| other != key));
            }
        }

        #[test]
        fn any_text_is_secrets_or_malformed_and_is_not_repeated(text in "[a-z]{0,3}:?[A-Za-z0-9+/=]{0,50}(,[a-z]:[A-Za-z0-9+/=]{43,45})?|\\PC{0,60}") {
            if let Err(error) = secrets(&text) {
                prop_assert_eq!(error, RootSecretError::Malformed);
            }
        }
    }
}
