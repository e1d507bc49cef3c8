//! Access tokens: JWTs (RFC 7519, RFC 8725) that say who the user is and which session vouches for it.

use super::compact::{self, Compact};
use super::intact::IntactToken;
use super::keys::{KeyError, KeyRing, KeysUnread};
use crate::Auth;
use crate::account::model::{Role, User};
use crate::session::liveness;
use crate::session::model::Minted;
use mana_kernel::{ErrorCode, Problem, SessionId, UserId};
use mana_platform::http::{ApiError, Caller, codes};
use serde::{Deserialize, Deserializer, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// Longer ones are refused before any of it is read, in bytes. Ours have some 800.
const MAX_LENGTH: usize = 8 * 1024;

/// How far ahead the clock of the server that issued a token may be, in seconds.
const MAX_SKEW_SECONDS: i64 = 60;

/// For how long after its expiry a token still ends its session.
const ENDS_SECONDS_AFTER: i64 = 24 * 60 * 60;

/// A signed access token. Has no Display and no way into a log; serialises into the answer that hands it out.
#[derive(Clone, Serialize)]
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
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    pub sub: UserId,
    /// The user's address.
    #[schema(min_length = 3, max_length = 254)]
    pub email: String,
    /// What the user may do.
    pub role: Role,
    /// The session.
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    pub sid: SessionId,
    /// Who issued it.
    #[schema(max_length = 255)]
    pub iss: String,
    /// For whom.
    #[schema(max_length = 255)]
    pub aud: String,
    /// When, in seconds since 1970.
    #[schema(minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64)]
    pub iat: i64,
    /// Until when, in seconds since 1970.
    #[schema(minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64)]
    pub exp: i64,
    /// Not before, in seconds since 1970. Tokens of this service have none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64)]
    pub nbf: Option<i64>,
    /// Id of the token: which answer it came with, or a UUID.
    #[schema(min_length = 1, max_length = 128)]
    pub jti: String,
    /// Who acts for the user, if the user did not sign in (RFC 8693, section 4.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Actor>,
}

/// Who acts for a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Actor {
    /// The app whose backend opened the session, as `app:chat`.
    #[schema(min_length = 1, max_length = 132)]
    pub sub: String,
}

/// A member that may be left out, but not be null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    i64::deserialize(deserializer).map(Some)
}

/// Names that every token of an installation carries.
#[derive(Debug, Clone, Default)]
pub struct Issuer {
    /// `iss`
    pub issuer: String,
    /// `aud`
    pub audience: String,
}

/// No token could be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is no key that signs, or it does not.
    #[error("an access token could not be signed: {0}")]
    Key(#[from] KeyError),
    /// What it claims is not JSON.
    #[error("the claims of an access token could not be written: {0}")]
    Claims(#[from] serde_json::Error),
    /// The root secret is not usable.
    #[error(transparent)]
    RootSecret(#[from] super::root_secret::RootSecretError),
}

impl Problem for TokenError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            // An operator left a version out: nobody may lose a session over it.
            Self::RootSecret(_) | Self::Key(KeyError::NoKey) => &codes::UNAVAILABLE,
            Self::Key(_) | Self::Claims(_) => &codes::INTERNAL,
        }
    }
}

/// A token is not accepted. The reason may be told to whoever has the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
pub enum InvalidToken {
    /// Not a JWT of this service, or not intact.
    Invalid,
    /// Was one.
    Expired,
    /// Its session has ended.
    SessionEnded,
}

impl InvalidToken {
    /// As clients read it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid token",
            Self::Expired => "Token expired",
            Self::SessionEnded => "Session ended",
        }
    }
}

/// Signs a token for a user's session.
pub(crate) fn sign(
    auth: &Auth,
    user: &User,
    session: &SessionId,
    token_id: String,
) -> Result<AccessToken, TokenError> {
    sign_for(auth, user, session, token_id, None, life(auth, None))
}

/// How long a token lives: none longer than its session, if an app's backend opened that.
pub(crate) fn life(auth: &Auth, minted: Option<&Minted>) -> Duration {
    let usual = auth.policy.access_token_ttl;
    let left =
        minted.map(|minted| minted.until.unix_timestamp().saturating_sub(auth.clock.now().unix_timestamp()));
    left.map_or(usual, |left| usual.min(Duration::from_secs(u64::try_from(left).unwrap_or_default().max(1))))
}

