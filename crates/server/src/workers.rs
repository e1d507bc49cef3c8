//! Work that no request waits for: each is a pass that is made again and again for as long as the process runs.
//!
//! Every replica makes every pass; a pass takes the locks it needs in the database, so that two of them do no harm.

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use mana_auth::mail::MailError;
use mana_auth::session::liveness;
use mana_auth::{
    Auth, account, admin, mail, retention, security_event, service_key, two_factor, verification,
    webhook as app_webhook,
};
use mana_credits::auto_top_up::{self, Payers};
use mana_credits::idempotency::forget;
use mana_credits::ledger::low_balance::{LowBalanceNotice, take_notices};
use mana_credits::ledger::{Books, root};
use mana_credits::purchase::{self, Payments};
use mana_credits::webhook;
use mana_kernel::Clock as _;
use mana_platform::SystemClock;
use mana_platform::http::Language;
use mana_platform::redis::Bell;
use metrics_exporter_prometheus::PrometheusHandle;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Ended sessions are looked for this often: several times within the second in which they must be refused everywhere.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
/// However often others ring, there is no more than one look for it in so long.
const BETWEEN_LOOKS_BY_BELL: Duration = Duration::from_millis(100);
/// However many sessions end here, the others are rung for no more than once in so long.
const BETWEEN_RINGS: Duration = Duration::from_millis(20);
/// Until what failed of it is tried again.
const AFTER_A_LOST_RING: Duration = Duration::from_secs(1);
/// How long a delivery that another replica took in, or that is tried again, waits at most beyond its time.
const PAYMENT_PAUSE: Duration = Duration::from_secs(5);
/// How long a mail that another replica wrote down, or that is tried again, waits at most beyond its time.
const MAIL_PAUSE: Duration = Duration::from_secs(5);

/// How long something that an endpoint is to be told waits at most beyond its time.
const WEBHOOK_PAUSE: Duration = Duration::from_secs(1);
/// Endpoints that a server tells at the same time: one that hangs holds up one of these lanes.
const WEBHOOK_LANES: usize = 4;
/// How long a pass may take, and how long nothing may happen in it: no answer of the database, of Stripe, of a mail server or of an app.
#[derive(Debug, Clone, Copy)]
struct Limits {
    total: Duration,
    silence: Duration,
}

/// What takes moments.
const MOMENTS: Limits = Limits { total: Duration::from_mins(1), silence: Duration::from_mins(1) };
/// What takes as long as there is more of it. What is given up is begun where it was left. A mail server has 50 seconds to answer, which is
/// the longest of what these wait for.
const WORK: Limits = Limits { total: Duration::from_mins(30), silence: Duration::from_mins(2) };
/// What reads or deletes all that there is. One statement over large tables may be at it for long.
const LONG_WORK: Limits = Limits { total: Duration::from_hours(6), silence: Duration::from_mins(30) };
/// Notices of one transaction.
const NOTICES: i64 = 50;

/// What is done in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    WriteActivity,
    WriteKeyUse,
    DemandFactors,
    DemandFactorsOfOldSessions,
    Prune,
    ForgetAnswers,
    ForgetDeliveries,
    ProveBooks,
    KeepKeys,
    CountAdministrators,
    RecordHits,
    AnswerAsked,
    SendMails,
    LookAtPurchases,
    WorkOnDeliveries,
    AskAboutRefunds,
    TopUp,
    FindEmptyWallets,
    Reconcile,
    LearnListeners,
    TellApps,
    MeasureWebhooks,
    MailLowBalances,
}

impl Task {
    const ALL: [Self; 23] = [
        Self::WriteActivity,
        Self::WriteKeyUse,
        Self::DemandFactors,
        Self::DemandFactorsOfOldSessions,
        Self::Prune,
        Self::ForgetAnswers,
        Self::ForgetDeliveries,
        Self::ProveBooks,
        Self::KeepKeys,
        Self::CountAdministrators,
        Self::RecordHits,
        Self::AnswerAsked,
        Self::SendMails,
        Self::LookAtPurchases,
        Self::WorkOnDeliveries,
        Self::AskAboutRefunds,
        Self::TopUp,
        Self::FindEmptyWallets,
        Self::Reconcile,
        Self::LearnListeners,
        Self::TellApps,
        Self::MeasureWebhooks,
        Self::MailLowBalances,
    ];

