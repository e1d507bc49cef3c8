//! Which requests share a limit: the one table of routes.

use super::quota::Quota;
use crate::Settings;
use http::Method;
use std::time::Duration;

/// Routes that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteClass {
    /// New accounts.
    Register,
    /// Everything that takes a proof of who somebody is: passwords, codes, mailed links, passkeys, tokens of others, also of who is signed in.
    Login,
    /// Mails with something to get in with: a link to a new password, a link or a code to sign in.
    ForgotPassword,
    /// Mails that prove an address, sent again.
    Resend,
    /// New passwords by a mailed link.
    Reset,
    /// A new password by the old one, and another address.
    ChangePassword,
    /// Ends of accounts.
    DeleteAccount,
    /// Sessions that apps open for users.
    Mint,
    /// Exchanges of refresh tokens. Answered with 503 when limited: clients take every 4xx of it for the end.
    Refresh,
    /// All other routes, and what is no route.
    Other,
}

/// Every class, in the order of [`Quotas`].
pub(super) const CLASSES: [RouteClass; 10] = [
    RouteClass::Register,
    RouteClass::Login,
    RouteClass::ForgotPassword,
    RouteClass::Resend,
    RouteClass::Reset,
    RouteClass::ChangePassword,
    RouteClass::DeleteAccount,
    RouteClass::Mint,
    RouteClass::Refresh,
    RouteClass::Other,
];

/// Templates with a class of their own. Whatever the method: one that the route does not take is refused, and must not
/// be a way to ask without being counted.
const BY_TEMPLATE: [(&str, RouteClass); 34] = [
    ("/api/v1/auth/register", RouteClass::Register),
    ("/api/v1/auth/login", RouteClass::Login),
    ("/api/auth/sign-in/email", RouteClass::Login),
    ("/api/v1/auth/google-signin", RouteClass::Login),
    ("/api/v1/auth/apple-signin", RouteClass::Login),
    ("/claim-admin", RouteClass::Login),
    ("/api/auth/verify-email", RouteClass::Login),
    ("/confirm-email", RouteClass::Login),
    ("/magic-link", RouteClass::Login),
    ("/api/v1/auth/magic-link/verify", RouteClass::Login),
    ("/api/v1/auth/email-code/verify", RouteClass::Login),
    ("/api/v1/auth/two-factor/verify", RouteClass::Login),
    ("/api/v1/auth/two-factor/pending/enrol", RouteClass::Login),
    ("/api/v1/auth/two-factor/pending/confirm", RouteClass::Login),
    ("/api/v1/auth/reauthenticate", RouteClass::Login),
    ("/api/v1/auth/reauthenticate/passkey", RouteClass::Login),
    ("/api/v1/auth/passkeys/sign-in", RouteClass::Login),
    ("/api/v1/auth/two-factor/passkey", RouteClass::Login),
    ("/api/auth/two-factor/enable", RouteClass::Login),
    ("/api/auth/two-factor/disable", RouteClass::Login),
    ("/api/auth/two-factor/generate-backup-codes", RouteClass::Login),
    ("/api/auth/two-factor/verify-totp", RouteClass::Login),
    ("/api/auth/two-factor/verify-backup-code", RouteClass::Login),
    ("/api/v1/auth/forgot-password", RouteClass::ForgotPassword),
    ("/api/v1/auth/magic-link", RouteClass::ForgotPassword),
    ("/api/v1/auth/email-code", RouteClass::ForgotPassword),
    ("/api/v1/auth/resend-verification", RouteClass::Resend),
    ("/api/v1/auth/reset-password", RouteClass::Reset),
    ("/reset-password", RouteClass::Reset),
    ("/api/v1/auth/change-password", RouteClass::ChangePassword),
    ("/api/v1/auth/change-email", RouteClass::ChangePassword),
    ("/api/v1/auth/account", RouteClass::DeleteAccount),
    ("/api/v1/internal/sessions", RouteClass::Mint),
    ("/api/v1/auth/refresh", RouteClass::Refresh),
];

/// What is not counted: probes, keys and documentation, which cost nothing, and the check of a token, which backends
/// make on each of their own requests.
const EXEMPT: [(Method, &str); 10] = [
    (Method::GET, "/health"),
    (Method::GET, "/health/live"),
    (Method::GET, "/health/ready"),
    (Method::GET, "/health/serving"),
    (Method::GET, "/metrics"),
    (Method::GET, "/api/v1/auth/jwks"),
    (Method::GET, "/.well-known/jwks.json"),
    (Method::GET, "/openapi.json"),
    (Method::POST, "/api/v1/auth/validate"),
    // Signed, and sent in bursts from few addresses.
    (Method::POST, "/api/v1/webhooks/stripe"),
];

