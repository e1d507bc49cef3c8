//! `/api/auth/two-factor/*`: the second factor as clients of the older service ask for it, by cookie and password.

use super::challenge::CHALLENGE_COOKIE;
use super::guess::take_code;
use super::manage::is_required;
use super::model::{BegunIn, ChallengeToken, TwoFactorError};
use super::reauthenticate::needs_factor;
use super::set_up;
use super::store;
use super::verify::{conclude, waiting};

use crate::account::model::User;
use crate::new_device::warn;
use crate::security_event::Origin;
use crate::session::check_password::check_password;
use crate::session::cookie::{self, Presented};
use crate::session::end::Ended;
use crate::session::fresh::is_fresh;
use crate::session::hold::hold;
use crate::session::model::{Session, SessionError};
use crate::session::open::{Admission, admit};
use crate::token::access::{self, AccessToken};
use crate::verification::ProtectionChange;
use crate::{Auth, AuthState};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, header};
use mana_kernel::{Line, SessionId};
use mana_platform::db::Transaction;
use mana_platform::http::{ApiError, Caller, ClientInfo, Language, ProblemBody, Valid};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The owner's password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordRequest {
    #[schema(value_type = String, format = "password", max_length = 4096)]
    password: SecretString,
}

/// For the app, and for paper.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Enabled {
    #[schema(max_length = 2048)]
    #[serde(rename = "totpURI")]
    totp_uri: String,
    #[schema(value_type = Vec<mana_kernel::Line<1, 64>>, min_items = 10, max_items = 10)]
    backup_codes: Vec<String>,
}

/// Done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Done {
    /// Always true.
    status: bool,
}

/// New codes on paper.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackupCodes {
    /// Always true.
    status: bool,
    #[schema(value_type = Vec<mana_kernel::Line<1, 64>>, min_items = 10, max_items = 10)]
    backup_codes: Vec<String>,
}

/// A code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CodeRequest {
    code: Line<1, 64>,
    /// Not to be asked again in this browser for a while.
    trust_device: Option<bool>,
}

/// Signed in, or the app confirmed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CodeTaken {
    /// An access token. The cookie's value is never in a body.
    #[schema(value_type = String, max_length = 8192)]
    token: AccessToken,
    user: User,
}

/// Begins to set up an authenticator app, by cookie
///
/// Counts once a code of it has come to `verify-totp`.
#[utoipa::path(
    post, path = "/api/auth/two-factor/enable", tag = "two-factor",
    request_body = PasswordRequest,
    responses(
        (status = 200, description = "For the app, and for paper", body = Enabled),
        (status = 401, description = "No live session, or not its user's password", body = ProblemBody),
        (status = 403, description = "The account has a second factor and the session is too old", body = ProblemBody),
        (status = 409, description = "It is set up already", body = ProblemBody),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
    ),
    security(("cookie" = [])),
)]
pub(crate) async fn enable(
    State(auth): State<AuthState>,
    client: ClientInfo,
    headers: HeaderMap,
    Valid(request): Valid<PasswordRequest>,
) -> Result<Json<Enabled>, ApiError> {
    let origin = Origin::of_request(&client);
    let (mut transaction, owner) = owner(&auth, &headers, &request.password, &origin).await?;
    let Owner { user, session } = &owner;
    let begun_in = BegunIn::Session(session.clone());
    let enrolment = set_up::begin(&mut transaction, &auth, user, &begun_in).await?;
    let codes =
        set_up::make_recovery_codes(&mut transaction, &auth, &user.id, Some(session), &origin).await?;
    transaction.commit().await?;
    Ok(Json(Enabled { totp_uri: enrolment.otpauth_url, backup_codes: codes.recovery_codes }))
}