    /// Its name in log lines and metrics, and its limits: an answer of the database that never comes would hold it up for ever. What it did
    /// not commit by then is undone, and its connection is closed.
    fn details(self) -> (&'static str, Limits) {
        match self {
            Self::WriteActivity => ("writing the activity of sessions", MOMENTS),
            Self::WriteKeyUse => ("writing the use of service keys", MOMENTS),
            Self::DemandFactors => ("ending sessions without a second factor", WORK),
            Self::DemandFactorsOfOldSessions => ("ending old sessions without a second factor", LONG_WORK),
            Self::Prune => ("deleting what is past its time", LONG_WORK),
            Self::ForgetAnswers => ("forgetting old answers", LONG_WORK),
            Self::ForgetDeliveries => ("forgetting old deliveries of Stripe", LONG_WORK),
            Self::ProveBooks => ("checking the books", LONG_WORK),
            Self::KeepKeys => ("keeping the signing keys", MOMENTS),
            Self::CountAdministrators => ("counting administrators", MOMENTS),
            Self::RecordHits => ("recording who ran into limits", MOMENTS),
            Self::AnswerAsked => ("answering what was asked for by mail", WORK),
            Self::SendMails => ("sending mails", WORK),
            Self::LookAtPurchases => ("looking at purchases that are asked for", WORK),
            Self::WorkOnDeliveries => ("working on deliveries of Stripe", WORK),
            Self::AskAboutRefunds => ("asking Stripe about refunds", WORK),
            Self::TopUp => ("topping wallets up", WORK),
            Self::FindEmptyWallets => ("finding wallets that ran out", WORK),
            Self::Reconcile => ("comparing purchases with Stripe", LONG_WORK),
            Self::LearnListeners => ("learning which apps listen", MOMENTS),
            Self::TellApps => ("telling apps what happened", WORK),
            Self::MeasureWebhooks => ("counting what waits for apps", MOMENTS),
            Self::MailLowBalances => ("mailing of low balances", WORK),
        }
    }
}

/// A task took longer than it may.
#[derive(Debug, thiserror::Error)]
enum TooSlow {
    #[error("it was not done within {0:?}")]
    Total(Duration),
    #[error("nothing was heard of what it waits for within {0:?}")]
    Silence(Duration),
}

/// All of them, not started yet: a test makes the one pass it is about.
#[derive(Debug, Clone)]
pub struct Workers {
    /// What /metrics prints.
    pub(crate) metrics: PrometheusHandle,
    /// The accounts.
    pub auth: Arc<Auth>,
    /// The books of mana.
    pub(crate) books: Arc<Books>,
    /// What it takes to sell mana.
    pub payments: Arc<Payments>,
    /// The accounts of those who pay.
    pub(crate) payers: Arc<dyn Payers>,
    /// What servers tell each other by that sessions have ended; none without Redis.
    pub(crate) bell: Option<Arc<Bell>>,
}

impl Workers {
    /// Works until it is dropped.
    pub async fn run(self) {
        self.note_start();
        tokio::join!(
            every(BETWEEN_LOOKS, || self.follow_ended_sessions()),
            self.carry_the_bell(),
            every(Duration::from_secs(1), || self.write_notes()),
            every(Duration::from_hours(1), || self.prune()),
            every(Duration::from_secs(15), || self.demand_second_factors()),
            every(Duration::from_hours(1), || self.demand_second_factors_of_old_sessions()),
            every(Duration::from_mins(15), || self.prove_books()),
            every(Duration::from_secs(5), || self.tidy_metrics()),
            every(Duration::from_secs(15), || self.keep_keys()),
            every(Duration::from_secs(15), || self.count_administrators()),
            every(Duration::from_secs(5), || self.record_rate_limit_hits()),
            self.deliver_mails_for_ever(),
            on_bell(&self.payments.errands.orders, || self.look_at_purchases()),
            on_bell(&self.payments.errands.deliveries, || self.work_on_stripe_deliveries()),
            on_bell(&self.payments.errands.top_ups, || self.top_up_wallets()),
            every(PAYMENT_PAUSE, || self.send_refunds()),
            every(Duration::from_hours(1), || self.catch_up_with_wallets()),
            every(Duration::from_mins(15), || self.reconcile_payments()),
            every(Duration::from_secs(1), || self.learn_listeners()),
            every(Duration::from_secs(15), || self.measure_webhooks()),
            every(Duration::from_secs(5), || self.mail_low_balances()),
            join_all((0..WEBHOOK_LANES).map(|_| every(WEBHOOK_PAUSE, || self.deliver_webhooks()))),
        );
    }

