//! The ledger's state machine: a wallet and a command in, postings or a refusal out.
//!
//! No I/O, no clock, no randomness: the same wallet, command and stamp always give the same result, so that property
//! tests and simulations can drive it. A refused command changes nothing.

use super::chain;
use mana_kernel::{Amount, Mana, TransactionId, mana::OutOfRange};
use time::{Date, OffsetDateTime};

/// A wallet's internal id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WalletId(pub i64);

/// A wallet as loaded for a change: its totals, the head of its chain, and its grants that have something left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wallet {
    /// Internal id.
    pub id: WalletId,
    /// Number of its transactions; also its version.
    pub sequence: i64,
    /// Hash of its last transaction; zeros before the first.
    pub head: [u8; 32],
    /// Purchases, allocations and gifts so far; bonuses are not earned.
    pub total_earned: Mana,
    /// Spends so far.
    pub total_spent: Mana,
    /// Last day for which the daily credits were given.
    pub daily_granted_on: Date,
    /// What is left of free grants.
    pub free: Mana,
    /// What is left of paid grants.
    pub paid: Mana,
    /// Grants with something left, and the standing allowance.
    pub grants: Vec<Grant>,
}

/// Mana given, and what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Sequence of the transaction that first gave it; names the grant within its wallet.
    pub sequence: i64,
    /// Where it came from.
    pub source: GrantSource,
    /// Given in all.
    pub granted: Mana,
    /// Still there.
    pub remaining: Mana,
    /// From when on nothing of it can be spent.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was first given.
    pub created_at: OffsetDateTime,
}

/// Where mana came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GrantSource {
    /// Sign-up bonus and daily credits: free, never expires, one grant a wallet that is topped up.
    Allowance,
    /// Bought.
    Purchase,
}

impl GrantSource {
    /// As in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowance => "allowance",
            Self::Purchase => "purchase",
        }
    }

    /// From the database; none for a word that this version does not know.
    pub fn from_database(text: &str) -> Option<Self> {
        [Self::Allowance, Self::Purchase].into_iter().find(|source| source.as_str() == text)
    }

    /// Lower is spent first.
    pub fn priority(self) -> i16 {
        match self {
            Self::Allowance => 10,
            Self::Purchase => 20,
        }
    }

    /// Whether somebody paid for it.
    pub fn is_paid(self) -> bool {
        match self {
            Self::Allowance => false,
            Self::Purchase => true,
        }
    }
}

/// A change that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Free mana at registration.
    SignupBonus {
        /// How much.
        amount: Amount,
    },
    /// Free mana for a day.
    DailyCredits {
        /// How much.
        amount: Amount,
        /// For which day.
        day: Date,
    },
    /// An app charges the wallet.
    Spend(Spend),
}

/// What an app charges for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    /// How much.
    pub amount: Amount,
    /// Which app.
    pub app_id: String,
    /// For the owner to read.
    pub description: String,
    /// JSON text, kept as given.
    pub metadata: Option<String>,
    /// The client's name for this request.
    pub idempotency_key: Option<String>,
}

/// Identity and time of a transaction, made outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Id of the transaction.
    pub id: TransactionId,
    /// When it happens, to the microsecond that the database keeps.
    pub at: OffsetDateTime,
}

/// Why a command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More is asked for than there is.
    #[error("more mana is asked for than is available")]
    InsufficientFunds,
    /// The day's credits were given already.
    #[error("the daily credits of that day were given already")]
    AlreadyGranted,
    /// A total would leave the range of mana.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

/// A transaction with its legs, to be written as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// The transaction.
    pub transaction: Transaction,
    /// Its legs. They sum to zero, the wallet's to the transaction's amount.
    pub entries: Vec<Entry>,
}

/// A line of a wallet's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Identity and time.
    pub stamp: Stamp,
    /// Place in the wallet's history, from 1.
    pub sequence: i64,
    /// What sort.
    pub kind: TransactionKind,
    /// Change of the balance; spends are negative.
    pub amount: i64,
    /// Free and paid together, afterwards.
    pub balance_after: Mana,
    /// Who caused it.
    pub app_id: String,
    /// For the owner to read.
    pub description: String,
    /// JSON text.
    pub metadata: Option<String>,
    /// The client's name for the request.
    pub idempotency_key: Option<String>,
    /// Links this line to all before it.
    pub hash: [u8; 32],
}

