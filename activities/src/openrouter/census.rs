//! What OpenRouter holds that may be ours: keys, and what they may spend.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::journal::step::Step;
use amends_engine::store::ResourceRow;
use amends_engine::sweep::{
    Ask, FindingRow, Identity, Kind, ListPage, Names, Observed, Provider, async_trait,
};
use amends_engine::{Activity, Engine, Failure, Gate, Registry, secs, store};
use serde_json::Value;

use super::{MintKey, OpenRouter, RemoveKey};
use crate::census::{Declared, is_planned, text, time, unreadable};
use crate::pool;

/// OpenRouter, with the grammar of our keys' names.
pub struct OpenRouterCensus {
    openrouter: Arc<OpenRouter>,
    names: Names,
    limits: Declared,
}

impl OpenRouterCensus {
    /// Of this account.
    pub fn new(openrouter: Arc<OpenRouter>, names: Names) -> Arc<Self> {
        Arc::new(Self { openrouter, names, limits: Declared::default() })
    }
}

/// The limit that a key was minted with, as OpenRouter shows it.
fn limit(step: &Step) -> Option<String> {
    let asked = step.asked.as_ref().filter(|asked| asked.activity == MintKey::NAME)?;
    asked.input.get("limit_usd")?.as_f64().map(|limit| limit.to_string())
}

fn shown(key: &Value) -> Result<Observed, Failure> {
    let mut seen = Observed::new("key", text(key, "hash")?, text(key, "name")?);
    seen.created_at = time(key.get("created_at").and_then(Value::as_str));
    match key.get("limit") {
        Some(Value::Null) => drop(seen.attributes.insert("limit".to_owned(), "none".to_owned())),
        Some(limit) => {
            let limit = limit.as_f64().ok_or_else(|| unreadable("a key's limit is no number".to_owned()))?;
            seen.attributes.insert("limit".to_owned(), limit.to_string());
        }
        None => {}
    }
    Ok(seen)
}

#[async_trait]
impl Provider for OpenRouterCensus {
    fn name(&self) -> &'static str {
        "openrouter"
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::new("key")]
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
        let openrouter = &self.openrouter;
        registry.activity::<MintKey>(openrouter.clone()).removal::<RemoveKey>(openrouter.clone())
    }

    fn gates(&self, _: Ask<'_>) -> Vec<Gate> {
        vec![Gate::credential("openrouter")]
    }

    /// Pages by offset: the cursor is how many keys came before.
    async fn list(&self, cursor: Option<&str>) -> Result<ListPage, Failure> {
        let offset: usize =
            cursor.unwrap_or("0").parse().map_err(|_| unreadable("a cursor is no number".to_owned()))?;
        let page = self.openrouter.page(offset).await?;
        let things = page.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
        // How long a page is only its documentation says. The end is where nothing follows.
        let next = (!page.is_empty()).then(|| (offset + page.len()).to_string());
        Ok(ListPage { things, next })
    }

    async fn read(&self, thing: &Identity) -> Result<Option<Observed>, Failure> {
        let hash =
            thing.external_id.as_deref().ok_or_else(|| unreadable("a key without its hash".to_owned()))?;
        match self.openrouter.read(hash).await? {
            None => Ok(None),
            Some(reply) => shown(reply.body.get("data").unwrap_or(&Value::Null)).map(Some),
        }
    }

    async fn remove(&self, thing: &Identity) -> Result<(), Failure> {
        match self.read(thing).await? {
            None => Ok(()),
            Some(seen) if seen.name == thing.name => self.openrouter.delete(&seen.external_id).await,
            Some(_) => Err(Failure::refused("renamed", "it bears another name now")),
        }
    }

    async fn knows(&self, engine: &Engine, name: &str) -> Result<bool, Failure> {
        is_planned(engine, self.names.read(name)).await
    }

    async fn desired(&self, engine: &Engine, row: &ResourceRow) -> Result<BTreeMap<String, String>, Failure> {
        let limit = self.limits.of(engine, row, limit).await?;
        Ok(limit.map(|limit| ("limit".to_owned(), limit)).into_iter().collect())
    }

    async fn found(&self, engine: &Engine, finding: &FindingRow) -> Result<(), store::Error> {
        pool::taint(engine, finding).await
    }
}
