//! `DELETE /api/v1/auth/sessions/{id}` and `DELETE /api/v1/auth/sessions`: signs out elsewhere.

use super::end::end_chosen;
use super::hold::refuse_minted;
use super::model::{RevokeReason, SessionError};
use super::store::Choice;
use crate::security_event::Origin;
use crate::{Auth, AuthState, account};
use axum::extract::{Path, State};
use http::StatusCode;
use mana_kernel::SessionId;
use mana_platform::http::{ApiError, Caller, ClientInfo, ProblemBody};

/// Ends one session
///
/// Its refresh tokens in all apps and its cookie end with it. Ending the current one signs out.
#[utoipa::path(
    delete, path = "/api/v1/auth/sessions/{id}", tag = "auth",
    params(("id" = String, Path, description = "As in the list of sessions", max_length = 64)),
    responses(
        (status = 204, description = "Ended"),
        (status = 403, description = "Another one, by a session that an app opened; or sent by a browser for a page of a foreign site", body = ProblemBody),
        (status = 404, description = "No live session of the caller's", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn revoke(
    State(auth): State<AuthState>,
    caller: Caller,
    client: ClientInfo,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let id: SessionId = id.parse().map_err(|_| SessionError::NotFound)?;
    let ended = end(&auth, &caller, &client, Choice::This(&id)).await?;
    if ended == 0 { Err(SessionError::NotFound.into()) } else { Ok(StatusCode::NO_CONTENT) }
}

/// Ends all sessions but the current one
#[utoipa::path(
    delete, path = "/api/v1/auth/sessions", tag = "auth",
    responses(
        (status = 204, description = "Ended, if there were any"),
        (status = 403, description = "By a session that an app opened; or sent by a browser for a page of a foreign site", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn revoke_others(
    State(auth): State<AuthState>,
    caller: Caller,
    client: ClientInfo,
) -> Result<StatusCode, ApiError> {
    end(&auth, &caller, &client, Choice::AllBut(&caller.session_id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends those of the caller's live sessions that are chosen, however many, and says how many.
async fn end(
    auth: &Auth,
    caller: &Caller,
    client: &ClientInfo,
    choice: Choice<'_>,
) -> Result<usize, SessionError> {
    let mut transaction = auth.database.begin().await?;
    let (user, reason) = (&caller.user_id, RevokeReason::RevokedByOwner);
    let origin = Origin::of_request(client);
    // An app may end its own session, not those of whoever it opened it for.
    let is_own = matches!(choice, Choice::This(id) if *id == caller.session_id);
    if !is_own {
        refuse_minted(&mut transaction, caller).await?;
    }
    // A link that was mailed for one of them is confirmed by now, or is void.
    account::store::lock_user(&mut transaction, user).await?;
    let ended = end_chosen(&mut transaction, auth, user, choice, reason, &origin).await?;
    Ok(ended.commit(transaction, auth).await?)
}
