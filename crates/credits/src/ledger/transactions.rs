//! `GET /api/v1/credits/transactions`: the caller's history, newest first.

use super::model::Transaction;
use super::store::{self, TransactionRow};
use crate::CreditsState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use mana_kernel::{TransactionId, UserId};
use mana_platform::http::cursor::{self, next_link};
use mana_platform::http::{ApiError, Caller, Parameters, within};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

const MAX_LIMIT: i64 = 500;
/// Skipping rows costs as much as reading them; beyond this, a cursor does it for nothing.
const MAX_OFFSET: i64 = 10_000;

/// A line of the history.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TransactionResponse {
    #[schema(value_type = String, format = "uuid")]
    id: TransactionId,
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    user_id: UserId,
    /// purchase, usage, refund, bonus, expiry or adjustment.
    #[schema(max_length = 16)]
    r#type: &'static str,
    /// Always `completed`: what is in the ledger has happened.
    #[schema(max_length = 16)]
    status: &'static str,
    /// Change of the balance; spends are negative.
    #[schema(minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64)]
    amount: i64,
    /// Everything in the wallet before, what is set aside included.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    balance_before: i64,
    /// Everything in the wallet after.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    balance_after: i64,
    #[schema(max_length = 128)]
    app_id: String,
    #[schema(max_length = 1000)]
    description: String,
    /// Null unless an organisation's wallet was charged.
    #[schema(min_length = 1, max_length = 64)]
    organization_id: Option<String>,
    /// What was given with the spend.
    #[schema(value_type = Option<super::Metadata>)]
    metadata: Option<Value>,
    #[schema(max_length = 255)]
    idempotency_key: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    completed_at: OffsetDateTime,
}

impl TransactionResponse {
    /// Of a transaction that is being written.
    pub(super) fn of_posting(transaction: &Transaction, user: &UserId) -> Result<Self, serde_json::Error> {
        let note = &transaction.note;
        let row = TransactionRow {
            sequence: transaction.sequence,
            id: transaction.id,
            kind: transaction.kind,
            amount: transaction.amount,
            balance_after: transaction.balance_after.get(),
            app_id: note.app_id.clone(),
            description: note.description.clone(),
            metadata: note.metadata.as_deref().map(serde_json::from_str).transpose()?,
            idempotency_key: note.idempotency_key.clone(),
            created_at: transaction.at,
        };
        Ok(Self::of_row(row, user))
    }

    pub(crate) fn of_row(row: TransactionRow, user: &UserId) -> Self {
        Self {
            id: row.id,
            user_id: user.clone(),
            r#type: row.kind.as_str(),
            status: "completed",
            amount: row.amount,
            balance_before: row.balance_after.saturating_sub(row.amount),
            balance_after: row.balance_after,
            app_id: row.app_id,
            description: row.description,
            organization_id: None,
            metadata: row.metadata,
            idempotency_key: row.idempotency_key,
            created_at: row.created_at,
            completed_at: row.created_at,
        }
    }
}

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParameters {
    /// Lines a page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<i64>,
    /// Lines to skip; for older clients. `cursor` reaches any depth.
    #[param(minimum = 0, maximum = 10000, default = 0)]
    offset: Option<i64>,
    /// Where the last page ended: as in its `Link` header.
    #[param(max_length = 64)]
    cursor: Option<String>,
}

/// The history
///
/// Newest first. A full page has a `Link` header with `rel="next"`, whose cursor continues after it.
#[utoipa::path(
    get, path = "/api/v1/credits/transactions", tag = "credits",
    params(PageParameters),
    responses((status = 200, description = "A page", body = Vec<TransactionResponse>)),
    security(("bearer" = [])),
)]
pub(crate) async fn transactions(
    State(credits): State<CreditsState>,
    caller: Caller,
    Parameters(page): Parameters<PageParameters>,
) -> Result<Response, ApiError> {
    let limit = within(page.limit.unwrap_or(50), 1, MAX_LIMIT, "limit")?;
    let offset = within(page.offset.unwrap_or(0), 0, MAX_OFFSET, "offset")?;
    let before = page.cursor.as_deref().map(read_cursor).transpose()?;

    let mut transaction = credits.database.begin_as(&caller.user_id).await?;
    let rows = store::list_transactions(&mut transaction, &caller.user_id, before, offset, limit).await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|length| length == limit);
    let next = rows.last().filter(|row| is_full && row.sequence > 1).map(|row| {
        let limit = limit.to_string();
        next_link("/api/v1/credits/transactions", &[("limit", Some(&limit))], &row.sequence.to_be_bytes())
    });
    let lines: Vec<_> =
        rows.into_iter().map(|row| TransactionResponse::of_row(row, &caller.user_id)).collect();
    Ok((next, Json(lines)).into_response())
}

/// The line that a cursor names.
fn read_cursor(text: &str) -> Result<i64, ApiError> {
    let bytes = <[u8; 8]>::try_from(cursor::read_cursor(text)?).ok();
    bytes.map(i64::from_be_bytes).filter(|sequence| *sequence > 0).ok_or_else(cursor::not_a_cursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write_cursor(sequence: i64) -> String {
        cursor::write_cursor(&sequence.to_be_bytes())
    }

    #[test]
    fn a_cursor_reads_back_and_a_tampered_one_does_not() {
        for sequence in [1, 42, i64::MAX] {
            assert_eq!(read_cursor(&write_cursor(sequence)).unwrap(), sequence);
        }
        for bad in [
            "",
            "x",
            "AAAA",
            &write_cursor(0),
            &write_cursor(-1),
            &format!("{}A", write_cursor(1)),
            "' OR 1=1",
        ] {
            assert!(read_cursor(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_has_one_spelling(sequence in 1_i64.., at in 0_usize..11, letter in "[ -~]") {
            let cursor = write_cursor(sequence);
            prop_assert_eq!(read_cursor(&cursor).unwrap(), sequence);
            let mut other = cursor.clone();
            other.replace_range(at..=at, &letter);
            prop_assert!(other == cursor || read_cursor(&other).map_or(true, |read| read != sequence), "{other}");
        }

        #[test]
        fn what_is_read_as_a_cursor_was_written_as_one(text in "[A-Za-z0-9_=+/-]{0,14}|\\PC{0,20}") {
            if let Ok(sequence) = read_cursor(&text) {
                prop_assert!(sequence > 0);
                prop_assert_eq!(write_cursor(sequence), text);
            }
        }
    }
}
