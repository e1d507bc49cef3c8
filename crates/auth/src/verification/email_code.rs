//! Sign-in by six digits: `POST /api/v1/auth/email-code` mails them, `POST /api/v1/auth/email-code/verify` takes them. Off unless
//! `EMAIL_CODE_SIGN_IN` is on.

use super::Acknowledged;
use super::adopt::adopt;
use super::asked::{Asked, Wanted, ask};
use super::letters;
use super::model::{GUESSES, Purpose, SignInCode, VerificationError};
use super::store::{self, NewToken};
use crate::account::model::{Email, User};
use crate::account::verify::before_lock;
use crate::mail::{self, MailError, Written};
use crate::security_event::{self, EventKind, Origin};
use crate::session::model::SessionError;
use crate::session::open::Device;
use crate::session::proof::{Method, Proof};
use crate::session::sign_in::{LoginResponse, sign_in};
use crate::token::AppId;
use crate::{Auth, AuthState, account};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use mana_kernel::{Line, UserId};
use mana_platform::db::Transaction;
use mana_platform::http::{ApiError, ClientInfo, Language, ProblemBody, Valid};
use mana_platform::rate_limit::{AccountKey, whole_seconds};
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Who wants in.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EmailCodeRequest {
    email: Email,
}

/// Mails a code that signs in
///
/// Answers the same, after the same time, whether the address has an account or not.
#[utoipa::path(
    post, path = "/api/v1/auth/email-code", tag = "auth",
    request_body = EmailCodeRequest,
    responses(
        (status = 200, description = "Asked for", body = Acknowledged),
        (status = 404, description = "Not offered here", body = ProblemBody),
    ),
)]
pub(crate) async fn email_code(
    State(auth): State<AuthState>,
    language: Language,
    Valid(request): Valid<EmailCodeRequest>,
) -> Result<Json<Acknowledged>, ApiError> {
    require_on(&auth)?;
    ask(&auth, Asked::new(&auth, Wanted::SignInCode, &request.email, language, None)).await?;
    Ok(Json(Acknowledged::with("If the address has an account, a code to sign in is on its way")))
}

/// Mails a code to whoever asked for one. It takes the place of the last one, unless the address had its share of mails for this hour.
pub(super) async fn answer(
    connection: &mut PgConnection,
    auth: &Auth,
    asked: &Asked,
    user: &User,
) -> Result<Written, MailError> {
    let code = SignInCode::generate(&*auth.rng);
    let letter = letters::EmailCode { language: asked.language(), code: code.expose().to_owned() };
    let written = mail::enqueue(connection, auth, Some(&user.id), &user.email, &letter).await?;
    if written.is_a_mail() {
        let (user, email, now) = (&user.id, user.email.as_str(), auth.clock.now());
        let hash = code.hash(user, &auth.root_secrets)?;
        let token = NewToken { user, purpose: Purpose::SignInCode, hash, email, asking: None, now };
        store::replace_token(connection, &token).await?;
    }
    Ok(written)
}

/// A code.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EmailCodeVerifyRequest {
    email: Email,
    /// As in the mail.
    code: Line<1, 16>,
    /// The device's own id, to recognise it next time; empty is none.
    device_id: Option<Line<0, 512>>,
    /// The device's name, to show in the list of devices; of a long one the beginning. Empty is none.
    device_name: Option<Line<0, 512>>,
    /// Keeps the session for longer.
    remember_me: Option<bool>,
}

