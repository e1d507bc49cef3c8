//! The single sign-on cookie on the wire, and the session behind it.

use super::model::{Session, SessionCookie, SessionError};
use super::store::{self, CookieSession};
use crate::browser_cookie::BrowserCookie;
use crate::{Auth, Policy};
use axum::response::AppendHeaders;
use cookie::time::Duration;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use mana_kernel::{SessionId, UserId};
use mana_platform::DbError;
use sqlx::PgConnection;

/// Named as older clients know it.
const COOKIE: BrowserCookie = BrowserCookie {
    name: "mana.session_token",
    secure_name: "__Secure-mana.session_token",
    life: Duration::days(7),
    is_shared: true,
};
/// The cookie is sent again when it is used and older than this.
const RENEWAL: Duration = Duration::DAY;

/// What the cookies of a request lead to.
pub(crate) enum Presented {
    /// A live session, and the header that renews its cookie if that is due.
    Live { found: Box<CookieSession>, renewed: Option<Renewal> },
    /// Cookies of the name, none of a live session.
    Dead,
    /// No cookie of the name.
    None,
}

type Renewal = AppendHeaders<[(HeaderName, HeaderValue); 1]>;

/// The live session behind a request's cookies. Its use is noted, and its cookie renewed, once a day.
pub(crate) async fn present(auth: &Auth, headers: &HeaderMap) -> Result<Presented, SessionError> {
    let cookies = read(headers, &auth.policy);
    if cookies.is_empty() {
        return Ok(Presented::None);
    }
    let now = auth.clock.now();
    let mut connection = auth.database.acquire().await?;
    let hashes: Vec<_> = cookies.iter().map(SessionCookie::hash).collect();
    let found = store::list_live_by_cookies(&mut connection, &hashes, now).await?.into_iter().next();
    let Some(found) = found else { return Ok(Presented::Dead) };
    let mut renewed = None;
    if found.cookie_renewed_at.saturating_add(RENEWAL) <= now {
        let session = &found.session;
        let expires_at = auth.policy.session_end(session.created_at, now, session.remember_me);
        store::update_used_by_cookie(&mut connection, &session.id, now, expires_at).await?;
        let presented = cookies.iter().find(|cookie| cookie.hash().as_bytes() == found.cookie_hash);
        let header = presented.and_then(|cookie| set(cookie, &auth.policy));
        renewed = header.map(|value| AppendHeaders([(header::SET_COOKIE, value)]));
    }
    connection.finish().await?;
    Ok(Presented::Live { found: Box::new(found), renewed })
}

/// The live sessions of the account that the browser is signed in to.
pub(crate) async fn list_signed_in_to(
    connection: &mut PgConnection,
    auth: &Auth,
    headers: &HeaderMap,
    user: &UserId,
) -> Result<Vec<Session>, DbError> {
    let hashes: Vec<_> = read(headers, &auth.policy).iter().map(SessionCookie::hash).collect();
    if hashes.is_empty() {
        return Ok(Vec::new());
    }
    let live = store::list_live_by_cookies(connection, &hashes, auth.clock.now()).await?;
    Ok(live.into_iter().filter(|found| found.user.id == *user).map(|found| found.session).collect())
}

/// The sessions that a request's cookies name, live or not, with their users.
pub(crate) async fn named_sessions(
    connection: &mut PgConnection,
    auth: &Auth,
    headers: &HeaderMap,
) -> Result<Vec<(SessionId, UserId)>, DbError> {
    let hashes: Vec<_> = read(headers, &auth.policy).iter().map(SessionCookie::hash).collect();
    if hashes.is_empty() {
        return Ok(Vec::new());
    }
    store::list_by_cookies(connection, &hashes).await
}

/// The header that sets the cookie.
pub(crate) fn set(cookie: &SessionCookie, policy: &Policy) -> Option<HeaderValue> {
    COOKIE.set(cookie.expose(), policy)
}

/// The header that clears it.
pub(crate) fn clear(policy: &Policy) -> Option<HeaderValue> {
    COOKIE.clear(policy)
}

/// The request's cookies of the name that read as such.
pub(crate) fn read(headers: &HeaderMap, policy: &Policy) -> Vec<SessionCookie> {
    COOKIE.read(headers, policy, |value| SessionCookie::parse(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::SystemRng;

    fn policy(public_url: &str, cookie_domain: Option<&str>) -> Policy {
        Policy {
            public_url: public_url.to_owned(),
            cookie_domain: cookie_domain.map(str::to_owned),
            ..Policy::default()
        }
    }

    #[test]
    fn the_attributes_follow_the_scheme_and_the_domain() {
        let cookie = SessionCookie::generate(&SystemRng);
        let text =
            |policy: &Policy| set(&cookie, policy).unwrap().to_str().unwrap().replace(cookie.expose(), "X");
        assert_eq!(
            text(&policy("http://localhost:3001", None)),
            "mana.session_token=X; HttpOnly; SameSite=Lax; Path=/; Max-Age=604800"
        );
        assert_eq!(
            text(&policy("https://auth.example.com", Some("example.com"))),
            "__Secure-mana.session_token=X; HttpOnly; SameSite=None; Secure; Path=/; Domain=example.com; Max-Age=604800"
        );
    }

    #[test]
    fn a_cookie_reads_back_and_anything_else_does_not() {
        let policy = policy("http://localhost:3001", None);
        let cookie = SessionCookie::generate(&SystemRng);
        let read = |value: String| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, value.parse().unwrap());
            read(&headers, &policy).first().map(SessionCookie::hash)
        };
        assert_eq!(read(format!("a=b; mana.session_token={}; c", cookie.expose())), Some(cookie.hash()));
        assert_eq!(read(format!("other={}", cookie.expose())), None);
        assert_eq!(read("mana.session_token=mrt_x".to_owned()), None);
    }
}
