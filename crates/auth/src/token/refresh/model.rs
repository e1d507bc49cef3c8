//! The refresh protocol as rules without I/O.
//!
//! A chain stores a seed and a counter, the **generation** of its newest token. A token of generation `n` is
//! `mrt_<chain>.<n>.<mac>` with `mac = HMAC-SHA256(key, chain . n . seed)` under a key that is not in the database, so
//! the server can say any token of the chain again and a leaked row can say none.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use mana_kernel::{ErrorCode, Kind, Problem, RefreshChainId};
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChainState {
    /// Generation of the newest token.
    pub(crate) generation: i64,
    /// When it became the newest.
    pub(crate) rotated_at: OffsetDateTime,
    /// When the newest token was first seen to have arrived at its client.
    pub(crate) confirmed_at: Option<OffsetDateTime>,
    /// When the chain ends unless it is refreshed.
    pub(crate) expires_at: OffsetDateTime,
    /// Whether its session was ended.
    pub(crate) is_revoked: bool,
}

/// What a presented token of a chain leads to. Every case has exactly one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The newest token: a new one takes its place.
    Rotate,
    /// The one before: tabs that race or an answer that was lost. The same successor again.
    Repeat,
    /// An older one: somebody else has used this chain. The session ends.
    Replayed,
    /// Nobody used it for too long.
    Expired,
    /// The session was ended.
    Revoked,
}

/// Decides on an authentic token of generation `presented`.
pub(crate) fn decide(chain: &ChainState, presented: i64, now: OffsetDateTime, grace: Duration) -> Verdict {
    if chain.is_revoked {
        return Verdict::Revoked;
    }
    if chain.expires_at <= now {
        return Verdict::Expired;
    }
    let is_in_grace = now < chain.rotated_at.saturating_add(grace);
    match chain.generation.saturating_sub(presented) {
        // A newer one than we know can only mean that the database was restored from an older copy: its owner holds the
        // newest token there is.
        ..=0 => Verdict::Rotate,
        1 if is_in_grace || chain.confirmed_at.is_none() => Verdict::Repeat,
        1.. => Verdict::Replayed,
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
    /// The tokens could not be made.
    #[error(transparent)]
    Token(#[from] crate::token::access::TokenError),
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
            Self::Token(error) => error.code(),
            Self::Database(error) => error.code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const ROTATED: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
    const GRACE: Duration = Duration::seconds(10);

    fn chain() -> ChainState {
        ChainState {
            generation: 5,
            rotated_at: ROTATED,
            confirmed_at: Some(ROTATED),
            expires_at: ROTATED.saturating_add(Duration::days(7)),
            is_revoked: false,
        }
    }

    #[test]
    fn the_newest_rotates_the_one_before_repeats_in_grace_and_older_ones_are_theft() {
        let at =
            |presented, seconds| decide(&chain(), presented, ROTATED + Duration::seconds(seconds), GRACE);
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
        assert_eq!(decide(&lost, 4, ROTATED + Duration::days(1), GRACE), Verdict::Repeat);
        assert_eq!(decide(&lost, 3, ROTATED, GRACE), Verdict::Replayed);
    }

    #[test]
    fn an_ended_or_expired_chain_answers_nothing_else() {
        for presented in 1..=6 {
            let revoked = ChainState { is_revoked: true, ..chain() };
            assert_eq!(decide(&revoked, presented, ROTATED, GRACE), Verdict::Revoked);
            assert_eq!(decide(&chain(), presented, ROTATED + Duration::days(7), GRACE), Verdict::Expired);
        }
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
}
