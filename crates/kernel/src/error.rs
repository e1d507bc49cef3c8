//! The shape of an error that a client may see. Each feature has one enum of them; the mapping to HTTP is here, once.

use crate::Mana;
use http::StatusCode;
use serde::Serialize;

/// What sort of failure it is. Decides the HTTP status, and nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is malformed or out of bounds.
    Invalid,
    /// No credential, or one that is not accepted.
    Unauthenticated,
    /// The credential is good, the act is not allowed.
    Forbidden,
    /// There is no such thing, or it is somebody else's.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// It collides with what exists.
    Conflict,
    /// It moved since the client looked.
    PreconditionFailed,
    /// The body exceeds the limit.
    PayloadTooLarge,
    /// The body is not JSON.
    UnsupportedMediaType,
    /// Well-formed, but contradicts an earlier request.
    Unprocessable,
    /// Too many requests.
    TooManyRequests,
    /// Our fault, cause unknown to the client.
    Internal,
    /// Our fault, and it passes: try again.
    Unavailable,
}

impl Kind {
    /// The HTTP status of the kind.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// An entry of the error catalogue: stable, documented in docs/ERRORS.md, a promise to clients.
#[derive(Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// Stable dotted name that programs switch on, as `credits.insufficient_funds`.
    pub code: &'static str,
    /// Decides the status.
    pub kind: Kind,
    /// What a person may read: the problem's title, and its `message` unless the case has a better one.
    pub title: &'static str,
    /// What the `error` member carries instead of the status's reason phrase, where old clients switch on a word.
    pub word: Option<&'static str>,
    /// What the developer of a client does about it.
    pub way_out: &'static str,
}

/// One thing that is wrong with one place of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON Pointer (RFC 6901) into the body; empty for the body as a whole.
    #[schema(max_length = 512)]
    pub pointer: String,
    /// Stable word: `missing`, `unknown`, `wrong_type`, `duplicate` or `invalid`.
    #[schema(max_length = 64)]
    pub code: &'static str,
    /// What a person may read. Never repeats the value: it may be a secret.
    #[schema(max_length = 1000)]
    pub detail: String,
}

/// Less is there than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// What is there.
    pub available: Mana,
    /// What was asked for.
    pub required: Mana,
}

/// An error that knows which entry of the catalogue it is.
pub trait Problem: std::error::Error + Send + Sync + 'static {
    /// Its entry in the catalogue.
    fn code(&self) -> &'static ErrorCode;

    /// What this case says beyond the title; shown to the client.
    fn detail(&self) -> Option<String> {
        None
    }

    /// The places of the request that are wrong.
    fn fields(&self) -> Vec<FieldError> {
        Vec::new()
    }

    /// How much is missing, where that is what is wrong: extension members of the problem (RFC 9457, section 3.2).
    fn shortfall(&self) -> Option<Shortfall> {
        None
    }

    /// Seconds after which the same request may be answered, where that is known. Told by answers that say
    /// "too many" or "not now" (429, 503), and then it is load, not a fault: it is not logged as one.
    fn retry_after_seconds(&self) -> Option<u64> {
        None
    }
}
