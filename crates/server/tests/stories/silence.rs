//! A way to PostgreSQL that falls silent, so that nothing is closed and nothing arrives any more, or is cut.

use crate::story::Story;
use futures_util::future::try_join_all;
use mana_platform::{Database, DbError};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, PgConnection};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

struct Way {
    options: PgConnectOptions,
    silence: watch::Sender<()>,
    cut: watch::Sender<()>,
    _folder: TempDir,
}

impl Way {
    fn to(options: PgConnectOptions) -> Self {
        let name = format!(".s.PGSQL.{}", options.get_port());
        let target = options.get_socket().unwrap().join(&name);
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(name)).unwrap();
        let (silence, heard) = watch::channel(());
        let (cut, felt) = watch::channel(());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut heard, mut felt) = (heard.clone(), felt.clone());
                heard.mark_unchanged();
                felt.mark_unchanged();
                tokio::spawn(carry(client, target.clone(), heard, felt));
            }
        });
        Self { options: options.socket(folder.path()), silence, cut, _folder: folder }
    }

    /// Nothing arrives any more on the connections that there are. New ones are as good as ever.
    fn falls_silent(&self) {
        self.silence.send(()).unwrap();
    }

    /// The connections that there are end, as when a pooler starts anew.
    fn is_cut(&self) {
        self.cut.send(()).unwrap();
    }
}

