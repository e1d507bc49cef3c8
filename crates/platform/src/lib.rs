//! The one place that wires PostgreSQL, HTTP, configuration and telemetry. Knows nothing of accounts or
//! credits, but for the two tables on which `row_security` proves its policies.

pub mod config;
pub mod db;
pub mod embedded_postgres;
pub mod http;
pub mod mail;
pub mod migrate;
pub mod migration_plan;
pub mod outbound;
pub mod pooler;
pub mod prune;
pub mod rate_limit;
pub mod redis;
pub mod refusal;
pub mod row_security;
pub mod system;
pub mod telemetry;

pub use config::Settings;
pub use db::{BatchConnection, Database, DbError, hold_briefly, lost_a_race};
pub use outbound::Outbound;
pub use system::{SystemClock, SystemRng, SystemSteadyClock};