/// What sort of transaction. The words are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionKind {
    /// Free mana.
    Bonus,
    /// A spend.
    Usage,
}

impl TransactionKind {
    /// As on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bonus => "bonus",
            Self::Usage => "usage",
        }
    }
}

/// One leg of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whose side.
    pub account: Account,
    /// What it receives; negative if it gives.
    pub amount: i64,
}

/// A side of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// The wallet, through one of its grants.
    Wallet {
        /// The grant's sequence.
        grant: i64,
    },
    /// The system account that bonuses come from.
    Bonus,
    /// The revenue of the transaction's app.
    Revenue,
}

impl Account {
    /// As in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wallet { .. } => "wallet",
            Self::Bonus => "bonus",
            Self::Revenue => "revenue",
        }
    }
}

/// What takes part in a transaction before it has its place in the history.
struct Draft {
    kind: TransactionKind,
    amount: i64,
    app_id: String,
    description: String,
    metadata: Option<String>,
    idempotency_key: Option<String>,
}

impl Wallet {
    /// A wallet before its first transaction.
    pub fn new(id: WalletId, opened_on: Date) -> Self {
        Self {
            id,
            sequence: 0,
            head: [0; 32],
            total_earned: Mana::ZERO,
            total_spent: Mana::ZERO,
            daily_granted_on: opened_on,
            free: Mana::ZERO,
            paid: Mana::ZERO,
            grants: Vec::new(),
        }
    }

    /// The wallet with these grants, its totals counted from them.
    ///
    /// # Errors
    /// When they add up to more than a wallet can hold.
    pub fn with_grants(mut self, grants: Vec<Grant>) -> Result<Self, OutOfRange> {
        self.grants = grants;
        self.count_totals()?;
        Ok(self)
    }

    /// Counts the totals anew from the grants, and gives what they make together.
    fn count_totals(&mut self) -> Result<Mana, OutOfRange> {
        self.free = self.sum(|grant| !grant.source.is_paid())?;
        self.paid = self.sum(|grant| grant.source.is_paid())?;
        self.free.plus(self.paid)
    }

    /// What can be spent at `now`.
    ///
    /// # Errors
    /// When the grants add up to more than a wallet can hold.
    pub fn available(&self, now: OffsetDateTime) -> Result<Mana, OutOfRange> {
        self.sum(|grant| grant.is_live(now))
    }

    fn sum(&self, counts: impl Fn(&Grant) -> bool) -> Result<Mana, OutOfRange> {
        self.grants
            .iter()
            .filter(|grant| counts(grant))
            .try_fold(Mana::ZERO, |sum, grant| sum.plus(grant.remaining))
    }

    /// Applies one command.
    ///
    /// # Errors
    /// When it is refused; the wallet is unchanged then.
    pub fn apply(&mut self, command: &Command, stamp: Stamp) -> Result<Posting, Refusal> {
        let mut changed = self.clone();
        let posting = changed.post_command(command, stamp)?;
        *self = changed;
        Ok(posting)
    }

    /// May leave half a change behind when it fails; [`Self::apply`] calls it on a copy.
    fn post_command(&mut self, command: &Command, stamp: Stamp) -> Result<Posting, Refusal> {
        match command {
            Command::SignupBonus { amount } => self.give_allowance(*amount, "Signup bonus", stamp),
            Command::DailyCredits { amount, day } => {
                if *day <= self.daily_granted_on {
                    return Err(Refusal::AlreadyGranted);
                }
                let posting = self.give_allowance(*amount, "Daily free credits", stamp)?;
                self.daily_granted_on = *day;
                Ok(posting)
            }
            Command::Spend(spend) => self.spend(spend, stamp),
        }
    }

