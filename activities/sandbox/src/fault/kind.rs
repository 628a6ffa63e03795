//! Kind: everything that can be made to go wrong, one word each; the catalogue says what each takes.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr, VariantNames};

/// What goes wrong. [`catalogue`](crate::catalogue) says of each what it takes and where it applies.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[allow(
    missing_docs,
    reason = "the catalogue says what each is, for the program and for docs/sandbox.md alike"
)]
pub enum Kind {
    // The call.
    Latency,
    LoseRequest,
    LoseAnswer,
    Hang,
    CommitLate,
    // The answer.
    Spoil,
    Refuse,
    Unauthorized,
    RateLimited,
    Quota,
    ThrottleText,
    ErrorBefore,
    ErrorAfter,
    GoneText,
    // Lists.
    ListLag,
    ListEmpty,
    ListPartial,
    ListRepeats,
    // Updates and deletes.
    UpdateIgnored,
    DeleteIgnored,
    DeleteNotFound,
    DeleteLingers,
    // What changes behind our back.
    Vanish,
    Drift,
    // Deployments.
    DeployTakes,
    DeployHangs,
    DeployCrashes,
    ImageAbsent,
    PatchFails,
    Redeploys,
    // Numbers and inboxes.
    OrderTakes,
    OrderFails,
    OrderOwned,
    NumberTaken,
    ClientIdForgotten,
    // The container.
    ContainerDies,
    ContainerRestarts,
    ContainerBound,
    ContainerUsed,
    StaysDirty,
    JoinPending,
    JoinAccepted,
}
