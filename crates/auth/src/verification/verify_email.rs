//! `GET` and `POST /api/auth/verify-email`: confirms the address of an account. Opening the link, as scanners of mail do, confirms
//! nothing; sending the form does.

use super::app_page::{AppUrl, app_pair, link, page_of_app};
use super::asked::Asked;
use super::letters::VerifyEmail;
use super::model::VerifyToken;
use super::page::{Form, Words, respond};
use super::token;
use crate::account::model::{AccountError, User};
use crate::account::verify::mark_verified;
use crate::mail::{MailError, Written};
use crate::security_event::{self, EventKind, Origin};
use crate::{Auth, AuthState};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use mana_kernel::Line;
use mana_platform::DbError;
use mana_platform::http::{ClientInfo, Language, Parameters, ProblemBody, see_other};
use serde::Deserialize;
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

/// The form.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct VerifyEmailForm {
    token: Line<0, 2048>,
    redirect_to: Option<Line<0, 2048>>,
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
    token::mail_link::<VerifyToken, _>(connection, auth, user, &user.email, letter).await
}

/// The page that confirms an address
///
/// Leads to `/verification-failed` of `FRONTEND_URL` with `error` `missing_token`, `invalid_or_expired_token` or
/// `verification_failed` if the link is not good.
#[utoipa::path(
    get, path = "/api/auth/verify-email", tag = "auth",
    params(VerifyEmailParameters),
    responses(
        (status = 200, description = "The address, and a button", content_type = "text/html", body = String),
        (status = 303, description = "To /verification-failed"),
    ),
)]
pub(crate) async fn page(
    State(auth): State<AuthState>,
    language: Language,
    Parameters(parameters): Parameters<VerifyEmailParameters>,
) -> Response {
    if parameters.token.as_str().is_empty() {
        return failed(&auth, "missing_token");
    }
    let user = match find_user(&auth, parameters.token.as_str()).await {
        Ok(Some(user)) => user,
        Ok(None) => return failed(&auth, "invalid_or_expired_token"),
        Err(error) => return broke_off(&auth, &error),
    };
    let app = parameters.redirect_to.as_ref().map(Line::as_str);
    let words = match language {
        Language::English => Words {
            title: "Confirm your address",
            refusal: None,
            lines: vec![
                format!("Is {} your address, and was it you who made an account with it?", user.email),
                "If it wasn't you, close this page.".to_owned(),
            ],
        },
        Language::German => Words {
            title: "Adresse bestätigen",
            refusal: None,
            lines: vec![
                format!("Ist {} deine Adresse, und hast du damit ein Konto angelegt?", user.email),
                "Warst du das nicht, schließ diese Seite.".to_owned(),
            ],
        },
    };
    let form = Form {
        action: PATH,
        hidden: [vec![("token", parameters.token.as_str())], app_pair("redirectTo", app)].concat(),
        password: None,
        button: match language {
            Language::English => "Confirm the address",
            Language::German => "Adresse bestätigen",
        },
    };
    let targets = [page_of_app(&auth, app, "/login", &[]), failure_page(&auth, "")];
    respond(StatusCode::OK, language, words, Some(form), &targets)
}

async fn find_user(auth: &Auth, token: &str) -> Result<Option<User>, DbError> {
    let mut transaction = auth.database.begin().await?;
    let found = token::look_at::<VerifyToken>(&mut transaction, auth, token).await?;
    Ok(found.map(|(user, _)| user))
}

/// Confirms an address
///
/// Leads to `/login?verified=true&email=` of the app, or to `/verification-failed` as the page does. The link is good once.
#[utoipa::path(
    post, path = "/api/auth/verify-email", tag = "auth",
    request_body(content = VerifyEmailForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "To the app"),
        (status = 400, description = "The form does not fit", body = ProblemBody),
    ),
)]
pub(crate) async fn submit(
    State(auth): State<AuthState>,
    client: ClientInfo,
    axum::Form(request): axum::Form<VerifyEmailForm>,
) -> Response {
    match confirm(&auth, request.token.as_str(), &Origin::of_request(&client)).await {
        Ok(Some(user)) => {
            let query = [("verified", "true"), ("email", user.email.as_str())];
            see_other(&page_of_app(&auth, request.redirect_to.as_ref().map(Line::as_str), "/login", &query))
        }
        Ok(None) if request.token.as_str().is_empty() => failed(&auth, "missing_token"),
        Ok(None) => failed(&auth, "invalid_or_expired_token"),
        Err(error) => broke_off(&auth, &error),
    }
}

/// Uses the link up. Who has it knows nothing of the account, so its sessions and password stay as they are; only who sets a new password
/// or signs in by mail shows that they want it for themselves (`adopt`).
async fn confirm(auth: &Auth, text: &str, origin: &Origin) -> Result<Option<User>, AccountError> {
    let mut transaction = auth.database.begin().await?;
    let Some((user, _)) = token::take::<VerifyToken>(&mut transaction, auth, text).await? else {
        return Ok(None);
    };
    mark_verified(&mut transaction, auth, &user, origin).await?;
    let kind = EventKind::EmailVerified;
    security_event::record(&mut transaction, auth, kind, Some(&user.id), None, origin).await?;
    transaction.commit().await.map_err(DbError::from)?;
    Ok(Some(user))
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
