//! Who somebody is at another service, what of that is believed here, and what may go wrong.

use crate::account::model::{AccountError, Email};
use crate::mail::MailError;
use crate::session::model::SessionError;
use crate::token::root_secret::RootSecretError;
use mana_kernel::{ErrorCode, Kind, Problem, opaque_secret};
use mana_platform::DbError;

opaque_secret! {
    /// Ties the answer of a provider to the request for it.
    State, StateHash, "mos_"
}

opaque_secret! {
    /// Ties an ID token to the request for it. Sent in clear; the prefix tells the tokens of round trips from those that apps ask for.
    Nonce, NonceHash, "mon_"
}

/// Which service it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// Google.
    Google,
    /// Apple.
    Apple,
    /// Microsoft Entra.
    Microsoft,
    /// GitHub.
    GitHub,
    /// Discord.
    Discord,
    /// An issuer of `OIDC_PROVIDERS`.
    Oidc,
}

impl ProviderKind {
    /// Of the provider that has the id.
    pub(crate) fn named(id: &str) -> Self {
        let presets = [Self::Google, Self::Apple, Self::Microsoft, Self::GitHub, Self::Discord];
        presets.into_iter().find(|kind| kind.as_str() == id).unwrap_or(Self::Oidc)
    }

    /// As in security events, and in paths unless there are several.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Google => "google",
            Self::Apple => "apple",
            Self::Microsoft => "microsoft",
            Self::GitHub => "github",
            Self::Discord => "discord",
            Self::Oidc => "oidc",
        }
    }
}

/// How much a provider's word for an address is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmailStanding {
    /// It says nothing, or that it never checked: anybody may have typed the address in there.
    Unverified,
    /// The person had the mailbox at some time.
    Verified,
    /// The provider decides whose the mailbox is: the person has it now.
    Authoritative,
}

/// An address that a provider told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToldEmail {
    pub(crate) address: Email,
    pub(crate) standing: EmailStanding,
}

/// Who somebody is at a provider.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// With `subject`, who it is.
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) email: Option<ToldEmail>,
    pub(crate) name: Option<String>,
    pub(crate) image: Option<String>,
}

/// What happens when an identity comes that no account is linked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It gets an account.
    Register {
        /// Whether the address counts as proven.
        is_verified: bool,
    },
    /// It is linked to the account of its address.
    Link,
    /// The address is somebody's, and that they are one is not known.
    Refuse,
}

/// Decides by what the provider says of the address, and whether the account that has it, if there is one, has proven it.
///
/// An account is joined only where both ends are sure: the provider decides whose the mailbox is, and the account has proven that it is
/// its own. Else whoever registers a stranger's address, here or there, would share the stranger's account.
pub(crate) fn arrival(told: EmailStanding, local: Option<bool>) -> Arrival {
    match (told, local) {
        (_, None) => Arrival::Register { is_verified: told != EmailStanding::Unverified },
        (EmailStanding::Authoritative, Some(true)) => Arrival::Link,
        (_, Some(_)) => Arrival::Refuse,
    }
}

