//! Requests to servers of others whose addresses the service did not choose itself: in bounded time, of bounded size, and to the
//! public internet only.
//!
//! A name is resolved here, once for each connection, and what it resolves to is checked before that very address is connected to: a
//! name that leads elsewhere at the second look leads nowhere. Redirects are not followed, proxies of the environment are not used, and
//! nothing is decompressed.

use crate::telemetry::spans;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret as _, SecretString};
use std::error::Error as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::Instrument as _;
use url::{Host, Url};

/// Bytes of an answer at most.
const MAX_ANSWER: usize = 256 * 1024;
/// Requests under way at most, so that servers that hang hold up nothing but each other.
const MAX_IN_FLIGHT: usize = 64;

/// A client for servers of others.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: reqwest::Client,
    reach: Arc<Reach>,
    in_flight: Arc<Semaphore>,
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: http::StatusCode,
    /// Its body.
    pub body: Vec<u8>,
}

/// How a request is authorised.
#[derive(Debug, Clone, Copy)]
pub enum Credentials<'a> {
    /// By nothing in a header.
    None,
    /// By name and password (RFC 7617).
    Basic(&'a str, &'a SecretString),
    /// By a token (RFC 6750).
    Bearer(&'a SecretString),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// Not https, or to where nothing may be sent.
    #[error("the address is not one of the public internet over https")]
    OutOfReach,
    /// Too many others are under way.
    #[error("too many requests to others are under way")]
    Busy,
    /// The answer does not end where it should.
    #[error("the answer is over {MAX_ANSWER} bytes")]
    TooLarge,
    /// No connection, no answer, not in time, or a broken one.
    #[error("the request failed")]
    Failed(#[source] reqwest::Error),
    /// TLS can't be set up.
    #[error("TLS can't be set up")]
    Tls(#[source] rustls::Error),
}

/// What every client of the service begins with: TLS by aws-lc-rs with Mozilla's roots, no redirect followed, and no proxy of the
/// environment used.
///
/// # Errors
/// When TLS can't be set up.
pub fn client_builder() -> Result<reqwest::ClientBuilder, rustls::Error> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
    Ok(builder.redirect(reqwest::redirect::Policy::none()).no_proxy())
}

impl Outbound {
    /// A client that reaches the public internet and `private_networks`, and waits no longer than `patience` from the first byte that is
    /// sent to the last that is read.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(private_networks: &[IpNet], patience: Duration) -> Result<Self, OutboundError> {
        let reach = Arc::new(Reach { private_networks: private_networks.to_vec() });
        let client = client_builder()
            .map_err(OutboundError::Tls)?
            .dns_resolver(CheckingResolver(Arc::clone(&reach)))
            .referer(false)
            .timeout(patience)
            .pool_max_idle_per_host(2)
            .user_agent("mana-core-auth")
            .build()
            .map_err(OutboundError::Failed)?;
        Ok(Self { client, reach, in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)) })
    }

    /// Whether the URL is one that a request may go to, as far as can be seen before its name is resolved.
    pub fn may_reach(&self, url: &Url) -> bool {
        self.reach.covers(url)
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// At once when the URL is out of reach or too many requests are under way; when its name leads out of reach; when the answer is
    /// too large; and when there is no whole answer in time.
    pub async fn get(&self, url: &Url, credentials: Credentials<'_>) -> Result<Answer, OutboundError> {
        self.send("GET", url, self.client.get(url.clone()), credentials).await
    }

    /// Sends a form and asks for JSON.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post_form(
        &self,
        url: &Url,
        form: &[(&str, &str)],
        credentials: Credentials<'_>,
    ) -> Result<Answer, OutboundError> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self
            .client
            .post(url.clone())
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body);
        self.send("POST", url, request, credentials).await
    }

    /// Sends JSON and says with which status it was answered. Nothing else is read of the answer, however long it is.
    ///
    /// # Errors
    /// At once when the URL is out of reach or too many requests are under way; when its name leads out of reach; and when there is
    /// no answer in time.
    pub async fn post_json(
        &self,
        url: &Url,
        headers: http::HeaderMap,
        body: String,
    ) -> Result<http::StatusCode, OutboundError> {
        let _permit = self.permit(url)?;
        let request = self.client.post(url.clone()).headers(headers).body(body);
        let request = request.header(http::header::CONTENT_TYPE, "application/json");
        let call = spans::call("outbound", Some("POST"), url.host_str().unwrap_or_default());
        let outcome = async {
            let response = request.send().await.map_err(failed)?;
            spans::call_answered(response.status());
            Ok(response.status())
        }
        .instrument(call.clone())
        .await;
        spans::call_ended(&call, &outcome);
        outcome
    }

    /// Leave to send a request there.
    fn permit(&self, url: &Url) -> Result<SemaphorePermit<'_>, OutboundError> {
        if !self.reach.covers(url) {
            return Err(OutboundError::OutOfReach);
        }
        self.in_flight.try_acquire().map_err(|_| OutboundError::Busy)
    }

    async fn send(
        &self,
        method: &str,
        url: &Url,
        request: reqwest::RequestBuilder,
        credentials: Credentials<'_>,
    ) -> Result<Answer, OutboundError> {
        let call = spans::call("outbound", Some(method), url.host_str().unwrap_or_default());
        let outcome = self.exchange(url, request, credentials).instrument(call.clone()).await;
        spans::call_ended(&call, &outcome);
        outcome
    }

    async fn exchange(
        &self,
        url: &Url,
        request: reqwest::RequestBuilder,
        credentials: Credentials<'_>,
    ) -> Result<Answer, OutboundError> {
        let _permit = self.permit(url)?;
        let request = request.header(http::header::ACCEPT, "application/json");
        let request = match credentials {
            Credentials::None => request,
            Credentials::Basic(name, password) => request.basic_auth(name, Some(password.expose_secret())),
            Credentials::Bearer(token) => request.bearer_auth(token.expose_secret()),
        };
        let mut response = request.send().await.map_err(failed)?;
        spans::call_answered(response.status());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len().saturating_add(chunk.len()) > MAX_ANSWER {
                return Err(OutboundError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status: response.status(), body })
    }
}

