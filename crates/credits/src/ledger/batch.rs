//! A batch of orders in one transaction: lock the wallets, let the state machine decide, write, commit.

use super::error::LedgerError;
use super::low_balance;
use super::model::{Command, Due, Effects, Ids, Refusal, Wallet, WalletId};
use super::recall::recall_spends;
use super::services;
use super::store::{self, Changed, Loaded, Remembered};
use crate::credits_event::events_of;
use crate::idempotency::{self, Answer, KeyDigest, RequestKey, Stored};
use crate::{
    AdminAct, AdminLog, Administrator, CreditsEvent, Deed, HeldServices, OnCreditsEvent, Policy, SessionGuard,
};
use futures_util::FutureExt as _;
use mana_kernel::{Clock, RequestId, Rng, SessionId, TransactionId, UserId};
use mana_platform::http::{ApiError, Caller};
use mana_platform::{BatchConnection, Database};
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use time::OffsetDateTime;

/// What it takes to keep the books.
#[derive(Debug, Clone)]
pub struct Books {
    /// PostgreSQL.
    pub database: Database,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Who knows whether a session still lives.
    pub session_guard: Arc<dyn SessionGuard>,
    /// Who writes down what administrators do.
    pub admin_log: Arc<dyn AdminLog>,
    /// Who tells apps what happens.
    pub on_credits_event: Arc<dyn OnCreditsEvent>,
    /// Amounts and days.
    pub policy: Policy,
}

/// Something to do to a user's wallet, and how to answer.
#[derive(Debug)]
pub(crate) struct Order {
    /// Whose wallet.
    pub(crate) user: UserId,
    /// Who asks.
    pub(crate) actor: Actor,
    /// The client's name for the request, and what it stands for.
    pub(crate) key: Option<RequestKey>,
    /// The version that the wallet must have.
    pub(crate) if_version: Option<i64>,
    /// The request that asks, for problems to name it.
    pub(crate) request: RequestId,
    /// What to do; nothing but what is due by itself if absent.
    pub(crate) command: Option<Command>,
    /// Whether to answer what would happen and change nothing.
    pub(crate) is_dry_run: bool,
    /// Writes the answer.
    pub(crate) render: Render,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) enum Actor {
    /// The owner. The session must live when the batch commits.
    Session(Caller),
    /// An app, by the service key with this id, which must be accepted still.
    Service(String),
    /// An administrator, whose session must live too and who must administrate still. What is done is written down.
    Admin(Box<Administrator>),
}

impl Actor {
    /// Whose session must live.
    pub(super) fn caller(&self) -> Option<&Caller> {
        match self {
            Self::Session(caller) => Some(caller),
            Self::Service(_) => None,
            Self::Admin(administrator) => administrator.caller.as_ref(),
        }
    }

    /// The service key by which an app asks.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::Service(key) => Some(key),
            Self::Session(_) | Self::Admin(_) => None,
        }
    }
}

/// Writes an answer from what a command did.
pub(crate) type Render = fn(&Outcome<'_>) -> Result<Answer, serde_json::Error>;

/// What a command did.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    pub(crate) user: &'a UserId,
    /// The wallet afterwards.
    pub(crate) wallet: &'a Wallet,
    /// The wallet before, after what was due by itself.
    pub(crate) before: &'a Wallet,
    /// What the command changed; nothing of what was due by itself.
    pub(crate) effects: &'a Effects,
}

/// Which keys are looked up before a batch decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookUp {
    /// All of them.
    All,
    /// Those only whose orders may be answered without anything to remember. That another one was used before shows when its
    /// answer is written.
    WhereNeeded,
}

/// One answer for each order.
pub(super) type Answers = Vec<Result<Answer, LedgerError>>;

/// Commits all orders together, within the time that a batch has. A defect ends the batch, and not who carries out the next one; the
/// panic hook has logged and counted it.
///
/// # Errors
/// When the batch as a whole failed. Nothing of it is in the books then, unless the connection was lost in the commit, or
/// said nothing until the time was over: then that is open.
pub(super) async fn commit(
    connection: &mut BatchConnection,
    books: &Books,
    orders: &[Order],
    look_up: LookUp,
) -> Result<Answers, LedgerError> {
    let work = connection.carry_out(async |connection| {
        let mut batch = Batch::load(connection, books, orders, look_up).await?;
        let mut new_id = || TransactionId::new(&*books.clock, &*books.rng);
        let answers = orders.iter().map(|order| batch.run(order, &mut new_id)).collect();
        batch.write(connection).await?;
        if !batch.acts.is_empty() {
            books.admin_log.record(connection, &batch.acts).await.map_err(LedgerError::Port)?;
        }
        tell(connection, books, &batch.events(&*books.on_credits_event), batch.now).await?;
        Ok(answers)
    });
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or(Err(LedgerError::Defect))
}

