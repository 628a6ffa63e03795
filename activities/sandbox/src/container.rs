//! Container: one deployed agent: what it was given, what it is bound to, and what it remembers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Moment;
use crate::memory::Memory;

/// How many of the calls that it took a container remembers.
const HISTORY: usize = 200;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Container {
    pub(crate) image: String,
    /// Fingerprints of their values: what the fakes remember is kept in a file, and no secret is.
    pub(crate) variables: Value,
    pub(crate) deployed_at: Moment,
    pub(crate) ready_at: Option<Moment>,
    /// The status that its edge answers, if nothing behind it lives.
    pub(crate) dead: Option<u16>,
    pub(crate) epoch: i64,
    pub(crate) provisioned: Option<Provisioned>,
    pub(crate) bound: Option<Bound>,
    pub(crate) pending: Option<Pending>,
    /// What each operation id was answered.
    pub(crate) answered: BTreeMap<String, (u16, Value)>,
    /// The calls that it took, oldest first.
    pub(crate) history: Vec<Value>,
}

/// What it was told to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Provisioned {
    pub(crate) by: Option<String>,
    pub(crate) body: Value,
}

/// The conversation that it is in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bound {
    /// The operation that bound it; none if nobody here did.
    pub(crate) by: Option<String>,
    pub(crate) conversation: String,
    pub(crate) invitation: Option<String>,
}

/// A join that waits for a human.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) bound: Bound,
    pub(crate) accepted_at: Option<Moment>,
}

impl Container {
    pub(crate) fn new(image: &str, variables: &Value, now: Moment, ready_at: Option<Moment>) -> Self {
        Self {
            image: image.to_owned(),
            variables: variables.clone(),
            deployed_at: now,
            ready_at,
            dead: None,
            epoch: 0,
            provisioned: None,
            bound: None,
            pending: None,
            answered: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    /// Another deployment of it: what is on its volume stays.
    pub(crate) fn redeploy(&mut self, image: &str, variables: &Value, ready_at: Option<Moment>) {
        self.image = image.to_owned();
        self.variables = variables.clone();
        self.ready_at = ready_at;
        self.dead = None;
    }

    pub(crate) fn variable(&self, name: &str) -> Option<u64> {
        self.variables.get(name)?.as_u64()
    }

    pub(crate) fn is_ready(&self, now: Moment) -> bool {
        self.dead.is_none() && self.ready_at.is_some_and(|at| at <= now)
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.bound.is_some() || self.pending.is_some()
    }

    /// Nothing of a claim is left: no instructions, no conversation, and nothing in its memory.
    pub(crate) fn is_clean(&self, domain: &str, memory: &Memory) -> bool {
        self.provisioned.is_none() && !self.is_taken() && memory.files(domain).is_empty()
    }

    pub(crate) fn bind(&mut self, domain: &str, bound: Bound, memory: &Memory) {
        memory.write(domain, "CONVERSATION.md", &format!("In {}.", bound.conversation));
        self.bound = Some(bound);
        self.pending = None;
    }

    /// Accepts a join whose time has come.
    pub(crate) fn accept_due(&mut self, domain: &str, now: Moment, memory: &Memory) -> bool {
        let is_due = self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.accepted_at.is_some_and(|accepted_at| accepted_at <= now));
        is_due && self.accept(domain, memory)
    }

    /// Accepts the join that waits, if one does.
    pub(crate) fn accept(&mut self, domain: &str, memory: &Memory) -> bool {
        let Some(pending) = self.pending.take() else { return false };
        self.bind(domain, pending.bound, memory);
        true
    }

    /// What it is: by whom it is bound, or else by whom it was told what to be.
    pub(crate) fn status(&self, domain: &str, memory: &Memory) -> Value {
        let bound = self.bound.as_ref();
        let operation = match (bound, &self.pending) {
            (Some(bound), _) => bound.by.clone(),
            (None, Some(pending)) => pending.bound.by.clone(),
            (None, None) => self.provisioned.as_ref().and_then(|provisioned| provisioned.by.clone()),
        };
        json!({
            "conversationId": bound.map(|bound| &bound.conversation), "inboxId": null,
            "pending": self.pending.is_some(), "clean": self.is_clean(domain, memory),
            "operationId": operation, "epoch": self.epoch,
        })
    }

    pub(crate) fn note(&mut self, operation: &str, id: Option<&String>, epoch: Option<i64>, status: u16) {
        if self.history.len() >= HISTORY {
            self.history.remove(0);
        }
        self.history.push(json!({"operation": operation, "id": id, "epoch": epoch, "status": status}));
    }

    /// Everything it was given, without a secret: `key` is the hash of the key that it pays its model with.
    pub(crate) fn summary(&self, domain: &str, key: Option<&str>, now: Moment, memory: &Memory) -> Value {
        let given = |pointer: &str| self.provisioned.as_ref()?.body.pointer(pointer).cloned();
        json!({
            "domain": domain, "image": self.image, "ready": self.is_ready(now), "dead": self.dead,
            "epoch": self.epoch, "clean": self.is_clean(domain, memory),
            "conversation": self.bound.as_ref().map(|bound| &bound.conversation),
            "invitation": self.bound.as_ref().and_then(|bound| bound.invitation.as_ref()),
            "bound_by": self.bound.as_ref().and_then(|bound| bound.by.as_ref()),
            "pending": self.pending.is_some(),
            "variables": self.variables, "key": key,
            "agent_name": given("/agentName"), "instructions": given("/instructions"),
            "model": given("/metadata/model"), "tools": given("/metadata/tools"),
            "provisioned_by": self.provisioned.as_ref().and_then(|provisioned| provisioned.by.as_ref()),
            "memory": memory.directory(domain), "files": memory.files(domain), "history": self.history,
        })
    }
}
