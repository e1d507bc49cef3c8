//! Auto top-up: mana is bought, with a saved card, before a wallet runs out. Off until its owner turns it on. Owns
//! `credits.auto_top_ups`.
//!
//! A balance is looked at by a pass of its own and never by a spend, which must not wait for it: the ledger leaves a notice with each change
//! of a wallet that is below the threshold. What a crossing is, and why there is one order for each: docs/decisions/0033. The order is a purchase like any other: whatever makes the service look at its payment, the
//! mana comes once.

mod charge;
pub(crate) mod model;
mod open;
mod show;
pub(crate) mod store;
mod turn_off;
mod turn_on;
mod work;

pub use model::PauseReason;
pub(crate) use open::count_from_zero;
pub(crate) use show::list;
pub use turn_off::end;
pub use work::{catch_up, work};

use crate::{CreditsState, PortError};
use mana_kernel::UserId;
use mana_platform::http::Language;
use sqlx::PgConnection;
use std::future::Future;
use std::pin::Pin;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<CreditsState> {
    OpenApiRouter::new().routes(routes!(show::auto_top_up, turn_on::turn_on, turn_off::turn_off))
}

/// What the accounts are told of an auto top-up.
#[derive(Debug, Clone, Copy)]
pub enum TopUpNews<'a> {
    /// Its owner has agreed to be charged from now on.
    TurnedOn,
    /// Its owner has turned it off.
    TurnedOff,
    /// It does not go on by itself.
    Paused {
        /// Why.
        reason: PauseReason,
        /// Where its owner may pay in person.
        till: Option<&'a str>,
        /// What its owner reads.
        language: Language,
    },
}

/// Port: the accounts of those who pay.
pub trait Payers: Send + Sync + std::fmt::Debug {
    /// Whether the account may still act: nobody else is charged.
    fn may_be_charged<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
    ) -> Pin<Box<dyn Future<Output = Result<bool, PortError>> + Send + 'a>>;

    /// Something has happened to a user's auto top-up, in the transaction in which it does.
    fn on_top_up_news<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
        news: TopUpNews<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>>;
}
