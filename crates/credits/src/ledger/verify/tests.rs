//! Histories as the state machine makes them, and with a lie in them.
#![expect(clippy::arithmetic_side_effects, reason = "a test's numbers are small")]

use super::replay::Replay;
use super::{Finding, LineContext, Snapshot};
use crate::ledger::chain;
use crate::ledger::model::{
    Charge, Command, Due, Effects, Gift, GrantSource, HoldChange, HoldEnd, Note, RecalledSpend, Slice, Terms,
    TransactionKind, Wallet, WalletId,
};
use crate::ledger::record::{GrantRecord, HoldRecord, LineRecord, UsageSums, WalletRecord};
use mana_kernel::{Amount, HoldId, Mana, TransactionId};
use proptest::prelude::*;
use std::collections::BTreeMap;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

const START: OffsetDateTime = time::macros::datetime!(2026-01-31 12:00 UTC);

/// What a database would hold of a wallet.
struct Books {
    wallet: Wallet,
    grants: Vec<GrantRecord>,
    holds: Vec<HoldRecord>,
    lines: Vec<LineRecord>,
    next_id: u128,
}

fn amount(value: i64) -> Amount {
    Amount::try_from(value).unwrap()
}

fn note(text: &str) -> Note {
    Note { app_id: text.to_owned(), description: text.to_owned(), ..Note::default() }
}

fn promotion(priority: i16, lives: Option<Duration>, now: OffsetDateTime) -> Terms {
    let source = GrantSource::Promotion;
    let expires_at = lives.map(|lives| now + lives);
    Terms { source, priority, cost_micros: 0, effective_from: None, expires_at }
}

impl Books {
    fn new() -> Self {
        let wallet = Wallet::new(WalletId(7), START.date(), START);
        Self { wallet, grants: vec![], holds: vec![], lines: vec![], next_id: 0 }
    }

    fn pass(&mut self, time: Duration) {
        self.wallet.advance_to(self.wallet.changed_at + time);
    }

    fn new_id(&mut self) -> Uuid {
        self.next_id += 1;
        Uuid::from_u128(self.next_id)
    }

    /// As a batch does it: what is due by itself first.
    fn run(&mut self, command: &Command) {
        let due = Due { today: self.wallet.changed_at.date(), daily: Some(amount(5)) };
        self.wallet.recalled.clear();
        if let Command::Refund { spend, .. } = command {
            self.recall(*spend);
        } else if matches!(command, Command::RefundNewest { .. }) {
            let spends = self.lines.iter().filter(|line| line.kind == "usage");
            for spend in spends.map(|line| line.sequence).collect::<Vec<_>>() {
                self.recall(spend);
            }
        }
        let mut next = self.next_id;
        let mut ids = || {
            next += 1;
            TransactionId(Uuid::from_u128(next))
        };
        let settled = self.wallet.settle(due, &mut ids).unwrap();
        let done = self.wallet.apply(command, &mut ids).unwrap_or_default();
        self.next_id = next;
        self.write(settled);
        self.write(done);
    }

    fn recall(&mut self, sequence: i64) {
        let Some(slices) = self.taken(sequence) else { return };
        let refunds = self.lines.iter().filter(|line| line.reference == Some(sequence));
        let refunded = Mana::new(refunds.map(|line| line.amount).sum()).unwrap();
        let terms = self.grants.iter().map(|grant| (grant.grant_sequence, grant.terms().unwrap())).collect();
        self.wallet.recalled.push(RecalledSpend {
            sequence,
            app_id: "chat".to_owned(),
            slices,
            refunded,
            terms,
        });
    }

    fn taken(&self, sequence: i64) -> Option<Vec<Slice>> {
        let spend = self.lines.iter().find(|line| line.sequence == sequence && line.kind == "usage")?;
        let pairs = spend.slice_grants.iter().zip(&spend.slice_amounts);
        pairs.map(|(grant, amount)| Some(Slice { grant: *grant, amount: Mana::new(-amount)? })).collect()
    }

