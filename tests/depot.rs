//! A depot: a provider of every class of effect, of whose calls each can be lost and take effect when the test says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::{
    Activity, Call, Effect, Failure, Found, Local, Object, Registry, Removal, Resource, Tx, secs,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What one call comes to.
#[derive(Debug, Clone)]
pub enum Fate {
    /// It does not happen.
    Fails(Failure),
    /// Its answer is lost, and it takes effect so much later.
    LandsIn(Duration),
    /// It takes so long.
    Takes(Duration),
}

pub fn lost() -> Failure {
    Failure::NoAnswer { cause: Cause::Reset, detail: "the line broke".to_owned() }
}

pub fn unavailable() -> Failure {
    Failure::Unavailable { cause: Cause::ServerError, detail: "503, try later".to_owned(), retry_after: None }
}

/// One thing that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    pub id: String,
    pub name: String,
    key: Option<String>,
}

/// What is there, and what goes wrong.
#[derive(Default)]
pub struct Depot {
    things: Mutex<Vec<Thing>>,
    /// Keys that are known also when what was made under them is gone.
    for_ever: Mutex<Vec<String>>,
    made: Mutex<usize>,
    /// To whom each door is set.
    doors: Mutex<BTreeMap<String, String>>,
    fates: Mutex<BTreeMap<String, VecDeque<Fate>>>,
    /// Every call that left, in order.
    calls: Mutex<Vec<String>>,
    /// How long effects take to settle, as its configuration says.
    pub settles: Mutex<Option<Duration>>,
}

impl Depot {
    /// The next calls of these words come to this, in order; all others work.
    pub fn next(&self, call: &str, fates: impl IntoIterator<Item = Fate>) {
        self.fates.lock().unwrap().entry(call.to_owned()).or_default().extend(fates);
    }

    pub fn names(&self) -> Vec<String> {
        self.things.lock().unwrap().iter().map(|thing| thing.name.clone()).collect()
    }

    pub fn calls(&self, call: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|other| *other == call).count()
    }

    pub fn door(&self, door: &str) -> Option<String> {
        self.doors.lock().unwrap().get(door).cloned()
    }

    async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        call: String,
        effect: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        self.calls.lock().unwrap().push(call.clone());
        let fate = self.fates.lock().unwrap().get_mut(&call).and_then(VecDeque::pop_front);
        match fate {
            Some(Fate::Fails(failure)) => return Err(failure),
            Some(Fate::LandsIn(wait)) => {
                let depot = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    effect(&depot);
                });
                return Err(lost());
            }
            Some(Fate::Takes(wait)) => tokio::time::sleep(wait).await,
            None => {}
        }
        Ok(effect(self))
    }

    fn make(&self, name: &str, key: Option<String>, for_ever: bool) -> String {
        let mut things = self.things.lock().unwrap();
        if let Some(thing) = things.iter().find(|thing| key.is_some() && thing.key == key) {
            return thing.id.clone();
        }
        if let Some(known) = key.as_ref().filter(|_| for_ever) {
            let mut known_keys = self.for_ever.lock().unwrap();
            if known_keys.contains(known) {
                return "gone".to_owned();
            }
            known_keys.push(known.clone());
        }
        let mut made = self.made.lock().unwrap();
        *made += 1;
        let id = format!("id-{made}");
        things.push(Thing { id: id.clone(), name: name.to_owned(), key });
        id
    }

    fn remove(&self, id: &str) {
        self.things.lock().unwrap().retain(|thing| thing.id != id);
    }
}

