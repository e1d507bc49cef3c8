//! What is put around every route: request id, span and log line, metrics, problems, time limit, panics, CORS,
//! security headers.

use super::body::BODY_LIMIT_BYTES;
use super::client_address::{self, TrustedProxies};
use super::meters::Meters;
use super::page::Reader;
use super::{AnsweredCode, ApiError, codes, page};
use crate::config::Origin;
use crate::rate_limit::{RateLimits, limit};
use crate::telemetry::{Counted, spans};
use crate::{SystemClock, SystemRng};
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use ipnet::IpNet;
use mana_kernel::RequestId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
pub use tower_http::csrf::ConfigError;
use tower_http::csrf::CsrfLayer;
use tower_http::timeout::TimeoutLayer;
use tracing::Instrument as _;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static CURRENT_REQUEST: RequestId;
}

/// The id of the request that this task serves, if it serves one.
pub fn current_request_id() -> Option<RequestId> {
    CURRENT_REQUEST.try_with(Clone::clone).ok()
}

/// Puts the frame around `routes`. `origins` are those of the apps, `own` is the service's, `name` is what people know it by, `trusted` are the
/// networks of its proxies.
///
/// # Errors
/// When an origin is none.
pub fn around(
    routes: Router,
    origins: &[Origin],
    own: &Origin,
    name: &str,
    time_limit: Duration,
    trusted: &[IpNet],
    limits: &Arc<RateLimits>,
) -> Result<Router, ConfigError> {
    // A page of another site may not make its visitors' browsers write here, whatever cookies they carry.
    let mut same_family =
        CsrfLayer::new().add_trusted_origin(own.as_str())?.with_insecure_bypass(may_come_from_anywhere);
    for origin in origins {
        same_family = same_family.add_trusted_origin(origin.as_str())?;
    }
    let mut limited = routes.layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES));
    if limits.are_on() {
        // Inside of CORS, so that a browser's script may read the refusal, and of the check of origins, so that no page
        // of a foreign site writes away its visitors' quota.
        limited = limited.layer(middleware::from_fn_with_state(Arc::clone(limits), limit::limit));
    }
    // One stack, because a router boxes and clones what each `layer` of its own puts around a route, for every request.
    let frame = ServiceBuilder::new()
        .layer(middleware::from_fn_with_state(Arc::new(Observer::new(name, trusted)), observe))
        .layer(cors(origins))
        .layer(same_family)
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, time_limit))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::new(&codes::INTERNAL).with_detail("The request hit a defect").into_response()
        }));
    Ok(limited.layer(frame))
}

/// Apple's page sends its visitors back with a form. All that comes of it is a redirect to the same path, as a link would do it.
fn may_come_from_anywhere(method: &Method, uri: &Uri) -> bool {
    let provider =
        uri.path().strip_prefix("/api/v1/auth/oauth/").and_then(|rest| rest.strip_suffix("/callback"));
    *method == Method::POST && provider.is_some_and(|provider| !provider.contains('/'))
}

fn cors(origins: &[Origin]) -> CorsLayer {
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin.as_str()).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_credentials(true)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
            Method::OPTIONS,
        ])
        .allow_headers([
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            HeaderName::from_static("x-requested-with"),
            HeaderName::from_static("x-app-id"),
            HeaderName::from_static("x-service-key"),
            HeaderName::from_static("idempotency-key"),
            header::IF_MATCH,
        ])
        .expose_headers([
            REQUEST_ID.clone(),
            header::RETRY_AFTER,
            header::LINK,
            header::ETAG,
            HeaderName::from_static("idempotency-hit"),
            limit::RATE_LIMIT.clone(),
            limit::RATE_LIMIT_POLICY.clone(),
        ])
        .max_age(Duration::from_mins(10))
}

/// As Helmet sets them, with a policy that lets an answer of this service load nothing unless its page says so, and
/// nothing kept by a cache unless its handler says so.
fn add_security_headers(headers: &mut HeaderMap) {
    const HEADERS: [(&str, &str); 9] = [
        ("cache-control", "no-store"),
        (
            "content-security-policy",
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
        ),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "cross-origin"),
        ("referrer-policy", "no-referrer"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("x-permitted-cross-domain-policies", "none"),
    ];
    headers.reserve(HEADERS.len().saturating_add(1));
    for (name, value) in HEADERS {
        headers.entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    }
}

/// Whether programs ask this route again and again, so that a line in the log for each good answer would be all that is in it.
fn is_asked_all_the_time(route: &str) -> bool {
    route == "/api/v1/auth/validate" || route == "/metrics" || route.starts_with("/health")
}

/// What it takes to observe requests.
struct Observer {
    service_name: String,
    trusted: TrustedProxies,
    meters: Meters,
}

impl Observer {
    fn new(service_name: &str, trusted: &[IpNet]) -> Self {
        Self {
            service_name: service_name.to_owned(),
            trusted: TrustedProxies::new(trusted),
            meters: Meters::default(),
        }
    }
}

