//! A wallet's history, lived again: line by line, with the holds between them, until it must have come to what the
//! wallet's row says. No I/O; what is kept is what the wallet has, not what it has been through.
//!
//! Holds have no sequence, only times. Of a line that happened at the very instant at which a hold was opened or given
//! back, and of a hold that was opened at the instant of a line, it can't be said what was there to take, so that the
//! burn-down order (10) is not checked for them. Everything else is.

use super::{Finding, LineContext, Snapshot};
use crate::ledger::chain;
use crate::ledger::model::{
    Change, Counter, DAILY_CREDITS, Grant, GrantSource, Hold, SIGNUP_BONUS, Slice, Terms, Transaction,
    TransactionKind, WalletId,
};
use crate::ledger::record::{HoldRecord, LineRecord, UsageSums};
use mana_kernel::Mana;
use serde::Deserialize;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use time::{Date, Duration, OffsetDateTime, PrimitiveDateTime};

/// Findings of one wallet that are told; a broken wallet is broken after the first.
const MAX_FINDINGS: usize = 20;

/// A history on its way.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    snapshot: &'a Snapshot,
    terms: BTreeMap<i64, Terms>,
    /// What grants have left, without those that have nothing.
    left: BTreeMap<i64, i64>,
    moves: VecDeque<Move<'a>>,
    captures: HashMap<i64, &'a HoldRecord>,
    /// Grants that changed at the instant that is being lived, and its time.
    touched: BTreeSet<i64>,
    instant: OffsetDateTime,
    sequence: i64,
    balance: i64,
    /// Hash of the last line; none if it could not be read.
    head: Option<[u8; 32]>,
    total_earned: i64,
    total_spent: i64,
    usage: BTreeMap<String, UsageSums>,
    refunded: HashMap<i64, i64>,
    has_bonus: bool,
    last_daily: Option<Date>,
    /// Whether its line did not name the day.
    last_daily_is_guessed: bool,
    findings: Vec<Finding>,
}

/// A hold takes its slices, or gives them back.
#[derive(Debug, Clone, Copy)]
struct Move<'a> {
    at: OffsetDateTime,
    hold: &'a HoldRecord,
    takes: bool,
}

impl<'a> Replay<'a> {
    /// A wallet before its first line.
    pub(crate) fn new(snapshot: &'a Snapshot) -> Self {
        let mut replay = Self {
            snapshot,
            terms: BTreeMap::new(),
            left: BTreeMap::new(),
            moves: VecDeque::new(),
            captures: HashMap::new(),
            touched: BTreeSet::new(),
            instant: OffsetDateTime::UNIX_EPOCH,
            sequence: 0,
            balance: 0,
            head: Some([0; 32]),
            total_earned: 0,
            total_spent: 0,
            usage: BTreeMap::new(),
            refunded: HashMap::new(),
            has_bonus: false,
            last_daily: None,
            last_daily_is_guessed: false,
            findings: Vec::new(),
        };
        for grant in &snapshot.grants {
            match grant.terms() {
                Some(terms) => drop(replay.terms.insert(grant.grant_sequence, terms)),
                None => {
                    replay.find(8, format!("grant {} has terms of an unknown sort", grant.grant_sequence));
                }
            }
        }
        for hold in &snapshot.holds {
            replay.expect_hold(hold);
        }
        replay.moves.make_contiguous().sort_by_key(|change| change.at);
        replay
    }

    /// Notes when a hold takes and gives back, and finds what is wrong about it by itself.
    fn expect_hold(&mut self, hold: &'a HoldRecord) {
        let of = |sentence: &str| format!("hold {} {sentence}", hold.id);
        let slices = hold.slices().and_then(|slices| sum(slices.iter().map(|slice| slice.amount.get())));
        if slices != Some(hold.amount) {
            self.find(15, of("has slices that do not sum to its amount"));
        }
        if !(0..=hold.amount).contains(&hold.captured) {
            self.find(14, of("captured more than it held"));
        }
        self.moves.push_back(Move { at: hold.created_at, hold, takes: true });
        match (hold.status.as_str(), hold.capture_sequence, hold.ended_at) {
            ("open", None, None) if hold.captured == 0 => {}
            ("captured", Some(sequence), Some(ended_at)) => {
                if ended_at >= hold.expires_at {
                    self.find(16, of("was captured after its time"));
                }
                if self.captures.insert(sequence, hold).is_some() {
                    self.find(13, of("claims a line that captures another hold"));
                }
            }
            ("released" | "expired", None, Some(ended_at)) if hold.captured == 0 => {
                if hold.status == "expired" && ended_at != hold.expires_at {
                    self.find(13, of("expired at another time than it says"));
                }
                self.moves.push_back(Move { at: ended_at, hold, takes: false });
            }
            _ => self.find(13, of("has an end that does not fit its state")),
        }
    }

