//! What a gate keeps to over any order of events.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::*;
use crate::secs;

const START: Timestamp = Timestamp(1_767_225_600_000_000);
const BLOCK: Duration = Duration::from_secs(120);
const TIMES: Times = Times { wave: secs(10), cool_down_max: secs(600), grant: secs(10), block: BLOCK };

fn at(seconds: u64) -> Timestamp {
    START.plus(secs(seconds))
}

fn state(gate: Gate) -> GateState {
    let mut state = GateState { rule: gate.rule, ..GateState::default() };
    state.tick(&Queue::default(), START, &TIMES);
    state
}

fn waiting(forward: u32, undo: u32) -> Queue {
    Queue { forward, undo, granted: 0 }
}

/// Dice of the tests' own: the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[test]
fn no_order_of_events_lets_more_under_way_than_the_limit() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let limit = 1 + u32::try_from(dice.below(5)).unwrap();
        let mut state = state(Gate::credential("g").concurrency(limit));
        let mut now = START;
        // For each worker: permits it believes it has, until when, and when each of its calls ends.
        let mut hands: BTreeMap<String, (u32, Timestamp, Vec<Timestamp>)> = BTreeMap::new();
        let mut queue = Queue::default();
        let (mut passed, mut deaths) = (0, 0);
        for _ in 0..400 {
            now = now.plus(secs(dice.below(20)));
            state.tick(&queue, now, &TIMES);
            // One that dies comes back as another.
            let worker = format!("w{}-{deaths}", dice.below(3));
            let hand = hands.entry(worker.clone()).or_insert((0, START, Vec::new()));
            if hand.1 <= now {
                // Its block has ended; whatever it believed is void.
                *hand = (0, START, std::mem::take(&mut hand.2));
            }
            hand.2.retain(|ends| *ends > now);
            let busy = u32::try_from(hand.2.len()).unwrap();
            match dice.below(6) {
                // They die, and their calls go on for as long as they may.
                0 if dice.below(4) == 0 => deaths += 1,
                1 => {
                    let permits = busy.max(hand.0.saturating_sub(1)).min(hand.0);
                    hand.0 = permits;
                    state.keep(&worker, permits, hand.1);
                }
                2 => queue.forward += 1,
                3 => {
                    let (forward, undo) = state.release(&queue);
                    queue.forward -= forward;
                    queue.undo -= undo;
                    queue.granted += forward + undo;
                }
                _ => {
                    let until = now.plus(BLOCK);
                    let granted = queue.granted > 0;
                    let taken = state.take(&worker, Lane::Forward, 1, granted, &queue, until);
                    hand.0 += taken.permits;
                    if taken.permits > 0 {
                        hand.1 = until;
                        queue.granted = queue.granted.saturating_sub(u32::from(granted));
                    }
                    let ends = now.plus(secs(1 + dice.below(90)));
                    if busy < hand.0 && ends <= hand.1 {
                        hand.2.push(ends);
                        passed += 1;
                    }
                }
            }
            let under_way: usize =
                hands.values().map(|hand| hand.2.iter().filter(|ends| **ends > now).count()).sum();
            assert!(under_way <= usize::try_from(limit).unwrap(), "seed {seed}: {under_way} of {limit}");
        }
        assert!(passed > 0, "seed {seed}: nothing passed");
    }
}

#[test]
fn over_any_time_no_more_calls_begin_than_the_rate_and_the_burst_allow() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let (calls, per) = (1 + dice.below(50), 1 + dice.below(30));
        let burst = 1 + dice.below(20);
        let gate = Gate::credential("g")
            .rate(u32::try_from(calls).unwrap(), secs(per))
            .burst(u32::try_from(burst).unwrap());
        let bucket = gate.rule.bucket.unwrap();
        let mut state = state(gate);
        let mut now = START;
        let (mut hand, mut good_until) = (0, START);
        let mut used: VecDeque<Timestamp> = VecDeque::new();
        for _ in 0..600 {
            now = now.plus(Duration::from_millis(dice.below(700)));
            state.tick(&Queue::default(), now, &TIMES);
            if good_until < now {
                hand = 0;
            }
            if hand == 0 {
                hand = state.take("w", Lane::Forward, 1, false, &Queue::default(), now).tokens;
                good_until = now.plus(hold(&bucket));
            }
            while hand > 0 && (good_until <= now || dice.below(3) > 0) {
                hand -= 1;
                used.push_back(now);
            }
        }
        assert!(!used.is_empty());
        for (first, begin) in used.iter().enumerate() {
            for (last, end) in used.iter().enumerate().skip(first) {
                let count = u128::try_from(last - first + 1).unwrap();
                let micros = end.since(*begin).as_micros();
                let allowed = micros * u128::from(calls) / (u128::from(per) * 1_000_000) + u128::from(burst);
                assert!(count <= allowed, "seed {seed}: {count} in {micros} us, {allowed} allowed");
            }
        }
    }
}

