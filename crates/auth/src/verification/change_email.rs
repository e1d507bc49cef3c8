//! Another address for an account: `POST /api/v1/auth/change-email` asks for it, `GET` and `POST /confirm-email` confirm it from the
//! new mailbox. The old one is told when it is asked for and when it is done.

use super::app_page::link;
use super::asked::{Asked, Wanted, write_down};
use super::letters::{ChangeEmail, EmailChanges};
use super::model::{ChangeEmailToken, VerificationError};
use super::page::{Form, Words, link_is_void, respond};
use super::{Acknowledged, store, token};
use crate::account::model::{EMAIL_TAKEN, Email, User};
use crate::account::verify::mark_verified;
use crate::mail::{self, MailError, Written};
use crate::security_event::{self, EventKind, Origin};
use crate::session::hold::hold;
use crate::session::liveness::store::{Found, find};
use crate::{Auth, AuthState, account};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use mana_kernel::{Line, SessionId, UserId};
use mana_platform::DbError;
use mana_platform::http::{ApiError, ClientInfo, FreshCaller, Language, Parameters, ProblemBody, Valid};
use mana_platform::mail::Recipient;
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};

const PATH: &str = "/confirm-email";

/// Where mail is to go.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ChangeEmailRequest {
    new_email: Email,
}

/// Asks for another address
///
/// Mails a link to the new address, whose button makes it the account's, and tells the old one. Answers the same if the address has an
/// account already; then there is no link.
#[utoipa::path(
    post, path = "/api/v1/auth/change-email", tag = "auth",
    request_body = ChangeEmailRequest,
    responses(
        (status = 200, description = "Asked for", body = Acknowledged),
        (status = 403, description = "The sign-in is too old for this, or sent by a browser for a page of a foreign site", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn change_email(
    State(auth): State<AuthState>,
    FreshCaller(caller): FreshCaller,
    client: ClientInfo,
    language: Language,
    Valid(request): Valid<ChangeEmailRequest>,
) -> Result<Json<Acknowledged>, ApiError> {
    let wanted = Wanted::ChangeEmail { user: caller.user_id.clone(), session: caller.session_id.clone() };
    let asked = Asked::new(&auth, wanted, &request.new_email, language, None);
    let mut transaction = auth.database.begin().await?;
    hold(&mut transaction, &auth, &caller).await?;
    let written = write_down(&mut transaction, &auth, &asked).await?;
    let (user, session) = (Some(&caller.user_id), Some(&caller.session_id));
    let (kind, origin) = (EventKind::EmailChangeRequested, Origin::of_request(&client));
    security_event::record(&mut transaction, &auth, kind, user, session, &origin).await?;
    transaction.commit().await.map_err(DbError::from)?;
    drop(written);
    Ok(Json(Acknowledged::with("If the address is free, a mail to confirm it is on its way")))
}

/// Tells the old address, and mails the link if the new one is free; neither if the session is over: a new password, which ends it, stops what
/// a thief has asked for.
pub(super) async fn answer(
    connection: &mut PgConnection,
    auth: &Auth,
    asked: &Asked,
    user: &UserId,
    session: &SessionId,
) -> Result<Written, MailError> {
    let Some(user) = account::store::lock_user(connection, user).await? else {
        return Ok(Written::nothing());
    };
    let is_live = matches!(find(connection, session, &user.id, auth.clock.now()).await?, Found::Live { .. });
    let Ok(email) = Email::try_from(asked.email.clone()) else { return Ok(Written::nothing()) };
    if !is_live {
        return Ok(Written::nothing());
    }
    let language = asked.language();
    // Whether the address is free or not: whoever asks reads the old mailbox, too.
    let notice = EmailChanges { language, masked: masked(email.as_str()), is_done: false };
    let told = mail::enqueue(connection, auth, Some(&user.id), &user.email, &notice).await?;
    if account::store::find_by_email(connection, &email).await?.is_some() {
        return Ok(told);
    }
    let letter = |token: &str| ChangeEmail { language, link: link(auth, PATH, &[("token", token)]) };
    let to = (email.as_str(), Some(session));
    let written = token::mail_link::<ChangeEmailToken, _>(connection, auth, &user, to, letter).await?;
    // One bell rings for both.
    Ok(if written.is_a_mail() { written } else { told })
}

/// The link's token.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ConfirmParameters {
    /// As in the mail.
    #[serde(default)]
    #[param(value_type = String, max_length = 2048)]
    token: Line<0, 2048>,
}

/// The form.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfirmEmailForm {
    token: Line<0, 2048>,
}