/// The same for a session that an app's backend may have opened, which the token says; it lives for so long.
pub(crate) fn sign_for(
    auth: &Auth,
    user: &User,
    session: &SessionId,
    token_id: String,
    minted: Option<&Minted>,
    life: Duration,
) -> Result<AccessToken, TokenError> {
    let policy = &auth.policy;
    let issued_at = auth.clock.now().unix_timestamp();
    let lifetime = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
    let claims = Claims {
        sub: user.id.clone(),
        email: user.email.clone(),
        role: user.role,
        sid: session.clone(),
        iss: policy.issuer.issuer.clone(),
        aud: policy.issuer.audience.clone(),
        iat: issued_at,
        exp: issued_at.saturating_add(lifetime),
        nbf: None,
        jti: token_id,
        act: minted.map(|minted| Actor { sub: format!("app:{}", minted.by) }),
    };
    Ok(AccessToken(auth.keys.signing()?.jws(&serde_json::to_vec(&claims)?)?))
}

/// A `jti` for a token that comes without a refresh token.
pub(crate) fn new_token_id(auth: &Auth) -> String {
    mana_kernel::id::new_uuid(&*auth.clock, &*auth.rng).to_string()
}

/// What an intact, unexpired token of this service claims. Says nothing of its session.
pub(crate) fn verify(auth: &Auth, token: &str) -> Result<Claims, InvalidToken> {
    let token = bounded(token).ok_or(InvalidToken::Invalid)?;
    let intact = auth.intact_tokens.recall_or(token, &auth.keys, || verify_signature(&auth.keys, token))?;
    check(&intact.claims, &auth.policy.issuer, auth.clock.now().unix_timestamp())?;
    Ok(intact.claims.clone())
}

/// The key is ours by its id and has one algorithm: whatever a token says of algorithms and keys is not followed.
fn verify_signature(keys: &KeyRing, token: &str) -> Result<IntactToken, InvalidToken> {
    let token = Compact::split(token).ok_or(InvalidToken::Invalid)?;
    let mut buffer = [0; compact::MAX_HEADER];
    let header =
        token.header(&mut buffer).filter(|header| header.typ == "JWT").ok_or(InvalidToken::Invalid)?;
    let key = keys.find(header.kid).ok_or(InvalidToken::Invalid)?;
    if header.alg != key.kind().algorithm() || !token.is_signed_by(&key) {
        return Err(InvalidToken::Invalid);
    }
    Ok(IntactToken { claims: token.claims().ok_or(InvalidToken::Invalid)?, key })
}

/// As [`verify`], and a key that another server has made a moment ago is looked for in the database, on a connection of its
/// own: not to be called by who holds one. Takes two seconds more at most.
///
/// # Errors
/// When the database does not say whether it is one: that is no verdict on the token.
async fn verify_or_learn(auth: &Auth, token: &str) -> Result<Result<Claims, InvalidToken>, KeysUnread> {
    let verdict = verify(auth, token);
    if verdict != Err(InvalidToken::Invalid) {
        return Ok(verdict);
    }
    let mut buffer = [0; compact::MAX_HEADER];
    let header = bounded(token).and_then(Compact::split).and_then(|token| token.header(&mut buffer));
    match header {
        Some(header) if auth.keys.learns(header.kid).await? => Ok(verify(auth, token)),
        _ => Ok(verdict),
    }
}

/// As [`verify_or_learn`], and also what a token claimed that has expired, at most a day ago: by it somebody signs out whose device has slept. An older
/// one, of which more lie about, ends nothing. For ending the session that it names, and for nothing else.
///
/// # Errors
/// When the database does not say whether its key is one.
pub(crate) async fn verify_for_end(
    auth: &Auth,
    token: &str,
) -> Result<Result<Claims, InvalidToken>, KeysUnread> {
    let verdict = verify_or_learn(auth, token).await?;
    if verdict != Err(InvalidToken::Expired) {
        return Ok(verdict);
    }
    let intact = auth.intact_tokens.recall_or(token, &auth.keys, || verify_signature(&auth.keys, token));
    Ok(intact.and_then(|intact| {
        let is_slept_on = is_slept_on(&intact.claims, auth.clock.now().unix_timestamp());
        if is_slept_on { Ok(intact.claims.clone()) } else { Err(InvalidToken::Expired) }
    }))
}

/// Whether it has expired no longer ago than a device may have slept.
fn is_slept_on(claims: &Claims, now: i64) -> bool {
    now <= claims.exp.saturating_add(ENDS_SECONDS_AFTER)
}