/// Tells apps what happened, and notes whose owners are to be mailed; mostly nothing.
pub(crate) async fn tell(
    connection: &mut PgConnection,
    books: &Books,
    events: &[CreditsEvent],
    now: OffsetDateTime,
) -> Result<(), LedgerError> {
    if events.is_empty() {
        return Ok(());
    }
    let low: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            CreditsEvent::Low { user, available, below } => Some((user.as_str(), *available, *below)),
            CreditsEvent::Spent { .. } | CreditsEvent::PurchaseCompleted { .. } => None,
        })
        .collect();
    if !low.is_empty() {
        low_balance::store::insert_notices(connection, &low, now).await?;
    }
    books.on_credits_event.on_credits_events(connection, events).await.map_err(LedgerError::Port)
}

/// The wallets of a batch while it runs. What happens between loading and writing does no I/O, so that the simulation
/// drives it too.
pub(super) struct Batch {
    accounts: HashMap<String, Account>,
    due: Option<Due>,
    live_sessions: HashSet<SessionId>,
    services: HeldServices,
    /// What was remembered before, and what this batch adds.
    answers: HashMap<(WalletId, KeyDigest), Stored>,
    new_answers: Vec<(WalletId, KeyDigest)>,
    /// What administrators did.
    acts: Vec<AdminAct>,
    now: OffsetDateTime,
}

/// A wallet, and what the batch has done to it.
struct Account {
    wallet: Wallet,
    effects: Effects,
    was: i64,
    was_low: bool,
}

impl Batch {
    /// The wallets' locks come first: whoever sends the same key at the same time waits here and finds the answer. Then
    /// the callers' sessions are held, so that none can end between this look and the commit.
    async fn load(
        connection: &mut PgConnection,
        books: &Books,
        orders: &[Order],
        look_up: LookUp,
    ) -> Result<Self, LedgerError> {
        let now = books.clock.now();
        let Loaded { mut wallets, today } = lock_or_open(connection, books, orders, now).await?;
        let sessions: HashMap<&SessionId, &Caller> = orders
            .iter()
            .filter_map(|order| order.actor.caller())
            .map(|caller| (&caller.session_id, caller))
            .collect();
        let callers: Vec<&Caller> = sessions.into_values().collect();
        let live_sessions = if callers.is_empty() {
            HashSet::new()
        } else {
            books.session_guard.hold_live(connection, &callers).await.map_err(LedgerError::Port)?
        };
        let services = services::hold(connection, &*books.session_guard, orders).await?;
        let keys: Vec<(WalletId, KeyDigest)> = orders
            .iter()
            .filter(|order| look_up == LookUp::All || order.if_version.is_some() || services.spares(order))
            .filter_map(|order| Some((wallets.get(order.user.as_str())?.id, order.key.as_ref()?.key)))
            .collect();
        let answers = idempotency::store::find_answers(connection, &keys).await?;
        recall_spends(connection, &mut wallets, orders).await?;
        let due = today.map(|today| Due { today, daily: books.policy.daily_free });
        Ok(Self::new(wallets, due, (live_sessions, services), answers, now))
    }

    /// Of locked wallets by their owners, and what was remembered before.
    pub(super) fn new(
        wallets: HashMap<String, Wallet>,
        due: Option<Due>,
        (live_sessions, services): (HashSet<SessionId>, HeldServices),
        answers: HashMap<(WalletId, KeyDigest), Stored>,
        now: OffsetDateTime,
    ) -> Self {
        let accounts = wallets.into_iter().map(|(user, mut wallet)| {
            let (was, was_low) = (wallet.version, wallet.low().is_some());
            wallet.advance_to(now);
            (user, Account { wallet, effects: Effects::default(), was, was_low })
        });
        let (new_answers, acts) = (Vec::new(), Vec::new());
        Self { accounts: accounts.collect(), due, live_sessions, services, answers, new_answers, acts, now }
    }

