//! Data is data: whatever a key, an input, an output or a signal holds, it changes nothing about what it means, and it
//! is read back as it was written or is known not to be.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::data::Reference;
use amends_engine::ids::StepKey;
use amends_engine::journal::Event;
use amends_engine::journal::act::{Act, Verdict};
use amends_engine::journal::state::{Attention, Phase, SagaState};
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{NewSaga, ResourceFilter, ResourceState, SagaRow, Started, Store};
use amends_engine::testing::crash::Crash;
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Halt, Local, Made, Object, Registry, Resource, Saga,
    SagaId, Tx, Workflow, saga, secs,
};
use amends_tests::database::Database;
use amends_tests::postgres::Server;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

/// No test here is about time: this is only so long that it ends on the slowest machine.
const LONG: Duration = secs(120);

/// Things by name, what arrived, and what is wrong with calls: `verb name` to what the next of them answer.
#[derive(Default)]
struct Shed {
    things: Mutex<Vec<String>>,
    arrived: Mutex<Vec<String>>,
    wrong: Mutex<BTreeMap<String, Vec<Failure>>>,
}

impl Shed {
    fn things(&self) -> Vec<String> {
        let mut things = self.things.lock().unwrap().clone();
        things.sort();
        things
    }

    fn arrived(&self) -> Vec<String> {
        self.arrived.lock().unwrap().clone()
    }

    fn arrive(&self, what: String) {
        self.arrived.lock().unwrap().push(what);
    }

    fn next(&self, call: &str, failure: Failure) {
        self.wrong.lock().unwrap().entry(call.to_owned()).or_default().push(failure);
    }

    fn is_wrong(&self, call: &str) -> Result<(), Failure> {
        let failure = self.wrong.lock().unwrap().get_mut(call).and_then(Vec::pop);
        failure.map_or(Ok(()), Err)
    }
}

fn lost() -> Failure {
    Failure::NoAnswer { cause: Cause::Reset, detail: "the line broke".to_owned() }
}

/// Makes a thing.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Put {
    name: String,
}

fn put(name: &str) -> Put {
    Put { name: name.to_owned() }
}

impl Activity for Put {
    const NAME: &'static str = "shed.put";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    type Client = Shed;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("shed", "thing", call.name(&self.name)))
    }

    fn external_id(made: &String) -> Option<String> {
        Some(made.clone())
    }

    async fn execute(&self, shed: &Shed, call: &Call) -> Result<String, Failure> {
        shed.arrive(format!("put {}", call.step()));
        shed.things.lock().unwrap().push(self.name.clone());
        Ok(self.name.clone())
    }

    async fn find(&self, shed: &Shed, _: &Call) -> Result<Found<String>, Failure> {
        let is_there = shed.things.lock().unwrap().contains(&self.name);
        Ok(if is_there { Found::Usable(self.name.clone()) } else { Found::Nothing })
    }

    async fn compensate(&self, shed: &Shed, made: &String, _: &Call) -> Result<(), Failure> {
        shed.things.lock().unwrap().retain(|thing| thing != made);
        Ok(())
    }
}

/// Refuses, always.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Refuse;

impl Activity for Refuse {
    const NAME: &'static str = "shed.refuse";
    const EFFECT: Effect = Effect::Read;
    type Client = Shed;
    type Output = ();

    async fn execute(&self, _: &Shed, _: &Call) -> Result<(), Failure> {
        Err(Failure::refused("as_planned", "this step always fails"))
    }
}

/// Notes what it was given, word for word.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tell {
    note: Value,
}

impl Activity for Tell {
    const NAME: &'static str = "shed.tell";
    const EFFECT: Effect = Effect::Read;
    type Client = Shed;
    type Output = Value;

    async fn execute(&self, shed: &Shed, _: &Call) -> Result<Value, Failure> {
        shed.arrive(self.note.to_string());
        Ok(self.note.clone())
    }
}

fn registry(shed: &Arc<Shed>) -> Registry {
    Registry::default()
        .activity::<Put>(shed.clone())
        .activity::<Refuse>(shed.clone())
        .activity::<Tell>(shed.clone())
}

fn env() -> Env {
    Env::seeded(11).with_pace(20)
}

async fn memory(registry: Registry) -> Engine {
    let (store, vault) = MemoryStore::new(&[], &env()).await.unwrap();
    Engine::start(Arc::new(store), vault, registry, env(), "test")
}

async fn begin<W: Workflow>(engine: &Engine, input: &W::Input) -> SagaId {
    let new = engine.new_saga::<W>("s", input).unwrap();
    match engine.begin(new).await.unwrap() {
        Started::New(id) | Started::Before(id) => id,
        Started::KeyReused(id) => panic!("{id}"),
    }
}

async fn ended(engine: &Engine, saga: &SagaId) -> SagaRow {
    let row = engine.wait(saga, LONG, |_| false).await.unwrap().unwrap();
    if !row.state.is_ended() {
        let entries = engine.view(saga).await.unwrap().unwrap().entries;
        panic!("{row:#?}\n{}", amends_engine::journal::story(saga, &entries));
    }
    row
}

macro_rules! workflow {
    ($name:ident, $wire:literal, $input:ty => $output:ty, |$saga:ident, $given:ident| $body:block) => {
        struct $name;

        impl Workflow for $name {
            const NAME: &'static str = $wire;
            const VERSION: u32 = 1;
            type Input = $input;
            type Output = $output;

            async fn run(&self, $saga: &Saga, $given: $input) -> saga::Result<$output> {
                $body
            }
        }
    };
}

// ---- keys

/// Names that a key joined by a sign, or compared by its beginning, would take for one another.
const ITEMS: [&str; 9] =
    ["acme", "acme/web", "acme/", "/acme", "acme%2Fweb", "acme\"web\"", "größe/ö", ".", "acme/put"];

workflow!(Items, "items", String => Vec<bool>, |saga, fails| {
    let items = ITEMS.map(|item| (item, item));
    let kept = saga
        .each_kept("item", 0, items, async |saga: Saga, item: &str| {
            saga.step("put", put(item)).await?;
            if item == fails { saga.step("check", Refuse).await.map(drop) } else { Ok(()) }
        })
        .await?;
    Ok(kept.iter().map(Result::is_ok).collect())
});

