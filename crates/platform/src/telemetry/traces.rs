//! Where traces go: through a bounded queue to the one collector that the operator names, by OTLP over HTTP.
//!
//! Nobody waits for it. While the collector is away or slow, spans are dropped and counted.

use super::spans::{MAX_LINKS, TARGET};
use crate::config::{Settings, TracesSampler};
use crate::outbound::client_builder;
use http::{HeaderMap, HeaderName, HeaderValue};
use mana_kernel::Rng as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanLimits, SpanProcessor,
};
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;
use url::Url;

/// Spans that wait at most; further ones are dropped.
const QUEUE: usize = 4096;
/// Spans that are handed over together at most.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const GATHERING: Duration = Duration::from_secs(1);
/// How long the collector has for its answer, and how long what it could not take is tried again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a stop waits at most for what is left.
const FAREWELL: Duration = Duration::from_secs(3);

/// The settings of traces can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTraces {
    /// No collector can be there.
    #[error(
        "OTEL_EXPORTER_OTLP_ENDPOINT must be the http or https URL of a collector that takes OTLP over HTTP, as http://localhost:4318, \
         without name, password, query and fragment: secrets belong into OTEL_EXPORTER_OTLP_HEADERS"
    )]
    Endpoint,
    /// A header is none. What was given is not told: it is a secret.
    #[error("OTEL_EXPORTER_OTLP_HEADERS must be name=value,name=value, values percent-encoded")]
    Headers,
    /// TLS or the client can't be set up.
    #[error("traces can't be sent: {0}")]
    Client(String),
}

/// A way for traces to leave, not begun yet.
pub struct Traces {
    tracer: SdkTracer,
    exporter: SpanExporter,
    ended: mpsc::Receiver<SpanData>,
    overflowed: Arc<AtomicU64>,
    collector: String,
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").field("collector", &self.collector).finish_non_exhaustive()
    }
}

impl Traces {
    /// The way to the collector that the settings name; none without `OTEL_EXPORTER_OTLP_ENDPOINT`.
    ///
    /// # Errors
    /// When they can't be used.
    pub fn from_settings(settings: &Settings) -> Result<Option<Self>, InvalidTraces> {
        let Some(collector) = &settings.otel_exporter_otlp_endpoint else { return Ok(None) };
        let endpoint = endpoint(collector)?;
        let headers = headers(settings)?;
        let resource = resource(&settings.otel_service_name);
        let mut exporter = exporter(endpoint, headers)?;
        exporter.set_resource(&resource);
        let (sender, ended) = mpsc::channel(QUEUE);
        let overflowed = Arc::new(AtomicU64::default());
        let limits =
            SpanLimits { max_links_per_span: u32::try_from(MAX_LINKS).unwrap_or(0), ..SpanLimits::default() };
        let provider = SdkTracerProvider::builder()
            .with_sampler(sampler(settings.otel_traces_sampler, settings.otel_traces_sampler_arg))
            .with_span_limits(limits)
            .with_resource(resource)
            .with_span_processor(Queue { sender, overflowed: Arc::clone(&overflowed) })
            .build();
        let collector = collector.origin().ascii_serialization();
        Ok(Some(Self { tracer: provider.tracer("mana-core-auth"), exporter, ended, overflowed, collector }))
    }

    /// What turns the spans of [`super::spans`], and nothing else, into those of traces.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.tracer.clone())
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(Targets::new().with_target(TARGET, LevelFilter::TRACE))
    }

    /// Begins to hand spans over, until [`Leaving::finish`].
    pub fn start(self) -> Leaving {
        tracing::info!(collector = self.collector, "traces are sent");
        metrics::gauge!("trace_spans_waiting_max").set(u32::try_from(QUEUE).unwrap_or(u32::MAX));
        metrics::counter!("trace_spans_exported_total").increment(0);
        for reason in ["queue_full", "not_taken"] {
            metrics::counter!("trace_spans_dropped_total", "reason" => reason).increment(0);
        }
        let (stop, stopped) = oneshot::channel();
        let work = tokio::spawn(Handover::new(self).run(stopped));
        Leaving { stop, work }
    }
}

fn endpoint(collector: &Url) -> Result<String, InvalidTraces> {
    let is_bare = collector.username().is_empty()
        && collector.password().is_none()
        && collector.query().is_none()
        && collector.fragment().is_none();
    if !is_bare || !matches!(collector.scheme(), "http" | "https") || !collector.has_host() {
        return Err(InvalidTraces::Endpoint);
    }
    Ok(format!("{}/v1/traces", collector.as_str().trim_end_matches('/')))
}

