//! What passkeys are for here, who the relying party is, and what may go wrong.

use super::ceremony::Refusal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mana_kernel::secret::sha256;
use mana_kernel::{ErrorCode, Kind, Problem, Rng};
use mana_platform::http::host::is_within;
use mana_platform::{DbError, Settings};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use url::{Host, Url};
use utoipa::ToSchema;
use uuid::Uuid;

/// Passkeys of one account at most: nobody has more devices, and lists stay short.
pub(super) const PASSKEYS: i64 = 25;

/// How long an authenticator is waited for.
pub(super) const CHALLENGE_TTL: Duration = Duration::minutes(5);

/// The same, as browsers are told.
pub(super) const TIMEOUT_MILLIS: u32 = 300_000;

/// Whom passkeys are for: they work on pages of one domain only, and on those of others that it names.
#[derive(Debug, Clone, Default)]
pub struct RelyingParty {
    /// The domain. A passkey is bound to it for ever.
    pub id: String,
    /// What people read beside it.
    pub name: String,
    /// Pages and apps that a passkey may be used on, as browsers and phones write them.
    pub origins: Vec<String>,
    /// Those among them that are not of the domain, and which it has to name.
    pub related_origins: Vec<String>,
}

/// The setting is no domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("PASSKEY_RP_ID must be a domain in lower case, as example.com, without scheme, port or path")]
pub struct InvalidRelyingParty;

impl RelyingParty {
    /// As the settings say.
    ///
    /// # Errors
    /// When `PASSKEY_RP_ID` is no domain.
    pub fn new(settings: &Settings) -> Result<Self, InvalidRelyingParty> {
        let own = Url::parse(&settings.public_url()).ok();
        let own_host = own.as_ref().and_then(Url::host_str).unwrap_or_default();
        let id = match (&settings.passkey_rp_id, &settings.cookie_domain) {
            (Some(id), _) => {
                let is_domain = matches!(Host::parse(id), Ok(Host::Domain(domain)) if domain == *id);
                is_domain.then(|| id.clone()).ok_or(InvalidRelyingParty)?
            }
            (None, Some(domain)) => domain.as_str().to_owned(),
            (None, None) => own_host.to_owned(),
        };
        let apps = settings.cors_origins.iter().filter_map(|origin| Url::parse(origin.as_str()).ok());
        let mut origins: Vec<_> = own
            .into_iter()
            .chain(apps)
            .filter(|url| is_page_of(url, &id))
            .map(|url| url.origin().ascii_serialization())
            .collect();
        origins.extend(settings.passkey_origins.iter().map(|origin| origin.as_str().to_owned()));
        let is_related = |origin: &&String| {
            Url::parse(origin).is_ok_and(|url| !is_page_of(&url, &id) && url.scheme() == "https")
        };
        let related_origins = origins.iter().filter(is_related).cloned().collect();
        Ok(Self { id, name: settings.name_in_authenticators().to_owned(), origins, related_origins })
    }
}

/// Whether a browser lets the page use passkeys of the domain: it is of it, and nobody on the way can have changed it.
fn is_page_of(url: &Url, id: &str) -> bool {
    let host = url.host_str().unwrap_or_default();
    let is_local = is_within(host, "localhost");
    is_within(host, id) && (url.scheme() == "https" || is_local)
}

/// Random bytes for an authenticator to sign: what it signed once is of no use for anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Challenge([u8; 32]);

/// What is stored of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChallengeHash([u8; 32]);

impl Challenge {
    /// A new one.
    pub(super) fn generate(rng: &dyn Rng) -> Self {
        let mut bytes = [0; 32];
        rng.fill(&mut bytes);
        Self(bytes)
    }

    /// As browsers repeat it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// As browsers take it.
    pub(super) fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// What may be stored.
    pub(super) fn hash(self) -> ChallengeHash {
        ChallengeHash(sha256(&self.0))
    }
}

impl ChallengeHash {
    /// For the database.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a challenge is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A new passkey.
    Registration,
    /// A sign-in, by whoever that will turn out to be.
    SignIn,
    /// The second factor of a sign-in.
    SecondFactor,
    /// A proof within a session.
    Reauthentication,
}

impl Purpose {
    /// As in the database.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::SignIn => "sign_in",
            Self::SecondFactor => "second_factor",
            Self::Reauthentication => "reauthentication",
        }
    }
}

