//! The runtime's client: the agent in the container, under its own domain.

use amends_engine::{Call, Failure, SecretRef};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::http::{self, Reply};

/// Every agent, by its domain.
pub struct Runtime {
    /// With `{domain}` in it.
    template: String,
    http: reqwest::Client,
}

/// What a runtime says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) conversation: Option<String>,
    pub(crate) is_pending: bool,
    pub(crate) is_clean: bool,
}

impl Runtime {
    /// Agents at `https://{domain}`, or as this template has it.
    pub fn new(template: impl Into<String>) -> Self {
        Self { template: template.into(), http: http::client() }
    }

    fn url(&self, domain: &str, path: &str) -> String {
        format!("{}{path}", self.template.replace("{domain}", domain))
    }

    /// How it is; anything but 200 is not ready.
    pub(crate) async fn health(&self, domain: &str) -> Result<Option<Reply>, Failure> {
        match http::send(self.http.get(self.url(domain, "/pool/health")), http::Call::Read).await {
            Ok(reply) => Ok(reply.is_success().then_some(reply)),
            // It has not started to listen, or says 503.
            Err(Failure::Unavailable { .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// What it is bound to; nothing when there is no such container any more.
    pub(crate) async fn status(
        &self,
        domain: &str,
        token: &SecretRef,
        call: &Call,
    ) -> Result<Option<Status>, Failure> {
        let token = call.open(token).await?;
        let request = self.http.get(self.url(domain, "/convos/status")).bearer_auth(token.expose_secret());
        let reply = http::send(request, http::Call::Read).await?;
        match reply.status {
            404 => Ok(None),
            200..300 => Ok(Some(Status {
                conversation: reply.text("/conversationId"),
                is_pending: reply.body.get("pending") == Some(&Value::Bool(true)),
                is_clean: reply.body.get("clean") == Some(&Value::Bool(true)),
            })),
            status => Err(http::refused(status, "runtime", "the runtime refused its token")),
        }
    }

    /// Tells it to do something, under the claim's epoch and the call's key. 412 is for the caller: a newer claim
    /// speaks to it.
    pub(crate) async fn tell(
        &self,
        domain: &str,
        path: &str,
        token: &SecretRef,
        epoch: i64,
        call: &Call,
        body: &Value,
    ) -> Result<Reply, Failure> {
        let token = call.open(token).await?;
        let request = self
            .http
            .post(self.url(domain, path))
            .bearer_auth(token.expose_secret())
            .header("x-amends-operation", format!("{}{path}", call.key()))
            .header("x-amends-epoch", epoch)
            .json(body);
        let reply = http::send(request, http::Call::Write).await?;
        match reply.status {
            200..300 | 404 | 409 | 412 => Ok(reply),
            status => {
                let message = reply.text("/error").unwrap_or_default();
                Err(http::refused(status, "runtime", &message))
            }
        }
    }

    /// Empties it and sees that it is clean. A newer claim, or no container, is as good; and one that is bound to
    /// a conversation other than `ours` is somebody's, who is not thrown out of it.
    pub(crate) async fn reset(
        &self,
        domain: &str,
        token: &SecretRef,
        epoch: i64,
        call: &Call,
        ours: Option<&str>,
    ) -> Result<(), Failure> {
        let Some(status) = self.status(domain, token, call).await? else { return Ok(()) };
        if status.conversation.is_some() && status.conversation.as_deref() != ours {
            return Ok(());
        }
        let reply = self.tell(domain, "/convos/reset", token, epoch, call, &serde_json::json!({})).await?;
        if matches!(reply.status, 404 | 412) {
            return Ok(());
        }
        match self.status(domain, token, call).await? {
            Some(status) if !status.is_clean => Err(http::not_yet("the runtime is not clean yet")),
            _ => Ok(()),
        }
    }
}
