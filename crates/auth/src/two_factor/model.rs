//! What a second factor is, and who needs one.

use crate::account::model::Role;
use crate::mail::MailError;
use crate::token::root_secret::RootSecretError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use mana_kernel::{ErrorCode, Kind, Problem, SessionId, opaque_secret};
use mana_platform::DbError;
use mana_platform::config::TwoFactorRequired;
use mana_platform::http::codes;
use serde::Serialize;
use time::Duration;
use utoipa::ToSchema;

opaque_secret! {
    /// Names a sign-in that waits for its second factor. Opens nothing by itself.
    ChallengeToken, ChallengeTokenHash, "mch_"
}

opaque_secret! {
    /// Marks a browser in which the second factor need not be given again.
    TrustedDeviceToken, TrustedDeviceTokenHash, "mtd_"
}

/// How a second factor can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FactorMethod {
    /// A code of an authenticator app.
    Totp,
    /// One of the codes on paper.
    RecoveryCode,
    /// A passkey.
    Passkey,
    /// None is set up and one is required: set up an authenticator app now.
    Enrolment,
}

/// What an account has set up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Factors {
    /// An authenticator app, confirmed.
    pub(crate) has_totp: bool,
    /// Recovery codes that are left.
    pub(crate) recovery_codes: i64,
    /// Passkeys.
    pub(crate) has_passkey: bool,
}

impl Factors {
    /// How a second factor may be given after a first one of this account; none if none is asked for.
    pub(crate) fn demanded(self, role: Role, required: TwoFactorRequired) -> Vec<FactorMethod> {
        if !self.has_totp && !is_required(role, required) {
            return Vec::new();
        }
        let mut methods = Vec::new();
        if self.has_totp {
            methods.push(FactorMethod::Totp);
        }
        if self.has_passkey {
            methods.push(FactorMethod::Passkey);
        }
        if methods.is_empty() {
            return vec![FactorMethod::Enrolment];
        }
        if self.recovery_codes > 0 {
            methods.push(FactorMethod::RecoveryCode);
        }
        methods
    }

    /// Whether the password alone does not show that somebody is the owner: it was asked for a factor, and there is one.
    pub(crate) fn outrank_the_password(self, role: Role, required: TwoFactorRequired) -> bool {
        self.has_totp || (self.has_passkey && is_required(role, required))
    }
}

/// Whether the installation asks a second factor of everybody with the role.
pub(crate) fn is_required(role: Role, required: TwoFactorRequired) -> bool {
    match required {
        TwoFactorRequired::None => false,
        TwoFactorRequired::Admins => role == Role::Admin,
        TwoFactorRequired::All => true,
    }
}

/// How long somebody may take to set an authenticator app up.
pub(super) const ENROLMENT_TTL: Duration = Duration::minutes(15);

/// Where an authenticator app is being set up: only there does its code make it count.
#[derive(Debug, Clone)]
pub(super) enum BegunIn {
    /// Within a session.
    Session(SessionId),
    /// In the middle of a sign-in.
    SignIn(ChallengeTokenHash),
}

impl BegunIn {
    /// As in the database.
    pub(super) fn as_text(&self) -> String {
        match self {
            Self::Session(session) => session.to_string(),
            Self::SignIn(token) => format!("sign-in {}", BASE64URL.encode(token.as_bytes())),
        }
    }
}

/// Guesses at the codes of one account within [`GUESS_WINDOW`]; a right one begins anew. Whoever has stolen the password finds a code with
/// a chance of one in 700 a day, and the owner reads of it in the security events.
pub(super) const GUESSES: i32 = 5;

/// The time that guesses are counted in.
pub(super) const GUESS_WINDOW: Duration = Duration::minutes(15);

