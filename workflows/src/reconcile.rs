//! Reconcile: the providers that are compared with the ledger, and how the pool's names are known.
//!
//! The sweep itself is the engine's. What the pool adds is in each provider's census: which instance a name speaks of,
//! that numbers are never removed, and that an idle instance of which something has vanished is tainted.

use std::sync::Arc;

use amends_activities::agentmail::AgentMailCensus;
use amends_activities::openrouter::OpenRouterCensus;
use amends_activities::railway::RailwayCensus;
use amends_activities::telnyx::TelnyxCensus;
use amends_engine::sweep::{Names, Provider};

use crate::Clients;

/// Every provider, in the order in which it is shown.
pub fn providers(clients: &Clients, names: &Names) -> Vec<Arc<dyn Provider>> {
    vec![
        RailwayCensus::new(clients.railway.clone(), names.clone()),
        OpenRouterCensus::new(clients.openrouter.clone(), names.clone()),
        AgentMailCensus::new(clients.agentmail.clone(), names.clone()),
        TelnyxCensus::new(clients.telnyx.clone(), names.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use amends_activities::agentmail::{AgentMail, RemoveInbox};
    use amends_activities::ghcr::Ghcr;
    use amends_activities::openrouter::{MintKey, OpenRouter, RemoveKey};
    use amends_activities::railway::{CreateProject, Railway, RemoveProject};
    use amends_activities::runtime::Runtime;
    use amends_activities::telnyx::{OrderNumber, Telnyx, UnassignNumber};
    use amends_engine::{Activity, Effect, Removal};

    use super::*;

    /// What was just made may not show, and what was just deleted may: a sight of less than that proves nothing.
    #[test]
    fn nothing_is_believed_before_what_was_lost_or_deleted_is_surely_over() {
        let clients = Clients {
            railway: Arc::new(Railway::new("http://localhost", Vec::new())),
            openrouter: Arc::new(OpenRouter::new("http://localhost", "".into())),
            agentmail: Arc::new(AgentMail::new("http://localhost", "".into())),
            telnyx: Arc::new(Telnyx::new("http://localhost", "".into())),
            ghcr: Arc::new(Ghcr::new("http://localhost", None)),
            runtime: Arc::new(Runtime::new("http://localhost")),
        };
        let made = |effect: Effect| match effect {
            Effect::Searchable { settle_after } | Effect::SearchableOnce { settle_after } => settle_after,
            other => panic!("{other:?}"),
        };
        let known = [
            ("railway", [made(CreateProject::EFFECT), RemoveProject::SETTLE_AFTER]),
            ("openrouter", [made(MintKey::EFFECT), RemoveKey::SETTLE_AFTER]),
            ("agentmail", [RemoveInbox::SETTLE_AFTER; 2]),
            ("telnyx", [made(OrderNumber::EFFECT), UnassignNumber::SETTLE_AFTER]),
        ];
        let providers = providers(&clients, &Names::of("am", "test"));
        assert_eq!(providers.len(), known.len());
        for (provider, (name, settles)) in providers.iter().zip(known) {
            assert_eq!(provider.name(), name);
            assert!(settles.iter().all(|settles| *settles <= provider.settle_after()), "{name}");
        }
    }
}
