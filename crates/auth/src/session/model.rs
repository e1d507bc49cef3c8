//! What a session is, why it may end, and what may go wrong with a sign-in.

use crate::password::PasswordError;
use mana_kernel::{ErrorCode, Kind, Problem, SessionId, UserId, opaque_secret};
use mana_platform::DbError;
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

opaque_secret! {
    /// The single sign-on cookie's value. Names a session; opens nothing but the routes that take the cookie.
    SessionCookie, SessionCookieHash, "mst_"
}

/// A session as its owner sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Opaque id.
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    pub id: SessionId,
    /// The user.
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    pub user_id: UserId,
    /// The device's own id, if the client gave one.
    #[schema(max_length = 512)]
    pub device_id: Option<String>,
    /// The device's name, if the client gave one.
    #[schema(max_length = 128)]
    pub device_name: Option<String>,
    /// What the client called itself at sign-in.
    #[schema(max_length = 512)]
    pub user_agent: Option<String>,
    /// Address at sign-in.
    #[schema(max_length = 45)]
    pub ip_address: Option<String>,
    /// Whether the person asked to stay signed in for longer.
    pub remember_me: bool,
    /// When the sign-in was.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When the session was last used, to the minute.
    #[serde(with = "time::serde::rfc3339")]
    pub last_activity_at: OffsetDateTime,
    /// When it ends if it is not used.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// The app whose backend opened it, for which the person has proven nothing; absent if the person signed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub opened_by_app: Option<String>,
}

/// What is special of a session that an app's backend opened.
#[derive(Debug, Clone)]
pub(crate) struct Minted {
    /// The app.
    pub(crate) by: String,
    /// When it ends, whatever happens.
    pub(crate) until: OffsetDateTime,
}

impl Session {
    /// That, if an app's backend opened it.
    pub(crate) fn minted(&self) -> Option<Minted> {
        self.opened_by_app.clone().map(|by| Minted { by, until: self.expires_at })
    }
}

/// A session's activity is written when it is this much newer than what is written: constant work for any traffic.
pub(crate) const ACTIVITY_STEP: Duration = Duration::MINUTE;

/// Why a session was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeReason {
    /// Its owner signed out.
    SignedOut,
    /// Its owner ended it from another device.
    RevokedByOwner,
    /// A replaced refresh token came back.
    RefreshReplayed,
    /// The user signed in on more devices than may be signed in at once; this one rested longest.
    TooMany,
    /// Its owner said that it was somebody else's.
    Disowned,
    /// The password was changed from another device.
    PasswordChanged,
    /// The password was set anew by whoever has the mailbox.
    PasswordReset,
    /// The owner of the address took over an account that somebody else may have made with it.
    AddressProven,
    /// The account was deleted.
    AccountDeleted,
    /// A second factor was set up in another session; this one was opened without it.
    SecondFactorChanged,
    /// The installation asks for a second factor, and this one was opened without.
    SecondFactorMissing,
    /// An administrator ended it.
    EndedByAdmin,
    /// The account was disabled.
    UserDisabled,
    /// What the account may do was changed: the next sign-in goes by the rules of its new role.
    RoleChanged,
}

impl RevokeReason {
    /// As in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::RevokedByOwner => "revoked_by_owner",
            Self::RefreshReplayed => "refresh_replayed",
            Self::TooMany => "too_many",
            Self::Disowned => "disowned",
            Self::PasswordChanged => "password_changed",
            Self::PasswordReset => "password_reset",
            Self::AddressProven => "address_proven",
            Self::AccountDeleted => "account_deleted",
            Self::SecondFactorChanged => "second_factor_changed",
            Self::SecondFactorMissing => "second_factor_missing",
            Self::EndedByAdmin => "ended_by_admin",
            Self::UserDisabled => "user_disabled",
            Self::RoleChanged => "role_changed",
        }
    }
}