/// The page that confirms a new address
#[utoipa::path(
    get, path = "/confirm-email", tag = "auth",
    params(ConfirmParameters),
    responses(
        (status = 200, description = "The addresses, and a button", content_type = "text/html", body = String),
        (status = 404, description = "The link is not good", content_type = "text/html", body = String),
    ),
)]
pub(crate) async fn page(
    State(auth): State<AuthState>,
    language: Language,
    Parameters(parameters): Parameters<ConfirmParameters>,
) -> Result<Response, ApiError> {
    let mut transaction = auth.database.begin().await?;
    let found =
        token::look_at::<ChangeEmailToken>(&mut transaction, &auth, parameters.token.as_str()).await?;
    let Some((user, email)) = found else { return Ok(link_is_void(language)) };
    let old = masked(&user.email);
    let (title, line, button) = match language {
        Language::English => (
            "Confirm your new address",
            format!("The account that had {old} until now gets {email}."),
            "Confirm the new address",
        ),
        Language::German => (
            "Neue Adresse bestätigen",
            format!("Das Konto, das bisher {old} hatte, bekommt {email}."),
            "Neue Adresse bestätigen",
        ),
    };
    let words = Words { title, refusal: None, lines: vec![line] };
    let hidden = vec![("token", parameters.token.as_str())];
    let form = Form { action: PATH, hidden, button, ..Form::default() };
    Ok(respond(StatusCode::OK, language, words, Some(form), &[]))
}

/// Confirms a new address
///
/// It is the account's from then on, and what was mailed to the old one is void. The link is good once.
#[utoipa::path(
    post, path = "/confirm-email", tag = "auth",
    request_body(content = ConfirmEmailForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Confirmed", content_type = "text/html", body = String),
        (status = 400, description = "The form does not fit", body = ProblemBody),
        (status = 404, description = "The link is not good", content_type = "text/html", body = String),
        (status = 409, description = "Somebody else has an account with the address by now", content_type = "text/html", body = String),
    ),
)]
pub(crate) async fn submit(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    axum::Form(request): axum::Form<ConfirmEmailForm>,
) -> Result<Response, ApiError> {
    let (status, words) =
        match confirm(&auth, request.token.as_str(), language, &Origin::of_request(&client)).await? {
            Outcome::Void => return Ok(link_is_void(language)),
            Outcome::Changed => (StatusCode::OK, changed(language)),
            Outcome::Taken => (EMAIL_TAKEN.kind.status(), taken(language)),
        };
    Ok(respond(status, language, words, None, &[]))
}

enum Outcome {
    Void,
    Changed,
    Taken,
}

async fn confirm(
    auth: &Auth,
    text: &str,
    language: Language,
    origin: &Origin,
) -> Result<Outcome, VerificationError> {
    let mut transaction = auth.database.begin().await?;
    let Some((user, email)) = token::take::<ChangeEmailToken>(&mut transaction, auth, text).await? else {
        return Ok(Outcome::Void);
    };
    match account::store::update_email(&mut transaction, &user.id, &email, auth.clock.now()).await {
        Ok(()) => {}
        Err(error) if error.constraint() == Some("users_email_key") => return Ok(Outcome::Taken),
        Err(error) => return Err(error.into()),
    }
    let proven = User { email: email.clone(), ..user.clone() };
    mark_verified(&mut transaction, auth, &proven, origin).await?;
    store::delete_tokens(&mut transaction, &user.id).await?;
    let kind = EventKind::EmailChanged;
    security_event::record(&mut transaction, auth, kind, Some(&user.id), None, origin).await?;
    let notice = EmailChanges { language, masked: masked(&email), is_done: true };
    let mail = mail::enqueue(&mut transaction, auth, Some(&user.id), &user.email, &notice).await?;
    transaction.commit().await.map_err(DbError::from)?;
    drop(mail);
    Ok(Outcome::Changed)
}

fn changed(language: Language) -> Words {
    let (title, line) = match language {
        Language::English => ("Your new address is confirmed", "From now on, you sign in with it."),
        Language::German => ("Deine neue Adresse ist bestätigt", "Von jetzt an meldest du dich mit ihr an."),
    };
    Words { title, refusal: None, lines: vec![line.to_owned()] }
}

fn taken(language: Language) -> Words {
    let (title, refusal) = match language {
        Language::English => ("The address was not changed", "There is an account with this address by now."),
        Language::German => {
            ("Die Adresse wurde nicht geändert", "Mit dieser Adresse gibt es inzwischen ein Konto.")
        }
    };
    Words { title, refusal: Some(refusal.to_owned()), lines: Vec::new() }
}

/// What somebody else may read of an address.
fn masked(email: &str) -> String {
    Recipient::try_from(email.to_owned()).map(|recipient| recipient.masked()).unwrap_or_default()
}
