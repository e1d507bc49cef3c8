//! What `doctor` and `config check` print.

use super::{CommandError, print};
use crate::app::{self, BuildError};
use crate::doctor::Finding;
use crate::serve::ServeError;
use crate::source::{Migration, Source, SourceError};
use clap::ArgMatches;
use clap::parser::ValueSource;
use mana_auth::token::root_secret::RootSecrets;
use mana_platform::Settings;
use mana_platform::config::Stage;
use mana_platform::mail::MailSettings;
use mana_platform::redis;
use mana_platform::telemetry::Traces;
use serde::Serialize;
use std::ffi::OsString;

/// Prints what the doctor found; fails if anything does not hold.
pub(super) fn findings(findings: &[Finding], json: bool) -> Result<(), CommandError> {
    if json {
        print::line(&serde_json::to_string_pretty(findings)?)?;
    } else {
        for finding in findings {
            let mark = if finding.ok { "ok  " } else { "FAIL" };
            print::line(&format!("{mark} {:<13} {}", finding.check, finding.detail))?;
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
pub(super) fn config(
    matches: &ArgMatches,
    from_file: &[OsString],
    settings: &Settings,
    json: bool,
) -> Result<(), CommandError> {
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
            let is_from_file = from_file.iter().any(|name| *name == *variable);
            Some(Setting { variable, value, source: source_of(matches.value_source(id), is_from_file) })
        })
        .collect();
    if json {
        print::line(&serde_json::to_string_pretty(&rows)?)?;
    } else {
        for Setting { variable, value, source } in &rows {
            print::line(&format!("{variable:<26} {source:<12} {value}"))?;
        }
    }
    settings.own_origin().map_err(BuildError::from).map_err(ServeError::from)?;
    redis::address(settings).map_err(BuildError::from).map_err(ServeError::from)?;
    if let Some(secret) = &settings.secret_key {
        RootSecrets::parse(secret).map_err(SourceError::from)?;
    }
    MailSettings::from_settings(settings).map_err(ServeError::from)?;
    Traces::from_settings(settings)?;
    Migration::from_settings(settings)?;
    Source::from_settings(settings)?;
    app::given_key(settings)?;
    app::given_service_key(settings).map_err(BuildError::from).map_err(ServeError::from)?;
    // Whoever names no database runs `dev`.
    let stage = if settings.database_url.is_some() { Stage::Production } else { Stage::Development };
    for contradiction in settings.contradictions(stage) {
        if !contradiction.is_bearable() {
            return Err(contradiction.into());
        }
        eprintln!("warning: {contradiction}.");
    }
    Ok(())
}

/// Whether somebody has chosen the value of a setting that has a default.
pub(super) fn is_set(matches: &ArgMatches, from_file: &[OsString], variable: &str) -> bool {
    let is_default = matches.value_source(&variable.to_lowercase()) == Some(ValueSource::DefaultValue);
    !is_default || from_file.iter().any(|name| *name == *variable)
}

fn source_of(source: Option<ValueSource>, is_from_file: bool) -> &'static str {
    match source {
        Some(ValueSource::CommandLine) => "flag",
        Some(ValueSource::EnvVariable) => "environment",
        Some(ValueSource::DefaultValue) if is_from_file => "file",
        Some(ValueSource::DefaultValue) => "default",
        _ => "not set",
    }
}
