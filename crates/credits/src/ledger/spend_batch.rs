//! `POST /api/v1/credits/use/batch`: an app charges many times in one request.

use super::batch::Order;
use super::charge::{RequestContext, count};
use super::spend::{self, SpendRequest};
use crate::CreditsState;
use crate::idempotency::Answer;
use axum::Json;
use axum::extract::State;
use futures_util::future::{OptionFuture, join_all};
use mana_kernel::UserId;
use mana_platform::http::{ApiError, Principal, Valid};
use mana_platform::rate_limit::Weight;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use utoipa::openapi::Ref;
use utoipa::openapi::schema::{OneOfBuilder, Schema};

/// Charges of a request at most.
const MAX_COMMANDS: usize = 1000;
/// Charges that count as one request of the caller's limit.
const PER_REQUEST: usize = 10;
/// Charges of a user that wait at the same time: the others leave room for what else is asked of the wallet.
const AT_ONCE: usize = 128;

/// The largest body, in bytes.
pub(super) const BODY_LIMIT: usize = 1024 * 1024;

/// What to charge, one after the other for each user; users side by side.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"commands": [
    {"amount": 10, "appId": "chat", "description": "A long answer", "idempotencyKey": "answer-1"},
    {"amount": 2, "appId": "chat", "description": "A short answer", "idempotencyKey": "answer-2"},
]})))]
pub(crate) struct SpendBatchRequest {
    /// 1 to 1,000 charges, each as for `POST /api/v1/credits/use` and with a key of its own.
    commands: Commands,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(try_from = "Vec<SpendRequest>")]
#[schema(min_items = 1, max_items = 1000)]
struct Commands(Vec<SpendRequest>);

impl TryFrom<Vec<SpendRequest>> for Commands {
    type Error = &'static str;

    fn try_from(commands: Vec<SpendRequest>) -> Result<Self, &'static str> {
        if (1..=MAX_COMMANDS).contains(&commands.len()) {
            Ok(Self(commands))
        } else {
            Err("must have 1 to 1000 commands")
        }
    }
}

/// An answer for each charge, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SpendBatchResponse {
    #[schema(max_items = 1000)]
    results: Vec<SpendResult>,
}

fn charge_or_problem() -> Schema {
    ["SpendResponse", "Problem"]
        .into_iter()
        .fold(OneOfBuilder::new(), |either, name| either.item(Ref::from_schema_name(name)))
        .into()
}

/// What `POST /api/v1/credits/use` would have answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SpendResult {
    /// The HTTP status.
    #[schema(minimum = 200, maximum = 599)]
    status: u16,
    /// Whether it was answered before.
    replayed: bool,
    /// The body: of a charge, or of a problem.
    #[schema(schema_with = charge_or_problem)]
    body: Box<RawValue>,
}

/// Spends mana, many times
///
/// Each charge has its own outcome: some may be refused while others are made. Repeated with the same keys, nothing is
/// charged twice. Ten charges count as one request of the caller's limit; with fewer left, nothing is charged and the answer is 429.
#[utoipa::path(
    post, path = "/api/v1/credits/use/batch", tag = "credits",
    request_body = SpendBatchRequest,
    responses((status = 200, description = "An answer for each charge", body = SpendBatchResponse)),
    security(("bearer" = []), ("serviceKey" = [])),
)]
pub(crate) async fn spend_batch(
    State(credits): State<CreditsState>,
    principal: Principal,
    context: RequestContext,
    weight: Weight,
    Valid(request): Valid<SpendBatchRequest>,
) -> Result<Json<SpendBatchResponse>, ApiError> {
    let SpendBatchRequest { commands: Commands(commands) } = request;
    weight.count(u32::try_from(commands.len().div_ceil(PER_REQUEST)).unwrap_or(u32::MAX)).await?;
    let order = |charge| spend::order(principal.clone(), context.without_key(), charge);
    let orders: Vec<Result<Order, ApiError>> = commands.into_iter().map(order).collect();
    let users = orders.iter().flatten().map(|order| order.user.clone());
    let turns: HashMap<UserId, Semaphore> = users.map(|user| (user, Semaphore::new(AT_ONCE))).collect();
    let answers = join_all(orders.into_iter().map(async |order| {
        let order = order?;
        // Given in the order in which they were asked for.
        let turn = turns.get(&order.user).map(Semaphore::acquire);
        let _turn = OptionFuture::from(turn).await;
        Ok::<_, ApiError>(credits.ledger.submit(order).await?)
    }));
    let answers = answers.await;
    let results = answers.into_iter().map(|answer| result_of(answer, &context));
    let results = results.collect::<Result<_, _>>().map_err(super::error::LedgerError::from)?;
    Ok(Json(SpendBatchResponse { results }))
}

fn result_of(
    answer: Result<Answer, ApiError>,
    context: &RequestContext,
) -> Result<SpendResult, serde_json::Error> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => Answer::problem(&error, &context.id)?,
    };
    count("spend", &answer);
    let (status, replayed) = (answer.status().as_u16(), answer.is_replay());
    Ok(SpendResult { status, replayed, body: RawValue::from_string(answer.into_body())? })
}
