//! PostgreSQL as the ledger sees it: what is committed, and nothing else. A row comes back as it was written.

use super::*;
use crate::HeldServices;
use crate::idempotency::{KeyDigest, RequestKey, Stored};
use crate::ledger::model::audit::Audit;
use crate::ledger::model::{Due, Effects, Ids, Settlement, Transaction, TransactionKind};
use crate::ledger::store::Changed;
use mana_kernel::Amount;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Committed rows.
#[derive(Default)]
pub(super) struct Database {
    pub(super) sessions: HashSet<SessionId>,
    /// From whom no app takes.
    pub(super) disabled: BTreeSet<UserId>,
    accounts: BTreeMap<UserId, Account>,
    answers: HashMap<(WalletId, KeyDigest), ([u8; 32], Answer)>,
}

/// A wallet's row, and all of its lines and holds.
struct Account {
    wallet: Wallet,
    audit: Audit,
}

impl Database {
    /// As registration does: with the bonus.
    pub(super) fn open(&mut self, user: &UserId, mut wallet: Wallet, id: TransactionId) {
        let mut audit = Audit::of(&wallet);
        let bonus = Command::SignupBonus { amount: Amount::try_from(60).unwrap() };
        audit.record(&wallet.apply(&bonus, &mut || id).unwrap(), &wallet);
        self.accounts.insert(user.clone(), Account { wallet, audit });
    }

    /// What a batch locks and reads. The day is the database's, the time that of the replica.
    pub(super) fn load<'a>(
        &self,
        orders: impl Iterator<Item = &'a Order>,
        database_now: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Batch {
        let mut wallets: HashMap<String, Wallet> = HashMap::new();
        let mut answers = HashMap::new();
        for order in orders {
            let account = &self.accounts[&order.user];
            let wallet = wallets.entry(order.user.to_string()).or_insert_with(|| account.wallet.clone());
            let spends = match &order.command {
                Some(Command::Refund { spend, .. }) => vec![*spend],
                Some(Command::RefundNewest { .. }) => self.spends(&order.user),
                _ => Vec::new(),
            };
            for spend in spends {
                if wallet.recalled.iter().all(|recalled| recalled.sequence != spend) {
                    wallet.recalled.extend(account.audit.recall(&[spend]));
                }
            }
            if let Some(key) = &order.key
                && let Some((digest, answer)) = self.answers.get(&(wallet.id, key.key))
            {
                answers.insert((wallet.id, key.key), Stored { digest: *digest, answer: answer.clone() });
            }
        }
        let due = Due { today: database_now.date(), daily: Amount::try_from(3).ok() };
        let services = HeldServices {
            keys: [KEY.to_owned()].into(),
            disabled: self.disabled.iter().cloned().collect(),
            ..HeldServices::default()
        };
        Batch::new(wallets, Some(due), (self.sessions.clone(), services), answers, now)
    }

    /// All of a batch or, if this is not called, nothing.
    pub(super) fn commit(&mut self, batch: &mut Batch) {
        for remembered in batch.take_new_answers() {
            let Stored { digest, answer } = remembered.stored;
            let before = self.answers.insert((remembered.wallet, remembered.key), (digest, answer));
            assert_eq!(before, None, "17: a key was answered twice");
        }
        for Changed { wallet, effects } in batch.changed() {
            let account = self.accounts.values_mut().find(|account| account.wallet.id == wallet.id).unwrap();
            account.audit.record(effects, wallet);
            account.wallet = Wallet {
                grants: written(&wallet.grants),
                holds: written(&wallet.holds),
                recalled: Vec::new(),
                ..wallet.clone()
            };
        }
    }

    /// Has the ledger follow what is said of a payment, and commits it.
    pub(super) fn settle(
        &mut self,
        user: &UserId,
        settlement: Settlement,
        database_now: OffsetDateTime,
        now: OffsetDateTime,
        new_id: &mut Ids<'_>,
    ) -> Effects {
        let account = self.accounts.get_mut(user).unwrap();
        let mut wallet = account.wallet.clone();
        wallet.advance_to(now);
        let due = Due { today: database_now.date(), daily: Amount::try_from(3).ok() };
        let mut effects = wallet.settle(due, new_id).unwrap();
        let done = wallet.apply(&Command::Settle(settlement), new_id).unwrap();
        effects.append(done.clone());
        account.audit.record(&effects, &wallet);
        account.wallet = Wallet { grants: written(&wallet.grants), holds: written(&wallet.holds), ..wallet };
        done
    }

    /// All lines of a user.
    pub(super) fn lines(&self, user: &UserId) -> &[Transaction] {
        &self.accounts[user].audit.lines
    }

    pub(super) fn available(&self, user: &UserId) -> i64 {
        self.accounts[user].wallet.totals().unwrap().available().unwrap().get()
    }

    pub(super) fn debt(&self, user: &UserId) -> i64 {
        self.accounts[user].wallet.debt.get()
    }

    pub(super) fn heads(&self) -> Vec<(i64, [u8; 32])> {
        self.accounts.values().map(|account| (account.wallet.version, account.wallet.head)).collect()
    }

    pub(super) fn version(&self, user: &UserId) -> i64 {
        self.accounts[user].wallet.version
    }

    /// All that was ever held: what has ended, and then what is open.
    pub(super) fn holds(&self, user: &UserId) -> Vec<HoldId> {
        let mut holds: Vec<_> = self.accounts[user].audit.holds.iter().collect();
        holds.sort_by_key(|(_, written)| written.end.is_none());
        holds.into_iter().map(|(id, _)| *id).collect()
    }

    /// Sequences of all spends.
    pub(super) fn spends(&self, user: &UserId) -> Vec<i64> {
        let lines = self.accounts[user].audit.lines.iter();
        lines.filter(|line| line.kind == TransactionKind::Usage).map(|line| line.sequence).collect()
    }

    /// What is in the books under this description.
    pub(super) fn booked(&self, user: &UserId, description: &str) -> i64 {
        let audit = &self.accounts[user].audit;
        let lines = audit.lines.iter().filter(|line| line.note.description == description);
        let holds = audit.holds.values().filter(|written| written.description == description);
        let held = holds.flat_map(|written| &written.hold.slices).map(|slice| slice.amount.get());
        lines.map(|line| line.amount.abs()).chain(held).sum()
    }

    /// The answer to this very request.
    pub(super) fn remembered(&self, user: &UserId, key: &RequestKey) -> Option<Answer> {
        let (digest, answer) = self.answers.get(&(self.accounts[user].wallet.id, key.key))?;
        (*digest == key.request).then(|| answer.clone())
    }
}

fn written<Value: Serialize + DeserializeOwned>(value: &Value) -> Value {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}
