//! Desk: a database that is open, the engine that is put on it, and callers side by side.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amends_engine::secret::Vault;
use amends_engine::store::{Started, Store};
use amends_engine::{Engine, Env, SagaId, Workflow, params};
use anyhow::bail;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::place::Place;
use super::sagas::{Latch, Payload, Plan, registry};

/// How long one saga may take before something is wrong.
pub const LIMIT: Duration = Duration::from_secs(300);

/// A database that is open, with an engine on it or to be put on it.
pub struct Desk {
    /// Where it is.
    pub place: Place,
    /// The database.
    pub store: Arc<dyn Store>,
    /// Its key.
    pub vault: Vault,
    /// How long it took to open.
    pub opened: Duration,
}

impl Desk {
    /// Opens the database.
    pub async fn open(place: &Place) -> anyhow::Result<Self> {
        let began = Instant::now();
        let (store, vault) = place.open().await?;
        Ok(Self { place: place.clone(), store, vault, opened: began.elapsed() })
    }

    /// An engine on it, whose steps yield this many bytes.
    pub fn engine(&self, payload: usize, latch: &Arc<Latch>) -> Engine {
        let registry = registry(Payload::of(payload), latch.clone());
        Engine::start(self.store.clone(), self.vault.clone(), registry, Env::system(), "bench")
    }

    /// An engine on it that drives so many sagas at a time.
    pub fn bounded_engine(&self, payload: usize, in_flight: usize) -> Engine {
        let registry = registry(Payload::of(payload), Arc::default());
        let (store, vault) = (self.store.clone(), self.vault.clone());
        Engine::start_bounded(store, vault, registry, Env::system(), "bench", in_flight)
    }

    async fn count(&self, sql: &'static str, state: &str) -> anyhow::Result<usize> {
        let rows = self.store.fetch(sql.into(), params![state]).await?;
        let Some(row) = rows.first() else { bail!("a count has no answer") };
        Ok(usize::try_from(row.int("n")?)?)
    }

    /// How many sagas are in this state.
    pub async fn in_state(&self, state: &str) -> anyhow::Result<usize> {
        self.count("select count(*) as n from saga where state = $1", state).await
    }

    /// How many entries of this kind all journals have.
    pub async fn entries(&self, kind: &str) -> anyhow::Result<usize> {
        self.count("select count(*) as n from journal where kind = $1", kind).await
    }
}

/// Does something so many times, `callers` of them side by side; what each came to.
pub async fn side_by_side<T, F>(
    count: usize,
    callers: usize,
    one: impl Fn() -> F + Clone + Send + 'static,
) -> anyhow::Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    for _ in 0..callers.min(count) {
        let (next, one) = (next.clone(), one.clone());
        running.spawn(async move {
            let mut all = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < count {
                all.push(one().await?);
            }
            anyhow::Ok(all)
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(done) = running.join_next().await {
        all.extend(done??);
    }
    Ok(all)
}

/// Starts a saga.
pub async fn begin<W: Workflow<Input = Plan>>(engine: &Engine, plan: &Plan) -> anyhow::Result<SagaId> {
    let key = format!("bench-{}", engine.env().uuid());
    match engine.begin(engine.new_saga::<W>(key, plan)?).await? {
        Started::New(saga) => Ok(saga),
        Started::Before(saga) | Started::KeyReused(saga) => bail!("{saga} was started before"),
    }
}

/// Waits for a saga's end.
pub async fn ended(engine: &Engine, saga: &SagaId) -> anyhow::Result<()> {
    match engine.wait(saga, LIMIT, |_| false).await? {
        Some(row) if row.ended_at.is_some() => Ok(()),
        _ => bail!("saga {saga} did not end within {}", humantime::format_duration(LIMIT)),
    }
}
