//! `GET` and `POST /api/auth/verify-email`: confirms the address of an account. Opening the link, as scanners of mail do, confirms
//! nothing; sending a form does.
//!
//! Who reads the mail need not be who made the account: a stranger may have made it, and wait for its owner to make it good. So the mail
//! alone keeps nothing. Who confirms also shows that they hold the account, or it becomes theirs alone (`adopt`).

use super::app_page::{AppUrl, app_pair, link, page_of_app};
use super::asked::Asked;
use super::holder::{Holder, find_holder};
use super::letters::VerifyEmail;
use super::model::{VerificationError, VerifyToken};
use super::page::{Field, Form, Words, respond};
use super::reset_password::{hand_over, refusal_of};
use super::token::{self, UsedLink};
use crate::account::model::User;
use crate::account::verify::mark_verified;
use crate::mail::{MailError, Written};
use crate::password::{self, NewPassword};
use crate::security_event::{self, EventKind, Origin};
use crate::session::check_password::check_password;
use crate::session::model::SessionError;
use crate::{Auth, AuthState};
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use mana_kernel::{Line, Problem as _};
use mana_platform::DbError;
use mana_platform::http::{ApiError, ClientInfo, Language, Parameters, ProblemBody, see_other};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};

const PATH: &str = "/api/auth/verify-email";

/// The link of the mail.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct VerifyEmailParameters {
    /// As in the mail.
    #[serde(default)]
    #[param(value_type = String, max_length = 2048)]
    token: Line<0, 2048>,
    /// The app to come back to.
    #[param(value_type = Option<String>, max_length = 2048)]
    redirect_to: Option<Line<0, 2048>>,
}

/// The forms of the page.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct VerifyEmailForm {
    token: Line<0, 2048>,
    redirect_to: Option<Line<0, 2048>>,
    /// The account's, of somebody who confirms in a browser that is not signed in to it.
    #[schema(value_type = Option<String>, format = "password", max_length = 4096)]
    #[serde(default, deserialize_with = "within_bounds")]
    password: Option<SecretString>,
    /// For an account that somebody else may have made: what was made so far ends. The page says what is wrong with one that does not do.
    #[schema(value_type = Option<String>, format = "password", max_length = 4096)]
    #[serde(default, deserialize_with = "within_bounds")]
    new_password: Option<SecretString>,
}

/// As long as a password may be that somebody signs in with.
pub(super) fn within_bounds<'de, D: Deserializer<'de>>(field: D) -> Result<Option<SecretString>, D::Error> {
    let text = Option::<SecretString>::deserialize(field)?;
    if text.as_ref().is_some_and(|text| text.expose_secret().chars().count() > 4096) {
        return Err(D::Error::custom("must be at most 4096 characters long"));
    }
    Ok(text)
}

/// Mails the first link, of an account that is being made.
pub(crate) async fn send_first(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    language: Language,
    app: Option<&AppUrl>,
) -> Result<Written, MailError> {
    let app = app.and_then(|app| auth.redirect_targets.find(app.as_str())).map(String::from);
    send(connection, auth, user, language, app.as_deref()).await
}

/// Mails another link to whoever asked for one.
pub(super) async fn answer(
    connection: &mut PgConnection,
    auth: &Auth,
    asked: &Asked,
    user: &User,
) -> Result<Written, MailError> {
    send(connection, auth, user, asked.language(), asked.app.as_deref()).await
}

async fn send(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    language: Language,
    app: Option<&str>,
) -> Result<Written, MailError> {
    let letter = |token: &str| {
        let query = [vec![("token", token)], app_pair("redirectTo", app)].concat();
        VerifyEmail { language, link: link(auth, PATH, &query) }
    };
    token::mail_link::<VerifyToken, _>(connection, auth, user, (&user.email, None), letter).await
}

