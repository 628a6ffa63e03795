//! A yard: providers of every class, with identities, lists that lag and calls that land late; and sagas that use
//! every verb on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::env::Timestamp;
use amends_engine::ids::StepKey;
use amends_engine::journal::Event;
use amends_engine::store::open::Migrations;
use amends_engine::store::{NewSaga, Store};
use amends_engine::sweep::{Ask, Identity, Kind, ListPage, Observed, Provider, async_trait};
use amends_engine::{
    Activity, Call, Effect, Env, Failure, Found, Gate, Halt, Local, Registry, Resource, Saga, Tx, Workflow,
    params, saga, secs,
};
use serde::{Deserialize, Serialize};

pub const NOTES: &[Migrations] =
    &[Migrations { table: "note_migration", sqlite: &[("note", NOTE)], postgres: &[("note", NOTE)] }];

const NOTE: &str = "create table note (text text primary key);";

/// What the keys begin with that are known for ever.
const FOR_EVER: &str = "for ever ";

/// How long a list may not show what was made; within the settle time of what is found by it.
const LAG: Duration = secs(4);
/// So many things are on a page of a list.
const PAGE: usize = 20;

/// One thing that is there.
#[derive(Debug, Clone)]
pub struct Thing {
    pub id: String,
    /// As the ledger has it.
    pub kind: String,
    pub name: String,
    /// Who made it: nobody's saga if a person did.
    pub saga: String,
    /// In which step.
    pub step: StepKey,
    made_at: Timestamp,
    /// The thing in which it stands, and with which it goes.
    stands_in: Option<String>,
}

#[derive(Default)]
pub struct Yard {
    env: Option<Env>,
    things: Mutex<Vec<Thing>>,
    /// What was made under each idempotency key. A key is free again when that is gone, unless it is for ever.
    keys: Mutex<BTreeMap<String, (String, Timestamp)>>,
    /// How often each generation of each step had an effect.
    effects: Mutex<BTreeMap<String, u32>>,
    /// Which sagas lifted off.
    lifted: Mutex<BTreeMap<String, u32>>,
    /// A bug of its own: its first thing is made twice.
    one_too_many: Mutex<bool>,
    /// The names under which people made things.
    by_hand: Mutex<BTreeSet<String>>,
    made: Mutex<u64>,
    /// Where intents are looked up, so that an effect without one is seen.
    journal: Mutex<Option<Arc<dyn Store>>>,
    /// What must never happen, and did.
    pub violations: Mutex<Vec<String>>,
}

impl Yard {
    /// A yard whose lists lag by this clock, and that checks each effect's intent in this store.
    pub fn watched(env: Env, journal: Arc<dyn Store>) -> Self {
        Self { env: Some(env), journal: Mutex::new(Some(journal)), ..Self::default() }
    }

    /// From here on each effect's intent is checked in this store.
    pub fn watch(&self, journal: Arc<dyn Store>) {
        *self.journal.lock().unwrap() = Some(journal);
    }

    /// What is there, by name.
    pub fn names(&self) -> Vec<String> {
        self.things.lock().unwrap().iter().map(|thing| thing.name.clone()).collect()
    }

    pub fn things(&self) -> Vec<Thing> {
        self.things.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.journal.lock().unwrap().take();
    }

    fn now(&self) -> Timestamp {
        self.env.as_ref().map_or(Timestamp(0), Env::now)
    }

    fn make(&self, kind: &str, name: &str, call: &Call) -> String {
        self.make_in(None, kind, name, call)
    }

    fn make_in(&self, outer: Option<&String>, kind: &str, name: &str, call: &Call) -> String {
        let generation = format!("{} {} {}", call.saga(), call.step(), call.generation());
        *self.effects.lock().unwrap().entry(generation).or_default() += 1;
        self.put(kind, name, call.saga().as_str(), call.step().clone(), outer)
    }