/// Takes a code of the authenticator app, by cookie
///
/// Finishes the sign-in that waits for it in this browser; without one, confirms the app that was set up in this session within the last 15 minutes.
#[utoipa::path(
    post, path = "/api/auth/two-factor/verify-totp", tag = "two-factor",
    request_body = CodeRequest,
    responses(
        (status = 200, description = "Signed in, or confirmed", body = CodeTaken),
        (status = 401, description = "Not a code of the account, or nothing waits for one", body = ProblemBody),
        (status = 409, description = "No app waits to be confirmed", body = ProblemBody),
        (status = 429, description = "Too many wrong codes: see Retry-After", body = ProblemBody),
    ),
    security((), ("cookie" = [])),
)]
pub(crate) async fn verify_totp(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<CodeRequest>,
) -> Result<Response, ApiError> {
    if challenge_of(&auth, &headers).is_some() {
        return finish(&auth, client, language, &headers, &request).await;
    }
    let origin = Origin::of_request(&client);
    let (session, _) = signed_in(&auth, &headers).await?;
    let mut transaction = auth.database.begin().await?;
    let user = hold(&mut transaction, &auth, &caller_of(&session)).await?;
    let code = request.code.as_str();
    let begun_in = BegunIn::Session(session.id.clone());
    set_up::confirm(&mut transaction, &auth, &user.id, &begun_in, code, &origin).await?;
    let ended = set_up::end_others(&mut transaction, &auth, &user.id, &session.id, &origin).await?;
    let change = ProtectionChange::SecondFactorOn;
    let mail = warn(&mut transaction, &auth, &user, change, Some(&session.id), (language, &origin)).await?;
    ended.commit(transaction, &auth).await?;
    drop(mail);
    Ok(Json(taken(&auth, user, &session)?).into_response())
}

/// Takes a recovery code, by cookie
///
/// Finishes the sign-in that waits for a second factor in this browser.
#[utoipa::path(
    post, path = "/api/auth/two-factor/verify-backup-code", tag = "two-factor",
    request_body = CodeRequest,
    responses(
        (status = 200, description = "Signed in", body = CodeTaken),
        (status = 401, description = "Not a code of the account, or nothing waits for one", body = ProblemBody),
        (status = 429, description = "Too many wrong codes: see Retry-After", body = ProblemBody),
    ),
)]
pub(crate) async fn verify_backup_code(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<CodeRequest>,
) -> Result<Response, ApiError> {
    finish(&auth, client, language, &headers, &request).await
}

/// Switches the second factor off, by cookie
///
/// Needs a fresh session.
#[utoipa::path(
    post, path = "/api/auth/two-factor/disable", operation_id = "disable_two_factor_by_cookie", tag = "two-factor",
    request_body = PasswordRequest,
    responses(
        (status = 200, description = "Switched off; also if it was", body = Done),
        (status = 401, description = "No live session, or not its user's password", body = ProblemBody),
        (status = 403, description = "The account has a second factor and the session is too old", body = ProblemBody),
        (status = 409, description = "The installation asks for one", body = ProblemBody),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
    ),
    security(("cookie" = [])),
)]
pub(crate) async fn disable(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<PasswordRequest>,
) -> Result<Json<Done>, ApiError> {
    let origin = Origin::of_request(&client);
    let (mut transaction, owner) = owner(&auth, &headers, &request.password, &origin).await?;
    let Owner { user, session } = &owner;
    if is_required(&auth, user) {
        return Err(TwoFactorError::Required.into());
    }
    let mail = set_up::remove(&mut transaction, &auth, user, Some(session), (language, &origin)).await?;
    transaction.commit().await?;
    drop(mail);
    Ok(Json(Done { status: true }))
}

/// Makes new recovery codes, by cookie
#[utoipa::path(
    post, path = "/api/auth/two-factor/generate-backup-codes", tag = "two-factor",
    request_body = PasswordRequest,
    responses(
        (status = 200, description = "Those from before are void", body = BackupCodes),
        (status = 401, description = "No live session, or not its user's password", body = ProblemBody),
        (status = 403, description = "The account has a second factor and the session is too old", body = ProblemBody),
        (status = 409, description = "There is no second factor", body = ProblemBody),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
    ),
    security(("cookie" = [])),
)]
pub(crate) async fn generate_backup_codes(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<PasswordRequest>,
) -> Result<Json<BackupCodes>, ApiError> {
    let origin = Origin::of_request(&client);
    let (mut transaction, owner) = owner(&auth, &headers, &request.password, &origin).await?;
    let Owner { user, session } = &owner;
    if !store::find_factors(&mut transaction, &user.id).await?.has_totp {
        return Err(TwoFactorError::NotSetUp.into());
    }
    let codes =
        set_up::make_recovery_codes(&mut transaction, &auth, &user.id, Some(session), &origin).await?;
    let change = ProtectionChange::RecoveryCodesMade;
    let mail = warn(&mut transaction, &auth, user, change, Some(session), (language, &origin)).await?;
    transaction.commit().await?;
    drop(mail);
    Ok(Json(BackupCodes { status: true, backup_codes: codes.recovery_codes }))
}

