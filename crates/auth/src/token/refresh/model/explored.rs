//! Every reachable state of the refresh protocol, with an owner of two tabs, a thief, a network that loses and delays, a
//! server that dies between commit and answer, sign-out, expiry and a clock that steps.
//!
//! The rules explored are those the service runs: [`ChainState::present`] and `rotated`; what `confirmed` says is one SQL statement
//! there (`update_confirmed`), which a story compares. Time is counted in
//! ticks. What is assumed of an honest client is written where it is: in [`Protocol::owner_actions`].

#![expect(clippy::arithmetic_side_effects, reason = "numbers of a bounded world")]

use super::{ChainState, Verdict};
use stateright::{Checker as _, Model, Property};
use std::collections::BTreeSet;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const EPOCH: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
/// Grace window in ticks.
const GRACE: i64 = 2;
/// Ticks that a request and its answer are under way at most: less than the window.
const IN_FLIGHT: i64 = 1;
/// Ticks an unused chain lives.
const IDLE: i64 = 3;
const LAST_GENERATION: i64 = 3;

/// Which parts of the world take part.
#[derive(Debug, Clone, Copy)]
struct Protocol {
    has_thief: bool,
    signs_out: bool,
    clock_steps: bool,
    last_tick: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Party {
    Owner,
    Thief,
}

/// A refresh of the owner's on its way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Request {
    tab: usize,
    presented: i64,
    sent_at: i64,
}

/// Its answer on the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Answer {
    tab: usize,
    outcome: Result<i64, Refusal>,
    sent_at: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Refusal {
    Replayed,
    Expired,
    Revoked,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    chain: ChainState,
    tick: i64,
    /// How far the server's clock is ahead of the true one.
    skew: i64,
    /// What the owner's tabs share: the newest token they received.
    stored: i64,
    /// The thief knows every token up to this one; none at 0.
    stolen: i64,
    requests: BTreeSet<Request>,
    answers: BTreeSet<Answer>,
    seen: Seen,
}

/// What an onlooker who sees everything has noted, apart from the rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[expect(clippy::struct_excessive_bools, reason = "notes that do not exclude each other")]
struct Seen {
    /// True time at which the newest generation came into being.
    born: i64,
    /// The newest generation each party was seen to use first, and when.
    used_by_owner: (i64, i64),
    used_by_thief: (i64, i64),
    /// A token was answered with another than the one successor it has: the generation after its own.
    was_second_successor: bool,
    refused_owner: Option<Refusal>,
    has_thief_come: bool,
    is_session_dead: bool,
    was_accepted_after_end: bool,
    /// A chain that had not rested was taken for expired, although no clock went ahead.
    was_expired_early: bool,
    /// A party got on with a token although the other had used a later one, beyond the window.
    was_coexistence_tolerated: bool,
    has_stepped_back: bool,
    has_stepped_forward: bool,
    has_stepped_forward_in_flight: bool,
    was_lost_answer_repeated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Send(usize),
    Lose(Request),
    /// The server answers; the answer may yet get lost or be late, as when the server dies after the commit.
    Process(Request),
    Arrive(Answer),
    LoseAnswer(Answer),
    OwnerUses,
    SignOut,
    Steal,
    ThiefPresents(i64),
    ThiefUses,
    Tick,
    StepClock(i64),
}

impl World {
    fn now(&self) -> OffsetDateTime {
        EPOCH + Duration::seconds(self.tick + self.skew)
    }

    /// The server's side of one refresh.
    fn serve(&mut self, party: Party, presented: i64) -> Result<i64, Refusal> {
        let verdict = self.chain.present(presented, self.now(), Duration::seconds(GRACE));
        let successor = match verdict {
            Verdict::Rotate => {
                self.chain = self.chain.rotated(presented, self.now() + Duration::seconds(IDLE));
                self.seen.born = self.tick;
                self.chain.generation
            }
            Verdict::Repeat => {
                self.seen.was_lost_answer_repeated |=
                    self.tick - self.seen.born >= GRACE && party == Party::Owner;
                self.chain.generation
            }
            Verdict::Replayed => {
                self.chain.is_revoked = true;
                self.seen.is_session_dead = true;
                return Err(Refusal::Replayed);
            }
            Verdict::Expired => {
                let is_early = self.tick - self.seen.born < IDLE && !self.seen.has_stepped_forward;
                self.seen.was_expired_early |= is_early;
                return Err(Refusal::Expired);
            }
            Verdict::Revoked => return Err(Refusal::Revoked),
        };
        self.seen.was_accepted_after_end |= self.seen.is_session_dead;
        self.seen.was_second_successor |= successor != presented + 1;
        let (used_by_other, used_at) = match party {
            Party::Owner => self.seen.used_by_thief,
            Party::Thief => self.seen.used_by_owner,
        };
        self.seen.was_coexistence_tolerated |= used_by_other > presented && self.tick - used_at >= GRACE;
        Ok(successor)
    }

