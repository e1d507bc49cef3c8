//! `POST /api/v1/credits/holds/{id}/capture`: an app charges what it has set aside.

use super::{HoldResponse, find_own, text_of};
use crate::CreditsState;
use crate::idempotency::{Answer, IdempotencyKey};
use crate::ledger::batch::Outcome;
use crate::ledger::charge::{RequestContext, count};
use crate::ledger::model::Command;
use crate::ledger::spend::SpendResponse;
use axum::extract::{Path, State};
use http::StatusCode;
use mana_kernel::Amount;
use mana_platform::http::{ApiError, OptionalBody, Principal, ProblemBody};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How much to charge.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"amount": 20})))]
pub(crate) struct CaptureRequest {
    /// Mana to charge; all that was set aside if absent.
    amount: Option<Amount>,
    /// Name of this request, as the `Idempotency-Key` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<IdempotencyKey>,
}

/// What was charged, and what is left.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CaptureAnswer {
    hold: HoldResponse,
    #[serde(flatten)]
    charged: SpendResponse,
}

/// Charges a hold
///
/// All of it or a part; the rest is given back. A hold whose time is over can't be captured.
#[utoipa::path(
    post, path = "/api/v1/credits/holds/{id}/capture", tag = "credits",
    params(("id" = String, Path, description = "The hold", max_length = 64)),
    request_body = Option<CaptureRequest>,
    responses(
        (status = 201, description = "Charged", body = CaptureAnswer),
        (status = 400, description = "More than was set aside, or a body that does not fit", body = ProblemBody),
        (status = 404, description = "No such hold, or somebody else's", body = ProblemBody),
        (status = 409, description = "The hold has ended, or the account is closed, or disabled and a service key asks", body = ProblemBody),
        (status = 422, description = "The key was used for another request", body = ProblemBody),
    ),
    security(("bearer" = []), ("serviceKey" = [])),
)]
pub(crate) async fn capture_hold(
    State(credits): State<CreditsState>,
    principal: Principal,
    Path(id): Path<String>,
    context: RequestContext,
    OptionalBody(request): OptionalBody<CaptureRequest>,
) -> Result<Answer, ApiError> {
    let mut request = request.unwrap_or_default();
    let key = context.key(request.idempotency_key.take())?;
    let (hold, payer) = find_own(&credits, principal, &id).await?;
    let request_key = payer.request_key(key.as_ref(), "credits.holds.capture", &(hold.id, &request))?;
    let note = payer.note_of(&hold.description, text_of(hold.metadata.as_ref()), key.as_ref());
    let command = Command::Capture { id: hold.id, amount: request.amount, note };
    let answer = credits.ledger.submit(payer.order(context, command, request_key, captured)).await?;
    count("capture", &answer);
    Ok(answer)
}

fn captured(outcome: &Outcome<'_>) -> Result<Answer, serde_json::Error> {
    let answer = CaptureAnswer { hold: HoldResponse::of(outcome)?, charged: SpendResponse::of(outcome)? };
    Answer::json(StatusCode::CREATED, &answer)
}
