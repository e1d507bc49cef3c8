//! The ledger's state machine: a wallet and a command in, effects or a refusal out.
//!
//! No I/O, no clock, no randomness: the same wallet, command and ids always give the same result, so that property
//! tests and simulations can drive it. A refused command changes nothing.
//!
//! A wallet's balance is what its grants have left and what its open holds have taken from them. Transactions change the
//! balance; holds only move parts of it out of reach and back.

pub mod command;
pub mod grant;
pub mod hold;
pub mod payment;
pub mod posting;
pub mod refund;

pub use command::{BroughtAs, Charge, Command, Gift, Note, Refusal};
pub use grant::{Grant, GrantSource, Terms};
pub use hold::{Hold, HoldChange, HoldEnd, Slice};
pub use payment::{Bought, Settled, Settlement};
pub use posting::{Change, Counter, Effects, Transaction, TransactionKind};
pub use refund::RecalledSpend;

use super::chain;
use mana_kernel::{Amount, HoldId, Mana, Shortfall, TransactionId, mana::OutOfRange};
use time::{Date, OffsetDateTime};

/// Open holds of a wallet at most: each is read and written with every command of the wallet.
pub const MAX_HOLDS: usize = 200;
/// Live grants of a wallet beyond which no gift makes another, for the same reason. What is bought is never refused.
pub const MAX_GRANTS: usize = 200;

/// What the line of the sign-up bonus says.
pub const SIGNUP_BONUS: &str = "Signup bonus";
/// What the line of a day's credits says.
pub const DAILY_CREDITS: &str = "Daily free credits";

/// Where ids of transactions come from: outside.
pub type Ids<'a> = dyn FnMut() -> TransactionId + 'a;

/// A wallet's internal id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WalletId(pub i64);

/// A wallet: everything that a command needs to know of it, and all of it in one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wallet {
    /// Internal id.
    pub id: WalletId,
    /// Counts its changes, those of holds too: what an `ETag` of the balance names.
    pub version: i64,
    /// Number of its transactions.
    pub sequence: i64,
    /// Hash of its last transaction; zeros before the first.
    pub head: [u8; 32],
    /// Purchases, allocations and gifts so far; bonuses are not earned.
    pub total_earned: Mana,
    /// Spends so far, less what was given back.
    pub total_spent: Mana,
    /// Owed because a payment was taken back and its mana was spent. Paid mana is not spent while there is any.
    pub debt: Mana,
    /// Last day for which the daily credits were given.
    pub daily_granted_on: Date,
    /// When it last changed. Nothing happens to a wallet before that.
    pub changed_at: OffsetDateTime,
    /// Whether its owner is gone.
    pub is_closed: bool,
    /// Grants with something left, or from which an open hold has taken.
    pub grants: Vec<Grant>,
    /// Open holds, the oldest first.
    pub holds: Vec<Hold>,
    /// Its owner wants to be told when less than this can be spent. A setting: no command changes it.
    pub low_below: Option<Mana>,
    /// Its owner wants mana bought when less than this is there. A setting too.
    pub top_up_below: Option<Mana>,
    /// Spends that a refund of this batch is about. Not part of the row.
    pub recalled: Vec<RecalledSpend>,
}

/// Totals of a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Left of free grants.
    pub free: Mana,
    /// Left of paid grants.
    pub paid: Mana,
    /// Taken by open holds.
    pub held: Mana,
}

impl Totals {
    /// Free and paid together.
    ///
    /// # Errors
    /// When it is more than a wallet can hold.
    pub fn available(self) -> Result<Mana, OutOfRange> {
        self.free.plus(self.paid)
    }

    /// All of it.
    ///
    /// # Errors
    /// When it is more than a wallet can hold.
    pub fn balance(self) -> Result<Mana, OutOfRange> {
        self.available()?.plus(self.held)
    }
}

/// What is due by itself when a wallet is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The policy's today.
    pub today: Date,
    /// Free mana for it, if there is any.
    pub daily: Option<Amount>,
}

