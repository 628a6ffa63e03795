//! Rest: what must hold when everything has ended, what committed late has landed, and the sweep has been round.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use amends_engine::env::Timestamp;
use amends_engine::journal::act::NOBODY;
use amends_engine::journal::state::SagaState;
use amends_engine::journal::{Event, State, story};
use amends_engine::store::{Message, ResourceFilter, ResourceRow, ResourceState, SagaFilter, SagaRow, Store};
use amends_engine::sweep::FindingFilter;
use amends_engine::{SagaId, secs};

use crate::cluster::{Cluster, Told};
use crate::people::BOB;
use crate::watch::Watch;

impl Cluster {
    pub(crate) async fn told(&self, seed: u64, in_time: bool, began: Timestamp, watch: &Watch) -> Told {
        let mut told = Told {
            faults: self.faults.lock().unwrap().clone(),
            hours: self.env.now().since(began).as_secs_f64() / 3600.0,
            looks: *watch.looks.lock().unwrap(),
            ..Told::default()
        };
        for (_, fault) in self.injector.fired() {
            *told.faults.entry(fault.to_string()).or_default() += 1;
        }
        let all = FindingFilter { limit: u32::MAX, ..FindingFilter::default() };
        for finding in self.store.findings(all).await.unwrap() {
            let how = finding.settled.map_or_else(|| "open".to_owned(), |settled| settled.how.to_string());
            *told.faults.entry(format!("{} {how}", finding.class)).or_default() += 1;
        }
        let mut broken = std::mem::take(&mut *self.violations.lock().unwrap());
        broken.append(&mut self.yard.violations.lock().unwrap());
        let rows = self.store.sagas(SagaFilter { limit: u32::MAX, ..SagaFilter::default() }).await.unwrap();
        told.sagas = rows.len();
        if !in_time {
            let open: Vec<_> = rows.iter().filter(|row| !row.state.is_ended()).collect();
            broken.push(format!("not ended: {open:#?}"));
        }
        for (key, saga) in self.started.lock().unwrap().iter() {
            if !rows.iter().any(|row| row.id == *saga) {
                broken.push(format!("the start of {key} was acknowledged, and {saga} is not there"));
            }
        }
        let mut states = BTreeMap::new();
        let mut hash = std::hash::DefaultHasher::new();
        for row in &rows {
            *told.ended.entry(row.state.to_string()).or_default() += 1;
            let entries = self.store.journal(&row.id).await.unwrap();
            std::hash::Hash::hash(&serde_json::to_string(&entries).unwrap(), &mut hash);
            if !entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq) {
                broken.push(format!("{}: its journal has a gap", row.id));
            }
            match State::fold(row.id.clone(), &entries) {
                Ok(state) => drop(states.insert(row.id.clone(), state)),
                Err(illegal) => broken.push(format!("{}: {illegal}", row.id)),
            }
            let _ = writeln!(told.stories, "{} {}\n{}", row.id, row.state, story(&row.id, &entries));
        }
        told.hash = std::hash::Hasher::finish(&hash);
        self.check_ledger(&rows, &states, &mut broken).await;
        self.check_letters(&mut broken).await;
        self.check_notes(&states, &mut broken).await;
        told.violations = broken.into_iter().map(|problem| format!("seed {seed}: {problem}")).collect();
        told
    }

    /// The ledger is closed, and is what is there.
    async fn check_ledger(
        &self,
        rows: &[SagaRow],
        states: &BTreeMap<SagaId, State>,
        broken: &mut Vec<String>,
    ) {
        let filter = ResourceFilter { limit: u32::MAX, ..ResourceFilter::default() };
        let ledger = self.store.resources(filter).await.unwrap();
        // What a person took out of an undo plan is that one's.
        let handed = |row: &&ResourceRow| row.holder == BOB || row.holder == NOBODY;
        for row in ledger.iter().filter(|row| row.state != ResourceState::Gone && !handed(row)) {
            let holder = rows.iter().find(|saga| saga.id.as_str() == row.holder);
            let is_right = row.state == ResourceState::Live
                && holder.is_some_and(|saga| saga.state == SagaState::Completed);
            if !is_right {
                broken.push(format!("the ledger is not closed: {row:?}"));
            }
            // A branch that was dropped left nothing, also in a saga that completed.
            let dropped = holder.and_then(|saga| states.get(&saga.id)).is_some_and(|state| {
                let inside = |scope| {
                    state
                        .steps()
                        .iter()
                        .any(|s| s.resource.as_ref() == Some(&row.id) && s.key.is_inside(scope))
                };
                state.ended_scopes.iter().any(inside)
            });
            if dropped {
                broken.push(format!("a branch that was dropped left something: {row:?}"));
            }
        }
        let live: BTreeSet<&str> = ledger
            .iter()
            .filter(|row| row.state == ResourceState::Live)
            .filter_map(|row| row.external_id.as_deref())
            .collect();
        let things = self.yard.things();
        let there: BTreeSet<&str> = things.iter().map(|thing| thing.id.as_str()).collect();
        for thing in things.iter().filter(|thing| !live.contains(thing.id.as_str())) {
            let struck_in_doubt = ledger
                .iter()
                .any(|row| handed(&row) && row.state != ResourceState::Gone && row.name == thing.name);
            if !struck_in_doubt {
                broken.push(format!("{} ({}) is there, and on no ledger", thing.id, thing.name));
            }
        }
        // One whose undo was lost and that a person then struck from the plan may be gone: a sweep says so.
        let struck =
            |id: &str| ledger.iter().any(|row| handed(&row) && row.external_id.as_deref() == Some(id));
        for id in live.difference(&there).filter(|id| !struck(id)) {
            broken.push(format!("{id} is on the ledger, and not there"));
        }
    }

    /// Each act has one outcome, and one that was done is in its saga's journal; no word was heard twice, and none
    /// was passed over by a wait that it was in time for.
    async fn check_letters(&self, broken: &mut Vec<String>) {
        let accepted = *self.acts.lock().unwrap();
        self.store
            .look(|moment| {
                let single = moment.audit().iter().filter(|(_, row)| row.actor != "ben").count();
                if single != accepted {
                    broken.push(format!("{accepted} acts were accepted, and {single} are in the audit"));
                }
                for (saga, row) in moment.audit() {
                    let journalled = moment.saga(saga).map_or(0, |seen| {
                        let is_it = |event: &Event| matches!(event, Event::OperatorIntervened { operation, .. } if *operation == row.operation);
                        seen.journal.iter().filter(|entry| is_it(&entry.event)).count()
                    });
                    let wanted = usize::from(row.outcome.as_deref() == Some("done"));
                    if row.outcome.is_none() || journalled != wanted {
                        broken.push(format!("{saga}: {row:?} is {journalled} times in its journal"));
                    }
                }
                for seen in moment.sagas() {
                    let id = &seen.row.id;
                    let heard: Vec<_> = seen
                        .journal
                        .iter()
                        .filter_map(|entry| match &entry.event {
                            Event::SignalReceived { value, .. } => Some(value.to_string()),
                            _ => None,
                        })
                        .collect();
                    if heard.iter().collect::<BTreeSet<_>>().len() < heard.len() {
                        broken.push(format!("{id}: heard a word twice: {heard:?}"));
                    }
                    if let Some(problem) = passed_over(&seen) {
                        broken.push(format!("{id}: {problem}"));
                    }
                }
            })
            .await;
    }

    /// Our own table agrees too: a line for each that completed, none for what was taken back, and one for each that
    /// was started with it.
    async fn check_notes(&self, states: &BTreeMap<SagaId, State>, broken: &mut Vec<String>) {
        let notes = self.store.fetch("select text from note order by text".into(), vec![]).await.unwrap();
        let notes: Vec<String> = notes.iter().map(|row| row.text("text").unwrap()).collect();
        let mut wanted = Vec::new();
        for state in states.values() {
            let name = state.input.as_str().unwrap_or_default();
            if state.workflow.0 == "straight" && state.ended == Some(SagaState::Completed) {
                wanted.extend([format!("{name}-begun"), format!("{name}-signed")]);
            }
            if name.starts_with('e') && state.parent.is_none() {
                wanted.push(format!("{name}-enrolled"));
            }
        }
        wanted.sort();
        if notes != wanted {
            broken.push(format!("our own table holds {notes:?} instead of {wanted:?}"));
        }
    }
}

/// A wait that ran out although its word had come a minute before.
fn passed_over(seen: &amends_engine::store::memory::SagaSeen<'_>) -> Option<String> {
    let set = seen.journal.iter().find_map(|entry| match &entry.event {
        Event::TimerSet { step, signal: Some(signal), .. } if signal == "word" => Some((step, entry.at)),
        _ => None,
    });
    let (step, _) = set?;
    let by_hand = seen.journal.iter().any(
        |entry| matches!(&entry.event, Event::OperatorIntervened { act, .. } if act.step() == Some(step)),
    );
    let fired = seen.journal.iter().find(|entry| entry.event == Event::TimerFired { step: step.clone() })?;
    let in_time = seen.letters.iter().find(|(letter, _)| {
        matches!(&letter.message, Message::Signal { name, .. } if name == "word")
            && letter.at.plus(secs(60)) < fired.at
    });
    let (letter, _) = in_time.filter(|_| !by_hand)?;
    Some(format!("{} had come at {}, and its wait ran out at {}", letter.id, letter.at, fired.at))
}
