//! A process that dies in the middle of a call, for real, and the next one, which goes on where it was.
//!
//! `cargo run -p amends-engine --example crash_and_go_on`
//!
//! The example starts itself twice on one SQLite file. The first process makes the second of two things and aborts
//! before it can record that; the second process finds the thing, adopts it, and ends the saga.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use amends_engine::activity::Cause;
use amends_engine::journal::{story, why};
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Registry, Resource, Saga, Workflow, saga, secs,
};
use serde::{Deserialize, Serialize};

/// A world that outlives the process: a folder, in which each thing is a file.
struct World(PathBuf);

impl World {
    fn things(&self) -> Result<Vec<String>, std::io::Error> {
        let names = std::fs::read_dir(&self.0)?.map(|file| Ok(file?.file_name().display().to_string()));
        let mut names = names.collect::<Result<Vec<_>, std::io::Error>>()?;
        names.sort();
        Ok(names)
    }
}

/// Nothing was written: it is tried again.
fn unreachable(error: std::io::Error) -> Failure {
    Failure::Unavailable { cause: Cause::Connect, detail: error.to_string(), retry_after: None }
}

#[derive(Serialize, Deserialize)]
struct Make {
    name: String,
    /// Whether the process dies when it has made it, if it is the first one.
    and_die: bool,
}

impl Activity for Make {
    const NAME: &'static str = "world.make";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    /// A dead process's call may be on its way for so long; then comes `settle_after`, and then it is looked for.
    const TIME_LIMIT: std::time::Duration = secs(2);
    type Client = World;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("world", "thing", call.name(&self.name)))
    }

    async fn execute(&self, world: &World, call: &Call) -> Result<String, Failure> {
        std::fs::write(world.0.join(call.name(&self.name)), "").map_err(unreachable)?;
        if self.and_die {
            println!("  process {}: {} is made, and nobody will hear of it", std::process::id(), self.name);
            std::process::abort();
        }
        Ok(self.name.clone())
    }

    async fn find(&self, world: &World, call: &Call) -> Result<Found<String>, Failure> {
        let is_there = world.0.join(call.name(&self.name)).try_exists().map_err(unreachable)?;
        Ok(if is_there { Found::Usable(self.name.clone()) } else { Found::Nothing })
    }

    async fn compensate(&self, world: &World, made: &String, _: &Call) -> Result<(), Failure> {
        std::fs::remove_file(world.0.join(made)).map_err(unreachable)
    }
}

struct Build;

impl Workflow for Build {
    const NAME: &'static str = "build";
    const VERSION: u32 = 1;
    type Input = ();
    type Output = ();

    async fn run(&self, saga: &Saga, (): ()) -> saga::Result<()> {
        saga.step("house", Make { name: "house".into(), and_die: false }).await?;
        saga.step("roof", Make { name: "roof".into(), and_die: true }).await?;
        Ok(())
    }
}

/// One process: opens the file, starts the saga if it is not there yet, and waits for its end.
#[tokio::main(flavor = "current_thread")]
async fn process(folder: &Path) -> Result<(), Box<dyn Error>> {
    let env = Env::system();
    let (database, key) = (folder.join("amends.db"), folder.join("key"));
    let (store, vault) = SqliteStore::open(&database, &key, "example", &[], &env).await?;
    let world = Arc::new(World(folder.join("world")));
    let registry = Registry::default().activity::<Make>(world.clone()).workflow(Build);
    let engine = Engine::start(Arc::new(store), vault, registry, env, "example");

    let saga = engine.begin(engine.new_saga::<Build>("build-1", &())?).await?.saga().clone();
    let row = engine.wait(&saga, secs(60), |_| false).await?.ok_or("the saga is gone")?;
    let view = engine.view(&saga).await?.ok_or("the saga is gone")?;
    print!("{}", story(&saga, &view.entries));
    println!("{}", why(&view.state, engine.env().now()));
    engine.stop().await;
    assert_eq!(row.state.to_string(), "completed");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(folder) = std::env::args_os().nth(1) {
        return process(Path::new(&folder));
    }
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("world"))?;
    let again = || Command::new(std::env::current_exe()?).arg(folder.path()).status();
    println!("the first process:");
    let died = again()?;
    assert!(!died.success());
    println!("  it is dead ({died})\nthe second process:");
    assert!(again()?.success());
    let things = World(folder.path().join("world")).things()?;
    assert_eq!(things, ["house", "roof"]);
    println!(
        "Look at: the house was not built again, and the roof was found; there are {}.",
        things.join(", ")
    );
    Ok(())
}
