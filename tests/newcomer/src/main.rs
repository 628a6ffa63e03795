//! A wedding, planned by somebody who has read the engine's documentation and nothing else.
//!
//! `newcomer FOLDER` plans it in that folder: a hall, a band, and a cake that no baker wants to bake. The first
//! process dies when it has booked the band, the second in the middle of taking the band back; the third ends it.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use amends_engine::activity::Cause;
use amends_engine::journal::story;
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Made, Registry, Resource, Saga, Workflow, saga, secs,
};
use serde::{Deserialize, Serialize};

/// The town's booking office: a folder with a file for each booking.
struct Office(PathBuf);

impl Office {
    fn path(&self, booking: &str) -> PathBuf {
        self.0.join("office").join(booking)
    }

    /// Dies the first time it comes by here, as a process does.
    fn dies_once(&self, at: &str) {
        let mark = self.0.join(format!("died-{at}"));
        if !mark.exists() && std::fs::write(mark, "").is_ok() {
            println!("dies: {at}");
            std::process::abort();
        }
    }
}

fn closed(error: std::io::Error) -> Failure {
    Failure::Unavailable { cause: Cause::Connect, detail: error.to_string(), retry_after: None }
}

#[derive(Serialize, Deserialize)]
struct Book {
    what: String,
    after: Option<Made<String>>,
}

impl Activity for Book {
    const NAME: &'static str = "office.book";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    const TIME_LIMIT: std::time::Duration = secs(2);
    type Client = Office;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("office", "booking", call.name(&self.what)))
    }

    async fn execute(&self, office: &Office, call: &Call) -> Result<String, Failure> {
        if self.what == "cake" {
            return Err(Failure::refused("no_baker", "it is August"));
        }
        let booking = call.name(&self.what);
        std::fs::write(office.path(&booking), "").map_err(closed)?;
        if self.what == "band" {
            office.dies_once("band booked");
        }
        Ok(booking)
    }

    async fn find(&self, office: &Office, call: &Call) -> Result<Found<String>, Failure> {
        let booking = call.name(&self.what);
        let is_there = office.path(&booking).try_exists().map_err(closed)?;
        Ok(if is_there { Found::Usable(booking) } else { Found::Nothing })
    }

    async fn compensate(&self, office: &Office, booking: &String, _: &Call) -> Result<(), Failure> {
        match std::fs::remove_file(office.path(booking)) {
            // Gone already is what we came for.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.map_err(closed)?,
        }
        if self.what == "band" {
            office.dies_once("band cancelled");
        }
        Ok(())
    }
}

struct Wedding;

impl Workflow for Wedding {
    const NAME: &'static str = "wedding";
    const VERSION: u32 = 1;
    type Input = ();
    type Output = ();

    async fn run(&self, saga: &Saga, (): ()) -> saga::Result<()> {
        let hall = saga.step("hall", Book { what: "hall".into(), after: None }).await?;
        let band = saga.step("band", Book { what: "band".into(), after: Some(hall) }).await?;
        saga.step("cake", Book { what: "cake".into(), after: Some(band) }).await?;
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("newcomer FOLDER")?);
    std::fs::create_dir_all(folder.join("office"))?;
    let env = Env::system();
    let (database, key) = (folder.join("wedding.db"), folder.join("key"));
    let (store, vault) = SqliteStore::open(&database, &key, "home", &[], &env).await?;
    let registry = Registry::default().activity::<Book>(Arc::new(Office(folder.clone()))).workflow(Wedding);
    let engine = Engine::start(Arc::new(store), vault, registry, env, "home");

    let saga = engine.begin(engine.new_saga::<Wedding>("our wedding", &())?).await?.saga().clone();
    let row = engine.wait(&saga, secs(120), |_| false).await?.ok_or("the saga is gone")?;
    let view = engine.view(&saga).await?.ok_or("the saga is gone")?;
    print!("{}", story(&saga, &view.entries));
    if let Some(why) = engine.why(&saga).await? {
        println!("{why}");
    }
    engine.stop().await;
    let left = std::fs::read_dir(folder.join("office"))?.count();
    if row.state.to_string() == "compensated" && left == 0 {
        return Ok(());
    }
    Err(format!("it is {}, and {left} bookings are left", row.state).into())
}