/// What may go wrong with a second factor.
#[derive(Debug, thiserror::Error)]
pub enum TwoFactorError {
    /// Not a code of the account, or a recovery code that was taken already.
    #[error("not a code of the account")]
    WrongCode,
    /// A code of the account's app that was taken already, or one that is older.
    #[error("the code was taken already")]
    UsedCode,
    /// Too many wrong ones lately; this one was not looked at.
    #[error("too many wrong codes: the next one in {retry_after_seconds} s")]
    TooManyGuesses {
        /// Exact.
        retry_after_seconds: u64,
    },
    /// No sign-in of this name waits: it is finished, took too long, or never was.
    #[error("no sign-in waits under this token")]
    DeadChallenge,
    /// There is no factor, or none that waits to be confirmed.
    #[error("no second factor is set up")]
    NotSetUp,
    /// There is one.
    #[error("a second factor is set up already")]
    AlreadySetUp,
    /// The installation asks for one of this account.
    #[error("the installation asks for a second factor")]
    Required,
    /// The password alone does not do.
    #[error("the account confirms with its second factor")]
    CodeNeeded,
    /// Neither password nor code.
    #[error("neither a password nor a code")]
    NothingGiven,
    /// No trusted browser of the caller's has the id.
    #[error("no trusted browser of the caller's has this id")]
    UnknownDevice,
    /// What is stored is no secret.
    #[error("a stored second factor is damaged")]
    Damaged,
    /// The stored secret can't be opened.
    #[error(transparent)]
    Sealed(#[from] RootSecretError),
    /// The library refuses its parameters.
    #[error("a code can't be computed: {0}")]
    Totp(#[from] totp_rs::TotpError),
    /// The picture can't be drawn.
    #[error("a QR code can't be drawn: {0}")]
    QrCode(#[from] qrcode::types::QrError),
    /// Its owner can't be told.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// Not a code of the account.
pub(super) static WRONG_CODE: ErrorCode = ErrorCode {
    code: "auth.wrong_code",
    kind: Kind::Unauthenticated,
    title: "This code is not right",
    word: Some("INVALID_CODE"),
    way_out: "Let the person type the app's current code, or a recovery code that is left. Each is good once: after a code was taken, wait for the app's next one. If all fail, check the clock of the phone.",
};
/// Too many guesses.
pub(super) static TOO_MANY_CODES: ErrorCode = ErrorCode {
    code: "auth.too_many_codes",
    kind: Kind::TooManyRequests,
    title: "Too many wrong codes",
    word: None,
    way_out: "Let the person wait as long as Retry-After says, exactly. All devices share the count.",
};
/// Nothing waits.
pub(super) static DEAD_CHALLENGE: ErrorCode = ErrorCode {
    code: "auth.dead_challenge",
    kind: Kind::Unauthenticated,
    title: "This sign-in has to begin anew",
    word: None,
    way_out: "A sign-in waits ten minutes for its second factor, and is finished once. Show the sign-in again.",
};
/// Nothing there.
pub(super) static NO_SECOND_FACTOR: ErrorCode = ErrorCode {
    code: "auth.no_second_factor",
    kind: Kind::Conflict,
    title: "There is no second factor to act on",
    word: None,
    way_out: "Begin with /api/v1/auth/two-factor/enrol, then confirm with a code of the app.",
};
/// Something there.
pub(super) static SECOND_FACTOR_EXISTS: ErrorCode = ErrorCode {
    code: "auth.second_factor_exists",
    kind: Kind::Conflict,
    title: "A second factor is set up already",
    word: None,
    way_out: "Switch it off before setting up another.",
};
/// Must stay.
pub(super) static SECOND_FACTOR_REQUIRED: ErrorCode = ErrorCode {
    code: "auth.second_factor_required",
    kind: Kind::Conflict,
    title: "This account must have a second factor",
    word: None,
    way_out: "The operator asks for one (TWO_FACTOR_REQUIRED). An administrator can reset it for who has lost it.",
};
/// The password alone is not enough.
pub(super) static CODE_NEEDED: ErrorCode = ErrorCode {
    code: "auth.code_needed",
    kind: Kind::Conflict,
    title: "This account confirms with its second factor",
    word: None,
    way_out: "Send `code` instead of `password`; where the account's factor is a passkey, confirm by /api/v1/auth/reauthenticate/passkey.",
};
/// Neither of two.
pub(super) static NOTHING_GIVEN: ErrorCode = ErrorCode {
    code: "auth.nothing_given",
    kind: Kind::Invalid,
    title: "Send a password or a code",
    word: None,
    way_out: "Send `code` for an account with a second factor, else `password`.",
};
/// No such browser.
pub(super) static TRUSTED_DEVICE_NOT_FOUND: ErrorCode = ErrorCode {
    code: "auth.trusted_device_not_found",
    kind: Kind::NotFound,
    title: "There is no such trusted device",
    word: None,
    way_out: "It is trusted no more, or was never this user's. Read the list again.",
};

/// The catalogue of this feature.
pub(crate) static CODES: &[&ErrorCode] = &[
    &WRONG_CODE,
    &TOO_MANY_CODES,
    &DEAD_CHALLENGE,
    &NO_SECOND_FACTOR,
    &SECOND_FACTOR_EXISTS,
    &SECOND_FACTOR_REQUIRED,
    &CODE_NEEDED,
    &NOTHING_GIVEN,
    &TRUSTED_DEVICE_NOT_FOUND,
];

impl Problem for TwoFactorError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::WrongCode | Self::UsedCode => &WRONG_CODE,
            Self::TooManyGuesses { .. } => &TOO_MANY_CODES,
            Self::DeadChallenge => &DEAD_CHALLENGE,
            Self::NotSetUp => &NO_SECOND_FACTOR,
            Self::AlreadySetUp => &SECOND_FACTOR_EXISTS,
            Self::Required => &SECOND_FACTOR_REQUIRED,
            Self::CodeNeeded => &CODE_NEEDED,
            Self::NothingGiven => &NOTHING_GIVEN,
            Self::UnknownDevice => &TRUSTED_DEVICE_NOT_FOUND,
            // An operator left a version out: it comes back.
            Self::Sealed(_) => &codes::UNAVAILABLE,
            Self::Damaged | Self::Totp(_) | Self::QrCode(_) => &codes::INTERNAL,
            Self::Mail(error) => error.code(),
            Self::Database(error) => error.code(),
        }
    }

    fn detail(&self) -> Option<String> {
        let is_used = matches!(self, Self::UsedCode);
        is_used.then(|| "This code was used already. Wait for the app's next one".to_owned())
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        if let Self::TooManyGuesses { retry_after_seconds } = self {
            Some(*retry_after_seconds)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_asked_of_who_has_one_and_of_whom_the_policy_names() {
        let none = Factors::default();
        let totp = Factors { has_totp: true, recovery_codes: 3, has_passkey: false };
        let passkey = Factors { has_passkey: true, ..none };
        for required in [TwoFactorRequired::None, TwoFactorRequired::Admins, TwoFactorRequired::All] {
            assert_eq!(totp.demanded(Role::User, required), [FactorMethod::Totp, FactorMethod::RecoveryCode]);
        }
        assert_eq!(none.demanded(Role::Admin, TwoFactorRequired::None), []);
        assert_eq!(none.demanded(Role::User, TwoFactorRequired::Admins), []);
        assert_eq!(none.demanded(Role::Admin, TwoFactorRequired::Admins), [FactorMethod::Enrolment]);
        assert_eq!(none.demanded(Role::User, TwoFactorRequired::All), [FactorMethod::Enrolment]);
        assert_eq!(passkey.demanded(Role::User, TwoFactorRequired::None), [], "a passkey is another way in");
        assert_eq!(passkey.demanded(Role::User, TwoFactorRequired::All), [FactorMethod::Passkey]);
    }

    #[test]
    fn a_factor_that_is_asked_for_outranks_the_password_and_nothing_else_does() {
        use TwoFactorRequired::{Admins, All, None};
        let totp = Factors { has_totp: true, ..Factors::default() };
        let passkey = Factors { has_passkey: true, ..Factors::default() };
        for required in [None, Admins, All] {
            assert!(totp.outrank_the_password(Role::User, required));
            assert!(!Factors::default().outrank_the_password(Role::Admin, required), "there is none to give");
        }
        assert!(passkey.outrank_the_password(Role::User, All));
        assert!(passkey.outrank_the_password(Role::Admin, Admins));
        assert!(!passkey.outrank_the_password(Role::User, Admins));
        assert!(!passkey.outrank_the_password(Role::Admin, None), "it is another way in");
    }
}
