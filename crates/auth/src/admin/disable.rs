//! `POST /api/v1/admin/users/{userId}/disable`: an account is shut.

use super::act::{Act, lock};
use super::change::Change;
use super::demote::spare_last_admin;
use super::model::{ActRequest, AdminError, AdminUser};
use crate::AuthState;
use crate::account::store::{Account, update_disabled};
use crate::security_event::EventKind;
use crate::session::end::Ended;
use crate::session::model::RevokeReason;
use crate::session::store::Choice;
use crate::two_factor::store::delete_half_proofs;
use axum::Json;
use axum::extract::{Path, State};
use mana_kernel::UserId;
use mana_platform::http::{Admin, ApiError, ClientInfo, ProblemBody, Valid};
use sqlx::PgConnection;

/// Disables an account
///
/// Its sessions end, and it can't be signed in to until it is enabled again. Nothing happens to one that is disabled.
#[utoipa::path(
    post, path = "/api/v1/admin/users/{userId}/disable", tag = "admin",
    params(("userId" = String, Path, description = "The user", min_length = 1, max_length = 64)),
    request_body = ActRequest,
    responses(
        (status = 200, description = "The user afterwards", body = AdminUser),
        (status = 403, description = "Not an administrator", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
        (status = 409, description = "The last administrator's", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn disable_user(
    State(auth): State<AuthState>,
    Admin(admin): Admin,
    client: ClientInfo,
    Path(user): Path<String>,
    Valid(request): Valid<ActRequest>,
) -> Result<Json<AdminUser>, ApiError> {
    Change::Disable.answer(&auth, &admin, &client, &user, request).await
}

/// Shuts the account, and ends whatever opens it.
pub(super) async fn disable(
    connection: &mut PgConnection,
    act: &Act<'_>,
    user: &UserId,
) -> Result<(Account, Ended), AdminError> {
    let mut account = lock(connection, user).await?;
    if account.disabled_at.is_some() {
        return Ok((account, Ended::default()));
    }
    spare_last_admin(connection, &account).await?;
    let ended = act.end_chosen(connection, user, Choice::All, RevokeReason::UserDisabled).await?;
    delete_half_proofs(connection, user).await?;
    let now = act.now();
    update_disabled(connection, user, Some(now), now).await?;
    act.record(connection, EventKind::AccountDisabled, user).await?;
    account.disabled_at = Some(now);
    Ok((account, ended))
}