    fn write(&mut self, effects: Effects) {
        let created_at = self.wallet.changed_at;
        for grant in effects.new_grants {
            let Terms { source, priority, cost_micros, effective_from, expires_at } = grant.terms;
            self.grants.push(GrantRecord {
                wallet_id: 7,
                grant_sequence: grant.sequence,
                source: source.as_str().to_owned(),
                priority,
                cost_micros,
                effective_from,
                expires_at,
                created_at,
            });
        }
        for line in effects.transactions {
            self.lines.push(LineRecord {
                wallet_id: 7,
                sequence: line.sequence,
                id: line.id.0,
                kind: line.kind.as_str().to_owned(),
                amount: line.amount,
                balance_after: line.balance_after.get(),
                counter: line.counter.as_str().to_owned(),
                slice_grants: line.slices.iter().map(|slice| slice.grant).collect(),
                slice_amounts: line.slices.iter().map(|slice| slice.amount).collect(),
                reference: line.reference,
                hold_id: line.hold_id.map(|hold| hold.0),
                app_id: line.note.app_id,
                description: line.note.description,
                metadata: line.note.metadata,
                idempotency_key: None,
                service_key_id: None,
                created_at: line.at,
                hash: line.hash.to_vec(),
            });
        }
        effects.holds.into_iter().for_each(|change| self.write_hold(change));
    }

    fn write_hold(&mut self, change: HoldChange) {
        match change {
            HoldChange::Opened { hold, description, at, .. } => self.holds.push(HoldRecord {
                wallet_id: 7,
                id: hold.id.0,
                app_id: hold.app_id,
                description,
                metadata: None,
                amount: hold.slices.iter().map(|slice| slice.amount.get()).sum(),
                captured: 0,
                slice_grants: hold.slices.iter().map(|slice| slice.grant).collect(),
                slice_amounts: hold.slices.iter().map(|slice| slice.amount.get()).collect(),
                status: "open".to_owned(),
                service_key_id: None,
                capture_sequence: None,
                created_at: at,
                expires_at: hold.expires_at,
                ended_at: None,
            }),
            HoldChange::Extended { id, expires_at } => self.hold(id).expires_at = expires_at,
            HoldChange::Ended { id, end, at } => {
                let hold = self.hold(id);
                hold.status = end.as_str().to_owned();
                hold.ended_at = Some(at);
                if let HoldEnd::Captured { amount, sequence } = end {
                    (hold.captured, hold.capture_sequence) = (amount.get(), Some(sequence));
                }
            }
        }
    }

    fn hold(&mut self, id: HoldId) -> &mut HoldRecord {
        self.holds.iter_mut().find(|hold| hold.id == id.0).unwrap()
    }

