//! What Telnyx's answers mean.

use crate::answer::{Body, Done, Field, Is, Kind, Means, Operation, Row, Shape, Source, Wire};

const SPEC: Source = Source::Spec("https://github.com/team-telnyx/openapi/blob/master/openapi/spec3.yml");
const ERRORS: Source = Source::Docs("https://developers.telnyx.com/docs/overview/errors");
/// Its own command line reads this status of an order as "already owned".
const TOOLS: Source = Source::Docs("https://github.com/team-telnyx/skills");
const WIRE: Wire = Wire::Rest("/errors/0/title");

const fn row(status: u16, code: &'static str, means: Means, source: Source) -> Row {
    Row { status, shape: Shape::Errors { at: "/code", like: code }, means, source }
}

const EVERY: &[Row] = &[
    row(401, "10009", Means::Credential, ERRORS),
    row(403, "10010", Means::Credential, ERRORS),
    row(429, "10011", Means::Throttled, ERRORS),
];
const GONE: &[Row] = &[row(404, "10005", Means::Gone, ERRORS)];
const BAD_REQUEST: &[Row] = &[
    row(400, "10015", Means::Refused("bad_request"), ERRORS),
    row(400, "10016", Means::Refused("bad_request"), ERRORS),
    row(422, "10013", Means::Refused("bad_request"), ERRORS),
    row(422, "10015", Means::Refused("bad_request"), ERRORS),
    row(422, "10016", Means::Refused("bad_request"), ERRORS),
];
/// What says no to an order, besides a bad request, is about its number: sold to somebody, or to us.
const NUMBER: &[Row] = &[row(409, "*", Means::Taken, TOOLS), row(422, "*", Means::Taken, SPEC)];
const IN_USE: &[Row] =
    &[row(422, "10012", Means::Taken, ERRORS), row(422, "10021", Means::Refused("in_use"), ERRORS)];

const PAGES: &[Field] = &[Field { at: "/meta/total_pages", is: Is::Count }];

const fn one(
    name: &'static str,
    request: &'static str,
    kind: Kind,
    fields: &'static [Field],
    rows: &'static [&'static [Row]],
) -> Operation {
    let done = Done { status: 200, body: Body::Fields(fields), source: SPEC };
    Operation { provider: "telnyx", name, request, kind, wire: WIRE, done, rows }
}

const fn many(
    name: &'static str,
    request: &'static str,
    row: &'static [Field],
    page: &'static [Field],
) -> Operation {
    let done = Done { status: 200, body: Body::List { at: "/data", row, page }, source: SPEC };
    let rows: &'static [&'static [Row]] = &[EVERY, BAD_REQUEST];
    Operation { provider: "telnyx", name, request, kind: Kind::Read, wire: WIRE, done, rows }
}

const STATUSES: Is = Is::OneOf(&["pending", "success", "failure"]);

pub(crate) const SEARCH: Operation = many(
    "listAvailablePhoneNumbers",
    "GET /available_phone_numbers",
    &[Field { at: "/phone_number", is: Is::Text }],
    &[Field { at: "/meta", is: Is::MaybeObject }],
);

pub(crate) const ORDER: Operation = one(
    "createNumberOrder",
    "POST /number_orders",
    Kind::Write,
    &[Field { at: "/data/id", is: Is::Text }, Field { at: "/data/status", is: STATUSES }],
    &[EVERY, BAD_REQUEST, NUMBER],
);

pub(crate) const ORDERS: Operation = many(
    "listNumberOrders",
    "GET /number_orders",
    &[
        Field { at: "/id", is: Is::Text },
        Field { at: "/status", is: STATUSES },
        Field { at: "/customer_reference", is: Is::MaybeWords },
        Field { at: "/phone_numbers", is: Is::List },
        Field { at: "/created_at", is: Is::MaybeWords },
    ],
    PAGES,
);