/// What may go wrong with signing in with others.
#[derive(Debug, thiserror::Error)]
pub enum OAuthError {
    /// No provider of the name is set up for this.
    #[error("no such provider")]
    UnknownProvider,
    /// The place to return to is not one of the family's.
    #[error("the place to return to is not allowed")]
    RedirectRefused,
    /// The round trip was not begun in this browser, is too old, or has come back before.
    #[error("no such round trip of this browser")]
    UnknownFlow,
    /// The person, or the provider, said no.
    #[error("the provider said no")]
    Denied,
    /// The provider can't be asked, or its answer makes no sense.
    #[error("the provider failed: {0}")]
    ProviderFailed(ProviderFault),
    /// What claims to be the provider's word is not.
    #[error("the identity is not proven: {0}")]
    NotProven(&'static str),
    /// The provider told no address, and an account needs one.
    #[error("the provider told no e-mail address")]
    NoEmail,
    /// The address has an account that the identity is not linked to.
    #[error("the address has an account")]
    EmailTaken,
    /// The identity is linked to another account.
    #[error("the identity is linked to another account")]
    AccountTaken,
    /// The caller has no such link.
    #[error("no such linked account")]
    NotLinked,
    /// Nothing else would be left to sign in with.
    #[error("the last way to sign in")]
    LastWayIn,
    /// The tokens of the provider could not be sealed.
    #[error(transparent)]
    Secret(#[from] RootSecretError),
    /// The account could not be made.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The session could not be opened.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// What is wrong with a provider.
#[derive(Debug, thiserror::Error)]
pub enum ProviderFault {
    /// It can't be reached, or does not answer in time and size.
    #[error("{0}")]
    Unreachable(#[from] mana_platform::outbound::OutboundError),
    /// It answered with another status than that of success.
    #[error("it answered {0} to {1}")]
    Status(u16, &'static str),
    /// Its answer is not what the protocol says.
    #[error("its {0} is not as the protocol says")]
    Malformed(&'static str),
    /// It refused what it was asked, in the words of RFC 6749, section 5.2.
    #[error("it refused: {0}")]
    Refused(String),
    /// It failed a moment ago, and is left alone for a while.
    #[error("it failed a moment ago")]
    Resting,
}

impl From<ProviderFault> for OAuthError {
    fn from(fault: ProviderFault) -> Self {
        Self::ProviderFailed(fault)
    }
}

/// No such provider.
pub(crate) static UNKNOWN_PROVIDER: ErrorCode = ErrorCode {
    code: "auth.provider_not_found",
    kind: Kind::NotFound,
    title: "There is no such way to sign in",
    word: None,
    way_out: "Offer what GET /api/v1/auth/oauth lists. An operator sets a provider up by its settings.",
};
/// Not one of the family's pages.
pub(crate) static REDIRECT_REFUSED: ErrorCode = ErrorCode {
    code: "auth.oauth_redirect_refused",
    kind: Kind::Invalid,
    title: "redirectTo is not a page that this service may send people to",
    word: None,
    way_out: "Give a URL of an origin in CORS_ORIGINS, of FRONTEND_URL, or below COOKIE_DOMAIN, as the operator has set them.",
};
/// Another browser's, old, or used.
pub(crate) static UNKNOWN_FLOW: ErrorCode = ErrorCode {
    code: "auth.oauth_flow_unknown",
    kind: Kind::Invalid,
    title: "This sign-in was not begun in this browser, took too long, or is finished already",
    word: None,
    way_out: "Begin again. If it happens every time, the browser refuses the cookie of this service.",
};
/// The person said no.
pub(crate) static DENIED: ErrorCode = ErrorCode {
    code: "auth.oauth_denied",
    kind: Kind::Forbidden,
    title: "The other service did not sign you in",
    word: None,
    way_out: "The person cancelled, or the provider refused: show the sign-in again.",
};
/// Their fault.
pub(crate) static PROVIDER_FAILED: ErrorCode = ErrorCode {
    code: "auth.provider_unavailable",
    kind: Kind::Unavailable,
    title: "The other service can't be asked now",
    word: None,
    way_out: "Let the person try again in a while, or sign in another way. The cause is in the log of the service.",
};
/// A token that proves nothing.
pub(crate) static NOT_PROVEN: ErrorCode = ErrorCode {
    code: "auth.provider_token_invalid",
    kind: Kind::Unauthenticated,
    title: "The other service's token is not valid here",
    word: Some("INVALID_CREDENTIALS"),
    way_out: "Ask the provider for a new ID token and send it at once. Its audience must be one of the settings, and its nonce the one that is sent.",
};
/// No address.
pub(crate) static NO_EMAIL: ErrorCode = ErrorCode {
    code: "auth.provider_without_email",
    kind: Kind::Unprocessable,
    title: "The other service did not tell an e-mail address",
    word: None,
    way_out: "Let the person allow it, or verify an address there; or register with an address here and link the service then.",
};
/// The address is somebody's.
pub(crate) static EMAIL_TAKEN_BY_OTHER: ErrorCode = ErrorCode {
    code: "auth.provider_email_taken",
    kind: Kind::Conflict,
    title: "There is an account with this e-mail address already",
    word: None,
    way_out: "Let the person sign in to that account (a forgotten password can be reset by mail) and link the service from there.",
};
/// The identity is another account's.
pub(crate) static ACCOUNT_TAKEN: ErrorCode = ErrorCode {
    code: "auth.provider_account_taken",
    kind: Kind::Conflict,
    title: "This account of the other service is linked to somebody else here",
    word: None,
    way_out: "Sign in with it to reach that account, and unlink it there first.",
};
/// Nothing of the caller's.
pub(crate) static NOT_LINKED: ErrorCode = ErrorCode {
    code: "auth.linked_account_not_found",
    kind: Kind::NotFound,
    title: "There is no such linked account",
    word: None,
    way_out: "It is unlinked already, or was never this user's. Read the list of linked accounts again.",
};
/// Nobody locks themselves out.
pub(crate) static LAST_WAY_IN: ErrorCode = ErrorCode {
    code: "auth.last_way_in",
    kind: Kind::Conflict,
    title: "This is the last way to sign in to the account",
    word: None,
    way_out: "Set a password (as if it was forgotten), link another service or add a passkey first.",
};

/// The catalogue of this feature.
pub(crate) static CODES: &[&ErrorCode] = &[
    &UNKNOWN_PROVIDER,
    &REDIRECT_REFUSED,
    &UNKNOWN_FLOW,
    &DENIED,
    &PROVIDER_FAILED,
    &NOT_PROVEN,
    &NO_EMAIL,
    &EMAIL_TAKEN_BY_OTHER,
    &ACCOUNT_TAKEN,
    &NOT_LINKED,
    &LAST_WAY_IN,
];

/// Seconds after which a provider that failed may be tried again.
const RETRY_AFTER_SECONDS: u64 = 10;

impl OAuthError {
    /// What is the provider's fault, or an attack, is told to the operator here: the answer says nothing of it.
    pub(crate) fn log(&self, provider: &str) {
        let cause: &(dyn std::error::Error + 'static) = self;
        match self {
            Self::ProviderFailed(_) => tracing::warn!(provider, cause, "a provider failed"),
            Self::NotProven(_) => tracing::info!(provider, cause, "an identity was not accepted"),
            Self::UnknownProvider
            | Self::RedirectRefused
            | Self::UnknownFlow
            | Self::Denied
            | Self::NoEmail
            | Self::EmailTaken
            | Self::AccountTaken
            | Self::NotLinked
            | Self::LastWayIn
            | Self::Secret(_)
            | Self::Account(_)
            | Self::Session(_)
            | Self::Database(_) => {}
        }
    }
}

impl From<MailError> for OAuthError {
    fn from(error: MailError) -> Self {
        AccountError::Mail(error).into()
    }
}

impl Problem for OAuthError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::UnknownProvider => &UNKNOWN_PROVIDER,
            Self::RedirectRefused => &REDIRECT_REFUSED,
            Self::UnknownFlow => &UNKNOWN_FLOW,
            Self::Denied => &DENIED,
            Self::ProviderFailed(_) => &PROVIDER_FAILED,
            Self::NotProven(_) => &NOT_PROVEN,
            Self::NoEmail => &NO_EMAIL,
            Self::EmailTaken => &EMAIL_TAKEN_BY_OTHER,
            Self::AccountTaken => &ACCOUNT_TAKEN,
            Self::NotLinked => &NOT_LINKED,
            Self::LastWayIn => &LAST_WAY_IN,
            Self::Secret(_) => &mana_platform::http::codes::INTERNAL,
            Self::Account(error) => error.code(),
            Self::Session(error) => error.code(),
            Self::Database(error) => error.code(),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Account(error) => error.detail(),
            Self::Session(error) => error.detail(),
            Self::UnknownProvider
            | Self::RedirectRefused
            | Self::UnknownFlow
            | Self::Denied
            | Self::ProviderFailed(_)
            | Self::NotProven(_)
            | Self::NoEmail
            | Self::EmailTaken
            | Self::AccountTaken
            | Self::NotLinked
            | Self::LastWayIn
            | Self::Secret(_)
            | Self::Database(_) => None,
        }
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::ProviderFailed(_) => Some(RETRY_AFTER_SECONDS),
            Self::Session(error) => error.retry_after_seconds(),
            Self::UnknownProvider
            | Self::RedirectRefused
            | Self::UnknownFlow
            | Self::Denied
            | Self::NotProven(_)
            | Self::NoEmail
            | Self::EmailTaken
            | Self::AccountTaken
            | Self::NotLinked
            | Self::LastWayIn
            | Self::Secret(_)
            | Self::Account(_)
            | Self::Database(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_joined_only_where_both_ends_are_sure() {
        use EmailStanding::{Authoritative, Unverified, Verified};
        for (told, local, expected) in [
            (Authoritative, Some(true), Arrival::Link),
            (Authoritative, Some(false), Arrival::Refuse),
            (Verified, Some(true), Arrival::Refuse),
            (Verified, Some(false), Arrival::Refuse),
            (Unverified, Some(true), Arrival::Refuse),
            (Unverified, Some(false), Arrival::Refuse),
            (Authoritative, None, Arrival::Register { is_verified: true }),
            (Verified, None, Arrival::Register { is_verified: true }),
            (Unverified, None, Arrival::Register { is_verified: false }),
        ] {
            assert_eq!(arrival(told, local), expected, "{told:?} {local:?}");
        }
    }
}
