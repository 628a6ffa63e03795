//! Why: a saga's situation in three sentences, for somebody who was asleep a minute ago.

use std::time::Duration;

use super::State;
use super::act::{Act, Verdict};
use super::state::{Attention, Phase, SagaState, Step, turned};
use crate::activity::Effect;
use crate::env::Timestamp;
use crate::gate::GateView;
use crate::store::{ResourceRow, ResourceState};

/// What happened, what happens now, what a person can do. Acts are named in backticks, as they are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// What brought it here.
    pub happened: String,
    /// What it does now, and when something is next due.
    pub now: String,
    /// What a person can do, and by which act.
    pub you: String,
}

impl std::fmt::Display for Why {
    /// The three sentences, a line each.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}\n{}", self.happened, self.now, self.you)
    }
}

/// Explains a saga from its state and the time alone. Of several things that are the matter it tells the one that
/// most needs a person.
pub fn why(state: &State, now: Timestamp) -> Why {
    let attention = state.attention_at(now);
    let of_step = |wanted: Attention| state.steps().iter().find(|step| step.attention(now).contains(&wanted));
    if attention.contains(&Attention::Leak) {
        return leak(state);
    }
    if let Some((attention, detail)) = &state.parked
        && state.ended.is_none()
    {
        return parked(state, *attention, detail);
    }
    let mut why = if let Some(step) = of_step(Attention::NeedsDecision) {
        needs_decision(state, step, now)
    } else if let Some(step) = of_step(Attention::UndoStuck) {
        undo_stuck(state, step, now)
    } else if let Some(step) = of_step(Attention::InDoubt) {
        in_doubt(state, step, now)
    } else if let Some(step) = of_step(Attention::Retrying) {
        retrying(state, step, now)
    } else if attention.contains(&Attention::Late) {
        late(state, now)
    } else {
        Why { happened: happened(state), now: doing(state, now), you: advice(state) }
    };
    if let Some(waits) = waits_at_gate(state, now).or_else(|| waits_out(state, now)) {
        why.now = waits;
    }
    if let Some((until, who)) = &state.paused {
        why.now =
            format!("It is paused for another {} by {who}; then it goes on by itself.", wait(*until, now));
        let cancel = if can(state, now, &Act::Cancel) { ", `cancel` takes back what it did" } else { "" };
        why.you = format!("`resume` lets it go on now, `pause` again holds it for longer{cancel}.");
    }
    why
}

/// Explains a saga whose journal cannot be read, from its row.
pub fn why_unreadable(workflow: &str, detail: &str) -> Why {
    // All the words that would have been right are of no help.
    let detail = detail.split(", expected").next().unwrap_or(detail);
    Why {
        happened: format!("A line of the journal of this {workflow} cannot be read ({detail})."),
        now: "It is left alone, with all that it made, until this program is started again; other sagas go on."
            .to_owned(),
        you: "No act can be done to it before it can be read. If a newer program wrote the line, start that one; if \
              the line is damaged, put the database back from a backup and start again."
            .to_owned(),
    }
}

/// Adds what the journal does not know: that a letter in the saga's inbox cannot be read. Its row says that with
/// [`Attention::Unreadable`].
pub fn tell_unread_letter(why: &mut Why) {
    why.now.push_str(" A letter in its inbox cannot be read, and is left there; it goes on without.");
    why.you.push_str(
        " If a newer program wrote the letter, start that one; else look for what it said in the table inbox, and say \
         it again.",
    );
}

/// Adds what the gate at which it waits is now, where only a person changes that: when the step began to wait, that may
/// have been different.
pub fn tell_gate(why: &mut Why, gate: &GateView) {
    let (key, waiting) = (&gate.key, gate.queue.waiting());
    let wait = if waiting == 1 { "waits" } else { "wait" };
    if let Some(trouble) = &gate.trouble {
        why.now.push_str(&format!(" Gate {key} lets nobody go, since it cannot be moved: {trouble}."));
        why.you.push_str(&format!(
            " Mend what the database refuses; {waiting} {wait} at gate {key} and go on by themselves then."
        ));
    } else if let Some(closed) = gate.closed.as_ref().filter(|closed| closed.until.is_none()) {
        why.now.push_str(&format!(" Gate {key} is closed until a person opens it: {}.", closed.reason));
        why.you.push_str(&format!(
            " {waiting} {wait} at gate {key}; open it once what it was closed for is over."
        ));
    }
}

