//! The hot paths while what is past its time is deleted by another replica, which does it as soon as it has started.

use super::Arguments;
use super::bulk::{Age, Bulk};
use super::path::Path;
use super::people::{BONUS, People};
use super::rounds::{COLUMNS, COSTS, Rounds, change};
use crate::error::BenchError;
use crate::postgres::Postgres;
use crate::report::{head, row, whole};
use crate::stage::Stage;
use crate::storage;
use crate::tally::as_number;
use crate::wallets::Signer;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 8;
const PATHS: [Path; 5] = [Path::Validate, Path::Refresh, Path::Spend, Path::Sessions, Path::Login];
/// How long a pass may take until it has deleted its first row: it looks at all sessions before the events.
const FIRST_DELETION: Duration = Duration::from_mins(5);

/// What is past its time.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// Of the tables that lose rows.
    tables: &'static str,
}

const EVENTS: Kind = Kind { name: "security events", tables: "^auth\\.security_events$" };
const SESSIONS: Kind =
    Kind { name: "sessions with their chains", tables: "^auth\\.(sessions|refresh_chains)$" };

pub(super) async fn measure(arguments: &Arguments) -> Result<(), BenchError> {
    let signer = Signer::new()?;
    let settings = [BONUS, ("JWT_PRIVATE_KEY", signer.pem.as_str())];
    let mut stage = Stage::build(&arguments.stage, &settings).await?;
    let people = People::settle_in(&stage, arguments, &signer).await?;
    let bulk = Bulk { rows: arguments.rows, age: Age::PastItsTime };
    bulk.add_events(&stage.postgres).await?;
    prune(&mut stage, arguments, &settings, &people, EVENTS).await?;
    bulk.add_sessions(&stage.postgres).await?;
    prune(&mut stage, arguments, &settings, &people, SESSIONS).await
}

/// Each path at rest and while another replica deletes, in turn. Starting that replica starts the deletion, stopping it ends it.
async fn prune(
    stage: &mut Stage,
    arguments: &Arguments,
    settings: &[(&str, &str)],
    people: &People,
    kind: Kind,
) -> Result<(), BenchError> {
    let mut sides = PATHS.map(|path| (path, [Rounds::default(), Rounds::default()]));
    let (mut rows, mut time) = (0, Duration::ZERO);
    for round in 1..=arguments.rounds {
        eprintln!(
            "measuring: {} of {} rounds, at rest and while {} are deleted",
            round, arguments.rounds, kind.name
        );
        for (path, [at_rest, _]) in &mut sides {
            at_rest.add(
                path.run(stage, &[stage.server.address], people, CONNECTIONS, arguments.times()).await?,
            )?;
        }
        let before = deleted(&stage.postgres, kind).await?;
        stage.add_server(&arguments.stage, settings).await?;
        await_deletion(&stage.postgres, kind, before).await?;
        let (begun, from) = (Instant::now(), deleted(&stage.postgres, kind).await?);
        for (path, [_, meanwhile]) in &mut sides {
            meanwhile.add(
                path.run(stage, &[stage.server.address], people, CONNECTIONS, arguments.times()).await?,
            )?;
        }
        time += begun.elapsed();
        let to = deleted(&stage.postgres, kind).await?;
        rows += to.saturating_sub(from);
        let goes_on = deleted(&stage.postgres, kind).await? > to;
        stage.more_servers.clear();
        if !goes_on {
            eprintln!("round {round}: all was deleted before its end; take more --rows or fewer --seconds");
        }
    }
    head(
        &format!("While {} are deleted, of {} rows", kind.name, whole(as_number(arguments.rows))),
        &[&["load", "on 8 connections"], &COLUMNS[..], &["p99 changes by"], &COSTS[..2]].concat(),
    );
    for (path, [at_rest, meanwhile]) in &sides {
        for (when, side, beside) in [
            ("at rest", at_rest, String::new()),
            ("meanwhile", meanwhile, format!("{:+.0} %", change(at_rest.p99(), meanwhile.p99()))),
        ] {
            let costs = side.costs().into_iter().take(2).collect();
            row(&[vec![path.name().to_owned(), when.to_owned()], side.cells(), vec![beside], costs].concat());
        }
    }
    println!(
        "\n{} rows a second were deleted beside these loads.",
        whole(as_number(rows) / time.as_secs_f64())
    );
    Ok(())
}

/// Rows that were deleted so far.
async fn deleted(postgres: &Postgres, kind: Kind) -> Result<u64, BenchError> {
    tokio::time::sleep(storage::STATISTICS_LAG).await;
    let count: i64 = sqlx::query_scalar(
        "SELECT coalesce(sum(n_tup_del), 0)::bigint FROM pg_stat_user_tables WHERE schemaname || '.' || relname ~ $1",
    )
    .bind(kind.tables)
    .fetch_one(&mut postgres.owner().await?)
    .await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Until more are deleted than that.
async fn await_deletion(postgres: &Postgres, kind: Kind, than: u64) -> Result<(), BenchError> {
    let begun = Instant::now();
    while deleted(postgres, kind).await? <= than {
        if begun.elapsed() > FIRST_DELETION {
            return Err(BenchError::NotReady(
                "the deletion of what is past its time".to_owned(),
                FIRST_DELETION,
            ));
        }
    }
    Ok(())
}
