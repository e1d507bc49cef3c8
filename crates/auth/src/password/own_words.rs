//! Passwords that say where they are used or by whom: what an attacker tries second.

use super::model::folded;

/// Characters that may be left of a password without the words that are known, at most: a year, a number, an exclamation mark.
const LEFT: usize = 4;
/// Shorter words stand in too much by chance.
const SHORTEST: usize = 3;

/// Whether a password is little more than some of the words, in whatever case and with whatever signs between.
pub(super) fn is_made_of(password: &str, words: &[String]) -> bool {
    let mut rest = plain(password);
    let whole = rest.chars().count();
    let mut words: Vec<_> =
        words.iter().map(|word| plain(word)).filter(|word| word.chars().count() >= SHORTEST).collect();
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    for word in words {
        rest = rest.replace(&word, "");
    }
    let left = rest.chars().count();
    left < whole && left <= LEFT
}

/// An address, and its parts.
pub(super) fn words_of_address(address: &str) -> Vec<String> {
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    // The last label is no name.
    let labels = domain.rsplit('.').skip(1);
    let parts = local.split(|letter: char| !letter.is_alphanumeric());
    [address, local, domain].into_iter().chain(parts).chain(labels).map(str::to_owned).collect()
}

fn plain(text: &str) -> String {
    folded(text).chars().filter(|letter| letter.is_alphanumeric()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_product(password: &str) -> bool {
        is_made_of(password, &["mana".to_owned(), "manacore".to_owned()])
    }

    fn is_address(password: &str) -> bool {
        is_made_of(password, &words_of_address("ada.lovelace@analytical-engine.example"))
    }

    #[test]
    fn product_names_with_a_little_around_them_are_found() {
        for found in [
            "manacore",
            "ManaCore1!",
            "mana-core",
            "M a n a 2026",
            "manamana",
            "!!mana!!2026",
            "manacore2026",
        ] {
            assert!(is_product(found), "{found}");
        }
        for other in
            ["manage the salamander", "correct horse battery", "manatee-orchard", "!!!!!!!!", "20262026"]
        {
            assert!(!is_product(other), "{other}");
        }
    }

    #[test]
    fn the_address_and_its_parts_are_found() {
        for found in [
            "ada.lovelace@analytical-engine.example",
            "AdaLovelace",
            "lovelace1",
            "lovelace-ada",
            "analytical-engine",
            "AnalyticalEngine99",
            "ada lovelace 1815",
        ] {
            assert!(is_address(found), "{found}");
        }
        for other in ["adaptive orchards", "an engine of its own", "correct horse battery"] {
            assert!(!is_address(other), "{other}");
        }
        assert!(!is_made_of("jo is here now", &words_of_address("jo@x.de")), "two letters are no name");
    }
}
