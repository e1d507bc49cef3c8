//! The pass that tells endpoints what they wait for.

use super::model::{self, BATCH, DeliveryState, LEASE, WebhookSecret};
use super::store::{self, ClaimedEndpoint, Noted, WaitingDelivery};
use super::{seal, signature};
use crate::Auth;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue};
use mana_platform::DbError;
use std::time::Instant;
use time::OffsetDateTime;
use url::Url;

/// Tells one endpoint after the other what is due, until nothing is or its turn is over. No transaction is open meanwhile, so an endpoint that hangs holds no
/// connection to the database.
///
/// # Errors
/// When the database fails. What was claimed by then is due again when its lease is over.
pub async fn deliver_due(auth: &Auth) -> Result<(), DbError> {
    let began = Instant::now();
    // What comes in all the time would make one pass without an end, which would be ended in the middle of a telling.
    while began.elapsed() < model::TURN {
        let Some(work) = claim(auth).await? else { break };
        if work.deliveries.is_empty() {
            // Another server was faster, or the events are gone.
            let mut transaction = auth.database.begin().await?;
            store::delete_without_event(&mut transaction, work.endpoint.id).await?;
            store::update_released(&mut transaction, work.endpoint.id, work.leased_until, auth.clock.now())
                .await?;
            transaction.commit().await?;
            continue;
        }
        let told = work.deliveries.iter().map(|delivery| tell(auth, &work, delivery));
        let outcomes = join_all(told).await;
        note(auth, &work, &outcomes).await?;
    }
    Ok(())
}

/// An endpoint that is this server's for a while, and what it is to be told.
struct Work {
    endpoint: ClaimedEndpoint,
    leased_until: OffsetDateTime,
    secrets: Result<Vec<WebhookSecret>, String>,
    deliveries: Vec<WaitingDelivery>,
}

async fn claim(auth: &Auth) -> Result<Option<Work>, DbError> {
    let now = auth.clock.now();
    let leased_until = now.saturating_add(LEASE);
    let mut transaction = auth.database.begin().await?;
    let Some(endpoint) = store::update_claimed(&mut transaction, now, leased_until).await? else {
        return Ok(None);
    };
    let deliveries = store::list_due(&mut transaction, endpoint.id, now, BATCH).await?;
    let sealed = store::list_secrets(&mut transaction, endpoint.id, now).await?;
    transaction.commit().await?;
    let secrets = sealed.iter().map(|row| seal::open(&auth.root_secrets, row)).collect();
    Ok(Some(Work { endpoint, leased_until, secrets, deliveries }))
}

/// What came of telling.
struct Told {
    status: Option<u16>,
    /// What went wrong, if anything did.
    error: Option<String>,
}

impl Told {
    fn failed(error: String) -> Self {
        Self { status: None, error: Some(error) }
    }
}

async fn tell(auth: &Auth, work: &Work, delivery: &WaitingDelivery) -> Told {
    let secrets = match &work.secrets {
        Ok(secrets) => secrets,
        Err(error) => return Told::failed(error.clone()),
    };
    let signature = signature::sign(secrets, auth.clock.now().unix_timestamp(), &delivery.body);
    let (Ok(url), Ok(signature)) = (Url::parse(&work.endpoint.url), HeaderValue::try_from(signature)) else {
        return Told::failed("its URL is none".to_owned());
    };
    let headers = HeaderMap::from_iter([(http::HeaderName::from_static(signature::HEADER), signature)]);
    let began = Instant::now();
    let answer = auth.webhooks.outbound.post_json(&url, headers, delivery.body.clone()).await;
    metrics::histogram!("webhook_attempt_seconds").record(began.elapsed());
    match answer {
        Ok(status) if status.is_success() => Told { status: Some(status.as_u16()), error: None },
        Ok(status) => {
            let redirected = if status.is_redirection() { ", and redirects are not followed" } else { "" };
            let error = format!("it answers {}{redirected}", status.as_u16());
            Told { status: Some(status.as_u16()), error: Some(error) }
        }
        Err(error) => Told::failed(in_short(&error)),
    }
}

/// An error with its causes, without anything that the endpoint said.
fn in_short(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.chars().filter(|character| !character.is_control()).take(300).collect()
}

/// Every way that an attempt can go.
pub(crate) fn count_from_zero() {
    for outcome in ["delivered", "failed", "dead"] {
        metrics::counter!("webhook_deliveries_total", "outcome" => outcome).increment(0);
    }
}

/// Writes down what came of it, and lets go of the endpoint.
async fn note(auth: &Auth, work: &Work, outcomes: &[Told]) -> Result<(), DbError> {
    let now = auth.clock.now();
    let noted: Vec<Noted> = work
        .deliveries
        .iter()
        .zip(outcomes)
        .map(|(delivery, told)| noted(auth, delivery, told, now))
        .collect();
    let ClaimedEndpoint { id, app_id, failures, failing_since, .. } = &work.endpoint;
    let mut transaction = auth.database.begin().await?;
    store::update_noted(&mut transaction, *id, &noted, now).await?;
    let error = outcomes.iter().rev().find_map(|told| told.error.as_deref());
    match error.filter(|_| outcomes.iter().all(|told| told.error.is_some())) {
        // Whatever came through shows that the endpoint lives.
        None => store::update_healthy(&mut transaction, *id, work.leased_until, now, error).await?,
        Some(error) => {
            let failures = failures.saturating_add(1);
            let since = failing_since.unwrap_or(now);
            let is_hopeless = model::is_hopeless(since, now);
            let failure = store::Failure {
                rest_until: now.saturating_add(model::rest(failures, &*auth.rng)),
                failures,
                since,
                error,
                disabled_at: is_hopeless.then_some(now),
            };
            store::update_failing(&mut transaction, *id, work.leased_until, &failure).await?;
            if is_hopeless {
                metrics::counter!("webhook_endpoints_disabled_total").increment(1);
                tracing::error!(endpoint = %id, app = app_id, error, "an endpoint is told nothing more: nothing got through for three days");
            }
        }
    }
    transaction.commit().await?;
    for Noted { event, state, attempts, error, .. } in &noted {
        let outcome = match (state, error) {
            (DeliveryState::Dead, _) => "dead",
            (_, Some(_)) => "failed",
            (_, None) => "delivered",
        };
        metrics::counter!("webhook_deliveries_total", "outcome" => outcome).increment(1);
        if let Some(error) = error {
            tracing::warn!(endpoint = %id, app = app_id, %event, attempts, outcome, error, "an endpoint was not told");
        }
    }
    Ok(())
}

fn noted(auth: &Auth, delivery: &WaitingDelivery, told: &Told, now: OffsetDateTime) -> Noted {
    let attempts = delivery.attempts.saturating_add(1);
    let next = told.error.as_ref().map(|_| model::next_attempt(attempts, now, &*auth.rng));
    let (state, next_attempt_at) = match next {
        None => (DeliveryState::Delivered, now),
        Some(Some(at)) => (DeliveryState::Waiting, at),
        Some(None) => (DeliveryState::Dead, now),
    };
    Noted {
        event: delivery.event,
        was: delivery.attempts,
        state,
        attempts,
        next_attempt_at,
        status: told.status.and_then(|status| i16::try_from(status).ok()),
        error: told.error.clone(),
    }
}