    /// The next line.
    pub(crate) fn line(&mut self, record: &LineRecord, context: &LineContext) {
        let expected = self.sequence.saturating_add(1);
        if record.sequence != expected {
            self.find_at(record.sequence, 4, format!("the line should be number {expected}"));
        }
        if let Some(anchor) = &self.snapshot.anchor
            && anchor.sequence == record.sequence
            && anchor.head != record.hash
        {
            self.find_at(
                record.sequence,
                5,
                format!("it is not the line that root {} covers", anchor.root_id),
            );
        }
        let before = std::mem::replace(&mut self.balance, record.balance_after);
        self.sequence = record.sequence;
        if before.checked_add(record.amount) != Some(record.balance_after) {
            let sentence =
                format!("{before} and {} do not make the balance of {}", record.amount, record.balance_after);
            self.find_at(record.sequence, 4, sentence);
        }
        let Some(line) = record.transaction() else {
            self.head = None;
            self.find_at(record.sequence, 7, "a column holds what is never posted".to_owned());
            return;
        };
        if let Some(head) = self.head
            && !self.is_linked(&head, WalletId(record.wallet_id), &line)
        {
            self.find_here(
                5,
                "the hash is not that of the line, of the grant that it makes and of those before it",
            );
        }
        self.head = Some(line.hash);
        self.live_until(line.at);
        let is_exact = self.moves.front().is_none_or(|next| next.at > line.at);
        self.check_shape(&line);
        match line.kind {
            TransactionKind::Usage => self.check_spend(&line, is_exact),
            TransactionKind::Refund => self.check_refund(&line, context),
            TransactionKind::Expiry => self.check_expiry(&line),
            TransactionKind::Bonus => self.check_bonus(&line, context),
            TransactionKind::Adjustment if is_taking(&line) => self.check_taking(&line, is_exact),
            TransactionKind::Purchase | TransactionKind::Adjustment => {}
        }
        for change in &line.slices {
            self.change(change.grant, change.amount);
        }
        self.count(&line);
    }

    /// Whether a line's hash is its own. Lines of versions that put no terms into it have one without them: what it is made of can't be changed
    /// afterwards, so that taking it for good lets nobody leave the terms out of one that has them.
    fn is_linked(&self, head: &[u8; 32], wallet: WalletId, line: &Transaction) -> bool {
        let is_made = line.slices.iter().any(|slice| slice.grant == line.sequence);
        let made = self.terms.get(&line.sequence).filter(|_| is_made);
        let is_link = |made| chain::link(head, wallet, line, made) == line.hash;
        is_link(made) || (is_made && is_link(None))
    }

    /// What every line must be.
    fn check_shape(&mut self, line: &Transaction) {
        if sum(line.slices.iter().map(|slice| slice.amount)) != Some(line.amount) {
            self.find_here(1, "the slices do not sum to the amount");
        }
        if line.amount == 0 || line.slices.iter().any(|slice| slice.amount.signum() != line.amount.signum()) {
            self.find_here(7, "a slice does not go the way of its line");
        }
        let (counter, sign) = match line.kind {
            TransactionKind::Purchase => (Counter::Clearing, 1),
            TransactionKind::Usage => (Counter::Revenue, -1),
            TransactionKind::Refund => (Counter::Revenue, 1),
            TransactionKind::Bonus => (Counter::Bonus, 1),
            TransactionKind::Expiry => (Counter::Expired, -1),
            TransactionKind::Adjustment => match line.counter {
                Counter::Debt | Counter::Clearing => (line.counter, line.amount.signum()),
                Counter::Bonus | Counter::Revenue | Counter::Expired | Counter::Adjustment => {
                    (Counter::Adjustment, line.amount.signum())
                }
            },
        };
        if line.counter != counter || line.amount.signum() != sign {
            self.find_here(1, "such a line has another account on its other side, or goes the other way");
        }
        for slice in &line.slices {
            let terms = self.terms.get(&slice.grant);
            if terms.is_none() || slice.grant > line.sequence {
                self.find_here(8, &format!("grant {} is not there", slice.grant));
            }
        }
    }