#[tokio::test]
async fn acme_and_acme_slash_web_are_different_items_whatever_they_are_called() {
    for fails in ITEMS {
        let shed = Arc::new(Shed::default());
        let engine = memory(registry(&shed).workflow(Items)).await;
        let saga = begin::<Items>(&engine, &fails.to_owned()).await;
        let row = ended(&engine, &saga).await;
        assert_eq!(row.state, SagaState::Completed, "{row:?}");
        let mut left: Vec<String> =
            ITEMS.iter().filter(|item| **item != fails).map(|item| (*item).to_owned()).collect();
        left.sort();
        assert_eq!(shed.things(), left, "only {fails} is taken back");
        let put = shed.arrived();
        let different: std::collections::BTreeSet<_> = put.iter().collect();
        assert_eq!(different.len(), ITEMS.len(), "each has a key of its own: {put:?}");
        engine.stop().await;
    }
}

workflow!(Misnamed, "misnamed", u32 => (), |saga, case| {
    let nothing = |_: Saga, (): ()| async { Ok(()) };
    let inner = |saga: Saga| async move { saga.step("b", put("inner")).await.map(drop) };
    match case {
        0 => saga.step("", put("a")).await.map(drop),
        1 => saga.scope("", inner).await,
        2 => saga.each("", [("x", ())], nothing).await.map(drop),
        3 => saga.each("x", [("", ())], nothing).await.map(drop),
        4 => saga.race("x", [("", ())], nothing).await.map(drop),
        5 => {
            saga.step("tool", Refuse).await.unwrap_err();
            saga.scope("tool", inner).await
        }
        6 => {
            saga.scope("tool", |_| async { Ok(()) }).await?;
            saga.step("tool", put("a")).await.map(drop)
        }
        7 => {
            saga.each("tool", [("x", ())], nothing).await?;
            saga.step("tool", put("a")).await.map(drop)
        }
        8 => {
            saga.each("tool", [("x", ())], nothing).await?;
            saga.scope("tool", inner).await
        }
        9 => {
            saga.race("tool", [("x", ())], nothing).await?;
            saga.step("tool", put("a")).await.map(drop)
        }
        10 => {
            saga.scope("tool", |_| async { Ok(()) }).await?;
            saga.each("tool", [("x", ())], |saga: Saga, (): ()| async move {
                saga.step("b", put("inner")).await.map(drop)
            })
            .await
            .map(drop)
        }
        11 => saga.step(&"k".repeat(3000), put("a")).await.map(drop),
        12 => saga.sleep("", secs(1)).await,
        13 => saga.label("", "x").await,
        _ => unreachable!(),
    }
});

#[tokio::test]
async fn the_empty_key_and_one_name_for_a_scope_and_a_step_are_refused_before_any_effect() {
    for case in 0..14 {
        let shed = Arc::new(Shed::default());
        let engine = memory(registry(&shed).workflow(Misnamed)).await;
        let saga = begin::<Misnamed>(&engine, &case).await;
        let row = ended(&engine, &saga).await;
        assert_eq!(row.state, SagaState::Failed, "case {case}: {row:?}");
        assert!(row.error.as_ref().unwrap().starts_with("misuse"), "case {case}: {row:?}");
        assert!(shed.arrived().is_empty(), "case {case}: {:?}", shed.arrived());
        engine.stop().await;
    }
}

workflow!(Labels, "labels", () => (), |saga, _nothing| {
    // A label that is set again, one that is called as the second setting of another would be, and a step beside.
    saga.label("x", "1").await?;
    saga.label("x#2", "other").await?;
    saga.label("x", "2").await?;
    saga.step("label:x", put("a")).await?;
    saga.scope("inner", |saga| async move { saga.label("x", "3").await }).await
});

#[tokio::test]
async fn a_label_and_a_step_of_whatever_name_are_never_taken_for_one_another() {
    let shed = Arc::new(Shed::default());
    let engine = memory(registry(&shed).workflow(Labels)).await;
    let saga = begin::<Labels>(&engine, &()).await;
    let row = ended(&engine, &saga).await;
    assert_eq!(row.state, SagaState::Completed, "{row:?}");
    assert_eq!(row.labels, BTreeMap::from([("x".into(), "3".into()), ("x#2".into(), "other".into())]));
    engine.stop().await;
}

/// What cannot be taken back is sent again only when a person says so.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Shout {
    name: String,
}

impl Activity for Shout {
    const NAME: &'static str = "shed.shout";
    const EFFECT: Effect = Effect::Blind;
    type Client = Shed;
    type Output = String;

    async fn execute(&self, shed: &Shed, call: &Call) -> Result<String, Failure> {
        shed.arrive(format!("{} {} {}", call.tag(), call.key(), call.name(&self.name)));
        shed.is_wrong(&self.name)?;
        Ok(self.name.clone())
    }
}

workflow!(Shouts, "shouts", Vec<String> => (), |saga, words| {
    let items = words.into_iter().map(|word| (word.clone(), word));
    saga.each("word", items, async |saga: Saga, name: String| saga.step("shout", Shout { name }).await.map(drop))
        .await
        .map(drop)
});

