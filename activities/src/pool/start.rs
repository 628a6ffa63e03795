//! Requests: what is asked of the pool from outside, checked and started in one transaction.

use std::time::Duration;

use amends_engine::store::NewSaga;
use amends_engine::{Failure, SagaId, Tx, Workflow, params};
use serde::{Deserialize, Serialize};

use super::one;

/// How long a claim may take before it is undone.
const CLAIM_LIMIT: Duration = Duration::from_secs(3600);

/// So many claims may wait for an instance of one pool.
pub const WAITING_MAX: i64 = 10_000;

/// What a claim asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// What is claimed.
    pub template_id: String,
    /// What the agent is called; the template's word if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<String>,
    /// The invitation to a conversation; without one the agent opens its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_url: Option<String>,
}

/// What a teardown asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeardownRequest {
    /// Which instance.
    pub instance: String,
}

/// Starts claims of the workflow `W`.
pub struct StartClaim;

impl StartClaim {
    /// Checks the request and starts its saga; the same key is the same saga.
    pub async fn apply<W: Workflow<Input = ClaimRequest>>(
        tx: &mut Tx<'_>,
        key: &str,
        request: &ClaimRequest,
    ) -> Result<Requested, Failure> {
        let join_url = request.join_url.as_deref().map(super::join_url::normal).transpose()?;
        let request = &ClaimRequest { join_url, ..request.clone() };
        let template = &request.template_id;
        let new = NewSaga::of::<W>(tx.env(), format!("claim:{key}"), request)?
            .within(tx.env(), CLAIM_LIMIT)
            .labelled("template", template);
        let requested = started::<W>(tx, new).await?;
        if !requested.is_new {
            // It is answered whatever has become of the template since.
            return Ok(requested);
        }
        // A refusal takes the start back with it, and does not use up the key.
        let found = tx
            .fetch(
                "select archived_at, pool,
                   (select count(*) from claim_queue where claim_queue.pool = template.pool) as waiting
                 from template where id = $1",
                params![template],
            )
            .await?;
        let unknown = || Failure::refused("unknown_template", format!("there is no template {template:?}"));
        let found = one(found, unknown)?;
        if found.optional_int("archived_at")?.is_some() {
            return Err(Failure::refused("template_archived", format!("template {template} is archived")));
        }
        // None of them is lost for it: whoever was told that it is accepted waits on.
        if found.int("waiting")? >= WAITING_MAX {
            let message =
                format!("{WAITING_MAX} claims wait for an instance of pool {} already", found.text("pool")?);
            return Err(Failure::refused("queue_full", message));
        }
        // The reservation decides; whoever comes late enough is told at once.
        if let Some(target) = &request.join_url
            && let Some(claim) = holder_of(tx, target).await?
        {
            let message = format!("the claim {claim} has this conversation");
            return Err(Failure::refused("conversation_claimed", message));
        }
        Ok(requested)
    }
}

/// The claim that has a conversation.
async fn holder_of(tx: &mut Tx<'_>, target: &str) -> Result<Option<String>, Failure> {
    let found = tx
        .fetch(
            "select instance_saga.saga from instance
             join instance_saga on instance_saga.instance = instance.id and kind = 'claim'
             where conversation_target = $1
               and state in ('claiming', 'pending_acceptance', 'claimed', 'sleeping', 'crashed')
             order by began_at desc limit 1",
            params![target],
        )
        .await?;
    Ok(found.first().map(|row| row.text("saga")).transpose()?)
}

/// What a request came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Requested {
    /// Its saga.
    pub saga: SagaId,
    /// Whether this request started it; an earlier one did otherwise.
    pub is_new: bool,
}

async fn started<W: Workflow>(tx: &mut Tx<'_>, new: NewSaga) -> Result<Requested, Failure> {
    let id = new.id.clone();
    let saga = tx.start::<W>(new).await?;
    Ok(Requested { is_new: saga == id, saga })
}

/// Starts teardowns of the workflow `W`.
pub struct StartTeardown;

impl StartTeardown {
    /// Starts the instance's teardown, or answers the one there is.
    pub async fn apply<W: Workflow<Input = TeardownRequest>>(
        tx: &mut Tx<'_>,
        instance: &str,
    ) -> Result<Requested, Failure> {
        let found = tx.fetch("select id from instance where id = $1", params![instance]).await?;
        one(found, || Failure::refused("no_such_instance", format!("there is no instance {instance:?}")))?;
        let request = TeardownRequest { instance: instance.to_owned() };
        let new = NewSaga::of::<W>(tx.env(), format!("teardown:{instance}"), &request)?
            .labelled("instance", instance);
        started::<W>(tx, new).await
    }
}