    fn snapshot(&self) -> Snapshot {
        let wallet = &self.wallet;
        let totals = wallet.totals().unwrap();
        let mut usage: BTreeMap<String, UsageSums> = BTreeMap::new();
        for line in &self.lines {
            let sums = usage.entry(line.app_id.clone()).or_default();
            match TransactionKind::from_database(&line.kind).unwrap() {
                TransactionKind::Usage => {
                    sums.spends += 1;
                    sums.spent -= line.amount;
                }
                TransactionKind::Refund => sums.refunded += line.amount,
                TransactionKind::Purchase
                | TransactionKind::Bonus
                | TransactionKind::Expiry
                | TransactionKind::Adjustment => {}
            }
        }
        Snapshot {
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
                debt: 0,
                daily_granted_on: wallet.daily_granted_on,
                grants: serde_json::to_string(&wallet.grants).unwrap(),
                holds: serde_json::to_string(&wallet.holds).unwrap(),
                created_at: START,
                updated_at: wallet.changed_at,
                closed_at: None,
            },
            grants: self.grants.clone(),
            holds: self.holds.clone(),
            usage,
            anchor: None,
        }
    }

    fn replay(&self) -> Vec<Finding> {
        self.replay_to(&self.snapshot())
    }

    /// The history, compared with what a row says of it.
    fn replay_to(&self, snapshot: &Snapshot) -> Vec<Finding> {
        let mut replay = Replay::new(snapshot);
        for line in &self.lines {
            let day = line.created_at.date();
            let refunded_spend = line.reference.and_then(|spend| self.taken(spend));
            replay.line(line, &LineContext { earliest_day: day, latest_day: day, refunded_spend });
        }
        replay.finish()
    }

    fn invariants(&self) -> Vec<u8> {
        self.replay().iter().map(|finding| finding.invariant).collect()
    }

    /// Gives lines hashes that fit, as somebody would who knows how.
    fn rehash(&mut self) {
        let mut head = [0; 32];
        for line in &mut self.lines {
            let made = self.grants.iter().find(|grant| grant.grant_sequence == line.sequence);
            let made = made.and_then(GrantRecord::terms);
            head = chain::link(&head, WalletId(7), &line.transaction().unwrap(), made.as_ref());
            line.hash = head.to_vec();
        }
        self.wallet.head = head;
    }

    /// Does something of everything, by chance.
    fn live(&mut self, action: u8, size: i64, pause: i64) {
        self.pass(Duration::hours(pause));
        let now = self.wallet.changed_at;
        let charge = Charge { amount: amount(size), note: note("chat") };
        let pick = usize::try_from(size).unwrap();
        let hold = self.wallet.holds.get(pick % self.wallet.holds.len().max(1)).map(|hold| hold.id);
        let command = match (action, hold) {
            (0, _) => {
                let lives = Some(Duration::hours(size)).filter(|_| size % 3 > 0);
                let terms = promotion(if lives.is_some() { 5 } else { 15 }, lives, now);
                Command::Give(Gift { amount: amount(size), terms, note: note("gift") })
            }
            (1, _) => {
                let source = GrantSource::Purchase;
                let terms = Terms { source, priority: 20, cost_micros: size, ..Terms::ALLOWANCE };
                Command::Give(Gift { amount: amount(size * 2), terms, note: note("shop") })
            }
            (2, _) if size % 5 == 0 => Command::Take(charge),
            (2 | 3, _) => Command::Spend(charge),
            (4 | 5, _) => {
                let id = HoldId(self.new_id());
                Command::Hold { id, charge, expires_at: now + Duration::hours(size) }
            }
            (6, Some(id)) => Command::Capture { id, amount: Some(amount(size)), note: note("chat") },
            (7, Some(id)) => Command::Capture { id, amount: None, note: note("chat") },
            (8, Some(id)) => Command::Release { id },
            (9, Some(id)) => Command::Extend { id, expires_at: now + Duration::hours(size * 2) },
            _ => {
                let spends: Vec<i64> =
                    self.lines.iter().filter(|line| line.kind == "usage").map(|line| line.sequence).collect();
                let Some(spend) = spends.get(pick % spends.len().max(1)).copied() else { return };
                let (amount, revives_expired, note) = (amount(size), size % 2 == 0, note("chat"));
                if pick % 3 == 0 {
                    Command::RefundNewest { amount, revives_expired, note }
                } else {
                    Command::Refund { spend, amount: Some(amount), revives_expired, note }
                }
            }
        };
        self.run(&command);
    }
}

proptest! {
    #[test]
    fn nothing_is_found_in_what_the_state_machine_makes(
        steps in proptest::collection::vec((0_u8..14, 1_i64..30, prop_oneof![Just(0), 0_i64..20]), 1..60),
    ) {
        let mut books = Books::new();
        books.run(&Command::SignupBonus { amount: amount(150) });
        for (action, size, pause) in steps {
            books.live(action, size, pause);
        }
        prop_assert_eq!(books.replay(), []);
    }
}

/// A bonus, a gift that goes first and one that goes last, and a spend of both that go first.
fn spent_books() -> Books {
    let mut books = Books::new();
    books.run(&Command::SignupBonus { amount: amount(100) });
    for (priority, lives) in [(5, Some(Duration::days(30))), (15, None)] {
        books.pass(Duration::SECOND);
        let terms = promotion(priority, lives, START);
        books.run(&Command::Give(Gift { amount: amount(10), terms, note: note("gift") }));
    }
    books.pass(Duration::SECOND);
    books.run(&Command::Spend(Charge { amount: amount(30), note: note("chat") }));
    assert_eq!(books.replay(), []);
    books
}

