//! Every verb of the model, tried by the kit in every way in which calls, processes and operators go wrong.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::store::sqlite::Migrations;
use amends_engine::testing::kit::{Kit, World};
use amends_engine::{
    Activity, Call, Effect, Failure, Found, Halt, Local, Registry, Resource, Saga, Tx, Workflow, params,
    saga, secs,
};
use serde::{Deserialize, Serialize};

/// What there is, by name, as often as it is there.
#[derive(Default)]
struct Yard {
    things: Mutex<BTreeMap<String, usize>>,
    keys: Mutex<BTreeMap<String, String>>,
}

impl Yard {
    fn seen(&self) -> Vec<String> {
        let things = self.things.lock().unwrap();
        things.iter().flat_map(|(name, count)| std::iter::repeat_n(name.clone(), *count)).collect()
    }

    fn remove(&self, name: &str) {
        self.things
            .lock()
            .unwrap()
            .retain(|other, _| other != name && !other.starts_with(&format!("{name}.")));
    }
}

/// Found again by its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Build {
    name: String,
    inside: Option<String>,
}

fn build(name: &str) -> Build {
    Build { name: name.to_owned(), inside: None }
}

impl Activity for Build {
    const NAME: &'static str = "yard.build";
    const EFFECT: Effect = Effect::Searchable { quiet: secs(10) };
    type Client = Yard;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        let resource = Resource::new("yard", "thing", call.name(&self.name));
        Some(match &self.inside {
            Some(step) => resource.within(step.as_str()),
            None => resource,
        })
    }

    async fn execute(&self, yard: &Yard, call: &Call) -> Result<String, Failure> {
        let name = call.name(&self.name);
        *yard.things.lock().unwrap().entry(name.clone()).or_default() += 1;
        Ok(name)
    }

    async fn find(&self, yard: &Yard, call: &Call) -> Result<Found<String>, Failure> {
        let name = call.name(&self.name);
        let is_there = yard.things.lock().unwrap().contains_key(&name);
        Ok(if is_there { Found::Usable(name) } else { Found::Nothing })
    }

    async fn compensate(&self, yard: &Yard, made: &String, _: &Call) -> Result<(), Failure> {
        yard.remove(made);
        Ok(())
    }
}

/// The same key is the same thing, however often it is sent; also after it was taken away.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Rent {
    name: String,
}

fn rent(name: &str) -> Rent {
    Rent { name: name.to_owned() }
}

impl Activity for Rent {
    const NAME: &'static str = "yard.rent";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Yard;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("yard", "rented", call.name(&self.name)))
    }

    async fn execute(&self, yard: &Yard, call: &Call) -> Result<String, Failure> {
        let key = call.key().to_string();
        if yard.keys.lock().unwrap().insert(key, self.name.clone()).is_none() {
            *yard.things.lock().unwrap().entry(self.name.clone()).or_default() += 1;
        }
        Ok(self.name.clone())
    }

    async fn compensate(&self, yard: &Yard, made: &String, _: &Call) -> Result<(), Failure> {
        yard.remove(made);
        Ok(())
    }
}

/// Sweeps the yard: nothing to take back.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sweep;

impl Activity for Sweep {
    const NAME: &'static str = "yard.sweep";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Yard;
    type Output = ();

    async fn execute(&self, yard: &Yard, _: &Call) -> Result<(), Failure> {
        yard.things.lock().unwrap().insert("swept".to_owned(), 1);
        Ok(())
    }
}

/// Looks: of the second time on, there is something.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Look;

impl Activity for Look {
    const NAME: &'static str = "yard.look";
    const EFFECT: Effect = Effect::Read;
    type Client = Yard;
    type Output = Option<String>;

    async fn execute(&self, yard: &Yard, call: &Call) -> Result<Option<String>, Failure> {
        let mut keys = yard.keys.lock().unwrap();
        let looked = keys.insert(format!("look {}", call.saga()), String::new()).is_some();
        Ok(looked.then(|| "there".to_owned()))
    }
}

/// Says no, always.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Refuse;

