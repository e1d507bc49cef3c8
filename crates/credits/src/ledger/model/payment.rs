//! What a payment does to a wallet: mana is given for it, taken back when the money goes back, and owed when it is gone.

use super::command::{Charge, Gift, Note, Refusal};
use super::grant::{Grant, GrantSource, Terms};
use super::posting::{Change, Counter, Effects, TransactionKind};
use super::{Draft, Ids, Wallet, given};
use mana_kernel::mana::OutOfRange;
use mana_kernel::{Amount, Mana};

/// Brings what the books say of an order to what they should say. Doing it twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// What is to be given for it, if it has not been.
    pub gives: Option<Bought>,
    /// The grant that was given for it, if it was.
    pub grant: Option<(i64, Terms)>,
    /// Taken back so far.
    pub taken: Mana,
    /// Owed so far, because it could not be taken.
    pub owed: Mana,
    /// What belongs back as things stand.
    pub due: Mana,
    /// The part of it that is owed if it can't be taken: what is only disputed is not.
    pub certain: Mana,
    /// What the lines are about.
    pub note: Note,
}

/// Mana for money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bought {
    /// How much.
    pub amount: Amount,
    /// What one of it cost, in millionths of a cent.
    pub cost_micros: i64,
}

/// What the books say of an order now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The order's grant.
    pub grant: i64,
    /// Taken back.
    pub taken: Mana,
    /// Owed.
    pub owed: Mana,
}

impl Wallet {
    pub(super) fn settle_order(
        &mut self,
        order: &Settlement,
        effects: &mut Effects,
        ids: &mut Ids,
    ) -> Result<(), Refusal> {
        let (grant, terms) = match (order.grant, order.gives) {
            (Some(grant), _) => grant,
            (None, Some(bought)) => self.give_bought(bought, &order.note, effects, ids)?,
            (None, None) => return Ok(()),
        };
        let note = |description: &str| Note { description: description.to_owned(), ..order.note.clone() };
        let mut taken = order.taken;
        if order.due > taken {
            let got = self.take_from(grant, order.due.minus(taken)?)?;
            taken = taken.plus(got)?;
            let draft = adjustment(grant, given(got), Counter::Clearing, note("Payment taken back"));
            self.post_unless_empty(draft, effects, ids)?;
        } else if order.due < taken {
            let back = taken.minus(order.due)?;
            taken = order.due;
            self.return_to(grant, terms, back)?;
            let draft = adjustment(grant, back.get(), Counter::Clearing, note("Payment stands again"));
            self.post(draft, effects, ids)?;
        }
        let owed = order.certain.minus(taken).unwrap_or(Mana::ZERO);
        if owed > order.owed {
            self.debt = self.debt.plus(owed.minus(order.owed)?)?;
        } else {
            let forgiven = order.owed.minus(owed)?;
            let unpaid = forgiven.min(self.debt);
            self.debt = self.debt.minus(unpaid)?;
            let repaid = forgiven.minus(unpaid)?;
            if repaid > Mana::ZERO {
                // Another grant paid it, so that the order's own might come to more than it gave.
                let grant = self.add_bought(repaid, terms.cost_micros, effects);
                let draft = adjustment(grant, repaid.get(), Counter::Debt, note("Debt that was none"));
                self.post(draft, effects, ids)?;
            }
        }
        effects.settled.push(Settled { grant, taken, owed });
        Ok(())
    }

    /// Gives what is forgiven and takes it for the debt at once: the lines say who paid it, and nothing is left of it.
    pub(super) fn forgive(
        &mut self,
        Charge { amount, note }: &Charge,
        effects: &mut Effects,
        ids: &mut Ids,
    ) -> Result<(), Refusal> {
        self.debt = self.debt.minus(amount.mana()).map_err(|_| Refusal::ForgivesTooMuch)?;
        let terms = Terms { source: GrantSource::Adjustment, ..Terms::ALLOWANCE };
        self.give(&Gift { amount: *amount, terms, note: note.clone() }, effects, ids)?;
        let given_to = self.grants.iter().find(|grant| grant.terms == terms);
        let grant = given_to.map(|grant| grant.sequence).ok_or(OutOfRange)?;
        let repaid = self.take_from(grant, amount.mana())?;
        let note = Note { description: "Debt paid back".to_owned(), ..note.clone() };
        Ok(self.post(adjustment(grant, given(repaid), Counter::Debt, note), effects, ids)?)
    }

