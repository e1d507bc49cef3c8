//! What was paid and what the books made of it, currency by currency and day by day.

use super::store;
use mana_platform::{Database, DbError};
use serde::Serialize;
use time::Date;

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

/// What the first comparison of a day came to.
#[derive(Debug, Serialize)]
pub struct DailyStatement {
    /// The day, of UTC.
    #[serde(serialize_with = "as_text")]
    pub day: Date,
    /// All payments until then, a line for each currency.
    pub lines: Vec<StatementLine>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn as_text<S: serde::Serializer>(day: &Date, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(day)
}

/// The statement of a day, or the last one; none if none was kept.
///
/// # Errors
/// When the database fails.
pub async fn find_statement(
    database: &Database,
    day: Option<Date>,
) -> Result<Option<DailyStatement>, DbError> {
    let mut connection = database.acquire().await?;
    let Some(day) = store::find_statement_day(&mut connection, day).await? else { return Ok(None) };
    let lines = store::list_statement(&mut connection, day).await?;
    Ok(Some(DailyStatement { day, lines }))
}