    fn put(&self, kind: &str, name: &str, saga: &str, step: StepKey, outer: Option<&String>) -> String {
        let mut made = self.made.lock().unwrap();
        *made += 1;
        let (name, saga) = (name.to_owned(), saga.to_owned());
        let (id, stands_in) = (format!("id-{made}"), outer.cloned());
        let kind = kind.to_owned();
        let thing = Thing { id, kind, name, saga, step, made_at: self.now(), stands_in };
        let id = thing.id.clone();
        if std::mem::take(&mut *self.one_too_many.lock().unwrap()) {
            let twin = Thing { id: "id-0".to_owned(), name: "twin".to_owned(), ..thing.clone() };
            self.things.lock().unwrap().push(twin);
        }
        self.things.lock().unwrap().push(thing);
        id
    }

    /// A person makes something by hand.
    pub fn make_by_hand(&self, kind: &str, name: &str) -> String {
        self.by_hand.lock().unwrap().insert(name.to_owned());
        self.put(kind, name, "", StepKey::root(), None)
    }

    /// Plants a bug that has nothing to do with the engine.
    pub fn makes_one_too_many(&self) {
        *self.one_too_many.lock().unwrap() = true;
    }

    /// Whether a person made something of its name, which is the sweep's until it is on a ledger.
    pub fn is_made_by_hand(&self, thing: &Thing) -> bool {
        self.by_hand.lock().unwrap().contains(&thing.name)
    }

    /// What must have had one effect for each generation, and had more.
    fn once(&self, call: &Call) {
        let generation = format!("{} {} {}", call.saga(), call.step(), call.generation());
        if self.effects.lock().unwrap().get(&generation).is_some_and(|effects| *effects > 1) {
            self.violations.lock().unwrap().push(format!("{generation}: done twice"));
        }
    }

    /// How often a saga did what cannot be taken back.
    pub fn lifted(&self, saga: &str) -> u32 {
        self.lifted.lock().unwrap().get(saga).copied().unwrap_or(0)
    }

    /// The generations of steps that had more than one effect.
    pub fn doubled(&self) -> Vec<String> {
        let effects = self.effects.lock().unwrap();
        effects
            .iter()
            .filter(|(_, effects)| **effects > 1)
            .map(|(generation, _)| generation.clone())
            .collect()
    }

    /// Once for each key, as long as that is remembered and the thing is there.
    fn once_a_key(&self, kind: &str, name: &str, call: &Call, remembered: Duration) -> String {
        self.once_under(call.key().to_string(), kind, name, call, remembered)
    }

    fn once_under(&self, key: String, kind: &str, name: &str, call: &Call, remembered: Duration) -> String {
        let known = self.keys.lock().unwrap().get(&key).cloned();
        if let Some((id, at)) = known
            && self.now().since(at) < remembered
        {
            return id;
        }
        let id = self.make(kind, name, call);
        self.once(call);
        self.keys.lock().unwrap().insert(key, (id.clone(), self.now()));
        id
    }

    /// What is gone, and what lives inside it.
    pub fn remove(&self, id: &str) {
        let mut things = self.things.lock().unwrap();
        things.retain(|thing| thing.id != id && thing.stands_in.as_deref() != Some(id));
        self.keys.lock().unwrap().retain(|key, (made, _)| made != id || key.starts_with(FOR_EVER));
    }

    fn is_there(&self, id: &str) -> bool {
        self.things.lock().unwrap().iter().any(|thing| thing.id == id)
    }

    /// The oldest of this name that the list shows yet.
    fn listed(&self, name: &str) -> Option<Thing> {
        let now = self.now();
        let things = self.things.lock().unwrap();
        let seen = |thing: &&Thing| self.env.is_none() || now.since(thing.made_at) >= LAG;
        things.iter().filter(seen).find(|thing| thing.name == name).cloned()
    }

    /// Every effect has its intent in the journal before it happens.
    async fn check_intent(&self, call: &Call) {
        let Some(store) = self.journal.lock().unwrap().clone() else { return };
        let entries = store.journal(call.saga()).await.unwrap_or_default();
        let intended = entries.iter().any(|entry| match &entry.event {
            Event::AttemptStarted { step, attempt, .. } => step == call.step() && *attempt >= call.attempt(),
            _ => false,
        });
        if !intended {
            self.violations.lock().unwrap().push(format!(
                "{} {}: an effect without intent",
                call.saga(),
                call.step()
            ));
        }
    }
}

