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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COOKIE: BrowserCookie =
        BrowserCookie { name: "a.b", secure_name: "__Secure-a.b", life: Duration::DAY, is_shared: true };

    fn policy(public_url: &str) -> Policy {
        Policy {
            public_url: public_url.to_owned(),
            cookie_domain: Some("example.com".to_owned()),
            ..Policy::default()
        }
    }

    fn read(lines: &[&[u8]], policy: &Policy) -> Vec<String> {
        let lines = lines.iter().map(|line| (header::COOKIE, HeaderValue::from_bytes(line).unwrap()));
        let mut headers = HeaderMap::new();
        headers.extend(lines);
        COOKIE.read(&headers, policy, |value| Some(value.to_owned()))
    }

    #[test]
    fn a_cookie_in_clear_is_none_over_https_nor_one_of_another_name() {
        let https = policy("https://auth.example.com");
        assert_eq!(read(&[b"__Secure-a.b=x"], &https), ["x"]);
        for other in [
            &b"a.b=x"[..],
            b"__secure-a.b=x",
            b"__Secure-A.B=x",
            b"__Host-a.b=x",
            b"__Secure-a%2eb=x",
            b"x=__Secure-a.b=x",
        ] {
            assert!(read(&[other], &https).is_empty(), "{}", String::from_utf8_lossy(other));
        }
    }

    proptest! {
        #[test]
        fn what_is_set_is_read_among_whatever_else_comes(value in "[A-Za-z0-9_.-]{1,60}", before in "[c-z=\"%, -]{0,40}", after in "[ -~]{0,40}", is_https: bool) {
            let policy = policy(if is_https { "https://auth.example.com" } else { "http://localhost:3001" });
            let set = COOKIE.set(&value, &policy).unwrap();
            let pair = set.to_str().unwrap().split(';').next().unwrap().to_owned();
            let line = format!("{before}; {pair}; {after}");
            let found = read(&[line.as_bytes()], &policy);
            prop_assert_eq!(found.first(), Some(&value), "{}", line);
        }

        #[test]
        fn any_lines_give_a_few_values_that_stand_in_them(lines in proptest::collection::vec("((__Secure-)?a\\.b=[ -~]{0,12};? ?){0,12}|[ -~\u{e4}]{0,80}", 0..6)) {
            let bytes: Vec<_> = lines.iter().map(String::as_bytes).collect();
            for policy in [policy("https://auth.example.com"), policy("http://localhost:3001")] {
                let found = read(&bytes, &policy);
                prop_assert!(found.len() <= MAX_COOKIES);
                prop_assert!(found.iter().all(|value| lines.iter().any(|line| line.contains(value.as_str()))), "{found:?}");
            }
        }
    }
}
