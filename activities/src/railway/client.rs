//! Railway's client: GraphQL in which the text of an error says what it is.
//!
//! Resolver failures come as HTTP 200 with `errors`; `extensions.code` is nearly always the same, so the message
//! decides. Texts and limits as published clients and issues of Railway's report them (October 2026).

use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::{Failure, secs};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::census::{Seen, time};
use crate::http;

/// Railway, by workspace and token.
pub struct Railway {
    url: String,
    tokens: Vec<(String, SecretString)>,
    http: reqwest::Client,
}

/// What Railway answered instead of data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Error {
    /// It is not there, or not visible yet.
    NotFound(String),
    /// Its name is taken.
    Exists(String),
    /// A bad token, or an object that is somebody else's or gone.
    NotAuthorized,
    /// Anything that is the same everywhere.
    Failed(Failure),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(message) => Failure::refused("not_found", message),
            Error::Exists(message) => Failure::refused("exists", message),
            Error::NotAuthorized => http::refused(401, "not_authorized", "Not Authorized"),
            Error::Failed(failure) => failure,
        }
    }
}

impl Error {
    /// Inside a project that we just made, what is not there is not visible yet.
    pub(crate) fn young(self) -> Failure {
        match self {
            Error::NotFound(message) => http::not_yet(&message),
            other => other.into(),
        }
    }
}

/// A project as the list shows it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) created_at: String,
}

const PROJECTS: &str = "query ProjectsPage($workspaceId: String!, $first: Int!, $after: String) { projects(workspaceId: $workspaceId, first: $first, after: $after, includeDeleted: false, orderBy: CREATED_AT_DESC) { edges { node { id name description createdAt deletedAt } } pageInfo { hasNextPage endCursor } } }";
const PROJECT: &str = "query ProjectGet($id: String!) { project(id: $id) { id name deletedAt primaryEnvironmentId services { edges { node { id name deletedAt } } } } }";
const PROJECT_DELETE: &str = "mutation ProjectDelete($id: String!) { projectDelete(id: $id) }";
const API_TOKEN: &str = "query ApiToken { apiToken { workspaces { id name } } }";
const PAGE: u32 = 100;
/// How long a workspace that made something waits before it makes the next.
pub(crate) const THROTTLE: Duration = secs(31);

impl Railway {
    /// Railway at this URL, with a token for each workspace.
    pub fn new(url: impl Into<String>, tokens: Vec<(String, SecretString)>) -> Self {
        Self { url: url.into(), tokens, http: http::client() }
    }

    /// The workspaces that there are tokens for.
    pub fn workspaces(&self) -> Vec<String> {
        self.tokens.iter().map(|(workspace, _)| workspace.clone()).collect()
    }

    pub(crate) async fn read(&self, workspace: &str, query: &str, variables: Value) -> Result<Value, Error> {
        self.send(workspace, query, variables, http::Call::Read, THROTTLE).await
    }

    pub(crate) async fn write(
        &self,
        throttle: Duration,
        workspace: &str,
        query: &str,
        variables: Value,
    ) -> Result<Value, Error> {
        self.send(workspace, query, variables, http::Call::Write, throttle).await
    }

    /// The data of the one field that is asked for.
    async fn send(
        &self,
        workspace: &str,
        query: &str,
        variables: Value,
        kind: http::Call,
        throttle: Duration,
    ) -> Result<Value, Error> {
        let token = self.tokens.iter().find(|(name, _)| name == workspace);
        let (_, token) =
            token.ok_or_else(|| http::refused(401, "no_token", "there is no token for this workspace"))?;
        let request = self.http.post(&self.url).bearer_auth(token.expose_secret());
        let reply = http::send(request.json(&json!({"query": query, "variables": variables})), kind).await?;
        match reply.text("/errors/0/message") {
            Some(message) => Err(classify(&message, reply.status, kind, throttle)),
            None if !reply.is_success() => {
                Err(http::refused(reply.status, "railway", "Railway refused").into())
            }
            None => {
                let field =
                    reply.body.get("data").and_then(Value::as_object).and_then(|data| data.values().next());
                field.cloned().ok_or_else(|| classify("Problem processing request", 200, kind, throttle))
            }
        }
    }