/// What may go wrong with signing in and out.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Unknown address or wrong password: never says which.
    #[error("unknown address or wrong password")]
    InvalidCredentials,
    /// Too many attempts failed lately; the password was not looked at.
    #[error("too many failed attempts: the next one in {retry_after_seconds} s")]
    TooManyAttempts {
        /// Exact.
        retry_after_seconds: u64,
    },
    /// The password is right, the account is shut.
    #[error("the account is disabled")]
    AccountDisabled,
    /// The address was never proven, and this installation asks for that.
    #[error("the address is not verified")]
    EmailNotVerified,
    /// The caller's last proof is too old for what is asked.
    #[error("the last sign-in or proof is too old for this")]
    NotFresh,
    /// An app's backend opened the session, and its owner has proven nothing by that.
    #[error("the session was opened by an app's backend")]
    Minted,
    /// No live session of the caller's has the id; also if it is somebody else's.
    #[error("no live session of the caller's has this id")]
    NotFound,
    /// Nothing in the request names a session.
    #[error("no bearer token, refresh token or cookie")]
    NothingToSignOut,
    /// No cookie of the name came with the request.
    #[error("no session cookie")]
    NoCookie,
    /// No cookie of the request names a live session.
    #[error("no cookie of a live session")]
    DeadCookie,
    /// The password could not be checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The access token could not be signed.
    #[error(transparent)]
    Token(#[from] crate::token::access::TokenError),
    /// The chain of refresh tokens could not be opened.
    #[error(transparent)]
    Chain(#[from] crate::token::refresh::model::RefreshError),
    /// The mail that tells of a new device could not be written down.
    #[error(transparent)]
    Mail(#[from] crate::mail::MailError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// Unknown address or wrong password.
pub static INVALID_CREDENTIALS: ErrorCode = ErrorCode {
    code: "auth.invalid_credentials",
    kind: Kind::Unauthenticated,
    title: "Invalid email or password",
    word: Some("INVALID_CREDENTIALS"),
    way_out: "Let the person try again or reset the password. Whether the address has an account is never told.",
};
/// Too many attempts.
pub static TOO_MANY_ATTEMPTS: ErrorCode = ErrorCode {
    code: "auth.too_many_attempts",
    kind: Kind::TooManyRequests,
    title: "Too many failed attempts to sign in",
    word: Some("TOO_MANY_ATTEMPTS"),
    way_out: "Let the person wait as long as Retry-After says, exactly: the wait doubles with each failure from the same place, and the right password ends it. Whether the address has an account is never told.",
};
/// Shut by an administrator.
pub static ACCOUNT_DISABLED: ErrorCode = ErrorCode {
    code: "auth.account_disabled",
    kind: Kind::Unauthenticated,
    title: "This account is disabled",
    word: Some("ACCOUNT_DISABLED"),
    way_out: "Only an administrator can open the account again. Told only after the right password.",
};
/// Told only after the right password or another proof. The one code of upper-case letters: clients have it so.
pub static EMAIL_NOT_VERIFIED: ErrorCode = ErrorCode {
    code: "EMAIL_NOT_VERIFIED",
    kind: Kind::Forbidden,
    title: "Confirm your e-mail address first: open the link that was mailed to it",
    word: Some("EMAIL_NOT_VERIFIED"),
    way_out: "Show where the link is, and offer to send it again with /api/v1/auth/resend-verification. A reset of the password confirms the address as well.",
};
/// An old session is not enough for this.
pub static FRESH_AUTHENTICATION_REQUIRED: ErrorCode = ErrorCode {
    code: "auth.fresh_authentication_required",
    kind: Kind::Forbidden,
    title: "Confirm that it is you first",
    word: None,
    way_out: "Ask the person for the password or the second factor, send it to /api/v1/auth/reauthenticate (a passkey: /api/v1/auth/reauthenticate/passkey), and repeat the request. A new sign-in does as well.",
};
/// Somebody has to have signed in for this.
pub static MINTED_SESSION: ErrorCode = ErrorCode {
    code: "auth.minted_session",
    kind: Kind::Forbidden,
    title: "This session was opened by an app, not by a sign-in",
    word: None,
    way_out: "Let the person sign in, and ask again with the tokens of that sign-in. No proof within this session does.",
};
/// No such session of the caller's.
pub static SESSION_NOT_FOUND: ErrorCode = ErrorCode {
    code: "auth.session_not_found",
    kind: Kind::NotFound,
    title: "There is no such session",
    word: None,
    way_out: "It has ended already, or was never this user's. Read the list of sessions again.",
};
/// Sign-out of nothing.
pub static NOTHING_TO_SIGN_OUT: ErrorCode = ErrorCode {
    code: "auth.nothing_to_sign_out",
    kind: Kind::Unauthenticated,
    title: "Nothing to sign out: send a bearer token, a refresh token or the session cookie",
    word: None,
    way_out: "Send any one of the three. On the client, forget its tokens either way.",
};

/// No cookie at all.
pub static NO_SESSION_COOKIE: ErrorCode = ErrorCode {
    code: "auth.no_session_cookie",
    kind: Kind::Unauthenticated,
    title: "No session cookie found",
    word: None,
    way_out: "Nobody is signed in in this browser, or the request went without credentials (`credentials: 'include'`): show the sign-in.",
};
/// A cookie of nothing that lives.
pub static DEAD_SESSION_COOKIE: ErrorCode = ErrorCode {
    code: "auth.dead_session_cookie",
    kind: Kind::Unauthenticated,
    title: "Invalid or expired session",
    word: None,
    way_out: "The session of this browser has ended: show the sign-in.",
};

/// The catalogue of this feature.
pub static CODES: &[&ErrorCode] = &[
    &INVALID_CREDENTIALS,
    &TOO_MANY_ATTEMPTS,
    &ACCOUNT_DISABLED,
    &EMAIL_NOT_VERIFIED,
    &FRESH_AUTHENTICATION_REQUIRED,
    &MINTED_SESSION,
    &SESSION_NOT_FOUND,
    &NOTHING_TO_SIGN_OUT,
    &NO_SESSION_COOKIE,
    &DEAD_SESSION_COOKIE,
];

impl Problem for SessionError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::InvalidCredentials => &INVALID_CREDENTIALS,
            Self::TooManyAttempts { .. } => &TOO_MANY_ATTEMPTS,
            Self::AccountDisabled => &ACCOUNT_DISABLED,
            Self::EmailNotVerified => &EMAIL_NOT_VERIFIED,
            Self::NotFresh => &FRESH_AUTHENTICATION_REQUIRED,
            Self::Minted => &MINTED_SESSION,
            Self::NotFound => &SESSION_NOT_FOUND,
            Self::NothingToSignOut => &NOTHING_TO_SIGN_OUT,
            Self::NoCookie => &NO_SESSION_COOKIE,
            Self::DeadCookie => &DEAD_SESSION_COOKIE,
            Self::Password(error) => error.code(),
            Self::Token(error) => error.code(),
            Self::Chain(error) => error.code(),
            Self::Mail(error) => error.code(),
            Self::Database(error) => error.code(),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::TooManyAttempts { retry_after_seconds } => {
                Some(format!("Too many failed attempts to sign in. Try again in {retry_after_seconds} s"))
            }
            Self::Password(error) => error.detail(),
            Self::InvalidCredentials
            | Self::AccountDisabled
            | Self::EmailNotVerified
            | Self::NotFresh
            | Self::Minted
            | Self::NotFound
            | Self::NothingToSignOut
            | Self::Token(_)
            | Self::NoCookie
            | Self::DeadCookie
            | Self::Chain(_)
            | Self::Mail(_)
            | Self::Database(_) => None,
        }
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::TooManyAttempts { retry_after_seconds } => Some(*retry_after_seconds),
            Self::Password(error) => error.retry_after_seconds(),
            Self::InvalidCredentials
            | Self::AccountDisabled
            | Self::EmailNotVerified
            | Self::NotFresh
            | Self::Minted
            | Self::NotFound
            | Self::NothingToSignOut
            | Self::Token(_)
            | Self::NoCookie
            | Self::DeadCookie
            | Self::Chain(_)
            | Self::Mail(_)
            | Self::Database(_) => None,
        }
    }
}
