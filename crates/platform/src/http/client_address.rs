//! Which address a request comes from, and which addresses count as one.
//!
//! `X-Forwarded-For` is a list to which each proxy adds, on the right, whom it was asked by; what stands on the left was
//! written by the client and may be anything. So it is believed only from the right, and only as far as the proxies
//! that the operator named reach.

use axum::extract::{ConnectInfo, Request};
use http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The prefix of IPv6 that one customer of an access provider has for himself, with 2^64 addresses in it.
const IPV6_CUSTOMER_PREFIX: u8 = 64;
/// The prefix of IPv6 that a site or whoever rents a server is given on request, with 65,536 such customers in it.
const IPV6_NETWORK_PREFIX: u8 = 48;
/// The smallest part of IPv4 that is routed by itself, and so the most that can be had without being a provider.
const IPV4_NETWORK_PREFIX: u8 = 24;

/// The client's address, in a request's extensions. Put there by [`identify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// What counts as one address: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressBucket(IpAddr);

impl AddressBucket {
    /// The bucket of an address. Requests whose address is unknown share one.
    pub fn of(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V6(address)) => {
                let customer =
                    Ipv6Net::new(address, IPV6_CUSTOMER_PREFIX).map_or(address, |net| net.network());
                Self(IpAddr::V6(customer))
            }
            Some(address @ IpAddr::V4(_)) => Self(address),
            None => Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        }
    }

    /// The network that it is part of.
    pub fn network(self) -> NetworkBucket {
        NetworkBucket(match self.0 {
            IpAddr::V4(address) => {
                IpAddr::V4(Ipv4Net::new(address, IPV4_NETWORK_PREFIX).map_or(address, |net| net.network()))
            }
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Net::new(address, IPV6_NETWORK_PREFIX).map_or(address, |net| net.network()))
            }
        })
    }
}

impl fmt::Display for AddressBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What counts as one network, of addresses that one party can have all of: the /24 of an IPv4 address, or the /48 of
/// an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetworkBucket(IpAddr);

impl fmt::Display for NetworkBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whom to believe where a request comes from.
#[derive(Debug)]
pub(super) struct TrustedProxies {
    networks: Box<[IpNet]>,
    /// Whether the log names a proxy that they lack.
    is_one_missed: AtomicBool,
}

impl TrustedProxies {
    pub(super) fn new(networks: &[IpNet]) -> Self {
        Self { networks: networks.into(), is_one_missed: AtomicBool::new(false) }
    }

    fn contain(&self, address: &IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    /// Whether `peer` looks like a proxy that the operator forgot, for the first time: it says for whom it asks, and no
    /// client out on the internet has an address of that kind.
    fn miss(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let peer = peer.to_canonical();
        headers.contains_key(&FORWARDED_FOR)
            && is_private(peer)
            && !self.contain(&peer)
            && !self.is_one_missed.swap(true, Ordering::Relaxed)
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unique_local() || address.is_loopback() || address.is_unicast_link_local()
        }
    }
}

/// Whether a request comes from one of the proxies, whoever it asks for.
pub(super) fn is_from_proxy(request: &Request, trusted: &TrustedProxies) -> bool {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.is_some_and(|ConnectInfo(peer)| trusted.contain(&peer.ip().to_canonical()))
}

/// Puts the client's address where extractors and limits find it.
pub(super) fn identify(request: &mut Request, trusted: &TrustedProxies) {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    if let Some(peer) = peer {
        if trusted.miss(peer, request.headers()) {
            tracing::warn!(
                %peer,
                "a request from a private address names another client (X-Forwarded-For): if that is a proxy, its \
                 clients share one limit and one address until TRUSTED_PROXIES names its network"
            );
        }
        let address = client_address(peer, request.headers(), trusted);
        request.extensions_mut().insert(ClientAddress(address));
    }
}