macro_rules! makes {
    ($name:ident, $wire:literal, $effect:expr, key: $keyed:literal, for_ever: $for_ever:literal, $(once: $once:literal,)? $(consistent: $consistent:literal,)?) => {
        /// Makes a thing of this name.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        pub struct $name(pub String);

        impl Activity for $name {
            const NAME: &'static str = $wire;
            const EFFECT: Effect = $effect;
            const GIVE_UP_AFTER: Duration = secs(7 * 24 * 3600);
            $(const STRONGLY_CONSISTENT: bool = $consistent;)?
            type Client = Arc<Depot>;
            type Output = String;

            fn resource(&self, call: &Call) -> Option<Resource> {
                Some(Resource::new("depot", "thing", call.name(&self.0)))
            }

            fn settle_after(&self, depot: &Arc<Depot>) -> Duration {
                depot.settles.lock().unwrap().unwrap_or(Self::EFFECT.settle_after())
            }

            fn external_id(made: &String) -> Option<String> {
                Some(made.clone())
            }

            async fn execute(&self, depot: &Arc<Depot>, call: &Call) -> Result<String, Failure> {
                let (name, key) = (call.name(&self.0), $keyed.then(|| call.key().to_string()));
                depot.call(format!("make {}", self.0), move |depot| depot.make(&name, key, $for_ever)).await
            }

            async fn find(&self, depot: &Arc<Depot>, call: &Call) -> Result<Found<String>, Failure> {
                let name = call.name(&self.0);
                let seen = depot.call(format!("find {}", self.0), move |depot| {
                    let things = depot.things.lock().unwrap();
                    things.iter().find(|thing| thing.name == name).map(|thing| thing.id.clone())
                });
                match seen.await {
                    Err(Failure::Refused(_)) => Ok(Found::Unknowable),
                    Err(failure) => Err(failure),
                    Ok(None) => Ok(Found::Nothing),
                    #[allow(unreachable_code, reason = "what is shown once is of no use")]
                    Ok(Some(id)) => {
                        $(let _: bool = $once; return Ok(Found::Unusable(id));)?
                        Ok(Found::Usable(id))
                    }
                }
            }

            async fn compensate(&self, depot: &Arc<Depot>, made: &String, _: &Call) -> Result<(), Failure> {
                let made = made.clone();
                depot.call(format!("undo {}", self.0), move |depot| depot.remove(&made)).await
            }
        }
    };
}

makes!(Lease, "depot.lease", Effect::Repeatable, key: true, for_ever: false,);
makes!(Deed, "depot.deed", Effect::RepeatableForever, key: true, for_ever: true,);
makes!(Loan, "depot.loan", Effect::RepeatableWithin { window: secs(24 * 3600) }, key: true, for_ever: false,);
makes!(House, "depot.house", Effect::Searchable { settle_after: secs(10) }, key: false, for_ever: false,);
makes!(Hut, "depot.hut", Effect::Searchable { settle_after: secs(10) }, key: false, for_ever: false, consistent: true,);
makes!(Coin, "depot.coin", Effect::SearchableOnce { settle_after: secs(10) }, key: false, for_ever: false, once: true,);
makes!(Flare, "depot.flare", Effect::Blind, key: false, for_ever: false,);

/// Sets a door to somebody, until it is cleared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetDoor {
    pub door: String,
    pub to: String,
}

impl Activity for SetDoor {
    const NAME: &'static str = "depot.set_door";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Arc<Depot>;
    type Output = String;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("depot", "door", &self.door))
    }

    fn object(&self, _: &Call) -> Option<Object> {
        Some(Object::new("depot", "door", &self.door))
    }

    fn external_id(made: &String) -> Option<String> {
        Some(format!("id of {made}"))
    }

    async fn execute(&self, depot: &Arc<Depot>, _: &Call) -> Result<String, Failure> {
        let (door, to) = (self.door.clone(), self.to.clone());
        let set = depot.call(format!("set {} {}", self.door, self.to), move |depot| {
            depot.doors.lock().unwrap().insert(door, to);
        });
        set.await?;
        Ok(self.door.clone())
    }

    async fn compensate(&self, depot: &Arc<Depot>, _: &String, _: &Call) -> Result<(), Failure> {
        clear(depot, &self.door).await
    }
}

async fn clear(depot: &Arc<Depot>, door: &str) -> Result<(), Failure> {
    let cleared = door.to_owned();
    depot
        .call(format!("clear {door}"), move |depot| {
            depot.doors.lock().unwrap().remove(&cleared);
        })
        .await
}

/// Clears a door that another saga may have set; names it by the provider's id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClearDoor {
    pub door: String,
}

impl Activity for ClearDoor {
    const NAME: &'static str = "depot.clear_door";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Arc<Depot>;
    type Output = ();

    fn object(&self, _: &Call) -> Option<Object> {
        Some(Object::new("depot", "door", format!("id of {}", self.door)))
    }

    async fn execute(&self, depot: &Arc<Depot>, _: &Call) -> Result<(), Failure> {
        clear(depot, &self.door).await
    }
}

/// Sees that a door is cleared, and closes the rows of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DoorCleared {
    pub door: String,
    pub rows: Vec<amends_engine::ResourceId>,
}

impl Activity for DoorCleared {
    const NAME: &'static str = "depot.door_cleared";
    const EFFECT: Effect = Effect::Read;
    type Client = Arc<Depot>;
    type Output = Option<bool>;