impl Wallet {
    /// A wallet before its first transaction.
    pub fn new(id: WalletId, opened_on: Date, opened_at: OffsetDateTime) -> Self {
        Self {
            id,
            version: 0,
            sequence: 0,
            head: [0; 32],
            total_earned: Mana::ZERO,
            total_spent: Mana::ZERO,
            debt: Mana::ZERO,
            daily_granted_on: opened_on,
            changed_at: opened_at,
            is_closed: false,
            grants: Vec::new(),
            holds: Vec::new(),
            low_below: None,
            top_up_below: None,
            recalled: Vec::new(),
        }
    }

    /// What is in the wallet, whether or not it can be spent now.
    ///
    /// # Errors
    /// When it is more than a wallet can hold.
    pub fn totals(&self) -> Result<Totals, OutOfRange> {
        self.totals_of(|_| true)
    }

    /// What can be spent at `now`, and what open holds have taken.
    ///
    /// # Errors
    /// When it is more than a wallet can hold.
    pub fn spendable(&self, now: OffsetDateTime) -> Result<Totals, OutOfRange> {
        self.totals_of(|grant| grant.terms.is_live(now))
    }

    /// What could be spent when it last changed, and below which its owner wants to be told; none unless it was below.
    pub fn low(&self) -> Option<(Mana, Mana)> {
        let below = self.low_below.filter(|_| !self.is_closed)?;
        let available = self.spendable(self.changed_at).and_then(Totals::available).ok()?;
        (available < below).then_some((available, below))
    }

    /// Whether less is there than its owner wants, so that mana may have to be bought.
    pub fn wants_top_up(&self) -> bool {
        let available = self.totals().and_then(Totals::available);
        self.top_up_below.zip(available.ok()).is_some_and(|(below, available)| available < below)
    }

    fn totals_of(&self, counts: impl Fn(&Grant) -> bool) -> Result<Totals, OutOfRange> {
        let mut totals = Totals { free: Mana::ZERO, paid: Mana::ZERO, held: Mana::ZERO };
        for grant in self.grants.iter().filter(|grant| counts(grant)) {
            let side = if grant.terms.source.is_paid() { &mut totals.paid } else { &mut totals.free };
            *side = side.plus(grant.remaining)?;
        }
        for slice in self.holds.iter().flat_map(|hold| &hold.slices) {
            totals.held = totals.held.plus(slice.amount)?;
        }
        Ok(totals)
    }

    /// Does what is due by itself: releases holds and books grants whose time is over, and gives the day's credits. A
    /// wallet that is full to the brim, or closed, goes without.
    ///
    /// # Errors
    /// When a total leaves its range; the wallet is unchanged then.
    pub fn settle(&mut self, due: Due, ids: &mut Ids) -> Result<Effects, OutOfRange> {
        let daily = due.daily.filter(|_| self.daily_granted_on < due.today && !self.is_closed);
        let now = self.changed_at;
        let is_over = self.holds.iter().any(|hold| hold.expires_at <= now)
            || self.grants.iter().any(|grant| grant.terms.has_expired(now) && grant.remaining > Mana::ZERO);
        if !is_over && daily.is_none() {
            return Ok(Effects::default());
        }
        let mut changed = self.clone();
        let mut effects = Effects::default();
        changed.release_expired_holds(&mut effects)?;
        changed.book_expired_grants(&mut effects, ids)?;
        if let Some(amount) = daily {
            let command = Command::DailyCredits { amount, day: due.today };
            if let Ok(given) = changed.apply(&command, ids) {
                effects.append(given);
            }
        }
        if effects.is_empty() {
            return Ok(effects);
        }
        changed.version = self.version.saturating_add(1);
        *self = changed;
        Ok(effects)
    }

    /// Moves the wallet to `now`, unless that is before its last change: clocks of servers differ.
    pub fn advance_to(&mut self, now: OffsetDateTime) {
        self.changed_at = self.changed_at.max(now);
    }

