//! What apps may want to hear of: told to whoever tells them, in the transaction in which it happens.

use crate::ledger::model::{Effects, TransactionKind, Wallet};
use crate::{HeldServices, PortError};
use mana_kernel::{HoldId, Mana, TransactionId, UserId};
use sqlx::PgConnection;
use std::future::Future;
use std::pin::Pin;

/// Who charged a user, and so who said in which app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargedBy {
    /// The app, by a service key that acts as no other.
    Service,
    /// Whoever has a service key that acts as any app.
    SharedService,
    /// The user's session, which names apps as it likes.
    User,
}

/// Something that happened to a wallet or an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreditsEvent {
    /// A user spent mana.
    Spent {
        /// Whose.
        user: UserId,
        /// In which app.
        app: String,
        /// How much.
        amount: i64,
        /// The line of the ledger.
        transaction: TransactionId,
        /// The hold that was captured, if it was one.
        hold: Option<HoldId>,
        /// Who charged.
        by: ChargedBy,
    },
    /// What a user can spend fell below what its owner wants to be told of.
    Low {
        /// Whose.
        user: UserId,
        /// What can be spent.
        available: Mana,
        /// Below which its owner wants to be told.
        below: Mana,
    },
    /// Mana that was bought is in the wallet.
    PurchaseCompleted {
        /// Who bought it.
        user: UserId,
        /// The order.
        purchase: String,
        /// What was bought.
        package: String,
        /// How much mana.
        credits: i64,
        /// Paid in.
        currency: String,
        /// How much of it, in its smallest unit.
        price_cents: i64,
    },
}

/// Port: tells apps, in the transaction that it is given. If it can't be written down, it does not happen.
pub trait OnCreditsEvent: Send + Sync + std::fmt::Debug {
    /// Whether anybody may want to hear of a spend: asked for each, so without any waiting.
    fn may_want_spend(&self, app: &str, amount: i64) -> bool;

    /// Called with what happened, behind the wallets' locks.
    fn on_credits_events<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [CreditsEvent],
    ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>>;
}

/// What is to be told of a change of a wallet.
pub(crate) fn events_of(
    on_event: &dyn OnCreditsEvent,
    user: &str,
    wallet: &Wallet,
    effects: &Effects,
    was_low: bool,
    services: &HeldServices,
) -> Vec<CreditsEvent> {
    let Ok(user) = user.parse::<UserId>() else { return Vec::new() };
    let spends = effects.transactions.iter().filter_map(|line| {
        let (app, amount) = (&line.note.app_id, 0_i64.saturating_sub(line.amount));
        let is_wanted = line.kind == TransactionKind::Usage && on_event.may_want_spend(app, amount);
        is_wanted.then(|| CreditsEvent::Spent {
            user: user.clone(),
            app: app.clone(),
            amount,
            transaction: line.id,
            hold: line.hold_id,
            by: services.charged_by(line.note.service_key_id.as_deref()),
        })
    });
    let low = wallet.low().filter(|_| !was_low);
    let low = low.map(|(available, below)| CreditsEvent::Low { user: user.clone(), available, below });
    spends.chain(low).collect()
}
