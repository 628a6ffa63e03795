//! Table: the form in which a provider's definite answers are written down.

use strum::Display;

/// What a call does when it arrives twice, or when its answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Kind {
    /// It changes nothing: a lost answer is simply asked for again.
    Read,
    /// It may have happened when its answer is lost.
    Write,
    /// It takes something away: it may have happened, and does no harm when it is sent again.
    Remove,
}

/// One operation of a provider, with every answer to it that is definite.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) provider: &'static str,
    /// The provider's own name of it; with GraphQL also the field that is asked for.
    pub(crate) name: &'static str,
    pub(crate) request: &'static str,
    pub(crate) kind: Kind,
    pub(crate) wire: Wire,
    pub(crate) done: Done,
    /// In groups, so that operations share what they have in common; the first line that fits counts.
    pub(crate) rows: &'static [&'static [Row]],
}

impl Operation {
    pub(crate) fn rows(&self) -> impl Iterator<Item = &'static Row> {
        self.rows.iter().flat_map(|group| group.iter())
    }
}

/// How answers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// The status says it, together with the body; what the error says in words is at this pointer.
    Rest(&'static str),
    /// HTTP 200 with `data` or with `errors`. With both nothing is known: a part may have been done.
    GraphQl,
}

/// The answer that means done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) status: u16,
    pub(crate) body: Body,
    pub(crate) source: Source,
}

/// What the body of such an answer has. With GraphQL pointers begin at the field that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body {
    /// There is none.
    Empty,
    /// These fields.
    Fields(&'static [Field]),
    /// A list, each entry of which has the fields `row`; and besides it the fields `page`.
    List { at: &'static str, row: &'static [Field], page: &'static [Field] },
    /// A header of this name, whose value is `sha256:` and 64 hexadecimal digits. The body does not count.
    Digest(&'static str),
}

/// A field without which an answer is not what it claims to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    /// A JSON pointer.
    pub(crate) at: &'static str,
    pub(crate) is: Is,
}

/// What a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Is {
    /// An id, an address, a secret: 1 to 512 characters, each of which can be seen.
    Text,
    /// A secret that is sent back in a header: 1 to 8192 visible ASCII characters.
    Secret,
    /// Such an id, or null.
    TextOrNull,
    /// Such an id, or null, or absent.
    MaybeText,
    /// Any string.
    Words,
    /// Any string, or null.
    WordsOrNull,
    /// Any string, or null, or absent.
    MaybeWords,
    /// The name of a host: labels of letters, digits and dashes, separated by dots.
    Host,
    /// True or false.
    Flag,
    /// True.
    Yes,
    /// A whole number, not negative.
    Count,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list.
    List,
    /// An object, or absent.
    MaybeObject,
    /// Absent.
    Absent,
}

/// One line of a table: an answer and what it means.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) status: u16,
    pub(crate) shape: Shape,
    pub(crate) means: Means,
    pub(crate) source: Source,
}

/// What the body of such an answer looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// The text at `at` is this one, and the error has these fields besides.
    Text { at: &'static str, is: &'static str, with: &'static [Field] },
    /// The number at `at` is this one, and the error has these fields besides.
    Number { at: &'static str, is: u64, with: &'static [Field] },
    /// There is an error of this form.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "only a line that is wrong is so loose, and tests have those")
    )]
    Fields(&'static [Field]),
    /// `errors` is a list of which each entry has this at `at`; a star stands for anything. Entries that fit different
    /// lines have to mean the same.
    Errors { at: &'static str, like: &'static str },
}

/// What an answer means that is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Means {
    /// Nothing was done and will be; by this code.
    Refused(&'static str),
    /// The same of a read. After a write it proves nothing at once, since the words are of so open a form that a failure
    /// of another kind may read so.
    SaysNo(&'static str),
    /// Nothing was done, for there is one already: maybe ours.
    Taken,
    /// It is not there.
    Gone,
    /// Nothing was done; later it may be.
    NotYet,
    /// Nothing was done; this operation is limited to one in a while.
    Slot,
    /// Nothing was done; too many calls of this credential.
    Throttled,
    /// Nothing was done; the credential is not good.
    Credential,
    /// Nothing was done; the credential is good, and may not do this with this thing.
    Denied,
    /// Gone, or somebody else's, or the credential is not good: another call tells which.
    Ambiguous,
}

/// Who says so, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A specification that programs read.
    Spec(&'static str),
    /// The provider's documentation, tools or staff.
    Docs(&'static str),
    /// Seen by others.
    Inferred(&'static str),
}

/// Whether a text is like a pattern in which each star stands for anything; letters in any case.
pub(crate) fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.to_ascii_lowercase(), pattern.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_anchored_at_both_ends() {
        assert!(is_like("Project not found", "project not found"));
        assert!(!is_like("Invalid name \"Project not found\"", "Project not found"));
        assert!(is_like(
            "A service named \"x\" already exists in this project",
            "A service named \"*\" already exists in this project"
        ));
        assert!(!is_like(
            "A service named \"x\" already exists in this projects",
            "A service named \"*\" already exists in this project"
        ));
        assert!(is_like("Max size of 5 MB on current plan", "Max size of * MB on current plan"));
        assert!(is_like("anything", "*") && is_like("", "*"));
        assert!(!is_like("aa", "a*aa"), "parts do not overlap");
    }
}
