//! The backend of an app, on this machine, that takes what it is told: well, or in each way in which one can be broken or hostile.

use crate::provider::{Fault, misbehave};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use mana_kernel::secret::sha256;
use serde_json::Value;
use std::sync::{Arc, Mutex};

/// Something that it was told.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) signature: String,
    pub(crate) body: String,
    pub(crate) event: Value,
    pub(crate) headers: HeaderMap,
}

#[derive(Default)]
struct Script {
    fault: Option<Fault>,
    heard: Vec<Heard>,
}

/// The backend.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    script: Arc<Mutex<Script>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}/hooks", listener.local_addr().unwrap().port());
        let receiver = Self { url, script: Arc::default() };
        let router = Router::new().fallback(answer).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    /// Does so from now on; nothing for taking all.
    pub(crate) fn does(&self, fault: Option<Fault>) {
        self.script.lock().unwrap().fault = fault;
    }

    /// What it was told since the last time, whether or not it took it.
    pub(crate) fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.script.lock().unwrap().heard)
    }

    /// The sorts of it, in order of arrival.
    pub(crate) fn take_types(&self) -> Vec<String> {
        self.take().iter().map(|heard| heard.event["type"].as_str().unwrap().to_owned()).collect()
    }
}

async fn answer(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    let signature = headers["mana-signature"].to_str().unwrap().to_owned();
    let event = serde_json::from_str(&body).unwrap();
    let fault = {
        let mut script = receiver.script.lock().unwrap();
        script.heard.push(Heard { signature, body, event, headers });
        script.fault.clone()
    };
    match fault {
        Some(fault) => misbehave(fault).await,
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

impl Heard {
    pub(crate) fn id(&self) -> &str {
        self.event["id"].as_str().unwrap()
    }

    /// Whether one of its signatures is by this secret, as of this time.
    pub(crate) fn is_signed_by(&self, secret: &str, at: i64) -> bool {
        let (time, signatures) = self.signature.split_once(',').unwrap();
        let expected = format!("v1={}", hmac(secret.as_bytes(), format!("{at}.{}", self.body).as_bytes()));
        time == format!("t={at}") && signatures.split(',').any(|signature| signature == expected)
    }
}

/// HMAC-SHA-256 by its definition (RFC 2104), of a hash alone.
fn hmac(key: &[u8], message: &[u8]) -> String {
    assert!(key.len() <= 64);
    let padded = |with: u8| -> Vec<u8> {
        let key = key.iter().copied().chain(std::iter::repeat(0));
        key.take(64).map(|byte| byte ^ with).collect()
    };
    let inner = sha256(&[padded(0x36), message.to_vec()].concat());
    crate::story::hex(&sha256(&[padded(0x5c), inner.to_vec()].concat()))
}
