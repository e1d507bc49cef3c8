//! The filter of the commonest passwords (`crates/auth/data/README.md`): five bytes of the SHA-1 of each, sorted.

use crate::{ChoreError, root};
use aws_lc_rs::digest;
use clap::Args;
use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use unicode_normalization::UnicodeNormalization as _;

/// What to make it of.
#[derive(Debug, Args)]
pub(crate) struct Lists {
    /// Lists of passwords, one a line, the commonest first; what stands in an earlier list comes before what stands in a later one
    #[arg(required = true)]
    lists: Vec<PathBuf>,
    /// How many to take
    #[arg(long, default_value_t = 100_000)]
    take: usize,
}

/// Shorter ones are refused for their length.
const SHORTEST: usize = 8;
/// Bytes that are kept of each hash: of passwords that are in no list, one in eleven million is refused all the same.
const KEPT: usize = 5;

/// Writes the filter.
pub(crate) fn run(Lists { lists, take }: &Lists) -> Result<String, ChoreError> {
    let mut seen = HashSet::new();
    let mut filter = BTreeSet::new();
    for path in lists {
        let text = std::fs::read(path).map_err(|error| ChoreError::File(path.clone(), error))?;
        // Lists out of breaches hold lines that are no text.
        for line in String::from_utf8_lossy(&text).lines().filter(|line| !line.contains('\u{fffd}')) {
            let folded: String = line.nfc().collect::<String>().to_lowercase().nfc().collect();
            if seen.len() < *take && folded.chars().count() >= SHORTEST && seen.insert(folded.clone()) {
                let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, folded.as_bytes());
                filter.extend(hash.as_ref().first_chunk::<KEPT>().copied());
            }
        }
    }
    let path = root().join("crates/auth/data/common_passwords.bin");
    std::fs::write(&path, filter.iter().flatten().copied().collect::<Vec<u8>>())
        .map_err(|error| ChoreError::File(path, error))?;
    Ok(format!("common-passwords: {} entries", filter.len()))
}
