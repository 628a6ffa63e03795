//! Acts on a saga: retry and cancel, each with a reason that is kept.

use serde_json::json;

use super::list::saga_path;
use super::{Exit, To, say};
use crate::routes::sagas::Accepted;

/// `amends saga retry` and `amends saga cancel`
#[derive(Debug, clap::Args)]
pub struct Act {
    /// Which saga
    saga: String,
    /// Why; kept with the saga
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    to: To,
}

impl Act {
    pub(super) async fn run(self, act: &str) -> anyhow::Result<Exit> {
        let path = format!("{}/actions/{act}", saga_path(&self.saga)?);
        let answer = self.to.client()?.post::<Accepted>(&path, &json!({ "reason": self.reason })).await?;
        if self.to.json {
            say(&format!("{}\n", answer.text))?;
        } else {
            let Accepted { operation, saga } = answer.body;
            say(&format!(
                "{operation} {act} of {} is accepted; what comes of it: amends saga why {}\n",
                saga.id, saga.id
            ))?;
        }
        Ok(Exit::Done)
    }
}
