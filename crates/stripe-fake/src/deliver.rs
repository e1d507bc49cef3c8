//! What is sent to the service: signed events, and everything that can go wrong on their way.

use crate::{Fake, Options};
use aws_lc_rs::hmac;
use serde_json::Value;
use std::time::Duration;

/// How deliveries go wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Knobs {
    /// Each is sent so many times more.
    pub duplicates: usize,
    /// What waits is sent in reverse.
    pub reorder: bool,
    /// Each waits so long.
    pub delay: Duration,
    /// None is sent.
    pub drop: bool,
    /// Each is signed with another secret.
    pub wrong_signature: bool,
}

/// An event on its way.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its type.
    pub kind: String,
    /// The `stripe-signature` header.
    pub signature: String,
    /// The body, byte for byte.
    pub body: String,
}

impl Delivery {
    pub(crate) fn of(event: &Value, secret: &str, now: i64) -> Self {
        // Stripe sends its events indented.
        let body = serde_json::to_string_pretty(event).unwrap_or_default();
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        Self { kind, signature: sign(&body, secret, now), body }
    }
}

/// A `stripe-signature` header.
pub fn sign(body: &str, secret: &str, now: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{now}.{body}").as_bytes());
    tag.as_ref().iter().fold(format!("t={now},v1="), |text, byte| format!("{text}{byte:02x}"))
}

pub(crate) fn prepare(waiting: &[Value], knobs: Knobs, secret: &str, now: i64) -> Vec<Delivery> {
    if knobs.drop {
        return Vec::new();
    }
    let secret = if knobs.wrong_signature { "whsec_somebody_elses" } else { secret };
    let mut deliveries: Vec<Delivery> = waiting
        .iter()
        .flat_map(|event| vec![Delivery::of(event, secret, now); knobs.duplicates.saturating_add(1)])
        .collect();
    if knobs.reorder {
        deliveries.reverse();
    }
    deliveries
}

/// Sends what waits, and again what was not taken, as long as the fake lives.
pub(crate) async fn deliver_for_ever(fake: Fake) {
    let Options { webhook_url: Some(url), .. } = fake.0.options.clone() else {
        return std::future::pending().await;
    };
    let Some(client) = client() else { return std::future::pending().await };
    let mut again: Vec<Value> = Vec::new();
    loop {
        // What was refused is tried again a little later; Stripe would wait longer.
        let _ = tokio::time::timeout(Duration::from_secs(3), fake.0.has_deliveries.notified()).await;
        let (mut waiting, knobs) = {
            let mut state = fake.lock();
            (std::mem::take(&mut state.waiting), state.knobs)
        };
        waiting.append(&mut again);
        tokio::time::sleep(knobs.delay).await;
        for event in waiting {
            let mut is_taken = true;
            for delivery in
                prepare(std::slice::from_ref(&event), knobs, &fake.0.options.webhook_secret, fake.now())
            {
                is_taken &= post(&client, &url, delivery).await;
            }
            if !is_taken {
                again.push(event);
            }
        }
    }
}

async fn post(client: &reqwest::Client, url: &url::Url, delivery: Delivery) -> bool {
    let sent = client
        .post(url.clone())
        .header("stripe-signature", delivery.signature)
        .header("content-type", "application/json; charset=utf-8")
        .body(delivery.body)
        .send();
    sent.await.is_ok_and(|response| response.status().is_success())
}

/// Speaks to this machine, without TLS.
fn client() -> Option<reqwest::Client> {
    let tls =
        rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .ok()?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    let builder =
        reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(Duration::from_secs(10));
    builder.build().ok()
}
