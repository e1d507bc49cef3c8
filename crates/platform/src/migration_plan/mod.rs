//! What the statements of a migration lock, for how long, and what they do to the release before: read from their text, without running them.
//!
//! It knows the statements that migrations are made of, not all of SQL. Of what it does not know, and of what it can't see through (`DO`), it
//! says that nobody can tell: only what is listed here is allowed.

mod alter;
mod statements;

use statements::{Statement, split, split_at_commas};
use std::collections::HashSet;

const TAKEN_AWAY: &str =
    "the release before this one may still use it: stop using it in one release, take it away in the next";
const UNFILLED: &str =
    "the release before this one writes rows without it: give it a DEFAULT, or let it be null";
const NULLED: &str = "the release before this one may count on a value: let it bear a null in one release, write nulls in the next";
const BOUND: &str = "the release before this one may write what it refuses: write what fits in one release, hold to it in the next";

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
    /// Why the release before could not go on.
    pub harm: Option<&'static str>,
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
        if self.harm.is_some() || !self.is_long() {
            return self.harm;
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
            Work::Catalogue | Work::Unknown => {
                "nobody can tell what it locks, or what it does to the release before this one: write plain statements"
            }
        })
    }
}

/// What a migration does to tables that were there before it.
pub fn steps(sql: &str) -> Vec<Step> {
    let statements = split(sql);
    let added: HashSet<(String, String)> = statements.iter().flat_map(columns_added_by).collect();
    let mut made = HashSet::new();
    let mut steps = Vec::new();
    for statement in &statements {
        // What is made later was there before, if something is done to it by now.
        made.extend(made_by(&statement.words()));
        let to_others = |step: &Step| step.table.as_ref().is_none_or(|table| !made.contains(table));
        steps.extend(steps_of(statement, &added).into_iter().filter(to_others));
    }
    steps
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

fn steps_of(statement: &Statement, added: &HashSet<(String, String)>) -> Vec<Step> {
    let words = statement.words();
    let step = |table: Option<&str>, lock, work, harm| Step {
        text: statement.text.clone(),
        line: statement.line,
        table: table.map(str::to_lowercase),
        lock,
        work,
        harm,
        accepted: statement.accepted.clone(),
    };
    let name_after = |word: &str| {
        let place = words.iter().position(|found| *found == word);
        place.and_then(|place| named(&words, place.saturating_add(1)))
    };
    let done_to_rows = |from: Option<usize>| -> Vec<Step> {
        let found = on_rows(from.and_then(|from| words.get(from..)).unwrap_or_default()).into_iter();
        let lock = |work| if work == Work::Unknown { Lock::All } else { Lock::Nothing };
        found.map(|(table, work)| step(table, lock(work), work, None)).collect()
    };
    match words[..] {
        ["CREATE", "INDEX" | "UNIQUE", ..] => {
            let lock = if words.contains(&"CONCURRENTLY") { Lock::Nothing } else { Lock::Writes };
            let harm = words.contains(&"UNIQUE").then_some(BOUND);
            vec![step(name_after("ON"), lock, Work::Index, harm)]
        }
        ["CREATE", "TABLE", ..] => {
            let referenced =
                referenced(&words).map(|table| step(Some(table), Lock::Writes, Work::Catalogue, None));
            let parent = words.contains(&"PARTITION").then(|| name_after("OF")).flatten();
            let parent = parent.map(|table| step(Some(table), Lock::All, Work::Scan, None));
            referenced
                .chain(parent)
                .chain(done_to_rows(words.iter().position(|word| *word == "SELECT")))
                .collect()
        }
        ["CREATE", "TRIGGER", ..]
        | ["CREATE", "CONSTRAINT", "TRIGGER", ..]
        | ["CREATE", "OR", "REPLACE", "TRIGGER", ..] => {
            vec![step(name_after("ON"), Lock::Writes, Work::Catalogue, None)]
        }
        ["CREATE", "POLICY", ..] => {
            let harm = words.contains(&"RESTRICTIVE").then_some(BOUND);
            vec![step(name_after("ON"), Lock::All, Work::Catalogue, harm)]
        }
        ["CREATE", "FUNCTION" | "PROCEDURE" | "SCHEMA" | "SEQUENCE" | "TYPE" | "DOMAIN" | "VIEW", ..]
        | ["CREATE", "OR", "REPLACE", "FUNCTION" | "PROCEDURE", ..]
        | ["GRANT" | "COMMENT", ..] => Vec::new(),
        // Whoever sees no row of it any more.
        ["CALL", "MANA.PROTECT", "(", table, ..] => {
            vec![step(Some(table.trim_matches('\'')), Lock::All, Work::Catalogue, Some(TAKEN_AWAY))]
        }
        ["ALTER", "TABLE", ref rest @ ..] => {
            let place = rest.iter().position(|word| !is_filler(word)).unwrap_or(0);
            let table = rest.get(place).copied();
            let is_new = |column: &str| {
                table.is_some_and(|table| added.contains(&(table.to_owned(), column.to_owned())))
            };
            let actions = split_at_commas(rest.get(place.saturating_add(1)..).unwrap_or_default());
            let done = actions.iter().flat_map(|action| {
                let (lock, work, harm) = alter::effect(action, &is_new);
                let others = referenced(action).map(move |table| (Some(table), Lock::Writes, work, None));
                std::iter::once((table, lock, work, harm)).chain(others)
            });
            done.map(|(table, lock, work, harm)| step(table, lock, work, harm)).collect()
        }
        ["DROP", "INDEX", ref rest @ ..] => {
            let lock = if rest.contains(&"CONCURRENTLY") { Lock::Nothing } else { Lock::All };
            let is_key = rest.iter().any(|word| holds_rows_apart(word));
            vec![step(None, lock, Work::Catalogue, is_key.then_some(TAKEN_AWAY))]
        }
        ["DROP", "TRIGGER" | "POLICY" | "RULE", ..] => {
            vec![step(name_after("ON"), Lock::All, Work::Catalogue, Some(TAKEN_AWAY))]
        }
        ["DROP", ..] => vec![step(named(&words, 2), Lock::All, Work::Catalogue, Some(TAKEN_AWAY))],
        ["REVOKE", ..] => vec![step(name_after("ON"), Lock::Nothing, Work::Catalogue, Some(TAKEN_AWAY))],
        ["SELECT", ..] if words.contains(&"(") => vec![step(None, Lock::All, Work::Unknown, None)],
        ["SELECT" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "WITH", ..] => done_to_rows(Some(0)),
        ["TRUNCATE", ..] => vec![step(name_after("TRUNCATE"), Lock::All, Work::Rewrite, Some(TAKEN_AWAY))],
        ["CLUSTER" | "REINDEX" | "VACUUM" | "REFRESH", ..] => {
            vec![step(None, Lock::All, Work::Rewrite, None)]
        }
        ["LOCK", ..] => vec![step(name_after("LOCK"), Lock::All, Work::Unknown, None)],
        _ => vec![step(None, Lock::All, Work::Unknown, None)],
    }
}

/// Which tables a statement on rows reads, and of which it changes rows, wherever in it this is said. A function of our own may do anything.
fn on_rows<'a>(words: &[&'a str]) -> Vec<(Option<&'a str>, Work)> {
    let at = |place: Option<usize>| place.and_then(|place| words.get(place)).copied().unwrap_or_default();
    let mut found = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let (before, after) = (at(place.checked_sub(1)), place.saturating_add(1));
        let next = named(words, after);
        match (*word, before) {
            ("UPDATE", "DO") => {
                let into = words.iter().position(|word| *word == "INTO").map(|place| place.saturating_add(1));
                found.push((into.and_then(|place| named(words, place)), Work::Rows));
            }
            ("UPDATE", "FOR" | "KEY") => found.push((None, Work::Rows)),
            // A branch of MERGE; a comparison.
            ("UPDATE" | "DELETE", "THEN") | ("FROM", "DISTINCT") => {}
            ("UPDATE", _) | ("FROM", "DELETE") | ("INTO", "MERGE") => found.push((next, Work::Rows)),
            ("FROM" | "JOIN" | "USING", _)
                if at(Some(after)).contains('.') && at(after.checked_add(1)) != "(" =>
            {
                found.push((next, Work::Scan));
            }
            (name, before) if name.contains('.') && before != "INTO" && at(Some(after)) == "(" => {
                found.push((None, Work::Unknown));
            }
            _ => {}
        }
    }
    found
}

