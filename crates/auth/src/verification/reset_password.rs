//! New passwords by a link that was mailed: `POST /api/v1/auth/reset-password` for apps, `GET /api/auth/reset-password/{token}`, which
//! the link leads to, and `GET` and `POST /reset-password`, the page of this service for whoever comes without an app.
//!
//! Signs nobody in: the second factor, if there is one, is asked for at the sign-in that follows.

use super::adopt::adopt;
use super::app_page::{app_pair, link, page_of_app};
use super::asked::Asked;
use super::letters::{PasswordChanged, ResetPassword};
use super::model::{ResetToken, VerificationError};
use super::page::{Field, Form, Words, link_is_void, respond};
use super::token::{self, UsedLink};
use super::{Acknowledged, store};
use crate::account::model::User;
use crate::mail::{self, MailError, Written};
use crate::password::{self, NewPassword};
use crate::security_event::{self, EventKind, Origin};
use crate::session::end::{Ended, end_chosen};
use crate::session::model::RevokeReason;
use crate::session::store::Choice;
use crate::{Auth, AuthState, account, two_factor};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use mana_kernel::Line;
use mana_platform::DbError;
use mana_platform::db::Transaction;
use mana_platform::http::{ApiError, ClientInfo, Language, Parameters, ProblemBody, Valid, see_other};
use secrecy::SecretString;
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};

const PAGE: &str = "/reset-password";

/// Mails a link to whoever asked for one.
pub(super) async fn answer(
    connection: &mut PgConnection,
    auth: &Auth,
    asked: &Asked,
    user: &User,
) -> Result<Written, MailError> {
    let letter = |token: &str| ResetPassword {
        language: asked.language(),
        link: link(
            auth,
            &format!("/api/auth/reset-password/{token}"),
            &app_pair("callbackURL", asked.app.as_deref()),
        ),
    };
    token::mail_link::<ResetToken, _>(connection, auth, user, (&user.email, None), letter).await
}

/// Where the link leads on to.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FollowParameters {
    /// The app whose page takes the new password; the page of `FRONTEND_URL` without it, or if a browser may not be sent there.
    #[serde(rename = "callbackURL")]
    #[param(value_type = Option<String>, max_length = 2048)]
    callback_url: Option<Line<0, 2048>>,
}

/// Where the link of the mail leads
///
/// Uses nothing up: leads to `/reset-password?token=` of the app, with `error=INVALID_TOKEN` instead if the link is not good.
#[utoipa::path(
    get, path = "/api/auth/reset-password/{token}", tag = "auth",
    params(("token" = String, Path, description = "As in the mail", min_length = 1, max_length = 2048), FollowParameters),
    responses((status = 303, description = "To the app")),
)]
pub(crate) async fn follow(
    State(auth): State<AuthState>,
    Path(token): Path<Line<1, 2048>>,
    Parameters(parameters): Parameters<FollowParameters>,
) -> Result<Response, ApiError> {
    let token = token.as_str();
    let query =
        if find_user(&auth, token).await?.is_some() { ("token", token) } else { ("error", "INVALID_TOKEN") };
    Ok(see_other(&page_of_app(&auth, parameters.callback_url.as_ref().map(Line::as_str), PAGE, &[query])))
}

/// A new password for a forgotten one.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ResetPasswordRequest {
    /// As in the mail.
    token: Line<1, 2048>,
    new_password: NewPassword,
}

/// Sets a new password
///
/// Ends all sessions, and asks to sign in. Proves the address, too.
#[utoipa::path(
    post, path = "/api/v1/auth/reset-password", tag = "auth",
    request_body = ResetPasswordRequest,
    responses(
        (status = 200, description = "Set", body = Acknowledged),
        (status = 400, description = "The link is not good, or the password can't be used", body = ProblemBody),
    ),
)]
pub(crate) async fn reset_password(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    Valid(request): Valid<ResetPasswordRequest>,
) -> Result<Json<Acknowledged>, ApiError> {
    reset(&auth, request.token.as_str(), request.new_password, language, &Origin::of_request(&client))
        .await?;
    Ok(Json(Acknowledged::with("The password is set. Sign in with it")))
}

/// The link's token.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ResetParameters {
    /// As in the mail.
    #[serde(default)]
    #[param(value_type = String, max_length = 2048)]
    token: Line<0, 2048>,
}

/// The form.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ResetPasswordForm {
    token: Line<0, 2048>,
    #[schema(value_type = String, format = "password", min_length = 8, max_length = 128)]
    new_password: SecretString,
}

/// The page that takes a new password
///
/// For whoever comes without an app.
#[utoipa::path(
    get, path = "/reset-password", operation_id = "reset_password_page", tag = "auth",
    params(ResetParameters),
    responses(
        (status = 200, description = "A field for the password", content_type = "text/html", body = String),
        (status = 404, description = "The link is not good", content_type = "text/html", body = String),
    ),
)]
pub(crate) async fn page(
    State(auth): State<AuthState>,
    language: Language,
    Parameters(parameters): Parameters<ResetParameters>,
) -> Result<Response, ApiError> {
    if find_user(&auth, parameters.token.as_str()).await?.is_some() {
        Ok(form(&auth, language, parameters.token.as_str(), None))
    } else {
        Ok(link_is_void(language))
    }
}

