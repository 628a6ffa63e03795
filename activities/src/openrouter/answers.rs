//! What OpenRouter's answers mean.

use crate::answer::{Body, Done, Field, Is, Kind, Means, Operation, Row, Shape, Source, Wire};

const SPEC: Source =
    Source::Spec("https://github.com/OpenRouterTeam/typescript-sdk/blob/main/.speakeasy/in.openapi.yaml");
const WIRE: Wire = Wire::Rest("/error/message");
const MESSAGE: &[Field] = &[Field { at: "/error/message", is: Is::Words }];

const fn row(status: u16, means: Means) -> Row {
    // The code in the body repeats the status: a gateway's page does not.
    let shape = Shape::Number { at: "/error/code", is: status as u64, with: MESSAGE };
    Row { status, shape, means, source: SPEC }
}

const EVERY: &[Row] = &[row(401, Means::Credential), row(429, Means::Throttled)];
const BAD_REQUEST: &[Row] = &[row(400, Means::Refused("bad_request"))];
/// The key that we call with is no management key.
const FORBIDDEN: &[Row] = &[row(403, Means::Credential)];
const GONE: &[Row] = &[row(404, Means::Gone)];

pub(crate) const CREATE: Operation = Operation {
    provider: "openrouter",
    name: "createKeys",
    request: "POST /keys",
    kind: Kind::Write,
    wire: WIRE,
    done: Done {
        status: 201,
        body: Body::Fields(&[
            Field { at: "/data/hash", is: Is::Text },
            Field { at: "/data/name", is: Is::Words },
            Field { at: "/key", is: Is::Secret },
        ]),
        source: SPEC,
    },
    rows: &[EVERY, BAD_REQUEST, FORBIDDEN],
};

pub(crate) const LIST: Operation = Operation {
    provider: "openrouter",
    name: "list",
    request: "GET /keys",
    kind: Kind::Read,
    wire: WIRE,
    done: Done {
        status: 200,
        body: Body::List {
            at: "/data",
            row: &[
                Field { at: "/hash", is: Is::Text },
                Field { at: "/name", is: Is::Words },
                Field { at: "/created_at", is: Is::MaybeWords },
            ],
            page: &[],
        },
        source: SPEC,
    },
    rows: &[EVERY, BAD_REQUEST],
};

pub(crate) const GET: Operation = Operation {
    provider: "openrouter",
    name: "getKey",
    request: "GET /keys/{hash}",
    kind: Kind::Read,
    wire: WIRE,
    done: Done {
        status: 200,
        body: Body::Fields(&[
            Field { at: "/data/hash", is: Is::Text },
            Field { at: "/data/name", is: Is::Words },
        ]),
        source: SPEC,
    },
    rows: &[EVERY, GONE],
};

pub(crate) const DELETE: Operation = Operation {
    provider: "openrouter",
    name: "deleteKeys",
    request: "DELETE /keys/{hash}",
    kind: Kind::Remove,
    wire: WIRE,
    done: Done { status: 200, body: Body::Fields(&[Field { at: "/deleted", is: Is::Yes }]), source: SPEC },
    rows: &[EVERY, GONE],
};

pub(crate) const OPERATIONS: &[&Operation] = &[&CREATE, &LIST, &GET, &DELETE];
