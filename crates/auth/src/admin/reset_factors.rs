//! `POST /api/v1/admin/users/{userId}/reset-factors`: the second factor of an account is taken away.

use super::act::{Act, lock};
use super::change::Change;
use super::model::{ActRequest, AdminError, AdminUser};
use crate::AuthState;
use crate::account::store::Account;
use crate::passkey::store::delete_passkeys;
use crate::security_event::EventKind;
use crate::session::end::Ended;
use crate::session::model::RevokeReason;
use crate::session::store::Choice;
use crate::two_factor::store::{delete_factors, delete_half_proofs};
use axum::Json;
use axum::extract::{Path, State};
use mana_kernel::UserId;
use mana_platform::http::{ApiError, ClientInfo, FreshAdmin, ProblemBody, Valid};
use sqlx::PgConnection;

/// Takes away a user's second factor
///
/// For somebody who has lost it: authenticator app, recovery codes, passkeys and trusted browsers are forgotten, and all sessions end. The
/// password stays. Needs a fresh proof, by the second factor if the asking administrator has one.
#[utoipa::path(
    post, path = "/api/v1/admin/users/{userId}/reset-factors", tag = "admin",
    params(("userId" = String, Path, description = "The user", min_length = 1, max_length = 64)),
    request_body = ActRequest,
    responses(
        (status = 200, description = "The user afterwards", body = AdminUser),
        (status = 403, description = "Not an administrator, or the sign-in is too old", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn reset_factors_of_user(
    State(auth): State<AuthState>,
    FreshAdmin(admin): FreshAdmin,
    client: ClientInfo,
    Path(user): Path<String>,
    Valid(request): Valid<ActRequest>,
) -> Result<Json<AdminUser>, ApiError> {
    Change::ResetFactors.answer(&auth, &admin, &client, &user, request).await
}

/// Forgets what makes up the second factor, and ends what it opened.
pub(super) async fn reset_factors(
    connection: &mut PgConnection,
    act: &Act<'_>,
    user: &UserId,
) -> Result<(Account, Ended), AdminError> {
    let account = lock(connection, user).await?;
    delete_factors(connection, user).await?;
    delete_half_proofs(connection, user).await?;
    for passkey in delete_passkeys(connection, user).await? {
        act.record(connection, EventKind::PasskeyRemoved(passkey), user).await?;
    }
    let ended = act.end_chosen(connection, user, Choice::All, RevokeReason::EndedByAdmin).await?;
    act.record(connection, EventKind::SecondFactorReset, user).await?;
    Ok((account, ended))
}
