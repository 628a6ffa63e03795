//! What Railway's answers mean. `extensions.code` is nearly always the same, so that the text of an error decides; texts
//! and limits as its own tools and published clients report them (October 2026).

use crate::answer::{Body, Done, Field, Is, Kind, Means, Operation, Row, Shape, Source, Wire};

const SCHEMA: Source = Source::Spec("https://github.com/railwayapp/cli/blob/master/src/gql/schema.json");
const CLI: Source = Source::Docs("https://github.com/railwayapp/cli");
const LIMITS: Source = Source::Docs("https://docs.railway.com/reference/public-api");
const TERRAFORM: Source = Source::Inferred("https://github.com/jamesprnich/terraform-provider-railway");
const COMMUNITY: Source =
    Source::Inferred("https://github.com/terraform-community-providers/terraform-provider-railway/issues/82");
const DISTILLED: Source = Source::Inferred("https://github.com/alchemy-run/distilled");
const STACKQL: Source = Source::Inferred("https://github.com/stackql-registry/stackql-provider-railway");
const CONVOS: Source = Source::Inferred("https://github.com/xmtplabs/convos-managed-agent-runtime");

const fn says(like: &'static str, means: Means, source: Source) -> Row {
    Row { status: 200, shape: Shape::Errors { at: "/message", like }, means, source }
}

const fn code(like: &'static str, source: Source) -> Row {
    let means = Means::Refused("bad_request");
    Row { status: 400, shape: Shape::Errors { at: "/extensions/code", like }, means, source }
}

const fn status(status: u16, means: Means, source: Source) -> Row {
    Row { status, shape: Shape::Errors { at: "/message", like: "*" }, means, source }
}

const EVERY: &[Row] = &[
    status(401, Means::Credential, CONVOS),
    status(403, Means::Credential, CONVOS),
    status(429, Means::Throttled, LIMITS),
    code("GRAPHQL_PARSE_FAILED", STACKQL),
    code("GRAPHQL_VALIDATION_FAILED", STACKQL),
    says("Not Authorized", Means::Ambiguous, CLI),
    says("Two Factor Authentication Required", Means::Credential, CLI),
    says("Cannot redeploy yet*", Means::NotYet, TERRAFORM),
    says("*operation is already in progress", Means::NotYet, TERRAFORM),
    says("Invalid *", Means::SaysNo("bad_request"), DISTILLED),
    says("* is not a valid *", Means::SaysNo("bad_request"), DISTILLED),
    says("Max size of * MB on current plan", Means::Refused("plan_limit"), DISTILLED),
];
/// For what is asked of a project itself.
const PROJECT_GONE: &[Row] = &[says("Project not found", Means::Gone, TERRAFORM)];
/// For what is asked of things inside a project. Right after they were made it means: not visible yet.
const INSIDE_GONE: &[Row] = &[
    says("Project not found", Means::Gone, TERRAFORM),
    says("Environment not found", Means::Gone, TERRAFORM),
    says("Service not found", Means::Gone, TERRAFORM),
    says("ServiceInstance not found", Means::Gone, TERRAFORM),
    says("Volume not found", Means::Gone, TERRAFORM),
    says("VolumeInstance not found", Means::Gone, TERRAFORM),
    says("Deployment not found", Means::Gone, TERRAFORM),
];
const NAME_TAKEN: &[Row] =
    &[says("A service named \"*\" already exists in this project", Means::Taken, COMMUNITY)];
/// These come as HTTP 200, and without a word on how long.
const PROJECT_SLOT: &[Row] = &[
    says("You are creating projects too quickly*", Means::Slot, TERRAFORM),
    says("Whoa there pal! Only one project can be created per user every 30s*", Means::Slot, CONVOS),
];
const VOLUME_SLOT: &[Row] = &[says("*You are creating volumes too quickly*", Means::Slot, TERRAFORM)];

const fn operation(
    name: &'static str,
    request: &'static str,
    kind: Kind,
    body: Body,
    rows: &'static [&'static [Row]],
) -> Operation {
    let done = Done { status: 200, body, source: SCHEMA };
    Operation { provider: "railway", name, request, kind, wire: Wire::GraphQl, done, rows }
}

