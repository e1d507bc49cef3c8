//! What requests that charge a wallet have in common: who pays, who asks, and what the line will say.

use super::batch::{Actor, Order, Outcome, Render};
use super::error::{LedgerError, NO_SUCH_USER};
use super::model::{Command, Note, Transaction, Wallet};
use super::transactions::TransactionResponse;
use crate::idempotency::{self, Answer, IdempotencyKey, RequestKey};
use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use mana_kernel::{Paragraph, RequestId, UserId};
use mana_platform::http::{ApiError, Principal, Scope, ServiceCaller, codes, current_request_id};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, Type};

/// A JSON object of at most 8 KiB, kept in the order given: values, not spellings.
#[derive(Debug, Deserialize, Serialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct Metadata(Map<String, Value>);

impl TryFrom<Map<String, Value>> for Metadata {
    type Error = &'static str;

    fn try_from(members: Map<String, Value>) -> Result<Self, &'static str> {
        let is_small = serde_json::to_string(&members).is_ok_and(|text| text.len() <= 8192);
        if is_small { Ok(Self(members)) } else { Err("must be at most 8192 bytes of JSON") }
    }
}

impl utoipa::PartialSchema for Metadata {
    fn schema() -> RefOr<Schema> {
        // In 8192 bytes: two braces, and six bytes a member.
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .max_properties(Some(1365))
            .description(Some(
                "At most 8 KiB of JSON. Members keep their order. Numbers keep their value and not their spelling: `1e3` comes back as `1000.0`, a fraction \
                 of more digits than a double holds as the double next to it; send what has to come back to the letter as a string.",
            ))
            .into()
    }
}

impl utoipa::ToSchema for Metadata {}

/// Whose wallet a request is about, and who asks.
#[derive(Debug)]
pub(super) struct Payer {
    pub(super) user: UserId,
    /// The app that lines name.
    pub(super) app_id: String,
    actor: Actor,
}

impl Payer {
    /// The caller's own wallet; with a service key that has `scope`, that of the user it names. `app_id` is what the request says.
    pub(super) fn of(
        principal: Principal,
        named: Option<UserId>,
        scope: Scope,
        app_id: &str,
    ) -> Result<Self, ApiError> {
        match principal {
            Principal::User(caller) => {
                if named.is_some_and(|named| named != caller.user_id) {
                    return Err(ApiError::new(&NO_SUCH_USER));
                }
                let user = caller.user_id.clone();
                Ok(Self { user, app_id: app_id.to_owned(), actor: Actor::Session(caller) })
            }
            Principal::Service(service) => {
                let user = named.ok_or_else(|| {
                    ApiError::new(&codes::INVALID_BODY).with_detail("userId is required with a service key")
                })?;
                Self::of_service(&service, user, scope, app_id)
            }
        }
    }

    /// The wallet of the user that a service names.
    pub(super) fn of_service(
        service: &ServiceCaller,
        user: UserId,
        scope: Scope,
        app_id: &str,
    ) -> Result<Self, ApiError> {
        service.require(scope)?;
        let app_id = service.app_of(app_id).to_owned();
        Ok(Self { user, app_id, actor: Actor::Service(service.key_id.clone()) })
    }

    /// What a line of the history will say.
    pub(super) fn note(
        &self,
        description: Paragraph<1, 1000>,
        metadata: Option<&Metadata>,
        key: Option<&IdempotencyKey>,
    ) -> Result<Note, LedgerError> {
        Ok(Note {
            app_id: self.app_id.clone(),
            description: description.into(),
            metadata: metadata.map(serde_json::to_string).transpose()?,
            idempotency_key: key.map(|key| key.as_str().to_owned()),
            service_key_id: self.actor.key().map(str::to_owned),
        })
    }

    /// The same, from what is in the database already.
    pub(super) fn note_of(
        &self,
        description: &str,
        metadata: Option<String>,
        key: Option<&IdempotencyKey>,
    ) -> Note {
        Note {
            app_id: self.app_id.clone(),
            description: description.to_owned(),
            metadata,
            idempotency_key: key.map(|key| key.as_str().to_owned()),
            service_key_id: self.actor.key().map(str::to_owned),
        }
    }

    /// The key of a request, in the scope of the user, or of the app that acts on the user.
    pub(super) fn request_key(
        &self,
        key: Option<&IdempotencyKey>,
        operation: &str,
        request: &impl Serialize,
    ) -> Result<Option<RequestKey>, LedgerError> {
        let scope = match &self.actor {
            Actor::Service(_) => format!("service {}", self.app_id),
            Actor::Session(_) | Actor::Admin(_) => "user".to_owned(),
        };
        Ok(key.map(|key| RequestKey::new(&scope, key, operation, request)).transpose()?)
    }

    /// The order to do `command` to the wallet.
    pub(super) fn order(
        self,
        context: RequestContext,
        command: Command,
        key: Option<RequestKey>,
        render: Render,
    ) -> Order {
        Order {
            user: self.user,
            actor: self.actor,
            key,
            if_version: None,
            request: context.id,
            command: Some(command),
            is_dry_run: false,
            render,
        }
    }
}

