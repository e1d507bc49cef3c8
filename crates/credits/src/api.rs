//! What the handlers of this crate share: the parts they work with, given to them by the server.

use crate::auto_top_up::Payers;
use crate::ledger::{Books, Ledger, Reader};
use crate::purchase::Payments;
use axum::extract::FromRef;
use mana_kernel::{Amount, Problem, RequestId, SessionId, TransactionId, UserId};
use mana_platform::http::{Authenticate, AuthenticateService, Caller, ClientInfo};
use sqlx::PgConnection;
use std::collections::HashSet;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

/// The parts that the credits work with.
#[derive(Debug)]
pub struct Credits {
    /// What it takes to keep the books.
    pub books: Arc<Books>,
    /// The way into them.
    pub ledger: Ledger,
    /// The way to look at wallets.
    pub reader: Reader,
    /// What it takes to sell mana.
    pub payments: Arc<Payments>,
    /// The accounts of those who pay.
    pub payers: Arc<dyn Payers>,
    /// Who knows the caller behind a bearer token.
    pub authenticate: Arc<dyn Authenticate>,
    /// Who knows the app behind a service key.
    pub authenticate_service: Arc<dyn AuthenticateService>,
}

/// Amounts and days that an operator may choose.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Free mana for a new account.
    pub signup_bonus: Option<Amount>,
    /// Free mana for each day.
    pub daily_free: Option<Amount>,
    /// Name of the time zone whose midnight starts a day (IANA).
    pub daily_zone: String,
}

/// What a port's implementation met; already in the shape that a client may see.
pub type PortError = Box<dyn Problem>;

/// Port: which callers' sessions live, and which apps may ask. Asked inside the transaction that spends, and held until its commit: a session
/// that was ended before spends nothing, and ending one waits for the spend that holds it.
pub trait SessionGuard: Send + Sync + std::fmt::Debug {
    /// Those of the sessions that live, whose callers are who they say; they can't be ended until `connection`'s
    /// transaction ends.
    fn hold_live<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        callers: &'a [&'a Caller],
    ) -> Pin<Box<dyn Future<Output = Result<HashSet<SessionId>, PortError>> + Send + 'a>>;

    /// Those of the service keys that are accepted, and those of the users that are disabled: what apps ask for, and whom they charge.
    /// Until `connection`'s transaction ends, whoever disables a user or revokes a key waits.
    fn hold_services<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        keys: &'a [&'a str],
        users: &'a [&'a UserId],
    ) -> Pin<Box<dyn Future<Output = Result<HeldServices, PortError>> + Send + 'a>>;
}

/// What of orders of apps may be carried out.
#[derive(Debug, Clone, Default)]
pub struct HeldServices {
    /// Ids of the service keys that are accepted.
    pub keys: HashSet<String>,
    /// Those of them that act as one app and as no other.
    pub bound_keys: HashSet<String>,
    /// Users from whom nothing may be taken.
    pub disabled: HashSet<UserId>,
}

impl Deref for Credits {
    type Target = Books;

    fn deref(&self) -> &Books {
        &self.books
    }
}

/// Who administrates, from where, and why.
#[derive(Debug, Clone)]
pub struct Administrator {
    /// Absent for whoever may use the command line.
    pub caller: Option<Caller>,
    /// From where.
    pub client: ClientInfo,
    /// For other administrators to read.
    pub reason: Option<String>,
}

impl Administrator {
    /// Whoever may use the command line, without a reason.
    pub fn operator() -> Self {
        Self { caller: None, client: ClientInfo::default(), reason: None }
    }
}

/// What an administrator does to a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Mana is given.
    Granted,
    /// Mana is taken.
    Taken,
    /// A debt is forgiven.
    Forgiven,
}

/// What an administrator did to a wallet.
#[derive(Debug, Clone)]
pub struct AdminAct {
    /// Who and why.
    pub by: Administrator,
    /// The request that asked for it.
    pub request: RequestId,
    /// Whose wallet.
    pub user: UserId,
    /// What was done.
    pub deed: Deed,
    /// How much.
    pub amount: i64,
    /// The line that says so.
    pub transaction: TransactionId,
}

/// What an administrator does to a purchase, or to what is for sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SalesDeed<'a> {
    /// Money of a purchase goes back.
    PurchaseRefunded {
        /// To whom.
        user: &'a UserId,
        /// Of which purchase.
        purchase: &'a str,
        /// How much, in the smallest unit of its currency.
        amount_cents: i64,
    },
    /// A package is made, or has a new version.
    PackageChanged {
        /// Which.
        package: &'a str,
    },
}

/// Port: writes down what administrators did, inside the transaction that does it. If it can't be written down, or if who asked
/// administrates no longer, it is not done.
pub trait AdminLog: Send + Sync + std::fmt::Debug {
    /// Goes on only if who asks administrates still, and until the transaction ends. Before anything else is locked.
    fn hold_office<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        by: &'a Administrator,
    ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>>;

    /// Writes down what was done by whoever has held the office since before.
    fn record_sale<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        by: &'a Administrator,
        deed: SalesDeed<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>>;

    /// Called once for a batch that has any, behind the wallets' locks.
    fn record<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        acts: &'a [AdminAct],
    ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>>;
}

/// [`Credits`], shared by all requests.
#[derive(Debug, Clone)]
pub struct CreditsState(pub Arc<Credits>);

impl Deref for CreditsState {
    type Target = Credits;

    fn deref(&self) -> &Credits {
        &self.0
    }
}

impl FromRef<CreditsState> for Arc<dyn Authenticate> {
    fn from_ref(state: &CreditsState) -> Self {
        Self::clone(&state.authenticate)
    }
}

impl FromRef<CreditsState> for Arc<dyn AuthenticateService> {
    fn from_ref(state: &CreditsState) -> Self {
        Self::clone(&state.authenticate_service)
    }
}
