//! Exit codes: what a script learns from a command without reading its words.

use std::process::ExitCode;

/// How a command ended. The numbers are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; with `--wait`, the saga completed.
    Done = 0,
    /// Something unexpected, here or at the server.
    Unexpected = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Not logged in.
    Unauthorized = 3,
    /// There is no such thing.
    NotFound = 4,
    /// Not allowed.
    Forbidden = 5,
    /// Its state does not allow it: look again.
    Conflict = 6,
    /// The content was refused.
    Rejected = 7,
    /// The server cannot be reached, or cannot take it just now.
    Unavailable = 8,
    /// `--wait` ran out of time; the saga goes on.
    TimeUp = 9,
    /// The saga ended compensated.
    Compensated = 10,
    /// The saga ended failed.
    Failed = 11,
    /// The saga needs a person.
    NeedsPerson = 12,
}

impl Exit {
    /// What an HTTP status that is not a success means to a script.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 | 421 => Self::Forbidden,
            404 => Self::NotFound,
            409 | 412 => Self::Conflict,
            408 | 429 | 502 | 503 => Self::Unavailable,
            400..=499 => Self::Rejected,
            _ => Self::Unexpected,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
