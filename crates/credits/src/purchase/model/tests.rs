//! What is known of a payment comes to the same in whatever order it is learned, and the books with it.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "a model in small numbers; an overflow would fail the test"
)]

use super::*;
use crate::ledger::model::{Charge, Command, Gift, WalletId};
use crate::ledger::model::{GrantSource, Wallet};
use mana_kernel::TransactionId;
use proptest::prelude::*;
use time::macros::{date, datetime};
use uuid::Uuid;

const PRICE: i64 = 999;
const CREDITS: i64 = 1_100;

fn order() -> Order {
    Order {
        id: "order".to_owned(),
        user_id: "ada".to_owned(),
        package_id: "small".to_owned(),
        credits: CREDITS,
        currency: "eur".to_owned(),
        price_cents: PRICE,
        is_taxed: false,
        added_tax_cents: 0,
        origin: OrderOrigin::Person,
        livemode: false,
        customer_id: Some("cus_ada".to_owned()),
        session_id: Some("cs_1".to_owned()),
        payment_id: None,
        lifecycle: Lifecycle::Open,
        captured_cents: 0,
        fraud_warned: false,
        problem: None,
        granted_mana: 0,
        grant_sequence: None,
        taken_mana: 0,
        owed_mana: 0,
        completed_at: None,
    }
}

/// What Stripe says of a payment without a till, with these metadata.
fn payment(metadata: &serde_json::Value) -> Observation {
    let payment = serde_json::json!({
        "id": "pi_1", "amount_received": PRICE, "currency": "eur", "livemode": false, "customer": "cus_ada", "metadata": metadata, "status": "succeeded",
    });
    let payment = Some(serde_json::from_value(payment).unwrap());
    Observation { session: None, payment, refunds: Vec::new(), disputes: Vec::new(), warnings: Vec::new() }
}

#[test]
fn a_payment_that_the_older_service_took_is_known_by_the_order_that_has_it() {
    let older = Order { session_id: None, payment_id: Some("pi_1".to_owned()), ..order() };
    let (theirs, nothing) = (serde_json::json!({"purchaseId": "order"}), serde_json::json!({}));
    for metadata in [&theirs, &nothing] {
        assert_eq!(payment(metadata).examine(&older), Ok(()), "{metadata}");
        assert_eq!(payment(metadata).facts().captured_cents, PRICE);
    }
    let anothers = serde_json::json!({"purchaseId": "another"});
    assert_eq!(payment(&anothers).examine(&older), Err(Mismatch::Order));
    let unknown = Order { payment_id: Some("pi_2".to_owned()), ..older };
    assert_eq!(payment(&theirs).examine(&unknown), Err(Mismatch::Order));
}

/// A wallet, an order, and what was learned of it.
#[derive(Debug, Clone)]
struct Desk {
    wallet: Wallet,
    order: Order,
    facts: Facts,
    terms: Option<Terms>,
    next_id: u128,
    repaid: i64,
}

impl Desk {
    fn new() -> Self {
        let wallet = Wallet::new(WalletId(1), date!(2026 - 01 - 01), datetime!(2026-01-01 12:00 UTC));
        Self { wallet, order: order(), facts: order().facts(), terms: None, next_id: 0, repaid: 0 }
    }

    fn apply(
        &mut self,
        command: &Command,
    ) -> Result<crate::ledger::model::Effects, crate::ledger::model::Refusal> {
        let next_id = &mut self.next_id;
        let mut ids = || {
            *next_id += 1;
            TransactionId(Uuid::from_u128(*next_id))
        };
        let done = self.wallet.apply(command, &mut ids)?;
        for line in &done.transactions {
            if line.counter == crate::ledger::model::Counter::Debt {
                self.repaid -= line.amount;
            }
        }
        Ok(done)
    }

    /// Learns something, and has the books follow.
    fn learn(&mut self, seen: &Facts) {
        self.facts = self.facts.clone().merge(seen);
        if self.order.granted_mana == 0 && self.facts.captured_cents == 0 {
            return;
        }
        let settlement = self.order.settlement(&self.facts, self.terms).unwrap();
        let done = self.apply(&Command::Settle(settlement)).unwrap();
        for grant in &done.new_grants {
            self.terms = Some(grant.terms);
        }
        for settled in &done.settled {
            self.order.granted_mana = self.order.credits;
            self.order.grant_sequence = Some(settled.grant);
            self.order.taken_mana = settled.taken.get();
            self.order.owed_mana = settled.owed.get();
        }
        self.check();
    }

    fn spend(&mut self, amount: i64) -> bool {
        let note = Note { app_id: "chat".to_owned(), description: "x".to_owned(), ..Note::default() };
        let charge = Charge { amount: Amount::try_from(amount).unwrap(), note };
        self.apply(&Command::Spend(charge)).is_ok()
    }

    fn paid(&self) -> i64 {
        self.wallet.totals().unwrap().paid.get()
    }

