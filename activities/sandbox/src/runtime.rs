//! Runtime: the agent in a deployed container, which answers under its domain once it has booted.

use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::{Moment, after};
use crate::container::{Bound, Container, Pending, Provisioned};
use crate::fault::{Kind, Preset, Provider};
use crate::request::{Answer, Request};
use crate::world::World;

pub(crate) const OPERATIONS: &[&str] = &[
    "health",
    "provision",
    "updateTemplate",
    "status",
    "createConversation",
    "join",
    "send",
    "notify",
    "reset",
];

/// The variable that carries the bearer token of the container.
pub const TOKEN_VARIABLE: &str = "AMENDS_INSTANCE_TOKEN";
/// The variable that carries the key which it pays its model with.
pub(crate) const KEY_VARIABLE: &str = "OPENROUTER_API_KEY";

/// What stands for a secret where it is only compared.
pub fn fingerprint(text: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(text, &mut hasher);
    std::hash::Hasher::finish(&hasher)
}

pub(crate) fn operation(request: &Request) -> Option<&'static str> {
    // The first part of the path is the domain.
    let rest: Vec<&str> = request.path.iter().skip(1).map(String::as_str).collect();
    match (request.method.as_str(), rest.as_slice()) {
        ("GET", ["pool", "health"]) => Some("health"),
        ("POST", ["pool", "provision"]) => Some("provision"),
        ("POST", ["pool", "update-template"]) => Some("updateTemplate"),
        ("GET", ["convos", "status"]) => Some("status"),
        ("POST", ["convos", "conversation"]) => Some("createConversation"),
        ("POST", ["convos", "conversation", "send"]) => Some("send"),
        ("POST", ["convos", "join"]) => Some("join"),
        ("POST", ["convos", "reset"]) => Some("reset"),
        ("POST", ["convos", "notify"]) => Some("notify"),
        _ => None,
    }
}

/// What it says itself has a code that nothing before it writes.
pub(crate) fn error(status: u16, message: &str) -> Answer {
    let code = match status {
        401 => "runtime_unauthorized",
        409 => "runtime_bound",
        412 => "runtime_superseded",
        429 => "runtime_busy",
        503 => "runtime_starting",
        500.. => "runtime_failed",
        _ => "runtime_refused",
    };
    Answer::json(status, json!({"error": message, "code": code}))
}

/// What Railway's edge says when no application answers under a domain.
fn edge(status: u16) -> Answer {
    let preset = if status == 404 { Preset::ApplicationNotFound } else { Preset::ApplicationFailed };
    crate::proxy::plain(&preset.answer())
}

/// The conversation that an invitation leads to, however it is spelled: what counts is its last part.
pub(crate) fn invited_to(invitation: &str) -> String {
    let path = invitation.trim().split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let slug = path.rsplit('/').next().unwrap_or_default();
    format!("convo-{:012x}", fingerprint(slug) & 0xffff_ffff_ffff)
}

pub(crate) fn act(world: &mut World, operation: &'static str, request: &Request) -> Answer {
    let fresh = world.dice.hex(12);
    let now = world.now();
    let domain = request.path.first().cloned().unwrap_or_default();
    let World { containers, memory, faults, .. } = world;
    let Some(container) = containers.get_mut(&domain) else { return edge(404) };
    if let Some(status) = container.dead {
        return edge(status);
    }
    if !container.is_ready(now) {
        return match operation {
            "health" => Answer::json(503, json!({"ready": false})),
            _ => error(503, "starting"),
        };
    }
    if operation == "health" {
        let digest = container.image.split_once('@').map_or("", |(_, digest)| digest);
        return Answer::json(
            200,
            json!({"ready": true, "version": "1.0.0", "runtime": "sandbox", "digest": digest}),
        );
    }
    if request.bearer().map(fingerprint) != Some(container.variable(TOKEN_VARIABLE).unwrap_or_default()) {
        return error(401, "unauthorized");
    }
    if operation == "status" {
        return Answer::json(200, container.status(&domain, memory));
    }
    let id = request.headers.get("x-amends-operation").cloned();
    let epoch = match request.headers.get("x-amends-epoch").map(|epoch| epoch.parse::<i64>()) {
        Some(Err(_)) => return error(400, "x-amends-epoch is not a number"),
        Some(Ok(epoch)) => Some(epoch),
        None => None,
    };
    if epoch.is_some_and(|epoch| epoch < container.epoch) {
        container.note(operation, id.as_ref(), epoch, 412);
        return error(412, "an older epoch");
    }
    container.epoch = epoch.unwrap_or(container.epoch);
    if let Some((status, known)) = id.as_ref().and_then(|id| container.answered.get(id)) {
        return Answer::json(*status, known.clone());
    }
    let pending =
        if operation == "join" { faults.take(Provider::Runtime, "join", Kind::JoinPending) } else { None };
    let pending = pending.map(|fault| {
        fault.seconds.map(|seconds| after(now, Duration::try_from_secs_f64(seconds).unwrap_or_default()))
    });
    let doing = Doing { domain: &domain, id: id.as_ref(), fresh: &fresh, pending, memory, request };
    let answer = match operation {
        "provision" => provision(container, &doing),
        "updateTemplate" => update_template(container, &doing),
        "createConversation" => create_conversation(container, &doing),
        "join" => join(container, &doing),
        "reset" => {
            let stays = faults.take(Provider::Runtime, "reset", Kind::StaysDirty);
            reset(container, &doing, stays.map(|fault| fault.keep.is_none()))
        }
        _ => message(container, &doing),
    };
    container.note(operation, id.as_ref(), epoch, answer.status);
    if let (Some(id), 200..300, Some(body)) = (id, answer.status, &answer.body) {
        container.answered.insert(id, (answer.status, body.clone()));
    }
    answer
}

