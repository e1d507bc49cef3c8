//! Another address for an account: `POST /api/v1/auth/change-email` asks for it, `GET` and `POST /confirm-email` confirm it from the
//! new mailbox. The old one is told when it is asked for and when it is done.

use super::app_page::link;
use super::asked::{Asked, Wanted, write_down};
use super::holder::{Holder, find_holder};
use super::letters::{ChangeEmail, EmailChanges};
use super::model::{ChangeEmailToken, Purpose, VerificationError};
use super::page::{Field, Form, Words, link_is_void, respond};
use super::store::Asking;
use super::token::{self, UsedLink};
use super::verify_email::within_bounds;
use super::{Acknowledged, store};
use crate::account::model::{EMAIL_TAKEN, Email, User};
use crate::account::verify::mark_verified;
use crate::mail::{self, MailError, Written};
use crate::security_event::{self, EventKind, Origin};
use crate::session::check_password::check_password;
use crate::session::hold::hold;
use crate::session::liveness::store::{Found, find};
use crate::session::model::SessionError;
use crate::{Auth, AuthState, account, new_device};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use mana_kernel::{Line, UserId};
use mana_platform::DbError;
use mana_platform::http::{ApiError, ClientInfo, FreshCaller, Language, Parameters, ProblemBody, Valid};
use mana_platform::mail::Recipient;
use secrecy::SecretString;
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
    let wanted = Wanted::ChangeEmail {
        user: caller.user_id.clone(),
        session: caller.session_id.clone(),
        from: client.ip_address.map(|address| address.to_string()),
    };
    let asked = Asked::new(&auth, wanted, &request.new_email, language, None);
    let mut transaction = auth.database.begin().await?;
    hold(&mut transaction, &auth, &caller).await?;
    let written = write_down(&mut transaction, &auth, &asked).await?;
    let (user, session) = (Some(&caller.user_id), Some(&caller.session_id));
    let (kind, origin) = (EventKind::EmailChangeRequested, Origin::of_request(&client));
    security_event::record(&mut transaction, &auth, kind, user, session, &origin).await?;
    transaction.commit().await?;
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
    asking: Asking<'_>,
) -> Result<Written, MailError> {
    let Some(user) = account::store::lock_user(connection, user).await? else {
        return Ok(Written::nothing());
    };
    let found = find(connection, asking.session, &user.id, auth.clock.now()).await?;
    let is_live = matches!(found, Found::Live { .. });
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
    let to = (email.as_str(), Some(asking));
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
    /// The account's, of somebody who confirms elsewhere than where they asked.
    #[schema(value_type = Option<String>, format = "password", max_length = 4096)]
    #[serde(default, deserialize_with = "within_bounds")]
    password: Option<SecretString>,
}

/// The page that confirms a new address
///
/// A button where the new address was asked for, and in a browser that is signed in to the account at the address that it signed in from. Elsewhere a
/// field for the account's password: who reads the mail need not be who asked.
#[utoipa::path(
    get, path = "/confirm-email", operation_id = "confirm_email_page", tag = "auth",
    params(ConfirmParameters),
    responses(
        (status = 200, description = "The addresses, and a button", content_type = "text/html", body = String),
        (status = 404, description = "The link is not good", content_type = "text/html", body = String),
    ),
)]
pub(crate) async fn page(
    State(auth): State<AuthState>,
    language: Language,
    client: ClientInfo,
    headers: HeaderMap,
    Parameters(parameters): Parameters<ConfirmParameters>,
) -> Result<Response, ApiError> {
    let token = parameters.token.as_str();
    let found = look_at(&auth, token, (&client, &headers)).await?;
    Ok(match found {
        Some(found) => show(language, token, &found, None),
        None => link_is_void(language),
    })
}

/// What a link is good for.
struct Link {
    user: User,
    /// The new address.
    email: String,
    holder: Holder,
}

async fn look_at(
    auth: &Auth,
    text: &str,
    visitor: (&ClientInfo, &HeaderMap),
) -> Result<Option<Link>, DbError> {
    let mut transaction = auth.database.begin().await?;
    let found = token::look_at::<ChangeEmailToken>(&mut transaction, auth, text).await?;
    let Some((user, email)) = found else { return Ok(None) };
    let from = store::find_asked_from(&mut transaction, &user.id, Purpose::ChangeEmail).await?;
    let holder = find_holder(&mut transaction, auth, &user, visitor, from.as_deref()).await?;
    Ok(Some(Link { user, email, holder }))
}

