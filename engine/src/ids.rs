//! Ids: a prefix that says what a thing is, and a UUID v7 in lower-case Crockford base32.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use crate::step_key::{MalformedKey, StepKey};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The 26 characters of a UUID in lower-case Crockford base32.
pub fn base32(uuid: Uuid) -> String {
    let mut bits = uuid.as_u128();
    let mut text = [0u8; 26];
    for place in text.iter_mut().rev() {
        *place = ALPHABET.get((bits & 31) as usize).copied().unwrap_or(b'0');
        bits >>= 5;
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Twelve base32 characters (60 bits) of randomness, short enough to stand inside a provider's name.
pub fn short(uuid: Uuid) -> String {
    // The low bits of a v4 or v7 UUID are random; the first ones of v7 are the clock.
    base32(uuid).split_off(14)
}

/// Whether text is made of the characters of our base32 alone.
pub(crate) fn is_base32(text: &str) -> bool {
    text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// Text that came from outside and is not an id of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id that begins with {1:?} and has 26 characters of base32 after it")]
pub struct MalformedId(pub String, pub &'static str);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// The id that stands for this UUID.
            pub fn from_uuid(uuid: Uuid) -> Self {
                Self(format!("{}{}", $prefix, base32(uuid)))
            }

            /// Reads an id as it came over the wire.
            pub fn parse(text: &str) -> Result<Self, MalformedId> {
                match text.strip_prefix($prefix) {
                    Some(rest) if rest.len() == 26 && rest.bytes().all(|byte| ALPHABET.contains(&byte)) => {
                        Ok(Self(text.to_owned()))
                    }
                    _ => Err(MalformedId(text.chars().take(80).collect(), $prefix)),
                }
            }

            /// The id of a row that this store wrote; not checked again.
            pub fn stored(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// One run of a workflow.
    SagaId,
    "sg_"
);
id!(
    /// One thing that exists, or may exist, outside by our doing.
    ResourceId,
    "rs_"
);
id!(
    /// A sealed secret, as journals and inputs name it.
    SecretRef,
    "sec_"
);
id!(
    /// One act of a person or of another saga on a saga.
    OperationId,
    "op_"
);
id!(
    /// One thing in which a provider and the ledger differ.
    FindingId,
    "fd_"
);
id!(
    /// One installation of the engine: a database and its key.
    InstallationId,
    "il_"
);

impl OperationId {
    /// The id of the act that a client asks of a saga under this key: the same for each repetition (UUID v5).
    pub fn of_key(saga: &SagaId, key: &str) -> Self {
        let name = format!("{saga}/act/{key}");
        Self::from_uuid(Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_a_foreign_one_is_refused() {
        let id = SagaId::from_uuid(Uuid::from_u128(7));
        assert_eq!(id.as_str(), "sg_00000000000000000000000007");
        assert_eq!(SagaId::parse(id.as_str()), Ok(id));
        assert!(SagaId::parse("rs_00000000000000000000000007").is_err());
        assert!(SagaId::parse("sg_0000000000000000000000000\u{7}").is_err());
    }
}