    /// Applies one command, at the time that the wallet was moved to.
    ///
    /// # Errors
    /// When it is refused; the wallet is unchanged then.
    pub fn apply(&mut self, command: &Command, ids: &mut Ids) -> Result<Effects, Refusal> {
        let mut changed = self.clone();
        let mut effects = Effects::default();
        changed.run(command, &mut effects, ids)?;
        changed.version = self.version.saturating_add(1);
        changed.forget_what_is_over();
        *self = changed;
        Ok(effects)
    }

    /// May leave half a change behind when it fails; [`Self::apply`] calls it on a copy.
    fn run(&mut self, command: &Command, effects: &mut Effects, ids: &mut Ids) -> Result<(), Refusal> {
        match command {
            Command::SignupBonus { amount } => self.give(&allowance(*amount, SIGNUP_BONUS), effects, ids),
            Command::DailyCredits { amount, day } => {
                if *day <= self.daily_granted_on {
                    return Err(Refusal::AlreadyGranted);
                }
                self.daily_granted_on = *day;
                let mut gift = allowance(*amount, DAILY_CREDITS);
                // For the proof: the zone whose midnight it was may be another by then.
                gift.note.metadata = Some(format!("{{\"day\":\"{day}\"}}"));
                self.give(&gift, effects, ids)
            }
            Command::Give(gift) => self.give(gift, effects, ids),
            Command::Bring { kind, gift } => {
                let (kind, counter) = match kind {
                    BroughtAs::Purchase => (TransactionKind::Purchase, Counter::Clearing),
                    BroughtAs::Bonus => (TransactionKind::Bonus, Counter::Bonus),
                    BroughtAs::Adjustment => (TransactionKind::Adjustment, Counter::Adjustment),
                };
                self.give_as(kind, counter, gift, effects, ids)
            }
            Command::Spend(charge) => {
                let slices = self.take(charge.amount.mana())?;
                self.charge(&slices, charge.note.clone(), None, effects, ids)?;
                Ok(())
            }
            Command::Take(charge) => {
                let slices = self.take(charge.amount.mana())?;
                Ok(self.correct(&slices, charge.note.clone(), effects, ids)?)
            }
            Command::Forgive(charge) => self.forgive(charge, effects, ids),
            Command::Hold { id, charge, expires_at } => self.hold(*id, charge, *expires_at, effects),
            Command::Capture { id, amount, note } => self.capture(*id, *amount, note, effects, ids),
            Command::Release { id } => {
                let hold = self.end_hold(*id)?;
                self.put_back(&hold.slices)?;
                let ended = HoldChange::Ended { id: *id, end: HoldEnd::Released, at: self.changed_at };
                effects.holds.push(ended);
                Ok(self.book_expired_grants(effects, ids)?)
            }
            Command::Extend { id, expires_at } => self.extend(*id, *expires_at, effects),
            Command::Refund { .. } | Command::RefundNewest { .. } if self.is_closed => Err(Refusal::Closed),
            Command::Refund { spend, amount, revives_expired, note } => {
                self.refund(*spend, amount.map(Amount::mana), *revives_expired, note, effects, ids)?;
                Ok(self.book_expired_grants(effects, ids)?)
            }
            Command::RefundNewest { amount, revives_expired, note } => {
                for (spend, part) in self.newest_spends(&note.app_id, amount.mana())? {
                    self.refund(spend, Some(part), *revives_expired, note, effects, ids)?;
                }
                Ok(self.book_expired_grants(effects, ids)?)
            }
            Command::Settle(order) => self.settle_order(order, effects, ids),
        }
    }

    fn give(&mut self, gift: &Gift, effects: &mut Effects, ids: &mut Ids) -> Result<(), Refusal> {
        let (kind, counter) = match gift.terms.source {
            GrantSource::Allowance | GrantSource::Promotion => (TransactionKind::Bonus, Counter::Bonus),
            GrantSource::Adjustment => (TransactionKind::Adjustment, Counter::Adjustment),
            GrantSource::Purchase => (TransactionKind::Purchase, Counter::Clearing),
        };
        self.give_as(kind, counter, gift, effects, ids)
    }

