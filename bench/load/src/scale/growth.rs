//! The hot paths on small tables, and on tables that have grown.

use super::Arguments;
use super::bulk::{Age, Bulk};
use super::path::Path;
use super::people::{BONUS, People};
use super::rounds::{Rounds, megabytes};
use crate::error::BenchError;
use crate::postgres::Postgres;
use crate::report::{head, row, whole};
use crate::stage::Stage;
use crate::storage;
use crate::tally::as_number;
use crate::wallets::Signer;
use std::collections::BTreeMap;

/// Few, so that it is the time of an answer that is measured and not what the processors can do.
const CONNECTIONS: usize = 4;
/// A hash takes a processor as long as hundreds of the other answers.
const HASHING_CONNECTIONS: usize = 1;
/// What the time of a path may grow by.
const ALLOWED_PERCENT: f64 = 20.0;

/// Two services on two databases, one of which gets the rows.
pub(super) async fn measure(arguments: &Arguments) -> Result<(), BenchError> {
    let signer = Signer::new()?;
    let settings = [BONUS, ("JWT_PRIVATE_KEY", signer.pem.as_str())];
    let small = Stage::build(&arguments.stage, &settings).await?;
    let grown = Stage::build(&arguments.stage, &settings).await?;
    let few = People::settle_in(&small, arguments, &signer).await?;
    let same = People::settle_in(&grown, arguments, &signer).await?;
    let bulk = Bulk { rows: arguments.rows, age: Age::Young };
    bulk.add_wallets(&grown.postgres, &same.pattern).await?;
    bulk.add_events(&grown.postgres).await?;
    bulk.add_sessions(&grown.postgres).await?;
    print_tables(&small.postgres, &grown.postgres).await?;
    head(
        &format!(
            "Hot paths on {CONNECTIONS} connections (those with a hash on {HASHING_CONNECTIONS}), on small tables and beside {} rows of each kind",
            whole(as_number(arguments.rows))
        ),
        &[
            "path",
            "small: p50 ms",
            "p99 ms",
            "service + PostgreSQL, µs each",
            "grown: p50 ms",
            "p99 ms",
            "service + PostgreSQL, µs each",
            "p50 changes by",
            "within 20 %",
            "not right",
            "rows read by scans of grown tables",
        ],
    );
    for path in Path::ALL {
        let mut sides = [Rounds::default(), Rounds::default()];
        let scanned = scanned(&grown.postgres).await?;
        for round in 1..=arguments.rounds {
            eprintln!("measuring: {}, round {round} of {}", path.name(), arguments.rounds);
            let mut turn: Vec<_> = [(&small, &few), (&grown, &same)].into_iter().zip(&mut sides).collect();
            if round % 2 == 0 {
                turn.reverse();
            }
            for ((stage, people), side) in turn {
                let servers = [stage.server.address];
                side.add(path.run(stage, &servers, people, connections(path), arguments.times()).await?)?;
            }
        }
        let scanned = since(&scanned, &self::scanned(&grown.postgres).await?);
        print(path, &sides, &scanned);
    }
    Ok(())
}

fn connections(path: Path) -> usize {
    if matches!(path, Path::Login | Path::Register) { HASHING_CONNECTIONS } else { CONNECTIONS }
}

fn print(path: Path, [small, grown]: &[Rounds; 2], scanned: &str) {
    let percent = grown.change_from(small);
    let costs = |side: &Rounds| side.costs().into_iter().take(2).collect::<Vec<_>>().join(" + ");
    row(&[
        path.name().to_owned(),
        format!("{:.3}", small.millis()),
        format!("{:.2}", small.p99()),
        costs(small),
        format!("{:.3}", grown.millis()),
        format!("{:.2}", grown.p99()),
        costs(grown),
        format!("{percent:+.1} %"),
        if percent <= ALLOWED_PERCENT { "yes" } else { "**no**" }.to_owned(),
        grown.failures(),
        scanned.to_owned(),
    ]);
}

/// Rows of each large table that were read by going through all of it, so far.
async fn scanned(postgres: &Postgres) -> Result<BTreeMap<String, i64>, BenchError> {
    tokio::time::sleep(storage::STATISTICS_LAG).await;
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT schemaname || '.' || relname, coalesce(seq_tup_read, 0) FROM pg_stat_user_tables
         WHERE schemaname IN ('auth', 'credits') AND n_live_tup >= 1000",
    )
    .fetch_all(&mut postgres.owner().await?)
    .await?;
    Ok(rows.into_iter().collect())
}

fn since(before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>) -> String {
    let read = after.iter().filter_map(|(table, rows)| {
        let rows = rows.checked_sub(before.get(table).copied().unwrap_or_default())?;
        (rows > 0).then(|| format!("{table}: {rows}"))
    });
    let words = read.collect::<Vec<_>>().join(", ");
    if words.is_empty() { "none".to_owned() } else { words }
}

async fn print_tables(small: &Postgres, grown: &Postgres) -> Result<(), BenchError> {
    head(
        "Tables",
        &[
            "table",
            "small: rows",
            "grown: rows",
            "grown: MB",
            "of it indexes",
            "bytes of a row with its index entries",
        ],
    );
    let names =
        "^(auth|credits)\\.(users|passwords|sessions|refresh_chains|security_events|balances|transactions)$";
    let before = storage::tables(small, names).await?;
    for (then, now) in before.iter().zip(storage::tables(grown, names).await?) {
        let number = |count: i64| u64::try_from(count).unwrap_or_default();
        let bytes = number(now.heap_bytes) + number(now.index_bytes);
        row(&[
            now.name.clone(),
            whole(as_number(number(then.rows))),
            whole(as_number(number(now.rows))),
            whole(megabytes(bytes)),
            whole(megabytes(number(now.index_bytes))),
            whole(megabytes(bytes) * 1e6 / as_number(number(now.rows).max(1))),
        ]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_read_since_is_named() {
        let counts =
            |pairs: &[(&str, i64)]| pairs.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect();
        let (before, after) = (counts(&[("a", 5), ("b", 5)]), counts(&[("a", 5), ("b", 7), ("c", 1)]));
        assert_eq!(since(&before, &after), "b: 2, c: 1");
        assert_eq!(since(&after, &after), "none");
    }
}
