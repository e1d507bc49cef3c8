//! How signing keys follow each other, without I/O.
//!
//! A key is **next** (published, so that whoever verifies can learn it), then **current** (signs), then **previous**
//! (verifies what it signed), then gone. There is one current key and one next key at any time.

use super::pair::KeyKind;
use crate::token::root_secret::RootSecretError;
use mana_platform::DbError;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How long a key is published before it signs: twice what a copy of the key set may be kept (max-age of the JWKS).
pub(super) const PROPAGATION: Duration = Duration::from_mins(10);

/// How much longer than its last token a previous key is served: for servers that have not heard of the rotation yet.
const OVERLAP: Duration = Duration::from_mins(5);

/// What an operator wants of the keys.
#[derive(Debug, Clone, Copy)]
pub struct KeyPolicy {
    /// What a new key is.
    pub kind: KeyKind,
    /// How long a key signs; without end when absent.
    pub rotation: Option<Duration>,
    /// Life of a token that a key signs.
    pub token_life: Duration,
}

/// Where a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Published, signs nothing yet.
    Next,
    /// Signs.
    Current,
    /// Verifies what it signed.
    Previous,
    /// All that it signed has expired.
    Gone,
}

impl KeyState {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Gone => "gone",
        }
    }
}

/// The half that signs, as this process finds it in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PrivateHalf {
    /// Sealed, and a given root secret opens it.
    Opens,
    /// Sealed, and no given root secret opens it. Never thrown away unasked: the right secret may come back.
    Closed,
    /// Not there: a previous key's is erased, that of a key from the environment was never there.
    Absent,
}

/// A key as far as the rules care.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) kid: String,
    pub(super) kind: KeyKind,
    pub(super) private: PrivateHalf,
    pub(super) life: Life,
}

/// What a key's timestamps say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    pub(super) created_at: OffsetDateTime,
    pub(super) activated_at: Option<OffsetDateTime>,
    pub(super) served_until: Option<OffsetDateTime>,
}

impl Life {
    /// Where the key stands at an instant.
    pub(super) fn state(self, now: OffsetDateTime) -> KeyState {
        match (self.activated_at, self.served_until) {
            (None, _) => KeyState::Next,
            (Some(_), None) => KeyState::Current,
            (Some(_), Some(end)) if now < end => KeyState::Previous,
            (Some(_), Some(_)) => KeyState::Gone,
        }
    }
}

/// On what occasion the keys are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// A server starts: a next key that is not what the settings want is replaced.
    Start,
    /// A server runs. Leaves a next key alone, so that two servers with different settings don't replace each other's
    /// for as long as both run.
    Pass,
    /// An operator wants a new key, if need be before everybody knows it and at the price of keys that can't be opened.
    Command { force: bool },
}

/// Which key becomes the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Activation {
    /// The next one.
    Next(String),
    /// One that nobody has seen yet.
    New,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Keys to delete, first of all.
    pub(super) delete: Vec<String>,
    /// Ends the current key's time.
    pub(super) activate: Option<Activation>,
    /// Whether there is no next key, afterwards.
    pub(super) make_next: bool,
    /// A next key that can't be opened, and so can't follow.
    pub(super) closed_next: Option<String>,
}

impl Plan {
    /// Whether anything is to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.delete.is_empty() && self.activate.is_none() && !self.make_next
    }
}

/// Why nothing may be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The current or the next key can't be opened; which, only an operator can know.
    Closed(String),
    /// The next key is not known everywhere before this instant.
    TooSoon(OffsetDateTime),
    /// The current key is the environment's.
    Environment,
}

/// Why there is no key to sign with, or none that follows it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// `JWT_PRIVATE_KEY` is no key that signs.
    #[error(
        "JWT_PRIVATE_KEY is no private key in PEM that is RSA of at least 2048 bits, EC on P-256 or Ed25519. \
         `mana-core-auth keys generate` makes one"
    )]
    Pem,
    /// `JWT_PUBLIC_KEY` belongs to another key.
    #[error(
        "JWT_PUBLIC_KEY is not the public half of JWT_PRIVATE_KEY: give both from one pair, or leave the public one out"
    )]
    Mismatch,
    /// The key does not do its work.
    #[error("the signing key {0} does not sign what its public half verifies")]
    Useless(String),
    /// A key could not be made.
    #[error("a signing key could not be made")]
    Generate,
    /// A stored key can't be opened.
    #[error(
        "the signing key {kid} can't be opened: {cause}. If that secret is lost, `mana-core-auth keys rotate --force` \
         makes a new key; tokens that the old one signed stay good until they expire"
    )]
    Sealed {
        /// Its id.
        kid: String,
        /// What is wrong with the root secret.
        cause: RootSecretError,
    },
    /// A stored key is not one.
    #[error("the signing key {0} in auth.jwks is damaged: its row is not what this program writes")]
    Damaged(String),
    /// The next key is not known everywhere.
    #[error(
        "the next key is not known to everybody who verifies before {}, because they may keep the key set they have. \
         Rotate after that, or at once with --force: backends then refuse new tokens until they fetch the key set again",
        .0.format(&Rfc3339).unwrap_or_default()
    )]
    TooSoon(OffsetDateTime),
    /// The current key is not the database's.
    #[error(
        "the current key comes from JWT_PRIVATE_KEY and is replaced there: give the servers another one (`mana-core-auth keys \
         generate` makes it), or none to use keys of the database, and restart them. The old key's tokens stay good until they \
         expire"
    )]
    Environment,
    /// There is no key that this server can sign with.
    #[error("this server has no signing key that it can open")]
    NoKey,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// Decides what is to be done with the keys.
