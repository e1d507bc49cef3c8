use super::*;
use proptest::prelude::*;

const DAY: Duration = Duration::from_hours(24);
const POLICY: KeyPolicy =
    KeyPolicy { kind: KeyKind::EdDsa, rotation: Some(DAY), token_life: Duration::from_mins(15) };
const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn key(kid: &str, created: Duration, activated: Option<Duration>) -> Key {
    Key {
        kid: kid.to_owned(),
        kind: KeyKind::EdDsa,
        private: PrivateHalf::Opens,
        life: Life {
            created_at: after(START, created),
            activated_at: activated.map(|at| after(START, at)),
            served_until: None,
        },
    }
}

/// A current and a next key, both of the beginning.
fn pair() -> [Key; 2] {
    [key("current", Duration::ZERO, Some(Duration::ZERO)), key("next", Duration::ZERO, None)]
}

fn activate_next() -> Plan {
    Plan { activate: Some(Activation::Next("next".to_owned())), make_next: true, ..Plan::default() }
}

#[test]
fn the_first_start_makes_two_keys() {
    let made = Plan { activate: Some(Activation::New), make_next: true, ..Plan::default() };
    assert_eq!(plan(&[], &POLICY, Occasion::Start, START), Ok(made));
}

#[test]
fn a_key_follows_on_its_day_and_not_before() {
    let just_before = after(START, DAY.checked_sub(Duration::from_secs(1)).unwrap());
    for occasion in [Occasion::Start, Occasion::Pass] {
        assert_eq!(plan(&pair(), &POLICY, occasion, just_before), Ok(Plan::default()));
        assert_eq!(plan(&pair(), &POLICY, occasion, after(START, DAY)), Ok(activate_next()));
        let by_hand = KeyPolicy { rotation: None, ..POLICY };
        assert_eq!(plan(&pair(), &by_hand, occasion, after(START, DAY * 1000)), Ok(Plan::default()));
    }
}

#[test]
fn no_key_signs_before_it_was_published_for_long_enough() {
    let [current, _] = pair();
    let keys = [current, key("next", DAY, None)];
    let known = known_from(keys[1].life.created_at);
    let early = known.saturating_add(time::Duration::seconds(-1));
    assert_eq!(plan(&keys, &POLICY, Occasion::Pass, early), Ok(Plan::default()));
    assert_eq!(plan(&keys, &POLICY, Occasion::Pass, known), Ok(activate_next()));
    let rotate = |force, now| plan(&keys, &POLICY, Occasion::Command { force }, now);
    assert_eq!(rotate(false, early), Err(Refusal::TooSoon(known)));
    assert_eq!(rotate(false, known), Ok(activate_next()));
    assert_eq!(rotate(true, early), Ok(activate_next()));
    let only = &keys[..1];
    let made = Plan { make_next: true, ..Plan::default() };
    assert_eq!(
        plan(only, &POLICY, Occasion::Command { force: false }, known),
        Ok(made),
        "it has to be made first"
    );
}

#[test]
fn another_algorithm_is_published_at_a_start_and_signs_when_it_is_known() {
    let wanted = KeyPolicy { kind: KeyKind::Es256, ..POLICY };
    let replaced = Plan { delete: vec!["next".to_owned()], make_next: true, ..Plan::default() };
    assert_eq!(plan(&pair(), &wanted, Occasion::Start, START), Ok(replaced));
    let long_after = after(START, PROPAGATION);
    let unchanged = plan(&pair(), &wanted, Occasion::Pass, long_after);
    assert_eq!(unchanged, Ok(Plan::default()), "servers of two minds leave each other's keys alone");
    let [current, mut next] = pair();
    next.kind = KeyKind::Es256;
    assert_eq!(plan(&[current, next], &wanted, Occasion::Pass, long_after), Ok(activate_next()));
}

#[test]
fn a_key_that_can_t_be_opened_is_an_operator_s_to_give_up() {
    let [mut current, mut next] = pair();
    let due = after(START, DAY);
    next.private = PrivateHalf::Closed;
    let keys = [current.clone(), next.clone()];
    let stays = Plan { closed_next: Some("next".to_owned()), ..Plan::default() };
    for occasion in [Occasion::Start, Occasion::Pass] {
        assert_eq!(plan(&keys, &POLICY, occasion, due), Ok(stays.clone()));
    }
    let rotate = |keys: &[Key], force| plan(keys, &POLICY, Occasion::Command { force }, due);
    assert_eq!(rotate(&keys, false), Err(Refusal::Closed("next".to_owned())));
    let new = Plan {
        delete: vec!["next".to_owned()],
        activate: Some(Activation::New),
        make_next: true,
        closed_next: None,
    };
    assert_eq!(rotate(&keys, true), Ok(new));

    current.private = PrivateHalf::Closed;
    next.private = PrivateHalf::Opens;
    let keys = [current, next];
    for occasion in [Occasion::Start, Occasion::Pass] {
        assert_eq!(plan(&keys, &POLICY, occasion, due), Err(Refusal::Closed("current".to_owned())));
    }
    assert_eq!(rotate(&keys, false), Err(Refusal::Closed("current".to_owned())));
    assert_eq!(rotate(&keys, true), Ok(activate_next()));
}

