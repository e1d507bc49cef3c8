//! The spans that traces are made of: all that leaves the process of what it does.
//!
//! What a span says is decided here and nowhere else, so that nothing about a person gets into one: no address, no id of a
//! user, no token, no query, no body. Log lines and spans of other code, libraries' too, are of other targets and stay here.
//!
//! Without a collector, all of this is a comparison with the level of the log.

use http::{HeaderMap, StatusCode};
use mana_kernel::RequestId;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Span, trace_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of the spans of traces, and of nothing else.
pub(super) const TARGET: &str = "mana_traces";

/// Links of a span at most.
pub(super) const MAX_LINKS: usize = 32;

const TRACE_PARENT: &str = "traceparent";
const STATUS_CODE: &str = "http.response.status_code";
const OTEL_STATUS: &str = "otel.status_code";

/// A request, from its head to its answer. The trace of a caller that is trusted goes on with it; that of another is only
/// linked, because whoever may choose a trace chooses whether it is kept.
pub(crate) fn request(
    method: &'static str,
    route: &str,
    id: &RequestId,
    headers: &HeaderMap,
    is_trusted: impl FnOnce() -> bool,
) -> Span {
    let span = trace_span!(
        target: TARGET,
        "request",
        otel.name = %format_args!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        request_id = %id,
    );
    if !span.is_disabled()
        && let Some(theirs) = trace_of_caller(headers)
    {
        if is_trusted() {
            // It has not started yet: nobody has asked for its context.
            let _ = span.set_parent(Context::new().with_remote_span_context(theirs));
        } else {
            span.add_link(theirs);
        }
    }
    span
}

/// Notes how a request was answered.
pub(crate) fn answered(request: &Span, status: StatusCode) {
    request.record(STATUS_CODE, i64::from(status.as_u16()));
    if status.is_server_error() {
        request.record(OTEL_STATUS, "error");
    }
}

/// A transaction, or single statements, from the wait for a connection to its return.
pub(crate) fn database() -> Span {
    if !is_traced() {
        return Span::none();
    }
    trace_span!(
        target: TARGET,
        "database",
        otel.kind = "client",
        db.system.name = "postgresql",
        wait_ms = Empty,
        outcome = Empty,
    )
}

/// A password that is hashed, from the queue on.
pub fn password_hashing() -> Span {
    if !is_traced() {
        return Span::none();
    }
    trace_span!(target: TARGET, "password hashing", otel.kind = "internal")
}

/// The wait of a password for its turn: until it is dropped.
pub fn password_hashing_wait(hashing: &Span) -> Span {
    if hashing.is_disabled() {
        return Span::none();
    }
    trace_span!(target: TARGET, parent: hashing, "password hashing wait", otel.kind = "internal")
}

/// An order of the ledger, from the queue to the commit.
pub fn ledger_order() -> Span {
    if !is_traced() {
        return Span::none();
    }
    trace_span!(target: TARGET, "ledger order", otel.kind = "internal")
}

/// A batch of the ledger: a part of the first of its orders that are kept, and linked with the others.
pub fn ledger_batch<'a>(orders: impl ExactSizeIterator<Item = &'a Span>) -> Span {
    if LevelFilter::current() != LevelFilter::TRACE {
        return Span::none();
    }
    let count = i64::try_from(orders.len()).unwrap_or(i64::MAX);
    let mut kept = orders.filter(|order| !order.is_disabled() && context(order).is_sampled());
    let Some(first) = kept.next() else { return Span::none() };
    let batch =
        trace_span!(target: TARGET, parent: first, "ledger batch", otel.kind = "internal", orders = count);
    for (number, order) in kept.enumerate() {
        order.add_link(context(&batch));
        if number < MAX_LINKS {
            batch.add_link(context(order));
        }
    }
    batch
}

/// A call to a server of others, of which the host is told and nothing else of the address.
pub fn call(what: &'static str, method: Option<&str>, host: &str) -> Span {
    trace_span!(
        target: TARGET,
        "call",
        otel.name = what,
        otel.kind = "client",
        otel.status_code = Empty,
        server.address = host,
        http.request.method = method,
        http.response.status_code = Empty,
    )
}

/// Notes whether a call failed.
pub fn call_ended<T, E>(call: &Span, outcome: &Result<T, E>) {
    if outcome.is_err() {
        call.record(OTEL_STATUS, "error");
    }
}

/// Notes what the server of others answers to the call that is under way.
pub fn call_answered(status: StatusCode) {
    Span::current().record(STATUS_CODE, i64::from(status.as_u16()));
}

/// Whether what is under way is part of a trace. Passes of workers are not: they look for work that is hardly ever there.
fn is_traced() -> bool {
    LevelFilter::current() == LevelFilter::TRACE
        && Span::current().metadata().is_some_and(|metadata| metadata.target() == TARGET)
}

fn context(span: &Span) -> SpanContext {
    span.context().span().span_context().clone()
}

/// The trace that the caller is in, if it names one. What else it may want to hand down (`tracestate`) is left out: it may be long,
/// and may say anything.
fn trace_of_caller(headers: &HeaderMap) -> Option<SpanContext> {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &OnlyParent(headers));
    let theirs = context.span().span_context().clone();
    theirs.is_valid().then_some(theirs)
}

struct OnlyParent<'a>(&'a HeaderMap);

impl Extractor for OnlyParent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        if key != TRACE_PARENT {
            return None;
        }
        let mut values = self.0.get_all(TRACE_PARENT).iter();
        // Of two, neither is the caller's.
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        value.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACE_PARENT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn trace(headers: &[(&'static str, &str)]) -> Option<SpanContext> {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        });
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(name, value);
        }
        trace_of_caller(&all)
    }

    #[test]
    fn a_caller_names_one_trace_and_hands_nothing_else_down() {
        let theirs = trace(&[("traceparent", THEIRS), ("tracestate", "mail=ada@example.com")]).unwrap();
        assert_eq!(theirs.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(theirs.is_remote() && theirs.is_sampled());
        assert_eq!(theirs.trace_state().header(), "");
    }

    #[test]
    fn what_is_no_trace_is_none() {
        assert_eq!(trace(&[]), None);
        assert_eq!(trace(&[("traceparent", THEIRS), ("traceparent", THEIRS)]), None);
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-ada@example.com-b7ad6b7169203331-01",
        ] {
            assert_eq!(trace(&[("traceparent", bad)]), None, "{bad}");
        }
    }

    #[test]
    fn without_a_collector_there_is_no_span() {
        assert!(database().is_none() && password_hashing().is_none() && ledger_order().is_none());
        assert!(ledger_batch([Span::none()].iter()).is_none());
        assert!(call("stripe", None, "api.stripe.com").is_disabled());
    }
}