const fn field(at: &'static str, is: Is) -> Field {
    Field { at, is }
}

pub(crate) const API_TOKEN: Operation = operation(
    "apiToken",
    "GraphQL query apiToken",
    Kind::Read,
    Body::List { at: "/workspaces", row: &[field("/id", Is::Text), field("/name", Is::Words)], page: &[] },
    &[EVERY],
);

pub(crate) const PROJECTS: Operation = operation(
    "projects",
    "GraphQL query projects",
    Kind::Read,
    Body::List {
        at: "/edges",
        row: &[
            field("/node/id", Is::Text),
            field("/node/name", Is::Words),
            field("/node/description", Is::MaybeWords),
            field("/node/createdAt", Is::Words),
            field("/node/deletedAt", Is::MaybeWords),
        ],
        page: &[field("/pageInfo/hasNextPage", Is::Flag), field("/pageInfo/endCursor", Is::MaybeWords)],
    },
    &[EVERY],
);

pub(crate) const PROJECT: Operation = operation(
    "project",
    "GraphQL query project",
    Kind::Read,
    Body::List {
        at: "/services/edges",
        row: &[field("/node/id", Is::Text), field("/node/name", Is::Words)],
        page: &[
            field("/id", Is::Text),
            field("/name", Is::Words),
            field("/deletedAt", Is::MaybeWords),
            field("/primaryEnvironmentId", Is::MaybeText),
        ],
    },
    &[EVERY, PROJECT_GONE],
);

pub(crate) const PROJECT_CREATE: Operation = operation(
    "projectCreate",
    "GraphQL mutation projectCreate",
    Kind::Write,
    Body::Fields(&[field("/id", Is::Text)]),
    &[EVERY, PROJECT_SLOT],
);

pub(crate) const PROJECT_DELETE: Operation = operation(
    "projectDelete",
    "GraphQL mutation projectDelete",
    Kind::Remove,
    Body::Fields(&[field("", Is::Yes)]),
    &[EVERY, PROJECT_GONE],
);

pub(crate) const SERVICE_CREATE: Operation = operation(
    "serviceCreate",
    "GraphQL mutation serviceCreate",
    Kind::Write,
    Body::Fields(&[field("/id", Is::Text)]),
    &[EVERY, INSIDE_GONE, NAME_TAKEN],
);

/// The volumes of an environment.
pub(crate) const ENVIRONMENT: Operation = operation(
    "environment",
    "GraphQL query environment",
    Kind::Read,
    Body::List {
        at: "/volumeInstances/edges",
        row: &[
            field("/node/id", Is::Text),
            field("/node/volumeId", Is::Text),
            field("/node/serviceId", Is::MaybeText),
            field("/node/mountPath", Is::Words),
            field("/node/state", Is::MaybeWords),
            field("/node/deletedAt", Is::MaybeWords),
            field("/node/isPendingDeletion", Is::Flag),
        ],
        page: &[
            field("/id", Is::Text),
            field("/volumeInstances/pageInfo/hasNextPage", Is::Flag),
            field("/volumeInstances/pageInfo/endCursor", Is::MaybeWords),
        ],
    },
    &[EVERY, INSIDE_GONE],
);

pub(crate) const VOLUME_CREATE: Operation = operation(
    "volumeCreate",
    "GraphQL mutation volumeCreate",
    Kind::Write,
    Body::Fields(&[field("/id", Is::Text)]),
    &[EVERY, INSIDE_GONE, VOLUME_SLOT],
);

pub(crate) const DOMAINS: Operation = operation(
    "domains",
    "GraphQL query domains",
    Kind::Read,
    Body::List {
        at: "/serviceDomains",
        row: &[
            field("/id", Is::Text),
            field("/domain", Is::Host),
            field("/deletedAt", Is::MaybeWords),
            field("/syncStatus", Is::Words),
        ],
        page: &[],
    },
    &[EVERY, INSIDE_GONE],
);

pub(crate) const DOMAIN_CREATE: Operation = operation(
    "serviceDomainCreate",
    "GraphQL mutation serviceDomainCreate",
    Kind::Write,
    Body::Fields(&[field("/id", Is::Text), field("/domain", Is::Host)]),
    &[EVERY, INSIDE_GONE],
);