#[tokio::test]
async fn an_act_names_a_step_by_the_text_that_is_shown_of_it() {
    let shed = Arc::new(Shed::default());
    let engine = memory(registry(&shed).activity::<Shout>(shed.clone()).workflow(Shouts)).await;
    let items: Vec<String> = ["a/b", "a", "ö %\"\u{7}", "~x"].map(str::to_owned).into();
    items.iter().for_each(|item| shed.next(item, lost()));
    let saga = begin::<Shouts>(&engine, &items).await;
    let is_stuck = |row: &SagaRow| row.attention == [Attention::NeedsDecision];
    engine.wait(&saga, LONG, is_stuck).await.unwrap();
    for item in &items {
        let step = loop {
            let view = engine.view(&saga).await.unwrap().unwrap();
            let asks = |step: &&amends_engine::journal::state::Step| {
                step.phase == Phase::Undecidable
                    && step.asked.as_ref().is_some_and(|asked| asked.input["name"] == item.as_str())
            };
            if let Some(step) = view.state.steps().iter().find(asks) {
                break step.key.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        // As somebody sends it who copied it from a page.
        let shown = step.to_string();
        assert!(shown.chars().all(|sign| !sign.is_control()), "{shown:?}");
        let verdict = json!({"kind": "adopt", "output": item});
        let act: Act =
            serde_json::from_value(json!({"kind": "settle", "step": shown, "verdict": verdict})).unwrap();
        assert_eq!(act.step(), Some(&step));
        engine.act(&saga, act, "ann", "I heard it").await.unwrap();
    }
    assert_eq!(ended(&engine, &saga).await.state, SagaState::Completed);
    engine.stop().await;
}

#[tokio::test]
async fn tags_keys_and_names_at_a_provider_are_short_plain_and_each_steps_own() {
    let shed = Arc::new(Shed::default());
    let engine = memory(registry(&shed).activity::<Shout>(shed.clone()).workflow(Shouts)).await;
    let mut items: Vec<String> = ITEMS.iter().map(|item| (*item).to_owned()).collect();
    items.extend(["a".repeat(200), "a".repeat(201), "~a".into(), "a-g2".into(), "\u{7}\u{202e}".into()]);
    let saga = begin::<Shouts>(&engine, &items).await;
    assert_eq!(ended(&engine, &saga).await.state, SagaState::Completed);
    let arrived = shed.arrived();
    let mut tags = std::collections::BTreeSet::new();
    let mut keys = std::collections::BTreeSet::new();
    for line in &arrived {
        let (tag, rest) = line.split_once(' ').unwrap();
        let plain = |sign: char| sign.is_ascii_alphanumeric() || "._-/~".contains(sign);
        assert!(tag.len() <= 200 && tag.chars().all(plain), "{tag}");
        tags.insert(tag.to_owned());
        keys.insert(rest.get(..36).unwrap().to_owned());
    }
    assert_eq!((tags.len(), keys.len()), (items.len(), items.len()), "{arrived:#?}");
    engine.stop().await;
}

// ---- references and null

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Choice {
    On(Made<String>),
    Both { on: Made<String>, n: u32 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Deep { choice: Choice, on: Made<String> },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Held { on: Made<String> },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Inner {
    inner: Made<String>,
    other: Choice,
}

/// Holds what others made wherever something can stand.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Holds {
    note: Value,
    plain: Made<String>,
    optional: Option<Made<String>>,
    nothing: Option<Made<String>>,
    list: Vec<(u32, Made<String>)>,
    map: BTreeMap<String, Made<String>>,
    choice: Choice,
    tagged: Tagged,
    untagged: Vec<Untagged>,
    #[serde(flatten)]
    flat: Inner,
    null: Made<()>,
    given: Made<String>,
}

impl Activity for Holds {
    const NAME: &'static str = "shed.holds";
    const EFFECT: Effect = Effect::Read;
    type Client = Shed;
    type Output = Vec<(String, String)>;

    async fn execute(&self, shed: &Shed, _: &Call) -> Result<Vec<(String, String)>, Failure> {
        shed.arrive(self.note.to_string());
        let mut held = vec![&self.plain, self.optional.as_ref().unwrap(), &self.flat.inner];
        held.extend(self.list.iter().map(|(_, made)| made));
        held.extend(self.map.values());
        for choice in [&self.choice, &self.flat.other] {
            match choice {
                Choice::On(on) | Choice::Both { on, .. } => held.push(on),
            }
        }
        let Tagged::Deep { choice: Choice::On(deep) | Choice::Both { on: deep, .. }, on } = &self.tagged;
        held.extend([deep, on]);
        for item in &self.untagged {
            match item {
                Untagged::Number(number) => assert_eq!(*number, 7),
                Untagged::Held { on } => held.push(on),
            }
        }
        assert!(self.nothing.is_none());
        // As a place of a reference is marked while an input is read.
        assert_eq!(self.given.as_str(), "made 0 0");
        assert_eq!(self.null.step(), &StepKey::from("unit"));
        Ok(held.into_iter().map(|made| (made.step().to_string(), (**made).clone())).collect())
    }
}

/// Yields nothing at all.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Unit;

impl Activity for Unit {
    const NAME: &'static str = "shed.unit";
    const EFFECT: Effect = Effect::Read;
    type Client = Shed;
    type Output = ();

    async fn execute(&self, _: &Shed, _: &Call) -> Result<(), Failure> {
        Ok(())
    }
}

/// What a user may write who knows how a reference was once written.
fn spoofed() -> Value {
    json!({"$made": "account", "value": {"$made": ""}, "list": [{"$made": "a/b"}, null]})
}

workflow!(Holding, "holding", Value => Vec<(String, String)>, |saga, note| {
    let account = saga.step("account", put("the account")).await?;
    let unit = saga.step("unit", Unit).await?;
    let others = saga
        .each("o", [("a/b", "x"), ("a", "y")], async |saga: Saga, name: &str| saga.step("b", put(name)).await)
        .await?;
    let on = |place: usize| others[place].clone();
    saga.step("tell", Tell { note: note.clone() }).await?;
    saga.step("holds", Holds {
        note,
        plain: account.clone(),
        optional: Some(on(0)),
        nothing: None,
        list: vec![(1, on(1)), (2, account.clone())],
        map: [("a/b~".to_owned(), on(0)), ("~1".to_owned(), on(1)), (String::new(), account.clone())].into(),
        choice: Choice::On(on(0)),
        tagged: Tagged::Deep { choice: Choice::Both { on: on(1), n: 0 }, on: on(0) },
        untagged: vec![Untagged::Number(7), Untagged::Held { on: on(1) }],
        flat: Inner { inner: on(1), other: Choice::Both { on: on(0), n: 1 } },
        null: unit,
        given: Made::given("made 0 0".to_owned()),
    })
    .await
    .map(Made::take)
});

#[tokio::test]
async fn what_looks_like_a_reference_is_delivered_as_it_is_and_a_reference_is_followed_wherever_it_stands() {
    let shed = Arc::new(Shed::default());
    let registry =
        registry(&shed).activity::<Holds>(shed.clone()).activity::<Unit>(shed.clone()).workflow(Holding);
    let engine = memory(registry).await;
    let saga = begin::<Holding>(&engine, &spoofed()).await;
    let row = ended(&engine, &saga).await;
    assert_eq!(row.state, SagaState::Completed, "{row:?}");
    let told: Vec<String> = shed.arrived().into_iter().filter(|line| !line.starts_with("put")).collect();
    assert_eq!(told, [spoofed().to_string(), spoofed().to_string()]);
    let held: Vec<(String, String)> =
        serde_json::from_value(engine.store().output(&saga).await.unwrap().unwrap()).unwrap();
    let (account, x, y) = (
        ("account".to_owned(), "the account".to_owned()),
        (StepKey::from(["o", "a/b", "b"]).to_string(), "x".to_owned()),
        (StepKey::from(["o", "a", "b"]).to_string(), "y".to_owned()),
    );
    let wanted =
        [&account, &x, &y, &y, &account, &account, &x, &y, &x, &x, &y, &x, &y].map(Clone::clone).to_vec();
    // In the order in which `Holds` looks; the maps by their keys.
    let mut sorted = (held.clone(), wanted.clone());
    sorted.0.sort();
    sorted.1.sort();
    assert_eq!(sorted.0, sorted.1, "{held:#?}");
    let view = engine.view(&saga).await.unwrap().unwrap();
    let holds = view.state.steps().iter().find(|step| step.key == StepKey::from("holds")).unwrap();
    let after = &holds.asked.as_ref().unwrap().after;
    for step in [&account.0, &x.0, &y.0] {
        assert!(after.iter().any(|key| key.to_string() == **step), "{after:?}");
    }
    engine.stop().await;
}

/// Ready at the second look; what it yields then is null.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ready;

impl Activity for Ready {
    const NAME: &'static str = "shed.ready";
    const EFFECT: Effect = Effect::Read;
    type Client = Shed;
    type Output = Option<()>;

    async fn execute(&self, shed: &Shed, _: &Call) -> Result<Option<()>, Failure> {
        shed.arrive("look".to_owned());
        Ok((shed.arrived().len() >= 2).then_some(()))
    }
}

/// Found again, and nothing is known of it then but that it is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Quiet;

impl Activity for Quiet {
    const NAME: &'static str = "shed.quiet";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    type Client = Shed;
    type Output = ();

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("shed", "thing", "quiet"))
    }

    async fn execute(&self, shed: &Shed, _: &Call) -> Result<(), Failure> {
        shed.things.lock().unwrap().push("quiet".to_owned());
        Err(lost())
    }

    async fn find(&self, _: &Shed, _: &Call) -> Result<Found<()>, Failure> {
        Ok(Found::Usable(()))
    }

    async fn compensate(&self, shed: &Shed, (): &(), _: &Call) -> Result<(), Failure> {
        shed.things.lock().unwrap().clear();
        Ok(())
    }
}

type Nulls = (Option<()>, Option<Option<u32>>, Option<u32>);

workflow!(Child, "nulls.child", () => Option<u32>, |_saga, _nothing| { Ok(None) });

workflow!(Null, "nulls", () => Nulls, |saga, _nothing| {
    saga.poll_until("ready", Ready, secs(1), secs(600)).await?;
    saga.step("quiet", Quiet).await?;
    let child = saga.call::<Child>("child", &()).await?;
    let come = saga.signal::<()>("come", "come", secs(36_000)).await?;
    let maybe = saga.signal::<Option<u32>>("maybe", "maybe", secs(36_000)).await?;
    let never = saga.signal::<()>("never", "never", secs(1)).await?;
    assert_eq!(never, None, "nobody posted it");
    Ok((come, maybe, child.take()))
});

#[tokio::test]
async fn null_is_a_value_that_was_posted_found_or_yielded_also_behind_a_crash_at_any_append() {
    let mut crashes = 0;
    for at in 0.. {
        let shed = Arc::new(Shed::default());
        let registry = || {
            registry(&shed)
                .activity::<Ready>(shed.clone())
                .activity::<Quiet>(shed.clone())
                .workflow(Child)
                .workflow(Null)
        };
        let database = Database::new(env(), &[]);
        let mut running = database.run(registry(), (at > 0).then_some(Crash::After(at))).await;
        let saga = begin::<Null>(&running.engine, &()).await;
        for name in ["come", "maybe"] {
            let _ = running.engine.signal(&saga, name, name, Value::Null).await;
        }
        let crashed = tokio::select! {
            row = running.engine.wait(&saga, LONG, |_| false) => { row.unwrap(); false }
            () = running.store.crashed() => true,
        };
        if crashed {
            running.die().await;
            running = database.run(registry(), None).await;
            for name in ["come", "maybe"] {
                running.engine.signal(&saga, name, name, Value::Null).await.unwrap();
            }
            crashes += 1;
        }
        let row = ended(&running.engine, &saga).await;
        assert_eq!(row.state, SagaState::Completed, "crash {at}: {row:?}");
        let output = running.store.output(&saga).await.unwrap().unwrap();
        // What the workflow came to is JSON: `Some(())` is null there. That both were received, their events say.
        assert_eq!(output, json!([null, null, null]));
        let entries = running.engine.view(&saga).await.unwrap().unwrap().entries;
        let received =
            entries.iter().filter(|entry| matches!(entry.event, Event::SignalReceived { .. })).count();
        assert_eq!(received, 2, "crash {at}");
        running.die().await;
        if at > 0 && !crashed {
            break;
        }
    }
    eprintln!("{crashes} crashes");
    assert!(crashes > 5);
}

workflow!(Received, "received", () => bool, |saga, _nothing| {
    Ok(saga.signal::<()>("come", "come", secs(36_000)).await?.is_some())
});

#[tokio::test]
async fn a_signal_of_null_is_received_and_not_taken_for_the_end_of_its_time() {
    let engine = memory(Registry::default().workflow(Received)).await;
    let saga = begin::<Received>(&engine, &()).await;
    engine.signal(&saga, "1", "come", Value::Null).await.unwrap();
    assert_eq!(ended(&engine, &saga).await.state, SagaState::Completed);
    assert_eq!(engine.store().output(&saga).await.unwrap(), Some(json!(true)));
    engine.stop().await;
}

#[tokio::test]
async fn a_signals_id_is_its_sagas_own() {
    let database = Database::new(env(), &[]);
    let running = database.run(Registry::default().workflow(Received), None).await;
    let engine = &running.engine;
    let mut sagas = Vec::new();
    for key in ["a", "b"] {
        let new = engine.new_saga::<Received>(key, &()).unwrap();
        let saga = engine.begin(new).await.unwrap().saga().clone();
        engine.signal(&saga, "payment-1", "come", Value::Null).await.unwrap();
        sagas.push(saga);
    }
    for saga in &sagas {
        assert_eq!(ended(engine, saga).await.state, SagaState::Completed);
    }
    engine.stop().await;
}

// ---- what is compared reads back

/// Says how much something comes to.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Charge {
    amount: f64,
    share: f32,
    units: u64,
    debt: i64,
}

