//! OpenRouter: keys whose names are not unique and whose secret is told once.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fault::Provider;
use crate::request::{Answer, Request};
use crate::world::{Moment, World, now};

pub(crate) const OPERATIONS: &[&str] = &["createKeys", "list", "getKey", "deleteKeys"];

/// The management key.
pub const MANAGEMENT_KEY: &str = "sk-or-mgmt-sandbox-8d14c5e2a7f0";

const PAGE: usize = 100;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) hash: String,
    pub(crate) name: String,
    pub(crate) limit: Value,
    label: String,
    created_at: Moment,
    expires_at: Value,
    listed_from: Moment,
    pub(crate) gone_from: Option<Moment>,
}

impl Key {
    pub(crate) fn is_there(&self) -> bool {
        self.gone_from.is_none_or(|gone| gone > now())
    }

    fn json(&self) -> Value {
        json!({"hash": self.hash, "name": self.name, "label": self.label, "disabled": false, "limit": self.limit,
            "limit_remaining": self.limit, "usage": 0, "created_at": self.created_at.to_string(), "updated_at": null,
            "expires_at": self.expires_at})
    }
}

pub(crate) fn operation(request: &Request) -> Option<&'static str> {
    match (request.method.as_str(), request.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice()) {
        ("POST", ["keys"]) => Some("createKeys"),
        ("GET", ["keys"]) => Some("list"),
        ("GET", ["keys", _]) => Some("getKey"),
        ("DELETE", ["keys", _]) => Some("deleteKeys"),
        _ => None,
    }
}

pub(crate) fn error(status: u16, message: &str) -> Answer {
    Answer::json(status, json!({"error": {"code": status, "message": message}}))
}

pub(crate) fn act(world: &mut World, operation: &'static str, request: &Request) -> Answer {
    if request.bearer() != Some(MANAGEMENT_KEY) {
        return error(401, "User not found.");
    }
    match operation {
        "createKeys" => create(world, request),
        "list" => list(world, request),
        "getKey" => {
            match world.keys.iter().find(|key| request.path.get(1) == Some(&key.hash) && key.is_there()) {
                Some(key) => Answer::json(200, json!({"data": key.json()})),
                None => error(404, "Resource not found"),
            }
        }
        _ => delete(world, request),
    }
}

fn create(world: &mut World, request: &Request) -> Answer {
    let Some(name) = request.text("/name").filter(|name| !name.is_empty()) else {
        return error(400, "name is required");
    };
    let secret = format!("sk-or-v1-{}", world.dice.hex(64));
    let label =
        format!("{}...{}", secret.get(..12).unwrap_or_default(), secret.get(70..).unwrap_or_default());
    let key = Key {
        hash: world.dice.hex(64),
        name,
        limit: request.body.get("limit").cloned().unwrap_or(Value::Null),
        label,
        created_at: now(),
        expires_at: request.body.get("expires_at").cloned().unwrap_or(Value::Null),
        listed_from: world.listed_from(Provider::Openrouter, "createKeys"),
        gone_from: None,
    };
    world.secrets.push(secret.clone());
    let answer = Answer::json(201, json!({"data": key.json(), "key": secret}));
    world.keys.push(key);
    answer
}

fn list(world: &World, request: &Request) -> Answer {
    let offset: usize = request.query.get("offset").and_then(|offset| offset.parse().ok()).unwrap_or(0);
    let listed = world.keys.iter().rev().filter(|key| key.is_there() && key.listed_from <= now());
    let page: Vec<Value> = listed.skip(offset).take(PAGE).map(Key::json).collect();
    Answer::json(200, json!({"data": page}))
}

fn delete(world: &mut World, request: &Request) -> Answer {
    let gone = world.gone_from(Provider::Openrouter, "deleteKeys");
    let denied = world.denies_delete(Provider::Openrouter, "deleteKeys");
    match world.keys.iter_mut().find(|key| request.path.get(1) == Some(&key.hash) && key.is_there()) {
        Some(key) => {
            key.gone_from = Some(key.gone_from.map_or(gone, |before| before.min(gone)));
            if denied {
                error(404, "Resource not found")
            } else {
                Answer::json(200, json!({"deleted": true}))
            }
        }
        None => error(404, "Resource not found"),
    }
}
