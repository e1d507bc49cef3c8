//! What the credits keep of a person, list by list, for the person's own export.

use crate::ledger::store as ledger;
use crate::ledger::transactions::TransactionResponse;
use crate::{auto_top_up, purchase};
use mana_kernel::UserId;
use mana_platform::DbError;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;

/// Names of the lists.
pub const LISTS: &[&str] = &[
    "wallet",
    "transactions",
    "usage",
    "holds",
    "purchases",
    "refunds",
    "disputes",
    "stripeCustomers",
    "autoTopUp",
];

/// Rows of a page at most.
const ROWS: i64 = 500;

/// A part of a list.
#[derive(Debug, Default)]
pub struct Page {
    /// As the person reads them.
    pub rows: Vec<Value>,
    /// Where it ended, if there may be more.
    pub next: Option<String>,
}

impl Page {
    fn of<Row: Serialize>(rows: &[Row], last: Option<String>) -> Self {
        let is_full = i64::try_from(rows.len()).is_ok_and(|length| length >= ROWS);
        let rows = rows.iter().map(|row| serde_json::to_value(row).unwrap_or_default()).collect();
        Self { rows, next: last.filter(|_| is_full) }
    }
}

/// A page of a list, from where the page before it ended; nothing of a list that there is not.
///
/// # Errors
/// When the database fails.
pub async fn page(
    connection: &mut PgConnection,
    user: &UserId,
    list: &str,
    after: Option<&str>,
) -> Result<Page, DbError> {
    match list {
        "wallet" => Ok(Page::of(&ledger::list_wallet(connection, user).await?, None)),
        "transactions" => {
            let before = after.and_then(|sequence| sequence.parse().ok());
            let rows = ledger::list_transactions(connection, user, before, 0, ROWS).await?;
            let end = rows.last().map(|row| row.sequence.to_string());
            let lines: Vec<_> = rows.into_iter().map(|row| TransactionResponse::of_row(row, user)).collect();
            Ok(Page::of(&lines, end))
        }
        "usage" => {
            let after = after.and_then(ledger::UsageExport::read_place);
            let rows = ledger::list_usage(connection, user, after, ROWS).await?;
            let end = rows.last().map(ledger::UsageExport::place);
            Ok(Page::of(&rows, end))
        }
        "holds" => {
            let after = after.and_then(|id| id.parse().ok()).unwrap_or_default();
            let rows = ledger::list_holds(connection, user, after, ROWS).await?;
            let end = rows.last().map(|row| row.id.to_string());
            Ok(Page::of(&rows, end))
        }
        "purchases" => {
            let rows = purchase::store::list_after(connection, user, after.unwrap_or_default(), ROWS).await?;
            let end = rows.last().map(|row| row.id.clone());
            Ok(Page::of(&rows, end))
        }
        "refunds" => {
            let rows =
                purchase::store::list_refunds_of(connection, user, after.unwrap_or_default(), ROWS).await?;
            let end = rows.last().map(|row| row.id.clone());
            Ok(Page::of(&rows, end))
        }
        "disputes" => {
            let rows =
                purchase::store::list_disputes_of(connection, user, after.unwrap_or_default(), ROWS).await?;
            let end = rows.last().map(|row| row.id.clone());
            Ok(Page::of(&rows, end))
        }
        "stripeCustomers" => Ok(Page::of(&purchase::store::list_customers(connection, user).await?, None)),
        "autoTopUp" => Ok(Page::of(&auto_top_up::list(connection, user).await?, None)),
        _ => Ok(Page::default()),
    }
}