#[test]
fn a_bucket_is_used_to_the_full() {
    let mut state = state(Gate::credential("g").rate(10, secs(1)).burst(10));
    let mut begun = 0;
    for tenth in 0..1000_u64 {
        let now = START.plus(Duration::from_millis(100 * tenth));
        state.tick(&Queue::default(), now, &TIMES);
        begun += state.take("w", Lane::Forward, 1, false, &Queue::default(), now).tokens;
    }
    assert!((990..=1010).contains(&begun), "{begun} in 100 s at 10 a second");
}

#[test]
fn a_clock_that_steps_back_gives_nothing_and_does_not_stop_the_bucket_for_ever() {
    let gate = Gate::spaced("g", secs(31));
    let bucket = gate.rule.bucket.unwrap();
    let mut tokens = Tokens::full(&bucket, at(1000));
    assert_eq!(tokens.take(5), 1);
    tokens.refill(&bucket, at(990));
    assert_eq!(tokens.whole(), 0, "ten seconds back");
    tokens.refill(&bucket, at(1031));
    assert_eq!(tokens.whole(), 1);
    tokens.take(1);
    // A day back: it starts anew from there, empty.
    tokens.refill(&bucket, Timestamp(at(1000).0 - 86_400_000_000));
    assert_eq!(tokens.whole(), 0);
    assert_eq!(tokens.due(&bucket, 1), Timestamp(at(1031).0 - 86_400_000_000));
}

#[test]
fn no_number_is_too_large() {
    let gate = Gate::credential("g").concurrency(u32::MAX).rate(u32::MAX, Duration::MAX).burst(u32::MAX);
    let mut state = state(gate.breaker(u32::MAX, Duration::MAX));
    let queue = Queue { forward: u32::MAX, undo: u32::MAX, granted: u32::MAX };
    for now in [Timestamp(i64::MIN), Timestamp(0), Timestamp(i64::MAX), START] {
        state.tick(&queue, now, &TIMES);
        state.take("w", Lane::Undo, u32::MAX, true, &queue, Timestamp(i64::MAX));
        state.release(&queue);
        state.report(u32::MAX, u32::MAX, now, &TIMES);
        state.close(Why::Breaker, Some(Timestamp(i64::MAX)), "x", now);
        state.next_look(&queue, &TIMES);
        state.act(GateAct { opened: true, actor: "a".into(), reason: "b".into(), at: now });
    }
}

#[test]
fn neither_lane_is_ever_starved_and_nothing_free_is_left_while_one_waits() {
    for free in 0..12 {
        for forward in 0..12 {
            for undo in 0..12 {
                for share in [0, 25, 100] {
                    for favoured in [Lane::Forward, Lane::Undo] {
                        let (f, u) = split(free, forward, undo, share, favoured);
                        assert!(f <= forward && u <= undo);
                        assert_eq!(f + u, free.min(forward + undo), "{free} {forward} {undo} {share}");
                        if free >= 2 {
                            assert!(f > 0 || forward == 0, "{free} {forward} {undo} {share}");
                            assert!(u > 0 || undo == 0, "{free} {forward} {undo} {share}");
                        }
                    }
                }
            }
        }
    }
    // With one permit they take turns.
    let mut state = state(Gate::credential("g").concurrency(1));
    let turns: Vec<_> = (0..4).map(|_| state.release(&waiting(9, 9))).collect();
    assert_eq!(turns, [(0, 1), (1, 0), (0, 1), (1, 0)]);
}

#[test]
fn a_newcomer_does_not_pass_those_who_wait() {
    let mut state = state(Gate::credential("g").concurrency(3));
    let queue = waiting(1, 0);
    assert_eq!(state.take("w", Lane::Forward, 1, false, &queue, at(60)), Taken::default());
    assert_eq!(state.release(&queue), (1, 0));
    let let_go = Queue { forward: 0, undo: 0, granted: 1 };
    assert_eq!(state.take("v", Lane::Forward, 1, false, &let_go, at(60)), Taken::default());
    assert_eq!(state.take("w", Lane::Forward, 1, true, &let_go, at(60)).permits, 1);
}