/// Answers the id of the workflow that applies the patch.
pub(crate) const PATCH_COMMIT: Operation = operation(
    "environmentPatchCommit",
    "GraphQL mutation environmentPatchCommit",
    Kind::Write,
    Body::Fields(&[field("", Is::Text)]),
    &[EVERY, INSIDE_GONE],
);

pub(crate) const PATCHES: Operation = operation(
    "environmentPatches",
    "GraphQL query environmentPatches",
    Kind::Read,
    Body::List {
        at: "/edges",
        row: &[
            field("/node/id", Is::Text),
            field("/node/status", Is::Words),
            field("/node/message", Is::MaybeWords),
            field("/node/lastAppliedError", Is::MaybeWords),
        ],
        page: &[field("/pageInfo/hasNextPage", Is::Flag), field("/pageInfo/endCursor", Is::MaybeWords)],
    },
    &[EVERY, INSIDE_GONE],
);

pub(crate) const WORKFLOW: Operation = operation(
    "workflowStatus",
    "GraphQL query workflowStatus",
    Kind::Read,
    Body::Fields(&[
        field("/status", Is::OneOf(&["Complete", "Error", "NotFound", "Running"])),
        field("/error", Is::MaybeWords),
    ]),
    &[EVERY],
);

pub(crate) const DEPLOYMENTS: Operation = operation(
    "deployments",
    "GraphQL query deployments",
    Kind::Read,
    Body::List {
        at: "/edges",
        row: &[field("/node/id", Is::Text), field("/node/status", Is::Words)],
        page: &[field("/pageInfo/hasNextPage", Is::Flag)],
    },
    &[EVERY, INSIDE_GONE],
);

pub(crate) const OPERATIONS: &[&Operation] = &[
    &API_TOKEN,
    &PROJECTS,
    &PROJECT,
    &PROJECT_CREATE,
    &PROJECT_DELETE,
    &SERVICE_CREATE,
    &ENVIRONMENT,
    &VOLUME_CREATE,
    &DOMAINS,
    &DOMAIN_CREATE,
    &PATCH_COMMIT,
    &PATCHES,
    &WORKFLOW,
    &DEPLOYMENTS,
];

#[cfg(test)]
mod tests {
    use amends_engine::Failure;
    use amends_engine::activity::Cause;
    use serde_json::json;

    use super::*;
    use crate::answer::{Answer, Answered, Content, settle};

    #[test]
    fn a_token_is_sent_to_the_host_that_railway_assigned_and_to_nothing_that_only_looks_like_one() {
        let is_done = |domain: &str| {
            let body = json!({"data": {"serviceDomainCreate": {"id": "d", "domain": domain}}});
            let answer = Answer { status: 200, headers: Default::default(), content: Content::Json(body) };
            matches!(settle(&DOMAIN_CREATE, answer), Ok(Answered::Done(_)))
        };
        assert!(is_done("agent-production-1a2b.up.railway.app") && is_done("127-0-0-1.example"));
        for other in [
            "a@evil.example",
            "evil.example/",
            "a.example:8080",
            "a b",
            "",
            ".",
            "a..b",
            "ä.example",
            "a.example?x",
        ] {
            assert!(!is_done(other), "{other:?}");
        }
    }

    #[test]
    fn a_status_proves_that_a_write_did_nothing_only_without_an_entry_for_data() {
        let credential = |operation: &Operation, body: serde_json::Value| {
            let answer = Answer { status: 401, headers: Default::default(), content: Content::Json(body) };
            matches!(settle(operation, answer), Err(Failure::Unavailable { cause: Cause::Credential, .. }))
        };
        let refused = json!({"errors": [{"message": "Unauthorized"}]});
        let executed = json!({"errors": [{"message": "Unauthorized"}], "data": null});
        assert!(credential(&PROJECT_CREATE, refused.clone()) && credential(&PROJECTS, refused));
        assert!(!credential(&PROJECT_CREATE, executed.clone()) && credential(&PROJECTS, executed));
    }
}
