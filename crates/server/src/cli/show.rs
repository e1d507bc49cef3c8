//! What `doctor` and `config check` print.

use super::CommandError;
use crate::doctor::Finding;
use crate::source::Source;
use clap::ArgMatches;
use clap::parser::ValueSource;
use mana_auth::token::keys::KeyRing;
use mana_platform::Settings;
use serde::Serialize;

/// Prints what the doctor found; fails if anything does not hold.
pub(super) fn findings(findings: &[Finding], json: bool) -> Result<(), CommandError> {
    if json {
        println!("{}", serde_json::to_string_pretty(findings)?);
    } else {
        for finding in findings {
            println!("{} {:<13} {}", if finding.ok { "ok  " } else { "FAIL" }, finding.check, finding.detail);
        }
    }
    match findings.iter().filter(|finding| !finding.ok).count() {
        0 => Ok(()),
        failed => Err(CommandError::Unsound(failed)),
    }
}

#[derive(Serialize)]
struct Setting {
    variable: String,
    value: String,
    source: &'static str,
}

/// Prints every setting with its source, secrets masked; fails if one can't be used.
pub(super) fn config(matches: &ArgMatches, settings: &Settings, json: bool) -> Result<(), CommandError> {
    let rows: Vec<Setting> = super::command()
        .get_arguments()
        .filter_map(|arg| {
            let variable = arg.get_env()?.to_str()?.to_owned();
            let id = arg.get_id().as_str();
            let given = matches
                .get_raw(id)
                .map(|values| values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(","));
            let value = match given {
                None => String::new(),
                Some(_) if arg.is_hide_env_values_set() => "(set, not shown)".to_owned(),
                Some(value) => value,
            };
            Some(Setting { variable, value, source: source_of(matches, id) })
        })
        .collect();
    if json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        for Setting { variable, value, source } in &rows {
            println!("{variable:<26} {source:<12} {value}");
        }
    }
    Source::from_settings(settings)?;
    if let Some(private) = &settings.jwt_private_key {
        KeyRing::given(private, settings.jwt_public_key.as_deref())?;
    }
    Ok(())
}

fn source_of(matches: &ArgMatches, id: &str) -> &'static str {
    match matches.value_source(id) {
        Some(ValueSource::CommandLine) => "flag",
        Some(ValueSource::EnvVariable) => "environment",
        Some(ValueSource::DefaultValue) => "default",
        _ => "not set",
    }
}
