//! Limits: how large what a user hands over may be, and the checks that refuse by name what is larger.

use super::Unstorable;
use crate::ids::SagaId;
use crate::journal::act::NOBODY;
use crate::store::INDEXED_MAX;

/// The longest key of a step, as it is shown, and of a start: 1000 bytes, as a store's index takes them.
pub const KEY_MAX: usize = INDEXED_MAX;
/// The longest name: of a label and its value, of a resource, its provider, kind, keeper and id there, of an owner, a
/// signal, a concurrency key, a gate, an actor: 1000 bytes.
pub const NAME_MAX: usize = INDEXED_MAX;
/// The longest id of a signal: 900 bytes, since the saga's id stands before it.
pub const SIGNAL_ID_MAX: usize = 900;
/// The longest reason of an act: 4096 bytes.
pub const REASON_MAX: usize = 4096;
/// The most labels of one saga.
pub const LABELS_MAX: usize = 64;
/// The most places in a patched input that hold what other steps made.
pub const REFERENCES_MAX: usize = 1000;
/// The largest input, output or signal, as JSON text: 2 MiB.
pub const VALUE_MAX: usize = 2 * 1024 * 1024;
/// The most that other steps made in one input, as JSON text, all places together: 16 MiB.
pub const MADE_MAX: usize = 8 * VALUE_MAX;
/// The most places in one input that hold what other steps made.
pub const PLACES_MAX: usize = 10_000;
/// The deepest input, output or signal: so many lists and maps in one another. A journal's line adds a few, and the
/// reader of JSON stops at 128.
pub const DEPTH_MAX: usize = 100;
/// So much is kept of what a failure says, in bytes.
pub(crate) const DETAIL_MAX: usize = 4096;

/// Refuses a text that is longer than `max` bytes, or that a database's text cannot hold.
fn text(what: &str, text: &str, max: usize) -> Result<(), Unstorable> {
    if text.len() > max {
        let problem = format!("is too long: {} bytes, and {max} are allowed", text.len());
        return Err(Unstorable::new(what, problem));
    }
    if text.contains('\0') {
        return Err(Unstorable::new(what, "has the character NUL, which the text of a database cannot hold"));
    }
    Ok(())
}

/// Refuses a name that is too long or holds a NUL.
pub(crate) fn name(what: &str, name: &str) -> Result<(), Unstorable> {
    text(what, name, NAME_MAX)
}

/// Refuses an id of a signal that is too long or holds a NUL.
pub(crate) fn signal_id(id: &str) -> Result<(), Unstorable> {
    text("the id of the signal", id, SIGNAL_ID_MAX)
}

/// Refuses a reason that is too long or holds a NUL.
pub(crate) fn reason(reason: &str) -> Result<(), Unstorable> {
    text("the reason", reason, REASON_MAX)
}

/// Refuses a key of a start that is empty, too long or holds a NUL.
pub(crate) fn start_key(key: &str) -> Result<(), Unstorable> {
    if key.is_empty() {
        return Err(Unstorable::new("the key of the start", "is empty"));
    }
    text("the key of the start", key, KEY_MAX)
}

/// Refuses an owner that is too long, holds a NUL, or would be taken for a saga or for nobody.
pub(crate) fn owner(what: &str, owner: &str) -> Result<(), Unstorable> {
    name(what, owner)?;
    owner_of_any_length(what, owner)
}

/// The same of an owner whose length the store refuses by itself.
pub(crate) fn owner_of_any_length(what: &str, owner: &str) -> Result<(), Unstorable> {
    text(what, owner, usize::MAX)?;
    if owner.is_empty() {
        return Err(Unstorable::new(what, "is empty"));
    }
    if owner == NOBODY || SagaId::parse(owner).is_ok() {
        let problem = format!("is {owner:?}, which stands for a saga or for nobody on the ledger");
        return Err(Unstorable::new(what, problem));
    }
    Ok(())
}

/// Refuses a kind of a secret that is empty, too long or holds a NUL: it is part of what the secret is sealed with.
pub(crate) fn secret_kind(kind: &str) -> Result<(), Unstorable> {
    if kind.is_empty() {
        return Err(Unstorable::new("the kind of a secret", "is empty"));
    }
    name("the kind of a secret", kind)
}

/// Refuses a label that is too long, or holds a NUL, in its name or its value.
pub(crate) fn label(label: &str, value: &str) -> Result<(), Unstorable> {
    if label.is_empty() {
        return Err(Unstorable::new("the name of a label", "is empty"));
    }
    name("the name of a label", label)?;
    name(&format!("the value of the label {label:?}"), value)
}

/// Refuses more labels than one saga may have.
pub(crate) fn labels(count: usize) -> Result<(), Unstorable> {
    if count > LABELS_MAX {
        let problem = format!("are too many: {count}, and {LABELS_MAX} are allowed");
        return Err(Unstorable::new("its labels", problem));
    }
    Ok(())
}

/// Refuses more places in an input that hold what other steps made than one may have.
pub(crate) fn references(count: usize) -> Result<(), Unstorable> {
    if count > REFERENCES_MAX {
        let problem = format!("are too many: {count}, and {REFERENCES_MAX} are allowed");
        return Err(Unstorable::new("the references of the input", problem));
    }
    Ok(())
}

/// The beginning of what a failure says; what was left out is said.
pub(crate) fn cut(detail: &mut String) {
    if detail.len() <= DETAIL_MAX {
        return;
    }
    let length = detail.len();
    let mut end = DETAIL_MAX;
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    detail.truncate(end);
    detail.push_str(&format!("… ({length} bytes)"));
}

/// A text from outside as it is kept beside what is ours: its beginning, and no NUL.
pub(crate) fn kept(text: &str, max: usize) -> String {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let (start, is_cut) = (text.get(..end).unwrap_or_default(), end < text.len());
    let mut kept = start.replace('\0', "\u{fffd}");
    if is_cut {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_the_last_length_that_is_taken_and_what_exceeds_it_is_named() {
        assert_eq!(name("the owner", &"n".repeat(NAME_MAX)), Ok(()));
        let error = name("the owner", &"n".repeat(NAME_MAX + 1)).unwrap_err().to_string();
        assert_eq!(error, "the owner is too long: 1001 bytes, and 1000 are allowed");
        assert!(start_key("").is_err() && start_key("a\0").is_err() && start_key("a").is_ok());
        assert!(owner("the owner", "nobody").is_err() && owner("the owner", "house").is_ok());
    }

    #[test]
    fn what_comes_from_outside_is_kept_without_nul_and_no_longer_than_it_may_be() {
        assert_eq!(kept("a\0b", 10), "a\u{fffd}b");
        assert_eq!(kept("", 10), "");
        assert_eq!(kept("ööö", 3), "ö…");
        assert_eq!(kept("ööö", 6), "ööö");
    }

    #[test]
    fn what_is_cut_ends_between_two_characters() {
        let mut text = "ö".repeat(DETAIL_MAX);
        cut(&mut text);
        assert!(text.len() < DETAIL_MAX + 40 && text.ends_with("… (8192 bytes)"), "{text}");
    }
}
