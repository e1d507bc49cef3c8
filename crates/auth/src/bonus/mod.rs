//! Who gets the sign-up bonus, and when: once for each mailbox, however it is spelled and however often its owner registers,
//! and only so often for one network. Owns `auth.pending_bonuses`, `auth.bonus_mailboxes` and `auth.bonus_networks`.

mod decide;
mod model;
pub(crate) mod store;

pub(crate) use decide::{BonusError, at_registration, note_given, once_verified};
pub use model::BonusPolicy;
pub(crate) use model::{WINDOW, is_disposable};

/// Whether the sign-up bonus comes with the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignupBonus {
    /// Now.
    Given,
    /// Later, or never.
    Withheld,
}
