//! Prints what `cargo xtask gen` writes from the code, as JSON: name of the document, its content.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use clap::Arg;
use mana_core_auth::{cli, errors, openapi};
use std::fmt::Write as _;

fn main() -> Result<(), serde_json::Error> {
    let documents = serde_json::json!({
        "docs/ERRORS.md": errors::markdown(),
        "docs/openapi.json": format!("{}\n", serde_json::to_string_pretty(&openapi::document())?),
        ".env.example": env_example(),
        "docs/OPERATIONS.md": settings_table(),
    });
    println!("{documents}");
    Ok(())
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
    cli::command()
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
    let values: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
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
        let default = setting.default.unwrap_or_default();
        let _ = write!(text, "\n# {}\n#{}={default}\n", setting.help, setting.variable);
    }
    text
}

fn settings_table() -> String {
    let mut table = String::from("| variable | flag | default | meaning |\n|---|---|---|---|\n");
    for setting in settings() {
        let default = setting.default.map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
        let _ =
            writeln!(table, "| `{}` | `{}` | {default} | {} |", setting.variable, setting.flag, setting.help);
    }
    table
}