    fn give_as(
        &mut self,
        kind: TransactionKind,
        counter: Counter,
        gift: &Gift,
        effects: &mut Effects,
        ids: &mut Ids,
    ) -> Result<(), Refusal> {
        let Gift { amount, mut terms, note } = gift.clone();
        if self.is_closed {
            return Err(Refusal::Closed);
        }
        terms.effective_from = terms.effective_from.filter(|start| *start > self.changed_at);
        let ends_before_it_begins =
            matches!((terms.effective_from, terms.expires_at), (Some(start), Some(end)) if end <= start);
        if terms.has_expired(self.changed_at) || ends_before_it_begins {
            return Err(Refusal::OverAlready);
        }
        if terms.source.is_earned() {
            self.total_earned = self.total_earned.plus(amount.mana())?;
        }
        let grant = self.add_to_grant(terms, amount.mana(), effects)?;
        let slices = vec![Change { grant, amount: amount.get() }];
        let draft = Draft { kind, counter, slices, reference: None, hold_id: None, note };
        Ok(self.post(draft, effects, ids)?)
    }

    /// Adds to the live grant of these terms, or makes one.
    fn add_to_grant(&mut self, terms: Terms, amount: Mana, effects: &mut Effects) -> Result<i64, Refusal> {
        if let Some(grant) = self.grants.iter_mut().find(|grant| grant.terms == terms) {
            grant.remaining = grant.remaining.plus(amount)?;
            return Ok(grant.sequence);
        }
        if self.grants.len() >= MAX_GRANTS {
            self.forget_what_is_used_up();
        }
        if self.grants.len() >= MAX_GRANTS {
            return Err(Refusal::TooManyGrants);
        }
        let grant = Grant { sequence: self.sequence.saturating_add(1), terms, remaining: amount };
        effects.new_grants.push(grant.clone());
        let sequence = grant.sequence;
        self.grants.push(grant);
        Ok(sequence)
    }

    /// Takes slices of live grants in burn-down order.
    fn take(&mut self, amount: Mana) -> Result<Vec<Slice>, Refusal> {
        if self.is_closed {
            return Err(Refusal::Closed);
        }
        let now = self.changed_at;
        let available = self.spendable(now)?.available()?;
        let short = Refusal::InsufficientFunds(Shortfall { available, required: amount });
        if amount > available {
            return Err(short);
        }
        self.grants.sort_by_key(Grant::burn_down_rank);
        let mut missing = amount;
        let mut slices = Vec::new();
        for grant in self.grants.iter_mut().filter(|grant| grant.terms.is_live(now)) {
            let slice = missing.min(grant.remaining);
            if slice > Mana::ZERO {
                grant.remaining = grant.remaining.minus(slice)?;
                missing = missing.minus(slice)?;
                if grant.terms.source.is_paid() && self.debt > Mana::ZERO {
                    return Err(Refusal::InDebt);
                }
                slices.push(Slice { grant: grant.sequence, amount: slice });
            }
        }
        if missing == Mana::ZERO { Ok(slices) } else { Err(short) }
    }

    /// Books what was taken as the app's revenue.
    fn charge(
        &mut self,
        slices: &[Slice],
        note: Note,
        hold_id: Option<HoldId>,
        effects: &mut Effects,
        ids: &mut Ids,
    ) -> Result<(), OutOfRange> {
        self.total_spent = self.total_spent.plus(sum(slices)?)?;
        let slices = slices.iter().map(|slice| Change { grant: slice.grant, amount: given(slice.amount) });
        let draft = Draft {
            kind: TransactionKind::Usage,
            counter: Counter::Revenue,
            slices: slices.collect(),
            reference: None,
            hold_id,
            note,
        };
        self.post(draft, effects, ids)
    }

    /// Books what was taken as put right: nobody has earned it, and it is not spent.
    fn correct(
        &mut self,
        slices: &[Slice],
        note: Note,
        effects: &mut Effects,
        ids: &mut Ids,
    ) -> Result<(), OutOfRange> {
        let slices = slices.iter().map(|slice| Change { grant: slice.grant, amount: given(slice.amount) });
        let draft = Draft {
            kind: TransactionKind::Adjustment,
            counter: Counter::Adjustment,
            slices: slices.collect(),
            reference: None,
            hold_id: None,
            note,
        };
        self.post(draft, effects, ids)
    }

