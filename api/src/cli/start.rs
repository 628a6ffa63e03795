//! Starts: commands that begin a saga, and wait for it if asked to.

use std::time::Duration;

use amends_engine::Env;
use amends_engine::journal::state::SagaState;
use serde_json::json;

use super::client::{Answer, Client};
use super::{Error, Exit, To, say, table};
use crate::extract;
use crate::view::{Saga, SagaDetail};

/// An answer that comes so soon was not waited for, though the saga has not ended.
const AT_ONCE: Duration = Duration::from_millis(500);
/// How long it is left alone then.
const AGAIN: Duration = Duration::from_secs(2);

/// How long to wait for a saga, and where.
#[derive(Debug, clap::Args)]
struct Start {
    /// Wait until the saga has ended or needs a person; at most 5m, or so long
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "5m")]
    wait: Option<humantime::Duration>,
    #[command(flatten)]
    to: To,
}

/// `amends claim`
#[derive(Debug, clap::Args)]
pub struct Claim {
    /// What to claim, as tp_demo
    template: String,
    /// What the agent is called; the template's word if not said
    #[arg(long)]
    name: Option<String>,
    /// For whom
    #[arg(long)]
    owner: Option<String>,
    /// The invitation to a conversation; without one the agent opens its own
    #[arg(long, value_name = "URL")]
    join: Option<String>,
    /// Repeated under the same key it is the same claim
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    #[command(flatten)]
    start: Start,
}

impl Claim {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let body = json!({
            "template_id": self.template, "name": self.name, "owner_id": self.owner, "join_url": self.join,
        });
        let key = self.key.unwrap_or_else(|| Env::system().uuid().to_string());
        let client = self.start.to.client()?;
        let answer = client.post_keyed::<Saga>("/v1/claims", Some(&body), &key).await?;
        self.start.follow(&client, answer).await
    }
}

/// `amends teardown`
#[derive(Debug, clap::Args)]
pub struct Teardown {
    /// Which instance
    instance: String,
    #[command(flatten)]
    start: Start,
}

impl Teardown {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let instance =
            extract::name("instance", &self.instance).map_err(|problem| Error::Usage(problem.detail))?;
        // What stands in a path may not look like one.
        if instance.contains(['/', '?', '#', '%', '\\']) || instance.starts_with('.') {
            return Err(Error::Usage(format!("{instance} cannot be an instance")).into());
        }
        let client = self.start.to.client()?;
        // The instance is the key, so that repeating this is safe.
        let key = Env::system().uuid().to_string();
        let path = format!("/v1/instances/{instance}/teardown");
        let answer = client.post_keyed::<Saga>(&path, None, &key).await?;
        self.start.follow(&client, answer).await
    }
}

impl Start {
    async fn follow(self, client: &Client, started: Answer<Saga>) -> anyhow::Result<Exit> {
        let Some(wait) = self.wait else {
            if self.to.json {
                say(&table::json(&started.text))?;
            } else {
                let key = started.key.map(|key| format!("   key {key}")).unwrap_or_default();
                let Saga { id, kind, state, .. } = &started.body;
                say(&format!("{}\n", table::line(&format!("{id} {kind} is {state}{key}"))))?;
            }
            return Ok(Exit::Done);
        };
        let env = Env::system();
        let deadline = env.now().plus(*wait);
        let id = &started.body.id;
        if !self.to.json {
            let told = format!("{id} {}   (Ctrl-C stops watching, not the saga)", started.body.kind);
            say(&format!("{}\n", table::line(&told)))?;
        }
        loop {
            let left = deadline.since(env.now());
            let part = left.min(extract::WAIT_MAX).max(Duration::from_millis(1));
            let part = Duration::from_millis(u64::try_from(part.as_millis()).unwrap_or(1));
            let query =
                [("wait", humantime::format_duration(part).to_string()), ("until", "attention".to_owned())];
            let asked = env.now();
            let answer = client.get::<SagaDetail>(&format!("/v1/sagas/{id}"), &query).await?;
            let saga = &answer.body.saga;
            let exit = match saga.state {
                SagaState::Completed => Some(Exit::Done),
                SagaState::Compensated => Some(Exit::Compensated),
                SagaState::Failed => Some(Exit::Failed),
                _ if !saga.attention.is_empty() => Some(Exit::NeedsPerson),
                _ if env.now() >= deadline => Some(Exit::TimeUp),
                _ => None,
            };
            if let Some(exit) = exit {
                let text = if self.to.json {
                    table::json(&answer.text)
                } else {
                    format!("{}\n", table::why(&answer.body))
                };
                say(&text)?;
                return Ok(exit);
            }
            // Where too many wait already, the server answers at once.
            if env.now().since(asked) < AT_ONCE {
                env.sleep(AGAIN.min(deadline.since(env.now()))).await;
            }
        }
    }
}
