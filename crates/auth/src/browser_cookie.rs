//! Cookies on the wire: one way to set and to read them all.

use crate::Policy;
use cookie::{Cookie, SameSite, time::Duration};
use http::{HeaderMap, HeaderValue, header};

/// Cookies of one name that are looked at: a browser has one, and one more for each place that planted another.
const MAX_COOKIES: usize = 8;

/// A cookie that carries a secret.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BrowserCookie {
    /// Its name over http.
    pub(crate) name: &'static str,
    /// Its name over https, with the prefix that keeps pages in clear from overwriting it.
    pub(crate) secure_name: &'static str,
    /// How long a browser keeps it.
    pub(crate) life: Duration,
    /// Whether all subdomains of `COOKIE_DOMAIN` get it, or this host alone.
    pub(crate) is_shared: bool,
}

impl BrowserCookie {
    /// The header that sets it.
    pub(crate) fn set(&self, value: &str, policy: &Policy) -> Option<HeaderValue> {
        self.header(value, self.life, policy)
    }

    /// The header that clears it.
    pub(crate) fn clear(&self, policy: &Policy) -> Option<HeaderValue> {
        self.header("", Duration::ZERO, policy)
    }

    /// What of a request's first few cookies of the name `parse` can read: a sibling domain can plant one beside the visitor's own,
    /// and nothing on the wire tells which is which.
    pub(crate) fn read<T>(
        &self,
        headers: &HeaderMap,
        policy: &Policy,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(Cookie::split_parse)
            .filter_map(Result::ok)
            .filter(|cookie| cookie.name() == self.name(policy))
            .filter_map(|cookie| parse(cookie.value()))
            .take(MAX_COOKIES)
            .collect()
    }

    fn name(&self, policy: &Policy) -> &'static str {
        if policy.is_https() { self.secure_name } else { self.name }
    }

    fn header(&self, value: &str, life: Duration, policy: &Policy) -> Option<HeaderValue> {
        let is_https = policy.is_https();
        let name = self.name(policy);
        let mut cookie =
            Cookie::build((name, value)).http_only(true).path("/").secure(is_https).max_age(life);
        // Pages of several subdomains send it from their own sites; browsers allow that over https only.
        cookie = cookie.same_site(if is_https && policy.cookie_domain.is_some() {
            SameSite::None
        } else {
            SameSite::Lax
        });
        if let Some(domain) = policy.cookie_domain.as_ref().filter(|_| self.is_shared) {
            cookie = cookie.domain(domain);
        }
        HeaderValue::from_str(&cookie.build().to_string()).ok()
    }
}
