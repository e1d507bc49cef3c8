//! `/api/v1/admin/users/{userId}/sessions`: where a user is signed in, and the end of that.

use super::act::{Act, lock, session_of, user_of};
use super::model::AdminError;
use crate::security_event::EventKind;
use crate::session::end::Ended;
use crate::session::list::DeviceResponse;
use crate::session::model::RevokeReason;
use crate::session::store::{self, Choice};
use crate::{AuthState, account};
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use mana_kernel::{SessionId, UserId};
use mana_platform::http::{Admin, ApiError, ClientInfo, ProblemBody};
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A user's sessions that live
///
/// The last active first. None of them is `current`, not even the caller's own.
#[utoipa::path(
    get, path = "/api/v1/admin/users/{userId}/sessions", tag = "admin",
    params(("userId" = String, Path, description = "The user", min_length = 1, max_length = 64)),
    responses(
        (status = 200, description = "The sessions", body = Vec<DeviceResponse>),
        (status = 403, description = "Not an administrator", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn sessions_of_user(
    State(auth): State<AuthState>,
    _: Admin,
    Path(user): Path<String>,
) -> Result<Json<Vec<DeviceResponse>>, ApiError> {
    let user = user_of(&user)?;
    let mut transaction = auth.database.begin().await?;
    Ok(Json(list(&mut transaction, &user, auth.clock.now()).await?))
}

/// The sessions that live, the last active first.
pub(super) async fn list(
    connection: &mut PgConnection,
    user: &UserId,
    now: OffsetDateTime,
) -> Result<Vec<DeviceResponse>, AdminError> {
    if account::store::find_account(connection, user).await?.is_none() {
        return Err(AdminError::UserNotFound);
    }
    let live = store::list_live(connection, user, now).await?;
    Ok(live.into_iter().map(|session| DeviceResponse::of(session, None)).collect())
}

/// Ends all of a user's sessions
///
/// Everywhere, at once. The user can sign in again.
#[utoipa::path(
    delete, path = "/api/v1/admin/users/{userId}/sessions", tag = "admin",
    params(("userId" = String, Path, description = "The user", min_length = 1, max_length = 64)),
    responses(
        (status = 204, description = "Ended, if there were any"),
        (status = 403, description = "Not an administrator", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn end_sessions_of_user(
    State(auth): State<AuthState>,
    Admin(admin): Admin,
    client: ClientInfo,
    Path(user): Path<String>,
) -> Result<StatusCode, ApiError> {
    let user = user_of(&user)?;
    let act = Act::of_request(&auth, &admin, &client, None);
    let mut transaction = act.begin(&auth.database).await?;
    end_sessions(&mut transaction, &act, &user).await?.commit(transaction, &auth).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends one of a user's sessions
#[utoipa::path(
    delete, path = "/api/v1/admin/users/{userId}/sessions/{id}", tag = "admin",
    params(
        ("userId" = String, Path, description = "The user", min_length = 1, max_length = 64),
        ("id" = String, Path, description = "As in the list of the user's sessions", min_length = 1, max_length = 64),
    ),
    responses(
        (status = 204, description = "Ended"),
        (status = 403, description = "Not an administrator", body = ProblemBody),
        (status = 404, description = "No such user, or no live session of theirs", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn end_session_of_user(
    State(auth): State<AuthState>,
    Admin(admin): Admin,
    client: ClientInfo,
    Path((user, session)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (user, session) = (user_of(&user)?, session_of(&session)?);
    let act = Act::of_request(&auth, &admin, &client, None);
    let mut transaction = act.begin(&auth.database).await?;
    end_session(&mut transaction, &act, &user, &session).await?.commit(transaction, &auth).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends whatever sessions there are. It is written down also if there are none.
pub(super) async fn end_sessions(
    connection: &mut PgConnection,
    act: &Act<'_>,
    user: &UserId,
) -> Result<Ended, AdminError> {
    lock(connection, user).await?;
    let ended = act.end_chosen(connection, user, Choice::All, RevokeReason::EndedByAdmin).await?;
    act.record(connection, EventKind::SessionsEnded(ended.count()), user).await?;
    Ok(ended)
}

/// Ends one.
pub(super) async fn end_session(
    connection: &mut PgConnection,
    act: &Act<'_>,
    user: &UserId,
    session: &SessionId,
) -> Result<Ended, AdminError> {
    lock(connection, user).await?;
    let chosen = Choice::This(session);
    let ended = act.end_chosen(connection, user, chosen, RevokeReason::EndedByAdmin).await?;
    if ended.count() == 0 { Err(AdminError::SessionNotFound) } else { Ok(ended) }
}
