//! The registry: every activity, local and workflow of the product, by name.

use std::sync::Arc;

use amends_activities::agentmail::{self, AgentMail};
use amends_activities::ghcr::{self, Ghcr};
use amends_activities::openrouter::{self, OpenRouter};
use amends_activities::pool;
use amends_activities::railway::{self, Railway};
use amends_activities::runtime::{self, Runtime};
use amends_activities::telnyx::{self, Telnyx};
use amends_engine::Registry;

use crate::{Claim, Recheck, Replenish, Reserve, SettleRecheck, Teardown};

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

/// All that this program can do.
pub fn registry(clients: &Clients) -> Registry {
    let Clients { railway, openrouter, agentmail, telnyx, ghcr, runtime } = clients.clone();
    Registry::default()
        .activity::<railway::CreateProject>(railway.clone())
        .activity::<railway::ReadEnvironment>(railway.clone())
        .activity::<railway::CreateService>(railway.clone())
        .activity::<railway::AttachVolume>(railway.clone())
        .activity::<railway::CreateDomain>(railway.clone())
        .activity::<railway::DeployImage>(railway.clone())
        .activity::<railway::ObserveDeploy>(railway.clone())
        .removal::<railway::RemoveProject>(railway)
        .activity::<openrouter::MintKey>(openrouter.clone())
        .removal::<openrouter::RemoveKey>(openrouter)
        .activity::<agentmail::CreateInbox>(agentmail.clone())
        .removal::<agentmail::RemoveInbox>(agentmail)
        .activity::<telnyx::EnsureMessagingProfile>(telnyx.clone())
        .activity::<telnyx::SearchNumbers>(telnyx.clone())
        .activity::<telnyx::OrderNumber>(telnyx.clone())
        .activity::<telnyx::AwaitNumber>(telnyx.clone())
        .activity::<telnyx::MarkNumber>(telnyx.clone())
        .activity::<telnyx::AssignNumber>(telnyx.clone())
        .activity::<telnyx::VoidOrder>(telnyx.clone())
        .removal::<telnyx::UnassignNumber>(telnyx)
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
        .local::<pool::PickNumber>()
        .local::<pool::StockNumber>()
        .local::<pool::TakeNumberRows>()
        .local::<pool::QuarantineNumber>()
        .workflow(Replenish)
        .workflow(Claim)
        .workflow(Recheck)
        .workflow(Teardown)
}
