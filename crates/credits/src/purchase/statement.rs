//! What was paid and what the books made of it, currency by currency.

use serde::Serialize;

/// All payments in a currency.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatementLine {
    /// The currency.
    pub currency: String,
    /// Whether it is real money.
    pub livemode: bool,
    /// Orders that money came in for.
    pub orders: i64,
    /// Came in.
    pub captured_cents: i64,
    /// Went back, or is about to.
    pub refunded_cents: i64,
    /// Was charged back for good.
    pub lost_cents: i64,
    /// Mana that was given.
    pub granted_mana: i64,
    /// Mana that was taken back.
    pub taken_mana: i64,
    /// Mana that is owed because it was spent.
    pub owed_mana: i64,
    /// Mana that should be given, less what should be taken back or owed.
    pub expected_mana: i64,
}

impl StatementLine {
    /// Whether the books made of it what they should.
    pub fn is_balanced(&self) -> bool {
        let kept = self.granted_mana.saturating_sub(self.taken_mana).saturating_sub(self.owed_mana);
        kept == self.expected_mana
    }
}