fn parked(state: &State, attention: Attention, detail: &str) -> Why {
    let name = &state.workflow.0;
    let back = if state.unwinding.is_some() { " on its way back" } else { "" };
    let happened = format!("{name} stopped{back} ({attention}): {detail}.");
    let now = if attention == Attention::StoreRefused {
        "What it was about to write is not written, so that a call whose answer was part of it counts as lost; nothing \
         more is called, and nothing is due by itself."
    } else {
        "Nothing of it is lost, nothing more is called, and nothing is due by itself."
    };
    let now = now.to_owned();
    let cancel = match (&state.pivot, &state.unwinding) {
        (None, None) => " `cancel` takes back what it did; its function is not needed for that.",
        (Some(_), _) => " It is past its pivot, so it cannot be cancelled.",
        (None, Some(_)) => "",
    };
    let you = match attention {
        Attention::NoWorker if state.unwinding.is_some() => {
            "Start a program that offers it: it goes on by itself then. Or have the thing left where it is: `skip`, or \
             `release` to whom it belongs from then on."
                .to_owned()
        }
        Attention::NoWorker => "Start a program that offers it: it goes on by itself then.".to_owned(),
        Attention::Diverged => {
            "Start the program that began it, or one whose function asks for the same steps, then `retry`."
                .to_owned()
        }
        Attention::NoProgress => {
            "The function is at fault: it may await only what its `Saga` offers. Mend it, then `retry`.".to_owned()
        }
        Attention::StoreRefused => {
            "If a rule of the database is at fault, mend it; if it is what a step or the saga's owner is called, that \
             has to be mended where it comes from. Then `retry`."
                .to_owned()
        }
        Attention::OverLimit => {
            "A loop in its function is the likely cause, and a `retry` alone brings it back here: mend the function, and \
             start that program. To undo is always allowed, however long the journal is."
                .to_owned()
        }
        _ => "Mend what stands in the way, then `retry`.".to_owned(),
    };
    Why { happened, now, you: format!("{you}{cancel}") }
}

fn needs_decision(state: &State, step: &Step, now: Timestamp) -> Why {
    let name = &state.workflow.0;
    if let Some(problem) = &step.unkept {
        return unkept(state, step, problem, now);
    }
    let (what, thing, detail) = (called(step), thing(state, step), detail(step));
    match &step.phase {
        Phase::Undecidable => Why {
            happened: format!(
                "{name} cannot tell whether {what} happened: the answer was lost ({detail}), and there is no way to \
                 ask for {thing}."
            ),
            now: "It waits for a person, and the call is not made again until somebody has looked."
                .to_owned(),
            you: {
                let effect = step.asked.as_ref().map(|asked| asked.effect);
                let again = if effect == Some(Effect::Blind) { "" } else { " `retry` asks once more." };
                format!(
                    "Look for {thing} at the provider and say with `settle` what you saw: adopt it, absent, or \
                     useless.{again}{}",
                    too_early(step, now)
                )
            },
        },
        Phase::Removing { .. } => Why {
            happened: format!("{name} takes back what it did, and the undo of {what} was refused: {detail}."),
            now: format!("{} Until then there is still {thing}.", again(step, now)),
            you: format!(
                "Mend what is refused (a credential, a lock, a setting), then {}.{}",
                next_act(step),
                by_hand(state, step, &thing, now)
            ),
        },
        _ => {
            let back = if state.pivot.is_some() {
                " It is past its pivot, so it is tried until it works."
            } else if can(state, now, &Act::Cancel) {
                " `cancel` takes back what it did instead."
            } else {
                ""
            };
            Why {
                happened: format!(
                    "{name} is refused at {what}, and only a person can change that: {detail}."
                ),
                now: again(step, now),
                you: format!(
                    "Mend what is refused (a credential, a limit, a setting), then {}.{}{back}",
                    next_act(step),
                    match otherwise(state, step, now) {
                        (true, true) =>
                            " `patch` asks for something else, and `done` says that you did it by hand.",
                        (true, false) => " `patch` asks for something else.",
                        (false, true) => " `done` says that you did it by hand.",
                        (false, false) => "",
                    }
                ),
            }
        }
    }
}

/// It happened, and what it came to cannot be kept.
fn unkept(state: &State, step: &Step, problem: &str, now: Timestamp) -> Why {
    let (what, thing) = (called(step), thing(state, step));
    let happened = format!(
        "{} did {what}, and what that yields cannot be kept: {problem}. The activity is at fault.",
        state.workflow.0
    );
    match &step.phase {
        Phase::Removing { .. } => {
            let tries = match (step.undo_attempts, &step.trouble) {
                (1.., Some(_)) => format!(" That has not worked: {}.", detail(step)),
                _ => String::new(),
            };
            let now = format!("{thing} is taken away again, then the step counts as refused.{tries}");
            let you = format!("If you remove {thing} by hand, say `done`; `retry` tries it now.");
            Why { happened, now, you }
        }
        _ => Why {
            happened,
            now: again(step, now),
            you: format!(
                "Say with `settle` what it came to: adopt it with an output that can be kept, absent, or useless \
                 (then {thing} is taken away)."
            ),
        },
    }
}

