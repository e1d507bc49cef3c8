//! Setting up an authenticator app in the middle of a sign-in: for who must have one and has none.

use super::model::{BegunIn, ChallengeToken, FactorMethod, TwoFactorError};
use super::set_up::{self, Enrolment, RecoveryCodes};
use super::store;
use super::verify::{conclude, waiting};
use crate::account::model::User;
use crate::new_device::warn;
use crate::security_event::Origin;
use crate::session::login::TokenResponse;
use crate::session::open::{Admission, admit};
use crate::session::proof::Method;
use crate::token::{AppId, refresh};
use crate::verification::ProtectionChange;
use crate::{Auth, AuthState};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, header};
use mana_kernel::Line;
use mana_platform::http::{ApiError, ClientInfo, Language, ProblemBody, Valid};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Which sign-in.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EnrolPendingRequest {
    /// From the answer to the sign-in.
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    challenge_token: SecretString,
}

/// Which sign-in, and a code of the app that was just set up.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ConfirmPendingRequest {
    /// From the answer to the sign-in.
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    challenge_token: SecretString,
    code: Line<1, 64>,
}

/// Signed in, with the codes on paper.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfirmedSignIn {
    #[serde(flatten)]
    tokens: TokenResponse,
    #[serde(flatten)]
    codes: RecoveryCodes,
}

/// Begins to set up an authenticator app within a sign-in
///
/// For a sign-in whose `methods` are `enrolment`.
#[utoipa::path(
    post, path = "/api/v1/auth/two-factor/pending/enrol", tag = "two-factor",
    request_body = EnrolPendingRequest,
    responses(
        (status = 200, description = "For the app", body = Enrolment),
        (status = 401, description = "The sign-in waits no longer", body = ProblemBody),
        (status = 409, description = "The account has a second factor", body = ProblemBody),
    ),
)]
pub(crate) async fn enrol_pending(
    State(auth): State<AuthState>,
    Valid(request): Valid<EnrolPendingRequest>,
) -> Result<Json<Enrolment>, ApiError> {
    let mut transaction = auth.database.begin().await?;
    let (user, token) = may_enrol(&mut transaction, &auth, &request.challenge_token).await?;
    let enrolment = set_up::begin(&mut transaction, &auth, &user, &BegunIn::SignIn(token.hash())).await?;
    transaction.commit().await?;
    Ok(Json(enrolment))
}

/// Switches the second factor on and finishes the sign-in
///
/// The user's other sessions end. The recovery codes are shown this one time.
#[utoipa::path(
    post, path = "/api/v1/auth/two-factor/pending/confirm", tag = "two-factor",
    request_body = ConfirmPendingRequest,
    params(("X-App-Id" = Option<String>, Header, description = "The app whose chain of refresh tokens begins; the page's origin without it", max_length = 255)),
    responses(
        (status = 200, description = "Signed in", body = ConfirmedSignIn),
        (status = 401, description = "Not the app's code, or the sign-in waits no longer", body = ProblemBody),
        (status = 409, description = "The account has a second factor, or none waits to be confirmed", body = ProblemBody),
    ),
)]
pub(crate) async fn confirm_pending(
    State(auth): State<AuthState>,
    client: ClientInfo,
    app: AppId,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<ConfirmPendingRequest>,
) -> Result<Response, ApiError> {
    let origin = Origin::of_request(&client);
    let mut transaction = auth.database.begin().await?;
    let (user, token) = may_enrol(&mut transaction, &auth, &request.challenge_token).await?;
    let begun_in = BegunIn::SignIn(token.hash());
    set_up::confirm(&mut transaction, &auth, &user.id, &begun_in, request.code.as_str(), &origin).await?;
    let browser = (client, &headers, language);
    let (proof, device, cookies) =
        conclude(&mut transaction, &auth, (&token, &user), Method::Code, browser, false).await?;
    let Admission::Opened(opened) = admit(&mut transaction, &auth, &user, proof, device, &origin).await?
    else {
        return Err(TwoFactorError::DeadChallenge.into());
    };
    let session = &opened.session.id;
    store::update_confirmed_in(&mut transaction, &user.id, session).await?;
    let codes =
        set_up::make_recovery_codes(&mut transaction, &auth, &user.id, Some(session), &origin).await?;
    let others = set_up::end_others(&mut transaction, &auth, &user.id, session, &origin).await?;
    let change = ProtectionChange::SecondFactorOn;
    let by = (language, &origin);
    let mail = warn(&mut transaction, &auth, &opened.user, change, Some(session), by).await?;
    let tokens = refresh::open_chain(&mut transaction, &auth, &opened.user, &opened.session, &app).await?;
    let (.., cookie) = opened.commit(transaction, &auth, others).await?;
    drop(mail);
    let set_cookie = cookie.map(|value| [(header::SET_COOKIE, value)]);
    let mut response = (set_cookie, Json(ConfirmedSignIn { tokens, codes })).into_response();
    cookies.add_to(&mut response);
    Ok(response)
}

/// The user whose sign-in waits for a second factor that is yet to be set up.
async fn may_enrol(
    connection: &mut PgConnection,
    auth: &Auth,
    token: &SecretString,
) -> Result<(User, ChallengeToken), TwoFactorError> {
    let token = ChallengeToken::parse(token.expose_secret()).map_err(|_| TwoFactorError::DeadChallenge)?;
    let user = waiting(connection, auth, &token).await?;
    let factors = store::find_factors(connection, &user.id).await?;
    let methods = factors.demanded(user.role, auth.policy.two_factor_required);
    if methods.contains(&FactorMethod::Enrolment) {
        Ok((user, token))
    } else {
        Err(TwoFactorError::AlreadySetUp)
    }
}
