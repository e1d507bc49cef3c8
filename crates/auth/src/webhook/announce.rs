//! What happened, written down for whoever wants to hear of it, in the transaction in which it happens.

use super::model::EventType;
use super::store;
use crate::session::model::RevokeReason;
use mana_kernel::id::new_uuid;
use mana_kernel::{Clock, Rng, UserId};
use mana_platform::DbError;
use serde_json::{Value, json};
use sqlx::PgConnection;
use time::format_description::well_known::Rfc3339;

/// Of which shape `data` is. One that takes away or changes a member has another number.
const VERSION: u8 = 1;

/// Something that apps may want to hear of. Of people it has ids and nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct AppEvent {
    pub(super) kind: EventType,
    pub(super) user: String,
    pub(super) app: Option<String>,
    pub(super) amount: Option<i64>,
    data: Value,
}

impl AppEvent {
    /// Something about a user that concerns every app. Its data name the user.
    pub fn new(kind: EventType, user: &UserId, data: Value) -> Self {
        Self { kind, user: user.to_string(), app: None, amount: None, data }
    }

    /// A user spent mana in an app.
    pub fn spent(user: &UserId, app: &str, amount: i64, data: Value) -> Self {
        let spent = Self::new(EventType::CreditsSpent, user, data);
        Self { app: Some(app.to_owned()), amount: Some(amount), ..spent }
    }

    /// An account is gone.
    pub(crate) fn user_deleted(user: &UserId) -> Self {
        Self::new(EventType::UserDeleted, user, json!({ "userId": user }))
    }

    /// A session ended before its time.
    pub(crate) fn session_revoked(user: &UserId, session: &str, reason: RevokeReason) -> Self {
        let data = json!({ "userId": user, "sessionId": session, "reason": reason.as_str() });
        Self::new(EventType::SessionRevoked, user, data)
    }
}

/// Writes down what happened, with a delivery for each endpoint that wants to hear of it; nothing if there is none. One statement, whatever
/// their number.
///
/// # Errors
/// When the database fails: then it did not happen either.
pub async fn announce(
    connection: &mut PgConnection,
    (clock, rng): (&dyn Clock, &dyn Rng),
    events: &[AppEvent],
) -> Result<(), DbError> {
    if events.is_empty() {
        return Ok(());
    }
    let now = clock.now();
    let created_at = now.format(&Rfc3339).unwrap_or_default();
    let rows = events.iter().map(|event| {
        let id = new_uuid(clock, rng);
        let body = json!({
            "id": id,
            "type": event.kind.as_str(),
            "version": VERSION,
            "createdAt": created_at,
            "appId": event.app,
            "data": event.data,
        });
        (id, event, body.to_string())
    });
    store::insert_events(connection, &rows.collect::<Vec<_>>(), now).await
}
