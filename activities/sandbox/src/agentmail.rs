//! AgentMail: inboxes; a create under a known `client_id` answers the first one.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Moment;
use crate::fault::{Kind, Provider};
use crate::request::{Answer, Request};
use crate::world::World;

pub(crate) const OPERATIONS: &[&str] =
    &["createInbox", "listInboxes", "getInbox", "updateInbox", "deleteInbox"];

/// The organisation's key.
pub const KEY: &str = "am_sandbox_51be07c9d2f84a";

const PAGE: usize = 50;
/// The most keys of metadata, and characters of a key or a value.
const METADATA_MAX: usize = 256;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Inbox {
    pub(crate) address: String,
    pub(crate) client_id: Option<String>,
    pub(crate) display_name: Value,
    pub(crate) metadata: Value,
    created_at: Moment,
    updated_at: Moment,
    listed_from: Moment,
    pub(crate) gone_from: Option<Moment>,
}

impl Inbox {
    pub(crate) fn is_there(&self, now: Moment) -> bool {
        self.gone_from.is_none_or(|gone| gone > now)
    }

    fn json(&self) -> Value {
        let mut inbox = json!({"pod_id": "pod-sandbox", "inbox_id": self.address, "email": self.address,
            "created_at": self.created_at.to_string(), "updated_at": self.updated_at.to_string()});
        // What it has not is left out.
        let optional = [("display_name", &self.display_name), ("metadata", &self.metadata)];
        for (name, value) in optional.into_iter().filter(|(_, value)| !value.is_null()) {
            inbox[name] = value.clone();
        }
        if let Some(client_id) = &self.client_id {
            inbox["client_id"] = client_id.as_str().into();
        }
        inbox
    }
}

pub(crate) fn operation(request: &Request) -> Option<&'static str> {
    match (request.method.as_str(), request.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice()) {
        ("POST", ["inboxes"]) => Some("createInbox"),
        ("GET", ["inboxes"]) => Some("listInboxes"),
        ("GET", ["inboxes", _]) => Some("getInbox"),
        ("PATCH", ["inboxes", _]) => Some("updateInbox"),
        ("DELETE", ["inboxes", _]) => Some("deleteInbox"),
        _ => None,
    }
}

pub(crate) fn error(status: u16, code: &str, message: &str) -> Answer {
    let name = match status {
        400 => "ValidationError",
        401 => "UnauthorizedError",
        403 => "IsTakenError",
        404 => "NotFoundError",
        429 => "RateLimitError",
        _ => "InternalError",
    };
    let mut body = json!({"name": name, "code": code, "message": message});
    if status == 400 {
        body["errors"] = json!([{"path": [], "message": message}]);
    }
    Answer::json(status, body)
}

pub(crate) fn act(world: &mut World, operation: &'static str, request: &Request) -> Answer {
    if request.bearer() != Some(KEY) {
        return error(401, "unknown_api_key", "The API key is not known");
    }
    let named = request.path.get(1).cloned().unwrap_or_default();
    let now = world.now();
    match operation {
        "createInbox" => create(world, request),
        "listInboxes" => list(world, request),
        "getInbox" => {
            match world.inboxes.iter().find(|inbox| inbox.address == named && inbox.is_there(now)) {
                Some(inbox) => Answer::json(200, inbox.json()),
                None => error(404, "not_found", "Inbox not found"),
            }
        }
        "updateInbox" => update(world, &named, request),
        _ => delete(world, &named),
    }
}

/// What is wrong with the fields of an inbox, if something is. To clear is to update.
fn problem(body: &Value, can_clear: bool) -> Option<&'static str> {
    let is_text = |name: &str| body.get(name).is_none_or(Value::is_string);
    if !(body.is_object() || body.is_null() && !can_clear) {
        return Some("the body is not an object");
    }
    if !["username", "domain", "display_name", "client_id"].into_iter().all(is_text) {
        return Some("a field is not a text");
    }
    let is_short = |text: &str| text.chars().count() <= METADATA_MAX;
    let fits = |(name, value): (&String, &Value)| {
        is_short(name)
            && match value {
                Value::String(text) => is_short(text),
                Value::Null => can_clear,
                other => other.is_number() || other.is_boolean(),
            }
    };
    match body.get("metadata") {
        None => None,
        Some(Value::Null) if can_clear => None,
        Some(Value::Object(all)) if all.len() <= METADATA_MAX && all.iter().all(fits) => None,
        Some(_) => Some("metadata is not a small map of texts, numbers and flags"),
    }
}

