//! Values and rules without I/O: typed ids, mana, time, randomness, secrets and the shape of an error.
//!
//! Nothing here opens a socket, reads a clock or knows of HTTP frameworks and databases, so everything here can be
//! driven by a test with exact inputs.

pub mod clock;
pub mod error;
pub mod id;
pub mod integer;
pub mod mana;
pub mod rng;
pub mod secret;
pub mod text;
pub mod timestamp;

pub use clock::{Clock, SteadyClock};
pub use error::{ErrorCode, FieldError, Kind, Problem, Shortfall};
pub use id::{HoldId, RefreshChainId, RequestId, SessionId, TransactionId, UserId};
pub use mana::{Amount, Mana};
pub use rng::Rng;
pub use text::{Line, Paragraph};
pub use timestamp::Timestamp;
