//! Walk: through the pages of a list, to its end and no further.

use std::collections::HashSet;

use amends_engine::Failure;

use crate::answer::unreadable;

/// No list that we read has more pages.
pub(crate) const PAGES_MAX: usize = 200;
/// No list that we read has more entries.
pub(crate) const ROWS_MAX: usize = 20_000;

/// How far a walk is. A list that does not end, or that turns in a circle, was not read.
pub(crate) struct Walk {
    of: &'static str,
    pages: usize,
    rows: usize,
    cursors: HashSet<String>,
}

impl Walk {
    pub(crate) fn new(of: &'static str) -> Self {
        Self { of, pages: 0, rows: 0, cursors: HashSet::new() }
    }

    /// A page with so many entries was read.
    pub(crate) fn read(&mut self, rows: usize) -> Result<(), Failure> {
        self.pages += 1;
        self.rows += rows;
        if self.pages > PAGES_MAX || self.rows > ROWS_MAX {
            let of = self.of;
            return Err(unreadable(format!(
                "the list of {of} has more than {PAGES_MAX} pages or {ROWS_MAX} entries: it was not read to its end"
            )));
        }
        Ok(())
    }

    /// The next page is at this cursor.
    pub(crate) fn goes_to(&mut self, cursor: &str) -> Result<(), Failure> {
        if self.cursors.insert(cursor.to_owned()) {
            return Ok(());
        }
        Err(unreadable(format!("the list of {} turns in a circle: a cursor came twice", self.of)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_does_not_end_was_not_read() {
        let mut walk = Walk::new("keys");
        assert!((0..PAGES_MAX).all(|_| walk.read(1).is_ok()));
        assert!(walk.read(1).is_err());
        assert!(Walk::new("keys").read(ROWS_MAX + 1).is_err());
        let mut walk = Walk::new("keys");
        assert!(walk.goes_to("a").is_ok() && walk.goes_to("b").is_ok());
        let Err(Failure::Unavailable { detail, .. }) = walk.goes_to("a") else { panic!() };
        assert!(detail.contains("turns in a circle"), "{detail}");
    }
}
