//! The sandbox: the providers as real HTTP servers with a memory of their own, and faults to order.
//!
//! It can run inside the product or as a process of its own, so that killing the product does not kill a call in
//! flight. Nothing in it knows the engine; only the wire is shared.

mod agentmail;
mod control;
mod dice;
pub mod fault;
mod ghcr;
mod graphql;
mod openrouter;
mod railway;
mod request;
mod runtime;
mod server;
mod telnyx;
mod world;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use fault::{Fault, Kind, Provider};
pub use ghcr::digest;
pub use runtime::TOKEN_VARIABLE;
use serde_json::{Value, json};
pub use world::Pace;
use world::World;

/// How a sandbox is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How quick it is.
    pub pace: Pace,
    /// What its ids and secrets are drawn from.
    pub seed: u64,
    /// Where what it holds is kept, so that it survives its process; nowhere if none. No secret is in it.
    pub file: Option<PathBuf>,
}

/// Base URLs for the clients.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the base URL of the provider of its name")]
pub struct Urls {
    pub railway: String,
    pub openrouter: String,
    pub agentmail: String,
    pub telnyx: String,
    pub ghcr: String,
    /// With `{domain}` in it.
    pub runtime: String,
}

impl Urls {
    /// The URLs of a sandbox that listens there, in this process or another.
    pub fn of(address: &str) -> Self {
        let base = |path: &str| format!("http://{address}{path}");
        Self {
            railway: base("/railway/graphql/v2"),
            openrouter: base("/openrouter/api/v1"),
            agentmail: base("/agentmail/v0"),
            telnyx: base("/telnyx/v2"),
            ghcr: base("/ghcr"),
            runtime: base("/runtime/{domain}"),
        }
    }
}

/// What the clients show; the same in every sandbox, so that another process knows them.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "each is the credential of the provider of its name")]
pub struct Credentials {
    /// Workspace and token.
    pub railway: &'static [(&'static str, &'static str)],
    pub openrouter: &'static str,
    pub agentmail: &'static str,
    pub telnyx: &'static str,
}

/// The sandbox's credentials.
pub const CREDENTIALS: Credentials = Credentials {
    railway: railway::TOKENS,
    openrouter: openrouter::MANAGEMENT_KEY,
    agentmail: agentmail::KEY,
    telnyx: telnyx::KEY,
};

/// A running sandbox. Clones share it.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: tokio::sync::watch::Sender<bool>,
}

pub(crate) struct Shared {
    world: Mutex<World>,
    file: Option<PathBuf>,
}

impl Shared {
    /// Keeps what the fakes hold, if it is to be kept.
    pub(crate) fn keep(&self, world: &World) {
        let Some(file) = &self.file else { return };
        let written = serde_json::to_vec(world).map_err(std::io::Error::other).and_then(|bytes| {
            let next = file.with_extension("next");
            std::fs::write(&next, bytes)?;
            std::fs::rename(next, file)
        });
        if let Err(error) = written {
            tracing::warn!(%error, file = %file.display(), "what the sandbox holds was not kept");
        }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sandbox {
    /// Starts to listen.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn start(config: Config) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let mut world = World::new(config.pace.factor(), config.seed);
        if let Some(kept) = config.file.as_ref().filter(|file| file.exists()) {
            let (pace, dice) = (world.pace, std::mem::take(&mut world.dice));
            world = serde_json::from_slice(&std::fs::read(kept)?)?;
            (world.pace, world.dice) = (pace, dice);
        }
        let shared = Arc::new(Shared { world: Mutex::new(world), file: config.file });
        let stop = tokio::sync::watch::Sender::new(false);
        let mut stopped = stop.subscribe();
        let app = server::app(shared.clone());
        tokio::spawn(async move {
            let serve = axum::serve(listener, app).with_graceful_shutdown(async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            });
            if let Err(error) = serve.await {
                tracing::error!(%error, "the sandbox stopped");
            }
        });
        Ok(Self { shared, address, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Base URLs for the clients.
    pub fn urls(&self) -> Urls {
        Urls::of(&self.address.to_string())
    }

    /// Sets a fault, or says what is wrong with it.
    pub fn set_fault(&self, fault: Fault) -> Result<(), String> {
        if let Some(problem) = fault.problem() {
            return Err(problem);
        }
        self.shared.world().faults.set(fault);
        Ok(())
    }

    /// Takes all faults away.
    pub fn clear_faults(&self) {
        self.shared.world().faults.clear();
    }

    /// How often each call was made, by `provider.operation`.
    pub fn calls(&self) -> BTreeMap<String, u32> {
        self.shared.world().calls.clone()
    }

    /// How often each fault happened, by `provider.operation.fault`.
    pub fn fired(&self) -> BTreeMap<String, u32> {
        self.shared.world().faults.fired()
    }

    /// What each fake holds: hashes and labels, never a secret.
    pub fn holdings(&self) -> Value {
        holdings(&self.shared.world())
    }

    /// How many of each thing were ever made.
    pub fn made(&self) -> BTreeMap<&'static str, usize> {
        let world = self.shared.world();
        BTreeMap::from([
            ("projects", world.projects.len()),
            ("keys", world.keys.len()),
            ("inboxes", world.inboxes.len()),
            ("numbers", world.numbers.len()),
        ])
    }

    /// Every secret it ever handed out, for tests that look for leaks.
    pub fn secrets(&self) -> Vec<String> {
        self.shared.world().secrets.clone()
    }

    /// Stops to listen.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

pub(crate) fn holdings(world: &World) -> Value {
    let projects: Vec<Value> = world
        .projects
        .iter()
        .filter(|project| project.is_there())
        .map(|project| {
            json!({"id": project.id, "name": project.name, "workspace": project.workspace,
            "description": project.description, "created_at": project.created_at.to_string()})
        })
        .collect();
    let keys: Vec<Value> = world
        .keys
        .iter()
        .filter(|key| key.is_there())
        .map(|key| json!({"hash": key.hash, "name": key.name, "limit": key.limit}))
        .collect();
    let inboxes: Vec<Value> = world
        .inboxes
        .iter()
        .filter(|inbox| inbox.is_there())
        .map(|inbox| json!({"address": inbox.address, "client_id": inbox.client_id}))
        .collect();
    let numbers: Vec<Value> = world
        .numbers
        .iter()
        .filter(|number| number.is_ours())
        .map(|number| {
            json!({"id": number.id, "phone_number": number.phone_number, "reference": number.reference,
            "messaging_profile_id": number.profile})
        })
        .collect();
    let orders: Vec<Value> = world
        .orders
        .iter()
        .map(
            |order| json!({"id": order.id, "phone_number": order.phone_number, "reference": order.reference}),
        )
        .collect();
    let profiles: Vec<Value> =
        world.profiles.iter().map(|profile| json!({"id": profile.id, "name": profile.name})).collect();
    let agents: Vec<Value> = world.agents.iter().map(|(domain, agent)| agent.summary(domain)).collect();
    json!({
        "railway": {"projects": projects}, "openrouter": {"keys": keys}, "agentmail": {"inboxes": inboxes},
        "telnyx": {"numbers": numbers, "orders": orders, "profiles": profiles}, "runtime": {"agents": agents},
    })
}