/// The tables that keys lead to: writers of these wait, too.
fn referenced<'a>(words: &[&'a str]) -> impl Iterator<Item = &'a str> {
    words.windows(2).filter_map(|words| match words {
        ["REFERENCES", table] => Some(*table),
        _ => None,
    })
}

/// The first name from a place on.
fn named<'a>(words: &[&'a str], place: usize) -> Option<&'a str> {
    words.iter().skip(place).find(|word| !is_filler(word)).copied()
}

fn is_filler(word: &str) -> bool {
    matches!(
        word,
        "IF" | "EXISTS"
            | "NOT"
            | "ONLY"
            | "TABLE"
            | "FUNCTION"
            | "PROCEDURE"
            | "SCHEMA"
            | "SEQUENCE"
            | "TYPE"
            | "DOMAIN"
    )
}

/// By our names. An ON CONFLICT of the release before may lean on it.
fn holds_rows_apart(name: &str) -> bool {
    name.ends_with("_KEY") || name.ends_with("_PKEY")
}

/// What a statement makes that was not there.
fn made_by(words: &[&str]) -> Option<String> {
    match words {
        // It may have been there.
        ["CREATE", _, "IF", "NOT", "EXISTS", ..] => None,
        [
            "CREATE",
            "TABLE" | "FUNCTION" | "PROCEDURE" | "SCHEMA" | "SEQUENCE" | "TYPE" | "DOMAIN" | "VIEW",
            ..,
        ] => named(words, 2).map(str::to_lowercase),
        _ => None,
    }
}

