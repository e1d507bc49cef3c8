//! What may go wrong with a command.

use super::model::Refusal;
use crate::PortError;
use crate::idempotency::KeyError;
use mana_kernel::{ErrorCode, Kind, Problem};
use mana_platform::DbError;
use mana_platform::http::codes;

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
    /// The session could not be checked.
    #[error("the session could not be checked: {0}")]
    Port(PortError),
    /// An answer could not be written down.
    #[error("an answer could not be serialised: {0}")]
    Answer(#[from] serde_json::Error),
    /// A wallet that must be there is not.
    #[error("the wallet is gone")]
    WalletMissing,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// Not enough mana.
pub static INSUFFICIENT_FUNDS: ErrorCode = ErrorCode {
    code: "credits.insufficient_funds",
    kind: Kind::Invalid,
    title: "Insufficient credits",
    word: None,
    way_out: "Show the balance and offer a purchase. Nothing was taken; with an Idempotency-Key the refusal stays the answer, so use a new key after a top-up.",
};
/// A total would exceed 2^53 - 1.
pub static OUT_OF_RANGE: ErrorCode = ErrorCode {
    code: "credits.out_of_range",
    kind: Kind::Invalid,
    title: "The amount would exceed what a wallet can hold",
    word: None,
    way_out: "Amounts and totals stay below 2^53. Use a smaller amount.",
};

/// The catalogue of this feature.
pub static CODES: &[&ErrorCode] = &[&INSUFFICIENT_FUNDS, &OUT_OF_RANGE];

impl Problem for LedgerError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::Refused(Refusal::InsufficientFunds) => &INSUFFICIENT_FUNDS,
            Self::Refused(Refusal::OutOfRange(_)) => &OUT_OF_RANGE,
            Self::Refused(Refusal::AlreadyGranted) | Self::WalletMissing | Self::Answer(_) => {
                &codes::INTERNAL
            }
            Self::Key(error) => error.code(),
            Self::SessionEnded => &codes::UNAUTHENTICATED,
            Self::Port(error) => error.code(),
            Self::Database(error) => error.code(),
        }
    }
}
