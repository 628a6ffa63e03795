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
