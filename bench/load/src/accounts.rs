//! Validate, refresh and sign-in, beside the limits of the machine.

use crate::connection::{Connection, post};
use crate::error::BenchError;
use crate::limits::{self, Bare, Reference};
use crate::load::{self, Done, Times};
use crate::observed;
use crate::processors::processors;
use crate::report::{self, LATENCIES, PROCESSORS, head, percent, row, whole};
use crate::script::{Repeat, Rotate, Script as _};
use crate::seed::{self, Session};
use crate::stage::{Stage, StageArguments};
use crate::storage::{self, OfUser, Table};
use crate::tally::{Tally, as_number};
use clap::ValueEnum;
use std::net::SocketAddr;
use std::time::Duration;

/// What to measure, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    stage: StageArguments,
    /// Which parts; all when not given
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Seconds that each load is measured, after a fifth of that to warm up
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Users that sign in
    #[arg(long, default_value_t = 500)]
    users: usize,
    /// Sessions of each
    #[arg(long, default_value_t = 4)]
    sessions_each: usize,
    /// Sessions that only lie there
    #[arg(long, default_value_t = 100_000)]
    idle_sessions: u32,
    /// Connections at which validate is measured
    #[arg(long, value_delimiter = ',', default_values_t = [32, 64, 256])]
    validate_connections: Vec<usize>,
    /// Connections at which refresh is measured
    #[arg(long, value_delimiter = ',', default_values_t = [16, 32, 64, 128])]
    refresh_connections: Vec<usize>,
    /// Seconds after which everything is stopped, done or not
    #[arg(long, default_value_t = 1200)]
    pub(crate) time_limit_seconds: u64,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What the machine can do
    Limits,
    /// Rows and bytes of a session before and after 1,000 refreshes
    Storage,
    /// Access tokens checked
    Validate,
    /// Refresh tokens exchanged
    Refresh,
    /// Sign-ins, as many as there can be; the flood begins with them
    Login,
    /// Validate and refresh while more sign in than can be
    Flood,
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn times(&self) -> Times {
        Times::of(self.seconds)
    }
}

/// Enough to keep two cores busy, and what each is told of in the comparison.
const REFERENCE_CONNECTIONS: usize = 64;
const LOGIN_CONNECTIONS: usize = 16;
/// More than the pool and its queue hold.
const FLOOD_CONNECTIONS: usize = 512;
/// Sign-ins due for each that the processors can hash.
const FLOOD_FACTOR: f64 = 3.0;
const BACKGROUND_VALIDATES: u32 = 500;
const BACKGROUND_REFRESHES: u32 = 100;
const BACKGROUND_CONNECTIONS: usize = 64;
const STORED_REFRESHES: usize = 1000;

const VALID: &[u8] = br#"{"valid":true"#;
const SIGNED_IN: &[u8] = br#""refreshToken":"mrt_"#;

/// Measures what is wanted and prints it.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let times = arguments.times();
    let bare_time = (times.measured / 4).max(Duration::from_secs(1));
    let bare = limits::bare(bare_time).await?;
    let mut reference = None;
    if arguments.wants(Part::Limits) || arguments.wants(Part::Validate) {
        eprintln!("measuring: HTTP with one RSA operation");
        reference = Some(limits::reference(REFERENCE_CONNECTIONS, times).await?);
    }
    let stage = Stage::build(&arguments.stage, &[]).await?;
    if arguments.wants(Part::Limits) {
        limits::print(&bare, limits::argon2id(bare_time).await?, reference.as_ref());
        limits::measure_updates(&stage.postgres, times).await?;
    }
    let server = stage.server.address;
    let mut sessions = seed::sessions(server, 0..arguments.users, arguments.sessions_each).await?;
    // Indexes get the depth that they have in production.
    seed::copies(&stage.postgres, "idle", arguments.idle_sessions).await?;

    if arguments.wants(Part::Storage) {
        measure_storage(&stage, arguments.users).await?;
    }
    if arguments.wants(Part::Validate) {
        measure_validate(&stage, arguments, &sessions, reference.as_ref()).await?;
    }
    if arguments.wants(Part::Refresh) {
        measure_refresh(&stage, arguments, &mut sessions, &bare).await?;
    }
    if arguments.wants(Part::Login) || arguments.wants(Part::Flood) {
        let hashes = limits::argon2id(bare_time).await? * as_number(processors());
        let sign_ins = measure_login(&stage, arguments, hashes).await?;
        if arguments.wants(Part::Flood) {
            measure_flood(&stage, arguments, &mut sessions, hashes.max(sign_ins)).await?;
        }
    }
    Ok(())
}

