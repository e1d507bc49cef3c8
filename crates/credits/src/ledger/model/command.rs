//! What may be asked of a wallet, and why it may be refused.

use super::grant::Terms;
use super::payment::Settlement;
use mana_kernel::mana::OutOfRange;
use mana_kernel::{Amount, HoldId, Shortfall};
use time::{Date, OffsetDateTime};

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
    /// Mana from anywhere else.
    Give(Gift),
    /// A line of another ledger is brought along: its kind is what it was there, and says nothing about its terms.
    Bring {
        /// What it was.
        kind: BroughtAs,
        /// What it gave.
        gift: Gift,
    },
    /// An app charges the wallet.
    Spend(Charge),
    /// Mana is taken away to put something right.
    Take(Charge),
    /// What is owed is forgiven: given, and paid back with it.
    Forgive(Charge),
    /// An app sets mana aside.
    Hold {
        /// Name of the hold.
        id: HoldId,
        /// What it is for.
        charge: Charge,
        /// From when on it is released.
        expires_at: OffsetDateTime,
    },
    /// An app charges what it has set aside, or a part of it; the rest is given back.
    Capture {
        /// Which hold.
        id: HoldId,
        /// How much; all of it if absent.
        amount: Option<Amount>,
        /// What the charge says.
        note: Note,
    },
    /// What was set aside is given back.
    Release {
        /// Which hold.
        id: HoldId,
    },
    /// What was set aside stays so for longer, or for less long.
    Extend {
        /// Which hold.
        id: HoldId,
        /// From when on it is released now.
        expires_at: OffsetDateTime,
    },
    /// A spend is given back, whole or in part. The wallet must have it recalled.
    Refund {
        /// Sequence of the spend.
        spend: i64,
        /// How much; whatever has not been given back yet if absent.
        amount: Option<Amount>,
        /// Whether mana whose grant has expired comes back as mana that does not expire. Else it stays expired.
        revives_expired: bool,
        /// What the refund says.
        note: Note,
    },
    /// An app gives back what it charged, and does not say which spends that were. The wallet must have those recalled that may be.
    RefundNewest {
        /// How much.
        amount: Amount,
        /// As of [`Command::Refund`].
        revives_expired: bool,
        /// What the refund says, and whose spends it is about.
        note: Note,
    },
    /// A payment came in or went back.
    Settle(Settlement),
}

/// What a line that gave mana was in the ledger that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BroughtAs {
    /// Bought, of which there is no order.
    Purchase,
    /// Given away.
    Bonus,
    /// Put right, or of a kind that is not known here.
    Adjustment,
}

/// Mana that is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gift {
    /// How much.
    pub amount: Amount,
    /// On which terms.
    pub terms: Terms,
    /// What the line says.
    pub note: Note,
}

/// What an app charges for, or what is taken away or forgiven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// How much.
    pub amount: Amount,
    /// What the line says.
    pub note: Note,
}

/// What a line of the history says besides its amount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Note {
    /// The app that causes it.
    pub app_id: String,
    /// For the owner to read.
    pub description: String,
    /// JSON text, kept as given.
    pub metadata: Option<String>,
    /// The client's name for this request.
    pub idempotency_key: Option<String>,
    /// The service key that asked, if it was not the owner's own session.
    pub service_key_id: Option<String>,
}

/// Why a command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More is asked for than there is.
    #[error("more mana is asked for than is available")]
    InsufficientFunds(Shortfall),
    /// Paid mana is asked for, and a debt is open.
    #[error("a payment was taken back, and what it bought is owed")]
    InDebt,
    /// More is forgiven than is owed.
    #[error("more is forgiven than is owed")]
    ForgivesTooMuch,
    /// The day's credits were given already.
    #[error("the daily credits of that day were given already")]
    AlreadyGranted,
    /// The wallet's owner is gone.
    #[error("the wallet is closed")]
    Closed,
    /// The hold was captured, released, or its time is over.
    #[error("the hold has ended")]
    HoldEnded,
    /// More is captured than was set aside.
    #[error("more is captured than was set aside")]
    CaptureExceedsHold,
    /// More would be given back than was spent.
    #[error("more would be given back than is left of the spend")]
    RefundExceedsSpend,
    /// Not a spend of this wallet.
    #[error("there is no such spend")]
    NoSuchSpend,
    /// As many holds are open as a wallet may have.
    #[error("too many holds are open")]
    TooManyHolds,
    /// As many grants of different terms are live as a wallet may have.
    #[error("too many different grants are live")]
    TooManyGrants,
    /// It would expire before it begins, or has already.
    #[error("the time is over before it begins")]
    OverAlready,
    /// A total would leave the range of mana.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}