fn seen(thing: &Thing) -> Observed {
    Observed::new(&thing.kind, thing.id.clone(), thing.name.clone())
}

/// The yard as the sweep sees it: its list lags, a direct look does not.
#[async_trait]
impl Provider for Yard {
    fn name(&self) -> &'static str {
        "yard"
    }

    fn kinds(&self) -> Vec<Kind> {
        ["thing", "coin", "rented", "leased", "buried"].map(Kind::new).into()
    }

    fn settle_after(&self) -> Duration {
        secs(10)
    }

    /// Every name in the yard is made of a saga's; what tells ours from others' is the ledger.
    fn is_ours(&self, _: &str) -> bool {
        true
    }

    fn register(self: Arc<Self>, registry: Registry) -> Registry {
        registry
            .activity::<Build>(self.clone())
            .activity::<Mint>(self.clone())
            .activity::<Rent>(self.clone())
            .activity::<Own>(self.clone())
            .activity::<Lease>(self.clone())
            .activity::<Bury>(self.clone())
            .activity::<LiftOff>(self.clone())
            .activity::<Sweep>(self.clone())
            .activity::<Look>(self)
    }

    fn gates(&self, _: Ask<'_>) -> Vec<Gate> {
        vec![Gate::credential("yard")]
    }

    async fn list(&self, cursor: Option<&str>) -> Result<ListPage, Failure> {
        let from: usize = cursor.unwrap_or("0").parse().unwrap_or(0);
        let now = self.now();
        let things = self.things();
        let listed = things.iter().filter(|thing| self.env.is_none() || now.since(thing.made_at) >= LAG);
        let mut page: Vec<Observed> = listed.skip(from).take(PAGE + 1).map(seen).collect();
        let next = (page.len() > PAGE).then(|| (from + PAGE).to_string());
        page.truncate(PAGE);
        Ok(ListPage { things: page, next })
    }

    async fn read(&self, thing: &Identity) -> Result<Option<Observed>, Failure> {
        let things = self.things.lock().unwrap();
        Ok(things.iter().find(|known| thing.external_id.as_ref() == Some(&known.id)).map(seen))
    }

    async fn remove(&self, thing: &Identity) -> Result<(), Failure> {
        self.remove(thing.external_id.as_deref().unwrap_or_default());
        Ok(())
    }
}

/// Found again by its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Build {
    name: String,
    /// The step that made what it stands in, and that one's id.
    inside: Option<(String, String)>,
}

pub fn build(name: String) -> Build {
    Build { name, inside: None }
}

impl Activity for Build {
    const NAME: &'static str = "yard.build";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(10) };
    type Client = Yard;
    type Output = (String, String);

    fn resource(&self, call: &Call) -> Option<Resource> {
        let resource = Resource::new("yard", "thing", call.name(&self.name));
        Some(match &self.inside {
            Some((step, _)) => resource.within(step.as_str()),
            None => resource,
        })
    }

    fn gates(&self, _: &Yard) -> Vec<Gate> {
        vec![Gate::credential("yard").rate(4, secs(1)).burst(4)]
    }

    fn external_id(made: &(String, String)) -> Option<String> {
        Some(made.1.clone())
    }

    async fn execute(&self, yard: &Yard, call: &Call) -> Result<(String, String), Failure> {
        yard.check_intent(call).await;
        let name = call.name(&self.name);
        let outer = self.inside.as_ref().map(|(_, id)| id);
        if outer.is_some_and(|outer| !yard.is_there(outer)) {
            return Err(Failure::refused("not_found", "what it was to stand in is gone"));
        }
        let id = yard.make_in(outer, "thing", &name, call);
        Ok((name, id))
    }

    async fn find(&self, yard: &Yard, call: &Call) -> Result<Found<(String, String)>, Failure> {
        let listed = yard.listed(&call.name(&self.name));
        Ok(listed.map_or(Found::Nothing, |thing| Found::Usable((thing.name, thing.id))))
    }

