//! What PostgreSQL alone spends on the same machine, sent by pgbench: as little as a spend can be, the same books as the service's, and as
//! applications write it.

use crate::error::BenchError;
use crate::postgres::Postgres;
use crate::report::{head, percent, row, whole};
use sqlx::{Connection as _, PgConnection};
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

const DATABASE: &str = "yardstick";
const CLIENTS: [u32; 6] = [1, 4, 8, 16, 32, 64];

/// A hand-written ledger: a balance that can't go below zero, and a journal in which a key stands once. Then the same with what
/// this service's books have besides: a person and a session that must live, what grants have left, a line with a sequence, the
/// slices it took and a hash over all before it, an answer that is remembered, and usage by day. **Adapt here** when the ledger writes more
/// or less for a spend.
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
    CREATE TABLE people (id text PRIMARY KEY, disabled_at timestamptz);
    CREATE TABLE sessions (
        id text PRIMARY KEY, person_id text NOT NULL, expires_at timestamptz NOT NULL, revoked_at timestamptz
    );
    CREATE TABLE wallets (
        id         bigint      PRIMARY KEY,
        person_id  text        NOT NULL UNIQUE,
        sequence   bigint      NOT NULL CHECK (sequence >= 0),
        free       bigint      NOT NULL CHECK (free >= 0),
        spent      bigint      NOT NULL CHECK (spent >= 0),
        head       bytea       NOT NULL CHECK (length(head) = 32),
        grants     json        NOT NULL,
        updated_at timestamptz NOT NULL
    ) WITH (fillfactor = 70);
    CREATE TABLE lines (
        wallet_id       bigint      NOT NULL,
        sequence        bigint      NOT NULL CHECK (sequence > 0),
        id              uuid        NOT NULL UNIQUE,
        type            text        NOT NULL,
        amount          bigint      NOT NULL CHECK (amount <> 0),
        balance_after   bigint      NOT NULL CHECK (balance_after >= 0),
        app_id          text        NOT NULL,
        description     text        NOT NULL,
        idempotency_key text,
        counter         text        NOT NULL,
        slice_grants    bigint[]    NOT NULL,
        slice_amounts   bigint[]    NOT NULL,
        created_at      timestamptz NOT NULL,
        hash            bytea       NOT NULL CHECK (length(hash) = 32),
        PRIMARY KEY (wallet_id, sequence)
    );
    CREATE TABLE answers (
        wallet_id bigint NOT NULL, key_digest uuid NOT NULL, request_digest bytea NOT NULL CHECK (length(request_digest) = 32),
        status smallint NOT NULL, body text NOT NULL, created_at timestamptz NOT NULL, PRIMARY KEY (wallet_id, key_digest)
    );
    CREATE TABLE usage (
        wallet_id bigint NOT NULL, day date NOT NULL, app_id text NOT NULL, spends bigint NOT NULL, spent bigint NOT NULL,
        PRIMARY KEY (wallet_id, day, app_id)
    ) WITH (fillfactor = 70);
    CREATE INDEX ON usage (day, app_id);
    CREATE FUNCTION spend(account bigint, key text) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE
        wallet  wallets%ROWTYPE;
        digest  bytea       := sha256(convert_to('user' || chr(10) || key, 'UTF8'));
        request bytea       := sha256(convert_to(account || ' 1 bench An answer', 'UTF8'));
        line    uuid        := gen_random_uuid();
        at      timestamptz := clock_timestamp();
        answer  text;
    BEGIN
        SELECT * INTO STRICT wallet FROM wallets WHERE id = account FOR UPDATE;
        PERFORM FROM people JOIN sessions ON sessions.person_id = people.id
            WHERE sessions.id = 'session-' || account AND people.id = wallet.person_id
                AND revoked_at IS NULL AND expires_at > at AND disabled_at IS NULL FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the session has ended';
        END IF;
        SELECT body INTO answer FROM answers
            WHERE wallet_id = account AND key_digest = encode(substring(digest FROM 1 FOR 16), 'hex')::uuid AND request_digest = request;
        IF FOUND THEN
            RETURN answer;
        END IF;
        IF (wallet.grants #>> '{0,remaining}')::bigint < 1 THEN
            RAISE EXCEPTION 'not enough';
        END IF;
        wallet.sequence := wallet.sequence + 1;
        wallet.free := wallet.free - 1;
        wallet.grants := json_build_array(json_build_object('sequence', 1, 'source', 'promotion',
            'remaining', (wallet.grants #>> '{0,remaining}')::bigint - 1, 'priority', 0, 'costMicros', 0));
        wallet.head := sha256(wallet.head || uuid_send(line) || int8send(account) || int8send(wallet.sequence) || int8send(-1)
            || int8send(wallet.free) || int8send((extract(epoch FROM at) * 1000000)::bigint)
            || convert_to('usage bench An answer ' || key || ' wallet 1 -1 revenue 1', 'UTF8'));
        answer := json_build_object('success', true, 'transaction', json_build_object('id', line, 'type', 'usage', 'amount', -1,
            'balanceBefore', wallet.free + 1, 'balanceAfter', wallet.free, 'appId', 'bench', 'description', 'An answer',
            'idempotencyKey', key, 'createdAt', at), 'newBalance', json_build_object('balance', wallet.free));
        UPDATE wallets SET sequence = wallet.sequence, free = wallet.free, spent = spent + 1, head = wallet.head, grants = wallet.grants, updated_at = at
            WHERE id = account;
        INSERT INTO lines VALUES (account, wallet.sequence, line, 'usage', -1, wallet.free, 'bench', 'An answer', key, 'revenue', '{1}', '{-1}', at, wallet.head);
        INSERT INTO answers VALUES (account, encode(substring(digest FROM 1 FOR 16), 'hex')::uuid, request, 201, answer, at);
        INSERT INTO usage VALUES (account, at::date, 'bench', 1, 1)
            ON CONFLICT (wallet_id, day, app_id) DO UPDATE SET spends = usage.spends + 1, spent = usage.spent + 1;
        RETURN answer;
    END $$;
    INSERT INTO accounts SELECT n, 1000000000 FROM generate_series(1, 10000) AS n;
    INSERT INTO people SELECT 'person-' || n FROM generate_series(1, 10000) AS n;
    INSERT INTO sessions SELECT 'session-' || n, 'person-' || n, now() + interval '1 day' FROM generate_series(1, 10000) AS n;
    INSERT INTO wallets SELECT n, 'person-' || n, 1, 1000000000, 0, sha256(''), '[{\"remaining\":1000000000}]', now() FROM generate_series(1, 10000) AS n;";

/// What is sent for each spend. The key is one that was never used.
const KEY: &str = r"\set key random(1, 9000000000000000000)";
const LINE: &str = "WITH spent AS (UPDATE accounts SET balance = balance - 1 WHERE id = :account AND balance >= 1 RETURNING id, balance) INSERT INTO journal (account_id, amount, balance_after, app_id, description, idempotency_key) SELECT id, -1, balance, 'bench', 'An answer', 'bench-' || :key FROM spent;
";
const BOOKS: &str = "SELECT spend(:account, 'bench-' || :key);
";
/// As applications write it: seven statements, each a round trip.
const SEVEN: &str = r"BEGIN;
SELECT id FROM sessions WHERE id = 'session-' || :account AND revoked_at IS NULL AND expires_at > now();
SELECT id FROM journal WHERE idempotency_key = 'bench-' || :key;
SELECT balance FROM accounts WHERE id = :account FOR UPDATE \gset
UPDATE accounts SET balance = :balance - 1 WHERE id = :account;
INSERT INTO journal (account_id, amount, balance_after, app_id, description, idempotency_key) VALUES (:account, -1, :balance - 1, 'bench', 'An answer', 'bench-' || :key);
COMMIT;
";
const SPREAD: &str = r"\set account random(1, 10000)";
const HOT: &str = r"\set account 1";

/// The highest rates, in spends a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Best {
    pub(crate) spread: f64,
    pub(crate) hot: f64,
}

/// What PostgreSQL alone does.
#[derive(Debug)]
pub(crate) struct Yardsticks {
    /// Of one statement that takes the mana and writes a line.
    line: Best,
    /// Of one call that keeps the same books as the service.
    books: Best,
    /// Mean milliseconds of one spend after the other: one statement, one call, seven statements.
    alone: [f64; 3],
}

/// What one run of pgbench came to.
struct Run {
    spends: u64,
    rate: f64,
    mean_millis: f64,
}

/// Measures and prints, `time` for each number of clients.
pub(crate) async fn measure(postgres: &Postgres, time: Duration) -> Result<Yardsticks, BenchError> {
    postgres.create_database(DATABASE).await?;
    let mut owner = PgConnection::connect_with(&postgres.owner_options().database(DATABASE)).await?;
    sqlx::raw_sql(SCHEMA).execute(&mut owner).await?;
    for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
        sqlx::query(statement).execute(&mut owner).await?;
    }
    eprintln!("measuring: pgbench with seven statements a spend");
    let seven = run(postgres, SPREAD, SEVEN, 1, time).await?;
    let (line, line_alone, lines) =
        measure_one(postgres, time, "pgbench: one prepared statement, which writes a line only", LINE)
            .await?;
    let (books, books_alone, postings) =
        measure_one(postgres, time, "pgbench: one prepared call, which keeps the same books", BOOKS).await?;
    // What was counted has happened.
    for (statement, spends) in [
        (
            "SELECT (SELECT count(*) FROM journal), (SELECT sum(1000000000 - balance) FROM accounts)::bigint",
            seven.spends + lines,
        ),
        (
            "SELECT (SELECT count(*) FROM lines), (SELECT sum(1000000000 - free) FROM wallets)::bigint",
            postings,
        ),
        ("SELECT (SELECT count(*) FROM answers), (SELECT sum(spent) FROM usage)::bigint", postings),
    ] {
        let (lines, taken): (i64, i64) = sqlx::query_as(statement).fetch_one(&mut owner).await?;
        if [lines, taken].iter().any(|&count| u64::try_from(count) != Ok(spends)) {
            let difference = format!("{spends} spends, {lines} lines, {taken} taken");
            return Err(BenchError::Program("the yardstick", difference));
        }
    }
    Ok(Yardsticks { line, books, alone: [line_alone, books_alone, seven.mean_millis] })
}

/// The best rates of a script, what one client waits, and how many spends there were.
async fn measure_one(
    postgres: &Postgres,
    time: Duration,
    title: &str,
    script: &str,
) -> Result<(Best, f64, u64), BenchError> {
    head(title, &["clients", "10,000 accounts, spends/s", "mean ms", "one account, spends/s", "mean ms"]);
    let (mut best, mut alone, mut spends) = (Best { spread: 0.0, hot: 0.0 }, f64::NAN, 0);
    for clients in CLIENTS {
        eprintln!("measuring: {title}, {clients} clients");
        let spread = run(postgres, SPREAD, script, clients, time).await?;
        let hot = run(postgres, HOT, script, clients, time).await?;
        best = Best { spread: best.spread.max(spread.rate), hot: best.hot.max(hot.rate) };
        spends += spread.spends + hot.spends;
        if clients == 1 {
            alone = spread.mean_millis;
        }
        let cells = |run: &Run| [whole(run.rate), format!("{:.2}", run.mean_millis)];
        row(&[vec![clients.to_string()], cells(&spread).to_vec(), cells(&hot).to_vec()].concat());
    }
    Ok((best, alone, spends))
}

async fn run(
    postgres: &Postgres,
    account: &str,
    script: &str,
    clients: u32,
    time: Duration,
) -> Result<Run, BenchError> {
    let mut command = postgres.program("pgbench", DATABASE);
    command.args(["--no-vacuum", "--protocol=prepared", "--file=-"]);
    command.arg(format!("--client={clients}"));
    command.arg(format!("--jobs={}", u64::from(clients).min(crate::processors::processors())));
    command.arg(format!("--time={}", time.as_secs().max(1)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let script = format!("{account}\n{KEY}\n{script}");
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

impl Yardsticks {
    /// Prints what the service reaches of both, `spread` and `hot` being its best rates.
    pub(crate) fn compare(&self, spread: Option<f64>, hot: Option<f64>) {
        let pairs = [
            ("all users", spread, self.line.spread, self.books.spread),
            ("one user", hot, self.line.hot, self.books.hot),
        ];
        head(
            "The service beside pgbench",
            &[
                "load",
                "service/s",
                "a line only: pgbench/s",
                "service / a line only",
                "the same books: pgbench/s",
                "service / the same books",
            ],
        );
        for (load, service, line, books) in pairs {
            if let Some(service) = service {
                let share = |of: f64| format!("{:.2}", service / of);
                row(&[load.to_owned(), whole(service), whole(line), share(line), whole(books), share(books)]);
            }
        }
    }

    /// Prints how long one spend after the other takes, `service` being the milliseconds of the service's at the mean: over HTTP with its
    /// token, and of its transaction alone, which is what pgbench's are too.
    pub(crate) fn compare_alone(&self, [service, transaction]: [f64; 2]) {
        head(
            "One spend after the other, on an idle server",
            &["by", "mean ms", "the service over HTTP takes of it", "its transaction takes of it"],
        );
        row(&["the service, over HTTP", &format!("{service:.3}"), "", ""]);
        row(&["the service, its transaction alone", &format!("{transaction:.3}"), "", ""]);
        let [line, books, seven] = self.alone;
        for (name, millis) in [
            ("pgbench: a transaction of seven statements", seven),
            ("pgbench: one call, the same books", books),
            ("pgbench: one statement, a line only", line),
        ] {
            let shares = [percent(service, millis), percent(transaction, millis)];
            row(&[vec![name.to_owned(), format!("{millis:.3}")], shares.to_vec()].concat());
        }
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
