//! Errors: whether what failed may succeed later, or never will.

use rusqlite::ErrorCode;

use crate::store::Error;

/// A write that failed. Nothing of its transaction stays, so it may be tried again, unless the database has said that
/// it is the data which it does not take. A full disk, a lock, an error of the medium pass or are mended.
pub(super) fn write_error(error: rusqlite::Error) -> Error {
    let code = error.sqlite_error_code();
    let is_refused = match code {
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => true,
        Some(_) => false,
        // Not the database's word: a value that cannot be bound, or a row that reads as something else.
        None => !matches!(error, rusqlite::Error::QueryReturnedNoRows),
    };
    if is_refused { Error::Refused(error.to_string()) } else { Error::Unavailable(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some("words".to_owned()))
    }

    #[test]
    fn only_what_is_wrong_with_the_data_is_refused_for_ever() {
        use rusqlite::ffi;
        for code in
            [ffi::SQLITE_CONSTRAINT, ffi::SQLITE_CONSTRAINT_TRIGGER, ffi::SQLITE_TOOBIG, ffi::SQLITE_MISMATCH]
        {
            assert_eq!(write_error(failure(code)), Error::Refused("words".to_owned()), "{code}");
        }
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_BUSY,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_ERROR,
        ] {
            assert_eq!(write_error(failure(code)), Error::Unavailable("words".to_owned()), "{code}");
        }
    }
}
