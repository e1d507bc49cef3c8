//! Brings a wallet with its history and its orders, in the caller's open transaction: all of it or nothing.

use super::history::{History, Step};
use super::model::{OldBalance, OldLine, OldOrder, Policy};
use super::order::{self, brought};
use super::package::Sales;
use super::store;
use crate::ledger::model::Effects;
use crate::ledger::moving::store::{self as rows, Chunk};
use crate::ledger::record::{GrantRecord, LineRecord, UsageRecord};
use crate::ledger::store::{self as wallets, Changed};
use crate::purchase::store as purchases;
use mana_kernel::{Clock, Rng, TransactionId, UserId};
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Lines that are written together.
const CHUNK: usize = 500;

/// Why a wallet was not brought.
#[derive(Debug, thiserror::Error)]
pub enum BringError {
    /// It does not fit, or what is here does not fit it.
    #[error("{0}")]
    Refused(String),
    /// The database failed.
    #[error(transparent)]
    Database(DbError),
}

impl From<DbError> for BringError {
    fn from(error: DbError) -> Self {
        match error.refusal() {
            Some(reason) => Self::Refused(format!("the database refuses it: {reason}")),
            None => Self::Database(error),
        }
    }
}

/// What became of a wallet.
#[derive(Debug, Clone, Default)]
pub struct Brought {
    /// Lines as they were.
    pub lines: u64,
    /// Lines that never happened or changed nothing, and were left out.
    pub skipped: u64,
    /// Lines that are of another type here.
    pub retyped: u64,
    /// Lines that make up for what the history did not say.
    pub adjustments: u64,
    /// Orders.
    pub orders: u64,
    /// Answers that are given again to requests that come again.
    pub answers: u64,
    /// Free mana.
    pub free: i64,
    /// Paid mana.
    pub paid: i64,
    /// What the history comes to, besides.
    pub total_earned: i64,
    /// The same.
    pub total_spent: i64,
    /// What is not as it was.
    pub notes: Vec<String>,
}

/// All wallets that were brought.
#[derive(Debug, Clone, Copy)]
pub struct Sums {
    /// How many they are.
    pub wallets: i64,
    /// Free mana that they had.
    pub free: i64,
    /// Paid mana that they had.
    pub paid: i64,
    /// All of it, by the lines that they ended with.
    pub by_lines: i64,
    /// Wallets whose lines or rows do not say what was noted of them.
    pub untrue: i64,
}

/// Of these users, those whose wallets were brought already, each with the free and the paid mana that it had.
///
/// # Errors
/// When the database fails.
pub async fn list_brought(
    connection: &mut PgConnection,
    users: &[String],
) -> Result<Vec<(String, i64, i64)>, DbError> {
    store::list_imported(connection, users).await
}

/// What all wallets had when they were brought, by what was noted and by their lines.
///
/// # Errors
/// When the database fails.
pub async fn sum_brought(connection: &mut PgConnection) -> Result<Sums, DbError> {
    let store::SumsRow { wallets, free, paid, by_lines, untrue } = store::sum_imported(connection).await?;
    Ok(Sums { wallets, free, paid, by_lines, untrue })
}

/// A wallet that is being brought.
#[derive(Debug)]
pub struct Bringing<'a> {
    history: History,
    user: UserId,
    policy: &'a Policy,
    clock: &'a dyn Clock,
    rng: &'a dyn Rng,
    balance: Option<OldBalance>,
    orders: Vec<OldOrder>,
    refused_orders: Vec<String>,
    chunk: Chunk,
    answers: u64,
}

