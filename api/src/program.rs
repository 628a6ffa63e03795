//! The program: everything opened in order, wired together, and closed in order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::store::sqlite::SqliteStore;
use amends_engine::{Engine, Env};
use anyhow::Context;
use tokio::sync::watch;

use crate::routes::sandbox::Control;
use crate::server::{self, App};
use crate::settings::{self, Settings};
use crate::{jobs, product};

/// How long requests under way may take to end when the program stops.
const REQUESTS_MAX: Duration = Duration::from_secs(5);
/// How long calls to providers may take to end when the program stops; what is lost is settled at the next start.
const CALLS_MAX: Duration = Duration::from_secs(30);

/// An HTTP client with this time limit.
pub fn http(limit: Duration) -> Result<reqwest::Client, reqwest::Error> {
    // Fails only when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(limit).connect_timeout(Duration::from_secs(5)).build()
}

/// Runs the engine, the API and the dashboard until a signal comes.
pub async fn serve(settings: Settings) -> anyhow::Result<()> {
    log();
    let providers = settings.providers(&settings::process)?;
    let environment = settings.environment(providers.is_some())?;
    let database = settings.database()?;
    let listener = server::listen(settings.listen).await?;
    let listens = listener.local_addr()?;
    make_folder(&settings.data_dir)?;

    let control: Option<Control> = None;
    let env = Env::system();
    let is_new = !database.exists();
    let (store, vault) =
        SqliteStore::open(&database, &settings.key(), &environment, product::MIGRATIONS, &env).await?;
    let engine = Engine::start(Arc::new(store), vault, product::registry(), env, &environment);
    let app = App { engine: engine.clone(), sandbox: control, environment: environment.as_str().into() };

    let (stop, stopping) = watch::channel(false);
    let stops = || {
        let mut stopping = stopping.clone();
        async move {
            // A sender that is gone stops us too.
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    };
    let jobs = tokio::spawn(jobs::run(engine.clone(), product::JOBS, stops()));
    let server = axum::serve(listener, server::router(app)).with_graceful_shutdown(stops());
    let server = tokio::spawn(server.into_future());
    eprint!("{}", banner(&environment, providers.is_none(), listens, &database, is_new));

    signal().await?;
    eprintln!(
        "amends: stopping; what is under way is recorded, the rest goes on at the next start (again: at once)"
    );
    stop.send_replace(true);
    let drained = async {
        if tokio::time::timeout(REQUESTS_MAX, server).await.is_err() {
            tracing::warn!("some requests were cut off");
        }
        match jobs.await {
            Ok(Err(error)) => tracing::warn!(%error, "the jobs did not stop in order"),
            Err(error) => tracing::warn!(%error, "the jobs did not stop in order"),
            Ok(Ok(())) => {}
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
            eprintln!("amends: stopped at once");
        }
    }
    Ok(())
}

/// Runs only the sandbox's providers.
pub async fn sandbox(_settings: Settings) -> anyhow::Result<()> {
    anyhow::bail!("this binary has no sandbox")
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
    let filter = settings::process("AMENDS_LOG").unwrap_or_else(|| "warn,amends_api=info".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // Fails only when something else has set logging up, as a test may have.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
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

/// What is said at the start: what runs, where, and what to try.
fn banner(environment: &str, sandbox: bool, listens: SocketAddr, database: &Path, is_new: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let database = database.display();
    let new = if is_new { " (new)" } else { "" };
    let what = if sandbox {
        "SANDBOX: fake providers on this machine, nothing leaves it".to_owned()
    } else {
        format!("{}: providers of your own", environment.to_uppercase())
    };
    format!(
        "\n  Amends {version}   {what}\n  \
         dashboard   http://{listens}\n  \
         store       {database}{new}; stop with Ctrl-C, start again: everything goes on\n\n  \
         Try:  amends claim --agent-name Ada --instructions \"Be kind.\" --wait\n        \
         amends saga list\n        \
         kill -9 this process while something runs, then start it again\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_what_runs_and_where() {
        let listens = "127.0.0.1:7300".parse().unwrap();
        insta::assert_snapshot!(banner("sandbox", true, listens, Path::new(".amends/amends.db"), true));
        let own = banner("production", false, listens, Path::new("/var/amends.db"), false);
        assert!(own.contains("PRODUCTION: providers of your own"));
    }
}
