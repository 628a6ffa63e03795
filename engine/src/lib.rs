//! Durable sagas: ordinary async functions whose steps survive any crash and are taken back when they must be.
//!
//! A **saga** is one run of a [`Workflow`]. Each of its **steps** calls an [`Activity`] outside, or a [`Local`]
//! one in your own database, and is written to the saga's **journal** before anything leaves and again when it is
//! known what came of it. After a crash the function runs once more from its start, and recorded steps answer from
//! the record. What a step makes outside is a row of the **ledger** before the call that makes it. A saga that
//! fails before its **pivot** turns round: its steps are taken back from the journal alone, those that depend on
//! others first, for as long as it takes. A call whose answer was lost is never guessed about: the activity is
//! asked to `find` what it may have made.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use amends_engine::{Activity, Call, Effect, Engine, Env, Failure, Found, Registry, Resource, Saga, Workflow};
//! use amends_engine::{saga, secs, store::{Started, memory::MemoryStore}};
//! use serde::{Deserialize, Serialize};
//!
//! /// A cloud that remembers which machines there are.
//! type Cloud = Mutex<Vec<String>>;
//!
//! /// The activity is its request: journalled, shown and called as one value.
//! #[derive(Serialize, Deserialize)]
//! struct RentMachine { name: String }
//!
//! impl Activity for RentMachine {
//!     const NAME: &'static str = "cloud.rent_machine";
//!     const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
//!     type Client = Cloud;
//!     type Output = String;
//!
//!     fn resource(&self, call: &Call) -> Option<Resource> {
//!         Some(Resource::new("cloud", "machine", call.name(&self.name)))
//!     }
//!     async fn execute(&self, cloud: &Cloud, call: &Call) -> Result<String, Failure> {
//!         cloud.lock().unwrap().push(call.name(&self.name));
//!         Ok(call.name(&self.name))
//!     }
//!     async fn find(&self, cloud: &Cloud, call: &Call) -> Result<Found<String>, Failure> {
//!         let name = call.name(&self.name);
//!         let is_there = cloud.lock().unwrap().contains(&name);
//!         Ok(if is_there { Found::Usable(name) } else { Found::Nothing })
//!     }
//!     async fn compensate(&self, cloud: &Cloud, made: &String, _: &Call) -> Result<(), Failure> {
//!         cloud.lock().unwrap().retain(|machine| machine != made);
//!         Ok(())
//!     }
//! }
//!
//! struct OpenShop;
//!
//! impl Workflow for OpenShop {
//!     const NAME: &'static str = "open-shop";
//!     const VERSION: u32 = 1;
//!     type Input = u32;
//!     type Output = ();
//!
//!     async fn run(&self, saga: &Saga, budget: u32) -> saga::Result<()> {
//!         let machine = saga.step("machine", RentMachine { name: "shop-1".into() }).await?;
//!         if budget < 100 {
//!             return Err(saga::Halt::give_up("too_poor", format!("{} is more than we have", *machine)));
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let env = Env::system();
//! let (store, vault) = MemoryStore::new(&[], &env).await?;
//! let cloud = Arc::new(Cloud::default());
//! let registry = Registry::default().activity::<RentMachine>(cloud.clone()).workflow(OpenShop);
//! let engine = Engine::start(Arc::new(store), vault, registry, env, "example");
//!
//! let Started::New(saga) = engine.begin(engine.new_saga::<OpenShop>("shop-1", &99)?).await? else { panic!() };
//! let row = engine.wait(&saga, secs(60), |_| false).await?.unwrap();
//!
//! assert_eq!(row.state.to_string(), "compensated");
//! assert!(cloud.lock().unwrap().is_empty(), "what it rented, it gave back");
//! # engine.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # In a program of your own
//!
//! ```toml
//! [dependencies]
//! amends-engine = "0.1"
//! serde = { version = "1", features = ["derive"] }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//!
//! [dev-dependencies]
//! amends-engine = { version = "0.1", features = ["testing"] } # the kit that tries your sagas
//! ```
//!
//! On a file it is the same, but for the store. One process has a file at a time. The key in the second file seals
//! secrets; keep both files together. Why a file was not opened is said by its error's `Display`; a `main` that
//! returns the error prints its `Debug` instead.
//!
//! ```no_run
//! use std::{path::Path, sync::Arc};
//! use amends_engine::{Engine, Env, Registry, store::sqlite::SqliteStore};
//!
//! async fn open(registry: Registry) -> Result<Engine, Box<dyn std::error::Error>> {
//!     let env = Env::system();
//!     let (file, key) = (Path::new("data/sagas.db"), Path::new("data/key"));
//!     let opened = SqliteStore::open(file, key, "production", &[], &env).await;
//!     let (store, vault) = opened.inspect_err(|error| eprintln!("{error}"))?;
//!     Ok(Engine::start(Arc::new(store), vault, registry, env, "production"))
//! }
//! ```
//!
//! **What is durable when.** A start when [`Engine::begin`] answers, an act when [`Engine::act`] does, a
//! [`transact`](Saga::transact) when it is `Ok`. A [`step`](Saga::step) that is `Ok` has happened; its result is
//! written as soon as the function awaits the next thing or returns, and nothing that follows from it leaves before.
//!
//! **After a crash** start the same program on the same file: sagas go on by themselves, whether forward or back. A
//! start that is repeated under its key is the saga that is there. What was under way when the process died, or was
//! answered and not written yet, is in doubt and settled as its [`Effect`] says: sent again, asked of a person, or
//! looked for when its [`TIME_LIMIT`](Activity::TIME_LIMIT) and its settle time are over, since so long the call may
//! still be on its way.
//!
//! **When the program changes**, sagas that are under way run the new function over their old journal: [`Workflow`]
//! says which changes that bears, and how two versions stand side by side.
//!
//! **Names.** What `find` looks for must be one saga's alone: put something of the saga's input, or
//! [`Call::key`], into the name. Two sagas that choose one name would take each other's things for their own.
//!
//! **When something is wrong**, [`Engine::why`] says in three sentences what happened, what happens now and what you
//! can do; [`Engine::act`] does it.
//!
//! | to learn about | look at |
//! |---|---|
//! | writing sagas | [`Saga`] and its verbs, [`Workflow`], [`Made`], [`Halt`] |
//! | calling the world | [`Activity`], [`Effect`], [`Failure`], [`Found`], [`Resource`], [`Gate`] |
//! | your own tables | [`Local`], [`Tx`], [`Engine::transact`], [`params!`], [`Migrations`](store::Migrations) |
//! | starting sagas | [`Engine::begin`], [`NewSaga`](store::NewSaga): key, priority, delay, deadline, concurrency |
//! | running it | [`Engine`], [`Registry`], [`SqliteStore`](store::sqlite::SqliteStore), [`MemoryStore`](store::memory::MemoryStore) |
//! | what happened | [`journal`], [`journal::story()`], [`journal::why()`], [`Engine::view`] |
//! | what a person can do | [`journal::Act`], [`Engine::act`], [`Engine::plan`], [`Engine::dry_run`], [`bulk`] |
//! | how large things may be, and what is refused by name | [`data`] |
//! | what is outside and on no ledger | [`sweep`], [`Registry::provider`], [`Engine::findings`] |
//! | secrets | [`secret`], [`Call::seal`], [`Call::open`] |
//! | another database | [`store::Store`] |
//! | testing your sagas | the module `testing`, behind the feature `testing`: a kit that crashes a saga at every point and makes every call fail in every way; cases for a store of your own; `call`, for the unit tests of an activity |
//!
//! The package's `examples` show one thing each: `hello_saga`, `unwinding`, `in_doubt`, `parallel`, `another_way`,
//! `human_approval`, `child_sagas`, `crash_and_go_on`, `own_provider`, `sweep`.

pub mod activity;
pub mod bulk;
pub mod data;
mod engine;
pub mod env;
pub mod gate;
pub mod ids;
pub mod journal;
pub mod saga;
pub mod secret;
mod step_key;
pub mod store;
pub mod sweep;
#[cfg(feature = "testing")]
pub mod testing;
mod trouble;
mod worker;

pub use activity::{
    Activity, Call, Effect, Failure, Found, Gate, Local, Object, Refusal, Registry, Removal, Removed,
    Resource, secs,
};
pub use engine::{ActError, Engine, Preview, SagaView};
pub use env::{Env, Timestamp};
pub use ids::{ResourceId, SagaId, SecretRef, StepKey};
pub use saga::{Halt, Made, Saga, Workflow};
pub use store::tx::Tx;
pub use worker::{Counts, DryRun, Seen};
