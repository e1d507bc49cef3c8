//! Users and their addresses.

use crate::PortError;
use crate::admin::model::LAST_ADMIN;
use crate::mail::MailError;
use crate::password::PasswordError;
use crate::session::model::SessionError;
use crate::token::root_secret::RootSecretError;
use email_address::{EmailAddress, Options};
use mana_kernel::{ErrorCode, FieldError, Kind, Problem, UserId};
use mana_platform::DbError;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use unicode_normalization::UnicodeNormalization as _;
use utoipa::ToSchema;

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A person.
    User,
    /// An administrator.
    Admin,
    /// A program.
    Service,
}

impl Role {
    /// As in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
            Self::Service => "service",
        }
    }

    /// From the database. What is unknown may do nothing special.
    pub fn from_database(text: &str) -> Self {
        match text {
            "admin" => Self::Admin,
            "service" => Self::Service,
            _ => Self::User,
        }
    }
}

/// A user as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Opaque id.
    #[schema(value_type = String, examples("0198c9d2-7f6a-7c31-9d0e-3f6f0c2b8a11"), min_length = 1, max_length = 64)]
    pub id: UserId,
    /// Address, in the form that identifies the account.
    #[schema(min_length = 3, max_length = 254)]
    pub email: String,
    /// Name to show.
    #[schema(max_length = 255)]
    pub name: Option<String>,
    /// What the account may do.
    pub role: Role,
    /// Whether the owner has proven the address.
    pub email_verified: bool,
    /// URL of a picture.
    #[schema(max_length = 2048)]
    pub image: Option<String>,
    /// When the account was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// One more for every other password: what was proven by one before lets nobody in any more.
    #[serde(skip)]
    #[schema(ignore)]
    pub ways_in_epoch: i64,
}

/// Why a text is not an address this service takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEmail {
    /// Not `local@domain`.
    #[error("must be an e-mail address like name@example.com")]
    Syntax,
    /// Over 254 bytes (RFC 5321).
    #[error("must be at most 254 bytes long")]
    Length,
    /// Holds letters that stand for other letters (full-width, long s, Kelvin sign ...).
    #[error("must not contain characters that are other forms of plain letters")]
    LookAlike,
}

/// An e-mail address in the one form that identifies an account: NFC, lower case, the domain as A-labels.
///
/// Characters with a compatibility form, as the full-width or the Kelvin sign, are refused rather than folded: folding
/// would let one person's address stand for another's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, format = "email", min_length = 3, max_length = 254, examples("ada@example.com"))]
pub struct Email(String);

impl Email {
    /// The canonical form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Email {
    type Error = InvalidEmail;

    fn try_from(text: String) -> Result<Self, InvalidEmail> {
        if text.len() > 254 {
            return Err(InvalidEmail::Length);
        }
        let canonical: String = text.nfc().collect::<String>().to_lowercase().nfc().collect();
        let foreign = |text: &str| text.chars().filter(|letter| !letter.is_ascii()).count();
        let input_foreign = text.nfd().filter(|letter| !letter.is_ascii()).count();
        let is_folded = canonical.nfkc().ne(canonical.chars())
            || canonical.nfd().filter(|c| !c.is_ascii()).count() < input_foreign;
        if is_folded
            || canonical.chars().any(is_invisible)
            || (foreign(&text) > 0 && foreign(&canonical) == 0)
        {
            return Err(InvalidEmail::LookAlike);
        }
        let options = Options::default().without_display_text().without_domain_literal().with_required_tld();
        let address =
            EmailAddress::parse_with_options(&canonical, options).map_err(|_| InvalidEmail::Syntax)?;
        if address.local_part().starts_with('"') {
            return Err(InvalidEmail::Syntax);
        }
        let domain = idna::domain_to_ascii_strict(address.domain()).map_err(|_| InvalidEmail::Syntax)?;
        // IDNA drops and folds letters of its own; what it changed is another address.
        if !address.domain().is_ascii() && idna::domain_to_unicode(&domain).0 != address.domain() {
            return Err(InvalidEmail::LookAlike);
        }
        if domain.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(InvalidEmail::Syntax);
        }
        let email = format!("{}@{domain}", address.local_part());
        if email.len() > 254 {
            return Err(InvalidEmail::Length);
        }
        Ok(Self(email))
    }
}

