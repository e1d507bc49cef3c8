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

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    version: i64,
    description: String,
    steps: Vec<StepLine>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StepLine {
    statement: String,
    table: Option<String>,
    rows: i64,
    bytes: i64,
    locks: &'static str,
    expected_seconds: i64,
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

/// How long a statement takes on the table as large as it is, to a second.
pub(crate) fn expected_seconds(PlannedStep { step, rows, bytes }: &PlannedStep) -> i64 {
    let megabytes_at = |rate: i64| bytes.checked_div(rate.saturating_mul(1_000_000)).unwrap_or(0);
    match step.work {
        Work::Catalogue => 0,
        Work::Scan => megabytes_at(SCANNED),
        Work::Index => megabytes_at(INDEXED),
        Work::Rewrite | Work::Unknown => megabytes_at(REWRITTEN),
        Work::Rows => rows.checked_div(CHANGED_ROWS).unwrap_or(0),
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
                steps: planned.steps.iter().map(StepLine::from).collect(),
            })
            .collect();
        return Ok(print::line(&serde_json::to_string_pretty(&lines)?)?);
    }
    for Planned { version, description, steps } in planned {
        print::line(&format!("{version:04} {description}"))?;
        for planned in steps {
            print::line(&format!("     {}", described(planned)))?;
        }
        if steps.is_empty() {
            print::line("     touches no table that is there")?;
        }
    }
    let text = match planned.len() {
        0 => format!("Nothing to do: the schema is at {}.", migrate::binary_version()),
        _ => "Nothing was changed. Without --plan, all of this is one transaction, but for indexes that are built while the service runs."
            .to_owned(),
    };
    Ok(print::line(&text)?)
}

fn described(planned: &PlannedStep) -> String {
    let step = &planned.step;
    let locks = match step.lock {
        Lock::Nothing => "locks nobody out",
        Lock::Writes => "locks writers out",
        Lock::All => "locks all out",
    };
    let table = step.table.as_deref().unwrap_or("something");
    let size = match planned.bytes {
        0 => String::new(),
        bytes => format!(" ({} rows, {} MB)", planned.rows, bytes.checked_div(1_000_000).unwrap_or(0)),
    };
    let time = match expected_seconds(planned) {
        0 => "less than a second".to_owned(),
        seconds => format!("some {seconds} s"),
    };
    let text: String = step.text.chars().take(100).collect();
    format!("{locks} of {table}{size} for {time}: {text}")
}
