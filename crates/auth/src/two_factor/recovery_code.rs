//! Codes on paper: for who has lost the phone.

use mana_kernel::Rng;
use mana_kernel::UserId;
use mana_kernel::secret::sha256;

/// How many a person gets.
pub(super) const COUNT: usize = 10;

/// Crockford's base 32: no letter that is taken for another.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 120 bits: nobody finds one by trying hashes of a leaked table.
const LENGTH: usize = 24;
/// Codes of 80 bits, as they were made before. They are good until they are used or replaced.
const OLDER_LENGTH: usize = 16;
const GROUP: usize = 4;

/// A code that opens an account once in place of its second factor.
pub(crate) struct RecoveryCode(String);

impl RecoveryCode {
    /// A new one.
    pub(super) fn generate(rng: &dyn Rng) -> Self {
        let mut bytes = [0; LENGTH];
        rng.fill(&mut bytes);
        // 256 is a multiple of 32: every letter is as likely.
        let letters = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte % 32)));
        Self(letters.map(|letter| char::from(*letter)).collect())
    }

    /// As a person types it: in any case, with or without dashes and spaces, and with the letters that look like others.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > 64 {
            return None;
        }
        let letters = text.chars().filter(|letter| !matches!(letter, '-' | ' '));
        let code: String = letters
            .map(|letter| match letter.to_ascii_lowercase() {
                'o' => '0',
                'i' | 'l' => '1',
                other => other,
            })
            .collect();
        let is_code =
            [LENGTH, OLDER_LENGTH].contains(&code.len()) && code.bytes().all(|byte| ALPHABET.contains(&byte));
        is_code.then_some(Self(code))
    }

    /// A code of the older service: ten letters and digits in two groups, of either case. 59 bits: less than a new one has, and more
    /// than anybody guesses.
    pub(crate) fn parse_older(text: &str) -> Option<Self> {
        let (first, second) = text.trim().split_once('-')?;
        let is_group =
            |group: &str| group.len() == 5 && group.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (is_group(first) && is_group(second)).then(|| Self(format!("{first}-{second}")))
    }

    /// For the one answer that hands it to its owner.
    pub(super) fn expose(&self) -> String {
        let letters: Vec<char> = self.0.chars().collect();
        letters.chunks(GROUP).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-")
    }

    /// What is stored of it: bound to its user, so that equal codes of two look different.
    pub(crate) fn hash(&self, user: &UserId) -> [u8; 32] {
        sha256(format!("{}\n{}", user.as_str(), self.0).as_bytes())
    }
}

impl std::fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryCode([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::SystemRng;
    use proptest::prelude::*;

    #[test]
    fn a_code_reads_back_however_it_is_typed() {
        let user = "u".parse().unwrap();
        let code = RecoveryCode::generate(&SystemRng);
        let shown = code.expose();
        assert_eq!(shown.len(), LENGTH + 5);
        let typed = [
            shown.clone(),
            shown.to_uppercase(),
            shown.replace('-', " "),
            shown.replace('-', ""),
            shown.replace('0', "O").replace('1', "l"),
        ];
        for text in typed {
            assert_eq!(RecoveryCode::parse(&text).unwrap().hash(&user), code.hash(&user), "{text}");
        }
        assert_ne!(code.hash(&user), code.hash(&"v".parse().unwrap()));
        assert_eq!(format!("{code:?}"), "RecoveryCode([redacted])");
    }

    #[test]
    fn an_older_code_reads_as_it_was_stored() {
        let user = "u".parse().unwrap();
        let code = RecoveryCode::parse("0123-4567-89AB-cdef").unwrap();
        assert_eq!(code.hash(&user), sha256(b"u\n0123456789abcdef"));
        for other in ["0123-4567-89ab-cde", "0123-4567-89ab-cdef-g", "0123-4567-89ab-cdef-ghjk"] {
            assert!(RecoveryCode::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn an_older_code_is_taken_as_it_is_written() {
        let user = "u".parse().unwrap();
        let hash = |text: &str| RecoveryCode::parse_older(text).map(|code| code.hash(&user));
        assert!(hash("aB3dE-9xYz0").is_some());
        assert_ne!(hash("aB3dE-9xYz0"), hash("ab3de-9xyz0"));
        for bad in ["", "aB3dE9xYz0", "aB3dE-9xYz", "aB3dE-9xYz0-", "aB3d\u{e9}-9xYz0"] {
            assert!(hash(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_code_or_none(text in "\\PC{0,80}") {
            if let Some(code) = RecoveryCode::parse(&text) {
                prop_assert_eq!(RecoveryCode::parse(&code.expose()).unwrap().0, code.0);
            }
        }
    }
}
