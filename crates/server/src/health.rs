//! Whether the service lives and can work, and its metrics.

use crate::drain::Drain;
use axum::Json;
use axum::extract::State;
use mana_credits::Credits;
use mana_platform::http::{ApiError, ProblemBody, codes};
use mana_platform::{Database, migrate};
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What health and metrics are read from.
#[derive(Debug, Clone)]
pub(crate) struct HealthState {
    database: Database,
    credits: Arc<Credits>,
    metrics: PrometheusHandle,
    process: Collector,
    drain: Drain,
}

impl HealthState {
    pub(crate) fn new(
        database: Database,
        credits: Arc<Credits>,
        metrics: PrometheusHandle,
        drain: Drain,
    ) -> Self {
        Self { database, credits, metrics, process: Collector::default(), drain }
    }

    fn check_serving(&self) -> Result<(), ApiError> {
        if self.drain.has_begun() {
            return Err(ApiError::new(&codes::UNAVAILABLE).with_detail("The server is about to stop"));
        }
        if !(self.credits.ledger.is_open() && self.credits.reader.is_open()) {
            return Err(ApiError::new(&codes::UNAVAILABLE).with_detail("A part of the ledger has ended"));
        }
        Ok(())
    }
}

pub(crate) fn routes() -> OpenApiRouter<HealthState> {
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(serving))
        .routes(routes!(ready))
        .routes(routes!(health))
}

pub(crate) fn metrics_routes() -> OpenApiRouter<HealthState> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// How it is.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Always `ok`; anything else is a problem.
    #[schema(max_length = 16)]
    status: &'static str,
    #[schema(max_length = 64)]
    service: &'static str,
    #[schema(max_length = 64)]
    version: &'static str,
}

const OK: Health = Health { status: "ok", service: "mana-core-auth", version: env!("CARGO_PKG_VERSION") };

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process runs
#[utoipa::path(get, path = "/health/live", tag = "operations", responses((status = 200, description = "It does", body = Health)))]
async fn live() -> Json<Health> {
    Json(OK)
}

/// Requests may come here: the server is not about to stop, and all of it works
///
/// For load balancers. It says nothing of what the server leans on: what is away is away for all servers, and each of them answers that
/// better than a balancer without any.
#[utoipa::path(
    get, path = "/health/serving", tag = "operations",
    responses((status = 200, description = "They may", body = Health), (status = 503, description = "They may no more", body = ProblemBody)),
)]
async fn serving(State(state): State<HealthState>) -> Result<Json<Health>, ApiError> {
    state.check_serving()?;
    Ok(Json(OK))
}

/// The service can work: the database answers, the ledger takes orders, and the server is not about to stop
///
/// For people and for what watches a server. A load balancer asks `/health/serving`.
#[utoipa::path(
    get, path = "/health/ready", tag = "operations",
    responses((status = 200, description = "It can", body = Health), (status = 503, description = "It can't right now", body = ProblemBody)),
)]
async fn ready(State(state): State<HealthState>) -> Result<Json<Health>, ApiError> {
    state.check_serving()?;
    match tokio::time::timeout(PATIENCE, state.database.ping()).await {
        Ok(Ok(())) => Ok(Json(OK)),
        Ok(Err(_)) | Err(_) => {
            Err(ApiError::new(&codes::UNAVAILABLE).with_detail("The database does not answer"))
        }
    }
}

/// As /health/ready, where older clients look for it
#[utoipa::path(
    get, path = "/health", tag = "operations",
    responses((status = 200, description = "It can", body = Health), (status = 503, description = "It can't right now", body = ProblemBody)),
)]
async fn health(state: State<HealthState>) -> Result<Json<Health>, ApiError> {
    ready(state).await
}

/// Metrics for Prometheus
///
/// With `INTERNAL_ADDRESS`, there and nowhere else.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "Text in the exposition format", content_type = "text/plain", body = String)),
)]
async fn metrics(State(state): State<HealthState>) -> String {
    let places = state.database.places();
    metrics::gauge!("database_pool_connections", "state" => "idle").set(places.idle);
    metrics::gauge!("database_pool_connections", "state" => "in_use").set(places.in_use);
    metrics::gauge!("database_pool_connections_max").set(places.max);
    let schema = migrate::binary_version().to_string();
    metrics::gauge!("build_info", "version" => OK.version, "schema" => schema).set(1);
    state.process.collect();
    state.metrics.render()
}
