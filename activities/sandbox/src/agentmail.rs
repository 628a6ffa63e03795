//! AgentMail: inboxes; a create under a known `client_id` answers the first one.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fault::Provider;
use crate::request::{Answer, Request};
use crate::world::{Moment, World, now};

pub(crate) const OPERATIONS: &[&str] = &["createInbox", "listInboxes", "getInbox", "deleteInbox"];

/// The organisation's key.
pub const KEY: &str = "am_sandbox_51be07c9d2f84a";

const PAGE: usize = 50;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Inbox {
    pub(crate) address: String,
    pub(crate) client_id: Option<String>,
    display_name: Value,
    metadata: Value,
    created_at: Moment,
    listed_from: Moment,
    pub(crate) gone_from: Option<Moment>,
}

impl Inbox {
    pub(crate) fn is_there(&self) -> bool {
        self.gone_from.is_none_or(|gone| gone > now())
    }

    fn json(&self) -> Value {
        json!({"pod_id": "pod-sandbox", "inbox_id": self.address, "email": self.address, "display_name": self.display_name,
            "client_id": self.client_id, "metadata": self.metadata, "created_at": self.created_at.to_string(),
            "updated_at": self.created_at.to_string()})
    }
}

pub(crate) fn operation(request: &Request) -> Option<&'static str> {
    match (request.method.as_str(), request.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice()) {
        ("POST", ["inboxes"]) => Some("createInbox"),
        ("GET", ["inboxes"]) => Some("listInboxes"),
        ("GET", ["inboxes", _]) => Some("getInbox"),
        ("DELETE", ["inboxes", _]) => Some("deleteInbox"),
        _ => None,
    }
}

pub(crate) fn error(status: u16, code: &str, message: &str) -> Answer {
    Answer::json(status, json!({"name": "Error", "code": code, "message": message}))
}

pub(crate) fn act(world: &mut World, operation: &'static str, request: &Request) -> Answer {
    if request.bearer() != Some(KEY) {
        return error(401, "unknown_api_key", "The API key is not known");
    }
    let named = request.path.get(1).cloned().unwrap_or_default();
    match operation {
        "createInbox" => create(world, request),
        "listInboxes" => list(world, request),
        "getInbox" => match world.inboxes.iter().find(|inbox| inbox.address == named && inbox.is_there()) {
            Some(inbox) => Answer::json(200, inbox.json()),
            None => error(404, "not_found", "Inbox not found"),
        },
        _ => delete(world, &named),
    }
}

fn create(world: &mut World, request: &Request) -> Answer {
    let client_id = request.text("/client_id");
    if let Some(id) = &client_id {
        let fits = id.len() <= 256
            && id.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._~".contains(letter));
        if id.is_empty() || !fits {
            return error(400, "validation_error", "client_id has characters it may not have");
        }
        if let Some(known) = world.inboxes.iter().find(|inbox| inbox.client_id.as_ref() == Some(id)) {
            return Answer::json(200, known.json());
        }
    }
    let username = request.text("/username").unwrap_or_else(|| format!("inbox{}", world.dice.hex(8)));
    let address = format!("{username}@agentmail.to");
    if world.inboxes.iter().any(|inbox| inbox.address == address && inbox.is_there()) {
        return error(403, "resource_taken", "This address is taken");
    }
    let inbox = Inbox {
        address,
        client_id,
        display_name: request.body.get("display_name").cloned().unwrap_or(Value::Null),
        metadata: request.body.get("metadata").cloned().unwrap_or(Value::Null),
        created_at: now(),
        listed_from: world.listed_from(Provider::Agentmail, "createInbox"),
        gone_from: None,
    };
    let answer = Answer::json(200, inbox.json());
    world.inboxes.push(inbox);
    answer
}

fn list(world: &World, request: &Request) -> Answer {
    let limit = request.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(PAGE).min(PAGE);
    let start: usize = request.query.get("page_token").and_then(|token| token.parse().ok()).unwrap_or(0);
    let listed: Vec<&Inbox> =
        world.inboxes.iter().rev().filter(|inbox| inbox.is_there() && inbox.listed_from <= now()).collect();
    let page: Vec<Value> = listed.iter().skip(start).take(limit).map(|inbox| inbox.json()).collect();
    let end = start + page.len();
    let next = (end < listed.len()).then(|| end.to_string());
    Answer::json(200, json!({"count": page.len(), "limit": limit, "next_page_token": next, "inboxes": page}))
}

fn delete(world: &mut World, address: &str) -> Answer {
    let gone = world.gone_from(Provider::Agentmail, "deleteInbox");
    let denied = world.denies_delete(Provider::Agentmail, "deleteInbox");
    match world.inboxes.iter_mut().find(|inbox| inbox.address == address && inbox.is_there()) {
        Some(inbox) => {
            inbox.gone_from = Some(inbox.gone_from.map_or(gone, |before| before.min(gone)));
            if denied { error(404, "not_found", "Inbox not found") } else { Answer::empty(204) }
        }
        None => error(404, "not_found", "Inbox not found"),
    }
}
