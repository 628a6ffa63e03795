//! Happenings: what changes without a call of ours: things that vanish, fields that drift, containers that die,
//! restart, or are taken by somebody else.

use serde_json::Value;

use crate::clock::Moment;
use crate::container::Bound;
use crate::fault::{Fault, Kind, Provider};
use crate::railway;
use crate::world::World;

/// The faults that are happenings, in the order in which they happen to one call.
pub(crate) const KINDS: [Kind; 8] = [
    Kind::Vanish,
    Kind::Drift,
    Kind::Redeploys,
    Kind::ContainerBound,
    Kind::ContainerUsed,
    Kind::JoinAccepted,
    Kind::ContainerRestarts,
    Kind::ContainerDies,
];

/// Makes it happen. `called` is the domain that is called, for a fault that names no container.
///
/// # Errors
/// There is nothing for it to happen to.
pub(crate) fn happen(world: &mut World, fault: &Fault, called: Option<&str>) -> Result<(), String> {
    let of = fault.of.as_deref();
    let is_done = match fault.fault {
        Kind::Vanish => vanish(world, fault.provider, of, called),
        Kind::Drift => {
            let value = fault.value.clone().unwrap_or(Value::Null);
            drift(world, fault.provider, of, fault.field.as_deref().unwrap_or_default(), &value)
        }
        Kind::Redeploys => {
            let ready_at = world.now();
            newest(&mut world.projects, |project| project.is_called(of, ready_at))
                .is_some_and(|project| project.redeploys(ready_at))
        }
        _ => container(world, fault, of.or(called)),
    };
    if is_done {
        return Ok(());
    }
    Err(match of {
        Some(of) => format!("{} has nothing that is called {of:?}", fault.provider),
        None => format!("{} has nothing that this can happen to", fault.provider),
    })
}

/// The newest of those that fit.
fn newest<T>(all: &mut [T], fits: impl Fn(&T) -> bool) -> Option<&mut T> {
    all.iter_mut().rev().find(|thing| fits(thing))
}

fn vanish(world: &mut World, provider: Provider, of: Option<&str>, called: Option<&str>) -> bool {
    let now = world.now();
    let is = |names: &[Option<&str>]| of.is_none_or(|of| names.contains(&Some(of)));
    let gone = |gone_from: &mut Option<Moment>| {
        *gone_from = Some(now);
        true
    };
    match provider {
        Provider::Railway => {
            let found = newest(&mut world.projects, |project| project.is_called(of, now));
            let domains = found.map(|project| {
                gone(&mut project.gone_from);
                project.hosts()
            });
            for domain in domains.iter().flatten() {
                railway::drop_container(world, domain);
            }
            domains.is_some()
        }
        Provider::Openrouter => {
            newest(&mut world.keys, |key| key.is_there(now) && is(&[Some(&key.hash), Some(&key.name)]))
                .is_some_and(|key| gone(&mut key.gone_from))
        }
        Provider::Agentmail => newest(&mut world.inboxes, |inbox| {
            inbox.is_there(now) && is(&[Some(&inbox.address), inbox.client_id.as_deref()])
        })
        .is_some_and(|inbox| gone(&mut inbox.gone_from)),
        Provider::Telnyx => {
            let profile = world
                .profiles
                .iter()
                .position(|profile| of.is_some() && is(&[Some(&profile.id), Some(&profile.name)]));
            if let Some(index) = profile {
                world.profiles.remove(index);
                return true;
            }
            newest(&mut world.numbers, |number| {
                number.is_ours(now) && is(&[Some(&number.id), Some(&number.phone_number)])
            })
            .is_some_and(|number| gone(&mut number.gone_from))
        }
        Provider::Runtime => {
            let domain = of.or(called).map(str::to_owned).or_else(|| {
                let newest = world.containers.iter().max_by_key(|(_, container)| container.deployed_at);
                newest.map(|(domain, _)| domain.clone())
            });
            domain.is_some_and(|domain| {
                let was_there = world.containers.contains_key(&domain);
                railway::drop_container(world, &domain);
                was_there
            })
        }
        Provider::Ghcr => false,
    }
}

fn drift(world: &mut World, provider: Provider, of: Option<&str>, field: &str, value: &Value) -> bool {
    let now = world.now();
    let is = |names: &[Option<&str>]| of.is_none_or(|of| names.contains(&Some(of)));
    let text = || value.as_str().map(str::to_owned);
    match provider {
        Provider::Railway => {
            let found = newest(&mut world.projects, |project| project.is_called(of, now));
            found.is_some_and(|project| project.drift(field, &text().unwrap_or_default()))
        }
        Provider::Openrouter => {
            let found =
                newest(&mut world.keys, |key| key.is_there(now) && is(&[Some(&key.hash), Some(&key.name)]));
            found.is_some_and(|key| {
                match field {
                    "limit" => key.limit = value.clone(),
                    "disabled" => key.disabled = value == &Value::Bool(true),
                    _ => key.name = text().unwrap_or_default(),
                }
                true
            })
        }
        Provider::Agentmail => {
            let found = newest(&mut world.inboxes, |inbox| {
                inbox.is_there(now) && is(&[Some(&inbox.address), inbox.client_id.as_deref()])
            });
            found.is_some_and(|inbox| {
                inbox.display_name = value.clone();
                true
            })
        }
        Provider::Telnyx => {
            let found = newest(&mut world.numbers, |number| {
                number.is_ours(now) && is(&[Some(&number.id), Some(&number.phone_number)])
            });
            found.is_some_and(|number| {
                match field {
                    "messaging_profile_id" => number.profile = text(),
                    _ => number.reference = text(),
                }
                true
            })
        }
        Provider::Ghcr | Provider::Runtime => false,
    }
}

fn container(world: &mut World, fault: &Fault, domain: Option<&str>) -> bool {
    let ready_at = world.in_seconds(fault.seconds.unwrap_or(0.0));
    let fresh = world.dice.hex(12);
    let World { containers, memory, .. } = world;
    let found = match domain {
        Some(domain) => containers.get_mut(domain).map(|container| (domain.to_owned(), container)),
        None => containers
            .iter_mut()
            .max_by_key(|(_, container)| container.deployed_at)
            .map(|(domain, container)| (domain.clone(), container)),
    };
    let Some((domain, container)) = found else { return false };
    match fault.fault {
        Kind::ContainerDies => container.dead = Some(fault.status.unwrap_or(502)),
        Kind::ContainerRestarts => {
            container.dead = None;
            container.ready_at = Some(ready_at);
        }
        Kind::ContainerBound => {
            let conversation = fault.text.clone().unwrap_or_else(|| format!("convo-{fresh}"));
            let bound = Bound { by: None, conversation, invitation: None };
            container.bind(&domain, bound, memory);
        }
        Kind::ContainerUsed => {
            memory.write(&domain, "MEMORY.md", fault.text.as_deref().unwrap_or("Something was said."));
        }
        Kind::JoinAccepted => return container.accept(&domain, memory),
        _ => return false,
    }
    true
}
