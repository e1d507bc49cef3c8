//! `POST /api/v1/auth/validate`: whether an access token is good, for backends that don't verify it themselves.

use super::access::{self, Claims};
use crate::AuthState;
use axum::Json;
use axum::extract::State;
use mana_platform::http::{ApiError, Valid};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"token": "the accessToken of a sign-in"})))]
pub(crate) struct ValidateRequest {
    /// An access token.
    #[schema(value_type = String, max_length = 65536)]
    token: SecretString,
}

/// The verdict; the status is 200 either way.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ValidateResponse {
    valid: bool,
    /// What the token claims, if it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Claims>,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    error: Option<String>,
}

/// Checks an access token
///
/// Good means: signed by this service, not expired, and its session has not ended.
#[utoipa::path(
    post, path = "/api/v1/auth/validate", tag = "auth",
    request_body = ValidateRequest,
    responses((status = 200, description = "The verdict, good or bad", body = ValidateResponse)),
)]
pub(crate) async fn validate(
    State(auth): State<AuthState>,
    Valid(request): Valid<ValidateRequest>,
) -> Result<Json<ValidateResponse>, ApiError> {
    let verdict = access::verify_live(&auth, request.token.expose_secret()).await?;
    Ok(Json(match verdict {
        Ok(claims) => ValidateResponse { valid: true, payload: Some(claims), error: None },
        Err(reason) => ValidateResponse { valid: false, payload: None, error: Some(reason.to_string()) },
    }))
}
