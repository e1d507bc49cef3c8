//! The providers that the settings name: which they are, how each is spoken to, and who this service is there.

use super::discovery::Description;
use super::model::{EmailStanding, OAuthError, ProviderKind};
use crate::account::model::Email;
use crate::token::keys::{KeyError, KeyKind, SigningKey};
use mana_platform::config::{OidcProvider, ProviderSettings};
use mana_platform::outbound::OutboundError;
use mana_platform::{Outbound, Settings};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use time::{Duration, OffsetDateTime};
use url::Url;

/// How long a secret for Apple is good: it is made for one request.
const SIGNED_SECRET_LIFE: Duration = Duration::minutes(5);

/// Domains whose mailboxes are Google's own.
const GOOGLE_DOMAINS: [&str; 2] = ["gmail.com", "googlemail.com"];
/// Domains whose mailboxes are Apple's own, relays included.
const APPLE_DOMAINS: [&str; 4] = ["privaterelay.appleid.com", "icloud.com", "me.com", "mac.com"];

/// Settings of a provider can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProviderSettingsError {
    /// Half of what belongs together.
    #[error("{0} is set and {1} is not: give both or neither")]
    Incomplete(&'static str, &'static str),
    /// Apple's key signs nothing that Apple takes.
    #[error("APPLE_PRIVATE_KEY must be the text of a .p8 file from Apple, a private key on P-256")]
    AppleKey,
    /// The list is none. Says nothing of its text: it holds secrets.
    #[error(
        "OIDC_PROVIDERS must be a JSON list of {{\"id\", \"name\"?, \"issuer\", \"clientId\", \"clientSecret\"?, \"scopes\"?, \"emailDomains\"?}}: it is not at line {0}, column {1}"
    )]
    List(usize, usize),
    /// An id that can't stand in a path, or is another's.
    #[error(
        "OIDC_PROVIDERS: the id {0:?} must be 1 to 32 lower-case letters, digits or dashes, and no other provider's"
    )]
    Id(String),
    /// Where nothing may be sent.
    #[error(
        "the address of {0} must be https and of the public internet; OAUTH_PRIVATE_NETWORKS names others that may be reached"
    )]
    OutOfReach(String),
    /// No way out.
    #[error("providers can't be asked: {0}")]
    Outbound(#[from] OutboundError),
}

/// All providers that are set up.
#[derive(Debug)]
pub struct Providers {
    list: Vec<Provider>,
    /// The way to them.
    pub(super) outbound: Outbound,
    /// Where people end up who named no other place.
    pub(super) default_target: String,
}

/// A service that says who people are.
#[derive(Debug)]
pub(super) struct Provider {
    /// Names it in paths.
    pub(super) id: String,
    /// Names it to people.
    pub(super) title: String,
    pub(super) kind: ProviderKind,
    pub(super) protocol: Protocol,
    /// Who this service is there, for round trips in a browser.
    pub(super) client: Option<WebClient>,
    /// Who its mobile apps are there.
    pub(super) audiences: Vec<String>,
    /// Whether an app may keep to itself which nonce its token has.
    pub(super) takes_unsent_nonce: bool,
    /// Whether it puts the nonce into the token as an app gives it, and apps give it unhashed.
    pub(super) takes_clear_nonce: bool,
    /// Domains whose mailboxes are the provider's own, `*` for all.
    own_domains: Vec<String>,
}

/// How it says who somebody is.
#[derive(Debug)]
pub(super) enum Protocol {
    /// By ID tokens (OpenID Connect).
    Oidc { issuer: String, description: Box<Description> },
    /// By GitHub's API.
    GitHub { site: String, api: String },
    /// By Discord's API.
    Discord { site: String },
}

/// Who this service is at a provider.
#[derive(Debug)]
pub(super) struct WebClient {
    pub(super) id: String,
    pub(super) secret: ClientSecret,
    pub(super) scopes: String,
}

/// How it proves that.
pub(super) enum ClientSecret {
    /// Not at all: PKCE alone ties the code to this service.
    None,
    Text(SecretString),
    /// By a token of its own (Apple).
    Signed {
        team_id: String,
        key_id: String,
        key: Box<SigningKey>,
    },
}

impl std::fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Text(_) => "Text([redacted])",
            Self::Signed { .. } => "Signed([redacted])",
        })
    }
}

impl WebClient {
    fn new(id: &str, secret: ClientSecret, scopes: &str) -> Self {
        Self { id: id.to_owned(), secret, scopes: scopes.to_owned() }
    }

