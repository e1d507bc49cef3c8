//! `POST /api/v1/admin/users/{userId}/promote`: an account becomes an administrator's.

use super::act::{Act, lock};
use super::change::Change;
use super::model::{ActRequest, AdminError, AdminUser};
use crate::AuthState;
use crate::account::model::Role;
use crate::account::store::{Account, update_role};
use crate::security_event::EventKind;
use crate::session::end::Ended;
use crate::session::model::RevokeReason;
use crate::session::store::Choice;
use axum::Json;
use axum::extract::{Path, State};
use mana_kernel::UserId;
use mana_platform::http::{ApiError, ClientInfo, FreshAdmin, ProblemBody, Valid};
use sqlx::PgConnection;

/// Makes a user an administrator
///
/// Needs a fresh proof, by the second factor if the asking administrator has one. The user's sessions end: the next sign-in goes by the
/// rules for administrators. Nothing happens to one who is an administrator.
#[utoipa::path(
    post, path = "/api/v1/admin/users/{userId}/promote", tag = "admin",
    params(("userId" = String, Path, description = "The user", min_length = 1, max_length = 64)),
    request_body = ActRequest,
    responses(
        (status = 200, description = "The user afterwards", body = AdminUser),
        (status = 403, description = "Not an administrator, or the sign-in is too old", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
        (status = 409, description = "The account is disabled, or a program's", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn promote_user(
    State(auth): State<AuthState>,
    FreshAdmin(admin): FreshAdmin,
    client: ClientInfo,
    Path(user): Path<String>,
    Valid(request): Valid<ActRequest>,
) -> Result<Json<AdminUser>, ApiError> {
    Change::Promote.answer(&auth, &admin, &client, &user, request).await
}

/// Makes the account an administrator's.
pub(super) async fn promote(
    connection: &mut PgConnection,
    act: &Act<'_>,
    user: &UserId,
) -> Result<(Account, Ended), AdminError> {
    let mut account = lock(connection, user).await?;
    if account.disabled_at.is_some() || account.user.role == Role::Service {
        return Err(AdminError::NotPromotable);
    }
    if account.user.role == Role::Admin {
        return Ok((account, Ended::default()));
    }
    update_role(connection, user, Role::Admin, act.now()).await?;
    let ended = act.end_chosen(connection, user, Choice::All, RevokeReason::RoleChanged).await?;
    act.record(connection, EventKind::BecameAdmin, user).await?;
    account.user.role = Role::Admin;
    Ok((account, ended))
}