impl Activity for Charge {
    const NAME: &'static str = "shed.charge";
    const EFFECT: Effect = Effect::Read;
    type Client = Shed;
    type Output = f64;

    async fn execute(&self, _: &Shed, _: &Call) -> Result<f64, Failure> {
        Ok(self.amount)
    }
}

workflow!(Amounts, "amounts", (f64, f64) => Vec<u64>, |saga, given| {
    let mut bits = Vec::new();
    for number in 0..40u32 {
        let amount = given.0 * given.1 * f64::from(number * number) + f64::from(number) / 7.0;
        let share = amount as f32;
        let charge = Charge { amount, share, units: u64::MAX - u64::from(number), debt: i64::MIN };
        let got = saga.step(&format!("charge-{number}"), charge).await?;
        bits.push(got.to_bits());
    }
    saga.signal::<()>("go", "go", secs(360_000)).await?;
    Ok(bits)
});

async fn amounts_survive(
    name: &str,
    first: (Arc<dyn Store>, amends_engine::secret::Vault),
    again: impl AsyncFnOnce() -> (Arc<dyn Store>, amends_engine::secret::Vault),
) {
    let shed = Arc::new(Shed::default());
    let registry = || Registry::default().activity::<Charge>(shed.clone()).workflow(Amounts);
    let engine = Engine::start(first.0.clone(), first.1, registry(), env(), "test");
    let saga = begin::<Amounts>(&engine, &(6.0, 0.19)).await;
    let waits = |row: &SagaRow| row.step.as_deref() == Some("go waits");
    assert!(engine.wait(&saga, LONG, waits).await.unwrap().is_some_and(|row| waits(&row)), "{name}");
    engine.abort();
    first.0.close().await;
    let second = again().await;
    let engine = Engine::start(second.0.clone(), second.1, registry(), env(), "test");
    engine.signal(&saga, "1", "go", Value::Null).await.unwrap();
    let row = engine.wait(&saga, LONG, |row| !row.attention.is_empty()).await.unwrap().unwrap();
    assert_eq!(row.state, SagaState::Completed, "{name}: {row:?}");
    let bits: Vec<u64> =
        serde_json::from_value(engine.store().output(&saga).await.unwrap().unwrap()).unwrap();
    for (number, bits) in (0..40u32).zip(bits) {
        let amount = 6.0 * 0.19 * f64::from(number * number) + f64::from(number) / 7.0;
        assert_eq!(bits, amount.to_bits(), "{name}: {number}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn an_amount_in_an_input_is_the_same_behind_a_crash() {
    let database = Database::new(env(), &[]);
    let open = async || {
        let (store, vault) = database.open().await;
        let store: Arc<dyn Store> = Arc::new(store);
        (store, vault)
    };
    amounts_survive("sqlite", open().await, open).await;
}

#[tokio::test]
async fn an_amount_in_an_input_is_the_same_behind_a_crash_on_postgres() {
    let server = Server::shared();
    let base = server.database();
    let open = async || {
        let (store, vault) = base.open(&[], &env()).await;
        let store: Arc<dyn Store> = Arc::new(store);
        (store, vault)
    };
    let first = open().await;
    let again = async || {
        // What a crashed process held is free once its lease is over.
        server.psql(&base.name, "update worker set until = 0");
        open().await
    };
    amounts_survive("postgres", first, again).await;
}

// ---- what cannot be kept

/// How an output cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Odd {
    /// It can.
    Not,
    /// It has a number that JSON does not have.
    NotFinite,
    /// So many lists in one another.
    Deep(usize),
    /// It is so long.
    Long(usize),
    /// Its map has keys that are no text.
    Keys,
    /// Its own code says no.
    Fails,
    /// It reads back as something else.
    Lossy,
    /// It does not read back.
    Unread,
    /// Its id at the provider is longer than a ledger's row takes.
    Id,
}

const ODD: [Odd; 9] = [
    Odd::NotFinite,
    Odd::Deep(127),
    Odd::Deep(5000),
    Odd::Long(3 * 1024 * 1024),
    Odd::Keys,
    Odd::Fails,
    Odd::Lossy,
    Odd::Unread,
    Odd::Id,
];

#[derive(Debug, Clone, PartialEq)]
struct Strange {
    name: String,
    odd: Odd,
}

impl Serialize for Strange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Nested(usize);
        impl Serialize for Nested {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if self.0 == 0 {
                    serializer.serialize_unit()
                } else {
                    [Nested(self.0 - 1)].serialize(serializer)
                }
            }
        }
        match self.odd {
            Odd::Not | Odd::Id => (&self.name, self.odd).serialize(serializer),
            Odd::NotFinite => (&self.name, Some(f64::NAN)).serialize(serializer),
            Odd::Deep(depth) => (&self.name, Nested(depth)).serialize(serializer),
            Odd::Long(length) => (&self.name, "x".repeat(length)).serialize(serializer),
            Odd::Keys => (&self.name, BTreeMap::from([((1, 2), 3)])).serialize(serializer),
            Odd::Fails => Err(serde::ser::Error::custom("the pen is empty")),
            Odd::Lossy => (&self.name, 7).serialize(serializer),
            Odd::Unread => (&self.name, "unread").serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Strange {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (name, rest) = <(String, Value)>::deserialize(deserializer)?;
        if rest == json!("unread") {
            return Err(serde::de::Error::custom("nobody reads that"));
        }
        Ok(Self { name, odd: serde_json::from_value(rest).unwrap_or(Odd::Not) })
    }
}

