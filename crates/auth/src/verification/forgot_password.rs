//! `POST /api/v1/auth/forgot-password`: a link to a new password, for whoever has the mailbox.

use super::Acknowledged;
use super::asked::{Asked, Wanted, ask};
use crate::AuthState;
use crate::account::model::Email;
use axum::Json;
use axum::extract::State;
use mana_kernel::Line;
use mana_platform::http::{ApiError, Language, Valid};
use serde::Deserialize;
use utoipa::ToSchema;

/// Who has forgotten the password.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ForgotPasswordRequest {
    email: Email,
    /// The app whose page `/reset-password` takes the new password; the one of this service, if a browser may not be sent there.
    redirect_to: Option<Line<0, 2048>>,
}

/// Mails a link to a new password
///
/// Answers the same, after the same time, whether the address has an account or not.
#[utoipa::path(
    post, path = "/api/v1/auth/forgot-password", tag = "auth",
    request_body = ForgotPasswordRequest,
    responses((status = 200, description = "Asked for", body = Acknowledged)),
)]
pub(crate) async fn forgot_password(
    State(auth): State<AuthState>,
    language: Language,
    Valid(request): Valid<ForgotPasswordRequest>,
) -> Result<Json<Acknowledged>, ApiError> {
    let app = request.redirect_to.as_ref().map(Line::as_str);
    ask(&auth, Asked::new(&auth, Wanted::ResetPassword, &request.email, language, app)).await?;
    Ok(Json(Acknowledged::with("If the address has an account, a link to a new password is on its way")))
}