fn undo_stuck(state: &State, step: &Step, now: Timestamp) -> Why {
    let thing = thing(state, step);
    let cause =
        state.unwinding.as_ref().map_or(String::new(), |unwinding| format!(" ({})", unwinding.refusal));
    let waiting = state.steps().iter().filter(|other| other.key != step.key && other.is_left()).count();
    let waiting = match waiting {
        0 => "Nothing else is left to take back.".to_owned(),
        1 => "One other step is left to take back.".to_owned(),
        many => format!("{many} other steps are left to take back."),
    };
    Why {
        happened: format!(
            "{} takes back what it did{cause}, and the undo of {} has not worked in {} tries: {}.",
            state.workflow.0,
            called(step),
            step.undo_attempts,
            detail(step)
        ),
        now: format!("{} {waiting}", again(step, now)),
        you: format!(
            "It is never given up. Once the provider is well, `retry` tries it now.{}",
            by_hand(state, step, &thing, now)
        ),
    }
}

fn in_doubt(state: &State, step: &Step, now: Timestamp) -> Why {
    let (name, what, thing) = (&state.workflow.0, called(step), thing(state, step));
    let is_sent_again = step.is_known_again(now);
    let (asking, asks) = if is_sent_again {
        (
            format!("sending it again, which has no second effect, has failed {}", times(step.looks)),
            "sends it again",
        )
    } else {
        (format!("asking for {thing} has failed {}", times(step.looks)), "asks again")
    };
    let turned = state.unwinding.as_ref().map(|unwinding| turned(unwinding.cause, &unwinding.refusal));
    let knows = match turned {
        Some(cause) => {
            format!("{name} takes back what it did ({cause}), and does not know whether {what} happened")
        }
        None => format!("{name} does not know whether {what} happened"),
    };
    let due = step.next_at().filter(|due| *due > now);
    let meanwhile = match (is_sent_again, &state.unwinding) {
        (_, Some(_)) => "; what it left is taken back once that is known.",
        (true, None) => "; it goes on once that is answered.",
        (false, None) => "; the call is not made again before that is known.",
    };
    let retry = if due.is_some() && step.look_from <= now {
        "Once the provider answers, `retry` asks now. "
    } else {
        ""
    };
    let cancel = if can(state, now, &Act::Cancel) {
        " `cancel` takes back what it did, once this is settled."
    } else {
        ""
    };
    let settles = can(state, now, &Act::Settle { step: step.key.clone(), verdict: Verdict::Absent });
    let settle = if settles {
        format!(
            "If you can look for {thing} yourself, say with `settle` what you saw: adopt it, absent, or useless.{}",
            too_early(step, now)
        )
    } else {
        "A call is under way; wait for its end.".to_owned()
    };
    Why {
        happened: format!("{knows}: the answer was lost, and {asking}: {}.", detail(step)),
        now: match due {
            Some(due) => format!("It {asks} in {}{meanwhile}", wait(due, now)),
            None => again(step, now),
        },
        you: format!("{retry}{settle}{cancel}"),
    }
}

fn retrying(state: &State, step: &Step, now: Timestamp) -> Why {
    let limit = step.asked.as_ref().map(|asked| asked.give_up_at).filter(|_| state.pivot.is_none());
    let limit = match limit {
        Some(at) if at > now && at.ever().is_some() && matches!(step.phase, Phase::Deferred { .. }) => {
            format!(" It counts as refused if that goes on for another {}.", wait(at, now))
        }
        _ => " It is tried until it works.".to_owned(),
    };
    let gives_up = can(state, now, &Act::FailAttempt { step: step.key.clone() });
    let back = match (gives_up, can(state, now, &Act::Cancel)) {
        _ if state.pivot.is_some() => " It is past its pivot, so it cannot be cancelled.",
        (true, true) => " `fail_attempt` gives it up, `cancel` takes back what the saga did.",
        (true, false) => " `fail_attempt` gives it up.",
        (false, true) => " `cancel` takes back what the saga did.",
        (false, false) => "",
    };
    Why {
        happened: format!(
            "{} has tried {} {} in {} without success: {}.",
            state.workflow.0,
            called(step),
            times(step.attempts),
            span(now.since(step.asked_at)),
            detail(step)
        ),
        now: format!("{}{limit}", again(step, now)),
        you: format!(
            "Once the provider is well, `retry` tries it now. `policy` shortens its waits{}.{back}",
            match otherwise(state, step, now) {
                (true, true) => ", `patch` asks for something else, `done` says that you did it by hand",
                (true, false) => ", `patch` asks for something else",
                (false, true) => ", `done` says that you did it by hand",
                (false, false) => "",
            }
        ),
    }
}

