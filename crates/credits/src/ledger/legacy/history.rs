//! A history of the older service, lived again: what happens here does no I/O.
//!
//! A line becomes the command that it once was. Where the wallet has not what a line takes, an adjustment gives it first: the older
//! service changed its totals in ways that it wrote no line of. At the end the wallet is brought to what it had.

use super::answer::answers;
use super::model::{OldBalance, OldLine, OldOrder};
use super::order::cost_micros;
use crate::ledger::batch::Outcome;
use crate::ledger::model::{
    Bought, BroughtAs, Charge, Command, Effects, Gift, GrantSource, Note, RecalledSpend, Settlement, Slice,
    Terms, Transaction, TransactionKind, Wallet,
};
use crate::ledger::record::{AnswerRecord, UsageSums};
use mana_kernel::{Amount, Mana, TransactionId, UserId};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, VecDeque};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

/// Spends that a refund may be about: the latest so many.
const RECALLED: usize = 1000;
/// What is told of one wallet at most.
const MOST_NOTES: usize = 20;
/// Members of metadata by which a refund may name its spend.
const NAMES_OF_SPENDS: [&str; 4] =
    ["transactionId", "originalTransactionId", "refundedTransactionId", "refundOf"];

/// Paid mana, on which nothing of a payment depends.
const PAID: Terms = Terms {
    source: GrantSource::Purchase,
    priority: 20,
    cost_micros: 0,
    effective_from: None,
    expires_at: None,
};

/// A wallet on its way here.
#[derive(Debug)]
pub(super) struct History {
    pub(super) wallet: Wallet,
    user: UserId,
    now: OffsetDateTime,
    /// Paid, and no line of them has come yet.
    orders: BTreeMap<String, OldOrder>,
    /// Orders with the grant that was given for each.
    pub(super) credited: HashMap<String, i64>,
    spends: VecDeque<Spend>,
    terms: HashMap<i64, Terms>,
    has_bonus: bool,
    last_daily: Option<Date>,
    pub(super) usage: BTreeMap<(Date, String), UsageSums>,
    pub(super) counts: Counts,
    /// What is not as it was.
    pub(super) notes: Vec<String>,
}

/// A spend that a refund may be about.
#[derive(Debug)]
struct Spend {
    id: String,
    app: String,
    amount: i64,
    recalled: RecalledSpend,
}

/// What became of lines.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// As they were.
    pub(super) lines: u64,
    /// Never happened, or changed nothing.
    pub(super) skipped: u64,
    /// Of another type than they were.
    pub(super) retyped: u64,
    /// Put in because the history did not add up.
    pub(super) adjustments: u64,
}

/// What a line came to.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) effects: Effects,
    pub(super) answers: Vec<AnswerRecord>,
}

/// Where new ids come from.
pub(super) type Fresh<'a> = dyn FnMut() -> TransactionId + Send + 'a;

impl History {
    /// A wallet before its first line.
    pub(super) fn new(wallet: Wallet, user: UserId, now: OffsetDateTime, orders: &[OldOrder]) -> Self {
        let paid = orders.iter().filter(|order| order.is_paid());
        Self {
            wallet,
            user,
            now,
            orders: paid.map(|order| (order.id.clone(), order.clone())).collect(),
            credited: HashMap::new(),
            spends: VecDeque::new(),
            terms: HashMap::new(),
            has_bonus: false,
            last_daily: None,
            usage: BTreeMap::new(),
            counts: Counts::default(),
            notes: Vec::new(),
        }
    }

