//! Stripe, as far as this service speaks with it: calls with a time limit and a key of their own, and signatures of what it
//! sends. Why there is no client library: docs/decisions/0027.

pub mod client;
pub mod object;
pub mod signature;

pub use client::{Stripe, StripeError};
