//! `GET` and `POST /api/v1/auth/oauth/{provider}/callback`: a browser comes back from a provider.

use super::arrive::{self, arrive};
use super::exchange::{ProviderTokens, exchange};
use super::flow::{Flow, Purposed};
use super::model::{Identity, OAuthError};
use super::provider::Provider;
use super::store;
use crate::mail::Written;
use crate::new_device::warn;
use crate::security_event::Origin;
use crate::session::end::Ended;
use crate::session::model::SessionError;
use crate::session::open::{Admission, Device, admit};
use crate::session::proof::{Method, Proof};
use crate::session::store::hold_session;
use crate::verification::ProtectionChange;
use crate::{Auth, AuthState};
use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{AppendHeaders, IntoResponse as _, Redirect, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use mana_kernel::{Kind, Problem as _, SessionId, UserId};
use mana_platform::http::{
    self as platform_http, ApiError, ClientInfo, Head, Language, Parameters, ProblemBody,
};
use serde::Deserialize;
use url::Url;
use utoipa::ToSchema;

/// Characters of what a provider may give a browser to bring back, each.
const MAX_LENGTH: usize = 4096;

#[derive(Template)]
#[template(path = "oauth_void.html")]
struct Page<'a> {
    language: Language,
    frontend_url: &'a str,
}

/// What the browser brings back.
#[derive(Deserialize, ToSchema)]
pub(crate) struct CallbackParameters {
    /// As it was sent there.
    #[serde(default)]
    #[schema(max_length = 4096)]
    state: String,
    /// Good for the provider's tokens, once.
    #[schema(max_length = 4096)]
    code: Option<String>,
    /// Why there is no code.
    #[schema(max_length = 4096)]
    error: Option<String>,
    /// Who answers (RFC 9207).
    #[schema(max_length = 4096)]
    iss: Option<String>,
    /// Apple: the person's name, the first time.
    #[schema(max_length = 4096)]
    user: Option<String>,
}

impl CallbackParameters {
    fn is_within_bounds(&self) -> bool {
        let texts = [
            Some(&self.state),
            self.code.as_ref(),
            self.error.as_ref(),
            self.iss.as_ref(),
            self.user.as_ref(),
        ];
        texts.into_iter().flatten().all(|text| text.len() <= MAX_LENGTH)
    }