    /// The next line. A sentence where it can't be taken, and the wallet with it.
    pub(super) fn line(&mut self, line: &OldLine, fresh: &mut Fresh<'_>) -> Result<Step, String> {
        if !line.has_happened() || line.amount == 0 {
            self.counts.skipped = self.counts.skipped.saturating_add(1);
            return Ok(Step::default());
        }
        let size = line.amount.checked_abs().and_then(|size| Amount::try_from(size).ok());
        let size = size.ok_or_else(|| format!("transaction {} has an amount of {}", line.id, line.amount))?;
        self.wallet.advance_to(line.created_at.unwrap_or(self.wallet.changed_at).min(self.now));
        if line.created_at.is_some_and(|at| at > self.now) {
            self.note(format!(
                "transaction {} is of the future, and was put at the time of the import",
                line.id
            ));
        }
        let mut step = Step::default();
        let id = self.id_of(line);
        let mut note = Note {
            app_id: line.app(),
            description: line.text(),
            metadata: None,
            idempotency_key: line.key().map(String::from),
            service_key_id: None,
        };
        let mut members = line.members();
        if Uuid::try_parse(&line.id).is_err() {
            members.insert("legacyId".to_owned(), line.id.as_str().into());
        }
        let is_giving = line.amount > 0;
        let order = self.order_of(line, &members).filter(|_| is_giving && line.kind == "purchase");
        if order.is_none()
            && let Some(named) = members.remove("purchaseId")
        {
            members.insert("legacyPurchaseId".to_owned(), named);
        }
        if !is_giving {
            self.make_room(size, fresh, &mut step.effects)?;
        }
        let (kind, command) = match (line.kind.as_str(), is_giving, order) {
            ("purchase", true, Some(order)) => {
                members.insert("purchaseId".to_owned(), order.id.as_str().into());
                (TransactionKind::Purchase, Planned::Settle(cost_micros(&order)))
            }
            ("purchase", true, None) => (
                TransactionKind::Purchase,
                Planned::Bring(BroughtAs::Purchase, Terms { cost_micros: 1_000_000, ..PAID }),
            ),
            ("bonus", true, _) if note.app_id == "system" => {
                note.description = self.description_of_bonus(line, note.description);
                (TransactionKind::Bonus, Planned::Bring(BroughtAs::Bonus, Terms::ALLOWANCE))
            }
            ("bonus" | "gift" | "gift_receive" | "gift_release", true, _) => {
                (TransactionKind::Bonus, Planned::Bring(BroughtAs::Bonus, PAID))
            }
            ("refund", true, _) => match self.recall(line, &note.app_id, size) {
                Some(spend) => (TransactionKind::Refund, Planned::Refund(spend)),
                None => (TransactionKind::Adjustment, Planned::Bring(BroughtAs::Adjustment, PAID)),
            },
            ("usage", false, _) => (TransactionKind::Usage, Planned::Spend),
            (_, true, _) => (TransactionKind::Adjustment, Planned::Bring(BroughtAs::Adjustment, PAID)),
            (_, false, _) => (TransactionKind::Adjustment, Planned::Take),
        };
        if kind.as_str() != line.kind {
            members.insert("legacyType".to_owned(), line.kind.as_str().into());
            self.counts.retyped = self.counts.retyped.saturating_add(1);
        }
        note.metadata = written(&members);
        let before = self.wallet.clone();
        let command = planned(command, size, note);
        let done =
            self.apply(&command, &mut || id).map_err(|error| format!("transaction {}: {error}", line.id))?;
        if let Command::Settle(_) = command
            && let (Some(settled), Some(Value::String(order))) =
                (done.settled.first(), members.get("purchaseId"))
        {
            self.credited.insert(order.clone(), settled.grant);
            self.orders.remove(order);
        }
        self.after(line, &done);
        if kind == TransactionKind::Usage {
            let outcome = Outcome { user: &self.user, wallet: &self.wallet, before: &before, effects: &done };
            step.answers = answers(line, &outcome, self.now).unwrap_or_default();
        }
        self.counts.lines = self.counts.lines.saturating_add(1);
        step.effects.append(done);
        Ok(step)
    }

