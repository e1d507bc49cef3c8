//! Proofs that go through a mailbox: addresses that are confirmed, passwords that were forgotten, sign-ins by link and by code.
//! Owns `auth.verification_tokens` and `auth.mail_requests`.
//!
//! A link that is opened consumes nothing, because scanners of mail open them all: it leads to a page with a button. What anybody
//! may ask for, whoever's the address is, is only written down by the request (`asked`); a pass looks up later whether there is
//! such an account, so that the answer and its time say nothing.

mod adopt;
mod app_page;
mod asked;
mod change_email;
mod email_code;
mod forgot_password;
mod holder;
mod landing;
mod letters;
mod magic_link;
pub(crate) mod model;
mod page;
mod resend;
mod reset_password;
pub(crate) mod store;
mod token;
mod verify_email;

pub(crate) use app_page::AppUrl;
pub use asked::answer_asked;
pub(crate) use letters::{
    AccountDeleted, LowBalance, PasswordChanged, ProtectionChange, ProtectionChanged, Taken, TakenAway,
    TopUpPaused,
};
pub(crate) use verify_email::send_first;

use crate::AuthState;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new()
        .routes(routes!(resend::resend_verification))
        .routes(routes!(verify_email::page, verify_email::submit))
        .routes(routes!(forgot_password::forgot_password))
        .routes(routes!(reset_password::follow))
        .routes(routes!(reset_password::reset_password))
        .routes(routes!(reset_password::page, reset_password::submit))
        .routes(routes!(change_email::change_email))
        .routes(routes!(change_email::page, change_email::submit))
        .routes(routes!(magic_link::magic_link))
        .routes(routes!(magic_link::verify))
        .routes(routes!(magic_link::page, magic_link::submit))
        .routes(routes!(email_code::email_code))
        .routes(routes!(email_code::verify))
        .routes(routes!(landing::login))
        .routes(routes!(landing::verification_failed))
}

/// It is done, or will be.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Acknowledged {
    /// Always true.
    success: bool,
    /// What a person may read.
    #[schema(max_length = 255)]
    message: &'static str,
}

impl Acknowledged {
    /// With what a person may read.
    pub(crate) fn with(message: &'static str) -> Self {
        Self { success: true, message }
    }
}