/// Why a request has no answer. Without the URL, which may carry what is nobody's business.
fn failed(error: reqwest::Error) -> OutboundError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if matches!(inner.downcast_ref(), Some(OutboundError::OutOfReach)) {
            return OutboundError::OutOfReach;
        }
        cause = inner.source();
    }
    OutboundError::Failed(error.without_url())
}

/// Where requests may go.
#[derive(Debug)]
struct Reach {
    private_networks: Vec<IpNet>,
}

impl Reach {
    fn covers(&self, url: &Url) -> bool {
        if !url.username().is_empty() || url.password().is_some() {
            return false;
        }
        let (is_in_reach, is_this_machine) = match url.host() {
            Some(Host::Ipv4(address)) => (self.allows(address.into()), address.is_loopback()),
            Some(Host::Ipv6(address)) => (self.allows(address.into()), address.is_loopback()),
            // Its addresses are looked at when it is resolved.
            Some(Host::Domain(name)) => {
                (true, name == "localhost" && self.allows(Ipv4Addr::LOCALHOST.into()))
            }
            None => (false, false),
        };
        is_in_reach && (url.scheme() == "https" || (url.scheme() == "http" && is_this_machine))
    }

    fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.private_networks.iter().any(|network| network.contains(&address))
    }

    /// Of the addresses of a name, those that may be connected to.
    fn choose(&self, found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, OutboundError> {
        let chosen: Vec<_> = found.filter(|address| self.allows(address.ip())).collect();
        if chosen.is_empty() { Err(OutboundError::OutOfReach) } else { Ok(chosen) }
    }
}

struct CheckingResolver(Arc<Reach>);

impl Resolve for CheckingResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = Arc::clone(&self.0);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Addrs = Box::new(reach.choose(found)?.into_iter());
            Ok(addresses)
        })
    }
}

