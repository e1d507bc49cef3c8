//! `GET` and `POST /not-me`: ends a sign-in that its owner does not know. Opening the link, as scanners of mail do, ends
//! nothing; sending the form does.

use super::announce::SignIn;
use super::model::DisownToken;
use super::store;
use crate::security_event::{self, EventKind, Origin};
use crate::session::end::end_chosen;
use crate::session::liveness::{self, store::Found};
use crate::session::model::{RevokeReason, Session};
use crate::session::store::Choice;
use crate::{Auth, AuthState, passkey, session};
use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use mana_platform::DbError;
use mana_platform::http::{self as platform_http, ApiError, ClientInfo, Language, Parameters, ProblemBody};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

#[derive(Template)]
#[template(path = "not_me.html")]
struct Page<'a> {
    language: Language,
    step: Step<'a>,
}

/// Where somebody is with it.
enum Step<'a> {
    /// May end the sign-in.
    Ask { token: &'a str, sign_in: SignIn },
    /// Has ended it.
    Ended,
    /// The link is no longer good, or never was.
    Void,
}

/// The link's token.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DisownParameters {
    /// As in the mail.
    #[serde(default)]
    #[param(max_length = 64)]
    token: String,
}

/// The form.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DisownRequest {
    #[schema(max_length = 64)]
    token: String,
}

/// The page that ends a sign-in which was not its owner's
#[utoipa::path(
    get, path = "/not-me", tag = "auth",
    params(DisownParameters),
    responses(
        (status = 200, description = "What would be ended, and a button", content_type = "text/html", body = String),
        (status = 404, description = "The link is used up or the sign-in has ended", content_type = "text/html", body = String),
    ),
)]
pub(crate) async fn page(
    State(auth): State<AuthState>,
    language: Language,
    Parameters(parameters): Parameters<DisownParameters>,
) -> Result<Response, ApiError> {
    let Some(session) = find_session(&auth, &parameters.token).await? else {
        return Ok(respond(StatusCode::NOT_FOUND, language, Step::Void));
    };
    let sign_in = SignIn::of(&session, language);
    Ok(respond(StatusCode::OK, language, Step::Ask { token: &parameters.token, sign_in }))
}

/// Ends a sign-in which was not its owner's
///
/// With its refresh tokens in all apps, its cookie, and the passkeys that were added in it. The link is good once.
#[utoipa::path(
    post, path = "/not-me", tag = "auth",
    request_body(content = DisownRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Ended", content_type = "text/html", body = String),
        (status = 400, description = "The form does not fit", body = ProblemBody),
        (status = 404, description = "The link is used up or the sign-in has ended", content_type = "text/html", body = String),
    ),
)]
pub(crate) async fn submit(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    Form(request): Form<DisownRequest>,
) -> Result<Response, ApiError> {
    let has_ended = match DisownToken::parse(&request.token) {
        Ok(token) => end_session(&auth, &token, &Origin::of_request(&client)).await?,
        Err(_) => false,
    };
    Ok(if has_ended {
        respond(StatusCode::OK, language, Step::Ended)
    } else {
        respond(StatusCode::NOT_FOUND, language, Step::Void)
    })
}

/// The live session that the text's token would end.
async fn find_session(auth: &Auth, text: &str) -> Result<Option<Session>, DbError> {
    let Ok(token) = DisownToken::parse(text) else { return Ok(None) };
    let mut transaction = auth.database.begin().await?;
    let Some((id, user)) = store::find_token(&mut transaction, token.hash()).await? else {
        return Ok(None);
    };
    let found = liveness::store::find(&mut transaction, &id, &user, auth.clock.now()).await?;
    if !matches!(found, Found::Live { .. }) {
        return Ok(None);
    }
    session::store::find_session(&mut transaction, &id).await
}

/// Uses up the token, ends its session, and removes the passkeys that were added in it: a stranger would come back by them. False if the token was not good or the session had ended by itself.
async fn end_session(auth: &Auth, token: &DisownToken, origin: &Origin) -> Result<bool, DbError> {
    let mut transaction = auth.database.begin().await?;
    let Some((session, user)) = store::delete_token(&mut transaction, token.hash()).await? else {
        return Ok(false);
    };
    let (chosen, reason) = (Choice::This(&session), RevokeReason::Disowned);
    let ended = end_chosen(&mut transaction, auth, &user, chosen, reason, origin).await?;
    for id in passkey::store::delete_passkeys(&mut transaction, &user, Some(&session)).await? {
        let kind = EventKind::PasskeyRemoved(id);
        security_event::record(&mut transaction, auth, kind, Some(&user), Some(&session), origin).await?;
    }
    Ok(ended.commit(transaction, auth).await? > 0)
}

fn respond(status: StatusCode, language: Language, step: Step<'_>) -> Response {
    platform_http::page(status, Page { language, step }.render())
}
