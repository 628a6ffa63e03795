//! Errors: what a failed statement means, by its SQLSTATE.

use crate::store::Error;
use crate::store::tx;

/// What to do about a statement that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The transaction lost against another: run it again as a whole.
    Again,
    /// The server cannot, just now; whether a commit took place may be unknown.
    Later,
    /// It will not do it.
    Never,
}

pub(super) fn remedy(error: &sqlx::Error) -> Remedy {
    match error {
        // It may be the sum of a group: each by itself is another matter.
        sqlx::Error::Database(inner) if inner.message().starts_with(TOO_LARGE) => Remedy::Never,
        sqlx::Error::Database(inner) => inner.code().as_deref().map_or(Remedy::Later, of_state),
        sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::Encode(_) => Remedy::Never,
        _ => Remedy::Later,
    }
}

/// By SQLSTATE. Only what says that the transaction was undone for the sake of another is run again: of anything else
/// it may not be known whether it took place.
fn of_state(code: &str) -> Remedy {
    match code {
        // A serialization failure, a deadlock.
        "40001" | "40P01" => Remedy::Again,
        // Something wrong with the statement: the tables are not as they were, or the role may not use them.
        _ if matches!(code.get(..2), Some("42" | "0A")) => Remedy::Never,
        _ if is_about_data(code) => Remedy::Never,
        _ => Remedy::Later,
    }
}

/// A constraint, a rule of the database's own, or values that it does not take: too many, too long, not of its
/// encoding. Another try with the same is refused again.
fn is_about_data(code: &str) -> bool {
    matches!(code.get(..2), Some("09" | "21" | "22" | "23" | "27" | "44" | "54" | "P0"))
}

/// What the server says of a value that is beyond all it can hold, for want of a code of its own.
const TOO_LARGE: &str = "invalid memory alloc request size";

/// What the engine hears of a write that failed.
pub(super) fn write_error(error: sqlx::Error) -> Error {
    let is_refused = match &error {
        sqlx::Error::Database(inner) => {
            inner.code().is_some_and(|code| is_about_data(&code)) || inner.message().starts_with(TOO_LARGE)
        }
        sqlx::Error::Encode(_) => true,
        _ => false,
    };
    let words = match &error {
        sqlx::Error::Database(inner) => inner.message().to_owned(),
        other => other.to_string(),
    };
    if is_refused { Error::Refused(words) } else { Error::Unavailable(error.to_string()) }
}

/// What it hears of a read that failed.
pub(super) fn read_error(error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => Error::Unreadable(error.to_string()),
        other => Error::Unavailable(other.to_string()),
    }
}

/// Whether a statement gave up waiting for a lock.
pub(super) fn is_locked(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(inner) if inner.code().as_deref() == Some("55P03"))
}

/// Whether a write failed because a ledger row was not as it had to be.
pub(super) fn is_moved_ledger(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(inner)
        if inner.table() == Some("resource") && matches!(inner.code().as_deref(), Some("23502" | "23505")))
}

/// What user SQL hears.
pub(super) fn refused(error: sqlx::Error) -> tx::Error {
    match &error {
        sqlx::Error::Database(inner)
            if inner.is_unique_violation()
                || inner.is_foreign_key_violation()
                || inner.is_check_violation() =>
        {
            tx::Error::Constraint(inner.message().to_owned())
        }
        other if remedy(other) == Remedy::Never => tx::Error::Malformed(error.to_string()),
        _ => tx::Error::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lost_against_another_transaction_is_run_again() {
        for code in ["40001", "40P01"] {
            assert_eq!(of_state(code), Remedy::Again, "{code}");
        }
        // Of 40003 nobody knows whether it was committed; the others may pass, or pass with another connection.
        for code in [
            "40000", "40002", "40003", "08006", "25006", "25P02", "53300", "55P03", "57014", "57P01",
            "XX000", "",
        ] {
            assert_eq!(of_state(code), Remedy::Later, "{code}");
        }
        for code in ["22003", "22P05", "23505", "23514", "42P01", "0A000", "54000", "P0001"] {
            assert_eq!(of_state(code), Remedy::Never, "{code}");
        }
        // Tables that are gone, or rights that were taken away, come back.
        for code in ["42P01", "42501", "0A000", "53100", "57P01", "40001"] {
            assert!(!is_about_data(code), "{code}");
        }
        for code in ["22021", "22P05", "23514", "54000", "P0001"] {
            assert!(is_about_data(code), "{code}");
        }
        assert_eq!(remedy(&sqlx::Error::PoolTimedOut), Remedy::Later);
        assert_eq!(remedy(&sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())), Remedy::Later);
        assert_eq!(remedy(&sqlx::Error::Encode("not a value".into())), Remedy::Never);
    }
}
