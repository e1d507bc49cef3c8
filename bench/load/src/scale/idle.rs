//! What lies still costs: bytes in the database, and memory of the service.

use super::Arguments;
use super::people::BONUS;
use super::rounds::megabytes;
use crate::connection::{Connection, get_as};
use crate::error::BenchError;
use crate::report::{head, row, whole};
use crate::seed::{self, Session};
use crate::stage::Stage;
use crate::storage::{self, Table};
use crate::tally::as_number;
use crate::wallets::{self, Signer};
use std::time::Duration;

/// Users whose rows are weighed. Each registers and signs in once.
const WEIGHED: usize = 1_000;
/// Requests before memory is looked at first: what is made once for all is made then.
const WARM_UP: u32 = 5_000;
/// What a request leaves behind for a moment is given back within this.
const SETTLE: Duration = Duration::from_secs(3);
const BALANCE: &str = "/api/v1/credits/balance";

pub(super) async fn measure(arguments: &Arguments) -> Result<(), BenchError> {
    let signer = Signer::new()?;
    // Idle ones, and those that fill the stage.
    let connections = (arguments.idle_connections + 100).to_string();
    let settings =
        [BONUS, ("JWT_PRIVATE_KEY", signer.pem.as_str()), ("MAX_CONNECTIONS", connections.as_str())];
    let stage = Stage::build(&arguments.stage, &settings).await?;
    // A page of each table and index is there before anybody is weighed.
    let first = seed::sessions(stage.server.address, 0..1, 1).await?;
    let pattern = first.first().ok_or(BenchError::NotUnderstood("a registration"))?;
    measure_database(&stage).await?;
    measure_memory(&stage, arguments, &signer, pattern).await
}

async fn measure_database(stage: &Stage) -> Result<(), BenchError> {
    let before = tables(stage).await?;
    seed::sessions(stage.server.address, 1..WEIGHED + 1, 1).await?;
    let after = tables(stage).await?;
    head(
        &format!("The database, for {WEIGHED} users who registered and signed in once"),
        &["table", "kB with its indexes", "of it indexes"],
    );
    let (mut heaps, mut indexes) = (0, 0);
    for (then, now) in before.iter().zip(&after) {
        let more = |of: fn(&Table) -> i64| u64::try_from(of(now) - of(then)).unwrap_or_default();
        let (heap, index) = (more(|table| table.heap_bytes), more(|table| table.index_bytes));
        if heap + index > 0 {
            print_bytes(&now.name, heap, index);
        }
        heaps += heap;
        indexes += index;
    }
    print_bytes("all", heaps, indexes);
    Ok(())
}

async fn tables(stage: &Stage) -> Result<Vec<Table>, BenchError> {
    seed::settle(&stage.postgres).await?;
    storage::tables(&stage.postgres, "^(auth|credits)\\.").await
}

fn print_bytes(name: &str, heap: u64, index: u64) {
    let kilobytes = |bytes: u64| whole(as_number(bytes) / 1_000.0);
    row(&[name.to_owned(), kilobytes(heap + index), kilobytes(index)]);
}

/// Resident memory before and after sessions were seen, and while connections are open.
async fn measure_memory(
    stage: &Stage,
    arguments: &Arguments,
    signer: &Signer,
    pattern: &Session,
) -> Result<(), BenchError> {
    let server = stage.server.address;
    let request = get_as(&pattern.access_token, BALANCE);
    let mut connection = Connection::open(server).await?;
    for _ in 0..WARM_UP {
        connection.exchange(&request).await?;
    }
    head("The service's memory", &["when", "resident MB", "kB for each of what was added"]);
    let start = resident(stage).await?;
    print_memory("after 5,000 requests of one user", start, None);

    let count = arguments.idle_sessions;
    wallets::spread(server, &stage.postgres, signer, pattern, count).await?;
    let with_sessions = resident(stage).await?;
    print_memory(&format!("{count} more sessions, each seen once"), with_sessions, Some((start, count)));

    let count = arguments.idle_connections;
    eprintln!("opening {count} connections");
    let mut idle = Vec::new();
    for _ in 0..count {
        let mut connection = Connection::open(server).await?;
        connection.exchange(&request).await?;
        idle.push(connection);
    }
    let with_connections = resident(stage).await?;
    let what = format!("and {count} connections that rest after a request each");
    print_memory(&what, with_connections, Some((with_sessions, count)));
    drop(idle);
    print_memory("once they are closed", resident(stage).await?, None);
    Ok(())
}

fn print_memory(when: &str, bytes: u64, added: Option<(u64, u32)>) {
    let each = added.map(|(before, count)| {
        format!("{:.2}", as_number(bytes.saturating_sub(before)) / f64::from(count) / 1_000.0)
    });
    row(&[when.to_owned(), format!("{:.1}", megabytes(bytes)), each.unwrap_or_default()]);
}

/// What the service has in memory, once it has settled.
async fn resident(stage: &Stage) -> Result<u64, BenchError> {
    tokio::time::sleep(SETTLE).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", stage.server.id()))?;
    read_resident(&status).ok_or(BenchError::NotUnderstood("the memory of a process"))
}

fn read_resident(status: &str) -> Option<u64> {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kilobytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_read() {
        assert_eq!(read_resident("Name:\tmana\nVmRSS:\t   14336 kB\nThreads:\t4\n"), Some(14_680_064));
        assert_eq!(read_resident("Name:\tmana\n"), None);
    }
}
