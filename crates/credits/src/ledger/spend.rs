//! `POST /api/v1/credits/use`: an app charges a wallet.

use super::batch::{Order, Outcome};
use super::charge::{Metadata, NewBalance, Payer, RequestContext, count};
use super::model::{Charge, Command, GrantSource, Wallet};
use super::transactions::TransactionResponse;
use crate::CreditsState;
use crate::idempotency::{Answer, IdempotencyKey};
use axum::extract::State;
use http::StatusCode;
use mana_kernel::{Amount, Line, Paragraph, UserId};
use mana_platform::http::{ApiError, Principal, ProblemBody, Scope, Valid};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// What to charge, and for what.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"amount": 10, "appId": "chat", "description": "A long answer"})))]
pub(crate) struct SpendRequest {
    /// Mana to take.
    pub(super) amount: Amount,
    /// The app that charges. With a service key of one app, or with `X-App-Id`, it is that, whatever this says.
    pub(super) app_id: Line<1, 128>,
    /// What the person reads in the list of transactions.
    pub(super) description: Paragraph<1, 1000>,
    /// Name of this request: sent again under the same name, it is answered again and charged once. The
    /// `Idempotency-Key` header does the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idempotency_key: Option<IdempotencyKey>,
    /// Anything the app wants to find again.
    pub(super) metadata: Option<Metadata>,
    /// Whom to charge; for service keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    pub(super) user_id: Option<UserId>,
    /// Answers what would happen, and changes nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) dry_run: bool,
}

/// What was charged, and what is left.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SpendResponse {
    success: bool,
    transaction: TransactionResponse,
    new_balance: NewBalance,
    /// What it was taken from, in this order.
    #[schema(max_items = 200)]
    slices: Vec<SliceResponse>,
}

/// A part of a charge.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SliceResponse {
    /// Names the grant within its wallet.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    grant: i64,
    /// Where the mana came from.
    source: GrantSource,
    /// How much of it.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    amount: i64,
    /// When the rest of the grant expires; null if never.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
}

/// Spends mana
///
/// Free mana goes before paid, and what expires soonest goes first. With an idempotency key the outcome is remembered, a
/// refusal too, and the same request gets the same bytes again. With `If-Match`, nothing is charged if the balance has
/// changed since its `ETag` was read. A service key (scope `credits:spend`) charges the user it names; the same is at
/// `/api/v1/internal/credits/use`.
#[utoipa::path(
    post, path = "/api/v1/credits/use", tag = "credits",
    request_body = SpendRequest,
    params(
        ("If-Match" = Option<String>, Header, description = "`ETag` of the balance that this was decided on, or *", pattern = r#"^("[0-9]{1,19}"|\*)$"#, max_length = 21),
    ),
    responses(
        (status = 201, description = "Charged", body = SpendResponse),
        (status = 400, description = "Not enough mana, or a body that does not fit", body = ProblemBody),
        (status = 404, description = "A service key names a user who does not exist", body = ProblemBody),
        (status = 409, description = "The account is closed, or disabled and a service key charges", body = ProblemBody),
        (status = 412, description = "The balance has changed", body = ProblemBody),
        (status = 422, description = "The key was used for another request", body = ProblemBody),
    ),
    security(("bearer" = []), ("serviceKey" = [])),
)]
pub(crate) async fn spend(
    State(credits): State<CreditsState>,
    principal: Principal,
    context: RequestContext,
    Valid(request): Valid<SpendRequest>,
) -> Result<Answer, ApiError> {
    let if_version = context.if_version()?;
    let order = order(principal, context, request)?;
    let answer = credits.ledger.submit(Order { if_version, ..order }).await?;
    count("spend", &answer);
    Ok(answer)
}

/// The order that a request is.
pub(super) fn order(
    principal: Principal,
    context: RequestContext,
    mut request: SpendRequest,
) -> Result<Order, ApiError> {
    let key = context.key(request.idempotency_key.take())?;
    let user = request.user_id.take();
    let payer = Payer::of(principal, user, Scope::CreditsSpend, request.app_id.as_str())?;
    let is_dry_run = request.dry_run;
    let request_key = payer.request_key(key.as_ref(), "credits.use", &request)?;
    let note = payer.note(request.description, request.metadata.as_ref(), key.as_ref())?;
    let command = Command::Spend(Charge { amount: request.amount, note });
    let order = payer.order(context, command, request_key.filter(|_| !is_dry_run), charged);
    Ok(Order { is_dry_run, ..order })
}

fn charged(outcome: &Outcome<'_>) -> Result<Answer, serde_json::Error> {
    Answer::json(StatusCode::CREATED, &SpendResponse::of(outcome)?)
}

impl SpendResponse {
    /// Of an outcome that charged.
    pub(super) fn of(outcome: &Outcome<'_>) -> Result<Self, serde_json::Error> {
        let charge = outcome.effects.transactions.first();
        let charge = charge.ok_or_else(|| serde::ser::Error::custom("a charge without a transaction"))?;
        let slice = |change: &super::model::Change| {
            let grants =
                |wallet: &Wallet| wallet.grants.iter().find(|grant| grant.sequence == change.grant).cloned();
            let grant = grants(outcome.before).or_else(|| grants(outcome.wallet))?;
            Some(SliceResponse {
                grant: change.grant,
                source: grant.terms.source,
                amount: 0_i64.saturating_sub(change.amount),
                expires_at: grant.terms.expires_at,
            })
        };
        Ok(Self {
            success: true,
            transaction: TransactionResponse::of_posting(charge, outcome.user)?,
            new_balance: NewBalance::of(outcome.wallet)?,
            slices: charge.slices.iter().filter_map(slice).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_stands_for_is_what_is_asked_and_no_more() {
        let body = r#"{"amount": 10, "appId": "chat", "description": "An answer", "idempotencyKey": "k", "userId": "ada", "dryRun": false}"#;
        let mut request: SpendRequest = serde_json::from_str(body).unwrap();
        assert!(request.idempotency_key.take().is_some() && request.user_id.take().is_some());
        // To the byte: requests are remembered by a hash of it, over versions of the service.
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"amount":10,"appId":"chat","description":"An answer","metadata":null}"#
        );
    }
}
