//! Telnyx: numbers that are searched, ordered, filled later, and given a messaging profile.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fault::Provider;
use crate::request::{Answer, Request};
use crate::world::{Moment, World, later, now};

pub(crate) const OPERATIONS: &[&str] = &[
    "listAvailablePhoneNumbers",
    "createNumberOrder",
    "listNumberOrders",
    "retrieveNumberOrder",
    "listPhoneNumbers",
    "retrievePhoneNumber",
    "updatePhoneNumber",
    "deletePhoneNumber",
    "retrieveMessagingSettings",
    "updateMessagingSettings",
    "createMessagingProfile",
    "listMessagingProfiles",
];

/// The account's key.
pub const KEY: &str = "KEYsandbox019c3fa5b6e2";

/// How long an order is pending, and how much later its number shows.
const FILL_SECONDS: f64 = 3.0;
const SHOW_SECONDS: f64 = 3.0;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Number {
    pub(crate) id: String,
    pub(crate) phone_number: String,
    pub(crate) reference: Option<String>,
    pub(crate) profile: Option<String>,
    /// It answers 404 before.
    pub(crate) shown_from: Moment,
    pub(crate) gone_from: Option<Moment>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NumberOrder {
    pub(crate) id: String,
    pub(crate) phone_number: String,
    pub(crate) reference: Option<String>,
    filled_at: Moment,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) id: String,
    pub(crate) name: String,
}

impl Number {
    pub(crate) fn is_ours(&self) -> bool {
        self.gone_from.is_none_or(|gone| gone > now())
    }

    fn is_shown(&self) -> bool {
        self.is_ours() && self.shown_from <= now()
    }

    fn json(&self) -> Value {
        json!({"id": self.id, "phone_number": self.phone_number, "status": "active", "customer_reference": self.reference,
            "messaging_profile_id": self.profile, "tags": []})
    }
}

impl NumberOrder {
    fn json(&self) -> Value {
        let status = if self.filled_at <= now() { "success" } else { "pending" };
        json!({"id": self.id, "status": status, "customer_reference": self.reference, "phone_numbers_count": 1,
            "requirements_met": true, "sub_number_orders_ids": [],
            "phone_numbers": [{"id": format!("on-{}", self.id), "phone_number": self.phone_number, "status": status}]})
    }
}

pub(crate) fn operation(request: &Request) -> Option<&'static str> {
    match (request.method.as_str(), request.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice()) {
        ("GET", ["available_phone_numbers"]) => Some("listAvailablePhoneNumbers"),
        ("POST", ["number_orders"]) => Some("createNumberOrder"),
        ("GET", ["number_orders"]) => Some("listNumberOrders"),
        ("GET", ["number_orders", _]) => Some("retrieveNumberOrder"),
        ("GET", ["phone_numbers"]) => Some("listPhoneNumbers"),
        ("GET", ["phone_numbers", _]) => Some("retrievePhoneNumber"),
        ("PATCH", ["phone_numbers", _]) => Some("updatePhoneNumber"),
        ("DELETE", ["phone_numbers", _]) => Some("deletePhoneNumber"),
        ("GET", ["phone_numbers", _, "messaging"]) => Some("retrieveMessagingSettings"),
        ("PATCH", ["phone_numbers", _, "messaging"]) => Some("updateMessagingSettings"),
        ("POST", ["messaging_profiles"]) => Some("createMessagingProfile"),
        ("GET", ["messaging_profiles"]) => Some("listMessagingProfiles"),
        _ => None,
    }
}

pub(crate) fn error(status: u16, code: &str, title: &str) -> Answer {
    Answer::json(status, json!({"errors": [{"code": code, "title": title, "detail": title}]}))
}

pub(crate) fn act(world: &mut World, operation: &'static str, request: &Request) -> Answer {
    if request.bearer() != Some(KEY) {
        return error(401, "10009", "Authentication failed");
    }
    match operation {
        "listAvailablePhoneNumbers" => available(world, request),
        "createNumberOrder" => order(world, request),
        "listNumberOrders" => {
            let reference = request.query.get("filter[customer_reference]");
            let fits = |order: &&NumberOrder| reference.is_none() || order.reference.as_ref() == reference;
            list(request, world.orders.iter().rev().filter(fits).map(NumberOrder::json).collect())
        }
        "retrieveNumberOrder" => {
            match world.orders.iter().find(|order| request.path.get(1) == Some(&order.id)) {
                Some(order) => Answer::json(200, json!({"data": order.json()})),
                None => error(404, "10005", "Resource not found"),
            }
        }
        "listPhoneNumbers" => {
            let digits = request.query.get("filter[phone_number]");
            // Digits only: anything else finds nothing.
            let fits = |number: &&Number| {
                number.is_shown()
                    && digits
                        .is_none_or(|digits| number.phone_number.trim_start_matches('+') == digits.as_str())
            };
            list(request, world.numbers.iter().filter(fits).map(Number::json).collect())
        }
        "createMessagingProfile" => profile(world, request),
        "listMessagingProfiles" => {
            let name = request.query.get("filter[name][eq]").or_else(|| request.query.get("filter[name]"));
            let fits = |profile: &&Profile| name.is_none_or(|name| profile.name == *name);
            let found = world
                .profiles
                .iter()
                .filter(fits)
                .map(|profile| json!({"id": profile.id, "name": profile.name}));
            list(request, found.collect())
        }
        _ => number(world, operation, request),
    }
}

