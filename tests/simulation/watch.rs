//! Watch: what must hold at every moment of a running cluster, looked at every few minutes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::env::Timestamp;
use amends_engine::journal::event::{ChildFate, FoundKind};
use amends_engine::journal::state::{Phase, SagaState};
use amends_engine::journal::step::Step;
use amends_engine::journal::{Act, Entry, Event, State};
use amends_engine::store::ResourceState;
use amends_engine::store::memory::{Moment, SagaSeen};
use amends_engine::{Effect, SagaId, ids::StepKey, secs};

use crate::cluster::Cluster;

/// How often it looks.
const EVERY: Duration = secs(180);

/// How long a saga may take to turn round at its deadline while its workers die and freeze.
const TURNS_WITHIN: Duration = secs(300);

/// What was seen of every saga so far.
#[derive(Default)]
pub(crate) struct Watch {
    followed: Mutex<BTreeMap<SagaId, Followed>>,
    pub(crate) looks: Mutex<u64>,
}

struct Followed {
    state: State,
    epoch: i64,
    /// The act that came just before.
    act: Option<Act>,
    ended_scopes: Vec<StepKey>,
    /// Until when the last attempt of each step may be under way, and what it needs behind that.
    sent: BTreeMap<StepKey, (Timestamp, Duration)>,
    /// Until when a lost one may take effect.
    lost: BTreeMap<StepKey, Timestamp>,
}

impl Watch {
    pub(crate) async fn keep(&self, cluster: &Cluster) {
        loop {
            cluster.env.sleep(EVERY).await;
            self.look(cluster).await;
        }
    }

    /// Looks at everything at one moment.
    pub(crate) async fn look(&self, cluster: &Cluster) {
        *self.looks.lock().unwrap() += 1;
        let mut followed = self.followed.lock().unwrap().split_off(&SagaId::stored(""));
        let mut broken = Vec::new();
        let now = cluster.env.now();
        cluster
            .store
            .look(|moment| {
                for seen in moment.sagas() {
                    let id = seen.row.id.clone();
                    let saga = followed.entry(id.clone()).or_insert_with(|| Followed::new(&id));
                    let fresh = usize::try_from(saga.state.seq).unwrap();
                    for entry in seen.journal.iter().skip(fresh) {
                        if let Err(problem) = saga.follow(entry, moment) {
                            broken.push(format!("{id} entry {}: {problem}", entry.seq));
                        }
                    }
                    broken.extend(standing(&saga.state, &seen, moment, now).map(|p| format!("{id}: {p}")));
                }
                broken.extend(bounds(moment));
                broken.extend(things(cluster, moment));
            })
            .await;
        *self.followed.lock().unwrap() = followed;
        cluster.violations.lock().unwrap().extend(broken);
    }
}

impl Followed {
    fn new(id: &SagaId) -> Self {
        let (sent, lost) = (BTreeMap::new(), BTreeMap::new());
        Self { state: State::new(id.clone()), epoch: 0, act: None, ended_scopes: Vec::new(), sent, lost }
    }

    fn follow(&mut self, entry: &Entry, moment: &Moment<'_>) -> Result<(), String> {
        let checked = self.check(entry, moment);
        self.epoch = entry.epoch;
        self.act = match &entry.event {
            Event::OperatorIntervened { act, .. } => Some(act.clone()),
            _ => None,
        };
        if let Event::ScopeUnwound { scope } = &entry.event {
            self.ended_scopes.push(scope.clone());
        }
        self.state.apply(entry).map_err(|illegal| illegal.to_string())?;
        self.note_lost(&entry.event);
        checked
    }

    /// Until when what was lost may still take effect, from the facts alone.
    fn note_lost(&mut self, event: &Event) {
        let Some(key) = event.step() else { return };
        let asked = self.state.step(key).and_then(|step| step.asked.as_ref());
        match event {
            Event::AttemptStarted { not_after, .. } => {
                let settle_after = asked.map_or(Duration::ZERO, |asked| asked.settle_after);
                self.sent.insert(key.clone(), (*not_after, settle_after));
            }
            Event::AttemptLost { .. } => {
                if let Some((not_after, settle_after)) = self.sent.get(key) {
                    let over = self.lost.entry(key.clone()).or_default();
                    *over = (*over).max(not_after.plus(*settle_after));
                }
            }
            Event::StepCompleted { by_hand: false, .. }
                if asked.is_some_and(|asked| asked.effect == Effect::RepeatableForever) =>
            {
                self.lost.remove(key);
            }
            _ => {}
        }
    }

