//! `POST /api/v1/webhooks/stripe`: takes a delivery in.

use super::pointer::pointer_of;
use super::store;
use crate::CreditsState;
use crate::stripe::object::EventName;
use crate::stripe::signature;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use http::HeaderMap;
use mana_kernel::{ErrorCode, Kind};
use mana_platform::http::{ApiError, ProblemBody};
use serde::Serialize;
use utoipa::ToSchema;

/// Events carry whole objects.
pub(super) const BODY_LIMIT: usize = 512 * 1024;

/// There is nothing to verify with.
pub(super) static NO_SECRET: ErrorCode = ErrorCode {
    code: "payments.no_webhook_secret",
    kind: Kind::Unavailable,
    title: "Deliveries can't be verified here",
    word: None,
    way_out: "The operator sets STRIPE_WEBHOOK_SECRET to the signing secret of the endpoint. Stripe sends the delivery again.",
};
/// It was not Stripe.
pub(super) static INVALID_SIGNATURE: ErrorCode = ErrorCode {
    code: "payments.invalid_signature",
    kind: Kind::Invalid,
    title: "The signature does not fit",
    word: None,
    way_out: "Deliveries are signed with the endpoint's secret over their raw bytes, within five minutes. Check STRIPE_WEBHOOK_SECRET, the clock, and whether a proxy changes bodies.",
};
/// Signed, and no event.
pub(super) static NOT_AN_EVENT: ErrorCode = ErrorCode {
    code: "payments.not_an_event",
    kind: Kind::Invalid,
    title: "The delivery is not an event",
    word: None,
    way_out: "Only Stripe's snapshot events are understood: set the endpoint up with the API version 2024-06-20.",
};

/// An event, byte for byte as it was signed.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, max_length = 524_288)]
pub(crate) struct SignedEvent(
    #[expect(dead_code, reason = "describes the body, which is read as bytes")] String,
);

/// It is here.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Received {
    received: bool,
}

/// Takes a delivery of Stripe
///
/// Answered as soon as it is stored. What comes twice is stored once.
#[utoipa::path(
    post, path = "/api/v1/webhooks/stripe", tag = "webhooks",
    request_body(content = SignedEvent, content_type = "*/*", description = "The event, byte for byte as it was signed"),
    params(("stripe-signature" = String, Header, description = "`t=<seconds>,v1=<hex>`", max_length = 4096)),
    responses(
        (status = 200, description = "Stored", body = Received),
        (status = 400, description = "Not signed, or no event", body = ProblemBody),
    ),
)]
pub(crate) async fn receive_event(
    State(credits): State<CreditsState>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Received>, ApiError> {
    let payments = &credits.payments;
    if payments.webhook_secrets.is_empty() {
        return Err(ApiError::new(&NO_SECRET));
    }
    let now = credits.clock.now();
    let mut values = headers.get_all("stripe-signature").iter();
    let header = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
    if let Err(error) = signature::verify(header.unwrap_or_default(), &body, &payments.webhook_secrets, now) {
        metrics::counter!("stripe_deliveries_total", "outcome" => "unsigned").increment(1);
        return Err(ApiError::new(&INVALID_SIGNATURE).with_detail(error.to_string()));
    }
    let text = std::str::from_utf8(&body).map_err(|_| ApiError::new(&NOT_AN_EVENT))?;
    // Of sorts that are not understood, no more need be: they are acknowledged, or Stripe would send them for days.
    let event: EventName = serde_json::from_str(text).map_err(|_| ApiError::new(&NOT_AN_EVENT))?;
    // A text of PostgreSQL holds no such character, and none of Stripe's ids does.
    if event.id.is_empty() || event.id.len() > 255 || event.r#type.len() > 255 || text.contains('\0') {
        return Err(ApiError::new(&NOT_AN_EVENT));
    }
    let pointer = pointer_of(text, &event);
    let mut transaction = credits.database.begin().await?;
    let is_new = store::insert_event(&mut transaction, &event.id, &event.r#type, &pointer, now).await?;
    transaction.commit().await?;
    let outcome = if is_new { "stored" } else { "known" };
    metrics::counter!("stripe_deliveries_total", "outcome" => outcome).increment(1);
    payments.errands.deliveries.notify_one();
    Ok(Json(Received { received: true }))
}
