//! The invariants of a wallet as somebody checks them who sees only what was written, line by line. For tests.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "checks in small numbers; an overflow would fail the test"
)]

use super::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// All that was written of a wallet.
#[derive(Debug)]
pub(in crate::ledger) struct Audit {
    /// Its history.
    pub(in crate::ledger) lines: Vec<Transaction>,
    /// Every hold that there ever was.
    pub(in crate::ledger) holds: BTreeMap<HoldId, WrittenHold>,
    wallet: WalletId,
    grants: BTreeMap<i64, Terms>,
    given: BTreeMap<i64, i64>,
    moved: BTreeMap<i64, i64>,
    ids: HashSet<TransactionId>,
    daily_granted_on: Date,
    version: i64,
}

/// A hold and what became of it.
#[derive(Debug)]
pub(in crate::ledger) struct WrittenHold {
    pub(in crate::ledger) hold: Hold,
    pub(in crate::ledger) description: String,
    pub(in crate::ledger) end: Option<HoldEnd>,
}

impl Audit {
    pub(in crate::ledger) fn of(wallet: &Wallet) -> Self {
        Self {
            lines: Vec::new(),
            holds: BTreeMap::new(),
            wallet: wallet.id,
            grants: BTreeMap::new(),
            given: BTreeMap::new(),
            moved: BTreeMap::new(),
            ids: HashSet::new(),
            daily_granted_on: wallet.daily_granted_on,
            version: wallet.version,
        }
    }

    /// Takes in what was written, and what the wallet is afterwards.
    pub(in crate::ledger) fn record(&mut self, effects: &Effects, wallet: &Wallet) {
        let is_changed = !effects.is_empty();
        let days = effects.transactions.iter().filter(|line| line.note.description == "Daily free credits");
        let passed = (wallet.daily_granted_on - self.daily_granted_on).whole_days();
        assert!(i64::try_from(days.count()).unwrap() <= passed, "12: a day was given twice");
        for grant in &effects.new_grants {
            assert!(self.grants.insert(grant.sequence, grant.terms).is_none(), "a grant was given twice");
        }
        for change in &effects.holds {
            self.record_hold(change);
        }
        for line in &effects.transactions {
            self.record_line(line);
        }
        assert!(wallet.version > self.version || !is_changed, "a change that no ETag shows");
        self.version = wallet.version;
        self.daily_granted_on = wallet.daily_granted_on;
        self.check(wallet);
    }

    fn record_hold(&mut self, change: &HoldChange) {
        match change {
            HoldChange::Opened { hold, description, at, .. } => {
                assert!(hold.expires_at > *at, "a hold is over before it begins");
                let is_live = |slice: &Slice| self.grants[&slice.grant].is_live(*at);
                assert!(hold.slices.iter().all(is_live), "11: held of what can't be spent");
                let hold = WrittenHold { hold: hold.clone(), description: description.clone(), end: None };
                assert!(self.holds.insert(hold.hold.id, hold).is_none(), "a hold was opened twice");
            }
            HoldChange::Extended { id, expires_at } => {
                let written = self.holds.get_mut(id).unwrap();
                assert_eq!(written.end, None, "13: extended after its end");
                written.hold.expires_at = *expires_at;
            }
            HoldChange::Ended { id, end, at } => {
                let written = self.holds.get_mut(id).unwrap();
                assert_eq!(written.end, None, "13: ended twice");
                match end {
                    HoldEnd::Captured { amount, .. } => {
                        assert!(*at < written.hold.expires_at, "16: captured after its time");
                        assert!(*amount <= sum(&written.hold.slices).unwrap(), "14: captured more than held");
                    }
                    HoldEnd::Released => assert!(*at < written.hold.expires_at, "released after its time"),
                    HoldEnd::Expired => assert_eq!(*at, written.hold.expires_at),
                }
                written.end = Some(*end);
            }
        }
    }

