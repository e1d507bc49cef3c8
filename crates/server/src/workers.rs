//! Work that no request waits for: each is a pass that is made again and again for as long as the process runs.
//!
//! Every replica makes every pass; a pass takes the locks it needs in the database, so that two of them do no harm.

use mana_auth::session::liveness;
use mana_auth::{AuthState, retention};
use mana_platform::DbError;
use metrics_exporter_prometheus::PrometheusHandle;
use std::time::Duration;

/// Ended sessions are looked for this often: several times within the second in which they must be refused everywhere.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// All of them, not started yet: a test makes the one pass it is about.
#[derive(Debug, Clone)]
pub struct Workers {
    /// The accounts.
    pub(crate) auth: AuthState,
    /// What /metrics prints.
    pub(crate) metrics: PrometheusHandle,
}

impl Workers {
    /// Works until it is dropped.
    pub async fn run(self) {
        tokio::join!(
            every(BETWEEN_LOOKS, || self.follow_ended_sessions()),
            every(Duration::from_secs(1), || self.write_notes()),
            every(Duration::from_hours(1), || self.prune()),
            every(Duration::from_secs(5), || self.tidy_metrics()),
        );
    }

    /// Learns which sessions have ended elsewhere.
    pub async fn follow_ended_sessions(&self) {
        liveness::catch_up(&self.auth).await;
    }

    /// Writes down which sessions were active and which refresh answers were seen in use.
    pub async fn write_notes(&self) {
        tell("the activity of sessions could not be written", liveness::write_notes(&self.auth).await);
    }

    /// Deletes what is past its time.
    pub async fn prune(&self) {
        tell("what is past its time could not be deleted", retention::prune(&self.auth).await);
    }

    /// Histograms gather samples until somebody reads them; without a reader, this keeps them small.
    #[expect(clippy::unused_async, reason = "a pass like the others")]
    pub async fn tidy_metrics(&self) {
        self.metrics.run_upkeep();
    }
}

/// A pass that failed is made again anyway.
fn tell(what: &'static str, outcome: Result<(), DbError>) {
    if let Err(error) = outcome {
        let cause: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(cause, what);
    }
}

/// Makes a pass at once and then again `pause` after each has ended, so that a slow pass never meets itself.
async fn every<Pass: Future<Output = ()>>(pause: Duration, pass: impl Fn() -> Pass) {
    loop {
        pass().await;
        tokio::time::sleep(pause).await;
    }
}
