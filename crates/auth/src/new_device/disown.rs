//! `GET` and `POST /not-me`: ends a sign-in that its owner does not know. Opening the link, as scanners of mail do, ends
//! nothing; sending the form does.
//!
//! Also of a sign-in that has ended by itself: what was added in it is what a stranger would come back by. Of that, passkeys, an authenticator app and
//! its codes go for three days only: who reads the mailbox has one factor, and must not turn the other one off.

use super::announce::SignIn;
use super::model::{DisownToken, TAKES_FACTORS_FOR, is_of_stranger, takes_factors_since};
use super::store;
use crate::mail::{self, MailError, Written};
use crate::oauth::store::RemovedAccount;
use crate::passkey::store::RemovedPasskey;
use crate::security_event::{self, EventKind, Origin};
use crate::session::end::{Ended, end_disowned};
use crate::session::liveness::{self, store::Found};
use crate::session::model::Session;
use crate::session::proof::{Method, Proof};
use crate::session::store::OtherSession;
use crate::two_factor::store::LostFactor;
use crate::verification::{Taken, TakenAway};
use crate::{Auth, AuthState, account, oauth, passkey, session, two_factor, verification};
use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use mana_kernel::UserId;
use mana_platform::DbError;
use mana_platform::http::{
    self as platform_http, ApiError, ClientInfo, Head, Language, Parameters, ProblemBody,
};
use serde::Deserialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
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
    Ask { token: &'a str, sign_in: SignIn, is_live: bool, takes_factors: bool },
    /// Has ended it.
    Ended { takes_factors: bool },
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
    get, path = "/not-me", operation_id = "not_me_page", tag = "auth",
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
    let Some(Disowned { session, is_live, takes_factors }) = look_at(&auth, &parameters.token).await? else {
        return Ok(respond(StatusCode::NOT_FOUND, language, Step::Void));
    };
    let (token, sign_in) = (parameters.token.as_str(), SignIn::of(&session, language));
    Ok(respond(StatusCode::OK, language, Step::Ask { token, sign_in, is_live, takes_factors }))
}

/// Ends a sign-in which was not its owner's
///
/// With its refresh tokens in all apps, its cookie, and what was added in it: linked accounts, the link of a new address, and, until 72 hours after the
/// mail and as far as they are no older, passkeys, an authenticator app and recovery codes. So do later sign-ins from the same device, and those that no
/// mail told of. Also if the sign-in has ended already. The owner is told by mail of what went. The link is good once.
#[utoipa::path(
    post, path = "/not-me", operation_id = "submit_not_me", tag = "auth",
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
    let ended = match DisownToken::parse(&request.token) {
        Ok(token) => end_session(&auth, &token, language, &Origin::of_request(&client)).await?,
        Err(_) => None,
    };
    Ok(match ended {
        Some(takes_factors) => respond(StatusCode::OK, language, Step::Ended { takes_factors }),
        None => respond(StatusCode::NOT_FOUND, language, Step::Void),
    })
}

/// What a link would end.
struct Disowned {
    session: Session,
    is_live: bool,
    takes_factors: bool,
}

async fn look_at(auth: &Auth, text: &str) -> Result<Option<Disowned>, DbError> {
    let (Ok(token), now) = (DisownToken::parse(text), auth.clock.now()) else { return Ok(None) };
    let mut transaction = auth.database.begin().await?;
    let Some(found) = store::find_token(&mut transaction, token.hash(), now).await? else {
        return Ok(None);
    };
    let is_live = liveness::store::find(&mut transaction, &found.session, &found.user, now).await?;
    let session = session::store::find_session(&mut transaction, &found.session).await?;
    Ok(session.map(|session| Disowned {
        session,
        is_live: matches!(is_live, Found::Live { .. }),
        takes_factors: takes_factors_since(found.mailed_at, now).is_some(),
    }))
}

/// Uses up the token, ends its session and those that came with it, and removes what a stranger would come back by. Says whether the link was
/// young enough to take factors away; none if it was not good.
async fn end_session(
    auth: &Auth,
    token: &DisownToken,
    language: Language,
    origin: &Origin,
) -> Result<Option<bool>, MailError> {
    let now = auth.clock.now();
    let mut transaction = auth.database.begin().await?;
    let Some(found) = store::find_token(&mut transaction, token.hash(), now).await? else { return Ok(None) };
    // What is added in the session at this moment is there by now, or is refused.
    let account = account::store::lock_account(&mut transaction, &found.user).await?;
    let found = store::delete_token(&mut transaction, token.hash(), now).await?;
    let (Some(account), Some(found)) = (account, found) else { return Ok(None) };
    let (id, user) = (found.session, account.user);
    let Some(session) = session::store::find_session(&mut transaction, &id).await? else { return Ok(None) };
    let factors_since = takes_factors_since(found.mailed_at, now);
    // A younger link takes away what an older one no longer does: it stays good.
    let void_until = factors_since.map_or_else(|| now.saturating_sub(TAKES_FACTORS_FOR), |_| now);
    let mut others = session::store::list_others(&mut transaction, &session, now).await?;
    let mut strangers = take_from(&mut others, |other| is_of_stranger(&session, other));
    let (mut ended, mut all_removed) = (Ended::default(), Removed::default());
    while !strangers.is_empty() {
        ended = ended.and(end_disowned(&mut transaction, auth, &user.id, &strangers, origin).await?);
        store::delete_tokens_of_sessions(&mut transaction, &strangers, void_until).await?;
        let removed = remove_ways_back(&mut transaction, &user.id, &strangers, factors_since).await?;
        for kind in removed.events() {
            security_event::record(&mut transaction, auth, kind, Some(&user.id), Some(&id), origin).await?;
        }
        // And by what was added, from wherever. Which passkey or service opened a session is not known: the owner's own may be among them.
        strangers = take_from(&mut others, |other| removed.has_opened(other, session.created_at));
        all_removed.add(removed);
    }
    let by = SignIn::of_client(origin.client(), now, language).in_words();
    let letter = TakenAway { language, taken: all_removed.told(auth), by };
    let mail = if letter.taken.is_empty() {
        Written::nothing()
    } else {
        mail::enqueue(&mut transaction, auth, Some(&user.id), &user.email, &letter).await?
    };
    ended.commit(transaction, auth).await?;
    drop(mail);
    Ok(Some(factors_since.is_some()))
}

