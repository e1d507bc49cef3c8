//! `migrate`: makes roles and brings the schema up to date, or says what that would take.

use super::{CommandError, print};
use crate::source::Migration;
use mana_platform::migrate::{self, Planned, PlannedStep};
use mana_platform::migration_plan::{Lock, Work};
use mana_platform::{Settings, SystemRng};
use serde::Serialize;

/// Megabytes a second that are read, sorted into an index, and written anew, on a disk that is busy with other things too; and
/// rows changed. Measured on one core of the machine of docs/BENCHMARKS.md, and halved.
const SCANNED: i64 = 200;
const INDEXED: i64 = 25;
const REWRITTEN: i64 = 40;
const CHANGED_ROWS: i64 = 50_000;
/// Bytes of a row, where nobody has counted them: fewer than rows of most tables have.
const ROW_BYTES: i64 = 100;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    version: i64,
    description: String,
    /// By itself and without a transaction, while the service writes.
    alone: bool,
    steps: Vec<StepLine>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StepLine {
    statement: String,
    table: Option<String>,
    /// Absent if they were never counted.
    rows: Option<i64>,
    bytes: i64,
    locks: &'static str,
    /// Absent if nobody can tell.
    expected_seconds: Option<i64>,
}

impl From<&PlannedStep> for StepLine {
    fn from(planned: &PlannedStep) -> Self {
        let step = &planned.step;
        Self {
            statement: step.text.clone(),
            table: step.table.clone(),
            rows: planned.rows,
            bytes: planned.bytes,
            locks: match step.lock {
                Lock::Nothing => "nothing",
                Lock::Writes => "writes",
                Lock::All => "all",
            },
            expected_seconds: expected_seconds(planned),
        }
    }
}

/// How long a statement takes on the table as large as it is, to a second; nothing if nobody can tell.
pub(crate) fn expected_seconds(PlannedStep { step, rows, bytes }: &PlannedStep) -> Option<i64> {
    let megabytes_at = |rate: i64| bytes.checked_div(rate.saturating_mul(1_000_000));
    match step.work {
        Work::Catalogue => Some(0),
        Work::Scan => megabytes_at(SCANNED),
        Work::Index => megabytes_at(INDEXED),
        Work::Rewrite => megabytes_at(REWRITTEN),
        Work::Rows => rows.or_else(|| bytes.checked_div(ROW_BYTES))?.checked_div(CHANGED_ROWS),
        Work::Unknown => None,
    }
}

/// Migrates, or plans to.
pub(super) async fn run(settings: &Settings, is_plan: bool, json: bool) -> Result<(), CommandError> {
    let migration = Migration::from_settings(settings)?.ok_or(CommandError::NoOwnerUrl)?;
    if is_plan {
        return show(&migrate::plan(&migration.owner).await?, json);
    }
    migration.run(&SystemRng).await?;
    Ok(print::line(&format!("The schema is at {}.", migrate::binary_version()))?)
}

fn show(planned: &[Planned], json: bool) -> Result<(), CommandError> {
    if json {
        let lines: Vec<_> = planned
            .iter()
            .map(|planned| Line {
                version: planned.version,
                description: planned.description.clone(),
                alone: planned.alone,
                steps: planned.steps.iter().map(StepLine::from).collect(),
            })
            .collect();
        return Ok(print::line(&serde_json::to_string_pretty(&lines)?)?);
    }
    for Planned { version, description, steps, .. } in planned {
        print::line(&format!("{version:04} {description}"))?;
        for statement in steps.chunk_by(|one, next| one.step.line == next.step.line) {
            print::line(&format!("     {}", described(statement)))?;
        }
        if steps.is_empty() {
            print::line("     touches no table that is there")?;
        }
    }
    Ok(print::line(&closing(planned))?)
}

/// What stays if one of them fails.
fn closing(planned: &[Planned]) -> String {
    if planned.is_empty() {
        return format!("Nothing to do: the schema is at {}.", migrate::binary_version());
    }
    let alone: Vec<_> =
        planned.iter().filter(|one| one.alone).map(|one| format!("{:04}", one.version)).collect();
    let whole = "Nothing was changed. Without --plan, all of this is one transaction";
    if alone.is_empty() {
        return format!("{whole}.");
    }
    format!(
        "{whole}, but for what is carried out by itself, while the service writes, and without a transaction: {}. What was done before such a \
         one is kept when it fails, and so is it when what stands behind it fails.",
        alone.join(", ")
    )
}

