//! Views: what a client sees of sagas and resources; our mirror types, not the journal's.

use std::collections::{BTreeMap, BTreeSet};

use amends_engine::data::Reference;
use amends_engine::gate::GateView;
use amends_engine::journal::state::{self, Attention, Phase, SagaState};
use amends_engine::store::{ResourceRow, ResourceState, SagaRow};
use amends_engine::sweep::{CensusRow, FindingClass, FindingRow, Settlement};
use amends_engine::{SagaView, StepKey, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::act::{self, AllowedAct};
use crate::timeline::{self, Timeline, Wait, What};
use crate::words::{self, Why};

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// How to ask for the next one; null on the last.
    pub next_cursor: Option<String>,
}

/// A saga as a list shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saga {
    /// Which.
    pub id: String,
    /// Its definition.
    pub kind: String,
    /// And that one's version.
    pub kind_version: u32,
    /// Where it stands.
    pub state: SagaState,
    /// What a person should know.
    pub attention: Vec<Attention>,
    /// The step that it is at.
    pub step: Option<String>,
    /// Its last failure, in words.
    pub error: Option<String>,
    /// The instance that it is about, if it is about one.
    pub instance: Option<String>,
    /// Whatever else it was labelled with.
    pub labels: BTreeMap<String, String>,
    /// Raised by every change.
    pub version: i64,
    /// When it was asked for.
    pub created_at: String,
    /// When its journal last grew.
    pub updated_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
    /// When something is next to be done; null while it is parked or ended.
    pub next_at: Option<String>,
    /// When it turns round by itself.
    pub deadline_at: Option<String>,
    /// How long it took, or has taken so far.
    pub age: String,
    /// Where to read on.
    pub links: Links,
}

/// Where to read on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// In the API.
    #[serde(rename = "self")]
    pub this: String,
    /// In the dashboard.
    pub ui: String,
}

/// All that is shown of one saga.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SagaDetail {
    /// As in a list.
    #[serde(flatten)]
    pub saga: Saga,
    /// In three sentences.
    pub why: Why,
    /// What it was asked for.
    pub input: Value,
    /// What it yielded.
    pub output: Option<Value>,
    /// The step after which there is only forward, once it has passed.
    pub pivot: Option<String>,
    /// Why and when it turned round.
    pub turned: Option<Turned>,
    /// Until when a call of it that was lost may still take effect; null once none can any more.
    #[serde(default)]
    pub unsettled_until: Option<String>,
    /// A part of its steps, in the order in which they were asked for.
    pub steps: Vec<Step>,
    /// How many it has.
    #[serde(default)]
    pub steps_total: usize,
    /// The last of them here, if there are more: `steps_after` it they go on.
    #[serde(default)]
    pub next_steps: Option<String>,
    /// Steps of the other parts of which a person should know, at most fifty.
    #[serde(default)]
    pub steps_in_need: Vec<Step>,
    /// What it made or may have made outside, the newest first; at most 200, `/v1/resources?saga=` has all.
    pub resources: Vec<Resource>,
    /// What a person can do now.
    pub allowed_actions: Vec<AllowedAct>,
}

/// Why and when a saga turned round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turned {
    /// When.
    pub at: String,
    /// In one word.
    pub cause: String,
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub key: String,
    /// The activity; null for timers, signals and drawn values.
    pub activity: Option<String>,
    /// Where it stands.
    pub phase: String,
    /// The steps it depends on.
    pub after: Vec<String>,
    /// After it, only forward.
    pub pivot: bool,
    /// Whether it runs in our own database.
    pub local: bool,
    /// When something happens to it by itself.
    pub next_at: Option<String>,
    /// Until when a call of it that was lost may still take effect; null once none can any more.
    #[serde(default)]
    pub unsettled_until: Option<String>,
    /// Until when its next call is held back, because a lost call to the same thing may still take effect.
    #[serde(default)]
    pub held_until: Option<String>,
    /// What it was asked; null where one of `references` stands.
    pub input: Option<Value>,
    /// The places in it that hold what other steps made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// What it yielded.
    pub output: Option<Value>,
    /// Why it was refused.
    pub refusal: Option<String>,
    /// The ledger row of what it makes.
    pub resource: Option<String>,
    /// Its attempts, forward and back, oldest first; the last hundred.
    pub attempts: Vec<Attempt>,
    /// How many there were before those.
    #[serde(default, skip_serializing_if = "is_none")]
    pub attempts_before: usize,
}