    /// The name that Apple tells beside its token.
    fn name(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct AppleUser {
            name: AppleName,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct AppleName {
            first_name: Option<String>,
            last_name: Option<String>,
        }
        let user: AppleUser = serde_json::from_str(self.user.as_ref()?).ok()?;
        let parts: Vec<_> = [user.name.first_name, user.name.last_name].into_iter().flatten().collect();
        super::exchange::name(&parts.join(" "))
    }
}

/// Where a browser comes back to from a service to sign in with
///
/// Nobody's but the provider's redirect leads here, with the query of RFC 6749, section 4.1.2, and RFC 9207. Ends at the page that was named
/// when it began.
#[utoipa::path(
    get, path = "/api/v1/auth/oauth/{provider}/callback", tag = "sign-in with others",
    params(("provider" = String, Path, description = "As listed", max_length = 32)),
    responses(
        (status = 303, description = "To the page that was named: signed in, linked, asked for a second factor, or with the code of a problem as `error`"),
        (status = 400, description = "Not begun in this browser, too old or finished already; or the query does not fit", content((String = "text/html"), (ProblemBody = "application/problem+json"))),
        (status = 404, description = "No such provider", body = ProblemBody),
    ),
)]
pub(crate) async fn callback(
    State(auth): State<AuthState>,
    Path(provider): Path<String>,
    client: ClientInfo,
    language: Language,
    headers: HeaderMap,
    Parameters(parameters): Parameters<CallbackParameters>,
) -> Result<Response, ApiError> {
    let provider = auth.providers.find(&provider)?;
    provider.client()?;
    let is_sound = parameters.is_within_bounds();
    let flow = if is_sound { Flow::find(&auth, &headers, provider, &parameters.state) } else { None };
    let Some(flow) = flow else { return Ok(void(&auth, language)) };

    let visit = Visit { client: &client, headers: &headers, language };
    match finish(&auth, provider, &flow, &parameters, visit).await {
        Ok(ended) => Ok(ended),
        // Also told on the page: what a person can do about it is there.
        Err(error) if is_told_on_the_page(&error) => {
            error.log(&provider.id);
            Ok(leave(&auth, &flow, &[("error", error.code().code)], None)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// The same for a service that comes back with a form
///
/// A form of another site brings no cookie of this one, so the browser is sent on to where it does. Nothing happens before.
#[utoipa::path(
    post, path = "/api/v1/auth/oauth/{provider}/callback", tag = "sign-in with others",
    params(("provider" = String, Path, description = "As listed", max_length = 32)),
    request_body(content = CallbackParameters, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "To the same path, as a GET"),
        (status = 400, description = "The form does not fit", content((String = "text/html"), (ProblemBody = "application/problem+json"))),
        (status = 404, description = "No such provider", body = ProblemBody),
    ),
)]
pub(crate) async fn form_callback(
    State(auth): State<AuthState>,
    Path(provider): Path<String>,
    language: Language,
    Form(parameters): Form<CallbackParameters>,
) -> Result<Response, ApiError> {
    let provider = auth.providers.find(&provider)?;
    provider.client()?;
    if !parameters.is_within_bounds() {
        return Ok(void(&auth, language));
    }
    let callback = Url::parse(&provider.callback(&auth.policy.public_url));
    let mut url = callback.map_err(|_| OAuthError::UnknownProvider)?;
    let given = [
        ("state", Some(&parameters.state)),
        ("code", parameters.code.as_ref()),
        ("error", parameters.error.as_ref()),
        ("iss", parameters.iss.as_ref()),
        ("user", parameters.user.as_ref()),
    ];
    url.query_pairs_mut().extend_pairs(given.into_iter().filter_map(|(name, value)| Some((name, value?))));
    Ok(Redirect::to(url.as_str()).into_response())
}

/// The browser that came back.
struct Visit<'a> {
    client: &'a ClientInfo,
    headers: &'a HeaderMap,
    language: Language,
}

async fn finish(
    auth: &Auth,
    provider: &Provider,
    flow: &Flow,
    parameters: &CallbackParameters,
    visit: Visit<'_>,
) -> Result<Response, OAuthError> {
    // Before the code is used, and whatever comes of it: a second answer, also at the same time, is none.
    let mut transaction = auth.database.begin().await?;
    if !store::insert_finished(&mut transaction, &flow.state_hash(), flow.expires_at()).await? {
        return Err(OAuthError::UnknownFlow);
    }
    arrive::commit(transaction).await?;

    let (Some(code), None) = (&parameters.code, &parameters.error) else { return Err(OAuthError::Denied) };
    let (mut identity, tokens) = exchange(auth, provider, flow, code, parameters.iss.as_deref()).await?;
    identity.name = identity.name.or_else(|| parameters.name());
    match flow.purpose() {
        Purposed::SignIn { remember_me } => {
            sign_in(auth, provider, flow, (&identity, &tokens), visit, remember_me).await
        }
        Purposed::Link { user, session } => {
            let origin = Origin::of_request(visit.client);
            link(auth, provider, (&identity, &tokens), (&user, &session), (visit.language, &origin)).await?;
            leave(auth, flow, &[("linked", &provider.id)], None)
        }
    }
}