/// Whether somebody could do this now.
fn can(state: &State, now: Timestamp, act: &Act) -> bool {
    act.problem(state, now).is_none()
}

/// What becomes of a person's word that nothing is there, while the lost call may still take effect.
fn too_early(step: &Step, now: Timestamp) -> String {
    match step.unsettled_until().filter(|until| *until > now) {
        Some(until) => format!(
            " The lost call may still take effect for another {}; if you say absent before that, it is looked for \
             again then.",
            wait(until, now)
        ),
        None => String::new(),
    }
}

/// Whether a person can ask a step for something else, and whether one can do it by hand.
fn otherwise(state: &State, step: &Step, now: Timestamp) -> (bool, bool) {
    let key = || step.key.clone();
    let patches =
        can(state, now, &Act::Patch { step: key(), input: serde_json::Value::Null, references: Vec::new() });
    let done = can(state, now, &Act::Done { step: key(), output: Some(serde_json::Value::Null) });
    (patches, done)
}

/// How a person can end an undo in another way than by waiting.
fn by_hand(state: &State, step: &Step, thing: &str, now: Timestamp) -> String {
    let key = || step.key.clone();
    let done = can(state, now, &Act::Done { step: key(), output: None });
    let skip = can(state, now, &Act::Skip { step: key() });
    match (done, skip) {
        (true, true) => format!(
            " If you remove {thing} by hand, say `done`; to leave it there, `skip` it, or `release` it to another \
             owner."
        ),
        (true, false) => format!(" If you remove {thing} by hand, say `done`."),
        (false, true) => " To leave it there, `skip` it, or `release` it to another owner.".to_owned(),
        (false, false) => String::new(),
    }
}

/// What it waits for when that is the end of a lost call, or a second look.
fn waits_out(state: &State, now: Timestamp) -> Option<String> {
    let step = state
        .steps()
        .iter()
        .rev()
        .find(|step| step.waits_out.is_some_and(|(_, until)| until > now) || step.absence.is_some())?;
    let what = called(step);
    if let Some((_, until)) = step.waits_out {
        let does = if matches!(step.phase, Phase::Removing { .. }) { "is taken back" } else { "is done" };
        return Some(format!(
            "It waits another {} before {what} {does}: until then a lost call may still take effect, and would be the \
             last to do so.",
            wait(until, now)
        ));
    }
    let due = step.next_at().filter(|due| *due > now)?;
    Some(format!(
        "It looked for what {what} may have left and did not see it; it looks again in {}, and only what is not seen \
         twice when the lost call is surely over counts as never made.",
        wait(due, now)
    ))
}

fn late(state: &State, now: Timestamp) -> Why {
    let since = state.deadline_at.map_or(Duration::ZERO, |deadline| now.since(deadline));
    let name = &state.workflow.0;
    match &state.pivot {
        Some(pivot) => Why {
            happened: format!(
                "{name} should have ended {} ago; it is past its pivot ({pivot}), so it does not turn round.",
                span(since)
            ),
            now: doing(state, now),
            you: "See what it waits for: send the signal, or say `retry` once the provider is well. It goes on \
                  however late it is."
                .to_owned(),
        },
        None => Why {
            happened: format!("{name} should have ended {} ago, and has not turned round yet.", span(since)),
            now: doing(state, now),
            you: advice(state),
        },
    }
}

fn leak(state: &State) -> Why {
    let held: Vec<String> =
        state.held().map(|row| format!("{}, {}, of step {}", named(row), row.state, row.step)).collect();
    Why {
        happened: format!(
            "{} has ended, and this is still held by it and may exist: {}.",
            state.workflow.0,
            held.join("; ")
        ),
        now: "A saga that has ended does nothing more, so this stays until somebody takes it away.".to_owned(),
        you: "Look for it at the provider and remove it there. No act can be done to a saga that has ended; a sweep, \
              or a saga that takes over what this one holds, can close its rows on the ledger."
            .to_owned(),
    }
}