/// As many connections as there are places, all at rest.
async fn rested(database: &Database, places: usize) {
    drop(try_join_all((0..places).map(|_| database.begin())).await.unwrap());
    while database.places().idle < places.try_into().unwrap() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn carry(
    mut client: UnixStream,
    target: PathBuf,
    mut silence: watch::Receiver<()>,
    mut cut: watch::Receiver<()>,
) {
    let mut server = UnixStream::connect(target).await.unwrap();
    tokio::select! {
        _ = silence.changed() => std::future::pending().await,
        _ = cut.changed() => {}
        _ = copy_bidirectional(&mut client, &mut server) => {}
    }
}

#[tokio::test]
async fn what_was_under_way_when_the_network_fell_silent_keeps_no_place_of_the_pool() {
    let story = Story::new().await;
    let way = Way::to(story.database.service_options());
    let database = Database::new(way.options.clone(), 1, Duration::from_secs(10));
    let asked = Duration::from_millis(50);

    let mut single = database.acquire().await.unwrap();
    sqlx::query("SELECT 1").execute(&mut *single).await.unwrap();
    way.falls_silent();
    timeout(asked, sqlx::query("SELECT 2").execute(&mut *single)).await.unwrap_err();
    drop(single);
    let mut transaction = database.begin().await.expect("the only place is free again");
    sqlx::query("SELECT 1").execute(&mut *transaction).await.unwrap();
    way.falls_silent();
    timeout(asked, sqlx::query("SELECT 2").execute(&mut *transaction)).await.unwrap_err();
    drop(transaction);
    let mut again = database.acquire().await.expect("the only place is free again");
    sqlx::query("SELECT 1").execute(&mut *again).await.unwrap();
    drop(again);
    database.ping().await.unwrap();
    // Another story may have told of a silence just now: then the connection is replaced, and answers.
    for _ in 0..10 {
        way.falls_silent();
        if timeout(asked, database.ping()).await.is_err() {
            break;
        }
    }
    timeout(asked, database.begin()).await.expect_err("the place is not free yet");
    database.ping().await.expect("the only place is free again");
}

#[tokio::test]
async fn a_transaction_on_a_silent_connection_has_an_end() {
    let story = Story::new().await;
    let way = Way::to(story.database.service_options());
    let database = Database::new(way.options.clone(), 1, Duration::from_secs(1));
    let silent = async {
        loop {
            rested(&database, 1).await;
            way.falls_silent();
            // Another story may have told of a silence just now: then the connection is replaced.
            if database.begin().await.is_err() {
                break;
            }
        }
    };
    timeout(Duration::from_secs(10), silent).await.expect("it has an end");
    database.ping().await.expect("the only place is free again");
}

#[tokio::test]
async fn connections_of_a_network_that_fell_silent_are_not_asked_one_by_one() {
    // To ask each would take longer than they have together.
    const PLACES: usize = 16;
    let story = Story::new().await;
    let way = Way::to(story.database.service_options());
    let database = Database::new(way.options.clone(), PLACES.try_into().unwrap(), Duration::from_secs(4));
    rested(&database, PLACES).await;
    way.falls_silent();
    // It is who finds out, unless another story did just now.
    let _ = database.begin().await;
    let all = async {
        let mut all = Vec::new();
        for _ in 0..PLACES {
            all.push(database.begin().await.expect("it is a new one"));
        }
    };
    timeout(Duration::from_secs(10), all).await.expect("nobody waits for an answer that does not come");
}

#[tokio::test]
async fn a_pooler_that_starts_anew_fails_no_transaction_and_nothing_after_one() {
    const PLACES: usize = 4;
    let story = Story::new().await;
    let way = Way::to(story.database.service_options());
    let database = Database::new(way.options.clone(), PLACES.try_into().unwrap(), Duration::from_secs(10));
    for _ in 0..3 {
        rested(&database, PLACES).await;
        way.is_cut();
        let transaction = database.begin().await.expect("another connection is to be had");
        let mut singles = try_join_all((1..PLACES).map(|_| database.acquire())).await.unwrap();
        for single in &mut singles {
            sqlx::query("SELECT 1").execute(&mut **single).await.expect("it was asked before it was lent");
        }
        drop(transaction);
    }
}

#[tokio::test]
async fn connections_that_were_cut_fail_one_statement_and_not_one_each() {
    const PLACES: usize = 4;
    let story = Story::new().await;
    let way = Way::to(story.database.service_options());
    let database = Database::new(way.options.clone(), PLACES.try_into().unwrap(), Duration::from_secs(10));
    let failed = async {
        loop {
            rested(&database, PLACES).await;
            way.is_cut();
            let mut single = database.acquire().await.unwrap();
            // Another story may have told of a cut just now: then it was asked, and is a new one.
            if sqlx::query("SELECT 1").execute(&mut *single).await.map_err(DbError::from).is_err() {
                break single;
            }
        }
    };
    let _failed =
        timeout(Duration::from_secs(20), failed).await.expect("nothing shows by itself that it was cut");
    let mut singles = try_join_all((1..PLACES).map(|_| database.acquire())).await.unwrap();
    for single in &mut singles {
        sqlx::query("SELECT 1").execute(&mut **single).await.expect("it was asked before it was lent");
    }
}

#[tokio::test]
async fn connections_that_began_when_nothing_was_to_be_written_are_replaced() {
    const PLACES: usize = 4;
    let story = Story::new().await;
    let options = story.database.service_options();
    let name = options.get_database().unwrap().to_owned();
    let mut owner = story.database.owner().await;
    let mut alter = async |setting: &str| {
        let sql = format!("ALTER DATABASE {name} {setting}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut owner).await.unwrap();
    };
    let database = Database::new(options, PLACES.try_into().unwrap(), Duration::from_secs(10));
    alter("SET default_transaction_read_only = on").await;
    let mut all = try_join_all((0..PLACES).map(|_| database.begin())).await.unwrap();
    write(&mut all[0]).await.expect_err("nothing is to be written");
    drop(all);
    alter("RESET default_transaction_read_only").await;
    let recovery = async {
        loop {
            let mut all = try_join_all((0..PLACES).map(|_| database.begin())).await.unwrap();
            let mut is_written = true;
            for transaction in &mut all {
                is_written &= write(transaction).await.is_ok();
            }
            if is_written {
                break;
            }
            drop(all);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(10), recovery).await.expect("new connections take their places soon");
}

async fn write(connection: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query("DELETE FROM auth.sessions WHERE id = 'none'").execute(connection).await?;
    Ok(())
}

#[tokio::test]
async fn whoever_goes_away_while_a_transaction_begins_leaves_none_open() {
    let story = Story::new().await;
    let database = Database::new(story.database.service_options(), 1, Duration::from_secs(10));
    database.ping().await.unwrap();
    for microseconds in (0..2000).step_by(10) {
        let _ = timeout(Duration::from_micros(microseconds), database.begin()).await;
        let mut next = database.acquire().await.unwrap();
        let number = "SELECT pg_current_xact_id()::text";
        let first: String = sqlx::query_scalar(number).fetch_one(&mut *next).await.unwrap();
        let second: String = sqlx::query_scalar(number).fetch_one(&mut *next).await.unwrap();
        assert_ne!(first, second, "each statement commits by itself, after {microseconds} µs");
    }
}
