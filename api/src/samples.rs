//! Samples: journals written by hand, for the tests of whatever shows them.

use std::collections::BTreeMap;
use std::time::Duration;

use amends_engine::activity::Effect;
use amends_engine::journal::Act;
use amends_engine::journal::event::{Asked, FoundKind, Named, SkipReason, UnwindCause};
use amends_engine::journal::failure::{Cause, Refusal};
use amends_engine::journal::{Entry, Event, State};
use amends_engine::store::SagaRow;
use amends_engine::{Resource, ResourceId, SagaId, SagaView, StepKey, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

/// 2026-02-24 03:00:04 in UTC.
const BEGAN: i64 = 1_771_902_004_000_000;

/// So many milliseconds after the beginning of every sample.
pub fn at(ms: i64) -> Timestamp {
    Timestamp(BEGAN + ms * 1000)
}

/// The saga of every sample.
pub fn saga() -> SagaId {
    SagaId::from_uuid(Uuid::from_u128(7))
}

/// A journal in the making.
pub struct Journal(Vec<Entry>, u128);

impl Journal {
    /// Of a saga of this workflow.
    pub fn of(workflow: &str) -> Self {
        let started = Event::SagaStarted {
            workflow: workflow.into(),
            workflow_version: 1,
            input: json!({ "instance": "k3v9xq2m7p4t" }),
            deadline_at: None,
            labels: BTreeMap::from([("instance".into(), "k3v9xq2m7p4t".into())]),
            start_at: None,
            parent: None,
        };
        Self(Vec::new(), 0).then(0, started)
    }

    /// And then, so many milliseconds after the beginning.
    pub fn then(mut self, ms: i64, event: Event) -> Self {
        let seq = i64::try_from(self.0.len()).unwrap() + 1;
        self.0.push(Entry { seq, at: at(ms), epoch: 1, event });
        self
    }

    /// The first attempt of a step, which makes something if it names it.
    pub fn tries(mut self, ms: i64, step: &str, activity: &str, makes: Option<Resource>) -> Self {
        let asked = Asked {
            activity: activity.into(),
            input: json!({ "name": format!("agent-sandbox-{step}") }),
            references: Vec::new(),
            after: Vec::new(),
            said: Vec::new(),
            local: None,
            effect: Effect::Searchable { settle_after: Duration::from_secs(30) },
            settle_after: Duration::from_secs(30),
            is_consistent: false,
            object: None,
            attempts_max: None,
            pivot: false,
            every: None,
            give_up_at: at(900_000),
            removes: Vec::new(),
            deferred: false,
            child: None,
        };
        let resource = makes.map(|resource| {
            self.1 += 1;
            Box::new(Named { id: ResourceId::from_uuid(Uuid::from_u128(self.1)), resource })
        });
        let event = Event::AttemptStarted {
            step: StepKey::parse(step).unwrap(),
            attempt: 1,
            generation: 1,
            not_after: at(ms + 30_000),
            asked: Some(Box::new(asked)),
            resource,
        };
        self.then(ms, event)
    }

    /// A further attempt.
    pub fn again(self, ms: i64, step: &str, attempt: u32) -> Self {
        let event = Event::AttemptStarted {
            step: StepKey::parse(step).unwrap(),
            attempt,
            generation: 1,
            not_after: at(ms + 30_000),
            asked: None,
            resource: None,
        };
        self.then(ms, event)
    }

    /// It worked.
    pub fn completes(self, ms: i64, step: &str, id: Option<&str>) -> Self {
        let output = id.map_or(Value::Null, |id| json!(id));
        let external_id = id.map(ToOwned::to_owned);
        self.then(
            ms,
            Event::StepCompleted { step: StepKey::parse(step).unwrap(), output, external_id, by_hand: false },
        )
    }

    /// It did not happen.
    pub fn deferred(self, ms: i64, step: &str, attempt: u32, detail: &str, retry_ms: i64) -> Self {
        let event = Event::AttemptDeferred {
            step: StepKey::parse(step).unwrap(),
            attempt: Some(attempt),
            cause: Cause::RateLimited,
            detail: detail.into(),
            retry_at: at(retry_ms),
            gate: None,
            asked: None,
            fingerprint: String::new(),
            bookmark: None,
        };
        self.then(ms, event)
    }

    /// An attempt to take it back.
    pub fn undoes(self, ms: i64, step: &str, attempt: u32) -> Self {
        let event = Event::CompensationStarted {
            step: StepKey::parse(step).unwrap(),
            attempt,
            not_after: at(ms + 30_000),
        };
        self.then(ms, event)
    }

    /// It is taken back.
    pub fn undone(self, ms: i64, step: &str) -> Self {
        self.then(ms, Event::StepCompensated { step: StepKey::parse(step).unwrap(), by_hand: false })
    }

    /// The journal.
    pub fn entries(self) -> Vec<Entry> {
        self.0
    }

    /// What the engine would answer about it.
    pub fn view(self) -> SagaView {
        let state = State::fold(saga(), &self.0).unwrap();
        let row = SagaRow {
            id: saga(),
            workflow: state.workflow.0.clone(),
            workflow_version: state.workflow.1,
            state: state.state(),
            attention: state.attention(),
            step: state.steps().last().map(|step| step.key.to_string()),
            error: state.unwinding.as_ref().map(|unwinding| unwinding.refusal.to_string()),
            fingerprint: None,
            progress: None,
            parent: None,
            labels: state.labels.clone(),
            deadline_at: state.deadline_at,
            due_at: state.due_at(),
            epoch: 1,
            seq: state.seq,
            created_at: state.started_at,
            updated_at: state.at,
            ended_at: state.ended.map(|_| state.at),
        };
        let resources = state.ledger.rows().cloned().collect();
        SagaView { row, state, entries: self.0, resources, gate: None }
    }
}

fn refusal(code: &str, message: &str) -> Refusal {
    Refusal { code: code.into(), message: message.into() }
}

/// A claim that waits in every way that has no time of its own: at a gate for a credential, to be looked for there, for
/// a child, and for an answer that may take as long as it likes.
pub fn without_end() -> Journal {
    let gated = |step: &str, ms| Event::AttemptDeferred {
        step: step.into(),
        attempt: None,
        cause: Cause::RateLimited,
        detail: "gate railway is closed until it is opened: ann: a new token comes; 0 wait before it".into(),
        retry_at: at(ms),
        gate: Some("railway".into()),
        asked: None,
        fingerprint: String::new(),
        bookmark: None,
    };
    Journal::of("claim")
        .tries(5, "project", "railway.create_project", Some(Resource::new("railway", "project", "p")))
        .then(
            10,
            Event::AttemptDeferred {
                step: "project".into(),
                attempt: Some(1),
                cause: Cause::Credential,
                detail: "401: no such token".into(),
                retry_at: at(60_000),
                gate: None,
                asked: None,
                fingerprint: String::new(),
                bookmark: None,
            },
        )
        .then(60_000, gated("project", 60_000))
        .tries(61_000, "key", "openrouter.mint_key", Some(Resource::new("openrouter", "key", "k")))
        .then(
            62_000,
            Event::AttemptLost {
                step: "key".into(),
                attempt: 1,
                cause: Cause::Reset,
                detail: "the line broke".into(),
                look_at: at(92_000),
                fingerprint: String::new(),
            },
        )
        .then(92_000, gated("key", 92_000))
        .then(
            93_000,
            Event::TimerSet { step: "approval".into(), due_at: Timestamp::NEVER, signal: Some("yes".into()) },
        )
}

/// What no text for a person may hold: the end of time, in any of the ways in which it has been said.
pub fn says_never(text: &str) -> bool {
    ["292214", "292277", "294247", "9223372036854775807", "106751991"]
        .iter()
        .any(|wrong| text.contains(wrong))
}

/// A replenish whose deploy failed for good, and whose number cannot be taken back.
pub fn stuck() -> Journal {
    let mut journal = Journal::of("replenish")
        .tries(10, "plan", "pool.plan_instance", None)
        .completes(20, "plan", None)
        .tries(
            100,
            "project",
            "railway.create_project",
            Some(Resource::new("railway", "project", "agent-sandbox-k3v9")),
        )
        .completes(1_900, "project", Some("prj_8f2c"))
        .tries(
            1_950,
            "llm-key",
            "openrouter.mint_key",
            Some(Resource::new("openrouter", "key", "agent-sandbox-k3v9")),
        )
        .deferred(2_400, "llm-key", 1, "429: slow down", 6_000)
        .again(6_000, "llm-key", 2)
        .completes(7_100, "llm-key", Some("or_5b1e"))
        .tries(
            7_200,
            "number",
            "telnyx.assign_number",
            Some(Resource::new("telnyx", "assignment", "agent-sandbox-k3v9")),
        )
        .then(
            22_200,
            Event::AttemptLost {
                step: "number".into(),
                attempt: 1,
                cause: Cause::Timeout,
                detail: "no answer within 15 s".into(),
                look_at: at(40_000),
                fingerprint: String::new(),
            },
        )
        .then(
            41_000,
            Event::StepFound {
                step: "number".into(),
                found: FoundKind::Usable,
                output: Some(json!("+14155550137")),
                external_id: Some("+14155550137".into()),
            },
        )
        .tries(
            41_100,
            "service",
            "railway.create_service",
            Some(Resource::new("railway", "service", "runtime").within("project")),
        )
        .completes(42_000, "service", Some("srv_1"))
        .tries(42_100, "deploy", "railway.deploy_image", None)
        .then(
            68_000,
            Event::StepFailed {
                step: "deploy".into(),
                refusal: refusal("image_not_found", "image tag 2026.4.11 is not in the registry"),
                fingerprint: String::new(),
            },
        )
        .then(
            68_010,
            Event::UnwindingStarted {
                cause: UnwindCause::Refused,
                refusal: refusal("image_not_found", "image tag 2026.4.11 is not in the registry"),
            },
        )
        .then(68_020, Event::StepSkipped { step: "service".into(), reason: SkipReason::Within, to: None });
    let mut ms = 68_100;
    for attempt in 1..=5 {
        journal = journal.undoes(ms, "number", attempt);
        let retry_at = ms + 5_000 * (1 << attempt);
        journal = journal.then(
            ms + 1_200,
            Event::CompensationDeferred {
                step: "number".into(),
                cause: Some(Cause::ServerError),
                detail: "503: service unavailable".into(),
                retry_at: at(retry_at),
                gate: None,
                fingerprint: String::new(),
            },
        );
        if attempt == 1 {
            journal = journal
                .undoes(69_500, "llm-key", 1)
                .undone(70_300, "llm-key")
                .undoes(70_400, "project", 1)
                .undone(72_000, "project");
        }
        ms = retry_at;
    }
    journal.then(
        300_000,
        Event::OperatorIntervened {
            operation: amends_engine::ids::OperationId::from_uuid(Uuid::from_u128(9)),
            act: Act::Retry,
            actor: "anna".into(),
            reason: "Telnyx says it is back".into(),
        },
    )
}

/// A claim that went well, and waited for a person on its way.
pub fn completed() -> Journal {
    Journal::of("claim")
        .tries(5, "reserve", "pool.reserve_instance", None)
        .completes(9, "reserve", None)
        .tries(20, "tool/inbox", "agentmail.create_inbox", Some(Resource::new("agentmail", "inbox", "kx9")))
        .tries(20, "tool/number", "telnyx.assign_number", Some(Resource::new("telnyx", "assignment", "kx9")))
        .completes(700, "tool/inbox", Some("kx9@agentmail.to"))
        .completes(1_900, "tool/number", Some("+14155550137"))
        .tries(
            1_950,
            "join",
            "runtime.join_conversation",
            Some(Resource::new("runtime", "conversation", "kx9")),
        )
        .completes(3_000, "join", Some("cnv_1"))
        .then(
            3_010,
            Event::TimerSet {
                step: "acceptance".into(),
                due_at: at(86_400_000),
                signal: Some("accepted".into()),
            },
        )
        .then(1_803_010, Event::SignalReceived { step: "acceptance".into(), value: json!(true) })
        .tries(1_803_020, "bound", "runtime.observe_conversation", None)
        .completes(1_803_900, "bound", None)
        .then(1_803_900, Event::PivotPassed { step: "bound".into() })
        .tries(1_803_910, "commit", "pool.record_claim", None)
        .completes(1_803_915, "commit", None)
        .then(
            1_803_920,
            Event::SagaCompleted {
                output: json!({ "instance": "k3v9xq2m7p4t" }),
                owner: Some("k3v9xq2m7p4t".into()),
            },
        )
}

/// A saga in doubt about a step which no one can settle.
pub fn in_doubt() -> Journal {
    Journal::of("claim")
        .tries(5, "join", "runtime.join_conversation", Some(Resource::new("runtime", "conversation", "kx9")))
        .then(
            15_005,
            Event::AttemptLost {
                step: StepKey::from("join"),
                attempt: 1,
                cause: Cause::Reset,
                detail: "the connection broke".into(),
                look_at: at(30_000),
                fingerprint: String::new(),
            },
        )
        .then(
            30_100,
            Event::StepFound {
                step: "join".into(),
                found: FoundKind::Unknowable,
                output: None,
                external_id: None,
            },
        )
}