    /// A spend takes live grants in burn-down order; the capture of a hold takes the hold's slices from the front.
    fn check_spend(&mut self, line: &Transaction, is_exact: bool) {
        let given = 0_i64.saturating_sub(line.amount);
        if let Some(id) = line.hold_id {
            let id = id.0;
            let hold = self.captures.remove(&line.sequence).filter(|hold| hold.id == id);
            let Some((hold, slices)) = hold.and_then(|hold| Some((hold, hold.slices()?))) else {
                return self.find_here(13, &format!("hold {id} does not say that this line captured it"));
            };
            if hold.captured != given {
                self.find_here(14, &format!("hold {id} says that {} was captured", hold.captured));
            }
            if front(&slices, given) != opposite(&line.slices) {
                self.find_here(10, &format!("the slices are not the first ones of hold {id}"));
            }
            for slice in &slices {
                self.change(slice.grant, slice.amount.get());
            }
            return;
        }
        self.check_taking(line, is_exact);
    }

    /// What is taken is taken from live grants in burn-down order.
    fn check_taking(&mut self, line: &Transaction, is_exact: bool) {
        let given = 0_i64.saturating_sub(line.amount);
        let is_live =
            |slice: &Change| self.terms.get(&slice.grant).is_none_or(|terms| terms.is_live(line.at));
        if !line.slices.iter().all(is_live) {
            self.find_here(11, "something was taken from a grant before or after its time");
        } else if is_exact && self.burn_down(given, line.at) != opposite(&line.slices) {
            self.find_here(10, "the slices do not follow the burn-down order");
        }
    }

    /// What a spend of `amount` takes at `at`.
    fn burn_down(&self, amount: i64, at: OffsetDateTime) -> Vec<Slice> {
        let mut grants: Vec<Grant> = self
            .left
            .iter()
            .filter_map(|(sequence, left)| {
                let (terms, remaining) = (*self.terms.get(sequence)?, Mana::new(*left)?);
                Some(Grant { sequence: *sequence, terms, remaining })
            })
            .filter(|grant| grant.terms.is_live(at))
            .collect();
        grants.sort_by_key(Grant::burn_down_rank);
        let slices: Vec<Slice> =
            grants.iter().map(|grant| Slice { grant: grant.sequence, amount: grant.remaining }).collect();
        front(&slices, amount)
    }

    /// Refunds of a spend are at most the spend, and give its slices back from the last to the first.
    fn check_refund(&mut self, line: &Transaction, context: &LineContext) {
        let Some((spend, taken)) = line.reference.zip(context.refunded_spend.as_ref()) else {
            return self.find_here(21, "the refund names no spend");
        };
        let refunded = self.refunded.entry(spend).or_default();
        let before = std::mem::replace(refunded, refunded.saturating_add(line.amount));
        let after = *refunded;
        if sum(taken.iter().map(|slice| slice.amount.get())).is_none_or(|spent| after > spent) {
            return self.find_here(21, &format!("more is given back than line {spend} took"));
        }
        let reversed: Vec<Slice> = taken.iter().rev().copied().collect();
        let expected = behind(&front(&reversed, after), before);
        let is_right = expected.len() == line.slices.len()
            && expected.iter().zip(&line.slices).all(|(expected, change)| {
                change.amount == expected.amount.get()
                    && (change.grant == expected.grant
                        || self.is_revived(expected.grant, change.grant, line.at))
            });
        if !is_right {
            self.find_here(21, &format!("the slices of line {spend} are not given back in reverse"));
        }
    }

    /// Whether a refund may give to `new` what was taken from `old`.
    fn is_revived(&self, old: i64, new: i64, at: OffsetDateTime) -> bool {
        self.terms.get(&old).zip(self.terms.get(&new)).is_some_and(|(old, new)| {
            old.has_expired(at) && *new == Terms { effective_from: None, expires_at: None, ..*old }
        })
    }

    fn check_expiry(&mut self, line: &Transaction) {
        let is_over =
            |slice: &Change| self.terms.get(&slice.grant).is_none_or(|terms| terms.has_expired(line.at));
        if !line.slices.iter().all(is_over) {
            self.find_here(11, "a grant was booked as expired before its time");
        }
    }

