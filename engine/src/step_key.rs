//! Step key: the name of a step, a path of parts of which each may hold anything.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A step's name, unique in its saga: a path of parts, those of its scopes and its own.
///
/// It is kept and shown as one text: the parts with `/` between them, and in a part each `/`, `%`, control character
/// or mark of writing direction, and a `~` at its beginning, as the `%`-escaped bytes of it (`acme/web` is
/// `acme%2Fweb`). So every path has one text and every text at most one path, whatever the parts hold; one path is
/// inside another if its first parts are that one's, not if its text begins like that one's. A part that the engine
/// adds begins with `~` (`~label`).
///
/// In a program a text is one part, and several parts are a list: `.after("house")`, `.after(["item", name, "put"])`.
/// What was shown is [parsed](Self::parse).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepKey(String);

/// A text that is no key of a step as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no step's key: {problem}")]
pub struct MalformedKey {
    text: String,
    problem: &'static str,
}

impl StepKey {
    /// The saga itself: no step, and what every step is inside.
    pub fn root() -> Self {
        Self(String::new())
    }

    /// The key of a step named `name` inside this scope. An empty name is a part like others; sagas refuse it.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        self.then(&escaped(name))
    }

    /// The key of something that the engine keeps beside the steps of this scope; `kind` is plain.
    #[must_use]
    pub(crate) fn beside(&self, kind: &'static str) -> Self {
        self.then(&format!("~{kind}"))
    }

    fn then(&self, part: &str) -> Self {
        if self.is_root() { Self(part.to_owned()) } else { Self(format!("{}/{part}", self.0)) }
    }

    /// Reads a key as it is shown. Signs that need no escape may have one.
    ///
    /// # Errors
    /// A part is empty, a `%` has not two hexadecimal digits behind it, or the escapes of a part are no UTF-8.
    pub fn parse(text: &str) -> Result<Self, MalformedKey> {
        let malformed = |problem| MalformedKey { text: text.chars().take(80).collect(), problem };
        let mut key = Self::root();
        if text.is_empty() {
            return Ok(key);
        }
        for part in text.split('/') {
            if part.is_empty() {
                return Err(malformed("a part of it is empty"));
            }
            let (mark, rest) = part.strip_prefix('~').map_or(("", part), |rest| ("~", rest));
            let name = unescaped(rest).map_err(malformed)?;
            let name = if mark.is_empty() { escaped(&name) } else { format!("~{}", escaped_behind(&name)) };
            key = key.then(&name);
        }
        Ok(key)
    }

    /// A key as a store has it; not checked again.
    pub(crate) fn stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether this is the saga itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts, outermost first, each as it was given.
    pub fn parts(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.0.split('/').filter(|part| !part.is_empty()).map(|part| {
            // The mark of an empty part; behind another mark stands the name of something of the engine's.
            let part = if part == "~" { "" } else { part };
            unescaped(part).unwrap_or(Cow::Borrowed(part))
        })
    }

    /// Whether this step stands inside `scope`, at whatever depth; nothing is inside itself.
    pub fn is_inside(&self, scope: &StepKey) -> bool {
        // A `/` is always between two parts, so that this compares whole parts.
        match self.0.strip_prefix(&scope.0) {
            Some(rest) if scope.is_root() => !rest.is_empty(),
            Some(rest) => rest.starts_with('/'),
            None => false,
        }
    }

    /// The key as it is kept and shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a sign stands for itself within a part.
fn is_plain(sign: char) -> bool {
    let directs = matches!(
        sign,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    );
    !(sign == '/' || sign == '%' || sign.is_control() || directs)
}

fn escaped(name: &str) -> String {
    if name.is_empty() {
        return "~".to_owned();
    }
    match name.strip_prefix('~') {
        Some(rest) => format!("%7E{}", escaped_behind(rest)),
        None => escaped_behind(name),
    }
}