impl RouteClass {
    /// The class of a request, by its method and its route's template (absent where there is no such path); none if it
    /// is not counted. Templates, not paths: spellings of a path are one route or none.
    pub fn of(method: &Method, template: Option<&str>) -> Option<Self> {
        let Some(template) = template else {
            return Some(Self::Other);
        };
        if let Some((_, class)) = BY_TEMPLATE.iter().find(|(known, _)| *known == template) {
            return Some(*class);
        }
        // HEAD asks the same and is answered with less.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let is_exempt = EXEMPT.iter().any(|(exempt, known)| exempt == method && *known == template);
        let is_page = *method == Method::GET && (template == "/docs" || template.starts_with("/docs/"));
        (!is_exempt && !is_page).then_some(Self::Other)
    }

    /// Its name in headers, metrics and Redis.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Login => "login",
            Self::ForgotPassword => "forgot-password",
            Self::Resend => "resend",
            Self::Reset => "reset",
            Self::ChangePassword => "change-password",
            Self::DeleteAccount => "delete-account",
            Self::Mint => "mint",
            Self::Refresh => "refresh",
            Self::Other => "other",
        }
    }
}

/// How much each class allows per address, and per account where one is known.
#[derive(Debug, Clone)]
pub(super) struct Quotas([Option<Quota>; CLASSES.len()]);

impl Quotas {
    /// As the operator chose; none when rate limits are off. A class whose number is 0 is not limited.
    pub(super) fn from_settings(settings: &Settings) -> Option<Self> {
        let window = Duration::from_secs(settings.rate_limit_ttl);
        Quota::new(settings.rate_limit_max, window)?;
        let refresh =
            settings.rate_limit_refresh.unwrap_or_else(|| settings.rate_limit_max.saturating_mul(10));
        Some(Self(CLASSES.map(|class| {
            let per_minute = |limit| Quota::new(limit, Duration::from_mins(1));
            match class {
                RouteClass::Register => per_minute(settings.rate_limit_register),
                RouteClass::Login => per_minute(settings.rate_limit_login),
                RouteClass::ForgotPassword => per_minute(settings.rate_limit_forgot_password),
                RouteClass::Resend => per_minute(settings.rate_limit_resend),
                RouteClass::Reset => per_minute(settings.rate_limit_reset),
                RouteClass::ChangePassword => per_minute(settings.rate_limit_change_password),
                RouteClass::DeleteAccount => per_minute(settings.rate_limit_delete_account),
                RouteClass::Mint => per_minute(settings.rate_limit_mint),
                RouteClass::Refresh => Quota::new(refresh, window),
                RouteClass::Other => Quota::new(settings.rate_limit_max, window),
            }
        })))
    }

    /// Of one class.
    pub(super) fn of(&self, class: RouteClass) -> Option<Quota> {
        let place = CLASSES.iter().position(|known| *known == class)?;
        self.0.get(place).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_number_and_the_contracts_are_the_defaults() {
        let quotas = Quotas::from_settings(&Settings::defaults().unwrap()).unwrap();
        let limits = CLASSES.map(|class| quotas.of(class).unwrap().limit().get());
        assert_eq!(limits, [5, 10, 3, 3, 5, 5, 3, 60, 1000, 100]);
        assert!(CLASSES.iter().all(|class| quotas.of(*class).unwrap().window() == Duration::from_mins(1)));
    }

    #[test]
    fn rate_limits_are_off_when_the_global_one_is_0() {
        let settings = Settings { rate_limit_max: 0, ..Settings::defaults().unwrap() };
        assert!(Quotas::from_settings(&settings).is_none());
    }

    #[test]
    fn a_method_is_no_way_out_of_a_class_and_what_is_unknown_is_counted() {
        for method in [Method::POST, Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
            assert_eq!(RouteClass::of(&method, Some("/api/v1/auth/login")), Some(RouteClass::Login));
            assert_eq!(RouteClass::of(&method, Some("/api/v1/coming")), Some(RouteClass::Other));
            assert_eq!(RouteClass::of(&method, None), Some(RouteClass::Other));
        }
        assert_eq!(RouteClass::of(&Method::POST, Some("/api/v1/auth/validate")), None);
        assert_eq!(RouteClass::of(&Method::GET, Some("/api/v1/auth/validate")), Some(RouteClass::Other));
        assert_eq!(RouteClass::of(&Method::HEAD, Some("/health/live")), None);
        assert_eq!(RouteClass::of(&Method::POST, Some("/health/live")), Some(RouteClass::Other));
        assert_eq!(RouteClass::of(&Method::GET, Some("/docs/{*rest}")), None);
    }
}
