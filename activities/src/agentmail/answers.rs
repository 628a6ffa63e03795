//! What AgentMail's answers mean: the `code` of an error says it, not its status.

use crate::answer::{Body, Done, Field, Is, Kind, Means, Operation, Row, Shape, Source, Wire};

const SPEC: Source =
    Source::Spec("https://github.com/agentmail-to/agentmail-docs/tree/main/fern/definition/inboxes");
const ERRORS: Source = Source::Docs("https://docs.agentmail.to/errors");
const WIRE: Wire = Wire::Rest("/message");
/// What each of its errors has beside the code.
const NAMED: &[Field] = &[Field { at: "/name", is: Is::Words }, Field { at: "/message", is: Is::Words }];

const fn row(status: u16, code: &'static str, means: Means) -> Row {
    Row { status, shape: Shape::Text { at: "/code", is: code, with: NAMED }, means, source: ERRORS }
}

const EVERY: &[Row] = &[
    row(401, "missing_authorization", Means::Credential),
    row(401, "invalid_token_type", Means::Credential),
    row(401, "unknown_api_key", Means::Credential),
    row(401, "unauthorized", Means::Credential),
    row(403, "missing_permission", Means::Credential),
    row(403, "forbidden", Means::Credential),
    row(403, "permission_escalation", Means::Credential),
    // Its gateway, to a key that it does not know; without a code.
    Row {
        status: 403,
        shape: Shape::Text {
            at: "/message",
            is: "Forbidden",
            with: &[Field { at: "/code", is: Is::Absent }, Field { at: "/name", is: Is::Absent }],
        },
        means: Means::Credential,
        source: ERRORS,
    },
    row(429, "rate_limit_exceeded", Means::Throttled),
];

const GONE: &[Row] = &[row(404, "not_found", Means::Gone)];

// The documentation gives what follows the statuses "403 / 409" without saying which has which.
const TAKEN: &[Row] = &[
    row(403, "already_exists", Means::Taken),
    row(409, "already_exists", Means::Taken),
    row(403, "resource_taken", Means::Taken),
    row(409, "resource_taken", Means::Taken),
];

const CONFLICTS: &[Row] = &[
    row(403, "limit_exceeded", Means::Refused("limit_exceeded")),
    row(409, "limit_exceeded", Means::Refused("limit_exceeded")),
    row(403, "domain_not_verified", Means::Refused("domain_not_verified")),
    row(409, "domain_not_verified", Means::Refused("domain_not_verified")),
    row(403, "conflict", Means::Refused("conflict")),
    row(409, "conflict", Means::Refused("conflict")),
    row(403, "cannot_delete", Means::Refused("cannot_delete")),
    row(409, "cannot_delete", Means::Refused("cannot_delete")),
    row(403, "race_condition", Means::NotYet),
    row(409, "race_condition", Means::NotYet),
    row(403, "resource_deleting", Means::NotYet),
    row(409, "resource_deleting", Means::NotYet),
];

const BAD_REQUEST: &[Row] = &[
    Row {
        status: 400,
        shape: Shape::Text {
            at: "/code",
            is: "validation_error",
            with: &[
                Field { at: "/name", is: Is::Words },
                Field { at: "/errors", is: Is::List },
                Field { at: "/message", is: Is::MaybeWords },
            ],
        },
        means: Means::Refused("bad_request"),
        source: ERRORS,
    },
    row(422, "unprocessable", Means::Refused("bad_request")),
];

const INBOX: &[Field] =
    &[Field { at: "/inbox_id", is: Is::Text }, Field { at: "/client_id", is: Is::MaybeWords }];

pub(crate) const CREATE: Operation = Operation {
    provider: "agentmail",
    name: "createInbox",
    request: "POST /v0/inboxes",
    kind: Kind::Write,
    wire: WIRE,
    done: Done { status: 200, body: Body::Fields(INBOX), source: SPEC },
    rows: &[EVERY, TAKEN, CONFLICTS, BAD_REQUEST],
};

pub(crate) const LIST: Operation = Operation {
    provider: "agentmail",
    name: "listInboxes",
    request: "GET /v0/inboxes",
    kind: Kind::Read,
    wire: WIRE,
    done: Done {
        status: 200,
        body: Body::List {
            at: "/inboxes",
            row: INBOX,
            page: &[
                Field { at: "/count", is: Is::Count },
                Field { at: "/next_page_token", is: Is::MaybeText },
            ],
        },
        source: SPEC,
    },
    rows: &[EVERY],
};

pub(crate) const GET: Operation = Operation {
    provider: "agentmail",
    name: "getInbox",
    request: "GET /v0/inboxes/{inbox_id}",
    kind: Kind::Read,
    wire: WIRE,
    done: Done { status: 200, body: Body::Fields(INBOX), source: SPEC },
    rows: &[EVERY, GONE],
};

pub(crate) const DELETE: Operation = Operation {
    provider: "agentmail",
    name: "deleteInbox",
    request: "DELETE /v0/inboxes/{inbox_id}",
    kind: Kind::Remove,
    wire: WIRE,
    done: Done { status: 204, body: Body::Empty, source: SPEC },
    rows: &[EVERY, GONE, CONFLICTS],
};

pub(crate) const OPERATIONS: &[&Operation] = &[&CREATE, &LIST, &GET, &DELETE];
