//! What may be a password (NIST SP 800-63B-4: length counts, composition does not), and what may go wrong with one.

use mana_kernel::{ErrorCode, FieldError, Kind, Problem};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization as _;
use utoipa::ToSchema;

/// A password that somebody wants to use from now on: 8 to 128 code points after NFC.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(try_from = "SecretString")]
#[schema(value_type = String, format = "password", min_length = 8, max_length = 128, examples("correct horse battery"))]
pub struct NewPassword(SecretString);

impl NewPassword {
    /// Length in code points.
    pub(super) fn length(&self) -> usize {
        self.0.expose_secret().chars().count()
    }

    pub(super) fn into_secret(self) -> SecretString {
        self.0
    }
}

impl TryFrom<SecretString> for NewPassword {
    type Error = &'static str;

    fn try_from(text: SecretString) -> Result<Self, &'static str> {
        let password = Self(normalised(&text));
        match password.length() {
            8..=128 => Ok(password),
            _ => Err("must be 8 to 128 characters long"),
        }
    }
}

/// NFC, so that the same keys pressed on two systems are the same password.
pub(super) fn normalised(text: &SecretString) -> SecretString {
    SecretString::from(text.expose_secret().nfc().collect::<String>())
}

/// What may go wrong with a password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Shorter than this installation asks.
    #[error("the password is too short")]
    TooShort(usize),
    /// Too many sign-ins wait for their turn.
    #[error("the hashing queue is full or too slow")]
    Busy {
        /// When it is worth trying again.
        retry_after_seconds: u64,
    },
    /// The hash could not be made.
    #[error("the password could not be hashed: {0}")]
    Hash(argon2::password_hash::Error),
    /// The hash function met a defect.
    #[error("a defect ended the hashing")]
    Defect,
    /// No thread to hash on.
    #[error("a hashing thread can't be started: {0}")]
    Thread(std::io::Error),
}

/// Too weak to be chosen.
pub(super) static PASSWORD_REFUSED: ErrorCode = ErrorCode {
    code: "auth.password_refused",
    kind: Kind::Invalid,
    title: "This password can't be used",
    word: None,
    way_out: "Show the problem's detail to the person and let them choose another.",
};
/// Too many people sign in at once.
pub(super) static SIGN_IN_BUSY: ErrorCode = ErrorCode {
    code: "auth.busy",
    kind: Kind::Unavailable,
    title: "Too many people are signing in right now",
    word: None,
    way_out: "Wait as long as Retry-After says and send the same request again.",
};

/// The catalogue of this feature.
pub static CODES: &[&ErrorCode] = &[&PASSWORD_REFUSED, &SIGN_IN_BUSY];

impl Problem for PasswordError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::TooShort(_) => &PASSWORD_REFUSED,
            Self::Busy { .. } => &SIGN_IN_BUSY,
            Self::Hash(_) | Self::Defect | Self::Thread(_) => &mana_platform::http::codes::INTERNAL,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::TooShort(minimum) => {
                Some(format!("The password must be at least {minimum} characters long"))
            }
            Self::Busy { .. } | Self::Hash(_) | Self::Defect | Self::Thread(_) => None,
        }
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Busy { retry_after_seconds } => Some(*retry_after_seconds),
            Self::TooShort(_) | Self::Hash(_) | Self::Defect | Self::Thread(_) => None,
        }
    }

    fn fields(&self) -> Vec<FieldError> {
        self.fields_at("/password")
    }
}

impl PasswordError {
    /// What is wrong with a new password that stands at `pointer` of the body.
    pub(crate) fn fields_at(&self, pointer: &str) -> Vec<FieldError> {
        match self {
            Self::TooShort(minimum) => vec![FieldError {
                pointer: pointer.to_owned(),
                code: "invalid",
                detail: format!("must be at least {minimum} characters long"),
            }],
            Self::Busy { .. } | Self::Hash(_) | Self::Defect | Self::Thread(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(text: &str) -> Result<NewPassword, &'static str> {
        NewPassword::try_from(SecretString::from(text.to_owned()))
    }

    #[test]
    fn length_counts_code_points_after_normalisation() {
        assert!(new("12345678").is_ok());
        assert!(new("  spaces and 🦀 ").is_ok());
        assert!(new("🦀🦀🦀🦀🦀🦀🦀🦀").is_ok());
        assert!(new(&"x".repeat(128)).is_ok());
        assert!(new("1234567").is_err());
        assert!(new(&"x".repeat(129)).is_err());
        assert!(new("e\u{301}e\u{301}e\u{301}e\u{301}").is_err(), "four letters, however they are encoded");
    }

    #[test]
    fn both_encodings_of_a_letter_are_one_password() {
        let (composed, decomposed) =
            (new("caf\u{e9}caf\u{e9}").unwrap(), new("cafe\u{301}cafe\u{301}").unwrap());
        assert_eq!(composed.into_secret().expose_secret(), decomposed.into_secret().expose_secret());
    }
}
