//! `POST /api/v1/auth/resend-verification`: the mail that confirms an address, once more.

use super::asked::{Asked, Wanted, ask};
use super::{Acknowledged, AppUrl};
use crate::AuthState;
use crate::account::model::Email;
use axum::Json;
use axum::extract::State;
use mana_platform::http::{ApiError, Language, Valid};
use serde::Deserialize;
use utoipa::ToSchema;

/// Who waits for the mail.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ResendRequest {
    email: Email,
    /// The app to come back to.
    #[schema(value_type = Option<String>, format = "uri", max_length = 2048)]
    source_app_url: Option<AppUrl>,
}

/// Sends the mail that confirms an address again
///
/// Answers the same whether the address has an account, and one to be confirmed, or not. A newer link voids the older ones.
#[utoipa::path(
    post, path = "/api/v1/auth/resend-verification", tag = "auth",
    request_body = ResendRequest,
    responses((status = 200, description = "Asked for", body = Acknowledged)),
)]
pub(crate) async fn resend_verification(
    State(auth): State<AuthState>,
    language: Language,
    Valid(request): Valid<ResendRequest>,
) -> Result<Json<Acknowledged>, ApiError> {
    let app = request.source_app_url.as_ref().map(AppUrl::as_str);
    ask(&auth, Asked::new(&auth, Wanted::VerifyEmail, &request.email, language, app)).await?;
    Ok(Json(Acknowledged::with(
        "If the address has an account that is not confirmed yet, a mail is on its way",
    )))
}
