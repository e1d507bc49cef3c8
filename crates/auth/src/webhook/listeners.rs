//! Whether anybody listens, as far as is known without asking: the ledger asks of every spend.
//!
//! What was read counts for five seconds. After that, as at the start, everything is wanted, and the statement that writes events finds out
//! who wants them: a server that can't look asks more, and forgets nobody. So an endpoint hears of every spend from five seconds after it
//! was added, and at once of those at the server that added it.

use super::store;
use crate::Auth;
use mana_kernel::SteadyClock;
use mana_platform::DbError;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// How long what was read counts.
const TRUST: Duration = Duration::from_secs(5);

/// Which apps hear of spends.
#[derive(Debug)]
pub struct Listeners {
    known: RwLock<Known>,
    clock: Arc<dyn SteadyClock>,
}

#[derive(Debug, Default)]
struct Known {
    /// Until when it counts.
    until: Duration,
    /// By app, the smallest spend that it hears of.
    spent_from: HashMap<String, i64>,
}

impl Listeners {
    /// Nothing is known yet.
    pub fn new(clock: Arc<dyn SteadyClock>) -> Self {
        Self { known: RwLock::default(), clock }
    }

    /// Whether somebody may want to hear of a spend.
    pub fn may_want(&self, app: &str, amount: i64) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        self.clock.elapsed() >= known.until || known.spent_from.get(app).is_some_and(|from| amount >= *from)
    }

    /// Asks who listens.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn learn(&self, auth: &Auth) -> Result<(), DbError> {
        // From the beginning of the look on: what is added meanwhile may be missing from it.
        let until = self.clock.elapsed().saturating_add(TRUST);
        let spent_from = store::list_spent_from(&mut *auth.database.acquire().await?).await?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known { until, spent_from };
        Ok(())
    }

    /// Forgets what it knew: there is another endpoint.
    pub(super) fn forget(&self) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known::default();
    }
}
