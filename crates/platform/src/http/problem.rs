//! Errors as clients see them: problem+json (RFC 9457) with the members that the old clients read beside it.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use mana_kernel::{ErrorCode, FieldError, Kind, Mana, Problem, RequestId, Shortfall};
use serde::Serialize;
use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use utoipa::ToSchema;

/// A failure on its way to the client. Made from any [`Problem`] by `?`.
#[derive(Debug, Clone)]
pub struct ApiError {
    code: &'static ErrorCode,
    detail: Option<String>,
    hint: Option<Hint>,
    fields: Vec<FieldError>,
    // In a box, because every fallible answer carries the room for it.
    shortfall: Option<Box<Shortfall>>,
    retry_after_seconds: Option<u64>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// What the author of a client reads in `detail`, while people are shown the same `message` in all cases.
#[derive(Debug, Clone)]
enum Hint {
    /// Anything.
    Plain(Cow<'static, str>),
    /// Why a bearer token is not accepted, which the challenge repeats (RFC 6750, section 3).
    InvalidToken(&'static str),
}

impl ApiError {
    /// A failure that needs no more words than its entry in the catalogue.
    pub fn new(code: &'static ErrorCode) -> Self {
        Self {
            code,
            detail: None,
            hint: None,
            fields: Vec::new(),
            shortfall: None,
            retry_after_seconds: None,
            cause: None,
        }
    }

    /// The same with what this case says beyond the title. Never put a value of the request in it.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with what only the author of a client needs to know: it is the `detail`, and the `message` stays.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(Hint::Plain(hint.into()));
        self
    }

    /// The same with the reason why the bearer token that was sent is not accepted, as a hint and in the challenge. Letters, digits and
    /// spaces.
    #[must_use]
    pub fn with_invalid_token(mut self, reason: &'static str) -> Self {
        self.hint = Some(Hint::InvalidToken(reason));
        self
    }

    /// The same with the places of the request that are wrong.
    #[must_use]
    pub fn with_fields(mut self, fields: Vec<FieldError>) -> Self {
        self.fields = fields;
        self
    }

    /// The same with the seconds after which the request may be sent again; 1 for a 429 or 503 that says nothing.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// Its entry in the catalogue.
    pub fn code(&self) -> &'static ErrorCode {
        self.code
    }

    /// The seconds after which the request may be sent again, where its kind owes them.
    pub(super) fn wait_seconds(&self) -> u64 {
        self.retry_after_seconds.unwrap_or(1)
    }

    /// The failure behind a status that the HTTP layer itself chose.
    pub(super) fn from_status(status: StatusCode) -> Self {
        use super::codes;
        let error = Self::new(match status {
            StatusCode::NOT_FOUND => &codes::UNKNOWN_PATH,
            StatusCode::FORBIDDEN => &codes::FOREIGN_SITE,
            StatusCode::METHOD_NOT_ALLOWED => &codes::METHOD_NOT_ALLOWED,
            StatusCode::PAYLOAD_TOO_LARGE => &codes::BODY_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => &codes::NOT_JSON,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => &codes::TIMEOUT,
            status if status.is_client_error() => &codes::BAD_REQUEST,
            _ => &codes::INTERNAL,
        });
        match status {
            StatusCode::NOT_FOUND => {
                error.with_hint("There is nothing at this path: what there is stands at /docs")
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                error.with_hint("A body may have 64 KiB; that of /api/v1/credits/use/batch 1 MiB")
            }
            _ => error,
        }
    }

    /// What the client is told.
    pub fn body(&self, request: &RequestId) -> ProblemBody {
        let status = self.code.kind.status();
        ProblemBody {
            r#type: format!("/docs/errors#{}", self.code.code),
            title: self.code.title,
            status: status.as_u16(),
            detail: self.hinted(),
            instance: request.to_string(),
            code: self.code.code,
            errors: self.fields.iter().take(MOST_FIELDS).map(clipped).collect(),
            available: self.shortfall.as_ref().map(|shortfall| shortfall.available),
            required: self.shortfall.as_ref().map(|shortfall| shortfall.required),
            status_code: status.as_u16(),
            message: self.told(),
            error: self.code.word.or(status.canonical_reason()).unwrap_or_default(),
        }
    }

    /// What a person may read.
    fn told(&self) -> String {
        let text = self.detail.as_deref().unwrap_or(self.code.title);
        text.chars().take(LONGEST_TEXT).collect()
    }

    /// What the author of a client may read.
    fn hinted(&self) -> String {
        match &self.hint {
            Some(Hint::Plain(hint)) => hint.chars().take(LONGEST_TEXT).collect(),
            Some(Hint::InvalidToken(reason)) => (*reason).to_owned(),
            None => self.told(),
        }
    }