/// A way to an authenticator, which browsers use to show the right hint.
pub(super) const TRANSPORTS: [&str; 7] = ["ble", "cable", "hybrid", "internal", "nfc", "smart-card", "usb"];

/// A passkey as its owner sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Passkey {
    pub(super) id: Uuid,
    /// What its owner calls it.
    #[schema(max_length = 64)]
    pub(super) name: String,
    /// Whether it was copied to other devices, as password managers do.
    pub(super) backed_up: bool,
    /// Ways to the authenticator.
    #[schema(value_type = Vec<mana_kernel::Line<1, 32>>, max_items = 7)]
    pub(super) transports: Vec<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created_at: OffsetDateTime,
    /// When it last signed somebody in; null if it never has.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(super) last_used_at: Option<OffsetDateTime>,
}

/// The only kind of credential there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) enum CredentialType {
    /// A key pair.
    #[serde(rename = "public-key")]
    PublicKey,
}

/// What may go wrong with passkeys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasskeyError {
    /// The challenge was never given out, not for this, took too long, or was answered already.
    #[error("the challenge is not one that waits for this")]
    DeadChallenge,
    /// What the authenticator gave at registration is not taken.
    #[error("the new passkey is not taken: {0}")]
    NotAccepted(Refusal),
    /// What the authenticator signed proves nothing. Never says more to a client.
    #[error("the passkey is refused")]
    Refused,
    /// The page or app is none that passkeys may be used on.
    #[error("the origin is not allowed")]
    ForeignOrigin,
    /// The credential is registered, by this account or another.
    #[error("the credential is registered")]
    Exists,
    /// There are as many as there may be.
    #[error("the account has {PASSKEYS} passkeys")]
    TooMany,
    /// No passkey of the caller's has the id.
    #[error("no passkey of the caller's has this id")]
    NotFound,
    /// Without it nobody could sign in to the account.
    #[error("it is the last way in")]
    LastWayIn,
    /// The account is shut or gone.
    #[error("the account is disabled")]
    AccountDisabled,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// A dead challenge.
pub(super) static DEAD_PASSKEY_CHALLENGE: ErrorCode = ErrorCode {
    code: "auth.dead_passkey_challenge",
    kind: Kind::Invalid,
    title: "This took too long, or was sent already",
    word: None,
    way_out: "Options are good for five minutes, for one answer, for what they were asked for and in the session that asked. Ask for new ones and call navigator.credentials again.",
};
/// Not a passkey as it should be.
pub(super) static PASSKEY_NOT_ACCEPTED: ErrorCode = ErrorCode {
    code: "auth.passkey_not_accepted",
    kind: Kind::Invalid,
    title: "This passkey can't be added",
    word: None,
    way_out: "The message says which check failed. Pass the options on to navigator.credentials.create as they are, and send what its toJSON() gives.",
};
/// Proves nothing.
pub(super) static PASSKEY_REFUSED: ErrorCode = ErrorCode {
    code: "auth.passkey_refused",
    kind: Kind::Unauthenticated,
    title: "This passkey does not sign in here",
    word: Some("INVALID_CREDENTIALS"),
    way_out: "It may have been removed from the account: let the person sign in another way and add it anew. Why exactly is not told; the log says it at level debug.",
};
/// Foreign page.
pub(super) static PASSKEY_ORIGIN: ErrorCode = ErrorCode {
    code: "auth.passkey_origin_refused",
    kind: Kind::Invalid,
    title: "Passkeys can't be used on this page",
    word: None,
    way_out: "The page's origin must be BASE_URL's, one of CORS_ORIGINS below PASSKEY_RP_ID, or one of PASSKEY_ORIGINS, and not in a frame of another site. Apps on Android are named in PASSKEY_ORIGINS.",
};
/// Registered before.
pub(super) static PASSKEY_EXISTS: ErrorCode = ErrorCode {
    code: "auth.passkey_exists",
    kind: Kind::Conflict,
    title: "This passkey is registered already",
    word: None,
    way_out: "Nothing to do if it is in the list. Pass excludeCredentials of the options on, and the browser says so before.",
};
/// Enough of them.
pub(super) static TOO_MANY_PASSKEYS: ErrorCode = ErrorCode {
    code: "auth.too_many_passkeys",
    kind: Kind::Conflict,
    title: "This account has as many passkeys as it may have",
    word: None,
    way_out: "Let the person remove one that is not in use. An account has 25 at most.",
};
/// No such passkey of the caller's.
pub(super) static PASSKEY_NOT_FOUND: ErrorCode = ErrorCode {
    code: "auth.passkey_not_found",
    kind: Kind::NotFound,
    title: "There is no such passkey",
    word: None,
    way_out: "It is removed already, or was never this user's. Read the list again.",
};
/// Nobody locks themselves out.
pub(super) static LAST_PASSKEY: ErrorCode = ErrorCode {
    code: "auth.last_passkey",
    kind: Kind::Conflict,
    title: "This passkey is the last way to sign in to the account",
    word: None,
    way_out: "Let the person set a password (as if it was forgotten), link another service or add another passkey first.",
};