    /// What is sent as the secret now, if anything is.
    pub(super) fn secret_at(
        &self,
        now: OffsetDateTime,
        issuer: &str,
    ) -> Result<Option<SecretString>, KeyError> {
        match &self.secret {
            ClientSecret::None => Ok(None),
            ClientSecret::Text(secret) => Ok(Some(secret.clone())),
            ClientSecret::Signed { team_id, key_id, key } => {
                let claims = json!({
                    "iss": team_id,
                    "sub": self.id,
                    "aud": issuer,
                    "iat": now.unix_timestamp(),
                    "exp": now.saturating_add(SIGNED_SECRET_LIFE).unix_timestamp(),
                });
                Ok(Some(SecretString::from(key.jws_as(key_id, claims.to_string().as_bytes())?)))
            }
        }
    }
}

impl Provider {
    /// Who this service is there, if people may be sent there.
    pub(super) fn client(&self) -> Result<&WebClient, OAuthError> {
        self.client.as_ref().ok_or(OAuthError::UnknownProvider)
    }

    /// What the provider's word for an address is worth, if it says that it has checked it.
    pub(super) fn standing(
        &self,
        email: &Email,
        is_verified: bool,
        organisation: Option<&str>,
    ) -> EmailStanding {
        let domain = email.as_str().rsplit('@').next().unwrap_or_default();
        let is_own = self.own_domains.iter().any(|own| own == "*" || own == domain)
            || organisation.is_some_and(|organisation| organisation.eq_ignore_ascii_case(domain));
        if !is_verified {
            return EmailStanding::Unverified;
        }
        if is_own {
            return EmailStanding::Authoritative;
        }
        match self.kind {
            // Whoever runs an issuer or a tenant of their own may say anything of addresses that are not theirs.
            ProviderKind::Oidc | ProviderKind::Microsoft => EmailStanding::Unverified,
            ProviderKind::Google | ProviderKind::Apple | ProviderKind::GitHub | ProviderKind::Discord => {
                EmailStanding::Verified
            }
        }
    }

    /// The page at which a round trip there ends here.
    pub(super) fn callback(&self, public_url: &str) -> String {
        format!("{public_url}/api/v1/auth/oauth/{}/callback", self.id)
    }
}

impl Providers {
    /// Those that the settings name.
    ///
    /// # Errors
    /// When settings are incomplete, contradict each other or lead where nothing may be sent.
    pub fn from_settings(settings: &Settings) -> Result<Self, ProviderSettingsError> {
        let given = &settings.providers;
        let outbound = Outbound::new(
            &given.oauth_private_networks,
            std::time::Duration::from_secs(given.oauth_timeout_seconds),
        )?;
        let mut list: Vec<_> =
            [google(given)?, apple(given)?, microsoft(given)?, github(given)?, discord(given)?]
                .into_iter()
                .flatten()
                .collect();
        for provider in other_issuers(given)? {
            let is_id = (1..=32).contains(&provider.id.len())
                && provider
                    .id
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            let is_preset =
                ["google", "apple", "microsoft", "github", "discord"].contains(&provider.id.as_str());
            if !is_id || is_preset || list.iter().any(|other| other.id == provider.id) {
                return Err(ProviderSettingsError::Id(provider.id));
            }
            list.push(oidc(provider));
        }
        for provider in &list {
            let addresses: Vec<&String> = match &provider.protocol {
                Protocol::Oidc { issuer, .. } => vec![issuer],
                Protocol::GitHub { site, api } => vec![site, api],
                Protocol::Discord { site } => vec![site],
            };
            let is_reachable =
                |address: &&String| Url::parse(address).is_ok_and(|url| outbound.may_reach(&url));
            if !addresses.iter().all(is_reachable) {
                return Err(ProviderSettingsError::OutOfReach(provider.title.clone()));
            }
        }
        let default_target =
            settings.frontend_url.as_ref().map_or_else(|| settings.public_url(), ToString::to_string);
        Ok(Self { list, outbound, default_target })
    }

    /// Those to which people may be sent, in the order of the settings.
    pub(super) fn for_browsers(&self) -> impl Iterator<Item = &Provider> {
        self.list.iter().filter(|provider| provider.client.is_some())
    }

    /// What people know one as; its id, if it is no longer set up.
    pub(crate) fn title_of<'a>(&'a self, id: &'a str) -> &'a str {
        self.find(id).map_or(id, |provider| &provider.title)
    }

