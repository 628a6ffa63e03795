//! Claim: give one instance to somebody.

use amends_activities::agentmail::CreateInbox;
use amends_activities::pool::{
    ChooseNumber, ClaimRequest, EnterQueue, PickNumber, RecordClaim, ReserveInstance, Reserved, StockNumber,
    Tool,
};
use amends_activities::runtime::{
    ConfigureAgent, JoinConversation, ObserveConversation, ToolHandle, VerifyConfigured,
};
use amends_activities::telnyx::{
    AssignNumber, AwaitNumber, EnsureMessagingProfile, MarkNumber, OrderNumber, SearchNumbers,
};
use amends_engine::{Saga, Workflow, saga, secs};
use serde::{Deserialize, Serialize};

/// The saga that gives one instance to somebody.
pub struct Claim;

/// An instance that was claimed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claimed {
    /// Which.
    pub instance: String,
    /// Whether it is still the claimer's; not when a teardown came in between.
    pub is_claimed: bool,
    /// The conversation it is in.
    pub conversation: Option<String>,
    /// Its tools.
    pub tools: Vec<ToolHandle>,
}

impl Workflow for Claim {
    const NAME: &'static str = "claim";
    const VERSION: u32 = 1;
    type Input = ClaimRequest;
    type Output = Claimed;

    fn owner(_: &ClaimRequest, claimed: &Claimed) -> Option<String> {
        Some(claimed.instance.clone())
    }

    async fn run(&self, saga: &Saga, request: ClaimRequest) -> saga::Result<Claimed> {
        let queued = saga.transact("queue", EnterQueue { template: request.template_id.clone() }).await?;
        let reserve = ReserveInstance {
            template: request.template_id,
            pool: queued.pool.clone(),
            owner: request.owner_id,
            conversation_target: request.join_url.clone(),
        };
        let instance = saga.transact("reserve", reserve).await?;
        let agent_name = request.name.unwrap_or_else(|| instance.definition.agent_name.clone());

        let tools = instance.definition.tools.iter().map(|tool| (tool.to_string(), *tool));
        let tools = saga
            .each("tools", tools.collect::<Vec<_>>(), |saga, tool| {
                provide(saga, tool, &instance, &agent_name)
            })
            .await?;
        let configure = ConfigureAgent {
            domain: instance.domain.clone(),
            token: instance.token.clone(),
            epoch: instance.epoch,
            agent_name: agent_name.clone(),
            instructions: instance.definition.instructions.clone(),
            model: instance.definition.model.clone(),
            tools: tools.clone(),
        };
        saga.step("configure", configure).await?;

        let conversation = if instance.settings.conversations {
            let join = JoinConversation {
                domain: instance.domain.clone(),
                token: instance.token.clone(),
                epoch: instance.epoch,
                join_url: request.join_url,
            };
            let conversation = saga.step("join", join).await?;
            let observe = ObserveConversation {
                domain: instance.domain.clone(),
                token: instance.token.clone(),
                conversation,
            };
            Some(saga.pivot("bound", observe).await?.take().conversation)
        } else {
            let verify = VerifyConfigured { domain: instance.domain.clone(), token: instance.token.clone() };
            saga.pivot("configured", verify).await?;
            None
        };
        let record = RecordClaim {
            instance: instance.instance.clone(),
            epoch: instance.epoch,
            agent_name,
            conversation: conversation.clone(),
        };
        let committed = saga.transact("commit", record).await?;
        let is_claimed = committed.is_claimed;
        Ok(Claimed { instance: instance.instance.clone(), is_claimed, conversation, tools })
    }
}

/// One tool, whichever it is; its handle is what the agent gets.
async fn provide(saga: Saga, tool: Tool, instance: &Reserved, agent_name: &str) -> saga::Result<ToolHandle> {
    let handle = match tool {
        Tool::Agentmail => {
            // An instance that is claimed again gets a new one.
            let name = format!("{}-{}", instance.name, instance.epoch);
            saga.step("inbox", CreateInbox { name, display_name: agent_name.to_owned() })
                .await?
                .take()
                .address
        }
        Tool::Telnyx => number(&saga, instance).await?,
    };
    Ok(ToolHandle { tool: tool.to_string(), handle })
}

/// A number from the stock, or a new one; it is the stock's whatever becomes of the claim.
async fn number(saga: &Saga, instance: &Reserved) -> saga::Result<String> {
    let chosen = saga.transact("choose", ChooseNumber { instance: instance.instance.clone() }).await?.take();
    let (phone_number, number_id) = match chosen.number {
        Some(number) => number,
        None => buy(saga, instance).await?,
    };
    let profile = EnsureMessagingProfile { name: profile_name(&instance.name) };
    let profile = saga.step("profile", profile).await?;
    let assign = AssignNumber { number_id, phone_number: phone_number.clone(), profile: profile.id.clone() };
    saga.step("assign", assign).await?;
    Ok(phone_number)
}

async fn buy(saga: &Saga, instance: &Reserved) -> saga::Result<(String, String)> {
    let search = SearchNumbers { country: instance.settings.country.clone() };
    let found = saga.step("search", search).await?;
    let pick = PickNumber { instance: instance.instance.clone(), candidates: found.phone_numbers.clone() };
    let picked = saga.transact("pick", pick).await?;
    let phone_number = picked.phone_number.clone();
    let reference = format!("{}-{}", instance.name, instance.epoch);
    let order = OrderNumber { phone_number: phone_number.clone(), reference: reference.clone() };
    let order = saga.step("order", order).await?;
    let wait = AwaitNumber { order, phone_number: phone_number.clone(), reference: reference.clone() };
    let number = saga.poll_until("await", wait, secs(3), secs(600)).await?;
    let mark = MarkNumber { number_id: number.id.clone(), phone_number: phone_number.clone(), reference };
    saga.step("mark", mark).await?;
    let stock = StockNumber { phone_number: phone_number.clone(), telnyx_id: number.id.clone() };
    saga.transact("stock", stock).await?;
    Ok((phone_number, number.id.clone()))
}

/// One messaging profile for all instances of an environment: their names up to the last part.
fn profile_name(instance: &str) -> String {
    instance.rsplit_once('-').map_or(instance, |(environment, _)| environment).to_owned()
}
