//! Runtime: the agent in a deployed container, which answers under its domain once it has booted.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::request::{Answer, Request};
use crate::world::{Moment, World, now};

pub(crate) const OPERATIONS: &[&str] =
    &["health", "provision", "status", "createConversation", "join", "reset", "notify"];

/// The variable that carries the bearer token of the container.
pub const TOKEN_VARIABLE: &str = "AMENDS_INSTANCE_TOKEN";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Agent {
    image: String,
    /// A fingerprint: what the fakes remember is kept in a file, and no secret is.
    token: u64,
    ready_at: Option<Moment>,
    epoch: i64,
    provisioned: Option<Value>,
    pub(crate) conversation: Option<String>,
    /// What each operation id was answered.
    answered: std::collections::BTreeMap<String, Value>,
}

impl Agent {
    pub(crate) fn new(image: &str, variables: &Value, ready_at: Option<Moment>) -> Self {
        let token = variables.get(TOKEN_VARIABLE).and_then(Value::as_u64).unwrap_or_default();
        Self {
            image: image.to_owned(),
            token,
            ready_at,
            epoch: 0,
            provisioned: None,
            conversation: None,
            answered: std::collections::BTreeMap::new(),
        }
    }

    fn is_ready(&self) -> bool {
        self.ready_at.is_some_and(|at| at <= now())
    }

    fn is_clean(&self) -> bool {
        self.provisioned.is_none() && self.conversation.is_none()
    }

    pub(crate) fn summary(&self, domain: &str) -> Value {
        json!({"domain": domain, "image": self.image, "ready": self.is_ready(), "epoch": self.epoch,
            "clean": self.is_clean(), "conversation": self.conversation})
    }
}

/// What stands for a secret where it is only compared.
pub(crate) fn fingerprint(text: &str) -> u64 {
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
        ("GET", ["convos", "status"]) => Some("status"),
        ("POST", ["convos", "conversation"]) => Some("createConversation"),
        ("POST", ["convos", "join"]) => Some("join"),
        ("POST", ["convos", "reset"]) => Some("reset"),
        ("POST", ["convos", "notify"]) => Some("notify"),
        _ => None,
    }
}

pub(crate) fn error(status: u16, message: &str) -> Answer {
    Answer::json(status, json!({"error": message}))
}

pub(crate) fn act(world: &mut World, operation: &'static str, request: &Request) -> Answer {
    let fresh = format!("convo-{}", world.dice.hex(12));
    let domain = request.path.first().cloned().unwrap_or_default();
    let Some(agent) = world.agents.get_mut(&domain) else { return error(404, "Application not found") };
    if !agent.is_ready() {
        return error(503, "starting");
    }
    if operation == "health" {
        let digest = agent.image.split_once('@').map_or("", |(_, digest)| digest);
        return Answer::json(
            200,
            json!({"ready": true, "version": "1.0.0", "runtime": "sandbox", "digest": digest}),
        );
    }
    if request.bearer().map(fingerprint) != Some(agent.token) {
        return error(401, "unauthorized");
    }
    if operation == "status" {
        return Answer::json(
            200,
            json!({"conversationId": agent.conversation, "inboxId": null, "pending": false, "clean": agent.is_clean()}),
        );
    }
    if let Some(epoch) = request.headers.get("x-amends-epoch") {
        let Ok(epoch) = epoch.parse::<i64>() else { return error(400, "x-amends-epoch is not a number") };
        if epoch < agent.epoch {
            return error(412, "an older epoch");
        }
        agent.epoch = epoch;
    }
    let id = request.headers.get("x-amends-operation").cloned();
    if let Some(known) = id.as_ref().and_then(|id| agent.answered.get(id)) {
        return Answer::json(200, known.clone());
    }
    let answer = match operation {
        "provision" => {
            agent.provisioned = Some(request.body.clone());
            json!({"ok": true})
        }
        "createConversation" | "join" => {
            if agent.conversation.is_some() {
                return error(409, "already bound");
            }
            agent.conversation = Some(match request.text("/joinUrl") {
                Some(url) => url.rsplit('/').next().unwrap_or_default().to_owned(),
                None => fresh,
            });
            json!({"conversationId": agent.conversation, "status": "joined"})
        }
        "reset" => {
            agent.provisioned = None;
            agent.conversation = None;
            agent.answered.clear();
            return Answer::json(200, json!({"ok": true}));
        }
        _ => json!({"ok": true}),
    };
    if let Some(id) = id {
        agent.answered.insert(id, answer.clone());
    }
    Answer::json(200, answer)
}