/// The page that confirms an address
///
/// A button in a browser that is signed in to the account, at the address that it signed in from. Elsewhere, fields for the account's password, and for a new one: who reads the mail need not be who
/// made the account. Leads to `/verification-failed` of `FRONTEND_URL` with `error` `missing_token`, `invalid_or_expired_token` or
/// `verification_failed` if the link is not good.
#[utoipa::path(
    get, path = "/api/auth/verify-email", operation_id = "verify_email_page", tag = "auth",
    params(VerifyEmailParameters),
    responses(
        (status = 200, description = "The address, and a button", content_type = "text/html", body = String),
        (status = 303, description = "To /verification-failed"),
    ),
)]
pub(crate) async fn page(
    State(auth): State<AuthState>,
    language: Language,
    client: ClientInfo,
    headers: HeaderMap,
    Parameters(parameters): Parameters<VerifyEmailParameters>,
) -> Response {
    let token = parameters.token.as_str();
    if token.is_empty() {
        return failed(&auth, "missing_token");
    }
    let app = parameters.redirect_to.as_ref().map(Line::as_str);
    match look_at(&auth, token, (&client, &headers)).await {
        Ok(Some((user, holder))) => show(&auth, language, (token, app), (&user, holder), None),
        Ok(None) => failed(&auth, "invalid_or_expired_token"),
        Err(error) => broke_off(&auth, &error),
    }
}

/// The account that the link is good for.
async fn look_at(
    auth: &Auth,
    token: &str,
    visitor: (&ClientInfo, &HeaderMap),
) -> Result<Option<(User, Holder)>, DbError> {
    let mut transaction = auth.database.begin().await?;
    let Some((user, _)) = token::look_at::<VerifyToken>(&mut transaction, auth, token).await? else {
        return Ok(None);
    };
    let holder = find_holder(&mut transaction, auth, &user, visitor, None).await?;
    Ok(Some((user, holder)))
}

fn show(
    auth: &Auth,
    language: Language,
    (token, app): (&str, Option<&str>),
    (user, holder): (&User, Holder),
    refusal: Option<String>,
) -> Response {
    let status = if refusal.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let email = &user.email;
    let (title, lines) = match language {
        Language::English => (
            "Confirm your address",
            vec![
                format!("Is {email} your address, and was it you who made an account with it?"),
                "If it isn't yours, close this page.".to_owned(),
            ],
        ),
        Language::German => (
            "Adresse bestätigen",
            vec![
                format!("Ist {email} deine Adresse, und hast du damit ein Konto angelegt?"),
                "Ist es nicht deine, schließ diese Seite.".to_owned(),
            ],
        ),
    };
    let hidden = [vec![("token", token)], app_pair("redirectTo", app)].concat();
    let (label, button) = match language {
        Language::English => ("The password of the account", "Confirm the address"),
        Language::German => ("Das Passwort des Kontos", "Adresse bestätigen"),
    };
    let field = (holder == Holder::Password).then_some(Field::Password(label));
    let yes = Form { action: PATH, lead: None, hidden: hidden.clone(), field, button };
    let (lead, label, button) = match language {
        Language::English => (
            "If you don't know its password, or somebody else made it, set a new one. Whoever is signed in to it is signed out.",
            "New password",
            "Confirm and set the new password",
        ),
        Language::German => (
            "Kennst du sein Passwort nicht, oder hat es jemand anders angelegt, setz ein neues. Wer dort angemeldet ist, wird abgemeldet.",
            "Neues Passwort",
            "Bestätigen und neues Passwort setzen",
        ),
    };
    let field = Some(Field::NewPassword(label, auth.password_rules.min_length));
    let no = Form { action: PATH, lead: Some(lead), hidden, field, button };
    let forms = match holder {
        Holder::Here => vec![yes],
        Holder::Password => vec![yes, no],
        Holder::Nobody => vec![no],
    };
    let targets = [page_of_app(auth, app, "/login", &[]), failure_page(auth, "")];
    respond(status, language, Words { title, refusal, lines }, forms, &targets)
}

