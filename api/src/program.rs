//! The program: everything opened in order, wired together, and closed in order.

use std::io::{IsTerminal, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use amends_activities::pool::{SEED_MAX, Seed, SeedError};
use amends_engine::store::Store;
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::{Engine, Env, Timestamp};
use anyhow::Context;
use tokio::sync::watch;

use amends_sandbox::{Config, Fault, Kind, Options, Pace, Provider, Sandbox, Urls};
use amends_workflows::Clients;

use crate::cli::{shell_word, warn};
use crate::connections::{self, Bounds};
use crate::routes::sandbox::Control;
use crate::server::{self, App};
use crate::settings::{self, Providers, Settings};
use crate::{jobs, product};

/// How long requests under way may take to end when the program stops.
const REQUESTS_MAX: Duration = Duration::from_secs(5);
/// How long calls to providers may take to end when the program stops; what is lost is settled at the next start.
const CALLS_MAX: Duration = Duration::from_secs(30);
/// For how long the sagas of a database that was put back are paused: the longest that a saga can be.
const PUT_BACK_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked whether such a database was compared, before the jobs begin.
const COMPARED_EACH: Duration = Duration::from_secs(1);

/// An HTTP client with this time limit. It asks servers and sandboxes, which are on this machine as a rule and answer to
/// its own names alone: never by a proxy, whatever the environment names as one.
pub fn http(limit: Duration) -> Result<reqwest::Client, reqwest::Error> {
    // Fails only when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(limit).connect_timeout(Duration::from_secs(5)).build()
}

/// Until each provider was compared with a database that was put back: what is not there any more is known by then.
async fn compared(engine: &Engine, since: Timestamp) {
    while !product::not_compared(engine, since).await.is_ok_and(|missing| missing.is_empty()) {
        engine.env().sleep(COMPARED_EACH).await;
    }
}

/// Runs the engine, the API and the dashboard until a signal comes.
pub async fn serve(settings: Settings) -> anyhow::Result<()> {
    log();
    let providers = settings.providers(&settings::process)?;
    let environment = settings.environment(providers.is_some())?;
    let database = settings.database()?;
    // Before anything is opened: a seed that is none leaves everything as it is.
    let seed = settings.seed.as_deref().map(read_seed).transpose()?;
    let listener = server::listen(settings.listen).await?;
    let listens = listener.local_addr()?;
    make_folder(&settings.data_dir)?;

    let outside = Outside::open(&settings, providers.as_ref()).await?;
    let env = outside.env();
    let is_new = !database.exists();
    let (store, vault) =
        SqliteStore::open(&database, &settings.key(), &environment, product::MIGRATIONS, &env).await?;
    let registry =
        product::registry(&outside.clients, &environment, settings.sweep_deletes && !settings.restored);
    let store: Arc<dyn Store> = Arc::new(store);
    if settings.restored {
        let paused =
            Engine::pause_all(&store, &vault, &env, PUT_BACK_PAUSE, "amends", "AMENDS_RESTORED is set").await;
        tracing::warn!(sagas = paused?, "the database was put back: what has not ended is paused for a day");
    }
    let engine = Engine::start(store, vault, registry, env, &environment);
    let seed = match seed {
        None if outside.address.is_some() => Some(Seed::parse(product::SANDBOX_SEED)?),
        other => other,
    };
    if let Some(seed) = seed {
        product::apply_seed(&engine, seed).await.context("the seed was not applied")?;
    }
    outside.show_a_failure(is_new);
    let control = outside.control()?;
    let restored_at = settings.restored.then(|| engine.env().now());
    let app = App {
        engine: engine.clone(),
        sandbox: control,
        environment: environment.as_str().into(),
        restored_at,
    };

    let (stop, stopping) = watch::channel(false);
    let stops = || {
        let mut stopping = stopping.clone();
        async move {
            // A sender that is gone stops us too.
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    };
    let what = product::jobs(&environment);
    let clock = engine.clone();
    let mut stopped = Box::pin(stops());
    let mut jobs = tokio::spawn(async move {
        if let Some(since) = restored_at {
            tokio::select! {
                () = compared(&clock, since) => {}
                () = &mut stopped => return Ok(()),
            }
        }
        jobs::run(clock, &what, stopped).await
    });
    let server = connections::serve(listener, server::router(app), Bounds::default(), stops());
    let mut server = tokio::spawn(server);
    let program = std::env::args().next().unwrap_or_else(|| "amends".to_owned());
    warn(format_args!("{}", banner(&program, &environment, providers.is_none(), listens, &database, is_new)));

    // Without either it would look alive and do half of what it is for: whoever watches it starts it again.
    let ended = tokio::select! {
        asked = signal() => asked.map(|()| None)?,
        ended = &mut server => Some(format!("the HTTP server has ended: {ended:?}")),
        ended = &mut jobs => Some(format!("the jobs have ended: {ended:?}")),
    };
    if let Some(ended) = &ended {
        tracing::error!(ended, "stopping");
    }
    warn(format_args!(
        "amends: stopping; what is under way is recorded, the rest goes on at the next start (again: at once)"
    ));
    stop.send_replace(true);
    let drained = async {
        if !server.is_finished() && tokio::time::timeout(REQUESTS_MAX, server).await.is_err() {
            tracing::warn!("some requests were cut off");
        }
        if !jobs.is_finished() {
            match jobs.await {
                Ok(Err(error)) => tracing::warn!(%error, "the jobs did not stop in order"),
                Err(error) => tracing::warn!(%error, "the jobs did not stop in order"),
                Ok(Ok(())) => {}
            }
        }
        if tokio::time::timeout(CALLS_MAX, engine.stop()).await.is_err() {
            tracing::warn!("some calls were cut off; whether they happened is asked at the next start");
        }
    };
    tokio::select! {
        () = drained => {}
        again = signal() => {
            again?;
            engine.abort();
            warn(format_args!("amends: stopped at once"));
        }
    }
    ended.map_or(Ok(()), |ended| Err(anyhow::anyhow!(ended)))
}

/// Runs only the sandbox's providers, with these faults, until a signal comes.
pub async fn sandbox(settings: Settings, faults: Vec<Fault>) -> anyhow::Result<()> {
    log();
    let sandbox = start_sandbox(&settings, None).await?;
    for fault in faults {
        sandbox.set_fault(fault).map_err(|problem| anyhow::anyhow!("--fault: {problem}"))?;
    }
    let program = std::env::args().next().unwrap_or_else(|| "amends".to_owned());
    warn(format_args!(
        "amends: the sandbox listens; AMENDS_SANDBOX_URL=http://{} {} serve",
        sandbox.address(),
        shell_word(&program)
    ));
    signal().await?;
    sandbox.stop();
    Ok(())
}

async fn start_sandbox(settings: &Settings, file: Option<PathBuf>) -> anyhow::Result<Sandbox> {
    let listen = settings.sandbox_listen;
    // Ids must differ from those that were drawn before a restart.
    let seed = Env::system().below(u64::MAX);
    let config = Config { listen, pace: settings.sandbox_profile, seed, file };
    let hosts = settings.sandbox_hosts.iter().filter(|host| !host.is_empty()).cloned().collect();
    Sandbox::start_with(config, Options { hosts, ..Options::default() }).await.with_context(|| {
        format!("the sandbox cannot listen on {listen}; set AMENDS_SANDBOX_LISTEN to another address")
    })
}

/// What there is outside: a sandbox, ours or not, or the user's own providers.
struct Outside {
    clients: Clients,
    sandbox: Option<Sandbox>,
    /// Where the sandbox is.
    address: Option<String>,
    pace: Pace,
}

impl Outside {
    async fn open(settings: &Settings, providers: Option<&Providers>) -> anyhow::Result<Self> {
        if let Some(providers) = providers {
            let clients = product::clients(providers);
            return Ok(Self { clients, sandbox: None, address: None, pace: Pace::True });
        }
        let pace = settings.sandbox_profile;
        if let Some(url) = &settings.sandbox_url {
            let address = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/').to_owned());
            let address = address
                .filter(|address| !address.is_empty() && !address.contains(['/', '?', '#', '@']))
                .with_context(|| format!("AMENDS_SANDBOX_URL={url} is not http://address:port"))?;
            let clients = product::sandbox_clients(&Urls::of(&address));
            return Ok(Self { clients, sandbox: None, address: Some(address), pace });
        }
        let sandbox = start_sandbox(settings, Some(settings.data_dir.join("sandbox.json"))).await?;
        let address = Some(sandbox.address().to_string());
        Ok(Self { clients: product::sandbox_clients(&sandbox.urls()), sandbox: Some(sandbox), address, pace })
    }

    /// The engine's clock, as much quicker as a quick sandbox is.
    fn env(&self) -> Env {
        Env::system().with_pace(self.pace.factor())
    }

    /// The first container of a new sandbox crashes, so that there is a saga to be seen that walks back.
    fn show_a_failure(&self, is_new: bool) {
        if let Some(sandbox) = self.sandbox.as_ref().filter(|_| is_new) {
            let crash = Fault::new(Provider::Railway, "environmentPatchCommit", Kind::DeployCrashes).times(1);
            if let Err(problem) = sandbox.set_fault(crash) {
                tracing::warn!(problem, "there will be no failure to be seen");
            }
        }
    }

    fn control(&self) -> anyhow::Result<Option<Control>> {
        let Some(address) = &self.address else { return Ok(None) };
        Ok(Some(Control::new(&format!("http://{address}/v1/sandbox"), http(Duration::from_secs(10))?)))
    }
}

/// The seed in this file, of which no more is read than a seed has.
fn read_seed(file: &Path) -> anyhow::Result<Seed> {
    let unread = || format!("the seed {} cannot be read (AMENDS_SEED)", file.display());
    let most = u64::try_from(SEED_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
        .with_context(unread)?;
    if bytes.len() > SEED_MAX {
        return Err(SeedError::TooLarge).with_context(unread);
    }
    let text = String::from_utf8(bytes).with_context(unread)?;
    Seed::parse(&text).with_context(|| format!("the seed {} was not applied (AMENDS_SEED)", file.display()))
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(folder)
        .with_context(|| format!("the data directory {} cannot be made (AMENDS_DATA_DIR)", folder.display()))
}

/// Logs to stderr; `AMENDS_LOG` says what, as `info` or `amends_engine=debug`.
fn log() {
    let filter = settings::process("AMENDS_LOG").unwrap_or_else(|| "warn,amends=info".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // Fails only when something else has set logging up, as a test may have.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would say on stderr that stderr cannot be written to, and panic when that fails.
        .log_internal_errors(false)
        .try_init();
}

/// Returns when somebody asks the program to end.
async fn signal() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            done = tokio::signal::ctrl_c() => done?,
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// What is said at the start: what runs, where, and what to try. Each command runs as it is printed, from the folder
/// in which the server was started.
fn banner(
    program: &str,
    environment: &str,
    sandbox: bool,
    listens: SocketAddr,
    database: &Path,
    is_new: bool,
) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let database = database.display();
    let new = if is_new { " (new)" } else { "" };
    let amends = if listens == DEFAULT_LISTEN {
        shell_word(program)
    } else {
        format!("AMENDS_SERVER=http://{listens} {}", shell_word(program))
    };
    let demo = if sandbox && is_new {
        "The pool is filled with two instances; the first attempt fails on purpose and is undone.\n\n  "
    } else {
        ""
    };
    let what = if sandbox {
        "SANDBOX: fake providers on this machine, nothing leaves it".to_owned()
    } else {
        format!("{}: providers of your own", environment.to_uppercase())
    };
    let claim = if sandbox {
        format!("Claim an agent:        {amends} claim tp_demo --name hello --wait\n  ")
    } else {
        String::new()
    };
    format!(
        "\n  Amends {version}   {what}\n  \
         dashboard   http://{listens}\n  \
         store       {database}{new}; stop with Ctrl-C, start again: everything goes on\n\n  \
         {demo}\
         {claim}\
         See what happened:     {amends} saga list\n  \
         Why one waits:         {amends} saga why SAGA   (an id from the list)\n  \
         What exists outside:   {amends} resource list\n  \
         Then kill -9 this process while something runs, and start it again.\n"
    )
}

/// Where the server listens, and a client looks for it, if nothing is said.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_what_runs_and_where() {
        let listens = "127.0.0.1:7300".parse().unwrap();
        let database = Path::new(".amends/amends.db");
        insta::assert_snapshot!(banner("target/debug/amends", "sandbox", true, listens, database, true));
        let own = banner("amends", "production", false, listens, Path::new("/var/amends.db"), false);
        assert!(own.contains("PRODUCTION: providers of your own"));
    }

    #[test]
    fn its_commands_name_the_server_where_that_is_not_the_default() {
        let listens = "127.0.0.1:7400".parse().unwrap();
        let said = banner("my tools/amends", "sandbox", true, listens, Path::new("a.db"), false);
        assert!(said.contains("AMENDS_SERVER=http://127.0.0.1:7400 'my tools/amends' saga list"), "{said}");
    }
}
