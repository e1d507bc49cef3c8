//! `GET /api/v1/admin/apps/{appId}/webhooks/{id}/deliveries`: what became of what an endpoint was to be told.

use super::model::{DeliveryState, WebhookError, endpoint_of};
use super::store::{self, WebhookDelivery};
use crate::AuthState;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use mana_platform::http::{
    Admin, ApiError, Parameters, ProblemBody, next_link, not_a_cursor, read_cursor, within,
};
use mana_platform::{Database, DbError};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

/// Which deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeliveryParameters {
    /// Of this state.
    #[param(inline)]
    state: Option<DeliveryState>,
    /// Deliveries a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<i64>,
    /// Where the last page ended: as in its `Link` header.
    #[param(max_length = 64)]
    cursor: Option<String>,
}

/// Deliveries to an endpoint
///
/// The newest event first, of the last 30 days. A full page has a `Link` header with `rel="next"`, whose cursor continues after it.
#[utoipa::path(
    get, path = "/api/v1/admin/apps/{appId}/webhooks/{id}/deliveries", tag = "admin",
    params(
        ("appId" = String, Path, description = "The app", min_length = 1, max_length = 128),
        ("id" = String, Path, description = "As in the list of endpoints", max_length = 64),
        DeliveryParameters,
    ),
    responses(
        (status = 200, description = "A page", body = Vec<WebhookDelivery>),
        (status = 403, description = "Not an administrator", body = ProblemBody),
        (status = 404, description = "The app has no such endpoint", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn webhook_deliveries(
    State(auth): State<AuthState>,
    _: Admin,
    Path((app, id)): Path<(String, String)>,
    Parameters(parameters): Parameters<DeliveryParameters>,
) -> Result<Response, ApiError> {
    let DeliveryParameters { state, limit, cursor } = parameters;
    let limit = within(limit.unwrap_or(50), 1, 200, "limit")?;
    let before = cursor.as_deref().map(read_place).transpose()?;
    let (app, id) = endpoint_of(app, &id)?;
    let mut transaction = auth.database.begin().await?;
    if !store::lock_endpoint(&mut transaction, Some(app.as_str()), id).await? {
        return Err(WebhookError::NotFound.into());
    }
    let deliveries = store::list_deliveries(&mut transaction, id, state, before, limit).await?;
    drop(transaction);
    let is_full = i64::try_from(deliveries.len()).is_ok_and(|length| length == limit);
    let limit = limit.to_string();
    let asked = [("state", state.map(DeliveryState::as_str)), ("limit", Some(limit.as_str()))];
    let path = format!("/api/v1/admin/apps/{}/webhooks/{id}/deliveries", in_path(app.as_str()));
    let last = deliveries.last().filter(|_| is_full);
    let next = last.map(|delivery| next_link(&path, &asked, delivery.event_id.as_bytes()));
    Ok((next, Json(deliveries)).into_response())
}

/// What became of what an endpoint was to be told, the newest first.
///
/// # Errors
/// When the database fails.
pub async fn list_deliveries(
    database: &Database,
    endpoint: Uuid,
    state: Option<DeliveryState>,
    limit: i64,
) -> Result<Vec<WebhookDelivery>, DbError> {
    store::list_deliveries(&mut *database.acquire().await?, endpoint, state, None, limit).await
}

fn read_place(cursor: &str) -> Result<Uuid, ApiError> {
    Uuid::from_slice(&read_cursor(cursor)?).map_err(|_| not_a_cursor())
}

/// A segment of a path.
fn in_path(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::http::write_cursor;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_is_an_id_or_is_refused(
            bytes in prop_oneof![proptest::collection::vec(any::<u8>(), 16), proptest::collection::vec(any::<u8>(), 0..40)]
        ) {
            let read = read_place(&write_cursor(&bytes)).ok();
            prop_assert_eq!(read, Uuid::from_slice(&bytes).ok());
        }

        #[test]
        fn what_is_read_as_a_cursor_was_written_as_one(text in "[A-Za-z0-9_-]{21}[AQgw]|[A-Za-z0-9_=+/-]{0,30}|\\PC{0,30}") {
            if let Ok(id) = read_place(&text) {
                prop_assert_eq!(write_cursor(id.as_bytes()), text);
            }
        }
    }
}
