//! The catalogue of errors that no feature owns.

use mana_kernel::{ErrorCode, Kind};

/// Our fault, cause in the log.
pub static INTERNAL: ErrorCode = ErrorCode {
    code: "service.internal",
    kind: Kind::Internal,
    title: "Something went wrong on our side",
    word: None,
    way_out: "Retry later with the same Idempotency-Key. If it stays, report the request id (`instance`): the operator finds the cause in the log by it.",
};
/// Our fault, and it passes.
pub static UNAVAILABLE: ErrorCode = ErrorCode {
    code: "service.unavailable",
    kind: Kind::Unavailable,
    title: "The service can't answer right now",
    word: None,
    way_out: "Wait as long as Retry-After says and send the same request again. Nothing that was acknowledged is lost; keep the user signed in.",
};
/// The request took longer than the limit.
pub static TIMEOUT: ErrorCode = ErrorCode {
    code: "service.timeout",
    kind: Kind::Unavailable,
    title: "The request took too long",
    word: None,
    way_out: "Send it again after Retry-After; with an Idempotency-Key a spend that did happen is not repeated.",
};
/// No such path.
pub static UNKNOWN_PATH: ErrorCode = ErrorCode {
    code: "request.unknown_path",
    kind: Kind::NotFound,
    title: "There is nothing at this path",
    word: None,
    way_out: "Compare the path with the list at /docs; most paths begin with /api/v1.",
};
/// Path yes, method no.
pub static METHOD_NOT_ALLOWED: ErrorCode = ErrorCode {
    code: "request.method_not_allowed",
    kind: Kind::MethodNotAllowed,
    title: "This path does not take this method",
    word: None,
    way_out: "Use a method of the answer's Allow header.",
};
/// A browser sent it for a page of a site that is not of the family.
pub static FOREIGN_SITE: ErrorCode = ErrorCode {
    code: "request.foreign_site",
    kind: Kind::Forbidden,
    title: "Pages of this site may not write here",
    word: None,
    way_out: "Add the page's origin (scheme://host:port, exactly; `detail` names it) to CORS_ORIGINS if it belongs to the family. Programs that are no browsers send no Origin.",
};
/// Body over the limit.
pub static BODY_TOO_LARGE: ErrorCode = ErrorCode {
    code: "request.body_too_large",
    kind: Kind::PayloadTooLarge,
    title: "The body is too large",
    word: None,
    way_out: "Send at most 64 KiB; /api/v1/credits/use/batch takes 1 MiB.",
};
/// Not declared as JSON.
pub static NOT_JSON: ErrorCode = ErrorCode {
    code: "request.unsupported_media_type",
    kind: Kind::UnsupportedMediaType,
    title: "The body is of the wrong media type",
    word: None,
    way_out: "Send the body as /docs says, for nearly all operations as JSON with the header `Content-Type: application/json`.",
};
/// Not parseable.
pub static MALFORMED_JSON: ErrorCode = ErrorCode {
    code: "request.malformed_json",
    kind: Kind::Invalid,
    title: "The body is not valid JSON",
    word: None,
    way_out: "Check the body with a JSON parser; the problem's detail names line and column.",
};
/// JSON, but not what the operation takes.
pub static INVALID_BODY: ErrorCode = ErrorCode {
    code: "request.invalid_body",
    kind: Kind::Invalid,
    title: "The body does not fit this operation",
    word: None,
    way_out: "`errors` names each place by JSON Pointer with what it must be. Fields that the operation does not know are refused.",
};
/// Query string out of bounds.
pub static INVALID_QUERY: ErrorCode = ErrorCode {
    code: "request.invalid_query",
    kind: Kind::Invalid,
    title: "The query string does not fit this operation",
    word: None,
    way_out: "Compare names and bounds of the parameters with /docs. A cursor is taken as it came from the last page, unchanged.",
};
/// A header can't be used.
pub static INVALID_HEADER: ErrorCode = ErrorCode {
    code: "request.invalid_header",
    kind: Kind::Invalid,
    title: "A header does not fit this operation",
    word: None,
    way_out: "The problem's detail names the header and what it must be.",
};
/// No usable bearer token.
pub static UNAUTHENTICATED: ErrorCode = ErrorCode {
    code: "auth.unauthenticated",
    kind: Kind::Unauthenticated,
    title: "Unauthorized",
    word: None,
    way_out: "Send `Authorization: Bearer <access token>` with a token that is not expired and whose session was not ended: `detail`, and `error_description` of the answer's WWW-Authenticate, say which it is. Get a new one from /api/v1/auth/refresh.",
};
/// The caller is no administrator.
pub static ADMIN_REQUIRED: ErrorCode = ErrorCode {
    code: "auth.admin_required",
    kind: Kind::Forbidden,
    title: "Only administrators may do this",
    word: None,
    way_out: "Sign in as an administrator. `mana-core-auth admin claim-link` makes the first one; the role is looked up anew by each request.",
};
/// A bearer token and a service key in one request.
pub static AMBIGUOUS_CREDENTIALS: ErrorCode = ErrorCode {
    code: "request.ambiguous_credentials",
    kind: Kind::Invalid,
    title: "The request has a service key and an Authorization header",
    word: None,
    way_out: "Send one of them: X-Service-Key to act as an app, Authorization to act as a user.",
};
/// No usable service key.
pub static SERVICE_UNAUTHENTICATED: ErrorCode = ErrorCode {
    code: "service.unauthenticated",
    kind: Kind::Unauthenticated,
    title: "The service key is not accepted",
    word: None,
    way_out: "Send `X-Service-Key: <key>` with a key that was not revoked, as `mana-core-auth service-keys create` printed it. A user's token is none.",
};
/// The key allows something else.
pub static SERVICE_SCOPE_MISSING: ErrorCode = ErrorCode {
    code: "service.scope_missing",
    kind: Kind::Forbidden,
    title: "The service key does not allow this",
    word: None,
    way_out: "The problem's detail names the scope. Scopes of a key never change: have another one made with that scope, and revoke this one.",
};
/// The key is another app's.
pub static SERVICE_APP_MISMATCH: ErrorCode = ErrorCode {
    code: "service.app_mismatch",
    kind: Kind::Forbidden,
    title: "The service key belongs to another app than X-App-Id names",
    word: None,
    way_out: "Leave X-App-Id out, or use the key of that app.",
};
/// The key is no one app's, and the request is about none.
pub static SERVICE_APP_MISSING: ErrorCode = ErrorCode {
    code: "service.app_missing",
    kind: Kind::Invalid,
    title: "The service key may act as any app, and the request names none",
    word: None,
    way_out: "Send X-App-Id with the app that acts, or use a key that was made for it.",
};
/// The key is no one app's, and only an app may do this.
pub static SERVICE_KEY_UNBOUND: ErrorCode = ErrorCode {
    code: "service.key_unbound",
    kind: Kind::Forbidden,
    title: "Only a service key of one app may do this",
    word: None,
    way_out: "Have a key made for the app (`--app`, or `appId`): X-App-Id does not make one of a key for any app. The app of a key never changes.",
};
/// Too many requests from an address or for an account.
pub static RATE_LIMITED: ErrorCode = ErrorCode {
    code: "request.rate_limited",
    kind: Kind::TooManyRequests,
    title: "The rate limit is reached",
    word: None,
    way_out: "Wait as long as Retry-After says, exactly; the headers RateLimit and RateLimit-Policy tell beforehand what is left. The limit is the setting of the policy's name (RATE_LIMIT_REGISTER of `register`, RATE_LIMIT_MAX of `other`), or that of the service key (`service-key`); RATE_LIMIT_MAX=0 switches all off, for tests. A backend that calls for many users uses a service key, or needs a higher limit: docs/OPERATIONS.md.",
};
/// Too many refreshes from an address. Not 429: clients take every 4xx of this route for the end of the session.
pub static REFRESH_LIMITED: ErrorCode = ErrorCode {
    code: "auth.refresh_limited",
    kind: Kind::Unavailable,
    title: "Too many refreshes: the rate limit is reached",
    word: None,
    way_out: "Keep the tokens and send the same request again after Retry-After: the user stays signed in.",
};
/// Some other 4xx of the HTTP layer itself.
pub static BAD_REQUEST: ErrorCode = ErrorCode {
    code: "request.invalid",
    kind: Kind::Invalid,
    title: "The request can't be understood",
    word: None,
    way_out: "Compare the request with /docs.",
};

/// All of the above, for docs/ERRORS.md.
pub static CODES: &[&ErrorCode] = &[
    &INTERNAL,
    &UNAVAILABLE,
    &TIMEOUT,
    &UNKNOWN_PATH,
    &METHOD_NOT_ALLOWED,
    &FOREIGN_SITE,
    &BODY_TOO_LARGE,
    &NOT_JSON,
    &MALFORMED_JSON,
    &INVALID_BODY,
    &INVALID_QUERY,
    &INVALID_HEADER,
    &UNAUTHENTICATED,
    &ADMIN_REQUIRED,
    &AMBIGUOUS_CREDENTIALS,
    &SERVICE_UNAUTHENTICATED,
    &SERVICE_SCOPE_MISSING,
    &SERVICE_APP_MISMATCH,
    &SERVICE_APP_MISSING,
    &SERVICE_KEY_UNBOUND,
    &RATE_LIMITED,
    &REFRESH_LIMITED,
    &BAD_REQUEST,
];