    fn removes(&self) -> Vec<amends_engine::ResourceId> {
        self.rows.clone()
    }

    async fn execute(&self, depot: &Arc<Depot>, _: &Call) -> Result<Option<bool>, Failure> {
        let door = self.door.clone();
        let is_clear = move |depot: &Depot| depot.door(&door).is_none().then_some(true);
        depot.call(format!("see {}", self.door), is_clear).await
    }
}

/// Takes things of this name away, whoever made them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveThings {
    pub name: String,
    pub rows: Vec<amends_engine::ResourceId>,
}

impl Removal for RemoveThings {
    const NAME: &'static str = "depot.remove_things";
    const SETTLE_AFTER: Duration = secs(10);
    type Client = Arc<Depot>;

    fn resources(&self) -> Vec<amends_engine::ResourceId> {
        self.rows.clone()
    }

    async fn is_there(&self, depot: &Arc<Depot>, _: &Call) -> Result<bool, Failure> {
        Ok(depot.names().contains(&self.name))
    }

    async fn request(&self, depot: &Arc<Depot>, _: &Call) -> Result<(), Failure> {
        let name = self.name.clone();
        let removes = move |depot: &Depot| depot.things.lock().unwrap().retain(|thing| thing.name != name);
        depot.call(format!("remove {}", self.name), removes).await
    }
}

/// Takes over what somebody holds; yields the rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakeOver {
    pub from: String,
}

impl Local for TakeOver {
    const NAME: &'static str = "depot.take_over";
    type Output = Vec<amends_engine::ResourceId>;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Self::Output, Failure> {
        Ok(tx.take(&self.from).await?.into_iter().map(|row| row.id).collect())
    }
}

/// Reads a list page by page, each of which takes 20 s.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Archive(pub String);

/// How many pages the list has.
pub const PAGES: u64 = 10;

impl Activity for Archive {
    const NAME: &'static str = "depot.archive";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(10) };
    type Client = Arc<Depot>;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("depot", "thing", call.name(&self.0)))
    }

    async fn execute(&self, depot: &Arc<Depot>, call: &Call) -> Result<String, Failure> {
        let name = call.name(&self.0);
        depot.call(format!("make {}", self.0), move |depot| depot.make(&name, None, false)).await
    }

    async fn find(&self, depot: &Arc<Depot>, call: &Call) -> Result<Found<String>, Failure> {
        let first = call.resumes_at().as_ref().and_then(Value::as_u64).unwrap_or(0);
        for page in first..PAGES {
            let name = call.name(&self.0);
            depot.next("page", [Fate::Takes(secs(20))]);
            let seen = depot.call("page".to_owned(), move |depot| {
                let things = depot.things.lock().unwrap();
                // The newest stand last.
                things
                    .iter()
                    .find(|thing| page == PAGES - 1 && thing.name == name)
                    .map(|thing| thing.id.clone())
            });
            if let Some(id) = seen.await? {
                return Ok(Found::Usable(id));
            }
            call.read_up_to(page + 1);
        }
        Ok(Found::Nothing)
    }

    async fn compensate(&self, depot: &Arc<Depot>, made: &String, _: &Call) -> Result<(), Failure> {
        let made = made.clone();
        depot.call(format!("undo {}", self.0), move |depot| depot.remove(&made)).await
    }
}

/// Tries three times.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Knock(pub String);

impl Activity for Knock {
    const NAME: &'static str = "depot.knock";
    const EFFECT: Effect = Effect::Repeatable;
    const ATTEMPTS_MAX: Option<u32> = Some(3);
    type Client = Arc<Depot>;
    type Output = ();

    async fn execute(&self, depot: &Arc<Depot>, _: &Call) -> Result<(), Failure> {
        depot.call(format!("knock {}", self.0), |_| ()).await
    }
}

/// All of it.
pub fn offers(depot: &Arc<Depot>) -> Registry {
    let client = || Arc::new(depot.clone());
    Registry::default()
        .activity::<Lease>(client())
        .activity::<Deed>(client())
        .activity::<Loan>(client())
        .activity::<House>(client())
        .activity::<Hut>(client())
        .activity::<Coin>(client())
        .activity::<Flare>(client())
        .activity::<SetDoor>(client())
        .activity::<ClearDoor>(client())
        .activity::<DoorCleared>(client())
        .activity::<Archive>(client())
        .activity::<Knock>(client())
        .removal::<RemoveThings>(client())
        .local::<TakeOver>()
}
