//! `/api/v1/auth/passkeys`: a person's passkeys, as they see, name and remove them.

use super::model::{Passkey, PasskeyError};
use super::store;
use crate::new_device::warn;
use crate::security_event::{self, EventKind, Origin};
use crate::session::hold::hold;
use crate::two_factor::model::{TwoFactorError, is_required};
use crate::verification::ProtectionChange;
use crate::{AuthState, oauth, password, two_factor};
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use mana_kernel::{Line, UserId};
use mana_platform::DbError;
use mana_platform::http::{ApiError, Caller, ClientInfo, FreshCaller, Language, ProblemBody, Valid};
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

/// A name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RenamePasskeyRequest {
    name: Line<1, 64>,
}

/// The passkeys of the account
#[utoipa::path(
    get, path = "/api/v1/auth/passkeys", operation_id = "list_passkeys", tag = "passkeys",
    responses((status = 200, description = "The oldest first; 25 at most", body = Vec<Passkey>)),
    security(("bearer" = [])),
)]
pub(super) async fn list(
    State(auth): State<AuthState>,
    caller: Caller,
) -> Result<Json<Vec<Passkey>>, ApiError> {
    let mut transaction = auth.database.begin_as(&caller.user_id).await?;
    Ok(Json(store::list_passkeys(&mut transaction, &caller.user_id).await?))
}

/// Names a passkey
#[utoipa::path(
    patch, path = "/api/v1/auth/passkeys/{id}", tag = "passkeys",
    params(("id" = String, Path, description = "As in the list", max_length = 64)),
    request_body = RenamePasskeyRequest,
    responses(
        (status = 200, description = "Named", body = Passkey),
        (status = 404, description = "No such passkey of the caller's", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn rename(
    State(auth): State<AuthState>,
    caller: Caller,
    Path(id): Path<String>,
    Valid(request): Valid<RenamePasskeyRequest>,
) -> Result<Json<Passkey>, ApiError> {
    let id: Uuid = id.parse().map_err(|_| PasskeyError::NotFound)?;
    let mut transaction = auth.database.begin().await?;
    let named = store::update_name(&mut transaction, &caller.user_id, id, request.name.as_str()).await?;
    let named = named.ok_or(PasskeyError::NotFound)?;
    transaction.commit().await?;
    Ok(Json(named))
}

/// Removes a passkey
///
/// It signs in no more; sessions that it opened go on. Needs a fresh sign-in.
#[utoipa::path(
    delete, path = "/api/v1/auth/passkeys/{id}", tag = "passkeys",
    params(("id" = String, Path, description = "As in the list", max_length = 64)),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "The sign-in is too old", body = ProblemBody),
        (status = 404, description = "No such passkey of the caller's", body = ProblemBody),
        (status = 409, description = "It is the last way to sign in, or the second factor that the installation asks for", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn remove(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    FreshCaller(caller): FreshCaller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let id: Uuid = id.parse().map_err(|_| PasskeyError::NotFound)?;
    let user = &caller.user_id;
    let mut transaction = auth.database.begin().await?;
    // Two that are removed at once must not each count on the other.
    let owner = hold(&mut transaction, &auth, &caller).await?;
    if !store::delete_passkey(&mut transaction, user, id).await? {
        return Err(PasskeyError::NotFound.into());
    }
    if !has_way_in(&mut transaction, user).await? {
        return Err(PasskeyError::LastWayIn.into());
    }
    let left = two_factor::store::find_factors(&mut transaction, user).await?;
    if is_required(owner.role, auth.policy.two_factor_required) && !left.has_totp && !left.has_passkey {
        return Err(TwoFactorError::Required.into());
    }
    let kind = EventKind::PasskeyRemoved(id);
    let (session, origin) = (Some(&caller.session_id), Origin::of_request(&client));
    security_event::record(&mut transaction, &auth, kind, Some(user), session, &origin).await?;
    let change = ProtectionChange::PasskeyRemoved;
    let mail = warn(&mut transaction, &auth, &owner, change, session, (language, &origin)).await?;
    transaction.commit().await?;
    drop(mail);
    Ok(StatusCode::NO_CONTENT)
}

/// Whether the user can sign in with what is left.
async fn has_way_in(connection: &mut PgConnection, user: &UserId) -> Result<bool, DbError> {
    Ok(password::store::exists_password(connection, user).await?
        || oauth::store::exists_account(connection, user).await?
        || store::count_passkeys(connection, user).await? > 0)
}
