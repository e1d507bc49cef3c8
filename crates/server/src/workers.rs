//! Work that no request waits for: each is a pass that is made again and again for as long as the process runs.
//!
//! Every replica makes every pass; a pass takes the locks it needs in the database, so that two of them do no harm.

use mana_auth::Auth;
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;
use std::time::Duration;

/// All of them, not started yet: a test makes the one pass it is about.
#[derive(Debug, Clone)]
pub struct Workers {
    /// What /metrics prints.
    pub(crate) metrics: PrometheusHandle,
    /// Accounts, sessions and tokens.
    pub(crate) auth: Arc<Auth>,
}

impl Workers {
    /// Works until it is dropped.
    pub async fn run(self) {
        tokio::join!(
            every(Duration::from_secs(5), || self.tidy_metrics()),
            every(Duration::from_secs(15), || self.keep_keys()),
        );
    }

    /// Histograms gather samples until somebody reads them; without a reader, this keeps them small.
    #[expect(clippy::unused_async, reason = "a pass like the others")]
    pub async fn tidy_metrics(&self) {
        self.metrics.run_upkeep();
    }

    /// Rotates signing keys that are due, and takes over what other servers did.
    pub async fn keep_keys(&self) {
        self.auth.keys.keep().await;
    }
}

/// Makes a pass at once and then again `pause` after each has ended, so that a slow pass never meets itself.
async fn every<Pass: Future<Output = ()>>(pause: Duration, pass: impl Fn() -> Pass) {
    loop {
        pass().await;
        tokio::time::sleep(pause).await;
    }
}
