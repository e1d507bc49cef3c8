//! The same service in two arrangements beside each other, on one database.

use super::Arguments;
use super::path::Path;
use super::people::{BONUS, People};
use super::rounds::{COLUMNS, COSTS, Rounds, change};
use crate::error::BenchError;
use crate::neighbours;
use crate::report::{head, row};
use crate::stage::Stage;
use crate::wallets::Signer;
use std::net::SocketAddr;

/// Loads that are measured in each arrangement, and on how many connections.
const LOADS: [(Path, usize); 4] =
    [(Path::Spend, 32), (Path::Spend, 256), (Path::Validate, 64), (Path::Refresh, 64)];
/// Limits that are counted and never reached: all that a window of a second takes.
const WIDE_LIMITS: [(&str, &str); 3] =
    [("RATE_LIMIT_MAX", "10000000"), ("RATE_LIMIT_TTL", "1"), ("RATE_LIMIT_REFRESH", "10000000")];
/// What fills the stage comes from one address too.
const WIDE_LIMITS_OF_SEEDING: [(&str, &str); 2] =
    [("RATE_LIMIT_REGISTER", "10000000"), ("RATE_LIMIT_LOGIN", "10000000")];

/// An arrangement: servers that get the connections in turn.
struct Arrangement {
    name: &'static str,
    servers: Vec<SocketAddr>,
}

/// One server, and two on the same processors.
pub(super) async fn measure_replicas(arguments: &Arguments) -> Result<(), BenchError> {
    let signer = Signer::new()?;
    let settings = [BONUS, ("JWT_PRIVATE_KEY", signer.pem.as_str())];
    let mut stage = Stage::build(&arguments.stage, &settings).await?;
    let first = stage.server.address;
    let second = stage.add_server(&arguments.stage, &settings).await?;
    let arrangements = [
        Arrangement { name: "one server", servers: vec![first] },
        Arrangement { name: "two servers", servers: vec![first, second] },
    ];
    compare("One replica and two", &stage, arguments, &signer, &arrangements).await
}

/// A server that is connected directly, and one by way of PgBouncer.
pub(super) async fn measure_pooler(arguments: &Arguments) -> Result<(), BenchError> {
    let signer = Signer::new()?;
    let settings = [BONUS, ("JWT_PRIVATE_KEY", signer.pem.as_str())];
    let mut stage = Stage::build(&arguments.stage, &settings).await?;
    let (pooler, url) = neighbours::pooler(&stage.postgres).await?;
    stage.neighbours.push(pooler);
    let by_pooler = [&settings[..], &[("DATABASE_URL", url.as_str())]].concat();
    let second = stage.add_server(&arguments.stage, &by_pooler).await?;
    let arrangements = [
        Arrangement { name: "directly", servers: vec![stage.server.address] },
        Arrangement { name: "through PgBouncer", servers: vec![second] },
    ];
    let title = if url.contains("statement-cache-capacity=0") {
        "PgBouncer in transaction mode, which keeps no prepared statements apart"
    } else {
        "PgBouncer in transaction mode, which keeps prepared statements apart"
    };
    compare(title, &stage, arguments, &signer, &arrangements).await
}

/// A server that counts limits by itself, and one that counts them in Redis.
pub(super) async fn measure_redis(arguments: &Arguments) -> Result<(), BenchError> {
    let signer = Signer::new()?;
    let mut settings = vec![BONUS, ("JWT_PRIVATE_KEY", signer.pem.as_str())];
    settings.extend(WIDE_LIMITS);
    settings.extend(WIDE_LIMITS_OF_SEEDING);
    let mut stage = Stage::build(&arguments.stage, &settings).await?;
    let (redis, url) = neighbours::redis().await?;
    stage.neighbours.push(redis);
    settings.push(("REDIS_URL", url.as_str()));
    let second = stage.add_server(&arguments.stage, &settings).await?;
    let arrangements = [
        Arrangement { name: "limits in the process", servers: vec![stage.server.address] },
        Arrangement { name: "limits in Redis", servers: vec![second] },
    ];
    compare("Limits that count each request", &stage, arguments, &signer, &arrangements).await
}

async fn compare(
    title: &str,
    stage: &Stage,
    arguments: &Arguments,
    signer: &Signer,
    arrangements: &[Arrangement; 2],
) -> Result<(), BenchError> {
    let people = People::settle_in(stage, arguments, signer).await?;
    head(
        title,
        &[&["load", "connections", "arrangement"], &COLUMNS[..], &["rate beside the first"], &COSTS[..]]
            .concat(),
    );
    for (path, connections) in LOADS {
        let mut sides = [Rounds::default(), Rounds::default()];
        for round in 1..=arguments.rounds {
            eprintln!(
                "measuring: {} on {connections} connections, round {round} of {}",
                path.name(),
                arguments.rounds
            );
            let mut turn: Vec<_> = arrangements.iter().zip(&mut sides).collect();
            if round % 2 == 0 {
                turn.reverse();
            }
            for (arrangement, side) in turn {
                side.add(
                    path.run(stage, &arrangement.servers, &people, connections, arguments.times()).await?,
                )?;
            }
        }
        let first = sides.first().map_or(f64::NAN, Rounds::rate);
        for (arrangement, side) in arrangements.iter().zip(&sides) {
            let beside = format!("{:+.0} %", change(first, side.rate()));
            row(&[
                vec![path.name().to_owned(), connections.to_string(), arrangement.name.to_owned()],
                side.cells(),
                vec![beside],
                side.costs(),
            ]
            .concat());
        }
    }
    Ok(())
}
