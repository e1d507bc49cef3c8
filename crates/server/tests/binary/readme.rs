//! The README's walk does what it says.

use crate::process::Home;
use std::path::Path;
use std::process::Command;

/// The fenced block after a marker line.
fn block(readme: &str, marker: &str) -> String {
    let mut lines = readme
        .lines()
        .skip_while(|line| line.trim() != marker)
        .skip(1)
        .skip_while(|line| line.trim().is_empty());
    let opening = lines.next().unwrap_or_else(|| panic!("README.md has no line {marker}"));
    assert!(opening.starts_with("```"), "no fenced block follows {marker}: {opening}");
    let inside: Vec<_> = lines.take_while(|line| !line.starts_with("```")).collect();
    assert!(!inside.is_empty(), "the block after {marker} is empty");
    inside.join("\n")
}

/// Puts a word in place of what differs from run to run: ids, times and tokens.
fn masked(text: &str) -> String {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "-_.:+".contains(character);
    let lines = text.trim_end().lines().map(str::trim_end);
    lines
        .map(|line| {
            let parts = line.split_inclusive(|character| !is_part(character)).map(|piece| {
                let word = piece.trim_end_matches(|character| !is_part(character));
                format!("{}{}", mask(word).unwrap_or(word), &piece[word.len()..])
            });
            parts.collect::<String>()
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn mask(word: &str) -> Option<&'static str> {
    let shape: String = word
        .chars()
        .map(|character| match character {
            '0'..='9' => '0',
            'a'..='f' => 'x',
            other => other,
        })
        .collect();
    let groups: Vec<_> = shape
        .split('-')
        .map(|group| (group.len(), group.chars().all(|digit| "0x".contains(digit))))
        .collect();
    let is_token = word.len() >= 40 && word.chars().any(|character| character.is_ascii_uppercase());
    if groups == [(8, true), (4, true), (4, true), (4, true), (12, true)] {
        Some("<id>")
    } else if shape.starts_with("0000-00-00T00:00:00") {
        Some("<time>")
    } else if is_token {
        Some("<token>")
    } else {
        None
    }
}

#[test]
fn masking_hides_what_differs_and_nothing_else() {
    let line = r#"{"id":"01a20929-f573-74a7-9d45-ebe096f09e30","at":"2026-11-23T16:07:54.485Z","t":"eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.e30.QQ","amount":-10}"#;
    let hidden = r#"{"id":"<id>","at":"<time>","t":"<token>","amount":-10}"#;
    assert_eq!(masked(line), hidden);
    assert_eq!(masked(&format!("{hidden}\n")), hidden, "a page may mask for itself");
}

#[test]
fn the_walk_of_the_readme_prints_what_the_readme_shows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(path).expect("README.md stands at the root of the repository");
    let (walk, shown) = (block(&readme, "<!-- walk -->"), block(&readme, "<!-- walk output -->"));
    assert!(walk.contains("http://localhost:3001"), "the walk names the default address: {walk}");

    let home = Home::new();
    let server = home.dev().start();
    let here =
        |text: &str| text.replace("http://localhost:3001", &format!("http://localhost:{}", server.port));
    let walked = Command::new("bash").args(["-euo", "pipefail", "-c", &here(&walk)]).output().unwrap();
    assert!(walked.status.success(), "{walked:?}");
    let printed = String::from_utf8(walked.stdout).unwrap();
    assert_eq!(masked(&printed), masked(&here(&shown)));
}
