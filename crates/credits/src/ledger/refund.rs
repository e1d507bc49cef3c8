//! `POST /api/v1/credits/refund`: an app gives back what it has charged.

use super::charge::{Metadata, Payer, PostedResponse, RequestContext, count, posted};
use super::model::Command;
use super::store;
use crate::idempotency::{Answer, IdempotencyKey};
use crate::{Credits, CreditsState};
use axum::extract::State;
use mana_kernel::{Amount, Line, Paragraph, TransactionId, UserId};
use mana_platform::http::{ApiError, ProblemBody, Scope, ServiceCaller, Valid};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What to give back.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"userId": "0198c9d2-7f6a-7c31-9d0e-3f6f0c2b8a11", "amount": 10, "appId": "chat", "description": "The answer was cut off"})))]
pub(crate) struct RefundRequest {
    /// To whom.
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    user_id: UserId,
    /// Mana to give back.
    amount: Amount,
    /// The app that gives it back. With a key of one app, or with `X-App-Id`, it is that, whatever this says.
    app_id: Line<1, 128>,
    /// What the person reads in the list of transactions.
    description: Paragraph<1, 1000>,
    /// The spend, by the `id` of its transaction. If absent, it is the app's newest spend of the user of which that much was not given back
    /// yet; if there is none, several are given back, the newest first.
    #[schema(value_type = Option<String>, format = "uuid")]
    transaction_id: Option<TransactionId>,
    /// Whether mana that has expired since comes back as mana that does not expire. Else it stays expired: the refund is booked,
    /// and so is its expiry.
    #[serde(default)]
    revive_expired: bool,
    /// Name of this request, as the `Idempotency-Key` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<IdempotencyKey>,
    /// Anything the app wants to find again.
    metadata: Option<Metadata>,
}

/// Gives a spend back
///
/// Whole or in parts, up to its amount; the mana goes back to the grants that it was taken from, the last taken first. For
/// service keys with the scope `credits:refund`, of what their own app charged. The same is at
/// `/api/v1/internal/credits/refund`.
#[utoipa::path(
    post, path = "/api/v1/credits/refund", tag = "credits",
    request_body = RefundRequest,
    responses(
        (status = 201, description = "Given back", body = PostedResponse),
        (status = 400, description = "More than is left of the spend, or a body that does not fit", body = ProblemBody),
        (status = 404, description = "No such user or spend", body = ProblemBody),
        (status = 409, description = "The account is closed", body = ProblemBody),
        (status = 422, description = "The key was used for another request", body = ProblemBody),
    ),
    security(("serviceKey" = [])),
)]
pub(crate) async fn refund(
    State(credits): State<CreditsState>,
    service: ServiceCaller,
    context: RequestContext,
    Valid(mut request): Valid<RefundRequest>,
) -> Result<Answer, ApiError> {
    let key = context.key(request.idempotency_key.take())?;
    let user = request.user_id.clone();
    let payer = Payer::of_service(&service, user, Scope::CreditsRefund, request.app_id.as_str())?;
    let request_key = payer.request_key(key.as_ref(), "credits.refund", &request)?;
    let note = payer.note(request.description, request.metadata.as_ref(), key.as_ref())?;
    let (amount, revives_expired) = (request.amount, request.revive_expired);
    let command = match request.transaction_id {
        Some(id) => {
            let spend = find_own(&credits, &payer, id).await?;
            Command::Refund { spend, amount: Some(amount), revives_expired, note }
        }
        None => Command::RefundNewest { amount, revives_expired, note },
    };
    let answer = credits.ledger.submit(payer.order(context, command, request_key, posted)).await?;
    count("refund", &answer);
    Ok(answer)
}

/// The spend that a request names, if it is one of this app and user. One that is not there is still an order: its key may have been
/// answered before.
async fn find_own(credits: &Credits, payer: &Payer, id: TransactionId) -> Result<i64, ApiError> {
    let mut connection = credits.database.acquire().await?;
    let found = store::find_spend(&mut connection, id).await?;
    let own = found.filter(|row| row.user_id == payer.user.as_str() && row.app_id == payer.app_id);
    Ok(own.map_or(0, |row| row.sequence))
}
