//! Whatever the older service wrote, the wallet comes to what it had, and its new history is true.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "a model in small numbers; an overflow would fail the test"
)]

use super::*;
use crate::ledger::model::WalletId;
use crate::ledger::record::{GrantRecord, LineRecord, WalletRecord};
use crate::ledger::verify::replay::Replay;
use crate::ledger::verify::{LineContext, Snapshot};
use mana_kernel::Clock as _;
use mana_platform::{SystemClock, SystemRng};
use proptest::prelude::*;
use time::Duration;
use time::macros::datetime;

const BEGIN: OffsetDateTime = datetime!(2025-01-01 00:00 UTC);

/// A line that somebody may have written: hours go by, and types, signs and apps go with each other as they like.
fn line(place: usize, (kind, amount, app, hours, named): (usize, i64, usize, i64, usize)) -> OldLine {
    const KINDS: [&str; 8] =
        ["usage", "usage", "bonus", "purchase", "refund", "gift", "adjustment", "wonder"];
    let kind = KINDS[kind % KINDS.len()];
    let app = ["system", "chat", "stripe", "organization"][app % 4];
    let text = ["Signup bonus", "Daily free credits", "Something"][named % 3];
    let at = BEGIN + Duration::hours(hours);
    OldLine {
        id: format!("00000000-0000-4000-8000-{place:012}"),
        kind: kind.to_owned(),
        status: Some("completed".to_owned()),
        amount: if kind == "usage" { -amount.abs() } else { amount },
        app_id: Some(app.to_owned()),
        description: Some(text.to_owned()),
        metadata: (named % 2 == 0)
            .then(|| serde_json::json!({"transactionId": format!("00000000-0000-4000-8000-{named:012}")})),
        idempotency_key: (named % 3 == 0).then(|| format!("k{place}")),
        organization_id: None,
        created_at: Some(at),
        day: Some(at.date()),
        earliest_day: Some((at - Duration::MINUTE).date()),
        latest_day: Some((at + Duration::MINUTE).date()),
    }
}

/// All that was written of a wallet, with the wallet, and what was wrong about it.
fn live(lines: &[OldLine], balance: &OldBalance, orders: &[OldOrder]) -> (History, Vec<String>) {
    let now = SystemClock.now();
    let wallet = Wallet::new(WalletId(7), BEGIN.date(), OffsetDateTime::UNIX_EPOCH);
    let mut history = History::new(wallet, "ada".parse().unwrap(), now, orders);
    let mut fresh = || TransactionId::new(&SystemClock, &SystemRng);
    let (mut grants, mut posted) = (Vec::new(), Vec::new());
    for line in lines {
        let step = history.line(line, &mut fresh).unwrap();
        let at = history.wallet.changed_at;
        grants.extend(step.effects.new_grants.iter().map(|grant| GrantRecord::of(7, grant, at)));
        posted.extend(step.effects.transactions);
    }
    let rest = history.finish(Some(balance), &mut fresh).unwrap();
    let at = history.wallet.changed_at;
    grants.extend(rest.new_grants.iter().map(|grant| GrantRecord::of(7, grant, at)));
    posted.extend(rest.transactions);
    let wallet = &history.wallet;
    let totals = wallet.totals().unwrap();
    let mut usage: BTreeMap<String, UsageSums> = BTreeMap::new();
    for ((_, app), sums) in &history.usage {
        let all = usage.entry(app.clone()).or_default();
        all.spends += sums.spends;
        all.spent += sums.spent;
        all.refunded += sums.refunded;
    }
    let snapshot = Snapshot {
        wallet: WalletRecord {
            wallet_id: 7,
            user_id: "ada".to_owned(),
            version: wallet.version,
            sequence: wallet.sequence,
            head: wallet.head.to_vec(),
            free: totals.free.get(),
            paid: totals.paid.get(),
            held: totals.held.get(),
            total_earned: wallet.total_earned.get(),
            total_spent: wallet.total_spent.get(),
            debt: wallet.debt.get(),
            daily_granted_on: wallet.daily_granted_on,
            grants: serde_json::to_string(&wallet.grants).unwrap(),
            holds: "[]".to_owned(),
            created_at: BEGIN,
            updated_at: wallet.changed_at,
            closed_at: None,
        },
        grants,
        holds: Vec::new(),
        usage,
        anchor: None,
    };
    let records: Vec<LineRecord> = posted.iter().map(|line| LineRecord::of(7, line)).collect();
    let mut replay = Replay::new(&snapshot);
    for record in &records {
        let spend = record.reference.and_then(|of| records.iter().find(|line| line.sequence == of));
        let context = LineContext {
            earliest_day: (record.created_at - Duration::MINUTE).date(),
            latest_day: (record.created_at + Duration::MINUTE).date(),
            refunded_spend: spend.and_then(LineRecord::taken),
        };
        replay.line(record, &context);
    }
    let found = replay.finish().iter().map(ToString::to_string).collect();
    (history, found)
}

