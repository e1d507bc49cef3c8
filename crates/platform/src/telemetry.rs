//! Log lines and metrics of the process.

use crate::config::{LogFormat, Settings};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Latency buckets in seconds: from a cached answer to the request time limit.
const SECONDS: [f64; 13] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Buckets of what is done together: one, and its doublings.
const ORDERS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Starts writing log lines to standard error: standard output belongs to what a command prints.
///
/// # Errors
/// When `LOG_LEVEL` is not understood. A second call in one process changes nothing.
pub fn start_logging(settings: &Settings) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(&settings.log_level)?;
    let is_terminal = std::io::stderr().is_terminal();
    let as_json = match settings.log_format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A subscriber that is already there stays: only tests start two services in one process.
    let _already_started = if as_json {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        lines.with_ansi(is_terminal).with_target(false).try_init()
    };
    // A defect is a log line like any other: machines that read the lines must not meet a paragraph.
    std::panic::set_hook(Box::new(|defect| {
        metrics::counter!("defects_total").increment(1);
        let place = defect.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a defect ended a task: {}", defect.payload_as_str().unwrap_or("no message"));
    }));
    Ok(())
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
    Ok(handle)
}
