//! `POST /api/v1/auth/logout`: ends the session that the request names in any of three ways.

use super::cookie;
use super::model::{RevokeReason, SessionError};
use super::store;
use crate::security_event::{self, EventKind, Origin};
use crate::token::{access, refresh};
use crate::{Auth, AuthState};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, header};
use mana_kernel::{SessionId, UserId};
use mana_platform::DbError;
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
    #[schema(value_type = Option<String>)]
    refresh_token: Option<SecretString>,
}

/// Done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogoutResponse {
    success: bool,
    message: &'static str,
}

/// Signs out
///
/// Takes a bearer token, a refresh token in the body, or the session cookie, and ends every session that they name:
/// its refresh tokens in all apps and its cookie. Succeeds also for a session that has ended.
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
    let origin = Origin::of_request(&client);

    let mut transaction = auth.database.begin().await?;
    let named = named_sessions(&mut transaction, &auth, &headers, refresh_token.as_ref()).await?;
    for (session, user) in named {
        let was_live =
            store::update_revoked(&mut transaction, &session, RevokeReason::SignedOut, auth.clock.now())
                .await?;
        if was_live {
            security_event::record(
                &mut transaction,
                &auth,
                EventKind::SignedOut,
                Some(&user),
                Some(&session),
                &origin,
            )
            .await?;
        }
    }
    transaction.commit().await.map_err(DbError::from)?;

    let clear_cookie = cookie::clear(&auth.policy).map(|value| [(header::SET_COOKIE, value)]);
    let done = LogoutResponse { success: true, message: "Signed out successfully" };
    Ok((clear_cookie, Json(done)).into_response())
}

/// Every session that a credential of the request names.
async fn named_sessions(
    connection: &mut PgConnection,
    auth: &Auth,
    headers: &HeaderMap,
    refresh_token: Option<&SecretString>,
) -> Result<Vec<(SessionId, UserId)>, SessionError> {
    let bearer = caller::bearer(headers).and_then(|token| access::verify(auth, token).ok());
    let cookies = cookie::read(headers, &auth.policy);
    let refresh_token = refresh_token.and_then(refresh::model::PresentedToken::parse);
    let mut named: Vec<_> = bearer.iter().map(|claims| (claims.sid.clone(), claims.sub.clone())).collect();
    for cookie in &cookies {
        named.extend(store::find_by_cookie(connection, cookie.hash()).await?);
    }
    if let Some(token) = &refresh_token {
        named.extend(refresh::find_session(connection, auth, token).await?);
    }
    if bearer.is_none() && cookies.is_empty() && refresh_token.is_none() {
        return Err(SessionError::NothingToSignOut);
    }
    named.sort();
    named.dedup();
    Ok(named)
}
