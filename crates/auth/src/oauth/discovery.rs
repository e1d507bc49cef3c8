//! What an issuer says of itself (OpenID Connect Discovery) and its keys, asked for when needed and remembered for a while.

use super::id_token::{IssuerRule, KeySet};
use super::model::{ProviderFault, ProviderKind};
use mana_platform::Outbound;
use mana_platform::outbound::Credentials;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;
use url::Url;

/// How long an answer is remembered.
const MEMORY: Duration = Duration::HOUR;
/// How old a key set must be to be asked for again because of a key that is not in it.
const KEY_SET_REST: Duration = Duration::MINUTE;
/// How long an issuer that failed is left alone: whoever waited for the answer need not wait again.
const FAILURE_REST: Duration = Duration::seconds(5);

/// What is remembered of an issuer.
#[derive(Debug, Default)]
pub(super) struct Description {
    metadata: Remembered<Metadata>,
    keys: Remembered<KeySet>,
}

/// An issuer's endpoints and ways.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) rule: IssuerRule,
    pub(super) authorization_endpoint: Url,
    pub(super) token_endpoint: Url,
    jwks_uri: Url,
    /// Whether the secret goes into a header, which is the way unless an issuer says otherwise.
    pub(super) takes_secret_in_header: bool,
    /// Whether every answer names its issuer (RFC 9207).
    pub(super) names_issuer: bool,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    authorization_response_iss_parameter_supported: Option<bool>,
}

impl Description {
    /// The issuer's endpoints.
    pub(super) async fn metadata(
        &self,
        outbound: &Outbound,
        kind: ProviderKind,
        issuer: &str,
        now: OffsetDateTime,
    ) -> Result<Arc<Metadata>, ProviderFault> {
        self.metadata.get(now, MEMORY, async || fetch_metadata(outbound, kind, issuer).await).await
    }

    /// The issuer's keys.
    pub(super) async fn keys(
        &self,
        outbound: &Outbound,
        metadata: &Metadata,
        now: OffsetDateTime,
    ) -> Result<Arc<KeySet>, ProviderFault> {
        self.keys.get(now, MEMORY, async || fetch_keys(outbound, metadata).await).await
    }

    /// The same, asked for again if what is remembered is not brand new.
    pub(super) async fn newer_keys(
        &self,
        outbound: &Outbound,
        metadata: &Metadata,
        now: OffsetDateTime,
    ) -> Result<Arc<KeySet>, ProviderFault> {
        self.keys.get(now, KEY_SET_REST, async || fetch_keys(outbound, metadata).await).await
    }
}

async fn fetch_metadata(
    outbound: &Outbound,
    kind: ProviderKind,
    issuer: &str,
) -> Result<Metadata, ProviderFault> {
    const WHAT: &str = "description";
    let malformed = || ProviderFault::Malformed(WHAT);
    let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let document: Document = fetch(outbound, &Url::parse(&place).map_err(|_| malformed())?, WHAT).await?;
    if !is_own_name(kind, issuer, &document.issuer) {
        return Err(malformed());
    }
    // A browser is sent to the first one: it must be no script, and no place that this service itself would not go to.
    let reachable =
        |text: &str| Url::parse(text).ok().filter(|url| outbound.may_reach(url)).ok_or_else(malformed);
    let methods = document.token_endpoint_auth_methods_supported;
    Ok(Metadata {
        rule: IssuerRule::of(&document.issuer),
        authorization_endpoint: reachable(&document.authorization_endpoint)?,
        token_endpoint: reachable(&document.token_endpoint)?,
        jwks_uri: reachable(&document.jwks_uri)?,
        takes_secret_in_header: methods
            .is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic")),
        names_issuer: document.authorization_response_iss_parameter_supported.unwrap_or(false),
    })
}

/// Whether an issuer may call itself so. Microsoft's places for more than one tenant describe an issuer for each.
fn is_own_name(kind: ProviderKind, issuer: &str, told: &str) -> bool {
    if kind != ProviderKind::Microsoft {
        return told == issuer;
    }
    let site = issuer.rsplitn(3, '/').nth(2).unwrap_or(issuer);
    told.strip_prefix(site).is_some_and(|rest| rest.starts_with('/') && rest.ends_with("/v2.0"))
}

