//! `POST /api/v1/auth/refresh`: one refresh token for the next, by the rules of `model.rs`.

pub mod model;
pub(crate) mod store;

use super::AppId;
use super::access;
use super::root_secret::{Purpose, RootSecretError};
use crate::account::model::User;
use crate::security_event::Origin;
use crate::session::end;
use crate::session::login::TokenResponse;
use crate::session::model::{RevokeReason, Session, SessionError};
use crate::{Auth, AuthState};
use axum::Json;
use axum::extract::State;
use mana_kernel::{RefreshChainId, SessionId, UserId};
use mana_platform::DbError;
use mana_platform::http::{ApiError, ClientInfo, ProblemBody, Valid};
use model::{ChainSecret, ChainState, Issue, PresentedToken, RefreshError, SecretVersions, Verdict};
use secrecy::SecretString;
use serde::Deserialize;
use sqlx::PgConnection;
use store::Chain;
use utoipa::ToSchema;

/// Which chain to continue.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"refreshToken": "the refreshToken of the last answer"})))]
pub(crate) struct RefreshRequest {
    /// The newest refresh token that the client has.
    #[schema(value_type = String, max_length = 256)]
    refresh_token: SecretString,
}

/// How often a refresh looks again after somebody else's was faster. That one's answer is then its own; more than two
/// looks in a row would take a chain that is rotated by every other request.
const LOOKS: usize = 8;

/// Exchanges a refresh token for the next pair
///
/// Each token is good once. The one before the newest gets the same successor again until that is seen in use, and for a
/// short while after, so tabs may race and answers may get lost; an older one ends the session.
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
    let presented = PresentedToken::parse(&request.refresh_token).ok_or(RefreshError::Invalid)?;
    for _ in 0..LOOKS {
        if let Some(tokens) = continue_chain(&auth, &presented, &client).await? {
            return Ok(Json(tokens));
        }
    }
    Err(RefreshError::Contended.into())
}

/// One look at the chain, and what follows from it; nothing if the chain moved before that could be written.
///
/// Two round trips: a read, and one statement that rotates only what is as it was read. Racing refreshes need no lock.
async fn continue_chain(
    auth: &Auth,
    presented: &PresentedToken,
    client: &ClientInfo,
) -> Result<Option<TokenResponse>, RefreshError> {
    let mut connection = auth.database.acquire().await?;
    let chain = store::find_chain(&mut connection, &presented.chain).await?.ok_or(RefreshError::Invalid)?;
    let secret = chain_secret(auth, &chain, presented.generation())?;
    let generation = presented.verify(&secret).ok_or(RefreshError::Invalid)?;
    if chain.is_user_disabled {
        return Err(RefreshError::Invalid);
    }
    let now = auth.clock.now();
    let grace = auth.policy.refresh_grace.try_into().unwrap_or_default();
    match chain.state.present(generation, now, grace) {
        Verdict::Rotate => {
            let by_policy = auth.policy.session_end(chain.session_created_at, now, chain.remember_me);
            let expires_at = chain.minted.as_ref().map_or(by_policy, |minted| minted.until);
            let next = chain.state.rotated(generation, expires_at);
            let versions = chain.secret.moved_to(auth.root_secrets.current_id(), next.generation);
            if !store::update_rotated(&mut connection, &chain, &next, &versions, now).await? {
                return Ok(None);
            }
            connection.finish().await?;
            answer(auth, Chain { secret: versions, ..chain }, next.generation).map(Some)
        }
        Verdict::Repeat => {
            drop(connection);
            let newest = chain.state.generation;
            answer(auth, chain, newest).map(Some)
        }
        Verdict::Replayed => {
            drop(connection);
            end_stolen(auth, &chain, &Origin::of_request(client)).await?;
            Err(RefreshError::Invalid)
        }
        Verdict::Expired => Err(RefreshError::Expired),
        Verdict::Revoked => Err(RefreshError::Invalid),
    }
}

/// Ends the session of a chain whose tokens are in two hands.
async fn end_stolen(auth: &Auth, chain: &Chain, origin: &Origin) -> Result<(), DbError> {
    let mut transaction = auth.database.begin().await?;
    let reason = RevokeReason::RefreshReplayed;
    let ended =
        end::end_one(&mut transaction, auth, &chain.session_id, &chain.user.id, reason, origin).await?;
    ended.commit(transaction, auth).await?;
    Ok(())
}

/// Opens an app's chain under a session, at its first token.
pub(crate) async fn open_chain(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    session: &Session,
    app: &AppId,
) -> Result<TokenResponse, RefreshError> {
    let mut seed = vec![0; 32];
    auth.rng.fill(&mut seed);
    let version = auth.root_secrets.current_id().to_owned();
    let now = auth.clock.now();
    let minted = session.minted();
    let by_policy = auth.policy.session_end(session.created_at, now, session.remember_me);
    let chain = Chain {
        id: RefreshChainId::new(&*auth.clock, &*auth.rng),
        session_id: session.id.clone(),
        user: user.clone(),
        secret: SecretVersions { version, since: 1, older: None },
        seed,
        remember_me: session.remember_me,
        session_created_at: session.created_at,
        is_user_disabled: false,
        state: ChainState {
            generation: 1,
            confirmed_at: None,
            expires_at: minted.as_ref().map_or(by_policy, |minted| minted.until),
            is_revoked: false,
        },
        minted,
    };
    if !store::insert_chain(connection, &chain, app, now).await? {
        return Err(RefreshError::SessionEnded);
    }
    answer(auth, chain, 1)
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
    let secret = chain_secret(auth, &chain, token.generation()).map_err(RefreshError::from)?;
    Ok(token.verify(&secret).map(|_| (chain.session_id, chain.user.id)))
}

/// What the token of a generation is derived from.
fn chain_secret<'a>(
    auth: &Auth,
    chain: &'a Chain,
    generation: i64,
) -> Result<ChainSecret<'a>, RootSecretError> {
    let key = auth.root_secrets.derive(chain.secret.of(generation), Purpose::RefreshTokens)?;
    Ok(ChainSecret { chain: &chain.id, seed: &chain.seed, key })
}

fn answer(auth: &Auth, chain: Chain, generation: i64) -> Result<TokenResponse, RefreshError> {
    let refresh_token = chain_secret(auth, &chain, generation)?.token(generation);
    let issue = Issue { chain: chain.id, generation };
    let minted = chain.minted.as_ref();
    let life = access::life(auth, minted);
    let token_id = issue.token_id(&*auth.rng);
    let access_token = access::sign_for(auth, &chain.user, &chain.session_id, token_id, minted, life)?;
    Ok(TokenResponse {
        user: chain.user,
        access_token,
        refresh_token,
        expires_in: life.as_secs(),
        token_type: "Bearer",
    })
}