    /// What a 401 owes: for a token that was sent, why it is not accepted; for none, nothing but the scheme.
    fn challenge(&self) -> HeaderValue {
        let told = match &self.hint {
            Some(Hint::InvalidToken(reason)) => HeaderValue::try_from(format!(
                r#"Bearer error="invalid_token", error_description="{reason}""#
            ))
            .ok(),
            Some(Hint::Plain(_)) | None => None,
        };
        told.unwrap_or(HeaderValue::from_static("Bearer"))
    }

    /// The whole answer, with the headers that its status owes.
    pub(super) fn render(&self, request: &RequestId) -> Response {
        let mut response =
            (self.code.kind.status(), axum::body::Body::from(self.json(request))).into_response();
        response.extensions_mut().insert(AnsweredCode(self.code.code.into()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.code.kind {
            Kind::Unauthenticated => {
                headers.insert(header::WWW_AUTHENTICATE, self.challenge());
            }
            Kind::Unavailable | Kind::TooManyRequests => {
                headers.insert(header::RETRY_AFTER, self.wait_seconds().into());
            }
            Kind::Invalid
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::MethodNotAllowed
            | Kind::Conflict
            | Kind::PreconditionFailed
            | Kind::PayloadTooLarge
            | Kind::UnsupportedMediaType
            | Kind::Unprocessable
            | Kind::Internal => {}
        }
        response
    }

    fn json(&self, request: &RequestId) -> Vec<u8> {
        serde_json::to_vec(&self.body(request)).unwrap_or_default()
    }

    /// Writes the one log line of a failure that is ours, with the whole chain of causes. Being asked too much is none:
    /// a flood must not become one of log lines.
    pub(super) fn log(&self, request: &RequestId) {
        if self.retry_after_seconds.is_some() || !matches!(self.code.kind, Kind::Internal | Kind::Unavailable)
        {
            return;
        }
        let mut causes = String::new();
        let mut next: Option<&dyn Error> = self.cause.as_deref().map(|cause| -> &dyn Error { cause });
        while let Some(cause) = next {
            causes.push_str(if causes.is_empty() { "" } else { ": " });
            causes.push_str(&cause.to_string());
            next = cause.source();
        }
        tracing::error!(instance = %request, code = self.code.code, causes, "request failed");
    }
}

/// The code of an answer, in its extensions: what the log says of a refusal. Whoever writes the body of a problem adds it.
#[derive(Debug, Clone)]
pub struct AnsweredCode(pub Cow<'static, str>);

/// Code points of a problem's texts at most.
const LONGEST_TEXT: usize = 1000;
/// Code points of a pointer at most. Names of fields come from the client.
const LONGEST_POINTER: usize = 512;
/// Places that one problem names at most.
const MOST_FIELDS: usize = 16;

fn clipped(field: &FieldError) -> FieldError {
    let FieldError { pointer, code, detail } = field;
    FieldError {
        pointer: pointer.chars().take(LONGEST_POINTER).collect(),
        code,
        detail: detail.chars().take(LONGEST_TEXT).collect(),
    }
}

impl<E: Problem> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self {
            code: error.code(),
            detail: error.detail(),
            hint: None,
            fields: error.fields(),
            shortfall: error.shortfall().map(Box::new),
            retry_after_seconds: error.retry_after_seconds(),
            cause: Some(Arc::new(error)),
        }
    }
}

impl IntoResponse for ApiError {
    /// The failure travels in the answer's extensions; [`super::frame`] writes the body, because it knows the request.
    fn into_response(self) -> Response {
        let mut response = self.code.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Where this error is explained.
    #[schema(examples("/docs/errors#credits.insufficient_funds"), max_length = 255)]
    pub r#type: String,
    /// What sort of error it is.
    #[schema(max_length = 255)]
    pub title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened in this case, for the author of a client.
    #[schema(max_length = 1000)]
    pub detail: String,
    /// The request's id, to be given to the operator.
    #[schema(min_length = 1, max_length = 64)]
    pub instance: String,
    /// Stable name of the error, for programs.
    #[schema(examples("credits.insufficient_funds"), max_length = 128)]
    pub code: &'static str,
    /// The places of the request that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub errors: Vec<FieldError>,
    /// Of `credits.insufficient_funds`: mana that can be spent now, free and paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<Mana>,
    /// Of `credits.insufficient_funds`: mana that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<Mana>,
    /// As `status`, for older clients.
    #[schema(minimum = 400, maximum = 599)]
    pub status_code: u16,
    /// What people may be shown; for the most part as `detail`.
    #[schema(max_length = 1000)]
    pub message: String,
    /// Reason phrase, or the word that newer clients switch on.
    #[schema(max_length = 64)]
    pub error: &'static str,
}