/// Default-ignorable code points (Unicode, `DerivedCoreProperties.txt`): two addresses that differ in one look the same.
fn is_invisible(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// URL of a picture over http or https, or an empty text for none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, max_length = 2048, pattern = "^(https?://.+)?$", examples("https://app.example.com/ada.png"))]
pub(crate) struct ImageUrl(String);

impl TryFrom<String> for ImageUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Ok(Self(text));
        }
        // Browsers drop line breaks and read other spellings of a scheme; what is kept here is read by more than browsers.
        let is_plain = text.starts_with("https://") || text.starts_with("http://");
        match url::Url::parse(&text).map(String::from) {
            Ok(url) if is_plain && !text.contains(char::is_control) && text.len().max(url.len()) <= 2048 => {
                Ok(Self(url))
            }
            _ => Err("must be an http or https URL of at most 2048 characters"),
        }
    }
}

impl From<ImageUrl> for String {
    fn from(url: ImageUrl) -> Self {
        url.0
    }
}

/// What may go wrong with an account.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The address has an account.
    #[error("the address has an account")]
    EmailTaken,
    /// The address is one that anybody may read.
    #[error("the address is disposable")]
    DisposableAddress,
    /// The password is not one to be chosen.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// Not the password of the account that is to be deleted.
    #[error("the password is wrong")]
    WrongPassword,
    /// Not the password that is to be changed.
    #[error("the current password is wrong")]
    WrongCurrentPassword,
    /// A password could not be checked.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A mail could not be written down.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// An administrator who deletes the own account is the last one.
    #[error("nobody else administrates")]
    LastAdmin,
    /// What acts with a registration failed.
    #[error("a part of the registration failed: {0}")]
    Port(PortError),
    /// No key can be derived.
    #[error(transparent)]
    RootSecret(#[from] RootSecretError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// An account with the address exists.
pub static EMAIL_TAKEN: ErrorCode = ErrorCode {
    code: "auth.email_taken",
    kind: Kind::Conflict,
    title: "User with this email already exists",
    word: None,
    way_out: "Offer sign-in or password reset for the address, or register another.",
};

/// An address of a service of throw-away mailboxes.
pub static DISPOSABLE_ADDRESS: ErrorCode = ErrorCode {
    code: "auth.disposable_address",
    kind: Kind::Invalid,
    title: "Addresses that are thrown away can't be used here",
    word: None,
    way_out: "Ask the person for an address that stays theirs.",
};

/// Not the account's password.
pub static WRONG_PASSWORD: ErrorCode = ErrorCode {
    code: "auth.wrong_password",
    kind: Kind::Unauthenticated,
    title: "Password is incorrect",
    word: None,
    way_out: "Let the person type it again, or send the request without a password right after a sign-in. The session goes on.",
};
/// Not the password that is to be changed.
pub static WRONG_CURRENT_PASSWORD: ErrorCode = ErrorCode {
    code: "auth.wrong_current_password",
    kind: Kind::Unauthenticated,
    title: "Current password is incorrect",
    word: None,
    way_out: "Let the person type it again, or reset it by mail. The session goes on.",
};

/// The catalogue of this feature.
pub static CODES: &[&ErrorCode] =
    &[&EMAIL_TAKEN, &DISPOSABLE_ADDRESS, &WRONG_PASSWORD, &WRONG_CURRENT_PASSWORD];

impl Problem for AccountError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::EmailTaken => &EMAIL_TAKEN,
            Self::DisposableAddress => &DISPOSABLE_ADDRESS,
            Self::RootSecret(_) => &mana_platform::http::codes::INTERNAL,
            Self::LastAdmin => &LAST_ADMIN,
            Self::WrongPassword => &WRONG_PASSWORD,
            Self::WrongCurrentPassword => &WRONG_CURRENT_PASSWORD,
            Self::Password(error) => error.code(),
            Self::Session(error) => error.code(),
            Self::Mail(error) => error.code(),
            Self::Port(error) => error.code(),
            Self::Database(error) => error.code(),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Password(error) => error.detail(),
            Self::Session(error) => error.detail(),
            Self::Port(error) => error.detail(),
            Self::EmailTaken
            | Self::DisposableAddress
            | Self::LastAdmin
            | Self::WrongPassword
            | Self::WrongCurrentPassword
            | Self::Mail(_)
            | Self::RootSecret(_)
            | Self::Database(_) => None,
        }
    }

    fn fields(&self) -> Vec<FieldError> {
        match self {
            Self::Password(error) => error.fields(),
            Self::DisposableAddress => vec![FieldError {
                pointer: "/email".to_owned(),
                code: "disposable",
                detail: "must not be an address that is thrown away".to_owned(),
            }],
            Self::EmailTaken
            | Self::LastAdmin
            | Self::WrongPassword
            | Self::WrongCurrentPassword
            | Self::Session(_)
            | Self::Mail(_)
            | Self::RootSecret(_)
            | Self::Port(_)
            | Self::Database(_) => Vec::new(),
        }
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Password(error) => error.retry_after_seconds(),
            Self::Session(error) => error.retry_after_seconds(),
            Self::EmailTaken
            | Self::DisposableAddress
            | Self::LastAdmin
            | Self::WrongPassword
            | Self::WrongCurrentPassword
            | Self::Mail(_)
            | Self::RootSecret(_)
            | Self::Port(_)
            | Self::Database(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn email(text: &str) -> Result<String, InvalidEmail> {
        Email::try_from(text.to_owned()).map(|email| email.0)
    }

    #[test]
    fn an_address_has_one_form() {
        for spelling in ["Ada@Example.COM", "ada@example.com", "ADA@EXAMPLE.COM"] {
            assert_eq!(email(spelling).as_deref(), Ok("ada@example.com"));
        }
        assert_eq!(email("jose\u{301}@example.com"), email("jos\u{e9}@example.com"));
        assert_eq!(email("a@BÜCHER.example").as_deref(), Ok("a@xn--bcher-kva.example"));
        assert_eq!(email("a@xn--bcher-kva.example").as_deref(), Ok("a@xn--bcher-kva.example"));
    }

    #[test]
    fn look_alikes_never_become_another_address() {
        for (look_alike, plain) in [
            ("\u{212a}ate@example.com", "kate@example.com"),
            ("\u{17f}am@example.com", "sam@example.com"),
            ("\u{ff41}da@example.com", "ada@example.com"),
            ("ad\u{131}@example.com", "adi@example.com"),
            ("AD\u{130}@example.com", "adi@example.com"),
            ("ada@\u{ff45}xample.com", "ada@example.com"),
            ("\u{430}da@example.com", "ada@example.com"),
            ("a@ex\u{115f}ample.com", "a@example.com"),
            ("ada\u{115f}@example.com", "ada@example.com"),
            ("a@\u{1c80}.com", "a@\u{432}.com"),
        ] {
            assert_ne!(email(look_alike), email(plain), "{look_alike}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "a",
            "@",
            "a@",
            "@b.c",
            "a@b",
            "a b@c.de",
            "a@b.c\r\nBcc: x@y.z",
            "a@b.c\0",
            "Ada <a@b.de>",
            "\"a b\"@c.de",
            "a@[127.0.0.1]",
            "a@1.2.3.4",
            "a@com.123",
            "a@b..c",
            "a@-b.de",
            "a..b@c.de",
            &format!("{}@example.com", "x".repeat(260)),
        ] {
            assert!(email(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn canonical_forms_are_stable(text in "\\PC{1,12}@[a-zA-Z0-9äöüß]{1,10}\\.(com|DE)") {
            if let Ok(canonical) = email(&text) {
                prop_assert_eq!(email(&canonical), Ok(canonical));
            }
        }
    }
}
