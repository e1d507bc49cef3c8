//! `POST /api/v1/auth/reauthenticate`: shows within a session that it is still its owner who uses it.

use super::guess::take_code;
use super::model::TwoFactorError;
use super::store;
use crate::account::model::User;
use crate::security_event::{self, EventKind, Origin};
use crate::session::check_password::check_password;
use crate::session::hold::hold;
use crate::session::model::SessionError;
use crate::session::proof::{Method, Proof};
use crate::session::store::update_authenticated;
use crate::{Auth, AuthState};
use axum::Json;
use axum::extract::State;
use mana_kernel::Line;
use mana_platform::DbError;
use mana_platform::db::Transaction;
use mana_platform::http::{ApiError, Caller, ClientInfo, ProblemBody, Valid};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// One of the two. An account that is asked for a second factor takes the code only: whoever knows the password is not yet its owner.
#[derive(Deserialize, ToSchema)]
#[schema(min_properties = 1)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReauthenticateRequest {
    /// The password, of an account that is asked for no second factor.
    #[schema(value_type = Option<String>, format = "password", max_length = 4096)]
    password: Option<SecretString>,
    /// A code of the authenticator app, or a recovery code.
    code: Option<Line<1, 64>>,
}

/// Confirmed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reauthenticated {
    /// Until when what needs a fresh sign-in is allowed.
    #[serde(with = "time::serde::rfc3339")]
    fresh_until: OffsetDateTime,
}

/// Confirms within a session that it is you
///
/// Afterwards the routes that answer `auth.fresh_authentication_required` open for a while.
#[utoipa::path(
    post, path = "/api/v1/auth/reauthenticate", tag = "two-factor",
    request_body = ReauthenticateRequest,
    responses(
        (status = 200, description = "Confirmed", body = Reauthenticated),
        (status = 401, description = "Not the password, or not a code of the account", body = ProblemBody),
        (status = 409, description = "The account has no second factor, or is asked for one and the password does not do", body = ProblemBody),
        (status = 429, description = "Too many wrong ones: see Retry-After", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn reauthenticate(
    State(auth): State<AuthState>,
    client: ClientInfo,
    caller: Caller,
    Valid(request): Valid<ReauthenticateRequest>,
) -> Result<Json<Reauthenticated>, ApiError> {
    let origin = Origin::of_request(&client);
    let mut transaction = auth.database.begin().await?;
    let user = hold(&mut transaction, &auth, &caller).await?;
    let (transaction, method) = match (request.code, request.password) {
        (Some(code), _) => take_code(transaction, &auth, &user.id, code.as_str(), &origin).await?,
        (None, None) => return Err(TwoFactorError::NothingGiven.into()),
        (None, Some(password)) => {
            if needs_factor(&mut transaction, &auth, &user).await? {
                return Err(TwoFactorError::CodeNeeded.into());
            }
            // Hashing waits its turn, and must not hold a connection meanwhile.
            drop(transaction);
            let checked = check_password(&auth, user.email.clone(), &password, &origin).await?;
            if checked.id != user.id {
                return Err(TwoFactorError::NotSetUp.into());
            }
            let mut transaction = auth.database.begin().await?;
            let held = hold(&mut transaction, &auth, &caller).await?;
            if held.ways_in_epoch != checked.ways_in_epoch {
                return Err(SessionError::InvalidCredentials.into());
            }
            if needs_factor(&mut transaction, &auth, &held).await? {
                return Err(TwoFactorError::CodeNeeded.into());
            }
            (transaction, Method::Password)
        }
    };
    Ok(Json(confirm(transaction, &auth, &caller, method, &origin).await?))
}

/// Whether the user confirms with a factor, and the password does not do.
pub(super) async fn needs_factor(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
) -> Result<bool, DbError> {
    let factors = store::find_factors(connection, &user.id).await?;
    Ok(factors.outrank_the_password(user.role, auth.policy.two_factor_required))
}

/// Notes that the session's owner was there just now, in a transaction that holds the session. Commits.
pub(super) async fn confirm(
    mut transaction: Transaction,
    auth: &Auth,
    caller: &Caller,
    method: Method,
    origin: &Origin,
) -> Result<Reauthenticated, DbError> {
    let now = auth.clock.now();
    update_authenticated(&mut transaction, &caller.session_id, &Proof::of(method), now).await?;
    let (user, session) = (Some(&caller.user_id), Some(&caller.session_id));
    security_event::record(&mut transaction, auth, EventKind::Reauthenticated, user, session, origin).await?;
    transaction.commit().await?;
    let fresh_until = now.saturating_add(auth.policy.fresh_authentication.try_into().unwrap_or_default());
    Ok(Reauthenticated { fresh_until })
}
