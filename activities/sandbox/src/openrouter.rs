//! OpenRouter: keys whose names are not unique and whose secret is told once.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Moment;
use crate::fault::{Kind, Provider};
use crate::request::{Answer, Request};
use crate::runtime::fingerprint;
use crate::world::World;

pub(crate) const OPERATIONS: &[&str] = &["createKeys", "list", "getKey", "updateKeys", "deleteKeys"];

/// The management key.
pub const MANAGEMENT_KEY: &str = "sk-or-mgmt-sandbox-8d14c5e2a7f0";

pub(crate) const PAGE: usize = 100;
/// The one workspace that there is: the default.
const WORKSPACE: &str = "0b5c1f0e-6a3d-5d0e-9c1a-2f6d8e4b7a90";
const RESETS: &[&str] = &["daily", "weekly", "monthly"];

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) hash: String,
    pub(crate) name: String,
    pub(crate) limit: Value,
    label: String,
    pub(crate) disabled: bool,
    /// Of its secret: by it a container's key is known.
    pub(crate) secret: u64,
    limit_reset: Value,
    include_byok_in_limit: bool,
    created_at: Moment,
    updated_at: Option<Moment>,
    expires_at: Value,
    listed_from: Moment,
    pub(crate) gone_from: Option<Moment>,
}

impl Key {
    pub(crate) fn is_there(&self, now: Moment) -> bool {
        self.gone_from.is_none_or(|gone| gone > now)
    }

    fn json(&self) -> Value {
        json!({"hash": self.hash, "name": self.name, "label": self.label, "disabled": self.disabled,
            "limit": self.limit, "limit_remaining": self.limit, "limit_reset": self.limit_reset,
            "include_byok_in_limit": self.include_byok_in_limit, "usage": 0, "usage_daily": 0, "usage_weekly": 0,
            "usage_monthly": 0, "byok_usage": 0, "byok_usage_daily": 0, "byok_usage_weekly": 0,
            "byok_usage_monthly": 0, "created_at": self.created_at.to_string(),
            "updated_at": self.updated_at.map(|at| at.to_string()), "expires_at": self.expires_at,
            "last_used_at": null, "creator_user_id": "user_sandbox", "external_user": null,
            "workspace_id": WORKSPACE})
    }
}

pub(crate) fn operation(request: &Request) -> Option<&'static str> {
    match (request.method.as_str(), request.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice()) {
        ("POST", ["keys"]) => Some("createKeys"),
        ("GET", ["keys"]) => Some("list"),
        ("GET", ["keys", _]) => Some("getKey"),
        ("PATCH", ["keys", _]) => Some("updateKeys"),
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
    let now = world.now();
    match operation {
        "createKeys" => create(world, request),
        "list" => list(world, request),
        "getKey" => {
            match world.keys.iter().find(|key| request.path.get(1) == Some(&key.hash) && key.is_there(now)) {
                Some(key) => Answer::json(200, json!({"data": key.json()})),
                None => error(404, "Resource not found"),
            }
        }
        "updateKeys" => update(world, request),
        _ => delete(world, request),
    }
}

/// What is wrong with the fields of a key, if something is.
fn problem(body: &Value) -> Option<&'static str> {
    let fits = |name: &str, fits: fn(&Value) -> bool| body.get(name).is_none_or(fits);
    let is_moment = |value: &Value| {
        value.is_null()
            || value.as_str().is_some_and(|text| text.ends_with('Z') && text.parse::<Moment>().is_ok())
    };
    if !body.is_object() {
        return Some("the body is not an object");
    }
    if !fits("limit", |value| value.is_null() || value.as_f64().is_some_and(|limit| limit >= 0.0)) {
        return Some("limit is not a number");
    }
    if !fits("limit_reset", |value| {
        value.is_null() || value.as_str().is_some_and(|one| RESETS.contains(&one))
    }) {
        return Some("limit_reset is none of daily, weekly, monthly");
    }
    if !fits("expires_at", is_moment) {
        return Some("expires_at is not a UTC time");
    }
    let is_flag = |value: &Value| value.is_boolean();
    if !fits("include_byok_in_limit", is_flag) || !fits("disabled", is_flag) {
        return Some("a flag is neither true nor false");
    }
    None
}

fn create(world: &mut World, request: &Request) -> Answer {
    if let Some(problem) = problem(&request.body) {
        return error(400, problem);
    }
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
        disabled: false,
        secret: fingerprint(&secret),
        limit_reset: request.body.get("limit_reset").cloned().unwrap_or(Value::Null),
        include_byok_in_limit: request.body.get("include_byok_in_limit") == Some(&Value::Bool(true)),
        created_at: world.now(),
        updated_at: None,
        expires_at: request.body.get("expires_at").cloned().unwrap_or(Value::Null),
        listed_from: world.listed_from(Provider::Openrouter, "createKeys"),
        gone_from: None,
    };
    world.secrets.push_back(secret.clone());
    let answer = Answer::json(201, json!({"data": key.json(), "key": secret}));
    world.keys.push(key);
    answer
}

fn list(world: &World, request: &Request) -> Answer {
    let now = world.now();
    let offset = match request.query.get("offset").map(|offset| offset.parse::<usize>()) {
        None => 0,
        Some(Ok(offset)) => offset,
        Some(Err(_)) => return error(400, "offset is not a number"),
    };
    let with_disabled = request.query.get("include_disabled").is_some_and(|value| value == "true");
    let is_here = request.query.get("workspace_id").is_none_or(|id| id == WORKSPACE);
    let is_listed = |key: &&Key| is_here && key.is_there(now) && (with_disabled || !key.disabled);
    let listed = world.keys.iter().rev().filter(|key| is_listed(key) && key.listed_from <= now);
    let page: Vec<Value> = listed.skip(offset).take(PAGE).map(Key::json).collect();
    Answer::json(200, json!({"data": page}))
}

fn update(world: &mut World, request: &Request) -> Answer {
    if let Some(problem) = problem(&request.body) {
        return error(400, problem);
    }
    let now = world.now();
    let is_it = |key: &Key| request.path.get(1) == Some(&key.hash) && key.is_there(now);
    let Some(index) = world.keys.iter().position(is_it) else { return error(404, "Resource not found") };
    let is_ignored = world.faults.take(Provider::Openrouter, "updateKeys", Kind::UpdateIgnored).is_some();
    let mut key = world.keys[index].clone();
    let given = |name: &str| request.body.get(name).cloned();
    if let Some(name) = request.text("/name") {
        key.name = name;
    }
    key.disabled = given("disabled").map_or(key.disabled, |disabled| disabled == true);
    key.limit = given("limit").unwrap_or(key.limit.take());
    key.limit_reset = given("limit_reset").unwrap_or(key.limit_reset.take());
    key.include_byok_in_limit =
        given("include_byok_in_limit").map_or(key.include_byok_in_limit, |included| included == true);
    key.updated_at = Some(now);
    let answer = Answer::json(200, json!({"data": key.json()}));
    if !is_ignored {
        world.keys[index] = key;
    }
    answer
}

fn delete(world: &mut World, request: &Request) -> Answer {
    let now = world.now();
    let is_it = |key: &Key| request.path.get(1) == Some(&key.hash) && key.is_there(now);
    let Some(index) = world.keys.iter().position(is_it) else { return error(404, "Resource not found") };
    let deleting = world.deleting(Provider::Openrouter, "deleteKeys");
    deleting.apply(&mut world.keys[index].gone_from);
    if deleting.is_denied {
        error(404, "Resource not found")
    } else {
        Answer::json(200, json!({"deleted": true}))
    }
}