    /// Brings the wallet to what it had.
    pub(super) fn finish(
        &mut self,
        balance: Option<&OldBalance>,
        fresh: &mut Fresh<'_>,
    ) -> Result<Effects, String> {
        let mut effects = Effects::default();
        let mut orders: Vec<OldOrder> = std::mem::take(&mut self.orders).into_values().collect();
        orders.sort_by_key(|order| order.completed_at);
        for order in orders {
            self.note(format!("purchase {} was paid, and no line gave its mana: it has one now", order.id));
            self.wallet.advance_to(order.completed_at.unwrap_or(self.now).min(self.now));
            let id = order.id.clone();
            let members = Map::from_iter([("purchaseId".to_owned(), Value::String(id.clone()))]);
            let note = Note {
                app_id: "system".to_owned(),
                description: format!("Credit purchase: {} credits", order.credits),
                metadata: written(&members),
                ..Note::default()
            };
            let amount =
                Amount::try_from(order.credits).map_err(|error| format!("purchase {id}: credits {error}"))?;
            let command = planned(Planned::Settle(cost_micros(&order)), amount, note);
            let done = self.apply(&command, fresh)?;
            if let Some(settled) = done.settled.first() {
                self.credited.insert(id, settled.grant);
            }
            effects.append(done);
        }
        let (free, paid) = self.wanted(balance)?;
        self.put_right(free, paid, fresh, &mut effects)?;
        if let Some(day) = balance.and_then(|balance| balance.daily_day).max(self.last_daily) {
            self.wallet.daily_granted_on = day;
        }
        Ok(effects)
    }

    /// Free and paid mana that the wallet must come to.
    fn wanted(&self, balance: Option<&OldBalance>) -> Result<(Mana, Mana), String> {
        let Some(balance) = balance else { return Ok((Mana::ZERO, Mana::ZERO)) };
        let mana = |value: i64| {
            let refusal =
                || format!("a balance of {value} is no mana: put it right in the older database first");
            Mana::new(value).ok_or_else(refusal)
        };
        let all = mana(balance.balance)?;
        if let Some(free) = balance.free_credits_remaining {
            return Ok((mana(free)?, all));
        }
        // Versions that told nothing apart: what was given for free stays free.
        let (free, paid) = self.totals()?;
        let too_much = free.plus(paid).ok().and_then(|now| now.minus(all).ok()).unwrap_or_default();
        let free = free.minus(too_much).unwrap_or_default().min(all);
        Ok((free, all.minus(free).unwrap_or_default()))
    }

    /// Makes up for what no line says. What is taken is free first, so that some of it may have to be given back.
    fn put_right(
        &mut self,
        free: Mana,
        paid: Mana,
        fresh: &mut Fresh<'_>,
        effects: &mut Effects,
    ) -> Result<(), String> {
        let (free_now, paid_now) = self.totals()?;
        let sentence =
            |what: &str, by: Mana| format!("{what}: the older history did not add up by {}", by.get());
        let excess = match paid_now.minus(paid) {
            Ok(excess) if excess > Mana::ZERO => free_now.plus(excess).map_err(|error| error.to_string())?,
            _ => free_now.minus(free).unwrap_or_default(),
        };
        self.adjust(Planned::Take, excess, sentence("Balance put right", excess), fresh, effects)?;
        let (free_now, paid_now) = self.totals()?;
        for (wanted, now, terms) in [(free, free_now, Terms::ALLOWANCE), (paid, paid_now, PAID)] {
            let missing = wanted.minus(now).unwrap_or_default();
            let plan = Planned::Bring(BroughtAs::Adjustment, terms);
            self.adjust(plan, missing, sentence("Balance put right", missing), fresh, effects)?;
        }
        Ok(())
    }

    /// Gives what a line is about to take, and the wallet has not.
    fn make_room(
        &mut self,
        size: Amount,
        fresh: &mut Fresh<'_>,
        effects: &mut Effects,
    ) -> Result<(), String> {
        let (free, paid) = self.totals()?;
        let all = free.plus(paid).map_err(|error| error.to_string())?;
        let missing = size.mana().minus(all).unwrap_or_default();
        let sentence = "Opening balance: the older history took more than it had given";
        let plan = Planned::Bring(BroughtAs::Adjustment, Terms::ALLOWANCE);
        self.adjust(plan, missing, sentence.to_owned(), fresh, effects)
    }