macro_rules! odd {
    ($name:ident, $wire:literal, $effect:expr) => {
        /// Makes a thing and cannot say so.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        struct $name(Odd);

        impl $name {
            fn made(&self) -> Strange {
                Strange { name: $wire.to_owned(), odd: self.0 }
            }
        }

        impl Activity for $name {
            const NAME: &'static str = $wire;
            const EFFECT: Effect = $effect;
            type Client = Shed;
            type Output = Strange;

            fn resource(&self, _: &Call) -> Option<Resource> {
                Some(Resource::new("shed", "thing", $wire))
            }

            fn external_id(made: &Strange) -> Option<String> {
                Some(if made.odd == Odd::Id { "i".repeat(3000) } else { made.name.clone() })
            }

            async fn execute(&self, shed: &Shed, _: &Call) -> Result<Strange, Failure> {
                shed.arrive("execute".to_owned());
                let mut things = shed.things.lock().unwrap();
                if !things.contains(&$wire.to_owned()) {
                    things.push($wire.to_owned());
                }
                Ok(self.made())
            }

            async fn find(&self, shed: &Shed, _: &Call) -> Result<Found<Strange>, Failure> {
                let is_there = shed.things.lock().unwrap().contains(&$wire.to_owned());
                Ok(if is_there { Found::Usable(self.made()) } else { Found::Nothing })
            }

            async fn compensate(&self, shed: &Shed, made: &Strange, _: &Call) -> Result<(), Failure> {
                shed.is_wrong("undo")?;
                shed.arrive("undo".to_owned());
                assert_eq!(
                    *made,
                    self.made(),
                    "it is undone by what was made, not by what could be kept of it"
                );
                shed.things.lock().unwrap().retain(|thing| *thing != made.name);
                Ok(())
            }
        }
    };
}

odd!(Sought, "odd.sought", Effect::Searchable { settle_after: secs(1) });
odd!(Again, "odd.again", Effect::Repeatable);
odd!(Unsought, "odd.unsought", Effect::Blind);

workflow!(Odds, "odds", (u32, Odd) => (), |saga, given| {
    saga.step("first", put("first")).await?;
    match given.0 {
        0 => saga.step("odd", Sought(given.1)).await.map(drop),
        1 => saga.step("odd", Again(given.1)).await.map(drop),
        _ => saga.step("odd", Unsought(given.1)).await.map(drop),
    }
});

