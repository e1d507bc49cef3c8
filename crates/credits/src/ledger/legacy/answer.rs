//! What is answered to a spend of the older service whose request comes again.

use super::model::OldLine;
use crate::idempotency::{ANY_REQUEST, Answer, RequestKey};
use crate::ledger::batch::Outcome;
use crate::ledger::charge::Metadata;
use crate::ledger::record::AnswerRecord;
use crate::ledger::spend::{SpendRequest, SpendResponse};
use http::StatusCode;
use mana_kernel::{Amount, Line, Paragraph};
use serde_json::Value;
use time::OffsetDateTime;

/// The answer under the key of the user, and of an app that charged the user: a line does not say who asked. None for a line that
/// has no key, or whose request could not be one here. It is remembered as from `now` on, however old the line is: clients that kept
/// its request while the services changed places get it.
pub(super) fn answers(
    line: &OldLine,
    outcome: &Outcome<'_>,
    now: OffsetDateTime,
) -> Option<Vec<AnswerRecord>> {
    let (key, posted) = (line.key()?, outcome.effects.transactions.first()?);
    let answer = Answer::json(StatusCode::CREATED, &SpendResponse::of(outcome).ok()?).ok()?;
    let request = SpendRequest {
        amount: Amount::try_from(0_i64.checked_sub(posted.amount)?).ok()?,
        app_id: Line::try_from(posted.note.app_id.clone()).ok()?,
        description: Paragraph::try_from(posted.note.description.clone()).ok()?,
        idempotency_key: None,
        metadata: match line.metadata.clone() {
            Some(Value::Object(members)) => Some(Metadata::try_from(members).ok()?),
            _ => None,
        },
        user_id: None,
        dry_run: false,
    };
    let is_known = line.metadata.as_ref().is_none_or(has_one_order);
    let scopes = ["user".to_owned(), format!("service {}", posted.note.app_id)];
    let records = scopes.iter().map(|scope| {
        let named = RequestKey::new(scope, &key, "credits.use", &request).ok()?;
        Some(AnswerRecord {
            wallet_id: outcome.wallet.id.0,
            key_digest: named.key.0,
            request_digest: if is_known { named.request } else { ANY_REQUEST }.to_vec(),
            status: answer.status_number(),
            body: answer.body().to_owned(),
            created_at: now,
        })
    });
    records.collect()
}

/// Whether nothing in it could have stood in another order: what the older database kept of that is its own.
fn has_one_order(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.len() <= 1 && members.values().all(has_one_order),
        Value::Array(values) => values.iter().all(has_one_order),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}
