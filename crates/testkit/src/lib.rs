//! What tests share: a database per test on a real PostgreSQL, a clock to move, and a client that
//! speaks to a router without a socket.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that can't be set up must fail loudly; this crate is never part of the product"
)]

mod authenticator;
mod client;
mod clock;
mod database;
mod day;
mod pooler;
mod redis;

pub use authenticator::{Algorithm, Authenticator, Ceremony, Created, Signed, attestation_object};
pub use client::{Client, OpenReply, Reply, Request};
pub use clock::{FakeClock, FakeSteadyClock};
pub use database::TestDatabase;
pub use day::begin_with_time_left_today;
pub use pooler::keeps_statements_apart;
pub use redis::RedisServer;