    /// One sign-up bonus ever, and one daily grant a day. A line names the day that it is for, which is today somewhere. Lines of
    /// versions that wrote down no day are judged by the zone of now; the day is the database's, the line's time a server's, so
    /// that at midnight such a line may belong to the day next to its own.
    fn check_bonus(&mut self, line: &Transaction, context: &LineContext) {
        let is_of_system = line.note.app_id == "system"
            && line.slices.iter().all(|slice| {
                self.terms.get(&slice.grant).is_some_and(|terms| terms.source == GrantSource::Allowance)
            });
        match line.note.description.as_str() {
            SIGNUP_BONUS if is_of_system && std::mem::replace(&mut self.has_bonus, true) => {
                self.find_here(12, "it is the second sign-up bonus");
            }
            DAILY_CREDITS if is_of_system && names_a_day(line) => {
                let Some(day) = day_of(line) else {
                    return self.find_here(12, "the day of the daily credits can't be read");
                };
                let [earliest, latest] = days_somewhere(line.at);
                if day < earliest || day > latest {
                    self.find_here(
                        12,
                        &format!("{day} was not today anywhere when its daily credits were given"),
                    );
                }
                let is_certain = !self.last_daily_is_guessed;
                let is_again = self.last_daily.is_some_and(|last| day < last || (day == last && is_certain));
                if is_again {
                    self.find_here(12, &format!("the daily credits of {day} were given before"));
                }
                (self.last_daily, self.last_daily_is_guessed) = (Some(day), false);
            }
            DAILY_CREDITS if is_of_system => {
                self.last_daily_is_guessed = true;
                let free = self.last_daily.and_then(Date::next_day).unwrap_or(context.earliest_day);
                let day = free.max(context.earliest_day);
                if day > context.latest_day {
                    return self.find_here(
                        12,
                        &format!("the daily credits of {} were given before", context.latest_day),
                    );
                }
                self.last_daily = Some(day);
            }
            _ => {}
        }
    }

    /// Adds a line to the totals.
    fn count(&mut self, line: &Transaction) {
        let usage = self.usage.entry(line.note.app_id.clone()).or_default();
        match line.kind {
            TransactionKind::Usage => {
                usage.spends = usage.spends.saturating_add(1);
                usage.spent = usage.spent.saturating_sub(line.amount);
                self.total_spent = self.total_spent.saturating_sub(line.amount);
            }
            TransactionKind::Refund => {
                usage.refunded = usage.refunded.saturating_add(line.amount);
                self.total_spent = self.total_spent.saturating_sub(line.amount);
            }
            TransactionKind::Adjustment if is_taking(line) || line.counter != Counter::Adjustment => {}
            TransactionKind::Purchase | TransactionKind::Bonus | TransactionKind::Adjustment => {
                let grant = line.slices.first().and_then(|slice| self.terms.get(&slice.grant));
                if grant.is_some_and(|terms| terms.source.is_earned()) {
                    self.total_earned = self.total_earned.saturating_add(line.amount);
                }
            }
            TransactionKind::Expiry => {}
        }
    }

    /// Lets holds take and give back what they did before `at`.
    fn live_until(&mut self, at: OffsetDateTime) {
        if at <= self.instant {
            return;
        }
        while let Some(first) = self.moves.front().copied().filter(|first| first.at < at) {
            let is_alone =
                first.at > self.instant && self.moves.get(1).is_none_or(|next| next.at != first.at);
            self.close_instant(first.at);
            if first.takes && is_alone {
                self.check_hold(first.hold);
            }
            for slice in first.hold.slices().unwrap_or_default() {
                let amount = slice.amount.get();
                self.change(slice.grant, if first.takes { 0_i64.saturating_sub(amount) } else { amount });
            }
            self.moves.pop_front();
        }
        self.close_instant(at);
    }

    fn check_hold(&mut self, hold: &HoldRecord) {
        let slices = hold.slices().unwrap_or_default();
        let is_live =
            |slice: &Slice| self.terms.get(&slice.grant).is_none_or(|terms| terms.is_live(hold.created_at));
        if !slices.iter().all(is_live) {
            self.find(11, format!("hold {} took from a grant before or after its time", hold.id));
        } else if self.burn_down(hold.amount, hold.created_at) != slices {
            self.find(10, format!("the slices of hold {} do not follow the burn-down order", hold.id));
        }
    }

