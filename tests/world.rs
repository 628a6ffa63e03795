//! A small world outside: things that can be made and unmade over a line that can fail in every way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::activity::{Cause, Found};
use amends_engine::{Activity, Call, Effect, Failure, Made, Resource, secs};
use serde::{Deserialize, Serialize};

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    Refused,
    Unavailable,
    LostAfter,
    LostBefore,
    CommitsLate,
    Panics,
}

pub const FAULTS: [Fault; 6] = [
    Fault::Refused,
    Fault::Unavailable,
    Fault::LostAfter,
    Fault::LostBefore,
    Fault::CommitsLate,
    Fault::Panics,
];

#[derive(Default)]
pub struct World {
    /// Name to number of times it exists.
    pub things: Mutex<BTreeMap<String, usize>>,
    /// `make x` or `unmake x` to the faults of its next calls.
    faults: Mutex<BTreeMap<String, Vec<Fault>>>,
    pub fired: Mutex<Vec<Fault>>,
    pub calls: Mutex<Vec<String>>,
    /// Calls that were lost and have not landed yet.
    late: AtomicUsize,
}

/// How long after a lost call it may still act: within the settle time that `Make` states, at the tests' pace.
const LATE: Duration = Duration::from_millis(15);
pub const PACE: u32 = 20;

impl World {
    pub fn fail(&self, call: &str, faults: &[Fault]) {
        self.faults.lock().unwrap().insert(call.to_owned(), faults.iter().rev().copied().collect());
    }

    /// Whether no call of it is to fail.
    pub fn is_well(&self) -> bool {
        self.faults.lock().unwrap().is_empty()
    }

    pub fn things(&self) -> BTreeMap<String, usize> {
        self.things.lock().unwrap().clone()
    }

    /// Waits until what was lost and may still act has acted.
    pub async fn all_landed(&self) {
        while self.late.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn act(
        self: &Arc<Self>,
        call: String,
        act: impl FnOnce(&Self) + Send + 'static,
    ) -> Result<(), Failure> {
        self.calls.lock().unwrap().push(call.clone());
        let fault = self.faults.lock().unwrap().get_mut(&call).and_then(Vec::pop);
        let lost = || Err(Failure::NoAnswer { cause: Cause::Connect, detail: "the line dropped".into() });
        self.fired.lock().unwrap().extend(fault);
        // As a call over a network does, it lets others run.
        tokio::task::yield_now().await;
        match fault {
            None => act(self),
            Some(Fault::Refused) => return Err(Failure::refused("no", "the world says no")),
            Some(Fault::Unavailable) => {
                let detail = "closed for lunch".to_owned();
                return Err(Failure::Unavailable { cause: Cause::ServerError, detail, retry_after: None });
            }
            Some(Fault::LostAfter) => {
                act(self);
                return lost();
            }
            Some(Fault::LostBefore) => return lost(),
            Some(Fault::CommitsLate) => {
                let world = self.clone();
                self.late.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    tokio::time::sleep(LATE).await;
                    act(&world);
                    world.late.fetch_sub(1, Ordering::SeqCst);
                });
                return lost();
            }
            Some(Fault::Panics) => panic!("a client that panics"),
        }
        Ok(())
    }
}

/// Makes a thing of this name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Make {
    pub name: String,
    /// Whether the provider lets it live inside the thing of that step.
    pub inside: Option<String>,
    /// What it needs.
    pub needs: Option<Made<Thing>>,
}

impl Make {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), inside: None, needs: None }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thing {
    pub name: String,
}

impl Activity for Make {
    const NAME: &'static str = "world.make";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    const TIME_LIMIT: Duration = secs(5);
    type Client = Arc<World>;
    type Output = Thing;

    fn resource(&self, call: &Call) -> Option<Resource> {
        let resource = Resource::new("world", "thing", call.name(&self.name));
        Some(match &self.inside {
            Some(step) => resource.within(step.as_str()),
            None => resource,
        })
    }

    fn external_id(made: &Thing) -> Option<String> {
        Some(made.name.clone())
    }

    async fn execute(&self, world: &Arc<World>, call: &Call) -> Result<Thing, Failure> {
        let name = call.name(&self.name);
        let made = Thing { name: name.clone() };
        world
            .act(format!("make {}", self.name), move |world| {
                *world.things.lock().unwrap().entry(name).or_default() += 1;
            })
            .await?;
        Ok(made)
    }

    async fn find(&self, world: &Arc<World>, call: &Call) -> Result<Found<Thing>, Failure> {
        let name = call.name(&self.name);
        let there = world.things.lock().unwrap().contains_key(&name);
        Ok(if there { Found::Usable(Thing { name }) } else { Found::Nothing })
    }

    async fn compensate(&self, world: &Arc<World>, made: &Thing, _: &Call) -> Result<(), Failure> {
        let name = made.name.clone();
        world
            .act(format!("unmake {}", self.name), move |world| {
                let mut things = world.things.lock().unwrap();
                things.remove(&name);
                // What lives inside goes with it.
                things.retain(|other, _| !other.starts_with(&format!("{name}.")));
            })
            .await
    }
}

/// Refuses, always.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fails;

impl Activity for Fails {
    const NAME: &'static str = "world.fails";
    const EFFECT: Effect = Effect::Read;
    type Client = Arc<World>;
    type Output = ();

    async fn execute(&self, _: &Arc<World>, _: &Call) -> Result<(), Failure> {
        Err(Failure::refused("as_planned", "this step always fails"))
    }
}
