//! `POST /api/v1/credits/holds/{id}/release`: an app gives back what it has set aside.

use super::{HoldAnswer, HoldRequest, find_own, held};
use crate::CreditsState;
use crate::idempotency::Answer;
use crate::ledger::charge::{RequestContext, count};
use crate::ledger::model::Command;
use axum::extract::{Path, State};
use mana_platform::http::{ApiError, OptionalBody, Principal, ProblemBody};

/// Releases a hold
///
/// What it took goes back to the grants that it was taken from.
#[utoipa::path(
    post, path = "/api/v1/credits/holds/{id}/release", tag = "credits",
    params(("id" = String, Path, description = "The hold", max_length = 64)),
    request_body = Option<HoldRequest>,
    responses(
        (status = 201, description = "Given back", body = HoldAnswer),
        (status = 404, description = "No such hold, or somebody else's", body = ProblemBody),
        (status = 409, description = "The hold has ended", body = ProblemBody),
        (status = 422, description = "The key was used for another request", body = ProblemBody),
    ),
    security(("bearer" = []), ("serviceKey" = [])),
)]
pub(crate) async fn release_hold(
    State(credits): State<CreditsState>,
    principal: Principal,
    Path(id): Path<String>,
    context: RequestContext,
    OptionalBody(request): OptionalBody<HoldRequest>,
) -> Result<Answer, ApiError> {
    let key = context.key(request.unwrap_or_default().idempotency_key)?;
    let (hold, payer) = find_own(&credits, principal, &id).await?;
    let request_key = payer.request_key(key.as_ref(), "credits.holds.release", &hold.id)?;
    let command = Command::Release { id: hold.id };
    let answer = credits.ledger.submit(payer.order(context, command, request_key, held)).await?;
    count("release", &answer);
    Ok(answer)
}
