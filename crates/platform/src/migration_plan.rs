//! What the statements of a migration lock, and for how long: read from their text, without running them.
//!
//! It knows the statements that migrations are made of, not all of SQL. What it can't see through (`DO`) it says so of.

use std::collections::HashSet;

/// Written in a comment before a statement, with the reason, when a person has decided that it may be run all the same.
const ACCEPTED: &str = "Accepted:";

/// What a statement keeps from others while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lock {
    /// Nothing that the service does.
    Nothing,
    /// Writes.
    Writes,
    /// Everything.
    All,
}

/// What it does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Changes the catalogue: over at once, whatever the table's size.
    Catalogue,
    /// Reads the table.
    Scan,
    /// Reads and sorts the table.
    Index,
    /// Changes rows one by one; each stays locked until the end.
    Rows,
    /// Writes the table anew.
    Rewrite,
    /// Can't be told from its text.
    Unknown,
}

/// A statement and what it does to a table that was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The statement in one line, without comments.
    pub text: String,
    /// Where it begins in the file.
    pub line: usize,
    /// The table.
    pub table: Option<String>,
    /// What is locked.
    pub lock: Lock,
    /// What is done.
    pub work: Work,
    /// Whether the release before needs what it takes away.
    pub takes_away: bool,
    /// Why a person finds it right all the same.
    pub accepted: Option<String>,
}

impl Step {
    /// Whether it keeps the service waiting for as long as the table is large.
    pub fn is_long(&self) -> bool {
        self.work != Work::Catalogue && (self.lock > Lock::Nothing || self.work == Work::Rows)
    }

    /// Why it may not stand in a migration, if it may not.
    pub fn refusal(&self) -> Option<&'static str> {
        if self.accepted.is_some() {
            return None;
        }
        if self.takes_away {
            return Some(
                "the release before this one may still use it: stop using it in one release, take it away in the next",
            );
        }
        if !self.is_long() {
            return None;
        }
        Some(match self.work {
            Work::Index => {
                "locks writers out for as long as the table is large: CREATE INDEX CONCURRENTLY IF NOT EXISTS, alone in a file that begins with -- no-transaction"
            }
            Work::Scan => {
                "locks the table while it is read: ADD CONSTRAINT ... NOT VALID, and VALIDATE CONSTRAINT in a later migration; for NOT NULL, a CHECK (... IS NOT NULL) that way"
            }
            Work::Rewrite => {
                "writes the table anew while it is locked: add a column, fill it while the service runs, take the old one away in a later release"
            }
            Work::Rows => {
                "keeps every row locked until the end: let the service or a command do it in batches"
            }
            Work::Catalogue | Work::Unknown => "nobody can tell what it locks: write plain statements",
        })
    }
}

/// The statements of a migration that touch tables which were there before it.
pub fn steps(sql: &str) -> Vec<Step> {
    let statements = split(sql);
    let made: HashSet<String> =
        statements.iter().filter_map(|statement| made_table(&statement.words)).collect();
    let steps = statements.iter().flat_map(Statement::steps);
    steps.filter(|step| step.table.as_ref().is_none_or(|table| !made.contains(table))).collect()
}

/// Whether a migration that is no transaction is one that can be repeated: a single index, built while the service runs, or constraints that
/// are held against rows from before them.
pub fn is_repeatable(sql: &str) -> bool {
    let statements = split(sql);
    let is_index = |statement: &Statement| {
        matches!(
            statement.words().as_slice(),
            ["CREATE", "INDEX", "CONCURRENTLY", "IF", "NOT", "EXISTS", ..]
                | ["CREATE", "UNIQUE", "INDEX", "CONCURRENTLY", "IF", "NOT", "EXISTS", ..]
        )
    };
    let validates = |statement: &Statement| {
        matches!(statement.words().as_slice(), ["ALTER", "TABLE", _, "VALIDATE", "CONSTRAINT", _])
    };
    match &statements[..] {
        [only] if is_index(only) => true,
        all => !all.is_empty() && all.iter().all(validates),
    }
}

/// A statement in words: keywords and names in upper case, unless quoted.
struct Statement {
    words: Vec<String>,
    text: String,
    line: usize,
    accepted: Option<String>,
}

