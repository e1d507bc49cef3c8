//! The second factor: who needs one, and sign-ins that wait for it. Owns `auth.two_factor_auth`, `auth.recovery_codes`,
//! `auth.pending_sign_ins` and `auth.trusted_devices`.

mod challenge;
pub(crate) mod model;
pub(crate) mod store;

pub(crate) use challenge::{Challenge, Judgement, SecondFactorRequired, judge};
