//! Fingerprint: what groups a failure with the same trouble elsewhere.

/// The version of the rule; a change of it never relabels what is recorded.
const VERSION: &str = "fp1";
/// So much of what a failure says counts.
const SAID_MAX: usize = 160;

/// The fingerprint of a failure: of which definition, on which lane (`forward` or `undo`), in which step, of which
/// activity, how, and what was said, without what differs from one saga to the next.
pub fn fingerprint(
    workflow: &str,
    lane: &str,
    step: &str,
    activity: &str,
    cause: &str,
    detail: &str,
) -> String {
    let parts = [workflow, lane, &plain(step), activity, cause, &plain(detail)].join("\n");
    let hash = blake3::hash(parts.as_bytes()).to_hex();
    format!("{VERSION}:{}", hash.chars().take(32).collect::<String>())
}

/// The first line, with a mark where a number, an id, an address or a path stood.
fn plain(text: &str) -> String {
    let line: String = text.lines().next().unwrap_or_default().chars().take(SAID_MAX).collect();
    let words = line.split_whitespace().map(|word| {
        let bare = word.trim_matches(|sign: char| !sign.is_alphanumeric() && sign != '/');
        if bare.contains('@') {
            "<address>".to_owned()
        } else if bare.contains("://") || bare.starts_with('/') {
            "<path>".to_owned()
        } else {
            let marked = |part: &str| {
                let differs = part.bytes().any(|byte| byte.is_ascii_digit());
                if differs { "#".to_owned() } else { part.to_lowercase() }
            };
            bare.split(['/', ':', '=', ',']).map(marked).collect::<Vec<_>>().join("/")
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_saga_to_saga_does_not_count_and_what_went_wrong_does() {
        let of = |detail: &str| fingerprint("claim", "forward", "tool/inbox", "mail.open", "refused", detail);
        assert_eq!(of("no room for a-17 (trace 8c1)"), of("no room for b-3, trace 99f"));
        assert_eq!(of("see https://x.io/a"), of("see https://x.io/b"));
        assert_ne!(of("no room"), of("no credit"));
        assert_ne!(
            of("no room"),
            fingerprint("claim", "undo", "tool/inbox", "mail.open", "refused", "no room")
        );
        assert!(of("").starts_with("fp1:"));
    }
}