impl Statement {
    fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }

    fn steps(&self) -> Vec<Step> {
        let words = self.words();
        let step = |table: Option<&str>, lock, work, takes_away| Step {
            text: self.text.clone(),
            line: self.line,
            table: table.map(str::to_lowercase),
            lock,
            work,
            takes_away,
            accepted: self.accepted.clone(),
        };
        let name_after = |word: &str| {
            let place = words.iter().position(|found| *found == word);
            place.and_then(|place| words.iter().skip(place.saturating_add(1)).find(|word| !is_filler(word)))
        };
        match words[..] {
            ["CREATE", "INDEX" | "UNIQUE", ..] => {
                let lock = if words.contains(&"CONCURRENTLY") { Lock::Nothing } else { Lock::Writes };
                vec![step(name_after("ON").copied(), lock, Work::Index, false)]
            }
            ["ALTER", "TABLE", ref rest @ ..] => {
                let name = rest.iter().position(|word| !is_filler(word)).unwrap_or(0);
                let actions = rest.get(name.saturating_add(1)..).unwrap_or_default();
                let actions = split_at_commas(actions);
                let done = actions.iter().map(|action| {
                    let (lock, work, takes_away) = alter(action);
                    step(rest.get(name).copied(), lock, work, takes_away)
                });
                done.collect()
            }
            ["DROP", "TABLE" | "VIEW" | "SCHEMA", ..] => {
                vec![step(
                    words.iter().skip(2).find(|word| !is_filler(word)).copied(),
                    Lock::All,
                    Work::Catalogue,
                    true,
                )]
            }
            ["DROP", "INDEX", ..] if !words.contains(&"CONCURRENTLY") => {
                vec![step(None, Lock::All, Work::Catalogue, false)]
            }
            ["UPDATE", ..] => vec![step(words.get(1).copied(), Lock::Nothing, Work::Rows, false)],
            ["DELETE", "FROM", ..] => vec![step(words.get(2).copied(), Lock::Nothing, Work::Rows, false)],
            ["TRUNCATE", ..] => vec![step(name_after("TRUNCATE").copied(), Lock::All, Work::Rewrite, false)],
            ["CLUSTER" | "REINDEX" | "VACUUM" | "REFRESH", ..] => {
                vec![step(None, Lock::All, Work::Rewrite, false)]
            }
            ["LOCK", ..] => vec![step(name_after("LOCK").copied(), Lock::All, Work::Unknown, false)],
            ["DO", ..] => vec![step(None, Lock::All, Work::Unknown, false)],
            ["CREATE", "TRIGGER", ..]
            | ["CREATE", "CONSTRAINT", "TRIGGER", ..]
            | ["CREATE", "OR", "REPLACE", "TRIGGER", ..] => {
                vec![step(name_after("ON").copied(), Lock::Writes, Work::Catalogue, false)]
            }
            _ => Vec::new(),
        }
    }
}

/// What an action of ALTER TABLE locks and does, and whether it takes something away.
fn alter(action: &[&str]) -> (Lock, Work, bool) {
    let has = |word: &str| action.contains(&word);
    let is_not_valid = action.ends_with(&["NOT", "VALID"]);
    match action {
        ["VALIDATE", "CONSTRAINT", ..] => (Lock::Nothing, Work::Scan, false),
        ["ADD", "CONSTRAINT", ..] if is_not_valid || (has("USING") && has("INDEX")) => {
            (Lock::All, Work::Catalogue, false)
        }
        ["ADD", "CONSTRAINT" | "CHECK" | "FOREIGN" | "UNIQUE" | "PRIMARY" | "EXCLUDE", ..] => {
            let builds = has("UNIQUE") || has("PRIMARY") || has("EXCLUDE");
            (Lock::All, if builds { Work::Index } else { Work::Scan }, false)
        }
        ["ADD", ..] => {
            let is_volatile = action.iter().any(|word| {
                matches!(
                    *word,
                    "GEN_RANDOM_UUID"
                        | "CLOCK_TIMESTAMP"
                        | "RANDOM"
                        | "NEXTVAL"
                        | "GENERATED"
                        | "SERIAL"
                        | "BIGSERIAL"
                )
            });
            let is_checked = has("CHECK") || has("REFERENCES");
            let work = match () {
                () if is_volatile => Work::Rewrite,
                () if has("UNIQUE") || has("PRIMARY") => Work::Index,
                () if is_checked => Work::Scan,
                () => Work::Catalogue,
            };
            (Lock::All, work, false)
        }
        ["ALTER", ..] if has("TYPE") => (Lock::All, Work::Rewrite, false),
        ["ALTER", .., "SET", "NOT", "NULL"] => (Lock::All, Work::Scan, false),
        ["SET", "LOGGED" | "UNLOGGED" | "TABLESPACE" | "ACCESS", ..] => (Lock::All, Work::Rewrite, false),
        ["DROP", "CONSTRAINT", ..] => (Lock::All, Work::Catalogue, false),
        ["DROP" | "RENAME", ..] => (Lock::All, Work::Catalogue, true),
        _ => (Lock::All, Work::Catalogue, false),
    }
}

