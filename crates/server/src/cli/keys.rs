//! `keys`: the keys that sign access tokens, and the root secret that seals them.

use super::{Cli, CommandError, print, source_in_reach, written};
use crate::app;
use clap::Subcommand;
use mana_auth::oauth::rekey_tokens;
use mana_auth::token::keys::{self, ExaminedKey, KeyChest, RekeyOutcome, RekeyedKey, Rotation, SigningKey};
use mana_auth::token::root_secret::{Resealed, RootSecrets};
use mana_auth::two_factor::rekey_secrets;
use mana_auth::webhook::rekey_webhook_secrets;
use mana_platform::SystemRng;
use mana_platform::config::JwtAlgorithm;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Print a new key pair and root secret for the environment
    Generate {
        /// What the pair is for; `JWT_ALGORITHM` when not given
        #[arg(long, value_enum, ignore_case = true)]
        algorithm: Option<JwtAlgorithm>,
    },
    /// List the signing keys in the database
    List,
    /// Make the next signing key the current one; nobody is signed out
    Rotate {
        /// Also before everybody who verifies knows it, and in place of keys that can't be opened
        #[arg(long)]
        force: bool,
    },
    /// Seal the private keys, the tokens of other services and the secrets of authenticator apps and of endpoints under the first root secret, so that older ones can be left out
    Rekey,
}

/// Does what a command says. Only some need a database.
pub(super) async fn run(command: &KeysCommand, cli: &Cli) -> Result<(), CommandError> {
    match command {
        KeysCommand::Generate { algorithm } => generate(cli, *algorithm),
        KeysCommand::List => list(&chest(cli).await?.examine().await?, cli.json),
        KeysCommand::Rotate { force } => rotated(&chest(cli).await?.rotate(*force).await?, cli.json),
        KeysCommand::Rekey => {
            let chest = chest(cli).await?;
            let keys = chest.rekey().await?;
            let tokens = rekey_tokens(&chest.database, &chest.root_secrets, &*chest.rng).await?;
            let factors = rekey_secrets(&chest.database, &chest.root_secrets, &*chest.rng).await?;
            let webhooks = rekey_webhook_secrets(&chest.database, &chest.root_secrets, &*chest.rng).await?;
            let rows = [
                ("linked accounts", tokens),
                ("authenticator apps", factors),
                ("endpoints of apps", webhooks),
            ];
            rekeyed(&keys, &rows, cli.json)
        }
    }
}

async fn chest(cli: &Cli) -> Result<KeyChest, CommandError> {
    let source = source_in_reach(cli).await?;
    let database = source.database(&cli.settings);
    Ok(source.key_chest(&cli.settings, &database)?)
}

fn generate(cli: &Cli, algorithm: Option<JwtAlgorithm>) -> Result<(), CommandError> {
    let kind = app::key_kind(&cli.settings, algorithm.unwrap_or(cli.settings.jwt_algorithm));
    let private = keys::generate_pem(kind)?;
    let key = SigningKey::from_pem(&private)?;
    let in_one_line = |pem: &str| pem.trim().replace("\r\n", "\n").replace('\n', "\\n");
    print::line(&format!("JWT_PRIVATE_KEY=\"{}\"", in_one_line(private.expose_secret())))?;
    print::line(&format!("JWT_PUBLIC_KEY=\"{}\"", in_one_line(&key.public_pem()?)))?;
    let id = key.kid().chars().filter(char::is_ascii_alphanumeric).take(8).collect::<String>();
    Ok(print::line(&format!(
        "MANA_SECRET_KEY=\"{}\"",
        RootSecrets::generate(&id, &SystemRng).expose_secret()
    ))?)
}

fn list(keys: &[ExaminedKey], json: bool) -> Result<(), CommandError> {
    if json {
        let rows: Vec<Value> = keys
            .iter()
            .map(|key| {
                json!({
                    "kid": key.kid,
                    "algorithm": key.kind.algorithm(),
                    "state": key.state,
                    "createdAt": written(key.created_at),
                    "activatedAt": key.activated_at.map(written),
                    "retiredAt": key.retired_at.map(written),
                    "servedUntil": key.served_until.map(written),
                    "secretVersion": key.secret_version,
                    "problem": key.soundness.as_ref().err().map(ToString::to_string),
                })
            })
            .collect();
        return Ok(print::line(&serde_json::to_string_pretty(&rows)?)?);
    }
    if keys.is_empty() {
        return Ok(print::line("There is no key yet: the first start makes it.")?);
    }
    let rows = keys.iter().map(|key| {
        let since = key.retired_at.or(key.activated_at).unwrap_or(key.created_at);
        let sealed = match (&key.secret_version, key.served_until) {
            (Some(version), _) => format!("sealed under {version}"),
            (None, Some(end)) => format!("served until {}", written(end)),
            (None, None) => "from JWT_PRIVATE_KEY".to_owned(),
        };
        let problem = if key.soundness.is_err() { ", CAN'T BE OPENED: see `doctor`" } else { "" };
        let (state, kind) = (key.state.as_str().to_owned(), key.kind.to_string());
        [key.kid.clone(), state, kind, written(since), format!("{sealed}{problem}")]
    });
    Ok(print::table(["KEY", "STATE", "KIND", "SINCE", "PRIVATE HALF"], &rows.collect::<Vec<_>>())?)
}

fn rotated(rotation: &Rotation, json: bool) -> Result<(), CommandError> {
    let Rotation { old, new, old_served_until } = rotation;
    let old_served_until = written(*old_served_until);
    let text = if json {
        json!({"old": old, "new": new, "oldServedUntil": old_served_until}).to_string()
    } else {
        format!(
            "{new} signs from now on; running servers take it up within 15 seconds. {old} is served until {old_served_until}, \
             when the last token that it signed has expired. Nobody is signed out."
        )
    };
    Ok(print::line(&text)?)
}

/// Fails if a key is still closed: then the old secret must not be left out yet.
fn rekeyed(keys: &[RekeyedKey], rows: &[(&str, Resealed)], json: bool) -> Result<(), CommandError> {
    let told = |key: &RekeyedKey| match &key.outcome {
        RekeyOutcome::Kept { version } => ("kept", format!("is sealed under version {version} already")),
        RekeyOutcome::Resealed { from, to } => {
            ("resealed", format!("was sealed under version {from}, is now under {to}"))
        }
        RekeyOutcome::Closed(cause) => ("closed", format!("can't be opened: {cause}")),
    };
    if json {
        let rows = keys.iter().map(|key| {
            let (outcome, detail) = told(key);
            json!({"kid": key.kid, "state": key.state, "outcome": outcome, "detail": detail})
        });
        print::line(&serde_json::to_string_pretty(&rows.collect::<Vec<Value>>())?)?;
    } else {
        if keys.is_empty() {
            print::line("There is no private key in the database.")?;
        }
        for key in keys {
            print::line(&format!("{} ({}) {}.", key.kid, key.state.as_str(), told(key).1))?;
        }
        for (what, Resealed { resealed, closed }) in rows {
            if resealed.saturating_add(*closed) > 0 {
                print::line(&format!(
                    "Secrets of {resealed} {what} were sealed anew, those of {closed} can't be opened."
                ))?;
            }
        }
    }
    let closed = rows.iter().fold(0_u64, |sum, (_, rows)| sum.saturating_add(rows.closed));
    if closed > 0 {
        return Err(CommandError::StillClosedRows(closed));
    }
    match keys.iter().filter(|key| matches!(key.outcome, RekeyOutcome::Closed(_))).count() {
        0 => Ok(()),
        closed => Err(CommandError::StillClosed(closed)),
    }
}
