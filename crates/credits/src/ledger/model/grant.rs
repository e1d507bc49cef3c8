//! Mana given: what it cost, from when and until when it can be spent, and what is left of it.

use mana_kernel::Mana;
use mana_kernel::timestamp::to_microseconds;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A grant as its wallet keeps it while anything of it is left or set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub struct Grant {
    /// Sequence of the transaction that first gave it; names the grant within its wallet.
    pub sequence: i64,
    /// What it is.
    pub terms: Terms,
    /// Still there, without what holds have set aside.
    pub remaining: Mana,
}

/// What a grant is, for ever. Two grants of the same terms are one that is topped up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Where it came from.
    pub source: GrantSource,
    /// Lower is spent first.
    pub priority: i16,
    /// What one mana cost, in millionths of a EUR cent; 0 if nobody paid.
    pub cost_micros: i64,
    /// From when on it can be spent; at once if absent.
    pub effective_from: Option<OffsetDateTime>,
    /// From when on it can't be spent any more.
    pub expires_at: Option<OffsetDateTime>,
}

/// A grant as its wallet's row has it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    sequence: i64,
    source: GrantSource,
    remaining: Mana,
    priority: i16,
    cost_micros: i64,
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    effective_from: Option<OffsetDateTime>,
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    expires_at: Option<OffsetDateTime>,
}

// Times were once kept as an app had named them, finer than the grant's own row has them: read, they are what the row says.
impl From<Kept> for Grant {
    fn from(kept: Kept) -> Self {
        let Kept { sequence, source, remaining, priority, cost_micros, effective_from, expires_at } = kept;
        let [effective_from, expires_at] = [effective_from, expires_at].map(|time| time.map(to_microseconds));
        Self {
            sequence,
            terms: Terms { source, priority, cost_micros, effective_from, expires_at },
            remaining,
        }
    }
}

impl From<Grant> for Kept {
    fn from(grant: Grant) -> Self {
        let Grant { sequence, terms, remaining } = grant;
        let Terms { source, priority, cost_micros, effective_from, expires_at } = terms;
        Self { sequence, source, remaining, priority, cost_micros, effective_from, expires_at }
    }
}

/// Where mana came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GrantSource {
    /// Sign-up bonus and daily credits.
    Allowance,
    /// Given away by an app.
    Promotion,
    /// Put right by hand.
    Adjustment,
    /// Bought.
    Purchase,
}

impl GrantSource {
    /// As in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowance => "allowance",
            Self::Promotion => "promotion",
            Self::Adjustment => "adjustment",
            Self::Purchase => "purchase",
        }
    }

    /// From the database; none for a word that this version does not know.
    pub fn from_database(text: &str) -> Option<Self> {
        [Self::Allowance, Self::Promotion, Self::Adjustment, Self::Purchase]
            .into_iter()
            .find(|source| source.as_str() == text)
    }

    /// The priority of a grant that is given none: free goes before paid.
    pub fn priority(self) -> i16 {
        match self {
            Self::Allowance | Self::Promotion | Self::Adjustment => 10,
            Self::Purchase => 20,
        }
    }

    /// Whether somebody paid for it.
    pub fn is_paid(self) -> bool {
        match self {
            Self::Allowance | Self::Promotion | Self::Adjustment => false,
            Self::Purchase => true,
        }
    }

    /// Whether a wallet's owner counts as having earned it: bought or given, but no bonus.
    pub fn is_earned(self) -> bool {
        match self {
            Self::Allowance => false,
            Self::Promotion | Self::Adjustment | Self::Purchase => true,
        }
    }
}

impl Terms {
    /// Free mana that never expires: what sign-up and each new day give.
    pub const ALLOWANCE: Self = Self {
        source: GrantSource::Allowance,
        priority: 10,
        cost_micros: 0,
        effective_from: None,
        expires_at: None,
    };

    /// Whether it never ends: such a grant is kept when it is used up, and topped up by the next of its terms.
    pub fn is_standing(&self) -> bool {
        self.expires_at.is_none() && self.effective_from.is_none()
    }

    /// Whether nothing of it can be spent any more.
    pub fn has_expired(&self, now: OffsetDateTime) -> bool {
        self.expires_at.is_some_and(|expiry| expiry <= now)
    }

    /// Whether it can be spent now.
    pub fn is_live(&self, now: OffsetDateTime) -> bool {
        !self.has_expired(now) && self.effective_from.is_none_or(|start| start <= now)
    }
}

impl Grant {
    /// Burn-down: by priority, then what expires soonest, then what cost least, then the oldest.
    pub(in crate::ledger) fn burn_down_rank(&self) -> (i16, bool, Option<OffsetDateTime>, i64, i64) {
        let terms = &self.terms;
        (terms.priority, terms.expires_at.is_none(), terms.expires_at, terms.cost_micros, self.sequence)
    }
}