fn is_none(number: &usize) -> bool {
    *number == 0
}

/// At most so many steps are shown at a time.
pub const STEPS_MAX: usize = 200;
/// And no further one once what they were asked and what they yielded comes to so many bytes.
const STEPS_BYTES_MAX: usize = 4 << 20;
/// So many steps of other parts are shown since a person should know of them.
const IN_NEED_MAX: usize = 50;
/// So many attempts of a step are shown.
const ATTEMPTS_MAX: usize = 100;
/// So many things outside are shown.
const RESOURCES_MAX: usize = 200;
/// So many spans, marks and things stand on the row of a step.
const SPANS_MAX: usize = 200;

/// Some of a saga's steps.
#[derive(Debug)]
pub struct Part<'s> {
    /// In the order in which they were asked for.
    pub steps: Vec<&'s state::Step>,
    /// Whether others come behind them.
    pub is_cut: bool,
    /// Others of which a person should know, before and behind, and not too many.
    pub in_need: Vec<&'s state::Step>,
}

/// The steps behind this one, or from the first on: as many as fit. Behind a step that there is not there are none.
pub fn part<'s>(
    steps: &'s [state::Step],
    after: Option<&StepKey>,
    is_in_need: impl Fn(&state::Step) -> bool,
) -> Part<'s> {
    let from = match after {
        None => 0,
        Some(after) => steps.iter().position(|step| step.key == *after).map_or(steps.len(), |at| at + 1),
    };
    let mut bytes = 0_usize;
    let fit = steps[from..].iter().take(STEPS_MAX).take_while(|step| {
        let fits = bytes < STEPS_BYTES_MAX;
        bytes = bytes.saturating_add(size(step));
        fits
    });
    let shown = fit.count();
    let (before, rest) = steps.split_at(from);
    let (shown, behind) = rest.split_at(shown);
    let in_need = before.iter().chain(behind).filter(|step| is_in_need(step)).take(IN_NEED_MAX).collect();
    Part { steps: shown.iter().collect(), is_cut: !behind.is_empty(), in_need }
}

/// How many bytes what it was asked and what it yielded come to.
fn size(step: &state::Step) -> usize {
    let asked = step.asked.as_ref().map_or(0, |asked| asked.input.to_string().len());
    asked.saturating_add(step.output.as_ref().map_or(0, |output| output.to_string().len()))
}

/// One attempt of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// `forward`, `undo` or `clearing`.
    pub lane: String,
    /// 1 for the first.
    pub number: u32,
    /// When it began.
    pub began_at: String,
    /// How long it took; null while it is under way.
    pub took: Option<String>,
    /// `under_way`, `ok`, `refused`, `unavailable` or `no_answer`.
    pub outcome: String,
    /// What stood in the way.
    pub cause: Option<String>,
    /// In words.
    pub detail: Option<String>,
    /// When the next attempt, or the next look, is or was due.
    pub next_at: Option<String>,
}

/// One thing outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// The ledger row's own id.
    pub id: String,
    /// Who holds it outside.
    pub provider: String,
    /// What it is.
    pub kind: String,
    /// The name by which it is found again.
    pub name: String,
    /// The provider's id, once known.
    pub external_id: Option<String>,
    /// Where it stands.
    pub state: ResourceState,
    /// The saga or the owner who holds the row.
    pub holder: String,
    /// The saga that made it.
    pub saga: String,
    /// The step that made it.
    pub step: String,
    /// The row in which it lives, and with which it goes.
    pub within: Option<String>,
    /// When it was named.
    pub intended_at: String,
    /// When it last changed.
    pub changed_at: String,
}