impl Activity for Refuse {
    const NAME: &'static str = "yard.refuse";
    const EFFECT: Effect = Effect::Read;
    type Client = Yard;
    type Output = ();

    async fn execute(&self, _: &Yard, _: &Call) -> Result<(), Failure> {
        Err(Failure::refused("no", "never"))
    }
}

const NOTES: &[Migrations] = &[Migrations {
    table: "note_migration",
    scripts: &[("note", "create table note (text text primary key);")],
}];

/// A line in a table of our own.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    text: String,
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

/// A line that stays.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sign;

impl Local for Sign {
    const NAME: &'static str = "note.sign";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        tx.execute("insert into note (text) values ('signed')", params![]).await?;
        Ok(())
    }
}

macro_rules! workflow {
    ($name:ident, $wire:literal, |$saga:ident| $body:block) => {
        struct $name;

        impl Workflow for $name {
            const NAME: &'static str = $wire;
            const VERSION: u32 = 1;
            type Input = ();
            type Output = String;

            async fn run(&self, $saga: &Saga, (): ()) -> saga::Result<String> $body
        }
    };
}

fn world() -> World {
    let yard = Arc::new(Yard::default());
    let registry = Registry::default()
        .activity::<Build>(yard.clone())
        .activity::<Rent>(yard.clone())
        .activity::<Sweep>(yard.clone())
        .activity::<Look>(yard.clone())
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
        .workflow(Deferring)
        .workflow(Waiting);
    World::new(registry, move || yard.seen()).tables(NOTES, "select text from note")
}

fn tried<W: Workflow<Input = ()>>(kit: Kit<W>) {
    let report = kit.run();
    eprintln!("{}: {report}", W::NAME);
    assert!(report.reached == report.points, "{report}");
}

// One thing after another, a pivot, and a transaction behind it.
workflow!(Straight, "straight", |saga| {
    saga.transact("note", Note { text: "begun".into() }).await?;
    let house = saga.step("house", build("house")).await?;
    saga.step("room", Build { inside: Some("house".into()), ..build("house.room") }).await?;
    let lamp = saga.step("lamp", rent("lamp")).after("house").await?;
    saga.poll_until("seen", Look, secs(5), secs(600)).await?;
    saga.pivot_transact("signed", Sign).await?;
    saga.step("sweep", Sweep).await?;
    Ok(format!("{} {}", *house, *lamp))
});

#[test]
fn a_straight_saga_ends_whole_or_leaves_nothing() {
    tried(Kit::<Straight>::new((), world));
}

// Branches side by side, of which all have to get through; others of which one may fail.
workflow!(Parallel, "parallel", |saga| {
    let trees = [("oak", "oak"), ("elm", "elm"), ("fir", "fir")];
    let all = saga
        .each("trees", trees, async |saga: Saga, kind: &str| {
            saga.step("plant", build(kind)).await?;
            saga.step("tie", rent(&format!("{kind}-pole"))).await.map(|made| made.take())
        })
        .await?;
    let kept = saga
        .each_kept("beds", 1, [("rose", true), ("weed", false)], async |saga: Saga, grows: bool| {
            saga.step("dig", build(if grows { "rose-bed" } else { "weed-bed" })).await?;
            if grows { Ok(()) } else { Err(Halt::give_up("weed", "nobody wants it")) }
        })
        .await?;
    saga.progress(1, 1);
    Ok(format!("{} {}", all.len(), kept.iter().filter(|bed| bed.is_ok()).count()))
});

#[test]
fn branches_side_by_side_end_whole_or_leave_nothing() {
    tried(Kit::<Parallel>::new((), world));
}

// A way that fails, and another that is taken then.
workflow!(Choice, "choice", |saga| {
    let first = saga
        .scope("stone", |saga| async move {
            saga.step("quarry", build("quarry")).await?;
            saga.scope("inner", |saga| async move { saga.step("cart", rent("cart")).await.map(drop) })
                .await?;
            saga.step("cut", Refuse).await?;
            Ok("stone".to_owned())
        })
        .await;
    saga.label("way", if first.is_ok() { "first" } else { "second" }).await?;
    match first {
        Ok(way) => Ok(way),
        Err(_) => Ok(saga.step("wood", build("wood")).await?.take()),
    }
});

