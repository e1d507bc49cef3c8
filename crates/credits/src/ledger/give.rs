//! `POST /api/v1/internal/credits/grants`: an app gives a user mana.

use super::charge::{Metadata, Payer, PostedResponse, RequestContext, count, posted};
use super::model::{Command, Gift, GrantSource, Terms};
use crate::CreditsState;
use crate::idempotency::{Answer, IdempotencyKey};
use axum::extract::State;
use mana_kernel::integer::within;
use mana_kernel::{Amount, Line, Paragraph, Timestamp, UserId};
use mana_platform::http::{ApiError, ProblemBody, Scope, ServiceCaller, Valid};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// Where the mana of an app's grant comes from.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum GivenSource {
    /// Given away: a gift, a campaign.
    Promotion,
    /// Something is put right.
    Adjustment,
}

/// A place in the order of burn-down, 0 to 100: lower is spent first.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(into = "i64")]
#[schema(value_type = i64, minimum = 0, maximum = 100)]
struct Priority(i16);

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = within(deserializer, 0, 100)?;
        i16::try_from(value).map(Self).map_err(D::Error::custom)
    }
}

impl From<Priority> for i64 {
    fn from(priority: Priority) -> Self {
        priority.0.into()
    }
}

/// What to give.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"userId": "0198c9d2-7f6a-7c31-9d0e-3f6f0c2b8a11", "amount": 50, "appId": "chat", "description": "A present"})))]
pub(crate) struct GiveRequest {
    /// To whom.
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    user_id: UserId,
    /// Mana to give.
    amount: Amount,
    /// The app that gives. With a key of one app, or with `X-App-Id`, it is that, whatever this says.
    app_id: Line<1, 128>,
    /// What the person reads in the list of transactions.
    description: Paragraph<1, 1000>,
    /// `promotion` if absent.
    source: Option<GivenSource>,
    /// 10 if absent, as other free mana; what is bought has 20.
    priority: Option<Priority>,
    /// From when on it can be spent; at once if absent.
    effective_from: Option<Timestamp>,
    /// From when on it can't be spent any more; never if absent.
    expires_at: Option<Timestamp>,
    /// Name of this request, as the `Idempotency-Key` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<IdempotencyKey>,
    /// Anything the app wants to find again.
    metadata: Option<Metadata>,
}

/// Gives mana
///
/// For service keys with the scope `credits:grant`. Mana of the same source, priority and expiry is one grant that is added
/// to; a wallet has 200 different ones at most.
#[utoipa::path(
    post, path = "/api/v1/internal/credits/grants", tag = "credits",
    request_body = GiveRequest,
    responses(
        (status = 201, description = "Given", body = PostedResponse),
        (status = 400, description = "Over before it begins, or a body that does not fit", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
        (status = 409, description = "Too many different grants, or the account is closed", body = ProblemBody),
        (status = 422, description = "The key was used for another request", body = ProblemBody),
    ),
    security(("serviceKey" = [])),
)]
pub(crate) async fn give(
    State(credits): State<CreditsState>,
    service: ServiceCaller,
    context: RequestContext,
    Valid(mut request): Valid<GiveRequest>,
) -> Result<Answer, ApiError> {
    let key = context.key(request.idempotency_key.take())?;
    let payer =
        Payer::of_service(&service, request.user_id.clone(), Scope::CreditsGrant, request.app_id.as_str())?;
    let request_key = payer.request_key(key.as_ref(), "credits.give", &request)?;
    let source = match request.source {
        Some(GivenSource::Adjustment) => GrantSource::Adjustment,
        Some(GivenSource::Promotion) | None => GrantSource::Promotion,
    };
    let terms = Terms {
        source,
        priority: request.priority.map_or(source.priority(), |priority| priority.0),
        cost_micros: 0,
        effective_from: request.effective_from.map(Timestamp::get),
        expires_at: request.expires_at.map(Timestamp::get),
    };
    let note = payer.note(request.description, request.metadata.as_ref(), key.as_ref())?;
    let command = Command::Give(Gift { amount: request.amount, terms, note });
    let answer = credits.ledger.submit(payer.order(context, command, request_key, posted)).await?;
    count("give", &answer);
    Ok(answer)
}
