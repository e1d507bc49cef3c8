//! What the provider answers for: a code for tokens (RFC 6749, section 4.1.3), and tokens for who somebody is.

use super::flow::{Flow, endpoint};
use super::id_token::{self, Claims, Expected, NonceRule, Verdict};
use super::model::{Identity, OAuthError, ProviderFault, ProviderKind, ToldEmail};
use super::provider::{ClientSecret, Protocol, Provider, WebClient};
use crate::Auth;
use crate::account::model::Email;
use mana_platform::outbound::{Answer, Credentials};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use url::Url;

/// Characters of a name and of a picture's URL that are kept.
const MAX_NAME: usize = 255;
const MAX_IMAGE: usize = 2048;

/// What a provider gave for asking it more, in the shape that is sealed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProviderTokens {
    #[serde(serialize_with = "exposed")]
    access_token: SecretString,
    #[serde(serialize_with = "exposed_if_any")]
    refresh_token: Option<SecretString>,
    scope: Option<String>,
    /// Seconds from when it was given.
    expires_in: Option<u64>,
}

fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

#[expect(clippy::ref_option, reason = "the shape serde asks for")]
fn exposed_if_any<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => exposed(secret, serializer),
        None => serializer.serialize_none(),
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<SecretString>,
    refresh_token: Option<SecretString>,
    id_token: Option<SecretString>,
    scope: Option<String>,
    expires_in: Option<u64>,
    error: Option<String>,
}

/// Who came back with a code.
pub(super) async fn exchange(
    auth: &Auth,
    provider: &Provider,
    flow: &Flow,
    code: &str,
    told_issuer: Option<&str>,
) -> Result<(Identity, ProviderTokens), OAuthError> {
    let client = provider.client()?;
    match &provider.protocol {
        Protocol::Oidc { issuer, description } => {
            let outbound = &auth.providers.outbound;
            let metadata = description.metadata(outbound, provider.kind, issuer, &*auth.clock).await?;
            // A code of another issuer is not sent to this one (RFC 9207).
            if told_issuer.map_or(metadata.names_issuer, |told| !metadata.rule.may_name(told)) {
                return Err(OAuthError::NotProven("the answer names another issuer"));
            }
            let is_basic = metadata.takes_secret_in_header && matches!(client.secret, ClientSecret::Text(_));
            let answer = redeem(auth, provider, &metadata.token_endpoint, flow, code, is_basic).await?;
            let token = answer.id_token.as_ref().ok_or(ProviderFault::Malformed("answer to the code"))?;
            let rule = NonceRule::Is(&flow.nonce);
            let claims = prove(auth, provider, token.expose_secret(), &[client.id.as_str()], rule).await?;
            Ok((identity(provider, *claims), answer.tokens()?))
        }
        Protocol::GitHub { site, api } => {
            let authorization_server = format!("{site}/login/oauth");
            if told_issuer.is_some_and(|told| told != site && told != authorization_server) {
                return Err(OAuthError::NotProven("the answer names another issuer"));
            }
            let token_endpoint = endpoint(site, "/login/oauth/access_token")?;
            let tokens = redeem(auth, provider, &token_endpoint, flow, code, false).await?.tokens()?;
            Ok((ask_github(auth, provider, site, api, &tokens.access_token).await?, tokens))
        }
        Protocol::Discord { site } => {
            if told_issuer.is_some_and(|told| told != site) {
                return Err(OAuthError::NotProven("the answer names another issuer"));
            }
            let token_endpoint = endpoint(site, "/api/oauth2/token")?;
            let tokens = redeem(auth, provider, &token_endpoint, flow, code, false).await?.tokens()?;
            Ok((ask_discord(auth, provider, site, &tokens.access_token).await?, tokens))
        }
    }
}