fn show(language: Language, token: &str, found: &Link, refusal: Option<String>) -> Response {
    let Link { user, email, holder } = found;
    let status = if refusal.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let old = masked(&user.email);
    let (title, line, label, button) = match language {
        Language::English => (
            "Confirm your new address",
            format!("The account that had {old} until now gets {email}. If it isn't yours, close this page."),
            "The password of the account",
            "Confirm the new address",
        ),
        Language::German => (
            "Neue Adresse bestätigen",
            format!(
                "Das Konto, das bisher {old} hatte, bekommt {email}. Ist es nicht deins, schließ diese Seite."
            ),
            "Das Passwort des Kontos",
            "Neue Adresse bestätigen",
        ),
    };
    let elsewhere = match language {
        Language::English => {
            "Open the link in the network in which you asked for it. If you are in another one now, ask for the new address again from here, and use the link that comes then."
        }
        Language::German => {
            "Öffne den Link in dem Netz, in dem du die Änderung angefordert hast. Bist du jetzt in einem anderen, fordere die neue Adresse von hier aus noch einmal an und verwende den Link, der dann kommt."
        }
    };
    let form =
        |field| Form { action: PATH, hidden: vec![("token", token)], field, button, ..Form::default() };
    let (lines, form) = match holder {
        Holder::Here => (vec![line], Some(form(None))),
        Holder::Password => (vec![line], Some(form(Some(Field::Password(label))))),
        Holder::Nobody => (vec![line, elsewhere.to_owned()], None),
    };
    respond(status, language, Words { title, refusal, lines }, form, &[])
}

/// Confirms a new address
///
/// Where it was asked for, in a browser that is signed in to the account at the address that it signed in from, or with the account's password. It is
/// the account's from then on, and what was mailed to the old one is void; links that end a stranger's sign-in are when their mail is three days old,
/// but for those of the session that asked. The link is good once.
#[utoipa::path(
    post, path = "/confirm-email", operation_id = "submit_confirm_email", tag = "auth",
    request_body(content = ConfirmEmailForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Confirmed", content_type = "text/html", body = String),
        (status = 400, description = "The password is missing or wrong; as a problem if the form itself does not fit",
            content((String = "text/html"), (ProblemBody = "application/problem+json"))),
        (status = 404, description = "The link is not good", content_type = "text/html", body = String),
        (status = 409, description = "Somebody else has an account with the address by now", content_type = "text/html", body = String),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
    ),
)]
pub(crate) async fn submit(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    headers: HeaderMap,
    axum::Form(request): axum::Form<ConfirmEmailForm>,
) -> Result<Response, ApiError> {
    let ConfirmEmailForm { token, password } = request;
    let (token, origin) = (token.as_str(), Origin::of_request(&client));
    let Some(found) = look_at(&auth, token, (&client, &headers)).await? else {
        return Ok(link_is_void(language));
    };
    if found.holder != Holder::Here {
        let password = password.filter(|_| found.holder == Holder::Password).unwrap_or_default();
        match check_password(&auth, found.user.email.clone(), &password, &origin).await {
            Ok(_) => {}
            Err(SessionError::InvalidCredentials) => {
                let refusal = match language {
                    Language::English => "This is not the password of the account.",
                    Language::German => "Das ist nicht das Passwort des Kontos.",
                };
                return Ok(show(language, token, &found, Some(refusal.to_owned())));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let (status, words) = match confirm(&auth, token, language, &origin).await? {
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
    let used = token::take::<ChangeEmailToken>(&mut transaction, auth, text).await?;
    let Some(UsedLink { user, email, asked_in }) = used else { return Ok(Outcome::Void) };
    match account::store::update_email(&mut transaction, &user.id, &email, auth.clock.now()).await {
        Ok(()) => {}
        Err(error) if error.constraint() == Some("users_email_key") => return Ok(Outcome::Taken),
        Err(error) => return Err(error.into()),
    }
    let proven = User { email: email.clone(), ..user.clone() };
    mark_verified(&mut transaction, auth, &proven, origin).await?;
    store::delete_tokens(&mut transaction, &user.id).await?;
    new_device::void_with_address(&mut transaction, &user.id, asked_in.as_deref()).await?;
    let kind = EventKind::EmailChanged;
    security_event::record(&mut transaction, auth, kind, Some(&user.id), None, origin).await?;
    let notice = EmailChanges { language, masked: masked(&email), is_done: true };
    let mail = mail::enqueue(&mut transaction, auth, Some(&user.id), &user.email, &notice).await?;
    transaction.commit().await?;
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
