//! The refresh protocol as rules without I/O.
//!
//! A chain stores a seed and a counter, the **generation** of its newest token. A token of generation `n` is
//! `mrt_<chain>.<n>.<mac>` with `mac = HMAC-SHA256(key, chain . n . seed)` under a key that is not in the database, so
//! the server can say any token of the chain again and a leaked row can say none.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use mana_kernel::{ErrorCode, Kind, Problem, RefreshChainId, Rng};
use mana_platform::DbError;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use time::{Duration, OffsetDateTime};

const PREFIX: &str = "mrt_";

/// A refresh token that this service made. Serialises into the answer that hands it out, and shows itself nowhere else.
#[derive(Serialize)]
#[serde(transparent)]
pub struct RefreshToken(String);

impl std::fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefreshToken([redacted])")
    }
}

/// What a client presented: read, not believed.
pub(crate) struct PresentedToken {
    pub(crate) chain: RefreshChainId,
    generation: i64,
    mac: [u8; 32],
}

impl PresentedToken {
    /// Reads a token in its one spelling: no leading zeros, no padding, nothing behind it.
    pub(crate) fn parse(text: &SecretString) -> Option<Self> {
        let mut parts = text.expose_secret().strip_prefix(PREFIX)?.split('.');
        let (chain, generation, mac) = (parts.next()?, parts.next()?, parts.next()?);
        let number: i64 = generation.parse().ok()?;
        if parts.next().is_some() || number < 1 || number.to_string() != generation {
            return None;
        }
        Some(Self {
            chain: chain.parse().ok()?,
            generation: number,
            mac: BASE64.decode(mac).ok()?.try_into().ok()?,
        })
    }

    /// The generation that it claims.
    pub(crate) fn generation(&self) -> i64 {
        self.generation
    }

    /// The generation, if the token is of this chain and this service made it.
    pub(crate) fn verify(&self, chain: &ChainSecret<'_>) -> Option<i64> {
        let signed = chain.message(self.generation);
        hmac::verify(&chain.key(), &signed, &self.mac).ok().map(|()| self.generation)
    }
}

/// What the tokens of a chain are derived from.
pub(crate) struct ChainSecret<'a> {
    pub(crate) chain: &'a RefreshChainId,
    pub(crate) seed: &'a [u8],
    pub(crate) key: [u8; 32],
}

impl ChainSecret<'_> {
    /// The token of a generation.
    pub(crate) fn token(&self, generation: i64) -> RefreshToken {
        let mac = hmac::sign(&self.key(), &self.message(generation));
        RefreshToken(format!("{PREFIX}{}.{generation}.{}", self.chain, BASE64.encode(mac)))
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.key)
    }

    fn message(&self, generation: i64) -> Vec<u8> {
        // The chain's id has no dot, so no two triples read the same.
        [format!("{}.{generation}.", self.chain).as_bytes(), self.seed].concat()
    }
}

/// Where a chain stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ChainState {
    /// Generation of the newest token.
    pub(crate) generation: i64,
    /// When the newest generation was first seen in use: an access token that was handed out with it came back.
    pub(crate) confirmed_at: Option<OffsetDateTime>,
    /// When the chain ends unless it is refreshed.
    pub(crate) expires_at: OffsetDateTime,
    /// Whether its session was ended.
    pub(crate) is_revoked: bool,
}

/// What a presented token of a chain leads to. Every case has exactly one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// The newest token: a new one takes its place.
    Rotate,
    /// The one before: tabs that race or an answer that was lost. The same successor again.
    Repeat,
    /// An older one, or the one before when its successor has been in use for longer than the grace window: somebody else has this chain's tokens. The
    /// session ends.
    Replayed,
    /// Nobody used it for too long.
    Expired,
    /// The session was ended.
    Revoked,
}

/// The protocol (docs/SECURITY.md). Explored exhaustively in `model/explored.rs`.
impl ChainState {
    /// Decides on an authentic token of generation `presented`.
    pub(crate) fn present(&self, presented: i64, now: OffsetDateTime, grace: Duration) -> Verdict {
        if self.is_revoked {
            return Verdict::Revoked;
        }
        if self.expires_at <= now {
            return Verdict::Expired;
        }
        // The window begins with the use, not with the rotation: when an answer was lost, tabs that wake up together race
        // much later, and the first of them to get on must not make thieves of the others.
        let is_tolerated = self.confirmed_at.is_none_or(|at| now < at.saturating_add(grace));
        match self.generation.saturating_sub(presented) {
            // A newer one than we know can only mean that the database was restored from an older copy: its owner holds
            // the newest token there is.
            ..=0 => Verdict::Rotate,
            1 if is_tolerated => Verdict::Repeat,
            1.. => Verdict::Replayed,
        }
    }

    /// The chain after [`Verdict::Rotate`] on `presented`.
    pub(crate) fn rotated(&self, presented: i64, expires_at: OffsetDateTime) -> Self {
        Self {
            generation: self.generation.max(presented).saturating_add(1),
            confirmed_at: None,
            expires_at,
            is_revoked: self.is_revoked,
        }
    }

