//! The sandbox: the providers as real HTTP servers with a memory of their own, and faults to order.
//!
//! It can run inside the product or as a process of its own, so that killing the product does not kill a call in
//! flight. Nothing in it knows the engine; only the wire is shared.

mod agentmail;
mod call;
mod clock;
mod container;
mod control;
mod deed;
mod dice;
pub mod fault;
mod ghcr;
mod graphql;
mod guard;
mod happening;
mod holdings;
mod lists;
mod memory;
mod openrouter;
mod proxy;
mod railway;
mod refusal;
mod request;
mod runtime;
mod server;
mod telnyx;
mod world;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use clock::{Clock, ManualClock};
pub use deed::Deed;
pub use fault::{Fault, Kind, Preset, Provider, Spoiled, SpoiledBody, catalogue};
pub use ghcr::digest;
use holdings::holdings;
use memory::Memory;
pub use runtime::{TOKEN_VARIABLE, fingerprint};
use serde_json::Value;
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

/// What is seldom set of a sandbox.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What it reads the time from: real time, unless a test holds it.
    pub clock: Clock,
    /// Where the containers' memories are, a directory for each. Without it: beside the file of [`Config`]; and
    /// without that one either, in a temporary directory that goes with the sandbox.
    pub memory: Option<PathBuf>,
    /// Names by which other machines reach it, without a port. While there are none it listens only on a loopback
    /// address. It has no authentication: whoever reaches it sets its faults.
    pub hosts: Vec<String>,
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

    /// Everything, brought to the present.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        if world.settle() {
            self.keep(&world);
        }
        world
    }

    pub(crate) fn set_fault(&self, fault: &Fault) -> Result<(), String> {
        if let Some(problem) = fault.problem() {
            return Err(problem);
        }
        let mut world = self.world();
        if fault.now {
            happening::happen(&mut world, fault, None)?;
            world.faults.note(fault.provider, &fault.operation, fault.fault);
            self.keep(&world);
        } else {
            world.faults.set(fault.clone());
        }
        Ok(())
    }

    pub(crate) fn clear_faults(&self) {
        let mut world = self.world();
        world.faults.clear();
        world.quotas.clear();
    }
}

impl Sandbox {
    /// Starts to listen.
    ///
    /// # Errors
    /// The address is taken, not ours, or can be reached from other machines.
    pub async fn start(config: Config) -> std::io::Result<Self> {
        Self::start_with(config, Options::default()).await
    }

    /// Starts to listen, with a clock, a place for memories, or names of its own.
    ///
    /// # Errors
    /// The address is taken, not ours, or can be reached from other machines and no name for them is given; the
    /// directory of memories cannot be made.
    pub async fn start_with(config: Config, options: Options) -> std::io::Result<Self> {
        guard::may_listen(config.listen, &options.hosts)?;
        let listener = tokio::net::TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let beside = || config.file.as_ref().map(|file| file.with_extension("memory"));
        let memory = Memory::open(options.memory.clone().or_else(beside))?;
        let mut world = World::new(config.pace.factor(), config.seed, options.clock, memory);
        if let Some(kept) = config.file.as_ref().filter(|file| file.exists()) {
            let known: World = serde_json::from_slice(&std::fs::read(kept)?)?;
            world = World {
                pace: world.pace,
                clock: world.clock,
                dice: world.dice,
                memory: world.memory,
                ..known
            };
        }
        let shared = Arc::new(Shared { world: Mutex::new(world), file: config.file });
        let stop = tokio::sync::watch::Sender::new(false);
        let mut stopped = stop.subscribe();
        let app = server::app(shared.clone(), options.hosts.into());
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

    /// Sets a fault, or makes it happen if it is to happen at once.
    ///
    /// # Errors
    /// What is wrong with it, or that there is nothing for it to happen to.
    pub fn set_fault(&self, fault: Fault) -> Result<(), String> {
        self.shared.set_fault(&fault)
    }

    /// The directory in which the agent of this domain keeps its memory: empty while it is clean, gone with its
    /// project.
    pub fn memory(&self, domain: &str) -> Option<PathBuf> {
        self.shared.world().memory.directory(domain)
    }

    /// Takes all faults away. What has happened already stays: a dead container is dead.
    pub fn clear_faults(&self) {
        self.shared.clear_faults();
    }

    /// How often each call was made, by `provider.operation`.
    pub fn calls(&self) -> BTreeMap<String, u32> {
        self.shared.world().calls.clone()
    }

    /// How often each fault happened, by `provider.operation.fault`.
    pub fn fired(&self) -> BTreeMap<String, u32> {
        self.shared.world().faults.fired()
    }

    /// The calls that were carried out, in the order in which they took effect; the newest 5,000.
    pub fn deeds(&self) -> Vec<Deed> {
        self.shared.world().deeds.iter().cloned().collect()
    }

    /// What each fake holds: hashes and labels, never a secret.
    pub fn holdings(&self) -> Value {
        holdings(&self.shared.world())
    }

    /// How many of each thing were ever made.
    pub fn made(&self) -> BTreeMap<&'static str, usize> {
        let world = self.shared.world();
        BTreeMap::from([
            ("projects", world.projects.len() + world.forgotten[0]),
            ("keys", world.keys.len() + world.forgotten[1]),
            ("inboxes", world.inboxes.len() + world.forgotten[2]),
            ("numbers", world.numbers.len() + world.forgotten[3]),
        ])
    }

    /// The secrets that it handed out, the last 100,000, for tests that look for leaks.
    pub fn secrets(&self) -> Vec<String> {
        self.shared.world().secrets.iter().cloned().collect()
    }

    /// Stops to listen.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}