    /// What must hold for this fact behind all the others, said without the engine's own decisions.
    fn check(&self, entry: &Entry, moment: &Moment<'_>) -> Result<(), String> {
        let (state, at) = (&self.state, entry.at);
        let says = |holds: bool, problem: &str| if holds { Ok(()) } else { Err(problem.to_owned()) };
        says(entry.epoch >= self.epoch, "its epoch fell")?;
        says(at >= state.at, "its time fell")?;
        let step = entry.event.step().and_then(|key| state.step(key));
        let is_deferred = step.is_some_and(|step| step.is_deferred());
        // What waits at a gate has no time of its own.
        let at_gate = step.is_some_and(|step| step.at_gate.is_some());
        if let Some(key) = entry.event.step() {
            says(state.start_at.is_none_or(|start| start <= at), "it began before its time")?;
            let begins = matches!(entry.event, Event::AttemptStarted { .. } | Event::TimerSet { .. });
            let is_over = self.ended_scopes.iter().any(|scope| key.is_inside(scope));
            says(!begins || !is_over || is_deferred, "begun in a scope that is over")?;
        }
        if let Event::CompensationStarted { step, .. } = &entry.event {
            let is_over = self.lost.get(step).is_none_or(|over| *over <= at);
            says(is_over, "taken back while a lost attempt may still take effect")?;
        }
        if let Event::StepFound { step, found: FoundKind::Nothing, .. } = &entry.event {
            let is_over = self.lost.get(step).is_none_or(|over| *over <= at);
            says(is_over, "taken for absent while a lost attempt may still take effect")?;
            let known = state.step(step);
            let apart =
                known.and_then(|step| step.asked.as_ref()).map_or(Duration::ZERO, |asked| asked.settle_after);
            let absence = known.and_then(|step| step.absence.as_ref());
            let twice = absence.is_some_and(|absence| {
                absence.by_hand || absence.first_at.is_some_and(|first| first.plus(apart) <= at)
            });
            let by_hand = matches!(self.act, Some(Act::Settle { .. }));
            says(by_hand || twice, "one look was believed")?;
        }
        match (&entry.event, step.map(|step| &step.phase)) {
            (Event::AttemptDeferred { attempt: Some(attempt), cause, retry_at, gate: None, .. }, _)
                // A second look has a time of its own, however many attempts there were.
                if !matches!(cause, Cause::NotYet | Cause::WorkerLost | Cause::AbsentOnce) =>
            {
                says(waits_enough(step, *attempt, at, *retry_at), "is to be tried again too soon")
            }
            (Event::CompensationDeferred { retry_at, gate: None, .. }, _)
            | (Event::CompensationLost { retry_at, .. }, _) => {
                let attempt = step.map_or(1, |step| step.undo_attempts.max(1));
                says(waits_enough(step, attempt, at, *retry_at), "is to be taken back again too soon")
            }
            (Event::TimerFired { step }, Some(Phase::Waiting { due_at, .. })) => {
                let by_hand = self.act == Some(Act::FailAttempt { step: step.clone() });
                says(*due_at <= at || by_hand, "a timer fired before it was due")
            }
            (Event::AttemptStarted { .. }, Some(Phase::Deferred { retry_at })) => {
                says(*retry_at <= at || at_gate, "tried again before its time")
            }
            (Event::AttemptStarted { .. }, Some(Phase::InDoubt { look_at })) => {
                says(*look_at <= at || at_gate, "sent again before its time")?;
                let asked = step.and_then(|step| step.asked.as_ref());
                let sent_at = step.and_then(|step| step.sent_at).unwrap_or(at);
                match asked.map(|asked| asked.effect) {
                    Some(Effect::RepeatableWithin { window }) => {
                        says(at <= sent_at.plus(window), "sent again outside its window")
                    }
                    Some(Effect::Repeatable | Effect::RepeatableForever | Effect::Read) => Ok(()),
                    effect => Err(format!("{effect:?} was sent again while it was in doubt")),
                }
            }
            (Event::AttemptDeferred { gate: Some(_), .. }, Some(Phase::InDoubt { look_at })) => {
                says(*look_at <= at || at_gate, "came to its gate to be looked for before its time")
            }
            (Event::StepFound { .. }, Some(Phase::InDoubt { look_at })) => {
                let by_hand = matches!(self.act, Some(Act::Settle { .. }));
                says(*look_at <= at || by_hand || at_gate, "looked for before its time")
            }
            (Event::CompensationStarted { .. }, Some(Phase::Removing { due_at, .. })) => {
                says(*due_at <= at || at_gate, "taken back again before its time")
            }
            (
                Event::CompensationStarted { step, .. } | Event::StepCompensated { step, .. },
                Some(Phase::Completed | Phase::Child),
            ) => match self.stands_on(step) {
                None => Ok(()),
                Some(other) => Err(format!("{step} is taken back before {other}, which stands on it")),
            },
            (Event::UnwindingStarted { .. }, _) => {
                let lifts = state.steps().iter().any(|step| {
                    let is_pivot =
                        step.asked.as_ref().is_some_and(|asked| asked.pivot && asked.local.is_none());
                    is_pivot && !matches!(step.phase, Phase::Deferred { .. } | Phase::Refused)
                });
                says(state.pivot.is_none() && !lifts, "turned round at or behind its pivot")
            }
            (Event::SagaCompleted { .. } | Event::SagaCompensated {} | Event::SagaFailed { .. }, _) => {
                let is_done =
                    |phase: &Phase| matches!(phase, Phase::Completed | Phase::Refused | Phase::Skipped(_));
                let is_left = state.steps().iter().any(|step| step.is_deferred() && !is_done(&step.phase));
                says(!is_left, "ended without what was put off to its end")
            }
            (Event::ChildEnded { child, fate, .. }, _) => {
                let seen = moment.saga(child).ok_or("a child that is not there said how it ended")?;
                let said = seen.journal.iter().any(|entry| {
                    matches!(
                        (&entry.event, fate),
                        (Event::ResultOffered { .. }, ChildFate::Done)
                            | (Event::SagaCompleted { .. }, ChildFate::Kept)
                            | (Event::SagaCompensated {} | Event::SagaFailed { .. }, ChildFate::Gone)
                    )
                });
                says(said, "its child has not said so in its own journal")
            }
            _ => Ok(()),
        }
    }

