//! Computes hashes. Argon2id (RFC 9106) in memory that is used again: a thread that allocates 19 MiB for each hash spends its
//! time in the kernel, on a lock that every other thread of the process waits for.

use super::scheme::{Scheme, StoredHash, counted};
use argon2::password_hash::Error;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::{constant_time, pbkdf2};

/// Bytes of a password that bcrypt looks at.
const BCRYPT_READS: usize = 72;

/// The memory of one thread. What a hash leaves in it, the next one overwrites before it reads.
#[derive(Default)]
pub(super) struct Workspace(Vec<Block>);

impl Workspace {
    /// The PHC string of a password, with the default parameters.
    pub(super) fn hash(&mut self, password: &[u8], salt: [u8; 16]) -> Result<String, Error> {
        let (algorithm, version, params) = (Algorithm::Argon2id, Version::V0x13, Params::default());
        let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
        self.argon2(&Argon2::new(algorithm, version, params.clone()), password, &salt, &mut output)?;
        let hash = PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: ParamsString::try_from(&params)?,
            salt: Some(Salt::new(&salt)?),
            hash: Some(Output::new(&output)?),
        };
        Ok(hash.to_string())
    }

    /// Whether `stored` is the hash of the password, which costs the same either way. Outputs are compared in constant time.
    pub(super) fn verify(&mut self, password: &str, stored: &StoredHash) -> bool {
        let spelling = stored.spelling(password);
        self.derive(spelling.as_bytes(), stored)
            .is_some_and(|key| constant_time::verify_slices_are_equal(&key, &stored.key).is_ok())
    }

    fn derive(&mut self, password: &[u8], stored: &StoredHash) -> Option<Vec<u8>> {
        let mut key = vec![0; stored.scheme.length()];
        match stored.scheme {
            Scheme::Argon2 { kind, memory, passes, lanes, length } => {
                let params = Params::new(memory, passes, lanes, Some(length)).ok()?;
                let argon2 = Argon2::new(kind.algorithm(), Version::V0x13, params);
                self.argon2(&argon2, password, &stored.salt, &mut key).ok()?;
                // What an imported hash needed is not kept for those that need less.
                if self.0.len() > Params::default().block_count() {
                    self.0 = Vec::new();
                }
            }
            Scheme::Bcrypt { cost } => {
                let salt = stored.salt.as_slice().try_into().ok()?;
                // What its specification makes of a password: ended by a NUL, and cut after 72 bytes.
                let mut ended = [password, b"\0"].concat();
                ended.truncate(BCRYPT_READS);
                key = bcrypt::bcrypt(cost, salt, &ended).to_vec();
                key.truncate(stored.scheme.length());
            }
            Scheme::Scrypt { log_n, r, p, .. } => {
                let params = scrypt::Params::new(log_n, r, p).ok()?;
                scrypt::scrypt(password, &stored.salt, &params, &mut key).ok()?;
            }
            Scheme::Pbkdf2 { digest, iterations, .. } => {
                pbkdf2::derive(digest.algorithm(), counted(iterations), &stored.salt, password, &mut key);
            }
        }
        Some(key)
    }

    fn argon2(
        &mut self,
        argon2: &Argon2<'_>,
        password: &[u8],
        salt: &[u8],
        output: &mut [u8],
    ) -> Result<(), Error> {
        let needed = argon2.params().block_count();
        if self.0.len() < needed {
            self.0.resize(needed, Block::default());
        }
        Ok(argon2.hash_password_into_with_memory(password, salt, output, &mut self.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::PasswordVerifier as _;

    fn verifies(password: &str, stored: &str) -> bool {
        Workspace::default().verify(password, &StoredHash::read(stored).unwrap())
    }

    #[test]
    fn a_hash_made_in_used_memory_is_what_the_library_makes_and_verifies_its_password_only() {
        let mut workspace = Workspace::default();
        workspace.hash(b"something else", [1; 16]).unwrap();
        let hash = workspace.hash(b"correct horse battery", [7; 16]).unwrap();
        assert_eq!(hash, Workspace::default().hash(b"correct horse battery", [7; 16]).unwrap());
        let parsed = PasswordHash::new(&hash).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse battery", &parsed).is_ok());
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let read = StoredHash::read(&hash).unwrap();
        assert_eq!(read.scheme, Scheme::OURS);
        assert!(workspace.verify("correct horse battery", &read));
        assert!(!workspace.verify("correct horse batterz", &read));
    }

    #[test]
    fn hashes_of_other_programs_verify_their_password_and_no_other() {
        for stored in [
            "$2b$04$FZwntQykG8CKGnPOP0ttTOtiXwb2NbZaXer9a3qd0uM28x8dH9eme",
            "$2a$04$FZwntQykG8CKGnPOP0ttTOtiXwb2NbZaXer9a3qd0uM28x8dH9eme",
            "$2y$04$FZwntQykG8CKGnPOP0ttTOtiXwb2NbZaXer9a3qd0uM28x8dH9eme",
            "$scrypt$ln=4,r=8,p=1$c29tZXNhbHQ$6M6zkFAIaE4yOsnJ8bMC/xd/B3BqF4ysOM/NEhAqCic",
            "$pbkdf2-sha256$i=1000,l=32$c29tZXNhbHQ$K5SAHVwQoz0J3yvOytAOiRUeGU14G3lS2KOx1HL3NxA",
            "$pbkdf2-sha512$1000$c29tZXNhbHQ$d5Y0oQIDEnfiel6v2nlkAfWF.UB.WyFSuhjvW3dmoIcgNoIb05qwEK5RQSDO5DPWOuVKWrvg855eZSC.E65tfw",
            "$pbkdf2$1000$c29tZXNhbHQ$R45Y8zJV.CEzHuPZQfpgHd3xGw0",
            "pbkdf2_sha256$1000$somesalt$K5SAHVwQoz0J3yvOytAOiRUeGU14G3lS2KOx1HL3NxA=",
            // Better Auth's.
            "69c34533a8123fe8e3892eb43070f140:ba6b2caa6fa60d486e8b87370a2fb13c1b6872a716b2f1f0c83eeabb891c0fe3e263d01c0f0ff047fde2ac30b51e7ae02f55908529a17adeb3ec48197c64ce38",
        ] {
            assert!(verifies("correct horse battery", stored), "{stored}");
            for wrong in ["correct horse batterz", "correct horse battery ", ""] {
                assert!(!verifies(wrong, stored), "{wrong}: {stored}");
            }
        }
    }

    #[test]
    fn parameters_are_those_of_the_stored_hash() {
        // The vector of RFC 9106's reference implementation for m=256 KiB, t=2, p=1.
        let stored = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        assert!(verifies("password", stored));
        assert!(!verifies("differentpassword", stored));
    }

    #[test]
    fn a_password_is_read_as_the_program_that_hashed_it_read_it() {
        let ligature = "74752dfecfc370742ad0b6bc98cfa788:5af6450b7c6e3f7f77424cb7f7819c8ddaaf715f61517ba945923e2c53487376360505ba540feb4663ce91de3be20eb7dcd514379de76e97c285d4ab922aeb16";
        for spelling in ["\u{fb01}sh and chips", "fish and chips"] {
            assert!(verifies(spelling, ligature), "{spelling}: Better Auth takes both for one");
        }
        let composed = "$2b$04$Cd96AF1nQU.B0E0QD9LCn.Ww0j4JEqHczNYOQlsenx7r9A0vrYEUO";
        for spelling in ["caf\u{e9} cr\u{e8}me", "cafe\u{301} cre\u{300}me"] {
            assert!(verifies(spelling, composed), "{spelling}");
        }
    }

    #[test]
    fn bcrypt_reads_72_bytes_as_it_always_has() {
        let eighty = "$2b$04$veNqkfFvV2HS8EuyNIAyjucx8e3w1jSTqy8zrWAfJV9qBNEm7ov/6";
        assert!(verifies(&"x".repeat(80), eighty));
        assert!(verifies(&"x".repeat(72), eighty));
        assert!(!verifies(&"x".repeat(71), eighty));
    }

    #[test]
    fn memory_that_an_imported_hash_needed_is_given_back() {
        let mut workspace = Workspace::default();
        let key = "A".repeat(43);
        let large = StoredHash::read(&format!("$argon2id$v=19$m=32768,t=1,p=1$c29tZXNhbHQ${key}")).unwrap();
        assert!(!workspace.verify("password", &large));
        assert!(workspace.0.is_empty());
    }
}