struct Doing<'d> {
    domain: &'d str,
    id: Option<&'d String>,
    fresh: &'d str,
    /// A join waits for a human; until then, if it is said.
    pending: Option<Option<Moment>>,
    memory: &'d crate::memory::Memory,
    request: &'d Request,
}

fn provision(container: &mut Container, doing: &Doing<'_>) -> Answer {
    let (Some(name), Some(instructions)) =
        (doing.request.text("/agentName"), doing.request.text("/instructions"))
    else {
        return error(400, "agentName and instructions are required");
    };
    if container.is_taken() {
        return error(409, "already bound");
    }
    // It is written down before anything is joined: a join that fails leaves it behind.
    doing.memory.write(doing.domain, "IDENTITY.md", &format!("{name}\n{instructions}"));
    container.provisioned = Some(Provisioned { by: doing.id.cloned(), body: doing.request.body.clone() });
    match doing.request.text("/joinUrl") {
        Some(invitation) => take(container, doing, &invitation),
        None => Answer::json(200, json!({"ok": true})),
    }
}

fn update_template(container: &mut Container, doing: &Doing<'_>) -> Answer {
    let Some(Provisioned { body: Value::Object(known), .. }) = &mut container.provisioned else {
        return error(400, "not provisioned");
    };
    for name in ["agentName", "instructions", "metadata"] {
        if let Some(value) = doing.request.body.get(name) {
            known.insert(name.to_owned(), value.clone());
        }
    }
    doing.memory.write(doing.domain, "IDENTITY.md", &Value::Object(known.clone()).to_string());
    Answer::json(200, json!({"ok": true}))
}

fn create_conversation(container: &mut Container, doing: &Doing<'_>) -> Answer {
    if container.is_taken() {
        return error(409, "already bound");
    }
    let (slug, conversation) = (doing.fresh, invited_to(doing.fresh));
    let invitation = format!("https://convos.sandbox/join/{slug}");
    let bound = Bound {
        by: doing.id.cloned(),
        conversation: conversation.clone(),
        invitation: Some(invitation.clone()),
    };
    container.bind(doing.domain, bound, doing.memory);
    Answer::json(
        200,
        json!({"conversationId": conversation, "inviteUrl": invitation, "inviteSlug": slug, "status": "created"}),
    )
}

fn join(container: &mut Container, doing: &Doing<'_>) -> Answer {
    match doing.request.text("/inviteUrl") {
        Some(invitation) if !invitation.trim().is_empty() => take(container, doing, &invitation),
        _ => error(400, "inviteUrl is required"),
    }
}

/// Takes an invitation, or waits for a human who lets it in.
fn take(container: &mut Container, doing: &Doing<'_>, invitation: &str) -> Answer {
    if container.is_taken() {
        return error(409, "already bound");
    }
    let conversation = invited_to(invitation);
    let bound = Bound {
        by: doing.id.cloned(),
        conversation: conversation.clone(),
        invitation: Some(invitation.to_owned()),
    };
    if let Some(accepted_at) = doing.pending {
        container.pending = Some(Pending { bound, accepted_at });
        return Answer::json(200, json!({"ok": true, "status": "pending_acceptance"}));
    }
    container.bind(doing.domain, bound, doing.memory);
    Answer::json(
        200,
        json!({"ok": true, "status": "joined", "joined": true, "conversationId": conversation,
            "inviteUrl": invitation}),
    )
}

/// Empties it. `stays` is a reset that does not: whether all of it stays, or only the memory.
fn reset(container: &mut Container, doing: &Doing<'_>, stays: Option<bool>) -> Answer {
    if stays != Some(true) {
        container.provisioned = None;
        container.bound = None;
        container.pending = None;
    }
    if stays.is_none() {
        doing.memory.clear(doing.domain);
    }
    Answer::json(200, json!({"ok": true, "reset": true}))
}

/// A message: what is said is remembered.
fn message(container: &Container, doing: &Doing<'_>) -> Answer {
    if container.bound.is_none() {
        return error(400, "no conversation");
    }
    let Some(text) = doing.request.text("/text") else { return error(400, "text is required") };
    doing.memory.write(doing.domain, "MEMORY.md", &text);
    Answer::json(200, json!({"ok": true}))
}