#[test]
fn the_environment_s_key_is_followed_at_once_when_it_is_given_no_more() {
    let [mut current, next] = pair();
    current.private = PrivateHalf::Absent;
    assert_eq!(plan(&[current.clone(), next.clone()], &POLICY, Occasion::Pass, START), Ok(activate_next()));
    let made = Plan { activate: Some(Activation::New), make_next: true, ..Plan::default() };
    assert_eq!(plan(std::slice::from_ref(&current), &POLICY, Occasion::Start, START), Ok(made));
    for force in [false, true] {
        let keys = [current.clone(), next.clone()];
        assert_eq!(plan(&keys, &POLICY, Occasion::Command { force }, START), Err(Refusal::Environment));
    }
}

/// The keys after a plan, as the store would have them.
fn carry_out(keys: &mut Vec<Key>, plan: &Plan, now: OffsetDateTime, last_kid: &mut u32) {
    let mut make = |activated_at| {
        *last_kid = last_kid.saturating_add(1);
        let life = Life { created_at: now, activated_at, served_until: None };
        Key { kid: last_kid.to_string(), kind: KeyKind::EdDsa, private: PrivateHalf::Opens, life }
    };
    keys.retain(|key| !plan.delete.contains(&key.kid));
    if let Some(activation) = &plan.activate {
        for key in keys.iter_mut().filter(|key| key.life.state(now) == KeyState::Current) {
            key.life.served_until = Some(served_until(now, POLICY.token_life));
            key.private = PrivateHalf::Absent;
        }
        match activation {
            Activation::Next(kid) => {
                let next = keys.iter_mut().find(|key| key.kid == *kid).unwrap();
                next.life.activated_at = Some(now);
            }
            Activation::New => keys.push(make(Some(now))),
        }
    }
    if plan.make_next {
        keys.push(make(None));
    }
}

proptest! {
    /// Whatever happens when, there is one current and one next key, no key signs before it is known unless it was forced,
    /// and every token is verified for as long as it lives.
    #[test]
    fn tokens_outlive_every_rotation(steps in prop::collection::vec((0_u64..200_000, 0_u8..4), 1..60)) {
        let (mut keys, mut last_kid, mut now) = (Vec::new(), 0, START);
        let first = plan(&keys, &POLICY, Occasion::Start, now).unwrap();
        carry_out(&mut keys, &first, now, &mut last_kid);
        let mut tokens: Vec<(String, OffsetDateTime)> = Vec::new();
        for (pause, occasion) in steps {
            let signing = keys.iter().find(|key| key.life.state(now) == KeyState::Current).unwrap();
            tokens.push((signing.kid.clone(), after(now, POLICY.token_life)));
            now = after(now, Duration::from_secs(pause));
            let occasion = match occasion {
                0 => Occasion::Start,
                1 => Occasion::Command { force: false },
                2 => Occasion::Command { force: true },
                _ => Occasion::Pass,
            };
            // The one that signed until now does so until the plan is carried out.
            let signing = keys.iter().find(|key| key.life.state(now) == KeyState::Current).unwrap();
            tokens.push((signing.kid.clone(), after(now, POLICY.token_life)));
            let Ok(decided) = plan(&keys, &POLICY, occasion, now) else { continue };
            if let Some(Activation::Next(kid)) = &decided.activate
                && occasion != (Occasion::Command { force: true })
            {
                let next = keys.iter().find(|key| key.kid == *kid).unwrap();
                prop_assert!(known_from(next.life.created_at) <= now);
            }
            carry_out(&mut keys, &decided, now, &mut last_kid);
            for state in [KeyState::Current, KeyState::Next] {
                prop_assert_eq!(keys.iter().filter(|key| key.life.state(now) == state).count(), 1);
            }
            for (kid, expires_at) in tokens.iter().filter(|(_, expires_at)| *expires_at > now) {
                let served = keys.iter().any(|key| key.kid == *kid && key.life.state(now) != KeyState::Gone);
                prop_assert!(served, "{} until {}", kid, expires_at);
            }
        }
    }
}
