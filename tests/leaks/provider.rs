//! A provider of every class of effect, whose calls land late, whose list lags and is empty once, and whose deletes
//! linger; and whose callers may stand still between the check of their deadline and the send.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::env::Timestamp;
use amends_engine::sweep::Observed;
use amends_engine::testing::shaky::ShakyStore;
use amends_engine::{Activity, Call, Effect, Env, Failure, Found, Object, Registry, Resource, secs};
use serde::{Deserialize, Serialize};

/// How long behind its time limit a call lands at the latest, and is listed, where the assumption holds.
pub const SETTLE_AFTER: Duration = secs(20);
/// How long an attempt takes at most.
const LIMIT: Duration = secs(10);
/// How long a list does not show what was made, at most.
const LAG: Duration = secs(8);
/// How long what was deleted is still there, at most.
const LINGERS: Duration = secs(5);
/// How much later than is waited for a call lands where an assumption fails, at most.
const TOO_LATE: Duration = secs(200);

/// What is taken for granted.
#[derive(Debug, Clone, Copy)]
pub struct Assumed {
    /// A late call lands within `settle_after` of its `not_after`.
    pub lands_in_time: bool,
    /// No process stands still between its deadline check and its send.
    pub never_stalls: bool,
}

#[derive(Debug, Clone)]
struct Thing {
    kind: &'static str,
    id: String,
    name: String,
    key: Option<String>,
    listed_at: Timestamp,
    gone_at: Option<Timestamp>,
}

/// What is there.
pub struct Provider {
    pub env: Env,
    assumed: Assumed,
    things: Mutex<Vec<Thing>>,
    keys_for_ever: Mutex<BTreeSet<String>>,
    doors: Mutex<BTreeMap<String, String>>,
    /// For what the list was empty once: it is not wrong twice about the same.
    was_empty: Mutex<BTreeSet<String>>,
    /// The last whole list was empty.
    listed_nothing: Mutex<bool>,
    made: Mutex<u64>,
    pub faults: Mutex<BTreeMap<&'static str, u64>>,
    /// Nothing goes wrong any more.
    pub calm: Mutex<bool>,
}

/// One worker's line to it.
#[derive(Clone)]
pub struct Line {
    pub provider: Arc<Provider>,
    /// The worker's store, which stands still when the worker does.
    pub store: Arc<ShakyStore>,
}

impl Provider {
    pub fn new(env: Env, assumed: Assumed) -> Self {
        Self {
            env,
            assumed,
            things: Mutex::default(),
            keys_for_ever: Mutex::default(),
            doors: Mutex::default(),
            was_empty: Mutex::default(),
            listed_nothing: Mutex::default(),
            made: Mutex::default(),
            faults: Mutex::default(),
            calm: Mutex::default(),
        }
    }

    fn count(&self, fault: &'static str) {
        *self.faults.lock().unwrap().entry(fault).or_default() += 1;
    }

    fn some_of(&self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap();
        Duration::from_micros(self.env.below(micros.max(1)))
    }

    /// Whether something that is so likely happens now.
    fn happens(&self, thousandths: u64) -> bool {
        !*self.calm.lock().unwrap() && self.env.below(1000) < thousandths
    }

    /// What is there by now.
    pub fn things(&self) -> Vec<Observed> {
        let now = self.env.now();
        self.seen(|thing| thing.gone_at.is_none_or(|gone_at| gone_at > now))
    }

    /// What of it a list shows: not what was made a moment ago.
    pub fn shown(&self) -> Vec<Observed> {
        let now = self.env.now();
        self.seen(|thing| thing.listed_at <= now && thing.gone_at.is_none_or(|gone_at| gone_at > now))
    }

    fn seen(&self, is_seen: impl Fn(&Thing) -> bool) -> Vec<Observed> {
        let things = self.things.lock().unwrap();
        let there = things.iter().filter(|thing| is_seen(thing));
        let doors = self.doors.lock().unwrap();
        let doors =
            doors.iter().map(|(door, to)| Observed::new("door", format!("{door} of {to}"), door.clone()));
        there.map(|thing| Observed::new(thing.kind, &thing.id, &thing.name)).chain(doors).collect()
    }

    /// Whether a whole list is empty, as it is now and then, and never twice in a row.
    pub fn shows_nothing(&self) -> bool {
        let mut was = self.listed_nothing.lock().unwrap();
        *was = !*was && self.env.below(4) == 0;
        if *was {
            self.count("empty list");
        }
        *was
    }