    /// The chain after an access token that was handed out with `generation` was seen in use. Use of an older one says
    /// nothing of the newest.
    #[cfg(test)]
    pub(crate) fn confirmed(&self, generation: i64, now: OffsetDateTime) -> Self {
        let confirmed_at =
            if generation == self.generation { self.confirmed_at.or(Some(now)) } else { self.confirmed_at };
        Self { confirmed_at, ..self.clone() }
    }
}

/// A session keeps this many chains for one app: those refreshed last.
pub(super) const CHAINS_PER_APP: i64 = 64;
/// And this many in all: what an app calls itself is its own choice.
pub(crate) const CHAINS_PER_SESSION: u16 = 256;

/// Under which versions of the root secret a chain's tokens are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretVersions {
    /// Of the tokens from `since` on.
    pub(crate) version: String,
    /// The first generation under it.
    pub(crate) since: i64,
    /// Of the tokens before.
    pub(crate) older: Option<String>,
}

impl SecretVersions {
    /// The version of a generation's token.
    pub(crate) fn of(&self, generation: i64) -> &str {
        match &self.older {
            Some(older) if generation < self.since => older,
            _ => &self.version,
        }
    }

    /// The versions when tokens from `generation` on are made under `current`.
    pub(crate) fn moved_to(&self, current: &str, generation: i64) -> Self {
        if self.version == current {
            return self.clone();
        }
        Self { version: current.to_owned(), since: generation, older: Some(self.version.clone()) }
    }
}

/// Which answer of a chain an access token came with: the first two parts of its `jti`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issue {
    pub(crate) chain: RefreshChainId,
    pub(crate) generation: i64,
}

impl Issue {
    /// A `jti` that tells it, unlike any other.
    pub(crate) fn token_id(&self, rng: &dyn Rng) -> String {
        let mut unique = [0; 9];
        rng.fill(&mut unique);
        format!("{}.{}.{}", self.chain, self.generation, BASE64.encode(unique))
    }

    /// Chain and generation that a `jti` tells; nothing if the token came without a refresh token.
    pub(crate) fn parts_of(token_id: &str) -> Option<(&str, i64)> {
        let (chain, rest) = token_id.split_once('.')?;
        let (generation, _) = rest.split_once('.')?;
        Some((chain, generation.parse().ok()?))
    }
}

/// What may go wrong with a refresh.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// Not a token of a live chain; also a replayed one, whose presenter must not learn that it was noticed.
    #[error("not a token of a live chain")]
    Invalid,
    /// Unused for too long.
    #[error("the chain has expired")]
    Expired,
    /// The session ended while its chain was opened.
    #[error("the session has ended")]
    SessionEnded,
    /// Others rotated the chain again and again while this refresh looked at it.
    #[error("the chain moved at each of several looks")]
    Contended,
    /// The tokens could not be made.
    #[error(transparent)]
    Token(#[from] crate::token::access::TokenError),
    /// The root secret is not usable.
    #[error(transparent)]
    RootSecret(#[from] crate::token::root_secret::RootSecretError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// Not accepted.
pub static INVALID_REFRESH_TOKEN: ErrorCode = ErrorCode {
    code: "auth.invalid_refresh_token",
    kind: Kind::Unauthenticated,
    title: "Invalid refresh token",
    word: Some("INVALID_REFRESH_TOKEN"),
    way_out: "The session has ended: forget the tokens and let the person sign in again.",
};
/// Was accepted once.
pub static REFRESH_TOKEN_EXPIRED: ErrorCode = ErrorCode {
    code: "auth.refresh_token_expired",
    kind: Kind::Unauthenticated,
    title: "Refresh token expired",
    word: Some("REFRESH_TOKEN_EXPIRED"),
    way_out: "The session was not used for too long: forget the tokens and let the person sign in again.",
};

/// The catalogue of this feature.
pub static CODES: &[&ErrorCode] = &[&INVALID_REFRESH_TOKEN, &REFRESH_TOKEN_EXPIRED];

impl Problem for RefreshError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::Invalid => &INVALID_REFRESH_TOKEN,
            Self::Expired => &REFRESH_TOKEN_EXPIRED,
            Self::SessionEnded => &crate::session::model::DEAD_SESSION_COOKIE,
            // An operator left a version out, or others were faster: nobody may lose a session over it.
            Self::Contended | Self::RootSecret(_) => &mana_platform::http::codes::UNAVAILABLE,
            Self::Token(error) => error.code(),
            Self::Database(error) => error.code(),
        }
    }
}

