//! What PostgreSQL alone spends on the same machine: one prepared statement per spend, sent by pgbench.

use crate::error::BenchError;
use crate::postgres::Postgres;
use crate::report::{head, row, whole};
use sqlx::{Connection as _, PgConnection};
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

const DATABASE: &str = "yardstick";
const CLIENTS: [u32; 6] = [1, 4, 8, 16, 32, 64];

/// A hand-written ledger: a balance that can't go below zero, and a journal in which a key stands once.
const SCHEMA: &str = "
    CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0)) WITH (fillfactor = 70);
    CREATE TABLE journal (
        id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        account_id      bigint      NOT NULL,
        amount          bigint      NOT NULL,
        balance_after   bigint      NOT NULL,
        app_id          text        NOT NULL,
        description     text        NOT NULL,
        idempotency_key text        NOT NULL UNIQUE,
        created_at      timestamptz NOT NULL DEFAULT now()
    );
    INSERT INTO accounts SELECT n, 1000000000 FROM generate_series(1, 10000) AS n;";
const SPEND: &str = r"\set key random(1, 9000000000000000000)
WITH spent AS (UPDATE accounts SET balance = balance - 1 WHERE id = :account AND balance >= 1 RETURNING id, balance) INSERT INTO journal (account_id, amount, balance_after, app_id, description, idempotency_key) SELECT id, -1, balance, 'bench', 'An answer', 'bench-' || :key FROM spent;
";
const SPREAD: &str = r"\set account random(1, 10000)";
const HOT: &str = r"\set account 1";

/// The highest rates, in spends a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Best {
    pub(crate) spread: f64,
    pub(crate) hot: f64,
}

/// What one run of pgbench came to.
struct Run {
    spends: u64,
    rate: f64,
    mean_millis: f64,
}

/// Measures and prints, `time` for each number of clients.
pub(crate) async fn measure(postgres: &Postgres, time: Duration) -> Result<Best, BenchError> {
    postgres.create_database(DATABASE).await?;
    let mut owner = PgConnection::connect_with(&postgres.owner_options().database(DATABASE)).await?;
    sqlx::raw_sql(SCHEMA).execute(&mut owner).await?;
    for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
        sqlx::query(statement).execute(&mut owner).await?;
    }
    head(
        "pgbench: one prepared statement per spend",
        &["clients", "10,000 accounts, spends/s", "mean ms", "one account, spends/s", "mean ms"],
    );
    let mut best = Best { spread: 0.0, hot: 0.0 };
    let mut spends = 0;
    for clients in CLIENTS {
        eprintln!("measuring: pgbench with {clients} clients");
        let spread = run(postgres, SPREAD, clients, time).await?;
        let hot = run(postgres, HOT, clients, time).await?;
        best = Best { spread: best.spread.max(spread.rate), hot: best.hot.max(hot.rate) };
        spends += spread.spends + hot.spends;
        let cells = |run: &Run| [whole(run.rate), format!("{:.2}", run.mean_millis)];
        row(&[vec![clients.to_string()], cells(&spread).to_vec(), cells(&hot).to_vec()].concat());
    }
    // What was counted has happened.
    let (lines, taken): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM journal), (SELECT sum(1000000000 - balance) FROM accounts)::bigint",
    )
    .fetch_one(&mut owner)
    .await?;
    if [lines, taken].iter().any(|&count| u64::try_from(count) != Ok(spends)) {
        let difference = format!("{spends} spends, {lines} lines, {taken} taken");
        return Err(BenchError::Program("the yardstick", difference));
    }
    Ok(best)
}

async fn run(postgres: &Postgres, account: &str, clients: u32, time: Duration) -> Result<Run, BenchError> {
    let mut command = postgres.program("pgbench", DATABASE);
    command.args(["--no-vacuum", "--protocol=prepared", "--file=-"]);
    command.arg(format!("--client={clients}"));
    command.arg(format!("--jobs={}", u64::from(clients).min(crate::processors::processors())));
    command.arg(format!("--time={}", time.as_secs().max(1)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let script = format!("{account}\n{SPEND}");
    // If the measurement is stopped, so is the database, and pgbench ends by that.
    let wait = move || {
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(script.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = tokio::task::spawn_blocking(wait).await??;
    if !output.status.success() {
        return Err(BenchError::Program("pgbench", String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    read(&String::from_utf8_lossy(&output.stdout)).ok_or(BenchError::NotUnderstood("what pgbench says"))
}

fn read(text: &str) -> Option<Run> {
    let number = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()
    };
    Some(Run {
        spends: number("number of transactions actually processed: ")?.parse().ok()?,
        rate: number("tps = ")?.parse().ok()?,
        mean_millis: number("latency average = ")?.parse().ok()?,
    })
}

/// Prints what the service reaches of it.
pub(crate) fn compare(service: &[(&str, f64, f64)]) {
    head("The service beside pgbench", &["load", "service/s", "pgbench/s", "service / pgbench"]);
    for (load, ours, theirs) in service {
        row(&[(*load).to_owned(), whole(*ours), whole(*theirs), format!("{:.2}", ours / theirs)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_says_is_read() {
        let text = "pgbench (15.14)\ntransaction type: -\nnumber of transactions actually processed: 2931\n\
                    latency average = 0.682 ms\ninitial connection time = 1.9 ms\n\
                    tps = 1465.906 (without initial connection time)\n";
        let run = read(text).unwrap();
        assert_eq!(
            (run.spends, whole(run.rate), run.mean_millis.to_string().as_str()),
            (2931, "1,466".into(), "0.682")
        );
        assert!(read("pgbench: error").is_none());
    }
}