    /// One by its id.
    pub(super) fn find(&self, id: &str) -> Result<&Provider, OAuthError> {
        self.list.iter().find(|provider| provider.id == id).ok_or(OAuthError::UnknownProvider)
    }
}

/// Both or neither of two settings.
fn both<'a, A, B>(
    first: (&'static str, &'a Option<A>),
    second: (&'static str, &'a Option<B>),
) -> Result<Option<(&'a A, &'a B)>, ProviderSettingsError> {
    match (first, second) {
        ((_, Some(first)), (_, Some(second))) => Ok(Some((first, second))),
        ((_, None), (_, None)) => Ok(None),
        ((given, Some(_)), (missing, None)) | ((missing, None), (given, Some(_))) => {
            Err(ProviderSettingsError::Incomplete(given, missing))
        }
    }
}

fn with_secret(
    id: (&'static str, &Option<String>),
    secret: (&'static str, &Option<SecretString>),
    scopes: &str,
) -> Result<Option<WebClient>, ProviderSettingsError> {
    let given = both(id, secret)?;
    Ok(given.map(|(id, secret)| WebClient::new(id, ClientSecret::Text(secret.clone()), scopes)))
}

fn owned(domains: &[&str]) -> Vec<String> {
    domains.iter().map(|&domain| domain.to_owned()).collect()
}

fn by_issuer(issuer: &str) -> Protocol {
    Protocol::Oidc { issuer: issuer.to_owned(), description: Box::default() }
}

fn google(given: &ProviderSettings) -> Result<Option<Provider>, ProviderSettingsError> {
    let client = with_secret(
        ("GOOGLE_CLIENT_ID", &given.google_client_id),
        ("GOOGLE_CLIENT_SECRET", &given.google_client_secret),
        "openid email profile",
    )?;
    let is_set = client.is_some() || !given.google_audiences.is_empty();
    Ok(is_set.then(|| Provider {
        id: "google".to_owned(),
        title: "Google".to_owned(),
        kind: ProviderKind::Google,
        protocol: by_issuer(&given.google_issuer),
        client,
        audiences: given.google_audiences.clone(),
        takes_unsent_nonce: given.google_takes_unsent_nonce,
        takes_clear_nonce: true,
        own_domains: owned(&GOOGLE_DOMAINS),
    }))
}

fn apple(given: &ProviderSettings) -> Result<Option<Provider>, ProviderSettingsError> {
    let team = both(("APPLE_CLIENT_ID", &given.apple_client_id), ("APPLE_TEAM_ID", &given.apple_team_id))?;
    let key = both(("APPLE_KEY_ID", &given.apple_key_id), ("APPLE_PRIVATE_KEY", &given.apple_private_key))?;
    let client = match (team, key) {
        (Some((id, team_id)), Some((key_id, pem))) => {
            let pem = SecretString::from(pem.expose_secret().replace("\\n", "\n"));
            let key = SigningKey::from_pem(&pem).map_err(|_| ProviderSettingsError::AppleKey)?;
            if key.kind() != KeyKind::Es256 {
                return Err(ProviderSettingsError::AppleKey);
            }
            let (team_id, key_id, key) = (team_id.clone(), key_id.clone(), Box::new(key));
            Some(WebClient::new(id, ClientSecret::Signed { team_id, key_id, key }, "name email"))
        }
        (None, None) => None,
        (Some(_), None) => return Err(ProviderSettingsError::Incomplete("APPLE_CLIENT_ID", "APPLE_KEY_ID")),
        (None, Some(_)) => return Err(ProviderSettingsError::Incomplete("APPLE_KEY_ID", "APPLE_CLIENT_ID")),
    };
    let is_set = client.is_some() || !given.apple_audiences.is_empty();
    Ok(is_set.then(|| Provider {
        id: "apple".to_owned(),
        title: "Apple".to_owned(),
        kind: ProviderKind::Apple,
        protocol: by_issuer(&given.apple_issuer),
        client,
        audiences: given.apple_audiences.clone(),
        takes_unsent_nonce: given.apple_takes_unsent_nonce,
        takes_clear_nonce: given.apple_takes_clear_nonce,
        own_domains: owned(&APPLE_DOMAINS),
    }))
}

fn microsoft(given: &ProviderSettings) -> Result<Option<Provider>, ProviderSettingsError> {
    let client = with_secret(
        ("MICROSOFT_CLIENT_ID", &given.microsoft_client_id),
        ("MICROSOFT_CLIENT_SECRET", &given.microsoft_client_secret),
        "openid email profile",
    )?;
    let issuer = format!("{}/{}/v2.0", given.microsoft_url, given.microsoft_tenant);
    Ok(client.map(|client| Provider {
        id: "microsoft".to_owned(),
        title: "Microsoft".to_owned(),
        kind: ProviderKind::Microsoft,
        protocol: by_issuer(&issuer),
        client: Some(client),
        audiences: Vec::new(),
        takes_unsent_nonce: false,
        takes_clear_nonce: false,
        own_domains: Vec::new(),
    }))
}

fn github(given: &ProviderSettings) -> Result<Option<Provider>, ProviderSettingsError> {
    let client = with_secret(
        ("GITHUB_CLIENT_ID", &given.github_client_id),
        ("GITHUB_CLIENT_SECRET", &given.github_client_secret),
        "read:user user:email",
    )?;
    let protocol = Protocol::GitHub { site: given.github_url.clone(), api: given.github_api_url.clone() };
    Ok(client.map(|client| Provider {
        id: "github".to_owned(),
        title: "GitHub".to_owned(),
        kind: ProviderKind::GitHub,
        protocol,
        client: Some(client),
        audiences: Vec::new(),
        takes_unsent_nonce: false,
        takes_clear_nonce: false,
        own_domains: Vec::new(),
    }))
}

fn discord(given: &ProviderSettings) -> Result<Option<Provider>, ProviderSettingsError> {
    let client = with_secret(
        ("DISCORD_CLIENT_ID", &given.discord_client_id),
        ("DISCORD_CLIENT_SECRET", &given.discord_client_secret),
        "identify email",
    )?;
    Ok(client.map(|client| Provider {
        id: "discord".to_owned(),
        title: "Discord".to_owned(),
        kind: ProviderKind::Discord,
        protocol: Protocol::Discord { site: given.discord_url.clone() },
        client: Some(client),
        audiences: Vec::new(),
        takes_unsent_nonce: false,
        takes_clear_nonce: false,
        own_domains: Vec::new(),
    }))
}

fn other_issuers(given: &ProviderSettings) -> Result<Vec<OidcProvider>, ProviderSettingsError> {
    let Some(json) = &given.oidc_providers else { return Ok(Vec::new()) };
    serde_json::from_str(json.expose_secret())
        .map_err(|error| ProviderSettingsError::List(error.line(), error.column()))
}

fn oidc(provider: OidcProvider) -> Provider {
    let secret = provider.client_secret.map_or(ClientSecret::None, ClientSecret::Text);
    let scopes = provider.scopes.as_deref().unwrap_or("openid email profile");
    Provider {
        title: provider.name.unwrap_or_else(|| provider.id.clone()),
        id: provider.id,
        kind: ProviderKind::Oidc,
        protocol: by_issuer(&provider.issuer),
        client: Some(WebClient::new(&provider.client_id, secret, scopes)),
        audiences: Vec::new(),
        takes_unsent_nonce: false,
        takes_clear_nonce: false,
        own_domains: provider.email_domains.iter().map(|domain| domain.to_lowercase()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::keys::generate_pem;

    fn with(change: impl FnOnce(&mut ProviderSettings)) -> Result<Providers, ProviderSettingsError> {
        let mut settings = Settings::defaults().unwrap();
        change(&mut settings.providers);
        Providers::from_settings(&settings)
    }

    fn list(json: &str) -> Result<Providers, ProviderSettingsError> {
        with(|given| given.oidc_providers = Some(json.into()))
    }

    #[test]
    fn without_settings_nobody_is_offered_and_half_of_them_are_refused() {
        assert_eq!(with(|_| {}).unwrap().list.len(), 0);
        let half = with(|given| given.google_client_id = Some("us".into()));
        assert!(half.unwrap_err().to_string().contains("GOOGLE_CLIENT_SECRET"));
        let half = with(|given| given.apple_key_id = Some("k".into()));
        assert!(half.unwrap_err().to_string().contains("APPLE_PRIVATE_KEY"));
        let mobile = with(|given| given.apple_audiences = vec!["com.example.app".into()]).unwrap();
        assert!(mobile.find("apple").unwrap().client().is_err(), "there is no way there for a browser");
    }

    #[test]
    fn other_issuers_have_ids_of_their_own_and_are_not_just_anywhere() {
        let issuer = |id: &str, issuer: &str| {
            format!(r#"[{{"id": "{id}", "issuer": "{issuer}", "clientId": "us", "clientSecret": "hidden"}}]"#)
        };
        assert!(list(&issuer("acme", "https://login.acme.example/")).is_ok());
        for bad in ["", "Acme", "a/b", "google", &"x".repeat(33)] {
            assert!(matches!(
                list(&issuer(bad, "https://login.acme.example")),
                Err(ProviderSettingsError::Id(_))
            ));
        }
        for bad in ["http://login.acme.example", "https://10.0.0.1", "https://169.254.169.254", "no URL"] {
            let refused = list(&issuer("acme", bad));
            assert!(matches!(refused, Err(ProviderSettingsError::OutOfReach(_))), "{bad}");
        }
        let malformed = list(&issuer("acme", "https://login.acme.example").replace("clientId", "client"));
        assert!(!malformed.unwrap_err().to_string().contains("hidden"));
    }

    #[test]
    fn a_secret_for_apple_says_who_asks_and_is_signed_by_the_key() {
        let pem = generate_pem(KeyKind::Es256).unwrap();
        let settings = |pem: SecretString| {
            with(|given| {
                given.apple_client_id = Some("com.example.web".into());
                given.apple_team_id = Some("TEAM".into());
                given.apple_key_id = Some("KEY".into());
                given.apple_private_key = Some(pem);
            })
        };
        let in_one_line = SecretString::from(pem.expose_secret().replace('\n', "\\n"));
        let providers = settings(in_one_line).unwrap();
        let client = providers.find("apple").unwrap().client().unwrap();
        let now = OffsetDateTime::UNIX_EPOCH;
        let secret = client.secret_at(now, "https://appleid.apple.com").unwrap().unwrap();
        let compact = crate::token::compact::Compact::split(secret.expose_secret()).unwrap();
        let header: serde_json::Value = compact.foreign_header().unwrap();
        assert_eq!(header, json!({"alg": "ES256", "kid": "KEY"}));
        let claims: serde_json::Value = compact.claims().unwrap();
        assert_eq!(
            claims,
            json!({"iss": "TEAM", "sub": "com.example.web", "aud": "https://appleid.apple.com", "iat": 0, "exp": 300})
        );
        let key = SigningKey::from_pem(&pem).unwrap();
        let public = serde_json::to_value(key.jwk()).unwrap();
        let public =
            crate::token::keys::VerifyingKey::from_jwk(serde_json::from_value(public).unwrap()).unwrap();
        assert!(compact.is_signed_by(&public));
        let rsa = generate_pem(KeyKind::Rs256 { bits: 2048 }).unwrap();
        assert!(matches!(settings(rsa), Err(ProviderSettingsError::AppleKey)));
    }

    #[test]
    fn a_word_for_an_address_is_worth_what_the_provider_can_know() {
        use EmailStanding::{Authoritative, Unverified, Verified};
        let providers = with(|given| {
            given.google_audiences = vec!["app".into()];
            given.apple_audiences = vec!["app".into()];
            given.microsoft_client_id = Some("us".into());
            given.microsoft_client_secret = Some("s".into());
            given.github_client_id = Some("us".into());
            given.github_client_secret = Some("s".into());
            given.oidc_providers = Some(
                r#"[{"id": "acme", "issuer": "https://login.acme.example", "clientId": "us", "emailDomains": ["acme.example"]}]"#
                    .into(),
            );
        })
        .unwrap();
        for (provider, email, is_verified, organisation, expected) in [
            ("google", "a@gmail.com", true, None, Authoritative),
            ("google", "a@gmail.com", false, None, Unverified),
            ("google", "a@acme.example", true, Some("acme.example"), Authoritative),
            ("google", "a@acme.example", true, Some("other.example"), Verified),
            ("google", "a@acme.example", true, None, Verified),
            ("google", "a@evil-gmail.com", true, None, Verified),
            ("apple", "x@privaterelay.appleid.com", true, None, Authoritative),
            ("apple", "a@acme.example", true, None, Verified),
            ("microsoft", "a@acme.example", true, Some("acme.example"), Authoritative),
            ("microsoft", "a@acme.example", false, None, Unverified),
            ("github", "a@gmail.com", true, None, Verified),
            ("acme", "a@acme.example", true, None, Authoritative),
            ("acme", "a@gmail.com", true, None, Unverified),
            ("acme", "a@sub.acme.example", true, None, Unverified),
        ] {
            let email_address = Email::try_from(email.to_owned()).unwrap();
            let standing =
                providers.find(provider).unwrap().standing(&email_address, is_verified, organisation);
            assert_eq!(standing, expected, "{provider} {email}");
        }
    }
}
