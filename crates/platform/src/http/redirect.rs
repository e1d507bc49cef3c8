//! Where the service may send a browser to: pages of the family, and nowhere else.

use super::host::{is_localhost, is_within};
use crate::config::{CookieDomain, Origin, Settings};
use url::{Host, Url};

/// Longest URL that is followed; longer ones are refused.
const MAX_LENGTH: usize = 2048;

/// The places that a redirect may lead to: the origins of `CORS_ORIGINS`, `FRONTEND_URL` and `BASE_URL` exactly, `COOKIE_DOMAIN` and its
/// subdomains over https, and, while the service itself is reached at localhost, any port of localhost.
#[derive(Debug, Clone)]
pub struct RedirectTargets {
    origins: Vec<String>,
    domain: Option<CookieDomain>,
    takes_localhost: bool,
}

impl RedirectTargets {
    /// As the settings say.
    pub fn new(settings: &Settings) -> Self {
        let own = Url::parse(&settings.public_url()).ok();
        let mut origins: Vec<_> =
            settings.cors_origins.iter().map(Origin::as_str).map(str::to_owned).collect();
        origins
            .extend(own.iter().chain(&settings.frontend_url).map(|url| url.origin().ascii_serialization()));
        Self {
            origins,
            domain: settings.cookie_domain.clone(),
            takes_localhost: own.is_some_and(|own| is_localhost(&own)),
        }
    }

    /// The URL, if a browser may be sent there. It is read as browsers read it, so what they would take for another place (backslashes, user
    /// names, tabs, other schemes) is seen as such.
    pub fn find(&self, text: &str) -> Option<Url> {
        if text.len() > MAX_LENGTH || text.contains('\\') || text.chars().any(char::is_control) {
            return None;
        }
        let url = Url::parse(text).ok()?;
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        if !matches!(url.scheme(), "http" | "https") || has_credentials {
            return None;
        }
        let is_known = self.origins.contains(&url.origin().ascii_serialization());
        (is_known || self.is_of_the_domain(&url) || (self.takes_localhost && is_localhost(&url)))
            .then_some(url)
    }

    fn is_of_the_domain(&self, url: &Url) -> bool {
        let (Some(domain), Some(Host::Domain(host))) = (&self.domain, url.host()) else { return false };
        is_within(host, domain.as_str()) && url.scheme() == "https" && url.port().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    fn targets(base_url: &str) -> RedirectTargets {
        let mut settings = Settings::defaults().unwrap();
        settings.base_url = Some(base_url.parse().unwrap());
        settings.cors_origins = vec!["https://app.example.com".parse().unwrap()];
        settings.frontend_url = Some("https://www.example.org/start".parse().unwrap());
        settings.cookie_domain = Some("family.example".parse().unwrap());
        RedirectTargets::new(&settings)
    }

    #[test]
    fn pages_of_the_family_are_found() {
        let targets = targets("https://auth.family.example");
        for good in [
            "https://app.example.com/login?next=%2Fa",
            "https://APP.example.com",
            "https://www.example.org/elsewhere",
            "https://family.example/",
            "https://chat.family.example/x#y",
            "https://a.b.family.example",
            "https://auth.family.example/page",
        ] {
            assert!(targets.find(good).is_some(), "{good}");
        }
    }

    #[test]
    fn tricks_lead_nowhere() {
        let targets = targets("https://auth.family.example");
        for bad in [
            "",
            "/relative",
            "//evil.example",
            "https://evil.example",
            "https://app.example.com.evil.example",
            "https://evil.example/https://app.example.com",
            "https://evilfamily.example",
            "https://family.example.evil.example",
            "https://app.example.com@evil.example",
            "https://evil.example#@app.example.com",
            "https://user@app.example.com",
            "https://user:pass@app.example.com",
            "https://app.example.com\\@evil.example",
            "https:\\\\app.example.com",
            "https://app.example.com%2eevil.example",
            "https://app.example.com%252f@evil.example",
            "https://app.example.com:444",
            "http://app.example.com",
            "http://chat.family.example",
            "https://chat.family.example:8443",
            "javascript:alert(1)//https://app.example.com",
            "data:text/html,https://app.example.com",
            "https://app.example.com\r\nSet-Cookie: a=b",
            "ht\ttps://app.example.com",
            "http://localhost:3000",
            "http://127.0.0.1:3000",
        ] {
            assert!(targets.find(bad).is_none(), "{bad:?}");
        }
        let long = format!("https://app.example.com/{}", "x".repeat(2048));
        assert!(targets.find(&long).is_none());
    }

    #[test]
    fn localhost_is_taken_while_the_service_is_there() {
        let targets = targets("http://localhost:3001");
        for good in [
            "http://localhost:3000/login",
            "http://app-a.localhost:8081",
            "http://127.0.0.1:3000",
            "http://[::1]:80",
        ] {
            assert!(targets.find(good).is_some(), "{good}");
        }
        for bad in
            ["http://localhost.evil.example", "http://notlocalhost:3000", "http://127.0.0.1.evil.example"]
        {
            assert!(targets.find(bad).is_none(), "{bad}");
        }
    }

    static PUBLIC: LazyLock<RedirectTargets> = LazyLock::new(|| targets("https://auth.family.example"));
    static LOCAL: LazyLock<RedirectTargets> = LazyLock::new(|| targets("http://localhost:3001"));

    /// Pieces of which tricks are made.
    fn tricky() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            proptest::sample::select(vec![
                "https:",
                "http:",
                "HTTPS:",
                "javascript:",
                "//",
                "/",
                "\\",
                "@",
                "#",
                "?",
                ":",
                ":443",
                ":8443",
                ".",
                "..",
                "%2e",
                "%2f",
                "%40",
                "%00",
                "\t",
                "\n",
                " ",
                "app.example.com",
                "family.example",
                "evil.example",
                "localhost",
                "[::1]",
                "127.0.0.1",
                "0x7f.1",
                "2130706433",
                "\u{3002}",
                "\u{ff0e}",
                "\u{2044}",
                "xn--",
                "user:pass",
            ])
            .prop_map(str::to_owned),
            "\\PC{0,3}",
        ];
        proptest::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn a_place_that_is_found_is_one_of_the_family(text in tricky(), is_local: bool) {
            let targets = if is_local { &LOCAL } else { &PUBLIC };
            if let Some(url) = targets.find(&text) {
                let host = url.host_str().unwrap();
                let is_listed = ["https://app.example.com", "https://www.example.org", "https://auth.family.example"]
                    .contains(&url.origin().ascii_serialization().as_str());
                let is_inside = (host == "family.example" || host.ends_with(".family.example")) && url.scheme() == "https" && url.port().is_none();
                let is_this_machine = is_local && (host == "localhost" || host.ends_with(".localhost") || host == "[::1]" || host.starts_with("127."));
                prop_assert!(is_listed || is_inside || is_this_machine, "{text:?} leads to {url}");
                prop_assert!(url.username().is_empty() && url.password().is_none());
                prop_assert!(url.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "it is safe in a header: {url}");
                prop_assert_eq!(targets.find(url.as_str()), Some(url.clone()), "what is printed is read the same");
            }
        }

        #[test]
        fn a_page_of_the_family_is_found_whatever_its_path(path in "[a-zA-Z0-9._~%/?#&=+-]{0,60}") {
            let found = PUBLIC.find(&format!("https://app.example.com/{path}"));
            prop_assert_eq!(found.unwrap().origin().ascii_serialization(), "https://app.example.com");
        }
    }
}