/// One gate: a credential, or a credential and an operation, that calls have to pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// The credential, or the credential and the operation.
    pub key: String,
    /// `open`, `closed`, or `probing` while calls go on in growing waves after it was closed.
    pub state: String,
    /// Who closed it: `breaker`, `provider` or `person`.
    pub closed_by: Option<String>,
    /// Why it is closed.
    pub closed_reason: Option<String>,
    /// Since when it is closed.
    pub closed_since: Option<String>,
    /// When it opens by itself; null while it is closed if a person has to open it.
    pub closed_until: Option<String>,
    /// How many forward steps wait at it.
    pub waiting: u32,
    /// How many compensations wait at it.
    pub waiting_compensations: u32,
    /// How many permits workers hold: calls that are under way, or may be.
    pub permits_held: u32,
    /// What people did to it, oldest first; the last hundred.
    pub acts: Vec<GateAct>,
    /// Why it cannot be moved, so that nobody who waits there is let go; null while it can.
    pub trouble: Option<String>,
}

/// What a person did to a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateAct {
    /// `open` or `close`.
    pub kind: String,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: String,
}

impl Gate {
    /// A gate as it is now.
    pub fn of(gate: &GateView) -> Self {
        let closed = gate.closed.as_ref();
        let state = match (closed, gate.wave) {
            (Some(_), _) => "closed",
            (None, Some(_)) => "probing",
            (None, None) => "open",
        };
        let acts = gate.acts.iter().map(|act| GateAct {
            kind: if act.opened { "open" } else { "close" }.to_owned(),
            actor: act.actor.clone(),
            reason: act.reason.clone(),
            at: act.at.to_string(),
        });
        Self {
            key: gate.key.clone(),
            state: state.to_owned(),
            closed_by: closed.map(|closed| closed.by.to_string()),
            closed_reason: closed.map(|closed| closed.reason.clone()),
            closed_since: closed.map(|closed| closed.since.to_string()),
            closed_until: text(closed.and_then(|closed| closed.until)),
            waiting: gate.queue.forward,
            waiting_compensations: gate.queue.undo,
            permits_held: gate.in_hand,
            acts: acts.collect(),
            trouble: gate.trouble.clone(),
        }
    }
}

/// One thing in which a provider and the ledger differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which.
    pub id: String,
    /// At which provider.
    pub provider: String,
    /// In what way it differs.
    pub class: FindingClass,
    /// What the thing is.
    pub kind: String,
    /// The provider's id of it.
    pub external_id: String,
    /// The name it bears.
    pub name: String,
    /// The account it is in, where there are several.
    pub account: Option<String>,
    /// The ledger row that it is about.
    pub resource: Option<String>,
    /// Who holds that row.
    pub holder: Option<String>,
    /// In words, what differs.
    pub detail: Option<String>,
    /// When it was first seen.
    pub first_seen_at: String,
    /// When it was last seen.
    pub last_seen_at: String,
    /// With how many censuses.
    pub times_seen: i64,
    /// The saga that removes it.
    pub removal: Option<String>,
    /// How it came to its end; null while it is open.
    pub settled: Option<Settlement>,
    /// When it did.
    pub settled_at: Option<String>,
    /// Who settled it: a person, a saga or the sweep.
    pub settled_by: Option<String>,
    /// Why, where somebody said.
    pub reason: Option<String>,
}

/// How old what is known of a provider is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Census {
    /// Whose.
    pub provider: String,
    /// When the last census that is believed was made; null if there was none.
    pub completed_at: Option<String>,
    /// How long ago that is.
    pub age: Option<String>,
    /// How many things it showed.
    pub things: i64,
    /// Why there is no newer one.
    pub problem: Option<String>,
    /// How many in a row were not believed.
    pub failures: i64,
    /// When the next one is made.
    pub next_at: String,
}

impl Finding {
    /// A row.
    pub fn of(row: &FindingRow) -> Self {
        let settled = row.settled.as_ref();
        Self {
            id: row.id.to_string(),
            provider: row.provider.clone(),
            class: row.class,
            kind: row.kind.clone(),
            external_id: row.external_id.clone(),
            name: row.name.clone(),
            account: row.account.clone(),
            resource: row.resource.as_ref().map(ToString::to_string),
            holder: row.holder.clone(),
            detail: row.detail.clone(),
            first_seen_at: row.first_seen_at.to_string(),
            last_seen_at: row.last_seen_at.to_string(),
            times_seen: row.times_seen,
            removal: row.removal.as_ref().map(ToString::to_string),
            settled: settled.map(|settled| settled.how),
            settled_at: settled.map(|settled| settled.at.to_string()),
            settled_by: settled.map(|settled| settled.by.clone()),
            reason: settled.and_then(|settled| settled.reason.clone()),
        }
    }
}