    /// Counts what has not been done yet from now on: of what was never told, nobody can see that it stays away.
    fn note_start(&self) {
        for task in Task::ALL {
            let (pass, _) = task.details();
            metrics::gauge!("worker_pass_last_success_timestamp_seconds", "pass" => pass).set(now());
            metrics::counter!("worker_passes_failed_total", "pass" => pass).increment(0);
        }
        metrics::gauge!("ledger_verify_last_success_timestamp_seconds").set(now());
        mana_auth::count_from_zero();
        mana_credits::count_from_zero();
        metrics::gauge!("ledger_verify_all_last_success_timestamp_seconds").set(now());
        if self.payments.stripe.is_some() {
            metrics::gauge!("payments_reconcile_last_success_timestamp_seconds").set(now());
        }
    }

    /// Learns which sessions have ended elsewhere.
    pub async fn follow_ended_sessions(&self) {
        // It says itself what fails. Whoever it tells nothing for a while asks the database.
        let _ = timeout(MOMENTS.total, liveness::catch_up(&self.auth)).await;
    }

    /// Rings for the other servers when sessions have ended here, and looks when they ring, for ever; without Redis, not at all. What is not
    /// heard is learned by the next look in turn.
    pub async fn carry_the_bell(&self) {
        let Some(bell) = &self.bell else { return };
        tokio::join!(
            every(BETWEEN_RINGS, || async {
                liveness::ended_here(&self.auth).await;
                // Until it is rung, though nobody needs this ring by then: so a Redis that is back is found before the next one.
                while !bell.ring().await {
                    tokio::time::sleep(AFTER_A_LOST_RING).await;
                }
            }),
            every(BETWEEN_LOOKS_BY_BELL, || async {
                bell.heard().await;
                self.follow_ended_sessions().await;
            }),
            // A task of its own, so that a flood of rings takes no time from other work; it ends with this one.
            every(AFTER_A_LOST_RING, || async {
                let (mut listening, bell) = (JoinSet::new(), Arc::clone(bell));
                listening.spawn(async move { bell.listen().await });
                let _ = listening.join_next().await;
            }),
        );
    }

    /// Writes down which sessions were active, which refresh answers were seen in use, and which service keys were used.
    pub async fn write_notes(&self) {
        carry_out(Task::WriteActivity, liveness::write_notes(&self.auth)).await;
        carry_out(Task::WriteKeyUse, service_key::write_notes(&self.auth)).await;
    }

    /// Ends sessions that lack the second factor which the installation asks for.
    pub async fn demand_second_factors(&self) {
        carry_out(Task::DemandFactors, two_factor::end_sessions_without_factor(&self.auth)).await;
    }

    /// The same of sessions from before everybody was to have one.
    pub async fn demand_second_factors_of_old_sessions(&self) {
        let demand = two_factor::end_old_sessions_without_factor(&self.auth);
        carry_out(Task::DemandFactorsOfOldSessions, demand).await;
    }

    /// Deletes what is past its time.
    pub async fn prune(&self) {
        carry_out(Task::Prune, retention::prune(&self.auth)).await;
        carry_out(Task::ForgetAnswers, forget::forget_old(&self.books)).await;
        carry_out(Task::ForgetDeliveries, webhook::forget_old(&self.books)).await;
    }

    /// Checks the books, of all wallets a part, and takes a root of them, unless the newest root of any server is younger than 55 minutes.
    pub async fn prove_books(&self) {
        carry_out(Task::ProveBooks, root::keep_proven(&self.books)).await;
    }

    /// Rotates signing keys that are due, and takes over what other servers did.
    pub async fn keep_keys(&self) {
        carry_out(Task::KeepKeys, self.auth.keys.keep()).await;
    }

    /// Counts who may administer.
    pub async fn count_administrators(&self) {
        carry_out(Task::CountAdministrators, admin::measure(&self.auth)).await;
    }

    /// Who runs into a limit is written down here and not in the request: a flood must cost as little as it can.
    pub async fn record_rate_limit_hits(&self) {
        carry_out(Task::RecordHits, security_event::record_rate_limit_hits(&self.auth)).await;
    }