    async fn compensate(&self, yard: &Yard, made: &(String, String), _: &Call) -> Result<(), Failure> {
        yard.remove(&made.1);
        Ok(())
    }
}

/// Found again by its name, but of no use then: what came with it was shown once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mint {
    name: String,
}

impl Activity for Mint {
    const NAME: &'static str = "yard.mint";
    const EFFECT: Effect = Effect::SearchableOnce { settle_after: secs(10) };
    type Client = Yard;
    type Output = (String, String);

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("yard", "coin", call.name(&self.name)))
    }

    fn external_id(made: &(String, String)) -> Option<String> {
        Some(made.1.clone())
    }

    async fn execute(&self, yard: &Yard, call: &Call) -> Result<(String, String), Failure> {
        yard.check_intent(call).await;
        let name = call.name(&self.name);
        let id = yard.make("coin", &name, call);
        Ok((name, id))
    }

    async fn find(&self, yard: &Yard, call: &Call) -> Result<Found<(String, String)>, Failure> {
        let listed = yard.listed(&call.name(&self.name));
        Ok(listed.map_or(Found::Nothing, |thing| Found::Unusable((thing.name, thing.id))))
    }

    async fn compensate(&self, yard: &Yard, made: &(String, String), _: &Call) -> Result<(), Failure> {
        yard.remove(&made.1);
        Ok(())
    }
}

/// The same key is the same thing, however often it is sent; also after it was taken away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Own {
    name: String,
}

impl Activity for Own {
    const NAME: &'static str = "yard.own";
    const EFFECT: Effect = Effect::RepeatableForever;
    type Client = Yard;
    type Output = (String, String);

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("yard", "owned", call.name(&self.name)))
    }

    fn external_id(made: &(String, String)) -> Option<String> {
        Some(made.1.clone())
    }

    async fn execute(&self, yard: &Yard, call: &Call) -> Result<(String, String), Failure> {
        yard.check_intent(call).await;
        let key = format!("{FOR_EVER}{}", call.key());
        Ok((self.name.clone(), yard.once_under(key, "owned", &self.name, call, Duration::MAX)))
    }

    async fn compensate(&self, yard: &Yard, made: &(String, String), _: &Call) -> Result<(), Failure> {
        yard.remove(&made.1);
        Ok(())
    }
}

/// The same key is the same thing, however often it is sent, as long as that is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rent {
    name: String,
}

pub fn rent(name: String) -> Rent {
    Rent { name }
}

impl Activity for Rent {
    const NAME: &'static str = "yard.rent";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Yard;
    type Output = (String, String);

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("yard", "rented", call.name(&self.name)))
    }

    fn gates(&self, _: &Yard) -> Vec<Gate> {
        vec![Gate::credential("yard"), Gate::credential("yard:rent").concurrency(2).breaker(6, secs(30))]
    }

    fn external_id(made: &(String, String)) -> Option<String> {
        Some(made.1.clone())
    }

    async fn execute(&self, yard: &Yard, call: &Call) -> Result<(String, String), Failure> {
        yard.check_intent(call).await;
        Ok((self.name.clone(), yard.once_a_key("rented", &self.name, call, Duration::MAX)))
    }

    async fn compensate(&self, yard: &Yard, made: &(String, String), _: &Call) -> Result<(), Failure> {
        yard.remove(&made.1);
        Ok(())
    }
}

/// How long a lease's key is remembered.
pub const REMEMBERED: Duration = secs(1800);

/// The same key is the same thing for a while, and then a second one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lease {
    name: String,
}

impl Activity for Lease {
    const NAME: &'static str = "yard.lease";
    const EFFECT: Effect = Effect::RepeatableWithin { window: REMEMBERED };
    type Client = Yard;
    type Output = (String, String);

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("yard", "leased", call.name(&self.name)))
    }

    fn external_id(made: &(String, String)) -> Option<String> {
        Some(made.1.clone())
    }

    async fn execute(&self, yard: &Yard, call: &Call) -> Result<(String, String), Failure> {
        yard.check_intent(call).await;
        Ok((self.name.clone(), yard.once_a_key("leased", &self.name, call, REMEMBERED)))
    }

    async fn compensate(&self, yard: &Yard, made: &(String, String), _: &Call) -> Result<(), Failure> {
        yard.remove(&made.1);
        Ok(())
    }
}