#[cfg(test)]
mod explored;

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::SystemRng;
    use proptest::prelude::*;
    use time::macros::datetime;

    const USED: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
    const GRACE: Duration = Duration::seconds(10);

    fn chain() -> ChainState {
        ChainState {
            generation: 5,
            confirmed_at: Some(USED),
            expires_at: USED.saturating_add(Duration::days(7)),
            is_revoked: false,
        }
    }

    #[test]
    fn the_newest_rotates_the_one_before_repeats_in_grace_and_older_ones_are_theft() {
        let at = |presented, seconds| chain().present(presented, USED + Duration::seconds(seconds), GRACE);
        assert_eq!(at(5, 0), Verdict::Rotate);
        assert_eq!(at(5, 86_400), Verdict::Rotate);
        assert_eq!(at(4, 9), Verdict::Repeat);
        assert_eq!(at(4, 10), Verdict::Replayed);
        assert_eq!(at(3, 0), Verdict::Replayed);
        assert_eq!(at(6, 0), Verdict::Rotate);
    }

    #[test]
    fn a_lost_answer_is_repeated_until_its_token_was_seen() {
        let lost = ChainState { confirmed_at: None, ..chain() };
        assert_eq!(lost.present(4, USED + Duration::days(1), GRACE), Verdict::Repeat);
        assert_eq!(lost.present(3, USED, GRACE), Verdict::Replayed);
    }

    #[test]
    fn an_ended_or_expired_chain_answers_nothing_else() {
        for presented in 1..=6 {
            let revoked = ChainState { is_revoked: true, ..chain() };
            assert_eq!(revoked.present(presented, USED, GRACE), Verdict::Revoked);
            assert_eq!(chain().present(presented, USED + Duration::days(7), GRACE), Verdict::Expired);
        }
    }

    #[test]
    fn use_of_an_older_answer_confirms_nothing() {
        let fresh = ChainState { confirmed_at: None, ..chain() };
        assert_eq!(fresh.confirmed(4, USED).confirmed_at, None);
        assert_eq!(fresh.confirmed(5, USED).confirmed_at, Some(USED));
    }

    #[test]
    fn a_chain_moves_to_the_current_secret_and_its_older_tokens_stay_readable() {
        let first = SecretVersions { version: "one".into(), since: 1, older: None };
        assert_eq!(first.moved_to("one", 5), first);
        let moved = first.moved_to("two", 5);
        assert_eq!([4, 5, 6].map(|generation| moved.of(generation)), ["one", "two", "two"]);
        assert_eq!(first.of(4), "one");
    }

    #[test]
    fn an_access_token_tells_the_answer_it_came_with() {
        let issue = Issue { chain: "chain-1".parse().unwrap(), generation: 12 };
        let (one, two) = (issue.token_id(&SystemRng), issue.token_id(&SystemRng));
        assert_ne!(one, two, "each token has an id of its own");
        assert_eq!(Issue::parts_of(&one), Some(("chain-1", 12)));
        assert_eq!(Issue::parts_of("0198c9d2-7f6a-7c31-9d0e-3f6f0c2b8a11"), None);
    }

    #[test]
    fn a_token_has_one_spelling_and_one_chain() {
        let chain: RefreshChainId = "chain-1".parse().unwrap();
        let secret = ChainSecret { chain: &chain, seed: &[1; 32], key: [2; 32] };
        let RefreshToken(text) = secret.token(7);
        let read = |text: &str| {
            PresentedToken::parse(&SecretString::from(text)).and_then(|token| token.verify(&secret))
        };
        assert_eq!(read(&text), Some(7));
        let flipped = text.replace(".7.", ".8.");
        for bad in [
            format!("{text}A"),
            format!("{text}."),
            format!(" {text}"),
            text.replace(".7.", ".07."),
            flipped,
            text[4..].to_owned(),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
        let other_seed = ChainSecret { chain: &chain, seed: &[3; 32], key: [2; 32] };
        assert_eq!(
            PresentedToken::parse(&SecretString::from(text)).and_then(|token| token.verify(&other_seed)),
            None
        );
    }

    fn presented(text: &str) -> Option<PresentedToken> {
        PresentedToken::parse(&SecretString::from(text.to_owned()))
    }

    proptest! {
        #[test]
        fn a_token_reads_back_and_no_other_text_is_it(id in "[A-Za-z0-9_-]{1,64}", generation in 1_i64.., seed: [u8; 32], key: [u8; 32], at: proptest::sample::Index, letter in "[ -~]") {
            let chain: RefreshChainId = id.parse().unwrap();
            let secret = ChainSecret { chain: &chain, seed: &seed, key };
            let RefreshToken(text) = secret.token(generation);
            let read = presented(&text).unwrap();
            prop_assert_eq!((&read.chain, read.verify(&secret)), (&chain, Some(generation)));
            let mut other = text.clone();
            let at = at.index(text.len());
            other.replace_range(at..=at, &letter);
            let verified = presented(&other).filter(|other| other.chain == chain).and_then(|other| other.verify(&secret));
            prop_assert!(other == text || verified.is_none(), "{other}");
            for longer in [format!("{text}{letter}"), format!("{letter}{text}"), format!("{text}.{letter}")] {
                prop_assert!(presented(&longer).is_none(), "{longer}");
            }
        }

        #[test]
        fn what_is_read_is_spelled_as_it_would_be_printed(text in "mrt_[a-z0-9-]{1,8}\\.[+0-9]{1,20}\\.[A-Za-z0-9_-]{42,44}|mrt_\\PC{0,80}|\\PC{0,80}") {
            if let Some(token) = presented(&text) {
                prop_assert_eq!(format!("{PREFIX}{}.{}.{}", token.chain, token.generation, BASE64.encode(token.mac)), text);
            }
        }
    }
}
