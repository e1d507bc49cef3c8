//! What the actions of ALTER TABLE lock and do, and what they do to the release before.

use super::{BOUND, Lock, NULLED, TAKEN_AWAY, UNFILLED, Work, holds_rows_apart, is_filler};

/// Words in conditions that are no names of columns.
const NO_COLUMNS: &[&str] = &[
    "ALL",
    "AND",
    "ANY",
    "ARRAY",
    "AT",
    "BETWEEN",
    "CASE",
    "CHECK",
    "COLLATE",
    "CURRENT_DATE",
    "CURRENT_TIMESTAMP",
    "DISTINCT",
    "ELSE",
    "END",
    "FALSE",
    "FOREIGN",
    "FROM",
    "ILIKE",
    "IN",
    "INHERIT",
    "INTERVAL",
    "IS",
    "KEY",
    "LIKE",
    "NO",
    "NOT",
    "NULL",
    "OR",
    "PRIMARY",
    "SIMILAR",
    "SOME",
    "SYMMETRIC",
    "THEN",
    "TIME",
    "TO",
    "TRUE",
    "UNIQUE",
    "VALID",
    "WHEN",
    "ZONE",
];

/// Functions that give all rows of a statement the same, so that a column with such a default is added without writing the rows.
const SAME_FOR_ALL_ROWS: [&str; 5] =
    ["NOW", "CURRENT_TIMESTAMP", "TRANSACTION_TIMESTAMP", "STATEMENT_TIMESTAMP", "MAKE_INTERVAL"];

/// What an action does. `is_new` tells of a column whether the same migration adds it: then the release before does not write it.
pub(super) fn effect(action: &[&str], is_new: &dyn Fn(&str) -> bool) -> (Lock, Work, Option<&'static str>) {
    let at_once = |harm| (Lock::All, Work::Catalogue, harm);
    match action {
        ["VALIDATE", "CONSTRAINT", ..] => (Lock::Nothing, Work::Scan, None),
        ["ADD", "CONSTRAINT", _, constraint @ ..] => bind(constraint, is_new),
        ["ADD", "CHECK" | "FOREIGN" | "UNIQUE" | "PRIMARY" | "EXCLUDE", ..] => {
            bind(action.get(1..).unwrap_or_default(), is_new)
        }
        ["ADD", column @ ..] => add(column),
        ["ALTER", "COLUMN", _, change @ ..] | ["ALTER", _, change @ ..] => match change {
            ["TYPE", ..] | ["SET", "DATA", "TYPE", ..] => (Lock::All, Work::Rewrite, None),
            ["SET", "NOT", "NULL"] => (Lock::All, Work::Scan, None),
            ["DROP", "NOT", "NULL"] => at_once(Some(NULLED)),
            ["DROP", "DEFAULT"] => at_once(Some(UNFILLED)),
            ["SET", "DEFAULT" | "STATISTICS" | "STORAGE" | "COMPRESSION" | "(", ..] | ["RESET", ..] => {
                at_once(None)
            }
            _ => (Lock::All, Work::Unknown, None),
        },
        ["SET", "(", ..] | ["RESET", ..] => at_once(None),
        ["SET", "LOGGED" | "UNLOGGED" | "TABLESPACE" | "ACCESS", ..] => (Lock::All, Work::Rewrite, None),
        ["ATTACH", "PARTITION", ..] => (Lock::All, Work::Scan, None),
        ["DROP", "CONSTRAINT", named @ ..] => {
            let is_key = named.iter().any(|word| !is_filler(word) && holds_rows_apart(word));
            at_once(is_key.then_some(TAKEN_AWAY))
        }
        ["DROP" | "RENAME" | "DETACH", ..] | ["SET", "SCHEMA", ..] => at_once(Some(TAKEN_AWAY)),
        _ => (Lock::All, Work::Unknown, None),
    }
}

