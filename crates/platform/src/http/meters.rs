//! What is counted of each route. Handles are kept: to find a metric by its labels costs more than to count.

use http::StatusCode;
use metrics::{Counter, Histogram};
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// The metrics of all routes that were asked so far. Routes and methods are known ones, so they are few.
#[derive(Default)]
pub(super) struct Meters(RwLock<HashMap<String, HashMap<Answered, Meter>>>);

type Answered = (&'static str, StatusCode);

#[derive(Clone)]
struct Meter {
    answers: Counter,
    seconds: Histogram,
}

impl Meters {
    /// Counts an answer of `route`, which took `duration`.
    pub(super) fn count(&self, method: &'static str, route: &str, status: StatusCode, duration: Duration) {
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            // By itself too: whoever is called for the first one of a route can't see a series rise that begins with it.
            metrics::counter!("http_internal_errors_total").increment(1);
        }
        let meter = self.find(route, (method, status)).unwrap_or_else(|| self.add(route, (method, status)));
        meter.answers.increment(1);
        meter.seconds.record(duration);
    }

    fn find(&self, route: &str, answered: Answered) -> Option<Meter> {
        let routes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        routes.get(route)?.get(&answered).cloned()
    }

    fn add(&self, route: &str, answered: Answered) -> Meter {
        let (method, status) = answered;
        let (label, status) = (route.to_owned(), status.as_str().to_owned());
        let meter = Meter {
            answers: metrics::counter!("http_requests_total", "method" => method, "route" => label.clone(), "status" => status),
            seconds: metrics::histogram!("http_request_duration_seconds", "method" => method, "route" => label),
        };
        let mut routes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        routes.entry(route.to_owned()).or_default().insert(answered, meter.clone());
        meter
    }
}
