//! `POST /api/v1/auth/logout`: ends the session that the request names in any of three ways.

use super::cookie;
use super::end::{Ended, end_one};
use super::model::{RevokeReason, SessionError};
use crate::security_event::Origin;
use crate::token::access::{self, Claims};
use crate::token::refresh;
use crate::{Auth, AuthState};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, header};
use mana_kernel::{SessionId, UserId};
use mana_platform::db::Transaction;
use mana_platform::http::{ApiError, ClientInfo, OptionalBody, ProblemBody, caller};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Which session, when neither a bearer token nor the cookie says so.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LogoutRequest {
    /// Any refresh token of the session, also one that has been replaced.
    #[schema(value_type = Option<String>, max_length = 256)]
    refresh_token: Option<SecretString>,
}

/// Done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogoutResponse {
    success: bool,
    #[schema(max_length = 255)]
    message: &'static str,
}

/// Signs out
///
/// Takes a bearer token, a refresh token in the body, or the session cookie, and ends every session that they name:
/// its refresh tokens in all apps and its cookie. Succeeds also for a session that has ended, and by an access token that has
/// expired, for a day.
#[utoipa::path(
    post, path = "/api/v1/auth/logout", tag = "auth",
    request_body(content = Option<LogoutRequest>, content_type = "application/json"),
    responses(
        (status = 200, description = "Signed out", body = LogoutResponse),
        (status = 401, description = "Nothing names a session", body = ProblemBody),
    ),
    security((), ("bearer" = []), ("cookie" = [])),
)]
pub(crate) async fn logout(
    State(auth): State<AuthState>,
    client: ClientInfo,
    headers: HeaderMap,
    OptionalBody(body): OptionalBody<LogoutRequest>,
) -> Result<Response, ApiError> {
    let refresh_token = body.and_then(|body| body.refresh_token);
    let bearer = match caller::bearer(&headers) {
        Some(token) => access::verify_for_end(&auth, token).await?.ok(),
        None => None,
    };
    let mut transaction = auth.database.begin().await?;
    let named = named_sessions(&mut transaction, &auth, &headers, bearer, refresh_token.as_ref()).await?;
    end(transaction, &auth, named, &Origin::of_request(&client)).await?;
    Ok(signed_out(&auth))
}

/// Ends sessions for their owner and commits; those that have ended stay as they are.
pub(super) async fn end(
    mut transaction: Transaction,
    auth: &Auth,
    mut named: Vec<(SessionId, UserId)>,
    origin: &Origin,
) -> Result<(), SessionError> {
    // In one order, so that two sign-outs don't wait for each other.
    named.sort();
    named.dedup();
    let mut ended = Vec::new();
    for (session, user) in named {
        let reason = RevokeReason::SignedOut;
        ended.push(end_one(&mut transaction, auth, &session, &user, reason, origin).await?);
    }
    Ended::all(ended).commit(transaction, auth).await?;
    Ok(())
}

/// The answer to any sign-out: the browser's cookie goes, whatever it was.
pub(super) fn signed_out(auth: &Auth) -> Response {
    let clear_cookie = cookie::clear(&auth.policy).map(|value| [(header::SET_COOKIE, value)]);
    let done = LogoutResponse { success: true, message: "Signed out successfully" };
    (clear_cookie, Json(done)).into_response()
}

/// Every session that a credential of the request names.
async fn named_sessions(
    connection: &mut PgConnection,
    auth: &Auth,
    headers: &HeaderMap,
    bearer: Option<Claims>,
    refresh_token: Option<&SecretString>,
) -> Result<Vec<(SessionId, UserId)>, SessionError> {
    let has_cookie = !cookie::read(headers, &auth.policy).is_empty();
    let refresh_token = refresh_token.and_then(refresh::model::PresentedToken::parse);
    if bearer.is_none() && !has_cookie && refresh_token.is_none() {
        return Err(SessionError::NothingToSignOut);
    }
    let mut named = cookie::named_sessions(connection, auth, headers).await?;
    named.extend(bearer.map(|claims| (claims.sid, claims.sub)));
    if let Some(token) = &refresh_token {
        named.extend(refresh::find_session(connection, auth, token).await?);
    }
    Ok(named)
}
