//! Claim: give one instance to somebody.

use amends_activities::agentmail::CreateInbox;
use amends_activities::pool::{
    ChooseNumber, ClaimRequest, EnterQueue, PickNumber, Queued, RecordClaim, ReserveInstance, Reserved,
    StockNumber, TaintInstance, Tool,
};
use amends_activities::runtime::{
    ConfigureAgent, JoinConversation, ObserveConversation, ToolHandle, VerifyConfigured,
};
use amends_activities::telnyx::{
    AssignNumber, AwaitNumber, EnsureMessagingProfile, MarkNumber, OrderNumber, SearchNumbers,
};
use amends_engine::{Halt, Made, Refusal, Saga, Timestamp, Workflow, saga, secs};
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
        let given = give_one(saga, &request).await?;
        let record = RecordClaim {
            instance: given.instance.instance.clone(),
            epoch: given.instance.epoch,
            agent_name: given.agent_name,
            conversation: given.conversation.clone(),
        };
        let is_claimed = saga.transact("commit", record).await?.is_claimed;
        let instance = given.instance.take().instance;
        Ok(Claimed { instance, is_claimed, conversation: given.conversation, tools: given.tools })
    }
}

/// An instance that is its claimer's, and all that it got.
struct Given {
    instance: Made<Reserved>,
    agent_name: String,
    tools: Vec<ToolHandle>,
    conversation: Option<String>,
}

/// So many instances at most may turn out to be somebody else's before the claim is.
const CANDIDATES: u32 = 3;

/// One instance after the other, until one can be given. What was done to one is undone before the next is tried.
async fn give_one(saga: &Saga, request: &ClaimRequest) -> saga::Result<Given> {
    let mut waits_since = None;
    for candidate in 1..CANDIDATES {
        let (key, since) = (format!("candidate-{candidate}"), &mut waits_since);
        let given = saga.scope(&key, |saga| async move {
            let queued = enter(&saga, request, *since).await?;
            *since = Some(queued.since);
            give(&saga, request, &queued.pool).await
        });
        match given.await {
            Err(Halt::Refused { refusal, .. }) if is_anothers(&refusal) => {}
            given => return given,
        }
    }
    // The last one's end is the claim's.
    let queued = enter(saga, request, waits_since).await?;
    give(saga, request, &queued.pool).await
}

async fn enter(saga: &Saga, request: &ClaimRequest, since: Option<Timestamp>) -> saga::Result<Made<Queued>> {
    saga.transact("queue", EnterQueue { template: request.template_id.clone(), since }).await
}

/// Whether the container answered for somebody else: a conversation that is not ours, a claim that is not this one.
fn is_anothers(refusal: &Refusal) -> bool {
    matches!(refusal.code.as_str(), "foreign_conversation" | "superseded")
}

/// Reserves an instance, and makes it the claimer's, up to the point where there is no way back.
async fn give(saga: &Saga, request: &ClaimRequest, pool: &str) -> saga::Result<Given> {
    let reserve = ReserveInstance {
        template: request.template_id.clone(),
        pool: pool.to_owned(),
        owner: request.owner_id.clone(),
        conversation_target: request.join_url.clone(),
    };
    let instance = saga.transact("reserve", reserve).await?;
    let agent_name = request.name.clone().unwrap_or_else(|| instance.definition.agent_name.clone());

    let tools = instance.definition.tools.iter().map(|tool| (tool.to_string(), *tool));
    let tools = saga
        .each("tools", tools.collect::<Vec<_>>(), |saga, tool| provide(saga, tool, &instance, &agent_name))
        .await?;
    match bind(saga, request, &instance, &agent_name, &tools).await {
        Ok(conversation) => Ok(Given { instance, agent_name, tools, conversation }),
        Err(halt) => {
            // Given back it would be the next claim's, and the one's after that.
            if matches!(&halt, Halt::Refused { refusal, .. } if is_anothers(refusal)) {
                let taint = TaintInstance { instance: instance.instance.clone(), epoch: instance.epoch };
                saga.transact("taint", taint).await?;
            }
            Err(halt)
        }
    }
}

/// Configures the runtime and has it join; the conversation that it was seen in, where its kind has any.
async fn bind(
    saga: &Saga,
    request: &ClaimRequest,
    instance: &Reserved,
    agent_name: &str,
    tools: &[ToolHandle],
) -> saga::Result<Option<String>> {
    let (domain, token) = (instance.domain.clone(), instance.token.clone());
    let configure = ConfigureAgent {
        domain: domain.clone(),
        token: token.clone(),
        epoch: instance.epoch,
        agent_name: agent_name.to_owned(),
        instructions: instance.definition.instructions.clone(),
        model: instance.definition.model.clone(),
        tools: tools.to_vec(),
    };
    saga.step("configure", configure).await?;
    if !instance.settings.conversations {
        let epoch = instance.epoch;
        saga.pivot("configured", VerifyConfigured { domain, token, epoch }).await?;
        return Ok(None);
    }
    let join = JoinConversation {
        domain: domain.clone(),
        token: token.clone(),
        epoch: instance.epoch,
        join_url: request.join_url.clone(),
    };
    let conversation = saga.step("join", join).await?;
    let bound = saga.pivot("bound", ObserveConversation { domain, token, conversation }).await?;
    Ok(Some(bound.take().conversation))
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
