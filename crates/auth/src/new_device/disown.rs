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
use crate::{Auth, AuthState, account, oauth, passkey, session, two_factor, verification};
use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use mana_kernel::{SessionId, UserId};
use mana_platform::DbError;
use mana_platform::http::{self as platform_http, ApiError, ClientInfo, Language, Parameters, ProblemBody};
use serde::Deserialize;
use sqlx::PgConnection;
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
/// With its refresh tokens in all apps, its cookie, and what was added in it: passkeys, linked accounts, a second factor, the link of a new
/// address. The link is good once.
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

/// Uses up the token, ends its session, and removes what a stranger would come back by. False if the token was not good or the session had
/// ended by itself.
async fn end_session(auth: &Auth, token: &DisownToken, origin: &Origin) -> Result<bool, DbError> {
    let mut transaction = auth.database.begin().await?;
    let Some((_, user)) = store::find_token(&mut transaction, token.hash()).await? else { return Ok(false) };
    // What is added in the session at this moment is there by now, or is refused.
    account::store::lock_account(&mut transaction, &user).await?;
    let Some((session, user)) = store::delete_token(&mut transaction, token.hash()).await? else {
        return Ok(false);
    };
    let (chosen, reason) = (Choice::This(&session), RevokeReason::Disowned);
    let ended = end_chosen(&mut transaction, auth, &user, chosen, reason, origin).await?;
    for kind in remove_ways_back(&mut transaction, &user, &session).await? {
        security_event::record(&mut transaction, auth, kind, Some(&user), Some(&session), origin).await?;
    }
    Ok(ended.commit(transaction, auth).await? > 0)
}

/// Removes what was added in a session and would let whoever had it back in, and says what there was: passkeys, linked accounts, the second
/// factor, and the link of a new address. Trust in browsers and sign-ins that wait go whoever's they are: neither names a session.
async fn remove_ways_back(
    connection: &mut PgConnection,
    user: &UserId,
    session: &SessionId,
) -> Result<Vec<EventKind>, DbError> {
    let passkeys = passkey::store::delete_passkeys(connection, user, Some(session)).await?;
    let linked = oauth::store::delete_accounts_linked_in(connection, user, session).await?;
    let has_lost_app = two_factor::store::delete_factors_of_session(connection, user, session).await?;
    two_factor::store::delete_half_proofs(connection, user).await?;
    verification::store::delete_tokens_asked_in(connection, user, session).await?;
    let passkeys = passkeys.into_iter().map(EventKind::PasskeyRemoved);
    let linked = linked
        .iter()
        .map(|provider| EventKind::ProviderUnlinked(oauth::model::ProviderKind::named(provider)));
    Ok(passkeys.chain(linked).chain(has_lost_app.then_some(EventKind::SecondFactorDisabled)).collect())
}

fn respond(status: StatusCode, language: Language, step: Step<'_>) -> Response {
    platform_http::page(status, Page { language, step }.render())
}
