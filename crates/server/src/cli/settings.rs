//! How `--help` shows settings, and what is said of one that can't be used.

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};
use mana_platform::config::DEVELOPMENT;
use std::error::Error as _;
use std::ffi::OsString;
use std::path::PathBuf;

/// Where they are, at the end of what shows none.
const WHERE: &str = "Settings are flags, variables of the environment, and lines of the file that MANA_CONFIG_FILE names: `mana-core-auth --help` \
    lists them, `mana-core-auth config check` shows what is in force.";

/// The same, where they are listed.
const ALL: &str = "A flag wins over the environment, the environment over the file that MANA_CONFIG_FILE names (lines of NAME=value), the file \
    over the default. `mana-core-auth config check` shows what is in force.";

/// Has the help of each command show its own arguments, and where settings are. Those of `dev` are its own, too.
pub(super) fn out_of_sight(command: Command) -> Command {
    let is_of_dev = |arg: &Arg| arg.get_help_heading() == Some(DEVELOPMENT);
    let is_setting = |arg: &Arg| arg.get_help_heading().is_some();
    let command = command.mut_args(|arg| {
        let is_long = is_setting(&arg) && !is_of_dev(&arg);
        if is_long { arg.hide_short_help(true) } else { arg }
    });
    // What a subcommand has already is not handed down to it.
    let hidden = command.get_arguments().filter(|arg| is_setting(arg)).map(|arg| arg.clone().hide(true));
    let all: Vec<Arg> = hidden.collect();
    let but_of_dev: Vec<Arg> = all.iter().filter(|arg| !is_of_dev(arg)).cloned().collect();
    let command = command.mut_subcommands(|command| {
        let settings = if command.get_name() == "dev" { &but_of_dev } else { &all };
        hidden_in(command, settings)
    });
    command.after_help(WHERE).after_long_help(ALL)
}

fn hidden_in(command: Command, settings: &[Arg]) -> Command {
    let command = command.args(settings.iter().cloned()).after_help(WHERE);
    command.mut_subcommands(|command| hidden_in(command, settings))
}

/// What is wrong with a setting of the environment or of the file, in one sentence; nothing if a flag is to blame, or something else.
pub(super) fn complaint(
    error: &clap::Error,
    known: &Command,
    (file, from_file): (Option<&PathBuf>, &[OsString]),
    flags: impl IntoIterator<Item = OsString>,
) -> Option<String> {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else { return None };
    let name: String = named
        .trim_start_matches('-')
        .chars()
        .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '-')
        .collect();
    let arg = known.get_arguments().find(|arg| arg.get_long() == Some(&name))?;
    let variable = arg.get_env()?.to_str()?;
    let flag = format!("--{name}");
    let is_given =
        |text: &str| text.strip_prefix(&flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
    if flags.into_iter().any(|text| text.to_str().is_some_and(is_given)) {
        return None;
    }
    let place = match file {
        Some(file) if from_file.iter().any(|name| *name == *variable) => format!(" in {}", file.display()),
        _ => " in the environment".to_owned(),
    };
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) if !arg.is_hide_env_values_set() => format!(" is '{value}', which"),
        _ => String::new(),
    };
    let reason = match (error.get(ContextKind::ValidValue), error.source()) {
        (Some(ContextValue::Strings(valid)), _) if !valid.is_empty() => {
            format!("it must be one of {}", valid.join(", "))
        }
        (_, Some(source)) => source.to_string(),
        (_, None) => "it is of another kind".to_owned(),
    };
    let example = example(arg).map(|value| format!(". An example: {variable}={value}")).unwrap_or_default();
    Some(format!("{variable}{place}{value} can't be used: {reason}{example}"))
}

/// A value that can be used: the default, or one as it could be.
fn example(arg: &Arg) -> Option<String> {
    let values: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !values.is_empty() {
        return Some(values.join(","));
    }
    let example = match arg.get_env()?.to_str()? {
        "HOST" => "127.0.0.1",
        "INTERNAL_ADDRESS" => "10.0.0.5:9090",
        "BASE_URL" => "https://auth.example.com",
        "COOKIE_DOMAIN" => "example.com",
        "FRONTEND_URL" => "https://app.example.com",
        "TRUSTED_PROXIES" => "10.0.0.0/8,fd00::/8",
        "PASSKEY_ORIGINS" => "https://shop.example.org",
        "PASSWORD_RANGE_URL" => "https://api.pwnedpasswords.com/range/",
        "HASHING_THREADS" => "4",
        "SMTP_PORT" => "587",
        "SMTP_TLS" => "starttls",
        "RATE_LIMIT_REFRESH" => "1000",
        "OTEL_EXPORTER_OTLP_ENDPOINT" => "http://localhost:4318",
        "WEBHOOK_PRIVATE_NETWORKS" | "OAUTH_PRIVATE_NETWORKS" => "10.1.0.0/16",
        "EPHEMERAL" => "true",
        _ => return None,
    };
    Some(example.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::config::from_environment;

    /// What parsing one flag comes to.
    fn parsed(arg: &Arg, value: &str) -> Result<(), clap::Error> {
        let command = super::super::command().mut_args(|arg| arg.env(clap::builder::Resettable::Reset));
        let flag = format!("--{}={value}", arg.get_long().unwrap());
        command.try_get_matches_from(["test", &flag]).map(|_| ())
    }

    #[test]
    fn each_setting_that_can_be_wrong_has_an_example_that_is_not() {
        let command = super::super::command();
        for arg in command.get_arguments().filter(|arg| arg.get_env().is_some()) {
            let takes_values = arg.get_action().takes_values();
            let can_be_wrong = takes_values && parsed(arg, "~ ~").is_err();
            if let Some(example) = example(arg).filter(|_| takes_values) {
                parsed(arg, &example).unwrap_or_else(|error| panic!("{error}"));
            } else {
                assert!(!can_be_wrong, "{arg:?} has no example");
            }
        }
    }

    #[test]
    fn no_subcommand_shows_settings() {
        let configured = from_environment(super::super::command()).unwrap();
        let mut command = out_of_sight(configured.command);
        command.build();
        let long = command.render_long_help().to_string();
        assert!(long.contains("[env: BASE_URL]") && long.contains("--jwt-issuer"), "{long}");
        let short = command.render_help().to_string();
        assert!(!short.contains("--jwt-issuer") && short.contains("MANA_CONFIG_FILE"), "{short}");
        no_setting_below(&mut command);
    }

    fn no_setting_below(command: &mut Command) {
        for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let help = command.render_long_help().to_string();
            let name = command.get_name();
            assert!(help.lines().count() < 70 && !help.contains("--jwt-issuer"), "{name}: {help}");
            assert_eq!(help.contains("--data-dir"), name == "dev", "{name}: {help}");
            assert!(help.contains("MANA_CONFIG_FILE") && help.contains("--json"), "{name}: {help}");
            no_setting_below(command);
        }
    }
}
