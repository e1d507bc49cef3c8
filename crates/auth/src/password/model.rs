//! What may be a password (NIST SP 800-63B-4: length counts, composition does not), and what may go wrong with one.

use mana_kernel::{ErrorCode, FieldError, Kind, Problem};
use mana_platform::http::Language;
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

    /// What somebody typed into a page, or why it is none.
    pub(crate) fn typed(text: SecretString, language: Language) -> Result<Self, String> {
        Self::try_from(text).map_err(|refusal| match language {
            Language::English => format!("The password {refusal}."),
            Language::German => "Das Passwort muss 8 bis 128 Zeichen lang sein.".to_owned(),
        })
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

/// The form in which passwords are compared with those that attackers know.
pub(super) fn folded(text: &str) -> String {
    text.nfc().collect::<String>().to_lowercase().nfc().collect()
}

/// Why a password can't be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Shorter than this installation asks.
    TooShort(usize),
    /// One of those that are tried first everywhere.
    Common,
    /// Known from a breach.
    Breached,
    /// Little more than a name of this product.
    ProductName,
    /// Little more than the account's own address, or parts of it.
    OwnAddress,
}

impl Refusal {
    /// For programs.
    fn code(self) -> &'static str {
        match self {
            Self::TooShort(_) => "too_short",
            Self::Common => "common",
            Self::Breached => "breached",
            Self::ProductName => "product_name",
            Self::OwnAddress => "own_address",
        }
    }

    /// What the password must be, or not be.
    fn rule(self) -> String {
        match self {
            Self::TooShort(minimum) => format!("must be at least {minimum} characters long"),
            Self::Common => {
                "must not be one of the commonest passwords, which attackers try first".to_owned()
            }
            Self::Breached => "must not be one that is known from a breach of another service".to_owned(),
            Self::ProductName => "must be more than a name of this product".to_owned(),
            Self::OwnAddress => "must be more than your e-mail address or parts of it".to_owned(),
        }
    }

    /// As a page says it.
    fn in_words(self, language: Language) -> String {
        match (language, self) {
            (Language::English, refusal) => format!("The password {}.", refusal.rule()),
            (Language::German, Self::TooShort(minimum)) => {
                format!("Das Passwort muss mindestens {minimum} Zeichen lang sein.")
            }
            (Language::German, Self::Common) => {
                "Das Passwort darf keines der häufigsten sein, die Angreifer zuerst probieren.".to_owned()
            }
            (Language::German, Self::Breached) => {
                "Das Passwort darf keines sein, das anderswo schon bekannt geworden ist.".to_owned()
            }
            (Language::German, Self::ProductName) => {
                "Das Passwort muss mehr sein als ein Name dieses Produkts.".to_owned()
            }
            (Language::German, Self::OwnAddress) => {
                "Das Passwort muss mehr sein als deine E-Mail-Adresse oder Teile davon.".to_owned()
            }
        }
    }
}

/// What may go wrong with a password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too weak to be chosen.
    #[error("the password can't be chosen: {}", refusal.code())]
    Refused {
        /// Why.
        refusal: Refusal,
        /// JSON pointer to where it was sent.
        field: &'static str,
    },
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

impl PasswordError {
    /// What a page says of a password that can't be chosen; none of any other error.
    pub(crate) fn in_words(&self, language: Language) -> Option<String> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.in_words(language)),
            Self::Busy { .. } | Self::Hash(_) | Self::Defect | Self::Thread(_) => None,
        }
    }
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
            Self::Refused { .. } => &PASSWORD_REFUSED,
            Self::Busy { .. } => &SIGN_IN_BUSY,
            Self::Hash(_) | Self::Defect | Self::Thread(_) => &mana_platform::http::codes::INTERNAL,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Refused { refusal, .. } => Some(format!("The password {}", refusal.rule())),
            Self::Busy { .. } | Self::Hash(_) | Self::Defect | Self::Thread(_) => None,
        }
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Busy { retry_after_seconds } => Some(*retry_after_seconds),
            Self::Refused { .. } | Self::Hash(_) | Self::Defect | Self::Thread(_) => None,
        }
    }

    fn fields(&self) -> Vec<FieldError> {
        match self {
            Self::Refused { refusal, field } => vec![FieldError {
                pointer: (*field).to_owned(),
                code: refusal.code(),
                detail: refusal.rule(),
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