    fn change(&mut self, grant: i64, amount: i64) {
        self.touched.insert(grant);
        let left = self.left.entry(grant).or_default();
        *left = left.saturating_add(amount);
        if *left == 0 {
            self.left.remove(&grant);
        }
    }

    /// Within an instant the order of holds and lines is not known; at its end no grant may have given more than it had.
    fn close_instant(&mut self, next: OffsetDateTime) {
        if next <= self.instant {
            return;
        }
        self.instant = next;
        for grant in std::mem::take(&mut self.touched) {
            if self.left.get(&grant).is_some_and(|left| *left < 0) {
                self.find_here(9, &format!("grant {grant} has given more than it had"));
                self.left.remove(&grant);
            }
        }
    }

    /// What was found so far.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Compares with the wallet's row.
    pub(crate) fn finish(mut self) -> Vec<Finding> {
        self.live_until(PrimitiveDateTime::MAX.assume_utc());
        let wallet = &self.snapshot.wallet;
        for (sequence, hold) in std::mem::take(&mut self.captures) {
            self.find(
                13,
                format!("line {sequence} does not capture hold {} although the hold says so", hold.id),
            );
        }
        if self.sequence != wallet.sequence {
            self.find(
                4,
                format!("the history ends with line {}, the row says {}", self.sequence, wallet.sequence),
            );
        }
        if let Some(anchor) = &self.snapshot.anchor
            && anchor.sequence > self.sequence
        {
            self.find_at(
                anchor.sequence,
                4,
                format!("root {} covers the line, and it is gone", anchor.root_id),
            );
        }
        if self.head.is_some_and(|head| head != *wallet.head) {
            self.find(5, "the row has another hash than the last line".to_owned());
        }
        let held = sum(self.open_holds().map(|hold| hold.amount)).unwrap_or(i64::MAX);
        let on_side = |is_paid: bool| {
            let side = self.left.iter().filter(|(grant, _)| {
                self.terms.get(grant).is_some_and(|terms| terms.source.is_paid()) == is_paid
            });
            sum(side.map(|(_, left)| *left)).unwrap_or(i64::MAX)
        };
        for (invariant, column, is, should_be) in [
            (3, "balance", sum([wallet.free, wallet.paid, wallet.held]).unwrap_or(i64::MAX), self.balance),
            (8, "free", wallet.free, on_side(false)),
            (8, "paid", wallet.paid, on_side(true)),
            (15, "held", wallet.held, held),
            (3, "total_earned", wallet.total_earned, self.total_earned),
            (3, "total_spent", wallet.total_spent, self.total_spent),
        ] {
            if is != should_be {
                self.find(invariant, format!("{column} is {is}, by the history it is {should_be}"));
            }
        }
        self.compare_grants();
        self.compare_holds();
        self.compare_usage();
        self.findings
    }

    fn open_holds(&self) -> impl Iterator<Item = &'a HoldRecord> + use<'a> {
        self.snapshot.holds.iter().filter(|hold| hold.status == "open")
    }

    fn compare_grants(&mut self) {
        let Ok(kept) = serde_json::from_str::<Vec<Grant>>(&self.snapshot.wallet.grants) else {
            return self.find(8, "the row's grants can't be read".to_owned());
        };
        let mut left = self.left.clone();
        for Grant { sequence, terms, remaining } in kept {
            if self.terms.get(&sequence) != Some(&terms) {
                self.find(8, format!("grant {sequence} has other terms in the row"));
            }
            let by_history = left.remove(&sequence).unwrap_or(0);
            if by_history != remaining.get() {
                let remaining = remaining.get();
                self.find(9, format!("grant {sequence} has {remaining} left, by the history {by_history}"));
            }
        }
        for (grant, left) in left {
            self.find(8, format!("grant {grant} has {left} left by the history and is not in the row"));
        }
    }

    fn compare_holds(&mut self) {
        let Ok(kept) = serde_json::from_str::<Vec<Hold>>(&self.snapshot.wallet.holds) else {
            return self.find(15, "the row's holds can't be read".to_owned());
        };
        let in_row = kept.len();
        let mut kept: BTreeMap<_, Hold> = kept.into_iter().map(|hold| (hold.id.0, hold)).collect();
        if kept.len() != in_row {
            self.find(15, "a hold is in the row more than once".to_owned());
        }
        for record in self.open_holds() {
            let is_same = kept.remove(&record.id).is_some_and(|hold| {
                hold.app_id == record.app_id
                    && hold.expires_at == record.expires_at
                    && record.slices() == Some(hold.slices)
            });
            if !is_same {
                self.find(15, format!("hold {} is open and not the same in the row", record.id));
            }
        }
        for id in kept.into_keys() {
            self.find(15, format!("hold {id} is in the row and not open"));
        }
    }