/// Whom an ID token is about that was asked for by one of `audiences`.
pub(super) async fn prove(
    auth: &Auth,
    provider: &Provider,
    token: &str,
    audiences: &[&str],
    nonce: NonceRule<'_>,
) -> Result<Box<Claims>, OAuthError> {
    let Protocol::Oidc { issuer, description } = &provider.protocol else {
        return Err(OAuthError::UnknownProvider);
    };
    let (outbound, clock) = (&auth.providers.outbound, &*auth.clock);
    let metadata = description.metadata(outbound, provider.kind, issuer, clock).await?;
    let expected = Expected { issuer: &metadata.rule, audiences, nonce, now: clock.now() };
    let keys = description.keys(outbound, &metadata, clock).await?;
    if let Verdict::Proven(claims) = id_token::verify(token, &keys, &expected)? {
        return Ok(claims);
    }
    let keys = description.newer_keys(outbound, &metadata, clock).await?;
    match id_token::verify(token, &keys, &expected)? {
        Verdict::Proven(claims) => Ok(claims),
        Verdict::UnknownKey => Err(OAuthError::NotProven("its key is not the issuer's")),
    }
}

/// The code, once, with what proves that this service asked for it.
async fn redeem(
    auth: &Auth,
    provider: &Provider,
    token_endpoint: &Url,
    flow: &Flow,
    code: &str,
    is_basic: bool,
) -> Result<TokenAnswer, OAuthError> {
    let client = provider.client()?;
    let callback = provider.callback(&auth.policy.public_url);
    let secret = secret(auth, provider, client)?;
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", callback.as_str()),
        ("code_verifier", flow.verifier.as_str()),
    ];
    let (name, password);
    let credentials = match &secret {
        Some(secret) if is_basic => {
            // Both are encoded before they are joined (RFC 6749, section 2.3.1).
            (name, password) = (encoded(&client.id), SecretString::from(encoded(secret.expose_secret())));
            Credentials::Basic(&name, &password)
        }
        Some(secret) => {
            form.extend([("client_id", client.id.as_str()), ("client_secret", secret.expose_secret())]);
            Credentials::None
        }
        None => {
            form.push(("client_id", client.id.as_str()));
            Credentials::None
        }
    };
    let sent = auth.providers.outbound.post_form(token_endpoint, &form, credentials).await;
    let Answer { status, body } = sent.map_err(ProviderFault::from)?;
    let answer: TokenAnswer = match serde_json::from_slice(&body) {
        Ok(answer) => answer,
        Err(_) if status.is_success() => return Err(ProviderFault::Malformed("answer to the code").into()),
        Err(_) => return Err(ProviderFault::Status(status.as_u16(), "the code").into()),
    };
    match answer.error.as_deref() {
        None if status.is_success() => Ok(answer),
        None => Err(ProviderFault::Status(status.as_u16(), "the code").into()),
        Some("invalid_grant" | "bad_verification_code") => Err(OAuthError::NotProven("its code is not good")),
        Some(error) => Err(ProviderFault::Refused(plain(error)).into()),
    }
}