impl Census {
    /// A row, as it is at `now`.
    pub fn of(row: &CensusRow, now: Timestamp) -> Self {
        let whole = |age: std::time::Duration| std::time::Duration::from_secs(age.as_secs());
        Self {
            provider: row.provider.clone(),
            completed_at: row.completed_at.map(|at| at.to_string()),
            age: row.age(now).map(|age| humantime::format_duration(whole(age)).to_string()),
            things: row.things,
            problem: row.problem.as_ref().map(|(problem, _)| problem.clone()),
            failures: row.failures,
            next_at: row.next_at.to_string(),
        }
    }
}

/// The label under which a saga names its instance.
pub const INSTANCE_LABEL: &str = "instance";

impl Saga {
    /// A row, as it is at `now`.
    pub fn of(row: &SagaRow, now: Timestamp) -> Self {
        let mut labels = row.labels.clone();
        let instance = labels.remove(INSTANCE_LABEL);
        Self {
            id: row.id.to_string(),
            kind: row.workflow.clone(),
            kind_version: row.workflow_version,
            state: row.state,
            attention: row.attention.clone(),
            step: row.step.clone(),
            error: row.error.clone(),
            instance,
            labels,
            version: row.seq,
            created_at: row.created_at.to_string(),
            updated_at: row.updated_at.to_string(),
            ended_at: text(row.ended_at),
            next_at: text(row.due_at),
            deadline_at: text(row.deadline_at),
            age: words::span(row.ended_at.unwrap_or(now).since(row.created_at)),
            links: Links { this: format!("/v1/sagas/{}", row.id), ui: format!("/sagas/{}", row.id) },
        }
    }
}

impl SagaDetail {
    /// A saga with its first steps, as it is at `now`.
    pub fn of(view: &SagaView, now: Timestamp) -> Self {
        Self::behind(view, None, now).0
    }

    /// A saga with its steps behind this one, as it is at `now`, and the timeline of those that are shown.
    pub fn behind(view: &SagaView, after: Option<&StepKey>, now: Timestamp) -> (Self, Timeline) {
        let state = &view.state;
        let is_in_need = |step: &state::Step| !step.attention(now).is_empty();
        let Part { steps, is_cut, in_need } = part(state.steps(), after, is_in_need);
        let shown: BTreeSet<StepKey> = steps.iter().chain(&in_need).map(|step| step.key.clone()).collect();
        let timeline = timeline::timeline(&view.entries);
        let show =
            |step: &&state::Step| Step::of(step, timeline.row_of(&step.key), state.pivot.as_ref(), now);
        let next_steps = steps.last().filter(|_| is_cut).map(|step| step.key.to_string());
        let lost = state.steps().iter().filter_map(lost_until);
        // What it took over may have come with calls that others lost.
        let came = view.resources.iter().filter_map(|row| row.unsettled_until);
        let detail = Self {
            saga: Saga::of(&view.row, now),
            why: words::why(view, now),
            input: state.input.clone(),
            output: state.output.clone(),
            pivot: state.pivot.as_ref().map(ToString::to_string),
            turned: state.unwinding.as_ref().map(|unwinding| Turned {
                at: unwinding.since.to_string(),
                cause: unwinding.cause.to_string(),
                code: unwinding.refusal.code.clone(),
                message: unwinding.refusal.message.clone(),
            }),
            unsettled_until: text(lost.chain(came).max().filter(|until| *until > now)),
            steps: steps.iter().map(show).collect(),
            steps_total: state.steps().len(),
            next_steps,
            steps_in_need: in_need.iter().map(show).collect(),
            resources: view.resources.iter().take(RESOURCES_MAX).map(Resource::of).collect(),
            allowed_actions: act::allowed(state, now),
        };
        (detail, timeline.only(&shown, SPANS_MAX))
    }
}

