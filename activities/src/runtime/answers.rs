//! What the answers of the agent in its container mean. The contract is ours; what stands before the container (an edge
//! that knows no such application, a container that is being replaced) has no part in it.

use crate::answer::{Body, Done, Field, Is, Kind, Means, Operation, Row, Shape, Source, Wire};

const OURS: Source = Source::Spec("activities/contracts/runtime.json");
const WIRE: Wire = Wire::Rest("/error");

/// Its own answers bear a code that nothing else writes; what stands before it may have a text `error` too.
const fn row(status: u16, code: &'static str, means: Means) -> Row {
    let with = &[Field { at: "/error", is: Is::Words }];
    Row { status, shape: Shape::Text { at: "/code", is: code, with }, means, source: OURS }
}

/// The code of a refusal by which a newer claim speaks to the container.
pub(crate) const SUPERSEDED: &str = "superseded";

const EVERY: &[Row] =
    &[row(401, "runtime_unauthorized", Means::Credential), row(429, "runtime_busy", Means::Throttled)];
const TOLD: &[Row] = &[
    row(400, "runtime_refused", Means::Refused("runtime")),
    row(412, "runtime_superseded", Means::Refused(SUPERSEDED)),
];
const BOUND: &[Row] = &[row(409, "runtime_bound", Means::Taken)];

const fn operation(
    name: &'static str,
    request: &'static str,
    kind: Kind,
    fields: &'static [Field],
    rows: &'static [&'static [Row]],
) -> Operation {
    let done = Done { status: 200, body: Body::Fields(fields), source: OURS };
    Operation { provider: "runtime", name, request, kind, wire: WIRE, done, rows }
}

const OK: &[Field] = &[Field { at: "/ok", is: Is::Yes }];

pub(crate) const HEALTH: Operation = operation(
    "health",
    "GET /pool/health",
    Kind::Read,
    &[
        Field { at: "/ready", is: Is::Flag },
        Field { at: "/version", is: Is::Words },
        Field { at: "/runtime", is: Is::Words },
        Field { at: "/digest", is: Is::Words },
    ],
    &[EVERY],
);

pub(crate) const STATUS: Operation = operation(
    "status",
    "GET /convos/status",
    Kind::Read,
    &[
        Field { at: "/conversationId", is: Is::TextOrNull },
        Field { at: "/inboxId", is: Is::TextOrNull },
        Field { at: "/pending", is: Is::Flag },
        Field { at: "/clean", is: Is::Flag },
        Field { at: "/operationId", is: Is::TextOrNull },
        Field { at: "/epoch", is: Is::Count },
    ],
    &[EVERY],
);

pub(crate) const PROVISION: Operation =
    operation("provision", "POST /pool/provision", Kind::Write, OK, &[EVERY, TOLD, BOUND]);

pub(crate) const CONVERSATION: Operation = operation(
    "createConversation",
    "POST /convos/conversation",
    Kind::Write,
    &[
        Field { at: "/conversationId", is: Is::Text },
        Field { at: "/status", is: Is::OneOf(&["joined", "created"]) },
    ],
    &[EVERY, TOLD, BOUND],
);

pub(crate) const JOIN: Operation = operation(
    "join",
    "POST /convos/join",
    Kind::Write,
    &[
        Field { at: "/conversationId", is: Is::MaybeText },
        Field { at: "/status", is: Is::OneOf(&["joined", "pending_acceptance"]) },
    ],
    &[EVERY, TOLD, BOUND],
);

pub(crate) const RESET: Operation = operation("reset", "POST /convos/reset", Kind::Write, OK, &[EVERY, TOLD]);

pub(crate) const OPERATIONS: &[&Operation] = &[&HEALTH, &STATUS, &PROVISION, &CONVERSATION, &JOIN, &RESET];