/// The sign-in that waits in this browser.
fn challenge_of(auth: &Auth, headers: &HeaderMap) -> Option<ChallengeToken> {
    let parse = |value: &str| ChallengeToken::parse(value).ok();
    CHALLENGE_COOKIE.read(headers, &auth.policy, parse).into_iter().next()
}

async fn finish(
    auth: &Auth,
    client: ClientInfo,
    language: Language,
    headers: &HeaderMap,
    request: &CodeRequest,
) -> Result<Response, ApiError> {
    let origin = Origin::of_request(&client);
    let token = challenge_of(auth, headers).ok_or(TwoFactorError::DeadChallenge)?;
    let mut transaction = auth.database.begin().await?;
    let user = waiting(&mut transaction, auth, &token).await?;
    let (mut transaction, method) =
        take_code(transaction, auth, &user.id, request.code.as_str(), &origin).await?;
    let trusts = request.trust_device.unwrap_or(false);
    let browser = (client, headers, language);
    let (proof, device, cookies) =
        conclude(&mut transaction, auth, (&token, &user), method, browser, trusts).await?;
    let Admission::Opened(opened) = admit(&mut transaction, auth, &user, proof, device, &origin).await?
    else {
        return Err(TwoFactorError::DeadChallenge.into());
    };
    let (user, session, cookie) = opened.commit(transaction, auth, Ended::default()).await?;
    let set_cookie = cookie.map(|value| [(header::SET_COOKIE, value)]);
    let mut response = (set_cookie, Json(taken(auth, user, &session)?)).into_response();
    cookies.add_to(&mut response);
    Ok(response)
}

fn taken(auth: &Auth, user: User, session: &Session) -> Result<CodeTaken, SessionError> {
    let token = access::sign(auth, &user, &session.id, access::new_token_id(auth))?;
    Ok(CodeTaken { token, user })
}

/// The session of the cookie and its user.
async fn signed_in(auth: &Auth, headers: &HeaderMap) -> Result<(Session, User), SessionError> {
    match cookie::present(auth, headers).await? {
        Presented::Live { found, .. } => Ok((found.session, found.user)),
        Presented::Dead => Err(SessionError::DeadCookie),
        Presented::None => Err(SessionError::NoCookie),
    }
}

/// Whose password came with a session's cookie.
struct Owner {
    user: User,
    session: SessionId,
}

fn caller_of(session: &Session) -> Caller {
    Caller { user_id: session.user_id.clone(), session_id: session.id.clone() }
}

/// The user of the cookie's session, whose password this is, in a transaction that holds both. Where a second factor is asked for and set up, the
/// session must be fresh as well: the password is only half of the owner.
async fn owner(
    auth: &Auth,
    headers: &HeaderMap,
    password: &SecretString,
    origin: &Origin,
) -> Result<(Transaction, Owner), ApiError> {
    let (session, user) = signed_in(auth, headers).await?;
    let needs_factor = {
        let mut transaction = auth.database.begin().await?;
        needs_factor(&mut transaction, auth, &user).await?
    };
    let caller = caller_of(&session);
    if needs_factor && !is_fresh(auth, &caller).await? {
        return Err(SessionError::NotFresh.into());
    }
    let checked = check_password(auth, user.email.clone(), password, origin).await?;
    if checked.id != user.id {
        return Err(SessionError::DeadCookie.into());
    }
    let mut transaction = auth.database.begin().await?;
    let user = hold(&mut transaction, auth, &caller).await?;
    if user.ways_in_epoch != checked.ways_in_epoch {
        return Err(SessionError::InvalidCredentials.into());
    }
    Ok((transaction, Owner { user, session: session.id }))
}