    fn give_allowance(
        &mut self,
        amount: Amount,
        description: &str,
        stamp: Stamp,
    ) -> Result<Posting, Refusal> {
        let next = self.sequence.saturating_add(1);
        let standing = self
            .grants
            .iter_mut()
            .find(|grant| grant.source == GrantSource::Allowance && grant.expires_at.is_none());
        let grant = match standing {
            Some(grant) => {
                grant.granted = grant.granted.plus(amount.mana())?;
                grant.remaining = grant.remaining.plus(amount.mana())?;
                grant.sequence
            }
            None => {
                self.grants.push(Grant {
                    sequence: next,
                    source: GrantSource::Allowance,
                    granted: amount.mana(),
                    remaining: amount.mana(),
                    expires_at: None,
                    created_at: stamp.at,
                });
                next
            }
        };
        let draft = Draft {
            kind: TransactionKind::Bonus,
            amount: amount.get(),
            app_id: "system".to_owned(),
            description: description.to_owned(),
            metadata: None,
            idempotency_key: None,
        };
        let entries = vec![
            Entry { account: Account::Wallet { grant }, amount: amount.get() },
            Entry { account: Account::Bonus, amount: given_by(amount.mana()) },
        ];
        Ok(self.post(draft, entries, stamp)?)
    }

    fn spend(&mut self, spend: &Spend, stamp: Stamp) -> Result<Posting, Refusal> {
        let amount = spend.amount.mana();
        if amount > self.available(stamp.at)? {
            return Err(Refusal::InsufficientFunds);
        }
        let total_spent = self.total_spent.plus(amount)?;
        let mut entries = self.take(amount, stamp.at)?;
        entries.push(Entry { account: Account::Revenue, amount: amount.get() });
        self.total_spent = total_spent;
        let draft = Draft {
            kind: TransactionKind::Usage,
            amount: given_by(amount),
            app_id: spend.app_id.clone(),
            description: spend.description.clone(),
            metadata: spend.metadata.clone(),
            idempotency_key: spend.idempotency_key.clone(),
        };
        Ok(self.post(draft, entries, stamp)?)
    }

    /// Takes slices of live grants in burn-down order: by priority, then what expires soonest, then free before paid,
    /// then the oldest. There must be enough.
    fn take(&mut self, amount: Mana, now: OffsetDateTime) -> Result<Vec<Entry>, OutOfRange> {
        self.grants.sort_by_key(Grant::burn_down_rank);
        let mut missing = amount;
        let mut slices = Vec::new();
        for grant in self.grants.iter_mut().filter(|grant| grant.is_live(now) && grant.remaining > Mana::ZERO)
        {
            let slice = missing.min(grant.remaining);
            if slice == Mana::ZERO {
                break;
            }
            grant.remaining = grant.remaining.minus(slice)?;
            missing = missing.minus(slice)?;
            slices
                .push(Entry { account: Account::Wallet { grant: grant.sequence }, amount: given_by(slice) });
        }
        if missing == Mana::ZERO { Ok(slices) } else { Err(OutOfRange) }
    }

    /// Gives a change its place in the history.
    fn post(&mut self, draft: Draft, entries: Vec<Entry>, stamp: Stamp) -> Result<Posting, OutOfRange> {
        self.sequence = self.sequence.saturating_add(1);
        let balance_after = self.count_totals()?;
        let mut transaction = Transaction {
            stamp,
            sequence: self.sequence,
            kind: draft.kind,
            amount: draft.amount,
            balance_after,
            app_id: draft.app_id,
            description: draft.description,
            metadata: draft.metadata,
            idempotency_key: draft.idempotency_key,
            hash: [0; 32],
        };
        transaction.hash = chain::link(&self.head, self.id, &transaction, &entries);
        self.head = transaction.hash;
        Ok(Posting { transaction, entries })
    }
}

/// What the side that gives `mana` receives. Mana is never negative, so the sign can't overflow.
fn given_by(mana: Mana) -> i64 {
    0_i64.saturating_sub(mana.get())
}

impl Grant {
    fn is_live(&self, now: OffsetDateTime) -> bool {
        self.expires_at.is_none_or(|expiry| now < expiry)
    }

    fn burn_down_rank(&self) -> (i16, bool, Option<OffsetDateTime>, bool, i64) {
        (
            self.source.priority(),
            self.expires_at.is_none(),
            self.expires_at,
            self.source.is_paid(),
            self.sequence,
        )
    }
}

#[cfg(test)]
mod tests;
