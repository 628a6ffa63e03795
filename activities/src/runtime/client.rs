//! The runtime's client: the agent in the container, under its own domain.

use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::{Call, Failure, SecretRef, secs};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::Value;

use super::answers;
use crate::answer::{Answered, Operation, Reply, unreadable};
use crate::http::{self, Http};

/// How soon a container that is not ready is asked again.
pub(crate) const ASK_AGAIN: Duration = secs(5);

/// Every agent, by its domain.
pub struct Runtime {
    /// With `{domain}` in it.
    template: String,
    pub(crate) http: Http,
}

/// What a runtime says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) conversation: Option<String>,
    pub(crate) is_pending: bool,
    pub(crate) is_clean: bool,
    /// Whose doing its conversation is; none where nobody here did it.
    pub(crate) operation: Option<String>,
    /// The claim that spoke to it last.
    pub(crate) epoch: i64,
}

impl Status {
    /// Nothing of any claim is in it: no instructions, no conversation, no join that waits, nothing remembered.
    pub(crate) fn is_vacant(&self) -> bool {
        self.is_clean && !self.is_pending && self.conversation.is_none()
    }
}

impl Runtime {
    /// Agents at `https://{domain}`, or as this template has it.
    pub fn new(template: impl Into<String>) -> Self {
        Self { template: template.into(), http: Http::new() }
    }

    /// The address of an operation: what its table says behind the method.
    fn url(&self, domain: &str, operation: &Operation) -> String {
        let path = operation.request.split_once(' ').map_or("", |(_, path)| path);
        format!("{}{path}", self.template.replace("{domain}", domain))
    }

    /// How it is; anything that is no answer of its own is not ready, and says why.
    pub(crate) async fn health(&self, domain: &str) -> Result<Reply, Failure> {
        let url = self.url(domain, &answers::HEALTH);
        let request = self.http.request(&answers::HEALTH, Method::GET, &url)?;
        match http::send(&answers::HEALTH, request).await {
            // It has not started to listen, or says 503: a container that boots is asked as often as one that is slow.
            Err(Failure::Unavailable { cause, detail, .. }) if cause != Cause::RateLimited => {
                Err(Failure::not_yet(format!("{detail} ({cause})"), ASK_AGAIN))
            }
            answered => answered?.done(),
        }
    }

    /// What it is bound to, by its own word. That nothing answers under its domain says nothing of it.
    pub(crate) async fn status(
        &self,
        domain: &str,
        token: &SecretRef,
        call: &Call,
    ) -> Result<Status, Failure> {
        let token = call.open(token).await?;
        self.status_by(domain, token.expose_secret()).await
    }

    pub(crate) async fn status_by(&self, domain: &str, token: &str) -> Result<Status, Failure> {
        let url = self.url(domain, &answers::STATUS);
        let request = self.http.request(&answers::STATUS, Method::GET, &url)?.bearer_auth(token);
        let reply = http::send(&answers::STATUS, request).await?.done()?;
        let epoch = reply.body["epoch"].as_i64();
        Ok(Status {
            conversation: reply.text("/conversationId"),
            is_pending: reply.body["pending"] == true,
            is_clean: reply.body["clean"] == true,
            operation: reply.text("/operationId"),
            epoch: epoch.ok_or_else(|| unreadable("the runtime answered an epoch that is none"))?,
        })
    }

    /// Tells it to do something, under the claim's epoch and this operation id: a repeated one gets its stored answer.
    pub(crate) async fn tell(
        &self,
        operation: &'static Operation,
        agent: Agent<'_>,
        id: &str,
        call: &Call,
        body: &Value,
    ) -> Result<Answered, Failure> {
        let token = call.open(agent.token).await?;
        self.tell_by(operation, agent.domain, token.expose_secret(), agent.epoch, id, body).await
    }

    pub(crate) async fn tell_by(
        &self,
        operation: &'static Operation,
        domain: &str,
        token: &str,
        epoch: i64,
        id: &str,
        body: &Value,
    ) -> Result<Answered, Failure> {
        let request = self
            .http
            .request(operation, Method::POST, &self.url(domain, operation))?
            .bearer_auth(token)
            .header("x-amends-operation", id)
            .header("x-amends-epoch", epoch)
            .json(body);
        http::send(operation, request).await
    }
}

/// An agent, and the claim that speaks to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agent<'a> {
    /// Where it answers, without a scheme.
    pub(crate) domain: &'a str,
    /// The instance's bearer token.
    pub(crate) token: &'a SecretRef,
    /// The claim; an older one is refused.
    pub(crate) epoch: i64,
}

/// The operation id of a call: the mark by which what it made is known. It begins with its saga, so that another saga
/// can tell whose it is; all attempts of a generation are one operation.
pub(crate) fn operation_id(call: &Call, operation: &Operation) -> String {
    format!("{}/{}/{}", call.saga(), call.key(), operation.name)
}