    fn hold(
        &mut self,
        id: HoldId,
        charge: &Charge,
        expires_at: OffsetDateTime,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if self.holds.len() >= MAX_HOLDS {
            return Err(Refusal::TooManyHolds);
        }
        if expires_at <= self.changed_at {
            return Err(Refusal::OverAlready);
        }
        let slices = self.take(charge.amount.mana())?;
        let Note { app_id, description, metadata, service_key_id, .. } = charge.note.clone();
        let hold = Hold { id, app_id, slices, expires_at };
        self.holds.push(hold.clone());
        effects.holds.push(HoldChange::Opened {
            hold,
            description,
            metadata,
            service_key_id,
            at: self.changed_at,
        });
        Ok(())
    }

    fn capture(
        &mut self,
        id: HoldId,
        amount: Option<Amount>,
        note: &Note,
        effects: &mut Effects,
        ids: &mut Ids,
    ) -> Result<(), Refusal> {
        if self.is_closed {
            return Err(Refusal::Closed);
        }
        let hold = self.end_hold(id)?;
        let whole = sum(&hold.slices)?;
        let amount = amount.map_or(whole, Amount::mana);
        if amount > whole {
            return Err(Refusal::CaptureExceedsHold);
        }
        let (charged, rest) = split(&hold.slices, amount)?;
        self.put_back(&rest)?;
        self.charge(&charged, note.clone(), Some(id), effects, ids)?;
        let end = HoldEnd::Captured { amount, sequence: self.sequence };
        effects.holds.push(HoldChange::Ended { id, end, at: self.changed_at });
        Ok(self.book_expired_grants(effects, ids)?)
    }

    fn extend(
        &mut self,
        id: HoldId,
        expires_at: OffsetDateTime,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if self.is_closed {
            return Err(Refusal::Closed);
        }
        if expires_at <= self.changed_at {
            return Err(Refusal::OverAlready);
        }
        let hold = self.holds.iter_mut().find(|hold| hold.id == id).ok_or(Refusal::HoldEnded)?;
        hold.expires_at = expires_at;
        effects.holds.push(HoldChange::Extended { id, expires_at });
        Ok(())
    }

    fn end_hold(&mut self, id: HoldId) -> Result<Hold, Refusal> {
        let position = self.holds.iter().position(|hold| hold.id == id).ok_or(Refusal::HoldEnded)?;
        Ok(self.holds.remove(position))
    }

    /// Gives back what a hold took. Its grants are still here: a hold keeps them.
    fn put_back(&mut self, slices: &[Slice]) -> Result<(), OutOfRange> {
        for slice in slices {
            let grant = self.grants.iter_mut().find(|grant| grant.sequence == slice.grant);
            let grant = grant.ok_or(OutOfRange)?;
            grant.remaining = grant.remaining.plus(slice.amount)?;
        }
        Ok(())
    }

    /// Gives back what holds have taken whose time is over, as [`Self::settle`] does, but books nothing: for showing.
    ///
    /// # Errors
    /// When a total leaves its range.
    pub fn release_overdue(&mut self) -> Result<(), OutOfRange> {
        self.release_expired_holds(&mut Effects::default())
    }

    fn release_expired_holds(&mut self, effects: &mut Effects) -> Result<(), OutOfRange> {
        let now = self.changed_at;
        let (over, open) = self.holds.drain(..).partition(|hold| hold.expires_at <= now);
        self.holds = open;
        let over: Vec<Hold> = over;
        for hold in over {
            self.put_back(&hold.slices)?;
            let at = hold.expires_at;
            effects.holds.push(HoldChange::Ended { id: hold.id, end: HoldEnd::Expired, at });
        }
        Ok(())
    }