    /// Each order has a grant of its own, however many there are: the mana is paid for.
    fn give_bought(
        &mut self,
        bought: Bought,
        note: &Note,
        effects: &mut Effects,
        ids: &mut Ids,
    ) -> Result<(i64, Terms), Refusal> {
        if self.is_closed {
            return Err(Refusal::Closed);
        }
        let sequence = self.add_bought(bought.amount.mana(), bought.cost_micros, effects);
        self.total_earned = self.total_earned.plus(bought.amount.mana())?;
        let draft = Draft {
            kind: TransactionKind::Purchase,
            counter: Counter::Clearing,
            slices: vec![Change { grant: sequence, amount: bought.amount.get() }],
            reference: None,
            hold_id: None,
            note: note.clone(),
        };
        self.post(draft, effects, ids)?;
        let repaid = self.take_from(sequence, self.debt)?;
        self.debt = self.debt.minus(repaid)?;
        let note = Note { description: "Debt paid back".to_owned(), ..note.clone() };
        self.post_unless_empty(adjustment(sequence, given(repaid), Counter::Debt, note), effects, ids)?;
        Ok((sequence, self.bought_terms(bought.cost_micros)))
    }

    /// Such a grant begins now, so that it is no standing one: it goes when it is used up.
    fn bought_terms(&self, cost_micros: i64) -> Terms {
        Terms {
            source: GrantSource::Purchase,
            priority: GrantSource::Purchase.priority(),
            cost_micros,
            effective_from: Some(self.changed_at),
            expires_at: None,
        }
    }

    /// A grant for the next line to name.
    fn add_bought(&mut self, amount: Mana, cost_micros: i64, effects: &mut Effects) -> i64 {
        let sequence = self.sequence.saturating_add(1);
        let grant = Grant { sequence, terms: self.bought_terms(cost_micros), remaining: amount };
        effects.new_grants.push(grant.clone());
        self.grants.push(grant);
        sequence
    }

    /// Takes what is there, `amount` at most.
    fn take_from(&mut self, grant: i64, amount: Mana) -> Result<Mana, OutOfRange> {
        let Some(grant) = self.grants.iter_mut().find(|kept| kept.sequence == grant) else {
            return Ok(Mana::ZERO);
        };
        let got = amount.min(grant.remaining);
        grant.remaining = grant.remaining.minus(got)?;
        Ok(got)
    }

    fn return_to(&mut self, grant: i64, terms: Terms, amount: Mana) -> Result<(), OutOfRange> {
        match self.grants.iter_mut().find(|kept| kept.sequence == grant) {
            Some(kept) => kept.remaining = kept.remaining.plus(amount)?,
            None => self.grants.push(Grant { sequence: grant, terms, remaining: amount }),
        }
        Ok(())
    }

    fn post_unless_empty(
        &mut self,
        draft: Draft,
        effects: &mut Effects,
        ids: &mut Ids,
    ) -> Result<(), OutOfRange> {
        if draft.slices.iter().all(|slice| slice.amount == 0) {
            return Ok(());
        }
        self.post(draft, effects, ids)
    }
}

fn adjustment(grant: i64, amount: i64, counter: Counter, note: Note) -> Draft {
    Draft {
        kind: TransactionKind::Adjustment,
        counter,
        slices: vec![Change { grant, amount }],
        reference: None,
        hold_id: None,
        note,
    }
}

#[cfg(test)]
mod tests;
