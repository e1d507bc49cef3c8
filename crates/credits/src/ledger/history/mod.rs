//! Balances of the past, from the transactions and holds themselves. What is asked once never changes.

mod store;

pub(super) use store::{PastBalance, find_past_balance};

use time::Duration;

/// A moment is over for all servers after this: none of them stamps a change with an earlier time, as far as their clocks
/// agree to that.
pub(super) const SETTLED_AFTER: Duration = Duration::seconds(10);
