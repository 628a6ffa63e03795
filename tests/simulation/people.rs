//! People: clients that start sagas, and operators that act on them one by one and in bulk.

use std::time::Duration;

use amends_engine::bulk::{Bulk, BulkAct, Pace};
use amends_engine::ids::OperationId;
use amends_engine::journal::state::{Phase, Step};
use amends_engine::journal::{Act, State, act::Verdict};
use amends_engine::store::{Letter, Message, NewSaga, SagaFilter, Started, Store};
use amends_engine::testing::shaky::ShakyStore;
use amends_engine::{SagaId, Workflow, secs};
use amends_tests::yard::{
    Choice, Drawing, Enroll, Family, Parallel, Racing, Rocket, Straight, Treasure, Waiting,
};

use crate::cluster::{Cluster, PAUSE, Worker};

/// To whom operators hand things.
pub(crate) const BOB: &str = "bob";

impl Cluster {
    fn saga(&self, number: u64) -> NewSaga {
        let name = format!("n{number}");
        let env = &self.env;
        macro_rules! one_of {
            ($($place:literal $workflow:ident),*) => {
                match env.below(9) {
                    $($place => NewSaga::of::<$workflow>(env, name.clone(), &name).unwrap(),)*
                    _ => NewSaga::of::<Waiting>(env, name.clone(), &name).unwrap(),
                }
            };
        }
        let new = one_of!(
            0 Straight, 1 Parallel, 2 Choice, 3 Racing, 4 Family, 5 Drawing, 6 Treasure, 7 Rocket
        );
        match env.below(8) {
            0 => new.delayed(env, secs(300)),
            1 => new.priority(5),
            2 => new.one_of("customer-7", 2),
            3 => new.within(env, secs(40)),
            4 => new.one_of("customer-8", 1).delayed(env, secs(100)),
            _ => new,
        }
    }

    /// A client that starts a saga until it is told that it is started, and an operator who has an eye on it.
    pub(crate) async fn client(&self, number: u64, office: &Worker, storm: Duration) {
        self.some_time(storm).await;
        let saga = if self.env.below(6) == 0 {
            self.enrolled(number, office).await
        } else {
            self.started(number).await
        };
        if let Some((key, saga)) = saga {
            self.started.lock().unwrap().insert(key, saga.clone());
            self.operator(&saga).await;
        }
    }

    async fn started(&self, number: u64) -> Option<(String, SagaId)> {
        let api = ShakyStore::new(self.store.clone(), self.env.clone(), self.shakes);
        let new = self.saga(number);
        let (key, mut id) = (new.key.clone(), None);
        let mut tries = 1 + self.env.below(2);
        while tries > 0 {
            // What is sent again is the same request under another id of ours.
            let again = NewSaga { id: SagaId::from_uuid(self.env.uuid()), ..new.clone() };
            // Half of them ask a process that may then drive it at once, and die or freeze with it.
            let front = self.front().filter(|_| self.env.below(2) == 0);
            let asked = match front {
                Some(engine) => engine.begin(again).await,
                None => api.start(again).await,
            };
            match asked {
                Ok(Started::New(saga) | Started::Before(saga)) => {
                    let first = id.get_or_insert(saga.clone()).clone();
                    if first != saga {
                        self.violations.lock().unwrap().push(format!("{key}: one key, two sagas"));
                    }
                    // It is durable when it is acknowledged.
                    if self.store.saga(&saga).await.unwrap().is_none() {
                        self.violations.lock().unwrap().push(format!("{key}: acknowledged, and not there"));
                    }
                    tries -= 1;
                }
                Ok(Started::KeyReused(_)) => {
                    self.violations.lock().unwrap().push(format!("{key}: not known again"));
                    return None;
                }
                Err(_) => self.some_time(secs(10)).await,
            }
        }
        Some((key, id?))
    }

    /// A saga that is started with a line in our own table, or not at all.
    async fn enrolled(&self, number: u64, office: &Worker) -> Option<(String, SagaId)> {
        let name = format!("e{number}");
        loop {
            match office.engine.transact(Enroll { name: name.clone() }).await {
                Ok(saga) => return Some((name, SagaId::stored(saga))),
                Err(_) => self.some_time(secs(10)).await,
            }
        }
    }

