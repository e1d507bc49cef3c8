//! The second factor: who needs one, how it is set up and given, and sign-ins that wait for it. Owns `auth.two_factor_auth`,
//! `auth.recovery_codes`, `auth.pending_sign_ins` and `auth.trusted_devices`.

mod by_cookie;
mod challenge;
mod enforce;
mod enrol_pending;
mod guess;
mod manage;
pub(crate) mod model;
mod passkey;
mod reauthenticate;
pub(crate) mod recovery_code;
mod rekey;
mod set_up;
pub(crate) mod store;
pub(crate) mod totp;
mod trusted_devices;
mod verify;

pub(crate) use challenge::{Challenge, Judgement, SecondFactorRequired, judge};
pub use enforce::{end_old_sessions_without_factor, end_sessions_without_factor};
pub use model::TwoFactorError;
pub use rekey::rekey_secrets;

use crate::AuthState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new()
        .routes(routes!(manage::status, manage::disable))
        .routes(routes!(manage::enrol))
        .routes(routes!(manage::confirm))
        .routes(routes!(manage::renew_recovery_codes))
        .routes(routes!(verify::verify))
        .routes(routes!(passkey::passkey_options))
        .routes(routes!(passkey::verify_passkey))
        .routes(routes!(passkey::reauthentication_options))
        .routes(routes!(passkey::reauthenticate_with_passkey))
        .routes(routes!(enrol_pending::enrol_pending))
        .routes(routes!(enrol_pending::confirm_pending))
        .routes(routes!(reauthenticate::reauthenticate))
        .routes(routes!(trusted_devices::list))
        .routes(routes!(trusted_devices::revoke))
        .routes(routes!(by_cookie::enable))
        .routes(routes!(by_cookie::verify_totp))
        .routes(routes!(by_cookie::verify_backup_code))
        .routes(routes!(by_cookie::disable))
        .routes(routes!(by_cookie::generate_backup_codes))
}
