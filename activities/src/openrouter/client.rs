//! OpenRouter's client: management of keys.

use amends_engine::Failure;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::census::{Seen, time};
use crate::http::{self, Reply, escaped};

/// OpenRouter, by its management key.
pub struct OpenRouter {
    url: String,
    key: SecretString,
    http: reqwest::Client,
}

/// A key as the list shows it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) hash: String,
    pub(crate) name: String,
    created_at: Option<String>,
}

/// So many keys are on a full page.
const PAGE: usize = 100;

impl OpenRouter {
    /// OpenRouter at this base URL.
    pub fn new(url: impl Into<String>, key: SecretString) -> Self {
        Self { url: url.into(), key, http: http::client() }
    }

    async fn send(&self, request: reqwest::RequestBuilder, call: http::Call) -> Result<Reply, Failure> {
        let reply = http::send(request.bearer_auth(self.key.expose_secret()), call).await?;
        if reply.is_success() || reply.status == 404 {
            return Ok(reply);
        }
        let message = reply.text("/error/message").unwrap_or_default();
        Err(http::refused(reply.status, "openrouter", &message))
    }

    pub(crate) async fn create(&self, body: &Value) -> Result<Reply, Failure> {
        self.send(self.http.post(format!("{}/keys", self.url)).json(body), http::Call::Write).await
    }

    /// Whether a key is there.
    pub(crate) async fn is_there(&self, hash: &str) -> Result<bool, Failure> {
        let request = self.http.get(format!("{}/keys/{}", self.url, escaped(hash)));
        Ok(self.send(request, http::Call::Read).await?.status != 404)
    }

    /// Deletes a key; one that is not there is deleted.
    pub(crate) async fn delete(&self, hash: &str) -> Result<(), Failure> {
        let request = self.http.delete(format!("{}/keys/{}", self.url, escaped(hash)));
        self.send(request, http::Call::Write).await.map(drop)
    }

    /// Every key, through all pages. Deleting shifts the pages, so nothing is deleted on the way.
    pub(crate) async fn list(&self) -> Result<Vec<Listed>, Failure> {
        let mut all = Vec::new();
        loop {
            let url = format!("{}/keys?offset={}&include_disabled=true", self.url, all.len());
            let reply = self.send(self.http.get(url), http::Call::Read).await?;
            let page = reply.body.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
            let field = |key: &Value, name: &str| key.get(name).and_then(Value::as_str).map(str::to_owned);
            all.extend(page.iter().map(|key| Listed {
                hash: field(key, "hash").unwrap_or_default(),
                name: field(key, "name").unwrap_or_default(),
                created_at: field(key, "created_at"),
            }));
            if page.len() < PAGE {
                return Ok(all);
            }
        }
    }

    /// The keys of exactly this name; there may be several.
    pub(crate) async fn named(&self, name: &str) -> Result<Vec<Listed>, Failure> {
        Ok(self.list().await?.into_iter().filter(|key| key.name == name).collect())
    }

    /// Every key whose name begins with our prefix.
    pub async fn census(&self, prefix: &str) -> Result<Vec<Seen>, Failure> {
        let ours = self.list().await?.into_iter().filter(|key| key.name.starts_with(prefix));
        let seen = |key: Listed| Seen {
            provider: "openrouter",
            kind: "key",
            external_id: key.hash,
            name: key.name,
            created_at: time(key.created_at.as_deref()),
            workspace: None,
        };
        Ok(ours.map(seen).collect())
    }

    /// Deletes what a census saw, if it still bears the name.
    pub async fn remove(&self, seen: &Seen) -> Result<(), Failure> {
        if self.named(&seen.name).await?.iter().any(|key| key.hash == seen.external_id) {
            self.delete(&seen.external_id).await?;
        }
        Ok(())
    }
}
