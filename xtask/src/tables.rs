//! The law of tables: each is written only by the `store.rs` that says so of itself, and by few others that are named here.

use crate::{ChoreError, root};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What else writes a table, below `crates`, and why. docs/ARCHITECTURE.md tells it, too.
const ALSO_WRITE: [(&str, &[&str]); 6] = [
    // A refresh is one durable write because of it.
    ("auth/src/token/refresh/store.rs", &["auth.sessions"]),
    // In the statement that writes what the answers are about.
    ("credits/src/ledger/store.rs", &["credits.remembered_answers"]),
    // Books that are brought along as they are.
    (
        "credits/src/ledger/moving/store.rs",
        &[
            "credits.balances",
            "credits.grants",
            "credits.holds",
            "credits.transactions",
            "credits.usage_stats",
            "credits.remembered_answers",
        ],
    ),
    ("credits/src/ledger/legacy/store.rs", &["credits.balances"]),
    // Settings of the wallet's owner, which no command changes.
    ("credits/src/ledger/low_balance/store.rs", &["credits.balances"]),
    ("credits/src/auto_top_up/store.rs", &["credits.balances"]),
];

/// Every breach, as a sentence with its place.
pub(crate) fn check(files: &[PathBuf]) -> Result<Vec<String>, ChoreError> {
    let mut breaches = Vec::new();
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let crates = root().join("crates");
    for path in files.iter().filter(|path| path.ends_with("store.rs")) {
        let text = std::fs::read_to_string(path).map_err(|error| ChoreError::File(path.clone(), error))?;
        let place = path.strip_prefix(&crates).unwrap_or(path);
        let (own, others) = (named_in_header(&text), also_written_by(place));
        for table in own.iter().filter(|table| !others.contains(&table.as_str())) {
            if let Some(other) = owners.insert(table.clone(), place.display().to_string()) {
                breaches.push(format!("crates/{}: {table} is also that of crates/{other}", place.display()));
            }
        }
        for table in written_in(&text) {
            if !own.contains(&table) && !others.contains(&table.as_str()) {
                breaches.push(format!(
                    "crates/{}: writes {table}, which its first lines do not name: a table is written by the store.rs of its feature",
                    place.display()
                ));
            }
        }
    }
    Ok(breaches)
}

fn also_written_by(place: &Path) -> &'static [&'static str] {
    ALSO_WRITE.iter().find(|(path, _)| place == Path::new(path)).map_or(&[], |(_, tables)| tables)
}

/// The tables that the first lines of a file name.
fn named_in_header(text: &str) -> BTreeSet<String> {
    let header = text.lines().take_while(|line| line.starts_with("//!"));
    header.flat_map(|line| line.split('`').skip(1).step_by(2)).filter_map(table_of).collect()
}

/// The tables that statements of a file write.
fn written_in(text: &str) -> BTreeSet<String> {
    let words: Vec<&str> =
        text.split(|sign: char| sign.is_whitespace() || sign == '"' || sign == '(').collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let written = words.windows(3).filter_map(|words| match words {
        ["INSERT" | "MERGE", "INTO", table]
        | ["DELETE", "FROM", table]
        | ["UPDATE" | "TRUNCATE" | "COPY", table, _] => table_of(table),
        _ => None,
    });
    written.collect()
}

fn table_of(word: &str) -> Option<String> {
    let name = word.trim_matches(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
    ["auth.", "credits.", "mana."].iter().any(|schema| name.starts_with(schema)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
        names.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn what_a_statement_writes_is_seen_and_what_it_reads_is_not() {
        let text = "sqlx::query!(\"WITH gone AS (DELETE FROM auth.a USING auth.b), put AS (
                INSERT INTO credits.c (x) SELECT 1 ON CONFLICT DO UPDATE SET x = 2)
            UPDATE auth.d SET x = 1 FROM auth.e FOR UPDATE OF e\"); connection.copy_in_raw(\"COPY auth.f FROM STDIN\")";
        assert_eq!(written_in(text), tables(["auth.a", "auth.d", "auth.f", "credits.c"]));
    }

    #[test]
    fn a_store_says_which_tables_are_its_own() {
        let text = "//! All SQL of `auth.a`,\n//! `auth.b` and `Other`.\n\n/// `auth.c`\nfn f() {}";
        assert_eq!(named_in_header(text), tables(["auth.a", "auth.b"]));
    }
}
