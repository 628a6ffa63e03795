//! OpenRouter's client: management of keys.

use amends_engine::Failure;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::answers;
use crate::answer::{Answered, Operation, Reply, unreadable};
use crate::http::walk::Walk;
use crate::http::{self, Http, escaped};

/// OpenRouter, by its management key.
pub struct OpenRouter {
    url: String,
    key: SecretString,
    pub(crate) http: Http,
}

/// A key as the list shows it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) hash: String,
    pub(crate) name: String,
}

impl OpenRouter {
    /// OpenRouter at this base URL.
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

    pub(crate) async fn create(&self, body: &Value) -> Result<Reply, Failure> {
        self.call(&answers::CREATE, Method::POST, "/keys", Some(body)).await?.done()
    }

    /// Whether a key is there.
    pub(crate) async fn is_there(&self, hash: &str) -> Result<bool, Failure> {
        Ok(self.read(hash).await?.is_some())
    }

    /// Deletes a key; one that is not there is deleted. What is answered is no proof of it.
    pub(crate) async fn delete(&self, hash: &str) -> Result<(), Failure> {
        let path = format!("/keys/{}", escaped(hash));
        self.call(&answers::DELETE, Method::DELETE, &path, None).await?.found().map(drop)
    }

    /// Every key, through all pages. Deleting shifts the pages, so nothing is deleted on the way.
    pub(crate) async fn list(&self) -> Result<Vec<Listed>, Failure> {
        let (mut all, mut walk) = (Vec::<Listed>::new(), Walk::new("keys"));
        let mut known = std::collections::HashSet::new();
        loop {
            let path = format!("/keys?offset={}&include_disabled=true", all.len());
            let mut page = self.call(&answers::LIST, Method::GET, &path, None).await?.done()?;
            let rows = page.rows("/data");
            walk.read(rows.len())?;
            // How long a page is only its documentation says. The end is where nothing follows.
            if rows.is_empty() {
                return Ok(all);
            }
            let field = |key: &Value, name: &str| key.get(name).and_then(Value::as_str).map(str::to_owned);
            let listed: Vec<Listed> = rows
                .iter()
                .map(|key| Listed {
                    hash: field(key, "hash").unwrap_or_default(),
                    name: field(key, "name").unwrap_or_default(),
                })
                // What was made meanwhile pushes the last ones of a page onto the next.
                .filter(|key| known.insert(key.hash.clone()))
                .collect();
            if listed.is_empty() {
                return Err(unreadable("the list of keys turns in a circle: a page came twice"));
            }
            all.extend(listed);
        }
    }

    /// The keys of exactly this name; there may be several.
    pub(crate) async fn named(&self, name: &str) -> Result<Vec<Listed>, Failure> {
        Ok(self.list().await?.into_iter().filter(|key| key.name == name).collect())
    }

    /// A page of the list, behind so many keys.
    pub(crate) async fn page(&self, offset: usize) -> Result<Vec<Value>, Failure> {
        let path = format!("/keys?offset={offset}&include_disabled=true");
        let mut page = self.call(&answers::LIST, Method::GET, &path, None).await?.done()?;
        Ok(page.rows("/data"))
    }

    /// One key, if it is there.
    pub(crate) async fn read(&self, hash: &str) -> Result<Option<Reply>, Failure> {
        let path = format!("/keys/{}", escaped(hash));
        match self.call(&answers::GET, Method::GET, &path, None).await?.found()? {
            Some(reply) if reply.text("/data/hash").as_deref() != Some(hash) => {
                Err(unreadable("OpenRouter answered another key than was asked for"))
            }
            reply => Ok(reply),
        }
    }
}