async fn sign_in(
    auth: &Auth,
    provider: &Provider,
    flow: &Flow,
    (identity, tokens): (&Identity, &ProviderTokens),
    visit: Visit<'_>,
    remember_me: bool,
) -> Result<Response, OAuthError> {
    let origin = Origin::of_request(visit.client);
    let Visit { client, headers, language } = visit;
    let (mut transaction, user, mail) =
        arrive(auth, provider, identity, Some(tokens), (language, &origin)).await?;
    let device = Device { id: None, name: None, client: client.clone(), headers, language, remember_me };
    let proof = Proof::of(Method::Provider);
    let (told, cookie) = match admit(&mut transaction, auth, &user, proof, device, &origin).await? {
        Admission::Opened(opened) => {
            let (.., cookie) = opened.commit(transaction, auth, Ended::default()).await?;
            (&[][..], cookie)
        }
        Admission::Challenged(challenge) => {
            arrive::commit(transaction).await?;
            (&[("twoFactorRequired", "true")][..], challenge.cookie(&auth.policy))
        }
    };
    drop(mail);
    leave(auth, flow, told, cookie)
}

/// Links who came back to the account of the session that asked for it, if that lives.
async fn link(
    auth: &Auth,
    provider: &Provider,
    (identity, tokens): (&Identity, &ProviderTokens),
    (user, session): (&UserId, &SessionId),
    (language, origin): (Language, &Origin),
) -> Result<(), OAuthError> {
    let mut transaction = auth.database.begin().await?;
    // The account may be somebody else's by the time that this comes back, or gone.
    let owner = hold_session(&mut transaction, session, user, auth.clock.now()).await?;
    let owner = owner.ok_or(SessionError::DeadCookie)?;
    let mut mail = Written::nothing();
    let known = store::find_account(&mut transaction, &identity.issuer, &identity.subject).await?;
    let id = match known {
        Some(known) if known.user.id == *user => known.id,
        Some(_) => return Err(OAuthError::AccountTaken),
        None => {
            let linked =
                arrive::link(&mut transaction, auth, provider, identity, user, Some(session), origin).await;
            match linked {
                Err(error) if arrive::is_of_another(&error) => return Err(OAuthError::AccountTaken),
                linked => {
                    let (id, change) = (linked?, ProtectionChange::ServiceLinked(&provider.title));
                    let by = (language, origin);
                    mail = warn(&mut transaction, auth, &owner, change, Some(session), by).await?;
                    id
                }
            }
        }
    };
    if !arrive::note_use(&mut transaction, auth, id, identity, Some(tokens)).await? {
        return Err(OAuthError::NotLinked);
    }
    arrive::commit(transaction).await?;
    drop(mail);
    Ok(())
}

/// Whether the page that the person comes back to is told of a refusal: not of what is our own fault.
fn is_told_on_the_page(error: &OAuthError) -> bool {
    matches!(error, OAuthError::ProviderFailed(_))
        || !matches!(error.code().kind, Kind::Internal | Kind::Unavailable)
}

/// Sends the browser to the page that was named when it began.
fn leave(
    auth: &Auth,
    flow: &Flow,
    told: &[(&str, &str)],
    cookie: Option<HeaderValue>,
) -> Result<Response, OAuthError> {
    // Asked again: the settings may have changed since.
    let mut target = auth.redirect_targets.find(&flow.redirect_to).ok_or(OAuthError::RedirectRefused)?;
    if !told.is_empty() {
        target.query_pairs_mut().extend_pairs(told);
    }
    let cookies = [Flow::clear(&auth.policy), cookie].into_iter().flatten();
    let cookies: Vec<_> = cookies.map(|value| (header::SET_COOKIE, value)).collect();
    Ok((AppendHeaders(cookies), Redirect::to(target.as_str())).into_response())
}

/// There is nothing to go on with, and so no page to go back to.
fn void(auth: &Auth, language: Language) -> Response {
    let page = Page { language, frontend_url: &auth.providers.default_target };
    let title = match language {
        Language::English => "Sign-in not finished",
        Language::German => "Anmeldung nicht abgeschlossen",
    };
    platform_http::page(StatusCode::BAD_REQUEST, Head::new(language, title), page.render())
}