/// What a statement does, to each table once.
fn described(statement: &[PlannedStep]) -> String {
    let mut effects: Vec<String> = Vec::new();
    for effect in statement.iter().map(effect) {
        if !effects.contains(&effect) {
            effects.push(effect);
        }
    }
    let text = statement.first().map_or("", |planned| planned.step.text.as_str());
    format!("{}: {}", effects.join("; "), text.chars().take(100).collect::<String>())
}

fn effect(planned: &PlannedStep) -> String {
    let step = &planned.step;
    let locks = match step.lock {
        Lock::Nothing => "locks nobody out",
        Lock::Writes => "locks writers out",
        Lock::All => "locks all out",
    };
    let table = step.table.as_deref().unwrap_or("something");
    let rows = planned.rows.map_or("never counted".to_owned(), |rows| format!("{rows} rows"));
    let size = match planned.bytes {
        0 => String::new(),
        bytes => format!(" ({rows}, {} MB)", bytes.checked_div(1_000_000).unwrap_or(0)),
    };
    let time = match expected_seconds(planned) {
        None => "nobody can tell how long".to_owned(),
        Some(0) => "less than a second".to_owned(),
        Some(seconds) => format!("some {seconds} s"),
    };
    format!("{locks} of {table}{size} for {time}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::migration_plan::steps;

    fn seconds(sql: &str, rows: Option<i64>, megabytes: i64) -> Option<i64> {
        let step = steps(sql).remove(0);
        expected_seconds(&PlannedStep { step, rows, bytes: megabytes.saturating_mul(1_000_000) })
    }

    #[test]
    fn time_goes_by_what_is_in_the_table() {
        let index = "CREATE INDEX CONCURRENTLY IF NOT EXISTS a_idx ON auth.users (a);";
        assert_eq!(seconds(index, Some(1), 2_500), Some(100));
        assert_eq!(seconds("ALTER TABLE auth.users VALIDATE CONSTRAINT a;", Some(1), 2_500), Some(12));
        assert_eq!(seconds("ALTER TABLE auth.users ALTER a TYPE text;", Some(1), 2_500), Some(62));
        assert_eq!(seconds("ALTER TABLE auth.users ADD a int;", Some(1), 2_500), Some(0));
        assert_eq!(seconds("UPDATE auth.users SET a = 1;", Some(1_000_000), 2_500), Some(20));
        assert_eq!(
            seconds("UPDATE auth.users SET a = 1;", None, 2_500),
            Some(500),
            "never counted is not empty"
        );
        assert_eq!(seconds("DO $$ BEGIN END $$;", Some(0), 0), None);
    }

    fn planned(version: i64, alone: bool) -> Planned {
        Planned { version, description: String::new(), alone, steps: Vec::new() }
    }

    #[test]
    fn a_statement_is_told_once_with_what_it_does_to_each_table() {
        let planned = |sql| -> Vec<PlannedStep> {
            steps(sql).into_iter().map(|step| PlannedStep { step, rows: Some(0), bytes: 0 }).collect()
        };
        let several = planned("ALTER TABLE auth.users ADD a int, ADD b int, ADD c int;");
        assert_eq!(several.len(), 3);
        let told = described(&several);
        assert_eq!(told.matches("auth.users for less than a second").count(), 1, "{told}");
        assert_eq!(told.matches("ADD c int").count(), 1, "{told}");
    }

    #[test]
    fn the_end_says_what_is_kept_when_something_fails() {
        assert!(closing(&[]).starts_with("Nothing to do"));
        let together = closing(&[planned(30, false), planned(31, false)]);
        assert!(together.ends_with("all of this is one transaction."), "{together}");
        let one = closing(&[planned(30, false), planned(31, true)]);
        assert!(one.contains("without a transaction: 0031."), "{one}");
        let two = closing(&[planned(30, true), planned(31, false), planned(32, true)]);
        assert!(two.contains("without a transaction: 0030, 0032."), "{two}");
    }
}
