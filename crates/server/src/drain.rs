//! Whether the server is about to stop, told to load balancers before it takes no more connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One for a server. Once begun, it does not end.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<AtomicBool>);

impl Drain {
    /// From now on, the server takes no more requests from who asks first, and no connection is kept for another request.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
