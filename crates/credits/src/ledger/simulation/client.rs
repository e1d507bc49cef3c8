//! What clients want, and what they hear.

use super::*;
use crate::idempotency::RequestKey;
use crate::ledger::batch;
use crate::ledger::model::HoldChange;
use crate::ledger::model::{
    Charge, Counter, Gift, Note, Terms, Transaction, TransactionKind, posting::Effects,
};
use http::StatusCode;
use mana_kernel::{Amount, RequestId};
use serde_json::{Value, json};

/// What a client wants once, however often it asks.
#[derive(Debug)]
pub(super) struct Intent {
    pub(super) user: UserId,
    actor: Actor,
    pub(super) key: Option<RequestKey>,
    if_version: Option<i64>,
    pub(super) is_dry_run: bool,
    command: Option<Command>,
    hold_for: Duration,
    /// What it is about at most.
    pub(super) amount: i64,
    pub(super) outcome: Option<Outcome>,
}

/// What the client knows in the end.
#[derive(Debug)]
pub(super) enum Outcome {
    Answer(Answer),
    Error(LedgerError),
}

impl Intent {
    /// Without a key nobody can know whether to ask again.
    pub(super) fn may_try_again(&self) -> bool {
        self.outcome.is_none() && self.key.is_some()
    }

    /// An order for it, as a handler writes one for each request.
    pub(super) fn order(&self, new_hold: HoldId, now: OffsetDateTime, request: &str) -> Order {
        let mut command = self.command.clone();
        if let Some(Command::Hold { id, .. }) = &mut command {
            *id = new_hold;
        }
        if let Some(Command::Hold { expires_at, .. } | Command::Extend { expires_at, .. }) = &mut command {
            *expires_at = now + self.hold_for;
        }
        Order {
            user: self.user.clone(),
            actor: self.actor.clone(),
            key: self.key.clone(),
            if_version: self.if_version,
            request: request.parse::<RequestId>().unwrap(),
            command,
            is_dry_run: self.is_dry_run,
            render,
        }
    }

    pub(super) fn hear(&mut self, answer: Result<Answer, LedgerError>) {
        match (answer, &self.outcome) {
            (Ok(answer), Some(Outcome::Answer(known))) => {
                assert_eq!(bytes(&answer), bytes(known), "17: one key, two answers");
            }
            (Ok(answer), _) => self.outcome = Some(Outcome::Answer(answer)),
            (Err(LedgerError::Unavailable), _) => (),
            (Err(error), Some(Outcome::Answer(_))) => {
                let may_be_late = matches!(error, LedgerError::SessionEnded | LedgerError::UserDisabled);
                assert!(may_be_late, "17: an answer, and then {error:?}");
            }
            (Err(error), _) => self.outcome = Some(Outcome::Error(error)),
        }
    }
}

/// An answer in which everything stands that a client wants to know.
fn render(outcome: &batch::Outcome<'_>) -> Result<Answer, serde_json::Error> {
    let Effects { transactions, holds, .. } = outcome.effects;
    // What is forgiven is paid back at once; that is the other half of it.
    let is_own = |line: &&Transaction| line.kind != TransactionKind::Expiry && line.counter != Counter::Debt;
    let own = || transactions.iter().filter(is_own);
    let opened = holds.iter().find_map(|change| match change {
        HoldChange::Opened { hold, .. } => Some(hold),
        HoldChange::Extended { .. } | HoldChange::Ended { .. } => None,
    });
    let held = opened.map_or(0, |hold| hold.slices.iter().map(|slice| slice.amount.get()).sum::<i64>());
    Answer::json(
        StatusCode::CREATED,
        &json!({
            "amount": own().map(|line| line.amount.abs()).sum::<i64>() + held,
            "line": own().next().map(|line| line.id.0),
            "hold": opened.map(|hold| hold.id.0),
            "version": outcome.wallet.version,
        }),
    )
}

pub(super) fn bytes(answer: &Answer) -> (i16, &str) {
    (answer.status_number(), answer.body())
}

/// What an answer says was moved; nothing if it refuses.
pub(super) fn amount(answer: &Answer) -> i64 {
    let body: Value = serde_json::from_str(answer.body()).unwrap();
    body["amount"].as_i64().unwrap_or(0)
}