/// Confirms an address
///
/// In a browser that is signed in to the account at the address that it signed in from, with the account's password, or with a new one: then whatever was made before (password, sessions,
/// factors, linked accounts) is gone. Leads to `/login?verified=true&email=` of the app, or to `/verification-failed` as the page does. The link is good once.
#[utoipa::path(
    post, path = "/api/auth/verify-email", operation_id = "submit_verify_email", tag = "auth",
    request_body(content = VerifyEmailForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "To the app"),
        (status = 400, description = "The password is missing, wrong, or can't be used; as a problem if the form itself does not fit",
            content((String = "text/html"), (ProblemBody = "application/problem+json"))),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
    ),
)]
pub(crate) async fn submit(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    headers: HeaderMap,
    axum::Form(request): axum::Form<VerifyEmailForm>,
) -> Result<Response, ApiError> {
    let VerifyEmailForm { token, redirect_to, password, new_password } = request;
    let (token, app) = (token.as_str(), redirect_to.as_ref().map(Line::as_str));
    if token.is_empty() {
        return Ok(failed(&auth, "missing_token"));
    }
    let (user, holder) = match look_at(&auth, token, (&client, &headers)).await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(failed(&auth, "invalid_or_expired_token")),
        Err(error) => return Ok(broke_off(&auth, &error)),
    };
    let given = |field: Option<SecretString>| field.filter(|text| !text.expose_secret().is_empty());
    let origin = Origin::of_request(&client);
    let done = match (given(new_password), given(password), holder) {
        (Some(new), _, _) => match NewPassword::typed(new, language) {
            Ok(new) => take_over(&auth, token, &user, new, language, &origin).await,
            Err(refusal) => return Ok(show(&auth, language, (token, app), (&user, holder), Some(refusal))),
        },
        (None, _, Holder::Here) => confirm(&auth, token, &origin).await,
        (None, Some(password), Holder::Password) => {
            let checked = check_password(&auth, user.email.clone(), &password, &origin).await;
            match checked {
                Ok(_) => confirm(&auth, token, &origin).await,
                Err(error) => Err(error.into()),
            }
        }
        (None, _, Holder::Password | Holder::Nobody) => Err(SessionError::InvalidCredentials.into()),
    };
    let refusal = match done {
        Ok(user) => {
            let query = [("verified", "true"), ("email", user.email.as_str())];
            return Ok(see_other(&page_of_app(&auth, app, "/login", &query)));
        }
        Err(VerificationError::TokenVoid) => return Ok(failed(&auth, "invalid_or_expired_token")),
        Err(VerificationError::Session(SessionError::InvalidCredentials)) => match language {
            Language::English => "This is not the password of the account.".to_owned(),
            Language::German => "Das ist nicht das Passwort des Kontos.".to_owned(),
        },
        Err(error) => match refusal_of(&error, language) {
            Some(refusal) => refusal,
            None if error.code().kind.status() == StatusCode::INTERNAL_SERVER_ERROR => {
                return Ok(broke_off(&auth, &error));
            }
            None => return Err(error.into()),
        },
    };
    Ok(show(&auth, language, (token, app), (&user, holder), Some(refusal)))
}

/// Uses the link up, for whoever holds the account: what it has stays as it is.
async fn confirm(auth: &Auth, text: &str, origin: &Origin) -> Result<User, VerificationError> {
    let mut transaction = auth.database.begin().await?;
    let Some(UsedLink { user, .. }) = token::take::<VerifyToken>(&mut transaction, auth, text).await? else {
        return Err(VerificationError::TokenVoid);
    };
    mark_verified(&mut transaction, auth, &user, origin).await?;
    let kind = EventKind::EmailVerified;
    security_event::record(&mut transaction, auth, kind, Some(&user.id), None, origin).await?;
    transaction.commit().await?;
    Ok(user)
}

/// Uses the link up, for whoever knows nothing of the account but the mail: it becomes theirs alone. The password is hashed before the link is
/// used up, as for a reset.
async fn take_over(
    auth: &Auth,
    text: &str,
    user: &User,
    password: NewPassword,
    language: Language,
    origin: &Origin,
) -> Result<User, VerificationError> {
    let bucket = origin.client().bucket();
    let hash = password::choose(auth, password, &user.email, "/newPassword", bucket).await?;
    let mut transaction = auth.database.begin().await?;
    let Some(UsedLink { user, .. }) = token::take::<VerifyToken>(&mut transaction, auth, text).await? else {
        return Err(VerificationError::TokenVoid);
    };
    hand_over(transaction, auth, user.clone(), &hash, language, origin).await?;
    Ok(user)
}

fn broke_off(auth: &Auth, cause: &(dyn std::error::Error + 'static)) -> Response {
    tracing::error!(cause, "an address could not be confirmed");
    failed(auth, "verification_failed")
}

fn failed(auth: &Auth, error: &str) -> Response {
    see_other(&failure_page(auth, error))
}

fn failure_page(auth: &Auth, error: &str) -> String {
    page_of_app(auth, None, "/verification-failed", &[("error", error)])
}
