//! Telnyx: numbers that are searched, ordered, filled later, and given a messaging profile.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::{Moment, after};
use crate::fault::{Kind, Provider};
use crate::request::{Answer, Request};
use crate::world::World;

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

const ORGANIZATION: &str = "4e1c7d2a-95b0-4f38-8a6e-0d3b9c7f5a21";

/// How long an order is pending, and how much later its number shows.
const FILL_SECONDS: f64 = 3.0;
const SHOW_SECONDS: f64 = 3.0;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Number {
    pub(crate) id: String,
    pub(crate) phone_number: String,
    pub(crate) reference: Option<String>,
    pub(crate) profile: Option<String>,
    tags: Vec<String>,
    created_at: Moment,
    /// The order that bought it.
    pub(crate) order: String,
    /// It answers 404 before.
    pub(crate) shown_from: Moment,
    pub(crate) gone_from: Option<Moment>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NumberOrder {
    pub(crate) id: String,
    pub(crate) phone_number: String,
    pub(crate) reference: Option<String>,
    profile: Option<String>,
    created_at: Moment,
    filled_at: Moment,
    /// It ends as a failure, and its number is not ours.
    fails: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) id: String,
    pub(crate) name: String,
    destinations: Value,
    created_at: Moment,
    listed_from: Moment,
}

impl Number {
    pub(crate) fn is_ours(&self, now: Moment) -> bool {
        self.gone_from.is_none_or(|gone| gone > now)
    }

    fn is_shown(&self, now: Moment) -> bool {
        self.is_ours(now) && self.shown_from <= now
    }

    fn json(&self) -> Value {
        json!({"id": self.id, "record_type": "phone_number", "phone_number": self.phone_number, "status": "active",
            "country_iso_alpha2": "US", "phone_number_type": "local", "customer_reference": self.reference,
            "messaging_profile_id": self.profile, "messaging_profile_name": null, "tags": self.tags,
            "connection_id": null, "connection_name": null, "billing_group_id": null, "external_pin": null,
            "emergency_address_id": null, "emergency_enabled": false, "emergency_status": "disabled",
            "call_forwarding_enabled": true, "call_recording_enabled": false, "caller_id_name_enabled": false,
            "cnam_listing_enabled": false, "hd_voice_enabled": false, "inbound_call_screening": "disabled",
            "t38_fax_gateway_enabled": false, "deletion_lock_enabled": false, "source_type": "number_order",
            "activated_at": self.shown_from.to_string(), "created_at": self.created_at.to_string(),
            "purchased_at": self.created_at.to_string(), "updated_at": self.created_at.to_string()})
    }

    /// A number that was deleted: what it has not is left out.
    fn deleted_json(&self) -> Value {
        let mut number = self.json();
        if let Value::Object(fields) = &mut number {
            fields.retain(|_, value| !value.is_null());
            for other in ["country_iso_alpha2", "emergency_status", "inbound_call_screening", "source_type"] {
                fields.remove(other);
            }
        }
        number["status"] = "deleted".into();
        number
    }

    fn messaging_json(&self) -> Value {
        let sms =
            json!({"domestic_two_way": true, "international_inbound": true, "international_outbound": true});
        json!({"id": self.id, "record_type": "messaging_settings", "phone_number": self.phone_number,
            "messaging_profile_id": self.profile, "messaging_product": "A2P", "traffic_type": "A2P",
            "eligible_messaging_products": ["A2P"], "country_code": "US", "type": "long-code", "tags": self.tags,
            "features": {"sms": sms, "mms": null}, "organization_id": ORGANIZATION,
            "health": {"message_count": 0, "inbound_outbound_ratio": 0.0, "success_ratio": 0.0, "spam_ratio": 0.0},
            "created_at": self.created_at.to_string(), "updated_at": self.created_at.to_string()})
    }
}

impl NumberOrder {
    pub(crate) fn status(&self, now: Moment) -> &'static str {
        match self.filled_at <= now {
            true if self.fails => "failure",
            true => "success",
            false => "pending",
        }
    }

    /// The order without its numbers; what it has not is left out.
    fn head(&self, now: Moment) -> Value {
        let updated = if self.filled_at <= now { self.filled_at } else { self.created_at };
        let mut order = json!({"id": self.id, "record_type": "number_order", "status": self.status(now),
            "phone_numbers_count": 1, "requirements_met": true, "sub_number_orders_ids": [self.part_id("5")],
            "created_at": self.created_at.to_string(), "updated_at": updated.to_string()});
        let optional = [("customer_reference", &self.reference), ("messaging_profile_id", &self.profile)];
        for (name, value) in optional {
            if let Some(value) = value {
                order[name] = value.as_str().into();
            }
        }
        order
    }

    /// The id of something within the order: the order's, with another beginning.
    fn part_id(&self, first: &str) -> String {
        format!("{first}{}", self.id.get(1..).unwrap_or_default())
    }

    fn json(&self, now: Moment) -> Value {
        let mut order = self.head(now);
        order["phone_numbers"] = json!([{"id": self.part_id("0"), "record_type": "number_order_phone_number",
            "phone_number": self.phone_number, "phone_number_type": "local", "country_code": "US",
            "country_iso_alpha2": "US", "status": self.status(now), "requirements_met": true,
            "requirements_status": "approved", "regulatory_requirements": []}]);
        order
    }

    /// As the list shows it.
    fn listed(&self, now: Moment) -> Value {
        let mut order = self.head(now);
        order["phone_numbers"] = json!([{"id": self.part_id("0"), "phone_number": self.phone_number}]);
        order
    }
}