impl Step {
    fn of(
        step: &amends_engine::journal::state::Step,
        row: Option<&timeline::Row>,
        pivot: Option<&StepKey>,
        now: Timestamp,
    ) -> Self {
        let asked = step.asked.as_ref();
        let mut attempts = row.map(attempts).unwrap_or_default();
        let attempts_before = attempts.len().saturating_sub(ATTEMPTS_MAX);
        attempts.drain(..attempts_before);
        let phase = if step.at_gate.is_some() { "at_gate" } else { phase(&step.phase) };
        Self {
            key: step.key.to_string(),
            activity: asked.map(|asked| asked.activity.clone()),
            phase: phase.to_owned(),
            after: asked
                .map(|asked| asked.after.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            pivot: pivot == Some(&step.key) || asked.is_some_and(|asked| asked.pivot),
            local: asked.is_some_and(|asked| asked.local.is_some()),
            next_at: text(step.next_at()),
            unsettled_until: text(lost_until(step).filter(|until| *until > now)),
            held_until: text(step.waits_out.map(|(_, until)| until).filter(|until| *until > now)),
            input: asked.map(|asked| asked.input.clone()),
            references: asked.map(|asked| asked.references.clone()).unwrap_or_default(),
            output: step.output.clone(),
            refusal: step.refusal.as_ref().map(ToString::to_string),
            resource: step.resource.as_ref().map(ToString::to_string),
            attempts,
            attempts_before,
        }
    }
}

/// Until when a lost call of a step, forward or back, may still take effect.
fn lost_until(step: &amends_engine::journal::state::Step) -> Option<Timestamp> {
    step.unsettled_until().max(step.undo_lost_until)
}

/// The attempts on a row, each with when the next one was due.
fn attempts(row: &timeline::Row) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = Vec::new();
    for span in &row.spans {
        match &span.what {
            What::Attempt { lane, number, outcome, cause, detail } => attempts.push(Attempt {
                lane: lane.to_string(),
                number: *number,
                began_at: span.from.to_string(),
                took: span.to.map(|to| words::span(to.since(span.from))),
                outcome: outcome.to_string(),
                cause: cause.map(|cause| cause.to_string()),
                detail: detail.clone(),
                next_at: None,
            }),
            What::Wait { why: Wait::Retry | Wait::Gate | Wait::Doubt, until } => {
                if let Some(last) = attempts.last_mut() {
                    last.next_at = text(*until);
                }
            }
            What::Wait { .. } => {}
        }
    }
    attempts
}

/// A step's phase in one word.
fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Trying { .. } => "trying",
        Phase::Deferred { .. } => "deferred",
        Phase::InDoubt { .. } => "in_doubt",
        Phase::Undecidable => "undecidable",
        Phase::Waiting { .. } => "waiting",
        Phase::Registered => "put_off",
        Phase::Child => "child_runs",
        Phase::Completed => "completed",
        Phase::Refused => "refused",
        Phase::Removing { .. } => "removing",
        Phase::Undone => "undone",
        Phase::Skipped(_) => "skipped",
    }
}

impl Resource {
    /// A ledger row.
    pub fn of(row: &ResourceRow) -> Self {
        Self {
            id: row.id.to_string(),
            provider: row.provider.clone(),
            kind: row.kind.clone(),
            name: row.name.clone(),
            external_id: row.external_id.clone(),
            state: row.state,
            holder: row.holder.clone(),
            saga: row.saga.to_string(),
            step: row.step.to_string(),
            within: row.within.as_ref().map(ToString::to_string),
            intended_at: row.intended_at.to_string(),
            changed_at: row.changed_at.to_string(),
        }
    }
}

