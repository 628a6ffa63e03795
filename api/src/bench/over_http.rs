//! Over HTTP: sagas that a client asks for by request, each answered when its saga has ended.

use std::time::Duration;

use amends_engine::{Engine, Workflow};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::desk::{begin, ended};
use super::sagas::Plan;
use crate::program;

/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A server with the engine in it, on loopback, and a client of it.
pub struct Door {
    url: String,
    client: reqwest::Client,
    /// It serves until this is dropped.
    _server: JoinSet<()>,
}

impl Door {
    /// Opens it for sagas of one kind.
    pub async fn open<W: Workflow<Input = Plan>>(engine: &Engine) -> anyhow::Result<Self> {
        let router = Router::new().route("/", post(run::<W>)).with_state(engine.clone());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let mut server = JoinSet::new();
        server.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the bench's server ended");
            }
        });
        Ok(Self { url, client: program::http(LIMIT)?, _server: server })
    }

    /// Has a saga run.
    pub async fn run(&self, plan: &Plan) -> anyhow::Result<()> {
        self.client.post(&self.url).json(plan).send().await?.error_for_status()?;
        Ok(())
    }
}

async fn run<W: Workflow<Input = Plan>>(
    State(engine): State<Engine>,
    Json(plan): Json<Plan>,
) -> Result<(), (StatusCode, String)> {
    let done = async { ended(&engine, &begin::<W>(&engine, &plan).await?).await };
    done.await.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}