fn secret(auth: &Auth, provider: &Provider, client: &WebClient) -> Result<Option<SecretString>, OAuthError> {
    let issuer = match &provider.protocol {
        Protocol::Oidc { issuer, .. } => issuer,
        Protocol::GitHub { site, .. } | Protocol::Discord { site } => site,
    };
    let made = client.secret_at(auth.clock.now(), issuer);
    made.map_err(|_| ProviderFault::Refused("the key for it does not sign".to_owned()).into())
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// An error's name, of which nothing more gets into the log than such a name has.
fn plain(error: &str) -> String {
    error.chars().filter(|letter| letter.is_ascii_lowercase() || *letter == '_').take(40).collect()
}

impl TokenAnswer {
    fn tokens(self) -> Result<ProviderTokens, OAuthError> {
        Ok(ProviderTokens {
            access_token: self.access_token.ok_or(ProviderFault::Malformed("answer to the code"))?,
            refresh_token: self.refresh_token,
            scope: self.scope,
            expires_in: self.expires_in,
        })
    }
}

/// Who an ID token says it is.
pub(super) fn identity(provider: &Provider, claims: Claims) -> Identity {
    let of_own_domain = provider.kind == ProviderKind::Microsoft && claims.has_email_of_own_domain();
    let is_verified = match provider.kind {
        // Anybody may set any address in a tenant of their own.
        ProviderKind::Microsoft => of_own_domain,
        ProviderKind::Google
        | ProviderKind::Apple
        | ProviderKind::GitHub
        | ProviderKind::Discord
        | ProviderKind::Oidc => claims.has_verified_email(),
    };
    let email = claims.email.as_deref().and_then(|address| {
        let own_domain = address.rsplit('@').next().filter(|_| of_own_domain);
        told(provider, address, is_verified, own_domain.or(claims.hd.as_deref()))
    });
    Identity {
        issuer: claims.iss,
        subject: claims.sub,
        email,
        name: claims.name.as_deref().and_then(name),
        image: claims.picture.and_then(image),
    }
}

fn told(
    provider: &Provider,
    address: &str,
    is_verified: bool,
    organisation: Option<&str>,
) -> Option<ToldEmail> {
    let address = Email::try_from(address.to_owned()).ok()?;
    // What an organisation is called means something at Google alone, and above for Microsoft.
    let organisation =
        organisation.filter(|_| matches!(provider.kind, ProviderKind::Google | ProviderKind::Microsoft));
    let standing = provider.standing(&address, is_verified, organisation);
    Some(ToldEmail { address, standing })
}

/// One line of at most so many characters; none if nothing is left.
pub(super) fn name(text: &str) -> Option<String> {
    let name: String = text.chars().filter(|letter| !letter.is_control()).take(MAX_NAME).collect();
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn image(text: String) -> Option<String> {
    let is_picture = text.len() <= MAX_IMAGE && Url::parse(&text).is_ok_and(|url| url.scheme() == "https");
    is_picture.then_some(text)
}

#[derive(Deserialize)]
struct GitHubUser {
    id: u64,
    login: String,
    name: Option<String>,
    avatar_url: Option<String>,
}

#[derive(Deserialize)]
struct GitHubEmail {
    email: String,
    primary: bool,
    verified: bool,
}

async fn ask_github(
    auth: &Auth,
    provider: &Provider,
    site: &str,
    api: &str,
    token: &SecretString,
) -> Result<Identity, OAuthError> {
    let user: GitHubUser = ask(auth, &endpoint(api, "/user")?, token).await?;
    let emails: Vec<GitHubEmail> = ask(auth, &endpoint(api, "/user/emails")?, token).await?;
    let primary = emails.iter().find(|email| email.primary);
    Ok(Identity {
        issuer: site.to_owned(),
        subject: user.id.to_string(),
        email: primary.and_then(|primary| told(provider, &primary.email, primary.verified, None)),
        name: user.name.as_deref().and_then(name).or_else(|| name(&user.login)),
        image: user.avatar_url.and_then(image),
    })
}

#[derive(Deserialize)]
struct DiscordUser {
    id: String,
    username: String,
    global_name: Option<String>,
    email: Option<String>,
    verified: Option<bool>,
}

async fn ask_discord(
    auth: &Auth,
    provider: &Provider,
    site: &str,
    token: &SecretString,
) -> Result<Identity, OAuthError> {
    let user: DiscordUser = ask(auth, &endpoint(site, "/api/users/@me")?, token).await?;
    if !(1..=32).contains(&user.id.len()) || !user.id.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ProviderFault::Malformed("user").into());
    }
    let is_verified = user.verified.unwrap_or(false);
    Ok(Identity {
        issuer: site.to_owned(),
        subject: user.id,
        email: user.email.and_then(|email| told(provider, &email, is_verified, None)),
        name: user.global_name.as_deref().and_then(name).or_else(|| name(&user.username)),
        image: None,
    })
}

async fn ask<T: DeserializeOwned>(auth: &Auth, url: &Url, token: &SecretString) -> Result<T, OAuthError> {
    let asked = auth.providers.outbound.get(url, Credentials::Bearer(token)).await;
    let answer = asked.map_err(ProviderFault::from)?;
    if !answer.status.is_success() {
        return Err(ProviderFault::Status(answer.status.as_u16(), "the question who it is").into());
    }
    serde_json::from_slice(&answer.body).map_err(|_| ProviderFault::Malformed("user").into())
}
