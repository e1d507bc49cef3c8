//! Time as an argument.

use time::OffsetDateTime;

/// Where the time comes from. Production reads the machine's clock, tests move a hand.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The current instant, in UTC.
    fn now(&self) -> OffsetDateTime;
}

/// How much time passes, whatever becomes of the date: never steps, and goes on while the machine is suspended.
pub trait SteadyClock: Send + Sync + std::fmt::Debug {
    /// Time since a moment that stays the same for as long as the process runs.
    fn elapsed(&self) -> std::time::Duration;
}
