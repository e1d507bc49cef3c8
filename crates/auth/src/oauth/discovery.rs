//! What an issuer says of itself (OpenID Connect Discovery) and its keys, asked for when needed and remembered for a while.

use super::id_token::{IssuerRule, KeySet};
use super::model::{ProviderFault, ProviderKind};
use mana_kernel::Clock;
use mana_platform::Outbound;
use mana_platform::outbound::Credentials;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, PoisonError, RwLock};
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
        clock: &dyn Clock,
    ) -> Result<Arc<Metadata>, ProviderFault> {
        self.metadata.get(clock, MEMORY, async || fetch_metadata(outbound, kind, issuer).await).await
    }

    /// The issuer's keys.
    pub(super) async fn keys(
        &self,
        outbound: &Outbound,
        metadata: &Metadata,
        clock: &dyn Clock,
    ) -> Result<Arc<KeySet>, ProviderFault> {
        self.keys.get(clock, MEMORY, async || fetch_keys(outbound, metadata).await).await
    }

    /// The same, asked for again if what is remembered is not brand new.
    pub(super) async fn newer_keys(
        &self,
        outbound: &Outbound,
        metadata: &Metadata,
        clock: &dyn Clock,
    ) -> Result<Arc<KeySet>, ProviderFault> {
        self.keys.get(clock, KEY_SET_REST, async || fetch_keys(outbound, metadata).await).await
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

/// One answer, asked for by one request at a time. Whoever finds it young enough waits for nobody.
#[derive(Debug)]
struct Remembered<T> {
    value: RwLock<Option<(Arc<T>, OffsetDateTime)>>,
    /// Held while it is asked for; when that last failed.
    failed_at: Mutex<Option<OffsetDateTime>>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { value: RwLock::new(None), failed_at: Mutex::new(None) }
    }
}

impl<T> Remembered<T> {
    /// The answer, if it is younger than `age`; else what `fetch` gives.
    async fn get(
        &self,
        clock: &dyn Clock,
        age: Duration,
        fetch: impl AsyncFnOnce() -> Result<T, ProviderFault>,
    ) -> Result<Arc<T>, ProviderFault> {
        if let Some(value) = self.recall(clock.now(), age) {
            return Ok(value);
        }
        let mut failed_at = self.failed_at.lock().await;
        // Others may have asked meanwhile.
        let now = clock.now();
        if let Some(value) = self.recall(now, age) {
            return Ok(value);
        }
        if failed_at.is_some_and(|failed_at| is_within(now, failed_at, FAILURE_REST)) {
            return Err(ProviderFault::Resting);
        }
        match fetch().await {
            Ok(value) => {
                let value = Arc::new(value);
                let mut remembered = self.value.write().unwrap_or_else(PoisonError::into_inner);
                // As old as the question: the answer may be as well.
                *remembered = Some((Arc::clone(&value), now));
                drop(remembered);
                *failed_at = None;
                Ok(value)
            }
            Err(fault) => {
                // The rest begins when the failure is known: a failure by time-out would be over with it.
                *failed_at = Some(clock.now());
                Err(fault)
            }
        }
    }

    fn recall(&self, now: OffsetDateTime, age: Duration) -> Option<Arc<T>> {
        let remembered = self.value.read().unwrap_or_else(PoisonError::into_inner);
        let (value, fetched_at) = remembered.as_ref()?;
        is_within(now, *fetched_at, age).then(|| Arc::clone(value))
    }
}

/// Whether `now` is in the time of `age` from `then` on. A clock that went back makes nothing young.
fn is_within(now: OffsetDateTime, then: OffsetDateTime, age: Duration) -> bool {
    (then..then.saturating_add(age)).contains(&now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_testkit::FakeClock;

    fn fault() -> ProviderFault {
        ProviderFault::Malformed("answer")
    }

    #[tokio::test]
    async fn an_answer_is_asked_for_once_and_a_failure_is_not_repeated_at_once() {
        let remembered = Remembered::default();
        let clock = FakeClock::new();
        let begun = clock.now();
        let get = async |seconds, answer: Result<u8, ProviderFault>| {
            clock.advance(begun + Duration::seconds(seconds) - clock.now());
            remembered.get(&clock, Duration::MINUTE, async || answer).await.ok().map(|value| *value)
        };
        assert_eq!(get(0, Err(fault())).await, None);
        assert_eq!(get(4, Ok(1)).await, None, "left alone");
        assert_eq!(get(5, Ok(1)).await, Some(1));
        assert_eq!(get(64, Ok(2)).await, Some(1), "remembered");
        assert_eq!(get(65, Ok(3)).await, Some(3));
        assert_eq!(get(64, Ok(4)).await, Some(4), "a clock that went back makes nothing young");
    }

    #[tokio::test]
    async fn a_failure_rests_from_when_it_is_known_and_nobody_waits_for_it_again() {
        let remembered = Remembered::<u8>::default();
        let clock = FakeClock::new();
        let times_out = async || {
            clock.advance(Duration::seconds(8));
            Err(fault())
        };
        assert!(remembered.get(&clock, Duration::MINUTE, times_out).await.is_err());
        let is_resting = async || {
            let answer = remembered.get(&clock, Duration::MINUTE, async || Ok(1)).await;
            matches!(answer, Err(ProviderFault::Resting))
        };
        clock.advance(Duration::milliseconds(4_999));
        assert!(is_resting().await, "it would be asked again by everybody who came while it hung");
        clock.advance(Duration::milliseconds(1));
        assert!(!is_resting().await, "the control");
    }

    #[tokio::test]
    async fn what_is_young_enough_is_had_while_somebody_asks_for_newer() {
        let remembered = Remembered::default();
        let clock = FakeClock::new();
        remembered.get(&clock, Duration::HOUR, async || Ok(1)).await.ok();
        clock.advance(Duration::MINUTE);
        let hangs = remembered.get(&clock, Duration::MINUTE, async || std::future::pending().await);
        tokio::select! {
            biased;
            _ = hangs => unreachable!("it never answers"),
            got = remembered.get(&clock, Duration::HOUR, async || Ok(2)) => assert_eq!(got.ok().as_deref(), Some(&1)),
        }
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
