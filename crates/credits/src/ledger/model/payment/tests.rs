//! Payments among everything else that happens to a wallet, under the eyes of the auditor.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "a model in small numbers; an overflow would fail the test"
)]

use super::*;
use crate::ledger::model::audit::Audit;
use crate::ledger::model::{Charge, Command, Gift, WalletId};
use mana_kernel::{HoldId, TransactionId};
use proptest::prelude::*;
use time::Duration;
use time::macros::{date, datetime};
use uuid::Uuid;

const ORDERS: usize = 3;
const CREDITS: i64 = 100;

#[derive(Debug, Clone)]
enum Step {
    /// Of an order, so much is due, and so much of it for certain.
    Settle(usize, i64, i64),
    Free(i64),
    Forgive(i64),
    Spend(i64),
    Hold(i64),
    Capture(i64),
    Release,
    /// Of the latest spend.
    Refund(i64),
    Later(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..ORDERS, 0..=CREDITS, 0..=CREDITS).prop_map(|(order, a, b)| Step::Settle(order, a.max(b), a.min(b))),
        1 => (1..20_i64).prop_map(Step::Free),
        2 => (1..60_i64).prop_map(Step::Forgive),
        4 => (1..60_i64).prop_map(Step::Spend),
        2 => (1..60_i64).prop_map(Step::Hold),
        1 => (1..30_i64).prop_map(Step::Capture),
        1 => Just(Step::Release),
        2 => (1..30_i64).prop_map(Step::Refund),
        1 => (1..900_i64).prop_map(Step::Later),
    ]
}

#[derive(Debug, Clone, Copy, Default)]
struct Order {
    grant: Option<(i64, Terms)>,
    taken: Mana,
    owed: Mana,
}

struct Run {
    wallet: Wallet,
    audit: Audit,
    orders: [Order; ORDERS],
    /// What was paid back of debts, less what was given again.
    repaid: i64,
    ids: u128,
}

impl Run {
    fn new() -> Self {
        let wallet = Wallet::new(WalletId(1), date!(2026 - 01 - 01), datetime!(2026-01-01 12:00 UTC));
        let audit = Audit::of(&wallet);
        Self { wallet, audit, orders: [Order::default(); ORDERS], repaid: 0, ids: 0 }
    }

    fn apply(&mut self, command: &Command) -> Result<Effects, Refusal> {
        let (before, ids) = (self.wallet.clone(), &mut self.ids);
        let outcome = self.wallet.apply(command, &mut || {
            *ids += 1;
            TransactionId(Uuid::from_u128(*ids))
        });
        match &outcome {
            Ok(effects) => {
                self.audit.record(effects, &self.wallet);
                let debts = effects.transactions.iter().filter(|line| line.counter == Counter::Debt);
                self.repaid -= debts.map(|line| line.amount).sum::<i64>();
            }
            Err(_) => assert_eq!(self.wallet, before, "26: a refusal changed something"),
        }
        outcome
    }