    fn adjust(
        &mut self,
        plan: Planned,
        by: Mana,
        description: String,
        fresh: &mut Fresh<'_>,
        effects: &mut Effects,
    ) -> Result<(), String> {
        let Ok(amount) = Amount::try_from(by.get()) else { return Ok(()) };
        let members = Map::from_iter([("legacyType".to_owned(), Value::from("none: import"))]);
        let note =
            Note { app_id: "system".to_owned(), description, metadata: written(&members), ..Note::default() };
        self.note(format!("{} mana by an adjustment: {}", by.get(), note.description));
        effects.append(self.apply(&planned(plan, amount, note), fresh)?);
        self.counts.adjustments = self.counts.adjustments.saturating_add(1);
        Ok(())
    }

    fn apply(&mut self, command: &Command, ids: &mut Fresh<'_>) -> Result<Effects, String> {
        let done = self.wallet.apply(command, &mut || ids()).map_err(|refusal| refusal.to_string())?;
        self.terms.extend(done.new_grants.iter().map(|grant| (grant.sequence, grant.terms)));
        Ok(done)
    }

    fn id_of(&self, line: &OldLine) -> TransactionId {
        let made = || {
            let digest =
                mana_kernel::secret::sha256(format!("{}\n{}", self.user.as_str(), line.id).as_bytes());
            uuid::Builder::from_custom_bytes(digest.first_chunk().copied().unwrap_or_default()).into_uuid()
        };
        TransactionId(Uuid::try_parse(&line.id).unwrap_or_else(|_| made()))
    }

    /// The order that a line gave the mana of.
    fn order_of(&self, line: &OldLine, members: &Map<String, Value>) -> Option<OldOrder> {
        let named = |name: &str| members.get(name).and_then(Value::as_str);
        let by_key = line.idempotency_key.as_deref().and_then(|key| key.strip_prefix("purchase:"));
        let payment = named("stripePaymentIntentId").or(by_key);
        let is_named = |order: &&OldOrder| {
            Some(order.id.as_str()) == named("purchaseId")
                || payment.is_some() && order.stripe_payment_intent_id.as_deref() == payment
        };
        self.orders.values().find(is_named).filter(|order| order.credits == line.amount).cloned()
    }

    /// The spend that a refund gives back: the one it names, else the latest of the app that took as much, else the latest that
    /// took enough. It is recalled in the wallet then.
    fn recall(&mut self, line: &OldLine, app: &str, amount: Amount) -> Option<i64> {
        let rest = |spend: &Spend| spend.amount.saturating_sub(spend.recalled.refunded.get());
        let named = |spend: &&Spend| {
            let member = |name: &str| line.metadata.as_ref()?.get(name)?.as_str();
            NAMES_OF_SPENDS.iter().filter_map(|name| member(name)).any(|id| id == spend.id)
        };
        let of_app =
            || self.spends.iter().rev().filter(|spend| spend.app == app && rest(spend) >= amount.get());
        let exact = |spend: &&Spend| spend.amount == amount.get() && spend.recalled.refunded == Mana::ZERO;
        let by_name = self.spends.iter().find(named).filter(|spend| rest(spend) >= amount.get());
        let found = by_name.or_else(|| of_app().find(exact)).or_else(|| of_app().next())?;
        self.wallet.recalled = vec![found.recalled.clone()];
        Some(found.recalled.sequence)
    }

    /// Notes what later lines may be about, and what the statistics must say.
    fn after(&mut self, line: &OldLine, done: &Effects) {
        for spend in std::mem::take(&mut self.wallet.recalled) {
            if let Some(known) =
                self.spends.iter_mut().find(|known| known.recalled.sequence == spend.sequence)
            {
                known.recalled = spend;
            }
        }
        for posted in &done.transactions {
            self.count(line, posted);
            if posted.kind == TransactionKind::Usage {
                self.remember(line, posted);
            }
        }
    }

