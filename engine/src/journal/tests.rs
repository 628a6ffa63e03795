//! Totality: every fact has a shape that stays, and every pair of fact and phase has a verdict.

use std::fmt::Write as _;

use strum::IntoEnumIterator;

use super::act::{Act, ActKind, Verdict};
use super::event::{
    Asked, ChildFate, ChildRule, Event, EventKind, FoundKind, Named, Parent, SkipReason, UnwindCause,
};
use super::failure::{Cause, Refusal};
use super::state::{Attention, SagaState};
use super::{Entry, State, story, why};
use crate::activity::{Effect, Resource};
use crate::data::{Input, Reference};
use crate::env::Timestamp;
use crate::gate::Lane;
use crate::ids::{OperationId, ResourceId, SagaId, StepKey};
use crate::store::{ResourceRow, ResourceState};

fn saga() -> SagaId {
    SagaId::stored("sg_1")
}

fn asked() -> Box<Asked> {
    let input = serde_json::json!({"name": "amends-dev-1", "on": null});
    let references = vec![Reference { at: "/on".into(), step: "plan".into() }];
    let input = Input { value: input, references };
    let after = vec!["plan".into()];
    Box::new(Asked {
        effect: Effect::Searchable { settle_after: crate::secs(31) },
        settle_after: crate::secs(31),
        ..Asked::bare("railway.create_project", input, after, Vec::new(), Timestamp(9_000_000))
    })
}