pub(super) fn plan(
    keys: &[Key],
    policy: &KeyPolicy,
    occasion: Occasion,
    now: OffsetDateTime,
) -> Result<Plan, Refusal> {
    let in_state = |state| keys.iter().find(move |key| key.life.state(now) == state);
    let mut plan = Plan { delete: gone(keys, now), ..Plan::default() };
    let forced = occasion == Occasion::Command { force: true };
    let next = in_state(KeyState::Next).filter(|next| {
        let is_replaced = match next.private {
            PrivateHalf::Closed => forced,
            PrivateHalf::Opens | PrivateHalf::Absent => {
                occasion == Occasion::Start && next.kind != policy.kind
            }
        };
        if is_replaced {
            plan.delete.push(next.kid.clone());
        }
        !is_replaced
    });
    let follows = next.filter(|next| next.private == PrivateHalf::Opens);
    let at_once = || follows.map_or(Activation::New, |next| Activation::Next(next.kid.clone()));

    plan.activate = match (in_state(KeyState::Current), occasion) {
        (None, _) => Some(at_once()),
        (Some(current), Occasion::Command { force }) => {
            if current.private == PrivateHalf::Absent {
                return Err(Refusal::Environment);
            }
            if current.private == PrivateHalf::Closed && !force {
                return Err(Refusal::Closed(current.kid.clone()));
            }
            match next {
                // The next one is made, and that is all for now.
                None if !force => None,
                Some(next) if !force && next.private != PrivateHalf::Opens => {
                    return Err(Refusal::Closed(next.kid.clone()));
                }
                Some(next) if !force && now < known_from(next.life.created_at) => {
                    return Err(Refusal::TooSoon(known_from(next.life.created_at)));
                }
                None | Some(_) => Some(at_once()),
            }
        }
        (Some(current), Occasion::Start | Occasion::Pass) => match current.private {
            // The environment's until now: nobody can sign with it any more.
            PrivateHalf::Absent => Some(at_once()),
            PrivateHalf::Closed => return Err(Refusal::Closed(current.kid.clone())),
            PrivateHalf::Opens => follows
                .filter(|next| is_due(current, next, policy, now))
                .map(|next| Activation::Next(next.kid.clone())),
        },
    };
    plan.make_next = next.is_none() || matches!(plan.activate, Some(Activation::Next(_)));
    plan.closed_next = next.filter(|next| next.private == PrivateHalf::Closed).map(|next| next.kid.clone());
    Ok(plan)
}

/// Keys that have nothing left to verify.
pub(super) fn gone(keys: &[Key], now: OffsetDateTime) -> Vec<String> {
    keys.iter().filter(|key| key.life.state(now) == KeyState::Gone).map(|key| key.kid.clone()).collect()
}

/// From when on everybody who verifies can know a key that was made then.
pub(super) fn known_from(created_at: OffsetDateTime) -> OffsetDateTime {
    after(created_at, PROPAGATION)
}

/// Until when a key is served that has just signed a token of this life for the last time.
pub(super) fn served_until(now: OffsetDateTime, longest_token: Duration) -> OffsetDateTime {
    after(now, longest_token.saturating_add(OVERLAP))
}

fn is_due(current: &Key, next: &Key, policy: &KeyPolicy, now: OffsetDateTime) -> bool {
    let is_old = policy.rotation.is_some_and(|rotation| {
        current.life.activated_at.is_some_and(|activated| after(activated, rotation) <= now)
    });
    let is_of_another_kind = current.kind != policy.kind && next.kind == policy.kind;
    (is_old || is_of_another_kind) && known_from(next.life.created_at) <= now
}

fn after(instant: OffsetDateTime, duration: Duration) -> OffsetDateTime {
    instant.saturating_add(duration.try_into().unwrap_or(time::Duration::MAX))
}

#[cfg(test)]
mod tests;