    fn make(&self, kind: &'static str, name: &str, key: Option<String>, for_ever: bool) -> String {
        let now = self.env.now();
        let mut things = self.things.lock().unwrap();
        let is_there = |thing: &&Thing| thing.gone_at.is_none_or(|gone_at| gone_at > now);
        if let Some(known) = things.iter().filter(is_there).find(|thing| key.is_some() && thing.key == key) {
            return known.id.clone();
        }
        if let Some(key) = key.as_ref().filter(|_| for_ever)
            && !self.keys_for_ever.lock().unwrap().insert(key.clone())
        {
            return "gone".to_owned();
        }
        let mut made = self.made.lock().unwrap();
        *made += 1;
        let id = format!("id-{made}");
        let listed_at = now.plus(self.some_of(LAG));
        things.push(Thing { kind, id: id.clone(), name: name.to_owned(), key, listed_at, gone_at: None });
        id
    }

    /// Deleted is answered at once; some of it is still there for a while.
    pub fn remove(&self, id: &str) {
        let lingers = if self.happens(200) { self.some_of(LINGERS) } else { Duration::ZERO };
        let gone_at = self.env.now().plus(lingers);
        if let Some(door) = id.split(" of ").next().filter(|_| id.contains(" of ")) {
            self.doors.lock().unwrap().remove(door);
        }
        for thing in self.things.lock().unwrap().iter_mut().filter(|thing| thing.id == id) {
            thing.gone_at.get_or_insert(gone_at);
        }
    }

    /// The same, if that is what there is: a door that leads to somebody else by now stays.
    pub fn remove_exactly(&self, id: &str) {
        if self.things().iter().any(|thing| thing.external_id == id) {
            self.remove(id);
        }
    }

    /// The one of this name that the list shows.
    fn listed(&self, name: &str) -> Option<String> {
        let now = self.env.now();
        let things = self.things.lock().unwrap();
        let shown = |thing: &&Thing| {
            thing.name == name && thing.listed_at <= now && thing.gone_at.is_none_or(|gone_at| gone_at > now)
        };
        let seen = things.iter().find(shown).map(|thing| thing.id.clone())?;
        let is_empty = self.happens(100) && self.was_empty.lock().unwrap().insert(name.to_owned());
        if is_empty {
            self.count("empty page");
        }
        (!is_empty).then_some(seen)
    }

    /// What really came of a step's call, as somebody sees who looks.
    pub fn seen_by_a_person(&self, name: &str) -> Option<String> {
        self.things().into_iter().find(|thing| thing.name == name).map(|thing| thing.external_id)
    }
}

fn lost() -> Failure {
    Failure::NoAnswer { cause: Cause::Reset, detail: "the line broke".to_owned() }
}

impl Line {
    /// Sends a call, and lets go wrong what may.
    async fn send<T: Send + 'static>(
        &self,
        effect: impl Fn(&Provider) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let provider = &self.provider;
        let env = provider.env.clone();
        let not_after = env.now().plus(LIMIT);
        env.sleep(provider.some_of(secs(1))).await;
        if !provider.assumed.never_stalls && provider.happens(30) {
            // It has looked at its watch, and then its process stands still; others take over meanwhile.
            provider.count("stalled");
            self.store.freeze(true);
            let (line, stall) = (self.clone(), LIMIT + SETTLE_AFTER + provider.some_of(TOO_LATE));
            tokio::spawn(async move {
                line.provider.env.sleep(stall).await;
                effect(&line.provider);
                line.store.freeze(false);
            });
            return std::future::pending().await;
        }
        if provider.happens(100) {
            provider.count("landed late");
            // It has to be listed by then, too.
            let at_most = not_after.plus(SETTLE_AFTER - LAG).since(env.now());
            let mut wait = provider.some_of(at_most);
            if !provider.assumed.lands_in_time && provider.env.below(2) == 0 {
                provider.count("landed too late");
                wait = LIMIT + SETTLE_AFTER + provider.some_of(TOO_LATE);
            }
            let line = provider.clone();
            tokio::spawn(async move {
                line.env.sleep(wait).await;
                effect(&line);
            });
            return Err(lost());
        }
        match env.below(20) {
            0 if provider.happens(1000) => {
                Err(Failure::Unavailable { cause: Cause::Connect, detail: "down".into(), retry_after: None })
            }
            1 if provider.happens(1000) => Err(lost()),
            2 if provider.happens(1000) => {
                effect(provider);
                Err(lost())
            }
            _ => Ok(effect(provider)),
        }
    }
}

