//! The domain of a family: whose pages share a session, and may be sent a token.

use std::str::FromStr;
use url::Host;

/// A domain that one family has to itself, with all below it: none under which strangers register names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieDomain(String);

impl CookieDomain {
    /// In lower case, as browsers write it, without a dot in front.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is no such domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCookieDomain {
    /// Empty, an address, a URL, or with letters that no name of a host has.
    #[error("it is no domain. Give one that BASE_URL is part of, or leave it out")]
    NoDomain,
    /// On the list by which browsers drop such a cookie, or of one label.
    #[error(
        "pages of strangers are below {0} too, and would be sent tokens of your users; browsers take no cookie for it. Give the domain that is yours alone, \
         or leave it out: then each app signs in by itself"
    )]
    Public(String),
}

impl FromStr for CookieDomain {
    type Err = InvalidCookieDomain;

    fn from_str(text: &str) -> Result<Self, InvalidCookieDomain> {
        let text = text.trim();
        let Ok(Host::Domain(domain)) = Host::parse(text.strip_prefix('.').unwrap_or(text)) else {
            return Err(InvalidCookieDomain::NoDomain);
        };
        if !domain.split('.').all(is_label) {
            return Err(InvalidCookieDomain::NoDomain);
        }
        // A label that the list does not know is public, too.
        let is_of_one_family = domain == "localhost" || psl::domain(domain.as_bytes()).is_some();
        if is_of_one_family { Ok(Self(domain)) } else { Err(InvalidCookieDomain::Public(domain)) }
    }
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::{CookieDomain, InvalidCookieDomain};
    use proptest::prelude::*;

    #[test]
    fn a_domain_of_one_family_is_taken_as_browsers_write_it() {
        for (given, expected) in [
            ("example.com", "example.com"),
            (" .Example.COM", "example.com"),
            ("auth.example.co.uk", "auth.example.co.uk"),
            ("mana.fly.dev", "mana.fly.dev"),
            ("mana.github.io", "mana.github.io"),
            ("city.kobe.jp", "city.kobe.jp"),
            ("Müller.example", "xn--mller-kva.example"),
            ("mana.internal", "mana.internal"),
            ("localhost", "localhost"),
            ("mana.localhost", "mana.localhost"),
        ] {
            assert_eq!(given.parse::<CookieDomain>().unwrap().as_str(), expected);
        }
    }

    #[test]
    fn a_domain_that_strangers_are_below_too_is_refused() {
        for public in [
            "com",
            "dev",
            "co.uk",
            "fly.dev",
            ".fly.dev",
            "FLY.dev",
            "github.io",
            "herokuapp.com",
            "azurewebsites.net",
            "anything.kobe.jp",
            "公司.cn",
            "xn--p1ai",
            "internal",
            "manacore",
            "local",
        ] {
            let refused = public.parse::<CookieDomain>();
            assert!(matches!(refused, Err(InvalidCookieDomain::Public(_))), "{public}: {refused:?}");
        }
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        for bad in [
            "",
            " ",
            ".",
            "..",
            "..example.com",
            "example.com.",
            "a..example.com",
            "127.0.0.1",
            "[::1]",
            "0x7f.1",
            "*.example.com",
            "https://example.com",
            "example.com:443",
            "example.com/x",
            "a@example.com",
            "example.com; Secure",
            "example.com,example.org",
            "example.com;x=y.com",
            "exa mple.com",
        ] {
            assert_eq!(bad.parse::<CookieDomain>(), Err(InvalidCookieDomain::NoDomain), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_plain_and_read_the_same_again(text in "\\PC{0,20}|[a-zA-Z0-9._*:;, -]{0,30}(\\.(com|fly\\.dev|co\\.uk|zz))?") {
            if let Ok(domain) = text.parse::<CookieDomain>() {
                let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
                prop_assert!(!domain.as_str().is_empty() && domain.as_str().bytes().all(is_plain), "{domain:?}");
                prop_assert!(domain.as_str() == "localhost" || domain.as_str().contains('.'), "{domain:?}");
                prop_assert_eq!(domain.as_str().parse::<CookieDomain>(), Ok(domain.clone()));
            }
        }
    }
}
