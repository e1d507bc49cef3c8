//! `/api/v1/auth/two-factor`: the second factor as its owner sees and changes it.

use super::model::{BegunIn, FactorMethod, TwoFactorError};
use super::set_up::{self, Enrolment, RecoveryCodes};
use super::store;
use crate::account::model::User;
use crate::new_device::warn;
use crate::security_event::Origin;
use crate::session::hold::hold;
use crate::verification::ProtectionChange;
use crate::{Auth, AuthState, account};
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use mana_kernel::{Line, UserId};
use mana_platform::http::{
    ApiError, Caller, ClientInfo, FreshCaller, Language, OptionalBody, ProblemBody, Valid, codes,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// What is set up.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TwoFactorStatus {
    /// Whether sign-ins ask for a second factor.
    enabled: bool,
    /// Whether the installation asks it of this account.
    required: bool,
    /// How it can be given.
    #[schema(max_items = 4)]
    methods: Vec<FactorMethod>,
    /// Recovery codes that are left.
    #[schema(minimum = 0, maximum = 10)]
    recovery_codes_left: i64,
}

/// A code of the app that was just set up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfirmRequest {
    code: Line<1, 64>,
}

/// Nothing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoFields {}

/// What second factor the account has
#[utoipa::path(
    get, path = "/api/v1/auth/two-factor", tag = "two-factor",
    responses((status = 200, description = "What is set up", body = TwoFactorStatus)),
    security(("bearer" = [])),
)]
pub(crate) async fn status(
    State(auth): State<AuthState>,
    caller: Caller,
) -> Result<Json<TwoFactorStatus>, ApiError> {
    let mut transaction = auth.database.begin().await?;
    let user = acting(&mut transaction, &caller.user_id).await?;
    let factors = store::find_factors(&mut transaction, &user.id).await?;
    let methods = factors.demanded(user.role, auth.policy.two_factor_required);
    Ok(Json(TwoFactorStatus {
        enabled: !methods.is_empty() && !methods.contains(&FactorMethod::Enrolment),
        required: is_required(&auth, &user),
        methods,
        recovery_codes_left: if factors.has_totp { factors.recovery_codes } else { 0 },
    }))
}

