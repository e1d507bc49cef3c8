//! `service-keys`: the keys by which apps act for users.

use super::{CommandError, print, written};
use crate::source::Source;
use clap::Subcommand;
use mana_auth::service_key::{self, CreatedServiceKey, NewServiceKey, PerMinute, ServiceKeyDetails};
use mana_kernel::Line;
use mana_kernel::text::InvalidText;
use mana_platform::http::{Scope, Scopes};
use mana_platform::{Settings, SystemClock, SystemRng};
use serde_json::json;
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub(super) enum ServiceKeysCommand {
    /// Make a key and print it; nothing prints it again
    Create {
        /// What you know it by
        #[arg(long, value_parser = line::<100>)]
        name: Line<1, 100>,
        /// The only app that it acts as; without it, each request names the app, in X-App-Id or as its appId
        #[arg(long, value_parser = line::<128>)]
        app: Option<Line<1, 128>>,
        /// What it allows; several by repeating it or separated by commas
        #[arg(long, value_enum, required = true, num_args = 1.., value_delimiter = ',')]
        scope: Vec<Scope>,
        /// Requests a minute at most; without it, as many as it likes
        #[arg(long, value_parser = per_minute)]
        limit_per_minute: Option<PerMinute>,
    },
    /// List the keys, without what they are
    List,
    /// Accept a key no more, anywhere within five seconds
    Revoke {
        /// As `list` prints it
        id: Uuid,
    },
}

/// Does what a command says.
pub(super) async fn run(
    command: &ServiceKeysCommand,
    settings: &Settings,
    source: Source,
    json: bool,
) -> Result<(), CommandError> {
    let database = source.database(settings);
    match command {
        ServiceKeysCommand::Create { name, app, scope, limit_per_minute } => {
            let scopes: Scopes = scope.iter().copied().collect();
            let new = NewServiceKey {
                name: name.clone(),
                app_id: app.clone(),
                scopes: scopes.try_into().map_err(CommandError::NoScope)?,
                limit_per_minute: *limit_per_minute,
            };
            created(&service_key::create(&database, &SystemClock, &SystemRng, &new).await?, json)
        }
        ServiceKeysCommand::List => list(&service_key::list(&database).await?, json),
        ServiceKeysCommand::Revoke { id } => {
            if service_key::revoke(&database, &SystemClock, &SystemRng, *id).await? {
                revoked(*id, json)
            } else {
                Err(CommandError::NoServiceKey(*id))
            }
        }
    }
}

fn created(created: &CreatedServiceKey, json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(print::line(&serde_json::to_string_pretty(created)?)?);
    }
    print::line(created.key.expose())?;
    let (key, [app, scopes, limit]) = (&created.details, allowed(&created.details));
    print::line(&format!("{}  {}  {app}  {scopes}  {limit}", key.id, key.name))?;
    Ok(print::line("Send it as X-Service-Key. It is not stored and not shown again.")?)
}

fn list(keys: &[ServiceKeyDetails], json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(print::line(&serde_json::to_string_pretty(keys)?)?);
    }
    if keys.is_empty() {
        return Ok(print::line("There is no service key yet: `service-keys create` makes one.")?);
    }
    let rows = keys.iter().map(|key| {
        let state = match (key.revoked_at, key.last_used_at) {
            (Some(end), _) => format!("REVOKED {}", written(end)),
            (None, Some(used)) => format!("last used {}", written(used)),
            (None, None) => "never used".to_owned(),
        };
        let [app, scopes, limit] = allowed(key);
        [key.id.clone(), key.name.clone(), app, scopes, limit, state]
    });
    let headings = ["ID", "NAME", "ACTS AS", "SCOPES", "LIMIT", "STATE"];
    Ok(print::table(headings, &rows.collect::<Vec<_>>())?)
}

/// `app mail`, `credits:read,credits:spend` and `600/min`.
fn allowed(key: &ServiceKeyDetails) -> [String; 3] {
    let app = key.app_id.as_ref().map_or("any app".to_owned(), |app| format!("app {app}"));
    let scopes = key.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(",");
    let limit = key.limit_per_minute.map_or("no limit".to_owned(), |limit| format!("{limit}/min"));
    [app, scopes, limit]
}

fn revoked(id: Uuid, json: bool) -> Result<(), CommandError> {
    let text = if json {
        json!({ "revoked": id }).to_string()
    } else {
        format!("{id} is revoked; running servers refuse it within five seconds.")
    };
    Ok(print::line(&text)?)
}

fn line<const MAX: usize>(text: &str) -> Result<Line<1, MAX>, InvalidText> {
    Line::try_from(text.to_owned())
}

fn per_minute(text: &str) -> Result<PerMinute, String> {
    let number = text.parse::<i64>().map_err(|error| error.to_string())?;
    PerMinute::try_from(number).map_err(|error| error.to_string())
}
