//! What else happens on the machine while a load runs.

use crate::error::BenchError;
use crate::load::{self, Done, Times};
use crate::postgres::{WaitSampler, Written};
use crate::processors::{Split, Totals};
use crate::script::Script;
use crate::stage::Stage;
use crate::tally::Tally;

/// Of the measured time of a load.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) split: Split,
    pub(crate) written: Written,
    /// What the service's backends were seen doing, and how often.
    pub(crate) waits: Vec<(String, u64)>,
}

/// Runs a load and looks on.
pub(crate) async fn during<S>(
    stage: &Stage,
    times: Times,
    load: impl Future<Output = Result<Done<S>, BenchError>>,
) -> Result<(Done<S>, Observed), BenchError> {
    let mut owner = stage.postgres.owner().await?;
    let look = async {
        tokio::time::sleep(times.warm_up).await;
        let (totals, written) = (Totals::now(stage)?, Written::now(&mut owner).await?);
        let waits = WaitSampler::start(&stage.postgres).await?;
        tokio::time::sleep(times.measured).await;
        let split = Totals::now(stage)?.since(&totals);
        let written = Written::now(&mut owner).await?.since(written);
        Ok::<_, BenchError>(Observed { split, written, waits: waits.seen() })
    };
    let (done, observed) = tokio::join!(load, look);
    Ok((done?, observed?))
}

/// Runs a closed load and looks on. Fails when no answer was right.
pub(crate) async fn closed<S: Script>(
    stage: &Stage,
    scripts: Vec<S>,
    times: Times,
    what: &str,
) -> Result<(Tally, Observed), BenchError> {
    let load = load::closed(stage.server.address, scripts, times);
    let (done, observed) = during(stage, times, load).await?;
    Ok((done.tally.checked(what)?, observed))
}