/// One fact of each kind, about the step `project`.
fn sample(kind: EventKind) -> Event {
    let step = StepKey::from("project");
    let at = Timestamp(5_000_000);
    let detail = || "in words".to_owned();
    let refusal = || Refusal { code: "limit".into(), message: "no more projects".into() };
    match kind {
        EventKind::SagaStarted => Event::SagaStarted {
            workflow: "replenish".into(),
            workflow_version: 1,
            input: serde_json::json!({"pool": "p"}),
            deadline_at: Some(at),
            labels: [("instance".to_owned(), "in_1".to_owned())].into(),
            start_at: Some(at),
            parent: Some(Parent { saga: SagaId::stored("sg_0"), step: "child".into() }),
        },
        EventKind::AttemptStarted => Event::AttemptStarted {
            step,
            attempt: 1,
            generation: 1,
            not_after: at,
            asked: Some(asked()),
            resource: Some(Box::new(Named {
                id: ResourceId::stored("rs_1"),
                resource: Resource::new("railway", "project", "amends-dev-1"),
            })),
        },
        EventKind::AttemptDeferred => Event::AttemptDeferred {
            step,
            attempt: Some(1),
            cause: Cause::RateLimited,
            detail: detail(),
            retry_at: at,
            gate: None,
            asked: None,
            fingerprint: "fp1:0".into(),
            bookmark: None,
        },
        EventKind::AttemptLost => {
            let fingerprint = "fp1:0".into();
            Event::AttemptLost {
                step,
                attempt: 1,
                cause: Cause::Timeout,
                detail: detail(),
                look_at: at,
                fingerprint,
            }
        }
        EventKind::WriteHeld => Event::WriteHeld { step, until: at, asked: None },
        EventKind::AbsenceSeen => Event::AbsenceSeen { step, look_at: at, counts: true, by_hand: false },
        EventKind::StepFound => Event::StepFound {
            step,
            found: FoundKind::Usable,
            output: Some("made".into()),
            external_id: Some("prj_1".into()),
        },
        EventKind::StepCompleted => {
            let (output, external_id) = ("made".into(), Some("prj_1".into()));
            Event::StepCompleted { step, output, external_id, by_hand: false }
        }
        EventKind::StepFailed => Event::StepFailed { step, refusal: refusal(), fingerprint: "fp1:0".into() },
        EventKind::PivotPassed => Event::PivotPassed { step },
        EventKind::ScopeUnwound => Event::ScopeUnwound { scope: "tools".into() },
        EventKind::TimerSet => Event::TimerSet { step, due_at: at, signal: Some("accepted".into()) },
        EventKind::TimerFired => Event::TimerFired { step },
        EventKind::SignalReceived => Event::SignalReceived { step, value: true.into() },
        EventKind::ValueDrawn => Event::ValueDrawn { step, value: 7.into() },
        EventKind::ChildStarted => {
            let asked = Box::new(Asked { child: Some(ChildRule::Called), ..*asked() });
            Event::ChildStarted { step, child: SagaId::stored("sg_2"), asked: Some(asked) }
        }
        EventKind::ChildEnded => Event::ChildEnded {
            step,
            child: SagaId::stored("sg_2"),
            fate: ChildFate::Done,
            output: Some("done".into()),
            refusal: None,
        },
        EventKind::ResultOffered => {
            Event::ResultOffered { output: "done".into(), owner: Some("in_1".into()) }
        }
        EventKind::ParentEnded => Event::ParentEnded {},
        EventKind::RaceDecided => Event::RaceDecided {
            scope: "race".into(),
            winner: ["race", "a/1"].into(),
            losers: vec![["race", "b"].into()],
        },
        EventKind::DeferRegistered => {
            Event::DeferRegistered { step, asked: Box::new(Asked { deferred: true, ..*asked() }) }
        }
        EventKind::LabelSet => {
            let step = Some(StepKey::root().beside("label").child("instance"));
            Event::LabelSet { step, name: "instance".into(), value: "in_1".into() }
        }
        EventKind::Paused => Event::Paused { until: at, actor: "ann".into(), reason: detail() },
        EventKind::Resumed => Event::Resumed { actor: Some("ann".into()) },
        EventKind::Parked => Event::Parked { attention: Attention::NoWorker, detail: detail() },
        EventKind::CancelRequested => Event::CancelRequested { actor: "ann".into(), reason: detail() },
        EventKind::UnwindingStarted => {
            Event::UnwindingStarted { cause: UnwindCause::Refused, refusal: refusal() }
        }
        EventKind::CompensationStarted => Event::CompensationStarted { step, attempt: 1, not_after: at },
        EventKind::CompensationDeferred => Event::CompensationDeferred {
            step,
            cause: Some(Cause::ServerError),
            detail: detail(),
            retry_at: at,
            gate: None,
            fingerprint: "fp1:0".into(),
        },
        EventKind::CompensationLost => {
            let (cause, detail, fingerprint) = (Cause::Timeout, detail(), "fp1:0".into());
            Event::CompensationLost { step, cause, detail, retry_at: at, fingerprint }
        }
        EventKind::StepCompensated => Event::StepCompensated { step, by_hand: false },
        EventKind::StepSkipped => Event::StepSkipped { step, reason: SkipReason::Within, to: None },
        EventKind::ScopeTurned => Event::ScopeTurned { scope: "tools".into(), refusal: refusal() },
        EventKind::ResourceGone => Event::ResourceGone { resource: ResourceId::stored("rs_1"), step },
        EventKind::ResourceTaken => Event::ResourceTaken {
            row: Box::new(ResourceRow {
                id: ResourceId::stored("rs_9"),
                provider: "openrouter".into(),
                kind: "key".into(),
                name: "amends-dev-1".into(),
                external_id: Some("hash".into()),
                state: ResourceState::Live,
                holder: "in_1".into(),
                keeper: None,
                saga: SagaId::stored("sg_0"),
                step: "llm-key".into(),
                within: None,
                rev: 3,
                intended_at: at,
                changed_at: at,
                unsettled_until: Some(at),
            }),
        },
        EventKind::OperatorIntervened => Event::OperatorIntervened {
            operation: OperationId::stored("op_1"),
            act: Act::Retry,
            actor: "ann".into(),
            reason: detail(),
        },
        EventKind::SagaCompleted => {
            Event::SagaCompleted { output: "done".into(), owner: Some("in_1".into()) }
        }
        EventKind::SagaCompensated => Event::SagaCompensated {},
        EventKind::SagaFailed => Event::SagaFailed { refusal: refusal() },
    }
}

fn journal(kinds: &[EventKind]) -> Vec<Entry> {
    let entry = |(seq, kind): (i64, &EventKind)| {
        let mut event = sample(*kind);
        // A second attempt names nothing again.
        if let Event::AttemptStarted { attempt, asked, resource, .. } = &mut event
            && kinds.iter().take(usize::try_from(seq - 1).unwrap()).any(|earlier| earlier == kind)
        {
            (*attempt, *asked, *resource) = (2, None, None);
        }
        Entry { seq, at: Timestamp(seq * 1_000_000), epoch: 1, event }
    };
    (1..).zip(kinds).map(entry).collect()
}

