//! What this test's requests do unseen: the statements they send to the database, the metrics they touch. Of this thread
//! alone, on which a test's whole service runs but the ledger, so tests beside it change nothing. Statements of the ledger are seen if the watch
//! began before the service: its threads listen with whoever started them.

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString, Unit,
};
use std::io::{self, Write};
use std::sync::{Arc, LazyLock, Mutex};
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::EnvFilter;

const FILTER: &str = "sqlx::query=debug";

/// Never drops out. While there is one subscriber only, tracing asks the thread that first reaches a place in the code whether anybody listens
/// there, and remembers the answer for all threads: that of a test beside, which listens to nothing.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| {
    let subscriber = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(FILTER)).with_writer(io::sink);
    Dispatch::new(subscriber.finish())
});

/// Statements from now on, until it is dropped.
pub(crate) struct Statements {
    lines: Lines,
    _guard: DefaultGuard,
}

impl Statements {
    pub(crate) fn watch() -> Self {
        LazyLock::force(&SECOND);
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_env_filter(EnvFilter::new(FILTER))
            .with_writer(move || writer.clone())
            .finish();
        Self { lines, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// The beginnings of those since the last time, in their order.
    pub(crate) fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.lines.0.lock().unwrap());
        let events = serde_json::Deserializer::from_slice(&bytes).into_iter::<serde_json::Value>();
        events.map(|event| event.unwrap()["fields"]["summary"].as_str().unwrap().to_owned()).collect()
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Notes which metrics are touched, and how often.
#[derive(Default)]
pub(crate) struct Metrics(Mutex<Vec<String>>);

impl Metrics {
    pub(crate) fn watch(&self) -> LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(self)
    }

    /// How often since the last time a metric was touched whose name and labels begin so.
    pub(crate) fn take(&self, beginning: &str) -> usize {
        let touched = std::mem::take(&mut *self.0.lock().unwrap());
        touched.iter().filter(|metric| metric.starts_with(beginning)).count()
    }

    fn note(&self, key: &Key) {
        let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
        self.0.lock().unwrap().push(format!("{}{}", key.name(), labels.collect::<String>()));
    }
}

impl Recorder for Metrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.note(key);
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.note(key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.note(key);
        Histogram::noop()
    }
}
