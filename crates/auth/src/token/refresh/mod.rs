//! `POST /api/v1/auth/refresh`: one refresh token for the next, by the rules of `model.rs`.

pub mod model;
mod store;

use super::AppId;
use super::access::{self, TokenError};
use super::root_secret::{Purpose, RootSecretError};
use crate::account::model::User;
use crate::security_event::{self, EventKind, Origin};
use crate::session;
use crate::session::login::TokenResponse;
use crate::session::model::{RevokeReason, Session, SessionError};
use crate::{Auth, AuthState, account};
use axum::Json;
use axum::extract::State;
use mana_kernel::{RefreshChainId, SessionId, UserId};
use mana_platform::DbError;
use mana_platform::http::{ApiError, ClientInfo, ProblemBody, Valid};
use model::{ChainSecret, ChainState, PresentedToken, RefreshError, Verdict};
use secrecy::SecretString;
use serde::Deserialize;
use sqlx::PgConnection;
use store::Chain;
use utoipa::ToSchema;

/// Which chain to continue.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RefreshRequest {
    /// The newest refresh token that the client has.
    #[schema(value_type = String)]
    refresh_token: SecretString,
}

/// Exchanges a refresh token for the next pair
///
/// Each token is good once. The one before the newest gets the same successor again until that is used for a refresh, so
/// tabs may race and answers may get lost; an older one ends the session.
#[utoipa::path(
    post, path = "/api/v1/auth/refresh", tag = "auth",
    request_body = RefreshRequest,
    responses(
        (status = 200, description = "The next pair", body = TokenResponse),
        (status = 401, description = "The session has ended", body = ProblemBody),
    ),
)]
pub(crate) async fn refresh(
    State(auth): State<AuthState>,
    client: ClientInfo,
    Valid(request): Valid<RefreshRequest>,
) -> Result<Json<TokenResponse>, ApiError> {
    let mut transaction = auth.database.begin().await?;
    let outcome =
        continue_chain(&mut transaction, &auth, &request.refresh_token, &Origin::of_request(&client)).await?;
    // A replay has an outcome that must persist: the session has ended.
    transaction.commit().await.map_err(DbError::from)?;
    Ok(Json(outcome?))
}

/// The outer error rolls back; the inner one is an outcome to keep.
async fn continue_chain(
    connection: &mut PgConnection,
    auth: &Auth,
    token: &SecretString,
    origin: &Origin,
) -> Result<Result<TokenResponse, RefreshError>, RefreshError> {
    let presented = PresentedToken::parse(token).ok_or(RefreshError::Invalid)?;
    let chain = store::lock_chain(connection, &presented.chain).await?.ok_or(RefreshError::Invalid)?;
    let secret = chain_secret(auth, &chain).map_err(TokenError::from)?;
    let generation = presented.verify(&secret).ok_or(RefreshError::Invalid)?;
    let now = auth.clock.now();
    let grace = auth.policy.refresh_grace.try_into().unwrap_or_default();

    let newest = match model::decide(&chain.state, generation, now, grace) {
        Verdict::Rotate => {
            let next = generation.max(chain.state.generation).saturating_add(1);
            let expires_at = auth.policy.session_end(chain.session_created_at, now, chain.remember_me);
            store::update_rotated(connection, &chain.id, next, now, expires_at).await?;
            session::store::update_activity(connection, &chain.session_id, now, expires_at).await?;
            next
        }
        Verdict::Repeat => chain.state.generation,
        Verdict::Replayed => {
            session::store::update_revoked(connection, &chain.session_id, RevokeReason::RefreshReplayed, now)
                .await?;
            security_event::record(
                connection,
                auth,
                EventKind::RefreshReplayed,
                Some(&chain.user_id),
                Some(&chain.session_id),
                origin,
            )
            .await?;
            return Ok(Err(RefreshError::Invalid));
        }
        Verdict::Expired => return Err(RefreshError::Expired),
        Verdict::Revoked => return Err(RefreshError::Invalid),
    };
    let user = account::store::find_user(connection, &chain.user_id).await?.ok_or(RefreshError::Invalid)?;
    Ok(Ok(answer(auth, user, &chain.session_id, &secret, newest)?))
}

/// Opens an app's chain under a new session, at its first token.
pub(crate) async fn open_chain(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    session: &Session,
    app: &AppId,
) -> Result<TokenResponse, TokenError> {
    let mut seed = vec![0; 32];
    auth.rng.fill(&mut seed);
    let chain = Chain {
        id: RefreshChainId::new(&*auth.clock, &*auth.rng),
        user_id: user.id.clone(),
        session_id: session.id.clone(),
        secret_version: auth.root_secrets.current_id().to_owned(),
        seed,
        remember_me: false,
        session_created_at: session.created_at,
        state: ChainState {
            generation: 1,
            rotated_at: session.created_at,
            confirmed_at: None,
            expires_at: session.expires_at,
            is_revoked: false,
        },
    };
    store::insert_chain(connection, &chain, app).await?;
    let secret = chain_secret(auth, &chain)?;
    answer(auth, user.clone(), &session.id, &secret, chain.state.generation)
}

/// The session that any authentic token of a chain belongs to, also a replaced one.
pub(crate) async fn find_session(
    connection: &mut PgConnection,
    auth: &Auth,
    token: &PresentedToken,
) -> Result<Option<(SessionId, UserId)>, SessionError> {
    let Some(chain) = store::find_chain(connection, &token.chain).await? else {
        return Ok(None);
    };
    let secret = chain_secret(auth, &chain).map_err(TokenError::from)?;
    Ok(token.verify(&secret).map(|_| (chain.session_id, chain.user_id)))
}

fn chain_secret<'a>(auth: &Auth, chain: &'a Chain) -> Result<ChainSecret<'a>, RootSecretError> {
    let key = auth.root_secrets.derive(&chain.secret_version, Purpose::RefreshTokens)?;
    Ok(ChainSecret { chain: &chain.id, seed: &chain.seed, key })
}

fn answer(
    auth: &Auth,
    user: User,
    session: &SessionId,
    secret: &ChainSecret<'_>,
    generation: i64,
) -> Result<TokenResponse, TokenError> {
    let access_token = access::sign(&auth.keys, &auth.policy, &*auth.clock, &*auth.rng, &user, session)?;
    Ok(TokenResponse {
        user,
        access_token,
        refresh_token: secret.token(generation),
        expires_in: auth.policy.access_token_ttl.as_secs(),
        token_type: "Bearer",
    })
}