/// The address of the client behind `peer`: the first one from the right that is no trusted proxy. An entry that is no
/// address ends the walk: what is left of it can't be told from an invention.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    let mut client = peer.to_canonical();
    if !trusted.contain(&client) {
        return client;
    }
    // A value that is no text becomes an empty entry, which is no address either.
    let values: Vec<_> =
        headers.get_all(&FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    for entry in values.iter().rev().flat_map(|value| value.rsplit(',')) {
        let Some(address) = parse(entry.trim()) else {
            return client;
        };
        client = address;
        if !trusted.contain(&client) {
            return client;
        }
    }
    client
}

/// An address as proxies write it: bare, with a port, in brackets.
fn parse(entry: &str) -> Option<IpAddr> {
    let bracketed = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bracketed {
        Some(inner) => IpAddr::V6(inner.parse().ok()?),
        None => entry
            .parse::<IpAddr>()
            .or_else(|_| entry.parse::<SocketAddr>().map(|with_port| with_port.ip()))
            .ok()?,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trusted() -> TrustedProxies {
        TrustedProxies::new(&["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()))
    }

    fn client(peer: &str, forwarded: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(&FORWARDED_FOR, http::HeaderValue::from_bytes(value).unwrap());
        }
        client_address(peer.parse().unwrap(), &headers, &trusted()).to_string()
    }

    #[test]
    fn a_peer_that_is_no_trusted_proxy_is_the_client_whatever_it_says() {
        assert_eq!(client("203.0.113.7", &[b"198.51.100.1"]), "203.0.113.7");
        assert_eq!(client("2001:db8::7", &[b"10.0.0.1, 198.51.100.1"]), "2001:db8::7");
        assert_eq!(client("::ffff:203.0.113.7", &[b"198.51.100.1"]), "203.0.113.7");
    }

    #[test]
    fn the_first_address_from_the_right_that_is_no_proxy_is_the_client() {
        assert_eq!(client("10.0.0.1", &[b"198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &[b"1.2.3.4, 198.51.100.1, 10.9.9.9"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &[b"1.2.3.4", b"198.51.100.1", b"10.9.9.9,fd00::1"]), "198.51.100.1");
        assert_eq!(client("::ffff:10.0.0.1", &[b"198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &[b"10.0.0.3, 10.0.0.2"]), "10.0.0.3", "all are proxies");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_spellings() {
        for (entry, address) in [
            (&b"198.51.100.1:8080"[..], "198.51.100.1"),
            (b"[2001:db8::1]:8080", "2001:db8::1"),
            (b"[2001:db8::1]", "2001:db8::1"),
            (b" 2001:DB8:0::1 ", "2001:db8::1"),
            (b"::ffff:198.51.100.1", "198.51.100.1"),
            (b"[::ffff:198.51.100.1]:1", "198.51.100.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[entry]), address);
        }
    }

    #[test]
    fn a_malformed_entry_ends_the_walk_at_the_last_good_one() {
        for entry in [
            &b"unknown"[..],
            b"_hidden",
            b"",
            b"198.51.100.1 198.51.100.2",
            b"198.51.100.256",
            b"0x7f.1",
            b"198.51.100.1:x",
            b"[198.51.100.1]",
            b"fe80::1%eth0",
            b"\xff",
        ] {
            let values = [b"1.2.3.4,", entry, b",10.0.0.2"].concat();
            assert_eq!(
                client("10.0.0.1", &[&values]),
                if entry == b"\xff" { "10.0.0.1" } else { "10.0.0.2" }
            );
            assert_eq!(client("10.0.0.1", &[b"1.2.3.4", entry, b"10.0.0.2"]), "10.0.0.2");
        }
    }

    #[test]
    fn a_proxy_that_is_not_trusted_is_noticed_once_and_no_client_is_taken_for_one() {
        let forwarded = HeaderMap::from_iter([(FORWARDED_FOR.clone(), "198.51.100.1".parse().unwrap())]);
        let silent = HeaderMap::new();
        let misses =
            |trusted: &TrustedProxies, peer: &str, headers| trusted.miss(peer.parse().unwrap(), headers);
        for peer in ["192.168.0.7", "172.17.0.1", "127.0.0.1", "::1", "fc00::7", "::ffff:192.168.0.7"] {
            let trusted = trusted();
            assert!(!misses(&trusted, peer, &silent), "{peer} says nothing");
            assert!(misses(&trusted, peer, &forwarded), "{peer}");
            assert!(!misses(&trusted, peer, &forwarded), "{peer} again");
        }
        for peer in ["203.0.113.7", "2001:db8::7", "10.0.0.1", "fd00::1"] {
            assert!(!misses(&trusted(), peer, &forwarded), "{peer}");
        }
    }

    #[test]
    fn the_neighbours_of_an_ipv6_site_are_one_bucket() {
        let bucket = |text: &str| AddressBucket::of(Some(text.parse().unwrap()));
        assert_eq!(bucket("2001:db8::1"), bucket("2001:db8::ffff:1:2:3"));
        assert_eq!(bucket("2001:db8::1").to_string(), "2001:db8::");
        assert_ne!(bucket("2001:db8::1"), bucket("2001:db8:0:1::1"));
        assert_ne!(bucket("198.51.100.1"), bucket("198.51.100.2"));
        assert_eq!(bucket("::ffff:198.51.100.1"), bucket("198.51.100.1"));
    }

    #[test]
    fn what_one_party_can_have_all_of_is_one_network() {
        let network = |text: &str| AddressBucket::of(Some(text.parse().unwrap())).network();
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:ffff::1"));
        assert_eq!(network("2001:db8:7:1::1").to_string(), "2001:db8:7::");
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:1:1::1"));
        assert_eq!(network("198.51.100.1"), network("::ffff:198.51.100.255"));
        assert_eq!(network("198.51.100.1").to_string(), "198.51.100.0");
        assert_ne!(network("198.51.100.1"), network("198.51.101.1"));
    }

    /// What a client may write: addresses, of proxies too, and whatever else a header line can hold.
    fn invented() -> impl Strategy<Value = String> {
        let entry = prop_oneof![
            any::<IpAddr>().prop_map(|address| address.to_string()),
            any::<SocketAddr>().prop_map(|address| address.to_string()),
            Just("10.0.0.9".to_owned()),
            Just("[fd00::9]:1".to_owned()),
            "[ -~]{0,20}",
        ];
        proptest::collection::vec(entry, 0..6).prop_map(|entries| entries.join(","))
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_writes_changes_whom_the_proxies_saw(
            invented in invented(), seen: IpAddr, proxies in 0_usize..4, in_one_line: bool,
        ) {
            let seen = seen.to_canonical();
            prop_assume!(!trusted().contain(&seen));
            let mut lines = vec![invented, seen.to_string()];
            lines.extend((0..proxies).map(|number| format!("10.0.0.{number}")));
            if in_one_line {
                lines = vec![lines.join(", ")];
            }
            let lines: Vec<_> = lines.iter().map(String::as_bytes).collect();
            prop_assert_eq!(client("10.1.1.1", &lines), seen.to_string());
        }

        #[test]
        fn the_client_is_the_peer_or_was_named(invented in invented(), peer: IpAddr) {
            let found = client(&peer.to_string(), &[invented.as_bytes()]);
            let is_named = invented.split(',').filter_map(|entry| parse(entry.trim())).any(|named| named.to_string() == found);
            prop_assert!(found == peer.to_canonical().to_string() || (is_named && trusted().contain(&peer.to_canonical())));
        }

        #[test]
        fn an_address_has_one_bucket_in_every_spelling(address: IpAddr, port: u16) {
            for spelling in [address.to_string(), SocketAddr::new(address, port).to_string()] {
                let read = parse(&spelling);
                prop_assert_eq!(read, Some(address.to_canonical()));
                prop_assert_eq!(AddressBucket::of(read), AddressBucket::of(Some(address)));
            }
        }
    }
}
