//! Log lines, metrics and traces of the process.

pub mod spans;
mod traces;

pub use traces::{InvalidTraces, Leaving, Traces};

use crate::config::{LogFormat, Settings};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::io::IsTerminal as _;
use tracing::Subscriber;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// Latency buckets in seconds: from a cached answer to the request time limit.
const SECONDS: [f64; 13] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Buckets of what is done together: one, and its doublings.
const ORDERS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Starts writing log lines to standard error, since standard output belongs to what a command prints, and `traces`; from then on a
/// defect is a log line too. Lines and traces stay as the first call in a process began them.
///
/// # Errors
/// When `LOG_LEVEL` is not understood.
pub fn start_telemetry(settings: &Settings, traces: Option<&Traces>) -> Result<(), ParseError> {
    // The spans of traces are none of the log's, which shows a request by a span of its own. PostgreSQL's notices say of each
    // migration that what is there already was left as it is.
    let filter = EnvFilter::builder()
        .parse(&settings.log_level)?
        .add_directive(format!("{}=off", spans::TARGET).parse()?)
        .add_directive("sqlx::postgres::notice=warn".parse()?);
    // A subscriber that is already there stays: only tests start two services in one process.
    let _already_started = match traces {
        None => Registry::default().with(filter).with(lines(settings)).try_init(),
        // Each has a filter of its own then, which every line and span is asked about.
        Some(traces) => {
            Registry::default().with(lines(settings).with_filter(filter)).with(traces.layer()).try_init()
        }
    };
    // A defect is a log line like any other: machines that read the lines must not meet a paragraph.
    std::panic::set_hook(Box::new(|defect| {
        metrics::counter!("defects_total").increment(1);
        let place = defect.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a defect ended a task: {}", defect.payload_as_str().unwrap_or("no message"));
    }));
    Ok(())
}

/// How a log line looks.
fn lines<S>(settings: &Settings) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let is_terminal = std::io::stderr().is_terminal();
    let as_json = match settings.log_format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = fmt::layer().with_writer(std::io::stderr);
    if as_json {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    } else {
        lines.with_ansi(is_terminal).with_target(false).boxed()
    }
}

/// A gauge that counts this for as long as it lives, however that ends: a client that hangs up drops the work.
#[derive(Debug)]
pub struct Counted(metrics::Gauge);

impl Counted {
    /// Counts one more from now on.
    pub fn on(gauge: metrics::Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Starts counting, once in a process, and gives what /metrics prints.
///
/// # Errors
/// When another recorder is installed.
pub fn start_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_orders".to_owned()), &ORDERS)?
        .install_recorder()?;
    // There from the start, so that the first one is seen as an increase.
    metrics::counter!("defects_total").increment(0);
    metrics::counter!("http_internal_errors_total").increment(0);
    Ok(handle)
}