    /// Somebody who acts on one saga, now and then.
    async fn operator(&self, saga: &SagaId) {
        for number in 0..self.env.below(6) {
            self.some_time(if self.env.below(2) == 0 { secs(600) } else { secs(20) }).await;
            if self.env.below(4) == 0 {
                let value = format!("hello {number}").into();
                let message = Message::Signal { name: "word".into(), value };
                self.leave(saga, format!("word-{number}"), message).await;
                continue;
            }
            let entries = self.store.journal(saga).await.unwrap();
            let state = State::fold(saga.clone(), &entries).unwrap();
            let Some(act) = self.some_act(&state) else { continue };
            // Half of them look first whether it can be done; the others are told later.
            if self.env.below(2) == 0 && act.problem(&state, self.env.now()).is_some() {
                continue;
            }
            self.count(&format!("act {}", act.kind()));
            let operation = OperationId::from_uuid(self.env.uuid());
            let (actor, reason) = ("ann".to_owned(), "to see what happens".to_owned());
            let id = format!("{operation}-{number}");
            if self.leave(saga, id, Message::Act { operation, act, actor, reason }).await {
                *self.acts.lock().unwrap() += 1;
            }
        }
    }

    async fn leave(&self, saga: &SagaId, id: String, message: Message) -> bool {
        let letter = Letter { id, saga: saga.clone(), message, at: self.env.now() };
        // What arrives twice is one letter.
        let done = self.store.post(letter.clone()).await.is_ok();
        let _ = self.store.post(letter).await;
        done
    }

    fn some_act(&self, state: &State) -> Option<Act> {
        let dice = self.env.below(14);
        match dice {
            0 => return Some(Act::Cancel),
            1 => {
                let wait = secs(1 + self.env.below(PAUSE.as_secs()));
                return Some(Act::Pause { until: self.env.now().plus(wait) });
            }
            2 => return Some(Act::Resume),
            3 | 4 => return Some(Act::Retry),
            _ => {}
        }
        // Rather something that can be done than anything.
        let in_trouble = |step: &&Step| matches!(step.phase, Phase::Deferred { .. } | Phase::Removing { .. });
        let mut open: Vec<&Step> = state.steps().iter().filter(in_trouble).collect();
        if open.is_empty() {
            open = state
                .steps()
                .iter()
                .filter(|step| !matches!(step.phase, Phase::Completed) || state.goes_back(&step.key))
                .collect();
        }
        let place = usize::try_from(self.env.below(open.len() as u64)).unwrap();
        let seen = *open.get(place)?;
        let step = seen.key.clone();
        let makes = seen.resource.is_some();
        match dice {
            5 => Some(Act::Policy { step, max_wait: secs(5) }),
            6 => Some(Act::FailAttempt { step }),
            7 => {
                let output = self.injector.made(&state.saga, &step, seen.generation)?;
                Some(Act::Settle { step, verdict: Verdict::Adopt { output, external_id: None } })
            }
            8 | 9 => self.by_hand(state, seen),
            10 => makes.then_some(Act::Skip { step }),
            11 => makes.then(|| Act::Release { step, owner: BOB.to_owned() }),
            _ => {
                let asked = seen.asked.as_ref()?;
                let (input, references) = (asked.input.clone(), asked.references.clone());
                Some(Act::Patch { step, input, references })
            }
        }
    }

    /// Somebody does it by hand, and then says so.
    fn by_hand(&self, state: &State, step: &Step) -> Option<Act> {
        let row = step.resource.as_ref().and_then(|id| state.ledger.get(id))?;
        match step.phase {
            Phase::Deferred { .. } if !step.doubted && !state.goes_back(&step.key) => {
                let id = self.yard.make_by_hand(&row.kind, &row.name);
                let output = serde_json::json!([row.name, id]);
                Some(Act::Done { step: step.key.clone(), output: Some(output) })
            }
            // Somebody who takes it away while a lost call may still make it anew has to do it twice.
            Phase::Removing { under_way: None, .. }
                if step.unsettled_until().is_none_or(|until| until < self.env.now()) =>
            {
                let id = step.output.as_ref()?.get(1)?.as_str()?.to_owned();
                self.yard.remove(&id);
                Some(Act::Done { step: step.key.clone(), output: None })
            }
            _ => None,
        }
    }

    /// Somebody who acts on many sagas at once.
    pub(crate) async fn in_bulk(&self, storm: Duration) {
        if self.env.below(3) > 0 {
            return;
        }
        self.some_time(storm).await;
        let filter = SagaFilter { limit: u32::MAX, ..SagaFilter::default() };
        let open = self.store.sagas(filter).await.unwrap();
        let sagas: Vec<SagaId> =
            open.into_iter().filter(|row| row.workflow != Bulk::NAME).map(|row| row.id).take(5).collect();
        let act = match self.env.below(3) {
            0 => Act::Cancel,
            1 => Act::Pause { until: self.env.now().plus(secs(60)) },
            _ => Act::Retry,
        };
        self.count("act bulk");
        let pace = Pace { canary: 1, per_second: 1, stop_at: 3, patience: secs(20) };
        let (actor, reason) = ("ben".to_owned(), "all of them".to_owned());
        let bulk = BulkAct { act, sagas, actor, reason, pace };
        self.store.start(NewSaga::of::<Bulk>(&self.env, "bulk", &bulk).unwrap()).await.unwrap();
    }
}
