//! `webhooks`: the endpoints at which apps hear of what happens.

use super::{CommandError, print, written};
use crate::source::Source;
use crate::{app, dev};
use clap::{Args, Subcommand};
use mana_auth::webhook::model::{
    AppName, CreatedWebhook, DeliveryState, EventType, NewWebhook, SomeEvents, WebhookDetails,
};
use mana_auth::webhook::{
    EventId, OverlapHours, ReplayRequest, WebhookDelivery, add, enable, list, list_deliveries, remove,
    replay, rotate_secret,
};
use mana_kernel::text::InvalidText;
use mana_kernel::{Amount, Timestamp};
use mana_platform::{Settings, SystemClock, SystemRng};
use serde_json::json;
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub(super) enum WebhooksCommand {
    /// Add an endpoint to an app and print its secret; nothing prints it again
    Add(AddArgs),
    /// List the endpoints, without their secrets, and what is wrong with them
    List {
        /// Of one app
        #[arg(long, value_parser = app_name)]
        app: Option<AppName>,
    },
    /// Remove an endpoint, with what waits for it
    Remove {
        /// As `list` prints it
        id: Uuid,
    },
    /// Have an endpoint told again that was given up: also what happened meanwhile
    Enable {
        /// As `list` prints it
        id: Uuid,
    },
    /// Replace the secret of an endpoint and print the new one; nothing prints it again
    RotateSecret {
        /// As `list` prints it
        id: Uuid,
        /// Hours in which deliveries are signed with the secret before as well, 0 for one that has leaked
        #[arg(long, default_value = "24", value_parser = overlap)]
        overlap_hours: OverlapHours,
    },
    /// List what an endpoint was to be told, the newest first
    Deliveries {
        /// As `list` prints it
        id: Uuid,
        /// Only those that were given up
        #[arg(long)]
        dead: bool,
        /// Deliveries at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// Tell an endpoint again: of events, or of all that it has not taken within a time
    Replay {
        /// As `list` prints it
        id: Uuid,
        /// This event; several by repeating it
        #[arg(long, conflicts_with = "from", required_unless_present = "from")]
        event: Vec<Uuid>,
        /// From when on, as 2026-01-31T12:00:00Z
        #[arg(long)]
        from: Option<Timestamp>,
        /// Before when; until now if absent
        #[arg(long, requires = "from")]
        to: Option<Timestamp>,
        /// Also what it has taken
        #[arg(long, requires = "from")]
        delivered: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The app
    #[arg(long, value_parser = app_name)]
    app: AppName,
    /// Where it is: https, and of the public internet or of `WEBHOOK_PRIVATE_NETWORKS`
    #[arg(long, value_parser = url)]
    url: mana_kernel::Line<1, 2048>,
    /// What it hears of: credits.spent, credits.low, purchase.completed, user.deleted, session.revoked; several by repeating it or separated by commas
    #[arg(long, required = true, num_args = 1.., value_delimiter = ',')]
    event: Vec<EventType>,
    /// The smallest spend that it hears of
    #[arg(long, default_value = "1", value_parser = amount)]
    spent_from: Amount,
}

/// Does what a command says.
pub(super) async fn run(
    command: &WebhooksCommand,
    settings: &Settings,
    source: Source,
    json: bool,
) -> Result<(), CommandError> {
    let database = source.database(settings);
    let by: (&dyn mana_kernel::Clock, &dyn mana_kernel::Rng) = (&SystemClock, &SystemRng);
    let text = match command {
        WebhooksCommand::Add(AddArgs { app, url, event, spent_from }) => {
            let events = SomeEvents::try_from(event.clone()).map_err(CommandError::NoEvents)?;
            let new = NewWebhook { url: url.clone(), events, spent_from: Some(*spent_from) };
            // Without an address, the database is that of `dev`.
            let outbound = match settings.database_url {
                Some(_) => app::outbound_for_webhooks(settings)?,
                None => app::outbound_for_webhooks(&dev::with_local_endpoints(settings))?,
            };
            return added(&add(&database, &source.root_secrets, by, &outbound, app, &new).await?, json);
        }
        WebhooksCommand::List { app } => return listed(&list(&database, app.as_ref()).await?, json),
        WebhooksCommand::Deliveries { id, dead, limit } => {
            let state = dead.then_some(DeliveryState::Dead);
            return deliveries(&list_deliveries(&database, *id, state, *limit).await?, json);
        }
        WebhooksCommand::RotateSecret { id, overlap_hours } => {
            let rotated = rotate_secret(&database, &source.root_secrets, by, *id, *overlap_hours).await?;
            if json {
                return Ok(print::line(&serde_json::to_string_pretty(&rotated)?)?);
            }
            print::line(rotated.secret.expose())?;
            format!(
                "Deliveries are signed with it from now on, and with the one before until {}. It is not shown again.",
                written(rotated.old_expires_at)
            )
        }
        WebhooksCommand::Remove { id } => {
            remove(&database, by, *id).await?;
            if json { json!({ "removed": id }).to_string() } else { format!("{id} is removed.") }
        }
        WebhooksCommand::Enable { id } => {
            enable(&database, by, *id).await?;
            if json {
                json!({ "enabled": id }).to_string()
            } else {
                format!("{id} is told what waits for it.")
            }
        }
        WebhooksCommand::Replay { id, event, from, to, delivered } => {
            let request = ReplayRequest {
                event_ids: event.iter().copied().map(EventId).collect(),
                from: *from,
                to: *to,
                includes_delivered: *delivered,
            };
            let replayed = replay(&database, by, *id, &request).await?;
            if json {
                serde_json::to_string(&replayed)?
            } else {
                format!("{id} is told of {} events again.", replayed.replayed)
            }
        }
    };
    Ok(print::line(&text)?)
}

fn added(created: &CreatedWebhook, json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(print::line(&serde_json::to_string_pretty(created)?)?);
    }
    print::line(created.secret.expose())?;
    let endpoint = &created.details;
    print::line(&format!(
        "{}  app {}  {}  {}",
        endpoint.id,
        endpoint.app_id,
        endpoint.url,
        events(endpoint)
    ))?;
    Ok(print::line(
        "Deliveries are signed with the secret: docs/WEBHOOKS.md says how. It is not shown again.",
    )?)
}

fn listed(endpoints: &[WebhookDetails], json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(print::line(&serde_json::to_string_pretty(endpoints)?)?);
    }
    if endpoints.is_empty() {
        return Ok(print::line("There is no endpoint yet: `webhooks add` makes one.")?);
    }
    let rows = endpoints.iter().map(|endpoint| {
        let state = match (endpoint.disabled_at, endpoint.failing_since) {
            (Some(since), _) => format!("DISABLED {}", written(since)),
            (None, Some(since)) => format!("FAILING since {}", written(since)),
            (None, None) => "good".to_owned(),
        };
        let error = endpoint.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        [
            endpoint.id.to_string(),
            endpoint.app_id.clone(),
            endpoint.url.clone(),
            events(endpoint),
            endpoint.waiting.to_string(),
            endpoint.dead.to_string(),
            format!("{state}{error}"),
        ]
    });
    let headings = ["ID", "APP", "URL", "EVENTS", "WAITING", "DEAD", "STATE"];
    Ok(print::table(headings, &rows.collect::<Vec<_>>())?)
}

