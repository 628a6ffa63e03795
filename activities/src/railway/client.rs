//! Railway's client: one GraphQL field at a time, with the tokens of a workspace in turns.

use amends_engine::Failure;
use amends_engine::activity::Cause;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::answers;
use super::tokens::{Token, Tokens};
use crate::answer::outcome::denied;
use crate::answer::{Answered, Operation, unreadable};
use crate::http::walk::Walk;
use crate::http::{self, Http};

/// Railway, by workspace and token.
pub struct Railway {
    url: String,
    tokens: Tokens,
    pub(crate) http: Http,
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
pub(crate) const PAGE: u32 = 100;

impl Railway {
    /// Railway at this URL, with tokens for each workspace. Several of one workspace take turns, and one that Railway
    /// refuses is set aside.
    pub fn new(url: impl Into<String>, tokens: Vec<(String, SecretString)>) -> Self {
        Self { url: url.into(), tokens: Tokens::new(tokens), http: Http::new() }
    }

    /// The workspaces that there are tokens for.
    pub fn workspaces(&self) -> Vec<String> {
        self.tokens.workspaces()
    }

    /// Asks for the one field that the operation is named after.
    pub(crate) async fn call(
        &self,
        operation: &'static Operation,
        workspace: &str,
        query: &str,
        variables: Value,
    ) -> Result<Answered, Failure> {
        let mut refused = Failure::Unavailable {
            cause: Cause::Credential,
            detail: "there is no token for this workspace".to_owned(),
            retry_after: None,
        };
        // A token that is refused did nothing, so that the next one may ask for the same.
        for token in self.tokens.of(workspace) {
            match self.call_by(token, operation, query, &variables).await {
                Err(failure @ Failure::Unavailable { cause: Cause::Credential, .. }) => {
                    token.set_aside();
                    refused = failure;
                }
                answered => return answered,
            }
        }
        Err(refused)
    }

    async fn call_by(
        &self,
        token: &Token,
        operation: &'static Operation,
        query: &str,
        variables: &Value,
    ) -> Result<Answered, Failure> {
        let answered = self.send(token, operation, query, variables).await?;
        if !matches!(answered, Answered::Ambiguous) || operation.name == answers::API_TOKEN.name {
            return Ok(answered);
        }
        // "Not Authorized" is a token that is revoked, a thing of somebody else's, or one that is gone. That the same
        // token works elsewhere rules out the first; otherwise a revoked token would mark the whole fleet as deleted.
        // And that it is one of this workspace rules out that it was looked for with somebody else's eyes.
        match self.send(token, &answers::API_TOKEN, API_TOKEN, &Value::Null).await? {
            Answered::Done(mut good) => {
                let known = good.rows("/workspaces");
                if known.iter().any(|one| one["id"] == token.workspace.as_str()) {
                    return Ok(Answered::Ambiguous);
                }
                Err(Failure::Unavailable {
                    cause: Cause::Credential,
                    detail: "railway's token is good, and not one of this workspace".to_owned(),
                    retry_after: None,
                })
            }
            _ => Err(Failure::Unavailable {
                cause: Cause::Credential,
                detail: "railway refused the credential (Not Authorized)".to_owned(),
                retry_after: None,
            }),
        }
    }

    async fn send(
        &self,
        token: &Token,
        operation: &'static Operation,
        query: &str,
        variables: &Value,
    ) -> Result<Answered, Failure> {
        let request = self.http.request(operation, Method::POST, &self.url)?;
        let request = request.bearer_auth(token.secret.expose_secret());
        http::send(operation, request.json(&json!({"query": query, "variables": variables}))).await
    }

    /// Every project of a workspace, through all pages, newest first.
    pub(crate) async fn projects(&self, workspace: &str) -> Result<Vec<Listed>, Failure> {
        let (mut all, mut walk, mut after) = (Vec::new(), Walk::new("projects"), Value::Null);
        loop {
            let variables = json!({"workspaceId": workspace, "first": PAGE, "after": after});
            let mut page = self.call(&answers::PROJECTS, workspace, PROJECTS, variables).await?.done()?;
            let next = next_page(&page.body, "/pageInfo")?;
            let nodes: Vec<Value> =
                page.rows("/edges").into_iter().map(|mut edge| edge["node"].take()).collect();
            walk.read(nodes.len())?;
            let field = |node: &Value, name: &str| {
                node.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            all.extend(nodes.iter().filter(|node| node["deletedAt"].is_null()).map(|node| Listed {
                id: field(node, "id"),
                name: field(node, "name"),
                description: field(node, "description"),
                created_at: field(node, "createdAt"),
            }));
            let Some(cursor) = next else { return Ok(all) };
            walk.goes_to(&cursor)?;
            after = cursor.into();
        }
    }

    /// A project; nothing where Railway's own words say that there is none, or that it was deleted.
    pub(crate) async fn project(&self, workspace: &str, id: &str) -> Result<Option<Value>, Failure> {
        match self.project_or_not(workspace, id).await? {
            Answered::Ambiguous => Err(denied("Railway does not authorize what is asked of the project")),
            answered => Ok(answered.found()?.map(|reply| reply.body)),
        }
    }

    async fn project_or_not(&self, workspace: &str, id: &str) -> Result<Answered, Failure> {
        let answered = self.call(&answers::PROJECT, workspace, PROJECT, json!({"id": id})).await?;
        match &answered {
            Answered::Done(reply) if reply.body["id"] != id => {
                Err(unreadable("Railway answered another project than was asked for"))
            }
            Answered::Done(reply) if !reply.body["deletedAt"].is_null() => Ok(Answered::Gone),
            _ => Ok(answered),
        }
    }

    /// Whether a project is gone. A project that the token may not see counts as gone when the token is good: it was
    /// ours, and nobody gives one away.
    pub(crate) async fn is_gone(&self, workspace: &str, id: &str) -> Result<bool, Failure> {
        Ok(self.visible(workspace, id).await?.is_none())
    }

    /// A project, as far as a good token may see it.
    pub(crate) async fn visible(&self, workspace: &str, id: &str) -> Result<Option<Value>, Failure> {
        match self.project_or_not(workspace, id).await? {
            Answered::Gone | Answered::Ambiguous => Ok(None),
            answered => answered.done().map(|reply| Some(reply.body)),
        }
    }

    /// Asks for a project to be deleted; one that is not there is deleted. What is answered is no proof of it.
    pub(crate) async fn delete(&self, workspace: &str, id: &str) -> Result<(), Failure> {
        if self.is_gone(workspace, id).await? {
            return Ok(());
        }
        match self.call(&answers::PROJECT_DELETE, workspace, PROJECT_DELETE, json!({"id": id})).await? {
            Answered::Gone => Ok(()),
            Answered::Ambiguous if self.is_gone(workspace, id).await? => Ok(()),
            answered => answered.done().map(drop),
        }
    }
}

/// Where the next page begins, if there is one. The last page has a cursor too.
pub(crate) fn next_page(body: &Value, at: &str) -> Result<Option<String>, Failure> {
    let info = body.pointer(at).unwrap_or(&Value::Null);
    if info["hasNextPage"] != true {
        return Ok(None);
    }
    match info["endCursor"].as_str() {
        Some(cursor) if !cursor.is_empty() => Ok(Some(cursor.to_owned())),
        _ => Err(unreadable("a page says that another follows, and not where")),
    }
}