/// A journal that leads into each phase of a step.
fn phases() -> Vec<(&'static str, Vec<EventKind>)> {
    use EventKind as K;
    let begun = [K::SagaStarted, K::AttemptStarted];
    let after = |more: &[EventKind]| [&begun, more].concat();
    vec![
        ("new", vec![K::SagaStarted]),
        ("trying", after(&[])),
        ("deferred", after(&[K::AttemptDeferred])),
        ("in doubt", after(&[K::AttemptLost])),
        ("waiting", vec![K::SagaStarted, K::TimerSet]),
        ("completed", after(&[K::StepCompleted])),
        ("refused", after(&[K::StepFailed])),
        ("completed, unwinding", after(&[K::StepCompleted, K::UnwindingStarted])),
        ("being undone", after(&[K::StepCompleted, K::UnwindingStarted, K::CompensationStarted])),
        (
            "undo waits",
            after(&[K::StepCompleted, K::UnwindingStarted, K::CompensationStarted, K::CompensationDeferred]),
        ),
        (
            "undone",
            after(&[K::StepCompleted, K::UnwindingStarted, K::CompensationStarted, K::StepCompensated]),
        ),
        ("in doubt, unwinding", after(&[K::AttemptLost, K::UnwindingStarted])),
        ("put off", vec![K::SagaStarted, K::DeferRegistered]),
        ("called", vec![K::SagaStarted, K::ChildStarted]),
        ("paused", after(&[K::AttemptDeferred, K::Paused])),
        ("no worker", after(&[K::AttemptDeferred, K::Parked])),
        ("offered", after(&[K::StepCompleted, K::ResultOffered])),
        ("ended", after(&[K::StepCompleted, K::SagaCompleted])),
    ]
}

#[test]
fn every_fact_keeps_its_shape() {
    let lines: Vec<String> =
        EventKind::iter().map(|kind| serde_json::to_string(&sample(kind)).unwrap()).collect();
    for (kind, line) in EventKind::iter().zip(&lines) {
        let event: Event = serde_json::from_str(line).unwrap();
        assert_eq!(event, sample(kind));
        assert_eq!(event.name(), kind.to_string());
    }
    insta::assert_snapshot!(lines.join("\n"));
}

/// Whether a fact may follow in each of the phases.
fn verdicts() -> Vec<(&'static str, Vec<EventKind>)> {
    let legal_in = |(name, kinds): (&'static str, Vec<EventKind>)| {
        let state = State::fold(saga(), &journal(&kinds)).unwrap();
        let legal = EventKind::iter().filter(|kind| {
            let mut event = sample(*kind);
            if name != "new"
                && let Event::AttemptStarted { asked, resource, .. } = &mut event
            {
                (*asked, *resource) = (None, None);
            }
            let entry = Entry { seq: state.seq + 1, at: Timestamp(99_000_000), epoch: 1, event };
            state.clone().apply(&entry).is_ok()
        });
        (name, legal.collect())
    };
    phases().into_iter().map(legal_in).collect()
}

#[test]
fn every_fact_has_a_verdict_in_every_phase() {
    let mut table = String::new();
    for (name, legal) in verdicts() {
        let legal: Vec<String> = legal.iter().map(ToString::to_string).collect();
        writeln!(table, "{name}: {}", legal.join(" ")).unwrap();
    }
    insta::assert_snapshot!(table);
}

/// The first line of what the source says of each fact.
fn meaning(kind: EventKind) -> String {
    let variant = format!("{kind:?} {{");
    let mut said = Vec::new();
    for line in include_str!("event.rs").lines() {
        match line.strip_prefix("    /// ") {
            Some(text) => said.push(text),
            None if line.trim_start().starts_with(&variant) => return said.join(" "),
            None => said.clear(),
        }
    }
    panic!("{kind} has no line of documentation");
}

/// `AMENDS_WRITE_DOCS=1 cargo test -p amends-engine --lib docs` writes what this compares.
#[test]
fn the_docs_have_the_table_of_the_match() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/journal.md");
    // The docs are not part of the engine's package.
    let Ok(docs) = std::fs::read_to_string(path) else { return };
    let (open, shut) = ("<!-- made from the code: begin -->\n", "<!-- made from the code: end -->");
    let (before, rest) = docs.split_once(open).unwrap();
    let (table, after) = rest.split_once(shut).unwrap();
    let verdicts = verdicts();
    let mut made = "| fact | what it says | may follow |\n|---|---|---|\n".to_owned();
    for kind in EventKind::iter() {
        let (yes, no): (Vec<_>, Vec<_>) = verdicts.iter().partition(|(_, legal)| legal.contains(&kind));
        let names = |of: Vec<&(&'static str, _)>| of.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let (yes, no) = (names(yes), names(no));
        let may = match (yes.len(), no.len()) {
            (0, _) => "see below".to_owned(),
            (_, few) if few < 6 => format!("always, but: {}", no.join("; ")),
            _ => yes.join("; "),
        };
        writeln!(made, "| `{kind}` | {} | {may} |", meaning(kind)).unwrap();
    }
    if std::env::var_os("AMENDS_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{open}{made}{shut}{after}")).unwrap();
    } else {
        assert_eq!(table, made, "docs/journal.md is not what the code says");
    }
}

