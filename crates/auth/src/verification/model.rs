//! What is mailed to prove an address, for how long it is good, and what may go wrong with it.

use crate::account::model::AccountError;
use crate::mail::MailError;
use crate::password::PasswordError;
use crate::session::model::SessionError;
use crate::token::root_secret::{self, RootSecretError, RootSecrets};
use aws_lc_rs::{constant_time, hmac};
use mana_kernel::{ErrorCode, FieldError, Kind, Problem, Rng, UserId, opaque_secret};
use mana_platform::DbError;
use time::Duration;

/// What a token is good for, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Confirms the address of an account.
    VerifyEmail,
    /// Gives an account the address that it was mailed to.
    ChangeEmail,
    /// Sets a new password.
    ResetPassword,
    /// Signs in, as a link.
    MagicLink,
    /// Signs in, as six digits.
    SignInCode,
}

impl Purpose {
    /// As in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::ChangeEmail => "change_email",
            Self::ResetPassword => "reset_password",
            Self::MagicLink => "magic_link",
            Self::SignInCode => "sign_in_code",
        }
    }

    /// How long one is good.
    pub(super) fn ttl(self) -> Duration {
        match self {
            Self::VerifyEmail | Self::ChangeEmail => Duration::hours(24),
            Self::ResetPassword => Duration::hours(1),
            Self::MagicLink | Self::SignInCode => Duration::minutes(10),
        }
    }
}

/// A class of tokens that are mailed as a link.
pub(super) trait LinkToken: Sized {
    /// What they are good for.
    const PURPOSE: Purpose;

    /// A new one.
    fn new(rng: &dyn Rng) -> Self;

    /// What may be stored of one that somebody sent; none if it is of another class.
    fn hash_of(text: &str) -> Option<[u8; 32]>;

    /// In clear, for the mail.
    fn text(&self) -> &str;
}

macro_rules! link_token {
    ($(#[$doc:meta])* $name:ident, $hash:ident, $prefix:literal, $purpose:expr) => {
        opaque_secret! {
            $(#[$doc])*
            $name, $hash, $prefix
        }

        impl LinkToken for $name {
            const PURPOSE: Purpose = $purpose;

            fn new(rng: &dyn Rng) -> Self {
                Self::generate(rng)
            }

            fn hash_of(text: &str) -> Option<[u8; 32]> {
                Self::parse(text).ok()?.hash().as_bytes().try_into().ok()
            }

            fn text(&self) -> &str {
                self.expose()
            }
        }
    };
}

link_token! {
    /// Confirms the address of an account.
    VerifyToken, VerifyTokenHash, "mve_", Purpose::VerifyEmail
}
link_token! {
    /// Gives an account another address.
    ChangeEmailToken, ChangeEmailTokenHash, "mce_", Purpose::ChangeEmail
}
link_token! {
    /// Sets a new password.
    ResetToken, ResetTokenHash, "mrp_", Purpose::ResetPassword
}
link_token! {
    /// Signs in.
    MagicToken, MagicTokenHash, "mml_", Purpose::MagicLink
}

/// Wrong guesses of one code, after which it is dead. With five mails an hour, a guesser has a chance of one in 40,000 an hour.
pub(super) const GUESSES: i32 = 5;

/// Six digits that sign in. Too few to be stored as a plain hash: the hash is keyed by what is not in the database.
pub(super) struct SignInCode(String);

impl std::fmt::Debug for SignInCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignInCode([redacted])")
    }
}

impl SignInCode {
    /// A new one, each as likely as the others.
    pub(super) fn generate(rng: &dyn Rng) -> Self {
        const CODES: u32 = 1_000_000;
        /// The largest multiple of the number of codes in 32 bits.
        const FAIR: u32 = 4_294_000_000;
        loop {
            let mut bytes = [0; 4];
            rng.fill(&mut bytes);
            let drawn = u32::from_be_bytes(bytes);
            if drawn < FAIR {
                return Self(format!("{:06}", drawn.checked_rem(CODES).unwrap_or_default()));
            }
        }
    }

    /// Reads what a person typed, with or without spaces.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|letter| *letter != ' ').collect();
        (digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(Self(digits))
    }

    /// In clear, for the mail.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// What may be stored of it.
    pub(super) fn hash(&self, user: &UserId, secrets: &RootSecrets) -> Result<[u8; 32], RootSecretError> {
        let key = secrets.derive(secrets.current_id(), root_secret::Purpose::MailCodes)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let mac = hmac::sign(&key, format!("{user} {}", self.0).as_bytes());
        mac.as_ref().try_into().map_err(|_| RootSecretError::Malformed)
    }

    /// Whether it is the one behind `stored`.
    pub(super) fn is(
        &self,
        stored: &[u8],
        user: &UserId,
        secrets: &RootSecrets,
    ) -> Result<bool, RootSecretError> {
        Ok(constant_time::verify_slices_are_equal(&self.hash(user, secrets)?, stored).is_ok())
    }
}

