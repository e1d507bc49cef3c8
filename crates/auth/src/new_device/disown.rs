//! `GET` and `POST /not-me`: ends a sign-in that its owner does not know. Opening the link, as scanners of mail do, ends
//! nothing; sending the form does.
//!
//! Also of a sign-in that has ended by itself: what was added in it is what a stranger would come back by.

use super::announce::SignIn;
use super::model::{DisownToken, is_of_device};
use super::store;
use crate::security_event::{self, EventKind, Origin};
use crate::session::end::{Ended, end_disowned};
use crate::session::liveness::{self, store::Found};
use crate::session::model::Session;
use crate::session::proof::{Method, Proof};
use crate::session::store::LaterSession;
use crate::{Auth, AuthState, account, oauth, passkey, session, two_factor, verification};
use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use mana_kernel::UserId;
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
    Ask { token: &'a str, sign_in: SignIn, is_live: bool },
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
        (status = 404, description = "The link is used up", content_type = "text/html", body = String),
    ),
)]
pub(crate) async fn page(
    State(auth): State<AuthState>,
    language: Language,
    Parameters(parameters): Parameters<DisownParameters>,
) -> Result<Response, ApiError> {
    let Some((session, is_live)) = find_session(&auth, &parameters.token).await? else {
        return Ok(respond(StatusCode::NOT_FOUND, language, Step::Void));
    };
    let sign_in = SignIn::of(&session, language);
    Ok(respond(StatusCode::OK, language, Step::Ask { token: &parameters.token, sign_in, is_live }))
}

/// Ends a sign-in which was not its owner's
///
/// With its refresh tokens in all apps, its cookie, and what was added in it: passkeys, linked accounts, a second factor, the link of a new
/// address. So do later sign-ins from the same device, and those from new devices that no mail told of. Also if the sign-in has ended
/// already. The link is good once.
#[utoipa::path(
    post, path = "/not-me", tag = "auth",
    request_body(content = DisownRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Ended", content_type = "text/html", body = String),
        (status = 400, description = "The form does not fit", body = ProblemBody),
        (status = 404, description = "The link is used up", content_type = "text/html", body = String),
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

/// The session that the text's token disowns, and whether it lives.
async fn find_session(auth: &Auth, text: &str) -> Result<Option<(Session, bool)>, DbError> {
    let Ok(token) = DisownToken::parse(text) else { return Ok(None) };
    let mut transaction = auth.database.begin().await?;
    let Some((id, user)) = store::find_token(&mut transaction, token.hash()).await? else {
        return Ok(None);
    };
    let found = liveness::store::find(&mut transaction, &id, &user, auth.clock.now()).await?;
    let session = session::store::find_session(&mut transaction, &id).await?;
    Ok(session.map(|session| (session, matches!(found, Found::Live { .. }))))
}

/// Uses up the token, ends its session and those that came with it, and removes what a stranger would come back by. False if the token was not
/// good.
async fn end_session(auth: &Auth, token: &DisownToken, origin: &Origin) -> Result<bool, DbError> {
    let mut transaction = auth.database.begin().await?;
    let Some((_, user)) = store::find_token(&mut transaction, token.hash()).await? else { return Ok(false) };
    // What is added in the session at this moment is there by now, or is refused.
    account::store::lock_account(&mut transaction, &user).await?;
    let Some((id, user)) = store::delete_token(&mut transaction, token.hash()).await? else {
        return Ok(false);
    };
    let Some(session) = session::store::find_session(&mut transaction, &id).await? else { return Ok(false) };
    let mut others = session::store::list_later(&mut transaction, &session, auth.clock.now()).await?;
    let device = (session.device_id.as_deref(), session.user_agent.as_deref());
    // What whoever had it has opened since: not announced because the device was known by then, or because of how many mails there had been.
    let mut strangers = take_from(&mut others, |other| {
        let of_device = (other.device_id.as_deref(), other.user_agent.as_deref());
        other.id == id.as_str() || other.is_untold || is_of_device(of_device, device)
    });
    let mut ended = Ended::default();
    while !strangers.is_empty() {
        ended = ended.and(end_disowned(&mut transaction, auth, &user, &strangers, origin).await?);
        store::delete_tokens_of_sessions(&mut transaction, &strangers).await?;
        let Removed { events, opened_by } = remove_ways_back(&mut transaction, &user, &strangers).await?;
        for kind in events {
            security_event::record(&mut transaction, auth, kind, Some(&user), Some(&id), origin).await?;
        }
        // And by what was added, from wherever. Which passkey or service opened a session is not known: the owner's own may be among them.
        strangers =
            take_from(&mut others, |other| Proof::from_names(&other.authenticated_by).is_by(&opened_by));
    }
    ended.commit(transaction, auth).await?;
    Ok(true)
}

/// Takes those that are meant out of a list, and gives their ids.
fn take_from(sessions: &mut Vec<LaterSession>, is_meant: impl Fn(&LaterSession) -> bool) -> Vec<String> {
    sessions.extract_if(.., |session| is_meant(session)).map(|session| session.id).collect()
}

/// What was added in sessions.
struct Removed {
    events: Vec<EventKind>,
    /// What sessions that were opened by it are proven by.
    opened_by: Vec<Method>,
}

/// Removes what was added in sessions and would let whoever had them back in: passkeys, linked accounts, the second factor, and the link of a
/// new address. Trust in browsers and sign-ins that wait go whoever's they are: neither names a session.
async fn remove_ways_back(
    connection: &mut PgConnection,
    user: &UserId,
    sessions: &[String],
) -> Result<Removed, DbError> {
    let passkeys = passkey::store::delete_passkeys(connection, user, Some(sessions)).await?;
    let linked = oauth::store::delete_accounts_linked_in(connection, user, sessions).await?;
    let has_lost_app = two_factor::store::delete_factors_of_sessions(connection, user, sessions).await?;
    two_factor::store::delete_half_proofs(connection, user).await?;
    verification::store::delete_tokens_asked_in(connection, user, sessions).await?;
    let mut opened_by = Vec::new();
    if !passkeys.is_empty() {
        opened_by.extend([Method::Passkey, Method::VerifiedPasskey]);
    }
    if !linked.is_empty() {
        opened_by.push(Method::Provider);
    }
    let passkeys = passkeys.into_iter().map(EventKind::PasskeyRemoved);
    let linked = linked
        .iter()
        .map(|provider| EventKind::ProviderUnlinked(oauth::model::ProviderKind::named(provider)));
    let events =
        passkeys.chain(linked).chain(has_lost_app.then_some(EventKind::SecondFactorDisabled)).collect();
    Ok(Removed { events, opened_by })
}

fn respond(status: StatusCode, language: Language, step: Step<'_>) -> Response {
    platform_http::page(status, Page { language, step }.render())
}
