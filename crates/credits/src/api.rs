//! What the handlers of this crate share: the parts they work with, given to them by the server.

use axum::extract::FromRef;
use mana_kernel::{Amount, Clock, Problem, Rng};
use mana_platform::Database;
use mana_platform::http::{Authenticate, Caller};
use sqlx::PgConnection;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// The parts that the credits work with.
#[derive(Debug)]
pub struct Credits {
    /// PostgreSQL.
    pub database: Database,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Who knows the caller behind a bearer token.
    pub authenticate: Arc<dyn Authenticate>,
    /// Who knows whether a session still lives.
    pub session_guard: Arc<dyn SessionGuard>,
    /// Amounts and days.
    pub policy: Policy,
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

/// Port: whether a caller's session lives. Asked inside the transaction that spends, and held until its commit: a session
/// that was ended before spends nothing, and ending one waits for the spend that holds it.
pub trait SessionGuard: Send + Sync + std::fmt::Debug {
    /// True if the session lives; it can't be ended until `connection`'s transaction ends.
    fn hold_live<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        caller: &'a Caller,
    ) -> Pin<Box<dyn Future<Output = Result<bool, PortError>> + Send + 'a>>;
}

/// [`Credits`], shared by all requests.
#[derive(Debug, Clone)]
pub struct CreditsState(pub Arc<Credits>);

impl std::ops::Deref for CreditsState {
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
