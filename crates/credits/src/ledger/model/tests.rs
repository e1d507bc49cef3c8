//! Properties of the state machine over random histories, against a model that only adds and subtracts.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_wrap,
    reason = "a model in small numbers; an overflow would fail the test"
)]

use super::*;
use mana_kernel::mana::MAX_MANA;
use proptest::prelude::*;
use time::Duration;
use time::macros::{date, datetime};
use uuid::Uuid;

const START: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
const OPENED: Date = date!(2026 - 01 - 01);

fn stamp(number: usize) -> Stamp {
    Stamp { id: TransactionId(Uuid::from_u128(number as u128)), at: START + Duration::seconds(number as i64) }
}

fn amount(value: i64) -> Amount {
    Amount::try_from(value).unwrap()
}

fn spend(value: i64) -> Command {
    Command::Spend(Spend {
        amount: amount(value),
        app_id: "app".to_owned(),
        description: "test".to_owned(),
        metadata: None,
        idempotency_key: None,
    })
}

fn paid(sequence: i64, remaining: i64, expires_at: Option<OffsetDateTime>) -> Grant {
    let mana = Mana::new(remaining).unwrap();
    Grant {
        sequence,
        source: GrantSource::Purchase,
        granted: mana,
        remaining: mana,
        expires_at,
        created_at: START,
    }
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        1 => (1..200_i64).prop_map(|value| Command::SignupBonus { amount: amount(value) }),
        2 => (1..20_i64, 0..6_i64).prop_map(|(value, days)| Command::DailyCredits { amount: amount(value), day: OPENED + Duration::days(days) }),
        6 => (1..120_i64).prop_map(spend),
        1 => Just(spend(MAX_MANA)),
        1 => Just(Command::SignupBonus { amount: amount(MAX_MANA) }),
    ]
}

fn wallet() -> impl Strategy<Value = Wallet> {
    prop::collection::vec((1..100_i64, prop::option::of(-5..60_i64)), 0..4).prop_map(|grants| {
        let grants = grants.into_iter().zip(1..).map(|((remaining, expires_in), sequence)| {
            paid(sequence, remaining, expires_in.map(|seconds| START + Duration::seconds(seconds)))
        });
        let wallet = Wallet::new(WalletId(1), OPENED).with_grants(grants.collect()).unwrap();
        Wallet { sequence: wallet.grants.len() as i64, ..wallet }
    })
}

proptest! {
    /// Invariants 1, 3, 4, 5, 7 to 12 and 26 of docs/ARCHITECTURE.md, at every step of any history.
    #[test]
    fn every_history_keeps_the_invariants(start in wallet(), commands in prop::collection::vec(command(), 1..60)) {
        let mut wallet = start;
        for (number, command) in commands.iter().enumerate() {
            let before = wallet.clone();
            let stamp = stamp(number);
            let total = |wallet: &Wallet| wallet.free.get() + wallet.paid.get();
            match wallet.apply(command, stamp) {
                Err(refusal) => {
                    prop_assert_eq!(&wallet, &before, "a refusal changes nothing");
                    match (command, refusal) {
                        (_, Refusal::OutOfRange(_)) => prop_assert!(reaches_the_limit(&before, command)),
                        (Command::Spend(spend), Refusal::InsufficientFunds) => {
                            prop_assert!(spend.amount.mana() > before.available(stamp.at).unwrap());
                        }
                        (Command::DailyCredits { day, .. }, Refusal::AlreadyGranted) => {
                            prop_assert!(*day <= before.daily_granted_on);
                        }
                        (command, refusal) => prop_assert!(false, "{command:?} refused as {refusal:?}"),
                    }
                }
                Ok(posting) => {
                    let Posting { transaction, entries } = posting;
                    prop_assert_eq!(entries.iter().map(|entry| entry.amount).sum::<i64>(), 0);
                    let wallet_legs: i64 = entries.iter().filter(|entry| matches!(entry.account, Account::Wallet { .. })).map(|entry| entry.amount).sum();
                    prop_assert_eq!(wallet_legs, transaction.amount);
                    prop_assert_eq!(transaction.sequence, before.sequence + 1);
                    prop_assert_eq!(wallet.sequence, transaction.sequence);
                    prop_assert_eq!(transaction.balance_after.get(), total(&before) + transaction.amount);
                    prop_assert_eq!(transaction.balance_after.get(), total(&wallet));
                    prop_assert_eq!(transaction.hash, chain::link(&before.head, wallet.id, &transaction, &entries));
                    prop_assert_eq!(wallet.head, transaction.hash);
                    for grant in &wallet.grants {
                        prop_assert!(grant.remaining <= grant.granted);
                        let moved: i64 = entries.iter().filter(|entry| entry.account == Account::Wallet { grant: grant.sequence }).map(|entry| entry.amount).sum();
                        let was = before.grants.iter().find(|old| old.sequence == grant.sequence).map_or(0, |old| old.remaining.get());
                        prop_assert_eq!(grant.remaining.get(), was + moved, "a grant moves by its legs and by nothing else");
                        if grant.expires_at.is_some_and(|expiry| expiry <= stamp.at) {
                            prop_assert_eq!(moved, 0, "nothing is taken from what has expired");
                        }
                    }
                    if let Command::Spend(spend) = command {
                        prop_assert_eq!(transaction.amount, -spend.amount.get());
                        prop_assert!(took_in_order(&before, &entries, stamp.at));
                    }
                }
            }
        }
        prop_assert!(wallet.grants.iter().filter(|grant| grant.source == GrantSource::Allowance).count() <= 1);
    }

    #[test]
    fn changing_any_field_changes_the_hash(value in 1..1000_i64, which in 0..7_usize) {
        let mut wallet = Wallet::new(WalletId(1), OPENED);
        let Posting { mut transaction, mut entries } = wallet.apply(&Command::SignupBonus { amount: amount(value) }, stamp(1)).unwrap();
        let mut owner = wallet.id;
        match which {
            0 => transaction.amount += 1,
            1 => transaction.description.push('x'),
            2 => transaction.app_id.push('x'),
            3 => transaction.metadata = Some(String::new()),
            4 => transaction.stamp.at += Duration::microseconds(1),
            5 => entries[0].amount += 1,
            _ => owner = WalletId(2),
        }
        prop_assert_ne!(chain::link(&[0; 32], owner, &transaction, &entries), transaction.hash);
    }
}

