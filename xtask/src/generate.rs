//! Files that are written from the code, so that they can't say anything else than it.

use crate::{ChoreError, queries, root};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// In docs/OPERATIONS.md only what stands between these is generated; people write the rest.
const PLACE: (&str, &str) = ("<!-- settings -->\n", "<!-- /settings -->");

/// Writes all generated files, or checks that they are as they would be written.
pub(crate) fn run(check: bool) -> Result<String, ChoreError> {
    // First, because without it the code that prints the documents does not build.
    let mut stale = queries::run(check)?;
    for (name, generated) in documents()? {
        let path = root().join(&name);
        let current = std::fs::read_to_string(&path).unwrap_or_default();
        let wanted =
            if name == "docs/OPERATIONS.md" { put_in_place(&current, &generated)? } else { generated };
        if current == wanted {
            continue;
        }
        if name == "docs/ERRORS.md" {
            keep_promises(&current, &wanted)?;
        }
        if check {
            stale.push(name);
        } else {
            std::fs::write(&path, wanted).map_err(|error| ChoreError::File(path, error))?;
        }
    }
    if stale.is_empty() {
        Ok("generated files are up to date".to_owned())
    } else {
        Err(ChoreError::Stale(stale.join(", ")))
    }
}

/// What the code says of itself. Run, not linked: this program must build also while the queries are out of date.
fn documents() -> Result<BTreeMap<String, String>, ChoreError> {
    let printed = Command::new("cargo")
        .args(["run", "--quiet", "--package", "mana-core-auth", "--example", "documents"])
        .current_dir(root())
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !printed.status.success() {
        return Err(ChoreError::Build);
    }
    Ok(serde_json::from_slice(&printed.stdout)?)
}

/// Each heading is an error code that clients may rely on. Whoever means to take one back deletes it by hand first.
fn keep_promises(current: &str, wanted: &str) -> Result<(), ChoreError> {
    let headings = |page: &str| -> BTreeSet<String> {
        page.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect()
    };
    let (promised, kept) = (headings(current), headings(wanted));
    let broken: Vec<_> = promised.difference(&kept).cloned().collect();
    if broken.is_empty() { Ok(()) } else { Err(ChoreError::Promise(broken.join(", "))) }
}

fn put_in_place(page: &str, table: &str) -> Result<String, ChoreError> {
    let (before, rest) = page.split_once(PLACE.0).ok_or(ChoreError::NoPlace)?;
    let (_, after) = rest.split_once(PLACE.1).ok_or(ChoreError::NoPlace)?;
    Ok(format!("{before}{}{table}{}{after}", PLACE.0, PLACE.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_clients_may_rely_on_does_not_vanish_by_writing_the_page_anew() {
        let (two, one) = ("# Errors\n## a.one\ntext\n## a.two\n", "# Errors\n## a.two\n");
        assert!(keep_promises(one, two).is_ok());
        let broken = keep_promises(two, one).unwrap_err();
        assert!(broken.to_string().contains("a.one"), "{broken}");
    }
}
