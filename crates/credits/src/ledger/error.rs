//! What may go wrong with a command.

use super::model::Refusal;
use crate::PortError;
use crate::idempotency::{KeyError, ONE_ANSWER};
use mana_kernel::{ErrorCode, Kind, Problem, Shortfall};
use mana_platform::http::codes;
use mana_platform::{DbError, lost_a_race};

/// What may go wrong with a command.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The ledger refuses it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The idempotency key can't be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The session was ended meanwhile.
    #[error("the session has ended")]
    SessionEnded,
    /// The service key was revoked meanwhile.
    #[error("the service key is not accepted any more")]
    KeyRevoked,
    /// An app takes from a user who is disabled.
    #[error("the user is disabled")]
    UserDisabled,
    /// The session or the key could not be checked.
    #[error("the session or the service key could not be checked: {0}")]
    Port(PortError),
    /// An answer could not be written down.
    #[error("an answer could not be serialised: {0}")]
    Answer(#[from] serde_json::Error),
    /// A service names a user who has no wallet.
    #[error("there is no such user")]
    NoSuchUser,
    /// No such hold, or somebody else's.
    #[error("there is no such hold")]
    NoSuchHold,
    /// The wallet is not as the client saw it.
    #[error("the wallet has moved")]
    Moved,
    /// As many orders wait as may.
    #[error("the ledger's queue is full")]
    Busy,
    /// A defect ended the batch.
    #[error("a defect ended the batch")]
    Defect,
    /// The database did not take the batch.
    #[error("the database did not take the batch")]
    Unavailable,
    /// The process is ending.
    #[error("the ledger has stopped")]
    Stopped,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl LedgerError {
    /// Whether it passes by itself, so that to try again is worth it.
    pub(super) fn passes(&self) -> bool {
        self.code().kind == Kind::Unavailable
    }

    /// Whether others took the same locks in another order, so that to do all of it again is worth it.
    pub(super) fn lost_a_race(&self) -> bool {
        if let Self::Port(error) = self {
            return lost_a_race(&**error);
        }
        matches!(self, Self::Database(error) if error.lost_a_race())
    }

    /// Whether a key was known that had not been looked up.
    pub(super) fn has_met_a_known_key(&self) -> bool {
        matches!(self, Self::Database(error) if error.constraint() == Some(ONE_ANSWER))
    }
}

/// Not enough mana.
pub static INSUFFICIENT_FUNDS: ErrorCode = ErrorCode {
    code: "credits.insufficient_funds",
    kind: Kind::Invalid,
    title: "Insufficient credits",
    word: None,
    way_out: "Offer a purchase: the problem's `available` is what can be spent now, `required` what was asked for. Nothing was taken; with an Idempotency-Key the refusal stays the answer, so use a new key after a top-up.",
};
/// Paid mana is asked for, and a debt is open.
pub static IN_DEBT: ErrorCode = ErrorCode {
    code: "credits.in_debt",
    kind: Kind::Conflict,
    title: "A payment was taken back, and what it bought is still owed",
    word: None,
    way_out: "Free mana can be spent as ever; paid mana only when `debtCredits` of the balance is 0. The next purchase pays the debt first. Offer one, or send the person to support.",
};
/// More is forgiven than is owed.
pub static FORGIVES_TOO_MUCH: ErrorCode = ErrorCode {
    code: "credits.forgives_too_much",
    kind: Kind::Conflict,
    title: "More is forgiven than is owed",
    word: None,
    way_out: "`debtCredits` of the user's balance says how much is owed; a purchase may have paid it meanwhile.",
};
/// A total would exceed 2^53 - 1.
pub static OUT_OF_RANGE: ErrorCode = ErrorCode {
    code: "credits.out_of_range",
    kind: Kind::Invalid,
    title: "The amount would exceed what a wallet can hold",
    word: None,
    way_out: "Amounts and totals stay below 2^53. Use a smaller amount.",
};

/// The owner of the wallet is gone.
pub static WALLET_CLOSED: ErrorCode = ErrorCode {
    code: "credits.wallet_closed",
    kind: Kind::Conflict,
    title: "This account is closed",
    word: None,
    way_out: "The account was deleted: nothing can be charged or given any more. Stop billing it.",
};
/// An app charges a user who is disabled.
pub static USER_DISABLED: ErrorCode = ErrorCode {
    code: "credits.user_disabled",
    kind: Kind::Conflict,
    title: "This account is disabled",
    word: None,
    way_out: "An administrator has disabled the account: nothing is charged to it or set aside until it is enabled again. Refunds and releases go on. The refusal is not remembered, so the same key is good for a later try.",
};
/// Captured, released or past its time.
pub static HOLD_ENDED: ErrorCode = ErrorCode {
    code: "credits.hold_ended",
    kind: Kind::Conflict,
    title: "This hold has ended",
    word: None,
    way_out: "A hold is captured or released once, and released by itself when its time is over: `GET /api/v1/credits/holds/{id}` shows what became of it. Charge with `POST /api/v1/credits/use`, or set aside anew.",
};
/// More than was set aside.
pub static CAPTURE_EXCEEDS_HOLD: ErrorCode = ErrorCode {
    code: "credits.capture_exceeds_hold",
    kind: Kind::Invalid,
    title: "More is captured than was set aside",
    word: None,
    way_out: "Capture at most the hold's amount, and charge the rest with `POST /api/v1/credits/use`.",
};
/// More than is left of the spend.
pub static REFUND_EXCEEDS_SPEND: ErrorCode = ErrorCode {
    code: "credits.refund_exceeds_spend",
    kind: Kind::Invalid,
    title: "More would be given back than was spent",
    word: None,
    way_out: "Refunds of a spend add up to its amount at most: less of it is left than `amount`.",
};
/// No spend to give back.
pub static NO_SUCH_SPEND: ErrorCode = ErrorCode {
    code: "credits.no_such_spend",
    kind: Kind::NotFound,
    title: "There is no such spend",
    word: None,
    way_out: "Name a transaction of type usage that this app charged, by its `id`; without one, the app must have charged this user that much, not given back, in the latest 10,000 lines and 100 spends.",
};
/// No such hold, or somebody else's.
pub static NO_SUCH_HOLD: ErrorCode = ErrorCode {
    code: "credits.no_such_hold",
    kind: Kind::NotFound,
    title: "There is no such hold",
    word: None,
    way_out: "Use the id that `POST /api/v1/credits/holds` answered, with the same user or the same app's service key.",
};
/// Too many holds are open.
pub static TOO_MANY_HOLDS: ErrorCode = ErrorCode {
    code: "credits.too_many_holds",
    kind: Kind::Conflict,
    title: "Too many holds are open",
    word: None,
    way_out: "A wallet has 200 open holds at most. Capture or release some, or let them expire sooner.",
};
/// Too many grants are live.
pub static TOO_MANY_GRANTS: ErrorCode = ErrorCode {
    code: "credits.too_many_grants",
    kind: Kind::Conflict,
    title: "Too many different grants are live",
    word: None,
    way_out: "A wallet has 200 live grants of different terms, or more by purchases. Give with the same expiry as before, so that a grant is added to.",
};
/// The end is before the beginning, or before now.
pub static OVER_ALREADY: ErrorCode = ErrorCode {
    code: "credits.over_already",
    kind: Kind::Invalid,
    title: "It would be over before it begins",
    word: None,
    way_out: "Choose an expiry in the future, after the beginning.",
};
/// A service names a user who has no wallet.
pub static NO_SUCH_USER: ErrorCode = ErrorCode {
    code: "credits.no_such_user",
    kind: Kind::NotFound,
    title: "There is no such user",
    word: None,
    way_out: "Use the `id` or `sub` of a registered user.",
};
/// The wallet is not as the client saw it.
pub static MOVED: ErrorCode = ErrorCode {
    code: "credits.balance_moved",
    kind: Kind::PreconditionFailed,
    title: "The balance has changed",
    word: None,
    way_out: "Read the balance again, decide again, and send its new `ETag` as `If-Match`. Nothing was charged.",
};
/// As many orders wait as may.
pub static BUSY: ErrorCode = ErrorCode {
    code: "credits.busy",
    kind: Kind::Unavailable,
    title: "Too many charges wait at the moment",
    word: None,
    way_out: "Nothing was charged. Send the same request again after the seconds of Retry-After.",
};

/// The catalogue of this feature.
pub static CODES: &[&ErrorCode] = &[
    &INSUFFICIENT_FUNDS,
    &IN_DEBT,
    &FORGIVES_TOO_MUCH,
    &OUT_OF_RANGE,
    &WALLET_CLOSED,
    &USER_DISABLED,
    &HOLD_ENDED,
    &CAPTURE_EXCEEDS_HOLD,
    &REFUND_EXCEEDS_SPEND,
    &NO_SUCH_SPEND,
    &NO_SUCH_HOLD,
    &TOO_MANY_HOLDS,
    &TOO_MANY_GRANTS,
    &OVER_ALREADY,
    &NO_SUCH_USER,
    &MOVED,
    &BUSY,
];

impl Problem for LedgerError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::Refused(refusal) => refusal_code(*refusal),
            Self::Answer(_) | Self::Defect => &codes::INTERNAL,
            Self::Key(error) => error.code(),
            Self::SessionEnded => &codes::UNAUTHENTICATED,
            Self::KeyRevoked => &codes::SERVICE_UNAUTHENTICATED,
            Self::UserDisabled => &USER_DISABLED,
            Self::Port(error) => error.code(),
            Self::NoSuchUser => &NO_SUCH_USER,
            Self::NoSuchHold => &NO_SUCH_HOLD,
            Self::Moved => &MOVED,
            Self::Busy => &BUSY,
            Self::Unavailable | Self::Stopped => &codes::UNAVAILABLE,
            Self::Database(error) => error.code(),
        }
    }

    fn shortfall(&self) -> Option<Shortfall> {
        if let Self::Refused(Refusal::InsufficientFunds(shortfall)) = self { Some(*shortfall) } else { None }
    }
}

fn refusal_code(refusal: Refusal) -> &'static ErrorCode {
    match refusal {
        Refusal::InsufficientFunds(_) => &INSUFFICIENT_FUNDS,
        Refusal::InDebt => &IN_DEBT,
        Refusal::ForgivesTooMuch => &FORGIVES_TOO_MUCH,
        // Daily credits are given by the ledger itself, which asks for none twice.
        Refusal::AlreadyGranted => &codes::INTERNAL,
        Refusal::Closed => &WALLET_CLOSED,
        Refusal::HoldEnded => &HOLD_ENDED,
        Refusal::CaptureExceedsHold => &CAPTURE_EXCEEDS_HOLD,
        Refusal::RefundExceedsSpend => &REFUND_EXCEEDS_SPEND,
        Refusal::NoSuchSpend => &NO_SUCH_SPEND,
        Refusal::TooManyHolds => &TOO_MANY_HOLDS,
        Refusal::TooManyGrants => &TOO_MANY_GRANTS,
        Refusal::OverAlready => &OVER_ALREADY,
        Refusal::OutOfRange(_) => &OUT_OF_RANGE,
    }
}
