//! Work that no request waits for: each is a pass that is made again and again for as long as the process runs.
//!
//! Every replica makes every pass; a pass takes the locks it needs in the database, so that two of them do no harm.

use mana_auth::{Auth, security_event};
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;
use std::time::Duration;

/// All of them, not started yet: a test makes the one pass it is about.
#[derive(Debug, Clone)]
pub struct Workers {
    /// What /metrics prints.
    pub(crate) metrics: PrometheusHandle,
    /// The accounts.
    pub(crate) auth: Arc<Auth>,
}

impl Workers {
    /// Works until it is dropped.
    pub async fn run(self) {
        tokio::join!(
            every(Duration::from_secs(5), || self.tidy_metrics()),
            every(Duration::from_secs(5), || self.record_rate_limit_hits()),
        );
    }

    /// Histograms gather samples until somebody reads them; without a reader, this keeps them small.
    #[expect(clippy::unused_async, reason = "a pass like the others")]
    pub async fn tidy_metrics(&self) {
        self.metrics.run_upkeep();
    }

    /// Who runs into a limit is written down here and not in the request: a flood must cost as little as it can.
    pub async fn record_rate_limit_hits(&self) {
        security_event::record_rate_limit_hits(&self.auth).await;
    }
}

/// Makes a pass at once and then again `pause` after each has ended, so that a slow pass never meets itself.
async fn every<Pass: Future<Output = ()>>(pause: Duration, pass: impl Fn() -> Pass) {
    loop {
        pass().await;
        tokio::time::sleep(pause).await;
    }
}
