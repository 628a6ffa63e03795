//! Clean a container: one try to empty it after a claim was undone, and what was seen then.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Gate, SagaId, SecretRef, secs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Agent, Status, operation_id};
use super::{Runtime, answers};

/// Looks at the container, resets it if that is due, and looks again.
///
/// The reset is sent under the epoch of the release, which is newer than the claim's: a call of the claim that is still
/// on its way is refused by the runtime from then on. Each try has an operation id of its own, since a runtime answers
/// a known one from memory and does nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CleanContainer {
    /// Where the runtime answers, without a scheme.
    pub domain: String,
    /// The instance's bearer token.
    pub token: SecretRef,
    /// The epoch of the release.
    pub epoch: i64,
    /// The claim that is undone: what its operations made may be taken away.
    pub claim: SagaId,
}

/// What a container was seen to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ContainerSeen {
    /// By its own word: unbound, no join that waits, nothing left, under the epoch of the release.
    Clean,
    /// Something of the claim is left.
    Dirty,
    /// Bound, or about to be, by an operation that is not the claim's; or spoken to by a newer claim.
    Foreign,
    /// It did not answer, or something else answered for it.
    Unreachable,
}

/// What one try came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// What was seen last.
    pub seen: ContainerSeen,
}

/// What a status says of a container after this claim.
fn judge(status: &Status, epoch: i64, claim: &SagaId) -> ContainerSeen {
    let mark = format!("{claim}/");
    let is_ours = status.operation.as_ref().is_some_and(|operation| operation.starts_with(&mark));
    if status.epoch > epoch {
        ContainerSeen::Foreign
    } else if status.is_vacant() {
        // Without the epoch a call of the claim that is still on its way could act after this look.
        if status.epoch == epoch { ContainerSeen::Clean } else { ContainerSeen::Dirty }
    } else if (status.conversation.is_some() || status.is_pending) && !is_ours {
        ContainerSeen::Foreign
    } else {
        ContainerSeen::Dirty
    }
}

impl Activity for CleanContainer {
    const NAME: &'static str = "runtime.clean_container";
    const EFFECT: Effect = Effect::Repeatable;
    const TIME_LIMIT: Duration = secs(90);
    /// What did not answer is refused with its cause: whether there is another try is the saga's to say.
    const ATTEMPTS_MAX: Option<u32> = Some(1);
    type Client = Runtime;
    type Output = Tried;

    fn gates(&self, _: &Runtime) -> Vec<Gate> {
        super::gates(&self.domain)
    }

    async fn execute(&self, runtime: &Runtime, call: &Call) -> Result<Tried, Failure> {
        let tried = |seen| Ok(Tried { seen });
        let look = async || {
            let status = runtime.status(&self.domain, &self.token, call).await?;
            Ok::<_, Failure>(judge(&status, self.epoch, &self.claim))
        };
        let seen = look().await?;
        if seen != ContainerSeen::Dirty {
            return tried(seen);
        }
        let agent = Agent { domain: &self.domain, token: &self.token, epoch: self.epoch };
        let id = format!("{}/{}", operation_id(call, &answers::RESET), call.attempt());
        match runtime.tell(&answers::RESET, agent, &id, call, &json!({})).await {
            Err(Failure::Refused(refusal)) if refusal.code == answers::SUPERSEDED => {
                tried(ContainerSeen::Foreign)
            }
            // What came of it the next look says.
            _ => tried(look().await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vacant() -> Status {
        Status { conversation: None, is_pending: false, is_clean: true, operation: None, epoch: 2 }
    }

    #[test]
    fn only_a_container_that_says_everything_is_clean() {
        let claim = SagaId::stored("sg_a");
        let ours = Some("sg_a/k/join".to_owned());
        let theirs = Some("sg_b/k/join".to_owned());
        let bound = || Status { conversation: Some("c".to_owned()), is_clean: false, ..vacant() };
        let pending = || Status { is_pending: true, is_clean: false, ..vacant() };
        let cases = [
            (vacant(), ContainerSeen::Clean),
            (Status { epoch: 1, ..vacant() }, ContainerSeen::Dirty),
            (Status { epoch: 3, ..vacant() }, ContainerSeen::Foreign),
            (Status { is_clean: false, ..vacant() }, ContainerSeen::Dirty),
            (Status { operation: ours.clone(), ..bound() }, ContainerSeen::Dirty),
            (Status { operation: theirs.clone(), ..bound() }, ContainerSeen::Foreign),
            (bound(), ContainerSeen::Foreign),
            (Status { is_clean: true, ..bound() }, ContainerSeen::Foreign),
            (Status { operation: ours, ..pending() }, ContainerSeen::Dirty),
            (Status { operation: theirs, ..pending() }, ContainerSeen::Foreign),
            (Status { is_clean: true, ..pending() }, ContainerSeen::Foreign),
        ];
        for (status, seen) in cases {
            assert_eq!(judge(&status, 2, &claim), seen, "{status:?}");
        }
    }
}