    /// Invariants 22, 24 and 25 after every step.
    fn check(&self) {
        let Order { granted_mana, taken_mana, owed_mana, .. } = self.order;
        assert!(granted_mana == 0 || granted_mana == CREDITS, "22, 24");
        let certain = self.order.mana_for(self.facts.certain_cents());
        let due = self.order.mana_for(self.facts.due_cents());
        if granted_mana > 0 {
            assert!(taken_mana <= due && taken_mana + owed_mana >= certain, "25: {self:?}");
            assert_eq!(owed_mana, (certain - taken_mana).max(0), "25");
        }
        assert_eq!(self.wallet.debt.get(), owed_mana - self.repaid, "25");
    }
}

/// Each event is what could be seen of the payment when it happened.
fn history() -> Vec<Facts> {
    let refund = |status| ("re_1".to_owned(), (status, 300));
    let dispute = |status| ("du_1".to_owned(), (status, PRICE));
    let open = Facts { lifecycle: Lifecycle::Open, ..Facts::default() };
    let processing = Facts { lifecycle: Lifecycle::Complete, ..open };
    let paid = Facts { captured_cents: PRICE, ..processing.clone() };
    let refunding = Facts { refunds: BTreeMap::from([refund(RefundStatus::Pending)]), ..paid.clone() };
    let refunded = Facts { refunds: BTreeMap::from([refund(RefundStatus::Succeeded)]), ..paid.clone() };
    let contested = Facts { disputes: BTreeMap::from([dispute(DisputeStatus::Open)]), ..refunded.clone() };
    let lost = Facts {
        disputes: BTreeMap::from([dispute(DisputeStatus::Lost)]),
        fraud_warned: true,
        ..refunded.clone()
    };
    vec![processing, paid, refunding, refunded, contested, lost]
}

fn permutations(items: Vec<Facts>) -> Vec<Vec<Facts>> {
    if items.len() <= 1 {
        return vec![items];
    }
    let mut all = Vec::new();
    for index in 0..items.len() {
        let mut rest = items.clone();
        let first = rest.remove(index);
        for mut tail in permutations(rest) {
            tail.insert(0, first.clone());
            all.push(tail);
        }
    }
    all
}

#[test]
fn every_order_of_up_to_six_events_ends_the_same() {
    let history = history();
    for length in 1..=history.len() {
        let events = history[..length].to_vec();
        let mut straight = Desk::new();
        for seen in &events {
            straight.learn(seen);
        }
        let all = permutations(events);
        assert_eq!(all.len(), (1..=length).product::<usize>());
        for order in all {
            let mut desk = Desk::new();
            for seen in &order {
                desk.learn(seen);
                // Twice is once.
                let before = desk.clone();
                desk.learn(seen);
                assert_eq!(
                    (before.wallet.sequence, before.wallet.debt),
                    (desk.wallet.sequence, desk.wallet.debt)
                );
            }
            assert_eq!(desk.facts, straight.facts);
            let ends = |desk: &Desk| {
                let Order { granted_mana, taken_mana, owed_mana, .. } = desk.order;
                (
                    desk.facts.state(granted_mana > 0),
                    granted_mana,
                    taken_mana,
                    owed_mana,
                    desk.paid(),
                    desk.wallet.debt,
                )
            };
            assert_eq!(ends(&desk), ends(&straight), "{order:?}");
        }
    }
}

#[test]
fn every_order_ends_the_same_also_when_the_mana_is_spent_as_soon_as_it_is_there() {
    let mut ends = std::collections::BTreeSet::new();
    for order in permutations(history()) {
        let mut desk = Desk::new();
        for seen in &order {
            desk.learn(seen);
            // All there is, as soon as it can be spent.
            let there = desk.paid();
            if there > 0 {
                desk.spend(there);
            }
        }
        // What could not be taken is owed: together it is all that was given.
        let Order { granted_mana, taken_mana, owed_mana, .. } = desk.order;
        ends.insert((desk.facts.state(true), granted_mana, taken_mana + owed_mana, desk.paid()));
    }
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), [("refunded", CREDITS, CREDITS, 0)]);
}

#[test]
fn a_debt_blocks_paid_mana_and_the_next_purchase_pays_it() {
    let mut desk = Desk::new();
    let [_, paid, .., lost] = &history()[..] else { unreachable!() };
    desk.learn(paid);
    assert!(desk.spend(1_000));
    desk.learn(lost);
    assert_eq!((desk.order.taken_mana, desk.order.owed_mana, desk.wallet.debt.get()), (100, 1_000, 1_000));

    // Another order, through the same machine.
    let first = std::mem::replace(&mut desk.order, Order { id: "second".to_owned(), ..order() });
    let (facts, terms) = (std::mem::replace(&mut desk.facts, order().facts()), desk.terms.take());
    let settlement = desk.order.settlement(paid, None).unwrap();
    let done = desk.apply(&Command::Settle(settlement)).unwrap();
    let amounts: Vec<_> = done
        .transactions
        .iter()
        .map(|line| (line.kind.as_str(), line.counter.as_str(), line.amount))
        .collect();
    assert_eq!(amounts, [("purchase", "clearing", CREDITS), ("adjustment", "debt", -1_000)]);
    assert_eq!((desk.wallet.debt.get(), desk.paid()), (0, 100));
    assert!(desk.spend(100));

    // The first dispute is won after all: what was paid back comes back.
    (desk.order, desk.facts, desk.terms) = (first, facts, terms);
    let won = Facts {
        disputes: BTreeMap::from([("du_1".to_owned(), (DisputeStatus::Won, PRICE))]),
        ..Facts::default()
    };
    desk.learn(&won);
    let kept = CREDITS - desk.order.mana_for(300);
    assert_eq!(desk.order.taken_mana + desk.order.owed_mana, CREDITS - kept);
    assert_eq!(desk.paid() - desk.wallet.debt.get(), kept + CREDITS - 1_100, "{desk:?}");
}