async fn fetch_keys(outbound: &Outbound, metadata: &Metadata) -> Result<KeySet, ProviderFault> {
    let answer = outbound.get(&metadata.jwks_uri, Credentials::None).await?;
    if !answer.status.is_success() {
        return Err(ProviderFault::Status(answer.status.as_u16(), "the request for its keys"));
    }
    KeySet::read(&answer.body).ok_or(ProviderFault::Malformed("key set"))
}

async fn fetch<T: DeserializeOwned>(
    outbound: &Outbound,
    url: &Url,
    what: &'static str,
) -> Result<T, ProviderFault> {
    let answer = outbound.get(url, Credentials::None).await?;
    if !answer.status.is_success() {
        return Err(ProviderFault::Status(answer.status.as_u16(), "the request for its description"));
    }
    serde_json::from_slice(&answer.body).map_err(|_| ProviderFault::Malformed(what))
}

/// One answer, asked for by one request at a time.
#[derive(Debug)]
struct Remembered<T>(Mutex<Memory<T>>);

#[derive(Debug)]
struct Memory<T> {
    value: Option<(Arc<T>, OffsetDateTime)>,
    failed_at: Option<OffsetDateTime>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Mutex::new(Memory { value: None, failed_at: None }))
    }
}

impl<T> Remembered<T> {
    /// The answer, if it is younger than `age`; else what `fetch` gives.
    async fn get(
        &self,
        now: OffsetDateTime,
        age: Duration,
        fetch: impl AsyncFnOnce() -> Result<T, ProviderFault>,
    ) -> Result<Arc<T>, ProviderFault> {
        let is_within = |then: OffsetDateTime, age: Duration| (then..then.saturating_add(age)).contains(&now);
        let mut memory = self.0.lock().await;
        if let Some((value, fetched_at)) = &memory.value
            && is_within(*fetched_at, age)
        {
            return Ok(Arc::clone(value));
        }
        if memory.failed_at.is_some_and(|failed_at| is_within(failed_at, FAILURE_REST)) {
            return Err(ProviderFault::Resting);
        }
        match fetch().await {
            Ok(value) => {
                let value = Arc::new(value);
                *memory = Memory { value: Some((Arc::clone(&value), now)), failed_at: None };
                Ok(value)
            }
            Err(fault) => {
                memory.failed_at = Some(now);
                Err(fault)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_asked_for_once_and_a_failure_is_not_repeated_at_once() {
        let remembered = Remembered::default();
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds);
        let get = async |now, answer: Result<u8, ProviderFault>| {
            remembered.get(at(now), Duration::MINUTE, async || answer).await.ok().map(|value| *value)
        };
        let fault = || Err(ProviderFault::Malformed("answer"));
        assert_eq!(get(0, fault()).await, None);
        assert_eq!(get(4, Ok(1)).await, None, "left alone");
        assert_eq!(get(5, Ok(1)).await, Some(1));
        assert_eq!(get(64, Ok(2)).await, Some(1), "remembered");
        assert_eq!(get(65, Ok(3)).await, Some(3));
        assert_eq!(get(64, Ok(4)).await, Some(4), "a clock that went back makes nothing young");
    }

    #[test]
    fn an_issuer_goes_by_its_own_name() {
        use ProviderKind::{Microsoft, Oidc};
        let entra = "https://login.example/common/v2.0";
        for (kind, issuer, told, is_own) in [
            (Oidc, "https://a.example", "https://a.example", true),
            (Oidc, "https://a.example", "https://a.example/", false),
            (Oidc, "https://a.example", "https://b.example", false),
            (Microsoft, entra, "https://login.example/{tenantid}/v2.0", true),
            (Microsoft, entra, "https://login.example/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", true),
            (Microsoft, entra, "https://login.example.evil/{tenantid}/v2.0", false),
            (Microsoft, entra, "https://evil.example/{tenantid}/v2.0", false),
        ] {
            assert_eq!(is_own_name(kind, issuer, told), is_own, "{told}");
        }
    }
}