    fn count(&mut self, line: &OldLine, posted: &Transaction) {
        let (spends, spent, refunded) = match posted.kind {
            TransactionKind::Usage => (1, 0_i64.saturating_sub(posted.amount), 0),
            TransactionKind::Refund => (0, 0, posted.amount),
            TransactionKind::Purchase
            | TransactionKind::Bonus
            | TransactionKind::Expiry
            | TransactionKind::Adjustment => return,
        };
        let day = line.day.unwrap_or_else(|| posted.at.date());
        let sums = self.usage.entry((day, posted.note.app_id.clone())).or_default();
        sums.spends = sums.spends.saturating_add(spends);
        sums.spent = sums.spent.saturating_add(spent);
        sums.refunded = sums.refunded.saturating_add(refunded);
    }

    fn remember(&mut self, line: &OldLine, posted: &Transaction) {
        let taken = |amount: i64| Mana::new(0_i64.saturating_sub(amount)).unwrap_or_default();
        let slices =
            posted.slices.iter().map(|change| Slice { grant: change.grant, amount: taken(change.amount) });
        let terms =
            posted.slices.iter().filter_map(|change| Some((change.grant, *self.terms.get(&change.grant)?)));
        let recalled = RecalledSpend {
            sequence: posted.sequence,
            app_id: posted.note.app_id.clone(),
            slices: slices.collect(),
            refunded: Mana::ZERO,
            terms: terms.collect(),
        };
        if self.spends.len() >= RECALLED {
            self.spends.pop_front();
        }
        let (id, app, amount) = (line.id.clone(), posted.note.app_id.clone(), taken(posted.amount).get());
        self.spends.push_back(Spend { id, app, amount, recalled });
    }

    /// What a bonus says. Of a second one of a day, or at sign-up, the older service knew nothing; here it must not pass for the first.
    fn description_of_bonus(&mut self, line: &OldLine, description: String) -> String {
        let is_again = match description.as_str() {
            "Signup bonus" => std::mem::replace(&mut self.has_bonus, true),
            "Daily free credits" => {
                let days = line.earliest_day.zip(line.latest_day);
                match days.filter(|_| line.created_at == Some(self.wallet.changed_at)) {
                    None => true,
                    Some((earliest, latest)) => {
                        let day = self.last_daily.and_then(Date::next_day).unwrap_or(earliest).max(earliest);
                        if day <= latest {
                            self.last_daily = Some(day);
                        }
                        day > latest
                    }
                }
            }
            _ => false,
        };
        if is_again { format!("{description}, once more") } else { description }
    }

    /// Free and paid mana.
    fn totals(&self) -> Result<(Mana, Mana), String> {
        let totals = self.wallet.totals().map_err(|error| error.to_string())?;
        Ok((totals.free, totals.paid))
    }

    fn note(&mut self, sentence: String) {
        if self.notes.len() < MOST_NOTES {
            self.notes.push(sentence);
        }
    }
}

/// What a line will do.
#[derive(Debug, Clone, Copy)]
enum Planned {
    /// For money: what one mana cost, in millionths of a cent.
    Settle(i64),
    Bring(BroughtAs, Terms),
    Refund(i64),
    Spend,
    Take,
}

fn planned(plan: Planned, amount: Amount, note: Note) -> Command {
    match plan {
        Planned::Settle(cost_micros) => Command::Settle(Settlement {
            gives: Some(Bought { amount, cost_micros }),
            grant: None,
            taken: Mana::ZERO,
            owed: Mana::ZERO,
            due: Mana::ZERO,
            certain: Mana::ZERO,
            note,
        }),
        Planned::Bring(kind, terms) => Command::Bring { kind, gift: Gift { amount, terms, note } },
        Planned::Refund(spend) => {
            Command::Refund { spend, amount: Some(amount), revives_expired: false, note }
        }
        Planned::Spend => Command::Spend(Charge { amount, note }),
        Planned::Take => Command::Take(Charge { amount, note }),
    }
}

fn written(members: &Map<String, Value>) -> Option<String> {
    if members.is_empty() { None } else { serde_json::to_string(members).ok() }
}

#[cfg(test)]
mod tests;