fn odds(shed: &Arc<Shed>) -> Registry {
    registry(shed)
        .activity::<Sought>(shed.clone())
        .activity::<Again>(shed.clone())
        .activity::<Unsought>(shed.clone())
        .workflow(Odds)
}

async fn nothing_is_left(engine: &Engine, shed: &Shed, what: &str) {
    assert!(shed.things().is_empty(), "{what}: {:?}", shed.things());
    let ledger = engine.resources(ResourceFilter { limit: 100, ..ResourceFilter::default() }).await.unwrap();
    assert!(ledger.iter().all(|row| row.state == ResourceState::Gone), "{what}: {ledger:#?}");
    assert_eq!(ledger.len(), 2, "{what}: what was made was on the ledger");
}

#[tokio::test]
async fn what_was_made_and_cannot_be_kept_is_on_the_ledger_and_is_taken_back() {
    for effect in 0..3 {
        for odd in ODD {
            let shed = Arc::new(Shed::default());
            let engine = memory(odds(&shed)).await;
            let saga = begin::<Odds>(&engine, &(effect, odd)).await;
            let row = ended(&engine, &saga).await;
            let what = format!("{effect} {odd:?}");
            assert_eq!(row.state, SagaState::Compensated, "{what}: {row:?}");
            assert!(row.error.as_ref().unwrap().contains("unstorable"), "{what}: {row:?}");
            nothing_is_left(&engine, &shed, &what).await;
            let entries = engine.view(&saga).await.unwrap().unwrap().entries;
            let is_lost =
                |event: &Event| matches!(event, Event::AttemptLost { cause: Cause::Unstorable, .. });
            assert!(entries.iter().any(|entry| is_lost(&entry.event)), "{what}");
            assert_eq!(shed.arrived().iter().filter(|line| *line == "execute").count(), 1, "{what}");
            engine.stop().await;
        }
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_said_at_once_and_a_person_can_settle_it() {
    for effect in 0..3 {
        let shed = Arc::new(Shed::default());
        let failure =
            Failure::Unavailable { cause: Cause::ServerError, detail: "later".into(), retry_after: None };
        (0..100).for_each(|_| shed.next("undo", failure.clone()));
        let engine = memory(odds(&shed)).await;
        let saga = begin::<Odds>(&engine, &(effect, Odd::NotFinite)).await;
        let is_said = |row: &SagaRow| row.attention.contains(&Attention::NeedsDecision);
        let row = engine.wait(&saga, LONG, is_said).await.unwrap().unwrap();
        assert!(is_said(&row), "{row:?}");
        let why = engine.why(&saga).await.unwrap().unwrap().to_string();
        assert!(why.contains("odd"), "{why}");
        shed.things.lock().unwrap().retain(|thing| thing == "first");
        let by_hand = Act::Done { step: "odd".into(), output: None };
        while let Err(error) = engine.act(&saga, by_hand.clone(), "ann", "I took it away").await {
            assert!(error.to_string().contains("under way"), "{error}");
        }
        assert_eq!(ended(&engine, &saga).await.state, SagaState::Compensated);
        nothing_is_left(&engine, &shed, "by hand").await;
        engine.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_taken_back_whenever_the_process_dies() {
    let mut crashes = 0;
    for effect in 0..2 {
        for odd in [Odd::NotFinite, Odd::Deep(127)] {
            for at in 1.. {
                let shed = Arc::new(Shed::default());
                let database = Database::new(env(), &[]);
                let mut running = database.run(odds(&shed), Some(Crash::After(at))).await;
                let saga = begin::<Odds>(&running.engine, &(effect, odd)).await;
                let crashed = tokio::select! {
                    row = running.engine.wait(&saga, LONG, |_| false) => { row.unwrap(); false }
                    () = running.store.crashed() => true,
                };
                if crashed {
                    crashes += 1;
                    running.die().await;
                    running = database.run(odds(&shed), None).await;
                }
                let row = ended(&running.engine, &saga).await;
                assert_eq!(row.state, SagaState::Compensated, "{effect} {odd:?} {at}: {row:?}");
                nothing_is_left(&running.engine, &shed, &format!("{effect} {odd:?} {at}")).await;
                running.die().await;
                if !crashed {
                    break;
                }
            }
        }
    }
    eprintln!("{crashes} crashes");
    assert!(crashes > 10);
}

/// Says something that cannot be kept of what changes nothing outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Glance(Odd);

impl Activity for Glance {
    const NAME: &'static str = "odd.glance";
    const EFFECT: Effect = Effect::Read;
    type Client = Shed;
    type Output = Strange;

    async fn execute(&self, _: &Shed, _: &Call) -> Result<Strange, Failure> {
        Ok(Strange { name: "glance".into(), odd: self.0 })
    }
}

/// Changes something outside, has nothing to be taken back, and cannot say what came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stir(Odd);

impl Activity for Stir {
    const NAME: &'static str = "odd.stir";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Shed;
    type Output = Strange;

    async fn execute(&self, shed: &Shed, _: &Call) -> Result<Strange, Failure> {
        shed.arrive("stir".to_owned());
        Ok(Strange { name: "stir".into(), odd: self.0 })
    }
}

/// Says something that cannot be kept of our own tables.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Jot(Odd);

impl Local for Jot {
    const NAME: &'static str = "odd.jot";
    type Output = Strange;

    async fn apply(&self, _: &mut Tx<'_>) -> Result<Strange, Failure> {
        Ok(Strange { name: "jot".into(), odd: self.0 })
    }
}

workflow!(Effectless, "effectless", (u32, Odd) => Option<Strange>, |saga, given| {
    let (case, odd) = given;
    match case {
        0 => saga.step("odd", Glance(odd)).await.map(drop)?,
        1 => saga.transact("odd", Jot(odd)).await.map(drop)?,
        2 => saga.step("odd", Stir(odd)).await.map(drop)?,
        // Inputs and outputs of its own.
        3 => saga.step("odd", Carry(Strange { name: "in".into(), odd })).await.map(drop)?,
        4 => saga.call::<Carried>("odd", &Strange { name: "in".into(), odd }).await.map(drop)?,
        _ => return Ok(Some(Strange { name: "out".into(), odd })),
    }
    Ok(None)
});

workflow!(Carried, "carried", Strange => (), |_saga, _given| { Ok(()) });

/// Is asked for something that cannot be kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Carry(Strange);

impl Activity for Carry {
    const NAME: &'static str = "odd.carry";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Shed;
    type Output = ();

    async fn execute(&self, shed: &Shed, _: &Call) -> Result<(), Failure> {
        shed.arrive("carry".to_owned());
        Ok(())
    }
}

fn effectless(shed: &Arc<Shed>) -> Registry {
    registry(shed)
        .activity::<Glance>(shed.clone())
        .activity::<Stir>(shed.clone())
        .activity::<Carry>(shed.clone())
        .local::<Jot>()
        .workflow(Effectless)
        .workflow(Carried)
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_where_nothing_has_happened() {
    for case in [0, 1, 3, 4, 5] {
        for odd in ODD.into_iter().filter(|odd| *odd != Odd::Id) {
            let shed = Arc::new(Shed::default());
            let engine = memory(effectless(&shed)).await;
            let saga = begin::<Effectless>(&engine, &(case, odd)).await;
            let row = ended(&engine, &saga).await;
            assert_eq!(row.state, SagaState::Failed, "{case} {odd:?}: {row:?}");
            let error = row.error.unwrap();
            assert!(
                error.starts_with("unstorable") || error.starts_with("misuse"),
                "{case} {odd:?}: {error}"
            );
            assert!(shed.arrived().is_empty(), "{case} {odd:?}: {:?}", shed.arrived());
            assert_eq!(engine.sagas(Default::default()).await.unwrap().len(), 1, "no child was started");
            engine.stop().await;
        }
    }
}

#[tokio::test]
async fn what_happened_and_cannot_be_kept_is_in_doubt_until_a_person_says_what_it_came_to() {
    let shed = Arc::new(Shed::default());
    let engine = memory(effectless(&shed)).await;
    let saga = begin::<Effectless>(&engine, &(2, Odd::NotFinite)).await;
    let is_said = |row: &SagaRow| row.attention.contains(&Attention::NeedsDecision);
    let row = engine.wait(&saga, LONG, is_said).await.unwrap().unwrap();
    assert!(is_said(&row) && row.error.as_ref().unwrap().contains("not finite"), "{row:?}");
    let why = engine.why(&saga).await.unwrap().unwrap();
    assert!(why.happened.contains("not finite") && why.you.contains("`settle`"), "{why}");
    let verdict = Verdict::Adopt { output: json!(["stir", 1]), external_id: None };
    while let Err(error) = engine.settle(&saga, "odd", verdict.clone(), "ann", "I saw it").await {
        assert!(error.to_string().contains("under way"), "{error}");
    }
    assert_eq!(ended(&engine, &saga).await.state, SagaState::Completed);
    engine.stop().await;
}

// ---- limits

fn new(engine: &Engine, key: &str) -> NewSaga {
    engine.new_saga::<Received>(key, &()).unwrap()
}

#[tokio::test]
async fn a_start_that_exceeds_a_limit_is_refused_by_name_and_nothing_is_written() {
    let server = Server::shared();
    let base = server.database();
    let (postgres, vault) = base.open(&[], &env()).await;
    let on_postgres =
        Engine::start(Arc::new(postgres), vault, Registry::default().workflow(Received), env(), "test");
    let long = "k".repeat(3000);
    for engine in [memory(Registry::default().workflow(Received)).await, on_postgres] {
        let deep = (0..200).fold(Value::Null, |inner, _| json!([inner]));
        let cases: Vec<(&str, &str, NewSaga)> = vec![
            ("key", "too long", new(&engine, &long)),
            ("key", "empty", new(&engine, "")),
            ("key", "NUL", new(&engine, "a\0b")),
            ("label", "too long", new(&engine, "k").labelled("colour", long.clone())),
            ("label", "too long", new(&engine, "k").labelled(&long, "red")),
            ("label", "NUL", new(&engine, "k").labelled("colour", "a\0b")),
            (
                "labels",
                "too many",
                (0..100).fold(new(&engine, "k"), |new, n| new.labelled(&format!("l{n}"), "x")),
            ),
            ("concurrency key", "too long", new(&engine, "k").one_of(long.clone(), 1)),
            ("input", "deep", NewSaga { input: deep, ..new(&engine, "k") }),
            ("input", "too long", NewSaga { input: "x".repeat(3 << 20).into(), ..new(&engine, "k") }),
        ];
        for (what, problem, new) in cases {
            let error = engine.begin(new).await.unwrap_err();
            let said = error.to_string();
            assert!(said.contains(what) && said.contains(problem), "{what} {problem}: {said}");
            assert!(!said.contains("unavailable"), "{said}");
        }
        assert!(engine.sagas(Default::default()).await.unwrap().is_empty());
        let saga = begin::<Received>(&engine, &()).await;
        let said = engine.signal(&saga, &long, "come", Value::Null).await.unwrap_err().to_string();
        assert!(said.contains("signal") && said.contains("too long"), "{said}");
        let deep = (0..200).fold(Value::Null, |inner, _| json!([inner]));
        let said = engine.signal(&saga, "1", "come", deep).await.unwrap_err().to_string();
        assert!(said.contains("signal") && said.contains("deep"), "{said}");
        let said = engine.cancel(&saga, &long, "why not").await.unwrap_err().to_string();
        assert!(said.contains("too long"), "{said}");
        engine.cancel(&saga, "ann", "enough").await.unwrap();
        assert_eq!(ended(&engine, &saga).await.state, SagaState::Failed);
        engine.stop().await;
    }
}

/// Names what it makes, and who gets it, as it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Name {
    name: String,
    keeper: Option<String>,
    writes: Option<String>,
}

impl Activity for Name {
    const NAME: &'static str = "shed.name";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Shed;
    type Output = ();

    fn resource(&self, _: &Call) -> Option<Resource> {
        let resource = Resource::new("shed", "thing", &self.name);
        Some(match &self.keeper {
            Some(keeper) => resource.kept_by(keeper),
            None => resource,
        })
    }

    fn object(&self, _: &Call) -> Option<Object> {
        self.writes.as_ref().map(|id| Object::new("shed", "shelf", id))
    }

    async fn execute(&self, shed: &Shed, _: &Call) -> Result<(), Failure> {
        shed.arrive("name".to_owned());
        Ok(())
    }

    async fn compensate(&self, shed: &Shed, (): &(), _: &Call) -> Result<(), Failure> {
        shed.arrive("unname".to_owned());
        Ok(())
    }
}

struct Naming;

impl Workflow for Naming {
    const NAME: &'static str = "naming";
    const VERSION: u32 = 1;
    type Input = (u32, String);
    type Output = ();

    fn owner(input: &(u32, String), (): &()) -> Option<String> {
        (input.0 == 4).then(|| input.1.clone())
    }

    async fn run(&self, saga: &Saga, (case, text): (u32, String)) -> saga::Result<()> {
        let name = |name: String, keeper: Option<String>| Name { name, keeper, writes: None };
        match case {
            0 => saga.step("a", name(text, None)).await.map(drop),
            1 => saga.step("a", name("a".into(), Some(text))).await.map(drop),
            2 => saga.label("colour", text).await,
            5 => saga.step("a", Name { writes: Some(text), ..name("a".into(), None) }).await.map(drop),
            3 => saga.signal::<()>("a", &text, secs(1)).await.map(drop),
            _ => saga.step("a", name("a".into(), None)).await.map(drop),
        }
    }
}

#[tokio::test]
async fn names_keepers_labels_and_owners_that_exceed_a_limit_are_refused_by_name() {
    let server = Server::shared();
    for case in 0..6 {
        for text in ["n".repeat(3000), "a\0b".to_owned(), SagaId::from_uuid(env().uuid()).to_string()] {
            if text.starts_with("sg_") && !matches!(case, 1 | 4) {
                continue;
            }
            let shed = Arc::new(Shed::default());
            let base = server.database();
            let (postgres, vault) = base.open(&[], &env()).await;
            let registry = registry(&shed).activity::<Name>(shed.clone()).workflow(Naming);
            let engine = Engine::start(Arc::new(postgres), vault, registry, env(), "test");
            let given = (case, if text.contains('\0') { "a\0b".to_owned() } else { text.clone() });
            let saga = begin::<Naming>(&engine, &given).await;
            if case == 4 {
                // Who owns what is known at the end alone: it was made by then, and waits for a person.
                let is_parked = |row: &SagaRow| !row.attention.is_empty() && row.due_at.is_none();
                let row = engine.wait(&saga, LONG, is_parked).await.unwrap().unwrap();
                assert!(is_parked(&row), "{row:?}");
                let why = engine.why(&saga).await.unwrap().unwrap().to_string();
                assert!(why.contains("owner"), "{why}");
                engine.cancel(&saga, "ann", "nobody owns that").await.unwrap();
            }
            let row = ended(&engine, &saga).await;
            let wanted = if case == 4 { SagaState::Compensated } else { SagaState::Failed };
            assert_eq!(row.state, wanted, "{case}: {row:?}");
            let error = row.error.unwrap();
            let named = ["name", "keeper", "label", "signal", "nobody owns that", "object"][case as usize];
            assert!(error.contains(named), "{case}: {error}");
            let arrived = shed.arrived();
            let ends = (arrived.first().map(String::as_str), arrived.last().map(String::as_str));
            let wanted = if case == 4 { (Some("name"), Some("unname")) } else { (None, None) };
            assert_eq!(ends, wanted, "{case}: {arrived:?}");
            engine.stop().await;
        }
    }
}

#[tokio::test]
async fn a_failure_without_end_is_cut() {
    workflow!(Talks, "talks", () => (), |_saga, _nothing| { Err(Halt::give_up("talk", "x".repeat(1 << 22))) });
    let engine = memory(Registry::default().workflow(Talks)).await;
    let saga = begin::<Talks>(&engine, &()).await;
    let row = ended(&engine, &saga).await;
    assert!(row.error.unwrap().len() < 10_000);
    engine.stop().await;
}

#[tokio::test]
async fn a_postgres_whose_encoding_lacks_characters_is_refused_untouched() {
    let server = Server::shared();
    let base = server.database();
    let name = format!("{}_latin", base.name);
    let sql =
        format!("create database {name} encoding 'LATIN1' template template0 lc_collate 'C' lc_ctype 'C'");
    server.psql("postgres", &sql);
    let url = base.url.replace(&base.name, &name);
    let error = base.try_open(&url, &[], &env()).await.err().unwrap().to_string();
    assert!(error.contains("LATIN1") && error.contains("UTF8"), "{error}");
    assert_eq!(server.psql(&name, "select count(*) from pg_tables where schemaname = 'public'"), "0");
}

// ---- a person changes what a step holds

/// Makes a thing on another, once that can be.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct On {
    name: String,
    on: Option<Made<String>>,
}

impl Activity for On {
    const NAME: &'static str = "shed.on";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Shed;
    type Output = String;

    async fn execute(&self, shed: &Shed, _: &Call) -> Result<String, Failure> {
        let on = self.on.as_ref().map(|on| format!("{} of {}", **on, on.step()));
        shed.arrive(format!("{} on {on:?}", self.name));
        let detail = "not yet".to_owned();
        let later = || Failure::Unavailable { cause: Cause::ServerError, detail, retry_after: None };
        if self.name == "box" { Err(later()) } else { Ok(self.name.clone()) }
    }
}

workflow!(Boxes, "boxes", () => String, |saga, _nothing| {
    let shelf = saga.step("shelf", put("shelf")).await?;
    saga.step("box", On { name: "box".into(), on: Some(shelf) }).await.map(Made::take)
});

#[tokio::test]
async fn a_patch_says_beside_the_input_what_it_holds_and_null_in_it_is_null() {
    let shelf = || StepKey::from("shelf");
    for (references, wanted) in [
        (vec![Reference { at: "/on".into(), step: shelf() }], r#"bag on Some("shelf of shelf")"#),
        (vec![], "bag on None"),
    ] {
        let shed = Arc::new(Shed::default());
        let engine = memory(registry(&shed).activity::<On>(shed.clone()).workflow(Boxes)).await;
        let saga = begin::<Boxes>(&engine, &()).await;
        let waits = |row: &SagaRow| row.step.as_deref() == Some("box waits");
        engine.wait(&saga, LONG, waits).await.unwrap();
        let view = engine.view(&saga).await.unwrap().unwrap();
        let asked = view.state.step(&"box".into()).unwrap().asked.clone().unwrap();
        assert_eq!(asked.input, json!({"name": "box", "on": null}));
        assert_eq!(asked.references, [Reference { at: "/on".into(), step: shelf() }]);
        let patch = |input: Value, references: &[Reference]| Act::Patch {
            step: "box".into(),
            input,
            references: references.to_vec(),
        };
        let act = async |act: Act| loop {
            match engine.act(&saga, act.clone(), "ann", "a bag will do").await {
                Err(error) if error.to_string().contains("under way") => tokio::task::yield_now().await,
                other => break other,
            }
        };
        for (at, step, problem) in [("/onto", shelf(), "no place"), ("/on", "box".into(), "does not depend")]
        {
            let wrong = patch(json!({"name": "bag", "on": null}), &[Reference { at: at.into(), step }]);
            let said = act(wrong).await.unwrap_err().to_string();
            assert!(said.contains(problem), "{said}");
        }
        act(patch(json!({"name": "bag", "on": null}), &references)).await.unwrap();
        let row = engine.wait(&saga, LONG, |_| false).await.unwrap().unwrap();
        assert_eq!(row.state, SagaState::Completed, "{row:?}");
        assert_eq!(shed.arrived().last().map(String::as_str), Some(wanted));
        engine.stop().await;
    }
}