fn text(at: Option<Timestamp>) -> Option<String> {
    at.and_then(Timestamp::ever).map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_saga_is_shown_with_steps_attempts_resources_and_what_can_be_done() {
        let detail = SagaDetail::of(&samples::stuck().view(), samples::at(300_100));
        insta::assert_json_snapshot!(detail);
        let sent = serde_json::to_value(&detail).unwrap();
        let read: SagaDetail = serde_json::from_value(sent.clone()).unwrap();
        assert!(serde_json::to_value(read).unwrap() == sent, "a client that sends it on sends the same");
    }

    #[test]
    fn what_is_due_at_no_time_is_shown_without_one() {
        let detail = SagaDetail::of(&samples::without_end().view(), samples::at(300_000));
        let sent = serde_json::to_string(&detail).unwrap();
        assert!(!samples::says_never(&sent), "{sent}");
        assert_eq!(detail.saga.next_at, None);
        assert!(detail.steps.iter().all(|step| step.next_at.is_none()), "{sent}");
        assert!(detail.why.now.contains("a new token comes"), "{:?}", detail.why.now);
        assert!(detail.why.you.contains("open gate railway"), "{:?}", detail.why.you);
    }

    fn long(steps: usize, output: &str) -> SagaView {
        let mut journal = samples::Journal::of("long");
        for number in 0..steps {
            let key = format!("step-{number}");
            journal = journal.tries(5, &key, "test.make", None).completes(6, &key, Some(output));
        }
        journal.view()
    }

    #[test]
    fn every_step_is_in_one_part_and_none_is_too_long() {
        for (steps, output, sizes) in [
            (0, "", vec![0]),
            (STEPS_MAX, "", vec![STEPS_MAX]),
            (2 * STEPS_MAX + 1, "", vec![STEPS_MAX, STEPS_MAX, 1]),
            // Of large ones there are fewer, and one at the least.
            (5, &*"x".repeat(STEPS_BYTES_MAX / 2), vec![2, 2, 1]),
            (2, &*"x".repeat(STEPS_BYTES_MAX), vec![1, 1]),
        ] {
            let view = long(steps, output);
            let (mut keys, mut seen, mut after) = (Vec::new(), Vec::new(), None);
            loop {
                let (detail, timeline) = SagaDetail::behind(&view, after.as_ref(), samples::at(10));
                assert_eq!((timeline.rows.len(), detail.steps_total), (detail.steps.len(), steps));
                seen.push(detail.steps.len());
                keys.extend(detail.steps.into_iter().map(|step| step.key));
                let Some(next) = detail.next_steps else { break };
                after = Some(StepKey::parse(&next).unwrap());
            }
            assert_eq!(seen, sizes, "{steps} steps");
            let wanted: Vec<String> = (0..steps).map(|number| format!("step-{number}")).collect();
            assert_eq!(keys, wanted);
        }
        let (none, _) = SagaDetail::behind(&long(3, ""), Some(&"elsewhere".into()), samples::at(10));
        assert!(none.steps.is_empty() && none.next_steps.is_none());
    }

    #[test]
    fn a_step_of_which_a_person_should_know_is_shown_with_each_part() {
        let view = long(500, "");
        let is_in_need = |key: &'static str| move |step: &state::Step| step.key == StepKey::from(key);
        let keys = |steps: &[&state::Step]| steps.iter().map(|step| step.key.to_string()).collect::<Vec<_>>();
        for (after, key, in_need) in [
            (None, "step-450", 1),
            (None, "step-10", 0),
            (Some("step-300"), "step-10", 1),
            (Some("step-300"), "step-301", 0),
        ] {
            let after = after.map(StepKey::from);
            let part = part(view.state.steps(), after.as_ref(), is_in_need(key));
            assert_eq!(part.in_need.len(), in_need, "{key}");
            let all = [keys(&part.steps), keys(&part.in_need)].concat();
            assert_eq!(all.iter().filter(|shown| *shown == key).count(), 1, "{key} is shown once");
        }
        assert_eq!(part(view.state.steps(), None, |_| true).in_need.len(), IN_NEED_MAX);
    }

    #[test]
    fn of_a_step_that_is_tried_again_and_again_the_last_attempts_are_shown() {
        let mut journal = samples::Journal::of("long").tries(5, "one", "test.make", None);
        for attempt in 1..=300 {
            let ms = i64::from(attempt) * 1_000;
            journal = journal.deferred(ms, "one", attempt, "it is down", ms + 500);
            journal = journal.again(ms + 500, "one", attempt + 1);
        }
        let detail = SagaDetail::of(&journal.view(), samples::at(301_000));
        let step = &detail.steps[0];
        assert_eq!((step.attempts.len(), step.attempts_before), (ATTEMPTS_MAX, 301 - ATTEMPTS_MAX));
        assert_eq!(step.attempts.last().unwrap().number, 301);
    }
}
