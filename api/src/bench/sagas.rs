//! Sagas: what is run to be measured. None of it takes time of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use amends_engine::store::Migrations;
use amends_engine::{
    Activity, Call, Effect, Failure, Local, Registry, Resource, Saga, Timestamp, Tx, Workflow, params,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

/// The table that local steps write.
pub const NOTES: &[Migrations] = &[Migrations {
    table: "bench_migration",
    sqlite: &[(
        "note",
        "create table note (saga text, number integer, primary key (saga, number)) strict, without rowid;",
    )],
    postgres: &[("note", "create table note (saga text, number bigint, primary key (saga, number));")],
}];

/// What a step that makes nothing yields.
#[derive(Debug, Clone)]
pub struct Payload(String);

impl Payload {
    /// Text of this length.
    pub fn of(bytes: usize) -> Self {
        Self("0123456789abcdef".chars().cycle().take(bytes).collect())
    }
}

/// A step that makes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Nothing {
    number: u32,
}

impl Activity for Nothing {
    const NAME: &'static str = "bench.nothing";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Payload;
    type Output = String;

    async fn execute(&self, payload: &Payload, _: &Call) -> Result<String, Failure> {
        Ok(payload.0.clone())
    }
}

/// A step that makes something.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Thing {
    number: u32,
}

impl Activity for Thing {
    const NAME: &'static str = "bench.thing";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = ();
    type Output = u32;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("bench", "thing", call.name(&format!("thing-{}", self.number))))
    }

    async fn execute(&self, (): &(), _: &Call) -> Result<u32, Failure> {
        Ok(self.number)
    }

    async fn compensate(&self, (): &(), _: &u32, _: &Call) -> Result<(), Failure> {
        Ok(())
    }
}

/// A step in our own database.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    number: u32,
}

impl Local for Note {
    const NAME: &'static str = "bench.note";
    type Output = u32;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<u32, Failure> {
        let saga = tx.saga().clone();
        tx.execute("insert into note (saga, number) values ($1, $2)", params![&saga, self.number]).await?;
        Ok(self.number)
    }
}

/// Where sagas stand until all of them turn round at once.
#[derive(Debug, Default)]
pub struct Latch {
    arrived: AtomicUsize,
    came: Notify,
    open: watch::Sender<bool>,
}

impl Latch {
    /// Returns when so many stand here.
    pub async fn gathered(&self, count: usize) {
        loop {
            let came = self.came.notified();
            if self.arrived.load(Ordering::SeqCst) >= count {
                return;
            }
            came.await;
        }
    }

    /// Lets those who stand here turn round.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Closes it again, with nobody there.
    pub fn close(&self) {
        self.arrived.store(0, Ordering::SeqCst);
        self.open.send_replace(false);
    }
}

/// The step that is refused when the latch opens.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Turn {}

impl Activity for Turn {
    const NAME: &'static str = "bench.turn";
    const EFFECT: Effect = Effect::Read;
    type Client = Latch;
    type Output = ();

    async fn execute(&self, latch: &Latch, _: &Call) -> Result<(), Failure> {
        latch.arrived.fetch_add(1, Ordering::SeqCst);
        latch.came.notify_waiters();
        // The latch outlives its calls, so waiting cannot fail.
        let _ = latch.open.subscribe().wait_for(|open| *open).await;
        Err(Failure::refused("bench", "it turns round"))
    }
}

/// What every measured saga is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// How many steps.
    pub steps: u32,
    /// Until when it sleeps, if that is what it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

macro_rules! workflows {
    ($($(#[$doc:meta])* $name:ident = $text:literal |$saga:ident, $plan:ident| $body:block)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl Workflow for $name {
            const NAME: &'static str = $text;
            const VERSION: u32 = 1;
            type Input = Plan;
            type Output = ();

            async fn run(&self, $saga: &Saga, $plan: Plan) -> amends_engine::saga::Result<()> $body
        }
    )*};
}

workflows! {
    /// Steps that make nothing.
    Steps = "bench-steps" |saga, plan| {
        for number in 0..plan.steps {
            saga.step(&format!("step-{number}"), Nothing { number }).await?;
        }
        Ok(())
    }
    /// Steps that each open a resource.
    Resources = "bench-resources" |saga, plan| {
        for number in 0..plan.steps {
            saga.step(&format!("thing-{number}"), Thing { number }).await?;
        }
        Ok(())
    }
    /// Steps in our own database.
    Notes = "bench-notes" |saga, plan| {
        for number in 0..plan.steps {
            saga.transact(&format!("note-{number}"), Note { number }).await?;
        }
        Ok(())
    }
    /// Steps that each open a resource, and then a turn.
    Undone = "bench-undone" |saga, plan| {
        for number in 0..plan.steps {
            saga.step(&format!("thing-{number}"), Thing { number }).await?;
        }
        saga.step("turn", Turn {}).await?;
        Ok(())
    }
    /// Sleeps.
    Sleeper = "bench-sleeper" |saga, plan| {
        saga.sleep_until("sleep", plan.until.unwrap_or_default()).await
    }
}

/// All that is measured, by name.
pub fn registry(payload: Payload, latch: Arc<Latch>) -> Registry {
    Registry::default()
        .activity::<Nothing>(Arc::new(payload))
        .activity::<Thing>(Arc::new(()))
        .activity::<Turn>(latch)
        .local::<Note>()
        .workflow(Steps)
        .workflow(Resources)
        .workflow(Notes)
        .workflow(Undone)
        .workflow(Sleeper)
}