/// A total, or what the standing allowance has given in all, would exceed what mana can count.
fn reaches_the_limit(wallet: &Wallet, command: &Command) -> bool {
    let beyond = |sum: i64, amount: Amount| sum + amount.get() > MAX_MANA;
    let given = wallet.grants.iter().filter(|grant| grant.source == GrantSource::Allowance);
    match command {
        Command::SignupBonus { amount } | Command::DailyCredits { amount, .. } => {
            beyond(wallet.free.get() + wallet.paid.get(), *amount)
                || beyond(given.map(|grant| grant.granted.get()).sum(), *amount)
        }
        Command::Spend(spend) => beyond(wallet.total_spent.get(), spend.amount),
    }
}

/// No live grant that ranks before one that was taken from has anything left.
fn took_in_order(before: &Wallet, entries: &[Entry], now: OffsetDateTime) -> bool {
    let mut live: Vec<_> =
        before.grants.iter().filter(|grant| grant.is_live(now) && grant.remaining > Mana::ZERO).collect();
    live.sort_by_key(|grant| grant.burn_down_rank());
    let taken: Vec<_> = entries
        .iter()
        .filter_map(|entry| match entry.account {
            Account::Wallet { grant } => Some((grant, -entry.amount)),
            Account::Bonus | Account::Revenue => None,
        })
        .collect();
    taken.iter().enumerate().all(|(index, (grant, slice))| {
        let expected = live[index];
        let is_last = index + 1 == taken.len();
        expected.sequence == *grant && (is_last || expected.remaining.get() == *slice)
    })
}

#[test]
fn free_goes_before_paid_and_what_expires_soonest_goes_first() {
    let mut wallet = Wallet::new(WalletId(1), OPENED)
        .with_grants(vec![
            paid(1, 10, None),
            paid(2, 10, Some(START + Duration::days(9))),
            paid(3, 10, Some(START + Duration::days(1))),
        ])
        .unwrap();
    wallet.sequence = 3;
    wallet.apply(&Command::SignupBonus { amount: amount(5) }, stamp(1)).unwrap();
    let posting = wallet.apply(&spend(27), stamp(2)).unwrap();
    let slices: Vec<_> = posting.entries.iter().map(|entry| (entry.account, entry.amount)).collect();
    assert_eq!(
        slices,
        [
            (Account::Wallet { grant: 4 }, -5),
            (Account::Wallet { grant: 3 }, -10),
            (Account::Wallet { grant: 2 }, -10),
            (Account::Wallet { grant: 1 }, -2),
            (Account::Revenue, 27),
        ]
    );
    assert_eq!((wallet.free.get(), wallet.paid.get(), wallet.total_spent.get()), (0, 8, 27));
}

#[test]
fn what_expires_can_be_spent_until_that_instant_and_not_at_it() {
    let expiry = START + Duration::seconds(10);
    let mut wallet = Wallet::new(WalletId(1), OPENED).with_grants(vec![paid(1, 10, Some(expiry))]).unwrap();
    assert_eq!(wallet.apply(&spend(1), stamp(10)), Err(Refusal::InsufficientFunds));
    assert!(wallet.apply(&spend(1), stamp(9)).is_ok());
}

#[test]
fn a_day_is_given_once_and_never_a_day_that_has_passed() {
    let mut wallet = Wallet::new(WalletId(1), OPENED);
    let day = |day| Command::DailyCredits { amount: amount(5), day };
    assert_eq!(
        wallet.apply(&day(OPENED), stamp(1)),
        Err(Refusal::AlreadyGranted),
        "not on the day of sign-up"
    );
    assert!(wallet.apply(&day(date!(2026 - 01 - 03)), stamp(2)).is_ok());
    assert_eq!(wallet.apply(&day(date!(2026 - 01 - 03)), stamp(3)), Err(Refusal::AlreadyGranted));
    assert_eq!(
        wallet.apply(&day(date!(2026 - 01 - 02)), stamp(4)),
        Err(Refusal::AlreadyGranted),
        "the clock stepped back"
    );
    assert_eq!(wallet.free.get(), 5);
}
