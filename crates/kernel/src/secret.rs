//! Secrets by class. Each class is a type of its own with its own visible prefix, so that one can never be taken for
//! another: not by the compiler, not by a parser, not by a person who finds it in a leak.

use aws_lc_rs::digest;

/// A text is not a secret of the expected class. Says nothing about the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this kind")]
pub struct NotThisSecret;

/// SHA-256, the stored twin of a random 256-bit secret. Needs no salt or stretching because the input has full entropy.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Defines a class of opaque random secret: 256 bits as base64url behind a prefix, and the hash that is stored of it.
#[macro_export]
macro_rules! opaque_secret {
    ($(#[$doc:meta])* $name:ident, $hash:ident, $prefix:literal) => {
        $(#[$doc])*
        pub struct $name(String);

        impl $name {
            /// What every secret of this class begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new secret.
            pub fn generate(rng: &dyn $crate::Rng) -> Self {
                use base64::Engine as _;
                let mut bytes = [0; 32];
                rng.fill(&mut bytes);
                let body = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
                Self(format!("{}{body}", Self::PREFIX))
            }

            /// Reads a secret that a client sent.
            ///
            /// # Errors
            /// When it is of another class, malformed, or has trailing data.
            pub fn parse(text: &str) -> Result<Self, $crate::secret::NotThisSecret> {
                use base64::Engine as _;
                let body = text.strip_prefix(Self::PREFIX).ok_or($crate::secret::NotThisSecret)?;
                match base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body) {
                    Ok(bytes) if bytes.len() == 32 => Ok(Self(text.to_owned())),
                    _ => Err($crate::secret::NotThisSecret),
                }
            }

            /// The secret in clear: for the one answer that hands it to its owner.
            pub fn expose(&self) -> &str {
                &self.0
            }

            /// What may be stored of it.
            pub fn hash(&self) -> $hash {
                $hash($crate::secret::sha256(self.0.as_bytes()))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }

        #[doc = concat!("The stored twin of [`", stringify!($name), "`]: its SHA-256.")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $hash([u8; 32]);

        impl $hash {
            /// For the database.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }
    };
}

#[cfg(test)]
#[expect(
    unreachable_pub,
    dead_code,
    reason = "the macro makes public types, and this test uses a part of them"
)]
mod tests {
    use super::NotThisSecret;
    use crate::Rng;
    use proptest::prelude::*;

    opaque_secret! {
        /// One class.
        Apple, AppleHash, "apl_"
    }
    opaque_secret! {
        /// Another.
        Pear, PearHash, "per_"
    }

    #[derive(Debug)]
    struct Constant;
    impl Rng for Constant {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    #[test]
    fn a_secret_reads_back_as_its_own_class_only() {
        let apple = Apple::generate(&Constant);
        assert_eq!(Apple::parse(apple.expose()).unwrap().hash(), apple.hash());
        assert_eq!(Pear::parse(apple.expose()).err(), Some(NotThisSecret));
        assert!(Apple::parse(&format!("{}A", apple.expose())).is_err(), "trailing data");
        assert!(Apple::parse(&apple.expose()[..40]).is_err(), "cut short");
    }

    #[test]
    fn debug_does_not_tell() {
        assert_eq!(format!("{:?}", Apple::generate(&Constant)), "Apple([redacted])");
        let pear = Pear::generate(&Constant);
        assert_eq!(format!("{pear:?}"), "Pear([redacted])");
        assert_ne!(pear.hash().as_bytes(), [0; 32]);
    }

    /// Gives these bytes, again and again.
    #[derive(Debug)]
    struct Bytes([u8; 32]);
    impl Rng for Bytes {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.copy_from_slice(&self.0[..bytes.len()]);
        }
    }

    proptest! {
        #[test]
        fn a_secret_has_one_spelling(bytes: [u8; 32], at in 0_usize..47, letter in "[ -~]") {
            let apple = Apple::generate(&Bytes(bytes));
            let text = apple.expose();
            let read = Apple::parse(text).unwrap();
            prop_assert_eq!(read.expose(), text);
            let mut other = text.to_owned();
            other.replace_range(at..=at, &letter);
            if other != text && let Ok(other) = Apple::parse(&other) {
                prop_assert_ne!(other.hash(), apple.hash());
            }
            for longer in [format!("{text}{letter}"), format!("{letter}{text}")] {
                prop_assert!(Apple::parse(&longer).is_err(), "{longer}");
            }
        }

        #[test]
        fn what_is_read_as_a_secret_is_kept_to_the_letter(text in "(apl_)?[A-Za-z0-9_=+/-]{40,46}|\\PC{0,60}") {
            if let Ok(apple) = Apple::parse(&text) {
                prop_assert_eq!(apple.expose(), text);
            }
        }
    }
}
