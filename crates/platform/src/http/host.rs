//! Where a host belongs.

use url::{Host, Url};

/// Whether a host is the domain or below it. Both in lower case.
pub fn is_within(host: &str, domain: &str) -> bool {
    host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// Names that a browser resolves to this machine without asking anybody (RFC 6761), and its addresses.
pub(crate) fn is_localhost(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(host)) => is_within(host, "localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
