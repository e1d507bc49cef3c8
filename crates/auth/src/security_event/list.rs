//! `GET /api/v1/auth/security-events`: what happened to the caller's account.

use super::store::{self, SecurityEvent};
use crate::AuthState;
use axum::Json;
use axum::extract::State;
use mana_platform::http::{ApiError, Caller, Parameters, within};
use serde::Deserialize;
use utoipa::IntoParams;

/// How many.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParameters {
    /// Events at most.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<i64>,
}

/// Security events
///
/// Newest first.
#[utoipa::path(
    get, path = "/api/v1/auth/security-events", tag = "auth",
    params(EventParameters),
    responses((status = 200, description = "The events", body = Vec<SecurityEvent>)),
    security(("bearer" = [])),
)]
pub(crate) async fn security_events(
    State(auth): State<AuthState>,
    caller: Caller,
    Parameters(parameters): Parameters<EventParameters>,
) -> Result<Json<Vec<SecurityEvent>>, ApiError> {
    let limit = within(parameters.limit.unwrap_or(50), 1, 500, "limit")?;
    let mut transaction = auth.database.begin_as(&caller.user_id).await?;
    Ok(Json(store::list_events(&mut transaction, &caller.user_id, limit).await?))
}
