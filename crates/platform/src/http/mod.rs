//! What every request and answer has in common: problems, strict bodies, callers, request ids, headers, limits.

pub mod body;
pub mod caller;
pub mod client_address;
pub mod codes;
pub mod cursor;
pub mod frame;
pub mod host;
pub mod language;
mod meters;
pub mod page;
pub mod problem;
pub mod query;
pub mod redirect;
pub mod service;
mod strict;

pub use body::{OptionalBody, Valid};
pub use caller::{Admin, Authenticate, Caller, ClientInfo, FreshAdmin, FreshCaller};
pub use client_address::{AddressBucket, NetworkBucket};
pub use cursor::{next_link, not_a_cursor, read_cursor, write_cursor};
pub use frame::current_request_id;
pub use language::Language;
pub use page::{Head, page, page_leading_to, see_other};
pub use problem::{AnsweredCode, ApiError, ProblemBody};
pub use query::{Parameters, within};
pub use redirect::RedirectTargets;
pub use service::{
    ActingApp, AuthenticateService, KeyApp, Principal, Scope, Scopes, ServiceCaller, ServiceKey,
};