/// Begins to set up an authenticator app
///
/// Nothing changes until a code of the app has come to `/two-factor/confirm`. Needs a fresh sign-in.
#[utoipa::path(
    post, path = "/api/v1/auth/two-factor/enrol", tag = "two-factor",
    request_body(content = Option<NoFields>, content_type = "application/json"),
    responses(
        (status = 200, description = "For the app", body = Enrolment),
        (status = 403, description = "The sign-in is too old", body = ProblemBody),
        (status = 409, description = "It is set up already", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn enrol(
    State(auth): State<AuthState>,
    FreshCaller(caller): FreshCaller,
    OptionalBody(_): OptionalBody<NoFields>,
) -> Result<Json<Enrolment>, ApiError> {
    let mut transaction = auth.database.begin().await?;
    let user = hold(&mut transaction, &auth, &caller).await?;
    let enrolment =
        set_up::begin(&mut transaction, &auth, &user, &BegunIn::Session(caller.session_id)).await?;
    transaction.commit().await?;
    Ok(Json(enrolment))
}

/// Switches the second factor on
///
/// In the session that began it, within 15 minutes. Sign-ins ask for it from now on; the user's other sessions, opened without it, end. The answer's recovery codes are shown this one
/// time.
#[utoipa::path(
    post, path = "/api/v1/auth/two-factor/confirm", tag = "two-factor",
    request_body = ConfirmRequest,
    responses(
        (status = 200, description = "Switched on", body = RecoveryCodes),
        (status = 401, description = "Not the app's code", body = ProblemBody),
        (status = 403, description = "The sign-in is too old", body = ProblemBody),
        (status = 409, description = "Nothing waits to be confirmed", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn confirm(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    FreshCaller(caller): FreshCaller,
    Valid(request): Valid<ConfirmRequest>,
) -> Result<Json<RecoveryCodes>, ApiError> {
    let origin = Origin::of_request(&client);
    let (user, session) = (&caller.user_id, &caller.session_id);
    let mut transaction = auth.database.begin().await?;
    let owner = hold(&mut transaction, &auth, &caller).await?;
    let begun_in = BegunIn::Session(session.clone());
    set_up::confirm(&mut transaction, &auth, user, &begun_in, request.code.as_str(), &origin).await?;
    let codes = set_up::make_recovery_codes(&mut transaction, &auth, user, Some(session), &origin).await?;
    let ended = set_up::end_others(&mut transaction, &auth, user, session, &origin).await?;
    let change = ProtectionChange::SecondFactorOn;
    let mail = warn(&mut transaction, &auth, &owner, change, Some(session), (language, &origin)).await?;
    ended.commit(transaction, &auth).await?;
    drop(mail);
    Ok(Json(codes))
}

/// Switches the second factor off
#[utoipa::path(
    delete, path = "/api/v1/auth/two-factor", tag = "two-factor",
    responses(
        (status = 204, description = "Switched off; also if it was"),
        (status = 403, description = "The sign-in is too old", body = ProblemBody),
        (status = 409, description = "The installation asks for one", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn disable(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    FreshCaller(caller): FreshCaller,
) -> Result<StatusCode, ApiError> {
    let mut transaction = auth.database.begin().await?;
    let user = hold(&mut transaction, &auth, &caller).await?;
    if is_required(&auth, &user) {
        return Err(TwoFactorError::Required.into());
    }
    let origin = Origin::of_request(&client);
    let session = Some(&caller.session_id);
    let mail = set_up::remove(&mut transaction, &auth, &user, session, (language, &origin)).await?;
    transaction.commit().await?;
    drop(mail);
    Ok(StatusCode::NO_CONTENT)
}

/// Makes new recovery codes
///
/// Those from before are void.
#[utoipa::path(
    post, path = "/api/v1/auth/two-factor/recovery-codes", tag = "two-factor",
    request_body(content = Option<NoFields>, content_type = "application/json"),
    responses(
        (status = 200, description = "Shown this one time", body = RecoveryCodes),
        (status = 403, description = "The sign-in is too old", body = ProblemBody),
        (status = 409, description = "There is no second factor", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn renew_recovery_codes(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    FreshCaller(caller): FreshCaller,
    OptionalBody(_): OptionalBody<NoFields>,
) -> Result<Json<RecoveryCodes>, ApiError> {
    let mut transaction = auth.database.begin().await?;
    let owner = hold(&mut transaction, &auth, &caller).await?;
    if !store::find_factors(&mut transaction, &caller.user_id).await?.has_totp {
        return Err(TwoFactorError::NotSetUp.into());
    }
    let origin = Origin::of_request(&client);
    let (user, session) = (&caller.user_id, Some(&caller.session_id));
    let codes = set_up::make_recovery_codes(&mut transaction, &auth, user, session, &origin).await?;
    let change = ProtectionChange::RecoveryCodesMade;
    let mail = warn(&mut transaction, &auth, &owner, change, session, (language, &origin)).await?;
    transaction.commit().await?;
    drop(mail);
    Ok(Json(codes))
}

/// The user behind a caller, if it may still act.
pub(super) async fn acting(connection: &mut PgConnection, user: &UserId) -> Result<User, ApiError> {
    let user = account::store::find_user(connection, user).await?;
    user.ok_or_else(|| ApiError::new(&codes::UNAUTHENTICATED))
}

/// Whether the installation asks a second factor of the user, whatever is set up.
pub(super) fn is_required(auth: &Auth, user: &User) -> bool {
    super::model::is_required(user.role, auth.policy.two_factor_required)
}
