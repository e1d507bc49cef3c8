//! `GET` and `POST /claim-admin`: a page for people. Opening the link uses nothing up, sending the form does.

use super::{ClaimToken, store};
use crate::account::model::{AccountError, Email, Role, User};
use crate::account::{self, register};
use crate::password::{self, NewPassword};
use crate::security_event::{self, EventKind, Origin};
use crate::session::check_password::check_password;
use crate::session::end::{Ended, end_chosen};
use crate::session::model::{RevokeReason, SessionError};
use crate::session::store::Choice;
use crate::{Auth, AuthState};
use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use mana_platform::DbError;
use mana_platform::http::{ApiError, ClientInfo, Head, Language, Parameters, ProblemBody};
use secrecy::SecretString;
use serde::Deserialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

const NOT_ITS_PASSWORD: [&str; 2] = [
    "The address has an account, and this is not its password.",
    "Die Adresse hat ein Konto, und das ist nicht sein Passwort.",
];
const JUST_TAKEN: [&str; 2] = [
    "The address has just got an account: give its password.",
    "Die Adresse hat gerade ein Konto bekommen: Gib dessen Passwort an.",
];
const DISABLED: [&str; 2] = ["This account is disabled.", "Dieses Konto ist gesperrt."];
const LINK_IS_VOID: [&str; 2] = [
    "This link is used up, expired or was replaced by a newer one.",
    "Dieser Link wurde benutzt, ist abgelaufen oder durch einen neueren ersetzt.",
];

fn in_words(language: Language, [english, german]: [&str; 2]) -> String {
    match language {
        Language::English => english.to_owned(),
        Language::German => german.to_owned(),
    }
}

#[derive(Template)]
#[template(path = "claim_admin.html")]
struct Page {
    language: Language,
    /// Absent when the link is no longer good.
    token: Option<String>,
    refusal: Option<String>,
    /// The new administrator, when done.
    done: Option<String>,
}

/// The link's token.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ClaimParameters {
    /// As printed by the start in dev mode or by `admin claim-link`.
    #[param(max_length = 64)]
    token: String,
}

/// The form.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimRequest {
    #[schema(max_length = 64)]
    token: String,
    #[schema(max_length = 254)]
    email: String,
    /// The existing account's password, or the new account's.
    #[schema(value_type = String, format = "password", max_length = 4096)]
    password: SecretString,
}

/// The page that makes the first administrator
#[utoipa::path(
    get, path = "/claim-admin", operation_id = "claim_admin_page", tag = "admin",
    params(ClaimParameters),
    responses(
        (status = 200, description = "A form for address and password", content_type = "text/html", body = String),
        (status = 404, description = "The link is used up, expired or replaced", content_type = "text/html", body = String),
    ),
)]
pub(crate) async fn page(
    State(auth): State<AuthState>,
    language: Language,
    Parameters(parameters): Parameters<ClaimParameters>,
) -> Result<Response, ApiError> {
    let is_good = match ClaimToken::parse(&parameters.token) {
        Ok(token) => {
            let mut transaction = auth.database.begin().await?;
            is_open(&mut transaction, &token, auth.clock.now()).await?
        }
        Err(_) => false,
    };
    if is_good { Ok(form(language, parameters.token, None)) } else { Ok(link_is_void(language)) }
}

/// Makes the first administrator
///
/// Takes an existing account's address and password, or makes a new account.
#[utoipa::path(
    post, path = "/claim-admin", operation_id = "submit_claim_admin", tag = "admin",
    request_body(content = ClaimRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Done", content_type = "text/html", body = String),
        (status = 400, description = "Address or password can't be used; as a problem if the form itself does not fit",
            content((String = "text/html"), (ProblemBody = "application/problem+json"))),
        (status = 404, description = "The link is used up, expired or replaced", content_type = "text/html", body = String),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
        (status = 503, description = "Try again", body = ProblemBody),
    ),
)]
pub(crate) async fn submit(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    Form(request): Form<ClaimRequest>,
) -> Result<Response, ApiError> {
    let Ok(token) = ClaimToken::parse(&request.token) else {
        return Ok(link_is_void(language));
    };
    let email = match Email::try_from(request.email) {
        Ok(email) => email,
        Err(refusal) => {
            let refusal = match language {
                Language::English => format!("The address {refusal}."),
                Language::German => {
                    "Diese Adresse geht nicht. Sie muss sein wie name@example.com, aus einfachen Buchstaben."
                        .to_owned()
                }
            };
            return Ok(form(language, request.token, Some(refusal)));
        }
    };
    let origin = Origin::of_request(&client);
    match claim(&auth, &token, &email, request.password, language, &origin).await? {
        Outcome::Made => {
            let done = Some(email.as_str().to_owned());
            Ok(respond(StatusCode::OK, &Page { language, token: None, refusal: None, done }))
        }
        Outcome::LinkIsVoid => Ok(link_is_void(language)),
        Outcome::Refused(refusal) => Ok(form(language, request.token, Some(refusal))),
    }
}

enum Outcome {
    Made,
    LinkIsVoid,
    Refused(String),
}