impl<'a> Bringing<'a> {
    /// Opens the wallet, or takes the one that is there and has never moved.
    ///
    /// # Errors
    /// When it has a history here, or the database fails.
    pub async fn open(
        connection: &mut PgConnection,
        (clock, rng): (&'a dyn Clock, &'a dyn Rng),
        (policy, zone): (&'a Policy, &str),
        user: &UserId,
        balance: Option<OldBalance>,
        orders: Vec<OldOrder>,
    ) -> Result<Self, BringError> {
        let since =
            balance.as_ref().and_then(|balance| balance.created_at).unwrap_or(policy.now).min(policy.now);
        let granted_on = balance.as_ref().and_then(|balance| balance.daily_day);
        store::open_wallet(connection, user.as_str(), granted_on, zone, since).await?;
        let mut loaded = wallets::lock_wallets(connection, &[user.as_str().to_owned()], zone).await?;
        let wallet = loaded.wallets.remove(user.as_str());
        let mut wallet = wallet.ok_or_else(|| BringError::Refused("its wallet is gone".to_owned()))?;
        if wallet.sequence > 0 || !wallet.holds.is_empty() || wallet.is_closed {
            return Err(BringError::Refused(
                "its wallet has a history here already: two histories are not one".to_owned(),
            ));
        }
        wallet.changed_at = OffsetDateTime::UNIX_EPOCH;
        let (orders, refused): (Vec<_>, Vec<_>) =
            orders.into_iter().map(|old| order::check(&old).map(|()| old)).partition(Result::is_ok);
        let orders: Vec<OldOrder> = orders.into_iter().filter_map(Result::ok).collect();
        let refused_orders = refused.into_iter().filter_map(Result::err).collect();
        let history = History::new(wallet, user.clone(), policy.now, &orders);
        let (user, chunk) = (user.clone(), Chunk::default());
        Ok(Self { history, user, policy, clock, rng, balance, orders, refused_orders, chunk, answers: 0 })
    }

    /// Takes the next line of its history.
    ///
    /// # Errors
    /// When it can't be taken, or the database fails.
    pub async fn line(&mut self, connection: &mut PgConnection, line: &OldLine) -> Result<(), BringError> {
        let (clock, rng) = (self.clock, self.rng);
        let step =
            self.history.line(line, &mut || TransactionId::new(clock, rng)).map_err(BringError::Refused)?;
        self.take(step);
        if self.chunk.lines.len() >= CHUNK {
            rows::insert(connection, &std::mem::take(&mut self.chunk)).await?;
        }
        Ok(())
    }

    fn take(&mut self, step: Step) {
        let Step { effects, answers } = step;
        let wallet = self.history.wallet.id.0;
        let at = self.history.wallet.changed_at;
        self.chunk.grants.extend(effects.new_grants.iter().map(|grant| GrantRecord::of(wallet, grant, at)));
        self.chunk.lines.extend(effects.transactions.iter().map(|line| LineRecord::of(wallet, line)));
        self.answers = self.answers.saturating_add(u64::try_from(answers.len()).unwrap_or(0));
        self.chunk.answers.extend(answers);
    }

    /// Brings the wallet to what it had, and its orders along.
    ///
    /// # Errors
    /// When what it had is no mana, or the database fails.
    pub async fn finish(
        mut self,
        connection: &mut PgConnection,
        sales: &Sales,
    ) -> Result<Brought, BringError> {
        let (clock, rng, now) = (self.clock, self.rng, self.policy.now);
        let effects = self.history.finish(self.balance.as_ref(), &mut || TransactionId::new(clock, rng));
        let effects = effects.map_err(BringError::Refused)?;
        self.take(Step { effects, answers: Vec::new() });
        let wallet = self.history.wallet.id.0;
        let usage =
            std::mem::take(&mut self.history.usage).into_iter().map(|((day, app_id), sums)| UsageRecord {
                wallet_id: wallet,
                day,
                app_id,
                spends: sums.spends,
                spent: sums.spent,
                refunded: sums.refunded,
            });
        self.chunk.usage.extend(usage);
        rows::insert(connection, &std::mem::take(&mut self.chunk)).await?;
        if self.history.wallet.sequence == 0 {
            self.history.wallet.changed_at = now;
        }
        let changed = [Changed { wallet: &self.history.wallet, effects: &Effects::default() }];
        let today = now.date();
        wallets::write(connection, &changed, &[], today, now).await?;
        let orders = self.bring_orders(connection, sales).await?;
        let (free, paid, earned, spent) = self.sums()?;
        store::insert_imported(connection, wallet, self.history.wallet.sequence, free, paid, now).await?;
        let counts = self.history.counts;
        let mut notes = std::mem::take(&mut self.refused_orders);
        notes.append(&mut self.history.notes);
        if self.balance.is_none() && self.history.wallet.sequence > 0 {
            notes.push("it has a history and no balance: that was taken for nothing".to_owned());
        }
        Ok(Brought {
            lines: counts.lines,
            skipped: counts.skipped,
            retyped: counts.retyped,
            adjustments: counts.adjustments,
            orders,
            answers: self.answers,
            free,
            paid,
            total_earned: earned,
            total_spent: spent,
            notes,
        })
    }

    fn sums(&self) -> Result<(i64, i64, i64, i64), BringError> {
        let wallet = &self.history.wallet;
        let totals = wallet.totals().map_err(|error| BringError::Refused(error.to_string()))?;
        Ok((totals.free.get(), totals.paid.get(), wallet.total_earned.get(), wallet.total_spent.get()))
    }

    async fn bring_orders(
        &mut self,
        connection: &mut PgConnection,
        sales: &Sales,
    ) -> Result<u64, BringError> {
        let mut count = 0_u64;
        for old in &self.orders {
            let grant = self.history.credited.get(&old.id).copied();
            match brought(old, sales, self.policy.livemode, grant, self.policy.now) {
                Some(row) => {
                    purchases::insert_brought(connection, &self.user, &row).await?;
                    count = count.saturating_add(1);
                    if let Some(customer) = row.customer_id {
                        let at = row.created_at;
                        purchases::insert_customer(connection, &self.user, row.livemode, customer, at)
                            .await?;
                    }
                }
                None if grant.is_some() => {
                    return Err(BringError::Refused(format!(
                        "purchase {} is of a package that can't be one here",
                        old.id
                    )));
                }
                None => self
                    .refused_orders
                    .push(format!("purchase {} is of a package that can't be one here", old.id)),
            }
        }
        Ok(count)
    }
}
