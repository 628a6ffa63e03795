//! Teardown: take one instance apart, and see that nothing is left. Forward only.

use amends_activities::agentmail::RemoveInbox;
use amends_activities::openrouter::RemoveKey;
use amends_activities::pool::{
    AwaitSagaEnd, FenceInstance, Fenced, QuarantineNumber, RecordGone, TakeResources, Taken, TeardownRequest,
};
use amends_activities::railway::RemoveProject;
use amends_activities::runtime::ReleaseContainer;
use amends_activities::telnyx::UnassignNumber;
use amends_engine::{ResourceId, Saga, SagaId, Workflow, saga};

use crate::profile::profile_name;

/// The saga that takes one instance apart.
pub struct Teardown;

impl Workflow for Teardown {
    const NAME: &'static str = "teardown";
    const VERSION: u32 = 1;
    type Input = TeardownRequest;
    /// The instance.
    type Output = String;

    async fn run(&self, saga: &Saga, TeardownRequest { instance }: TeardownRequest) -> saga::Result<String> {
        let fenced = saga.pivot_transact("fence", FenceInstance { instance: instance.clone() }).await?;
        // What the instance holds already goes without waiting for anybody, the key first: that stops the money.
        let held = take(saga, "take", &instance).await?;
        remove_keys(saga, "llm-key", &held).await?;
        // What ran on it holds what it made until it has ended. One that is stuck hands that over instead.
        let all_ended = await_end(saga, "quiet", &fenced.running, Some(&instance)).await?;
        let passed = take(saga, "take-passed", &instance).await?;
        remove_keys(saga, "llm-key-passed", &passed).await?;
        let mut all = held;
        all.rows.extend(passed.rows);
        remove_all(saga, "remove", &all, &fenced).await?;
        if !all_ended {
            await_end(saga, "ended", &fenced.running, None).await?;
            let last = take(saga, "take-last", &instance).await?;
            remove_keys(saga, "llm-key-last", &last).await?;
            remove_all(saga, "remove-last", &last, &fenced).await?;
        }
        saga.transact("gone", RecordGone { instance: instance.clone() }).await?;
        Ok(instance)
    }
}

async fn take(saga: &Saga, key: &str, instance: &str) -> saga::Result<Taken> {
    Ok(saga.transact(key, TakeResources { instance: instance.to_owned() }).await?.take())
}

/// Waits until these sagas have ended, or are stuck and were asked to hand over to `takes_over`; whether all have ended.
async fn await_end(
    saga: &Saga,
    key: &str,
    running: &[SagaId],
    takes_over: Option<&str>,
) -> saga::Result<bool> {
    let running: Vec<_> = running.iter().map(|running| (running.to_string(), running.clone())).collect();
    let ends = saga
        .each(key, running, |saga, running| async move {
            let wait = AwaitSagaEnd { saga: running, takes_over: takes_over.map(str::to_owned) };
            Ok(saga.transact("ended", wait).await?.has_ended)
        })
        .await?;
    Ok(ends.into_iter().all(|has_ended| has_ended))
}

async fn remove_keys(saga: &Saga, key: &str, taken: &Taken) -> saga::Result<()> {
    let keys = taken.of("openrouter", "key").map(|row| (row.id.to_string(), row.clone()));
    saga.each(key, keys.collect::<Vec<_>>(), |saga, row| async move {
        let remove = RemoveKey { hash: row.external_id, name: row.name, resources: vec![row.id] };
        saga.remove("revoke", remove).await.map(drop)
    })
    .await
    .map(drop)
}

/// Something that stands by itself, with the rows that go when it goes.
enum Standing {
    Project(RemoveProject),
    Inbox(RemoveInbox),
    Number(UnassignNumber),
}

/// All but the keys side by side, none held up by another.
async fn remove_all(saga: &Saga, key: &str, taken: &Taken, fenced: &Fenced) -> saga::Result<()> {
    saga.each(key, standing(taken, fenced), |saga, thing| async move {
        match thing {
            Standing::Project(project) => saga.remove("delete", project).await.map(drop),
            Standing::Inbox(inbox) => saga.remove("delete", inbox).await.map(drop),
            Standing::Number(number) => {
                let phone_number = number.phone_number.clone();
                saga.remove("unassign", number).await?;
                saga.transact("quarantine", QuarantineNumber { phone_number }).await.map(drop)
            }
        }
    })
    .await?;
    // What comes behind its project went with that one.
    let inside = taken.rows.iter().filter(|row| row.provider == "runtime").map(|row| row.id.clone());
    let inside: Vec<ResourceId> = inside.collect();
    if taken.of("railway", "project").next().is_none() && !inside.is_empty() {
        saga.step(&format!("{key}-inside"), ReleaseContainer { resources: inside }).await?;
    }
    Ok(())
}

/// What is to be removed, each under a name of its own.
fn standing(taken: &Taken, fenced: &Fenced) -> Vec<(String, Standing)> {
    // What is in the container goes with the container.
    let mut inside: Vec<ResourceId> =
        taken.rows.iter().filter(|row| row.provider == "runtime").map(|row| row.id.clone()).collect();
    let mut all = Vec::new();
    for row in taken.of("railway", "project") {
        let mut resources = vec![row.id.clone()];
        resources.append(&mut inside);
        let project = RemoveProject {
            workspace: fenced.workspace.clone(),
            project_id: row.external_id.clone(),
            name: row.name.clone(),
            resources,
        };
        all.push((format!("project-{}", row.name), Standing::Project(project)));
    }
    for row in taken.of("agentmail", "inbox") {
        let inbox = RemoveInbox {
            address: row.external_id.clone(),
            name: row.name.clone(),
            resources: vec![row.id.clone()],
        };
        all.push((format!("inbox-{}", row.name), Standing::Inbox(inbox)));
    }
    for row in taken.of("telnyx", "assignment") {
        let number = UnassignNumber {
            number_id: row.external_id.clone(),
            phone_number: row.name.clone(),
            profile: profile_name(&fenced.name),
            resources: vec![row.id.clone()],
        };
        all.push((format!("number-{}", row.name), Standing::Number(number)));
    }
    all
}