fn happened(state: &State) -> String {
    let name = &state.workflow.0;
    let trouble = state.last_error();
    match (state.state(), &state.unwinding) {
        (SagaState::Completed, _) => format!("{name} did what it was asked for."),
        (SagaState::Compensated, Some(unwinding)) => {
            format!(
                "{name} turned round ({}) and took back all it had done.",
                turned(unwinding.cause, &unwinding.refusal)
            )
        }
        (SagaState::Compensated | SagaState::Failed, _) => {
            format!(
                "{name} ended without effect{}.",
                trouble.map_or(String::new(), |error| format!(": {error}"))
            )
        }
        (_, Some(unwinding)) => format!(
            "{name} turned round ({}){}.",
            turned(unwinding.cause, &unwinding.refusal),
            trouble
                .filter(|error| *error != unwinding.refusal.to_string())
                .map_or(String::new(), |error| format!(", and an undo has trouble: {error}"))
        ),
        (_, None) => match trouble {
            Some(error) => format!("{name} has trouble: {error}."),
            None => format!("{name} is on its way, and nothing went wrong."),
        },
    }
}

fn doing(state: &State, now: Timestamp) -> String {
    if state.ended.is_some() {
        let left = state.ledger.rows().filter(|row| row.state != ResourceState::Gone).count();
        return match left {
            0 => "It has ended, and nothing of it is outside.".to_owned(),
            1 => "It has ended; one thing it made is outside.".to_owned(),
            many => format!("It has ended; {many} things it made are outside."),
        };
    }
    let at = state.current_step().map_or(String::new(), |step| format!(" at {step}"));
    match state.due_at() {
        None => format!("It waits{at}, and nothing is due by itself."),
        Some(due) if due <= now => format!("It is working{at}."),
        Some(due) => format!("It waits{at}; next in {}.", wait(due, now)),
    }
}

/// What it waits for when that is a gate, and nothing is due by itself.
fn waits_at_gate(state: &State, now: Timestamp) -> Option<String> {
    let waits = state.gate_waits();
    let step = state.step(&waits.last()?.step)?;
    at_gate(step, now).filter(|_| state.due_at().is_none())
}

fn at_gate(step: &Step, now: Timestamp) -> Option<String> {
    let gate = step.at_gate.as_ref()?;
    let since = span(now.since(gate.since));
    Some(format!("It has waited for {since} at {} until it is let go: {}.", step.key, gate.detail))
}

/// What lets it go on: what waits at a gate is let go by that alone.
fn next_act(step: &Step) -> String {
    match &step.at_gate {
        Some(gate) => format!("open gate {}", gate.gate),
        None => "`retry`".to_owned(),
    }
}

fn advice(state: &State) -> String {
    let text = if state.ended.is_some() {
        "There is nothing to do."
    } else if !state.gate_waits().is_empty() {
        "Nothing is given up meanwhile; open the gate if you know better than what closed it."
    } else if state.unwinding.is_some() {
        "Nothing: it takes back what it did by itself."
    } else if state.pivot.is_none() {
        "Nothing is needed; `cancel` would take back what it did."
    } else {
        "Nothing is needed; it is past its pivot and can only go forward."
    };
    text.to_owned()
}

/// The step, with the activity it calls.
fn called(step: &Step) -> String {
    match &step.asked {
        Some(asked) => format!("step {} ({})", step.key, asked.activity),
        None => format!("step {}", step.key),
    }
}

/// What the step makes, as the ledger names it.
fn thing(state: &State, step: &Step) -> String {
    let row = step.resource.as_ref().and_then(|id| state.ledger.get(id));
    row.map_or_else(|| format!("what {} makes", step.key), named)
}

fn named(row: &ResourceRow) -> String {
    let id = row.external_id.as_ref().map_or(String::new(), |id| format!(" ({id})"));
    format!("{} {} {:?}{id}", row.provider, row.kind, row.name)
}

fn detail(step: &Step) -> String {
    match &step.trouble {
        Some(trouble) => match trouble.cause {
            Some(cause) => format!("{cause}: {}", trouble.detail),
            None => trouble.detail.clone(),
        },
        None => "no answer".to_owned(),
    }
}

/// When it is next tried; at a gate, what it waits for there.
fn again(step: &Step, now: Timestamp) -> String {
    match step.next_at() {
        Some(due) if due > now => format!("It is tried again in {}.", wait(due, now)),
        _ => at_gate(step, now).unwrap_or_else(|| "It is being tried at this moment.".to_owned()),
    }
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        many => format!("{many} times"),
    }
}

fn wait(until: Timestamp, now: Timestamp) -> String {
    span(until.since(now))
}

/// In whole seconds, at least one, and no more than two units: nobody waits by the second for tomorrow.
fn span(duration: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(duration.as_secs().max(1))).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