fn list(request: &Request, all: Vec<Value>) -> Answer {
    let number = |name: &str, without: usize| {
        request
            .query
            .get(name)
            .and_then(|value| value.parse().ok())
            .filter(|value| *value > 0)
            .unwrap_or(without)
    };
    let (page, size) = (number("page[number]", 1), number("page[size]", 20).min(250));
    let total = all.len();
    let data: Vec<Value> = all.into_iter().skip((page - 1).saturating_mul(size)).take(size).collect();
    let meta = json!({"page_number": page, "page_size": size, "total_results": total, "total_pages": total.div_ceil(size)});
    Answer::json(200, json!({"data": data, "meta": meta}))
}

fn available(world: &mut World, request: &Request) -> Answer {
    let limit =
        request.query.get("filter[limit]").and_then(|limit| limit.parse().ok()).unwrap_or(20).min(100);
    let mut found = Vec::new();
    while found.len() < limit {
        let phone_number = format!("+1312555{:04}", world.dice.below(10_000));
        let is_sold =
            world.numbers.iter().any(|number| number.phone_number == phone_number && number.is_ours());
        if is_sold && world.numbers.len() < 9_000 {
            continue;
        }
        found.push(json!({"phone_number": phone_number, "features": [{"name": "sms"}], "reservable": true,
            "cost_information": {"upfront_cost": "1.00", "monthly_cost": "1.00", "currency": "USD"}}));
    }
    Answer::json(200, json!({"data": found, "meta": {"total_results": limit, "best_effort_results": 0}}))
}

fn order(world: &mut World, request: &Request) -> Answer {
    let Some(phone_number) = request.text("/phone_numbers/0/phone_number") else {
        return error(400, "10015", "phone_numbers is required");
    };
    if world.numbers.iter().any(|number| number.phone_number == phone_number && number.is_ours()) {
        return error(422, "85001", "The number is not available any more");
    }
    let reference = request.text("/customer_reference");
    let filled_at = later(world.paced(FILL_SECONDS));
    let shown_from = later(world.paced(FILL_SECONDS + SHOW_SECONDS));
    let id = format!("{}{:09}", 1 + world.dice.below(9), world.dice.below(1_000_000_000));
    world.numbers.push(Number {
        id,
        phone_number: phone_number.clone(),
        reference: None,
        profile: None,
        shown_from,
        gone_from: None,
    });
    let order = NumberOrder { id: world.dice.uuid(), phone_number, reference, filled_at };
    let answer = Answer::json(200, json!({"data": order.json()}));
    world.orders.push(order);
    answer
}

fn profile(world: &mut World, request: &Request) -> Answer {
    let (Some(name), Some(_)) = (request.text("/name"), request.body.get("whitelisted_destinations")) else {
        return error(400, "10015", "name and whitelisted_destinations are required");
    };
    let profile = Profile { id: world.dice.uuid(), name };
    let answer = Answer::json(200, json!({"data": {"id": profile.id, "name": profile.name}}));
    world.profiles.push(profile);
    answer
}

fn number(world: &mut World, operation: &'static str, request: &Request) -> Answer {
    let gone = world.gone_from(Provider::Telnyx, "deletePhoneNumber");
    let wanted = request.path.get(1).cloned().unwrap_or_default();
    let profiles: Vec<String> = world.profiles.iter().map(|profile| profile.id.clone()).collect();
    let found = world
        .numbers
        .iter_mut()
        .find(|number| (number.id == wanted || number.phone_number == wanted) && number.is_shown());
    let Some(number) = found else { return error(404, "10005", "Resource not found") };
    match operation {
        "updatePhoneNumber" => {
            if request.body.get("messaging_profile_id").is_some() {
                return error(422, "10015", "The field messaging_profile_id is not reachable here");
            }
            if let Some(reference) = request.text("/customer_reference") {
                number.reference = Some(reference);
            }
        }
        "deletePhoneNumber" => number.gone_from = Some(gone),
        "updateMessagingSettings" => match request.text("/messaging_profile_id") {
            Some(none) if none.is_empty() => number.profile = None,
            Some(profile) if profiles.contains(&profile) => number.profile = Some(profile),
            Some(_) => return error(404, "10005", "Messaging profile not found"),
            None => {}
        },
        _ => {}
    }
    Answer::json(200, json!({"data": number.json()}))
}
