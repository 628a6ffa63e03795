//! AgentMail's client: inboxes.

use amends_engine::Failure;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::answers;
use crate::answer::{Answered, Operation, Reply, unreadable};
use crate::census::{Seen, time};
use crate::http::walk::Walk;
use crate::http::{self, Http, escaped};

/// AgentMail, by its organisation's key.
pub struct AgentMail {
    url: String,
    key: SecretString,
    pub(crate) http: Http,
}

impl AgentMail {
    /// AgentMail at this base URL.
    pub fn new(url: impl Into<String>, key: SecretString) -> Self {
        Self { url: url.into(), key, http: Http::new() }
    }

    async fn call(
        &self,
        operation: &'static Operation,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answered, Failure> {
        let request = self.http.request(operation, method, &format!("{}{path}", self.url))?;
        let request = request.bearer_auth(self.key.expose_secret());
        http::send(operation, body.into_iter().fold(request, |request, body| request.json(body))).await
    }

    pub(crate) async fn create(&self, body: &Value) -> Result<Answered, Failure> {
        self.call(&answers::CREATE, Method::POST, "/inboxes", Some(body)).await
    }

    /// The inbox at an address.
    pub(crate) async fn get(&self, address: &str) -> Result<Option<Reply>, Failure> {
        let path = format!("/inboxes/{}", escaped(address));
        match self.call(&answers::GET, Method::GET, &path, None).await?.found()? {
            Some(reply) if reply.text("/inbox_id").as_deref() != Some(address) => {
                Err(unreadable("AgentMail answered another inbox than was asked for"))
            }
            reply => Ok(reply),
        }
    }

    /// Deletes an inbox; one that is not there is deleted. What is answered is no proof of it.
    pub(crate) async fn delete(&self, address: &str) -> Result<(), Failure> {
        let path = format!("/inboxes/{}", escaped(address));
        self.call(&answers::DELETE, Method::DELETE, &path, None).await?.found().map(drop)
    }

    /// Every inbox, through all pages.
    pub(crate) async fn list(&self) -> Result<Vec<Value>, Failure> {
        let (mut all, mut walk) = (Vec::new(), Walk::new("inboxes"));
        let mut path = "/inboxes?limit=50".to_owned();
        loop {
            let mut page = self.call(&answers::LIST, Method::GET, &path, None).await?.done()?;
            let rows = page.rows("/inboxes");
            walk.read(rows.len())?;
            all.extend(rows);
            let Some(token) = page.text("/next_page_token") else { return Ok(all) };
            walk.goes_to(&token)?;
            path = format!("/inboxes?limit=50&page_token={}", escaped(&token));
        }
    }

    /// Every inbox whose client id begins with our prefix.
    pub async fn census(&self, prefix: &str) -> Result<Vec<Seen>, Failure> {
        let field = |inbox: &Value, name: &str| inbox.get(name).and_then(Value::as_str).map(str::to_owned);
        let all = self.list().await?;
        let seen = all.iter().map(|inbox| Seen {
            provider: "agentmail",
            kind: "inbox",
            external_id: field(inbox, "inbox_id").unwrap_or_default(),
            name: field(inbox, "client_id").unwrap_or_default(),
            created_at: time(field(inbox, "created_at").as_deref()),
            workspace: None,
        });
        Ok(seen.filter(|seen| seen.name.starts_with(prefix)).collect())
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
