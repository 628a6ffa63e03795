//! Outcome: from what an answer means to what the engine is told.

use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::{Failure, Refusal, secs};
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::judge::{Answer, Content, Verdict, judge};
use super::table::{Kind, Means, Operation, Wire};
use crate::http::retry_after::retry_after;

/// What was asked for, in the form that its table demands.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) headers: HeaderMap,
    /// With GraphQL the field that was asked for. Null when there is none.
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn text(&self, pointer: &str) -> Option<String> {
        self.body.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
    }

    /// The text there. Its table demands it, so that it is there.
    pub(crate) fn needed(&self, pointer: &str) -> Result<String, Failure> {
        self.text(pointer).ok_or_else(|| in_doubt(unreadable(format!("the answer has no {pointer}"))))
    }

    /// The list there. Its table demands it, so that it is there.
    pub(crate) fn rows(&mut self, pointer: &str) -> Vec<Value> {
        match self.body.pointer_mut(pointer).map(Value::take) {
            Some(Value::Array(rows)) => rows,
            _ => Vec::new(),
        }
    }
}

/// An answer that its caller has to tell apart; every other one is a failure by now.
#[derive(Debug)]
pub(crate) enum Answered {
    Done(Reply),
    /// It is not there.
    Gone,
    /// There is one already, maybe ours.
    Taken(String),
    /// A write was refused in words that another failure may have too.
    SaysNo(Refusal),
    /// Gone, or somebody else's, or the credential is not good.
    Ambiguous,
}

impl Answered {
    /// What was asked for. What is not there is not there yet: for calls about what we just made.
    pub(crate) fn done(self) -> Result<Reply, Failure> {
        match self {
            Self::Done(reply) => Ok(reply),
            Self::Gone => Err(not_yet("the provider does not show it yet")),
            Self::Taken(words) => Err(Failure::refused("taken", words)),
            Self::SaysNo(refusal) => Err(in_doubt(Failure::Refused(refusal))),
            Self::Ambiguous => Err(denied("the provider does not say whether it is there")),
        }
    }

    /// What was asked for, if it is there.
    pub(crate) fn found(self) -> Result<Option<Reply>, Failure> {
        match self {
            Self::Gone => Ok(None),
            other => other.done().map(Some),
        }
    }
}

/// What an answer comes to.
pub(crate) fn settle(operation: &Operation, answer: Answer) -> Result<Answered, Failure> {
    let verdict = judge(operation, &answer);
    let (provider, status) = (operation.provider, answer.status);
    let said = |words: &str| {
        if words.is_empty() { format!("{provider} answered {status}") } else { words.to_owned() }
    };
    Err(match verdict {
        Verdict::Done => {
            let mut body = match answer.content {
                Content::Json(body) => body,
                _ => Value::Null,
            };
            if operation.wire == Wire::GraphQl {
                let field = body.get_mut("data").and_then(|data| data.get_mut(operation.name));
                body = field.map(Value::take).unwrap_or_default();
            }
            return Ok(Answered::Done(Reply { headers: answer.headers, body }));
        }
        Verdict::Known(means, words) => match means {
            Means::Gone => return Ok(Answered::Gone),
            Means::Taken => return Ok(Answered::Taken(said(&words))),
            Means::Ambiguous => return Ok(Answered::Ambiguous),
            Means::Refused(code) => Failure::refused(code, format!("{} ({status})", said(&words))),
            Means::SaysNo(code) => {
                let refusal =
                    Refusal { code: code.to_owned(), message: format!("{} ({status})", said(&words)) };
                if operation.kind == Kind::Write {
                    return Ok(Answered::SaysNo(refusal));
                }
                Failure::Refused(refusal)
            }
            // Of a write known by its words alone it may be our own lost call that is under way.
            Means::NotYet if operation.wire == Wire::GraphQl && operation.kind == Kind::Write => {
                in_doubt(not_yet(&said(&words)))
            }
            Means::NotYet => not_yet(&said(&words)),
            // The operation's own gate spaces it; the credential is as good as before.
            Means::Slot => Failure::not_yet(said(&words), SLOT),
            Means::Throttled => Failure::Unavailable {
                cause: Cause::RateLimited,
                detail: format!("{provider} asked to slow down ({status})"),
                retry_after: retry_after(&answer.headers),
            },
            // What it says in words may repeat the credential.
            Means::Credential => Failure::Unavailable {
                cause: Cause::Credential,
                detail: format!("{provider} refused the credential ({status})"),
                retry_after: None,
            },
            Means::Denied => denied(&format!("{provider} denies it: {} ({status})", said(&words))),
        },
        Verdict::Unknown(cause, detail) => {
            unclear(operation.kind, cause, detail, retry_after(&answer.headers))
        }
    })
}

/// How long a workspace that made something waits before it makes the next.
const SLOT: Duration = secs(31);

/// What is not known after a write is in doubt, and after a read unavailable.
pub(crate) fn unclear(kind: Kind, cause: Cause, detail: String, retry_after: Option<Duration>) -> Failure {
    match kind {
        Kind::Read => Failure::Unavailable { cause, detail, retry_after },
        Kind::Write | Kind::Remove => Failure::NoAnswer { cause, detail },
    }
}

/// An answer that is not what it has to be.
pub(crate) fn unreadable(detail: impl Into<String>) -> Failure {
    Failure::Unavailable { cause: Cause::Unreadable, detail: detail.into(), retry_after: None }
}

/// The credential is good and may not do this: it is tried again, a person has to look, and nobody else is held up.
pub(crate) fn denied(detail: &str) -> Failure {
    Failure::Unavailable { cause: Cause::Refused, detail: detail.to_owned(), retry_after: None }
}

/// The thing is not ready; it is asked again after a while of ours.
pub(crate) fn not_yet(detail: &str) -> Failure {
    Failure::not_yet(detail, Duration::from_secs(3))
}

/// It was asked to go: the next look says whether it went.
pub(crate) fn still_there(detail: &str) -> Failure {
    Failure::Unavailable { cause: Cause::StillThere, detail: detail.to_owned(), retry_after: None }
}

/// What failed is a read, and before it something was written of which nothing is known: also where the read was
/// refused, which says nothing of the write.
pub(crate) fn in_doubt(failure: Failure) -> Failure {
    match failure {
        Failure::Unavailable { cause, detail, .. } => Failure::NoAnswer { cause, detail },
        Failure::Refused(refusal) => Failure::NoAnswer { cause: Cause::Refused, detail: refusal.to_string() },
        lost => lost,
    }
}