#[test]
fn a_way_that_failed_is_taken_back_and_the_other_ends_whole_or_leaves_nothing() {
    tried(Kit::<Choice>::new((), world));
}

// Two ways at once: one waits, one works; the loser is taken back while the saga goes on.
workflow!(Racing, "racing", |saga| {
    let (winner, _) = saga
        .race("to-the-top", [("slow", 3600), ("quick", 1)], async |saga: Saga, wait: u64| {
            saga.step("rope", build(&format!("rope-{wait}"))).await?;
            saga.each("camps", [("a", wait), ("b", wait)], async |saga: Saga, wait: u64| {
                saga.sleep("rest", Duration::from_secs(wait)).await?;
                saga.step("camp", rent(&format!("camp-{wait}"))).await.map(drop)
            })
            .await?;
            Ok(wait)
        })
        .await?;
    let flag = saga.step("flag", build(&format!("flag-of-{winner}"))).await?;
    saga.label("winner", winner).await?;
    saga.label("winner", "known").await?;
    Ok(flag.take())
});

#[test]
fn a_race_leaves_what_its_winner_made_or_nothing() {
    let slow = ["camp-3600", "camp-3600", "flag-of-slow", "rope-3600"];
    tried(Kit::<Racing>::new((), world).may_leave(&slow));
}

// A child that is called, one that is started, and a step that needs both.
workflow!(Family, "family", |saga| {
    let yard = saga.step("yard", build("yard")).await?;
    saga.start::<Helper>("beside", &()).await?;
    let child = saga.call::<Child>("child", &()).await?;
    saga.step("fence", build("fence")).await?;
    Ok(format!("{} {}", *yard, *child))
});

workflow!(Helper, "helper", |saga| {
    saga.step("tent", build("tent")).await?;
    saga.sleep("night", secs(60)).await?;
    Ok(saga.step("peg", rent("peg")).await?.take())
});

workflow!(Child, "child", |saga| {
    let toy = saga.step("toy", build("toy")).await?;
    saga.sleep("nap", secs(30)).await?;
    saga.step("ball", rent("ball")).await?;
    saga.defer("tidy", Sweep).await?;
    Ok(toy.take())
});

#[test]
fn a_family_ends_whole_or_leaves_nothing() {
    // What is put off is done either way; and nobody waits for the child that was only started.
    let without_helper = ["ball", "fence", "swept", "toy", "yard"];
    tried(Kit::<Family>::new((), world).may_leave(&["swept"]).may_leave(&without_helper));
}

// What is put off to the end is done whichever way it ends; it is drawn once what is drawn.
workflow!(Deferring, "deferring", |saga| {
    let number = saga.random("number", 6).await?;
    let name = saga.uuid("name").await?;
    saga.step("shed", build("shed")).await?;
    saga.sleep_until("dawn", saga.now("now").await?.plus(secs(120))).await?;
    saga.step("tool", rent("tool")).await?;
    assert!(number < 6 && name == saga.uuid("name-2").await.map(|_| name)?);
    Ok("done".into())
});

#[test]
fn drawn_values_and_times_survive_everything() {
    tried(Kit::<Deferring>::new((), world));
}

// A person's word, early or late.
workflow!(Waiting, "waiting", |saga| {
    let desk = saga.step("desk", build("desk")).await?;
    let word: Option<String> = saga.signal("word", "word", secs(300)).await?;
    let never: Option<String> = saga.signal("never", "never", secs(300)).await?;
    saga.step("chair", rent("chair")).await?;
    Ok(format!("{} {word:?} {never:?}", *desk))
});

#[test]
fn a_saga_that_waits_for_words_ends_whole_or_leaves_nothing() {
    tried(Kit::<Waiting>::new((), world).signal("word", "yes"));
}
