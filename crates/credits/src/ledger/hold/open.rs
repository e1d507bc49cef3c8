//! `POST /api/v1/credits/holds`: an app sets mana aside.

use super::{HoldAnswer, HoldSeconds, held};
use crate::CreditsState;
use crate::idempotency::{Answer, IdempotencyKey};
use crate::ledger::charge::{Metadata, Payer, RequestContext, count};
use crate::ledger::model::{Charge, Command};
use axum::extract::State;
use mana_kernel::{Amount, HoldId, Line, Paragraph, UserId};
use mana_platform::http::{ApiError, Principal, ProblemBody, Scope, Valid};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What to set aside, and for what.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"amount": 25, "appId": "chat", "description": "A picture", "expiresInSeconds": 900})))]
pub(crate) struct OpenHoldRequest {
    /// Mana to set aside.
    amount: Amount,
    /// The app that sets it aside. With a service key of one app, or with `X-App-Id`, it is that, whatever this says.
    app_id: Line<1, 128>,
    /// What the person will read in the list of transactions.
    description: Paragraph<1, 1000>,
    /// After this many seconds it is released by itself.
    #[serde(default)]
    expires_in_seconds: HoldSeconds,
    /// Name of this request, as the `Idempotency-Key` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<IdempotencyKey>,
    /// Anything the app wants to find again.
    metadata: Option<Metadata>,
    /// Whose mana; for service keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    user_id: Option<UserId>,
}

/// Sets mana aside
///
/// The mana can't be spent until the hold is captured or released, or its time is over. It is taken from grants as a spend
/// would, so a hold outlives the expiry of what it took.
#[utoipa::path(
    post, path = "/api/v1/credits/holds", tag = "credits",
    request_body = OpenHoldRequest,
    responses(
        (status = 201, description = "Set aside", body = HoldAnswer),
        (status = 400, description = "Not enough mana, or a body that does not fit", body = ProblemBody),
        (status = 404, description = "A service key names a user who does not exist", body = ProblemBody),
        (status = 409, description = "Too many holds are open, or the account is closed, or disabled and a service key asks", body = ProblemBody),
        (status = 422, description = "The key was used for another request", body = ProblemBody),
    ),
    security(("bearer" = []), ("serviceKey" = [])),
)]
pub(crate) async fn open_hold(
    State(credits): State<CreditsState>,
    principal: Principal,
    context: RequestContext,
    Valid(mut request): Valid<OpenHoldRequest>,
) -> Result<Answer, ApiError> {
    let key = context.key(request.idempotency_key.take())?;
    let user = request.user_id.take();
    let payer = Payer::of(principal, user, Scope::CreditsSpend, request.app_id.as_str())?;
    let request_key = payer.request_key(key.as_ref(), "credits.holds.open", &request)?;
    let note = payer.note(request.description, request.metadata.as_ref(), key.as_ref())?;
    let command = Command::Hold {
        id: HoldId::new(&*credits.clock, &*credits.rng),
        charge: Charge { amount: request.amount, note },
        expires_at: request.expires_in_seconds.after(credits.clock.now()),
    };
    let answer = credits.ledger.submit(payer.order(context, command, request_key, held)).await?;
    count("hold", &answer);
    Ok(answer)
}
