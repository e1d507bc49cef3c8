//! Settings each of which can be read, and which can't do together what they are for.

use super::{CookieDomain, Settings};
use crate::http::host::{is_localhost, is_within};
use secrecy::ExposeSecret as _;
use url::{Host, Url};

/// For whom the settings are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// For a developer, who reads mails at /dev/outbox.
    Development,
    /// For people.
    Production,
}

/// What can't work as it is set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Browsers drop the cookie.
    #[error(
        "COOKIE_DOMAIN is {domain}, but BASE_URL is at {host}, which is neither that domain nor below it: browsers drop the session cookie, and there is \
         no single sign-on. Give a domain that {host} is part of, or none"
    )]
    CookieDomain {
        /// The domain.
        domain: String,
        /// Where the service is.
        host: String,
    },
    /// Nobody gets the mail that opens an account.
    #[error(
        "REQUIRE_EMAIL_VERIFICATION keeps everybody out who has not confirmed an address by mail, and without SMTP_HOST nobody gets one: set SMTP_HOST \
         and SMTP_FROM, or leave it out"
    )]
    NoMail,
    /// The key can't be Stripe's.
    #[error(
        "STRIPE_SECRET_KEY is no secret key of Stripe, so nothing can be bought: one begins with sk_live_, sk_test_, rk_live_ or rk_test_"
    )]
    StripeKey,
    /// Passwords and tokens travel in clear.
    #[error(
        "BASE_URL is {0}: passwords and tokens travel in clear, and browsers keep pages there from passkeys. Give it https, which a proxy in front can \
         speak for this server"
    )]
    InClear(String),
}

impl Contradiction {
    /// Whether something works all the same, so that it is only told.
    pub fn is_bearable(&self) -> bool {
        matches!(self, Self::InClear(_))
    }
}

impl Settings {
    /// What can't work as it is set.
    pub fn contradictions(&self, stage: Stage) -> Vec<Contradiction> {
        let nobody_gets_mail = stage == Stage::Production && self.smtp_host.is_none();
        let own = Url::parse(&self.public_url()).ok();
        let stripe_key = self.stripe_secret_key.as_ref().map(|key| key.expose_secret().trim());
        let found = [
            own.as_ref().and_then(|own| foreign_cookie_domain(self.cookie_domain.as_ref()?, &own.host()?)),
            (self.require_email_verification && nobody_gets_mail).then_some(Contradiction::NoMail),
            stripe_key.filter(|key| !key.is_empty() && !is_of_stripe(key)).map(|_| Contradiction::StripeKey),
            own.as_ref()
                .filter(|own| own.scheme() == "http" && !is_localhost(own))
                .map(|own| Contradiction::InClear(own.origin().ascii_serialization())),
        ];
        found.into_iter().flatten().collect()
    }
}

fn foreign_cookie_domain(domain: &CookieDomain, host: &Host<&str>) -> Option<Contradiction> {
    let (domain, host) = (domain.as_str().to_owned(), host.to_string());
    (!is_within(&host, &domain)).then_some(Contradiction::CookieDomain { domain, host })
}

/// Of an account, or restricted; for real money, or for trying.
fn is_of_stripe(key: &str) -> bool {
    ["sk_live_", "sk_test_", "rk_live_", "rk_test_"]
        .iter()
        .any(|prefix| key.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(stage: Stage, change: impl FnOnce(&mut Settings)) -> Vec<Contradiction> {
        let mut settings = Settings::defaults().unwrap();
        change(&mut settings);
        settings.contradictions(stage)
    }

    fn at(url: &str, cookie_domain: Option<&str>) -> Vec<Contradiction> {
        found(Stage::Production, |settings| {
            settings.base_url = Some(url.parse().unwrap());
            settings.cookie_domain = cookie_domain.map(|domain| domain.parse().unwrap());
        })
    }

    #[test]
    fn a_cookie_is_for_a_domain_that_the_service_is_part_of() {
        for good in ["example.com", ".Example.com", "auth.example.com"] {
            assert_eq!(at("https://auth.example.com", Some(good)), [], "{good}");
        }
        for bad in ["other.org", "example.org", "th.example.com", "app.auth.example.com", "ample.com"] {
            let found = at("https://auth.example.com", Some(bad));
            assert!(matches!(found[..], [Contradiction::CookieDomain { .. }]), "{bad}: {found:?}");
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_clear() {
        for good in
            ["https://auth.example.com", "http://localhost:3001", "http://a.localhost", "http://127.0.0.1:1"]
        {
            assert_eq!(at(good, None), [], "{good}");
        }
        let found = at("http://auth.example.com/x", None);
        assert_eq!(found, [Contradiction::InClear("http://auth.example.com".to_owned())]);
        assert!(found[0].is_bearable());
    }

    #[test]
    fn whoever_has_to_confirm_an_address_gets_a_mail() {
        let required = |settings: &mut Settings| settings.require_email_verification = true;
        assert_eq!(found(Stage::Production, required), [Contradiction::NoMail]);
        assert_eq!(found(Stage::Development, required), []);
        let with_mail = |settings: &mut Settings| {
            required(settings);
            settings.smtp_host = Some("smtp.example.com".to_owned());
        };
        assert_eq!(found(Stage::Production, with_mail), []);
    }

    #[test]
    fn a_key_of_stripe_looks_like_one() {
        let with_key =
            |key: &str| found(Stage::Production, |all| all.stripe_secret_key = Some(key.to_owned().into()));
        for good in ["sk_live_1", "sk_test_1", "rk_live_1", "rk_test_1", ""] {
            assert_eq!(with_key(good), [], "{good}");
        }
        for bad in ["abc", "pk_live_1", "whsec_1", "sk_test_"] {
            assert_eq!(with_key(bad), [Contradiction::StripeKey], "{bad}");
        }
    }
}