/// Cannot be looked for, and is there twice when it is sent twice.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bury {
    name: String,
}

impl Activity for Bury {
    const NAME: &'static str = "yard.bury";
    const EFFECT: Effect = Effect::Blind;
    type Client = Yard;
    type Output = (String, String);

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("yard", "buried", call.name(&self.name)))
    }

    fn external_id(made: &(String, String)) -> Option<String> {
        Some(made.1.clone())
    }

    async fn execute(&self, yard: &Yard, call: &Call) -> Result<(String, String), Failure> {
        yard.check_intent(call).await;
        let id = yard.make("buried", &self.name, call);
        yard.once(call);
        Ok((self.name.clone(), id))
    }

    async fn compensate(&self, yard: &Yard, made: &(String, String), _: &Call) -> Result<(), Failure> {
        yard.remove(&made.1);
        Ok(())
    }
}

/// Cannot be taken back; can be seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LiftOff;

impl Activity for LiftOff {
    const NAME: &'static str = "yard.lift_off";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(10) };
    type Client = Yard;
    type Output = ();

    async fn execute(&self, yard: &Yard, call: &Call) -> Result<(), Failure> {
        yard.check_intent(call).await;
        *yard.lifted.lock().unwrap().entry(call.saga().to_string()).or_default() += 1;
        Ok(())
    }

    async fn find(&self, yard: &Yard, call: &Call) -> Result<Found<()>, Failure> {
        let lifted = yard.lifted(call.saga().as_str()) > 0;
        Ok(if lifted { Found::Usable(()) } else { Found::Nothing })
    }
}

/// Sweeps the yard: nothing to take back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sweep;

impl Activity for Sweep {
    const NAME: &'static str = "yard.sweep";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Yard;
    type Output = ();

    async fn execute(&self, yard: &Yard, call: &Call) -> Result<(), Failure> {
        yard.check_intent(call).await;
        yard.keys.lock().unwrap().insert(format!("swept {}", call.saga()), (String::new(), yard.now()));
        Ok(())
    }
}

/// Looks: from the second time on, there is something.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Look;

impl Activity for Look {
    const NAME: &'static str = "yard.look";
    const EFFECT: Effect = Effect::Read;
    type Client = Yard;
    type Output = Option<String>;

    async fn execute(&self, yard: &Yard, call: &Call) -> Result<Option<String>, Failure> {
        let mut keys = yard.keys.lock().unwrap();
        let looked = keys.insert(format!("look {}", call.saga()), (String::new(), yard.now())).is_some();
        Ok(looked.then(|| "there".to_owned()))
    }
}

/// Says no, always.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refuse;

impl Activity for Refuse {
    const NAME: &'static str = "yard.refuse";
    const EFFECT: Effect = Effect::Read;
    type Client = Yard;
    type Output = ();

    async fn execute(&self, _: &Yard, _: &Call) -> Result<(), Failure> {
        Err(Failure::refused("no", "never"))
    }
}

/// A line in a table of our own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Note {
    pub text: String,
}

impl Local for Note {
    const NAME: &'static str = "note.write";
    const REVERTS: bool = true;
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        tx.execute("insert into note (text) values ($1)", params![&self.text]).await?;
        Ok(())
    }

    async fn revert(&self, _: &(), tx: &mut Tx<'_>) -> Result<(), Failure> {
        tx.execute("delete from note where text = $1", params![&self.text]).await?;
        Ok(())
    }
}

/// A line of our own, and a saga that is started with it or not at all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enroll {
    pub name: String,
}