impl Profile {
    fn json(&self) -> Value {
        json!({"id": self.id, "record_type": "messaging_profile", "name": self.name, "enabled": true,
            "whitelisted_destinations": self.destinations, "organization_id": ORGANIZATION,
            "webhook_url": null, "webhook_failover_url": null, "webhook_api_version": "2", "health_webhook_url": null,
            "number_pool_settings": null, "url_shortener_settings": null, "alpha_sender": null,
            "ai_assistant_id": null, "resource_group_id": null, "daily_spend_limit": "0",
            "daily_spend_limit_enabled": false, "mms_fall_back_to_sms": false, "mms_transcoding": false,
            "mobile_only": false, "smart_encoding": false, "redaction_enabled": false, "redaction_level": 2,
            "created_at": self.created_at.to_string(), "updated_at": self.created_at.to_string()})
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
    let meta = json!({"url": format!("https://developers.telnyx.com/docs/overview/errors/{code}")});
    Answer::json(status, json!({"errors": [{"code": code, "title": title, "detail": title, "meta": meta}]}))
}

pub(crate) fn act(world: &mut World, operation: &'static str, request: &Request) -> Answer {
    if request.bearer() != Some(KEY) {
        return error(401, "10009", "Authentication failed");
    }
    let now = world.now();
    match operation {
        "listAvailablePhoneNumbers" => available(world, request),
        "createNumberOrder" => order(world, request),
        "listNumberOrders" => {
            let reference = request.query.get("filter[customer_reference]");
            let fits = |order: &&NumberOrder| reference.is_none() || order.reference.as_ref() == reference;
            list(request, world.orders.iter().rev().filter(fits).map(|order| order.listed(now)).collect())
        }
        "retrieveNumberOrder" => {
            match world.orders.iter().find(|order| request.path.get(1) == Some(&order.id)) {
                Some(order) => Answer::json(200, json!({"data": order.json(now)})),
                None => error(404, "10005", "Resource not found"),
            }
        }
        "listPhoneNumbers" => {
            let digits = request.query.get("filter[phone_number]");
            // Digits only: anything else finds nothing.
            let fits = |number: &&Number| {
                number.is_shown(now)
                    && digits
                        .is_none_or(|digits| number.phone_number.trim_start_matches('+') == digits.as_str())
            };
            list(request, world.numbers.iter().filter(fits).map(Number::json).collect())
        }
        "createMessagingProfile" => profile(world, request),
        "listMessagingProfiles" => {
            let name = request.query.get("filter[name][eq]").or_else(|| request.query.get("filter[name]"));
            let fits = |profile: &&Profile| {
                profile.listed_from <= now && name.is_none_or(|name| profile.name == *name)
            };
            list(request, world.profiles.iter().filter(fits).map(Profile::json).collect())
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
    let now = world.now();
    let mut found = Vec::new();
    while found.len() < limit {
        let phone_number = format!("+1312555{:04}", world.dice.below(10_000));
        let is_sold = world.foreign_numbers.contains(&phone_number)
            || world.numbers.iter().any(|number| number.phone_number == phone_number && number.is_ours(now));
        if is_sold && world.numbers.len() + world.foreign_numbers.len() < 9_000 {
            continue;
        }
        found.push(json!({"phone_number": phone_number, "record_type": "available_phone_number",
            "features": [{"name": "sms"}, {"name": "voice"}], "reservable": true, "best_effort": false,
            "quickship": true, "vanity_format": "",
            "region_information": [{"region_name": "US", "region_type": "country_code"}],
            "cost_information": {"upfront_cost": "1.00", "monthly_cost": "1.00", "currency": "USD"}}));
    }
    Answer::json(200, json!({"data": found, "meta": {"total_results": limit, "best_effort_results": 0}}))
}

fn order(world: &mut World, request: &Request) -> Answer {
    let Some(phone_number) = request.text("/phone_numbers/0/phone_number") else {
        return error(400, "10015", "phone_numbers is required");
    };
    if !phone_number.strip_prefix('+').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return error(422, "10016", "Phone number must be in +E.164 format");
    }
    let now = world.now();
    let take = |world: &mut World, kind| world.faults.take(Provider::Telnyx, "createNumberOrder", kind);
    if world.numbers.iter().any(|number| number.phone_number == phone_number && number.is_ours(now)) {
        return owned();
    }
    if let Some(fault) = take(world, Kind::NumberTaken) {
        world.foreign_numbers.push(phone_number);
        return error(fault.status.unwrap_or(422), "85001", "The number is not available any more");
    }
    if world.foreign_numbers.contains(&phone_number) {
        return error(422, "85001", "The number is not available any more");
    }
    let reference = request.text("/customer_reference");
    let pending = match take(world, Kind::OrderTakes).and_then(|fault| fault.seconds) {
        Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        None => world.paced(FILL_SECONDS),
    };
    let filled_at = after(now, pending);
    let fails = take(world, Kind::OrderFails).is_some();
    let listed_from = world.listed_from(Provider::Telnyx, "createNumberOrder");
    let shown_from = after(filled_at, world.paced(SHOW_SECONDS)).max(listed_from);
    let id = format!("{}{:09}", 1 + world.dice.below(9), world.dice.below(1_000_000_000));
    let profile = request.text("/messaging_profile_id");
    let order = NumberOrder {
        id: world.dice.uuid(),
        phone_number: phone_number.clone(),
        reference,
        profile: profile.clone(),
        created_at: now,
        filled_at,
        fails,
    };
    if !fails {
        world.numbers.push(Number {
            id,
            phone_number,
            reference: None,
            profile,
            tags: Vec::new(),
            created_at: now,
            order: order.id.clone(),
            shown_from,
            gone_from: None,
        });
    }
    let answer = Answer::json(200, json!({"data": order.json(now)}));
    world.orders.push(order);
    if take(world, Kind::OrderOwned).is_some() { owned() } else { answer }
}

fn owned() -> Answer {
    error(409, "10012", "The number is owned by this account already")
}

fn profile(world: &mut World, request: &Request) -> Answer {
    let destinations = request.body.get("whitelisted_destinations").filter(|all| all.is_array()).cloned();
    let (Some(name), Some(destinations)) = (request.text("/name"), destinations) else {
        return error(400, "10015", "name and whitelisted_destinations are required");
    };
    let created_at = world.now();
    let listed_from = world.listed_from(Provider::Telnyx, "createMessagingProfile");
    let profile = Profile { id: world.dice.uuid(), name, destinations, created_at, listed_from };
    let answer = Answer::json(200, json!({"data": profile.json()}));
    world.profiles.push(profile);
    answer
}

fn number(world: &mut World, operation: &'static str, request: &Request) -> Answer {
    let now = world.now();
    let wanted = request.path.get(1).cloned().unwrap_or_default();
    let profiles: Vec<String> = world.profiles.iter().map(|profile| profile.id.clone()).collect();
    let is_it =
        |number: &Number| (number.id == wanted || number.phone_number == wanted) && number.is_shown(now);
    let Some(index) = world.numbers.iter().position(is_it) else {
        return error(404, "10005", "Resource not found");
    };
    let deleting =
        (operation == "deletePhoneNumber").then(|| world.deleting(Provider::Telnyx, "deletePhoneNumber"));
    let is_ignored = world.faults.take(Provider::Telnyx, operation, Kind::UpdateIgnored).is_some();
    let mut number = world.numbers[index].clone();
    if let Some(deleting) = deleting {
        deleting.apply(&mut number.gone_from);
        if deleting.is_denied {
            world.numbers[index] = number;
            return error(404, "10005", "Resource not found");
        }
    }
    match operation {
        "updatePhoneNumber" => {
            if request.body.get("messaging_profile_id").is_some() {
                return error(422, "10015", "The field messaging_profile_id is not reachable here");
            }
            if let Some(reference) = request.text("/customer_reference") {
                number.reference = Some(reference);
            }
            if let Some(tags) = request.body.get("tags").and_then(Value::as_array) {
                let tags: Vec<String> = tags.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                if tags.iter().any(|tag| tag.contains(':')) {
                    return error(422, "10015", "A tag has a character that it may not have");
                }
                number.tags = tags;
            }
        }
        "updateMessagingSettings" => match request.text("/messaging_profile_id") {
            Some(none) if none.is_empty() => number.profile = None,
            Some(profile) if profiles.contains(&profile) => number.profile = Some(profile),
            Some(_) => return error(404, "10005", "Messaging profile not found"),
            None => {}
        },
        _ => {}
    }
    let said = match operation {
        "deletePhoneNumber" => number.deleted_json(),
        "retrieveMessagingSettings" | "updateMessagingSettings" => number.messaging_json(),
        _ => number.json(),
    };
    let answer = Answer::json(200, json!({"data": said}));
    if !is_ignored {
        world.numbers[index] = number;
    }
    answer
}