    pub(super) fn run(&mut self, order: &Order, new_id: &mut Ids<'_>) -> Result<Answer, LedgerError> {
        let Self { accounts, due, live_sessions, services, answers, new_answers, acts, .. } = self;
        if let Some(caller) = order.actor.caller()
            && !live_sessions.contains(&caller.session_id)
        {
            return Err(LedgerError::SessionEnded);
        }
        if services.refuses_key(&order.actor) {
            return Err(LedgerError::KeyRevoked);
        }
        let account = accounts.get_mut(order.user.as_str()).ok_or(LedgerError::NoSuchUser)?;
        let due = due.ok_or(LedgerError::NoSuchUser)?;
        let place = order.key.as_ref().map(|key| ((account.wallet.id, key.key), key.request));
        if let Some((place, request)) = &place
            && let Some(stored) = answers.get(place)
        {
            return Ok(stored.replay(request)?);
        }
        if services.spares(order) && !account.wallet.is_closed {
            return Err(LedgerError::UserDisabled);
        }
        if order.if_version.is_some_and(|version| version != account.wallet.version) {
            return Err(LedgerError::Moved);
        }
        let mut wallet = account.wallet.clone();
        let mut effects = wallet.settle(due, new_id).map_err(Refusal::from)?;
        let before = wallet.clone();
        let outcome = match &order.command {
            Some(command) => wallet.apply(command, new_id),
            None => Ok(Effects::default()),
        };
        let answer = match outcome {
            Ok(done) => {
                let outcome = Outcome { user: &order.user, wallet: &wallet, before: &before, effects: &done };
                let answer = (order.render)(&outcome)?;
                acts.extend(act_of(order, &done));
                effects.append(done);
                answer
            }
            Err(refusal) => Answer::problem(&ApiError::from(LedgerError::from(refusal)), &order.request)?,
        };
        if order.is_dry_run {
            return Ok(answer);
        }
        account.wallet = wallet;
        account.effects.append(effects);
        if let Some((place, digest)) = place {
            answers.insert(place, Stored { digest, answer: answer.clone() });
            new_answers.push(place);
        }
        Ok(answer)
    }

    /// The wallets that changed, in the order of their ids.
    pub(super) fn changed(&self) -> Vec<Changed<'_>> {
        let changed = self.accounts.values().filter(|account| account.wallet.version != account.was);
        let mut changed: Vec<Changed<'_>> =
            changed.map(|account| Changed { wallet: &account.wallet, effects: &account.effects }).collect();
        changed.sort_by_key(|change| change.wallet.id);
        changed
    }

    /// What is to be told of the wallets that changed.
    fn events(&self, on_event: &dyn OnCreditsEvent) -> Vec<CreditsEvent> {
        let changed = self.accounts.iter().filter(|(_, account)| account.wallet.version != account.was);
        let events = changed.flat_map(|(user, Account { wallet, effects, was_low, .. })| {
            events_of(on_event, user, wallet, effects, *was_low, &self.services)
        });
        events.collect()
    }

    /// The answers that are to be remembered from now on.
    pub(super) fn take_new_answers(&mut self) -> Vec<Remembered> {
        let answers = self.new_answers.drain(..).filter_map(|(wallet, key)| {
            let stored = self.answers.remove(&(wallet, key))?;
            Some(Remembered { wallet, key, stored })
        });
        answers.collect()
    }

    async fn write(&mut self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        let answers = self.take_new_answers();
        let changed = self.changed();
        let Some(due) = self.due.filter(|_| !(changed.is_empty() && answers.is_empty())) else {
            return Ok(());
        };
        Ok(store::write(connection, &changed, &answers, due.today, self.now).await?)
    }
}

/// What is to be written down of an order, if an administrator gave it.
fn act_of(order: &Order, done: &Effects) -> Option<AdminAct> {
    let Actor::Admin(by) = &order.actor else { return None };
    let line = done.transactions.first()?;
    let deed = if matches!(&order.command, Some(Command::Forgive(_))) {
        Deed::Forgiven
    } else if line.amount < 0 {
        Deed::Taken
    } else {
        Deed::Granted
    };
    Some(AdminAct {
        by: Administrator::clone(by),
        request: order.request.clone(),
        user: order.user.clone(),
        deed,
        amount: line.amount.saturating_abs(),
        transaction: line.id,
    })
}

/// The wallets of all orders, locked. Owners that have none, as an import leaves them, get one.
async fn lock_or_open(
    connection: &mut PgConnection,
    books: &Books,
    orders: &[Order],
    now: OffsetDateTime,
) -> Result<Loaded, LedgerError> {
    let zone = &books.policy.daily_zone;
    let users: HashSet<&str> = orders.iter().map(|order| order.user.as_str()).collect();
    let users: Vec<String> = users.into_iter().map(str::to_owned).collect();
    let loaded = store::lock_wallets(connection, &users, zone).await?;
    let without: HashSet<&str> = orders
        .iter()
        .filter(|order| matches!(order.actor, Actor::Session(_)))
        .map(|order| order.user.as_str())
        .filter(|user| !loaded.wallets.contains_key(*user))
        .collect();
    if without.is_empty() {
        return Ok(loaded);
    }
    let without: Vec<String> = without.into_iter().map(str::to_owned).collect();
    store::insert_wallets(connection, &without, zone, now).await?;
    Ok(store::lock_wallets(connection, &users, zone).await?)
}
