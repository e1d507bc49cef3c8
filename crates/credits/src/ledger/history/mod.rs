//! Balances of the past, from the transactions and holds themselves. What is asked once never changes.

mod store;

pub(super) use store::{PastBalance, find_past_balance};

use time::Duration;

/// A moment is over for all servers after this: none of them commits a change with an earlier time any more. A batch has its time
/// before it waits for locks, may take 12 seconds, and its COMMIT may arrive when its connection has been silent for 8 more; the rest
/// is for clocks that differ. Whoever else posts reads the time once the wallet is locked, and then waits for locks and for its COMMIT no longer.
pub(super) const SETTLED_AFTER: Duration = Duration::seconds(30);