/// What an order needs of the request that gives it.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub(super) id: RequestId,
    headers: HeaderMap,
}

impl RequestContext {
    /// The idempotency key, from the header or the body.
    pub(super) fn key(&self, in_body: Option<IdempotencyKey>) -> Result<Option<IdempotencyKey>, ApiError> {
        idempotency::key_of(&self.headers, in_body)
    }

    /// The same request, without the key in its header: it would name each of many.
    pub(super) fn without_key(&self) -> Self {
        Self { id: self.id.clone(), headers: HeaderMap::new() }
    }

    /// Of no request, for whoever may use the command line.
    pub(super) fn of_operator(id: RequestId) -> Self {
        Self { id, headers: HeaderMap::new() }
    }

    /// The version that the wallet must have (RFC 9110, section 13.1.1); any if it says so or nothing.
    pub(super) fn if_version(&self) -> Result<Option<i64>, ApiError> {
        let refuse = || {
            let detail = "If-Match must be one ETag of a balance, or *";
            ApiError::new(&codes::INVALID_HEADER).with_detail(detail)
        };
        let mut values = self.headers.get_all(header::IF_MATCH).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let text = value.to_str().ok().filter(|_| values.next().is_none()).ok_or_else(refuse)?.trim();
        if text == "*" {
            return Ok(None);
        }
        read_etag(text).map(Some).ok_or_else(refuse)
    }
}

/// The version that an entity tag of a balance names, in its one spelling: such tags are compared byte for byte.
fn read_etag(text: &str) -> Option<i64> {
    let version: i64 = text.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
    (version >= 0 && format!("\"{version}\"") == text).then_some(version)
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let id = current_request_id().ok_or_else(|| ApiError::new(&codes::INTERNAL))?;
        Ok(Self { id, headers: parts.headers.clone() })
    }
}

/// The wallet after a charge.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewBalance {
    /// Paid mana that can be spent.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    balance: i64,
    /// Free mana that can be spent.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    free_credits_remaining: i64,
    /// Spent so far, less what was given back.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    total_spent: i64,
    /// Set aside by open holds.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    held_credits: i64,
}

impl NewBalance {
    pub(super) fn of(wallet: &Wallet) -> Result<Self, serde_json::Error> {
        let totals = wallet.spendable(wallet.changed_at).map_err(serde::ser::Error::custom)?;
        Ok(Self {
            balance: totals.paid.get(),
            free_credits_remaining: totals.free.get(),
            total_spent: wallet.total_spent.get(),
            held_credits: totals.held.get(),
        })
    }
}

/// A line that was written, and what is in the wallet now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PostedResponse {
    success: bool,
    /// What was written, as one: of a refund in several lines the first one's id, the amount of all, and the balance after the last.
    transaction: TransactionResponse,
    /// The lines one by one, as the history has them. Absent unless there are several: a refund of several spends, or one that revives mana of
    /// two sorts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 300)]
    transactions: Vec<TransactionResponse>,
    new_balance: NewBalance,
}

/// The answer to a command whose first line says it all, with those that continue it.
pub(super) fn posted(outcome: &Outcome<'_>) -> Result<Answer, serde_json::Error> {
    let lines = &outcome.effects.transactions;
    let line = lines.first().ok_or_else(|| serde::ser::Error::custom("a command that posted nothing"))?;
    let parts: Vec<&Transaction> = lines.iter().take_while(|part| part.kind == line.kind).collect();
    let mut whole = line.clone();
    whole.amount = parts.iter().fold(0, |sum, part| part.amount.saturating_add(sum));
    whole.balance_after = parts.last().map_or(line.balance_after, |last| last.balance_after);
    let shown = if parts.len() > 1 { parts } else { Vec::new() };
    let each = shown.into_iter().map(|part| TransactionResponse::of_posting(part, outcome.user));
    let response = PostedResponse {
        success: true,
        transaction: TransactionResponse::of_posting(&whole, outcome.user)?,
        transactions: each.collect::<Result<_, _>>()?,
        new_balance: NewBalance::of(outcome.wallet)?,
    };
    Answer::json(StatusCode::CREATED, &response)
}

/// Counts what became of a command.
pub(super) fn count(command: &'static str, answer: &Answer) {
    metrics::counter!("ledger_commands_total", "command" => command, "outcome" => answer.outcome())
        .increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_etag_has_one_spelling() {
        assert_eq!(read_etag("\"5\""), Some(5));
        for other in [
            "5",
            "\"05\"",
            "\"+5\"",
            "\" 5\"",
            "\"-5\"",
            "\"\"",
            "\"",
            "W/\"5\"",
            "\"5\",\"6\"",
            "\"9223372036854775808\"",
        ] {
            assert_eq!(read_etag(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn an_etag_reads_back_and_nothing_else_is_read(version in 0_i64.., text in "\"?[+0-9 -]{0,21}\"?|\\PC{0,24}") {
            prop_assert_eq!(read_etag(&format!("\"{version}\"")), Some(version));
            if let Some(version) = read_etag(&text) {
                prop_assert_eq!(format!("\"{version}\""), text);
            }
        }
    }
}