/// Whose account becomes the administrator's.
enum Candidate {
    /// Has an account, and has proven its password.
    Proven(User),
    /// Gets one.
    New(User, String),
}

/// The password is checked or hashed before the lock and the transaction: whoever waits for a hash must not keep others from
/// the table, nor a connection from everybody.
async fn claim(
    auth: &Auth,
    token: &ClaimToken,
    email: &Email,
    password: SecretString,
    language: Language,
    origin: &Origin,
) -> Result<Outcome, ApiError> {
    let has_account = {
        let mut transaction = auth.database.begin().await?;
        if !is_open(&mut transaction, token, auth.clock.now()).await? {
            return Ok(Outcome::LinkIsVoid);
        }
        account::store::find_by_email(&mut transaction, email).await?.is_some()
    };
    let candidate = if has_account {
        prove(auth, email, &password, language, origin).await?
    } else {
        make(auth, email, password, language, origin).await?
    };
    let candidate = match candidate {
        Ok(candidate) => candidate,
        Err(refusal) => return Ok(Outcome::Refused(refusal)),
    };

    let mut transaction = auth.database.begin().await?;
    let now = auth.clock.now();
    store::lock_claims(&mut transaction).await?;
    if account::store::exists_admin(&mut transaction).await?
        || !store::update_used(&mut transaction, token.hash(), now).await?
    {
        return Ok(Outcome::LinkIsVoid);
    }
    let mut ended = Ended::default();
    let user = match candidate {
        Candidate::Proven(user) => {
            let Some(held) = account::store::lock_user(&mut transaction, &user.id).await? else {
                return Ok(Outcome::Refused(in_words(language, DISABLED)));
            };
            if held.ways_in_epoch != user.ways_in_epoch {
                return Ok(Outcome::Refused(in_words(language, NOT_ITS_PASSWORD)));
            }
            account::store::update_role(&mut transaction, &user.id, Role::Admin, now).await?;
            // As when somebody is promoted: what was opened by the rules for others is no administrator's.
            let reason = RevokeReason::RoleChanged;
            ended = end_chosen(&mut transaction, auth, &user.id, Choice::All, reason, origin).await?;
            user
        }
        Candidate::New(user, hash) => {
            match register::create(&mut transaction, auth, &user, &hash, origin).await {
                Ok(()) => user,
                Err(AccountError::EmailTaken) => return Ok(Outcome::Refused(in_words(language, JUST_TAKEN))),
                Err(error) => return Err(error.into()),
            }
        }
    };
    security_event::record(&mut transaction, auth, EventKind::BecameAdmin, Some(&user.id), None, origin)
        .await?;
    ended.commit(transaction, auth).await?;
    Ok(Outcome::Made)
}

/// Whether a form of this link could make an administrator now.
async fn is_open(
    connection: &mut PgConnection,
    token: &ClaimToken,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    Ok(store::is_good(connection, token.hash(), now).await?
        && !account::store::exists_admin(connection).await?)
}

/// The account of the address, if the password is its own, as at a sign-in: failures are written down and slowed down.
async fn prove(
    auth: &Auth,
    email: &Email,
    password: &SecretString,
    language: Language,
    origin: &Origin,
) -> Result<Result<Candidate, String>, ApiError> {
    match check_password(auth, email.as_str().to_owned(), password, origin).await {
        Ok(user) => Ok(Ok(Candidate::Proven(user))),
        Err(SessionError::InvalidCredentials) => Ok(Err(in_words(language, NOT_ITS_PASSWORD))),
        Err(SessionError::AccountDisabled) => Ok(Err(in_words(language, DISABLED))),
        Err(error) => Err(error.into()),
    }
}

/// An account that is not stored yet.
async fn make(
    auth: &Auth,
    email: &Email,
    password: SecretString,
    language: Language,
    origin: &Origin,
) -> Result<Result<Candidate, String>, ApiError> {
    let password = match NewPassword::typed(password, language) {
        Ok(password) => password,
        Err(refusal) => return Ok(Err(refusal)),
    };
    match password::choose(auth, password, email.as_str(), "/password", origin.client().bucket()).await {
        Ok(hash) => Ok(Ok(Candidate::New(register::new_user(auth, email, None, Role::Admin), hash))),
        Err(error) => match error.in_words(language) {
            Some(refusal) => Ok(Err(refusal)),
            None => Err(AccountError::from(error).into()),
        },
    }
}

fn form(language: Language, token: String, refusal: Option<String>) -> Response {
    let status = if refusal.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    respond(status, &Page { language, token: Some(token), refusal, done: None })
}

fn link_is_void(language: Language) -> Response {
    let refusal = Some(in_words(language, LINK_IS_VOID));
    respond(StatusCode::NOT_FOUND, &Page { language, token: None, refusal, done: None })
}

fn respond(status: StatusCode, page: &Page) -> Response {
    let title = match page.language {
        Language::English => "First administrator",
        Language::German => "Verwaltung übernehmen",
    };
    mana_platform::http::page(status, Head::new(page.language, title), page.render())
}
