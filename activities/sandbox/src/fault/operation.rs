//! Operation: what class of call it is, which is what decides the faults that apply to it.

use super::Provider;

/// Whether a call reads or writes, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Read,
    /// A read of many, in pages or not.
    List,
    Create,
    /// A write that makes nothing and takes nothing away.
    Update,
    Delete,
}

impl Class {
    pub(crate) fn is_write(self) -> bool {
        !matches!(self, Self::Read | Self::List)
    }
}

/// The class of an operation, in the provider's own words for it.
pub(crate) fn class(provider: Provider, operation: &str) -> Class {
    const LISTS: &[(Provider, &str)] = &[
        (Provider::Railway, "projects"),
        (Provider::Railway, "domains"),
        (Provider::Railway, "environmentPatches"),
        (Provider::Railway, "deployments"),
        (Provider::Openrouter, "list"),
        (Provider::Agentmail, "listInboxes"),
        (Provider::Telnyx, "listAvailablePhoneNumbers"),
        (Provider::Telnyx, "listNumberOrders"),
        (Provider::Telnyx, "listPhoneNumbers"),
        (Provider::Telnyx, "listMessagingProfiles"),
        (Provider::Ghcr, "listTags"),
    ];
    const UPDATES: &[(Provider, &str)] = &[
        (Provider::Runtime, "provision"),
        (Provider::Runtime, "updateTemplate"),
        (Provider::Runtime, "join"),
        (Provider::Runtime, "reset"),
        (Provider::Runtime, "notify"),
        (Provider::Runtime, "send"),
        (Provider::Runtime, "exportMemory"),
        (Provider::Runtime, "importMemory"),
        (Provider::Railway, "environmentPatchCommit"),
    ];
    if LISTS.contains(&(provider, operation)) {
        return Class::List;
    }
    if UPDATES.contains(&(provider, operation)) {
        return Class::Update;
    }
    let is_named = |verb: &str| operation.starts_with(&verb.to_lowercase()) || operation.contains(verb);
    if is_named("Create") {
        Class::Create
    } else if is_named("Delete") {
        Class::Delete
    } else if is_named("Update") || is_named("Upsert") || is_named("Commit") {
        Class::Update
    } else {
        Class::Read
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn every_operation_is_of_the_class_that_its_name_says() {
        assert_eq!(class(Provider::Railway, "projectCreate"), Class::Create);
        assert_eq!(class(Provider::Openrouter, "createKeys"), Class::Create);
        assert_eq!(class(Provider::Openrouter, "deleteKeys"), Class::Delete);
        assert_eq!(class(Provider::Railway, "projectDelete"), Class::Delete);
        assert_eq!(class(Provider::Telnyx, "updateMessagingSettings"), Class::Update);
        assert_eq!(class(Provider::Railway, "environmentPatchCommit"), Class::Update);
        assert_eq!(class(Provider::Railway, "environment"), Class::Read);
        for provider in Provider::iter() {
            for operation in provider.operations().iter().filter(|name| name.starts_with("list")) {
                assert_eq!(class(provider, operation), Class::List, "{provider}.{operation}");
            }
        }
    }
}
