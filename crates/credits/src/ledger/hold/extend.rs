//! `POST /api/v1/credits/holds/{id}/extend`: an app needs more time.

use super::{HoldAnswer, HoldSeconds, find_own, held};
use crate::CreditsState;
use crate::idempotency::{Answer, IdempotencyKey};
use crate::ledger::charge::{RequestContext, count};
use crate::ledger::model::Command;
use axum::extract::{Path, State};
use mana_platform::http::{ApiError, Principal, ProblemBody, Valid};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"expiresInSeconds": 900})))]
pub(crate) struct ExtendRequest {
    /// Seconds from now, not from the end that it had.
    expires_in_seconds: HoldSeconds,
    /// Name of this request, as the `Idempotency-Key` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<IdempotencyKey>,
}

/// Changes when a hold ends
#[utoipa::path(
    post, path = "/api/v1/credits/holds/{id}/extend", tag = "credits",
    params(("id" = String, Path, description = "The hold", max_length = 64)),
    request_body = ExtendRequest,
    responses(
        (status = 201, description = "Changed", body = HoldAnswer),
        (status = 404, description = "No such hold, or somebody else's", body = ProblemBody),
        (status = 409, description = "The hold has ended", body = ProblemBody),
        (status = 422, description = "The key was used for another request", body = ProblemBody),
    ),
    security(("bearer" = []), ("serviceKey" = [])),
)]
pub(crate) async fn extend_hold(
    State(credits): State<CreditsState>,
    principal: Principal,
    Path(id): Path<String>,
    context: RequestContext,
    Valid(mut request): Valid<ExtendRequest>,
) -> Result<Answer, ApiError> {
    let key = context.key(request.idempotency_key.take())?;
    let (hold, payer) = find_own(&credits, principal, &id).await?;
    let request_key = payer.request_key(key.as_ref(), "credits.holds.extend", &(hold.id, &request))?;
    let expires_at = request.expires_in_seconds.after(credits.clock.now());
    let command = Command::Extend { id: hold.id, expires_at };
    let answer = credits.ledger.submit(payer.order(context, command, request_key, held)).await?;
    count("extend", &answer);
    Ok(answer)
}
