//! `POST /api/v1/admin/users/{userId}/delete`: the end of an account, by an administrator.

use super::act::{Act, user_of};
use super::demote::spare_last_admin;
use super::model::{ActRequest, AdminError, AdminUser};
use crate::AuthState;
use crate::account::delete::{Erased, Eraser};
use crate::account::store::{find_account, lock_account_exclusively};
use axum::Json;
use axum::extract::{Path, State};
use mana_kernel::UserId;
use mana_platform::http::{ApiError, ClientInfo, FreshAdmin, Language, ProblemBody, Valid};
use sqlx::PgConnection;

/// Deletes an account
///
/// As its owner could: sessions end, name, address, picture and devices are erased, the wallet is closed; the owner is told by mail. Needs a
/// fresh proof, by the second factor if the asking administrator has one. Nothing happens to one that was deleted before.
#[utoipa::path(
    post, path = "/api/v1/admin/users/{userId}/delete", tag = "admin",
    params(("userId" = String, Path, description = "The user", min_length = 1, max_length = 64)),
    request_body = ActRequest,
    responses(
        (status = 200, description = "What is left", body = AdminUser),
        (status = 403, description = "Not an administrator, or the sign-in is too old", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
        (status = 409, description = "The last administrator's", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn delete_user(
    State(auth): State<AuthState>,
    FreshAdmin(admin): FreshAdmin,
    client: ClientInfo,
    Path(user): Path<String>,
    Valid(request): Valid<ActRequest>,
) -> Result<Json<AdminUser>, ApiError> {
    let user = user_of(&user)?;
    let act = Act::of_request(&auth, &admin, &client, Some(request.reason.into()));
    let mut transaction = act.begin(&auth.database).await?;
    if let Some(Erased { ended, mail }) = delete(&mut transaction, &Eraser::of(&auth), &act, &user).await? {
        ended.commit(transaction, &auth).await?;
        drop(mail);
    }
    let left = find_account(&mut *auth.database.begin().await?, &user).await?;
    Ok(Json(AdminUser::of(left.ok_or(AdminError::UserNotFound)?)))
}

/// Erases the account; nothing if that was done before. In which language its owner reads is not known.
pub(super) async fn delete(
    connection: &mut PgConnection,
    eraser: &Eraser<'_>,
    act: &Act<'_>,
    user: &UserId,
) -> Result<Option<Erased>, AdminError> {
    if find_account(connection, user).await?.is_none() {
        return Err(AdminError::UserNotFound);
    }
    eraser.close_wallet(connection, user).await?;
    let account = lock_account_exclusively(connection, user).await?.ok_or(AdminError::UserNotFound)?;
    if account.deleted_at.is_some() {
        return Ok(None);
    }
    spare_last_admin(connection, &account).await?;
    Ok(Some(eraser.erase(connection, &account.user, Language::default(), act.origin()).await?))
}