/// Sets a new password, by the page
#[utoipa::path(
    post, path = "/reset-password", operation_id = "submit_reset_password", tag = "auth",
    request_body(content = ResetPasswordForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Set", content_type = "text/html", body = String),
        (status = 400, description = "The password can't be used; as a problem if the form itself does not fit",
            content((String = "text/html"), (ProblemBody = "application/problem+json"))),
        (status = 404, description = "The link is not good", content_type = "text/html", body = String),
    ),
)]
pub(crate) async fn submit(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    axum::Form(request): axum::Form<ResetPasswordForm>,
) -> Result<Response, ApiError> {
    let password = match NewPassword::typed(request.new_password, language) {
        Ok(password) => password,
        Err(refusal) => return Ok(form(&auth, language, request.token.as_str(), Some(refusal))),
    };
    match reset(&auth, request.token.as_str(), password, language, &Origin::of_request(&client)).await {
        Ok(()) => Ok(done(language)),
        Err(VerificationError::TokenVoid) => Ok(link_is_void(language)),
        Err(error) => match refusal_of(&error, language) {
            Some(refusal) => Ok(form(&auth, language, request.token.as_str(), Some(refusal))),
            None => Err(error.into()),
        },
    }
}

/// What a page says of a password that can't be chosen; none of any other error.
pub(super) fn refusal_of(error: &VerificationError, language: Language) -> Option<String> {
    if let VerificationError::Password(error) = error { error.in_words(language) } else { None }
}

fn form(auth: &Auth, language: Language, token: &str, refusal: Option<String>) -> Response {
    let status = if refusal.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let (title, line, label, button) = match language {
        Language::English => (
            "Set a new password",
            "You are signed out everywhere and sign in with the new one.",
            "New password",
            "Set the password",
        ),
        Language::German => (
            "Neues Passwort setzen",
            "Du wirst überall abgemeldet und meldest dich mit dem neuen an.",
            "Neues Passwort",
            "Passwort setzen",
        ),
    };
    let words = Words { title, refusal, lines: vec![line.to_owned()] };
    let form = Form {
        action: PAGE,
        hidden: vec![("token", token)],
        field: Some(Field::NewPassword(label, auth.password_rules.min_length)),
        button,
        ..Form::default()
    };
    respond(status, language, words, Some(form), &[])
}

fn done(language: Language) -> Response {
    let (title, line) = match language {
        Language::English => ("The password is set", "Go back to the app and sign in with it."),
        Language::German => ("Das Passwort ist gesetzt", "Geh zurück zur App und melde dich damit an."),
    };
    let words = Words { title, refusal: None, lines: vec![line.to_owned()] };
    respond(StatusCode::OK, language, words, None, &[])
}

/// The user whose password the link would set.
async fn find_user(auth: &Auth, token: &str) -> Result<Option<User>, DbError> {
    let mut transaction = auth.database.begin().await?;
    Ok(token::look_at::<ResetToken>(&mut transaction, auth, token).await?.map(|(user, _)| user))
}

/// Sets the password of the account that the link is good for. The link is looked at before the password is hashed, so that nobody has
/// one hashed for nothing, and used up after.
async fn reset(
    auth: &Auth,
    token: &str,
    password: NewPassword,
    language: Language,
    origin: &Origin,
) -> Result<(), VerificationError> {
    let user = find_user(auth, token).await?.ok_or(VerificationError::TokenVoid)?;
    let bucket = origin.client().bucket();
    let hash = password::choose(auth, password, &user.email, "/newPassword", bucket).await?;

    let mut transaction = auth.database.begin().await?;
    let Some(UsedLink { user, .. }) = token::take::<ResetToken>(&mut transaction, auth, token).await? else {
        return Err(VerificationError::TokenVoid);
    };
    hand_over(transaction, auth, user, &hash, language, origin).await
}

/// Gives an account that is locked to whoever has proven its address, with a new password: everybody is signed out, and of one that nobody
/// had proven to own, nothing that opens it is left. Commits.
pub(super) async fn hand_over(
    mut transaction: Transaction,
    auth: &Auth,
    user: User,
    hash: &str,
    language: Language,
    origin: &Origin,
) -> Result<(), VerificationError> {
    let (user, adopted) = adopt(&mut transaction, auth, user, origin).await?;
    let reason = RevokeReason::PasswordReset;
    let ended = end_chosen(&mut transaction, auth, &user.id, Choice::All, reason, origin).await?;
    password::store::replace_password(&mut transaction, &user.id, hash, auth.clock.now()).await?;
    account::store::update_ways_in(&mut transaction, &user.id).await?;
    store::delete_tokens(&mut transaction, &user.id).await?;
    two_factor::store::delete_half_proofs(&mut transaction, &user.id).await?;
    let kind = EventKind::PasswordReset;
    security_event::record(&mut transaction, auth, kind, Some(&user.id), None, origin).await?;
    let letter = PasswordChanged { language };
    let mail = mail::enqueue(&mut transaction, auth, Some(&user.id), &user.email, &letter).await?;
    Ended::all(vec![adopted, ended]).commit(transaction, auth).await?;
    drop(mail);
    Ok(())
}