fn create(world: &mut World, request: &Request) -> Answer {
    let now = world.now();
    if let Some(problem) = problem(&request.body, false) {
        return error(400, "validation_error", problem);
    }
    let client_id = request.text("/client_id");
    if let Some(id) = &client_id {
        let fits = id.len() <= 256
            && id.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._~".contains(letter));
        if id.is_empty() || !fits {
            return error(400, "validation_error", "client_id has characters it may not have");
        }
        let known = world.inboxes.iter().rev().find(|inbox| inbox.client_id.as_ref() == Some(id));
        let is_forgotten = known.is_some_and(|inbox| !inbox.is_there(now))
            && world.faults.take(Provider::Agentmail, "createInbox", Kind::ClientIdForgotten).is_some();
        if let Some(known) = known.filter(|_| !is_forgotten) {
            return Answer::json(200, known.json());
        }
    }
    let username = request.text("/username").unwrap_or_else(|| format!("inbox{}", world.dice.hex(8)));
    let domain = request.text("/domain").unwrap_or_else(|| "agentmail.to".to_owned());
    let address = format!("{username}@{domain}");
    if world.inboxes.iter().any(|inbox| inbox.address == address && inbox.is_there(now)) {
        return error(403, "resource_taken", "This address is taken");
    }
    let inbox = Inbox {
        address,
        client_id,
        display_name: request.body.get("display_name").cloned().unwrap_or(Value::Null),
        metadata: request.body.get("metadata").cloned().unwrap_or(Value::Null),
        created_at: now,
        updated_at: now,
        listed_from: world.listed_from(Provider::Agentmail, "createInbox"),
        gone_from: None,
    };
    let answer = Answer::json(200, inbox.json());
    world.inboxes.push(inbox);
    answer
}

fn list(world: &World, request: &Request) -> Answer {
    let now = world.now();
    let limit = request.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(PAGE).min(PAGE);
    let start: usize = request.query.get("page_token").and_then(|token| token.parse().ok()).unwrap_or(0);
    let mut listed: Vec<&Inbox> =
        world.inboxes.iter().rev().filter(|inbox| inbox.is_there(now) && inbox.listed_from <= now).collect();
    if request.query.get("ascending").is_some_and(|value| value == "true") {
        listed.reverse();
    }
    let page: Vec<Value> = listed.iter().skip(start).take(limit).map(|inbox| inbox.json()).collect();
    let end = start.saturating_add(page.len());
    let mut answer = json!({"count": page.len(), "limit": limit, "inboxes": page});
    if end < listed.len() {
        answer["next_page_token"] = end.to_string().into();
    }
    Answer::json(200, answer)
}

fn update(world: &mut World, address: &str, request: &Request) -> Answer {
    let now = world.now();
    let is_ignored = |world: &mut World| {
        world.faults.take(Provider::Agentmail, "updateInbox", Kind::UpdateIgnored).is_some()
    };
    if let Some(problem) = problem(&request.body, true) {
        return error(400, "validation_error", problem);
    }
    let (display_name, metadata) = (request.body.get("display_name"), request.body.get("metadata"));
    let is_empty = metadata.and_then(Value::as_object).is_some_and(serde_json::Map::is_empty);
    if is_empty || display_name.is_none() && metadata.is_none() {
        return error(400, "validation_error", "nothing is to be changed");
    }
    let is_it = |inbox: &Inbox| inbox.address == address && inbox.is_there(now);
    let Some(index) = world.inboxes.iter().position(is_it) else {
        return error(404, "not_found", "Inbox not found");
    };
    let mut inbox = world.inboxes[index].clone();
    if let Some(name) = display_name {
        inbox.display_name = name.clone();
    }
    match metadata {
        Some(Value::Object(given)) => {
            let mut all = inbox.metadata.as_object().cloned().unwrap_or_default();
            all.extend(given.clone());
            all.retain(|_, value| !value.is_null());
            inbox.metadata = Value::Object(all);
        }
        Some(_) => inbox.metadata = Value::Null,
        None => {}
    }
    inbox.updated_at = now;
    let answer = Answer::json(200, inbox.json());
    if !is_ignored(world) {
        world.inboxes[index] = inbox;
    }
    answer
}

fn delete(world: &mut World, address: &str) -> Answer {
    let now = world.now();
    let is_it = |inbox: &Inbox| inbox.address == address && inbox.is_there(now);
    let Some(index) = world.inboxes.iter().position(is_it) else {
        return error(404, "not_found", "Inbox not found");
    };
    let deleting = world.deleting(Provider::Agentmail, "deleteInbox");
    deleting.apply(&mut world.inboxes[index].gone_from);
    if deleting.is_denied { error(404, "not_found", "Inbox not found") } else { Answer::empty(204) }
}