    fn step(&mut self, step: &Step) {
        let note = Note { app_id: "app".to_owned(), description: "step".to_owned(), ..Note::default() };
        let amount = |value: i64| Amount::try_from(value).unwrap();
        let charge = |value| Charge { amount: amount(value), note: note.clone() };
        match *step {
            Step::Settle(index, due, certain) => self.settle(index, due, certain, note),
            Step::Free(value) => {
                let gift = Gift { amount: amount(value), terms: Terms::ALLOWANCE, note };
                self.apply(&Command::Give(gift)).unwrap();
            }
            Step::Forgive(value) => {
                let (debt, balance) = (self.wallet.debt.get(), self.wallet.totals().unwrap());
                match self.apply(&Command::Forgive(charge(value))) {
                    Ok(done) => {
                        assert_eq!(self.wallet.debt.get(), debt - value, "25");
                        assert_eq!(
                            self.wallet.totals().unwrap(),
                            balance,
                            "nothing is left of what is forgiven"
                        );
                        let amounts: Vec<_> = done.transactions.iter().map(|line| line.amount).collect();
                        assert_eq!(amounts, [value, -value]);
                    }
                    Err(refusal) => assert!(matches!(refusal, Refusal::ForgivesTooMuch) && value > debt),
                }
            }
            Step::Spend(value) => {
                let (debt, paid) = (self.wallet.debt, self.wallet.totals().unwrap().paid);
                match self.apply(&Command::Spend(charge(value))) {
                    Ok(_) => assert!(
                        debt == Mana::ZERO || self.wallet.totals().unwrap().paid == paid,
                        "in debt, paid mana was spent"
                    ),
                    Err(refusal) => {
                        assert!(matches!(refusal, Refusal::InsufficientFunds(_) | Refusal::InDebt));
                    }
                }
            }
            Step::Hold(value) => {
                self.ids += 1;
                let expires_at = self.wallet.changed_at + Duration::hours(1);
                let id = HoldId(Uuid::from_u128(self.ids));
                let _ = self.apply(&Command::Hold { id, charge: charge(value), expires_at });
            }
            Step::Capture(value) => {
                if let Some(id) = self.wallet.holds.first().map(|hold| hold.id) {
                    let _ = self.apply(&Command::Capture { id, amount: Some(amount(value)), note });
                }
            }
            Step::Release => {
                if let Some(id) = self.wallet.holds.first().map(|hold| hold.id) {
                    self.apply(&Command::Release { id }).unwrap();
                }
            }
            Step::Refund(value) => {
                let mut spends =
                    self.audit.lines.iter().rev().filter(|line| line.kind == TransactionKind::Usage);
                if let Some(spend) = spends.next().map(|line| line.sequence) {
                    self.wallet.recalled = self.audit.recall(&[spend]);
                    let refund =
                        Command::Refund { spend, amount: Some(amount(value)), revives_expired: false, note };
                    let _ = self.apply(&refund);
                }
            }
            Step::Later(seconds) => {
                self.wallet.advance_to(self.wallet.changed_at + Duration::seconds(seconds));
                let due = super::super::Due { today: date!(2026 - 01 - 01), daily: None };
                let ids = &mut self.ids;
                let effects = self.wallet.settle(due, &mut || {
                    *ids += 1;
                    TransactionId(Uuid::from_u128(*ids))
                });
                self.audit.record(&effects.unwrap(), &self.wallet);
            }
        }
    }

    fn settle(&mut self, index: usize, due: i64, certain: i64, note: Note) {
        let Order { grant, taken, owed } = self.orders[index];
        let mana = |value| Mana::new(value).unwrap();
        let gives = Bought { amount: Amount::try_from(CREDITS).unwrap(), cost_micros: 1 };
        let gives = Some(gives).filter(|_| grant.is_none());
        let settlement =
            Settlement { gives, grant, taken, owed, due: mana(due), certain: mana(certain), note };
        let done = self.apply(&Command::Settle(settlement)).unwrap();
        let [settled] = done.settled[..] else { panic!("one order, one outcome") };
        let grant = grant.or_else(|| done.new_grants.first().map(|grant| (grant.sequence, grant.terms)));
        assert_eq!(grant.map(|(sequence, _)| sequence), Some(settled.grant));
        self.orders[index] = Order { grant, taken: settled.taken, owed: settled.owed };
        // As much is taken as is due, or nothing is left to take; what is certain and not taken is owed.
        let left = self
            .wallet
            .grants
            .iter()
            .find(|kept| kept.sequence == settled.grant)
            .map_or(0, |kept| kept.remaining.get());
        assert!(
            settled.taken.get() == due || (settled.taken.get() < due && left == 0),
            "{settled:?} of {due}"
        );
        assert_eq!(settled.owed.get(), (certain - settled.taken.get()).max(0), "25");

        let before = self.wallet.clone();
        let Order { grant, taken, owed } = self.orders[index];
        let again = Settlement {
            gives: None,
            grant,
            taken,
            owed,
            due: mana(due),
            certain: mana(certain),
            note: Note::default(),
        };
        let done = self.apply(&Command::Settle(again)).unwrap();
        assert!(done.is_empty() && done.settled == [settled], "22: settled twice");
        assert_eq!((before.debt, before.sequence), (self.wallet.debt, self.wallet.sequence));
    }
}

proptest! {
    #[test]
    fn payments_keep_the_invariants_among_everything_else(steps in proptest::collection::vec(step(), 1..60)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
            let owed: i64 = run.orders.iter().map(|order| order.owed.get()).sum();
            prop_assert_eq!(run.wallet.debt.get(), owed - run.repaid, "25");
        }
    }
}