pub(crate) const ORDER_GET: Operation = one(
    "retrieveNumberOrder",
    "GET /number_orders/{number_order_id}",
    Kind::Read,
    &[Field { at: "/data/id", is: Is::Text }, Field { at: "/data/status", is: STATUSES }],
    &[EVERY, GONE],
);

pub(crate) const NUMBERS: Operation = many(
    "listPhoneNumbers",
    "GET /phone_numbers",
    &[
        Field { at: "/id", is: Is::Text },
        Field { at: "/phone_number", is: Is::Text },
        Field { at: "/status", is: Is::Text },
        Field { at: "/customer_reference", is: Is::MaybeWords },
    ],
    PAGES,
);

pub(crate) const MARK: Operation = one(
    "updatePhoneNumber",
    "PATCH /phone_numbers/{id}",
    Kind::Write,
    &[
        Field { at: "/data/id", is: Is::Text },
        Field { at: "/data/phone_number", is: Is::Text },
        Field { at: "/data/status", is: Is::Text },
        Field { at: "/data/customer_reference", is: Is::MaybeWords },
    ],
    &[EVERY, GONE, BAD_REQUEST, IN_USE],
);

pub(crate) const SETTINGS: Operation = one(
    "retrieveMessagingSettings",
    "GET /phone_numbers/{id}/messaging",
    Kind::Read,
    &[
        Field { at: "/data/id", is: Is::Text },
        Field { at: "/data/phone_number", is: Is::Text },
        // Without it nothing is said: a number counts as unassigned only by a word of Telnyx's.
        Field { at: "/data/messaging_profile_id", is: Is::WordsOrNull },
    ],
    &[EVERY, GONE],
);

pub(crate) const ASSIGN: Operation = one(
    "updateMessagingSettings",
    "PATCH /phone_numbers/{id}/messaging",
    Kind::Write,
    &[
        Field { at: "/data/id", is: Is::Text },
        Field { at: "/data/phone_number", is: Is::Text },
        Field { at: "/data/messaging_profile_id", is: Is::MaybeWords },
    ],
    &[EVERY, GONE, BAD_REQUEST, IN_USE],
);

pub(crate) const PROFILE_CREATE: Operation = one(
    "createMessagingProfile",
    "POST /messaging_profiles",
    Kind::Write,
    &[Field { at: "/data/id", is: Is::Text }, Field { at: "/data/name", is: Is::Words }],
    &[EVERY, BAD_REQUEST, IN_USE],
);

pub(crate) const PROFILES: Operation = many(
    "listMessagingProfiles",
    "GET /messaging_profiles",
    &[
        Field { at: "/id", is: Is::Text },
        Field { at: "/name", is: Is::Words },
        Field { at: "/created_at", is: Is::MaybeWords },
    ],
    PAGES,
);

pub(crate) const OPERATIONS: &[&Operation] =
    &[&SEARCH, &ORDER, &ORDERS, &ORDER_GET, &NUMBERS, &MARK, &SETTINGS, &ASSIGN, &PROFILE_CREATE, &PROFILES];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::answer::{Answer, Content, settle};

    fn is_done(operation: &Operation, body: &Value) -> bool {
        let answer =
            Answer { status: 200, headers: Default::default(), content: Content::Json(body.clone()) };
        matches!(settle(operation, answer), Ok(crate::answer::Answered::Done(_)))
    }

    #[test]
    fn a_number_is_unassigned_by_a_word_of_telnyxs_and_not_by_its_silence() {
        let settings = |profile: Option<Value>| {
            let mut data = json!({"id": "1", "phone_number": "+13125550100"});
            profile.into_iter().for_each(|profile| data["messaging_profile_id"] = profile);
            json!({"data": data})
        };
        assert!(is_done(&SETTINGS, &settings(Some(Value::Null))));
        assert!(is_done(&SETTINGS, &settings(Some("p".into()))));
        assert!(!is_done(&SETTINGS, &settings(None)));
    }
}