/// Whether an address is of the public internet (the registries of RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let octets = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || matches!(
            octets,
            [0 | 240..=255, ..]
                | [100, 64..=127, ..]
                | [192, 0, 0, _]
                | [192, 88, 99, _]
                | [198, 18..=19, ..]
        ))
}

/// Global unicast is `2000::/3`; of that, what is for tunnels to older addresses or for documents is left out.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    matches!(segments, [0x2000..=0x3fff, ..])
        && !matches!(segments, [0x2001, 0..=0x01ff | 0xdb8, ..] | [0x2002 | 0x3fff, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(networks: &[&str]) -> Reach {
        Reach { private_networks: networks.iter().map(|network| network.parse().unwrap()).collect() }
    }

    #[tokio::test]
    async fn a_name_that_leads_out_of_reach_is_told_from_a_server_that_does_not_answer() {
        let outbound = Outbound::new(&[], Duration::from_secs(5)).unwrap();
        let inside = outbound.get(&"https://localhost:1/".parse().unwrap(), Credentials::None).await;
        assert!(matches!(inside, Err(OutboundError::OutOfReach)), "{inside:?}");
        let here = Outbound::new(&["127.0.0.0/8".parse().unwrap()], Duration::from_secs(5)).unwrap();
        let silent = here.get(&"https://localhost:1/".parse().unwrap(), Credentials::None).await;
        assert!(matches!(silent, Err(OutboundError::Failed(_))), "{silent:?}");
    }

    #[test]
    fn only_the_public_internet_is_in_reach() {
        let reach = reach(&[]);
        for good in ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(reach.allows(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "127.0.0.1",
            "127.255.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "ff02::1",
        ] {
            assert!(!reach.allows(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn a_url_is_https_and_its_spelling_hides_no_address() {
        let strict = reach(&[]);
        let covers = |reach: &Reach, url: &str| Url::parse(url).is_ok_and(|url| reach.covers(&url));
        assert!(covers(&strict, "https://accounts.google.com/token"));
        for bad in [
            "http://accounts.google.com/token",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://017700000001/",
            "https://[::1]/",
            "https://[::ffff:7f00:1]/",
            "https://169.254.169.254/latest/meta-data",
            "http://localhost:3000/",
            "https://user@accounts.google.com/",
            "file:///etc/passwd",
            "gopher://example.com/",
        ] {
            assert!(!covers(&strict, bad), "{bad}");
        }
        let local = reach(&["127.0.0.0/8"]);
        assert!(covers(&local, "http://127.0.0.1:4000/") && covers(&local, "http://localhost:4000/"));
        assert!(!covers(&local, "http://10.0.0.1/") && !covers(&local, "https://10.0.0.1/"));
        assert!(!covers(&local, "http://example.com/"), "http is for this machine alone");
    }

    #[test]
    fn a_name_leads_to_those_of_its_addresses_that_may_be_reached() {
        let mixed = ["127.0.0.1:0", "8.8.8.8:0", "[fe80::1]:0"].map(|address| address.parse().unwrap());
        assert_eq!(reach(&[]).choose(mixed.into_iter()).unwrap(), ["8.8.8.8:0".parse().unwrap()]);
        let rebound = ["169.254.169.254:0".parse().unwrap()];
        assert!(matches!(reach(&[]).choose(rebound.into_iter()), Err(OutboundError::OutOfReach)));
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_found_out_when_it_is_resolved() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = Url::parse(&format!("https://localhost:{port}/")).unwrap();
        let strict = Outbound::new(&[], Duration::from_secs(5)).unwrap();
        assert!(strict.may_reach(&url), "a name says nothing yet");
        assert!(strict.get(&url, Credentials::None).await.is_err());
        let connection = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(connection.is_err(), "nobody came");
        let local = Outbound::new(&["127.0.0.0/8".parse().unwrap()], Duration::from_secs(5)).unwrap();
        let visit = async { listener.accept().await.map(drop) };
        let (came, answer) = tokio::join!(visit, local.get(&url, Credentials::None));
        assert!(came.is_ok() && answer.is_err(), "the control: somebody comes, and hears no TLS");
    }
}