fn balance(paid: i64, free: Option<i64>) -> OldBalance {
    OldBalance {
        user_id: "ada".to_owned(),
        balance: paid,
        free_credits_remaining: free,
        total_earned: None,
        total_spent: None,
        daily_day: None,
        created_at: None,
    }
}

fn order(place: usize, status: &str, credits: i64) -> OldOrder {
    OldOrder {
        user_id: "ada".to_owned(),
        id: format!("order-{place}"),
        package_id: None,
        credits,
        price_euro_cents: 100,
        status: status.to_owned(),
        stripe_payment_intent_id: None,
        stripe_checkout_session_id: None,
        stripe_customer_id: None,
        metadata: None,
        created_at: Some(BEGIN),
        completed_at: Some(BEGIN + Duration::hours(1)),
    }
}

proptest! {
    #[test]
    fn a_wallet_comes_to_what_it_had_and_its_history_is_true(
        mut seeds in prop::collection::vec((0_usize..8, prop_oneof![-50_i64..=-1, 1_i64..=50], 0_usize..4, 0_i64..200, 0_usize..12), 0..30),
        paid in 0_i64..300,
        free in prop::option::of(0_i64..300),
        bought in prop::collection::vec(1_i64..40, 0..3),
    ) {
        seeds.sort_by_key(|(_, _, _, hours, _)| *hours);
        let mut lines: Vec<_> = seeds.into_iter().enumerate().map(|(place, seed)| line(place, seed)).collect();
        let orders: Vec<_> = bought.iter().enumerate().map(|(place, credits)| order(place, "completed", *credits)).collect();
        // One of the orders has its line.
        if let (Some(order), Some(first)) = (orders.first(), lines.first_mut()) {
            first.kind = "purchase".to_owned();
            first.amount = order.credits;
            first.metadata = Some(serde_json::json!({"purchaseId": order.id}));
        }
        let (history, found) = live(&lines, &balance(paid, free), &orders);
        prop_assert_eq!(found, Vec::<String>::new());
        let totals = history.wallet.totals().unwrap();
        prop_assert_eq!(totals.free.get() + totals.paid.get(), paid + free.unwrap_or(0));
        if let Some(free) = free {
            prop_assert_eq!(totals.free.get(), free);
        }
        prop_assert_eq!(history.credited.len(), orders.len(), "each paid order is credited once");
        prop_assert_eq!(history.counts.lines, u64::try_from(lines.len()).unwrap());
    }
}

#[test]
fn a_balance_that_is_no_mana_is_refused() {
    let wallet = Wallet::new(WalletId(7), BEGIN.date(), BEGIN);
    for (paid, free) in [(-1, Some(0)), (0, Some(-1)), (i64::MAX, None)] {
        let mut history = History::new(wallet.clone(), "ada".parse().unwrap(), BEGIN, &[]);
        let mut fresh = || TransactionId::new(&SystemClock, &SystemRng);
        assert!(history.finish(Some(&balance(paid, free)), &mut fresh).unwrap_err().contains("no mana"));
    }
}
