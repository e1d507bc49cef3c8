//! Sign-in by a link: `POST /api/v1/auth/magic-link` mails it, `GET` and `POST /magic-link` sign a browser in,
//! `POST /api/v1/auth/magic-link/verify` an app that took the token out of the link. Off unless `MAGIC_LINK_SIGN_IN` is on.

use super::Acknowledged;
use super::adopt::adopt;
use super::app_page::{app_pair, link};
use super::asked::{Asked, Wanted, ask};
use super::letters;
use super::model::{MagicToken, VerificationError};
use super::page::{Form, Words, link_is_void, respond};
use super::token::{self, UsedLink};
use crate::account::model::{AccountError, Email, User};
use crate::mail::{MailError, Written};
use crate::security_event::Origin;
use crate::session::end::Ended;
use crate::session::open::{Admission, Device, admit};
use crate::session::proof::{Method, Proof};
use crate::session::sign_in::{LoginResponse, sign_in};
use crate::token::AppId;
use crate::{Auth, AuthState};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, header};
use mana_kernel::Line;
use mana_platform::http::{ApiError, ClientInfo, Language, Parameters, ProblemBody, Valid, see_other};
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};

const PATH: &str = "/magic-link";

/// Who wants in.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MagicLinkRequest {
    email: Email,
    /// The page to come back to once signed in.
    redirect_to: Option<Line<0, 2048>>,
}

/// Mails a link that signs in
///
/// Answers the same, after the same time, whether the address has an account or not.
#[utoipa::path(
    post, path = "/api/v1/auth/magic-link", tag = "auth",
    request_body = MagicLinkRequest,
    responses(
        (status = 200, description = "Asked for", body = Acknowledged),
        (status = 404, description = "Not offered here", body = ProblemBody),
    ),
)]
pub(crate) async fn magic_link(
    State(auth): State<AuthState>,
    language: Language,
    Valid(request): Valid<MagicLinkRequest>,
) -> Result<Json<Acknowledged>, ApiError> {
    require_on(&auth)?;
    let app = request.redirect_to.as_ref().map(Line::as_str);
    ask(&auth, Asked::new(&auth, Wanted::MagicLink, &request.email, language, app)).await?;
    Ok(Json(Acknowledged::with("If the address has an account, a link to sign in is on its way")))
}

/// Mails the link to whoever asked for one.
pub(super) async fn answer(
    connection: &mut PgConnection,
    auth: &Auth,
    asked: &Asked,
    user: &User,
) -> Result<Written, MailError> {
    let letter = |token: &str| {
        let query = [vec![("token", token)], app_pair("redirectTo", asked.app.as_deref())].concat();
        letters::MagicLink { language: asked.language(), link: link(auth, PATH, &query) }
    };
    token::mail_link::<MagicToken, _>(connection, auth, user, (&user.email, None), letter).await
}

/// The token of a link, from an app.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MagicLinkVerifyRequest {
    /// As in the mail.
    token: Line<1, 2048>,
    /// The device's own id, to recognise it next time; empty is none.
    device_id: Option<Line<0, 512>>,
    /// The device's name, to show in the list of devices; of a long one the beginning. Empty is none.
    device_name: Option<Line<0, 512>>,
    /// Keeps the session for longer.
    remember_me: Option<bool>,
}

/// Signs in with a link's token
///
/// As `/login`. The link is good once.
#[utoipa::path(
    post, path = "/api/v1/auth/magic-link/verify", operation_id = "verify_magic_link", tag = "auth",
    request_body = MagicLinkVerifyRequest,
    params(("X-App-Id" = Option<String>, Header, description = "The app whose chain of refresh tokens begins; the page's origin without it", max_length = 255)),
    responses(
        (status = 200, description = "Signed in, or asked for a second factor", body = LoginResponse),
        (status = 400, description = "The link is not good", body = ProblemBody),
        (status = 404, description = "Not offered here", body = ProblemBody),
    ),
)]
pub(crate) async fn verify(
    State(auth): State<AuthState>,
    client: ClientInfo,
    app: AppId,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<MagicLinkVerifyRequest>,
) -> Result<Response, ApiError> {
    require_on(&auth)?;
    let origin = Origin::of_request(&client);
    let mut transaction = auth.database.begin().await?;
    let taken = take(&mut transaction, &auth, request.token.as_str(), &origin).await?;
    let (user, adopted) = taken.ok_or(VerificationError::TokenVoid)?;
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

/// The link.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct MagicLinkParameters {
    /// As in the mail.
    #[serde(default)]
    #[param(value_type = String, max_length = 2048)]
    token: Line<0, 2048>,
    /// The page to come back to.
    #[param(value_type = Option<String>, max_length = 2048)]
    redirect_to: Option<Line<0, 2048>>,
}

/// The form.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MagicLinkForm {
    token: Line<0, 2048>,
    redirect_to: Option<Line<0, 2048>>,
}