    /// What depends on this step, directly or through others, and still has to be taken back.
    fn stands_on(&self, step: &StepKey) -> Option<StepKey> {
        let mut reached = vec![step.clone()];
        let mut next = 0;
        while let Some(from) = reached.get(next).cloned() {
            next += 1;
            for later in self.state.steps() {
                let depends = later.asked.as_ref().is_some_and(|asked| asked.after.contains(&from));
                if !depends || reached.contains(&later.key) || !self.state.goes_back(&later.key) {
                    continue;
                }
                let row = later.resource.as_ref().and_then(|id| self.state.ledger.get(id));
                let goes_with_another = row.is_some_and(|row| row.within.is_some());
                if later.is_left() && !goes_with_another {
                    return Some(later.key.clone());
                }
                reached.push(later.key.clone());
            }
        }
        None
    }
}

/// Whether the wait behind this attempt is at least half of one that doubles from a second up to ten minutes; a person
/// may have said that less is enough.
fn waits_enough(step: Option<&Step>, attempt: u32, at: Timestamp, retry_at: Timestamp) -> bool {
    let longest = step.and_then(|step| step.max_wait).unwrap_or(secs(600)).min(secs(600));
    let doubled = 1_u64.checked_shl(attempt.saturating_sub(1)).map_or(longest, secs);
    retry_at.since(at) >= doubled.min(longest) / 2
}

