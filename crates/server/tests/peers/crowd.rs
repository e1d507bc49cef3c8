//! Ten thousand connections that say nothing, beside people who want something.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Home, Launch, Server, poll};
use std::io::ErrorKind;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const CROWD: usize = 10_000;
/// What one of them may take of the server.
const BYTES_EACH: u64 = 24 * 1024;
/// What a server may use, whatever is done to it.
const MEMORY_BYTES: u64 = 512 * 1024 * 1024;
const SOON: Duration = Duration::from_mins(1);

/// This process and what it starts may have so many files open, for one crowd at a time.
fn raise_limit_of_files() -> MutexGuard<'static, ()> {
    static ONE_CROWD: Mutex<()> = Mutex::new(());
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let needed = u64::try_from(CROWD + 1000).unwrap();
    assert!(limit.maximum.is_none_or(|most| most > needed), "ulimit -H -n is {:?}", limit.maximum);
    ONE_CROWD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(home: &Home, cluster: &Cluster) -> Launch {
    home.serve()
        .env("DATABASE_URL", cluster.service_url("mana"))
        .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .env("RATE_LIMIT_MAX", "0")
        .env("LOG_LEVEL", "warn")
}

fn metric(server: &Server, name: &str) -> u64 {
    let metrics = server.get("/metrics").body;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// Connections that say nothing: those that are there, and those that are still to come.
struct Crowd {
    coming: JoinSet<std::io::Result<TcpStream>>,
    runtime: Runtime,
}

impl Crowd {
    fn gather(server: &Server) -> Self {
        let runtime = Runtime::new().unwrap();
        let port = server.port;
        let mut coming = JoinSet::new();
        for _ in 0..CROWD {
            coming.spawn_on(
                async move {
                    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
                    // To its end, which is not this side's doing.
                    let _ = stream.readable().await;
                    Ok(stream)
                },
                runtime.handle(),
            );
        }
        Self { coming, runtime }
    }

    /// Who was not let in, or was sent away.
    fn turned_away(mut self) -> usize {
        let _guard = self.runtime.enter();
        let ended = std::iter::from_fn(|| self.coming.try_join_next()).map(Result::unwrap);
        ended
            .inspect(|ended| {
                let is_reset = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionReset;
                assert!(ended.as_ref().err().is_none_or(is_reset), "{ended:?}");
            })
            .count()
    }
}

/// The longest time that something took, of a few times, in the best of three rounds: what other tests do beside is not always there.
fn longest(times: usize, mut what: impl FnMut()) -> Duration {
    let mut once = |_| {
        let begun = Instant::now();
        what();
        begun.elapsed()
    };
    (0..3).map(|_| (0..times).map(&mut once).max().unwrap()).min().unwrap()
}

#[test]
fn ten_thousand_silent_connections_cost_little_and_hold_nobody_up() {
    let _one = raise_limit_of_files();
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let server =
        serve(&home, &cluster).env("MAX_CONNECTIONS", "20000").env("HEADER_TIMEOUT_SECONDS", "120").start();
    server.register("ada@example.com");
    server.login("ada@example.com");
    let memory = || metric(&server, "process_resident_memory_bytes");
    let health = || longest(50, || assert_eq!(server.get("/health/ready").status, 200));
    let sign_in = || longest(5, || drop(server.login("ada@example.com")));
    let (memory_before, health_before, sign_in_before) = (memory(), health(), sign_in());

    let mut crowd = Vec::new();
    // No faster than they are taken: what the kernel drops comes back by its own clock.
    while crowd.len() < CROWD {
        crowd.extend((0..500).map(|_| std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap()));
        let open = u64::try_from(crowd.len()).unwrap();
        poll(SOON, "a crowd that is let in", || {
            (metric(&server, "http_connections_open") > open).then_some(())
        });
    }
    let (memory_beside, health_beside, sign_in_beside) = (memory(), health(), sign_in());
    let each = memory_beside.saturating_sub(memory_before) / u64::try_from(CROWD).unwrap();
    eprintln!(
        "alone: {} MiB, a health check {health_before:.1?} at most, a sign-in {sign_in_before:.1?}; beside {CROWD}: \
         {} MiB ({each} bytes each), {health_beside:.1?}, {sign_in_beside:.1?}",
        memory_before >> 20,
        memory_beside >> 20
    );
    assert!(each < BYTES_EACH && memory_beside < MEMORY_BYTES);
    assert!(health_beside < Duration::from_secs(1), "{health_beside:?}");
    assert!(sign_in_beside < Duration::from_secs(3), "{sign_in_beside:?}");
    drop(crowd);
    poll(SOON, "an empty room", || (metric(&server, "http_connections_open") == 1).then_some(()));
    server.stop("TERM");
}

#[test]
fn ten_thousand_silent_connections_give_way_where_there_are_fewer_places() {
    let _one = raise_limit_of_files();
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let server = serve(&home, &cluster).start();
    server.register("ada@example.com");
    server.login("ada@example.com");
    let most = metric(&server, "http_connections_max");
    let crowd = Crowd::gather(&server);
    let begun = Instant::now();
    poll(SOON, "a room that was full", || {
        server.get("/metrics").body.contains("http_connections_dismissed_total").then_some(())
    });
    let health = longest(20, || assert_eq!(server.get("/health/ready").status, 200));
    let sign_in = longest(2, || drop(server.login("ada@example.com")));
    let memory = metric(&server, "process_resident_memory_bytes");
    assert!(metric(&server, "http_connections_open") <= most);
    let took = begun.elapsed();
    let turned_away = crowd.turned_away();
    eprintln!(
        "{most} places, {CROWD} that say nothing: a health check {health:.1?} at most, a sign-in {sign_in:.1?}, {} MiB; \
         {turned_away} turned away within {took:.1?}",
        memory >> 20
    );
    assert!(memory < MEMORY_BYTES);
    assert!(health < Duration::from_secs(15) && sign_in < Duration::from_secs(15), "{health:?} {sign_in:?}");
    poll(SOON, "an empty room", || (metric(&server, "http_connections_open") == 1).then_some(()));
    server.stop("TERM");
}
