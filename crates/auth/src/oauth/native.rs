//! `POST /api/v1/auth/google-signin` and `/apple-signin`: an ID token that a mobile app has from the system, for a session and tokens.

use super::arrive::arrive;
use super::exchange::{self, identity};
use super::id_token::{NonceRule, digest};
use super::model::OAuthError;
use super::store;
use crate::account::model::User;
use crate::security_event::Origin;
use crate::session::login::TokenResponse;
use crate::session::open::Device;
use crate::session::proof::{Method, Proof};
use crate::session::sign_in::sign_in_answering;
use crate::token::AppId;
use crate::token::access::AccessToken;
use crate::token::refresh::model::RefreshToken;
use crate::two_factor::SecondFactorRequired;
use crate::{Auth, AuthState};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use mana_kernel::Line;
use mana_platform::http::{ApiError, ClientInfo, Language, ProblemBody, Valid};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Who wants in.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NativeSignInRequest {
    /// The ID token (JWT) as the system gave it to the app. `token` is taken for its name as well.
    #[serde(alias = "token")]
    #[schema(value_type = String, format = "password", min_length = 1, max_length = 16384)]
    id_token: Line<1, 16384>,
    /// The nonce that the app asked with, if it did: the token must have its SHA-256 in hexadecimal; Google's may have it as it is. A token that
    /// comes with its nonce is good once. One that has a nonce is refused without it, unless the operator says otherwise.
    nonce: Option<Line<1, 255>>,
    /// The person's name, which Apple tells the app alone, and once.
    name: Option<Line<0, 255>>,
    /// The device's own id, to recognise it next time; empty is none.
    device_id: Option<Line<0, 512>>,
    /// The device's name, to show in the list of devices; of a long one the beginning. Empty is none.
    device_name: Option<Line<0, 512>>,
    /// Keeps the session for longer.
    remember_me: Option<bool>,
}

/// A user with a fresh pair of tokens, as older apps read them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NativeSignInTokens {
    /// The access token by another name.
    #[schema(value_type = String, max_length = 8192)]
    app_token: AccessToken,
    /// JWT for `Authorization: Bearer`.
    #[schema(value_type = String, max_length = 8192)]
    access_token: AccessToken,
    /// Good for one refresh; then its successor is.
    #[schema(value_type = String, max_length = 255)]
    refresh_token: RefreshToken,
    user: User,
    /// Seconds until the access token expires.
    #[schema(minimum = 1, maximum = 315_360_000)]
    expires_in: u64,
    /// Always `Bearer`.
    #[schema(max_length = 16)]
    token_type: &'static str,
}

/// Tokens, or the question for a second factor.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "says what the answer is; each half is written where it is known")]
pub(crate) enum NativeSignInResponse {
    /// Signed in.
    SignedIn(NativeSignInTokens),
    /// Half way there.
    SecondFactor(SecondFactorRequired),
}

/// Signs in with Google's ID token
///
/// For mobile apps whose client ids are among `GOOGLE_AUDIENCES`. Sets the single sign-on cookie as well. Where a second factor is
/// needed, the answer has `twoFactorRequired` instead of tokens.
#[utoipa::path(
    post, path = "/api/v1/auth/google-signin", tag = "sign-in with others",
    request_body = NativeSignInRequest,
    params(("X-App-Id" = Option<String>, Header, description = "The app whose chain of refresh tokens begins; the page's origin without it", max_length = 255)),
    responses(
        (status = 200, description = "Signed in, or asked for a second factor", body = NativeSignInResponse),
        (status = 401, description = "The token is not valid here", body = ProblemBody),
        (status = 404, description = "Not set up", body = ProblemBody),
        (status = 409, description = "The address has an account that is not linked", body = ProblemBody),
        (status = 422, description = "The token has no e-mail address", body = ProblemBody),
    ),
)]
pub(crate) async fn google_sign_in(
    State(auth): State<AuthState>,
    client: ClientInfo,
    app: AppId,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<NativeSignInRequest>,
) -> Result<Response, ApiError> {
    sign_in(&auth, "google", request, &app, (client, language, &headers)).await
}

