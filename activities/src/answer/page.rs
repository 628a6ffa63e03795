//! Page: the tables as people read them.

use std::fmt::Write;

use super::operations;
use super::table::{Body, Field, Is, Kind, Means, Operation, Shape, Source, Wire};
use crate::http::retry_after::RETRY_AFTER_MAX;
use crate::http::walk::{PAGES_MAX, ROWS_MAX};
use crate::http::{ANSWER_MAX, CONNECT_LIMIT, READ_LIMIT, WRITE_LIMIT};

const HEAD: &str = "# What providers' answers mean

This page is made from the tables in `activities/src/<provider>/answers.rs`; a test holds the two in step.

An answer is definite only if it stands here: its status, and the body that the provider gives with it.
Whatever else comes, of whatever status, is *in doubt* after a write or a removal (the engine looks what became of it) and *unavailable* after a read (it is asked again).
So a gateway's 404 is not *gone*, a page of HTML is not *refused*, and a list that lacks its list is not empty.

- An id is a text of 1 to 512 characters without control characters, marks of writing direction and characters without width; an entry of a list that lacks what is said here makes the whole page unreadable.
- A body of HTTP 2xx that has an `error` or `errors` beside what was asked for is not done. With GraphQL, `data` and `errors` together mean nothing.
- With several `errors` each has to stand in the table, and all have to mean the same.
- A 429 of any form means *throttled* after a read or a removal; after a write only the provider's own does.
- What a provider says in words is kept to 200 characters, without any of those.

| the answer means | the engine is told |
|---|---|
| done | the output |
| refused | refused, by this code |
| says no | of a read: refused, by this code. After a write it is in doubt, since another failure may read so; it is looked for behind each, and given up with these words like any step that is tried in vain |
| taken | our own is looked for by its mark; without one it is refused, or in doubt as long as ours may not show yet |
| gone | for a removal and for the read behind it: gone. For what was just made: not yet |
| not yet | unavailable; it is asked again after 3 seconds. After a write of Railway's, which says so in words alone, in doubt |
| one at a time | unavailable; it is asked again after 31 seconds, and the credential's gate stays open |
| throttled | unavailable; the credential's gate closes for as long as `Retry-After` says |
| credential | unavailable; the credential's gate closes. With another credential that one is used |
| denied | unavailable, `needs_decision`; no gate closes, for the credential is good |
| gone or denied | a call that any good credential may make tells a bad credential apart; behind a removal it is gone, otherwise denied |
";

/// What every answer of every provider means, in Markdown: `docs/provider-answers.md`.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    let seconds = |limit: std::time::Duration| limit.as_secs();
    let _ = write!(
        page,
        "\n## Bounds\n\n\
        | of | at most | beyond it |\n|---|---|---|\n\
        | a body | {} MiB, as it comes; nothing is decompressed | unreadable |\n\
        | JSON | 128 levels | unreadable |\n\
        | a list | {PAGES_MAX} pages, {ROWS_MAX} entries; a cursor or a page that comes twice ends it | unavailable, with this cause |\n\
        | `Retry-After` | {} seconds; seconds, fractions, and dates beside the answer's own `Date` | taken as that; what cannot be read is ignored |\n\
        | a connection | {} seconds | unavailable: nothing was sent |\n\
        | a read, its body included | {} seconds | unavailable |\n\
        | a write or a removal, its body included | {} seconds | in doubt |\n\n\
        Redirects are not followed. No call is repeated by the client. Calls to this machine never go through a proxy.\n",
        ANSWER_MAX >> 20,
        seconds(RETRY_AFTER_MAX),
        seconds(CONNECT_LIMIT),
        seconds(READ_LIMIT),
        seconds(WRITE_LIMIT),
    );
    let mut provider = "";
    for operation in operations() {
        if operation.provider != provider {
            provider = operation.provider;
            let _ = write!(page, "\n## {provider}\n");
        }
        describe(&mut page, operation);
    }
    page
}