fn validate_requests(sessions: &[Session]) -> Vec<Vec<u8>> {
    let body = |session: &Session| format!(r#"{{"token":"{}"}}"#, session.access_token);
    sessions.iter().map(|session| post("/api/v1/auth/validate", &body(session))).collect()
}

async fn measure_validate(
    stage: &Stage,
    arguments: &Arguments,
    sessions: &[Session],
    reference: Option<&Reference>,
) -> Result<(), BenchError> {
    let times = arguments.times();
    let title = format!("Validate, {} sessions in turn", sessions.len());
    head(&title, &[&["connections"], &LATENCIES[..], &["of the limit"], &PROCESSORS[..]].concat());
    for &connections in &arguments.validate_connections {
        eprintln!("measuring: validate on {connections} connections");
        let scripts = Repeat::share(validate_requests(sessions), connections, VALID);
        let (tally, observed) = observed::closed(stage, scripts, times, "validate").await?;
        let share = reference.map(|reference| percent(tally.rate(), reference.verify.rate()));
        let share = vec![share.unwrap_or_default()];
        let cells = [vec![connections.to_string()], report::latencies(&tally), share];
        row(&[cells.concat(), report::processors(&observed, tally.rate())].concat());
    }
    Ok(())
}

async fn measure_refresh(
    stage: &Stage,
    arguments: &Arguments,
    sessions: &mut [Session],
    bare: &Bare,
) -> Result<(), BenchError> {
    let times = arguments.times();
    let before = storage::tables(&stage.postgres, storage::OF_SESSIONS).await?;
    let title = format!("Refresh, {} sessions, each always with its newest token", sessions.len());
    head(&title, &[&["connections"], &LATENCIES[..], &PROCESSORS[..]].concat());
    let mut causes = Vec::new();
    for &connections in &arguments.refresh_connections {
        eprintln!("measuring: refresh on {connections} connections");
        let tokens = take_tokens(sessions);
        let (done, observed) = observed::during(
            stage,
            times,
            load::closed(stage.server.address, Rotate::share(tokens, connections), times),
        )
        .await?;
        let tally = give_tokens(sessions, done, "refresh")?;
        let cells = [vec![connections.to_string()], report::latencies(&tally)];
        row(&[cells.concat(), report::processors(&observed, tally.rate())].concat());
        causes.push((connections, tally, observed));
    }
    report::costs("What a refresh costs", &causes);
    println!(
        "\nA core signs {}/s: the bound of refreshes for each core if nothing else took time.",
        whole(bare.signatures)
    );
    storage::vacuum(&stage.postgres).await?;
    print_tables("Tables before the refreshes", &before);
    print_tables(
        "Tables after them and a VACUUM",
        &storage::tables(&stage.postgres, storage::OF_SESSIONS).await?,
    );
    Ok(())
}

/// Sign-ins a second. `hashes` are what all processors can do.
async fn measure_login(stage: &Stage, arguments: &Arguments, hashes: f64) -> Result<f64, BenchError> {
    let times = arguments.times();
    eprintln!("measuring: sign-ins on {LOGIN_CONNECTIONS} connections");
    let scripts = Repeat::share(login_requests(arguments), LOGIN_CONNECTIONS, SIGNED_IN);
    let (tally, observed) = observed::closed(stage, scripts, times, "sign-in").await?;
    head(
        "Sign-ins",
        &[&["connections"], &LATENCIES[..], &["of the Argon2id rate"], &PROCESSORS[..]].concat(),
    );
    let share = vec![percent(tally.rate(), hashes)];
    let cells = [vec![LOGIN_CONNECTIONS.to_string()], report::latencies(&tally), share];
    row(&[cells.concat(), report::processors(&observed, tally.rate())].concat());
    Ok(tally.rate())
}

fn login_requests(arguments: &Arguments) -> Vec<Vec<u8>> {
    (0..arguments.users).map(seed::login_request).collect()
}

/// Validate and refresh at a modest fixed rate: alone, and while three times as many sign in as is `possible` a second.
async fn measure_flood(
    stage: &Stage,
    arguments: &Arguments,
    sessions: &mut [Session],
    possible: f64,
) -> Result<(), BenchError> {
    let times = arguments.times();
    let server = stage.server.address;
    let due = possible * FLOOD_FACTOR;
    let due = u32::try_from(Duration::from_secs_f64(due).as_secs()).unwrap_or(u32::MAX);
    head("While sign-ins flood", &[&["load", "due/s"], &LATENCIES[..]].concat());
    let print = |what: &str, rate: u32, tally: &Tally| {
        row(&[vec![what.to_owned(), rate.to_string()], report::latencies(tally)].concat());
    };

    eprintln!("measuring: validate and refresh at a fixed rate, alone");
    let (validate, refresh) = background(server, sessions, times).await?;
    print("validate alone", BACKGROUND_VALIDATES, &validate);
    print("refresh alone", BACKGROUND_REFRESHES, &refresh);

    eprintln!("measuring: the same while {due} sign-ins a second are due");
    let scripts = Repeat::share(login_requests(arguments), FLOOD_CONNECTIONS, SIGNED_IN);
    let flood = observed::during(stage, times, load::open(server, scripts, due, times));
    let (quiet, flood) = tokio::join!(background(server, sessions, times), flood);
    let ((validate, refresh), (flood, observed)) = (quiet?, flood?);
    print("validate in the flood", BACKGROUND_VALIDATES, &validate);
    print("refresh in the flood", BACKGROUND_REFRESHES, &refresh);
    let flood = flood.tally.checked("sign-ins in the flood")?;
    print("the flood of sign-ins", due, &flood);
    println!("\nSign-ins in the flood: {} of what is possible.", percent(flood.rate(), possible));
    head("Processors in the flood, for each sign-in", &PROCESSORS);
    row(&report::processors(&observed, flood.rate()));
    Ok(())
}

async fn background(
    server: SocketAddr,
    sessions: &mut [Session],
    times: Times,
) -> Result<(Tally, Tally), BenchError> {
    let validates = Repeat::share(validate_requests(sessions), BACKGROUND_CONNECTIONS, VALID);
    let refreshes = Rotate::share(take_tokens(sessions), BACKGROUND_CONNECTIONS);
    let (validate, refresh) = tokio::join!(
        load::open(server, validates, BACKGROUND_VALIDATES, times),
        load::open(server, refreshes, BACKGROUND_REFRESHES, times),
    );
    Ok((validate?.tally.checked("validate")?, give_tokens(sessions, refresh?, "refresh")?))
}

async fn measure_storage(stage: &Stage, user: usize) -> Result<(), BenchError> {
    eprintln!("measuring: {STORED_REFRESHES} refreshes of one session");
    let server = stage.server.address;
    let sessions = seed::sessions(server, user..user + 1, 1).await?;
    let Some(session) = sessions.into_iter().next() else {
        return Err(BenchError::NothingRight("the session to refresh".to_owned(), String::new()));
    };
    storage::vacuum(&stage.postgres).await?;
    let mut owner = stage.postgres.owner().await?;
    let before = storage::of_user(&mut owner, &session.user_id).await?;
    let tables_before = storage::tables(&stage.postgres, storage::OF_SESSIONS).await?;

    let mut script = Rotate::new(vec![session.refresh_token]);
    let mut connection = Connection::open(server).await?;
    for _ in 0..STORED_REFRESHES {
        let answer = connection.exchange(script.request()).await?;
        if !script.accepts(answer) {
            return Err(BenchError::unexpected("a refresh", answer));
        }
    }
    let after = storage::of_user(&mut owner, &session.user_id).await?;
    let tables_after = storage::tables(&stage.postgres, storage::OF_SESSIONS).await?;

    head("One session", &["when", "rows", "bytes in them"]);
    let print = |when: &str, of_user: OfUser| {
        row(&[when.to_owned(), of_user.rows.to_string(), of_user.bytes.to_string()]);
    };
    print("before", before);
    print(&format!("after {STORED_REFRESHES} refreshes"), after);
    print_tables("Tables before", &tables_before);
    print_tables("Tables after, not vacuumed", &tables_after);
    Ok(())
}

fn print_tables(title: &str, tables: &[Table]) {
    head(
        title,
        &["table", "rows", "heap bytes", "index bytes", "dead rows", "updates so far", "of them heap-only"],
    );
    for table in tables {
        let numbers = [
            table.rows,
            table.heap_bytes,
            table.index_bytes,
            table.dead_rows,
            table.updates,
            table.hot_updates,
        ];
        let numbers = numbers.map(|number| whole(as_number(u64::try_from(number).unwrap_or_default())));
        row(&[vec![table.name.clone()], numbers.to_vec()].concat());
    }
}

fn take_tokens(sessions: &mut [Session]) -> Vec<String> {
    sessions.iter_mut().map(|session| std::mem::take(&mut session.refresh_token)).collect()
}

/// Which session has which token matters to nobody.
fn give_tokens(sessions: &mut [Session], done: Done<Rotate>, what: &str) -> Result<Tally, BenchError> {
    let tokens = done.scripts.into_iter().flat_map(Rotate::into_tokens);
    for (session, token) in sessions.iter_mut().zip(tokens) {
        session.refresh_token = token;
    }
    done.tally.checked(what)
}
