//! Argon2id (RFC 9106) in memory that is used again: a thread that allocates 19 MiB for each hash spends its time in the
//! kernel, on a lock that every other thread of the process waits for.

use argon2::password_hash::Error;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};

/// The memory of one thread. What a hash leaves in it, the next one overwrites before it reads.
#[derive(Default)]
pub(super) struct Workspace(Vec<Block>);

impl Workspace {
    /// The PHC string of a password, with the default parameters.
    pub(super) fn hash(&mut self, password: &[u8], salt: [u8; 16]) -> Result<String, Error> {
        let (algorithm, version, params) = (Algorithm::Argon2id, Version::V0x13, Params::default());
        let hash = PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: ParamsString::try_from(&params)?,
            salt: Some(Salt::new(&salt)?),
            hash: Some(self.derive(
                &Argon2::new(algorithm, version, params),
                password,
                &salt,
                Params::DEFAULT_OUTPUT_LEN,
            )?),
        };
        Ok(hash.to_string())
    }

    /// Whether the PHC string `stored` is that of `password`; false when it can't be read.
    pub(super) fn verify(&mut self, password: &[u8], stored: &str) -> bool {
        self.recompute(password, stored).unwrap_or(false)
    }

    fn recompute(&mut self, password: &[u8], stored: &str) -> Result<bool, Error> {
        let stored = PasswordHash::new(stored)?;
        let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else {
            return Ok(false);
        };
        let version = stored.version.map(Version::try_from).transpose()?.unwrap_or_default();
        let argon2 = Argon2::new(stored.algorithm.as_str().try_into()?, version, Params::try_from(&stored)?);
        // Outputs are compared in constant time.
        Ok(self.derive(&argon2, password, &salt, expected.len())? == expected)
    }

    fn derive(
        &mut self,
        argon2: &Argon2<'_>,
        password: &[u8],
        salt: &[u8],
        length: usize,
    ) -> Result<Output, Error> {
        let needed = argon2.params().block_count();
        if self.0.len() < needed {
            self.0.resize(needed, Block::default());
        }
        let mut output = [0; Output::MAX_LENGTH];
        let output = output.get_mut(..length).ok_or(Error::OutputSize)?;
        argon2.hash_password_into_with_memory(password, salt, output, &mut self.0)?;
        Ok(Output::new(output)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::PasswordVerifier as _;

    #[test]
    fn a_hash_made_in_used_memory_is_what_the_library_makes_and_verifies_its_password_only() {
        let mut workspace = Workspace::default();
        workspace.hash(b"something else", [1; 16]).unwrap();
        let hash = workspace.hash(b"correct horse battery", [7; 16]).unwrap();
        assert_eq!(hash, Workspace::default().hash(b"correct horse battery", [7; 16]).unwrap());
        let parsed = PasswordHash::new(&hash).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse battery", &parsed).is_ok());
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(workspace.verify(b"correct horse battery", &hash));
        assert!(!workspace.verify(b"correct horse batterz", &hash));
    }

    #[test]
    fn parameters_are_those_of_the_stored_hash() {
        let mut workspace = Workspace::default();
        // The vector of RFC 9106's reference implementation for m=256 KiB, t=2, p=1.
        let stored = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        assert!(workspace.verify(b"password", stored));
        assert!(!workspace.verify(b"differentpassword", stored));
    }

    #[test]
    fn what_is_no_hash_verifies_nothing() {
        let mut workspace = Workspace::default();
        for stored in
            ["", "x", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ", "$scrypt$ln=1$c29tZXNhbHQ$c29tZXNhbHQ"]
        {
            assert!(!workspace.verify(b"password", stored), "{stored}");
        }
    }
}
