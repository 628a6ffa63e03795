//! What AgentMail holds that may be ours: inboxes, by their client ids.

use std::sync::Arc;
use std::time::Duration;

use amends_engine::sweep::{
    Ask, FindingRow, Identity, Kind, ListPage, Names, Observed, Provider, async_trait,
};
use amends_engine::{Engine, Failure, Gate, Registry, secs, store};
use serde_json::Value;

use super::{AgentMail, CreateInbox, RemoveInbox};
use crate::census::{is_planned, text, time, unreadable};
use crate::pool;

/// AgentMail, with the grammar of our inboxes' client ids.
pub struct AgentMailCensus {
    agentmail: Arc<AgentMail>,
    names: Names,
}

impl AgentMailCensus {
    /// Of this organisation. An instance has an inbox for each of its claims, so the names are numbered.
    pub fn new(agentmail: Arc<AgentMail>, names: Names) -> Arc<Self> {
        Arc::new(Self { agentmail, names: names.numbered() })
    }
}

fn shown(inbox: &Value) -> Result<Observed, Failure> {
    // One that was made by hand has no client id: it is nobody's of ours.
    let name = inbox.get("client_id").and_then(Value::as_str).unwrap_or_default();
    let seen = Observed::new("inbox", text(inbox, "inbox_id")?, name);
    Ok(Observed { created_at: time(inbox.get("created_at").and_then(Value::as_str)), ..seen })
}

#[async_trait]
impl Provider for AgentMailCensus {
    fn name(&self) -> &'static str {
        "agentmail"
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::new("inbox")]
    }

    fn settle_after(&self) -> Duration {
        secs(10)
    }

    fn is_ours(&self, name: &str) -> bool {
        self.names.read(name).is_some()
    }

    fn resembles_ours(&self, name: &str) -> bool {
        self.names.begins(name)
    }

    fn register(self: Arc<Self>, registry: Registry) -> Registry {
        let agentmail = &self.agentmail;
        registry.activity::<CreateInbox>(agentmail.clone()).removal::<RemoveInbox>(agentmail.clone())
    }

    fn gates(&self, _: Ask<'_>) -> Vec<Gate> {
        vec![Gate::credential("agentmail")]
    }

    async fn list(&self, cursor: Option<&str>) -> Result<ListPage, Failure> {
        let (rows, next) = self.agentmail.page(cursor).await?;
        let things = rows.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
        Ok(ListPage { things, next })
    }

    async fn read(&self, thing: &Identity) -> Result<Option<Observed>, Failure> {
        let address = thing.external_id.as_deref();
        let address = address.ok_or_else(|| unreadable("an inbox without its address".to_owned()))?;
        match self.agentmail.get(address).await? {
            None => Ok(None),
            Some(reply) => shown(&reply.body).map(Some),
        }
    }

    async fn remove(&self, thing: &Identity) -> Result<(), Failure> {
        match self.read(thing).await? {
            None => Ok(()),
            Some(seen) if seen.name == thing.name => self.agentmail.delete(&seen.external_id).await,
            Some(_) => Err(Failure::refused("renamed", "it bears another name now")),
        }
    }

    async fn knows(&self, engine: &Engine, name: &str) -> Result<bool, Failure> {
        is_planned(engine, self.names.read(name)).await
    }

    async fn found(&self, engine: &Engine, finding: &FindingRow) -> Result<(), store::Error> {
        pool::taint(engine, finding).await
    }
}
