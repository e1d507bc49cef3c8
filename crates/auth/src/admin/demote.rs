//! `POST /api/v1/admin/users/{userId}/demote`: an account is an administrator's no more.

use super::act::{Act, lock};
use super::change::Change;
use super::model::{ActRequest, AdminError, AdminUser};
use crate::AuthState;
use crate::account::model::Role;
use crate::account::store::{Account, exists_admin_besides, update_role};
use crate::security_event::EventKind;
use crate::session::end::Ended;
use crate::session::model::RevokeReason;
use crate::session::store::Choice;
use axum::Json;
use axum::extract::{Path, State};
use mana_kernel::UserId;
use mana_platform::http::{ApiError, ClientInfo, FreshAdmin, ProblemBody, Valid};
use sqlx::PgConnection;

/// Makes an administrator a user
///
/// Needs a fresh proof, by the second factor if the asking administrator has one. The user's sessions end, so that no token says of it
/// any more that it is an administrator's. Nothing happens to one who is none.
#[utoipa::path(
    post, path = "/api/v1/admin/users/{userId}/demote", tag = "admin",
    params(("userId" = String, Path, description = "The user", min_length = 1, max_length = 64)),
    request_body = ActRequest,
    responses(
        (status = 200, description = "The user afterwards", body = AdminUser),
        (status = 403, description = "Not an administrator, or the sign-in is too old", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
        (status = 409, description = "The last administrator", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn demote_user(
    State(auth): State<AuthState>,
    FreshAdmin(admin): FreshAdmin,
    client: ClientInfo,
    Path(user): Path<String>,
    Valid(request): Valid<ActRequest>,
) -> Result<Json<AdminUser>, ApiError> {
    Change::Demote.answer(&auth, &admin, &client, &user, request).await
}

/// Makes the account a user's.
pub(super) async fn demote(
    connection: &mut PgConnection,
    act: &Act<'_>,
    user: &UserId,
) -> Result<(Account, Ended), AdminError> {
    let mut account = lock(connection, user).await?;
    if account.user.role != Role::Admin {
        return Ok((account, Ended::default()));
    }
    spare_last_admin(connection, &account).await?;
    update_role(connection, user, Role::User, act.now()).await?;
    let ended = act.end_chosen(connection, user, Choice::All, RevokeReason::RoleChanged).await?;
    act.record(connection, EventKind::NoLongerAdmin, user).await?;
    account.user.role = Role::User;
    Ok((account, ended))
}

/// Goes on only if somebody administrates without this account. In a transaction that holds others off acting, else it is a guess.
pub(crate) async fn spare_last_admin(
    connection: &mut PgConnection,
    account: &Account,
) -> Result<(), AdminError> {
    let administrates = account.user.role == Role::Admin && account.disabled_at.is_none();
    if administrates && !exists_admin_besides(connection, &account.user.id).await? {
        return Err(AdminError::LastAdmin);
    }
    Ok(())
}