/// The page that signs in
#[utoipa::path(
    get, path = "/magic-link", operation_id = "magic_link_page", tag = "auth",
    params(MagicLinkParameters),
    responses(
        (status = 200, description = "The account, and a button", content_type = "text/html", body = String),
        (status = 404, description = "The link is not good; as a problem if this is not offered",
            content((String = "text/html"), (ProblemBody = "application/problem+json"))),
    ),
)]
pub(crate) async fn page(
    State(auth): State<AuthState>,
    language: Language,
    Parameters(parameters): Parameters<MagicLinkParameters>,
) -> Result<Response, ApiError> {
    require_on(&auth)?;
    let mut transaction = auth.database.begin().await?;
    let found = token::look_at::<MagicToken>(&mut transaction, &auth, parameters.token.as_str()).await?;
    let Some((user, _)) = found else { return Ok(link_is_void(language)) };
    let (title, line, button) = match language {
        Language::English => {
            ("Sign in", format!("You sign in to the account of {} in this browser.", user.email), "Sign in")
        }
        Language::German => (
            "Anmelden",
            format!("Du meldest dich in diesem Browser beim Konto von {} an.", user.email),
            "Anmelden",
        ),
    };
    let words = Words { title, refusal: None, lines: vec![line] };
    let app = parameters.redirect_to.as_ref().map(Line::as_str);
    let hidden = [vec![("token", parameters.token.as_str())], app_pair("redirectTo", app)].concat();
    let form = Form { action: PATH, hidden, button, ..Form::default() };
    let targets: Vec<_> =
        app.and_then(|app| auth.redirect_targets.find(app)).map(String::from).into_iter().collect();
    Ok(respond(StatusCode::OK, language, words, Some(form), &targets))
}

/// Signs a browser in
///
/// Sets the single sign-on cookie and leads back to the app, with `twoFactorRequired=true` if a second factor is needed: the app asks for it
/// and sends it to `/api/auth/two-factor/verify-totp`. The link is good once.
#[utoipa::path(
    post, path = "/magic-link", operation_id = "submit_magic_link", tag = "auth",
    request_body(content = MagicLinkForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Signed in, without an app to lead back to", content_type = "text/html", body = String),
        (status = 303, description = "To the app"),
        (status = 400, description = "The form does not fit", body = ProblemBody),
        (status = 404, description = "The link is not good; as a problem if this is not offered",
            content((String = "text/html"), (ProblemBody = "application/problem+json"))),
    ),
)]
pub(crate) async fn submit(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    headers: HeaderMap,
    axum::Form(request): axum::Form<MagicLinkForm>,
) -> Result<Response, ApiError> {
    require_on(&auth)?;
    let origin = Origin::of_request(&client);
    let mut transaction = auth.database.begin().await?;
    let Some((user, adopted)) = take(&mut transaction, &auth, request.token.as_str(), &origin).await? else {
        return Ok(link_is_void(language));
    };
    let device = Device { id: None, name: None, client, headers: &headers, language, remember_me: false };
    let proof = Proof::of(Method::Mail);
    let app = request.redirect_to.as_ref().map(Line::as_str).and_then(|app| auth.redirect_targets.find(app));
    match admit(&mut transaction, &auth, &user, proof, device, &origin).await? {
        Admission::Opened(opened) => {
            let (.., cookie) = opened.commit(transaction, &auth, adopted).await?;
            let set_cookie = cookie.map(|value| [(header::SET_COOKIE, value)]);
            let onward = app.map_or_else(|| signed_in(language), |app| see_other(app.as_str()));
            Ok((set_cookie, onward).into_response())
        }
        Admission::Challenged(challenge) => {
            adopted.commit(transaction, &auth).await?;
            let set_cookie = challenge.cookie(&auth.policy).map(|value| [(header::SET_COOKIE, value)]);
            let onward = app.map_or_else(
                || factor_needed(language),
                |mut app| {
                    app.query_pairs_mut().append_pair("twoFactorRequired", "true");
                    see_other(app.as_str())
                },
            );
            Ok((set_cookie, onward).into_response())
        }
    }
}

/// Uses the link up; its owner has proven the address.
async fn take(
    connection: &mut PgConnection,
    auth: &Auth,
    text: &str,
    origin: &Origin,
) -> Result<Option<(User, Ended)>, AccountError> {
    match token::take::<MagicToken>(connection, auth, text).await? {
        Some(UsedLink { user, .. }) => adopt(connection, auth, user, origin).await.map(Some),
        None => Ok(None),
    }
}

fn require_on(auth: &Auth) -> Result<(), VerificationError> {
    if auth.policy.magic_link_sign_in { Ok(()) } else { Err(VerificationError::Off) }
}

fn signed_in(language: Language) -> Response {
    let (title, line) = match language {
        Language::English => ("You are signed in", "Go back to the app."),
        Language::German => ("Du bist angemeldet", "Geh zurück zur App."),
    };
    let words = Words { title, refusal: None, lines: vec![line.to_owned()] };
    respond(StatusCode::OK, language, words, None, &[])
}

fn factor_needed(language: Language) -> Response {
    let (title, line) = match language {
        Language::English => ("One step is missing", "Go back to the app and give your second factor there."),
        Language::German => {
            ("Ein Schritt fehlt noch", "Geh zurück zur App und gib dort deinen zweiten Faktor an.")
        }
    };
    let words = Words { title, refusal: None, lines: vec![line.to_owned()] };
    respond(StatusCode::OK, language, words, None, &[])
}