fn escaped_behind(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for sign in name.chars() {
        if is_plain(sign) {
            text.push(sign);
            continue;
        }
        for byte in sign.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn unescaped(part: &str) -> Result<Cow<'_, str>, &'static str> {
    if !part.contains('%') {
        return Ok(Cow::Borrowed(part));
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err("a % has not two hexadecimal digits behind it (a % itself is %25)");
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| "its escapes are no UTF-8")
}

impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for StepKey {
    type Err = MalformedKey;
    fn from_str(text: &str) -> Result<Self, MalformedKey> {
        Self::parse(text)
    }
}

impl Serialize for StepKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for StepKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// One part; the empty text is the root.
impl From<&str> for StepKey {
    fn from(name: &str) -> Self {
        if name.is_empty() { Self::root() } else { Self::root().child(name) }
    }
}

/// One part; the empty text is the root.
impl From<String> for StepKey {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<&StepKey> for StepKey {
    fn from(key: &StepKey) -> Self {
        key.clone()
    }
}

/// Parts, outermost first.
impl<P: AsRef<str>> FromIterator<P> for StepKey {
    fn from_iter<I: IntoIterator<Item = P>>(parts: I) -> Self {
        parts.into_iter().fold(Self::root(), |key, part| key.child(part.as_ref()))
    }
}

impl<P: AsRef<str>, const N: usize> From<[P; N]> for StepKey {
    fn from(parts: [P; N]) -> Self {
        parts.into_iter().collect()
    }
}

impl<P: AsRef<str>> From<&[P]> for StepKey {
    fn from(parts: &[P]) -> Self {
        parts.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [&str; 14] =
        ["a", "a/b", "a%2Fb", "/", "%", "~", "~a", "ö\u{202e}", "", "a b", "\"", "\0", ".", "a\n"];

    #[test]
    fn a_step_is_inside_its_scope_and_not_inside_a_namesake() {
        let scope = StepKey::from(["tool", "inbox"]);
        assert!(scope.child("create").is_inside(&scope));
        assert!(!StepKey::from(["tool", "inbox2", "create"]).is_inside(&scope));
        assert!(!StepKey::from(["tool", "inbox/create"]).is_inside(&scope));
        assert!(!scope.is_inside(&scope));
        assert!(scope.is_inside(&StepKey::root()) && !StepKey::root().is_inside(&StepKey::root()));
    }

    #[test]
    fn a_path_has_one_text_and_is_read_back_from_it_whatever_its_parts_hold() {
        let mut texts = std::collections::BTreeMap::new();
        let paths = PARTS
            .iter()
            .map(|one| vec![*one])
            .chain(PARTS.iter().flat_map(|one| PARTS.iter().map(|two| vec![*one, *two])));
        for path in paths {
            let key = StepKey::from(path.as_slice());
            assert_eq!(key.parts().collect::<Vec<_>>(), path);
            assert_eq!(StepKey::parse(key.as_str()), Ok(key.clone()), "{key}");
            assert!(!key.as_str().chars().any(char::is_control), "{key}");
            if let Some(other) = texts.insert(key.to_string(), path.clone()) {
                panic!("{other:?} and {path:?} are both {key}");
            }
            let scope = StepKey::from(&path[..1]);
            assert_eq!(key.is_inside(&scope), path.len() == 2);
        }
        let beside = StepKey::from("a").beside("label").child("x");
        assert_eq!(beside.as_str(), "a/~label/x");
        assert_eq!(StepKey::parse(beside.as_str()), Ok(beside));
    }

    #[test]
    fn what_no_key_looks_like_is_refused_and_what_needs_no_escape_may_have_one() {
        assert_eq!(StepKey::parse("a%2fb/%63"), Ok(StepKey::from(["a/b", "c"])));
        for text in ["a//b", "/a", "a/", "%", "a%2", "a%zz", "%ff"] {
            assert!(StepKey::parse(text).is_err(), "{text}");
        }
        assert_eq!(StepKey::parse(""), Ok(StepKey::root()));
    }
}
