//! How a spend is given back.

use super::command::{Note, Refusal};
use super::grant::{Grant, Terms};
use super::hold::Slice;
use super::posting::{Change, Counter, Effects, TransactionKind};
use super::{Draft, Ids, Wallet, split, sum};
use mana_kernel::{Mana, mana::OutOfRange};

/// Spends that a refund which names none is taken from at most.
pub const MAX_REFUNDED_SPENDS: usize = 100;

/// A spend as far as a refund needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecalledSpend {
    /// Its sequence.
    pub sequence: i64,
    /// The app that charged.
    pub app_id: String,
    /// What it took from which grant, in burn-down order.
    pub slices: Vec<Slice>,
    /// What was given back of it already.
    pub refunded: Mana,
    /// What the grants are that it took from: they may have been used up since.
    pub terms: Vec<(i64, Terms)>,
}

impl RecalledSpend {
    /// What was not given back yet.
    ///
    /// # Errors
    /// When that is no amount of mana.
    pub fn rest(&self) -> Result<Mana, OutOfRange> {
        sum(&self.slices)?.minus(self.refunded)
    }
}

impl Wallet {
    /// What a refund is taken from that names no spend, and how much of each: the app's newest of which that much is left; if none is,
    /// the newest of all, one after the other.
    pub(super) fn newest_spends(&self, app_id: &str, amount: Mana) -> Result<Vec<(i64, Mana)>, Refusal> {
        let of_app = self.recalled.iter().filter(|spend| spend.app_id == app_id);
        let mut open = of_app
            .map(|spend| Ok((spend.sequence, spend.rest()?)))
            .filter(|spend| !matches!(spend, Ok((_, Mana::ZERO))))
            .collect::<Result<Vec<_>, OutOfRange>>()?;
        open.sort_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
        if let Some((spend, _)) = open.iter().find(|(_, rest)| *rest >= amount) {
            return Ok(vec![(*spend, amount)]);
        }
        let mut missing = amount;
        let mut chosen = Vec::new();
        for (spend, rest) in open.into_iter().take(MAX_REFUNDED_SPENDS) {
            let part = missing.min(rest);
            missing = missing.minus(part)?;
            chosen.push((spend, part));
            if missing == Mana::ZERO {
                return Ok(chosen);
            }
        }
        Err(Refusal::NoSuchSpend)
    }

    /// Gives a spend's slices back, the last taken first. What belongs to a grant whose time is over goes back to it, for whoever calls to
    /// book as expired, unless it is to be revived.
    pub(super) fn refund(
        &mut self,
        sequence: i64,
        amount: Option<Mana>,
        revives_expired: bool,
        note: &Note,
        effects: &mut Effects,
        ids: &mut Ids,
    ) -> Result<(), Refusal> {
        let now = self.changed_at;
        let position = self.recalled.iter().position(|spend| spend.sequence == sequence);
        let Some(spend) = position.and_then(|position| self.recalled.get(position)).cloned() else {
            return Err(Refusal::NoSuchSpend);
        };
        let rest = spend.rest()?;
        let amount = amount.unwrap_or(rest);
        if amount > rest || amount == Mana::ZERO {
            return Err(Refusal::RefundExceedsSpend);
        }
        let reversed: Vec<Slice> = spend.slices.iter().rev().copied().collect();
        let (_, open) = split(&reversed, spend.refunded)?;
        let (returned, _) = split(&open, amount)?;
        let draft = |slices| Draft {
            kind: TransactionKind::Refund,
            counter: Counter::Revenue,
            slices,
            reference: Some(sequence),
            hold_id: None,
            note: note.clone(),
        };
        let mut changes = Vec::with_capacity(returned.len());
        for slice in returned {
            let terms = spend.terms.iter().find(|(grant, _)| *grant == slice.grant).map(|(_, terms)| *terms);
            let terms = terms.ok_or(Refusal::NoSuchSpend)?;
            let grant = if revives_expired && terms.has_expired(now) {
                let revived = Terms { effective_from: None, expires_at: None, ..terms };
                // A grant is named after the line that first gave it, so that no line makes two.
                let is_made = self.grants.iter().any(|grant| grant.sequence > self.sequence);
                if is_made && !self.grants.iter().any(|grant| grant.terms == revived) {
                    self.post(draft(std::mem::take(&mut changes)), effects, ids)?;
                }
                self.add_to_grant(revived, slice.amount, effects)?
            } else {
                self.return_to_grant(slice, terms)?;
                slice.grant
            };
            changes.push(Change { grant, amount: slice.amount.get() });
        }
        self.total_spent = self.total_spent.minus(amount)?;
        if let Some(spend) = position.and_then(|position| self.recalled.get_mut(position)) {
            spend.refunded = spend.refunded.plus(amount)?;
        }
        Ok(self.post(draft(changes), effects, ids)?)
    }

    fn return_to_grant(&mut self, slice: Slice, terms: Terms) -> Result<(), OutOfRange> {
        match self.grants.iter_mut().find(|grant| grant.sequence == slice.grant) {
            Some(grant) => grant.remaining = grant.remaining.plus(slice.amount)?,
            None => {
                self.grants.push(Grant { sequence: slice.grant, terms, remaining: slice.amount });
            }
        }
        Ok(())
    }
}