#[test]
fn a_spend_out_of_order_is_found_although_every_hash_and_sum_fits() {
    let mut books = spent_books();
    books.lines[3].slice_grants = vec![2, 3];
    books.lines[3].slice_amounts = vec![-20, -10];
    books.rehash();
    assert!(books.invariants().contains(&10));
    let mut books = spent_books();
    books.lines[3].slice_grants.reverse();
    books.lines[3].slice_amounts.reverse();
    books.rehash();
    assert_eq!(books.invariants(), [10]);
}

#[test]
fn a_spend_of_what_has_expired_is_found() {
    let mut books = spent_books();
    books.grants[1].expires_at = Some(books.lines[3].created_at);
    assert!(books.invariants().contains(&11));
}

#[test]
fn terms_that_were_changed_wherever_they_stand_are_found_by_the_line_that_made_the_grant() {
    let mut books = spent_books();
    // The bonus: it can be spent as long as before, and nothing else depends on it.
    let later = START + Duration::days(400);
    books.grants[0].expires_at = Some(later);
    books.wallet.grants.iter_mut().find(|grant| grant.sequence == 1).unwrap().terms.expires_at = Some(later);
    let found: Vec<_> = books.replay().iter().map(|finding| (finding.sequence, finding.invariant)).collect();
    assert!(found.contains(&(Some(1), 5)), "{found:?}");
    books.rehash();
    assert!(!books.invariants().contains(&5), "the control: it is the hash that shows it");
}

#[test]
fn lines_from_before_terms_were_in_the_hash_are_good_as_they_are() {
    let mut books = spent_books();
    let mut head = [0; 32];
    for line in &mut books.lines {
        head = chain::link(&head, WalletId(7), &line.transaction().unwrap(), None);
        line.hash = head.to_vec();
    }
    books.wallet.head = head;
    assert_eq!(books.replay(), []);
    books.pass(Duration::SECOND);
    let terms = promotion(7, None, START);
    books.run(&Command::Give(Gift { amount: amount(10), terms, note: note("gift") }));
    assert_eq!(books.replay(), [], "and so are those that come after");
}

#[test]
fn a_time_that_the_wallet_keeps_finer_than_the_grants_row_is_no_lie() {
    let books = spent_books();
    let mut snapshot = books.snapshot();
    let whole = START + Duration::days(30);
    // As an older version wrote it: the gift's end as the app had named it, cut in the grant's own row only.
    let kept = |end: OffsetDateTime| {
        let end = end.format(&time::format_description::well_known::Rfc3339).unwrap();
        format!(
            r#"[{{"sequence":1,"source":"allowance","remaining":80,"priority":10,"costMicros":0}},
                {{"sequence":2,"source":"promotion","remaining":0,"priority":5,"costMicros":0,"expiresAt":"{end}"}},
                {{"sequence":3,"source":"promotion","remaining":10,"priority":15,"costMicros":0}}]"#
        )
    };
    snapshot.wallet.grants = kept(whole + Duration::nanoseconds(999));
    assert_eq!(books.replay_to(&snapshot), []);
    snapshot.wallet.grants = kept(whole + Duration::microseconds(1));
    let found: Vec<u8> = books.replay_to(&snapshot).iter().map(|finding| finding.invariant).collect();
    assert_eq!(found, [8], "the control: another time");
}

#[test]
fn a_hold_that_the_row_has_twice_is_found() {
    let mut books = spent_books();
    let id = HoldId(books.new_id());
    let charge = Charge { amount: amount(5), note: note("chat") };
    books.pass(Duration::SECOND);
    let expires_at = books.wallet.changed_at + Duration::HOUR;
    books.run(&Command::Hold { id, charge, expires_at });
    assert_eq!(books.replay(), []);
    let mut snapshot = books.snapshot();
    snapshot.wallet.holds = serde_json::to_string(&[&books.wallet.holds[0], &books.wallet.holds[0]]).unwrap();
    let found: Vec<u8> = books.replay_to(&snapshot).iter().map(|finding| finding.invariant).collect();
    assert_eq!(found, [15]);
}