    /// Every project of a workspace, through all pages, newest first.
    pub(crate) async fn projects(&self, workspace: &str) -> Result<Vec<Listed>, Failure> {
        let mut all = Vec::new();
        let mut after = Value::Null;
        loop {
            let variables = json!({"workspaceId": workspace, "first": PAGE, "after": after});
            let page = self.read(workspace, PROJECTS, variables).await?;
            let edges = page.get("edges").and_then(Value::as_array).cloned().unwrap_or_default();
            let field = |node: &Value, name: &str| {
                node.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            all.extend(
                edges
                    .iter()
                    .filter_map(|edge| edge.get("node"))
                    .filter(|node| node["deletedAt"].is_null())
                    .map(|node| Listed {
                        id: field(node, "id"),
                        name: field(node, "name"),
                        description: field(node, "description"),
                        created_at: field(node, "createdAt"),
                    }),
            );
            // The last page has a cursor too.
            if page.pointer("/pageInfo/hasNextPage") != Some(&Value::Bool(true)) {
                return Ok(all);
            }
            after = page.pointer("/pageInfo/endCursor").cloned().unwrap_or(Value::Null);
        }
    }

    pub(crate) async fn project(&self, workspace: &str, id: &str) -> Result<Value, Error> {
        let project = self.read(workspace, PROJECT, json!({"id": id})).await?;
        if project.is_null() || !project["deletedAt"].is_null() {
            return Err(Error::NotFound("Project not found".to_owned()));
        }
        Ok(project)
    }

    /// Whether a project is gone. "Not Authorized" says so only if the token works elsewhere in the same minute:
    /// otherwise a revoked token would mark the whole fleet as deleted.
    pub(crate) async fn is_gone(&self, workspace: &str, id: &str) -> Result<bool, Failure> {
        match self.project(workspace, id).await {
            Ok(_) => Ok(false),
            Err(Error::NotFound(_)) => Ok(true),
            Err(Error::NotAuthorized) => {
                self.read(workspace, API_TOKEN, Value::Null).await?;
                Ok(true)
            }
            Err(Error::Failed(failure)) => Err(failure),
            Err(other) => Err(other.into()),
        }
    }

    /// Asks for a project to be deleted; one that is not there is deleted.
    pub(crate) async fn delete(&self, throttle: Duration, workspace: &str, id: &str) -> Result<(), Failure> {
        if self.is_gone(workspace, id).await? {
            return Ok(());
        }
        match self.write(throttle, workspace, PROJECT_DELETE, json!({"id": id})).await {
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(Error::NotAuthorized) if self.is_gone(workspace, id).await? => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a project and sees that it is gone.
    pub(crate) async fn delete_and_see(
        &self,
        throttle: Duration,
        workspace: &str,
        id: &str,
    ) -> Result<(), Failure> {
        self.delete(throttle, workspace, id).await?;
        if self.is_gone(workspace, id).await? {
            Ok(())
        } else {
            Err(http::not_yet("Railway still has the project"))
        }
    }

    /// Every project whose name begins with our prefix.
    pub async fn census(&self, prefix: &str) -> Result<Vec<Seen>, Failure> {
        let mut all = Vec::new();
        for workspace in self.workspaces() {
            let listed = self.projects(&workspace).await?;
            let ours = listed.into_iter().filter(|project| project.name.starts_with(prefix));
            all.extend(ours.map(|project| Seen {
                provider: "railway",
                kind: "project",
                external_id: project.id,
                name: project.name,
                created_at: time(Some(&project.created_at)),
                workspace: Some(workspace.clone()),
            }));
        }
        Ok(all)
    }

    /// Deletes what a census saw, if it still bears the name.
    pub async fn remove(&self, seen: &Seen) -> Result<(), Failure> {
        let workspace = seen.workspace.clone().unwrap_or_default();
        match self.project(&workspace, &seen.external_id).await {
            Ok(project) if project["name"] == seen.name.as_str() => {
                self.delete(THROTTLE, &workspace, &seen.external_id).await
            }
            Ok(_) => Err(Failure::refused("renamed", "it bears another name now")),
            Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a message means.
fn classify(message: &str, status: u16, kind: http::Call, throttle: Duration) -> Error {
    let has = |text: &str| message.to_lowercase().contains(text);
    let short: String = message.chars().take(200).collect();
    if has("too quickly") || has("whoa there pal") || has("every 30s") {
        return Error::Failed(Failure::Unavailable {
            cause: Cause::RateLimited,
            detail: short,
            retry_after: Some(throttle),
        });
    }
    if has("not authorized") {
        return Error::NotAuthorized;
    }
    if has("not found") {
        return Error::NotFound(short);
    }
    if has("already exists") {
        return Error::Exists(short);
    }
    if has("please wait") || has("already in progress") || has("please try again") {
        return Error::Failed(http::not_yet(&short));
    }
    if has("problem processing request") || has("upstream") {
        return Error::Failed(match kind {
            http::Call::Read => {
                Failure::Unavailable { cause: Cause::ServerError, detail: short, retry_after: None }
            }
            http::Call::Write => Failure::NoAnswer { cause: Cause::ServerError, detail: short },
        });
    }
    Error::Failed(http::refused(if status == 200 { 400 } else { status }, "railway", &short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_error_says_what_it_is() {
        let write = |message: &str| classify(message, 200, http::Call::Write, secs(31));
        let throttled =
            write("You are creating projects too quickly. This workspace allows 1 project per 30 seconds.");
        let Error::Failed(Failure::Unavailable { cause, retry_after, .. }) = throttled else { panic!() };
        assert_eq!((cause, retry_after), (Cause::RateLimited, Some(secs(31))));
        assert_eq!(write("Project not found"), Error::NotFound("Project not found".into()));
        assert_eq!(write("Not Authorized"), Error::NotAuthorized);
        assert!(matches!(write("A service named \"x\" already exists in this project"), Error::Exists(_)));
        assert!(matches!(write("Problem processing request"), Error::Failed(Failure::NoAnswer { .. })));
        assert!(matches!(write("Invalid mountPath"), Error::Failed(Failure::Refused(_))));
        let read = classify("Problem processing request", 200, http::Call::Read, secs(31));
        assert!(matches!(read, Error::Failed(Failure::Unavailable { .. })));
    }
}