    /// Histograms gather samples until somebody reads them; without a reader, this keeps them small.
    #[expect(clippy::unused_async, reason = "a pass like the others")]
    pub async fn tidy_metrics(&self) {
        self.metrics.run_upkeep();
    }

    /// Answers what was asked for by mail, and sends the mails that are due.
    pub async fn deliver_mails(&self) {
        carry_out(Task::AnswerAsked, verification::answer_asked(&self.auth)).await;
        carry_out(Task::SendMails, mail::deliver_due(&self.auth)).await;
    }

    /// Looks at purchases whose owners wait.
    pub async fn look_at_purchases(&self) {
        carry_out(Task::LookAtPurchases, purchase::look_at_asked(&self.payments)).await;
    }

    /// Works on what Stripe sent.
    pub async fn work_on_stripe_deliveries(&self) {
        carry_out(Task::WorkOnDeliveries, webhook::work(&self.payments)).await;
    }

    /// Asks again about refunds.
    pub async fn send_refunds(&self) {
        carry_out(Task::AskAboutRefunds, purchase::send_wanted_refunds(&self.payments)).await;
    }

    /// Tops up what runs out.
    pub async fn top_up_wallets(&self) {
        carry_out(Task::TopUp, auto_top_up::work(&self.payments, &*self.payers)).await;
    }

    /// Finds wallets that ran out without a notice, because servers of an older version give none.
    pub async fn catch_up_with_wallets(&self) {
        carry_out(Task::FindEmptyWallets, auto_top_up::catch_up(&self.payments)).await;
    }

    /// Compares the purchases with Stripe, and puts right what a lost delivery owes.
    pub async fn reconcile_payments(&self) {
        carry_out(Task::Reconcile, purchase::keep_reconciled(&self.payments)).await;
    }

    /// Learns which apps hear of spends, so that the ledger need not ask.
    pub async fn learn_listeners(&self) {
        carry_out(Task::LearnListeners, self.auth.webhooks.listeners.learn(&self.auth)).await;
    }

    /// Tells apps what waits for them.
    pub async fn deliver_webhooks(&self) {
        carry_out(Task::TellApps, app_webhook::deliver_due(&self.auth)).await;
    }

    /// Counts what waits for apps.
    pub async fn measure_webhooks(&self) {
        carry_out(Task::MeasureWebhooks, app_webhook::measure(&self.auth)).await;
    }

    /// Mails the owners of wallets in which little is left. A notice goes in the transaction that writes its mail, so that neither is without
    /// the other.
    pub async fn mail_low_balances(&self) {
        carry_out(Task::MailLowBalances, self.write_low_balance_mails()).await;
    }

    async fn write_low_balance_mails(&self) -> Result<(), MailError> {
        loop {
            let mut transaction = self.books.database.begin().await?;
            let notices = take_notices(&mut transaction, NOTICES).await?;
            if notices.is_empty() {
                return Ok(());
            }
            let mut written = Vec::new();
            for LowBalanceNotice { user_id, below, available, language } in notices {
                let Ok(user) = user_id.parse() else { continue };
                let language = Language::preferred(&language);
                let mail = account::mail_low_balance(
                    &mut transaction,
                    &self.auth,
                    &user,
                    language,
                    available,
                    below,
                );
                written.push(mail.await?);
            }
            transaction.commit().await?;
            drop(written);
        }
    }

    /// Looks at the queue as soon as this replica has written a mail down, and every few seconds otherwise.
    async fn deliver_mails_for_ever(&self) {
        loop {
            let _ = AssertUnwindSafe(self.deliver_mails()).catch_unwind().await;
            // Too late is as well: the next look comes all the same.
            let _ = timeout(MAIL_PAUSE, self.auth.mails.written()).await;
        }
    }
}

/// Does it, within its time. What failed is tried again by the next pass.
fn carry_out<E: std::error::Error + 'static>(
    task: Task,
    work: impl Future<Output = Result<(), E>>,
) -> impl Future<Output = ()> {
    let (pass, limits) = task.details();
    // These are large, and what carries them on keeps them more than once.
    within(limits, pass, Box::pin(work))
}