/// `credits.spent>=100,credits.low`
fn events(endpoint: &WebhookDetails) -> String {
    let events = endpoint.events.iter().map(|event| {
        let name = event.as_str();
        if *event == EventType::CreditsSpent {
            format!("{name}>={}", endpoint.spent_from)
        } else {
            name.to_owned()
        }
    });
    events.collect::<Vec<_>>().join(",")
}

fn deliveries(deliveries: &[WebhookDelivery], json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(print::line(&serde_json::to_string_pretty(deliveries)?)?);
    }
    if deliveries.is_empty() {
        return Ok(print::line("There is no such delivery.")?);
    }
    let rows = deliveries.iter().map(|delivery| {
        [
            delivery.event_id.to_string(),
            written(delivery.created_at),
            delivery.r#type.clone(),
            delivery.state.as_str().to_owned(),
            delivery.attempts.to_string(),
            delivery.next_attempt_at.map_or("-".to_owned(), written),
            delivery.last_error.as_ref().map_or("-".to_owned(), ToString::to_string),
        ]
    });
    let headings = ["EVENT", "AT", "TYPE", "STATE", "ATTEMPTS", "NEXT", "LAST ERROR"];
    Ok(print::table(headings, &rows.collect::<Vec<_>>())?)
}

fn app_name(text: &str) -> Result<AppName, InvalidText> {
    AppName::try_from(text.to_owned())
}

fn url(text: &str) -> Result<mana_kernel::Line<1, 2048>, InvalidText> {
    mana_kernel::Line::try_from(text.to_owned())
}

fn amount(text: &str) -> Result<Amount, mana_kernel::mana::InvalidAmount> {
    text.parse::<i64>().map_err(|_| mana_kernel::mana::InvalidAmount).and_then(Amount::try_from)
}

fn overlap(text: &str) -> Result<OverlapHours, String> {
    let hours = text.parse::<i64>().map_err(|error| error.to_string())?;
    OverlapHours::try_from(hours).map_err(|error| error.to_string())
}
