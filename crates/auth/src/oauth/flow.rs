//! A round trip to a provider: what it was begun for stands sealed in a cookie of the browser that began it, so that nothing is written
//! down for whoever begins and never comes back. That it came back is written down: each does once.

use super::model::{Nonce, OAuthError, State};
use super::provider::{Protocol, Provider};
use crate::browser_cookie::BrowserCookie;
use crate::token::root_secret::{Purpose, RootSecretError};
use crate::{Auth, Policy};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use cookie::time::Duration as CookieLife;
use http::{HeaderMap, HeaderValue};
use mana_kernel::secret::sha256;
use mana_kernel::{SessionId, UserId};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use url::Url;

/// How long somebody may take to sign in there.
pub(super) const FLOW_TTL: Duration = Duration::minutes(10);

const COOKIE: BrowserCookie = BrowserCookie {
    name: "mana.oauth",
    secure_name: "__Host-mana.oauth",
    life: CookieLife::minutes(10),
    is_shared: false,
};

/// What a sealed flow is bound to: nothing else that is sealed opens as one.
const SEALED_AS: &str = "oauth flow";

/// What a round trip was begun for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purposed {
    /// To sign in.
    SignIn {
        /// Keeps the session for longer.
        remember_me: bool,
    },
    /// To link whoever comes back to the account of a session.
    Link { user: UserId, session: SessionId },
}

/// A round trip that is under way.
#[derive(Serialize, Deserialize)]
pub(super) struct Flow {
    provider: String,
    state: String,
    pub(super) nonce: String,
    /// Of PKCE (RFC 7636).
    pub(super) verifier: String,
    /// Where it ends.
    pub(super) redirect_to: String,
    remember_me: bool,
    link: Option<(UserId, SessionId)>,
    expires_at: i64,
}

impl Flow {
    /// A new one.
    pub(super) fn begin(auth: &Auth, provider: &Provider, redirect_to: &Url, purpose: Purposed) -> Self {
        let mut verifier = [0; 32];
        auth.rng.fill(&mut verifier);
        let (remember_me, link) = match purpose {
            Purposed::SignIn { remember_me } => (remember_me, None),
            Purposed::Link { user, session } => (false, Some((user, session))),
        };
        Self {
            provider: provider.id.clone(),
            state: State::generate(&*auth.rng).expose().to_owned(),
            nonce: Nonce::generate(&*auth.rng).expose().to_owned(),
            verifier: BASE64URL.encode(verifier),
            redirect_to: redirect_to.to_string(),
            remember_me,
            link,
            expires_at: auth.clock.now().saturating_add(FLOW_TTL).unix_timestamp(),
        }
    }

    /// The one of a browser's cookies that an answer of the provider belongs to.
    pub(super) fn find(auth: &Auth, headers: &HeaderMap, provider: &Provider, state: &str) -> Option<Self> {
        let state = State::parse(state).ok()?;
        let now = auth.clock.now().unix_timestamp();
        let is_its = |flow: &Self| {
            flow.provider == provider.id && flow.state == state.expose() && now < flow.expires_at
        };
        COOKIE.read(headers, &auth.policy, |value| unseal(auth, value)).into_iter().find(is_its)
    }

    /// The header that leaves it with the browser.
    pub(super) fn cookie(&self, auth: &Auth) -> Result<Option<HeaderValue>, OAuthError> {
        let plain = serde_json::to_vec(self).unwrap_or_default();
        let sealed = auth.root_secrets.seal(&plain, Purpose::OAuthFlows, SEALED_AS, &*auth.rng)?;
        let value = format!("{}.{}", auth.root_secrets.current_id(), BASE64URL.encode(sealed));
        Ok(COOKIE.set(&value, &auth.policy))
    }

    /// The header that takes it from the browser.
    pub(super) fn clear(policy: &Policy) -> Option<HeaderValue> {
        COOKIE.clear(policy)
    }

    /// What it was begun for.
    pub(super) fn purpose(&self) -> Purposed {
        match self.link.clone() {
            Some((user, session)) => Purposed::Link { user, session },
            None => Purposed::SignIn { remember_me: self.remember_me },
        }
    }

    /// What is remembered of it once it is finished.
    pub(super) fn state_hash(&self) -> [u8; 32] {
        sha256(self.state.as_bytes())
    }

    /// Until when.
    pub(super) fn expires_at(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.expires_at).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// The page of the provider that begins it.
    pub(super) async fn authorization_url(
        &self,
        auth: &Auth,
        provider: &Provider,
    ) -> Result<Url, OAuthError> {
        let client = provider.client()?;
        let outbound = &auth.providers.outbound;
        let mut url = match &provider.protocol {
            Protocol::Oidc { issuer, description } => description
                .metadata(outbound, provider.kind, issuer, &*auth.clock)
                .await?
                .authorization_endpoint
                .clone(),
            Protocol::GitHub { site, .. } => endpoint(site, "/login/oauth/authorize")?,
            Protocol::Discord { site } => endpoint(site, "/oauth2/authorize")?,
        };
        let callback = provider.callback(&auth.policy.public_url);
        let challenge = BASE64URL.encode(sha256(self.verifier.as_bytes()));
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &client.id)
            .append_pair("redirect_uri", &callback)
            .append_pair("scope", &client.scopes)
            .append_pair("state", &self.state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if matches!(provider.protocol, Protocol::Oidc { .. }) {
            query.append_pair("nonce", &self.nonce);
        }
        if provider.kind == super::model::ProviderKind::Apple {
            // Apple tells name and address in no other way.
            query.append_pair("response_mode", "form_post");
        }
        drop(query);
        Ok(url)
    }
}

/// An address below a provider's site.
pub(super) fn endpoint(site: &str, path: &str) -> Result<Url, OAuthError> {
    let url = Url::parse(&format!("{site}{path}"));
    url.map_err(|_| super::model::ProviderFault::Malformed("address").into())
}

fn unseal(auth: &Auth, value: &str) -> Option<Flow> {
    let (version, sealed) = value.split_once('.')?;
    let sealed = BASE64URL.decode(sealed).ok()?;
    let opened: Result<_, RootSecretError> =
        auth.root_secrets.open(&sealed, Purpose::OAuthFlows, SEALED_AS, version);
    serde_json::from_slice(&opened.ok()?).ok()
}