/// What may go wrong with a proof by mail.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerificationError {
    /// Used up, expired, replaced by a newer one, of another kind, or never made.
    #[error("the token of the link is not good")]
    TokenVoid,
    /// Wrong, used up, expired, or guessed at too often.
    #[error("the code is not good")]
    CodeVoid,
    /// This installation does not let people sign in this way.
    #[error("sign-in by mail is off")]
    Off,
    /// The new password is not one to be chosen, or could not be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The sign-in failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A mail could not be written down.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// The address could not be marked as proven.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// A root secret can't be used.
    #[error(transparent)]
    Secret(#[from] RootSecretError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// A link that is no longer good.
pub(crate) static TOKEN_VOID: ErrorCode = ErrorCode {
    code: "auth.link_void",
    kind: Kind::Invalid,
    title: "This link is invalid or has expired",
    word: None,
    way_out: "It was used, is too old, or a newer one was mailed since. Let the person ask for another.",
};
/// A code that is no longer good.
pub(crate) static CODE_VOID: ErrorCode = ErrorCode {
    code: "auth.code_void",
    kind: Kind::Unauthenticated,
    title: "This code is invalid or has expired",
    word: Some("INVALID_CODE"),
    way_out: "Let the person type it again, or ask for another: a code is good for ten minutes, once, and dead after five wrong guesses. Whether the address has an account is never told.",
};
/// Not offered.
pub(crate) static SIGN_IN_BY_MAIL_OFF: ErrorCode = ErrorCode {
    code: "auth.sign_in_by_mail_off",
    kind: Kind::NotFound,
    title: "Signing in this way is not offered here",
    word: None,
    way_out: "An operator switches it on with MAGIC_LINK_SIGN_IN or EMAIL_CODE_SIGN_IN.",
};

/// The catalogue of this feature.
pub(crate) static CODES: &[&ErrorCode] = &[&TOKEN_VOID, &CODE_VOID, &SIGN_IN_BY_MAIL_OFF];

impl Problem for VerificationError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::TokenVoid => &TOKEN_VOID,
            Self::CodeVoid => &CODE_VOID,
            Self::Off => &SIGN_IN_BY_MAIL_OFF,
            Self::Password(error) => error.code(),
            Self::Account(error) => error.code(),
            Self::Session(error) => error.code(),
            Self::Mail(error) => error.code(),
            Self::Secret(_) => &mana_platform::http::codes::INTERNAL,
            Self::Database(error) => error.code(),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Password(error) => error.detail(),
            Self::Account(error) => error.detail(),
            Self::Session(error) => error.detail(),
            Self::TokenVoid
            | Self::CodeVoid
            | Self::Off
            | Self::Mail(_)
            | Self::Secret(_)
            | Self::Database(_) => None,
        }
    }

    fn fields(&self) -> Vec<FieldError> {
        match self {
            Self::Password(error) => error.fields(),
            Self::Account(error) => error.fields(),
            Self::Session(error) => error.fields(),
            Self::TokenVoid
            | Self::CodeVoid
            | Self::Off
            | Self::Mail(_)
            | Self::Secret(_)
            | Self::Database(_) => Vec::new(),
        }
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Password(error) => error.retry_after_seconds(),
            Self::Account(error) => error.retry_after_seconds(),
            Self::Session(error) => error.retry_after_seconds(),
            Self::TokenVoid
            | Self::CodeVoid
            | Self::Off
            | Self::Mail(_)
            | Self::Secret(_)
            | Self::Database(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::SystemRng;
    use std::collections::BTreeSet;

    #[test]
    fn a_link_of_one_purpose_is_none_of_another() {
        fn readers_of(text: &str) -> [bool; 4] {
            [
                VerifyToken::hash_of(text).is_some(),
                ChangeEmailToken::hash_of(text).is_some(),
                ResetToken::hash_of(text).is_some(),
                MagicToken::hash_of(text).is_some(),
            ]
        }
        assert_eq!(readers_of(VerifyToken::new(&SystemRng).text()), [true, false, false, false]);
        assert_eq!(readers_of(ChangeEmailToken::new(&SystemRng).text()), [false, true, false, false]);
        assert_eq!(readers_of(ResetToken::new(&SystemRng).text()), [false, false, true, false]);
        assert_eq!(readers_of(MagicToken::new(&SystemRng).text()), [false, false, false, true]);
    }

    #[test]
    fn a_code_is_six_digits_and_is_read_as_people_type_it() {
        let secrets = RootSecrets::parse(&RootSecrets::generate("one", &SystemRng)).unwrap();
        let (ada, bob): (UserId, UserId) = ("ada".parse().unwrap(), "bob".parse().unwrap());
        let codes: BTreeSet<_> =
            (0..50).map(|_| SignInCode::generate(&SystemRng).expose().to_owned()).collect();
        assert!(codes.len() > 40, "{codes:?}");
        for code in codes {
            assert!(code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit()), "{code}");
            let typed = SignInCode::parse(&format!(" {} {}", &code[..3], &code[3..])).unwrap();
            let stored = SignInCode(code).hash(&ada, &secrets).unwrap();
            assert!(typed.is(&stored, &ada, &secrets).unwrap());
            assert!(!typed.is(&stored, &bob, &secrets).unwrap(), "each account's codes are its own");
        }
        for bad in ["", "12345", "1234567", "12345a", "１２３４５６", "-12345", "12345\u{661}"] {
            assert!(SignInCode::parse(bad).is_none(), "{bad}");
        }
    }
}