/// The column that an action adds.
pub(super) fn added_column<'a>(action: &[&'a str]) -> Option<&'a str> {
    match action {
        ["ADD", "CONSTRAINT" | "CHECK" | "FOREIGN" | "UNIQUE" | "PRIMARY" | "EXCLUDE", ..] => None,
        ["ADD", "COLUMN", "IF", "NOT", "EXISTS", column, ..]
        | ["ADD", "IF", "NOT", "EXISTS", column, ..]
        | ["ADD", "COLUMN", column, ..]
        | ["ADD", column, ..] => Some(column),
        _ => None,
    }
}

/// A constraint, without its name.
fn bind(constraint: &[&str], is_new: &dyn Fn(&str) -> bool) -> (Lock, Work, Option<&'static str>) {
    let has = |word: &str| constraint.contains(&word);
    // Of an index that is there: by that, rows are held apart already.
    if has("USING") && has("INDEX") {
        return (Lock::All, Work::Catalogue, None);
    }
    let work = match () {
        () if constraint.ends_with(&["NOT", "VALID"]) => Work::Catalogue,
        () if has("UNIQUE") || has("PRIMARY") || has("EXCLUDE") => Work::Index,
        () => Work::Scan,
    };
    let bound: &[&str] = match constraint {
        ["CHECK", ..] => constraint,
        _ => constraint.split(|word| *word == ")").next().unwrap_or_default(),
    };
    let wants_values = constraint.windows(3).any(|words| words == ["IS", "NOT", "NULL"]);
    let binds = wants_values || columns(bound).any(|column| !is_new(column));
    (Lock::All, work, binds.then_some(BOUND))
}

/// The names of columns in a condition, or in the brackets of a key.
fn columns<'a>(words: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let neighbour =
        |place: Option<usize>| place.and_then(|place| words.get(place)).copied().unwrap_or_default();
    words.iter().enumerate().filter_map(move |(place, word)| {
        let is_name = word.starts_with(|letter: char| letter.is_alphabetic() || letter == '_');
        let is_function = neighbour(place.checked_add(1)) == "(";
        let is_type = neighbour(place.checked_sub(1)) == ":";
        (is_name && !is_function && !is_type && !NO_COLUMNS.contains(word)).then_some(*word)
    })
}

/// A column with its constraints.
fn add(column: &[&str]) -> (Lock, Work, Option<&'static str>) {
    let has = |word: &str| column.contains(&word);
    let fills_itself = has("GENERATED")
        || ["SERIAL", "SMALLSERIAL", "BIGSERIAL", "SERIAL2", "SERIAL4", "SERIAL8"].into_iter().any(has);
    let work = match () {
        () if fills_itself || has_volatile_default(column) => Work::Rewrite,
        () if has("UNIQUE") || has("PRIMARY") => Work::Index,
        () if has("CHECK") || has("REFERENCES") => Work::Scan,
        () => Work::Catalogue,
    };
    let must_be_filled = column.windows(2).any(|words| words == ["NOT", "NULL"]) || has("PRIMARY");
    let is_filled = fills_itself || has("DEFAULT");
    (Lock::All, work, (must_be_filled && !is_filled).then_some(UNFILLED))
}

fn has_volatile_default(column: &[&str]) -> bool {
    let Some(default) = column.iter().position(|word| *word == "DEFAULT") else { return false };
    let expression = column.get(default..).unwrap_or_default();
    let ends =
        |word: &&&str| matches!(**word, "CONSTRAINT" | "CHECK" | "REFERENCES" | "UNIQUE" | "PRIMARY" | "NOT");
    let length = expression
        .iter()
        .skip(1)
        .position(|word| ends(&word))
        .map_or(expression.len(), |place| place.saturating_add(1));
    let expression = expression.get(1..length).unwrap_or_default();
    expression.iter().enumerate().any(|(place, word)| {
        let before = place.checked_sub(1).and_then(|place| expression.get(place)).copied();
        let is_name = word.starts_with(|letter: char| letter.is_alphabetic() || letter == '_');
        let is_called = expression.get(place.saturating_add(1)).copied() == Some("(");
        is_name && is_called && before != Some(":") && !SAME_FOR_ALL_ROWS.contains(word)
    })
}
