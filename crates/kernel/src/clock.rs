//! Time as an argument.

use time::OffsetDateTime;

/// Where the time comes from. Production reads the machine's clock, tests move a hand.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The current instant, in UTC.
    fn now(&self) -> OffsetDateTime;
}