/// Tables and columns, in upper case.
fn columns_added_by(statement: &Statement) -> Vec<(String, String)> {
    let words = statement.words();
    let ["ALTER", "TABLE", rest @ ..] = &words[..] else { return Vec::new() };
    let Some(place) = rest.iter().position(|word| !is_filler(word)) else { return Vec::new() };
    let table = rest.get(place).copied().unwrap_or_default();
    let actions = split_at_commas(rest.get(place.saturating_add(1)..).unwrap_or_default());
    let columns = actions.iter().filter_map(|action| alter::added_column(action));
    columns.map(|column| (table.to_owned(), column.to_owned())).collect()
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
            "ALTER TABLE auth.users ADD COLUMN a uuid DEFAULT auth.new_id();",
            "ALTER TABLE auth.users ADD COLUMN a float DEFAULT random() * 2;",
            "ALTER TABLE auth.users ADD COLUMN a text DEFAULT upper('x');",
            "ALTER TABLE auth.events ATTACH PARTITION auth.events_of_may FOR VALUES IN (5);",
            "CREATE TABLE auth.events_of_may PARTITION OF auth.events FOR VALUES IN (5);",
            "WITH old AS (SELECT id FROM auth.users) UPDATE auth.users SET a = 1 FROM old WHERE old.id = users.id;",
            "WITH gone AS (DELETE FROM auth.users RETURNING id) INSERT INTO auth.new SELECT id FROM gone;",
            "MERGE INTO auth.users USING auth.new ON true WHEN MATCHED THEN UPDATE SET a = 1;",
            "INSERT INTO auth.users (id) SELECT id FROM auth.new ON CONFLICT (id) DO UPDATE SET a = 1;",
            "SELECT auth.fill();",
            "INSERT INTO auth.new SELECT auth.fill(id) FROM auth.users;",
            "SELECT id FROM auth.users FOR UPDATE;",
        ] {
            assert!(is_refused(sql), "{sql}");
        }
    }

    #[test]
    fn what_the_release_before_can_not_do_without_is_refused_whatever_it_locks() {
        for sql in [
            "ALTER TABLE auth.users ADD COLUMN a int NOT NULL;",
            "ALTER TABLE auth.users ADD a int NOT NULL, ADD CONSTRAINT a_range CHECK (a > 0) NOT VALID;",
            "ALTER TABLE auth.users ALTER COLUMN a DROP DEFAULT;",
            "ALTER TABLE auth.users ALTER a DROP NOT NULL;",
            "ALTER TABLE auth.users ADD CONSTRAINT name_length CHECK (length(name) < 9) NOT VALID;",
            "ALTER TABLE auth.users ADD COLUMN a int, ADD CONSTRAINT a_or_b CHECK (a > 0 OR b > 0) NOT VALID;",
            "ALTER TABLE auth.users ADD COLUMN a int, ADD CONSTRAINT a_there CHECK (a IS NOT NULL) NOT VALID;",
            "ALTER TABLE auth.users ADD CONSTRAINT a_fkey FOREIGN KEY (a) REFERENCES auth.b (id) NOT VALID;",
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS users_name_key ON auth.users (name);",
            "ALTER TABLE auth.users DROP CONSTRAINT users_email_key;",
            "DROP INDEX CONCURRENTLY auth.users_name_key;",
            "ALTER TABLE auth.users SET SCHEMA credits;",
            "ALTER TABLE auth.events DETACH PARTITION auth.events_of_may;",
            "REVOKE UPDATE (name) ON auth.users FROM mana_service;",
            "DROP FUNCTION auth.f(int);",
            "DROP FUNCTION auth.f(int); CREATE FUNCTION auth.f(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT 1';",
            "DROP TABLE auth.users; CREATE TABLE auth.users (a int);",
            "DROP TRIGGER IF EXISTS t ON auth.users;",
            "DROP POLICY own_rows ON auth.users;",
            "DROP TYPE auth.mood;",
            "CREATE POLICY p ON auth.users AS RESTRICTIVE USING (false);",
            "CALL mana.protect('auth.users', 'false');",
        ] {
            let found = steps(sql);
            let harmful = found.iter().find(|step| step.harm.is_some());
            assert!(harmful.is_some_and(|step| step.refusal() == step.harm), "{sql}: {found:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for sql in [
            "ALTER DOMAIN auth.mail ADD CONSTRAINT mail_shape CHECK (value LIKE '%@%');",
            "ALTER TABLE auth.users ENABLE ROW LEVEL SECURITY;",
            "ALTER TABLE auth.users ALTER COLUMN a ADD GENERATED ALWAYS AS IDENTITY;",
            "ALTER TABLE auth.users OWNER TO somebody;",
            "ALTER FUNCTION auth.f() OWNER TO somebody;",
            "CREATE EXTENSION pgcrypto;",
            "CREATE RULE r AS ON INSERT TO auth.users DO NOTHING;",
            "CALL auth.fill();",
            "SET lock_timeout = 0;",
            "COPY auth.users FROM PROGRAM 'x';",
        ] {
            let refusal = steps(sql).iter().find_map(Step::refusal);
            assert!(
                refusal.is_some_and(|refusal| refusal.starts_with("nobody can tell")),
                "{sql}: {refusal:?}"
            );
        }
    }

    #[test]
    fn who_is_led_to_waits_with_who_leads() {
        let key = "ALTER TABLE auth.a ADD COLUMN b int, ADD CONSTRAINT a_b_fkey FOREIGN KEY (b) REFERENCES auth.b (id) NOT VALID;";
        let seen: Vec<_> = steps(key)
            .into_iter()
            .map(|step| (step.table.clone().unwrap(), step.lock, step.refusal()))
            .collect();
        let all = |table: &str| (table.to_owned(), Lock::All, None);
        assert_eq!(seen, [all("auth.a"), all("auth.a"), ("auth.b".to_owned(), Lock::Writes, None)]);
        let made = "CREATE TABLE auth.a (b int REFERENCES auth.b, a int REFERENCES auth.a);";
        let seen: Vec<_> = steps(made).into_iter().map(|step| (step.table.unwrap(), step.lock)).collect();
        assert_eq!(seen, [("auth.b".to_owned(), Lock::Writes)]);
        let read = steps("INSERT INTO auth.new SELECT id FROM auth.users JOIN ONLY auth.b USING (id);");
        let seen: Vec<_> = read.into_iter().map(|step| (step.table.unwrap(), step.lock, step.work)).collect();
        assert_eq!(seen[0], ("auth.users".to_owned(), Lock::Nothing, Work::Scan));
    }

    #[test]
    fn what_is_over_at_once_is_not() {
        for sql in [
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS a_idx ON auth.users (email);",
            "ALTER TABLE auth.users ADD COLUMN a int, ADD COLUMN b text NOT NULL DEFAULT 'x, y';",
            "ALTER TABLE auth.users ADD COLUMN a timestamptz DEFAULT now();",
            "ALTER TABLE auth.users ADD COLUMN a int, ADD CONSTRAINT a_range CHECK (a IN (1, 2)) NOT VALID;",
            "ALTER TABLE auth.users ADD a text, ADD b text, ADD CONSTRAINT both CHECK (length(a) = 1 OR b::text = 'B' OR a IS NULL) NOT VALID;",
            "ALTER TABLE auth.users ADD COLUMN a varchar(5) NOT NULL DEFAULT 'x'::varchar(5), ADD b interval DEFAULT make_interval(0, 1);",
            "ALTER TABLE auth.users ADD CONSTRAINT a_key UNIQUE USING INDEX a_idx;",
            "ALTER TABLE auth.users VALIDATE CONSTRAINT a_range;",
            "ALTER TABLE auth.users DROP CONSTRAINT a_range, ALTER COLUMN a SET DEFAULT 1, SET (fillfactor = 80);",
            "CREATE TABLE auth.new (a int NOT NULL); CALL mana.protect('auth.new', 'false'); REVOKE ALL ON auth.new FROM PUBLIC;",
            "CREATE FUNCTION auth.f(a int) RETURNS int LANGUAGE sql AS 'SELECT 1'; REVOKE EXECUTE ON FUNCTION auth.f FROM PUBLIC;",
            "COMMENT ON TABLE auth.users IS 'people';",
            "DROP INDEX CONCURRENTLY auth.a_idx;",
            "CREATE TABLE auth.new (a int); CREATE INDEX new_idx ON auth.new (a); UPDATE auth.new SET a = 1;",
            "CREATE TABLE auth.new (a int); ALTER TABLE auth.new ALTER a SET NOT NULL;",
            "-- CREATE INDEX a_idx ON auth.users (email);\nSELECT 'UPDATE auth.users; DELETE FROM auth.users';",
            "/* DROP TABLE auth.users; */ GRANT SELECT ON auth.users TO mana_service;",
            "CREATE FUNCTION auth.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE auth.users SET a = 1; END $$;",
            "INSERT INTO auth.new SELECT id FROM auth.users;",
        ] {
            assert!(!is_refused(sql), "{sql}: {:?}", steps(sql));
        }
    }

    #[test]
    fn what_may_have_been_there_and_what_fills_itself_is_no_exception() {
        for sql in [
            "CREATE TABLE IF NOT EXISTS auth.users (a int); ALTER TABLE auth.users ALTER a SET NOT NULL;",
            "ALTER TABLE auth.users ADD COLUMN a smallserial;",
        ] {
            assert!(is_refused(sql), "{sql}");
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
