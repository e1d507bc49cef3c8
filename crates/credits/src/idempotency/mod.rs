//! Requests that may be sent twice and are done once. Owns `credits.remembered_answers`.

pub mod forget;
pub(crate) mod store;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use mana_kernel::secret::sha256;
use mana_kernel::{ErrorCode, Kind, Line, Problem, RequestId};
use mana_platform::http::{AnsweredCode, ApiError, codes};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The client's name for a request: 1 to 255 printable characters, scoped to the user, or to the app that charges the user.
pub type IdempotencyKey = Line<1, 255>;

static KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
static HIT_HEADER: HeaderName = HeaderName::from_static("idempotency-hit");

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It named another request before.
    #[error("the key was used for another request")]
    Reused,
}

/// One key, two requests.
pub static KEY_REUSED: ErrorCode = ErrorCode {
    code: "request.idempotency_key_reused",
    kind: Kind::Unprocessable,
    title: "This idempotency key was used for another request",
    word: None,
    way_out: "Use a new key for each new intent; send the very same body when repeating one.",
};

/// The catalogue of this feature.
pub static CODES: &[&ErrorCode] = &[&KEY_REUSED];

impl Problem for KeyError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::Reused => &KEY_REUSED,
        }
    }
}

/// The key of a request, from its header or its body.
pub(crate) fn key_of(
    headers: &HeaderMap,
    in_body: Option<IdempotencyKey>,
) -> Result<Option<IdempotencyKey>, ApiError> {
    let refuse = |detail: &str| {
        Err(ApiError::new(&codes::INVALID_HEADER).with_detail(format!("Idempotency-Key {detail}")))
    };
    let mut values = headers.get_all(&KEY_HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(in_body);
    };
    if values.next().is_some() {
        return refuse("must be given once");
    }
    let Some(in_header) = value.to_str().ok().and_then(|text| IdempotencyKey::try_from(text.to_owned()).ok())
    else {
        return refuse("must be 1 to 255 printable characters");
    };
    match in_body {
        Some(key) if key != in_header => refuse("and idempotencyKey must not differ"),
        Some(_) | None => Ok(Some(in_header)),
    }
}

/// Refuses a second answer under a key.
pub(crate) const ONE_ANSWER: &str = "remembered_answers_pkey";

/// A key as it is kept: 16 bytes of SHA-256 over its scope and its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyDigest(pub(crate) Uuid);

/// A key and what it stands for.
#[derive(Debug, Clone)]
pub(crate) struct RequestKey {
    pub(crate) key: KeyDigest,
    /// What tells one request from another under the same key.
    pub(crate) request: [u8; 32],
}

impl RequestKey {
    /// The key of a request in its scope: `user`, or an app that acts as a service.
    pub(crate) fn new(
        scope: &str,
        key: &IdempotencyKey,
        operation: &str,
        request: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        let digest = sha256(format!("{scope}\n{}", key.as_str()).as_bytes());
        let half = digest.first_chunk::<16>().copied().unwrap_or_default();
        let request = sha256(&serde_json::to_vec(&(operation, request))?);
        Ok(Self { key: KeyDigest(Uuid::from_bytes(half)), request })
    }
}

/// An answer to the byte, so that it can be given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    status: StatusCode,
    body: String,
    is_replay: bool,
}

impl Answer {
    /// A success.
    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self { status, body: serde_json::to_string(body)?, is_replay: false })
    }

    /// In one word, for counting.
    pub(crate) fn outcome(&self) -> &'static str {
        match (self.is_replay, self.status.is_success()) {
            (true, _) => "replayed",
            (false, true) => "done",
            (false, false) => "refused",
        }
    }

    /// A refusal that is an outcome, with the id of the request that first met it.
    pub(crate) fn problem(error: &ApiError, request: &RequestId) -> Result<Self, serde_json::Error> {
        Ok(Self {
            status: error.code().kind.status(),
            body: serde_json::to_string(&error.body(request))?,
            is_replay: false,
        })
    }

    /// The code of a refusal.
    fn code(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Refusal {
            code: String,
        }
        if self.status.is_success() {
            return None;
        }
        serde_json::from_str(&self.body).ok().map(|Refusal { code }| code)
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.is_replay
    }

    pub(crate) fn into_body(self) -> String {
        self.body
    }

    pub(crate) fn status_number(&self) -> i16 {
        i16::try_from(self.status.as_u16()).unwrap_or(i16::MAX)
    }

    pub(crate) fn body(&self) -> &str {
        &self.body
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let media_type =
            if self.status.is_success() { "application/json" } else { "application/problem+json" };
        let code = self.code();
        let mut response = (self.status, Body::from(self.body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        if let Some(code) = code {
            response.extensions_mut().insert(AnsweredCode(code.into()));
        }
        if self.is_replay {
            response.headers_mut().insert(HIT_HEADER.clone(), HeaderValue::from_static("true"));
        }
        response
    }
}

/// Stands for a request that can't be told any more: the older service kept the order of metadata no better than it knew it, and
/// answered by the key alone.
pub(crate) const ANY_REQUEST: [u8; 32] = [0; 32];

/// What is remembered under a key.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Of the request that it answers to.
    pub(crate) digest: [u8; 32],
    pub(crate) answer: Answer,
}

impl Stored {
    /// The remembered answer, if the request is the one it was given to.
    pub(crate) fn replay(&self, digest: &[u8; 32]) -> Result<Answer, KeyError> {
        if self.digest == *digest || self.digest == ANY_REQUEST {
            Ok(Answer { is_replay: true, ..self.answer.clone() })
        } else {
            Err(KeyError::Reused)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.extend(
            lines.iter().map(|line| (KEY_HEADER.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap())),
        );
        headers
    }

    fn key(text: &str) -> IdempotencyKey {
        IdempotencyKey::try_from(text.to_owned()).unwrap()
    }

    proptest! {
        #[test]
        fn a_key_is_the_header_to_the_letter_and_given_once(text in "[ -~]{0,40}|[!-~]{250,260}|[a-z\u{e4}]{0,8}", other in "[!-~]{1,20}") {
            match key_of(&of(&[&text]), None) {
                Ok(found) => prop_assert_eq!(found, Some(key(&text))),
                Err(error) => prop_assert_eq!(error.code().code, codes::INVALID_HEADER.code),
            }
            prop_assert!(key_of(&of(&[&text, &text]), None).is_err());
            prop_assert_eq!(key_of(&HeaderMap::new(), Some(key(&other))).unwrap(), Some(key(&other)));
            let both = key_of(&of(&[&text]), Some(key(&other)));
            prop_assert!(both.is_err() || text == other);
        }

        #[test]
        fn two_keys_are_one_only_in_one_scope(scopes in ("[a-z ]{1,6}", "[a-z ]{1,6}"), keys in ("[a-z ]{1,6}", "[a-z ]{1,6}")) {
            let digest = |scope: &str, text: &str| RequestKey::new(scope, &key(text), "spend", &()).unwrap().key;
            let is_same = scopes.0 == scopes.1 && keys.0 == keys.1;
            prop_assert_eq!(digest(&scopes.0, &keys.0) == digest(&scopes.1, &keys.1), is_same);
        }
    }
}