/// The headers of the settings, which no log shows.
fn headers(settings: &Settings) -> Result<HeaderMap, InvalidTraces> {
    let text =
        settings.otel_exporter_otlp_headers.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
    let mut headers = HeaderMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or(InvalidTraces::Headers)?;
        let name: HeaderName = name.trim().parse().map_err(|_| InvalidTraces::Headers)?;
        let value = percent_decode_str(value.trim()).decode_utf8().map_err(|_| InvalidTraces::Headers)?;
        let mut value: HeaderValue = value.parse().map_err(|_| InvalidTraces::Headers)?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn exporter(endpoint: String, headers: HeaderMap) -> Result<SpanExporter, InvalidTraces> {
    let client = client_builder()
        .map_err(|error| InvalidTraces::Client(error.to_string()))?
        .no_proxy()
        .timeout(PATIENCE)
        .default_headers(headers)
        .user_agent("mana-core-auth")
        .build()
        .map_err(|error| InvalidTraces::Client(error.to_string()))?;
    SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_timeout(PATIENCE)
        .build()
        .map_err(|error| InvalidTraces::Client(error.to_string()))
}

/// What the spans come from: this service, its version, and which of its processes.
fn resource(service: &str) -> Resource {
    let mut instance = [0; 8];
    crate::SystemRng.fill(&mut instance);
    Resource::builder_empty()
        .with_service_name(service.to_owned())
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", format!("{:016x}", u64::from_be_bytes(instance))),
        ])
        .build()
}

fn sampler(sampler: TracesSampler, share: f64) -> Sampler {
    let below = |root: Sampler| Sampler::ParentBased(Box::new(root));
    match sampler {
        TracesSampler::AlwaysOn => Sampler::AlwaysOn,
        TracesSampler::AlwaysOff => Sampler::AlwaysOff,
        TracesSampler::TraceIdRatio => Sampler::TraceIdRatioBased(share),
        TracesSampler::ParentBasedAlwaysOn => below(Sampler::AlwaysOn),
        TracesSampler::ParentBasedAlwaysOff => below(Sampler::AlwaysOff),
        TracesSampler::ParentBasedTraceIdRatio => below(Sampler::TraceIdRatioBased(share)),
    }
}

/// Where spans go when they end. Never waits.
#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<SpanData>,
    overflowed: Arc<AtomicU64>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.sender.try_send(span).is_err() {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Traces on their way.
#[derive(Debug)]
pub struct Leaving {
    stop: oneshot::Sender<()>,
    work: JoinHandle<()>,
}

impl Leaving {
    /// Hands over what is left, in `limit` at most.
    pub async fn finish(mut self, limit: Duration) {
        // It may have died, which is as well.
        let _ = self.stop.send(());
        if tokio::time::timeout(limit.min(FAREWELL), &mut self.work).await.is_err() {
            self.work.abort();
            tracing::warn!("the last traces were not handed over in time");
        }
    }
}

/// How the collector is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Collector {
    Well,
    /// It takes spans, but others arise faster.
    Slow,
    /// It takes none.
    Away,
}

impl Collector {
    /// What it is after a batch, while others may have been lost and some wait.
    fn after(self, is_taken: bool, is_overflowing: bool, waiting: usize) -> Self {
        match self {
            _ if !is_taken => Self::Away,
            // What was lost meanwhile was lost because it was away.
            Self::Away => Self::Well,
            _ if is_overflowing => Self::Slow,
            // It has to catch up first, or it would be slow and well by turns.
            Self::Slow if waiting >= BATCH => Self::Slow,
            Self::Slow | Self::Well => Self::Well,
        }
    }
}

/// The one that empties the queue.
struct Handover {
    exporter: SpanExporter,
    ended: mpsc::Receiver<SpanData>,
    overflowed: Arc<AtomicU64>,
    collector: Collector,
}

impl Handover {
    fn new(traces: Traces) -> Self {
        let Traces { exporter, ended, overflowed, .. } = traces;
        Self { exporter, ended, overflowed, collector: Collector::Well }
    }