macro_rules! makes {
    ($name:ident, $wire:literal, $effect:expr, key: $keyed:literal, for_ever: $for_ever:literal, found: $found:ident) => {
        #[derive(Debug, Clone, Serialize, Deserialize)]
        pub struct $name(pub String);

        impl Activity for $name {
            const NAME: &'static str = $wire;
            const EFFECT: Effect = $effect;
            const TIME_LIMIT: Duration = LIMIT;
            type Client = Line;
            type Output = String;

            fn resource(&self, call: &Call) -> Option<Resource> {
                Some(Resource::new("leaky", $wire, call.name(&self.0)))
            }

            fn settle_after(&self, _: &Line) -> Duration {
                SETTLE_AFTER
            }

            fn external_id(made: &String) -> Option<String> {
                Some(made.clone())
            }

            async fn execute(&self, line: &Line, call: &Call) -> Result<String, Failure> {
                let (name, key) = (call.name(&self.0), $keyed.then(|| call.key().to_string()));
                line.send(move |provider| provider.make($wire, &name, key.clone(), $for_ever)).await
            }

            async fn find(&self, line: &Line, call: &Call) -> Result<Found<String>, Failure> {
                if line.provider.happens(100) {
                    return Err(lost());
                }
                Ok(line.provider.listed(&call.name(&self.0)).map_or(Found::Nothing, Found::$found))
            }

            async fn compensate(&self, line: &Line, made: &String, _: &Call) -> Result<(), Failure> {
                let made = made.clone();
                line.send(move |provider| provider.remove(&made)).await
            }
        }
    };
}

const SETTLES: Duration = SETTLE_AFTER;
makes!(House, "house", Effect::Searchable { settle_after: SETTLES }, key: false, for_ever: false, found: Usable);
makes!(Coin, "coin", Effect::SearchableOnce { settle_after: SETTLES }, key: false, for_ever: false, found: Unusable);
makes!(Lease, "lease", Effect::Repeatable, key: true, for_ever: false, found: Usable);
makes!(Deed, "deed", Effect::RepeatableForever, key: true, for_ever: true, found: Usable);
makes!(Loan, "loan", Effect::RepeatableWithin { window: secs(24 * 3600) }, key: true, for_ever: false, found: Usable);

/// Cannot be looked for by a program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Flare(pub String);

impl Activity for Flare {
    const NAME: &'static str = "flare";
    const EFFECT: Effect = Effect::Blind;
    const TIME_LIMIT: Duration = LIMIT;
    type Client = Line;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("leaky", "flare", call.name(&self.0)))
    }

    fn settle_after(&self, _: &Line) -> Duration {
        SETTLE_AFTER
    }

    fn external_id(made: &String) -> Option<String> {
        Some(made.clone())
    }

    async fn execute(&self, line: &Line, call: &Call) -> Result<String, Failure> {
        let name = call.name(&self.0);
        line.send(move |provider| provider.make("flare", &name, None, false)).await
    }

    async fn compensate(&self, line: &Line, made: &String, _: &Call) -> Result<(), Failure> {
        let made = made.clone();
        line.send(move |provider| provider.remove(&made)).await
    }
}

/// Sets a door, and clears it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetDoor {
    pub door: String,
    pub to: String,
}

impl Activity for SetDoor {
    const NAME: &'static str = "door";
    const EFFECT: Effect = Effect::Repeatable;
    const TIME_LIMIT: Duration = LIMIT;
    type Client = Line;
    type Output = String;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("leaky", "door", &self.door))
    }

    fn object(&self, _: &Call) -> Option<Object> {
        Some(Object::new("leaky", "door", &self.door))
    }

    fn settle_after(&self, _: &Line) -> Duration {
        SETTLE_AFTER
    }

    fn external_id(made: &String) -> Option<String> {
        Some(made.clone())
    }

    async fn execute(&self, line: &Line, _: &Call) -> Result<String, Failure> {
        let (door, to) = (self.door.clone(), self.to.clone());
        let set =
            line.send(move |provider| drop(provider.doors.lock().unwrap().insert(door.clone(), to.clone())));
        set.await?;
        Ok(format!("{} of {}", self.door, self.to))
    }

    async fn compensate(&self, line: &Line, made: &String, _: &Call) -> Result<(), Failure> {
        let made = made.clone();
        line.send(move |provider| provider.remove(&made)).await
    }
}

/// All of it, over this worker's line.
pub fn offers(line: &Arc<Line>, registry: Registry) -> Registry {
    let client = || line.clone();
    registry
        .activity::<House>(client())
        .activity::<Coin>(client())
        .activity::<Lease>(client())
        .activity::<Deed>(client())
        .activity::<Loan>(client())
        .activity::<Flare>(client())
        .activity::<SetDoor>(client())
}
