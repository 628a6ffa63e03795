//! The registry: every activity, local and workflow of the product, by name.

use std::sync::Arc;

use amends_activities::agentmail::AgentMail;
use amends_activities::ghcr::{self, Ghcr};
use amends_activities::openrouter::OpenRouter;
use amends_activities::pool;
use amends_activities::railway::Railway;
use amends_activities::runtime::{self, Runtime};
use amends_activities::telnyx::Telnyx;
use amends_engine::Registry;
use amends_engine::sweep::Names;

use crate::restock::{Pick, Restock};
use crate::{
    Claim, MakeProfile, Recheck, Replenish, Reserve, SettleRecheck, StartProfile, Teardown, providers,
};

/// A client for each provider.
#[derive(Clone)]
#[allow(missing_docs, reason = "each is the client of its name")]
pub struct Clients {
    pub railway: Arc<Railway>,
    pub openrouter: Arc<OpenRouter>,
    pub agentmail: Arc<AgentMail>,
    pub telnyx: Arc<Telnyx>,
    pub ghcr: Arc<Ghcr>,
    pub runtime: Arc<Runtime>,
}

/// All that this program can do; `names` is the grammar by which what is ours is known at the providers.
pub fn registry(clients: &Clients, names: &Names) -> Registry {
    let Clients { ghcr, runtime, .. } = clients.clone();
    let offered = providers(clients, names).into_iter().fold(Registry::default(), Registry::provider);
    offered
        .activity::<ghcr::PinDigest>(ghcr)
        .activity::<runtime::CheckHealth>(runtime.clone())
        .activity::<runtime::VerifyClean>(runtime.clone())
        .activity::<runtime::VerifyConfigured>(runtime.clone())
        .activity::<runtime::HoldContainer>(runtime.clone())
        .activity::<runtime::CheckContainer>(runtime.clone())
        .activity::<runtime::CleanContainer>(runtime.clone())
        .activity::<runtime::ReleaseContainer>(runtime.clone())
        .activity::<runtime::AwaitAcceptance>(runtime.clone())
        .activity::<runtime::ConfigureAgent>(runtime.clone())
        .activity::<runtime::JoinConversation>(runtime.clone())
        .activity::<runtime::ObserveConversation>(runtime)
        .local::<pool::PlanInstance>()
        .local::<pool::MarkIdle>()
        .local::<pool::EnterQueue>()
        .local::<Reserve>()
        .local::<pool::ReadContainer>()
        .local::<SettleRecheck>()
        .local::<pool::NoteConversation>()
        .local::<pool::RecordClaim>()
        .local::<pool::FenceInstance>()
        .local::<pool::AwaitSagaEnd>()
        .local::<pool::TakeResources>()
        .local::<pool::RecordGone>()
        .local::<pool::ChooseNumber>()
        .local::<Pick>()
        .local::<StartProfile>()
        .local::<pool::RestockNumber>()
        .local::<pool::StockNumber>()
        .local::<pool::TakeNumberRows>()
        .local::<pool::QuarantineNumber>()
        .workflow(Replenish)
        .workflow(Claim)
        .workflow(Recheck)
        .workflow(Restock)
        .workflow(MakeProfile)
        .workflow(Teardown)
}