#[test]
fn the_database_knows_the_same_words() {
    let quoted =
        |names: Vec<String>| names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    for sql in [
        include_str!("../../migrations/sqlite/0001_saga_and_journal.sql"),
        include_str!("../../migrations/postgres/0001_saga_and_journal.sql"),
    ] {
        assert!(sql.contains(&quoted(SagaState::iter().map(|state| state.to_string()).collect())));
        assert!(sql.contains(&quoted(ResourceState::iter().map(|state| state.to_string()).collect())));
        assert!(sql.contains(&quoted(Lane::iter().map(|lane| lane.to_string()).collect())));
    }
}

#[test]
fn an_answer_lost_and_a_stuck_undo_read_as_a_story() {
    use EventKind as K;
    let kinds = [
        K::SagaStarted,
        K::AttemptStarted,
        K::AttemptLost,
        K::StepFound,
        K::UnwindingStarted,
        K::CompensationStarted,
        K::CompensationDeferred,
    ];
    let entries = journal(&kinds);
    let state = State::fold(saga(), &entries).unwrap();
    let why = why(&state, Timestamp(4_000_000));
    let text = format!("{}\n{}\n{}\n{}", story(&saga(), &entries), why.happened, why.now, why.you);
    insta::assert_snapshot!(text);
}

#[test]
fn every_act_keeps_its_shape_and_has_a_verdict_in_every_phase() {
    let step = || StepKey::from("project");
    let sample = |kind: ActKind| match kind {
        ActKind::Retry => Act::Retry,
        ActKind::Pause => Act::Pause { until: Timestamp(99_000_000) },
        ActKind::Resume => Act::Resume,
        ActKind::Cancel => Act::Cancel,
        ActKind::Policy => Act::Policy { step: step(), max_wait: crate::secs(30) },
        ActKind::FailAttempt => Act::FailAttempt { step: step() },
        ActKind::Settle => Act::Settle { step: step(), verdict: Verdict::Absent },
        ActKind::Done => Act::Done { step: step(), output: Some("made".into()) },
        ActKind::Skip => Act::Skip { step: step() },
        ActKind::Patch => {
            let references = vec![Reference { at: "/on".into(), step: "plan".into() }];
            let input = serde_json::json!({"name": "b", "on": null});
            Act::Patch { step: step(), input, references }
        }
        ActKind::Release => Act::Release { step: step(), owner: "in_2".into() },
    };
    let mut table = String::new();
    for kind in ActKind::iter() {
        let line = serde_json::to_string(&sample(kind)).unwrap();
        assert_eq!(serde_json::from_str::<Act>(&line).unwrap(), sample(kind));
        writeln!(table, "{line}").unwrap();
        for (name, kinds) in phases() {
            let state = State::fold(saga(), &journal(&kinds)).unwrap();
            let problem = sample(kind).problem(&state, Timestamp(98_000_000));
            writeln!(table, "  {name}: {}", problem.as_deref().unwrap_or("yes")).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

/// A lost call of the branch that a race dropped is looked for; once it is known that it never happened, and the branch
/// is taken back, it is not made again.
#[test]
fn a_step_of_a_branch_that_was_taken_back_is_not_tried_again() {
    let step = || StepKey::from(["race", "slow", "rope"]);
    let events = [
        sample(EventKind::SagaStarted),
        Event::AttemptStarted {
            step: step(),
            attempt: 1,
            generation: 1,
            not_after: Timestamp(9),
            asked: Some(asked()),
            resource: None,
        },
        Event::RaceDecided {
            scope: "race".into(),
            winner: ["race", "quick"].into(),
            losers: vec![["race", "slow"].into()],
        },
        Event::AttemptLost {
            step: step(),
            attempt: 1,
            cause: Cause::Reset,
            detail: "lost".into(),
            look_at: Timestamp(9),
            fingerprint: String::new(),
        },
        Event::StepFound { step: step(), found: FoundKind::Nothing, output: None, external_id: None },
        Event::ScopeUnwound { scope: ["race", "slow"].into() },
    ];
    let entry = |(seq, event): (i64, Event)| Entry { seq, at: Timestamp(seq), epoch: 1, event };
    let entries: Vec<Entry> = (1..).zip(events).map(entry).collect();
    let state = State::fold(saga(), &entries).unwrap();
    assert_eq!(state.next_due(|_| false), state.deadline_at, "nothing of that branch is due");
}