/// The catalogue of this feature.
pub(crate) static CODES: &[&ErrorCode] = &[
    &DEAD_PASSKEY_CHALLENGE,
    &PASSKEY_NOT_ACCEPTED,
    &PASSKEY_REFUSED,
    &PASSKEY_ORIGIN,
    &PASSKEY_EXISTS,
    &TOO_MANY_PASSKEYS,
    &PASSKEY_NOT_FOUND,
    &LAST_PASSKEY,
];

impl Problem for PasskeyError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::DeadChallenge => &DEAD_PASSKEY_CHALLENGE,
            Self::NotAccepted(_) => &PASSKEY_NOT_ACCEPTED,
            Self::Refused => &PASSKEY_REFUSED,
            Self::ForeignOrigin => &PASSKEY_ORIGIN,
            Self::Exists => &PASSKEY_EXISTS,
            Self::TooMany => &TOO_MANY_PASSKEYS,
            Self::NotFound => &PASSKEY_NOT_FOUND,
            Self::LastWayIn => &LAST_PASSKEY,
            Self::AccountDisabled => &crate::session::model::ACCOUNT_DISABLED,
            Self::Database(error) => error.code(),
        }
    }

    fn detail(&self) -> Option<String> {
        if let Self::NotAccepted(refusal) = self {
            Some(format!("This passkey can't be added: {refusal}"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(base_url: &str) -> Settings {
        let mut settings = Settings::defaults().unwrap();
        settings.base_url = Some(base_url.parse().unwrap());
        settings.cors_origins = [
            "https://app.example.com",
            "https://example.com:8443",
            "http://plain.example.com",
            "https://evilexample.com",
            "https://example.com.evil.test",
            "http://localhost:3000",
        ]
        .map(|origin| origin.parse().unwrap())
        .to_vec();
        settings
    }

    #[test]
    fn a_passkey_is_of_the_domain_that_the_apps_share() {
        let mut settings = settings("https://auth.example.com/base/");
        assert_eq!(RelyingParty::new(&settings).unwrap().id, "auth.example.com");
        settings.cookie_domain = Some(".Example.com".parse().unwrap());
        let party = RelyingParty::new(&settings).unwrap();
        assert_eq!(party.id, "example.com");
        let expected = ["https://auth.example.com", "https://app.example.com", "https://example.com:8443"];
        assert_eq!(party.origins, expected);
        assert_eq!(party.related_origins, Vec::<String>::new());

        settings.passkey_origins = [
            "https://example.org",
            "https://login.example.com",
            "android:apk-key-hash:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ]
        .map(|origin| origin.parse().unwrap())
        .to_vec();
        let party = RelyingParty::new(&settings).unwrap();
        assert_eq!(party.origins.len(), 6);
        assert_eq!(party.related_origins, ["https://example.org"], "neither what is of the domain nor apps");

        settings.passkey_rp_id = Some("auth.example.com".to_owned());
        assert_eq!(RelyingParty::new(&settings).unwrap().id, "auth.example.com");
        for bad in ["", "https://example.com", "example.com:443", "Example.com", "127.0.0.1", "example.com/"]
        {
            settings.passkey_rp_id = Some(bad.to_owned());
            assert_eq!(RelyingParty::new(&settings).unwrap_err(), InvalidRelyingParty, "{bad}");
        }
    }

    #[test]
    fn in_development_it_is_localhost_in_clear() {
        let party = RelyingParty::new(&Settings::defaults().unwrap()).unwrap();
        assert_eq!(party.id, "localhost");
        assert_eq!(
            party.origins,
            ["http://localhost:3001", "http://localhost:3000", "http://localhost:8081"]
        );
    }
}
