//! Files that are written from the code, so that they can't say anything else than it.

use crate::{ChoreError, queries, root};
use std::collections::BTreeMap;
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

fn put_in_place(page: &str, table: &str) -> Result<String, ChoreError> {
    let (before, rest) = page.split_once(PLACE.0).ok_or(ChoreError::NoPlace)?;
    let (_, after) = rest.split_once(PLACE.1).ok_or(ChoreError::NoPlace)?;
    Ok(format!("{before}{}{table}{}{after}", PLACE.0, PLACE.1))
}
