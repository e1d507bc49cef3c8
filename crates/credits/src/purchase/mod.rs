//! Buying mana: orders, what Stripe says of them, and what the ledger does about it. Owns `credits.purchases`,
//! `credits.refunds`, `credits.disputes`, `credits.stripe_customers` and `credits.payment_statements`.
//!
//! Nothing is believed that a delivery says. Whatever happens leads to `sync`: it looks at Stripe, merges what it sees with
//! what is known (`model`), and has the ledger do what follows, in one transaction under the order's lock.

mod adopt;
mod buy;
mod done;
mod find;
mod list;
mod list_all;
mod look;
pub(crate) mod model;
mod payment_link;
pub(crate) mod place;
mod receipt;
mod reconcile;
mod refund;
mod show;
mod statement;
pub(crate) mod store;
pub(crate) mod sync;

pub(crate) use adopt::adopt_told;
pub use look::look_at_asked;
pub use model::PaymentError;
pub use place::ReturnUrls;
pub use receipt::Seller;
pub use reconcile::{Finding, Report, keep_reconciled, reconcile};
pub use refund::send_wanted_refunds;
pub use statement::{DailyStatement, StatementLine, find_statement};

use crate::ledger::Books;
use crate::stripe::Stripe;
use crate::{CreditsState, PortError};
use mana_kernel::UserId;
use mana_platform::DbError;
use mana_platform::config::StripeTax;
use secrecy::SecretString;
use sqlx::PgConnection;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Orders that wait to be looked at because somebody asked for them; more wait for the next delivery.
const MAX_ASKED_FOR: usize = 1_000;

pub(crate) fn routes() -> OpenApiRouter<CreditsState> {
    OpenApiRouter::new()
        .routes(routes!(buy::purchase))
        .routes(routes!(payment_link::payment_link))
        .routes(routes!(find::find_purchase))
        .routes(routes!(list::purchases))
        .routes(routes!(list_all::purchases_of_all))
        .routes(routes!(receipt::receipt))
        .routes(routes!(show::show_purchase))
        .routes(routes!(refund::refund_purchase))
        .routes(routes!(done::checkout_done))
}

/// What is bad news about a payer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentRisk {
    /// The card's issuer thinks that it was not its owner.
    FraudWarning,
    /// The money of a payment was charged back.
    DisputeLost,
}

/// Port: the accounts learn of bad news, in the transaction that writes them down.
pub trait OnPaymentRisk: Send + Sync + std::fmt::Debug {
    /// Something is wrong with a user's order.
    fn on_payment_risk<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
        risk: PaymentRisk,
        order: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>>;
}

/// What it takes to sell.
#[derive(Debug)]
pub struct Payments {
    /// What it takes to keep the books.
    pub books: Arc<Books>,
    /// The way to Stripe; nothing can be bought without.
    pub stripe: Option<Stripe>,
    /// What its deliveries are signed with; none is believed without.
    pub webhook_secrets: Vec<SecretString>,
    /// Told to apps that embed the form.
    pub publishable_key: Option<String>,
    /// Where browsers may be sent after the till.
    pub return_urls: ReturnUrls,
    /// Whether Stripe puts tax on what is sold.
    pub tax: StripeTax,
    /// Who sells, as receipts say it.
    pub seller: Seller,
    /// Who hears of bad news.
    pub on_payment_risk: Arc<dyn OnPaymentRisk>,
    /// What there is to do between two passes.
    pub errands: Errands,
}

/// Work that came in since the last passes. Each pass has a bell of its own, so that none stands behind another.
#[derive(Debug, Default)]
pub struct Errands {
    asked_for: Mutex<VecDeque<String>>,
    /// An order is to be looked at.
    pub orders: Notify,
    /// A delivery has come in.
    pub deliveries: Notify,
    /// There is something to do for an auto top-up.
    pub top_ups: Notify,
}

impl Errands {
    /// Has an order looked at soon: its owner is back from the till.
    pub fn look_at(&self, order: &str) {
        let mut asked_for = self.asked_for.lock().unwrap_or_else(PoisonError::into_inner);
        if asked_for.len() < MAX_ASKED_FOR && !asked_for.iter().any(|known| known == order) {
            asked_for.push_back(order.to_owned());
        }
        self.orders.notify_one();
    }

    /// The orders that have waited longest. While others wait, the bell goes on ringing.
    pub(crate) fn take(&self, most: usize) -> Vec<String> {
        let mut asked_for = self.asked_for.lock().unwrap_or_else(PoisonError::into_inner);
        let end = asked_for.len().min(most);
        let taken = asked_for.drain(..end).collect();
        if !asked_for.is_empty() {
            self.orders.notify_one();
        }
        taken
    }
}

/// Forgets who paid for a user's purchases, in the transaction that ends the account. The purchases stay: they are the shop's books.
///
/// # Errors
/// When the database fails; the deletion must roll back then.
pub async fn forget_payer(connection: &mut PgConnection, user: &UserId) -> Result<(), DbError> {
    store::delete_payer(connection, user).await
}

impl Payments {
    pub(crate) fn stripe(&self) -> Result<&Stripe, PaymentError> {
        self.stripe.as_ref().ok_or(PaymentError::NotConfigured)
    }
}