    fn record_line(&mut self, line: &Transaction) {
        let Transaction { sequence, amount, at, .. } = *line;
        let last = self.lines.last();
        assert!(self.ids.insert(line.id), "an id was used twice");
        assert_eq!(sequence, last.map_or(0, |last| last.sequence) + 1, "4: a gap or a repeat");
        assert_eq!(line.balance_after.get(), last.map_or(0, |last| last.balance_after.get()) + amount, "4");
        assert!(last.is_none_or(|last| last.at <= at), "time went back");
        assert_eq!(
            line.slices.iter().map(|slice| slice.amount).sum::<i64>(),
            amount,
            "1: legs do not sum to zero"
        );
        let head = last.map_or([0; 32], |last| last.hash);
        assert_eq!(line.hash, chain::link(&head, self.wallet, line, self.grants.get(&sequence)), "5");
        assert!(
            line.slices.iter().all(|slice| slice.amount != 0 && slice.amount.signum() == amount.signum())
        );
        let grants: BTreeSet<i64> = line.slices.iter().map(|slice| slice.grant).collect();
        match line.kind {
            TransactionKind::Adjustment if line.counter != Counter::Adjustment => {
                assert!(matches!(line.counter, Counter::Clearing | Counter::Debt), "1");
                if line.counter == Counter::Debt && amount > 0 {
                    for slice in &line.slices {
                        *self.given.entry(slice.grant).or_default() += slice.amount;
                    }
                }
            }
            TransactionKind::Adjustment if line.counter == Counter::Adjustment && amount < 0 => {
                assert!(grants.len() == line.slices.len(), "10: a grant is taken from twice");
                assert!(grants.iter().all(|grant| self.grants[grant].is_live(at)), "11");
            }
            TransactionKind::Bonus | TransactionKind::Purchase | TransactionKind::Adjustment => {
                assert!(amount > 0, "7");
                for slice in &line.slices {
                    assert!(!self.grants[&slice.grant].has_expired(at), "given what has expired");
                    *self.given.entry(slice.grant).or_default() += slice.amount;
                }
            }
            TransactionKind::Usage => {
                assert!(amount < 0 && grants.len() == line.slices.len(), "10: a grant is taken from twice");
                if let Some(hold) = line.hold_id {
                    let end = HoldEnd::Captured { amount: Mana::new(-amount).unwrap(), sequence };
                    assert_eq!(self.holds[&hold].end, Some(end), "14: the charge is not what was captured");
                } else {
                    assert!(grants.iter().all(|grant| self.grants[grant].is_live(at)), "11");
                }
            }
            TransactionKind::Refund => {
                let spend = self.line(line.reference.unwrap()).clone();
                assert_eq!(spend.kind, TransactionKind::Usage);
                let before = self.refunded(spend.sequence);
                assert!(
                    amount > 0 && before + amount <= -spend.amount,
                    "21: more is refunded than was spent"
                );
                for grant in grants {
                    let sum = |lines: &[&Transaction]| -> i64 {
                        let slices = lines.iter().flat_map(|line| &line.slices);
                        slices.filter(|slice| slice.grant == grant).map(|slice| slice.amount).sum()
                    };
                    let missing = -sum(&[&spend]) - sum(&self.refunds_of(spend.sequence));
                    // What it is given beyond what the spend took from it was revived from others.
                    *self.given.entry(grant).or_default() += (sum(&[line]) - missing.max(0)).max(0);
                }
            }
            TransactionKind::Expiry => {
                assert!(amount < 0 && grants.iter().all(|grant| self.grants[grant].has_expired(at)));
            }
        }
        for slice in &line.slices {
            *self.moved.entry(slice.grant).or_default() += slice.amount;
        }
        self.lines.push(line.clone());
    }

    /// The wallet is what was written of it, no more and no less.
    fn check(&self, wallet: &Wallet) {
        let last = self.lines.last();
        assert_eq!(wallet.sequence, last.map_or(0, |last| last.sequence), "4");
        assert_eq!(wallet.head, last.map_or([0; 32], |last| last.hash), "5");
        let totals = wallet.totals().unwrap();
        let balance = totals.balance().unwrap().get();
        assert_eq!(balance, last.map_or(0, |last| last.balance_after.get()), "3");
        assert_eq!(balance, self.lines.iter().map(|line| line.amount).sum::<i64>(), "3");
        let open: Vec<&Hold> = self
            .holds
            .values()
            .filter(|written| written.end.is_none())
            .map(|written| &written.hold)
            .collect();
        assert_eq!(wallet.holds.len(), open.len(), "15");
        assert!(wallet.holds.iter().all(|hold| open.contains(&hold)), "15");
        let held = |grant: i64| {
            let slices = open.iter().flat_map(|hold| &hold.slices).filter(|slice| slice.grant == grant);
            slices.map(|slice| slice.amount.get()).sum::<i64>()
        };
        assert_eq!(totals.held.get(), self.grants.keys().map(|grant| held(*grant)).sum::<i64>(), "15");
        for (grant, terms) in &self.grants {
            let kept: Vec<&Grant> = wallet.grants.iter().filter(|kept| kept.sequence == *grant).collect();
            assert!(kept.len() <= 1 && kept.iter().all(|kept| kept.terms == *terms));
            let remaining = kept.first().map_or(0, |kept| kept.remaining.get());
            let moved = self.moved.get(grant).copied().unwrap_or(0);
            assert_eq!(remaining, moved - held(*grant), "8: grant {grant} moved otherwise than by its lines");
            assert!((0..=self.given[grant]).contains(&remaining), "9");
        }
        assert!(wallet.grants.iter().all(|kept| self.grants.contains_key(&kept.sequence)), "8");
        let spent = self.lines.iter().filter(|line| line.counter == Counter::Revenue);
        assert_eq!(wallet.total_spent.get(), -spent.map(|line| line.amount).sum::<i64>());
    }

    fn line(&self, sequence: i64) -> &Transaction {
        self.lines.iter().find(|line| line.sequence == sequence).unwrap()
    }

    fn refunds_of(&self, spend: i64) -> Vec<&Transaction> {
        self.lines.iter().filter(|line| line.reference == Some(spend)).collect()
    }

    fn refunded(&self, spend: i64) -> i64 {
        self.refunds_of(spend).iter().map(|line| line.amount).sum()
    }

    /// The spends among these lines, as the store recalls them for a refund.
    pub(in crate::ledger) fn recall(&self, sequences: &[i64]) -> Vec<RecalledSpend> {
        let spends = self
            .lines
            .iter()
            .filter(|line| line.kind == TransactionKind::Usage && sequences.contains(&line.sequence));
        let recalled = spends.map(|spend| RecalledSpend {
            sequence: spend.sequence,
            app_id: spend.note.app_id.clone(),
            slices: spend
                .slices
                .iter()
                .map(|slice| Slice { grant: slice.grant, amount: Mana::new(-slice.amount).unwrap() })
                .collect(),
            refunded: Mana::new(self.refunded(spend.sequence)).unwrap(),
            terms: spend.slices.iter().map(|slice| (slice.grant, self.grants[&slice.grant])).collect(),
        });
        recalled.collect()
    }
}