/// Takes those that are meant out of a list, and gives their ids.
fn take_from(sessions: &mut Vec<OtherSession>, is_meant: impl Fn(&OtherSession) -> bool) -> Vec<String> {
    sessions.extract_if(.., |session| is_meant(session)).map(|session| session.id).collect()
}

/// What was added in sessions.
#[derive(Debug, Default)]
struct Removed {
    passkeys: Vec<RemovedPasskey>,
    linked: Vec<RemovedAccount>,
    factor: Option<LostFactor>,
}

impl Removed {
    /// Whether a session that was opened with or after `since`, or what was removed, is proven by the like of it.
    fn has_opened(&self, other: &OtherSession, since: OffsetDateTime) -> bool {
        let proof = Proof::from_names(&other.authenticated_by);
        let is_by = |methods: &[Method], added_at: Option<OffsetDateTime>| {
            added_at.is_some_and(|added_at| other.created_at >= added_at.min(since) && proof.is_by(methods))
        };
        let passkey = self.passkeys.iter().map(|passkey| passkey.created_at).min();
        let linked = self.linked.iter().map(|account| account.created_at).min();
        is_by(&[Method::Passkey, Method::VerifiedPasskey], passkey) || is_by(&[Method::Provider], linked)
    }

    fn events(&self) -> impl Iterator<Item = EventKind> {
        let passkeys = self.passkeys.iter().map(|passkey| EventKind::PasskeyRemoved(passkey.id));
        let named = |account: &RemovedAccount| oauth::model::ProviderKind::named(&account.provider);
        let linked = self.linked.iter().map(move |account| EventKind::ProviderUnlinked(named(account)));
        let app = (self.factor == Some(LostFactor::App)).then_some(EventKind::SecondFactorDisabled);
        passkeys.chain(linked).chain(app)
    }

    fn add(&mut self, other: Self) {
        self.passkeys.extend(other.passkeys);
        self.linked.extend(other.linked);
        self.factor = self.factor.max(other.factor);
    }

    /// As the owner is told of it.
    fn told<'a>(&'a self, auth: &'a Auth) -> Vec<Taken<'a>> {
        let factor = self.factor.map(|factor| match factor {
            LostFactor::App => Taken::App,
            LostFactor::RecoveryCodes => Taken::RecoveryCodes,
        });
        let passkeys = (!self.passkeys.is_empty()).then_some(Taken::Passkeys(self.passkeys.len()));
        let linked =
            self.linked.iter().map(|account| Taken::Service(auth.providers.title_of(&account.provider)));
        factor.into_iter().chain(passkeys).chain(linked).collect()
    }
}

/// Removes what was added in sessions and would let whoever had them back in: linked accounts, the link of a new address, and, where
/// `factors_since` says so, passkeys and the second factor. Trust in browsers and sign-ins that wait go whoever's they are: neither names a session.
async fn remove_ways_back(
    connection: &mut PgConnection,
    user: &UserId,
    sessions: &[String],
    factors_since: Option<OffsetDateTime>,
) -> Result<Removed, DbError> {
    two_factor::store::delete_unconfirmed_of_sessions(connection, user, sessions).await?;
    two_factor::store::delete_half_proofs(connection, user).await?;
    verification::store::delete_tokens_asked_in(connection, user, sessions).await?;
    let linked = oauth::store::delete_accounts_linked_in(connection, user, sessions).await?;
    let Some(since) = factors_since else { return Ok(Removed { linked, ..Removed::default() }) };
    let passkeys = passkey::store::delete_passkeys_added_in(connection, user, sessions, since).await?;
    let factor = two_factor::store::delete_factors_of_sessions(connection, user, sessions, since).await?;
    Ok(Removed { passkeys, linked, factor })
}

fn respond(status: StatusCode, language: Language, step: Step<'_>) -> Response {
    let title = match language {
        Language::English => "End a sign-in",
        Language::German => "Anmeldung beenden",
    };
    platform_http::page(status, Head::new(language, title), Page { language, step }.render())
}