pub(super) fn description(number: usize) -> String {
    format!("intent {number}")
}

/// Something to want, of what there is.
pub(super) fn intend(world: &mut World) -> Intent {
    let place = world.below(USERS);
    let user = user(place);
    let number = world.intents.len();
    let note = Note { app_id: "app".to_owned(), description: description(number), ..Note::default() };
    let some = i64::try_from(1 + world.below(30)).unwrap();
    // Whoever spends all has spent what was paid for, and owes it when the money goes back.
    let coins = if world.is_one_in(4) { world.database.available(&user).clamp(1, 200) } else { some };
    let amount = Amount::try_from(coins).unwrap();
    let part = (!world.is_one_in(3)).then_some(amount);
    let hold_for = Duration::seconds([5, 1_000, 20_000, 60_000][world.below(4)]);
    let (expires_at, charge) = (world.now, Charge { amount, note: note.clone() });
    let hold = pick(world, &user, Database::holds);
    let spend = pick(world, &user, Database::spends);
    let debt = world.database.debt(&user);
    let command = match (world.below(20), hold, spend) {
        (0..5, ..) => Some(Command::Spend(charge)),
        (3..6 | 14..17, ..) if debt > 0 => {
            let amount = if world.is_one_in(2) { Amount::try_from(debt).unwrap() } else { amount };
            Some(Command::Forgive(Charge { amount, note }))
        }
        (5, ..) => Some(Command::Take(charge)),
        (6..10, ..) | (10..14, None, _) => {
            Some(Command::Hold { id: HoldId(Uuid::nil()), charge, expires_at })
        }
        (10 | 11, Some(id), _) => Some(Command::Capture { id, amount: part, note }),
        (12, Some(id), _) => Some(Command::Release { id }),
        (13, Some(id), _) => Some(Command::Extend { id, expires_at }),
        (14..16, _, Some(_)) if world.is_one_in(3) => {
            Some(Command::RefundNewest { amount, revives_expired: world.is_one_in(2), note })
        }
        (14..16, _, Some(spend)) => {
            Some(Command::Refund { spend, amount: part, revives_expired: world.is_one_in(2), note })
        }
        (14..19, ..) => {
            let amount = Amount::try_from(some * 2).unwrap();
            Some(Command::Give(Gift { amount, terms: terms(world), note }))
        }
        _ => None,
    };
    let caller = Caller { user_id: user.clone(), session_id: session(place) };
    let actor = if world.is_one_in(3) { Actor::Session(caller) } else { Actor::Service(KEY.to_owned()) };
    let is_spend = matches!(command, Some(Command::Spend(_)));
    let is_dry_run = is_spend && world.is_one_in(10);
    let is_unnamed = is_dry_run || command.is_none() || (is_spend && world.is_one_in(10));
    let name = if number > 0 && world.is_one_in(15) { world.below(number) } else { number };
    let key = format!("key {name}").try_into().unwrap();
    let key = RequestKey::new("app", &key, "simulation", &number).unwrap();
    let version = world.database.version(&user);
    Intent {
        user,
        actor,
        key: (!is_unnamed).then_some(key),
        if_version: world.is_one_in(12).then_some(version),
        is_dry_run,
        command,
        hold_for,
        amount: coins,
        outcome: None,
    }
}

fn pick<Value: Copy>(
    world: &mut World,
    user: &UserId,
    of: impl Fn(&Database, &UserId) -> Vec<Value>,
) -> Option<Value> {
    let known = of(&world.database, user);
    // Of the last few, so that clients meet there.
    let place = world.below(known.len().clamp(1, 4));
    known.iter().rev().nth(place).copied()
}

fn terms(world: &mut World) -> Terms {
    let source = [GrantSource::Promotion, GrantSource::Adjustment, GrantSource::Purchase][world.below(3)];
    let hours = i64::try_from(world.below(40)).unwrap() - 1;
    Terms {
        source,
        priority: source.priority(),
        cost_micros: i64::try_from(world.below(2)).unwrap(),
        effective_from: world.is_one_in(4).then_some(world.now + Duration::hours(1)),
        expires_at: (!world.is_one_in(3)).then_some(world.now.truncate_to_hour() + Duration::hours(hours)),
    }
}
