//! Lists and looks: commands that change nothing.

use super::{Error, Exit, To, say, table};
use crate::product::Instance;
use crate::view::{Gate, Page, Resource, Saga, SagaDetail};

/// How much of a list to show.
#[derive(Debug, clap::Args)]
struct Part {
    /// At most so many, up to 200
    #[arg(long)]
    limit: Option<u32>,
    /// Where the page before ended
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    to: To,
}

/// `amends saga list`
#[derive(Debug, clap::Args)]
pub struct Sagas {
    /// About this instance
    #[arg(long)]
    instance: Option<String>,
    /// In these states, separated by commas
    #[arg(long)]
    state: Option<String>,
    /// Of this definition
    #[arg(long)]
    kind: Option<String>,
    /// Only those that a person should look at
    #[arg(long)]
    attention: bool,
    #[command(flatten)]
    part: Part,
}

impl Sagas {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let attention = self.attention.then(|| "any".to_owned());
        let query = [
            ("instance", self.instance),
            ("state", self.state),
            ("kind", self.kind),
            ("attention", attention),
        ];
        self.part.list::<Saga>("/v1/sagas", query, table::sagas).await
    }
}

/// `amends instance list`
#[derive(Debug, clap::Args)]
pub struct Instances {
    /// Only this one
    #[arg(long)]
    instance: Option<String>,
    /// In these states, separated by commas
    #[arg(long)]
    state: Option<String>,
    #[command(flatten)]
    part: Part,
}

impl Instances {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let query = [("instance", self.instance), ("state", self.state)];
        self.part.list::<Instance>("/v1/instances", query, table::instances).await
    }
}

/// `amends resource list`
#[derive(Debug, clap::Args)]
pub struct Resources {
    /// Held by this instance
    #[arg(long, conflicts_with = "saga")]
    instance: Option<String>,
    /// Made or held by this saga
    #[arg(long)]
    saga: Option<String>,
    /// In these states, separated by commas
    #[arg(long)]
    state: Option<String>,
    /// At this provider
    #[arg(long)]
    provider: Option<String>,
    #[command(flatten)]
    part: Part,
}

impl Resources {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let query = [
            ("instance", self.instance),
            ("saga", self.saga),
            ("state", self.state),
            ("provider", self.provider),
        ];
        self.part.list::<Resource>("/v1/resources", query, table::resources).await
    }
}

/// `amends gate list`
#[derive(Debug, clap::Args)]
pub struct Gates {
    #[command(flatten)]
    part: Part,
}

impl Gates {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        self.part.list::<Gate>("/v1/gates", [], table::gate_page).await
    }
}

impl Part {
    async fn list<T: serde::de::DeserializeOwned>(
        self,
        path: &str,
        query: impl IntoIterator<Item = (&'static str, Option<String>)>,
        show: impl Fn(&Page<T>) -> String,
    ) -> anyhow::Result<Exit> {
        let more = [("limit", self.limit.map(|limit| limit.to_string())), ("cursor", self.cursor.clone())];
        let query: Vec<(&str, String)> =
            query.into_iter().chain(more).filter_map(|(name, value)| Some((name, value?))).collect();
        let answer = self.to.client()?.get::<Page<T>>(path, &query).await?;
        let text = if self.to.json { table::json(&answer.text) } else { show(&answer.body) };
        say(&text)?;
        Ok(Exit::Done)
    }
}

/// `amends saga show` and `amends saga why`
#[derive(Debug, clap::Args)]
pub struct One {
    /// Which saga
    saga: String,
    /// Its steps from behind this one on
    #[arg(long, value_name = "STEP")]
    steps_after: Option<String>,
    #[command(flatten)]
    to: To,
}

impl One {
    pub(super) async fn show(self) -> anyhow::Result<Exit> {
        self.look(table::saga).await
    }

    pub(super) async fn why(self) -> anyhow::Result<Exit> {
        self.look(|detail| format!("{}\n", table::why(detail))).await
    }

    async fn look(self, show: impl Fn(&SagaDetail) -> String) -> anyhow::Result<Exit> {
        let path = saga_path(&self.saga)?;
        let query: Vec<(&str, String)> =
            self.steps_after.map(|step| ("steps_after", step)).into_iter().collect();
        let answer = self.to.client()?.get::<SagaDetail>(&path, &query).await?;
        let text = if self.to.json { table::json(&answer.text) } else { show(&answer.body) };
        say(&text)?;
        Ok(Exit::Done)
    }
}

/// The path of a saga; an id that cannot be one is not sent, since it could name another path.
pub(super) fn saga_path(saga: &str) -> Result<String, Error> {
    let saga = crate::extract::saga_id(saga).map_err(|problem| Error::Usage(problem.detail))?;
    Ok(format!("/v1/sagas/{saga}"))
}
