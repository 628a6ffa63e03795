//! Teardown: take one instance apart, and see that nothing is left. Forward only.

use amends_activities::agentmail::{DeleteInbox, InboxGone};
use amends_activities::openrouter::{KeyGone, RevokeKey};
use amends_activities::pool::{
    AwaitSagaEnd, FenceInstance, QuarantineNumber, RecordGone, TakeResources, Taken, TeardownRequest,
};
use amends_activities::railway::{DeleteProject, ProjectGone};
use amends_activities::telnyx::{NumberUnassigned, UnassignNumber};
use amends_engine::store::ResourceRow;
use amends_engine::{ResourceId, Saga, Workflow, saga, secs};

/// The saga that takes one instance apart.
pub struct Teardown;

/// A removal that works is tried for as long as it takes.
const FOREVER: std::time::Duration = secs(3650 * 86_400);

/// Something that stands by itself, with the rows that go when it goes.
enum Removal {
    Project { workspace: String, id: String, rows: Vec<ResourceId> },
    Inbox { address: String, row: ResourceId },
    Number { number_id: String, phone_number: String, row: ResourceId },
}

impl Workflow for Teardown {
    const NAME: &'static str = "teardown";
    const VERSION: u32 = 1;
    type Input = TeardownRequest;
    /// The instance.
    type Output = String;

    async fn run(&self, saga: &Saga, TeardownRequest { instance }: TeardownRequest) -> saga::Result<String> {
        let fenced = saga.pivot_transact("fence", FenceInstance { instance: instance.clone() }).await?;
        let running = fenced.running.iter().map(|running| (running.to_string(), running.clone()));
        saga.each("quiet", running.collect::<Vec<_>>(), |saga, running| async move {
            saga.transact("ended", AwaitSagaEnd { saga: running }).await.map(drop)
        })
        .await?;
        let taken = saga.transact("take", TakeResources { instance: instance.clone() }).await?;

        // The key first: that stops the money.
        let keys = taken.of("openrouter", "key").map(|row| (row.name.clone(), row.clone()));
        saga.each("llm-key", keys.collect::<Vec<_>>(), |saga, key| async move {
            let hash = key.external_id.unwrap_or_default();
            saga.step("revoke", RevokeKey { hash: hash.clone() }).await?;
            let gone = KeyGone { hash, resources: vec![key.id] };
            saga.poll_until("gone", gone, secs(5), FOREVER).await.map(drop)
        })
        .await?;
        // Then all else side by side, none held up by another.
        let removals = removals(&taken, &fenced.workspace);
        saga.each("remove", removals, |saga, removal| async move { remove(&saga, removal).await }).await?;

        saga.transact("gone", RecordGone { instance: instance.clone() }).await?;
        Ok(instance)
    }
}

/// What is to be removed, each under a name of its own.
fn removals(taken: &Taken, workspace: &str) -> Vec<(String, Removal)> {
    let id = |row: &ResourceRow| row.external_id.clone().unwrap_or_default();
    // What is in the container goes with the container.
    let mut inside: Vec<ResourceId> =
        taken.rows.iter().filter(|row| row.provider == "runtime").map(|row| row.id.clone()).collect();
    let mut all = Vec::new();
    for row in taken.of("railway", "project") {
        let mut rows = vec![row.id.clone()];
        rows.append(&mut inside);
        let removal = Removal::Project { workspace: workspace.to_owned(), id: id(row), rows };
        all.push((format!("project-{}", row.name), removal));
    }
    for row in taken.of("agentmail", "inbox") {
        let removal = Removal::Inbox { address: id(row), row: row.id.clone() };
        all.push((format!("inbox-{}", row.name), removal));
    }
    for row in taken.of("telnyx", "assignment") {
        let removal =
            Removal::Number { number_id: id(row), phone_number: row.name.clone(), row: row.id.clone() };
        all.push((format!("number-{}", row.name), removal));
    }
    all
}

async fn remove(saga: &Saga, removal: Removal) -> saga::Result<()> {
    match removal {
        Removal::Project { workspace, id, rows } => {
            saga.step("delete", DeleteProject { workspace: workspace.clone(), project_id: id.clone() })
                .await?;
            let gone = ProjectGone { workspace, project_id: id, resources: rows };
            saga.poll_until("gone", gone, secs(10), FOREVER).await.map(drop)
        }
        Removal::Inbox { address, row } => {
            saga.step("delete", DeleteInbox { address: address.clone() }).await?;
            saga.poll_until("gone", InboxGone { address, resources: vec![row] }, secs(5), FOREVER)
                .await
                .map(drop)
        }
        Removal::Number { number_id, phone_number, row } => {
            saga.step("unassign", UnassignNumber { number_id: number_id.clone() }).await?;
            let gone = NumberUnassigned { number_id, resources: vec![row] };
            saga.poll_until("gone", gone, secs(5), FOREVER).await?;
            saga.transact("quarantine", QuarantineNumber { phone_number }).await.map(drop)
        }
    }
}
