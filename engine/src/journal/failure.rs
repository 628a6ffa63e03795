//! Failure: the three ways in which a call does not succeed, and what each lets the engine do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why an attempt did not succeed. The question that counts is whether the effect happened.
///
/// | failure | did it happen? | the engine |
/// |---|---|---|
/// | refused | no, and it will not | hands it to the saga's `?`; uncaught, the saga unwinds |
/// | unavailable | no, but it may later | tries again when due |
/// | no answer | unknown | asks `find`, then adopts, clears away or tries again |
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It did not happen and it will not.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// It did not happen, but it may later.
    #[error("unavailable ({cause}): {detail}")]
    Unavailable {
        /// What stood in the way.
        cause: Cause,
        /// In words, without secrets.
        detail: String,
        /// How long the other side asked us to wait.
        retry_after: Option<Duration>,
    },
    /// Whether it happened is not known.
    #[error("no answer ({cause}): {detail}")]
    NoAnswer {
        /// How the answer was lost.
        cause: Cause,
        /// In words, without secrets.
        detail: String,
    },
}

impl Failure {
    /// A refusal with a code for programs and a message for people.
    pub fn refused(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Refused(Refusal { code: code.into(), message: message.into() })
    }

    /// What stood in the way, or how the answer was lost.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Refused(_) => Cause::Refused,
            Self::Unavailable { cause, .. } | Self::NoAnswer { cause, .. } => *cause,
        }
    }

    /// In words, without secrets.
    pub fn detail(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.to_string(),
            Self::Unavailable { detail, .. } | Self::NoAnswer { detail, .. } => detail.clone(),
        }
    }

    /// Not now, and it is our own side that is not ready.
    pub fn not_yet(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::Unavailable { cause: Cause::NotYet, detail: detail.into(), retry_after: Some(retry_after) }
    }
}

/// What was refused: a code for programs and a message for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// Stable, snake case.
    pub code: String,
    /// A sentence, without secrets.
    pub message: String,
}

/// What stood in the way, or how an answer was lost.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Cause {
    /// No connection was made, so nothing was sent.
    Connect,
    /// The time limit passed.
    Timeout,
    /// The connection broke after sending.
    Reset,
    /// The other side answered with an error of its own.
    ServerError,
    /// The other side asked us to slow down; its credential's gate closes until then.
    RateLimited,
    /// The credential was refused; its gate closes and a person has to look.
    Credential,
    /// The answer could not be read.
    Unreadable,
    /// The thing that was asked about is not ready.
    NotYet,
    /// What was asked to go is still there; it is asked again.
    StillThere,
    /// What is to be gone was seen to be absent, once: it is looked for again before that is believed.
    AbsentOnce,
    /// The other side refused, where there is no way back: it is tried again until a person has decided.
    Refused,
    /// Our own database could not do it just now.
    Database,
    /// It happened, and what it yields cannot be kept: too large, too deep, or nothing that reads back.
    Unstorable,
    /// The activity panicked.
    Panic,
    /// The process that made the call died before it recorded the outcome.
    WorkerLost,
}

/// What `find` saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<T> {
    /// Looked, and it is not there: the call may be made again.
    Nothing,
    /// It is there and as good as if the answer had come: adopt it.
    Usable(T),
    /// It is there but of no use (a key whose secret was shown to a dead process): take it away, then make it anew.
    Unusable(T),
    /// There is no way to tell: a person has to decide.
    Unknowable,
}
