//! Holdings: what the fakes hold, and what each container was given: hashes, names and labels, never a secret.

use serde_json::{Value, json};

use crate::openrouter::Key;
use crate::runtime::KEY_VARIABLE;
use crate::world::World;

pub(crate) fn holdings(world: &World) -> Value {
    let now = world.now();
    let there = |gone_from: Option<crate::clock::Moment>| gone_from.is_none_or(|gone| gone > now);
    let projects = world.projects.iter().filter(|project| project.is_there(now));
    let projects: Vec<Value> = projects.map(|project| project.summary(now)).collect();
    let keys = world.keys.iter().filter(|key| there(key.gone_from));
    let keys: Vec<Value> = keys
        .map(|key| json!({"hash": key.hash, "name": key.name, "limit": key.limit, "disabled": key.disabled}))
        .collect();
    let inboxes = world.inboxes.iter().filter(|inbox| there(inbox.gone_from));
    let inboxes: Vec<Value> = inboxes
        .map(|inbox| {
            json!({"address": inbox.address, "client_id": inbox.client_id, "display_name": inbox.display_name,
                "metadata": inbox.metadata})
        })
        .collect();
    let numbers = world.numbers.iter().filter(|number| there(number.gone_from));
    let numbers: Vec<Value> = numbers
        .map(|number| {
            json!({"id": number.id, "phone_number": number.phone_number, "reference": number.reference,
                "messaging_profile_id": number.profile, "order": number.order})
        })
        .collect();
    let orders: Vec<Value> = world
        .orders
        .iter()
        .map(|order| {
            json!({"id": order.id, "phone_number": order.phone_number, "reference": order.reference,
                "status": order.status(now)})
        })
        .collect();
    let profiles: Vec<Value> =
        world.profiles.iter().map(|profile| json!({"id": profile.id, "name": profile.name})).collect();
    let agents = world.containers.iter().map(|(domain, container)| {
        let secret = container.variable(KEY_VARIABLE);
        let key = world.keys.iter().find(|key| Some(key.secret) == secret).map(|Key { hash, .. }| hash);
        container.summary(domain, key.map(String::as_str), now, &world.memory)
    });
    let agents: Vec<Value> = agents.collect();
    json!({
        "railway": {"projects": projects}, "openrouter": {"keys": keys}, "agentmail": {"inboxes": inboxes},
        "telnyx": {"numbers": numbers, "orders": orders, "profiles": profiles, "taken": world.foreign_numbers},
        "runtime": {"agents": agents},
    })
}