impl Local for Enroll {
    const NAME: &'static str = "note.enroll";
    type Output = String;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<String, Failure> {
        let text = format!("{}-enrolled", self.name);
        tx.execute("insert into note (text) values ($1) on conflict do nothing", params![&text]).await?;
        let new = NewSaga::of::<Waiting>(tx.env(), self.name.clone(), &self.name)
            .map_err(|error| Failure::refused("malformed", error.to_string()))?;
        tx.start::<Waiting>(new).await.map(|saga| saga.to_string())
    }
}

/// A line that stays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sign {
    text: String,
}

impl Local for Sign {
    const NAME: &'static str = "note.sign";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        tx.execute("insert into note (text) values ($1)", params![&self.text]).await?;
        Ok(())
    }
}

macro_rules! workflow {
    ($(#[$doc:meta])* $name:ident, $wire:literal, |$saga:ident, $own:ident| $body:block) => {
        $(#[$doc])*
        pub struct $name;

        impl Workflow for $name {
            const NAME: &'static str = $wire;
            const VERSION: u32 = 1;
            /// What the names of its things begin with.
            type Input = String;
            type Output = String;

            async fn run(&self, $saga: &Saga, name: String) -> saga::Result<String> {
                let $own = |what: &str| format!("{name}-{what}");
                $body
            }
        }
    };
}

/// A registry with all of it, over this yard.
pub fn registry(yard: &Arc<Yard>) -> Registry {
    Registry::default()
        .provider(yard.clone())
        .activity::<Refuse>(yard.clone())
        .local::<Note>()
        .local::<Sign>()
        .workflow(Straight)
        .workflow(Parallel)
        .workflow(Choice)
        .workflow(Racing)
        .workflow(Family)
        .workflow(Child)
        .workflow(Helper)
        .workflow(Drawing)
        .workflow(Waiting)
        .workflow(Treasure)
        .workflow(Rocket)
}

workflow!(
    /// One thing after another, a pivot, and a step behind it.
    Straight, "straight", |saga, own| {
        saga.transact("note", Note { text: own("begun") }).await?;
        let house = saga.step("house", build(own("house"))).await?;
        let inside = Some(("house".to_owned(), house.1.clone()));
        saga.step("room", Build { inside, ..build(own("house.room")) }).await?;
        saga.step("coin", Mint { name: own("coin") }).await?;
        let lamp = saga.step("lamp", rent(own("lamp"))).after("house").await?;
        saga.poll_until("seen", Look, secs(5), secs(600)).await?;
        saga.pivot_transact("signed", Sign { text: own("signed") }).await?;
        saga.step("sweep", Sweep).await?;
        Ok(format!("{} {}", house.0, lamp.0))
    }
);

workflow!(
    /// Branches side by side, of which all have to get through; others of which one may fail.
    Parallel, "parallel", |saga, own| {
        let trees = ["oak", "elm", "fir"].map(|kind| (kind, own(kind)));
        let all = saga
            .each("trees", trees, async |saga: Saga, tree: String| {
                saga.step("plant", build(tree.clone())).await?;
                saga.step("tie", rent(format!("{tree}-pole"))).await.map(|made| made.take())
            })
            .await?;
        let beds = [("rose", own("rose")), ("weed", own("weed"))];
        let kept = saga
            .each_kept("beds", 1, beds, async |saga: Saga, bed: String| {
                saga.step("dig", build(bed.clone())).await?;
                if bed.ends_with("rose") { Ok(()) } else { Err(Halt::give_up("weed", "nobody wants it")) }
            })
            .await?;
        saga.progress(1, 1);
        Ok(format!("{} {}", all.len(), kept.iter().filter(|bed| bed.is_ok()).count()))
    }
);

workflow!(
    /// A way that fails, and another that is taken then.
    Choice, "choice", |saga, own| {
        let (quarry, cart) = (own("quarry"), own("cart"));
        let first = saga
            .scope("stone", |saga| async move {
                saga.step("quarry", build(quarry)).await?;
                saga.scope("inner", |saga| async move { saga.step("cart", rent(cart)).await.map(drop) }).await?;
                saga.step("cut", Refuse).await?;
                Ok("stone".to_owned())
            })
            .await;
        saga.label("way", if first.is_ok() { "first" } else { "second" }).await?;
        match first {
            Ok(way) => Ok(way),
            Err(_) => Ok(saga.step("wood", build(own("wood"))).await?.take().0),
        }
    }
);

workflow!(
    /// Two ways at once; the loser is taken back while the saga goes on.
    Racing, "racing", |saga, own| {
        let ways = [("slow", (own("slow"), 3600)), ("quick", (own("quick"), 1))];
        let (winner, _) = saga
            .race("to-the-top", ways, async |saga: Saga, (way, wait): (String, u64)| {
                saga.step("rope", build(format!("{way}-rope"))).await?;
                let camps = ["a", "b"].map(|camp| (camp, format!("{way}-camp-{camp}")));
                saga.each("camps", camps, async |saga: Saga, camp: String| {
                    saga.sleep("rest", Duration::from_secs(wait)).await?;
                    saga.step("camp", rent(camp)).await.map(drop)
                })
                .await?;
                Ok(wait)
            })
            .await?;
        let flag = saga.step("flag", build(own(&format!("flag-of-{winner}")))).await?;
        saga.label("winner", winner).await?;
        saga.label("winner", "known").await?;
        Ok(flag.take().0)
    }
);

workflow!(
    /// A child that is called, one that is started, and a step behind both.
    Family, "family", |saga, own| {
        let yard = saga.step("yard", build(own("yard"))).await?;
        saga.start::<Helper>("beside", &own("h")).await?;
        let child = saga.call::<Child>("child", &own("c")).await?;
        saga.step("fence", build(own("fence"))).await?;
        Ok(format!("{} {}", yard.0, *child))
    }
);

workflow!(
    /// Works beside its parent.
    Helper, "helper", |saga, own| {
        saga.step("tent", build(own("tent"))).await?;
        saga.sleep("night", secs(60)).await?;
        Ok(saga.step("peg", rent(own("peg"))).await?.take().0)
    }
);

workflow!(
    /// Is waited for, and tidies up whichever way it ends.
    Child, "child", |saga, own| {
        let toy = saga.step("toy", build(own("toy"))).await?;
        saga.sleep("nap", secs(30)).await?;
        saga.step("ball", rent(own("ball"))).await?;
        saga.defer("tidy", Sweep).await?;
        Ok(toy.take().0)
    }
);

workflow!(
    /// Draws values and waits for a time.
    Drawing, "drawing", |saga, own| {
        let number = saga.random("number", 6).await?;
        let name = saga.uuid("name").await?;
        saga.step("shed", build(own("shed"))).await?;
        saga.sleep_until("dawn", saga.now("now").await?.plus(secs(120))).await?;
        saga.step("tool", Own { name: own("tool") }).await?;
        Ok(format!("{number} {name}"))
    }
);

workflow!(
    /// Waits for a person's word, early or late.
    Waiting, "waiting", |saga, own| {
        let desk = saga.step("desk", build(own("desk"))).await?;
        let word: Option<String> = saga.signal("word", "word", secs(300)).await?;
        let never: Option<String> = saga.signal("never", "never", secs(300)).await?;
        saga.step("chair", rent(own("chair"))).await?;
        Ok(format!("{} {word:?} {never:?}", desk.0))
    }
);

workflow!(
    /// What cannot be looked for, and what is known again only for a while.
    Treasure, "treasure", |saga, own| {
        let map = saga.step("map", build(own("map"))).await?;
        saga.step("chest", Bury { name: own("chest") }).await?;
        saga.step("boat", Lease { name: own("boat") }).await?;
        saga.sleep("tide", secs(45)).await?;
        saga.step("flag", Mint { name: own("flag") }).await?;
        Ok(map.take().0)
    }
);

workflow!(
    /// Goes on after what cannot be taken back, and never goes back then.
    Rocket, "rocket", |saga, own| {
        let pad = saga.step("pad", build(own("pad"))).await?;
        saga.step("fuel", rent(own("fuel"))).await?;
        saga.pivot("lift-off", LiftOff).await?;
        saga.step("sweep", Sweep).await?;
        saga.sleep("orbit", secs(20)).await?;
        Ok(pad.take().0)
    }
);
