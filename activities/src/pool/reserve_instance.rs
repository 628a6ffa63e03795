//! Reserve an instance: one idle instance, and the version of the template as it is now, in one transaction.

use std::time::Duration;

use amends_engine::store::NewSaga;
use amends_engine::{Failure, SagaId, SecretRef, Tx, Workflow, params};
use serde::{Deserialize, Serialize};

use super::recheck::RecheckRequest;
use super::{PoolSettings, TemplateDefinition, occupy, occupy_for, one, vacate};

/// Takes an idle instance for a claim, or waits for one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReserveInstance {
    /// What is claimed.
    pub template: String,
    /// From which pool.
    pub pool: String,
    /// For whom.
    pub owner: Option<String>,
    /// The conversation that is to be joined: claimed once only.
    pub conversation_target: Option<String>,
}

/// An instance that this claim has to itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reserved {
    /// Which.
    pub instance: String,
    /// Its name at every provider.
    pub name: String,
    /// Where its container answers.
    pub domain: String,
    /// The bearer token of its container.
    pub token: SecretRef,
    /// The image it runs, by digest.
    pub image: String,
    /// The claim's number; calls under an older one are refused by the runtime.
    pub epoch: i64,
    /// The template's version.
    pub template_version: i64,
    /// What that version says.
    pub definition: TemplateDefinition,
    /// What the instances of its pool are like.
    pub settings: PoolSettings,
}

/// How long a claim may wait for an instance: its own deadline ends that before.
pub const RESERVE_GIVE_UP: Duration = Duration::from_secs(86_400);

/// How soon a claim that waits asks again, should nobody wake it.
const ASK_AGAIN: Duration = Duration::from_secs(30);

impl ReserveInstance {
    /// Takes the instance.
    ///
    /// # Errors
    /// None is idle, or the conversation is another claim's.
    pub async fn reserve(&self, tx: &mut Tx<'_>) -> Result<Reserved, Failure> {
        let (saga, now) = (tx.saga().clone(), tx.now());
        // The newest image first; behind those who have waited longer.
        let idle = tx
            .fetch(
                "select id, name, domain, token, image, claim_epoch from instance
                 where pool = $1 and state = 'idle' order by created_at desc
                 limit 1 offset (select count(*) from claim_queue
                   where pool = $1 and since < (select since from claim_queue where saga = $2))",
                params![&self.pool, &saga],
            )
            .await?;
        let idle = one(idle, || Failure::not_yet("no instance is idle", ASK_AGAIN))?;
        let instance = idle.text("id")?;
        let epoch = idle.int("claim_epoch")? + 1;
        let version = tx
            .fetch(
                "select template.current_version as version, definition, settings
                 from template
                 join template_version on template_version.template = template.id and version = current_version
                 join pool on pool.id = $2
                 where template.id = $1",
                params![&self.template, &self.pool],
            )
            .await?;
        let unknown =
            || Failure::refused("unknown_template", format!("there is no template {}", self.template));
        let version = one(version, unknown)?;
        let unreadable = |error: serde_json::Error| Failure::refused("unreadable", error.to_string());
        let template_version = version.int("version")?;
        let updated = tx
            .execute(
                "update instance set state = 'claiming', claim_epoch = $2, template = $3, template_version = $4,
                   owner = $5, conversation_target = $6, changed_at = $7
                 where id = $1 and state = 'idle'",
                params![
                    &instance, epoch, &self.template, template_version, self.owner.clone(),
                    self.conversation_target.clone(), now
                ],
            )
            .await;
        updated.map_err(|error| match error {
            amends_engine::store::tx::Error::Constraint(_) => {
                Failure::refused("conversation_claimed", "another claim has this conversation")
            }
            other => other.into(),
        })?;
        occupy(tx, &instance, "claim").await?;
        tx.execute("delete from claim_queue where saga = $1", params![&saga]).await?;
        tx.label("instance", &instance);
        Ok(Reserved {
            name: idle.text("name")?,
            domain: idle.text("domain")?,
            token: SecretRef::stored(idle.text("token")?),
            image: idle.text("image")?,
            epoch,
            template_version,
            definition: serde_json::from_str(&version.text("definition")?).map_err(unreadable)?,
            settings: serde_json::from_str(&version.text("settings")?).map_err(unreadable)?,
            instance,
        })
    }

    /// Gives the instance back, to the saga `R` and not to the pool: what the claim left in its container nobody has
    /// looked at yet, so that it is tainted until that saga has seen it clean. It is not needed any more where a
    /// teardown has the instance.
    pub async fn release<R: Workflow<Input = RecheckRequest>>(
        made: &Reserved,
        tx: &mut Tx<'_>,
    ) -> Result<(), Failure> {
        let (now, epoch) = (tx.now(), made.epoch + 1);
        let released = tx
            .execute(
                "update instance set state = 'tainted', claim_epoch = $4, template = null,
                   template_version = null, owner = null, conversation_target = null, conversation = null,
                   changed_at = $3
                 where id = $1 and state in ('claiming', 'pending_acceptance') and claim_epoch = $2",
                params![&made.instance, made.epoch, now, epoch],
            )
            .await?;
        vacate(tx, &made.instance).await?;
        if released > 0 {
            let claim = tx.saga().clone();
            start_recheck::<R>(tx, &made.instance, epoch, &claim).await?;
        }
        Ok(())
    }
}

async fn start_recheck<R: Workflow<Input = RecheckRequest>>(
    tx: &mut Tx<'_>,
    instance: &str,
    epoch: i64,
    claim: &SagaId,
) -> Result<(), Failure> {
    let request = RecheckRequest { instance: instance.to_owned(), epoch, claim: claim.clone() };
    let new = NewSaga::of::<R>(tx.env(), format!("recheck:{instance}:{epoch}"), &request)
        .map_err(|error| Failure::refused("malformed", error.to_string()))?
        .labelled("instance", instance);
    let recheck = tx.start::<R>(new).await?;
    occupy_for(tx, instance, &recheck, "recheck").await
}
