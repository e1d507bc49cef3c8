//! Mana that is set aside until its holder knows what a piece of work costs.

use mana_kernel::{HoldId, Mana};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// An open hold as its wallet keeps it. One that is past its time counts as released from that instant on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Its id.
    pub id: HoldId,
    /// The app that may capture it.
    pub app_id: String,
    /// What was taken from which grant, in burn-down order.
    pub slices: Vec<Slice>,
    /// From when on it is released.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// A part of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The grant's sequence.
    pub grant: i64,
    /// How much of it.
    pub amount: Mana,
}

/// What becomes of a hold, to be written as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldChange {
    /// Set aside.
    Opened {
        /// The hold.
        hold: Hold,
        /// For the owner to read.
        description: String,
        /// JSON text, kept as given.
        metadata: Option<String>,
        /// The service key that asked, if it was not the owner's own session.
        service_key_id: Option<String>,
        /// When.
        at: OffsetDateTime,
    },
    /// Its time was changed.
    Extended {
        /// Which.
        id: HoldId,
        /// From when on it is released now.
        expires_at: OffsetDateTime,
    },
    /// It is over.
    Ended {
        /// Which.
        id: HoldId,
        /// How.
        end: HoldEnd,
        /// When.
        at: OffsetDateTime,
    },
}

/// How a hold ends. Each ends once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldEnd {
    /// Some of it or all was charged.
    Captured {
        /// How much.
        amount: Mana,
        /// The transaction that charged it.
        sequence: i64,
    },
    /// Given back whole.
    Released,
    /// Given back whole because its time was over.
    Expired,
}

impl HoldEnd {
    /// As in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Captured { .. } => "captured",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }
}
