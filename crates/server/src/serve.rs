//! Runs the service until it is told to stop.

use crate::accept::{self, Limits};
use crate::app::{self, App, BuildError, Parts};
use crate::source::Source;
use crate::way_out::WayOut;
use mana_platform::mail::MailSettingsError;
use mana_platform::migrate::{self, SchemaError};
use mana_platform::pooler::{self, PoolerError};
use mana_platform::refusal::Unreached;
use mana_platform::row_security::{self, RowSecurityError};
use mana_platform::telemetry::Traces;
use mana_platform::{DbError, Settings, SystemClock, SystemRng, SystemSteadyClock, telemetry};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Why the service did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("port {0} on {1} is taken. Stop what listens there, or choose another with --port")]
    PortTaken(u16, IpAddr),
    #[error("{0} can't be listened on: {1}")]
    Listen(SocketAddr, std::io::Error),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Pooler(#[from] PoolerError),
    #[error(transparent)]
    NoConnection(#[from] DbError),
    #[error(transparent)]
    RowSecurity(#[from] RowSecurityError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Mail(#[from] MailSettingsError),
    #[error("the metrics can't be counted: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    #[error(transparent)]
    Unreached(#[from] Unreached),
    #[error("signals can't be received: {0}")]
    Signal(std::io::Error),
    #[error("the server failed: {0}")]
    Io(std::io::Error),
}

/// Takes the port, before anything slow, so that a second start learns at once that it is taken.
pub(crate) async fn listen(host: IpAddr, port: u16) -> Result<TcpListener, ServeError> {
    let address = SocketAddr::new(host, port);
    TcpListener::bind(address).await.map_err(|error| {
        if error.kind() == std::io::ErrorKind::AddrInUse {
            ServeError::PortTaken(port, host)
        } else {
            ServeError::Listen(address, error)
        }
    })
}

/// How long a stop takes at most.
#[derive(Debug, Clone, Copy)]
struct Stopping {
    /// Until no more connections are taken.
    drain: Duration,
    /// From then on, until requests are cut off.
    limit: Duration,
}

/// A service that is ready to run.
pub(crate) struct Service {
    app: App,
    /// Where the internal routes are answered, if not with all others.
    internal: Option<TcpListener>,
    limits: Limits,
    stopping: Stopping,
    pub(crate) database: mana_platform::Database,
}

/// Checks the database and builds the service on it.
pub(crate) async fn prepare(
    settings: &Settings,
    source: Source,
    way_out: WayOut,
) -> Result<Service, ServeError> {
    let internal = match settings.internal_address {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.map_err(|error| ServeError::Listen(address, error))?)
        }
        None => None,
    };
    let database = source.database(settings);
    // Before any statement is prepared.
    source.reach(&database).await?;
    pooler::check(&database).await?;
    let mut connection = database.acquire().await?;
    row_security::check_role(&mut connection).await?;
    let schema = migrate::check(&mut connection).await?;
    if schema > migrate::binary_version() {
        tracing::warn!(
            schema,
            "the database is at the schema of a newer release, which this one still works on"
        );
    }
    drop(connection);
    let parts = Parts {
        database: database.clone(),
        clock: Arc::new(SystemClock),
        steady_clock: Arc::new(SystemSteadyClock),
        rng: Arc::new(SystemRng),
        root_secrets: source.root_secrets,
        mailer: way_out.mailer,
        dev_outbox: way_out.outbox,
        metrics: telemetry::start_metrics()?,
    };
    let app = app::build(settings, parts).await?;
    let limits = Limits {
        connections: usize::try_from(settings.max_connections).unwrap_or(usize::MAX),
        header: Duration::from_secs(settings.header_timeout_seconds),
    };
    let stopping = Stopping {
        drain: Duration::from_secs(settings.drain_seconds),
        limit: Duration::from_secs(settings.shutdown_timeout_seconds),
    };
    Ok(Service { app, internal, limits, stopping, database })
}

/// How long the end takes at most: to write down which sessions were active, to hand the last traces over, to close connections to the database.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves until SIGINT or SIGTERM, then drains, then lets requests in flight finish, within the limit, and says farewell.
/// A second signal cuts it short.
pub(crate) async fn run(
    listener: TcpListener,
    service: Service,
    traces: Option<Traces>,
) -> Result<(), ServeError> {
    let mut signals = StopSignals::listen()?;
    let (stop, stopped) = oneshot::channel();
    let App { router, internal, workers, drain } = service.app;
    let Stopping { drain: drain_for, limit } = service.stopping;
    let leaving = traces.map(Traces::start);
    let working = tokio::spawn(workers.clone().run());
    // Until the end of all: what is asked there tells how the stopping goes.
    let internal = service.internal.zip(internal).map(|(listener, router)| {
        let (limits, drain) = (service.limits, drain.clone());
        tokio::spawn(accept::serve(listener, router, limits, drain, std::future::pending()))
    });
    let mut server =
        tokio::spawn(accept::serve(listener, router, service.limits, drain.clone(), async move {
            let _ = stopped.await;
        }));
    tokio::select! {
        ended = &mut server => return ended.map_err(|error| ServeError::Io(error.into())),
        signal = signals.next() => tracing::info!(signal, "stopping: requests in flight may finish"),
    }
    drain.begin();
    let is_cut_short = tokio::select! {
        ended = &mut server => return ended.map_err(|error| ServeError::Io(error.into())),
        () = tokio::time::sleep(drain_for) => false,
        again = signals.next() => {
            tracing::warn!(signal = again, "stopping at once");
            true
        }
    };
    // The receiver lives as long as the server.
    let _ = stop.send(());
    let limit = if is_cut_short { Duration::ZERO } else { limit };
    let began = Instant::now();
    let mut is_in_a_hurry = is_cut_short;
    tokio::select! {
        ended = tokio::time::timeout(limit, &mut server) => {
            if ended.is_err() {
                tracing::warn!("some requests did not finish in time");
            }
        }
        again = signals.next() => {
            tracing::warn!(signal = again, "stopping at once");
            is_in_a_hurry = true;
        }
    }
    for task in [Some(server), Some(working), internal].into_iter().flatten() {
        end(task).await;
    }
    let farewell = async {
        workers.write_notes().await;
        if let Some(leaving) = leaving.filter(|_| !is_in_a_hurry) {
            leaving.finish(limit.saturating_sub(began.elapsed())).await;
        }
        service.database.close().await;
    };
    tokio::select! {
        ended = tokio::time::timeout(FAREWELL, farewell) => if ended.is_err() {
            tracing::warn!("the last that was to be written could not be written in time");
        },
        again = signals.next() => tracing::warn!(signal = again, "stopping at once"),
    }
    Ok(())
}

/// Ends a task where it is, unless it has ended.
async fn end(task: JoinHandle<()>) {
    if !task.is_finished() {
        task.abort();
        // That it was ended is all it says.
        let _ = task.await;
    }
}

/// What asks for a stop. One for a run: a signal that comes while nobody waits is kept for who waits next.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    fn listen() -> Result<Self, ServeError> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(ServeError::Signal)?,
            terminate: signal(SignalKind::terminate()).map_err(ServeError::Signal)?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
