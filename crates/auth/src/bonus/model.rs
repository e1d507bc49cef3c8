//! Which addresses are one mailbox, and which are nobody's.

use mana_platform::config::DisposableAddresses;
use std::sync::LazyLock;
use time::Duration;

/// How long bonuses of a network are counted together.
pub(crate) const WINDOW: Duration = Duration::days(1);

/// What an operator may choose.
#[derive(Debug, Clone, Default)]
pub struct BonusPolicy {
    /// The bonus waits until the address is proven.
    pub requires_verification: bool,
    /// Bonuses a day and network of client addresses; without a limit when absent.
    pub per_network: Option<i32>,
    /// What becomes of disposable addresses.
    pub disposable_addresses: DisposableAddresses,
}

/// See `data/README.md`. Sorted.
static DISPOSABLE: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("../../data/disposable_domains.txt").lines().collect());

/// Whether an address in canonical form is one that anybody may read, or that lives for minutes: of a known domain, or of one
/// below it.
pub(crate) fn is_disposable(address: &str) -> bool {
    let (_, domain) = address.rsplit_once('@').unwrap_or_default();
    let parents = domain.match_indices('.').filter_map(|(dot, _)| domain.get(dot.saturating_add(1)..));
    std::iter::once(domain).chain(parents).any(|domain| DISPOSABLE.binary_search(&domain).is_ok())
}

/// The mailbox behind an address in canonical form: what the large providers ignore is left out, and so is a tag behind a
/// plus, which most others ignore too.
pub(super) fn mailbox(address: &str) -> String {
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    let until = |sign: char| local.split(sign).next().filter(|start| !start.is_empty()).unwrap_or(local);
    let without = |signs: &[char]| until('+').replace(signs, "");
    let is_yahoo = domain.starts_with("yahoo.") || matches!(domain, "ymail.com" | "rocketmail.com");
    match domain {
        "gmail.com" | "googlemail.com" => format!("{}@gmail.com", without(&['.'])),
        "proton.me" | "protonmail.com" | "pm.me" => format!("{}@proton.me", without(&['.', '_', '-'])),
        "icloud.com" | "me.com" | "mac.com" => format!("{}@icloud.com", until('+')),
        domain if is_yahoo => format!("{}@{domain}", until('-')),
        domain => format!("{}@{domain}", until('+')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_mailbox_are_one() {
        for (address, of) in [
            ("a.d.a@gmail.com", "ada@gmail.com"),
            ("ada+1@gmail.com", "ada@gmail.com"),
            ("a.da+x.y@googlemail.com", "ada@gmail.com"),
            ("ada+1@example.com", "ada@example.com"),
            ("ada_l-o@protonmail.com", "adalo@proton.me"),
            ("ada+1@me.com", "ada@icloud.com"),
            ("ada-shopping@yahoo.de", "ada@yahoo.de"),
        ] {
            assert_eq!(mailbox(address), of, "{address}");
        }
    }

    #[test]
    fn mailboxes_that_differ_stay_apart() {
        for (one, other) in [
            ("ada@example.com", "a.da@example.com"),
            ("ada-l@example.com", "ada@example.com"),
            ("ada@gmail.com", "ada@gmail.de"),
            ("+1@example.com", "+2@example.com"),
            ("ada@yahoo.de", "ada@yahoo.com"),
        ] {
            assert_ne!(mailbox(one), mailbox(other), "{one}");
        }
    }

    #[test]
    fn known_domains_and_those_below_them_are_disposable() {
        assert!(DISPOSABLE.is_sorted() && DISPOSABLE.len() > 10_000);
        for address in ["ada@mailinator.com", "ada@x.y.mailinator.com", "ada@yopmail.com"] {
            assert!(is_disposable(address), "{address}");
        }
        for address in [
            "ada@example.com",
            "ada@gmail.com",
            "ada@not-mailinator.example",
            "ada@mailinator.com.example.org",
            "ada",
            "",
        ] {
            assert!(!is_disposable(address), "{address}");
        }
    }
}
