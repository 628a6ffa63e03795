//! AgentMail's client: inboxes. The `code` of an error says what it is, not its status.

use amends_engine::Failure;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::census::{Seen, time};
use crate::http::{self, Reply, escaped};

/// AgentMail, by its organisation's key.
pub struct AgentMail {
    url: String,
    key: SecretString,
    http: reqwest::Client,
}

impl AgentMail {
    /// AgentMail at this base URL.
    pub fn new(url: impl Into<String>, key: SecretString) -> Self {
        Self { url: url.into(), key, http: http::client() }
    }

    async fn send(&self, request: reqwest::RequestBuilder, call: http::Call) -> Result<Reply, Failure> {
        let reply = http::send(request.bearer_auth(self.key.expose_secret()), call).await?;
        if reply.is_success() || reply.status == 404 {
            return Ok(reply);
        }
        let code = reply.text("/code");
        let message = reply.text("/message").unwrap_or_default();
        Err(match code.as_deref() {
            Some("resource_deleting") => http::not_yet("AgentMail is deleting it"),
            // These come with 403, and are about the request all the same.
            Some(
                code
                @ ("resource_taken" | "limit_exceeded" | "already_exists" | "conflict" | "cannot_delete"),
            ) => Failure::refused(code, message),
            code => http::refused(reply.status, code.unwrap_or("agentmail"), &message),
        })
    }

    pub(crate) async fn create(&self, body: &Value) -> Result<Reply, Failure> {
        self.send(self.http.post(format!("{}/inboxes", self.url)).json(body), http::Call::Write).await
    }

    /// The inbox at an address.
    pub(crate) async fn get(&self, address: &str) -> Result<Option<Reply>, Failure> {
        let request = self.http.get(format!("{}/inboxes/{}", self.url, escaped(address)));
        let reply = self.send(request, http::Call::Read).await?;
        Ok((reply.status != 404).then_some(reply))
    }

    /// Deletes an inbox; one that is not there is deleted.
    pub(crate) async fn delete(&self, address: &str) -> Result<(), Failure> {
        let request = self.http.delete(format!("{}/inboxes/{}", self.url, escaped(address)));
        self.send(request, http::Call::Write).await.map(drop)
    }

    /// Every inbox whose client id begins with our prefix, through all pages.
    pub async fn census(&self, prefix: &str) -> Result<Vec<Seen>, Failure> {
        let mut all = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let after =
                token.as_ref().map_or(String::new(), |token| format!("&page_token={}", escaped(token)));
            let url = format!("{}/inboxes?limit=50{after}", self.url);
            let reply = self.send(self.http.get(url), http::Call::Read).await?;
            let page = reply.body.get("inboxes").and_then(Value::as_array).cloned().unwrap_or_default();
            let field =
                |inbox: &Value, name: &str| inbox.get(name).and_then(Value::as_str).map(str::to_owned);
            let seen = page.iter().map(|inbox| Seen {
                provider: "agentmail",
                kind: "inbox",
                external_id: field(inbox, "inbox_id").unwrap_or_default(),
                name: field(inbox, "client_id").unwrap_or_default(),
                created_at: time(field(inbox, "created_at").as_deref()),
                workspace: None,
            });
            all.extend(seen.filter(|seen| seen.name.starts_with(prefix)));
            token = reply.text("/next_page_token");
            if token.is_none() {
                return Ok(all);
            }
        }
    }

    /// Deletes what a census saw, if it still bears the name.
    pub async fn remove(&self, seen: &Seen) -> Result<(), Failure> {
        match self.get(&seen.external_id).await? {
            Some(inbox) if inbox.text("/client_id").as_deref() == Some(&seen.name) => {
                self.delete(&seen.external_id).await
            }
            Some(_) => Err(Failure::refused("renamed", "it bears another name now")),
            None => Ok(()),
        }
    }
}
