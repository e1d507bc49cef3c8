//! `POST /api/auth/sign-in/email`: a password for the single sign-on cookie, as older clients ask for it right after
//! `/login`.

use super::check_password::check_password;
use super::cookie;
use super::end::Ended;
use super::model::{Session, SessionCookie, SessionError};
use super::open::{Admission, Device, Opened, admit};
use super::proof::{Method, Proof};
use super::store::{self, CookieSession};
use crate::account::model::User;
use crate::mail::Written;
use crate::security_event::{self, EventKind, Origin};
use crate::token::access::{self, AccessToken};
use crate::two_factor::{Challenge, SecondFactorRequired};
use crate::{Auth, AuthState};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, header};
use mana_platform::db::Transaction;
use mana_platform::http::{ApiError, ClientInfo, Language, ProblemBody, Valid};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::Duration;
use utoipa::ToSchema;

/// Who wants in.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SignInRequest {
    /// The address in any spelling.
    #[schema(value_type = String, format = "email", max_length = 254)]
    email: String,
    /// The password.
    #[schema(value_type = String, format = "password", max_length = 4096)]
    password: SecretString,
    /// Keeps the session for longer.
    remember_me: Option<bool>,
}

/// Signed in; the cookie is in the header.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignInResponse {
    /// Always false: the page decides where to go.
    redirect: bool,
    /// An access token. The cookie's value is never in a body.
    #[schema(value_type = String, max_length = 8192)]
    token: AccessToken,
    user: User,
}

/// The first factor was right; a second one is needed. With the words that older clients know.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FactorRedirect {
    /// Always true: the page asks for the second factor now.
    two_factor_redirect: bool,
    #[serde(flatten)]
    required: SecondFactorRequired,
}

/// One of the two.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SignInEmailResponse {
    /// Signed in.
    SignedIn(SignInResponse),
    /// Half way there.
    SecondFactor(FactorRedirect),
}

/// Signs in with a password and sets the single sign-on cookie
///
/// If the request brings the cookie of a session that the same user opened from the same place in the last two minutes, that
/// session goes on under a new cookie, so that `/login` and this are one sign-in; else a session is opened.
#[utoipa::path(
    post, path = "/api/auth/sign-in/email", tag = "single sign-on",
    request_body = SignInRequest,
    responses(
        (status = 200, description = "Signed in, or asked for a second factor", body = SignInEmailResponse),
        (status = 401, description = "Unknown address or wrong password", body = ProblemBody),
        (status = 403, description = "The password is right and the address is not verified (code EMAIL_NOT_VERIFIED), or sent by a browser for a page of a foreign site", body = ProblemBody),
    ),
)]
pub(crate) async fn sign_in_email(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<SignInRequest>,
) -> Result<Response, ApiError> {
    let origin = Origin::of_request(&client);
    let user = check_password(&auth, request.email, &request.password, &origin).await?;

    let mut transaction = auth.database.begin().await?;
    let going_on = go_on(&mut transaction, &auth, &headers, &user, &origin).await?;
    let opened = match going_on {
        Some(opened) => opened,
        None => {
            let remember_me = request.remember_me.unwrap_or(false);
            let device = Device { id: None, name: None, client, headers: &headers, language, remember_me };
            let proof = Proof::of(Method::Password);
            match admit(&mut transaction, &auth, &user, proof, device, &origin).await? {
                Admission::Opened(opened) => *opened,
                Admission::Challenged(challenge) => {
                    return ask_for_factor(transaction, &auth, &challenge).await;
                }
            }
        }
    };
    let (user, session, cookie) = opened.commit(transaction, &auth, Ended::default()).await?;

    let token =
        access::sign(&auth, &user, &session.id, access::new_token_id(&auth)).map_err(SessionError::from)?;
    let set_cookie = cookie.map(|value| [(header::SET_COOKIE, value)]);
    let signed_in = SignInResponse { redirect: false, token, user };
    Ok((set_cookie, Json(SignInEmailResponse::SignedIn(signed_in))).into_response())
}

async fn ask_for_factor(
    transaction: Transaction,
    auth: &Auth,
    challenge: &Challenge,
) -> Result<Response, ApiError> {
    transaction.commit().await?;
    let set_cookie = challenge.cookie(&auth.policy).map(|value| [(header::SET_COOKIE, value)]);
    let answer = FactorRedirect { two_factor_redirect: true, required: challenge.answer() };
    Ok((set_cookie, Json(SignInEmailResponse::SecondFactor(answer))).into_response())
}

/// How old a session may be that a sign-in goes on with.
const YOUNG: Duration = Duration::minutes(2);

/// The session that `/login` has just opened for the same user, under a new cookie, if the request brings its cookie from
/// the same place. Any other session is left alone, whoever's it is: a cookie that somebody planted is never taken over.
async fn go_on(
    connection: &mut PgConnection,
    auth: &Auth,
    headers: &HeaderMap,
    user: &User,
    origin: &Origin,
) -> Result<Option<Opened>, SessionError> {
    let now = auth.clock.now();
    let presented: Vec<_> = cookie::read(headers, &auth.policy).iter().map(SessionCookie::hash).collect();
    if presented.is_empty() {
        return Ok(None);
    }
    let address = origin.client().ip_address.map(|address| address.to_string());
    let is_just_opened =
        |session: &Session| now < session.created_at.saturating_add(YOUNG) && session.ip_address == address;
    let live = store::list_live_by_cookies(connection, &presented, now).await?;
    let found = live.into_iter().find(|found| found.user.id == user.id && is_just_opened(&found.session));
    let Some(CookieSession { session, user, .. }) = found else { return Ok(None) };
    let next = SessionCookie::generate(&*auth.rng);
    let expires_at = auth.policy.session_end(session.created_at, now, session.remember_me);
    if !store::update_cookie(connection, &session.id, next.hash(), now, expires_at).await? {
        return Ok(None);
    }
    let id = Some(&session.id);
    security_event::record(connection, auth, EventKind::SignedIn, Some(&user.id), id, origin).await?;
    Ok(Some(Opened { user, session, cookie: next, mail: Written::nothing(), ended: Ended::default() }))
}