fn is_filler(word: &str) -> bool {
    matches!(word, "IF" | "EXISTS" | "NOT" | "ONLY" | "TABLE")
}

fn made_table(words: &[String]) -> Option<String> {
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["CREATE", "TABLE", ref rest @ ..] => {
            rest.iter().find(|word| !is_filler(word)).map(|name| name.to_lowercase())
        }
        _ => None,
    }
}

/// Parts between commas that stand in no brackets.
fn split_at_commas<'a>(words: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut parts = vec![Vec::new()];
    let mut depth = 0_usize;
    for word in words {
        match *word {
            "(" => depth = depth.saturating_add(1),
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if *word == "," && depth == 0 {
            parts.push(Vec::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(*word);
        }
    }
    parts
}

/// Statements, without their comments and with what these accept.
fn split(sql: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let (mut words, mut text, mut accepted) = (Vec::new(), String::new(), None);
    let (mut line, mut begin) = (1_usize, 1_usize);
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = token_length(rest);
        let (token, after) = rest.split_at(length);
        if token == ";" {
            if !words.is_empty() {
                let words = std::mem::take(&mut words);
                let text = std::mem::take(&mut text);
                statements.push(Statement { words, text, line: begin, accepted: accepted.take() });
            }
        } else if let Some(comment) = token.strip_prefix("--") {
            if let Some((_, reason)) = comment.split_once(ACCEPTED) {
                accepted = Some(reason.trim().to_owned());
            }
        } else if !first.is_whitespace() && !token.starts_with("/*") {
            if words.is_empty() {
                begin = line;
            }
            let is_apart = !text.is_empty() && !matches!(token, ")" | ",") && !text.ends_with('(');
            text.push_str(if is_apart { " " } else { "" });
            text.push_str(token);
            let is_quoted = token.starts_with(['\'', '$']);
            words.push(if is_quoted { token.to_owned() } else { token.replace('"', "").to_uppercase() });
        }
        line = line.saturating_add(token.matches('\n').count());
        rest = after;
    }
    if !words.is_empty() {
        statements.push(Statement { words, text, line: begin, accepted });
    }
    statements
}

/// How long the first token of a text is: a comment, a quoted text, white space, a name with its dots, or one character.
fn token_length(text: &str) -> usize {
    let until = |end: &str, from: usize| {
        let found = text.get(from..).and_then(|rest| rest.find(end));
        found.map_or(text.len(), |place| place.saturating_add(from).saturating_add(end.len()))
    };
    let while_is = |is_part: fn(char) -> bool| text.find(|letter| !is_part(letter)).unwrap_or(text.len());
    match text.chars().next() {
        Some('-') if text.starts_with("--") => text.find('\n').unwrap_or(text.len()),
        Some('/') if text.starts_with("/*") => until("*/", 2),
        Some('\'') => until("'", 1),
        Some('$') => match text.get(1..).and_then(|rest| rest.find('$')) {
            Some(place) => {
                let tag = text.get(..place.saturating_add(2)).unwrap_or(text);
                until(tag, tag.len())
            }
            None => 1,
        },
        Some(letter) if letter.is_whitespace() => while_is(char::is_whitespace),
        Some(letter) if is_of_name(letter) => while_is(is_of_name),
        Some(letter) => letter.len_utf8(),
        None => 0,
    }
}

