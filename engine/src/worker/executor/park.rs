//! Parking: what a saga comes to that the store refuses, or that cannot get on.
//!
//! It is a turn of its own, on what the journal says: one entry with a bounded text, so that it can be written where what
//! was refused could not be. What that held is as after a crash: a call whose outcome was in it is lost, and looked for.

use std::collections::HashSet;
use std::sync::Arc;

use super::writing;
use crate::activity::retry;
use crate::env::Env;
use crate::ids::{OperationId, SagaId};
use crate::journal::event::Event;
use crate::journal::state::Attention;
use crate::journal::{Entry, State};
use crate::store::tx::Beside;
use crate::store::{Append, Error, LETTERS_PAGE, Letter, Loaded, Message, Settled};
use crate::worker::Shared;

/// How much is kept of what a database says.
const WORDS_MAX: usize = 500;

/// A turn that the store does not take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What it said.
    pub(crate) detail: String,
    /// The acts that were part of it.
    pub(crate) acts: Vec<OperationId>,
    /// And all letters that were.
    pub(crate) letters: Vec<String>,
}

/// Text that every database takes, whatever its encoding: short, and without what is not ASCII.
fn plain(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii() && !letter.is_ascii_control();
    text.chars().map(|letter| if is_plain(letter) { letter } else { '?' }).take(WORDS_MAX).collect()
}

/// Parks a saga, and settles the acts that were refused with it; the other letters stay, and wake it no more.
///
/// # Errors
/// Another has written meanwhile, or the store does not take this either.
pub(crate) async fn park(shared: &Shared, saga: &SagaId, refused: &Refused) -> Result<(), Error> {
    let loaded = shared.store.load(saga).await?;
    let letters = concerned(shared, saga, refused).await?;
    let (append, state) = parking(&shared.env, saga, loaded, letters, refused)?;
    let append = Arc::new(append);
    let mut attempt = 0;
    loop {
        match shared.noted(shared.store.append(append.clone()).await) {
            Ok(()) => break,
            Err(Error::Unavailable(detail)) if !shared.is_draining() => {
                attempt += 1;
                tracing::warn!(%saga, detail, "that the saga is parked could not be written, trying again");
                shared.env.sleep(retry::delay(attempt.min(5), None, &shared.env)).await;
            }
            Err(error) => return Err(error),
        }
    }
    tracing::error!(%saga, detail = state.parked.as_ref().map(|(_, detail)| detail), "the saga is parked");
    shared.written(&append);
    Ok(())
}

/// The letters that were part of what was refused.
async fn concerned(shared: &Shared, saga: &SagaId, refused: &Refused) -> Result<Vec<Letter>, Error> {
    let (mut all, mut after) = (Vec::new(), None::<String>);
    if refused.acts.is_empty() && refused.letters.is_empty() {
        return Ok(all);
    }
    loop {
        let page = shared.store.letters_page(saga, after.as_deref(), LETTERS_PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some(last.id.clone());
        all.extend(page.into_iter().filter(|letter| {
            let is_act = |operation| refused.acts.contains(operation);
            let is_theirs = matches!(&letter.message, Message::Act { operation, .. } if is_act(operation));
            is_theirs || refused.letters.contains(&letter.id)
        }));
    }
}

fn parking(
    env: &Env,
    saga: &SagaId,
    loaded: Loaded,
    letters: Vec<Letter>,
    refused: &Refused,
) -> Result<(Append, State), Error> {
    let unreadable = |detail: String| Error::Unreadable(detail);
    let mut state =
        State::fold(saga.clone(), &loaded.entries).map_err(|error| unreadable(error.to_string()))?;
    state.ledger.take_changed();
    let detail = plain(&refused.detail);
    let event = Event::Parked { attention: Attention::StoreRefused, detail: detail.clone() };
    let entry = Entry { seq: state.seq + 1, at: env.now(), epoch: loaded.epoch, event };
    state.apply(&entry).map_err(|error| unreadable(error.to_string()))?;
    let acts: HashSet<&OperationId> = refused.acts.iter().collect();
    let is_settled = |letter: &Letter| match &letter.message {
        Message::Act { operation, .. } => acts.contains(operation),
        _ => false,
    };
    let (settled, left): (Vec<Letter>, Vec<Letter>) = letters.into_iter().partition(is_settled);
    let waits = state.gate_waits();
    let mut append = writing::build(&mut state, loaded.epoch, vec![entry], Beside::default());
    append.waits = Some(waits);
    append.consumed = settled.into_iter().map(|letter| letter.id).collect();
    append.passed_over =
        left.into_iter().map(|letter| letter.id).filter(|id| refused.letters.contains(id)).collect();
    let outcome = format!("refused: {detail}");
    append.settled = refused
        .acts
        .iter()
        .map(|operation| Settled { operation: operation.clone(), outcome: outcome.clone() })
        .collect();
    Ok((append, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_database_says_is_kept_short_and_plain() {
        assert_eq!(plain("no \u{fc}ber\n\0"), "no ?ber??");
        assert_eq!(plain(&"x".repeat(3000)).len(), WORDS_MAX);
    }
}
