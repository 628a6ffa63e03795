//! Lists: a true list made empty, made shorter, or made to go round in circles.

use serde_json::{Value, json};

use crate::fault::operation::{Class, class};
use crate::fault::{Kind, Provider};
use crate::request::{Answer, Request};
use crate::world::World;

/// Spoils the list that this call is answered with, if a fault of lists happens to it.
pub(crate) fn spoil(
    world: &mut World,
    provider: Provider,
    operation: &'static str,
    request: &Request,
    repeats: bool,
    answer: &mut Answer,
) {
    let Some(body) = answer.body.as_mut().filter(|_| answer.status == 200) else { return };
    if items(provider, body).is_none() {
        return;
    }
    if world.faults.take(provider, operation, Kind::ListEmpty).is_some() {
        keep(provider, body, Some(0));
    } else if let Some(fault) = world.faults.take(provider, operation, Kind::ListPartial) {
        keep(provider, body, fault.keep);
    } else if repeats {
        repeat(provider, body, request);
    }
}

/// The request for the first page, if the list goes round in circles: every page is this one.
pub(crate) fn first_page(
    world: &mut World,
    provider: Provider,
    operation: &'static str,
    request: &Request,
) -> Option<Request> {
    if class(provider, operation) != Class::List {
        return None;
    }
    world.faults.take(provider, operation, Kind::ListRepeats)?;
    let mut first = request.clone();
    for cursor in ["offset", "page_token", "page[number]"] {
        first.query.remove(cursor);
    }
    if let Some(after) = first.body.pointer_mut("/variables/after") {
        *after = Value::Null;
    }
    Some(first)
}

/// What the list holds.
fn items(provider: Provider, body: &mut Value) -> Option<&mut Vec<Value>> {
    let list = match provider {
        // The call's field may have another name in the answer.
        Provider::Railway => {
            let listed = body.get_mut("data")?.as_object_mut()?.values_mut().next()?;
            let name = if listed.get("edges").is_some() { "edges" } else { "serviceDomains" };
            listed.get_mut(name)?
        }
        Provider::Openrouter | Provider::Telnyx => body.get_mut("data")?,
        Provider::Agentmail => body.get_mut("inboxes")?,
        Provider::Ghcr => body.get_mut("tags")?,
        Provider::Runtime => return None,
    };
    list.as_array_mut()
}

/// Railway's word on what follows.
fn page_info(body: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    let listed = body.get_mut("data")?.as_object_mut()?.values_mut().next()?;
    listed.get_mut("pageInfo")?.as_object_mut()
}

/// Ends the list after so many, or after half of the page, as if there were no more.
fn keep(provider: Provider, body: &mut Value, kept: Option<usize>) {
    let Some(all) = items(provider, body) else { return };
    all.truncate(kept.unwrap_or(all.len() / 2));
    let left = all.len();
    match provider {
        Provider::Railway => {
            if let Some(info) = page_info(body).filter(|info| info.contains_key("hasNextPage")) {
                info.insert("hasNextPage".to_owned(), json!(false));
            }
        }
        Provider::Agentmail => {
            body["count"] = json!(left);
            body.as_object_mut().map(|body| body.remove("next_page_token"));
        }
        Provider::Telnyx => {
            let page = body.pointer("/meta/page_number").cloned().unwrap_or_else(|| json!(1));
            if body.pointer("/meta/total_pages").is_some() {
                body["meta"]["total_pages"] = page;
            }
            body["meta"]["total_results"] = json!(left);
        }
        Provider::Openrouter | Provider::Ghcr | Provider::Runtime => {}
    }
}

/// Says that there is another page, which is this one.
fn repeat(provider: Provider, body: &mut Value, request: &Request) {
    match provider {
        Provider::Railway => {
            if let Some(info) = page_info(body) {
                info.insert("hasNextPage".to_owned(), json!(true));
                info.insert("endCursor".to_owned(), json!("1"));
            }
        }
        Provider::Agentmail => body["next_page_token"] = json!("1"),
        // A full page is what says that there is another.
        Provider::Openrouter => fill(body, crate::openrouter::PAGE),
        Provider::Telnyx => {
            let size = request.query.get("page[size]").and_then(|size| size.parse().ok()).unwrap_or(20);
            let page =
                request.query.get("page[number]").and_then(|page| page.parse::<u64>().ok()).unwrap_or(1);
            fill(body, size);
            if body.pointer("/meta/total_pages").is_some() {
                body["meta"]["page_number"] = json!(page);
                body["meta"]["total_pages"] = json!(page.saturating_add(1));
            }
        }
        Provider::Ghcr | Provider::Runtime => {}
    }
}

fn fill(body: &mut Value, size: usize) {
    if let Some(all) = body.get_mut("data").and_then(Value::as_array_mut) {
        *all = all.iter().cycle().take(size.min(1000)).cloned().collect();
    }
}
