//! What GHCR's answers mean.

use crate::answer::{Body, Done, Field, Is, Kind, Means, Operation, Row, Shape, Source, Wire};

const OCI: Source =
    Source::Docs("https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes");
const TOKENS: Source =
    Source::Docs("https://github.com/distribution/distribution/blob/main/docs/content/spec/auth/token.md");
const THREAD: Source = Source::Inferred("https://github.com/orgs/community/discussions/204710");
const WIRE: Wire = Wire::Rest("/errors/0/message");

const fn row(status: u16, code: &'static str, means: Means, source: Source) -> Row {
    Row { status, shape: Shape::Errors { at: "/code", like: code }, means, source }
}

pub(crate) const TOKEN: Operation = Operation {
    provider: "ghcr",
    name: "getToken",
    request: "GET /token",
    kind: Kind::Read,
    wire: WIRE,
    done: Done { status: 200, body: Body::Fields(&[Field { at: "/token", is: Is::Secret }]), source: TOKENS },
    rows: &[&[
        row(401, "UNAUTHORIZED", Means::Credential, OCI),
        // Asked for one image; it says nothing of the others.
        row(403, "DENIED", Means::Denied, THREAD),
        row(429, "TOOMANYREQUESTS", Means::Throttled, OCI),
    ]],
};

/// Asked for whole, though its headers would do: an answer to `HEAD` has no body, and without one nothing tells the
/// registry's refusal from a gateway's.
pub(crate) const MANIFEST: Operation = Operation {
    provider: "ghcr",
    name: "getManifest",
    request: "GET /v2/{name}/manifests/{reference}",
    kind: Kind::Read,
    wire: WIRE,
    done: Done { status: 200, body: Body::Digest("docker-content-digest"), source: OCI },
    rows: &[&[
        row(404, "MANIFEST_UNKNOWN", Means::Refused("no_such_image"), OCI),
        row(404, "NAME_UNKNOWN", Means::Refused("no_such_image"), OCI),
        // The token was given for this image alone, so that what is refused is the image.
        row(401, "UNAUTHORIZED", Means::Denied, OCI),
        row(403, "DENIED", Means::Denied, OCI),
        row(429, "TOOMANYREQUESTS", Means::Throttled, OCI),
    ]],
};

pub(crate) const OPERATIONS: &[&Operation] = &[&TOKEN, &MANIFEST];