/// Its row says what its journal says, and something will happen to it.
fn standing(
    state: &State,
    seen: &SagaSeen<'_>,
    moment: &Moment<'_>,
    now: Timestamp,
) -> impl Iterator<Item = String> + use<> {
    let mut broken = Vec::new();
    let row = seen.row;
    if row.state != state.state() || row.seq != state.seq {
        broken.push(format!("its row says {} at {}, its journal {}", row.state, row.seq, state.state()));
    }
    // Some of it comes with time alone, and is in the row from when that was noticed.
    let (then, by_now) = (state.attention(), state.attention_at(now));
    let is_told = then.iter().all(|code| row.attention.contains(code));
    if !is_told || !row.attention.iter().all(|code| by_now.contains(code)) {
        broken.push(format!("its row says {:?}, its journal {:?}", row.attention, state.attention()));
    }
    for known in state.ledger.rows().filter(|known| known.holder == state.saga.as_str()) {
        let stored = moment.resources().find(|stored| stored.id == known.id);
        if stored != Some(known) {
            broken.push(format!("the ledger has {stored:?}, its journal {known:?}"));
        }
    }
    if state.ended.is_some() {
        return broken.into_iter();
    }
    let is_late = |deadline: Timestamp| deadline.plus(TURNS_WITHIN) < now;
    if state.deadline_at.is_some_and(is_late) && state.can_turn() && state.paused.is_none() {
        broken.push("its deadline passed, and it has not turned round".to_owned());
    }
    let has_no_place = seen.bound.is_some_and(|(_, has_place)| !has_place);
    let due = state.due_at();
    if !has_no_place && due.is_some_and(|due| row.due_at.is_none_or(|at| at > due.max(now))) {
        broken.push(format!("its row is due at {:?}, its journal at {due:?}", row.due_at));
    }
    let is_open = |saga: &SagaId| moment.saga(saga).is_some_and(|seen| !seen.row.state.is_ended());
    let waits_for_another = state.steps().iter().any(|step| {
        let at_it = matches!(step.phase, Phase::Child | Phase::Removing { .. });
        at_it && step.child.as_ref().is_some_and(|(child, _)| is_open(child))
    }) || state.offered.is_some()
        && state.parent.as_ref().is_some_and(|parent| is_open(&parent.saga));
    let at_gate = !state.gate_waits().is_empty();
    let goes_on = row.due_at.is_some() || !row.attention.is_empty() || seen.has_mail || at_gate;
    if !goes_on && !has_no_place && !waits_for_another {
        broken.push("no due time, no call, no attention: it will never go on".to_owned());
    }
    broken.into_iter()
}

/// No more run under one bound than may.
fn bounds(moment: &Moment<'_>) -> Vec<String> {
    let mut running: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut broken = Vec::new();
    for seen in moment.sagas().filter(|seen| !seen.row.state.is_ended()) {
        let Some((bound, has_place)) = seen.bound else { continue };
        let runs = seen.journal.iter().any(|entry| entry.event.step().is_some());
        if runs && !has_place {
            broken.push(format!("{} runs without a place", seen.row.id));
        }
        let entry = running.entry(&bound.key).or_insert((0, bound.limit));
        entry.0 += u32::from(has_place);
    }
    let over = running.into_iter().filter(|(_, (count, limit))| count > limit);
    broken.extend(over.map(|(key, (count, limit))| format!("{count} run under {key}, and {limit} may")));
    broken
}

/// What is there is on the ledger or in the making; nothing of a completed saga is in a branch that was dropped.
fn things(cluster: &Cluster, moment: &Moment<'_>) -> Vec<String> {
    let mut broken = Vec::new();
    for thing in cluster.yard.things() {
        if cluster.yard.is_made_by_hand(&thing) || cluster.injector.strays(&thing.saga, &thing.step) {
            continue;
        }
        let known = moment.resources().any(|row| {
            row.state != ResourceState::Gone
                && (row.name == thing.name || row.external_id.as_ref() == Some(&thing.id))
        });
        if !known {
            broken.push(format!("{} {} of {} is there, and on no ledger", thing.id, thing.name, thing.saga));
        }
    }
    for seen in moment.sagas().filter(|seen| seen.row.state == SagaState::Completed) {
        let lifted = cluster.yard.lifted(seen.row.id.as_str());
        if seen.row.workflow == "rocket" && lifted != 1 {
            broken.push(format!("{} completed, and lifted off {lifted} times", seen.row.id));
        }
    }
    for seen in moment.sagas().filter(|seen| seen.row.workflow == "rocket") {
        let state = seen.row.state;
        let is_back = matches!(state, SagaState::Compensating | SagaState::Compensated | SagaState::Failed);
        if is_back && cluster.yard.lifted(seen.row.id.as_str()) > 0 {
            broken.push(format!("{} is {state}, and lifted off", seen.row.id));
        }
    }
    broken
}
