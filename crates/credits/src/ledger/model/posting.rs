//! What a command changes, to be written as it is.

use super::command::Note;
use super::grant::Grant;
use super::hold::HoldChange;
use super::payment::Settled;
use mana_kernel::{HoldId, Mana, TransactionId};
use time::OffsetDateTime;

/// Everything that a command changes besides the wallet itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// Lines of the history, in order.
    pub transactions: Vec<Transaction>,
    /// Grants that were not there before.
    pub new_grants: Vec<Grant>,
    /// What became of holds, in order.
    pub holds: Vec<HoldChange>,
    /// What the books say of orders now. Written with the orders.
    pub settled: Vec<Settled>,
}

impl Effects {
    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty() && self.new_grants.is_empty() && self.holds.is_empty()
    }

    /// Both, one after the other.
    pub fn append(&mut self, mut later: Self) {
        self.transactions.append(&mut later.transactions);
        self.new_grants.append(&mut later.new_grants);
        self.holds.append(&mut later.holds);
        self.settled.append(&mut later.settled);
    }
}

/// A line of a wallet's history: a transfer between the wallet and one system account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its id.
    pub id: TransactionId,
    /// When it happened, to the microsecond that the database keeps.
    pub at: OffsetDateTime,
    /// Place in the wallet's history, from 1.
    pub sequence: i64,
    /// What sort.
    pub kind: TransactionKind,
    /// Change of the balance; spends are negative.
    pub amount: i64,
    /// Everything in the wallet afterwards, what is set aside included.
    pub balance_after: Mana,
    /// The other side. It gets what the wallet gives.
    pub counter: Counter,
    /// The wallet's side: which grant changes by how much. They sum to the amount.
    pub slices: Vec<Change>,
    /// Sequence of the spend that a refund gives back.
    pub reference: Option<i64>,
    /// The hold that was captured.
    pub hold_id: Option<HoldId>,
    /// What it says.
    pub note: Note,
    /// Links this line to all before it.
    pub hash: [u8; 32],
}

/// A change of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The grant's sequence.
    pub grant: i64,
    /// By how much; negative if it gives.
    pub amount: i64,
}

/// What sort of transaction. The words are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionKind {
    /// Mana that was bought.
    Purchase,
    /// A spend.
    Usage,
    /// A spend that is given back.
    Refund,
    /// Free mana.
    Bonus,
    /// Mana whose time was over.
    Expiry,
    /// Put right by hand.
    Adjustment,
}

impl TransactionKind {
    const ALL: [Self; 6] =
        [Self::Purchase, Self::Usage, Self::Refund, Self::Bonus, Self::Expiry, Self::Adjustment];

    /// As on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::Usage => "usage",
            Self::Refund => "refund",
            Self::Bonus => "bonus",
            Self::Expiry => "expiry",
            Self::Adjustment => "adjustment",
        }
    }

    /// From the database; none for a word that this version does not know.
    pub fn from_database(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A system account. It has no balance of its own kept anywhere: what it has is the sum of its transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Where free mana comes from.
    Bonus,
    /// What apps have earned.
    Revenue,
    /// What was paid for through the payment provider.
    Clearing,
    /// Where mana goes when its time is over.
    Expired,
    /// The other side of what is put right by hand.
    Adjustment,
    /// What was paid back of what wallets owe.
    Debt,
}

impl Counter {
    const ALL: [Self; 6] =
        [Self::Bonus, Self::Revenue, Self::Clearing, Self::Expired, Self::Adjustment, Self::Debt];

    /// As in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bonus => "bonus",
            Self::Revenue => "revenue",
            Self::Clearing => "clearing",
            Self::Expired => "expired",
            Self::Adjustment => "adjustment",
            Self::Debt => "debt",
        }
    }

    /// From the database; none for a word that this version does not know.
    pub fn from_database(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|counter| counter.as_str() == text)
    }
}