#[test]
fn a_second_bonus_and_a_second_daily_grant_on_a_day_are_found() {
    let mut books = Books::new();
    books.run(&Command::SignupBonus { amount: amount(100) });
    books.run(&Command::SignupBonus { amount: amount(100) });
    assert_eq!(books.invariants(), [12]);

    let mut books = Books::new();
    books.pass(Duration::days(1));
    books.run(&Command::DailyCredits { amount: amount(5), day: books.wallet.changed_at.date() });
    assert_eq!(books.replay(), []);
    books.wallet.daily_granted_on = START.date();
    books.pass(Duration::SECOND);
    books.run(&Command::Spend(Charge { amount: amount(1), note: note("chat") }));
    assert_eq!(books.invariants(), [12]);
}

#[test]
fn days_of_another_zone_are_told_apart_by_what_their_lines_say() {
    let give = |books: &mut Books, day| {
        let mut ids = || TransactionId(Uuid::from_u128(u128::try_from(books.lines.len()).unwrap() + 1));
        let given = books.wallet.apply(&Command::DailyCredits { amount: amount(5), day }, &mut ids).unwrap();
        books.write(given);
    };
    let mut books = Books::new();
    // Still the first day of February in the far west, and the second one after the zone was changed to UTC.
    books.pass(Duration::hours(24 + 23));
    let second = START.date() + Duration::days(2);
    give(&mut books, second - Duration::DAY);
    books.pass(Duration::MINUTE);
    give(&mut books, second);
    assert_eq!(books.lines[0].created_at.date(), books.lines[1].created_at.date());
    assert_eq!(books.replay(), []);

    books.wallet.daily_granted_on = START.date();
    give(&mut books, second);
    assert_eq!(books.invariants(), [12], "the same day again");

    let mut books = Books::new();
    give(&mut books, second + Duration::days(2));
    assert_eq!(books.invariants(), [12], "a day that has not begun anywhere");

    // Written before lines said for which day they are.
    let mut books = Books::new();
    for pause in [Duration::DAY, Duration::SECOND] {
        books.pass(pause);
        let day = books.wallet.daily_granted_on + Duration::DAY;
        give(&mut books, day);
    }
    for line in &mut books.lines {
        line.metadata = None;
    }
    books.rehash();
    assert_eq!(books.invariants(), [12]);
}

#[test]
fn a_refund_that_is_too_large_or_goes_to_the_wrong_grant_is_found() {
    let refunded = || {
        let mut books = spent_books();
        books.pass(Duration::SECOND);
        let refund = Command::Refund {
            spend: 4,
            amount: Some(amount(25)),
            revives_expired: false,
            note: note("chat"),
        };
        books.run(&refund);
        assert_eq!(books.replay(), []);
        assert_eq!(books.lines[4].slice_amounts, [20, 5], "the last taken first");
        books
    };
    let mut books = refunded();
    books.lines[4].slice_amounts = vec![10, 15];
    books.rehash();
    assert!(books.invariants().contains(&21));
    let mut books = refunded();
    let line = &mut books.lines[4];
    (line.amount, line.balance_after, line.slice_amounts) = (31, line.balance_after + 6, vec![21, 10]);
    books.rehash();
    assert!(books.invariants().contains(&21));
}

#[test]
fn grants_that_expire_at_once_are_booked_in_lines_that_continue_each_other() {
    let mut books = Books::new();
    for (priority, description) in [(5, "a gift"), (6, "another")] {
        let terms = promotion(priority, Some(Duration::HOUR), START);
        books.run(&Command::Give(Gift { amount: amount(10), terms, note: note(description) }));
    }
    books.pass(Duration::HOUR);
    books.run(&Command::Spend(Charge { amount: amount(1), note: note("chat") }));
    assert_eq!(books.lines.iter().map(|line| line.balance_after).collect::<Vec<_>>(), [10, 20, 10, 0]);
    assert_eq!(books.replay(), []);
}