async fn within<E: std::error::Error + 'static>(
    limits: Limits,
    pass: &'static str,
    work: impl Future<Output = Result<(), E>>,
) {
    let failed = |cause: &(dyn std::error::Error + 'static)| {
        metrics::counter!("worker_passes_failed_total", "pass" => pass).increment(1);
        tracing::warn!(cause, pass, "background work failed and is tried again");
    };
    match timeout(limits.total, unless_silent(limits.silence, work)).await {
        Ok(Ok(Ok(()))) => {
            metrics::gauge!("worker_pass_last_success_timestamp_seconds", "pass" => pass).set(now());
        }
        Ok(Ok(Err(error))) => failed(&error),
        Ok(Err(silent)) => failed(&silent),
        Err(_) => failed(&TooSlow::Total(limits.total)),
    }
}

/// What comes of `work`, unless nothing wakes it for so long: whatever it waits for does not come any more.
async fn unless_silent<T>(silence: Duration, work: impl Future<Output = T>) -> Result<T, TooSlow> {
    let last_woken = Mutex::new(Instant::now());
    let quiet_for = || last_woken.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
    let mut work = std::pin::pin!(work);
    let woken = std::future::poll_fn(|context| {
        *last_woken.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        work.as_mut().poll(context)
    });
    // All passes share one task, which looks at each of them whenever one is woken. This looks at its own only when that one is.
    let mut alone = FuturesUnordered::from_iter([woken]);
    loop {
        match timeout(silence.saturating_sub(quiet_for()), alone.select_next_some()).await {
            Ok(outcome) => return Ok(outcome),
            Err(_) if quiet_for() >= silence => return Err(TooSlow::Silence(silence)),
            Err(_) => {}
        }
    }
}

/// Makes a pass as soon as something comes in here, and every few seconds otherwise, so that what came in elsewhere does not wait for ever.
async fn on_bell<Pass: Future<Output = ()>>(bell: &Notify, pass: impl Fn() -> Pass) {
    loop {
        let _ = AssertUnwindSafe(pass()).catch_unwind().await;
        let _ = timeout(PAYMENT_PAUSE, bell.notified()).await;
    }
}

fn now() -> u32 {
    u32::try_from(SystemClock.now().unix_timestamp()).unwrap_or(u32::MAX)
}

/// Makes a pass at once and then again `pause` after each has ended, so that a slow pass never meets itself.
async fn every<Pass: Future<Output = ()>>(pause: Duration, pass: impl Fn() -> Pass) {
    loop {
        // The panic hook has logged it; one pass that hits a defect must not end the others.
        let _ = AssertUnwindSafe(pass()).catch_unwind().await;
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use std::collections::HashSet;
    use std::convert::Infallible;

    #[test]
    fn what_hangs_is_given_up_and_has_failed() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        metrics::with_local_recorder(&recorder, || {
            runtime.block_on(async {
                let at_once = Limits { total: Duration::ZERO, ..MOMENTS };
                within(at_once, "hangs", std::future::pending::<Result<(), Infallible>>()).await;
                within(MOMENTS, "works", std::future::ready(Ok::<(), Infallible>(()))).await;
            });
        });
        let told = recorder.handle().render();
        assert!(told.contains("worker_passes_failed_total{pass=\"hangs\"} 1"), "{told}");
        assert!(told.contains("last_success_timestamp_seconds{pass=\"works\"}"), "{told}");
        assert!(!told.contains("last_success_timestamp_seconds{pass=\"hangs\"}"), "{told}");
    }

    #[test]
    fn silence_is_when_nothing_wakes_a_pass_whatever_wakes_the_others() {
        const STEP: Duration = Duration::from_millis(10);
        const SILENCE: Duration = Duration::from_millis(100);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let slow = unless_silent(SILENCE, async {
                for _ in 0..30 {
                    tokio::time::sleep(STEP).await;
                }
            });
            let hangs = unless_silent(SILENCE, std::future::pending::<()>());
            let (slow, hangs) = tokio::join!(slow, timeout(MOMENTS.total, hangs));
            assert!(slow.is_ok(), "something happens in it all the time");
            assert!(matches!(hangs, Ok(Err(TooSlow::Silence(SILENCE)))), "{hangs:?}");
        });
    }

    #[test]
    fn every_task_has_a_name_of_its_own() {
        let names: HashSet<_> = Task::ALL.iter().map(|task| task.details().0).collect();
        assert_eq!(names.len(), Task::ALL.len());
    }
}