/// Signs in with Apple's ID token
///
/// For mobile apps whose bundle ids are among `APPLE_AUDIENCES`. Sets the single sign-on cookie as well. Where a second factor is
/// needed, the answer has `twoFactorRequired` instead of tokens.
#[utoipa::path(
    post, path = "/api/v1/auth/apple-signin", tag = "sign-in with others",
    request_body = NativeSignInRequest,
    params(("X-App-Id" = Option<String>, Header, description = "The app whose chain of refresh tokens begins; the page's origin without it", max_length = 255)),
    responses(
        (status = 200, description = "Signed in, or asked for a second factor", body = NativeSignInResponse),
        (status = 401, description = "The token is not valid here", body = ProblemBody),
        (status = 404, description = "Not set up", body = ProblemBody),
        (status = 409, description = "The address has an account that is not linked", body = ProblemBody),
        (status = 422, description = "The token has no e-mail address", body = ProblemBody),
    ),
)]
pub(crate) async fn apple_sign_in(
    State(auth): State<AuthState>,
    client: ClientInfo,
    app: AppId,
    language: Language,
    headers: HeaderMap,
    Valid(request): Valid<NativeSignInRequest>,
) -> Result<Response, ApiError> {
    sign_in(&auth, "apple", request, &app, (client, language, &headers)).await
}

async fn sign_in(
    auth: &Auth,
    provider: &str,
    request: NativeSignInRequest,
    app: &AppId,
    (client, language, headers): (ClientInfo, Language, &HeaderMap),
) -> Result<Response, ApiError> {
    let provider = auth.providers.find(provider)?;
    if provider.audiences.is_empty() {
        return Err(OAuthError::UnknownProvider.into());
    }
    let mut audiences: Vec<_> = provider.audiences.iter().map(String::as_str).collect();
    // An app asks for tokens that name the web application as well, as Google's do on Android.
    audiences.extend(provider.client.as_ref().map(|client| client.id.as_str()));
    let nonce = NonceRule::OfApp {
        sent: request.nonce.as_ref().map(Line::as_str),
        takes_unsent: provider.takes_unsent_nonce,
        takes_clear: provider.takes_clear_nonce,
    };
    let proven = exchange::prove(auth, provider, request.id_token.as_str(), &audiences, nonce).await;
    let claims = proven.inspect_err(|error| error.log(&provider.id))?;
    let once = claims.nonce.as_ref().map(|_| (digest(request.id_token.as_str()), claims.dead_at()));
    let mut identity = identity(provider, *claims);
    identity.name = identity.name.or_else(|| exchange::name(request.name?.as_str()));

    let origin = Origin::of_request(&client);
    let (mut transaction, user, mail) = arrive(auth, provider, &identity, None, (language, &origin)).await?;
    if let Some(once) = once {
        let outcome = use_up(&mut transaction, once, request.nonce.is_some()).await;
        outcome.inspect_err(|error| error.log(&provider.id))?;
    }
    let device = Device {
        id: request.device_id,
        name: request.device_name,
        client,
        headers,
        language,
        remember_me: request.remember_me.unwrap_or(false),
    };
    let proof = Proof::of(Method::Provider);
    let answered = sign_in_answering(transaction, auth, &user, proof, (device, app), &origin, answer).await?;
    drop(mail);
    Ok(answered)
}

/// Uses a token up that has a nonce and came with it. One that comes without is good as long as nobody has: an app that keeps the nonce from
/// this service gets the same token for a while. The account is locked: two at once take turns.
async fn use_up(
    connection: &mut PgConnection,
    (digest, dead_at): ([u8; 32], OffsetDateTime),
    is_with_nonce: bool,
) -> Result<(), OAuthError> {
    let is_first = if is_with_nonce {
        store::insert_finished(connection, &digest, dead_at).await?
    } else {
        !store::exists_finished(connection, &digest).await?
    };
    if is_first { Ok(()) } else { Err(OAuthError::NotProven("it was used before")) }
}

fn answer(tokens: TokenResponse) -> Response {
    Json(NativeSignInTokens {
        app_token: tokens.access_token.clone(),
        access_token: tokens.access_token,
        refresh_token: tokens.refresh_token,
        user: tokens.user,
        expires_in: tokens.expires_in,
        token_type: tokens.token_type,
    })
    .into_response()
}
