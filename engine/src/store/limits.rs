//! Limits: how long text may be that comes from outside and that a database finds things by.
//!
//! They are the same on every store, so that what is written on one can be written on another: the index of a Postgres
//! table takes no more than 2,704 bytes for all columns of an entry together.

use crate::store::{Append, Closing, Error, GateMove, Letter, Loose, NewSaga, SecretFate};

/// The longest text by which something is found: keys, owners, ids from outside, names of gates, steps and
/// definitions. In bytes of UTF-8.
pub const INDEXED_MAX: usize = 1_000;
/// The longest label, name and value together, that a list finds by an index; a longer one is looked for.
pub(in crate::store) const LABEL_INDEXED_MAX: usize = 1_000;

fn within<'t>(fields: impl IntoIterator<Item = (&'static str, &'t str)>) -> Result<(), Error> {
    let too_long = fields.into_iter().find(|(_, text)| text.len() > INDEXED_MAX);
    match too_long {
        None => Ok(()),
        Some((field, text)) => Err(Error::TooLong { field, bytes: text.len(), limit: INDEXED_MAX }),
    }
}

/// Whether a saga can be started.
pub(crate) fn start(new: &NewSaga) -> Result<(), Error> {
    let concurrency = new.concurrency.iter().map(|bound| ("the concurrency key", bound.key.as_str()));
    within(
        [("the key of a start", new.key.as_str()), ("the workflow", &new.workflow)]
            .into_iter()
            .chain(concurrency),
    )
}

/// Whether a letter can be left.
pub(in crate::store) fn letter(letter: &Letter) -> Result<(), Error> {
    within([("the id of a message", letter.id.as_str())])
}

/// Whether a gate can be moved.
pub(in crate::store) fn gate(moved: &GateMove) -> Result<(), Error> {
    within([("the key of a gate", moved.key.as_str())])
}

/// Whether a turn can be written.
pub(in crate::store) fn append(append: &Append) -> Result<(), Error> {
    for write in &append.resources {
        let row = &write.row;
        within([("the owner", row.holder.as_str()), ("the provider", &row.provider)])?;
    }
    if let SecretFate::PassTo(owner) = &append.secrets {
        within([("the owner", owner.as_str())])?;
    }
    within(append.closings.iter().map(|Closing { key, .. }| ("the key of a gate", key.as_str())))?;
    for wait in append.waits.iter().flatten() {
        within([("the key of a gate", wait.gate.as_str()), ("the step", wait.step.as_str())])?;
    }
    append.starts.iter().try_for_each(start)?;
    append.letters.iter().try_for_each(letter)
}

/// Whether what a transaction that belongs to no saga asks for besides its SQL can be written.
pub(in crate::store) fn loose(loose: &Loose) -> Result<(), Error> {
    loose.beside.starts.iter().try_for_each(start)?;
    loose.letters.iter().try_for_each(letter)
}
