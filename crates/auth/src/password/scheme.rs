//! How a stored password was hashed: by this program, or by the one that an account was imported from. A hash is read before
//! anything is computed of it, and one that would cost too much is refused: whoever can bring a hash in must not be able to
//! keep a hashing thread, or the memory, for as long as they like.

use argon2::Algorithm;
use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, NO_PAD};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use unicode_normalization::UnicodeNormalization as _;

/// Bytes of a stored hash's text at most.
const LONGEST: usize = 512;
/// Bytes of a hash at least: a shorter one would be met by chance.
const SHORTEST_KEY: usize = 16;
/// And at most.
const LONGEST_KEY: usize = 64;
/// The dearest bcrypt hash that is computed here: about a second.
const DEAREST_BCRYPT: u32 = 14;
/// KiB of memory for a hash at most.
const MOST_MEMORY: u32 = 128 * 1024;
/// KiB that Argon2 may pass over in all.
const MOST_PASSES: u32 = 512 * 1024;
/// Lanes of Argon2 at most.
const MOST_LANES: u32 = 16;
/// `N * r * p` of scrypt at most: what OWASP recommends at most.
const MOST_SCRYPT: u64 = 1 << 20;
/// Iterations of PBKDF2 at most, over all blocks.
const MOST_ITERATIONS: u32 = 3_000_000;

/// Decodes either alphabet of base64 with or without padding, also if idle bits are set.
const LENIENT: GeneralPurposeConfig =
    NO_PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BCRYPT_BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::BCRYPT, LENIENT);

/// Why a hash can't be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not of a kind that is verified here.
    #[error("is no hash of bcrypt, scrypt, PBKDF2 or Argon2 in a form that is known here")]
    Unknown,
    /// Its parameters are beyond what is computed here.
    #[error("costs more than is computed here (bcrypt up to 14, 128 MiB of memory, 3,000,000 iterations)")]
    TooDear,
    /// It could be met by chance.
    #[error("has a key of less than 16 bytes, or of more than 64")]
    KeyLength,
}

/// A hash function with its parameters: what it costs to verify a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    /// RFC 9106.
    Argon2 { kind: Argon2Kind, memory: u32, passes: u32, lanes: u32, length: usize },
    /// Of the first 72 bytes of a password.
    Bcrypt { cost: u32 },
    /// RFC 7914.
    Scrypt { log_n: u8, r: u32, p: u32, length: usize },
    /// RFC 8018.
    Pbkdf2 { digest: Digest, iterations: u32, length: usize },
}

/// The kinds of Argon2, all of version 1.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Argon2Kind {
    D,
    I,
    Id,
}

impl Argon2Kind {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Id, "argon2id"), (Self::I, "argon2i"), (Self::D, "argon2d")];

    pub(super) fn algorithm(self) -> Algorithm {
        match self {
            Self::D => Algorithm::Argon2d,
            Self::I => Algorithm::Argon2i,
            Self::Id => Algorithm::Argon2id,
        }
    }
}