    /// Hands over what has ended, when it fills a batch or its first has waited long enough; all that is left when it is told to stop.
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut is_stopping = false;
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                taken = self.ended.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                }
                _ = &mut stop, if !is_stopping => {
                    is_stopping = true;
                    self.ended.close();
                    continue;
                }
            }
            if !is_stopping {
                tokio::select! {
                    () = fill(&mut self.ended, &mut batch) => {}
                    () = tokio::time::sleep(GATHERING) => {}
                    _ = &mut stop => {
                        is_stopping = true;
                        self.ended.close();
                    }
                }
            }
            self.hand_over(std::mem::take(&mut batch)).await;
        }
    }

    async fn hand_over(&mut self, batch: Vec<SpanData>) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        metrics::gauge!("trace_spans_waiting").set(u32::try_from(self.ended.len()).unwrap_or(u32::MAX));
        let outcome = self.exporter.export(batch).await;
        let overflowed = self.overflowed.swap(0, Ordering::Relaxed);
        metrics::counter!("trace_spans_dropped_total", "reason" => "queue_full").increment(overflowed);
        let is_taken = outcome.is_ok();
        if is_taken {
            metrics::counter!("trace_spans_exported_total").increment(count);
        } else {
            metrics::counter!("trace_spans_dropped_total", "reason" => "not_taken").increment(count);
        }
        if let Err(error) = outcome {
            // Says a status, or that there was none, and neither address nor headers.
            tracing::debug!(%error, "spans were not taken");
        }
        let waiting = self.ended.len();
        metrics::gauge!("trace_spans_waiting").set(u32::try_from(waiting).unwrap_or(u32::MAX));
        self.turn(self.collector.after(is_taken, overflowed > 0, waiting));
    }

    /// One line for each turn, however often it fails.
    fn turn(&mut self, collector: Collector) {
        if self.collector == collector {
            return;
        }
        self.collector = collector;
        match collector {
            Collector::Well => tracing::info!("the collector takes all traces again"),
            Collector::Slow => {
                tracing::warn!(
                    "traces arise faster than the collector takes them: some are dropped, and counted"
                );
            }
            Collector::Away => {
                tracing::warn!("the collector takes no traces: they are dropped, and counted, until it does");
            }
        }
    }
}

/// Until the batch is full, or no more will come.
async fn fill(ended: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    while batch.len() < BATCH {
        if ended.recv_many(batch, BATCH.saturating_sub(batch.len())).await == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::SecretString;

    fn settings(endpoint: &str) -> Settings {
        Settings {
            otel_exporter_otlp_endpoint: Some(endpoint.parse().unwrap()),
            ..Settings::defaults().unwrap()
        }
    }

    #[test]
    fn there_is_a_way_to_what_is_a_collector_and_to_nothing_else() {
        assert!(
            Traces::from_settings(&Settings::defaults().unwrap()).unwrap().is_none(),
            "off when not asked for"
        );
        for (given, endpoint_of_it) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("https://otel.example.com/tenant/", "https://otel.example.com/tenant/v1/traces"),
        ] {
            assert_eq!(endpoint(&given.parse().unwrap()).unwrap(), endpoint_of_it);
            assert!(Traces::from_settings(&settings(given)).unwrap().is_some());
        }
        for bad in
            ["ftp://localhost", "http://key@localhost:4318", "http://localhost:4318/?key=1", "unix:/run/otel"]
        {
            assert!(Traces::from_settings(&settings(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_collector_turns_when_it_is_heard_from_and_not_by_every_batch() {
        let (taken, lost) = (true, true);
        let (none, many) = (0, QUEUE);
        let story = [
            (!taken, !lost, none, Collector::Away),
            (!taken, lost, many, Collector::Away),
            (taken, lost, many, Collector::Well),
            (taken, lost, many, Collector::Slow),
            (taken, !lost, many, Collector::Slow),
            (taken, lost, many, Collector::Slow),
            (taken, !lost, none, Collector::Well),
            (taken, !lost, none, Collector::Well),
        ];
        let mut collector = Collector::Well;
        for (number, (is_taken, is_overflowing, waiting, next)) in story.into_iter().enumerate() {
            collector = collector.after(is_taken, is_overflowing, waiting);
            assert_eq!(collector, next, "batch {number}");
        }
    }

    #[test]
    fn headers_are_read_as_the_standard_writes_them_and_shown_to_nobody() {
        let with = |text: &str| {
            let given = Some(SecretString::from(text.to_owned()));
            headers(&Settings { otel_exporter_otlp_headers: given, ..Settings::defaults().unwrap() })
        };
        let read = with("authorization=Bearer%20s3cret, x-tenant=a=b,").unwrap();
        assert_eq!(read["authorization"], "Bearer s3cret");
        assert_eq!(read["x-tenant"], "a=b");
        assert!(!format!("{read:?}").contains("s3cret"));
        assert!(with("").unwrap().is_empty());
        for bad in ["s3cret", "a b=c", "a=%0d%0ab", "=c"] {
            let refused = with(bad).unwrap_err();
            assert!(!refused.to_string().contains("s3cret"), "{refused}");
        }
    }
}