    fn is_in_flight(&self) -> bool {
        !self.requests.is_empty() || !self.answers.is_empty()
    }
}

impl Protocol {
    /// What an honest client does, and with it what the protocol asks of one:
    /// its tabs share the newest token they received; while one refreshes, the others at most present the same token;
    /// and a refresh that got no answer within [`IN_FLIGHT`] is given up.
    fn owner_actions(self, world: &World, actions: &mut Vec<Action>) {
        let is_waiting = |tab| {
            world.requests.iter().any(|request| request.tab == tab)
                || world.answers.iter().any(|answer| answer.tab == tab)
        };
        let is_overtaking = world.requests.iter().any(|request| request.presented != world.stored);
        if world.seen.refused_owner.is_none() {
            actions.extend((0..2).filter(|tab| !is_waiting(*tab) && !is_overtaking).map(Action::Send));
            if world.stored == world.chain.generation && world.chain.confirmed_at.is_none() {
                actions.push(Action::OwnerUses);
            }
        }
        if self.signs_out && !world.chain.is_revoked {
            actions.push(Action::SignOut);
        }
    }

    fn thief_actions(world: &World, actions: &mut Vec<Action>) {
        if world.stolen < world.stored {
            actions.push(Action::Steal);
        }
        actions.extend((1..=world.stolen).map(Action::ThiefPresents));
        if world.stolen == world.chain.generation && world.chain.confirmed_at.is_none() {
            actions.push(Action::ThiefUses);
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let chain = ChainState {
            generation: 1,
            confirmed_at: None,
            expires_at: EPOCH + Duration::seconds(IDLE),
            is_revoked: false,
        };
        vec![World {
            chain,
            tick: 0,
            skew: 0,
            stored: 1,
            stolen: 0,
            requests: BTreeSet::new(),
            answers: BTreeSet::new(),
            seen: Seen::default(),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.owner_actions(world, actions);
        if self.has_thief {
            Self::thief_actions(world, actions);
        }
        for request in &world.requests {
            actions.extend([Action::Process(*request), Action::Lose(*request)]);
        }
        for answer in &world.answers {
            actions.extend([Action::Arrive(*answer), Action::LoseAnswer(*answer)]);
        }
        let under_way = world.requests.iter().map(|request| request.sent_at);
        let oldest = under_way.chain(world.answers.iter().map(|answer| answer.sent_at)).min();
        if oldest.is_none_or(|sent_at| world.tick - sent_at < IN_FLIGHT) {
            actions.push(Action::Tick);
        }
        if self.clock_steps && world.skew == 0 {
            actions.extend([-3, -1, 1, 3].map(Action::StepClock));
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Send(tab) => {
                next.requests.insert(Request { tab, presented: world.stored, sent_at: world.tick });
            }
            Action::Lose(request) => {
                next.requests.remove(&request);
            }
            Action::Process(request) => {
                next.requests.remove(&request);
                let outcome = next.serve(Party::Owner, request.presented);
                next.answers.insert(Answer { tab: request.tab, outcome, sent_at: request.sent_at });
            }
            Action::LoseAnswer(answer) => {
                next.answers.remove(&answer);
            }
            Action::Arrive(answer) => {
                next.answers.remove(&answer);
                match answer.outcome {
                    Ok(generation) => next.stored = world.stored.max(generation),
                    Err(refusal) => next.seen.refused_owner = world.seen.refused_owner.or(Some(refusal)),
                }
            }
            Action::OwnerUses => {
                next.chain = world.chain.confirmed(world.stored, world.now());
                next.seen.used_by_owner = (world.stored, world.tick);
            }
            Action::SignOut => {
                next.chain.is_revoked = true;
                next.seen.is_session_dead = true;
            }
            Action::Steal => next.stolen = world.stored,
            Action::ThiefPresents(presented) => {
                next.seen.has_thief_come = true;
                if let Ok(generation) = next.serve(Party::Thief, presented) {
                    next.stolen = world.stolen.max(generation);
                }
            }
            Action::ThiefUses => {
                next.chain = world.chain.confirmed(world.stolen, world.now());
                next.seen.used_by_thief = (world.stolen, world.tick);
                next.seen.has_thief_come = true;
            }
            Action::Tick => next.tick += 1,
            Action::StepClock(by) => {
                next.skew = by;
                next.seen.has_stepped_back |= by < 0;
                next.seen.has_stepped_forward |= by > 0;
                next.seen.has_stepped_forward_in_flight |= by > 0 && world.is_in_flight();
            }
        }
        (next != *world).then_some(next)
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.tick <= self.last_tick && world.chain.generation <= LAST_GENERATION
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("an honest client is never taken for a thief", |_, world: &World| {
                world.seen.refused_owner != Some(Refusal::Replayed)
                    || world.seen.has_thief_come
                    || world.seen.has_stepped_forward_in_flight
            }),
            Property::always(
                "an honest client is signed out by its own sign-out only",
                |protocol: &Self, world| {
                    world.seen.refused_owner != Some(Refusal::Revoked)
                        || protocol.signs_out
                        || world.seen.has_thief_come
                        || world.seen.has_stepped_forward_in_flight
                },
            ),
            Property::always("a chain expires only when it rests", |_, world: &World| {
                !world.seen.was_expired_early
            }),
            Property::always("a token has one successor", |_, world: &World| {
                !world.seen.was_second_successor
            }),
            Property::always("at most the newest token and the one before are good", |_, world: &World| {
                let is_good = |presented: &i64| {
                    let verdict = world.chain.present(*presented, world.now(), Duration::seconds(GRACE));
                    matches!(verdict, Verdict::Rotate | Verdict::Repeat)
                };
                (1..=world.chain.generation).filter(is_good).all(|good| good >= world.chain.generation - 1)
            }),
            Property::always(
                "whoever comes second in a race is answered as the first",
                |_, world: &World| {
                    (1..=world.chain.generation).all(|presented| {
                        let mut after = world.clone();
                        let first = after.serve(Party::Owner, presented);
                        let second = after.serve(Party::Owner, presented);
                        first == second || first == Err(Refusal::Replayed) && second == Err(Refusal::Revoked)
                    })
                },
            ),
            Property::always("the end of a session is for ever", |_, world: &World| {
                !world.seen.was_accepted_after_end
            }),
            Property::always(
                "a token is worthless once another used a later one, beyond the window",
                |_, world: &World| !world.seen.was_coexistence_tolerated || world.seen.has_stepped_back,
            ),
            // So that none of the above holds only because nothing happens.
            Property::sometimes("an answer that got lost is given again late", |_, world: &World| {
                world.seen.was_lost_answer_repeated
            }),
            Property::sometimes("an owner who rests expires", |_, world: &World| {
                world.seen.refused_owner == Some(Refusal::Expired)
            }),
            Property::sometimes("a chain is rotated to the last generation explored", |_, world: &World| {
                world.chain.generation == LAST_GENERATION
            }),
        ];
        if self.has_thief {
            properties.push(Property::sometimes("theft ends the session", |_, world: &World| {
                world.seen.refused_owner == Some(Refusal::Replayed)
                    || world.seen.refused_owner == Some(Refusal::Revoked)
            }));
        }
        properties
    }
}

fn explore(protocol: Protocol) -> usize {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    checker.unique_state_count()
}

/// Nobody but the owner, for five ticks.
const OWNER: Protocol = Protocol { has_thief: false, signs_out: false, clock_steps: false, last_tick: 5 };

#[test]
fn without_a_thief_the_owner_stays_signed_in() {
    assert!(explore(Protocol { signs_out: true, ..OWNER }) > 10_000);
}

#[test]
fn a_thief_and_the_owner_can_t_both_go_on() {
    assert!(explore(Protocol { has_thief: true, ..OWNER }) > 100_000);
}

#[test]
fn a_sign_out_ends_it_for_a_thief_too() {
    assert!(explore(Protocol { has_thief: true, signs_out: true, last_tick: 4, ..OWNER }) > 100_000);
}

#[test]
fn a_clock_that_steps_makes_no_second_successor() {
    assert!(explore(Protocol { clock_steps: true, ..OWNER }) > 100_000);
}