    fn compare_usage(&mut self) {
        let mut by_history = std::mem::take(&mut self.usage);
        by_history.retain(|_, sums| *sums != UsageSums::default());
        for app in by_history.keys().chain(self.snapshot.usage.keys()).collect::<BTreeSet<_>>() {
            let (is, should_be) = (self.snapshot.usage.get(app), by_history.get(app));
            if is.copied().unwrap_or_default() != should_be.copied().unwrap_or_default() {
                self.find(3, format!("the usage of app {app} is not what its lines say"));
            }
        }
    }

    fn find(&mut self, invariant: u8, sentence: String) {
        self.tell(None, invariant, sentence);
    }

    fn find_here(&mut self, invariant: u8, sentence: &str) {
        self.tell(Some(self.sequence), invariant, sentence.to_owned());
    }

    fn find_at(&mut self, sequence: i64, invariant: u8, sentence: String) {
        self.tell(Some(sequence), invariant, sentence);
    }

    fn tell(&mut self, sequence: Option<i64>, invariant: u8, sentence: String) {
        if self.findings.len() < MAX_FINDINGS {
            let wallet = &self.snapshot.wallet;
            let (wallet, user) = (Some(wallet.wallet_id), Some(wallet.user_id.clone()));
            self.findings.push(Finding { wallet, user, sequence, invariant, sentence });
        }
    }
}

/// The day that a line of daily credits names.
fn day_of(line: &Transaction) -> Option<Date> {
    let named: NamedDay = serde_json::from_str(line.note.metadata.as_deref()?).ok()?;
    Some(named.day)
}

/// Whether the metadata say a day: those of lines that another program wrote may say anything else.
fn names_a_day(line: &Transaction) -> bool {
    let said =
        line.note.metadata.as_deref().and_then(|said| serde_json::from_str::<serde_json::Value>(said).ok());
    said.is_some_and(|said| said.get("day").is_some())
}

/// What the metadata of daily credits say.
#[derive(Debug, Deserialize)]
struct NamedDay {
    #[serde(with = "crate::ledger::record::day")]
    day: Date,
}

/// The first and the last day that it may have been in some zone, by a clock that is a day off at most.
fn days_somewhere(at: OffsetDateTime) -> [Date; 2] {
    let (west, east) = (Duration::hours(12 + 24), Duration::hours(14 + 24));
    [at.saturating_sub(west), at.saturating_add(east)].map(OffsetDateTime::date)
}

/// Whether mana was taken to put something right.
fn is_taking(line: &Transaction) -> bool {
    line.counter == Counter::Adjustment && line.amount < 0
}

fn sum(amounts: impl IntoIterator<Item = i64>) -> Option<i64> {
    amounts.into_iter().try_fold(0_i64, i64::checked_add)
}

/// What a line gives, as slices; empty if it is no mana.
fn opposite(changes: &[Change]) -> Vec<Slice> {
    let slices = changes.iter().map(|change| {
        Some(Slice { grant: change.grant, amount: Mana::new(0_i64.checked_sub(change.amount)?)? })
    });
    slices.collect::<Option<_>>().unwrap_or_default()
}

/// The first slices, as far as they make up `amount`.
fn front(slices: &[Slice], amount: i64) -> Vec<Slice> {
    cut(slices, amount, Ordering::Less)
}

/// The slices after those that make up `amount`.
fn behind(slices: &[Slice], amount: i64) -> Vec<Slice> {
    cut(slices, amount, Ordering::Greater)
}

fn cut(slices: &[Slice], amount: i64, side: Ordering) -> Vec<Slice> {
    let mut missing = Mana::new(amount).unwrap_or_default();
    let parts = slices.iter().map(|slice| {
        let part = missing.min(slice.amount);
        missing = missing.minus(part).unwrap_or_default();
        let rest = slice.amount.minus(part).unwrap_or_default();
        Slice { grant: slice.grant, amount: if side == Ordering::Less { part } else { rest } }
    });
    parts.filter(|slice| slice.amount > Mana::ZERO).collect()
}
