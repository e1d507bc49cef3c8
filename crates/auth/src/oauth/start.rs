//! `GET` and `POST /api/v1/auth/oauth/{provider}`: sends a browser to the provider.

use super::flow::{Flow, Purposed};
use super::model::OAuthError;
use crate::{Auth, AuthState};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use http::{HeaderValue, header};
use mana_kernel::Line;
use mana_platform::http::{ApiError, Parameters, ProblemBody, Valid};
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::{IntoParams, ToSchema};

/// Bytes of the URL where it ends.
const MAX_TARGET: usize = 2048;

/// Where it ends.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct StartParameters {
    /// A page of the family, `FRONTEND_URL` when not given. Refused or cancelled, it ends there too, with `error` in the query.
    #[param(max_length = 2048)]
    redirect_to: Option<String>,
    /// Keeps the session for longer.
    #[serde(default)]
    remember_me: bool,
}

/// Where it ends.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StartRequest {
    /// A page of the family, `FRONTEND_URL` when not given. Refused or cancelled, it ends there too, with `error` in the query.
    #[schema(value_type = Option<String>, format = "uri", max_length = 2048)]
    redirect_to: Option<Line<0, 2048>>,
    /// Keeps the session for longer.
    remember_me: Option<bool>,
}

/// Where to send the browser.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StartResponse {
    /// A page of the provider. The cookie in the header must be with the browser when it comes back.
    #[schema(format = "uri", max_length = 8192)]
    authorization_url: String,
}

/// Sends the browser to a service to sign in with
///
/// A link for a button. It ends at `redirectTo` with the session cookie, which `/api/v1/auth/session-to-token` exchanges for tokens;
/// with `twoFactorRequired=true` in the query where a second factor is to be given to `/api/v1/auth/two-factor/verify`; or with the code
/// of a problem as `error`.
#[utoipa::path(
    get, path = "/api/v1/auth/oauth/{provider}", tag = "sign-in with others",
    params(("provider" = String, Path, description = "As listed", max_length = 32), StartParameters),
    responses(
        (status = 303, description = "To the provider"),
        (status = 400, description = "redirectTo is not of the family", body = ProblemBody),
        (status = 404, description = "No such provider", body = ProblemBody),
    ),
)]
pub(crate) async fn redirect(
    State(auth): State<AuthState>,
    Path(provider): Path<String>,
    Parameters(parameters): Parameters<StartParameters>,
) -> Result<Response, ApiError> {
    let purpose = Purposed::SignIn { remember_me: parameters.remember_me };
    let (url, cookie) = begin(&auth, &provider, parameters.redirect_to.as_deref(), purpose).await?;
    Ok((set(cookie), Redirect::to(url.as_str())).into_response())
}

/// Begins to sign in with a service
///
/// For pages that send the browser there themselves. Ask with credentials, or the cookie gets lost.
#[utoipa::path(
    post, path = "/api/v1/auth/oauth/{provider}", tag = "sign-in with others",
    params(("provider" = String, Path, description = "As listed", max_length = 32)),
    request_body = StartRequest,
    responses(
        (status = 200, description = "Where to send the browser", body = StartResponse),
        (status = 404, description = "No such provider", body = ProblemBody),
    ),
)]
pub(crate) async fn start(
    State(auth): State<AuthState>,
    Path(provider): Path<String>,
    Valid(request): Valid<StartRequest>,
) -> Result<Response, ApiError> {
    let purpose = Purposed::SignIn { remember_me: request.remember_me.unwrap_or(false) };
    answer(&auth, &provider, request, purpose).await
}

/// The answer to a page that has begun a round trip.
pub(super) async fn answer(
    auth: &Auth,
    provider: &str,
    request: StartRequest,
    purpose: Purposed,
) -> Result<Response, ApiError> {
    let redirect_to = request.redirect_to.map(String::from);
    let (url, cookie) = begin(auth, provider, redirect_to.as_deref(), purpose).await?;
    let answer = StartResponse { authorization_url: url.into() };
    Ok((set(cookie), Json(answer)).into_response())
}

async fn begin(
    auth: &Auth,
    provider: &str,
    redirect_to: Option<&str>,
    purpose: Purposed,
) -> Result<(Url, Option<HeaderValue>), OAuthError> {
    let provider = auth.providers.find(provider)?;
    provider.client()?;
    let target = redirect_to.filter(|text| !text.is_empty()).unwrap_or(&auth.providers.default_target);
    let target = auth.redirect_targets.find(target);
    // Once read it may be longer than it was written, and the cookie has to hold it.
    let target = target.filter(|url| url.as_str().len() <= MAX_TARGET).ok_or(OAuthError::RedirectRefused)?;
    let flow = Flow::begin(auth, provider, &target, purpose);
    let url = flow.authorization_url(auth, provider).await.inspect_err(|error| error.log(&provider.id))?;
    Ok((url, flow.cookie(auth)?))
}

type SetCookie = [(http::HeaderName, HeaderValue); 1];

fn set(cookie: Option<HeaderValue>) -> Option<SetCookie> {
    cookie.map(|value| [(header::SET_COOKIE, value)])
}
