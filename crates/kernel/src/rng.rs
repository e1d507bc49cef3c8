//! Randomness as an argument.

/// Where randomness comes from. Production asks the operating system, tests use a seed.
///
/// Every implementation outside tests must be cryptographically secure: secrets are made from it.
pub trait Rng: Send + Sync + std::fmt::Debug {
    /// Fills `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]);
}
