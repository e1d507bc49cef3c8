//! `GET /api/v1/admin/users/{userId}`: one account, with how it is protected, used and funded.

use super::act::user_of;
use super::model::{AdminError, AdminUser, AdminUserDetails, FactorSummary};
use crate::account::store::find_account;
use crate::password::store::exists_password;
use crate::session::store::count_live;
use crate::two_factor::store::find_factors;
use crate::{AuthState, Wallets};
use axum::Json;
use axum::extract::{Path, State};
use mana_kernel::{Clock, UserId};
use mana_platform::http::{Admin, ApiError, ProblemBody};
use sqlx::PgConnection;

/// One user
#[utoipa::path(
    get, path = "/api/v1/admin/users/{userId}", tag = "admin",
    params(("userId" = String, Path, description = "The user", min_length = 1, max_length = 64)),
    responses(
        (status = 200, description = "The user", body = AdminUserDetails),
        (status = 403, description = "Not an administrator", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn read_user(
    State(auth): State<AuthState>,
    _: Admin,
    Path(user): Path<String>,
) -> Result<Json<AdminUserDetails>, ApiError> {
    let user = user_of(&user)?;
    let mut transaction = auth.database.begin().await?;
    Ok(Json(read(&mut transaction, &*auth.clock, &*auth.wallets, &user).await?))
}

/// All that there is to see of an account at once.
pub(super) async fn read(
    connection: &mut PgConnection,
    clock: &dyn Clock,
    wallets: &dyn Wallets,
    user: &UserId,
) -> Result<AdminUserDetails, AdminError> {
    let account = find_account(connection, user).await?.ok_or(AdminError::UserNotFound)?;
    let factors = find_factors(connection, user).await?;
    Ok(AdminUserDetails {
        user: AdminUser::of(account),
        factors: FactorSummary {
            password: exists_password(connection, user).await?,
            totp: factors.has_totp,
            passkey: factors.has_passkey,
            recovery_codes_left: factors.recovery_codes,
        },
        live_sessions: count_live(connection, user, clock.now()).await?,
        wallet: wallets.find_wallet(connection, user).await.map_err(AdminError::Wallet)?,
    })
}
