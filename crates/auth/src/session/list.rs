//! `GET /api/v1/auth/sessions`: where the caller is signed in.

use super::device::{Device, DeviceKind};
use super::model::Session;
use super::store;
use crate::AuthState;
use axum::Json;
use axum::extract::State;
use mana_kernel::SessionId;
use mana_platform::http::{ApiError, Caller};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A device that is signed in.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceResponse {
    /// Its id.
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    pub id: SessionId,
    /// The device's own id.
    #[schema(max_length = 512)]
    pub device_id: Option<String>,
    /// Its name.
    #[schema(max_length = 128)]
    pub device_name: Option<String>,
    /// What the program says of itself.
    #[schema(max_length = 512)]
    pub user_agent: Option<String>,
    /// Family of the browser or program, read from the user agent; null when unknown.
    #[schema(max_length = 64)]
    pub browser: Option<&'static str>,
    /// Operating system; null when unknown.
    #[schema(max_length = 64)]
    pub os: Option<&'static str>,
    /// What sort of device it is; null when unknown.
    pub device: Option<DeviceKind>,
    /// The address that it was last used from.
    #[schema(max_length = 45)]
    pub ip_address: Option<String>,
    /// Whether the person asked to stay signed in for longer.
    pub remember_me: bool,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last used.
    #[serde(with = "time::serde::rfc3339")]
    pub last_activity_at: OffsetDateTime,
    /// The app whose backend opened it, for which the person has proven nothing; absent if the person signed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub opened_by_app: Option<String>,
    /// Whether it is the session of this request.
    pub current: bool,
}

impl DeviceResponse {
    /// Of a session, to whoever asks from within `current`.
    pub(crate) fn of(session: Session, current: Option<&SessionId>) -> Self {
        let Device { browser, os, kind } = session.user_agent.as_deref().map(Device::of).unwrap_or_default();
        Self {
            browser,
            os,
            device: kind,
            current: current == Some(&session.id),
            id: session.id,
            device_id: session.device_id,
            device_name: session.device_name,
            user_agent: session.user_agent,
            ip_address: session.ip_address,
            remember_me: session.remember_me,
            created_at: session.created_at,
            last_activity_at: session.last_activity_at,
            opened_by_app: session.opened_by_app,
        }
    }
}

/// Sessions that live
///
/// The last active first.
#[utoipa::path(
    get, path = "/api/v1/auth/sessions", tag = "auth",
    responses((status = 200, description = "The sessions", body = Vec<DeviceResponse>)),
    security(("bearer" = [])),
)]
pub(crate) async fn sessions(
    State(auth): State<AuthState>,
    caller: Caller,
) -> Result<Json<Vec<DeviceResponse>>, ApiError> {
    let mut transaction = auth.database.begin_as(&caller.user_id).await?;
    let live = store::list_live(&mut transaction, &caller.user_id, auth.clock.now()).await?;
    let devices = live.into_iter().map(|session| DeviceResponse::of(session, Some(&caller.session_id)));
    Ok(Json(devices.collect()))
}
