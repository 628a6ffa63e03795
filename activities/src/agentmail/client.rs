//! AgentMail's client: inboxes.

use amends_engine::Failure;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::answers;
use crate::answer::{Answered, Operation, Reply, unreadable};
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

    /// A page of the list, from the start or from a token; and where the next one begins.
    pub(crate) async fn page(&self, token: Option<&str>) -> Result<(Vec<Value>, Option<String>), Failure> {
        let after = token.map_or(String::new(), |token| format!("&page_token={}", escaped(token)));
        let path = format!("/inboxes?limit=50{after}");
        let mut page = self.call(&answers::LIST, Method::GET, &path, None).await?.done()?;
        let next = page.text("/next_page_token");
        Ok((page.rows("/inboxes"), next))
    }

    /// Every inbox, through all pages.
    pub(crate) async fn list(&self) -> Result<Vec<Value>, Failure> {
        let (mut all, mut walk, mut token) = (Vec::new(), Walk::new("inboxes"), None::<String>);
        loop {
            let (rows, next) = self.page(token.as_deref()).await?;
            walk.read(rows.len())?;
            all.extend(rows);
            let Some(next) = next else { return Ok(all) };
            walk.goes_to(&next)?;
            token = Some(next);
        }
    }
}