/// Signs in with a code
///
/// As `/login`. A code is good once, and dead after five wrong guesses.
#[utoipa::path(
    post, path = "/api/v1/auth/email-code/verify", operation_id = "verify_email_code", tag = "auth",
    request_body = EmailCodeVerifyRequest,
    params(("X-App-Id" = Option<String>, Header, description = "The app whose chain of refresh tokens begins; the page's origin without it", max_length = 255)),
    responses(
        (status = 200, description = "Signed in, or asked for a second factor", body = LoginResponse),
        (status = 401, description = "The code is not good", body = ProblemBody),
        (status = 404, description = "Not offered here", body = ProblemBody),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
    ),
)]
pub(crate) async fn verify(
    State(auth): State<AuthState>,
    client: ClientInfo,
    app: AppId,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<EmailCodeVerifyRequest>,
) -> Result<Response, ApiError> {
    require_on(&auth)?;
    let origin = Origin::of_request(&client);
    let (mut transaction, user) = check(&auth, &request.email, request.code.as_str(), &origin).await?;
    let (user, adopted) = adopt(&mut transaction, &auth, user, &origin).await?;
    let device = Device {
        id: request.device_id,
        name: request.device_name,
        client,
        headers: &headers,
        language,
        remember_me: request.remember_me.unwrap_or(false),
    };
    let response = sign_in(transaction, &auth, &user, Proof::of(Method::Mail), device, &app, &origin).await?;
    adopted.after_commit(&auth).await;
    Ok(response)
}

/// The account whose code it is, in the transaction that uses the code up. A wrong one is counted and slows down as a wrong password does,
/// whether the address has an account or not.
async fn check(
    auth: &Auth,
    email: &Email,
    code: &str,
    origin: &Origin,
) -> Result<(Transaction, User), VerificationError> {
    let key = AccountKey::of(email.as_str());
    let attempt = auth.limits.reserve_attempt(key, origin.client().bucket()).await.map_err(|wait| {
        auth.limits.note_refused_attempt(key, origin.client());
        SessionError::TooManyAttempts { retry_after_seconds: whole_seconds(wait) }
    })?;
    let mut transaction = match auth.database.begin().await {
        Ok(transaction) => transaction,
        Err(error) => {
            auth.limits.give_back_attempt(attempt).await;
            return Err(error.into());
        }
    };
    let found = account::store::find_by_email(&mut transaction, email).await?;
    // Nobody's is asked the same, or the time would tell who has an account.
    let id = found.map_or_else(|| UserId::new(&*auth.clock, &*auth.rng), |account| account.user.id);
    let is_expected = is_expected(&mut transaction, auth, &id, email, code).await?;
    // By a wrong code nobody learns whose bonus waits, nor holds up that wallet's spends.
    if is_expected {
        before_lock(&mut transaction, auth, &id).await?;
    }
    let owner = account::store::lock_user(&mut transaction, &id).await?;
    let is_right = is_right(&mut transaction, auth, &id, email, code).await?;
    // One that was not expected was mailed in between: nobody can have read it.
    if is_right
        && is_expected
        && let Some(user) = &owner
    {
        auth.limits.attempt_succeeded(attempt).await;
        return Ok((transaction, user.clone()));
    }
    let user = owner.as_ref().map(|user| &user.id);
    security_event::record(&mut transaction, auth, EventKind::SignInFailed, user, None, origin).await?;
    transaction.commit().await?;
    Err(VerificationError::CodeVoid)
}

/// Whether the code would be right now, if nothing comes in between. Counts nothing.
async fn is_expected(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &UserId,
    email: &Email,
    code: &str,
) -> Result<bool, VerificationError> {
    let stored = store::find_code_hash(connection, user, email.as_str(), GUESSES, auth.clock.now()).await?;
    Ok(hit(auth, user, code, stored)?.is_some())
}

/// The stored hash, if the code is the one behind it.
fn hit(
    auth: &Auth,
    user: &UserId,
    code: &str,
    stored: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>, VerificationError> {
    let (Some(stored), Some(code)) = (stored, SignInCode::parse(code)) else { return Ok(None) };
    Ok(code.is(&stored, user, &auth.root_secrets)?.then_some(stored))
}

/// Counts the guess, and uses the code up if it is right.
async fn is_right(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &UserId,
    email: &Email,
    code: &str,
) -> Result<bool, VerificationError> {
    let now = auth.clock.now();
    let stored = store::update_guessed(connection, user, email.as_str(), GUESSES, now).await?;
    let Some(stored) = hit(auth, user, code, stored)? else { return Ok(false) };
    Ok(store::delete_token(connection, user, Purpose::SignInCode, &stored, now).await?.is_some())
}

fn require_on(auth: &Auth) -> Result<(), VerificationError> {
    if auth.policy.email_code_sign_in { Ok(()) } else { Err(VerificationError::Off) }
}