/// What PBKDF2 iterates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Digest {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Digest {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Sha1, "sha1"), (Self::Sha256, "sha256"), (Self::Sha384, "sha384"), (Self::Sha512, "sha512")];

    pub(super) fn algorithm(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha384 => pbkdf2::PBKDF2_HMAC_SHA384,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    fn block(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

fn named<T: Copy>(all: &[(T, &'static str)], name: &str) -> Option<T> {
    all.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
}

fn name_of<T: PartialEq>(all: &[(T, &'static str)], value: &T) -> &'static str {
    all.iter().find(|(known, _)| known == value).map_or("", |(_, name)| name)
}

impl Scheme {
    /// What new passwords are hashed with: OWASP's parameters of Argon2id.
    pub(crate) const OURS: Self =
        Self::Argon2 { kind: Argon2Kind::Id, memory: 19_456, passes: 2, lanes: 1, length: 32 };

    /// Bytes of the hash.
    pub(super) fn length(self) -> usize {
        match self {
            Self::Argon2 { length, .. } | Self::Scrypt { length, .. } | Self::Pbkdf2 { length, .. } => length,
            Self::Bcrypt { .. } => 23,
        }
    }

    /// The scheme, if it may be computed here.
    fn affordable(self) -> Result<Self, HashError> {
        if !(SHORTEST_KEY..=LONGEST_KEY).contains(&self.length()) {
            return Err(HashError::KeyLength);
        }
        let is_affordable = match self {
            Self::Argon2 { memory, passes, lanes, .. } => {
                (1..=MOST_LANES).contains(&lanes)
                    && passes >= 1
                    && memory >= lanes.saturating_mul(8)
                    && memory <= MOST_MEMORY
                    && memory.saturating_mul(passes) <= MOST_PASSES
            }
            Self::Bcrypt { cost } => (4..=DEAREST_BCRYPT).contains(&cost),
            Self::Scrypt { log_n, r, p, .. } => {
                let n = 1_u64.checked_shl(log_n.into()).unwrap_or(u64::MAX);
                let memory = n.saturating_mul(r.into()).div_ceil(8);
                log_n >= 1
                    && r >= 1
                    && p >= 1
                    && memory <= MOST_MEMORY.into()
                    && n.saturating_mul(r.into()).saturating_mul(p.into()) <= MOST_SCRYPT
            }
            Self::Pbkdf2 { digest, iterations, length } => {
                let blocks = u32::try_from(length.div_ceil(digest.block())).unwrap_or(u32::MAX);
                iterations >= 1 && iterations.saturating_mul(blocks) <= MOST_ITERATIONS
            }
        };
        if is_affordable { Ok(self) } else { Err(HashError::TooDear) }
    }
}

/// As in the database, to find hashes of one cost: `bcrypt:12`.
impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argon2 { kind, memory, passes, lanes, length } => {
                write!(f, "{}:{memory}:{passes}:{lanes}:{length}", name_of(&Argon2Kind::ALL, kind))
            }
            Self::Bcrypt { cost } => write!(f, "bcrypt:{cost}"),
            Self::Scrypt { log_n, r, p, length } => write!(f, "scrypt:{log_n}:{r}:{p}:{length}"),
            Self::Pbkdf2 { digest, iterations, length } => {
                write!(f, "pbkdf2-{}:{iterations}:{length}", name_of(&Digest::ALL, digest))
            }
        }
    }
}

impl FromStr for Scheme {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let (name, numbers) = text.split_once(':').ok_or(HashError::Unknown)?;
        let numbers: Vec<u32> =
            numbers.split(':').map(str::parse).collect::<Result<_, _>>().map_err(|_| HashError::Unknown)?;
        let size = |length: u32| usize::try_from(length).map_err(|_| HashError::KeyLength);
        let scheme = match (name, numbers.as_slice()) {
            ("bcrypt", &[cost]) => Self::Bcrypt { cost },
            ("scrypt", &[log_n, r, p, length]) => Self::Scrypt {
                log_n: log_n.try_into().map_err(|_| HashError::TooDear)?,
                r,
                p,
                length: size(length)?,
            },
            (argon2, &[memory, passes, lanes, length]) => {
                let kind = named(&Argon2Kind::ALL, argon2).ok_or(HashError::Unknown)?;
                Self::Argon2 { kind, memory, passes, lanes, length: size(length)? }
            }
            (digest, &[iterations, length]) => {
                let digest = digest.strip_prefix("pbkdf2-").and_then(|name| named(&Digest::ALL, name));
                Self::Pbkdf2 { digest: digest.ok_or(HashError::Unknown)?, iterations, length: size(length)? }
            }
            _ => return Err(HashError::Unknown),
        };
        scheme.affordable()
    }
}

/// A stored hash, read.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredHash {
    pub(super) scheme: Scheme,
    pub(super) salt: Vec<u8>,
    pub(super) key: Vec<u8>,
    /// Whether the program that made it took the password in NFKC rather than in NFC.
    is_compatible: bool,
}

impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredHash").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

impl StoredHash {
    /// Reads a hash of any kind that is verified here:
    ///
    /// - `$argon2id$v=19$m=19456,t=2,p=1$salt$key`, and argon2i and argon2d;
    /// - `$2b$12$...`, also 2a and 2y;
    /// - `$scrypt$ln=14,r=8,p=1$salt$key`;
    /// - `salt:key` in hex, 32 and 128 digits: Better Auth's scrypt with N=16384, r=16, p=1, whose salt is the text of the digits;
    /// - `$pbkdf2-sha256$i=600000,l=32$salt$key`, `$pbkdf2-sha256$29000$salt$key` (passlib), `pbkdf2_sha256$600000$salt$key`
    ///   (Django), and the other digests.
    pub(crate) fn read(text: &str) -> Result<Self, HashError> {
        if text.len() > LONGEST {
            return Err(HashError::Unknown);
        }
        let parts: Vec<_> = text.split('$').collect();
        let read = match parts.as_slice() {
            ["", "2a" | "2b" | "2y", cost, rest] => bcrypt(cost, rest),
            ["", kind, "v=19", parameters, salt, key] => argon2(kind, parameters, salt, key),
            ["", "scrypt", parameters, salt, key] => scrypt(parameters, salt, key),
            ["", "pbkdf2", parameters, salt, key] => pbkdf2(Digest::Sha1, parameters, salt, key),
            ["", name, parameters, salt, key] => {
                let digest = name.strip_prefix("pbkdf2-").and_then(|name| named(&Digest::ALL, name));
                digest.and_then(|digest| pbkdf2(digest, parameters, salt, key))
            }
            [name, iterations, salt, key] => {
                let digest = name.strip_prefix("pbkdf2_").and_then(|name| named(&Digest::ALL, name));
                digest.and_then(|digest| django(digest, iterations, salt, key))
            }
            [text] => better_auth(text),
            _ => None,
        };
        let hash = read.ok_or(HashError::Unknown)?;
        hash.scheme.affordable()?;
        Ok(hash)
    }

    /// What it costs to verify.
    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// A hash of nobody's password that costs what those of the scheme do.
    pub(super) fn decoy(scheme: Scheme) -> Self {
        Self { scheme, salt: vec![7; 16], key: vec![0; scheme.length()], is_compatible: false }
    }

    /// The password as the program that made the hash took it.
    pub(super) fn spelling(&self, password: &str) -> String {
        if self.is_compatible { password.nfkc().collect() } else { password.nfc().collect() }
    }

    fn new(scheme: Scheme, salt: Vec<u8>, key: Vec<u8>) -> Self {
        Self { scheme, salt, key, is_compatible: false }
    }
}

fn argon2(kind: &str, parameters: &str, salt: &str, key: &str) -> Option<StoredHash> {
    let kind = named(&Argon2Kind::ALL, kind)?;
    let [memory, passes, lanes] = numbers(parameters, ["m", "t", "p"])?;
    let (salt, key) = (decode(salt)?, decode(key)?);
    let scheme = Scheme::Argon2 { kind, memory, passes, lanes, length: key.len() };
    (salt.len() >= 8).then(|| StoredHash::new(scheme, salt, key))
}

fn bcrypt(cost: &str, rest: &str) -> Option<StoredHash> {
    let is_two_digits = cost.len() == 2 && cost.bytes().all(|digit| digit.is_ascii_digit());
    let (salt, key) = rest.split_at_checked(22).filter(|(_, key)| is_two_digits && key.len() == 31)?;
    let (salt, key) = (BCRYPT_BASE64.decode(salt).ok()?, BCRYPT_BASE64.decode(key).ok()?);
    Some(StoredHash::new(Scheme::Bcrypt { cost: cost.parse().ok()? }, salt, key))
}

fn scrypt(parameters: &str, salt: &str, key: &str) -> Option<StoredHash> {
    let [log_n, r, p] = numbers(parameters, ["ln", "r", "p"])?;
    let (salt, key) = (decode(salt)?, decode(key)?);
    let scheme = Scheme::Scrypt { log_n: log_n.try_into().ok()?, r, p, length: key.len() };
    Some(StoredHash::new(scheme, salt, key))
}

fn better_auth(text: &str) -> Option<StoredHash> {
    let (salt, key) = text.split_once(':')?;
    let is_hex =
        |text: &str, length| text.len() == length && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !is_hex(salt, 32) || !is_hex(key, 128) {
        return None;
    }
    let key = key
        .as_bytes()
        .as_chunks::<2>()
        .0
        .iter()
        .map(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
    let key: Vec<u8> = key.collect::<Option<_>>()?;
    let scheme = Scheme::Scrypt { log_n: 14, r: 16, p: 1, length: key.len() };
    Some(StoredHash { is_compatible: true, ..StoredHash::new(scheme, salt.as_bytes().to_vec(), key) })
}

fn pbkdf2(digest: Digest, parameters: &str, salt: &str, key: &str) -> Option<StoredHash> {
    let key = decode(key)?;
    let iterations = match parameters.parse() {
        Ok(iterations) => iterations,
        Err(_) => {
            let [iterations] = numbers(parameters, ["i"])
                .or_else(|| numbers(parameters, ["i", "l"]).map(|[iterations, _]| [iterations]))?;
            iterations
        }
    };
    Some(StoredHash::new(Scheme::Pbkdf2 { digest, iterations, length: key.len() }, decode(salt)?, key))
}

/// The salt is text, and taken as it stands.
fn django(digest: Digest, iterations: &str, salt: &str, key: &str) -> Option<StoredHash> {
    let key = decode(key)?;
    let scheme = Scheme::Pbkdf2 { digest, iterations: iterations.parse().ok()?, length: key.len() };
    Some(StoredHash::new(scheme, salt.as_bytes().to_vec(), key))
}

/// The values of `name=value,...` in this order.
fn numbers<const COUNT: usize>(text: &str, names: [&str; COUNT]) -> Option<[u32; COUNT]> {
    let mut values = [0; COUNT];
    let mut given = text.split(',');
    for (name, value) in names.iter().zip(&mut values) {
        *value = given.next()?.strip_prefix(name)?.strip_prefix('=')?.parse().ok()?;
    }
    given.next().is_none().then_some(values)
}

/// Base64 as PHC strings have it, or with the dot that passlib writes for a plus.
fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.replace('.', "+")).ok()
}

/// Iterations that are not none, which the reader has seen to.
pub(super) fn counted(iterations: u32) -> NonZeroU32 {
    NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_scheme_is_read_as_it_is_written() {
        for text in ["argon2id:19456:2:1:32", "bcrypt:12", "scrypt:14:16:1:64", "pbkdf2-sha256:600000:32"] {
            assert_eq!(text.parse::<Scheme>().unwrap().to_string(), text);
        }
        assert_eq!(Scheme::OURS.to_string(), "argon2id:19456:2:1:32");
    }

    #[test]
    fn absurd_costs_are_refused_before_anything_is_computed() {
        let key = "A".repeat(43);
        for dear in [
            format!("$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ${key}"),
            format!("$argon2id$v=19$m=65536,t=1000,p=1$c29tZXNhbHQ${key}"),
            format!("$argon2id$v=19$m=65536,t=1,p=4000000000$c29tZXNhbHQ${key}"),
            format!("$argon2id$v=19$m=0,t=0,p=0$c29tZXNhbHQ${key}"),
            format!("$2b$31${}", "a".repeat(53)),
            format!("$2b$15${}", "a".repeat(53)),
            format!("$2b$03${}", "a".repeat(53)),
            format!("$scrypt$ln=30,r=8,p=1$c29tZXNhbHQ${key}"),
            format!("$scrypt$ln=255,r=8,p=1$c29tZXNhbHQ${key}"),
            format!("$scrypt$ln=1,r=4294967295,p=4294967295$c29tZXNhbHQ${key}"),
            format!("$scrypt$ln=17,r=8,p=2$c29tZXNhbHQ${key}"),
            format!("$pbkdf2-sha256$4294967295$c29tZXNhbHQ${key}"),
            format!("pbkdf2_sha256$3000001$salt${key}="),
            format!("pbkdf2_sha256$0$salt${key}="),
        ] {
            assert_eq!(StoredHash::read(&dear), Err(HashError::TooDear), "{dear}");
        }
        for dear in ["bcrypt:31", "argon2id:4194304:1:1:32", "scrypt:30:8:1:32", "scrypt:300:8:1:32"] {
            assert_eq!(dear.parse::<Scheme>(), Err(HashError::TooDear), "{dear}");
        }
        let dearest = format!("$scrypt$ln=17,r=8,p=1$c29tZXNhbHQ${key}");
        assert!(StoredHash::read(&dearest).is_ok(), "what OWASP recommends is not absurd");
    }

    #[test]
    fn a_key_that_could_be_met_by_chance_is_refused() {
        for short in [
            "$pbkdf2-sha256$1000$c29tZXNhbHQ$AAAA",
            "$scrypt$ln=4,r=8,p=1$c29tZXNhbHQ$",
            "pbkdf2_sha1$1$s$AA==",
        ] {
            assert_eq!(StoredHash::read(short), Err(HashError::KeyLength), "{short}");
        }
    }

    #[test]
    fn what_is_no_hash_is_none() {
        for text in [
            "",
            "x",
            "password",
            "5f4dcc3b5aa765d61d8327deb882cf99",
            "$1$salt$qJH7.N4xYta3aEG/dfqo/0",
            "$2x$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
            "$2b$10$short",
            "$argon2id$v=16$m=256,t=2,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ",
            "$scrypt$ln=4,r=8$c29tZXNhbHQ$c29tZXNhbHQ",
            "00112233445566778899aabbccddeeff:00",
            &"$".repeat(600),
        ] {
            assert_eq!(StoredHash::read(text), Err(HashError::Unknown), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_brings_the_reader_down(text in "[$a-z0-9=,:._/+-]{0,120}|\\PC{0,80}") {
            let _ = StoredHash::read(&text);
            let _ = text.parse::<Scheme>();
        }
    }
}
