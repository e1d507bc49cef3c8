//! `/api/v1/auth/trusted-devices`: browsers that are not asked for the second factor.

use super::model::TwoFactorError;
use super::store::{self, TrustedDevice};
use crate::AuthState;
use crate::session::hold::refuse_minted;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use mana_platform::http::{ApiError, Caller, ProblemBody};
use uuid::Uuid;

/// The browsers that are not asked for the second factor
#[utoipa::path(
    get, path = "/api/v1/auth/trusted-devices", operation_id = "list_trusted_devices", tag = "two-factor",
    responses((status = 200, description = "The newest 100, the newest first", body = Vec<TrustedDevice>)),
    security(("bearer" = [])),
)]
pub(crate) async fn list(
    State(auth): State<AuthState>,
    caller: Caller,
) -> Result<Json<Vec<TrustedDevice>>, ApiError> {
    let mut transaction = auth.database.begin_as(&caller.user_id).await?;
    Ok(Json(store::list_trusted_devices(&mut transaction, &caller.user_id, auth.clock.now()).await?))
}

/// Asks a browser for the second factor again
#[utoipa::path(
    delete, path = "/api/v1/auth/trusted-devices/{id}", operation_id = "forget_trusted_device", tag = "two-factor",
    params(("id" = String, Path, description = "As in the list", max_length = 64)),
    responses(
        (status = 204, description = "It is asked from now on"),
        (status = 403, description = "By a session that an app opened; or sent by a browser for a page of a foreign site", body = ProblemBody),
        (status = 404, description = "No such browser of the caller's", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn revoke(
    State(auth): State<AuthState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    // PostgreSQL fails at a text that it can't hold.
    let id = Uuid::parse_str(&id).map_err(|_| TwoFactorError::UnknownDevice)?.to_string();
    let mut transaction = auth.database.begin().await?;
    refuse_minted(&mut transaction, &caller).await?;
    if !store::delete_trusted_device(&mut transaction, &caller.user_id, &id).await? {
        return Err(TwoFactorError::UnknownDevice.into());
    }
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