fn bounded(token: &str) -> Option<&str> {
    (token.len() <= MAX_LENGTH).then_some(token)
}

/// Expiry has no leeway, because it is this service that set it.
fn check(claims: &Claims, issuer: &Issuer, now: i64) -> Result<(), InvalidToken> {
    let is_ours = claims.iss == issuer.issuer && claims.aud == issuer.audience;
    let is_of_the_future =
        claims.iat > now.saturating_add(MAX_SKEW_SECONDS) || claims.nbf.is_some_and(|start| start > now);
    if !is_ours || is_of_the_future {
        return Err(InvalidToken::Invalid);
    }
    if claims.exp <= now { Err(InvalidToken::Expired) } else { Ok(()) }
}

/// The caller behind a bearer token: intact, unexpired, and its session lives.
pub(crate) async fn authenticate(auth: &Auth, bearer: &str) -> Result<Caller, ApiError> {
    let refuse =
        |reason: InvalidToken| ApiError::new(&codes::UNAUTHENTICATED).with_invalid_token(reason.as_str());
    let claims = verify_live(auth, bearer).await?.map_err(refuse)?;
    Ok(Caller { user_id: claims.sub, session_id: claims.sid })
}

/// As [`verify`], and the session lives.
pub(crate) async fn verify_live(auth: &Auth, token: &str) -> Result<Result<Claims, InvalidToken>, ApiError> {
    let claims = match verify_or_learn(auth, token).await? {
        Ok(claims) => claims,
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(if liveness::is_live(auth, &claims).await? { Ok(claims) } else { Err(InvalidToken::SessionEnded) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn issuer() -> Issuer {
        Issuer { issuer: "us".to_owned(), audience: "all".to_owned() }
    }

    fn any_claims() -> impl Strategy<Value = Claims> {
        let names = ("us|them", "all|none");
        let times = (-200_i64..200, -200_i64..200, proptest::option::of(-200_i64..200));
        let actor = proptest::option::of("[a-z]{1,8}");
        ("[a-z]{1,8}", "\\PC{0,12}", names, times, "\\PC{0,12}", actor).prop_map(
            |(id, email, (iss, aud), (iat, exp, nbf), jti, actor)| Claims {
                sub: id.parse().unwrap(),
                sid: id.parse().unwrap(),
                email,
                role: Role::User,
                iss,
                aud,
                iat,
                exp,
                nbf,
                jti,
                act: actor.map(|sub| Actor { sub }),
            },
        )
    }

    proptest! {
        #[test]
        fn claims_are_good_in_their_time_from_their_issuer_for_their_audience(claims in any_claims(), now in -200_i64..200) {
            let is_ours = claims.iss == "us" && claims.aud == "all";
            let is_begun = claims.iat.saturating_sub(MAX_SKEW_SECONDS) <= now && claims.nbf.is_none_or(|start| start <= now);
            let expected = match (is_ours && is_begun, now < claims.exp) {
                (true, true) => Ok(()),
                (true, false) => Err(InvalidToken::Expired),
                (false, _) => Err(InvalidToken::Invalid),
            };
            prop_assert_eq!(check(&claims, &issuer(), now), expected);
        }

        #[test]
        fn no_time_overflows(iat: i64, exp: i64, nbf: Option<i64>, now: i64) {
            let claims = Claims {
                sub: "u".parse().unwrap(), sid: "s".parse().unwrap(), email: String::new(), role: Role::User,
                iss: "us".to_owned(), aud: "all".to_owned(), iat, exp, nbf, jti: String::new(), act: None,
            };
            prop_assert!(check(&claims, &issuer(), now).is_err() || now < exp);
        }

        #[test]
        fn claims_read_back_and_each_of_them_is_needed_once(claims in any_claims(), at in 0_usize..9) {
            let text = serde_json::to_string(&claims).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Claims>(&text).unwrap(), &claims);
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
            let (name, value) = object.iter().nth(at).unwrap();
            let twice = format!("{{{}:{value},{}", serde_json::json!(name), &text[1..]);
            prop_assert!(serde_json::from_str::<Claims>(&twice).is_err(), "{twice}");
            let mut less = object.clone();
            less.remove(name);
            let is_optional = name == "nbf" || name == "act";
            prop_assert_eq!(serde_json::from_value::<Claims>(less.into()).is_ok(), is_optional, "without {}", name);
        }
    }
}