    fn book_expired_grants(&mut self, effects: &mut Effects, ids: &mut Ids) -> Result<(), OutOfRange> {
        let now = self.changed_at;
        // One by one: each line says what is left after it, and before the next.
        while let Some(grant) =
            self.grants.iter_mut().find(|grant| grant.terms.has_expired(now) && grant.remaining > Mana::ZERO)
        {
            let slice = Slice { grant: grant.sequence, amount: std::mem::take(&mut grant.remaining) };
            let draft = Draft {
                kind: TransactionKind::Expiry,
                counter: Counter::Expired,
                slices: vec![Change { grant: slice.grant, amount: given(slice.amount) }],
                reference: None,
                hold_id: None,
                note: system_note("Expired credits"),
            };
            self.post(draft, effects, ids)?;
        }
        self.forget_what_is_over();
        Ok(())
    }

    /// Drops grants that are used up and that no hold may give back to; none that will be topped up.
    fn forget_what_is_over(&mut self) {
        self.forget_grants(Terms::is_standing);
    }

    /// Drops also those that may be topped up, but for the one that each day tops up.
    fn forget_what_is_used_up(&mut self) {
        self.forget_grants(|terms| *terms == Terms::ALLOWANCE);
    }

    fn forget_grants(&mut self, is_kept: impl Fn(&Terms) -> bool) {
        let holds = &self.holds;
        self.grants.retain(|grant| {
            grant.remaining > Mana::ZERO
                || is_kept(&grant.terms)
                || holds.iter().flat_map(|hold| &hold.slices).any(|slice| slice.grant == grant.sequence)
        });
    }

    /// Gives a change its place in the history.
    fn post(&mut self, draft: Draft, effects: &mut Effects, ids: &mut Ids) -> Result<(), OutOfRange> {
        self.sequence = self.sequence.saturating_add(1);
        let Draft { kind, counter, slices, reference, hold_id, note } = draft;
        let amount = slices.iter().try_fold(0_i64, |sum, slice| sum.checked_add(slice.amount));
        let mut transaction = Transaction {
            id: ids(),
            at: self.changed_at,
            sequence: self.sequence,
            kind,
            amount: amount.ok_or(OutOfRange)?,
            balance_after: self.totals()?.balance()?,
            counter,
            slices,
            reference,
            hold_id,
            note,
            hash: [0; 32],
        };
        let made = effects.new_grants.iter().find(|grant| grant.sequence == transaction.sequence);
        transaction.hash = chain::link(&self.head, self.id, &transaction, made.map(|grant| &grant.terms));
        self.head = transaction.hash;
        effects.transactions.push(transaction);
        Ok(())
    }
}

/// What takes part in a transaction before it has its place in the history.
struct Draft {
    kind: TransactionKind,
    counter: Counter,
    slices: Vec<Change>,
    reference: Option<i64>,
    hold_id: Option<HoldId>,
    note: Note,
}

fn allowance(amount: Amount, description: &str) -> Gift {
    Gift { amount, terms: Terms::ALLOWANCE, note: system_note(description) }
}

fn system_note(description: &str) -> Note {
    Note { app_id: "system".to_owned(), description: description.to_owned(), ..Note::default() }
}

fn sum(slices: &[Slice]) -> Result<Mana, OutOfRange> {
    slices.iter().try_fold(Mana::ZERO, |sum, slice| sum.plus(slice.amount))
}

/// The slices that make up the first `amount`, and those after it. There must be that much.
fn split(slices: &[Slice], amount: Mana) -> Result<(Vec<Slice>, Vec<Slice>), OutOfRange> {
    let mut missing = amount;
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for slice in slices {
        let part = missing.min(slice.amount);
        missing = missing.minus(part)?;
        let left = slice.amount.minus(part)?;
        for (side, amount) in [(&mut first, part), (&mut rest, left)] {
            if amount > Mana::ZERO {
                side.push(Slice { grant: slice.grant, amount });
            }
        }
    }
    if missing == Mana::ZERO { Ok((first, rest)) } else { Err(OutOfRange) }
}

/// What the side that gives `mana` receives. Mana is never negative, so the sign can't overflow.
fn given(mana: Mana) -> i64 {
    0_i64.saturating_sub(mana.get())
}

#[cfg(test)]
pub(super) mod audit;
#[cfg(test)]
mod tests;
