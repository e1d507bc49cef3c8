//! Access tokens: JWTs (RFC 7519, RFC 8725) that say who the user is and which session vouches for it.

use crate::Auth;
use crate::account::model::{Role, User};
use crate::session::liveness;
use jsonwebtoken::{Algorithm, Header, Validation};
use mana_kernel::{ErrorCode, Problem, SessionId, UserId};
use mana_platform::http::{ApiError, Caller, codes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longer ones are refused before any of it is read, in bytes. Ours have some 800.
const MAX_LENGTH: usize = 8 * 1024;

/// A signed access token. Has no Display and no way into a log; serialises into the answer that hands it out.
#[derive(Serialize)]
#[serde(transparent)]
pub struct AccessToken(String);

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessToken([redacted])")
    }
}

/// What an access token claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Claims {
    /// The user.
    #[schema(value_type = String)]
    pub sub: UserId,
    /// The user's address.
    pub email: String,
    /// What the user may do.
    pub role: Role,
    /// The session.
    #[schema(value_type = String)]
    pub sid: SessionId,
    /// Who issued it.
    pub iss: String,
    /// For whom.
    pub aud: String,
    /// When, in seconds since 1970.
    pub iat: i64,
    /// Until when, in seconds since 1970.
    pub exp: i64,
    /// Id of the token: which answer it came with, or a UUID.
    pub jti: String,
}

/// Names that every token of an installation carries.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// `iss`
    pub issuer: String,
    /// `aud`
    pub audience: String,
}

/// The token could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The signer failed.
    #[error("an access token could not be signed: {0}")]
    Signer(#[from] jsonwebtoken::errors::Error),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] mana_platform::DbError),
    /// The root secret is not usable.
    #[error(transparent)]
    RootSecret(#[from] super::root_secret::RootSecretError),
}

impl Problem for SigningError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::Database(error) => error.code(),
            // An operator left a version out: nobody may lose a session over it.
            Self::RootSecret(_) => &codes::UNAVAILABLE,
            Self::Signer(_) => &codes::INTERNAL,
        }
    }
}

/// A token is not accepted. The reason may be told to the backend that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Not a JWT of this service, or not intact.
    #[error("Invalid token")]
    Invalid,
    /// Was one.
    #[error("Token expired")]
    Expired,
    /// Its session has ended.
    #[error("Session ended")]
    SessionEnded,
}

/// Signs a token for a user's session.
pub(crate) fn sign(
    auth: &Auth,
    user: &User,
    session: &SessionId,
    token_id: String,
) -> Result<AccessToken, SigningError> {
    let policy = &auth.policy;
    let issued_at = auth.clock.now().unix_timestamp();
    let lifetime = i64::try_from(policy.access_token_ttl.as_secs()).unwrap_or(i64::MAX);
    let claims = Claims {
        sub: user.id.clone(),
        email: user.email.clone(),
        role: user.role,
        sid: session.clone(),
        iss: policy.issuer.issuer.clone(),
        aud: policy.issuer.audience.clone(),
        iat: issued_at,
        exp: issued_at.saturating_add(lifetime),
        jti: token_id,
    };
    let (kid, key) = auth.keys.signing();
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::RS256) };
    Ok(AccessToken(jsonwebtoken::encode(&header, &claims, key)?))
}

/// A `jti` for a token that comes without a refresh token.
pub(crate) fn new_token_id(auth: &Auth) -> String {
    mana_kernel::id::new_uuid(&*auth.clock, &*auth.rng).to_string()
}

/// What an intact, unexpired token of this service claims. Says nothing of its session.
///
/// The algorithm is pinned and the key is ours by its id: whatever a token says of algorithms and keys is not followed.
pub(crate) fn verify(auth: &Auth, token: &str) -> Result<Claims, InvalidToken> {
    if token.len() > MAX_LENGTH {
        return Err(InvalidToken::Invalid);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| InvalidToken::Invalid)?;
    if header.typ.as_deref() != Some("JWT") || brings_its_own_key(&header) {
        return Err(InvalidToken::Invalid);
    }
    let key = header.kid.as_deref().and_then(|kid| auth.keys.verifying(kid)).ok_or(InvalidToken::Invalid)?;
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_issuer(&[&auth.policy.issuer.issuer]);
    validation.set_audience(&[&auth.policy.issuer.audience]);
    // Expiry is checked below against the injected clock, without leeway.
    validation.validate_exp = false;
    let claims =
        jsonwebtoken::decode::<Claims>(token, key, &validation).map_err(|_| InvalidToken::Invalid)?.claims;
    if claims.exp <= auth.clock.now().unix_timestamp() { Err(InvalidToken::Expired) } else { Ok(claims) }
}

fn brings_its_own_key(header: &Header) -> bool {
    header.jwk.is_some()
        || header.jku.is_some()
        || header.x5u.is_some()
        || header.x5c.is_some()
        || header.crit.is_some()
}

/// The caller behind a bearer token: intact, unexpired, and its session lives.
pub(crate) async fn authenticate(auth: &Auth, bearer: &str) -> Result<Caller, ApiError> {
    let claims = verify_live(auth, bearer).await?.map_err(|_| ApiError::new(&codes::UNAUTHENTICATED))?;
    Ok(Caller { user_id: claims.sub, session_id: claims.sid })
}

/// As [`verify`], and the session lives.
pub(crate) async fn verify_live(auth: &Auth, token: &str) -> Result<Result<Claims, InvalidToken>, ApiError> {
    let claims = match verify(auth, token) {
        Ok(claims) => claims,
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(if liveness::is_live(auth, &claims).await? { Ok(claims) } else { Err(InvalidToken::SessionEnded) })
}