#[test]
fn while_a_debt_is_open_free_mana_can_be_spent_and_paid_mana_not() {
    let mut desk = Desk::new();
    let [_, paid, .., lost] = &history()[..] else { unreachable!() };
    desk.learn(paid);
    assert!(desk.spend(CREDITS));
    desk.learn(lost);
    let give = |source, amount: i64| {
        let terms = Terms { source, priority: source.priority(), ..Terms::ALLOWANCE };
        Command::Give(Gift { amount: Amount::try_from(amount).unwrap(), terms, note: Note::default() })
    };
    desk.apply(&give(GrantSource::Promotion, 10)).unwrap();
    desk.apply(&give(GrantSource::Purchase, 10)).unwrap();
    assert!(desk.spend(10), "the free part");
    let note = Note::default();
    let charge = Charge { amount: Amount::try_from(1).unwrap(), note };
    assert_eq!(desk.apply(&Command::Spend(charge)), Err(crate::ledger::model::Refusal::InDebt));
}

#[test]
fn what_can_be_refunded_never_takes_more_mana_than_is_left() {
    let order = Order { granted_mana: CREDITS, captured_cents: PRICE, ..order() };
    for back in [0, 1, 300, 998, 999] {
        let facts = Facts {
            captured_cents: PRICE,
            refunds: BTreeMap::from([("r".to_owned(), (RefundStatus::Succeeded, back.max(1)))]),
            ..Facts::default()
        };
        let back = facts.refunded_cents();
        for remaining in [0, 1, 2, 500, CREDITS - order.mana_for(back)] {
            let cents = order.refundable_cents(&facts, remaining);
            assert!((0..=PRICE - back).contains(&cents));
            let takes = |cents: i64| order.mana_for(back + cents) - order.mana_for(back);
            assert!(takes(cents) <= remaining, "{back} {remaining} {cents}");
            assert!(
                back + cents == PRICE || takes(cents + 1) > remaining,
                "{back} {remaining} {cents}: more could go back"
            );
        }
    }
    let facts = Facts { captured_cents: PRICE, ..Facts::default() };
    assert_eq!(order.refundable_cents(&facts, CREDITS), PRICE);
    let unknown = Order { session_id: None, ..order };
    assert_eq!(unknown.refundable_cents(&facts, CREDITS), 0, "Stripe has nothing to give back of it");
}

fn facts() -> impl Strategy<Value = Facts> {
    let lifecycle = (0..5_usize).prop_map(|index| Lifecycle::ALL[index]);
    let refund = ((0..3_u8), (0..4_usize), 1..PRICE);
    let dispute = ((0..2_u8), (0..4_usize), 1..PRICE);
    let refunds = proptest::collection::vec(refund, 0..3);
    let disputes = proptest::collection::vec(dispute, 0..3);
    (lifecycle, any::<bool>(), refunds, disputes, any::<bool>()).prop_map(
        |(lifecycle, is_paid, refunds, disputes, fraud_warned)| Facts {
            lifecycle,
            captured_cents: if is_paid { PRICE } else { 0 },
            refunds: refunds
                .into_iter()
                .map(|(id, status, cents)| (format!("r{id}"), (RefundStatus::ALL[status], cents)))
                .collect(),
            disputes: disputes
                .into_iter()
                .map(|(id, status, cents)| (format!("d{id}"), (DisputeStatus::ALL[status], cents)))
                .collect(),
            fraud_warned,
        },
    )
}

proptest! {
    #[test]
    fn facts_are_merged_whatever_comes_first_and_however_often(a in facts(), b in facts(), c in facts()) {
        prop_assert_eq!(a.clone().merge(&b), b.clone().merge(&a));
        prop_assert_eq!(a.clone().merge(&b).merge(&c), a.clone().merge(&b.clone().merge(&c)));
        prop_assert_eq!(a.clone().merge(&a), a);
    }

    #[test]
    fn the_books_hold_whatever_is_learned_and_spent(steps in proptest::collection::vec((facts(), 0_i64..1_500), 1..20)) {
        let mut desk = Desk::new();
        for (seen, spend) in steps {
            desk.learn(&seen);
            if spend > 0 {
                desk.spend(spend);
            }
            desk.check();
        }
    }
}
