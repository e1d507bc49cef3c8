//! Passwords that are known to attackers: the commonest ones, which are compiled in, and those of a file that the operator may
//! name. Kept as the beginnings of SHA-1 hashes, because that is how lists of breached passwords are published.

use super::model::folded;
use aws_lc_rs::digest;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

/// See `data/README.md`.
static COMMONEST: &[u8] = include_bytes!("../../data/common_passwords.bin");
/// Bytes of a hash in it.
const ENTRY: usize = 5;
/// Entries of a file at most: 400 MB of memory.
const MOST_ENTRIES: usize = 50_000_000;
/// Bytes of a line at most.
const LONGEST_LINE: u64 = 1024;

/// The operator's list can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BlocklistError {
    /// Not there, or may not be read.
    #[error("PASSWORD_BLOCKLIST_FILE names {}, which can't be read: {}", .0.display(), .1)]
    Unreadable(PathBuf, io::Error),
    /// Of something else.
    #[error(
        "line {} of {}, which PASSWORD_BLOCKLIST_FILE names, is longer than {LONGEST_LINE} bytes. A line is a password, or the \
         SHA-1 of one in hex with or without :count",
        .1, .0.display()
    )]
    NoList(PathBuf, u64),
    /// More than this process should hold.
    #[error(
        "{}, which PASSWORD_BLOCKLIST_FILE names, has more than {MOST_ENTRIES} lines. Cut it to the commonest, or ask a range \
         service with PASSWORD_RANGE_URL",
        .0.display()
    )]
    TooLong(PathBuf),
}

/// What attackers try first.
#[derive(Default)]
pub struct KnownPasswords {
    /// Eight bytes of each hash, sorted.
    given: Vec<u64>,
}

impl KnownPasswords {
    /// The commonest, and those of the file, if one is named.
    ///
    /// # Errors
    /// When the file can't be read as a list.
    pub fn open(path: Option<&Path>) -> Result<Self, BlocklistError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let unreadable = |error| BlocklistError::Unreadable(path.to_owned(), error);
        let mut input = BufReader::new(File::open(path).map_err(unreadable)?);
        let (mut given, mut line) = (Vec::new(), Vec::new());
        for number in 1_u64.. {
            line.clear();
            let read = input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            let is_whole = line.ends_with(b"\n") || input.fill_buf().map_err(unreadable)?.is_empty();
            if !is_whole {
                return Err(BlocklistError::NoList(path.to_owned(), number));
            }
            if given.len() >= MOST_ENTRIES {
                return Err(BlocklistError::TooLong(path.to_owned()));
            }
            given.extend(entry(line.trim_ascii_end()));
        }
        given.sort_unstable();
        given.dedup();
        Ok(Self { given })
    }

    /// Whether the password is one of them, in whatever case.
    pub(super) fn contain(&self, password: &str) -> bool {
        [password, &folded(password)].iter().any(|spelling| self.contain_hash(&sha1(spelling.as_bytes())))
    }

    fn contain_hash(&self, hash: &[u8; 20]) -> bool {
        let is_commonest = hash
            .first_chunk::<ENTRY>()
            .is_some_and(|start| COMMONEST.as_chunks::<ENTRY>().0.binary_search(start).is_ok());
        is_commonest || self.given.binary_search(&start(hash)).is_ok()
    }
}

impl fmt::Debug for KnownPasswords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownPasswords").field("given", &self.given.len()).finish_non_exhaustive()
    }
}

/// A line of the operator's list: a hash as published lists have it, else a password. Nothing for an empty line.
fn entry(line: &[u8]) -> Option<u64> {
    let (hex, count) = line.split_at_checked(40).unwrap_or((line, b""));
    if hex.len() == 40 && (count.is_empty() || count.starts_with(b":")) {
        let mut hash = [0; 20];
        let digits = str::from_utf8(hex).unwrap_or_default();
        let bytes = hash.iter_mut().enumerate().map(|(place, byte)| {
            let start = place.saturating_mul(2);
            let digits = digits.get(start..start.saturating_add(2))?;
            *byte = digits
                .bytes()
                .all(|digit| digit.is_ascii_hexdigit())
                .then(|| u8::from_str_radix(digits, 16).ok())??;
            Some(())
        });
        if bytes.collect::<Option<()>>().is_some() {
            return Some(start(&hash));
        }
    }
    let password = folded(&String::from_utf8_lossy(line));
    (!password.is_empty()).then(|| start(&sha1(password.as_bytes())))
}

/// SHA-1. Protects nothing here: it is how such lists name passwords.
pub(super) fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut hash = [0; 20];
    hash.copy_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    hash
}

fn start(hash: &[u8; 20]) -> u64 {
    hash.first_chunk().map_or(0, |start| u64::from_be_bytes(*start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::range::hex;
    use mana_kernel::Rng as _;
    use mana_platform::SystemRng;
    use std::io::Write as _;

    fn listed(text: &[u8]) -> Result<KnownPasswords, BlocklistError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        KnownPasswords::open(Some(file.path()))
    }

    #[test]
    fn the_commonest_are_known_in_any_case_and_others_are_not() {
        let known = KnownPasswords::default();
        for common in [
            "password",
            "Password1",
            "PASSWORD",
            "12345678",
            "qwertyuiop",
            "iloveyou1",
            "trustno1",
            "1q2w3e4r5t",
        ] {
            assert!(known.contain(common), "{common}");
        }
        for rare in ["correct horse battery", "kq7w-zz3v-x81m", "🦀🦀🦀🦀🦀🦀🦀🦀", ""] {
            assert!(!known.contain(rare), "{rare}");
        }
    }

    #[test]
    fn the_filter_is_sorted_and_has_a_hundred_thousand_entries() {
        let (entries, rest) = COMMONEST.as_chunks::<ENTRY>();
        assert_eq!((entries.len(), rest.len()), (100_000, 0));
        assert!(entries.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn of_half_a_million_random_passwords_hardly_one_is_taken_for_a_common_one() {
        let known = KnownPasswords::default();
        let mut hash = [0; 20];
        let mistaken = (0..500_000)
            .filter(|_| {
                SystemRng.fill(&mut hash);
                known.contain_hash(&hash)
            })
            .count();
        // 0.05 are to be expected; more than three, in one run of ten million.
        assert!(mistaken <= 3, "{mistaken}");
    }

    #[test]
    fn a_file_has_passwords_or_published_hashes() {
        // The second line is the SHA-1 of `tr0mb0ne-orchard` in capitals, as such lists have it.
        let hash = hex(&sha1(b"tr0mb0ne-orchard"));
        let known = listed(format!("Purple-Walrus\r\n{hash}:17\n\nlast line").as_bytes()).unwrap();
        for password in ["purple-walrus", "PURPLE-walrus", "tr0mb0ne-orchard", "last line", "password"] {
            assert!(known.contain(password), "{password}");
        }
        for other in ["Tr0mb0ne-orchards", "purple-walru", "17"] {
            assert!(!known.contain(other), "{other}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_line() {
        let refused = listed(format!("one\n{}\n", "x".repeat(2000)).as_bytes()).unwrap_err();
        assert!(matches!(refused, BlocklistError::NoList(_, 2)), "{refused}");
        let absent = KnownPasswords::open(Some(Path::new("/nowhere/list"))).unwrap_err();
        assert!(absent.to_string().contains("/nowhere/list"), "{absent}");
    }

    #[test]
    fn bytes_that_are_no_text_end_nothing() {
        assert!(listed(b"\xff\xfe\npurple-walrus\n").unwrap().contain("purple-walrus"));
    }
}
