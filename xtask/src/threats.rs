//! docs/THREATS.md and docs/ASVS.md name tests: each of them exists, and each story about a threat is named.

use crate::{ChoreError, root};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const DOCUMENTS: [&str; 2] = [THREATS, "docs/ASVS.md"];

const THREATS: &str = "docs/THREATS.md";

/// Where the stories are that have to be named.
const STORIES: &str = "stories/threats";

/// A test, as the document names it: `stories/limits::retry_after_is_exact`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct NamedTest {
    place: String,
    name: String,
}

/// What is wrong with the documents, line by line.
pub(crate) fn breaches() -> Result<Vec<String>, ChoreError> {
    let mut found = Vec::new();
    for document in DOCUMENTS {
        let named = tests_in(document)?;
        if named.is_empty() {
            found.push(format!("{document} names no test"));
        }
        for NamedTest { place, name } in named {
            let is_there = read(&file_of(&place)).is_ok_and(|text| tests_of(&text).contains(&name.as_str()));
            if !is_there {
                found.push(format!("{document} names {place}::{name}, which is no test"));
            }
        }
    }
    let named = tests_in(THREATS)?;
    for path in crate::tidy::sources(&tests().join(STORIES))? {
        let place = path.strip_prefix(tests()).unwrap_or(&path).with_extension("").display().to_string();
        for name in tests_of(&read(&path)?) {
            if !named.contains(&NamedTest { place: place.clone(), name: name.to_owned() }) {
                found.push(format!("{THREATS} does not name {place}::{name}"));
            }
        }
    }
    Ok(found)
}

fn tests_in(document: &str) -> Result<BTreeSet<NamedTest>, ChoreError> {
    Ok(named_tests(&read(&root().join(document))?).into_iter().collect())
}

fn tests() -> PathBuf {
    root().join("crates/server/tests")
}

fn file_of(place: &str) -> PathBuf {
    let is_of_server = ["stories/", "binary/", "peers/"].iter().any(|folder| place.starts_with(folder));
    let base = if is_of_server { tests() } else { root().join("crates") };
    base.join(format!("{place}.rs"))
}

fn read(path: &Path) -> Result<String, ChoreError> {
    std::fs::read_to_string(path).map_err(|error| ChoreError::File(path.to_owned(), error))
}

/// Every piece of code in the text that names a test.
fn named_tests(text: &str) -> Vec<NamedTest> {
    // Between backticks is every second piece of a line.
    let pieces = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let names = pieces.filter_map(|piece| piece.split_once("::"));
    names.map(|(place, name)| NamedTest { place: place.to_owned(), name: name.to_owned() }).collect()
}

/// The functions of a source that are tests, those of `proptest!` too.
fn tests_of(source: &str) -> Vec<&str> {
    let mut is_test = false;
    let mut found = Vec::new();
    for line in source.lines().map(str::trim_start) {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((name, _)) = function.and_then(|line| line.split_once('('))
            && std::mem::take(&mut is_test)
        {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_named_by_its_file_and_name() {
        let tests = named_tests("| `cargo x` | `stories/a::b`, `kernel/src/c::d` |\n`e`\n");
        let names: Vec<_> = tests.iter().map(|test| (test.place.as_str(), test.name.as_str())).collect();
        assert_eq!(names, [("stories/a", "b"), ("kernel/src/c", "d")]);
        assert!(file_of("stories/a").ends_with("crates/server/tests/stories/a.rs"));
        assert!(file_of("kernel/src/c").ends_with("crates/kernel/src/c.rs"));
    }

    #[test]
    fn tests_are_told_from_other_functions() {
        let source = "fn a() {}\n#[tokio::test]\nasync fn b() {}\nfn c() {}\n  #[test]\n  #[expect(x)]\n  fn d(text in \"x\") {}";
        assert_eq!(tests_of(source), ["b", "d"]);
    }

    #[test]
    fn every_test_that_the_documents_name_exists() {
        assert_eq!(breaches().unwrap(), Vec::<String>::new());
    }
}