#[test]
fn a_breaker_trips_probes_with_one_and_opens_in_growing_waves() {
    let mut state = state(Gate::credential("g").breaker(3, secs(30)));
    state.report(0, 2, at(0), &TIMES);
    state.report(1, 0, at(1), &TIMES);
    state.report(0, 2, at(2), &TIMES);
    assert!(!state.is_closed_to(Lane::Forward), "never three in a row");
    state.report(0, 1, at(3), &TIMES);
    assert!(state.is_closed_to(Lane::Forward));
    assert!(!state.is_closed_to(Lane::Undo), "what takes back is tried all the same");
    let mut queue = waiting(100, 2);
    assert_eq!(state.release(&queue), (0, 2));
    queue.undo = 0;
    assert_eq!(state.next_look(&queue, &TIMES), Some(at(33)));

    // The canary fails: closed again, for twice as long.
    state.tick(&queue, at(33), &TIMES);
    assert_eq!(state.release(&queue), (1, 0));
    assert_eq!(state.release(&queue), (0, 0), "one, and no second before it is known how that one fared");
    state.report(0, 1, at(34), &TIMES);
    assert_eq!(state.next_look(&queue, &TIMES), Some(at(94)));

    let mut waves = Vec::new();
    let mut now = 94;
    while queue.forward > 0 {
        state.tick(&queue, at(now), &TIMES);
        let (let_go, _) = state.release(&queue);
        queue.forward -= let_go;
        waves.push(let_go);
        state.report(let_go, 0, at(now), &TIMES);
        now += 1;
    }
    assert_eq!(waves, [1, 2, 4, 8, 16, 32, 37]);
    state.report(27, 0, at(now), &TIMES);
    state.tick(&queue, at(now), &TIMES);
    assert_eq!((state.probe, state.trips), (None, 0), "open again");
}

#[test]
fn who_was_let_go_and_never_came_holds_nobody_up_for_ever() {
    let mut state = state(Gate::credential("g"));
    state.close(Why::Provider, Some(at(10)), "too many", at(0));
    let queue = waiting(5, 0);
    state.tick(&queue, at(10), &TIMES);
    assert_eq!(state.release(&queue), (1, 0));
    state.tick(&queue, at(11), &TIMES);
    assert_eq!(state.release(&queue), (0, 0));
    assert_eq!(state.next_look(&queue, &TIMES), Some(at(20)));
    state.tick(&queue, at(20), &TIMES);
    assert_eq!(state.release(&queue), (1, 0));
}

#[test]
fn a_gate_is_closed_for_longer_and_by_a_stronger_hand_but_never_for_less() {
    let mut state = state(Gate::credential("g"));
    state.close(Why::Provider, Some(at(60)), "first", at(0));
    state.close(Why::Provider, Some(at(30)), "shorter", at(1));
    assert_eq!(state.closed.as_ref().unwrap().until, Some(at(60)));
    state.close(Why::Breaker, Some(at(90)), "weaker", at(2));
    assert_eq!(state.closed.as_ref().unwrap().reason, "first");
    state.act(GateAct { opened: false, actor: "ann".into(), reason: "moving".into(), at: at(3) });
    state.close(Why::Provider, Some(at(600)), "longer", at(4));
    let closed = state.closed.as_ref().unwrap();
    assert_eq!((closed.by, closed.until, closed.since), (Why::Person, None, at(0)));
    state.tick(&waiting(1, 1), at(100_000), &TIMES);
    assert!(state.is_closed_to(Lane::Undo), "until a person opens it");
    state.act(GateAct { opened: true, actor: "ann".into(), reason: "moved".into(), at: at(100_000) });
    assert_eq!(state.release(&waiting(5, 0)), (1, 0), "with one first");
    assert_eq!(state.acts.len(), 2);
}

#[test]
fn a_state_of_an_older_shape_reads() {
    let read: GateState = serde_json::from_str(r#"{"rule": {"undo_share": 25}}"#).unwrap();
    assert_eq!(read, GateState::default());
    let state = state(Gate::credential("g").concurrency(2).rate(5, secs(1)).breaker(3, secs(1)));
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<GateState>(&text).unwrap(), state);
}