fn is_of_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '.' | '"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(sql: &str) -> bool {
        steps(sql).iter().any(|step| step.refusal().is_some())
    }

    #[test]
    fn what_locks_a_table_for_as_long_as_it_is_large_is_refused() {
        for sql in [
            "CREATE INDEX a_idx ON auth.users (email);",
            "create unique index a_idx on only auth.users (email)",
            "ALTER TABLE auth.users ALTER COLUMN name SET NOT NULL;",
            "ALTER TABLE auth.users ALTER name TYPE varchar(5);",
            "ALTER TABLE ONLY auth.users ADD COLUMN a int, ADD CONSTRAINT a_range CHECK (a IN (1, 2));",
            "ALTER TABLE auth.users ADD CONSTRAINT a_fkey FOREIGN KEY (a) REFERENCES auth.b (id);",
            "ALTER TABLE auth.users ADD CONSTRAINT a_key UNIQUE (a);",
            "ALTER TABLE auth.users ADD COLUMN id uuid DEFAULT gen_random_uuid();",
            "ALTER TABLE auth.users ADD COLUMN a int CONSTRAINT a_range CHECK (a > 0);",
            "UPDATE auth.users SET a = 1;",
            "DELETE FROM auth.users;",
            "TRUNCATE auth.users;",
            "DO $$ BEGIN ALTER TABLE auth.users ALTER name SET NOT NULL; END $$;",
            "ALTER TABLE auth.users DROP COLUMN name;",
            "ALTER TABLE auth.users RENAME COLUMN name TO names;",
            "DROP TABLE auth.users;",
        ] {
            assert!(is_refused(sql), "{sql}");
        }
    }

    #[test]
    fn what_is_over_at_once_is_not() {
        for sql in [
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS a_idx ON auth.users (email);",
            "ALTER TABLE auth.users ADD COLUMN a int, ADD COLUMN b text NOT NULL DEFAULT 'x, y';",
            "ALTER TABLE auth.users ADD COLUMN a timestamptz DEFAULT now();",
            "ALTER TABLE auth.users ADD CONSTRAINT a_range CHECK (a IN (1, 2)) NOT VALID;",
            "ALTER TABLE auth.users ADD CONSTRAINT a_key UNIQUE USING INDEX a_idx;",
            "ALTER TABLE auth.users VALIDATE CONSTRAINT a_range;",
            "ALTER TABLE auth.users DROP CONSTRAINT a_range, ALTER COLUMN a DROP DEFAULT, SET (fillfactor = 80);",
            "CREATE TABLE auth.new (a int); CREATE INDEX new_idx ON auth.new (a); UPDATE auth.new SET a = 1;",
            "CREATE TABLE IF NOT EXISTS auth.new (a int); ALTER TABLE auth.new ALTER a SET NOT NULL;",
            "-- CREATE INDEX a_idx ON auth.users (email);\nSELECT 'UPDATE auth.users; DELETE FROM auth.users';",
            "/* DROP TABLE auth.users; */ GRANT SELECT ON auth.users TO mana_service;",
            "CREATE FUNCTION auth.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE auth.users SET a = 1; END $$;",
            "INSERT INTO auth.new SELECT id FROM auth.users;",
        ] {
            assert!(!is_refused(sql), "{sql}: {:?}", steps(sql));
        }
    }

    #[test]
    fn a_person_may_accept_a_statement_and_only_that() {
        let sql =
            "-- Accepted: one row for each server.\nUPDATE auth.few SET a = 1;\nUPDATE auth.users SET a = 1;";
        let found = steps(sql);
        let refused: Vec<_> = found.iter().filter(|step| step.refusal().is_some()).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(refused.len(), 1);
        assert_eq!((refused[0].table.as_deref(), refused[0].line), (Some("auth.users"), 3));
        assert_eq!(found[0].accepted.as_deref(), Some("one row for each server."));
    }

    #[test]
    fn only_an_index_that_may_be_tried_again_goes_without_a_transaction() {
        let index = "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a_idx ON auth.users (a);";
        assert!(is_repeatable(index));
        assert!(!is_repeatable(&format!("{index} SELECT 1;")));
        assert!(!is_repeatable("-- no-transaction\nCREATE INDEX CONCURRENTLY a_idx ON auth.users (a);"));
        assert!(!is_repeatable("-- no-transaction\nALTER TABLE auth.users ADD COLUMN a int;"));
        let validated = "-- no-transaction\nALTER TABLE auth.users VALIDATE CONSTRAINT a;\nALTER TABLE auth.users VALIDATE CONSTRAINT b;";
        assert!(is_repeatable(validated));
        assert!(!is_repeatable(&format!("{validated}\nALTER TABLE auth.users DROP CONSTRAINT a;")));
        assert!(!is_repeatable(&format!("{validated}\n{}", index.trim_start_matches("-- no-transaction\n"))));
        assert!(!is_repeatable(
            "-- no-transaction\nALTER TABLE auth.users VALIDATE CONSTRAINT a, ADD COLUMN b int;"
        ));
        assert!(!is_repeatable("-- no-transaction\n"));
    }
}