/// Names the request and its client, runs it in a span, turns failures into problems, and counts it.
///
/// The route's template is logged and counted, never the path itself: paths may carry secrets, and every distinct one
/// would be a series of its own.
async fn observe(State(observer): State<Arc<Observer>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let method = known_method(request.method());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    client_address::identify(&mut request, &observer.trusted);
    let reader = page::reader_of(&request, route);
    let is_quiet = is_asked_all_the_time(route);
    let span = if is_quiet {
        tracing::debug_span!("request", request_id = %id, method, route)
    } else {
        tracing::info_span!("request", request_id = %id, method, route)
    };
    let trusts_caller = || client_address::is_from_proxy(&request, &observer.trusted);
    let traced = spans::request(method, route, &id, request.headers(), trusts_caller);
    let origin = request.headers().get(header::ORIGIN).cloned();
    let in_flight = Counted::on(metrics::gauge!("http_requests_in_flight"));

    let mut response = CURRENT_REQUEST
        .scope(id.clone(), async {
            let (response, service_name) = (next.run(request).await, &observer.service_name);
            let response = written_out(response, service_name, reader, &id, origin.as_ref());
            let code = response.extensions().get::<AnsweredCode>().map(|AnsweredCode(code)| &**code);
            let (status, duration_ms) = (response.status().as_u16(), millis(started.elapsed()));
            if is_quiet && response.status().is_success() {
                tracing::debug!(status, duration_ms, code, "answered");
            } else {
                tracing::info!(status, duration_ms, code, "answered");
            }
            response
        })
        // Inside of the log's, so that it is the one that its parts find.
        .instrument(traced.clone())
        .instrument(span)
        .await;

    drop(in_flight);
    spans::answered(&traced, response.status());
    observer.meters.count(method, route, response.status(), started.elapsed());
    let headers = response.headers_mut();
    add_security_headers(headers);
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID.clone(), value);
    }
    response
}

/// The client's own id if it is harmless, so that a request can be followed across services; else a new one.
fn request_id(request: &Request) -> RequestId {
    request
        .headers()
        .get(&REQUEST_ID)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or_else(|| RequestId::new(&SystemClock, &SystemRng))
}

fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "HEAD" => "HEAD",
        _ => "other",
    }
}

/// Gives a page and a failed answer their body. Failures of the HTTP layer itself (no such path, body too large) have none yet. `reader` is
/// who would rather read a page than a problem.
fn written_out(
    mut response: Response,
    service_name: &str,
    reader: Option<Reader>,
    id: &RequestId,
    origin: Option<&HeaderValue>,
) -> Response {
    page::write_out(&mut response, service_name);
    let status = response.status();
    let failure = response.extensions_mut().remove::<ApiError>();
    if failure.is_none() && has_own_body(&response) {
        return response;
    }
    let Some(error) = failure.or_else(|| {
        (status.is_client_error() || status.is_server_error()).then(|| ApiError::from_status(status))
    }) else {
        return response;
    };
    let error =
        if error.code() == &codes::FOREIGN_SITE { error.with_hint(foreign_site(origin)) } else { error };
    error.log(id);
    let (rendered, body) = error.render(id).into_parts();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.extend(rendered.headers);
    response.extensions_mut().extend(rendered.extensions);
    *response.status_mut() = rendered.status;
    *response.body_mut() = body;
    if let Some(mut page) = reader.and_then(|reader| page::of_failure(&error, reader, id)) {
        page::write_out(&mut page, service_name);
        if has_own_body(&page) {
            let (rendered, body) = page.into_parts();
            response.headers_mut().extend(rendered.headers);
            *response.body_mut() = body;
        }
    }
    response
}

/// Which origin is missing where. Only what `CORS_ORIGINS` could name is repeated.
fn foreign_site(origin: Option<&HeaderValue>) -> String {
    let text = origin.and_then(|origin| origin.to_str().ok()).filter(|text| text.len() <= 255);
    match text.and_then(|text| text.parse::<Origin>().ok()) {
        Some(origin) => {
            format!("Pages of {} may not write here: CORS_ORIGINS of this service does not name that origin", origin.as_str())
        }
        None => "The browser says that it asks for a page of a foreign site, and names no origin that could stand in CORS_ORIGINS".to_owned(),
    }
}

/// A remembered refusal or a page for people: a failure that was written where it happened.
fn has_own_body(response: &Response) -> bool {
    let media_type = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    media_type == "application/problem+json" || media_type.starts_with("text/html")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use serde_json::Value;
    use tower::ServiceExt as _;

    async fn defect() {
        panic!("an index out of bounds");
    }

    async fn answer(time_limit: Duration, path: &str) -> (StatusCode, Value) {
        let routes =
            Router::new().route("/defect", get(defect)).route("/slow", get(std::future::pending::<()>));
        let own = "http://localhost:3001".parse().unwrap();
        let clock: Arc<dyn mana_kernel::Clock> = Arc::new(SystemClock);
        let limits = Arc::new(RateLimits::new(&Settings::defaults().unwrap(), None, &clock));
        let framed = around(routes, &[], &own, "Mana", time_limit, &[], &limits).unwrap();
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = framed.oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_defect_is_a_problem_and_tells_nothing_of_itself() {
        let (status, problem) = answer(Duration::from_secs(5), "/defect").await;
        assert_eq!((status.as_u16(), problem["code"].as_str()), (500, Some("service.internal")));
        assert!(!problem.to_string().contains("index"), "{problem}");
        assert!(!problem["instance"].as_str().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_answered_all_the_same() {
        let (status, problem) = answer(Duration::from_millis(10), "/slow").await;
        assert_eq!((status.as_u16(), problem["code"].as_str()), (503, Some("service.timeout")));
    }
}
