//! Files that are written from the code, so that they can't say anything else than it.

use crate::{ChoreError, queries, root};
use clap::Arg;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Writes all generated files, or checks that they are as they would be written.
pub(crate) fn run(check: bool) -> Result<String, ChoreError> {
    let mut stale = Vec::new();
    for (name, content) in documents()? {
        let path = root().join(name);
        let current = std::fs::read_to_string(&path).unwrap_or_default();
        if current == content {
            continue;
        }
        if check {
            stale.push(name.to_owned());
        } else {
            write(&path, &content)?;
        }
    }
    stale.extend(queries::run(check)?);
    if stale.is_empty() {
        Ok("generated files are up to date".to_owned())
    } else {
        Err(ChoreError::Stale(stale.join(", ")))
    }
}

fn documents() -> Result<Vec<(&'static str, String)>, ChoreError> {
    let openapi = serde_json::to_string_pretty(&mana_core_auth::openapi::document())?;
    Ok(vec![
        ("docs/ERRORS.md", mana_core_auth::errors::markdown()),
        ("docs/openapi.json", format!("{openapi}\n")),
        (".env.example", env_example()),
        ("docs/OPERATIONS.md", operations()?),
    ])
}

pub(crate) fn write(path: &Path, content: &str) -> Result<(), ChoreError> {
    std::fs::write(path, content).map_err(|error| ChoreError::File(path.to_owned(), error))
}

/// A setting that the environment may give.
struct Setting {
    variable: String,
    flag: String,
    default: Option<String>,
    help: String,
    heading: String,
}

fn settings() -> Vec<Setting> {
    mana_core_auth::cli::command()
        .get_arguments()
        .filter_map(|arg| {
            Some(Setting {
                variable: arg.get_env()?.to_str()?.to_owned(),
                flag: format!("--{}", arg.get_long()?),
                default: default_of(arg),
                help: arg.get_help()?.to_string(),
                heading: arg.get_help_heading().unwrap_or("Other").to_owned(),
            })
        })
        .collect()
}

fn default_of(arg: &Arg) -> Option<String> {
    let values: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    (arg.get_action().takes_values() && !values.is_empty()).then(|| values.join(","))
}

fn env_example() -> String {
    let mut text = String::from(
        "# Every setting of mana-core-auth. Generated from the code by `cargo xtask gen`; do not edit.\n\
         # A copy of this file can be named by MANA_CONFIG_FILE, or read by Docker and systemd.\n",
    );
    let mut heading = String::new();
    for setting in settings() {
        if heading != setting.heading {
            heading.clone_from(&setting.heading);
            // Writing to a String can't fail.
            let _ = write!(text, "\n## {heading}\n");
        }
        let _ = write!(
            text,
            "\n# {}\n#{}={}\n",
            setting.help,
            setting.variable,
            setting.default.unwrap_or_default()
        );
    }
    text
}

/// docs/OPERATIONS.md with its table of settings made anew; all else in it is written by people.
fn operations() -> Result<String, ChoreError> {
    let path: PathBuf = root().join("docs/OPERATIONS.md");
    let page = std::fs::read_to_string(&path).map_err(|error| ChoreError::File(path, error))?;
    let (before, rest) = page.split_once("<!-- settings -->").ok_or(ChoreError::NoPlace)?;
    let (_, after) = rest.split_once("<!-- /settings -->").ok_or(ChoreError::NoPlace)?;
    let mut table = String::from("| variable | flag | default | meaning |\n|---|---|---|---|\n");
    for setting in settings() {
        let default = setting
            .default
            .map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
        let _ = writeln!(
            table,
            "| `{}` | `{}` | {default} | {} |",
            setting.variable, setting.flag, setting.help
        );
    }
    Ok(format!(
        "{before}<!-- settings -->\n{table}<!-- /settings -->{after}"
    ))
}
