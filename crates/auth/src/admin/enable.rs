//! `POST /api/v1/admin/users/{userId}/enable`: an account is opened again.

use super::act::{Act, lock};
use super::change::Change;
use super::model::{ActRequest, AdminError, AdminUser};
use crate::AuthState;
use crate::account::store::{Account, update_disabled};
use crate::security_event::EventKind;
use crate::session::end::Ended;
use axum::Json;
use axum::extract::{Path, State};
use mana_kernel::UserId;
use mana_platform::http::{Admin, ApiError, ClientInfo, ProblemBody, Valid};
use sqlx::PgConnection;

/// Enables an account
///
/// It can be signed in to again; sessions that ended stay ended. Nothing happens to one that is enabled.
#[utoipa::path(
    post, path = "/api/v1/admin/users/{userId}/enable", tag = "admin",
    params(("userId" = String, Path, description = "The user", min_length = 1, max_length = 64)),
    request_body = ActRequest,
    responses(
        (status = 200, description = "The user afterwards", body = AdminUser),
        (status = 403, description = "Not an administrator", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
        (status = 409, description = "The account was deleted", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn enable_user(
    State(auth): State<AuthState>,
    Admin(admin): Admin,
    client: ClientInfo,
    Path(user): Path<String>,
    Valid(request): Valid<ActRequest>,
) -> Result<Json<AdminUser>, ApiError> {
    Change::Enable.answer(&auth, &admin, &client, &user, request).await
}

/// Opens the account again. No session ends.
pub(super) async fn enable(
    connection: &mut PgConnection,
    act: &Act<'_>,
    user: &UserId,
) -> Result<(Account, Ended), AdminError> {
    let mut account = lock(connection, user).await?;
    if account.deleted_at.is_some() {
        return Err(AdminError::Deleted);
    }
    if account.disabled_at.is_none() {
        return Ok((account, Ended::default()));
    }
    update_disabled(connection, user, None, act.now()).await?;
    act.record(connection, EventKind::AccountEnabled, user).await?;
    account.disabled_at = None;
    Ok((account, Ended::default()))
}