fn describe(page: &mut String, operation: &Operation) {
    let Operation { name, request, kind, done, .. } = operation;
    let kind = match kind {
        Kind::Read => "a read",
        Kind::Write => "a write",
        Kind::Remove => "a removal",
    };
    let _ = write!(page, "\n### {name}\n\n`{request}`, {kind}.\n\n");
    let _ = write!(page, "| status | body | means | source |\n|---|---|---|---|\n");
    let source = link(done.source);
    let _ =
        writeln!(page, "| {} | {} | done | {source} |", done.status, body(operation.wire, name, done.body));
    for row in operation.rows() {
        let shape = match row.shape {
            Shape::Text { at, is, with } => format!("`{at}` = `{is}`{}", and(with)),
            Shape::Number { at, is, with } => format!("`{at}` = {is}{}", and(with)),
            Shape::Fields(fields) => all("", fields),
            Shape::Errors { at, like: "*" } => format!("each of `/errors` has `{at}`"),
            Shape::Errors { at, like } => format!("each of `/errors` has `{at}` = `{}`", escaped(like)),
        };
        let means = match row.means {
            Means::Refused(code) => format!("refused `{code}`"),
            Means::SaysNo(code) => format!("says no `{code}`"),
            Means::Taken => "taken".to_owned(),
            Means::Gone => "gone".to_owned(),
            Means::NotYet => "not yet".to_owned(),
            Means::Slot => "one at a time".to_owned(),
            Means::Throttled => "throttled".to_owned(),
            Means::Credential => "credential".to_owned(),
            Means::Denied => "denied".to_owned(),
            Means::Ambiguous => "gone or denied".to_owned(),
        };
        let _ = writeln!(page, "| {} | {shape} | {means} | {} |", row.status, link(row.source));
    }
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}

fn and(fields: &[Field]) -> String {
    if fields.is_empty() { String::new() } else { format!(", {}", all("", fields)) }
}

fn body(wire: Wire, name: &str, body: Body) -> String {
    let root = if wire == Wire::GraphQl { format!("/data/{name}") } else { String::new() };
    match body {
        Body::Empty => "none".to_owned(),
        Body::Fields(fields) => all(&root, fields),
        Body::Digest(header) => format!("header `{header}`: `sha256:` and 64 hexadecimal digits"),
        Body::List { at, row, page } => {
            let page = if page.is_empty() { String::new() } else { format!("; {}", all(&root, page)) };
            format!("`{root}{at}` list, each entry: {}{page}", all("", row))
        }
    }
}

fn all(root: &str, fields: &[Field]) -> String {
    let each: Vec<String> =
        fields.iter().map(|field| format!("`{root}{}` {}", field.at, what(field.is))).collect();
    each.join(", ")
}

fn what(is: Is) -> String {
    match is {
        Is::Text => "id".to_owned(),
        Is::Secret => "secret".to_owned(),
        Is::TextOrNull => "id or null".to_owned(),
        Is::MaybeText => "id, if there is one".to_owned(),
        Is::Words => "text".to_owned(),
        Is::WordsOrNull => "text or null".to_owned(),
        Is::MaybeWords => "text, if there is one".to_owned(),
        Is::Host => "name of a host".to_owned(),
        Is::Flag => "true or false".to_owned(),
        Is::Yes => "true".to_owned(),
        Is::Count => "whole number".to_owned(),
        Is::OneOf(words) => format!("one of {}", words.join(", ")),
        Is::List => "list".to_owned(),
        Is::MaybeObject => "object, if there is one".to_owned(),
        Is::Absent => "absent".to_owned(),
    }
}

fn link(source: Source) -> String {
    let (mark, at) = match source {
        Source::Spec(at) => ("spec", at),
        Source::Docs(at) => ("docs", at),
        Source::Inferred(at) => ("inferred", at),
    };
    if at.starts_with("https://") { format!("[{mark}]({at})") } else { format!("{mark} (`{at}`)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `AMENDS_UPDATE=1` writes the page.
    #[test]
    fn the_page_says_what_the_tables_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/provider-answers.md");
        if std::env::var_os("AMENDS_UPDATE").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert_eq!(written, page(), "run this test with AMENDS_UPDATE=1 and look at what changes");
    }

    #[test]
    fn every_line_has_its_source_and_its_place() {
        for operation in operations() {
            for row in operation.rows() {
                let what = format!("{} {} {row:?}", operation.provider, operation.name);
                assert!(!(200..300).contains(&row.status) || operation.wire == Wire::GraphQl, "{what}");
                assert!(row.status < 500, "a server error says nothing: {what}");
                let (Source::Spec(at) | Source::Docs(at) | Source::Inferred(at)) = row.source;
                assert!(at.starts_with("https://") || at.starts_with("activities/contracts/"), "{what}");
                let is_gone = matches!(row.means, Means::Gone | Means::Ambiguous);
                assert!(!is_gone || row.status == 404 || operation.wire == Wire::GraphQl, "{what}");
            }
        }
    }
}
